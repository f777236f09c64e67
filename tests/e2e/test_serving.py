"""Where a service listens, who serves, and what the callbacks see."""
import json
import os
import pwd
import re
import shutil
import socket
import stat
import time

import pytest

from client import HttpClient, build_request, get
from harness import DEADLINE, EXAMPLES, free_port, is_alive, wait_until, worker_ini

WHO = """
#include <baton.h>
#include <stdio.h>
#include <unistd.h>
static baton_worker *me;
static int on_worker_start(baton_worker *worker) { me = worker; return 0; }
static void on_request(baton_conn *conn, const baton_request *req)
{
    char text[512], remote[200], local[200];
    (void) req;
    snprintf(text, sizeof(text), "%s %d %d %s %s", baton_worker_name(me), baton_worker_slot(me), (int) getpid(),
             baton_conn_remote(conn, remote, sizeof(remote)), baton_conn_local(conn, local, sizeof(local)));
    baton_reply(conn, 200, "text/plain", text);
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""


# ---- addresses ----

def test_ipv4_address_and_remote_address(serve, connect):
    service = serve(source=WHO, count=1)
    client = connect(service)
    name, slot, pid, remote, local = client.request("/").text.split()
    assert (name, slot, int(pid)) == ("web", "0", service.pids()[0])
    assert remote == "127.0.0.1:%d" % client.socket.getsockname()[1]
    assert local == "127.0.0.1:%d" % service.port


def test_ipv6_address(serve, connect):
    service = serve(source=WHO, count=1, listen="http://[::1]:{port}")
    client = connect(("::1", service.port))
    remote, local = client.request("/").text.split()[3:]
    assert remote == "[::1]:%d" % client.socket.getsockname()[1]
    assert local == "[::1]:%d" % service.port


def test_star_means_ipv4_and_ipv6(serve):
    service = serve(count=1, listen="http://*:{port}")
    assert get(("127.0.0.1", service.port)).text == "hi"
    assert get(("::1", service.port)).text == "hi"


def test_unix_socket(serve):
    service = serve(count=2, listen="http+unix://{folder}/web.sock")
    path = str(service.folder / "web.sock")
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert get(path).text == "hi"
    service.reload()
    assert get(path).generation == 2
    service.stop()
    assert not os.path.exists(path)


def test_unix_socket_left_by_a_killed_master_is_taken_over(new_service):
    service = new_service(worker_ini(count=1, listen="http+unix://{folder}/web.sock"))
    leftover = socket.socket(socket.AF_UNIX)
    leftover.bind(str(service.folder / "web.sock"))
    leftover.close()
    service.start()
    assert get(str(service.folder / "web.sock")).text == "hi"


def test_address_in_use_is_said_and_nothing_starts(new_service):
    service = new_service(worker_ini(count=1))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", service.port))
        other.listen()
        service.spawn()
        service.exit_code_expected = 1
        assert service.wait_exit() == 1
    assert "in use" in service.log and str(service.port) in service.log


# ---- processes ----

@pytest.mark.parametrize("reuse_port", ["no", "yes"])
def test_connections_are_spread_over_the_processes(serve, connect, reuse_port):
    service = serve(count=2, reuse_port=reuse_port)
    clients = [connect(service) for _ in range(64)]
    for client in clients:
        client.send(build_request("/"))
    assert {client.read_response().pid for client in clients} == set(service.pids())


def test_count_gives_that_many_slots(serve):
    service = serve(count=4)
    processes = service.processes()
    assert [process["slot"] for process in processes] == [0, 1, 2, 3]
    assert len({process["pid"] for process in processes}) == 4


def test_several_workers_serve_side_by_side(new_service):
    other = free_port()
    service = new_service(worker_ini(count=1) + worker_ini("other", count=2, listen="http://127.0.0.1:%d" % other)
                          .partition("\n\n")[2])
    service.start()
    assert get(service.port).pid in service.pids("web")
    assert get(other).pid in service.pids("other")


def test_task_worker_runs_timers_and_sees_its_slot(new_service):
    service = new_service("[worker task]\ncount = 2\nmodule = ./task.so\n", modules=())
    service.compile(r"""
