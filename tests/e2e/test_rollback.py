"""Going back on demand: `baton rollback`, and what `baton generations` says about it."""
import hashlib
import json
import os
import re
import signal
import socket

import pytest

from client import get
from harness import free_port, text_module_source, wait_until, worker_ini
from storm import Storm

CRASHING = """
#include <baton.h>
#include <stdlib.h>
static int start(baton_worker *worker)
{
    (void) worker;
    baton_log(BATON_LOG_ERROR, "about to give up");
    abort();
}
BATON_MODULE(.on_worker_start = start);
"""


def deploy(service, text, *words):
    service.compile(text_module_source(text), "app.so")
    return service.reload(*(words or ("--wait",)))


def generations(service):
    return json.loads(service.must("generations", "--json").stdout)


def state_of(service, number):
    return next((one["state"] for one in generations(service) if one["number"] == number), None)


@pytest.fixture
def service(serve):
    return serve(count=2, source=text_module_source("one"), probation="0", module="./app.so")


# ---- rollback ----

def test_rollback_goes_back_and_keeps_connections(service, connect):
    clients = [connect(service) for _ in range(20)]
    assert {client.request("/").text for client in clients} == {"one"}
    deploy(service, "two")
    assert {client.request("/").text for client in clients} == {"two"}
    result = service.must("rollback")
    assert "generation 1" in result.stdout.splitlines()[-1]
    assert {client.request("/").text for client in clients} == {"one"}
    assert {process["generation"] for process in service.processes()} == {1}
    assert service.worker()["generation"] == 1


def test_rollback_twice_goes_back_twice(service):
    deploy(service, "two")
    deploy(service, "three")
    assert get(service.port).text == "three"
    service.must("rollback", "--wait")
    assert get(service.port).text == "two"
    service.must("rollback", "--wait")
    assert get(service.port).text == "one"
    nothing = service.command("rollback")
    assert nothing.returncode == 1
    assert nothing.stderr == "baton: rollback failed: there is no earlier generation to go back to\n"
    assert get(service.port).text == "one"


def test_nothing_to_go_back_to_exits_1_with_words(service):
    result = service.command("rollback")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "baton: rollback failed: there is no earlier generation to go back to\n"
    assert get(service.port).text == "one"


def test_rollback_of_one_worker(serve):
    service = serve(worker_ini(count=1, module="./app.so", probation="0") +
                    "[worker second]\nmodule = ./app.so\nlisten = http+unix://{folder}/s.sock\nprobation = 0\n",
                    source=text_module_source("one"))
    second = str(service.folder / "s.sock")
    deploy(service, "two")
    service.must("rollback", "second")
    assert (get(service.port).text, get(second).text) == ("two", "one")
    nothing = service.command("rollback", "second")
    assert nothing.returncode == 1 and "no earlier generation of this worker to go back to" in nothing.stderr
    unknown = service.command("rollback", "third")
    assert unknown.returncode == 2
    assert unknown.stderr == 'baton: rollback: no worker "third": there are web, second\n'


def test_rollback_during_probation(serve, connect):
    """The generation on probation is left: the last one that had proved itself serves, not the one before it."""
    service = serve(count=2, source=text_module_source("one"), module="./app.so", probation="1h")
    client = connect(service)
    edit = service.folder / "baton.ini"
    edit.write_text(edit.read_text().replace("probation = 1h", "probation = 0"))
    deploy(service, "two")
    edit.write_text(edit.read_text().replace("probation = 0", "probation = 1h"))
    deploy(service, "three", "web")
    assert client.request("/").text == "three"
    assert state_of(service, 3) == "probation"
    service.must("rollback")
    assert client.request("/").text == "two"
    assert state_of(service, 2) == "serving"


def test_crash_after_a_rollback_restarts_what_was_gone_back_to(service):
    deploy(service, "two")
    service.must("rollback", "--wait")
    before = service.pids()
    os.kill(before[0], signal.SIGKILL)
    service.crashes_expected = True
    wait_until(lambda: len(service.pids()) == 2 and service.pids() != before, "the process was replaced")
    assert {get(service.port).text for _ in range(20)} == {"one"}


