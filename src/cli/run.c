/* cli/run.c: the table of the commands, for the baton command and for start programs alike.
 * Must not know how any of them is done, but for help and version. */
#include <cli/cli.h>

#include <baton/version.h>
#include <stdlib.h>
#include <string.h>

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
    {"start", bt_cli_start, BT_OPTION_DAEMON, false, "start [-d]", "serve; in the foreground without -d"},
    {"stop", bt_cli_stop, BT_OPTION_GRACEFUL, false, "stop [-g]", "stop, and return when every process has ended"},
    {"restart", bt_cli_restart, BT_OPTION_DAEMON | BT_OPTION_GRACEFUL, false, "restart [-d] [-g]",
     "stop, then start; a daemon stays one"},
    {"reload", bt_cli_reload, BT_OPTION_WAIT | BT_OPTION_NO_WAIT | BT_OPTION_GRACEFUL, true,
     "reload [NAME] [-g] [--wait | --no-wait]", "renew code and configuration; clients keep their connections"},
    {"rollback", bt_cli_rollback, BT_OPTION_WAIT, true, "rollback [NAME] [--wait]",
     "go back to the last generation that had proved itself"},
    {"upgrade", bt_cli_upgrade, BT_OPTION_WAIT, false, "upgrade [--wait]",
     "renew the program itself, the master too, in the same way"},
    {"status", bt_cli_status, BT_OPTION_JSON | BT_OPTION_WATCH, false, "status [--json] [-w]",
     "what runs, process by process"},
    {"generations", bt_cli_generations, BT_OPTION_JSON, false, "generations [--json]",
     "what has run and can be gone back to"},
    {"check", bt_cli_check, 0, false, "check", "try the configuration and each module; say what a reload would change"},
    {"help", help, BT_OPTION_MARKDOWN, true, "help [settings]", "this page, or every setting"},
    {"version", version, 0, false, "version", "the version"},
    {0},
};

static int run_command(bt_cli *cli, int argc, char **argv)
{
    const bt_command *command;
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    cli->program = slash ? slash + 1 : argc > 0 ? argv[0] : "baton";
    int handover_fd = -1;
    bt_upgrade_mode mode = bt_upgrade_mode_take(&handover_fd);
    cli->is_resumed = mode != BT_UPGRADE_NONE;
    int code = bt_cli_parse(cli, argc, argv, &command);
    if (code && !cli->is_resumed)
        return code;
    cli->argv = bt_cli_call(code ? "start" : command->name, "start");
    cli->check_argv = bt_cli_call(code ? "start" : command->name, "check");
    cli->program_path = argc > 0 ? bt_cli_program_path(argv[0]) : NULL;
    if (cli->is_resumed)
        code = bt_cli_resume(cli, mode, handover_fd, code ? "its command line is not understood" : NULL);
    else
        code = command->run(cli);
    free(cli->program_path);
    free(cli->argv);
    free(cli->check_argv);
    return code;
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
