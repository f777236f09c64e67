/* test_acceptor: a listening socket on the loopback and clients that wait in its queue. What is asserted is who was
 * accepted and who was answered; never how long it took. */
#include <net/acceptor.h>

#include <arpa/inet.h>
#include <base/clock.h>
#include <errno.h>
#include <fcntl.h>
#include <net/conn.h>
#include <net/listener.h>
#include <net/loop.h>
#include <poll.h>
#include <proto/protocol.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define CLIENTS     200
#define DEADLINE_MS 20000

typedef struct fixture {
    bt_loop loop;
    bt_endpoint endpoint;
    bt_counters counters;
    bt_counter crew_connections;
    bt_acceptor acceptor;
    uv_timer_t wake; /* so that a turn of the loop ends although nothing happens */
    int listen_fd;
    struct sockaddr_in address;
    int ends;
    int closed;
    int clients[CLIENTS];
} fixture;

static void on_end(bt_acceptor *acceptor)
{
    ((fixture *) acceptor->owner)->ends++;
}

static void closed(bt_acceptor *acceptor)
{
    ((fixture *) acceptor->owner)->closed++;
}

static void echo(baton_conn *conn, baton_str message)
{
    assert_true(baton_send(conn, message.data, message.len) >= 0);
}

static const baton_callbacks echo_callbacks = {.on_message = echo};

static void wake(uv_timer_t *timer)
{
    (void) timer;
}

static int set_up(void **state)
{
    static fixture it;
    char why[256];
    char name[128];
    bt_listen_address address;
    it = (fixture){0};
    *state = &it;
    assert_int_equal(bt_listen_address_parse("tcp://127.0.0.1:0", &address, why, sizeof why), 0);
    it.listen_fd = bt_listener_open(&address, CLIENTS * 2, false, why, sizeof why);
    assert_true(it.listen_fd >= 0);
    bt_listener_name(it.listen_fd, name, sizeof name);
    it.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    it.address.sin_port = htons((uint16_t) atoi(strrchr(name, ':') + 1));
    it.endpoint = (bt_endpoint){
        .protocol = bt_protocol_find("text"),
        .callbacks = &echo_callbacks,
        .counters = &it.counters,
        .crew_connections = &it.crew_connections,
        .crew_size = 1,
        .max_package = 1024,
        .max_send_buffer = 1024 * 1024,
        .linger_timeout_ms = 1000,
    };
    assert_int_equal(bt_loop_init(&it.loop, 1), 0);
    uv_timer_init(&it.loop.uv, &it.wake);
    assert_int_equal(bt_acceptor_start(&it.acceptor, &it.loop, &it.endpoint, it.listen_fd), 0);
    it.acceptor.owner = &it;
    it.acceptor.on_end = on_end;
    it.acceptor.closed = closed;
    for (int i = 0; i < CLIENTS; i++)
        it.clients[i] = -1;
    return 0;
}

static void destroy(baton_conn *conn, void *arg)
{
    (void) arg;
    bt_conn_destroy(conn, 0);
}

static int tear_down(void **state)
{
    fixture *it = *state;
    for (int i = 0; i < CLIENTS; i++) {
        if (it->clients[i] >= 0)
            close(it->clients[i]);
    }
    bt_acceptor_stop(&it->acceptor);
    bt_loop_each_conn(&it->loop, destroy, NULL);
    bt_loop_close(&it->loop);
    assert_int_equal(it->ends, 1);
    assert_int_equal(it->closed, 1);
    return 0;
}

static void turn(fixture *it)
{
    uv_timer_start(&it->wake, wake, 5, 0);
    uv_run(&it->loop.uv, UV_RUN_ONCE);
}

#define TURN_UNTIL(it, condition)                                                                                      \
    do {                                                                                                               \
        uint64_t end_ms = bt_clock_ms() + DEADLINE_MS;                                                                 \
        while (!(condition)) {                                                                                         \
            turn(it);                                                                                                  \
            assert_true(bt_clock_ms() < end_ms);                                                                       \
        }                                                                                                              \
    } while (0)

static int connect_one(fixture *it)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *) &it->address, sizeof it->address) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

static void connect_clients(fixture *it, int count)
{
    for (int i = 0; i < count; i++) {
        it->clients[i] = connect_one(it);
        assert_true(it->clients[i] >= 0);
    }
}

static uint64_t accepted(const fixture *it)
{
    return bt_counter_value(&it->counters.accepted);
}

/* ---- accepting ---- */

static void test_a_wake_up_accepts_one(void **state)
{
    fixture *it = *state;
    connect_clients(it, 3);
    for (uint64_t i = 1; i <= 3; i++) {
        uv_run(&it->loop.uv, UV_RUN_NOWAIT);
        assert_int_equal(accepted(it), i);
    }
}

