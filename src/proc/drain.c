/* proc/drain.c: how a process leaves: finishes what is being handled, and ends what is left when time is up.
 * Must not know why it was told to, nor how connections are passed (handover.c). */
#include <base/log.h>
#include <net/timer.h>
#include <proc/process.h>
#include <proc/stays.h>
#include <unistd.h>

static bool is_leaving(const bt_process *process)
{
    return process->state == BT_PROCESS_DRAINING || process->state == BT_PROCESS_STOPPING;
}

/* ---- the end ---- */

static void finish(uv_idle_t *idle)
{
    bt_process *process = idle->data;
    bt_stays_clear(process->start->counters);
    uv_stop(&process->loop.uv);
}

void bt_process_check_done(bt_process *process)
{
    bool is_accepting = !bt_list_empty(&process->acceptors); /* what waits in their queues */
    if (!is_leaving(process) || process->is_finishing || process->loop.conn_count > 0 || is_accepting)
        return;
    process->is_finishing = true;
    uv_idle_start(&process->finish, finish);
}

static void on_conn_gone(void *arg)
{
    bt_process_check_done(arg);
}

static void destroy(baton_conn *conn, void *arg)
{
    (void) arg;
    bt_conn_destroy(conn, 0);
}

static void give_up(uv_timer_t *timer)
{
    bt_process *process = timer->data;
    bt_loop_each_conn(&process->loop, destroy, NULL);
    process->is_finishing = true;
    uv_idle_start(&process->finish, finish);
}

static void expire(baton_conn *conn, void *arg)
{
    bt_process *process = arg;
    bt_count(&process->start->counters->closed_by_drain, 1);
    if (conn->state == BT_CONN_OPEN)
        process->endpoint.protocol->on_expired(conn);
}

/* Time is up: what is left is ended politely, and soon. */
static void on_deadline(uv_timer_t *timer)
{
    bt_process *process = timer->data;
    bool is_passing = !bt_list_empty(&process->pass_outs) && !process->told_handed_over;
    if (is_passing && !process->was_extended) {
        process->was_extended = true; /* drain_timeout is for what cannot be passed: let the others go first */
        uv_timer_start(&process->deadline, on_deadline, BT_LAST_WORDS_MS, 0);
        return;
    }
    char reasons[128];
    bt_process_count_stays(process);
    bt_log(BT_LOG_WARN, "drain-expired connections=%zu reasons=\"%s\"", process->loop.conn_count,
           bt_stays_text(process->start->counters, reasons, sizeof reasons));
    process->loop.departure = BT_DEPARTURE_CLOSE;
    bt_process_stop_listening(process);
    bt_process_close_passes(process);
    uv_timer_start(&process->deadline, give_up, BT_LAST_WORDS_MS, 0);
    bt_loop_each_conn(&process->loop, expire, process);
    bt_process_check_done(process);
}

static void set_deadline(bt_process *process, uint64_t timeout_ms)
{
    if (timeout_ms == BT_NO_LIMIT)
        uv_timer_stop(&process->deadline);
    else
        uv_timer_start(&process->deadline, on_deadline, timeout_ms, 0);
}

/* ---- leaving ---- */

static void prepare_to_leave(bt_process *process)
{
    bt_timers_stop_repeating(&process->loop);
    bt_process_watch_stays(process);
    bt_list_each (node, &process->pass_ins)
        bt_container(node, bt_pass_in, node)->is_draining = true;
    process->loop.on_passable = bt_process_on_passable;
    process->loop.on_conn_gone = on_conn_gone;
}

static void depart(baton_conn *conn, void *arg)
{
    (void) arg;
    if (conn->state == BT_CONN_OPEN && !bt_process_hears_out(conn))
        conn->endpoint->protocol->on_departure(conn);
}

void bt_process_close_idle(bt_process *process)
{
    process->loop.departure = BT_DEPARTURE_CLOSE;
    bt_loop_each_conn(&process->loop, depart, NULL);
    bt_process_finish_listening(process); /* afterwards: whom it still accepts is answered once, not closed as idle */
    bt_process_check_done(process);
}

void bt_process_limit(bt_process *process, uint64_t timeout_ms)
{
    if (process->state == BT_PROCESS_DRAINING && !process->is_finishing)
        set_deadline(process, timeout_ms);
}

void bt_process_drain(bt_process *process, bool has_successor, int pass_fd, uint64_t timeout_ms)
{
    const baton_callbacks *callbacks = &process->start->worker->callbacks;
    if (process->state != BT_PROCESS_SERVING) {
        if (pass_fd >= 0)
            close(pass_fd);
        return;
    }
    if (callbacks->on_worker_reload != NULL)
        callbacks->on_worker_reload(process->start->worker);
    process->state = BT_PROCESS_DRAINING;
    prepare_to_leave(process);
    if (has_successor)
        bt_process_cede_listening(process);
    set_deadline(process, timeout_ms);
    bt_process_pass_to(process, pass_fd);
    if (has_successor) {
        bt_process_seek_successor(process); /* if its channel did not arrive: served on meanwhile */
    } else {
        bt_process_close_idle(process);
        bt_process_tell_handed_over(process);
    }
    bt_process_check_done(process);
}

void bt_process_stop(bt_process *process, uint64_t timeout_ms)
{
    process->state = BT_PROCESS_STOPPING;
    prepare_to_leave(process);
    bt_process_close_passes(process);
    set_deadline(process, timeout_ms);
    bt_process_close_idle(process);
    bt_process_check_done(process);
}
