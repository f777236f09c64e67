/* cli/start_stop.c: start, stop and restart.
 * Must not know how a service is run (proc/master.h) nor how the answers travel (client.h). */
#include <cli/cli.h>

#include <cli/client.h>
#include <cli/progress.h>
#include <errno.h>
#include <proc/master.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* After the master has said that all processes ended, only its own exit is missing. */
#define EXIT_MS 30000

/* ---- start ---- */

int bt_cli_run_service(const bt_cli *cli, bt_service *service)
{
    service->program = cli->program_path;
    service->argv = cli->argv;
    service->check_argv = cli->check_argv;
    int code = bt_master_run(service);
    bt_cli_unload(cli, service);
    return code;
}

static int run_service(const bt_cli *cli, bt_service *service, bool as_daemon)
{
    if (as_daemon)
        service->config->master.daemonize = true;
    return bt_cli_run_service(cli, service);
}

int bt_cli_start(bt_cli *cli)
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

static int stop_over_socket(const bt_cli *cli, bt_client *client, bool graceful)
{
    char why[512];
    bt_progress progress;
    bt_progress_init(&progress, stdout);
    json_t *request = json_pack("{s:s, s:b}", "command", "stop", "graceful", (int) graceful);
    json_t *done = bt_client_ask(client, request, bt_progress_show, &progress, why, sizeof(why));
    int code = BT_EXIT_DONE;
    if (done && bt_client_code(done) != BT_EXIT_DONE)
        code = bt_cli_fail(cli, bt_client_code(done), "stop: %s", bt_client_message(done));
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

int bt_cli_stop(bt_cli *cli)
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
        code = bt_cli_not_running(cli, why, mistakes);
    free(mistakes);
    bt_cli_unload(cli, service);
    return code;
}

/* ---- restart ---- */

/* Everything is checked before anything is stopped. */
int bt_cli_restart(bt_cli *cli)
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
