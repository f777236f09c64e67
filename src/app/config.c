/* app/config.c: making, freeing and checking a whole configuration.
 * Must not know how the values are written in a file. */
#include <app/settings.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL_MEMORY   (4U << 20) /* an idle process takes about this much */
#define SHORT_STUCK_MS 1000

char *bt_path_join(const char *dir, const char *path)
{
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
        while (*path == '/')
            path++;
    }
    if (path[0] == '/' || !dir)
        return strdup(path);
    size_t dir_len = strlen(dir);
    const char *between = dir_len > 0 && dir[dir_len - 1] == '/' ? "" : "/";
    char *whole;
    return asprintf(&whole, "%s%s%s", dir, between, path) < 0 ? NULL : whole;
}

void bt_add_line(char **list, const char *format, ...)
{
    va_list args;
    char *line;
    va_start(args, format);
    int len = vasprintf(&line, format, args);
    va_end(args);
    if (len < 0)
        return;

    size_t old = *list ? strlen(*list) : 0;
    char *longer = realloc(*list, old + (size_t) len + 2);
    if (longer) {
        memcpy(longer + old, line, (size_t) len);
        memcpy(longer + old + len, "\n", 2);
        *list = longer;
    }
    free(line);
}

void bt_add_lines_take(char **list, const char *where, const char *kind, char *lines)
{
    char *position;
    for (char *line = lines ? strtok_r(lines, "\n", &position) : NULL; line; line = strtok_r(NULL, "\n", &position))
        bt_add_line(list, "%s: %s%s", where, kind, line);
    free(lines);
}

static bool is_owned_string(const bt_setting *setting)
{
    switch (setting->type) {
    case BT_SETTING_STRING:
    case BT_SETTING_PATH:
    case BT_SETTING_PATHS:
    case BT_SETTING_LISTEN:
        return true;
    case BT_SETTING_BOOL:
    case BT_SETTING_INT:
    case BT_SETTING_TIME:
    case BT_SETTING_SIZE:
    case BT_SETTING_CHOICE:
        return false;
    }
    return false;
}

static void free_strings(const bt_setting *table, void *base)
{
    for (const bt_setting *setting = table; setting->name; setting++) {
        char **field = (void *) ((char *) base + setting->offset);
        if (is_owned_string(setting))
            free(*field);
    }
}

static void free_worker(bt_worker_config *worker)
{
    free_strings(bt_worker_settings, worker);
    free(worker->name);
    free(worker);
}

void bt_config_free(bt_config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->worker_count; i++)
        free_worker(config->workers[i]);
    free(config->workers);
    free_strings(bt_master_settings, &config->master);
    free(config->base_dir);
    free(config->file);
    free(config->text);
    free(config);
}

