#!/usr/bin/python3
"""Reloads a service again and again under load, with freshly compiled code, and counts what its clients lost.

Progress goes to stderr; stdout gets the one line that `make demo` ends with.
"""
import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from service import ROOT, Baton, Failed, end, spawn

CONNECTIONS = 64
ONE_SHOT_RATE = 300
PROCESSES = 2
PAUSE = 1.0  # from one reload to the next

SOURCE = """#include <baton.h>

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "hi v%d");
}

BATON_MODULE(.on_request = on_request);
"""


class Screen:
    """A few lines redrawn in place on a terminal; elsewhere one line for each thing that happens."""

    def __init__(self, out):
        self.out = out
        self.is_terminal = out.isatty()
        self.drawn = 0

    def say(self, text):
        if not self.is_terminal:
            print(text, file=self.out, flush=True)

    def draw(self, lines):
        if not self.is_terminal:
            return
        width = os.get_terminal_size(self.out.fileno()).columns
        up = "\033[%dA" % self.drawn if self.drawn else ""
        self.out.write(up + "".join("\r\033[K" + line[: width - 1] + "\n" for line in lines))
        self.out.flush()
        self.drawn = len(lines)


class Load:
    """storm, and the newest of its progress lines."""

    def __init__(self, build, port, folder):
        self.ready_file = folder / "ready"
        self.newest = {}
        self.partial = b""
        self.process = spawn(
            [build / "bench" / "storm", "--port", port, "--connections", CONNECTIONS, "--one-shot", 8,
             "--one-shot-rate", ONE_SHOT_RATE, "--versions", "--json", "--live", "--live-interval", 100,
             "--ready-file", self.ready_file], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self.process.stderr.fileno(), False)

    def poll(self):
        with contextlib.suppress(BlockingIOError):
            self.partial += os.read(self.process.stderr.fileno(), 65536)
        *lines, self.partial = self.partial.split(b"\n")
        for line in lines:
            if line.startswith(b"t="):
                self.newest = dict(re.findall(r"(\w+)=(\S+)", line.decode()))
        if self.process.poll() is not None:
            raise Failed("the load client ended with code %d" % self.process.returncode)

    def finish(self):
        """Stops sending, waits for the answers under way, and returns the report."""
        os.set_blocking(self.process.stderr.fileno(), True)
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=30)
        return json.loads(output)

    def close(self):
        end(self.process)
        self.process.stdout.close()
        self.process.stderr.close()


