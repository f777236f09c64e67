"""The start program of the examples: what a reload renews in each of the three cases."""
import fcntl
import shutil
import subprocess

import pytest

from client import get
from harness import BUILD, EXAMPLES, ROOT, Service, compile_module, free_port, process_state, wait_until

SOURCES = ROOT / "examples" / "start-program"
PROGRAM, PRELOADED, MODULE = 18110, 18120, 18121


@pytest.fixture
def program():
    """A copy of build/examples/start-program, running. Its ports are fixed: one test at a time."""
    with open(BUILD / "start-program.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        service = Service(env={"LD_LIBRARY_PATH": str(BUILD / "src")})
        for name in ("start-program", "preloaded.so", "handler.so"):
            shutil.copy(EXAMPLES / "start-program" / name, service.folder)
        service.run_program(service.folder / "start-program")
        try:
            yield service.start()
        finally:
            service.close()


def renew(service, name, old, new):
    """Compiles the example's file with another text and puts it in place by rename."""
    text = (SOURCES / (name + ".c")).read_text()
    assert old in text
    compile_module(text.replace(old, new), service.folder / (name + ".so"))


def answers(port):
    return {get(port).text for _ in range(10)}


def test_three_workers_with_two_processes_each(program):
    state = program.status()
    assert [(worker["name"], worker["count"]) for worker in state["workers"]] == \
        [("program", 2), ("preloaded", 2), ("module", 2)]
    assert (answers(PROGRAM), answers(PRELOADED), answers(MODULE)) == ({"program 1"}, {"preloaded 1"}, {"module 1"})


def test_reload_renews_only_what_is_loaded_in_on_worker_start(program, connect):
    clients = {port: connect(port) for port in (PROGRAM, PRELOADED, MODULE)}
    before = {port: client.request("/").text for port, client in clients.items()}
    pids = {name: program.pids(name) for name in ("program", "preloaded", "module")}
    renew(program, "preloaded", "preloaded 1", "preloaded 2")
    renew(program, "handler", "module 1", "module 2")
    program.reload()
    assert all(not set(pids[name]) & set(program.pids(name)) for name in pids)
    # The connections are the same ones; only the third worker has new code.
    assert before == {PROGRAM: "program 1", PRELOADED: "preloaded 1", MODULE: "module 1"}
    assert {port: client.request("/").text for port, client in clients.items()} == \
        {PROGRAM: "program 1", PRELOADED: "preloaded 1", MODULE: "module 2"}
    assert answers(MODULE) == {"module 2"}


def test_restart_renews_what_was_loaded_before_the_fork(program):
    renew(program, "preloaded", "preloaded 1", "preloaded 2")
    program.stop()
    program.start()
    assert (answers(PROGRAM), answers(PRELOADED)) == ({"program 1"}, {"preloaded 2"})


def test_upgrade_renews_what_was_loaded_before_the_fork(program, connect):
    client = connect(PRELOADED)
    assert client.request("/").text == "preloaded 1"
    pid = program.pid
    renew(program, "preloaded", "preloaded 1", "preloaded 2")
    renew(program, "handler", "module 1", "module 2")
    program.must("upgrade")
    assert client.request("/").text == "preloaded 2"
    assert (answers(PROGRAM), answers(PRELOADED), answers(MODULE)) == ({"program 1"}, {"preloaded 2"}, {"module 2"})
    assert program.status()["pid"] == pid


def test_broken_module_in_on_worker_start_fails_the_reload(program):
    (program.folder / "handler.so").write_bytes(b"nothing that loads")
    result = program.command("reload")
    assert result.returncode != 0 and "handler.so" in result.stderr
    wait_until(lambda: program.status()["state"] == "running", "the roll back has ended")
    assert (answers(PROGRAM), answers(PRELOADED), answers(MODULE)) == ({"program 1"}, {"preloaded 1"}, {"module 1"})


def test_program_understands_the_words_of_the_command(program):
    assert program.command("--help").returncode == 0
    assert "program" in program.must("status").stdout
    assert program.command("start").returncode == 1
    assert program.command("dance").returncode == 2


# ---- a start program of one's own ----

OWN = r"""
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static pid_t master;
static void note(const char *word, int number)
{
    FILE *file = fopen("FOLDER/events", "a");
    fprintf(file, "%s %d %s\n", word, number, getpid() == master ? "master" : "process");
    fclose(file);
}
static void on_worker_exit(baton_worker *worker, int status, int pid) { (void) pid; note(baton_worker_name(worker), status); }
static void on_master_reload(void) { note("reload", 0); }
static void on_master_stop(void) { note("stop", 0); }
static int on_worker_start(baton_worker *worker)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", baton_worker_slot(worker));
    setenv("SLOT", text, 1);
    return 0;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_str path = baton_request_path(req);
    if (path.len == 5 && memcmp(path.data, "/exit", 5) == 0)
        _exit(5);
    baton_reply(conn, 200, NULL, getenv("SLOT"));
}
int main(int argc, char **argv)
{
    master = getpid();
    baton_worker *worker = baton_worker_new("http://127.0.0.1:PORT", .name = "own", .count = 1,
        .callbacks = {.on_worker_start = on_worker_start, .on_request = on_request},
        .on_worker_exit = on_worker_exit);
    MISTAKE
    if (baton_worker_set(worker, "drain_timeout", "5s") != 0 || baton_set("stop_timeout", "1s") != 0)
        return 98;
    baton_on_master_reload(on_master_reload);
    baton_on_master_stop(on_master_stop);
    return baton_run(argc, argv);
}
"""


@pytest.fixture
def own_program():
    """A start program compiled here against the shared library of the build."""
    service = Service(env={"LD_LIBRARY_PATH": str(BUILD / "src")})

    def make(mistake=""):
        service.port = free_port()
        text = service.folder / "own.c"
        text.write_text(OWN.replace("FOLDER", str(service.folder)).replace("PORT", str(service.port))
                        .replace("MISTAKE", mistake))
        sanitize = ["-fsanitize=address,undefined"] if b"__asan_init" in (BUILD / "baton").read_bytes() else []
        subprocess.run(["clang" if sanitize else "cc", *sanitize, "-I", str(ROOT / "include"), "-o",
                        str(service.folder / "own"), str(text), "-L", str(BUILD / "src"), "-lbaton"], check=True)
        service.run_program(service.folder / "own")
        return service

    yield make
    service.close()


def test_master_callbacks_run_in_the_master(own_program):
    service = own_program().start()
    service.crashes_expected = True
    assert get(service.port).text == "0"
    old = service.pids("own")[0]
    service.reload()
    wait_until(lambda: process_state(old) is None, "the old process has ended")
    events = service.folder / "events"
    wait_until(lambda: "own 0 master" in events.read_text().splitlines(), "the exit was reported")
    assert "reload 0 master" in events.read_text().splitlines()
    with pytest.raises((AssertionError, ConnectionError)):
        get(service.port, "/exit")
    wait_until(lambda: any(line.startswith("own %d" % (5 << 8)) for line in events.read_text().splitlines()),
               "the exit code was reported")
    wait_until(lambda: service.pids("own"), "the slot serves again")
    service.stop()
    lines = events.read_text().splitlines()
    assert "stop 0 master" in lines and not any(line.endswith("process") for line in lines)


def test_mistakes_of_a_start_program_are_reported_by_run(own_program):
    service = own_program("""
    if (baton_worker_set(worker, "colour", "red") == 0 || baton_worker_set(worker, "count", "none") == 0)
        return 99;
""")
    result = service.command("start")
    assert result.returncode == 2
    assert "colour" in result.stderr and "count" in result.stderr
