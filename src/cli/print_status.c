/* cli/print_status.c: lays the master's status out as text.
 * Must not know how it was asked for. */
#include <cli/print_status.h>

#include <cli/table.h>
#include <inttypes.h>
#include <stdbool.h>

enum {
    WORKER,
    SLOT,
    PID,
    GENERATION,
    STATE,
    CONNECTIONS,
    REQUESTS,
    PASSED_IN,
    PASSED_OUT,
    MEMORY,
    UPTIME,
    RESTARTS,
    LAST_EXIT,
    REMARKS,
};

static const bt_table_column columns[] = {
    [WORKER] = {"worker", .is_text = true},
    [SLOT] = {"slot"},
    [PID] = {"pid"},
    [GENERATION] = {"gen"},
    [STATE] = {"state", .is_text = true},
    [CONNECTIONS] = {"connections"},
    [REQUESTS] = {"requests"},
    [PASSED_IN] = {"in"},
    [PASSED_OUT] = {"out"},
    [MEMORY] = {"memory"},
    [UPTIME] = {"uptime"},
    [RESTARTS] = {"restarts"},
    [LAST_EXIT] = {"last exit", .is_text = true},
    [REMARKS] = {"remarks", .is_text = true, .is_optional = true},
    [REMARKS + 1] = {0},
};

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

static void put_text(char *cell, const char *value)
{
    snprintf(cell, BT_TABLE_CELL, "%s", value);
}

static void put_number(char *cell, json_int_t value)
{
    snprintf(cell, BT_TABLE_CELL, "%" JSON_INTEGER_FORMAT, value);
}

/* "2 app state, 1 mid-response"; returns the sum of the numbers. */
static json_int_t describe_stays(const json_t *stays, char *out, size_t size)
{
    json_int_t sum = 0;
    size_t used = 0;
    const char *reason;
    const json_t *count;
    out[0] = '\0';
    json_object_foreach((json_t *) (uintptr_t) stays, reason, count)
    {
        json_int_t many = json_integer_value(count);
        if (many <= 0)
            continue;
        sum += many;
        if (used < size)
            used += (size_t) snprintf(out + used, size - used, "%s%" JSON_INTEGER_FORMAT " %s", used ? ", " : "", many,
                                      reason);
    }
    return sum;
}

/* "stuck 12 s, holds 3: 2 app state, 1 mid-response" */
static void describe_trouble(const json_t *process, char *out)
{
    char stays[BT_TABLE_CELL / 2];
    char stuck[40] = "";
    const json_t *stuck_ms = json_object_get(process, "stuck_ms");
    json_int_t held = describe_stays(json_object_get(process, "stays"), stays, sizeof(stays));
    if (json_is_integer(stuck_ms))
        snprintf(stuck, sizeof(stuck), "stuck %" JSON_INTEGER_FORMAT " s", json_integer_value(stuck_ms) / 1000);
    if (held > 0)
        snprintf(out, BT_TABLE_CELL, "%s%sholds %" JSON_INTEGER_FORMAT ": %s", stuck, *stuck ? ", " : "", held, stays);
    else
        snprintf(out, BT_TABLE_CELL, "%s", stuck);
}

static void add_process(bt_table *table, totals *sum, const char *worker, const json_t *process, uint64_t now_ms)
{
    bt_table_row *cells = bt_table_add(table);
    if (!cells)
        return;
    json_int_t pid = number(process, "pid");
    json_int_t started = number(process, "started_at");
    json_int_t memory = number(process, "memory");

    put_text((*cells)[WORKER], worker);
    put_number((*cells)[SLOT], number(process, "slot"));
    put_number((*cells)[GENERATION], number(process, "generation"));
    put_text((*cells)[STATE], text(process, "state", "-"));
    put_number((*cells)[CONNECTIONS], number(process, "connections"));
    put_number((*cells)[REQUESTS], number(process, "requests"));
    put_number((*cells)[PASSED_IN], number(process, "passed_in"));
    put_number((*cells)[PASSED_OUT], number(process, "passed_out"));
    put_number((*cells)[RESTARTS], number(process, "restarts"));
    put_text((*cells)[LAST_EXIT], text(process, "last_exit", "-"));
    describe_trouble(process, (*cells)[REMARKS]);
    if (pid > 0) {
        put_number((*cells)[PID], pid);
        format_bytes((*cells)[MEMORY], BT_TABLE_CELL, memory);
        format_age((*cells)[UPTIME], BT_TABLE_CELL, started > 0 ? (json_int_t) now_ms - started : 0);
    } else { /* waits for its next try */
        put_text((*cells)[PID], "-");
        put_text((*cells)[MEMORY], "-");
        put_text((*cells)[UPTIME], "-");
    }

    sum->processes += pid > 0;
    sum->connections += number(process, "connections");
    sum->requests += number(process, "requests");
    sum->passed_in += number(process, "passed_in");
    sum->passed_out += number(process, "passed_out");
    sum->memory += memory;
    sum->restarts += number(process, "restarts");
}

static void add_summary(bt_table *table, const totals *sum)
{
    bt_table_row *cells = bt_table_add(table);
    if (!cells)
        return;
    put_text((*cells)[WORKER], "all");
    put_number((*cells)[PID], sum->processes);
    put_text((*cells)[STATE], sum->processes == 1 ? "process" : "processes");
    put_number((*cells)[CONNECTIONS], sum->connections);
    put_number((*cells)[REQUESTS], sum->requests);
    put_number((*cells)[PASSED_IN], sum->passed_in);
    put_number((*cells)[PASSED_OUT], sum->passed_out);
    format_bytes((*cells)[MEMORY], BT_TABLE_CELL, sum->memory);
    put_number((*cells)[RESTARTS], sum->restarts);
}

/* Above everything else: somebody has to do something about them. */
static void print_alarms(FILE *out, const json_t *status)
{
    size_t i;
    size_t j;
    const json_t *worker;
    const json_t *alarm;
    json_array_foreach(json_object_get(status, "workers"), i, worker)
    {
        json_array_foreach(json_object_get(worker, "alarms"), j, alarm)
        {
            if (json_is_string(alarm))
                fprintf(out, "ALARM worker %s: %s\n", text(worker, "name", "-"), json_string_value(alarm));
        }
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
    char stayed[256];
    if (describe_stays(json_object_get(worker, "stayed"), stayed, sizeof(stayed)) > 0)
        fprintf(out, "; not passed so far: %s", stayed);
    fputc('\n', out);
}

void bt_print_status(FILE *out, const json_t *status, uint64_t now_ms)
{
    bt_table table = {.columns = columns};
    totals sum = {0};
    print_alarms(out, status);
    print_master(out, status);
    size_t i;
    size_t j;
    const json_t *worker;
    const json_t *process;
    json_array_foreach(json_object_get(status, "workers"), i, worker)
    {
        print_worker(out, worker);
        json_array_foreach(json_object_get(worker, "processes"), j, process)
            add_process(&table, &sum, text(worker, "name", "-"), process, now_ms);
    }
    add_summary(&table, &sum);
    fputc('\n', out);
    bt_table_print(out, &table);
    bt_table_free(&table);
}
