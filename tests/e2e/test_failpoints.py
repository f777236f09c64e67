"""A process dies, stands still or fails at each step of a pass, and the master at each of its own: what every client
gets. Who may be lost is what fleet.owned_alone() says."""
import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess

import pytest

from client import ConnectionEnded, HttpClient, get
from fleet import AT_ONCE, FLEET_APP, LATER, Fleet, Owed
from harness import (DEADLINE, children_of, descriptors_of, is_alive, process_state, tagged_processes, wait_until,
                     worker_ini)

pytestmark = pytest.mark.failpoints

OUT = ["pass-out:before-hold", "pass-out:after-hold", "pass-out:after-send",
       "pass-out:before-ack", "pass-out:after-ack", "pass-out:before-close"]
IN = ["pass-in:received", "pass-in:taken", "pass-in:after-ack", "pass-in:before-poll"]
MASTER = ["master:before-fork", "master:after-fork", "master:ready", "master:before-pass-in", "master:before-drain",
          "master:after-drain", "master:handed-over"]
UPGRADE = ["upgrade:before-execute", "upgrade:before-adopt", "upgrade:adopted"]

# What is small and passable leaves in the first message: it is with the successor when the old process dies later.
LEAVES_FIRST = {"fresh", "idle", "head", "body"}


@pytest.fixture
def sail(serve, compiled):
    """A service with its fleet: sail(count=2)."""
    fleets = []

    def make(**settings):
        count = settings.pop("count", 2)
        kinds = settings.pop("kinds", None)
        service = serve(count=count, source=FLEET_APP, max_send_buffer="16m", **settings)
        service.resting = wait_resting(service, count)
        fleets.append(Fleet(service, kinds))
        return service, fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


@contextlib.contextmanager
def running(service, *words):
    """A command in the background; its exit code and words are in what `with` gives, afterwards."""
    process = subprocess.Popen([*service.program, *words], cwd=service.folder, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=dict(service.env, BATON_TEST_TAG="command"))
    try:
        yield process
        process.said = process.communicate(timeout=DEADLINE)[0]
    finally:
        process.kill()
        process.wait()


def descriptors(service):
    return descriptors_of(service.pid), sorted(descriptors_of(pid) for pid in service.pids())


def wait_resting(service, count):
    """The descriptors of the master and its processes, without the master's end of the last command's connection."""
    def resting():
        found = descriptors(service)
        return found if found[0].count("socket:") == 2 + count else None  # control, listener, channels
    return wait_until(resting, "the master has done with the command")


def wait_dead(pid):
    wait_until(lambda: not is_alive(pid), "the process %d is dead" % pid)


def wait_stopped(pid):
    wait_until(lambda: process_state(pid) == "T", "the process %d stands still" % pid)


def wait_consistent(service, generation=None, connections=0):
    """Every slot serves, all of them one generation, each connection is there once, and nothing else is left."""
    def is_consistent():
        state = service.status()
        processes = state["workers"][0]["processes"]
        generations = {process["generation"] for process in processes}
        return state["state"] == "running" and {process["state"] for process in processes} == {"serving"} and \
            len(processes) == state["workers"][0]["count"] and len(generations) == 1 and \
            sum(process["connections"] for process in processes) == connections and \
            generation in (None, *generations) and children_of(service.pid) == sorted(p["pid"] for p in processes)
    wait_until(is_consistent, "every slot serves generation %s, and nothing else is left" % (generation or "N"))


def assert_unharmed(service, fleet, generation=None):
    """The service is whole, another reload works, everybody goes with it, and nothing has leaked."""
    wait_consistent(service, generation, len(fleet.members))
    service.reload()
    newest = max(process["generation"] for process in service.processes())
    for member in fleet.members:
        assert member.ask().generation == newest
        assert member.client.is_quiet()
    fleet.close()
    wait_consistent(service, newest)
    wait_until(lambda: descriptors(service) == service.resting,
               "there are as many descriptors as at the beginning: %s" % (service.resting,))


def kinds_of(members):
    return {member.kind for member in members}


# ---- killed in the roll ----

@pytest.mark.parametrize("point", OUT)
def test_old_process_killed_in_the_roll_takes_only_what_it_has_not_sent(sail, point):
    service, fleet = sail(count=1)
    service.crashes_expected = True
    service.arm(point, "kill")
    with running(service, "reload") as reload:
        victim = service.wait_claimed(point)
        wait_dead(victim)
        lost = fleet.assert_lost_with({victim})
    assert reload.returncode == 0, reload.said
    assert set(LATER) <= kinds_of(lost)
    if point in OUT[2:]:
        assert not LEAVES_FIRST & kinds_of(lost)
    assert_unharmed(service, fleet, 2)


