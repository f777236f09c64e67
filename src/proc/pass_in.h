/* proc/pass_in.h: the successor's side of a pass: takes connections from one old process. It speaks first, and says
 * what it reads.
 *
 * For each message: everything a connection needs is made first, then the verdicts are handed to the kernel, and only
 * then are the taken ones polled and read. A broken channel at that point counts as success: the old process is gone.
 */
#ifndef BT_PROC_PASS_IN_H
#define BT_PROC_PASS_IN_H

#include <net/conn.h>
#include <proc/pass_wire.h>

typedef struct bt_pass_in {
    bt_list node; /* for its owner */
    bt_loop *loop;
    const bt_endpoint *endpoint;
    uv_poll_t poll;
    int fd;
    bool is_open;
    bool is_draining; /* refuses everything */
    char *receive_buffer;
    bt_list taken; /* complete, but the verdicts are not in the kernel yet */
    bt_buf verdicts;
    void (*on_closing)(struct bt_pass_in *in); /* the channel is over */
    void (*on_end)(struct bt_pass_in *in);     /* its handles are closed: free it */
    void *owner;
} bt_pass_in;

/* Takes `fd` and says HELLO. 0 or a negative errno (fd is the caller's). */
BATON_NODISCARD int bt_pass_in_start(bt_pass_in *in, bt_loop *loop, const bt_endpoint *endpoint, int fd);

void bt_pass_in_close(bt_pass_in *in);

#endif
