#!/usr/bin/python3
"""CPU time per request: baton's hello against the bare server, in alternating rounds of the same run.

The server has one core and the load client another. Only the ratio travels from one machine to the next.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from service import Baton, Failed, Floor, end, spawn

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
LOADS = {"plain": 1, "pipelined": 16}


# ---- CPU time ----

def run_time_ns(pid):
    """What the scheduler says, to the nanosecond: the sum over the threads that live."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path("/proc", str(pid), "task").iterdir())


def tick_time_ns(pid):
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_NS


class Stopwatch:
    """CPU time of a fixed set of processes between start() and stop()."""

    def __init__(self, pids):
        self.pids = pids
        self.disagreements = 0

    def read(self):
        return sum(map(run_time_ns, self.pids)), sum(map(tick_time_ns, self.pids))

    def start(self):
        self.began = self.read()

    def stop(self):
        """Nanoseconds. The fine clock, unless the kernel does not keep it or it contradicts the coarse one."""
        fine, coarse = (after - before for after, before in zip(self.read(), self.began))
        # Two ticks a process (user and system) may be cut off at either end.
        tolerance = 4 * TICK_NS * len(self.pids) + coarse * 0.02
        if abs(fine - coarse) <= tolerance:
            return fine
        self.disagreements += 1
        return coarse


# ---- load ----

def storm(options, port, pipeline, seconds):
    command = [options.build / "bench" / "storm", "--port", port, "--connections", 64, "--pipeline", pipeline,
               "--duration", seconds, "--json", "--quiet"]
    process = spawn(command, options.storm_core, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate(timeout=seconds + 30)
    finally:
        end(process)
    report = json.loads(output)
    if process.returncode != 0:
        raise Failed("storm noticed trouble, the numbers would mean nothing: " + json.dumps(report))
    return report["requests"]


def measure(options, server, pipeline, seconds):
    """Microseconds of the server's CPU per request, and requests a second."""
    stopwatch = Stopwatch(server.pids())
    stopwatch.start()
    requests = storm(options, server.port, pipeline, seconds)
    spent = stopwatch.stop()
    if stopwatch.disagreements:
        print("cpu.py: /proc/PID/schedstat and /proc/PID/stat disagree; taking the latter", file=sys.stderr)
    return spent / 1000 / requests, requests / seconds


def rounds(options, servers):
    """samples[load][server name]: a list of microseconds, one a round. A B A B, so that a slow minute hits both."""
    samples = {load: {name: [] for name in servers} for load in LOADS}
    rates = {load: {name: [] for name in servers} for load in LOADS}
    for number in range(-1, options.rounds):
        for load, pipeline in LOADS.items():
            for name, server in servers.items():
                seconds = options.seconds if number >= 0 else min(1, options.seconds)
                cost, rate = measure(options, server, pipeline, seconds)
                if number < 0:
                    continue
                samples[load][name].append(cost)
                rates[load][name].append(rate)
                if not options.json:
                    print("round %d %-9s  %-5s  %6.3f us CPU a request, %9.0f requests/s"
                          % (number + 1, load, name, cost, rate), file=sys.stderr)
    return samples, rates


# ---- report ----

def summary(samples, rates):
    result = {}
    for load in LOADS:
        ratios = [ours / theirs for ours, theirs in zip(samples[load]["baton"], samples[load]["floor"])]
        result[load] = {
            "floor_us": statistics.median(samples[load]["floor"]),
            "baton_us": statistics.median(samples[load]["baton"]),
            "floor_rate": statistics.median(rates[load]["floor"]),
            "baton_rate": statistics.median(rates[load]["baton"]),
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
        }
    return result


def show(result):
    print("64 keep-alive connections   floor us/request   baton us/request   ratio (median, min - max)")
    for load, row in result.items():
        print("%-27s %16.3f   %16.3f   %.3f (%.3f - %.3f)"
              % ("16 pipelined" if load == "pipelined" else load, row["floor_us"], row["baton_us"], row["ratio"],
                 row["ratio_min"], row["ratio_max"]))


def check(result, limits):
    """Names of the loads whose ratio is above its limit."""
    return ["%s: %.3f is above %.3f" % (load, result[load]["ratio"], limit)
            for load, limit in zip(LOADS, limits) if result[load]["ratio"] > limit]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=Path(__file__).resolve().parents[1] / "build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of one round (default 3)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", metavar="PLAIN,PIPELINED", help="exit 1 when a ratio is above, e.g. 1.15,1.3")
    options = parser.parse_args(arguments)
    options.build = options.build.resolve()
    try:
        options.limits = [float(limit) for limit in options.check.split(",")] if options.check else []
    except ValueError:
        parser.error("--check wants numbers: 1.15,1.3")
    if len(options.limits) not in (0, len(LOADS)):
        parser.error("--check wants %d numbers" % len(LOADS))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("one core for the server and one for the load client are needed")
    options.server_core, options.storm_core = cores[0], cores[1]
    return options


def main(arguments):
    options = parse(arguments)
    with Baton(options.build, count=1) as baton, Floor(options.build) as floor:
        baton.install(options.build / "examples" / "hello" / "hello.so")
        for server in (floor, baton):
            server.start(options.server_core)
        samples, rates = rounds(options, {"floor": floor, "baton": baton})
    result = summary(samples, rates)
    if options.json:
        print(json.dumps({**result, "samples_us": samples}))
    else:
        show(result)
    failures = check(result, options.limits)
    for failure in failures:
        print("cpu.py: " + failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as error:
        sys.exit("cpu.py: %s" % error)
    except KeyboardInterrupt:
        sys.exit(130)
