/* proc/roll.c: replaces the processes of workers by a new generation, slot by slot.
 * Must not know how processes are forked or talk (slot.c), nor what follows a failure (way_back.c) or the last slot
 * (roll_end.c). */
#include <proc/roll_internal.h>
#include <proc/upgrade.h>

/* ---- which generation where ---- */

void bt_roll_stop_timers(bt_master *master)
{
    uv_timer_stop(&master->roll.probation);
    uv_timer_stop(&master->roll.mend);
    master->roll.in_probation = false;
}

bool bt_roll_is_unproven(const bt_crew *crew)
{
    return crew->target != crew->good;
}

bt_generation *bt_roll_restart_generation(bt_slot *slot)
{
    bt_crew *crew = slot->crew;
    bt_generation *known[] = {crew->target, crew->previous, crew->good};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i] != NULL && known[i]->number == slot->generation)
            return known[i];
    }
    return crew->good == NULL ? crew->target : crew->good;
}

/* ---- one slot after the other ---- */

/* A successor of another generation than the target: it must not come to serve. */
bool bt_roll_has_wrong_successor(const bt_slot *slot)
{
    const bt_generation *target = slot->crew->target;
    bool is_starting = slot->successor != NULL && (slot->successor->generation != target || slot->successor->is_stale);
    return is_starting || (slot->wanted != NULL && slot->wanted != target);
}

/* Runs the target, and accepts from all sockets that are its. */
bool bt_roll_is_right(const bt_child *serving)
{
    return serving->generation == serving->slot->crew->target && !serving->is_stale &&
           !bt_listeners_are_missed(serving);
}

static bool slot_is_done(const bt_slot *slot)
{
    if (bt_slot_is_surplus(slot))
        return slot->serving == NULL && slot->successor == NULL && slot->wanted == NULL;
    return slot->serving != NULL && bt_roll_is_right(slot->serving) && !bt_roll_has_wrong_successor(slot);
}

/* Slots that go come last: their connections need somebody to take them. */
static bt_slot *next_slot(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bool takes_part = crew->in_roll && !crew->shall_leave; /* code that goes anyway is not renewed */
        for (size_t j = 0; takes_part && j < crew->slot_count; j++) {
            if (!slot_is_done(crew->slots[j]))
                return crew->slots[j];
        }
    }
    return NULL;
}

static bool stops_first(const bt_slot *slot)
{
    return slot->crew->config->strategy == BT_STRATEGY_STOP_FIRST;
}

static uint64_t drain_timeout(const bt_slot *slot)
{
    return slot->crew->master->roll.without_limit ? BT_NO_LIMIT : slot->crew->config->drain_timeout_ms;
}

/* The roll waits until `old` has passed what it can. */
static void replace_first(bt_slot *slot, const char *step, bt_child *heir, bool has_heir)
{
    bt_master *master = slot->crew->master;
    bt_child *old = slot->serving;
    master->roll.old = old;
    bt_reload_progress(master, slot, step, old->pid, old->generation->number, "");
    bt_child_drain(old, heir, has_heir, drain_timeout(slot));
}

void bt_roll_step_done(bt_master *master)
{
    master->roll.slot = NULL;
    master->roll.old = NULL;
    bt_roll_advance(master);
}

static void begin_slot(bt_master *master, bt_slot *slot)
{
    bt_roll *roll = &master->roll;
    bt_crew *crew = slot->crew;
    roll->slot = slot;
    bt_slot_cancel_restart(slot);
    if (slot->successor != NULL) {
        if (bt_roll_has_wrong_successor(slot) || bt_slot_is_surplus(slot))
            bt_child_kill(slot->successor); /* it starts other code; its end brings us back here */
        return;
    }
    bt_slot_cancel_spawn(slot);
    if (slot_is_done(slot)) {
        bt_roll_step_done(master);
    } else if (bt_slot_is_surplus(slot)) {
        bt_child *heir = bt_slot_sibling(slot);
        replace_first(slot, "passing", heir, true);
    } else if (stops_first(slot) && slot->serving != NULL) {
        bt_child *heir = bt_slot_sibling(slot);
        replace_first(slot, "stopping", heir, heir != NULL);
    } else {
        bt_slot_spawn(slot, crew->target);
    }
}

void bt_roll_child_ready(bt_child *child)
{
    bt_slot *slot = child->slot;
    bt_master *master = slot->crew->master;
    bt_roll *roll = &master->roll;
    bt_reload_progress(master, slot, "ready", child->pid, child->generation->number, "");
    if (roll->slot != slot) {
        bt_roll_advance(master);
        return;
    }
    bt_child *old = bt_list_empty(&slot->leaving) ? NULL : bt_container(slot->leaving.prev, bt_child, leaving);
    if (old != NULL && old->state == BT_CHILD_DRAINING && !old->handed_over) {
        roll->old = old;
        bt_reload_progress(master, slot, "passing", old->pid, old->generation->number, "");
        return;
    }
    bt_roll_step_done(master);
}