class Demo:
    def __init__(self, options, baton, screen):
        self.options = options
        self.baton = baton
        self.screen = screen
        self.load = None
        self.version = 0
        self.reloads = 0
        self.doing = ""
        self.slots = []
        self.next_status = 0.0
        self.began = time.monotonic()

    # -- one version --

    def compile(self):
        """Compiles and installs the next version."""
        self.version += 1
        source, fresh = self.baton.folder / "hello.c", self.baton.folder / "fresh.so"
        source.write_text(SOURCE % self.version)
        self.run("compiling v%d" % self.version,
                 [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O2", "-I", ROOT / "include", "-o", fresh, source])
        self.baton.install(fresh)

    def reload(self):
        began = time.monotonic()
        self.run("reloading v%d" % self.version, self.baton.command("reload"))
        self.reloads += 1
        self.screen.say("%5.1f s  v%d serves, reload took %3.0f ms, %s"
                        % (time.monotonic() - self.began, self.version, (time.monotonic() - began) * 1000,
                           self.counts()))

    def run(self, doing, command):
        """Runs a command while the picture goes on; fails with the command's own words."""
        self.doing = doing
        log = self.baton.folder / "command.log"
        with open(log, "w+") as out:
            process = spawn(command, stdout=out, stderr=out)
            try:
                while process.poll() is None:
                    self.tick(0.02)
            finally:
                end(process)
        if process.returncode != 0:
            raise Failed("%s: exit code %d\n%s" % (doing, process.returncode, log.read_text(errors="replace")))
        self.doing = ""

    # -- the picture --

    def counts(self):
        newest = self.load.newest if self.load else {}
        return " ".join("%s=%s" % (name, newest[name]) for name in ("requests", "lost", "refused", "reset", "kept")
                        if name in newest)

    def read_slots(self):
        if not self.screen.is_terminal or time.monotonic() < self.next_status:
            return
        self.next_status = time.monotonic() + 0.25
        done = subprocess.run(self.baton.command("status", "--json"), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            workers = json.loads(done.stdout)["workers"]
            self.slots = sorted(workers[0]["processes"], key=lambda row: (row["slot"], row["generation"]))

    def picture(self):
        passed = min(time.monotonic() - self.began, self.options.seconds)
        done = int(40 * passed / self.options.seconds)
        newest = self.load.newest if self.load else {}
        serving = {row["slot"]: row for row in self.slots if row["state"] == "serving"}
        lines = ["%d keep-alive connections and %d one-shot connections a second on %d processes"
                 % (CONNECTIONS, ONE_SHOT_RATE, PROCESSES)]
        for slot in range(PROCESSES):
            row = serving.get(slot)
            beside = [other["state"] for other in self.slots if other["slot"] == slot and other is not row]
            lines.append("  slot %d  %-24s %s" % (slot, "" if row is None else "generation %d  pid %d"
                                                  % (row["generation"], row["pid"]), ", ".join(beside)))
        lines.append("  requests %s  (%s/s)   reloads %d   %s"
                     % (newest.get("requests", "0"), newest.get("rate", "0"), self.reloads, self.doing))
        lines.append("  " + "   ".join("%s %s" % (name, newest.get(name, "-"))
                                       for name in ("lost", "refused", "reset", "kept", "versions")))
        lines.append("  [%s%s] %4.1f s" % ("#" * done, "-" * (40 - done), passed))
        return lines

    def tick(self, seconds):
        if self.load is not None:
            self.load.poll()
            self.read_slots()
            self.screen.draw(self.picture())
        time.sleep(seconds)

    # -- the whole --

    def wait_for_load(self):
        deadline = time.monotonic() + 20
        while not self.load.ready_file.exists():
            if time.monotonic() > deadline:
                raise Failed("not every connection was answered: " + self.counts())
            self.tick(0.02)

    def play(self):
        self.compile()
        self.baton.start()
        self.load = Load(self.options.build, self.baton.port, self.baton.folder)
        self.wait_for_load()
        self.began = next_reload = time.monotonic()
        while True:
            next_reload += PAUSE
            while time.monotonic() < min(next_reload, self.began + self.options.seconds):
                self.tick(0.05)
            if time.monotonic() >= self.began + self.options.seconds:
                break
            self.compile()
            self.reload()
        return self.load.finish()

    def close(self):
        if self.load is not None:
            self.load.close()


def verdict(demo, report, code):
    """What is wrong, in words; empty when nothing is."""
    wrong = ["%s=%d" % (name, report[name])
             for name in ("lost", "refused", "reset", "closed_idle", "told_to_close", "bad") if report[name]]
    if report["kept"] != CONNECTIONS:
        wrong.append("kept=%d/%d" % (report["kept"], CONNECTIONS))
    expected = {"hi v%d" % number for number in range(1, demo.version + 1)}
    seen = set(report["version_names"])
    if seen != expected:
        wrong.append("never seen: %s; never written: %s" % (sorted(expected - seen), sorted(seen - expected)))
    if demo.reloads == 0 or report["one_shots"] == 0:
        wrong.append("%d reloads, %d one-shot requests" % (demo.reloads, report["one_shots"]))
    if code != 0:
        wrong.append("the master ended with code %s" % code)
    return wrong


def show(demo, report):
    print("requests=%d reloads=%d versions=%d lost=%d refused=%d reset=%d kept=%d/%d p50=%.2fms p99=%.2fms"
          % (report["requests"], demo.reloads, report["versions"], report["lost"], report["refused"], report["reset"],
             report["kept"], report["connections"], report["p50_ms"], report["p99_ms"]))


def perform(options):
    with Baton(options.build, PROCESSES) as baton:
        demo = Demo(options, baton, Screen(sys.stderr))
        try:
            report = demo.play()
        except Failed as error:
            raise Failed("%s\n%s" % (error, baton.log())) from None
        finally:
            demo.close()
        code = end(baton.process)
        log = baton.log()
    wrong = verdict(demo, report, code)
    if wrong:
        print("\n".join([*report["failures"], log, "demo: " + "; ".join(wrong)]), file=sys.stderr)
    show(demo, report)
    return 1 if wrong else 0


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(_number, _frame):
    for number in SIGNALS:  # a second one must not leave processes behind
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args(arguments)
    options.build = options.build.resolve()
    for number in SIGNALS:
        signal.signal(number, interrupted)
    return perform(options)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failure:
        sys.exit("demo: %s" % failure)
    except KeyboardInterrupt:
        sys.exit(130)
