/* cli/table.c: columns for people.
 * Must not know what is in them. */
#include <cli/table.h>

#include <stdlib.h>
#include <string.h>

bt_table_row *bt_table_add(bt_table *table)
{
    if (table->count == table->size) {
        size_t size = table->size ? table->size * 2 : 32;
        bt_table_row *rows = realloc(table->rows, size * sizeof(*rows));
        if (!rows)
            return NULL;
        table->rows = rows;
        table->size = size;
    }
    memset(&table->rows[table->count], 0, sizeof(bt_table_row));
    return &table->rows[table->count++];
}

void bt_table_free(bt_table *table)
{
    free(table->rows);
    *table = (bt_table){.columns = table->columns};
}

/* 0: the column is left out. */
static int width_of(const bt_table *table, size_t column)
{
    size_t width = 0;
    for (size_t i = 0; i < table->count; i++) {
        size_t len = strlen(table->rows[i][column]);
        width = len > width ? len : width;
    }
    size_t title = strlen(table->columns[column].title);
    if (width == 0 && table->columns[column].is_optional)
        return 0;
    return (int) (width > title ? width : title);
}

/* `row`: NULL for the titles. No blanks at the end of the line. */
static void print_row(FILE *out, const bt_table *table, const int *widths, const bt_table_row *row)
{
    int gap = 0;
    for (size_t c = 0; table->columns[c].title; c++) {
        if (widths[c] == 0)
            continue;
        const char *cell = row ? (*row)[c] : table->columns[c].title;
        int len = (int) strlen(cell);
        if (!table->columns[c].is_text)
            gap += widths[c] - len;
        if (len > 0) {
            fprintf(out, "%*s%s", gap, "", cell);
            gap = 0;
        }
        if (table->columns[c].is_text)
            gap += widths[c] - len;
        gap += 2;
    }
    fputc('\n', out);
}

void bt_table_print(FILE *out, const bt_table *table)
{
    int widths[BT_TABLE_COLUMNS];
    for (size_t c = 0; table->columns[c].title; c++)
        widths[c] = width_of(table, c);
    print_row(out, table, widths, NULL);
    for (size_t i = 0; i < table->count; i++)
        print_row(out, table, widths, &table->rows[i]);
}
