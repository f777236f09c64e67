/* tests/unit/test_http_parser.c: what the request parser accepts, refuses and remembers, however the bytes are cut
 * and whatever process goes on with them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/http_conversation.h"

static const bt_http_limits limits = {.max_head = 1024, .max_target = 256, .max_headers = 16, .max_body = 4096};

#define BYTES(literal) (literal), sizeof(literal) - 1
#define HOST           "Host: a\r\n"
#define CHUNKED        "POST /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
#define OF_CHUNKED     "POST /u 1.1 keep|Host=a|Transfer-Encoding=chunked"
#define NOTHING_OPEN   "open phase=0 unread=0 body=0"

typedef struct sample {
    const char *bytes;
    size_t len;
    const char *transcript;
} sample;

/* Every promise about good requests, with what comes out. */
static const sample valid[] = {
    {BYTES("GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"),
     "GET / 1.1 keep|Host=127.0.0.1:8080|body=\n" NOTHING_OPEN},
    {BYTES("\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n"), "GET / 1.1 keep|Host=a|body=\n" NOTHING_OPEN},
    {BYTES("G!#$%&'*+-.^_`|~0 /[]{}|\\^`%zz?a=b HTTP/1.1\r\n" HOST "\r\n"),
     "G!#$%&'*+-.^_`|~0 /[]{}|\\^`%zz?a=b 1.1 keep|Host=a|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.0\r\n\r\n"), "GET / 1.0|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
     "GET / 1.0 keep|Connection=Keep-Alive|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"),
     "GET / 1.0|Connection=keep-alive, close|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.7\r\n" HOST "\r\n"), "GET / 1.7 keep|Host=a|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Connection: x,\t CLOSE ,\r\n\r\n"),
     "GET / 1.1|Host=a|Connection=x,\t CLOSE ,|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Connection: x\r\nConnection: close\r\n\r\n"),
     "GET / 1.1|Host=a|Connection=x|Connection=close|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Connection: closed, not-close, close;x\r\n\r\n"),
     "GET / 1.1 keep|Host=a|Connection=closed, not-close, close;x|body=\n" NOTHING_OPEN},
    {BYTES("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n"), "OPTIONS * 1.1 keep|Host=|body=\n" NOTHING_OPEN},
    {BYTES("GET HTTP://h:80/p?q HTTP/1.1\r\nhOsT: [::1]:\r\n\r\n"),
     "GET HTTP://h:80/p?q 1.1 keep|hOsT=[::1]:|body=\n" NOTHING_OPEN},
    {BYTES("GET https://[fe80::1] HTTP/1.1\r\nHost: a%41-._~!$&'()*+,;=:65535\r\n\r\n"),
     "GET https://[fe80::1] 1.1 keep|Host=a%41-._~!$&'()*+,;=:65535|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.1\r\n" HOST "A:\r\nB: \t \r\nC: \tx y\t \r\nD:\xff\x80\xc3\xa4\r\n\r\n"),
     "GET / 1.1 keep|Host=a|A=|B=|C=x y|D=\xff\x80\xc3\xa4|body=\n" NOTHING_OPEN},
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a value that is longer than two sixteen-byte loads, "
           "\"<#>\"\r\n\r\n"),
     "GET / 1.1 keep|Host=a|User-Agent=a value that is longer than two sixteen-byte loads, "
     "\"<#>\"|body=\n" NOTHING_OPEN},
    {BYTES("POST /u HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n" HOST "\r\n"),
     "POST /u 1.1 keep|Host=a|Content-Length=5|body=hello\nGET / 1.1 keep|Host=a|body=\n" NOTHING_OPEN},
    {BYTES("POST /u HTTP/1.1\r\n" HOST "Content-Length: 00000000000000000000000\r\n\r\n"),
     "POST /u 1.1 keep|Host=a|Content-Length=00000000000000000000000|body=\n" NOTHING_OPEN},
    {BYTES("POST /u HTTP/1.1\r\n" HOST "content-length: 9\r\n\r\nhello"),
     "open phase=2 unread=0 body=5|Host=a|content-length=9"},
    {BYTES("POST /u HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 9\r\n\r\nhello"),
     "open phase=2 unread=0 body=5 continue|Host=a|Expect=100-Continue|Content-Length=9"},
    {BYTES("POST /u HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\nhello"),
     "open phase=2 unread=0 body=5|Expect=100-continue|Content-Length=9"},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n\r\n"),
     "GET / 1.1 keep|Host=a|Expect=100-continue|body=\n" NOTHING_OPEN},
    {BYTES(CHUNKED "Expect: 100-continue\r\n\r\n3\r\nab"),
     "open phase=4 unread=0 body=2 continue|Host=a|Transfer-Encoding=chunked|Expect=100-continue"},
    {BYTES(CHUNKED "\r\n0\r\n\r\n"), OF_CHUNKED "|body=\n" NOTHING_OPEN},
    {BYTES(CHUNKED "\r\n3\r\nabc\r\n00a\r\n0123456789\r\n0\r\n\r\n"), OF_CHUNKED "|body=abc0123456789\n" NOTHING_OPEN},
    {BYTES(CHUNKED "\r\n3;a\r\nabc\r\n2 ; b = c;d=\"e\\\" ;\r\"\r\nxx"), "400 malformed chunk extension\n"},
    {BYTES(CHUNKED "\r\n3;a\r\nabc\r\n2 \t; b = c ;d=\"e\\\" ;\tf\"\r\nde\r\n0000;x\r\nX-Sum: 9\r\nEmpty:\r\n\r\nGET "
                   "/2 HTTP/1.1\r\n" HOST "\r\n"),
     OF_CHUNKED "|+X-Sum=9|+Empty=|body=abcde\nGET /2 1.1 keep|Host=a|body=\n" NOTHING_OPEN},
    {BYTES(CHUNKED "\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\nX-"),
     "open phase=6 unread=2 body=3|Host=a|Transfer-Encoding=chunked|+X-Sum=9"},
    {BYTES("POST /u HTTP/1.1\r\n" HOST
           "Transfer-Encoding:CHUNKED\r\n\r\n1\r\nA\r\n1\r\nB\r\n1\r\nC\r\n0\r\n\r\n\r\nGET"),
     "POST /u 1.1 keep|Host=a|Transfer-Encoding=CHUNKED|body=ABC\nopen phase=0 unread=3 body=0"},
};

