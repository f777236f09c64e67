/* tests/fuzz/fuzz_pass_in.c: what an old process sends is taken as hostile from its first byte to the connection that
 * is made of it: no descriptor and no memory is left over, and nothing that was made is forgotten. First byte: how many
 * descriptors come with the message; which of them, counted from the second, are memfds is in the second byte's bits.
 * Then the message; a memfd holds the message's last bytes, as many as the third byte says. */
#include <assert.h>
#include <base/log.h>
#include <proc/channel.h>
#include <proc/pass_in.h>
#include <proto/protocol.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <baton/http.h>

#define MAX_FDS 8
#define HEAD    3

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bt_loop loop;
static bt_counters counters;
static bt_counter crew_connections;
static long kept; /* user pointers that nobody has let go of */
static bool has_ended;

static void on_request(baton_conn *conn, const baton_request *request)
{
    baton_str body = baton_request_body(request);
    (void) baton_reply_bytes(conn, 200, NULL, body.data, body.len);
}

/* Refuses now and then; what it keeps is what it was given. */
static int on_take(baton_conn *conn, uint32_t version, baton_str state)
{
    if (version == 1 || (state.len > 0 && state.data[0] == 'r'))
        return -1;
    char *copy = malloc(state.len + 1);
    assert(copy != NULL);
    if (state.len > 0)
        memcpy(copy, state.data, state.len);
    baton_conn_set_user(conn, copy);
    kept++;
    if (state.len > 1 && state.data[1] == 'c')
        baton_close(conn);
    return 0;
}

static void forget(baton_conn *conn)
{
    if (baton_conn_user(conn) == NULL)
        return;
    free(baton_conn_user(conn));
    baton_conn_set_user(conn, NULL);
    kept--;
}

static const baton_callbacks callbacks = {
    .on_request = on_request,
    .on_take = on_take,
    .on_passed = forget,
    .on_close = forget,
    .state_version = 3,
};

static bt_endpoint endpoint = {
    .callbacks = &callbacks,
    .counters = &counters,
    .crew_connections = &crew_connections,
    .crew_size = 1,
    .max_package = 1 << 20,
    .max_send_buffer = 1 << 20,
    .max_head = 16 << 10,
    .max_target = 8 << 10,
    .max_headers = 20,
    .header_timeout_ms = 60000,
    .idle_timeout_ms = 60000,
    .linger_timeout_ms = 1000,
};

static void on_closing(bt_pass_in *in)
{
    (void) in;
}

static void on_end(bt_pass_in *in)
{
    (void) in;
    has_ended = true;
}

static void destroy(baton_conn *conn, void *arg)
{
    (void) arg;
    bt_conn_destroy(conn, 0);
}

static int memfd_of(const uint8_t *bytes, size_t len)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    assert(fd >= 0 && write(fd, bytes, len) == (ssize_t) len);
    return fd;
}

/* Sends the message with its descriptors; `peers` gets the other ends of those that are connections, or -1. */
static void send_all(int fd, const uint8_t *data, size_t size, int peers[MAX_FDS])
{
    union {
        char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    size_t count = data[0] % (MAX_FDS + 1);
    size_t tail = data[2] < size - HEAD ? data[2] : size - HEAD;
    int fds[MAX_FDS];
    for (size_t i = 0; i < count; i++) {
        int pair[2] = {-1, -1};
        bool is_memfd = data[1] & (1u << i);
        if (!is_memfd)
            assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
        fds[i] = is_memfd ? memfd_of(data + size - tail, tail) : pair[0];
        peers[i] = pair[1];
    }
    struct iovec part = {.iov_base = (void *) (uintptr_t) (data + HEAD), .iov_len = size - HEAD};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
    }
    (void) sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT); /* too large for the socket: nothing arrives */
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

/* The lowest free number: the same before and after, or a descriptor was left. */
static int lowest_fd(void)
{
    int fd = dup(STDERR_FILENO);
    close(fd);
    return fd;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void) argc;
    (void) argv;
    bt_log_setup(-1, (bt_log_level) (BT_LOG_ERROR + 1), "fuzz"); /* refusals are all there is */
    endpoint.protocol = bt_protocol_find("http");
    return bt_loop_init(&loop, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= HEAD)
        return 0;
    bt_pass_in in = {.on_closing = on_closing, .on_end = on_end};
    int pair[2];
    int peers[MAX_FDS] = {-1, -1, -1, -1, -1, -1, -1, -1};
    int before = lowest_fd();
    has_ended = false;
    assert(bt_channel_pair(pair) == 0);
    assert(bt_pass_in_start(&in, &loop, &endpoint, pair[1]) == 0);
    send_all(pair[0], data, size, peers);
    for (int i = 0; i < 4; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    close(pair[0]);
    bt_pass_in_close(&in);
    bt_loop_each_conn(&loop, destroy, NULL);
    for (int i = 0; i < MAX_FDS; i++) {
        if (peers[i] >= 0)
            close(peers[i]);
    }
    while (uv_run(&loop.uv, UV_RUN_NOWAIT) != 0)
        ;
    assert(has_ended && kept == 0 && loop.conn_count == 0);
    assert(lowest_fd() == before);
    return 0;
}