static void test_stop_leaves_the_queue_to_whoever_else_holds_the_socket(void **state)
{
    fixture *it = *state;
    int other = dup(it->listen_fd);
    connect_clients(it, 3);
    bt_acceptor_stop(&it->acceptor);
    TURN_UNTIL(it, it->closed == 1);
    assert_int_equal(accepted(it), 0);
    int fd = accept4(other, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    close(fd);
    close(other);
}

/* ---- finishing ---- */

static void test_finish_accepts_all_that_wait_and_frees_the_port(void **state)
{
    fixture *it = *state;
    connect_clients(it, CLIENTS); /* more than one batch */
    bt_acceptor_finish(&it->acceptor);
    assert_true(accepted(it) > 0);
    assert_true(accepted(it) < CLIENTS);
    TURN_UNTIL(it, it->closed == 1);
    assert_int_equal(accepted(it), CLIENTS);
    assert_int_equal(it->loop.conn_count, CLIENTS);
    assert_int_equal(connect_one(it), -ECONNREFUSED);
}

static void test_finish_of_an_empty_queue_ends_at_once(void **state)
{
    fixture *it = *state;
    bt_acceptor_finish(&it->acceptor);
    assert_int_equal(it->ends, 1);
    bt_acceptor_finish(&it->acceptor);
    bt_acceptor_stop(&it->acceptor);
    assert_int_equal(it->ends, 1);
}

static void test_finish_does_not_give_way_to_siblings(void **state)
{
    fixture *it = *state;
    it->endpoint.crew_size = 4;
    bt_count(&it->counters.connections, 100); /* far more than its share */
    connect_clients(it, 20);
    bt_acceptor_finish(&it->acceptor);
    assert_int_equal(accepted(it), 20);
    assert_int_equal(it->ends, 1);
    bt_count(&it->counters.connections, -100);
}

static void test_finish_ends_although_no_descriptor_is_free(void **state)
{
    fixture *it = *state;
    struct rlimit before;
    connect_clients(it, 3);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int lowest_free = dup(0);
    close(lowest_free);
    struct rlimit none = {.rlim_cur = (rlim_t) lowest_free, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    bt_acceptor_finish(&it->acceptor);
    assert_int_equal(it->ends, 0); /* one may become free */
    TURN_UNTIL(it, it->ends == 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(accepted(it), 0);
}

static void test_finish_takes_a_descriptor_that_becomes_free(void **state)
{
    fixture *it = *state;
    struct rlimit before;
    connect_clients(it, 3);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int lowest_free = dup(0);
    close(lowest_free);
    struct rlimit none = {.rlim_cur = (rlim_t) lowest_free, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    bt_acceptor_finish(&it->acceptor);
    assert_int_equal(accepted(it), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    TURN_UNTIL(it, it->ends == 1);
    assert_int_equal(accepted(it), 3);
}

/* ---- those who are accepted while the process leaves ---- */

static const char *read_all(int fd, char *out, size_t size)
{
    size_t len = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (len < size - 1) {
        assert_int_equal(poll(&ready, 1, DEADLINE_MS), 1);
        ssize_t n = recv(fd, out + len, size - 1 - len, 0);
        assert_true(n >= 0);
        if (n == 0)
            break;
        len += (size_t) n;
    }
    out[len] = '\0';
    return out;
}

static void test_queued_request_is_answered_then_closed(void **state)
{
    fixture *it = *state;
    char answer[64];
    connect_clients(it, 1);
    assert_int_equal(send(it->clients[0], "a\nb\n", 4, 0), 4);
    it->loop.departure = BT_DEPARTURE_CLOSE;
    bt_acceptor_finish(&it->acceptor);
    baton_conn *conn = bt_container(it->loop.conns.next, baton_conn, node);
    TURN_UNTIL(it, conn->state == BT_CONN_LINGER);
    assert_string_equal(read_all(it->clients[0], answer, sizeof answer), "a\nb\n");
}

static void test_silent_client_is_waited_for_but_not_for_ever(void **state)
{
    fixture *it = *state;
    char answer[64];
    it->endpoint.header_timeout_ms = 0; /* for ever */
    it->loop.departure = BT_DEPARTURE_CLOSE;
    connect_clients(it, 1);
    bt_acceptor_finish(&it->acceptor);
    assert_int_equal(it->loop.conn_count, 1);
    baton_conn *conn = bt_container(it->loop.conns.next, baton_conn, node);
    turn(it);
    assert_int_equal(conn->state, BT_CONN_OPEN);
    TURN_UNTIL(it, conn->state == BT_CONN_LINGER);
    assert_string_equal(read_all(it->clients[0], answer, sizeof answer), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_wake_up_accepts_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stop_leaves_the_queue_to_whoever_else_holds_the_socket, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finish_accepts_all_that_wait_and_frees_the_port, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finish_of_an_empty_queue_ends_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finish_does_not_give_way_to_siblings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finish_ends_although_no_descriptor_is_free, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finish_takes_a_descriptor_that_becomes_free, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_queued_request_is_answered_then_closed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silent_client_is_waited_for_but_not_for_ever, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("acceptor", tests, NULL, NULL);
}
