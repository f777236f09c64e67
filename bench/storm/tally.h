/* tally.h: everything a client can notice, counted; the names of the versions that answered.
 * Knows nothing of sockets. */
#ifndef STORM_TALLY_H
#define STORM_TALLY_H

#include "histogram.h"

#include <stddef.h>
#include <stdint.h>

enum {
    STORM_NAME_SIZE = 128,
    STORM_NAMES_MAX = 4096,
    STORM_NOTES_MAX = 10,
    STORM_NOTE_SIZE = 200,
};

typedef struct storm_name {
    char text[STORM_NAME_SIZE];
    size_t len;
    uint64_t count;
} storm_name;

/* Every request that was begun ends in exactly one of requests, lost and bad. */
typedef struct storm_tally {
    uint64_t requests;      /* answered, whole and right */
    uint64_t lost;          /* first byte sent, and no whole right answer came */
    uint64_t refused;       /* connects that failed or timed out */
    uint64_t reset;         /* connections that ended by ECONNRESET or EPIPE */
    uint64_t closed_idle;   /* connections ended by the server with no request under way */
    uint64_t told_to_close; /* answers that end a connection we wanted to keep */
    uint64_t bad;           /* wrong status, malformed answer, answer to nothing */

    uint64_t kept, keep_total; /* initial keep-alive connections alive from start to end, idle ones included */
    uint64_t idle_kept, idle_total;
    uint64_t one_shots; /* of requests: answered on a connection of their own */

    storm_histogram latency; /* ns */
    storm_name *names;
    size_t name_count, last_name;

    char notes[STORM_NOTES_MAX][STORM_NOTE_SIZE]; /* the first failures, in words */
    size_t note_count;
} storm_tally;

/* Counts one answer of the version called `text`. More than STORM_NAMES_MAX names are not told apart. */
void storm_tally_version(storm_tally *tally, const char *text, size_t len);

/* Keeps the words for the first few failures; later ones are only counted. */
void storm_tally_note(storm_tally *tally, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* True when no client has noticed anything. */
int storm_tally_is_clean(const storm_tally *tally);

void storm_tally_free(storm_tally *tally);

#endif
