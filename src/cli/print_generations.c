/* cli/print_generations.c: lays the list of generations out as text.
 * Must not know how it was asked for. */
#include <cli/print_generations.h>

#include <cli/table.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#define SHORT_HASH 12

static const bt_table_column columns[] = {
    {"generation", .is_text = false},
    {"state", .is_text = true},
    {"made", .is_text = true},
    {"worker", .is_text = true},
    {"sha256", .is_text = true},
    {"build id", .is_text = true},
    {"reason", .is_text = true, .is_optional = true},
    {0},
};

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value && *value ? value : "-";
}

/* "2026-11-21T14:05:09", local time. */
static void format_time(char *out, size_t size, json_int_t ms)
{
    time_t seconds = (time_t) (ms / 1000);
    struct tm when;
    if (ms <= 0 || !localtime_r(&seconds, &when) || strftime(out, size, "%Y-%m-%dT%H:%M:%S", &when) == 0)
        snprintf(out, size, "-");
}

/* What clients are answered by: they have the mark. */
static bool is_current(const char *state)
{
    return strcmp(state, "serving") == 0 || strcmp(state, "probation") == 0;
}

static void add_worker(bt_table_row *cells, const json_t *worker)
{
    snprintf((*cells)[3], BT_TABLE_CELL, "%s", text(worker, "name"));
    snprintf((*cells)[4], BT_TABLE_CELL, "%.*s", SHORT_HASH, text(worker, "sha256"));
    snprintf((*cells)[5], BT_TABLE_CELL, "%s", text(worker, "build_id"));
}

static void add_generation(bt_table *table, const json_t *generation)
{
    const json_t *workers = json_object_get(generation, "workers");
    const char *state = text(generation, "state");
    const char *reason = json_string_value(json_object_get(generation, "reason"));
    bt_table_row *cells = bt_table_add(table);
    if (!cells)
        return;
    snprintf((*cells)[0], BT_TABLE_CELL, "%s%" JSON_INTEGER_FORMAT, is_current(state) ? "* " : "",
             json_integer_value(json_object_get(generation, "number")));
    snprintf((*cells)[1], BT_TABLE_CELL, "%s", state);
    format_time((*cells)[2], BT_TABLE_CELL, json_integer_value(json_object_get(generation, "created_at")));
    snprintf((*cells)[6], BT_TABLE_CELL, "%s", reason ? reason : "");

    size_t i;
    const json_t *worker;
    json_array_foreach(workers, i, worker)
    {
        if (i > 0)
            cells = bt_table_add(table);
        if (cells)
            add_worker(cells, worker);
    }
}

void bt_print_generations(FILE *out, const json_t *generations)
{
    bt_table table = {.columns = columns};
    size_t i;
    const json_t *generation;
    json_array_foreach(generations, i, generation)
    {
        add_generation(&table, generation);
    }
    bt_table_print(out, &table);
    bt_table_free(&table);
}
