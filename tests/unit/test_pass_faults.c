/* tests/unit/test_pass_faults.c: refusals, deaths and a lack of descriptors: whatever happens, each connection has
 * exactly one owner afterwards. What travels is in test_pass.c. */
#include "pass_pair.h"

#include <proto/protocol.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const char get_request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
static const char chunked_request[] =
    "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";

enum { MANY = 300 }; /* more than the window */

/* ---- refusals ---- */

/* The old side serves on, and does not offer the connection again by itself. */
static void assert_refused(pass_pair *pair, pass_client *client, bt_verdict verdict)
{
    PASS_UNTIL(pair, pair->link.refused == 1);
    assert_int_equal(pair->link.verdict, verdict);
    assert_true(client->conn->refused);
    assert_false(bt_conn_is_passable(client->conn));
    assert_int_equal(client->conn->state, BT_CONN_OPEN);
    assert_int_equal(pair->link.out.unanswered, 0);
    assert_int_equal(pass_count(&pair->old.counters.pass_refused), 1);
    assert_int_equal(pair->successor.loop.conn_count, 0);
    assert_string_equal(pass_ask(pair, client), "old::");
}

static void test_draining_successor_refuses_and_the_old_side_serves_on(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pair->link.in.is_draining = true;
    pass_send(&pair->link, &client);
    assert_refused(pair, &client, BT_VERDICT_DRAINING);
    pass_client_close(&client);
}

static void test_successor_of_another_protocol_refuses_and_the_old_side_serves_on(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pair->successor.endpoint.protocol = bt_protocol_find("text");
    pass_send(&pair->link, &client);
    assert_refused(pair, &client, BT_VERDICT_PROTOCOL);
    pass_client_close(&client);
}

static void test_state_of_a_newer_version_is_refused(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    bt_protocol older = *bt_protocol_find("http");
    older.wire_version--;
    pair->successor.endpoint.protocol = &older;
    pass_client_open(pair, &client);
    pass_send(&pair->link, &client);
    assert_refused(pair, &client, BT_VERDICT_PROTOCOL);
    pass_client_close(&client);
}

static void test_refused_connection_goes_to_the_next_successor(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pair->link.in.is_draining = true;
    pass_send(&pair->link, &client);
    assert_refused(pair, &client, BT_VERDICT_DRAINING);
    pass_link_open(&pair->next, &pair->old, &pair->later);
    client.conn->refused = false;
    pass_over(pair, &pair->next, &client);
    assert_string_equal(pass_ask(pair, &client), "later::");
    pass_client_close(&client);
}

static void test_half_a_request_is_whole_again_after_a_refusal(void **state)
{
    pass_pair *pair = *state;
    size_t len = sizeof chunked_request - 1;
    pair->link.in.is_draining = true;
    for (size_t cut = 1; cut < len; cut++) {
        pass_client client;
        pass_client_open(pair, &client);
        pass_client_written(pair, &client, chunked_request, cut);
        pair->link.refused = 0;
        pass_send(&pair->link, &client);
        PASS_UNTIL(pair, pair->link.refused == 1);
        pass_client_write(pair, &client, chunked_request + cut, len - cut);
        assert_string_equal(pass_client_answer(pair, &client), "old:one:");
        pass_client_close(&client);
    }
}

/* ---- the successor dies ---- */

static void test_successor_that_dies_before_it_has_read_leaves_everything_to_the_old_side(void **state)
{
    pass_pair *pair = *state;
    pass_client *clients = pass_add_many(pair, MANY);
    assert_int_equal(pair->link.out.unanswered, BT_PASS_WINDOW);
    pass_kill_successor(pair);
    PASS_UNTIL(pair, !pair->link.out.is_open);
    assert_int_equal(pair->link.refused, MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_true(clients[i].conn->refused);
        assert_string_equal(pass_ask(pair, &clients[i]), "old::");
    }
    pass_close_many(clients, MANY);
}