typedef struct bad_sample {
    const char *bytes;
    size_t len;
    uint16_t status;
} bad_sample;

#define BAD_LINE(line)    BYTES(line "\r\n" HOST "\r\n"), 400
#define BAD_FIELD(line)   BYTES("GET / HTTP/1.1\r\n" HOST line "\r\n\r\n"), 400
#define BAD_HOST(value)   BYTES("GET / HTTP/1.1\r\nHost: " value "\r\n\r\n"), 400
#define BAD_LENGTH(value) BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: " value "\r\n\r\n"), 400
#define CODING(value)     BYTES("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: " value "\r\n\r\n0\r\n\r\n")
#define BAD_CHUNK(bytes)  BYTES(CHUNKED "\r\n" bytes), 400

static const bad_sample malformed[] = {
    /* request line */
    {BAD_LINE("GET /")},
    {BAD_LINE("GET / ")},
    {BAD_LINE("GET")},
    {BAD_LINE(" GET / HTTP/1.1")},
    {BAD_LINE("GET  / HTTP/1.1")},
    {BAD_LINE("GET /  HTTP/1.1")},
    {BAD_LINE("GET / HTTP/1.1 ")},
    {BAD_LINE("GET\t/ HTTP/1.1")},
    {BAD_LINE("GET /\tHTTP/1.1")},
    {BAD_LINE("GET /a b HTTP/1.1")},
    {BAD_LINE("G\x01T / HTTP/1.1")},
    {BAD_LINE("G(T / HTTP/1.1")},
    {BAD_LINE("G\xc3\xa9T / HTTP/1.1")},
    {BAD_LINE("GET /\0 HTTP/1.1")},
    {BAD_LINE("GET /\x7f HTTP/1.1")},
    {BAD_LINE("GET /\xc3\xa9 HTTP/1.1")},
    {BAD_LINE("GET /a#b HTTP/1.1")},
    {BAD_LINE("GET /a\"b HTTP/1.1")},
    {BAD_LINE("GET /a<b HTTP/1.1")},
    {BAD_LINE("GET /a>b HTTP/1.1")},
    {BAD_LINE("GET /0123456789abcdef0123456789abcdef\x01 HTTP/1.1")},
    {BAD_LINE("GET / HTTP/1.1\r")},
    {BAD_LINE("GET / http/1.1")},
    {BAD_LINE("GET / HTTP/1")},
    {BAD_LINE("GET / HTTP/1.")},
    {BAD_LINE("GET / HTTP/1.10")},
    {BAD_LINE("GET / HTTP/11.1")},
    {BAD_LINE("GET / HTTP/1,1")},
    {BAD_LINE("GET / HTTP/+1.1")},
    {BAD_LINE("GET / HTTPS/1.1")},
    {BAD_LINE("GET / XTTP/1.1")},
    {BAD_LINE("GET / HTTP/1.a")},
    {BYTES("GET / HTTP/2.0\r\n\r\n"), 505},
    {BYTES("GET / HTTP/0.9\r\n\r\n"), 505},
    {BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505},
    {BYTES("GET / HTTP/1.1\n" HOST "\r\n"), 400},
    {BYTES("\nGET / HTTP/1.1\r\n" HOST "\r\n"), 400},
    {BYTES("\r\rGET / HTTP/1.1\r\n" HOST "\r\n"), 400},
    {BYTES("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" HOST "\r\n"), 501},
    {BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400},
    /* target forms */
    {BAD_LINE("GET * HTTP/1.1")},
    {BAD_LINE("OPTIONS ** HTTP/1.1")},
    {BAD_LINE("OPTIONS *? HTTP/1.1")},
    {BAD_LINE("GET a HTTP/1.1")},
    {BAD_LINE("GET ?a HTTP/1.1")},
    {BAD_LINE("GET host:80 HTTP/1.1")},
    {BAD_LINE("GET ftp://host/ HTTP/1.1")},
    {BAD_LINE("GET http:/host/ HTTP/1.1")},
    {BAD_LINE("GET http:// HTTP/1.1")},
    {BAD_LINE("GET http:///a HTTP/1.1")},
    {BAD_LINE("GET http://:80/ HTTP/1.1")},
    {BAD_LINE("GET http://u@host/ HTTP/1.1")},
    {BAD_LINE("GET http://host:x/ HTTP/1.1")},
    {BAD_LINE("GET http://host:65536/ HTTP/1.1")},
    {BAD_LINE("GET http://[::1/ HTTP/1.1")},
    {BAD_LINE("GET http://[v1.a]/ HTTP/1.1")},
    {BAD_LINE("GET http://ho|st/ HTTP/1.1")},
    {BYTES("CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n"), 501},
    {BYTES("CONNECT / HTTP/1.1\r\n" HOST "\r\n"), 501},
    /* field lines */
    {BAD_FIELD("A b: c")},
    {BAD_FIELD("A : b")},
    {BAD_FIELD("A\t: b")},
    {BAD_FIELD(": b")},
    {BAD_FIELD("A")},
    {BAD_FIELD(" A: b")},
    {BAD_FIELD("\tA: b")},
    {BAD_FIELD("A: b\r\n c")},
    {BAD_FIELD("A: b\r\n\tc")},
    {BAD_FIELD("A: b\n c")},
    {BAD_FIELD("A: b\nC: d")},
    {BAD_FIELD("A: b\rC: d")},
    {BAD_FIELD("A: b\r\rC: d")},
    {BAD_FIELD("A: b\0c")},
    {BAD_FIELD("A: 0123456789abcdef0123456\x01")},
    {BAD_FIELD("A: \x7f")},
    {BAD_FIELD("A: \x0b")},
    {BAD_FIELD("A\0: b")},
    {BAD_FIELD("A(: b")},
    {BAD_FIELD("\xc3\xa9: b")},
    {BAD_FIELD("A\x7f: b")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" HOST "\rX"), 400},
    {BYTES("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400},
    /* Host */
    {BYTES("GET / HTTP/1.1\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.2\r\nA: b\r\n\r\n"), 400},
    {BYTES("GET http://a/ HTTP/1.1\r\n\r\n"), 400},
    {BAD_FIELD("Host: a")},
    {BAD_FIELD("host: b")},
    {BAD_HOST("a b")},
    {BAD_HOST("a/b")},
    {BAD_HOST("a@b")},
    {BAD_HOST("a, b")},
    {BAD_HOST("a:b")},
    {BAD_HOST("a:80:80")},
    {BAD_HOST("a:99999")},
    {BAD_HOST("a:000080")},
    {BAD_HOST("a%4")},
    {BAD_HOST("a%4g")},
    {BAD_HOST("[::1")},
    {BAD_HOST("[::1]x")},
    {BAD_HOST("[::g]")},
    {BAD_HOST("[fe80::1%25eth0]")},
    {BAD_HOST("[]")},
    {BAD_HOST("a\\b")},
    {BAD_HOST("\xc3\xa4")},
    /* framing: smuggling */
    {BYTES(CHUNKED "Content-Length: 5\r\n\r\n0\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {BAD_LENGTH("5\r\nContent-Length: 5")},
    {BAD_LENGTH("5\r\nContent-Length: 6")},
    {BAD_LENGTH("5, 5")},
    {BAD_LENGTH("5,")},
    {BAD_LENGTH("")},
    {BAD_LENGTH("+5")},
    {BAD_LENGTH("-5")},
    {BAD_LENGTH("0x5")},
    {BAD_LENGTH("5 5")},
    {BAD_LENGTH("5.0")},
    {BAD_LENGTH("five")},
    {BAD_LENGTH("\"5\"")},
    {BAD_LENGTH("18446744073709551616")},
    {BAD_LENGTH("99999999999999999999999999")},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: 4097\r\n\r\n"), 413},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551615\r\n\r\n"), 413},
    {CODING("gzip, chunked"), 501},
    {CODING("gzip;q=1 , chunked"), 501},
    {CODING("gzip\r\nTransfer-Encoding: chunked"), 501},
    {CODING("gzip"), 400},
    {CODING("identity"), 400},
    {CODING("chunked, gzip"), 400},
    {CODING("chunked, chunked"), 400},
    {CODING("chunked\r\nTransfer-Encoding: chunked"), 400},
    {CODING("chunked\r\nTransfer-Encoding: gzip"), 400},
    {CODING("chunked,"), 400},
    {CODING(",chunked"), 400},
    {CODING(""), 400},
    {CODING("chunked;a=b"), 400},
    {CODING("chunked x"), 400},
    {CODING("xchunked"), 400},
    {CODING("\"chunked\""), 400},
    {CODING("chun\x0bked"), 400},
    {BYTES("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Expect: tea\r\nContent-Length: 3\r\n\r\n"), 417},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Expect:\r\n\r\n"), 417},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n"), 413},
    /* chunked framing */
    {BAD_CHUNK("\r\n")},
    {BAD_CHUNK("x\r\n")},
    {BAD_CHUNK(" 3\r\nabc\r\n")},
    {BAD_CHUNK("3 \r\nabc\r\n")},
    {BAD_CHUNK("-3\r\nabc\r\n")},
    {BAD_CHUNK("0x3\r\nabc\r\n")},
    {BAD_CHUNK("3\nabc\r\n")},
    {BAD_CHUNK("3\rXabc\r\n")},
    {BAD_CHUNK("3\r\nabc\n0\r\n\r\n")},
    {BAD_CHUNK("3\r\nabcd\r\n0\r\n\r\n")},
    {BAD_CHUNK("3\r\nabc\rX")},
    {BAD_CHUNK("3\r\nabc0\r\n\r\n")},
    {BAD_CHUNK("00000000000000003\r\nabc\r\n")},
    {BAD_CHUNK("10000000000000000\r\nabc\r\n")},
    {BAD_CHUNK("3;\r\nabc\r\n")},
    {BAD_CHUNK("3;=b\r\nabc\r\n")},
    {BAD_CHUNK("3;a=\r\nabc\r\n")},
    {BAD_CHUNK("3;a b\r\nabc\r\n")},
    {BAD_CHUNK("3;a \r\nabc\r\n")},
    {BAD_CHUNK("3;a=\"b\r\nabc\r\n")},
    {BAD_CHUNK("3;a=\"b\"c\r\nabc\r\n")},
    {BAD_CHUNK("3;a=\"\\\x01\"\r\nabc\r\n")},
    {BAD_CHUNK("3;a\nabc\r\n")},
    {BAD_CHUNK("3;a\0\r\nabc\r\n")},
    {BAD_CHUNK("3,a\r\nabc\r\n")},
    {BYTES(CHUNKED "\r\nfffffffffffffffe\r\nabc"), 413},
    {BYTES(CHUNKED "\r\nffffffffffffffff\r\nabc"), 413},
    {BYTES(CHUNKED "\r\n1001\r\nabc"), 413},
    {BYTES(CHUNKED "\r\n3\r\nabc\r\nffe\r\nabc"), 413},
    /* trailers */
    {BAD_CHUNK("0\r\nHost: b\r\n\r\n")},
    {BAD_CHUNK("0\r\nContent-Length: 3\r\n\r\n")},
    {BAD_CHUNK("0\r\ntransfer-encoding: chunked\r\n\r\n")},
    {BAD_CHUNK("0\r\nA : b\r\n\r\n")},
    {BAD_CHUNK("0\r\nA: b\n\r\n")},
    {BAD_CHUNK("0\r\n A: b\r\n\r\n")},
    {BAD_CHUNK("0\r\n\n")},
    {BAD_CHUNK("0\r\nGET / HTTP/1.1\r\n" HOST "\r\n")},
};

/* ---- ways to feed ---- */

typedef enum way {
    WAY_SPLIT,
    WAY_SPLIT_AND_COMPACT,
    WAY_PASS,
    WAY_PASS_TWICE,
    WAYS,
} way;

static void talk_cut(conversation *talk, const bt_http_limits *by, const char *bytes, size_t len, size_t cut, way how)
{
    conversation_begin(talk, by);
    conversation_feed(talk, bytes, cut);
    if (how == WAY_PASS || how == WAY_PASS_TWICE)
        conversation_pass(talk);
    if (how == WAY_PASS_TWICE)
        conversation_pass(talk);
    if (how == WAY_SPLIT_AND_COMPACT)
        conversation_compact(talk);
    conversation_feed(talk, bytes + cut, len - cut);
    if (how == WAY_PASS_TWICE)
        conversation_pass(talk);
    conversation_end(talk);
}

static void talk_bytewise(conversation *talk, const bt_http_limits *by, const char *bytes, size_t len, bool pass)
{
    conversation_begin(talk, by);
    for (size_t i = 0; i < len; i++) {
        conversation_feed(talk, bytes + i, 1);
        if (pass)
            conversation_pass(talk);
    }
    conversation_end(talk);
}

static void expect_everywhere(const bt_http_limits *by, const char *bytes, size_t len, const char *transcript)
{
    conversation talk;
    for (size_t cut = 0; cut <= len; cut++) {
        for (way how = WAY_SPLIT; how < WAYS; how++) {
            talk_cut(&talk, by, bytes, len, cut, how);
            if (strcmp(conversation_text(&talk), transcript) != 0)
                print_error("cut at %zu, way %d, of: %.*s\n", cut, (int) how, (int) len, bytes);
            assert_string_equal(conversation_text(&talk), transcript);
            conversation_free(&talk);
        }
    }
    for (int pass = 0; pass <= 1; pass++) {
        talk_bytewise(&talk, by, bytes, len, pass);
        assert_string_equal(conversation_text(&talk), transcript);
        conversation_free(&talk);
    }
}

static void expect_status(const bt_http_limits *by, const char *bytes, size_t len, uint16_t status)
{
    conversation talk;
    talk_cut(&talk, by, bytes, len, len, WAY_SPLIT);
    if (talk.parser.error_status != status)
        print_error("%d instead of %d for: %.*s\n", talk.parser.error_status, status, (int) len, bytes);
    assert_true(talk.failed);
    assert_int_equal(talk.parser.error_status, status);
    expect_everywhere(by, bytes, len, conversation_text(&talk));
    conversation_free(&talk);
}

/* ---- tests ---- */

static void test_valid_requests_read_the_same_however_they_arrive(void **unused)
{
    (void) unused;
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++)
        expect_everywhere(&limits, valid[i].bytes, valid[i].len, valid[i].transcript);
}

