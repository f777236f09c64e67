"""A process with `probe` set takes no client before it has answered itself one request."""
import re
import signal

import pytest

from client import get
from harness import descriptors_of, is_alive, text_module_source, wait_until, worker_ini

# Answers /health as the file "health" beside it says: a status, "close" or "never".
PROBED = r"""
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *what)
{
    FILE *file = fopen("FOLDER/notes", "a");
    fprintf(file, "%s %d\n", what, (int) getpid());
    fclose(file);
}

static void on_health(baton_conn *conn)
{
    char text[32] = "200";
    FILE *file = fopen("FOLDER/health", "r");
    if (file != NULL) {
        if (fgets(text, sizeof text, file) == NULL)
            text[0] = '\0';
        fclose(file);
    }
    if (strncmp(text, "close", 5) == 0)
        baton_destroy(conn);
    else if (strncmp(text, "raw", 3) == 0)
        baton_close(conn);
    else if (strncmp(text, "never", 5) != 0)
        baton_reply(conn, atoi(text), "text/plain", "health\n");
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    baton_str path = baton_request_path(req);
    if (path.len == 7 && memcmp(path.data, "/health", 7) == 0) {
        char seen[200];
        baton_str agent = baton_request_header(req, "User-Agent");
        snprintf(seen, sizeof seen, "health agent=%.*s", (int) agent.len, agent.data);
        note(seen);
        on_health(conn);
        return;
    }
    baton_reply(conn, 200, "text/plain", "TEXT");
}

static void on_connect(baton_conn *conn) { (void) conn; note("connect"); }
static void on_close(baton_conn *conn) { (void) conn; note("close"); }
static void on_worker_stop(baton_worker *worker) { (void) worker; note("stop"); }

BATON_MODULE(.on_request = on_request, .on_connect = on_connect, .on_close = on_close,
             .on_worker_stop = on_worker_stop);
"""


@pytest.fixture
def probed(new_service):
    def make(text="old", **settings):
        settings.setdefault("count", 1)
        service = new_service(worker_ini(module="./app.so", probe="/health", **settings))
        service.compile_probed = lambda text: service.compile(
            PROBED.replace("FOLDER", str(service.folder)).replace("TEXT", text), "app.so")
        service.compile_probed(text)
        service.health = lambda text: (service.folder / "health").write_text(text)
        service.notes = lambda: (service.folder / "notes").read_text().splitlines()
        return service
    return make


def test_probed_process_answers_itself_first_and_leaves_nothing_behind(probed):
    service = probed().start()
    pid = service.pids()[0]
    assert service.notes()[:3] == ["connect %d" % pid, "health agent=baton-probe %d" % pid, "close %d" % pid]
    counters = service.processes()[0]
    for name in ("connections", "accepted", "requests", "bytes_read", "bytes_written", "rejected", "timeouts"):
        assert counters[name] == 0, name
    sockets = [entry for entry in descriptors_of(pid) if entry == "socket:"]
    assert len(sockets) == 2, "the channel and the listening socket"
    assert "probing path=/health" in service.log
    assert get(service.port).text == "old"


@pytest.mark.parametrize("status", [204, 301, 404, 499])
def test_anything_below_500_is_ready(probed, status):
    service = probed()
    service.health(str(status))
    service.start()
    assert get(service.port).text == "old"


@pytest.mark.parametrize("health,words", [("503", "probe /health answered 503"), ("500", "probe /health answered 500"),
                                          ("close", "probe /health was closed without an answer"),
                                          ("raw", "probe /health was closed without an answer")])
def test_generation_that_fails_its_probe_takes_no_traffic(probed, connect, health, words):
    service = probed(count=2).start()
    client = connect(service)
    assert client.request("/").text == "old"
    before = service.pids()
    service.compile_probed("new")
    service.health(health)
    result = service.command("reload")
    assert result.returncode == 1
    assert words in result.stdout + result.stderr
    assert service.pids() == before
    assert client.request("/").text == "old"
    service.health("200")
    service.reload()
    assert client.request("/").text == "new"


def test_probe_that_is_not_answered_fails_by_ready_timeout(probed):
    service = probed(ready_timeout="500ms").start()
    service.crashes_expected = True
    service.health("never")
    result = service.command("reload")
    assert result.returncode == 1
    assert "ready_timeout" in result.stdout + result.stderr
    assert get(service.port).text == "old"


def test_start_fails_when_the_first_generation_fails_its_probe(probed):
    service = probed()
    service.health("503")
    service.exit_code_expected = 1
    service.spawn()
    assert service.wait_exit() == 1
    assert "probe /health answered 503" in service.log
    assert [line for line in service.notes() if line.startswith("stop")], "on_worker_stop follows on_worker_start"


def test_stop_while_a_probe_is_not_answered_stops(probed):
    service = probed(ready_timeout="60s").start()
    service.crashes_expected = True
    service.health("never")
    assert service.command("reload", "--no-wait").returncode == 0
    wait_until(lambda: service.log.count("probing path=") == 2, "the successor probes")
    service.stop()


def test_process_whose_master_dies_while_it_probes_ends(probed):
    service = probed(ready_timeout="60s").start()
    service.health("never")
    assert service.command("reload", "--no-wait").returncode == 0
    wait_until(lambda: service.log.count("probing path=") == 2, "the successor probes")
    probing = int(re.findall(r"\[(\d+)\] probing path=", service.log)[-1])
    service.signal(signal.SIGKILL)
    service.process.wait()
    service.exit_code_expected = -9
    wait_until(lambda: not is_alive(probing), "the process has ended")


def test_crash_in_the_probe_fails_the_reload(probed):
    service = probed().start()
    service.crashes_expected = True
    service.compile(text_module_source("x").replace("    (void) req;", "    (void) req; __builtin_trap();"), "app.so")
    result = service.command("reload")
    assert result.returncode == 1
    assert "signal 4" in result.stdout + result.stderr
    assert re.search(r"crashed signal=4 at=app\.so\+0x[0-9a-f]+", service.log)
    assert get(service.port).text == "old"
