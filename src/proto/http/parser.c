/* proto/http/parser.c: cuts an HTTP/1 head into request line and field lines, in one pass over the bytes.
 * Knows the syntax of lines; what fields mean is in fields.c, bodies are in body.c. */
#include <proto/http/parser_internal.h>

#include <assert.h>

/* Errors are found strictly from left to right, limits included: the first offending byte decides the status.
 * So a request fails in the same way however its bytes are cut. */

void bt_http_parser_init(bt_http_parser *parser, bt_http_field *fields, uint32_t capacity)
{
    *parser = (bt_http_parser){.fields = fields, .field_capacity = capacity};
}

_Static_assert(sizeof(bt_http_parser) == 128, "a new field has to be reset, too");

/* Field by field: the assignment of a fresh struct becomes `rep stos`, whose start-up alone costs as much as parsing a
 * short field. Runs once a request. */
void bt_http_parser_reset(bt_http_parser *parser)
{
    parser->phase = BT_HTTP_REQUEST_LINE;
    parser->method_len = parser->request_start = parser->target = parser->target_len = parser->extension_bytes = 0;
    parser->minor_version = parser->seen = parser->waiting_class = 0;
    parser->keep_alive = parser->has_host = parser->chunked = parser->has_length = false;
    parser->expects_continue = parser->head_done = false;
    parser->error_status = 0;
    parser->error = NULL;
    parser->position = parser->scanned = parser->head_len = parser->body_start = parser->body_len = 0;
    parser->content_length = parser->chunk_left = 0;
    parser->trailer_start = 0;
    parser->field_count = 0;
}

__attribute__((cold)) bt_http_step bt_http_fail(bt_http_parser *parser, uint16_t status, const char *text)
{
    parser->phase = BT_HTTP_FAILED;
    parser->error_status = status;
    parser->error = text;
    return BT_HTTP_STEP_FAIL;
}

bt_http_step bt_http_wait(bt_http_parser *parser, const char *window, const char *end, unsigned class)
{
    parser->waiting_class = (uint8_t) class;
    parser->scanned = class ? (size_t) (end - window) : 0;
    return BT_HTTP_STEP_WAIT;
}

bool bt_http_line_ready(bt_http_parser *parser, const char *window, const char *end)
{
    if (parser->scanned <= parser->position)
        return true;
    const char *p = window + parser->scanned;
    if (parser->waiting_class == BT_CHAR_VALUE)
        p = bt_scan_value(window, p, end);
    else if (parser->waiting_class == BT_CHAR_TARGET)
        p = bt_scan_target(window, p, end);
    else
        p = bt_scan_bytes(p, end, parser->waiting_class);
    parser->scanned = (size_t) (p - window);
    return p < end;
}

/* ---- request line ---- */

static bt_http_step bad_request_line(bt_http_parser *parser, char stop)
{
    if (stop == '\n')
        return bt_http_fail(parser, 400, "line feed without carriage return in the request line");
    return bt_http_fail(parser, 400, "malformed request line");
}

/* "HTTP/1.1" CRLF at p. Returns the byte behind it, `end` when cut off, NULL when malformed. */
static const char *parse_version(const char *p, const char *end, char *major, char *minor)
{
    static const char pattern[] = "HTTP/0.0\r\n";
    enum { MAJOR = 5, MINOR = 7, LEN = sizeof(pattern) - 1 };

    if (end - p >= LEN && memcmp(p, "HTTP/1.1\r\n", LEN) == 0) {
        *major = *minor = '1';
        return p + LEN;
    }
    for (int i = 0; i < LEN; i++) {
        if (p + i == end)
            return end;
        if (pattern[i] == '0' ? !bt_char_is_digit(p[i]) : p[i] != pattern[i])
            return NULL;
    }
    *major = p[MAJOR];
    *minor = p[MINOR];
    return p + LEN;
}

/* Robustness that RFC 9112, 2.2 asks for: clients that send CRLF after a body. */
static bt_http_step skip_empty_lines(bt_http_parser *parser, const char *window, const char *end)
{
    const char *p = window + parser->position;
    while (p < end && *p == '\r') {
        if (end - p < 2)
            return BT_HTTP_STEP_WAIT;
        if (p[1] != '\n')
            return bt_http_fail(parser, 400, "bare carriage return before the request line");
        p += 2;
        parser->position += 2;
    }
    parser->request_start = (uint32_t) parser->position;
    return BT_HTTP_STEP_NEXT;
}

