/* net/timer.c: one-shot and repeating timers for applications, on libuv's heap.
 * Must not know workers; a process tells it when to stop the repeating ones. */
#include <base/alloc.h>
#include <net/timer.h>

struct baton_timer {
    uv_timer_t uv;
    bt_list node;
    baton_timer_fn fn;
    void *arg;
};

static void free_timer(uv_handle_t *handle)
{
    free(handle->data);
}

void baton_timer_cancel(baton_timer *timer)
{
    if (timer == NULL)
        return;
    bt_list_remove(&timer->node);
    uv_close((uv_handle_t *) &timer->uv, free_timer);
}

static void fire(uv_timer_t *uv)
{
    baton_timer *timer = uv->data;
    baton_timer_fn fn = timer->fn;
    void *arg = timer->arg;
    /* A one-shot timer is gone before its function runs: the function may not cancel it, and may add others. */
    if (uv_timer_get_repeat(uv) == 0)
        baton_timer_cancel(timer);
    fn(arg);
}

baton_timer *bt_timer_add(bt_loop *loop, uint64_t delay_ms, uint64_t interval_ms, baton_timer_fn fn, void *arg)
{
    baton_timer *timer = bt_malloc(sizeof *timer);
    if (timer == NULL)
        return NULL;
    timer->fn = fn;
    timer->arg = arg;
    uv_timer_init(&loop->uv, &timer->uv);
    timer->uv.data = timer;
    /* libuv counts from the loop's cached time, which a callback that blocked has left behind */
    uv_update_time(&loop->uv);
    uv_timer_start(&timer->uv, fire, delay_ms, interval_ms);
    bt_list_append(&loop->timers, &timer->node);
    return timer;
}

/* Stopped, not freed: the application holds the handle and will cancel it. */
void bt_timers_stop_repeating(bt_loop *loop)
{
    bt_list_each (node, &loop->timers) {
        baton_timer *timer = bt_container(node, baton_timer, node);
        if (uv_timer_get_repeat(&timer->uv) != 0)
            uv_timer_stop(&timer->uv);
    }
}

void bt_timers_free_all(bt_loop *loop)
{
    bt_list_each (node, &loop->timers)
        baton_timer_cancel(bt_container(node, baton_timer, node));
}
