/* tests/unit/pass_pair.c: the processes, channels and clients of the pass tests.
 * Must not know what any test expects of them. */
#include "pass_pair.h"

#include <arpa/inet.h>
#include <base/log.h>
#include <dirent.h>
#include <fcntl.h>
#include <proto/protocol.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <baton/http.h>

/* ---- sides ---- */

pass_side *pass_side_of(baton_conn *conn)
{
    return bt_container(conn->loop, pass_side, loop);
}

static void on_connect(baton_conn *conn)
{
    pass_side_of(conn)->connects++;
}

static void on_close(baton_conn *conn)
{
    pass_side_of(conn)->closes++;
}

static void answer_large(baton_conn *conn)
{
    char *bytes = malloc(LARGE);
    assert_non_null(bytes);
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (char) ('a' + i % 26);
    assert_int_equal(baton_reply_bytes(conn, 200, NULL, bytes, LARGE), 0);
    free(bytes);
}

static void on_request(baton_conn *conn, const baton_request *request)
{
    pass_side *side = pass_side_of(conn);
    side->answered++;
    if (strncmp(baton_request_path(request).data, "/large", 6) == 0) {
        answer_large(conn);
        return;
    }
    baton_str body = baton_request_body(request);
    baton_str trailer = baton_request_trailer(request, "X-End");
    bt_buf text = {0};
    assert_int_equal(bt_buf_printf(&text, "%s:", side->name), 0);
    assert_int_equal(bt_buf_append(&text, body.data, body.len), 0);
    assert_int_equal(bt_buf_printf(&text, ":%.*s", BATON_ARG(trailer)), 0);
    assert_int_equal(baton_reply_bytes(conn, 200, "text/plain", bt_buf_head(&text), bt_buf_len(&text)), 0);
    bt_buf_free(&text);
}

static void side_open(pass_side *side, const char *name, uint64_t number)
{
    assert_int_equal(bt_loop_init(&side->loop, number), 0);
    side->name = name;
    side->callbacks = (baton_callbacks){.on_connect = on_connect, .on_request = on_request, .on_close = on_close};
    side->endpoint = (bt_endpoint){
        .protocol = bt_protocol_find("http"),
        .callbacks = &side->callbacks,
        .counters = &side->counters,
        .crew_connections = &side->crew_connections,
        .crew_size = 1,
        .max_package = 16 << 20,
        .max_send_buffer = 16 << 20,
        .max_head = 16 << 10,
        .max_target = 8 << 10,
        .max_headers = 100,
        .header_timeout_ms = 60000,
        .idle_timeout_ms = 70000,
        .linger_timeout_ms = 1000,
    };
}

static void destroy(baton_conn *conn, void *arg)
{
    (void) arg;
    bt_conn_destroy(conn, 0);
}

static void side_close(pass_side *side)
{
    bt_loop_each_conn(&side->loop, destroy, NULL);
    bt_loop_close(&side->loop);
}

void pass_turn_side(pass_side *side)
{
    if (!side->is_dead)
        uv_run(&side->loop.uv, UV_RUN_NOWAIT);
}

void pass_turn(pass_pair *pair)
{
    pass_turn_side(&pair->old);
    pass_turn_side(&pair->successor);
    pass_turn_side(&pair->later);
    if (pair->extra != NULL)
        uv_run(&pair->extra->uv, UV_RUN_NOWAIT);
}

baton_conn *pass_find(pass_side *side, uint64_t id)
{
    bt_list_each (node, &side->loop.conns) {
        baton_conn *conn = bt_container(node, baton_conn, node);
        if (conn->id == id)
            return conn;
    }
    return NULL;
}

int pass_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    int count = 0;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

/* ---- links ---- */

static void on_hello(bt_pass_out *out)
{
    out->loop->app_travels =
        bt_app_travels(&bt_container(out->loop, pass_side, loop)->callbacks, &out->hello); /* as a process does */
}

static void on_settled(bt_pass_out *out)
{
    if (out->is_ending)
        bt_pass_out_close(out); /* as a process does */
}

static void on_refused(bt_pass_out *out, baton_conn *conn, bt_verdict verdict)
{
    (void) conn;
    pass_link *link = out->owner;
    link->refused++;
    link->verdict = verdict;
}

static void out_closing(bt_pass_out *out)
{
    (void) out;
}

static void out_end(bt_pass_out *out)
{
    pass_link *link = out->owner;
    link->ended++;
}