@pytest.mark.parametrize("point", IN)
def test_successor_killed_in_the_roll_takes_only_what_it_had_said_yes_to(sail, point):
    service, fleet = sail(count=1)
    service.crashes_expected = True
    service.arm(point, "kill")
    with running(service, "reload") as reload:
        victim = service.wait_claimed(point)
        wait_dead(victim)
        lost = fleet.assert_lost_with({victim})
    assert reload.returncode == 0, reload.said
    assert kinds_of(lost) == (LEAVES_FIRST if point in IN[2:] else set())
    assert_unharmed(service, fleet, 2)


# ---- killed afterwards, with those that follow when they are answered ----

@pytest.mark.parametrize("point", OUT + IN)
def test_process_killed_while_the_late_ones_pass_takes_only_its_own(sail, point):
    service, fleet = sail(count=2)
    service.crashes_expected = True
    service.reload()
    serving = set(service.pids())
    service.arm(point, "kill", role="web.0")
    fleet.let_go()
    victim = service.wait_claimed(point)
    wait_dead(victim)
    lost = fleet.assert_lost_with({victim})
    if point in OUT:
        assert victim not in serving and kinds_of(lost) <= set(LATER)
    else:
        assert victim in serving and kinds_of(lost) & LEAVES_FIRST  # which of them were its, the kernel has decided
    if point in IN[:2]:
        assert not kinds_of(lost) & set(LATER)
    assert_unharmed(service, fleet, 2)


# ---- both of them ----

@pytest.mark.parametrize("in_old, in_new", [
    ("pass-out:after-send", "pass-in:received"),
    ("pass-out:after-send", "pass-in:taken"),
    ("pass-out:after-send", "pass-in:after-ack"),
    ("pass-out:before-ack", "pass-in:before-poll"),
])
def test_both_killed_take_what_is_between_them_and_nothing_of_the_siblings(sail, in_old, in_new):
    service, fleet = sail(count=2)
    service.crashes_expected = True
    service.arm(in_old, "kill", role="web.0")
    if in_old == "pass-out:before-ack":
        service.arm(in_new, "stop", role="web.0")  # first says yes, then dies with the other
    else:
        service.arm(in_new, "kill", role="web.0")
    with running(service, "reload") as reload:
        victims = {service.wait_claimed(point) for point in (in_old, in_new)}
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            wait_dead(victim)
        lost = fleet.assert_lost_with(victims, with_what_was_sent=True)
    assert len(victims) == 2 and reload.returncode == 0, reload.said
    assert LEAVES_FIRST & kinds_of(lost) and fleet.members
    assert_unharmed(service, fleet, 2)


def test_successors_killed_one_after_the_other_turn_the_roll_round_and_nobody_is_lost(sail):
    def dead():
        return {int(path.suffix[1:]) for path in service.failpoints.glob("pass-in:received.acted.*")}
    service, fleet = sail(count=2)
    service.crashes_expected = True
    with running(service, "reload") as reload:
        service.arm("pass-in:received", "kill", every=1, role="web.0")
        wait_until(lambda: len(dead()) >= 2, "two have died of it")
        service.disarm("pass-in:received")
    assert not fleet.assert_lost_with(dead())
    assert reload.returncode == 1 and "signal 9" in reload.said
    assert_unharmed(service, fleet, 1)


@pytest.mark.parametrize("who", ["old", "new"])
def test_what_lies_in_the_channel_of_a_dead_process_is_read(sail, who):
    """Verdicts on the first message are there, and further messages: whoever is left first hears of a reset."""
    service, fleet = sail(count=1)
    service.crashes_expected = True
    service.arm("pass-in:after-ack", "stop")
    large = AT_ONCE["upload"] + AT_ONCE["unsent"]  # in messages of their own, behind the first
    service.arm("pass-out:after-send", "stop", after=large)
    with running(service, "reload") as reload:
        old, new = service.wait_claimed("pass-out:after-send"), service.wait_claimed("pass-in:after-ack")
        victim, other = (old, new) if who == "old" else (new, old)
        wait_stopped(old)
        wait_stopped(new)
        os.kill(victim, signal.SIGKILL)
        wait_dead(victim)
        os.kill(other, signal.SIGCONT)
        lost = fleet.assert_lost_with({victim})
    assert reload.returncode == 0, reload.said
    if who == "old":
        assert "upload" in kinds_of(fleet.members) and not LEAVES_FIRST & kinds_of(lost)
    else:
        assert kinds_of(lost) == LEAVES_FIRST
    assert_unharmed(service, fleet, 2)


# ---- stalled ----