#include <baton.h>
#include <stdio.h>
static char path[200];
static int beats;
static void note(const char *word)
{
    FILE *file = fopen(path, "a");
    fprintf(file, "%s\n", word);
    fclose(file);
}
static void once(void *arg) { (void) arg; note("once"); }
static void beat(void *arg)
{
    (void) arg;
    note("beat");
    if (++beats == 3) { baton_timer_cancel(*(baton_timer **) arg); note("cancelled"); }
}
static void never(void *arg) { (void) arg; note("never"); }
static baton_timer *repeating;
static int on_worker_start(baton_worker *worker)
{
    snprintf(path, sizeof(path), "FOLDER/slot-%d", baton_worker_slot(worker));
    note(baton_loop() ? baton_worker_name(worker) : "no loop");
    baton_timer_cancel(baton_timer_once(1, never, NULL));
    baton_timer_once(10, once, NULL);
    repeating = baton_timer_every(20, beat, &repeating);
    return 0;
}
static void on_worker_stop(baton_worker *worker) { (void) worker; note("stop"); }
BATON_MODULE(.on_worker_start = on_worker_start, .on_worker_stop = on_worker_stop);
""".replace("FOLDER", str(service.folder)), "task.so")
    service.start()
    files = [service.folder / ("slot-%d" % slot) for slot in (0, 1)]
    for file in files:
        wait_until(lambda: file.exists() and "cancelled" in file.read_text(), "%s has its beats" % file)
    service.stop()
    for file in files:
        assert file.read_text().split() == ["task", "once", "beat", "beat", "beat", "cancelled", "stop"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_user_drops_all_privileges(serve):
    service = serve(count=1, user="nobody")
    nobody = pwd.getpwnam("nobody")
    fields = dict(line.split(":", 1) for line in open("/proc/%d/status" % service.pids()[0]).read().splitlines())
    assert fields["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert fields["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert set(fields["Groups"].split()) <= {str(nobody.pw_gid)}
    assert int(fields["CapEff"], 16) == 0
    assert get(service.port).text == "hi"
    service.reload()
    assert get(service.port).generation == 2


# ---- callbacks ----

EVENTS = r"""
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void note(const char *word, long long number)
{
    FILE *file = fopen("FOLDER/events", "a");
    fprintf(file, "%s %lld\n", word, number);
    fclose(file);
}
static void on_connect(baton_conn *conn) { note("connect", (long long) baton_conn_id(conn)); }
static void on_close(baton_conn *conn) { note("close", (long long) baton_conn_id(conn)); }
static void on_error(baton_conn *conn, int error) { (void) conn; note("error", error); }
static void on_request(baton_conn *conn, const baton_request *req)
{
    char text[32];
    (void) req;
    snprintf(text, sizeof(text), "%llu", (unsigned long long) baton_conn_id(conn));
    baton_reply(conn, 200, "text/plain", text);
}
BATON_MODULE(.on_connect = on_connect, .on_close = on_close, .on_error = on_error, .on_request = on_request);
"""


@pytest.fixture
def events(new_service):
    service = new_service(worker_ini(count=1, module="./app.so"))
    service.compile(EVENTS.replace("FOLDER", str(service.folder)), "app.so")
    service.events = lambda: (service.folder / "events").read_text().splitlines()
    return service.start()


def test_connect_and_close_come_once_per_connection(events):
    ids = []
    for _ in range(3):
        with HttpClient(events.port) as client:
            ids.append(client.request("/").text)
            assert client.request("/").text == ids[-1]
    assert len(set(ids)) == 3
    wait_until(lambda: len(events.events()) == 6, "three connections have ended")
    assert sorted(events.events()) == sorted("%s %s" % (word, number) for number in ids for word in ("connect", "close"))


def test_a_passed_connection_keeps_its_id_without_close_or_connect(events, connect):
    client = connect(events)
    number = client.request("/").text
    events.reload()
    assert client.request("/").text == number
    client.close()
    wait_until(lambda: "close %s" % number in events.events(), "the connection has ended")
    assert events.events() == ["connect " + number, "close " + number]


def test_malformed_input_calls_on_error(events, connect):
    client = connect(events)
    client.send(b"what?\r\n\r\n")
    assert client.read_response().status == 400
    wait_until(lambda: any(re.match(r"error -\d+", line) for line in events.events()), "on_error was called")


def test_reload_and_stop_from_code(serve, connect):
    service = serve(count=2, source="""
