"""A strict HTTP/1 client on a bare socket: what it does not understand is a failure, never a guess.

Knows RFC 9112's response syntax; knows nothing of baton.
"""
import re
import socket
from dataclasses import dataclass, field

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) ([\x20-\x7e]*)\Z")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\Z")
CHUNK_LINE = re.compile(rb"([0-9a-fA-F]+)(;.*)?\Z")


class ConnectionEnded(AssertionError):
    """The server closed (or reset) the connection where an answer was due."""


@dataclass
class Response:
    status: int
    reason: str
    fields: list
    body: bytes = b""
    trailers: list = field(default_factory=list)
    ended_by_close: bool = False

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    @property
    def text(self):
        return self.body.decode()

    @property
    def pid(self):
        return int(self.get("X-Pid"))

    @property
    def generation(self):
        return int(self.get("X-Generation"))

    @property
    def closes(self):
        return "close" in [token.strip().lower() for value in self.all("Connection") for token in value.split(",")]


def build_request(path="/", method="GET", headers=None, body=None, chunks=None, version="1.1", host="test"):
    """Bytes of one request. `chunks` makes a chunked body of exactly these pieces."""
    lines = ["%s %s HTTP/%s" % (method, path, version)]
    if host is not None:
        lines.append("Host: " + host)
    lines += ["%s: %s" % pair for pair in (headers or {}).items()]
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
    elif body is not None:
        lines.append("Content-Length: %d" % len(body))
    data = ("\r\n".join(lines) + "\r\n\r\n").encode()
    if chunks is not None:
        data += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return data + (body or b"" if chunks is None else b"")


class HttpClient:
    """One connection. `address` is a port on 127.0.0.1, a (host, port) pair or the path of a Unix socket."""

    def __init__(self, address, timeout=30, receive_buffer=None):
        if isinstance(address, int):
            address = ("127.0.0.1", address)
        family = socket.AF_UNIX if isinstance(address, str) else \
            socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    # -- receiving --

    def _more(self):
        try:
            data = self.socket.recv(262144)
        except ConnectionError as error:
            raise ConnectionEnded("connection reset after %r" % self.buffer[:200]) from error
        except socket.timeout:
            raise AssertionError("no answer in time; so far %r" % self.buffer[:200]) from None
        if not data:
            raise ConnectionEnded("connection closed after %r" % self.buffer[:200])
        self.buffer += data

    def _line(self):
        while b"\r\n" not in self.buffer:
            assert b"\n" not in self.buffer, "bare LF in %r" % self.buffer[:200]
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def _take(self, count):
        parts = [self.buffer[:count]]
        left = count - len(parts[0])
        self.buffer = self.buffer[count:]
        while left:
            self._more()
            part, self.buffer = self.buffer[:left], self.buffer[left:]
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _fields(self):
        fields = []
        while True:
            line = self._line()
            if not line:
                return fields
            match = FIELD_LINE.match(line)
            assert match, "malformed field line %r" % line
            fields.append((match[1].decode(), match[2].decode("latin-1")))

    def _chunked(self):
        body = []
        while True:
            line = self._line()
            match = CHUNK_LINE.match(line)
            assert match, "malformed chunk size %r" % line
            size = int(match[1], 16)
            if size == 0:
                return b"".join(body), self._fields()
            body.append(self._take(size))
            assert self._take(2) == b"\r\n", "chunk data is not followed by CRLF"

    def read_head(self):
        line = self._line()
        match = STATUS_LINE.match(line)
        assert match, "malformed status line %r" % line
        return Response(int(match[1]), match[2].decode(), self._fields())

    def read_response(self, method="GET"):
        """One whole response. Interim (1xx) responses are responses of their own."""
        response = self.read_head()
        lengths = response.all("Content-Length")
        codings = response.all("Transfer-Encoding")
        assert not (lengths and codings), "Content-Length beside Transfer-Encoding"
        assert len(lengths) <= 1, "more than one Content-Length"
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        if codings:
            assert codings == ["chunked"], codings
            response.body, response.trailers = self._chunked()
        elif lengths:
            assert re.fullmatch(r"\d+", lengths[0]), lengths
            response.body = self._take(int(lengths[0]))
        else:
            response.body = self.read_to_end()
            response.ended_by_close = True
        return response

    def request(self, path="/", method="GET", **kwargs):
        self.send(build_request(path, method, **kwargs))
        return self.read_response(method)

    # -- the end --

    def read_to_end(self):
        data = [self.buffer]
        self.buffer = b""
        while True:
            part = self.socket.recv(262144)
            if not part:
                return b"".join(data)
            data.append(part)

    def expect_close(self):
        """The server closes now, with nothing more to say and without a reset."""
        rest = self.read_to_end()
        assert rest == b"", "unexpected bytes before the close: %r" % rest[:200]

    def is_quiet(self):
        """True while the connection is open and nothing waits to be read. Does not wait."""
        if self.buffer:
            return False
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
            return False
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        finally:
            self.socket.settimeout(30)


def get(address, path="/", **kwargs):
    """One request on a connection of its own."""
    with HttpClient(address) as client:
        return client.request(path, **kwargs)
