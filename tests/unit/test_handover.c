/* tests/unit/test_handover.c: a process that leaves, and the successors it hears of: which one gets its connections,
 * and what becomes of them when it is none. What travels is in test_pass.c. */
#include "pass_pair.h"

#include <proc/process.h>
#include <proto/protocol.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <baton/http.h>

static const char get_request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/* The process that leaves; the test is its master. Its successors are sides of the pair. */
typedef struct leaver {
    pass_pair *pair;
    bt_process process;
    bt_process_start start;
    bt_worker_config config;
    baton_worker worker;
    bt_counters counters;
    bt_counters crew;
    int master_fd;
    int handed_over; /* messages heard by the master */
    int asked;
    pass_link links[3]; /* the successors' ends */
    baton_conn *kept;   /* the connection whose request is not answered yet */
} leaver;

static leaver *of(baton_conn *conn)
{
    return bt_container(conn->loop, leaver, process.loop);
}

/* "old" at once, or later to a request for /later. */
static void on_request(baton_conn *conn, const baton_request *request)
{
    if (strncmp(baton_request_path(request).data, "/later", 6) == 0)
        of(conn)->kept = conn;
    else
        assert_int_equal(baton_reply(conn, 200, NULL, "old"), 0);
}

static int on_pass(baton_conn *conn, baton_pass *pass)
{
    (void) conn;
    return baton_pass_write(pass, "state", 5);
}

static int on_take(baton_conn *conn, uint32_t version, baton_str state)
{
    (void) conn;
    (void) version;
    assert_true(state.data == NULL || state.len == 5);
    return 0;
}

static void no_message(bt_channel *channel, const bt_message *message, int fd)
{
    (void) channel;
    (void) message;
    assert_int_equal(fd, -1);
}

static void no_end(bt_channel *channel)
{
    (void) channel;
}

static void set_process(leaver *old, int channel_fd)
{
    bt_process *process = &old->process;
    pass_side *like = &old->pair->old;
    old->worker = (baton_worker){.config = &old->config, .callbacks = {.on_request = on_request}, .process = process};
    old->start = (bt_process_start){.worker = &old->worker,
                                    .counters = &old->counters,
                                    .crew_connections = &old->crew.connections,
                                    .crew_counters = &old->crew};
    process->start = &old->start;
    process->state = BT_PROCESS_SERVING;
    process->endpoint = like->endpoint;
    process->endpoint.callbacks = &old->worker.callbacks;
    process->endpoint.worker = &old->worker;
    process->endpoint.counters = &old->counters;
    process->endpoint.crew_connections = &old->crew.connections;
    bt_list_init(&process->acceptors);
    bt_list_init(&process->pass_outs);
    bt_list_init(&process->pass_ins);
    assert_int_equal(bt_loop_init(&process->loop, 7), 0);
    process->loop.hook_arg = process;
    uv_timer_init(&process->loop.uv, &process->deadline);
    uv_timer_init(&process->loop.uv, &process->retry);
    uv_idle_init(&process->loop.uv, &process->finish);
    process->deadline.data = process->retry.data = process->finish.data = process;
    process->channel.on_message = no_message;
    process->channel.on_end = no_end;
    assert_int_equal(bt_channel_start(&process->channel, &process->loop.uv, channel_fd), 0);
}

static int setup(void **state)
{
    int err = pass_pair_setup(state);
    if (err != 0)
        return err;
    leaver *old = calloc(1, sizeof *old);
    assert_non_null(old);
    old->pair = *state;
    int pair[2];
    assert_int_equal(bt_channel_pair(pair), 0);
    old->master_fd = pair[1];
    set_process(old, pair[0]);
    old->pair->extra = &old->process.loop;
    *state = old;
    return 0;
}

static void destroy(baton_conn *conn, void *arg)
{
    (void) arg;
    bt_conn_destroy(conn, 0);
}

