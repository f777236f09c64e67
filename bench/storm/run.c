/* run.c: the event loop of storm: who may connect now, what is due, what has happened.
 * Knows nothing of what an event means to a client. */
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTS_AT_ONCE = 64,
    EVENTS_AT_ONCE = 256,
    CATCH_UP_NS = 50 * STORM_MS, /* a stall of ours must not become a burst of one-shots */
};

uint64_t storm_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

void storm_alarm_stop(storm_alarm *alarm)
{
    if (alarm->next == NULL)
        return;
    alarm->next->prev = alarm->prev;
    alarm->prev->next = alarm->next;
    alarm->next = alarm->prev = NULL;
}

void storm_alarm_set(storm_alarm *queue, storm_alarm *alarm, uint64_t due)
{
    storm_alarm_stop(alarm);
    alarm->due = due;
    alarm->next = queue;
    alarm->prev = queue->prev;
    queue->prev->next = alarm;
    queue->prev = alarm;
}

static storm_client *first_of(storm_alarm *queue, size_t offset)
{
    if (queue->next == queue)
        return NULL;
    return (storm_client *) (void *) ((char *) queue->next - offset);
}

/* The client whose alarm in `queue` is due, taken out of it; NULL when there is none. */
static storm_client *take_due(storm_run *run, storm_alarm *queue, size_t offset)
{
    storm_client *client = first_of(queue, offset);
    if (client == NULL || queue->next->due > run->now)
        return NULL;
    storm_alarm_stop(queue->next);
    return client;
}

static void open_paced(storm_run *run)
{
    uint64_t interval = 1000000000u / (uint64_t) run->options->one_shot_rate;
    storm_client *client;

    if (run->pace_next + CATCH_UP_NS < run->now)
        run->pace_next = run->now - CATCH_UP_NS;
    while (run->pace_next <= run->now) {
        client = take_due(run, &run->pacing, offsetof(storm_client, pause));
        if (client == NULL)
            return;
        run->pace_next += interval;
        storm_client_open(client);
    }
}

static void open_waiting(storm_run *run)
{
    storm_client *client;
    while (run->connecting < CONNECTS_AT_ONCE &&
           (client = take_due(run, &run->waiting, offsetof(storm_client, pause))) != NULL)
        storm_client_open(client);
}

static void handle_due(storm_run *run)
{
    const size_t pause = offsetof(storm_client, pause);
    storm_client *client;

    while ((client = take_due(run, &run->timeouts, offsetof(storm_client, timeout))) != NULL)
        storm_client_timeout(client);
    while ((client = take_due(run, &run->halves, pause)) != NULL)
        storm_exchange_second_half(client);
    while ((client = take_due(run, &run->thinks, pause)) != NULL)
        storm_exchange_begin(client);
    while ((client = take_due(run, &run->retries, pause)) != NULL)
        storm_client_rest(client, false);
    open_waiting(run);
    open_paced(run);
}

/* Milliseconds until something is due, rounded up, at most `wait_ms`. */
static int time_left(const storm_run *run, int wait_ms)
{
    const storm_alarm *const queues[] = {&run->timeouts, &run->thinks, &run->halves, &run->retries};
    uint64_t due = run->now + (uint64_t) wait_ms * STORM_MS;

    for (size_t i = 0; i < sizeof(queues) / sizeof(queues[0]); i++)
        if (queues[i]->next != queues[i] && queues[i]->next->due < due)
            due = queues[i]->next->due;
    if (run->pacing.next != &run->pacing && run->pace_next < due)
        due = run->pace_next;
    return due <= run->now ? 0 : (int) ((due - run->now + STORM_MS - 1) / STORM_MS);
}

static void last_call(storm_run *run)
{
    run->phase = STORM_LAST_CALL;
    for (uint32_t i = 0; i < run->client_count; i++)
        if (run->clients[i].kind == STORM_IDLE && run->clients[i].state == STORM_READY)
            storm_exchange_last_call(&run->clients[i]);
}

static void advance(storm_run *run)
{
    if (run->phase == STORM_RUNNING && run->is_spent && run->unbegun == 0)
        storm_run_drain(run);
    if (run->phase == STORM_DRAINING && run->busy == 0)
        last_call(run);
    if (run->phase == STORM_LAST_CALL && run->busy == 0)
        storm_run_end(run);
}

static int take_events(storm_run *run, int wait_ms)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int count = epoll_wait(run->epoll, events, EVENTS_AT_ONCE, wait_ms);
    int has_foreign = 0;

    run->now = storm_clock();
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == NULL)
            has_foreign = 1;
        else
            storm_client_event(events[i].data.ptr, events[i].events);
    }
    return has_foreign;
}

