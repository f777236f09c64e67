/* test_failpoint: a test arms a point by a file, and exactly one process does what it says.
 * Only part of builds with fail-points. */
#include <base/failpoint.h>
#include <base/log.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/bt-failpoint-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void arm(const char *name, const char *order)
{
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    fputs(order, file);
    fclose(file);
}

static bool exists(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

static bool has_acted(const char *name, pid_t pid)
{
    char file[64];
    snprintf(file, sizeof file, "%s.acted.%d", name, (int) pid);
    return exists(file);
}

/* Passes the point in a child, which ends with 0 when it lives on. */
static pid_t pass_in_child(const char *name)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(bt_failpoint(name) == 0 ? 0 : 3);
    assert_true(pid > 0);
    return pid;
}

static int status_of(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_unarmed_point_is_passed(void **state)
{
    (void) state;
    errno = EDOM;
    assert_int_equal(bt_failpoint("quiet"), 0);
    assert_int_equal(errno, EDOM);
}

static void test_fail_returns_the_error_once(void **state)
{
    (void) state;
    arm("send", "fail EPIPE\n");
    errno = EDOM;
    assert_int_equal(bt_failpoint("other"), 0);
    assert_int_equal(bt_failpoint("send"), -EPIPE);
    assert_int_equal(errno, EDOM);
    assert_int_equal(bt_failpoint("send"), 0);
    assert_false(exists("send"));
    assert_true(has_acted("send", getpid()));
}

static void test_fail_counts_and_waits(void **state)
{
    (void) state;
    arm("recv", "after 2\nfail 5 3");
    const int expected[] = {0, 0, -5, -5, -5, 0, 0};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(bt_failpoint("recv"), expected[i]);
    arm("recv", "fail ENOMEM");
    assert_int_equal(bt_failpoint("recv"), -ENOMEM);
}

static void test_withdrawn_order_is_not_carried_out(void **state)
{
    (void) state;
    char taken[64];
    arm("late", "after 5\nfail EIO");
    assert_int_equal(bt_failpoint("late"), 0);
    snprintf(taken, sizeof taken, "late.taken.%d", (int) getpid());
    assert_int_equal(unlink(in_folder(taken)), 0);
    arm("late", "fail EPIPE");
    assert_int_equal(bt_failpoint("late"), -EPIPE);
}

static void test_every_nth_pass_fails_while_the_file_is_there(void **state)
{
    (void) state;
    arm("alloc", "every 3\nfail ENOMEM");
    for (int i = 1; i <= 9; i++)
        assert_int_equal(bt_failpoint("alloc"), i % 3 == 0 ? -ENOMEM : 0);
    assert_true(exists("alloc"));
    assert_true(has_acted("alloc", getpid()));
    unlink(in_folder("alloc"));
    for (int i = 0; i < 9; i++)
        assert_int_equal(bt_failpoint("alloc"), 0);
}

static void test_only_the_process_that_is_meant_takes_it(void **state)
{
    (void) state;
    bt_log_set_role("web.0");
    arm("role", "role web.1\nfail EIO");
    assert_int_equal(bt_failpoint("role"), 0);
    bt_log_set_role("web.1");
    assert_int_equal(bt_failpoint("role"), -EIO);

    char order[64];
    snprintf(order, sizeof order, "pid %d\nfail EIO", (int) getpid());
    arm("pid", order);
    assert_int_equal(status_of(pass_in_child("pid")), 0);
    assert_int_equal(bt_failpoint("pid"), -EIO);
}

static void test_child_does_not_inherit_what_its_parent_took(void **state)
{
    (void) state;
    arm("fork", "fail EIO 2");
    assert_int_equal(bt_failpoint("fork"), -EIO);
    assert_int_equal(status_of(pass_in_child("fork")), 0);
    assert_int_equal(bt_failpoint("fork"), -EIO);
}

static void test_exactly_one_process_dies(void **state)
{
    (void) state;
    pid_t pids[8];
    int killed = 0;
    arm("once", "kill");
    for (size_t i = 0; i < 8; i++)
        pids[i] = pass_in_child("once");
    for (size_t i = 0; i < 8; i++) {
        int status = status_of(pids[i]);
        assert_true(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        assert_int_equal(has_acted("once", pids[i]), status != 0);
        killed += status != 0;
    }
    assert_int_equal(killed, 1);
}

static void test_abort_and_exit(void **state)
{
    (void) state;
    arm("end", "abort");
    int status = status_of(pass_in_child("end"));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    arm("end", "exit 17");
    status = status_of(pass_in_child("end"));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 17);
    arm("end", "pause 1");
    assert_int_equal(status_of(pass_in_child("end")), 0);
}

static void test_stopped_process_goes_on(void **state)
{
    (void) state;
    arm("stop", "stop");
    pid_t pid = pass_in_child("stop");
    int status = 0;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    kill(pid, SIGCONT);
    assert_int_equal(status_of(pid), 0);
}

static void test_pass_log_has_one_line_an_event(void **state)
{
    (void) state;
    char expected[128];
    char text[128];
    setenv("BATON_PASS_LOG", in_folder("pass.log"), 1);
    bt_pass_log(4294967297ULL, "accepted");
    bt_pass_log(4294967297ULL, "passed");
    int len = snprintf(expected, sizeof expected, "%d 4294967297 accepted\n%d 4294967297 passed\n", (int) getpid(),
                       (int) getpid());
    int fd = open(in_folder("pass.log"), O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text), len);
    close(fd);
    assert_memory_equal(text, expected, (size_t) len);
}

static void test_process_without_a_free_descriptor_hears_and_tells(void **state)
{
    (void) state;
    struct rlimit before;
    setenv("BATON_PASS_LOG", in_folder("full.log"), 1);
    arm("full", "fail EIO");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    int kept = dup(STDIN_FILENO);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int result = bt_failpoint("full");
    bt_pass_log(7, "closed");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(dup2(kept, STDIN_FILENO), STDIN_FILENO);
    close(kept);
    assert_int_equal(result, -EIO);
    assert_true(exists("full.log"));
}

static int open_folder(void **state)
{
    (void) state;
    return mkdtemp(folder) == NULL ? -1 : setenv("BATON_FAILPOINTS", folder, 1);
}

static int close_folder(void **state)
{
    (void) state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unarmed_point_is_passed),
        cmocka_unit_test(test_fail_returns_the_error_once),
        cmocka_unit_test(test_fail_counts_and_waits),
        cmocka_unit_test(test_withdrawn_order_is_not_carried_out),
        cmocka_unit_test(test_every_nth_pass_fails_while_the_file_is_there),
        cmocka_unit_test(test_only_the_process_that_is_meant_takes_it),
        cmocka_unit_test(test_child_does_not_inherit_what_its_parent_took),
        cmocka_unit_test(test_exactly_one_process_dies),
        cmocka_unit_test(test_abort_and_exit),
        cmocka_unit_test(test_stopped_process_goes_on),
        cmocka_unit_test(test_pass_log_has_one_line_an_event),
        cmocka_unit_test(test_process_without_a_free_descriptor_hears_and_tells),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