static void test_malformed_requests_get_their_status_however_they_arrive(void **unused)
{
    (void) unused;
    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++)
        expect_status(&limits, malformed[i].bytes, malformed[i].len, malformed[i].status);
}

static void test_hopeless_bytes_fail_without_waiting_for_a_line_end(void **unused)
{
    static const struct {
        const char *bytes;
        size_t len;
    } hopeless[] = {
        {BYTES("\x16")},
        {BYTES("\0")},
        {BYTES(" ")},
        {BYTES("\n")},
        {BYTES("\x80")},
        {BYTES("GET /#")},
        {BYTES("GET /a\0")},
        {BYTES("GET / X")},
        {BYTES("GET / HTTP/1.1\n")},
        {BYTES("GET / HTTP/1.1\r\n ")},
        {BYTES("GET / HTTP/1.1\r\nA b")},
        {BYTES("GET / HTTP/1.1\r\nA: b\n")},
        {BYTES("GET / HTTP/1.1\r\nA: b\rc")},
        {BYTES(CHUNKED "\r\nx")},
        {BYTES(CHUNKED "\r\n1\r\naX")},
    };
    (void) unused;
    for (size_t i = 0; i < sizeof(hopeless) / sizeof(hopeless[0]); i++)
        expect_status(&limits, hopeless[i].bytes, hopeless[i].len, 400);
}

