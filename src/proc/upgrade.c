/* proc/upgrade.c: the master executes another program in its own place, and goes back when that fails.
 * Must not know what the handover holds: snapshot.c and adopt.c do. */
#include <base/failpoint.h>
#include <base/log.h>
#include <baton/version.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <proc/master_state.h>
#include <proc/upgrade.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE     "BATON_UPGRADE"
#define PATIENCE_MS  30000 /* for the check */
#define HANDOVER_MAX (64 * 1024 * 1024)

/* ---- what this program was executed for ---- */

bt_upgrade_mode bt_upgrade_mode_take(int *fd)
{
    const char *value = getenv(VARIABLE);
    char mode[8] = "";
    if (value == NULL || sscanf(value, "%7[a-z]:%d", mode, fd) != 2)
        return BT_UPGRADE_NONE;
    unsetenv(VARIABLE); /* our children are not executed for it */
    fcntl(*fd, F_SETFD, FD_CLOEXEC);
    return strcmp(mode, "check") == 0 ? BT_UPGRADE_CHECK : BT_UPGRADE_ADOPT;
}

static void set_variable(const char *mode, int fd)
{
    char value[32];
    snprintf(value, sizeof value, "%s:%d", mode, fd);
    setenv(VARIABLE, value, 1);
}

/* ---- the handover as a file ---- */

static int write_handover(const json_t *handover)
{
    int fd = memfd_create("baton-handover", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (json_dumpfd(handover, fd, JSON_COMPACT) < 0) {
        close(fd);
        return -ENOMEM;
    }
    return fd;
}

static json_t *load(int fd, char *why, size_t size)
{
    struct stat info;
    json_error_t error;
    if (fstat(fd, &info) < 0 || info.st_size <= 0 || info.st_size > HANDOVER_MAX) {
        snprintf(why, size, "the handover cannot be read");
        return NULL;
    }
    lseek(fd, 0, SEEK_SET);
    json_t *handover = json_loadfd(fd, 0, &error);
    if (handover == NULL)
        snprintf(why, size, "the handover is not understood: %s", error.text);
    return handover;
}

static int number_in(const json_t *handover, const char *key)
{
    return (int) json_integer_value(json_object_get(handover, key));
}

/* Versions that must be the same in both programs; a newer one that can talk to older ones says so here. */
static int check_versions(const json_t *handover, char *why, size_t size)
{
    const struct {
        const char *key;
        const char *what;
        int ours;
    } list[] = {
        {"format", "handover format", BT_HANDOVER_FORMAT},
        {"channel_version", "channel version", BT_CHANNEL_VERSION},
        {"row_size", "counter table", (int) sizeof(bt_row)},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        int theirs = number_in(handover, list[i].key);
        if (theirs == list[i].ours)
            continue;
        snprintf(why, size, "the running master has %s %d, this program %d: a restart is needed", list[i].what, theirs,
                 list[i].ours);
        return -EPROTO;
    }
    return 0;
}

/* Each configuration can be understood here. */
static int check_configs(const json_t *handover, const bt_service *hooks, char *why, size_t size)
{
    size_t i;
    const json_t *generation;
    json_array_foreach(json_object_get(handover, "generations"), i, generation)
    {
        const json_t *object = json_object_get(generation, "config");
        if (!json_is_object(object))
            continue;
        bt_config *config = hooks->config_from_json(object, why, size);
        if (config == NULL)
            return -EPROTO;
        hooks->free_config(config);
    }
    return 0;
}

json_t *bt_handover_read(int fd, const bt_service *hooks, char *why, size_t size)
{
    json_t *handover = load(fd, why, size);
    if (handover == NULL)
        return NULL;
    if (check_versions(handover, why, size) == 0 && check_configs(handover, hooks, why, size) == 0)
        return handover;
    json_decref(handover);
    return NULL;
}

/* ---- descriptors through execve ---- */

static void set_inherited(int fd, bool inherited)
{
    if (fd >= 0)
        fcntl(fd, F_SETFD, inherited ? 0 : FD_CLOEXEC);
}

/* Everything in the handover that is called a descriptor. */
static void inherit_all(const json_t *value, const char *key, bool inherited)
{
    const char *name;
    json_t *member;
    size_t i;
    if (json_is_object(value)) {
        bool is_list = key != NULL && strcmp(key, "fds") == 0; /* named descriptors */
        json_object_foreach((json_t *) (uintptr_t) value, name, member)
            inherit_all(member, is_list ? "fd" : name, inherited);
    } else if (json_is_array(value)) {
        bool is_list = key != NULL && strcmp(key, "fds") == 0;
        json_array_foreach(value, i, member) inherit_all(member, is_list ? "fd" : NULL, inherited);
    } else if (json_is_integer(value) && key != NULL && strcmp(key, "fd") == 0) {
        set_inherited((int) json_integer_value(value), inherited);
    }
}

/* Becomes `program`. Returns a negative errno when that is not possible; then nothing has changed. */
static int execute(const bt_service *service, int program_fd, const json_t *handover)
{
    int fd = write_handover(handover);
    if (fd < 0)
        return fd;
    inherit_all(handover, NULL, true);
    set_inherited(fd, true);
    set_variable("adopt", fd);
    fflush(NULL);
    int err = bt_failpoint("upgrade:before-execute");
    if (err < 0)
        errno = -err;
    else if (program_fd >= 0)
        fexecve(program_fd, service->argv, environ);
    else
        execv(service->program, service->argv);
    err = -errno;
    unsetenv(VARIABLE);
    inherit_all(handover, NULL, false);
    close(fd);
    return err;
}

/* ---- who waits ---- */

static void tell_all(bt_master *master, bool ok, const char *message)
{
    bt_list *node;
    while ((node = bt_list_pop(&master->upgrade.waiters)) != NULL) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->on_done(waiter, ok, master->roll.generation, message, "");
    }
}