static int teardown(void **state)
{
    leaver *old = *state;
    pass_pair *pair = old->pair;
    bt_process *process = &old->process;
    bt_process_close_passes(process);
    for (size_t i = 0; i < sizeof old->links / sizeof *old->links; i++)
        bt_pass_in_close(&old->links[i].in);
    bt_loop_each_conn(&process->loop, destroy, NULL);
    bt_channel_close(&process->channel, NULL);
    bt_loop_close(&process->loop);
    pass_turn(pair);
    pair->extra = NULL;
    pass_turn(pair);
    close(old->master_fd);
    free(old);
    *state = pair;
    return pass_pair_teardown(state);
}

/* ---- the master ---- */

static void hear(leaver *old)
{
    bt_message message;
    while (recv(old->master_fd, &message, sizeof message, MSG_DONTWAIT) > 0) {
        old->handed_over += message.type == BT_MESSAGE_HANDED_OVER;
        old->asked += message.type == BT_MESSAGE_ASK_PASS;
    }
}

static bool was_told(leaver *old)
{
    hear(old);
    return old->handed_over > 0;
}

static bool was_asked(leaver *old)
{
    hear(old);
    return old->asked > 0;
}

/* Tells the process of a successor: by DRAIN first, by PASS_OUT afterwards. Returns the successor's end, silent yet. */
static int announce(leaver *old)
{
    int pair[2];
    assert_int_equal(bt_channel_pair(pair), 0);
    if (old->process.state == BT_PROCESS_SERVING)
        bt_process_drain(&old->process, true, pair[0], BT_NO_LIMIT);
    else
        bt_process_pass_to(&old->process, pair[0]);
    return pair[1];
}

/* The successor speaks. */
static void speak(leaver *old, int link, pass_side *side, int fd)
{
    pass_link_open_in(&old->links[link], side, fd);
}

static void speak_unknown_version(int fd)
{
    bt_pass_hello hello = {.wire_min = BT_PASS_VERSION_MAX + 1, .wire_max = BT_PASS_VERSION_MAX + 1};
    bt_buf message = {0};
    assert_int_equal(bt_pass_add_hello(&message, &hello), 0);
    assert_int_equal(send(fd, bt_buf_head(&message), bt_buf_len(&message), MSG_NOSIGNAL), bt_buf_len(&message));
    bt_buf_free(&message);
}

