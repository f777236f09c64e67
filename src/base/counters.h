/* base/counters.h: one process's counters in memory shared with the master, so that `status` is instant and right
 * even while the process is busy. One writer each; readers may see a value a moment old. */
#ifndef BT_BASE_COUNTERS_H
#define BT_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t bt_counter;

typedef struct bt_counters {
    bt_counter connections; /* open now */
    bt_counter accepted;
    bt_counter requests; /* requests or messages handled */
    bt_counter bytes_read;
    bt_counter bytes_written;
    bt_counter passed_in;
    bt_counter passed_out;
    bt_counter pass_refused; /* NACKs received */
    bt_counter rejected;     /* connections ended for bad or oversized input */
    bt_counter timeouts;     /* connections ended by a deadline */
    bt_counter dropped;      /* messages dropped over max_send_buffer */
    bt_counter closed_by_drain;
    bt_counter reserved[4];
} bt_counters;

_Static_assert(sizeof(bt_counters) == 128, "two cache lines, so that processes do not share one");

/* No lock prefix: only the owning process writes. */
static inline void bt_count(bt_counter *counter, int64_t delta)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + (uint64_t) delta, memory_order_relaxed);
}

/* For a counter that several processes write. */
static inline void bt_count_shared(bt_counter *counter, int64_t delta)
{
    atomic_fetch_add_explicit(counter, (uint64_t) delta, memory_order_relaxed);
}

static inline uint64_t bt_counter_value(const bt_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
