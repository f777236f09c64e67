/* proc/control.c: the control socket: reads one request line of each client, answers with JSON lines.
 * Must not decide anything: requests go to the roll, the stop and the status. */
#include <base/alloc.h>
#include <base/buf.h>
#include <base/log.h>
#include <baton/version.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <proc/control.h>
#include <proc/json_text.h>
#include <proc/master_parts.h>
#include <proc/pidfile.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_MAX 4096
#define LAST_TURNS  1000
#define RETRY_MS    50

typedef struct bt_control {
    uv_pipe_t server;
    uv_timer_t retry; /* a client could not be accepted for want of memory */
    bt_master *master;
    bt_list clients;
} bt_control;

typedef struct control_client {
    uv_pipe_t pipe;
    bt_list node;
    bt_control *control;
    bt_buf request;
    bt_waiter waiter;
    bool has_asked;
    bool waits_for_stop;
    bool waits_for_upgrade;
} control_client;

typedef struct control_line {
    uv_write_t write;
    char *text;
} control_line;

char *bt_control_path(const char *pid_file)
{
    return bt_pidfile_sibling(pid_file, ".sock");
}

/* ---- clients ---- */

static void free_client(uv_handle_t *handle)
{
    control_client *client = handle->data;
    bt_buf_free(&client->request);
    free(client);
}

static void close_client(control_client *client)
{
    if (uv_is_closing((uv_handle_t *) &client->pipe))
        return;
    bt_list_remove(&client->node);
    bt_list_remove(&client->waiter.node);
    uv_close((uv_handle_t *) &client->pipe, free_client);
}

static void on_written(uv_write_t *write, int status)
{
    control_line *written = bt_container(write, control_line, write);
    control_client *client = write->handle->data;
    free(written->text);
    free(written);
    if (status < 0)
        close_client(client);
}

/* Takes `object`. A client that cannot be told hears the end of the connection: its command then fails, and does not
 * wait for a line that will never come. */
static void send_object(control_client *client, json_t *object)
{
    control_line *line = bt_malloc(sizeof *line);
    char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (line == NULL || text == NULL || uv_is_closing((uv_handle_t *) &client->pipe)) {
        free(line);
        free(text);
        close_client(client);
        return;
    }
    size_t len = strlen(text);
    text[len] = '\n'; /* in place of the NUL: nobody reads it as a string any more */
    line->text = text;
    uv_buf_t part = uv_buf_init(text, (unsigned) len + 1);
    if (uv_write(&line->write, (uv_stream_t *) &client->pipe, &part, 1, on_written) < 0) {
        free(text);
        free(line);
        close_client(client);
    }
}

/* `answer`, a new reference or NULL, is added under `key`. */
static void send_answer(control_client *client, bool ok, int code, const char *message, uint64_t generation,
                        const char *key, json_t *answer)
{
    json_t *object = json_pack("{s:s, s:b, s:i, s:o, s:I}", "event", "done", "ok", ok, "code", code, "message",
                               bt_json_text(message), "generation", (json_int_t) generation);
    if (answer != NULL)
        json_object_set_new(object, key, answer);
    send_object(client, object);
}

static void send_done(control_client *client, bool ok, int code, const char *message)
{
    send_answer(client, ok, code, message, 0, NULL, NULL);
}

/* ---- waiting for a reload ---- */

static void on_progress(bt_waiter *waiter, const char *worker, int slot, const char *step, pid_t pid,
                        uint64_t generation, const char *detail)
{
    control_client *client = bt_container(waiter, control_client, waiter);
    send_object(client, json_pack("{s:s, s:s, s:i, s:s, s:i, s:I, s:o}", "event", "progress", "worker", worker, "slot",
                                  slot, "step", step, "pid", (int) pid, "generation", (json_int_t) generation, "detail",
                                  bt_json_text(detail)));
}

static json_t *lines_json(const char *log)
{
    json_t *lines = json_array();
    for (const char *end; (end = strchr(log, '\n')) != NULL; log = end + 1) {
        char *line = strndup(log, (size_t) (end - log));
        json_array_append_new(lines, line == NULL ? NULL : bt_json_text(line));
        free(line);
    }
    return lines;
}

