/* test_compare: every difference between two configurations is told, once, in the file's words; nothing else is.
 * Reads no file: values are set by name. */
#include <app/compare.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bt_config *before;
static bt_config *after;

static int set_up(void **state)
{
    (void) state;
    before = bt_config_new("/srv");
    after = bt_config_new("/srv");
    return before && after && bt_config_add_worker(before, "web") && bt_config_add_worker(after, "web") ? 0 : -1;
}

static int tear_down(void **state)
{
    (void) state;
    bt_config_free(before);
    bt_config_free(after);
    return 0;
}

static void set_master(bt_config *config, const char *name, const char *value)
{
    char why[384] = "";
    if (bt_config_set_master(config, name, value, why, sizeof(why)) != 0)
        fail_msg("%s", why);
}

static void set_worker(bt_config *config, const char *worker, const char *name, const char *value)
{
    char why[384] = "";
    if (bt_config_set_worker(config, bt_config_find_worker(config, worker), name, value, why, sizeof(why)) != 0)
        fail_msg("%s", why);
}

static void add_line(const bt_difference *found, void *arg)
{
    const char *worker = found->worker ? found->worker->name : "[baton]";
    switch (found->kind) {
    case BT_DIFFERENT_SETTING:
        bt_add_line(arg, "%s %s: %s -> %s%s", worker, found->setting->name, found->old_text, found->new_text,
                    found->setting->needs_restart ? " (restart)" : "");
        break;
    case BT_NEW_WORKER:
        bt_add_line(arg, "%s new", worker);
        break;
    case BT_REMOVED_WORKER:
        bt_add_line(arg, "%s removed", worker);
        break;
    }
}

static void expect_differences(size_t count, const char *lines)
{
    char *found = NULL;
    assert_int_equal(bt_compare_configs(before, after, add_line, &found), count);
    assert_string_equal(found ? found : "", lines);
    free(found);
}

static void test_equal_configurations_differ_in_nothing(void **state)
{
    (void) state;
    expect_differences(0, "");
    set_worker(before, "web", "max_package", "2m");
    set_worker(after, "web", "max_package", "2048k");
    set_worker(before, "web", "idle_timeout", "2m");
    set_worker(after, "web", "idle_timeout", "120");
    set_worker(before, "web", "module", "./a.so");
    set_worker(after, "web", "module", "/srv/a.so");
    expect_differences(0, "");
}

static void test_each_type_is_told_in_the_syntax_of_the_file(void **state)
{
    (void) state;
    set_worker(after, "web", "listen", "http://127.0.0.1:80");
    set_worker(after, "web", "count", "4");
    set_worker(before, "web", "module", "a.so");
    set_worker(after, "web", "module", "b.so");
    set_worker(before, "web", "user", "nobody");
    set_worker(after, "web", "reuse_port", "on");
    set_worker(after, "web", "strategy", "stop-first");
    set_worker(after, "web", "drain_timeout", "90s");
    set_worker(after, "web", "probation", "0");
    set_worker(after, "web", "max_head", "1500");
    set_worker(after, "web", "max_memory", "1g");
    expect_differences(10, "web listen: not set -> http://127.0.0.1:80\n"
                           "web count: 1 -> 4\n"
                           "web module: /srv/a.so -> /srv/b.so\n"
                           "web user: nobody -> not set\n"
                           "web reuse_port: no -> yes\n"
                           "web strategy: ready-first -> stop-first\n"
                           "web drain_timeout: 30s -> 90s\n"
                           "web probation: 5s -> 0\n"
                           "web max_head: 16k -> 1500\n"
                           "web max_memory: 0 -> 1g\n");
}

static void test_workers_come_and_go(void **state)
{
    (void) state;
    assert_non_null(bt_config_add_worker(before, "old"));
    assert_non_null(bt_config_add_worker(after, "api"));
    set_worker(after, "api", "count", "9");
    set_worker(after, "web", "count", "2");
    expect_differences(3, "web count: 1 -> 2\n"
                          "api new\n"
                          "old removed\n");
}

/* The order of sections means nothing. */
static void test_workers_are_compared_by_name(void **state)
{
    (void) state;
    bt_config *other = bt_config_new("/srv");
    assert_non_null(bt_config_add_worker(other, "api"));
    assert_non_null(bt_config_add_worker(other, "web"));
    assert_non_null(bt_config_add_worker(before, "api"));
    char *found = NULL;
    assert_int_equal(bt_compare_configs(before, other, add_line, &found), 0);
    assert_null(found);
    bt_config_free(other);
}

static void test_only_four_settings_wait_for_a_restart(void **state)
{
    (void) state;
    set_master(after, "pid_file", "run/b.pid");
    set_master(after, "run_dir", "run2");
    set_master(after, "log_file", "b.log");
    set_master(after, "log_level", "debug");
    set_master(after, "stdout_file", "out");
    set_master(after, "daemonize", "yes");
    set_master(after, "stop_timeout", "3");
    set_master(after, "kill_timeout", "1500ms");
    set_master(after, "on_master_exit", "serve");
    set_master(after, "keep_generations", "5");
    expect_differences(10, "[baton] pid_file: /srv/run/baton.pid -> /srv/run/b.pid (restart)\n"
                           "[baton] run_dir: /srv/run -> /srv/run2 (restart)\n"
                           "[baton] log_file: not set -> /srv/b.log\n"
                           "[baton] log_level: info -> debug\n"
                           "[baton] stdout_file: not set -> /srv/out (restart)\n"
                           "[baton] daemonize: no -> yes (restart)\n"
                           "[baton] stop_timeout: 2s -> 3s\n"
                           "[baton] kill_timeout: 5s -> 1500ms\n"
                           "[baton] on_master_exit: stop -> serve\n"
                           "[baton] keep_generations: 3 -> 5\n");
    for (const bt_setting *setting = bt_worker_settings; setting->name; setting++)
        assert_false(setting->needs_restart);
}

/* What the tables say a default is, is what a default is told as. */
static void test_texts_of_all_defaults(void **state)
{
    (void) state;
    char out[BT_SETTING_TEXT];
    for (const bt_setting *setting = bt_worker_settings; setting->name; setting++)
        assert_string_equal(bt_setting_text(setting, before->workers[0], out),
                            !setting->fallback                             ? "not set"
                            : strcmp(setting->name, "header_timeout") == 0 ? "1m"
                                                                           : setting->fallback);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_equal_configurations_differ_in_nothing),
        TEST(test_each_type_is_told_in_the_syntax_of_the_file),
        TEST(test_workers_come_and_go),
        TEST(test_workers_are_compared_by_name),
        TEST(test_only_four_settings_wait_for_a_restart),
        TEST(test_texts_of_all_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
