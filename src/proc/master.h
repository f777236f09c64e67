/* proc/master.h: the parent process: owns listening sockets, forks, supervises, rolls.
 * It never loads or runs business code. */
#ifndef BT_PROC_MASTER_H
#define BT_PROC_MASTER_H

#include <proc/worker.h>

/* Runs the service in this process (after going to the background when config->master.daemonize) until it is
 * stopped. Says every error itself, on stderr and in the log. Returns the exit code: 0 after a
 * stop, 1 when it could not start (already running, address in use, first generation failed). In a worker process
 * it does not return. */
BATON_NODISCARD int bt_master_run(bt_service *service);

#endif
