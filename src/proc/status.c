/* proc/status.c: the master's knowledge as JSON (the format is in proc/control.h).
 * Must not ask a process anything: counters come from shared memory, so that a busy or stuck process is shown too. */
#include <base/clock.h>
#include <base/memory.h>
#include <baton/version.h>
#include <inttypes.h>
#include <jansson.h>
#include <net/listener.h>
#include <proc/json_text.h>
#include <proc/master_parts.h>
#include <proc/stays.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *text_or_null(const char *text)
{
    return text == NULL || text[0] == '\0' ? json_null() : bt_json_text(text);
}

static const char *state_name(bt_child_state state)
{
    switch (state) {
    case BT_CHILD_STARTING:
        return "starting";
    case BT_CHILD_SERVING:
        return "serving";
    case BT_CHILD_DRAINING:
        return "draining";
    case BT_CHILD_STOPPING:
        return "stopping";
    }
    return "unknown";
}

static void set_counters(json_t *object, const bt_counters *counters)
{
    const struct {
        const char *name;
        const bt_counter *counter;
    } list[] = {
        {"connections", &counters->connections}, {"requests", &counters->requests},
        {"accepted", &counters->accepted},       {"passed_in", &counters->passed_in},
        {"passed_out", &counters->passed_out},   {"pass_refused", &counters->pass_refused},
        {"rejected", &counters->rejected},       {"timeouts", &counters->timeouts},
        {"dropped", &counters->dropped},         {"closed_by_drain", &counters->closed_by_drain},
        {"bytes_read", &counters->bytes_read},   {"bytes_written", &counters->bytes_written},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        json_object_set_new(object, list[i].name, json_integer((json_int_t) bt_counter_value(list[i].counter)));
}

/* Why connections cannot leave their process, without what does not occur. */
static json_t *stays_json(const bt_counter stays[BT_STAYS])
{
    json_t *object = json_object();
    for (size_t i = 0; i < BT_STAYS; i++) {
        uint64_t count = bt_counter_value(&stays[i]);
        if (count > 0)
            json_object_set_new(object, bt_stay_words[i], json_integer((json_int_t) count));
    }
    return object;
}

static json_t *child_json(const bt_child *child)
{
    const bt_slot *slot = child->slot;
    json_t *object = json_pack("{s:i, s:i, s:I, s:s, s:I, s:I, s:i}", "slot", slot->index, "pid", (int) child->pid,
                               "generation", (json_int_t) child->generation->number, "state", state_name(child->state),
                               "memory", (json_int_t) bt_resident_bytes(child->pid), "started_at",
                               (json_int_t) child->started_wall_ms, "restarts", (int) slot->restarts);
    uint64_t stuck_ms = child->state == BT_CHILD_STARTING ? 0 : bt_child_stuck_ms(child);
    json_object_set_new(object, "last_exit", text_or_null(slot->last_exit));
    json_object_set_new(object, "stuck_ms", stuck_ms == 0 ? json_null() : json_integer((json_int_t) stuck_ms));
    json_object_set_new(object, "stays", stays_json(child->row->counters.stays));
    set_counters(object, &child->row->counters);
    return object;
}

/* A place that waits for its next try. */
static json_t *empty_json(const bt_slot *slot)
{
    static const bt_counters none;
    json_t *object = json_pack("{s:i, s:i, s:I, s:s, s:i, s:i, s:i}", "slot", slot->index, "pid", 0, "generation",
                               (json_int_t) slot->generation, "state", "backoff", "memory", 0, "started_at", 0,
                               "restarts", (int) slot->restarts);
    json_object_set_new(object, "last_exit", text_or_null(slot->last_exit));
    set_counters(object, &none);
    return object;
}

static json_t *processes_json(const bt_crew *crew)
{
    json_t *array = json_array();
    for (size_t i = 0; i < crew->slot_count; i++) {
        const bt_slot *slot = crew->slots[i];
        if (slot->serving != NULL)
            json_array_append_new(array, child_json(slot->serving));
        if (slot->successor != NULL)
            json_array_append_new(array, child_json(slot->successor));
        if (slot->serving == NULL && slot->successor == NULL)
            json_array_append_new(array, empty_json(slot));
        bt_list_each (node, &slot->leaving)
            json_array_append_new(array, child_json(bt_container(node, bt_child, leaving)));
    }
    return array;
}

/* Where it really listens: the port may have been chosen by the kernel. */
static json_t *addresses_json(const bt_crew *crew)
{
    json_t *array = json_array();
    char name[300];
    const bt_listen_set *set = crew->is_leaving ? NULL : bt_listeners_find(crew->master, crew->config);
    if (set != NULL)
        json_array_append_new(array, json_string(bt_listener_name(set->fds[0], name, sizeof name)));
    return array;
}

/* The process that serves now has lived longer than those that died. */
static bool has_recovered(const bt_slot *slot)
{
    return slot->serving != NULL && bt_clock_ms() - slot->serving->started_ms >= BT_SHORT_LIFE_MS;
}

/* A slot whose process keeps dying young. */
static json_t *alarms_json(const bt_crew *crew)
{
    json_t *array = json_array();
    char text[160];
    for (size_t i = 0; i < crew->slot_count; i++) {
        const bt_slot *slot = crew->slots[i];
        if (slot->short_lives < BT_CRASH_LOOP || has_recovered(slot))
            continue;
        if (uv_is_active((const uv_handle_t *) &slot->restart))
            snprintf(text, sizeof text, "slot %d: ended %u times in a row within a second, next try in %" PRIu64 " ms",
                     slot->index, slot->short_lives, uv_timer_get_due_in(&slot->restart));
        else
            snprintf(text, sizeof text, "slot %d: ended %u times in a row within a second", slot->index,
                     slot->short_lives);
        json_array_append_new(array, json_string(text));
    }
    return array;
}

static json_t *exits_json(const bt_crew *crew)
{
    json_t *array = json_array();
    for (size_t i = 0; i < crew->exit_kinds; i++)
        json_array_append_new(array, json_pack("{s:s, s:I}", "reason", crew->exits[i].reason, "count",
                                               (json_int_t) crew->exits[i].count));
    return array;
}

static json_t *crew_json(const bt_crew *crew)
{
    const bt_worker_config *config = crew->config;
    json_t *object =
        json_pack("{s:s, s:i, s:b, s:I}", "name", crew->name, "count", (int) config->count, "reloadable",
                  config->reloadable, "generation", (json_int_t) (crew->target == NULL ? 0 : crew->target->number));
    json_object_set_new(object, "listen", text_or_null(config->listen));
    json_object_set_new(object, "addresses", addresses_json(crew));
    json_object_set_new(object, "exits", exits_json(crew));
    json_object_set_new(object, "leaving", json_boolean(crew->is_leaving));
    json_object_set_new(object, "stayed", stays_json(crew->row->counters.stayed));
    json_object_set_new(object, "alarms", alarms_json(crew));
    json_object_set_new(object, "processes", processes_json(crew));
    return object;
}

static const char *phase_name(const bt_master *master)
{
    if (master->phase == BT_MASTER_STARTING)
        return "starting";
    if (master->phase == BT_MASTER_STOPPING)
        return "stopping";
    return master->roll.state == BT_ROLL_IDLE && master->roll.helper == 0 ? "running" : "reloading";
}

static json_t *last_reload_json(const bt_roll *roll)
{
    if (!roll->has_last)
        return json_null();
    return json_pack("{s:b, s:I, s:o, s:I}", "ok", roll->last_ok, "generation", (json_int_t) roll->last_generation,
                     "message", bt_json_text(roll->last_message), "took_ms", (json_int_t) roll->last_took_ms);
}

static uint64_t serving_generation(const bt_master *master)
{
    uint64_t number = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_generation *target = master->crews[i]->target;
        if (target != NULL && target->number > number)
            number = target->number;
    }
    return number;
}

