/* tests/unit/test_pass_wire.c: what one process says of its connections, the other understands; and nothing else gets
 * in. */
#include <errno.h>
#include <proc/pass_wire.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void add_record(bt_buf *message, uint64_t id, const char *unread, const char *unsent)
{
    bt_pass_record record = {.id = id, .protocol = 1, .unread_len = strlen(unread), .unsent_len = strlen(unsent)};
    assert_int_equal(bt_buf_append(message, &record, sizeof record), 0);
    assert_int_equal(bt_buf_append(message, unread, strlen(unread)), 0);
    assert_int_equal(bt_buf_append(message, unsent, strlen(unsent)), 0);
}

/* Two connections, the second with bytes both ways. */
static bt_buf two_conns(void)
{
    bt_buf message = {0};
    assert_int_equal(bt_pass_begin(&message, BT_PASS_CONNS, 1), 0);
    add_record(&message, 7, "", "");
    add_record(&message, 8, "GET / HT", "HTTP/1.1 200");
    bt_pass_count(&message, 2);
    return message;
}

static void test_records_arrive_with_their_bytes(void **state)
{
    (void) state;
    bt_buf message = two_conns();
    bt_pass_reader reader;
    bt_pass_record record;
    const char *payload;
    assert_int_equal(bt_pass_open(&reader, bt_buf_head(&message), bt_buf_len(&message), BT_PASS_CONNS), 0);
    assert_int_equal(bt_pass_next(&reader, &record, &payload), 1);
    assert_int_equal(record.id, 7);
    assert_int_equal(bt_pass_payload_len(&record), 0);
    assert_int_equal(bt_pass_next(&reader, &record, &payload), 1);
    assert_int_equal(record.id, 8);
    assert_memory_equal(payload, "GET / HTHTTP/1.1 200", 20);
    assert_int_equal(bt_pass_next(&reader, &record, &payload), 0);
    bt_buf_free(&message);
}

/* Reads a whole message; 0 or the error. */
static int read_all(const void *data, size_t len)
{
    bt_pass_reader reader;
    bt_pass_record record;
    const char *payload;
    int more = bt_pass_open(&reader, data, len, BT_PASS_CONNS);
    if (more < 0)
        return more;
    while ((more = bt_pass_next(&reader, &record, &payload)) > 0)
        ;
    return more;
}

static void test_every_truncation_is_refused(void **state)
{
    (void) state;
    bt_buf message = two_conns();
    for (size_t len = 0; len < bt_buf_len(&message); len++) {
        char *exact = malloc(len == 0 ? 1 : len); /* so that a sanitizer sees any read past the end */
        memcpy(exact, bt_buf_head(&message), len);
        assert_int_equal(read_all(exact, len), -EPROTO);
        free(exact);
    }
    assert_int_equal(read_all(bt_buf_head(&message), bt_buf_len(&message)), 0);
    bt_buf_free(&message);
}

static void test_bytes_behind_the_last_record_are_refused(void **state)
{
    (void) state;
    bt_buf message = two_conns();
    assert_int_equal(bt_buf_append(&message, "x", 1), 0);
    assert_int_equal(read_all(bt_buf_head(&message), bt_buf_len(&message)), -EPROTO);
    bt_buf_free(&message);
}

static void test_lengths_that_overflow_are_refused(void **state)
{
    (void) state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 20, (uint64_t) BT_PASS_MAX_PAYLOAD + 1, 1ull << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        bt_buf message = {0};
        bt_pass_record record = {.id = 1, .unread_len = lengths[i], .unsent_len = 21};
        assert_int_equal(bt_pass_begin(&message, BT_PASS_CONNS, 1), 0);
        assert_int_equal(bt_buf_append(&message, &record, sizeof record), 0);
        bt_pass_count(&message, 1);
        assert_int_equal(read_all(bt_buf_head(&message), bt_buf_len(&message)), -EPROTO);
        bt_buf_free(&message);
    }
}

static void test_another_version_or_type_is_refused(void **state)
{
    (void) state;
    bt_buf message = two_conns();
    bt_pass_reader reader;
    char *head = bt_buf_head(&message);
    size_t len = bt_buf_len(&message);
    assert_int_equal(bt_pass_open(&reader, head, len, BT_PASS_VERDICTS), -EPROTO);
    head[offsetof(bt_pass_header, version)]++;
    assert_int_equal(bt_pass_open(&reader, head, len, BT_PASS_CONNS), -EPROTO);
    head[offsetof(bt_pass_header, version)]--;
    head[0]++;
    assert_int_equal(bt_pass_open(&reader, head, len, BT_PASS_CONNS), -EPROTO);
    bt_buf_free(&message);
}

static void test_state_beyond_the_limit_or_of_nobody_is_refused(void **state)
{
    (void) state;
    static const bt_pass_record records[] = {
        {.app_len = 1, .in_memfd = 1},
        {.app_len = BT_PASS_MAX_APP + 1, .has_app = 1, .in_memfd = 1},
        {.app_len = 1, .has_app = 2, .in_memfd = 1},
        {.app_len = BT_PASS_MAX_APP, .has_app = 1, .in_memfd = 1}, /* the one that is right */
    };
    for (size_t i = 0; i < 4; i++) {
        bt_buf message = {0};
        assert_int_equal(bt_pass_begin(&message, BT_PASS_CONNS, 1), 0);
        assert_int_equal(bt_buf_append(&message, &records[i], sizeof records[i]), 0);
        bt_pass_count(&message, 1);
        assert_int_equal(read_all(bt_buf_head(&message), bt_buf_len(&message)), i == 3 ? 0 : -EPROTO);
        bt_buf_free(&message);
    }
}

