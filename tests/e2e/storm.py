"""Keeps a service busy with bench/storm, the project's load client, and hands back what it counted.

Knows storm's command line and its JSON report.
"""
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from harness import BUILD, DEADLINE, SOAK, SANITIZED, wait_until

STORM = BUILD / "bench" / "storm"
RELOADS = 100 if SOAK else 10 if SANITIZED else 20
PAUSE = 0.2  # seconds between two reloads: part of the promise, not a way to wait for something

SHAPES = {
    "busy": ["--connections", "64"],
    "thinking": ["--connections", "64", "--think", "5"],
    "one-shot": ["--connections", "0", "--one-shot", "8"],
    "in-two-halves": ["--connections", "64", "--split", "20"],
    "sleeping": ["--connections", "64", "--path", "/sleep/50"],
    "bodies-in-two-halves": ["--connections", "64", "--body", "65536", "--echo", "--split", "20"],
    "pipelined": ["--connections", "16", "--pipeline", "16"],
}


class Storm:
    """with Storm(service, "--connections", "64") as storm: ...; storm.report is a dict afterwards."""

    def __init__(self, service, *args, unix=None, versions="header"):
        address = ["--unix", unix] if unix else ["--port", service.port]
        told_apart = ["--versions"] if versions == "body" else ["--version-header", "X-Generation"]
        self.service = service
        self.args = [str(arg) for arg in (*address, *told_apart, *args)]
        self.report = None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="storm-")
        ready = Path(self.folder.name, "ready")
        self.output = open(Path(self.folder.name, "report"), "w+")
        self.process = subprocess.Popen(
            [str(STORM), "--json", "--quiet", "--timeout", str(DEADLINE * 1000), "--ready-file", str(ready), *self.args],
            stdout=self.output)
        wait_until(lambda: ready.exists() or self.process.poll() is not None, "every connection had an answer")
        assert self.process.poll() is None, "storm ended before the reloads began"
        return self

    def __exit__(self, *error):
        # Leaving with an exception still has to end the process.
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE * 2)
        finally:
            self.process.kill()
            self.process.wait()
            self.output.seek(0)
            text = self.output.read()
            self.output.close()
            self.folder.cleanup()
        if error[0] is None:
            self.report = json.loads(text)
        else:
            print("storm's report:", text)

    def reload_again_and_again(self, count=None, before=None):
        for number in range(count or RELOADS):
            if before:
                before(number)
            self.service.reload()
            time.sleep(PAUSE)

    def assert_nothing_lost(self):
        noticed = {name: self.report[name]
                   for name in ("lost", "refused", "reset", "closed_idle", "told_to_close", "bad")}
        assert not any(noticed.values()), (noticed, self.report["failures"])
        assert self.report["kept"] == self.report["connections"], self.report
        assert self.report["idle_kept"] == self.report["idle"], self.report
        assert self.report["requests"] > 0
