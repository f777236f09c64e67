"""storm reports every class of trouble that a client can notice, and none where there is none.

Each test points it at a small server that misbehaves in one way. Knows nothing of baton.
"""

import pathlib
import signal
import socket
import tempfile
import threading

import pytest

from scripted_server import (DEADLINE, Peer, answer, chunked, clean, finish, one, serve, start, storm, then, troubles,
                             wait_until)

# ---- nothing is wrong ----


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
        assert troubles(one("--timeout", 1000, *where)) == {"lost": 1}


def test_no_answer_before_the_end_is_lost():
    with serve(then(Peer.wait_for_end)) as where:
        assert troubles(storm("--connections", 1, "--duration", 0.5, "--grace", 100, *where)) == {"lost": 1}


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
        report = one("--think", 100000, *where)
    assert troubles(report) == {"reset": 1} and report["requests"] == 2 and report["kept"] == 0


def test_idle_connections_that_were_closed_did_not_survive():
    closed = threading.Semaphore(0)

    def close(peer, _number):
        peer.request()
        peer.send(answer())
        peer.sock.close()
        closed.release()

    with tempfile.TemporaryDirectory(dir="/tmp") as folder, serve(close, clean, close) as where:
        ready = pathlib.Path(folder, "ready")
        process = start("--connections", 0, "--idle", 4, "--ready-file", ready, *where)
        assert closed.acquire(timeout=DEADLINE) and closed.acquire(timeout=DEADLINE)
        wait_until(ready.exists)
        process.send_signal(signal.SIGTERM)
        report = finish(process)
    assert troubles(report) == {"closed_idle": 2}
    assert (report["idle_kept"], report["idle"], report["requests"]) == (2, 4, 4 + 2)


def test_a_port_that_nobody_listens_on_is_refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        report = storm("--connections", 2, "--one-shot", 2, "--duration", 0.5, "--port", sock.getsockname()[1])
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
        assert troubles(one_shot("--timeout", 1000, *where)) == {"bad": 1}
