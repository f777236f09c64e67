/* test_module: what can be wrong with a module is said in one line, and nothing of it is called.
 * The modules are those of tests/modules; each is loaded in a child, as a serving process would. */
#include <app/module.h>

#include <baton/version.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct loaded {
    int err;
    char why[512];
    baton_callbacks callbacks; /* the child's addresses: only compared with NULL */
} loaded;

enum { DEADLINE_MS = 20000 };

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s.so", TEST_MODULES_DIR, name);
    return path;
}

/* Loads `path` in a child and, if `start`, calls its on_worker_start. Returns waitpid's status, or -1 when the
 * child hangs (it is killed then). */
static int load_in_child(const char *path, bool start, loaded *out)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        loaded result = {0};
        memset(&result.callbacks, 0xff, sizeof(result.callbacks));
        result.err = bt_module_load(path, &result.callbacks, result.why, sizeof(result.why));
        if (write(ends[1], &result, sizeof(result)) != sizeof(result))
            _exit(99);
        if (start)
            _exit(result.callbacks.on_worker_start(NULL));
        _exit(0);
    }
    close(ends[1]);
    memset(out, 0, sizeof(*out));
    struct pollfd end = {.fd = ends[0], .events = POLLIN};
    assert_int_equal(poll(&end, 1, DEADLINE_MS), 1);
    bool reported = read(ends[0], out, sizeof(*out)) == sizeof(*out);
    close(ends[0]);
    int status = -1;
    if (start && reported && strstr(path, "hangs")) {
        assert_int_equal(waitpid(child, &status, WNOHANG), 0);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        return -1;
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void assert_refused(const char *name, int err, const char *why)
{
    loaded result;
    assert_int_equal(load_in_child(path_of(name), false, &result), 0);
    assert_int_equal(result.err, err);
    assert_string_equal(result.why, why);
    static const baton_callbacks none;
    assert_memory_equal(&result.callbacks, &none, sizeof(none));
}

static void test_good_module_gives_its_callbacks_and_no_other(void **state)
{
    (void) state;
    loaded result;
    assert_int_equal(load_in_child(path_of("good"), true, &result), 0);
    assert_int_equal(result.err, 0);
    assert_string_equal(result.why, "");
    assert_non_null(result.callbacks.on_worker_start);
    assert_non_null(result.callbacks.on_request);
    assert_null(result.callbacks.on_connect);
    assert_null(result.callbacks.on_buffer_drain);
}

static void test_wrong_abi(void **state)
{
    (void) state;
    assert_refused("wrong_abi", -EPROTO, "wrong_abi.so: built for ABI 2, this baton has ABI 1: rebuild the module");
}

static void test_missing_descriptor(void **state)
{
    (void) state;
    assert_refused("no_descriptor", -ENOENT, "no_descriptor.so: no symbol baton_module: is BATON_MODULE(...) missing?");
}

static void test_symbol_that_is_no_descriptor(void **state)
{
    (void) state;
    assert_refused("odd_descriptor", -EINVAL, "odd_descriptor.so: its baton_module was not made by BATON_MODULE(...)");
}

static void test_undefined_symbol(void **state)
{
    (void) state;
    assert_refused("undefined_symbol", -ENOEXEC, "undefined_symbol.so: undefined symbol: no_such_function");
}

static void test_second_libbaton(void **state)
{
    (void) state;
    assert_refused("second_libbaton", -EPROTO, "second_libbaton.so: brings a second libbaton: link it without -lbaton");
}

static void test_file_that_the_loader_refuses(void **state)
{
    (void) state;
    assert_refused("none", -ENOEXEC, "none.so: cannot open shared object file: No such file or directory");
    loaded result;
    assert_int_equal(load_in_child("/dev/null", false, &result), 0);
    assert_int_equal(result.err, -ENOEXEC);
    assert_string_equal(result.why, "null: file too short");
}

static void test_name_without_directory_is_not_searched_for(void **state)
{
    (void) state;
    loaded result;
    assert_int_equal(load_in_child("libc.so.6", false, &result), 0);
    assert_int_equal(result.err, -EINVAL);
    assert_string_equal(result.why, "libc.so.6: its path has no directory");
}

static void test_older_descriptor_is_read_up_to_its_size(void **state)
{
    (void) state;
    loaded result;
    assert_int_equal(load_in_child(path_of("older"), true, &result), 0);
    assert_int_equal(result.err, 0);
    assert_non_null(result.callbacks.on_worker_start);
    assert_non_null(result.callbacks.on_worker_stop);
    assert_null(result.callbacks.on_worker_reload);
    assert_null(result.callbacks.on_connect);
    assert_null(result.callbacks.on_buffer_drain);
}

static void test_newer_descriptor_is_taken_unless_it_uses_what_is_new(void **state)
{
    (void) state;
    loaded result;
    assert_int_equal(load_in_child(path_of("newer_unused"), true, &result), 0);
    assert_int_equal(result.err, 0);
    assert_non_null(result.callbacks.on_worker_start);
    assert_refused("newer", -EPROTO,
                   "newer.so: uses callbacks that this baton (" BATON_VERSION ") does not know: upgrade baton");
}

static void test_on_worker_start_that_refuses_crashes_or_hangs_does_so(void **state)
{
    (void) state;
    loaded result;
    int status = load_in_child(path_of("refuses_start"), true, &result);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    status = load_in_child(path_of("crashes_in_start"), true, &result);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_int_equal(load_in_child(path_of("hangs_in_start"), true, &result), -1);
    assert_int_equal(result.err, 0);
}

static void test_crashing_constructor_kills_the_process_that_loads(void **state)
{
    (void) state;
    loaded result;
    int status = load_in_child(path_of("crashes_on_load"), false, &result);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void test_words_never_leave_their_buffer(void **state)
{
    (void) state;
    baton_callbacks callbacks;
    char why[32];
    memset(why, '#', sizeof(why));
    assert_int_equal(bt_module_load("/no/such/module.so", &callbacks, why, 10), -ENOEXEC);
    assert_string_equal(why, "module.so");
    assert_int_equal(why[10], '#');
}

static void test_version(void **state)
{
    (void) state;
    assert_string_equal(baton_version(), BATON_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_module_gives_its_callbacks_and_no_other),
        cmocka_unit_test(test_wrong_abi),
        cmocka_unit_test(test_missing_descriptor),
        cmocka_unit_test(test_symbol_that_is_no_descriptor),
        cmocka_unit_test(test_undefined_symbol),
        cmocka_unit_test(test_second_libbaton),
        cmocka_unit_test(test_file_that_the_loader_refuses),
        cmocka_unit_test(test_name_without_directory_is_not_searched_for),
        cmocka_unit_test(test_older_descriptor_is_read_up_to_its_size),
        cmocka_unit_test(test_newer_descriptor_is_taken_unless_it_uses_what_is_new),
        cmocka_unit_test(test_on_worker_start_that_refuses_crashes_or_hangs_does_so),
        cmocka_unit_test(test_crashing_constructor_kills_the_process_that_loads),
        cmocka_unit_test(test_words_never_leave_their_buffer),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
