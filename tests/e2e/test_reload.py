"""What one client sees of a reload, case by case (the storms are in test_reload_storm.py)."""
import os
import resource
import shutil
import socket
import subprocess

import pytest

from client import HttpClient, build_request, get
from harness import BUILD, DEADLINE, SOAK, process_state, text_module_source, wait_until, worker_ini

# Start of a module whose processes are ready only when the file "gate" exists: it holds a roll in its middle.
GATE = r"""
#include <baton.h>
#include <unistd.h>
static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    while (access("FOLDER/gate", F_OK) != 0)
        usleep(2000);
    return 0;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "TEXT");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""


def gate_source(service, text):
    return GATE.replace("FOLDER", str(service.folder)).replace("TEXT", text)


def served_before(service):
    """Returns when the (only) process has handled everything that clients had sent before: events come in order."""
    assert get(service.port).status == 200


# ---- the pass ----

REQUESTS = {
    "head": build_request("/a?x=1", headers={"X-Some": "value"}),
    "length": build_request("/", "POST", body=b"0123456789" * 4),
    "chunked": build_request("/", "POST", chunks=[b"one", b"and two", b"x" * 20])[:-2] + b"X-Trailer: 1\r\n\r\n",
}
ANSWERS = {"head": b"hi", "length": b"0123456789" * 4, "chunked": b"oneand two" + b"x" * 20}


@pytest.mark.parametrize("kind", REQUESTS)
def test_request_partly_received_at_every_offset_is_answered_by_the_new_process(serve, connect, kind):
    service = serve(count=1)
    request = REQUESTS[kind]
    clients = [connect(service).send(request[:offset]) for offset in range(1, len(request))]
    served_before(service)
    service.reload()
    for offset, client in enumerate(clients, 1):
        client.send(request[offset:])
        response = client.read_response()
        assert (response.status, response.body, response.generation) == (200, ANSWERS[kind], 2), offset
        assert client.request("/").generation == 2


def test_request_passed_again_and_again_is_answered_once(serve, connect):
    service = serve(count=1)
    client = connect(service)
    request = REQUESTS["chunked"]
    step = len(request) // 5 + 1
    pieces = [request[at:at + step] for at in range(0, len(request), step)]
    for piece in pieces:
        client.send(piece)
        served_before(service)
        service.reload()
    response = client.read_response()
    # The process that got the last piece answered, before the last reload.
    assert (response.body, response.generation) == (ANSWERS["chunked"], len(pieces))
    assert client.is_quiet()


def test_expect_100_is_not_sent_twice(serve, connect):
    service = serve(count=1)
    client = connect(service)
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n")
    assert client.read_response().status == 100
    service.reload()
    client.send(b"abc")
    served_before(service)
    service.reload()
    client.send(b"def")
    response = client.read_response()
    assert (response.status, response.body, response.generation) == (200, b"abcdef", 3)


@pytest.mark.soak
def test_idle_keepalive_connections_survive_reload(serve, connect):
    count = 5000 if SOAK else 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 500)), hard))
    service = serve(count=2)
    clients = [connect(service) for _ in range(count)]
    for client in clients:
        assert client.request("/").generation == 1
    service.reload()
    for client in clients:
        assert client.request("/").generation == 2
    assert sum(process["passed_in"] for process in service.processes()) == count


def test_connection_that_has_sent_nothing_survives_reload(serve, connect):
    service = serve(count=1)
    client = connect(service)
    served_before(service)
    service.reload()
    assert client.request("/").generation == 2


def test_request_in_progress_is_finished_by_the_old_process(serve, connect):
    service = serve(count=1)
    client, old = connect(service), service.pids()[0]
    client.send(build_request("/sleep/1000"))
    served_before(service)
    service.reload()
    response = client.read_response()
    assert (response.body, response.pid, response.generation) == (b"hi", old, 1)
    response = client.request("/")
    assert (response.pid, response.generation) == (service.pids()[0], 2)
    wait_until(lambda: process_state(old) is None, "the old process has ended")


def test_stream_in_progress_is_finished_by_the_old_process(serve, connect):
    service = serve(count=1)
    client = connect(service)
    client.send(build_request("/stream/100"))
    head = client.read_head()
    service.reload()
    head.body, _ = client._chunked()
    assert (head.body, head.generation) == (b"x" * 102400, 1)
    assert client.request("/").generation == 2


def test_requests_pipelined_behind_one_in_progress_go_to_the_new_process(serve, connect):
    service = serve(count=1)
    client = connect(service)
    bodies = [b"number %d" % number for number in range(20)]
    client.send(build_request("/sleep/1000") + b"".join(build_request("/", "POST", body=body) for body in bodies))
    served_before(service)
    service.reload()
    first = client.read_response()
    rest = [client.read_response() for _ in bodies]
    assert (first.body, first.generation) == (b"hi", 1)
    assert [response.body for response in rest] == bodies
    assert {response.generation for response in rest} == {2}


def test_pipelined_rest_cut_inside_a_request_is_passed(serve, connect):
    service = serve(count=1)
    client = connect(service)
    tail = build_request("/", "POST", body=b"0123456789")
    client.send(build_request("/sleep/1000") + build_request("/", "POST", body=b"middle") + tail[:-4])
    served_before(service)
    service.reload()
    assert client.read_response().generation == 1
    assert client.read_response().body == b"middle"
    client.send(tail[-4:])
    response = client.read_response()
    assert (response.body, response.generation) == (b"0123456789", 2)


def test_unsent_response_bytes_travel_along(serve, connect):
    service = serve(count=1)
    body = os.urandom(1 << 20) * 8
    client = connect(service, receive_buffer=65536)
    client.send(build_request("/", "POST", body=body))
    served_before(service)
    assert service.processes()[0]["connections"] >= 1
    service.reload()
    response = client.read_response()
    assert response.generation == 1 and response.body == body
    assert client.request("/").generation == 2


def test_unsent_bytes_of_a_closing_connection_are_not_lost(serve, connect):
    service = serve(count=1)
    body = os.urandom(1 << 20) * 4
    client = connect(service, receive_buffer=65536)
    client.send(build_request("/", "POST", headers={"Connection": "close"}, body=body))
    served_before(service)
    service.reload()
    response = client.read_response()
    assert response.closes and response.body == body
    client.expect_close()


def test_connection_with_a_user_pointer_ends_politely_in_the_old_process(serve, connect):
    """Only the application knows that state: the next answer says that it is the last one, never a bare end."""
    service = serve(count=1, source=r"""
