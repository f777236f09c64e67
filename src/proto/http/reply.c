/* proto/http/reply.c: the reply calls of baton/http.h: framing, order of calls, and the answers to bad requests.
 * Must not know how requests are read. */
#include <baton/http.h>
#include <errno.h>
#include <proto/http/exchange.h>
#include <stdio.h>

/* Streamed bytes are pushed to the socket when this much has been corked. */
#define OUTPUT_HIGH (64 * 1024)

const char *bt_http_date_now(bt_loop *loop)
{
    uint64_t now = bt_loop_now(loop);
    if (loop->date_ms == now && loop->date[0] != '\0')
        return loop->date;
    loop->date_ms = now;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    if (wall.tv_sec != loop->date_seconds) {
        loop->date_seconds = wall.tv_sec;
        bt_http_date(wall.tv_sec, loop->date);
    }
    return loop->date;
}

/* The exchange if it is in `stage`; NULL with *err set otherwise. */
static bt_http_exchange *exchange_in(baton_conn *conn, bt_http_stage stage, int *err)
{
    bt_http_exchange *exchange = conn->endpoint->protocol == &bt_http_protocol ? conn->proto : NULL;
    if (conn->state != BT_CONN_OPEN)
        *err = -ENOTCONN;
    else if (exchange == NULL || exchange->stage != stage)
        *err = -EPROTO;
    else
        return exchange;
    return NULL;
}

/* RFC 9112, 6.3. `length` is the body's, or BATON_CHUNKED. */
static void choose_framing(bt_http_exchange *exchange, int status, int64_t length)
{
    if (exchange->is_head || status == 205 || bt_http_status_has_no_body(status)) {
        exchange->framing = BT_HTTP_FRAMING_NONE;
    } else if (length >= 0) {
        exchange->framing = BT_HTTP_FRAMING_LENGTH;
    } else if (exchange->request.parser.minor_version >= 1) {
        exchange->framing = BT_HTTP_FRAMING_CHUNKED;
    } else {
        exchange->framing = BT_HTTP_FRAMING_CLOSE;
        exchange->close_after = true;
    }
}

static int write_head(bt_http_exchange *exchange, int status, const char *content_type, int64_t length)
{
    if (status < 200 || status > 599)
        return -EINVAL;
    baton_conn *conn = exchange->conn;
    if (status == 205)
        length = 0; /* RFC 9110, 15.3.6: no content */
    choose_framing(exchange, status, length);
    const bt_buf *fields = &exchange->fields;
    bt_http_head head = {
        .status = status,
        .content_type = content_type,
        .extra = {bt_buf_head(fields), bt_buf_len(fields)},
        .framing = exchange->framing,
        .has_length = length >= 0 && !bt_http_status_has_no_body(status),
        .content_length = (uint64_t) length,
        .close = exchange->close_after,
        .keep_alive_1_0 = exchange->request.parser.minor_version == 0 && !exchange->close_after,
        .date = bt_http_date_now(conn->loop),
    };
    return bt_http_write_head(bt_conn_output(conn), &head);
}

/* Half an answer must not stay in the queue: the connection cannot be used any more. */
static int abort_answer(baton_conn *conn, int err)
{
    bt_conn_destroy(conn, err);
    return err;
}

int baton_reply_bytes(baton_conn *conn, int status, const char *content_type, const void *body, size_t len)
{
    int err = 0;
    bt_http_exchange *exchange = exchange_in(conn, BT_HTTP_STAGE_HANDLING, &err);
    if (exchange == NULL)
        return err;
    err = write_head(exchange, status, content_type, (int64_t) len);
    if (err == -EINVAL)
        return err;
    if (err == 0 && exchange->framing == BT_HTTP_FRAMING_LENGTH)
        err = bt_buf_append(bt_conn_output(conn), body, len);
    if (err < 0)
        return abort_answer(conn, err);
    bt_http_exchange_done(exchange);
    return 0;
}

int baton_reply(baton_conn *conn, int status, const char *content_type, const char *text)
{
    return baton_reply_bytes(conn, status, content_type, text, strlen(text));
}

int baton_reply_error(baton_conn *conn, int status)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%d %s\n", status, bt_http_reason(status));
    return baton_reply_bytes(conn, status, "text/plain", text, (size_t) len);
}

int baton_reply_header(baton_conn *conn, const char *name, const char *value)
{
    int err = 0;
    bt_http_exchange *exchange = exchange_in(conn, BT_HTTP_STAGE_HANDLING, &err);
    if (exchange == NULL)
        return err;
    if (bt_http_field_is_reserved(name))
        return -EINVAL;
    return bt_http_write_field(&exchange->fields, name, value);
}

int baton_reply_close(baton_conn *conn)
{
    int err = 0;
    bt_http_exchange *exchange = exchange_in(conn, BT_HTTP_STAGE_HANDLING, &err);
    if (exchange == NULL)
        return err;
    exchange->close_after = true;
    return 0;
}

/* ---- replies in parts ---- */

