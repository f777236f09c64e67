"""storm reports every class of trouble that a client can notice, and none where there is none.

Each test points it at a small server that misbehaves in one way. Knows nothing of baton.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

BUILD = pathlib.Path(os.environ.get("BATON_BUILD", pathlib.Path(__file__).parent / "../../build")).resolve()
STORM = BUILD / "bench" / "storm"
CLOSER = BUILD / "bench" / "closer"
DEADLINE = 30

TROUBLE = ("lost", "refused", "reset", "closed_idle", "told_to_close", "bad")


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


def then(*steps):
    """A handler: after one whole request each step is bytes to send or a method of the peer to call."""

    def handler(peer, _number):
        peer.request()
        for step in steps:
            peer.send(step) if isinstance(step, bytes) else step(peer)

    return handler


# ---- nothing is wrong ----


def chunked(*pieces, last=b"0\r\n\r\n"):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + last


@pytest.mark.parametrize(
    "text",
    [
        answer(b"hi"),
        answer(b""),
        answer(b"hi", b"connection: keep-alive", b"X-Empty:", b"X-Tab:\tvalue \t"),
        b"HTTP/1.1 200 \r\nContent-Length:2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hi"),
        chunked(b"h", b"i" * 1000),
        chunked(),
        chunked(b"hi", last=b"0;name=value\r\nX-Trailer: yes\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0A;x=\"y\"\r\n0123456789\r\n00\r\n\r\n",
    ],
)
@pytest.mark.parametrize("is_dribbled", [False, True])
def test_right_answers_are_right_in_one_piece_and_byte_by_byte(text, is_dribbled):
    def handler(peer, _number):
        while peer.request():
            for piece in [text[i : i + 1] for i in range(len(text))] if is_dribbled else [text]:
                peer.send(piece)

    with serve(handler) as where:
        report = one(*where, requests=3)
    assert troubles(report) == {} and report["requests"] == 3 and report["kept"] == 1


def test_head_and_204_have_no_body():
    def handler(peer, _number):
        while peer.request():
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    with serve(handler) as where:
        assert troubles(one("--expect-status", 204, *where)) == {}
    with serve(*[lambda peer, _: [peer.send(answer()[:-2]) for _ in iter(peer.request, None)]]) as where:
        assert troubles(one("--method", "HEAD", *where)) == {}


def test_a_clean_server_is_clean_under_everything_at_once():
    with serve() as where:
        report = storm("--connections", 8, "--idle", 5, "--one-shot", 4, "--requests", 400, "--body", 3000, "--echo",
                       "--pipeline", 3, "--split", 1, "--think", 1, *where)
    assert troubles(report) == {}
    assert report["requests"] == 400 + 2 * 5
    assert (report["kept"], report["connections"], report["idle_kept"]) == (13, 13, 5)
    assert report["one_shots"] > 0 and report["failures"] == []
    assert 0 < report["p50_ms"] <= report["p90_ms"] <= report["p99_ms"] <= report["p999_ms"] <= report["max_ms"]


def test_a_unix_socket_is_as_good():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, serve(path=folder + "/s") as where:
        report = storm("--connections", 4, "--requests", 40, "--one-shot", 2, *where)
    assert troubles(report) == {} and report["requests"] == 40 and report["kept"] == 4


def test_bodies_of_64_kib_are_compared_whole():
    with serve() as where:
        report = storm("--connections", 4, "--requests", 40, "--body", 65536, "--echo", *where)
    assert troubles(report) == {} and report["requests"] == 40


# ---- lost ----


@pytest.mark.parametrize(
    "half_answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        answer(b"0123456789")[:-1],
        chunked(b"hi")[:-1],
        chunked(b"hi", last=b""),
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_an_answer_cut_by_the_end_is_lost(half_answer):
    with serve(then(half_answer)) as where:
        report = one(*where)
    assert troubles(report) == {"lost": 1}
    assert report["requests"] == 1 and report["kept"] == 0


def test_a_request_is_lost_once_its_first_byte_was_sent():
    def after_one_byte(peer, _number):
        peer.sock.recv(1)

    def after_first_half(peer, _number):
        peer.receive()

    with serve(after_one_byte) as where:  # unread bytes make the kernel send RST
        assert troubles(one(*where)) == {"lost": 1, "reset": 1}
    with serve(after_first_half) as where:
        report = one("--split", 500, *where)
    assert report["lost"] == 1 and report["requests"] == 1


def test_a_reset_instead_of_an_answer_is_lost_and_reset():
    with serve(then(Peer.reset)) as where:
        assert troubles(one(*where)) == {"lost": 1, "reset": 1}


def test_no_answer_in_time_is_lost():
    with serve(then(Peer.wait_for_end)) as where:
        assert troubles(one("--timeout", 100, *where)) == {"lost": 1}


def test_no_answer_before_the_end_is_lost():
    with serve(then(Peer.wait_for_end)) as where:
        assert troubles(storm("--connections", 1, "--duration", 0.1, "--grace", 100, *where)) == {"lost": 1}


def flipped(body):
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("spoil", [flipped, lambda body: body[:-1], lambda body: body + b"x", lambda body: b""])
@pytest.mark.parametrize("size", [1, 26, 27, 70000])
def test_a_wrong_body_is_lost_though_the_connection_lives(spoil, size):
    def handler(peer, _number):
        _, body = peer.request()
        peer.send(answer(spoil(body)))
        clean(peer)

    with serve(handler) as where:
        report = one("--body", size, "--echo", *where)
    assert troubles(report) == {"lost": 1} and report["requests"] == 1 and report["kept"] == 1


def test_answers_in_the_wrong_order_are_lost():
    def handler(peer, _number):
        bodies = [peer.request()[1] for _ in range(4)]
        for i in (0, 2, 1, 3):
            peer.send(answer(bodies[i]))
        clean(peer)

    with serve(handler) as where:
        report = one("--pipeline", 4, "--body", 40, "--echo", *where, requests=8)
    assert troubles(report) == {"lost": 2} and report["requests"] == 6


def test_an_answer_of_another_connection_is_lost():
    first = threading.Barrier(2, timeout=DEADLINE)
    bodies = [None, None]

    def handler(peer, number):
        bodies[number] = peer.request()[1]
        first.wait()
        peer.send(answer(bodies[1 - number]))
        clean(peer)

    with serve(handler, handler) as where:
        report = storm("--connections", 2, "--requests", 4, "--body", 40, "--echo", *where)
    assert troubles(report) == {"lost": 2} and report["requests"] == 2


def test_pipelined_requests_without_an_answer_are_all_lost():
    def handler(peer, _number):
        for _ in range(4):
            peer.request()
        peer.send(answer())

    with serve(handler) as where:
        assert troubles(one("--pipeline", 4, *where, requests=8)) == {"lost": 3}


# ---- closed, reset, refused, told ----


def test_an_end_between_requests_is_closed_idle_and_the_load_goes_on():
    with serve(then(answer())) as where:
        report = one("--think", 100000, *where)
    assert troubles(report) == {"closed_idle": 1}
    assert report["requests"] == 2 and report["kept"] == 0


def test_a_reset_between_requests_is_only_reset():
    with serve(then(answer(), Peer.reset)) as where:
        # The reset may overtake the answer in the receive queue's accounting, never in its order.
        report = one("--think", 100000, *where)
    assert troubles(report) == {"reset": 1} and report["requests"] == 2 and report["kept"] == 0


def test_idle_connections_that_were_closed_did_not_survive():
    with serve(then(answer()), clean, then(answer())) as where:
        report = storm("--connections", 0, "--idle", 4, "--duration", 0.3, *where)
    assert troubles(report) == {"closed_idle": 2}
    assert (report["idle_kept"], report["idle"], report["requests"]) == (2, 4, 4 + 2)


def test_a_port_that_nobody_listens_on_is_refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        report = storm("--connections", 2, "--one-shot", 2, "--duration", 0.1, "--port", sock.getsockname()[1])
    assert set(troubles(report)) == {"refused"}
    assert report["refused"] >= 4 and report["requests"] == 0 and report["kept"] == 0


def test_a_unix_socket_that_is_not_there_is_refused():
    report = storm("--connections", 1, "--duration", 0.1, "--unix", "/tmp/no-such-socket")
    assert set(troubles(report)) == {"refused"}


@pytest.mark.parametrize(
    "text",
    [
        answer(b"hi", b"Connection: close"),
        answer(b"hi", b"Connection: keep-alive, Close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_ends_a_kept_connection_is_told_to_close(text):
    with serve(then(text)) as where:
        report = one(*where)
    assert troubles(report) == {"told_to_close": 1}
    assert report["requests"] == 2 and report["kept"] == 0


def test_requests_behind_an_answer_that_closes_are_lost():
    with serve(then(answer(b"hi", b"Connection: close"), Peer.wait_for_end)) as where:
        assert troubles(one("--pipeline", 3, *where, requests=6)) == {"told_to_close": 1, "lost": 2}


# ---- bad ----


@pytest.mark.parametrize(
    "text",
    [
        b"hello\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi",
        answer(b"hi", b" folded: yes"),
        answer(b"hi", b"X-Blank : yes"),
        answer(b"hi", b"no colon"),
        answer(b"hi", b"X-Control: \x01"),
        answer(b"hi", b"Content-Length: 2"),
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nhi",
        answer(b"hi", b"Transfer-Encoding: chunked"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhix\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        chunked(last=b"0\r\nnot a trailer\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70000,
    ],
)
def test_a_malformed_answer_is_bad(text):
    with serve(then(text, Peer.wait_for_end)) as where:
        report = one(*where)
    assert troubles(report) == {"bad": 1}
    assert report["requests"] == 1 and report["kept"] == 0


def test_a_wrong_status_is_bad_though_the_connection_lives():
    def handler(peer, _number):
        peer.request()
        peer.send(answer(b"no", status=500))
        clean(peer)

    with serve(handler) as where:
        report = one(*where)
    assert troubles(report) == {"bad": 1} and report["requests"] == 1 and report["kept"] == 1


def test_bytes_that_nobody_asked_for_are_bad():
    with serve(then(answer() + answer(), Peer.wait_for_end)) as where:
        report = one("--think", 100000, *where)
    assert report["bad"] == 1 and report["requests"] == 2 and report["kept"] == 0


def test_an_answer_to_half_a_request_is_bad():
    def handler(peer, _number):
        peer.receive()
        peer.send(answer())
        peer.wait_for_end()

    with serve(handler) as where:
        report = one("--split", 500, *where)
    assert report["bad"] == 1 and report["requests"] == 1


# ---- one-shot connections ----


def one_shot(*options):
    return storm("--connections", 0, "--one-shot", 1, "--requests", 2, *options)


def test_one_shot_connections_are_counted_when_they_have_ended():
    with serve(then(answer(b"hi", b"Connection: close")), then(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")) as where:
        report = one_shot(*where)
    assert troubles(report) == {} and report["one_shots"] == 2 and report["connections"] == 0


def test_one_shot_troubles_have_the_same_names():
    with serve(then(answer(b"hi")[:-1])) as where:
        assert troubles(one_shot(*where)) == {"lost": 1}
    with serve(then(Peer.reset)) as where:
        assert troubles(one_shot(*where)) == {"lost": 1, "reset": 1}
    with serve(then(answer() + b"x")) as where:
        assert troubles(one_shot(*where)) == {"bad": 1}
    with serve(then(answer(), Peer.wait_for_end)) as where:
        assert troubles(one_shot("--timeout", 100, *where)) == {"bad": 1}


# ---- options ----


def test_splits_reach_every_byte_offset():
    halves, lock = set(), threading.Lock()

    def handler(peer, _number):
        while first := peer.receive():
            with lock:
                halves.add(len(first))
            if peer.request() is None:
                return
            peer.send(answer())

    def length(peer, _number):
        while request := peer.request():
            halves.add(len(request[0]) + 4)
            peer.send(answer())

    with serve(length) as where:
        one(*where)
    (whole,) = halves
    halves.clear()
    with serve(*[handler] * 8) as where:
        report = storm("--connections", 8, "--requests", whole - 1, "--split", 100, *where)
    assert troubles(report) == {} and halves == set(range(1, whole))


def test_versions_are_distinct_bodies_or_header_values():
    def handler(peer, _number):
        for i in range(6):
            peer.request()
            peer.send(answer(b"v%d" % (i % 3), b"X-Generation: %d" % (i % 2)))
        clean(peer)

    with serve(handler) as where:
        report = one("--versions", *where, requests=6)
    assert report["version_names"] == {"v0": 2, "v1": 2, "v2": 2} and report["versions"] == 3
    with serve(handler) as where:
        report = one("--version-header", "x-generation", *where, requests=6)
    assert report["version_names"] == {"0": 3, "1": 3} and report["versions"] == 2


def wait_until(holds):
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.005)


def has_taken(process, number):
    """The signal was delivered, not only sent."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"ShdPnd:\s*(\w+)", status)[1], 16) & (1 << (number - 1)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_answers_under_way(number):
    asked, release = threading.Event(), threading.Event()

    def handler(peer, _number):
        peer.request()
        asked.set()
        assert release.wait(DEADLINE)
        peer.send(answer())
        assert peer.request() is None

    with serve(handler) as where:
        process = start("--connections", 1, *where)
        assert asked.wait(DEADLINE)
        process.send_signal(number)
        wait_until(lambda: has_taken(process, number))
        release.set()
        report = finish(process)
    assert troubles(report) == {} and report["requests"] == 1 and report["kept"] == 1