/* "GET /aaa HTTP/1.1", a field "A: aaa" and a body: lengths chosen by the caller. Returns the length. */
static size_t build_request(char *out, size_t size, size_t target, size_t value)
{
    char fill[2048];
    memset(fill, 'a', sizeof(fill));
    return (size_t) snprintf(out, size, "GET /%.*s HTTP/1.1\r\nHost: a\r\nA: %.*s\r\n\r\n", (int) target - 1, fill,
                             (int) value, fill);
}

static void test_a_head_may_be_as_long_as_max_head_and_no_longer(void **unused)
{
    (void) unused;
    char bytes[4096];
    conversation talk;
    size_t len = build_request(bytes, sizeof(bytes), 1, 1000);
    bt_http_limits exact = limits;
    exact.max_head = (uint32_t) len;
    talk_cut(&talk, &exact, bytes, len, len, WAY_SPLIT);
    assert_false(talk.failed);
    conversation_free(&talk);

    exact.max_head = (uint32_t) len - 1;
    expect_status(&exact, bytes, len, 431);
    /* and it does not wait for an end that may never come */
    expect_status(&exact, bytes, len - 1, 431);
    /* nor do empty lines before the request */
    exact.max_head = 10;
    expect_status(&exact, BYTES("\r\n\r\n\r\n\r\n\r\n"), 431);
    expect_status(&exact, BYTES("OPTIONSSSSSSSSSS"), 431);
}

