/* proc/roll.c: replaces the processes of workers by a new generation, slot by slot, and goes back when it fails.
 * Must not know how processes are forked or talk: slot.c does, and tells what happened. */
#include <base/clock.h>
#include <base/log.h>
#include <inttypes.h>
#include <proc/master_state.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <string.h>

/* First pause before a failed way back is tried again; doubles five times. */
#define MEND_MS 1000u

#define FAILURE_LINES 8

static void advance(bt_master *master);
static void fail(bt_master *master, const bt_child *culprit, bool took_traffic, const char *reason);
static void finish_reverting(bt_master *master);

/* ---- which generation where ---- */

static void stop_timers(bt_master *master)
{
    uv_timer_stop(&master->roll.probation);
    uv_timer_stop(&master->roll.mend);
    master->roll.in_probation = false;
}

static bool is_unproven(const bt_crew *crew)
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
static bool has_wrong_successor(const bt_slot *slot)
{
    const bt_generation *target = slot->crew->target;
    bool is_starting = slot->successor != NULL && (slot->successor->generation != target || slot->successor->is_stale);
    return is_starting || (slot->wanted != NULL && slot->wanted != target);
}

/* Runs the target, and accepts from all sockets that are its. */
static bool is_right(const bt_child *serving)
{
    return serving->generation == serving->slot->crew->target && !serving->is_stale &&
           !bt_listeners_are_missed(serving);
}

