/* test_generation: the pinned copy is whole, immutable in effect, readable by everybody, and honest.
 * Modules are compiled here; the original is then broken in every way a deploy can break it. */
#include <proc/generation.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { NOBODY = 65534 };

static char dir[64];
static char run_dir[80];
static char why[512];
static bt_module_copy out;

/* A shell command in the test's directory. Returns the first line it printed. */
__attribute__((format(printf, 1, 2))) static const char *shell(const char *format, ...)
{
    static char line[256];
    char command[700];
    int len = snprintf(command, sizeof(command), "cd %s && ", dir);
    va_list args;
    va_start(args, format);
    vsnprintf(command + len, sizeof(command) - (size_t) len, format, args);
    va_end(args);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    line[0] = '\0';
    if (fgets(line, sizeof(line), pipe))
        line[strcspn(line, "\n")] = '\0';
    assert_int_equal(pclose(pipe), 0);
    return line;
}

static int set_up(void **state)
{
    (void) state;
    snprintf(dir, sizeof(dir), "/tmp/bt-generation-XXXXXX");
    if (!mkdtemp(dir) || chmod(dir, 0755) != 0)
        return -1;
    snprintf(run_dir, sizeof(run_dir), "%s/run", dir);
    shell("echo 'int answer(void) { return 42; }' > a.c && cc -shared -fPIC -Wl,--build-id=0xfeed -o a.so a.c");
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    shell("rm -rf %s", dir);
    return 0;
}

/* Both may be NULL. Names are relative to the test's directory; module_files are separated by blanks. */
static int build(uint64_t number, const char *module, const char *files)
{
    char module_path[200];
    char files_path[800] = "";
    snprintf(module_path, sizeof(module_path), "%s/%s", dir, module ? module : "");
    for (const char *name = files; name && *name;) {
        size_t len = strcspn(name, " ");
        size_t at = strlen(files_path);
        snprintf(files_path + at, sizeof(files_path) - at, "  %s/%.*s\t", dir, (int) len, name);
        name += len + (name[len] == ' ');
    }
    char worker_name[] = "web";
    bt_worker_config worker = {
        .name = worker_name,
        .module = module ? module_path : NULL,
        .module_files = files ? files_path : NULL,
    };
    memset(&out, '#', sizeof(out));
    snprintf(why, sizeof(why), "%s", "");
    return bt_generation_build(run_dir, number, &worker, &out, why, sizeof(why));
}

/* `expected` follows the file's path and ": ". */
static void assert_refused(const char *module, int err, const char *expected)
{
    char line[512];
    assert_int_equal(build(9, module, NULL), err);
    snprintf(line, sizeof(line), "%s/%s: %s", dir, module, expected);
    assert_string_equal(why, line);
    assert_string_equal(shell("ls -A run/modules/9/web"), ""); /* nothing half-made is left */
}

static void assert_mode(const char *name, mode_t mode)
{
    char path[200];
    struct stat status;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, mode);
}

static void test_copy_is_at_its_place_with_hash_and_build_id(void **state)
{
    (void) state;
    char expected[200];
    assert_int_equal(build(1, "a.so", NULL), 0);
    snprintf(expected, sizeof(expected), "%s/modules/1/web/a.so", run_dir);
    assert_string_equal(out.path, expected);
    assert_string_equal(out.worker, "web");
    assert_string_equal(out.build_id, "feed");
    assert_string_equal(out.sha256, shell("sha256sum < a.so | cut -d' ' -f1"));
    assert_string_equal(why, "");
    shell("cmp a.so run/modules/1/web/a.so");
    assert_string_equal(shell("ls -A run/modules/1/web | wc -l"), "1");
}

static void test_copy_is_readable_by_everybody_whatever_the_umask(void **state)
{
    (void) state;
    mode_t old_umask = umask(0077);
    assert_int_equal(build(1, "a.so", "a.c"), 0);
    umask(old_umask);
    assert_mode("run/modules", 0755);
    assert_mode("run/modules/1", 0755);
    assert_mode("run/modules/1/web", 0755);
    assert_mode("run/modules/1/web/a.so", 0444);
    assert_mode("run/modules/1/web/a.c", 0444);
}

