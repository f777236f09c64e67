"""Processes die by kill -9 at random moments of endless reloads: only what a dead process owned is lost.

Who owned what is told by the pass log of builds with fail-points.
"""
import json
import os
import random
import re
import signal
import threading
import time

import pytest

from harness import SANITIZED, SOAK, wait_until
from numbered_clients import NumberedClients

pytestmark = pytest.mark.failpoints

SECONDS = 60 if SOAK else 8
RHYTHM = 0.5  # seconds between two kills
CLIENTS = 40
COUNT = 3

# Each connection counts its requests, and the count travels with it: a request that is run twice, or a state that is
# older than its connection, shows in the next answer. Starting takes a moment, so that a start can be hit.
MODULE = r"""
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef struct job { baton_conn *conn; char text[64]; } job;
static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    usleep(20000);
    return 0;
}
static void on_connect(baton_conn *conn)
{
    baton_conn_set_user(conn, calloc(1, sizeof(uint64_t)));
}
static void answer(baton_conn *conn, const char *text)
{
    char number[32];
    uint64_t *count = baton_conn_user(conn);
    snprintf(number, sizeof number, "%llu", (unsigned long long) baton_conn_id(conn));
    baton_reply_header(conn, "X-Conn", number);
    snprintf(number, sizeof number, "%llu", (unsigned long long) ++*count);
    baton_reply_header(conn, "X-Count", number);
    baton_reply(conn, 200, "text/plain", text);
}
static void on_due(void *arg)
{
    job *work = arg;
    if (baton_conn_is_open(work->conn))
        answer(work->conn, work->text);
    baton_conn_unref(work->conn);
    free(work);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_str path = baton_request_path(req), later = baton_request_query_param(req, "later");
    job *work = calloc(1, sizeof *work);
    snprintf(work->text, sizeof work->text, "%.*s", (int) path.len, path.data);
    char ms[8];
    snprintf(ms, sizeof ms, "%.*s", (int) later.len, later.data);
    work->conn = baton_conn_ref(conn);
    if (atoi(ms) > 0)
        baton_timer_once((uint64_t) atoi(ms), on_due, work);
    else
        on_due(work);
}
static int on_pass(baton_conn *conn, baton_pass *pass)
{
    return baton_pass_write(pass, baton_conn_user(conn), sizeof(uint64_t));
}
static int on_take(baton_conn *conn, uint32_t version, baton_str state)
{
    (void) version;
    on_connect(conn);
    memcpy(baton_conn_user(conn), state.data, sizeof(uint64_t));
    return 0;
}
static void forget(baton_conn *conn)
{
    free(baton_conn_user(conn));
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_connect = on_connect, .on_request = on_request,
             .on_pass = on_pass, .on_take = on_take, .on_passed = forget, .on_close = forget, .state_version = 1);
"""


class Processes:
    """The processes of the service by its log: pid -> slot and state, as of the last look()."""

    LINE = re.compile(r' (starting|ready|exited) +worker=web slot=(\d+) pid=(\d+)(?:.* reason="([^"]*)")?')

    def __init__(self, service):
        self.log = open(service.log_file)
        self.rest = ""
        self.slots = {}  # of all that ever were, in the order of their start
        self.states = {}  # of those that live
        self.endings = {}

    def look(self):
        *lines, self.rest = (self.rest + self.log.read()).split("\n")
        for line in lines:
            match = self.LINE.search(line)
            if match:
                self._note(match[1], int(match[2]), int(match[3]), match[4])
        return self

    def _note(self, word, slot, pid, reason):
        if word == "starting":
            assert pid not in self.slots, "pid %d has come again: the pass log cannot tell the two apart" % pid
            self.slots[pid] = slot
            self.states[pid] = "starting"
        elif word == "ready":
            for old, state in self.states.items():
                if self.slots[old] == slot and state == "serving":
                    self.states[old] = "draining"
            self.states[pid] = "serving"
        else:
            self.states.pop(pid)
            self.endings[pid] = reason

    def pick(self, state):
        pids = [pid for pid, present in self.look().states.items() if present == state]
        return random.choice(pids) if pids else None


class Reloads(threading.Thread):
    """One reload after the other; each must succeed, whatever is killed."""

    def __init__(self, service):
        super().__init__()
        self.service = service
        self.is_ending = threading.Event()
        self.failures = []
        self.done = 0
        self.last_began = 0.0  # of the last one that has succeeded

    def run(self):
        while not self.is_ending.is_set():
            began = time.monotonic()
            result = self.service.command("reload")
            if result.returncode != 0:
                self.failures.append(result.stdout + result.stderr)
                return
            self.done += 1
            self.last_began = began


