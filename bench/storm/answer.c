/* answer.c: a strict incremental parser of HTTP/1.1 responses (RFC 9112).
 * Knows nothing of sockets; what it takes for malformed, a client may rightly refuse. */
#include "answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What one head says about its body. */
struct framing {
    bool has_length, is_chunked, says_close, says_keep_alive;
    uint64_t length;
};

static bool fail(storm_answer *answer, const char *error)
{
    answer->state = STORM_ANSWER_MALFORMED;
    answer->error = error;
    return false;
}

static bool is_token_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_word(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && strncasecmp(text, word, len) == 0;
}

/* A member of a comma-separated list, as in "Connection: keep-alive, close". */
static bool has_member(const char *text, size_t len, const char *word)
{
    const char *end = text + len;
    while (text < end) {
        const char *comma = memchr(text, ',', (size_t) (end - text));
        const char *stop = comma != NULL ? comma : end;
        const char *last = stop;
        while (text < last && (*text == ' ' || *text == '\t'))
            text++;
        while (last > text && (last[-1] == ' ' || last[-1] == '\t'))
            last--;
        if (is_word(text, (size_t) (last - text), word))
            return true;
        text = comma != NULL ? comma + 1 : end;
    }
    return false;
}

static bool parse_length(const char *text, size_t len, uint64_t *length)
{
    if (len == 0 || len > 18)
        return false;
    *length = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *length = *length * 10 + (uint64_t) (text[i] - '0');
    }
    return true;
}

