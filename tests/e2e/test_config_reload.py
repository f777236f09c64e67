"""Editing baton.ini and reloading: what changes, and that no client notices.

Clients are the storm's where a promise is about load, single connections where it is about one process.
"""
import os
import pwd
import re
import signal
import socket
from pathlib import Path

import pytest

from client import ConnectionEnded, HttpClient, build_request, get
from harness import free_port, is_alive, text_module_source, wait_until, worker_ini
from storm import Storm

REUSE_PORT = pytest.mark.parametrize("reuse_port", ["no", "yes"])

SAYS = text_module_source


def edit(service, *pairs):
    """Replaces text in baton.ini."""
    path = service.folder / "baton.ini"
    text = path.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


def append(service, text):
    with open(service.folder / "baton.ini", "a") as file:
        file.write(text)


def names(service):
    return [worker["name"] for worker in service.status()["workers"]]


def identities(service, name="web"):
    return {process["pid"] for process in service.processes(name)}


def listens(port, host="127.0.0.1"):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def answers(client, number=3):
    return [client.request("/").text for _ in range(number)]


# ---- module ----

def test_changed_module_path(serve, connect):
    service = serve(count=2, source=SAYS("one"))
    service.compile(SAYS("two"), "other.so")
    clients = [connect(service) for _ in range(20)]
    assert {client.request("/").text for client in clients} == {"one"}
    edit(service, ("./app.so", "./other.so"))
    service.reload()
    assert {client.request("/").text for client in clients} == {"two"}


def test_module_files_may_come_and_go(serve, connect):
    service = serve(count=1)
    (service.folder / "words.txt").write_text("words")
    append(service, "module_files = ./words.txt\n")
    service.reload()
    assert connect(service).request("/").generation == 2
    edit(service, ("module_files = ./words.txt\n", ""))
    (service.folder / "words.txt").unlink()
    service.reload()
    assert connect(service).request("/").generation == 3


# ---- count ----

@REUSE_PORT
def test_count_up(serve, connect, reuse_port):
    service = serve(count=1, reuse_port=reuse_port)
    clients = [connect(service) for _ in range(10)]
    assert {client.request("/").generation for client in clients} == {1}
    edit(service, ("count = 1", "count = 4"))
    service.reload()
    assert [process["slot"] for process in service.processes()] == [0, 1, 2, 3]
    assert service.worker()["count"] == 4
    assert {client.request("/").generation for client in clients} == {2}
    # Each of the four accepts.
    seen = set()
    wait_until(lambda: seen.add(get(service.port).pid) or seen == identities(service), "every process has answered")


@REUSE_PORT
def test_count_down_keeps_every_connection(serve, connect, reuse_port):
    service = serve(count=4, reuse_port=reuse_port)
    clients = [connect(service) for _ in range(40)]
    assert {client.request("/").generation for client in clients} == {1}
    old = identities(service)
    edit(service, ("count = 4", "count = 1"))
    service.reload()
    wait_until(lambda: [p["slot"] for p in service.worker()["processes"]] == [0], "only one process is left")
    assert {client.request("/").pid for client in clients} == identities(service)
    wait_until(lambda: not any(map(is_alive, old)), "the old processes have ended")


@pytest.mark.timeout(300)
@REUSE_PORT
@pytest.mark.parametrize("shape", [["--connections", "64"], ["--connections", "16", "--one-shot", "8"]],
                         ids=["busy", "one-shot"])
def test_count_up_and_down_under_load_loses_nothing(serve, shape, reuse_port):
    service = serve(count=2, reuse_port=reuse_port)
    counts = [4, 1, 3, 2, 1, 4]
    before = [2] + counts[:-1]
    with Storm(service, *shape) as storm:
        storm.reload_again_and_again(
            len(counts), before=lambda n: edit(service, ("count = %d" % before[n], "count = %d" % counts[n])))
    storm.assert_nothing_lost()
    assert len(service.processes()) == 4


@REUSE_PORT
def test_new_connections_find_somebody_after_each_shrink(serve, reuse_port):
    """A slot that disappears leaves a socket with a queue behind: a sibling accepts from it."""
    service = serve(count=4, reuse_port=reuse_port)
    edit(service, ("count = 4", "count = 2"))
    service.reload()
    for _ in range(200):
        assert get(service.port).status == 200