static void on_done(bt_waiter *waiter, bool ok, uint64_t generation, const char *message, const char *log)
{
    control_client *client = bt_container(waiter, control_client, waiter);
    char text[256];
    if (ok && client->waits_for_upgrade) {
        snprintf(text, sizeof text, "%.200s, version %.32s", message, baton_version());
        message = text;
    }
    send_answer(client, ok, ok ? 0 : 1, message, generation, "log", log[0] == '\0' ? NULL : lines_json(log));
}

/* ---- requests ---- */

static void ask_status(control_client *client, const json_t *request)
{
    (void) request;
    bt_master *master = client->control->master;
    send_answer(client, true, 0, "", master->last_generation, "status", bt_status_json(master));
}

static void ask_generations(control_client *client, const json_t *request)
{
    (void) request;
    bt_master *master = client->control->master;
    send_answer(client, true, 0, "", master->last_generation, "generations", bt_generations_json(master));
}

static void ask_config(control_client *client, const json_t *request)
{
    (void) request;
    bt_master *master = client->control->master;
    send_answer(client, true, 0, "", master->last_generation, "config", bt_configs_json(master));
}

static void refuse_worker(control_client *client, const char *name)
{
    const bt_master *master = client->control->master;
    bt_buf text = {0};
    int err = bt_buf_printf(&text, "no worker \"%.64s\" (there is:", name);
    for (size_t i = 0; err == 0 && i < master->crew_count; i++)
        err = bt_buf_printf(&text, " %s", master->crews[i]->name);
    if (err == 0)
        err = bt_buf_append(&text, ")", 2);
    send_done(client, false, 2, err == 0 ? bt_buf_head(&text) : "no such worker");
    bt_buf_free(&text);
}

static bt_wait wait_of(const json_t *request)
{
    const char *wait = json_string_value(json_object_get(request, "wait"));
    if (wait != NULL && strcmp(wait, "none") == 0)
        return BT_WAIT_NONE;
    return wait != NULL && strcmp(wait, "probation") == 0 ? BT_WAIT_PROBATION : BT_WAIT_SERVE;
}

/* False after saying that there is no worker of that name; *crew is NULL when none was named. */
static bool find_named(control_client *client, const json_t *request, bt_crew **crew)
{
    const char *name = json_string_value(json_object_get(request, "worker"));
    *crew = name == NULL ? NULL : bt_crew_find(client->control->master, name);
    if (name == NULL || *crew != NULL)
        return true;
    refuse_worker(client, name);
    return false;
}

static bt_waiter *prepare_waiter(control_client *client, const json_t *request)
{
    client->waiter.wait = wait_of(request);
    client->waiter.on_progress = on_progress;
    client->waiter.on_done = on_done;
    return &client->waiter;
}

static void ask_upgrade(control_client *client, const json_t *request)
{
    client->waits_for_upgrade = true;
    bt_upgrade_request(client->control->master, prepare_waiter(client, request));
}

static void ask_reload(control_client *client, const json_t *request)
{
    bt_crew *crew;
    if (find_named(client, request, &crew))
        bt_reload_request(client->control->master, crew, json_is_true(json_object_get(request, "unlimited")),
                          prepare_waiter(client, request));
}

static void ask_rollback(control_client *client, const json_t *request)
{
    bt_crew *crew;
    if (find_named(client, request, &crew))
        bt_rollback_request(client->control->master, crew, prepare_waiter(client, request));
}

static void ask_stop(control_client *client, const json_t *request)
{
    client->waits_for_stop = true;
    bt_master_stop(client->control->master, json_is_true(json_object_get(request, "graceful")));
}

static void handle_request(control_client *client, const char *text)
{
    static const struct {
        const char *name;
        void (*ask)(control_client *client, const json_t *request);
    } commands[] = {
        {"status", ask_status},           {"reload", ask_reload}, {"stop", ask_stop},       {"rollback", ask_rollback},
        {"generations", ask_generations}, {"config", ask_config}, {"upgrade", ask_upgrade},
    };
    json_t *request = json_loads(text, 0, NULL);
    const char *name = json_string_value(json_object_get(request, "command"));
    size_t i = 0;
    while (name != NULL && i < sizeof commands / sizeof *commands && strcmp(commands[i].name, name) != 0)
        i++;
    if (name == NULL || i == sizeof commands / sizeof *commands)
        send_done(client, false, 2, "unknown command");
    else
        commands[i].ask(client, request);
    json_decref(request);
}

