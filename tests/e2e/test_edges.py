"""Where the serving path meets clients that stall, leave, mumble or ask too much at once.

Each test holds one promise about whose bytes go where, what may be looked at when, and which clock ends what.
"""
import contextlib
import errno
import os
import select
import socket
import struct
import time

import pytest

from client import ConnectionEnded, build_request, get
from harness import BATON, wait_until, worker_ini

PRELUDE = r"""
#include <baton.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void note_str(const char *word, baton_str value)
{
    FILE *file = fopen(getenv("EVENTS"), "a");
    fprintf(file, "%s ", word);
    fwrite(value.data, 1, value.len, file);
    fprintf(file, "\n");
    fclose(file);
}
__attribute__((unused)) static void note(const char *word, int number)
{
    char text[32];
    note_str(word, (baton_str){text, (size_t) snprintf(text, sizeof(text), "%d", number)});
}
__attribute__((unused)) static bool is(baton_str have, const char *text)
{
    return have.len >= strlen(text) && memcmp(have.data, text, strlen(text)) == 0;
}
__attribute__((unused)) static bool asks(const baton_request *req, const char *path)
{
    return is(baton_request_path(req), path);
}
"""

# Answers now, by a timer, or when another request says so.
HTTP = r"""
#define BLOCK (8 << 20)
static char block[3 * BLOCK];
static size_t block_size = BLOCK;
static baton_conn *held[8];
static int held_count;

static void later(void *arg)
{
    baton_reply(arg, 200, "text/plain", "later");
    baton_conn_unref(arg);
}
static void later_block(void *arg)
{
    baton_reply_bytes(arg, 200, NULL, block, block_size);
    baton_conn_unref(arg);
}
static void release(void)
{
    while (held_count > 0) {
        baton_reply(held[--held_count], 200, "text/plain", "released");
        baton_conn_unref(held[held_count]);
    }
}
static void destroy(void)
{
    while (held_count > 0) {
        baton_destroy(held[--held_count]);
        baton_conn_unref(held[held_count]);
    }
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    block_size = asks(req, "/block/3") || asks(req, "/later-block/3") ? sizeof(block) : BLOCK;
    if (asks(req, "/later-block")) {
        baton_timer_once(50, later_block, baton_conn_ref(conn));
        return;
    }
    if (asks(req, "/later")) {
        baton_timer_once(50, later, baton_conn_ref(conn));
        return;
    }
    if (asks(req, "/hold")) {
        held[held_count++] = baton_conn_ref(conn);
        return;
    }
    if (asks(req, "/part")) {
        held[held_count++] = baton_conn_ref(conn);
        baton_reply_start(conn, 200, NULL, BATON_CHUNKED);
        baton_reply_write(conn, "part", 4);
        return;
    }
    if (asks(req, "/block")) {
        baton_reply_bytes(conn, 200, NULL, block, block_size);
        return;
    }
    if (asks(req, "/stream-block")) {
        baton_reply_start(conn, 200, NULL, BATON_CHUNKED);
        baton_reply_write(conn, block, BLOCK);
        baton_reply_end(conn);
        return;
    }
    if (asks(req, "/205")) {
        baton_reply(conn, 205, "text/plain", "text");
        return;
    }
    if (asks(req, "/release"))
        release();
    if (asks(req, "/destroy"))
        destroy();
    baton_reply(conn, 200, "text/plain", "hi");
}
static void on_error(baton_conn *conn, int error) { (void) conn; note("error", error); }
static void on_close(baton_conn *conn) { (void) conn; note("close", 0); }
BATON_MODULE(.on_request = on_request, .on_error = on_error, .on_close = on_close);
"""
BLOCK = 8 << 20

TEXT = "text://127.0.0.1:{port}"


@pytest.fixture
def edges(new_service, compiled):
    """Starts one process of that code; its note() calls are service.events()."""
    def make(source, **settings):
        service = new_service(worker_ini(**{"module": "./app.so", "count": 1, **settings}), modules=())
        service.install(compiled(PRELUDE + source), "app.so")
        events = service.folder / "events"
        service.env["EVENTS"] = str(events)
        service.events = lambda: events.read_text().splitlines() if events.exists() else []
        return service.start()

    return make