static void test_a_target_may_be_as_long_as_max_target_and_no_longer(void **unused)
{
    (void) unused;
    char bytes[4096];
    conversation talk;
    size_t len = build_request(bytes, sizeof(bytes), limits.max_target, 1);
    talk_cut(&talk, &limits, bytes, len, len, WAY_SPLIT);
    assert_false(talk.failed);
    conversation_free(&talk);

    len = build_request(bytes, sizeof(bytes), limits.max_target + 1, 1);
    expect_status(&limits, bytes, len, 414);
    expect_status(&limits, bytes, 4 + limits.max_target + 1, 414);
    bt_http_limits small_head = limits;
    small_head.max_head = 100;
    expect_status(&small_head, bytes, len, 414);
}

static void test_fields_are_counted_with_trailers(void **unused)
{
    (void) unused;
    bt_http_limits few = limits;
    few.max_headers = 2;
    expect_everywhere(&few, BYTES("GET / HTTP/1.1\r\n" HOST "A: b\r\n\r\n"),
                      "GET / 1.1 keep|Host=a|A=b|body=\n" NOTHING_OPEN);
    expect_status(&few, BYTES("GET / HTTP/1.1\r\n" HOST "A: b\r\nC: d\r\n\r\n"), 431);
    expect_status(&few, BYTES(CHUNKED "\r\n0\r\nA: b\r\n\r\n"), 431);
    /* the array may also be smaller than the setting */
    bt_http_field one[1];
    bt_http_parser parser;
    char bytes[] = "GET / HTTP/1.1\r\n" HOST "A: b\r\n\r\n";
    bt_http_parser_init(&parser, one, 1);
    assert_int_equal(bt_http_parse(&parser, bytes, sizeof(bytes) - 1, &limits), BT_HTTP_ERROR);
    assert_int_equal(parser.error_status, 431);
}

