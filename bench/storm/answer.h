/* answer.h: a strict incremental parser of HTTP/1.1 responses (RFC 9112).
 * Knows nothing of sockets; what it takes for malformed, a client may rightly refuse. */
#ifndef STORM_ANSWER_H
#define STORM_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STORM_HEAD_MAX = 65536,
    STORM_VALUE_SIZE = 128,
};

/*   HEAD --> LENGTH ------------------> DONE
 *     |----> UNTIL_CLOSE --(end)------> DONE
 *     '----> CHUNK_SIZE <-> CHUNK_DATA/CHUNK_END
 *                 '-------> TRAILER --> DONE     any --> MALFORMED */
typedef enum storm_answer_state {
    STORM_ANSWER_HEAD,
    STORM_ANSWER_LENGTH,
    STORM_ANSWER_UNTIL_CLOSE,
    STORM_ANSWER_CHUNK_SIZE,
    STORM_ANSWER_CHUNK_DATA,
    STORM_ANSWER_CHUNK_END,
    STORM_ANSWER_TRAILER,
    STORM_ANSWER_DONE,
    STORM_ANSWER_MALFORMED,
} storm_answer_state;

/* What the caller wants to know of each answer; the same for all of them. */
typedef struct storm_answer_rules {
    bool is_head;       /* answers to HEAD have no body */
    const char *header; /* a header field whose value is kept, or NULL */
    bool keeps_body;    /* keep the start of the body as the value */
    bool (*body)(void *arg, uint64_t offset, const char *data, size_t len); /* may be NULL */
} storm_answer_rules;

typedef struct storm_answer {
    storm_answer_state state;
    const char *error; /* why it is malformed */
    int status;
    bool will_close;    /* the server ends the connection after this answer */
    bool is_body_right; /* what rules->body said of every piece */
    bool has_begun;     /* at least one byte was fed */
    uint64_t body_len;
    uint64_t left; /* of the body or of the chunk */
    char value[STORM_VALUE_SIZE];
    size_t value_len;
    bool has_value;
    char *line; /* an unfinished head or line */
    size_t line_len;
} storm_answer;

/* Ready for the next answer; `answer` is zeroed before its first use. */
void storm_answer_reset(storm_answer *answer);

/* Consumes bytes up to the end of the answer at most; returns how many. Look at `state` then. */
size_t storm_answer_feed(storm_answer *answer, const storm_answer_rules *rules, void *arg, const char *data,
                         size_t len);

/* The server has ended the stream: the state is DONE only if that is how the body ends. */
void storm_answer_end(storm_answer *answer);

void storm_answer_free(storm_answer *answer);

#endif
