/* cli/print_status.c: lays the master's status out as text.
 * Must not know how it was asked for. */
#include <cli/print_status.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 13
#define WIDEST  64

static const struct column {
    const char *title;
    bool is_text; /* left-aligned */
} columns[COLUMNS] = {
    {"worker", true},       {"slot", false},     {"pid", false},      {"gen", false}, {"state", true},
    {"connections", false}, {"requests", false}, {"in", false},       {"out", false}, {"memory", false},
    {"uptime", false},      {"restarts", false}, {"last exit", true},
};

typedef char row[COLUMNS][WIDEST];

typedef struct table {
    row *rows;
    size_t count;
    size_t size;
} table;

/* The summary row. */
typedef struct totals {
    json_int_t processes;
    json_int_t connections;
    json_int_t requests;
    json_int_t passed_in;
    json_int_t passed_out;
    json_int_t memory;
    json_int_t restarts;
} totals;

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : otherwise;
}

static row *add_row(table *t)
{
    if (t->count == t->size) {
        size_t size = t->size ? t->size * 2 : 32;
        row *rows = realloc(t->rows, size * sizeof(*rows));
        if (!rows)
            return NULL;
        t->rows = rows;
        t->size = size;
    }
    memset(&t->rows[t->count], 0, sizeof(row));
    return &t->rows[t->count++];
}

