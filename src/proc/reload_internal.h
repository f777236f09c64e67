/* proc/reload_internal.h: between reload.c and rollback.c only: who waits, and what a plan needs. */
#ifndef BT_PROC_RELOAD_INTERNAL_H
#define BT_PROC_RELOAD_INTERNAL_H

#include <proc/master_parts.h>

/* Its one answer; it waits no more. */
void bt_waiter_tell(bt_waiter *waiter, bool ok, uint64_t generation, const char *message, const char *log);

/* The same for one that did not wait yet; NULL is allowed. */
void bt_waiter_answer_at_once(bt_waiter *waiter, bool ok, uint64_t generation, const char *message);

/* It waits for this job from now on, as far as it wants to; NULL is allowed. */
void bt_waiter_add(bt_master *master, bt_waiter *waiter, const bt_reload_job *job);

/* Opens the addresses that the crews' next generations need. 0, or a negative errno with words in `why`. */
BATON_NODISCARD int bt_plan_open_addresses(bt_master *master, char *why, size_t size);

/* No crew keeps a plan, and what was made for it goes. */
void bt_plan_drop(bt_master *master);

#endif
