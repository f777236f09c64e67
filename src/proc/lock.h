/* proc/lock.h: the lock that every process of a service shares with its master: while it is held, somebody is left.
 * Unlike the pid file's, which dies with the master, it lives on in its processes. */
#ifndef BT_PROC_LOCK_H
#define BT_PROC_LOCK_H

#include <baton/types.h>

/* Takes the lock on `path` (made if missing). When processes of a master that has died still hold it, waits a second
 * for them to free their ports. Returns the descriptor, close-on-exec; -EBUSY with their pids in `why` when they
 * stay; or another negative errno with words. */
BATON_NODISCARD int bt_lock_take(const char *path, char *why, size_t size);

#endif
