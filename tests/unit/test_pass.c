/* tests/unit/test_pass.c: what a connection takes along when it is passed, and that it has one reader at any moment.
 * Failures and deaths are in test_pass_faults.c. */
#include "pass_pair.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <proto/protocol.h>
#include <stdio.h>
#include <sys/socket.h>

static const char get_request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
static const char get_large[] = "GET /large HTTP/1.1\r\nHost: t\r\n\r\n";

static void assert_large(const pass_client *client)
{
    const char *body = bt_buf_head(&client->body);
    assert_int_equal(bt_buf_len(&client->body), LARGE + 1);
    for (size_t i = 0; i < LARGE; i++) {
        if (body[i] != (char) ('a' + i % 26))
            fail_msg("byte %zu of the answer is %d", i, body[i]);
    }
}

/* ---- an idle connection ---- */

static void test_idle_connection_is_answered_by_the_successor_afterwards(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    assert_string_equal(pass_ask(pair, &client), "old::");
    pass_over(pair, &pair->link, &client);
    assert_string_equal(pass_ask(pair, &client), "new::");
    assert_string_equal(pass_ask(pair, &client), "new::");
    pass_client_close(&client);
}

static void test_old_side_closes_its_descriptor_and_the_application_hears_nothing(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    assert_string_equal(pass_ask(pair, &client), "old::");
    pass_over(pair, &pair->link, &client);

    assert_int_equal(fcntl(client.served_fd, F_GETFD), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(client.conn->fd, -1);
    assert_false(baton_conn_is_open(client.conn));
    assert_null(pass_find(&pair->old, client.id));
    assert_int_equal(pair->old.loop.conn_count, 0);
    assert_int_equal(pair->successor.loop.conn_count, 1);
    assert_int_equal(pair->old.closes, 0);
    assert_int_equal(pair->successor.connects, 0);
    assert_int_equal(pass_count(&pair->old.counters.passed_out), 1);
    assert_int_equal(pass_count(&pair->successor.counters.passed_in), 1);
    assert_int_equal(pass_count(&pair->old.counters.connections), 0);
    assert_int_equal(pass_count(&pair->successor.counters.connections), 1);
    assert_true(pass_client_is_quiet(&client));
    pass_client_close(&client);
}

static void test_connection_passes_on_and_on(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_link_open(&pair->next, &pair->successor, &pair->later);
    pass_client_open(pair, &client);
    pass_over(pair, &pair->link, &client);
    assert_string_equal(pass_ask(pair, &client), "new::");

    baton_conn *conn = pass_find(&pair->successor, client.id);
    bt_pass_out_add(&pair->next.out, conn);
    bt_pass_out_pump(&pair->next.out);
    PASS_UNTIL(pair, pair->successor.loop.conn_count == 0);
    assert_string_equal(pass_ask(pair, &client), "later::");
    assert_int_equal(pass_find(&pair->later, client.id)->requests, 2);
    pass_client_close(&client);
}

static void test_id_counters_peer_and_deadline_travel(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    baton_conn *conn = client.conn;
    for (int i = 0; i < 3; i++)
        assert_string_equal(pass_ask(pair, &client), "old::");
    conn->remote = (bt_address){.family = AF_INET, .port = 4711, .ip.v4.s_addr = htonl(0xc0a80102)};
    uint64_t deadline_ms = conn->timeout.deadline_ms;
    uint64_t bytes_read = conn->bytes_read;
    uint64_t bytes_written = conn->bytes_written;
    assert_true(deadline_ms > bt_clock_ms() && bytes_read == 3 * (sizeof get_request - 1) && bytes_written > 0);
    pass_over(pair, &pair->link, &client);

    const baton_conn *taken = pass_find(&pair->successor, client.id);
    char text[64];
    assert_non_null(taken);
    assert_int_equal(taken->id >> 40, 1); /* issued by the old process, and still the connection's */
    assert_int_equal(taken->requests, 3);
    assert_int_equal(taken->bytes_read, bytes_read);
    assert_int_equal(taken->bytes_written, bytes_written);
    assert_int_equal(taken->timeout.deadline_ms, deadline_ms);
    assert_string_equal(baton_conn_remote(taken, text, sizeof text), "192.168.1.2:4711");
    pass_client_close(&client);
}

static void test_deadline_that_is_past_expires_at_the_successor(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pass_client_written(pair, &client, get_request, 10);
    bt_pass_out_add(&pair->link.out, client.conn);
    client.conn->timeout.deadline_ms = bt_clock_ms() - 1000;
    bt_pass_out_pump(&pair->link.out);
    pass_client_answer(pair, &client);
    PASS_UNTIL(pair, pass_client_has_ended(&client));
    assert_int_equal(pass_count(&pair->successor.counters.timeouts), 1);
    assert_int_equal(pass_count(&pair->old.counters.timeouts), 0);
    pass_client_close(&client);
}

/* ---- input ---- */

static const struct {
    const char *request;
    const char *answer;
} cuts[] = {
    {"GET /a?x=1 HTTP/1.1\r\nHost: t\r\nX-Some: value\r\n\r\n", "new::"},
    {"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n0123456789", "new:0123456789:"},
    {"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
     "3\r\none\r\n7;ext=1\r\nand two\r\n0\r\nX-End: sum\r\n\r\n",
     "new:oneand two:sum"},
};

static void test_request_cut_at_every_byte_is_answered_once_by_the_successor(void **state)
{
    pass_pair *pair = *state;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        const char *request = cuts[i].request;
        size_t len = strlen(request);
        for (size_t cut = 1; cut < len; cut++) {
            pass_client client;
            pass_client_open(pair, &client);
            pass_client_written(pair, &client, request, cut);
            pass_over(pair, &pair->link, &client);
            int before = pair->successor.answered;
            pass_client_write(pair, &client, request + cut, len - cut);
            assert_string_equal(pass_client_answer(pair, &client), cuts[i].answer);
            assert_int_equal(pair->successor.answered, before + 1);
            assert_string_equal(pass_ask(pair, &client), "new::");
            assert_true(pass_client_is_quiet(&client));
            pass_client_close(&client);
        }
    }
    assert_int_equal(pair->old.answered, 0);
}

