/* net/acceptor.h: a process's end of a listening socket that the master made: accept, and stop accepting.
 *
 *   start --> ACCEPTING --finish--> FINISHING --queue is empty, or 100 ms--> closed
 *                 \---------------------- stop ------------------------------^
 */
#ifndef BT_NET_ACCEPTOR_H
#define BT_NET_ACCEPTOR_H

#include <base/list.h>
#include <net/protocol.h>
#include <sys/socket.h>
#include <uv.h>

struct bt_loop;

/* How long a silent connection of a process that leaves (BT_DEPARTURE_CLOSE) may take for its first bytes. */
#define BT_FIRST_BYTES_MS 1000

typedef struct bt_acceptor {
    uv_poll_t poll;
    uv_timer_t pause; /* look again later: out of descriptors, or siblings go first */
    bt_list node;     /* the owner's */
    struct bt_loop *loop;
    const bt_endpoint *endpoint;
    int fd;
    bool is_open;
    bool is_finishing;
    bool has_given_way; /* the next connection is ours, unless a sibling was faster */
    bool is_paused;     /* the last accept found no descriptor */
    unsigned streak;    /* gave way in vain so often (doubled each time) */
    unsigned credit;    /* connections to accept without giving way */
    uint64_t finish_by_ms;
    unsigned open_handles;
    void *owner;
    void (*on_end)(struct bt_acceptor *acceptor); /* accepts no more; may be NULL */
    void (*closed)(struct bt_acceptor *acceptor); /* its memory may go; may be NULL */
} bt_acceptor;

/* Takes `fd`, non-blocking and listening; set owner, on_end and closed afterwards. 0 or a negative errno; then fd is
 * still the caller's, and the memory may go at once. */
BATON_NODISCARD int bt_acceptor_start(bt_acceptor *acceptor, struct bt_loop *loop, const bt_endpoint *endpoint, int fd);

/* Closes this process's copy; the queue stays with whoever else holds the socket. Harmless when closed already. */
void bt_acceptor_stop(bt_acceptor *acceptor);

/* Accepts everything that waits in the queue, then stops: at once when nothing waits, after 100 ms at the latest. */
void bt_acceptor_finish(bt_acceptor *acceptor);

/* Makes a connection of an accepted socket (non-blocking; taken): on_connect is called, and reading begins. Returns it
 * with one reference for the caller; it may have been closed by on_connect. NULL: out of memory or descriptors. */
baton_conn *bt_accept_conn(struct bt_loop *loop, const bt_endpoint *endpoint, int fd, const struct sockaddr *peer,
                           socklen_t peer_len);

#endif