class Killer:
    """kill -9 for a process in a random state. Not twice in one slot and roll: that would count against the code."""

    def __init__(self, processes, reloads):
        self.processes = processes
        self.reloads = reloads
        self.kills = {}  # pid -> (just before, just after)
        self.last_in_slot = {}
        self.hit = {"starting": 0, "serving": 0, "draining": 0}

    def kill_one(self):
        state = random.choice(list(self.hit))
        pid = wait_until(lambda: self.processes.pick(state) or self.reloads.failures, "a process is " + state)
        if self.reloads.failures:
            return
        slot = self.processes.slots[pid]
        if self.last_in_slot.get(slot, -1.0) >= self.reloads.last_began:
            return
        before = time.monotonic()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills[pid] = (before, time.monotonic())
        self.last_in_slot[slot] = before
        self.hit[state] += 1

    def killed(self):
        """Those that really died of it, and had not ended by themselves just before."""
        died = {pid for pid, reason in self.processes.look().endings.items() if reason.startswith("signal 9 ")}
        assert died <= set(self.kills), "processes were killed by nobody"
        return {pid: self.kills[pid] for pid in died}


class Owners:
    """Who owned each connection at the end of the pass log. A successor may have died between its verdict and its line
    in the log: then the old process's line tells that it was some successor's."""

    def __init__(self, service):
        self.owner = {}
        self.is_passed = set()  # ... on by its last known owner
        self.closed = {}
        for pid, conn, event in service.pass_log():
            if event in ("accepted", "taken", "rearmed"):
                self.owner[conn] = pid
                self.is_passed.discard(conn)
            elif event == "passed" and self.owner[conn] == pid:
                self.is_passed.add(conn)
            elif event == "closed":
                self.closed[conn] = pid

    def may_have_owned(self, conn, slots):
        """All pids that may have: one, but for the gap described above."""
        pid = self.owner[conn]
        if conn not in self.is_passed:
            return [pid]
        order = list(slots)
        return [later for later in order[order.index(pid) + 1:] if slots[later] == slots[pid]]


def lived_through(connection, kill):
    return connection.opened <= kill[1] and kill[0] <= connection.broke


def unexplained(clients, owners, killed, slots):
    """Connections that broke though their owner was not killed."""
    def is_explained(connection):
        suspects = killed if connection.id is None else \
            [pid for pid in owners.may_have_owned(connection.id, slots) if pid in killed]
        return connection.id not in owners.closed and any(lived_through(connection, killed[pid]) for pid in suspects)
    return ["connection %s of client %d, owner %s: %s" % (one.id, one.client, owners.owner.get(one.id), one.said)
            for one in clients.broken if not is_explained(one)]


def nameless_but_owned(clients, owners, killed, slots):
    """How many connections without any answer the killed may have owned. Each may also have died just after accept(),
    before it could write a line."""
    named = {connection.id for connection in clients.connections}
    return len(killed) + sum(any(pid in killed for pid in owners.may_have_owned(conn, slots))
                             for conn in owners.owner if conn not in named)


def settled(service):
    processes = service.worker()["processes"]
    is_whole = [process["state"] for process in processes] == ["serving"] * COUNT
    return is_whole and {process["generation"] for process in processes}


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_random_kills_cost_only_what_the_killed_owned(serve, record_property):
    service = serve(count=COUNT, source=MODULE)
    service.crashes_expected = True
    processes, reloads = Processes(service), Reloads(service)
    killer = Killer(processes, reloads)
    with NumberedClients(service.port, CLIENTS) as clients:
        wait_until(lambda: clients.answers > CLIENTS, "the clients are served")
        reloads.start()
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end and not reloads.failures:
                time.sleep(RHYTHM)  # the rhythm of the faults: nothing is waited for
                killer.kill_one()
        finally:
            reloads.is_ending.set()
            reloads.join()
        generations = wait_until(lambda: settled(service), "every slot is served, and the old processes have ended")
        answers = clients.answers
        wait_until(lambda: clients.answers > answers + CLIENTS * 10, "the clients are served as before")
    killed, slots = killer.killed(), processes.slots
    owners = Owners(service)
    nameless = sum(one.id is None for one in clients.broken)
    record_property("summary", "%d reloads, %d kills (%s): %d answers on %d connections, %d wrong; %d connections broke, %d "
                    "without a killed owner" % (
                        reloads.done, len(killed), ", ".join("%d %s" % (count, state) for state, count in killer.hit.items()),
                        clients.answers, len(clients.connections), len(clients.wrong), len(clients.broken),
                        len(unexplained(clients, owners, killed, slots))))
    assert not clients.wrong and not reloads.failures
    assert not unexplained(clients, owners, killed, slots)
    assert nameless <= nameless_but_owned(clients, owners, killed, slots)
    # The log is right about the living, too: else it would explain anything.
    assert {owners.owner[one.id] for one in clients.alive} <= set(slots) - set(killed)
    assert generations == {reloads.done + 1}
    assert not re.search("roll-failed|way-back|pass-verdict-unknown|pass-message-refused|crash-loop", service.log)
    assert not [one for one in json.loads(service.must("generations", "--json").stdout) if one["state"] == "failed"]
    assert killed and reloads.done > (3 if SANITIZED else 10), "this test tests nothing"
