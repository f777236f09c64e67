/* proc/recycle.c: watches what a process has used up.
 * Must not know who replaces it: it only asks, and serves on.
 *
 * Requests are looked at once a turn of the loop, before it waits: nothing is added to a request, and the turn that
 * reached the limit is the one that asks (a timer would let thousands of requests go by). */
#include <base/log.h>
#include <base/memory.h>
#include <inttypes.h>
#include <proc/process.h>
#include <proc/recycle.h>
#include <stdio.h>
#include <unistd.h>

#define ASK_AGAIN_MS   10000
#define MEMORY_LOOK_MS 1000
#define MIB            (1024 * 1024)

static void ask(bt_process *process, const char *text)
{
    uint64_t now_ms = bt_loop_now(&process->loop);
    if (now_ms < process->recycle.ask_at_ms)
        return;
    process->recycle.ask_at_ms = now_ms + ASK_AGAIN_MS;
    if (bt_channel_send(&process->channel, BT_MESSAGE_ASK_RECYCLE, 0, text, -1) == 0)
        bt_log(BT_LOG_INFO, "recycle-asked reason=\"%s\"", text);
}

static void look_at_requests(uv_prepare_t *prepare)
{
    bt_process *process = prepare->data;
    if (process->state != BT_PROCESS_SERVING) {
        uv_prepare_stop(prepare);
        return;
    }
    uint64_t limit = (uint64_t) process->start->worker->config->max_requests;
    uint64_t count = bt_counter_value(&process->start->counters->requests);
    if (count < limit)
        return;
    char text[96];
    snprintf(text, sizeof text, "max_requests: %" PRIu64 " of %" PRIu64, count, limit);
    ask(process, text);
}

static void look_at_memory(uv_timer_t *timer)
{
    bt_process *process = timer->data;
    if (process->state != BT_PROCESS_SERVING) {
        uv_timer_stop(timer);
        return;
    }
    uint64_t limit = process->start->worker->config->max_memory;
    uint64_t bytes = bt_resident_bytes(getpid());
    if (bytes < limit)
        return;
    char text[96];
    snprintf(text, sizeof text, "max_memory: %" PRIu64 " MiB of %" PRIu64 " MiB", bytes / MIB, limit / MIB);
    ask(process, text);
}

void bt_recycle_start(bt_recycle *recycle, bt_process *process)
{
    const bt_worker_config *config = process->start->worker->config;
    uv_prepare_init(&process->loop.uv, &recycle->requests);
    uv_timer_init(&process->loop.uv, &recycle->memory);
    recycle->requests.data = recycle->memory.data = process;
    if (config->max_requests > 0)
        uv_prepare_start(&recycle->requests, look_at_requests);
    if (config->max_memory > 0)
        uv_timer_start(&recycle->memory, look_at_memory, MEMORY_LOOK_MS, MEMORY_LOOK_MS);
    uv_unref((uv_handle_t *) &recycle->requests);
    uv_unref((uv_handle_t *) &recycle->memory);
}