int baton_reply_start(baton_conn *conn, int status, const char *content_type, int64_t length)
{
    int err = 0;
    bt_http_exchange *exchange = exchange_in(conn, BT_HTTP_STAGE_HANDLING, &err);
    if (exchange == NULL)
        return err;
    if (length < BATON_CHUNKED)
        return -EINVAL;
    err = write_head(exchange, status, content_type, length);
    if (err == -EINVAL)
        return err;
    if (err < 0)
        return abort_answer(conn, err);
    exchange->length_left = length > 0 ? (uint64_t) length : 0;
    exchange->stage = BT_HTTP_STAGE_STREAMING;
    bt_conn_output_added(conn);
    return 0;
}

static int write_part(bt_http_exchange *exchange, const void *data, size_t len)
{
    bt_buf *out = bt_conn_output(exchange->conn);
    switch (exchange->framing) {
    case BT_HTTP_FRAMING_NONE:
        return 0;
    case BT_HTTP_FRAMING_LENGTH:
        if (len > exchange->length_left)
            return -EMSGSIZE;
        exchange->length_left -= len;
        return bt_buf_append(out, data, len);
    case BT_HTTP_FRAMING_CHUNKED:
        return bt_http_write_chunk(out, data, len);
    case BT_HTTP_FRAMING_CLOSE:
        return bt_buf_append(out, data, len);
    }
    return -EPROTO;
}

int baton_reply_write(baton_conn *conn, const void *data, size_t len)
{
    int err = 0;
    uint64_t limit = conn->endpoint->max_send_buffer;
    if (exchange_in(conn, BT_HTTP_STAGE_STREAMING, &err) != NULL && bt_conn_unsent(conn) >= limit)
        bt_conn_flush(conn);
    /* Only now: the flush may have called on_buffer_drain, and that may have ended the answer. */
    bt_http_exchange *exchange = exchange_in(conn, BT_HTTP_STAGE_STREAMING, &err);
    if (exchange == NULL)
        return err;
    if (bt_buf_len(&conn->out) >= limit) {
        bt_count(&conn->endpoint->counters->dropped, 1);
        return abort_answer(conn, -ENOBUFS);
    }
    err = write_part(exchange, data, len);
    if (err < 0)
        return abort_answer(conn, err);
    bt_conn_output_added(conn);
    /* A full buffer is reported after the write that filled it, not by aborting the next one. */
    if (bt_conn_unsent(conn) >= (limit < OUTPUT_HIGH ? limit : OUTPUT_HIGH) && !bt_conn_flush(conn))
        return -ENOTCONN;
    return bt_buf_len(&conn->out) > 0 ? BATON_QUEUED : BATON_SENT;
}

int baton_reply_trailer(baton_conn *conn, const char *name, const char *value)
{
    int err = 0;
    bt_http_exchange *exchange = exchange_in(conn, BT_HTTP_STAGE_STREAMING, &err);
    if (exchange == NULL)
        return err;
    if (bt_http_field_is_reserved(name))
        return -EINVAL;
    return bt_http_write_field(&exchange->trailers, name, value);
}

int baton_reply_end(baton_conn *conn)
{
    int err = 0;
    bt_http_exchange *exchange = exchange_in(conn, BT_HTTP_STAGE_STREAMING, &err);
    if (exchange == NULL)
        return err;
    if (exchange->framing == BT_HTTP_FRAMING_LENGTH && exchange->length_left > 0)
        return abort_answer(conn, -EMSGSIZE);
    if (exchange->framing == BT_HTTP_FRAMING_CHUNKED) {
        const bt_buf *trailers = &exchange->trailers;
        baton_str lines = {bt_buf_head(trailers), bt_buf_len(trailers)};
        err = bt_http_write_last_chunk(bt_conn_output(conn), lines);
        if (err < 0)
            return abort_answer(conn, err);
    }
    bt_http_exchange_done(exchange);
    return 0;
}

/* ---- answers to what cannot be served ---- */

void bt_http_refuse(baton_conn *conn, int status)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%d %s\n", status, bt_http_reason(status));
    bt_http_head head = {
        .status = status,
        .content_type = "text/plain",
        .framing = BT_HTTP_FRAMING_LENGTH,
        .has_length = true,
        .content_length = (uint64_t) len,
        .close = true,
        .date = bt_http_date_now(conn->loop),
    };
    const bt_http_exchange *exchange = conn->proto;
    bool has_body = exchange == NULL || !exchange->is_head;
    bt_buf *out = bt_conn_output(conn);
    if (bt_http_write_head(out, &head) < 0 || bt_buf_append(out, text, has_body ? (size_t) len : 0) < 0) {
        bt_conn_destroy(conn, -ENOMEM);
        return;
    }
    if (status >= 500)
        bt_conn_close(conn); /* our fault, not the peer's */
    else
        bt_conn_reject(conn, status == 408 ? -ETIMEDOUT : -EPROTO);
}

/* ---- keeping a request ---- */

int baton_request_keep(const baton_request *req)
{
    /* The handle is const for its reader; the exchange behind it is ours. */
    baton_request *request = (baton_request *) (uintptr_t) req;
    if (request->kept.data != NULL && request->window == bt_buf_head(&request->kept))
        return 0;
    bt_buf_clear(&request->kept);
    int err = bt_buf_append(&request->kept, request->window, request->window_len);
    if (err == 0)
        request->window = bt_buf_head(&request->kept);
    return err;
}
