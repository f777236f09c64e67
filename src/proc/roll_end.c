/* proc/roll_end.c: what follows when all slots are done: probation, the end of workers and addresses that the roll has
 * left, another try of a way back that has failed. Must not know how slots change (roll.c). */
#include <base/log.h>
#include <inttypes.h>
#include <proc/roll_internal.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <string.h>

/* First pause before a failed way back is tried again; doubles five times. */
#define MEND_MS 1000u

/* A process still serves code that its worker shall not run: the way back has failed for it. */
static bool is_mixed(const bt_crew *crew)
{
    for (size_t i = 0; i < crew->slot_count; i++) {
        const bt_slot *slot = crew->slots[i];
        const bt_child *serving = slot->serving;
        bool is_wrong = serving != NULL && (bt_slot_is_surplus(slot) || !bt_roll_is_right(serving));
        if (is_wrong || bt_roll_has_wrong_successor(slot))
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
        if (!crew->in_roll || !bt_roll_is_unproven(crew))
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
    bt_roll_advance(master);
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
        bool unproven = crew->in_roll && bt_roll_is_unproven(crew);
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
        if (crew->in_roll && bt_roll_is_unproven(crew) && crew->target->number > on_probation)
            on_probation = crew->target->number;
    }
    if (whole != NULL && !is_target(master, master->current))
        bt_master_apply(master, whole);
    if (on_probation != 0)
        master->roll.generation = on_probation;
}

void bt_roll_finish_reverting(bt_master *master)
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

void bt_roll_finish(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (roll->state == BT_ROLL_REVERTING) {
        bt_roll_finish_reverting(master);
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

void bt_roll_adopted(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        crew->in_roll = !crew->is_leaving && (is_mixed(crew) || bt_roll_is_unproven(crew));
    }
    rest(master);
}
