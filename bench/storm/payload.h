/* payload.h: the bytes of the requests, and where to split them.
 * Knows nothing of connections; a body is a function of (connection id, request number). */
#ifndef STORM_PAYLOAD_H
#define STORM_PAYLOAD_H

#include "options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct storm_payload {
    char *keep;                 /* `pipeline` whole requests in a row */
    char *close;                /* one with "Connection: close" */
    size_t keep_len, close_len; /* of one request */
    size_t keep_head, close_head;
    size_t body;
    bool is_echo;
    char *pattern;
    uint64_t splits; /* requests split so far */
} storm_payload;

/* Returns 0 or -ENOMEM. */
int storm_payload_init(storm_payload *payload, const storm_options *options);
void storm_payload_free(storm_payload *payload);

/* Writes the body of request `number` of connection `id`. */
void storm_payload_body(const storm_payload *payload, uint32_t id, uint64_t number, char *out);

/* True when `data` is what the body has at `offset`. */
bool storm_payload_matches(const storm_payload *payload, uint32_t id, uint64_t number, uint64_t offset,
                           const char *data, size_t len);

/* The next place to split `len` bytes that begin with a head: 1 .. len-1. Every place gets its turn. */
size_t storm_payload_split(storm_payload *payload, size_t head, size_t len);

#endif
