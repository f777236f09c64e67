/* cli/load.c: the service a command is about, from baton.ini or from the start program that runs.
 * The only file of the command that knows there are two kinds. */
#include <cli/cli.h>

#include <app/service.h>
#include <app/settings.h>
#include <app/start_program.h>
#include <proto/protocol.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Frees `lines`. */
static void print_lines(char *lines)
{
    if (lines)
        fputs(lines, stderr);
    free(lines);
}

static bt_service *load_program(const bt_cli *cli)
{
    const char *mistakes;
    bt_service *service = bt_start_program_service(&mistakes);
    char *found = mistakes ? strdup(mistakes) : NULL;
    char *doubts = NULL;
    bool is_right = !mistakes;
    if (bt_config_validate(service->config, false, bt_protocol_exists, &found, &doubts) < 0)
        is_right = false;
    if (bt_start_program_check(&found) < 0)
        is_right = false;

    char *errors = NULL;
    char *warnings = NULL;
    bt_add_lines_take(&errors, cli->program, "", found);
    bt_add_lines_take(&warnings, cli->program, "warning: ", doubts);
    print_lines(errors);
    print_lines(warnings);
    return is_right ? service : NULL;
}

/* Who starts `baton` in the wrong directory needs the option's name more than the kernel's words. */
static bool has_file(const bt_cli *cli)
{
    if (cli->options & BT_OPTION_FILE || access(cli->file, F_OK) == 0)
        return true;
    bt_cli_fail(cli, BT_EXIT_USAGE, "no %s in this directory: say where it is with -c FILE", cli->file);
    return false;
}

bt_service *bt_cli_load(const bt_cli *cli)
{
    if (!cli->is_command)
        return load_program(cli);
    if (!has_file(cli))
        return NULL;

    char *errors;
    char *warnings;
    bt_config *config = bt_service_read_checked(cli->file, &errors, &warnings);
    print_lines(errors);
    print_lines(warnings);
    if (!config)
        return NULL;
    bt_service *service = bt_service_new_take(config);
    if (!service)
        bt_cli_fail(cli, BT_EXIT_USAGE, "out of memory");
    return service;
}

bt_service *bt_cli_load_lenient(const bt_cli *cli, char **mistakes)
{
    *mistakes = NULL;
    if (!cli->is_command) {
        const char *ignored;
        return bt_start_program_service(&ignored);
    }
    if (!has_file(cli))
        return NULL;
    bt_config *config = bt_config_read_lenient(cli->file, mistakes);
    if (config)
        return bt_service_new_take(config);
    print_lines(*mistakes);
    *mistakes = NULL;
    return NULL;
}

void bt_cli_unload(const bt_cli *cli, bt_service *service)
{
    if (cli->is_command)
        bt_service_free(service);
}

int bt_cli_not_running(const bt_cli *cli, const char *why, const char *mistakes)
{
    if (!mistakes)
        return bt_cli_fail(cli, BT_EXIT_NOT_RUNNING, "%s", why);
    fputs(mistakes, stderr);
    return bt_cli_fail(cli, BT_EXIT_USAGE, "%s; but the configuration has mistakes", why);
}
