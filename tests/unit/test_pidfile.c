/* test_pidfile: one master per pid file, told by a lock that dies with its process.
 * The other master is always a forked child: an fcntl lock never conflicts within one process. */
#include <proc/pidfile.h>

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

static char dir[64];
static char path[128];

static int make_dir(void **state)
{
    (void) state;
    snprintf(dir, sizeof(dir), "/tmp/bt-pidfile-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/run/deep/baton.pid", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void) state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void assert_file_says(pid_t pid)
{
    char text[32] = "";
    char expected[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    snprintf(expected, sizeof(expected), "%d\n", (int) pid);
    assert_string_equal(text, expected);
}

/* Until killed, or until a failed test is gone. */
_Noreturn static void wait_for_ever(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
}

/* A child that holds the pid file until it is killed. */
static pid_t start_holder(void)
{
    int ready[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        pid_t holder = 0;
        int fd = bt_pidfile_take(path, &holder);
        char answer = fd >= 0 ? 'y' : 'n';
        if (write(ready[1], &answer, 1) != 1)
            _exit(1);
        wait_for_ever();
    }
    close(ready[1]);
    char answer = 0;
    assert_int_equal(read(ready[0], &answer, 1), 1);
    close(ready[0]);
    assert_int_equal(answer, 'y');
    return child;
}

static void kill_and_reap(pid_t child)
{
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_take_makes_directories_and_writes_the_pid(void **state)
{
    (void) state;
    mode_t old_umask = umask(022);
    pid_t holder = -1;
    int fd = bt_pidfile_take(path, &holder);
    umask(old_umask);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0644);
    char text[32] = "";
    assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
    assert_int_equal(atoi(text), getpid());
    bt_pidfile_release(path, fd);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_second_master_is_told_the_first_ones_pid(void **state)
{
    (void) state;
    pid_t child = start_holder();
    pid_t holder = 0;
    assert_int_equal(bt_pidfile_take(path, &holder), -EWOULDBLOCK);
    assert_int_equal(holder, child);
    assert_int_equal(bt_pidfile_holder(path), child);
    assert_file_says(child); /* asking has not changed it */
    kill_and_reap(child);
}

static void test_file_of_a_killed_master_is_stale_and_taken_over(void **state)
{
    (void) state;
    kill_and_reap(start_holder());
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(bt_pidfile_holder(path), 0);
    pid_t second = start_holder();
    assert_file_says(second);
    kill_and_reap(second);
}

static void test_longer_stale_text_leaves_no_tail(void **state)
{
    (void) state;
    assert_int_equal(bt_make_parent_dirs(path, 0755), 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(write(fd, "99999999999999\nrubbish", 22), 22);
    close(fd);
    assert_int_equal(bt_pidfile_holder(path), 0);
    pid_t child = start_holder();
    assert_file_says(child);
    kill_and_reap(child);
}

/* The reason for fcntl: a flock would live on in the master's children. */
static void test_lock_dies_with_the_master_although_its_children_live(void **state)
{
    (void) state;
    int ready[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t master = fork();
    if (master == 0) {
        pid_t holder = 0;
        if (bt_pidfile_take(path, &holder) < 0)
            _exit(1);
        pid_t worker = fork(); /* inherits the descriptor */
        if (worker == 0) {     /* outlives the master on purpose */
            for (;;)
                pause();
        }
        if (write(ready[1], &worker, sizeof(worker)) != sizeof(worker))
            _exit(1);
        wait_for_ever();
    }
    pid_t worker = 0;
    assert_int_equal(read(ready[0], &worker, sizeof(worker)), sizeof(worker));
    assert_int_equal(bt_pidfile_holder(path), master);
    kill_and_reap(master);
    assert_int_equal(kill(worker, 0), 0);
    assert_int_equal(bt_pidfile_holder(path), 0);
    pid_t next = start_holder();
    kill_and_reap(next);
    kill(worker, SIGKILL);
    close(ready[0]);
    close(ready[1]);
}

static void test_holder_without_a_file(void **state)
{
    (void) state;
    assert_int_equal(bt_pidfile_holder(path), 0);
}

static void test_what_cannot_be_a_pid_file(void **state)
{
    (void) state;
    pid_t holder = 0;
    assert_int_equal(bt_pidfile_take(dir, &holder), -EISDIR);
    assert_int_equal(bt_pidfile_take("/dev/null", &holder), -EINVAL);
    assert_int_equal(bt_pidfile_take("/proc/no/such.pid", &holder), -ENOENT);
}

static void test_make_parent_dirs(void **state)
{
    (void) state;
    char deep[256];
    snprintf(deep, sizeof(deep), "%s/a//b/./c/file", dir);
    assert_int_equal(bt_make_parent_dirs(deep, 0700), 0);
    assert_int_equal(bt_make_parent_dirs(deep, 0700), 0);
    snprintf(deep, sizeof(deep), "%s/a/b/c", dir);
    struct stat status;
    assert_int_equal(stat(deep, &status), 0);
    assert_true(S_ISDIR(status.st_mode));
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_int_equal(bt_make_parent_dirs("no-directory-part", 0700), 0);
    assert_int_equal(bt_make_parent_dirs("", 0700), 0);
}

#define PIDFILE_TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PIDFILE_TEST(test_take_makes_directories_and_writes_the_pid),
        PIDFILE_TEST(test_second_master_is_told_the_first_ones_pid),
        PIDFILE_TEST(test_file_of_a_killed_master_is_stale_and_taken_over),
        PIDFILE_TEST(test_longer_stale_text_leaves_no_tail),
        PIDFILE_TEST(test_lock_dies_with_the_master_although_its_children_live),
        PIDFILE_TEST(test_holder_without_a_file),
        PIDFILE_TEST(test_what_cannot_be_a_pid_file),
        PIDFILE_TEST(test_make_parent_dirs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
