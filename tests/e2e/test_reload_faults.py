"""Reloads in which something goes on for long or dies: stragglers, successors that are killed, probations."""
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from client import ConnectionEnded, build_request, get
from harness import DEADLINE, process_state, text_module_source, wait_until

# Answers /wait when the file "go" exists, however many reloads later; anything else at once.
WAITING = r"""
#include <baton.h>
#include <stdio.h>
#include <unistd.h>
static void answer(baton_conn *conn, const char *text)
{
    char number[32];
    snprintf(number, sizeof number, "%d", (int) getpid());
    baton_reply_header(conn, "X-Pid", number);
    snprintf(number, sizeof number, "%llu", (unsigned long long) baton_generation());
    baton_reply_header(conn, "X-Generation", number);
    baton_reply(conn, 200, "text/plain", text);
}
static void look(void *arg)
{
    baton_conn *conn = arg;
    if (baton_conn_is_open(conn) && access("go", F_OK) != 0) {
        baton_timer_once(5, look, conn);
        return;
    }
    answer(conn, "waited");
    baton_conn_unref(conn);
}
static void later(void *arg)
{
    answer(arg, "later");
    baton_conn_unref(arg);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_str path = baton_request_path(req);
    if (path.data[1] == 'w')
        look(baton_conn_ref(conn));
    else if (path.data[1] == 'l')
        baton_timer_once(1000, later, baton_conn_ref(conn));
    else if (path.data[1] == 'c')
        _exit(3);
    else
        answer(conn, "at once");
}
BATON_MODULE(.on_request = on_request);
"""


def waiting(service, connect, count=1):
    """Clients whose requests the serving process is handling until let_go()."""
    clients = [connect(service).send(build_request("/wait")) for _ in range(count)]
    assert get(service.port).status == 200  # events come in order: it has read them
    return clients


def let_go(service):
    (service.folder / "go").touch()


def background(service, *args):
    return subprocess.Popen([*service.program, *args], env=service.env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_generation(service, generation):
    wait_until(lambda: service.status()["state"] == "running" and
               {process["generation"] for process in service.processes()} == {generation},
               "generation %d serves" % generation)


# ---- stragglers ----

def test_straggler_outlives_further_reloads_and_passes_to_the_process_that_serves_then(serve, connect):
    service = serve(count=1, source=WAITING)
    owners, stragglers = [], []
    for generation in (1, 2, 3):
        owners.append(service.pids()[0])
        stragglers.append(waiting(service, connect, 3))
        service.reload()
    let_go(service)
    for generation, (owner, clients) in enumerate(zip(owners, stragglers), 1):
        for client in clients:
            response = client.read_response()
            assert (response.text, response.generation, response.pid) == ("waited", generation, owner)
            assert not response.closes
    serving = service.pids()[0]
    for client in sum(stragglers, []):
        response = client.request("/")
        assert (response.generation, response.pid) == (4, serving)
    wait_until(lambda: not any(process_state(pid) for pid in owners), "the old processes have ended")


def test_oldest_draining_process_is_ended_when_there_are_too_many(serve, connect):
    service = serve(count=1, source=WAITING, max_draining=2, master={"stop_timeout": "300ms"})
    oldest, stragglers = service.pids()[0], []
    for _ in range(3):
        stragglers += waiting(service, connect)
        service.reload()
    response = stragglers[0].read_response()
    assert response.status == 503 and response.closes
    wait_until(lambda: process_state(oldest) is None, "the oldest process has ended")
    assert len(service.processes(state="draining")) == 2
    let_go(service)
    assert [client.read_response().generation for client in stragglers[1:]] == [2, 3]
    assert [client.request("/").generation for client in stragglers[1:]] == [4, 4]


def test_reload_without_limit_waits_for_a_straggler_longer_than_its_drain_timeout(serve, connect):
    service = serve(count=1, source=WAITING, drain_timeout="200ms", master={"kill_timeout": "200ms"})
    [client], old = waiting(service, connect), service.pids()[0]
    service.signal(signal.SIGUSR2)
    wait_generation(service, 2)
    assert get(service.port, "/later").text == "later"  # a second has passed: both limits are long over
    assert client.is_quiet() and process_state(old) is not None
    let_go(service)
    response = client.read_response()
    assert (response.text, response.pid) == ("waited", old)
    assert client.request("/").generation == 2


# ---- successors that die ----

def clients_held_by(pid, clients, port):
    """Those whose connection the (stopped) process has a descriptor of."""
    inodes = set()
    for entry in Path("/proc/%d/fd" % pid).iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    peers = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, inode = line.split()[1:3] + [line.split()[9]]
        if int(local.rpartition(":")[2], 16) == port and inode in inodes:
            peers.add(int(remote.rpartition(":")[2], 16))
    return {client for client in clients if client.socket.getsockname()[1] in peers}


def polled_by(pid):
    """How many descriptors the process waits for events of."""
    return sum(info.read_text().count("tfd:") for info in Path("/proc/%d/fdinfo" % pid).iterdir())


def allow_descriptors(count):
    """For this process and the services it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count)), hard))


# Its process stands still when the file "stop" is there: before it has heard of the pass, or (AFTER_HELLO) as soon as it
# has one descriptor more than at its start, the pass channel. By then it has said HELLO and read nothing.
STOPS_BEFORE_THE_PASS = r"""
#include <baton.h>
#include <signal.h>
#include <unistd.h>
#include <uv.h>
static uv_prepare_t prepare;
static int least;
static void count(uv_prepare_t *handle)
{
    int fd = dup(0);
    close(fd);
    if (least == 0)
        least = fd + AFTER_HELLO;
    if (fd < least)
        return;
    uv_prepare_stop(handle);
    raise(SIGSTOP);
}
static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    if (unlink("stop") < 0)
        return 0;
    uv_prepare_init(baton_loop(), &prepare);
    return uv_prepare_start(&prepare, count);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, NULL, "new code");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""


