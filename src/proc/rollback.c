/* proc/rollback.c: back on demand: which earlier generation each worker goes to, and what of the present is given up.
 * Must not know how slots change: it plans a roll like any other. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <inttypes.h>
#include <proc/reload_internal.h>
#include <stdio.h>
#include <string.h>

#define OVERTAKEN "overtaken by a rollback"

/* The one before the last that proved itself; before the present one, if that is still on probation. */
static bt_generation *earlier(const bt_crew *crew)
{
    bool is_on_its_way = crew->master->roll.state == BT_ROLL_REVERTING && crew->in_roll;
    if (crew->good != NULL && (crew->target != crew->good || is_on_its_way))
        return crew->good;
    return crew->kept_count == 0 ? NULL : crew->kept[crew->kept_count - 1];
}

static uint64_t newest_number(const bt_master *master)
{
    uint64_t newest = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        if (!crew->is_leaving && crew->target->number > newest && earlier(crew) != NULL)
            newest = crew->target->number;
    }
    return newest;
}

/* What a rollback without a name is about: the workers of the newest roll, or of the one that is failing. */
static bool is_of_newest(const bt_crew *crew, uint64_t newest)
{
    if (crew->master->roll.state == BT_ROLL_REVERTING)
        return crew->in_roll;
    return crew->target->number == newest;
}

/* Returns the newest generation that a worker goes back to, NULL: none. */
static bt_generation *plan_rollback(bt_master *master, const bt_crew *only, uint64_t newest)
{
    bt_generation *found = NULL;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bool takes_part = !crew->is_leaving && (only == NULL ? is_of_newest(crew, newest) : crew == only);
        bt_generation *back = takes_part ? earlier(crew) : NULL;
        crew->plans_to_leave = crew->shall_leave && back == NULL;
        if (back != NULL)
            bt_generation_set(master, &crew->next, back);
        if (back != NULL && (found == NULL || back->number > found->number))
            found = back;
    }
    return found;
}

/* The generation was made for this worker, too. */
static bool is_part_of(const bt_generation *generation, const char *name)
{
    const bt_worker_config *config = bt_generation_section(generation, name);
    const bt_module_copy *copy = bt_generation_module(generation, name);
    return config != NULL && (config->module == NULL || (copy != NULL && copy->path[0] != '\0'));
}

/* The newest one up to `number` that still has all of itself, for a worker (NULL: made for all workers); or NULL. */
static bt_generation *find_up_to(const bt_master *master, uint64_t number, const char *worker)
{
    bt_generation *found = NULL;
    bt_list_each (node, &master->generations) {
        bt_generation *generation = bt_container(node, bt_generation, node);
        bool fits = worker == NULL ? generation->is_whole : is_part_of(generation, worker);
        if (fits && generation->config != NULL && generation->failure[0] == '\0' && generation->number <= number)
            found = generation;
    }
    return found;
}

static int bring_back(bt_master *master, const bt_generation *back, const bt_worker_config *config, char *why,
                      size_t size)
{
    bt_generation *generation = find_up_to(master, back->number, config->name);
    if (generation == NULL) {
        bt_log(BT_LOG_WARN, "worker-not-brought-back worker=%s", config->name);
        return 0; /* its files went with it */
    }
    const bt_worker_config *section = bt_generation_section(generation, config->name);
    bt_crew *crew = bt_crew_new(master, section, NULL);
    if (crew == NULL) {
        snprintf(why, size, "worker %s: out of memory", config->name);
        return -ENOMEM;
    }
    bt_generation_set(master, &crew->next, generation);
    return 0;
}

/* Workers that the newest generation has added go, those that it has removed come back. */
static int plan_set_of_workers(bt_master *master, const bt_generation *back, uint64_t newest, char *why, size_t size)
{
    int err = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bool is_new = !crew->is_leaving && crew->next == NULL && is_of_newest(crew, newest);
        crew->plans_to_leave = is_new && !is_part_of(back, crew->name);
    }
    for (size_t i = 0; err == 0 && i < back->config->worker_count; i++) {
        const bt_worker_config *config = back->config->workers[i];
        if (bt_crew_find(master, config->name) == NULL)
            err = bring_back(master, back, config, why, size);
    }
    return err;
}