/* ---- HELLO ---- */

/* Byte for byte: every baton that will ever be must write and read it so. */
static const unsigned char hello_bytes[] = {'B', 'P', 'A', 'S', 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
                                            0,   0,   1,   0,   1, 0, 1, 0, 0, 0, 7, 0, 0, 0};

static void test_layout_of_hello_is_frozen(void **state)
{
    (void) state;
    bt_buf message = {0};
    bt_pass_hello hello = {.wire_min = 1, .wire_max = 1, .reads_app = 1, .app_version = 7};
    assert_int_equal(bt_pass_add_hello(&message, &hello), 0);
    assert_int_equal(bt_buf_len(&message), sizeof hello_bytes);
    assert_memory_equal(bt_buf_head(&message), hello_bytes, sizeof hello_bytes);
    memset(&hello, 0, sizeof hello);
    assert_int_equal(bt_pass_read_hello(hello_bytes, sizeof hello_bytes, &hello), 0);
    assert_int_equal(hello.wire_min, 1);
    assert_int_equal(hello.wire_max, 1);
    assert_int_equal(hello.reads_app, 1);
    assert_int_equal(hello.app_version, 7);
    bt_buf_free(&message);
}

static void test_hello_of_a_later_baton_is_read(void **state)
{
    (void) state;
    char later[sizeof hello_bytes + 100];
    bt_pass_hello hello;
    memset(later, 'x', sizeof later);
    memcpy(later, hello_bytes, sizeof hello_bytes);
    assert_int_equal(bt_pass_read_hello(later, sizeof later, &hello), 0);
    assert_int_equal(hello.app_version, 7);
}

static void test_every_other_hello_is_refused(void **state)
{
    (void) state;
    bt_pass_hello hello;
    for (size_t len = 0; len < sizeof hello_bytes; len++) {
        char *exact = malloc(len == 0 ? 1 : len);
        memcpy(exact, hello_bytes, len);
        assert_int_equal(bt_pass_read_hello(exact, len, &hello), -EPROTO);
        free(exact);
    }
    static const size_t places[] = {0, 4, 6, 16 /* the oldest version is newer than the newest */};
    for (size_t i = 0; i < 4; i++) {
        unsigned char other[sizeof hello_bytes];
        memcpy(other, hello_bytes, sizeof other);
        other[places[i]]++;
        assert_int_equal(bt_pass_read_hello(other, sizeof other, &hello), -EPROTO);
    }
}

static void test_newest_common_version_is_used(void **state)
{
    (void) state;
    static const struct {
        uint16_t min, max, common;
    } rows[] = {{1, 1, 1}, {1, 9, BT_PASS_VERSION_MAX}, {0, 0, 0}, {BT_PASS_VERSION_MAX + 1, 9, 0}, {0, 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bt_pass_hello hello = {.wire_min = rows[i].min, .wire_max = rows[i].max};
        assert_int_equal(bt_pass_common_version(&hello), rows[i].common);
    }
}

static void test_verdicts_arrive_in_order(void **state)
{
    (void) state;
    bt_buf message = {0};
    bt_pass_reader reader;
    bt_pass_verdict verdict;
    assert_int_equal(bt_pass_begin(&message, BT_PASS_VERDICTS, 1), 0);
    assert_int_equal(bt_pass_add_verdict(&message, 7, BT_VERDICT_TAKEN), 0);
    assert_int_equal(bt_pass_add_verdict(&message, 8, BT_VERDICT_DRAINING), 0);
    bt_pass_count(&message, 2);
    assert_int_equal(bt_pass_open(&reader, bt_buf_head(&message), bt_buf_len(&message), BT_PASS_VERDICTS), 0);
    assert_int_equal(bt_pass_next_verdict(&reader, &verdict), 1);
    assert_int_equal(verdict.id, 7);
    assert_int_equal(verdict.verdict, BT_VERDICT_TAKEN);
    assert_int_equal(bt_pass_next_verdict(&reader, &verdict), 1);
    assert_int_equal(verdict.id, 8);
    assert_int_equal(bt_pass_next_verdict(&reader, &verdict), 0);
    bt_buf_free(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_arrive_with_their_bytes),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_bytes_behind_the_last_record_are_refused),
        cmocka_unit_test(test_lengths_that_overflow_are_refused),
        cmocka_unit_test(test_another_version_or_type_is_refused),
        cmocka_unit_test(test_state_beyond_the_limit_or_of_nobody_is_refused),
        cmocka_unit_test(test_layout_of_hello_is_frozen),
        cmocka_unit_test(test_hello_of_a_later_baton_is_read),
        cmocka_unit_test(test_every_other_hello_is_refused),
        cmocka_unit_test(test_newest_common_version_is_used),
        cmocka_unit_test(test_verdicts_arrive_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
