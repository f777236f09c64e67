/* cli/run.c: the commands, for the baton command and for start programs alike.
 * Must not know how a service is run (proc/master.h) nor how the answers travel (client.h). */
#include <cli/cli.h>

#include <base/clock.h>
#include <baton/version.h>
#include <cli/client.h>
#include <cli/print_status.h>
#include <cli/progress.h>
#include <errno.h>
#include <poll.h>
#include <proc/master.h>
#include <proc/pidfile.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* After the master has said that all processes ended, only its own exit is missing. */
#define EXIT_MS 30000

/* ---- start ---- */

static int run_service(const bt_cli *cli, bt_service *service, bool as_daemon)
{
    if (as_daemon)
        service->config->master.daemonize = true;
    int code = bt_master_run(service);
    bt_cli_unload(cli, service);
    return code;
}

static int start(bt_cli *cli)
{
    bt_service *service = bt_cli_load(cli);
    return service ? run_service(cli, service, cli->options & BT_OPTION_DAEMON) : BT_EXIT_USAGE;
}

/* ---- stop ---- */

/* How long a stop may take without a master that tells us how it goes. */
static uint64_t longest_stop(const bt_config *config, bool graceful)
{
    uint64_t longest = config->master.stop_timeout_ms;
    for (size_t i = 0; graceful && i < config->worker_count; i++) {
        if (config->workers[i]->drain_timeout_ms > longest)
            longest = config->workers[i]->drain_timeout_ms;
    }
    return longest + config->master.kill_timeout_ms + EXIT_MS;
}

/* The socket's file may have been deleted by somebody; the master still obeys signals. */
static int stop_by_signal(const bt_cli *cli, bt_client *client, const bt_config *config, bool graceful, const char *why)
{
    int number = graceful ? SIGQUIT : SIGTERM;
    if (kill(client->master, number) < 0)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "%s; and sending it SIG%s: %s", why, sigabbrev_np(number),
                           strerror(errno));
    fprintf(stderr, "%s: %s; sent it SIG%s\n", cli->program, why, sigabbrev_np(number));
    if (bt_client_wait_gone(client, longest_stop(config, graceful)) < 0)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "the master (pid %d) has not ended", (int) client->master);
    return BT_EXIT_DONE;
}

/* The exit code a last line stands for. */
static int code_of(const json_t *done)
{
    int code = (int) json_integer_value(json_object_get(done, "code"));
    if (json_is_true(json_object_get(done, "ok")))
        return BT_EXIT_DONE;
    return code ? code : BT_EXIT_FAILED;
}

static const char *message_of(const json_t *done)
{
    const char *message = json_string_value(json_object_get(done, "message"));
    return message ? message : "";
}

static int stop_over_socket(const bt_cli *cli, bt_client *client, bool graceful)
{
    char why[512];
    bt_progress progress;
    bt_progress_init(&progress, stdout);
    json_t *request = json_pack("{s:s, s:b}", "command", "stop", "graceful", (int) graceful);
    json_t *done = bt_client_ask(client, request, bt_progress_show, &progress, why, sizeof(why));
    int code = BT_EXIT_DONE;
    if (done && code_of(done) != BT_EXIT_DONE)
        code = bt_cli_fail(cli, code_of(done), "stop: %s", message_of(done));
    else if (!done && bt_client_wait_gone(client, 1000) < 0) /* what counts is whether it is gone */
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "stop: %s", why);
    else if (bt_client_wait_gone(client, EXIT_MS) < 0)
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "stop: the master (pid %d) has not ended", (int) client->master);
    json_decref(done);
    return code;
}

/* Says on stderr why it did not work. BT_EXIT_NOT_RUNNING is left to the caller to explain, `why` has the words. */
static int stop_service(const bt_cli *cli, const bt_config *config, char *why, size_t size)
{
    bool graceful = cli->options & BT_OPTION_GRACEFUL;
    bt_client client;
    int code;
    int error = bt_client_open(&client, config->master.pid_file, why, size);
    if (error == 0)
        code = stop_over_socket(cli, &client, graceful);
    else if (error == -ESRCH)
        code = BT_EXIT_NOT_RUNNING;
    else if (error == -ENOTCONN)
        code = stop_by_signal(cli, &client, config, graceful, why);
    else
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
    bt_client_close(&client);
    return code;
}

/* With mistakes in the file nobody knows whether its pid_file is the one of the running master. */
static int say_not_running(const bt_cli *cli, const char *why, const char *mistakes)
{
    if (mistakes) {
        fputs(mistakes, stderr);
        return bt_cli_fail(cli, BT_EXIT_USAGE, "%s; but the configuration has mistakes", why);
    }
    return bt_cli_fail(cli, BT_EXIT_NOT_RUNNING, "%s", why);
}

