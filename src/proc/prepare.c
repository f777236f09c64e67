/* proc/prepare.c: makes the next generation: a helper process checks and copies the modules, because the master must
 * not block on a disk. Must not know what the generation is for. */
#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <netdb.h>
#include <proc/master_parts.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- in the helper ---- */

static bool has_files(const bt_worker_config *config)
{
    return config->module != NULL || config->module_files != NULL;
}

/* Blocking is fine here; when the master is gone nobody needs the result. */
static void send_text(int channel_fd, bt_message_type type, uint64_t value, const char *text)
{
    (void) !bt_channel_send_blocking(channel_fd, type, value, text, -1);
}

/* The text travels as a file, because messages are short; the master parses it again, without looking at anything else
 * that could block. */
static int send_config(int channel_fd, const char *text)
{
    int fd = memfd_create("baton-config", MFD_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL || fputs(text, file) < 0 || fflush(file) != 0)
        return -errno;
    return bt_channel_send_blocking(channel_fd, BT_MESSAGE_CONFIG, 0, NULL, fd);
}

/* NULL after telling the master what is wrong. */
static const bt_config *read_again(const bt_master *master, int channel_fd)
{
    char *errors = NULL;
    const bt_config *config = master->service->read_config(master->config->file, &errors);
    int err = config == NULL ? 0 : send_config(channel_fd, config->text);
    if (config != NULL && err == 0)
        return config;
    send_text(channel_fd, BT_MESSAGE_FAILED, 0, errors != NULL ? errors : strerror(err < 0 ? -err : ENOMEM));
    return NULL;
}

static bool takes_part(const bt_master *master, const char *name)
{
    const bt_crew *crew = bt_crew_find(master, name);
    return crew == NULL ? master->roll.jobs[BT_JOB_NOW].everything : crew->takes_part[BT_JOB_NOW];
}

static int build_one(const bt_master *master, int channel_fd, const bt_worker_config *config, size_t index)
{
    char why[BT_CHANNEL_TEXT - 80] = "";
    char text[BT_CHANNEL_TEXT];
    bt_module_copy copy = {.path = ""};
    uint64_t number = master->roll.jobs[BT_JOB_NOW].generation;
    if (bt_generation_build(master->config->master.run_dir, number, config, &copy, why, sizeof why) < 0) {
        snprintf(text, sizeof text, "worker %.64s: %s", config->name, why);
        send_text(channel_fd, BT_MESSAGE_FAILED, index, text);
        return -1;
    }
    snprintf(text, sizeof text, "%s %s %s", copy.sha256[0] == '\0' ? "-" : copy.sha256,
             copy.build_id[0] == '\0' ? "-" : copy.build_id, copy.path);
    send_text(channel_fd, BT_MESSAGE_MODULE, index, text);
    return 0;
}

