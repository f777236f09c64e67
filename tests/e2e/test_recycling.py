"""max_requests and max_memory: a process that has reached one is replaced by a fresh one, and no client notices."""
import re

import pytest

from client import get
from harness import text_module_source, wait_until
from storm import Storm

# Does not start while the file "broken" exists; answers with its pid; keeps 192 MiB after a request to /eat.
APP = r"""
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int start(baton_worker *worker) { (void) worker; return access("FOLDER/broken", F_OK) == 0 ? 1 : 0; }
static void on_request(baton_conn *conn, const baton_request *req)
{
    char text[32];
    if (baton_request_path(req).len > 1) {
        const size_t size = 192 << 20;
        volatile char *kept = malloc(size);
        for (size_t i = 0; i < size; i += 4096)
            kept[i] = 1;
        baton_worker_set_user(baton_conn_worker(conn), (void *) kept);
    }
    snprintf(text, sizeof text, "%d", (int) getpid());
    baton_reply(conn, 200, "text/plain", text);
}
BATON_MODULE(.on_worker_start = start, .on_request = on_request);
"""


def recycled(service):
    return re.findall(r" recycle worker=web slot=(\d+) pid=(\d+)", service.log)


def starts(service):
    """["starting", "ready", "starting", ...] of the master's log, without what the start of the service did."""
    lines = re.findall(r" (starting|ready) worker=web slot=\d+ pid=\d+ generation=\d+", service.log)
    return lines[2 * len(service.processes()):]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("reuse_port", ["no", "yes"])
def test_recycling_under_load_loses_nothing_and_keeps_every_connection(serve, reuse_port):
    service = serve(count=3, max_requests=3000, reuse_port=reuse_port)
    with Storm(service, "--connections", "48", "--one-shot", "2") as storm:
        wait_until(lambda: len({slot for slot, _ in recycled(service)}) == 3 and len(recycled(service)) >= 8,
                   "each slot had a fresh process")
    storm.assert_nothing_lost()
    assert {process["generation"] for process in service.processes()} == {1}, "it is no reload"


def test_processes_are_recycled_one_at_a_time(serve):
    service = serve(count=4, max_requests=500)
    with Storm(service, "--connections", "32") as storm:
        wait_until(lambda: len(recycled(service)) >= 12, "all have been recycled several times")
    storm.assert_nothing_lost()
    wait_until(lambda: len(service.processes()) == 4 and len(starts(service)) % 2 == 0, "the last one is there")
    assert starts(service) == ["starting", "ready"] * (len(starts(service)) // 2)


def test_process_that_has_used_too_much_memory_is_replaced(new_service, connect):
    service = new_service("[worker web]\nlisten = http://127.0.0.1:{port}\ncount = 1\nmodule = ./app.so\n"
                          "max_memory = 128m\n")
    service.compile(APP.replace("FOLDER", str(service.folder)), "app.so")
    service.start()
    client = connect(service)
    before = client.request("/eat").text
    wait_until(lambda: service.pids() not in ([], [int(before)]), "a fresh process serves")
    assert client.request("/").text != before
    assert get(service.port).status == 200


def test_fresh_process_that_does_not_start_leaves_the_old_one_serving(new_service, connect):
    service = new_service("[worker web]\nlisten = http://127.0.0.1:{port}\ncount = 2\nmodule = ./app.so\n"
                          "max_requests = 10\nprobation = 0\n")
    service.compile(APP.replace("FOLDER", str(service.folder)), "app.so")
    service.start()
    (service.folder / "broken").touch()
    before = service.pids()
    client = connect(service)
    for _ in range(30):
        assert client.request("/").status == 200
    wait_until(lambda: re.search(r"exited worker=web slot=\d pid=\d+ generation=1 reason=\"exit", service.log),
               "the fresh process has failed")
    assert service.pids() == before and client.request("/").text in map(str, before)
    (service.folder / "broken").unlink()
    wait_until(lambda: client.request("/").text not in map(str, before), "it asks again, and is replaced")


def test_reload_beside_recycling_ends_in_the_new_generation(serve):
    service = serve(count=3, max_requests=400)
    with Storm(service, "--connections", "32") as storm:
        storm.reload_again_and_again(5)
    storm.assert_nothing_lost()
    wait_until(lambda: {process["generation"] for process in service.processes()} == {6}, "generation 6 serves")


def test_reload_gives_a_waiting_slot_its_fresh_process_only_once(serve, connect):
    """A limit that was reached during a roll is the old process's: the new one is not replaced for it."""
    service = serve(count=1, max_requests=5, source=text_module_source("one"))
    client = connect(service)
    service.compile("#include <baton.h>\n#include <unistd.h>\n"
                    "static int start(baton_worker *w) { (void) w; while (access(\"%s/go\", F_OK)) usleep(1000);"
                    " return 0; }\n"
                    "static void on_request(baton_conn *c, const baton_request *r) { (void) r;"
                    " baton_reply(c, 200, \"text/plain\", \"two\"); }\n"
                    "BATON_MODULE(.on_worker_start = start, .on_request = on_request);\n" % service.folder, "app.so")
    service.must("reload", "--no-wait")
    wait_until(lambda: service.processes(state="starting"), "the roll is under way")
    for _ in range(8):
        assert client.request("/").text == "one"
    wait_until(lambda: recycled(service), "it has asked")
    (service.folder / "go").touch()
    wait_until(lambda: service.status()["state"] == "running", "the roll is over")
    pids = service.pids()
    assert client.request("/").text == "two"
    service.must("reload", "--no-wait")
    wait_until(lambda: service.status()["state"] == "running" and service.pids() != pids, "the next roll is over")
    assert service.log.count(" starting worker=web slot=0 ") == 3
