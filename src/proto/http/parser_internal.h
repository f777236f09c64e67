/* proto/http/parser_internal.h: what the files of the request parser share.
 * parser.c cuts lines, fields.c gives fields their meaning, body.c decodes bodies, parser_pass.c moves a parser. */
#ifndef BT_PROTO_HTTP_PARSER_INTERNAL_H
#define BT_PROTO_HTTP_PARSER_INTERNAL_H

#include <proto/http/chars.h>
#include <proto/http/parser.h>

typedef enum bt_http_step {
    BT_HTTP_STEP_NEXT, /* something was consumed: look at the phase again */
    BT_HTTP_STEP_WAIT, /* the window ends here */
    BT_HTTP_STEP_FAIL, /* bt_http_fail has been called */
} bt_http_step;

/* bt_http_parser.seen */
enum {
    BT_HTTP_SEEN_CODING = 1,         /* Transfer-Encoding */
    BT_HTTP_SEEN_UNKNOWN_CODING = 2, /* a transfer coding other than chunked */
    BT_HTTP_SEEN_CLOSE = 4,          /* Connection: close */
    BT_HTTP_SEEN_KEEP_ALIVE = 8,     /* Connection: keep-alive */
    BT_HTTP_SEEN_CONTINUE = 16,      /* Expect: 100-continue */
    BT_HTTP_SEEN_EXPECTATION = 32,   /* Expect: anything else */
};

/* Longer methods do not exist; RFC 9112, section 3 wants 501 for what is longer than any known one. */
#define BT_HTTP_MAX_METHOD 32

static inline size_t bt_http_max_head(const bt_http_limits *limits)
{
    return limits->max_head < BT_HTTP_MAX_HEAD ? limits->max_head : BT_HTTP_MAX_HEAD;
}

/* `text` is static. */
bt_http_step bt_http_fail(bt_http_parser *parser, uint16_t status, const char *text);

/* The line at position ends at `end`, inside a run of bytes of one `class` (chars.h): the line need not be looked at
 * again before the run ends. 0: it need, at the next byte; only for parts that are short. */
bt_http_step bt_http_wait(bt_http_parser *parser, const char *window, const char *end, unsigned class);

/* False when the line at position broke off before and its run still goes on in [window, end). */
bool bt_http_line_ready(bt_http_parser *parser, const char *window, const char *end);

/* The head only: NEXT when it is complete and the phase has moved on to the body. */
bt_http_step bt_http_parse_head(bt_http_parser *parser, const char *window, size_t len, const bt_http_limits *limits);

/* Field lines up to and with the empty line, in the head or in the trailer section. NEXT at its end. */
bt_http_step bt_http_parse_fields(bt_http_parser *parser, const char *window, size_t len, const bt_http_limits *limits);

/* Meaning of one head field whose name has the length of a name that means something to the parser. */
bt_http_step bt_http_note_field(bt_http_parser *parser, baton_str name, baton_str value);

/* Refuses the fields that must not come late (RFC 9110, 6.5.1). */
bt_http_step bt_http_note_trailer(bt_http_parser *parser, baton_str name);

/* The empty line has come: checks the fields against each other and chooses the body phase. */
bt_http_step bt_http_finish_head(bt_http_parser *parser, const bt_http_limits *limits);

/* Form of the target against the method (RFC 9112, 3.2). */
bt_http_step bt_http_check_target(bt_http_parser *parser, const char *window);

/* One step in a body phase or the trailer section. */
bt_http_step bt_http_parse_body(bt_http_parser *parser, char *window, size_t len, const bt_http_limits *limits);

#endif
