/* proc/upgrade_check.c: the new program as a child that says whether it could take over.
 * Must not know what follows (upgrade.c). */
#include <baton/version.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <proc/upgrade_internal.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 30000 /* for the check */

/* Whatever it has started, too: it leads a process group. */
void bt_upgrade_kill_checker(const bt_upgrade *upgrade)
{
    if (upgrade->checker <= 0)
        return;
    kill(-upgrade->checker, SIGKILL);
    kill(upgrade->checker, SIGKILL);
}

static void on_patience_over(uv_timer_t *timer)
{
    bt_master *master = timer->data;
    bt_upgrade_kill_checker(&master->upgrade); /* none: it is only the time for flushing that is over */
}

void bt_upgrade_wake_in(bt_master *master, uint64_t ms)
{
    uv_timer_start(&master->upgrade.patience, on_patience_over, ms, 0);
}

void bt_upgrade_init(bt_master *master)
{
    uv_timer_init(&master->loop, &master->upgrade.patience);
    master->upgrade.patience.data = master;
}

/* In the child: as if somebody had called the program, with its words going to a file. It ends with the master: nobody
 * else would end one that hangs. */
static _Noreturn void run_check(const bt_service *service, int handover_fd, int output_fd)
{
    sigset_t none;
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
        dup2(output_fd, STDERR_FILENO) < 0)
        _exit(127);
    bt_upgrade_set_inherited(handover_fd, true);
    if (bt_upgrade_mode_set(BT_UPGRADE_CHECK, handover_fd) == 0)
        execv(service->program, service->check_argv);
    dprintf(STDERR_FILENO, "%s: %s\n", service->program, strerror(errno));
    _exit(127);
}

static int fork_check(bt_master *master)
{
    bt_upgrade *upgrade = &master->upgrade;
    if (stat(master->service->program, &upgrade->program) < 0)
        return -errno;
    json_t *handover = bt_snapshot(master);
    int handover_fd = handover == NULL ? -ENOMEM : bt_handover_write(handover);
    json_decref(handover);
    if (handover_fd < 0)
        return handover_fd;
    int output_fd = memfd_create("baton-check", MFD_CLOEXEC);
    const int keep[] = {handover_fd, output_fd};
    pid_t pid = output_fd < 0 ? -errno : bt_fork_clean(master, keep, sizeof keep / sizeof *keep);
    if (pid == 0)
        run_check(master->service, handover_fd, output_fd);
    close(handover_fd);
    if (pid < 0) {
        if (output_fd >= 0)
            close(output_fd);
        return (int) pid;
    }
    upgrade->checker = pid;
    upgrade->output_fd = output_fd;
    bt_upgrade_wake_in(master, PATIENCE_MS);
    return 0;
}

void bt_upgrade_fork_check(bt_master *master)
{
    char why[512];
    master->upgrade.is_wanted = master->upgrade.is_checked = false;
    bt_master_give_reserve(master);
    int err = fork_check(master);
    bt_master_take_reserve(master);
    if (err == 0)
        return;
    snprintf(why, sizeof why, "%s: %s", master->service->program, strerror(-err));
    bt_upgrade_refuse(master, why);
}

/* Its last words, without the line feeds at their end. */
static void read_output(int fd, char *out, size_t size)
{
    struct stat info = {0};
    fstat(fd, &info);
    off_t start = info.st_size > (off_t) size - 1 ? info.st_size - (off_t) size + 1 : 0;
    ssize_t n = pread(fd, out, size - 1, start);
    out[n < 0 ? 0 : n] = '\0';
    for (size_t len = strlen(out); len > 0 && out[len - 1] == '\n'; len--)
        out[len - 1] = '\0';
}

/* The version that it has passed for, or NULL. A start program may say more than the library in it does. */
static const char *passed_version(const char *output)
{
    const char *found = strstr(output, BT_CHECK_PASSED);
    bool begins_line = found != NULL && (found == output || found[-1] == '\n');
    return begins_line ? found + strlen(BT_CHECK_PASSED) : NULL;
}

static void describe_failure(const bt_master *master, int status, bool was_in_time, const char *output, char *why,
                             size_t size)
{
    const char *program = master->service->program;
    char text[64];
    if (!was_in_time)
        snprintf(why, size, "%s did not end its check in time", program);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        snprintf(why, size, "%s cannot take over a running service: its check ended without a word about it", program);
    else
        snprintf(why, size, "%s failed its check (%s)%s%s", program, bt_exit_text(status, text, sizeof text),
                 output[0] == '\0' ? "" : ": ", output);
}

static void check_ended(bt_master *master, int status)
{
    bt_upgrade *upgrade = &master->upgrade;
    char output[768];
    char text[64];
    char why[1600];
    upgrade->checker = 0;
    bool was_in_time = uv_is_active((uv_handle_t *) &upgrade->patience);
    uv_timer_stop(&upgrade->patience);
    read_output(upgrade->output_fd, output, sizeof output);
    close(upgrade->output_fd);
    upgrade->output_fd = -1;
    const char *version = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? passed_version(output) : NULL;
    if (master->phase != BT_MASTER_RUNNING || upgrade->shall_return)
        return;
    if (version != NULL) {
        snprintf(text, sizeof text, "from %s to %.*s", baton_version(), (int) strcspn(version, "\n"), version);
        bt_upgrade_progress(master, "upgrading", text);
        upgrade->is_checked = true;
        return;
    }
    describe_failure(master, status, was_in_time, output, why, sizeof why);
    bt_upgrade_refuse(master, why);
}

void bt_upgrade_reap(bt_master *master)
{
    int status;
    if (master->upgrade.checker > 0 && waitpid(master->upgrade.checker, &status, WNOHANG) > 0) {
        check_ended(master, status);
        bt_master_check(master);
    }
}