json_t *bt_status_json(bt_master *master)
{
    json_t *workers = json_array();
    for (size_t i = 0; i < master->crew_count; i++)
        json_array_append_new(workers, crew_json(master->crews[i]));
    json_t *object =
        json_pack("{s:s, s:i, s:s, s:b, s:I, s:I, s:I, s:I, s:I}", "version", baton_version(), "pid", (int) getpid(),
                  "state", phase_name(master), "daemon", master->config->master.daemonize, "started_at",
                  (json_int_t) master->started_wall_ms, "uptime_ms", (json_int_t) (bt_clock_ms() - master->started_ms),
                  "generation", (json_int_t) serving_generation(master), "reloads", (json_int_t) master->roll.reloads,
                  "memory", (json_int_t) bt_resident_bytes(getpid()));
    json_object_set_new(object, "config", text_or_null(master->config->file));
    json_object_set_new(object, "last_reload", last_reload_json(&master->roll));
    json_object_set_new(object, "workers", workers);
    return object;
}

/* ---- generations ---- */

static bool is_kept(const bt_crew *crew, const bt_generation *generation)
{
    for (size_t i = 0; i < crew->kept_count; i++) {
        if (crew->kept[i] == generation)
            return true;
    }
    return crew->good == generation || crew->previous == generation;
}