def test_a_second_signal_does_not_wait():
    asked = threading.Event()

    def handler(peer, _number):
        peer.request()
        asked.set()
        peer.wait_for_end()

    with serve(handler) as where:
        process = start("--connections", 1, "--timeout", 100000, "--grace", 100000, *where)
        assert asked.wait(DEADLINE)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: has_taken(process, signal.SIGINT))
        process.send_signal(signal.SIGINT)
        assert troubles(finish(process)) == {"lost": 1}


def test_ready_is_told_when_every_connection_had_an_answer():
    release = threading.Event()

    def last(peer, _number):
        assert release.wait(DEADLINE)
        clean(peer)

    with tempfile.TemporaryDirectory(dir="/tmp") as folder, serve(clean, clean, last) as where:
        path = pathlib.Path(folder, "ready")
        process = start("--connections", 3, "--ready-file", path, *where)
        assert not path.exists()
        release.set()
        wait_until(path.exists)
        process.send_signal(signal.SIGTERM)
        assert troubles(finish(process)) == {}


def test_the_last_line_is_exactly_the_promised_one():
    with serve() as where:
        done = subprocess.run([STORM, "--connections", "2", "--requests", "4", "--live", *where], capture_output=True,
                              timeout=DEADLINE, text=True, check=True)
    assert re.fullmatch(r"requests=4 lost=0 refused=0 reset=0 closed_idle=0 told_to_close=0 bad=0 kept=2/2 versions=0 "
                        r"p50=\d+\.\d\dms p99=\d+\.\d\dms\n", done.stdout)
    assert "ready\n" in done.stderr


