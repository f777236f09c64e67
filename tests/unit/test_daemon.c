/* test_daemon: the process that the shell waits for says what the daemon said, and the daemon is one.
 * Each test forks a "shell command" whose output is caught in files. */
#include <proc/daemon.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static int from_daemon[2];

static int set_up(void **state)
{
    (void) state;
    snprintf(dir, sizeof(dir), "/tmp/bt-daemon-XXXXXX");
    return mkdtemp(dir) && pipe2(from_daemon, O_CLOEXEC) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void) state;
    close(from_daemon[0]);
    close(from_daemon[1]);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static const char *content(const char *name)
{
    static char text[65536];
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void redirect(int fd, const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0 || dup2(file, fd) < 0)
        _exit(99);
    close(file);
}

/* Runs `daemon` in a daemonised process; returns the exit code that the shell sees. */
static int run(void (*daemon)(int fd))
{
    pid_t command = fork();
    if (command == 0) {
        redirect(STDOUT_FILENO, "out");
        redirect(STDERR_FILENO, "err");
        int fd = bt_daemonize();
        if (fd < 0)
            _exit(98);
        daemon(fd);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(command, &status, 0), command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* What the daemon tells the test, besides its report. */
typedef struct daemon_facts {
    pid_t pid;
    pid_t session;
    pid_t group;
    bool stdin_is_null;
    bool report_is_cloexec;
} daemon_facts;

static void report_success(int fd)
{
    struct stat null;
    struct stat in;
    daemon_facts facts = {
        .pid = getpid(),
        .session = getsid(0),
        .group = getpgrp(),
        .stdin_is_null = stat("/dev/null", &null) == 0 && fstat(0, &in) == 0 && in.st_rdev == null.st_rdev,
        .report_is_cloexec = (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0,
    };
    if (write(from_daemon[1], &facts, sizeof(facts)) != sizeof(facts))
        _exit(1);
    bt_daemon_report(fd, 0, "baton: started\n");
}

static void test_success_is_printed_to_stdout(void **state)
{
    (void) state;
    assert_int_equal(run(report_success), 0);
    assert_string_equal(content("out"), "baton: started\n");
    assert_string_equal(content("err"), "");
    daemon_facts facts;
    assert_int_equal(read(from_daemon[0], &facts, sizeof(facts)), sizeof(facts));
    assert_true(facts.stdin_is_null);
    assert_true(facts.report_is_cloexec);
    assert_int_not_equal(facts.session, getsid(0));
    /* Not the leader of its session: it can never acquire a terminal. */
    assert_int_not_equal(facts.session, facts.pid);
    assert_int_equal(facts.group, facts.session);
}

static void report_failure(int fd)
{
    fputs("early words\n", stderr); /* stderr is still the shell's */
    fflush(stderr);
    bt_daemon_report(fd, 2, "baton: port 80 is taken\n");
}

static void test_failure_is_printed_to_stderr_with_its_code(void **state)
{
    (void) state;
    assert_int_equal(run(report_failure), 2);
    assert_string_equal(content("out"), "");
    assert_string_equal(content("err"), "early words\nbaton: port 80 is taken\n");
}

static void die_early(int fd)
{
    (void) fd;
    _exit(0);
}

static void test_daemon_that_dies_before_its_report_is_a_failure(void **state)
{
    (void) state;
    assert_int_equal(run(die_early), 1);
    assert_string_equal(content("err"), "baton: the daemon ended before it was ready\n");
}

static void report_at_length(int fd)
{
    char text[50001];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    bt_daemon_report(fd, 3, text);
}

static void test_long_report_arrives_whole(void **state)
{
    (void) state;
    assert_int_equal(run(report_at_length), 3);
    assert_int_equal(strlen(content("err")), 50000);
}

static void report_and_go_on(int fd)
{
    bt_daemon_report(fd, 0, "");
    /* Lives until the test closes its end: the shell's command has ended long before. */
    close(from_daemon[1]);
    char byte;
    (void) !read(from_daemon[0], &byte, 1);
}

static void test_command_does_not_wait_for_the_daemon_to_end(void **state)
{
    (void) state;
    assert_int_equal(run(report_and_go_on), 0);
    assert_string_equal(content("out"), "");
    assert_int_equal(write(from_daemon[1], "x", 1), 1);
}

static void test_report_to_a_killed_command_is_harmless(void **state)
{
    (void) state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    close(ends[0]);
    bt_daemon_report(ends[1], 0, "nobody reads this");
    assert_int_equal(fcntl(ends[1], F_GETFD), -1);
}

static void test_redirected_output_is_appended(void **state)
{
    (void) state;
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        if (child == 0) {
            char path[128];
            snprintf(path, sizeof(path), "%s/log/deep/stdout", dir);
            fputs("before;", stdout); /* buffered: belongs to the old stdout */
            redirect(STDOUT_FILENO, "out");
            if (bt_redirect_output(path) != 0)
                _exit(1);
            fputs("out;", stdout);
            fflush(stdout);
            fputs("err;", stderr);
            bool inherited = (fcntl(1, F_GETFD) & FD_CLOEXEC) == 0 && (fcntl(2, F_GETFD) & FD_CLOEXEC) == 0;
            _exit(inherited ? 0 : 2);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    assert_string_equal(content("log/deep/stdout"), "out;err;out;err;");
    assert_string_equal(content("out"), "before;before;");
}

static void test_output_can_go_nowhere_and_a_bad_path_is_an_error(void **state)
{
    (void) state;
    pid_t child = fork();
    if (child == 0) {
        redirect(STDOUT_FILENO, "out");
        redirect(STDERR_FILENO, "err");
        if (bt_redirect_output("/proc/no/file") != -ENOENT || bt_redirect_output(dir) != -EISDIR)
            _exit(1);
        if (bt_redirect_output(NULL) != 0)
            _exit(2);
        fputs("lost", stderr);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_string_equal(content("err"), "");
}

#define DAEMON_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DAEMON_TEST(test_success_is_printed_to_stdout),
        DAEMON_TEST(test_failure_is_printed_to_stderr_with_its_code),
        DAEMON_TEST(test_daemon_that_dies_before_its_report_is_a_failure),
        DAEMON_TEST(test_long_report_arrives_whole),
        DAEMON_TEST(test_command_does_not_wait_for_the_daemon_to_end),
        DAEMON_TEST(test_report_to_a_killed_command_is_harmless),
        DAEMON_TEST(test_redirected_output_is_appended),
        DAEMON_TEST(test_output_can_go_nowhere_and_a_bad_path_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
