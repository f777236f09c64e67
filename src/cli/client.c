/* cli/client.c: JSON lines with the master, and the patience to wait for one that works but not for one that hangs.
 * Must not know what is asked. */
#include <cli/client.h>

#include <base/clock.h>
#include <errno.h>
#include <net/listener.h>
#include <poll.h>
#include <proc/control.h>
#include <proc/pidfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_MS   2000
#define PATIENCE_MS  5000
#define RETRY_MS     10
#define LONGEST_LINE (64U << 20)

static void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

void bt_client_close(bt_client *client)
{
    if (client->is_open)
        close(client->fd);
    bt_buf_free(&client->input);
    client->is_open = false;
}

static int say(char *why, size_t size, int error, const char *what)
{
    snprintf(why, size, "%s: %s", what, strerror(-error));
    return error;
}

/* A master takes the lock before it opens the socket and closes the socket before it lets the lock go. */
static int connect_to_holder(bt_client *client, const char *socket_path, char *why, size_t size)
{
    uint64_t deadline = bt_clock_ms() + CONNECT_MS;
    for (;;) {
        client->master = bt_pidfile_holder(client->pid_file);
        if (client->master < 0)
            return say(why, size, (int) client->master, client->pid_file);
        if (client->master == 0) {
            snprintf(why, size, "not running (nobody holds %s)", client->pid_file);
            return -ESRCH;
        }
        int fd = bt_unix_connect(socket_path);
        if (fd >= 0) {
            client->fd = fd;
            client->is_open = true;
            return 0;
        }
        if ((fd != -ENOENT && fd != -ECONNREFUSED && fd != -EAGAIN) || bt_clock_ms() >= deadline) {
            snprintf(why, size, "the master (pid %d) runs, but cannot be reached at %s: %s", (int) client->master,
                     socket_path, strerror(-fd));
            return -ENOTCONN;
        }
        pause_ms(RETRY_MS);
    }
}

int bt_client_open(bt_client *client, const char *pid_file, char *why, size_t size)
{
    *client = (bt_client){.fd = -1, .pid_file = pid_file};
    char *socket_path = bt_control_path(pid_file);
    if (!socket_path)
        return say(why, size, -ENOMEM, pid_file);
    int error = connect_to_holder(client, socket_path, why, size);
    free(socket_path);
    return error;
}

