"""Starts and stops servers on loopback for the demo and the measurements.

Knows baton's command line and baton.ini; knows nothing of what is measured.
"""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 20


class Failed(Exception):
    """Something that the user should read."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children_of(pid):
    """Pids of all descendants."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    found += [int(entry), *children_of(int(entry))]
    return found


def pinned_to(core):
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def spawn(command, core=None, **options):
    """In a session of its own, so that Ctrl-C reaches only us and we end things in order."""
    return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, start_new_session=True,
                            preexec_fn=pinned_to(core), **options)


def end(process, number=signal.SIGTERM, patience=DEADLINE):
    """Ends a process that spawn() started, by force if it does not listen. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return sock.recv(1) != b""
    return False


def wait_until_it_answers(process, port, words):
    deadline = time.monotonic() + DEADLINE
    while not answers(port):
        if process.poll() is not None:
            raise Failed("the server ended with code %d\n%s" % (process.returncode, words()))
        if time.monotonic() > deadline:
            raise Failed("the server does not answer\n" + words())
        time.sleep(0.01)


class Baton:
    """One baton with one HTTP worker "hello", in a temporary folder."""

    def __init__(self, build, count):
        self.program = Path(build).resolve() / "baton"
        if not self.program.exists():
            raise Failed("%s is missing: make build" % self.program)
        # Short: the path of a Unix socket ends at 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="baton-", dir="/tmp"))
        self.port = free_port()
        self.process = None
        (self.folder / "baton.ini").write_text(
            "[baton]\nrun_dir = run\npid_file = run/baton.pid\n\n"
            "[worker hello]\nlisten = http://127.0.0.1:%d\ncount = %d\nmodule = ./hello.so\n" % (self.port, count))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def module(self):
        return self.folder / "hello.so"

    def install(self, source):
        """Overwrites the module in place, as `cp` does: the hardest way to deploy, and the usual one."""
        shutil.copyfile(source, self.module)

    def command(self, *words):
        return [str(self.program), "-c", str(self.folder / "baton.ini"), *words]

    def log(self):
        path = self.folder / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-30:]) if path.exists() else ""

    def start(self, core=None):
        with open(self.folder / "log", "ab") as log:
            self.process = spawn(self.command("start"), core, stdout=log, stderr=log)
        wait_until_it_answers(self.process, self.port, self.log)

    def pids(self):
        return [self.process.pid, *children_of(self.process.pid)]

    def close(self):
        """Returns the exit code."""
        code = None
        if self.process is not None:
            code = end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


class Floor:
    """bench/floor, the bare server."""

    def __init__(self, build):
        self.program = Path(build).resolve() / "bench" / "floor"
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process is not None:
            end(self.process)
            self.process.stdout.close()

    def start(self, core=None):
        self.process = spawn([self.program, "--port", "0"], core, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().removeprefix("port="))

    def pids(self):
        return [self.process.pid]
