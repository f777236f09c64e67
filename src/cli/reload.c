/* cli/reload.c: reload, rollback and upgrade: asks for a roll, shows it, and says how it went.
 * Must not know how the answers travel (client.h). */
#include <cli/cli.h>

#include <app/settings.h>
#include <cli/client.h>
#include <cli/progress.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The names of the master's workers, and whether cli->operand is one of them. The master's own list counts: the file
 * may have been edited. */
static bool list_workers(const bt_cli *cli, const json_t *status, char *names, size_t size)
{
    size_t used = 0;
    size_t i;
    const json_t *worker;
    bool is_known = false;
    json_array_foreach(json_object_get(status, "workers"), i, worker)
    {
        const char *name = json_string_value(json_object_get(worker, "name"));
        is_known = is_known || (name && strcmp(name, cli->operand) == 0);
        if (name && used < size)
            used += (size_t) snprintf(names + used, size - used, "%s%s", i ? ", " : "", name);
    }
    return is_known;
}

/* 0, or the exit code after saying why there is no such worker, or no master. */
static int check_worker_name(const bt_cli *cli, const char *command, const bt_config *config)
{
    char why[512];
    char names[512] = "";
    int error;
    json_t *done = bt_client_status(config->master.pid_file, &error, why, sizeof(why));
    if (!done)
        return bt_cli_fail(cli, error == -ESRCH ? BT_EXIT_NOT_RUNNING : BT_EXIT_FAILED, "%s: %s", command, why);
    bool is_known = list_workers(cli, json_object_get(done, "status"), names, sizeof(names));
    json_decref(done);
    if (is_known)
        return 0;
    const char *hint = bt_config_find_worker(config, cli->operand) ? "; a `reload` without a name starts new ones" : "";
    return bt_cli_fail(cli, BT_EXIT_USAGE, "%s: no worker \"%s\": there %s %s%s", command, cli->operand,
                       strchr(names, ',') ? "are" : "is only", names, hint);
}

/* The reason, and below it what the process that was to blame has logged. */
static void print_failure(const bt_cli *cli, const char *command, const json_t *done)
{
    const char *message = bt_client_message(done);
    size_t i;
    const json_t *line;
    fflush(stdout);
    fprintf(stderr, "%s: %s failed: %s\n", cli->program, command, *message ? message : "no reason given");
    json_array_foreach(json_object_get(done, "log"), i, line)
    {
        if (json_is_string(line))
            fprintf(stderr, "  %s\n", json_string_value(line));
    }
}

/* `request` is consumed. */
static int ask(const bt_cli *cli, const char *command, json_t *request, const char *pid_file, const char *mistakes)
{
    char why[512];
    bt_client client;
    bt_progress progress;
    int error = bt_client_open(&client, pid_file, why, sizeof(why));
    if (error < 0) {
        json_decref(request);
        bt_client_close(&client);
        if (error == -ESRCH && mistakes)
            return bt_cli_not_running(cli, why, mistakes);
        return bt_cli_fail(cli, error == -ESRCH ? BT_EXIT_NOT_RUNNING : BT_EXIT_FAILED, "%s: %s", command, why);
    }
    bt_progress_init(&progress, stdout);
    bool shows = !(cli->options & BT_OPTION_NO_WAIT);
    json_t *done = bt_client_ask(&client, request, shows ? bt_progress_show : NULL, &progress, why, sizeof(why));
    bt_client_close(&client);
    if (!done)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "%s: %s", command, why);

    int code = bt_client_code(done);
    const char *message = bt_client_message(done);
    if (code != BT_EXIT_DONE)
        print_failure(cli, command, done);
    else if (*message)
        printf("%s\n", message);
    json_decref(done);
    return code;
}

/* `request` is consumed. `reads_file`: the file is read again, and one with mistakes would be refused there anyhow. */
static int roll(const bt_cli *cli, const char *command, bool reads_file, json_t *request)
{
    char *mistakes;
    bt_service *service = bt_cli_load_lenient(cli, &mistakes);
    if (!service) {
        json_decref(request);
        return BT_EXIT_USAGE;
    }
    int code = BT_EXIT_DONE;
    if (mistakes && reads_file) {
        fputs(mistakes, stderr);
        code = bt_cli_fail(cli, BT_EXIT_USAGE, "%s: not done: the configuration has mistakes", command);
    }
    if (code == BT_EXIT_DONE && cli->operand)
        code = check_worker_name(cli, command, service->config);
    if (code == BT_EXIT_DONE)
        code = ask(cli, command, request, service->config->master.pid_file, mistakes);
    else
        json_decref(request);
    free(mistakes);
    bt_cli_unload(cli, service);
    return code;
}

static const char *wait_of(const bt_cli *cli)
{
    if (cli->options & BT_OPTION_NO_WAIT)
        return "none";
    return cli->options & BT_OPTION_WAIT ? "probation" : "serve";
}

int bt_cli_reload(bt_cli *cli)
{
    return roll(cli, "reload", true,
                json_pack("{s:s, s:s?, s:s, s:b}", "command", "reload", "worker", cli->operand, "wait", wait_of(cli),
                          "unlimited", (int) ((cli->options & BT_OPTION_GRACEFUL) != 0)));
}

int bt_cli_rollback(bt_cli *cli)
{
    return roll(cli, "rollback", false,
                json_pack("{s:s, s:s?, s:s}", "command", "rollback", "worker", cli->operand, "wait", wait_of(cli)));
}

int bt_cli_upgrade(bt_cli *cli)
{
    return roll(cli, "upgrade", true, json_pack("{s:s, s:s}", "command", "upgrade", "wait", wait_of(cli)));
}
