/* proc/child.c: the processes of the master: born, ready, leaving, gone; what they say and what is done to them.
 * Must not know what a roll is about: roll.c is told what happened. */
#include <base/alloc.h>
#include <base/clock.h>
#include <base/failpoint.h>
#include <base/log.h>
#include <errno.h>
#include <inttypes.h>
#include <proc/master_parts.h>
#include <proc/process.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *name_of(const bt_slot *slot)
{
    return slot->crew->name;
}

/* ---- children: what they say ---- */

/* A pass channel between two children; the master keeps no end of it, or nobody would ever see its end-of-file. It is
 * short-lived, so a master that has used up its descriptors makes it from its reserve: it must not be the master's
 * fault that connections have nowhere to go. */
static int connect_children(bt_child *old, bt_child *successor, bt_message_type type, uint64_t value)
{
    bt_master *master = old->slot->crew->master;
    int pair[2] = {-1, -1};
    bt_master_give_reserve(master);
    int err = bt_channel_pair(pair);
    if (err == 0)
        err = bt_failpoint("master:before-pass-in");
    if (err == 0)
        err = bt_channel_send(&successor->channel, BT_MESSAGE_PASS_IN, 0, NULL, pair[1]);
    if (err == 0)
        err = bt_failpoint("master:before-drain");
    if (err == 0)
        err = bt_channel_send(&old->channel, type, value, NULL, pair[0]);
    if (pair[0] >= 0) {
        close(pair[0]);
        close(pair[1]);
    }
    bt_master_take_reserve(master);
    bt_failpoint("master:after-drain");
    return err;
}

static void connect_straggler(bt_child *child)
{
    bt_child *successor = bt_slot_heir(child->slot);
    if (child->state != BT_CHILD_DRAINING || successor == NULL || successor == child)
        return;
    int err = connect_children(child, successor, BT_MESSAGE_PASS_OUT, 0);
    if (err < 0)
        bt_log(BT_LOG_WARN, "pass-channel-failed pid=%d error=\"%s\"", child->pid, strerror(-err));
}

/* Gives each draining process whose heir has just changed a channel to the new one. */
static void connect_stragglers(const bt_child *heir)
{
    const bt_crew *crew = heir->slot->crew;
    for (size_t i = 0; i < crew->slot_count; i++) {
        bt_slot *slot = crew->slots[i];
        if (bt_slot_heir(slot) != heir)
            continue;
        bt_list_each (node, &slot->leaving)
            connect_straggler(bt_container(node, bt_child, leaving));
    }
}

/* Draining processes are bounded: the oldest is asked to end. */
static void limit_leaving(bt_slot *slot)
{
    int64_t count = 0;
    bt_list_each (node, &slot->leaving)
        count += bt_container(node, bt_child, leaving)->state == BT_CHILD_DRAINING;
    bt_list_each (node, &slot->leaving) {
        bt_child *child = bt_container(node, bt_child, leaving);
        if (count <= slot->crew->config->max_draining)
            return;
        if (child->state != BT_CHILD_DRAINING)
            continue;
        bt_log(BT_LOG_WARN, "drain-cut worker=%s slot=%d pid=%d", name_of(slot), slot->index, child->pid);
        bt_child_stop(child, slot->crew->master->limits->stop_timeout_ms);
        count--;
    }
}

static void on_ready(bt_child *child)
{
    bt_slot *slot = child->slot;
    if (child->state != BT_CHILD_STARTING || child->is_dead || child->killed_by_us)
        return; /* too late: nothing may be handed to a process that is about to be gone */
    bt_failpoint("master:ready");
    uv_timer_stop(&child->timer);
    child->state = BT_CHILD_SERVING;
    child->ready_ms = bt_clock_ms();
    slot->successor = NULL;
    bt_child *old = slot->serving;
    slot->serving = child;
    slot->wants_recycle = false; /* that was the one before */
    slot->generation = child->generation->number;
    bt_log(BT_LOG_INFO, "ready worker=%s slot=%d pid=%d generation=%" PRIu64 " took_ms=%" PRIu64, name_of(slot),
           slot->index, child->pid, child->generation->number, child->ready_ms - child->started_ms);
    connect_stragglers(child);
    if (old != NULL) {
        bt_master *master = slot->crew->master;
        uint64_t timeout = master->roll.without_limit ? BT_NO_LIMIT : slot->crew->config->drain_timeout_ms;
        bt_child_drain(old, child, true, timeout);
        limit_leaving(slot);
    }
    bt_roll_child_ready(child);
    bt_recycle_next(slot->crew->master);
    bt_master_check(slot->crew->master);
}

