"""Starts real services for the end-to-end tests and watches how they end.

Knows the command line, the control socket's JSON and /proc; knows nothing of what a test asserts.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BATON_BUILD") or ROOT / "build").resolve()
BATON = BUILD / "baton"
EXAMPLES = BUILD / "examples"
TEST_MODULES = BUILD / "tests" / "modules"
SOAK = bool(os.environ.get("BATON_SOAK"))
SANITIZED = BATON.exists() and b"__asan_init" in BATON.read_bytes()
HAS_FAILPOINTS = BATON.exists() and b"BATON_FAILPOINTS" in BATON.read_bytes()
DEADLINE = int(os.environ.get("BATON_DEADLINE") or (60 if SANITIZED else 30))

# A crash must look like a crash to the master: without this ASan turns SIGSEGV into exit code 1.
SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:handle_segv=0:handle_abort=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}
SANITIZER_WORDS = ("ERROR: AddressSanitizer", "runtime error:", "LeakSanitizer", "AddressSanitizer:DEADLYSIGNAL")


def wait_until(condition, what, deadline=DEADLINE):
    """Polls until condition() is true and returns its value; fails with `what` at the deadline."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited %d s in vain until %s" % (deadline, what))
        time.sleep(0.01)


# ---- ports ----

def _port_range():
    """Below the kernel's ephemeral ports, so that no outgoing connection takes one; apart for each xdist process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    index = int(re.sub(r"\D", "", worker) or 0) % 16
    first = 11000 + index * 400
    return list(range(first, first + 400))


_ports = _port_range()
random.shuffle(_ports)


def free_port():
    """A TCP port that nobody listens on, not handed out before in this process."""
    while _ports:
        port = _ports.pop()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    _ports.extend(_port_range())
    return free_port()


# ---- /proc ----

def children_of(pid):
    """Pids of the living and dead-but-not-reaped children."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry))
    return sorted(found)


def process_state(pid):
    """"R", "S", "Z"...; None when there is no such process."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def is_alive(pid):
    """False for a zombie: an orphan's waits for an init that may take its time, or never comes in a container."""
    return process_state(pid) not in (None, "Z", "X")


def start_ticks(pid):
    """When the process began: tells a process from a later one with the same pid."""
    try:
        return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def descriptors_of(pid):
    """What /proc/PID/fd points to, as a sorted list without the numbers that differ from one socket to the next."""
    found = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(OSError):
            found.append(re.sub(r"\[\d+\]", "", os.readlink("/proc/%d/fd/%s" % (pid, fd))))
    return sorted(found)


def tagged_processes(tag):
    found = []
    needle = ("BATON_TEST_TAG=" + tag).encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if needle in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
    return found


# ---- modules ----

def compile_module(source, output, *flags):
    """Compiles C text to a module, as a user would: the headers and nothing else."""
    output = Path(output)
    text = output.with_suffix(".c")
    text.write_text(source)
    temporary = output.with_name(output.name + ".new")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-g", "-Wall", "-Werror", "-fvisibility=hidden",
                    "-I", str(ROOT / "include"), "-o", str(temporary), str(text), *flags], check=True)
    os.replace(temporary, output)
    return output


def text_module_source(text):
    """A module whose every answer is `text`."""
    return """
#include <baton.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "%s");
}
BATON_MODULE(.on_request = on_request);
""" % text


# ---- the service ----

class CommandFailed(AssertionError):
    pass


