/* app/start_program.h: what a start program has described so far, for baton_run(). */
#ifndef BT_APP_START_PROGRAM_H
#define BT_APP_START_PROGRAM_H

#include <proc/worker.h>

/* The service described by baton_worker_new(), baton_set() and the like. Owned by the program, as the workers are: both
 * live until the process ends. *mistakes: lines about calls that were wrong, borrowed, NULL when there are none. */
bt_service *bt_start_program_service(const char **mistakes);

/* Appends lines about workers that listen and could not answer. Returns 0 or -EINVAL. */
BATON_NODISCARD int bt_start_program_check(char **errors);

#endif
