/* proc/reload.c: who asks for a reload and what they hear: requests become jobs, jobs become rolls, results are told.
 * Must not know how slots are replaced: that is roll.c. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <inttypes.h>
#include <proc/reload_internal.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <string.h>

#define NOBODY "no worker is reloadable: their processes were told"

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

void bt_waiter_tell(bt_waiter *waiter, bool ok, uint64_t generation, const char *message, const char *log)
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
            bt_waiter_tell(waiter, ok, roll->generation, message, ok ? "" : roll->failure_log);
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

void bt_waiter_answer_at_once(bt_waiter *waiter, bool ok, uint64_t generation, const char *message)
{
    if (waiter != NULL)
        waiter->on_done(waiter, ok, generation, message, "");
}

void bt_waiter_add(bt_master *master, bt_waiter *waiter, const bt_reload_job *job)
{
    if (waiter == NULL)
        return;
    waiter->serial = job->serial;
    if (waiter->wait == BT_WAIT_NONE) {
        bt_waiter_answer_at_once(waiter, true, job->generation, "accepted");
        return;
    }
    bt_list_append(&master->roll.waiters, &waiter->node);
    waiter->on_progress(waiter, "", -1, "preparing", 0, job->generation, "");
}

void bt_reload_request(bt_master *master, bt_crew *crew, bool without_limit, bt_waiter *waiter)
{
    bt_roll *roll = &master->roll;
    if (master->phase == BT_MASTER_STOPPING) {
        bt_waiter_answer_at_once(waiter, false, 0, "the service is being stopped");
        return;
    }
    if (master->service->on_master_reload != NULL)
        master->service->on_master_reload();
    roll->reloads++;
    /* A helper that runs may have read a file before it changed: the request needs the next one. */
    bt_job_place place = roll->helper != 0 ? BT_JOB_NEXT : BT_JOB_NOW;
    bool may_add_workers = crew == NULL && master->service->read_config != NULL;
    if (choose_crews(master, crew, place) == 0 && !may_add_workers) {
        bt_waiter_answer_at_once(waiter, true, master->last_generation, NOBODY);
        return;
    }
    if (!without_limit)
        bt_roll_end_patience(master);
    want(master, &roll->jobs[place], crew == NULL, without_limit);
    bt_waiter_add(master, waiter, &roll->jobs[place]);
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
            bt_waiter_tell(waiter, false, job->generation, message, "");
    }
}

/* Nothing has begun: no crew keeps a plan, and what was made for it goes. */
void bt_plan_drop(bt_master *master)
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
int bt_plan_open_addresses(bt_master *master, char *why, size_t size)
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
    return err < 0 ? err : bt_plan_open_addresses(master, why, size);
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
        bt_plan_drop(master);
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