static void progress(bt_master *master, const char *step, const char *detail)
{
    bt_list_each (node, &master->upgrade.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->on_progress(waiter, "", -1, step, 0, 0, detail);
    }
}

static void refuse(bt_master *master, const char *why)
{
    bt_upgrade *upgrade = &master->upgrade;
    upgrade->is_wanted = upgrade->is_checked = false;
    bt_log(BT_LOG_ERROR, "upgrade-refused reason=\"%s\"", why);
    tell_all(master, false, why);
}

void bt_upgrade_request(bt_master *master, bt_waiter *waiter)
{
    bt_upgrade *upgrade = &master->upgrade;
    const char *why = NULL;
    if (master->phase != BT_MASTER_RUNNING)
        why = master->phase == BT_MASTER_STOPPING ? "the service is being stopped" : "the service is just starting";
    else if (master->service->program == NULL)
        why = "it is not known which program this is";
    if (why != NULL) {
        waiter->on_done(waiter, false, master->last_generation, why, "");
        return;
    }
    bt_list_append(&upgrade->waiters, &waiter->node);
    waiter->on_progress(waiter, "", -1, "checking", 0, 0, master->service->program);
    if (upgrade->checker == 0)
        upgrade->is_wanted = true; /* else: it is being checked */
}

void bt_upgrade_cancel(bt_master *master, const char *why)
{
    bt_upgrade *upgrade = &master->upgrade;
    upgrade->is_wanted = upgrade->is_checked = upgrade->shall_return = false;
    if (upgrade->checker > 0)
        kill(upgrade->checker, SIGKILL);
    tell_all(master, false, why);
}

/* ---- the check ---- */

static void on_patience_over(uv_timer_t *timer)
{
    bt_master *master = timer->data;
    if (master->upgrade.checker > 0)
        kill(master->upgrade.checker, SIGKILL);
}

void bt_upgrade_init(bt_master *master)
{
    uv_timer_init(&master->loop, &master->upgrade.patience);
    master->upgrade.patience.data = master;
}

/* In the child: as if somebody had called the program, with its words going to a file. */
static _Noreturn void run_check(const bt_service *service, int handover_fd, int output_fd)
{
    sigset_t none;
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
        dup2(output_fd, STDERR_FILENO) < 0)
        _exit(127);
    set_inherited(handover_fd, true);
    set_variable("check", handover_fd);
    execv(service->program, service->argv);
    dprintf(STDERR_FILENO, "%s: %s\n", service->program, strerror(errno));
    _exit(127);
}