static void in_closing(bt_pass_in *in)
{
    (void) in;
}

static void in_end(bt_pass_in *in)
{
    pass_link *link = in->owner;
    link->ended++;
}

void pass_link_open_in(pass_link *link, pass_side *to, int fd)
{
    link->in = (bt_pass_in){.owner = link, .on_closing = in_closing, .on_end = in_end};
    assert_int_equal(bt_pass_in_start(&link->in, &to->loop, &to->endpoint, fd), 0);
}

void pass_link_open(pass_link *link, pass_side *from, pass_side *to)
{
    int pair[2];
    *link = (pass_link){.out = {.owner = link,
                                .on_hello = on_hello,
                                .on_settled = on_settled,
                                .on_refused = on_refused,
                                .on_closing = out_closing,
                                .on_end = out_end}};
    assert_int_equal(bt_channel_pair(pair), 0);
    assert_int_equal(bt_pass_out_start(&link->out, &from->loop, pair[0]), 0);
    pass_link_open_in(link, to, pair[1]);
    while (!link->out.has_hello)
        pass_turn_side(from);
}

static void link_close(pass_link *link)
{
    bt_pass_out_close(&link->out);
    bt_pass_in_close(&link->in);
}

void pass_link_renew(pass_pair *pair)
{
    link_close(&pair->link);
    PASS_UNTIL(pair, pair->link.ended == 2);
    pass_link_open(&pair->link, &pair->old, &pair->successor);
}

/* Closes what the number stood for and keeps the number taken, so that the handles on it can be closed later. */
static void kill_fd(int fd)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(nothing >= 0);
    assert_int_equal(dup3(nothing, fd, O_CLOEXEC), fd);
    close(nothing);
}

static void kill_conns(bt_list *list)
{
    bt_list_each (node, list)
        kill_fd(bt_container(node, baton_conn, node)->fd);
}

void pass_kill_old(pass_pair *pair)
{
    bt_pass_out *out = &pair->link.out;
    pair->old.is_dead = true;
    kill_conns(&pair->old.loop.conns);
    kill_conns(&out->waiting);
    kill_conns(&out->large);
    kill_conns(&out->sent);
    kill_fd(out->fd);
}

void pass_kill_successor(pass_pair *pair)
{
    bt_pass_in *in = &pair->link.in;
    pair->successor.is_dead = true;
    kill_conns(&pair->successor.loop.conns);
    kill_conns(&in->taken);
    kill_fd(in->fd);
}

void pass_send(pass_link *link, pass_client *client)
{
    assert_true(bt_conn_is_passable(client->conn));
    bt_pass_out_add(&link->out, client->conn);
    bt_pass_out_pump(&link->out);
}

void pass_over(pass_pair *pair, pass_link *link, pass_client *client)
{
    pass_send(link, client);
    PASS_UNTIL(pair, client->conn->state == BT_CONN_PASSED);
}

/* ---- setup ---- */

/* libuv's first loop opens descriptors for the whole process that it never closes. */
static void warm_up(void)
{
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int pass_pair_setup(void **state)
{
    bt_log_setup(-1, BT_LOG_ERROR, "test"); /* refusals are what is tested: their warnings would only be noise */
    warm_up();
    pass_pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL)
        return -1;
    pair->descriptors = pass_descriptors();
    side_open(&pair->old, "old", 1);
    side_open(&pair->successor, "new", 2);
    side_open(&pair->later, "later", 3);
    pass_link_open(&pair->link, &pair->old, &pair->successor);
    *state = pair;
    return 0;
}

int pass_pair_teardown(void **state)
{
    pass_pair *pair = *state;
    link_close(&pair->link);
    link_close(&pair->next);
    side_close(&pair->old);
    side_close(&pair->successor);
    side_close(&pair->later);
    int left = pass_descriptors() - pair->descriptors;
    free(pair);
    if (left != 0)
        print_error("%d descriptors are left\n", left);
    return left;
}

/* ---- clients ---- */

void pass_client_open_in(bt_loop *loop, const bt_endpoint *endpoint, pass_client *client)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    *client = (pass_client){.fd = fds[0], .served_fd = fds[1]};
    client->conn = bt_conn_create(loop, endpoint, fds[1], bt_conn_next_id(loop));
    assert_non_null(client->conn);
    client->id = client->conn->id;
    baton_conn_ref(client->conn);
    bt_conn_expire_in(client->conn, endpoint->header_timeout_ms);
    bt_conn_start(client->conn);
}

