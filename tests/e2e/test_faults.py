"""Crashes, kills, signals, and what is left behind."""
import os
import signal
import socket

import pytest

from client import ConnectionEnded, build_request, get
from harness import (DEADLINE, children_of, descriptors_of, process_state, tagged_processes, text_module_source,
                     wait_until, worker_ini)


def crash_one(service):
    """Sends one client to /crash. Returns when the slot has a new process."""
    before = set(service.pids())
    with pytest.raises((ConnectionEnded, ConnectionError)):
        get(service.port, "/crash")
    wait_until(lambda: len(service.pids()) == len(before) and set(service.pids()) != before,
               "the crashed slot has a new process")


# ---- crashes ----

def test_crashed_slot_starts_again_and_the_crash_is_shown(serve):
    service = serve(count=2)
    service.crashes_expected = True
    crash_one(service)
    assert {get(service.port).text for _ in range(20)} == {"hi"}
    worker = service.worker()
    assert any("signal 11" in (process["last_exit"] or "") for process in worker["processes"])
    assert any("signal 11" in ending["reason"] and ending["count"] == 1 for ending in worker["exits"])


def test_crash_of_one_process_does_not_touch_the_clients_of_another(serve, connect):
    service = serve(count=2)
    service.crashes_expected = True
    clients = [connect(service) for _ in range(32)]
    for client in clients:
        client.send(build_request("/"))
    owners = {client: client.read_response().pid for client in clients}
    victim = owners[clients[0]]
    clients[0].send(build_request("/crash"))
    wait_until(lambda: victim not in service.pids(), "the process has crashed")
    for client in clients:
        if owners[client] != victim:
            assert client.request("/").pid == owners[client]


def test_crash_restart_uses_the_pinned_code_whatever_lies_on_disk(serve):
    service = serve(count=1, probation=0)
    service.crashes_expected = True
    service.reload()
    (service.folder / "http-echo.so").write_bytes(b"\x7fELF broken by a deploy that is under way")
    crash_one(service)
    assert get(service.port).generation == 2
    (service.folder / "http-echo.so").unlink()
    crash_one(service)
    assert get(service.port).generation == 2


def test_process_that_dies_again_and_again_is_restarted_with_a_backoff(new_service):
    service = new_service(worker_ini(count=1, module="./app.so"))
    service.compile(r"""
#include <baton.h>
#include <stdlib.h>
#include <unistd.h>
static void maybe(void *arg)
{
    (void) arg;
    if (access("FOLDER/broken", F_OK) == 0)
        _exit(3);
}
static int on_worker_start(baton_worker *worker) { (void) worker; return baton_timer_every(5, maybe, NULL) == NULL; }
static void on_request(baton_conn *conn, const baton_request *req) { (void) req; baton_reply(conn, 200, NULL, "hi"); }
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
""".replace("FOLDER", str(service.folder)), "app.so")
    service.start()
    (service.folder / "broken").touch()
    slot = wait_until(lambda: next(iter(service.processes(state="backoff")), None), "the slot is in backoff")
    assert slot["pid"] == 0 and slot["restarts"] >= 1
    assert "exit 3" in slot["last_exit"]
    (service.folder / "broken").unlink()
    wait_until(lambda: service.pids(), "the slot serves again")
    assert get(service.port).text == "hi"


def test_process_killed_with_9_is_replaced(serve):
    service = serve(count=2)
    service.crashes_expected = True
    victim = service.pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in service.pids() and len(service.pids()) == 2, "the slot has a new process")
    assert {get(service.port).generation for _ in range(20)} == {1}


def test_reload_works_after_a_crash(serve, connect):
    service = serve(count=2)
    service.crashes_expected = True
    crash_one(service)
    client = connect(service)
    assert client.request("/").generation == 1
    service.reload()
    assert client.request("/").generation == 2


def test_module_whose_first_start_fails_ends_the_start(new_service):
    service = new_service(worker_ini(count=2, module="./app.so"))
    service.compile("int nothing;\n", "app.so")
    service.exit_code_expected = 1
    service.spawn()
    assert service.wait_exit() == 1
    assert "baton_module" in service.log
    assert not service.pid_file.exists() and not service.control_socket.exists()


# ---- stopping ----

def started_request(service, connect, path):
    client = connect(service)
    client.send(build_request(path))
    assert get(service.port).status == 200
    return client


@pytest.mark.parametrize("words", [["-g"], []], ids=["graceful", "plain"])
def test_stop_finishes_requests_in_progress(serve, connect, words):
    service = serve(count=1)
    client = started_request(service, connect, "/sleep/700")
    service.stop(*words)
    assert client.read_response().text == "hi"


def test_request_that_outlasts_the_stop_timeout_gets_503(serve, connect):
    service = serve(count=1, master={"stop_timeout": "300ms"})
    client = started_request(service, connect, "/sleep/600000")
    service.stop()
    response = client.read_response()
    assert response.status == 503 and response.closes
    client.expect_close()


def test_stream_that_outlasts_the_stop_timeout_is_not_taken_for_complete(serve, connect):
    service = serve(count=1, master={"stop_timeout": "300ms"})
    client = started_request(service, connect, "/stream/600000")
    service.stop()
    with pytest.raises((ConnectionEnded, ConnectionError)):
        client.read_response()


def test_stop_closes_idle_connections(serve, connect):
    service = serve(count=2)
    client = connect(service)
    assert client.request("/").status == 200
    service.stop("-g")
    client.expect_close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT], ids=lambda number: number.name)
def test_signal_stops_after_the_requests_in_progress(serve, connect, number):
    service = serve(count=1)
    client = started_request(service, connect, "/sleep/500")
    service.signal(number)
    assert service.wait_exit() == 0
    assert client.read_response().text == "hi"


