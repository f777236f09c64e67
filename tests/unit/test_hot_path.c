/* test_hot_path: what a keep-alive request costs. A child serves one connection, and the test, which is its client,
 * holds it at each system call: three a request (wait, read, write), whatever it asks, and no allocation. */
#include <net/conn.h>

#include <proto/protocol.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <baton/http.h>

#define WARM_UP  4 /* the first request allocates what the following ones use */
#define ROUNDS   200
#define PIPELINE 16
#define SECONDS  120 /* then the test is ended: something has never answered */

#define REQUEST "GET /some/path?with=a&query=too HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"
#define UPLOAD  "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n0123456789"

/* ---- allocations of the child ---- */

/* In memory that both processes see. */
static _Atomic uint64_t *allocations;

#if defined(__SANITIZE_ADDRESS__)
#define HAS_OWN_MALLOC 1
#elif defined(__has_feature)
#define HAS_OWN_MALLOC __has_feature(address_sanitizer)
#else
#define HAS_OWN_MALLOC 0
#endif

#if !HAS_OWN_MALLOC
#define EXPORTED __attribute__((visibility("default")))

void *__libc_malloc(size_t size);               /* NOLINT(bugprone-reserved-identifier) */
void *__libc_calloc(size_t count, size_t size); /* NOLINT(bugprone-reserved-identifier) */
void *__libc_realloc(void *old, size_t size);   /* NOLINT(bugprone-reserved-identifier) */

static void count(void)
{
    if (allocations != NULL)
        (*allocations)++;
}

EXPORTED void *malloc(size_t size)
{
    count();
    return __libc_malloc(size);
}

EXPORTED void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

EXPORTED void *realloc(void *old, size_t size)
{
    count();
    return __libc_realloc(old, size);
}
#endif

/* ---- the child ---- */

static void on_request(baton_conn *conn, const baton_request *request)
{
    baton_str body = baton_request_body(request);
    if (baton_reply_bytes(conn, 200, "text/plain", body.len == 0 ? "hello" : body.data, body.len == 0 ? 5 : body.len))
        abort();
}

/* Never returns. */
static void serve(int fd)
{
    static const baton_callbacks callbacks = {.on_request = on_request};
    static bt_counters counters;
    static bt_counter crew_connections;
    static bt_loop loop;
    const bt_endpoint endpoint = {
        .protocol = bt_protocol_find("http"),
        .callbacks = &callbacks,
        .counters = &counters,
        .crew_connections = &crew_connections,
        .crew_size = 1,
        .max_package = 1 << 20,
        .max_send_buffer = 1 << 20,
        .max_head = 16 << 10,
        .max_target = 8 << 10,
        .max_headers = 100,
        .header_timeout_ms = 60000,
        .idle_timeout_ms = 75000,
        .linger_timeout_ms = 1000,
    };
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    if (bt_loop_init(&loop, 1) < 0)
        abort();
    baton_conn *conn = bt_conn_create(&loop, &endpoint, fd, bt_conn_next_id(&loop));
    if (conn == NULL)
        abort();
    bt_conn_expire_in(conn, endpoint.header_timeout_ms);
    bt_conn_start(conn);
    uv_run(&loop.uv, UV_RUN_DEFAULT);
    _exit(0);
}

/* ---- the client, which holds the server ---- */

typedef struct cost {
    uint64_t waits; /* that something came of: a timer may end one at any time */
    uint64_t reads;
    uint64_t writes;
    uint64_t others;
    uint64_t last_other; /* its number */
} cost;

typedef struct held_server {
    pid_t pid;
    int fd;
} held_server;

static bool is_wait(uint64_t number)
{
#ifdef SYS_epoll_wait
    if (number == SYS_epoll_wait)
        return true;
#endif
    return number == SYS_epoll_pwait;
}

/* Lets it go on to the next entry into a system call or the next return from one. */
static struct __ptrace_syscall_info step(const held_server *server)
{
    struct __ptrace_syscall_info info = {0};
    int status;
    assert_int_equal(ptrace(PTRACE_SYSCALL, server->pid, NULL, NULL), 0);
    assert_int_equal(waitpid(server->pid, &status, 0), server->pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(WSTOPSIG(status), SIGTRAP | 0x80);
    assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, server->pid, sizeof info, &info) > 0);
    return info;
}

