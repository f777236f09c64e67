/* cli/status.c: status and generations: what runs, and what has run.
 * Must not know how the answers travel (client.h) nor how they are laid out (print_*.h). */
#include <cli/cli.h>

#include <base/clock.h>
#include <cli/client.h>
#include <cli/print_generations.h>
#include <cli/print_status.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

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
        code = bt_cli_not_running(cli, why, mistakes);
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

int bt_cli_status(bt_cli *cli)
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

static int show_generations(const bt_cli *cli, const char *pid_file, const char *mistakes)
{
    char why[512];
    int error;
    json_t *done = bt_client_query("generations", pid_file, &error, why, sizeof(why));
    if (!done && error == -ESRCH)
        return bt_cli_not_running(cli, why, mistakes);
    if (!done)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "generations: %s", why);

    int code = bt_client_code(done);
    const json_t *generations = json_object_get(done, "generations");
    if (code != BT_EXIT_DONE) {
        bt_cli_fail(cli, code, "generations: %s", bt_client_message(done));
    } else if (cli->options & BT_OPTION_JSON) {
        json_dumpf(generations, stdout, JSON_INDENT(2));
        printf("\n");
    } else {
        bt_print_generations(stdout, generations);
    }
    json_decref(done);
    return code;
}

int bt_cli_generations(bt_cli *cli)
{
    char *mistakes;
    bt_service *service = bt_cli_load_lenient(cli, &mistakes);
    if (!service)
        return BT_EXIT_USAGE;
    int code = show_generations(cli, service->config->master.pid_file, mistakes);
    free(mistakes);
    bt_cli_unload(cli, service);
    return code;
}
