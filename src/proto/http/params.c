/* proto/http/params.c: parameters of queries and forms, a=b&c=d, percent-decoded (WHATWG URL, 5.1).
 * Knows no request; decoded bytes go to the caller's arena. */
#include <proto/http/chars.h>
#include <proto/http/request.h>

/* The decoded byte at p, and how many encoded bytes it took. A malformed escape stands for itself. */
static char decode_byte(const char *p, const char *end, size_t *taken)
{
    *taken = 1;
    if (*p == '+')
        return ' ';
    if (*p != '%' || end - p < 3 || !bt_char_is(p[1], BT_CHAR_HEX) || !bt_char_is(p[2], BT_CHAR_HEX))
        return *p;
    *taken = 3;
    return (char) (bt_char_hex(p[1]) << 4 | bt_char_hex(p[2]));
}

static bool name_matches(baton_str encoded, baton_str name)
{
    const char *p = encoded.data, *end = p + encoded.len;
    size_t matched = 0, taken;
    for (; p < end; p += taken) {
        if (matched == name.len || decode_byte(p, end, &taken) != name.data[matched])
            return false;
        matched++;
    }
    return matched == name.len;
}

static baton_str decode(bt_arena *arena, baton_str encoded)
{
    if (!memchr(encoded.data, '%', encoded.len) && !memchr(encoded.data, '+', encoded.len))
        return encoded;
    char *out = bt_arena_alloc(arena, encoded.len);
    if (!out)
        return (baton_str){NULL, 0};
    const char *p = encoded.data, *end = p + encoded.len;
    size_t len = 0, taken;
    for (; p < end; p += taken)
        out[len++] = decode_byte(p, end, &taken);
    return (baton_str){out, len};
}

baton_str bt_params_find(bt_arena *arena, baton_str params, baton_str name)
{
    if (!params.data)
        return (baton_str){NULL, 0};
    const char *p = params.data, *end = p + params.len;
    while (p < end) {
        const char *and = memchr(p, '&', (size_t) (end - p));
        const char *stop = and? and : end;
        const char *equals = memchr(p, '=', (size_t) (stop - p));
        const char *name_end = equals ? equals : stop;
        const char *value = equals ? equals + 1 : stop;
        /* "a&&b" has no empty parameter between */
        if (stop > p && name_matches((baton_str){p, (size_t) (name_end - p)}, name))
            return decode(arena, (baton_str){value, (size_t) (stop - value)});
        p = and? and+1 : end;
    }
    return (baton_str){NULL, 0};
}
