/* test_log: one event is one line, whatever its text holds.
 * Lines are read back from a pipe, so that one write can be told from two. */
#include <base/log.h>

#include <baton/log.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int log_pipe[2];

/* O_DIRECT makes a packet pipe: one read returns what one write has written. */
static int open_log(void **state)
{
    (void) state;
    if (pipe2(log_pipe, O_DIRECT | O_CLOEXEC | O_NONBLOCK) != 0)
        return -1;
    bt_log_setup(log_pipe[1], BT_LOG_DEBUG, "master");
    return 0;
}

static int close_log(void **state)
{
    (void) state;
    bt_log_set_fd(-1);
    close(log_pipe[0]);
    close(log_pipe[1]);
    return 0;
}

static const char *read_line(void)
{
    static char line[8192];
    ssize_t n = read(log_pipe[0], line, sizeof(line) - 1);
    line[n < 0 ? 0 : n] = '\0';
    return line;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int result = regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    if (result != 0)
        fail_msg("\"%s\" does not match %s", text, pattern);
}

static void test_line_has_time_level_role_pid_and_text(void **state)
{
    (void) state;
    bt_log(BT_LOG_INFO, "ready worker=%s slot=%d", "web", 0);
    assert_matches(read_line(), "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z "
                                "info  master\\[[0-9]+\\] ready worker=web slot=0\n$");
    bt_log(BT_LOG_ERROR, "lost");
    assert_matches(read_line(), "Z error master\\[[0-9]+\\] lost\n$");
}

