/* tests/unit/test_pass_app.c: what the application keeps for a connection travels with it, in a version that both sides
 * know, or stays where it is: it is never lost and never there twice. */
#include "pass_pair.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* What these applications keep: some text. Allocated, so that a sanitizer sees what is freed twice or never. */
typedef struct notes {
    uint32_t version; /* of the format it came in */
    size_t len;
    char text[];
} notes;

/* What the applications were asked, and what they shall answer. */
static struct {
    int passes, takes, passed;
    int pass_result, take_result;
    uint32_t pass_version; /* the last one that on_pass was asked for */
    size_t write_len;      /* on_pass writes this much more; SIZE_MAX: nothing at all */
    bool closes_in_take;
    baton_conn *last_passed;
    int channel_fd; /* the successor's end, for a test that loses it */
} app;

static void set_notes(baton_conn *conn, uint32_t version, const char *text, size_t len)
{
    notes *made = malloc(sizeof *made + len);
    assert_non_null(made);
    made->version = version;
    made->len = len;
    memcpy(made->text, text, len);
    baton_conn_set_user(conn, made);
}

static int on_pass(baton_conn *conn, baton_pass *pass)
{
    const notes *kept = baton_conn_user(conn);
    app.passes++;
    app.pass_version = baton_pass_version(pass);
    assert_int_equal(baton_send(conn, "x", 1), -ENOTCONN);
    if (app.pass_result != 0 || app.write_len == SIZE_MAX)
        return app.pass_result;
    int err = baton_pass_write(pass, kept->text, kept->len);
    char *more = calloc(1, app.write_len + 1);
    if (err == 0)
        err = baton_pass_write(pass, more, app.write_len);
    free(more);
    return err;
}

static int on_take(baton_conn *conn, uint32_t version, baton_str state)
{
    app.takes++;
    assert_int_equal(baton_send(conn, "x", 1), -ENOTCONN);
    if (state.data != NULL)
        set_notes(conn, version, state.data, state.len);
    if (app.take_result != 0) {
        free(baton_conn_user(conn)); /* and the pointer stays behind */
        return app.take_result;
    }
    if (app.closes_in_take)
        baton_close(conn);
    return 0;
}

static void forget(baton_conn *conn)
{
    free(baton_conn_user(conn));
    baton_conn_set_user(conn, NULL);
}

static void on_passed(baton_conn *conn)
{
    app.passed++;
    app.last_passed = conn;
    assert_false(baton_conn_is_open(conn));
    assert_int_equal(baton_send(conn, "x", 1), -ENOTCONN);
    free(baton_conn_user(conn));
}

static void on_close(baton_conn *conn)
{
    pass_side_of(conn)->closes++;
    forget(conn);
}

static void make_app(pass_side *side, size_t version)
{
    side->callbacks.on_pass = on_pass;
    side->callbacks.on_take = on_take;
    side->callbacks.on_passed = on_passed;
    side->callbacks.on_close = on_close;
    side->callbacks.state_version = version;
}

static int setup(void **state)
{
    int err = pass_pair_setup(state);
    if (err != 0)
        return err;
    memset(&app, 0, sizeof app);
    pass_pair *pair = *state;
    make_app(&pair->old, 1);
    make_app(&pair->successor, 1);
    make_app(&pair->later, 1);
    pass_link_renew(pair);
    return 0;
}

static void open_with_notes(pass_pair *pair, pass_client *client, const char *text)
{
    pass_client_open(pair, client);
    set_notes(client->conn, 1, text, strlen(text));
}

static void assert_notes(pass_side *side, uint64_t id, const char *text)
{
    baton_conn *conn = pass_find(side, id);
    assert_non_null(conn);
    const notes *kept = baton_conn_user(conn);
    assert_non_null(kept);
    assert_int_equal(kept->len, strlen(text));
    assert_memory_equal(kept->text, text, kept->len);
}

/* ---- travelling ---- */