# ---- timeouts and limits ----

def test_idle_timeout(serve, connect):
    service = serve(count=1)
    append(service, "idle_timeout = 200ms\n")
    client = connect(service)
    assert client.request("/").generation == 1
    service.reload()
    assert client.request("/").generation == 2
    client.expect_close()


def test_max_package(serve, connect):
    service = serve(count=1)
    client = connect(service)
    body = b"x" * 2000
    assert client.request("/", "POST", body=body).body == body
    append(service, "max_package = 1k\n")
    service.reload()
    assert client.request("/", "POST", body=body[:1000]).status == 200
    assert client.request("/", "POST", body=body).status == 413


def test_max_head_up_and_down(serve, connect):
    service = serve(count=1, max_head="2k", max_target="1k")
    long = {"X-Long": "x" * 3000}
    assert connect(service).request("/", headers=long).status == 431
    edit(service, ("max_head = 2k", "max_head = 8k"))
    service.reload()
    client = connect(service)
    assert client.request("/", headers=long).status == 200
    edit(service, ("max_head = 8k", "max_head = 2k"))
    service.reload()
    assert client.request("/", headers=long).status == 431


def test_keepalive_requests(serve, connect):
    service = serve(count=1)
    append(service, "keepalive_requests = 2\n")
    service.reload()
    client = connect(service)
    assert not client.request("/").closes
    assert client.request("/").closes


def test_drain_timeout_is_the_new_one_in_the_next_reload(serve, connect):
    service = serve(count=1)
    append(service, "drain_timeout = 100ms\n")
    service.reload()
    client = connect(service)
    client.send(build_request("/sleep/60000"))
    assert get(service.port).status == 200
    service.reload()
    assert client.read_response().status == 503


def test_settings_of_the_master(serve):
    service = serve(count=1, master={"log_level": "info"})
    edit(service, ("log_level = info", "log_level = debug\nlog_file = log/second.log"))
    service.reload()
    service.reload()
    assert (service.folder / "log" / "second.log").read_text()


def test_pid_file_waits_for_a_restart(serve):
    service = serve(count=1, master={"stop_timeout": "1s"})
    edit(service, ("stop_timeout = 1s", "pid_file = run/other.pid"))
    service.signal(signal.SIGUSR1)
    wait_until(lambda: "reload generation=2" in service.log, "the reload is done")
    assert service.pid_file.exists() and not (service.folder / "run" / "other.pid").exists()
    edit(service, ("pid_file = run/other.pid", "stop_timeout = 1s"))
    assert service.status()["state"] == "running"


# ---- user ----

def test_user(serve, connect):
    service = serve(count=2)
    client = connect(service)
    assert client.request("/").generation == 1
    append(service, "user = nobody\n")
    service.reload()
    nobody = pwd.getpwnam("nobody").pw_uid
    assert {Path("/proc", str(pid)).stat().st_uid for pid in identities(service)} == {nobody}
    assert client.request("/").generation == 2
    edit(service, ("user = nobody\n", ""))
    service.reload()
    assert {Path("/proc", str(pid)).stat().st_uid for pid in identities(service)} == {0}
    assert client.request("/").generation == 3


# ---- workers ----

def test_new_worker(serve, connect):
    service = serve(count=1)
    client = connect(service)
    old_port, new_port = service.port, free_port()
    assert client.request("/").generation == 1
    append(service, "[worker api]\nlisten = http://127.0.0.1:%d\ncount = 2\nmodule = ./http-echo.so\n" % new_port)
    service.reload()
    assert names(service) == ["web", "api"]
    assert len(service.processes("api")) == 2
    assert get(new_port).status == 200
    assert client.request("/").generation == 2
    assert get(old_port).status == 200
    # It is one like any other from now on.
    service.reload("api")
    assert get(new_port).generation == 3
    assert client.request("/").generation == 2


