/* proto/http/request.c: what the application reads from a request; views over the parser's offsets.
 * Knows no connection: replies and baton_request_keep live with it. */
#include <proto/http/request.h>

#include <base/alloc.h>
#include <baton/http.h>
#include <proto/http/chars.h>

/* ---- arena ---- */

#define ARENA_BLOCK     4096
#define ARENA_KEEP_MOST 65536 /* one request with a huge form must not pin its memory in the pool */

struct bt_arena_block {
    bt_arena_block *next;
    size_t size;
    char data[];
};

static void free_blocks(bt_arena_block *block)
{
    while (block) {
        bt_arena_block *next = block->next;
        free(block);
        block = next;
    }
}

char *bt_arena_alloc(bt_arena *arena, size_t len)
{
    bt_arena_block *block = arena->current;
    if (!block || block->size - arena->used < len) {
        size_t size = len > ARENA_BLOCK ? len : ARENA_BLOCK;
        if (size > SIZE_MAX - sizeof(*block))
            return NULL;
        block = bt_malloc(sizeof(*block) + size);
        if (!block)
            return NULL;
        block->next = NULL;
        block->size = size;
        if (arena->current)
            arena->current->next = block;
        else
            arena->first = block;
        arena->current = block;
        arena->used = 0;
    }
    char *out = block->data + arena->used;
    arena->used += len;
    return out;
}

static void reset_arena(bt_arena *arena)
{
    bt_arena_block *first = arena->first;
    if (!first)
        return;
    free_blocks(first->next);
    first->next = NULL;
    if (first->size > ARENA_KEEP_MOST) {
        free(first);
        first = NULL;
    }
    *arena = (bt_arena){.first = first, .current = first};
}

/* ---- life ---- */

void bt_request_reset(baton_request *req)
{
    bt_http_parser_reset(&req->parser);
    reset_arena(&req->arena);
    bt_buf_clear(&req->kept);
    req->window = NULL;
    req->window_len = 0;
}

void bt_request_free(baton_request *req)
{
    free_blocks(req->arena.first);
    req->arena = (bt_arena){0};
    bt_buf_free(&req->kept);
}

/* ---- request line ---- */

baton_str baton_request_method(const baton_request *req)
{
    return (baton_str){req->window + req->parser.request_start, req->parser.method_len};
}

baton_str baton_request_target(const baton_request *req)
{
    return (baton_str){req->window + req->parser.target, req->parser.target_len};
}

int baton_request_minor_version(const baton_request *req)
{
    return req->parser.minor_version;
}

/* The target without scheme and authority; empty when an absolute target has nothing else. */
static baton_str path_and_query(const baton_request *req)
{
    baton_str target = baton_request_target(req);
    if (target.len == 0 || target.data[0] == '/' || target.data[0] == '*')
        return target;
    const char *end = target.data + target.len;
    const char *p = memchr(target.data, ':', target.len);
    if (!p || end - p < 3)
        return (baton_str){end, 0};
    for (p += 3; p < end && *p != '/' && *p != '?';)
        p++;
    return (baton_str){p, (size_t) (end - p)};
}

baton_str baton_request_path(const baton_request *req)
{
    baton_str rest = path_and_query(req);
    const char *mark = memchr(rest.data, '?', rest.len);
    if (mark)
        rest.len = (size_t) (mark - rest.data);
    return rest.len > 0 ? rest : (baton_str){"/", 1};
}

baton_str baton_request_query(const baton_request *req)
{
    baton_str rest = path_and_query(req);
    const char *mark = memchr(rest.data, '?', rest.len);
    if (!mark)
        return (baton_str){NULL, 0};
    return (baton_str){mark + 1, rest.len - (size_t) (mark + 1 - rest.data)};
}

/* ---- fields ---- */

static const char *field_origin(const baton_request *req, const bt_http_field *field)
{
    return req->window + (field->is_trailer ? req->parser.trailer_start : 0);
}

static baton_str field_name(const baton_request *req, const bt_http_field *field)
{
    return (baton_str){field_origin(req, field) + field->name, field->name_len};
}