static void test_state_travels_and_the_old_side_lets_go_of_it(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    pass_over(pair, &pair->link, &client);
    assert_notes(&pair->successor, client.id, "remember");
    assert_int_equal(app.passes, 1);
    assert_int_equal(app.takes, 1);
    assert_int_equal(app.passed, 1);
    assert_ptr_equal(app.last_passed, client.conn);
    assert_null(baton_conn_user(client.conn));
    assert_int_equal(pair->old.closes, 0);
    assert_int_equal(pair->successor.connects, 0);
    assert_string_equal(pass_ask(pair, &client), "new::");
    pass_client_close(&client);
}

static void test_connection_without_state_is_taken_with_none(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pass_over(pair, &pair->link, &client);
    assert_int_equal(app.passes, 0);
    assert_int_equal(app.takes, 1);
    assert_int_equal(app.passed, 0);
    assert_null(baton_conn_user(pass_find(&pair->successor, client.id)));
    assert_string_equal(pass_ask(pair, &client), "new::");
    pass_client_close(&client);
}

static void test_state_of_no_bytes_is_not_no_state(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "gone");
    app.write_len = SIZE_MAX;
    pass_over(pair, &pair->link, &client);
    assert_notes(&pair->successor, client.id, "");
    pass_client_close(&client);
}

static void test_state_travels_beside_unread_and_unsent_bytes(void **state)
{
    static const char half[] = "GET / HTTP/1.1\r\nHo";
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    pass_client_written(pair, &client, half, sizeof half - 1);
    assert_int_equal(bt_buf_append(&client.conn->out, "HTTP/1.1 204 No Content\r\n\r\n", 27), 0);
    pass_over(pair, &pair->link, &client);
    assert_notes(&pair->successor, client.id, "remember");
    assert_string_equal(pass_client_answer(pair, &client), "");
    pass_client_write(pair, &client, "st: t\r\n\r\n", 9);
    assert_string_equal(pass_client_answer(pair, &client), "new::");
    pass_client_close(&client);
}

static void test_state_beyond_a_message_travels_too(void **state)
{
    static const size_t sizes[] = {BT_PASS_MAX_BYTES / 2 - 1, BT_PASS_MAX_BYTES, 3 << 20, BT_PASS_MAX_APP - 4};
    pass_pair *pair = *state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pass_client before;
        pass_client client;
        pass_client_open(pair, &before);
        open_with_notes(pair, &client, "much");
        app.write_len = sizes[i];
        app.passes = 0;
        bt_pass_out_add(&pair->link.out, before.conn); /* so that it is not alone in its message */
        pass_over(pair, &pair->link, &client);
        const notes *kept = baton_conn_user(pass_find(&pair->successor, client.id));
        assert_int_equal(kept->len, 4 + sizes[i]);
        assert_memory_equal(kept->text, "much", 4);
        assert_int_equal(app.passes, 1);
        assert_string_equal(pass_ask(pair, &before), "new::");
        pass_client_close(&before);
        pass_client_close(&client);
    }
}

static void test_many_with_state_travel_and_each_keeps_its_own(void **state)
{
    enum { COUNT = 300 };
    pass_pair *pair = *state;
    pass_client *clients = pass_open_many(pair, COUNT);
    char text[32];
    app.write_len = 0;
    for (size_t i = 0; i < COUNT; i++) {
        int len = snprintf(text, sizeof text, "notes of %zu", i);
        set_notes(clients[i].conn, 1, text, (size_t) len);
        bt_pass_out_add(&pair->link.out, clients[i].conn);
    }
    bt_pass_out_pump(&pair->link.out);
    PASS_UNTIL(pair, bt_pass_out_is_settled(&pair->link.out));
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "notes of %zu", i);
        assert_notes(&pair->successor, clients[i].id, text);
    }
    assert_int_equal(app.passed, COUNT);
    pass_close_many(clients, COUNT);
}

/* ---- versions ---- */