def test_new_worker_whose_code_does_not_start_changes_nothing(serve, connect):
    service = serve(count=1)
    client = connect(service)
    assert client.request("/").generation == 1
    service.compile("#include <baton.h>\nstatic int start(baton_worker *w) { (void) w; return 1; }\n"
                    "BATON_MODULE(.on_worker_start = start);\n", "bad.so")
    port = free_port()
    append(service, "[worker api]\nlisten = text://127.0.0.1:%d\nmodule = ./bad.so\n" % port)
    result = service.command("reload")
    assert result.returncode == 1 and "api" in result.stderr
    wait_until(lambda: names(service) == ["web"], "the worker is gone")
    wait_until(lambda: not listens(port), "its address is free")
    assert client.request("/").generation == 1


def test_removed_worker(serve, connect):
    port = free_port()
    service = serve(worker_ini(count=1) + "[worker old]\nlisten = http://127.0.0.1:%d\nmodule = ./http-echo.so\n" % port)
    stays, leaves = connect(service), connect(port)
    assert stays.request("/").generation == leaves.request("/").generation == 1
    busy = connect(port).send(build_request("/sleep/500"))
    assert get(port).status == 200
    pids = identities(service, "old")
    text = (service.folder / "baton.ini").read_text()
    (service.folder / "baton.ini").write_text(text[:text.index("[worker old]")])
    service.reload()
    wait_until(lambda: names(service) == ["web"], "the worker is gone")
    assert busy.read_response().status == 200  # what was being handled is finished
    wait_until(lambda: not any(map(is_alive, pids)), "its processes have ended")
    wait_until(lambda: not listens(port), "its address is free")
    assert stays.request("/").generation == 2


def test_all_workers_replaced_by_others(serve):
    service = serve(count=2)
    port = free_port()
    edit(service, ("[worker web]", "[worker other]"), ("127.0.0.1:%d" % service.port, "127.0.0.1:%d" % port))
    service.reload()
    assert get(port).generation == 2
    wait_until(lambda: names(service) == ["other"], "only the new one is left")


def test_renamed_worker_keeps_the_address(serve, connect):
    """The same address under another name: the socket stays open, nobody is refused."""
    service = serve(count=2)
    with Storm(service, "--connections", "0", "--one-shot", "4") as storm:
        edit(service, ("[worker web]", "[worker other]"))
        service.reload()
        wait_until(lambda: names(service) == ["other"], "only the new one is left")
    assert not storm.report["refused"] and not storm.report["reset"] and not storm.report["lost"]


def test_not_reloadable_worker_waits_until_it_is_named(serve):
    port = free_port()
    service = serve(worker_ini(count=1) + "[worker gate]\nlisten = http://127.0.0.1:%d\nmodule = ./http-echo.so\n"
                                          "reloadable = no\ncount = 1\n" % port)
    pids = identities(service, "gate")
    edit(service, ("reloadable = no\ncount = 1", "reloadable = no\ncount = 2"))
    service.reload()
    assert identities(service, "gate") == pids
    assert "worker gate: reloadable = no: waits for `reload gate`: count: 1 -> 2" in service.must("check").stdout
    service.reload("gate")
    assert len(service.processes("gate")) == 2
    assert not identities(service, "gate") & pids


# ---- addresses ----

def test_changed_address(serve, connect):
    service = serve(count=2)
    client, old_port, new_port = connect(service), service.port, free_port()
    assert client.request("/").generation == 1
    edit(service, (":%d" % old_port, ":%d" % new_port))
    service.reload()
    assert get(new_port).generation == 2
    assert client.request("/").generation == 2  # a connection does not care where it was accepted
    wait_until(lambda: not listens(old_port), "the old address is closed")


@pytest.mark.timeout(300)
@REUSE_PORT
def test_changed_address_under_load_loses_no_connection(serve, reuse_port):
    service = serve(count=2, reuse_port=reuse_port)
    ports = [service.port, free_port(), free_port()]
    with Storm(service, "--connections", "64") as storm:
        storm.reload_again_and_again(
            2, before=lambda n: edit(service, (":%d" % ports[n], ":%d" % ports[n + 1])))
        assert get(ports[2]).generation == 3
    storm.assert_nothing_lost()


def test_new_address_is_open_before_the_old_one_closes(serve):
    """At any moment one of the two takes a connection, and answers it."""
    service = serve(count=1)
    old_port, new_port = service.port, free_port()
    edit(service, (":%d" % old_port, ":%d" % new_port))
    pending = []
    service.signal(signal.SIGUSR1)

    def is_done():
        for port in (old_port, new_port):
            try:
                pending.append(HttpClient(port))
                return port == new_port and not listens(old_port)
            except ConnectionRefusedError:
                continue
        raise AssertionError("neither address took a connection")
    try:
        wait_until(is_done, "only the new address is left")
        for client in pending:
            assert client.request("/").status == 200
    finally:
        for client in pending:
            client.close()