/* Whatever the client sends between hold and verdict is the successor's. */
static void test_nobody_reads_between_the_sending_and_the_verdict(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    assert_string_equal(pass_ask(pair, &client), "old::");
    uint64_t bytes_read = client.conn->bytes_read;
    pass_send(&pair->link, &client);
    pass_client_write(pair, &client, get_request, sizeof get_request - 1);
    for (int i = 0; i < 20; i++)
        pass_turn_side(&pair->old);
    assert_false(uv_is_active((uv_handle_t *) &client.conn->poll));
    assert_int_equal(client.conn->bytes_read, bytes_read);
    assert_true(pass_client_is_quiet(&client));
    assert_string_equal(pass_client_answer(pair, &client), "new::");
    assert_int_equal(pair->old.answered, 1);
    assert_int_equal(pair->successor.answered, 1);
    pass_client_close(&client);
}

/* Requests that have arrived, and none of which may be begun any more, travel as they are. */
static void test_pipelined_requests_travel_as_bytes(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bt_buf_append(&client.conn->in, get_request, sizeof get_request - 1), 0);
    pass_send(&pair->link, &client);
    for (int i = 0; i < 6; i++) {
        if (i < 3)
            pass_client_write(pair, &client, get_request, sizeof get_request - 1);
        assert_string_equal(pass_client_answer(pair, &client), "new::");
    }
    assert_true(pass_client_is_quiet(&client));
    pass_client_close(&client);
}

/* ---- output ---- */

/* The client asks for much and reads nothing: what the socket has not taken waits at the old side. */
static void fill_output(pass_pair *pair, pass_client *client)
{
    pass_client_write(pair, client, get_large, sizeof get_large - 1);
    PASS_UNTIL(pair, pair->old.answered == 1 && bt_buf_len(&client->conn->out) > 0);
}

