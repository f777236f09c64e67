/* net/protocol.h: what a protocol must tell a connection: a table of functions.
 * The connection moves bytes; the protocol knows messages. */
#ifndef BT_NET_PROTOCOL_H
#define BT_NET_PROTOCOL_H

#include <base/buf.h>
#include <base/counters.h>
#include <baton/worker.h>

typedef struct bt_protocol {
    const char *name;      /* scheme in a listen address */
    uint16_t wire_id;      /* in a pass; never reused for another protocol */
    uint16_t wire_version; /* of the state that save() writes */

    /* `data[0..len)` is everything not yet consumed, from the first byte of the unfinished message on. It may be
     * rewritten in place and is gone when this returns. Returns how many bytes at the front are done with. */
    size_t (*on_data)(baton_conn *conn, char *data, size_t len);

    /* The peer sends no more. The connection is closed afterwards unless this returns true: something is still
     * being answered, and the protocol will call bt_conn_close(). */
    bool (*on_end)(baton_conn *conn);

    /* The deadline on conn->timeout has passed. */
    void (*on_timeout)(baton_conn *conn);

    /* The connection is gone or was passed: free the state behind conn->proto. */
    void (*on_gone)(baton_conn *conn);

    /* Nothing is being handled and every byte not consumed is in conn->in: it may leave now. */
    bool (*is_passable)(const baton_conn *conn);

    /* Of one that is not passable: part of the answer is out. NULL: never. */
    bool (*is_half_answered)(const baton_conn *conn);

    /* The process stops and nobody takes over: close now if idle, else after what is being handled. */
    void (*on_departure)(baton_conn *conn);

    /* The drain is over: end it now, as politely as the protocol allows. */
    void (*on_expired)(baton_conn *conn);

    /* For the pass: what cannot be learned from the unread bytes goes to `state`; `unread` gets the bytes the
     * successor shall see. 0 or negative errno. */
    int (*save)(baton_conn *conn, bt_buf *state, bt_buf *unread);

    /* conn->in holds the unread bytes; `state` is hostile input. 0, -EPROTO or -ENOMEM. */
    int (*restore)(baton_conn *conn, const void *state, size_t len);

    /* baton_send(): encodes one message to the output. NULL: the protocol has its own calls. */
    int (*encode)(bt_buf *out, const void *data, size_t len);
} bt_protocol;

/* Limits and callbacks of the worker behind a connection; one per process. */
typedef struct bt_endpoint {
    const bt_protocol *protocol;
    const baton_callbacks *callbacks;
    baton_worker *worker;
    bt_counters *counters;
    bt_counter *crew_connections; /* of all processes of the worker, shared by them */
    unsigned crew_size;           /* how many share the listening socket; 1: nobody else does */
    uint64_t max_package;
    uint64_t max_send_buffer;
    uint32_t max_head;
    uint32_t max_target;
    uint32_t max_headers;
    uint64_t header_timeout_ms;
    uint64_t idle_timeout_ms;
    uint64_t linger_timeout_ms;
    uint64_t keepalive_requests;
} bt_endpoint;

#endif
