/* net/timer.h: the application's timers as the process sees them. Public calls: baton/timer.h. */
#ifndef BT_NET_TIMER_H
#define BT_NET_TIMER_H

#include <baton/timer.h>
#include <net/loop.h>

/* The same as baton_timer_once/every on a given loop. `interval_ms` 0: once. NULL: out of memory. */
baton_timer *bt_timer_add(bt_loop *loop, uint64_t delay_ms, uint64_t interval_ms, baton_timer_fn fn, void *arg);

/* The process drains: repeating timers end, the successor's already run. One-shot timers stay: an answer may hang
 * on one. */
void bt_timers_stop_repeating(bt_loop *loop);

/* The loop is about to close and no callback runs any more: frees every timer. */
void bt_timers_free_all(bt_loop *loop);

#endif
