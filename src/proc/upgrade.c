/* proc/upgrade.c: the master executes another program in its own place, and goes back when that fails.
 * Must not know what the handover holds: snapshot.c and adopt.c do. */
#include <base/failpoint.h>
#include <base/log.h>
#include <baton/version.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <proc/control.h>
#include <proc/json_text.h>
#include <proc/upgrade_internal.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FLUSH_MS 1000 /* for clients of the control socket that are still being answered */

/* ---- descriptors through execve ---- */

void bt_upgrade_set_inherited(int fd, bool inherited)
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
    bool is_list = key != NULL && strcmp(key, "fds") == 0; /* of descriptors, named or not */
    if (json_is_object(value)) {
        json_object_foreach((json_t *) (uintptr_t) value, name, member)
            inherit_all(member, is_list ? "fd" : name, inherited);
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, member) inherit_all(member, is_list ? "fd" : NULL, inherited);
    } else if (json_is_integer(value) && key != NULL && strcmp(key, "fd") == 0) {
        bt_upgrade_set_inherited((int) json_integer_value(value), inherited);
    }
}

/* Becomes `program`. Returns a negative errno when that is not possible; then nothing has changed. */
static int execute(const bt_service *service, int program_fd, const json_t *handover)
{
    int fd = bt_handover_write(handover);
    if (fd < 0)
        return fd;
    inherit_all(handover, NULL, true);
    bt_upgrade_set_inherited(fd, true);
    fflush(NULL);
    int err = bt_upgrade_mode_set(BT_UPGRADE_ADOPT, fd);
    if (err == 0)
        err = bt_failpoint("upgrade:before-execute");
    if (err < 0)
        errno = -err;
    else if (program_fd >= 0)
        fexecve(program_fd, service->argv, environ);
    else
        execv(service->program, service->argv);
    err = -errno;
    inherit_all(handover, NULL, false);
    close(fd);
    int clean_err = bt_upgrade_mode_set(BT_UPGRADE_NONE, -1);
    return err == 0 ? clean_err : err;
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

void bt_upgrade_progress(bt_master *master, const char *step, const char *detail)
{
    bt_list_each (node, &master->upgrade.waiters) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->on_progress(waiter, "", -1, step, 0, 0, detail);
    }
}

void bt_upgrade_refuse(bt_master *master, const char *why)
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
    else if (master->service->program == NULL || master->service->argv == NULL || master->service->check_argv == NULL)
        why = "it is not known which program this is";
    if (why != NULL) {
        waiter->on_done(waiter, false, master->last_generation, why, "");
        return;
    }
    bt_roll_end_patience(master); /* a roll that waits without limit would be in the way for ever */
    bt_list_append(&upgrade->waiters, &waiter->node);
    waiter->on_progress(waiter, "", -1, "checking", 0, 0, master->service->program);
    if (upgrade->checker == 0)
        upgrade->is_wanted = true; /* else: it is being checked */
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

void bt_upgrade_cancel(bt_master *master, const char *why)
{
    bt_upgrade *upgrade = &master->upgrade;
    upgrade->is_wanted = upgrade->is_checked = upgrade->shall_return = false;
    drop_old_program(master);
    bt_upgrade_kill_checker(upgrade);
    tell_all(master, false, why);
}

/* ---- the change ---- */

bool bt_upgrade_is_pending(const bt_master *master)
{
    const bt_upgrade *upgrade = &master->upgrade;
    const bt_roll *roll = &master->roll;
    bool is_idle = roll->state == BT_ROLL_IDLE && roll->helper == 0 && roll->helper_handles == 0 &&
                   !roll->jobs[BT_JOB_NOW].is_wanted && upgrade->checker == 0;
    return master->phase == BT_MASTER_RUNNING && is_idle && (upgrade->is_checked || upgrade->shall_return);
}

/* For the old program. generation 0: this one could not even adopt, and nothing has been rolled. */
static json_t *report_of(const bt_upgrade *upgrade, const char *log)
{
    return json_pack("{s:o, s:o, s:I, s:b, s:I}", "message", bt_json_text(upgrade->failure), "log", bt_json_text(log),
                     "generation", (json_int_t) upgrade->failed, "took_traffic", upgrade->took_traffic, "old_last",
                     (json_int_t) upgrade->old_last);
}

