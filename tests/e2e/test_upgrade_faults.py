"""Upgrades that fail after the new program has been executed, and upgrades of start programs.

Whatever fails, the old program serves again: the same master process, with processes of the old program.
"""
import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from client import get
from harness import BUILD, ROOT, Service, descriptors_of, free_port, is_alive, wait_until
from storm import Storm
from upgrading import fails, put, version_of

SANITIZE = ["-fsanitize=address,undefined"] if b"__asan_init" in (BUILD / "baton").read_bytes() else []


# ---- the change itself ----

@pytest.mark.failpoints
def test_program_that_cannot_be_executed_changes_nothing(upgradable):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    before = descriptors_of(service.pid)
    service.arm("upgrade:before-execute", "fail ENOEXEC")
    fails(service, "Exec format error")
    assert descriptors_of(service.pid) == before
    service.must("upgrade")
    assert version_of(service) == "0.1.1"


@pytest.mark.failpoints
@pytest.mark.parametrize("point", ["upgrade:before-adopt", "upgrade:adopted"])
def test_program_that_cannot_adopt_gives_everything_back(upgradable, connect, point):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    client = connect(service)
    served_by = client.request("/").pid
    before = descriptors_of(service.pid)
    for _ in range(3):
        service.arm(point, "fail EIO")
        result = fails(service, "0.1.0 instead of 0.1")
        assert "0.1.0" in result.stderr
        assert client.request("/").pid == served_by
    # The old program goes on from a file that has no name any more, and is as good as before.
    assert sorted(set(descriptors_of(service.pid))) == sorted(set(before))
    assert len(descriptors_of(service.pid)) == len(before)
    service.reload()
    service.must("upgrade")
    assert version_of(service) == "0.1.1"
    assert client.request("/").pid != served_by


@pytest.mark.failpoints
def test_adopting_fails_under_load_and_nothing_is_lost(upgradable):
    deploy = upgradable()
    service = deploy.start()
    deploy.install("0.1.1")
    with Storm(service, "--connections", "32", "--one-shot", "4") as storm:
        for point in ("upgrade:before-adopt", "upgrade:adopted"):
            service.arm(point, "fail EIO")
            assert service.command("upgrade").returncode == 1
            service.must("upgrade")
    storm.assert_nothing_lost()


@pytest.mark.failpoints
@pytest.mark.parametrize("point", ["upgrade:before-execute", "upgrade:before-adopt", "upgrade:adopted"])
def test_master_killed_in_the_middle_leaves_nothing_behind(upgradable, point):
    deploy = upgradable()
    service = deploy.start()
    service.exit_code_expected = -9
    deploy.install("0.1.1")
    pids = service.pids()
    service.arm(point, "kill")
    assert service.command("upgrade").returncode == 1
    service.wait_exit()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "its processes have ended")
    service.exit_code_expected = 0
    service.start()
    assert version_of(service) == "0.1.1"


# ---- the roll under the new program ----

