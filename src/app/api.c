/* app/api.c: the calls of the public API that belong to the process one is in: workers, timers, the loop.
 * The one place where the process's context is taken from behind the API; everything below gets it as an argument. */
#include <app/module.h>
#include <baton/timer.h>
#include <baton/worker.h>
#include <errno.h>
#include <net/timer.h>
#include <proc/crash.h>
#include <proc/process.h>
#include <stdio.h>

baton_timer *baton_timer_once(uint64_t delay_ms, baton_timer_fn fn, void *arg)
{
    bt_process *process = bt_process_current();
    return process == NULL ? NULL : bt_timer_add(&process->loop, delay_ms, 0, fn, arg);
}

baton_timer *baton_timer_every(uint64_t interval_ms, baton_timer_fn fn, void *arg)
{
    bt_process *process = bt_process_current();
    uint64_t interval = interval_ms == 0 ? 1 : interval_ms;
    return process == NULL ? NULL : bt_timer_add(&process->loop, interval, interval, fn, arg);
}

struct uv_loop_s *baton_loop(void)
{
    bt_process *process = bt_process_current();
    return process == NULL ? NULL : &process->loop.uv;
}

uint64_t baton_generation(void)
{
    const bt_process *process = bt_process_current();
    return process == NULL ? 0 : process->start->generation;
}

const char *baton_worker_name(const baton_worker *worker)
{
    return worker->config->name;
}

int baton_worker_slot(const baton_worker *worker)
{
    return worker->process == NULL ? -1 : worker->process->start->slot;
}

void *baton_worker_user(const baton_worker *worker)
{
    return worker->user;
}

void baton_worker_set_user(baton_worker *worker, void *user)
{
    worker->user = user;
}

int baton_worker_load(baton_worker *worker, const char *file)
{
    char path[1024];
    char why[BT_CHANNEL_TEXT] = "";
    if (worker->process == NULL)
        return -EPERM; /* in the master: it never loads business code */
    int len = snprintf(path, sizeof path, "%s/%s", worker->process->start->module_dir, file);
    if (len < 0 || (size_t) len >= sizeof path)
        return -ENAMETOOLONG;
    int err = worker->process->start->service->load_module(worker, path, why, sizeof why);
    if (err < 0)
        bt_process_fail(worker->process, why);
    else
        bt_crash_note_modules();
    return err;
}

static int ask_master(bt_message_type type, uint64_t value)
{
    bt_process *process = bt_process_current();
    return process == NULL ? -EPERM : bt_channel_send(&process->channel, type, value, NULL, -1);
}

int baton_stop_all(bool graceful)
{
    return ask_master(BT_MESSAGE_ASK_STOP, graceful);
}

int baton_reload_all(void)
{
    return ask_master(BT_MESSAGE_ASK_RELOAD, 0);
}