static void add(cost *to, uint64_t number)
{
    if (number == SYS_recvfrom)
        to->reads++;
    else if (number == SYS_sendto)
        to->writes++;
    else if (!is_wait(number)) {
        to->others++;
        to->last_other = number;
    }
}

/* The server is held where it begins to wait: until it is there again and has written `expected` answers. */
static cost ask(const held_server *server, const char *requests, size_t len, size_t expected)
{
    cost spent = {0};
    char bytes[8192];
    size_t got = 0;
    size_t answers = 0;
    uint64_t number = SYS_epoll_pwait;
    assert_int_equal(send(server->fd, requests, len, MSG_NOSIGNAL), len);
    while (answers < expected) {
        struct __ptrace_syscall_info info = step(server);
        if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
            spent.waits += is_wait(number) && info.exit.rval > 0;
            continue;
        }
        number = info.entry.nr;
        add(&spent, number);
        if (!is_wait(number))
            continue;
        ssize_t n = recv(server->fd, bytes + got, sizeof bytes - got, MSG_DONTWAIT);
        got += n > 0 ? (size_t) n : 0;
        answers = 0;
        for (const char *at = bytes; (at = memmem(at, got - (size_t) (at - bytes), "HTTP/1.1 200", 12)) != NULL; at++)
            answers++;
    }
    return spent;
}

static void start(held_server *server)
{
    int pair[2];
    int status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0)
        serve(pair[1]);
    close(pair[1]);
    server->fd = pair[0];
    assert_int_equal(waitpid(server->pid, &status, 0), server->pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, server->pid, NULL, (void *) (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)),
                     0);
    for (;;) {
        struct __ptrace_syscall_info info = step(server);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY && is_wait(info.entry.nr))
            return;
    }
}

static int set_up(void **state)
{
    static held_server server;
    allocations = mmap(NULL, sizeof *allocations, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (allocations == MAP_FAILED)
        return -1;
    alarm(SECONDS);
    start(&server);
    *state = &server;
    return 0;
}

static int tear_down(void **state)
{
    const held_server *server = *state;
    int status;
    void *shared = allocations;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, &status, 0);
    close(server->fd);
    alarm(0);
    allocations = NULL;
    return munmap(shared, sizeof *allocations);
}

/* `per_round` answers for three system calls, again and again. */
static void assert_three_calls(const held_server *server, const char *requests, size_t len, size_t per_round)
{
    for (int i = 0; i < WARM_UP; i++)
        ask(server, requests, len, per_round);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t before = *allocations;
        cost spent = ask(server, requests, len, per_round);
        if (spent.others > 0)
            fail_msg("request %d made the system call %llu", i, (unsigned long long) spent.last_other);
        assert_int_equal(spent.waits, 1);
        assert_int_equal(spent.reads, 1);
        assert_int_equal(spent.writes, 1);
        assert_int_equal(*allocations - before, 0);
    }
}

/* ---- promises ---- */

static void test_request_costs_three_system_calls_and_no_allocation(void **state)
{
    assert_three_calls(*state, REQUEST, sizeof REQUEST - 1, 1);
}

static void test_small_upload_costs_no_more(void **state)
{
    assert_three_calls(*state, UPLOAD, sizeof UPLOAD - 1, 1);
}

static void test_pipelined_requests_share_the_three_system_calls(void **state)
{
    char requests[PIPELINE * (sizeof REQUEST - 1)];
    for (int i = 0; i < PIPELINE; i++)
        memcpy(requests + (size_t) i * (sizeof REQUEST - 1), REQUEST, sizeof REQUEST - 1);
    assert_three_calls(*state, requests, sizeof requests, PIPELINE);
}

/* The counting itself: it must see an allocation. */
static void test_first_request_allocates(void **state)
{
    uint64_t before = *allocations;
    ask(*state, REQUEST, sizeof REQUEST - 1, 1);
    assert_int_equal(*allocations > before, !HAS_OWN_MALLOC);
}

#define HOT_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOT_TEST(test_first_request_allocates),
        HOT_TEST(test_request_costs_three_system_calls_and_no_allocation),
        HOT_TEST(test_small_upload_costs_no_more),
        HOT_TEST(test_pipelined_requests_share_the_three_system_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
