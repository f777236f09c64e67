/* proc/process.c: the life of one worker process from fork to exit.
 * Must not know the other processes: what it hears of them comes through the channel. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <grp.h>
#include <net/timer.h>
#include <proc/crash.h>
#include <proc/process.h>
#include <proto/protocol.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The one context of this process; only the public API, whose calls name no object, reads it. */
static bt_process *current;

bt_process *bt_process_current(void)
{
    return current;
}

void bt_process_fail(bt_process *process, const char *why)
{
    if (process->has_failed)
        return; /* the first reason is the cause */
    process->has_failed = true;
    bt_log(BT_LOG_ERROR, "cannot-serve reason=\"%s\"", why);
    bt_channel_send(&process->channel, BT_MESSAGE_FAILED, 0, why, -1);
}

/* ---- messages of the master ---- */

static bool is_about_the_end(const bt_message *message)
{
    return message->type == BT_MESSAGE_DRAIN || message->type == BT_MESSAGE_DRAIN_AND_ASK ||
           message->type == BT_MESSAGE_STOP;
}

static void on_message(bt_channel *channel, const bt_message *message, int fd)
{
    bt_process *process = channel->owner;
    const baton_callbacks *callbacks = &process->start->worker->callbacks;
    if (process->state == BT_PROCESS_STARTING && is_about_the_end(message)) {
        if (fd >= 0)
            close(fd);
        bt_process_abandon_start(process);
        return;
    }
    switch ((bt_message_type) message->type) {
    case BT_MESSAGE_DRAIN:
        bt_process_drain(process, message->has_fd, fd, message->value);
        return;
    case BT_MESSAGE_DRAIN_AND_ASK:
        bt_process_drain(process, true, -1, message->value);
        break;
    case BT_MESSAGE_PASS_OUT:
        bt_process_pass_to(process, fd);
        return;
    case BT_MESSAGE_PASS_IN:
        bt_process_take_from(process, fd);
        return;
    case BT_MESSAGE_LIMIT:
        bt_process_limit(process, message->value);
        break;
    case BT_MESSAGE_STOP:
        bt_process_stop(process, message->value);
        break;
    case BT_MESSAGE_RELOAD_NOTE:
        if (callbacks->on_worker_reload != NULL)
            callbacks->on_worker_reload(process->start->worker);
        break;
    case BT_MESSAGE_LOG: {
        int old = bt_log_fd();
        if (fd < 0)
            return; /* lost for want of descriptors: the old file is better than none */
        bt_log_set_fd(fd);
        if (old > STDERR_FILENO)
            close(old);
        return;
    }
    case BT_MESSAGE_LISTEN_LAST:
        bt_process_listen_last(process, fd);
        return;
    case BT_MESSAGE_READY:
    case BT_MESSAGE_FAILED:
    case BT_MESSAGE_HANDED_OVER:
    case BT_MESSAGE_ASK_PASS:
    case BT_MESSAGE_ASK_RELOAD:
    case BT_MESSAGE_ASK_STOP:
    case BT_MESSAGE_ASK_RECYCLE:
    case BT_MESSAGE_MODULE:
    case BT_MESSAGE_CONFIG:
    case BT_MESSAGE_ADDRESS:
        break; /* ours to send */
    }
    if (fd >= 0)
        close(fd);
}

static void on_master_gone(bt_channel *channel)
{
    bt_orphan_begin(channel->owner);
}

/* ---- starting ---- */

/* The master speaks through the channel; signals of the terminal or of a service manager that reach the whole group
 * must not end a process in the middle of a request. */
static void set_signals(void)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int drop_privileges(const bt_worker_config *config)
{
    if (config->user == NULL)
        return 0;
    struct passwd *user = getpwnam(config->user);
    struct group *group = config->group == NULL ? NULL : getgrnam(config->group);
    if (user == NULL || (config->group != NULL && group == NULL))
        return -ENOENT;
    gid_t gid = group == NULL ? user->pw_gid : group->gr_gid;
    if (initgroups(user->pw_name, gid) < 0 || setgid(gid) < 0 || setuid(user->pw_uid) < 0)
        return -errno;
    return 0;
}