/* The handover for the next program, or for the old one when this one has failed. */
static json_t *describe(bt_master *master, int old_fd)
{
    bt_upgrade *upgrade = &master->upgrade;
    json_t *handover = bt_snapshot(master);
    int err = handover == NULL ? -1 : 0;
    if (err == 0 && upgrade->shall_return)
        err = json_object_set_new(handover, "report", report_of(upgrade, master->roll.failure_log));
    else if (err == 0)
        err = json_object_set_new(
            handover, "old_program",
            json_pack("{s:i, s:I}", "fd", old_fd, "last_process", (json_int_t) master->last_process));
    if (err == 0)
        return handover;
    json_decref(handover);
    return NULL;
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

static void not_changed(bt_master *master, int err)
{
    bt_upgrade *upgrade = &master->upgrade;
    char why[256];
    if (!upgrade->shall_return) {
        snprintf(why, sizeof why, "%s: %s", master->service->program, strerror(-err));
        bt_upgrade_refuse(master, why);
        return;
    }
    /* Then this one does what it can: its own processes run the code from before. */
    bt_log(BT_LOG_ERROR, "old-program-not-executed error=\"%s\"", strerror(-err));
    upgrade->shall_return = false;
    drop_old_program(master);
    bt_roll_go_back(master, upgrade->failed, upgrade->took_traffic, upgrade->failure);
}

/* A client that has not read its answer yet would get the rest of it from nobody. */
static bool must_flush(bt_master *master)
{
    bt_upgrade *upgrade = &master->upgrade;
    if (!bt_control_has_unsent(master))
        return false;
    uint64_t now_ms = uv_now(&master->loop);
    if (upgrade->flush_by_ms == 0) {
        upgrade->flush_by_ms = now_ms + FLUSH_MS;
        bt_upgrade_wake_in(master, FLUSH_MS);
    }
    return now_ms < upgrade->flush_by_ms;
}

/* What was checked is what is executed. */
static bool is_checked_file(const bt_master *master)
{
    const struct stat *checked = &master->upgrade.program;
    struct stat now;
    return stat(master->service->program, &now) == 0 && now.st_dev == checked->st_dev &&
           now.st_ino == checked->st_ino && now.st_size == checked->st_size &&
           now.st_mtim.tv_sec == checked->st_mtim.tv_sec && now.st_mtim.tv_nsec == checked->st_mtim.tv_nsec &&
           now.st_ctim.tv_sec == checked->st_ctim.tv_sec && now.st_ctim.tv_nsec == checked->st_ctim.tv_nsec;
}

static void execute_checked(bt_master *master)
{
    bt_upgrade *upgrade = &master->upgrade;
    if (!upgrade->shall_return && !is_checked_file(master)) {
        upgrade->is_checked = false;
        upgrade->is_wanted = true; /* a newer one was put there meanwhile */
        return;
    }
    upgrade->flush_by_ms = 0;
    uv_timer_stop(&upgrade->patience);
    bt_master_give_reserve(master);
    int err = change_program(master);
    bt_master_take_reserve(master);
    not_changed(master, err);
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
    if (bt_upgrade_is_pending(master) && !bt_spawn_is_pending(master) && !must_flush(master))
        execute_checked(master);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* ---- the trial ---- */

bool bt_upgrade_failed(bt_master *master, uint64_t serial, uint64_t generation, bool took_traffic, const char *reason)
{
    bt_upgrade *upgrade = &master->upgrade;
    if (upgrade->shall_return)
        return true;
    if (!upgrade->on_trial || serial < upgrade->serial || master->phase != BT_MASTER_RUNNING || upgrade->old_fd < 0)
        return false;
    upgrade->on_trial = false;
    upgrade->shall_return = true;
    upgrade->failed = generation;
    upgrade->took_traffic = took_traffic;
    snprintf(upgrade->failure, sizeof upgrade->failure, "%s", reason);
    bt_prepare_cancel(master);
    bt_upgrade_kill_checker(upgrade);
    for (size_t i = 0; i < master->crew_count; i++) {
        for (size_t j = 0; j < master->crews[i]->slot_count; j++)
            bt_slot_cancel_spawn(master->crews[i]->slots[j]); /* it would be one more of this program */
    }
    return true;
}

void bt_upgrade_served(bt_master *master, uint64_t serial)
{
    if (master->upgrade.on_trial && serial >= master->upgrade.serial && !master->roll.in_probation)
        drop_old_program(master);
}

void bt_upgrade_superseded(bt_master *master)
{
    if (master->upgrade.on_trial && master->roll.serial >= master->upgrade.serial)
        drop_old_program(master);
}

/* ---- afterwards, in the other program ---- */

static uint64_t uint_in(const json_t *object, const char *key)
{
    return (uint64_t) json_integer_value(json_object_get(object, key));
}

static void mark_stale(bt_master *master, uint64_t old_last)
{
    bt_list_each (node, &master->children) {
        bt_child *child = bt_container(node, bt_child, node);
        child->is_stale = child->number > old_last;
    }
}

static void go_back(bt_master *master, const json_t *report, const char *from)
{
    const char *message = json_string_value(json_object_get(report, "message"));
    uint64_t generation = uint_in(report, "generation");
    char text[1200];
    snprintf(text, sizeof text, "%s; %s instead of %s again", message == NULL ? "the upgrade failed" : message,
             baton_version(), from);
    bt_log(BT_LOG_ERROR, "upgrade-undone reason=\"%s\"", text);
    const char *log = json_string_value(json_object_get(report, "log"));
    snprintf(master->roll.failure_log, sizeof master->roll.failure_log, "%s", log == NULL ? "" : log);
    bt_list_move_all(&master->roll.waiters, &master->upgrade.waiters);
    mark_stale(master, generation == 0 ? master->last_process : uint_in(report, "old_last"));
    bt_roll_go_back(master, generation, json_is_true(json_object_get(report, "took_traffic")), text);
}

static void take_old_program(bt_master *master, const json_t *old_program, const char *version)
{
    bt_upgrade *upgrade = &master->upgrade;
    upgrade->old_fd = (int) uint_in(old_program, "fd");
    upgrade->old_last = uint_in(old_program, "last_process");
    bt_upgrade_set_inherited(upgrade->old_fd, false);
    if (bt_master_fd_add(master, upgrade->old_fd) < 0)
        bt_log(BT_LOG_WARN, "old-program-descriptor-kept-by-processes");
    bt_log(BT_LOG_INFO, "on-trial old_version=%s", version);
}

void bt_upgrade_continue(bt_master *master, const json_t *handover)
{
    bt_upgrade *upgrade = &master->upgrade;
    const json_t *report = json_object_get(handover, "report");
    const json_t *old_program = json_object_get(handover, "old_program");
    const char *version = json_string_value(json_object_get(handover, "version"));
    version = version == NULL ? "?" : version;
    bt_log(BT_LOG_INFO, "adopted from=%s to=%s processes=%zu", version, baton_version(),
           json_array_size(json_object_get(handover, "children")));
    bt_roll_adopted(master);
    if (report != NULL) {
        go_back(master, report, version);
        return;
    }
    if (old_program != NULL)
        take_old_program(master, old_program, version);
    upgrade->on_trial = true;
    upgrade->serial = bt_reload_for_upgrade(master);
    bt_list *node;
    while ((node = bt_list_pop(&upgrade->waiters)) != NULL) {
        bt_waiter *waiter = bt_container(node, bt_waiter, node);
        waiter->serial = upgrade->serial;
        bt_list_append(&master->roll.waiters, &waiter->node);
    }
}

void bt_upgrade_return(const bt_service *service, const char *why)
{
    json_t *handover = service->handover;
    const json_t *old_program = json_object_get(handover, "old_program");
    bt_log(BT_LOG_ERROR, "not-adopted reason=\"%s\"", why);
    if (old_program == NULL)
        return; /* this is the old one */
    int old_fd = (int) uint_in(old_program, "fd");
    bt_upgrade failed = {0};
    snprintf(failed.failure, sizeof failed.failure, "%s", why);
    bt_upgrade_set_inherited(old_fd, false); /* what is executed need not stay open */
    int err = json_object_set_new(handover, "report", report_of(&failed, "")) < 0 ? -ENOMEM : 0;
    json_object_del(handover, "old_program");
    if (err == 0)
        err = execute(service, old_fd, handover);
    bt_log(BT_LOG_ERROR, "old-program-not-executed error=\"%s\"", strerror(-err));
}
