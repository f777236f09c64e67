/* test_listener: real sockets on the loopback, port 0, and unix sockets in a directory of our own.
 * Every listener is proved by a connection that it accepts. */
#include <net/listener.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { DEADLINE_MS = 10000 };

static char dir[64];
static char why[512];

static int make_dir(void **state)
{
    (void) state;
    snprintf(dir, sizeof(dir), "/tmp/bt-listener-XXXXXX");
    why[0] = '\0';
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void) state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static int open_listener(const char *text, bool reuse_port)
{
    bt_listen_address address;
    assert_int_equal(bt_listen_address_parse(text, &address, why, sizeof(why)), 0);
    return bt_listener_open(&address, 128, reuse_port, why, sizeof(why));
}

static uint16_t port_of(int fd)
{
    char name[128];
    return (uint16_t) atoi(strrchr(bt_listener_name(fd, name, sizeof(name)), ':') + 1);
}

/* Returns a connected client, or -errno. */
static int connect_tcp(const char *ip, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    bool is_v4 = inet_pton(AF_INET, ip, &in.sin_addr) == 1;
    if (!is_v4)
        assert_int_equal(inet_pton(AF_INET6, ip, &in6.sin6_addr), 1);
    int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    const struct sockaddr *addr = is_v4 ? (struct sockaddr *) &in : (struct sockaddr *) &in6;
    if (connect(fd, addr, is_v4 ? sizeof(in) : sizeof(in6)) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

static int accept_one(int listener, struct sockaddr_storage *peer, socklen_t *len)
{
    struct pollfd waiting = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&waiting, 1, DEADLINE_MS), 1);
    *len = sizeof(*peer);
    int fd = accept4(listener, (struct sockaddr *) peer, len, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void assert_accepts(int listener, int client, const char *peer_prefix)
{
    assert_true(client >= 0);
    struct sockaddr_storage peer;
    socklen_t len = 0;
    int accepted = accept_one(listener, &peer, &len);
    bt_address address;
    char name[64];
    bt_address_from_sockaddr(&address, (struct sockaddr *) &peer, len);
    assert_memory_equal(bt_address_format(&address, name, sizeof(name)), peer_prefix, strlen(peer_prefix));
    close(accepted);
    close(client);
}

static int option_of(int fd, int level, int option)
{
    int value = -1;
    socklen_t len = sizeof(value);
    assert_int_equal(getsockopt(fd, level, option, &value, &len), 0);
    return value;
}

static void test_ipv4(void **state)
{
    (void) state;
    int fd = open_listener("tcp://127.0.0.1:0", false);
    assert_true(fd >= 0);
    char name[64];
    assert_memory_equal(bt_listener_name(fd, name, sizeof(name)), "127.0.0.1:", 10);
    assert_int_not_equal(port_of(fd), 0);
    assert_accepts(fd, connect_tcp("127.0.0.1", port_of(fd)), "127.0.0.1:");
    close(fd);
}

static void test_ipv6_does_not_take_ipv4(void **state)
{
    (void) state;
    int fd = open_listener("tcp://[::]:0", false);
    assert_true(fd >= 0);
    assert_accepts(fd, connect_tcp("::1", port_of(fd)), "[::1]:");
    assert_int_equal(connect_tcp("127.0.0.1", port_of(fd)), -ECONNREFUSED);
    close(fd);
}

static void test_star_takes_both_families(void **state)
{
    (void) state;
    int fd = open_listener("tcp://*:0", false);
    assert_true(fd >= 0);
    assert_accepts(fd, connect_tcp("::1", port_of(fd)), "[::1]:");
    assert_accepts(fd, connect_tcp("127.0.0.1", port_of(fd)), "127.0.0.1:");
    close(fd);
}

static void test_descriptor_flags_and_options_that_accepted_sockets_inherit(void **state)
{
    (void) state;
    int fd = open_listener("tcp://127.0.0.1:0", false);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(option_of(fd, SOL_SOCKET, SO_REUSEADDR), 1);
    int client = connect_tcp("127.0.0.1", port_of(fd));
    struct sockaddr_storage peer;
    socklen_t len = 0;
    int accepted = accept_one(fd, &peer, &len);
    assert_int_equal(option_of(accepted, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option_of(accepted, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option_of(accepted, IPPROTO_TCP, TCP_KEEPIDLE), 55);
    close(accepted);
    close(client);
    close(fd);
}

static void test_port_in_use_is_said(void **state)
{
    (void) state;
    int fd = open_listener("tcp://127.0.0.1:0", false);
    char text[64];
    char expected[128];
    snprintf(text, sizeof(text), "tcp://127.0.0.1:%u", (unsigned) port_of(fd));
    assert_int_equal(open_listener(text, false), -EADDRINUSE);
    snprintf(expected, sizeof(expected), "cannot listen on 127.0.0.1:%u: Address already in use",
             (unsigned) port_of(fd));
    assert_string_equal(why, expected);
    close(fd);
}

static void test_port_can_be_taken_again_while_old_connections_linger(void **state)
{
    (void) state;
    int fd = open_listener("tcp://127.0.0.1:0", false);
    uint16_t port = port_of(fd);
    int client = connect_tcp("127.0.0.1", port);
    struct sockaddr_storage peer;
    socklen_t len = 0;
    close(accept_one(fd, &peer, &len)); /* our side closes first: TIME_WAIT is ours */
    close(client);
    close(fd);
    char text[64];
    snprintf(text, sizeof(text), "tcp://127.0.0.1:%u", (unsigned) port);
    fd = open_listener(text, false);
    assert_true(fd >= 0);
    close(fd);
}

static void test_reuse_port_opens_one_port_twice(void **state)
{
    (void) state;
    int first = open_listener("tcp://127.0.0.1:0", true);
    char text[64];
    snprintf(text, sizeof(text), "tcp://127.0.0.1:%u", (unsigned) port_of(first));
    int second = open_listener(text, true);
    assert_true(second >= 0);
    assert_int_equal(port_of(first), port_of(second));
    /* The kernel spreads by the client's port: a few connections reach both. */
    bool reached[2] = {false, false};
    for (int i = 0; i < 1000 && !(reached[0] && reached[1]); i++) {
        int client = connect_tcp("127.0.0.1", port_of(first));
        assert_true(client >= 0);
        struct pollfd waiting[2] = {{.fd = first, .events = POLLIN}, {.fd = second, .events = POLLIN}};
        assert_true(poll(waiting, 2, DEADLINE_MS) > 0);
        int who = waiting[0].revents ? 0 : 1;
        reached[who] = true;
        close(accept4(waiting[who].fd, NULL, NULL, SOCK_CLOEXEC));
        close(client);
    }
    assert_true(reached[0] && reached[1]);
    close(first);
    close(second);
}

/* ---- unix ---- */

static void path_in_dir(char *out, size_t size, const char *name)
{
    assert_true((size_t) snprintf(out, size, "%s/%s", dir, name) < size);
}

static void test_unix_listener_serves_everybody(void **state)
{
    (void) state;
    char path[128];
    char text[160];
    char name[160];
    char expected[160];
    path_in_dir(path, sizeof(path), "a.sock");
    snprintf(text, sizeof(text), "http+unix://%s", path);
    int fd = open_listener(text, false);
    assert_true(fd >= 0);
    snprintf(expected, sizeof(expected), "unix:%s", path);
    assert_string_equal(bt_listener_name(fd, name, sizeof(name)), expected);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0666);
    assert_accepts(fd, bt_unix_connect(path), "unix:");
    close(fd);
}

static void test_unix_mode_0600_whatever_the_umask(void **state)
{
    (void) state;
    char path[128];
    path_in_dir(path, sizeof(path), "control.sock");
    mode_t old_umask = umask(0);
    int fd = bt_unix_listen(path, 8, 0600, why, sizeof(why));
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(umask(old_umask), 0);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    close(fd);
}

static void make_long_path(char *out, size_t size, const char *name)
{
    char part[64];
    memset(part, 'd', 50);
    part[50] = '\0';
    char deep[256];
    snprintf(deep, sizeof(deep), "%s/%s", dir, part);
    assert_int_equal(mkdir(deep, 0700), 0);
    snprintf(deep + strlen(deep), sizeof(deep) - strlen(deep), "/%s", part);
    assert_int_equal(mkdir(deep, 0700), 0);
    assert_true((size_t) snprintf(out, size, "%s/%s", deep, name) < size);
    assert_true(strlen(out) > 107);
}

static int count_open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_unix_path_over_107_bytes(void **state)
{
    (void) state;
    char path[300];
    char name[300];
    make_long_path(path, sizeof(path), "a.sock");
    int before = count_open_descriptors();
    int fd = bt_unix_listen(path, 8, 0600, why, sizeof(why));
    assert_true(fd >= 0);
    assert_string_equal(bt_listener_name(fd, name, sizeof(name)), "unix:.../a.sock");
    assert_accepts(fd, bt_unix_connect(path), "unix:");
    assert_int_equal(bt_unix_listen(path, 8, 0600, why, sizeof(why)), -EADDRINUSE);
    close(fd);
    fd = bt_unix_listen(path, 8, 0600, why, sizeof(why)); /* stale now */
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(count_open_descriptors(), before);
}

static void test_unix_path_of_exactly_107_bytes_and_one_more(void **state)
{
    (void) state;
    for (size_t len = 106; len <= 109; len++) {
        char path[200];
        memset(path, 'p', sizeof(path));
        memcpy(path, dir, strlen(dir));
        path[strlen(dir)] = '/';
        path[len] = '\0';
        int fd = bt_unix_listen(path, 8, 0600, why, sizeof(why));
        assert_true(fd >= 0);
        assert_accepts(fd, bt_unix_connect(path), "unix:");
        struct stat status;
        assert_int_equal(stat(path, &status), 0);
        close(fd);
    }
}

static void test_unix_name_too_long_for_any_way(void **state)
{
    (void) state;
    char path[300];
    memset(path, 'n', sizeof(path));
    memcpy(path, dir, strlen(dir));
    path[strlen(dir)] = '/';
    path[250] = '\0';
    assert_int_equal(bt_unix_listen(path, 8, 0600, why, sizeof(why)), -ENAMETOOLONG);
    assert_int_equal(bt_unix_connect(path), -ENAMETOOLONG);
}

static void test_stale_socket_is_removed_and_live_one_refused(void **state)
{
    (void) state;
    char path[128];
    path_in_dir(path, sizeof(path), "a.sock");
    int first = bt_unix_listen(path, 8, 0600, why, sizeof(why));
    assert_true(first >= 0);
    assert_int_equal(bt_unix_listen(path, 8, 0600, why, sizeof(why)), -EADDRINUSE);
    char expected[256];
    snprintf(expected, sizeof(expected), "cannot listen on %s: Address already in use", path);
    assert_string_equal(why, expected);
    close(bt_unix_connect(path)); /* still there */
    close(first);
    assert_int_equal(bt_unix_connect(path), -ECONNREFUSED);
    int second = bt_unix_listen(path, 8, 0600, why, sizeof(why));
    assert_true(second >= 0);
    assert_accepts(second, bt_unix_connect(path), "unix:");
    close(second);
}

static void test_live_socket_with_a_full_backlog_is_not_taken_for_stale(void **state)
{
    (void) state;
    char path[128];
    path_in_dir(path, sizeof(path), "a.sock");
    int fd = bt_unix_listen(path, 0, 0600, why, sizeof(why));
    assert_true(fd >= 0);
    int waiting = bt_unix_connect(path); /* fills the queue: nobody accepts */
    assert_true(waiting >= 0);
    assert_int_equal(bt_unix_listen(path, 8, 0600, why, sizeof(why)), -EADDRINUSE);
    close(waiting);
    close(fd);
}

static void test_file_that_is_no_socket_is_left_alone(void **state)
{
    (void) state;
    char path[128];
    path_in_dir(path, sizeof(path), "precious");
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(file, "data", 4), 4);
    close(file);
    assert_int_equal(bt_unix_listen(path, 8, 0600, why, sizeof(why)), -EEXIST);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 4);
}

static void test_missing_directory(void **state)
{
    (void) state;
    char path[128];
    path_in_dir(path, sizeof(path), "no/a.sock");
    assert_int_equal(bt_unix_listen(path, 8, 0600, why, sizeof(why)), -ENOENT);
    assert_int_equal(bt_unix_connect(path), -ENOENT);
    assert_int_equal(bt_unix_connect(""), -EINVAL);
}

static void test_name_of_what_is_no_socket(void **state)
{
    (void) state;
    char name[64];
    assert_string_equal(bt_listener_name(-1, name, sizeof(name)), "unknown");
}

#define LISTENER_TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LISTENER_TEST(test_ipv4),
        LISTENER_TEST(test_ipv6_does_not_take_ipv4),
        LISTENER_TEST(test_star_takes_both_families),
        LISTENER_TEST(test_descriptor_flags_and_options_that_accepted_sockets_inherit),
        LISTENER_TEST(test_port_in_use_is_said),
        LISTENER_TEST(test_port_can_be_taken_again_while_old_connections_linger),
        LISTENER_TEST(test_reuse_port_opens_one_port_twice),
        LISTENER_TEST(test_unix_listener_serves_everybody),
        LISTENER_TEST(test_unix_mode_0600_whatever_the_umask),
        LISTENER_TEST(test_unix_path_over_107_bytes),
        LISTENER_TEST(test_unix_path_of_exactly_107_bytes_and_one_more),
        LISTENER_TEST(test_unix_name_too_long_for_any_way),
        LISTENER_TEST(test_stale_socket_is_removed_and_live_one_refused),
        LISTENER_TEST(test_live_socket_with_a_full_backlog_is_not_taken_for_stale),
        LISTENER_TEST(test_file_that_is_no_socket_is_left_alone),
        LISTENER_TEST(test_missing_directory),
        LISTENER_TEST(test_name_of_what_is_no_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
