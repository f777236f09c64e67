/* baton/connection.h: what an application may ask of and do with a live connection. */
#ifndef BATON_CONNECTION_H
#define BATON_CONNECTION_H

#include <baton/types.h>

/* Outcome of baton_send() when it is not a negative errno. */
enum {
    BATON_SENT = 0,   /* in the kernel, or leaves with the answer being collected for this event */
    BATON_QUEUED = 1, /* waits in user space behind bytes that the peer has not taken yet */
};

/* Sends one message, encoded by the connection's protocol (text adds the line feed, frame the
 * length, tcp nothing). The bytes are copied. Not for HTTP: use baton_reply().
 * Returns BATON_SENT, BATON_QUEUED, or
 *   -ENOBUFS   the send buffer is over max_send_buffer: the message was dropped, on_error was called
 *   -ENOTCONN  the connection is closed, closing or was passed to another process
 *   -EMSGSIZE  longer than the protocol or max_package allows
 *   -EOPNOTSUPP the connection speaks HTTP
 * Workerman: TcpConnection::send. */
BATON_API int baton_send(baton_conn *conn, const void *data, size_t len);

/* Sends what is queued, then closes politely (lingering close, so that the peer reads all of it).
 * on_close follows. A second call has no effect. Workerman: TcpConnection::close. */
BATON_API void baton_close(baton_conn *conn);

/* Closes at once; queued bytes are lost. on_close is called before this returns. A connection that is just being passed
 * belongs to the successor: neither close nor destroy has an effect then, unless the successor refuses it.
 * Workerman: TcpConnection::destroy. */
BATON_API void baton_destroy(baton_conn *conn);

/* Keeps the handle valid past on_close, for example while a timer holds it. Calls on a closed or
 * passed connection then fail with -ENOTCONN. Every ref needs one unref. Returns `conn`. */
BATON_API baton_conn *baton_conn_ref(baton_conn *conn);
BATON_API void baton_conn_unref(baton_conn *conn);

/* True while bytes can still be sent. False after close, destroy, peer's end, or a pass. */
BATON_API bool baton_conn_is_open(const baton_conn *conn);

/* Unique among all connections of this master, also after the connection was passed. */
BATON_API uint64_t baton_conn_id(const baton_conn *conn);

/* The worker that serves the connection. Never NULL. */
BATON_API baton_worker *baton_conn_worker(const baton_conn *conn);

/* The application's own pointer. A connection with a user pointer has application state: with on_pass and on_take it
 * travels to the next process at a reload; without them the connection finishes in the process that holds it. */
BATON_API void *baton_conn_user(const baton_conn *conn);
BATON_API void baton_conn_set_user(baton_conn *conn, void *user);

/* Inside on_pass: the version of the state format to be written, the older of this code's and the successor's. */
BATON_API uint32_t baton_pass_version(const baton_pass *pass);

/* Inside on_pass: appends to the state. Returns 0, -ENOMEM, or -EMSGSIZE beyond 64 MiB; on_pass then returns it. */
BATON_API BATON_NODISCARD int baton_pass_write(baton_pass *pass, const void *data, size_t len);

/* Writes the peer's (or our own) address as "127.0.0.1:4711", "[::1]:4711" or "unix:" and the path
 * into `out` (at least 64 bytes suffice for IP) and returns `out`. Never fails: "unknown" if the
 * kernel does not say. */
BATON_API const char *baton_conn_remote(const baton_conn *conn, char *out, size_t size);
BATON_API const char *baton_conn_local(const baton_conn *conn, char *out, size_t size);

/* Bytes read from and handed to the socket so far, passes included. */
BATON_API uint64_t baton_conn_bytes_read(const baton_conn *conn);
BATON_API uint64_t baton_conn_bytes_written(const baton_conn *conn);

#endif
