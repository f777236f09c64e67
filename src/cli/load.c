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

/* Every line behind a prefix; frees `lines`. */
static void print_lines(const char *prefix, const char *kind, char *lines)
{
    char *position;
    for (char *line = lines ? strtok_r(lines, "\n", &position) : NULL; line; line = strtok_r(NULL, "\n", &position))
        fprintf(stderr, "%s%s%s%s\n", prefix ? prefix : "", prefix ? ": " : "", kind, line);
    free(lines);
}

/* Mistakes between settings have no line of their own, only the file or the program. */
static int validate(const bt_cli *cli, const bt_config *config, char *errors)
{
    char *warnings = NULL;
    int result = errors ? -1 : 0;
    if (bt_config_validate(config, cli->is_command, bt_protocol_exists, &errors, &warnings) < 0)
        result = -1;
    if (!cli->is_command && bt_start_program_check(&errors) < 0)
        result = -1;
    const char *where = cli->is_command ? cli->file : cli->program;
    print_lines(where, "", errors);
    print_lines(where, "warning: ", warnings);
    return result;
}

static bt_service *load_program(const bt_cli *cli)
{
    const char *mistakes;
    bt_service *service = bt_start_program_service(&mistakes);
    char *errors = mistakes ? strdup(mistakes) : NULL;
    return validate(cli, service->config, errors) < 0 ? NULL : service;
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
    bt_config *config = bt_config_read(cli->file, &errors);
    print_lines(NULL, "", errors);
    if (!config)
        return NULL;
    if (validate(cli, config, NULL) < 0) {
        bt_config_free(config);
        return NULL;
    }
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
    print_lines(NULL, "", *mistakes);
    *mistakes = NULL;
    return NULL;
}

void bt_cli_unload(const bt_cli *cli, bt_service *service)
{
    if (cli->is_command)
        bt_service_free(service);
}
