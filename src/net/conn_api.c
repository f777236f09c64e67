/* net/conn_api.c: the calls of baton/connection.h.
 * Must not know what is spoken: messages are encoded through the protocol's table. */
#include <errno.h>
#include <net/conn.h>
#include <net/listener.h>
#include <stdio.h>
#include <unistd.h>

/* What waits is pushed to the socket before it counts as waiting, so that memory stays bounded inside an event, and a
 * message is only dropped when the peer really does not read. */
#define PUSH_SIZE (64 * 1024)

static bool push(baton_conn *conn)
{
    size_t unsent = bt_conn_unsent(conn);
    bool is_worth_it = unsent >= PUSH_SIZE || unsent >= conn->endpoint->max_send_buffer;
    bool is_known_full = conn->is_full || unsent < conn->endpoint->max_send_buffer;
    bool is_blocked = (conn->events & UV_WRITABLE) && is_known_full; /* the socket will say when it is not full */
    return !is_worth_it || is_blocked || bt_conn_flush(conn);
}

/* As in Workerman a message is accepted while the queue is below the limit, so one large message always fits. */
static int refuse_if_full(baton_conn *conn)
{
    if (bt_buf_len(&conn->out) < conn->endpoint->max_send_buffer)
        return 0;
    bt_count(&conn->endpoint->counters->dropped, 1);
    if (conn->endpoint->callbacks->on_error != NULL)
        conn->endpoint->callbacks->on_error(conn, -ENOBUFS);
    return -ENOBUFS;
}

int baton_send(baton_conn *conn, const void *data, size_t len)
{
    const bt_endpoint *endpoint = conn->endpoint;
    if (conn->state != BT_CONN_OPEN)
        return -ENOTCONN;
    if (endpoint->protocol->encode == NULL)
        return -EOPNOTSUPP;
    if (len > endpoint->max_package)
        return -EMSGSIZE;
    int err = refuse_if_full(conn);
    if (err < 0)
        return err;
    bool is_behind = bt_buf_len(&conn->out) > 0;
    err = endpoint->protocol->encode(bt_conn_output(conn), data, len);
    if (err < 0)
        return err;
    bt_conn_output_added(conn);
    /* After the append: on_buffer_full comes before the first message that is dropped. */
    if (!push(conn))
        return -ENOTCONN;
    return is_behind ? BATON_QUEUED : BATON_SENT;
}

void baton_close(baton_conn *conn)
{
    if (conn->state == BT_CONN_PASSING)
        conn->shall_close = true;
    else
        bt_conn_close(conn);
}

void baton_destroy(baton_conn *conn)
{
    if (conn->state == BT_CONN_PASSING)
        conn->is_doomed = true;
    else
        bt_conn_destroy(conn, 0);
}

bool baton_conn_is_open(const baton_conn *conn)
{
    return conn->state == BT_CONN_OPEN;
}

uint64_t baton_conn_id(const baton_conn *conn)
{
    return conn->id;
}

baton_worker *baton_conn_worker(const baton_conn *conn)
{
    return conn->endpoint->worker;
}

void *baton_conn_user(const baton_conn *conn)
{
    return conn->user;
}

void baton_conn_set_user(baton_conn *conn, void *user)
{
    conn->user = user;
}

const char *baton_conn_remote(const baton_conn *conn, char *out, size_t size)
{
    return bt_address_format(&conn->remote, out, size);
}

const char *baton_conn_local(const baton_conn *conn, char *out, size_t size)
{
    if (conn->fd >= 0)
        return bt_listener_name(conn->fd, out, size);
    snprintf(out, size, "unknown");
    return out;
}

uint64_t baton_conn_bytes_read(const baton_conn *conn)
{
    return conn->bytes_read;
}

uint64_t baton_conn_bytes_written(const baton_conn *conn)
{
    return conn->bytes_written;
}
