"""kill -9 of the master: its processes finish and free the port at once, or serve on, as on_master_exit says."""
import os
import signal
import socket

import pytest

from client import HttpClient, build_request, get
from harness import DEADLINE, is_alive, tagged_processes, wait_until, worker_ini


def kill_master(service):
    """Returns the pids that it leaves behind."""
    left = service.pids()
    service.process.kill()
    service.process.wait()
    service.exit_code_expected = -9
    return left


def nobody_listens(service):
    with socket.socket() as probe:
        probe.settimeout(DEADLINE)
        return probe.connect_ex(("127.0.0.1", service.port)) != 0


def started(service, connect, path="/sleep/600000"):
    """A client whose request is being handled."""
    client = connect(service)
    client.send(build_request(path))
    assert get(service.port).status == 200
    return client


def all_gone(service, pids):
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the processes have ended")


# ---- stop ----

@pytest.mark.parametrize("reuse_port", ["no", "yes"])
def test_port_is_free_for_a_restart_while_old_requests_are_finished(serve, connect, reuse_port):
    service = serve(count=2, reuse_port=reuse_port)
    clients = [connect(service) for _ in range(4)]
    for client in clients:
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab")
    wait_until(lambda: sum(process["accepted"] for process in service.processes()) == 4, "all are accepted")
    old = kill_master(service)
    service.start()
    assert get(service.port).pid not in old
    for client in clients:
        client.send(b"cd")
        response = client.read_response()
        assert response.status == 200 and response.pid in old and response.closes
        client.expect_close()
    all_gone(service, old)
    service.exit_code_expected = 0


def test_stale_pid_file_and_control_socket_are_taken_over(serve):
    service = serve(count=1)
    dead = service.pid
    kill_master(service)
    assert int(service.pid_file.read_text()) == dead and service.control_socket.exists()
    service.start()
    assert int(service.pid_file.read_text()) == service.pid
    service.exit_code_expected = 0


def test_queued_connections_are_accepted_and_answered(serve, connect):
    service = serve(count=1)
    pid = service.pids()[0]
    os.kill(pid, signal.SIGSTOP)  # from now on they wait in the queue
    clients = [connect(service) for _ in range(150)]
    for client in clients:
        client.send(build_request("/"))
    service.process.kill()
    service.process.wait()
    service.exit_code_expected = -9
    os.kill(pid, signal.SIGCONT)
    for client in clients:
        response = client.read_response()
        assert response.text == "hi" and response.closes and response.pid == pid
        client.expect_close()
    all_gone(service, [pid])


def test_queued_connections_are_answered_at_an_ordinary_stop(serve, connect):
    service = serve(count=1)
    pid = service.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    clients = [connect(service) for _ in range(150)]
    for client in clients:
        client.send(build_request("/"))
    service.signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in service.log, "the master has told it")
    os.kill(pid, signal.SIGCONT)
    for client in clients:
        response = client.read_response()
        assert response.text == "hi" and response.closes and response.pid == pid
    assert service.wait_exit() == 0


def test_request_of_a_client_that_was_just_accepted_is_answered(serve, connect):
    """Accepted, nothing read yet: the first bytes arrive together with the end of the master."""
    service = serve(count=1)
    pid = service.pids()[0]
    clients = [connect(service) for _ in range(20)]
    wait_until(lambda: service.processes()[0]["connections"] == 20, "all are accepted")
    os.kill(pid, signal.SIGSTOP)
    service.process.kill()
    service.process.wait()
    service.exit_code_expected = -9
    for client in clients:
        client.send(build_request("/"))
    os.kill(pid, signal.SIGCONT)
    for client in clients:
        assert client.read_response().text == "hi"
        client.expect_close()
    all_gone(service, [pid])


def test_request_on_an_idle_connection_that_has_arrived_is_answered(serve, connect):
    service = serve(count=1)
    pid = service.pids()[0]
    clients = [connect(service) for _ in range(20)]
    for client in clients:
        assert client.request("/").pid == pid
    os.kill(pid, signal.SIGSTOP)
    for client in clients:
        client.send(build_request("/"))
    service.process.kill()
    service.process.wait()
    service.exit_code_expected = -9
    os.kill(pid, signal.SIGCONT)
    for client in clients:
        assert client.read_response().text == "hi"
        client.expect_close()
    all_gone(service, [pid])


