/* client.c: the connections of one client, one after another: connect, watch, time out, end.
 * Knows nothing of requests and answers (exchange.c) but how many are under way. */
#include "client.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RETRY_MS = 10 };

static bool is_busy(storm_state state)
{
    return state == STORM_SENDING || state == STORM_HALF || state == STORM_ANSWERS || state == STORM_ENDING;
}

bool storm_client_is_busy(const storm_client *client)
{
    return is_busy(client->state);
}

void storm_client_enter(storm_client *client, storm_state state)
{
    bool was = is_busy(client->state), is = is_busy(state);
    if (was != is)
        client->run->busy += is ? 1u : -1u;
    client->state = state;
}

void storm_client_watch(storm_client *client, uint32_t events)
{
    if (client->interest == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = client};
    epoll_ctl(client->run->epoll, client->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client->fd, &event);
    client->interest = events;
}

void storm_client_arm(storm_client *client)
{
    storm_run *run = client->run;
    storm_alarm_set(&run->timeouts, &client->timeout, run->now + (uint64_t) run->options->timeout_ms * STORM_MS);
}

/* Requests of the batch whose first byte is in the kernel and which have no answer. */
uint32_t storm_client_under_way(const storm_client *client)
{
    if (!is_busy(client->state) || client->state == STORM_ENDING)
        return 0;
    size_t begun = (client->out_off + client->request_len - 1) / client->request_len;
    return (uint32_t) begun - client->answered;
}

void storm_client_note(storm_client *client, const char *what)
{
    static const char *const kinds[] = {"connection", "idle connection", "one-shot"};
    storm_run *run = client->run;
    storm_tally_note(&run->tally, "%.3f s, %s %u, %u of %u answered, %zu of %zu bytes sent: %s",
                     (double) (run->now - run->started_at) / 1e9, kinds[client->kind], client->id, client->answered,
                     client->batch, client->out_off, client->out_len, what);
}

/* Where a client goes that has no connection: back to the start, or to rest. */
void storm_client_rest(storm_client *client, bool is_dead_server)
{
    storm_run *run = client->run;

    storm_alarm_stop(&client->pause);
    storm_client_enter(client, STORM_DOWN);
    if (run->phase != STORM_RUNNING || (client->kind == STORM_IDLE && !client->is_original))
        storm_client_enter(client, STORM_OVER);
    else if (is_dead_server)
        storm_alarm_set(&run->retries, &client->pause, run->now + RETRY_MS * (uint64_t) STORM_MS);
    else if (client->kind == STORM_ONE_SHOT)
        storm_alarm_set(&run->pacing, &client->pause, 0);
    else
        storm_alarm_set(&run->waiting, &client->pause, 0);
}

void storm_client_close(storm_client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->interest = 0;
    storm_alarm_stop(&client->timeout);
    storm_alarm_stop(&client->pause);
}

/* The connection is over; what it still owed is lost. */
void storm_client_drop(storm_client *client)
{
    storm_run *run = client->run;
    uint32_t owed = storm_client_under_way(client);

    run->tally.lost += owed;
    if (is_busy(client->state) && client->state != STORM_ENDING)
        run->budget += client->batch - client->answered - owed; /* never begun */
    bool has_served = client->answered > 0 || client->number > 0;
    storm_client_close(client);
    client->is_original = false;
    storm_client_rest(client, !has_served);
}

/* ---- connecting ---- */

static void connect_is_over(storm_client *client)
{
    if (client->kind != STORM_ONE_SHOT)
        client->run->connecting--;
}

static void connect_failed(storm_client *client, int error)
{
    storm_tally *tally = &client->run->tally;

    connect_is_over(client);
    if (error == ECONNRESET || error == EPIPE)
        tally->reset++;
    else
        tally->refused++;
    storm_tally_note(tally, "%.3f s, client %u: connect: %s",
                     (double) (client->run->now - client->run->started_at) / 1e9, client->id, strerror(error));
    if (client->kind == STORM_KEEP && !client->has_begun) {
        client->has_begun = true; /* its reserved request goes to the others */
        client->run->unbegun--;
    }
    storm_client_close(client);
    client->connect_since = 0;
    client->is_original = false;
    storm_client_rest(client, true);
}

