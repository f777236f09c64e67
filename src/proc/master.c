/* proc/master.c: the master from start to end: descriptors, signals, the loop, and stopping.
 * Must not load business code; what happens to slots and rolls is in slot.c and roll.c. */
#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/listener.h>
#include <proc/control.h>
#include <proc/daemon.h>
#include <proc/master_parts.h>
#include <proc/pidfile.h>
#include <proc/upgrade.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the registry ---- */

int bt_master_fd_add(bt_master *master, int fd)
{
    if (master->fd_count == master->fd_cap) {
        size_t cap = master->fd_cap == 0 ? 64 : master->fd_cap * 2;
        int *fds = bt_realloc(master->fds, cap * sizeof *fds);
        if (fds == NULL)
            return -ENOMEM;
        master->fds = fds;
        master->fd_cap = cap;
    }
    master->fds[master->fd_count++] = fd;
    return 0;
}

void bt_master_fd_remove(bt_master *master, int fd)
{
    for (size_t i = 0; i < master->fd_count; i++) {
        if (master->fds[i] == fd) {
            master->fds[i] = master->fds[--master->fd_count];
            return;
        }
    }
}

void bt_master_give_reserve(bt_master *master)
{
    for (size_t i = 0; i < 2; i++) {
        if (master->reserve_fds[i] >= 0)
            close(master->reserve_fds[i]);
        master->reserve_fds[i] = -1;
    }
}

/* What cannot be had now is tried again the next time. */
void bt_master_take_reserve(bt_master *master)
{
    for (size_t i = 0; i < 2; i++) {
        if (master->reserve_fds[i] < 0)
            master->reserve_fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
}

/* ---- saying how the start went ---- */

void bt_master_report_start(bt_master *master, int code, const char *text)
{
    if (master->daemon_fd >= 0) {
        bt_daemon_report(master->daemon_fd, code, text);
        bt_master_fd_remove(master, master->daemon_fd);
        master->daemon_fd = -1;
    } else if (code != 0) {
        fputs(text, stderr);
    } else {
        fputs(text, stdout);
        fflush(stdout);
    }
}

static void refuse_start(bt_master *master, const char *why)
{
    bt_log(BT_LOG_ERROR, "start-failed reason=\"%s\"", why);
    snprintf(master->refusal, sizeof master->refusal, "baton: not started: %s\n", why);
    master->exit_code = 1;
}

void bt_master_start_failed(bt_master *master, const char *why)
{
    if (master->phase != BT_MASTER_STARTING)
        return;
    refuse_start(master, why);
    bt_master_stop(master, false);
}

static bool all_serve(const bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        for (size_t j = 0; j < master->crews[i]->slot_count; j++) {
            if (master->crews[i]->slots[j]->serving == NULL)
                return false;
        }
    }
    return true;
}

static void started(bt_master *master)
{
    size_t processes = 0;
    master->phase = BT_MASTER_RUNNING;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->good = bt_generation_ref(crew->target);
        processes += crew->slot_count;
    }
    char text[128];
    snprintf(text, sizeof text, "baton: started, pid %d, %zu process%s\n", getpid(), processes,
             processes == 1 ? "" : "es");
    bt_log(BT_LOG_INFO, "started pid=%d processes=%zu took_ms=%" PRIu64, getpid(), processes,
           bt_clock_ms() - master->started_ms);
    bt_master_report_start(master, 0, text);
    bt_roll_resume(master);
}

void bt_master_check(bt_master *master)
{
    if (master->phase == BT_MASTER_STARTING && all_serve(master))
        started(master);
    if (master->phase == BT_MASTER_STOPPING && bt_list_empty(&master->children) && master->roll.helper == 0 &&
        master->upgrade.checker == 0)
        master->is_done = true;
}

/* ---- stopping ---- */

static uint64_t stop_timeout(const bt_master *master, const bt_crew *crew)
{
    return master->stop_graceful ? crew->config->drain_timeout_ms : master->limits->stop_timeout_ms;
}

void bt_master_stop(bt_master *master, bool graceful)
{
    bool again = master->phase == BT_MASTER_STOPPING;
    if (again && (graceful || !master->stop_graceful))
        return;
    bt_log(BT_LOG_INFO, "stopping graceful=%s", graceful ? "yes" : "no");
    master->stop_graceful = graceful;
    if (!again) {
        master->phase = BT_MASTER_STOPPING;
        bt_roll_stop(master);
        bt_reload_cancel(master, "the service is being stopped");
    }
    bt_list_each (node, &master->children) {
        bt_child *child = bt_container(node, bt_child, node);
        bt_child_stop(child, stop_timeout(master, child->slot->crew));
    }
    bt_listeners_close_all(master); /* the processes accept what waits, then close theirs */
    bt_master_check(master);
}

