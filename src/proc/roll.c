/* proc/roll.c: replaces the processes of workers by a new generation, slot by slot, and goes back when it fails.
 * Must not know how processes are forked or talk: slot.c does, and tells what happened. */
#include <base/clock.h>
#include <base/log.h>
#include <inttypes.h>
#include <proc/master_state.h>
#include <stdio.h>
#include <string.h>

static void advance(bt_master *master);
static void fail(bt_master *master, bool took_traffic, const char *reason);
static void finish_reverting(bt_master *master);

/* ---- waiters ---- */

void bt_roll_progress(bt_master *master, const bt_slot *slot, const char *step, pid_t pid, uint64_t generation,
                      const char *detail)
{
    const char *worker = slot == NULL ? "" : slot->crew->worker->config->name;
    int index = slot == NULL ? -1 : slot->index;
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->on_progress(waiter, worker, index, step, pid, generation, detail);
    }
}

/* Answers those who wait for `generation` or an earlier one; with `ok`, only who waits for no more than `wait`. */
static void answer(bt_master *master, uint64_t generation, bool ok, bt_wait wait, const char *message)
{
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        if (waiter->generation > generation || (ok && waiter->wait > wait))
            continue;
        bt_list_remove(&waiter->node);
        waiter->on_done(waiter, ok, generation, message);
    }
}

static void remember(bt_master *master, uint64_t generation, bool ok, const char *message)
{
    bt_roll *roll = &master->roll;
    roll->has_last = true;
    roll->last_ok = ok;
    roll->last_generation = generation;
    roll->last_took_ms = bt_clock_ms() - roll->started_ms;
    snprintf(roll->last_message, sizeof roll->last_message, "%s", message);
    bt_log(ok ? BT_LOG_INFO : BT_LOG_ERROR, "reload generation=%" PRIu64 " ok=%s took_ms=%" PRIu64 " message=\"%s\"",
           generation, ok ? "yes" : "no", roll->last_took_ms, message);
}

static void add_consequence(char *text, size_t size)
{
    size_t len = strlen(text);
    snprintf(text + len, size - len, "; the old code serves on");
}

/* ---- which generation where ---- */

static void set_generation(bt_master *master, bt_generation **place, bt_generation *generation)
{
    bt_generation *old = *place;
    *place = generation == NULL ? NULL : bt_generation_ref(generation);
    bt_generation_unref(master, old);
}

static void stop_probation(bt_master *master)
{
    uv_timer_stop(&master->roll.probation);
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

static bool slot_is_done(const bt_slot *slot)
{
    return slot->serving != NULL && slot->serving->generation == slot->crew->target;
}

static bt_slot *next_slot(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        for (size_t j = 0; crew->in_roll && j < crew->slot_count; j++) {
            if (!slot_is_done(&crew->slots[j]))
                return &crew->slots[j];
        }
    }
    return NULL;
}

static bt_child *ready_sibling(const bt_slot *slot)
{
    for (size_t i = 0; i < slot->crew->slot_count; i++) {
        const bt_slot *other = &slot->crew->slots[i];
        if (other != slot && other->serving != NULL)
            return other->serving;
    }
    return NULL;
}

static bool stops_first(const bt_slot *slot)
{
    return slot->crew->worker->config->strategy == BT_STRATEGY_STOP_FIRST;
}

static void begin_slot(bt_master *master, bt_slot *slot)
{
    bt_roll *roll = &master->roll;
    bt_crew *crew = slot->crew;
    roll->slot = slot;
    bt_slot_cancel_restart(slot);
    if (slot->successor != NULL) {
        if (slot->successor->generation != crew->target)
            bt_child_kill(slot->successor); /* it starts older code after a crash; its end brings us back here */
        return;
    }
    if (stops_first(slot) && slot->serving != NULL) {
        bt_child *old = slot->serving;
        roll->old = old;
        bt_roll_progress(master, slot, "stopping", old->pid, old->generation->number, "");
        bt_child_drain(old, ready_sibling(slot), roll->without_limit ? 0 : crew->worker->config->drain_timeout_ms);
        return;
    }
    bt_slot_spawn(slot, crew->target);
}

