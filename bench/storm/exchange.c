/* exchange.c: requests out, answers in, each judged; never sends a request twice.
 * Knows nothing of how a connection came to be. */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* ---- sending ---- */

/* Once a connection: the kernel may tell of one reset in send() and again in recv(). */
static void count_reset(storm_client *client)
{
    if (!client->is_reset)
        client->run->tally.reset++;
    client->is_reset = true;
}

static void broken(storm_client *client, int error)
{
    storm_tally *tally = &client->run->tally;

    if (error == ECONNRESET || error == EPIPE)
        count_reset(client);
    storm_client_note(client, strerror(error));
    if (client->state == STORM_ENDING) { /* the answer was whole */
        tally->requests++;
        tally->one_shots++;
        storm_histogram_add(&tally->latency, client->latency);
    } else if (storm_client_under_way(client) == 0 && error != ECONNRESET && error != EPIPE) {
        tally->closed_idle++;
    }
    storm_client_drop(client);
}

/* Returns false when the connection broke and was dropped. */
bool storm_exchange_send(storm_client *client)
{
    while (client->out_off < client->out_stop) {
        ssize_t sent =
            send(client->fd, client->out + client->out_off, client->out_stop - client->out_off, MSG_NOSIGNAL);
        if (sent >= 0) {
            client->out_off += (size_t) sent;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN) {
            storm_client_watch(client, EPOLLIN | EPOLLOUT);
            return true;
        }
        if (errno == EPIPE || errno == ECONNRESET) {
            /* What the server said before it went can still be read; recv() then tells the end. */
            client->out_len = client->out_stop = client->out_off;
            count_reset(client);
            storm_client_note(client, strerror(errno));
            storm_client_enter(client, STORM_ANSWERS);
            if (client->out_off == 0)
                storm_client_drop(client);
            return client->out_off > 0;
        }
        broken(client, errno);
        return false;
    }
    storm_client_watch(client, EPOLLIN);
    if (client->out_stop < client->out_len) {
        storm_run *run = client->run;
        storm_client_enter(client, STORM_HALF);
        storm_alarm_set(&run->halves, &client->pause, run->now + (uint64_t) run->options->split_ms * STORM_MS);
    } else {
        storm_client_enter(client, STORM_ANSWERS);
    }
    return true;
}

/* How many requests may begin now; each client that never began has one reserved. */
static uint32_t allowance(const storm_client *client)
{
    const storm_run *run = client->run;
    int64_t wanted = client->kind == STORM_KEEP ? run->options->pipeline : 1;

    if (client->kind == STORM_IDLE)
        return 1;
    int64_t reserved = run->unbegun - (client->kind == STORM_KEEP && !client->has_begun ? 1 : 0);
    int64_t free_budget = run->budget - reserved;
    return (uint32_t) (wanted < free_budget ? wanted : free_budget > 0 ? free_budget : 0);
}

static int load_batch(storm_client *client)
{
    storm_payload *payload = &client->run->payload;
    bool is_close = client->kind == STORM_ONE_SHOT;
    const char *shared = is_close ? payload->close : payload->keep;
    size_t head = is_close ? payload->close_head : payload->keep_head;

    client->request_len = is_close ? payload->close_len : payload->keep_len;
    client->out_len = client->out_stop = client->request_len * client->batch;
    client->out_off = 0;
    client->out = shared;
    if (payload->is_echo) {
        size_t most = is_close ? payload->close_len : payload->keep_len * (size_t) client->run->options->pipeline;
        if (client->own == NULL && (client->own = malloc(most)) != NULL)
            memcpy(client->own, shared, most);
        if (client->own == NULL)
            return -ENOMEM;
        for (uint32_t i = 0; i < client->batch; i++)
            storm_payload_body(payload, client->id, client->number + i, client->own + i * client->request_len + head);
        client->out = client->own;
    }
    if (client->run->options->split_ms > 0)
        client->out_stop = storm_payload_split(payload, head, client->out_len);
    return 0;
}

void storm_exchange_begin(storm_client *client)
{
    storm_run *run = client->run;
    bool is_late = run->phase != STORM_RUNNING && !(client->kind == STORM_IDLE && run->phase == STORM_LAST_CALL);

    client->number += client->batch;
    client->batch = client->answered = 0;
    uint32_t batch = is_late ? 0 : allowance(client);
    if (batch == 0) {
        run->is_spent = true;
        if (client->kind == STORM_ONE_SHOT) {
            storm_client_close(client);
            storm_client_enter(client, STORM_OVER);
        }
        return;
    }
    client->batch = batch;
    if (load_batch(client) < 0) {
        client->batch = 0;
        storm_client_close(client);
        storm_client_enter(client, STORM_OVER);
        storm_client_note(client, "storm is out of memory");
        return;
    }
    if (client->kind != STORM_IDLE)
        run->budget -= batch;
    if (client->kind == STORM_KEEP && !client->has_begun)
        run->unbegun--;
    client->has_begun = true;
    storm_client_enter(client, STORM_SENDING);
    client->sent_at = run->now = storm_clock();
    storm_client_arm(client);
    storm_exchange_send(client);
}

void storm_exchange_second_half(storm_client *client)
{
    client->out_stop = client->out_len;
    client->sent_at = client->run->now;
    storm_client_enter(client, STORM_SENDING);
    storm_client_arm(client);
    storm_exchange_send(client);
}

void storm_exchange_last_call(storm_client *client)
{
    if (client->kind != STORM_IDLE || client->state != STORM_READY)
        return;
    client->has_called = true;
    storm_exchange_begin(client);
}

/* ---- answers ---- */

