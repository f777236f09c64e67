"""Upgrades: another program takes the running master's place; no client, no supervisor and no second start notices.

What goes wrong after the new program has taken over is in test_upgrade_faults.py.
"""
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess

import pytest

from client import get
from harness import BATON, SOAK, descriptors_of, is_alive, wait_until, worker_ini
from storm import Storm
from upgrading import fails, put, version_of, versioned

UPGRADES = 20 if SOAK else 5


# ---- what an upgrade renews, and what stays ----

def test_same_pid_other_version_same_connection(upgradable, connect):
    deploy = upgradable()
    service = deploy.start()
    client = connect(service)
    first = client.request("/")
    before = (service.pid, service.pid_file.read_bytes(), service.status()["started_at"])
    deploy.install("0.1.1")
    result = service.must("upgrade")
    assert "version 0.1.1" in result.stdout and "0.1.0" in result.stdout
    second = client.request("/")
    assert (first.generation, second.generation) == (1, 2) and first.pid != second.pid
    assert version_of(service) == "0.1.1"
    assert (service.pid, service.pid_file.read_bytes(), service.status()["started_at"]) == before


def test_second_start_is_still_refused(upgradable):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    service.must("upgrade")
    result = service.command("start")
    assert result.returncode == 1 and "already running, pid %d" % service.pid in result.stderr
    service.reload()
    service.stop()
    assert not service.pid_file.exists()


def test_reload_rollback_and_another_upgrade_work_afterwards(upgradable):
    deploy = upgradable(probation="0ms")
    service = deploy.start()
    for version in ("0.1.1", "0.1.2"):
        deploy.install(version)
        service.must("upgrade", "--wait")
        assert version_of(service) == version
    service.reload("--wait")
    generation = get(service.port).generation
    service.must("rollback", "--wait")
    assert get(service.port).generation < generation
    assert version_of(service) == "0.1.2"


def test_worker_that_is_not_reloadable_is_renewed(upgradable):
    deploy = upgradable(reloadable="no")
    service = deploy.start()
    before = service.pids()
    service.reload()
    assert service.pids() == before
    deploy.install("0.1.1")
    service.must("upgrade")
    assert not set(before) & set(service.pids())


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", [["--connections", "64", "--one-shot", "4"], ["--connections", "16", "--idle", "200"]])
def test_upgrades_under_load_lose_nothing(upgradable, shape):
    deploy = upgradable()
    service = deploy.start()
    with Storm(service, *shape) as storm:
        for number in range(1, UPGRADES + 1):
            deploy.install("0.1.%s" % "0123456789abcdefghijklmn"[number])
            service.must("upgrade")
            assert version_of(service) == "0.1.%s" % "0123456789abcdefghijklmn"[number]
            assert service.pid == int(service.pid_file.read_text())
    storm.assert_nothing_lost()
    assert storm.report["versions"] == UPGRADES + 1


def test_upgrade_and_reload_asked_for_together_both_happen(upgradable):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    with Storm(service, "--connections", "16", "--one-shot", "2") as storm:
        asked = [subprocess.Popen([*service.program, word], cwd=service.folder, stdout=subprocess.DEVNULL,
                                  env=dict(service.env, BATON_TEST_TAG="command"))
                 for word in ("upgrade", "reload", "upgrade", "reload")]
        assert [process.wait(60) for process in asked] == [0, 0, 0, 0]
        for _ in range(3):
            service.signal(signal.SIGUSR1)
        service.reload()
    storm.assert_nothing_lost()
    assert version_of(service) == "0.1.1"


# ---- nothing is left behind ----

def interesting(pid):
    return [name for name in descriptors_of(pid) if "/proc/" not in name]


def test_no_descriptor_is_left_after_many_upgrades(upgradable):
    deploy = upgradable(probation="0ms", drain_timeout="1s")
    service = deploy.start()

    def upgrade():
        service.must("upgrade", "--wait")
        wait_until(lambda: len(service.worker()["processes"]) == 2, "the old processes have ended")
        return interesting(service.pid), [interesting(pid) for pid in service.pids()]

    first = upgrade()
    for _ in range(4):
        last = upgrade()
    assert last == first
    assert not [name for name in last[0] if "memfd" in name and "baton-rows" not in name]