#include <baton.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_conn_set_user(conn, "state");
    baton_reply(conn, 200, NULL, baton_generation() == 1 ? "old" : "new");
}
BATON_MODULE(.on_request = on_request);
""")
    client = connect(service)
    assert client.request("/").text == "old"
    service.reload()
    assert client.is_quiet()
    response = client.request("/")
    assert (response.text, response.closes) == ("old", True)
    client.expect_close()
    assert get(service.port).text == "new"


def test_user_pointer_taken_away_before_the_answer_does_not_hold_the_connection(serve, connect):
    """As http-echo does for the time of an asynchronous answer."""
    service = serve(count=1)
    client = connect(service)
    client.send(build_request("/sleep/500"))
    served_before(service)
    service.reload()
    response = client.read_response()
    assert (response.generation, response.closes) == (1, False)
    assert client.request("/").generation == 2


def test_timeouts_go_on_where_they_were(serve, connect):
    """A pass does not give a slow client a new header_timeout."""
    service = serve(count=1, header_timeout="1s")
    client = connect(service)
    client.send(b"GET / HTTP/1.1\r\n")
    client.socket.settimeout(0.05)
    reloads = 0
    while True:
        try:
            client.socket.recv(1, socket.MSG_PEEK)
            break
        except TimeoutError:
            reloads += 1
            assert reloads < 100, "the pass puts the deadline off for ever"
            service.reload()
    client.socket.settimeout(DEADLINE)
    assert client.read_response().status == 408


# ---- the roll ----

def test_reload_renews_process_and_generation_of_every_slot(serve):
    service = serve(count=3)
    before = service.pids()
    service.reload()
    after = service.processes()
    assert [process["slot"] for process in after] == [0, 1, 2]
    assert not set(before) & {process["pid"] for process in after}
    assert {process["generation"] for process in after} == {2}
    wait_until(lambda: not any(process_state(pid) for pid in before), "the old processes have ended")


def test_reload_runs_the_new_code(serve, connect, compiled):
    service = serve(count=1, source=text_module_source("old code"))
    client = connect(service)
    assert client.request("/").text == "old code"
    service.install(compiled(text_module_source("new code")), "app.so")
    assert client.request("/").text == "old code"
    service.reload()
    assert client.request("/").text == "new code"


def test_module_may_be_overwritten_while_it_serves(serve, connect, compiled):
    service = serve(count=1, source=text_module_source("old code"))
    client = connect(service)
    assert client.request("/").text == "old code"
    (service.folder / "app.so").write_bytes(b"")
    assert client.request("/").text == "old code"
    service.overwrite(compiled(text_module_source("new code")), "app.so")
    assert client.request("/").text == "old code"
    service.reload()
    assert client.request("/").text == "new code"


def test_stop_first_replaces_every_slot(serve, connect):
    service = serve(count=2, strategy="stop-first")
    client, before = connect(service), service.pids()
    assert client.request("/").status == 200
    service.reload()
    assert not set(before) & set(service.pids())
    assert client.request("/").generation == 2


def test_not_reloadable_worker_is_told_but_keeps_its_process(serve, connect):
    service = serve(count=1, reloadable="no", source=r"""