/* ---- signals ---- */

static void reap(bt_master *master)
{
    int status;
    /* Only our own children: a start program may have others. */
    if (master->roll.helper > 0 && waitpid(master->roll.helper, &status, WNOHANG) > 0) {
        bt_prepare_exited(master, status);
        bt_master_check(master);
    }
    bt_upgrade_reap(master);
    bt_list_each (node, &master->children) {
        bt_child *child = bt_container(node, bt_child, node);
        if (waitpid(child->pid, &status, WNOHANG) > 0)
            bt_child_exited(child, status);
    }
}

static void on_signal(uv_signal_t *handle, int signum)
{
    bt_master *master = handle->data;
    if (signum != SIGCHLD)
        bt_log(BT_LOG_INFO, "signal number=%d", signum);
    switch (signum) {
    case SIGCHLD:
        reap(master);
        break;
    case SIGQUIT:
        bt_master_stop(master, true);
        break;
    case SIGHUP:
        if (master->hup_stops) {
            bt_master_stop(master, false);
            break;
        }
        bt_master_reopen_log(master);
        bt_reload_request(master, NULL, false, NULL);
        break;
    case SIGUSR1:
    case SIGUSR2:
        bt_reload_request(master, NULL, signum == SIGUSR2, NULL);
        break;
    default:
        bt_master_stop(master, false);
        break;
    }
}

static void watch_signals(bt_master *master)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2, SIGHUP, SIGCHLD};
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uv_signal_init(&master->loop, &master->signals[i]);
        master->signals[i].data = master;
        uv_signal_start(&master->signals[i], on_signal, numbers[i]);
    }
}

/* ---- running ---- */

static void prepare_first(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++)
        master->crews[i]->takes_part[BT_JOB_NOW] = true;
    master->roll.jobs[BT_JOB_NOW] = (bt_reload_job){
        .is_wanted = true,
        .everything = true,
        .serial = ++master->roll.last_serial,
        .generation = ++master->last_generation,
        .asked_ms = master->started_ms,
    };
}

/* Forks happen between turns, so that a child has no frame of the loop below it. */
static void run(bt_master *master)
{
    bt_spawn_pending(master);
    while (!master->is_done) {
        /* a fork that failed may have asked for another one */
        uv_run(&master->loop, bt_spawn_is_pending(master) ? UV_RUN_NOWAIT : UV_RUN_ONCE);
        bt_spawn_pending(master);
        bt_crews_tidy(master);
        bt_upgrade_execute(master);
    }
}

static int run_and_end(bt_master *master)
{
    run(master);
    if (master->service->on_master_stop != NULL)
        master->service->on_master_stop();
    bt_master_tear_down(master);
    int code = master->exit_code;
    free(master);
    return code;
}

static int start(bt_master *master)
{
    char why[512] = "";
    if (bt_master_set_up(master, why, sizeof why) == 0) {
        watch_signals(master);
        prepare_first(master);
        return run_and_end(master);
    }
    refuse_start(master, why);
    bt_master_tear_down(master);
    free(master);
    return 1;
}

/* Signals are blocked since the earlier image; what came meanwhile is handled as soon as they are watched. */
static int take_over(bt_master *master)
{
    char why[512] = "";
    if (bt_master_take_over(master, why, sizeof why) < 0) {
        bt_upgrade_return(master->service, why);
        return 1;
    }
    sigset_t none;
    sigemptyset(&none);
    prctl(PR_SET_NAME, program_invocation_short_name); /* fexecve has called us after a descriptor */
    watch_signals(master);
    sigprocmask(SIG_SETMASK, &none, NULL);
    bt_upgrade_continue(master, master->service->handover);
    reap(master);
    return run_and_end(master);
}

int bt_master_run(bt_service *service)
{
    bt_master *master = bt_master_new(service);
    if (master == NULL && service->handover != NULL)
        bt_upgrade_return(service, "out of memory");
    if (master == NULL)
        return 1;
    return service->handover == NULL ? start(master) : take_over(master);
}
