/* proc/handover.c: how connections leave this process for a successor, and come from the one it succeeds.
 * Must not know when the process ends (drain.c), nor how messages look.
 *
 * A successor is heard of twice: its channel comes from the master, its HELLO through the channel. Until the HELLO
 * everything is served as before. Then its channel is the current one, and those that were opened before it are over:
 *
 *   opened --HELLO--> current --a newer one's HELLO--> ending --all answered--> closed
 *     |  \               \--the successor dies--> closed: served on here, another successor is asked for
 *     |   \--HELLO of versions unknown here--> closed: every connection is stranded
 *     \--a newer one's HELLO, or its end--> closed
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
#include <proc/pass_state.h>
#include <proc/process.h>
#include <proc/stays.h>
#include <stdlib.h>
#include <unistd.h>

#define ASK_AGAIN_MS 1000
#define RETRY_MS     100 /* a successor out of descriptors may have some again */
#define RECOUNT_MS   200 /* how old the reasons may be that status shows */

/* ---- why connections stay ---- */

void bt_process_count_stays(bt_process *process)
{
    bt_stays_count(&process->loop, process->start->counters, process->start->crew_counters);
}

static void recount(uv_timer_t *timer)
{
    bt_process_count_stays(timer->data);
}

void bt_process_watch_stays(bt_process *process)
{
    if (process->recount.data != NULL)
        return;
    uv_timer_init(&process->loop.uv, &process->recount);
    process->recount.data = process;
    uv_timer_start(&process->recount, recount, RECOUNT_MS, RECOUNT_MS);
}

/* ---- offering ---- */

void bt_process_on_passable(baton_conn *conn, void *arg)
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
    bt_process_count_stays(process);
    bt_pass_out_pump(process->pass_out);
}

/* The master waits for it before it goes on to the next slot. */
void bt_process_tell_handed_over(bt_process *process)
{
    if (process->told_handed_over)
        return;
    process->told_handed_over = true;
    bt_channel_send(&process->channel, BT_MESSAGE_HANDED_OVER, 0, NULL, -1);
}

/* ---- without a successor ---- */

static void offer_again(uv_timer_t *timer);

static void retry_in(bt_process *process, uint64_t delay_ms)
{
    if (!uv_is_active((uv_handle_t *) &process->retry))
        uv_timer_start(&process->retry, offer_again, delay_ms, 0);
}

/* Nobody takes connections or is expected to say HELLO, and somebody might be found who does. */
static bool is_without_successor(const bt_process *process)
{
    return process->state == BT_PROCESS_DRAINING && process->loop.departure == BT_DEPARTURE_NONE &&
           bt_list_empty(&process->pass_outs);
}

void bt_process_seek_successor(bt_process *process)
{
    if (is_without_successor(process))
        retry_in(process, RETRY_MS);
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
    else if (is_without_successor(process) && process->channel.is_open)
        ask_for_channel(process);
    else if (is_without_successor(process))
        bt_process_close_idle(process); /* the successor has gone, and the master that could offer another, too */
}

/* ---- what a channel tells ---- */

static void on_refused(bt_pass_out *out, baton_conn *conn, bt_verdict verdict)
{
    bt_process *process = out->owner;
    bool may_pass_later = verdict == BT_VERDICT_NO_DESCRIPTOR || verdict == BT_VERDICT_NO_MEMORY;
    bool is_replaced = process->pass_out != NULL && out != process->pass_out;
    if (is_replaced) { /* by one that was itself replaced meanwhile: the present one may take it */
        conn->app_stays = false;
        retry_in(process, 0);
    } else if (may_pass_later) {
        retry_in(process, RETRY_MS);
    }
}

static void on_settled(bt_pass_out *out)
{
    bt_process *process = out->owner;
    if (out->is_ending)
        bt_pass_out_close(out);
    else
        bt_process_tell_handed_over(process);
    bt_process_check_done(process);
}

static void on_pass_out_end(bt_pass_out *out)
{
    free(out);
}

