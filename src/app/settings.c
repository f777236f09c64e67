/* app/settings.c: the tables of all settings and the setting of one value from its text.
 * Must not know where the text comes from: a file, a start program or a default. */
#include <app/settings.h>

#include <app/suggest.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DAY_MS   (24 * 3600 * 1000LL)
#define KIBIBYTE 1024LL
#define MEBIBYTE (1024 * 1024LL)
#define GIBIBYTE (1024 * 1024 * 1024LL)

/* clang-format off */
#define MASTER(field) offsetof(bt_master_config, field)
const bt_setting bt_master_settings[] = {
    {"pid_file", BT_SETTING_PATH, MASTER(pid_file), "run/baton.pid", 0, 0, NULL,
     "File with the master's process id; its lock keeps a second master away. The control socket lies beside it: baton.pid, baton.sock.", true},
    {"run_dir", BT_SETTING_PATH, MASTER(run_dir), "run", 0, 0, NULL,
     "Directory for what a running service needs, such as the private copies of the modules.", true},
    {"log_file", BT_SETTING_PATH, MASTER(log_file), NULL, 0, 0, NULL,
     "Where log lines are appended; when not set they go to standard error."},
    {"log_level", BT_SETTING_STRING, MASTER(log_level), "info", 0, 0, "debug|info|warn|error",
     "The least important log lines that are written."},
    {"stdout_file", BT_SETTING_PATH, MASTER(stdout_file), NULL, 0, 0, NULL,
     "Where standard output and standard error are appended; when not set they are the terminal's, or /dev/null of a daemon.", true},
    {"daemonize", BT_SETTING_BOOL, MASTER(daemonize), "no", 0, 0, NULL,
     "Go to the background after the start, as `start -d` does.", true},
    {"stop_timeout", BT_SETTING_TIME, MASTER(stop_timeout_ms), "2s", 0, DAY_MS, NULL,
     "How long processes may finish requests after `stop`; with `stop -g` each worker's drain_timeout counts instead."},
    {"kill_timeout", BT_SETTING_TIME, MASTER(kill_timeout_ms), "5s", 1, DAY_MS, NULL,
     "How long a process whose time is up may still take to end before it is killed with SIGKILL."},
    {"on_master_exit", BT_SETTING_CHOICE, MASTER(on_master_exit), "stop", 0, 0, "stop|serve",
     "What processes do when the master has died: stop frees the port at once and finishes what is being served, serve goes on until SIGTERM."},
    {"keep_generations", BT_SETTING_INT, MASTER(keep_generations), "3", 1, 100, NULL,
     "Earlier generations that have proved themselves and stay on disk for `rollback`."},
    {0},
};

