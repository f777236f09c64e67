/* cli/client.h: talks to a running master over its control socket (protocol: proc/control.h).
 * Knows no command line: words for the user are returned, not printed. */
#ifndef BT_CLI_CLIENT_H
#define BT_CLI_CLIENT_H

#include <base/buf.h>
#include <jansson.h>
#include <sys/types.h>

/* A zeroed struct is closed. */
typedef struct bt_client {
    int fd; /* valid when is_open */
    bool is_open;
    pid_t master;         /* who held the pid file's lock when we connected */
    const char *pid_file; /* borrowed */
    bt_buf input;
} bt_client;

/* Called for each progress line; borrows `event`. */
typedef void (*bt_client_progress)(const json_t *event, void *arg);

/* Connects to the master that holds the lock of `pid_file`. A master that has the lock but no socket yet (it is just
 * starting) is waited for, 2 s. Returns 0, or a negative errno with words in `why`:
 *   -ESRCH        nobody holds the lock: not running
 *   -ENOTCONN     there is a master (client->master), but no way to reach it */
BATON_NODISCARD int bt_client_open(bt_client *client, const char *pid_file, char *why, size_t size);
void bt_client_close(bt_client *client);

/* Sends `request` (consumed) and returns the last line, the one with "event":"done"; the caller owns it. An answer may
 * take as long as it needs while the master is alive: after 5 s of silence it is asked for its status over a second
 * connection, and only when that is not answered within 5 s either has it failed. NULL with words in `why`. */
json_t *bt_client_ask(bt_client *client, json_t *request, bt_client_progress progress, void *arg, char *why,
                      size_t size);

/* What the last line says: the exit code of the command, and its message ("" when there is none). */
int bt_client_code(const json_t *done);
const char *bt_client_message(const json_t *done);

/* After a stop: until the master's end of the connection is closed and the lock of its pid file is free.
 * 0, or -ETIMEDOUT when that takes more than `timeout_ms`. Works on a client that is not open, too. */
BATON_NODISCARD int bt_client_wait_gone(bt_client *client, uint64_t timeout_ms);

/* One question with a short answer, such as "status": opens, asks, closes. The done line, or NULL with words in `why`
 * and the reason in *error (as bt_client_open). */
json_t *bt_client_query(const char *command, const char *pid_file, int *error, char *why, size_t size);
json_t *bt_client_status(const char *pid_file, int *error, char *why, size_t size);

#endif