static void test_older_of_both_versions_is_written(void **state)
{
    static const struct {
        size_t old, successor;
        uint32_t written;
    } rows[] = {{1, 1, 1}, {1, 2, 1}, {2, 1, 1}, {3, 7, 3}, {7, 0, 0}};
    pass_pair *pair = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pass_client client;
        pair->old.callbacks.state_version = rows[i].old;
        pair->successor.callbacks.state_version = rows[i].successor;
        pass_link_renew(pair);
        open_with_notes(pair, &client, "x");
        pass_over(pair, &pair->link, &client);
        assert_int_equal(app.pass_version, rows[i].written);
        const notes *kept = baton_conn_user(pass_find(&pair->successor, client.id));
        assert_int_equal(kept->version, rows[i].written);
        pass_client_close(&client);
    }
}

static void assert_stays(pass_pair *pair, pass_client *client)
{
    assert_true(client->conn->app_stays);
    assert_int_equal(client->conn->state, BT_CONN_OPEN);
    assert_false(bt_conn_is_passable(client->conn));
    client->conn->refused = false; /* as when it is offered again */
    assert_false(bt_conn_is_passable(client->conn));
    assert_int_equal(pair->successor.loop.conn_count, 0);
    assert_int_equal(app.passed, 0);
    assert_int_equal(pair->old.closes, 0);
    assert_notes(&pair->old, client->id, "remember");
    assert_string_equal(pass_ask(pair, client), "old::");
}

/* A sender that does not keep to what was announced. */
static void test_state_of_a_newer_version_than_announced_is_refused(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pair->old.callbacks.state_version = 9;
    open_with_notes(pair, &client, "remember");
    pair->link.out.hello.app_version = 9;
    pass_send(&pair->link, &client);
    PASS_UNTIL(pair, pair->link.refused == 1);
    assert_int_equal(pair->link.verdict, BT_VERDICT_APP);
    assert_int_equal(app.takes, 0);
    assert_stays(pair, &client);
    pass_client_close(&client);
}

static void test_state_for_one_without_on_take_is_refused(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    pair->successor.callbacks.on_take = NULL; /* it has announced otherwise */
    pass_send(&pair->link, &client);
    PASS_UNTIL(pair, pair->link.refused == 1);
    assert_int_equal(pair->link.verdict, BT_VERDICT_APP);
    assert_stays(pair, &client);
    pass_client_close(&client);
}

static void test_connection_with_state_is_not_offered_to_one_that_reads_none(void **state)
{
    pass_pair *pair = *state;
    pass_client with;
    pass_client without;
    pair->successor.callbacks.on_take = NULL;
    pass_link_renew(pair);
    open_with_notes(pair, &with, "remember");
    pass_client_open(pair, &without);
    assert_false(bt_conn_is_passable(with.conn));
    assert_true(bt_conn_is_passable(without.conn));
    pass_over(pair, &pair->link, &without);
    assert_string_equal(pass_ask(pair, &without), "new::");
    assert_string_equal(pass_ask(pair, &with), "old::");
    pass_client_close(&with);
    pass_client_close(&without);
}

static void test_connection_with_state_is_not_offered_without_on_pass(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pair->old.callbacks.on_pass = NULL;
    pass_link_renew(pair);
    open_with_notes(pair, &client, "remember");
    assert_false(bt_conn_is_passable(client.conn));
    pass_client_close(&client);
}

/* It was passable when it was held, and has waited since. */
static void test_state_set_while_the_connection_waited_keeps_it(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pair->old.callbacks.on_pass = NULL;
    pass_link_renew(pair);
    pass_client_open(pair, &client);
    bt_pass_out_add(&pair->link.out, client.conn);
    set_notes(client.conn, 1, "remember", 8);
    bt_pass_out_pump(&pair->link.out);
    assert_int_equal(pair->link.refused, 1);
    assert_stays(pair, &client);
    pass_client_close(&client);
}

/* ---- refusals ---- */

static void test_on_pass_that_refuses_keeps_the_connection(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    app.pass_result = 1;
    pass_send(&pair->link, &client);
    assert_int_equal(pair->link.refused, 1); /* at once: nothing was sent */
    assert_int_equal(pair->link.verdict, BT_VERDICT_APP);
    assert_int_equal(app.passes, 1);
    assert_stays(pair, &client);
    pass_client_close(&client);
}