int storm_run_step(storm_run *run, int wait_ms)
{
    run->now = storm_clock();
    handle_due(run);
    advance(run); /* a drain that finds nothing under way must not wait for an event */
    if (run->phase == STORM_ENDED)
        return 0;
    int has_foreign = take_events(run, time_left(run, wait_ms));
    advance(run);
    return has_foreign;
}

void storm_run_drain(storm_run *run)
{
    if (run->phase != STORM_RUNNING)
        return;
    run->phase = STORM_DRAINING;
    for (uint32_t i = 0; i < run->client_count; i++)
        if (run->clients[i].state == STORM_DOWN)
            storm_client_rest(&run->clients[i], false);
}

void storm_run_end(storm_run *run)
{
    if (run->phase == STORM_ENDED)
        return;
    /* An end that has already arrived must not be overlooked; one look shows a limited number of them. */
    for (uint32_t seen = 0; seen <= run->client_count; seen += EVENTS_AT_ONCE)
        take_events(run, 0);
    run->phase = STORM_ENDED;
    for (uint32_t i = 0; i < run->client_count; i++) {
        storm_client *client = &run->clients[i];
        storm_client_finish(client);
        bool is_kept = client->is_original && client->state == STORM_READY;
        if (client->kind == STORM_ONE_SHOT)
            continue;
        run->tally.keep_total++;
        run->tally.kept += is_kept;
        run->tally.idle_total += client->kind == STORM_IDLE;
        run->tally.idle_kept += client->kind == STORM_IDLE && is_kept;
    }
}

uint64_t storm_run_kept(const storm_run *run)
{
    uint64_t kept = 0;
    for (uint32_t i = 0; i < run->client_count; i++)
        kept += run->clients[i].kind != STORM_ONE_SHOT && run->clients[i].is_original && run->clients[i].fd >= 0;
    return kept;
}

bool storm_run_is_ready(const storm_run *run)
{
    if (run->client_count > (uint32_t) run->options->one_shot)
        return run->unanswered == 0;
    return run->tally.requests > 0;
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool body_matches(void *arg, uint64_t offset, const char *data, size_t len)
{
    const storm_client *client = arg;
    return storm_payload_matches(&client->run->payload, client->id, client->number + client->answered, offset, data,
                                 len);
}

static void add_clients(storm_run *run, storm_kind kind, int count)
{
    for (int i = 0; i < count; i++) {
        storm_client *client = &run->clients[run->client_count];
        storm_client_init(client, run, kind, run->client_count++);
        storm_client_rest(client, false);
    }
}

int storm_run_init(storm_run *run, const storm_options *options)
{
    memset(run, 0, sizeof(*run));
    run->options = options;
    run->epoll = -1;
    storm_alarm *queues[] = {&run->timeouts, &run->thinks, &run->halves, &run->retries, &run->waiting, &run->pacing};
    for (size_t i = 0; i < sizeof(queues) / sizeof(queues[0]); i++)
        queues[i]->next = queues[i]->prev = queues[i];
    run->rules.is_head = strcmp(options->method, "HEAD") == 0;
    run->rules.header = options->version_header;
    run->rules.keeps_body = options->has_versions && options->version_header == NULL;
    run->rules.body = options->is_echo ? body_matches : NULL;
    run->budget = options->requests > 0 ? options->requests : INT64_MAX / 2;
    run->unanswered = (uint32_t) (options->connections + options->idle);
    run->unbegun = (uint32_t) options->connections;

    raise_file_limit();
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (run->epoll < 0)
        return -errno;
    size_t count = (size_t) options->connections + (size_t) options->idle + (size_t) options->one_shot;
    run->clients = calloc(count, sizeof(*run->clients));
    run->buffer = malloc(STORM_BUFFER);
    if (run->clients == NULL || run->buffer == NULL)
        return -ENOMEM;
    int error = storm_payload_init(&run->payload, options);
    if (error < 0)
        return error;
    run->now = run->started_at = run->pace_next = storm_clock();
    add_clients(run, STORM_IDLE, options->idle);
    add_clients(run, STORM_KEEP, options->connections);
    add_clients(run, STORM_ONE_SHOT, options->one_shot);
    return 0;
}

void storm_run_free(storm_run *run)
{
    for (uint32_t i = 0; i < run->client_count; i++)
        storm_client_free(&run->clients[i]);
    free(run->clients);
    free(run->buffer);
    storm_payload_free(&run->payload);
    storm_tally_free(&run->tally);
    if (run->epoll >= 0)
        close(run->epoll);
}
