/* tests/unit/test_pass_alloc.c: passes in which one allocation fails, each of them in turn: every connection is served
 * afterwards, by one side, with nothing of its request lost. Only part of builds with fail-points. */
#include "pass_pair.h"

#include <stdio.h>

static const char idle_request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
static const char chunked_request[] =
    "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";

enum { HEAD_MAX = 100, BODY = 40000, MOST_ALLOCATIONS = 200, KINDS = 3 };

static char large_request[HEAD_MAX + BODY];
static char folder[] = "/tmp/bt-pass-alloc-XXXXXX";

/* A request of which the first part has arrived when the pass begins. */
typedef struct half_request {
    const char *bytes;
    size_t len;
    size_t cut;
    size_t answer_len; /* without the name of who answers */
} half_request;

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void arm(int after)
{
    FILE *file = fopen(in_folder("alloc"), "w");
    assert_non_null(file);
    fprintf(file, "after %d\nfail ENOMEM\n", after);
    fclose(file);
}

/* True when an allocation was made to fail. */
static bool disarm(void)
{
    char name[64];
    unlink(in_folder("alloc"));
    snprintf(name, sizeof name, "alloc.taken.%d", (int) getpid());
    unlink(in_folder(name));
    snprintf(name, sizeof name, "alloc.acted.%d", (int) getpid());
    return unlink(in_folder(name)) == 0;
}

static bool is_owned(const pass_client *client)
{
    return client->conn->state == BT_CONN_OPEN || client->conn->state == BT_CONN_PASSED;
}

static void pass_all(pass_pair *pair, pass_client *clients)
{
    for (size_t i = 0; i < KINDS; i++) {
        clients[i].conn->refused = false;
        if (bt_conn_is_passable(clients[i].conn))
            bt_pass_out_add(&pair->link.out, clients[i].conn);
    }
    bt_pass_out_pump(&pair->link.out);
    PASS_UNTIL(pair, is_owned(&clients[0]) && is_owned(&clients[1]) && is_owned(&clients[2]));
}

static void finish_request(pass_pair *pair, pass_client *client, const half_request *request)
{
    bool is_passed = client->conn->state == BT_CONN_PASSED;
    pass_client_write(pair, client, request->bytes + request->cut, request->len - request->cut);
    const char *answer = pass_client_answer(pair, client);
    const char *name = is_passed ? pair->successor.name : pair->old.name;
    assert_int_equal(strncmp(answer, name, strlen(name)), 0);
    assert_int_equal(strlen(answer), strlen(name) + 1 + request->answer_len);
}

/* False when fewer allocations were needed. */
static bool pass_with_one_failure(pass_pair *pair, const half_request *requests, int after)
{
    pass_client clients[KINDS];
    for (size_t i = 0; i < KINDS; i++) {
        pass_client_open(pair, &clients[i]);
        pass_client_written(pair, &clients[i], requests[i].bytes, requests[i].cut);
    }
    arm(after);
    pass_all(pair, clients);
    bool has_failed = disarm();
    if (!pair->link.out.is_open || !pair->link.in.is_open)
        pass_link_renew(pair);
    pass_all(pair, clients);
    for (size_t i = 0; i < KINDS; i++) {
        assert_int_equal(clients[i].conn->state, BT_CONN_PASSED);
        finish_request(pair, &clients[i], &requests[i]);
        pass_client_close(&clients[i]);
    }
    PASS_UNTIL(pair, pair->successor.loop.conn_count == 0);
    return has_failed;
}

static void test_no_failed_allocation_loses_or_doubles_a_connection(void **state)
{
    pass_pair *pair = *state;
    int head = snprintf(large_request, HEAD_MAX, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n", BODY);
    memset(large_request + head, 'b', BODY);
    const half_request requests[KINDS] = {
        {idle_request, sizeof idle_request - 1, 0, 1},
        {chunked_request, sizeof chunked_request - 1, 70, sizeof "onetwo:" - 1},
        {large_request, (size_t) head + BODY, BODY - 5000, BODY + 1},
    };
    int failures = 0;
    while (failures < MOST_ALLOCATIONS && pass_with_one_failure(pair, requests, failures))
        failures++;
    assert_in_range(failures, 5, MOST_ALLOCATIONS - 1);
}

/* What could not be passed is served where it is, as if nobody had tried. */
static void test_refused_connection_is_served_where_it_is(void **state)
{
    pass_pair *pair = *state;
    const half_request request = {chunked_request, sizeof chunked_request - 1, 70, sizeof "onetwo:" - 1};
    for (int after = 0; after < MOST_ALLOCATIONS; after++) {
        pass_client client;
        pass_client_open(pair, &client);
        pass_client_written(pair, &client, request.bytes, request.cut);
        arm(after);
        pass_send(&pair->link, &client);
        PASS_UNTIL(pair, is_owned(&client));
        bool has_failed = disarm();
        if (!pair->link.out.is_open || !pair->link.in.is_open)
            pass_link_renew(pair);
        finish_request(pair, &client, &request);
        pass_client_close(&client);
        PASS_UNTIL(pair, pair->successor.loop.conn_count == 0);
        if (!has_failed)
            return;
    }
    fail_msg("there is no end to the allocations");
}

static int open_folder(void **state)
{
    (void) state;
    return mkdtemp(folder) == NULL ? -1 : setenv("BATON_FAILPOINTS", folder, 1);
}

static int close_folder(void **state)
{
    (void) state;
    return rmdir(folder);
}

#define PASS_TEST(test) cmocka_unit_test_setup_teardown(test, pass_pair_setup, pass_pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PASS_TEST(test_no_failed_allocation_loses_or_doubles_a_connection),
        PASS_TEST(test_refused_connection_is_served_where_it_is),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