static void on_message(bt_channel *channel, const bt_message *message, int fd)
{
    bt_child *child = channel->owner;
    bt_master *master = child->slot->crew->master;
    if (fd >= 0)
        close(fd); /* processes send none */
    switch ((bt_message_type) message->type) {
    case BT_MESSAGE_READY:
        on_ready(child);
        break;
    case BT_MESSAGE_FAILED:
        snprintf(child->failure, sizeof child->failure, "%s", message->text);
        break;
    case BT_MESSAGE_HANDED_OVER:
        child->handed_over = true;
        bt_failpoint("master:handed-over");
        bt_roll_child_handed_over(child);
        bt_recycle_next(master);
        break;
    case BT_MESSAGE_ASK_PASS:
        connect_straggler(child);
        break;
    case BT_MESSAGE_ASK_RELOAD:
        bt_reload_request(master, NULL, false, NULL);
        break;
    case BT_MESSAGE_ASK_STOP:
        bt_master_stop(master, message->value != 0);
        break;
    case BT_MESSAGE_ASK_RECYCLE:
        bt_recycle_request(child, message->text);
        break;
    case BT_MESSAGE_MODULE:
    case BT_MESSAGE_CONFIG:
    case BT_MESSAGE_ADDRESS:
    case BT_MESSAGE_LISTEN_LAST:
    case BT_MESSAGE_DRAIN:
    case BT_MESSAGE_DRAIN_AND_ASK:
    case BT_MESSAGE_LIMIT:
    case BT_MESSAGE_PASS_OUT:
    case BT_MESSAGE_PASS_IN:
    case BT_MESSAGE_STOP:
    case BT_MESSAGE_RELOAD_NOTE:
    case BT_MESSAGE_LOG:
        break; /* ours to send */
    }
}

/* The process is about to end; its exit is what counts. */
static void on_channel_end(bt_channel *channel)
{
    bt_child *child = channel->owner;
    uv_poll_stop(&child->channel.poll);
}

/* ---- children: what is done to them ---- */

static void on_kill_time(uv_timer_t *timer)
{
    bt_child *child = timer->data;
    const char *why = "did not end in time";
    if (child->state == BT_CHILD_STARTING) {
        snprintf(child->failure, sizeof child->failure, "not ready within %" PRIu64 " ms (ready_timeout)",
                 child->slot->crew->config->ready_timeout_ms);
        why = child->failure;
    }
    bt_log(BT_LOG_WARN, "kill worker=%s slot=%d pid=%d reason=\"%s\"", name_of(child->slot), child->slot->index,
           child->pid, why);
    bt_child_kill(child);
}

void bt_child_kill(bt_child *child)
{
    if (child->is_dead)
        return; /* its number may be another process's by now */
    child->killed_by_us = true;
    kill(child->pid, SIGKILL);
}

static void leave(bt_child *child, bt_child_state state)
{
    bt_slot *slot = child->slot;
    if (slot->serving == child)
        slot->serving = NULL;
    if (slot->successor == child)
        slot->successor = NULL;
    child->state = state;
    if (bt_list_empty(&child->leaving))
        bt_list_append(&slot->leaving, &child->leaving);
}

static void arm_kill(bt_child *child, uint64_t timeout_ms)
{
    uint64_t kill_ms = child->slot->crew->master->limits->kill_timeout_ms;
    if (timeout_ms == BT_NO_LIMIT)
        uv_timer_stop(&child->timer);
    else
        uv_timer_start(&child->timer, on_kill_time, timeout_ms + 2 * BT_LAST_WORDS_MS + kill_ms, 0);
}