#include <baton.h>
static const char *text = "untouched";
static void on_worker_reload(baton_worker *worker) { (void) worker; text = "told"; }
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, NULL, text);
}
BATON_MODULE(.on_request = on_request, .on_worker_reload = on_worker_reload);
""")
    client, before = connect(service), service.pids()
    assert client.request("/").text == "untouched"
    service.reload()
    wait_until(lambda: client.request("/").text == "told", "on_worker_reload was called")
    assert service.pids() == before


def test_reload_of_one_worker_by_name_leaves_the_others(new_service):
    service = new_service(worker_ini(count=1) + worker_ini("fixed", count=1, reloadable="no",
                                                           listen="http+unix://{folder}/fixed.sock")
                          .partition("\n\n")[2])
    service.start()
    web, fixed = service.pids("web"), service.pids("fixed")
    with HttpClient(str(service.folder / "fixed.sock")) as client:
        assert client.request("/").generation == 1
        service.reload("fixed")
        assert service.pids("web") == web
        assert service.pids("fixed") != fixed
        assert client.request("/").generation == 2


def test_reload_of_an_unknown_worker_fails_with_its_name(serve):
    service = serve(count=1)
    before = service.pids()
    result = service.command("reload", "nobody")
    assert result.returncode != 0 and "nobody" in result.stderr
    assert service.pids() == before


def test_reload_during_a_roll_is_not_dropped(serve, connect):
    service = serve(count=2, source=text_module_source("first"), ready_timeout="60s")
    client = connect(service)
    service.compile(gate_source(service, "second"), "app.so")
    commands = [subprocess.Popen([*service.program, "reload"], env=service.env, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)]
    wait_until(lambda: service.status()["state"] == "reloading" and service.processes(state="starting"),
               "the first roll waits for its process")
    service.compile(gate_source(service, "third"), "app.so")
    commands.append(subprocess.Popen([*service.program, "reload"], env=service.env, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True))
    assert client.request("/").text == "first"
    (service.folder / "gate").touch()
    for command in commands:
        output, _ = command.communicate(timeout=DEADLINE)
        assert command.returncode == 0, output
    wait_until(lambda: service.status()["state"] == "running", "the last roll has ended")
    assert client.request("/").text == "third"
    assert {get(service.port).text for _ in range(20)} == {"third"}


def test_no_wait_returns_before_the_roll_has_ended(serve):
    service = serve(count=1, source=text_module_source("first"), ready_timeout="60s")
    service.compile(gate_source(service, "second"), "app.so")
    result = service.command("reload", "--no-wait")
    assert result.returncode == 0, result.stderr
    assert get(service.port).text == "first"
    assert service.status()["state"] == "reloading"
    (service.folder / "gate").touch()
    wait_until(lambda: get(service.port).text == "second", "the new code answers")


def test_progress_names_each_slot(serve):
    service = serve(count=2)
    output = service.reload().stdout
    assert all(str(pid) in output for pid in service.pids()), output


def test_old_process_is_ended_at_its_drain_timeout(serve, connect):
    service = serve(count=1, drain_timeout="300ms")
    client, old = connect(service), service.pids()[0]
    client.send(build_request("/sleep/600000"))
    served_before(service)
    service.reload()
    wait_until(lambda: process_state(old) is None, "the old process has ended")
    response = client.read_response()
    assert response.status == 503 and response.closes
    client.expect_close()


def test_old_process_that_hangs_is_killed(serve, connect):
    service = serve(count=1, drain_timeout="300ms", master={"kill_timeout": "300ms"})
    service.crashes_expected = True
    client, old = connect(service), service.pids()[0]
    client.send(build_request("/block/60000"))
    result = service.command("reload")
    wait_until(lambda: process_state(old) is None, "the old process has ended")
    assert result.returncode == 0, result.stderr
    assert get(service.port).generation == 2


def test_mistake_in_the_file_fails_the_reload_and_changes_nothing(serve):
    service = serve(count=1)
    before = service.pids()
    service.write_ini(worker_ini(count="many"))
    result = service.command("reload")
    assert result.returncode != 0 and "count" in result.stderr
    assert service.pids() == before and get(service.port).text == "hi"


# ---- modules that fail ----

def start_with(body):
    return r"""
#include <baton.h>
#include <stdlib.h>
#include <unistd.h>
static int on_worker_start(baton_worker *worker) { (void) worker; %s }
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, NULL, "never");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
""" % body


def wrong_abi(service):
    service.compile(r"""
