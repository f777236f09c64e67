/* proc/prepare.c: makes the next generation: a helper process checks and copies the modules, because the master must
 * not block on a disk. Must not know what the generation is for. */
#include <base/clock.h>
#include <base/log.h>
#include <errno.h>
#include <proc/master_state.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bt_generation *bt_generation_ref(bt_generation *generation)
{
    generation->users++;
    return generation;
}

void bt_generation_unref(bt_master *master, bt_generation *generation)
{
    if (generation == NULL || --generation->users > 0)
        return;
    int err = bt_generation_remove(master->config->master.run_dir, generation->number);
    if (err < 0)
        bt_log(BT_LOG_WARN, "generation-not-removed generation=%llu error=\"%s\"",
               (unsigned long long) generation->number, strerror(-err));
    bt_list_remove(&generation->node);
    free(generation->modules);
    free(generation);
}

static bt_generation *new_generation(bt_master *master, uint64_t number)
{
    bt_generation *generation = calloc(1, sizeof *generation);
    bt_module_copy *modules = calloc(master->crew_count, sizeof *modules);
    if (generation == NULL || modules == NULL) {
        free(generation);
        free(modules);
        return NULL;
    }
    *generation = (bt_generation){.number = number, .users = 1, .created_ms = bt_clock_wall_ms(), .modules = modules};
    bt_list_append(&master->generations, &generation->node);
    return generation;
}

int bt_prepare_init(bt_master *master)
{
    bt_reload_job *jobs[] = {&master->roll.job, &master->roll.next_job, &master->roll.done_job};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        jobs[i]->scope = calloc(master->crew_count, sizeof *jobs[i]->scope);
        if (jobs[i]->scope == NULL)
            return -ENOMEM;
    }
    return 0;
}

void bt_prepare_free(bt_master *master)
{
    free(master->roll.job.scope);
    free(master->roll.next_job.scope);
    free(master->roll.done_job.scope);
}

/* ---- in the helper ---- */

static bool has_files(const bt_worker_config *config)
{
    return config->module != NULL || config->module_files != NULL;
}

static void send_text(int channel_fd, bt_message_type type, uint64_t value, const char *text)
{
    bt_message message = {.version = BT_CHANNEL_VERSION, .type = (uint16_t) type, .value = value};
    message.text_len = (uint16_t) strnlen(text, BT_CHANNEL_TEXT - 1);
    memcpy(message.text, text, message.text_len);
    /* Blocking is fine here; when the master is gone nobody needs the result. */
    ssize_t n = write(channel_fd, &message, offsetof(bt_message, text) + message.text_len);
    (void) n;
}

static int build_all(bt_master *master, int channel_fd)
{
    const bt_roll *roll = &master->roll;
    const char *run_dir = master->config->master.run_dir;
    char text[BT_CHANNEL_TEXT];
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_worker_config *config = master->crews[i].worker->config;
        bt_module_copy copy = {.path = ""};
        if (!roll->job.scope[i] || !has_files(config))
            continue;
        char why[BT_CHANNEL_TEXT - 80] = "";
        if (bt_generation_build(run_dir, roll->job.generation, config, &copy, why, sizeof why) < 0) {
            snprintf(text, sizeof text, "worker %.64s: %s", config->name, why);
            send_text(channel_fd, BT_MESSAGE_FAILED, i, text);
            return 1;
        }
        snprintf(text, sizeof text, "%s %s %s", copy.sha256[0] == '\0' ? "-" : copy.sha256,
                 copy.build_id[0] == '\0' ? "-" : copy.build_id, copy.path);
        send_text(channel_fd, BT_MESSAGE_MODULE, i, text);
    }
    return 0;
}

/* ---- in the master ---- */

static void on_message(bt_channel *channel, const bt_message *message, int fd)
{
    bt_master *master = channel->owner;
    bt_roll *roll = &master->roll;
    if (fd >= 0)
        close(fd);
    if (message->type == BT_MESSAGE_FAILED)
        snprintf(roll->helper_failure, sizeof roll->helper_failure, "%s", message->text);
    if (message->type != BT_MESSAGE_MODULE || message->value >= master->crew_count)
        return;
    bt_module_copy *copy = &roll->helper_result->modules[message->value];
    if (sscanf(message->text, "%64s %64s %511s", copy->sha256, copy->build_id, copy->path) < 2)
        snprintf(roll->helper_failure, sizeof roll->helper_failure, "the module helper sent nonsense");
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
    bt_reload_job empty = roll->done_job;
    roll->helper = 0;
    roll->helper_result = NULL;
    roll->done_job = roll->job;
    roll->job = roll->next_job;
    memset(empty.scope, 0, master->crew_count * sizeof *empty.scope);
    roll->next_job = (bt_reload_job){.scope = empty.scope};
    bt_reload_prepared(master, &roll->done_job, generation, why);
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
        return err;
    }
    roll->helper = pid;
    roll->helper_handles = 1;
    return 0;
}

void bt_prepare_fork(bt_master *master)
{
    bt_roll *roll = &master->roll;
    if (roll->helper != 0 || roll->helper_handles != 0)
        return; /* the one before is just being put away */
    roll->job.is_wanted = false;
    roll->helper_failure[0] = '\0';
    roll->helper_result = new_generation(master, roll->job.generation);
    int err = roll->helper_result == NULL ? -ENOMEM : start_helper(master);
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
    if (!ok && roll->helper_failure[0] != '\0')
        snprintf(why, sizeof why, "%s", roll->helper_failure);
    else if (!ok)
        snprintf(why, sizeof why, "the module helper ended: %s", bt_exit_text(status, text, sizeof text));
    conclude(master, ok ? NULL : why);
}

void bt_prepare_cancel(bt_master *master)
{
    bt_roll *roll = &master->roll;
    roll->job.is_wanted = false;
    roll->next_job.is_wanted = false;
    if (roll->helper > 0)
        kill(roll->helper, SIGKILL);
}