def ping(client, word=b"ping"):
    """A line that a text service sends back; nothing else may come before it."""
    client.send(word + b"\n")
    assert client._take(len(word) + 1) == word + b"\n"


def send_in_two(client, other, data, at):
    """Two reads at the server: the answer to another client proves that the first part was read."""
    client.send(data[:at])
    if b" HTTP/1.1" in data:
        assert other.request("/").status == 200
    else:
        ping(other)
    client.send(data[at:])


def counter(service, name):
    return service.processes()[0][name]


def arrived(client):
    """All that can be read without waiting is in the client's buffer now."""
    while select.select([client.socket], [], [], 0)[0]:
        client._more()
    return client.buffer


def reset(client):
    """Ends a connection with a RST."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


# ---- whose bytes ----

def test_text_sent_from_on_buffer_drain_reaches_its_own_client_and_no_other(edges, connect):
    # While "nudge" is handled the process waits until the slow client has read all: then one send empties the queue,
    # and not in an event of that client.
    service = edges(r"""
#include <unistd.h>
static char line[50000];
static baton_conn *slow;
static bool is_full;
static void on_buffer_full(baton_conn *conn) { (void) conn; is_full = true; note("full", 0); }
static void on_buffer_drain(baton_conn *conn) { baton_send(conn, "drained", 7); }
static void on_message(baton_conn *conn, baton_str message)
{
    char path[200];
    if (is(message, "fill")) {
        slow = conn;
        for (int i = 0; i < 400 && !is_full; i++)
            baton_send(conn, line, sizeof(line));
        return;
    }
    if (is(message, "nudge")) {
        snprintf(path, sizeof(path), "%s.read", getenv("EVENTS"));
        while (access(path, F_OK) != 0)
            usleep(1000);
        baton_send(slow, "nudged", 6);
    }
    baton_send(conn, message.data, message.len);
}
BATON_MODULE(.on_message = on_message, .on_buffer_full = on_buffer_full, .on_buffer_drain = on_buffer_drain);
""", listen=TEXT, max_send_buffer="3m")
    slow, other = connect(service, receive_buffer=65536), connect(service)
    slow.send(b"fill\n")
    wait_until(service.events, "the buffer is full")
    written = counter(service, "bytes_written")

    def there_is_room():
        slow.buffer += slow.socket.recv(65536)
        return counter(service, "bytes_written") > written

    wait_until(there_is_room, "the queue is shorter, and not empty")
    other.send(b"nudge\n")
    wait_until(lambda: counter(service, "requests") == 2, "the other client keeps the process busy")
    wait_until(lambda: len(arrived(slow)) == counter(service, "bytes_written"), "all that was sent is read")
    (service.folder / "events.read").touch()
    assert other._take(6) == b"nudge\n"

    def drained():
        ping(other)
        return arrived(slow).endswith(b"\0\nnudged\ndrained\n")

    wait_until(drained, "the slow client has its last line", 5)


STREAM_TO_THE_DRAIN = r"""
#include <unistd.h>
static char block[50000];
static baton_conn *slow;
static bool is_full;
static void on_buffer_full(baton_conn *conn) { (void) conn; is_full = true; note("full", 0); }
static void on_buffer_drain(baton_conn *conn)
{
    baton_reply_write(conn, "drained", 7);
    baton_reply_end(conn);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    char path[200];
    if (asks(req, "/fill")) {
        slow = conn;
        baton_reply_start(conn, 200, NULL, BATON_CHUNKED);
        for (int i = 0; i < 400 && !is_full; i++)
            baton_reply_write(conn, block, sizeof(block));
        return;
    }
    if (asks(req, "/nudge")) {
        snprintf(path, sizeof(path), "%s.read", getenv("EVENTS"));
        while (access(path, F_OK) != 0)
            usleep(1000);
        note("late write", baton_reply_write(slow, "late", 4));
    }
    baton_reply(conn, 200, NULL, "hi");
}
BATON_MODULE(.on_request = on_request, .on_buffer_full = on_buffer_full, .on_buffer_drain = on_buffer_drain);
"""


def test_a_stream_continued_from_on_buffer_drain_reaches_its_own_client_and_no_other(edges, connect):
    service = edges(STREAM_TO_THE_DRAIN)
    slow, other = connect(service, receive_buffer=65536), connect(service)
    slow.send(build_request("/fill"))
    wait_until(service.events, "the buffer is full")

    def drained():
        assert other.request("/").body == b"hi"
        return arrived(slow).endswith(b"0\r\n\r\n")

    wait_until(drained, "the stream has ended", 5)
    assert slow.read_response().body.endswith(b"\0drained")


def test_a_write_may_find_that_on_buffer_drain_has_ended_the_answer(edges, connect):
    service = edges(STREAM_TO_THE_DRAIN)
    slow, other = connect(service, receive_buffer=65536), connect(service)
    slow.send(build_request("/fill"))
    wait_until(service.events, "the buffer is full")
    other.send(build_request("/nudge"))
    wait_until(lambda: counter(service, "requests") == 2, "the other client keeps the process busy")
    wait_until(lambda: len(arrived(slow)) == counter(service, "bytes_written"), "all that was sent is read")
    (service.folder / "events.read").touch()
    assert other.read_response().body == b"hi"
    assert service.events() == ["full 0", "late write %d" % -errno.EPROTO]
    assert slow.read_response().body.endswith(b"\0drained")


@pytest.mark.parametrize("path", ["/later", "/hold"])
def test_head_that_came_in_two_reads_and_is_answered_later_has_no_body(edges, connect, path):
    service = edges(HTTP)
    client, other, third = connect(service), connect(service), connect(service)
    send_in_two(client, other, build_request(path, "HEAD"), 10)
    send_in_two(third, other, build_request("/release"), 10)  # takes the memory that the HEAD lay in
    assert third.read_response().body == b"hi"
    response = client.read_response("HEAD")
    assert (response.status, response.get("Content-Length")) == (200, "5" if path == "/later" else "8")
    assert client.request("/").body == b"hi"  # and nothing lies between the answers


@pytest.mark.parametrize("first, second", [("POST", "HEAD"), ("HEAD", "POST"), ("HEAD", "GET")])
def test_an_answer_given_later_keeps_the_framing_of_its_own_method(edges, connect, first, second):
    service = edges(HTTP)
    early, late = connect(service), connect(service)
    early.send(build_request("/hold", first))
    wait_until(lambda: counter(service, "requests") == 1, "the first request is held")
    late.send(build_request("/release", second))
    for client, method, body in ((early, first, b"released"), (late, second, b"hi")):
        response = client.read_response(method)
        assert response.get("Content-Length") == str(len(body))
        assert response.body == (b"" if method == "HEAD" else body)
        assert client.request("/").body == b"hi"  # nothing is left between the answers


def test_pipelined_requests_answered_now_and_later_keep_their_order(edges, connect):
    client = connect(edges(HTTP))
    paths = ["/", "/later", "/", "/block", "/later", "/later", "/205", "/"] * 3
    client.send(b"".join(build_request(path) for path in paths))
    sizes = {"/": 2, "/later": 5, "/block": BLOCK, "/205": 0}
    assert [len(client.read_response().body) for _ in paths] == [sizes[path] for path in paths]


# ---- what may be looked at ----

@pytest.mark.parametrize("path", ["/reply", "/destroy"])
def test_a_request_may_be_looked_at_after_its_connection_was_ended(edges, connect, path):
    service = edges(r"""