ONLY_OLD = r"""
#include <baton.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int on_worker_start(baton_worker *worker)
{
    (void) baton_worker_slot(worker);
    baton_log(BATON_LOG_WARN, "here is %%s", baton_version());
    return %s ? -1 : 0;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_str path = baton_request_path(req);
    if (path.len == 6 && memcmp(path.data, "/crash", 6) == 0 && strcmp(baton_version(), "0.1.0") != 0)
        abort();
    baton_reply(conn, 200, "text/plain", baton_version());
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""
REFUSES = 'strcmp(baton_version(), "0.1.0") != 0 && baton_worker_slot(worker) == 1'


def versions_served(service):
    return {get(service.port).text for _ in range(12)}


def test_processes_that_cannot_start_bring_the_old_program_back(upgradable):
    """The first slot is rolled by then: its process, of the new program, is replaced again."""
    deploy = upgradable(module="./app.so")
    service = deploy.service
    service.compile(ONLY_OLD % REFUSES, "app.so")
    service.start()
    deploy.install("0.1.1")
    with Storm(service, "--connections", "16", "--one-shot", "2", versions="body") as storm:
        result = service.command("upgrade")
        assert result.returncode == 1 and "slot 1" in result.stderr and "0.1.0 instead of 0.1.1" in result.stderr
        assert "here is 0.1.1" in result.stderr  # what the process to blame has logged
        assert version_of(service) == "0.1.0"
        assert versions_served(service) == {"0.1.0"}
    storm.assert_nothing_lost()
    assert [process["generation"] for process in service.processes()] == [1, 1]
    service.reload()
    service.compile(ONLY_OLD % "0", "app.so")
    service.must("upgrade")
    assert versions_served(service) == {"0.1.1"}


WAITS = r"""
#include <baton.h>
#include <string.h>
#include <unistd.h>
static int on_worker_start(baton_worker *worker)
{
    if (strcmp(baton_version(), "0.1.0") == 0 || baton_worker_slot(worker) != 1)
        return 0;
    while (access("FOLDER/go", F_OK) != 0)
        usleep(10000);
    return -1;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", baton_version());
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""


def test_old_code_that_the_new_program_restarted_goes_back_to_the_old_program(upgradable):
    """A process that crashes meanwhile comes back as it was, but forked by the new program: it must not stay."""
    deploy = upgradable(module="./app.so", count=3)
    service = deploy.service
    service.crashes_expected = True
    service.compile(WAITS.replace("FOLDER", str(service.folder)), "app.so")
    service.start()
    deploy.install("0.1.1")
    victim = service.processes()[2]["pid"]
    with subprocess.Popen([*service.program, "upgrade"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env=dict(service.env, BATON_TEST_TAG="command")) as asking:
        wait_until(lambda: [process for process in service.processes(state="starting") if process["slot"] == 1],
                   "the second slot is being rolled")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: [process for process in service.processes()
                            if process["slot"] == 2 and process["pid"] != victim and process["generation"] == 1],
                   "the third slot has restarted with the old code")
        (service.folder / "go").touch()
        assert asking.wait(60) == 1
    assert versions_served(service) == {"0.1.0"}
    assert version_of(service) == "0.1.0"


def test_crash_in_the_probation_brings_the_old_program_back(upgradable):
    deploy = upgradable(module="./app.so", probation="1h")
    service = deploy.service
    service.crashes_expected = True
    service.compile(ONLY_OLD % "0", "app.so")
    service.start()
    deploy.install("0.1.1")
    service.must("upgrade")
    assert versions_served(service) == {"0.1.1"}
    with pytest.raises((AssertionError, ConnectionError)):
        get(service.port, "/crash")
    wait_until(lambda: version_of(service) == "0.1.0", "the old program is back")
    wait_until(lambda: len(service.processes()) == 2 and versions_served(service) == {"0.1.0"}, "its code serves")
    assert "upgrade-undone" in service.log


def test_reload_in_the_probation_ends_the_trial(upgradable):
    deploy = upgradable(module="./app.so", probation="1h")
    service = deploy.service
    service.compile(ONLY_OLD % "0", "app.so")
    service.start()
    deploy.install("0.1.1")
    service.must("upgrade")
    service.compile(ONLY_OLD % "1", "app.so")
    assert service.command("reload").returncode == 1
    assert version_of(service) == "0.1.1"
    assert versions_served(service) == {"0.1.1"}


def test_killed_processes_during_an_upgrade_come_back(upgradable):
    deploy = upgradable(count=3, probation="0ms")  # a second kill within one would be held against the new program
    service = deploy.start()
    service.crashes_expected = True
    for version in ("0.1.1", "0.1.2", "0.1.3"):
        deploy.install(version)
        asking = subprocess.Popen([*service.program, "upgrade"], cwd=service.folder,
                                  stdout=subprocess.DEVNULL, env=dict(service.env, BATON_TEST_TAG="command"))
        for pid in service.pids()[:2]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert asking.wait(60) == 0
        wait_until(lambda: len(service.processes()) == 3, "all slots serve")
        assert version_of(service) == version


def test_slot_that_waits_for_its_restart_is_filled_after_an_upgrade(upgradable):
    """Also when the upgrade fails: the wait is not forgotten."""
    source = r"""
#include <baton.h>
#include <stdlib.h>
#include <string.h>
static int on_worker_start(baton_worker *worker)
{
    return strcmp(baton_version(), "0.1.0") != 0 && baton_worker_slot(worker) == 0 ? -1 : 0;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    if (baton_request_path(req).len > 1)
        abort();
    baton_reply(conn, 200, "text/plain", "well");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""
    deploy = upgradable(module="./app.so", count=1, probation="0ms")
    service = deploy.service
    service.crashes_expected = True
    service.compile(source, "app.so")
    service.start()
    deploy.install("0.1.1")
    for _ in range(3):
        with pytest.raises((AssertionError, ConnectionError)):
            get(service.port, "/crash")
        wait_until(lambda: service.status()["workers"][0]["processes"], "the crash was noticed")
    assert service.command("upgrade").returncode == 1
    wait_until(lambda: service.processes(), "the slot serves")
    assert get(service.port).text == "well"


# ---- start programs ----

PROGRAM = r"""
#include <baton.h>
#include <stdlib.h>
#include <unistd.h>
static void say(baton_conn *conn, const baton_request *req) { (void) req; baton_reply(conn, 200, "text/plain", "%(text)s"); }
%(code)s
int main(int argc, char **argv)
{
    baton_set("pid_file", "%(folder)s/run/own.pid");
    %(workers)s
    return baton_run(argc, argv);
}
"""
FIRST = 'baton_worker_new("http://127.0.0.1:%d", .name = "first", .count = 2, .callbacks = {.on_request = say});'
SECOND = 'baton_worker_new("http://127.0.0.1:%d", .name = "second", .count = 1, .callbacks = {.on_request = say});'


class OwnProgram:
    def __init__(self, service, static):
        self.service = service
        self.static = static
        self.path = service.folder / "own"

    def build(self, text, workers, code=""):
        source = self.service.folder / "own.c"
        source.write_text(PROGRAM % {"text": text, "code": code, "folder": self.service.folder,
                                     "workers": "\n".join(workers)})
        library = ["-L", str(BUILD / "src"), "-lbaton"]
        if self.static:
            library = [str(BUILD / "src" / "libbaton.a"), *subprocess.run(
                ["pkg-config", "--libs", "libuv", "openssl", "libcrypto", "jansson", "inih", "zlib"],
                capture_output=True, text=True, check=True).stdout.split(), "-rdynamic"]
        made = self.service.folder / "own.made"
        subprocess.run(["clang" if SANITIZE else "cc", *SANITIZE, "-I", str(ROOT / "include"), "-o", str(made),
                        str(source), *library], check=True)
        put(self.path, made.read_bytes())


@pytest.fixture
def own_program():
    made = []

    def make(static=False):
        service = Service(env={"LD_LIBRARY_PATH": str(BUILD / "src")})
        made.append(service)
        service.run_program(service.folder / "own")
        return OwnProgram(service, static)

    yield make
    for service in made:
        service.close()


def test_start_program_renews_its_callbacks_and_workers(own_program):
    program = own_program()
    service = program.service
    one, two, three = free_port(), free_port(), free_port()
    program.build("old", [FIRST % one, SECOND % two])
    service.start()
    assert {get(port).text for port in (one, two)} == {"old"}
    third = SECOND.replace("second", "third") % three
    program.build("new", [FIRST % one, third])
    service.reload()
    assert get(one).text == "old"  # a reload cannot
    pid = service.pid
    service.must("upgrade")
    assert {get(port).text for port in (one, three)} == {"new"}
    assert [worker["name"] for worker in service.status()["workers"] if worker["processes"]] == ["first", "third"]
    with pytest.raises(ConnectionRefusedError):
        get(two)
    assert (service.pid, service.status()["pid"]) == (pid, pid)


def test_start_program_whose_new_code_cannot_start_goes_on_as_it_was(own_program):
    program = own_program()
    service = program.service
    one, two = free_port(), free_port()
    program.build("old", [FIRST % one])
    service.start()
    refuse = "static int refuse(baton_worker *worker) { return baton_worker_slot(worker) == 0 ? -1 : 0; }\n"
    program.build("new", [FIRST % one, (SECOND % two).replace(".on_request", ".on_worker_start = refuse, .on_request")],
                  refuse)
    result = service.command("upgrade")
    assert result.returncode == 1 and "second" in result.stderr
    assert {get(one).text for _ in range(10)} == {"old"}
    assert [worker["name"] for worker in service.status()["workers"] if worker["processes"]] == ["first"]
    service.reload()
    assert {get(one).text for _ in range(10)} == {"old"}
    program.build("good", [FIRST % one])
    service.must("upgrade")
    assert {get(one).text for _ in range(10)} == {"good"}


def test_start_program_with_mistakes_is_refused(own_program):
    program = own_program()
    service = program.service
    one = free_port()
    program.build("old", [FIRST % one])
    service.start()
    shutil.copy(program.path, service.folder / "good")
    program.build("new", ['baton_worker_new("gopher://127.0.0.1:%d", .name = "first");' % one])
    result = service.command("upgrade")
    assert result.returncode == 1 and "gopher" in result.stderr
    assert get(one).text == "old"


def test_own_words_of_a_start_program_are_kept(own_program):
    """A main that takes its own options away before baton_run() gets them again."""
    program = own_program()
    service = program.service
    one = free_port()
    code = "static char *first_word;\n"
    worker = 'first_word = argv[1]; argv[1] = argv[0]; argc--; argv++;' \
        'baton_worker_new(first_word, .name = "first", .callbacks = {.on_request = say});'
    program.build("old", [worker], code)
    service.program = [str(program.path), "http://127.0.0.1:%d" % one]
    service.start()
    program.build("new", [worker], code)
    service.must("upgrade")
    assert get(one).text == "new"
