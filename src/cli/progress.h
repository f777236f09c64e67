/* cli/progress.h: shows the steps of a reload or stop as they happen: one line per slot redrawn in place on a
 * terminal, one line per step elsewhere. */
#ifndef BT_CLI_PROGRESS_H
#define BT_CLI_PROGRESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#define BT_PROGRESS_ROWS 64

typedef struct bt_progress_row {
    char worker[64];
    int slot;
} bt_progress_row;

typedef struct bt_progress {
    FILE *out;
    bool redraws;
    size_t most_rows; /* what the terminal can show at once */
    int columns;
    bt_progress_row rows[BT_PROGRESS_ROWS]; /* top to bottom; the cursor stands below the last */
    size_t count;
} bt_progress;

void bt_progress_init(bt_progress *progress, FILE *out);

/* One line of the control protocol with "event":"progress"; `progress` is a bt_progress (for bt_client_ask). */
void bt_progress_show(const json_t *event, void *progress);

#endif