def test_address_in_use_changes_nothing(serve, connect):
    service = serve(count=1)
    client = connect(service)
    assert client.request("/").generation == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        edit(service, (":%d" % service.port, ":%d" % port), ("count = 1", "count = 3"))
        result = service.command("reload")
    assert result.returncode == 1 and str(port) in result.stderr and "in use" in result.stderr
    assert len(service.processes()) == 1
    assert client.request("/").generation == 1
    assert get(service.port).generation == 1


@pytest.mark.timeout(300)
def test_reuse_port_on_and_off_under_load_loses_nothing(serve):
    service = serve(count=2, reuse_port="no")
    with Storm(service, "--connections", "32", "--one-shot", "4") as storm:
        storm.reload_again_and_again(4, before=lambda n: edit(
            service, ("reuse_port = " + ("no", "yes")[n % 2], "reuse_port = " + ("yes", "no")[n % 2])))
    storm.assert_nothing_lost()


# ---- a file with mistakes ----

MISTAKES = [
    (("count = 2", "count = x"), r'baton\.ini:6: worker web: count: "x" is not a number from 1 to 1024'),
    (("[worker web]", "[worker web]\ncolour = red"), r"baton\.ini:5: worker web: colour: unknown setting"),
    (("http://", "gopher://"), r'baton\.ini: worker web: listen: "gopher://[^"]*": unknown protocol "gopher"'),
    (("./http-echo.so", "./none.so"), r"baton\.ini: worker web: module: cannot read .*/none\.so: No such file"),
    (("count = 2", "count = 2\nprobe = health"), r'baton\.ini: worker web: probe: a path begins with "/"'),
]


@pytest.mark.parametrize("change, complaint", MISTAKES, ids=["value", "setting", "protocol", "module", "probe"])
def test_a_file_with_mistakes_changes_nothing(serve, connect, change, complaint):
    service = serve(worker_ini(master={"stop_timeout": "2s"}))
    client = connect(service)
    pids = service.pids()
    assert client.request("/").generation == 1
    edit(service, change)

    result = service.command("reload")
    assert result.returncode in (1, 2), result.stderr
    assert re.search(complaint, result.stderr), result.stderr

    service.signal(signal.SIGUSR1)
    wait_until(lambda: re.search(complaint.replace('"', '\\\\?"'), service.log), "the reason is in the log")
    assert service.pids() == pids
    assert client.request("/").generation == 1

    edit(service, change[::-1])
    service.reload()
    assert client.request("/").generation > 1


def test_a_file_that_is_gone_changes_nothing(serve, connect):
    service = serve(count=1)
    client = connect(service)
    path = service.folder / "baton.ini"
    path.rename(service.folder / "kept.ini")
    service.signal(signal.SIGUSR1)
    wait_until(lambda: "No such file or directory" in service.log, "the reason is in the log")
    (service.folder / "kept.ini").rename(path)
    assert client.request("/").generation == 1
    assert service.reload().returncode == 0


def test_crash_restarts_keep_the_configuration_that_serves(serve, connect):
    """What lies on disk, edited but not reloaded, is nobody's business yet."""
    service = serve(count=1, max_package="1k")
    edit(service, ("max_package = 1k", "max_package = 8k"))
    before = service.pids()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: service.pids() and service.pids() != before, "the process was replaced")
    assert connect(service).request("/", "POST", body=b"x" * 2000).status == 413
    service.crashes_expected = True


# ---- going back ----

def test_rollback_restores_the_configuration(serve, connect):
    service = serve(count=2, max_package="1k", probation="0")
    body = b"x" * 2000
    edit(service, ("count = 2", "count = 3"), ("max_package = 1k", "max_package = 8k"))
    service.reload("--wait")
    client = connect(service)
    assert client.request("/", "POST", body=body).status == 200
    service.must("rollback")
    wait_until(lambda: len(service.worker()["processes"]) == 2, "the third slot is gone")
    assert client.request("/").generation == 1
    assert client.request("/", "POST", body=body).status == 413
    # The file on disk is the user's: check says what the next reload would do with it.
    text = service.must("check").stdout
    assert "worker web: count: 2 -> 3" in text and "worker web: max_package: 1k -> 8k" in text


