/* proc/reload.c: who asks for a reload and what they hear: requests become jobs, jobs become rolls, results are told.
 * Must not know how slots are replaced: that is roll.c. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <inttypes.h>
#include <proc/master_state.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <string.h>

#define NOBODY    "no worker is reloadable: their processes were told"
#define OVERTAKEN "overtaken by a rollback"

/* ---- who waits ---- */

void bt_reload_progress(bt_master *master, const bt_slot *slot, const char *step, pid_t pid, uint64_t generation,
                        const char *detail)
{
    const char *worker = slot == NULL ? "" : slot->crew->worker->config->name;
    int index = slot == NULL ? -1 : slot->index;
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->on_progress(waiter, worker, index, step, pid, generation, detail);
    }
}

static void tell(bt_waiter *waiter, bool ok, uint64_t generation, const char *message, const char *log)
{
    bt_list_remove(&waiter->node);
    waiter->on_done(waiter, ok, generation, message, log);
}

void bt_reload_answer(bt_master *master, uint64_t serial, bool ok, bt_wait wait, const char *message)
{
    const bt_roll *roll = &master->roll;
    if (ok)
        bt_upgrade_served(master, serial);
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        bool is_concerned = waiter->serial <= serial && (!ok || waiter->wait <= wait);
        if (is_concerned)
            tell(waiter, ok, roll->generation, message, ok ? "" : roll->failure_log);
    }
}

void bt_reload_remember(bt_master *master, uint64_t generation, bool ok, uint64_t since_ms, const char *message)
{
    bt_roll *roll = &master->roll;
    roll->has_last = true;
    roll->last_ok = ok;
    roll->last_generation = generation;
    roll->last_took_ms = bt_clock_ms() - since_ms;
    snprintf(roll->last_message, sizeof roll->last_message, "%s", message);
    bt_log(ok ? BT_LOG_INFO : BT_LOG_ERROR, "reload generation=%" PRIu64 " ok=%s took_ms=%" PRIu64 " message=\"%s\"",
           generation, ok ? "yes" : "no", roll->last_took_ms, message);
}

void bt_reload_cancel(bt_master *master, const char *why)
{
    bt_prepare_cancel(master);
    bt_upgrade_cancel(master, why);
    bt_reload_answer(master, UINT64_MAX, false, BT_WAIT_PROBATION, why);
}

/* ---- who asks ---- */

/* Processes that stay are told that a reload was asked for (Workerman: onWorkerReload only). */
static void note_reload(bt_crew *crew)
{
    for (size_t i = 0; i < crew->slot_count; i++) {
        if (crew->slots[i]->serving != NULL)
            bt_channel_send(&crew->slots[i]->serving->channel, BT_MESSAGE_RELOAD_NOTE, 0, NULL, -1);
    }
}

/* Marks who takes part in the job; returns how many do. */
static size_t choose_crews(bt_master *master, const bt_crew *only, bt_job_place place)
{
    size_t count = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bool takes_part = !crew->is_leaving && (only == NULL ? crew->config->reloadable : only == crew);
        if (only == NULL && !takes_part)
            note_reload(crew);
        crew->takes_part[place] = crew->takes_part[place] || takes_part;
        count += takes_part;
    }
    return count;
}

static void want(bt_master *master, bt_reload_job *job, bool everything, bool without_limit)
{
    if (!job->is_wanted) {
        job->serial = ++master->roll.last_serial;
        job->generation = ++master->last_generation;
        job->asked_ms = bt_clock_ms();
        job->without_limit = true;
    }
    job->is_wanted = true;
    job->everything = job->everything || everything;
    job->without_limit = job->without_limit && without_limit; /* one that knows limits must not wait for ever */
}

static void answer_at_once(bt_waiter *waiter, bool ok, uint64_t generation, const char *message)
{
    if (waiter != NULL)
        waiter->on_done(waiter, ok, generation, message, "");
}

static void wait_for(bt_master *master, bt_waiter *waiter, const bt_reload_job *job)
{
    if (waiter == NULL)
        return;
    waiter->serial = job->serial;
    if (waiter->wait == BT_WAIT_NONE) {
        answer_at_once(waiter, true, job->generation, "accepted");
        return;
    }
    bt_list_append(&master->roll.waiters, &waiter->node);
    waiter->on_progress(waiter, "", -1, "preparing", 0, job->generation, "");
}