void bt_roll_child_handed_over(bt_child *child)
{
    bt_slot *slot = child->slot;
    bt_master *master = slot->crew->master;
    if (master->roll.old != child)
        return;
    bt_reload_progress(master, slot, "passed", child->pid, child->generation->number, "");
    if (slot->serving != NULL || bt_slot_is_surplus(slot) || !stops_first(slot))
        bt_roll_step_done(master); /* else the place is empty until the old process has ended */
}

bool bt_roll_owns_slot(const bt_slot *slot)
{
    const bt_roll *roll = &slot->crew->master->roll;
    return roll->slot == slot && roll->old != NULL && stops_first(slot); /* its end brings the successor */
}

void bt_roll_advance(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (master->phase != BT_MASTER_RUNNING || roll->state == BT_ROLL_IDLE || roll->slot != NULL)
        return;
    bt_slot *slot = next_slot(master);
    if (slot != NULL) {
        begin_slot(master, slot);
        return;
    }
    bt_roll_finish(master);
    bt_recycle_next(master);
}

void bt_roll_resume(bt_master *master)
{
    bt_roll_advance(master);
}

/* ---- start and stop ---- */

void bt_roll_init(bt_master *master)
{
    bt_roll *roll = &master->roll;
    bt_list_init(&roll->waiters);
    uv_timer_init(&master->loop, &roll->probation);
    uv_timer_init(&master->loop, &roll->mend);
    roll->probation.data = roll->mend.data = master;
}

void bt_roll_start_first(bt_master *master, bt_generation *generation)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        if (bt_crew_set_target(crew, generation) < 0) {
            bt_master_start_failed(master, "out of memory");
            return;
        }
        for (size_t j = 0; j < crew->slot_count; j++)
            bt_slot_spawn(crew->slots[j], generation);
    }
    generation->is_whole = true;
    bt_master_apply(master, generation);
}

/* False when it has to keep what it has. */
static bool enter(bt_crew *crew, bool was_idle)
{
    bt_master *master = crew->master;
    bt_generation *serving = crew->target;
    if (was_idle && serving != NULL) /* all its slots serve it */
        bt_generation_set(master, &crew->previous, serving);
    if (bt_crew_set_target(crew, crew->next) < 0)
        return false;
    crew->in_roll = crew->is_rolling = true;
    for (size_t i = 0; i < crew->slot_count; i++) {
        crew->slots[i]->kills = 0;
        crew->slots[i]->short_lives = 0; /* new code has not died young yet */
    }
    return true;
}

/* What the roll waits for in this slot has no point any more: what starts there is obsolete, and may take its time;
 * its worker goes; or it was being emptied, and shall be filled now. */
static bool is_obsolete(const bt_slot *slot)
{
    bool was_surplus = slot->serving == NULL && slot->successor == NULL && slot->wanted == NULL &&
                       !bt_slot_is_surplus(slot) && !stops_first(slot);
    return bt_roll_has_wrong_successor(slot) || slot->crew->shall_leave || was_surplus;
}

static void leave_slot(bt_roll *roll)
{
    roll->slot = NULL;
    roll->old = NULL;
}

static void overtake(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (roll->state == BT_ROLL_REVERTING &&
        !roll->is_mending) /* overtaken: who waited for the failed one hears it now */
        bt_reload_answer(master, roll->failed_serial, false, BT_WAIT_PROBATION, roll->failure);
    bt_roll_stop_timers(master);
    roll->is_mending = false;
    roll->mend_tries = 0;
}

void bt_roll_start(bt_master *master, const bt_reload_job *job, uint64_t number, bt_generation *whole)
{
    bt_roll *roll = &master->roll;
    bool was_idle = roll->state == BT_ROLL_IDLE;
    if (was_idle)
        bt_upgrade_superseded(master);
    overtake(master);
    if (was_idle)
        roll->started_ms = job->asked_ms;
    roll->state = BT_ROLL_ROLLING;
    roll->generation = number;
    if (roll->serial < job->serial) /* a rollback may have come between a reload and its roll */
        roll->serial = job->serial;
    roll->failure_log[0] = '\0';
    if (whole != NULL || was_idle)
        bt_generation_set(master, &roll->whole, whole);
    if (!job->without_limit)
        bt_roll_end_patience(master);
    roll->without_limit = job->without_limit;
    const char *why = NULL;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->shall_leave = crew->plans_to_leave;
        if (crew->next != NULL && !enter(crew, was_idle))
            why = "out of memory";
        bt_generation_set(master, &crew->next, NULL);
    }
    if (roll->slot != NULL && is_obsolete(roll->slot))
        leave_slot(roll);
    if (why != NULL)
        bt_roll_fail(master, NULL, false, why);
    else
        bt_roll_advance(master);
}

void bt_roll_end_patience(bt_master *master)
{
    bt_roll *roll = &master->roll;
    roll->without_limit = false;
    if (roll->old != NULL)
        bt_child_limit(roll->old, roll->old->slot->crew->config->drain_timeout_ms);
}

void bt_roll_stop(bt_master *master)
{
    bt_roll_stop_timers(master);
    master->roll.slot = NULL;
    master->roll.old = NULL;
    master->roll.state = BT_ROLL_IDLE;
}
