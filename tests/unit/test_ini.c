/* test_ini: baton.ini as people write it, right and wrong: every mistake is found, with its line.
 * The values themselves are test_settings' business. */
#include <app/settings.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Reads `text`; the caller frees the config. *errors as bt_config_read_stream, "" when there are none. */
static bt_config *read_text(const char *text, size_t len, char **errors, int *mistakes)
{
    bt_config *config = bt_config_new("/srv");
    FILE *stream = fmemopen((void *) (uintptr_t) text, len, "r");
    assert_non_null(config);
    assert_non_null(stream);
    *errors = NULL;
    *mistakes = bt_config_read_stream(config, stream, "b.ini", errors);
    fclose(stream);
    return config;
}

static void expect_errors(const char *text, const char *expected)
{
    char *errors;
    int mistakes;
    bt_config *config = read_text(text, strlen(text), &errors, &mistakes);
    assert_string_equal(errors ? errors : "", expected);
    assert_int_equal(mistakes > 0, *expected != '\0');
    free(errors);
    bt_config_free(config);
}

static void test_a_whole_file(void **state)
{
    (void) state;
    static const char text[] = "\xEF\xBB\xBF; a comment\r\n"
                               "[baton]\r\n"
                               "pid_file = run/x.pid ; behind a value\r\n"
                               "\r\n"
                               "   ; an indented comment is only a comment\n"
                               "# so is this\n"
                               "[worker web] ; and this\n"
                               "listen = http://127.0.0.1:8080\n"
                               "count=4\n"
                               "module : ./hello.so\n"
                               "[worker  api]\n";
    char *errors;
    int mistakes;
    bt_config *config = read_text(text, sizeof(text) - 1, &errors, &mistakes);
    assert_null(errors);
    assert_int_equal(mistakes, 0);
    assert_string_equal(config->master.pid_file, "/srv/run/x.pid");
    assert_int_equal(config->worker_count, 2);
    assert_string_equal(config->workers[0]->name, "web");
    assert_string_equal(config->workers[0]->listen, "http://127.0.0.1:8080");
    assert_int_equal(config->workers[0]->count, 4);
    assert_string_equal(config->workers[0]->module, "/srv/hello.so");
    assert_string_equal(config->workers[1]->name, "api"); /* a section without settings is a worker, too */
    bt_config_free(config);
}

static void test_every_mistake_is_told_with_its_line(void **state)
{
    (void) state;
    expect_errors("count = 1\n"
                  "[baton]\n"
                  "pidfile = x\n"
                  "[worker web]\n"
                  "\n"
                  "count = x\n"
                  "listen = http://127.0.0.1:99999\n"
                  "reloadable = perhaps\n",
                  "b.ini:1: count: outside a section: [baton] or [worker NAME] must come before\n"
                  "b.ini:3: pidfile: unknown setting (did you mean \"pid_file\"?)\n"
                  "b.ini:6: worker web: count: \"x\" is not a number from 1 to 1024\n"
                  "b.ini:7: worker web: listen: \"http://127.0.0.1:99999\": port 99999 is not from 0 to 65535\n"
                  "b.ini:8: worker web: reloadable: \"perhaps\" is neither yes nor no\n");
}

static void test_sections(void **state)
{
    (void) state;
    expect_errors("[worker]\ncount = x\n", "b.ini:1: [worker] needs a name, such as [worker web]\n");
    expect_errors("[workers web]\ncount = x\n",
                  "b.ini:1: unknown section [workers web]: there are [baton] and [worker NAME]\n");
    expect_errors("[]\n", "b.ini:1: unknown section []: there are [baton] and [worker NAME]\n");
    expect_errors("[baton x]\n", "b.ini:1: unknown section [baton x]: there are [baton] and [worker NAME]\n");
    expect_errors("[worker a b]\n", "b.ini:1: [worker a ...]: a worker's name has no blanks\n");
    expect_errors("[worker a/b]\n", "b.ini:1: [worker a/b]: name: only letters, digits, '.', '_' and '-' are allowed, "
                                    "and not \".\" or \"..\"\n");
    expect_errors("[worker a]\n[worker b]\n[worker a]\ncount=x\n",
                  "b.ini:3: worker a: there is already a section of that name\n");
    expect_errors("[baton]\n[worker a]\n[baton]\n", "b.ini:3: [baton]: there is already one in line 1\n");
    expect_errors("[worker a\ncount = 1\n", "b.ini:1: section header without \"]\"\n");
    expect_errors("[worker a] count = 1\n", "b.ini:1: text after \"]\": a setting needs a line of its own\n");
}

