/* net/conn.h: one live stream connection: its descriptor, its buffers and its end.
 * Knows the loop and the protocol's table; not what is spoken, nor who takes it over. */
#ifndef BT_NET_CONN_H
#define BT_NET_CONN_H

#include <baton/connection.h>
#include <net/address.h>
#include <net/loop.h>
#include <net/protocol.h>

#define BT_CONN_MAGIC 0xba70c044u

/*            +--------------> PASSING --ACK--> PASSED     (the descriptor lives on elsewhere)
 *            |  is_passable    | NACK or EOF
 *  accept -> OPEN <------------+
 *            |  \
 *     close  |   \ error, peer's end, destroy
 *            v    \
 *         CLOSING -+-> CLOSED        CLOSING: what is queued is being sent
 *            |     |
 *            v     |
 *         LINGER --+                 LINGER: our end is shut; the peer's last bytes are read and thrown away, because
 *                                    close(2) with unread input sends a RST that can destroy our answer (RFC 9112, 9.6)
 */
typedef enum bt_conn_state {
    BT_CONN_OPEN,
    BT_CONN_CLOSING,
    BT_CONN_LINGER,
    BT_CONN_PASSING,
    BT_CONN_PASSED,
    BT_CONN_CLOSED,
} bt_conn_state;

struct baton_conn {
    uint32_t magic;
    uint32_t refs; /* one for the poll handle, one for each baton_conn_ref */
    uv_poll_t poll;
    bt_loop *loop;
    const bt_endpoint *endpoint;
    void *user;
    void *proto;            /* the protocol's state; NULL while idle */
    bt_list node;           /* in loop->conns or, while it leaves, in the pass's lists */
    bt_list dirty;          /* in loop->dirty */
    bt_wheel_entry timeout; /* the protocol's deadline */
    bt_wheel_entry stall;   /* armed while the peer does not take its output; moves with every byte it takes */
    bt_buf in;              /* bytes read, not consumed; owns memory only while a message is unfinished */
    bt_buf out;             /* bytes the socket has not taken */
    uint64_t id;
    uint64_t bytes_read;
    uint64_t bytes_written;
    int64_t taken;     /* bytes the peer had acknowledged when the stall was last looked at */
    uint64_t requests; /* answered or being answered */
    bt_address remote;
    uint32_t scanned; /* stream protocols: bytes of the window known to hold no message end */
    int fd;
    uint8_t state;  /* bt_conn_state */
    uint8_t events; /* what poll is armed for */
    bool peer_ended : 1;
    bool reading_paused : 1;  /* enough input waits for what is being handled */
    bool resume : 1;          /* conn->in shall be looked at again at the loop's end */
    bool is_full : 1;         /* on_buffer_full was called */
    bool leaves : 1;          /* closes after what is being handled (no successor takes it) */
    bool in_borrowed : 1;     /* the protocol is looking at conn->in: it must not be freed */
    bool shall_close : 1;     /* closed by the application while it was being passed; */
    bool is_doomed : 1;       /* destroyed by it: what is queued is lost */
    bool refused : 1;         /* the successor did not take it: served on until another successor asks */
    bool app_stays : 1;       /* the same, by the application's word: what it keeps for it does not travel */
    bool is_stay_counted : 1; /* bt_counters.stayed has it */
};

_Static_assert(sizeof(struct baton_conn) <= 448, "an idle connection must stay below 512 bytes");

/* Takes `fd` (non-blocking). The connection is not polled yet. NULL: out of memory or descriptors of epoll; then fd is
 * still the caller's. */
baton_conn *bt_conn_create(bt_loop *loop, const bt_endpoint *endpoint, int fd, uint64_t id);

/* A fresh id for a connection accepted here. */
uint64_t bt_conn_next_id(bt_loop *loop);

/* Starts polling; with bytes already in conn->in (a taken connection), they are looked at at the loop's end. */
void bt_conn_start(baton_conn *conn);

static inline bool bt_conn_is_serving(const baton_conn *conn)
{
    return conn->state == BT_CONN_OPEN;
}

/* The buffer that answers are appended to; call bt_conn_output_added() afterwards. */
bt_buf *bt_conn_output(baton_conn *conn);
void bt_conn_output_added(baton_conn *conn);

/* Sends what the socket takes now. False when the connection has ended by it. */
bool bt_conn_flush(baton_conn *conn);

/* True when the peer has acknowledged bytes since the last call: the socket may be full for long while they trickle. */
bool bt_conn_peer_takes(baton_conn *conn);

/* Bytes waiting for the peer, those being corked included. */
size_t bt_conn_unsent(const baton_conn *conn);

/* The protocol can go on with conn->in: do so at the loop's end (no recursion into callbacks). */
void bt_conn_resume(baton_conn *conn);

/* The loop's end: sends what was queued, then looks at conn->in again if that was asked for. */
void bt_conn_flush_dirty(baton_conn *conn);

/* Enough input: stop reading until bt_conn_resume(). */
void bt_conn_pause(baton_conn *conn);

/* Flush, shut our end, linger, close. */
void bt_conn_close(baton_conn *conn);

/* At once. `error` is 0, or a negative errno that on_error hears before on_close. */
void bt_conn_destroy(baton_conn *conn, int error);

/* Counted: the connection ends because of what the peer sent. */
void bt_conn_reject(baton_conn *conn, int error);

/* The deadline on conn->timeout: `timeout_ms` from now, 0 for none. */
void bt_conn_expire_in(baton_conn *conn, uint64_t timeout_ms);

/* ---- the pass ---- */

/* What the application keeps for it (conn->user) cannot travel to the present successor. */
static inline bool bt_conn_is_tied(const baton_conn *conn)
{
    return conn->app_stays || (conn->user != NULL && !conn->loop->app_travels);
}

/* The process drains, and the connection cannot leave it: it ends with what is asked next. */
static inline bool bt_conn_is_stranded(const baton_conn *conn)
{
    bt_departure departure = conn->loop->departure;
    return departure == BT_DEPARTURE_STRAND || (departure == BT_DEPARTURE_PASS && bt_conn_is_tied(conn));
}

/* False once the connection shall leave as it is: what has arrived and was not begun is the successor's. */
static inline bool bt_conn_may_begin(const baton_conn *conn)
{
    bool shall_pass = conn->loop->departure == BT_DEPARTURE_PASS && !bt_conn_is_tied(conn) && !conn->refused &&
                      !conn->leaves && !conn->peer_ended;
    return conn->state == BT_CONN_OPEN && !shall_pass;
}

/* Nothing is being handled, nothing keeps it here: it can leave this process now. */
bool bt_conn_is_passable(const baton_conn *conn);

/* Stops polling and reading; the kernel keeps what arrives. OPEN -> PASSING. */
void bt_conn_hold(baton_conn *conn);

/* We took it from another process, and said so: PASSING -> OPEN, polled, its unread bytes looked at. It may end by it:
 * on_take may have closed it. */
void bt_conn_taken(baton_conn *conn);

/* The successor did not take it: PASSING -> OPEN, polled again. */
void bt_conn_rearm(baton_conn *conn);

/* Another process owns it: closes our copy of the descriptor. on_passed if the application keeps something for it, no
 * on_close. PASSING -> PASSED. */
void bt_conn_passed(baton_conn *conn);

#endif