def test_failed_reload_restores_the_configuration(serve, connect):
    """New count, new address, and code that refuses to start in the second slot: everything is as before."""
    service = serve(count=2, source="""
#include <baton.h>
static int start(baton_worker *worker) { return baton_generation() > 1 && baton_worker_slot(worker) == 1; }
static void on_request(baton_conn *conn, const baton_request *req)
{ (void) req; baton_reply(conn, 200, "text/plain", baton_generation() > 1 ? "new" : "old"); }
BATON_MODULE(.on_worker_start = start, .on_request = on_request);
""")
    client, old_port, new_port = connect(service), service.port, free_port()
    edit(service, ("count = 2", "count = 3"), (":%d" % old_port, ":%d" % new_port))
    result = service.command("reload")
    assert result.returncode == 1
    wait_until(lambda: len(service.worker()["processes"]) == 2, "the old processes serve")
    assert answers(client) == ["old"] * 3
    assert get(old_port).text == "old"
    wait_until(lambda: not listens(new_port), "the new address is closed again")


# ---- check ----

def test_check_is_the_dry_run(serve):
    service = serve(count=2)
    ok = "%s/baton.ini: ok, 1 worker\n" % service.folder
    assert service.must("check").stdout == ok + "a reload would change nothing\n"

    port = free_port()
    edit(service, ("count = 2", "count = 4\ndrain_timeout = 5s"))
    append(service, "[worker api]\nlisten = http://127.0.0.1:%d\nmodule = ./http-echo.so\n" % port)
    service.compile(SAYS("new"), "http-echo.so")
    assert service.must("check").stdout.splitlines() == [
        "%s/baton.ini: ok, 2 workers" % service.folder,
        "a reload would change:",
        "  worker web: count: 2 -> 4",
        "  worker web: drain_timeout: 30s -> 5s",
        "  worker web: module: changed",
        "  worker api: new, listens on http://127.0.0.1:%d" % port,
    ]
    assert len(service.processes()) == 2 and names(service) == ["web"]  # it was dry

    service.reload()
    assert service.must("check").stdout.splitlines()[1:] == ["a reload would change nothing"]
    text = (service.folder / "baton.ini").read_text()
    (service.folder / "baton.ini").write_text(text[:text.index("[worker api]")])
    assert service.must("check").stdout.splitlines()[1:] == ["a reload would change:", "  worker api: removed"]


def test_check_beside_a_stopped_service_is_only_a_check(new_service):
    service = new_service(worker_ini())
    assert service.must("check").stdout == "%s/baton.ini: ok, 1 worker\n" % service.folder


def test_signals_apply_the_file_too(serve):
    service = serve(count=1)
    for number, count in ((signal.SIGUSR1, 2), (signal.SIGHUP, 3), (signal.SIGUSR2, 4)):
        edit(service, ("count = %d" % (count - 1), "count = %d" % count))
        service.signal(number)
        wait_until(lambda: len(service.processes()) == count, "there are %d processes" % count)


# ---- everything or nothing ----

FAILS = """
#include <baton.h>
static int start(baton_worker *worker) { (void) worker; return 1; }
static void on_request(baton_conn *conn, const baton_request *req) { (void) conn; (void) req; }
BATON_MODULE(.on_worker_start = start, .on_request = on_request);
"""


def worker_text(name, port, *lines):
    return "[worker %s]\nlisten = http://127.0.0.1:%d\nmodule = ./http-echo.so\ncount = 1\n%s\n" % (
        name, port, "\n".join(lines))


def fails(service, *words):
    result = service.command("reload", *words)
    assert result.returncode == 1, result.stdout
    wait_until(lambda: service.status()["state"] == "running", "the way back is over")
    return result.stderr