/* libinih cuts a section's name at 49 bytes: two long names would be one worker. */
static void test_long_worker_names_stay_apart(void **state)
{
    (void) state;
    char text[400];
    char name[64];
    memset(name, 'n', 63);
    name[63] = '\0';
    char other[64];
    memcpy(other, name, sizeof(other));
    other[62] = 'x';
    snprintf(text, sizeof(text), "[worker %s]\ncount = 2\n[worker %s]\ncount = 3\n", name, other);
    char *errors;
    int mistakes;
    bt_config *config = read_text(text, strlen(text), &errors, &mistakes);
    assert_null(errors);
    assert_int_equal(config->worker_count, 2);
    assert_string_equal(config->workers[1]->name, other);
    assert_int_equal(config->workers[0]->count, 2);
    assert_int_equal(config->workers[1]->count, 3);
    bt_config_free(config);
}

static void test_settings_that_are_none(void **state)
{
    (void) state;
    expect_errors("[worker a]\ncount\ncount = 2\nfoo ; bar = 3\n",
                  "b.ini:2: \"count\" is not a setting: NAME = VALUE is expected\n"
                  "b.ini:4: \"foo ; bar = 3\" is not a setting: NAME = VALUE is expected\n");
    expect_errors("[worker a]\nlast line", "b.ini:2: \"last line\" is not a setting: NAME = VALUE is expected\n");
    expect_errors("[worker a]\n= 3\n", "b.ini:2: no name before \"=\"\n");
    expect_errors("[worker a]\ncount =\n", "b.ini:2: worker a: count: no value\n");
    expect_errors(
        "[worker a]\ncount = 4 # four\n",
        "b.ini:2: worker a: count: \"4 # four\" is not a number from 1 to 1024 (a comment behind a value begins "
        "with \" ;\")\n");
}

static void test_a_key_twice(void **state)
{
    (void) state;
    expect_errors("[worker a]\ncount = 1\n[worker b]\ncount = 1\n", "");
    expect_errors("[worker a]\ncount = 1\n\ncount = 2\n", "b.ini:4: worker a: count: already set in line 2\n");
    expect_errors("[baton]\nlog_level = info\nlog_level = info\n", "b.ini:3: log_level: already set in line 2\n");
}

/* libinih would take it as more of the value before, or as a setting, depending on what is above. */
static void test_indented_lines_are_refused(void **state)
{
    (void) state;
    expect_errors("[worker a]\n  count = 1\nbacklog = 1\n\tcount = 2\n \n",
                  "b.ini:2: indented line: sections and settings begin in the first column\n"
                  "b.ini:4: indented line: sections and settings begin in the first column\n");
}

/* libinih would make a second line of the rest. */
static void test_long_lines(void **state)
{
    (void) state;
    char text[1000];
    char blanks[300];
    memset(blanks, ' ', sizeof(blanks));

    int used = snprintf(text, sizeof(text), "[worker a]\n;%.*scount = x\ncount = 3\n", 250, blanks);
    assert_true(used < (int) sizeof(text));
    expect_errors(text, ""); /* the end of a long comment is a comment */

    snprintf(text, sizeof(text), "[worker a]\ncount =%.*s3\n", 199 - 8, blanks);
    expect_errors(text, "");
    snprintf(text, sizeof(text), "[worker a]\ncount =%.*s3\n", 200 - 8, blanks);
    expect_errors(text, "b.ini:2: line of 200 bytes: at most 199 are allowed\n");
}

static void test_control_bytes(void **state)
{
    (void) state;
    char *errors;
    int mistakes;
    static const char text[] = "[worker a]\nuser = a\0b\nuser = a\x1b[2Jb\n";
    bt_config *config = read_text(text, sizeof(text) - 1, &errors, &mistakes);
    assert_string_equal(errors, "b.ini:2: control byte 0x00 in column 9\nb.ini:3: control byte 0x1b in column 9\n");
    free(errors);
    bt_config_free(config);
}

