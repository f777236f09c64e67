"""Clients in every state a connection can be in, what each of them is owed, and whose they are.

Knows the module FLEET_APP and the log of the passes; knows nothing of reloads or fail-points.
"""
import contextlib
import select
import threading
from collections import Counter

from client import ConnectionEnded, HttpClient, build_request
from harness import wait_until

# Answers with the path and the body. "/wait..." is answered when the file "go" exists, "/big..." is long, "/crash" is
# not answered. Each request that begins to be handled is a line of the file "handled".
FLEET_APP = r"""
#include <baton.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
enum { BIG = 6 << 20, SMALL = 100000 };
typedef struct waiting { baton_conn *conn; char text[200]; } waiting;
static char big[BIG];
static void note(baton_str path)
{
    char line[200];
    int len = snprintf(line, sizeof line, "%.*s\n", BATON_ARG(path));
    int fd = open("handled", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, line, (size_t) len) != len)
        abort();
    close(fd);
}
static void answer(baton_conn *conn, const char *data, size_t len)
{
    char number[32];
    snprintf(number, sizeof number, "%d", (int) getpid());
    baton_reply_header(conn, "X-Pid", number);
    snprintf(number, sizeof number, "%llu", (unsigned long long) baton_generation());
    baton_reply_header(conn, "X-Generation", number);
    baton_reply_bytes(conn, 200, "text/plain", data, len);
}
static void look(void *arg)
{
    waiting *work = arg;
    if (baton_conn_is_open(work->conn) && access("go", F_OK) != 0) {
        baton_timer_once(5, look, work);
        return;
    }
    answer(work->conn, work->text, strlen(work->text));
    baton_conn_unref(work->conn);
    free(work);
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    static char text[SMALL + 200];
    baton_str path = baton_request_path(req);
    baton_str body = baton_request_body(req);
    note(path);
    int len = snprintf(text, sizeof text, "%.*s\n", BATON_ARG(path));
    if (strncmp(text, "/wait", 5) == 0) {
        waiting *work = calloc(1, sizeof *work);
        work->conn = baton_conn_ref(conn);
        snprintf(work->text, sizeof work->text, "%.190s", text);
        look(work);
    } else if (strncmp(text, "/big", 4) == 0) {
        memset(big, 'b', sizeof big);
        memcpy(big, text, (size_t) len);
        answer(conn, big, sizeof big);
    } else if (strncmp(text, "/crash", 6) == 0) {
        raise(SIGSEGV);
    } else if (body.len <= SMALL) {
        if (body.len > 0)
            memcpy(text + len, body.data, body.len);
        answer(conn, text, (size_t) len + body.len);
    }
}
BATON_MODULE(.on_request = on_request);
"""
BIG = 6 << 20


class Owed:
    """An answer that has to come: all of it, as it was asked for."""

    def __init__(self, path, body=b""):
        self.path, self.body = path, body

    @property
    def request(self):
        return build_request(self.path, "POST", body=self.body)

    @property
    def answer(self):
        text = self.path.encode() + b"\n" + self.body
        return text.ljust(BIG, b"b") if self.path.startswith("/big") else text


class Member:
    """One client, brought into the state that its kind says."""

    def __init__(self, service, kind, number):
        self.service, self.kind, self.name = service, kind, "%s-%d" % (kind, number)
        self.id = None
        self.owed = []
        self.rest = b""
        self.asked = 0
        self.client = HttpClient(service.port, receive_buffer=65536 if kind == "unsent" else None)

    def begin(self):
        getattr(self, "_begin_" + self.kind)()

    def _owe(self, path, body=b""):
        self.owed.append(Owed("%s/%s/%d" % (path, self.name, self.asked), body))
        self.asked += 1
        return self.owed[-1].request

    def _send_all_but(self, data, count):
        self.client.send(data[:-count])
        self.rest = data[-count:]

    def _begin_fresh(self):
        pass

    def _begin_idle(self):
        self.ask()

    def _begin_head(self):
        data = self._owe("/head")
        self._send_all_but(data, len(data) - 9)

    def _begin_body(self):
        self._send_all_but(self._owe("/body", b"c" * 3000), 1000)

    def _begin_upload(self):
        self._send_all_but(self._owe("/upload", b"u" * 60000), 10000)

    def _begin_waiting(self):
        self.client.send(self._owe("/wait"))

    def _begin_pipelined(self):
        data = b"".join([self._owe("/wait"), self._owe("/second", b"d" * 500), self._owe("/third", b"e" * 500)])
        self._send_all_but(data, 100)

    def _begin_unsent(self):
        self.client.send(self._owe("/big"))
        select.select([self.client.socket], [], [])

    def ask(self):
        self.client.send(self._owe("/again"))
        return self.hear()

    def hear(self, last=lambda response: False):
        """Everything it is owed has to come, in order and once, up to the answer that is the `last`. Returns that."""
        response = None
        self.client.send(self.rest)
        self.rest = b""
        while self.owed:
            response = self.client.read_response()
            assert response.status == 200, (self.name, response)
            assert response.body == self.owed[0].answer, "%s got %r" % (self.name, response.body[:100])
            self.owed.pop(0)
            if last(response):
                break
        return response

    def survives(self):
        """What it is owed, and one more answer on the same connection."""
        try:
            self.hear()
            self.ask()
            return True
        except (ConnectionEnded, ConnectionError):
            return False


