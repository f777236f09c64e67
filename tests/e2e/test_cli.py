"""The command line: what it prints, what it exits with, and what it does when the master does not play along.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not running.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import BATON, BUILD, DEADLINE, ROOT, SANITIZED, wait_until, worker_ini


def run(*args, cwd=None):
    return subprocess.run([BATON, *args], capture_output=True, text=True, cwd=cwd, timeout=DEADLINE)


def is_locked(pid_file):
    """Whether a living process holds the lock of the pid file."""
    try:
        with open(pid_file, "r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


# ---- words ----

def test_settings_page_is_what_the_table_says():
    printed = run("help", "settings", "--markdown")
    assert printed.returncode == 0
    assert printed.stdout == (ROOT / "docs" / "settings.md").read_text()


def test_every_setting_is_in_the_help():
    page = (ROOT / "docs" / "settings.md").read_text()
    names = re.findall(r"^\| `(\w+)` \|", page, re.M)
    text = run("help", "settings").stdout
    assert len(names) > 25
    assert not [name for name in names if not re.search(r"^  %s +" % name, text, re.M)]
    assert run("--help", "settings").stdout == text
    assert max(map(len, text.splitlines())) <= 100


def test_every_command_is_in_the_manual_page():
    page = (ROOT / "docs" / "baton.1").read_text()
    text = run("--help").stdout
    commands = re.findall(r"^  ([a-z]+)[ \[]", text.split("options:")[0], re.M)
    options = re.findall(r"--([a-z-]+)", text.split("options:")[1].split("exit codes:")[0])
    assert {"start", "stop", "restart", "reload", "rollback", "upgrade", "status", "generations", "check", "help",
            "version"} <= set(commands)
    assert not [name for name in commands if ".It Cm %s\n" % name not in page]
    assert not [name for name in options if "Fl -" + name not in page]


def test_version_and_help_go_to_stdout():
    for words in (["--version"], ["-V"], ["version"], ["start", "-V"]):
        result = run(*words)
        assert re.fullmatch(r"baton \d+\.\d+\.\d+\n", result.stdout) and result.returncode == 0
    for words in (["--help"], ["-h"], ["help"], ["reload", "web", "--help"]):
        result = run(*words)
        assert result.stdout.startswith("usage: baton") and "exit codes:" in result.stdout
        assert result.returncode == 0 and result.stderr == ""


@pytest.mark.parametrize("words, complaint", [
    ([], "usage: baton"),
    (["strat"], 'unknown command "strat" (did you mean "start"?), see baton --help'),
    (["frobnicate"], 'unknown command "frobnicate", see baton --help'),
    (["reload", "--wiat"], 'unknown option "--wiat" (did you mean "--wait"?), see baton --help'),
    (["status", "-q"], 'unknown option "-q", see baton --help'),
    (["status", "-d"], "status: --daemon does not go with it; usage: baton status [--json] [-w]"),
    (["start", "--json"], "start: --json does not go with it; usage: baton start [-d]"),
    (["stop", "now"], 'stop: unexpected "now"; usage: baton stop [-g]'),
    (["upgrade", "now"], 'upgrade: unexpected "now"; usage: baton upgrade [--wait]'),
    (["upgrade", "--no-wait"], "upgrade: --no-wait does not go with it; usage: baton upgrade [--wait]"),
    (["rollback", "-g"], "rollback: --graceful does not go with it; usage: baton rollback [NAME] [--wait]"),
    (["generations", "3"], 'generations: unexpected "3"; usage: baton generations [--json]'),
    (["rolback"], 'unknown command "rolback" (did you mean "rollback"?), see baton --help'),
    (["reload", "a", "b"], 'reload: unexpected "b"; usage: baton reload'),
    (["reload", "--wait", "--no-wait"], "reload: either --wait or --no-wait"),
    (["stop", "--graceful=yes"], "--graceful takes no value"),
    (["-c"], "-c needs a file, such as -c baton.ini"),
    (["help", "colours"], 'no help about "colours", only: baton help settings'),
], ids=" ".join)
def test_wrong_usage_exits_2_and_says_why(words, complaint, tmp_path):
    result = run(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert result.stdout == ""
    if words:
        assert result.stderr.startswith("baton: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("word", ["start", "stop", "restart", "reload", "rollback", "upgrade", "status",
                                  "generations", "check"])
def test_no_configuration_exits_2(word, tmp_path):
    here = run(word, cwd=tmp_path)
    assert here.returncode == 2 and "-c FILE" in here.stderr and here.stderr.count("\n") == 1
    named = run("-c", "none.ini", word, cwd=tmp_path)
    assert named.returncode == 2 and named.stderr == "none.ini: No such file or directory\n"


# ---- mistakes in the file ----

BROKEN = """[baton]
pidfile = run/x.pid
[worker]
count = 1
[worker web]
listen = http://127.0.0.1:{port}
count = x
module = ./http-echo.so
"""


def test_all_mistakes_are_reported_and_nothing_starts(new_service):
    service = new_service(BROKEN)
    ini = "%s/baton.ini" % service.folder
    for word in ("check", "start", "restart", "reload", "upgrade"):
        result = service.command(word)
        assert result.returncode == 2
        assert result.stderr.startswith(
            '%s:2: pidfile: unknown setting (did you mean "pid_file"?)\n'
            "%s:3: [worker] needs a name, such as [worker web]\n"
            '%s:7: worker web: count: "x" is not a number from 1 to 1024\n' % (ini, ini, ini)), word
    assert not (service.folder / "run").exists()


def test_the_file_is_named_as_it_was_given(new_service):
    service = new_service(BROKEN)
    result = run("-c", "./baton.ini", "check", cwd=service.folder)
    assert result.stderr.startswith("./baton.ini:2: ")
    result = run("check", cwd=service.folder)
    assert result.stderr.startswith("baton.ini:2: ")


def test_a_broken_file_does_not_keep_a_service_from_being_stopped(serve):
    service = serve(count=1)
    good = (service.folder / "baton.ini").read_text()
    (service.folder / "baton.ini").write_text(good + "colour = red\n")
    assert service.command("status").returncode == 0
    refused = service.command("reload")
    assert refused.returncode == 2 and "baton.ini:7: worker web: colour: unknown setting" in refused.stderr
    assert service.command("restart").returncode == 2
    assert service.command("upgrade").returncode == 2
    assert service.is_running
    assert service.command("stop").returncode == 0
    # Nobody knows any more whether this is the pid file that was meant.
    after = service.command("stop")
    assert after.returncode == 2 and "not running" in after.stderr and "colour" in after.stderr
    for word in ("rollback", "generations"):
        assert service.command(word).returncode == 2


# ---- check ----

def test_check_says_ok(new_service):
    service = new_service(worker_ini())
    result = run("-c", "baton.ini", "check", cwd=service.folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, "baton.ini: ok, 1 worker\n", "")


CRASHING = """
#include <baton.h>
#include <stdlib.h>
static void on_request(baton_conn *conn, const baton_request *req) { (void) conn; (void) req; }
__attribute__((constructor)) static void on_load(void) { %s }
BATON_MODULE(.on_request = on_request);
"""


@pytest.mark.parametrize("source, reason", [
    ("#include <baton.h>\n", "no symbol baton_module"),
    ("#include <baton.h>\nBATON_MODULE(.on_request = 0);\n", "has no on_request"),
    (CRASHING % "abort();", "signal 6"),
    (CRASHING % "exit(3);", "exit 3"),
    (CRASHING % "for (;;) __builtin_ia32_pause();" if os.uname().machine == "x86_64"
     else CRASHING % 'for (;;) __asm__ volatile("");', "ready_timeout"),
], ids=["no descriptor", "no on_request", "crash", "exit", "hang"])
def test_check_tries_each_module(source, reason, new_service, compiled):
    service = new_service(worker_ini(module="./bad.so", ready_timeout="500ms"), modules=())
    service.install(compiled(source), "bad.so")
    service.env["TMPDIR"] = service.folder
    result = service.command("check")
    assert result.returncode == 2
    assert re.search(r"baton\.ini: worker web: module: .*bad\.so: .*" + reason, result.stderr), result.stderr
    assert not [name for name in os.listdir(service.folder) if name.startswith("baton-check-")]


def test_check_finds_a_truncated_module(new_service):
    service = new_service(worker_ini())
    module = service.folder / "http-echo.so"
    module.write_bytes(module.read_bytes()[:4096])
    result = service.command("check")
    assert result.returncode == 2 and "truncated" in result.stderr


def test_check_does_not_disturb_what_runs(serve, connect):
    service = serve(count=1)
    client = connect(service)
    assert client.request("/").status == 200
    pids = service.pids()
    assert service.command("check").returncode == 0
    assert service.pids() == pids
    assert client.request("/").status == 200


# ---- start, stop, restart ----

def test_second_start_says_that_it_runs(serve):
    service = serve(count=1)
    for words in (["start"], ["start", "-d"]):
        result = service.command(*words)
        assert result.returncode == 1
        assert "already running" in result.stderr and str(service.pid) in result.stderr
    assert service.is_running


def test_stop_returns_when_the_lock_is_free(serve):
    service = serve(count=2)
    pids = service.pids()
    result = service.command("stop")
    assert result.returncode == 0
    assert not is_locked(service.pid_file)
    assert not [pid for pid in pids if Path("/proc", str(pid)).exists()]
    assert service.wait_exit() == 0
    again = service.command("stop")
    assert again.returncode == 3 and "not running" in again.stderr


def test_stop_works_without_the_control_socket(serve):
    service = serve(count=1)
    service.control_socket.unlink()
    result = service.command("stop")
    assert result.returncode == 0 and "SIGTERM" in result.stderr
    assert service.wait_exit() == 0


@contextlib.contextmanager
def daemon(service):
    """`start -d`, and a stop at the end whatever happens."""
    result = service.command("start", "-d", tagged=True)
    try:
        yield result
    finally:
        service.command("stop")


def test_start_as_a_daemon_returns_when_it_serves(new_service, connect):
    service = new_service(worker_ini(count=1))
    with daemon(service) as result:
        assert result.returncode == 0, result.stderr
        assert connect(service).request("/").status == 200
        state = service.status()
        assert state["daemon"] is True and state["state"] == "running"
        assert int(service.pid_file.read_text()) == state["pid"]


def test_a_failed_start_as_a_daemon_exits_1_with_the_reason(new_service):
    service = new_service(worker_ini(count=1))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", service.port))
        taken.listen()
        with daemon(service) as result:
            assert result.returncode == 1
            assert "use" in result.stderr and str(service.port) in result.stderr
    assert not is_locked(service.pid_file)


def test_restart_of_nothing_starts(new_service):
    service = new_service(worker_ini(count=1))
    try:
        result = service.command("restart", "-d", tagged=True)
        assert result.returncode == 0, result.stderr
        assert "not running" in result.stdout and "starting" in result.stdout
        assert service.status()["state"] == "running"
    finally:
        assert service.command("stop").returncode == 0


def test_restart_keeps_a_daemon_a_daemon(new_service):
    service = new_service(worker_ini(count=1))
    with daemon(service):
        before = service.status()
        result = service.command("restart", tagged=True)
        assert result.returncode == 0, result.stderr
        after = service.status()
        assert after["daemon"] is True
        assert after["pid"] != before["pid"]


# ---- reload ----

def test_reload_shows_each_step_and_the_result(serve):
    service = serve(count=2)
    result = service.reload()
    for slot in (0, 1):
        assert re.search(r"^web\[%d\]: \w+" % slot, result.stdout, re.M), result.stdout
    assert "\033" not in result.stdout
    assert "2" in result.stdout.splitlines()[-1]
    assert {process["generation"] for process in service.processes()} == {2}


def test_failed_reload_exits_1_with_the_reason(serve):
    service = serve(count=1)
    (service.folder / "http-echo.so").write_text("not a module")
    result = service.command("reload")
    assert result.returncode == 1
    assert "reload failed: " in result.stderr and "http-echo.so" in result.stderr
    assert {process["generation"] for process in service.processes()} == {1}


def test_unknown_worker_exits_2_with_the_known_names(serve):
    service = serve(worker_ini() + "[worker tasks]\nmodule = ./http-echo.so\n")
    result = service.command("reload", "wbe")
    assert result.returncode == 2
    assert result.stderr == 'baton: reload: no worker "wbe": there are web, tasks\n'
    assert service.reload("web").returncode == 0
    assert {process["generation"] for process in service.processes("web")} == {2}
    assert {process["generation"] for process in service.processes("tasks")} == {1}


def on_terminal(service, *args, until):
    """Runs a command on a terminal of its own; returns all it wrote once `until(text)` holds or it has ended."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, 0x5414, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # TIOCSWINSZ: 24 x 80
    child = subprocess.Popen([*service.program, *args], stdin=slave, stdout=slave, stderr=slave,
                             start_new_session=True, env=dict(os.environ, TERM="xterm"),
                             preexec_fn=lambda: fcntl.ioctl(0, 0x540E, 0))  # TIOCSCTTY: Ctrl-C must reach it
    os.close(slave)
    text = b""
    end = time.monotonic() + DEADLINE
    try:
        while time.monotonic() < end:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                part = os.read(master, 65536)
            except OSError:  # EIO: the other end is closed
                break
            text += part
            if until(text.decode(errors="replace")):
                os.write(master, b"\x03")
                until = lambda _: False
        return text.decode(errors="replace"), child.wait(DEADLINE)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        os.close(master)