static void connected(storm_client *client)
{
    int on = 1;

    connect_is_over(client);
    if (client->run->options->unix_path == NULL)
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    storm_alarm_stop(&client->timeout);
    storm_client_watch(client, EPOLLIN);
    client->connect_since = 0;
    client->is_reset = false;
    client->answered = client->batch = 0;
    client->out_off = client->out_len = 0;
    client->number = 0;
    storm_answer_reset(&client->answer);
    storm_client_enter(client, STORM_READY);
    if (client->kind != STORM_IDLE || !client->has_begun)
        storm_exchange_begin(client);
}

/* A Unix socket with a full backlog says EAGAIN at once where a blocking client would simply wait. */
static void wait_for_backlog(storm_client *client)
{
    storm_run *run = client->run;
    if (run->now - client->connect_since > (uint64_t) run->options->timeout_ms * STORM_MS) {
        connect_failed(client, ETIMEDOUT);
        return;
    }
    connect_is_over(client);
    storm_client_close(client);
    storm_client_enter(client, STORM_DOWN);
    storm_alarm_set(&run->retries, &client->pause, run->now + RETRY_MS * (uint64_t) STORM_MS);
}

void storm_client_open(storm_client *client)
{
    storm_run *run = client->run;
    const storm_options *options = run->options;

    if (client->connect_since == 0)
        client->connect_since = run->now;
    if (client->kind != STORM_ONE_SHOT)
        run->connecting++;
    storm_client_enter(client, STORM_CONNECTING);
    client->fd = socket(options->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        connect_failed(client, errno);
        return;
    }
    if (connect(client->fd, (const struct sockaddr *) &options->address, options->address_len) == 0) {
        connected(client);
    } else if (errno == EINPROGRESS) {
        storm_client_watch(client, EPOLLOUT);
        storm_client_arm(client);
    } else if (errno == EAGAIN) {
        wait_for_backlog(client);
    } else {
        connect_failed(client, errno);
    }
}

void storm_client_event(storm_client *client, uint32_t events)
{
    if (client->fd < 0)
        return;
    if (client->state == STORM_CONNECTING) {
        int error = 0;
        socklen_t len = sizeof(error);
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error != 0)
            connect_failed(client, error);
        else if (events & EPOLLOUT)
            connected(client);
        return;
    }
    if ((events & EPOLLOUT) && client->state == STORM_SENDING && !storm_exchange_send(client))
        return;
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        storm_exchange_read(client);
}

void storm_client_timeout(storm_client *client)
{
    if (client->state == STORM_CONNECTING) {
        connect_failed(client, ETIMEDOUT);
        return;
    }
    if (client->state == STORM_ENDING) {
        client->run->tally.bad++;
        storm_client_note(client, "not closed after an answer to Connection: close");
    } else {
        storm_client_note(client, "no answer in time");
    }
    storm_client_drop(client);
}

void storm_client_finish(storm_client *client)
{
    if (client->state == STORM_ENDING)
        storm_client_timeout(client);
    else if (storm_client_under_way(client) > 0)
        storm_client_note(client, "no answer before the end of the run");
    if (is_busy(client->state))
        storm_client_drop(client);
}

void storm_client_init(storm_client *client, storm_run *run, storm_kind kind, uint32_t id)
{
    *client = (storm_client){.run = run, .kind = kind, .fd = -1, .id = id, .is_original = true};
    storm_answer_reset(&client->answer);
}

void storm_client_free(storm_client *client)
{
    storm_client_close(client);
    free(client->own);
    storm_answer_free(&client->answer);
}
