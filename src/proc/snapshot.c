/* proc/snapshot.c: everything the master knows as one JSON object, which another image of it adopts (adopt.c).
 * Must not change anything: the master may have to go on as if nothing had been asked. Nothing is left out when memory
 * is short, then there is no object: the next image would miss it. */
#include <baton/version.h>
#include <jansson.h>
#include <proc/control.h>
#include <proc/json_text.h>
#include <proc/master_parts.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <unistd.h>

static json_int_t number_of(const bt_generation *generation)
{
    return generation == NULL ? 0 : (json_int_t) generation->number;
}

/* ---- generations ---- */

static json_t *modules_json(const bt_generation *generation)
{
    json_t *array = json_array();
    for (size_t i = 0; i < generation->module_count; i++) {
        const bt_module_copy *copy = &generation->modules[i];
        array = bt_json_append(array, json_pack("{s:s, s:o, s:s, s:s}", "worker", copy->worker, "path",
                                                bt_json_bytes(copy->path), "sha256", copy->sha256, "build_id",
                                                copy->build_id));
    }
    return array;
}

static json_t *generations_json(const bt_master *master)
{
    json_t *array = json_array();
    bt_list_each (node, &master->generations) {
        const bt_generation *generation = bt_container(node, bt_generation, node);
        json_t *config = generation->config == NULL ? json_null() : master->service->config_to_json(generation->config);
        array = bt_json_append(array, json_pack("{s:I, s:I, s:b, s:o, s:o, s:o}", "number", number_of(generation),
                                                "created_ms", (json_int_t) generation->created_ms, "is_whole",
                                                generation->is_whole, "failure", bt_json_text(generation->failure),
                                                "config", config, "modules", modules_json(generation)));
    }
    return array;
}

/* ---- listening sockets ---- */

static json_t *sets_json(const bt_master *master)
{
    json_t *array = json_array();
    bt_list_each (node, &master->listen_sets) {
        const bt_listen_set *set = bt_container(node, bt_listen_set, node);
        const bt_listen_address *address = &set->address;
        json_t *fds = json_array();
        for (size_t i = 0; i < set->count; i++)
            fds = bt_json_append(fds, json_integer(set->fds[i]));
        array = bt_json_append(array, json_pack("{s:s, s:b, s:b, s:i, s:s, s:s, s:o, s:s, s:o}", "scheme",
                                                address->scheme, "is_unix", address->is_unix, "dual_stack",
                                                address->dual_stack, "port", (int) address->port, "host", address->host,
                                                "resolved", address->resolved, "path", bt_json_bytes(address->path),
                                                "crew", set->crew == NULL ? "" : set->crew->name, "fds", fds));
    }
    return array;
}

/* ---- workers ---- */

static json_t *slots_json(const bt_crew *crew)
{
    json_t *array = json_array();
    for (size_t i = 0; i < crew->slot_count; i++) {
        const bt_slot *slot = crew->slots[i];
        bool has_pause = uv_is_active((const uv_handle_t *) &slot->restart);
        array = bt_json_append(
            array, json_pack("{s:i, s:i, s:I, s:s, s:b, s:I}", "restarts", (int) slot->restarts, "short_lives",
                             (int) slot->short_lives, "generation", (json_int_t) slot->generation, "last_exit",
                             slot->last_exit, "wants_recycle", slot->wants_recycle, "pause_ms",
                             has_pause ? (json_int_t) uv_timer_get_due_in(&slot->restart) : (json_int_t) 0));
    }
    return array;
}

static json_t *crew_json(const bt_crew *crew)
{
    json_t *kept = json_array();
    json_t *exits = json_array();
    for (size_t i = 0; i < crew->kept_count; i++)
        kept = bt_json_append(kept, json_integer(number_of(crew->kept[i])));
    for (size_t i = 0; i < crew->exit_kinds; i++)
        exits = bt_json_append(exits, json_pack("{s:s, s:I}", "reason", crew->exits[i].reason, "count",
                                                (json_int_t) crew->exits[i].count));
    return json_pack("{s:s, s:i, s:I, s:I, s:I, s:o, s:b, s:o, s:o}", "name", crew->name, "row",
                     (int) (crew->row - crew->master->rows), "good", number_of(crew->good), "previous",
                     number_of(crew->previous), "target", number_of(crew->target), "kept", kept, "is_leaving",
                     crew->is_leaving, "exits", exits, "slots", slots_json(crew));
}

