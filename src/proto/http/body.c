/* proto/http/body.c: reads bodies by Content-Length and decodes chunked ones in place (RFC 9112, 6 and 7).
 * Knows nothing of heads; the trailer section is cut by the same code as a head's fields. */
#include <proto/http/parser_internal.h>

/* More than enough for 64 bits; leading zeros count, so that a size cannot be stretched for ever. */
#define MAX_SIZE_DIGITS 16

static bt_http_step finish_body(bt_http_parser *parser)
{
    parser->phase = BT_HTTP_DONE;
    parser->expects_continue = false;
    return BT_HTTP_STEP_NEXT;
}

static bt_http_step read_length(bt_http_parser *parser, size_t len)
{
    size_t available = len - parser->body_start;
    if (available < parser->content_length) {
        parser->body_len = available;
        parser->position = len;
        return BT_HTTP_STEP_WAIT;
    }
    parser->body_len = (size_t) parser->content_length;
    parser->position = parser->body_start + parser->body_len;
    return finish_body(parser);
}

/* ---- chunked ---- */

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && bt_char_is_blank(*p))
        p++;
    return p;
}

/* Behind the opening quote: the byte behind the closing one, `end` when cut off, NULL when malformed. */
static const char *skip_quoted(const char *p, const char *end, unsigned *run)
{
    for (;;) {
        *run = BT_CHAR_QDTEXT;
        p = bt_scan_bytes(p, end, BT_CHAR_QDTEXT);
        if (p == end)
            return end;
        *run = 0;
        if (*p == '"')
            return p + 1;
        if (*p != '\\')
            return NULL;
        if (++p == end)
            return end;
        if (!bt_char_is(*p, BT_CHAR_VALUE))
            return NULL;
        p++;
    }
}

/* A token of at least one byte; `end` when cut off, NULL when malformed. */
static const char *skip_token(const char *p, const char *end, unsigned *run)
{
    const char *stop = bt_scan_bytes(p, end, BT_CHAR_TOKEN);
    *run = stop == end && stop > p ? BT_CHAR_TOKEN : 0;
    return stop == p && p < end ? NULL : stop;
}

/* *( BWS ";" BWS name [ BWS "=" BWS value ] ) up to the CR (RFC 9112, 7.1.1). Returns the CR, `end` when cut
 * off (inside a run of class *run), NULL when malformed. */
static const char *skip_extensions(const char *p, const char *end, unsigned *run)
{
    *run = 0;
    while (p < end && *p != '\r') {
        p = skip_blanks(p, end);
        if (p == end)
            return end;
        if (*p != ';')
            return NULL;
        p = skip_token(skip_blanks(p + 1, end), end, run);
        if (!p || p == end)
            return p;
        const char *equals = skip_blanks(p, end);
        if (equals == end)
            return end;
        if (*equals != '=')
            continue;
        p = skip_blanks(equals + 1, end);
        p = p < end && *p == '"' ? skip_quoted(p + 1, end, run) : skip_token(p, end, run);
        if (!p)
            return NULL;
    }
    return p;
}

static bt_http_step begin_chunk(bt_http_parser *parser, uint64_t size, const bt_http_limits *limits)
{
    if (size == 0) {
        parser->phase = BT_HTTP_TRAILER;
        parser->trailer_start = parser->position;
        return BT_HTTP_STEP_NEXT;
    }
    if (size > limits->max_body - parser->body_len)
        return bt_http_fail(parser, 413, "chunked body larger than max_body");
    parser->phase = BT_HTTP_CHUNK_DATA;
    parser->chunk_left = size;
    return BT_HTTP_STEP_NEXT;
}

static bt_http_step read_chunk_size(bt_http_parser *parser, const char *window, size_t len,
                                    const bt_http_limits *limits)
{
    /* chunk extensions of the whole body share one budget, or 1-byte chunks would carry any amount of them */
    size_t budget = bt_http_max_head(limits) - parser->extension_bytes;
    size_t longest = MAX_SIZE_DIGITS + budget + 2;
    const char *line = window + parser->position;
    const char *end = len - parser->position > longest ? line + longest : window + len;
    bool outgrown = (size_t) (end - line) > budget;
    if (!bt_http_line_ready(parser, window, end) && !outgrown)
        return BT_HTTP_STEP_WAIT;

    uint64_t size = 0;
    unsigned run;
    const char *p = line;
    for (; p < end && bt_char_is(*p, BT_CHAR_HEX); p++) {
        if (p - line == MAX_SIZE_DIGITS)
            return bt_http_fail(parser, 400, "chunk size has too many digits");
        size = size << 4 | bt_char_hex(*p);
    }
    if (p == end)
        return bt_http_wait(parser, window, end, 0);
    if (p == line)
        return bt_http_fail(parser, 400, "chunk size is not a hexadecimal number");
    const char *stop = skip_extensions(p, (size_t) (end - p) > budget + 1 ? p + budget + 1 : end, &run);
    if (!stop)
        return bt_http_fail(parser, 400, "malformed chunk extension");
    if ((size_t) (stop - p) > budget)
        return bt_http_fail(parser, 431, "chunk extensions longer than max_head");
    if (end - stop < 2)
        return bt_http_wait(parser, window, end, stop == end ? run : 0);
    if (stop[1] != '\n')
        return bt_http_fail(parser, 400, "bare carriage return behind a chunk size");

    parser->extension_bytes += (uint32_t) (stop - p);
    parser->position = (size_t) (stop + 2 - window);
    return begin_chunk(parser, size, limits);
}

static bt_http_step read_chunk_data(bt_http_parser *parser, char *window, size_t len)
{
    size_t take = len - parser->position;
    if (take > parser->chunk_left)
        take = (size_t) parser->chunk_left;
    size_t to = parser->body_start + parser->body_len;
    memmove(window + to, window + parser->position, take);
    parser->body_len += take;
    parser->position += take;
    parser->chunk_left -= take;
    if (parser->chunk_left > 0)
        return BT_HTTP_STEP_WAIT;
    parser->phase = BT_HTTP_CHUNK_END;
    return BT_HTTP_STEP_NEXT;
}

static bt_http_step read_chunk_end(bt_http_parser *parser, const char *window, size_t len)
{
    const char *p = window + parser->position;
    size_t available = len - parser->position;
    if ((available > 0 && p[0] != '\r') || (available > 1 && p[1] != '\n'))
        return bt_http_fail(parser, 400, "chunk data not followed by CRLF");
    if (available < 2)
        return BT_HTTP_STEP_WAIT;
    parser->position += 2;
    parser->phase = BT_HTTP_CHUNK_SIZE;
    return BT_HTTP_STEP_NEXT;
}

bt_http_step bt_http_parse_body(bt_http_parser *parser, char *window, size_t len, const bt_http_limits *limits)
{
    switch (parser->phase) {
    case BT_HTTP_BODY_LENGTH:
        return read_length(parser, len);
    case BT_HTTP_CHUNK_SIZE:
        return read_chunk_size(parser, window, len, limits);
    case BT_HTTP_CHUNK_DATA:
        return read_chunk_data(parser, window, len);
    case BT_HTTP_CHUNK_END:
        return read_chunk_end(parser, window, len);
    case BT_HTTP_TRAILER: {
        bt_http_step step = bt_http_parse_fields(parser, window, len, limits);
        return step == BT_HTTP_STEP_NEXT ? finish_body(parser) : step;
    }
    case BT_HTTP_REQUEST_LINE:
    case BT_HTTP_FIELDS:
    case BT_HTTP_DONE:
    case BT_HTTP_FAILED:
        break;
    }
    return BT_HTTP_STEP_FAIL;
}
