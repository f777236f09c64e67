"""tests/e2e/malformed_http.py: HTTP/1 requests a strict server refuses, and ones it must serve. Pure data.

MALFORMED: (name, bytes, status). One answer with that status, then the connection ends.
VALID: (name, bytes, statuses, keep). `statuses`: one expected status per answer, in order; `keep`: whether the
connection is open after the last answer. Both assume default limits (head 16 KiB, target 8 KiB, 128 fields, body
10 MiB) and a service that answers any method and path with 200 and echoes a request's body, as examples/http-echo.
"""

HOST = b"Host: a\r\n"
CHUNKED = b"POST /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def _line(line):
    return line + b"\r\n" + HOST + b"\r\n"


def _field(field):
    return b"GET / HTTP/1.1\r\n" + HOST + field + b"\r\n\r\n"


def _host(value):
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def _length(value):
    return b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + value + b"\r\n\r\nhello"


def _coding(value):
    return b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n"


MALFORMED = [
    # request line
    ("http/0.9", b"GET /\r\n", 400),
    ("no version", _line(b"GET / "), 400),
    ("no target", _line(b"GET"), 400),
    ("blank first", _line(b" GET / HTTP/1.1"), 400),
    ("two blanks before the target", _line(b"GET  / HTTP/1.1"), 400),
    ("two blanks behind the target", _line(b"GET /  HTTP/1.1"), 400),
    ("blank behind the version", _line(b"GET / HTTP/1.1 "), 400),
    ("tab between the parts", _line(b"GET\t/\tHTTP/1.1"), 400),
    ("blank in the target", _line(b"GET /a b HTTP/1.1"), 400),
    ("method not a token", _line(b"G(T / HTTP/1.1"), 400),
    ("method with a control byte", _line(b"G\x01T / HTTP/1.1"), 400),
    ("method too long", _line(b"A" * 100 + b" / HTTP/1.1"), 501),
    ("endless method", b"A" * 20000, 501),
    ("NUL in the target", _line(b"GET /\x00 HTTP/1.1"), 400),
    ("DEL in the target", _line(b"GET /\x7f HTTP/1.1"), 400),
    ("raw UTF-8 in the target", _line(b"GET /\xc3\xa9 HTTP/1.1"), 400),
    ("fragment", _line(b"GET /a#b HTTP/1.1"), 400),
    ("quote in the target", _line(b'GET /a"b HTTP/1.1'), 400),
    ("angle bracket in the target", _line(b"GET /<a> HTTP/1.1"), 400),
    ("lower-case protocol name", _line(b"GET / http/1.1"), 400),
    ("other protocol", _line(b"GET / ICAP/1.0"), 400),
    ("version with one digit", _line(b"GET / HTTP/1"), 400),
    ("version with three digits", _line(b"GET / HTTP/1.10"), 400),
    ("version 11.1", _line(b"GET / HTTP/11.1"), 400),
    ("version 2.0", _line(b"GET / HTTP/2.0"), 505),
    ("version 0.9", _line(b"GET / HTTP/0.9"), 505),
    ("version 3.0", _line(b"GET / HTTP/3.0"), 505),
    ("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("tls client hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)), 400),
    ("line feed first", b"\n" + _line(b"GET / HTTP/1.1"), 400),
    ("bare line feeds", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare carriage returns", b"GET / HTTP/1.1\rHost: a\r\r", 400),
    ("random bytes", b"\xff\xfe\xfd\x00\x01\x02", 400),
    # target forms
    ("asterisk with GET", _line(b"GET * HTTP/1.1"), 400),
    ("asterisk with more", _line(b"OPTIONS *a HTTP/1.1"), 400),
    ("relative target", _line(b"GET a/b HTTP/1.1"), 400),
    ("query only", _line(b"GET ?a=b HTTP/1.1"), 400),
    ("unknown scheme", _line(b"GET ftp://host/ HTTP/1.1"), 400),
    ("absolute without host", _line(b"GET http:///a HTTP/1.1"), 400),
    ("absolute with user", _line(b"GET http://user@host/ HTTP/1.1"), 400),
    ("absolute with bad port", _line(b"GET http://host:port/ HTTP/1.1"), 400),
    ("authority with GET", _line(b"GET host:80 HTTP/1.1"), 400),
    ("connect", b"CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n", 501),
    # field lines
    ("blank before the colon", _field(b"A : b"), 400),
    ("tab before the colon", _field(b"A\t: b"), 400),
    ("blank in a name", _field(b"A b: c"), 400),
    ("blank before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("empty name", _field(b": b"), 400),
    ("no colon", _field(b"A"), 400),
    ("name not a token", _field(b"A(: b"), 400),
    ("name with UTF-8", _field(b"\xc3\xa9: b"), 400),
    ("obs-fold", _field(b"A: b\r\n c"), 400),
    ("obs-fold with a tab", _field(b"A: b\r\n\tc"), 400),
    ("NUL in a value", _field(b"A: b\x00c"), 400),
    ("control byte in a value", _field(b"A: b\x0bc"), 400),
    ("DEL in a value", _field(b"A: b\x7fc"), 400),
    ("bare CR in a value", _field(b"A: b\rC: d"), 400),
    ("bare LF in a value", _field(b"A: b\nC: d"), 400),
    ("LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    # Host
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("no Host with an absolute target", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", _field(b"Host: a"), 400),
    ("two different Hosts", _field(b"host: b"), 400),
    ("Host with a blank", _host(b"a b"), 400),
    ("Host with a path", _host(b"a/b"), 400),
    ("Host with a user", _host(b"a@b"), 400),
    ("Host list", _host(b"a, b"), 400),
    ("Host with a bad port", _host(b"a:b"), 400),
    ("Host with port 65536", _host(b"a:65536"), 400),
    ("Host with an open bracket", _host(b"[::1"), 400),
    # framing
    ("CL and TE", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE and CL", b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("two equal CL", _length(b"5\r\nContent-Length: 5"), 400),
    ("two different CL", _length(b"5\r\nContent-Length: 6"), 400),
    ("CL list", _length(b"5, 5"), 400),
    ("CL empty", _length(b""), 400),
    ("CL with a plus", _length(b"+5"), 400),
    ("CL negative", _length(b"-5"), 400),
    ("CL in hex", _length(b"0x5"), 400),
    ("CL with a blank", _length(b"5 5"), 400),
    ("CL over 64 bits", _length(b"18446744073709551616"), 400),
    ("CL over the limit", _length(b"99999999999"), 413),
    ("CL of 2^64-1", _length(b"18446744073709551615"), 413),
    ("TE gzip, chunked", _coding(b"gzip, chunked"), 501),
    ("TE gzip", _coding(b"gzip"), 400),
    ("TE identity", _coding(b"identity"), 400),
    ("TE chunked, gzip", _coding(b"chunked, gzip"), 400),
    ("TE chunked twice", _coding(b"chunked, chunked"), 400),
    ("TE chunked in two fields", _coding(b"chunked\r\nTransfer-Encoding: chunked"), 400),
    ("TE with a parameter", _coding(b"chunked;a=b"), 400),
    ("TE empty", _coding(b""), 400),
    ("TE xchunked", _coding(b"xchunked"), 400),
    ("TE with a vertical tab", _coding(b"\x0bchunked"), 400),
    ("TE in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("unknown expectation", b"POST / HTTP/1.1\r\n" + HOST + b"Expect: tea\r\nContent-Length: 5\r\n\r\nhello", 417),
    # chunks
    ("chunk size empty", CHUNKED + b"\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk size not hex", CHUNKED + b"x\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk size with 0x", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk size negative", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk size with blanks", CHUNKED + b" 5 \r\nhello\r\n0\r\n\r\n", 400),
    ("chunk size over 64 bits", CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk size of 2^64-1", CHUNKED + b"ffffffffffffffff\r\nhello\r\n", 413),
    ("chunk size over the limit", CHUNKED + b"ffffffff\r\nhello\r\n", 413),
    ("chunk size ended by LF", CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    ("chunk data too long", CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", 400),
    ("chunk data ended by LF", CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400),
    ("chunk extension without name", CHUNKED + b"5;\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk extension with an open quote", CHUNKED + b'5;a="b\r\nhello\r\n0\r\n\r\n', 400),
    ("chunk extension endless", CHUNKED + b"5;" + b"a" * 20000, 431),
    ("trailer Content-Length", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    ("trailer Transfer-Encoding", CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("trailer folded", CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400),
    ("trailer endless", CHUNKED + b"0\r\nA: " + b"a" * 20000, 431),
    # limits
    ("target too long", _line(b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414),
    ("endless target", b"GET /" + b"a" * 20000, 414),
    ("head too long", _field(b"A: " + b"b" * 20000), 431),
    ("endless field name", b"GET / HTTP/1.1\r\n" + b"a" * 20000, 431),
    ("endless empty lines", b"\r\n" * 10000, 431),
    ("too many fields", _field(b"\r\n".join(b"A%d: b" % i for i in range(200))), 431),
]

VALID = [
    ("get", _line(b"GET / HTTP/1.1"), [200], True),
    ("http/1.0", b"GET / HTTP/1.0\r\n\r\n", [200], False),
    ("http/1.0 keep-alive", b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", [200], True),
    ("http/1.2", _line(b"GET / HTTP/1.2"), [200], True),
    ("close", _field(b"Connection: close"), [200], False),
    ("close in a list", _field(b"Connection: x, CLOSE"), [200], False),
    ("unknown method", _line(b"BREW /pot HTTP/1.1"), [200], True),
    ("empty lines first", b"\r\n\r\n" + _line(b"GET / HTTP/1.1"), [200], True),
    ("absolute target", _line(b"GET http://host:80/a?b HTTP/1.1"), [200], True),
    ("absolute target, IPv6", _line(b"GET http://[::1]:80 HTTP/1.1"), [200], True),
    ("asterisk", _line(b"OPTIONS * HTTP/1.1"), [200], True),
    ("browser's query", _line(b"GET /?a[0]={b|c}^`\\ HTTP/1.1"), [200], True),
    ("empty Host", _host(b""), [200], True),
    ("IPv6 Host", _host(b"[::1]:8080"), [200], True),
    ("empty value", _field(b"A:"), [200], True),
    ("blanks around a value", _field(b"A: \t b \t "), [200], True),
    ("Latin-1 in a value", _field(b"A: \xe4\xff"), [200], True),
    ("127 fields", b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"A%d: b\r\n" % i for i in range(127)) + b"\r\n", [200], True),
    ("target of 8 KiB", _line(b"GET /" + b"a" * 8191 + b" HTTP/1.1"), [200], True),
    ("head of 15 KiB", _field(b"A: " + b"b" * 15000), [200], True),
    ("Content-Length", _length(b"5"), [200], True),
    ("Content-Length 0", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", [200], True),
    ("Content-Length with zeros", _length(b"00005"), [200], True),
    ("chunked", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", [200], True),
    ("chunked in upper case", _coding(b"Chunked"), [200], True),
    ("chunks in upper-case hex", CHUNKED + b"A\r\n0123456789\r\n00\r\n\r\n", [200], True),
    ("chunk extensions", CHUNKED + b'5;a;b=c ; d="e\\"f"\r\nhello\r\n0;g\r\n\r\n', [200], True),
    ("trailers", CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Two:\r\n\r\n", [200], True),
    ("pipelined", _line(b"GET /1 HTTP/1.1") * 3, [200, 200, 200], True),
    ("pipelined bodies", _length(b"5") + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + _line(b"GET / HTTP/1.1"), [200] * 3, True),
    ("pipelined, closed in the middle", _line(b"GET / HTTP/1.1") + _field(b"Connection: close") + _line(b"GET / HTTP/1.1"),
     [200, 200], False),
    ("pipelined, malformed at the end", _line(b"GET / HTTP/1.1") + b"GET /\r\n", [200, 400], False),
]
