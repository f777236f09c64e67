/* proto/http/serve.c: HTTP on a connection: reads requests one after the other, hands each to the application, keeps
 * the order of answers. Must not know how answers look (reply.c) nor who takes connections over. */
#include <assert.h>
#include <base/alloc.h>
#include <base/log.h>
#include <errno.h>
#include <proto/http/exchange.h>
#include <sys/socket.h>

/* While one request is being answered, this much of the following ones is read; the rest waits in the kernel. */
#define READ_AHEAD (64 * 1024)

/* Memory an exchange keeps in each of its buffers for the next request. */
#define BUFFER_KEPT (64 * 1024)

/* Pipelined answers are pushed out when they reach this size, so that they cannot pile up without limit. */
#define OUTPUT_HIGH (64 * 1024)

static const char continue_line[] = "HTTP/1.1 100 Continue\r\n\r\n";

/* ---- exchanges ---- */

static void free_exchange(bt_http_exchange *exchange)
{
    bt_request_free(&exchange->request);
    bt_buf_free(&exchange->fields);
    bt_buf_free(&exchange->trailers);
    free(exchange);
}

static void free_spare(void *spare)
{
    free_exchange(spare);
}

static bt_http_exchange *new_exchange(const bt_endpoint *endpoint)
{
    bt_http_exchange *exchange = bt_malloc(sizeof *exchange + endpoint->max_headers * sizeof(bt_http_field));
    if (exchange == NULL)
        return NULL;
    *exchange = (bt_http_exchange){0};
    bt_http_parser_init(&exchange->request.parser, exchange->headers, endpoint->max_headers);
    return exchange;
}

/* The exchange of a connection that begins to read a request. NULL: out of memory. */
static bt_http_exchange *begin(baton_conn *conn)
{
    bt_loop *loop = conn->loop;
    bt_http_exchange *exchange = loop->http_spare;
    loop->http_spare = NULL;
    if (exchange == NULL)
        exchange = new_exchange(conn->endpoint);
    if (exchange == NULL)
        return NULL;
    loop->http_spare_free = free_spare;
    exchange->conn = conn;
    conn->proto = exchange;
    return exchange;
}

/* The spare exchange lives as long as the process: one large request must not make it large for ever. */
static void clear(bt_buf *buf)
{
    if (buf->cap > BUFFER_KEPT)
        bt_buf_free(buf);
    else
        bt_buf_clear(buf);
}

/* Ready for the next request; what the application was given is gone. */
static void reset(bt_http_exchange *exchange)
{
    bt_request_reset(&exchange->request);
    bt_http_parser_reset(&exchange->request.parser);
    clear(&exchange->fields);
    clear(&exchange->trailers);
    clear(&exchange->request.kept);
    exchange->stage = BT_HTTP_STAGE_READING;
    exchange->is_head = false;
    exchange->sent_continue = false;
    exchange->close_after = false;
}

static void recycle(bt_loop *loop, bt_http_exchange *exchange)
{
    reset(exchange);
    exchange->conn = NULL;
    if (loop->http_spare == NULL)
        loop->http_spare = exchange;
    else
        free_exchange(exchange);
}

static void give_back(baton_conn *conn)
{
    bt_http_exchange *exchange = conn->proto;
    conn->proto = NULL;
    if (exchange != NULL)
        recycle(conn->loop, exchange);
}

/* ---- reading ---- */

static bt_http_limits limits_of(const bt_endpoint *endpoint)
{
    return (bt_http_limits){endpoint->max_head, endpoint->max_target, endpoint->max_headers, endpoint->max_package};
}

/* RFC 9110, 10.1.1: the client waits for a go-ahead before it sends the body. */
static void send_continue(bt_http_exchange *exchange, size_t window_len)
{
    const bt_http_parser *parser = &exchange->request.parser;
    if (!parser->head_done || !parser->expects_continue || exchange->sent_continue)
        return;
    exchange->sent_continue = true;
    if (window_len > parser->head_len)
        return; /* the body is already coming */
    if (bt_buf_append(bt_conn_output(exchange->conn), continue_line, sizeof continue_line - 1) < 0)
        bt_conn_destroy(exchange->conn, -ENOMEM);
    else
        bt_conn_output_added(exchange->conn);
}

/* The head has one deadline from its first byte on (slow-loris); a body only has to make progress. */
static void wait_for_more(bt_http_exchange *exchange, bool has_begun)
{
    baton_conn *conn = exchange->conn;
    if (exchange->request.parser.head_done)
        bt_conn_expire_in(conn, conn->endpoint->idle_timeout_ms);
    else if (!has_begun)
        bt_conn_expire_in(conn, conn->endpoint->header_timeout_ms);
}

static bool is_head(const bt_http_parser *parser, const char *window)
{
    return parser->method_len == 4 && memcmp(window + parser->request_start, "HEAD", 4) == 0;
}

