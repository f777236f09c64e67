/* proc/way_back.c: what the end of a process means for the roll, and where everybody goes when it has failed.
 * Must not know in which order slots change (roll.c). */
#include <base/clock.h>
#include <base/log.h>
#include <inttypes.h>
#include <proc/roll_internal.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <string.h>

#define FAILURE_LINES 8

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
    if (!bt_slot_is_surplus(child->slot) && child->generation == crew->target && bt_roll_is_unproven(crew))
        bt_roll_fail(crew->master, child, true, reason);
}

/* The newest generation is tried (again) in the slot that the roll is at. */
static void try_again(bt_slot *slot)
{
    bt_master *master = slot->crew->master;
    if (master->roll.slot == slot)
        bt_roll_step_done(master);
}

static void start_failed(bt_slot *slot, const bt_generation *generation, const bt_child *culprit, const char *reason)
{
    bt_master *master = slot->crew->master;
    bt_roll *roll = &master->roll;
    if (!bt_slot_is_surplus(slot) && generation == slot->crew->target &&
        (bt_roll_is_unproven(slot->crew) || roll->slot == slot)) {
        bt_roll_fail(master, culprit, false, reason);
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
            bt_roll_step_done(master);
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
        if (is_concerned && bt_roll_is_unproven(crew) && send_back(crew, took_traffic))
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
void bt_roll_fail(bt_master *master, const bt_child *culprit, bool took_traffic, const char *reason)
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
    bt_roll_stop_timers(master);
    roll->state = BT_ROLL_REVERTING;
    roll->slot = NULL;
    roll->old = NULL;
    if (turn_round(master, took_traffic))
        bt_roll_advance(master);
    else
        bt_roll_finish_reverting(master);
}

void bt_roll_go_back(bt_master *master, uint64_t generation, bool took_traffic, const char *reason)
{
    bt_roll *roll = &master->roll;
    bt_roll_stop_timers(master);
    roll->state = BT_ROLL_REVERTING;
    roll->failed = generation;
    roll->failed_serial = roll->last_serial;
    roll->started_ms = bt_clock_ms();
    snprintf(roll->failure, sizeof roll->failure, "%s", reason);
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->shall_leave = false;
        crew->in_roll = crew->is_rolling = !crew->is_leaving;
        if (crew->in_roll && generation != 0 && crew->target->number == generation && bt_roll_is_unproven(crew))
            send_back(crew, took_traffic);
    }
    bt_roll_advance(master);
}
