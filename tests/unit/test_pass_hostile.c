/* tests/unit/test_pass_hostile.c: whatever is sent over a pass channel, nothing of it is believed unchecked: no
 * connection gets two owners, and no descriptor stays. */
#include "pass_pair.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

static const char get_request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
static const char chunked_request[] =
    "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";

typedef struct raw_message {
    char bytes[2 * BT_PASS_MAX_BYTES];
    size_t len;
    int fds[BT_PASS_MAX_FDS];
    size_t fd_count;
} raw_message;

static void raw_receive(int fd, raw_message *message)
{
    union {
        char bytes[CMSG_SPACE(BT_PASS_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = message->bytes, .iov_len = sizeof message->bytes};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    assert_true(n > 0);
    message->len = (size_t) n;
    const struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
    assert_non_null(cmsg);
    message->fd_count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(message->fds, CMSG_DATA(cmsg), message->fd_count * sizeof(int));
}

/* Closes the descriptors: in flight they live on. */
static void raw_send(int fd, raw_message *message)
{
    union {
        char bytes[CMSG_SPACE(BT_PASS_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    size_t size = message->fd_count * sizeof(int);
    struct iovec part = {.iov_base = message->bytes, .iov_len = message->len};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (message->fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(cmsg), message->fds, size);
    }
    assert_int_equal(sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT), message->len);
    for (size_t i = 0; i < message->fd_count; i++)
        close(message->fds[i]);
}

#define HEADER(field) offsetof(bt_pass_header, field)
#define RECORD(field) (sizeof(bt_pass_header) + offsetof(bt_pass_record, field))

/* What is done to the message of one connection, 10 bytes of whose request have been read. */
static const struct {
    const char *what;
    size_t len; /* cut or grown to this; 0: as it is */
    size_t at;
    int width; /* `value` is written over this many bytes at `at` */
    uint64_t value;
} changes[] = {
    {"cut in its header", 8, 0, 0, 0},
    {"cut behind its header", sizeof(bt_pass_header), 0, 0, 0},
    {"cut in its record", RECORD(unsent_len), 0, 0, 0},
    {"cut in its payload", RECORD(unsent_len) + 8 + 9, 0, 0, 0},
    {"one byte too long", RECORD(unsent_len) + 8 + 12, 0, 0, 0},
    {"larger than any", BT_PASS_MAX_BYTES + 1, RECORD(unsent_len), 8, BT_PASS_MAX_BYTES - 130},
    {"other magic", 0, HEADER(magic), 4, 1},
    {"newer version", 0, HEADER(version), 2, BT_PASS_VERSION_MAX + 1},
    {"verdicts", 0, HEADER(type), 2, BT_PASS_VERDICTS},
    {"one connection too many", 0, HEADER(count), 4, 2},
    {"no connection", 0, HEADER(count), 4, 0},
    {"more connections than a message has", 0, HEADER(count), 4, BT_PASS_MAX_CONNS + 1},
    {"huge state", 0, RECORD(state_len), 8, UINT64_MAX},
    {"huge unread", 0, RECORD(unread_len), 8, 1ull << 32},
    {"sum that overflows", 0, RECORD(unsent_len), 8, UINT64_MAX - 5},
    {"neither in nor out of a memfd", 0, RECORD(in_memfd), 2, 2},
    {"state of no application", 0, RECORD(app_len), 8, 1},
};

static void change(raw_message *message, size_t row)
{
    size_t payload = message->len;
    if (changes[row].len != 0) {
        if (changes[row].len > payload)
            memset(message->bytes + payload, 'x', changes[row].len - payload);
        message->len = changes[row].len;
    }
    memcpy(message->bytes + changes[row].at, &changes[row].value, (size_t) changes[row].width);
}

static void test_malformed_message_ends_the_channel_and_the_old_side_serves_on(void **state)
{
    pass_pair *pair = *state;
    static raw_message message;
    for (size_t row = 0; row < sizeof changes / sizeof *changes; row++) {
        pass_client client;
        pass_client_open(pair, &client);
        pass_client_written(pair, &client, get_request, 10);
        pass_link_open(&pair->next, &pair->old, &pair->successor);
        int descriptors = pass_descriptors();
        pass_send(&pair->next, &client);
        raw_receive(pair->next.in.fd, &message);
        change(&message, row);
        raw_send(pair->next.out.fd, &message);
        PASS_UNTIL(pair, pair->next.ended == 2);

        if (pair->next.refused != 1 || pair->successor.loop.conn_count != 0 || pass_descriptors() != descriptors - 2)
            fail_msg("%s: refused %d, taken %zu, descriptors %d for %d", changes[row].what, pair->next.refused,
                     pair->successor.loop.conn_count, pass_descriptors(), descriptors - 2);
        pass_client_write(pair, &client, get_request + 10, sizeof get_request - 11);
        assert_string_equal(pass_client_answer(pair, &client), "old::");
        pass_client_close(&client);
        PASS_UNTIL(pair, pair->old.loop.conn_count == 0);
    }
}

static void test_message_whose_second_record_is_malformed_gives_nothing(void **state)
{
    enum { COUNT = 2 };
    pass_pair *pair = *state;
    static raw_message message;
    pass_client *clients = pass_add_many(pair, COUNT);
    raw_receive(pair->link.in.fd, &message);
    assert_int_equal(message.fd_count, COUNT);
    uint16_t neither = 2;
    memcpy(message.bytes + sizeof(bt_pass_record) + RECORD(in_memfd), &neither, sizeof neither);
    raw_send(pair->link.out.fd, &message);
    PASS_UNTIL(pair, pair->link.ended == 2);
    assert_int_equal(pair->successor.loop.conn_count, 0);
    assert_int_equal(pass_count(&pair->successor.counters.connections), 0);
    assert_int_equal(pair->successor.closes, 0);
    for (size_t i = 0; i < COUNT; i++)
        assert_string_equal(pass_ask(pair, &clients[i]), "old::");
    pass_close_many(clients, COUNT);
}

/* One connection that cannot be taken does not harm the others: it has a verdict of its own. */
static void test_hostile_state_of_one_connection_is_refused_alone(void **state)
{
    pass_pair *pair = *state;
    static raw_message message;
    pass_client bad;
    pass_client good;
    pass_client_open(pair, &bad);
    pass_client_open(pair, &good);
    pass_client_written(pair, &bad, chunked_request, sizeof chunked_request - 4);
    bt_pass_out_add(&pair->link.out, bad.conn);
    pass_send(&pair->link, &good);
    raw_receive(pair->link.in.fd, &message);
    message.bytes[sizeof(bt_pass_header) + sizeof(bt_pass_record) + 1] = 99; /* version of the parser's state */
    raw_send(pair->link.out.fd, &message);
    PASS_UNTIL(pair, bt_pass_out_is_settled(&pair->link.out));
    assert_int_equal(pair->link.refused, 1);
    assert_int_equal(pair->link.verdict, BT_VERDICT_MALFORMED);
    assert_true(pair->link.in.is_open);
    pass_client_write(pair, &bad, chunked_request + sizeof chunked_request - 4, 3);
    assert_string_equal(pass_client_answer(pair, &bad), "old:one:");
    assert_string_equal(pass_ask(pair, &good), "new::");
    pass_client_close(&bad);
    pass_client_close(&good);
}

/* Puts another file in the place of the memfd that came with the message. */
static void replace_memfd(raw_message *message, int other)
{
    assert_int_equal(message->fd_count, 2);
    assert_true(other >= 0);
    close(message->fds[1]);
    message->fds[1] = other;
}

static int grown_memfd(const raw_message *message)
{
    struct stat info;
    assert_int_equal(fstat(message->fds[1], &info), 0);
    int fd = memfd_create("grown", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, info.st_size + 1), 0);
    return fd;
}

static void test_memfd_that_is_not_what_was_said_is_refused(void **state)
{
    pass_pair *pair = *state;
    static raw_message message;
    for (int round = 0; round < 3; round++) {
        pass_client client;
        pass_client_open(pair, &client);
        pass_add_output(&client);
        pair->link.refused = 0;
        pass_send(&pair->link, &client);
        raw_receive(pair->link.in.fd, &message);
        int others[] = {memfd_create("empty", MFD_CLOEXEC), grown_memfd(&message),
                        open("/dev/zero", O_RDONLY | O_CLOEXEC)};
        for (int i = 0; i < 3; i++) {
            if (i == round)
                replace_memfd(&message, others[i]);
            else
                close(others[i]);
        }
        raw_send(pair->link.out.fd, &message);
        PASS_UNTIL(pair, pair->link.refused == 1);
        assert_int_equal(pair->link.verdict, BT_VERDICT_MALFORMED);
        assert_int_equal(pair->successor.loop.conn_count, 0);
        bt_conn_destroy(client.conn, 0);
        pass_client_close(&client);
    }
}

static void test_surplus_descriptors_are_closed(void **state)
{
    pass_pair *pair = *state;
    static raw_message message;
    pass_client client;
    pass_client_open(pair, &client);
    pass_send(&pair->link, &client);
    raw_receive(pair->link.in.fd, &message);
    for (int i = 0; i < 20; i++)
        message.fds[message.fd_count++] = dup(STDERR_FILENO);
    raw_send(pair->link.out.fd, &message);
    assert_string_equal(pass_ask(pair, &client), "new::"); /* the teardown counts */
    pass_client_close(&client);
}

static void test_nonsense_for_a_verdict_leaves_what_was_sent_to_the_successor(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    pass_client_open(pair, &client);
    pass_send(&pair->link, &client);
    assert_int_equal(send(pair->link.in.fd, "nonsense", 8, MSG_NOSIGNAL), 8);
    PASS_UNTIL(pair, !pair->link.out.is_open);
    assert_int_equal(client.conn->state, BT_CONN_PASSED);
    assert_string_equal(pass_ask(pair, &client), "new::");
    pass_client_close(&client);
}

static void test_verdict_on_an_unknown_connection_is_ignored(void **state)
{
    pass_pair *pair = *state;
    pass_client client;
    bt_buf verdicts = {0};
    pass_client_open(pair, &client);
    assert_int_equal(bt_pass_begin(&verdicts, BT_PASS_VERDICTS, 1), 0);
    assert_int_equal(bt_pass_add_verdict(&verdicts, client.id, BT_VERDICT_TAKEN), 0);
    bt_pass_count(&verdicts, 1);
    assert_int_equal(send(pair->link.in.fd, bt_buf_head(&verdicts), bt_buf_len(&verdicts), MSG_NOSIGNAL),
                     bt_buf_len(&verdicts));
    assert_string_equal(pass_ask(pair, &client), "old::"); /* never offered, so it cannot have been taken */
    pass_over(pair, &pair->link, &client);
    assert_string_equal(pass_ask(pair, &client), "new::");
    bt_buf_free(&verdicts);
    pass_client_close(&client);
}

#define PASS_TEST(test) cmocka_unit_test_setup_teardown(test, pass_pair_setup, pass_pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PASS_TEST(test_malformed_message_ends_the_channel_and_the_old_side_serves_on),
        PASS_TEST(test_message_whose_second_record_is_malformed_gives_nothing),
        PASS_TEST(test_hostile_state_of_one_connection_is_refused_alone),
        PASS_TEST(test_memfd_that_is_not_what_was_said_is_refused),
        PASS_TEST(test_surplus_descriptors_are_closed),
        PASS_TEST(test_nonsense_for_a_verdict_leaves_what_was_sent_to_the_successor),
        PASS_TEST(test_verdict_on_an_unknown_connection_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