static void step_done(bt_master *master)
{
    master->roll.slot = NULL;
    master->roll.old = NULL;
    advance(master);
}

void bt_roll_child_ready(bt_child *child)
{
    bt_slot *slot = child->slot;
    bt_master *master = slot->crew->master;
    bt_roll *roll = &master->roll;
    bt_roll_progress(master, slot, "ready", child->pid, child->generation->number, "");
    if (roll->slot != slot) {
        advance(master);
        return;
    }
    bt_child *old = bt_list_empty(&slot->leaving) ? NULL : bt_container(slot->leaving.prev, bt_child, leaving);
    if (old != NULL && old->state == BT_CHILD_DRAINING && !old->handed_over) {
        roll->old = old;
        bt_roll_progress(master, slot, "passing", old->pid, old->generation->number, "");
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
    bt_roll_progress(master, slot, "passed", child->pid, child->generation->number, "");
    if (slot->serving != NULL) /* with stop-first the place is empty until the old process has ended */
        step_done(master);
}

/* ---- failures ---- */

/* A crash of code that has not proved itself sends the worker back. A single SIGKILL from outside (an operator, the
 * out-of-memory killer) says nothing about the code; a repeated one does. */
static void serving_crashed(bt_child *child, const char *reason, bool by_outside_kill)
{
    bt_crew *crew = child->slot->crew;
    if (child->generation != crew->target || !is_unproven(crew))
        return;
    if (by_outside_kill && crew->kill_count++ == 0)
        return;
    fail(crew->master, true, reason);
}

static void start_failed(bt_slot *slot, const bt_generation *generation, const char *reason)
{
    bt_master *master = slot->crew->master;
    bt_roll *roll = &master->roll;
    if (generation == slot->crew->target && (is_unproven(slot->crew) || roll->slot == slot)) {
        fail(master, false, reason);
    } else if (roll->slot == slot) {
        roll->slot = NULL; /* an obsolete start: the newest generation is tried now */
        advance(master);
    }
}

void bt_roll_start_failed(bt_slot *slot, const bt_generation *generation, const char *reason)
{
    bt_master *master = slot->crew->master;
    if (master->phase == BT_MASTER_STARTING)
        bt_master_start_failed(master, reason);
    else if (master->phase == BT_MASTER_RUNNING)
        start_failed(slot, generation, reason);
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
        if (place_is_empty)
            bt_slot_spawn(slot, slot->crew->target);
        else if (slot->serving != NULL)
            step_done(master);
        return;
    }
    if (child->state == BT_CHILD_STARTING)
        start_failed(slot, child->generation, reason);
    else if (child->state == BT_CHILD_SERVING)
        serving_crashed(child, reason, by_outside_kill);
}

/* Where a worker of the failed roll goes. Code that never took traffic leaves things as they were; code that did and
 * crashed makes anything unproven suspect. */
static bt_generation *way_back(const bt_crew *crew, bool took_traffic)
{
    bool can_stay = !took_traffic && crew->previous != NULL && crew->previous != crew->target;
    return can_stay ? crew->previous : crew->good;
}

/* False when every worker of the roll already is where it could go back to. */
static bool turn_round(bt_master *master, bool took_traffic)
{
    bool has_turned = false;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        if (!crew->in_roll || !is_unproven(crew))
            continue;
        set_generation(master, &crew->target, way_back(crew, took_traffic));
        has_turned = true;
    }
    return has_turned;
}

/* All workers of the roll go back. If that fails too, and nothing is left to go back to, the slots keep trying with
 * backoff. */