static void test_on_pass_that_refuses_one_of_many_keeps_only_that_one(void **state)
{
    enum { COUNT = 3 };
    pass_pair *pair = *state;
    pass_client clients[COUNT];
    for (int i = 0; i < COUNT; i++)
        pass_client_open(pair, &clients[i]);
    set_notes(clients[1].conn, 1, "remember", 8);
    app.pass_result = -ENOMEM;
    for (int i = 0; i < COUNT; i++)
        bt_pass_out_add(&pair->link.out, clients[i].conn);
    bt_pass_out_pump(&pair->link.out);
    PASS_UNTIL(pair, bt_pass_out_is_settled(&pair->link.out));
    assert_int_equal(app.passes, 1);
    for (int i = 0; i < COUNT; i++) {
        assert_string_equal(pass_ask(pair, &clients[i]), i == 1 ? "old::" : "new::");
        pass_client_close(&clients[i]);
    }
}

/* The same whether on_pass heeds what baton_pass_write() says, or not. */
static void test_state_beyond_the_limit_stays(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    app.write_len = BT_PASS_MAX_APP;
    pass_send(&pair->link, &client);
    assert_int_equal(pair->link.refused, 1);
    assert_stays(pair, &client);
    pass_client_close(&client);
}

static int write_too_much_and_say_nothing(baton_conn *conn, baton_pass *pass)
{
    (void) conn;
    assert_int_equal(baton_pass_write(pass, "", BT_PASS_MAX_APP + (size_t) 1), -EMSGSIZE);
    assert_int_equal(baton_pass_write(pass, "short", 5), 0);
    return 0;
}

static void test_state_cut_short_never_travels(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pair->old.callbacks.on_pass = write_too_much_and_say_nothing;
    open_with_notes(pair, &client, "remember");
    pass_send(&pair->link, &client);
    assert_int_equal(pair->link.refused, 1);
    assert_stays(pair, &client);
    pass_client_close(&client);
}

static void test_on_take_that_refuses_leaves_the_connection_to_the_old_side(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    app.take_result = -1;
    pass_send(&pair->link, &client);
    PASS_UNTIL(pair, pair->link.refused == 1);
    assert_int_equal(pair->link.verdict, BT_VERDICT_APP);
    assert_int_equal(app.takes, 1);
    assert_stays(pair, &client);
    pass_client_close(&client);
}

static void test_what_one_successor_refuses_another_takes(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    app.take_result = -1;
    pass_send(&pair->link, &client);
    PASS_UNTIL(pair, pair->link.refused == 1);
    app.take_result = 0;
    client.conn->refused = client.conn->app_stays = false; /* a process does so at another successor's HELLO */
    pass_link_open(&pair->next, &pair->old, &pair->later);
    pass_over(pair, &pair->next, &client);
    assert_notes(&pair->later, client.id, "remember");
    pass_client_close(&client);
}

/* ---- closed by the application while it is being passed ---- */

static void test_close_during_the_pass_has_no_effect_once_it_is_taken(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    pass_send(&pair->link, &client);
    baton_close(client.conn);
    PASS_UNTIL(pair, client.conn->state == BT_CONN_PASSED);
    assert_int_equal(app.passed, 1);
    assert_int_equal(pair->old.closes, 0);
    assert_notes(&pair->successor, client.id, "remember");
    assert_string_equal(pass_ask(pair, &client), "new::");
    pass_client_close(&client);
}

static void test_close_during_the_pass_ends_a_refused_connection(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    app.take_result = -1;
    pass_send(&pair->link, &client);
    baton_destroy(client.conn);
    PASS_UNTIL(pair, pair->old.closes == 1);
    assert_int_equal(app.passed, 0);
    PASS_UNTIL(pair, pass_client_has_ended(&client));
    pass_client_close(&client);
}

static void test_close_in_on_take_ends_the_connection_in_the_successor(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    app.closes_in_take = true;
    pass_over(pair, &pair->link, &client);
    assert_int_equal(app.passed, 1); /* the old side's */
    PASS_UNTIL(pair, pass_client_has_ended(&client));
    pass_client_close(&client);
    PASS_UNTIL(pair, pair->successor.closes == 1);
}

