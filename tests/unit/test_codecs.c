/* tests/unit/test_codecs.c: where a message ends in tcp, text and frame, however its bytes arrive. */
#include <errno.h>
#include <proto/stream.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { LIMIT = 64 };

/* Feeds a growing copy, each exactly sized, so that a sanitizer sees any read past the end. Returns how many bytes had
 * to arrive before the codec answered with something else than "more", and its answer. */
static size_t feed(const bt_codec *codec, const char *bytes, size_t len, int64_t *answer)
{
    uint32_t scanned = 0;
    for (size_t have = 1; have <= len; have++) {
        char *exact = malloc(have);
        memcpy(exact, bytes, have);
        *answer = codec->input(exact, have, LIMIT, &scanned);
        free(exact);
        if (*answer != 0)
            return have;
    }
    return 0;
}

static void assert_text(baton_str view, const char *expected)
{
    assert_int_equal(view.len, strlen(expected));
    assert_memory_equal(view.data, expected, view.len);
}

static void test_tcp_message_is_whatever_was_read(void **state)
{
    (void) state;
    uint32_t scanned = 0;
    assert_int_equal(bt_tcp_codec.input("abc", 3, LIMIT, &scanned), 3);
    assert_text(bt_tcp_codec.decode("abc", 3), "abc");
}

static void test_text_message_ends_with_its_line_feed(void **state)
{
    (void) state;
    int64_t answer = 0;
    assert_int_equal(feed(&bt_text_codec, "hello\nworld\n", 12, &answer), 6);
    assert_int_equal(answer, 6);
    assert_text(bt_text_codec.decode("hello\n", 6), "hello");
    assert_text(bt_text_codec.decode("hello\r\n", 7), "hello");
    assert_text(bt_text_codec.decode("\n", 1), "");
}

static void test_text_line_is_not_searched_twice(void **state)
{
    (void) state;
    uint32_t scanned = 0;
    char line[] = "abc\n";
    assert_int_equal(bt_text_codec.input(line, 2, LIMIT, &scanned), 0);
    assert_int_equal(scanned, 2);
    line[0] = '\n'; /* before what has been searched: must not be seen any more */
    assert_int_equal(bt_text_codec.input(line, 4, LIMIT, &scanned), 4);
}

static void test_text_line_over_the_limit_is_refused_as_soon_as_it_is(void **state)
{
    (void) state;
    char line[LIMIT + 2];
    int64_t answer = 0;
    memset(line, 'x', sizeof line);
    assert_int_equal(feed(&bt_text_codec, line, sizeof line, &answer), LIMIT + 1);
    assert_int_equal(answer, -EMSGSIZE);
    line[LIMIT - 1] = '\n';
    assert_int_equal(feed(&bt_text_codec, line, sizeof line, &answer), LIMIT);
    assert_int_equal(answer, LIMIT);
}

static void test_frame_counts_its_own_length(void **state)
{
    (void) state;
    int64_t answer = 0;
    assert_int_equal(feed(&bt_frame_codec, "\0\0\0\007abcX", 8, &answer), 7);
    assert_int_equal(answer, 7);
    assert_text(bt_frame_codec.decode("\0\0\0\007abc", 7), "abc");
    assert_int_equal(feed(&bt_frame_codec, "\0\0\0\004", 4, &answer), 4);
    assert_text(bt_frame_codec.decode("\0\0\0\004", 4), "");
}

static void test_frame_with_an_impossible_length_is_refused_at_its_head(void **state)
{
    (void) state;
    int64_t answer = 0;
    assert_int_equal(feed(&bt_frame_codec, "\0\0\0\003", 4, &answer), 4);
    assert_int_equal(answer, -EPROTO);
    assert_int_equal(feed(&bt_frame_codec, "\0\0\0\0", 4, &answer), 4);
    assert_int_equal(answer, -EPROTO);
    assert_int_equal(feed(&bt_frame_codec, "\0\0\0\101", 4, &answer), 4);
    assert_int_equal(answer, -EMSGSIZE);
    assert_int_equal(feed(&bt_frame_codec, "\377\377\377\377", 4, &answer), 4);
    assert_int_equal(answer, -EMSGSIZE);
}

static void test_what_is_encoded_is_decoded(void **state)
{
    (void) state;
    const bt_codec *codecs[] = {&bt_tcp_codec, &bt_text_codec, &bt_frame_codec};
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        bt_buf wire = {0};
        uint32_t scanned = 0;
        assert_int_equal(codecs[i]->encode(&wire, "message", 7), 0);
        size_t len = bt_buf_len(&wire);
        assert_int_equal(codecs[i]->input(bt_buf_head(&wire), len, LIMIT, &scanned), len);
        assert_text(codecs[i]->decode(bt_buf_head(&wire), len), "message");
        bt_buf_free(&wire);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_message_is_whatever_was_read),
        cmocka_unit_test(test_text_message_ends_with_its_line_feed),
        cmocka_unit_test(test_text_line_is_not_searched_twice),
        cmocka_unit_test(test_text_line_over_the_limit_is_refused_as_soon_as_it_is),
        cmocka_unit_test(test_frame_counts_its_own_length),
        cmocka_unit_test(test_frame_with_an_impossible_length_is_refused_at_its_head),
        cmocka_unit_test(test_what_is_encoded_is_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
