/* tests/unit/test_http_request.c: what the accessors of baton/http.h say about a parsed request.
 * Windows are exactly as large as the request, so that ASan sees a view that reads on. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <baton/http.h>
#include <proto/http/request.h>
#include <stdio.h>
#include <stdlib.h>

#define FIELDS        32
#define PARSE(bytes)  parse((bytes), sizeof(bytes) - 1)
#define QUERY(params) PARSE("GET /?" params " HTTP/1.1\r\nHost: a\r\n\r\n")

static bt_http_field fields[FIELDS];
static baton_request request;

static int set_up(void **unused)
{
    (void) unused;
    request = (baton_request){0};
    bt_http_parser_init(&request.parser, fields, FIELDS);
    return 0;
}

static int tear_down(void **unused)
{
    (void) unused;
    free(request.window);
    bt_request_free(&request);
    return 0;
}

static const baton_request *parse(const char *bytes, size_t len)
{
    static const bt_http_limits limits = {1 << 20, 8192, FIELDS, 1 << 20};
    free(request.window);
    bt_request_reset(&request);
    assert_null(request.window);
    request.window = malloc(len);
    assert_non_null(request.window);
    memcpy(request.window, bytes, len);
    assert_int_equal(bt_http_parse(&request.parser, request.window, len, &limits), BT_HTTP_COMPLETE);
    request.window_len = request.parser.position;
    return &request;
}

static void assert_view(baton_str view, const char *expected)
{
    if (!expected) {
        assert_null(view.data);
        assert_int_equal(view.len, 0);
        return;
    }
    assert_non_null(view.data);
    assert_int_equal(view.len, strlen(expected));
    assert_memory_equal(view.data, expected, view.len);
}

static void test_request_line_is_split(void **unused)
{
    (void) unused;
    static const struct {
        const char *target, *path, *query;
    } targets[] = {
        {"/", "/", NULL},
        {"/a%20b?c=d?e", "/a%20b", "c=d?e"},
        {"/?", "/", ""},
        {"//x//y", "//x//y", NULL},
        {"http://host", "/", NULL},
        {"http://host?q", "/", "q"},
        {"HTTPS://[::1]:80/p/q?r", "/p/q", "r"},
        {"http://host/a://b?c", "/a://b", "c"},
    };
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        char bytes[256];
        int len = snprintf(bytes, sizeof(bytes), "DELETE %s HTTP/1.0\r\nA: b\r\n\r\n", targets[i].target);
        const baton_request *req = parse(bytes, (size_t) len);
        assert_view(baton_request_method(req), "DELETE");
        assert_view(baton_request_target(req), targets[i].target);
        assert_view(baton_request_path(req), targets[i].path);
        assert_view(baton_request_query(req), targets[i].query);
        assert_int_equal(baton_request_minor_version(req), 0);
    }
    const baton_request *req = PARSE("\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_view(baton_request_method(req), "OPTIONS");
    assert_view(baton_request_path(req), "*");
    assert_view(baton_request_query(req), NULL);
    assert_int_equal(baton_request_minor_version(req), 1);
}

static void test_headers_are_found_in_any_case_and_in_order(void **unused)
{
    (void) unused;
    baton_str name, value;
    const baton_request *req = PARSE("GET / HTTP/1.1\r\nHost: a\r\nX-One: \t1 \r\nx-ONE: 2\r\nEmpty:\r\nA^: 3\r\n\r\n");
    assert_view(baton_request_header(req, "x-one"), "1");
    assert_view(baton_request_header(req, "X-ONE"), "1");
    assert_view(baton_request_header(req, "EMPTY"), "");
    assert_view(baton_request_header(req, "X-On"), NULL);
    assert_view(baton_request_header(req, "X-Ones"), NULL);
    assert_view(baton_request_header(req, ""), NULL);
    assert_view(baton_request_header(req, "A~"), NULL); /* not the other case of ^ */
    assert_view(baton_request_trailer(req, "X-One"), NULL);
    assert_true(baton_request_header_at(req, 2, &name, &value));
    assert_view(name, "x-ONE");
    assert_view(value, "2");
    assert_true(baton_request_header_at(req, 4, &name, &value));
    assert_false(baton_request_header_at(req, 5, &name, &value));
    assert_false(baton_request_header_at(req, SIZE_MAX, &name, &value));
}