static int stop(bt_cli *cli)
{
    char why[512];
    char *mistakes;
    bt_service *service = bt_cli_load_lenient(cli, &mistakes);
    if (!service)
        return BT_EXIT_USAGE;
    int code = stop_service(cli, service->config, why, sizeof(why));
    if (code == BT_EXIT_DONE)
        printf("stopped\n");
    else if (code == BT_EXIT_NOT_RUNNING)
        code = say_not_running(cli, why, mistakes);
    free(mistakes);
    bt_cli_unload(cli, service);
    return code;
}

/* ---- restart ---- */

/* Everything is checked before anything is stopped. */
static int restart(bt_cli *cli)
{
    char why[512];
    int error;
    bt_service *service = bt_cli_load(cli);
    if (!service)
        return BT_EXIT_USAGE;

    json_t *done = bt_client_status(service->config->master.pid_file, &error, why, sizeof(why));
    bool was_daemon = json_is_true(json_object_get(json_object_get(done, "status"), "daemon"));
    json_decref(done);
    int code = error == -ESRCH ? BT_EXIT_NOT_RUNNING : BT_EXIT_DONE;
    if (code == BT_EXIT_DONE && error < 0)
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "restart: %s", why);
    if (code == BT_EXIT_DONE)
        code = stop_service(cli, service->config, why, sizeof(why));
    if (code == BT_EXIT_NOT_RUNNING) {
        printf("%s; starting\n", why);
        code = BT_EXIT_DONE;
    }
    fflush(stdout);
    if (code != BT_EXIT_DONE) {
        bt_cli_unload(cli, service);
        return code;
    }
    return run_service(cli, service, was_daemon || cli->options & BT_OPTION_DAEMON);
}

/* ---- reload ---- */

/* 0, or the exit code after saying why there is no such worker, or no master. The master's own list counts: the file
 * may have been edited. */
static int check_worker_name(const bt_cli *cli, const char *pid_file)
{
    char why[512];
    int error;
    json_t *done = bt_client_status(pid_file, &error, why, sizeof(why));
    if (!done)
        return bt_cli_fail(cli, error == -ESRCH ? BT_EXIT_NOT_RUNNING : BT_EXIT_FAILED, "reload: %s", why);

    char names[512] = "";
    size_t used = 0;
    size_t i;
    const json_t *worker;
    bool is_known = false;
    json_array_foreach(json_object_get(json_object_get(done, "status"), "workers"), i, worker)
    {
        const char *name = json_string_value(json_object_get(worker, "name"));
        is_known = is_known || (name && strcmp(name, cli->operand) == 0);
        if (name && used < sizeof(names))
            used += (size_t) snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "", name);
    }
    json_decref(done);
    if (is_known)
        return 0;
    return bt_cli_fail(cli, BT_EXIT_USAGE, "reload: no worker \"%s\": there %s %s", cli->operand,
                       strchr(names, ',') ? "are" : "is only", names);
}

static int ask_reload(const bt_cli *cli, bt_client *client)
{
    char why[512];
    bt_progress progress;
    bool no_wait = cli->options & BT_OPTION_NO_WAIT;
    const char *wait = no_wait ? "none" : cli->options & BT_OPTION_WAIT ? "probation" : "serve";
    bt_progress_init(&progress, stdout);
    json_t *request = json_pack("{s:s, s:s?, s:s, s:b}", "command", "reload", "worker", cli->operand, "wait", wait,
                                "unlimited", (int) ((cli->options & BT_OPTION_GRACEFUL) != 0));
    json_t *done = bt_client_ask(client, request, no_wait ? NULL : bt_progress_show, &progress, why, sizeof(why));
    if (!done)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "reload: %s", why);

    int code = code_of(done);
    const char *message = message_of(done);
    if (code != BT_EXIT_DONE)
        bt_cli_fail(cli, code, "reload failed: %s", *message ? message : "no reason given");
    else if (*message)
        printf("%s\n", message);
    json_decref(done);
    return code;
}

static int reload(bt_cli *cli)
{
    char why[512];
    bt_client client;
    char *mistakes;
    bt_service *service = bt_cli_load_lenient(cli, &mistakes);
    if (!service)
        return BT_EXIT_USAGE;
    const char *pid_file = service->config->master.pid_file;
    int code = BT_EXIT_DONE;
    if (mistakes) {
        fputs(mistakes, stderr);
        code = bt_cli_fail(cli, BT_EXIT_USAGE, "reload: not done: the configuration has mistakes");
    }
    if (code == BT_EXIT_DONE && cli->operand)
        code = check_worker_name(cli, pid_file);
    if (code == BT_EXIT_DONE) {
        int error = bt_client_open(&client, pid_file, why, sizeof(why));
        code = error == 0        ? ask_reload(cli, &client)
               : error == -ESRCH ? bt_cli_fail(cli, BT_EXIT_NOT_RUNNING, "reload: %s", why)
                                 : bt_cli_fail(cli, BT_EXIT_FAILED, "reload: %s", why);
        bt_client_close(&client);
    }
    free(mistakes);
    bt_cli_unload(cli, service);
    return code;
}