void bt_reload_request(bt_master *master, bt_crew *crew, bool without_limit, bt_waiter *waiter)
{
    bt_roll *roll = &master->roll;
    if (master->phase == BT_MASTER_STOPPING) {
        answer_at_once(waiter, false, 0, "the service is being stopped");
        return;
    }
    if (master->service->on_master_reload != NULL)
        master->service->on_master_reload();
    roll->reloads++;
    /* A helper that runs may have read a file before it changed: the request needs the next one. */
    bt_job_place place = roll->helper != 0 ? BT_JOB_NEXT : BT_JOB_NOW;
    bool may_add_workers = crew == NULL && master->service->read_config != NULL;
    if (choose_crews(master, crew, place) == 0 && !may_add_workers) {
        answer_at_once(waiter, true, master->last_generation, NOBODY);
        return;
    }
    if (!without_limit)
        bt_roll_end_patience(master);
    want(master, &roll->jobs[place], crew == NULL, without_limit);
    wait_for(master, waiter, &roll->jobs[place]);
}

uint64_t bt_reload_for_upgrade(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++)
        master->crews[i]->takes_part[BT_JOB_NOW] = !master->crews[i]->is_leaving;
    want(master, &master->roll.jobs[BT_JOB_NOW], true, false);
    return master->roll.jobs[BT_JOB_NOW].serial;
}

/* ---- what the helper made ---- */

static void not_prepared(bt_master *master, const char *why)
{
    const bt_reload_job *job = &master->roll.jobs[BT_JOB_DONE];
    char message[sizeof master->roll.last_message];
    if (bt_upgrade_failed(master, job->serial, job->generation, false, why))
        return;
    snprintf(message, sizeof message, "%s; the old code serves on", why);
    bt_reload_remember(master, job->generation, false, job->asked_ms, message);
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        if (waiter->serial == job->serial) /* an earlier one may still succeed */
            tell(waiter, false, job->generation, message, "");
    }
}

/* Nothing has begun: no crew keeps a plan, and what was made for it goes. */
static void drop_plan(bt_master *master)
{
    for (size_t i = master->crew_count; i-- > 0;) {
        bt_crew *crew = master->crews[i];
        bt_generation_set(master, &crew->next, NULL);
        if (crew->target == NULL)
            bt_crew_discard(crew);
    }
    bt_listeners_retire(master);
}

/* ---- listening ---- */

/* The worker that stays at this address, though the plan gives it to `crew`; or NULL. */
static const bt_crew *find_tenant(const bt_master *master, const bt_crew *crew, const bt_worker_config *config)
{
    const bt_listen_set *set = bt_listeners_find(master, config);
    for (size_t i = 0; set != NULL && i < master->crew_count; i++) {
        const bt_crew *other = master->crews[i];
        bool stays = other != crew && other->next == NULL && !other->plans_to_leave && !other->is_leaving;
        if (stays && bt_listeners_find(master, other->config) == set)
            return other;
    }
    return NULL;
}

static int open_one(bt_master *master, bt_crew *crew, char *why, size_t size)
{
    const bt_worker_config *config = bt_generation_section(crew->next, crew->name);
    const bt_crew *tenant = find_tenant(master, crew, config);
    char detail[256];
    int err = tenant != NULL ? -EADDRINUSE : bt_listeners_open(master, crew, config, detail, sizeof detail);
    if (tenant != NULL)
        snprintf(why, size, "worker %s: %s is the address of worker %s, which this does not change", crew->name,
                 config->listen, tenant->name);
    else if (err < 0)
        snprintf(why, size, "worker %s: %s", crew->name, detail);
    return err;
}

/* Whatever can be refused comes first: a socket that is one of several gets clients as soon as it is there. */
static int open_addresses(bt_master *master, char *why, size_t size)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < master->crew_count; i++) {
        if (master->crews[i]->next != NULL)
            err = open_one(master, master->crews[i], why, size);
    }
    for (size_t i = 0; err == 0 && i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        if (crew->next != NULL)
            err = bt_listeners_provide(master, crew, bt_generation_section(crew->next, crew->name), why, size);
    }
    return err;
}

/* ---- the plan ---- */

/* A worker of the new configuration goes to the new generation. 0, or a negative errno with words in `why`. */
static int plan_worker(bt_master *master, bt_generation *generation, const bt_worker_config *config, char *why,
                       size_t size)
{
    const bt_reload_job *job = &master->roll.jobs[BT_JOB_DONE];
    bt_crew *crew = bt_crew_find(master, config->name);
    if (crew != NULL && !crew->takes_part[BT_JOB_DONE])
        return 0;
    if (crew == NULL && !job->everything)
        return 0; /* a worker that nobody has asked for yet */
    if (crew == NULL)
        crew = bt_crew_new(master, config, NULL);
    if (crew == NULL) {
        snprintf(why, size, "worker %s: out of memory", config->name);
        return -ENOMEM;
    }
    bt_generation_set(master, &crew->next, generation);
    return 0;
}