static bool slot_is_done(const bt_slot *slot)
{
    if (bt_slot_is_surplus(slot))
        return slot->serving == NULL && slot->successor == NULL && slot->wanted == NULL;
    return slot->serving != NULL && is_right(slot->serving) && !has_wrong_successor(slot);
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

static void step_done(bt_master *master)
{
    master->roll.slot = NULL;
    master->roll.old = NULL;
    advance(master);
}

static void begin_slot(bt_master *master, bt_slot *slot)
{
    bt_roll *roll = &master->roll;
    bt_crew *crew = slot->crew;
    roll->slot = slot;
    bt_slot_cancel_restart(slot);
    if (slot->successor != NULL) {
        if (has_wrong_successor(slot) || bt_slot_is_surplus(slot))
            bt_child_kill(slot->successor); /* it starts other code; its end brings us back here */
        return;
    }
    bt_slot_cancel_spawn(slot);
    if (slot_is_done(slot)) {
        step_done(master);
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
        advance(master);
        return;
    }
    bt_child *old = bt_list_empty(&slot->leaving) ? NULL : bt_container(slot->leaving.prev, bt_child, leaving);
    if (old != NULL && old->state == BT_CHILD_DRAINING && !old->handed_over) {
        roll->old = old;
        bt_reload_progress(master, slot, "passing", old->pid, old->generation->number, "");
        return;
    }
    step_done(master);
}

void bt_roll_child_handed_over(bt_child *child)
{
    bt_slot *slot = child->slot;
    bt_master *master = slot->crew->master;
    if (master->roll.old != child)
        return;
    bt_reload_progress(master, slot, "passed", child->pid, child->generation->number, "");
    if (slot->serving != NULL || bt_slot_is_surplus(slot) || !stops_first(slot))
        step_done(master); /* else the place is empty until the old process has ended */
}

bool bt_roll_owns_slot(const bt_slot *slot)
{
    const bt_roll *roll = &slot->crew->master->roll;
    return roll->slot == slot && roll->old != NULL && stops_first(slot); /* its end brings the successor */
}

/* ---- failures ---- */

/* What the process said last, for whoever asked for the roll. */
static void remember_log(bt_roll *roll, const bt_child *culprit)
{
    roll->failure_log[0] = '\0';
    if (culprit != NULL)
        bt_log_tail_read(&culprit->row->tail, FAILURE_LINES, roll->failure_log, sizeof roll->failure_log);
}

/* A crash of code that has not proved itself sends the worker back. */
static void serving_crashed(bt_child *child, const char *reason)
{
    bt_crew *crew = child->slot->crew;
    if (!bt_slot_is_surplus(child->slot) && child->generation == crew->target && is_unproven(crew))
        fail(crew->master, child, true, reason);
}

/* The newest generation is tried (again) in the slot that the roll is at. */
static void try_again(bt_slot *slot)
{
    bt_master *master = slot->crew->master;
    if (master->roll.slot == slot)
        step_done(master);
}

static void start_failed(bt_slot *slot, const bt_generation *generation, const bt_child *culprit, const char *reason)
{
    bt_master *master = slot->crew->master;
    bt_roll *roll = &master->roll;
    if (!bt_slot_is_surplus(slot) && generation == slot->crew->target &&
        (is_unproven(slot->crew) || roll->slot == slot)) {
        fail(master, culprit, false, reason);
    } else {
        try_again(slot); /* it was an obsolete start */
    }
}

void bt_roll_start_failed(bt_slot *slot, const bt_generation *generation, const char *reason)
{
    bt_master *master = slot->crew->master;
    if (master->phase == BT_MASTER_STARTING)
        bt_master_start_failed(master, reason);
    else if (master->phase == BT_MASTER_RUNNING)
        start_failed(slot, generation, NULL, reason);
}

void bt_roll_child_gone(bt_child *child, const char *reason, bool by_outside_kill)
{
    bt_slot *slot = child->slot;
    bt_master *master = slot->crew->master;
    if (master->phase == BT_MASTER_STOPPING)
        return;
    if (master->phase == BT_MASTER_STARTING) {
        bt_master_start_failed(master, reason);
        return;
    }
    if (master->roll.old == child) {
        master->roll.old = NULL;
        bool place_is_empty = slot->serving == NULL && slot->successor == NULL && slot->wanted == NULL;
        if (place_is_empty && !bt_slot_is_surplus(slot))
            bt_slot_spawn(slot, slot->crew->target);
        else if (place_is_empty || slot->serving != NULL)
            step_done(master);
        return;
    }
    if (child->state == BT_CHILD_DRAINING || child->state == BT_CHILD_STOPPING)
        return; /* a straggler of an earlier step */
    if (by_outside_kill && slot->kills++ == 0) {
        try_again(slot); /* an operator or the out-of-memory killer, once: it says nothing about the code */
        return;
    }
    if (child->state == BT_CHILD_STARTING)
        start_failed(slot, child->generation, child, reason);
    else
        serving_crashed(child, reason);
}

/* Where a worker of the failed roll goes. Code that never took traffic leaves things as they were; code that did and
 * crashed makes anything unproven suspect. */
static bt_generation *way_back(const bt_crew *crew, bool took_traffic)
{
    bool can_stay = !took_traffic && crew->previous != NULL && crew->previous != crew->target;
    return can_stay ? crew->previous : crew->good;
}

/* The reason names each worker that had to stay. */
static void add_failure(bt_roll *roll, const char *worker, const char *why)
{
    size_t len = strlen(roll->failure);
    snprintf(roll->failure + len, sizeof roll->failure - len, "; worker %s could not go back: %s", worker, why);
}

/* Gives the crew back what it had. A worker that only the failed generation has goes; one whose old address cannot be
 * opened any more has to stay. False when it already is where it could go back to. */
static bool send_back(bt_crew *crew, bool took_traffic)
{
    char why[256] = "out of memory";
    bt_generation *back = way_back(crew, took_traffic);
    if (back == crew->target)
        return false;
    if (back == NULL) {
        bt_crew_dismiss(crew);
        return true;
    }
    int err = bt_listeners_provide(crew->master, crew, bt_generation_section(back, crew->name), why, sizeof why);
    if (err == 0)
        err = bt_crew_set_target(crew, back);
    if (err == 0)
        return true;
    bt_log(BT_LOG_ERROR, "way-back-failed worker=%s reason=\"%s\"", crew->name, why);
    add_failure(&crew->master->roll, crew->name, why);
    return false;
}

/* A process without the sockets that a failed plan has added to its address. */
static bool misses_sockets(const bt_crew *crew)
{
    for (size_t i = 0; i < crew->slot_count; i++) {
        const bt_slot *slot = crew->slots[i];
        if (slot->serving != NULL && !bt_slot_is_surplus(slot) && bt_listeners_are_missed(slot->serving))
            return true;
    }
    return false;
}

/* False when every worker of the roll already is where it could go back to. One that is only on probation is not
 * touched by code that could not even start elsewhere. */
static bool turn_round(bt_master *master, bool took_traffic)
{
    bool has_turned = false;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->shall_leave = false;
        bool is_concerned = crew->in_roll && (crew->is_rolling || took_traffic);
        if (is_concerned && is_unproven(crew) && send_back(crew, took_traffic))
            has_turned = true;
        if (crew->is_leaving || !misses_sockets(crew))
            continue;
        crew->in_roll = true;
        has_turned = true;
    }
    return has_turned;
}

/* A probation has failed: what it was about is what turns round. */
static void roll_what_is_on_probation(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++)
        master->crews[i]->is_rolling = master->crews[i]->in_roll;
}