static void test_small_unsent_output_travels_in_order(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    int few = 4096; /* so that what the socket takes at once is little */
    pass_client_open(pair, &client);
    assert_int_equal(setsockopt(client.served_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof few), 0);
    fill_output(pair, &client);
    bt_buf *out = &client.conn->out;
    while (bt_buf_len(out) >= BT_PASS_MAX_BYTES / 2) { /* what the socket takes; the client reads it */
        char bytes[4096];
        ssize_t n = recv(client.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0)
            assert_int_equal(bt_buf_append(&client.received, bytes, (size_t) n), 0);
        else
            pass_turn_side(&pair->old);
    }
    assert_true(bt_buf_len(out) > 0);
    pass_over(pair, &pair->link, &client);
    pass_client_answer(pair, &client);
    assert_large(&client);
    assert_string_equal(pass_ask(pair, &client), "new::");
    assert_int_equal(pair->successor.answered, 1);
    pass_client_close(&client);
}

static void test_large_unsent_output_travels_in_order(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    fill_output(pair, &client);
    assert_true(bt_buf_len(&client.conn->out) > BT_PASS_MAX_BYTES);
    pass_over(pair, &pair->link, &client);
    pass_client_answer(pair, &client);
    assert_large(&client);
    assert_string_equal(pass_ask(pair, &client), "new::");
    pass_client_close(&client);
}

