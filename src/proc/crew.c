/* proc/crew.c: the workers of the master: made from a section of a configuration, given a generation to run, let go.
 * Must not know in which order slots change: that is roll.c. */
#include <base/alloc.h>
#include <base/log.h>
#include <errno.h>
#include <inttypes.h>
#include <proc/master_parts.h>
#include <stdio.h>
#include <string.h>

/* ---- making ---- */

/* A start program's own object: its callbacks are in it. */
static baton_worker *find_worker(const bt_service *service, const char *name)
{
    for (size_t i = 0; i < service->config->worker_count; i++) {
        if (strcmp(service->config->workers[i]->name, name) == 0)
            return service->workers[i];
    }
    return NULL;
}

static int add_to_master(bt_master *master, bt_crew *crew)
{
    bt_crew **crews = bt_realloc(master->crews, (master->crew_count + 1) * sizeof(*crews));
    if (crews == NULL)
        return -ENOMEM;
    master->crews = crews;
    crews[master->crew_count++] = crew;
    return 0;
}

bt_crew *bt_crew_new(bt_master *master, const bt_worker_config *config, bt_row *row)
{
    bt_crew *crew = bt_calloc(1, sizeof *crew);
    if (crew == NULL)
        return NULL;
    crew->master = master;
    crew->config = config;
    snprintf(crew->name, sizeof crew->name, "%s", config->name);
    crew->worker = find_worker(master->service, config->name);
    crew->owns_worker = crew->worker == NULL;
    if (crew->owns_worker)
        crew->worker = bt_calloc(1, sizeof *crew->worker);
    crew->row = row != NULL ? row : bt_take_row(master);
    if (crew->worker == NULL || crew->row == NULL || add_to_master(master, crew) < 0) {
        bt_give_row(master, crew->row);
        if (crew->owns_worker)
            free(crew->worker);
        free(crew);
        return NULL;
    }
    crew->worker->config = config;
    return crew;
}

bt_crew *bt_crew_find(const bt_master *master, const char *name)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        if (!master->crews[i]->is_leaving && strcmp(master->crews[i]->name, name) == 0)
            return master->crews[i];
    }
    return NULL;
}

/* ---- what it runs ---- */

static int grow(bt_crew *crew, size_t count)
{
    bt_slot **slots = bt_realloc(crew->slots, count * sizeof(*slots));
    if (slots == NULL)
        return -ENOMEM;
    crew->slots = slots;
    while (crew->slot_count < count) {
        bt_slot *slot = bt_slot_new(crew, (int) crew->slot_count);
        if (slot == NULL)
            return -ENOMEM;
        slots[crew->slot_count++] = slot;
    }
    return 0;
}

bt_slot *bt_crew_slot(bt_crew *crew, size_t index)
{
    if (index >= crew->slot_count && grow(crew, index + 1) < 0)
        return NULL;
    return crew->slots[index];
}

int bt_crew_set_target(bt_crew *crew, bt_generation *generation)
{
    const bt_worker_config *config = bt_generation_section(generation, crew->name);
    size_t count = (size_t) config->count;
    if (crew->slot_count < count && grow(crew, count) < 0)
        return -ENOMEM;
    crew->config = crew->worker->config = config; /* before the old generation goes, which may hold the old one */
    bt_generation_set(crew->master, &crew->target, generation);
    return 0;
}

/* ---- earlier generations ---- */

static void drop_oldest(bt_crew *crew)
{
    bt_generation_unref(crew->master, crew->kept[0]);
    memmove(crew->kept, crew->kept + 1, --crew->kept_count * sizeof(*crew->kept));
}

void bt_crew_keep(bt_crew *crew, bt_generation *generation)
{
    size_t most = (size_t) crew->master->limits->keep_generations;
    bt_generation **kept = bt_realloc(crew->kept, (crew->kept_count + 1) * sizeof(*kept));
    if (kept == NULL) {
        bt_log(BT_LOG_WARN, "generation-not-kept worker=%s generation=%" PRIu64, crew->name, generation->number);
        return;
    }
    crew->kept = kept;
    kept[crew->kept_count++] = bt_generation_ref(generation);
    while (crew->kept_count > most)
        drop_oldest(crew);
}

/* After a rollback: the target is where we are, and what came after it was left on purpose. */
static bool pop_kept(bt_crew *crew, const bt_generation *generation)
{
    size_t i = 0;
    while (i < crew->kept_count && crew->kept[i] != generation)
        i++;
    if (i == crew->kept_count)
        return false;
    while (crew->kept_count > i)
        bt_generation_unref(crew->master, crew->kept[--crew->kept_count]);
    return true;
}

