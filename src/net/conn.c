/* net/conn.c: a connection's life: create, read, close, linger, and leaving by a pass.
 * Must not know what is spoken: every decision about messages is the protocol's. Output is in conn_output.c. */
#include <assert.h>
#include <base/alloc.h>
#include <errno.h>
#include <net/conn.h>
#include <net/conn_internal.h>
#include <sys/socket.h>
#include <unistd.h>

/* A first read into the connection's own buffer asks for this much: enough for a head, small for a slow client. */
#define READ_MIN (4 * 1024)

/* A process that ends does not wait long for peers that keep their end open. */
#define LEAVING_LINGER_MS 250

static void on_event(uv_poll_t *poll, int status, int events);

static void release(baton_conn *conn)
{
    assert(conn->refs > 0);
    if (--conn->refs > 0)
        return;
    bt_loop *loop = conn->loop;
    conn->magic = 0;
    if (loop->spare_count >= BT_SPARE_CONNS) {
        free(conn);
        return;
    }
    bt_list_append(&loop->spare_conns, &conn->node);
    loop->spare_count++;
}

static baton_conn *take_spare(bt_loop *loop)
{
    bt_list *node = bt_list_pop(&loop->spare_conns);
    if (node == NULL)
        return bt_malloc(sizeof(baton_conn));
    loop->spare_count--;
    return bt_container(node, baton_conn, node);
}

baton_conn *bt_conn_create(bt_loop *loop, const bt_endpoint *endpoint, int fd, uint64_t id)
{
    baton_conn *conn = take_spare(loop);
    if (conn == NULL)
        return NULL;
    *conn = (baton_conn){.magic = BT_CONN_MAGIC, .refs = 1, .loop = loop, .endpoint = endpoint, .fd = fd, .id = id};
    bt_list_init(&conn->node);
    if (uv_poll_init(&loop->uv, &conn->poll, fd) < 0) {
        release(conn);
        return NULL;
    }
    conn->poll.data = conn;
    bt_list_append(&loop->conns, &conn->node);
    bt_list_init(&conn->dirty);
    bt_wheel_entry_init(&conn->timeout);
    bt_wheel_entry_init(&conn->stall);
    loop->conn_count++;
    bt_count(&endpoint->counters->connections, 1);
    bt_count_shared(endpoint->crew_connections, 1);
    return conn;
}

uint64_t bt_conn_next_id(bt_loop *loop)
{
    return loop->id_prefix | ++loop->next_id;
}

/* Each change of interest costs two epoll_ctl calls: it only changes when the socket is full, or input must wait. */
void bt_conn_update_interest(baton_conn *conn)
{
    int wanted = 0;
    if (!conn->peer_ended && !conn->reading_paused)
        wanted |= UV_READABLE;
    if (bt_buf_len(&conn->out) > 0 && conn->loop->corked != conn)
        wanted |= UV_WRITABLE;
    if (wanted == conn->events)
        return;
    conn->events = (uint8_t) wanted;
    if (wanted == 0)
        uv_poll_stop(&conn->poll);
    else
        uv_poll_start(&conn->poll, wanted, on_event);
}

void bt_conn_start(baton_conn *conn)
{
    bt_conn_update_interest(conn);
    if (bt_buf_len(&conn->in) > 0)
        bt_conn_resume(conn);
}

void bt_conn_mark_dirty(baton_conn *conn)
{
    if (bt_list_empty(&conn->dirty))
        bt_list_append(&conn->loop->dirty, &conn->dirty);
}

void bt_conn_resume(baton_conn *conn)
{
    if (conn->state != BT_CONN_OPEN)
        return;
    conn->resume = true;
    bt_conn_mark_dirty(conn);
}

void bt_conn_pause(baton_conn *conn)
{
    conn->reading_paused = true;
    bt_conn_update_interest(conn);
}

void bt_conn_expire_in(baton_conn *conn, uint64_t timeout_ms)
{
    if (conn->state != BT_CONN_CLOSED && conn->state != BT_CONN_PASSED)
        bt_loop_deadline(conn->loop, &conn->loop->wheel, &conn->timeout,
                         timeout_ms == 0 ? 0 : bt_loop_now(conn->loop) + timeout_ms);
}

/* ---- input ---- */

