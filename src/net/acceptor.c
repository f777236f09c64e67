/* net/acceptor.c: accepts connections one per wake-up, so that they spread evenly over the processes that share the
 * socket (batches gave one process of four most of 64, and the pass keeps that imbalance for ever); at the end all.
 * Must not know who the siblings are. */
#include <base/failpoint.h>
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

/* A queue that is being emptied: connections taken per turn of the loop, looks while descriptors are used up, and the
 * end, which a supervisor that wants the port again can wait for. */
#define FINISH_BATCH    64
#define FINISH_RETRY_MS 10
#define FINISH_MS       100

static void on_readable(uv_poll_t *poll, int status, int events);
static void resume(uv_timer_t *timer);

static void watch_finish(bt_acceptor *acceptor, uint64_t at_most_ms)
{
    uint64_t now_ms = bt_loop_now(acceptor->loop);
    uint64_t left_ms = acceptor->finish_by_ms > now_ms ? acceptor->finish_by_ms - now_ms : 0;
    uv_timer_start(&acceptor->pause, resume, left_ms < at_most_ms ? left_ms : at_most_ms, 0);
}

static void resume(uv_timer_t *timer)
{
    bt_acceptor *acceptor = timer->data;
    if (acceptor->is_finishing && bt_loop_now(acceptor->loop) >= acceptor->finish_by_ms) {
        bt_log(BT_LOG_WARN, "accept-cut reason=\"the queue was not empty after %d ms\"", FINISH_MS);
        bt_acceptor_stop(acceptor);
        return;
    }
    if (acceptor->is_finishing)
        watch_finish(acceptor, FINISH_MS);
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
    if (acceptor->is_finishing)
        watch_finish(acceptor, FINISH_RETRY_MS);
    else
        uv_timer_start(&acceptor->pause, resume, PAUSE_MS, 0);
}

/* A process that leaves answers whom it still accepts, but does not wait long for those who say nothing. */
static uint64_t first_bytes_timeout_ms(const bt_loop *loop, const bt_endpoint *endpoint)
{
    uint64_t timeout_ms = endpoint->header_timeout_ms;
    bool is_leaving = loop->departure == BT_DEPARTURE_CLOSE;
    return is_leaving && (timeout_ms == 0 || timeout_ms > BT_FIRST_BYTES_MS) ? BT_FIRST_BYTES_MS : timeout_ms;
}

baton_conn *bt_accept_conn(bt_loop *loop, const bt_endpoint *endpoint, int fd, const struct sockaddr *peer,
                           socklen_t peer_len)
{
    baton_conn *conn = bt_conn_create(loop, endpoint, fd, bt_conn_next_id(loop));
    if (conn == NULL) {
        bt_log(BT_LOG_ERROR, "connection-refused reason=\"out of memory or descriptors\"");
        close(fd);
        return NULL;
    }
    bt_pass_log(conn->id, "accepted");
    bt_address_from_sockaddr(&conn->remote, peer, peer_len);
    bt_count(&endpoint->counters->accepted, 1);
    bt_conn_expire_in(conn, first_bytes_timeout_ms(loop, endpoint));
    baton_conn_ref(conn);
    if (endpoint->callbacks->on_connect != NULL)
        endpoint->callbacks->on_connect(conn);
    if (conn->state == BT_CONN_OPEN)
        bt_conn_start(conn);
    if (conn->state == BT_CONN_OPEN && loop->departure == BT_DEPARTURE_PASS)
        bt_conn_resume(conn); /* leaves from the loop's end, even if its client never says a word */
    return conn;
}

/* 0, or a negative errno. */
static int accept_one(bt_acceptor *acceptor)
{
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    int fd = accept4(acceptor->fd, (struct sockaddr *) &peer, &peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (acceptor->is_paused)
        bt_log(BT_LOG_INFO, "accept-resumed");
    acceptor->is_paused = false;
    earn_credit(acceptor);
    baton_conn *conn =
        bt_accept_conn(acceptor->loop, acceptor->endpoint, fd, (const struct sockaddr *) &peer, peer_len);
    if (conn != NULL)
        baton_conn_unref(conn);
    return 0;
}

static bool is_out_of_room(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM;
}

static bool is_about_one_client(int err)
{
    return err == -EINTR || err == -ECONNABORTED;
}

/* Nobody else may be there to share the queue with: the faster the better. */
static void accept_rest(bt_acceptor *acceptor)
{
    for (int i = 0; i < FINISH_BATCH && acceptor->is_open; i++) {
        int err = accept_one(acceptor);
        if (err == 0 || is_about_one_client(err))
            continue;
        if (is_out_of_room(err)) {
            pause_accepting(acceptor, err);
            return;
        }
        if (err != -EAGAIN)
            bt_log(BT_LOG_WARN, "accept-failed error=%s", uv_err_name(err));
        bt_acceptor_stop(acceptor);
        return;
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void) status;
    (void) events;
    bt_acceptor *acceptor = poll->data;
    if (acceptor->is_finishing) {
        accept_rest(acceptor);
        return;
    }
    if (!acceptor->has_given_way && gives_way(acceptor)) {
        acceptor->has_given_way = true;
        uv_poll_stop(&acceptor->poll);
        uv_timer_start(&acceptor->pause, resume, GIVE_WAY_MS, 0);
        return;
    }
    int err = accept_one(acceptor);
    if (err == -EAGAIN) {
        acceptor->has_given_way = false; /* a sibling took it: they are there */
        acceptor->streak = acceptor->credit = 0;
    } else if (is_out_of_room(err)) {
        pause_accepting(acceptor, err);
    } else if (err < 0 && !is_about_one_client(err)) {
        bt_log(BT_LOG_WARN, "accept-failed error=%s", uv_err_name(err));
    }
}

int bt_acceptor_start(bt_acceptor *acceptor, bt_loop *loop, const bt_endpoint *endpoint, int fd)
{
    *acceptor = (bt_acceptor){.loop = loop, .endpoint = endpoint, .fd = fd};
    bt_list_init(&acceptor->node);
    int err = uv_poll_init(&loop->uv, &acceptor->poll, fd);
    if (err < 0)
        return err;
    uv_timer_init(&loop->uv, &acceptor->pause);
    acceptor->poll.data = acceptor;
    acceptor->pause.data = acceptor;
    acceptor->is_open = true;
    return uv_poll_start(&acceptor->poll, UV_READABLE, on_readable);
}

/* libuv closes the handle that was closed last first. */
static void handle_closed(uv_handle_t *handle)
{
    bt_acceptor *acceptor = handle->data;
    if (--acceptor->open_handles == 0 && acceptor->closed != NULL)
        acceptor->closed(acceptor);
}

void bt_acceptor_stop(bt_acceptor *acceptor)
{
    if (!acceptor->is_open)
        return;
    acceptor->is_open = false;
    acceptor->open_handles = 2;
    uv_close((uv_handle_t *) &acceptor->pause, handle_closed);
    uv_close((uv_handle_t *) &acceptor->poll, handle_closed);
    close(acceptor->fd);
    if (acceptor->on_end != NULL)
        acceptor->on_end(acceptor);
}

void bt_acceptor_finish(bt_acceptor *acceptor)
{
    if (!acceptor->is_open || acceptor->is_finishing)
        return;
    acceptor->is_finishing = true;
    uv_update_time(&acceptor->loop->uv); /* a callback that blocked has left the cached time behind */
    acceptor->finish_by_ms = bt_loop_now(acceptor->loop) + FINISH_MS;
    resume(&acceptor->pause);
    accept_rest(acceptor);
}