/* The connections are put back by pass_out itself; here only the bookkeeping follows. */
static void on_pass_out_closing(bt_pass_out *out)
{
    bt_process *process = out->owner;
    bool was_current = process->pass_out == out;
    bt_list_remove(&out->node);
    if (was_current)
        process->pass_out = NULL;
    if (was_current && process->loop.departure == BT_DEPARTURE_PASS) {
        if (process->loop.conn_count > 0)
            bt_log(BT_LOG_WARN, "successor-gone connections=%zu", process->loop.conn_count);
        process->loop.departure = BT_DEPARTURE_NONE; /* serve as before, until another one is there */
    }
    bt_process_seek_successor(process);
}

/* ---- a successor's HELLO ---- */

/* Channels come in the order in which processes came to serve: what was opened before `newest` and never spoke leads to
 * one that has been replaced since. So a channel that speaks is always newer than the current one. */
static void close_silent_before(bt_process *process, const bt_pass_out *newest)
{
    bt_list_each (node, &process->pass_outs) {
        bt_pass_out *out = bt_container(node, bt_pass_out, node);
        if (out == newest)
            return;
        if (!out->has_hello)
            bt_pass_out_close(out);
    }
}

/* The old one still hears the verdicts on what it was sent. */
static void replace_current(bt_process *process, bt_pass_out *next)
{
    bt_pass_out *old = process->pass_out;
    process->pass_out = next;
    if (old == NULL)
        return;
    bt_pass_out_hand_on(old, next);
    if (bt_pass_out_is_settled(old))
        bt_pass_out_close(old);
}

static void forget_refusal(baton_conn *conn, void *arg)
{
    (void) arg;
    conn->app_stays = false; /* another process's word: this one may read what that one could not */
}

static void pass_on(bt_process *process, bt_pass_out *out)
{
    process->loop.departure = BT_DEPARTURE_PASS;
    process->loop.app_travels = bt_app_travels(process->endpoint.callbacks, &out->hello);
    replace_current(process, out);
    bt_loop_each_conn(&process->loop, forget_refusal, NULL);
    offer_all(process);
}

/* The successor is of a baton that is too old or too new: nothing can be passed. Each connection is answered once more,
 * then closed; idle ones may stay until the end of the drain. The master goes on with the roll. */
static void strand(bt_process *process, bt_pass_out *out)
{
    bt_log(BT_LOG_WARN, "pass-wire-mismatch successor=%u..%u own=%d..%d connections=%zu", out->hello.wire_min,
           out->hello.wire_max, BT_PASS_VERSION_MIN, BT_PASS_VERSION_MAX, process->loop.conn_count);
    process->loop.departure = BT_DEPARTURE_STRAND;
    replace_current(process, NULL);
    bt_pass_out_close(out);
    bt_process_count_stays(process);
    bt_process_tell_handed_over(process);
}

static void on_hello(bt_pass_out *out)
{
    bt_process *process = out->owner;
    close_silent_before(process, out);
    if (out->version == 0)
        strand(process, out);
    else
        pass_on(process, out);
}

static bt_pass_out *open_pass_out(bt_process *process, int fd)
{
    bt_pass_out *out = bt_calloc(1, sizeof *out);
    if (out == NULL)
        return NULL;
    out->owner = process;
    out->on_hello = on_hello;
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
    /* Later, what is left has been told to end. */
    bool may_pass = process->state == BT_PROCESS_DRAINING && process->loop.departure != BT_DEPARTURE_CLOSE;
    if (fd >= 0 && (!may_pass || open_pass_out(process, fd) == NULL))
        close(fd);
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
    bt_log(BT_LOG_WARN, "pass-channel-refused reason=\"out of memory or descriptors\"");
    if (fd >= 0)
        close(fd); /* the old process sees the end and serves on */
}

/* ---- the end ---- */

void bt_process_close_passes(bt_process *process)
{
    bt_list_each (out, &process->pass_outs)
        bt_pass_out_close(bt_container(out, bt_pass_out, node));
    bt_list_each (in, &process->pass_ins)
        bt_pass_in_close(bt_container(in, bt_pass_in, node));
}
