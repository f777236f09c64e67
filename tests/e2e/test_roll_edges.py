"""What must hold at the edges of a roll: a process without descriptors, one that is stuck, a master that is gone, odd callers."""
import json
import os
import resource
import signal
import socket
import subprocess

from client import build_request, get
from harness import DEADLINE, process_state, wait_until, worker_ini


def stop_daemon(service):
    """It is nobody's child here: its last steps (a sanitizer looks for leaks in them) have to be waited for."""
    master = int(service.pid_file.read_text())
    service.must("stop")
    wait_until(lambda: process_state(master) is None, "the master has ended")


def states(service):
    return [process["state"] for process in service.status()["workers"][0]["processes"]]


def test_process_out_of_descriptors_still_passes_its_connections(serve, connect):
    service = serve(count=1)
    clients = [connect(service) for _ in range(20)]
    assert all(client.request("/").generation == 1 for client in clients)
    pid = service.pids()[0]
    used = max(int(name) for name in os.listdir("/proc/%d/fd" % pid))
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, hard))
    service.reload()
    assert all(client.request("/").generation == 2 for client in clients)


def test_daemon_does_not_keep_the_pipe_of_the_shell_that_started_it(new_service):
    service = new_service(worker_ini(count=1))
    service.has_daemon = True
    command = " ".join("'%s'" % word for word in service.program) + " start -d | cat"
    result = subprocess.run(["sh", "-c", command], env=service.env, cwd=service.folder, stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=DEADLINE)
    assert "started" in result.stdout, result.stderr
    assert get(service.port).text == "hi"
    stop_daemon(service)


def test_start_with_closed_standard_descriptors_serves(new_service):
    service = new_service(worker_ini(count=1, master={"log_file": "log/baton.log"}))
    service.has_daemon = True
    command = "exec " + " ".join("'%s'" % word for word in service.program) + " start -d <&- >&- 2>&-"
    code = subprocess.run(["sh", "-c", command], env=service.env, cwd=service.folder, timeout=DEADLINE).returncode
    assert code == 0
    assert get(service.port).text == "hi"
    service.must("reload")
    stop_daemon(service)


def test_stop_timeout_of_zero_stops_at_once(serve, connect):
    service = serve(count=1, master={"stop_timeout": "0"})
    client = connect(service)
    client.send(build_request("/sleep/60000"))
    wait_until(lambda: service.processes()[0]["requests"] == 1, "the request is being handled")
    service.must("stop")


def test_reload_ends_the_patience_of_one_without_limit(serve):
    service = serve(count=1, drain_timeout="300ms", master={"kill_timeout": "300ms"})
    service.crashes_expected = True
    stuck = service.pids()[0]
    os.kill(stuck, signal.SIGSTOP)
    patient = subprocess.Popen([*service.program, "reload", "-g"], cwd=service.folder, env=service.env,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "draining" in states(service), "the stuck process drains")
        service.reload()
        assert patient.wait(DEADLINE) == 0
    finally:
        patient.kill()
        patient.wait()
    assert process_state(stuck) is None
    assert get(service.port).generation == 3


def test_drain_without_limit_ends_when_the_master_is_gone(serve, connect):
    service = serve(count=1, drain_timeout="300ms")
    old = service.pids()[0]
    client = connect(service)
    client.send(build_request("/sleep/60000"))
    wait_until(lambda: service.processes()[0]["requests"] == 1, "the request is being handled")
    service.must("reload", "-g")
    assert process_state(old) is not None
    service.process.kill()
    service.process.wait()
    wait_until(lambda: process_state(old) is None, "the old process has ended")
    service.start()


def test_text_that_is_not_utf8_is_answered(serve):
    service = serve(count=1)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(service.control_socket))
        client.sendall(json.dumps({"command": "reload", "worker": "a" + "\u00e9" * 40}, ensure_ascii=False).encode() + b"\n")
        answer = json.loads(client.makefile("rb").readline())
    assert answer["event"] == "done" and answer["ok"] is False and answer["code"] == 2


def test_reload_that_could_not_be_prepared_says_how_long_it_took(serve):
    service = serve(count=1)
    (service.folder / "http-echo.so").write_bytes(b"not a module")
    result = service.command("reload")
    assert result.returncode == 1 and "not an ELF file" in result.stderr
    last = service.status()["last_reload"]
    assert last["ok"] is False and last["took_ms"] < DEADLINE * 1000


# Slot 1 of the second generation is not ready before the file "go" exists.
SLOW_IN_SLOT_1 = r"""
#include <baton.h>
#include <unistd.h>
static int on_worker_start(baton_worker *worker)
{
    while (baton_generation() == 2 && baton_worker_slot(worker) == 1 && access("go", F_OK) != 0)
        usleep(1000);
    return 0;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", baton_generation() == 1 ? "old" : "new");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""


def test_successor_of_failed_code_never_comes_to_serve(serve):
    service = serve(count=2, source=SLOW_IN_SLOT_1, probation="30s")
    service.crashes_expected = True
    before = service.pids()
    reload = subprocess.Popen([*service.program, "reload"], cwd=service.folder, env=service.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: "starting" in states(service), "slot 1 starts the new code")
    rolled = next(pid for pid in service.pids() if pid not in before)
    os.kill(rolled, signal.SIGSEGV)
    assert reload.wait(DEADLINE) == 1 and "signal 11" in reload.stderr.read()
    (service.folder / "go").touch()
    assert states(service) == ["serving", "serving"]
    assert {process["generation"] for process in service.processes()} == {1}
    assert get(service.port).text == "old"


def test_drain_timeout_of_zero_does_not_cut_what_can_be_passed(serve, connect):
    service = serve(count=1, drain_timeout="0")
    clients = [connect(service) for _ in range(600)]  # more than the window of a pass
    assert all(client.request("/").generation == 1 for client in clients)
    service.reload()
    assert all(client.request("/").generation == 2 for client in clients)


def test_limited_reload_is_not_held_up_by_one_without_limit_that_is_being_prepared(serve, connect):
    service = serve(count=1, strategy="stop-first", drain_timeout="300ms")
    service.crashes_expected = True
    client = connect(service)
    client.send(build_request("/sleep/60000"))
    wait_until(lambda: service.processes()[0]["requests"] == 1, "the request is being handled")
    service.signal(signal.SIGUSR2)
    service.signal(signal.SIGUSR1)
    service.reload()
    assert get(service.port).generation >= 2