#define WORKER(field) offsetof(bt_worker_config, field)
const bt_setting bt_worker_settings[] = {
    {"listen", BT_SETTING_LISTEN, WORKER(listen), NULL, 0, 0, NULL,
     "Address to serve, such as http://127.0.0.1:8080, http://[::1]:8080, http://*:8080 (IPv4 and IPv6), text://0.0.0.0:9000 or http+unix://run/web.sock; when not set the worker is a task process without clients."},
    {"count", BT_SETTING_INT, WORKER(count), "1", 1, 1024, NULL,
     "Number of processes that serve at the same time."},
    {"module", BT_SETTING_PATH, WORKER(module), NULL, 0, 0, NULL,
     "Shared object with the worker's code; loaded by each process from a private copy that every reload renews."},
    {"module_files", BT_SETTING_PATHS, WORKER(module_files), NULL, 0, 0, NULL,
     "More files that belong to a generation and are copied beside the module, separated by blanks."},
    {"user", BT_SETTING_STRING, WORKER(user), NULL, 0, 0, NULL,
     "User the processes run as, with all groups of that user; needs a master started by root."},
    {"group", BT_SETTING_STRING, WORKER(group), NULL, 0, 0, NULL,
     "Group the processes run as instead of the user's own; needs user."},
    {"reuse_port", BT_SETTING_BOOL, WORKER(reuse_port), "no", 0, 0, NULL,
     "Give each process a listening socket of its own, among which the kernel spreads new connections."},
    {"reloadable", BT_SETTING_BOOL, WORKER(reloadable), "yes", 0, 0, NULL,
     "Whether a reload of everything replaces this worker's processes; if not they only get on_worker_reload."},
    {"backlog", BT_SETTING_INT, WORKER(backlog), "102400", 1, 1048576, NULL,
     "Connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn."},
    {"strategy", BT_SETTING_CHOICE, WORKER(strategy), "ready-first", 0, 0, "ready-first|stop-first",
     "Order of a replacement: ready-first lets the new process take over from the old one, stop-first ends the old one first."},
    {"ready_timeout", BT_SETTING_TIME, WORKER(ready_timeout_ms), "10s", 1, DAY_MS, NULL,
     "How long a new process may take to be ready; after that the reload, or the start, has failed."},
    {"drain_timeout", BT_SETTING_TIME, WORKER(drain_timeout_ms), "30s", 0, DAY_MS, NULL,
     "How long a replaced process may finish what cannot be passed to its successor."},
    {"probation", BT_SETTING_TIME, WORKER(probation_ms), "5s", 0, DAY_MS, NULL,
     "How long after a reload a crash of a new process brings the previous code back."},
    {"max_draining", BT_SETTING_INT, WORKER(max_draining), "4", 1, 1024, NULL,
     "Replaced processes of one slot that may still be finishing; beyond that the oldest is ended."},
    {"max_package", BT_SETTING_SIZE, WORKER(max_package), "10m", 1, GIBIBYTE, NULL,
     "Longest message or request body accepted; HTTP answers 413 to a longer one."},
    {"max_send_buffer", BT_SETTING_SIZE, WORKER(max_send_buffer), "1m", 1, GIBIBYTE, NULL,
     "Unsent bytes a connection may collect for a slow reader before messages are dropped."},
    {"max_head", BT_SETTING_SIZE, WORKER(max_head), "16k", KIBIBYTE, MEBIBYTE, NULL,
     "Longest HTTP request head, request line and all header fields; a longer one is answered 431."},
    {"max_target", BT_SETTING_SIZE, WORKER(max_target), "8k", 256, MEBIBYTE, NULL,
     "Longest HTTP request target, at most max_head; a longer one is answered 414."},
    {"max_headers", BT_SETTING_INT, WORKER(max_headers), "128", 1, 1024, NULL,
     "Most header fields of an HTTP request; more are answered 431."},
    {"header_timeout", BT_SETTING_TIME, WORKER(header_timeout_ms), "60s", 0, DAY_MS, NULL,
     "How long a client may take to send a whole request head; 0 waits without limit."},
    {"idle_timeout", BT_SETTING_TIME, WORKER(idle_timeout_ms), "75s", 0, DAY_MS, NULL,
     "How long a connection may be idle before it is closed; 0 keeps it without limit."},
    {"linger_timeout", BT_SETTING_TIME, WORKER(linger_timeout_ms), "5s", 1, DAY_MS, NULL,
     "How long a connection being closed still reads what the client sends, so that it can read the last answer."},
    {"keepalive_requests", BT_SETTING_INT, WORKER(keepalive_requests), "0", 0, 1000000000, NULL,
     "Requests after which a keep-alive connection is closed; 0 sets no limit."},
    {"probe", BT_SETTING_STRING, WORKER(probe), NULL, 0, 0, NULL,
     "Path, such as /health, that a new process of an http worker must answer with a status below 500, within ready_timeout, before it takes traffic."},
    {"max_requests", BT_SETTING_INT, WORKER(max_requests), "0", 0, 1000000000, NULL,
     "Requests or messages after which a process is replaced by a fresh one, which takes its connections over; 0 never."},
    {"max_memory", BT_SETTING_SIZE, WORKER(max_memory), "0", 0, 1024 * GIBIBYTE, NULL,
     "Resident memory at which a process is replaced by a fresh one, which takes its connections over; 0 never."},
    {"stuck_timeout", BT_SETTING_TIME, WORKER(stuck_timeout_ms), "0", 0, DAY_MS, NULL,
     "How long the loop of a process may stand still before the process is killed and replaced; 0 never, so that a debugger can be used."},
    {0},
};
/* clang-format on */