/* Its last word counts: what it has taken may have been read, and must not come back. What it had not read does. */
static void test_verdicts_of_a_dead_successor_are_read_before_its_end(void **state)
{
    pass_pair *pair = *state;
    pass_client taken;
    pass_client unread;
    pass_client_open(pair, &taken);
    pass_client_open(pair, &unread);
    pass_send(&pair->link, &taken);
    while (pass_count(&pair->successor.counters.passed_in) == 0)
        pass_turn_side(&pair->successor);
    pass_send(&pair->link, &unread);
    pass_kill_successor(pair);
    PASS_UNTIL(pair, !pair->link.out.is_open);

    assert_int_equal(taken.conn->state, BT_CONN_PASSED);
    assert_true(pass_client_has_ended(&taken));
    assert_int_equal(pair->link.refused, 1);
    assert_string_equal(pass_ask(pair, &unread), "old::");
    pass_client_close(&taken);
    pass_client_close(&unread);
}

/* ---- the old side dies, or leaves ---- */

static void test_successor_serves_what_a_dead_process_has_sent(void **state)
{
    pass_pair *pair = *state;
    pass_client *clients = pass_add_many(pair, BT_PASS_WINDOW);
    pass_client_write(pair, &clients[0], get_request, 10);
    pair->old.is_dead = true;
    pass_client_write(pair, &clients[0], get_request + 10, sizeof get_request - 11);
    pass_kill_old(pair);
    assert_string_equal(pass_client_answer(pair, &clients[0]), "new::");
    for (size_t i = 0; i < BT_PASS_WINDOW; i++)
        assert_string_equal(pass_ask(pair, &clients[i]), "new::");
    PASS_UNTIL(pair, !pair->link.in.is_open);
    pass_close_many(clients, BT_PASS_WINDOW);
}

/* It dies with verdicts unread: the kernel then reports ECONNRESET once, before what it had sent last. */
static void test_end_of_a_process_with_unread_verdicts_hides_no_message(void **state)
{
    pass_pair *pair = *state;
    pass_client first;
    pass_client second;
    pass_client_open(pair, &first);
    pass_client_open(pair, &second);
    pass_send(&pair->link, &first);
    while (pass_count(&pair->successor.counters.passed_in) == 0)
        pass_turn_side(&pair->successor);
    pass_send(&pair->link, &second);
    pass_kill_old(pair);
    assert_string_equal(pass_ask(pair, &first), "new::");
    assert_string_equal(pass_ask(pair, &second), "new::");
    PASS_UNTIL(pair, !pair->link.in.is_open);
    pass_client_close(&first);
    pass_client_close(&second);
}

static void test_closed_pass_leaves_what_was_sent_to_the_successor(void **state)
{
    pass_pair *pair = *state;
    pass_client *clients = pass_add_many(pair, MANY);
    bt_pass_out_close(&pair->link.out);
    for (size_t i = 0; i < MANY; i++) {
        bool was_sent = i < BT_PASS_WINDOW;
        assert_int_equal(clients[i].conn->state, was_sent ? BT_CONN_PASSED : BT_CONN_OPEN);
        assert_string_equal(pass_ask(pair, &clients[i]), was_sent ? "new::" : "old::");
    }
    assert_int_equal(pair->old.closes, 0);
    PASS_UNTIL(pair, !pair->link.in.is_open);
    pass_close_many(clients, MANY);
}

static void test_closed_pass_heeds_the_refusals_that_are_there(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pair->link.in.is_draining = true;
    pass_send(&pair->link, &client);
    for (int i = 0; i < 3; i++)
        pass_turn_side(&pair->successor);
    bt_pass_out_close(&pair->link.out);
    assert_refused(pair, &client, BT_VERDICT_DRAINING);
    pass_client_close(&client);
}

static void test_pass_closed_after_the_successors_death_takes_back_what_it_had_not_read(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pass_send(&pair->link, &client);
    pass_kill_successor(pair);
    bt_pass_out_close(&pair->link.out);
    assert_int_equal(client.conn->state, BT_CONN_OPEN);
    assert_string_equal(pass_ask(pair, &client), "old::");
    pass_client_close(&client);
}

static void test_client_that_leaves_during_the_pass_ends_at_the_successor(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pass_send(&pair->link, &client);
    assert_int_equal(shutdown(client.fd, SHUT_RDWR), 0);
    PASS_UNTIL(pair, pair->successor.closes == 1);
    assert_int_equal(client.conn->state, BT_CONN_PASSED);
    assert_int_equal(pair->old.closes, 0);
    pass_client_close(&client);
}

/* ---- verdicts that cannot be sent yet ---- */