static void test_generations_do_not_share_bytes_with_the_original_or_each_other(void **state)
{
    (void) state;
    assert_int_equal(build(1, "a.so", NULL), 0);
    char first[65];
    memcpy(first, out.sha256, sizeof(first));
    shell("echo 'int answer(void) { return 43; }' > b.c && cc -shared -fPIC -o b.so b.c && cat b.so > a.so");
    assert_int_equal(build(2, "a.so", NULL), 0);
    assert_string_not_equal(first, out.sha256);
    assert_string_equal(first, shell("sha256sum < run/modules/1/web/a.so | cut -d' ' -f1"));
}

static void test_same_number_again_replaces_the_file_not_its_bytes(void **state)
{
    (void) state;
    assert_int_equal(build(1, "a.so", NULL), 0);
    shell("ln run/modules/1/web/a.so mapped && cp a.c x && cat x >> a.so"); /* a process has it mapped */
    char before[65];
    memcpy(before, out.sha256, sizeof(before));
    assert_int_equal(build(1, "a.so", NULL), 0);
    assert_string_equal(before, shell("sha256sum < mapped | cut -d' ' -f1"));
}

static void test_file_written_this_instant_is_accepted(void **state)
{
    (void) state;
    shell("cp a.so b.so");
    assert_int_equal(build(1, "b.so", NULL), 0);
}

static void test_module_without_build_id_has_an_empty_one(void **state)
{
    (void) state;
    shell("cc -shared -fPIC -Wl,--build-id=none -o n.so a.c");
    assert_int_equal(build(1, "n.so", NULL), 0);
    assert_string_equal(out.build_id, "");
}

static void test_what_is_no_shared_object_is_refused(void **state)
{
    (void) state;
    shell("head -c 4096 a.so > cut.so && : > empty.so && mkdir dir.so && mkfifo fifo.so && "
          "echo 'int main(void) { return 0; }' > m.c && cc -o program m.c && "
          "cp a.so e32.so && printf '\\001' | dd of=e32.so bs=1 seek=4 conv=notrunc 2>/dev/null");
    assert_refused("a.c", -ENOEXEC, "not an ELF file");
    assert_refused("empty.so", -ENOEXEC, "empty");
    assert_refused("e32.so", -ENOEXEC, "a 32-bit ELF file, this program is not");
    assert_refused("program", -ENOEXEC, "a program, not a shared object: link it with -shared");
    assert_refused("dir.so", -EISDIR, "is a directory");
    assert_refused("fifo.so", -EINVAL, "is not a regular file");
    assert_refused("no.so", -ENOENT, "cannot be read: No such file or directory");
    assert_int_equal(build(9, "cut.so", NULL), -ENOEXEC);
    assert_non_null(strstr(why, "/cut.so: truncated: "));
}