def test_processes_do_not_die_of_the_terminals_signals(serve):
    service = serve(count=1)
    before = service.pids()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        os.kill(before[0], number)
    for _ in range(20):
        assert get(service.port).pid == before[0]
    assert service.pids() == before


def test_stop_during_a_reload_stops(serve, compiled):
    service = serve(count=1, ready_timeout="60s", master={"kill_timeout": "1s"})
    service.crashes_expected = True
    hang = compiled(text_module_source("x").replace(
        "BATON_MODULE(", "#include <unistd.h>\nstatic int hang(baton_worker *worker) "
        "{ (void) worker; for (;;) pause(); return 0; }\nBATON_MODULE(.on_worker_start = hang, "))
    service.install(hang, "http-echo.so")
    assert service.command("reload", "--no-wait").returncode == 0
    wait_until(lambda: service.processes(state="starting"), "the roll waits for its process")
    service.stop()


# ---- signals that reload ----

@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_reloads(serve, connect, number):
    service = serve(count=2)
    client = connect(service)
    assert client.request("/").generation == 1
    service.signal(number)
    wait_until(lambda: client.request("/").generation == 2, "the new generation answers")
    wait_until(lambda: {process["generation"] for process in service.processes()} == {2}, "all slots are renewed")


def test_hup_opens_the_log_anew(serve):
    service = serve(count=1, master={"log_file": "log/baton.log"})
    log = service.folder / "log" / "baton.log"
    log.rename(log.with_suffix(".old"))
    service.signal(signal.SIGHUP)
    wait_until(lambda: log.exists() and log.stat().st_size > 0, "a new log file is written")


def test_burst_of_signals_ends_in_a_serving_state(serve, connect):
    service = serve(count=2)
    client = connect(service)
    for _ in range(20):
        service.signal(signal.SIGUSR1)
        assert client.request("/").status == 200
    wait_until(lambda: service.status()["state"] == "running", "the last roll has ended")
    assert len(service.pids()) == 2 and client.request("/").status == 200


# ---- the master ----

def test_second_start_is_refused(serve):
    service = serve(count=1)
    result = service.command("start")
    assert result.returncode == 1
    assert "running" in result.stderr and str(service.pid) in result.stderr
    assert get(service.port).text == "hi"


def test_stale_pid_file_is_taken_over(new_service):
    service = new_service(worker_ini(count=1))
    service.pid_file.parent.mkdir()
    service.pid_file.write_text("1\n")
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(service.control_socket))
    service.start()
    assert int(service.pid_file.read_text()) == service.pid
    assert get(service.port).text == "hi"


def test_processes_end_when_their_master_is_killed_and_a_new_start_works(serve, connect):
    service = serve(count=2)
    client = started_request(service, connect, "/sleep/500")
    service.process.kill()
    service.process.wait()
    assert client.read_response().text == "hi"
    wait_until(lambda: not tagged_processes(service.tag), "all processes have ended")
    service.start()
    assert get(service.port).text == "hi"


def test_reloads_leak_no_descriptor_no_process_and_no_file(serve, connect):
    service = serve(count=2)
    idle = [connect(service) for _ in range(8)]

    def settled():
        wait_until(lambda: service.status()["state"] == "running" and len(children_of(service.pid)) == 2,
                   "only the serving processes are left")
        # The status command's own connection ends a moment after its answer.
        return lambda pid: sorted(entry for entry in descriptors_of(pid) if "eventpoll" not in entry)

    for client in idle:
        assert client.request("/").status == 200
    service.reload()
    descriptors = settled()
    master = descriptors(service.pid)
    process = len(descriptors(service.pids()[0])) + len(descriptors(service.pids()[1]))
    for _ in range(20):
        service.reload()
    for client in idle:
        assert client.request("/").generation == 22
    settled()
    wait_until(lambda: descriptors(service.pid) == master, "the master has as many descriptors as before:\n%s\n%s"
               % (master, descriptors(service.pid)))
    wait_until(lambda: len(descriptors(service.pids()[0])) + len(descriptors(service.pids()[1])) == process,
               "the processes have as many descriptors as before")
    assert not [pid for pid in children_of(service.pid) if process_state(pid) == "Z"]


def test_no_descriptor_of_the_master_reaches_a_process_it_does_not_serve(serve):
    """A process holds its channel, its listener and its loop; not the control socket, the pid file or a sibling's."""
    service = serve(count=4)
    for pid in service.pids():
        assert not [entry for entry in descriptors_of(pid) if "baton.pid" in entry or "baton.sock" in entry]
    assert len({len(descriptors_of(pid)) for pid in service.pids()}) == 1


def test_pid_file_and_control_socket_are_not_for_everybody(serve):
    service = serve(count=1)
    assert os.stat(service.pid_file).st_mode & 0o022 == 0
    assert os.stat(service.control_socket).st_mode & 0o777 == 0o600


def test_garbage_on_the_control_socket_harms_nobody(serve):
    service = serve(count=1)
    for data in (b"\n", b"{", b"{}\n", b"[1,2]\n", b'{"command":7}\n', b'{"command":"fly"}\n', os.urandom(4096) + b"\n",
                 b'{"command":"status"' + b" " * 2000000, b'{"command":"reload","worker":{}}\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(service.control_socket))
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError:
                pass
        assert service.status()["state"] in ("running", "reloading")
    assert get(service.port).text == "hi"


def test_client_that_asks_and_does_not_listen_harms_nobody(serve):
    service = serve(count=1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(service.control_socket))
        client.setblocking(False)
        try:
            for _ in range(10000):
                client.send(b'{"command":"status"}\n')
        except OSError:
            pass
        service.reload()
        assert get(service.port).generation == 2
