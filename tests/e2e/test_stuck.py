"""Processes whose loop stands still: shown always, replaced only when stuck_timeout says so."""
import os
import signal
import time

from client import ConnectionEnded, build_request, get
from harness import is_alive, process_state, wait_until

PAUSE_S = 4  # longer than the stuck_timeout of the test that makes it


def stuck(service, pid):
    process = next((one for one in service.worker()["processes"] if one["pid"] == pid), None)
    return process and process["stuck_ms"]


def test_stopped_process_is_shown_as_stuck_and_left_alone(serve, connect):
    """The default: whoever debugs a process stops it for as long as he likes."""
    service = serve(count=2)
    client = connect(service)
    victim = client.request("/").pid
    os.kill(victim, signal.SIGSTOP)
    age = wait_until(lambda: stuck(service, victim), "it is shown")
    wait_until(lambda: stuck(service, victim) > age, "its age grows")
    assert {get(service.port).pid for _ in range(3)} == set(service.pids()) - {victim}, "the others are unaffected"
    assert process_state(victim) == "T" and victim in service.pids()
    os.kill(victim, signal.SIGCONT)
    wait_until(lambda: stuck(service, victim) is None, "it turns again")
    assert client.request("/").pid == victim


def test_stuck_process_is_killed_and_replaced_the_others_are_unaffected(serve, connect):
    service = serve(count=3, stuck_timeout="3s")
    service.crashes_expected = True
    clients = [connect(service) for _ in range(30)]
    owners = {client: client.request("/").pid for client in clients}
    victim = owners[clients[0]]
    pids = set(service.pids())
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: victim not in service.pids() and len(service.pids()) == 3, "it is replaced")
    assert pids - {victim} < set(service.pids())
    for client in clients:
        if owners[client] != victim:
            assert client.request("/").pid == owners[client]
    assert any((process["last_exit"] or "").startswith("stuck for") for process in service.processes())
    assert "stuck_timeout" in service.log


def test_endless_loop_is_stuck_too(serve, connect):
    service = serve(count=1, stuck_timeout="2s")
    service.crashes_expected = True
    before = service.pids()
    client = connect(service).send(build_request("/block/60000"))
    wait_until(lambda: service.pids() not in ([], before), "it is replaced")
    assert get(service.port).status == 200
    try:
        client.read_response()
        raise AssertionError("nobody could answer this")
    except (ConnectionEnded, ConnectionError):
        pass


def test_stuck_process_that_drains_is_killed(serve, connect):
    service = serve(count=1, stuck_timeout="2s", drain_timeout="1h")
    service.crashes_expected = True
    client = connect(service)
    victim = client.request("/").pid
    client.send(build_request("/sleep/600000"))
    assert get(service.port).pid == victim
    service.reload()
    assert [process["pid"] for process in service.processes(state="draining")] == [victim]
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: not is_alive(victim), "it is killed")
    assert get(service.port).generation == 2
    assert service.status()["last_reload"]["ok"] is True


def test_stuck_code_on_probation_is_rolled_back(serve, connect):
    service = serve(count=1, stuck_timeout="2s", probation="1h")
    service.crashes_expected = True
    service.reload()
    client = connect(service).send(build_request("/block/60000"))
    wait_until(lambda: [process["generation"] for process in service.processes()] == [1], "the old code serves")
    assert "stuck for" in service.status()["last_reload"]["message"]
    client.close()


def test_pause_of_the_whole_service_is_nobodys_fault(serve):
    """The machine sleeps, or somebody stops the whole group: when it goes on, the master must not kill everybody."""
    service = serve(count=3, stuck_timeout="2s")
    pids = service.pids()
    for pid in (service.pid, *pids):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    service.signal(signal.SIGCONT)
    service.status()  # the master has looked round before the others could do anything
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not any(stuck(service, pid) for pid in pids), "they go on")
    assert service.pids() == pids and "stuck_timeout" not in service.log