#include <baton.h>
BATON_API const baton_module_descriptor baton_module = {.abi = BATON_ABI + 1, .size = sizeof(baton_module_descriptor)};
""", "app.so")


def truncated(service):
    data = (service.folder / "app.so").read_bytes()
    (service.folder / "app.so").write_bytes(data[:len(data) // 2])


FAILURES = {
    "wrong ABI": (wrong_abi, "ABI"),
    "no descriptor": (lambda service: service.compile("int unused;\n", "app.so"), "baton_module"),
    "undefined symbol": (lambda service: service.compile(
        start_with("extern int missing_function(void); return missing_function();"), "app.so"), "missing_function"),
    "crash in on_worker_start": (lambda service: service.compile(start_with("abort(); return 0;"), "app.so"), "signal 6"),
    "exit in on_worker_start": (lambda service: service.compile(start_with("_exit(7); return 0;"), "app.so"), "7"),
    "refusal by on_worker_start": (lambda service: service.compile(start_with("return 42;"), "app.so"), "42"),
    "hang in on_worker_start": (lambda service: service.compile(start_with("for (;;) pause(); return 0;"), "app.so"), "ready"),
    "truncated file": (truncated, "truncated"),
    "not an ELF file": (lambda service: (service.folder / "app.so").write_text("#!/bin/sh\n"), "ELF"),
    "empty file": (lambda service: (service.folder / "app.so").write_bytes(b""), "app.so"),
    "missing file": (lambda service: (service.folder / "app.so").unlink(), "app.so"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_module_that_fails_leaves_the_old_code_serving(serve, connect, failure):
    service = serve(count=2, source=text_module_source("old code"), ready_timeout="1500ms",
                    master={"kill_timeout": "1s"})
    service.crashes_expected = True
    break_it, words = FAILURES[failure]
    client, before = connect(service), service.pids()
    assert client.request("/").text == "old code"
    shutil.copy(service.folder / "app.so", service.folder / "good.so")

    break_it(service)
    result = service.command("reload")
    assert result.returncode != 0
    assert words in result.stderr, result.stderr
    assert service.pids() == before
    assert client.request("/").text == "old code"
    assert service.status()["last_reload"]["ok"] is False

    service.install(service.folder / "good.so", "app.so")
    service.reload()
    assert client.request("/").text == "old code"
    assert not set(before) & set(service.pids())


def test_module_that_fails_in_the_second_slot_brings_the_first_back(serve, connect):
    service = serve(count=2, source=text_module_source("old code"))
    clients = [connect(service) for _ in range(20)]
    for client in clients:
        assert client.request("/").text == "old code"
    service.compile(start_with("return baton_worker_slot(worker) == 1;"), "app.so")
    assert service.command("reload").returncode != 0
    wait_until(lambda: service.status()["state"] == "running", "the roll back has ended")
    assert {process["generation"] for process in service.processes()} == {1}
    for client in clients:
        assert client.request("/").text == "old code"


def test_module_that_crashes_in_its_probation_is_rolled_back(serve, connect):
    service = serve(count=2, source=text_module_source("old code"), probation="30s")
    service.crashes_expected = True
    client = connect(service)
    assert client.request("/").text == "old code"
    service.compile(r"""
#include <baton.h>
#include <stdlib.h>
static void crash(void *arg) { (void) arg; abort(); }
static int on_worker_start(baton_worker *worker) { (void) worker; return baton_timer_once(300, crash, NULL) == NULL; }
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, NULL, "new code");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
""", "app.so")
    result = service.command("reload", "--wait")
    assert result.returncode != 0 and "signal 6" in result.stderr, result.stderr
    wait_until(lambda: service.status()["state"] == "running", "the roll back has ended")
    assert {get(service.port).text for _ in range(10)} == {"old code"}


def test_module_that_brings_its_own_libbaton_is_refused(serve):
    service = serve(count=1, source=text_module_source("old code"))
    if not (BUILD / "src" / "libbaton.so").exists():
        pytest.skip("no shared library in this build")
    service.compile(text_module_source("new code"), "app.so", "-Wl,--no-as-needed", "-L%s" % (BUILD / "src"), "-lbaton",
                    "-Wl,-rpath,%s" % (BUILD / "src"))
    result = service.command("reload")
    assert result.returncode != 0 and "baton" in result.stderr
    assert get(service.port).text == "old code"


def test_copies_of_old_generations_are_removed(serve):
    service = serve(count=1)
    for _ in range(5):
        service.reload()
    modules = service.folder / "run" / "modules"

    def live():
        return sorted(int(entry.name) for entry in modules.iterdir())
    # The one that serves, and the one to go back to while it is on probation.
    wait_until(lambda: len(live()) <= 2, "old copies are removed")
    assert live()[-1] == 6
