/* tests/support/http_conversation.h: feeds bytes to the request parser in any pieces and writes down what came out,
 * for the unit tests and the fuzzers. Windows are exactly as large as their content, so that ASan sees over-reads. */
#ifndef TEST_HTTP_CONVERSATION_H
#define TEST_HTTP_CONVERSATION_H

#include <proto/http/chars.h>
#include <proto/http/request.h>
#include <stdio.h>
#include <stdlib.h>

/* Also in builds where assert is off. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

typedef struct conversation {
    bt_http_limits limits;
    bt_http_field *fields;
    bt_http_parser parser;
    char *window;
    size_t len;
    bool failed;
    bt_buf transcript; /* text: equal transcripts mean equal results */
} conversation;

static inline void conversation_begin(conversation *talk, const bt_http_limits *limits)
{
    *talk = (conversation){.limits = *limits};
    talk->fields = malloc(limits->max_headers * sizeof(bt_http_field) + 1);
    talk->window = malloc(1);
    MUST(talk->fields && talk->window);
    bt_http_parser_init(&talk->parser, talk->fields, limits->max_headers);
}

static inline void conversation_free(conversation *talk)
{
    free(talk->fields);
    free(talk->window);
    bt_buf_free(&talk->transcript);
}

static inline void note(conversation *talk, const char *label, const char *data, size_t len)
{
    MUST(bt_buf_append(&talk->transcript, label, strlen(label)) == 0);
    MUST(bt_buf_append(&talk->transcript, data, len) == 0);
}

static inline void note_fields(conversation *talk)
{
    const bt_http_parser *parser = &talk->parser;
    for (uint32_t i = 0; i < parser->field_count; i++) {
        const bt_http_field *field = &parser->fields[i];
        const char *origin = talk->window + (field->is_trailer ? parser->trailer_start : 0);
        note(talk, field->is_trailer ? "|+" : "|", origin + field->name, field->name_len);
        note(talk, "=", origin + field->value, field->value_len);
    }
}

/* "GET /a keep|Host=a|body=xyz|+Trailer=b" and a line feed */
static inline void note_request(conversation *talk)
{
    const bt_http_parser *parser = &talk->parser;
    note(talk, "", talk->window + parser->request_start, parser->method_len);
    note(talk, " ", talk->window + parser->target, parser->target_len);
    MUST(bt_buf_printf(&talk->transcript, " 1.%d%s", parser->minor_version, parser->keep_alive ? " keep" : "") == 0);
    note_fields(talk);
    note(talk, "|body=", talk->window + parser->body_start, parser->body_len);
    note(talk, "\n", "", 0);
}

/* What has to hold after every call, whatever the bytes were. */
static inline void check_invariants(const conversation *talk)
{
    const bt_http_parser *parser = &talk->parser;
    MUST(parser->position <= talk->len);
    MUST(parser->field_count <= parser->field_capacity);
    if (parser->phase == BT_HTTP_FAILED) {
        MUST(parser->error && parser->error_status >= 400 && parser->error_status <= 505);
        return;
    }
    if (parser->phase == BT_HTTP_DONE)
        MUST(parser->head_done && !parser->expects_continue);
    if (parser->head_done) {
        MUST(parser->head_len <= talk->limits.max_head);
        MUST(parser->body_start == parser->head_len && parser->body_start + parser->body_len <= parser->position);
        MUST(parser->body_len <= talk->limits.max_body);
        MUST(!parser->chunked || !parser->has_length);
        MUST(parser->target_len >= 1 && parser->target_len <= talk->limits.max_target && parser->method_len >= 1);
        MUST(parser->chunked || parser->phase == BT_HTTP_DONE || parser->body_len < parser->content_length);
    } else {
        MUST(talk->len < talk->limits.max_head);
    }
    for (uint32_t i = 0; i < parser->field_count; i++) {
        const bt_http_field *field = &parser->fields[i];
        const char *origin = talk->window + (field->is_trailer ? parser->trailer_start : 0);
        const char *name = origin + field->name, *value = origin + field->value;
        MUST(name + field->name_len < value && value + field->value_len <= talk->window + parser->position);
        MUST(bt_scan_bytes(name, name + field->name_len, BT_CHAR_TOKEN) == name + field->name_len);
        MUST(bt_scan_bytes(value, value + field->value_len, BT_CHAR_VALUE) == value + field->value_len);
    }
}

