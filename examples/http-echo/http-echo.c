/* http-echo: answers with the request's body, and shows replies that come later and in parts.
 * Every answer tells which process and which generation of the code gave it. */
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_SLEEP_MS = 600000,
    MAX_BLOCK_MS = 60000,
    MAX_CHUNKS = 1000000,
    CHUNK_SIZE = 1024,
    CHUNK_INTERVAL_MS = 10,
};

/* What is still to be done for a request after on_request has returned. It belongs to the connection, as its user
 * pointer, from begin_job() to end_job(). Requests of one connection are answered in order, so that there is never more
 * than one. */
typedef struct job {
    baton_conn *conn;
    baton_timer *timer; /* NULL inside its own callback */
    long chunks_left;
} job;

/* The headers of every answer. They go with the next reply call, whichever that is. */
static void sign(baton_conn *conn)
{
    char text[32];

    snprintf(text, sizeof(text), "%d", (int) getpid());
    baton_reply_header(conn, "X-Pid", text);
    snprintf(text, sizeof(text), "%llu", (unsigned long long) baton_generation());
    baton_reply_header(conn, "X-Generation", text);
}

static void answer_error(baton_conn *conn, int status)
{
    sign(conn);
    baton_reply_error(conn, status);
}

static void answer_hi(baton_conn *conn)
{
    sign(conn);
    baton_reply(conn, 200, "text/plain", "hi");
}

/* The number after `prefix`, or -1 when the path does not continue with one from 0 to `max`. */
static long number_after(baton_str path, const char *prefix, long max)
{
    long value = 0;
    size_t i = strlen(prefix);

    if (i == path.len)
        return -1;
    for (; i < path.len; i++) {
        if (path.data[i] < '0' || path.data[i] > '9')
            return -1;
        value = value * 10 + (path.data[i] - '0');
        if (value > max)
            return -1;
    }
    return value;
}

static bool starts_with(baton_str path, const char *prefix)
{
    size_t len = strlen(prefix);

    return path.len >= len && memcmp(path.data, prefix, len) == 0;
}

/* ---- jobs: the asynchronous answers ---- */

static job *begin_job(baton_conn *conn)
{
    job *work = calloc(1, sizeof(*work));

    if (!work)
        return NULL;
    /* The reference keeps the handle valid for the timer, whatever happens to the client meanwhile. */
    work->conn = baton_conn_ref(conn);
    baton_conn_set_user(conn, work);
    return work;
}

/* A connection with a user pointer has state that only this process knows and is not passed on at a reload. So the
 * pointer is taken away with the job, before the answer ends: from then on the connection is free to go. */
static void end_job(job *work)
{
    baton_conn_set_user(work->conn, NULL);
    baton_timer_cancel(work->timer);
    baton_conn_unref(work->conn);
    free(work);
}

/* The client left before its answer was complete. */
static void on_close(baton_conn *conn)
{
    job *work = baton_conn_user(conn);

    if (work)
        end_job(work);
}

static void on_slept(void *arg)
{
    job *work = arg;
    baton_conn *conn = baton_conn_ref(work->conn);

    work->timer = NULL;
    end_job(work);
    answer_hi(conn);
    baton_conn_unref(conn);
}

static void answer_later(baton_conn *conn, long delay_ms)
{
    job *work = begin_job(conn);

    if (work)
        work->timer = baton_timer_once((uint64_t) delay_ms, on_slept, work);
    if (work && work->timer)
        return;
    if (work)
        end_job(work);
    answer_error(conn, 503);
}

static void on_chunk_due(void *arg)
{
    job *work = arg;
    char chunk[CHUNK_SIZE];

    work->timer = NULL;
    memset(chunk, 'x', sizeof(chunk));
    /* A client that does not read: the connection is being aborted, and on_close ends the job. */
    if (baton_reply_write(work->conn, chunk, sizeof(chunk)) < 0)
        return;
    if (--work->chunks_left == 0) {
        baton_conn *conn = baton_conn_ref(work->conn);

        end_job(work);
        baton_reply_end(conn);
        baton_conn_unref(conn);
        return;
    }
    /* One timer after the other: repeating ones stop when a reload lets this process drain, and the stream would stand
     * still. */
    work->timer = baton_timer_once(CHUNK_INTERVAL_MS, on_chunk_due, work);
    if (!work->timer)
        baton_destroy(work->conn);
}

static void answer_in_chunks(baton_conn *conn, long count)
{
    job *work;

    sign(conn);
    if (baton_reply_start(conn, 200, "application/octet-stream", BATON_CHUNKED) < 0)
        return;
    if (count == 0) {
        baton_reply_end(conn);
        return;
    }
    work = begin_job(conn);
    if (work) {
        work->chunks_left = count;
        work->timer = baton_timer_once(CHUNK_INTERVAL_MS, on_chunk_due, work);
    }
    if (!work || !work->timer)
        baton_destroy(conn);
}

/* ---- the others ---- */

/* What a service must not do: nobody else of this process is served meanwhile. */
static void block(long ms)
{
    struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    while (nanosleep(&rest, &rest) != 0)
        continue;
}

/* Not for the sanitizers to catch: the master is to see a real SIGSEGV. */
__attribute__((no_sanitize("undefined"))) static void crash(void)
{
    volatile int *volatile nowhere = NULL; /* the compiler may drop a store that cannot hit anything */

    *nowhere = 0;
}

static void echo(baton_conn *conn, const baton_request *req)
{
    baton_str body = baton_request_body(req);

    if (body.len == 0) {
        answer_hi(conn);
        return;
    }
    sign(conn);
    baton_reply_bytes(conn, 200, "application/octet-stream", body.data, body.len);
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_str path = baton_request_path(req);
    long number;

    if (starts_with(path, "/sleep/")) {
        number = number_after(path, "/sleep/", MAX_SLEEP_MS);
        if (number < 0)
            answer_error(conn, 400);
        else
            answer_later(conn, number);
    } else if (starts_with(path, "/block/")) {
        number = number_after(path, "/block/", MAX_BLOCK_MS);
        if (number < 0) {
            answer_error(conn, 400);
            return;
        }
        block(number);
        answer_hi(conn);
    } else if (starts_with(path, "/stream/")) {
        number = number_after(path, "/stream/", MAX_CHUNKS);
        if (number < 0)
            answer_error(conn, 400);
        else
            answer_in_chunks(conn, number);
    } else if (path.len == strlen("/crash") && starts_with(path, "/crash")) {
        crash();
    } else {
        echo(conn, req);
    }
}

BATON_MODULE(.on_request = on_request, .on_close = on_close);
