/* cli/table.h: rows of text laid out in columns as wide as they have to be.
 * Knows nothing of what is in them. */
#ifndef BT_CLI_TABLE_H
#define BT_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define BT_TABLE_COLUMNS 16
#define BT_TABLE_CELL    512

typedef char bt_table_row[BT_TABLE_COLUMNS][BT_TABLE_CELL];

typedef struct bt_table_column {
    const char *title;
    bool is_text;     /* left-aligned */
    bool is_optional; /* left out when no row has anything in it */
} bt_table_column;

typedef struct bt_table {
    const bt_table_column *columns; /* ended by title NULL; borrowed */
    bt_table_row *rows;
    size_t count;
    size_t size;
} bt_table;

/* A new row with empty cells: valid until the next one is added. NULL when out of memory. */
bt_table_row *bt_table_add(bt_table *table);

/* Titles and rows. */
void bt_table_print(FILE *out, const bt_table *table);
void bt_table_free(bt_table *table);

#endif