/* A fresh window of `len` bytes with the same content behind `skip`. */
static inline void move_window(conversation *talk, size_t skip, const char *more, size_t more_len)
{
    size_t kept = talk->len - skip;
    char *window = malloc(kept + more_len ? kept + more_len : 1);
    MUST(window);
    memcpy(window, talk->window + skip, kept);
    if (more_len > 0)
        memcpy(window + kept, more, more_len);
    free(talk->window);
    talk->window = window;
    talk->len = kept + more_len;
}

static inline void conversation_feed(conversation *talk, const char *bytes, size_t len)
{
    if (talk->failed)
        return;
    move_window(talk, 0, bytes, len);
    for (;;) {
        bt_http_result result = bt_http_parse(&talk->parser, talk->window, talk->len, &talk->limits);
        check_invariants(talk);
        if (result == BT_HTTP_NEED_MORE)
            return;
        if (result == BT_HTTP_ERROR) {
            MUST(bt_buf_printf(&talk->transcript, "%d %s\n", talk->parser.error_status, talk->parser.error) == 0);
            talk->failed = true;
            return;
        }
        note_request(talk);
        move_window(talk, talk->parser.position, NULL, 0);
        bt_http_parser_reset(&talk->parser);
    }
}

/* Saves, throws everything away and goes on in a new parser: what a pass does. */
static inline void conversation_pass(conversation *talk)
{
    bt_buf state = {0}, unread = {0};
    if (talk->failed)
        return;
    MUST(bt_http_parser_save(&talk->parser, talk->window, talk->len, &state, &unread) == 0);
    talk->len = 0;
    move_window(talk, 0, bt_buf_head(&unread), bt_buf_len(&unread));
    memset(talk->fields, 0xee, talk->limits.max_headers * sizeof(bt_http_field));
    memset(&talk->parser, 0xee, sizeof(talk->parser));
    bt_http_parser_init(&talk->parser, talk->fields, talk->limits.max_headers);
    MUST(bt_http_parser_restore(&talk->parser, talk->window, talk->len, &talk->limits, bt_buf_head(&state),
                                bt_buf_len(&state)) == 0);
    /* No check here: without state the head is parsed again by the next feed, which checks. */
    bt_buf_free(&state);
    bt_buf_free(&unread);
    conversation_feed(talk, NULL, 0);
}

static inline void conversation_compact(conversation *talk)
{
    if (talk->failed)
        return;
    size_t unread = talk->len - talk->parser.position;
    talk->len = bt_http_parser_compact(&talk->parser, talk->window, talk->len);
    MUST(talk->len - talk->parser.position == unread);
    move_window(talk, 0, NULL, 0);
    check_invariants(talk);
}

/* How far the last request came. Independent of how its bytes were cut. */
static inline void conversation_end(conversation *talk)
{
    const bt_http_parser *parser = &talk->parser;
    if (!talk->failed) {
        MUST(bt_buf_printf(&talk->transcript, "open phase=%d unread=%zu body=%zu%s", (int) parser->phase,
                           talk->len - parser->position, parser->body_len,
                           parser->expects_continue ? " continue" : "") == 0);
        note_fields(talk);
    }
    MUST(bt_buf_append(&talk->transcript, "", 1) == 0);
}

static inline const char *conversation_text(const conversation *talk)
{
    return bt_buf_head(&talk->transcript);
}

#endif