static void fail(bt_master *master, bool took_traffic, const char *reason)
{
    bt_roll *roll = &master->roll;
    bt_roll_progress(master, roll->slot, "failed", 0, roll->generation, reason);
    bt_log(BT_LOG_ERROR, "roll-failed generation=%" PRIu64 " reason=\"%s\"", roll->generation, reason);
    if (roll->state == BT_ROLL_REVERTING) {
        size_t len = strlen(roll->failure);
        snprintf(roll->failure + len, sizeof roll->failure - len, "; going back failed too: %s", reason);
    } else {
        if (roll->state == BT_ROLL_IDLE)
            roll->started_ms = bt_clock_ms();
        roll->failed = roll->generation;
        snprintf(roll->failure, sizeof roll->failure, "%s", reason);
    }
    stop_probation(master);
    roll->state = BT_ROLL_REVERTING;
    roll->slot = NULL;
    roll->old = NULL;
    if (turn_round(master, took_traffic))
        advance(master);
    else
        finish_reverting(master);
}

/* ---- the end of a roll ---- */

static void on_probation_over(uv_timer_t *timer)
{
    bt_master *master = timer->data;
    bt_roll *roll = &master->roll;
    roll->in_probation = false;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        if (!crew->in_roll)
            continue;
        set_generation(master, &crew->good, crew->target);
        set_generation(master, &crew->previous, NULL);
        crew->in_roll = false;
    }
    char message[128];
    snprintf(message, sizeof message, "generation %" PRIu64 " serves and has passed its probation", roll->generation);
    bt_log(BT_LOG_INFO, "proved generation=%" PRIu64, roll->generation);
    answer(master, roll->generation, true, BT_WAIT_PROBATION, message);
}

/* The roll is over; workers whose code has not proved itself stay in it until their probation is over, too. */
static void rest(bt_master *master)
{
    bt_roll *roll = &master->roll;
    uint64_t probation_ms = 0;
    roll->state = BT_ROLL_IDLE;
    roll->without_limit = false;
    roll->in_probation = false;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        crew->in_roll = crew->in_roll && is_unproven(crew);
        roll->in_probation = roll->in_probation || crew->in_roll;
        if (crew->in_roll && crew->worker->config->probation_ms > probation_ms)
            probation_ms = crew->worker->config->probation_ms;
    }
    if (roll->in_probation)
        uv_timer_start(&roll->probation, on_probation_over, probation_ms, 0);
}

static void finish_reverting(bt_master *master)
{
    bt_roll *roll = &master->roll;
    add_consequence(roll->failure, sizeof roll->failure);
    rest(master);
    remember(master, roll->failed, false, roll->failure);
    answer(master, roll->failed, false, BT_WAIT_PROBATION, roll->failure);
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
    rest(master);
    remember(master, roll->generation, true, message);
    answer(master, roll->generation, true, BT_WAIT_SERVE, message);
}

static void advance(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (master->phase != BT_MASTER_RUNNING || roll->state == BT_ROLL_IDLE || roll->slot != NULL)
        return;
    bt_slot *slot = next_slot(master);
    if (slot == NULL)
        finish(master);
    else
        begin_slot(master, slot);
}

void bt_roll_resume(bt_master *master)
{
    advance(master);
}

/* ---- requests ---- */

void bt_roll_init(bt_master *master)
{
    bt_roll *roll = &master->roll;
    bt_list_init(&roll->waiters);
    uv_timer_init(&master->loop, &roll->probation);
    roll->probation.data = master;
}

/* Processes that stay are told that a reload was asked for (Workerman: onWorkerReload only). */
static void note_reload(bt_crew *crew)
{
    for (size_t i = 0; i < crew->slot_count; i++) {
        if (crew->slots[i].serving != NULL)
            bt_channel_send(&crew->slots[i].serving->channel, BT_MESSAGE_RELOAD_NOTE, 0, NULL, -1);
    }
}

/* Marks who takes part in `scope`; returns how many do. */
static size_t choose_scope(bt_master *master, bt_crew *only, bool *scope)
{
    size_t count = 0;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        bool takes_part = only == NULL ? crew->worker->config->reloadable : only == crew;
        if (only == NULL && !takes_part)
            note_reload(crew);
        scope[i] = scope[i] || takes_part;
        count += takes_part;
    }
    return count;
}

