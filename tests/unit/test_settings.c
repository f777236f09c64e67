/* test_settings: values from text, their ranges, and what holds between them.
 * Reads no file of baton's own syntax: that is test_ini. */
#include <app/settings.h>
#include <app/suggest.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static bt_config *config;
static bt_worker_config *web;

static int set_up(void **state)
{
    (void) state;
    config = bt_config_new("/srv/app");
    web = config ? bt_config_add_worker(config, "web") : NULL;
    return web ? 0 : -1;
}

static int tear_down(void **state)
{
    (void) state;
    bt_config_free(config);
    return 0;
}

static void accept_value(const char *name, const char *value)
{
    char why[384] = "";
    if (bt_config_set_worker(config, web, name, value, why, sizeof(why)) != 0)
        fail_msg("%s", why);
}

static void refuse_value(const char *name, const char *value, const char *words)
{
    char why[384] = "";
    assert_int_equal(bt_config_set_worker(config, web, name, value, why, sizeof(why)), -EINVAL);
    assert_string_equal(why, words);
}

static void test_defaults_are_the_documented_ones(void **state)
{
    (void) state;
    assert_string_equal(config->master.pid_file, "/srv/app/run/baton.pid");
    assert_string_equal(config->master.run_dir, "/srv/app/run");
    assert_string_equal(config->master.log_level, "info");
    assert_null(config->master.log_file);
    assert_false(config->master.daemonize);
    assert_int_equal(config->master.stop_timeout_ms, 2000);
    assert_int_equal(config->master.kill_timeout_ms, 5000);
    assert_int_equal(config->master.on_master_exit, BT_ON_MASTER_EXIT_STOP);
    assert_int_equal(config->master.keep_generations, 3);
    assert_string_equal(web->name, "web");
    assert_null(web->listen);
    assert_int_equal(web->count, 1);
    assert_int_equal(web->backlog, 102400);
    assert_true(web->reloadable);
    assert_false(web->reuse_port);
    assert_int_equal(web->strategy, BT_STRATEGY_READY_FIRST);
    assert_int_equal(web->ready_timeout_ms, 10000);
    assert_int_equal(web->drain_timeout_ms, 30000);
    assert_int_equal(web->probation_ms, 5000);
    assert_int_equal(web->max_draining, 4);
    assert_int_equal(web->max_package, 10 << 20);
    assert_int_equal(web->max_send_buffer, 1 << 20);
    assert_int_equal(web->max_head, 16 << 10);
    assert_int_equal(web->max_target, 8 << 10);
    assert_int_equal(web->max_headers, 128);
    assert_int_equal(web->header_timeout_ms, 60000);
    assert_int_equal(web->idle_timeout_ms, 75000);
    assert_int_equal(web->linger_timeout_ms, 5000);
    assert_int_equal(web->keepalive_requests, 0);
    assert_null(web->probe);
    assert_int_equal(web->max_requests, 0);
    assert_int_equal(web->max_memory, 0);
    assert_int_equal(web->stuck_timeout_ms, 0);
}

static void test_every_setting_has_a_sentence(void **state)
{
    (void) state;
    const bt_setting *tables[] = {bt_master_settings, bt_worker_settings};
    for (size_t i = 0; i < 2; i++) {
        for (const bt_setting *setting = tables[i]; setting->name; setting++) {
            size_t len = strlen(setting->doc);
            assert_true(len > 10);
            assert_int_equal(setting->doc[len - 1], '.');
            assert_null(strchr(setting->doc, '|')); /* would end the cell of docs/settings.md */
        }
    }
}

