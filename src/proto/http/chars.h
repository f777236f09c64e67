/* proto/http/chars.h: which bytes may stand where in HTTP/1, and the scans that find the first that may not.
 * Pure character sets; knows no message. Scans never touch a byte outside [base, end). */
#ifndef BT_PROTO_HTTP_CHARS_H
#define BT_PROTO_HTTP_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    BT_CHAR_TOKEN = 1,   /* RFC 9110, 5.6.2 */
    BT_CHAR_HOST = 2,    /* reg-name without escapes: unreserved and sub-delims (RFC 3986, 3.2.2) */
    BT_CHAR_HEX = 4,     /* HEXDIG in either case */
    BT_CHAR_TARGET = 8,  /* request target: see below */
    BT_CHAR_VALUE = 16,  /* field value: everything but control bytes, HTAB allowed (RFC 9110, 5.5) */
    BT_CHAR_QDTEXT = 32, /* inside a quoted-string, unescaped (RFC 9110, 5.6.4) */
};

/* BT_CHAR_TARGET is wider than RFC 3986: browsers send [ ] { } | \ ^ ` unescaped in queries (WHATWG URL).
 * No blank, control byte, byte over 0x7e, '#', '"', '<' or '>'. */
extern const uint8_t bt_http_char_class[256];

static inline bool bt_char_is(char c, unsigned classes)
{
    return (bt_http_char_class[(uint8_t) c] & classes) != 0;
}

static inline bool bt_char_is_digit(char c)
{
    return (uint8_t) (c - '0') <= 9;
}

static inline bool bt_char_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static inline char bt_char_lower(char c)
{
    return (uint8_t) (c - 'A') < 26 ? (char) (c | 0x20) : c;
}

/* The value of a byte of BT_CHAR_HEX. */
static inline unsigned bt_char_hex(char c)
{
    return ((unsigned) c & 15) + (c > '9' ? 9 : 0);
}

/* ASCII case-insensitive, whatever the locale. */
static inline bool bt_str_equal_nocase(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bt_char_lower(a[i]) != bt_char_lower(b[i]))
            return false;
    }
    return true;
}

static inline uint64_t bt_load_lower8(const char *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word | 0x2020202020202020u;
}

static inline uint32_t bt_load_lower4(const char *p)
{
    uint32_t word;
    memcpy(&word, p, 4);
    return word | 0x20202020u;
}

/* Is `text` the word `lower` in any case? For words of at least 4 lower-case letters, digits and '-': setting bit 5
 * then folds nothing else into them but control bytes, which `text` must not hold. Constant `len`: few loads. */
__attribute__((always_inline)) static inline bool bt_str_is_word(const char *text, const char *lower, size_t len)
{
    if (len < 8)
        return bt_load_lower4(text) == bt_load_lower4(lower) &&
               bt_load_lower4(text + len - 4) == bt_load_lower4(lower + len - 4);
    uint64_t differs = 0;
    for (size_t i = 0; i + 8 <= len; i += 8)
        differs |= bt_load_lower8(text + i) ^ bt_load_lower8(lower + i);
    return (differs | (bt_load_lower8(text + len - 8) ^ bt_load_lower8(lower + len - 8))) == 0;
}

#define BT_SWAR(byte)          (0x0101010101010101u * (uint64_t) (byte))
#define BT_SWAR_HAS_ZERO(word) (((word) -BT_SWAR(1)) & ~(word) &BT_SWAR(0x80))

/* Both word tests may see a stop where there is none (HTAB; a borrow from the byte before), never the other way
 * round: the table then decides byte by byte. That also makes them independent of byte order. */
static inline bool bt_swar_maybe_value_stop(uint64_t word)
{
    return ((((word - BT_SWAR(0x20)) & ~word) & BT_SWAR(0x80)) | BT_SWAR_HAS_ZERO(word ^ BT_SWAR(0x7f))) != 0;
}

