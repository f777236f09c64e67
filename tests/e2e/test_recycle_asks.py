"""A process that reaches max_requests or max_memory says so, and serves on until it is replaced."""
import re

from client import build_request, get
from harness import wait_until


def asked(service):
    return re.findall(r'recycle-asked reason="([^"]*)"', service.log)


def test_max_requests_is_told_with_the_request_that_reaches_it(serve, connect):
    service = serve(count=1, max_requests=10)
    client = connect(service)
    for _ in range(9):
        assert client.request("/").status == 200
    assert not asked(service)
    assert client.request("/").status == 200
    wait_until(lambda: asked(service), "the process has asked")
    assert asked(service) == ["max_requests: 10 of 10"]
    assert client.request("/").status == 200, "it was served on, and kept"


def test_pipelined_requests_count_each(serve, connect):
    service = serve(count=1, max_requests=10)
    client = connect(service)
    client.send(build_request("/") * 50)
    for _ in range(50):
        assert client.read_response().status == 200
    wait_until(lambda: asked(service), "the process has asked")
    assert re.fullmatch(r"max_requests: \d+ of 10", asked(service)[0])


def test_max_memory_is_told(serve, connect):
    service = serve(count=1, max_memory="128m", source=r"""
#include <baton.h>
#include <stdlib.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    if (baton_request_path(req).len > 1) {
        const size_t size = 192 << 20;
        volatile char *kept = malloc(size);
        for (size_t i = 0; i < size; i += 4096)
            kept[i] = 1;
        baton_worker_set_user(baton_conn_worker(conn), (void *) kept);
    }
    baton_reply(conn, 200, "text/plain", "hi");
}
BATON_MODULE(.on_request = on_request);
""")
    assert get(service.port).text == "hi"
    client = connect(service)
    assert client.request("/eat").text == "hi"
    wait_until(lambda: any(re.fullmatch(r"max_memory: \d+ MiB of 128 MiB", text) for text in asked(service)),
               "the process has asked")
    assert client.request("/").text == "hi"


def test_without_limits_nothing_is_asked(serve, connect):
    service = serve(count=1)
    client = connect(service)
    for _ in range(100):
        assert client.request("/").status == 200
    assert not asked(service)