/* Sends one connection a message until the successor's verdicts are stuck in a full channel. The number sent; the last
 * one is taken and has no verdict in the kernel. */
static size_t block_verdicts(pass_pair *pair, pass_client *clients, size_t count)
{
    int few = 1; /* the kernel makes it as small as it allows */
    assert_int_equal(setsockopt(pair->link.in.fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof few), 0);
    for (size_t i = 0; i < count; i++) {
        pass_client_open(pair, &clients[i]);
        pass_send(&pair->link, &clients[i]);
        for (int turn = 0; turn < 3; turn++)
            pass_turn_side(&pair->successor);
        if (!bt_list_empty(&pair->link.in.taken))
            return i + 1;
    }
    fail_msg("the verdicts are never stuck");
    return 0;
}

static void test_nothing_is_read_before_its_verdict_is_in_the_kernel(void **state)
{
    enum { COUNT = 64 };
    pass_pair *pair = *state;
    pass_client clients[COUNT];
    size_t sent = block_verdicts(pair, clients, COUNT);
    pass_client *last = &clients[sent - 1];
    assert_int_equal(send(last->fd, get_request, sizeof get_request - 1, MSG_NOSIGNAL), sizeof get_request - 1);
    for (int i = 0; i < 20; i++)
        pass_turn_side(&pair->successor);
    assert_int_equal(pair->successor.answered, 0);
    assert_int_equal(pass_count(&pair->successor.counters.passed_in), sent - 1);
    assert_string_equal(pass_client_answer(pair, last), "new::");
    PASS_UNTIL(pair, bt_pass_out_is_settled(&pair->link.out));
    assert_int_equal(pass_count(&pair->old.counters.passed_out), sent);
    for (size_t i = 0; i < sent; i++)
        pass_client_close(&clients[i]);
}

static void test_connection_whose_verdict_was_never_sent_stays_with_the_old_side(void **state)
{
    enum { COUNT = 64 };
    pass_pair *pair = *state;
    pass_client clients[COUNT];
    size_t sent = block_verdicts(pair, clients, COUNT);
    pass_kill_successor(pair);
    PASS_UNTIL(pair, !pair->link.out.is_open);
    assert_int_equal(pair->link.refused, 1);
    for (size_t i = 0; i + 1 < sent; i++)
        assert_true(pass_client_has_ended(&clients[i]));
    assert_string_equal(pass_ask(pair, &clients[sent - 1]), "old::");
    for (size_t i = 0; i < sent; i++)
        pass_client_close(&clients[i]);
}

/* ---- out of descriptors ---- */