#include <baton.h>
#include <string.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_str path = baton_request_path(req);
    if (path.len == 7 && memcmp(path.data, "/reload", 7) == 0)
        baton_reply(conn, 200, NULL, baton_reload_all() == 0 ? "reloading" : "failed");
    else if (path.len == 5 && memcmp(path.data, "/stop", 5) == 0)
        baton_reply(conn, 200, NULL, baton_stop_all(true) == 0 ? "stopping" : "failed");
    else
        baton_reply(conn, 200, NULL, "hi");
}
BATON_MODULE(.on_request = on_request);
""")
    client = connect(service)
    before = set(service.pids())
    assert client.request("/reload").text == "reloading"
    wait_until(lambda: service.status()["generation"] == 2 and service.status()["state"] == "running",
               "the reload has ended")
    assert not before & set(service.pids())
    assert client.request("/stop").text == "stopping"
    assert service.wait_exit() == 0


def test_worker_pointer_and_replies_of_all_kinds(serve, connect):
    client = connect(serve(count=1, source=r"""
#include <baton.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
static int on_worker_start(baton_worker *worker)
{
    baton_worker_set_user(worker, "remembered");
    return 0;
}
static bool is(const baton_request *req, const char *path)
{
    baton_str have = baton_request_path(req);
    return have.len == strlen(path) && memcmp(have.data, path, have.len) == 0;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    if (is(req, "/user"))
        baton_reply(conn, 200, NULL, baton_worker_user(baton_conn_worker(conn)));
    else if (is(req, "/404"))
        baton_reply_error(conn, 404);
    else if (is(req, "/204"))
        baton_reply(conn, 204, NULL, "");
    else if (is(req, "/length")) {
        baton_reply_start(conn, 201, "text/x", 6);
        baton_reply_write(conn, "abc", 3);
        baton_reply_write(conn, "def", 3);
        baton_reply_end(conn);
    } else if (is(req, "/trailer")) {
        baton_reply_start(conn, 200, "text/x", BATON_CHUNKED);
        baton_reply_write(conn, "abc", 3);
        baton_reply_trailer(conn, "X-Sum", "294");
        baton_reply_end(conn);
    } else if (is(req, "/short")) {
        baton_reply_start(conn, 200, "text/x", 6);
        baton_reply_write(conn, "abc", 3);
        baton_reply_end(conn);
    } else if (is(req, "/close")) {
        baton_reply_close(conn);
        baton_reply(conn, 200, NULL, "bye");
    } else if (is(req, "/wrong")) {
        char text[200];
        snprintf(text, sizeof(text), "%d %d %d %d %d %d",
                 baton_reply_header(conn, "Content-Length", "1") == -EINVAL,
                 baton_reply_header(conn, "X-A", "b\r\nX-Injected: 1") == -EINVAL,
                 baton_reply_header(conn, "X A", "b") == -EINVAL, baton_reply(conn, 99, NULL, "") == -EINVAL,
                 baton_reply_write(conn, "x", 1) == -EPROTO, baton_reply_end(conn) == -EPROTO);
        baton_reply(conn, 200, NULL, text);
        baton_reply(conn, 200, NULL, "never seen");
    }
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""))
    assert client.request("/user").text == "remembered"
    response = client.request("/404")
    assert (response.status, response.reason) == (404, "Not Found") and "Not Found" in response.text
    response = client.request("/204")
    assert (response.status, response.all("Content-Length"), response.all("Transfer-Encoding")) == (204, [], [])
    response = client.request("/length")
    assert (response.status, response.get("Content-Length"), response.body) == (201, "6", b"abcdef")
    response = client.request("/trailer")
    assert (response.body, response.trailers) == (b"abc", [("X-Sum", "294")])
    response = client.request("/wrong")
    assert response.text == "1 1 1 1 1 1" and not response.all("X-Injected")
    response = client.request("/close")
    assert response.closes and response.text == "bye"
    client.expect_close()