def reload_to_one_that_stops(service, after_hello):
    service.compile(STOPS_BEFORE_THE_PASS, "app.so", "-DAFTER_HELLO=%d" % after_hello)
    (service.folder / "stop").touch()
    command = background(service, "reload")
    victim = wait_until(lambda: next((process["pid"] for process in service.processes()
                                      if process["generation"] == 2 and process_state(process["pid"]) == "T"), None),
                        "the successor is ready, and stands still")
    return command, victim


def kill_successor(victim, command):
    os.kill(victim, signal.SIGKILL)
    output, _ = command.communicate(timeout=DEADLINE)
    assert command.returncode == 0, output


def test_connections_come_back_from_a_successor_that_dies_before_it_reads_them(serve, connect):
    allow_descriptors(2000)
    service = serve(count=1, source=text_module_source("old code"), probation="60s")
    service.crashes_expected = True
    clients, old = [connect(service) for _ in range(600)], service.pids()[0]
    assert {client.request("/").text for client in clients} == {"old code"}
    command, victim = reload_to_one_that_stops(service, after_hello=True)
    wait_until(lambda: polled_by(old) < 100, "the old process has put its connections aside to be passed")
    assert not clients_held_by(victim, clients, service.port)
    kill_successor(victim, command)
    assert {client.request("/").text for client in clients} == {"new code"}


def test_successor_that_never_speaks_keeps_nobody_waiting(serve, connect):
    service = serve(count=1, source=text_module_source("old code"), probation="60s")
    service.crashes_expected = True
    clients = [connect(service) for _ in range(50)]
    assert {client.request("/").text for client in clients} == {"old code"}
    command, victim = reload_to_one_that_stops(service, after_hello=False)
    wait_until(lambda: any(process["state"] == "draining" for process in service.worker()["processes"]),
               "the old process has been told to drain")
    for _ in range(3):
        assert {client.request("/").text for client in clients} == {"old code"}
    kill_successor(victim, command)
    assert {client.request("/").text for client in clients} == {"new code"}


