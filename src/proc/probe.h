/* proc/probe.h: one request that a process answers itself before it takes any client: bad code takes no traffic.
 * Knows HTTP's status line and the endpoint; not what follows from the answer. */
#ifndef BT_PROC_PROBE_H
#define BT_PROC_PROBE_H

#include <net/loop.h>
#include <net/protocol.h>

typedef struct bt_probe {
    uv_poll_t poll; /* the client's end */
    int fd;
    bool is_open;
    char line[16]; /* the answer's first bytes: "HTTP/1.1 200 " */
    size_t line_len;
    const char *path;
    baton_conn *conn;     /* the server's end */
    bt_endpoint endpoint; /* with counters of its own, so that nothing of it shows in status */
    bt_counters counters;
    bt_counter crew_connections;
    void *owner;
    void (*on_done)(struct bt_probe *probe, const char *why); /* `why` is NULL when it was answered below 500 */
} bt_probe;

/* Set owner and on_done before; on_done is called from the loop, once. `path` is borrowed. The struct must live as long
 * as the process: the application may keep a reference to the connection. 0 or a negative errno. */
BATON_NODISCARD int bt_probe_start(bt_probe *probe, bt_loop *loop, const bt_endpoint *endpoint, const char *path);

/* Ends it without a word; harmless when there is none. */
void bt_probe_cancel(bt_probe *probe);

#endif
