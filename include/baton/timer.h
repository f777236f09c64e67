/* baton/timer.h: timers on the process's loop, by the monotonic clock (Workerman: Timer). */
#ifndef BATON_TIMER_H
#define BATON_TIMER_H

#include <baton/types.h>

typedef void (*baton_timer_fn)(void *arg);

/* Calls `fn(arg)` once after `delay_ms` milliseconds; the timer is gone when fn is entered.
 * Returns NULL when out of memory. */
BATON_API baton_timer *baton_timer_once(uint64_t delay_ms, baton_timer_fn fn, void *arg);

/* Calls `fn(arg)` every `interval_ms` milliseconds (at least 1) until cancelled. Repeating timers
 * stop when the process starts to drain: its successor's already run. */
BATON_API baton_timer *baton_timer_every(uint64_t interval_ms, baton_timer_fn fn, void *arg);

/* Cancels a timer that has not fired (once) or is repeating; also from inside its own callback.
 * NULL is allowed. */
BATON_API void baton_timer_cancel(baton_timer *timer);

#endif