static void allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void) suggested;
    control_client *client = handle->data;
    if (bt_buf_reserve(&client->request, REQUEST_MAX) < 0)
        *buf = uv_buf_init(NULL, 0);
    else
        *buf = uv_buf_init(bt_buf_tail(&client->request), REQUEST_MAX);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    (void) buf;
    control_client *client = stream->data;
    if (n < 0) {
        close_client(client);
        return;
    }
    client->request.end += (size_t) n;
    size_t len = bt_buf_len(&client->request);
    char *end = len == 0 ? NULL : memchr(bt_buf_head(&client->request), '\n', len);
    if (end == NULL) {
        if (len > REQUEST_MAX)
            close_client(client);
        return;
    }
    *end = '\0';
    if (!client->has_asked) {
        client->has_asked = true;
        handle_request(client, bt_buf_head(&client->request));
    }
    bt_buf_clear(&client->request);
}

/* Only root and the master's own user may command it. */
static bool is_allowed(uv_pipe_t *pipe)
{
    int fd;
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (uv_fileno((uv_handle_t *) pipe, &fd) < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return false;
    return peer.uid == 0 || peer.uid == geteuid();
}

static void accept_again(uv_timer_t *timer);

static control_client *new_client(bt_control *control)
{
    control_client *client = bt_calloc(1, sizeof *client);
    if (client == NULL)
        return NULL;
    client->control = control;
    client->pipe.data = client;
    bt_list_init(&client->waiter.node);
    uv_pipe_init(&control->master->loop, &client->pipe, 0);
    bt_list_append(&control->clients, &client->node);
    return client;
}

static void on_connection(uv_stream_t *server, int status)
{
    bt_control *control = server->data;
    if (status < 0)
        return;
    control_client *client = new_client(control);
    if (client == NULL) {
        /* libuv listens no further before this one is accepted */
        uv_timer_start(&control->retry, accept_again, RETRY_MS, 0);
        return;
    }
    if (uv_accept(server, (uv_stream_t *) &client->pipe) < 0 || !is_allowed(&client->pipe)) {
        close_client(client);
        return;
    }
    uv_read_start((uv_stream_t *) &client->pipe, allocate, on_read);
}

static void accept_again(uv_timer_t *timer)
{
    bt_control *control = timer->data;
    on_connection((uv_stream_t *) &control->server, 0);
}

/* ---- start ---- */

int bt_control_start(bt_master *master, int fd)
{
    bt_control *control = bt_calloc(1, sizeof *control);
    if (control == NULL)
        return -ENOMEM;
    control->master = master;
    bt_list_init(&control->clients);
    uv_pipe_init(&master->loop, &control->server, 0);
    uv_timer_init(&master->loop, &control->retry);
    control->server.data = control->retry.data = control;
    int err = uv_pipe_open(&control->server, fd);
    if (err == 0)
        err = uv_listen((uv_stream_t *) &control->server, 64, on_connection);
    master->control = control;
    return err;
}

/* ---- upgrade ---- */

static int fd_of(const uv_pipe_t *pipe)
{
    uv_os_fd_t fd = -1;
    return uv_fileno((const uv_handle_t *) pipe, &fd) < 0 ? -1 : fd;
}

int bt_control_fd(const bt_master *master)
{
    return fd_of(&master->control->server);
}

static bool has_unsent(const control_client *client)
{
    return uv_stream_get_write_queue_size((const uv_stream_t *) &client->pipe) > 0;
}

bool bt_control_has_unsent(const bt_master *master)
{
    bt_list_each (node, &master->control->clients) {
        if (has_unsent(bt_container(node, control_client, node)))
            return true;
    }
    return false;
}

/* What has arrived of a request whose end has not. */
static json_t *request_json(const control_client *client)
{
    char text[2 * REQUEST_MAX + 1];
    size_t len = bt_buf_len(&client->request);
    len = len < sizeof text ? len : sizeof text - 1;
    if (len > 0)
        memcpy(text, bt_buf_head(&client->request), len);
    text[len] = '\0';
    return bt_json_text(text);
}

json_t *bt_control_clients_json(const bt_master *master)
{
    json_t *array = json_array();
    bt_list_each (node, &master->control->clients) {
        const control_client *client = bt_container(node, control_client, node);
        if (has_unsent(client))
            continue; /* the rest of its line would never come: it hears the end of the connection */
        array = bt_json_append(array, json_pack("{s:i, s:b, s:b, s:b, s:i, s:I, s:o}", "fd", fd_of(&client->pipe),
                                                "has_asked", client->has_asked, "waits",
                                                !bt_list_empty(&client->waiter.node), "waits_for_upgrade",
                                                client->waits_for_upgrade, "wait", (int) client->waiter.wait, "serial",
                                                (json_int_t) client->waiter.serial, "request", request_json(client)));
    }
    return array;
}

static int adopt_client(bt_control *control, const json_t *object)
{
    bt_master *master = control->master;
    int fd = (int) json_integer_value(json_object_get(object, "fd"));
    control_client *client = new_client(control);
    if (client == NULL)
        return -ENOMEM;
    int err = fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : uv_pipe_open(&client->pipe, fd);
    if (err < 0)
        return err;
    const char *request = json_string_value(json_object_get(object, "request"));
    if (request != NULL && bt_buf_append(&client->request, request, strlen(request)) < 0)
        return -ENOMEM;
    client->has_asked = json_is_true(json_object_get(object, "has_asked"));
    client->waits_for_upgrade = json_is_true(json_object_get(object, "waits_for_upgrade"));
    client->waiter.serial = (uint64_t) json_integer_value(json_object_get(object, "serial"));
    client->waiter.wait = (bt_wait) json_integer_value(json_object_get(object, "wait"));
    client->waiter.on_progress = on_progress;
    client->waiter.on_done = on_done;
    if (json_is_true(json_object_get(object, "waits")))
        bt_list_append(client->waits_for_upgrade ? &master->upgrade.waiters : &master->roll.waiters,
                       &client->waiter.node);
    return uv_read_start((uv_stream_t *) &client->pipe, allocate, on_read);
}

int bt_control_adopt(bt_master *master, int fd, const json_t *clients)
{
    size_t i;
    const json_t *object;
    master->control_path = bt_control_path(master->config->master.pid_file);
    int err = master->control_path == NULL ? -ENOMEM : bt_control_start(master, fd);
    json_array_foreach(clients, i, object)
    {
        if (err == 0)
            err = adopt_client(master->control, object);
    }
    return err;
}

/* ---- stop ---- */

static void free_control(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_last_written(uv_shutdown_t *shutdown, int status)
{
    (void) status;
    close_client(shutdown->handle->data);
    free(shutdown);
}

/* What is queued is written before the connection ends. */
static void finish_client(control_client *client)
{
    uv_shutdown_t *shutdown = bt_malloc(sizeof *shutdown);
    if (shutdown == NULL || uv_shutdown(shutdown, (uv_stream_t *) &client->pipe, on_last_written) < 0) {
        free(shutdown);
        close_client(client);
    }
}

void bt_control_stop(bt_master *master)
{
    bt_control *control = master->control;
    if (control == NULL)
        return;
    master->control = NULL;
    bt_list_each (node, &control->clients) {
        control_client *client = bt_container(node, control_client, node);
        if (client->waits_for_stop)
            send_done(client, true, 0, "stopped");
        finish_client(client);
    }
    /* Nothing else of the master is active any more; a client that does not read is not waited for. */
    for (int turns = 0; turns < LAST_TURNS && !bt_list_empty(&control->clients); turns++)
        uv_run(&master->loop, UV_RUN_NOWAIT);
    bt_list_each (node, &control->clients)
        close_client(bt_container(node, control_client, node));
    /* libuv closes the handle that was closed last first: the struct goes when both are done. */
    uv_close((uv_handle_t *) &control->server, free_control);
    uv_close((uv_handle_t *) &control->retry, NULL);
}