static void set_endpoint(bt_process *process)
{
    const bt_worker_config *config = process->start->worker->config;
    process->endpoint = (bt_endpoint){
        .protocol = config->listen == NULL ? NULL : bt_protocol_find(config->address.scheme),
        .callbacks = &process->start->worker->callbacks,
        .worker = process->start->worker,
        .counters = process->start->counters,
        .crew_connections = process->start->crew_connections,
        .crew_size = process->start->listen_sharers,
        .max_package = config->max_package,
        .max_send_buffer = config->max_send_buffer,
        .max_head = (uint32_t) config->max_head,
        .max_target = (uint32_t) config->max_target,
        .max_headers = (uint32_t) config->max_headers,
        .header_timeout_ms = config->header_timeout_ms,
        .idle_timeout_ms = config->idle_timeout_ms,
        .linger_timeout_ms = config->linger_timeout_ms,
        .keepalive_requests = (uint64_t) config->keepalive_requests,
    };
}

static int set_up(bt_process *process, const bt_process_start *start)
{
    process->start = start;
    bt_list_init(&process->acceptors);
    bt_list_init(&process->pass_outs);
    bt_list_init(&process->pass_ins);
    int err = bt_loop_init(&process->loop, start->number);
    if (err < 0)
        return err;
    process->loop.hook_arg = process;
    set_endpoint(process);
    uv_timer_init(&process->loop.uv, &process->deadline);
    uv_timer_init(&process->loop.uv, &process->retry);
    uv_timer_init(&process->loop.uv, &process->heartbeat);
    uv_unref((uv_handle_t *) &process->heartbeat);
    uv_idle_init(&process->loop.uv, &process->finish);
    process->deadline.data = process->retry.data = process->heartbeat.data = process->finish.data = process;
    process->channel.on_message = on_message;
    process->channel.on_end = on_master_gone;
    process->channel.owner = process;
    process->channel.keeps_reserve = true;
    return bt_channel_start(&process->channel, &process->loop.uv, start->channel_fd);
}

/* The application's own start. 0, or a negative errno with words in `why`. */
static int start_application(bt_process *process, char *why, size_t size)
{
    baton_worker *worker = process->start->worker;
    int err = 0;
    if (process->start->module_path[0] != '\0')
        err = process->start->service->load_module(worker, process->start->module_path, why, size);
    if (err < 0)
        return err;
    bt_crash_note_modules();
    if (worker->callbacks.on_worker_start != NULL) {
        err = worker->callbacks.on_worker_start(worker);
        if (err != 0) {
            snprintf(why, size, "on_worker_start returned %d", err);
            return -ECANCELED;
        }
    }
    if (process->endpoint.protocol == bt_protocol_find("http") && worker->callbacks.on_request == NULL) {
        snprintf(why, size, "an http worker needs on_request, and nothing has set it");
        return -EINVAL;
    }
    return 0;
}

/* ---- serving ---- */

static void beat(uv_timer_t *timer)
{
    const bt_process *process = timer->data;
    atomic_store_explicit(&process->start->counters->heartbeat_ms, bt_clock_ms(), memory_order_relaxed);
}

/* Everything is proved: clients may come. */
static int serve(bt_process *process, char *why, size_t size)
{
    process->state = BT_PROCESS_SERVING;
    int err = bt_process_listen(process);
    if (err < 0) {
        snprintf(why, size, "cannot poll the listening socket: %s", uv_strerror(err));
        return err;
    }
    beat(&process->heartbeat);
    uv_timer_start(&process->heartbeat, beat, BT_HEARTBEAT_MS, BT_HEARTBEAT_MS);
    bt_recycle_start(&process->recycle, process);
    err = bt_channel_send(&process->channel, BT_MESSAGE_READY, 0, NULL, -1);
    if (err < 0)
        snprintf(why, size, "the master is gone: %s", uv_strerror(err));
    return err;
}