/* Keeps what the protocol has not consumed of bytes that lie in the loop's receive buffer. */
static void keep_leftover(baton_conn *conn, const char *data, size_t len)
{
    if (len == 0 || conn->state != BT_CONN_OPEN)
        return;
    if (bt_buf_append(&conn->in, data, len) < 0)
        bt_conn_destroy(conn, -ENOMEM);
}

/* Hands the unconsumed bytes in conn->in to the protocol. */
static void process_kept(baton_conn *conn)
{
    conn->in_borrowed = true;
    size_t consumed = conn->endpoint->protocol->on_data(conn, bt_buf_head(&conn->in), bt_buf_len(&conn->in));
    conn->in_borrowed = false;
    if (conn->state == BT_CONN_OPEN)
        bt_buf_consume(&conn->in, consumed);
    if (conn->state != BT_CONN_OPEN || bt_buf_len(&conn->in) == 0)
        bt_buf_free(&conn->in);
}

/* A callback that closes its connection may go on looking at the message it was given. */
static void drop_input(baton_conn *conn)
{
    if (!conn->in_borrowed)
        bt_buf_free(&conn->in);
}

/* One recv(2) per event: the socket is not read until EAGAIN, epoll will say if there is more. */
static ssize_t receive(baton_conn *conn)
{
    bt_loop *loop = conn->loop;
    if (bt_buf_len(&conn->in) == 0) {
        ssize_t n = recv(conn->fd, loop->receive_buffer, BT_RECEIVE_BUFFER, 0);
        if (n <= 0)
            return n < 0 ? -errno : 0;
        conn->bytes_read += (uint64_t) n;
        bt_count(&conn->endpoint->counters->bytes_read, n);
        size_t consumed = conn->endpoint->protocol->on_data(conn, loop->receive_buffer, (size_t) n);
        keep_leftover(conn, loop->receive_buffer + consumed, (size_t) n - consumed);
        return n;
    }
    if (bt_buf_reserve(&conn->in, READ_MIN) < 0)
        return -ENOMEM;
    size_t room = conn->in.cap - conn->in.end;
    ssize_t n = recv(conn->fd, bt_buf_tail(&conn->in), room < BT_RECEIVE_BUFFER ? room : BT_RECEIVE_BUFFER, 0);
    if (n <= 0)
        return n < 0 ? -errno : 0;
    conn->in.end += (size_t) n;
    conn->bytes_read += (uint64_t) n;
    bt_count(&conn->endpoint->counters->bytes_read, n);
    process_kept(conn);
    return n;
}

static void peer_ended(baton_conn *conn)
{
    conn->peer_ended = true;
    if (conn->endpoint->protocol->on_end(conn)) {
        if (conn->state == BT_CONN_OPEN)
            bt_conn_update_interest(conn); /* an end is readable for ever */
        return;
    }
    if (conn->state == BT_CONN_OPEN)
        bt_conn_close(conn);
}

static bool is_retry(ssize_t err)
{
    return err == -EAGAIN || err == -EWOULDBLOCK || err == -EINTR;
}

/* Reads once. Returns false when there is nothing more to be read from the connection. */
static bool read_once(baton_conn *conn)
{
    ssize_t n = receive(conn);
    if (n > 0)
        return conn->state == BT_CONN_OPEN && !conn->peer_ended && !conn->reading_paused;
    if (conn->state != BT_CONN_OPEN)
        return false;
    if (n == 0)
        peer_ended(conn);
    else if (!is_retry(n))
        bt_conn_destroy(conn, (int) n);
    return false;
}

/* The linger: what still comes is thrown away until the peer's end. */
static void discard(baton_conn *conn)
{
    ssize_t n = recv(conn->fd, conn->loop->receive_buffer, BT_RECEIVE_BUFFER, 0);
    if (n == 0 || (n < 0 && !is_retry(-errno)))
        bt_conn_destroy(conn, 0);
}

/* After a RST libuv reports EBADF and stops the watcher while data is still readable: read to the end first. */
static void read_to_the_end(baton_conn *conn)
{
    conn->events = 0;
    bool was_closed = conn->state == BT_CONN_LINGER; /* the peer has what it wanted, or never will */
    while (conn->state == BT_CONN_OPEN && read_once(conn))
        ;
    bt_conn_destroy(conn, was_closed ? 0 : -ECONNRESET);
}