static bt_http_step wait_in_head(bt_http_parser *parser, const char *window, const char *end, bool full, unsigned class)
{
    if (full)
        return bt_http_fail(parser, 431, "head longer than max_head");
    return bt_http_wait(parser, window, end, class);
}

static bt_http_step parse_request_line(bt_http_parser *parser, const char *window, size_t len,
                                       const bt_http_limits *limits)
{
    size_t max_head = bt_http_max_head(limits);
    bool full = len >= max_head;
    const char *end = window + (full ? max_head : len);

    bool outgrown = full || len - parser->position > limits->max_target;
    if (!bt_http_line_ready(parser, window, end) && !outgrown)
        return BT_HTTP_STEP_WAIT;
    bt_http_step step = skip_empty_lines(parser, window, end);
    if (step == BT_HTTP_STEP_FAIL)
        return step;

    const char *method = window + parser->position;
    const char *p = method;
    bool is_get = end - p >= 4 && memcmp(p, "GET ", 4) == 0;
    p = is_get ? p + 3 : bt_scan_bytes(p, end, BT_CHAR_TOKEN);
    if (p - method > BT_HTTP_MAX_METHOD)
        return bt_http_fail(parser, 501, "method too long");
    if (p == end || step == BT_HTTP_STEP_WAIT)
        return wait_in_head(parser, window, end, full, 0);
    if (p == method || *p != ' ')
        return bad_request_line(parser, *p);

    const char *target = p + 1;
    const char *target_end = bt_scan_target(window, target, end);
    if ((size_t) (target_end - target) > limits->max_target || (target_end == end && full))
        return bt_http_fail(parser, 414, "target longer than max_target");
    if (target_end == end)
        return bt_http_wait(parser, window, end, BT_CHAR_TARGET);
    if (target_end == target || *target_end != ' ')
        return bad_request_line(parser, *target_end);

    char major = 0, minor = 0;
    const char *line_end = parse_version(target_end + 1, end, &major, &minor);
    if (!line_end)
        return bt_http_fail(parser, 400, "malformed protocol version");
    if (major == 0)
        return wait_in_head(parser, window, end, full, 0);
    if (major != '1')
        return bt_http_fail(parser, 505, "only HTTP/1 is spoken here");

    parser->method_len = (uint32_t) (p - method);
    parser->target = (uint32_t) (target - window);
    parser->target_len = (uint32_t) (target_end - target);
    parser->minor_version = (uint8_t) (minor - '0');
    parser->position = (size_t) (line_end - window);
    parser->phase = BT_HTTP_FIELDS;
    return is_get && *target == '/' ? BT_HTTP_STEP_NEXT : bt_http_check_target(parser, window);
}

/* ---- field lines ---- */

/* `stop` is the byte that ended a line where neither colon nor CRLF was allowed to. */
static bt_http_step bad_field_line(bt_http_parser *parser, char stop, bool in_value)
{
    if (stop == '\n')
        return bt_http_fail(parser, 400, "line feed without carriage return");
    if (stop == '\r')
        return bt_http_fail(parser, 400, in_value ? "bare carriage return" : "field line without a colon");
    if (in_value)
        return bt_http_fail(parser, 400, "control byte in a field value");
    if (bt_char_is_blank(stop))
        return bt_http_fail(parser, 400, "blank in or before a field name");
    if (stop == ':')
        return bt_http_fail(parser, 400, "empty field name");
    return bt_http_fail(parser, 400, "forbidden byte in a field name");
}

