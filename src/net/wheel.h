/* net/wheel.h: coarse timeout wheel for idle, header and linger deadlines of many connections.
 * Moving a deadline later is one store: an entry that comes due early is put back. No allocation. */
#ifndef BT_NET_WHEEL_H
#define BT_NET_WHEEL_H

#include <base/list.h>
#include <stdint.h>

#define BT_WHEEL_SLOTS   512
#define BT_WHEEL_TICK_MS 100

typedef struct bt_wheel_entry {
    bt_list node;
    uint64_t deadline_ms; /* bt_clock_ms scale; 0 = no deadline */
    uint64_t due_tick;    /* while linked: when its slot comes due, never after the deadline */
} bt_wheel_entry;

typedef struct bt_wheel {
    bt_list slots[BT_WHEEL_SLOTS];
    uint64_t tick; /* last tick that was advanced over */
    size_t count;  /* linked entries */
} bt_wheel;

void bt_wheel_init(bt_wheel *wheel, uint64_t now_ms);
void bt_wheel_entry_init(bt_wheel_entry *entry);

/* Sets the deadline. Cheap when the entry is linked and the new deadline is not earlier than the slot it
 * hangs in (just a store); relinks when it is earlier. deadline_ms 0 clears it (unlinks). */
void bt_wheel_set(bt_wheel *wheel, bt_wheel_entry *entry, uint64_t deadline_ms);

/* Unlinks, if linked; the deadline is kept, so that it can still be read. */
void bt_wheel_remove(bt_wheel *wheel, bt_wheel_entry *entry);

/* Calls `expired` for each entry whose deadline is <= now_ms; the entry is unlinked (deadline kept) before the
 * call, and the callback may set, remove or free this and any other entry. An entry that a callback sets to a time
 * already past is called at the next advance, so that no callback can keep this one from ending. */
void bt_wheel_advance(bt_wheel *wheel, uint64_t now_ms, void (*expired)(bt_wheel_entry *entry, void *arg), void *arg);

#endif
