/* proc/adopt.c: a fresh master becomes the one that a handover describes (snapshot.c): the contrary of it.
 * Must not trust the handover further than that it says what it says: a missing or impossible value fails. Nothing is
 * closed, so that after a failure another image can still adopt the same. */
#include <base/failpoint.h>
#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <proc/control.h>
#include <proc/json_text.h>
#include <proc/master_parts.h>
#include <proc/upgrade.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The handover being read; the first thing that is wrong is remembered, and zeros are read from then on. */
typedef struct reader {
    bt_master *master;
    char *why;
    size_t size;
    int err;
} reader;

__attribute__((format(printf, 3, 4))) static void fail(reader *in, int err, const char *format, ...)
{
    if (in->err < 0)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(in->why, in->size, format, args);
    va_end(args);
    in->err = err;
}

static int64_t read_number(reader *in, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value))
        return json_integer_value(value);
    fail(in, -EPROTO, "the handover has no number \"%s\"", key);
    return 0;
}

static const char *read_text(reader *in, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL)
        fail(in, -EPROTO, "the handover has no text \"%s\"", key);
    return text == NULL ? "" : text;
}

/* A path: it need not be UTF-8. */
static void read_bytes(reader *in, const json_t *object, const char *key, char *out, size_t size)
{
    char *text = bt_json_bytes_dup(json_object_get(object, key));
    if (text == NULL || strlen(text) >= size)
        fail(in, -EPROTO, "the handover has no path \"%s\"", key);
    else
        memcpy(out, text, strlen(text) + 1);
    free(text);
}

static bool read_bool(reader *in, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value))
        fail(in, -EPROTO, "the handover has no \"%s\"", key);
    return json_is_true(value);
}

static int use_fd(reader *in, int64_t number, const char *what)
{
    int fd = (int) number;
    if (in->err == 0 && (number != fd || number < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0))
        fail(in, -EBADF, "the handover's descriptor of %s is not open", what);
    return fd;
}

/* One that the master's children must not keep. */
static int own_fd(reader *in, int64_t number, const char *what)
{
    int fd = use_fd(in, number, what);
    if (in->err == 0 && bt_master_fd_add(in->master, fd) < 0)
        fail(in, -ENOMEM, "out of memory");
    return fd;
}

static bt_row *read_row(reader *in, const json_t *object)
{
    int64_t index = read_number(in, object, "row");
    if (in->err < 0)
        return NULL;
    if (index < 0 || index >= BT_ROWS || in->master->row_used[index]) {
        fail(in, -EPROTO, "the handover's row %lld is impossible", (long long) index);
        return NULL;
    }
    in->master->row_used[index] = true;
    return &in->master->rows[index];
}

/* ---- generations ---- */

static bt_generation *find_generation(reader *in, int64_t number)
{
    bt_list_each (node, &in->master->generations) {
        bt_generation *generation = bt_container(node, bt_generation, node);
        if ((int64_t) generation->number == number && generation->config != NULL)
            return generation;
    }
    if (number != 0)
        fail(in, -EPROTO, "the handover lacks generation %lld", (long long) number);
    return NULL;
}

static void adopt_modules(reader *in, bt_generation *generation, const json_t *list)
{
    size_t count = json_array_size(list);
    bt_module_copy *modules = calloc(count == 0 ? 1 : count, sizeof *modules);
    if (modules == NULL) {
        fail(in, -ENOMEM, "out of memory");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *object = json_array_get(list, i);
        snprintf(modules[i].worker, sizeof modules->worker, "%s", read_text(in, object, "worker"));
        read_bytes(in, object, "path", modules[i].path, sizeof modules->path);
        snprintf(modules[i].sha256, sizeof modules->sha256, "%s", read_text(in, object, "sha256"));
        snprintf(modules[i].build_id, sizeof modules->build_id, "%s", read_text(in, object, "build_id"));
    }
    free(generation->modules);
    generation->modules = modules;
    generation->module_count = count;
}