static void refuse(bt_process *process, const char *why)
{
    bt_process_fail(process, why);
    process->exit_code = BT_EXIT_CANNOT_START;
    uv_stop(&process->loop.uv);
}

void bt_process_abandon_start(bt_process *process)
{
    bt_probe_cancel(&process->probe);
    uv_stop(&process->loop.uv);
}

static void on_probed(bt_probe *probe, const char *why)
{
    bt_process *process = probe->owner;
    char own_why[BT_CHANNEL_TEXT];
    if (why != NULL)
        refuse(process, why);
    else if (serve(process, own_why, sizeof own_why) < 0)
        refuse(process, own_why);
}

static int probe(bt_process *process, char *why, size_t size)
{
    const char *path = process->start->worker->config->probe;
    process->probe.owner = process;
    process->probe.on_done = on_probed;
    int err = bt_probe_start(&process->probe, &process->loop, &process->endpoint, path);
    if (err < 0)
        snprintf(why, size, "cannot probe %s: %s", path, uv_strerror(err));
    return err;
}

static int begin(bt_process *process, char *why, size_t size)
{
    const bt_worker_config *config = process->start->worker->config;
    bt_orphan_guard(process->start->channel_fd);
    int err = drop_privileges(config);
    if (err < 0)
        snprintf(why, size, "cannot become user %s: %s", config->user, strerror(-err));
    else
        err = start_application(process, why, size);
    bt_orphan_unguard(process->start->channel_fd);
    bt_crash_note_modules(); /* on_worker_start may have loaded some, too */
    if (err < 0)
        return err;
    bool is_probed = config->probe != NULL && process->endpoint.protocol == bt_protocol_find("http");
    return is_probed ? probe(process, why, size) : serve(process, why, size);
}

static void set_role(const bt_process_start *start)
{
    char role[64];
    snprintf(role, sizeof role, "%.48s.%d", start->worker->config->name, start->slot);
    bt_log_set_role(role);
    bt_log_keep_tail(start->tail);
    bt_crash_watch(role, start->tail);
}

static void destroy(baton_conn *conn, void *arg)
{
    (void) arg;
    bt_conn_destroy(conn, 0);
}

static void close_all(bt_process *process)
{
    bt_probe_cancel(&process->probe);
    bt_process_stop_listening(process);
    bt_process_close_passes(process);
    bt_loop_each_conn(&process->loop, destroy, NULL); /* on_close may cancel timers */
    bt_timers_free_all(&process->loop);
    bt_channel_close(&process->channel, NULL);
    bt_loop_close(&process->loop);
}

int bt_process_run(const bt_process_start *start)
{
    static bt_process process; /* as long as the process itself: public handles point into it */
    char why[BT_CHANNEL_TEXT] = "";
    current = &process;
    start->worker->process = &process;
    set_role(start);
    set_signals();
    int err = set_up(&process, start);
    if (err < 0) {
        bt_log(BT_LOG_ERROR, "cannot-serve reason=\"%s\"", uv_strerror(err));
        bt_channel_send_blocking(start->channel_fd, BT_MESSAGE_FAILED, 0, uv_strerror(err), -1);
        return BT_EXIT_CANNOT_START;
    }
    err = begin(&process, why, sizeof why);
    if (err < 0) {
        bt_process_fail(&process, why);
        process.exit_code = BT_EXIT_CANNOT_START;
    } else {
        uv_run(&process.loop.uv, UV_RUN_DEFAULT);
        if (start->worker->callbacks.on_worker_stop != NULL)
            start->worker->callbacks.on_worker_stop(start->worker);
    }
    close_all(&process);
    return process.exit_code;
}
