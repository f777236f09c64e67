/* proc/slot.c: the places of a worker: who is wanted there, when a process that has died comes back, who inherits.
 * Must not know how processes talk (child.c), nor which generation comes next (roll.c). */
#include <assert.h>
#include <base/alloc.h>
#include <base/log.h>
#include <inttypes.h>
#include <proc/master_parts.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 30000

static const char *name_of(const bt_slot *slot)
{
    return slot->crew->name;
}

/* ---- slots ---- */

static void on_restart(uv_timer_t *timer)
{
    bt_slot *slot = timer->data;
    if (!bt_slot_is_surplus(slot)) /* count may have shrunk meanwhile */
        bt_slot_spawn(slot, bt_roll_restart_generation(slot));
}

bt_slot *bt_slot_new(bt_crew *crew, int index)
{
    bt_slot *slot = bt_calloc(1, sizeof *slot);
    if (slot == NULL)
        return NULL;
    *slot = (bt_slot){.crew = crew, .index = index};
    bt_list_init(&slot->leaving);
    uv_timer_init(&crew->master->loop, &slot->restart);
    slot->restart.data = slot;
    return slot;
}

static void free_slot(uv_handle_t *handle)
{
    free(handle->data);
}

void bt_slot_free(bt_slot *slot)
{
    bt_master *master = slot->crew->master;
    if (master->recycling == slot)
        master->recycling = NULL;
    uv_close((uv_handle_t *) &slot->restart, free_slot);
}

void bt_slot_spawn(bt_slot *slot, bt_generation *generation)
{
    bt_slot_cancel_restart(slot);
    assert(slot->successor == NULL);
    bt_generation_ref(generation); /* before the old wish goes: it may be the same */
    bt_slot_cancel_spawn(slot);
    slot->wanted = generation;
}

void bt_slot_cancel_spawn(bt_slot *slot)
{
    bt_generation_unref(slot->crew->master, slot->wanted);
    slot->wanted = NULL;
}

void bt_slot_cancel_restart(bt_slot *slot)
{
    uv_timer_stop(&slot->restart);
}

/* The first restart is immediate; only processes that keep dying young have to wait. */
static uint64_t backoff_ms(bt_slot *slot, uint64_t lived_ms)
{
    if (lived_ms >= BT_SHORT_LIFE_MS) {
        slot->short_lives = 0;
        return 0;
    }
    unsigned before = slot->short_lives++;
    if (before == 0)
        return 0;
    uint64_t delay = before > 9 ? BACKOFF_MAX_MS : (uint64_t) BACKOFF_MIN_MS << (before - 1);
    return delay < BACKOFF_MAX_MS ? delay : BACKOFF_MAX_MS;
}

void bt_slot_restart_later(bt_slot *slot, uint64_t lived_ms)
{
    bool is_filled = slot->serving != NULL || slot->successor != NULL || slot->wanted != NULL;
    if (slot->crew->master->phase != BT_MASTER_RUNNING || is_filled || bt_slot_is_surplus(slot) ||
        uv_is_active((uv_handle_t *) &slot->restart))
        return;
    if (slot->crew->master->upgrade.shall_return)
        return; /* the old program does it */
    uint64_t delay = backoff_ms(slot, lived_ms);
    slot->restarts++;
    if (slot->short_lives >= BT_CRASH_LOOP)
        bt_log(BT_LOG_ERROR, "crash-loop worker=%s slot=%d short_lives=%u last_exit=\"%s\"", name_of(slot), slot->index,
               slot->short_lives, slot->last_exit);
    bt_log(BT_LOG_WARN, "restart worker=%s slot=%d in_ms=%" PRIu64, name_of(slot), slot->index, delay);
    if (delay == 0)
        bt_slot_spawn(slot, bt_roll_restart_generation(slot));
    else
        uv_timer_start(&slot->restart, on_restart, delay, 0);
}

void bt_slot_fill(bt_slot *slot, uint64_t pause_ms)
{
    if (slot->serving != NULL || slot->successor != NULL || bt_slot_is_surplus(slot))
        return;
    if (pause_ms == 0)
        bt_slot_spawn(slot, bt_roll_restart_generation(slot));
    else
        uv_timer_start(&slot->restart, on_restart, pause_ms, 0);
}

/* Each slot that stays is the first choice of about as many. */
bt_child *bt_slot_sibling(const bt_slot *slot)
{
    const bt_crew *crew = slot->crew;
    size_t count = (size_t) crew->config->count;
    for (size_t i = 0; i < count && i < crew->slot_count; i++) {
        const bt_slot *other = crew->slots[((size_t) slot->index + i) % count];
        if (other != slot && other->serving != NULL)
            return other->serving;
    }
    return NULL;
}

bt_child *bt_slot_heir(const bt_slot *slot)
{
    if (slot->serving != NULL || slot->crew->is_leaving || !bt_slot_is_surplus(slot))
        return slot->serving;
    return bt_slot_sibling(slot);
}

void bt_slot_fork_failed(bt_slot *slot, bt_generation *generation, const char *why)
{
    char reason[256];
    snprintf(reason, sizeof reason, "worker %s slot %d: fork: %s", name_of(slot), slot->index, why);
    bt_roll_start_failed(slot, generation, reason);
    bt_slot_restart_later(slot, 0);
    bt_recycle_next(slot->crew->master);
}