static void adopt_generation(reader *in, const json_t *object)
{
    const bt_service *service = in->master->service;
    const json_t *config_json = json_object_get(object, "config");
    bt_generation *generation = bt_generation_new(in->master, (uint64_t) read_number(in, object, "number"));
    if (generation == NULL) {
        fail(in, -ENOMEM, "out of memory");
        return;
    }
    generation->created_ms = (uint64_t) read_number(in, object, "created_ms");
    generation->is_whole = read_bool(in, object, "is_whole");
    snprintf(generation->failure, sizeof generation->failure, "%s", read_text(in, object, "failure"));
    if (json_is_object(config_json)) {
        char detail[256] = "";
        bt_config *config = service->config_from_json(config_json, detail, sizeof detail);
        if (config == NULL)
            fail(in, -EPROTO, "the handover's generation %llu: %s", (unsigned long long) generation->number, detail);
        else if (bt_generation_set_config(generation, config, true) < 0)
            fail(in, -ENOMEM, "out of memory");
    }
    adopt_modules(in, generation, json_object_get(object, "modules"));
}

/* Each was made with one user; those that somebody uses have others by now. */
static void release_generations(bt_master *master)
{
    bt_list_each (node, &master->generations)
        bt_generation_unref(master, bt_container(node, bt_generation, node));
}

/* ---- workers and their sockets ---- */

static void adopt_slots(reader *in, bt_crew *crew, const json_t *list)
{
    for (size_t i = 0; in->err == 0 && i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        bt_slot *slot = bt_crew_slot(crew, i);
        if (slot == NULL) {
            fail(in, -ENOMEM, "out of memory");
            return;
        }
        slot->restarts = (unsigned) read_number(in, object, "restarts");
        slot->short_lives = (unsigned) read_number(in, object, "short_lives");
        slot->generation = (uint64_t) read_number(in, object, "generation");
        slot->wants_recycle = read_bool(in, object, "wants_recycle");
        snprintf(slot->last_exit, sizeof slot->last_exit, "%s", read_text(in, object, "last_exit"));
    }
}

static void adopt_exits(reader *in, bt_crew *crew, const json_t *list)
{
    size_t most = sizeof crew->exits / sizeof *crew->exits;
    for (size_t i = 0; i < json_array_size(list) && i < most; i++) {
        const json_t *object = json_array_get(list, i);
        snprintf(crew->exits[i].reason, sizeof crew->exits->reason, "%s", read_text(in, object, "reason"));
        crew->exits[i].count = (uint64_t) read_number(in, object, "count");
        crew->exit_kinds = i + 1;
    }
}

static void adopt_crew(reader *in, const json_t *object)
{
    bt_master *master = in->master;
    const char *name = read_text(in, object, "name");
    bt_generation *target = find_generation(in, read_number(in, object, "target"));
    const bt_worker_config *config = target == NULL ? NULL : bt_generation_section(target, name);
    bt_row *row = read_row(in, object);
    if (in->err == 0 && config == NULL)
        fail(in, -EPROTO, "the handover's worker %s has no configuration", name);
    bt_crew *crew = in->err < 0 ? NULL : bt_crew_new(master, config, row);
    if (in->err == 0 && (crew == NULL || bt_crew_set_target(crew, target) < 0))
        fail(in, -ENOMEM, "out of memory");
    if (in->err < 0)
        return;
    bt_generation_set(master, &crew->good, find_generation(in, read_number(in, object, "good")));
    bt_generation_set(master, &crew->previous, find_generation(in, read_number(in, object, "previous")));
    const json_t *kept = json_object_get(object, "kept");
    for (size_t i = 0; i < json_array_size(kept); i++) {
        bt_generation *generation = find_generation(in, json_integer_value(json_array_get(kept, i)));
        if (generation != NULL)
            bt_crew_keep(crew, generation);
    }
    crew->is_leaving = read_bool(in, object, "is_leaving");
    adopt_exits(in, crew, json_object_get(object, "exits"));
    adopt_slots(in, crew, json_object_get(object, "slots"));
}