/* For `generations`. */
static void mark_failed(bt_master *master, const char *reason)
{
    bt_list_each (node, &master->generations) {
        bt_generation *generation = bt_container(node, bt_generation, node);
        if (generation->number == master->roll.generation)
            snprintf(generation->failure, sizeof generation->failure, "%s", reason);
    }
}

/* All workers of the roll go back. If that fails too, and nothing is left to go back to, the slots keep trying with
 * backoff. */
static void fail(bt_master *master, const bt_child *culprit, bool took_traffic, const char *reason)
{
    bt_roll *roll = &master->roll;
    bt_reload_progress(master, roll->slot, "failed", 0, roll->generation, reason);
    bt_log(BT_LOG_ERROR, "roll-failed generation=%" PRIu64 " reason=\"%s\"", roll->generation, reason);
    if (bt_upgrade_failed(master, roll->serial, roll->generation, took_traffic, reason)) {
        remember_log(roll, culprit);
        mark_failed(master, reason);
        bt_roll_stop(master);
        return;
    }
    if (roll->is_mending) {
        bt_log(BT_LOG_ERROR, "way-back-failed reason=\"%s\"", reason);
    } else if (roll->state == BT_ROLL_REVERTING) {
        size_t len = strlen(roll->failure);
        snprintf(roll->failure + len, sizeof roll->failure - len, "; going back failed too: %s", reason);
    } else {
        if (roll->state == BT_ROLL_IDLE) {
            roll->started_ms = bt_clock_ms();
            roll_what_is_on_probation(master);
        }
        remember_log(roll, culprit);
        roll->failed = roll->generation;
        roll->failed_serial = roll->serial;
        mark_failed(master, reason);
        snprintf(roll->failure, sizeof roll->failure, "%s", reason);
    }
    stop_timers(master);
    roll->state = BT_ROLL_REVERTING;
    roll->slot = NULL;
    roll->old = NULL;
    if (turn_round(master, took_traffic))
        advance(master);
    else
        finish_reverting(master);
}

/* ---- the end of a roll ---- */

/* A process still serves code that its worker shall not run: the way back has failed for it. */
static bool is_mixed(const bt_crew *crew)
{
    for (size_t i = 0; i < crew->slot_count; i++) {
        const bt_slot *slot = crew->slots[i];
        const bt_child *serving = slot->serving;
        bool is_wrong = serving != NULL && (bt_slot_is_surplus(slot) || !is_right(serving));
        if (is_wrong || has_wrong_successor(slot))
            return true;
    }
    return false;
}

static void on_probation_over(uv_timer_t *timer)
{
    bt_master *master = timer->data;
    bt_roll *roll = &master->roll;
    roll->in_probation = false;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        if (!crew->in_roll || !is_unproven(crew))
            continue;
        bt_crew_promote(crew);
        crew->in_roll = is_mixed(crew);
    }
    char message[128];
    snprintf(message, sizeof message, "generation %" PRIu64 " serves and has passed its probation", roll->generation);
    bt_log(BT_LOG_INFO, "proved generation=%" PRIu64, roll->generation);
    bt_reload_answer(master, roll->serial, true, BT_WAIT_PROBATION, message);
}

static void on_mend(uv_timer_t *timer)
{
    bt_master *master = timer->data;
    if (master->roll.state != BT_ROLL_IDLE)
        return;
    master->roll.state = BT_ROLL_REVERTING;
    master->roll.is_mending = true;
    advance(master);
}

/* The roll is over. Workers whose code has not proved itself stay in it until their probation is over; those with a
 * process that could not go back, until it could. Returns true when there is such a process. */
static bool rest(bt_master *master)
{
    bt_roll *roll = &master->roll;
    uint64_t probation_ms = 0;
    bool has_mixed = false;
    roll->state = BT_ROLL_IDLE;
    roll->is_mending = false;
    roll->without_limit = false;
    roll->in_probation = false;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bool mixed = crew->in_roll && is_mixed(crew);
        bool unproven = crew->in_roll && is_unproven(crew);
        crew->in_roll = mixed || unproven;
        crew->is_rolling = false;
        has_mixed = has_mixed || mixed;
        roll->in_probation = roll->in_probation || unproven;
        if (unproven && crew->config->probation_ms > probation_ms)
            probation_ms = crew->config->probation_ms;
    }
    if (roll->in_probation)
        uv_timer_start(&roll->probation, on_probation_over, probation_ms, 0);
    if (has_mixed)
        uv_timer_start(&roll->mend, on_mend, MEND_MS << (roll->mend_tries < 5 ? roll->mend_tries++ : 5), 0);
    return has_mixed;
}

/* What the roll has left without a worker or without a listener. Before anything is on probation: that is not about
 * them. */
