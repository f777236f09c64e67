/* proc/master.c: the master from start to end: descriptors, signals, the loop, and stopping.
 * Must not load business code; what happens to slots and rolls is in slot.c and roll.c. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/listener.h>
#include <proc/control.h>
#include <proc/daemon.h>
#include <proc/master_state.h>
#include <proc/pidfile.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the registry ---- */

int bt_master_fd_add(bt_master *master, int fd)
{
    if (master->fd_count == master->fd_cap) {
        size_t cap = master->fd_cap == 0 ? 64 : master->fd_cap * 2;
        int *fds = realloc(master->fds, cap * sizeof *fds);
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

/* ---- saying how the start went ---- */

static void report_start(bt_master *master, int code, const char *text)
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
        for (size_t j = 0; j < master->crews[i].slot_count; j++) {
            if (master->crews[i].slots[j].serving == NULL)
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
        bt_crew *crew = &master->crews[i];
        crew->good = bt_generation_ref(crew->slots[0].serving->generation);
        processes += crew->slot_count;
    }
    char text[128];
    snprintf(text, sizeof text, "baton: started, pid %d, %zu process%s\n", getpid(), processes,
             processes == 1 ? "" : "es");
    bt_log(BT_LOG_INFO, "started pid=%d processes=%zu took_ms=%" PRIu64, getpid(), processes,
           bt_clock_ms() - master->started_ms);
    report_start(master, 0, text);
    bt_roll_resume(master);
}

void bt_master_check(bt_master *master)
{
    if (master->phase == BT_MASTER_STARTING && all_serve(master))
        started(master);
    if (master->phase == BT_MASTER_STOPPING && bt_list_empty(&master->children) && master->roll.helper == 0)
        master->is_done = true;
}

/* ---- stopping ---- */

static uint64_t stop_timeout(const bt_master *master, const bt_crew *crew)
{
    return master->stop_graceful ? crew->worker->config->drain_timeout_ms : master->config->master.stop_timeout_ms;
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
    bt_list_each (node, &master->children) {
        bt_child *child = bt_container(node, bt_child, node);
        if (waitpid(child->pid, &status, WNOHANG) > 0)
            bt_child_exited(child, status);
    }
}

static void send_log(bt_master *master, int fd)
{
    bt_list_each (node, &master->children)
        bt_channel_send(&bt_container(node, bt_child, node)->channel, BT_MESSAGE_LOG, 0, NULL, fd);
}

static int open_log(bt_master *master)
{
    const char *path = master->config->master.log_file;
    if (path == NULL)
        return 0;
    int err = bt_make_parent_dirs(path, 0755);
    int fd = err < 0 ? err : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return err < 0 ? err : -errno;
    if (master->log_fd >= 0) {
        bt_master_fd_remove(master, master->log_fd);
        close(master->log_fd);
    }
    master->log_fd = fd;
    bt_log_set_fd(fd);
    return bt_master_fd_add(master, fd);
}

/* logrotate has moved the file: a process that runs as another user could not open the new one, so it gets it. */
static void reopen_log(bt_master *master)
{
    int err = open_log(master);
    if (err < 0)
        bt_log(BT_LOG_ERROR, "log-not-reopened error=\"%s\"", strerror(-err));
    else if (master->log_fd >= 0)
        send_log(master, master->log_fd);
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
        reopen_log(master);
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

/* ---- setting up ---- */

static int open_socket(bt_master *master, const bt_crew *crew, char *why, size_t size)
{
    const bt_worker_config *config = crew->worker->config;
    int fd = bt_listener_open(&config->address, (int) config->backlog, config->reuse_port, why, size);
    if (fd < 0)
        return fd;
    int err = bt_master_fd_add(master, fd);
    return err < 0 ? err : fd;
}

/* One socket for all slots, or with reuse_port one for each; the kernel then spreads connections by their address. */
static int open_listeners(bt_master *master, bt_crew *crew, char *why, size_t size)
{
    const bt_worker_config *config = crew->worker->config;
    if (config->listen == NULL)
        return 0;
    bool one_each = config->reuse_port && !config->address.is_unix;
    for (size_t i = 0; i < crew->slot_count; i++) {
        int fd = one_each || crew->listen_fd < 0 ? open_socket(master, crew, why, size) : crew->listen_fd;
        if (fd < 0)
            return fd;
        crew->slots[i].listen_fd = fd;
        crew->listen_fd = fd;
    }
    return 0;
}

static int make_crew(bt_master *master, size_t index, char *why, size_t size)
{
    bt_crew *crew = &master->crews[index];
    crew->master = master;
    crew->worker = master->service->workers[index];
    crew->index = index;
    crew->slot_count = (size_t) crew->worker->config->count;
    crew->slots = calloc(crew->slot_count, sizeof *crew->slots);
    crew->counters = bt_take_counters(master);
    if (crew->slots == NULL || crew->counters == NULL) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    for (size_t i = 0; i < crew->slot_count; i++)
        bt_slot_init(&crew->slots[i], crew, (int) i);
    char detail[256] = "";
    int err = open_listeners(master, crew, detail, sizeof detail);
    if (err < 0)
        snprintf(why, size, "worker %s: %s", crew->worker->config->name, detail);
    return err;
}

/* A service with many connections needs them; the hard limit is the administrator's. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int make_tables(bt_master *master)
{
    size_t size = BT_COUNTER_ROWS * sizeof *master->counters;
    void *table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED)
        return -errno;
    master->counters = table;
    master->counter_used = calloc(BT_COUNTER_ROWS, sizeof *master->counter_used);
    master->crews = calloc(master->config->worker_count, sizeof *master->crews);
    if (master->counter_used == NULL || master->crews == NULL)
        return -ENOMEM;
    master->crew_count = master->config->worker_count;
    for (size_t i = 0; i < master->crew_count; i++)
        master->crews[i].listen_fd = -1; /* what we have not opened is not ours to remove */
    return bt_prepare_init(master);
}

static int take_pid_file(bt_master *master, char *why, size_t size)
{
    const char *path = master->config->master.pid_file;
    pid_t holder = 0;
    master->pid_fd = bt_pidfile_take(path, &holder);
    if (master->pid_fd == -EWOULDBLOCK)
        snprintf(why, size, "already running, pid %d (%s)", holder, path);
    else if (master->pid_fd < 0)
        snprintf(why, size, "%s: %s", path, strerror(-master->pid_fd));
    return master->pid_fd < 0 ? master->pid_fd : bt_master_fd_add(master, master->pid_fd);
}

static int open_control(bt_master *master, char *why, size_t size)
{
    master->control_path = bt_control_path(master->config->master.pid_file);
    if (master->control_path == NULL)
        return -ENOMEM;
    int fd = bt_unix_listen(master->control_path, 64, 0600, why, size);
    if (fd < 0)
        return fd;
    return bt_control_start(master, fd);
}

/* Everything that can be refused, before the first process is forked. */
static int set_up(bt_master *master, char *why, size_t size)
{
    raise_descriptor_limit();
    int err = make_tables(master);
    if (err < 0) {
        snprintf(why, size, "%s", strerror(-err));
        return err;
    }
    err = take_pid_file(master, why, size);
    if (err < 0)
        return err;
    err = open_log(master);
    if (err < 0) {
        snprintf(why, size, "%s: %s", master->config->master.log_file, strerror(-err));
        return err;
    }
    for (size_t i = 0; err == 0 && i < master->crew_count; i++)
        err = make_crew(master, i, why, size);
    if (err == 0)
        err = open_control(master, why, size);
    if (err < 0)
        return err;
    err = bt_generation_remove_all(master->config->master.run_dir);
    if (err < 0)
        bt_log(BT_LOG_WARN, "old-generations-not-removed error=\"%s\"", strerror(-err));
    watch_signals(master);
    return 0;
}

/* ---- running ---- */

static void prepare_first(bt_master *master)
{
    bt_reload_job *job = &master->roll.job;
    for (size_t i = 0; i < master->crew_count; i++)
        job->scope[i] = true;
    job->generation = ++master->last_generation;
    job->asked_ms = master->started_ms;
    job->is_wanted = true;
}

/* Forks happen between turns, so that a child has no frame of the loop below it. */
static void run(bt_master *master)
{
    bt_spawn_pending(master);
    while (!master->is_done) {
        /* a fork that failed may have asked for another one */
        uv_run(&master->loop, bt_spawn_is_pending(master) ? UV_RUN_NOWAIT : UV_RUN_ONCE);
        bt_spawn_pending(master);
    }
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void) arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void unlink_sockets(const bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = &master->crews[i];
        if (crew->listen_fd >= 0 && crew->worker->config->address.is_unix)
            unlink(crew->worker->config->address.path);
    }
    if (master->control != NULL)
        unlink(master->control_path);
}