def test_failed_reload_with_added_removed_and_moved_workers_restores_everything(serve, connect):
    ports = [free_port() for _ in range(4)]
    service = serve("[baton]\nlog_level = info\n" + worker_text("web", ports[0], "drain_timeout = 1s") +
                    worker_text("old", ports[1]))
    service.compile(FAILS, "bad.so")
    clients = {port: connect(port) for port in ports[:2]}
    pids = {port: client.request("/").pid for port, client in clients.items()}
    (service.folder / "baton.ini").write_text(
        "[baton]\nlog_level = info\nlog_file = other.log\n" + worker_text("web", ports[2], "count = 2").replace(
            "count = 1\n", "") + worker_text("new", ports[3]) +
        "[worker bad]\nmodule = ./bad.so\n")
    assert "worker bad slot 0" in fails(service)
    assert names(service) == ["web", "old"]
    assert len(service.processes("web")) == 1 and not (service.folder / "other.log").exists()
    for port, client in clients.items():
        assert client.request("/").generation == 1 and get(port).generation == 1
    assert pids[ports[1]] == clients[ports[1]].request("/").pid, "whom it did not concern it did not touch"
    wait_until(lambda: not listens(ports[2]) and not listens(ports[3]), "the new addresses are closed")


def test_failed_reload_leaves_no_socket_without_a_process(serve, connect):
    """With reuse_port the kernel spreads connections over all sockets: one that nobody accepts from swallows them."""
    service = serve(count=2, reuse_port="yes", source=SAYS("one"))
    service.compile(FAILS, "app.so")
    client = connect(service)
    assert client.request("/").text == "one"
    edit(service, ("count = 2", "count = 6"))
    fails(service)
    assert {get(service.port).text for _ in range(200)} == {"one"}
    assert client.request("/").text == "one"
    assert len(service.processes()) == 2


def test_probation_that_fails_takes_the_settings_of_the_master_back(serve):
    service = serve(count=1, master={"log_level": "info"})
    service.crashes_expected = True
    edit(service, ("log_level = info", "log_file = other.log"))
    append(service, "probation = 1h\n")
    service.reload()
    wait_until((service.folder / "other.log").exists, "the new log is written")
    with pytest.raises((ConnectionEnded, ConnectionError)):
        get(service.port, "/crash")
    wait_until(lambda: {process["generation"] for process in service.processes()} == {1}, "the old code serves")
    wait_until(lambda: "reload generation=2 ok=no" in service.log, "the old log is written again")
    assert get(service.port).generation == 1


def test_plan_that_fails_in_the_middle_of_a_roll_does_not_disturb_it(serve, connect):
    """The address that the roll may go back to stays open, and who leaves still leaves."""
    ports = [free_port() for _ in range(4)]
    service = serve(worker_text("web", ports[0], "ready_timeout = 1h") + worker_text("old", ports[1]))
    client = connect(ports[0])
    assert client.request("/").generation == 1
    service.compile("#include <baton.h>\n#include <unistd.h>\n"
                    "static int start(baton_worker *w) { (void) w; while (access(\"go\", F_OK)) usleep(1000);"
                    " return access(\"bad\", F_OK) == 0; }\n"
                    "static void on_request(baton_conn *c, const baton_request *r) { (void) r;"
                    " baton_reply(c, 200, \"text/plain\", \"slow\"); }\n"
                    "BATON_MODULE(.on_worker_start = start, .on_request = on_request);\n", "slow.so")
    slow = worker_text("web", ports[2], "ready_timeout = 1h").replace("http-echo.so", "slow.so")
    (service.folder / "baton.ini").write_text(slow)  # moved, and without "old"
    service.must("reload", "--no-wait")
    wait_until(lambda: service.processes(state="starting"), "the roll is under way")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        append(service, worker_text("new", busy.getsockname()[1]))
        result = service.command("reload")
        assert result.returncode == 1 and "worker new: cannot listen" in result.stderr
    assert get(ports[0]).generation == 1, "its way back is open"
    (service.folder / "bad").touch()
    (service.folder / "go").touch()
    wait_until(lambda: service.status()["state"] == "running", "the roll has failed")
    assert get(ports[0]).generation == 1 and get(ports[1]).generation == 1
    assert client.request("/").generation == 1
    before = service.pids()
    service.crashes_expected = True
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: service.pids() not in ([], before), "its successor has the address, too")
    assert get(ports[0]).generation == 1
    assert "way-back-failed" not in service.log
    (service.folder / "baton.ini").write_text(slow)
    (service.folder / "bad").unlink()
    service.reload()
    assert get(ports[2]).text == "slow"
    wait_until(lambda: names(service) == ["web"], "the old worker is gone")


