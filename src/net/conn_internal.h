/* net/conn_internal.h: between conn.c (life, input) and conn_output.c (output) only. */
#ifndef BT_NET_CONN_INTERNAL_H
#define BT_NET_CONN_INTERNAL_H

#include <net/conn.h>

/* Arms poll for what the connection waits for. */
void bt_conn_update_interest(baton_conn *conn);

/* Puts the connection on the loop's list of things to do before it waits. */
void bt_conn_mark_dirty(baton_conn *conn);

/* While corked, answers collect in the loop's output buffer; uncork sends them. */
void bt_conn_cork(baton_conn *conn);
void bt_conn_uncork(baton_conn *conn);

/* All output of a closing connection is sent. */
void bt_conn_shut(baton_conn *conn);

/* (Re)arms the deadline of a peer that does not take what is queued; `has_moved` when it has just taken some. */
void bt_conn_watch_stall(baton_conn *conn, bool has_moved);

#endif
