/* proc/supervise.c: looks after serving processes between rolls: replaces those that have reached a limit, and finds
 * those whose loop stands still. Must not know why a process is slow. */
#include <base/clock.h>
#include <base/log.h>
#include <inttypes.h>
#include <proc/master_parts.h>
#include <stdio.h>

/* Processes write their heartbeat twice a second; on a busy machine one or two may come late. */
#define STUCK_AFTER_MS 2000
#define WATCH_MS       500

/* ---- recycling ---- */

void bt_recycle_request(bt_child *child, const char *why)
{
    bt_slot *slot = child->slot;
    if (slot->serving != child || slot->wants_recycle || bt_slot_is_surplus(slot))
        return;
    bt_log(BT_LOG_INFO, "recycle worker=%s slot=%d pid=%d reason=\"%s\"", slot->crew->name, slot->index, child->pid,
           why);
    slot->wants_recycle = true;
    bt_recycle_next(slot->crew->master);
}

static bt_slot *find_waiting(const bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        for (size_t j = 0; j < crew->slot_count; j++) {
            if (crew->slots[j]->wants_recycle)
                return crew->slots[j];
        }
    }
    return NULL;
}

/* Its fresh process is not there yet, or has not got the connections yet. */
static bool is_being_recycled(const bt_slot *slot)
{
    if (slot->successor != NULL || slot->wanted != NULL)
        return true;
    const bt_child *last = bt_list_empty(&slot->leaving) ? NULL : bt_container(slot->leaving.prev, bt_child, leaving);
    return last != NULL && last->state == BT_CHILD_DRAINING && !last->handed_over;
}

/* One at a time, like a roll, and never beside one: that replaces the process anyway. */
void bt_recycle_next(bt_master *master)
{
    if (master->phase != BT_MASTER_RUNNING || master->roll.state != BT_ROLL_IDLE)
        return;
    if (master->recycling != NULL && is_being_recycled(master->recycling))
        return;
    master->recycling = NULL;
    for (bt_slot *slot = find_waiting(master); slot != NULL; slot = find_waiting(master)) {
        slot->wants_recycle = false;
        if (slot->serving == NULL || slot->successor != NULL || slot->wanted != NULL || bt_slot_is_surplus(slot))
            continue; /* it has been, or is just being replaced for another reason */
        master->recycling = slot;
        bt_slot_spawn(slot, slot->serving->generation);
        return;
    }
}

/* ---- stuck processes ---- */

uint64_t bt_child_stuck_ms(const bt_child *child)
{
    uint64_t beat_ms = bt_counter_value(&child->row->counters.heartbeat_ms);
    uint64_t now_ms = bt_clock_ms();
    if (beat_ms == 0 || beat_ms + STUCK_AFTER_MS > now_ms)
        return 0;
    return now_ms - beat_ms;
}

/* While the master stood still itself (the whole service was stopped, or the machine slept) nobody was stuck. */
static uint64_t watched_stuck_ms(const bt_child *child)
{
    uint64_t stuck_ms = bt_child_stuck_ms(child);
    uint64_t watched_ms = bt_clock_ms() - child->slot->crew->master->watched_since_ms;
    return stuck_ms < watched_ms ? stuck_ms : watched_ms;
}

static void end_stuck(bt_child *child)
{
    uint64_t limit_ms = child->slot->crew->config->stuck_timeout_ms;
    uint64_t stuck_ms = watched_stuck_ms(child);
    if (limit_ms == 0 || stuck_ms == 0 || stuck_ms < limit_ms || child->killed_by_us ||
        child->state == BT_CHILD_STARTING)
        return;
    snprintf(child->failure, sizeof child->failure, "stuck for %" PRIu64 " ms (stuck_timeout)", stuck_ms);
    bt_log(BT_LOG_ERROR, "kill worker=%s slot=%d pid=%d reason=\"%s\"", child->slot->crew->name, child->slot->index,
           child->pid, child->failure);
    bt_child_kill(child);
}

static void watch(uv_timer_t *timer)
{
    bt_master *master = timer->data;
    uint64_t now_ms = bt_clock_ms();
    if (now_ms > master->watched_at_ms + STUCK_AFTER_MS)
        master->watched_since_ms = now_ms;
    master->watched_at_ms = now_ms;
    bt_list_each (node, &master->children)
        end_stuck(bt_container(node, bt_child, node));
}

void bt_watch_init(bt_master *master)
{
    uv_timer_init(&master->loop, &master->watch);
    master->watch.data = master;
    master->watched_since_ms = master->watched_at_ms = bt_clock_ms();
    uv_timer_start(&master->watch, watch, WATCH_MS, WATCH_MS);
}
