/* tests/fuzz/fuzz_http_restore.c: a pass message from a hostile or broken process is refused or harmless.
 * Input: state length u8 | window length u8 | state | window at restore | what arrives later. */
#include "../support/http_conversation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const bt_http_limits limits = {1024, 256, 16, 4096};
    if (size < 2 || size - 2 < data[0])
        return 0;
    size_t state_len = data[0];
    char *state = malloc(state_len ? state_len : 1);
    MUST(state);
    memcpy(state, data + 2, state_len);
    const char *bytes = (const char *) data + 2 + state_len;
    size_t len = size - 2 - state_len;
    size_t first = data[1] < len ? data[1] : len;

    conversation talk;
    conversation_begin(&talk, &limits);
    move_window(&talk, 0, bytes, first);
    int rc = bt_http_parser_restore(&talk.parser, talk.window, talk.len, &limits, state, state_len);
    if (rc < 0) {
        MUST(talk.parser.position == 0 && talk.parser.phase == BT_HTTP_REQUEST_LINE);
    } else {
        conversation_feed(&talk, NULL, 0);
        conversation_pass(&talk);
        conversation_feed(&talk, bytes + first, len - first);
        conversation_compact(&talk);
    }
    free(state);
    conversation_free(&talk);
    return 0;
}