/* Other people's text in our messages: bounded, and one line whatever it holds. */
static const char *show(const char *value, char out[64])
{
    size_t i = 0;
    for (; value[i] && i < 56; i++)
        out[i] = (unsigned char) value[i] < 0x20 || value[i] == 0x7f ? '?' : value[i];
    memcpy(out + i, value[i] ? "..." : "", value[i] ? 4 : 1);
    return out;
}

/* Whole decimal digits and a rest; false when there is no digit or the number is beyond reason. */
static bool read_digits(const char *text, int64_t *number, const char **rest)
{
    const char *at = text;
    int64_t sum = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (sum > (INT64_MAX - 9) / 10)
            return false;
        sum = sum * 10 + (*at - '0');
    }
    *number = sum;
    *rest = at;
    return at > text;
}

typedef struct unit {
    const char *suffix;
    int64_t factor;
} unit;

static const unit no_units[] = {{"", 1}, {NULL, 0}};
static const unit time_units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
static const unit size_units[] = {{"", 1}, {"k", KIBIBYTE}, {"m", MEBIBYTE}, {"g", GIBIBYTE}, {NULL, 0}};

static bool read_number(const char *text, const unit *units, int64_t *out)
{
    int64_t number;
    const char *rest;
    if (!read_digits(text, &number, &rest))
        return false;
    for (const unit *u = units; u->suffix; u++) {
        if (strcasecmp(rest, u->suffix) == 0)
            return !__builtin_mul_overflow(number, u->factor, out);
    }
    return false;
}

static void format_time(char *out, size_t size, int64_t ms)
{
    if (ms == 0)
        snprintf(out, size, "0");
    else if (ms % 3600000 == 0)
        snprintf(out, size, "%lldh", (long long) ms / 3600000);
    else if (ms % 60000 == 0)
        snprintf(out, size, "%lldm", (long long) ms / 60000);
    else if (ms % 1000 == 0)
        snprintf(out, size, "%llds", (long long) ms / 1000);
    else
        snprintf(out, size, "%lldms", (long long) ms);
}

static void format_size(char *out, size_t size, int64_t bytes)
{
    if (bytes >= GIBIBYTE && bytes % GIBIBYTE == 0)
        snprintf(out, size, "%lldg", (long long) (bytes / GIBIBYTE));
    else if (bytes >= MEBIBYTE && bytes % MEBIBYTE == 0)
        snprintf(out, size, "%lldm", (long long) (bytes / MEBIBYTE));
    else if (bytes >= KIBIBYTE && bytes % KIBIBYTE == 0)
        snprintf(out, size, "%lldk", (long long) (bytes / KIBIBYTE));
    else
        snprintf(out, size, "%lld", (long long) bytes);
}

static void list_choices(const char *choices, char *out, size_t size)
{
    size_t len = 0;
    for (const char *at = choices ? choices : ""; *at && len + 3 < size; at++) {
        if (*at == '|')
            out[len++] = ',';
        out[len++] = *at == '|' ? ' ' : *at;
    }
    out[len] = '\0';
}

/* "1 to 1024", "1ms to 24h", "1k to 1m", "a or b": what the file and its documentation call the range. */
void bt_setting_range(const bt_setting *setting, char *out, size_t size)
{
    char low[32];
    char high[32];
    if (setting->type == BT_SETTING_TIME) {
        format_time(low, sizeof(low), setting->min);
        format_time(high, sizeof(high), setting->max);
    } else if (setting->type == BT_SETTING_SIZE) {
        format_size(low, sizeof(low), setting->min);
        format_size(high, sizeof(high), setting->max);
    } else if (setting->type == BT_SETTING_INT) {
        snprintf(low, sizeof(low), "%lld", (long long) setting->min);
        snprintf(high, sizeof(high), "%lld", (long long) setting->max);
    } else {
        list_choices(setting->choices, out, size);
        return;
    }
    snprintf(out, size, "%s to %s", low, high);
}

static void format_choice(const bt_setting *setting, int index, char out[BT_SETTING_TEXT])
{
    const char *at = setting->choices;
    for (; index > 0 && *at; at++)
        index -= *at == '|';
    snprintf(out, BT_SETTING_TEXT, "%.*s", (int) strcspn(at, "|"), at);
}

