/* options.c: the command line of storm.
 * Knows nothing of what is done with it. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum kind { TEXT, INTEGER, REQUESTS, SECONDS, FLAG };

/* One table feeds getopt, the range checks and --help. */
static const struct option_row {
    const char *name;
    enum kind kind;
    size_t offset;
    int min, max;
    const char *argument, *doc;
} table[] = {
#define AT(field) offsetof(storm_options, field)
    {"host", TEXT, AT(host), 0, 0, "ADDRESS", "server (default 127.0.0.1)"},
    {"port", INTEGER, AT(port), 1, 65535, "PORT", "TCP port"},
    {"unix", TEXT, AT(unix_path), 0, 0, "PATH", "Unix socket instead of host and port"},
    {"path", TEXT, AT(path), 0, 0, "PATH", "request target (default /)"},
    {"method", TEXT, AT(method), 0, 0, "METHOD", "default GET, or POST with --body"},
    {"connections", INTEGER, AT(connections), 0, 100000, "N", "busy keep-alive connections (default 64)"},
    {"one-shot", INTEGER, AT(one_shot), 0, 10000, "N", "also N workers: connect, one request, read to the end, again"},
    {"one-shot-rate", INTEGER, AT(one_shot_rate), 1, 1000000, "R", "one-shot connections a second, all workers (500)"},
    {"idle", INTEGER, AT(idle), 0, 1000000, "N", "also N connections with one request at the start and one at the end"},
    {"think", INTEGER, AT(think_ms), 0, 3600000, "MS", "pause between an answer and the next request"},
    {"split", INTEGER, AT(split_ms), 0, 3600000, "MS",
     "send each request in two halves, MS apart, at every offset in turn"},
    {"body", INTEGER, AT(body), 0, 1 << 28, "BYTES", "send a body of that size"},
    {"echo", FLAG, AT(is_echo), 0, 0, NULL, "the answer's body must equal the request's; each request's is its own"},
    {"pipeline", INTEGER, AT(pipeline), 1, 4096, "K", "K requests a write; their answers must come in order"},
    {"duration", SECONDS, AT(duration), 0, 0, "S", "stop after S seconds"},
    {"requests", REQUESTS, AT(requests), 0, 0, "N", "stop after N requests (those of --idle not counted)"},
    {"timeout", INTEGER, AT(timeout_ms), 1, 3600000, "MS", "for a connect and for an answer (5000)"},
    {"grace", INTEGER, AT(grace_ms), 1, 3600000, "MS", "for the answers under way at the end (5000)"},
    {"expect-status", INTEGER, AT(expect_status), 200, 599, "CODE", "any other status is bad (200)"},
    {"versions", FLAG, AT(has_versions), 0, 0, NULL, "count the distinct bodies (their first 128 bytes)"},
    {"version-header", TEXT, AT(version_header), 0, 0, "NAME", "count the distinct values of this header instead"},
    {"ready-file", TEXT, AT(ready_file), 0, 0, "PATH", "create PATH when every connection had its first answer"},
    {"live", FLAG, AT(is_live), 0, 0, NULL, "progress on stderr, redrawn on a terminal, a line a second elsewhere"},
    {"live-interval", INTEGER, AT(live_interval_ms), 10, 3600000, "MS", "time between two of them"},
    {"json", FLAG, AT(is_json), 0, 0, NULL, "report as one JSON object"},
    {"quiet", FLAG, AT(is_quiet), 0, 0, NULL, "nothing on stderr"},
    {"help", FLAG, 0, 0, 0, NULL, "this text"},
#undef AT
};

enum { ROWS = sizeof(table) / sizeof(table[0]) };

static int mistake(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int mistake(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("storm: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\nTry: storm --help\n", stderr);
    va_end(args);
    return 2;
}

static void help(void)
{
    puts("Usage: storm (--port PORT | --unix PATH) [OPTION]...\n"
         "Keeps an HTTP/1.1 server busy and counts whatever a client can notice. Never sends a request twice.\n");
    for (size_t i = 0; i < ROWS; i++) {
        char left[40];
        snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].argument ? " " : "",
                 table[i].argument ? table[i].argument : "");
        printf("  %-24s %s\n", left, table[i].doc);
    }
    puts("\nWithout --duration and --requests it runs until SIGINT or SIGTERM.\n"
         "Exit: 0 nothing lost and all connections kept, 1 otherwise, 2 wrong usage. See docs/benchmarks.md.");
}

