/* proto/http/response.h: writes response heads, chunks and trailers into a buffer.
 * Pure: knows status codes and framing rules, not connections. */
#ifndef BT_PROTO_HTTP_RESPONSE_H
#define BT_PROTO_HTTP_RESPONSE_H

#include <base/buf.h>

/* How the body's end is told (RFC 9112, 6.3). */
typedef enum bt_http_framing {
    BT_HTTP_FRAMING_NONE,   /* HEAD, 204, 304: no body follows */
    BT_HTTP_FRAMING_LENGTH, /* Content-Length */
    BT_HTTP_FRAMING_CHUNKED,
    BT_HTTP_FRAMING_CLOSE, /* HTTP/1.0 without a length: the end of the connection */
} bt_http_framing;

typedef struct bt_http_head {
    int status;
    const char *content_type; /* NULL: no Content-Type field */
    baton_str extra;          /* whole field lines, each ended by CRLF, already validated */
    bt_http_framing framing;
    bool has_length; /* write Content-Length: with FRAMING_LENGTH, and with HEAD replies whose length is known */
    uint64_t content_length;
    bool close;          /* write Connection: close */
    bool keep_alive_1_0; /* write Connection: keep-alive (an HTTP/1.0 client asked for it) */
    const char *date;    /* 29 bytes, from bt_http_date() */
} bt_http_head;

/* Appends status line, Date, Content-Type, framing, Connection, extra fields and the empty line.
 * A status known to the table costs no formatting. 0, -EINVAL (forbidden bytes in content_type) or -ENOMEM. */
BATON_NODISCARD int bt_http_write_head(bt_buf *out, const bt_http_head *head);

/* One chunk: size in hex, CRLF, data, CRLF. Nothing for len 0 (that would end the body). */
BATON_NODISCARD int bt_http_write_chunk(bt_buf *out, const void *data, size_t len);

/* The last chunk with `trailers` (whole field lines, may be empty). */
BATON_NODISCARD int bt_http_write_last_chunk(bt_buf *out, baton_str trailers);

/* Appends "name: value\r\n" after checking: name a token, value without CTL but HTAB, no leading or trailing blank
 * needed. Returns 0, -EINVAL or -ENOMEM. */
BATON_NODISCARD int bt_http_write_field(bt_buf *out, const char *name, const char *value);

/* True for the fields that only the framework may write: Connection, Content-Length, Transfer-Encoding,
 * Date, Keep-Alive, Upgrade, Trailer, TE. */
bool bt_http_field_is_reserved(const char *name);

/* "OK" for 200; "Unknown" for a code without a name. */
const char *bt_http_reason(int status);

/* True for statuses that never have a body: 1xx, 204, 304. */
static inline bool bt_http_status_has_no_body(int status)
{
    return status < 200 || status == 204 || status == 304;
}

/* IMF-fixdate (RFC 9110, 5.6.7) of `seconds` since the epoch into out[30], NUL-terminated. */
void bt_http_date(int64_t seconds, char out[30]);

#endif
