/* cli/print_status.h: the master's status (proc/control.h) as a table for people. */
#ifndef BT_CLI_PRINT_STATUS_H
#define BT_CLI_PRINT_STATUS_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/* `now_ms`: wall clock, for the age of processes. Missing members of `status` are shown as "-" or 0. */
void bt_print_status(FILE *out, const json_t *status, uint64_t now_ms);

#endif