def test_worker_that_never_starts_can_be_removed_while_its_roll_waits_for_it(serve, connect):
    port = free_port()
    service = serve(worker_ini(count=1, ready_timeout="1h"))
    service.compile("#include <baton.h>\n#include <unistd.h>\n"
                    "static int start(baton_worker *w) { (void) w; return pause(); }\n"
                    "static void on_request(baton_conn *c, const baton_request *r) { (void) c; (void) r; }\n"
                    "BATON_MODULE(.on_worker_start = start, .on_request = on_request);\n", "slow.so")
    client = connect(service)
    assert client.request("/").generation == 1
    text = (service.folder / "baton.ini").read_text()
    append(service, "[worker slow]\nlisten = http://127.0.0.1:%d\nmodule = ./slow.so\nready_timeout = 1h\n" % port)
    service.must("reload", "--no-wait")
    wait_until(lambda: service.status()["state"] == "reloading" and "slow" in names(service) and
               service.processes("slow", "starting"), "it hangs")
    (service.folder / "baton.ini").write_text(text)
    service.reload()
    wait_until(lambda: names(service) == ["web"], "it is gone")
    wait_until(lambda: not listens(port), "its address is closed")
    assert client.request("/").generation == 3


# ---- workers that change places ----

def test_removed_worker_comes_back(serve, connect):
    port = free_port()
    service = serve(worker_ini(count=1) + worker_text("other", port))
    with_both = (service.folder / "baton.ini").read_text()
    alone = with_both[:with_both.index("[worker other]")]
    client = connect(service)
    busy = connect(port).send(build_request("/sleep/1500"))
    assert get(port).status == 200
    for number in range(6):
        (service.folder / "baton.ini").write_text(alone if number % 2 == 0 else with_both)
        service.reload()
        assert client.request("/").generation == number + 2
        if number % 2 == 1:
            assert get(port).generation == number + 2
    assert busy.read_response().status == 200
    wait_until(lambda: names(service) == ["web", "other"], "the removed ones are gone")


@REUSE_PORT
def test_two_workers_swap_their_addresses(serve, connect, reuse_port):
    ports = [free_port(), free_port()]
    service = serve(worker_text("a", ports[0], "reuse_port = " + reuse_port) +
                    worker_text("b", ports[1], "reuse_port = " + reuse_port))
    pids = [get(port).pid for port in ports]
    clients = [connect(port) for port in ports]
    for client, pid in zip(clients, pids):
        assert client.request("/").pid == pid
    edit(service, (":%d" % ports[0], ":x"), (":%d" % ports[1], ":%d" % ports[0]), (":x", ":%d" % ports[1]))
    service.reload()
    a, b = (service.pids(name)[0] for name in "ab")
    assert [get(port).pid for port in ports] == [b, a]
    assert [client.request("/").pid for client in clients] == [a, b], "connections stay with their worker"


def test_address_of_a_worker_that_keeps_it_is_not_given_to_another(serve):
    ports = [free_port(), free_port()]
    service = serve(worker_text("gate", ports[0], "reloadable = no") + worker_text("web", ports[1]))
    edit(service, (":%d" % ports[0], ":%d" % free_port()), (":%d" % ports[1], ":%d" % ports[0]))
    complaint = fails(service)
    assert "worker web: http://127.0.0.1:%d is the address of worker gate" % ports[0] in complaint
    assert get(ports[0]).generation == get(ports[1]).generation == 1
    service.reload("gate")
    service.reload("web")
    assert get(ports[0]).pid == service.pids("web")[0]


@pytest.mark.timeout(300)
def test_unix_address_there_and_back_under_load(serve, connect):
    service = serve(worker_ini(count=2, listen="http+unix://{folder}/a.sock"))
    a, b = str(service.folder / "a.sock"), str(service.folder / "b.sock")
    with Storm(service, "--connections", "16", unix=a) as storm:
        for old, new in ((a, b), (b, a)) * 3:
            edit(service, (old, new))
            service.reload()
            assert get(new).status == 200
            wait_until(lambda: not Path(old).exists(), "the old one is gone")
    storm.assert_nothing_lost()


