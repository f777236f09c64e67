/* test_address: listen addresses as people write them, right and wrong, and peers as the kernel gives them.
 * Looks up no name but "localhost". */
#include <net/address.h>

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_tcp_addresses(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        const char *scheme;
        const char *host;
        uint16_t port;
        bool dual_stack;
    } cases[] = {
        {"http://127.0.0.1:8080", "http", "127.0.0.1", 8080, false},
        {"text://[::]:9000", "text", "::", 9000, false},
        {"tcp://[fe80::1%eth0]:1", "tcp", "fe80::1%eth0", 1, false},
        {"http://*:80", "http", "*", 80, true},
        {"HTTP://localhost:0", "http", "localhost", 0, false},
        {"websocket://my-host.example:65535", "websocket", "my-host.example", 65535, false},
        {"my.proto-2://0.0.0.0:00080", "my.proto-2", "0.0.0.0", 80, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bt_listen_address address;
        char why[200] = "";
        assert_int_equal(bt_listen_address_parse(cases[i].text, &address, why, sizeof(why)), 0);
        assert_string_equal(address.scheme, cases[i].scheme);
        assert_string_equal(address.host, cases[i].host);
        assert_int_equal(address.port, cases[i].port);
        assert_int_equal(address.dual_stack, cases[i].dual_stack);
        assert_false(address.is_unix);
        assert_string_equal(address.path, "");
        assert_string_equal(why, "");
    }
}

static void test_unix_addresses(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        const char *scheme;
        const char *path;
    } cases[] = {
        {"unix:///run/a.sock", "tcp", "/run/a.sock"},
        {"http+unix:///run/a.sock", "http", "/run/a.sock"},
        {"http+unix://run/a.sock", "http", "run/a.sock"},
        {"text+unix://a b:c.sock", "text", "a b:c.sock"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bt_listen_address address;
        char why[200];
        assert_int_equal(bt_listen_address_parse(cases[i].text, &address, why, sizeof(why)), 0);
        assert_true(address.is_unix);
        assert_string_equal(address.scheme, cases[i].scheme);
        assert_string_equal(address.path, cases[i].path);
        assert_string_equal(address.host, "");
    }
}

static void test_mistakes_are_named(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        const char *why;
    } cases[] = {
        {"", "\"\" is not of the form scheme://host:port"},
        {"127.0.0.1:80", "\"127.0.0.1:80\" is not of the form scheme://host:port"},
        {"://127.0.0.1:80", "\"\" is not a scheme like \"http\" or \"tcp\""},
        {"ht tp://127.0.0.1:80", "\"ht tp\" is not a scheme like \"http\" or \"tcp\""},
        {"9p://127.0.0.1:80", "\"9p\" is not a scheme like \"http\" or \"tcp\""},
        {"http+tls://127.0.0.1:80", "scheme \"http+tls\": only \"+unix\" can follow a protocol"},
        {"unix+unix:///a", "\"unix\" is not a scheme like \"http\" or \"tcp\""},
        {"abcdefghijklmnopqrstuvwxyz0123456://a:1", "the scheme is longer than 31 bytes"},
        {"http://127.0.0.1", "\"127.0.0.1\" has no port"},
        {"http://[::1]", "\"[::1]\" has no port"},
        {"http://[::1", "\"[::1\" has no port"},
        {"http://[::1]80", "\"[::1]80\" has no port"},
        {"http://127.0.0.1:", "port \"\" is not a number"},
        {"http://127.0.0.1:80/", "port \"80/\" is not a number"},
        {"http://127.0.0.1:-1", "port \"-1\" is not a number"},
        {"http://127.0.0.1:70000", "port 70000 is not from 0 to 65535"},
        {"http://127.0.0.1:4294967376", "port 4294967376 is not from 0 to 65535"}, /* 2^32 + 80 */
        {"http://:80", "the host is missing (\"*\" means all addresses)"},
        {"http://[]:80", "the host is missing (\"*\" means all addresses)"},
        {"http://::1:80", "host \"::1\" needs brackets if it is an IPv6 address"},
        {"http://[1.2.3.4]:80", "host \"1.2.3.4\" is not an IPv6 address"},
        {"http://[*]:80", "host \"*\" is not an IPv6 address"},
        {"http://300.1.1.1:80", "host \"300.1.1.1\" is not an IPv4 address"},
        {"http://1.2.3:80", "host \"1.2.3\" is not an IPv4 address"},
        {"http://a/b:80", "host \"a/b\" holds a character that no host name has"},
        {"http://me@host:80", "host \"me@host\" holds a character that no host name has"},
        {"http://a\nb:80", "the address holds a control character"},
        {"unix://", "the socket's path is missing"},
        {"unix:///run/", "the socket's path is missing"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bt_listen_address address;
        char why[200] = "";
        assert_int_equal(bt_listen_address_parse(cases[i].text, &address, why, sizeof(why)), -EINVAL);
        assert_string_equal(why, cases[i].why);
    }
}

