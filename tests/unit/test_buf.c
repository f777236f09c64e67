/* test_buf: the byte buffer keeps its bytes through growing, moving and consuming.
 * Also the ends of its range: empty, huge, freed. */
#include <base/buf.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_holds(const bt_buf *buf, const char *expected)
{
    assert_int_equal(bt_buf_len(buf), strlen(expected));
    assert_memory_equal(bt_buf_head(buf), expected, strlen(expected));
}

static void test_zeroed_buffer_is_valid_and_empty(void **state)
{
    (void) state;
    bt_buf buf = {0};
    assert_int_equal(bt_buf_len(&buf), 0);
    assert_null(bt_buf_head(&buf));
    assert_int_equal(bt_buf_append(&buf, NULL, 0), 0);
    assert_int_equal(bt_buf_reserve(&buf, 0), 0);
    assert_int_equal(buf.cap, 0);
    bt_buf_free(&buf);
}

static void test_bytes_survive_growth_and_consuming(void **state)
{
    (void) state;
    bt_buf buf = {0};
    unsigned char next_in = 0;
    unsigned char next_out = 0;
    /* Uneven steps, so that start and end meet every case of moving and growing. */
    for (size_t round = 0; round < 2000; round++) {
        size_t add = round * 7 % 61;
        for (size_t i = 0; i < add; i++, next_in++)
            assert_int_equal(bt_buf_append(&buf, &next_in, 1), 0);
        size_t eat = round * 13 % 59;
        if (eat > bt_buf_len(&buf))
            eat = bt_buf_len(&buf);
        for (size_t i = 0; i < eat; i++, next_out++)
            assert_int_equal((unsigned char) bt_buf_head(&buf)[i], next_out);
        bt_buf_consume(&buf, eat);
    }
    bt_buf_free(&buf);
}

static void test_queue_of_constant_length_does_not_grow(void **state)
{
    (void) state;
    bt_buf buf = {0};
    assert_int_equal(bt_buf_append(&buf, "0123456789", 10), 0);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(bt_buf_append(&buf, "0123456789", 10), 0);
        bt_buf_consume(&buf, 10);
    }
    assert_holds(&buf, "0123456789");
    assert_true(buf.cap <= 512);
    bt_buf_free(&buf);
}

static void test_growth_doubles(void **state)
{
    (void) state;
    bt_buf buf = {0};
    int growths = 0;
    for (int i = 0; i < 1 << 20; i++) {
        size_t before = buf.cap;
        assert_int_equal(bt_buf_append(&buf, "x", 1), 0);
        growths += buf.cap != before;
    }
    assert_true(growths < 20);
    bt_buf_free(&buf);
}

static void test_emptied_buffer_starts_over(void **state)
{
    (void) state;
    bt_buf buf = {0};
    assert_int_equal(bt_buf_append(&buf, "abc", 3), 0);
    bt_buf_consume(&buf, 2);
    assert_holds(&buf, "c");
    bt_buf_consume(&buf, 1);
    assert_int_equal(buf.start, 0);
    assert_int_equal(buf.end, 0);
    bt_buf_free(&buf);
    assert_null(buf.data);
}

static void test_absurd_sizes_are_refused_and_change_nothing(void **state)
{
    (void) state;
    bt_buf buf = {0};
    assert_int_equal(bt_buf_append(&buf, "abc", 3), 0);
    bt_buf before = buf;
    assert_int_equal(bt_buf_reserve(&buf, SIZE_MAX), -ENOMEM);
    assert_int_equal(bt_buf_reserve(&buf, SIZE_MAX - 3), -ENOMEM);
    assert_memory_equal(&buf, &before, sizeof(buf));
    assert_holds(&buf, "abc");
    bt_buf_free(&buf);
}

static void test_printf_fits_at_every_length_around_the_room(void **state)
{
    (void) state;
    for (int len = 0; len < 600; len++) {
        bt_buf buf = {0};
        assert_int_equal(bt_buf_append(&buf, "<", 1), 0);
        assert_int_equal(bt_buf_printf(&buf, "%*s>", len, ""), 0);
        assert_int_equal(bt_buf_len(&buf), (size_t) len + 2);
        assert_int_equal(bt_buf_head(&buf)[len + 1], '>');
        bt_buf_free(&buf);
    }
}

static void test_printf_into_an_empty_buffer(void **state)
{
    (void) state;
    bt_buf buf = {0};
    assert_int_equal(bt_buf_printf(&buf, "%s", ""), 0);
    assert_int_equal(bt_buf_printf(&buf, "HTTP/1.%d %d", 1, 200), 0);
    assert_holds(&buf, "HTTP/1.1 200");
    bt_buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroed_buffer_is_valid_and_empty),
        cmocka_unit_test(test_bytes_survive_growth_and_consuming),
        cmocka_unit_test(test_queue_of_constant_length_does_not_grow),
        cmocka_unit_test(test_growth_doubles),
        cmocka_unit_test(test_emptied_buffer_starts_over),
        cmocka_unit_test(test_absurd_sizes_are_refused_and_change_nothing),
        cmocka_unit_test(test_printf_fits_at_every_length_around_the_room),
        cmocka_unit_test(test_printf_into_an_empty_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