void bt_child_drain(bt_child *child, bt_child *successor, bool has_heir, uint64_t timeout_ms)
{
    leave(child, BT_CHILD_DRAINING);
    arm_kill(child, timeout_ms);
    int err = successor == NULL ? -ESRCH : connect_children(child, successor, BT_MESSAGE_DRAIN, timeout_ms);
    if (successor != NULL && err < 0)
        bt_log(BT_LOG_WARN, "pass-channel-failed pid=%d error=\"%s\"", child->pid, strerror(-err));
    if (err < 0) /* without an heir it answers and closes; without only the channel it serves on and asks for one */
        bt_channel_send(&child->channel, has_heir ? BT_MESSAGE_DRAIN_AND_ASK : BT_MESSAGE_DRAIN, timeout_ms, NULL, -1);
}

void bt_child_limit(bt_child *child, uint64_t timeout_ms)
{
    if (child->state != BT_CHILD_DRAINING || uv_is_active((uv_handle_t *) &child->timer))
        return; /* it has an end already */
    arm_kill(child, timeout_ms);
    bt_channel_send(&child->channel, BT_MESSAGE_LIMIT, timeout_ms, NULL, -1);
}

void bt_child_stop(bt_child *child, uint64_t timeout_ms)
{
    if (child->is_dead)
        return;
    bool was_starting = child->state == BT_CHILD_STARTING;
    leave(child, BT_CHILD_STOPPING);
    if (was_starting) {
        bt_child_kill(child); /* it serves nobody yet, and may be stuck in on_worker_start */
        return;
    }
    arm_kill(child, timeout_ms);
    bt_channel_send(&child->channel, BT_MESSAGE_STOP, timeout_ms, NULL, -1);
}

/* ---- birth and death ---- */

/* The record of a running process. NULL: out of memory, or its channel cannot be polled. */
static bt_child *open_child(bt_slot *slot, bt_generation *generation, pid_t pid, uint64_t number, int channel_fd,
                            bt_row *row)
{
    bt_master *master = slot->crew->master;
    bt_child *child = bt_calloc(1, sizeof *child);
    if (child == NULL)
        return NULL;
    child->channel.on_message = on_message;
    child->channel.on_end = on_channel_end;
    child->channel.owner = child;
    if (bt_master_fd_add(master, channel_fd) < 0 || bt_channel_start(&child->channel, &master->loop, channel_fd) < 0) {
        bt_master_fd_remove(master, channel_fd);
        free(child);
        return NULL;
    }
    child->slot = slot;
    child->pid = pid;
    child->number = number;
    child->generation = bt_generation_ref(generation);
    child->row = row;
    child->open_handles = 2;
    bt_list_init(&child->leaving);
    bt_list_append(&master->children, &child->node);
    uv_timer_init(&master->loop, &child->timer);
    child->timer.data = child;
    return child;
}

bt_child *bt_child_new(bt_slot *slot, bt_generation *generation, pid_t pid, uint64_t number, int channel_fd,
                       bt_row *row)
{
    bt_child *child = open_child(slot, generation, pid, number, channel_fd, row);
    if (child == NULL)
        return NULL;
    child->started_ms = bt_clock_ms();
    child->started_wall_ms = bt_clock_wall_ms();
    child->sockets = bt_listeners_count(slot->crew->master, bt_generation_section(generation, name_of(slot)));
    uv_timer_start(&child->timer, on_kill_time, slot->crew->config->ready_timeout_ms, 0);
    slot->successor = child;
    bt_log(BT_LOG_INFO, "starting worker=%s slot=%d pid=%d generation=%" PRIu64, name_of(slot), slot->index, pid,
           generation->number);
    bt_reload_progress(slot->crew->master, slot, "starting", pid, generation->number, "");
    return child;
}