static void test_overlong_parts_are_refused_not_cut(void **state)
{
    (void) state;
    bt_listen_address address;
    char text[600];
    char why[200];
    char name[300];
    memset(name, 'a', sizeof(name));
    snprintf(text, sizeof(text), "http://%.255s:80", name);
    assert_int_equal(bt_listen_address_parse(text, &address, why, sizeof(why)), 0);
    snprintf(text, sizeof(text), "http://%.256s:80", name);
    assert_int_equal(bt_listen_address_parse(text, &address, why, sizeof(why)), -EINVAL);
    snprintf(text, sizeof(text), "unix:///%.254s", name);
    assert_int_equal(bt_listen_address_parse(text, &address, why, sizeof(why)), 0);
    snprintf(text, sizeof(text), "unix:///%.255s", name);
    assert_int_equal(bt_listen_address_parse(text, &address, why, sizeof(why)), -EINVAL);
}

static void test_words_never_leave_their_buffer(void **state)
{
    (void) state;
    bt_listen_address address;
    char why[8] = "#######";
    assert_int_equal(bt_listen_address_parse("nonsense", &address, why, 4), -EINVAL);
    assert_string_equal(why, "\"no");
    assert_int_equal(why[4], '#');
}

static void assert_resolves(const char *text, const char *expected)
{
    bt_listen_address address;
    struct sockaddr_storage resolved;
    socklen_t len = 0;
    char why[200];
    char out[64];
    bt_address peer;
    assert_int_equal(bt_listen_address_parse(text, &address, why, sizeof(why)), 0);
    assert_int_equal(bt_listen_address_resolve(&address, &resolved, &len, why, sizeof(why)), 0);
    bt_address_from_sockaddr(&peer, (struct sockaddr *) &resolved, len);
    assert_string_equal(bt_address_format(&peer, out, sizeof(out)), expected);
}

static void test_resolving(void **state)
{
    (void) state;
    assert_resolves("http://127.0.0.1:8080", "127.0.0.1:8080");
    assert_resolves("http://[::1]:80", "[::1]:80");
    assert_resolves("http://*:80", "[::]:80");
    assert_resolves("http://0.0.0.0:0", "0.0.0.0:0");
    assert_resolves("http://localhost:81", "127.0.0.1:81");
}

static void test_unresolvable_host_is_named(void **state)
{
    (void) state;
    bt_listen_address address = {.host = "fe80::1%nosuchlink0", .port = 80};
    struct sockaddr_storage resolved;
    socklen_t len = 0;
    char why[200] = "";
    assert_true(bt_listen_address_resolve(&address, &resolved, &len, why, sizeof(why)) < 0);
    assert_non_null(strstr(why, "host \"fe80::1%nosuchlink0\": "));
}

static void assert_peer(const void *addr, size_t len, const char *expected)
{
    bt_address peer;
    char out[64];
    bt_address_from_sockaddr(&peer, addr, (socklen_t) len);
    assert_string_equal(bt_address_format(&peer, out, sizeof(out)), expected);
}

static void test_peers(void **state)
{
    (void) state;
    assert_int_equal(sizeof(bt_address), 20);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(4711)};
    inet_pton(AF_INET, "10.0.0.255", &in.sin_addr);
    assert_peer(&in, sizeof(in), "10.0.0.255:4711");
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
    inet_pton(AF_INET6, "2001:db8::1", &in6.sin6_addr);
    assert_peer(&in6, sizeof(in6), "[2001:db8::1]:443");
    inet_pton(AF_INET6, "::ffff:192.0.2.7", &in6.sin6_addr);
    assert_peer(&in6, sizeof(in6), "192.0.2.7:443");
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    assert_peer(&un, sizeof(un.sun_family), "unix:");
}

static void test_what_the_kernel_did_not_say_is_unknown(void **state)
{
    (void) state;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    assert_peer(&in6, 0, "unknown");
    assert_peer(&in6, sizeof(in6) - 1, "unknown");
    in6.sin6_family = AF_INET;
    assert_peer(&in6, 4, "unknown");
    in6.sin6_family = AF_APPLETALK;
    assert_peer(&in6, sizeof(in6), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_addresses),
        cmocka_unit_test(test_unix_addresses),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_overlong_parts_are_refused_not_cut),
        cmocka_unit_test(test_words_never_leave_their_buffer),
        cmocka_unit_test(test_resolving),
        cmocka_unit_test(test_unresolvable_host_is_named),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_what_the_kernel_did_not_say_is_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