static int send_line(bt_client *client, json_t *request)
{
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    bt_buf line = {0};
    int error = text ? bt_buf_printf(&line, "%s\n", text) : -ENOMEM;
    free(text);
    while (error == 0 && bt_buf_len(&line) > 0) {
        ssize_t sent = send(client->fd, bt_buf_head(&line), bt_buf_len(&line), MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            error = -errno;
        else if (sent > 0)
            bt_buf_consume(&line, (size_t) sent);
    }
    bt_buf_free(&line);
    return error;
}

/* Bytes read, 0 at the end, -ETIMEDOUT after `timeout_ms` without any, or another negative errno. */
static ssize_t receive(bt_client *client, uint64_t timeout_ms)
{
    struct pollfd poller = {.fd = client->fd, .events = POLLIN};
    int ready = poll(&poller, 1, (int) timeout_ms);
    if (ready == 0)
        return -ETIMEDOUT;
    if (ready < 0)
        return errno == EINTR ? -ETIMEDOUT : -errno;
    int error = bt_buf_reserve(&client->input, 16384);
    if (error < 0)
        return error;
    ssize_t got = recv(client->fd, bt_buf_tail(&client->input), 16384, 0);
    if (got < 0)
        return errno == ECONNRESET ? 0 : -errno;
    client->input.end += (size_t) got;
    return bt_buf_len(&client->input) > LONGEST_LINE ? -EMSGSIZE : got;
}

/* The next whole line that has been received, or NULL; *broken when it is not a JSON object. */
static json_t *take_line(bt_client *client, bool *broken)
{
    const char *start = bt_buf_head(&client->input);
    size_t len = bt_buf_len(&client->input);
    const char *end = len > 0 ? memchr(start, '\n', len) : NULL;
    if (!end)
        return NULL;
    json_t *line = json_loadb(start, (size_t) (end - start), 0, NULL);
    bt_buf_consume(&client->input, (size_t) (end - start) + 1);
    if (!json_is_object(line)) {
        json_decref(line);
        *broken = true;
        return NULL;
    }
    return line;
}

static bool is_done(const json_t *line)
{
    const char *event = json_string_value(json_object_get(line, "event"));
    return event && strcmp(event, "done") == 0;
}

/* Takes lines that are here already: the last one, or NULL when more has to be waited for. */
static json_t *take_lines(bt_client *client, bt_client_progress progress, void *arg, bool *broken)
{
    json_t *line;
    while ((line = take_line(client, broken))) {
        if (is_done(line))
            return line;
        if (progress)
            progress(line, arg);
        json_decref(line);
    }
    return NULL;
}

/* Asks over a connection of its own whether the silent master still answers anything. One that does not listen any
 * more is about to end: alive as long as it holds the lock. */
static bool is_alive(const bt_client *silent)
{
    bt_client probe;
    char why[256];
    if (bt_client_open(&probe, silent->pid_file, why, sizeof(why)) < 0)
        return bt_pidfile_holder(silent->pid_file) == silent->master;
    bool alive = send_line(&probe, json_pack("{s:s}", "command", "status")) == 0 && receive(&probe, PATIENCE_MS) >= 0;
    bt_client_close(&probe);
    return alive;
}

static json_t *wait_for_done(bt_client *client, bool is_probed, bt_client_progress progress, void *arg, char *why,
                             size_t size)
{
    for (;;) {
        bool broken = false;
        json_t *done = take_lines(client, progress, arg, &broken);
        if (done)
            return done;
        ssize_t got = broken ? -EPROTO : receive(client, PATIENCE_MS);
        if (got > 0 || (got == -ETIMEDOUT && is_probed && is_alive(client)))
            continue;
        if (got == -ETIMEDOUT)
            snprintf(why, size, "the master (pid %d) does not answer", (int) client->master);
        else if (got == 0)
            snprintf(why, size, "the master (pid %d) ended before it had answered", (int) client->master);
        else
            snprintf(why, size, "talking to the master (pid %d): %s", (int) client->master, strerror((int) -got));
        return NULL;
    }
}

json_t *bt_client_ask(bt_client *client, json_t *request, bt_client_progress progress, void *arg, char *why,
                      size_t size)
{
    int error = send_line(client, request);
    if (error < 0) {
        snprintf(why, size, "the master (pid %d) does not listen: %s", (int) client->master, strerror(-error));
        return NULL;
    }
    return wait_for_done(client, true, progress, arg, why, size);
}

json_t *bt_client_query(const char *command, const char *pid_file, int *error, char *why, size_t size)
{
    bt_client client;
    json_t *done = NULL;
    *error = bt_client_open(&client, pid_file, why, size);
    if (*error == 0) {
        *error = send_line(&client, json_pack("{s:s}", "command", command));
        if (*error < 0)
            say(why, size, *error, "talking to the master");
        else
            done = wait_for_done(&client, false, NULL, NULL, why, size);
        /* It may have ended between our connect and its answer. */
        if (!done && bt_pidfile_holder(pid_file) == 0) {
            snprintf(why, size, "not running (nobody holds %s)", pid_file);
            *error = -ESRCH;
        } else if (!done) {
            *error = -EIO;
        }
    }
    bt_client_close(&client);
    return done;
}

json_t *bt_client_status(const char *pid_file, int *error, char *why, size_t size)
{
    return bt_client_query("status", pid_file, error, why, size);
}

int bt_client_code(const json_t *done)
{
    int code = (int) json_integer_value(json_object_get(done, "code"));
    if (json_is_true(json_object_get(done, "ok")))
        return 0;
    return code ? code : 1;
}

const char *bt_client_message(const json_t *done)
{
    const char *message = json_string_value(json_object_get(done, "message"));
    return message ? message : "";
}

int bt_client_wait_gone(bt_client *client, uint64_t timeout_ms)
{
    uint64_t deadline = bt_clock_ms() + timeout_ms;
    while (client->is_open && bt_clock_ms() < deadline) {
        ssize_t got = receive(client, 100);
        bt_buf_clear(&client->input);
        if (got <= 0 && got != -ETIMEDOUT)
            break;
    }
    /* The lock ends with the process a moment after its descriptors; nothing announces that. Somebody else's lock is
     * a new master's. */
    while (bt_pidfile_holder(client->pid_file) == client->master) {
        if (bt_clock_ms() >= deadline)
            return -ETIMEDOUT;
        pause_ms(RETRY_MS);
    }
    return 0;
}
