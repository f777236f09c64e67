/* cli/cli.h: the words of the command line, shared by the files of this folder. */
#ifndef BT_CLI_CLI_H
#define BT_CLI_CLI_H

#include <baton/types.h>
#include <proc/upgrade.h>
#include <proc/worker.h>
#include <stdio.h>

/* Exit codes that scripts can trust; documented in --help. */
enum {
    BT_EXIT_DONE = 0,
    BT_EXIT_FAILED = 1,
    BT_EXIT_USAGE = 2,
    BT_EXIT_NOT_RUNNING = 3,
};

enum {
    BT_OPTION_FILE = 1 << 0,
    BT_OPTION_DAEMON = 1 << 1,
    BT_OPTION_GRACEFUL = 1 << 2,
    BT_OPTION_JSON = 1 << 3,
    BT_OPTION_WATCH = 1 << 4,
    BT_OPTION_WAIT = 1 << 5,
    BT_OPTION_NO_WAIT = 1 << 6,
    BT_OPTION_MARKDOWN = 1 << 7,
    BT_OPTION_HELP = 1 << 8,
    BT_OPTION_VERSION = 1 << 9,
};

typedef struct bt_cli {
    const char *program; /* argv[0] without directories: begins every message */
    bool is_command;     /* the baton command, which reads a file; else a start program */
    const char *file;    /* -c FILE as given */
    unsigned options;    /* BT_OPTION_*, those given */
    char **argv;         /* as it was called; `start` instead of `restart`. NULL: unknown */
    char **check_argv;   /* the same with `check` */
    bool is_resumed;     /* a running master has executed us */
    char *program_path;  /* absolute, NULL when it is not known: what an upgrade executes */
    const char *operand; /* worker of `reload` and `rollback`, topic of `help`; NULL */
} bt_cli;

typedef struct bt_command {
    const char *name;
    int (*run)(bt_cli *cli); /* returns the exit code */
    unsigned options;        /* BT_OPTION_* that go with it; -c, -h and -V always do */
    bool takes_operand;
    const char *usage; /* "reload [NAME] [-g] [--wait | --no-wait]" */
    const char *doc;
} bt_command;

/* Ends with name NULL. */
extern const bt_command bt_commands[];

/* The baton command: main() without the library around it. Returns the exit code. */
int bt_command_main(int argc, char **argv);

/* "PROGRAM: text" on stderr. Returns `code`. */
int bt_cli_fail(const bt_cli *cli, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* options.c: fills `cli`, and *command with what to do. Returns 0, or BT_EXIT_USAGE after saying what is wrong. */
BATON_NODISCARD int bt_cli_parse(bt_cli *cli, int argc, char **argv, const bt_command **command);

/* help.c */
void bt_print_help(const bt_cli *cli, FILE *out);
void bt_print_settings(FILE *out);
void bt_print_settings_markdown(FILE *out);

/* load.c: the service from the file or the start program. Mistakes are printed and NULL returned: exit code 2. */
bt_service *bt_cli_load(const bt_cli *cli);
void bt_cli_unload(const bt_cli *cli, bt_service *service);

/* What is needed to find a running master, even when the file has mistakes: the config and these as text, malloc'ed
 * (NULL: none). NULL after saying that the file cannot be read. */
bt_service *bt_cli_load_lenient(const bt_cli *cli, char **mistakes);

/* Says that nothing runs, and returns the exit code. With mistakes in the file (NULL: none) nobody knows whether its
 * pid_file is the running master's: those are printed and the code is BT_EXIT_USAGE. */
int bt_cli_not_running(const bt_cli *cli, const char *why, const char *mistakes);

/* Runs the master, then frees the service. Returns the exit code. */
int bt_cli_run_service(const bt_cli *cli, bt_service *service);

/* Copies and loads every module as a reload does, in children that may crash; says what is wrong with them. Returns the
 * exit code. */
int bt_cli_try_modules(const bt_cli *cli, const bt_service *service);

/* resume.c: the program that argv[0] means, malloc'ed; symlinks are kept. NULL when it is not found. */
char *bt_cli_program_path(const char *name);

/* How this program was called, with another word instead of the command; malloc'ed as one piece. NULL: unknown. */
char **bt_cli_call(const char *command, const char *instead);

/* A running master has executed us; `mistake`: why that cannot be, or NULL. Returns the exit code. */
int bt_cli_resume(bt_cli *cli, bt_upgrade_mode mode, int fd, const char *mistake);

/* The commands. Each returns the exit code. */
int bt_cli_start(bt_cli *cli); /* start_stop.c */
int bt_cli_stop(bt_cli *cli);
int bt_cli_restart(bt_cli *cli);
int bt_cli_reload(bt_cli *cli); /* reload.c */
int bt_cli_rollback(bt_cli *cli);
int bt_cli_upgrade(bt_cli *cli);
int bt_cli_status(bt_cli *cli); /* status.c */
int bt_cli_generations(bt_cli *cli);
int bt_cli_check(bt_cli *cli); /* check.c */

#endif