static inline bool bt_swar_maybe_target_stop(uint64_t word)
{
    uint64_t outside = (word | ((word - BT_SWAR(0x21)) & ~word)) & BT_SWAR(0x80);
    uint64_t quote_or_hash = BT_SWAR_HAS_ZERO((word & BT_SWAR(0xfe)) ^ BT_SWAR('"'));
    uint64_t angle = BT_SWAR_HAS_ZERO((word & BT_SWAR(0xfd)) ^ BT_SWAR('<'));
    return (outside | quote_or_hash | angle | BT_SWAR_HAS_ZERO(word ^ BT_SWAR(0x7f))) != 0;
}

static inline const char *bt_scan_bytes(const char *p, const char *end, unsigned class)
{
    while (p < end && bt_char_is(*p, class))
        p++;
    return p;
}

static inline const char *bt_scan_swar(const char *p, const char *end, unsigned class)
{
    for (; end - p >= 8; p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        if (class == BT_CHAR_VALUE ? !bt_swar_maybe_value_stop(word) : !bt_swar_maybe_target_stop(word))
            continue;
        const char *stop = bt_scan_bytes(p, p + 8, class);
        if (stop < p + 8)
            return stop;
    }
    return bt_scan_bytes(p, end, class);
}

#ifdef __SSE2__
static inline unsigned bt_sse2_value_stops(const char *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *) (const void *) p);
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    __m128i tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
    __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
    return (unsigned) _mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, control), del));
}

static inline unsigned bt_sse2_target_stops(const char *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *) (const void *) p);
    /* signed: bytes over 0x7f are negative, so one comparison refuses them together with controls and blank */
    __m128i inside = _mm_cmpgt_epi8(bytes, _mm_set1_epi8(0x20));
    __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
    __m128i quote_or_hash = _mm_cmpeq_epi8(_mm_and_si128(bytes, _mm_set1_epi8((char) 0xfe)), _mm_set1_epi8('"'));
    __m128i angle = _mm_cmpeq_epi8(_mm_and_si128(bytes, _mm_set1_epi8((char) 0xfd)), _mm_set1_epi8('<'));
    __m128i bad = _mm_or_si128(_mm_or_si128(del, quote_or_hash), angle);
    return (unsigned) _mm_movemask_epi8(_mm_andnot_si128(bad, inside)) ^ 0xffffu;
}

/* The last bytes are covered by a load that ends at `end` and overlaps what came before: no byte loop, no
 * read past the window. */
static inline const char *bt_scan_sse2(const char *base, const char *p, const char *end, unsigned class)
{
    for (; end - p >= 16; p += 16) {
        unsigned stops = class == BT_CHAR_VALUE ? bt_sse2_value_stops(p) : bt_sse2_target_stops(p);
        if (stops)
            return p + __builtin_ctz(stops);
    }
    if (p == end || end - base < 16)
        return bt_scan_bytes(p, end, class);
    unsigned stops = class == BT_CHAR_VALUE ? bt_sse2_value_stops(end - 16) : bt_sse2_target_stops(end - 16);
    stops >>= 16 - (end - p);
    return stops ? p + __builtin_ctz(stops) : end;
}
#endif

/* First byte of [p, end) that may not stand in a field value, or end. Bytes from `base` on are readable. */
static inline const char *bt_scan_value(const char *base, const char *p, const char *end)
{
#ifdef __SSE2__
    return bt_scan_sse2(base, p, end, BT_CHAR_VALUE);
#else
    (void) base;
    return bt_scan_swar(p, end, BT_CHAR_VALUE);
#endif
}

/* The same for a request target. */
static inline const char *bt_scan_target(const char *base, const char *p, const char *end)
{
#ifdef __SSE2__
    return bt_scan_sse2(base, p, end, BT_CHAR_TARGET);
#else
    (void) base;
    return bt_scan_swar(p, end, BT_CHAR_TARGET);
#endif
}

#endif
