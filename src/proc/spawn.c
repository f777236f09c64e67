/* proc/spawn.c: forks: worker processes and the helper that prepares a generation.
 *
 * The child must not share the master's loop, nor keep a descriptor that is not its own. All signals are blocked
 * around the fork, so that none is handled by the master's handlers in the child. */
#include <base/alloc.h>
#include <base/clock.h>
#include <base/failpoint.h>
#include <base/log.h>
#include <errno.h>
#include <net/loop_shut.h>
#include <proc/master_parts.h>
#include <proc/process.h>
#include <proc/upgrade.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#define LEAK_CHECK() __lsan_do_recoverable_leak_check()
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/lsan_interface.h>
#define LEAK_CHECK() __lsan_do_recoverable_leak_check()
#endif
#endif
#ifndef LEAK_CHECK
#define LEAK_CHECK() 0
#endif

static bool is_kept(int fd, const int *keep, size_t keep_count)
{
    for (size_t i = 0; i < keep_count; i++) {
        if (keep[i] == fd)
            return true;
    }
    return false;
}

/* In the child: the master's loop goes. uv_loop_fork comes first: it gives the child an epoll of its own, without which
 * closing a handle would take the descriptor out of the master's. */
static void shed_master(bt_master *master, const int *keep, size_t keep_count)
{
    uv_loop_fork(&master->loop);
    bt_loop_shut(&master->loop);
    bt_master_give_reserve(master);
    bt_list_each (node, &master->children)
        bt_channel_forget_queue(&bt_container(node, bt_child, node)->channel);
    for (size_t i = 0; i < master->fd_count; i++) {
        if (!is_kept(master->fds[i], keep, keep_count))
            close(master->fds[i]);
    }
}

pid_t bt_fork_clean(bt_master *master, const int *keep, size_t keep_count)
{
    fflush(NULL); /* what is buffered would be written twice */
    pid_t pid = fork();
    if (pid == 0)
        shed_master(master, keep, keep_count); /* signals stay blocked until the child has its own handlers */
    return pid < 0 ? -errno : pid;
}

/* ---- worker processes ---- */

bt_row *bt_take_row(bt_master *master)
{
    for (size_t i = 0; i < BT_ROWS; i++) {
        if (!master->row_used[i]) {
            master->row_used[i] = true;
            memset(&master->rows[i], 0, sizeof master->rows[i]);
            return &master->rows[i];
        }
    }
    return NULL;
}

void bt_give_row(bt_master *master, const bt_row *row)
{
    if (row != NULL)
        master->row_used[row - master->rows] = false;
}

/* Sanitized builds look for leaks here, because _exit skips the check at the end. */
static _Noreturn void end_child(int code)
{
    fflush(NULL);
    if (LEAK_CHECK() != 0)
        code = 23;
    _exit(code); /* not exit(): a start program's atexit functions are the master's */
}

/* What a child is made of. */
typedef struct newborn {
    bt_slot *slot;
    bt_generation *generation;
    const bt_worker_config *config;
    uint64_t number;
    bt_row *row;
    int channel_fd;
    int *fds; /* what it keeps: its channel and the log, then its listening sockets */
    size_t fd_count;
} newborn;

#define KEPT_ALWAYS 2

static _Noreturn void run_child(const newborn *birth)
{
    bt_crew *crew = birth->slot->crew;
    const bt_master *master = crew->master;
    const bt_module_copy *module = bt_generation_module(birth->generation, crew->name);
    size_t listen_count = birth->fd_count - KEPT_ALWAYS;
    const bt_listen_set *set = bt_listeners_find(master, birth->config);
    size_t sockets = set == NULL ? 1 : set->count;
    char dir[sizeof module->path + 64];
    snprintf(dir, sizeof dir, "%s/modules/%llu/%s", master->config->master.run_dir,
             (unsigned long long) birth->generation->number, crew->name);
    crew->worker->config = birth->config;
    bt_process_start start = {
        .service = master->service,
        .worker = crew->worker,
        .slot = birth->slot->index,
        .number = birth->number,
        .generation = birth->generation->number,
        .module_path = module == NULL ? "" : module->path,
        .module_dir = dir,
        .master_config = &birth->generation->config->master,
        .channel_fd = birth->channel_fd,
        .lock_fd = master->lock_fd,
        .listen_fds = birth->fds + KEPT_ALWAYS,
        .listen_count = listen_count,
        .listen_sharers = (unsigned) (((size_t) birth->config->count + sockets - 1) / sockets),
        .counters = &birth->row->counters,
        .tail = &birth->row->tail,
        .crew_connections = &crew->row->counters.connections,
        .crew_counters = &crew->row->counters,
    };
    end_child(bt_process_run(&start));
}

