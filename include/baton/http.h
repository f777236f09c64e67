/* baton/http.h: HTTP requests and replies (RFC 9110, RFC 9112).
 *
 * Views returned by the accessors live as long as the request: until on_request returns, or, after
 * baton_request_keep(), until the response has ended. Reply before on_request returns, or later
 * from a timer or any other callback; requests of one connection are answered in order. */
#ifndef BATON_HTTP_H
#define BATON_HTTP_H

#include <baton/types.h>

/* ---- request ---- */

/* "GET", "POST", ... exactly as received; methods are case-sensitive (RFC 9110, 9.1). */
BATON_API baton_str baton_request_method(const baton_request *req);

/* The request target as received: "/a?b=c", "http://host/a", "*" (RFC 9112, 3.2). */
BATON_API baton_str baton_request_target(const baton_request *req);

/* Path of the target, still percent-encoded: "/a"; "/" for an absolute target without path; "*". */
BATON_API baton_str baton_request_path(const baton_request *req);

/* What follows the first '?', without it, still encoded. data is NULL when there is no '?'. */
BATON_API baton_str baton_request_query(const baton_request *req);

/* Minor version: 1 for HTTP/1.1, 0 for HTTP/1.0. */
BATON_API int baton_request_minor_version(const baton_request *req);

/* Value of the first header field of that name (case-insensitive), without surrounding blanks. */
BATON_API baton_str baton_request_header(const baton_request *req, const char *name);

/* All header fields in order of arrival: returns false when `index` is past the last one. */
BATON_API bool baton_request_header_at(const baton_request *req, size_t index, baton_str *name, baton_str *value);

/* Trailer fields of a chunked body, same rules. */
BATON_API baton_str baton_request_trailer(const baton_request *req, const char *name);

/* Value of a cookie sent by the client, as received (RFC 6265, 5.4). */
BATON_API baton_str baton_request_cookie(const baton_request *req, const char *name);

/* The whole body, chunked framing removed. len is 0 when there is none. */
BATON_API baton_str baton_request_body(const baton_request *req);

/* First parameter of that name in the query, or in a application/x-www-form-urlencoded body,
 * percent-decoded, '+' as a blank. A malformed escape is kept as it stands. */
BATON_API baton_str baton_request_query_param(const baton_request *req, const char *name);
BATON_API baton_str baton_request_form_param(const baton_request *req, const char *name);

/* Keeps the request's views valid after on_request returns, until its response has ended.
 * Copies the request once. Call it inside on_request. Returns 0 or -ENOMEM. */
BATON_API BATON_NODISCARD int baton_request_keep(const baton_request *req);

/* ---- reply ----
 * All return 0 or
 *   -ENOTCONN  the connection is gone or was passed
 *   -EPROTO    no request is waiting for an answer, or the reply calls are in the wrong order
 *   -EINVAL    status not in 200..599, or a header name or value with forbidden bytes
 *   -ENOMEM
 * Date, Content-Length or Transfer-Encoding, and Connection are added as the protocol needs them;
 * HEAD, 204 and 304 get no body. */

/* A whole reply with a text body. `content_type` may be NULL. */
BATON_API int baton_reply(baton_conn *conn, int status, const char *content_type, const char *text);

/* The same with any bytes. The body is copied. */
BATON_API int baton_reply_bytes(baton_conn *conn, int status, const char *content_type, const void *body, size_t len);

/* The helper for errors: a one-line text body with the status's own words ("404 Not Found"). */
BATON_API int baton_reply_error(baton_conn *conn, int status);

/* Adds a header field to the reply that follows. Connection, Content-Length, Transfer-Encoding and
 * Date are the framework's own: -EINVAL. ("Connection: close" is baton_reply_close.) */
BATON_API int baton_reply_header(baton_conn *conn, const char *name, const char *value);

/* The connection ends after the reply to the current request. */
BATON_API int baton_reply_close(baton_conn *conn);

#define BATON_CHUNKED (-1)

/* A reply in parts: start, any number of writes, end. `length` is the exact body length in bytes,
 * or BATON_CHUNKED when it is not known (HTTP/1.0 clients then get a body ended by the close).
 * Writes over or an end short of `length` abort the connection and return -EMSGSIZE.
 * baton_reply_write returns BATON_SENT or BATON_QUEUED on success; when the peer does not read and
 * max_send_buffer is exceeded the connection is aborted (an HTTP body is never cut silently) and
 * -ENOBUFS returned: wait for on_buffer_drain after on_buffer_full. */
BATON_API int baton_reply_start(baton_conn *conn, int status, const char *content_type, int64_t length);
BATON_API int baton_reply_write(baton_conn *conn, const void *data, size_t len);
BATON_API int baton_reply_trailer(baton_conn *conn, const char *name, const char *value);
BATON_API int baton_reply_end(baton_conn *conn);

#endif