static bool has_ended(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

/* ---- clients ---- */

static void open_client(leaver *old, pass_client *client)
{
    pass_client_open_in(&old->process.loop, &old->process.endpoint, client);
}

static const char *ask(leaver *old, pass_client *client)
{
    return pass_ask(old->pair, client);
}

/* ---- before the HELLO ---- */

static void test_everything_is_served_as_before_until_the_successor_speaks(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    for (int i = 0; i < 3; i++)
        assert_string_equal(ask(old, &client), "old");
    assert_false(was_told(old));
    assert_int_equal(client.conn->state, BT_CONN_OPEN);
    speak(old, 0, &old->pair->successor, fd);
    PASS_UNTIL(old->pair, was_told(old));
    assert_string_equal(ask(old, &client), "new::");
    assert_int_equal(old->handed_over, 1);
    pass_client_close(&client);
}

static void test_successor_that_dies_before_it_speaks_is_replaced(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    close(announce(old));
    PASS_UNTIL(old->pair, was_asked(old));
    assert_string_equal(ask(old, &client), "old");
    assert_false(was_told(old));
    speak(old, 0, &old->pair->later, announce(old));
    PASS_UNTIL(old->pair, was_told(old));
    assert_string_equal(ask(old, &client), "later::");
    pass_client_close(&client);
}

static void test_successor_that_dies_right_after_its_hello_is_replaced(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    speak(old, 0, &old->pair->successor, fd);
    bt_pass_in_close(&old->links[0].in);
    PASS_UNTIL(old->pair, was_asked(old));
    assert_int_equal(old->process.loop.departure, BT_DEPARTURE_NONE);
    assert_string_equal(ask(old, &client), "old");
    speak(old, 1, &old->pair->later, announce(old));
    PASS_UNTIL(old->pair, client.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "later::");
    pass_client_close(&client);
}

static void test_nonsense_for_a_hello_ends_the_channel(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    assert_int_equal(send(fd, "nonsense", 8, MSG_NOSIGNAL), 8);
    PASS_UNTIL(old->pair, was_asked(old));
    assert_true(has_ended(fd));
    assert_string_equal(ask(old, &client), "old");
    close(fd);
    pass_client_close(&client);
}

static void test_verdict_before_the_hello_ends_the_channel(void **state)
{
    leaver *old = *state;
    pass_client client;
    bt_buf verdicts = {0};
    open_client(old, &client);
    int fd = announce(old);
    assert_int_equal(bt_pass_begin(&verdicts, BT_PASS_VERDICTS, BT_PASS_VERSION_MAX), 0);
    assert_int_equal(bt_pass_add_verdict(&verdicts, client.id, BT_VERDICT_TAKEN), 0);
    bt_pass_count(&verdicts, 1);
    assert_int_equal(send(fd, bt_buf_head(&verdicts), bt_buf_len(&verdicts), MSG_NOSIGNAL), bt_buf_len(&verdicts));
    PASS_UNTIL(old->pair, was_asked(old));
    assert_string_equal(ask(old, &client), "old");
    bt_buf_free(&verdicts);
    close(fd);
    pass_client_close(&client);
}

static void test_stop_does_not_wait_for_a_hello(void **state)
{
    leaver *old = *state;
    int fd = announce(old);
    bt_process_stop(&old->process, BT_NO_LIMIT);
    assert_true(has_ended(fd));
    assert_true(old->process.is_finishing);
    close(fd);
}

/* drain_timeout is for what cannot be passed: the successor gets the time to speak and to take the others. */
static void test_end_of_the_drain_waits_once_for_the_hello(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    bt_process_limit(&old->process, 0);
    PASS_UNTIL(old->pair, old->process.was_extended);
    assert_int_equal(client.conn->state, BT_CONN_OPEN);
    speak(old, 0, &old->pair->successor, fd);
    PASS_UNTIL(old->pair, client.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "new::");
    pass_client_close(&client);
}

static void test_successor_that_never_speaks_gets_nothing_at_the_end_of_the_drain(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    bt_process_limit(&old->process, 0);
    PASS_UNTIL(old->pair, pass_client_has_ended(&client));
    assert_true(has_ended(fd));
    close(fd);
    pass_client_close(&client);
}

/* ---- several successors ---- */

static void test_newest_of_several_wins_whoever_speaks_first(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int older = announce(old);
    int newer = announce(old);
    speak(old, 1, &old->pair->later, newer);
    PASS_UNTIL(old->pair, was_told(old));
    assert_true(has_ended(older));
    assert_string_equal(ask(old, &client), "later::");
    close(older);
    pass_client_close(&client);
}

static void test_older_one_takes_over_until_the_newer_one_speaks(void **state)
{
    leaver *old = *state;
    pass_client idle;
    pass_client busy;
    open_client(old, &idle);
    open_client(old, &busy);
    static const char later[] = "GET /later HTTP/1.1\r\nHost: t\r\n\r\n";
    pass_client_write(old->pair, &busy, later, sizeof later - 1);
    PASS_UNTIL(old->pair, old->kept != NULL);
    int older = announce(old);
    int newer = announce(old);
    speak(old, 0, &old->pair->successor, older);
    PASS_UNTIL(old->pair, idle.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &idle), "new::");
    speak(old, 1, &old->pair->later, newer);
    PASS_UNTIL(old->pair, !old->links[0].in.is_open); /* nothing more will come to the older one */
    assert_int_equal(baton_reply(old->kept, 200, NULL, "old"), 0);
    assert_string_equal(pass_client_answer(old->pair, &busy), "old");
    assert_string_equal(ask(old, &busy), "later::");
    assert_true(was_told(old));
    assert_int_equal(old->handed_over, 1);
    pass_client_close(&idle);
    pass_client_close(&busy);
}