/* A whole request: window[0..position) of the parser. */
static void handle_request(bt_http_exchange *exchange, char *window)
{
    baton_conn *conn = exchange->conn;
    const bt_endpoint *endpoint = conn->endpoint;
    baton_request *request = &exchange->request;
    request->window = window;
    request->window_len = request->parser.position;
    exchange->is_head = is_head(&request->parser, window);
    exchange->stage = BT_HTTP_STAGE_HANDLING;
    conn->requests++;
    bt_count(&endpoint->counters->requests, 1);
    exchange->close_after = !request->parser.keep_alive || conn->leaves || bt_conn_is_stranded(conn) ||
                            conn->loop->departure == BT_DEPARTURE_CLOSE ||
                            (endpoint->keepalive_requests != 0 && conn->requests >= endpoint->keepalive_requests);
    exchange->in_callback = true;
    endpoint->callbacks->on_request(conn, request);
    exchange->in_callback = false;
    if (exchange->conn == NULL) {
        recycle(conn->loop, exchange); /* the connection ended in its own callback */
    } else if (exchange->stage == BT_HTTP_STAGE_DONE) {
        give_back(conn);
    } else if (conn->state == BT_CONN_OPEN) {
        bt_conn_expire_in(conn, 0); /* the application may take its time */
    }
}

static bool is_passable(const baton_conn *conn)
{
    const bt_http_exchange *exchange = conn->proto;
    return exchange == NULL || exchange->stage == BT_HTTP_STAGE_READING;
}

static bool is_half_answered(const baton_conn *conn)
{
    const bt_http_exchange *exchange = conn->proto;
    return exchange != NULL && exchange->stage == BT_HTTP_STAGE_STREAMING;
}

/* The peer does not read what it asked for: its further requests wait. */
static bool output_is_blocked(baton_conn *conn)
{
    if (bt_conn_unsent(conn) < OUTPUT_HIGH)
        return false;
    if (!bt_conn_flush(conn))
        return true;
    if (bt_conn_unsent(conn) < OUTPUT_HIGH)
        return false;
    bt_conn_pause(conn); /* drained output resumes it */
    return true;
}

/* Chunk framing that has been decoded leaves a gap: in a buffer of our own it is closed, so that a body of tiny chunks
 * holds no more memory than max_package. */
static void close_gap(baton_conn *conn, char *window, size_t len)
{
    bt_http_exchange *exchange = conn->proto;
    if (window == bt_buf_head(&conn->in))
        conn->in.end = conn->in.start + bt_http_parser_compact(&exchange->request.parser, window, len);
}

/* One step on window[0..len). Returns the bytes consumed; 0 when nothing more can be done now. */
static size_t step(baton_conn *conn, char *window, size_t len, const bt_http_limits *limits)
{
    bt_http_exchange *exchange = conn->proto;
    bool has_begun = exchange != NULL;
    if (exchange == NULL)
        exchange = begin(conn);
    if (exchange == NULL) {
        bt_conn_destroy(conn, -ENOMEM);
        return 0;
    }
    if (exchange->stage != BT_HTTP_STAGE_READING) {
        if (len >= READ_AHEAD)
            bt_conn_pause(conn);
        return 0;
    }
    bt_http_parser *parser = &exchange->request.parser;
    switch (bt_http_parse(parser, window, len, limits)) {
    case BT_HTTP_NEED_MORE:
        send_continue(exchange, len);
        if (conn->state != BT_CONN_OPEN)
            return 0;
        close_gap(conn, window, len);
        wait_for_more(exchange, has_begun);
        return 0;
    case BT_HTTP_ERROR:
        exchange->is_head = is_head(parser, window);
        bt_log(BT_LOG_DEBUG, "bad-request status=%d reason=\"%s\"", parser->error_status, parser->error);
        bt_http_refuse(conn, parser->error_status);
        return 0;
    case BT_HTTP_COMPLETE:
        break;
    }
    size_t size = parser->position;
    handle_request(exchange, window);
    return size;
}

/* RFC 9112, 2.2: old clients send an extra CRLF after a body; it is no request yet. More of them are the parser's to
 * bound. */
static size_t skip_empty_line(const char *data, size_t len)
{
    return len >= 2 && data[0] == '\r' && data[1] == '\n' ? 2 : 0;
}

static size_t on_data(baton_conn *conn, char *data, size_t len)
{
    size_t consumed = 0;
    bt_http_limits limits = limits_of(conn->endpoint);
    while (consumed < len && bt_conn_is_serving(conn)) {
        if (conn->proto == NULL)
            consumed += skip_empty_line(data + consumed, len - consumed);
        if (consumed == len)
            break;
        if (conn->proto == NULL && !bt_conn_may_begin(conn))
            break;
        size_t n = step(conn, data + consumed, len - consumed, &limits);
        consumed += n;
        if (n == 0 || output_is_blocked(conn))
            break;
    }
    if (consumed > 0 && conn->proto == NULL && conn->state == BT_CONN_OPEN)
        bt_conn_expire_in(conn, conn->endpoint->idle_timeout_ms); /* once for all the requests of this event */
    bool waits_for_room = conn->reading_paused && consumed < len; /* drained output brings us back */
    if (conn->peer_ended && is_passable(conn) && !waits_for_room)
        bt_conn_close(conn); /* the last request of a client that has shut its end is answered */
    return consumed;
}