static void on_request(baton_conn *conn, const baton_request *req)
{
    if (asks(req, "/destroy"))
        baton_destroy(conn);
    else
        baton_reply(conn, 200, NULL, "hi");
    if (baton_request_path(req).len == 1)
        return;
    note_str("method", baton_request_method(req));
    note_str("path", baton_request_path(req));
    note_str("mark", baton_request_header(req, "x-mark"));
    note_str("body", baton_request_body(req));
}
BATON_MODULE(.on_request = on_request);
""")
    client, other = connect(service), connect(service)
    data = build_request(path, "POST", headers={"Connection": "close", "X-Mark": "m" * 300}, body=b"b" * 3000)
    send_in_two(client, other, data, 30)
    wait_until(lambda: len(service.events()) == 4, "the request was looked at")
    assert service.events() == ["method POST", "path " + path, "mark " + "m" * 300, "body " + "b" * 3000]
    if path == "/reply":
        assert client.read_response().body == b"hi"
    with contextlib.suppress(ConnectionError):
        client.expect_close()


@pytest.mark.parametrize("word", [b"close", b"destroy"])
def test_a_message_may_be_looked_at_after_its_connection_was_ended(edges, connect, word):
    service = edges(r"""
static void on_message(baton_conn *conn, baton_str message)
{
    if (is(message, "close"))
        baton_close(conn);
    else if (is(message, "destroy"))
        baton_destroy(conn);
    else
        baton_send(conn, message.data, message.len);
    note_str("message", message);
}
BATON_MODULE(.on_message = on_message);
""", listen=TEXT)
    client, other = connect(service), connect(service)
    line = word + b" " + b"m" * 3000
    send_in_two(client, other, line + b"\nnever looked at\n", 30)
    with contextlib.suppress(ConnectionError):
        client.expect_close()
    ping(other)
    assert service.events() == ["message ping", "message " + line.decode(), "message ping"]


@pytest.mark.parametrize("command", ["reload", "stop"])
def test_a_repeating_timer_may_be_cancelled_to_the_very_end(edges, connect, command):
    service = edges(r"""