static void test_at_most_twenty_errors(void **state)
{
    (void) state;
    static const char line[] = "colour = red\n";
    char text[600] = "[worker a]\n";
    for (size_t i = 0, at = strlen(text); i < 25; i++, at += sizeof(line) - 1)
        memcpy(text + at, line, sizeof(line));
    char *errors;
    int mistakes;
    bt_config *config = read_text(text, strlen(text), &errors, &mistakes);
    int lines = 0;
    for (const char *at = errors; (at = strchr(at, '\n')); at++)
        lines++;
    assert_int_equal(mistakes, 25);
    assert_int_equal(lines, 21);
    assert_non_null(strstr(errors, "b.ini:21: "));
    assert_null(strstr(errors, "b.ini:22: "));
    assert_non_null(strstr(errors, "b.ini: more errors follow\n"));
    free(errors);
    bt_config_free(config);
}

static void test_files(void **state)
{
    (void) state;
    char dir[] = "/tmp/baton-ini-XXXXXX";
    char *errors;
    assert_non_null(mkdtemp(dir));
    char path[64];
    snprintf(path, sizeof(path), "%s/b.ini", dir);

    assert_null(bt_config_read(path, &errors));
    assert_non_null(strstr(errors, "b.ini: No such file or directory\n"));
    free(errors);

    FILE *file = fopen(path, "w");
    fputs("[baton]\npid_file = x.pid\n[worker a]\nmodule = ./m.so\ncount = x\n", file);
    fclose(file);
    assert_null(bt_config_read(path, &errors));
    assert_non_null(strstr(errors, "b.ini:5: worker a: count: "));
    free(errors);

    bt_config *config = bt_config_read_lenient(path, &errors);
    assert_non_null(config);
    assert_non_null(errors);
    free(errors);
    assert_string_equal(config->file, path);
    assert_string_equal(config->base_dir, dir);
    assert_int_equal(strncmp(config->master.pid_file, dir, strlen(dir)), 0);
    assert_string_equal(config->master.pid_file + strlen(dir), "/x.pid");
    assert_string_equal(config->workers[0]->module + strlen(dir), "/m.so");
    bt_config_free(config);

    unlink(path);
    assert_null(bt_config_read(dir, &errors));
    assert_non_null(strstr(errors, "Is a directory"));
    free(errors);
    rmdir(dir);
}

static void test_the_text_is_kept_and_makes_the_same_configuration_again(void **state)
{
    (void) state;
    static const char text[] = "\xEF\xBB\xBF; a comment\r\n"
                               "[baton]\n"
                               "keep_generations = 7\n"
                               "[worker web]\n"
                               "listen = unix://web.sock\n"
                               "module = ./m.so"; /* no newline at the end */
    char *errors;
    int mistakes;
    bt_config *config = read_text(text, sizeof(text) - 1, &errors, &mistakes);
    assert_int_equal(mistakes, 0);
    assert_string_equal(config->text, text);
    config->file = strdup("/srv/b.ini");

    bt_config *again = bt_config_parse(config->text, config, &errors);
    assert_non_null(again);
    assert_null(errors);
    assert_string_equal(again->text, text);
    assert_string_equal(again->file, "/srv/b.ini");
    assert_string_equal(again->base_dir, "/srv");
    assert_int_equal(again->master.keep_generations, 7);
    assert_string_equal(again->workers[0]->module, "/srv/m.so");
    assert_string_equal(again->workers[0]->address.path, "/srv/web.sock");
    bt_config_free(again);

    assert_null(bt_config_parse("[worker web]\ncount = x\n", config, &errors));
    assert_non_null(strstr(errors, "/srv/b.ini:2: worker web: count: "));
    free(errors);
    again = bt_config_parse("", config, &errors);
    assert_non_null(again);
    assert_string_equal(again->text, "");
    bt_config_free(again);
    bt_config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_file),
        cmocka_unit_test(test_every_mistake_is_told_with_its_line),
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_long_worker_names_stay_apart),
        cmocka_unit_test(test_settings_that_are_none),
        cmocka_unit_test(test_a_key_twice),
        cmocka_unit_test(test_indented_lines_are_refused),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_control_bytes),
        cmocka_unit_test(test_at_most_twenty_errors),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_the_text_is_kept_and_makes_the_same_configuration_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
