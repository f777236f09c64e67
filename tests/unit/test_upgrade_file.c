/* tests/unit/test_upgrade_file.c: what one master leaves to the next: the file, whose it is, what is refused in it, and
 * configurations that come out as they went in. What is done with it is tested end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <app/compare.h>
#include <app/config_json.h>
#include <app/settings.h>
#include <fcntl.h>
#include <jansson.h>
#include <proc/json_text.h>
#include <proc/master_parts.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const bt_service hooks = {.config_from_json = bt_config_from_json, .free_config = bt_config_free};

static bt_config *small_config(void)
{
    char why[256];
    bt_config *config = bt_config_new("/srv");
    bt_worker_config *worker = bt_config_add_worker(config, "web");
    assert_non_null(worker);
    assert_int_equal(bt_config_set_worker(config, worker, "listen", "http://127.0.0.1:8080", why, sizeof why), 0);
    return config;
}

static json_t *good_handover(void)
{
    bt_config *config = small_config();
    json_t *object =
        json_pack("{s:i, s:i, s:I, s:I, s:o, s:{}, s:{}, s:{}, s:[{s:o}], s:[], s:[], s:[], s:[]}", "format",
                  BT_HANDOVER_FORMAT, "channel_version", BT_CHANNEL_VERSION, "row_size", (json_int_t) sizeof(bt_row),
                  "row_count", (json_int_t) BT_ROWS, "config", bt_config_to_json(config), "times", "fds", "roll",
                  "generations", "config", bt_config_to_json(config), "crews", "listen_sets", "children", "clients");
    assert_non_null(object);
    bt_config_free(config);
    return object;
}

/* Takes `handover`. */
static void is_refused(json_t *handover, const char *words)
{
    char why[512] = "";
    assert_true(bt_handover_check(handover, &hooks, why, sizeof why) < 0);
    if (strstr(why, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why, words);
    json_decref(handover);
}

/* ---- the file ---- */

static void test_what_is_written_is_read_and_cannot_be_changed(void **state)
{
    (void) state;
    char why[256];
    json_t *handover = good_handover();
    int fd = bt_handover_write(handover);
    assert_true(fd > STDERR_FILENO);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    json_t *read = bt_handover_load(fd, why, sizeof why);
    assert_true(json_equal(read, handover));
    assert_int_equal(bt_handover_check(read, &hooks, why, sizeof why), 0);
    json_decref(read);
    json_decref(handover);
    close(fd);
}

static void test_mode_is_taken_once_and_only_with_a_handover(void **state)
{
    (void) state;
    static const char *const strays[] = {"adopt:0", "adopt:-1", "check:1", "adopt:12345", "", "adopt", "7", "adopt:x"};
    json_t *handover = good_handover();
    int fd = bt_handover_write(handover);
    int found = -1;
    assert_int_equal(bt_upgrade_mode_set(BT_UPGRADE_ADOPT, fd), 0);
    assert_int_equal(fcntl(fd, F_SETFD, 0), 0);
    assert_int_equal(bt_upgrade_mode_take(&found), BT_UPGRADE_ADOPT);
    assert_int_equal(found, fd);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_null(getenv("BATON_UPGRADE"));
    assert_int_equal(bt_upgrade_mode_take(&found), BT_UPGRADE_NONE);
    assert_int_equal(bt_upgrade_mode_set(BT_UPGRADE_CHECK, fd), 0);
    assert_int_equal(bt_upgrade_mode_take(&found), BT_UPGRADE_CHECK);
    for (size_t i = 0; i < sizeof strays / sizeof *strays; i++) {
        setenv("BATON_UPGRADE", strays[i], 1);
        assert_int_equal(bt_upgrade_mode_take(&found), BT_UPGRADE_NONE);
        assert_null(getenv("BATON_UPGRADE"));
    }
    int unsealed = memfd_create("baton-handover", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(bt_upgrade_mode_set(BT_UPGRADE_ADOPT, unsealed), 0);
    assert_int_equal(bt_upgrade_mode_take(&found), BT_UPGRADE_NONE);
    close(unsealed);
    close(fd);
    json_decref(handover);
}

static void test_text_that_is_no_json_is_refused(void **state)
{
    (void) state;
    static const char *const texts[] = {"", "{", "[1,2", "\xff\xfe", "{\"format\":1}}", "null x"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char why[256] = "";
        int fd = memfd_create("text", MFD_CLOEXEC);
        assert_int_equal(write(fd, texts[i], strlen(texts[i])), strlen(texts[i]));
        assert_null(bt_handover_load(fd, why, sizeof why));
        assert_string_not_equal(why, "");
        close(fd);
    }
}

/* ---- what is in it ---- */

static void test_other_versions_are_refused_with_words(void **state)
{
    (void) state;
    static const struct {
        const char *key;
        const char *words;
    } list[] = {
        {"format", "the running master has handover format 99, this program "},
        {"channel_version", "the running master has channel version 99, this program "},
        {"row_size", "counter size 99"},
        {"row_count", "counter table 99"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        json_t *handover = good_handover();
        json_object_set_new(handover, list[i].key, json_integer(99));
        is_refused(handover, list[i].words);
        handover = good_handover();
        json_object_set_new(handover, list[i].key, json_string("1"));
        is_refused(handover, "a restart is needed");
        handover = good_handover();
        json_object_del(handover, list[i].key);
        is_refused(handover, "a restart is needed");
    }
    json_t *handover = good_handover(); /* the same number in 32 bits */
    json_object_set_new(handover, "format", json_integer(BT_HANDOVER_FORMAT + (1LL << 32)));
    is_refused(handover, "a restart is needed");
}

static void test_missing_members_are_named(void **state)
{
    (void) state;
    static const char *const keys[] = {"config", "times",       "fds",      "roll",   "generations",
                                       "crews",  "listen_sets", "children", "clients"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *handover = good_handover();
        json_object_del(handover, keys[i]);
        is_refused(handover, keys[i]);
        handover = good_handover();
        json_object_set_new(handover, keys[i], json_integer(1));
        is_refused(handover, keys[i]);
    }
    is_refused(json_array(), "a restart is needed");
}

static void test_configurations_that_are_not_understood_are_refused(void **state)
{
    (void) state;
    static const char *const texts[] = {
        "{}",
        "{\"base_dir\":7}",
        "{\"base_dir\":\"/srv\"}",
        "{\"base_dir\":\"/srv\",\"master\":[]}",
        "{\"base_dir\":\"/srv\",\"master\":{\"log_level\":7}}",
        "{\"base_dir\":\"/srv\",\"master\":{\"log_level\":\"shouting\"}}",
        "{\"base_dir\":\"/srv\",\"master\":{},\"workers\":[{}]}",
        "{\"base_dir\":\"/srv\",\"master\":{},\"workers\":[{\"name\":\"../etc\",\"settings\":{}}]}",
        "{\"base_dir\":\"/srv\",\"master\":{},\"workers\":[{\"name\":\"web\",\"settings\":{\"count\":\"none\"}}]}",
        "{\"base_dir\":\"/srv\",\"master\":{},\"text\":{\"bytes\":\"xx\"}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *handover = good_handover();
        json_t *generation = json_array_get(json_object_get(handover, "generations"), 0);
        json_object_set_new(generation, "config", json_loads(texts[i], 0, NULL));
        is_refused(handover, "");
    }
}

static void test_way_back_takes_what_it_can_of_a_newer_program(void **state)
{
    (void) state;
    char why[256] = "";
    json_t *object =
        json_loads("{\"base_dir\":\"/srv\",\"master\":{\"from_the_future\":\"yes\"},\"workers\":[{\"name\":"
                   "\"web\",\"settings\":{\"strategy\":\"blue-green\",\"count\":\"7\"}}]}",
                   0, NULL);
    assert_null(bt_config_from_json(object, why, sizeof why));
    assert_non_null(strstr(why, "blue-green"));
    bt_config *config = bt_config_from_json_lenient(object, why, sizeof why);
    assert_non_null(config);
    assert_int_equal(config->workers[0]->count, 7);
    assert_int_equal(config->workers[0]->strategy, BT_STRATEGY_READY_FIRST);
    bt_config_free(config);
    json_decref(object);
}

/* ---- configurations ---- */

/* A value of the setting that is not its default. */
static const char *other_value(const bt_setting *setting, const void *base, char *out, size_t size)
{
    char range[256];
    char text[BT_SETTING_TEXT];
    switch (setting->type) {
    case BT_SETTING_STRING:
        return "caf\xe9 \"quoted\"\\";
    case BT_SETTING_PATH:
    case BT_SETTING_PATHS:
        return "/srv/caf\xe9.so";
    case BT_SETTING_LISTEN:
        return "http://127.0.0.1:8081";
    case BT_SETTING_BOOL:
        return strcmp(bt_setting_text(setting, base, text), "yes") == 0 ? "no" : "yes";
    case BT_SETTING_INT:
    case BT_SETTING_TIME:
    case BT_SETTING_SIZE:
        snprintf(out, size, "%lld%s", (long long) setting->min, setting->type == BT_SETTING_TIME ? "ms" : "");
        return out;
    case BT_SETTING_CHOICE:
        bt_setting_range(setting, range, sizeof range);
        snprintf(out, size, "%s", strrchr(range, ' ') + 1);
        return out;
    }
    return NULL;
}

static void note_difference(const bt_difference *found, void *arg)
{
    (void) arg;
    fail_msg("%s: %s became %s", found->setting->name, found->old_text, found->new_text);
}

static void same_after_a_round(const bt_config *config)
{
    char why[256] = "";
    json_t *object = bt_config_to_json(config);
    char *text = json_dumps(object, JSON_COMPACT); /* as it travels */
    json_t *read = json_loads(text, 0, NULL);
    bt_config *other = bt_config_from_json(read, why, sizeof why);
    if (other == NULL)
        fail_msg("%s", why);
    bt_compare_masters(&config->master, &other->master, note_difference, NULL);
    assert_int_equal(other->worker_count, config->worker_count);
    for (size_t i = 0; i < config->worker_count; i++) {
        assert_string_equal(other->workers[i]->name, config->workers[i]->name);
        bt_compare_workers(config->workers[i], other->workers[i], note_difference, NULL);
    }
    json_t *again = bt_config_to_json(other);
    assert_true(json_equal(object, again));
    json_decref(again);
    json_decref(read);
    json_decref(object);
    free(text);
    bt_config_free(other);
}

static void test_every_setting_survives(void **state)
{
    (void) state;
    char why[256] = "";
    char value[64];
    bt_config *config = small_config();
    same_after_a_round(config);
    for (const bt_setting *setting = bt_master_settings; setting->name; setting++)
        (void) !bt_config_set_master(config, setting->name, other_value(setting, &config->master, value, sizeof value),
                                     why, sizeof why);
    bt_worker_config *worker = config->workers[0];
    for (const bt_setting *setting = bt_worker_settings; setting->name; setting++)
        (void) !bt_config_set_worker(config, worker, setting->name, other_value(setting, worker, value, sizeof value),
                                     why, sizeof why);
    bt_config_add_worker(config, "plain");
    config->file = strdup("/srv/caf\xe9.ini");
    config->text = strdup("# caf\xe9\n[baton]\n");
    same_after_a_round(config);
    bt_config_free(config);
}

static void test_large_numbers_survive_exactly(void **state)
{
    (void) state;
    char why[256];
    static const char *const values[][2] = {
        {"drain_timeout", "1ms"}, {"drain_timeout", "1001ms"}, {"drain_timeout", "90s"},
        {"drain_timeout", "61m"}, {"max_package", "1048577"},  {"max_package", "1537K"},
        {"max_package", "3M"},    {"max_memory", "5G"},        {"max_requests", "1000001"},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        bt_config *config = small_config();
        if (bt_config_set_worker(config, config->workers[0], values[i][0], values[i][1], why, sizeof why) < 0)
            fail_msg("%s", why);
        same_after_a_round(config);
        bt_config_free(config);
    }
}

static void test_bytes_survive(void **state)
{
    (void) state;
    static const char *const texts[] = {"", "plain", "caf\xc3\xa9", "caf\xe9", "\xff\xfe\x01", "{\"bytes\":\"41\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *value = bt_json_bytes(texts[i]);
        char *text = bt_json_bytes_dup(value);
        assert_string_equal(text, texts[i]);
        free(text);
        json_decref(value);
    }
    assert_null(bt_json_bytes_dup(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_and_cannot_be_changed),
        cmocka_unit_test(test_mode_is_taken_once_and_only_with_a_handover),
        cmocka_unit_test(test_text_that_is_no_json_is_refused),
        cmocka_unit_test(test_other_versions_are_refused_with_words),
        cmocka_unit_test(test_missing_members_are_named),
        cmocka_unit_test(test_configurations_that_are_not_understood_are_refused),
        cmocka_unit_test(test_way_back_takes_what_it_can_of_a_newer_program),
        cmocka_unit_test(test_every_setting_survives),
        cmocka_unit_test(test_large_numbers_survive_exactly),
        cmocka_unit_test(test_bytes_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
