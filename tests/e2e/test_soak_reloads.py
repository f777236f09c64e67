"""Reload after reload, back to back, under load: no client notices, and nothing grows in the master or the processes."""
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from harness import SANITIZED, SOAK, children_of, process_state, wait_until
from storm import Storm

RELOADS = 1000 if SOAK else 20
FIRST = 10  # by then the allocator has its arenas and every cache is filled once
SAMPLES = [FIRST, *range(100, RELOADS + 1, 100)] if SOAK else [FIRST, RELOADS]
ONE_SHOTS = 2
CONNECTIONS = 64

KEPT = 3  # keep_generations; not counted are what has proved itself last, what is on probation, and what that replaced

# A heap keeps up to M_TRIM_THRESHOLD (128 KiB) of free memory at its top, and how much of it has been touched depends
# on what happened to be freed last. A leak of one connection a reload would be 30 times that at the thousandth.
RESIDENT_SLACK_KB = 2 * 128


def listening_inodes():
    return {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"}


def own_descriptors(pid):
    """What a process holds beside its clients: those come and go while one looks. A socket that is neither unix nor
    listening is a client's."""
    unix = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    known = unix | listening_inodes()
    found = Counter()
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        except OSError:
            continue
        inode = re.match(r"socket:\[(\d+)\]", target)
        name = re.sub(r"\[\d+\]|\.so\.\w+|/modules/\d+/", "", target)
        found["client" if inode and inode[1] not in known else name] += 1
    clients = found.pop("client", 0)
    return dict(found), clients


def memory_of(pid):
    """Kilobytes that are this process's alone: what it shares with the master it was forked from is counted there."""
    values = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/%d/smaps_rollup" % pid).read_text(), re.M))
    return {"rss": int(values["Rss"]), "private": int(values["Private_Dirty"])}


def mappings_of(pid):
    """The heap counts once: the kernel keeps what a process adds to the inherited heap as a mapping of its own."""
    names = [line.split()[-1] for line in Path("/proc/%d/maps" % pid).read_text().splitlines()]
    return len([name for name in names if name != "[heap]"]) + 1


def sample_one(pid):
    descriptors, clients = own_descriptors(pid)
    return {"descriptors": descriptors, "clients": clients, "mappings": mappings_of(pid), **memory_of(pid)}


def sample(service):
    """The master and its processes, when the old ones have ended."""
    def rested():
        pids = service.pids()
        return pids if len(pids) == 2 and sorted(children_of(service.pid)) == sorted(pids) else None
    pids = wait_until(rested, "the old processes have ended and none is left as a zombie")
    taken = {"master": sample_one(service.pid), "modules": len(list((service.folder / "run" / "modules").iterdir()))}
    taken.update({"web.%d" % slot: sample_one(pid) for slot, pid in enumerate(pids)})
    taken["zombies"] = sum(process_state(pid) == "Z" for pid in children_of(service.pid))
    return taken


def line_of(number, taken):
    parts = ["%s: fds=%d+%d maps=%d rss=%d private=%d" % (
        name, sum(one["descriptors"].values()), one["clients"], one["mappings"], one["rss"], one["private"])
        for name, one in taken.items() if isinstance(one, dict)]
    return "reload %d: %s zombies=%d" % (number, "; ".join(parts), taken["zombies"])


def assert_flat(first, later, number):
    assert later["zombies"] == 0 and later["modules"] <= KEPT + 3, (number, later)
    for name in ("master", "web.0", "web.1"):
        before, after = first[name], later[name]
        assert after["descriptors"] == before["descriptors"], (number, name)
        if not SANITIZED:  # it maps memory as it likes, and its quarantine grows on purpose
            assert after["mappings"] == before["mappings"], (number, name, before, after)
            for kind in ("rss", "private"):
                assert after[kind] <= before[kind] + RESIDENT_SLACK_KB, (number, name, kind, before, after)
    clients = later["web.0"]["clients"] + later["web.1"]["clients"]
    assert CONNECTIONS <= clients <= CONNECTIONS + 2 * ONE_SHOTS, (number, later)
    assert later["master"]["clients"] == 0


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_reload_after_reload_loses_nothing_and_nothing_grows(serve, record_property):
    service = serve(count=2, master={"keep_generations": KEPT})
    taken = {}
    with Storm(service, "--connections", CONNECTIONS, "--one-shot", ONE_SHOTS) as storm:
        for number in range(1, RELOADS + 1):
            service.reload()
            if number in SAMPLES:
                taken[number] = sample(service)
                print(line_of(number, taken[number]), flush=True)
    storm.assert_nothing_lost()
    report = storm.report
    line = "%d reloads: requests=%d lost=%d refused=%d reset=%d kept=%d/%d; %s -> %s" % (
        RELOADS, report["requests"], report["lost"], report["refused"], report["reset"], report["kept"],
        report["connections"], line_of(FIRST, taken[FIRST]), line_of(RELOADS, taken[RELOADS]))
    print(line)
    record_property("summary", line)
    for number in SAMPLES[1:]:
        assert_flat(taken[FIRST], taken[number], number)
    assert service.status()["generation"] == RELOADS + 1