/* The sockets it will accept from. 0 or a negative errno. */
static int collect_fds(newborn *birth)
{
    const bt_master *master = birth->slot->crew->master;
    const bt_listen_set *set = bt_listeners_find(master, birth->config);
    if (set == NULL && birth->config->listen != NULL)
        return -ENOTCONN; /* the address was given up meanwhile */
    size_t most = set == NULL ? 0 : set->count;
    birth->fds = bt_malloc((KEPT_ALWAYS + most) * sizeof *birth->fds);
    if (birth->fds == NULL)
        return -ENOMEM;
    birth->fds[0] = birth->channel_fd;
    birth->fds[1] = master->log_fd;
    birth->fd_count = KEPT_ALWAYS;
    if (set != NULL)
        birth->fd_count += bt_listeners_of_slot(set, (size_t) birth->slot->index, (size_t) birth->config->count,
                                                birth->fds + KEPT_ALWAYS, most);
    return 0;
}

/* Forks it; `master_end` is our side of its channel, taken on success. */
static int fork_child(newborn *birth, int master_end)
{
    bt_slot *slot = birth->slot;
    bt_master *master = slot->crew->master;
    int err = collect_fds(birth);
    if (err == 0)
        err = bt_failpoint("master:before-fork");
    pid_t pid = err < 0 ? err : bt_fork_clean(master, birth->fds, birth->fd_count);
    if (pid > 0)
        bt_failpoint("master:after-fork");
    if (pid == 0) {
        close(master_end); /* not in the registry before the channel is made */
        run_child(birth);
    }
    free(birth->fds);
    if (pid < 0)
        return (int) pid;
    if (bt_child_new(slot, birth->generation, pid, birth->number, master_end, birth->row) != NULL)
        return 0;
    kill(pid, SIGKILL); /* out of memory: nobody would ever reap it */
    waitpid(pid, NULL, 0);
    return -ENOMEM;
}

static int spawn(bt_slot *slot, bt_generation *generation)
{
    bt_master *master = slot->crew->master;
    int pair[2];
    int err = bt_channel_pair(pair);
    if (err < 0)
        return err;
    newborn birth = {
        .slot = slot,
        .generation = generation,
        .config = bt_generation_section(generation, slot->crew->name),
        .number = ++master->last_process,
        .row = bt_take_row(master),
        .channel_fd = pair[1],
    };
    err = birth.row == NULL ? -EAGAIN : fork_child(&birth, pair[0]);
    close(pair[1]);
    if (err < 0) {
        close(pair[0]);
        bt_give_row(master, birth.row);
    }
    return err;
}

static void spawn_wanted(bt_slot *slot)
{
    bt_generation *generation = slot->wanted;
    slot->wanted = NULL;
    int err = slot->crew->master->phase == BT_MASTER_STOPPING ? -ECANCELED : spawn(slot, generation);
    if (err < 0 && err != -ECANCELED) {
        bt_log(BT_LOG_ERROR, "fork-failed worker=%s slot=%d error=\"%s\"", slot->crew->name, slot->index,
               strerror(-err));
        bt_slot_fork_failed(slot, generation, strerror(-err));
    }
    bt_generation_unref(slot->crew->master, generation);
}

/* While the first generation starts, a reload waits: there is nothing yet that it could go back to. */
static bool prepare_is_due(const bt_master *master)
{
    bool is_first = master->current == NULL;
    return master->roll.jobs[BT_JOB_NOW].is_wanted && (is_first || master->phase != BT_MASTER_STARTING);
}

bool bt_spawn_is_pending(const bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        for (size_t j = 0; j < master->crews[i]->slot_count; j++) {
            if (master->crews[i]->slots[j]->wanted != NULL)
                return true;
        }
    }
    return prepare_is_due(master) || master->upgrade.is_wanted;
}

static void spawn_all(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        for (size_t j = 0; j < crew->slot_count; j++) {
            if (crew->slots[j]->wanted != NULL)
                spawn_wanted(crew->slots[j]);
        }
    }
    if (prepare_is_due(master))
        bt_prepare_fork(master);
    if (master->upgrade.is_wanted)
        bt_upgrade_fork_check(master);
}

/* A signal that libuv has caught but not yet dispatched waits in a pipe which the child does not inherit, and its
 * handle could never be closed there (uv_run would spin): with signals blocked, one turn of the loop empties the pipe
 * first. */
void bt_spawn_pending(bt_master *master)
{
    sigset_t all, before;
    if (!bt_spawn_is_pending(master))
        return;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    uv_run(&master->loop, UV_RUN_NOWAIT);
    spawn_all(master);
    sigprocmask(SIG_SETMASK, &before, NULL);
}
