"""Small servers that do on each connection exactly what a test says, and storm pointed at them.

Knows nothing of baton.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import threading
import time

BUILD = pathlib.Path(os.environ.get("BATON_BUILD", pathlib.Path(__file__).parent / "../../build")).resolve()
STORM = BUILD / "bench" / "storm"
CLOSER = BUILD / "bench" / "closer"
FLOOR = BUILD / "bench" / "floor"
DEADLINE = 30

TROUBLE = ("lost", "refused", "reset", "closed_idle", "told_to_close", "bad")


def wait_until(holds):
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.005)


# ---- servers ----


class Peer:
    """The server's side of one connection."""

    def __init__(self, sock):
        self.sock = sock
        self.input = b""

    def receive(self):
        data = self.sock.recv(65536)
        self.input += data
        return data

    def request(self):
        """The next whole request as (head, body); None when the client has gone."""
        while b"\r\n\r\n" not in self.input:
            if not self.receive():
                return None
        head, _, self.input = self.input.partition(b"\r\n\r\n")
        length = int((re.search(rb"Content-Length: (\d+)", head) or [0, 0])[1])
        while len(self.input) < length:
            if not self.receive():
                return None
        body, self.input = self.input[:length], self.input[length:]
        return head, body

    def send(self, data):
        self.sock.sendall(data)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_end(self):
        while self.receive():
            pass


def answer(body=b"hi", *fields, status=200):
    lines = [b"HTTP/1.1 %d Words" % status, *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def clean(peer, _number=0):
    while (request := peer.request()) is not None:
        head, body = request
        peer.send(answer(body or b"hi"))
        if b"Connection: close" in head:
            return


def chunked(*pieces, last=b"0\r\n\r\n"):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + last


def then(*steps):
    """A handler: after one whole request each step is bytes to send or a method of the peer to call."""

    def handler(peer, _number):
        peer.request()
        for step in steps:
            peer.send(step) if isinstance(step, bytes) else step(peer)

    return handler


@contextlib.contextmanager
def serve(*handlers, path=None):
    """Connection n is given to handlers[n](peer, n), those past the last one to clean(). Yields storm's options."""
    listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    listener.bind(path or ("127.0.0.1", 0))
    listener.listen(1024)
    threads = []

    def run(sock, number):
        handler = handlers[number] if number < len(handlers) else clean
        with sock, contextlib.suppress(ConnectionError):
            handler(Peer(sock), number)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threads.append(threading.Thread(target=run, args=(sock, len(threads))))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield ["--unix", path] if path else ["--port", str(listener.getsockname()[1])]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(DEADLINE)
        for thread in threads:
            thread.join(DEADLINE)


# ---- storm ----


def start(*options):
    return subprocess.Popen([STORM, "--json", "--quiet", *map(str, options)], stdout=subprocess.PIPE)


def finish(process):
    try:
        output, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    report = json.loads(output)
    trouble = any(report[name] for name in TROUBLE) or report["kept"] != report["connections"]
    assert process.returncode == (1 if trouble or report["requests"] == 0 else 0)
    return report


def storm(*options):
    return finish(start(*options))


def one(*options, requests=2):
    """One connection, two requests: the misbehaving server gets the first, a clean one the second."""
    return storm("--connections", 1, "--requests", requests, *options)


def troubles(report):
    return {name: report[name] for name in TROUBLE if report[name]}
