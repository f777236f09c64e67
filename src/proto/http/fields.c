/* proto/http/fields.c: the meaning of the request target's form and of the few fields that decide framing and
 * persistence. Knows nothing of how lines are cut; every doubt about framing is an error (RFC 9112, 11.2). */
#include <proto/http/parser_internal.h>

#include <arpa/inet.h>
#include <netinet/in.h>

/* Names and values that reach this file have been checked for control bytes. */
#define VALUE_IS(value, word)                                                                                          \
    ((value).len == sizeof(word) - 1 && bt_str_is_word((value).data, (word), sizeof(word) - 1))

/* The next element of a comma-separated list (RFC 9110, 5.6.1), blanks trimmed; false at its end. */
static bool next_element(baton_str *rest, baton_str *element)
{
    if (!rest->data)
        return false;
    const char *p = rest->data, *end = p + rest->len;
    const char *comma = memchr(p, ',', rest->len);
    *rest = comma ? (baton_str){comma + 1, (size_t) (end - comma - 1)} : (baton_str){NULL, 0};
    if (comma)
        end = comma;
    while (p < end && bt_char_is_blank(*p))
        p++;
    while (end > p && bt_char_is_blank(end[-1]))
        end--;
    *element = (baton_str){p, (size_t) (end - p)};
    return true;
}

/* ---- authority and target ---- */

static bool port_is_valid(const char *p, const char *end)
{
    unsigned port = 0;
    if (end - p > 5)
        return false;
    for (; p < end; p++) {
        if (!bt_char_is_digit(*p))
            return false;
        port = port * 10 + (unsigned) (*p - '0');
    }
    return port <= 65535;
}

static const char *skip_ip_literal(const char *p, const char *end)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr ip;
    const char *close = memchr(p, ']', (size_t) (end - p));
    if (!close || (size_t) (close - p - 1) >= sizeof(text))
        return NULL;
    memcpy(text, p + 1, (size_t) (close - p - 1));
    text[close - p - 1] = '\0';
    return inet_pton(AF_INET6, text, &ip) == 1 ? close + 1 : NULL;
}

/* uri-host [ ":" port ] (RFC 9110, 7.2). An empty host is the caller's affair. */
static bool authority_is_valid(const char *p, const char *end)
{
    if (p < end && *p == '[') {
        p = skip_ip_literal(p, end);
        if (!p)
            return false;
    } else {
        while ((p = bt_scan_bytes(p, end, BT_CHAR_HOST)) < end && *p != ':') {
            if (*p != '%' || end - p < 3 || !bt_char_is(p[1], BT_CHAR_HEX) || !bt_char_is(p[2], BT_CHAR_HEX))
                return false;
            p += 3;
        }
    }
    return p == end || (*p == ':' && port_is_valid(p + 1, end));
}

static bt_http_step check_absolute_form(bt_http_parser *parser, baton_str target)
{
    size_t scheme_len = 0;
    if (target.len > 7 && bt_str_equal_nocase(target.data, "http://", 7))
        scheme_len = 7;
    else if (target.len > 8 && bt_str_equal_nocase(target.data, "https://", 8))
        scheme_len = 8;
    if (scheme_len == 0)
        return bt_http_fail(parser, 400, "request target in no known form");

    const char *host = target.data + scheme_len;
    const char *end = host;
    while (end < target.data + target.len && *end != '/' && *end != '?')
        end++;
    /* an empty host is invalid in an http URI (RFC 9110, 4.2.1) */
    if (end == host || *host == ':' || !authority_is_valid(host, end))
        return bt_http_fail(parser, 400, "invalid authority in the request target");
    return BT_HTTP_STEP_NEXT;
}