# Its process stands still in the middle of a pass: once it has as many descriptors as the file "stop" says.
STOPS_IN_THE_PASS = r"""
#include <baton.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <uv.h>
static uv_prepare_t prepare;
static int least;
static void count(uv_prepare_t *handle)
{
    int fd = dup(0);
    close(fd);
    if (fd < least)
        return;
    uv_prepare_stop(handle);
    raise(SIGSTOP);
}
static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    FILE *file = fopen("stop", "r");
    if (file == NULL || fscanf(file, "%d", &least) != 1)
        return 0;
    fclose(file);
    unlink("stop");
    uv_prepare_init(baton_loop(), &prepare);
    return uv_prepare_start(&prepare, count);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, NULL, "hi");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""


@pytest.mark.parametrize("least", [50, 400])
def test_only_the_connections_that_a_killed_successor_had_taken_are_lost(serve, connect, least):
    allow_descriptors(2000)
    service = serve(count=1, source=STOPS_IN_THE_PASS, probation="60s")
    service.crashes_expected = True
    clients = [connect(service) for _ in range(1000)]
    assert {client.request("/").text for client in clients} == {"hi"}
    (service.folder / "stop").write_text(str(least))
    command = background(service, "reload")
    victim = wait_until(lambda: next((process["pid"] for process in service.processes()
                                      if process["generation"] == 2 and process_state(process["pid"]) == "T"), None),
                        "the successor stands still")
    held = clients_held_by(victim, clients, service.port)
    assert 0 < len(held) < len(clients)
    os.kill(victim, signal.SIGKILL)
    output, _ = command.communicate(timeout=DEADLINE)
    assert command.returncode == 0, output
    for client in held:
        client.expect_close()
    assert {client.request("/").text for client in set(clients) - held} == {"hi"}
    assert service.processes()[0]["generation"] == 2


# ---- probation ----

def test_waiting_reload_returns_when_the_probation_is_over(serve):
    service = serve(count=2, probation="1s")
    result = service.reload("--wait")
    assert "proved generation=2" in service.log
    assert "generation 2 serves and has passed its probation" in result.stdout


def test_crash_after_the_roll_and_in_the_probation_fails_the_waiting_reload(serve, connect):
    service = serve(count=2, source=WAITING, probation="60s")
    service.crashes_expected = True
    command = background(service, "reload", "--wait")
    wait_generation(service, 2)
    assert command.poll() is None
    with pytest.raises((ConnectionEnded, ConnectionError)):
        get(service.port, "/crash")
    output, _ = command.communicate(timeout=DEADLINE)
    assert command.returncode == 1 and "exit 3" in output, output
    wait_generation(service, 1)
    assert service.status()["last_reload"]["ok"] is False


def kill_and_wait(service):
    """kill -9 of the only serving process, as from an operator; returns when another one serves."""
    victim = service.pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: service.status()["state"] == "running" and service.pids() not in ([], [victim]),
               "another process serves")


def test_one_kill_in_the_probation_says_nothing_about_the_code_a_second_one_does(serve):
    service = serve(count=1, probation="60s")
    service.crashes_expected = True
    service.reload()
    kill_and_wait(service)
    assert service.processes()[0]["generation"] == 2
    assert service.status()["last_reload"]["ok"] is True
    kill_and_wait(service)
    wait_generation(service, 1)
    assert service.status()["last_reload"]["ok"] is False


def test_reload_in_a_probation_takes_its_place_and_goes_back_to_what_was_proved(serve):
    service = serve(count=1, source=WAITING, probation="60s")
    service.crashes_expected = True
    first = background(service, "reload", "--wait")
    wait_generation(service, 2)
    service.reload()
    assert service.processes()[0]["generation"] == 3
    assert first.poll() is None
    with pytest.raises((ConnectionEnded, ConnectionError)):
        get(service.port, "/crash")
    output, _ = first.communicate(timeout=DEADLINE)
    assert first.returncode == 1 and "exit 3" in output, output
    wait_generation(service, 1)