static void handle_event(baton_conn *conn, int status, int events)
{
    if (status < 0) {
        read_to_the_end(conn);
        return;
    }
    if ((events & UV_WRITABLE) && !bt_conn_flush(conn))
        return;
    if (!(events & UV_READABLE))
        return;
    if (conn->state == BT_CONN_OPEN)
        read_once(conn);
    else if (conn->state == BT_CONN_LINGER)
        discard(conn);
    else if (conn->state == BT_CONN_CLOSING)
        bt_conn_pause(conn); /* its input no longer matters; the linger reads it */
}

/* The connection is corked while its event is handled: all answers leave in one send. */
static void on_event(uv_poll_t *poll, int status, int events)
{
    baton_conn *conn = poll->data;
    assert(conn->magic == BT_CONN_MAGIC);
    baton_conn_ref(conn);
    bt_conn_cork(conn);
    handle_event(conn, status, events);
    bt_conn_uncork(conn);
    baton_conn_unref(conn);
}

/* The bytes are not new: unless something could be done with them they are no sign of life, and the deadline stays. */
static void look_again(baton_conn *conn)
{
    size_t len = bt_buf_len(&conn->in);
    uint64_t deadline_ms = conn->timeout.deadline_ms;
    conn->resume = false;
    conn->reading_paused = false;
    if (len == 0)
        return;
    process_kept(conn);
    bool is_same = conn->state == BT_CONN_OPEN && bt_buf_len(&conn->in) == len && deadline_ms != 0;
    if (is_same && (conn->timeout.deadline_ms == 0 || conn->timeout.deadline_ms > deadline_ms))
        bt_loop_deadline(conn->loop, &conn->loop->wheel, &conn->timeout, deadline_ms);
}

void bt_conn_flush_dirty(baton_conn *conn)
{
    baton_conn_ref(conn);
    bt_conn_cork(conn);
    if (conn->resume && conn->state == BT_CONN_OPEN)
        look_again(conn);
    bt_conn_uncork(conn);
    baton_conn_unref(conn);
}

/* ---- the end ---- */

static void handle_closed(uv_handle_t *handle)
{
    release(handle->data);
}

/* Common to destroy and pass: our copy of the descriptor and all memory go. uv_close comes first: a descriptor closed
 * while epoll still watches its description spins the loop when another process holds it too. */