static void malformed(storm_client *client, const char *why)
{
    client->run->tally.bad++;
    storm_client_note(client, why);
    if (storm_client_under_way(client) > 0)
        client->answered++; /* judged: bad, not lost */
    storm_client_drop(client);
}

static void count_version(storm_client *client)
{
    if (!client->run->options->has_versions)
        return;
    const storm_answer *answer = &client->answer;
    const char *absent = client->run->rules.header != NULL ? "(no such header)" : "";
    storm_tally_version(&client->run->tally, answer->has_value ? answer->value : absent,
                        answer->has_value ? answer->value_len : strlen(absent));
}

static void count_right(storm_client *client, uint64_t latency)
{
    storm_tally *tally = &client->run->tally;
    tally->requests++;
    if (client->kind == STORM_ONE_SHOT)
        tally->one_shots++;
    storm_histogram_add(&tally->latency, latency);
}

/* Puts a whole answer into its class. Returns false for one that is not right. */
static bool judge(storm_client *client)
{
    storm_tally *tally = &client->run->tally;
    const storm_answer *answer = &client->answer;
    char why[80];

    if (answer->status != client->run->options->expect_status) {
        tally->bad++;
        snprintf(why, sizeof(why), "status %d", answer->status);
        storm_client_note(client, why);
        return false;
    }
    if (client->run->payload.is_echo && (!answer->is_body_right || answer->body_len != client->run->payload.body)) {
        tally->lost++;
        storm_client_note(client, "the answer's body is not the request's");
        return false;
    }
    count_version(client);
    return true;
}

static void first_answer(storm_client *client)
{
    if (client->has_answer)
        return;
    client->has_answer = true;
    if (client->kind != STORM_ONE_SHOT)
        client->run->unanswered--;
}

/* The batch is answered; the next one begins now or after a pause. */
static void batch_is_over(storm_client *client)
{
    storm_run *run = client->run;

    storm_alarm_stop(&client->timeout);
    storm_client_enter(client, STORM_READY);
    if (client->kind == STORM_IDLE)
        return;
    if (run->options->think_ms > 0 && run->phase == STORM_RUNNING && allowance(client) > 0)
        storm_alarm_set(&run->thinks, &client->pause, run->now + (uint64_t) run->options->think_ms * STORM_MS);
    else
        storm_exchange_begin(client);
}

/* A one-shot's answer is whole: it is counted when the end that we asked for has come too. */
static void one_shot_answered(storm_client *client, bool is_right, bool is_at_end)
{
    client->latency = client->run->now - client->sent_at;
    if (is_right && !is_at_end) {
        storm_client_enter(client, STORM_ENDING);
        return;
    }
    if (is_right)
        count_right(client, client->latency);
    storm_client_close(client);
    storm_client_rest(client, false);
}

/* `rest_len` bytes lie behind the answer in the buffer. Returns false when the connection is no longer readable. */
static bool answered(storm_client *client, size_t rest_len, bool is_at_end)
{
    storm_tally *tally = &client->run->tally;
    bool will_close = client->answer.will_close;

    if (((size_t) client->answered + 1) * client->request_len > client->out_off) {
        malformed(client, "an answer before the request was sent");
        return false;
    }
    bool is_right = judge(client);
    client->answered++;
    first_answer(client);
    if (client->kind == STORM_ONE_SHOT) {
        if (rest_len > 0 && is_right) {
            malformed(client, "bytes behind the answer");
            return false;
        }
        one_shot_answered(client, is_right, is_at_end);
        return client->state == STORM_ENDING;
    }
    if (is_right)
        count_right(client, client->run->now - client->sent_at);
    if (will_close) {
        tally->told_to_close++;
        storm_client_note(client, "told to close");
        storm_client_drop(client);
        return false;
    }
    storm_answer_reset(&client->answer);
    if (client->answered < client->batch)
        return true;
    if (rest_len > 0) {
        malformed(client, "an answer that nobody asked for");
        return false;
    }
    batch_is_over(client);
    return false;
}

static void feed(storm_client *client, const char *data, size_t len)
{
    const storm_run *run = client->run;

    if (client->state == STORM_READY || client->state == STORM_ENDING) {
        malformed(client, "bytes that nobody asked for");
        return;
    }
    while (len > 0) {
        size_t used = storm_answer_feed(&client->answer, &run->rules, client, data, len);
        data += used;
        len -= used;
        if (client->answer.state == STORM_ANSWER_MALFORMED) {
            malformed(client, client->answer.error);
            return;
        }
        if (client->answer.state == STORM_ANSWER_DONE && !answered(client, len, false))
            return;
    }
}

static void ended(storm_client *client)
{
    storm_tally *tally = &client->run->tally;

    if (client->state == STORM_ENDING) {
        count_right(client, client->latency);
        storm_client_close(client);
        storm_client_rest(client, false);
        return;
    }
    if (client->answer.has_begun) {
        storm_answer_end(&client->answer);
        if (client->answer.state == STORM_ANSWER_DONE) { /* a body ended by the close */
            answered(client, 0, true);
            return;
        }
    }
    if (storm_client_under_way(client) == 0)
        tally->closed_idle++;
    storm_client_note(client, storm_client_under_way(client) == 0 ? "closed while idle"
                              : client->answer.has_begun          ? "closed in the middle of an answer"
                                                                  : "closed without an answer");
    storm_client_drop(client);
}

void storm_exchange_read(storm_client *client)
{
    storm_run *run = client->run;
    ssize_t got = recv(client->fd, run->buffer, STORM_BUFFER, 0);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    run->now = storm_clock();
    if (got > 0)
        feed(client, run->buffer, (size_t) got);
    else if (got == 0)
        ended(client);
    else
        broken(client, errno);
}