static baton_timer *pulse;
static void beat(void *arg) { (void) arg; }
static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    pulse = baton_timer_every(5, beat, NULL);
    return pulse == NULL;
}
static void on_worker_stop(baton_worker *worker)
{
    (void) worker;
    baton_timer_cancel(pulse);
    note("stop", 0);
}
static void on_connect(baton_conn *conn) { baton_conn_set_user(conn, baton_timer_every(5, beat, NULL)); }
static void on_close(baton_conn *conn)
{
    baton_timer_cancel(baton_conn_user(conn));
    note("close", 0);
}
static void on_message(baton_conn *conn, baton_str message) { baton_send(conn, message.data, message.len); }
BATON_MODULE(.on_worker_start = on_worker_start, .on_worker_stop = on_worker_stop, .on_connect = on_connect,
             .on_close = on_close, .on_message = on_message);
""", listen=TEXT, drain_timeout="100ms")
    clients = [connect(service) for _ in range(3)]
    for client in clients:
        ping(client)
    old = service.pids()[0]
    service.must(command)
    for client in clients:
        client.expect_close()
        client.close()
    wait_until(lambda: "stop 0" in service.events(), "the process has stopped")
    assert service.events() == ["close 0"] * 3 + ["stop 0"]
    wait_until(lambda: not os.path.exists("/proc/%d" % old), "the process is gone")
    assert "signal" not in service.log


# ---- how much at once ----

BURST = r"""
static char line[100000];
static int accepted, refused, errors;
static void burst(baton_conn *conn, int count)
{
    while (count-- > 0) {
        int result = baton_send(conn, line, sizeof(line));
        accepted += result >= 0;
        refused += result == -ENOBUFS;
    }
    note("accepted", accepted);
    note("refused", refused);
    note("errors", errors);
}
static void burst_later(void *arg)
{
    burst(arg, 20);
    baton_conn_unref(arg);
}
static void on_message(baton_conn *conn, baton_str message)
{
    if (is(message, "now"))
        burst(conn, 300);
    else
        baton_timer_once(1, burst_later, baton_conn_ref(conn));
}
static void on_error(baton_conn *conn, int error) { (void) conn; errors += error == -ENOBUFS; }
BATON_MODULE(.on_message = on_message, .on_error = on_error);
"""


def test_messages_beyond_the_send_buffer_are_dropped_inside_one_event_too(edges, connect):
    service = edges(BURST, listen=TEXT)
    client = connect(service, receive_buffer=65536)
    client.send(b"now\n")
    wait_until(lambda: len(service.events()) == 3, "all was sent")
    seen = {word: int(number) for word, number in (line.split() for line in service.events())}
    assert seen["accepted"] + seen["refused"] == 300
    assert seen["accepted"] < 150, "30 MB for a client that does not read"
    assert seen["errors"] == seen["refused"] == counter(service, "dropped")
    assert len(client._take(seen["accepted"] * 100001)) == seen["accepted"] * 100001  # these are whole
    assert client.is_quiet()


def test_messages_sent_from_a_timer_to_a_client_that_reads_all_arrive(edges, connect):
    service = edges(BURST, listen=TEXT)
    client = connect(service)
    client.send(b"later\n")
    assert client._take(20 * 100001) == (b"\0" * 100000 + b"\n") * 20
    wait_until(lambda: len(service.events()) == 3, "the burst has been counted")
    assert service.events() == ["accepted 20", "refused 0", "errors 0"]


@pytest.mark.parametrize("where", ["timer", "callback"])
def test_a_small_send_buffer_does_not_cut_the_stream_of_a_client_that_reads(edges, connect, where):
    client = connect(edges(r"""
