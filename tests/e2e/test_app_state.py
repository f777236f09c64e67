"""What the application keeps for a connection goes on in the process that takes it over, or the connection ends politely."""
import pytest

from client import ConnectionEnded, build_request
from harness import EXAMPLES, wait_until, worker_ini

# Each connection counts its requests. VERSION 1 writes the count as one byte, version 2 as text: it reads both. The
# answer: the count, the version of the code, and how old the state was that it came with.
COUNTER = r"""
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct counter { unsigned count, from; } counter;
static void on_connect(baton_conn *conn)
{
    baton_conn_set_user(conn, calloc(1, sizeof(counter)));
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    counter *counter = baton_conn_user(conn);
    char text[64], slot[8];
    if (baton_request_query(req).len > 0)
        return; /* answered never */
    snprintf(slot, sizeof slot, "%llu", (unsigned long long) baton_generation());
    snprintf(text, sizeof text, "%u v%d from %u", ++counter->count, VERSION, counter->from);
    baton_reply_header(conn, "X-Generation", slot);
    baton_reply(conn, 200, "text/plain", text);
}
#ifndef NO_PASS
static int on_pass(baton_conn *conn, baton_pass *pass)
{
    const counter *counter = baton_conn_user(conn);
    char text[64];
    unsigned char byte = (unsigned char) counter->count;
    int len = snprintf(text, sizeof text, "%u", counter->count);
    if (counter->count == 99)
        return 1;
    return baton_pass_version(pass) >= 2 ? baton_pass_write(pass, text, (size_t) len) : baton_pass_write(pass, &byte, 1);
}
#endif
#ifndef NO_TAKE
static int on_take(baton_conn *conn, uint32_t version, baton_str state)
{
    char text[64] = "";
    on_connect(conn);
    counter *counter = baton_conn_user(conn);
    if (state.data == NULL || state.len >= sizeof text)
        return 0;
    memcpy(text, state.data, state.len);
    counter->count = version >= 2 ? (unsigned) atoi(text) : (unsigned char) text[0];
    counter->from = version;
    if (counter->count == 77) {
        free(counter);
        return -1;
    }
    return 0;
}
#endif
static void forget(baton_conn *conn)
{
    free(baton_conn_user(conn));
}
BATON_MODULE(.on_connect = on_connect, .on_request = on_request, .on_close = forget,
#ifndef NO_PASS
    .on_pass = on_pass, .on_passed = forget,
#endif
#ifndef NO_TAKE
    .on_take = on_take,
#endif
    .state_version = VERSION);
"""


def start(new_service, version=1, *flags, **settings):
    service = new_service(worker_ini(module="./app.so", **settings))
    install(service, version, *flags)
    return service.start()


def install(service, version, *flags):
    service.compile(COUNTER, "app.so", "-DVERSION=%d" % version, *flags)


def drop_to(client, count):
    """Asks until the connection has counted so far."""
    for expected in range(1, count + 1):
        assert client.request("/").text.split()[0] == str(expected)


def stays(service):
    return [process.get("stays") for process in service.worker()["processes"] if process["state"] == "draining"]


def expect_end(client):
    """The connection was kept: it is answered once more, says so, and ends."""
    response = client.request("/")
    assert response.closes and response.generation == 1
    client.expect_close()
    return response


def test_counter_of_each_connection_goes_on_over_several_reloads(new_service, connect):
    ini = (EXAMPLES / "counter" / "baton.ini").read_text()
    service = new_service(ini.replace("18116", "{port}"), modules=("counter",)).start()
    clients = [connect(service) for _ in range(50)]
    counts = [0] * 50
    for _ in range(5):
        for index, client in enumerate(clients):
            for _ in range(index % 3 + 1):  # so that they differ
                counts[index] += 1
                assert client.request("/").text == "%d\n" % counts[index]
        service.reload()
    assert [client.request("/").text for client in clients] == ["%d\n" % (count + 1) for count in counts]
    assert sum(process["passed_in"] for process in service.processes("counter")) == 50


def test_connections_that_had_no_state_get_some_from_new_code(new_service, connect):
    service = new_service(worker_ini(count=1, module="./app.so"), modules=())
    service.compile("#include <baton.h>\nstatic void on_request(baton_conn *conn, const baton_request *req)"
                    "{ (void) req; baton_reply(conn, 200, NULL, \"none\"); }"
                    "BATON_MODULE(.on_request = on_request);", "app.so")
    service.start()
    client = connect(service)
    assert client.request("/").text == "none"
    install(service, 1)
    service.reload()
    assert client.request("/").text == "1 v1 from 0"


def test_state_version_goes_up_and_down_again(new_service, connect):
    service = start(new_service, 1)
    clients = [connect(service) for _ in range(10)]
    assert {client.request("/").text for client in clients} == {"1 v1 from 0"}
    install(service, 2)
    service.reload()
    assert {client.request("/").text for client in clients} == {"2 v2 from 1"}
    service.reload()
    assert {client.request("/").text for client in clients} == {"3 v2 from 2"}
    install(service, 1)
    service.reload()
    assert {client.request("/").text for client in clients} == {"4 v1 from 1"}


def test_rollback_takes_the_state_back_to_the_older_version(new_service, connect):
    service = start(new_service, 1, probation="100ms")
    clients = [connect(service) for _ in range(10)]
    assert {client.request("/").text for client in clients} == {"1 v1 from 0"}
    wait_until(lambda: "proved" in service.log or service.command("reload", "--wait").returncode == 0, "it is proved")
    install(service, 2)
    service.reload("--wait")
    assert {client.request("/").text.split()[1] for client in clients} == {"v2"}
    service.must("rollback")
    assert {" ".join(client.request("/").text.split()[1:]) for client in clients} == {"v1 from 1"}