def test_idle_and_silent_connections_do_not_hold_the_processes(serve, connect):
    service = serve(count=2, drain_timeout="1h")
    idle, silent = connect(service), connect(service)
    assert idle.request("/").status == 200
    old = kill_master(service)
    idle.expect_close()
    silent.expect_close()
    all_gone(service, old)


def test_drain_without_limit_gets_one_when_the_master_dies(serve, connect):
    service = serve(count=1, drain_timeout="500ms")
    client = started(service, connect)
    old = service.pids()
    service.signal(signal.SIGUSR2)  # waits for stragglers without limit
    wait_until(lambda: service.processes(state="draining"), "the old process drains")
    old += kill_master(service)
    assert client.read_response().status == 503
    all_gone(service, old)


def test_process_in_on_worker_start_ends_with_its_master(new_service):
    service = new_service(worker_ini(count=1, module="./app.so", ready_timeout="1h"))
    service.compile(r"""
#include <baton.h>
#include <unistd.h>
static int on_worker_start(baton_worker *worker) { (void) worker; for (;;) pause(); return 0; }
static void on_request(baton_conn *conn, const baton_request *req) { (void) req; baton_reply(conn, 200, NULL, "hi"); }
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
""", "app.so")
    service.spawn()
    wait_until(lambda: "starting worker=web" in service.log, "a process starts")
    service.process.kill()
    service.process.wait()
    service.exit_code_expected = -9
    wait_until(lambda: not tagged_processes(service.tag), "the process has ended")


# ---- serve ----

def serving_on(serve, **settings):
    return serve(master={"on_master_exit": "serve"}, **settings)


def test_processes_serve_on_without_their_master(serve, connect):
    service = serving_on(serve, count=2)
    kept = connect(service)
    assert kept.request("/").status == 200
    old = kill_master(service)
    wait_until(lambda: service.log.count("master-gone serving=yes") == 2, "both have noticed")
    assert {get(service.port).pid for _ in range(50)} <= set(old)
    assert kept.request("/").status == 200
    assert all(is_alive(pid) for pid in old)
    for pid in old:
        os.kill(pid, signal.SIGTERM)
    all_gone(service, old)


def test_new_start_fails_while_processes_serve_on(serve):
    service = serving_on(serve, count=1)
    old = kill_master(service)
    wait_until(lambda: "master-gone serving=yes" in service.log, "it has noticed")
    assert service.command("start", tagged=True).returncode == 1
    assert get(service.port).pid == old[0]
    os.kill(old[0], signal.SIGTERM)
    all_gone(service, old)
    service.start()
    assert get(service.port).status == 200
    service.exit_code_expected = 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_signal_ends_a_process_that_serves_on(serve, connect, number):
    service = serving_on(serve, count=1)
    client = started(service, connect, "/sleep/1000")
    idle = connect(service)
    assert idle.request("/").status == 200
    old = kill_master(service)
    wait_until(lambda: "master-gone serving=yes" in service.log, "it has noticed")
    os.kill(old[0], number)
    idle.expect_close()
    wait_until(lambda: nobody_listens(service), "the port is free")
    response = client.read_response()
    assert response.text == "hi" and response.closes
    all_gone(service, old)


def test_drain_goes_on_towards_a_successor_that_serves_on(serve, connect):
    """The pass channel outlives the master: what is answered late still reaches the new code."""
    service = serving_on(serve, count=1)
    client = started(service, connect, "/sleep/2000")
    old = service.pids()
    service.reload()
    new = service.pids()
    assert new != old and is_alive(old[0])
    kill_master(service)
    wait_until(lambda: "master-gone serving=yes" in service.log, "the successor has noticed")
    response = client.read_response()
    assert response.pid == old[0]
    if not response.closes:  # a request with a user pointer is closed when the process drains
        assert client.request("/").pid == new[0]
    all_gone(service, old)
    assert get(service.port).pid == new[0]
    os.kill(new[0], signal.SIGTERM)
    all_gone(service, new)
