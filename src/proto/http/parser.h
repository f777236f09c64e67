/* proto/http/parser.h: strict incremental HTTP/1.x request parser (RFC 9112).
 *
 * Pure: bytes in, offsets out; no socket, no allocation, no callbacks. The caller holds the whole
 * request from its first byte in one contiguous window and calls again when the window has grown (it may
 * also have moved: everything is kept as offsets). A request ends in the same result however its bytes are
 * cut, and errors show with the first byte that makes them certain. A line that arrives in pieces is looked at
 * again only from where it broke off, until its name, target or value ends.
 *
 *   REQUEST_LINE -> FIELDS -+-> DONE                    no body
 *                           +-> BODY_LENGTH -> DONE     Content-Length
 *                           +-> CHUNK_SIZE -> CHUNK_DATA -> CHUNK_END -+-> CHUNK_SIZE
 *                                                                      +-> TRAILER -> DONE
 *   any -> FAILED
 *
 * Chunked bodies are decoded in place: the body becomes window[body_start .. body_start+body_len), and
 * what has not been read yet stays at window[position ..). */
#ifndef BT_PROTO_HTTP_PARSER_H
#define BT_PROTO_HTTP_PARSER_H

#include <base/buf.h>

/* Offsets in a head are 32 bits wide: a larger max_head counts as this. */
#define BT_HTTP_MAX_HEAD (1u << 20)

typedef struct bt_http_limits {
    uint32_t max_head;    /* bytes of request line and fields, trailers and chunk extensions likewise: 431 */
    uint32_t max_target;  /* bytes of the request target: 414 */
    uint32_t max_headers; /* fields, trailers included: 431 */
    uint64_t max_body;    /* bytes of the decoded body: 413 */
} bt_http_limits;

typedef enum bt_http_phase {
    BT_HTTP_REQUEST_LINE,
    BT_HTTP_FIELDS,
    BT_HTTP_BODY_LENGTH,
    BT_HTTP_CHUNK_SIZE,
    BT_HTTP_CHUNK_DATA,
    BT_HTTP_CHUNK_END,
    BT_HTTP_TRAILER,
    BT_HTTP_DONE,
    BT_HTTP_FAILED,
} bt_http_phase;

typedef enum bt_http_result {
    BT_HTTP_NEED_MORE, /* the window ends inside the request */
    BT_HTTP_COMPLETE,  /* one whole request: window[0 .. position) */
    BT_HTTP_ERROR,     /* answer `error_status` and close */
} bt_http_result;

typedef struct bt_http_field {
    uint32_t name;  /* offset in the window; of a trailer field, from trailer_start on (bodies may pass 4 GiB) */
    uint32_t value; /* likewise */
    uint32_t value_len;
    uint16_t name_len;
    uint16_t is_trailer;
} bt_http_field;

typedef struct bt_http_parser {
    bt_http_phase phase;
    uint32_t method_len;    /* the method starts at request_start */
    uint32_t request_start; /* after empty lines before the request line (RFC 9112, 2.2) */
    uint32_t target;
    uint32_t target_len;
    uint32_t extension_bytes; /* of chunk extensions so far: they count against max_head */
    uint8_t minor_version;    /* the digit received; x > 1 is served as 1.1 */
    uint8_t seen;             /* what the fields so far said (parser_internal.h) */
    uint8_t waiting_class;    /* window[.. scanned) of the current line: a run of this class (chars.h) */
    bool keep_alive;          /* by version and Connection */
    bool has_host;
    bool chunked;
    bool has_length;
    bool expects_continue; /* Expect: 100-continue, HTTP/1.1, body not yet complete */
    bool head_done;        /* the head is complete; method, target, fields are valid */
    uint16_t error_status;
    const char *error; /* static text for the log */
    size_t position;   /* first byte of the window not yet consumed by the parser */
    size_t scanned;    /* not beyond position: the current line has to be looked at from its start */
    size_t head_len;   /* bytes before the body */
    size_t body_start;
    size_t body_len; /* decoded so far */
    uint64_t content_length;
    uint64_t chunk_left;  /* bytes left of the current chunk */
    size_t trailer_start; /* offset of the trailer section, once reached */
    uint32_t field_count;
    uint32_t field_capacity;
    bt_http_field *fields; /* caller's memory, limits.max_headers entries */
} bt_http_parser;

/* `fields` has room for limits->max_headers entries and must outlive the parser. */
void bt_http_parser_init(bt_http_parser *parser, bt_http_field *fields, uint32_t capacity);

/* Ready for the next request. Cheap: does not touch the fields. */
void bt_http_parser_reset(bt_http_parser *parser);

/* Goes on at parser->position in window[0 .. len). May rewrite the window (chunk decoding).
 * After COMPLETE or ERROR, call bt_http_parser_reset before the next request. */
bt_http_result bt_http_parse(bt_http_parser *parser, char *window, size_t len, const bt_http_limits *limits);

/* Closes the gap that chunk decoding leaves between the decoded body and the bytes not yet consumed, so
 * that a window never holds much more than head and body. Views into the window change. Returns the new len. */
size_t bt_http_parser_compact(bt_http_parser *parser, char *window, size_t len);

/* For the pass: appends to `state` what cannot be learned from the bytes (nothing when the head is not
 * complete: then the head is simply parsed again), and to `unread` the window without the gap that chunk
 * decoding leaves: head, body decoded so far, bytes not yet consumed. In a trailer section the
 * section is sent whole and parsed again. Returns 0, -ENOMEM, or -EINVAL for a parser that has FAILED (its
 * connection only waits for its close); then nothing has been appended. */
BATON_NODISCARD int bt_http_parser_save(const bt_http_parser *parser, const char *window, size_t len, bt_buf *state,
                                        bt_buf *unread);

/* The other end: parser freshly reset, `window` the unread bytes. Parses the head again and takes the body
 * progress from `state`, which is hostile input: every number is checked. Returns 0 or -EPROTO (the parser is
 * reset then). The next bt_http_parse goes on where the old process stopped. */
BATON_NODISCARD int bt_http_parser_restore(bt_http_parser *parser, char *window, size_t len,
                                           const bt_http_limits *limits, const void *state, size_t state_len);

#endif