/* Leaves room for `room` more descriptors (0 or 1); returns what to restore. */
static struct rlimit limit_descriptors(unsigned room)
{
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int lowest = dup(STDERR_FILENO);
    assert_true(lowest >= 0);
    close(lowest);
    struct rlimit limit = {.rlim_cur = (rlim_t) lowest + room, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return before;
}

static void test_successor_out_of_descriptors_refuses_what_did_not_arrive(void **state)
{
    enum { COUNT = 3 };
    pass_pair *pair = *state;
    pass_client *clients = pass_add_many(pair, COUNT);
    struct rlimit before = limit_descriptors(1);
    while (pair->link.in.is_open && pair->link.out.unanswered > 0)
        pass_turn(pair);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(pair->link.refused, COUNT - 1);
    assert_int_equal(pair->link.verdict, BT_VERDICT_NO_DESCRIPTOR);
    for (size_t i = 0; i < COUNT; i++)
        assert_string_equal(pass_ask(pair, &clients[i]), i == 0 ? "new::" : "old::");
    pass_close_many(clients, COUNT);
}

static void test_connection_whose_memfd_did_not_arrive_is_refused(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pass_add_output(&client);
    pass_send(&pair->link, &client);
    struct rlimit before = limit_descriptors(1);
    while (pair->link.in.is_open && pair->link.out.unanswered > 0)
        pass_turn(pair);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(pair->link.refused, 1);
    assert_int_equal(pair->link.verdict, BT_VERDICT_NO_DESCRIPTOR);
    assert_int_equal(client.conn->state, BT_CONN_OPEN);
    assert_int_equal(pair->successor.loop.conn_count, 0);
    pass_client_close(&client);
}

static void test_large_state_without_a_descriptor_for_it_stays(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pass_add_output(&client);
    struct rlimit before = limit_descriptors(0);
    pass_send(&pair->link, &client);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(pair->link.refused, 1);
    assert_int_equal(client.conn->state, BT_CONN_OPEN);
    pass_client_close(&client);
}

/* Buffers of two gigabytes that nobody touches cost nothing. */
static void test_state_that_no_record_can_describe_stays_alone(void **state)
{
    pass_pair *pair = *state;
    pass_client huge;
    pass_client other;
    pass_client_open(pair, &huge);
    pass_client_open(pair, &other);
    assert_int_equal(bt_buf_reserve(&huge.conn->out, BT_PASS_MAX_PAYLOAD), 0);
    huge.conn->out.end += BT_PASS_MAX_PAYLOAD;
    bt_pass_out_add(&pair->link.out, huge.conn);
    bt_pass_out_add(&pair->link.out, other.conn);
    bt_pass_out_pump(&pair->link.out);
    PASS_UNTIL(pair, other.conn->state == BT_CONN_PASSED && pair->link.refused == 1);
    assert_int_equal(pair->link.verdict, BT_VERDICT_NO_MEMORY);
    assert_int_equal(huge.conn->state, BT_CONN_OPEN);
    assert_true(pair->link.out.is_open);
    assert_string_equal(pass_ask(pair, &other), "new::");
    bt_buf_free(&huge.conn->out);
    pass_client_close(&huge);
    pass_client_close(&other);
}

/* EMSGSIZE comes again however often it is tried. */
static void test_channel_that_takes_no_message_gives_the_connections_back(void **state)
{
    pass_pair *pair = *state;
    pass_client *clients = pass_open_many(pair, BT_PASS_MAX_CONNS);
    int smallest = 1; /* the kernel makes it 4,608 bytes */
    assert_int_equal(setsockopt(pair->link.out.fd, SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest), 0);
    for (size_t i = 0; i < BT_PASS_MAX_CONNS; i++)
        bt_pass_out_add(&pair->link.out, clients[i].conn);
    bt_pass_out_pump(&pair->link.out);
    PASS_UNTIL(pair, pair->link.ended == 2);
    for (size_t i = 0; i < BT_PASS_MAX_CONNS; i++)
        assert_string_equal(pass_ask(pair, &clients[i]), "old::");
    pass_close_many(clients, BT_PASS_MAX_CONNS);
}

#define PASS_TEST(test) cmocka_unit_test_setup_teardown(test, pass_pair_setup, pass_pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PASS_TEST(test_draining_successor_refuses_and_the_old_side_serves_on),
        PASS_TEST(test_successor_of_another_protocol_refuses_and_the_old_side_serves_on),
        PASS_TEST(test_state_of_a_newer_version_is_refused),
        PASS_TEST(test_refused_connection_goes_to_the_next_successor),
        PASS_TEST(test_half_a_request_is_whole_again_after_a_refusal),
        PASS_TEST(test_successor_that_dies_before_it_has_read_leaves_everything_to_the_old_side),
        PASS_TEST(test_verdicts_of_a_dead_successor_are_read_before_its_end),
        PASS_TEST(test_successor_serves_what_a_dead_process_has_sent),
        PASS_TEST(test_end_of_a_process_with_unread_verdicts_hides_no_message),
        PASS_TEST(test_closed_pass_leaves_what_was_sent_to_the_successor),
        PASS_TEST(test_closed_pass_heeds_the_refusals_that_are_there),
        PASS_TEST(test_pass_closed_after_the_successors_death_takes_back_what_it_had_not_read),
        PASS_TEST(test_client_that_leaves_during_the_pass_ends_at_the_successor),
        PASS_TEST(test_nothing_is_read_before_its_verdict_is_in_the_kernel),
        PASS_TEST(test_connection_whose_verdict_was_never_sent_stays_with_the_old_side),
        PASS_TEST(test_successor_out_of_descriptors_refuses_what_did_not_arrive),
        PASS_TEST(test_connection_whose_memfd_did_not_arrive_is_refused),
        PASS_TEST(test_large_state_without_a_descriptor_for_it_stays),
        PASS_TEST(test_state_that_no_record_can_describe_stays_alone),
        PASS_TEST(test_channel_that_takes_no_message_gives_the_connections_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
