/* proto/stream.c: serves the message protocols: each whole message goes to on_message; what is unfinished waits.
 * Must not know how a message ends: that is the codec's. */
#include <errno.h>
#include <net/conn.h>
#include <proto/stream.h>

static size_t serve(baton_conn *conn, const bt_codec *codec, char *data, size_t len)
{
    const bt_endpoint *endpoint = conn->endpoint;
    size_t consumed = 0;
    while (consumed < len && bt_conn_may_begin(conn)) {
        const char *at = data + consumed;
        int64_t size = codec->input(at, len - consumed, endpoint->max_package, &conn->scanned);
        if (size < 0) {
            bt_conn_reject(conn, (int) size);
            break;
        }
        if (size == 0)
            break;
        conn->scanned = 0;
        conn->requests++;
        bt_count(&endpoint->counters->requests, 1);
        if (endpoint->callbacks->on_message != NULL)
            endpoint->callbacks->on_message(conn, codec->decode(at, (size_t) size));
        consumed += (size_t) size;
    }
    if (conn->state == BT_CONN_OPEN && consumed > 0 && conn->loop->departure == BT_DEPARTURE_CLOSE)
        bt_conn_close(conn); /* it was only still heard out */
    if (conn->state == BT_CONN_OPEN)
        bt_conn_expire_in(conn, endpoint->idle_timeout_ms);
    return consumed;
}

static bool on_end(baton_conn *conn)
{
    (void) conn;
    return false;
}

static void on_timeout(baton_conn *conn)
{
    if (bt_conn_unsent(conn) > 0)
        bt_conn_expire_in(conn, conn->endpoint->idle_timeout_ms); /* it is still reading */
    else
        bt_conn_close(conn);
}

static void on_gone(baton_conn *conn)
{
    (void) conn;
}

static bool is_passable(const baton_conn *conn)
{
    (void) conn;
    return true;
}

static void on_departure(baton_conn *conn)
{
    bt_conn_close(conn);
}

/* Raw bytes say everything: the successor searches the unfinished message from its start. */
static int save(baton_conn *conn, bt_buf *state, bt_buf *unread)
{
    (void) state;
    return bt_buf_append(unread, bt_buf_head(&conn->in), bt_buf_len(&conn->in));
}

static int restore(baton_conn *conn, const void *state, size_t len)
{
    (void) conn;
    (void) state;
    return len == 0 ? 0 : -EPROTO;
}

/* One table a codec; the connection finds its codec through on_data and encode. */
#define STREAM_PROTOCOL(NAME, WIRE_ID)                                                                                 \
    static size_t NAME##_on_data(baton_conn *conn, char *data, size_t len)                                             \
    {                                                                                                                  \
        return serve(conn, &bt_##NAME##_codec, data, len);                                                             \
    }                                                                                                                  \
    static int NAME##_encode(bt_buf *out, const void *data, size_t len)                                                \
    {                                                                                                                  \
        return bt_##NAME##_codec.encode(out, data, len);                                                               \
    }                                                                                                                  \
    const bt_protocol bt_##NAME##_protocol = {                                                                         \
        .name = #NAME,                                                                                                 \
        .wire_id = (WIRE_ID),                                                                                          \
        .wire_version = 1,                                                                                             \
        .on_data = NAME##_on_data,                                                                                     \
        .on_end = on_end,                                                                                              \
        .on_timeout = on_timeout,                                                                                      \
        .on_gone = on_gone,                                                                                            \
        .is_passable = is_passable,                                                                                    \
        .on_departure = on_departure,                                                                                  \
        .on_expired = on_departure,                                                                                    \
        .save = save,                                                                                                  \
        .restore = restore,                                                                                            \
        .encode = NAME##_encode,                                                                                       \
    }

STREAM_PROTOCOL(tcp, 2);
STREAM_PROTOCOL(text, 3);
STREAM_PROTOCOL(frame, 4);