bt_http_step bt_http_check_target(bt_http_parser *parser, const char *window)
{
    const char *method = window + parser->request_start;
    baton_str target = {window + parser->target, parser->target_len};
    if (parser->method_len == 7 && memcmp(method, "CONNECT", 7) == 0)
        return bt_http_fail(parser, 501, "CONNECT is for proxies");
    if (target.data[0] == '/')
        return BT_HTTP_STEP_NEXT;
    if (target.data[0] == '*') {
        if (target.len == 1 && parser->method_len == 7 && memcmp(method, "OPTIONS", 7) == 0)
            return BT_HTTP_STEP_NEXT;
        return bt_http_fail(parser, 400, "the target * is for OPTIONS");
    }
    return check_absolute_form(parser, target);
}

/* ---- fields ---- */

static bt_http_step note_host(bt_http_parser *parser, baton_str value)
{
    if (parser->has_host)
        return bt_http_fail(parser, 400, "more than one Host");
    parser->has_host = true;
    if (!authority_is_valid(value.data, value.data + value.len))
        return bt_http_fail(parser, 400, "invalid Host");
    return BT_HTTP_STEP_NEXT;
}

/* RFC 9112, 6.3 lets a recipient accept "5, 5"; a front end that takes another of the two is reason not to. */
static bt_http_step note_content_length(bt_http_parser *parser, baton_str value)
{
    uint64_t length = 0;
    if (parser->has_length)
        return bt_http_fail(parser, 400, "more than one Content-Length");
    if (value.len == 0)
        return bt_http_fail(parser, 400, "empty Content-Length");
    for (size_t i = 0; i < value.len; i++) {
        if (!bt_char_is_digit(value.data[i]))
            return bt_http_fail(parser, 400, "Content-Length is not a number");
        if (__builtin_mul_overflow(length, (uint64_t) 10, &length) ||
            __builtin_add_overflow(length, (uint64_t) (value.data[i] - '0'), &length))
            return bt_http_fail(parser, 400, "Content-Length out of range");
    }
    parser->has_length = true;
    parser->content_length = length;
    return BT_HTTP_STEP_NEXT;
}

/* Only a lone final "chunked" frames a body here. Others are named by status: 501 for a coding that could be
 * there (checked at the end of the head), 400 for what no sender may send. */
static bt_http_step note_transfer_encoding(bt_http_parser *parser, baton_str value)
{
    baton_str element;
    if (parser->minor_version == 0)
        return bt_http_fail(parser, 400, "Transfer-Encoding in HTTP/1.0");
    parser->seen |= BT_HTTP_SEEN_CODING;
    while (next_element(&value, &element)) {
        if (parser->chunked)
            return bt_http_fail(parser, 400, "chunked is repeated or not the last transfer coding");
        if (VALUE_IS(element, "chunked")) {
            parser->chunked = true;
            continue;
        }
        const char *end = element.data + element.len;
        const char *stop = bt_scan_bytes(element.data, end, BT_CHAR_TOKEN);
        if (stop == element.data || (stop < end && *stop != ';' && !bt_char_is_blank(*stop)) ||
            (stop - element.data == 7 && bt_str_is_word(element.data, "chunked", 7)))
            return bt_http_fail(parser, 400, "malformed Transfer-Encoding");
        parser->seen |= BT_HTTP_SEEN_UNKNOWN_CODING;
    }
    return BT_HTTP_STEP_NEXT;
}

static bt_http_step note_connection(bt_http_parser *parser, baton_str value)
{
    baton_str element;
    if (VALUE_IS(value, "keep-alive")) { /* by far the most frequent */
        parser->seen |= BT_HTTP_SEEN_KEEP_ALIVE;
        return BT_HTTP_STEP_NEXT;
    }
    while (next_element(&value, &element)) {
        if (VALUE_IS(element, "keep-alive"))
            parser->seen |= BT_HTTP_SEEN_KEEP_ALIVE;
        else if (VALUE_IS(element, "close"))
            parser->seen |= BT_HTTP_SEEN_CLOSE;
    }
    return BT_HTTP_STEP_NEXT;
}

