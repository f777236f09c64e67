/* net/loop.c: the shared state of one process's connections and the two hooks into the libuv loop: flushing before it
 * waits, and turning the timeout wheel. Must not know protocols. */
#include <base/alloc.h>
#include <errno.h>
#include <net/conn_internal.h>
#include <net/loop.h>
#include <net/loop_shut.h>

static void flush_dirty(uv_prepare_t *prepare);
static void turn_wheel(uv_timer_t *tick);

int bt_loop_init(bt_loop *loop, uint64_t process_number)
{
    *loop = (bt_loop){.id_prefix = process_number << 40};
    loop->receive_buffer = bt_malloc(BT_RECEIVE_BUFFER);
    if (loop->receive_buffer == NULL)
        return -ENOMEM;
    int err = uv_loop_init(&loop->uv);
    if (err < 0) {
        free(loop->receive_buffer);
        return err;
    }
    bt_list_init(&loop->dirty);
    bt_list_init(&loop->conns);
    bt_list_init(&loop->spare_conns);
    bt_list_init(&loop->timers);
    bt_wheel_init(&loop->wheel, uv_now(&loop->uv));
    bt_wheel_init(&loop->stalls, uv_now(&loop->uv));

    uv_prepare_init(&loop->uv, &loop->flush);
    loop->flush.data = loop;
    uv_prepare_start(&loop->flush, flush_dirty);
    uv_unref((uv_handle_t *) &loop->flush);

    uv_idle_init(&loop->uv, &loop->again);
    loop->again.data = loop;
    uv_unref((uv_handle_t *) &loop->again);

    uv_timer_init(&loop->uv, &loop->tick);
    loop->tick.data = loop;
    uv_unref((uv_handle_t *) &loop->tick);
    return 0;
}

void bt_loop_close(bt_loop *loop)
{
    if (loop->http_spare != NULL)
        loop->http_spare_free(loop->http_spare);
    bt_loop_shut(&loop->uv);

    bt_list *node;
    while ((node = bt_list_pop(&loop->spare_conns)) != NULL)
        free(bt_container(node, baton_conn, node));
    bt_buf_free(&loop->output);
    free(loop->receive_buffer);
    loop->receive_buffer = NULL;
}

void bt_loop_each_conn(bt_loop *loop, void (*fn)(baton_conn *conn, void *arg), void *arg)
{
    bt_list rest; /* only its head is looked at, so that callbacks may remove any of them */
    bt_list_init(&rest);
    bt_list_move_all(&rest, &loop->conns);
    bt_list *node;
    while ((node = bt_list_pop(&rest)) != NULL) {
        bt_list_append(&loop->conns, node);
        fn(bt_container(node, baton_conn, node), arg);
    }
}

void bt_loop_deadline(bt_loop *loop, bt_wheel *wheel, bt_wheel_entry *entry, uint64_t deadline_ms)
{
    bt_wheel_set(wheel, entry, deadline_ms);
    if (deadline_ms == 0)
        return;
    if (deadline_ms <= bt_loop_now(loop)) /* came with a pass: a process that is soon replaced must not put it off */
        uv_timer_start(&loop->tick, turn_wheel, 0, BT_WHEEL_TICK_MS);
    else if (!uv_is_active((uv_handle_t *) &loop->tick))
        uv_timer_start(&loop->tick, turn_wheel, BT_WHEEL_TICK_MS, BT_WHEEL_TICK_MS);
}

static void conn_expired(bt_wheel_entry *entry, void *arg)
{
    (void) arg;
    baton_conn *conn = bt_container(entry, baton_conn, timeout);
    bt_count(&conn->endpoint->counters->timeouts, 1);
    if (conn->state == BT_CONN_OPEN)
        conn->endpoint->protocol->on_timeout(conn);
    else
        bt_conn_destroy(conn, 0);
}

static void conn_stalled(bt_wheel_entry *entry, void *arg)
{
    (void) arg;
    baton_conn *conn = bt_container(entry, baton_conn, stall);
    if (bt_conn_peer_takes(conn)) {
        bt_conn_watch_stall(conn, true);
        return;
    }
    bt_count(&conn->endpoint->counters->timeouts, 1);
    bt_conn_destroy(conn, -ETIMEDOUT);
}

static void turn_wheel(uv_timer_t *tick)
{
    bt_loop *loop = tick->data;
    bt_wheel_advance(&loop->wheel, uv_now(&loop->uv), conn_expired, NULL);
    bt_wheel_advance(&loop->stalls, uv_now(&loop->uv), conn_stalled, NULL);
    if (loop->wheel.count == 0 && loop->stalls.count == 0)
        uv_timer_stop(tick);
}

static void look_again(uv_idle_t *again)
{
    (void) again; /* an active idle handle is what keeps the loop from waiting */
}

/* Before the loop waits: send what callbacks have queued since the last time, and let protocols go on with input
 * that waited for an answer. A connection may enter the list again while it is handled; it is then
 * handled in the next round, so one busy connection cannot starve the others. */
static void flush_dirty(uv_prepare_t *prepare)
{
    bt_loop *loop = prepare->data;
    bt_list batch;
    bt_list_init(&batch);
    bt_list_move_all(&batch, &loop->dirty);

    bt_list *node;
    while ((node = bt_list_pop(&batch)) != NULL) {
        baton_conn *conn = bt_container(node, baton_conn, dirty);
        bt_conn_flush_dirty(conn);
    }
    if (bt_list_empty(&loop->dirty))
        uv_idle_stop(&loop->again);
    else
        uv_idle_start(&loop->again, look_again);
}
