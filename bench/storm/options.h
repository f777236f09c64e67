/* options.h: the command line of storm.
 * Knows nothing of what is done with it. */
#ifndef STORM_OPTIONS_H
#define STORM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct storm_options {
    const char *host;
    int port;
    const char *unix_path;
    const char *method; /* NULL: GET, or POST with a body */
    const char *path;
    int connections;
    int one_shot;
    int one_shot_rate;
    int idle;
    int think_ms;
    int split_ms;
    int timeout_ms;
    int grace_ms;
    int body;
    int pipeline;
    double duration;
    int64_t requests; /* 0: no limit */
    int expect_status;
    bool is_echo;
    bool has_versions;
    const char *version_header;
    const char *ready_file;
    bool is_live;
    int live_interval_ms; /* 0: 200 on a terminal, 1000 elsewhere */
    bool is_json;
    bool is_quiet;

    struct sockaddr_storage address;
    socklen_t address_len;
} storm_options;

/* Fills `options`. Returns -1 to go on, or the exit code: 0 after --help, 2 after a mistake, with words on stderr. */
int storm_options_parse(storm_options *options, int argc, char **argv);

#endif