bt_child *bt_child_adopt(const bt_child *facts, int channel_fd, uint64_t end_in_ms)
{
    bt_slot *slot = facts->slot;
    bt_child *child = open_child(slot, facts->generation, facts->pid, facts->number, channel_fd, facts->row);
    if (child == NULL)
        return NULL;
    child->state = facts->state;
    child->started_ms = facts->started_ms;
    child->ready_ms = facts->ready_ms;
    child->started_wall_ms = facts->started_wall_ms;
    child->killed_by_us = facts->killed_by_us;
    child->handed_over = facts->handed_over;
    child->sockets = facts->sockets;
    snprintf(child->failure, sizeof child->failure, "%s", facts->failure);
    if (end_in_ms != BT_NO_LIMIT)
        uv_timer_start(&child->timer, on_kill_time, end_in_ms, 0);
    switch (child->state) {
    case BT_CHILD_STARTING:
        slot->successor = child;
        break;
    case BT_CHILD_SERVING:
        slot->serving = child;
        break;
    case BT_CHILD_DRAINING:
    case BT_CHILD_STOPPING:
        bt_list_append(&slot->leaving, &child->leaving);
        break;
    }
    return child;
}

const char *bt_exit_text(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(out, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, size, "exit %d", WEXITSTATUS(status));
    return out;
}

static void count_exit(bt_crew *crew, const char *reason)
{
    size_t i = 0;
    while (i < crew->exit_kinds && strcmp(crew->exits[i].reason, reason) != 0)
        i++;
    if (i == sizeof crew->exits / sizeof *crew->exits)
        return; /* more kinds than there are places: they stay in the log */
    if (i == crew->exit_kinds)
        snprintf(crew->exits[crew->exit_kinds++].reason, sizeof crew->exits->reason, "%s", reason);
    crew->exits[i].count++;
}

static void release(bt_child *child)
{
    if (--child->open_handles == 0)
        free(child);
}

static void timer_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static void channel_closed(bt_channel *channel)
{
    release(channel->owner);
}

static void forget(bt_child *child)
{
    bt_master *master = child->slot->crew->master;
    bt_list_remove(&child->node);
    bt_list_remove(&child->leaving);
    /* A killed process has not counted its connections down. */
    bt_count_shared(&child->slot->crew->row->counters.connections,
                    -(int64_t) bt_counter_value(&child->row->counters.connections));
    bt_give_row(master, child->row);
    bt_master_fd_remove(master, child->channel.fd);
    bt_generation_unref(master, child->generation);
    child->generation = NULL;
    bt_channel_close(&child->channel, channel_closed);
    uv_close((uv_handle_t *) &child->timer, timer_closed);
}

void bt_child_exited(bt_child *child, int status)
{
    bt_slot *slot = child->slot;
    bt_crew *crew = slot->crew;
    char text[64];
    child->is_dead = true;
    bt_channel_read_rest(&child->channel); /* why it could not serve may still be in there */
    if (child->killed_by_us)
        snprintf(text, sizeof text, "killed by the master");
    else
        bt_exit_text(status, text, sizeof text);
    bool is_expected = child->state == BT_CHILD_DRAINING || child->state == BT_CHILD_STOPPING;
    bool is_clean = is_expected && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    bt_log(is_clean ? BT_LOG_INFO : BT_LOG_WARN, "exited worker=%s slot=%d pid=%d generation=%" PRIu64 " reason=\"%s\"",
           name_of(slot), slot->index, child->pid, child->generation->number, text);
    count_exit(crew, text);
    if (!is_clean) /* why we killed it says more than that we did */
        snprintf(slot->last_exit, sizeof slot->last_exit, "%.*s", (int) sizeof slot->last_exit - 1,
                 child->killed_by_us && child->failure[0] != '\0' ? child->failure : text);
    if (crew->worker->on_worker_exit != NULL)
        crew->worker->on_worker_exit(crew->worker, status, child->pid);

    if (slot->serving == child)
        slot->serving = NULL;
    if (slot->successor == child)
        slot->successor = NULL;
    bool by_outside_kill = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && !child->killed_by_us;
    char reason[BT_CHANNEL_TEXT + 128];
    snprintf(reason, sizeof reason, "worker %s slot %d: %s", name_of(slot), slot->index,
             child->failure[0] != '\0' ? child->failure : text);
    uint64_t lived_ms = bt_clock_ms() - child->started_ms;
    bt_roll_child_gone(child, reason, by_outside_kill);
    bt_master *master = crew->master;
    forget(child);
    if (!bt_roll_owns_slot(slot))
        bt_slot_restart_later(slot, is_expected ? BT_SHORT_LIFE_MS : lived_ms);
    bt_recycle_next(master);
    bt_master_check(master);
}