/* ---- after an answer ---- */

void bt_http_exchange_done(bt_http_exchange *exchange)
{
    baton_conn *conn = exchange->conn;
    exchange->stage = BT_HTTP_STAGE_DONE;
    bt_conn_output_added(conn);
    if (exchange->close_after || (conn->peer_ended && bt_buf_len(&conn->in) == 0)) {
        bt_conn_close(conn);
        return;
    }
    if (!exchange->in_callback) {
        give_back(conn);
        bt_conn_expire_in(conn, conn->endpoint->idle_timeout_ms);
        bt_conn_resume(conn);
    }
}

/* ---- the table ---- */

static bool on_end(baton_conn *conn)
{
    const bt_http_exchange *exchange = conn->proto;
    return exchange != NULL && exchange->stage != BT_HTTP_STAGE_READING;
}

static void on_timeout(baton_conn *conn)
{
    const bt_http_exchange *exchange = conn->proto;
    if (exchange == NULL && bt_conn_unsent(conn) > 0)
        bt_conn_expire_in(conn, conn->endpoint->idle_timeout_ms); /* it is still reading its answer */
    else if (exchange == NULL)
        bt_conn_close(conn); /* idle: RFC 9112, 9.5 */
    else if (exchange->stage == BT_HTTP_STAGE_READING)
        bt_http_refuse(conn, 408);
}

static void on_gone(baton_conn *conn)
{
    bt_http_exchange *exchange = conn->proto;
    bool is_cut = exchange != NULL && exchange->stage == BT_HTTP_STAGE_STREAMING;
    if (is_cut && exchange->framing == BT_HTTP_FRAMING_CLOSE) {
        /* A clean end would pass for the end of the body: the peer gets a RST. */
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    if (exchange == NULL || !exchange->in_callback) {
        give_back(conn);
        return;
    }
    conn->proto = NULL; /* the callback may still look at its request: handle_request() takes it back */
    exchange->conn = NULL;
}

static void on_departure(baton_conn *conn)
{
    bt_http_exchange *exchange = conn->proto;
    conn->leaves = true;
    if (exchange == NULL && bt_buf_len(&conn->in) == 0)
        bt_conn_close(conn);
    else if (exchange != NULL && exchange->stage != BT_HTTP_STAGE_READING)
        exchange->close_after = true; /* says so in its head, or by the end when the head is out already */
}

static void on_expired(baton_conn *conn)
{
    const bt_http_exchange *exchange = conn->proto;
    if (exchange != NULL && exchange->stage == BT_HTTP_STAGE_HANDLING)
        bt_http_refuse(conn, 503);
    else if (exchange != NULL && exchange->stage == BT_HTTP_STAGE_STREAMING)
        bt_conn_destroy(conn, -ETIMEDOUT); /* a clean end would pass for a whole body */
    else
        bt_conn_close(conn);
}

static int save(baton_conn *conn, bt_buf *state, bt_buf *unread)
{
    const bt_http_exchange *exchange = conn->proto;
    if (exchange == NULL)
        return bt_buf_append(unread, bt_buf_head(&conn->in), bt_buf_len(&conn->in));
    uint8_t sent_continue = exchange->sent_continue;
    int err = bt_buf_append(state, &sent_continue, 1);
    if (err < 0)
        return err;
    return bt_http_parser_save(&exchange->request.parser, bt_buf_head(&conn->in), bt_buf_len(&conn->in), state, unread);
}

static int restore(baton_conn *conn, const void *state, size_t len)
{
    if (len == 0)
        return 0;
    bt_http_exchange *exchange = begin(conn);
    if (exchange == NULL)
        return -ENOMEM;
    const uint8_t *bytes = state;
    bt_http_limits limits = limits_of(conn->endpoint);
    exchange->sent_continue = bytes[0] != 0;
    return bt_http_parser_restore(&exchange->request.parser, bt_buf_head(&conn->in), bt_buf_len(&conn->in), &limits,
                                  bytes + 1, len - 1);
}

const bt_protocol bt_http_protocol = {
    .name = "http",
    .wire_id = 1,
    .wire_version = 1,
    .on_data = on_data,
    .on_end = on_end,
    .on_timeout = on_timeout,
    .on_gone = on_gone,
    .is_passable = is_passable,
    .is_half_answered = is_half_answered,
    .on_departure = on_departure,
    .on_expired = on_expired,
    .save = save,
    .restore = restore,
};
