/* net/loop_shut.h: the end of a libuv loop. Knows no connection: the master ends its loop by it, too. */
#ifndef BT_NET_LOOP_SHUT_H
#define BT_NET_LOOP_SHUT_H

#include <uv.h>

/* Closes every handle that is not closing yet, runs the loop until all their close callbacks have been, closes the
 * loop. In a fork's child uv_loop_fork comes first: without an epoll of its own, closing a handle here would take the
 * descriptor out of the parent's. */
void bt_loop_shut(uv_loop_t *loop);

#endif
