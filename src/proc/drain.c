/* proc/drain.c: how a process leaves: passes what can be passed, finishes what is being handled, ends what is left when
 * time is up. Must not know why it was told to.
 *
 * Who may read a connection's descriptor, step by step:
 *   1 this process     polled here
 *   2 nobody           held: waiting in a pass_out, the kernel keeps what arrives
 *   3 nobody           sent, no verdict yet
 *   4 the successor    its verdict is in the kernel; we close our copy when we read it
 *   3'-> 1             refused, or the successor died: served here again (conn->refused) until another one is offered
 */
#include <base/alloc.h>
#include <base/log.h>
#include <net/timer.h>
#include <proc/process.h>
#include <unistd.h>

#define ASK_AGAIN_MS 1000
#define RETRY_MS     100 /* a successor out of descriptors may have some again */

static bool is_leaving(const bt_process *process)
{
    return process->state == BT_PROCESS_DRAINING || process->state == BT_PROCESS_STOPPING;
}

/* ---- the end ---- */

static void finish(uv_idle_t *idle)
{
    bt_process *process = idle->data;
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
    bool is_passing = process->pass_out != NULL && !process->told_handed_over;
    if (is_passing && !process->was_extended) {
        process->was_extended = true; /* drain_timeout is for what cannot be passed: let the others go first */
        uv_timer_start(&process->deadline, on_deadline, BT_LAST_WORDS_MS, 0);
        return;
    }
    bt_log(BT_LOG_WARN, "drain-expired connections=%zu", process->loop.conn_count);
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

/* ---- passing ---- */

static void on_passable(baton_conn *conn, void *arg)
{
    bt_process *process = arg;
    if (process->pass_out == NULL)
        return;
    bt_pass_out_add(process->pass_out, conn);
    bt_pass_out_pump(process->pass_out);
}

static void offer(baton_conn *conn, void *arg)
{
    conn->refused = false;
    if (bt_conn_is_passable(conn))
        bt_pass_out_add(arg, conn);
}

/* Everything passable at this moment leaves; what is being handled follows when it is answered. */
static void offer_all(bt_process *process)
{
    bt_loop_each_conn(&process->loop, offer, process->pass_out);
    bt_pass_out_pump(process->pass_out);
}

static void offer_again(uv_timer_t *timer);
static void close_idle(bt_process *process);

static void retry_in(bt_process *process, uint64_t delay_ms)
{
    if (!uv_is_active((uv_handle_t *) &process->retry))
        uv_timer_start(&process->retry, offer_again, delay_ms, 0);
}

/* The answer can be lost for want of descriptors, here or there: asked again until it comes. */
static void ask_for_channel(bt_process *process)
{
    bt_channel_send(&process->channel, BT_MESSAGE_ASK_PASS, 0, NULL, -1);
    retry_in(process, ASK_AGAIN_MS);
}

/* Refused connections are offered again; without a channel to offer them through, the master is asked for one. */
static void offer_again(uv_timer_t *timer)
{
    bt_process *process = timer->data;
    if (process->pass_out != NULL)
        offer_all(process);
    else if (process->state == BT_PROCESS_DRAINING && process->channel.is_open)
        ask_for_channel(process);
    else if (process->state == BT_PROCESS_DRAINING)
        close_idle(process); /* the successor has gone, and the master that could offer another, too */
}

static void on_refused(bt_pass_out *out, baton_conn *conn, bt_verdict verdict)
{
    bt_process *process = out->owner;
    (void) conn;
    bool may_pass_later = verdict == BT_VERDICT_NO_DESCRIPTOR || verdict == BT_VERDICT_NO_MEMORY;
    bool is_replaced = process->pass_out != NULL && out != process->pass_out;
    if (is_replaced)
        retry_in(process, 0); /* by one that was itself replaced meanwhile: the present one may take it */
    else if (may_pass_later)
        retry_in(process, RETRY_MS);
}

static void on_settled(bt_pass_out *out)
{
    bt_process *process = out->owner;
    if (out->is_ending)
        bt_pass_out_close(out);
    else if (!process->told_handed_over) {
        process->told_handed_over = true;
        bt_channel_send(&process->channel, BT_MESSAGE_HANDED_OVER, 0, NULL, -1);
    }
    bt_process_check_done(process);
}

static void on_pass_out_end(bt_pass_out *out)
{
    free(out);
}

/* bt_pass_out_close() has already put the connections back; here only the bookkeeping follows. */
static void forget_pass_out(bt_process *process, bt_pass_out *out)
{
    bt_list_remove(&out->node);
    if (process->pass_out == out)
        process->pass_out = NULL;
}

static void on_pass_out_closing(bt_pass_out *out)
{
    bt_process *process = out->owner;
    bool was_current = process->pass_out == out;
    forget_pass_out(process, out);
    if (was_current && process->loop.departure == BT_DEPARTURE_PASS) {
        if (process->loop.conn_count > 0)
            bt_log(BT_LOG_WARN, "successor-gone connections=%zu", process->loop.conn_count);
        process->loop.departure = BT_DEPARTURE_NONE; /* serve as before, until another one is offered */
        retry_in(process, RETRY_MS);
    }
}

static bt_pass_out *open_pass_out(bt_process *process, int fd)
{
    bt_pass_out *out = bt_calloc(1, sizeof *out);
    if (out == NULL)
        return NULL;
    out->owner = process;
    out->on_settled = on_settled;
    out->on_refused = on_refused;
    out->on_closing = on_pass_out_closing;
    out->on_end = on_pass_out_end;
    if (bt_pass_out_start(out, &process->loop, fd) < 0) {
        free(out);
        return NULL;
    }
    bt_list_append(&process->pass_outs, &out->node);
    return out;
}

void bt_process_pass_to(bt_process *process, int fd)
{
    bt_pass_out *next = is_leaving(process) && fd >= 0 ? open_pass_out(process, fd) : NULL;
    if (next == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    bt_pass_out *old = process->pass_out;
    process->pass_out = next;
    process->loop.departure = BT_DEPARTURE_PASS;
    if (old != NULL) {
        bt_pass_out_hand_on(old, next);
        if (bt_pass_out_is_settled(old))
            bt_pass_out_close(old);
    }
    offer_all(process);
}

/* ---- taking ---- */

static void on_pass_in_end(bt_pass_in *in)
{
    free(in);
}

static void on_pass_in_closing(bt_pass_in *in)
{
    bt_list_remove(&in->node);
    bt_process_check_done(in->owner);
}

void bt_process_take_from(bt_process *process, int fd)
{
    bt_pass_in *in = fd < 0 ? NULL : bt_calloc(1, sizeof *in);
    if (in != NULL) {
        in->owner = process;
        in->on_closing = on_pass_in_closing;
        in->on_end = on_pass_in_end;
        in->is_draining = process->state != BT_PROCESS_SERVING;
        if (bt_pass_in_start(in, &process->loop, &process->endpoint, fd) == 0) {
            bt_list_append(&process->pass_ins, &in->node);
            return;
        }
        free(in);
    }
    if (fd >= 0)
        close(fd); /* the old process sees the end and serves on */
}

/* ---- leaving ---- */

static void prepare_to_leave(bt_process *process)
{
    bt_timers_stop_repeating(&process->loop);
    bt_list_each (node, &process->pass_ins)
        bt_container(node, bt_pass_in, node)->is_draining = true;
    process->loop.on_passable = on_passable;
    process->loop.on_conn_gone = on_conn_gone;
}

static void depart(baton_conn *conn, void *arg)
{
    (void) arg;
    if (conn->state == BT_CONN_OPEN && !bt_process_hears_out(conn))
        conn->endpoint->protocol->on_departure(conn);
}

static void close_idle(bt_process *process)
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
        bt_process_stop_listening(process);
    set_deadline(process, timeout_ms);
    bt_process_pass_to(process, pass_fd);
    if (process->pass_out == NULL && has_successor) {
        retry_in(process, RETRY_MS); /* its channel did not arrive: serve on, and ask for another */
    } else if (process->pass_out == NULL) {
        close_idle(process);
        bt_channel_send(&process->channel, BT_MESSAGE_HANDED_OVER, 0, NULL, -1);
    }
    bt_process_check_done(process);
}

void bt_process_stop(bt_process *process, uint64_t timeout_ms)
{
    process->state = BT_PROCESS_STOPPING;
    prepare_to_leave(process);
    bt_process_close_passes(process);
    set_deadline(process, timeout_ms);
    close_idle(process);
    bt_process_check_done(process);
}

void bt_process_close_passes(bt_process *process)
{
    bt_list_each (out, &process->pass_outs)
        bt_pass_out_close(bt_container(out, bt_pass_out, node));
    bt_list_each (in, &process->pass_ins)
        bt_pass_in_close(bt_container(in, bt_pass_in, node));
}