static void test_megabytes_travel_both_ways(void **state)
{
    enum { BODY = 5 << 20, HERE = 3 << 20 };
    static const char marker[] = "HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n";
    pass_pair *pair = *state;
    pass_client client;
    bt_buf request = {0};
    assert_int_equal(bt_buf_printf(&request, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n", BODY), 0);
    assert_int_equal(bt_buf_reserve(&request, BODY), 0);
    for (int i = 0; i < BODY; i++)
        *(bt_buf_head(&request) + request.end++) = (char) ('0' + i % 10);

    pass_client_open(pair, &client);
    pass_client_written(pair, &client, bt_buf_head(&request), HERE);
    bt_buf *out = &client.conn->out; /* an answer to an earlier request that the client has not read yet */
    assert_int_equal(bt_buf_append(out, marker, sizeof marker - 1), 0);
    for (size_t i = 0; i < LARGE; i++) {
        char c = (char) ('a' + i % 26);
        assert_int_equal(bt_buf_append(out, &c, 1), 0);
    }
    pass_over(pair, &pair->link, &client);
    pass_client_answer(pair, &client);
    assert_large(&client);

    pass_client_write(pair, &client, bt_buf_head(&request) + HERE, bt_buf_len(&request) - HERE);
    const char *answer = pass_client_answer(pair, &client);
    assert_int_equal(bt_buf_len(&client.body), BODY + 6);
    assert_memory_equal(answer, "new:", 4);
    assert_memory_equal(answer + 4, bt_buf_head(&request) + bt_buf_len(&request) - BODY, BODY);
    assert_int_equal(pair->successor.answered, 1);
    bt_buf_free(&request);
    pass_client_close(&client);
}

/* ---- many ---- */

static void test_thousand_connections_pass_within_the_window(void **state)
{
    enum { COUNT = 1000, FEW = 30 };
    pass_pair *pair = *state;
    pass_client *clients = pass_open_many(pair, COUNT);
    bt_pass_out *out = &pair->link.out;
    for (size_t i = 0; i < COUNT; i++) {
        if (i == FEW) /* so that the window does not end where a message does */
            bt_pass_out_pump(out);
        bt_pass_out_add(out, clients[i].conn);
    }
    bt_pass_out_pump(out);
    assert_int_equal(out->unanswered, BT_PASS_WINDOW);
    uint64_t end = bt_clock_ms() + DEADLINE_MS;
    while (!bt_pass_out_is_settled(out)) {
        assert_true(bt_clock_ms() < end);
        pass_turn_side(&pair->old);
        assert_true(out->unanswered <= BT_PASS_WINDOW);
        pass_turn_side(&pair->successor);
    }
    assert_int_equal(out->unanswered, 0);
    assert_int_equal(pair->successor.loop.conn_count, COUNT);
    assert_int_equal(pair->old.loop.conn_count, 0);
    for (size_t i = 0; i < COUNT; i++)
        assert_string_equal(pass_ask(pair, &clients[i]), "new::");
    pass_close_many(clients, COUNT);
}

/* A message holds few connections with much state, and the channel few such messages. */
static void test_full_channel_is_waited_for(void **state)
{
    enum { COUNT = 60, BODY = 15000, HERE = 14000 };
    static char request[BODY + 100];
    pass_pair *pair = *state;
    pass_client *clients = pass_open_many(pair, COUNT);
    size_t len =
        (size_t) snprintf(request, sizeof request, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n", BODY);
    memset(request + len, 'x', BODY);
    len += BODY;
    for (size_t i = 0; i < COUNT; i++)
        pass_client_written(pair, &clients[i], request, HERE);
    bt_pass_out *out = &pair->link.out;
    for (size_t i = 0; i < COUNT; i++)
        bt_pass_out_add(out, clients[i].conn);
    bt_pass_out_pump(out);
    assert_true(out->unanswered > 0 && out->unanswered < COUNT);
    PASS_UNTIL(pair, bt_pass_out_is_settled(out));
    for (size_t i = 0; i < COUNT; i++) {
        pass_client_write(pair, &clients[i], request + HERE, len - HERE);
        const char *answer = pass_client_answer(pair, &clients[i]);
        assert_int_equal(strlen(answer), BODY + 5);
        assert_memory_equal(answer, "new:xxx", 7);
    }
    pass_close_many(clients, COUNT);
}

/* ---- another successor ---- */

static void test_what_waits_goes_to_the_next_successor_and_what_was_sent_stays(void **state)
{
    enum { COUNT = 300 };
    pass_pair *pair = *state;
    pass_client *clients = pass_open_many(pair, COUNT);
    pass_link_open(&pair->next, &pair->old, &pair->later);
    for (size_t i = 0; i < COUNT; i++)
        bt_pass_out_add(&pair->link.out, clients[i].conn);
    bt_pass_out_pump(&pair->link.out);
    bt_pass_out_hand_on(&pair->link.out, &pair->next.out);
    assert_true(pair->link.out.is_ending);
    assert_int_equal(pair->link.out.unanswered, BT_PASS_WINDOW);
    bt_pass_out_pump(&pair->next.out);
    PASS_UNTIL(pair, !pair->link.out.is_open && bt_pass_out_is_settled(&pair->next.out));

    assert_int_equal(pair->successor.loop.conn_count, BT_PASS_WINDOW);
    assert_int_equal(pair->later.loop.conn_count, COUNT - BT_PASS_WINDOW);
    for (size_t i = 0; i < COUNT; i++)
        assert_string_equal(pass_ask(pair, &clients[i]), i < BT_PASS_WINDOW ? "new::" : "later::");
    PASS_UNTIL(pair, !pair->link.in.is_open); /* the first successor saw its channel end */
    pass_close_many(clients, COUNT);
}

#define PASS_TEST(test) cmocka_unit_test_setup_teardown(test, pass_pair_setup, pass_pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PASS_TEST(test_idle_connection_is_answered_by_the_successor_afterwards),
        PASS_TEST(test_old_side_closes_its_descriptor_and_the_application_hears_nothing),
        PASS_TEST(test_connection_passes_on_and_on),
        PASS_TEST(test_id_counters_peer_and_deadline_travel),
        PASS_TEST(test_deadline_that_is_past_expires_at_the_successor),
        PASS_TEST(test_request_cut_at_every_byte_is_answered_once_by_the_successor),
        PASS_TEST(test_nobody_reads_between_the_sending_and_the_verdict),
        PASS_TEST(test_pipelined_requests_travel_as_bytes),
        PASS_TEST(test_small_unsent_output_travels_in_order),
        PASS_TEST(test_large_unsent_output_travels_in_order),
        PASS_TEST(test_megabytes_travel_both_ways),
        PASS_TEST(test_thousand_connections_pass_within_the_window),
        PASS_TEST(test_full_channel_is_waited_for),
        PASS_TEST(test_what_waits_goes_to_the_next_successor_and_what_was_sent_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