def test_port_0_stays_the_same_port(serve):
    service = serve(worker_ini(count=1, listen="http://127.0.0.1:0", reuse_port="yes"))
    address = service.worker()["addresses"]
    port = int(address[0].rpartition(":")[2])
    for count in ("2", "3", "1"):
        path = service.folder / "baton.ini"
        path.write_text(re.sub(r"count = \d", "count = " + count, path.read_text()))
        service.reload()
        assert service.worker()["addresses"] == address
        assert {get(port).status for _ in range(20)} == {200}


def test_host_names_are_looked_up_when_a_reload_needs_them(serve, connect):
    service = serve(count=1)
    client = connect(service)
    old_port, port = service.port, free_port()
    edit(service, ("http://127.0.0.1:%d" % old_port, "http://localhost:%d" % port))
    service.reload()
    assert get(port).generation == 2 and client.request("/").generation == 2
    edit(service, ("localhost", "no-such-host.invalid"))
    complaint = fails(service)
    assert 'worker web: host "no-such-host.invalid": ' in complaint
    assert get(port).generation == 2


# ---- count, in quick succession ----

def test_slot_that_is_being_emptied_is_filled_again_at_once(serve, connect):
    """count goes down and up while a request of the slot that goes is being handled."""
    service = serve(count=2, drain_timeout="1h")
    pids = service.pids()
    busy = []
    while {client.pid_of_busy for client in busy} != set(pids):
        client = connect(service)
        client.pid_of_busy = client.request("/").pid
        client.send(build_request("/sleep/600000"))
        busy.append(client)
    edit(service, ("count = 2", "count = 1"))
    service.reload()
    edit(service, ("count = 1", "count = 2"))
    service.reload()
    assert [process["slot"] for process in service.processes()] == [0, 1]
    assert {process["pid"] for process in service.processes(state="draining")} >= set(pids)


@REUSE_PORT
@pytest.mark.timeout(300)
def test_count_changes_faster_than_rolls(serve, reuse_port):
    service = serve(count=2, reuse_port=reuse_port)
    count = 2
    with Storm(service, "--connections", "32", "--one-shot", "2") as storm:
        for wanted in (5, 1, 4, 2, 6, 1, 3):
            edit(service, ("count = %d" % count, "count = %d" % wanted))
            service.must("reload", "--no-wait")
            count = wanted
        service.reload()
    storm.assert_nothing_lost()
    assert [process["slot"] for process in service.processes()] == [0, 1, 2]
    wait_until(lambda: len(service.worker()["processes"]) == 3, "the others have ended")


@pytest.mark.timeout(300)
def test_count_changes_with_stop_first_lose_nothing(serve):
    service = serve(count=3, strategy="stop-first")
    count = 3
    with Storm(service, "--connections", "32") as storm:
        for wanted in (2, 4, 2):
            edit(service, ("count = %d" % count, "count = %d" % wanted))
            service.reload()
            count = wanted
    storm.assert_nothing_lost()
    assert len(service.processes()) == 2


def test_slot_in_backoff_disappears(new_service):
    service = new_service(worker_ini(count=2, module="./app.so"))
    service.compile("#include <baton.h>\n#include <unistd.h>\n"
                    "static void look(void *arg) { if (baton_worker_slot(arg) == 1 && access(\"broken\", F_OK) == 0)"
                    " _exit(3); }\n"
                    "static int start(baton_worker *w) { return baton_timer_every(5, look, w) == NULL; }\n"
                    "static void on_request(baton_conn *c, const baton_request *r) { (void) r;"
                    " baton_reply(c, 200, \"text/plain\", \"hi\"); }\n"
                    "BATON_MODULE(.on_worker_start = start, .on_request = on_request);\n", "app.so")
    service.start()
    (service.folder / "broken").touch()
    wait_until(lambda: service.worker()["alarms"] and service.processes(state="backoff"), "slot 1 is in backoff")
    edit(service, ("count = 2", "count = 1"))
    service.reload()
    assert [process["slot"] for process in service.worker()["processes"] if process["state"] != "draining"] == [0]
    assert service.worker()["alarms"] == []
    assert get(service.port).text == "hi"