static int fork_check(bt_master *master)
{
    bt_upgrade *upgrade = &master->upgrade;
    json_t *handover = bt_snapshot(master);
    int handover_fd = handover == NULL ? -ENOMEM : write_handover(handover);
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
    uv_timer_start(&upgrade->patience, on_patience_over, PATIENCE_MS, 0);
    return 0;
}

void bt_upgrade_fork_check(bt_master *master)
{
    master->upgrade.is_wanted = false;
    int err = fork_check(master);
    if (err < 0)
        refuse(master, strerror(-err));
}

/* Its last words, without the line feed at their end. */
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

static const char *last_line(const char *text)
{
    const char *line = strrchr(text, '\n');
    return line == NULL ? text : line + 1;
}

static void check_ended(bt_master *master, int status)
{
    bt_upgrade *upgrade = &master->upgrade;
    char output[768];
    char text[64];
    char why[1024];
    upgrade->checker = 0;
    bool was_in_time = uv_is_active((uv_handle_t *) &upgrade->patience);
    uv_timer_stop(&upgrade->patience);
    read_output(upgrade->output_fd, output, sizeof output);
    close(upgrade->output_fd);
    upgrade->output_fd = -1;
    const char *line = last_line(output);
    bool passed =
        WIFEXITED(status) && WEXITSTATUS(status) == 0 && strncmp(line, BT_CHECK_PASSED, strlen(BT_CHECK_PASSED)) == 0;
    if (master->phase != BT_MASTER_RUNNING)
        return;
    if (passed) {
        snprintf(text, sizeof text, "from %s to %.32s", baton_version(), line + strlen(BT_CHECK_PASSED));
        progress(master, "upgrading", text);
        upgrade->is_checked = true;
        return;
    }
    if (!was_in_time)
        snprintf(why, sizeof why, "%s did not end its check in time", master->service->program);
    else
        snprintf(why, sizeof why, "%s failed its check (%s)%s%s", master->service->program,
                 bt_exit_text(status, text, sizeof text), output[0] == '\0' ? "" : ": ", output);
    refuse(master, why);
}

void bt_upgrade_reap(bt_master *master)
{
    int status;
    if (master->upgrade.checker > 0 && waitpid(master->upgrade.checker, &status, WNOHANG) > 0) {
        check_ended(master, status);
        bt_master_check(master);
    }
}

/* ---- the change ---- */

bool bt_upgrade_is_pending(const bt_master *master)
{
    const bt_upgrade *upgrade = &master->upgrade;
    const bt_roll *roll = &master->roll;
    bool is_idle = roll->state == BT_ROLL_IDLE && roll->helper == 0 && roll->helper_handles == 0 &&
                   !roll->jobs[BT_JOB_NOW].is_wanted;
    return master->phase == BT_MASTER_RUNNING && is_idle && (upgrade->is_checked || upgrade->shall_return);
}

static json_t *report_of(const char *message, uint64_t serial)
{
    return json_pack("{s:s, s:I}", "message", message, "serial", (json_int_t) serial);
}

/* The handover for the next program, or for the old one when this one has failed. */
static json_t *describe(bt_master *master, int old_fd)
{
    bt_upgrade *upgrade = &master->upgrade;
    json_t *handover = bt_snapshot(master);
    if (handover == NULL)
        return NULL;
    if (upgrade->shall_return)
        json_object_set_new(handover, "report", report_of(upgrade->failure, upgrade->serial));
    else
        json_object_set_new(handover, "old_program", json_pack("{s:i}", "fd", old_fd));
    return handover;
}

/* Returns only when it could not be done. */
static int change_program(bt_master *master)
{
    bt_upgrade *upgrade = &master->upgrade;
    int old_fd = upgrade->shall_return ? -1 : open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    json_t *handover = describe(master, old_fd);
    bt_log(BT_LOG_INFO, "execute program=\"%s\"", upgrade->shall_return ? "the old one" : master->service->program);
    int err =
        handover == NULL ? -ENOMEM : execute(master->service, upgrade->shall_return ? upgrade->old_fd : -1, handover);
    json_decref(handover);
    if (old_fd >= 0)
        close(old_fd);
    return err;
}

static void drop_old_program(bt_master *master)
{
    bt_upgrade *upgrade = &master->upgrade;
    upgrade->on_trial = false;
    if (upgrade->old_fd < 0)
        return;
    bt_master_fd_remove(master, upgrade->old_fd);
    close(upgrade->old_fd);
    upgrade->old_fd = -1;
}

