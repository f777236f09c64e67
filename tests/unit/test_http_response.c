/* tests/unit/test_http_response.c: response heads, chunks, fields and dates, byte for byte.
 * Also that nothing an application passes in can break out of its field. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <proto/http/response.h>
#include <stdio.h>
#include <stdlib.h>

#define DATE      "Sun, 06 Nov 1994 08:49:37 GMT"
#define DATE_LINE "Date: " DATE "\r\n"

static void assert_written(bt_buf *out, const char *expected)
{
    assert_int_equal(bt_buf_len(out), strlen(expected));
    assert_memory_equal(bt_buf_head(out), expected, strlen(expected));
    bt_buf_free(out);
}

static void assert_head(bt_http_head head, const char *expected)
{
    bt_buf out = {0};
    head.date = DATE;
    assert_int_equal(bt_http_write_head(&out, &head), 0);
    assert_written(&out, expected);
}

static void test_heads_say_how_the_body_ends(void **unused)
{
    (void) unused;
    assert_head((bt_http_head){.status = 200,
                               .content_type = "text/plain",
                               .framing = BT_HTTP_FRAMING_LENGTH,
                               .has_length = true,
                               .content_length = 2},
                "HTTP/1.1 200 OK\r\n" DATE_LINE "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n");
    assert_head((bt_http_head){.status = 404, .framing = BT_HTTP_FRAMING_CHUNKED},
                "HTTP/1.1 404 Not Found\r\n" DATE_LINE "Transfer-Encoding: chunked\r\n\r\n");
    assert_head((bt_http_head){.status = 200, .framing = BT_HTTP_FRAMING_CLOSE, .close = true},
                "HTTP/1.1 200 OK\r\n" DATE_LINE "Connection: close\r\n\r\n");
    assert_head((bt_http_head){.status = 304, .framing = BT_HTTP_FRAMING_NONE},
                "HTTP/1.1 304 Not Modified\r\n" DATE_LINE "\r\n");
    assert_head((bt_http_head){.status = 200,
                               .framing = BT_HTTP_FRAMING_NONE,
                               .has_length = true,
                               .content_length = UINT64_MAX,
                               .keep_alive_1_0 = true},
                "HTTP/1.1 200 OK\r\n" DATE_LINE
                "Content-Length: 18446744073709551615\r\nConnection: keep-alive\r\n\r\n");
    assert_head((bt_http_head){.status = 200, .close = true, .keep_alive_1_0 = true, .extra = {"A: b\r\nC: d\r\n", 12}},
                "HTTP/1.1 200 OK\r\n" DATE_LINE "Connection: close\r\nA: b\r\nC: d\r\n\r\n");
    assert_head((bt_http_head){.status = 200, .content_type = ""}, "HTTP/1.1 200 OK\r\n" DATE_LINE "\r\n");
}

static void test_unknown_statuses_are_written_with_their_number(void **unused)
{
    (void) unused;
    static const int statuses[] = {299, 306, 512, 599, 999, 105};
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        char expected[128];
        snprintf(expected, sizeof(expected), "HTTP/1.1 %d Unknown\r\n" DATE_LINE "\r\n", statuses[i]);
        assert_head((bt_http_head){.status = statuses[i]}, expected);
        assert_string_equal(bt_http_reason(statuses[i]), "Unknown");
    }
    assert_string_equal(bt_http_reason(-1), "Unknown");
    assert_string_equal(bt_http_reason(0), "Unknown");
    assert_string_equal(bt_http_reason(INT32_MAX), "Unknown");
    assert_string_equal(bt_http_reason(200), "OK");
    assert_string_equal(bt_http_reason(431), "Request Header Fields Too Large");
    assert_string_equal(bt_http_reason(511), "Network Authentication Required");
}

static void test_every_length_is_written_in_full(void **unused)
{
    (void) unused;
    uint64_t value = 1;
    for (int digits = 1; digits <= 20; digits++, value *= 10) {
        for (uint64_t length = value - 1; length <= value + 1; length++) {
            char expected[160];
            snprintf(expected, sizeof(expected), "HTTP/1.1 200 OK\r\n" DATE_LINE "Content-Length: %llu\r\n\r\n",
                     (unsigned long long) length);
            assert_head(
                (bt_http_head){
                    .status = 200, .framing = BT_HTTP_FRAMING_LENGTH, .has_length = true, .content_length = length},
                expected);
        }
    }
}

static void test_a_head_fits_the_room_it_reserves(void **unused)
{
    (void) unused;
    /* the longest of everything, with any room left in the buffer: ASan sees one byte too many */
    bt_http_head head = {.status = 511,
                         .content_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                         .extra = {"A: b\r\n", 6},
                         .framing = BT_HTTP_FRAMING_LENGTH,
                         .has_length = true,
                         .content_length = UINT64_MAX,
                         .keep_alive_1_0 = true,
                         .date = DATE};
    for (size_t room = 0; room < 512; room++) {
        bt_buf out = {0};
        assert_int_equal(bt_buf_grow(&out, 1024), 0);
        out.end = out.start = out.cap - room;
        assert_int_equal(bt_http_write_head(&out, &head), 0);
        assert_true(out.end <= out.cap);
        assert_memory_equal(bt_buf_tail(&out) - 10, "\r\nA: b\r\n\r\n", 10);
        bt_buf_free(&out);
    }
}

