/* payload.c: the bytes of the requests, and where to split them.
 * Knows nothing of connections; a body is a function of (connection id, request number). */
#include "payload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PERIOD = 251, /* prime, so that a body shifted by any power of two differs */
    RUN = 65536,
    MARK = 26,
};

static int make_head(const storm_options *options, bool is_close, char *out, size_t size)
{
    char host[300] = "localhost", length[48] = "";
    if (options->unix_path == NULL) {
        bool is_ipv6 = strchr(options->host, ':') != NULL;
        snprintf(host, sizeof(host), is_ipv6 ? "[%.250s]:%d" : "%.250s:%d", options->host, options->port);
    }
    if (options->body > 0)
        snprintf(length, sizeof(length), "Content-Length: %d\r\n", options->body);
    return snprintf(out, size, "%s %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n", options->method, options->path, host,
                    is_close ? "Connection: close\r\n" : "", length);
}

/* `copies` whole requests in a row. */
static char *make_requests(const storm_payload *payload, const storm_options *options, bool is_close, int copies,
                           size_t *head_len)
{
    int need = make_head(options, is_close, NULL, 0);
    if (need < 0)
        return NULL;
    size_t head = (size_t) need, len = head + payload->body;
    char *out = malloc(len * (size_t) copies + 1);
    if (out == NULL)
        return NULL;
    for (int i = 0; i < copies; i++) {
        char *request = out + len * (size_t) i;
        make_head(options, is_close, request, head + 1);
        storm_payload_body(payload, 0, 0, request + head);
    }
    *head_len = head;
    return out;
}

int storm_payload_init(storm_payload *payload, const storm_options *options)
{
    *payload = (storm_payload){.body = (size_t) options->body, .is_echo = options->is_echo};
    payload->pattern = malloc(RUN + PERIOD);
    if (payload->pattern == NULL)
        return -ENOMEM;
    for (int i = 0; i < RUN + PERIOD; i++)
        payload->pattern[i] = (char) (i % PERIOD);
    payload->keep = make_requests(payload, options, false, options->pipeline, &payload->keep_head);
    payload->close = make_requests(payload, options, true, 1, &payload->close_head);
    if (payload->keep == NULL || payload->close == NULL) {
        storm_payload_free(payload);
        return -ENOMEM;
    }
    payload->keep_len = payload->keep_head + payload->body;
    payload->close_len = payload->close_head + payload->body;
    return 0;
}

void storm_payload_free(storm_payload *payload)
{
    free(payload->keep);
    free(payload->close);
    free(payload->pattern);
    payload->keep = payload->close = payload->pattern = NULL;
}

/* The bytes of a body at `offset`: a mark that no other request has, then a pattern shifted by the number. */
static const char *expected(const storm_payload *payload, const char *mark, uint64_t number, uint64_t offset,
                            size_t *len)
{
    if (offset < MARK) {
        *len = MARK - (size_t) offset;
        return mark + offset;
    }
    *len = RUN;
    return payload->pattern + (offset + number) % PERIOD;
}

static void make_mark(char mark[MARK + 1], uint32_t id, uint64_t number)
{
    snprintf(mark, MARK + 1, "%08x.%016llx.", id, (unsigned long long) number);
}

void storm_payload_body(const storm_payload *payload, uint32_t id, uint64_t number, char *out)
{
    char mark[MARK + 1];
    make_mark(mark, id, number);
    for (uint64_t offset = 0; offset < payload->body;) {
        size_t len;
        const char *bytes = expected(payload, mark, number, offset, &len);
        if (len > payload->body - offset)
            len = (size_t) (payload->body - offset);
        memcpy(out + offset, bytes, len);
        offset += len;
    }
}

bool storm_payload_matches(const storm_payload *payload, uint32_t id, uint64_t number, uint64_t offset,
                           const char *data, size_t len)
{
    char mark[MARK + 1];
    if (offset + len > payload->body)
        return false;
    make_mark(mark, id, number);
    while (len > 0) {
        size_t run;
        const char *bytes = expected(payload, mark, number, offset, &run);
        if (run > len)
            run = len;
        if (memcmp(data, bytes, run) != 0)
            return false;
        data += run;
        offset += run;
        len -= run;
    }
    return true;
}

static uint64_t common_factor(uint64_t a, uint64_t b)
{
    return b == 0 ? a : common_factor(b, a % b);
}

/* With a body, every second split falls into the head: else a large body would hide the head's offsets for hours.
 * The body's offsets are visited with a stride that has no common factor with their number. */
size_t storm_payload_split(storm_payload *payload, size_t head, size_t len)
{
    uint64_t turn = payload->splits++;
    uint64_t places = len > head ? len - head - 1 : 0; /* inside the body */

    if (len < 2)
        return len;
    if (places == 0)
        return 1 + (size_t) (turn % (len - 1));
    if (turn % 2 == 0)
        return 1 + (size_t) (turn / 2 % head);
    uint64_t stride = places * 618 / 1000 | 1;
    while (common_factor(stride, places) != 1)
        stride += 2;
    return head + 1 + (size_t) (turn / 2 % places * stride % places);
}