static void stream(void *arg)
{
    char block[1024];
    memset(block, 'b', sizeof(block));
    for (int i = 0; i < 40; i++)
        baton_reply_write(arg, block, sizeof(block));
    baton_reply_end(arg);
    baton_conn_unref(arg);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_reply_start(conn, 200, NULL, BATON_CHUNKED);
    if (asks(req, "/timer"))
        baton_timer_once(1, stream, baton_conn_ref(conn));
    else
        stream(baton_conn_ref(conn));
}
BATON_MODULE(.on_request = on_request);
""", max_send_buffer="4k"))
    for _ in range(5):
        assert client.request("/" + where).body == b"b" * 40960


@pytest.mark.parametrize("limit", ["4k", "40k", "1m"])
@pytest.mark.parametrize("where", ["callback", "timer"])
def test_who_stops_at_on_buffer_full_loses_no_message(edges, connect, where, limit):
    service = edges(r"""
static char block[1000];
static bool is_full;
static void on_buffer_full(baton_conn *conn) { (void) conn; is_full = true; note("full", 0); }
static void on_error(baton_conn *conn, int error) { (void) conn; note("error", error); }
static void fill(void *arg)
{
    int sent = 0;
    while (sent < 20000 && !is_full)
        sent += baton_send(arg, block, sizeof(block)) >= 0;
    note("sent", sent);
    baton_conn_unref(arg);
}
static void on_message(baton_conn *conn, baton_str message)
{
    baton_conn_ref(conn);
    if (is(message, "timer"))
        baton_timer_once(1, fill, conn);
    else
        fill(conn);
}
BATON_MODULE(.on_message = on_message, .on_error = on_error, .on_buffer_full = on_buffer_full);
""", listen=TEXT, max_send_buffer=limit)
    client = connect(service, receive_buffer=65536)
    client.send(where.encode() + b"\n")
    wait_until(lambda: any("sent" in line for line in service.events()), "the buffer is full")
    assert [line.split()[0] for line in service.events()] == ["full", "sent"]


@pytest.mark.parametrize("limit", ["4k", "40k", "1m"])
@pytest.mark.parametrize("where", ["callback", "timer"])
def test_who_stops_at_on_buffer_full_ends_the_stream_well(edges, connect, where, limit):
    service = edges(r"""