static void free_tables(bt_master *master)
{
    for (size_t i = 0; master->crews != NULL && i < master->crew_count; i++) {
        bt_generation_unref(master, master->crews[i].good);
        bt_generation_unref(master, master->crews[i].previous);
        bt_generation_unref(master, master->crews[i].target);
        for (size_t j = 0; j < master->crews[i].slot_count; j++)
            bt_generation_unref(master, master->crews[i].slots[j].wanted);
        free(master->crews[i].slots);
    }
    free(master->crews);
    free(master->counter_used);
    bt_prepare_free(master);
    free(master->control_path);
    if (master->counters != NULL)
        munmap(master->counters, BT_COUNTER_ROWS * sizeof *master->counters);
}

/* The pid file goes last: who sees its lock free finds everything else gone. */
static void tear_down(bt_master *master)
{
    bt_log(BT_LOG_INFO, "stopped");
    unlink_sockets(master);
    bt_control_stop(master);
    if (master->has_loop) {
        uv_walk(&master->loop, close_handle, NULL);
        uv_run(&master->loop, UV_RUN_DEFAULT);
        uv_loop_close(&master->loop);
    }
    free_tables(master);
    for (size_t i = 0; i < master->fd_count; i++) {
        if (master->fds[i] != master->pid_fd && master->fds[i] != master->daemon_fd)
            close(master->fds[i]);
    }
    bt_log_set_fd(-1);
    if (master->pid_fd >= 0)
        bt_pidfile_release(master->config->master.pid_file, master->pid_fd);
    if (master->refusal[0] != '\0')
        report_start(master, 1, master->refusal); /* last: who hears it may start again at once */
    free(master->fds);
}