static size_t index_of(const bt_crew *crew)
{
    size_t i = 0;
    while (crew->master->crews[i] != crew)
        i++;
    return i;
}

/* ---- processes ---- */

static json_t *child_json(const bt_child *child)
{
    const bt_slot *slot = child->slot;
    bool has_end = uv_is_active((const uv_handle_t *) &child->timer);
    json_t *object =
        json_pack("{s:i, s:i, s:i, s:I, s:I, s:i, s:i, s:I, s:i, s:I, s:I, s:I, s:b, s:b, s:o}", "crew",
                  (int) index_of(slot->crew), "slot", slot->index, "pid", (int) child->pid, "number",
                  (json_int_t) child->number, "generation", number_of(child->generation), "fd", child->channel.fd,
                  "row", (int) (child->row - slot->crew->master->rows), "sockets", (json_int_t) child->sockets, "state",
                  (int) child->state, "started_ms", (json_int_t) child->started_ms, "ready_ms",
                  (json_int_t) child->ready_ms, "started_wall_ms", (json_int_t) child->started_wall_ms, "killed_by_us",
                  child->killed_by_us, "handed_over", child->handed_over, "failure", bt_json_text(child->failure));
    json_t *end = has_end ? json_integer((json_int_t) uv_timer_get_due_in(&child->timer)) : json_null();
    bool is_complete = json_object_set_new(object, "end_in_ms", end) == 0 &&
                       json_object_set_new(object, "queue", bt_channel_queue_json(&child->channel)) == 0;
    if (is_complete)
        return object;
    json_decref(object);
    return NULL;
}

/* ---- everything ---- */

static json_t *roll_json(const bt_roll *roll)
{
    return json_pack("{s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:o}", "reloads", (json_int_t) roll->reloads, "last_serial",
                     (json_int_t) roll->last_serial, "generation", (json_int_t) roll->generation, "has_last",
                     roll->has_last, "last_ok", roll->last_ok, "last_generation", (json_int_t) roll->last_generation,
                     "last_took_ms", (json_int_t) roll->last_took_ms, "last_message", bt_json_text(roll->last_message));
}

static json_t *times_json(const bt_master *master)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "started_ms", (json_int_t) master->started_ms, "started_wall_ms",
                     (json_int_t) master->started_wall_ms, "last_generation", (json_int_t) master->last_generation,
                     "last_process", (json_int_t) master->last_process, "current", number_of(master->current));
}

static json_t *fds_json(const bt_master *master)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i}", "pid", master->pid_fd, "lock", master->lock_fd, "log", master->log_fd,
                     "rows", master->rows_fd, "control", bt_control_fd(master));
}

json_t *bt_snapshot(const bt_master *master)
{
    json_t *crews = json_array();
    json_t *children = json_array();
    for (size_t i = 0; i < master->crew_count; i++)
        crews = bt_json_append(crews, crew_json(master->crews[i]));
    bt_list_each (node, &master->children)
        children = bt_json_append(children, child_json(bt_container(node, bt_child, node)));
    return json_pack(
        "{s:i, s:s, s:i, s:I, s:I, s:i, s:o, s:o, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "format",
        BT_HANDOVER_FORMAT, "version", baton_version(), "channel_version", BT_CHANNEL_VERSION, "row_size",
        (json_int_t) sizeof(bt_row), "row_count", (json_int_t) BT_ROWS, "pid", (int) getpid(), "program",
        bt_json_bytes(master->service->program), "config", master->service->config_to_json(master->config), "daemon",
        master->config->master.daemonize, "hup_stops", master->hup_stops, "times", times_json(master), "fds",
        fds_json(master), "generations", generations_json(master), "listen_sets", sets_json(master), "crews", crews,
        "children", children, "roll", roll_json(&master->roll), "clients", bt_control_clients_json(master));
}
