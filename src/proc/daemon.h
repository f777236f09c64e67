/* proc/daemon.h: going to the background, with the start's result told to the shell that asked. */
#ifndef BT_PROC_DAEMON_H
#define BT_PROC_DAEMON_H

#include <baton/types.h>

/* Forks twice with setsid between. In the daemon: returns a descriptor (close-on-exec, for the
 * daemon alone: a copy in a child would keep the original process waiting) for bt_daemon_report. The original
 * process never returns from this call: it waits for the report, prints its text to stdout (code 0) or stderr, and
 * exits with its code; if the daemon dies first: exit 1 and "baton: the daemon ended before it was ready".
 * stdin becomes /dev/null here; stdout and stderr stay until the report (so that early errors are seen).
 * Negative errno on failure. */
BATON_NODISCARD int bt_daemonize(void);

/* Sends the result of the start and closes the descriptor. */
void bt_daemon_report(int fd, int code, const char *text);

/* Opens /dev/null for each of stdin, stdout and stderr that the caller has closed: otherwise a socket would get its
 * number, and log lines with it. 0 or negative errno. */
BATON_NODISCARD int bt_open_standard_descriptors(void);

/* Points stdout and stderr at `path` (append, created 0644, parent directories made), or /dev/null for NULL.
 * Returns 0 or negative errno. */
BATON_NODISCARD int bt_redirect_output(const char *path);

#endif