const char *bt_setting_text(const bt_setting *setting, const void *base, char out[BT_SETTING_TEXT])
{
    const void *field = (const char *) base + setting->offset;
    const char *const *string = field;
    const bool *is_on = field;
    const int64_t *number = field;
    const int *index = field;
    switch (setting->type) {
    case BT_SETTING_STRING:
    case BT_SETTING_PATH:
    case BT_SETTING_PATHS:
    case BT_SETTING_LISTEN:
        return *string ? *string : "not set";
    case BT_SETTING_BOOL:
        snprintf(out, BT_SETTING_TEXT, "%s", *is_on ? "yes" : "no");
        break;
    case BT_SETTING_INT:
        snprintf(out, BT_SETTING_TEXT, "%lld", (long long) *number);
        break;
    case BT_SETTING_TIME:
        format_time(out, BT_SETTING_TEXT, *number);
        break;
    case BT_SETTING_SIZE:
        format_size(out, BT_SETTING_TEXT, *number);
        break;
    case BT_SETTING_CHOICE:
        format_choice(setting, *index, out);
        break;
    }
    return out;
}

static int set_number(const bt_setting *setting, void *field, const char *value, char *why, size_t size)
{
    const unit *units = setting->type == BT_SETTING_TIME   ? time_units
                        : setting->type == BT_SETTING_SIZE ? size_units
                                                           : no_units;
    int64_t number;
    if (read_number(value, units, &number) && number >= setting->min && number <= setting->max) {
        memcpy(field, &number, sizeof(number));
        return 0;
    }
    char shown[64];
    char range[80];
    bt_setting_range(setting, range, sizeof(range));
    const char *noun = setting->type == BT_SETTING_TIME   ? "a time (such as 500ms, 10s, 2m)"
                       : setting->type == BT_SETTING_SIZE ? "a size (such as 512, 16k, 10m)"
                                                          : "a number";
    snprintf(why, size, "\"%s\" is not %s from %s", show(value, shown), noun, range);
    return -EINVAL;
}

static int set_bool(bool *field, const char *value, char *why, size_t size)
{
    static const char *const words[] = {"no", "yes", "off", "on", "false", "true", "0", "1"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(value, words[i]) == 0) {
            *field = i % 2 == 1;
            return 0;
        }
    }
    char shown[64];
    snprintf(why, size, "\"%s\" is neither yes nor no", show(value, shown));
    return -EINVAL;
}

/* Index of the word among "a|b|c", or -EINVAL. */
static int find_choice(const bt_setting *setting, const char *value, char *why, size_t size)
{
    size_t len = strlen(value);
    int index = 0;
    for (const char *at = setting->choices; at; index++) {
        const char *end = strchrnul(at, '|');
        if ((size_t) (end - at) == len && memcmp(at, value, len) == 0)
            return index;
        at = *end ? end + 1 : NULL;
    }
    char shown[64];
    char words[80];
    bt_setting_range(setting, words, sizeof(words));
    snprintf(why, size, "\"%s\" is not one of: %s", show(value, shown), words);
    return -EINVAL;
}

static int replace_string(char **field, char *value, char *why, size_t size)
{
    if (!value) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    free(*field);
    *field = value;
    return 0;
}

static char *join_all(const char *dir, const char *paths)
{
    char *copy = strdup(paths);
    char *all = NULL;
    if (!copy)
        return NULL;
    char *position;
    for (char *path = strtok_r(copy, " \t", &position); path; path = strtok_r(NULL, " \t", &position)) {
        char *whole = bt_path_join(dir, path);
        char *longer = NULL;
        if (!whole || asprintf(&longer, "%s%s%s", all ? all : "", all ? " " : "", whole) < 0)
            longer = NULL;
        free(whole);
        free(all);
        all = longer;
        if (!all)
            break;
    }
    free(copy);
    return all;
}