void bt_crew_promote(bt_crew *crew)
{
    bt_master *master = crew->master;
    if (!pop_kept(crew, crew->target) && crew->good != NULL && crew->good != crew->target)
        bt_crew_keep(crew, crew->good);
    bt_generation_set(master, &crew->good, crew->target);
    bt_generation_set(master, &crew->previous, NULL);
}

/* ---- the end ---- */

void bt_crew_dismiss(bt_crew *crew)
{
    if (crew->is_leaving)
        return;
    if (crew->slot_count > 0)
        bt_log(BT_LOG_INFO, "worker-removed worker=%s", crew->name);
    crew->is_leaving = true;
    crew->in_roll = false;
    bt_listeners_retire(crew->master); /* while there is somebody to accept what waits */
    for (size_t i = 0; i < crew->slot_count; i++) {
        bt_slot *slot = crew->slots[i];
        bt_slot_cancel_restart(slot);
        bt_slot_cancel_spawn(slot);
        if (slot->successor != NULL)
            bt_child_kill(slot->successor);
        if (slot->serving != NULL)
            bt_child_drain(slot->serving, NULL, false, crew->config->drain_timeout_ms);
    }
}

/* A worker object of the service outlives the crew, whose configuration goes with its generations. Another crew may
 * have it by now: a worker that was removed has come back. */
static void give_worker_back(const bt_crew *crew)
{
    const bt_service *service = crew->master->service;
    for (size_t i = 0; i < crew->master->crew_count; i++) {
        if (crew->master->crews[i]->worker == crew->worker)
            return;
    }
    for (size_t i = 0; i < service->config->worker_count; i++) {
        if (service->workers[i] == crew->worker)
            crew->worker->config = service->config->workers[i];
    }
}

static void drop_generations(bt_crew *crew)
{
    bt_master *master = crew->master;
    bt_generation **places[] = {&crew->good, &crew->previous, &crew->target, &crew->next};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        bt_generation_set(master, places[i], NULL);
    while (crew->kept_count > 0)
        drop_oldest(crew);
}

static void free_crew(bt_crew *crew)
{
    bt_master *master = crew->master;
    bt_list_each (node, &master->listen_sets) {
        bt_listen_set *set = bt_container(node, bt_listen_set, node);
        if (set->crew == crew)
            set->crew = NULL;
    }
    drop_generations(crew);
    bt_give_row(master, crew->row);
    if (crew->owns_worker)
        free(crew->worker);
    else
        give_worker_back(crew);
    free(crew->kept);
    free(crew->slots);
    free(crew);
}

static void remove_from_master(bt_crew *crew)
{
    bt_master *master = crew->master;
    size_t i = 0;
    while (master->crews[i] != crew)
        i++;
    memmove(master->crews + i, master->crews + i + 1, (master->crew_count - i - 1) * sizeof(*master->crews));
    master->crew_count--;
}

void bt_crew_discard(bt_crew *crew)
{
    remove_from_master(crew);
    free_crew(crew);
}

static bool is_empty(const bt_slot *slot)
{
    return slot->serving == NULL && slot->successor == NULL && slot->wanted == NULL && bt_list_empty(&slot->leaving);
}

/* Only from the end, so that a slot's index is its place. */
static void tidy(bt_crew *crew)
{
    while (crew->slot_count > 0) {
        bt_slot *last = crew->slots[crew->slot_count - 1];
        if (!bt_slot_is_surplus(last) || !is_empty(last) || crew->master->roll.slot == last)
            break;
        crew->slot_count--;
        bt_slot_free(last);
    }
    if (!crew->is_leaving || crew->slot_count > 0)
        return;
    bt_crew_discard(crew);
}

void bt_crews_tidy(bt_master *master)
{
    for (size_t i = master->crew_count; i-- > 0;)
        tidy(master->crews[i]);
}

void bt_crews_free(bt_master *master)
{
    while (master->crew_count > 0) {
        bt_crew *crew = master->crews[--master->crew_count];
        for (size_t i = 0; i < crew->slot_count; i++) {
            bt_slot_cancel_spawn(crew->slots[i]);
            free(crew->slots[i]); /* the loop is closed */
        }
        free_crew(crew);
    }
    free(master->crews);
}
