"""Memory that runs out: every Nth allocation of some processes fails while clients are served and passed.

What is promised: a client may lose an answer or its connection, one that asked for nothing loses nothing, no process
dies, and afterwards everything is as before.
"""
import pytest

from client import ConnectionEnded, build_request, get
from harness import wait_until
from storm import Storm

pytestmark = pytest.mark.failpoints

# Not so often that making a pass channel, which takes four, can never succeed while the drain lasts.
SELDOM = (5, 11, 17, 53)
SOMETIMES = (2, 5, 17, 53)

REQUESTS = {
    "plain": build_request("/"),
    "body": build_request("/", "POST", body=b"b" * 40000),
    "chunks": build_request("/", "POST", chunks=[b"c" * 3000] * 10),
    "later": build_request("/sleep/1"),
    "in parts": build_request("/stream/5"),
    "pipelined": build_request("/") * 8,
}


def fail_allocations(service, every, role):
    service.arm("alloc", "fail ENOMEM", every=every, role=role)


def try_all(service, connect):
    """Sends each kind of request in two halves. Returns how many were answered in full, and how many were not."""
    answered = lost = 0
    for data in REQUESTS.values():
        try:
            client = connect(service)
            client.send(data[:20])
            client.send(data[20:])
            for _ in range(8 if data == REQUESTS["pipelined"] else 1):
                assert client.read_response().status in (200, 503)
            answered += 1
        except (ConnectionEnded, ConnectionError):
            lost += 1
    return answered, lost


def open_idle(service, connect, count=16):
    clients = [connect(service) for _ in range(count)]
    for client in clients:
        assert client.request("/").status == 200
    return clients


def assert_unharmed(service, clients, connect):
    """Who was not touched has its connection still; everybody else is served as if nothing had been."""
    for client in clients:
        assert client.request("/").status == 200
    assert try_all(service, connect) == (len(REQUESTS), 0)


@pytest.mark.parametrize("every", SOMETIMES)
def test_requests_get_errors_but_no_process_dies(serve, connect, every):
    service = serve(count=1)
    pids = service.pids()
    clients = open_idle(service, connect)
    fail_allocations(service, every, "web.0")
    total_lost = 0
    for _ in range(20):
        total_lost += try_all(service, connect)[1]
    assert total_lost > 0, "nothing failed: this test tests nothing"
    service.disarm("alloc")
    assert_unharmed(service, clients, connect)
    assert service.pids() == pids


def test_process_without_any_memory_serves_again_when_there_is_some(serve, connect):
    service = serve(count=1)
    clients = open_idle(service, connect)
    fail_allocations(service, 1, "web.0")
    for _ in range(5):
        assert try_all(service, connect)[0] == 0
    service.disarm("alloc")
    assert_unharmed(service, clients, connect)


def test_siblings_of_a_process_without_memory_do_not_notice(serve, connect):
    service = serve(count=2)
    clients = open_idle(service, connect, 32)
    owners = {client: client.request("/").pid for client in clients}
    others = [client for client in clients if owners[client] == service.pids()[1]]
    fail_allocations(service, 1, "web.0")
    for client in others:
        assert client.request("/", "POST", body=b"b" * 100000).pid == owners[client]
    service.disarm("alloc")
    assert_unharmed(service, clients, connect)


def test_storm_goes_on_after_allocations_have_failed(serve, connect):
    service = serve(count=2)
    pids = service.pids()
    clients = open_idle(service, connect)
    with Storm(service, "--connections", "16", "--one-shot", "2", "--split", "5") as storm:
        for every in SOMETIMES:
            for role in ("web.0", "web.1"):
                fail_allocations(service, every, role)
                service.wait_claimed("alloc")
        service.disarm("alloc")
    assert storm.report["requests"] > 0
    assert_unharmed(service, clients, connect)
    assert service.pids() == pids


def assert_consistent(service):
    """Every slot serves, and all of them the same code."""
    def is_whole():
        processes = service.processes()
        return len(processes) == 2 and len({process["generation"] for process in processes}) == 1
    wait_until(is_whole, "every slot serves the same generation")


@pytest.mark.parametrize("every", SELDOM)
def test_reload_without_memory_succeeds_or_says_why_it_does_not(serve, connect, every):
    service = serve(count=2)
    clients = open_idle(service, connect, 32)
    halves = [connect(service).send(build_request("/", "POST", body=b"b" * 1000)[:-500]) for _ in range(8)]
    fail_allocations(service, every, "web.0")
    result = service.command("reload")
    assert result.returncode == 0 or result.stderr.strip(), result
    service.disarm("alloc")
    assert_consistent(service)
    for half in halves:
        half.close()
    service.reload()
    assert_consistent(service)
    assert_unharmed(service, clients, connect)


def test_successor_without_any_memory_fails_the_reload_with_the_reason(serve, connect):
    service = serve(count=2)
    clients = open_idle(service, connect)
    fail_allocations(service, 1, "web.1")
    result = service.command("reload")
    assert result.returncode == 1
    assert "not enough memory" in result.stderr, result
    service.disarm("alloc")
    assert_consistent(service)
    for client in clients:
        assert client.request("/").generation == 1
    service.reload()
    assert {process["generation"] for process in service.processes()} == {3}


@pytest.mark.parametrize("every", SOMETIMES)
def test_master_without_memory_refuses_politely_and_lives(serve, connect, every):
    service = serve(count=2)
    clients = open_idle(service, connect)
    fail_allocations(service, every, "master")
    for _ in range(3):
        for words in (("status", "--json"), ("reload",), ("reload", "web"), ("check",)):
            result = service.command(*words)
            assert result.returncode == 0 or result.stderr.strip(), (words, result)
    service.disarm("alloc")
    assert service.is_running
    wait_until(lambda: service.status()["state"] == "running", "the master has come to rest")
    assert_consistent(service)
    service.reload()
    assert_consistent(service)
    assert_unharmed(service, clients, connect)
