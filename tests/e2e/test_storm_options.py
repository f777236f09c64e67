"""storm's options and signals; and servers that end 64 busy connections at once, of which it misses none.

Knows nothing of baton.
"""

import contextlib
import pathlib
import re
import signal
import subprocess
import tempfile
import threading

import pytest

from scripted_server import (CLOSER, DEADLINE, FLOOR, STORM, answer, clean, finish, one, serve, start, storm, troubles,
                             wait_until)

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
        report = storm("--connections", 8, "--requests", whole - 1, "--split", 300, *where)
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
        process = start("--connections", 64, "--port", port, "--ready-file", ready, "--duration", 2)
        wait_until(ready.exists)
        server.send_signal(signal.SIGUSR1)
        report = finish(process)
    assert report["kept"] == 0
    if noticed:
        assert report[noticed] == 64
    else:
        assert report["lost"] + report["closed_idle"] + report["reset"] >= 64


# ---- the server that all are compared with ----


@pytest.mark.parametrize("load", [(), ("--pipeline", 16), ("--split", 1, "--pipeline", 3)])
def test_the_bare_server_answers_everything_however_it_is_sent(load):
    process = subprocess.Popen([FLOOR, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = process.stdout.readline().strip().removeprefix("port=")
        report = storm("--connections", 8, "--requests", 4800, "--versions", "--port", port, *load)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert troubles(report) == {} and report["version_names"] == {"hi": 4800}
