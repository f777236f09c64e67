/* tests/fuzz/fuzz_http_parser.c: one byte stream, cut in different ways, must give one result.
 * Input: limits u8 | cut u16 | the stream. */
#include "../support/http_conversation.h"

#define BYTEWISE_MOST 600 /* byte by byte is quadratic in copies */

static const bt_http_limits all_limits[] = {
    {16384, 8192, 128, 1 << 20},
    {256, 64, 8, 1000},
    {64, 16, 2, 10},
    {UINT32_MAX, UINT32_MAX, 32, UINT64_MAX},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef enum between {
    BETWEEN_NOTHING,
    BETWEEN_PASS,
    BETWEEN_COMPACT,
} between;

static void feed_in_two(conversation *talk, const bt_http_limits *limits, const char *bytes, size_t len, size_t cut,
                        between what)
{
    conversation_begin(talk, limits);
    conversation_feed(talk, bytes, cut);
    if (what == BETWEEN_PASS)
        conversation_pass(talk);
    if (what == BETWEEN_COMPACT)
        conversation_compact(talk);
    conversation_feed(talk, bytes + cut, len - cut);
    if (what == BETWEEN_PASS)
        conversation_pass(talk);
    conversation_end(talk);
}

static void must_agree(conversation *a, conversation *b)
{
    if (bt_buf_len(&a->transcript) != bt_buf_len(&b->transcript) ||
        memcmp(conversation_text(a), conversation_text(b), bt_buf_len(&a->transcript)) != 0) {
        fprintf(stderr, "whole:\n%s\nin pieces:\n%s\n", conversation_text(a), conversation_text(b));
        abort();
    }
    conversation_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    const bt_http_limits *limits = &all_limits[data[0] % (sizeof(all_limits) / sizeof(all_limits[0]))];
    const char *bytes = (const char *) data + 3;
    size_t len = size - 3;
    size_t cut = len ? ((size_t) data[1] << 8 | data[2]) % (len + 1) : 0;

    conversation whole, pieces;
    feed_in_two(&whole, limits, bytes, len, 0, BETWEEN_NOTHING);
    for (between what = BETWEEN_NOTHING; what <= BETWEEN_COMPACT; what++) {
        feed_in_two(&pieces, limits, bytes, len, cut, what);
        must_agree(&whole, &pieces);
    }
    if (len <= BYTEWISE_MOST) {
        conversation_begin(&pieces, limits);
        for (size_t i = 0; i < len; i++) {
            conversation_feed(&pieces, bytes + i, 1);
            if (i % 7 == 0)
                conversation_compact(&pieces);
        }
        conversation_end(&pieces);
        must_agree(&whole, &pieces);
    }
    conversation_free(&whole);
    return 0;
}