def test_reload_redraws_one_line_a_slot_on_a_terminal(serve):
    service = serve(count=2)
    text, code = on_terminal(service, "reload", until=lambda _: False)
    assert code == 0
    assert "\033[" in text and "A" in text
    assert len(re.findall(r"\n", text)) <= 5  # preparing, two slots, the result; steps redraw


# ---- status ----

def test_status_table(serve):
    service = serve(worker_ini(name="front-end"))
    text = service.must("status").stdout
    state = service.status()
    assert text.startswith("baton %s, pid %d, running" % (state["version"], service.pid))
    table = text.split("\n\n")[1].splitlines()
    assert table[0].split() == "worker slot pid gen state connections requests in out memory uptime restarts last exit".split()
    rows = [line.split() for line in table[1:]]
    pids = [str(process["pid"]) for process in state["workers"][0]["processes"]]
    assert [row[:5] for row in rows[:2]] == [["front-end", str(slot), pids[slot], "1", "serving"] for slot in (0, 1)]
    assert rows[2][:3] == ["all", "2", "processes"]


def test_status_watch_ends_by_ctrl_c(serve):
    service = serve(count=1)
    text, code = on_terminal(service, "status", "-w", until=lambda seen: seen.count("\033[2J") >= 2)
    assert code == 0
    assert text.count("baton 0.") >= 2