static void adopt_set(reader *in, const json_t *object)
{
    bt_listen_address address = {
        .is_unix = read_bool(in, object, "is_unix"),
        .dual_stack = read_bool(in, object, "dual_stack"),
        .port = (uint16_t) read_number(in, object, "port"),
    };
    snprintf(address.scheme, sizeof address.scheme, "%s", read_text(in, object, "scheme"));
    snprintf(address.host, sizeof address.host, "%s", read_text(in, object, "host"));
    snprintf(address.resolved, sizeof address.resolved, "%s", read_text(in, object, "resolved"));
    read_bytes(in, object, "path", address.path, sizeof address.path);
    bt_crew *crew = bt_crew_find(in->master, read_text(in, object, "crew"));
    const json_t *fds = json_object_get(object, "fds");
    if (in->err == 0 && json_array_size(fds) == 0)
        fail(in, -EPROTO, "the handover has an address without a socket");
    bt_listen_set *set = in->err < 0 ? NULL : bt_listeners_adopt(in->master, &address, crew);
    for (size_t i = 0; set != NULL && i < json_array_size(fds); i++) {
        int fd = own_fd(in, json_integer_value(json_array_get(fds, i)), "a listening socket");
        if (in->err == 0 && bt_listeners_adopt_fd(set, fd) < 0)
            fail(in, -ENOMEM, "out of memory");
    }
}

/* ---- processes ---- */

static void adopt_queue(reader *in, bt_child *child, const json_t *list)
{
    for (size_t i = 0; in->err == 0 && i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        int64_t number = read_number(in, object, "fd");
        int fd = number < 0 ? -1 : use_fd(in, number, "a message");
        bt_channel_send(&child->channel, (bt_message_type) read_number(in, object, "type"),
                        (uint64_t) read_number(in, object, "value"), read_text(in, object, "text"), fd);
        if (fd >= 0)
            close(fd);
    }
}

static void adopt_child(reader *in, const json_t *object)
{
    bt_master *master = in->master;
    size_t crew_index = (size_t) read_number(in, object, "crew");
    bt_crew *crew = crew_index < master->crew_count ? master->crews[crew_index] : NULL;
    size_t slot_index = (size_t) read_number(in, object, "slot");
    if (crew == NULL || slot_index >= crew->slot_count) {
        fail(in, -EPROTO, "the handover has a process without a place");
        return;
    }
    bt_child facts = {
        .slot = crew->slots[slot_index],
        .pid = (pid_t) read_number(in, object, "pid"),
        .number = (uint64_t) read_number(in, object, "number"),
        .generation = find_generation(in, read_number(in, object, "generation")),
        .row = read_row(in, object),
        .sockets = (size_t) read_number(in, object, "sockets"),
        .state = (bt_child_state) read_number(in, object, "state"),
        .started_ms = (uint64_t) read_number(in, object, "started_ms"),
        .ready_ms = (uint64_t) read_number(in, object, "ready_ms"),
        .started_wall_ms = (uint64_t) read_number(in, object, "started_wall_ms"),
        .killed_by_us = read_bool(in, object, "killed_by_us"),
        .handed_over = read_bool(in, object, "handed_over"),
    };
    snprintf(facts.failure, sizeof facts.failure, "%s", read_text(in, object, "failure"));
    const json_t *end = json_object_get(object, "end_in_ms");
    int fd = use_fd(in, read_number(in, object, "fd"), "a process's channel");
    if (in->err == 0 && (facts.pid <= 0 || facts.generation == NULL || facts.state > BT_CHILD_STOPPING))
        fail(in, -EPROTO, "the handover has an impossible process");
    if (in->err < 0)
        return;
    uint64_t end_in_ms = json_is_integer(end) ? (uint64_t) json_integer_value(end) : BT_NO_LIMIT;
    bt_child *child = bt_child_adopt(&facts, fd, end_in_ms);
    if (child == NULL)
        fail(in, -ENOMEM, "out of memory");
    else
        adopt_queue(in, child, json_object_get(object, "queue"));
}

/* ---- everything ---- */

static void adopt_times(reader *in, const json_t *object)
{
    bt_master *master = in->master;
    master->started_ms = (uint64_t) read_number(in, object, "started_ms");
    master->started_wall_ms = (uint64_t) read_number(in, object, "started_wall_ms");
    master->last_generation = (uint64_t) read_number(in, object, "last_generation");
    master->last_process = (uint64_t) read_number(in, object, "last_process");
}