static void test_a_content_type_cannot_start_another_line(void **unused)
{
    (void) unused;
    static const char *const types[] = {"a\r\nSet-Cookie: x", "a\nb", "\r", "text/plain; charset=utf-8\x7f",
                                        "text/plain; charset=utf-8; more=\x01"};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        bt_buf out = {0};
        bt_http_head head = {.status = 200, .content_type = types[i], .date = DATE};
        assert_int_equal(bt_http_write_head(&out, &head), -EINVAL);
        assert_int_equal(bt_buf_len(&out), 0);
        bt_buf_free(&out);
    }
}

static void test_chunks_carry_their_size_in_hex(void **unused)
{
    (void) unused;
    static const size_t sizes[] = {1, 9, 10, 15, 16, 17, 255, 256, 4095, 4096, 65535, 65536, 1048577};
    char *data = malloc(1048577);
    assert_non_null(data);
    memset(data, 'd', 1048577);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char line[32];
        bt_buf out = {0};
        size_t line_len = (size_t) snprintf(line, sizeof(line), "%zx\r\n", sizes[i]);
        assert_int_equal(bt_http_write_chunk(&out, data, sizes[i]), 0);
        assert_int_equal(bt_buf_len(&out), line_len + sizes[i] + 2);
        assert_memory_equal(bt_buf_head(&out), line, line_len);
        assert_memory_equal(bt_buf_head(&out) + line_len, data, sizes[i]);
        assert_memory_equal(bt_buf_tail(&out) - 2, "\r\n", 2);
        bt_buf_free(&out);
    }
    free(data);
}

static void test_only_the_last_chunk_ends_the_body(void **unused)
{
    (void) unused;
    bt_buf out = {0};
    assert_int_equal(bt_http_write_chunk(&out, NULL, 0), 0);
    assert_int_equal(bt_buf_len(&out), 0);
    assert_int_equal(bt_http_write_last_chunk(&out, (baton_str){NULL, 0}), 0);
    assert_written(&out, "0\r\n\r\n");
    assert_int_equal(bt_http_write_last_chunk(&out, (baton_str){"A: b\r\n", 6}), 0);
    assert_written(&out, "0\r\nA: b\r\n\r\n");
}

static void test_fields_are_checked(void **unused)
{
    (void) unused;
    bt_buf out = {0};
    static const struct {
        const char *name, *value;
    } bad[] = {
        {"", "a"},     {"A b", "c"},  {"A:", "b"},    {"A\r", "b"},  {"\xc3\xa4", "b"},           {"A", "b\r\nC: d"},
        {"A", "b\nc"}, {"A", "b\rc"}, {"A", "b\x7f"}, {"A", "\x01"}, {"A", "0123456789abcdef\n"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(bt_http_write_field(&out, bad[i].name, bad[i].value), -EINVAL);
    assert_int_equal(bt_buf_len(&out), 0);
    assert_int_equal(bt_http_write_field(&out, "X-A", "b\tc \xc3\xa4"), 0);
    assert_int_equal(bt_http_write_field(&out, "B", ""), 0);
    assert_written(&out, "X-A: b\tc \xc3\xa4\r\nB: \r\n");
}

static void test_framing_fields_are_the_frameworks(void **unused)
{
    (void) unused;
    static const char *const reserved[] = {"connection", "CONTENT-LENGTH", "Transfer-Encoding", "date",
                                           "keep-alive", "Upgrade",        "Trailer",           "te"};
    static const char *const free_names[] = {"Content-Type", "Server", "Dat", "Dates", "T", "Content-Lengt", ""};
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        assert_true(bt_http_field_is_reserved(reserved[i]));
    for (size_t i = 0; i < sizeof(free_names) / sizeof(free_names[0]); i++)
        assert_false(bt_http_field_is_reserved(free_names[i]));
}

static void test_statuses_without_body(void **unused)
{
    (void) unused;
    for (int status = 100; status < 600; status++)
        assert_int_equal(bt_http_status_has_no_body(status), status < 200 || status == 204 || status == 304);
}

static void test_dates_are_imf_fixdates(void **unused)
{
    (void) unused;
    static const struct {
        int64_t seconds;
        const char *text;
    } dates[] = {
        {0, "Thu, 01 Jan 1970 00:00:00 GMT"},          {784111777, DATE},
        {951782399, "Mon, 28 Feb 2000 23:59:59 GMT"},  {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
        {1798761599, "Thu, 31 Dec 2026 23:59:59 GMT"}, {4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"},
        {-1, "Wed, 31 Dec 1969 23:59:59 GMT"},         {253402300799, "Fri, 31 Dec 9999 23:59:59 GMT"},
        {INT64_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"},  {INT64_MIN, "Mon, 01 Jan 0001 00:00:00 GMT"},
    };
    for (size_t i = 0; i < sizeof(dates) / sizeof(dates[0]); i++) {
        char *text = malloc(30);
        assert_non_null(text);
        bt_http_date(dates[i].seconds, text);
        assert_string_equal(text, dates[i].text);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads_say_how_the_body_ends),
        cmocka_unit_test(test_unknown_statuses_are_written_with_their_number),
        cmocka_unit_test(test_every_length_is_written_in_full),
        cmocka_unit_test(test_a_head_fits_the_room_it_reserves),
        cmocka_unit_test(test_a_content_type_cannot_start_another_line),
        cmocka_unit_test(test_chunks_carry_their_size_in_hex),
        cmocka_unit_test(test_only_the_last_chunk_ends_the_body),
        cmocka_unit_test(test_fields_are_checked),
        cmocka_unit_test(test_framing_fields_are_the_frameworks),
        cmocka_unit_test(test_statuses_without_body),
        cmocka_unit_test(test_dates_are_imf_fixdates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