void pass_client_open(pass_pair *pair, pass_client *client)
{
    pass_client_open_in(&pair->old.loop, &pair->old.endpoint, client);
}

void pass_client_close(pass_client *client)
{
    baton_conn_unref(client->conn);
    close(client->fd);
    bt_buf_free(&client->received);
    bt_buf_free(&client->body);
}

pass_client *pass_open_many(pass_pair *pair, size_t count)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    pass_client *clients = calloc(count, sizeof *clients);
    assert_non_null(clients);
    for (size_t i = 0; i < count; i++)
        pass_client_open(pair, &clients[i]);
    return clients;
}

void pass_close_many(pass_client *clients, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pass_client_close(&clients[i]);
    free(clients);
}

pass_client *pass_add_many(pass_pair *pair, size_t count)
{
    pass_client *clients = pass_open_many(pair, count);
    for (size_t i = 0; i < count; i++)
        bt_pass_out_add(&pair->link.out, clients[i].conn);
    bt_pass_out_pump(&pair->link.out);
    return clients;
}

void pass_add_output(pass_client *client)
{
    bt_buf *out = &client->conn->out;
    assert_int_equal(bt_buf_reserve(out, BT_PASS_MAX_BYTES), 0);
    memset(bt_buf_tail(out), 'x', BT_PASS_MAX_BYTES);
    out->end += BT_PASS_MAX_BYTES;
}

void pass_client_write(pass_pair *pair, pass_client *client, const void *data, size_t len)
{
    const char *at = data;
    uint64_t end = bt_clock_ms() + DEADLINE_MS;
    while (len > 0) {
        ssize_t n = send(client->fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            assert_true(bt_clock_ms() < end);
            pass_turn(pair);
            continue;
        }
        at += n;
        len -= (size_t) n;
    }
}

void pass_client_written(pass_pair *pair, pass_client *client, const void *data, size_t len)
{
    uint64_t before = client->conn->bytes_read;
    pass_client_write(pair, client, data, len);
    PASS_UNTIL(pair, client->conn->bytes_read == before + len);
}

/* Length of the whole answer at the front of `received`, 0 while it is not whole; `*head_len` of its head. */
static size_t whole_answer(const bt_buf *received, size_t *head_len)
{
    static const char field[] = "\r\nContent-Length: ";
    const char *head = bt_buf_head(received);
    size_t len = bt_buf_len(received);
    const char *end = len == 0 ? NULL : memmem(head, len, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    *head_len = (size_t) (end - head) + 4;
    const char *length = memmem(head, *head_len, field, sizeof field - 1);
    size_t whole = *head_len + (length == NULL ? 0 : strtoull(length + sizeof field - 1, NULL, 10));
    return len < whole ? 0 : whole;
}

static void receive(pass_client *client)
{
    char bytes[65536];
    ssize_t n = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0)
        assert_int_equal(bt_buf_append(&client->received, bytes, (size_t) n), 0);
    else if (n == 0 || errno != EAGAIN)
        fail_msg("the connection has ended where an answer was due, after %zu bytes", bt_buf_len(&client->received));
}

const char *pass_client_answer(pass_pair *pair, pass_client *client)
{
    size_t head_len;
    size_t whole;
    uint64_t end = bt_clock_ms() + DEADLINE_MS;
    while ((whole = whole_answer(&client->received, &head_len)) == 0) {
        if (bt_clock_ms() > end)
            fail_msg("no answer in time, after %zu bytes", bt_buf_len(&client->received));
        pass_turn(pair);
        receive(client);
    }
    bt_buf_clear(&client->body);
    assert_int_equal(bt_buf_append(&client->body, bt_buf_head(&client->received) + head_len, whole - head_len), 0);
    assert_int_equal(bt_buf_append(&client->body, "", 1), 0);
    bt_buf_consume(&client->received, whole);
    return bt_buf_head(&client->body);
}

const char *pass_ask(pass_pair *pair, pass_client *client)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    pass_client_write(pair, client, request, sizeof request - 1);
    return pass_client_answer(pair, client);
}

bool pass_client_has_ended(const pass_client *client)
{
    char byte;
    ssize_t n = recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

bool pass_client_is_quiet(const pass_client *client)
{
    char byte;
    return recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN &&
           bt_buf_len(&client->received) == 0;
}