static void test_unreadable_module_is_named(void **state)
{
    (void) state;
    shell("mkdir -m 0777 run && chmod 0600 a.so");
    pid_t child = fork();
    if (child == 0) {
        if (getuid() == 0 && setuid(NOBODY) != 0)
            _exit(1);
        if (getuid() != NOBODY)
            shell("chmod 0 a.so");
        int err = build(1, "a.so", NULL);
        _exit(err == -EACCES && strstr(why, "/a.so: cannot be read: Permission denied") ? 0 : 2);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_run_dir_that_cannot_be_written_is_named(void **state)
{
    (void) state;
    shell(": > run");
    assert_int_equal(build(1, "a.so", NULL), -ENOTDIR);
    assert_non_null(strstr(why, "/run/modules/1/web: cannot be made: Not a directory"));
}

static void test_module_files_come_along(void **state)
{
    (void) state;
    shell("echo data > page.html && echo 'int extra(void) { return 1; }' > l.c && cc -shared -fPIC -o libl.so l.c");
    assert_int_equal(build(3, "a.so", "page.html libl.so"), 0);
    shell("cmp page.html run/modules/3/web/page.html && cmp libl.so run/modules/3/web/libl.so");
    assert_string_equal(out.build_id, "feed"); /* the module's, not the last file's */
}

static void test_module_files_alone(void **state)
{
    (void) state;
    assert_int_equal(build(3, NULL, "a.so"), 0);
    assert_string_equal(out.path, "");
    assert_string_equal(out.sha256, "");
    shell("cmp a.so run/modules/3/web/a.so");
    assert_int_equal(build(4, NULL, NULL), 0);
}

static void test_broken_module_file_is_refused(void **state)
{
    (void) state;
    shell("head -c 5000 a.so > libcut.so");
    assert_int_equal(build(3, "a.so", "libcut.so"), -ENOEXEC);
    assert_non_null(strstr(why, "/libcut.so: truncated: "));
    assert_int_equal(build(3, "a.so", "none.html"), -ENOENT);
    assert_non_null(strstr(why, "/none.html: cannot be read: "));
}

static void test_two_files_of_one_name_are_refused(void **state)
{
    (void) state;
    shell("mkdir other && cp a.so other && echo x > p && cp p other/p");
    assert_int_equal(build(3, "a.so", "other/a.so"), -EEXIST);
    assert_non_null(strstr(why, "/other/a.so: another file of worker \"web\" has the same name"));
    assert_int_equal(build(3, "a.so", "p other/p"), -EEXIST);
    assert_non_null(strstr(why, "/other/p: another file of worker \"web\" has the same name"));
    assert_int_equal(build(3, "a.so", "p"), 0);
}

static void test_worker_names_that_leave_the_directory_are_refused(void **state)
{
    (void) state;
    static const char *const names[] = {"", ".", "..", "../x", "a/b"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char name[16];
        snprintf(name, sizeof(name), "%s", names[i]);
        bt_worker_config worker = {.name = name};
        assert_int_equal(bt_generation_build(run_dir, 1, &worker, &out, why, sizeof(why)), -EINVAL);
    }
    char longest[65];
    memset(longest, 'w', 64);
    longest[64] = '\0';
    bt_worker_config worker = {.name = longest};
    assert_int_equal(bt_generation_build(run_dir, 1, &worker, &out, why, sizeof(why)), -ENAMETOOLONG);
    longest[63] = '\0';
    assert_int_equal(bt_generation_build(run_dir, 1, &worker, &out, why, sizeof(why)), 0);
}

static void test_paths_too_long_for_the_record_are_refused(void **state)
{
    (void) state;
    char long_dir[600];
    memset(long_dir, 'd', sizeof(long_dir) - 1);
    memcpy(long_dir, run_dir, strlen(run_dir));
    for (size_t i = strlen(dir) + 10; i < sizeof(long_dir); i += 100)
        long_dir[i] = '/';
    long_dir[sizeof(long_dir) - 1] = '\0';
    char name[] = "web";
    bt_worker_config worker = {.name = name};
    assert_int_equal(bt_generation_build(long_dir, 1, &worker, &out, why, sizeof(why)), -ENAMETOOLONG);
}

/* ---- a deploy in progress ---- */

enum { BLOCK = 4096, BLOCKS = 256 };

/* Overwrites the last BLOCKS blocks of a file in place, round and round; each begins with the number of its write. */
_Noreturn static void rewrite_for_ever(const char *path, int ready)
{
    static uint64_t block[BLOCK / sizeof(uint64_t)];
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test must not leave it running */
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    off_t start = lseek(fd, 0, SEEK_END) - (off_t) BLOCK * BLOCKS;
    for (;; block[0]++) {
        if (pwrite(fd, block, sizeof(block), start + (off_t) (block[0] % BLOCKS * BLOCK)) != BLOCK)
            _exit(1);
        if (block[0] == 2 * BLOCKS && write(ready, "x", 1) != 1)
            _exit(1);
    }
}

/* At any one moment the file holds BLOCKS consecutive numbers. */
static void assert_copy_is_of_one_moment(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    off_t start = lseek(fd, 0, SEEK_END) - (off_t) BLOCK * BLOCKS;
    uint64_t lowest = UINT64_MAX;
    uint64_t highest = 0;
    for (int i = 0; i < BLOCKS; i++) {
        uint64_t number = 0;
        assert_int_equal(pread(fd, &number, sizeof(number), start + (off_t) i * BLOCK), sizeof(number));
        lowest = number < lowest ? number : lowest;
        highest = number > highest ? number : highest;
    }
    close(fd);
    assert_int_equal(highest - lowest, BLOCKS - 1);
}

static void test_file_being_rewritten_never_gives_a_mixture(void **state)
{
    (void) state;
    char path[128];
    shell("cp a.so w.so && truncate -s %%%d w.so && truncate -s +%d w.so", BLOCK, BLOCK * BLOCKS);
    snprintf(path, sizeof(path), "%s/w.so", dir);
    int ready[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t writer = fork();
    if (writer == 0)
        rewrite_for_ever(path, ready[1]);
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);

    for (uint64_t number = 1; number <= 10; number++) {
        int err = build(number, "w.so", NULL);
        if (err == 0) { /* the writer may have been off the processor all the time */
            assert_copy_is_of_one_moment(out.path);
        } else {
            assert_int_equal(err, -EBUSY);
            assert_non_null(strstr(why, "/w.so: changes while it is copied"));
        }
    }
    kill(writer, SIGKILL);
    assert_int_equal(waitpid(writer, NULL, 0), writer);
    close(ready[0]);
    close(ready[1]);
    assert_int_equal(build(11, "w.so", NULL), 0);
    assert_copy_is_of_one_moment(out.path);
}

/* ---- removal ---- */

static void test_removal(void **state)
{
    (void) state;
    assert_int_equal(build(1, "a.so", "a.c"), 0);
    assert_int_equal(build(2, "a.so", NULL), 0);
    assert_int_equal(bt_generation_remove(run_dir, 1), 0);
    assert_int_equal(bt_generation_remove(run_dir, 1), 0);
    assert_string_equal(shell("ls -A run/modules"), "2");
    assert_int_equal(bt_generation_remove("/no/such/dir", 1), 0);
}

static void test_removal_of_all_touches_only_what_is_ours(void **state)
{
    (void) state;
    assert_int_equal(build(1, "a.so", NULL), 0);
    assert_int_equal(build(18446744073709551615u, "a.so", NULL), 0);
    shell("mkdir elsewhere && echo keep > elsewhere/file && cd run/modules && "
          "mkdir 1x x1 007 +3 -- -4 18446744073709551617 && echo f > 5 && ln -s ../../elsewhere 6 && "
          "mkdir 7 && ln -s ../../../elsewhere 7/link");
    assert_int_equal(bt_generation_remove_all(run_dir), 0);
    assert_string_equal(shell("LC_ALL=C ls -A run/modules | tr '\\n' ' '"),
                        "+3 -4 007 18446744073709551617 1x 5 6 x1 ");
    assert_string_equal(shell("cat elsewhere/file"), "keep");
    assert_int_equal(bt_generation_remove_all("/no/such/dir"), 0);
}

#define GENERATION_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GENERATION_TEST(test_copy_is_at_its_place_with_hash_and_build_id),
        GENERATION_TEST(test_copy_is_readable_by_everybody_whatever_the_umask),
        GENERATION_TEST(test_generations_do_not_share_bytes_with_the_original_or_each_other),
        GENERATION_TEST(test_same_number_again_replaces_the_file_not_its_bytes),
        GENERATION_TEST(test_file_written_this_instant_is_accepted),
        GENERATION_TEST(test_module_without_build_id_has_an_empty_one),
        GENERATION_TEST(test_what_is_no_shared_object_is_refused),
        GENERATION_TEST(test_unreadable_module_is_named),
        GENERATION_TEST(test_run_dir_that_cannot_be_written_is_named),
        GENERATION_TEST(test_module_files_come_along),
        GENERATION_TEST(test_module_files_alone),
        GENERATION_TEST(test_broken_module_file_is_refused),
        GENERATION_TEST(test_two_files_of_one_name_are_refused),
        GENERATION_TEST(test_worker_names_that_leave_the_directory_are_refused),
        GENERATION_TEST(test_paths_too_long_for_the_record_are_refused),
        GENERATION_TEST(test_file_being_rewritten_never_gives_a_mixture),
        GENERATION_TEST(test_removal),
        GENERATION_TEST(test_removal_of_all_touches_only_what_is_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