static void test_times(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {{"10", 10000},   {"10s", 10000}, {"500ms", 500},    {"2m", 120000},
                 {"1h", 3600000}, {"0", 0},       {"24h", 86400000}, {"5M", 300000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        accept_value("drain_timeout", cases[i].text);
        assert_int_equal(web->drain_timeout_ms, cases[i].ms);
    }
    static const char *const wrong[] = {
        "-1",  "1.5s", "s",   "10 s", "1d", "25h", "86401", "99999999999999999999", "9223372036854775807h",
        "1s1", "+1",   "0x10"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        char words[200];
        snprintf(words, sizeof(words), "drain_timeout: \"%s\" is not a time (such as 500ms, 10s, 2m) from 0 to 24h",
                 wrong[i]);
        refuse_value("drain_timeout", wrong[i], words);
    }
    refuse_value("ready_timeout", "0", "ready_timeout: \"0\" is not a time (such as 500ms, 10s, 2m) from 1ms to 24h");
}

static void test_sizes(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {{"1", 1}, {"1024", 1024}, {"16k", 16384}, {"10m", 10485760}, {"1g", 1073741824}, {"3K", 3072}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        accept_value("max_package", cases[i].text);
        assert_int_equal(web->max_package, cases[i].bytes);
    }
    refuse_value("max_package", "0", "max_package: \"0\" is not a size (such as 512, 16k, 10m) from 1 to 1g");
    refuse_value("max_package", "2g", "max_package: \"2g\" is not a size (such as 512, 16k, 10m) from 1 to 1g");
    refuse_value("max_head", "1023", "max_head: \"1023\" is not a size (such as 512, 16k, 10m) from 1k to 1m");
    refuse_value("max_head", "16kb", "max_head: \"16kb\" is not a size (such as 512, 16k, 10m) from 1k to 1m");
    refuse_value("max_head", "18014398509482000k",
                 "max_head: \"18014398509482000k\" is not a size (such as 512, 16k, 10m) from 1k to 1m");
    assert_int_equal(web->max_head, 16384); /* a refused value leaves the old one */
}

static void test_numbers(void **state)
{
    (void) state;
    accept_value("count", "1");
    accept_value("count", "1024");
    assert_int_equal(web->count, 1024);
    refuse_value("count", "x", "count: \"x\" is not a number from 1 to 1024");
    refuse_value("count", "0", "count: \"0\" is not a number from 1 to 1024");
    refuse_value("count", "1025", "count: \"1025\" is not a number from 1 to 1024");
    refuse_value("count", "-1", "count: \"-1\" is not a number from 1 to 1024");
    refuse_value("count", "18446744073709551617", "count: \"18446744073709551617\" is not a number from 1 to 1024");
    refuse_value("count", "4k", "count: \"4k\" is not a number from 1 to 1024");
    refuse_value("count", "", "count: no value");
    refuse_value("backlog", "1048577", "backlog: \"1048577\" is not a number from 1 to 1048576");
}

static void test_words(void **state)
{
    (void) state;
    static const char *const yes[] = {"yes", "on", "true", "1", "Yes"};
    static const char *const no[] = {"no", "off", "false", "0", "NO"};
    for (size_t i = 0; i < 5; i++) {
        accept_value("reuse_port", yes[i]);
        assert_true(web->reuse_port);
        accept_value("reuse_port", no[i]);
        assert_false(web->reuse_port);
    }
    refuse_value("reuse_port", "maybe", "reuse_port: \"maybe\" is neither yes nor no");
    accept_value("strategy", "stop-first");
    assert_int_equal(web->strategy, BT_STRATEGY_STOP_FIRST);
    refuse_value("strategy", "stop", "strategy: \"stop\" is not one of: ready-first, stop-first");

    char why[384];
    assert_int_equal(bt_config_set_master(config, "log_level", "loud", why, sizeof(why)), -EINVAL);
    assert_string_equal(why, "log_level: \"loud\" is not one of: debug, info, warn, error");
}

static void test_paths_start_at_the_base_directory(void **state)
{
    (void) state;
    accept_value("module", "./hello.so");
    assert_string_equal(web->module, "/srv/app/hello.so");
    accept_value("module", "../lib/hello.so");
    assert_string_equal(web->module, "/srv/app/../lib/hello.so");
    accept_value("module", "/opt/hello.so");
    assert_string_equal(web->module, "/opt/hello.so");
    accept_value("module_files", " a.so\t./b.dat  /c ");
    assert_string_equal(web->module_files, "/srv/app/a.so /srv/app/b.dat /c");
    accept_value("listen", "http+unix://run/web.sock");
    assert_string_equal(web->listen, "http+unix://run/web.sock");
    assert_string_equal(web->address.path, "/srv/app/run/web.sock");
}

static void test_listen(void **state)
{
    (void) state;
    accept_value("listen", "http://127.0.0.1:8080");
    assert_string_equal(web->address.scheme, "http");
    assert_int_equal(web->address.port, 8080);
    char why[384];
    assert_int_equal(bt_config_set_worker(config, web, "listen", "http://127.0.0.1:70000", why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "listen: \"http://127.0.0.1:70000\": "));
    assert_non_null(strstr(why, "70000"));
}

static void test_unknown_settings_suggest_the_near_one(void **state)
{
    (void) state;
    refuse_value("cuont", "4", "cuont: unknown setting (did you mean \"count\"?)");
    refuse_value("reuseport", "yes", "reuseport: unknown setting (did you mean \"reuse_port\"?)");
    refuse_value("Module", "a.so", "Module: unknown setting (did you mean \"module\"?)");
    refuse_value("colour", "red", "colour: unknown setting");
    refuse_value("pid_file", "x", "pid_file: belongs into section [baton]");
    char why[384];
    assert_int_equal(bt_config_set_master(config, "count", "4", why, sizeof(why)), -EINVAL);
    assert_string_equal(why, "count: belongs into section [worker NAME]");
}

static void test_messages_stay_one_short_line(void **state)
{
    (void) state;
    char value[400];
    char why[384];
    memset(value, 'y', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    value[1] = '\n';
    assert_int_equal(bt_config_set_worker(config, web, "count", value, why, sizeof(why)), -EINVAL);
    assert_null(strchr(why, '\n'));
    assert_non_null(strstr(why, "...\" is not a number from 1 to 1024"));
    assert_int_equal(bt_config_set_worker(config, web, value, "1", why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "...: unknown setting"));
}

static void test_worker_names(void **state)
{
    (void) state;
    char why[200];
    char longest[65];
    memset(longest, 'a', sizeof(longest));
    longest[64] = '\0';
    assert_int_equal(bt_worker_name_check(longest, why, sizeof(why)), -EINVAL);
    longest[63] = '\0';
    assert_int_equal(bt_worker_name_check(longest, why, sizeof(why)), 0);
    static const char *const right[] = {"web", "a.b_c-D9", "...", ".a"};
    static const char *const wrong[] = {"", ".", "..", "a/b", "a b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++)
        assert_int_equal(bt_worker_name_check(right[i], why, sizeof(why)), 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_int_equal(bt_worker_name_check(wrong[i], why, sizeof(why)), -EINVAL);
}

static void test_edit_distance(void **state)
{
    (void) state;
    assert_int_equal(bt_edit_distance("", ""), 0);
    assert_int_equal(bt_edit_distance("", "abc"), 3);
    assert_int_equal(bt_edit_distance("abc", ""), 3);
    assert_int_equal(bt_edit_distance("start", "strat"), 1);
    assert_int_equal(bt_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(bt_edit_distance("COUNT", "count"), 0);
}

/* ---- between settings ---- */

static bool knows_http(const char *scheme)
{
    return strcmp(scheme, "http") == 0;
}

static bool knows_everything(const char *scheme)
{
    return *scheme != '\0';
}

static void expect_validation(bool need_module, const char *errors, const char *warnings)
{
    char *found = NULL;
    char *warned = NULL;
    int result = bt_config_validate(config, need_module, knows_http, &found, &warned);
    assert_int_equal(result, errors ? -EINVAL : 0);
    assert_string_equal(found ? found : "", errors ? errors : "");
    assert_string_equal(warned ? warned : "", warnings ? warnings : "");
    free(found);
    free(warned);
}

static void test_validate_accepts_a_whole_worker(void **state)
{
    (void) state;
    accept_value("listen", "http://127.0.0.1:8080");
    accept_value("module", "/proc/self/exe");
    expect_validation(true, NULL, NULL);
}

static void test_validate_modules(void **state)
{
    (void) state;
    expect_validation(false, NULL, NULL);
    expect_validation(true, "worker web: module: not set (the shared object with the worker's code)\n", NULL);
    accept_value("module", "/no/such.so");
    accept_value("module_files", "/no/a /proc");
    expect_validation(true,
                      "worker web: module: cannot read /no/such.so: No such file or directory\n"
                      "worker web: module_files: cannot read /no/a: No such file or directory\n"
                      "worker web: module_files: /proc is not a regular file\n",
                      NULL);
}

static void test_validate_addresses(void **state)
{
    (void) state;
    accept_value("listen", "gopher://127.0.0.1:70");
    expect_validation(false, "worker web: listen: \"gopher://127.0.0.1:70\": unknown protocol \"gopher\"\n", NULL);

    accept_value("listen", "http://127.0.0.1:70");
    web = bt_config_add_worker(config, "second");
    accept_value("listen", "http://127.0.0.1:70");
    expect_validation(false, "worker second: listen: \"http://127.0.0.1:70\": worker web listens there already\n",
                      NULL);
    accept_value("listen", "http://127.0.0.1:0");
    web = config->workers[0];
    accept_value("listen", "http://127.0.0.1:0"); /* the kernel gives each a port of its own */
    expect_validation(false, NULL, NULL);
}

static void test_validate_names(void **state)
{
    (void) state;
    assert_non_null(bt_config_add_worker(config, "web"));
    assert_non_null(bt_config_add_worker(config, ".."));
    expect_validation(false,
                      "worker web: name: used by two workers\n"
                      "worker ..: name: only letters, digits, '.', '_' and '-' are allowed, and not \".\" or \"..\"\n",
                      NULL);
}

static void test_validate_users(void **state)
{
    (void) state;
    const char *rootless = geteuid() == 0 ? "" : "worker web: user: only root can run processes as \"root\"\n";
    char words[300];
    accept_value("group", "root");
    expect_validation(false, "worker web: group: \"root\" needs user to be set too\n", NULL);
    accept_value("user", "root");
    expect_validation(false, *rootless ? rootless : NULL, NULL);
    accept_value("group", "no-such-group");
    snprintf(words, sizeof(words), "worker web: group: no group \"no-such-group\" on this system\n%s", rootless);
    expect_validation(false, words, NULL);
}

static void test_validate_limits(void **state)
{
    (void) state;
    accept_value("max_head", "2k");
    expect_validation(false, "worker web: max_target: 8192 is more than max_head, which is 2048\n", NULL);
    accept_value("max_target", "2k");
    expect_validation(false, NULL, NULL);
}

static void test_validate_warns_of_stop_first_alone(void **state)
{
    (void) state;
    accept_value("listen", "http://127.0.0.1:70");
    accept_value("strategy", "stop-first");
    expect_validation(false, NULL,
                      "worker web: strategy: stop-first with count 1 closes the connections at each reload\n");
    accept_value("count", "2");
    expect_validation(false, NULL, NULL);
}

static void test_validate_probe(void **state)
{
    (void) state;
    accept_value("probe", "health");
    expect_validation(false,
                      "worker web: probe: only for a worker that listens on http\n"
                      "worker web: probe: a path begins with \"/\"\n",
                      NULL);
    accept_value("listen", "text://127.0.0.1:70");
    accept_value("probe", "/health");
    char *errors = NULL;
    char *warnings = NULL;
    assert_int_equal(bt_config_validate(config, false, knows_everything, &errors, &warnings), -EINVAL);
    assert_string_equal(errors, "worker web: probe: only for a worker that listens on http\n");
    free(errors);

    accept_value("listen", "http://127.0.0.1:70");
    expect_validation(false, NULL, NULL);
    accept_value("probe", "/health?deep=1&x=%20");
    expect_validation(false, NULL, NULL);
    accept_value("probe", "/a b");
    expect_validation(false, "worker web: probe: byte 0x20 is not allowed in a path: write it as %20\n", NULL);
    accept_value("probe", "/a\r\nX: y");
    expect_validation(false, "worker web: probe: byte 0x0d is not allowed in a path: write it as %0D\n", NULL);
    accept_value("probe", "/caf\xc3\xa9");
    expect_validation(false, "worker web: probe: byte 0xc3 is not allowed in a path: write it as %C3\n", NULL);
    accept_value("probe", "/a#b");
    expect_validation(false, "worker web: probe: byte 0x23 is not allowed in a path: write it as %23\n", NULL);
    accept_value("max_target", "256");
    char path[300] = "/";
    memset(path + 1, 'x', 256);
    accept_value("probe", path);
    expect_validation(false, "worker web: probe: 257 bytes long, max_target is 256\n", NULL);
}

static void test_validate_warns_of_recycling_that_hurts(void **state)
{
    (void) state;
    accept_value("max_requests", "1000");
    expect_validation(false, NULL, "worker web: max_requests: has no effect without listen\n");
    accept_value("listen", "http://127.0.0.1:70");
    expect_validation(false, NULL, NULL);
    accept_value("strategy", "stop-first");
    expect_validation(
        false, NULL,
        "worker web: strategy: stop-first with count 1 closes the connections at each reload\n"
        "worker web: max_requests: with stop-first and count 1 each replacement closes the connections\n");
    accept_value("strategy", "ready-first");
    accept_value("max_memory", "1m");
    accept_value("stuck_timeout", "100ms");
    expect_validation(false, NULL,
                      "worker web: max_memory: less than any process needs: each is replaced as soon as it serves\n"
                      "worker web: stuck_timeout: under a second a busy machine is enough to have processes killed\n");
    accept_value("max_memory", "256m");
    accept_value("stuck_timeout", "10s");
    expect_validation(false, NULL, NULL);
}

static void test_validate_wants_a_worker(void **state)
{
    (void) state;
    char *errors = NULL;
    char *warnings = NULL;
    bt_config *empty = bt_config_new("/");
    assert_int_equal(bt_config_validate(empty, false, knows_http, &errors, &warnings), -EINVAL);
    assert_string_equal(errors, "no worker: the program has not called baton_worker_new()\n");
    free(errors);
    bt_config_free(empty);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_defaults_are_the_documented_ones),
        TEST(test_every_setting_has_a_sentence),
        TEST(test_times),
        TEST(test_sizes),
        TEST(test_numbers),
        TEST(test_words),
        TEST(test_paths_start_at_the_base_directory),
        TEST(test_listen),
        TEST(test_unknown_settings_suggest_the_near_one),
        TEST(test_messages_stay_one_short_line),
        TEST(test_worker_names),
        TEST(test_edit_distance),
        TEST(test_validate_accepts_a_whole_worker),
        TEST(test_validate_modules),
        TEST(test_validate_addresses),
        TEST(test_validate_names),
        TEST(test_validate_users),
        TEST(test_validate_limits),
        TEST(test_validate_warns_of_stop_first_alone),
        TEST(test_validate_probe),
        TEST(test_validate_warns_of_recycling_that_hurts),
        TEST(test_validate_wants_a_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
