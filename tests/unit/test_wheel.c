/* test_wheel: no deadline is missed, none fires early, whatever the clock and the callbacks do.
 * The clock is a number here; nothing waits. */
#include <net/wheel.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { START = 1000050, ENTRIES = 300 };

static bt_wheel wheel;

typedef struct probe {
    bt_wheel_entry entry;
    int fired;
} probe;

static void count_fired(bt_wheel_entry *entry, void *arg)
{
    (void) arg;
    assert_true(bt_list_empty(&entry->node));
    bt_container(entry, probe, entry)->fired++;
}

static void advance(uint64_t now_ms)
{
    bt_wheel_advance(&wheel, now_ms, count_fired, NULL);
}

static void arm(probe *p, uint64_t deadline_ms)
{
    bt_wheel_entry_init(&p->entry);
    p->fired = 0;
    bt_wheel_set(&wheel, &p->entry, deadline_ms);
}

static int fresh_wheel(void **state)
{
    (void) state;
    bt_wheel_init(&wheel, START);
    return 0;
}

static void test_fires_at_its_millisecond_and_once(void **state)
{
    (void) state;
    probe p;
    arm(&p, START + 330);
    assert_int_equal(wheel.count, 1);
    for (uint64_t now = START; now < START + 330; now++)
        advance(now);
    assert_int_equal(p.fired, 0);
    advance(START + 330);
    assert_int_equal(p.fired, 1);
    assert_int_equal(p.entry.deadline_ms, START + 330);
    assert_int_equal(wheel.count, 0);
    advance(START + 200000);
    assert_int_equal(p.fired, 1);
}

static void test_past_and_present_deadlines_fire_at_the_next_advance(void **state)
{
    (void) state;
    probe past;
    probe present;
    arm(&past, 1);
    arm(&present, START);
    advance(START);
    assert_int_equal(past.fired, 1);
    assert_int_equal(present.fired, 1);
}

static void test_later_deadline_is_a_store_and_early_entry_is_put_back(void **state)
{
    (void) state;
    probe p;
    arm(&p, START + 1000);
    bt_wheel_entry before = p.entry;
    bt_wheel_set(&wheel, &p.entry, START + 9000);
    assert_ptr_equal(p.entry.node.next, before.node.next);
    assert_int_equal(p.entry.due_tick, before.due_tick);
    advance(START + 1500);
    assert_int_equal(p.fired, 0);
    assert_int_equal(wheel.count, 1);
    assert_int_not_equal(p.entry.due_tick, before.due_tick);
    advance(START + 8999);
    assert_int_equal(p.fired, 0);
    advance(START + 9000);
    assert_int_equal(p.fired, 1);
}

static void test_deadline_between_slot_and_last_one_is_a_store_too(void **state)
{
    (void) state;
    probe p;
    arm(&p, START + 1000);
    uint64_t due_tick = p.entry.due_tick;
    bt_wheel_set(&wheel, &p.entry, START + 9000);
    bt_wheel_set(&wheel, &p.entry, START + 3000);
    assert_int_equal(p.entry.due_tick, due_tick);
    advance(START + 2999);
    assert_int_equal(p.fired, 0);
    advance(START + 3000);
    assert_int_equal(p.fired, 1);
}

static void test_earlier_deadline_relinks(void **state)
{
    (void) state;
    probe p;
    arm(&p, START + 9000);
    bt_wheel_set(&wheel, &p.entry, START + 200);
    assert_int_equal(wheel.count, 1);
    advance(START + 200);
    assert_int_equal(p.fired, 1);
    advance(START + 9000);
    assert_int_equal(p.fired, 1);
}

static void test_zero_clears_and_remove_keeps_the_deadline(void **state)
{
    (void) state;
    probe cleared;
    probe removed;
    arm(&cleared, START + 100);
    arm(&removed, START + 100);
    bt_wheel_set(&wheel, &cleared.entry, 0);
    bt_wheel_remove(&wheel, &removed.entry);
    bt_wheel_remove(&wheel, &removed.entry);
    bt_wheel_set(&wheel, &cleared.entry, 0);
    assert_int_equal(wheel.count, 0);
    assert_int_equal(removed.entry.deadline_ms, START + 100);
    advance(START + 60000);
    assert_int_equal(cleared.fired + removed.fired, 0);
}

static void test_deadlines_beyond_one_round_wait_for_theirs(void **state)
{
    (void) state;
    const uint64_t round_ms = (uint64_t) BT_WHEEL_SLOTS * BT_WHEEL_TICK_MS;
    probe p[4];
    for (uint64_t i = 0; i < 4; i++)
        arm(&p[i], START + 10 + i * round_ms); /* all in one slot */
    for (uint64_t now = START; now < START + 4 * round_ms; now += 70) {
        advance(now);
        for (uint64_t i = 0; i < 4; i++)
            assert_int_equal(p[i].fired, now >= START + 10 + i * round_ms);
    }
}

static void test_clock_jump_over_many_rounds_fires_all_that_is_due(void **state)
{
    (void) state;
    static probe p[ENTRIES];
    for (uint64_t i = 0; i < ENTRIES; i++)
        arm(&p[i], START + i * 997);
    uint64_t now = START + 100 * 997;
    advance(now);
    for (uint64_t i = 0; i < ENTRIES; i++)
        assert_int_equal(p[i].fired, i <= 100);
    advance(START + 10000000);
    for (uint64_t i = 0; i < ENTRIES; i++)
        assert_int_equal(p[i].fired, 1);
    assert_int_equal(wheel.count, 0);
}