/* A Unix socket's relative path starts at base_dir like every other path. */
static int set_listen(const bt_config *config, bt_worker_config *worker, const char *value, char *why, size_t size)
{
    bt_listen_address address;
    char reason[160];
    char shown[64];
    if (bt_listen_address_parse(value, &address, reason, sizeof(reason)) < 0) {
        snprintf(why, size, "\"%s\": %s", show(value, shown), reason);
        return -EINVAL;
    }
    if (address.is_unix && address.path[0] != '/') {
        char *path = bt_path_join(config->base_dir, address.path);
        size_t len = path ? strlen(path) : 0;
        if (path && len < sizeof(address.path))
            memcpy(address.path, path, len + 1);
        free(path);
        if (len == 0 || len >= sizeof(address.path)) {
            snprintf(why, size, "\"%s\": path too long", show(value, shown));
            return -EINVAL;
        }
    }
    int error = replace_string(&worker->listen, strdup(value), why, size);
    if (error == 0)
        worker->address = address;
    return error;
}

static int set_value(const bt_config *config, const bt_setting *setting, void *base, const char *value, char *why,
                     size_t size)
{
    void *field = (char *) base + setting->offset;
    if (!value[strspn(value, " \t")]) {
        snprintf(why, size, "no value");
        return -EINVAL;
    }
    switch (setting->type) {
    case BT_SETTING_STRING:
        if (setting->choices && find_choice(setting, value, why, size) < 0)
            return -EINVAL;
        return replace_string(field, strdup(value), why, size);
    case BT_SETTING_PATH:
        return replace_string(field, bt_path_join(config->base_dir, value), why, size);
    case BT_SETTING_PATHS:
        return replace_string(field, join_all(config->base_dir, value), why, size);
    case BT_SETTING_BOOL:
        return set_bool(field, value, why, size);
    case BT_SETTING_INT:
    case BT_SETTING_TIME:
    case BT_SETTING_SIZE:
        return set_number(setting, field, value, why, size);
    case BT_SETTING_CHOICE: {
        int index = find_choice(setting, value, why, size);
        if (index < 0)
            return -EINVAL;
        memcpy(field, &index, sizeof(index));
        return 0;
    }
    case BT_SETTING_LISTEN:
        return set_listen(config, base, value, why, size);
    }
    return -EINVAL;
}

const bt_setting *bt_setting_find(const bt_setting *table, const char *name)
{
    for (const bt_setting *setting = table; setting->name; setting++) {
        if (strcmp(setting->name, name) == 0)
            return setting;
    }
    return NULL;
}

static int say_unknown(const bt_setting *table, const bt_setting *other, const char *other_section, const char *name,
                       char *why, size_t size)
{
    char shown[64];
    if (bt_setting_find(other, name)) {
        snprintf(why, size, "%s: belongs into section %s", name, other_section);
        return -EINVAL;
    }
    bt_suggestion near = {0};
    for (const bt_setting *setting = table; setting->name; setting++)
        bt_suggest(&near, name, setting->name);
    if (near.word)
        snprintf(why, size, "%s: unknown setting (did you mean \"%s\"?)", show(name, shown), near.word);
    else
        snprintf(why, size, "%s: unknown setting", show(name, shown));
    return -EINVAL;
}

static int set_by_name(const bt_config *config, const bt_setting *setting, void *base, const char *value, char *why,
                       size_t size)
{
    char reason[256];
    int error = set_value(config, setting, base, value, reason, sizeof(reason));
    if (error < 0)
        snprintf(why, size, "%s: %s", setting->name, reason);
    return error;
}

int bt_config_set_master(bt_config *config, const char *name, const char *value, char *why, size_t size)
{
    const bt_setting *setting = bt_setting_find(bt_master_settings, name);
    if (!setting)
        return say_unknown(bt_master_settings, bt_worker_settings, "[worker NAME]", name, why, size);
    return set_by_name(config, setting, &config->master, value, why, size);
}

int bt_config_set_worker(bt_config *config, bt_worker_config *worker, const char *name, const char *value, char *why,
                         size_t size)
{
    const bt_setting *setting = bt_setting_find(bt_worker_settings, name);
    if (!setting)
        return say_unknown(bt_worker_settings, bt_master_settings, "[baton]", name, why, size);
    return set_by_name(config, setting, worker, value, why, size);
}
