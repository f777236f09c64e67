/* net/wheel.c: hashed timeout wheel: 512 slots of 100 ms, later rounds share the slots.
 * Knows no clock and no connection; the caller says what time it is. */
#include <net/wheel.h>

static uint64_t tick_of(uint64_t time_ms)
{
    return time_ms / BT_WHEEL_TICK_MS;
}

void bt_wheel_init(bt_wheel *wheel, uint64_t now_ms)
{
    for (int i = 0; i < BT_WHEEL_SLOTS; i++)
        bt_list_init(&wheel->slots[i]);
    wheel->tick = tick_of(now_ms);
    wheel->count = 0;
}

void bt_wheel_entry_init(bt_wheel_entry *entry)
{
    bt_list_init(&entry->node);
    entry->deadline_ms = 0;
    entry->due_tick = 0;
}

static void link_entry(bt_wheel *wheel, bt_wheel_entry *entry)
{
    /* What is already past hangs in the slot that the next advance looks at first. */
    uint64_t tick = tick_of(entry->deadline_ms);
    entry->due_tick = tick > wheel->tick ? tick : wheel->tick;
    bt_list_append(&wheel->slots[entry->due_tick % BT_WHEEL_SLOTS], &entry->node);
    wheel->count++;
}

void bt_wheel_remove(bt_wheel *wheel, bt_wheel_entry *entry)
{
    if (bt_list_empty(&entry->node))
        return;
    bt_list_remove(&entry->node);
    wheel->count--;
}

void bt_wheel_set(bt_wheel *wheel, bt_wheel_entry *entry, uint64_t deadline_ms)
{
    entry->deadline_ms = deadline_ms;
    if (deadline_ms == 0) {
        bt_wheel_remove(wheel, entry);
        return;
    }
    if (!bt_list_empty(&entry->node)) {
        if (tick_of(deadline_ms) >= entry->due_tick)
            return;
        bt_wheel_remove(wheel, entry);
    }
    link_entry(wheel, entry);
}

/* Moves all entries of the ticks from the last advance to `last` into `due`. The tick of the last advance is
 * looked at again: its later milliseconds were not over then. */
static void collect(bt_wheel *wheel, uint64_t last, bt_list *due)
{
    uint64_t first = wheel->tick;
    if (last - first >= BT_WHEEL_SLOTS) /* the clock has jumped: each slot once is enough */
        first = last - BT_WHEEL_SLOTS + 1;
    for (uint64_t tick = first; tick <= last; tick++)
        bt_list_move_all(due, &wheel->slots[tick % BT_WHEEL_SLOTS]);
}

void bt_wheel_advance(bt_wheel *wheel, uint64_t now_ms, void (*expired)(bt_wheel_entry *entry, void *arg), void *arg)
{
    uint64_t now_tick = tick_of(now_ms);
    if (now_tick < wheel->tick)
        return;

    /* Everything due is taken out before the first callback: callbacks may then change the slots and this
     * list as they like, because only its head is ever looked at. */
    bt_list due;
    bt_list_init(&due);
    collect(wheel, now_tick, &due);
    wheel->tick = now_tick;

    for (bt_list *node = bt_list_pop(&due); node; node = bt_list_pop(&due)) {
        bt_wheel_entry *entry = bt_container(node, bt_wheel_entry, node);
        wheel->count--;
        if (entry->deadline_ms <= now_ms)
            expired(entry, arg);
        else
            link_entry(wheel, entry);
    }
}
