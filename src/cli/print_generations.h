/* cli/print_generations.h: the generations of a service (proc/control.h) as a table for people. */
#ifndef BT_CLI_PRINT_GENERATIONS_H
#define BT_CLI_PRINT_GENERATIONS_H

#include <jansson.h>
#include <stdio.h>

/* One row for each worker of each generation. Missing members are shown as "-" or 0. */
void bt_print_generations(FILE *out, const json_t *generations);

#endif