/* What most of it is about: one that serves anywhere serves. */
static const char *generation_state(const bt_master *master, const bt_generation *generation)
{
    bool kept = false;
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        if (crew->is_leaving)
            continue;
        if (crew->target == generation && crew->good == generation)
            return "serving";
        if (crew->target == generation)
            return master->roll.state == BT_ROLL_IDLE ? "probation" : "rolling";
        kept = kept || is_kept(crew, generation);
    }
    if (generation->failure[0] != '\0')
        return "failed";
    if (kept)
        return "kept";
    return generation->users > 0 ? "ending" : "replaced";
}

static json_t *modules_json(const bt_generation *generation)
{
    json_t *array = json_array();
    for (size_t i = 0; i < generation->module_count; i++) {
        const bt_module_copy *copy = &generation->modules[i];
        json_t *object = json_pack("{s:s}", "name", copy->worker);
        json_object_set_new(object, "sha256", text_or_null(copy->sha256));
        json_object_set_new(object, "build_id", text_or_null(copy->build_id));
        json_array_append_new(array, object);
    }
    return array;
}

json_t *bt_generations_json(const bt_master *master)
{
    json_t *array = json_array();
    bt_list_each (node, &master->generations) {
        const bt_generation *generation = bt_container(node, bt_generation, node);
        json_array_append_new(array, json_pack("{s:I, s:I, s:s, s:o, s:o}", "number", (json_int_t) generation->number,
                                               "created_at", (json_int_t) generation->created_ms, "state",
                                               generation_state(master, generation), "reason",
                                               bt_json_text(generation->failure), "workers", modules_json(generation)));
    }
    return array;
}

/* ---- what each worker runs with ---- */

static json_t *texts_json(const bt_master *master)
{
    json_t *array = json_array();
    bt_list_each (node, &master->generations) {
        const bt_generation *generation = bt_container(node, bt_generation, node);
        if (generation->config != NULL && generation->config->text != NULL)
            json_array_append_new(array, json_pack("{s:I, s:o}", "generation", (json_int_t) generation->number, "text",
                                                   bt_json_text(generation->config->text)));
    }
    return array;
}

json_t *bt_configs_json(const bt_master *master)
{
    json_t *workers = json_array();
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        if (!crew->is_leaving && crew->target != NULL)
            json_array_append_new(
                workers, json_pack("{s:s, s:I}", "name", crew->name, "generation", (json_int_t) crew->target->number));
    }
    return json_pack("{s:o, s:o, s:o}", "file", text_or_null(master->config->file), "workers", workers, "texts",
                     texts_json(master));
}