@pytest.mark.parametrize("point", OUT + IN)
def test_process_that_stands_still_and_goes_on_loses_nobody(sail, point):
    service, fleet = sail(count=2)
    old = service.pids()[0]
    service.arm(point, "stop")
    with running(service, "reload") as reload:
        victim = service.wait_claimed(point)
        wait_stopped(victim)
        fleet.ask_those_without({victim, old} if point in IN else {victim})
        fleet.let_go()
        os.kill(victim, signal.SIGCONT)
    assert reload.returncode == 0, reload.said
    fleet.assert_nobody_is_lost()
    assert_unharmed(service, fleet, 2)


@pytest.mark.parametrize("point", IN)
def test_successor_that_stands_still_for_good_keeps_only_what_it_said_yes_to(sail, point):
    service, fleet = sail(count=2)
    service.crashes_expected = True
    service.arm(point, "stop", role="web.0")
    with running(service, "reload") as reload:
        victim = service.wait_claimed(point)
        wait_stopped(victim)
        fleet.let_go()
        os.kill(victim, signal.SIGKILL)
        wait_dead(victim)
        lost = fleet.assert_lost_with({victim})
    assert reload.returncode == 0, reload.said
    assert bool(lost) == (point in IN[2:])
    assert_unharmed(service, fleet, 2)


# ---- crashes and failures ----

@pytest.mark.parametrize("point", IN)
def test_successor_that_crashes_while_it_takes_turns_the_roll_round(sail, point):
    service, fleet = sail(count=2)
    service.crashes_expected = True
    service.arm(point, "abort", role="web.0")
    with running(service, "reload") as reload:
        victim = service.wait_claimed(point)
        wait_dead(victim)
        lost = fleet.assert_lost_with({victim})
    assert reload.returncode == 1 and "signal 6" in reload.said
    assert kinds_of(lost) <= LEAVES_FIRST and bool(lost) == (point in IN[2:])
    assert_unharmed(service, fleet, 1)


@pytest.mark.parametrize("point, action", [
    ("pass-in:received", "fail EPROTO"),  # the channel is lost: the old process asks for another one
    ("pass-in:taken", "fail ENOMEM"),
    ("pass-in:received", "fail EPROTO 3"),
    ("master:before-pass-in", "fail EMFILE"),
    ("master:before-drain", "fail ENOBUFS"),
])
def test_pass_channel_that_is_lost_is_asked_for_again(sail, point, action):
    service, fleet = sail(count=2)
    service.arm(point, action)
    service.reload()
    assert service.claimed(point)
    fleet.assert_nobody_is_lost()
    assert_unharmed(service, fleet, 2)


def test_fork_that_fails_fails_the_reload_and_changes_nothing(sail):
    service, fleet = sail(count=2)
    before = service.pids()
    service.arm("master:before-fork", "fail EAGAIN")
    result = service.command("reload")
    assert result.returncode == 1 and "fork" in result.stderr
    assert service.pids() == before
    fleet.assert_nobody_is_lost()
    assert_unharmed(service, fleet, 1)


# ---- on the way back ----

def crash_slot_1(service):
    """The new code of slot 1 crashes of a request; who was with it is lost."""
    victim = service.pids()[1]
    for number in itertools.count():
        if not is_alive(victim):
            return victim
        with contextlib.suppress(ConnectionEnded, ConnectionError), HttpClient(service.port) as client:
            if client.request("/which/%d" % number).pid == victim:
                client.request("/crash/%d" % number)


@pytest.mark.parametrize("point", OUT + IN)
def test_process_killed_while_the_connections_are_passed_back_takes_only_its_own(sail, point):
    service, fleet = sail(count=2, probation="60s", kinds={**AT_ONCE, "waiting": 2})
    service.crashes_expected = True
    service.reload()
    assert {process["generation"] for process in service.processes()} == {2}
    service.arm(point, "kill", role="web.0")
    crashed = crash_slot_1(service)
    victim = service.wait_claimed(point)
    wait_dead(victim)
    lost = fleet.assert_lost_with({crashed, victim})
    assert kinds_of(lost)
    assert_unharmed(service, fleet, 1)


# ---- the master ----

def assert_new_master_works(service, fleet, old):
    """While the old processes still answer what they have begun."""
    service.exit_code_expected = -signal.SIGKILL
    assert service.process.wait(DEADLINE) == -signal.SIGKILL
    service.start()
    service.exit_code_expected = 0
    assert get(service.port, "/of-the-new").pid not in old
    fleet.let_go()
    for member in fleet.members:  # what follows an answer that says it is the last has not been begun
        member.hear(last=lambda response: response.closes)
        with contextlib.suppress(ConnectionError):
            assert member.client.read_to_end() == b""
    assert len(set(fleet.handled())) == len(fleet.handled())
    wait_until(lambda: not any(is_alive(pid) for pid in old), "the old processes have ended")
    wait_consistent(service)
    service.reload()