/* Looks up a name that has to be listened on: the master must not wait for a name server. 0, or -1 after telling. */
static int resolve_one(const bt_master *master, int channel_fd, const bt_worker_config *config, size_t index)
{
    char why[256];
    char text[BT_CHANNEL_TEXT];
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (config->listen == NULL || !bt_listen_address_is_name(&config->address) ||
        bt_listeners_find(master, config) != NULL)
        return 0;
    int err = bt_listen_address_resolve(&config->address, &address, &len, why, sizeof why);
    if (err < 0) {
        snprintf(text, sizeof text, "worker %.64s: %s", config->name, why);
        send_text(channel_fd, BT_MESSAGE_FAILED, index, text);
        return -1;
    }
    if (getnameinfo((struct sockaddr *) &address, len, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
        send_text(channel_fd, BT_MESSAGE_ADDRESS, index, text);
    return 0;
}

/* The helper's exit code. It ends without freeing anything. */
static int build_all(const bt_master *master, int channel_fd)
{
    bool is_first = master->current == NULL; /* has just been read by the command */
    const bt_config *config = master->config;
    if (!is_first && master->service->read_config != NULL)
        config = read_again(master, channel_fd);
    if (config == NULL)
        return 1;
    for (size_t i = 0; i < config->worker_count; i++) {
        const bt_worker_config *worker = config->workers[i];
        if (!takes_part(master, worker->name))
            continue;
        if (!is_first && resolve_one(master, channel_fd, worker, i) < 0)
            return 1;
        if (has_files(worker) && build_one(master, channel_fd, worker, i) < 0)
            return 1;
    }
    return 0;
}

/* ---- in the master ---- */

static void helper_failed(bt_roll *roll, const char *why)
{
    if (roll->helper_failure[0] == '\0')
        snprintf(roll->helper_failure, sizeof roll->helper_failure, "%s", why);
}

static char *read_text(int fd)
{
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0 || info.st_size < 0)
        return NULL;
    size_t size = (size_t) info.st_size;
    char *text = bt_malloc(size + 1);
    if (text == NULL || pread(fd, text, size, 0) != (ssize_t) size) {
        free(text);
        return NULL;
    }
    text[size] = '\0';
    return text;
}

static void take_config(bt_master *master, int fd)
{
    bt_roll *roll = &master->roll;
    char *errors = NULL;
    char *text = read_text(fd);
    bt_config *config = text == NULL ? NULL : master->service->parse_config(text, master->config, &errors);
    if (config == NULL || roll->helper_result->config != NULL) {
        helper_failed(roll, errors != NULL ? errors : "the configuration cannot be received");
        if (config != NULL)
            master->service->free_config(config);
    } else if (bt_generation_set_config(roll->helper_result, config, true) < 0) {
        helper_failed(roll, "out of memory");
    }
    free(errors);
    free(text);
}

static void take_module(bt_roll *roll, const bt_message *message)
{
    bt_generation *generation = roll->helper_result;
    if (message->value >= generation->module_count) {
        helper_failed(roll, "the module helper sent nonsense");
        return;
    }
    bt_module_copy *copy = &generation->modules[message->value];
    if (sscanf(message->text, "%64s %64s %511s", copy->sha256, copy->build_id, copy->path) < 2)
        helper_failed(roll, "the module helper sent nonsense");
    if (strcmp(copy->sha256, "-") == 0)
        copy->sha256[0] = '\0';
    if (strcmp(copy->build_id, "-") == 0)
        copy->build_id[0] = '\0';
}

static void take_address(bt_roll *roll, const bt_message *message)
{
    const bt_config *config = roll->helper_result->config;
    if (config == NULL || message->value >= config->worker_count) {
        helper_failed(roll, "the module helper sent nonsense");
        return;
    }
    bt_listen_address *address = &config->workers[message->value]->address;
    snprintf(address->resolved, sizeof address->resolved, "%.*s", (int) sizeof address->resolved - 1, message->text);
}

static void on_message(bt_channel *channel, const bt_message *message, int fd)
{
    bt_master *master = channel->owner;
    bt_roll *roll = &master->roll;
    if (message->type == BT_MESSAGE_FAILED)
        helper_failed(roll, message->text);
    else if (message->type == BT_MESSAGE_CONFIG)
        take_config(master, fd);
    else if (message->type == BT_MESSAGE_MODULE)
        take_module(roll, message);
    else if (message->type == BT_MESSAGE_ADDRESS)
        take_address(roll, message);
    if (fd >= 0)
        close(fd);
}

static void on_end(bt_channel *channel)
{
    uv_poll_stop(&channel->poll); /* its exit is what counts */
}

static void channel_closed(bt_channel *channel)
{
    bt_master *master = channel->owner;
    master->roll.helper_handles = 0;
}

/* Hands the result on. What was asked for meanwhile becomes the job first, because the roll may ask for more. */
static void conclude(bt_master *master, const char *why)
{
    bt_roll *roll = &master->roll;
    bt_generation *generation = roll->helper_result;
    roll->helper = 0;
    roll->helper_result = NULL;
    roll->jobs[BT_JOB_DONE] = roll->jobs[BT_JOB_NOW];
    roll->jobs[BT_JOB_NOW] = roll->jobs[BT_JOB_NEXT];
    roll->jobs[BT_JOB_NEXT] = (bt_reload_job){0};
    for (size_t i = 0; i < master->crew_count; i++) {
        bool *takes_part = master->crews[i]->takes_part;
        takes_part[BT_JOB_DONE] = takes_part[BT_JOB_NOW];
        takes_part[BT_JOB_NOW] = takes_part[BT_JOB_NEXT];
        takes_part[BT_JOB_NEXT] = false;
    }
    bt_reload_prepared(master, generation, why);
}

static int start_helper(bt_master *master)
{
    bt_roll *roll = &master->roll;
    int pair[2];
    int err = bt_channel_pair(pair);
    if (err < 0)
        return err;
    const int keep[] = {pair[1], master->log_fd};
    pid_t pid = bt_fork_clean(master, keep, sizeof keep / sizeof *keep);
    if (pid == 0) {
        close(pair[0]);
        _exit(build_all(master, pair[1]));
    }
    close(pair[1]);
    roll->helper_channel = (bt_channel){.on_message = on_message, .on_end = on_end, .owner = master};
    err = pid < 0 ? (int) pid : bt_master_fd_add(master, pair[0]);
    if (err == 0)
        err = bt_channel_start(&roll->helper_channel, &master->loop, pair[0]);
    if (err < 0) {
        bt_master_fd_remove(master, pair[0]);
        close(pair[0]);
        if (pid > 0) {
            kill(pid, SIGKILL); /* nobody would ever reap it */
            waitpid(pid, NULL, 0);
        }
        return err;
    }
    roll->helper = pid;
    roll->helper_handles = 1;
    return 0;
}

/* The record that the helper's messages fill. The first generation has the configuration of the start. */
static int make_result(bt_master *master)
{
    bt_roll *roll = &master->roll;
    roll->helper_failure[0] = '\0';
    roll->helper_result = bt_generation_new(master, roll->jobs[BT_JOB_NOW].generation);
    if (roll->helper_result == NULL)
        return -ENOMEM;
    if (master->current != NULL && master->service->read_config != NULL)
        return 0;
    return bt_generation_set_config(roll->helper_result, master->config, false);
}

void bt_prepare_fork(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (roll->helper != 0 || roll->helper_handles != 0)
        return; /* the one before is just being put away */
    roll->jobs[BT_JOB_NOW].is_wanted = false;
    int err = make_result(master);
    if (err == 0)
        err = start_helper(master);
    if (err == 0)
        return;
    char why[128];
    snprintf(why, sizeof why, "cannot start the module helper: %s", strerror(-err));
    conclude(master, why);
}

void bt_prepare_exited(bt_master *master, int status)
{
    bt_roll *roll = &master->roll;
    char why[sizeof roll->helper_failure + 64] = "";
    char text[64];
    bt_channel_read_rest(&roll->helper_channel);
    bt_master_fd_remove(master, roll->helper_channel.fd);
    bt_channel_close(&roll->helper_channel, channel_closed);
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0 && roll->helper_failure[0] == '\0';
    if (ok && roll->helper_result->config == NULL)
        helper_failed(roll, "the module helper sent no configuration");
    ok = ok && roll->helper_failure[0] == '\0';
    if (!ok && roll->helper_failure[0] != '\0')
        snprintf(why, sizeof why, "%s", roll->helper_failure);
    else if (!ok)
        snprintf(why, sizeof why, "the module helper ended: %s", bt_exit_text(status, text, sizeof text));
    conclude(master, ok ? NULL : why);
}

void bt_prepare_give_up(bt_master *master, const char *why)
{
    bt_roll *roll = &master->roll;
    if (roll->helper <= 0)
        return;
    snprintf(roll->helper_failure, sizeof roll->helper_failure, "%s", why);
    kill(roll->helper, SIGKILL);
}

void bt_prepare_cancel(bt_master *master)
{
    bt_roll *roll = &master->roll;
    roll->jobs[BT_JOB_NOW].is_wanted = false;
    roll->jobs[BT_JOB_NEXT].is_wanted = false;
    if (roll->helper > 0)
        kill(roll->helper, SIGKILL);
}
