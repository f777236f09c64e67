/* base/counters.h: one process's counters in memory shared with the master, so that `status` is instant and right
 * even while the process is busy. One writer each; readers may see a value a moment old. */
#ifndef BT_BASE_COUNTERS_H
#define BT_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t bt_counter;

/* Why a connection stays in a process that leaves. Their words are in proc/stays.c. */
typedef enum bt_stay {
    BT_STAY_REQUEST,   /* a request is being handled */
    BT_STAY_RESPONSE,  /* a response is half sent */
    BT_STAY_APP_STATE, /* the application's state cannot travel */
    BT_STAY_TLS,       /* the transport's state cannot travel */
    BT_STAY_REFUSED,   /* the successor did not take it */
    BT_STAY_CLOSING,   /* it is about to end anyway */
    BT_STAYS,
} bt_stay;

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
    bt_counter heartbeat_ms;     /* bt_clock_ms() when the loop last turned; 0: not serving yet */
    bt_counter stays[BT_STAYS];  /* of a leaving process: connections that cannot be passed now, by reason */
    bt_counter stayed[BT_STAYS]; /* of a worker: connections that could not be passed when they were first asked */
    bt_counter reserved[7];
} bt_counters;

_Static_assert(sizeof(bt_counters) == 256, "whole cache lines, so that processes do not share one");

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