@pytest.mark.parametrize("point", MASTER + UPGRADE)
def test_master_killed_leaves_no_request_unanswered_and_a_new_one_starts_at_once(sail, point):
    service, fleet = sail(count=2)
    fleet.newcomers.stop()  # between the two nobody listens
    old = set(service.pids())
    service.arm(point, "kill", role="master")
    with running(service, "upgrade" if point in UPGRADE else "reload") as command:
        service.wait_claimed(point)
        service.process.wait(DEADLINE)
        old |= set(tagged_processes(service.tag))
        assert_new_master_works(service, fleet, old)
    assert command.returncode != 0, command.said


@pytest.mark.parametrize("point", MASTER + UPGRADE)
def test_master_that_stands_still_and_goes_on_loses_nobody(sail, point):
    service, fleet = sail(count=2)
    service.arm(point, "stop", role="master")
    with running(service, "upgrade" if point in UPGRADE else "reload") as command:
        assert service.wait_claimed(point) == service.pid
        wait_stopped(service.pid)
        for member in fleet.members:
            if not member.owed:
                member.ask()
        fleet.let_go()
        service.signal(signal.SIGCONT)
    assert command.returncode == 0, command.said
    fleet.assert_nobody_is_lost()
    assert_unharmed(service, fleet, 2)


# ---- other protocols, and other ways of going wrong ----

TEXT_APP = r"""
#include <baton.h>
static void on_message(baton_conn *conn, baton_str message) { baton_send(conn, message.data, message.len); }
BATON_MODULE(.on_message = on_message);
"""


@pytest.mark.parametrize("protocol, question, answer", [
    ("text", b"hello\r\n", b"hello\n"),
    ("frame", b"\0\0\0\x09hello", b"\0\0\0\x09hello"),
])
@pytest.mark.parametrize("point", [*OUT[2:], *IN[:2]])
def test_messages_cut_in_half_are_answered_whoever_dies(new_service, point, protocol, question, answer):
    service = new_service(worker_ini(count=1, module="./app.so").replace("http://", protocol + "://"))
    service.compile(TEXT_APP, "app.so")
    service.start()
    service.crashes_expected = True
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", service.port), DEADLINE))
                   for _ in range(8)]
        for client in clients[:4]:
            client.sendall(question[:6])
        wait_until(lambda: len(service.pass_log()) == 8, "all are accepted")
        service.arm(point, "kill")
        service.reload()
        wait_dead(service.wait_claimed(point))
        for client in clients[:4]:
            client.sendall(question[6:])
            assert receive(client, len(answer)) == answer
        for client in clients:
            client.sendall(question * 2)
            assert receive(client, 2 * len(answer)) == answer * 2
        service.reload()
        for client in clients:
            client.sendall(question)
            assert receive(client, len(answer)) == answer


def receive(client, size):
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        assert part, "the connection ended after %r" % data
        data += part
    return data


# The second generation does not start in slot 1 once the file "fail" exists, and is not ready before.
FAILS_IN_SLOT_1 = FLEET_APP.replace("BATON_MODULE(", r"""
static int on_worker_start(baton_worker *worker)
{
    if (baton_generation() != 2 || baton_worker_slot(worker) != 1)
        return 0;
    while (access("fail", F_OK) != 0)
        usleep(1000);
    return -1;
}
BATON_MODULE(.on_worker_start = on_worker_start, """)


def test_way_back_that_fails_is_tried_again_until_it_succeeds(serve):
    service = serve(count=2, source=FAILS_IN_SLOT_1, max_send_buffer="16m")
    service.resting = wait_resting(service, 2)
    fleet = Fleet(service)
    with contextlib.closing(fleet):
        with running(service, "reload") as reload:
            wait_until(lambda: service.processes(state="starting") and
                       {process["generation"] for process in service.processes()} == {1, 2}, "slot 0 is renewed")
            service.arm("master:before-fork", "fail EAGAIN 2")
            (service.folder / "fail").touch()
        assert reload.returncode == 1
        assert "going back failed too" in reload.said and "are tried again" in reload.said
        wait_until(lambda: "way-back complete=yes" in service.log, "the way back has been tried again")
        assert "way-back complete=no" in service.log  # the second time it failed, too
        fleet.assert_nobody_is_lost()
        assert_unharmed(service, fleet, 1)


def test_slow_reader_on_a_unix_socket_loses_no_byte_in_a_reload(serve, connect):
    service = serve(count=1, listen="http+unix://{folder}/web.sock", source=FLEET_APP, max_send_buffer="16m")
    slow = connect(str(service.folder / "web.sock"))
    owed = Owed("/big/slow")
    slow.send(owed.request + owed.request.replace(b"slow", b"next"))
    select.select([slow.socket], [], [])
    service.reload()
    service.reload()
    assert slow.read_response().body == owed.answer
    assert slow.read_response().body == Owed("/big/next").answer
    assert slow.request("/again").generation == 3