static void test_death_of_a_silent_newer_one_leaves_the_present_one(void **state)
{
    leaver *old = *state;
    pass_client busy;
    open_client(old, &busy);
    static const char later[] = "GET /later HTTP/1.1\r\nHost: t\r\n\r\n";
    pass_client_write(old->pair, &busy, later, sizeof later - 1);
    PASS_UNTIL(old->pair, old->kept != NULL);
    speak(old, 0, &old->pair->successor, announce(old));
    PASS_UNTIL(old->pair, was_told(old));
    int newer = announce(old);
    close(newer);
    PASS_UNTIL(old->pair,
               bt_list_empty(&old->process.pass_outs) || old->process.pass_outs.next->next == &old->process.pass_outs);
    assert_int_equal(baton_reply(old->kept, 200, NULL, "old"), 0);
    assert_string_equal(pass_client_answer(old->pair, &busy), "old");
    assert_string_equal(ask(old, &busy), "new::");
    assert_false(was_asked(old));
    pass_client_close(&busy);
}

static void test_death_of_the_present_one_waits_for_the_silent_newer_one(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    speak(old, 0, &old->pair->successor, announce(old));
    old->links[0].in.is_draining = true;
    PASS_UNTIL(old->pair, pass_count(&old->counters.pass_refused) == 1);
    int newer = announce(old);
    bt_pass_in_close(&old->links[0].in);
    PASS_UNTIL(old->pair, old->process.pass_out == NULL);
    assert_string_equal(ask(old, &client), "old");
    assert_false(uv_is_active((uv_handle_t *) &old->process.retry)); /* nobody else is asked for */
    speak(old, 1, &old->pair->later, newer);
    PASS_UNTIL(old->pair, client.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "later::");
    pass_client_close(&client);
}

/* The roll has turned round: the one it was passing to refuses, the next one takes. */
static void test_what_a_draining_successor_refuses_goes_to_the_next(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int first = announce(old);
    speak(old, 0, &old->pair->successor, first);
    old->links[0].in.is_draining = true;
    PASS_UNTIL(old->pair, pass_count(&old->counters.pass_refused) == 1);
    assert_string_equal(ask(old, &client), "old");
    speak(old, 1, &old->pair->later, announce(old));
    PASS_UNTIL(old->pair, client.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "later::");
    pass_client_close(&client);
}

/* ---- another wire version ---- */

static void test_mismatch_answers_each_connection_once_more(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    speak_unknown_version(fd);
    PASS_UNTIL(old->pair, was_told(old));
    assert_true(has_ended(fd));
    assert_true(pass_client_is_quiet(&client)); /* no bare end */
    pass_client_write(old->pair, &client, get_request, sizeof get_request - 1);
    assert_string_equal(pass_client_answer(old->pair, &client), "old");
    PASS_UNTIL(old->pair, pass_client_has_ended(&client));
    assert_false(was_asked(old));
    close(fd);
    pass_client_close(&client);
}

static void test_mismatch_lets_what_is_being_handled_be_answered(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    static const char later[] = "GET /later HTTP/1.1\r\nHost: t\r\n\r\n";
    pass_client_write(old->pair, &client, later, sizeof later - 1);
    PASS_UNTIL(old->pair, old->kept != NULL);
    int fd = announce(old);
    speak_unknown_version(fd);
    PASS_UNTIL(old->pair, was_told(old));
    assert_int_equal(baton_reply(old->kept, 200, NULL, "old"), 0);
    assert_string_equal(pass_client_answer(old->pair, &client), "old");
    close(fd);
    pass_client_close(&client);
}

static void test_idle_connection_of_a_mismatch_stays_until_the_end_of_the_drain(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    speak_unknown_version(fd);
    PASS_UNTIL(old->pair, was_told(old));
    for (int i = 0; i < 20; i++)
        pass_turn(old->pair);
    assert_true(pass_client_is_quiet(&client));
    assert_int_equal(pass_count(&old->counters.stays[BT_STAY_REFUSED]), 1);
    bt_process_limit(&old->process, 0);
    PASS_UNTIL(old->pair, pass_client_has_ended(&client));
    close(fd);
    pass_client_close(&client);
}

static void test_later_successor_takes_what_a_mismatch_has_stranded(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    speak_unknown_version(fd);
    PASS_UNTIL(old->pair, was_told(old));
    close(fd);
    speak(old, 1, &old->pair->later, announce(old));
    PASS_UNTIL(old->pair, client.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "later::");
    pass_client_close(&client);
}