static void let_go(bt_master *master)
{
    master->roll.state = BT_ROLL_IDLE;
    for (size_t i = 0; i < master->crew_count; i++) {
        if (master->crews[i]->shall_leave)
            bt_crew_dismiss(master->crews[i]);
    }
    bt_listeners_retire(master);
}

static bool is_target(const bt_master *master, const bt_generation *generation)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        if (master->crews[i]->target == generation && !master->crews[i]->is_leaving)
            return true;
    }
    return false;
}

/* After a way back: [baton] of the generation that nobody runs any more is not in force, either, and what is on
 * probation now is not what has failed. */
static void settle(bt_master *master)
{
    bt_generation *whole = NULL;
    uint64_t on_probation = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        if (crew->is_leaving)
            continue;
        if (crew->target->is_whole && (whole == NULL || crew->target->number > whole->number))
            whole = crew->target;
        if (crew->in_roll && is_unproven(crew) && crew->target->number > on_probation)
            on_probation = crew->target->number;
    }
    if (whole != NULL && !is_target(master, master->current))
        bt_master_apply(master, whole);
    if (on_probation != 0)
        master->roll.generation = on_probation;
}

static void finish_reverting(bt_master *master)
{
    bt_roll *roll = &master->roll;
    bool was_mending = roll->is_mending;
    let_go(master);
    bool has_mixed = rest(master);
    settle(master);
    bt_generation_set(master, &roll->whole, NULL);
    if (was_mending) {
        bt_log(has_mixed ? BT_LOG_ERROR : BT_LOG_INFO, "way-back complete=%s", has_mixed ? "no" : "yes");
        if (!roll->in_probation) /* who still waits: the probation has failed meanwhile */
            bt_reload_answer(master, roll->serial, false, BT_WAIT_PROBATION, roll->failure);
        return;
    }
    size_t len = strlen(roll->failure);
    snprintf(roll->failure + len, sizeof roll->failure - len, "; %s",
             has_mixed ? "some processes still run the new code, and are tried again" : "the old code serves on");
    bt_reload_remember(master, roll->failed, false, roll->started_ms, roll->failure);
    bt_reload_answer(master, roll->failed_serial, false, BT_WAIT_PROBATION, roll->failure);
}

static void finish(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (roll->state == BT_ROLL_REVERTING) {
        finish_reverting(master);
        return;
    }
    char message[64];
    snprintf(message, sizeof message, "generation %" PRIu64 " serves", roll->generation);
    let_go(master);
    rest(master);
    if (roll->whole != NULL)
        bt_master_apply(master, roll->whole);
    bt_generation_set(master, &roll->whole, NULL); /* its files are not kept for this */
    bt_reload_remember(master, roll->generation, true, roll->started_ms, message);
    bt_reload_answer(master, roll->serial, true, BT_WAIT_SERVE, message);
    if (!roll->in_probation) /* nothing of it has to prove itself */
        bt_reload_answer(master, roll->serial, true, BT_WAIT_PROBATION, message);
}

static void advance(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (master->phase != BT_MASTER_RUNNING || roll->state == BT_ROLL_IDLE || roll->slot != NULL)
        return;
    bt_slot *slot = next_slot(master);
    if (slot != NULL) {
        begin_slot(master, slot);
        return;
    }
    finish(master);
    bt_recycle_next(master);
}

void bt_roll_resume(bt_master *master)
{
    advance(master);
}

void bt_roll_adopted(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->in_roll = !crew->is_leaving && (is_mixed(crew) || is_unproven(crew));
    }
    rest(master);
}

void bt_roll_go_back(bt_master *master, uint64_t generation, bool took_traffic, const char *reason)
{
    bt_roll *roll = &master->roll;
    stop_timers(master);
    roll->state = BT_ROLL_REVERTING;
    roll->failed = generation;
    roll->failed_serial = roll->last_serial;
    roll->started_ms = bt_clock_ms();
    snprintf(roll->failure, sizeof roll->failure, "%s", reason);
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->shall_leave = false;
        crew->in_roll = crew->is_rolling = !crew->is_leaving;
        if (crew->in_roll && generation != 0 && crew->target->number == generation && is_unproven(crew))
            send_back(crew, took_traffic);
    }
    advance(master);
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
    return has_wrong_successor(slot) || slot->crew->shall_leave || was_surplus;
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
    stop_timers(master);
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
        fail(master, NULL, false, why);
    else
        advance(master);
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
    stop_timers(master);
    master->roll.slot = NULL;
    master->roll.old = NULL;
    master->roll.state = BT_ROLL_IDLE;
}