def test_reload_after_a_rollback_is_a_new_generation(service):
    deploy(service, "two")
    service.must("rollback", "--wait")
    deploy(service, "three")
    assert get(service.port).text == "three"
    assert {process["generation"] for process in service.processes()} == {3}
    service.must("rollback")
    assert get(service.port).text == "one"


@pytest.mark.timeout(300)
def test_rollbacks_under_load_lose_nothing(service):
    with Storm(service, "--connections", "64", "--one-shot", "2", versions="body") as storm:
        for number in range(5):
            deploy(service, "version %d" % number)
            assert get(service.port).text == "version %d" % number
            service.must("rollback")
            assert get(service.port).text == "one"
    storm.assert_nothing_lost()
    assert set(storm.report["version_names"]) <= {"one"} | {"version %d" % number for number in range(5)}


def test_rollback_overtakes_a_reload(serve):
    """A reload whose new code never becomes ready does not keep one from going back."""
    service = serve(count=1, source=text_module_source("one"), module="./app.so", probation="0", ready_timeout="1h")
    deploy(service, "two")
    service.compile("""
#include <baton.h>
#include <unistd.h>
static int start(baton_worker *worker) { (void) worker; return pause(); }
static void on_request(baton_conn *conn, const baton_request *req) { (void) conn; (void) req; }
BATON_MODULE(.on_worker_start = start, .on_request = on_request);
""", "app.so")
    service.must("reload", "--no-wait")
    wait_until(lambda: service.processes(state="starting"), "the reload is under way")
    service.must("rollback")
    assert {process["generation"] for process in service.worker()["processes"]} <= {1, 2}
    assert get(service.port).text in ("one", "two")


def worker(name, port, *lines):
    return "\n".join(("[worker %s]" % name, "listen = http://127.0.0.1:%d" % port, "module = ./app.so", "count = 1",
                      "probation = 0", *lines)) + "\n"


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def names(service):
    return sorted(worker["name"] for worker in service.status()["workers"] if not worker["leaving"])


def test_rollback_restores_who_is_there_and_where(serve, connect):
    """Workers that the newest generation has added go, those that it has removed come back, moved ones move back."""
    ports = [free_port() for _ in range(4)]
    service = serve(worker("web", ports[0]) + worker("old", ports[1]), source=text_module_source("one"))
    client = connect(ports[0])
    assert client.request("/").text == "one"
    (service.folder / "baton.ini").write_text(worker("web", ports[2]) + worker("new", ports[3]))
    deploy(service, "two")
    assert [get(port).text for port in ports[2:]] == ["two", "two"] and names(service) == ["new", "web"]
    service.must("rollback", "--wait")
    assert [get(port).text for port in ports[:2]] == ["one", "one"] and names(service) == ["old", "web"]
    assert client.request("/").text == "one"
    wait_until(lambda: not any(listens(port) for port in ports[2:]), "the newer addresses are closed")
    service.reload()
    assert [get(port).text for port in ports[2:]] == ["two", "two"] and names(service) == ["new", "web"]


def test_rollback_of_what_one_worker_did_leaves_the_others_alone(serve):
    """The newest roll was about one worker only: whoever came or went before it has nothing to do with it."""
    ports = [free_port() for _ in range(3)]
    gate = worker("gate", ports[0], "reloadable = no")
    service = serve(gate + worker("gone", ports[1]), source=text_module_source("one"))
    (service.folder / "baton.ini").write_text(gate + worker("added", ports[2]))
    deploy(service, "two")
    pids = service.pids("added")
    deploy(service, "three", "gate", "--wait")
    assert [get(port).text for port in (ports[0], ports[2])] == ["three", "two"]
    service.must("rollback", "--wait")
    assert [get(port).text for port in (ports[0], ports[2])] == ["one", "two"]
    assert service.pids("added") == pids
    wait_until(lambda: names(service) == ["added", "gate"], "nobody has come back")
    assert not listens(ports[1])


