/* cli/options.c: from argv to a command and its options.
 * Must not know what the commands do. */
#include <cli/cli.h>

#include <app/suggest.h>
#include <stdarg.h>
#include <string.h>

typedef struct option {
    const char *name;
    char letter; /* 0: none */
    unsigned bit;
} option;

static const option options[] = {
    {"config", 'c', BT_OPTION_FILE},
    {"daemon", 'd', BT_OPTION_DAEMON},
    {"graceful", 'g', BT_OPTION_GRACEFUL},
    {"json", 0, BT_OPTION_JSON},
    {"watch", 'w', BT_OPTION_WATCH},
    {"wait", 0, BT_OPTION_WAIT},
    {"no-wait", 0, BT_OPTION_NO_WAIT},
    {"help", 'h', BT_OPTION_HELP},
    {"version", 'V', BT_OPTION_VERSION},
    {"markdown", 0, BT_OPTION_MARKDOWN},
    {NULL, 0, 0},
};

#define EVERYWHERE (BT_OPTION_FILE | BT_OPTION_HELP | BT_OPTION_VERSION)

/* Where the parser stands. */
typedef struct parser {
    bt_cli *cli;
    char **argv;
    int next; /* index of the word to read next */
    int argc;
    const bt_command *command;
} parser;

int bt_cli_fail(const bt_cli *cli, int code, const char *format, ...)
{
    va_list args;
    char text[1024];
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", cli->program, text);
    return code;
}

static int say_unknown(const parser *in, const char *kind, const char *dashes, const char *word, const char *near)
{
    if (near)
        return bt_cli_fail(in->cli, BT_EXIT_USAGE, "unknown %s \"%s%s\" (did you mean \"%s%s\"?), see %s --help", kind,
                           dashes, word, dashes, near, in->cli->program);
    return bt_cli_fail(in->cli, BT_EXIT_USAGE, "unknown %s \"%s%s\", see %s --help", kind, dashes, word,
                       in->cli->program);
}

/* `value`: what followed "=" or the letter, else NULL. */
static int take_option(parser *in, const option *found, const char *value)
{
    if (found->bit != BT_OPTION_FILE) {
        if (value)
            return bt_cli_fail(in->cli, BT_EXIT_USAGE, "--%s takes no value", found->name);
        in->cli->options |= found->bit;
        return 0;
    }
    if (!in->cli->is_command)
        return bt_cli_fail(in->cli, BT_EXIT_USAGE, "-c: this program is its own configuration");
    if (!value && in->next < in->argc)
        value = in->argv[in->next++];
    if (!value || !*value)
        return bt_cli_fail(in->cli, BT_EXIT_USAGE, "-c needs a file, such as -c baton.ini");
    in->cli->file = value;
    in->cli->options |= found->bit;
    return 0;
}

static int take_long(parser *in, const char *word)
{
    size_t len = strcspn(word, "=");
    const char *value = word[len] == '=' ? word + len + 1 : NULL;
    bt_suggestion near = {0};
    for (const option *o = options; o->name; o++) {
        if (strlen(o->name) == len && memcmp(o->name, word, len) == 0)
            return take_option(in, o, value);
        bt_suggest(&near, word, o->name);
    }
    return say_unknown(in, "option", "--", word, near.word);
}

/* "-d", "-dg", "-cFILE" */
static int take_letters(parser *in, const char *letters)
{
    for (const char *at = letters; *at; at++) {
        const option *o = options;
        while (o->name && o->letter != *at)
            o++;
        if (!o->name) {
            char letter[2] = {*at, '\0'};
            return say_unknown(in, "option", "-", letter, NULL);
        }
        bool takes_rest = o->bit == BT_OPTION_FILE && at[1];
        int error = take_option(in, o, takes_rest ? at + 1 : NULL);
        if (error || takes_rest)
            return error;
    }
    return 0;
}

static int take_word(parser *in, const char *word)
{
    if (in->command) {
        if (!in->command->takes_operand || in->cli->operand)
            return bt_cli_fail(in->cli, BT_EXIT_USAGE, "%s: unexpected \"%s\"; usage: %s %s", in->command->name, word,
                               in->cli->program, in->command->usage);
        in->cli->operand = word;
        return 0;
    }
    bt_suggestion near = {0};
    for (const bt_command *command = bt_commands; command->name; command++) {
        if (strcmp(command->name, word) == 0) {
            in->command = command;
            return 0;
        }
        bt_suggest(&near, word, command->name);
    }
    /* "--help settings" needs no command in front of it */
    if (in->cli->options & BT_OPTION_HELP && !in->cli->operand) {
        in->cli->operand = word;
        return 0;
    }
    return say_unknown(in, "command", "", word, near.word);
}

static int check_options(const parser *in)
{
    if (in->cli->is_resumed)
        return 0; /* the options of `start` with the word `check` */
    unsigned wrong = in->cli->options & ~(in->command->options | EVERYWHERE);
    for (const option *o = options; o->name; o++) {
        if (wrong & o->bit)
            return bt_cli_fail(in->cli, BT_EXIT_USAGE, "%s: --%s does not go with it; usage: %s %s", in->command->name,
                               o->name, in->cli->program, in->command->usage);
    }
    if (in->cli->options & BT_OPTION_WAIT && in->cli->options & BT_OPTION_NO_WAIT)
        return bt_cli_fail(in->cli, BT_EXIT_USAGE, "%s: either --wait or --no-wait", in->command->name);
    return 0;
}

static const bt_command *find_command(const char *name)
{
    const bt_command *command = bt_commands;
    while (strcmp(command->name, name) != 0)
        command++;
    return command;
}

int bt_cli_parse(bt_cli *cli, int argc, char **argv, const bt_command **command)
{
    parser in = {.cli = cli, .argv = argv, .argc = argc, .next = 1};
    bool only_words = false;
    while (in.next < argc) {
        const char *word = argv[in.next++];
        int error;
        if (!only_words && strcmp(word, "--") == 0) {
            only_words = true;
            continue;
        }
        if (only_words || word[0] != '-' || word[1] == '\0')
            error = take_word(&in, word);
        else if (word[1] == '-')
            error = take_long(&in, word + 2);
        else
            error = take_letters(&in, word + 1);
        if (error)
            return error;
    }

    if (cli->options & BT_OPTION_HELP) {
        if (in.command && strcmp(in.command->name, "help") != 0)
            cli->operand = NULL; /* "baton reload web --help" is about baton, not about a topic "web" */
        in.command = find_command("help");
        cli->options &= BT_OPTION_HELP | BT_OPTION_MARKDOWN;
    } else if (cli->options & BT_OPTION_VERSION) {
        in.command = find_command("version");
        cli->options = BT_OPTION_VERSION;
    }
    if (!in.command) {
        bt_print_help(cli, stderr);
        return BT_EXIT_USAGE;
    }
    *command = in.command;
    return check_options(&in);
}