/* An answer that the client has not taken yet, and the close behind it. */
static void queue_answer(pass_client *client)
{
    static const char bytes[] = "the end of an answer";
    assert_int_equal(bt_buf_append(&client->conn->out, bytes, sizeof bytes - 1), 0);
}

static void assert_answer_then_end(pass_pair *pair, pass_client *client)
{
    char bytes[64];
    ssize_t n = -1;
    PASS_UNTIL(pair, (n = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
    assert_int_equal(n, 20);
    assert_memory_equal(bytes, "the end of an answer", 20);
    PASS_UNTIL(pair, (n = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
    assert_int_equal(n, 0);
}

static void test_close_in_on_take_sends_what_is_queued(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    queue_answer(&client);
    app.closes_in_take = true;
    pass_over(pair, &pair->link, &client);
    assert_answer_then_end(pair, &client);
    pass_client_close(&client);
    PASS_UNTIL(pair, pair->successor.closes == 1);
}

static void test_close_of_a_refused_connection_sends_what_is_queued(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    queue_answer(&client);
    app.take_result = -1;
    pass_send(&pair->link, &client);
    baton_close(client.conn);
    assert_answer_then_end(pair, &client);
    pass_client_close(&client);
    PASS_UNTIL(pair, pair->old.closes == 1);
}

/* ---- deaths ---- */

static void test_death_of_the_successor_leaves_the_state_to_the_old_side(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    pass_send(&pair->link, &client);
    pass_kill_successor(pair);
    PASS_UNTIL(pair, !pair->link.out.is_open);
    assert_int_equal(app.passed, 0);
    assert_notes(&pair->old, client.id, "remember");
    assert_string_equal(pass_ask(pair, &client), "old::");
    pass_client_close(&client);
}

static void test_closed_pass_lets_go_of_the_state_that_was_sent(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    pass_send(&pair->link, &client);
    bt_pass_out_close(&pair->link.out);
    assert_int_equal(app.passed, 1);
    PASS_UNTIL(pair, !pair->link.in.is_open);
    assert_notes(&pair->successor, client.id, "remember");
    pass_client_close(&client);
}

/* The verdicts are stuck: the last connection is made, but its verdict has never left. */
static void test_successor_that_must_abandon_a_connection_lets_go_of_its_state(void **state)
{
    enum { COUNT = 64 };
    pass_pair *pair = *state;
    pass_client clients[COUNT];
    int few = 1;
    size_t sent = 0;
    assert_int_equal(setsockopt(pair->link.in.fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof few), 0);
    while (bt_list_empty(&pair->link.in.taken)) {
        assert_true(sent < COUNT);
        open_with_notes(pair, &clients[sent], "remember");
        pass_send(&pair->link, &clients[sent++]);
        for (int turn = 0; turn < 3; turn++)
            pass_turn_side(&pair->successor);
    }
    bt_pass_in_close(&pair->link.in);
    assert_int_equal(app.passed, 1);
    assert_int_equal(app.takes, sent);
    PASS_UNTIL(pair, !pair->link.out.is_open);
    assert_int_equal(app.passed, sent); /* and those of the old side that were taken */
    assert_notes(&pair->old, clients[sent - 1].id, "remember");
    assert_string_equal(pass_ask(pair, &clients[sent - 1]), "old::");
    for (size_t i = 0; i < sent; i++)
        pass_client_close(&clients[i]);
}

/* The first record of a message is right, the second is not: what was made for the first is let go of, too. */
/* Ends the channel between the receipt of a message and its verdicts, in a way that is not the old side's death. */
static int lose_the_channel(baton_conn *conn, uint32_t version, baton_str state)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(nothing >= 0);
    assert_int_equal(dup3(nothing, app.channel_fd, O_CLOEXEC), app.channel_fd);
    close(nothing);
    return on_take(conn, version, state);
}

static void test_verdict_that_the_kernel_refuses_leaves_the_connection_to_the_old_side(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    open_with_notes(pair, &client, "remember");
    app.channel_fd = pair->link.in.fd;
    pair->successor.callbacks.on_take = lose_the_channel;
    pass_send(&pair->link, &client);
    PASS_UNTIL(pair, pair->link.ended == 2);
    assert_int_equal(app.takes, 1);
    assert_int_equal(app.passed, 1); /* of the successor's copy */
    assert_int_equal(pass_count(&pair->successor.counters.passed_in), 0);
    assert_notes(&pair->old, client.id, "remember");
    assert_string_equal(pass_ask(pair, &client), "old::");
    pass_client_close(&client);
}

static void test_malformed_message_lets_go_of_the_state_that_was_taken(void **state)
{
    pass_pair *pair = *state;
    pass_client clients[2];
    for (int i = 0; i < 2; i++)
        open_with_notes(pair, &clients[i], "remember");
    bt_pass_out_add(&pair->link.out, clients[0].conn);
    clients[1].conn->bytes_read = 1; /* so that they differ */
    bt_pass_out_add(&pair->link.out, clients[1].conn);
    bt_pass_out_pump(&pair->link.out);
    char bytes[4096];
    union {
        char bytes[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(pair->link.in.fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    assert_true(n > 0);
    part.iov_len = (size_t) n - 1; /* the last byte of the second one's state is missing */
    assert_int_equal(sendmsg(pair->link.out.fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT), n - 1);
    const int *fds = (const int *) (const void *) CMSG_DATA(CMSG_FIRSTHDR(&header));
    close(fds[0]);
    close(fds[1]);
    PASS_UNTIL(pair, pair->link.ended == 2);
    assert_int_equal(app.takes, 1);
    assert_int_equal(app.passed, 1);
    for (int i = 0; i < 2; i++) {
        assert_notes(&pair->old, clients[i].id, "remember");
        assert_string_equal(pass_ask(pair, &clients[i]), "old::");
        pass_client_close(&clients[i]);
    }
}

#define APP_TEST(test) cmocka_unit_test_setup_teardown(test, setup, pass_pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        APP_TEST(test_state_travels_and_the_old_side_lets_go_of_it),
        APP_TEST(test_connection_without_state_is_taken_with_none),
        APP_TEST(test_state_of_no_bytes_is_not_no_state),
        APP_TEST(test_state_travels_beside_unread_and_unsent_bytes),
        APP_TEST(test_state_beyond_a_message_travels_too),
        APP_TEST(test_many_with_state_travel_and_each_keeps_its_own),
        APP_TEST(test_older_of_both_versions_is_written),
        APP_TEST(test_state_of_a_newer_version_than_announced_is_refused),
        APP_TEST(test_state_for_one_without_on_take_is_refused),
        APP_TEST(test_connection_with_state_is_not_offered_to_one_that_reads_none),
        APP_TEST(test_connection_with_state_is_not_offered_without_on_pass),
        APP_TEST(test_state_set_while_the_connection_waited_keeps_it),
        APP_TEST(test_on_pass_that_refuses_keeps_the_connection),
        APP_TEST(test_on_pass_that_refuses_one_of_many_keeps_only_that_one),
        APP_TEST(test_state_beyond_the_limit_stays),
        APP_TEST(test_state_cut_short_never_travels),
        APP_TEST(test_on_take_that_refuses_leaves_the_connection_to_the_old_side),
        APP_TEST(test_what_one_successor_refuses_another_takes),
        APP_TEST(test_close_during_the_pass_has_no_effect_once_it_is_taken),
        APP_TEST(test_close_during_the_pass_ends_a_refused_connection),
        APP_TEST(test_close_in_on_take_ends_the_connection_in_the_successor),
        APP_TEST(test_close_in_on_take_sends_what_is_queued),
        APP_TEST(test_close_of_a_refused_connection_sends_what_is_queued),
        APP_TEST(test_verdict_that_the_kernel_refuses_leaves_the_connection_to_the_old_side),
        APP_TEST(test_death_of_the_successor_leaves_the_state_to_the_old_side),
        APP_TEST(test_closed_pass_lets_go_of_the_state_that_was_sent),
        APP_TEST(test_successor_that_must_abandon_a_connection_lets_go_of_its_state),
        APP_TEST(test_malformed_message_lets_go_of_the_state_that_was_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