@pytest.mark.parametrize(
    "options",
    ["", "--port 0", "--port 80x", "--port 80 --echo", "--port 80 --no-such", "--port 80 word", "--port",
     "--port 80 --connections 0", "--port 80 --requests 3", "--port 80 --echo --body 9 --versions",
     "--port 80 --duration -1", "--host no.such.host.invalid. --port 80", "--unix " + "x" * 108],
)
def test_wrong_usage_exits_2_and_says_why(options):
    done = subprocess.run([STORM, *options.split()], capture_output=True, timeout=DEADLINE, text=True)
    assert done.returncode == 2 and done.stdout == "" and "storm: " in done.stderr


# ---- a server that ends its connections on a signal, under load ----


@contextlib.contextmanager
def closer(*options):
    process = subprocess.Popen([CLOSER, *options], stdout=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().strip().removeprefix("port=")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def storm_while_closing(options, *load):
    with closer(*options) as (server, port), tempfile.TemporaryDirectory(dir="/tmp") as folder:
        ready = pathlib.Path(folder, "ready")
        process = start("--connections", 64, "--port", port, "--ready-file", ready, *load)
        wait_until(ready.exists)
        server.send_signal(signal.SIGUSR1)
        assert server.stdout.readline() == "ended\n"
        process.send_signal(signal.SIGINT)
        return finish(process)


def test_connections_closed_at_once_under_load_are_all_noticed():
    report = storm_while_closing(["--on-usr1", "fin"])
    assert report["lost"] + report["closed_idle"] == 64
    assert report["kept"] == 0


def test_connections_reset_at_once_under_load_are_all_noticed():
    report = storm_while_closing(["--on-usr1", "rst"])
    assert report["reset"] == 64 and report["kept"] == 0


def test_idle_connections_closed_at_once_are_all_noticed():
    report = storm_while_closing(["--on-usr1", "fin"], "--think", 100000)
    assert troubles(report) == {"closed_idle": 64} and report["kept"] == 0


def test_no_ending_nothing_noticed():
    with closer() as (_, port):
        report = storm("--connections", 64, "--requests", 6400, "--port", port)
    assert troubles(report) == {} and report["kept"] == 64


@pytest.mark.parametrize("ending, noticed", [("told", "told_to_close"), ("rst", "reset"), ("fin", None)])
def test_connections_ended_after_an_answer_under_load_are_all_noticed(ending, noticed):
    with closer("--answer-first", "--on-usr1", ending) as (server, port), \
            tempfile.TemporaryDirectory(dir="/tmp") as folder:
        ready = pathlib.Path(folder, "ready")
        process = start("--connections", 64, "--port", port, "--ready-file", ready, "--duration", 1)
        wait_until(ready.exists)
        server.send_signal(signal.SIGUSR1)
        report = finish(process)
    assert report["kept"] == 0
    if noticed:
        assert report[noticed] == 64
    else:
        assert report["lost"] + report["closed_idle"] + report["reset"] >= 64