static void answer_at_once(bt_waiter *waiter, bool ok, uint64_t generation, const char *message)
{
    if (waiter != NULL)
        waiter->on_done(waiter, ok, generation, message);
}

void bt_roll_request(bt_master *master, bt_crew *crew, bool without_limit, bt_waiter *waiter)
{
    bt_roll *roll = &master->roll;
    if (master->phase == BT_MASTER_STOPPING) {
        answer_at_once(waiter, false, 0, "the service is being stopped");
        return;
    }
    if (master->service->on_master_reload != NULL)
        master->service->on_master_reload();
    roll->reloads++;
    bool joins_next = roll->helper != 0; /* the running helper may have read a file before it changed */
    size_t count = choose_scope(master, crew, joins_next ? roll->again_scope : roll->helper_scope);
    if (count == 0) {
        answer_at_once(waiter, true, master->last_generation, "no worker is reloadable: their processes were told");
        return;
    }
    roll->without_limit = roll->without_limit || without_limit;
    uint64_t *number = joins_next ? &roll->again_generation : &roll->helper_generation;
    bool *wanted = joins_next ? &roll->wants_again : &roll->wants_prepare;
    if (!*wanted)
        *number = ++master->last_generation;
    *wanted = true;
    if (waiter == NULL)
        return;
    waiter->generation = *number;
    if (waiter->wait == BT_WAIT_NONE) {
        answer_at_once(waiter, true, *number, "accepted");
        return;
    }
    bt_list_append(&roll->waiters, &waiter->node);
    waiter->on_progress(waiter, "", -1, "preparing", 0, *number, "");
}

static void not_prepared(bt_master *master, uint64_t number, const char *why)
{
    char message[sizeof master->roll.last_message];
    snprintf(message, sizeof message, "%s", why);
    add_consequence(message, sizeof message);
    remember(master, number, false, message);
    bt_list_each (node, &master->roll.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        if (waiter->generation != number)
            continue; /* an earlier one may still succeed */
        bt_list_remove(&waiter->node);
        waiter->on_done(waiter, false, number, message);
    }
}

static void start_first(bt_master *master, bt_generation *generation)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        set_generation(master, &crew->target, generation);
        for (size_t j = 0; j < crew->slot_count; j++)
            bt_slot_spawn(&crew->slots[j], generation);
    }
}

static void start_roll(bt_master *master, const bool *scope, bt_generation *generation)
{
    bt_roll *roll = &master->roll;
    if (roll->state == BT_ROLL_REVERTING) /* overtaken: who waited for the failed one hears it now */
        answer(master, roll->failed, false, BT_WAIT_PROBATION, roll->failure);
    bool was_idle = roll->state == BT_ROLL_IDLE;
    if (was_idle)
        roll->started_ms = bt_clock_ms();
    stop_probation(master);
    roll->state = BT_ROLL_ROLLING;
    roll->generation = generation->number;
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = &master->crews[i];
        if (!scope[i])
            continue;
        if (was_idle) /* all its slots serve it */
            set_generation(master, &crew->previous, crew->target);
        set_generation(master, &crew->target, generation);
        crew->in_roll = true;
        crew->kill_count = 0;
    }
    advance(master);
}

void bt_roll_prepared(bt_master *master, uint64_t number, const bool *scope, bt_generation *generation, const char *why)
{
    bool is_first = master->crews[0].target == NULL;
    if (why != NULL && is_first)
        bt_master_start_failed(master, why);
    else if (why != NULL)
        not_prepared(master, number, why);
    else if (is_first)
        start_first(master, generation);
    else
        start_roll(master, scope, generation);
    bt_generation_unref(master, generation);
}

void bt_roll_cancel(bt_master *master, const char *why)
{
    stop_probation(master);
    master->roll.slot = NULL;
    master->roll.old = NULL;
    master->roll.state = BT_ROLL_IDLE;
    bt_prepare_cancel(master);
    answer(master, UINT64_MAX, false, BT_WAIT_PROBATION, why);
}