/* A default can only fail for lack of memory: the table's own values are tested. */
static int apply_master_defaults(bt_config *config)
{
    char why[256];
    for (const bt_setting *setting = bt_master_settings; setting->name; setting++) {
        if (setting->fallback && bt_config_set_master(config, setting->name, setting->fallback, why, sizeof(why)) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int apply_worker_defaults(bt_config *config, bt_worker_config *worker)
{
    char why[256];
    for (const bt_setting *setting = bt_worker_settings; setting->name; setting++) {
        if (setting->fallback &&
            bt_config_set_worker(config, worker, setting->name, setting->fallback, why, sizeof(why)) < 0)
            return -ENOMEM;
    }
    return 0;
}

bt_config *bt_config_new(const char *base_dir)
{
    bt_config *config = calloc(1, sizeof(*config));
    if (!config)
        return NULL;
    config->base_dir = strdup(base_dir);
    if (!config->base_dir || apply_master_defaults(config) < 0) {
        bt_config_free(config);
        return NULL;
    }
    return config;
}

bt_worker_config *bt_config_add_worker(bt_config *config, const char *name)
{
    size_t bytes = (config->worker_count + 1) * sizeof(*config->workers);
    bt_worker_config **workers = realloc(config->workers, bytes);
    if (!workers)
        return NULL;
    config->workers = workers;

    bt_worker_config *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return NULL;
    worker->name = strdup(name);
    if (!worker->name || apply_worker_defaults(config, worker) < 0) {
        free_worker(worker);
        return NULL;
    }
    workers[config->worker_count++] = worker;
    return worker;
}

bt_worker_config *bt_config_find_worker(const bt_config *config, const char *name)
{
    for (size_t i = 0; i < config->worker_count; i++) {
        if (strcmp(config->workers[i]->name, name) == 0)
            return config->workers[i];
    }
    return NULL;
}

int bt_worker_name_check(const char *name, char *why, size_t size)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(name);
    if (len == 0) {
        snprintf(why, size, "name: empty");
        return -EINVAL;
    }
    if (len > 63) {
        snprintf(why, size, "name: %zu bytes long, at most 63 are allowed", len);
        return -EINVAL;
    }
    if (strspn(name, allowed) != len || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        snprintf(why, size, "name: only letters, digits, '.', '_' and '-' are allowed, and not \".\" or \"..\"");
        return -EINVAL;
    }
    return 0;
}

/* ---- what only holds between settings ---- */

typedef struct check {
    const bt_config *config;
    const bt_worker_config *worker;
    char **errors;
    char **warnings;
    bool failed;
} check;

#define FAIL(check, format, ...)                                                                                       \
    do {                                                                                                               \
        bt_add_line((check)->errors, "worker %s: " format, (check)->worker->name, __VA_ARGS__);                        \
        (check)->failed = true;                                                                                        \
    } while (0)
#define WARN(check, ...) bt_add_line((check)->warnings, "worker %s: %s", (check)->worker->name, __VA_ARGS__)

static void check_name(check *c, size_t index)
{
    char why[160];
    if (bt_worker_name_check(c->worker->name, why, sizeof(why)) < 0)
        FAIL(c, "%s", why);
    for (size_t i = 0; i < index; i++) {
        if (strcmp(c->config->workers[i]->name, c->worker->name) == 0) {
            FAIL(c, "%s", "name: used by two workers");
            return;
        }
    }
}

static bool same_address(const bt_listen_address *a, const bt_listen_address *b)
{
    if (a->is_unix != b->is_unix)
        return false;
    if (a->is_unix)
        return strcmp(a->path, b->path) == 0;
    return a->port != 0 && a->port == b->port && strcmp(a->host, b->host) == 0;
}

static void check_listen(check *c, size_t index, bool (*protocol_exists)(const char *scheme))
{
    const bt_worker_config *worker = c->worker;
    if (!worker->listen)
        return;
    if (!protocol_exists(worker->address.scheme))
        FAIL(c, "listen: \"%s\": unknown protocol \"%s\"", worker->listen, worker->address.scheme);
    for (size_t i = 0; i < index; i++) {
        const bt_worker_config *other = c->config->workers[i];
        if (other->listen && same_address(&worker->address, &other->address))
            FAIL(c, "listen: \"%s\": worker %s listens there already", worker->listen, other->name);
    }
    if (worker->address.is_unix && worker->reuse_port)
        WARN(c, "reuse_port: has no effect on a Unix socket");
}

static void check_readable(check *c, const char *setting, const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0 || access(path, R_OK) < 0)
        FAIL(c, "%s: cannot read %s: %s", setting, path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        FAIL(c, "%s: %s is not a regular file", setting, path);
}

static void check_module(check *c, bool need_module)
{
    const bt_worker_config *worker = c->worker;
    if (worker->module)
        check_readable(c, "module", worker->module);
    else if (need_module)
        FAIL(c, "%s", "module: not set (the shared object with the worker's code)");

    char *copy = worker->module_files ? strdup(worker->module_files) : NULL;
    char *position;
    for (char *path = copy ? strtok_r(copy, " ", &position) : NULL; path; path = strtok_r(NULL, " ", &position))
        check_readable(c, "module_files", path);
    free(copy);
}

static void check_user(check *c)
{
    const bt_worker_config *worker = c->worker;
    if (worker->group && !worker->user)
        FAIL(c, "group: \"%s\" needs user to be set too", worker->group);
    if (!worker->user)
        return;
    if (!getpwnam(worker->user))
        FAIL(c, "user: no user \"%s\" on this system", worker->user);
    if (worker->group && !getgrnam(worker->group))
        FAIL(c, "group: no group \"%s\" on this system", worker->group);
    if (geteuid() != 0)
        FAIL(c, "user: only root can run processes as \"%s\"", worker->user);
}

static void check_limits(check *c)
{
    const bt_worker_config *worker = c->worker;
    if (worker->max_target > worker->max_head)
        FAIL(c, "max_target: %llu is more than max_head, which is %llu", (unsigned long long) worker->max_target,
             (unsigned long long) worker->max_head);
    bool ends_connections = worker->strategy == BT_STRATEGY_STOP_FIRST && worker->count == 1 && worker->listen;
    if (ends_connections)
        WARN(c, "strategy: stop-first with count 1 closes the connections at each reload");
    if (ends_connections && (worker->max_requests || worker->max_memory))
        WARN(c, worker->max_requests
                    ? "max_requests: with stop-first and count 1 each replacement closes the connections"
                    : "max_memory: with stop-first and count 1 each replacement closes the connections");
    if (worker->max_requests && !worker->listen)
        WARN(c, "max_requests: has no effect without listen");
    if (worker->max_memory && worker->max_memory < SMALL_MEMORY)
        WARN(c, "max_memory: less than any process needs: each is replaced as soon as it serves");
    if (worker->stuck_timeout_ms && worker->stuck_timeout_ms < SHORT_STUCK_MS)
        WARN(c, "stuck_timeout: under a second a busy machine is enough to have processes killed");
}

/* It becomes part of a request line. */
static void check_probe(check *c)
{
    const bt_worker_config *worker = c->worker;
    if (!worker->probe)
        return;
    if (!worker->listen || strcmp(worker->address.scheme, "http") != 0)
        FAIL(c, "%s", "probe: only for a worker that listens on http");
    if (worker->probe[0] != '/')
        FAIL(c, "%s", "probe: a path begins with \"/\"");
    if (strlen(worker->probe) > worker->max_target)
        FAIL(c, "probe: %zu bytes long, max_target is %llu", strlen(worker->probe),
             (unsigned long long) worker->max_target);
    for (const char *at = worker->probe; *at; at++) {
        unsigned char byte = (unsigned char) *at;
        if (byte > 0x20 && byte < 0x7f && byte != '#')
            continue;
        FAIL(c, "probe: byte 0x%02x is not allowed in a path: write it as %%%02X", byte, byte);
        return;
    }
}

int bt_config_validate(const bt_config *config, bool need_module, bool (*protocol_exists)(const char *scheme),
                       char **errors, char **warnings)
{
    check c = {.config = config, .errors = errors, .warnings = warnings};
    if (config->worker_count == 0) {
        bt_add_line(errors, "no worker: %s",
                    config->file ? "a section [worker NAME] is missing"
                                 : "the program has not called baton_worker_new()");
        return -EINVAL;
    }
    for (size_t i = 0; i < config->worker_count; i++) {
        c.worker = config->workers[i];
        check_name(&c, i);
        check_listen(&c, i, protocol_exists);
        check_module(&c, need_module);
        check_user(&c);
        check_limits(&c);
        check_probe(&c);
    }
    return c.failed ? -EINVAL : 0;
}