/* ---- status ---- */

static void print_one_status(const bt_cli *cli, const json_t *status)
{
    bool watch = cli->options & BT_OPTION_WATCH;
    if (cli->options & BT_OPTION_JSON) {
        json_dumpf(status, stdout, watch ? JSON_COMPACT : JSON_INDENT(2));
        printf("\n");
    } else {
        if (watch && isatty(STDOUT_FILENO))
            printf("\033[H\033[2J");
        bt_print_status(stdout, status, bt_clock_wall_ms());
        if (watch && !isatty(STDOUT_FILENO))
            printf("\n");
    }
    fflush(stdout);
}

static int show_status(const bt_cli *cli, const char *pid_file, const char *mistakes)
{
    char why[512];
    int error;
    json_t *done = bt_client_status(pid_file, &error, why, sizeof(why));
    int code = BT_EXIT_DONE;
    if (done)
        print_one_status(cli, json_object_get(done, "status"));
    else if (error == -ESRCH)
        code = say_not_running(cli, why, mistakes);
    else
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "status: %s", why);
    json_decref(done);
    return code;
}

/* A second's pause that Ctrl-C ends. True when it was Ctrl-C. */
static bool wait_a_second(int signals)
{
    struct pollfd poller = {.fd = signals, .events = POLLIN};
    return poll(&poller, 1, 1000) > 0;
}

static int watch_status(const bt_cli *cli, const char *pid_file, const char *mistakes)
{
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    int signals = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    int code;
    do
        code = show_status(cli, pid_file, mistakes);
    while (code == BT_EXIT_DONE && !ferror(stdout) && !wait_a_second(signals));
    if (signals >= 0)
        close(signals);
    return code;
}

static int status(bt_cli *cli)
{
    char *mistakes;
    bt_service *service = bt_cli_load_lenient(cli, &mistakes);
    if (!service)
        return BT_EXIT_USAGE;
    const char *pid_file = service->config->master.pid_file;
    int code =
        cli->options & BT_OPTION_WATCH ? watch_status(cli, pid_file, mistakes) : show_status(cli, pid_file, mistakes);
    free(mistakes);
    bt_cli_unload(cli, service);
    return code;
}

/* ---- help, version ---- */

static int help(bt_cli *cli)
{
    if (!cli->operand) {
        bt_print_help(cli, stdout);
        return BT_EXIT_DONE;
    }
    if (strcmp(cli->operand, "settings") != 0)
        return bt_cli_fail(cli, BT_EXIT_USAGE, "no help about \"%s\", only: %s help settings", cli->operand,
                           cli->program);
    if (cli->options & BT_OPTION_MARKDOWN)
        bt_print_settings_markdown(stdout);
    else
        bt_print_settings(stdout);
    return BT_EXIT_DONE;
}

static int version(bt_cli *cli)
{
    if (cli->is_command)
        printf("baton %s\n", baton_version());
    else
        printf("%s (baton %s)\n", cli->program, baton_version());
    return BT_EXIT_DONE;
}

const bt_command bt_commands[] = {
    {"start", start, BT_OPTION_DAEMON, false, "start [-d]", "serve; in the foreground without -d"},
    {"stop", stop, BT_OPTION_GRACEFUL, false, "stop [-g]", "stop, and return when every process has ended"},
    {"restart", restart, BT_OPTION_DAEMON | BT_OPTION_GRACEFUL, false, "restart [-d] [-g]",
     "stop, then start; a daemon stays one"},
    {"reload", reload, BT_OPTION_WAIT | BT_OPTION_NO_WAIT | BT_OPTION_GRACEFUL, true,
     "reload [NAME] [-g] [--wait | --no-wait]", "renew the code; clients keep their connections"},
    {"status", status, BT_OPTION_JSON | BT_OPTION_WATCH, false, "status [--json] [-w]",
     "what runs, process by process"},
    {"check", bt_cli_check, 0, false, "check", "check the configuration and load each module, start nothing"},
    {"help", help, BT_OPTION_MARKDOWN, true, "help [settings]", "this page, or every setting"},
    {"version", version, 0, false, "version", "the version"},
    {0},
};

static int run_command(bt_cli *cli, int argc, char **argv)
{
    const bt_command *command;
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    cli->program = slash ? slash + 1 : argc > 0 ? argv[0] : "baton";
    int code = bt_cli_parse(cli, argc, argv, &command);
    return code ? code : command->run(cli);
}

int bt_command_main(int argc, char **argv)
{
    bt_cli cli = {.is_command = true, .file = "baton.ini"};
    return run_command(&cli, argc, argv);
}

int baton_run(int argc, char **argv)
{
    bt_cli cli = {.is_command = false};
    return run_command(&cli, argc, argv);
}