def test_an_answer_shorter_than_its_length_ends_the_connection(serve, connect):
    client = connect(serve(count=1, source="""
#include <baton.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply_start(conn, 200, "text/x", 6);
    baton_reply_write(conn, "abc", 3);
    baton_reply_end(conn);
}
BATON_MODULE(.on_request = on_request);
"""))
    client.send(build_request("/"))
    with pytest.raises((AssertionError, ConnectionError)):
        client.read_response()


def test_requests_kept_past_the_callback_stay_readable(serve, connect):
    client = connect(serve(count=1, source=r"""
#include <baton.h>
static const baton_request *kept;
static void later(void *arg)
{
    baton_conn *conn = arg;
    baton_str body = baton_request_body(kept), path = baton_request_path(kept);
    baton_reply_start(conn, 200, NULL, (int64_t) (body.len + path.len));
    baton_reply_write(conn, path.data, path.len);
    baton_reply_write(conn, body.data, body.len);
    baton_reply_end(conn);
    baton_conn_unref(conn);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    if (baton_request_keep(req) < 0)
        return;
    kept = req;
    baton_timer_once(50, later, baton_conn_ref(conn));
}
BATON_MODULE(.on_request = on_request);
"""))
    body = bytes(range(256)) * 1000
    client.send(build_request("/kept", "POST", body=body) + build_request("/second", "POST", body=b"more"))
    assert client.read_response().body == b"/kept" + body
    assert client.read_response().body == b"/secondmore"


def test_a_slow_reader_is_reported_and_drained(serve, connect):
    service = serve(count=1, max_send_buffer="64k", source=r"""
#include <baton.h>
#include <string.h>
static char block[16384];
static int full, drained;
static long left;
static void pump(baton_conn *conn)
{
    while (left > 0 && !full) {
        left -= (long) sizeof(block);
        if (baton_reply_write(conn, block, sizeof(block)) < 0)
            return;
    }
    if (left <= 0)
        baton_reply_end(conn);
}
static void on_buffer_full(baton_conn *conn) { (void) conn; full = 1; }
static void on_buffer_drain(baton_conn *conn) { full = 0; drained++; pump(conn); }
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    memset(block, 'b', sizeof(block));
    left = 32L * 1024 * 1024;
    baton_reply_start(conn, 200, NULL, left);
    pump(conn);
}
BATON_MODULE(.on_request = on_request, .on_buffer_full = on_buffer_full, .on_buffer_drain = on_buffer_drain);
""")
    client = connect(service)
    assert client.request("/").body == b"b" * 32 * 1024 * 1024


# ---- the stream protocol ----

def test_tcp_messages_are_echoed_and_large_ones_survive(serve):
    service = serve(count=1, listen="tcp://127.0.0.1:{port}", max_send_buffer="64m", source="""
#include <baton.h>
static void on_message(baton_conn *conn, baton_str message) { baton_send(conn, message.data, message.len); }
BATON_MODULE(.on_message = on_message);
""")
    with socket.create_connection(("127.0.0.1", service.port), timeout=DEADLINE) as client:
        data = os.urandom(1 << 20)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while part := client.recv(65536):
            received += part
    assert received == data