static bt_http_step note_expect(bt_http_parser *parser, baton_str value)
{
    /* an HTTP/1.0 client cannot mean it (RFC 9110, 10.1.1) */
    if (parser->minor_version > 0)
        parser->seen |= VALUE_IS(value, "100-continue") ? BT_HTTP_SEEN_CONTINUE : BT_HTTP_SEEN_EXPECTATION;
    return BT_HTTP_STEP_NEXT;
}

bt_http_step bt_http_note_field(bt_http_parser *parser, baton_str name, baton_str value)
{
    /* lengths differ, so each length leaves one candidate */
    switch (name.len) {
    case sizeof("Host") - 1:
        return VALUE_IS(name, "host") ? note_host(parser, value) : BT_HTTP_STEP_NEXT;
    case sizeof("Expect") - 1:
        return VALUE_IS(name, "expect") ? note_expect(parser, value) : BT_HTTP_STEP_NEXT;
    case sizeof("Connection") - 1:
        return VALUE_IS(name, "connection") ? note_connection(parser, value) : BT_HTTP_STEP_NEXT;
    case sizeof("Content-Length") - 1:
        return VALUE_IS(name, "content-length") ? note_content_length(parser, value) : BT_HTTP_STEP_NEXT;
    case sizeof("Transfer-Encoding") - 1:
        return VALUE_IS(name, "transfer-encoding") ? note_transfer_encoding(parser, value) : BT_HTTP_STEP_NEXT;
    default:
        return BT_HTTP_STEP_NEXT;
    }
}

/* Trailer fields are kept apart from the head's, so most that RFC 9110, 6.5.1 forbids are harmless; one that
 * frames or routes is an attack on somebody who merges them. */
bt_http_step bt_http_note_trailer(bt_http_parser *parser, baton_str name)
{
    if (VALUE_IS(name, "host") || VALUE_IS(name, "content-length") || VALUE_IS(name, "transfer-encoding"))
        return bt_http_fail(parser, 400, "field not allowed in a trailer section");
    return BT_HTTP_STEP_NEXT;
}

static bt_http_step finish_coding(bt_http_parser *parser)
{
    if (parser->has_length)
        return bt_http_fail(parser, 400, "both Content-Length and Transfer-Encoding");
    if (!parser->chunked)
        return bt_http_fail(parser, 400, "the last transfer coding is not chunked");
    if (parser->seen & BT_HTTP_SEEN_UNKNOWN_CODING)
        return bt_http_fail(parser, 501, "unknown transfer coding");
    return BT_HTTP_STEP_NEXT;
}

bt_http_step bt_http_finish_head(bt_http_parser *parser, const bt_http_limits *limits)
{
    if (!parser->has_host && parser->minor_version > 0)
        return bt_http_fail(parser, 400, "no Host");
    if ((parser->seen & BT_HTTP_SEEN_CODING) && finish_coding(parser) != BT_HTTP_STEP_NEXT)
        return BT_HTTP_STEP_FAIL;
    if (parser->content_length > limits->max_body || parser->content_length > SIZE_MAX - BT_HTTP_MAX_HEAD)
        return bt_http_fail(parser, 413, "Content-Length larger than max_body");
    if (parser->seen & BT_HTTP_SEEN_EXPECTATION)
        return bt_http_fail(parser, 417, "unknown expectation");

    bool by_default = parser->minor_version > 0;
    parser->keep_alive =
        !(parser->seen & BT_HTTP_SEEN_CLOSE) && (by_default || (parser->seen & BT_HTTP_SEEN_KEEP_ALIVE));
    parser->head_done = true;
    parser->head_len = parser->body_start = parser->position;
    if (parser->chunked)
        parser->phase = BT_HTTP_CHUNK_SIZE;
    else
        parser->phase = parser->content_length > 0 ? BT_HTTP_BODY_LENGTH : BT_HTTP_DONE;
    parser->expects_continue = (parser->seen & BT_HTTP_SEEN_CONTINUE) && parser->phase != BT_HTTP_DONE;
    return BT_HTTP_STEP_NEXT;
}