def test_failed_upgrades_leave_no_descriptor(upgradable):
    deploy = upgradable()
    service = deploy.start()
    service.program[0] = str(BATON)
    put(deploy.program, b"no program\n")
    before = interesting(service.pid)
    for _ in range(3):
        fails(service)
    assert interesting(service.pid) == before


ENVIRONMENT = r"""
#include <baton.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    sigset_t mask;
    struct sigaction pipe_action, chld_action;
    char text[200];
    int blocked = 0;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int i = 1; i < 32; i++)
        blocked += sigismember(&mask, i);
    sigaction(SIGPIPE, NULL, &pipe_action);
    sigaction(SIGCHLD, NULL, &chld_action);
    const char *variable = getenv("BATON_UPGRADE");
    snprintf(text, sizeof text, "%s %d %d %d", variable ? variable : "none", blocked,
             pipe_action.sa_handler == SIG_IGN, chld_action.sa_handler == SIG_DFL);
    baton_reply(conn, 200, "text/plain", text);
}
BATON_MODULE(.on_request = on_request);
"""


def test_processes_find_the_environment_and_signals_of_an_ordinary_start(upgradable):
    deploy = upgradable(module="./app.so")
    deploy.service.compile(ENVIRONMENT, "app.so")
    service = deploy.start()
    before = get(service.port).text
    service.must("upgrade")
    assert get(service.port).text == before
    assert before.startswith("none 0 ")


def test_daemon_stays_one_and_its_output_where_it_was(upgradable):
    deploy = upgradable(master={"stdout_file": "out.log", "log_file": "baton.log"})
    service = deploy.service
    service.command("start", "-d", tagged=True)
    pid = int(service.pid_file.read_text())
    deploy.install("0.1.1")
    service.must("upgrade")
    state = service.status()
    assert (state["version"], state["daemon"], state["pid"]) == ("0.1.1", True, pid)
    for number in (1, 2):
        assert os.readlink("/proc/%d/fd/%d" % (pid, number)) == str(service.folder / "out.log")
    assert "adopted from=0.1.0 to=0.1.1" in (service.folder / "baton.log").read_text()
    service.must("stop")


def test_log_level_and_settings_of_the_last_reload_stay(upgradable):
    deploy = upgradable(master={"log_level": "info"})
    service = deploy.start()
    text = (service.folder / "baton.ini").read_text()
    (service.folder / "baton.ini").write_text(text.replace("log_level = info", "log_level = error"))
    service.reload()
    size = len(service.log)
    service.must("upgrade")
    service.reload()
    assert "level=info" not in service.log[size:].split("adopted")[-1]


# ---- which program ----

def test_program_behind_a_symlink_is_the_new_release(upgradable):
    deploy = upgradable()
    service = deploy.service
    for number, version in ((1, "0.1.0"), (2, "0.1.1"), (3, "0.1.2")):
        (service.folder / "releases" / str(number)).mkdir(parents=True)
        versioned(BATON, service.folder / "releases" / str(number) / "baton", version)
    link = service.folder / "current"
    link.symlink_to("releases/1")
    service.program[0] = str(link / "baton")
    service.start()
    for number, version in ((2, "0.1.1"), (3, "0.1.2")):
        link.unlink()
        link.symlink_to("releases/%d" % number)
        shutil.rmtree(service.folder / "releases" / str(number - 1))
        service.must("upgrade")
        assert version_of(service) == version


