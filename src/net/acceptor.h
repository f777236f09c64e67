/* net/acceptor.h: a process's end of a listening socket that the master made: accept, and stop accepting. */
#ifndef BT_NET_ACCEPTOR_H
#define BT_NET_ACCEPTOR_H

#include <net/protocol.h>
#include <uv.h>

struct bt_loop;

typedef struct bt_acceptor {
    uv_poll_t poll;
    uv_timer_t pause; /* out of descriptors: look again later */
    struct bt_loop *loop;
    const bt_endpoint *endpoint;
    int fd;
    bool is_open;
    bool has_given_way; /* the next connection is ours, unless a sibling was faster */
    unsigned streak;    /* gave way in vain so often (doubled each time) */
    unsigned credit;    /* connections to accept without giving way */
    bool is_paused;     /* the last accept found no descriptor */
} bt_acceptor;

/* Takes `fd`, non-blocking and listening. 0 or a negative errno; then fd is still the caller's. */
BATON_NODISCARD int bt_acceptor_start(bt_acceptor *acceptor, struct bt_loop *loop, const bt_endpoint *endpoint, int fd);

/* Closes this process's copy; the queue stays with whoever else holds the socket. Harmless when not started. */
void bt_acceptor_stop(bt_acceptor *acceptor);

#endif
