/* proc/reload.c: who asks for a reload and what they hear: requests become jobs, jobs become rolls, results are told.
 * Must not know how slots are replaced: that is roll.c. */
#include <base/clock.h>
#include <base/log.h>
#include <inttypes.h>
#include <proc/master_state.h>
#include <stdio.h>

/* ---- who waits ---- */

void bt_reload_progress(bt_master *master, const bt_slot *slot, const char *step, pid_t pid, uint64_t generation,
                        const char *detail)
{
    const char *worker = slot == NULL ? "" : slot->crew->worker->config->name;
    int index = slot == NULL ? -1 : slot->index;
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->on_progress(waiter, worker, index, step, pid, generation, detail);
    }
}

static void tell(bt_waiter *waiter, bool ok, uint64_t generation, const char *message)
{
    bt_list_remove(&waiter->node);
    waiter->on_done(waiter, ok, generation, message);
}

void bt_reload_answer(bt_master *master, uint64_t generation, bool ok, bt_wait wait, const char *message)
{
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        bool is_concerned = waiter->generation <= generation && (!ok || waiter->wait <= wait);
        if (is_concerned)
            tell(waiter, ok, generation, message);
    }
}

void bt_reload_remember(bt_master *master, uint64_t generation, bool ok, uint64_t since_ms, const char *message)
{
    bt_roll *roll = &master->roll;
    roll->has_last = true;
    roll->last_ok = ok;
    roll->last_generation = generation;
    roll->last_took_ms = bt_clock_ms() - since_ms;
    snprintf(roll->last_message, sizeof roll->last_message, "%s", message);
    bt_log(ok ? BT_LOG_INFO : BT_LOG_ERROR, "reload generation=%" PRIu64 " ok=%s took_ms=%" PRIu64 " message=\"%s\"",
           generation, ok ? "yes" : "no", roll->last_took_ms, message);
}

void bt_reload_cancel(bt_master *master, const char *why)
{
    bt_prepare_cancel(master);
    bt_reload_answer(master, UINT64_MAX, false, BT_WAIT_PROBATION, why);
}

/* ---- who asks ---- */

/* Processes that stay are told that a reload was asked for (Workerman: onWorkerReload only). */
static void note_reload(bt_crew *crew)
{
    for (size_t i = 0; i < crew->slot_count; i++) {
        if (crew->slots[i].serving != NULL)
            bt_channel_send(&crew->slots[i].serving->channel, BT_MESSAGE_RELOAD_NOTE, 0, NULL, -1);
    }
}

/* Marks who takes part in `scope`; returns how many do. */
static size_t choose_scope(bt_master *master, const bt_crew *only, bool *scope)
{
    size_t count = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        bool takes_part = only == NULL ? crew->worker->config->reloadable : only == crew;
        if (only == NULL && !takes_part)
            note_reload(crew);
        scope[i] = scope[i] || takes_part;
        count += takes_part;
    }
    return count;
}

static void want(bt_master *master, bt_reload_job *job, bool without_limit)
{
    if (!job->is_wanted) {
        job->generation = ++master->last_generation;
        job->asked_ms = bt_clock_ms();
        job->without_limit = true;
    }
    job->is_wanted = true;
    job->without_limit = job->without_limit && without_limit; /* one that knows limits must not wait for ever */
}

static void answer_at_once(bt_waiter *waiter, bool ok, uint64_t generation, const char *message)
{
    if (waiter != NULL)
        waiter->on_done(waiter, ok, generation, message);
}

void bt_reload_request(bt_master *master, bt_crew *crew, bool without_limit, bt_waiter *waiter)
{
    bt_roll *roll = &master->roll;
    if (master->phase == BT_MASTER_STOPPING) {
        answer_at_once(waiter, false, 0, "the service is being stopped");
        return;
    }
    if (master->service->on_master_reload != NULL)
        master->service->on_master_reload();
    roll->reloads++;
    /* A helper that runs may have read a file before it changed: the request needs the next one. */
    bt_reload_job *job = roll->helper != 0 ? &roll->next_job : &roll->job;
    if (choose_scope(master, crew, job->scope) == 0) {
        answer_at_once(waiter, true, master->last_generation, "no worker is reloadable: their processes were told");
        return;
    }
    if (!without_limit)
        bt_roll_end_patience(master);
    want(master, job, without_limit);
    if (waiter == NULL)
        return;
    waiter->generation = job->generation;
    if (waiter->wait == BT_WAIT_NONE) {
        answer_at_once(waiter, true, job->generation, "accepted");
        return;
    }
    bt_list_append(&roll->waiters, &waiter->node);
    waiter->on_progress(waiter, "", -1, "preparing", 0, job->generation, "");
}

/* ---- what the helper made ---- */

static void not_prepared(bt_master *master, const bt_reload_job *job, const char *why)
{
    char message[sizeof master->roll.last_message];
    snprintf(message, sizeof message, "%s; the old code serves on", why);
    bt_reload_remember(master, job->generation, false, job->asked_ms, message);
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        if (waiter->generation == job->generation) /* an earlier one may still succeed */
            tell(waiter, false, job->generation, message);
    }
}

void bt_reload_prepared(bt_master *master, const bt_reload_job *job, bt_generation *generation, const char *why)
{
    bool is_first = master->crews[0].target == NULL;
    if (master->phase == BT_MASTER_STOPPING)
        ; /* it came too late */
    else if (why != NULL && is_first)
        bt_master_start_failed(master, why);
    else if (why != NULL)
        not_prepared(master, job, why);
    else if (is_first)
        bt_roll_start_first(master, generation);
    else
        bt_roll_start(master, job, generation);
    bt_generation_unref(master, generation);
}
