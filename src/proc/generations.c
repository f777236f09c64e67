/* proc/generations.c: the master's record of all generations: who uses which, and what is left of those nobody uses.
 * Must not know how one is made (prepare.c) nor what it is for (roll.c). */
#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <inttypes.h>
#include <proc/master_parts.h>
#include <string.h>

#define RECORDS 32 /* of generations that nobody uses any more */

bt_generation *bt_generation_new(bt_master *master, uint64_t number)
{
    bt_generation *generation = bt_calloc(1, sizeof *generation);
    if (generation == NULL)
        return NULL;
    *generation = (bt_generation){.number = number, .users = 1, .created_ms = bt_clock_wall_ms()};
    bt_list_append(&master->generations, &generation->node);
    return generation;
}

int bt_generation_set_config(bt_generation *generation, const bt_config *config, bool owned)
{
    generation->config = config;
    generation->owns_config = owned;
    generation->modules = bt_calloc(config->worker_count, sizeof *generation->modules);
    if (generation->modules == NULL)
        return -ENOMEM;
    generation->module_count = config->worker_count;
    for (size_t i = 0; i < config->worker_count; i++)
        snprintf(generation->modules[i].worker, sizeof generation->modules[i].worker, "%s", config->workers[i]->name);
    return 0;
}

bt_generation *bt_generation_ref(bt_generation *generation)
{
    generation->users++;
    return generation;
}

static void forget(bt_generation *generation)
{
    bt_list_remove(&generation->node);
    free(generation->modules);
    free(generation);
}

/* Generations that are in use do not count: they are bounded by who uses them. */
static void bound_records(bt_master *master)
{
    size_t count = 0;
    bt_list_each (node, &master->generations)
        count += bt_container(node, bt_generation, node)->users == 0;
    bt_list_each (node, &master->generations) {
        bt_generation *generation = bt_container(node, bt_generation, node);
        if (count <= RECORDS)
            return;
        if (generation->users > 0)
            continue;
        forget(generation);
        count--;
    }
}

static void drop_config(bt_master *master, bt_generation *generation)
{
    if (generation->owns_config) {
        bt_config *config = (bt_config *) (uintptr_t) generation->config; /* ours to free since it was given */
        master->service->free_config(config);
    }
    generation->config = NULL;
    generation->owns_config = false;
}

void bt_generation_unref(bt_master *master, bt_generation *generation)
{
    if (generation == NULL || --generation->users > 0)
        return;
    int err = bt_generation_remove(master->config->master.run_dir, generation->number);
    if (err < 0)
        bt_log(BT_LOG_WARN, "generation-not-removed generation=%" PRIu64 " error=\"%s\"", generation->number,
               strerror(-err));
    drop_config(master, generation);
    bound_records(master);
}

void bt_generations_free(bt_master *master)
{
    bt_list_each (node, &master->generations) {
        bt_generation *generation = bt_container(node, bt_generation, node);
        drop_config(master, generation);
        forget(generation);
    }
}

void bt_generation_set(bt_master *master, bt_generation **place, bt_generation *generation)
{
    bt_generation *old = *place;
    *place = generation == NULL ? NULL : bt_generation_ref(generation);
    bt_generation_unref(master, old);
}

const bt_worker_config *bt_generation_section(const bt_generation *generation, const char *worker)
{
    const bt_config *config = generation->config;
    for (size_t i = 0; config != NULL && i < config->worker_count; i++) {
        if (strcmp(config->workers[i]->name, worker) == 0)
            return config->workers[i];
    }
    return NULL;
}

const bt_module_copy *bt_generation_module(const bt_generation *generation, const char *worker)
{
    for (size_t i = 0; i < generation->module_count; i++) {
        if (strcmp(generation->modules[i].worker, worker) == 0)
            return &generation->modules[i];
    }
    return NULL;
}
