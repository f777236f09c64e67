/* proc/reload.c: who asks for a reload and what they hear: requests become jobs, jobs become rolls, results are told.
 * Must not know how slots are replaced: that is roll.c. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <inttypes.h>
#include <proc/master_state.h>
#include <proc/upgrade.h>
#include <stdio.h>

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

static void tell(bt_waiter *waiter, bool ok, uint64_t generation, const char *message, const char *log)
{
    bt_list_remove(&waiter->node);
    waiter->on_done(waiter, ok, generation, message, log);
}

void bt_reload_answer(bt_master *master, uint64_t serial, bool ok, bt_wait wait, const char *message)
{
    const bt_roll *roll = &master->roll;
    if (bt_upgrade_concluded(master, serial, ok, message))
        return;
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
    snprintf(message, sizeof message, "%s; the old code serves on", why);
    bt_reload_remember(master, job->generation, false, job->asked_ms, message);
    if (bt_upgrade_concluded(master, job->serial, false, message))
        return;
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        if (waiter->serial == job->serial) /* an earlier one may still succeed */
            tell(waiter, false, job->generation, message, "");
    }
}

/* Nothing has begun: no crew keeps a plan, and what was made for it goes. */
static void drop_plan(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bt_generation_set(master, &crew->next, NULL);
        crew->shall_leave = false;
        if (crew->target == NULL)
            bt_crew_dismiss(crew);
    }
    bt_listeners_retire(master);
}

/* A worker of the new configuration goes to the new generation. 0, or a negative errno with words in `why`. */
static int plan_worker(bt_master *master, bt_generation *generation, const bt_worker_config *config, char *why,
                       size_t size)
{
    const bt_reload_job *job = &master->roll.jobs[BT_JOB_DONE];
    char detail[256] = "out of memory";
    bt_crew *crew = bt_crew_find(master, config->name);
    if (crew != NULL && !crew->takes_part[BT_JOB_DONE])
        return 0;
    if (crew == NULL && !job->everything)
        return 0; /* a worker that nobody has asked for yet */
    if (crew == NULL)
        crew = bt_crew_new(master, config, NULL);
    int err = crew == NULL ? -ENOMEM : bt_listeners_provide(master, crew, config, detail, sizeof detail);
    if (err < 0)
        snprintf(why, size, "worker %s: %s", config->name, detail);
    else
        bt_generation_set(master, &crew->next, generation);
    return err;
}

static int plan(bt_master *master, bt_generation *generation, char *why, size_t size)
{
    const bt_reload_job *job = &master->roll.jobs[BT_JOB_DONE];
    int err = 0;
    for (size_t i = 0; err == 0 && i < generation->config->worker_count; i++)
        err = plan_worker(master, generation, generation->config->workers[i], why, size);
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bool is_known = bt_generation_section(generation, crew->name) != NULL;
        if (job->everything) /* else a roll that goes on may have decided it */
            crew->shall_leave = !is_known && !crew->is_leaving;
        if (err == 0 && !job->everything && crew->takes_part[BT_JOB_DONE] && !is_known) {
            snprintf(why, size, "worker %s: is no longer in the configuration: a reload without a name removes it",
                     crew->name);
            err = -ENOENT;
        }
    }
    return err;
}

static bool has_plan(const bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        if (master->crews[i]->next != NULL || master->crews[i]->shall_leave)
            return true;
    }
    return false;
}

static void begin(bt_master *master, bt_generation *generation)
{
    const bt_reload_job *job = &master->roll.jobs[BT_JOB_DONE];
    char why[512];
    int err = plan(master, generation, why, sizeof why);
    if (err < 0) {
        drop_plan(master);
        not_prepared(master, why);
    } else if (has_plan(master)) {
        bt_roll_start(master, job, generation->number, job->everything ? generation : NULL);
    } else {
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
    if (crew->good != NULL && crew->target != crew->good)
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

/* The crews of the newest roll, or the named one. Returns the newest generation that one goes back to, NULL: none. */
static bt_generation *plan_rollback(bt_master *master, const bt_crew *only)
{
    uint64_t newest = newest_number(master);
    bt_generation *found = NULL;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->shall_leave = false;
        bool takes_part = !crew->is_leaving && (only == NULL ? crew->target->number == newest : crew == only);
        bt_generation *back = takes_part ? earlier(crew) : NULL;
        if (back != NULL)
            bt_generation_set(master, &crew->next, back);
        if (back != NULL && (found == NULL || back->number > found->number))
            found = back;
    }
    return found;
}

/* Workers that the newest generation has added go, those that it has removed come back. */
static int plan_set_of_workers(bt_master *master, bt_generation *back, char *why, size_t size)
{
    int err = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->shall_leave = !crew->is_leaving && crew->next == NULL && bt_generation_section(back, crew->name) == NULL;
    }
    for (size_t i = 0; err == 0 && i < back->config->worker_count; i++) {
        const bt_worker_config *config = back->config->workers[i];
        bt_crew *crew = bt_crew_find(master, config->name);
        const bt_module_copy *copy = bt_generation_module(back, config->name);
        if (crew != NULL || (config->module != NULL && copy->path[0] == '\0'))
            continue; /* it was not part of that generation's roll */
        crew = bt_crew_new(master, config, NULL);
        if (crew == NULL) {
            snprintf(why, size, "out of memory");
            return -ENOMEM;
        }
        bt_generation_set(master, &crew->next, back);
    }
    return err;
}

static int provide_all(bt_master *master, char *why, size_t size)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        if (crew->next == NULL)
            continue;
        char detail[256] = "";
        err = bt_listeners_provide(master, crew, bt_generation_section(crew->next, crew->name), detail, sizeof detail);
        if (err < 0)
            snprintf(why, size, "worker %s: %s", crew->name, detail);
    }
    return err;
}

static const char *why_not_back(const bt_master *master, const bt_crew *only)
{
    if (master->phase != BT_MASTER_RUNNING)
        return master->phase == BT_MASTER_STOPPING ? "the service is being stopped" : "the service is just starting";
    return only == NULL ? "there is no earlier generation to go back to"
                        : "there is no earlier generation of this worker to go back to";
}

void bt_rollback_request(bt_master *master, bt_crew *only, bt_waiter *waiter)
{
    bt_roll *roll = &master->roll;
    char why[512] = "";
    bt_generation *back = master->phase == BT_MASTER_RUNNING ? plan_rollback(master, only) : NULL;
    if (back == NULL) {
        answer_at_once(waiter, false, master->last_generation, why_not_back(master, only));
        return;
    }
    int err = only == NULL ? plan_set_of_workers(master, back, why, sizeof why) : 0;
    if (err == 0)
        err = provide_all(master, why, sizeof why);
    if (err < 0) {
        drop_plan(master);
        answer_at_once(waiter, false, back->number, why);
        return;
    }
    bt_log(BT_LOG_WARN, "rollback generation=%" PRIu64, back->number);
    if (roll->state == BT_ROLL_ROLLING || roll->in_probation)
        bt_reload_answer(master, roll->serial, false, BT_WAIT_PROBATION, "overtaken by a rollback");
    bt_reload_job job = {.serial = ++roll->last_serial, .generation = back->number, .asked_ms = bt_clock_ms()};
    wait_for(master, waiter, &job);
    bt_roll_start(master, &job, back->number, only == NULL ? back : NULL);
}
