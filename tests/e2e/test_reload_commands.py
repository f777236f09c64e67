"""Many commands and signals at once, and in the middle of a roll."""
import json
import signal
import socket
import subprocess

import pytest

from client import HttpClient, build_request, get
from harness import DEADLINE, is_alive, text_module_source, wait_until, worker_ini
from storm import Storm

# Starts when the file "go" exists.
WAITS = r"""
#include <baton.h>
#include <unistd.h>
static int start(baton_worker *worker)
{
    (void) worker;
    while (access("FOLDER/go", F_OK) != 0)
        usleep(1000);
    return 0;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "waited");
}
BATON_MODULE(.on_worker_start = start, .on_request = on_request);
"""


def background(service, *args):
    return subprocess.Popen([*service.program, *args], env=dict(service.env, BATON_TEST_TAG="command"),
                            cwd=service.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def compile_waiting(service, name="app.so"):
    service.compile(WAITS.replace("FOLDER", str(service.folder)), name)


def ask(service, **request):
    """A request on the control socket, without the command in between. Returns a file of answers."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE)
    connection.connect(str(service.control_socket))
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection.makefile()


def last_answer(answers):
    return next(answer for answer in map(json.loads, answers) if answer["event"] == "done")


def mid_roll(serve, **settings):
    """A service in the middle of a roll: the successor of slot 0 is starting, and will not be ready."""
    service = serve(count=2, source=text_module_source("one"), ready_timeout="1h", **settings)
    compile_waiting(service)
    service.must("reload", "--no-wait")
    wait_until(lambda: service.processes(state="starting"), "the successor is starting")
    return service


# ---- many at once ----

@pytest.mark.timeout(300)
def test_50_reloads_at_once_end_in_one_consistent_generation(serve):
    service = serve(count=2, probation=0)
    with Storm(service, "--connections", "32") as storm:
        commands = [background(service, "reload", *(["--wait"] if number % 3 == 0 else [])) for number in range(50)]
        for command in commands:
            output, _ = command.communicate(timeout=DEADLINE * 4)
            assert command.returncode == 0, output
        wait_until(lambda: service.status()["state"] == "running", "the last roll is over")
    storm.assert_nothing_lost()
    generations = {process["generation"] for process in service.processes()}
    assert len(generations) == 1 and generations == {service.status()["generation"]}
    assert service.status()["reloads"] == 50


@pytest.mark.timeout(300)
def test_reloads_rollbacks_and_signals_at_once_all_hear_an_end(serve):
    service = serve(count=2, probation=0)
    service.reload()
    words = (["reload"], ["rollback"], ["reload", "web"], ["reload", "--wait"], ["rollback", "web"])
    with Storm(service, "--connections", "32") as storm:
        commands = [background(service, *words[number % len(words)]) for number in range(30)]
        for _ in range(10):
            service.signal(signal.SIGUSR1)
        for command in commands:
            output, _ = command.communicate(timeout=DEADLINE * 4)
            assert command.returncode in (0, 1), output
            assert command.returncode == 0 or "overtaken by a rollback" in output or "no earlier generation" in output
        wait_until(lambda: service.status()["state"] == "running", "the last roll is over")
    storm.assert_nothing_lost()
    assert len({process["generation"] for process in service.processes()}) == 1


# ---- in the middle of a roll ----

@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_reload_signal_in_the_middle_of_a_roll_wins(serve, connect, number):
    """The latest code is what counts, whatever the roll that goes on is waiting for."""
    service = mid_roll(serve)
    client = connect(service)
    service.compile(text_module_source("three"), "app.so")
    service.signal(number)
    wait_until(lambda: {process["generation"] for process in service.processes()} == {3}, "generation 3 serves")
    assert client.request("/").text == "three"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_stop_signal_in_the_middle_of_a_roll_stops(serve, connect, number):
    service = mid_roll(serve)
    waiting = background(service, "reload")
    wait_until(lambda: service.status()["reloads"] == 2, "somebody waits")
    client = connect(service)
    assert client.request("/").text == "one"
    service.signal(number)
    assert service.wait_exit() == 0
    output, _ = waiting.communicate(timeout=DEADLINE)
    assert waiting.returncode == 1 and "being stopped" in output
    client.expect_close()


@pytest.mark.parametrize("words", [[], ["-g"]])
def test_stop_command_in_the_middle_of_a_roll_stops(serve, words):
    service = mid_roll(serve)
    pids = [process["pid"] for process in service.worker()["processes"]]
    service.stop(*words)
    assert not any(map(is_alive, pids))


def test_stop_while_the_helper_runs_leaves_nothing(serve):
    service = serve(count=1)
    ini = service.folder / "baton.ini"
    ini.unlink()
    subprocess.run(["mkfifo", str(ini)], check=True)  # the helper waits for a writer
    answers = ask(service, command="reload", wait="serve")
    assert json.loads(answers.readline())["step"] == "preparing"
    service.signal(signal.SIGTERM)
    assert service.wait_exit() == 0
    assert last_answer(answers)["ok"] is False


def test_stop_during_the_start_stops(new_service):
    service = new_service(worker_ini(count=2, module="./app.so", ready_timeout="1h"))
    compile_waiting(service)
    service.spawn()
    wait_until(lambda: service.log.count(" starting worker=web ") == 2, "the processes are starting")
    service.signal(signal.SIGTERM)
    assert service.wait_exit() == 0
    assert not service.pid_file.exists() and not service.control_socket.exists()


def test_reload_during_the_start_comes_after_it(new_service):
    """Also one that changes how many processes there are: the start is over when the first generation serves."""
    service = new_service(worker_ini(count=1, module="./app.so", ready_timeout="1h"))
    compile_waiting(service)
    service.spawn()
    wait_until(lambda: " starting worker=web " in service.log, "the process is starting")
    ini = service.folder / "baton.ini"
    ini.write_text(ini.read_text().replace("count = 1", "count = 3"))
    service.signal(signal.SIGUSR1)
    wait_until(lambda: "signal number=10" in service.log, "the signal has come")
    (service.folder / "go").touch()
    service.wait_running()
    wait_until(lambda: [process["generation"] for process in service.processes()] == [2, 2, 2], "generation 2 serves")
    assert "started pid=%d processes=1" % service.pid in service.log


def test_failed_reload_asked_for_during_the_start_goes_back_to_what_started(new_service):
    service = new_service(worker_ini(count=1, module="./app.so", ready_timeout="1h"))
    compile_waiting(service)
    service.spawn()
    wait_until(lambda: " starting worker=web " in service.log, "the process is starting")
    service.compile("int nothing;\n", "app.so")
    answers = ask(service, command="reload", wait="serve")
    assert json.loads(answers.readline())["step"] == "preparing"
    (service.folder / "go").touch()
    answer = last_answer(answers)
    assert not answer["ok"] and "baton_module" in answer["message"]
    assert [process["generation"] for process in service.processes()] == [1]
    assert get(service.port).text == "waited"


# ---- rollbacks between them ----

def test_rollback_overtakes_a_reload_that_is_being_prepared(serve):
    """Who asked last gets what he asked for, and everybody hears the end."""
    service = serve(count=1, source=text_module_source("one"), probation=0)
    service.compile(text_module_source("two"), "app.so")
    service.reload("--wait")
    ini = service.folder / "baton.ini"
    text = ini.read_text()
    ini.unlink()
    subprocess.run(["mkfifo", str(ini)], check=True)
    reloads = [ask(service, command="reload", wait="serve") for _ in range(3)]
    for answers in reloads:
        assert json.loads(answers.readline())["step"] == "preparing"
    assert last_answer(ask(service, command="rollback", wait="serve"))["ok"] is True
    for answers in reloads:
        answer = last_answer(answers)
        assert answer["ok"] is False and "overtaken by a rollback" in answer["message"]
    ini.unlink()
    ini.write_text(text)
    wait_until(lambda: service.status()["state"] == "running", "nothing else is going on")
    assert get(service.port).text == "one"
    service.reload()
    assert get(service.port).text == "two"


def test_rollback_while_the_roll_goes_back_by_itself_goes_no_further(serve, connect):
    service = serve(count=2, source=text_module_source("one"), probation=0, ready_timeout="1h")
    service.compile(text_module_source("two"), "app.so")
    service.reload("--wait")
    # The new code starts in slot 0 and dies in slot 1; meanwhile the good code takes its time to come back.
    service.compile("#include <baton.h>\n"
                    "static int start(baton_worker *w) { return baton_worker_slot(w); }\n"
                    "static void on_request(baton_conn *c, const baton_request *r) { (void) r;"
                    " baton_reply(c, 200, \"text/plain\", \"three\"); }\n"
                    "BATON_MODULE(.on_worker_start = start, .on_request = on_request);\n", "app.so")
    reload = ask(service, command="reload", wait="serve")
    answers = map(json.loads, reload)
    assert any(answer.get("step") == "failed" for answer in answers)
    result = service.command("rollback")
    wait_until(lambda: service.status()["state"] == "running", "everything is where it goes")
    text = get(service.port).text
    # Too late, when the way back was over: then it leads to the one before.
    assert (result.returncode, text) == (0, "two") or "generation 1" in result.stdout


# ---- what is said ----

def test_reload_says_slot_signal_and_last_lines(serve):
    service = serve(count=2, source=text_module_source("one"))
    service.crashes_expected = True
    service.compile("#include <baton.h>\n#include <stdlib.h>\n"
                    "static int start(baton_worker *w)\n"
                    "{\n"
                    "    if (baton_worker_slot(w) == 0) return 0;\n"
                    "    baton_log(BATON_LOG_ERROR, \"the disk is on fire\");\n"
                    "    abort();\n"
                    "}\n"
                    "static void on_request(baton_conn *c, const baton_request *r) { (void) r;"
                    " baton_reply(c, 200, \"text/plain\", \"two\"); }\n"
                    "BATON_MODULE(.on_worker_start = start, .on_request = on_request);\n", "app.so")
    result = service.command("reload")
    assert result.returncode == 1
    first, *rest = result.stderr.splitlines()
    assert "worker web slot 1: signal 6 (Aborted)" in first and "the old code serves on" in first
    assert any("the disk is on fire" in line for line in rest)
    assert get(service.port).text == "one"


def test_mistake_in_the_file_is_logged_when_a_signal_asked(serve):
    service = serve(count=1)
    ini = service.folder / "baton.ini"
    ini.write_text(ini.read_text().replace("count = 1", "count = many"))
    service.signal(signal.SIGUSR1)
    wait_until(lambda: "ok=no" in service.log, "the reload has failed")
    line = next(line for line in service.log.splitlines() if "ok=no" in line)
    assert "baton.ini:" in line and 'count: "many"' in line
    assert get(service.port).generation == 1
    assert "baton.ini:" in service.status()["last_reload"]["message"]


def test_client_that_waits_is_told_once_even_when_it_leaves_early(serve):
    service = mid_roll(serve)
    for _ in range(5):
        ask(service, command="reload", wait="probation").close()
    with HttpClient(service.port) as client:
        client.send(build_request("/"))
        assert client.read_response().text == "one"
    (service.folder / "go").touch()
    wait_until(lambda: service.status()["state"] == "running" and get(service.port).text == "waited", "it serves")