static char block[1000];
static bool is_full;
static int left = 10000;
static void pump(baton_conn *conn)
{
    for (; left > 0 && !is_full; left--)
        baton_reply_write(conn, block, sizeof(block));
    if (left == 0)
        baton_reply_end(conn);
}
static void on_buffer_full(baton_conn *conn) { (void) conn; is_full = true; note("full", 0); }
static void on_buffer_drain(baton_conn *conn)
{
    is_full = false;
    pump(conn);
}
static void start(void *arg)
{
    pump(arg);
    baton_conn_unref(arg);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_reply_start(conn, 200, NULL, 10000000);
    baton_conn_ref(conn);
    if (asks(req, "/timer"))
        baton_timer_once(1, start, conn);
    else
        start(conn);
}
BATON_MODULE(.on_request = on_request, .on_buffer_full = on_buffer_full, .on_buffer_drain = on_buffer_drain);
""", max_send_buffer=limit)
    client = connect(service, receive_buffer=65536)
    client.send(build_request("/" + where))
    wait_until(service.events, "the buffer is full")
    assert len(client.read_response().body) == 10000000


# ---- a client that has shut its sending side ----

@pytest.mark.parametrize("paths", [
    ["/"] * 50,
    ["/block"] * 3 + ["/"],
    ["/later"] + ["/block"] * 3 + ["/later", "/"],
    ["/later-block", "/", "/later"],
], ids=["small", "large", "behind-later", "behind-later-large"])
def test_all_requests_of_a_client_that_has_shut_its_sending_side_are_answered(edges, connect, paths):
    service = edges(HTTP)
    client = connect(service, receive_buffer=65536)
    client.send(b"".join(build_request(path) for path in paths))
    client.socket.shutdown(socket.SHUT_WR)
    sizes = {"/": 2, "/later": 5, "/block": BLOCK, "/later-block": BLOCK}
    assert [len(client.read_response().body) for _ in paths] == [sizes[path] for path in paths]
    client.expect_close()


# ---- clocks ----

def test_header_timeout_holds_for_a_head_begun_behind_a_request_that_is_answered_later(edges, connect):
    client = connect(edges(HTTP, header_timeout="200ms"), timeout=5)
    client.send(build_request("/later") + b"GET / HTTP/1.1\r\nHos")
    assert client.read_response().body == b"later"
    assert client.read_response().status == 408
    client.expect_close()


def test_header_timeout_holds_while_an_earlier_answer_is_unsent(edges, connect):
    service = edges(HTTP, header_timeout="200ms")
    client = connect(service, receive_buffer=65536)
    client.send(build_request("/later-block"))
    head = client.read_head()
    client.send(b"GET / HTTP/1.1\r\nHos")
    wait_until(lambda: counter(service, "timeouts") == 1, "the head is given up", 5)
    assert len(client._take(int(head.get("Content-Length")))) == BLOCK
    assert client.read_response().status == 408
    client.expect_close()


def test_a_client_that_reads_nothing_is_given_up_though_the_application_keeps_writing(edges, connect):
    service = edges(r"""