static int start_in_background(bt_master *master)
{
    if (!master->config->master.daemonize)
        return 0;
    master->daemon_fd = bt_daemonize();
    if (master->daemon_fd < 0)
        return master->daemon_fd;
    /* Before the first fork: a process that kept the shell's pipe would keep its reader waiting. */
    int err = bt_redirect_output(master->config->master.stdout_file);
    if (err < 0)
        return err;
    return bt_master_fd_add(master, master->daemon_fd);
}

/* What cannot fail, so that tearing down is right from the first moment on. */
static bt_master *new_master(bt_service *service)
{
    bt_master *master = calloc(1, sizeof *master);
    if (master == NULL)
        return NULL;
    master->service = service;
    master->config = service->config;
    master->daemon_fd = master->pid_fd = master->log_fd = -1;
    master->started_ms = bt_clock_ms();
    master->started_wall_ms = bt_clock_wall_ms();
    master->hup_stops = !master->config->master.daemonize && isatty(STDIN_FILENO);
    bt_list_init(&master->children);
    bt_list_init(&master->generations);
    return master;
}

static int begin(bt_master *master, char *why, size_t size)
{
    bt_log_level level = BT_LOG_INFO;
    int err = bt_log_level_parse(master->config->master.log_level, &level);
    bt_log_setup(-1, level, "master");
    if (err == 0)
        err = bt_open_standard_descriptors();
    if (err == 0)
        err = start_in_background(master);
    if (err == 0)
        err = uv_loop_init(&master->loop); /* after the fork into the background */
    if (err < 0) {
        snprintf(why, size, "%s", strerror(-err));
        return err;
    }
    master->has_loop = true;
    bt_roll_init(master);
    return set_up(master, why, size);
}

int bt_master_run(bt_service *service)
{
    bt_master *master = new_master(service);
    if (master == NULL)
        return 1;
    char why[512] = "";
    int err = begin(master, why, sizeof why);
    if (err < 0) {
        refuse_start(master, why);
    } else {
        prepare_first(master);
        run(master);
        if (service->on_master_stop != NULL)
            service->on_master_stop();
    }
    tear_down(master);
    int code = master->exit_code;
    free(master);
    return code;
}