/* "3s", "4m10s", "5h02m", "12d3h": two units are enough for people. */
static void format_age(char *out, size_t size, json_int_t ms)
{
    int64_t s = ms > 0 ? (int64_t) ms / 1000 : 0;
    if (s < 60)
        snprintf(out, size, "%" PRId64 "s", s);
    else if (s < 3600)
        snprintf(out, size, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, size, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(out, size, "%" PRId64 "d%" PRId64 "h", s / 86400, s / 3600 % 24);
}

static void format_bytes(char *out, size_t size, json_int_t bytes)
{
    static const char units[] = "KMGT";
    double value = (double) bytes / 1024;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < sizeof(units) - 1) {
        value /= 1024;
        unit++;
    }
    snprintf(out, size, value < 10 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

static void put_number(char *cell, json_int_t value)
{
    snprintf(cell, WIDEST, "%" JSON_INTEGER_FORMAT, value);
}

static void add_process(table *t, totals *sum, const char *worker, const json_t *process, uint64_t now_ms)
{
    row *cells = add_row(t);
    if (!cells)
        return;
    json_int_t pid = number(process, "pid");
    json_int_t started = number(process, "started_at");
    json_int_t memory = number(process, "memory");

    snprintf((*cells)[0], WIDEST, "%s", worker);
    put_number((*cells)[1], number(process, "slot"));
    put_number((*cells)[3], number(process, "generation"));
    snprintf((*cells)[4], WIDEST, "%s", text(process, "state", "-"));
    put_number((*cells)[5], number(process, "connections"));
    put_number((*cells)[6], number(process, "requests"));
    put_number((*cells)[7], number(process, "passed_in"));
    put_number((*cells)[8], number(process, "passed_out"));
    put_number((*cells)[11], number(process, "restarts"));
    snprintf((*cells)[12], WIDEST, "%s", text(process, "last_exit", "-"));
    if (pid > 0) {
        put_number((*cells)[2], pid);
        format_bytes((*cells)[9], WIDEST, memory);
        format_age((*cells)[10], WIDEST, started > 0 ? (json_int_t) now_ms - started : 0);
    } else { /* waits for its next try */
        snprintf((*cells)[2], WIDEST, "-");
        snprintf((*cells)[9], WIDEST, "-");
        snprintf((*cells)[10], WIDEST, "-");
    }

    sum->processes += pid > 0;
    sum->connections += number(process, "connections");
    sum->requests += number(process, "requests");
    sum->passed_in += number(process, "passed_in");
    sum->passed_out += number(process, "passed_out");
    sum->memory += memory;
    sum->restarts += number(process, "restarts");
}

static void add_summary(table *t, const totals *sum)
{
    row *cells = add_row(t);
    if (!cells)
        return;
    snprintf((*cells)[0], WIDEST, "all");
    put_number((*cells)[2], sum->processes);
    snprintf((*cells)[4], WIDEST, sum->processes == 1 ? "process" : "processes");
    put_number((*cells)[5], sum->connections);
    put_number((*cells)[6], sum->requests);
    put_number((*cells)[7], sum->passed_in);
    put_number((*cells)[8], sum->passed_out);
    format_bytes((*cells)[9], WIDEST, sum->memory);
    put_number((*cells)[11], sum->restarts);
}

static void print_table(FILE *out, const table *t)
{
    int widths[COLUMNS] = {0};
    for (size_t i = 0; i < t->count; i++) {
        for (size_t c = 0; c < COLUMNS; c++) {
            int len = (int) strlen(t->rows[i][c]);
            widths[c] = len > widths[c] ? len : widths[c];
        }
    }
    for (size_t i = 0; i < t->count; i++) {
        for (size_t c = 0; c < COLUMNS; c++) {
            bool is_last = c + 1 == COLUMNS; /* wide enough for every word of an exit */
            int width = is_last ? 0 : columns[c].is_text ? -widths[c] : widths[c];
            fprintf(out, "%s%*s", c > 0 && !(is_last && !t->rows[i][c][0]) ? "  " : "", width, t->rows[i][c]);
        }
        fputc('\n', out);
    }
}

static void print_master(FILE *out, const json_t *status)
{
    char age[32];
    json_int_t reloads = number(status, "reloads");
    const json_t *last = json_object_get(status, "last_reload");
    format_age(age, sizeof(age), number(status, "uptime_ms"));
    fprintf(out, "baton %s, pid %" JSON_INTEGER_FORMAT ", %s%s, up %s, generation %" JSON_INTEGER_FORMAT,
            text(status, "version", "-"), number(status, "pid"), text(status, "state", "-"),
            json_is_true(json_object_get(status, "daemon")) ? ", daemon" : "", age, number(status, "generation"));
    fprintf(out, ", %" JSON_INTEGER_FORMAT " reload%s\n", reloads, reloads == 1 ? "" : "s");
    if (json_is_string(json_object_get(status, "config")))
        fprintf(out, "config: %s\n", text(status, "config", "-"));
    if (json_is_object(last))
        fprintf(out, "last reload: %s: %s (%" JSON_INTEGER_FORMAT " ms)\n",
                json_is_true(json_object_get(last, "ok")) ? "ok" : "failed", text(last, "message", "-"),
                number(last, "took_ms"));
}

/* "worker web: http://127.0.0.1:8080, 2 processes, generation 2; exits: exit 1 (3 times)" */
static void print_worker(FILE *out, const json_t *worker)
{
    json_int_t count = number(worker, "count");
    const json_t *reloadable = json_object_get(worker, "reloadable");
    fprintf(out, "worker %s: %s, %" JSON_INTEGER_FORMAT " process%s, generation %" JSON_INTEGER_FORMAT "%s",
            text(worker, "name", "-"), text(worker, "listen", "no listener"), count, count == 1 ? "" : "es",
            number(worker, "generation"), json_is_false(reloadable) ? ", not reloadable" : "");
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(worker, "exits"), i, item)
    {
        json_int_t times = number(item, "count");
        fprintf(out, "%s%s (%" JSON_INTEGER_FORMAT " time%s)", i == 0 ? "; exits: " : ", ", text(item, "reason", "-"),
                times, times == 1 ? "" : "s");
    }
    fputc('\n', out);
}

void bt_print_status(FILE *out, const json_t *status, uint64_t now_ms)
{
    table t = {0};
    totals sum = {0};
    row *titles = add_row(&t);
    for (size_t c = 0; titles && c < COLUMNS; c++)
        snprintf((*titles)[c], WIDEST, "%s", columns[c].title);

    print_master(out, status);
    size_t i;
    size_t j;
    const json_t *worker;
    const json_t *process;
    json_array_foreach(json_object_get(status, "workers"), i, worker)
    {
        print_worker(out, worker);
        json_array_foreach(json_object_get(worker, "processes"), j, process)
            add_process(&t, &sum, text(worker, "name", "-"), process, now_ms);
    }
    add_summary(&t, &sum);
    fputc('\n', out);
    print_table(out, &t);
    free(t.rows);
}