static bt_http_step add_field(bt_http_parser *parser, const char *window, baton_str name, baton_str value,
                              const bt_http_limits *limits)
{
    bool is_trailer = parser->phase == BT_HTTP_TRAILER;
    if (parser->field_count >= limits->max_headers || parser->field_count >= parser->field_capacity)
        return bt_http_fail(parser, 431, "more fields than max_headers");
    if (name.len > UINT16_MAX)
        return bt_http_fail(parser, 431, "field name too long");

    const char *origin = window + (is_trailer ? parser->trailer_start : 0);
    bt_http_field *field = &parser->fields[parser->field_count++];
    field->name = (uint32_t) (name.data - origin);
    field->value = (uint32_t) (value.data - origin);
    field->value_len = (uint32_t) value.len;
    field->name_len = (uint16_t) name.len;
    field->is_trailer = is_trailer;
    if (__builtin_expect(is_trailer, 0))
        return bt_http_note_trailer(parser, name);
    switch (name.len) {
    case sizeof("Host") - 1:
    case sizeof("Expect") - 1:
    case sizeof("Connection") - 1:
    case sizeof("Content-Length") - 1:
    case sizeof("Transfer-Encoding") - 1:
        return bt_http_note_field(parser, name, value);
    default:
        return BT_HTTP_STEP_NEXT;
    }
}

bt_http_step bt_http_parse_fields(bt_http_parser *parser, const char *window, size_t len, const bt_http_limits *limits)
{
    size_t section = parser->phase == BT_HTTP_TRAILER ? parser->trailer_start : 0;
    size_t max_head = bt_http_max_head(limits);
    bool full = len - section >= max_head;
    const char *end = window + (full ? section + max_head : len);

    if (!bt_http_line_ready(parser, window, end) && !full)
        return BT_HTTP_STEP_WAIT;
    for (;;) {
        const char *name = window + parser->position;
        const char *p = bt_scan_bytes(name, end, BT_CHAR_TOKEN);
        if (p == end)
            return wait_in_head(parser, window, end, full, BT_CHAR_TOKEN);
        if (*p != ':' || p == name) {
            if (*p != '\r' || p != name)
                return bad_field_line(parser, *p, false);
            if (end - p < 2)
                return wait_in_head(parser, window, end, full, 0);
            if (p[1] != '\n')
                return bad_field_line(parser, '\r', true);
            parser->position += 2;
            return BT_HTTP_STEP_NEXT;
        }

        const char *value = p + 1;
        while (value < end && bt_char_is_blank(*value))
            value++;
        const char *stop = bt_scan_value(window, value, end);
        if (stop == end || (*stop == '\r' && end - stop < 2))
            return wait_in_head(parser, window, end, full, stop == end ? BT_CHAR_VALUE : 0);
        if (stop[0] != '\r' || stop[1] != '\n')
            return bad_field_line(parser, *stop, true);

        const char *value_end = stop;
        while (value_end > value && bt_char_is_blank(value_end[-1]))
            value_end--;
        parser->position = (size_t) (stop + 2 - window);
        bt_http_step step = add_field(parser, window, (baton_str){name, (size_t) (p - name)},
                                      (baton_str){value, (size_t) (value_end - value)}, limits);
        if (step != BT_HTTP_STEP_NEXT)
            return step;
    }
}

bt_http_step bt_http_parse_head(bt_http_parser *parser, const char *window, size_t len, const bt_http_limits *limits)
{
    if (parser->phase == BT_HTTP_REQUEST_LINE) {
        bt_http_step step = parse_request_line(parser, window, len, limits);
        if (step != BT_HTTP_STEP_NEXT)
            return step;
    }
    assert(parser->phase == BT_HTTP_FIELDS);
    bt_http_step step = bt_http_parse_fields(parser, window, len, limits);
    return step == BT_HTTP_STEP_NEXT ? bt_http_finish_head(parser, limits) : step;
}

bt_http_result bt_http_parse(bt_http_parser *parser, char *window, size_t len, const bt_http_limits *limits)
{
    assert(parser->position <= len);
    for (;;) {
        bt_http_step step = BT_HTTP_STEP_FAIL;
        switch (parser->phase) {
        case BT_HTTP_REQUEST_LINE:
        case BT_HTTP_FIELDS:
            step = bt_http_parse_head(parser, window, len, limits);
            break;
        case BT_HTTP_BODY_LENGTH:
        case BT_HTTP_CHUNK_SIZE:
        case BT_HTTP_CHUNK_DATA:
        case BT_HTTP_CHUNK_END:
        case BT_HTTP_TRAILER:
            step = bt_http_parse_body(parser, window, len, limits);
            break;
        case BT_HTTP_DONE:
            return BT_HTTP_COMPLETE;
        case BT_HTTP_FAILED:
            return BT_HTTP_ERROR;
        }
        if (step == BT_HTTP_STEP_WAIT)
            return BT_HTTP_NEED_MORE;
    }
}