/* What the one before was sent is still its own, what waited for it is not. */
static void test_mismatch_heeds_the_verdicts_of_the_successor_before(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    int fd = announce(old);
    pass_link_open_in(&old->links[0], &old->pair->successor, fd);
    while (client.conn->state != BT_CONN_PASSING)
        uv_run(&old->process.loop.uv, UV_RUN_NOWAIT);
    int other = announce(old);
    speak_unknown_version(other);
    PASS_UNTIL(old->pair, !old->links[0].in.is_open);
    assert_int_equal(client.conn->state, BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "new::");
    close(other);
    pass_client_close(&client);
}

/* ---- why connections stay ---- */

static void test_reasons_are_counted_and_each_connection_once(void **state)
{
    leaver *old = *state;
    pass_client clients[3];
    static char user;
    for (int i = 0; i < 3; i++)
        open_client(old, &clients[i]);
    baton_conn_set_user(clients[1].conn, &user);
    static const char later[] = "GET /later HTTP/1.1\r\nHost: t\r\n\r\n";
    pass_client_write(old->pair, &clients[2], later, sizeof later - 1);
    PASS_UNTIL(old->pair, old->kept != NULL);
    speak(old, 0, &old->pair->successor, announce(old));
    PASS_UNTIL(old->pair, clients[0].conn->state == BT_CONN_PASSED);
    assert_int_equal(pass_count(&old->counters.stays[BT_STAY_APP_STATE]), 1);
    assert_int_equal(pass_count(&old->counters.stays[BT_STAY_REQUEST]), 1);
    assert_int_equal(baton_reply(old->kept, 200, NULL, "old"), 0);
    PASS_UNTIL(old->pair, pass_count(&old->counters.stays[BT_STAY_REQUEST]) == 0);
    bt_process_count_stays(&old->process);
    assert_int_equal(pass_count(&old->crew.stayed[BT_STAY_APP_STATE]), 1);
    assert_int_equal(pass_count(&old->crew.stayed[BT_STAY_REQUEST]), 1);
    bt_conn_destroy(clients[1].conn, 0);
    PASS_UNTIL(old->pair, pass_count(&old->counters.stays[BT_STAY_APP_STATE]) == 0);
    for (int i = 0; i < 3; i++)
        pass_client_close(&clients[i]);
}

static void test_half_sent_response_is_a_reason_of_its_own(void **state)
{
    leaver *old = *state;
    pass_client client;
    open_client(old, &client);
    static const char later[] = "GET /later HTTP/1.1\r\nHost: t\r\n\r\n";
    pass_client_write(old->pair, &client, later, sizeof later - 1);
    PASS_UNTIL(old->pair, old->kept != NULL);
    assert_int_equal(baton_reply_start(old->kept, 200, NULL, 3), 0);
    speak(old, 0, &old->pair->successor, announce(old));
    PASS_UNTIL(old->pair, pass_count(&old->counters.stays[BT_STAY_RESPONSE]) == 1);
    assert_true(baton_reply_write(old->kept, "old", 3) >= 0);
    assert_int_equal(baton_reply_end(old->kept), 0);
    assert_string_equal(pass_client_answer(old->pair, &client), "old");
    assert_string_equal(ask(old, &client), "new::");
    pass_client_close(&client);
}

static void test_state_that_one_successor_cannot_read_goes_to_the_next(void **state)
{
    leaver *old = *state;
    pass_client client;
    static char user;
    old->worker.callbacks.on_pass = on_pass;
    open_client(old, &client);
    baton_conn_set_user(client.conn, &user);
    speak(old, 0, &old->pair->successor, announce(old));
    PASS_UNTIL(old->pair, was_told(old));
    assert_int_equal(client.conn->state, BT_CONN_OPEN);
    old->pair->later.callbacks.on_take = on_take;
    speak(old, 1, &old->pair->later, announce(old));
    PASS_UNTIL(old->pair, client.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "later::");
    pass_client_close(&client);
}

static int refuse(baton_conn *conn, uint32_t version, baton_str state)
{
    (void) conn;
    (void) version;
    (void) state;
    return -1;
}

