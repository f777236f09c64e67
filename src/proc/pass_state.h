/* proc/pass_state.h: what the application keeps for a connection (its user pointer), on its way to another process:
 * on_pass writes it in the old one, on_take reads it in the successor.
 * Knows the callbacks; not how bytes travel, nor when. */
#ifndef BT_PROC_PASS_STATE_H
#define BT_PROC_PASS_STATE_H

#include <net/conn.h>
#include <proc/pass_wire.h>

/* What this process reads, for its HELLO. */
bt_pass_hello bt_pass_hello_of(const baton_callbacks *callbacks);

/* True when this process can write what the sender of `hello` can read. */
bool bt_app_travels(const baton_callbacks *callbacks, const bt_pass_hello *hello);

/* Appends the state of a held connection to `out`, in the newest version that both sides know, and fills the record's
 * fields about it. 0 also when there is none; -ECANCELED: the application keeps the connection. */
BATON_NODISCARD int bt_app_save(baton_conn *conn, const bt_pass_hello *hello, bt_pass_record *record, bt_buf *out);

/* False when the record has state that this process cannot read. */
bool bt_app_is_readable(const baton_callbacks *callbacks, const bt_pass_record *record);

/* Lets the application take the connection; `bytes` is its state, never NULL. 0, or -ECANCELED: it does not want it. */
BATON_NODISCARD int bt_app_take(baton_conn *conn, const bt_pass_record *record, const char *bytes);

#endif