static void adopt_roll(reader *in, const json_t *object)
{
    bt_roll *roll = &in->master->roll;
    roll->reloads = (uint64_t) read_number(in, object, "reloads");
    roll->last_serial = (uint64_t) read_number(in, object, "last_serial");
    roll->generation = (uint64_t) read_number(in, object, "generation");
    roll->has_last = read_bool(in, object, "has_last");
    roll->last_ok = read_bool(in, object, "last_ok");
    roll->last_generation = (uint64_t) read_number(in, object, "last_generation");
    roll->last_took_ms = (uint64_t) read_number(in, object, "last_took_ms");
    snprintf(roll->last_message, sizeof roll->last_message, "%s", read_text(in, object, "last_message"));
}

static void adopt_table(reader *in, const json_t *fds)
{
    bt_master *master = in->master;
    master->rows_fd = use_fd(in, read_number(in, fds, "rows"), "the counters");
    struct stat info;
    if (in->err == 0 && (fstat(master->rows_fd, &info) < 0 || (size_t) info.st_size < BT_ROWS * sizeof *master->rows))
        fail(in, -EPROTO, "the handover's counters are too few");
    if (in->err < 0)
        return;
    int err = bt_master_map_rows(master);
    if (err < 0)
        fail(in, err, "the counters: %s", strerror(-err));
}

static void adopt_files(reader *in, const json_t *fds)
{
    bt_master *master = in->master;
    int64_t log = read_number(in, fds, "log");
    adopt_table(in, fds);
    master->pid_fd = own_fd(in, read_number(in, fds, "pid"), "the pid file");
    master->lock_fd = use_fd(in, read_number(in, fds, "lock"), "the lock");
    if (log >= 0) {
        master->log_fd = own_fd(in, log, "the log");
        bt_log_set_fd(master->log_fd);
    }
}

static void adopt_each(reader *in, const json_t *list, void (*adopt)(reader *in, const json_t *object))
{
    for (size_t i = 0; in->err == 0 && i < json_array_size(list); i++)
        adopt(in, json_array_get(list, i));
}

static void adopt_control(reader *in, const json_t *fds, const json_t *clients)
{
    int fd = use_fd(in, read_number(in, fds, "control"), "the control socket");
    int err = in->err < 0 ? 0 : bt_control_adopt(in->master, fd, clients);
    if (err < 0)
        fail(in, err, "the control socket: %s", strerror(-err));
}

/* Those that were waiting for a restart still are; where the end of a process came last, one begins at once. */
static void fill_slots(reader *in, const json_t *crews)
{
    const bt_master *master = in->master;
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        const json_t *slots = json_object_get(json_array_get(crews, i), "slots");
        for (size_t j = 0; j < crew->slot_count; j++) {
            json_int_t pause_ms = json_integer_value(json_object_get(json_array_get(slots, j), "pause_ms"));
            bt_slot_fill(crew->slots[j], pause_ms < 0 ? 0 : (uint64_t) pause_ms);
        }
    }
}

static void fail_if(reader *in, int err)
{
    if (err < 0)
        fail(in, err, "%s", strerror(-err));
}

int bt_adopt(bt_master *master, const json_t *handover, char *why, size_t size)
{
    reader in = {.master = master, .why = why, .size = size};
    const json_t *fds = json_object_get(handover, "fds");
    adopt_files(&in, fds);
    adopt_times(&in, json_object_get(handover, "times"));
    adopt_roll(&in, json_object_get(handover, "roll"));
    master->hup_stops = read_bool(&in, handover, "hup_stops");
    adopt_each(&in, json_object_get(handover, "generations"), adopt_generation);
    adopt_each(&in, json_object_get(handover, "crews"), adopt_crew);
    adopt_each(&in, json_object_get(handover, "listen_sets"), adopt_set);
    adopt_each(&in, json_object_get(handover, "children"), adopt_child);
    bt_generation *current = find_generation(&in, read_number(&in, json_object_get(handover, "times"), "current"));
    adopt_control(&in, fds, json_object_get(handover, "clients"));
    if (in.err == 0)
        fail_if(&in, bt_failpoint("upgrade:adopted"));
    if (in.err < 0)
        return in.err;
    if (current == NULL) {
        fail(&in, -EPROTO, "the handover has no current generation");
        return in.err;
    }
    bt_master_apply(master, current);
    release_generations(master);
    master->phase = BT_MASTER_RUNNING;
    fill_slots(&in, json_object_get(handover, "crews"));
    return 0;
}
