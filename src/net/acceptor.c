/* net/acceptor.c: accepts connections one per wake-up, so that they spread evenly over the processes that share the
 * socket (batches gave one process of four most of 64, and the pass keeps that imbalance for ever).
 * Must not know who the siblings are. */
#include <base/log.h>
#include <errno.h>
#include <net/acceptor.h>
#include <net/conn.h>
#include <net/loop.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAUSE_MS 200

/* A process with more than its share of connections lets its siblings go first, for this long. Otherwise the one that
 * wakes up fastest gets nearly all of them while the machine is quiet, and the pass keeps that imbalance for ever. */
#define GIVE_WAY_MS 1
#define MAX_STREAK  1024
#define SLACK       4 /* connections above the average that do not matter */

static void on_readable(uv_poll_t *poll, int status, int events);

static void resume(uv_timer_t *timer)
{
    bt_acceptor *acceptor = timer->data;
    uv_poll_start(&acceptor->poll, UV_READABLE, on_readable);
}

static bool gives_way(bt_acceptor *acceptor)
{
    const bt_endpoint *endpoint = acceptor->endpoint;
    if (endpoint->crew_size <= 1)
        return false;
    if (acceptor->credit > 0) {
        acceptor->credit--;
        return false;
    }
    uint64_t mine = bt_counter_value(&endpoint->counters->connections);
    uint64_t share = bt_counter_value(endpoint->crew_connections) / endpoint->crew_size;
    return mine > share + share / 8 + SLACK;
}

/* It gave way, and nobody else took the connection: the siblings are busy, stuck or not there. The more often that
 * happens in a row, the more it accepts before it gives way again. */
static void earn_credit(bt_acceptor *acceptor)
{
    if (!acceptor->has_given_way)
        return;
    acceptor->has_given_way = false;
    acceptor->streak = acceptor->streak < MAX_STREAK / 2 ? acceptor->streak * 2 + 1 : MAX_STREAK;
    acceptor->credit = acceptor->streak;
}

/* Level-triggered readiness would spin while no descriptor is free; the queue waits meanwhile, nobody is refused. */
static void pause_accepting(bt_acceptor *acceptor, int err)
{
    if (!acceptor->is_paused)
        bt_log(BT_LOG_WARN, "accept-paused error=%s", uv_err_name(err));
    acceptor->is_paused = true;
    uv_poll_stop(&acceptor->poll);
    uv_timer_start(&acceptor->pause, resume, PAUSE_MS, 0);
}

static void open_conn(bt_acceptor *acceptor, int fd, const struct sockaddr *peer, socklen_t peer_len)
{
    bt_loop *loop = acceptor->loop;
    const bt_endpoint *endpoint = acceptor->endpoint;
    baton_conn *conn = bt_conn_create(loop, endpoint, fd, bt_conn_next_id(loop));
    if (conn == NULL) {
        bt_log(BT_LOG_ERROR, "connection-refused reason=\"out of memory or descriptors\"");
        close(fd);
        return;
    }
    bt_address_from_sockaddr(&conn->remote, peer, peer_len);
    bt_count(&endpoint->counters->accepted, 1);
    bt_conn_expire_in(conn, endpoint->header_timeout_ms);
    baton_conn_ref(conn);
    if (endpoint->callbacks->on_connect != NULL)
        endpoint->callbacks->on_connect(conn);
    if (conn->state == BT_CONN_OPEN)
        bt_conn_start(conn);
    baton_conn_unref(conn);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void) status;
    (void) events;
    bt_acceptor *acceptor = poll->data;
    if (!acceptor->has_given_way && gives_way(acceptor)) {
        acceptor->has_given_way = true;
        uv_poll_stop(&acceptor->poll);
        uv_timer_start(&acceptor->pause, resume, GIVE_WAY_MS, 0);
        return;
    }
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    int fd = accept4(acceptor->fd, (struct sockaddr *) &peer, &peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        if (acceptor->is_paused)
            bt_log(BT_LOG_INFO, "accept-resumed");
        acceptor->is_paused = false;
        earn_credit(acceptor);
        open_conn(acceptor, fd, (const struct sockaddr *) &peer, peer_len);
        return;
    }
    if (errno == EAGAIN) {
        acceptor->has_given_way = false; /* a sibling took it: they are there */
        acceptor->streak = acceptor->credit = 0;
        return;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        pause_accepting(acceptor, -errno);
    else if (errno != EINTR && errno != ECONNABORTED)
        bt_log(BT_LOG_WARN, "accept-failed error=%s", uv_err_name(-errno));
}

int bt_acceptor_start(bt_acceptor *acceptor, bt_loop *loop, const bt_endpoint *endpoint, int fd)
{
    *acceptor = (bt_acceptor){.loop = loop, .endpoint = endpoint, .fd = fd};
    int err = uv_poll_init(&loop->uv, &acceptor->poll, fd);
    if (err < 0)
        return err;
    uv_timer_init(&loop->uv, &acceptor->pause);
    acceptor->poll.data = acceptor;
    acceptor->pause.data = acceptor;
    acceptor->is_open = true;
    return uv_poll_start(&acceptor->poll, UV_READABLE, on_readable);
}

void bt_acceptor_stop(bt_acceptor *acceptor)
{
    if (!acceptor->is_open)
        return;
    acceptor->is_open = false;
    uv_close((uv_handle_t *) &acceptor->pause, NULL);
    uv_close((uv_handle_t *) &acceptor->poll, NULL);
    close(acceptor->fd);
}
