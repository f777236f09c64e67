/* cli/help.c: --help, and the settings as text for people and as Markdown for docs/settings.md.
 * Must not know a setting by name: the tables have them all. */
#include <cli/cli.h>

#include <app/settings.h>
#include <string.h>

#define WIDTH 100

void bt_print_help(const bt_cli *cli, FILE *out)
{
    fprintf(out, "usage: %s %sCOMMAND [OPTIONS]\n\ncommands:\n", cli->program, cli->is_command ? "[-c FILE] " : "");
    for (const bt_command *command = bt_commands; command->name; command++)
        fprintf(out, "  %-42s  %s\n", command->usage, command->doc);
    fprintf(out, "\noptions:\n");
    if (cli->is_command)
        fprintf(out, "  -c, --config FILE   the configuration (baton.ini)\n");
    fprintf(out,
            "  -d, --daemon        start, restart: go to the background when the service is up\n"
            "  -g, --graceful      stop, restart: let requests finish for as long as drain_timeout\n"
            "                      reload: wait without limit for what cannot be passed on\n"
            "      --wait          reload, rollback, upgrade: return when the new processes have passed their "
            "probation\n"
            "      --no-wait       reload: return at once\n"
            "      --json          status, generations: as JSON; status -w: one line a second\n"
            "  -w, --watch         status: again every second, until Ctrl-C\n"
            "  -h, --help [settings]\n"
            "  -V, --version\n"
            "\nexit codes:\n"
            "  0  done; after a reload, rollback or upgrade: the code asked for serves in every process\n"
            "  1  failed: could not start, already running, nothing to go back to, a reload or upgrade failed (the\n"
            "     old code goes on serving)\n"
            "  2  wrong usage or configuration; nothing was done\n"
            "  3  not running (all but start, restart, check, help, version)\n");
}

/* `text` as a block whose lines begin behind `indent` blanks; the first one is there already. */
static void print_wrapped(FILE *out, const char *text, int indent)
{
    int at = indent;
    while (*text) {
        int len = (int) strcspn(text, " ");
        if (at > indent && at + 1 + len > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        }
        at += fprintf(out, "%s%.*s", at > indent ? " " : "", len, text);
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static const char *type_name(bt_setting_type type)
{
    switch (type) {
    case BT_SETTING_STRING:
        return "text";
    case BT_SETTING_PATH:
        return "path";
    case BT_SETTING_PATHS:
        return "paths";
    case BT_SETTING_BOOL:
        return "yes or no";
    case BT_SETTING_INT:
        return "number";
    case BT_SETTING_TIME:
        return "time";
    case BT_SETTING_SIZE:
        return "size";
    case BT_SETTING_CHOICE:
        return "one of";
    case BT_SETTING_LISTEN:
        return "address";
    }
    return "";
}

/* "number, 1 to 1024", "one of ready-first, stop-first" */
static void describe_value(const bt_setting *setting, char *out, size_t size)
{
    char range[80];
    bt_setting_range(setting, range, sizeof(range));
    const char *type = setting->choices ? "one of" : type_name(setting->type);
    snprintf(out, size, "%s%s%s", type, *range ? (setting->choices ? " " : ", ") : "", range);
}

static void print_table(FILE *out, const bt_setting *table)
{
    char value[160];
    for (const bt_setting *setting = table; setting->name; setting++) {
        describe_value(setting, value, sizeof(value));
        fprintf(out, "  %-20s%s; default: %s%s\n%22s", setting->name, value,
                setting->fallback ? setting->fallback : "not set",
                setting->needs_restart ? "; at the next restart" : "", "");
        print_wrapped(out, setting->doc, 22);
    }
}

void bt_print_settings(FILE *out)
{
    fprintf(out, "Times: 500ms, 10s, 2m, 1h; a bare number counts seconds. Sizes: bytes, or 16k, 10m, 1g.\n"
                 "Paths are relative to the configuration file, or to a start program's directory.\n"
                 "A reload takes over every setting but those that say \"at the next restart\".\n\n"
                 "[baton]\n");
    print_table(out, bt_master_settings);
    fprintf(out, "\n[worker NAME]   letters, digits, '.', '_', '-', up to 63; one section for each worker\n");
    print_table(out, bt_worker_settings);
}

static void print_markdown_table(FILE *out, const bt_setting *table)
{
    char value[160];
    fprintf(out, "| setting | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for (const bt_setting *setting = table; setting->name; setting++) {
        describe_value(setting, value, sizeof(value));
        fprintf(out, "| `%s` | %s | %s%s%s | %s%s |\n", setting->name, value, setting->fallback ? "`" : "",
                setting->fallback ? setting->fallback : "not set", setting->fallback ? "`" : "", setting->doc,
                setting->needs_restart ? " Changes at the next restart." : "");
    }
}

void bt_print_settings_markdown(FILE *out)
{
    fprintf(out,
            "# Settings\n\n"
            "This page is written by `baton help settings --markdown`; a test compares the two.\n\n"
            "A file has one section `[baton]` for the master, which may be missing, and one section `[worker NAME]` "
            "for each\n"
            "worker. `NAME = VALUE` begins in the first column; a line has at most 199 bytes; `;` or `#` at the "
            "beginning of\n"
            "a line, or ` ;` behind a value, begins a comment. Start programs set the same by name: `baton_set()` for\n"
            "`[baton]`, `baton_worker_set()` for a worker.\n\n"
            "- Times: `500ms`, `10s`, `2m`, `1h`; a bare number counts seconds.\n"
            "- Sizes: bytes, or `16k`, `10m`, `1g` with factors of 1024.\n"
            "- Paths are relative to the directory of the file, or of the start program; so is the path of a Unix "
            "socket.\n"
            "- A reload takes over every setting but those that say \"at the next restart\".\n\n"
            "## [baton]\n\n");
    print_markdown_table(out, bt_master_settings);
    fprintf(
        out,
        "\n## [worker NAME]\n\n"
        "NAME is what `baton reload NAME` and the log call the worker: letters, digits, `.`, `_` and `-`, up to 63.\n"
        "A start program gives it as `.name`; default `none`, then `none-2` and so on. Its pid file is\n"
        "`run/PROGRAM.pid` by default.\n\n");
    print_markdown_table(out, bt_worker_settings);
}