/* A reload of everything also decides who is there; else a roll that goes on may have decided it. */
static int plan_crew(const bt_generation *generation, const bt_reload_job *job, bt_crew *crew, char *why, size_t size)
{
    bool is_known = bt_generation_section(generation, crew->name) != NULL;
    if (job->everything)
        crew->plans_to_leave = !is_known && !crew->is_leaving;
    else
        crew->plans_to_leave = crew->shall_leave && crew->next == NULL;
    if (job->everything || !crew->takes_part[BT_JOB_DONE] || is_known || crew->is_leaving)
        return 0;
    snprintf(why, size, "worker %s: is no longer in the configuration: a reload without a name removes it", crew->name);
    return -ENOENT;
}

static int plan(bt_master *master, bt_generation *generation, char *why, size_t size)
{
    const bt_reload_job *job = &master->roll.jobs[BT_JOB_DONE];
    int err = 0;
    for (size_t i = 0; err == 0 && i < generation->config->worker_count; i++)
        err = plan_worker(master, generation, generation->config->workers[i], why, size);
    for (size_t i = 0; err == 0 && i < master->crew_count; i++)
        err = plan_crew(generation, job, master->crews[i], why, size);
    return err < 0 ? err : open_addresses(master, why, size);
}

static bool has_plan(const bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        if (crew->next != NULL || crew->plans_to_leave != crew->shall_leave)
            return true;
    }
    return false;
}

static void begin(bt_master *master, bt_generation *generation)
{
    const bt_reload_job *job = &master->roll.jobs[BT_JOB_DONE];
    char why[512];
    generation->is_whole = job->everything;
    int err = plan(master, generation, why, sizeof why);
    if (err < 0) {
        drop_plan(master);
        not_prepared(master, why);
    } else if (has_plan(master)) {
        bt_roll_start(master, job, generation->number, job->everything ? generation : NULL);
    } else {
        if (job->everything)
            bt_master_apply(master, generation);
        bt_reload_answer(master, job->serial, true, BT_WAIT_PROBATION, NOBODY);
    }
}

void bt_reload_prepared(bt_master *master, bt_generation *generation, const char *why)
{
    bool is_first = master->current == NULL;
    if (why != NULL && generation != NULL)
        snprintf(generation->failure, sizeof generation->failure, "%s", why);
    if (master->phase == BT_MASTER_STOPPING)
        ; /* it came too late */
    else if (why != NULL && is_first)
        bt_master_start_failed(master, why);
    else if (why != NULL)
        not_prepared(master, why);
    else if (master->upgrade.shall_return)
        not_prepared(master, "the program is about to change");
    else if (is_first)
        bt_roll_start_first(master, generation);
    else
        begin(master, generation);
    bt_generation_unref(master, generation);
}

/* ---- back on demand ---- */

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
            tell(waiter, false, job->generation, OVERTAKEN, "");
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
    return err < 0 ? err : open_addresses(master, why, size);
}

void bt_rollback_request(bt_master *master, bt_crew *only, bt_waiter *waiter)
{
    bt_roll *roll = &master->roll;
    bt_generation *whole = NULL;
    char why[512] = "";
    bool can_plan = why_not_now(master) == NULL;
    bt_generation *back = can_plan ? plan_rollback(master, only, newest_number(master)) : NULL;
    if (back == NULL) {
        answer_at_once(waiter, false, master->last_generation, why_not_back(master, only));
        return;
    }
    if (plan_way_back(master, only, back, &whole, why, sizeof why) < 0) {
        drop_plan(master);
        answer_at_once(waiter, false, back->number, why);
        return;
    }
    bt_log(BT_LOG_WARN, "rollback generation=%" PRIu64, back->number);
    overtake_jobs(master, only);
    if (roll->state == BT_ROLL_ROLLING || roll->in_probation)
        bt_reload_answer(master, roll->serial, false, BT_WAIT_PROBATION, OVERTAKEN);
    bt_reload_job job = {.serial = ++roll->last_serial, .generation = back->number, .asked_ms = bt_clock_ms()};
    wait_for(master, waiter, &job);
    bt_roll_start(master, &job, back->number, whole);
}