static void test_clock_step_back_does_nothing(void **state)
{
    (void) state;
    probe p;
    advance(START + 5000);
    arm(&p, START + 5100);
    advance(START);
    assert_int_equal(p.fired, 0);
    advance(START + 5100);
    assert_int_equal(p.fired, 1);
}

/* Random sets, removes and steps against the plain rule: fires iff linked and deadline <= now. */
static void test_behaves_like_a_plain_list_of_deadlines(void **state)
{
    (void) state;
    static probe p[ENTRIES];
    uint64_t now = START;
    srand(7);
    for (int i = 0; i < ENTRIES; i++)
        arm(&p[i], 0);
    for (int round = 0; round < 20000; round++) {
        probe *one = &p[rand() % ENTRIES];
        one->fired = 0;
        bt_wheel_set(&wheel, &one->entry, rand() % 10 == 0 ? 0 : now + (uint64_t) (rand() % 120000));
        now += (uint64_t) (rand() % 50 == 0 ? rand() % 90000 : rand() % 130);
        advance(now);
        size_t linked = 0;
        for (int i = 0; i < ENTRIES; i++) {
            bool due = p[i].entry.deadline_ms != 0 && p[i].entry.deadline_ms <= now;
            assert_int_equal(p[i].fired, due);
            linked += !bt_list_empty(&p[i].entry.node);
        }
        assert_int_equal(wheel.count, linked);
    }
}

/* ---- callbacks that change the wheel under its feet ---- */

static probe *victims[3];

static void free_the_others(bt_wheel_entry *entry, void *arg)
{
    (void) arg;
    for (int i = 0; i < 3; i++) {
        if (!victims[i] || &victims[i]->entry == entry)
            continue;
        bt_wheel_remove(&wheel, &victims[i]->entry);
        free(victims[i]);
        victims[i] = NULL;
    }
}

static void test_callback_may_free_all_others_and_later_itself(void **state)
{
    (void) state;
    for (int i = 0; i < 3; i++) {
        victims[i] = malloc(sizeof(probe));
        arm(victims[i], START + 10 + (uint64_t) (i == 2)); /* the next of the same slot, and of another deadline */
    }
    bt_wheel_advance(&wheel, START + 500, free_the_others, NULL);
    assert_non_null(victims[0]);
    assert_null(victims[1]);
    assert_null(victims[2]);
    assert_int_equal(wheel.count, 0);
    free(victims[0]);
}

static void free_itself(bt_wheel_entry *entry, void *arg)
{
    (*(int *) arg)++;
    free(bt_container(entry, probe, entry));
}

static void test_callback_may_free_its_own_entry(void **state)
{
    (void) state;
    int calls = 0;
    for (int i = 0; i < 10; i++)
        arm(malloc(sizeof(probe)), START + 10);
    bt_wheel_advance(&wheel, START + 500, free_itself, &calls);
    assert_int_equal(calls, 10);
    assert_int_equal(wheel.count, 0);
}

static void set_again(bt_wheel_entry *entry, void *arg)
{
    bt_container(entry, probe, entry)->fired++;
    bt_wheel_set(&wheel, entry, *(uint64_t *) arg);
}

static void test_callback_may_set_its_entry_again(void **state)
{
    (void) state;
    probe p;
    arm(&p, START + 10);
    uint64_t again = START + 20; /* already past: not a second time in this advance, but in the next one */
    bt_wheel_advance(&wheel, START + 500, set_again, &again);
    assert_int_equal(p.fired, 1);
    again = START + 100000;
    bt_wheel_advance(&wheel, START + 500, set_again, &again);
    assert_int_equal(p.fired, 2);
    advance(START + 99999);
    assert_int_equal(p.fired, 2);
    advance(START + 100000);
    assert_int_equal(p.fired, 3);
}

static probe neighbour;

static void postpone_neighbour(bt_wheel_entry *entry, void *arg)
{
    (void) arg;
    bt_container(entry, probe, entry)->fired++;
    if (entry != &neighbour.entry)
        bt_wheel_set(&wheel, &neighbour.entry, START + 7000);
}

static void test_callback_may_postpone_an_entry_that_is_due_as_well(void **state)
{
    (void) state;
    probe first;
    arm(&first, START + 10);
    arm(&neighbour, START + 20);
    bt_wheel_advance(&wheel, START + 500, postpone_neighbour, NULL);
    assert_int_equal(first.fired, 1);
    assert_int_equal(neighbour.fired, 0);
    assert_int_equal(wheel.count, 1);
    advance(START + 7000);
    assert_int_equal(neighbour.fired, 1);
}

#define WHEEL_TEST(name) cmocka_unit_test_setup(name, fresh_wheel)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WHEEL_TEST(test_fires_at_its_millisecond_and_once),
        WHEEL_TEST(test_past_and_present_deadlines_fire_at_the_next_advance),
        WHEEL_TEST(test_later_deadline_is_a_store_and_early_entry_is_put_back),
        WHEEL_TEST(test_deadline_between_slot_and_last_one_is_a_store_too),
        WHEEL_TEST(test_earlier_deadline_relinks),
        WHEEL_TEST(test_zero_clears_and_remove_keeps_the_deadline),
        WHEEL_TEST(test_deadlines_beyond_one_round_wait_for_theirs),
        WHEEL_TEST(test_clock_jump_over_many_rounds_fires_all_that_is_due),
        WHEEL_TEST(test_clock_step_back_does_nothing),
        WHEEL_TEST(test_behaves_like_a_plain_list_of_deadlines),
        WHEEL_TEST(test_callback_may_free_all_others_and_later_itself),
        WHEEL_TEST(test_callback_may_free_its_own_entry),
        WHEEL_TEST(test_callback_may_set_its_entry_again),
        WHEEL_TEST(test_callback_may_postpone_an_entry_that_is_due_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
