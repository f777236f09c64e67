/* proto/http/response.c: response heads, chunks and trailers as bytes (RFC 9110, 15; RFC 9112, 4 to 7).
 * Knows status codes and framing rules, no connection and no clock. */
#include <proto/http/response.h>

#include <proto/http/chars.h>

#include <errno.h>
#include <time.h>

/* ---- status codes ---- */

typedef struct bt_http_status {
    const char *line; /* whole status line with CRLF */
    const char *reason;
    size_t line_len;
} bt_http_status;

#define LEAST_STATUS 100
#define STATUS(code, words)                                                                                            \
    [(code) -LEAST_STATUS] = {"HTTP/1.1 " #code " " words "\r\n", words, sizeof("HTTP/1.1 " #code " " words "\r\n") - 1}

static const bt_http_status statuses[] = {
    STATUS(100, "Continue"),
    STATUS(101, "Switching Protocols"),
    STATUS(102, "Processing"),
    STATUS(103, "Early Hints"),
    STATUS(200, "OK"),
    STATUS(201, "Created"),
    STATUS(202, "Accepted"),
    STATUS(203, "Non-Authoritative Information"),
    STATUS(204, "No Content"),
    STATUS(205, "Reset Content"),
    STATUS(206, "Partial Content"),
    STATUS(207, "Multi-Status"),
    STATUS(208, "Already Reported"),
    STATUS(226, "IM Used"),
    STATUS(300, "Multiple Choices"),
    STATUS(301, "Moved Permanently"),
    STATUS(302, "Found"),
    STATUS(303, "See Other"),
    STATUS(304, "Not Modified"),
    STATUS(305, "Use Proxy"),
    STATUS(307, "Temporary Redirect"),
    STATUS(308, "Permanent Redirect"),
    STATUS(400, "Bad Request"),
    STATUS(401, "Unauthorized"),
    STATUS(402, "Payment Required"),
    STATUS(403, "Forbidden"),
    STATUS(404, "Not Found"),
    STATUS(405, "Method Not Allowed"),
    STATUS(406, "Not Acceptable"),
    STATUS(407, "Proxy Authentication Required"),
    STATUS(408, "Request Timeout"),
    STATUS(409, "Conflict"),
    STATUS(410, "Gone"),
    STATUS(411, "Length Required"),
    STATUS(412, "Precondition Failed"),
    STATUS(413, "Content Too Large"),
    STATUS(414, "URI Too Long"),
    STATUS(415, "Unsupported Media Type"),
    STATUS(416, "Range Not Satisfiable"),
    STATUS(417, "Expectation Failed"),
    STATUS(418, "I'm a teapot"),
    STATUS(421, "Misdirected Request"),
    STATUS(422, "Unprocessable Content"),
    STATUS(423, "Locked"),
    STATUS(424, "Failed Dependency"),
    STATUS(425, "Too Early"),
    STATUS(426, "Upgrade Required"),
    STATUS(428, "Precondition Required"),
    STATUS(429, "Too Many Requests"),
    STATUS(431, "Request Header Fields Too Large"),
    STATUS(451, "Unavailable For Legal Reasons"),
    STATUS(500, "Internal Server Error"),
    STATUS(501, "Not Implemented"),
    STATUS(502, "Bad Gateway"),
    STATUS(503, "Service Unavailable"),
    STATUS(504, "Gateway Timeout"),
    STATUS(505, "HTTP Version Not Supported"),
    STATUS(506, "Variant Also Negotiates"),
    STATUS(507, "Insufficient Storage"),
    STATUS(508, "Loop Detected"),
    STATUS(510, "Not Extended"),
    STATUS(511, "Network Authentication Required"),
};

static const bt_http_status *find_status(int status)
{
    size_t index = (size_t) (status - LEAST_STATUS);
    if (status < LEAST_STATUS || index >= sizeof(statuses) / sizeof(statuses[0]) || !statuses[index].line)
        return NULL;
    return &statuses[index];
}

const char *bt_http_reason(int status)
{
    const bt_http_status *found = find_status(status);
    return found ? found->reason : "Unknown";
}

/* ---- writing into reserved room ---- */

static inline char *put(char *p, const char *data, size_t len)
{
    memcpy(p, data, len);
    return p + len;
}

#define PUT(p, literal) put((p), (literal), sizeof(literal) - 1)

static const char digit_pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                  "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                  "8081828384858687888990919293949596979899";

static char *put_number(char *p, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);
    while (value >= 100) {
        at -= 2;
        memcpy(digits + at, digit_pairs + value % 100 * 2, 2);
        value /= 100;
    }
    if (value >= 10) {
        at -= 2;
        memcpy(digits + at, digit_pairs + value * 2, 2);
    } else {
        digits[--at] = (char) ('0' + value);
    }
    return put(p, digits + at, sizeof(digits) - at);
}

static char *put_pair(char *p, int value)
{
    return put(p, digit_pairs + (unsigned) value % 100 * 2, 2);
}

/* ---- heads ---- */

static char *put_status_line(char *p, int status)
{
    const bt_http_status *found = find_status(status);
    if (found)
        return put(p, found->line, found->line_len);
    p = PUT(p, "HTTP/1.1 ");
    *p++ = (char) ('0' + (unsigned) status / 100 % 10);
    p = put_pair(p, status);
    return PUT(p, " Unknown\r\n");
}