static char line[50000];
static void tick(void *arg) { baton_send(arg, "tick", 4); }
static void on_message(baton_conn *conn, baton_str message)
{
    (void) message;
    for (int queued = 0; queued < 10;)
        queued += baton_send(conn, line, sizeof(line)) == BATON_QUEUED;
    baton_conn_set_user(conn, baton_timer_every(20, tick, conn));
}
static void on_error(baton_conn *conn, int error) { (void) conn; note("error", error); }
static void on_close(baton_conn *conn)
{
    baton_timer_cancel(baton_conn_user(conn));
    note("close", 0);
}
BATON_MODULE(.on_message = on_message, .on_error = on_error, .on_close = on_close);
""", listen=TEXT, idle_timeout="300ms")
    client = connect(service, receive_buffer=65536)
    client.send(b"go\n")
    wait_until(lambda: len(service.events()) == 2, "the client is given up", 5)
    assert service.events() == ["error %d" % -errno.ETIMEDOUT, "close 0"]


@pytest.mark.parametrize("settings", [{"idle_timeout": "400ms"}, {"idle_timeout": "0", "linger_timeout": "400ms"}],
                         ids=["idle_timeout", "linger_timeout"])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("path", ["/block", "/later-block"])
def test_a_slow_but_steady_reader_is_not_cut(edges, connect, path, connection, settings):
    service = edges(HTTP, **settings)
    client = connect(service, receive_buffer=131072)
    client.send(build_request(path + "/3", headers={"Connection": connection}))
    length = int(client.read_head().get("Content-Length"))
    received = len(client.buffer)
    end = time.monotonic() + 1.0  # the pace is the subject: longer than the timeout, and bytes left to be sent then
    while time.monotonic() < end:
        received += len(client.socket.recv(131072))
        select.select([], [], [], 0.01)
    assert counter(service, "bytes_written") < length, "all was in the kernel: nothing is shown"
    while received < length:
        part = client.socket.recv(262144)
        assert part, "cut after %d of %d bytes" % (received, length)
        received += len(part)
    assert received == length


@pytest.mark.parametrize("pieces", [[b"\r\n"], [b"", b"\r\n"]], ids=["with-the-body", "on-its-own"])
def test_an_empty_line_after_a_body_is_no_request(edges, connect, pieces):
    service = edges(HTTP, header_timeout="100ms", idle_timeout="300ms")
    client = connect(service)
    client.send(build_request("/", "POST", body=b"body") + pieces[0])
    assert client.read_response().body == b"hi"
    for piece in pieces[1:]:
        client.send(piece)
    client.expect_close()
    assert service.events() in ([], ["close 0"])  # and on_error has heard nothing


# ---- ends ----

@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_destroyed_answer_is_not_taken_for_complete(edges, connect, version):
    service = edges(HTTP)
    client, other = connect(service), connect(service)
    client.send(build_request("/part", version=version))
    response = client.read_head()
    while b"part" not in client.buffer:
        client._more()
    other.request("/destroy")
    if version == "1.0":
        assert not response.all("Transfer-Encoding")
        with pytest.raises(ConnectionError):  # a clean end would be the body's
            client.read_to_end()
    else:
        with pytest.raises(ConnectionEnded):
            client._chunked()


def test_an_answer_ended_by_the_close_is_not_taken_for_complete_when_its_reader_is_given_up(edges, connect):
    service = edges(HTTP, idle_timeout="300ms")
    client = connect(service, receive_buffer=65536)
    client.send(build_request("/stream-block", version="1.0"))
    wait_until(lambda: "close 0" in service.events(), "the client is given up", 5)
    with pytest.raises(ConnectionError):
        client.read_to_end()


def test_205_has_no_content(edges, connect):
    client = connect(edges(HTTP))
    response = client.request("/205")
    assert (response.status, response.body) == (205, b"")
    assert client.request("/").body == b"hi"


@pytest.mark.parametrize("path", ["/block", "/hold", "/later", "/part"])
def test_a_reset_in_mid_answer_harms_nobody(edges, connect, path):
    service = edges(HTTP)
    other = connect(service)
    leavers = [connect(service) for _ in range(5)]
    for client in leavers:
        client.send(build_request(path) + build_request("/"))
    wait_until(lambda: counter(service, "requests") >= 5, "the requests have come")
    for client in leavers:
        reset(client)
    wait_until(lambda: service.events().count("close 0") == 5, "the connections have ended")
    assert other.request("/release").body == b"hi"
    assert other.request("/later").body == b"later"
    assert counter(service, "connections") == 1


def test_clients_wait_while_no_descriptor_is_free_and_are_served_later(new_service, compiled, connect):
    service = new_service(worker_ini(count=1, module="./app.so"), modules=())
    service.install(compiled(PRELUDE + HTTP), "app.so")
    service.env["EVENTS"] = str(service.folder / "events")
    service.program = ["prlimit", "--nofile=48:48", str(BATON), "-c", str(service.folder / "baton.ini")]
    service.start()
    clients = [connect(service) for _ in range(60)]
    wait_until(lambda: "accept-paused" in service.log, "accepting is paused")
    accepted = counter(service, "accepted")
    assert 0 < accepted < 60
    end = time.monotonic() + 0.7  # several attempts to accept; those who are in do not feel them
    while time.monotonic() < end:
        assert clients[0].request("/").body == b"hi"
    assert service.log.count("accept-paused") == 1
    for client in clients[:accepted]:
        client.close()
    for client in clients[accepted:]:
        assert client.request("/").body == b"hi"
    assert get(service.port).body == b"hi"
