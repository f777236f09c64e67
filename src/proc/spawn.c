/* proc/spawn.c: forks: worker processes and the helper that prepares a generation.
 *
 * The child must not share the master's loop, nor keep a descriptor that is not its own. All signals are blocked
 * around the fork, so that none is handled by the master's handlers in the child. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <proc/master_state.h>
#include <proc/process.h>
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

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void) arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

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
    uv_walk(&master->loop, close_handle, NULL);
    uv_run(&master->loop, UV_RUN_DEFAULT);
    uv_loop_close(&master->loop);
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

bt_counters *bt_take_counters(bt_master *master)
{
    for (size_t i = 0; i < BT_COUNTER_ROWS; i++) {
        if (!master->counter_used[i]) {
            master->counter_used[i] = true;
            memset(&master->counters[i], 0, sizeof master->counters[i]);
            return &master->counters[i];
        }
    }
    return NULL;
}

/* Sanitized builds look for leaks here, because _exit skips the check at the end. */
static _Noreturn void end_child(int code)
{
    fflush(NULL);
    if (LEAK_CHECK() != 0)
        code = 23;
    _exit(code); /* not exit(): a start program's atexit functions are the master's */
}

static _Noreturn void run_child(bt_slot *slot, const bt_generation *generation, uint64_t number, int channel_fd,
                                bt_counters *counters)
{
    bt_master *master = slot->crew->master;
    char dir[sizeof((bt_module_copy *) 0)->path + 64];
    snprintf(dir, sizeof dir, "%s/modules/%llu/%s", master->config->master.run_dir,
             (unsigned long long) generation->number, slot->crew->worker->config->name);
    bt_process_start start = {
        .service = master->service,
        .worker = slot->crew->worker,
        .slot = slot->index,
        .number = number,
        .generation = generation->number,
        .module_path = generation->modules[slot->crew->index].path,
        .module_dir = dir,
        .channel_fd = channel_fd,
        .master_config = &master->config->master,
        .listen_fds = &slot->listen_fd,
        .listen_count = slot->listen_fd >= 0,
        .listen_sharers = slot->crew->worker->config->reuse_port ? 1 : (unsigned) slot->crew->slot_count,
        .counters = counters,
        .crew_connections = &slot->crew->counters->connections,
    };
    end_child(bt_process_run(&start));
}

static int spawn(bt_slot *slot, bt_generation *generation)
{
    bt_master *master = slot->crew->master;
    int pair[2];
    int err = bt_channel_pair(pair);
    if (err < 0)
        return err;
    bt_counters *counters = bt_take_counters(master);
    uint64_t number = ++master->last_process;
    const int keep[] = {slot->listen_fd, pair[1], master->log_fd};
    /* pair[0] is closed by hand in the child: it is not in the registry before the channel is made */
    pid_t pid = counters == NULL ? -EAGAIN : bt_fork_clean(master, keep, sizeof keep / sizeof *keep);
    if (pid == 0) {
        close(pair[0]);
        run_child(slot, generation, number, pair[1], counters);
    }
    close(pair[1]);
    bt_child *child = pid < 0 ? NULL : bt_child_new(slot, generation, pid, number, pair[0], counters);
    if (child != NULL)
        return 0;
    close(pair[0]);
    if (pid > 0) { /* out of memory: nobody would ever reap it */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    if (counters != NULL)
        master->counter_used[counters - master->counters] = false;
    return pid < 0 ? (int) pid : -ENOMEM;
}

static void spawn_wanted(bt_slot *slot)
{
    bt_generation *generation = slot->wanted;
    slot->wanted = NULL;
    int err = slot->crew->master->phase == BT_MASTER_STOPPING ? -ECANCELED : spawn(slot, generation);
    if (err < 0 && err != -ECANCELED) {
        bt_log(BT_LOG_ERROR, "fork-failed worker=%s slot=%d error=\"%s\"", slot->crew->worker->config->name,
               slot->index, strerror(-err));
        bt_slot_fork_failed(slot, generation, strerror(-err));
    }
    bt_generation_unref(slot->crew->master, generation);
}

bool bt_spawn_is_pending(const bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        for (size_t j = 0; j < master->crews[i].slot_count; j++) {
            if (master->crews[i].slots[j].wanted != NULL)
                return true;
        }
    }
    return master->roll.job.is_wanted;
}

static void spawn_all(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        for (size_t j = 0; j < crew->slot_count; j++) {
            if (crew->slots[j].wanted != NULL)
                spawn_wanted(&crew->slots[j]);
        }
    }
    if (master->roll.job.is_wanted)
        bt_prepare_fork(master);
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
