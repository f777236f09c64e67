/* proc/orphan.c: what a process does without its master.
 * Must not know how it came to that: the kernel's word that the channel's other end is closed is enough. */
#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <proc/orphan.h>
#include <proc/process.h>
#include <signal.h>
#include <unistd.h>

/* ---- while the application starts: no loop turns yet ---- */

/* A handler is given nothing but the signal. */
static int guarded_fd = -1;

static bool is_master_gone(int channel_fd)
{
    struct pollfd channel = {.fd = channel_fd};
    return poll(&channel, 1, 0) == 1 && (channel.revents & (POLLHUP | POLLERR));
}

/* Comes for each message of the master, too. */
static void on_channel_signal(int number)
{
    (void) number;
    int saved_errno = errno;
    if (is_master_gone(guarded_fd))
        _exit(BT_EXIT_CANNOT_START);
    errno = saved_errno;
}

void bt_orphan_guard(int channel_fd)
{
    struct sigaction action = {.sa_handler = on_channel_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    guarded_fd = channel_fd;
    sigaction(SIGIO, &action, NULL);
    fcntl(channel_fd, F_SETOWN, getpid());
    fcntl(channel_fd, F_SETFL, fcntl(channel_fd, F_GETFL) | O_ASYNC);
    if (is_master_gone(channel_fd)) /* before the signal was asked for */
        _exit(BT_EXIT_CANNOT_START);
}

void bt_orphan_unguard(int channel_fd)
{
    struct sigaction present;
    fcntl(channel_fd, F_SETFL, fcntl(channel_fd, F_GETFL) & ~O_ASYNC);
    if (sigaction(SIGIO, NULL, &present) == 0 && present.sa_handler == on_channel_signal)
        signal(SIGIO, SIG_DFL); /* not if the application has taken it */
    guarded_fd = -1;
}

/* ---- afterwards ---- */

static void on_signal(uv_signal_t *signal, int number)
{
    bt_process *process = signal->data;
    const bt_process_start *start = process->start;
    bool is_graceful = number == SIGQUIT;
    bt_log(BT_LOG_INFO, "stopping signal=%d", number);
    bt_process_stop(process,
                    is_graceful ? start->worker->config->drain_timeout_ms : start->master_config->stop_timeout_ms);
}

static void obey_signals(bt_process *process)
{
    static const int numbers[BT_ORPHAN_SIGNALS] = {SIGTERM, SIGINT, SIGQUIT};
    for (size_t i = 0; i < BT_ORPHAN_SIGNALS; i++) {
        uv_signal_t *signal = &process->orphan.signals[i];
        int err = uv_signal_init(&process->loop.uv, signal);
        signal->data = process;
        if (err == 0)
            err = uv_signal_start(signal, on_signal, numbers[i]);
        if (err < 0)
            bt_log(BT_LOG_ERROR, "signal-not-caught signal=%d error=%s", numbers[i], uv_err_name(err));
    }
}

/* Whoever is being served is served to the end; a supervisor that starts a new master finds the port free. */
static void end_alone(bt_process *process)
{
    uint64_t timeout_ms = process->start->worker->config->drain_timeout_ms;
    switch (process->state) {
    case BT_PROCESS_STARTING:
        bt_process_abandon_start(process);
        break;
    case BT_PROCESS_SERVING:
        bt_process_stop(process, timeout_ms);
        break;
    case BT_PROCESS_DRAINING:
        if (!uv_is_active((uv_handle_t *) &process->deadline))
            bt_process_limit(process, timeout_ms); /* nobody is left who could end an unlimited drain */
        break;
    case BT_PROCESS_STOPPING:
        break;
    }
}

void bt_orphan_port_closed(bt_process *process)
{
    bt_orphan *orphan = &process->orphan;
    bool is_leaving = process->state != BT_PROCESS_SERVING;
    if (process->channel.is_open || orphan->has_let_go || !is_leaving || !bt_list_empty(&process->acceptors))
        return;
    orphan->has_let_go = true;
    if (process->start->lock_fd >= 0)
        close(process->start->lock_fd);
}

void bt_orphan_begin(bt_process *process)
{
    bool serves_on = process->state == BT_PROCESS_SERVING &&
                     process->start->master_config->on_master_exit == BT_ON_MASTER_EXIT_SERVE;
    bt_log(BT_LOG_WARN, "master-gone serving=%s", serves_on ? "yes" : "no");
    bt_channel_close(&process->channel, NULL);
    if (serves_on)
        obey_signals(process);
    else
        end_alone(process);
    bt_orphan_port_closed(process); /* it may have closed all of them before */
}