static void test_trailers_and_chunk_extensions_are_bounded(void **unused)
{
    (void) unused;
    bt_http_limits small = limits;
    small.max_head = 80;
    expect_everywhere(&small,
                      BYTES(CHUNKED "\r\n1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n1;"
                                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\ny\r\n0\r\n\r\n"),
                      OF_CHUNKED "|body=xy\n" NOTHING_OPEN);
    expect_status(&small,
                  BYTES(CHUNKED "\r\n1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n1;"
                                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\ny\r\n"),
                  431);
    expect_status(
        &small,
        BYTES(CHUNKED
              "\r\n1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        431);
    expect_status(
        &small,
        BYTES(CHUNKED
              "\r\n0\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        431);
}

static void test_max_head_ends_at_what_offsets_can_hold(void **unused)
{
    (void) unused;
    bt_http_limits endless = {UINT32_MAX, UINT32_MAX, 4, UINT64_MAX};
    size_t len = BT_HTTP_MAX_HEAD + 100;
    char *bytes = malloc(len);
    assert_non_null(bytes);
    memset(bytes, 'a', len);
    memcpy(bytes, BYTES("GET / HTTP/1.1\r\nA: "));
    conversation talk;
    talk_cut(&talk, &endless, bytes, len, len / 2, WAY_SPLIT);
    assert_int_equal(talk.parser.error_status, 431);
    conversation_free(&talk);
    memset(bytes, 'a', len);
    memcpy(bytes, BYTES("GET /"));
    talk_cut(&talk, &endless, bytes, len, len / 2, WAY_SPLIT);
    assert_int_equal(talk.parser.error_status, 414);
    conversation_free(&talk);
    /* a name longer than its 16-bit length */
    memcpy(bytes, BYTES("GET / HTTP/1.1\r\n"));
    memcpy(bytes + 70000, BYTES(": b\r\n\r\n"));
    talk_cut(&talk, &endless, bytes, 70010, 70010, WAY_SPLIT);
    assert_int_equal(talk.parser.error_status, 431);
    conversation_free(&talk);
    free(bytes);
}

static void test_a_full_body_fits_max_body(void **unused)
{
    (void) unused;
    bt_http_limits small = limits;
    small.max_body = 5;
    expect_everywhere(&small, BYTES("POST /u HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"),
                      "POST /u 1.1 keep|Host=a|Content-Length=5|body=hello\n" NOTHING_OPEN);
    expect_everywhere(&small, BYTES(CHUNKED "\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
                      OF_CHUNKED "|body=hello\n" NOTHING_OPEN);
    expect_status(&small, BYTES(CHUNKED "\r\n3\r\nhel\r\n3\r\n"), 413);
}

static void test_a_parser_that_is_done_or_failed_stays_so(void **unused)
{
    (void) unused;
    bt_http_field fields[4];
    bt_http_parser parser;
    bt_buf state = {0}, unread = {0};
    char good[] = "GET / HTTP/1.1\r\n" HOST "\r\nGET", bad[] = "GET / HTTP/1.1\r\n A";
    bt_http_parser_init(&parser, fields, 4);
    for (int i = 0; i < 2; i++)
        assert_int_equal(bt_http_parse(&parser, good, sizeof(good) - 1, &limits), BT_HTTP_COMPLETE);
    assert_int_equal(parser.position, sizeof(good) - 1 - 3);
    bt_http_parser_reset(&parser);
    assert_int_equal(parser.field_capacity, 4);
    for (int i = 0; i < 2; i++)
        assert_int_equal(bt_http_parse(&parser, bad, sizeof(bad) - 1, &limits), BT_HTTP_ERROR);
    assert_int_equal(bt_http_parser_save(&parser, bad, sizeof(bad) - 1, &state, &unread), -EINVAL);
    assert_int_equal(bt_buf_len(&state) + bt_buf_len(&unread), 0);
}

static void test_compacting_closes_the_gap_of_chunk_decoding(void **unused)
{
    (void) unused;
    bt_http_field fields[4];
    bt_http_parser parser;
    char window[] = CHUNKED "\r\n1;aaaaaaaaaaaa\r\nx\r\n1\r\ny\r\n3\r\n";
    bt_http_parser_init(&parser, fields, 4);
    assert_int_equal(bt_http_parse(&parser, window, sizeof(window) - 1, &limits), BT_HTTP_NEED_MORE);
    size_t len = bt_http_parser_compact(&parser, window, sizeof(window) - 1);
    assert_int_equal(len, parser.head_len + 2);
    assert_int_equal(parser.position, len);
    assert_memory_equal(window + parser.body_start, "xy", 2);
}

/* ---- restore ---- */

typedef struct state_bytes {
    uint8_t version, phase;
    uint64_t body_len, chunk_left;
    uint32_t extension_bytes;
} __attribute__((packed)) state_bytes;

static int restore(const char *head, size_t len, const void *state, size_t state_len)
{
    bt_http_field fields[16];
    bt_http_parser parser;
    char *window = malloc(len ? len : 1), *copy = malloc(state_len ? state_len : 1);
    assert_non_null(window);
    assert_non_null(copy);
    memcpy(window, head, len);
    memcpy(copy, state, state_len);
    bt_http_parser_init(&parser, fields, 16);
    int rc = bt_http_parser_restore(&parser, window, len, &limits, copy, state_len);
    if (rc < 0) {
        assert_int_equal(parser.phase, BT_HTTP_REQUEST_LINE);
        assert_int_equal(parser.position, 0);
    }
    free(window);
    free(copy);
    return rc;
}

static void test_a_hostile_state_is_refused(void **unused)
{
    (void) unused;
    static const struct {
        state_bytes state;
        int expected;
    } states[] = {
        {{1, BT_HTTP_CHUNK_SIZE, 3, 0, 0}, 0},
        {{1, BT_HTTP_CHUNK_DATA, 3, 4093, 1024}, 0},
        {{1, BT_HTTP_CHUNK_END, 0, 0, 0}, 0},
        {{1, BT_HTTP_TRAILER, 3, 0, 0}, 0},
        {{2, BT_HTTP_CHUNK_SIZE, 3, 0, 0}, -EPROTO},
        {{1, BT_HTTP_REQUEST_LINE, 0, 0, 0}, -EPROTO},
        {{1, BT_HTTP_FIELDS, 0, 0, 0}, -EPROTO},
        {{1, BT_HTTP_BODY_LENGTH, 3, 0, 0}, -EPROTO},
        {{1, BT_HTTP_DONE, 3, 0, 0}, -EPROTO},
        {{1, BT_HTTP_FAILED, 3, 0, 0}, -EPROTO},
        {{1, 200, 3, 0, 0}, -EPROTO},
        {{1, BT_HTTP_CHUNK_SIZE, 4, 0, 0}, -EPROTO},
        {{1, BT_HTTP_CHUNK_SIZE, UINT64_MAX, 0, 0}, -EPROTO},
        {{1, BT_HTTP_CHUNK_SIZE, 3, 1, 0}, -EPROTO},
        {{1, BT_HTTP_CHUNK_DATA, 3, 0, 0}, -EPROTO},
        {{1, BT_HTTP_CHUNK_DATA, 3, 4094, 0}, -EPROTO},
        {{1, BT_HTTP_CHUNK_DATA, 3, UINT64_MAX, 0}, -EPROTO},
        {{1, BT_HTTP_TRAILER, 3, 7, 0}, -EPROTO},
        {{1, BT_HTTP_CHUNK_SIZE, 3, 0, 1025}, -EPROTO},
    };
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        assert_int_equal(restore(BYTES(CHUNKED "\r\nabc"), &states[i].state, sizeof(state_bytes)), states[i].expected);

    const state_bytes good = states[0].state;
    assert_int_equal(restore(BYTES(CHUNKED "\r\nabc"), &good, sizeof(good) - 1), -EPROTO);
    assert_int_equal(restore(BYTES(CHUNKED "\r\nabc"), (char[sizeof(good) + 1]){1, 3}, sizeof(good) + 1), -EPROTO);
    assert_int_equal(restore(BYTES(CHUNKED "\r"), &good, sizeof(good)), -EPROTO);
    assert_int_equal(restore(BYTES(CHUNKED "\r\nab"), &good, sizeof(good)), -EPROTO);
    assert_int_equal(restore(BYTES(""), &good, sizeof(good)), -EPROTO);
    assert_int_equal(restore(BYTES("GET / HTTP/1.1\r\n" HOST "\r\nabc"), &good, sizeof(good)), -EPROTO);
    assert_int_equal(restore(BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: 9\r\n\r\nabc"), &good, sizeof(good)),
                     -EPROTO);
    assert_int_equal(restore(BYTES("GET / HTTP/9.1\r\n\r\nabc"), &good, sizeof(good)), -EPROTO);
}

static void test_nothing_but_chunk_progress_is_state(void **unused)
{
    (void) unused;
    bt_http_field fields[4];
    bt_http_parser parser;
    bt_buf state = {0}, unread = {0};
    char window[] = "POST /u HTTP/1.1\r\n" HOST "Content-Length: 9\r\n\r\nhello";
    for (size_t len = 0; len < sizeof(window); len++) {
        bt_http_parser_init(&parser, fields, 4);
        assert_int_equal(bt_http_parse(&parser, window, len, &limits), BT_HTTP_NEED_MORE);
        assert_int_equal(bt_http_parser_save(&parser, window, len, &state, &unread), 0);
        assert_int_equal(bt_buf_len(&state), 0);
        assert_int_equal(bt_buf_len(&unread), len);
        assert_memory_equal(bt_buf_head(&unread), window, len);
        bt_buf_clear(&unread);
    }
    bt_buf_free(&state);
    bt_buf_free(&unread);
}

/* ---- scans ---- */

static void test_wide_scans_agree_with_the_table(void **unused)
{
    (void) unused;
    enum { LEN = 40 };
    static const unsigned classes[] = {BT_CHAR_VALUE, BT_CHAR_TARGET};
    char *bytes = malloc(LEN);
    assert_non_null(bytes);
    for (size_t c = 0; c < 2; c++) {
        for (int byte = 0; byte < 256; byte++) {
            for (size_t at = 0; at < LEN; at++) {
                memset(bytes, 'a', LEN);
                bytes[at] = (char) byte;
                bytes[LEN - 1] = (char) (at % 2 ? 0xff : '!'); /* borrows and carries must not matter */
                for (size_t from = 0; from <= at; from++) {
                    const char *stop = bt_scan_bytes(bytes + from, bytes + LEN, classes[c]);
                    assert_ptr_equal(bt_scan_swar(bytes + from, bytes + LEN, classes[c]), stop);
                    assert_ptr_equal(c == 0 ? bt_scan_value(bytes, bytes + from, bytes + LEN)
                                            : bt_scan_target(bytes, bytes + from, bytes + LEN),
                                     stop);
                }
            }
        }
    }
    free(bytes);
}

static void test_classes_hold_what_the_rfcs_say(void **unused)
{
    (void) unused;
    static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static const char host[] = "-._~!$&'()*+,;=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static const char hex[] = "0123456789abcdefABCDEF";
    for (int c = 0; c < 256; c++) {
        assert_int_equal(bt_char_is((char) c, BT_CHAR_TOKEN), c != 0 && strchr(token, c) != NULL);
        assert_int_equal(bt_char_is((char) c, BT_CHAR_HOST), c != 0 && strchr(host, c) != NULL);
        assert_int_equal(bt_char_is((char) c, BT_CHAR_HEX), c != 0 && strchr(hex, c) != NULL);
        assert_int_equal(bt_char_is((char) c, BT_CHAR_VALUE), c == '\t' || (c >= 0x20 && c != 0x7f));
        assert_int_equal(bt_char_is((char) c, BT_CHAR_QDTEXT),
                         c == '\t' || (c >= 0x20 && c != 0x7f && c != '"' && c != '\\'));
        assert_int_equal(bt_char_is((char) c, BT_CHAR_TARGET), c > 0x20 && c < 0x7f && !strchr("\"#<>", c));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid_requests_read_the_same_however_they_arrive),
        cmocka_unit_test(test_malformed_requests_get_their_status_however_they_arrive),
        cmocka_unit_test(test_hopeless_bytes_fail_without_waiting_for_a_line_end),
        cmocka_unit_test(test_a_head_may_be_as_long_as_max_head_and_no_longer),
        cmocka_unit_test(test_a_target_may_be_as_long_as_max_target_and_no_longer),
        cmocka_unit_test(test_fields_are_counted_with_trailers),
        cmocka_unit_test(test_trailers_and_chunk_extensions_are_bounded),
        cmocka_unit_test(test_max_head_ends_at_what_offsets_can_hold),
        cmocka_unit_test(test_a_full_body_fits_max_body),
        cmocka_unit_test(test_a_parser_that_is_done_or_failed_stays_so),
        cmocka_unit_test(test_compacting_closes_the_gap_of_chunk_decoding),
        cmocka_unit_test(test_a_hostile_state_is_refused),
        cmocka_unit_test(test_nothing_but_chunk_progress_is_state),
        cmocka_unit_test(test_wide_scans_agree_with_the_table),
        cmocka_unit_test(test_classes_hold_what_the_rfcs_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