static void let_go(baton_conn *conn, bt_conn_state state)
{
    bt_loop *loop = conn->loop;
    conn->state = (uint8_t) state;
    bt_list_remove(&conn->node);
    bt_list_remove(&conn->dirty);
    bt_wheel_remove(&loop->wheel, &conn->timeout);
    bt_wheel_remove(&loop->stalls, &conn->stall);
    if (state == BT_CONN_CLOSED && bt_conn_unsent(conn) > 0) {
        /* What is lost must not look like the end of an answer (HTTP/1.0): the peer gets a RST. */
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    if (loop->corked == conn)
        bt_buf_clear(&loop->output);
    drop_input(conn);
    bt_buf_free(&conn->out);
    loop->conn_count--;
    bt_count(&conn->endpoint->counters->connections, -1);
    bt_count_shared(conn->endpoint->crew_connections, -1);
    conn->endpoint->protocol->on_gone(conn);
    uv_close((uv_handle_t *) &conn->poll, handle_closed);
    close(conn->fd);
    conn->fd = -1;
}

void bt_conn_destroy(baton_conn *conn, int error)
{
    if (conn->state == BT_CONN_CLOSED || conn->state == BT_CONN_PASSED)
        return;
    const baton_callbacks *callbacks = conn->endpoint->callbacks;
    bt_loop *loop = conn->loop;
    baton_conn_ref(conn);
    let_go(conn, BT_CONN_CLOSED);
    bt_pass_log(conn->id, "closed");
    if (error != 0 && callbacks->on_error != NULL)
        callbacks->on_error(conn, error);
    if (callbacks->on_close != NULL)
        callbacks->on_close(conn);
    baton_conn_unref(conn);
    if (loop->on_conn_gone != NULL)
        loop->on_conn_gone(loop->hook_arg);
}

void bt_conn_reject(baton_conn *conn, int error)
{
    bt_count(&conn->endpoint->counters->rejected, 1);
    if (conn->endpoint->callbacks->on_error != NULL)
        conn->endpoint->callbacks->on_error(conn, error);
    bt_conn_close(conn);
}

/* Everything is sent: say so to the peer, and wait for its end so that it can read all of it. */
void bt_conn_shut(baton_conn *conn)
{
    if (conn->peer_ended || shutdown(conn->fd, SHUT_WR) < 0) {
        bt_conn_destroy(conn, 0);
        return;
    }
    conn->state = BT_CONN_LINGER;
    conn->reading_paused = false;
    bool leaving = conn->loop->departure == BT_DEPARTURE_CLOSE;
    bt_conn_expire_in(conn, leaving ? LEAVING_LINGER_MS : conn->endpoint->linger_timeout_ms);
    bt_conn_update_interest(conn);
}

void bt_conn_close(baton_conn *conn)
{
    if (conn->state != BT_CONN_OPEN)
        return;
    conn->state = BT_CONN_CLOSING;
    drop_input(conn);
    bt_conn_expire_in(conn, 0); /* as long as the peer takes its bytes; else it is the stall that ends it */
    bt_conn_watch_stall(conn, false);
    bt_conn_mark_dirty(conn); /* not from here: a callback of this very connection may be running */
}

/* ---- the pass ---- */

bool bt_conn_is_passable(const baton_conn *conn)
{
    return conn->state == BT_CONN_OPEN && !conn->peer_ended && !conn->leaves && !conn->refused &&
           !bt_conn_is_tied(conn) && conn->loop->corked != conn && conn->endpoint->protocol->is_passable(conn);
}

void bt_conn_hold(baton_conn *conn)
{
    assert(conn->state == BT_CONN_OPEN);
    conn->state = BT_CONN_PASSING;
    conn->events = 0;
    bt_list_remove(&conn->dirty);
    uv_poll_stop(&conn->poll);                           /* libuv takes the descriptor out of epoll at once */
    bt_wheel_remove(&conn->loop->wheel, &conn->timeout); /* the deadlines stay: they travel, or are ours again */
    bt_wheel_remove(&conn->loop->stalls, &conn->stall);
}

static void reopen(baton_conn *conn)
{
    assert(conn->state == BT_CONN_PASSING);
    conn->state = BT_CONN_OPEN;
    bt_loop_deadline(conn->loop, &conn->loop->wheel, &conn->timeout, conn->timeout.deadline_ms);
    bt_loop_deadline(conn->loop, &conn->loop->stalls, &conn->stall, conn->stall.deadline_ms);
    bt_conn_start(conn);
    if (conn->is_doomed)
        bt_conn_destroy(conn, 0);
    else if (conn->shall_close)
        bt_conn_close(conn);
}

void bt_conn_taken(baton_conn *conn)
{
    reopen(conn);
    if (conn->state != BT_CONN_OPEN)
        return;
    if (conn->loop->departure == BT_DEPARTURE_CLOSE)
        conn->endpoint->protocol->on_departure(conn); /* told to end since, when the others were asked */
    else if (conn->loop->departure != BT_DEPARTURE_NONE)
        bt_conn_mark_dirty(conn); /* told to drain since: it leaves again from the loop's end */
}

void bt_conn_rearm(baton_conn *conn)
{
    conn->refused = true;
    reopen(conn);
}

void bt_conn_passed(baton_conn *conn)
{
    assert(conn->state == BT_CONN_PASSING);
    bt_loop *loop = conn->loop;
    const baton_callbacks *callbacks = conn->endpoint->callbacks;
    baton_conn_ref(conn);
    let_go(conn, BT_CONN_PASSED);
    if (conn->user != NULL && callbacks->on_passed != NULL) {
        callbacks->on_passed(conn);
        conn->user = NULL; /* freed: whoever still holds the detached handle must not find it */
    }
    baton_conn_unref(conn);
    if (loop->on_conn_gone != NULL)
        loop->on_conn_gone(loop->hook_arg);
}

/* ---- references ---- */

baton_conn *baton_conn_ref(baton_conn *conn)
{
    conn->refs++;
    return conn;
}

void baton_conn_unref(baton_conn *conn)
{
    release(conn);
}
