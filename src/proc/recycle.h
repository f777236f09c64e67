/* proc/recycle.h: tells the master when a process has reached max_requests or max_memory, so that it is replaced as by
 * a reload. Knows the limits; not how a process is replaced. */
#ifndef BT_PROC_RECYCLE_H
#define BT_PROC_RECYCLE_H

#include <stdint.h>
#include <uv.h>

struct bt_process;

typedef struct bt_recycle {
    uv_prepare_t requests;
    uv_timer_t memory;
    uint64_t ask_at_ms; /* not again before: the master may be busy with something else */
} bt_recycle;

/* Once, when the process serves. It stops by itself when the process leaves. */
void bt_recycle_start(bt_recycle *recycle, struct bt_process *process);

#endif