static char *put_framing(char *p, const bt_http_head *head)
{
    switch (head->framing) {
    case BT_HTTP_FRAMING_CHUNKED:
        return PUT(p, "Transfer-Encoding: chunked\r\n");
    case BT_HTTP_FRAMING_NONE:
    case BT_HTTP_FRAMING_LENGTH:
        if (!head->has_length)
            return p;
        p = PUT(p, "Content-Length: ");
        p = put_number(p, head->content_length);
        return PUT(p, "\r\n");
    case BT_HTTP_FRAMING_CLOSE:
        break;
    }
    return p;
}

int bt_http_write_head(bt_buf *out, const bt_http_head *head)
{
    /* status line, Date, the names of Content-Type and of either framing, Connection, blank line */
    enum { FIXED = 64 + 37 + 16 + 38 + 24 + 2, DATE_LEN = 29 };
    size_t type_len = head->content_type ? strlen(head->content_type) : 0;
    if (type_len > 0) {
        const char *type_end = head->content_type + type_len;
        if (bt_scan_swar(head->content_type, type_end, BT_CHAR_VALUE) < type_end)
            return -EINVAL;
    }
    if (bt_buf_reserve(out, FIXED + type_len + head->extra.len) < 0)
        return -ENOMEM;

    char *p = put_status_line(bt_buf_tail(out), head->status);
    p = PUT(p, "Date: ");
    p = put(p, head->date, DATE_LEN);
    p = PUT(p, "\r\n");
    if (type_len > 0) {
        p = PUT(p, "Content-Type: ");
        p = put(p, head->content_type, type_len);
        p = PUT(p, "\r\n");
    }
    p = put_framing(p, head);
    if (head->close)
        p = PUT(p, "Connection: close\r\n");
    else if (head->keep_alive_1_0)
        p = PUT(p, "Connection: keep-alive\r\n");
    if (head->extra.len > 0)
        p = put(p, head->extra.data, head->extra.len);
    p = PUT(p, "\r\n");
    out->end = (size_t) (p - out->data);
    return 0;
}

/* ---- chunks ---- */

int bt_http_write_chunk(bt_buf *out, const void *data, size_t len)
{
    enum { FIXED = 2 * sizeof(size_t) + 2 + 2 };
    if (len == 0)
        return 0;
    if (len > SIZE_MAX - FIXED || bt_buf_reserve(out, FIXED + len) < 0)
        return -ENOMEM;

    char digits[2 * sizeof(size_t)];
    size_t at = sizeof(digits);
    for (size_t left = len; left > 0; left >>= 4)
        digits[--at] = "0123456789abcdef"[left & 15];
    char *p = put(bt_buf_tail(out), digits + at, sizeof(digits) - at);
    p = PUT(p, "\r\n");
    p = put(p, data, len);
    p = PUT(p, "\r\n");
    out->end = (size_t) (p - out->data);
    return 0;
}

int bt_http_write_last_chunk(bt_buf *out, baton_str trailers)
{
    if (bt_buf_reserve(out, 5 + trailers.len) < 0)
        return -ENOMEM;
    char *p = PUT(bt_buf_tail(out), "0\r\n");
    if (trailers.len > 0)
        p = put(p, trailers.data, trailers.len);
    p = PUT(p, "\r\n");
    out->end = (size_t) (p - out->data);
    return 0;
}

/* ---- fields ---- */

int bt_http_write_field(bt_buf *out, const char *name, const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value);
    if (name_len == 0 || bt_scan_bytes(name, name + name_len, BT_CHAR_TOKEN) < name + name_len)
        return -EINVAL;
    if (bt_scan_value(value, value, value + value_len) < value + value_len)
        return -EINVAL;
    if (bt_buf_reserve(out, name_len + value_len + 4) < 0)
        return -ENOMEM;
    char *p = put(bt_buf_tail(out), name, name_len);
    p = PUT(p, ": ");
    p = put(p, value, value_len);
    p = PUT(p, "\r\n");
    out->end = (size_t) (p - out->data);
    return 0;
}

bool bt_http_field_is_reserved(const char *name)
{
    static const char *const reserved[] = {
        "Connection", "Content-Length", "Transfer-Encoding", "Date", "Keep-Alive", "Upgrade", "Trailer", "TE",
    };
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (strlen(reserved[i]) == len && bt_str_equal_nocase(reserved[i], name, len))
            return true;
    }
    return false;
}

/* ---- date ---- */

void bt_http_date(int64_t seconds, char out[30])
{
    /* strftime would speak the process's locale */
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const int64_t least = -62135596800, most = 253402300799; /* years 1 to 9999: four digits */
    struct tm tm;
    time_t when = (time_t) (seconds < least ? least : seconds > most ? most : seconds);
    gmtime_r(&when, &tm);

    char *p = put(out, days + tm.tm_wday * 3, 3);
    p = PUT(p, ", ");
    p = put_pair(p, tm.tm_mday);
    *p++ = ' ';
    p = put(p, months + tm.tm_mon * 3, 3);
    *p++ = ' ';
    p = put_pair(p, (tm.tm_year + 1900) / 100);
    p = put_pair(p, tm.tm_year + 1900);
    *p++ = ' ';
    p = put_pair(p, tm.tm_hour);
    *p++ = ':';
    p = put_pair(p, tm.tm_min);
    *p++ = ':';
    p = put_pair(p, tm.tm_sec);
    memcpy(p, " GMT", 5);
}