static int parse_integer(const struct option_row *row, const char *text, long long min, long long max, long long *value)
{
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || *value < min || *value > max)
        return mistake("--%s: \"%s\" is not a number from %lld to %lld", row->name, text, min, max);
    return -1;
}

static int take(storm_options *options, const struct option_row *row, const char *text)
{
    char *field = (char *) options + row->offset;
    long long value;
    char *end;
    int code = -1;

    switch (row->kind) {
    case TEXT:
        if (*text == '\0')
            return mistake("--%s: empty", row->name);
        memcpy(field, &text, sizeof(text));
        break;
    case FLAG:
        *(bool *) field = true;
        break;
    case INTEGER:
        code = parse_integer(row, text, row->min, row->max, &value);
        if (code < 0)
            *(int *) (void *) field = (int) value;
        break;
    case REQUESTS:
        code = parse_integer(row, text, 1, INT64_MAX, &value);
        if (code < 0)
            *(int64_t *) (void *) field = value;
        break;
    case SECONDS:
        options->duration = strtod(text, &end);
        if (end == text || *end != '\0' || !(options->duration > 0 && options->duration < 1e7))
            return mistake("--%s: \"%s\" is not a time in seconds", row->name, text);
        break;
    }
    return code;
}

static int resolve(storm_options *options)
{
    if (options->unix_path != NULL) {
        struct sockaddr_un *address = (struct sockaddr_un *) &options->address;
        size_t len = strlen(options->unix_path);
        if (len >= sizeof(address->sun_path))
            return mistake("--unix: longer than %zu bytes", sizeof(address->sun_path) - 1);
        address->sun_family = AF_UNIX;
        memcpy(address->sun_path, options->unix_path, len + 1);
        options->address_len = sizeof(*address);
        return -1;
    }
    if (options->port == 0)
        return mistake("give --port or --unix");

    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    snprintf(service, sizeof(service), "%d", options->port);
    int error = getaddrinfo(options->host, service, &hints, &found);
    if (error != 0)
        return mistake("--host: %s: %s", options->host, gai_strerror(error));
    memcpy(&options->address, found->ai_addr, found->ai_addrlen);
    options->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    return -1;
}

static bool has_forbidden(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char) *text <= ' ' || *text == 0x7f)
            return true;
    return false;
}

static int check(storm_options *options)
{
    if (options->method == NULL)
        options->method = options->body > 0 ? "POST" : "GET";
    if (has_forbidden(options->method) || has_forbidden(options->path))
        return mistake("--method and --path must be without blanks");
    if (options->version_header != NULL)
        options->has_versions = true;
    if (options->is_echo && options->body == 0)
        return mistake("--echo needs --body");
    if (options->is_echo && options->has_versions && options->version_header == NULL)
        return mistake("--echo makes every body its own version: use --version-header");
    if (options->connections + options->one_shot + options->idle == 0)
        return mistake("nothing to do: no --connections, --one-shot or --idle");
    if (options->requests > 0 && options->requests < options->connections)
        return mistake("--requests must reach for one on each of %d connections", options->connections);
    return resolve(options);
}

int storm_options_parse(storm_options *options, int argc, char **argv)
{
    struct option longs[ROWS + 1] = {0};
    int choice, row;

    *options = (storm_options){.host = "127.0.0.1",
                               .path = "/",
                               .connections = 64,
                               .one_shot_rate = 500,
                               .timeout_ms = 5000,
                               .grace_ms = 5000,
                               .pipeline = 1,
                               .expect_status = 200};
    for (size_t i = 0; i < ROWS; i++) {
        longs[i].name = table[i].name;
        longs[i].has_arg = table[i].kind == FLAG ? no_argument : required_argument;
    }
    while ((choice = getopt_long(argc, argv, "", longs, &row)) != -1) {
        if (choice != 0)
            return mistake("wrong usage");
        if (strcmp(table[row].name, "help") == 0) {
            help();
            return 0;
        }
        int code = take(options, &table[row], optarg);
        if (code >= 0)
            return code;
    }
    if (optind < argc)
        return mistake("unexpected argument \"%s\"", argv[optind]);
    return check(options);
}