static const char *why_not_now(const bt_master *master)
{
    if (master->phase != BT_MASTER_RUNNING)
        return master->phase == BT_MASTER_STOPPING ? "the service is being stopped" : "the service is just starting";
    return master->upgrade.on_trial && master->roll.state != BT_ROLL_IDLE ? "an upgrade is still on trial" : NULL;
}

static const char *why_not_back(const bt_master *master, const bt_crew *only)
{
    const char *why = why_not_now(master);
    if (why != NULL)
        return why;
    return only == NULL ? "there is no earlier generation to go back to"
                        : "there is no earlier generation of this worker to go back to";
}

/* Who asked for a reload that has not begun hears that it never will. */
static void give_up_job(bt_master *master, bt_reload_job *job)
{
    job->is_wanted = false;
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        if (waiter->serial == job->serial)
            bt_waiter_tell(waiter, false, job->generation, OVERTAKEN, "");
    }
}

/* What was asked for before must not come after it. */
static void overtake_jobs(bt_master *master, const bt_crew *only)
{
    bt_roll *roll = &master->roll;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        if (only == NULL || only == crew)
            memset(crew->takes_part, 0, sizeof crew->takes_part);
    }
    if (only != NULL)
        return; /* the others go on */
    bt_prepare_give_up(master, OVERTAKEN);
    if (roll->helper != 0 || roll->jobs[BT_JOB_NOW].is_wanted) /* now: the rollback may be over before the helper is */
        give_up_job(master, &roll->jobs[BT_JOB_NOW]);
    if (roll->jobs[BT_JOB_NEXT].is_wanted)
        give_up_job(master, &roll->jobs[BT_JOB_NEXT]);
}

static int plan_way_back(bt_master *master, const bt_crew *only, bt_generation *back, bt_generation **whole, char *why,
                         size_t size)
{
    uint64_t newest = newest_number(master);
    const bt_generation *newest_whole = find_up_to(master, UINT64_MAX, NULL);
    bool goes_whole = only == NULL && (master->roll.state == BT_ROLL_REVERTING ||
                                       (newest_whole != NULL && newest_whole->number == newest));
    int err = goes_whole ? plan_set_of_workers(master, back, newest, why, size) : 0;
    *whole = goes_whole ? find_up_to(master, back->number, NULL) : NULL;
    return err < 0 ? err : bt_plan_open_addresses(master, why, size);
}

void bt_rollback_request(bt_master *master, bt_crew *only, bt_waiter *waiter)
{
    bt_roll *roll = &master->roll;
    bt_generation *whole = NULL;
    char why[512] = "";
    bool can_plan = why_not_now(master) == NULL;
    bt_generation *back = can_plan ? plan_rollback(master, only, newest_number(master)) : NULL;
    if (back == NULL) {
        bt_waiter_answer_at_once(waiter, false, master->last_generation, why_not_back(master, only));
        return;
    }
    if (plan_way_back(master, only, back, &whole, why, sizeof why) < 0) {
        bt_plan_drop(master);
        bt_waiter_answer_at_once(waiter, false, back->number, why);
        return;
    }
    bt_log(BT_LOG_WARN, "rollback generation=%" PRIu64, back->number);
    overtake_jobs(master, only);
    if (roll->state == BT_ROLL_ROLLING || roll->in_probation)
        bt_reload_answer(master, roll->serial, false, BT_WAIT_PROBATION, OVERTAKEN);
    bt_reload_job job = {.serial = ++roll->last_serial, .generation = back->number, .asked_ms = bt_clock_ms()};
    bt_waiter_add(master, waiter, &job);
    bt_roll_start(master, &job, back->number, whole);
}
