/* proc/orphan.h: a process whose master has died: ends politely, or serves on alone (on_master_exit).
 * Knows the signs of the death and what follows; not how a process leaves. */
#ifndef BT_PROC_ORPHAN_H
#define BT_PROC_ORPHAN_H

#include <stdbool.h>
#include <uv.h>

struct bt_process;

#define BT_ORPHAN_SIGNALS 3

/* A process that serves on has nobody else to ask: these end it. */
typedef struct bt_orphan {
    uv_signal_t signals[BT_ORPHAN_SIGNALS];
    bool has_let_go; /* of the lock */
} bt_orphan;

/* The channel's end-of-file. */
void bt_orphan_begin(struct bt_process *process);

/* A listening socket has been closed: if it was the last, a new master may start beside what is still being answered.
 */
void bt_orphan_port_closed(struct bt_process *process);

/* Until bt_orphan_unguard(), the master's death ends this process at once: the application's start may take long or for
 * ever, nobody would end it, and it holds the listening sockets. */
void bt_orphan_guard(int channel_fd);
void bt_orphan_unguard(int channel_fd);

#endif