def test_rollback_whose_address_is_taken_changes_nothing(serve, connect):
    ports = [free_port(), free_port()]
    service = serve(worker("web", ports[0]), source=text_module_source("one"))
    (service.folder / "baton.ini").write_text(worker("web", ports[1]))
    deploy(service, "two")
    wait_until(lambda: not listens(ports[0]), "the old address is closed")
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        busy.bind(("127.0.0.1", ports[0]))
        busy.listen()
        result = service.command("rollback")
        assert result.returncode == 1 and "worker web: cannot listen on" in result.stderr
        assert get(ports[1]).text == "two" and service.status()["state"] == "running"
    service.must("rollback")
    assert get(ports[0]).text == "one"


def test_a_failed_reload_shows_the_last_lines_of_the_process(service):
    service.compile(CRASHING, "app.so")
    service.crashes_expected = True
    result = service.command("reload")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert re.match(r"baton: reload failed: .*signal 6", lines[0])
    assert [line for line in lines[1:] if line.startswith("  ") and "about to give up" in line]
    assert get(service.port).text == "one"


# ---- generations ----

def test_generations_are_listed_with_state_and_hash(service):
    first = hashlib.sha256((service.folder / "app.so").read_bytes()).hexdigest()
    deploy(service, "two")
    second = hashlib.sha256((service.folder / "app.so").read_bytes()).hexdigest()
    listed = generations(service)
    assert [(one["number"], one["state"], one["workers"][0]["sha256"]) for one in listed] == \
        [(1, "kept", first), (2, "serving", second)]
    assert listed[0]["created_at"] <= listed[1]["created_at"]
    assert all(one["workers"][0]["name"] == "web" for one in listed)

    lines = service.must("generations").stdout.splitlines()
    assert lines[0].split() == ["generation", "state", "made", "worker", "sha256", "build", "id"]
    assert lines[1].split()[:2] == ["1", "kept"] and first[:12] in lines[1]
    assert lines[2].split()[:3] == ["*", "2", "serving"] and second[:12] in lines[2]

    service.must("rollback", "--wait")
    assert state_of(service, 1) == "serving"
    assert state_of(service, 2) != "serving"


def test_generation_on_probation_and_then_not(serve):
    service = serve(count=1, source=text_module_source("one"), module="./app.so", probation="1s")
    service.compile(text_module_source("two"), "app.so")
    service.reload()
    assert state_of(service, 2) in ("probation", "serving")
    wait_until(lambda: state_of(service, 2) == "serving", "it has survived its probation")
    assert state_of(service, 1) == "kept"


def test_failed_generation_is_listed_with_its_reason(service):
    service.compile(CRASHING, "app.so")
    service.crashes_expected = True
    assert service.command("reload").returncode == 1
    wait_until(lambda: state_of(service, 2) == "failed", "it is known to have failed")
    failed = next(one for one in generations(service) if one["number"] == 2)
    assert "signal 6" in failed["reason"]
    assert state_of(service, 1) == "serving"
    assert "signal 6" in service.must("generations").stdout
    nothing = service.command("rollback")  # what failed is nothing to go back to
    assert nothing.returncode == 1


def test_at_most_keep_generations_are_kept(serve):
    service = serve(count=1, source=text_module_source("0"), module="./app.so", probation="0",
                    master={"keep_generations": 2})
    for number in range(1, 6):
        deploy(service, str(number))
    wait_until(lambda: sorted(int(path.name) for path in (service.folder / "run" / "modules").iterdir()) == [4, 5, 6],
               "only the kept ones are on disk")
    assert [one["number"] for one in generations(service) if one["state"] == "kept"] == [4, 5]
    service.must("rollback", "--wait")
    service.must("rollback", "--wait")
    assert get(service.port).text == "3"
    assert service.command("rollback").returncode == 1


def test_not_running_exits_3(new_service):
    service = new_service(worker_ini())
    for word in ("rollback", "generations", "upgrade"):
        result = service.command(word)
        assert result.returncode == 3 and "not running" in result.stderr
