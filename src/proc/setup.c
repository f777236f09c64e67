/* proc/setup.c: what the master is made of: tables, pid file, log, listening sockets, control socket; and how it is
 * taken apart. Must not know what happens in between. */
#include <base/alloc.h>
#include <base/clock.h>
#include <base/failpoint.h>
#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <net/listener.h>
#include <net/loop_shut.h>
#include <proc/control.h>
#include <proc/daemon.h>
#include <proc/lock.h>
#include <proc/master_parts.h>
#include <proc/pidfile.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- setting up ---- */

static int make_crew(bt_master *master, const bt_worker_config *config, char *why, size_t size)
{
    char detail[256] = "out of memory";
    bt_crew *crew = bt_crew_new(master, config, NULL);
    int err = crew == NULL ? -ENOMEM : bt_listeners_provide(master, crew, config, detail, sizeof detail);
    if (err < 0)
        snprintf(why, size, "worker %s: %s", config->name, detail);
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

static int make_row_marks(bt_master *master)
{
    master->row_used = bt_calloc(BT_ROWS, sizeof *master->row_used);
    return master->row_used == NULL ? -ENOMEM : 0;
}

/* In a file of memory, so that it outlives an upgrade of the master. */
static int make_table(bt_master *master)
{
    size_t size = BT_ROWS * sizeof *master->rows;
    int err = make_row_marks(master);
    if (err < 0)
        return err;
    master->rows_fd = memfd_create("baton-rows", MFD_CLOEXEC);
    if (master->rows_fd < 0 || ftruncate(master->rows_fd, (off_t) size) < 0)
        return -errno;
    return bt_master_map_rows(master);
}

int bt_master_map_rows(bt_master *master)
{
    int err = bt_master_fd_add(master, master->rows_fd);
    if (err < 0)
        return err;
    void *table = mmap(NULL, BT_ROWS * sizeof *master->rows, PROT_READ | PROT_WRITE, MAP_SHARED, master->rows_fd, 0);
    if (table == MAP_FAILED)
        return -errno;
    master->rows = table;
    return 0;
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

/* Processes of a master that was killed end soon, and free their ports; those that were told to serve on do not. */
static int take_lock(bt_master *master, char *why, size_t size)
{
    char *path = bt_pidfile_sibling(master->config->master.pid_file, ".lock");
    if (path == NULL) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    master->lock_fd = bt_lock_take(path, why, size);
    free(path);
    return master->lock_fd < 0 ? master->lock_fd : 0; /* not in the registry: every process keeps it */
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
static int take_everything(bt_master *master, char *why, size_t size)
{
    raise_descriptor_limit();
    int err = make_table(master);
    if (err < 0) {
        snprintf(why, size, "%s", strerror(-err));
        return err;
    }
    err = take_pid_file(master, why, size);
    if (err == 0)
        err = take_lock(master, why, size);
    if (err < 0)
        return err;
    err = bt_master_open_log(master);
    if (err < 0) {
        snprintf(why, size, "%s: %s", master->config->master.log_file, strerror(-err));
        return err;
    }
    for (size_t i = 0; err == 0 && i < master->config->worker_count; i++)
        err = make_crew(master, master->config->workers[i], why, size);
    if (err == 0)
        err = open_control(master, why, size);
    if (err < 0)
        return err;
    err = bt_generation_remove_all(master->config->master.run_dir);
    if (err < 0)
        bt_log(BT_LOG_WARN, "old-generations-not-removed error=\"%s\"", strerror(-err));
    return 0;
}

/* ---- taking apart ---- */

static void free_tables(bt_master *master)
{
    bt_crews_free(master);
    bt_generation_unref(master, master->current);
    bt_generation_unref(master, master->roll.whole);
    bt_generations_free(master);
    free(master->row_used);
    free(master->control_path);
    if (master->rows != NULL)
        munmap(master->rows, BT_ROWS * sizeof *master->rows);
}

/* The pid file goes last: who sees its lock free finds everything else gone. */
/* Nobody else can be waiting for it: who starts takes the pid file's lock first, which is still ours. */
static void drop_lock(const bt_master *master)
{
    char *path = bt_pidfile_sibling(master->config->master.pid_file, ".lock");
    if (master->lock_fd < 0 || path == NULL) {
        free(path);
        return;
    }
    unlink(path);
    free(path);
    close(master->lock_fd);
}

void bt_master_tear_down(bt_master *master)
{
    bt_log(BT_LOG_INFO, "stopped");
    bt_listeners_close_all(master);
    if (master->control != NULL)
        unlink(master->control_path);
    bt_control_stop(master);
    if (master->has_loop)
        bt_loop_shut(&master->loop);
    free_tables(master);
    for (size_t i = 0; i < master->fd_count; i++) {
        if (master->fds[i] != master->pid_fd && master->fds[i] != master->daemon_fd)
            close(master->fds[i]);
    }
    bt_log_set_fd(-1);
    bt_master_give_reserve(master);
    drop_lock(master);
    if (master->pid_fd >= 0)
        bt_pidfile_release(master->config->master.pid_file, master->pid_fd);
    if (master->refusal[0] != '\0')
        bt_master_report_start(master, 1, master->refusal); /* last: who hears it may start again at once */
    free(master->fds);
}

/* ---- beginning ---- */

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
bt_master *bt_master_new(bt_service *service)
{
    bt_master *master = bt_calloc(1, sizeof *master);
    if (master == NULL)
        return NULL;
    master->service = service;
    master->config = service->config;
    master->limits = &service->config->master;
    master->daemon_fd = master->pid_fd = master->log_fd = master->lock_fd = master->rows_fd = -1;
    master->started_ms = bt_clock_ms();
    master->started_wall_ms = bt_clock_wall_ms();
    master->hup_stops = !master->config->master.daemonize && isatty(STDIN_FILENO);
    bt_list_init(&master->children);
    bt_list_init(&master->generations);
    bt_list_init(&master->listen_sets);
    bt_list_init(&master->upgrade.waiters);
    master->upgrade.output_fd = master->upgrade.old_fd = -1;
    master->reserve_fds[0] = master->reserve_fds[1] = -1;
    return master;
}

/* The loop and what turns in it; after the fork into the background. */
static int start_loop(bt_master *master)
{
    int err = uv_loop_init(&master->loop);
    if (err < 0)
        return err;
    master->has_loop = true;
    bt_master_take_reserve(master);
    bt_roll_init(master);
    bt_watch_init(master);
    bt_upgrade_init(master);
    return 0;
}

static int begin(bt_master *master)
{
    bt_log_level level = BT_LOG_INFO;
    int err = bt_log_level_parse(master->config->master.log_level, &level);
    bt_log_setup(-1, level, "master");
    return err == 0 ? bt_open_standard_descriptors() : err;
}

int bt_master_set_up(bt_master *master, char *why, size_t size)
{
    int err = begin(master);
    if (err == 0)
        err = start_in_background(master);
    if (err == 0)
        err = start_loop(master);
    if (err == 0)
        return take_everything(master, why, size);
    snprintf(why, size, "%s", strerror(-err));
    return err;
}

int bt_master_take_over(bt_master *master, char *why, size_t size)
{
    raise_descriptor_limit();
    int err = begin(master);
    if (err == 0)
        err = start_loop(master);
    if (err == 0)
        err = make_row_marks(master);
    if (err == 0)
        err = bt_failpoint("upgrade:before-adopt");
    if (err == 0)
        return bt_adopt(master, master->service->handover, why, size);
    snprintf(why, size, "%s", strerror(-err));
    return err;
}