static void test_state_that_one_successor_refuses_goes_to_the_next(void **state)
{
    leaver *old = *state;
    pass_client client;
    static char user;
    old->worker.callbacks.on_pass = on_pass;
    old->pair->successor.callbacks.on_take = refuse;
    old->pair->later.callbacks.on_take = on_take;
    open_client(old, &client);
    baton_conn_set_user(client.conn, &user);
    speak(old, 0, &old->pair->successor, announce(old));
    PASS_UNTIL(old->pair, was_told(old));
    assert_int_equal(pass_count(&old->counters.pass_refused), 1);
    assert_true(bt_conn_is_stranded(client.conn));
    speak(old, 1, &old->pair->later, announce(old));
    PASS_UNTIL(old->pair, client.conn->state == BT_CONN_PASSED);
    assert_string_equal(ask(old, &client), "later::");
    pass_client_close(&client);
}

#define HANDOVER_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* ---- lent sockets ---- */

enum { WAITING = 150 }; /* more than are accepted in one turn of the loop */

/* A socket of a name that nobody else knows, with clients in its queue. */
static int listen_with_clients(int *clients)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t len = sizeof name;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *) &name, sizeof(sa_family_t)), 0); /* the kernel chooses one */
    assert_int_equal(getsockname(fd, (struct sockaddr *) &name, &len), 0);
    assert_int_equal(listen(fd, WAITING), 0);
    for (int i = 0; i < WAITING; i++) {
        clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(clients[i], (const struct sockaddr *) &name, len), 0);
    }
    return fd;
}

static void test_lent_socket_is_emptied_although_a_successor_comes(void **state)
{
    leaver *old = *state;
    int clients[WAITING];
    bt_process_listen_last(&old->process, listen_with_clients(clients));
    assert_false(bt_list_empty(&old->process.acceptors));
    int fd = announce(old);
    PASS_UNTIL(old->pair, bt_list_empty(&old->process.acceptors));
    assert_int_equal(pass_count(&old->counters.accepted), WAITING);
    speak(old, 0, &old->pair->successor, fd);
    PASS_UNTIL(old->pair, pass_count(&old->pair->successor.counters.passed_in) == WAITING);
    for (int i = 0; i < WAITING; i++)
        close(clients[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HANDOVER_TEST(test_everything_is_served_as_before_until_the_successor_speaks),
        HANDOVER_TEST(test_successor_that_dies_before_it_speaks_is_replaced),
        HANDOVER_TEST(test_successor_that_dies_right_after_its_hello_is_replaced),
        HANDOVER_TEST(test_nonsense_for_a_hello_ends_the_channel),
        HANDOVER_TEST(test_verdict_before_the_hello_ends_the_channel),
        HANDOVER_TEST(test_stop_does_not_wait_for_a_hello),
        HANDOVER_TEST(test_end_of_the_drain_waits_once_for_the_hello),
        HANDOVER_TEST(test_successor_that_never_speaks_gets_nothing_at_the_end_of_the_drain),
        HANDOVER_TEST(test_newest_of_several_wins_whoever_speaks_first),
        HANDOVER_TEST(test_older_one_takes_over_until_the_newer_one_speaks),
        HANDOVER_TEST(test_death_of_a_silent_newer_one_leaves_the_present_one),
        HANDOVER_TEST(test_death_of_the_present_one_waits_for_the_silent_newer_one),
        HANDOVER_TEST(test_what_a_draining_successor_refuses_goes_to_the_next),
        HANDOVER_TEST(test_mismatch_answers_each_connection_once_more),
        HANDOVER_TEST(test_mismatch_lets_what_is_being_handled_be_answered),
        HANDOVER_TEST(test_idle_connection_of_a_mismatch_stays_until_the_end_of_the_drain),
        HANDOVER_TEST(test_later_successor_takes_what_a_mismatch_has_stranded),
        HANDOVER_TEST(test_mismatch_heeds_the_verdicts_of_the_successor_before),
        HANDOVER_TEST(test_reasons_are_counted_and_each_connection_once),
        HANDOVER_TEST(test_half_sent_response_is_a_reason_of_its_own),
        HANDOVER_TEST(test_state_that_one_successor_cannot_read_goes_to_the_next),
        HANDOVER_TEST(test_state_that_one_successor_refuses_goes_to_the_next),
        HANDOVER_TEST(test_lent_socket_is_emptied_although_a_successor_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