static void not_changed(bt_master *master, int err)
{
    bt_upgrade *upgrade = &master->upgrade;
    char why[256];
    if (!upgrade->shall_return) {
        snprintf(why, sizeof why, "%s: %s", master->service->program, strerror(-err));
        refuse(master, why);
        return;
    }
    bt_log(BT_LOG_ERROR, "old-program-not-executed error=\"%s\"", strerror(-err));
    upgrade->shall_return = false;
    drop_old_program(master);
    bt_reload_answer(master, upgrade->serial, false, BT_WAIT_PROBATION, upgrade->failure);
}

/* With all signals blocked; those that were caught and not handled yet are handled first, for the next program does not
 * know of them. */
void bt_upgrade_execute(bt_master *master)
{
    sigset_t all, before;
    if (!bt_upgrade_is_pending(master))
        return;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    uv_run(&master->loop, UV_RUN_NOWAIT);
    if (bt_upgrade_is_pending(master) && !bt_spawn_is_pending(master)) {
        int err = change_program(master);
        not_changed(master, err);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* ---- afterwards, in the other program ---- */

static void tell_report(bt_master *master, const json_t *report)
{
    const char *message = json_string_value(json_object_get(report, "message"));
    uint64_t serial = (uint64_t) json_integer_value(json_object_get(report, "serial"));
    char text[1200];
    snprintf(text, sizeof text, "%s; the old program serves on", message == NULL ? "the upgrade failed" : message);
    bt_log(BT_LOG_ERROR, "upgrade-undone reason=\"%s\"", text);
    bt_roll_adopted(master);
    tell_all(master, false, text);
    bt_reload_answer(master, serial, false, BT_WAIT_PROBATION, text);
}

void bt_upgrade_continue(bt_master *master, const json_t *handover)
{
    bt_upgrade *upgrade = &master->upgrade;
    const json_t *report = json_object_get(handover, "report");
    const json_t *old_program = json_object_get(handover, "old_program");
    const char *version = json_string_value(json_object_get(handover, "version"));
    bt_log(BT_LOG_INFO, "adopted from=%s to=%s processes=%zu", version == NULL ? "?" : version, baton_version(),
           json_array_size(json_object_get(handover, "children")));
    if (report != NULL) {
        tell_report(master, report);
        return;
    }
    if (old_program != NULL) {
        upgrade->old_fd = number_in(old_program, "fd");
        set_inherited(upgrade->old_fd, false);
        if (bt_master_fd_add(master, upgrade->old_fd) < 0)
            bt_log(BT_LOG_WARN, "old-program-descriptor-kept-by-processes");
    }
    upgrade->on_trial = true;
    bt_roll_adopted(master);
    upgrade->serial = bt_reload_for_upgrade(master);
    bt_list *node;
    while ((node = bt_list_pop(&upgrade->waiters)) != NULL) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->serial = upgrade->serial;
        bt_list_append(&master->roll.waiters, &waiter->node);
    }
}

bool bt_upgrade_concluded(bt_master *master, uint64_t serial, bool ok, const char *message)
{
    bt_upgrade *upgrade = &master->upgrade;
    if (!upgrade->on_trial || serial < upgrade->serial)
        return upgrade->shall_return && serial <= upgrade->serial;
    if (ok || master->phase != BT_MASTER_RUNNING || upgrade->old_fd < 0) {
        drop_old_program(master);
        return false;
    }
    upgrade->on_trial = false;
    upgrade->shall_return = true;
    snprintf(upgrade->failure, sizeof upgrade->failure, "%s", message);
    return true;
}

void bt_upgrade_return(const bt_service *service, const char *why)
{
    json_t *handover = service->handover;
    int old_fd = number_in(json_object_get(handover, "old_program"), "fd");
    bt_log(BT_LOG_ERROR, "not-adopted reason=\"%s\"", why);
    if (json_object_get(handover, "old_program") == NULL)
        return; /* this is the old one */
    json_object_set_new(handover, "report", report_of(why, 0));
    json_object_del(handover, "old_program");
    int err = execute(service, old_fd, handover);
    bt_log(BT_LOG_ERROR, "old-program-not-executed error=\"%s\"", strerror(-err));
}
