/* run.h: one run of storm: its clients, their deadlines, and what was counted.
 * Knows nothing of signals, terminals or reports. */
#ifndef STORM_RUN_H
#define STORM_RUN_H

#include "answer.h"
#include "options.h"
#include "payload.h"
#include "tally.h"

#include <stdbool.h>
#include <stdint.h>

/*   RUNNING --(limit, signal)--> DRAINING --(nothing under way)--> LAST_CALL --(idle ones answered)--> ENDED */
typedef enum storm_phase {
    STORM_RUNNING,
    STORM_DRAINING,  /* no new requests; answers under way may come */
    STORM_LAST_CALL, /* each idle connection sends its second request */
    STORM_ENDED,
} storm_phase;

/* A deadline. All alarms of one queue have the same delay, so that appending keeps them in order. */
typedef struct storm_alarm {
    struct storm_alarm *next, *prev; /* NULL when not queued */
    uint64_t due;
} storm_alarm;

typedef enum storm_kind {
    STORM_KEEP,
    STORM_IDLE,
    STORM_ONE_SHOT,
} storm_kind;

/*   DOWN -> CONNECTING -> READY <-> SENDING -> ANSWERS -> (ENDING, one-shot only)
 *     ^         |           |        |   ^        |           |
 *     |         |           |        v   |        |           |
 *     |         |           |        HALF         |           |
 *     '---------'-----------'---------------------'-----------'      OVER: not opened again */
typedef enum storm_state {
    STORM_DOWN,
    STORM_CONNECTING,
    STORM_READY,   /* connected, no request under way */
    STORM_SENDING, /* part of the batch is not yet in the kernel; answers may come already */
    STORM_HALF,    /* first half sent, pausing */
    STORM_ANSWERS, /* all sent, waiting for answers */
    STORM_ENDING,  /* answered, waiting for the end that we asked for */
    STORM_OVER,
} storm_state;

typedef struct storm_run storm_run;

typedef struct storm_client {
    storm_run *run;
    storm_kind kind;
    storm_state state;
    int fd;
    uint32_t id;
    uint32_t interest; /* what epoll watches */
    bool is_original;  /* still on its first connection */
    bool has_answer;   /* ever */
    bool has_begun;    /* ever sent a request */
    bool has_called;   /* idle: the second request is sent */
    bool is_reset;     /* this connection, counted */
    storm_alarm timeout, pause;
    uint64_t connect_since;
    uint64_t sent_at;
    uint64_t latency; /* of an answer that is not yet counted (ENDING) */

    const char *out; /* the batch: payload's own bytes, or `own` */
    char *own;
    size_t out_len, out_off, out_stop; /* out_stop: end of the first half */
    size_t request_len;
    uint32_t batch, answered;
    uint64_t number; /* of the batch's first request */
    storm_answer answer;
} storm_client;

struct storm_run {
    const storm_options *options;
    storm_payload payload;
    storm_answer_rules rules;
    storm_tally tally;
    storm_phase phase;
    int epoll;
    uint64_t now; /* ns, CLOCK_MONOTONIC */
    uint64_t started_at;
    char *buffer;

    storm_client *clients;
    uint32_t client_count;
    uint32_t connecting; /* keep and idle connects under way: a burst would overflow the server's backlog */
    uint32_t unanswered; /* keep and idle clients without a first answer */
    uint32_t unbegun;    /* keep clients that never sent a request: each has one reserved of --requests */
    uint32_t busy;       /* clients with requests under way */
    int64_t budget;      /* requests that may still begin */
    bool is_spent;       /* a client wanted to begin one and could not */
    uint64_t pace_next;  /* when the next one-shot may connect */

    storm_alarm timeouts, thinks, halves, retries, /* queues with a deadline */
        waiting, pacing;                           /* and without */
};

enum { STORM_BUFFER = 256 * 1024 };

/* ---- run.c ---- */

/* Returns 0 or a negative errno. `options` must outlive the run. */
int storm_run_init(storm_run *run, const storm_options *options);
void storm_run_free(storm_run *run);

/* Handles what is due and what has happened; waits at most `wait_ms` for it. Events of descriptors that are not
 * clients' (registered with a NULL pointer) make it return 1. */
int storm_run_step(storm_run *run, int wait_ms);

/* No new requests from now on. */
void storm_run_drain(storm_run *run);

/* Ends the waiting: what has no answer now is lost. Counts what was kept. */
void storm_run_end(storm_run *run);

/* Initial keep-alive connections that are still alive. */
uint64_t storm_run_kept(const storm_run *run);

/* Every keep-alive connection has had an answer. */
bool storm_run_is_ready(const storm_run *run);
uint64_t storm_clock(void);

void storm_alarm_set(storm_alarm *queue, storm_alarm *alarm, uint64_t due);
void storm_alarm_stop(storm_alarm *alarm);

#endif
