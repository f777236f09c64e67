/* proto/http/parser_pass.c: moves a half-read request to another process, and closes the gap of chunk decoding.
 * Knows the parser's state; not who sends it or how. */
#include <proto/http/parser_internal.h>

#include <errno.h>

/* State of a chunked body, little endian. Everything else is learned from the bytes again:
 *     version u8 | phase u8 | body_len u64 | chunk_left u64 | extension_bytes u32 */
enum {
    STATE_VERSION = 1,
    STATE_LEN = 1 + 1 + 8 + 8 + 4,
};

static void put_number(uint8_t *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t) (value >> (8 * i));
}

static uint64_t get_number(const uint8_t *in, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t) in[i] << (8 * i);
    return value;
}

static bool in_trailer(const bt_http_parser *parser)
{
    return parser->phase == BT_HTTP_TRAILER || parser->phase == BT_HTTP_DONE;
}

/* Where the raw bytes begin again behind the decoded body. */
static size_t raw_start(const bt_http_parser *parser)
{
    return in_trailer(parser) ? parser->trailer_start : parser->position;
}

size_t bt_http_parser_compact(bt_http_parser *parser, char *window, size_t len)
{
    if (!parser->head_done || !parser->chunked || parser->phase == BT_HTTP_FAILED)
        return len;
    size_t body_end = parser->body_start + parser->body_len;
    size_t raw = raw_start(parser);
    size_t gap = raw - body_end;
    if (gap == 0)
        return len;
    memmove(window + body_end, window + raw, len - raw);
    parser->position -= gap;
    if (in_trailer(parser))
        parser->trailer_start -= gap;
    /* behind the gap, or stale: then it only has to stay before position */
    parser->scanned = parser->scanned > gap ? parser->scanned - gap : 0;
    return len - gap;
}

int bt_http_parser_save(const bt_http_parser *parser, const char *window, size_t len, bt_buf *state, bt_buf *unread)
{
    if (parser->phase == BT_HTTP_FAILED)
        return -EINVAL;
    if (bt_buf_reserve(state, STATE_LEN) < 0 || bt_buf_reserve(unread, len) < 0)
        return -ENOMEM;
    if (!parser->head_done || !parser->chunked)
        return bt_buf_append(unread, window, len);

    uint8_t bytes[STATE_LEN];
    bytes[0] = STATE_VERSION;
    bytes[1] = (uint8_t) (in_trailer(parser) ? BT_HTTP_TRAILER : parser->phase);
    put_number(bytes + 2, parser->body_len, 8);
    put_number(bytes + 10, parser->chunk_left, 8);
    put_number(bytes + 18, parser->extension_bytes, 4);
    int rc = bt_buf_append(state, bytes, sizeof(bytes));
    if (rc == 0)
        rc = bt_buf_append(unread, window, parser->body_start + parser->body_len);
    if (rc == 0)
        rc = bt_buf_append(unread, window + raw_start(parser), len - raw_start(parser));
    return rc;
}

/* Takes the numbers of `state` into a parser that has just read the head; false if they contradict it. */
static bool take_progress(bt_http_parser *parser, size_t len, const bt_http_limits *limits, const uint8_t *state)
{
    uint8_t phase = state[1];
    uint64_t body_len = get_number(state + 2, 8);
    uint64_t chunk_left = get_number(state + 10, 8);
    uint64_t extension_bytes = get_number(state + 18, 4);

    if (phase != BT_HTTP_CHUNK_SIZE && phase != BT_HTTP_CHUNK_DATA && phase != BT_HTTP_CHUNK_END &&
        phase != BT_HTTP_TRAILER)
        return false;
    if (body_len > limits->max_body || body_len > len - parser->body_start)
        return false;
    if ((chunk_left > 0) != (phase == BT_HTTP_CHUNK_DATA) || chunk_left > limits->max_body - body_len)
        return false;
    if (extension_bytes > bt_http_max_head(limits))
        return false;

    parser->phase = (bt_http_phase) phase;
    parser->body_len = (size_t) body_len;
    parser->chunk_left = chunk_left;
    parser->extension_bytes = (uint32_t) extension_bytes;
    parser->position = parser->body_start + parser->body_len;
    parser->trailer_start = phase == BT_HTTP_TRAILER ? parser->position : 0;
    return true;
}

int bt_http_parser_restore(bt_http_parser *parser, char *window, size_t len, const bt_http_limits *limits,
                           const void *state, size_t state_len)
{
    const uint8_t *bytes = state;
    if (state_len == 0)
        return 0;
    if (state_len == STATE_LEN && bytes[0] == STATE_VERSION &&
        bt_http_parse_head(parser, window, len, limits) == BT_HTTP_STEP_NEXT && parser->chunked &&
        take_progress(parser, len, limits, bytes))
        return 0;
    bt_http_parser_reset(parser);
    return -EPROTO;
}