static baton_str field_value(const baton_request *req, const bt_http_field *field)
{
    return (baton_str){field_origin(req, field) + field->value, field->value_len};
}

/* The next field from *index on with that name, or NULL. *index moves behind it. */
static const bt_http_field *next_field(const baton_request *req, baton_str name, bool trailer, uint32_t *index)
{
    while (*index < req->parser.field_count) {
        const bt_http_field *field = &req->parser.fields[(*index)++];
        if (field->name_len == name.len && field->is_trailer == trailer &&
            bt_str_equal_nocase(field_name(req, field).data, name.data, name.len))
            return field;
    }
    return NULL;
}

baton_str bt_request_field(const baton_request *req, baton_str name, bool trailer)
{
    uint32_t index = 0;
    const bt_http_field *field = next_field(req, name, trailer, &index);
    return field ? field_value(req, field) : (baton_str){NULL, 0};
}

baton_str baton_request_header(const baton_request *req, const char *name)
{
    return bt_request_field(req, (baton_str){name, strlen(name)}, false);
}

baton_str baton_request_trailer(const baton_request *req, const char *name)
{
    return bt_request_field(req, (baton_str){name, strlen(name)}, true);
}

bool baton_request_header_at(const baton_request *req, size_t index, baton_str *name, baton_str *value)
{
    /* header fields come before all trailer fields */
    if (index >= req->parser.field_count || req->parser.fields[index].is_trailer)
        return false;
    const bt_http_field *field = &req->parser.fields[index];
    *name = field_name(req, field);
    *value = field_value(req, field);
    return true;
}

/* ---- cookies ---- */

static baton_str find_cookie(baton_str pairs, baton_str name)
{
    const char *p = pairs.data, *end = p + pairs.len;
    while (p < end) {
        const char *semicolon = memchr(p, ';', (size_t) (end - p));
        const char *stop = semicolon ? semicolon : end;
        while (p < stop && bt_char_is_blank(*p))
            p++;
        const char *value_end = stop;
        while (value_end > p && bt_char_is_blank(value_end[-1]))
            value_end--;
        if ((size_t) (value_end - p) > name.len && p[name.len] == '=' && memcmp(p, name.data, name.len) == 0) {
            const char *value = p + name.len + 1;
            return (baton_str){value, (size_t) (value_end - value)};
        }
        p = semicolon ? semicolon + 1 : end;
    }
    return (baton_str){NULL, 0};
}

baton_str baton_request_cookie(const baton_request *req, const char *name)
{
    /* one Cookie field is the rule, but HTTP/2 gateways split it (RFC 9113, 8.2.3) */
    const bt_http_field *field;
    uint32_t index = 0;
    while ((field = next_field(req, (baton_str){"cookie", 6}, false, &index))) {
        baton_str value = find_cookie(field_value(req, field), (baton_str){name, strlen(name)});
        if (value.data)
            return value;
    }
    return (baton_str){NULL, 0};
}

/* ---- body and parameters ---- */

baton_str baton_request_body(const baton_request *req)
{
    return (baton_str){req->window + req->parser.body_start, req->parser.body_len};
}

/* Requests reach the application as const views, but are never const objects: decoding into the arena is not
 * a change it can see. */
static bt_arena *arena_of(const baton_request *req)
{
    return &((baton_request *) (uintptr_t) req)->arena;
}

baton_str baton_request_query_param(const baton_request *req, const char *name)
{
    return bt_params_find(arena_of(req), baton_request_query(req), (baton_str){name, strlen(name)});
}

baton_str baton_request_form_param(const baton_request *req, const char *name)
{
    static const char form[] = "application/x-www-form-urlencoded";
    enum { FORM_LEN = sizeof(form) - 1 };
    baton_str type = baton_request_header(req, "content-type");

    if (type.len < FORM_LEN || !bt_str_equal_nocase(type.data, form, FORM_LEN))
        return (baton_str){NULL, 0};
    if (type.len > FORM_LEN && type.data[FORM_LEN] != ';' && !bt_char_is_blank(type.data[FORM_LEN]))
        return (baton_str){NULL, 0};
    return bt_params_find(arena_of(req), baton_request_body(req), (baton_str){name, strlen(name)});
}