@pytest.mark.parametrize("name", ["./baton", "baton"])
def test_relative_name_means_the_same_file_for_ever(upgradable, name):
    """Also when the directory it was called in is gone."""
    deploy = upgradable()
    service = deploy.service
    service.env["PATH"] = str(service.folder) + ":" + service.env["PATH"]
    start_in = service.folder / "here"
    start_in.mkdir()
    if name == "./baton":
        (start_in / "baton").symlink_to("../baton")
    with open(service.log_file, "ab") as log:
        service.process = subprocess.Popen([name, *service.program[1:], "start"], cwd=start_in, env=service.env,
                                           executable=str(start_in / "baton") if name == "./baton" else None,
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    service.wait_running()
    if name == "baton":
        shutil.rmtree(start_in)
    for version in ("0.1.1", "0.1.2"):
        deploy.install(version)
        service.must("upgrade")
        assert version_of(service) == version


def test_file_that_is_no_text_in_utf8_is_carried_over(upgradable):
    deploy = upgradable(probation="0ms")
    service = deploy.service
    with open(service.folder / "baton.ini", "ab") as ini:
        ini.write(b"# caf\xe9\n")
    service.start()
    for version in ("0.1.1", "0.1.2"):
        deploy.install(version)
        service.must("upgrade", "--wait")
        assert version_of(service) == version
    service.must("rollback")


@pytest.mark.parametrize("content, words", [
    (b"no program at all\n", ["Exec format error"]),
    (b"", ["failed its check"]),
    (b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x02\0\xb7\0" + b"\0" * 100, ["Exec format error"]),
    (b"#!/bin/sh\nexit 0\n", ["cannot take over a running service"]),
    (b"#!/bin/sh\necho 'baton 0.0.9: configuration is right'\n", ["cannot take over a running service"]),
    (b"#!/bin/sh\necho no thanks >&2\nexit 7\n", ["failed its check (exit 7): no thanks"]),
    (b"#!/bin/sh\nkill -SEGV $$\n", ["signal 11 (Segmentation fault)"]),
])
def test_what_is_no_baton_is_refused(upgradable, content, words):
    deploy = upgradable()
    service = deploy.start()
    put(deploy.program, content)
    if not content:
        words = ["baton"]
    fails_with_other_command(service, words)


def fails_with_other_command(service, words):
    """The installed program is no baton: the words are said by the build's."""
    program, service.program = service.program, [str(BATON), *service.program[1:]]
    try:
        fails(service, *words)
    finally:
        service.program = program
        versioned(BATON, service.folder / "baton", "0.1.0")


def test_missing_or_forbidden_program_is_refused(upgradable):
    deploy = upgradable()
    service = deploy.start()
    service.program[0] = str(BATON)
    deploy.program.unlink()
    fails(service, str(deploy.program), "No such file")
    deploy.program.mkdir()
    fails(service, "Permission denied")
    deploy.program.rmdir()
    deploy.install("0.1.1")
    service.must("upgrade")
    assert version_of(service) == "0.1.1"


def test_word_of_the_check_does_no_harm_in_an_older_program(upgradable):
    """A program without upgrades takes the words it is called with at their face value: not `restart`, not `start`."""
    deploy = upgradable()
    service = deploy.service
    with open(service.log_file, "ab") as log:
        service.process = subprocess.Popen([*service.program, "restart"], cwd=service.folder, env=service.env,
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    service.wait_running()
    put(deploy.program, b"#!/bin/sh\necho \"words: $*\"\nexit 3\n")
    fails_with_other_command(service, ["words: -c %s check" % (service.folder / "baton.ini")])
    deploy.install("0.1.1")
    service.must("upgrade")
    assert version_of(service) == "0.1.1"


def test_stop_during_a_check_that_hangs(upgradable):
    deploy = upgradable()
    service = deploy.start()
    put(deploy.program, b"#!/bin/sh\nsleep 1000\n")
    service.program[0] = str(BATON)
    with subprocess.Popen([*service.program, "upgrade"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                          env=dict(service.env, BATON_TEST_TAG="command")) as asking:
        wait_until(lambda: sleeping(service), "the check runs")
        assert get(service.port).status == 200
        service.reload()
        service.stop()
        assert asking.wait(30) == 1
        assert "being stopped" in asking.stderr.read()
    wait_until(lambda: not sleeping(service), "the check has ended, with what it has started")


def sleeping(service):
    """What runs `sleep 1000` on behalf of this service."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            line = open("/proc/%s/cmdline" % entry, "rb").read()
            if line == b"sleep\0001000\0" and service.tag.encode() in open("/proc/%s/environ" % entry, "rb").read():
                found.append(int(entry))
        except OSError:
            pass
    return [pid for pid in found if is_alive(pid)]


def test_check_ends_with_a_master_that_is_killed(upgradable):
    deploy = upgradable()
    service = deploy.start()
    service.exit_code_expected = -9
    put(deploy.program, b"#!/bin/sh\nexec sleep 1000\n")
    service.program[0] = str(BATON)
    with subprocess.Popen([*service.program, "upgrade"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          env=dict(service.env, BATON_TEST_TAG="command")) as asking:
        wait_until(lambda: sleeping(service), "the check runs")
        service.signal(signal.SIGKILL)
        assert asking.wait(30) == 1
    wait_until(lambda: not sleeping(service), "the check has ended")
    service.wait_exit()


def test_program_that_changes_after_its_check_is_checked_again(upgradable):
    """What would be executed is then no baton at all, though what was checked is one."""
    deploy = upgradable()
    service = deploy.start()
    service.program[0] = str(BATON)
    other = service.folder / "other"
    put(other, b"#!/bin/sh\necho changed\nexit 7\n")
    put(deploy.program, ("#!/bin/sh\nmv %s %s\nexec %s \"$@\"\n" % (other, deploy.program, BATON)).encode())
    fails(service, "exit 7", "changed")


# ---- what the new program finds wrong ----

def test_broken_configuration_is_refused(upgradable):
    deploy = upgradable()
    service = deploy.start()
    good = (service.folder / "baton.ini").read_text()
    (service.folder / "baton.ini").write_text(good + "colour = red\n")
    fails(service, "colour", code=2)
    with Control(service) as control:  # somebody who does not look at the file first
        assert "colour" in control.ask({"command": "upgrade", "wait": "serve"})["message"]
    (service.folder / "baton.ini").write_text(good)
    service.must("upgrade")


def test_broken_module_is_refused(upgradable):
    deploy = upgradable()
    service = deploy.start()
    (service.folder / "http-echo.so").write_bytes(b"no module")
    fails(service, "http-echo.so")
    assert "failed its check" in fails(service).stderr


# ---- the control socket ----

class Control:
    def __init__(self, service):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(service.control_socket))
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def last(self):
        while True:
            line = self.file.readline()
            assert line, "the connection ended"
            answer = json.loads(line)
            if answer["event"] == "done":
                return answer

    def ask(self, request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.last()


def test_half_a_request_is_completed_by_the_next_program(upgradable):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    with Control(service) as half, Control(service) as silent:
        half.send(b'{"comm')
        service.status()  # the master has turned since
        service.must("upgrade")
        half.send(b'and":"status"}\n')
        assert half.last()["status"]["version"] == "0.1.1"
        assert silent.ask({"command": "status"})["status"]["version"] == "0.1.1"


def test_upgrade_goes_on_when_who_asked_has_gone(upgradable):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    with Control(service) as control:
        control.send(b'{"command":"upgrade"}\n')
    wait_until(lambda: version_of(service) == "0.1.1", "the new program runs")
    wait_until(lambda: get(service.port).generation == 2, "its processes serve")


def test_client_that_never_reads_does_not_hold_an_upgrade_up(upgradable):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    with Control(service) as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.send(b'{"command":"upgrade"}\n')
        wait_until(lambda: version_of(service) == "0.1.1", "the new program runs")


# ---- a variable that somebody has left over ----

@pytest.mark.parametrize("value", ["adopt:0", "adopt:1", "check:0", "adopt:99", "adopt:-1", "nonsense", "adopt:7777777777"])
def test_stray_variable_means_nothing(new_service, value):
    service = new_service(worker_ini(count=1), env={"BATON_UPGRADE": value})
    service.start()
    assert get(service.port).status == 200
    assert service.command("check").returncode == 0


def test_file_that_calls_itself_a_handover_is_refused(new_service):
    service = new_service(worker_ini(count=1))
    fd = os.memfd_create("baton-handover", os.MFD_ALLOW_SEALING)
    os.write(fd, b'{"format":1}')
    for sealed in (False, True):
        if sealed:
            fcntl.fcntl(fd, 1033, 1 | 2 | 4 | 8)  # F_ADD_SEALS
        result = subprocess.run([*service.program, "version" if not sealed else "start"], capture_output=True, text=True,
                                pass_fds=[fd], env=dict(service.env, BATON_UPGRADE="adopt:%d" % fd))
        assert (result.returncode == 0) == (not sealed)
    assert "of another process" in result.stderr
    os.close(fd)