def test_status_watch_json_is_one_line_a_second(serve):
    service = serve(count=1)
    watch = subprocess.Popen([*service.program, "status", "--json", "-w"], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(2):
            assert json.loads(watch.stdout.readline())["pid"] == service.pid
        service.stop()
        watch.stdout.read()
        assert watch.wait(DEADLINE) == 3
    finally:
        watch.kill()
        watch.wait()
        watch.stdout.close()


# ---- a master that does not play along ----

def test_hung_master_is_an_error_not_a_hang(serve):
    service = serve(count=1)
    service.signal(signal.SIGSTOP)
    try:
        for words in (["status"], ["reload"], ["reload", "web"]):
            result = service.command(*words)
            assert result.returncode == 1
            assert "pid %d) does not answer" % service.pid in result.stderr
    finally:
        service.signal(signal.SIGCONT)


class FakeMaster(threading.Thread):
    """Holds the lock of a pid file in a process of its own and answers the control socket with fixed bytes."""

    def __init__(self, folder, answer, keep_open=False):
        super().__init__(daemon=True)
        (folder / "run").mkdir(exist_ok=True)
        self.answer = answer
        self.keep_open = keep_open
        self.requests = []
        # fcntl locks do not keep out their own process, so another one has to hold it.
        self.holder = subprocess.Popen(["/usr/bin/python3", "-c",
                                        "import fcntl,sys\n"
                                        "f = open(sys.argv[1], 'w')\n"
                                        "fcntl.lockf(f, fcntl.LOCK_EX)\n"
                                        "f.write('%d\\n' % __import__('os').getpid()); f.flush()\n"
                                        "print(flush=True)\nsys.stdin.read()", str(folder / "run" / "baton.pid")],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        self.socket = socket.socket(socket.AF_UNIX)
        self.path = folder / "run" / "baton.sock"
        self.socket.bind(str(self.path))
        self.socket.listen()
        self.open = []

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self.socket.accept()
                with conn.makefile() as lines:
                    self.requests.append(json.loads(lines.readline()))
                answer = self.answer(self.requests[-1]) if callable(self.answer) else self.answer
                conn.sendall(answer)
                if self.keep_open:
                    self.open.append(conn)
                else:
                    conn.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.path.unlink()
        for conn in self.open:
            conn.close()
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.holder.wait()
        self.join()


def done(**fields):
    return (json.dumps(dict({"event": "done", "ok": True, "code": 0, "message": "m", "generation": 2}, **fields))
            + "\n").encode()


@pytest.mark.parametrize("answer, complaint", [
    (b"", "ended before it had answered"),
    (b"hello\n", "Protocol error"),
    (b'"text"\n', "Protocol error"),
    (b'{"event":"done"', "ended before it had answered"),
], ids=["nothing", "no json", "no object", "half a line"])
@pytest.mark.parametrize("word", ["status", "reload"])
def test_nonsense_from_the_master_is_an_error(word, answer, complaint, new_service):
    service = new_service(worker_ini())
    with FakeMaster(service.folder, answer):
        result = service.command(word)
    assert result.returncode == 1
    assert complaint in result.stderr and result.stderr.count("\n") == 1


def test_what_is_asked_of_the_master(new_service):
    service = new_service(worker_ini())
    asked = {
        (): {"wait": "serve", "unlimited": False},
        ("--wait",): {"wait": "probation", "unlimited": False},
        ("--no-wait",): {"wait": "none", "unlimited": False},
        ("-g",): {"wait": "serve", "unlimited": True},
    }
    with FakeMaster(service.folder, done()) as master:
        for words in asked:
            assert service.command("reload", *words).returncode == 0
        assert master.requests == [dict({"command": "reload", "worker": None}, **fields) for fields in asked.values()]


@pytest.mark.parametrize("words, request_line", [
    (["rollback"], {"command": "rollback", "worker": None, "wait": "serve"}),
    (["rollback", "--wait"], {"command": "rollback", "worker": None, "wait": "probation"}),
    (["rollback", "web"], {"command": "rollback", "worker": "web", "wait": "serve"}),
    (["upgrade"], {"command": "upgrade", "wait": "serve"}),
    (["upgrade", "--wait"], {"command": "upgrade", "wait": "probation"}),
    (["generations"], {"command": "generations"}),
], ids=" ".join)
def test_what_else_is_asked_of_the_master(words, request_line, new_service):
    service = new_service(worker_ini())
    answer = done(status={"workers": [{"name": "web"}]}, generations=[])
    with FakeMaster(service.folder, answer) as master:
        assert service.command(*words).returncode == 0
        assert master.requests[-1] == request_line


@pytest.mark.parametrize("word", ["reload", "rollback", "upgrade"])
def test_a_failure_shows_what_the_process_logged(word, new_service):
    service = new_service(worker_ini())
    with FakeMaster(service.folder, done(ok=False, code=1, message="web[0]: signal 6", log=["first", "last words"])):
        result = service.command(word)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "baton: %s failed: web[0]: signal 6\n  first\n  last words\n" % word


# ---- generations and status, as they are laid out ----

GENERATIONS = [
    {"number": 7, "created_at": 1700000000000, "state": "kept", "reason": "",
     "workers": [{"name": "web", "sha256": "0123456789abcdef" * 4, "build_id": "cafe01"},
                 {"name": "tasks", "sha256": None, "build_id": None}]},
    {"number": 8, "created_at": 1700000001000, "state": "serving", "reason": "",
     "workers": [{"name": "web", "sha256": "fedcba9876543210" * 4, "build_id": "cafe02"}]},
    {"number": 9, "created_at": 1700000002000, "state": "failed", "reason": "web[0]: signal 11", "workers": []},
]


def test_generations_table(new_service):
    service = new_service(worker_ini(), env={"TZ": "UTC"})
    with FakeMaster(service.folder, done(generations=GENERATIONS)):
        result = service.command("generations")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "generation  state    made                 worker  sha256        build id  reason",
        "         7  kept     2023-11-14T22:13:20  web     0123456789ab  cafe01",
        "                                          tasks   -             -",
        "       * 8  serving  2023-11-14T22:13:21  web     fedcba987654  cafe02",
        "         9  failed   2023-11-14T22:13:22                                  web[0]: signal 11",
    ]


def test_generations_as_json_are_the_masters(new_service):
    service = new_service(worker_ini())
    with FakeMaster(service.folder, done(generations=GENERATIONS)):
        result = service.command("generations", "--json")
    assert result.returncode == 0 and json.loads(result.stdout) == GENERATIONS


def test_status_shows_alarms_first_and_what_is_the_matter_with_a_process(new_service):
    service = new_service(worker_ini())
    process = {"slot": 0, "pid": 70, "generation": 1, "state": "draining", "connections": 3, "last_exit": None,
               "stuck_ms": 12345, "stays": {"app state": 2, "response": 1}}
    healthy = dict(process, slot=1, pid=71, state="serving", stuck_ms=None, stays={})
    worker = {"name": "web", "listen": "http://127.0.0.1:80", "count": 2, "generation": 1, "exits": [],
              "stayed": {"app state": 5}, "alarms": ["slot 1: ended 5 times"], "processes": [process, healthy]}
    with FakeMaster(service.folder, done(status={"version": "0.1.0", "pid": 69, "state": "running",
                                                 "workers": [worker]})):
        lines = service.must("status").stdout.splitlines()
    assert lines[0] == "ALARM worker web: slot 1: ended 5 times"
    assert lines[1].startswith("baton 0.1.0, pid 69")
    assert lines[2].endswith("; not passed so far: 5 app state")
    table = lines[lines.index("") + 1:]
    assert table[0].endswith("last exit  remarks")
    assert table[1].endswith("stuck 12 s, holds 3: 2 app state, 1 response")
    assert table[2].endswith("  -")


# ---- check beside a running service ----

def compared(service, old_ini, generations=(), file=None, **fields):
    """What `check` says when a master answers that it runs with `old_ini`."""
    ini = str(service.folder / "baton.ini")
    names = re.findall(r"\[worker (\w+)\]", old_ini)
    config = dict({"file": file or ini, "workers": [{"name": name, "generation": 3} for name in names],
                   "texts": [{"generation": 3, "text": old_ini}]}, **fields)

    def answer(request):
        return done(config=config) if request["command"] == "config" else done(generations=list(generations))
    with FakeMaster(service.folder, answer):
        result = service.command("check")
    assert result.returncode == 0, result.stderr
    ok, _, rest = result.stdout.partition("\n")
    assert ok.startswith(ini + ": ok, ")
    return rest, result.stderr


BEFORE = """[baton]
stop_timeout = 3
[worker web]
listen = http://127.0.0.1:8080
module = ./http-echo.so
count = 2
[worker gate]
reloadable = no
module = ./http-echo.so
[worker old]
module = ./http-echo.so
"""


def test_check_says_what_a_reload_would_change(new_service):
    after = BEFORE.replace("count = 2", "count = 4").replace("[worker old]", "[worker api]\nlisten = http://*:8081") \
        .replace("reloadable = no", "reloadable = no\ncount = 2") \
        .replace("stop_timeout = 3", "stop_timeout = 4s\nrun_dir = run2")
    service = new_service(after)
    rest, stderr = compared(service, BEFORE)
    assert stderr == ""
    folder = service.folder
    assert rest.splitlines() == [
        "a reload would change:",
        "  [baton] stop_timeout: 3s -> 4s",
        "  worker web: count: 2 -> 4",
        "  worker api: new, listens on http://*:8081",
        "  worker old: removed",
        "  [baton] run_dir: %s/run -> %s/run2: takes effect at the next restart" % (folder, folder),
        "  worker gate: reloadable = no: waits for `reload gate`: count: 1 -> 2",
    ]


def test_check_lets_the_running_configuration_say_what_is_reloadable(new_service):
    service = new_service(BEFORE.replace("reloadable = no", "count = 3"))
    rest, _ = compared(service, BEFORE)
    assert rest.splitlines() == ["a reload would change nothing",
                                 "  worker gate: reloadable = no: waits for `reload gate`: count: 1 -> 3",
                                 "  worker gate: reloadable = no: waits for `reload gate`: reloadable: no -> yes"]


def test_check_says_that_nothing_would_change(new_service):
    service = new_service(BEFORE)
    rest, _ = compared(service, BEFORE.replace("count = 2", "count = 2 ; two"))
    assert rest == "a reload would change nothing\n"


def test_check_sees_by_its_hash_that_a_module_has_changed(new_service):
    service = new_service(BEFORE)
    serving = hashlib.sha256((service.folder / "http-echo.so").read_bytes()).hexdigest()
    workers = [{"name": name, "sha256": serving, "build_id": None} for name in ("web", "gate", "old")]
    generations = [{"number": 3, "state": "serving", "workers": workers}]
    rest, _ = compared(service, BEFORE, generations)
    assert rest == "a reload would change nothing\n"
    with open(service.folder / "http-echo.so", "ab") as module:
        module.write(b"\n")
    rest, _ = compared(service, BEFORE, generations)
    assert rest.splitlines() == ["a reload would change:", "  worker web: module: changed",
                                 "  worker old: module: changed",
                                 "  worker gate: reloadable = no: waits for `reload gate`: module: changed"]


def test_check_does_not_compare_with_another_file(new_service):
    service = new_service(BEFORE)
    rest, _ = compared(service, BEFORE, file="/other/baton.ini")
    assert rest == "what runs was started with /other/baton.ini, and a reload reads that\n"


def test_check_is_right_beside_a_master_that_cannot_answer(new_service):
    service = new_service(worker_ini())
    with FakeMaster(service.folder, done(ok=False, code=2, message="unknown command")):
        result = service.command("check")
    assert result.returncode == 0
    assert "ok, 1 worker" in result.stdout and "change" not in result.stdout
    assert result.stderr.endswith("warning: not compared with what runs: unknown command\n")


def test_exit_code_is_the_masters(new_service):
    service = new_service(worker_ini())
    for fields, code in (({"ok": False, "code": 1}, 1), ({"ok": False, "code": 2}, 2), ({"ok": False, "code": 0}, 1),
                         ({"ok": True}, 0)):
        with FakeMaster(service.folder, done(message="the reason", **fields)):
            result = service.command("reload")
        assert result.returncode == code
        assert "the reason" in (result.stdout if code == 0 else result.stderr)


def test_a_long_silent_reload_is_waited_for(new_service):
    """The master answers the reload only after the client has asked whether it is still alive."""
    service = new_service(worker_ini())
    asked_again = threading.Event()

    with FakeMaster(service.folder, b"", keep_open=True) as master:
        def answer(request):
            if request["command"] == "reload":
                return b""
            asked_again.set()
            return done(status={})
        master.answer = answer

        def release():
            asked_again.wait(DEADLINE)
            wait_until(lambda: master.open, "the reload's connection is known")
            master.open[0].sendall(done(message="late, but there"))
        helper = threading.Thread(target=release)
        helper.start()
        result = service.command("reload")
        helper.join()
    assert result.returncode == 0 and "late, but there" in result.stdout
    assert asked_again.is_set()


# ---- start programs ----

PROGRAM = """
#include <baton.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "program");
}
int main(int argc, char **argv)
{
    %s
    return baton_run(argc, argv);
}
"""


@pytest.fixture
def program(new_service):
    """program(body) compiles a start program against the build's library and makes a service of it."""
    def make(body):
        service = new_service(modules=())
        binary = service.folder / "prog"
        source = service.folder / "prog.c"
        source.write_text(PROGRAM % body)
        library = next(BUILD.rglob("libbaton.so")).parent
        flags = ["-fsanitize=address,undefined"] if SANITIZED else []
        subprocess.run(["cc", "-g", *flags, "-I", str(ROOT / "include"), "-o", str(binary), str(source),
                        "-L", str(library), "-lbaton", "-Wl,-rpath," + str(library)], check=True)
        service.run_program(binary)
        return service

    return make


def test_start_program_has_the_same_words(program):
    service = program('(void) !baton_worker_new("http://127.0.0.1:0", .callbacks = {.on_request = on_request});')
    assert service.command("--version").stdout.startswith("prog (baton ")
    text = service.command("--help").stdout
    assert text.startswith("usage: prog COMMAND") and "--config" not in text
    assert service.command("check").stdout == "prog: ok, 1 worker\n"
    for word in ("status", "rollback", "upgrade", "generations"):
        assert service.command(word).returncode == 3
        assert "  %s " % word in text
    refused = service.command("-c", "x.ini", "status")
    assert refused.returncode == 2 and "own configuration" in refused.stderr


def test_start_program_mistakes_are_told_by_run(program):
    service = program("""
    baton_worker *web = baton_worker_new("http://127.0.0.1:99999", .name = "web", .count = 5000,
                                         .callbacks = {.on_request = on_request});
    if (baton_worker_set(web, "cuont", "3") == 0 || baton_set("stop_timeout", "soon") == 0)
        return 77;
    (void) !baton_worker_new("http://127.0.0.1:0", .name = "silent");
    """)
    for word in ("start", "check"):
        result = service.command(word)
        assert result.returncode == 2
        assert result.stderr.splitlines() == [
            'prog: worker web: listen: "http://127.0.0.1:99999": port 99999 is not from 0 to 65535',
            'prog: worker web: count: "5000" is not a number from 1 to 1024',
            'prog: worker web: cuont: unknown setting (did you mean "count"?)',
            'prog: stop_timeout: "soon" is not a time (such as 500ms, 10s, 2m) from 0 to 24h',
            "prog: worker silent: listens on http://127.0.0.1:0 but has neither on_request nor a module",
        ]
    assert not (service.folder / "run").exists()


def test_start_program_without_workers_says_so(program):
    result = program("").command("start")
    assert result.returncode == 2
    assert result.stderr == "prog: no worker: the program has not called baton_worker_new()\n"


def test_start_program_runs_beside_its_own_pid_file(program):
    service = program("""
    (void) !baton_worker_new("http://127.0.0.1:0", .callbacks = {.on_request = on_request});
    (void) !baton_worker_new(NULL);
    """)
    try:
        result = service.command("start", "-d", tagged=True)
        assert result.returncode == 0, result.stderr
        assert (service.folder / "run" / "prog.pid").exists()
        state = service.status()
        assert [worker["name"] for worker in state["workers"]] == ["none", "none-2"]
        assert service.command("start", "-d").returncode == 1
        assert service.command("reload").returncode == 0
        assert service.command("check").stdout == "prog: ok, 2 workers\na reload would change nothing\n"
        assert [one["number"] for one in json.loads(service.must("generations", "--json").stdout)] == [1, 2]
        assert service.command("rollback", "none").returncode == 0
        assert service.status()["workers"][0]["generation"] == 1
    finally:
        assert service.command("stop").returncode == 0
    assert service.command("status").returncode == 3