# ---- status and daemon (more of the command in test_cli.py) ----


def test_check_warns_of_stop_first_with_one_process(new_service):
    service = new_service(worker_ini(count=1, strategy="stop-first"))
    result = service.command("check")
    assert result.returncode == 0 and "stop-first" in result.stdout + result.stderr


def test_status_is_a_table_for_people_and_json_for_programs(serve):
    service = serve(count=2)
    get(service.port)
    text = service.must("status").stdout
    assert all(str(pid) in text for pid in service.pids()) and "web" in text
    state = json.loads(service.must("status", "--json").stdout)
    assert (state["state"], state["generation"], state["pid"]) == ("running", 1, service.pid)
    assert wait_until(lambda: sum(process["requests"] for process in service.processes()) == 1, "the request is counted")
    assert all(process["memory"] > 0 for process in service.processes())


def test_status_answers_while_all_processes_are_busy(serve, connect):
    service = serve(count=1)
    client = connect(service)
    client.send(build_request("/block/1500"))
    began = time.monotonic()
    assert service.processes()[0]["state"] == "serving"
    # An answer that had to wait for the process would come after the block's.
    assert client.is_quiet(), "status took %.1f s" % (time.monotonic() - began)
    assert client.read_response().text == "hi"


def test_daemon_reports_when_it_serves_and_stops(new_service):
    service = new_service(worker_ini(count=1, master={"log_file": "log/baton.log", "stdout_file": "log/out.log"}))
    result = service.command("start", "-d", tagged=True)
    assert result.returncode == 0, result.stderr
    assert get(service.port).text == "hi"
    master = int(service.pid_file.read_text())
    assert service.status()["daemon"] is True and service.status()["pid"] == master
    assert os.getsid(master) != os.getsid(0)
    assert (service.folder / "log" / "baton.log").stat().st_size > 0
    assert service.command("start", "-d").returncode == 1
    service.must("stop")
    wait_until(lambda: not is_alive(master), "the master has ended")
    assert not service.pid_file.exists() and not service.control_socket.exists()


def test_log_lines_go_to_the_log_file(serve):
    service = serve(count=1, master={"log_file": "log/baton.log"})
    service.reload()
    assert "generation" in (service.folder / "log" / "baton.log").read_text()


# ---- the examples ----

@pytest.mark.parametrize("name, port", [("hello", 8080), ("http-echo", 18102)])
def test_example_runs_as_it_lies_in_the_build_folder(new_service, name, port):
    text = (EXAMPLES / name / "baton.ini").read_text()
    assert "http://127.0.0.1:%d" % port in text
    service = new_service(text.replace(str(port), "{port}"), modules=())
    shutil.copy(EXAMPLES / name / (name + ".so"), service.folder)
    service.start()
    assert len(service.pids(name)) == 2
    response = get(service.port)
    assert (response.text, response.get("Content-Type")) == ("hi", "text/plain")


def test_http_echo_says_who_answered_in_every_answer(serve, connect):
    service = serve(count=1)
    client = connect(service)
    for path, status in (("/", 200), ("/sleep/1", 200), ("/block/1", 200), ("/stream/2", 200), ("/stream/0", 200),
                         ("/sleep/x", 400), ("/block/", 400), ("/stream/-1", 400)):
        response = client.request(path)
        assert (response.status, response.pid, response.generation) == (status, service.pids()[0], 1), path
    assert client.request("/", "PUT", body=b"\0\xff").body == b"\0\xff"


def test_http_echo_forgets_a_client_that_left_while_it_waited(serve, connect):
    service = serve(count=1)
    for path in ("/sleep/100", "/stream/1000"):
        client = HttpClient(service.port)
        client.send(build_request(path))
        if "stream" in path:
            client.read_head()
        client.close()
    assert connect(service).request("/sleep/200").text == "hi"
    wait_until(lambda: service.processes()[0]["connections"] == 1, "only the living client is counted")
