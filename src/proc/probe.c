/* proc/probe.c: asks the application over a connection of its own, as a client would, and reads the status.
 * Must not know the master: how long it may take is decided there (ready_timeout). */
#include <base/buf.h>
#include <base/log.h>
#include <errno.h>
#include <net/acceptor.h>
#include <net/conn.h>
#include <proc/probe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WHY_SIZE 512

/* Length of "HTTP/1.1 200" and the byte that must follow. */
#define STATUS_BYTES 12

void bt_probe_cancel(bt_probe *probe)
{
    if (!probe->is_open)
        return;
    probe->is_open = false;
    uv_close((uv_handle_t *) &probe->poll, NULL);
    close(probe->fd);
    probe->fd = -1;
    bt_conn_destroy(probe->conn, 0);
    baton_conn_unref(probe->conn);
    probe->conn = NULL;
}

static void end(bt_probe *probe, const char *why)
{
    bt_probe_cancel(probe);
    probe->on_done(probe, why);
}

/* The status of "HTTP/1.x NNN", or -1 when that is not what the answer begins with. */
static int status_of(const char *line)
{
    const char *code = line + 9;
    bool is_http = memcmp(line, "HTTP/1.", 7) == 0 && line[8] == ' ';
    if (!is_http || (code[3] != ' ' && code[3] != '\r'))
        return -1;
    for (int i = 0; i < 3; i++) {
        if (code[i] < '0' || code[i] > '9')
            return -1;
    }
    return (code[0] - '0') * 100 + (code[1] - '0') * 10 + (code[2] - '0');
}

static void judge(bt_probe *probe)
{
    char why[WHY_SIZE];
    int status = status_of(probe->line);
    if (status >= 200 && status < 500) {
        end(probe, NULL);
        return;
    }
    if (status < 0)
        snprintf(why, sizeof why, "probe %s: the answer is not HTTP", probe->path);
    else
        snprintf(why, sizeof why, "probe %s answered %d", probe->path, status);
    end(probe, why);
}

/* What follows the status does not matter: the connection is ended as by a client that has seen enough. */
static void on_readable(uv_poll_t *poll, int status, int events)
{
    bt_probe *probe = poll->data;
    (void) status;
    (void) events;
    ssize_t n = recv(probe->fd, probe->line + probe->line_len, sizeof probe->line - probe->line_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        char why[WHY_SIZE];
        snprintf(why, sizeof why, "probe %s was closed without an answer", probe->path);
        end(probe, why);
        return;
    }
    probe->line_len += (size_t) n;
    if (probe->line_len > STATUS_BYTES)
        judge(probe);
}

static int send_request(const bt_probe *probe)
{
    static const char rest[] = " HTTP/1.1\r\n"
                               "Host: localhost\r\n"
                               "User-Agent: baton-probe\r\n"
                               "Connection: close\r\n"
                               "\r\n";
    bt_buf request = {0};
    int err = bt_buf_append(&request, "GET ", 4);
    if (err == 0)
        err = bt_buf_append(&request, probe->path, strlen(probe->path));
    if (err == 0)
        err = bt_buf_append(&request, rest, sizeof rest - 1);
    if (err == 0) {
        ssize_t n = send(probe->fd, bt_buf_head(&request), bt_buf_len(&request), MSG_NOSIGNAL);
        if (n != (ssize_t) bt_buf_len(&request))
            err = n < 0 ? -errno : -EMSGSIZE;
    }
    bt_buf_free(&request);
    return err;
}

/* Takes `fd`. */
static int open_server_end(bt_probe *probe, bt_loop *loop, int fd)
{
    struct sockaddr peer = {.sa_family = AF_UNIX};
    probe->conn = bt_accept_conn(loop, &probe->endpoint, fd, &peer, sizeof peer.sa_family);
    return probe->conn == NULL ? -ENOMEM : 0;
}

int bt_probe_start(bt_probe *probe, bt_loop *loop, const bt_endpoint *endpoint, const char *path)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    probe->path = path;
    probe->line_len = 0;
    probe->fd = pair[0];
    probe->endpoint = *endpoint;
    probe->endpoint.counters = &probe->counters;
    probe->endpoint.crew_connections = &probe->crew_connections;
    int err = send_request(probe);
    if (err == 0)
        err = uv_poll_init(&loop->uv, &probe->poll, pair[0]);
    if (err < 0) {
        close(pair[0]);
        close(pair[1]);
        return err;
    }
    probe->poll.data = probe;
    bt_log(BT_LOG_INFO, "probing path=%s", path);
    uv_update_time(&loop->uv); /* on_worker_start may have taken long */
    err = open_server_end(probe, loop, pair[1]);
    if (err == 0)
        err = uv_poll_start(&probe->poll, UV_READABLE, on_readable);
    probe->is_open = err == 0;
    if (err < 0) {
        uv_close((uv_handle_t *) &probe->poll, NULL);
        close(pair[0]);
    }
    return err;
}