class Service:
    """One running baton (or start program) in a folder of its own."""

    def __init__(self, ini=None, env=None):
        # Short, because the path of a Unix socket ends at 107 bytes; open, because processes may run as nobody.
        self.folder = Path("/tmp/bt-" + uuid.uuid4().hex[:8])
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.program = [str(BATON), "-c", str(self.folder / "baton.ini")]
        self.stem = "baton"  # of the pid file; those of a start program are called after it
        self.log_file = self.folder / "stderr.log"
        self.tag = uuid.uuid4().hex
        self.env = dict(os.environ, **SANITIZER_ENV, BATON_TEST_TAG=self.tag, **(env or {}))
        if HAS_FAILPOINTS:
            self._prepare_failpoints()
        self.process = None
        self.port = None
        self.seen = {}  # pid -> start time, of every process that status has ever shown
        self.has_daemon = False
        self.crashes_expected = False
        self.exit_code_expected = 0
        if ini is not None:
            self.write_ini(ini)

    def run_program(self, program):
        """Makes this the service of a start program."""
        self.program = [str(program)]
        self.stem = Path(program).name

    # -- files --

    def write_ini(self, text):
        if "{port}" in text and self.port is None:
            self.port = free_port()
        text = text.replace("{port}", str(self.port)).replace("{folder}", str(self.folder))
        (self.folder / "baton.ini").write_text(text)

    def install(self, module, name=None):
        """Puts a module into the folder the way a careful deploy does: complete, by rename."""
        target = self.folder / (name or Path(module).name)
        temporary = target.with_name(target.name + ".new")
        shutil.copyfile(module, temporary)
        os.replace(temporary, target)
        return target

    def overwrite(self, module, name=None):
        """Puts a module into the folder the way `cp` does: into the very file that was loaded."""
        target = self.folder / (name or Path(module).name)
        with open(module, "rb") as source, open(target, "r+b") as sink:
            sink.truncate(0)
            shutil.copyfileobj(source, sink)
        return target

    def compile(self, source, name, *flags):
        return compile_module(source, self.folder / name, *flags)

    @property
    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def pid_file(self):
        return self.folder / "run" / (self.stem + ".pid")

    @property
    def control_socket(self):
        return self.folder / "run" / (self.stem + ".sock")

    # -- fail-points (src/base/failpoint.h) --

    def _prepare_failpoints(self):
        # Before anything that the service makes, and writable for processes that run as nobody.
        self.failpoints = self.folder / "failpoints"
        self.failpoints.mkdir()
        self.failpoints.chmod(0o777)
        self.pass_log_file = self.folder / "pass.log"
        self.pass_log_file.touch()
        self.pass_log_file.chmod(0o666)
        self.env.update(BATON_FAILPOINTS=str(self.failpoints), BATON_PASS_LOG=str(self.pass_log_file))

    def arm(self, name, action, **conditions):
        """The next process that comes by does it: arm("pass.sent", "kill", role="web.0", after=2)."""
        for old in (*self.failpoints.glob(name + ".taken.*"), *self.failpoints.glob(name + ".acted.*")):
            old.unlink()
        lines = ["%s %s" % condition for condition in conditions.items()] + [action]
        temporary = self.failpoints / ("new:" + name)
        temporary.write_text("\n".join(lines) + "\n")
        os.replace(temporary, self.failpoints / name)

    def disarm(self, name):
        """What has not begun yet does not happen any more."""
        for path in (self.failpoints / name, *self.failpoints.glob(name + ".taken.*")):
            path.unlink(missing_ok=True)

    def claimed(self, name):
        """Pid of the process that has begun to act; None when none has."""
        return next((int(path.suffix[1:]) for path in self.failpoints.glob(name + ".acted.*")), None)

    def wait_claimed(self, name):
        return wait_until(lambda: self.claimed(name), "somebody comes by the fail-point " + name)

    def pass_log(self):
        """What happened to which connection, in order: [(pid, connection id, event), ...]."""
        lines = [line.split() for line in self.pass_log_file.read_text().splitlines()]
        return [(int(pid), int(conn), event) for pid, conn, event in lines]

    # -- life --

    def spawn(self):
        """Starts in the foreground and does not wait."""
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([*self.program, "start"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.folder, env=self.env, start_new_session=True)
        return self

    def start(self):
        self.spawn()
        self.wait_running()
        return self

    def wait_running(self):
        def running():
            if self.process and self.process.poll() is not None:
                raise AssertionError("the service ended with code %s before it ran:\n%s"
                                     % (self.process.returncode, self.log))
            state = self.status_or_none()
            return state and state["state"] == "running"
        wait_until(running, "the service runs")

    def command(self, *args, timeout=DEADLINE * 2, tagged=False):
        """Runs `baton -c ... ARGS` and returns its CompletedProcess, whatever the exit code. `tagged` when it leaves
        a service behind that close() must find."""
        # Into files: a daemon that kept a pipe open would make us wait for its end.
        self.has_daemon = self.has_daemon or tagged
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            code = subprocess.run([*self.program, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                  cwd=self.folder, timeout=timeout,
                                  env=self.env if tagged else dict(self.env, BATON_TEST_TAG="command")).returncode
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(args, code, out.read(), err.read())

    def must(self, *args):
        result = self.command(*args)
        if result.returncode != 0:
            raise CommandFailed("%s: exit %d\n%s%s" % (" ".join(args), result.returncode, result.stdout,
                                                       result.stderr))
        return result

    def reload(self, *args):
        return self.must("reload", *args)

    def status_or_none(self):
        result = self.command("status", "--json")
        if result.returncode != 0:
            return None
        state = json.loads(result.stdout)
        for worker in state["workers"]:
            for process in worker["processes"]:
                if process["pid"] and process["pid"] not in self.seen:
                    self.seen[process["pid"]] = start_ticks(process["pid"])
        return state

    def status(self):
        state = self.status_or_none()
        assert state is not None, "status does not answer\n" + self.log
        return state

    def worker(self, name="web"):
        return next(worker for worker in self.status()["workers"] if worker["name"] == name)

    def processes(self, name="web", state="serving"):
        """The processes of one worker in one state, by slot."""
        return sorted((process for process in self.worker(name)["processes"] if process["state"] == state),
                      key=lambda process: process["slot"])

    def pids(self, name="web"):
        return [process["pid"] for process in self.processes(name)]

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        os.kill(self.pid, number)

    def wait_exit(self, deadline=DEADLINE):
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError("the master (pid %d) does not end\n%s" % (self.pid, self.log)) from None

    def stop(self, *args):
        result = self.must("stop", *args)
        self.wait_exit()
        return result

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    # -- the end --

    def close(self):
        """Stops what still runs and looks for what must not be left. Raises when something is."""
        problems = []
        try:
            if self.is_running:
                problems += self._stop_at_the_end()
            if self.process is not None or self.has_daemon:
                problems += self._look_for_remains()
            problems += [word for word in SANITIZER_WORDS if word in self.log]
        finally:
            self._kill_everything()
            if self.log:
                print("---- log of the service ----\n" + "\n".join(self.log.splitlines()[-300:]))
            shutil.rmtree(self.folder, ignore_errors=True)
        assert not problems, "at the end of the service: " + "; ".join(problems)

    def _stop_at_the_end(self):
        problems = []
        state = self.status_or_none()
        if state and not self.crashes_expected:
            problems += ["a process of worker %s ended by %s" % (worker["name"], ending["reason"])
                         for worker in state["workers"] for ending in worker.get("exits", [])
                         if "signal" in ending["reason"]]
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            problems.append("SIGTERM did not end the master")
        return problems

    def _left(self):
        """Processes that still live: those that status has shown, and those with our environment."""
        seen = [pid for pid, began in self.seen.items()
                if began is not None and start_ticks(pid) == began and is_alive(pid)]
        return sorted(set(seen + tagged_processes(self.tag)))

    def _look_for_remains(self):
        problems = []
        code = self.process.poll() if self.process else 0
        if code is not None and code != self.exit_code_expected:
            problems.append("the master ended with code %s" % code)
        if self.has_daemon or code != 0:  # nobody's children any more: nobody could wait for their last steps
            with contextlib.suppress(AssertionError):  # those that stay are told below
                wait_until(lambda: not self._left(), "its processes have ended")
        left = self._left()
        if left:
            problems.append("processes are left: %s" % left)
        if code == 0:
            problems += ["%s is left" % path for path in (self.pid_file, self.control_socket) if path.exists()]
        return problems

    def _kill_everything(self):
        if self.is_running:
            self.process.kill()
            self.process.wait()
        for pid in tagged_processes(self.tag):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def worker_ini(name="web", master=None, **settings):
    """baton.ini with one worker. The defaults: the http-echo example, two processes, a free port."""
    values = {"listen": "http://127.0.0.1:{port}", "count": 2, "module": "./http-echo.so"}
    values.update(settings)
    lines = ["[baton]"] + ["%s = %s" % pair for pair in (master or {}).items()]
    lines += ["", "[worker %s]" % name]
    lines += ["%s = %s" % pair for pair in values.items() if pair[1] is not None]
    return "\n".join(lines) + "\n"
