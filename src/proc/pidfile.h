/* proc/pidfile.h: the pid file: who holds its fcntl lock is the running master.
 * fcntl, not flock: the lock must not live on in children after the master was killed. */
#ifndef BT_PROC_PIDFILE_H
#define BT_PROC_PIDFILE_H

#include <baton/types.h>
#include <sys/types.h>

/* Creates missing parent directories (0755), opens (0644, close-on-exec), locks and writes the pid. Call it after
 * daemonising. Returns the descriptor to keep open; -EWOULDBLOCK when another master holds it (its pid in *holder); or
 * another negative errno. A stale file is taken over. */
BATON_NODISCARD int bt_pidfile_take(const char *path, pid_t *holder);

/* The pid of the master that holds the lock; 0 when nobody does (no file, or stale); negative errno otherwise.
 * Never call it in the process that holds the lock: closing any descriptor of the file drops an fcntl lock. */
BATON_NODISCARD pid_t bt_pidfile_holder(const char *path);

/* Removes the file and closes the descriptor. */
void bt_pidfile_release(const char *path, int fd);

/* mkdir -p of the directory part of `path`. 0 or negative errno. */
BATON_NODISCARD int bt_make_parent_dirs(const char *path, mode_t mode);

/* "run/baton.pid" and ".sock" give "run/baton.sock". malloc'ed, NULL when out of memory. */
char *bt_pidfile_sibling(const char *path, const char *suffix);

#endif
