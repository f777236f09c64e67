/* net/conn_output.c: a connection's way out: corking, flushing, and back-pressure.
 * Must not know what the bytes mean. */
#include <errno.h>
#include <linux/sockios.h>
#include <net/conn.h>
#include <net/conn_internal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* The loop's output buffer is kept between events unless one answer has made it this large. */
#define OUTPUT_KEPT (256 * 1024)

void bt_conn_cork(baton_conn *conn)
{
    conn->loop->corked = conn;
}

bt_buf *bt_conn_output(baton_conn *conn)
{
    bool corked = conn->loop->corked == conn && bt_buf_len(&conn->out) == 0;
    return corked ? &conn->loop->output : &conn->out;
}

size_t bt_conn_unsent(const baton_conn *conn)
{
    size_t corked = conn->loop->corked == conn ? bt_buf_len(&conn->loop->output) : 0;
    return bt_buf_len(&conn->out) + corked;
}

void bt_conn_output_added(baton_conn *conn)
{
    if (conn->loop->corked != conn)
        bt_conn_mark_dirty(conn);
}

bool bt_conn_peer_takes(baton_conn *conn)
{
    int queued = 0;
    if (ioctl(conn->fd, SIOCOUTQ, &queued) < 0)
        return false;
    /* Signed: a Unix socket counts its bookkeeping, too, and so more than was written. */
    int64_t taken = (int64_t) conn->bytes_written - queued;
    bool has_moved = taken > conn->taken;
    conn->taken = taken;
    return has_moved;
}

/* A closing connection is not kept without limit even where idle ones are. */
void bt_conn_watch_stall(baton_conn *conn, bool has_moved)
{
    const bt_endpoint *endpoint = conn->endpoint;
    uint64_t timeout_ms = endpoint->idle_timeout_ms;
    if (timeout_ms == 0 && conn->state != BT_CONN_OPEN)
        timeout_ms = endpoint->linger_timeout_ms;
    bool is_first = conn->stall.deadline_ms == 0;
    if (is_first)
        bt_conn_peer_takes(conn);
    if (timeout_ms != 0 && bt_buf_len(&conn->out) > 0 && (has_moved || is_first))
        bt_loop_deadline(conn->loop, &conn->loop->stalls, &conn->stall, bt_loop_now(conn->loop) + timeout_ms);
}

/* The socket is full: the loop's buffer becomes the connection's (no copy), the loop gets a new one later.
 * A peer that takes nothing for idle_timeout is given up, whatever the application still writes. */
static void keep_unsent(baton_conn *conn, bt_buf *out, bool has_moved)
{
    bool is_new = out != &conn->out;
    if (out != &conn->out) {
        bt_buf_free(&conn->out);
        conn->out = *out;
        *out = (bt_buf){0};
    }
    bt_conn_watch_stall(conn, has_moved || is_new);
    if (!conn->is_full && bt_buf_len(&conn->out) >= conn->endpoint->max_send_buffer) {
        conn->is_full = true;
        if (conn->state == BT_CONN_OPEN && conn->endpoint->callbacks->on_buffer_full != NULL)
            conn->endpoint->callbacks->on_buffer_full(conn);
    }
}

static void output_drained(baton_conn *conn)
{
    bt_buf_free(&conn->out);
    bt_loop_deadline(conn->loop, &conn->loop->stalls, &conn->stall, 0);
    if (conn->state == BT_CONN_CLOSING) {
        bt_conn_shut(conn);
        return;
    }
    if (conn->reading_paused)
        bt_conn_resume(conn);
    if (conn->is_full) {
        conn->is_full = false;
        if (conn->endpoint->callbacks->on_buffer_drain != NULL)
            conn->endpoint->callbacks->on_buffer_drain(conn);
    }
}

bool bt_conn_flush(baton_conn *conn)
{
    if (conn->state == BT_CONN_CLOSED || conn->state == BT_CONN_PASSED)
        return false;
    bt_buf *out = bt_conn_output(conn);
    if (bt_buf_len(out) > 0) {
        ssize_t n = send(conn->fd, bt_buf_head(out), bt_buf_len(out), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            bt_conn_destroy(conn, -errno);
            return false;
        }
        if (n > 0) {
            bt_buf_consume(out, (size_t) n);
            conn->bytes_written += (uint64_t) n;
            bt_count(&conn->endpoint->counters->bytes_written, n);
        }
        if (bt_buf_len(out) > 0) {
            keep_unsent(conn, out, n > 0);
            return conn->state != BT_CONN_CLOSED;
        }
    }
    if (out == &conn->out)
        output_drained(conn);
    return conn->state != BT_CONN_CLOSED;
}

void bt_conn_uncork(baton_conn *conn)
{
    bt_loop *loop = conn->loop;
    bool alive;
    do
        alive = bt_conn_flush(conn);
    while (alive && bt_buf_len(&loop->output) > 0); /* on_buffer_drain may have written more */
    loop->corked = NULL;
    if (loop->output.cap > OUTPUT_KEPT)
        bt_buf_free(&loop->output);
    if (!alive || conn->state == BT_CONN_PASSING)
        return;
    if (conn->state == BT_CONN_CLOSING && bt_buf_len(&conn->out) == 0)
        bt_conn_shut(conn);
    else
        bt_conn_update_interest(conn);
    if (conn->state == BT_CONN_OPEN && loop->departure == BT_DEPARTURE_PASS && bt_conn_is_passable(conn))
        loop->on_passable(conn, loop->hook_arg);
}
