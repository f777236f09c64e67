/* test_crash: children that crash in every way, and the line they leave in their log and in shared memory. */
#include <proc/crash.h>

#include <errno.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static bt_log_tail *tail;
static char logged[4096];

static int make_tail(void **state)
{
    (void) state;
    tail = mmap(NULL, sizeof *tail, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return tail == MAP_FAILED ? -1 : 0;
}

static int drop_tail(void **state)
{
    (void) state;
    return munmap(tail, sizeof *tail);
}

/* The child's wait status; what it has logged is in `logged`. */
static int crash(void (*how)(void))
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        bt_log_setup(pipes[1], BT_LOG_INFO, "web.3");
        bt_log_keep_tail(tail);
        bt_crash_watch("web.3", tail);
        bt_log(BT_LOG_INFO, "before");
        how();
        _exit(0);
    }
    close(pipes[1]);
    size_t len = 0;
    ssize_t n;
    while ((n = read(pipes[0], logged + len, sizeof logged - 1 - len)) > 0)
        len += (size_t) n;
    logged[len] = '\0';
    close(pipes[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&regex, text, 0, NULL, 0) != 0)
        fail_msg("\"%s\" does not match %s", text, pattern);
    regfree(&regex);
}

#define TIME "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z"

static void assert_crashed(int status, int number, const char *rest)
{
    char pattern[256];
    char lines[BT_LOG_TAIL_BYTES + 1];
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), number);
    snprintf(pattern, sizeof pattern, "\n" TIME " error web\\.3\\[[0-9]+\\] crashed signal=%d %s\n$", number, rest);
    assert_matches(logged, pattern);
    assert_matches(bt_log_tail_read(tail, 3, lines, sizeof lines), pattern);
    assert_non_null(strstr(lines, "before"));
    /* The handler makes the date itself. */
    assert_memory_equal(logged, strchr(logged, '\n') + 1, strlen("2026-11-21T21:"));
}

static volatile uintptr_t low_address = 0x18; /* not NULL, which sanitizers stop before */

static void bad_write(void)
{
    *(volatile char *) low_address = 1;
}

static void test_fault_names_place_and_address(void **state)
{
    (void) state;
    assert_crashed(crash(bad_write), SIGSEGV, "at=test_crash\\+0x[0-9a-f]+ address=0x18");
}

static void bad_raise(void)
{
    raise(SIGFPE);
}

static void test_signals_of_raise_end_the_process(void **state)
{
    (void) state;
    assert_crashed(crash(bad_raise), SIGFPE, "at=libc[^ ]*\\+0x[0-9a-f]+");
}

static void test_abort(void **state)
{
    (void) state;
    assert_crashed(crash(abort), SIGABRT, "at=libc[^ ]*\\+0x[0-9a-f]+");
}

static void illegal(void)
{
#if defined(__x86_64__)
    __asm__ volatile("ud2");
#else
    __builtin_trap();
#endif
}

static void test_illegal_instruction(void **state)
{
    (void) state;
    assert_crashed(crash(illegal), SIGILL, "at=test_crash\\+0x[0-9a-f]+ address=0x[0-9a-f]+");
}

static void past_the_end_of_a_file(void)
{
    FILE *file = tmpfile();
    volatile char *bytes = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(file), 0);
    (void) bytes[0];
}

static void test_truncated_mapping(void **state)
{
    (void) state;
    assert_crashed(crash(past_the_end_of_a_file), SIGBUS, "at=test_crash\\+0x[0-9a-f]+ address=0x[0-9a-f]+");
}

static int deeper(volatile char *above, int n)
{
    volatile char here[1024];
    here[0] = above[0];
    return n < 0 ? here[0] : deeper(here, n + 1) + here[0];
}

static void overflow_the_stack(void)
{
    struct rlimit small = {256 * 1024, 256 * 1024};
    volatile char first[1] = {1};
    setrlimit(RLIMIT_STACK, &small);
    exit(deeper(first, 0));
}

static void test_overflowing_stack_is_told_from_another_one(void **state)
{
    (void) state;
    assert_crashed(crash(overflow_the_stack), SIGSEGV, "at=[^ ]+\\+0x[0-9a-f]+ address=0x[0-9a-f]+");
}

static void test_signal_from_outside_names_the_sender(void **state)
{
    (void) state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        bt_log_setup(pipes[1], BT_LOG_INFO, "web.3");
        bt_crash_watch("web.3", NULL);
        kill(getpid(), SIGSTOP);
        _exit(0);
    }
    close(pipes[1]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    kill(pid, SIGSEGV);
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    ssize_t n = read(pipes[0], logged, sizeof logged - 1);
    assert_true(n > 0);
    logged[n] = '\0';
    char pattern[64];
    snprintf(pattern, sizeof pattern, "signal=11 at=[^ ]+ sent_by=%d\n$", (int) getpid());
    assert_matches(logged, pattern);
    close(pipes[0]);
}

static void child_of_the_child(void)
{
    pid_t pid = fork();
    if (pid == 0)
        bad_write();
    waitpid(pid, NULL, 0);
}

static void test_child_of_the_application_does_not_write_into_the_tail(void **state)
{
    (void) state;
    char lines[BT_LOG_TAIL_BYTES + 1];
    int status = crash(child_of_the_child);
    assert_true(WIFEXITED(status));
    assert_non_null(strstr(logged, "crashed"));
    assert_null(strstr(bt_log_tail_read(tail, 3, lines, sizeof lines), "crashed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fault_names_place_and_address, make_tail, drop_tail),
        cmocka_unit_test_setup_teardown(test_signals_of_raise_end_the_process, make_tail, drop_tail),
        cmocka_unit_test_setup_teardown(test_abort, make_tail, drop_tail),
        cmocka_unit_test_setup_teardown(test_illegal_instruction, make_tail, drop_tail),
        cmocka_unit_test_setup_teardown(test_truncated_mapping, make_tail, drop_tail),
        cmocka_unit_test_setup_teardown(test_overflowing_stack_is_told_from_another_one, make_tail, drop_tail),
        cmocka_unit_test_setup_teardown(test_signal_from_outside_names_the_sender, make_tail, drop_tail),
        cmocka_unit_test_setup_teardown(test_child_of_the_application_does_not_write_into_the_tail, make_tail,
                                        drop_tail),
    };
    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