@pytest.mark.parametrize("old, new", [((), ("-DNO_TAKE", "-DNO_PASS")), (("-DNO_PASS",), ())],
                         ids=["without on_take", "without on_pass"])
def test_connections_whose_state_cannot_travel_are_answered_once_more(new_service, connect, old, new):
    service = start(new_service, 1, *old)
    clients = [connect(service) for _ in range(20)]
    assert {client.request("/").text for client in clients} == {"1 v1 from 0"}
    install(service, 1, *new)
    service.reload()
    assert all(client.is_quiet() for client in clients)
    wait_until(lambda: sum((stay or {}).get("app state", 0) for stay in stays(service)) == 20, "status says why they stay")
    for client in clients:
        assert expect_end(client).text == "2 v1 from 0"
    wait_until(lambda: not stays(service), "the old processes have ended")
    assert service.worker()["stayed"]["app state"] == 20
    assert connect(service).request("/").generation == 2


def test_connection_that_on_pass_keeps_is_answered_once_more(new_service, connect):
    service = start(new_service, 1, count=1)
    kept, other = connect(service), connect(service)
    drop_to(kept, 99)
    drop_to(other, 98)
    service.reload()
    assert other.request("/").text == "99 v1 from 1"
    wait_until(lambda: stays(service) == [{"app state": 1}], "status says why it stays")
    assert expect_end(kept).text == "100 v1 from 0"


def test_connection_that_on_take_refuses_is_answered_once_more(new_service, connect):
    service = start(new_service, 1, count=1)
    kept, other = connect(service), connect(service)
    drop_to(kept, 77)
    drop_to(other, 76)
    service.reload()
    assert other.request("/").text == "77 v1 from 1"
    wait_until(lambda: stays(service) == [{"app state": 1}], "status says why it stays")
    assert expect_end(kept).text == "78 v1 from 0"


def test_kept_connection_ends_with_the_drain_and_the_log_says_why(new_service, connect):
    service = start(new_service, 1, "-DNO_PASS", count=1, drain_timeout="300ms")
    client = connect(service)
    assert client.request("/").text == "1 v1 from 0"
    service.reload()
    client.expect_close()
    assert 'drain-expired connections=1 reasons="1 app state"' in service.log


def test_request_being_handled_is_a_reason_of_its_own(new_service, connect):
    service = start(new_service, 1, count=1, drain_timeout="60s", master={"stop_timeout": "100ms"})
    client = connect(service)
    client.send(build_request("/?never"))
    wait_until(lambda: service.processes()[0]["requests"] == 1, "the request is being handled")
    service.reload()
    wait_until(lambda: stays(service) == [{"request": 1}], "status says why it stays")


@pytest.mark.failpoints
def test_successor_of_another_wire_version_strands_nobody_without_an_answer(serve, connect):
    service = serve(count=1)
    idle, asking = connect(service), connect(service)
    assert idle.request("/").generation == asking.request("/").generation == 1
    service.arm("pass-in:wire-version", "fail EPROTO")
    service.reload()  # the roll goes on all the same
    assert "pass-wire-mismatch successor=2..2 own=1..1" in service.log
    response = asking.request("/")
    assert response.generation == 1 and response.closes
    asking.expect_close()
    assert idle.is_quiet()
    assert connect(service).request("/").generation == 2
    service.reload()  # the next successor understands: what is left goes there
    assert idle.request("/").generation == 3


@pytest.mark.failpoints
@pytest.mark.parametrize("point", ["pass-out:before-hold", "pass-out:after-hold", "pass-out:after-send",
                                   "pass-out:before-ack", "pass-out:after-ack", "pass-out:before-close"])
def test_state_is_with_the_successor_once_it_was_sent_and_the_old_process_dies(new_service, connect, point):
    service = start(new_service, 1, count=1)
    service.crashes_expected = True
    client = connect(service)
    drop_to(client, 3)
    service.arm(point, "kill")
    service.reload()
    if point in ("pass-out:before-hold", "pass-out:after-hold"):
        with pytest.raises((ConnectionEnded, ConnectionError, AssertionError)):
            client.request("/")  # it was the killed process's alone
    else:
        assert client.request("/").text == "4 v1 from 1"
    assert connect(service).request("/").generation == 2


@pytest.mark.failpoints
@pytest.mark.parametrize("point", ["pass-in:received", "pass-in:taken", "pass-in:after-ack", "pass-in:before-poll"])
def test_state_stays_with_the_old_process_until_the_successor_has_said_yes(new_service, connect, point):
    service = start(new_service, 1, count=1, probation="60s")
    service.crashes_expected = True
    client = connect(service)
    drop_to(client, 3)
    service.arm(point, "kill")
    service.command("reload")
    if point in ("pass-in:received", "pass-in:taken"):
        assert client.request("/").text.split()[0] == "4"
    else:
        with pytest.raises((ConnectionEnded, ConnectionError, AssertionError)):
            client.request("/")  # it was the killed process's alone
    wait_until(lambda: len(service.processes()) == 1, "the slot serves")
    assert connect(service).request("/").status == 200


@pytest.mark.failpoints
def test_successor_that_must_abandon_what_it_took_gives_it_back(new_service, connect):
    service = start(new_service, 1, count=1)
    client = connect(service)
    drop_to(client, 3)
    service.arm("pass-in:taken", "fail ENOMEM")
    service.reload()
    wait_until(lambda: client.request("/").text.endswith("from 1"), "it has passed over another channel")
    assert int(client.request("/").text.split()[0]) > 4
