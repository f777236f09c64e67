/* proto/http/chars.c: the character class table, spelled as the RFCs spell it and folded by the compiler.
 * Knows no message. */
#include <proto/http/chars.h>

#define IN(c, first, last) ((c) >= (first) && (c) <= (last))
#define ALPHA(c)           (IN(c, 'a', 'z') || IN(c, 'A', 'Z'))
#define DIGIT(c)           IN(c, '0', '9')
#define VCHAR(c)           IN(c, 0x21, 0x7e)
#define OBS_TEXT(c)        IN(c, 0x80, 0xff)
#define BLANK(c)           ((c) == ' ' || (c) == '\t')

#define TOKEN(c)                                                                                                       \
    (ALPHA(c) || DIGIT(c) || (c) == '!' || IN(c, '#', '\'') || (c) == '*' || (c) == '+' || (c) == '-' || (c) == '.' || \
     IN(c, '^', '`') || (c) == '|' || (c) == '~')
#define UNRESERVED(c) (ALPHA(c) || DIGIT(c) || (c) == '-' || (c) == '.' || (c) == '_' || (c) == '~')
#define SUB_DELIMS(c) ((c) == '!' || (c) == '$' || IN(c, '&', ',') || (c) == ';' || (c) == '=')
#define HEXDIG(c)     (DIGIT(c) || IN(c, 'a', 'f') || IN(c, 'A', 'F'))
#define TARGET(c)     (VCHAR(c) && (c) != '"' && (c) != '#' && (c) != '<' && (c) != '>')
#define VALUE(c)      (BLANK(c) || VCHAR(c) || OBS_TEXT(c))
#define QDTEXT(c)     (VALUE(c) && (c) != '"' && (c) != '\\')

#define CLASS(c)                                                                                                       \
    ((TOKEN(c) ? BT_CHAR_TOKEN : 0) | (UNRESERVED(c) || SUB_DELIMS(c) ? BT_CHAR_HOST : 0) |                            \
     (HEXDIG(c) ? BT_CHAR_HEX : 0) | (TARGET(c) ? BT_CHAR_TARGET : 0) | (VALUE(c) ? BT_CHAR_VALUE : 0) |               \
     (QDTEXT(c) ? BT_CHAR_QDTEXT : 0))
#define FOUR(c) CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define ROW(c)  FOUR(c), FOUR((c) + 4), FOUR((c) + 8), FOUR((c) + 12)

const uint8_t bt_http_char_class[256] = {
    ROW(0x00), ROW(0x10), ROW(0x20), ROW(0x30), ROW(0x40), ROW(0x50), ROW(0x60), ROW(0x70),
    ROW(0x80), ROW(0x90), ROW(0xa0), ROW(0xb0), ROW(0xc0), ROW(0xd0), ROW(0xe0), ROW(0xf0),
};
