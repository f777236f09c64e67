/* cli/dry_run.h: what a reload of the running service would change, for `baton check`. */
#ifndef BT_CLI_DRY_RUN_H
#define BT_CLI_DRY_RUN_H

#include <proc/generation.h>
#include <stdio.h>

/* Compares `config`, and the `modules` as they are on disk now (one for each worker, same order; sha256 "" when there
 * is none), with what the master that holds the pid file runs with. Prints to `out`, nothing when no master runs.
 * Returns 0, or a negative errno with words in `why` when the master does not answer. */
BATON_NODISCARD int bt_dry_run(FILE *out, const bt_config *config, const bt_module_copy *modules, char *why,
                               size_t size);

#endif