static void test_forked_child_logs_its_own_pid(void **state)
{
    (void) state;
    bt_log(BT_LOG_INFO, "parent");
    read_line();
    pid_t child = fork();
    if (child == 0) {
        bt_log_set_role("web[0]");
        bt_log(BT_LOG_WARN, "child");
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    char expected[64];
    snprintf(expected, sizeof(expected), " warn  web[0][%d] child\n", (int) child);
    assert_non_null(strstr(read_line(), expected));
}

static void test_control_bytes_cannot_forge_a_line(void **state)
{
    (void) state;
    bt_log(BT_LOG_INFO, "path=%s", "/a\n2026 error\r\x1b[31m\x7f");
    assert_non_null(strstr(read_line(), " path=/a\\x0a2026 error\\x0d\\x1b[31m\\x7f\n"));
    bt_log(BT_LOG_INFO, "%s", "gr\xc3\xbc\xc3\x9f");
    assert_non_null(strstr(read_line(), " gr\xc3\xbc\xc3\x9f\n"));
}

static void test_long_line_is_cut_at_4_kib_in_one_write(void **state)
{
    (void) state;
    char text[10000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    bt_log(BT_LOG_INFO, "%s", text);
    const char *line = read_line();
    assert_int_equal(strlen(line), 4096);
    assert_int_equal(line[4095], '\n');
    assert_string_equal(read_line(), "");
}

static void test_cut_never_splits_an_escape(void **state)
{
    (void) state;
    char text[4096];
    memset(text, '\n', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (int shift = 0; shift < 4; shift++) {
        bt_log(BT_LOG_INFO, "%.*s%s", shift, "xxx", text);
        const char *line = read_line();
        assert_true(strlen(line) <= 4096);
        assert_string_equal(line + strlen(line) - 5, "\\x0a\n");
    }
}

static void test_levels_below_the_least_are_silent(void **state)
{
    (void) state;
    bt_log_setup(log_pipe[1], BT_LOG_WARN, "master");
    bt_log(BT_LOG_DEBUG, "no");
    bt_log(BT_LOG_INFO, "no");
    assert_string_equal(read_line(), "");
    bt_log(BT_LOG_WARN, "yes");
    assert_non_null(strstr(read_line(), "yes"));
}

static void test_long_role_is_cut(void **state)
{
    (void) state;
    char role[200];
    memset(role, 'r', sizeof(role) - 1);
    role[sizeof(role) - 1] = '\0';
    bt_log_set_role(role);
    bt_log(BT_LOG_INFO, "x");
    assert_matches(read_line(), " info  r{63}\\[[0-9]+\\] x\n$");
}

static void test_errno_survives_and_a_dead_descriptor_is_no_error(void **state)
{
    (void) state;
    bt_log_set_fd(9999);
    assert_int_equal(bt_log_fd(), 9999);
    errno = ENOENT;
    bt_log(BT_LOG_INFO, "nobody hears this");
    assert_int_equal(errno, ENOENT);
    bt_log_set_fd(-1);
    assert_int_equal(bt_log_fd(), STDERR_FILENO);
}

static void assert_quoted(size_t size, const char *value, const char *expected)
{
    char out[64];
    memset(out, '#', sizeof(out));
    assert_ptr_equal(bt_log_quote(out, size, value), out);
    assert_string_equal(out, expected);
    assert_int_equal(out[size], '#');
}

static void test_quote(void **state)
{
    (void) state;
    assert_quoted(32, "plain", "plain");
    assert_quoted(32, "", "\"\"");
    assert_quoted(32, "two words", "\"two words\"");
    assert_quoted(32, "a=b", "\"a=b\"");
    assert_quoted(32, "say \"x\\\"", "\"say \\\"x\\\\\\\"\"");
    assert_quoted(8, "two words", "\"two w\"");
    assert_quoted(6, "ab\"\"", "\"ab\""); /* the escaped quote would not fit whole */
    assert_quoted(4, "plain", "pla");
    assert_quoted(1, "plain", "");
}

static void test_level_names(void **state)
{
    (void) state;
    bt_log_level level = BT_LOG_DEBUG;
    assert_int_equal(bt_log_level_parse("warn", &level), 0);
    assert_int_equal(level, BT_LOG_WARN);
    assert_int_equal(bt_log_level_parse("error", &level), 0);
    assert_int_equal(level, BT_LOG_ERROR);
    assert_int_equal(bt_log_level_parse("loud", &level), -EINVAL);
    assert_int_equal(bt_log_level_parse("", &level), -EINVAL);
    assert_int_equal(level, BT_LOG_ERROR);
}

static void test_application_writes_to_the_same_log(void **state)
{
    (void) state;
    bt_log_set_role("web.1");
    errno = ENOENT;
    baton_log(BATON_LOG_WARN, "user=%s %m", "an\nna");
    assert_int_equal(errno, ENOENT);
    assert_matches(read_line(), "Z warn  web\\.1\\[[0-9]+\\] user=an\\\\x0ana No such file or directory\n$");
    bt_log_setup(log_pipe[1], BT_LOG_ERROR, "web.1");
    baton_log(BATON_LOG_WARN, "below the level");
    assert_string_equal(read_line(), "");
}

/* Zeroed at setup; no test has one of its own on the stack, which the log would remember. */
static bt_log_tail tail;

static int open_tail(void **state)
{
    memset(&tail, 0, sizeof tail);
    bt_log_keep_tail(&tail);
    int err = open_log(state);
    bt_log_setup(log_pipe[1], BT_LOG_ERROR, "web.0");
    return err;
}

static int close_tail(void **state)
{
    bt_log_keep_tail(NULL);
    return close_log(state);
}

static const char *last_lines(int max_lines, size_t size)
{
    static char text[4096];
    memset(text, '#', sizeof text);
    assert_ptr_equal(bt_log_tail_read(&tail, max_lines, text, size), text);
    assert_int_equal(text[size], '#');
    return text;
}

static void test_tail_keeps_the_last_lines_of_all_levels(void **state)
{
    (void) state;
    assert_string_equal(last_lines(3, 100), "");
    bt_log(BT_LOG_DEBUG, "one");
    bt_log(BT_LOG_INFO, "two");
    baton_log(BATON_LOG_INFO, "three");
    assert_string_equal(read_line(), "");
    assert_matches(last_lines(9, 1000), "^20[^\n]* debug web\\.0[^\n]* one\n20[^\n]* two\n20[^\n]* three\n$");
    assert_matches(last_lines(2, 1000), "^20[^\n]* two\n20[^\n]* three\n$");
    assert_string_equal(last_lines(0, 1000), "");
    bt_log_keep_tail(NULL);
    bt_log(BT_LOG_INFO, "four");
    assert_matches(last_lines(1, 1000), "^20[^\n]* three\n$");
}

static void test_tail_holds_whole_lines_at_every_turn_of_the_ring(void **state)
{
    (void) state;
    char pattern[128];
    for (int i = 0; i < 3000; i++) {
        bt_log(BT_LOG_INFO, "n=%d %.*s", i, i % 61, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        snprintf(pattern, sizeof pattern, "^(20[^\n]* n=[0-9]+ x*\n)*20[^\n]* n=%d x*\n$", i);
        const char *lines = last_lines(1000, BT_LOG_TAIL_BYTES + 1);
        assert_matches(lines, pattern);
        if (i > 60)
            assert_true(strlen(lines) > BT_LOG_TAIL_BYTES - 128);
    }
}

static void test_long_line_does_not_push_out_the_one_before(void **state)
{
    (void) state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 5; i++) {
        bt_log(BT_LOG_INFO, "the reason");
        bt_log(BT_LOG_INFO, "%s", text);
        assert_matches(last_lines(2, 2000), "^20[^\n]* the reason\n20[^\n]* x+\n$");
        assert_int_equal(strlen(last_lines(1, 2000)), BT_LOG_TAIL_LINE);
    }
}

static void test_only_what_fits_is_read_and_never_a_part(void **state)
{
    (void) state;
    bt_log(BT_LOG_INFO, "one");
    bt_log(BT_LOG_INFO, "two");
    size_t one_line = strlen(last_lines(1, 1000));
    assert_string_equal(last_lines(5, one_line), "");
    assert_matches(last_lines(5, one_line + 1), "^20[^\n]* two\n$");
    assert_matches(last_lines(5, 2 * one_line), "^20[^\n]* two\n$");
    assert_matches(last_lines(5, 2 * one_line + 1), "^20[^\n]* one\n20[^\n]* two\n$");
    last_lines(5, 0);
}

static void test_mad_memory_is_read_without_harm(void **state)
{
    (void) state;
    const uint64_t lengths[] = {0,          1,         BT_LOG_TAIL_BYTES - 1, BT_LOG_TAIL_BYTES, BT_LOG_TAIL_BYTES + 1,
                                1ULL << 63, UINT64_MAX};
    const char fillings[] = {'\0', '\n', 'x', '\x1b'};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t j = 0; j < sizeof fillings; j++) {
            memset(tail.bytes, fillings[j], sizeof tail.bytes);
            atomic_store(&tail.written, lengths[i]);
            assert_null(strpbrk(last_lines(10, 1000), "\x1bx"));
            last_lines(100000, BT_LOG_TAIL_BYTES + 1);
        }
    }
    memcpy(tail.bytes, "a\x1b[2J\0b\n", 8);
    atomic_store(&tail.written, 8);
    assert_string_equal(last_lines(10, 1000), "a?[2J?b\n");
}

#define TAIL_TEST(name) cmocka_unit_test_setup_teardown(name, open_tail, close_tail)
#define LOG_TEST(name)  cmocka_unit_test_setup_teardown(name, open_log, close_log)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_line_has_time_level_role_pid_and_text),
        LOG_TEST(test_forked_child_logs_its_own_pid),
        LOG_TEST(test_control_bytes_cannot_forge_a_line),
        LOG_TEST(test_long_line_is_cut_at_4_kib_in_one_write),
        LOG_TEST(test_cut_never_splits_an_escape),
        LOG_TEST(test_levels_below_the_least_are_silent),
        LOG_TEST(test_long_role_is_cut),
        LOG_TEST(test_errno_survives_and_a_dead_descriptor_is_no_error),
        LOG_TEST(test_application_writes_to_the_same_log),
        TAIL_TEST(test_tail_keeps_the_last_lines_of_all_levels),
        TAIL_TEST(test_tail_holds_whole_lines_at_every_turn_of_the_ring),
        TAIL_TEST(test_long_line_does_not_push_out_the_one_before),
        TAIL_TEST(test_only_what_fits_is_read_and_never_a_part),
        TAIL_TEST(test_mad_memory_is_read_without_harm),
        cmocka_unit_test(test_quote),
        cmocka_unit_test(test_level_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