static void test_trailers_are_kept_apart_from_headers(void **unused)
{
    (void) unused;
    baton_str name, value;
    const baton_request *req = PARSE("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                                     "5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 9\r\nAuthorization: no\r\n\r\n");
    assert_view(baton_request_body(req), "hello!");
    assert_view(baton_request_trailer(req, "x-sum"), "9");
    assert_view(baton_request_trailer(req, "host"), NULL);
    assert_view(baton_request_header(req, "X-Sum"), NULL);
    assert_view(baton_request_header(req, "Authorization"), NULL);
    assert_true(baton_request_header_at(req, 1, &name, &value));
    assert_false(baton_request_header_at(req, 2, &name, &value));
}

static void test_cookies_are_found_by_exact_name(void **unused)
{
    (void) unused;
    const baton_request *req = PARSE("GET / HTTP/1.1\r\nHost: a\r\nCookie: ab=1; a=2;b=\"x=y\" ;  c= ;flag; =z;A=3\r\n"
                                     "cookie: late=4; a=5\r\n\r\n");
    assert_view(baton_request_cookie(req, "a"), "2");
    assert_view(baton_request_cookie(req, "ab"), "1");
    assert_view(baton_request_cookie(req, "A"), "3");
    assert_view(baton_request_cookie(req, "b"), "\"x=y\"");
    assert_view(baton_request_cookie(req, "c"), "");
    assert_view(baton_request_cookie(req, "late"), "4");
    assert_view(baton_request_cookie(req, "flag"), NULL);
    assert_view(baton_request_cookie(req, "x"), NULL);
    assert_view(baton_request_cookie(PARSE("GET / HTTP/1.1\r\nHost: a\r\nCookie:\r\n\r\n"), "a"), NULL);
    assert_view(baton_request_cookie(PARSE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "a"), NULL);
}

static void test_query_parameters_are_decoded(void **unused)
{
    (void) unused;
    const baton_request *req = QUERY("a=1&b=x%20y+z&a=2&&e=&flag&%61b=%c3%A4&bad=%zz%4&=empty&last=%");
    assert_view(baton_request_query_param(req, "a"), "1");
    assert_view(baton_request_query_param(req, "b"), "x y z");
    assert_view(baton_request_query_param(req, "e"), "");
    assert_view(baton_request_query_param(req, "flag"), "");
    assert_view(baton_request_query_param(req, "ab"), "\xc3\xa4");
    assert_view(baton_request_query_param(req, "bad"), "%zz%4");
    assert_view(baton_request_query_param(req, "last"), "%");
    assert_view(baton_request_query_param(req, ""), "empty");
    assert_view(baton_request_query_param(req, "x"), NULL);
    assert_view(baton_request_form_param(req, "a"), NULL);
    assert_view(baton_request_query_param(QUERY(""), ""), NULL);
    assert_view(baton_request_query_param(PARSE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "a"), NULL);
    baton_str nul = baton_request_query_param(QUERY("a=%00b"), "a");
    assert_int_equal(nul.len, 2);
    assert_memory_equal(nul.data, "\0b", 2);
}

static void test_form_parameters_need_the_form_type(void **unused)
{
    (void) unused;
    static const struct {
        const char *type, *value;
    } types[] = {
        {"application/x-www-form-urlencoded", "1 2"},
        {"Application/X-WWW-Form-Urlencoded; charset=utf-8", "1 2"},
        {"application/x-www-form-urlencoded ;x", "1 2"},
        {"application/x-www-form-urlencodedx", NULL},
        {"text/plain", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        char bytes[256];
        int len = snprintf(bytes, sizeof(bytes),
                           "POST /?a=query HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: 5\r\n\r\na=1+2",
                           types[i].type);
        assert_view(baton_request_form_param(parse(bytes, (size_t) len), "a"), types[i].value);
    }
}

static void test_decoded_values_live_until_the_reset(void **unused)
{
    (void) unused;
    enum { LONG = 200000, VALUES = 2000 };
    char *bytes = malloc(LONG + 200);
    assert_non_null(bytes);
    int head = snprintf(bytes, 200,
                        "POST /?a=%%31 HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                        "Content-Length: %d\r\n\r\nb=%%32",
                        LONG);
    memset(bytes + head, '+', LONG - 5);
    const baton_request *req = parse(bytes, (size_t) head + LONG - 5);
    baton_str small[VALUES];
    baton_str big = baton_request_form_param(req, "b");
    for (int i = 0; i < VALUES; i++)
        small[i] = baton_request_query_param(req, "a");
    baton_str again = baton_request_form_param(req, "b");
    assert_int_equal(big.len, LONG - 5 + 1);
    assert_memory_equal(big.data, again.data, big.len);
    for (int i = 0; i < VALUES; i++)
        assert_view(small[i], "1");
    /* what one huge request needed is not kept */
    bt_arena_alloc(&request.arena, 1);
    PARSE("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_null(request.arena.first);
    assert_view(baton_request_query_param(QUERY("a=%33"), "a"), "3");
    free(bytes);
}

static void test_an_absurd_arena_size_is_refused(void **unused)
{
    (void) unused;
    assert_null(bt_arena_alloc(&request.arena, SIZE_MAX));
    assert_non_null(bt_arena_alloc(&request.arena, 0));
}

static void test_a_request_without_body_has_an_empty_one(void **unused)
{
    (void) unused;
    assert_int_equal(baton_request_body(PARSE("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).len, 0);
    assert_view(baton_request_body(PARSE("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET")), "abc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_request_line_is_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_headers_are_found_in_any_case_and_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trailers_are_kept_apart_from_headers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cookies_are_found_by_exact_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_query_parameters_are_decoded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_form_parameters_need_the_form_type, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_decoded_values_live_until_the_reset, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_absurd_arena_size_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_request_without_body_has_an_empty_one, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