# What a successor can get at once, and what only follows.
AT_ONCE = {"fresh": 2, "idle": 7, "head": 4, "body": 4, "upload": 2, "unsent": 2}
LATER = {"waiting": 5, "pipelined": 4}


class Fleet:
    """Some thirty clients, and one more after the other that comes while things happen."""

    def __init__(self, service, kinds=None):
        self.service = service
        self.members = []
        for kind, count in (kinds or {**AT_ONCE, **LATER}).items():
            for number in range(count):
                self._add(kind, number)
        wait_until(lambda: sum(path.startswith("/wait") for path in self.handled()) ==
                   sum(member.kind in LATER for member in self.members), "the slow requests are being handled")
        self.newcomers = Newcomers(service)

    def close(self):
        with contextlib.suppress(AttributeError):
            self.newcomers.stop()
        for member in self.members:
            member.client.close()

    def _add(self, kind, number):
        """One by one, because the log tells connections only by the order in which they come."""
        known = self._accepted()
        member = Member(self.service, kind, number)
        self.members.append(member)
        member.id = wait_until(lambda: self._accepted()[len(known):], "it is accepted")[0]
        member.begin()

    def _accepted(self):
        return [conn for _, conn, event in self.service.pass_log() if event == "accepted"]

    def handled(self):
        path = self.service.folder / "handled"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def let_go(self):
        (self.service.folder / "go").touch()

    # -- what became of them --

    def finish(self):
        """Everybody gets what is owed, and asks once more. Returns the members that were lost, and the number of lost
        newcomers."""
        self.let_go()
        lost = [member for member in self.members if not member.survives()]
        counts = Counter(self.handled())
        assert not [path for path, count in counts.items() if count > 1], "a request was handled twice"
        self.members = [member for member in self.members if member not in lost]
        return lost, self.newcomers.stop()

    def assert_nobody_is_lost(self):
        lost, newcomers = self.finish()
        assert not lost and newcomers == 0, ([member.name for member in lost], newcomers)

    def assert_lost_with(self, dead, with_what_was_sent=False):
        """Exactly those that `dead` owned alone. Returns them."""
        lost, newcomers = self.finish()
        alone = owned_alone(self.service.pass_log(), dead, with_what_was_sent)
        ids = {member.id for member in lost} | {member.id for member in self.members}
        assert {member.name for member in lost} == \
            {member.name for member in lost + self.members if member.id in alone}
        assert newcomers <= len(alone - ids), "newcomers were lost that no dead process had accepted"
        return lost

    def ask_those_without(self, pids):
        """While one of `pids` stands still: whoever is with nobody of them, and owed nothing, is served."""
        owners = owners_of(self.service.pass_log())[0]
        for member in self.members:
            if owners[member.id] not in pids and not member.owed:
                member.ask()


def owners_of(log):
    """({connection: the process that it is with}, those that this process has sent and nobody has taken or put back).

    A connection is with who has accepted it, with who has taken it (the verdict is in the kernel, whatever the sender
    knows), with who has put it back after a refusal. "sent" may be logged after the receiver's "taken"."""
    owner, sent = {}, set()
    for pid, conn, event in log:
        if event in ("accepted", "taken", "rearmed"):
            assert event != "rearmed" or owner[conn] == pid, "%d has put back %d, which was taken" % (pid, conn)
            owner[conn] = pid
            sent.discard(conn)
        elif event == "sent" and owner.get(conn) == pid:
            sent.add(conn)
        elif event == "closed":
            owner.pop(conn, None)
    return owner, sent


def owned_alone(log, dead, with_what_was_sent=False):
    """The connections that end with the processes `dead`: those that were with one of them at its death, but for those
    it had sent: they lie in the channel of a successor, who serves them, unless it is dead as well
    (with_what_was_sent). A dead successor's unanswered ones are none: they are with their sender, who puts them back.
    Everybody else's connection goes on."""
    owner, sent = owners_of(log)
    return {conn for conn, pid in owner.items() if pid in dead and (with_what_was_sent or conn not in sent)}


class Newcomers:
    """One new connection after the other, in a thread: none may be refused, each is answered."""

    def __init__(self, service):
        self.service, self.lost, self.error = service, 0, None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            number = 0
            while not self._is_over.wait(0.003):
                self._come("/new/%d" % number)
                number += 1
        except Exception as error:  # told by stop()
            self.error = error

    def _come(self, path):
        with HttpClient(self.service.port) as client:  # refused: an error
            try:
                assert client.request(path).body == path.encode() + b"\n"
            except (ConnectionEnded, ConnectionError):
                self.lost += 1

    def stop(self):
        self._is_over.set()
        self._thread.join()
        if self.error is not None:
            raise AssertionError("a newcomer was not served") from self.error
        return self.lost
