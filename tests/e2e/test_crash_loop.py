"""Proved code that begins to die: backoff, an alarm, siblings that serve on, clients that wait in the queue."""
import re

from client import HttpClient, build_request, get
from harness import text_module_source, wait_until, worker_ini

# Slot 0 dies while the file "broken" exists, all slots while "all-broken" does.
APP = r"""
#include <baton.h>
#include <unistd.h>
static void look(void *arg)
{
    bool is_first = baton_worker_slot(arg) == 0;
    if (access("FOLDER/all-broken", F_OK) == 0 || (is_first && access("FOLDER/broken", F_OK) == 0))
        _exit(3);
}
static int start(baton_worker *worker)
{
    look(worker);
    return baton_timer_every(5, look, worker) == NULL;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "hi");
}
BATON_MODULE(.on_worker_start = start, .on_request = on_request);
"""


def looping(new_service, count):
    service = new_service(worker_ini(count=count, module="./app.so"))
    service.compile(APP.replace("FOLDER", str(service.folder)), "app.so")
    return service.start()


def test_siblings_serve_while_one_slot_is_in_a_crash_loop(new_service):
    service = looping(new_service, 2)
    (service.folder / "broken").touch()
    alarm = wait_until(lambda: service.worker()["alarms"], "the alarm is in the status")
    assert re.match(r"slot 0: ended \d+ times in a row within a second", alarm[0])
    assert re.search(r"crash-loop worker=web slot=0 short_lives=\d+ last_exit=\"exit 3\"", service.log)
    assert [process["slot"] for process in service.processes()] == [1]
    for _ in range(50):
        assert get(service.port).text == "hi"
    assert service.status()["last_reload"] is None, "nothing was rolled back"

    (service.folder / "broken").unlink()
    wait_until(lambda: len(service.processes()) == 2, "the slot serves again")
    wait_until(lambda: not service.worker()["alarms"], "the alarm is over when it has lived")


def test_pauses_grow(new_service):
    service = looping(new_service, 2)
    (service.folder / "broken").touch()

    def pauses():
        return [int(ms) for ms in re.findall(r"restart worker=web slot=0 in_ms=(\d+)", service.log)]
    wait_until(lambda: len(pauses()) >= 6, "it was tried several times")
    assert pauses()[:6] == [0, 100, 200, 400, 800, 1600]
    (service.folder / "broken").unlink()
    wait_until(lambda: len(service.processes()) == 2, "the slot serves again")


def test_clients_wait_in_the_queue_while_no_process_lives(new_service):
    service = looping(new_service, 1)
    (service.folder / "all-broken").touch()
    wait_until(lambda: service.worker()["alarms"] and service.processes(state="backoff"), "nobody serves")
    client = HttpClient(service.port)
    client.send(build_request("/"))
    assert client.is_quiet(), "it is neither refused nor closed"
    (service.folder / "all-broken").unlink()
    assert client.read_response().text == "hi"
    client.close()


def test_reload_ends_a_crash_loop(new_service):
    service = looping(new_service, 2)
    (service.folder / "all-broken").touch()
    wait_until(lambda: service.worker()["alarms"], "the alarm is there")
    service.compile(text_module_source("better"), "app.so")
    service.reload()
    assert len(service.processes()) == 2 and get(service.port).text == "better"
    wait_until(lambda: not service.worker()["alarms"], "the alarm is over")


def test_failed_reload_goes_back_to_code_in_a_crash_loop_and_says_so(new_service):
    """The way back leads to code that dies as well: it is tried with the same patience, and nobody waits for ever."""
    service = looping(new_service, 1)
    (service.folder / "all-broken").touch()
    wait_until(lambda: service.worker()["alarms"], "the alarm is there")
    service.compile("int nothing;\n", "app.so")
    result = service.command("reload")
    assert result.returncode == 1 and "baton_module" in result.stderr
    (service.folder / "all-broken").unlink()
    wait_until(lambda: [process["generation"] for process in service.processes()] == [1], "the old code serves again")
    assert get(service.port).text == "hi"