/* "HTTP/1.1 200 OK": the reason may be empty, the blank before it may not (RFC 9112, 4). */
static bool parse_status_line(storm_answer *answer, const char *line, size_t len)
{
    if (len < 13 || memcmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') || line[8] != ' ')
        return fail(answer, "not an HTTP/1 status line");
    for (int i = 9; i < 12; i++)
        if (line[i] < '0' || line[i] > '9')
            return fail(answer, "status is not three digits");
    if (line[12] != ' ')
        return fail(answer, "no blank after the status");
    answer->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    if (answer->status < 100 || answer->status == 101)
        return fail(answer, "status that nobody asked for");
    return true;
}

static bool take_framing(storm_answer *answer, struct framing *framing, const char *name, size_t name_len,
                         const char *value, size_t value_len)
{
    if (is_word(name, name_len, "content-length")) {
        if (framing->has_length)
            return fail(answer, "Content-Length twice");
        if (!parse_length(value, value_len, &framing->length))
            return fail(answer, "Content-Length is not a number");
        framing->has_length = true;
    } else if (is_word(name, name_len, "transfer-encoding")) {
        if (framing->is_chunked || !is_word(value, value_len, "chunked"))
            return fail(answer, "Transfer-Encoding other than chunked");
        framing->is_chunked = true;
    } else if (is_word(name, name_len, "connection")) {
        framing->says_close |= has_member(value, value_len, "close");
        framing->says_keep_alive |= has_member(value, value_len, "keep-alive");
    }
    return true;
}

static void keep_value(storm_answer *answer, const char *text, size_t len)
{
    size_t room = STORM_VALUE_SIZE - answer->value_len;
    if (len > room)
        len = room;
    memcpy(answer->value + answer->value_len, text, len);
    answer->value_len += len;
    answer->has_value = true;
}

static bool parse_field(storm_answer *answer, const storm_answer_rules *rules, struct framing *framing,
                        const char *line, size_t len)
{
    size_t name_len = 0;
    while (name_len < len && is_token_char(line[name_len]))
        name_len++;
    if (name_len == 0 || name_len == len || line[name_len] != ':')
        return fail(answer, "header line without a name");
    const char *value = line + name_len + 1;
    const char *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    for (const char *c = value; c < end; c++)
        if (((unsigned char) *c < ' ' && *c != '\t') || *c == 0x7f)
            return fail(answer, "control character in a header");
    size_t value_len = (size_t) (end - value);
    if (rules != NULL && rules->header != NULL && is_word(line, name_len, rules->header) && !answer->has_value)
        keep_value(answer, value, value_len);
    return framing == NULL || take_framing(answer, framing, line, name_len, value, value_len);
}

/* Chooses the body's framing (RFC 9112, 6.3); neither length nor chunks means that the close ends it. */
static void begin_body(storm_answer *answer, const storm_answer_rules *rules, const struct framing *framing,
                       bool is_1_0)
{
    if (framing->has_length && framing->is_chunked) {
        fail(answer, "Content-Length and Transfer-Encoding");
        return;
    }
    if (is_1_0 && framing->is_chunked) {
        fail(answer, "chunks in an HTTP/1.0 answer");
        return;
    }
    answer->will_close = framing->says_close || (is_1_0 && !framing->says_keep_alive);
    if (rules->is_head || answer->status == 204 || answer->status == 304) {
        answer->state = STORM_ANSWER_DONE;
    } else if (framing->is_chunked) {
        answer->state = STORM_ANSWER_CHUNK_SIZE;
    } else if (framing->has_length) {
        answer->left = framing->length;
        answer->state = framing->length > 0 ? STORM_ANSWER_LENGTH : STORM_ANSWER_DONE;
    } else {
        answer->state = STORM_ANSWER_UNTIL_CLOSE;
        answer->will_close = true;
    }
}

/* `head` ends with an empty line. */
static void parse_head(storm_answer *answer, const storm_answer_rules *rules, const char *head, size_t len)
{
    struct framing framing = {0};
    const char *end = head + len - 2;
    bool is_first = true;

    for (const char *line = head; line < end;) {
        const char *stop = memchr(line, '\n', (size_t) (end - line));
        if (stop == NULL || stop == line || stop[-1] != '\r') {
            fail(answer, "line that does not end with CR LF");
            return;
        }
        size_t line_len = (size_t) (stop - 1 - line);
        bool is_right =
            is_first ? parse_status_line(answer, line, line_len) : parse_field(answer, rules, &framing, line, line_len);
        if (!is_right)
            return;
        is_first = false;
        line = stop + 1;
    }
    if (answer->status < 200) { /* interim: the real head follows */
        answer->value_len = 0;
        answer->has_value = false;
        return;
    }
    begin_body(answer, rules, &framing, head[7] == '0');
}

/* Garbage must show at once: its empty line may never come. */
static bool can_be_head(const char *head, size_t len)
{
    static const char start[] = "HTTP/1.";
    return memcmp(head, start, len < sizeof(start) - 1 ? len : sizeof(start) - 1) == 0;
}

static bool append_line(storm_answer *answer, const char *data, size_t len)
{
    if (answer->line == NULL)
        answer->line = malloc(STORM_HEAD_MAX);
    if (answer->line == NULL)
        return fail(answer, "out of memory");
    if (len > STORM_HEAD_MAX - answer->line_len)
        return fail(answer, "head longer than 64 KiB");
    memcpy(answer->line + answer->line_len, data, len);
    answer->line_len += len;
    return true;
}

static size_t feed_head(storm_answer *answer, const storm_answer_rules *rules, const char *data, size_t len)
{
    if (answer->line_len == 0) {
        if (!can_be_head(data, len)) {
            fail(answer, "not an HTTP/1 status line");
            return 0;
        }
        const char *end = memmem(data, len, "\r\n\r\n", 4);
        if (end != NULL) {
            size_t head_len = (size_t) (end - data) + 4;
            parse_head(answer, rules, data, head_len);
            return head_len;
        }
    }
    size_t had = answer->line_len;
    size_t room = STORM_HEAD_MAX - had;
    size_t taken = len < room ? len : room;
    if (taken == 0) {
        fail(answer, "head longer than 64 KiB");
        return 0;
    }
    if (!append_line(answer, data, taken))
        return 0;
    if (!can_be_head(answer->line, answer->line_len)) {
        fail(answer, "not an HTTP/1 status line");
        return 0;
    }
    size_t from = had > 3 ? had - 3 : 0;
    const char *end = memmem(answer->line + from, answer->line_len - from, "\r\n\r\n", 4);
    if (end == NULL)
        return taken;
    size_t head_len = (size_t) (end - answer->line) + 4;
    answer->line_len = 0;
    parse_head(answer, rules, answer->line, head_len);
    return head_len - had;
}

static size_t feed_body(storm_answer *answer, const storm_answer_rules *rules, void *arg, const char *data, size_t len)
{
    if (answer->state != STORM_ANSWER_UNTIL_CLOSE && len > answer->left)
        len = (size_t) answer->left;
    if (rules->keeps_body)
        keep_value(answer, data, len);
    if (rules->body != NULL && answer->is_body_right)
        answer->is_body_right = rules->body(arg, answer->body_len, data, len);
    answer->body_len += len;
    if (answer->state == STORM_ANSWER_UNTIL_CLOSE)
        return len;
    answer->left -= len;
    if (answer->left == 0)
        answer->state = answer->state == STORM_ANSWER_LENGTH ? STORM_ANSWER_DONE : STORM_ANSWER_CHUNK_END;
    return len;
}

/* "1a;name=value": extensions are allowed and ignored (RFC 9112, 7.1.1). */
static void parse_chunk_size(storm_answer *answer, const char *line, size_t len)
{
    size_t digits = 0;
    answer->left = 0;
    while (digits < len && digits <= 15) {
        char c = line[digits];
        int value = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (value < 0)
            break;
        answer->left = answer->left << 4 | (uint64_t) value;
        digits++;
    }
    if (digits == 0 || digits > 15 || (digits < len && line[digits] != ';' && line[digits] != ' ')) {
        fail(answer, "chunk size is not a number");
        return;
    }
    answer->state = answer->left > 0 ? STORM_ANSWER_CHUNK_DATA : STORM_ANSWER_TRAILER;
}

static void parse_line(storm_answer *answer, const char *line, size_t len)
{
    if (answer->state == STORM_ANSWER_CHUNK_SIZE) {
        parse_chunk_size(answer, line, len);
    } else if (answer->state == STORM_ANSWER_CHUNK_END) {
        if (len != 0)
            fail(answer, "chunk longer than its size");
        else
            answer->state = STORM_ANSWER_CHUNK_SIZE;
    } else if (len == 0) {
        answer->state = STORM_ANSWER_DONE;
    } else {
        parse_field(answer, NULL, NULL, line, len);
    }
}

/* Collects one line of the chunked framing, then acts on it. */
static size_t feed_line(storm_answer *answer, const char *data, size_t len)
{
    const char *end = memchr(data, '\n', len);
    size_t taken = end != NULL ? (size_t) (end - data) + 1 : len;
    if (!append_line(answer, data, taken))
        return 0;
    if (answer->state == STORM_ANSWER_CHUNK_END && answer->line[0] != '\r') {
        fail(answer, "chunk longer than its size");
        return taken;
    }
    if (end == NULL)
        return taken;
    size_t line_len = answer->line_len;
    answer->line_len = 0;
    if (line_len < 2 || answer->line[line_len - 2] != '\r')
        fail(answer, "line that does not end with CR LF");
    else
        parse_line(answer, answer->line, line_len - 2);
    return taken;
}

size_t storm_answer_feed(storm_answer *answer, const storm_answer_rules *rules, void *arg, const char *data, size_t len)
{
    size_t used = 0;
    while (used < len) {
        answer->has_begun = true;
        switch (answer->state) {
        case STORM_ANSWER_HEAD:
            used += feed_head(answer, rules, data + used, len - used);
            break;
        case STORM_ANSWER_LENGTH:
        case STORM_ANSWER_UNTIL_CLOSE:
        case STORM_ANSWER_CHUNK_DATA:
            used += feed_body(answer, rules, arg, data + used, len - used);
            break;
        case STORM_ANSWER_CHUNK_SIZE:
        case STORM_ANSWER_CHUNK_END:
        case STORM_ANSWER_TRAILER:
            used += feed_line(answer, data + used, len - used);
            break;
        case STORM_ANSWER_DONE:
        case STORM_ANSWER_MALFORMED:
            return used;
        }
    }
    return used;
}

void storm_answer_end(storm_answer *answer)
{
    if (answer->state == STORM_ANSWER_UNTIL_CLOSE)
        answer->state = STORM_ANSWER_DONE;
}

void storm_answer_reset(storm_answer *answer)
{
    char *line = answer->line;
    answer->state = STORM_ANSWER_HEAD;
    answer->error = NULL;
    answer->status = 0;
    answer->will_close = false;
    answer->is_body_right = true;
    answer->has_begun = false;
    answer->body_len = 0;
    answer->left = 0;
    answer->value_len = 0;
    answer->has_value = false;
    answer->line = line;
    answer->line_len = 0;
}

void storm_answer_free(storm_answer *answer)
{
    free(answer->line);
    answer->line = NULL;
}
