/* proto/http/request.h: a parsed request as the application sees it; the accessors of baton/http.h.
 * Pure views over the window; decoded parameters live in the request's arena. */
#ifndef BT_PROTO_HTTP_REQUEST_H
#define BT_PROTO_HTTP_REQUEST_H

#include <base/buf.h>
#include <proto/http/parser.h>

/* Memory for decoded values: a list of blocks that is reset, not freed (request.c). */
typedef struct bt_arena_block bt_arena_block;
typedef struct bt_arena {
    bt_arena_block *first;
    bt_arena_block *current;
    size_t used;
} bt_arena;

struct baton_request {
    bt_http_parser parser;
    char *window; /* first byte of the request: receive buffer, connection's buffer, or `kept` */
    bt_buf kept;  /* own copy after baton_request_keep */
    bt_arena arena;
    size_t window_len; /* parser.position when complete */
};

/* Prepares for the next request; keeps the memory for reuse (of the arena, its first block). */
void bt_request_reset(baton_request *req);

/* Frees what the request owns (not the struct, not parser.fields). */
void bt_request_free(baton_request *req);

/* `len` bytes that live until bt_request_reset, or NULL. */
char *bt_arena_alloc(bt_arena *arena, size_t len);

/* Case-insensitive search among header (or trailer) fields, name given with its length. */
baton_str bt_request_field(const baton_request *req, baton_str name, bool trailer);

/* The value of the first parameter `name` in a=b&c=d, decoded; data NULL when there is none or no memory. */
baton_str bt_params_find(bt_arena *arena, baton_str params, baton_str name);

#endif
