"""HTTP/1.1 and 1.0 as a client sees it (RFC 9110, RFC 9112)."""
import socket
import subprocess

import pytest

from client import HttpClient, build_request, get
from malformed_http import MALFORMED

# Answers with what the accessors of baton/http.h say about the request.
INSPECT = r"""
#include <baton.h>
#include <stdio.h>
#include <string.h>

static char answer[65536];
static size_t used;

static void say(const char *name, baton_str value)
{
    int n;
    if (value.data)
        n = snprintf(answer + used, sizeof(answer) - used, "%s=[%.*s]\n", name, BATON_ARG(value));
    else
        n = snprintf(answer + used, sizeof(answer) - used, "%s=none\n", name);
    used += (size_t) n;
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    char number[32];
    baton_str name, value;
    size_t count = 0;

    used = 0;
    say("method", baton_request_method(req));
    say("target", baton_request_target(req));
    say("path", baton_request_path(req));
    say("query", baton_request_query(req));
    say("host", baton_request_header(req, "hOST"));
    say("x-test", baton_request_header(req, "X-Test"));
    say("query a", baton_request_query_param(req, "a"));
    say("query b", baton_request_query_param(req, "b"));
    say("query a b", baton_request_query_param(req, "a b"));
    say("form a", baton_request_form_param(req, "a"));
    say("form b", baton_request_form_param(req, "b"));
    say("cookie c", baton_request_cookie(req, "c"));
    say("cookie d", baton_request_cookie(req, "d"));
    say("trailer x-sum", baton_request_trailer(req, "X-Sum"));
    say("header x-sum", baton_request_header(req, "X-Sum"));
    say("body", baton_request_body(req));
    while (baton_request_header_at(req, count, &name, &value))
        count++;
    snprintf(number, sizeof(number), "%zu", count);
    say("fields", (baton_str){number, strlen(number)});
    snprintf(number, sizeof(number), "%d", baton_request_minor_version(req));
    say("minor", (baton_str){number, strlen(number)});
    baton_reply_bytes(conn, 200, "text/plain", answer, used);
}

BATON_MODULE(.on_request = on_request);
"""


def inspect(response):
    assert response.status == 200
    lines = [line.partition("=") for line in response.text.splitlines()]
    return {name: None if value == "none" else value[1:-1] for name, _, value in lines}


@pytest.fixture
def echo(serve):
    return serve(count=1)


@pytest.fixture
def inspector(serve):
    return serve(source=INSPECT, count=1)


# ---- connections ----

def test_one_connection_serves_many_requests(echo, connect):
    client = connect(echo)
    for number in range(100):
        body = b"request %d" % number
        response = client.request("/", "POST", body=body)
        assert (response.status, response.body, response.closes) == (200, body, False)


def test_pipelined_requests_are_answered_in_order(echo, connect):
    client = connect(echo)
    bodies = [b"number %d" % number for number in range(200)]
    client.send(b"".join(build_request("/", "POST", body=body) for body in bodies))
    assert [client.read_response().body for _ in bodies] == bodies


def test_requests_behind_an_asynchronous_one_wait_for_its_answer(echo, connect):
    client = connect(echo)
    client.send(build_request("/sleep/100") + build_request("/", "POST", body=b"second")
                + build_request("/stream/2") + build_request("/", "POST", body=b"fourth"))
    assert [client.read_response().body for _ in range(4)] == [b"hi", b"second", b"x" * 2048, b"fourth"]


def test_connection_close_is_honoured_and_announced(echo, connect):
    client = connect(echo)
    response = client.request("/", headers={"Connection": "close"})
    assert response.closes and response.body == b"hi"
    client.expect_close()


def test_requests_after_connection_close_are_not_answered(echo, connect):
    client = connect(echo)
    client.send(build_request("/", headers={"Connection": "close"}) + build_request("/"))
    assert client.read_response().closes
    client.expect_close()


def test_http_1_0_ends_after_one_answer(echo, connect):
    client = connect(echo)
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.read_response().body == b"hi"
    client.expect_close()


def test_http_1_0_keeps_alive_when_asked(echo, connect):
    client = connect(echo)
    for _ in range(3):
        response = client.request("/", version="1.0", headers={"Connection": "keep-alive"})
        assert response.body == b"hi"
        assert response.get("Connection", "").lower() == "keep-alive"


def test_http_1_0_stream_is_ended_by_the_close(echo, connect):
    client = connect(echo)
    response = client.request("/stream/3", version="1.0")
    assert response.ended_by_close and response.body == b"x" * 3072
    assert not response.all("Transfer-Encoding")


def test_empty_lines_before_a_request_are_ignored(echo, connect):
    client = connect(echo)
    client.send(b"\r\n" + build_request("/"))
    assert client.read_response().body == b"hi"


def test_a_client_that_shuts_its_sending_side_gets_its_answer(echo, connect):
    client = connect(echo)
    client.send(build_request("/"))
    client.socket.shutdown(1)
    assert client.read_response().body == b"hi"
    client.expect_close()


def test_keepalive_requests_closes_with_the_last_answer(serve, connect):
    client = connect(serve(count=1, keepalive_requests=3))
    assert [client.request("/").closes for _ in range(3)] == [False, False, True]
    client.expect_close()


# ---- requests ----

def test_head_has_the_length_but_no_body(echo, connect):
    client = connect(echo)
    response = client.request("/", "HEAD")
    assert (response.status, response.get("Content-Length"), response.body) == (200, "2", b"")
    assert client.request("/").body == b"hi"


def test_head_of_a_stream_has_no_body(echo, connect):
    client = connect(echo)
    assert client.request("/stream/3", "HEAD").body == b""
    assert client.request("/").body == b"hi"


def test_every_answer_has_a_date(echo, connect):
    assert connect(echo).request("/").get("Date").endswith(" GMT")


def test_options_star(inspector, connect):
    seen = inspect(connect(inspector).request("*", "OPTIONS"))
    assert (seen["method"], seen["target"], seen["path"], seen["query"]) == ("OPTIONS", "*", "*", None)


def test_absolute_form_gives_path_and_query(inspector, connect):
    client = connect(inspector)
    seen = inspect(client.request("http://example.org/a/b?c=d"))
    assert (seen["path"], seen["query"]) == ("/a/b", "c=d")
    assert inspect(client.request("http://example.org"))["path"] == "/"


def test_any_method_reaches_the_callback(inspector, connect):
    client = connect(inspector)
    for method in ("GET", "DELETE", "PATCH", "PROPFIND", "X-OWN"):
        assert inspect(client.request("/", method))["method"] == method


def test_query_parameters_are_decoded(inspector, connect):
    seen = inspect(connect(inspector).request("/p%20q?a=1%2b1+x&b=&a+b=%zz&a=second"))
    assert seen["path"] == "/p%20q"
    assert seen["query"] == "a=1%2b1+x&b=&a+b=%zz&a=second"
    assert (seen["query a"], seen["query b"], seen["query a b"]) == ("1+1 x", "", "%zz")


def test_an_empty_query_is_not_a_missing_one(inspector, connect):
    client = connect(inspector)
    assert inspect(client.request("/?"))["query"] == ""
    assert inspect(client.request("/"))["query"] is None


def test_form_parameters_are_decoded(inspector, connect):
    client = connect(inspector)
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    seen = inspect(client.request("/", "POST", headers=form, body=b"b=%C3%A9&a=x+y"))
    assert (seen["form a"], seen["form b"]) == ("x y", "\u00e9")
    assert inspect(client.request("/", "POST", body=b"a=1"))["form a"] is None


def test_cookies_are_found_by_name(inspector, connect):
    seen = inspect(connect(inspector).request("/", headers={"Cookie": "cc=1; c=two; d=\"3\""}))
    assert (seen["cookie c"], seen["cookie d"]) == ("two", '"3"')


def test_header_names_do_not_depend_on_case_and_values_are_trimmed(inspector, connect):
    seen = inspect(connect(inspector).request("/", headers={"x-TEST": " \t value \t "}))
    assert (seen["x-test"], seen["host"], seen["fields"]) == ("value", "test", "2")


def test_chunked_body_is_put_together(inspector, connect):
    client = connect(inspector)
    assert inspect(client.request("/", "POST", chunks=[b"one ", b"two ", b"three"]))["body"] == "one two three"


def test_trailers_are_kept_apart_from_headers(inspector, connect):
    client = connect(inspector)
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                b"3;ext=1\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")
    seen = inspect(client.read_response())
    assert (seen["body"], seen["trailer x-sum"], seen["header x-sum"]) == ("abc", "42", None)


@pytest.mark.parametrize("request_bytes", [
    build_request("/a?b=c", headers={"X-Test": "v"}),
    build_request("/", "POST", body=b"0123456789"),
    build_request("/", "POST", chunks=[b"01234", b"56789"]),
], ids=["head", "length", "chunked"])
def test_requests_may_arrive_byte_by_byte(inspector, connect, request_bytes):
    client = connect(inspector)
    for _ in range(2):
        for at in range(len(request_bytes)):
            client.send(request_bytes[at:at + 1])
        assert client.read_response().status == 200


def test_large_bodies_come_back_whole(echo, connect):
    body = bytes(range(256)) * 4096 * 8
    client = connect(echo)
    for _ in range(2):
        assert client.request("/", "POST", body=body).body == body


# ---- Expect ----

def test_expect_gets_100_before_the_body(echo, connect):
    client = connect(echo)
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert client.read_response().status == 100
    client.send(b"abc")
    assert client.read_response().body == b"abc"


def test_expect_with_the_body_already_there_is_answered_once_or_twice(echo, connect):
    client = connect(echo)
    client.send(build_request("/", "POST", headers={"Expect": "100-continue"}, body=b"abc"))
    response = client.read_response()
    if response.status == 100:
        response = client.read_response()
    assert (response.status, response.body) == (200, b"abc")


def test_expect_of_a_body_that_is_too_large_gets_413_at_once(serve, connect):
    client = connect(serve(count=1, max_package="1k"))
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n")
    assert client.read_response().status == 413
    client.expect_close()


def test_unknown_expectation_gets_417(echo, connect):
    response = connect(echo).request("/", "POST", headers={"Expect": "miracle"}, body=b"")
    assert response.status == 417


# ---- limits ----

def test_target_limit_is_exact(echo, connect):
    client = connect(echo)
    assert client.request("/" + "a" * 8191).status == 200
    assert client.request("/" + "a" * 8192).status == 414
    client.expect_close()


def test_too_long_head_gets_431(echo, connect):
    client = connect(echo)
    assert client.request("/", headers={"X-Long": "a" * 15000}).status == 200
    assert client.request("/", headers={"X-Long": "a" * 16384}).status == 431
    client.expect_close()


def test_too_many_headers_get_431(echo, connect):
    client = connect(echo)
    assert client.request("/", headers={"X-%d" % n: "v" for n in range(127)}).status == 200
    assert client.request("/", headers={"X-%d" % n: "v" for n in range(128)}).status == 431
    client.expect_close()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body_limit_is_exact(serve, connect, chunked):
    client = connect(serve(count=1, max_package="64k"))

    def body(size):
        return {"chunks": [b"a" * 1000] * (size // 1000) + [b"a" * (size % 1000)]} if chunked else {"body": b"a" * size}

    assert len(client.request("/", "POST", **body(65536)).body) == 65536
    assert client.request("/", "POST", **body(65537)).status == 413
    client.expect_close()


def test_a_client_that_is_still_sending_reads_its_413(serve, connect):
    client = connect(serve(count=1, max_package="1k"))
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4194304\r\n\r\n")
    # A close with unread bytes would reset the connection and take the answer away.
    for _ in range(64):
        client.send(b"a" * 65536)
    response = client.read_response()
    assert response.status == 413 and response.closes
    client.expect_close()


def test_header_timeout_is_answered_with_408(serve, connect):
    client = connect(serve(count=1, header_timeout="300ms"))
    client.send(b"GET / HTTP/1.1\r\nHos")
    assert client.read_response().status == 408
    client.expect_close()


def test_header_timeout_is_not_put_off_by_single_bytes(serve, connect):
    client = connect(serve(count=1, header_timeout="500ms"))
    client.send(b"GET / HTTP/1.1\r\nX: ")
    client.socket.settimeout(0.02)
    drips = 0
    while True:
        try:
            assert client.socket.recv(1, 2) or True
            break
        except TimeoutError:
            client.send(b"a")
            drips += 1
            assert drips < 1000, "the head may take for ever"
    client.socket.settimeout(30)
    assert client.read_response().status == 408


def test_idle_timeout_closes_quietly(serve, connect):
    client = connect(serve(count=1, idle_timeout="300ms"))
    assert client.request("/").status == 200
    client.expect_close()


def test_a_client_that_never_says_anything_is_closed(serve, connect):
    client = connect(serve(count=1, header_timeout="300ms"))
    if client.socket.recv(1, socket.MSG_PEEK):
        assert client.read_response().status == 408
    client.expect_close()


def test_idle_timeout_does_not_end_a_request_in_progress(serve, connect):
    service = serve(count=1, idle_timeout="200ms")
    assert connect(service).request("/sleep/1500").body == b"hi"


# ---- malformed ----

@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case[0])
def test_malformed_request_gets_its_status_and_a_close(malformed_service, case):
    _, request, status = case
    with HttpClient(malformed_service.port) as client:
        client.send(request)
        response = client.read_response()
        assert response.status == status and response.closes
        client.expect_close()
    assert get(malformed_service.port).status == 200


# ---- another implementation ----

def curl(service, *args, **kwargs):
    result = subprocess.run(["curl", "-sS", "--max-time", "20", *args, "http://127.0.0.1:%d/" % service.port],
                            capture_output=True, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_curl_understands_http_1_0(echo):
    assert curl(echo, "--http1.0") == b"hi"


def test_curl_uploads_a_file(echo):
    body = b"line\n" * 100000
    assert curl(echo, "-T", "-", input=body) == body
    file = echo.folder / "upload"
    file.write_bytes(body)
    assert curl(echo, "-X", "POST", "--data-binary", "@%s" % file) == body


def test_curl_waits_for_100_continue(echo):
    body = b"x" * 2000000
    assert curl(echo, "-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", "@-",
                input=body) == body


def test_curl_reads_chunks(echo):
    result = subprocess.run(["curl", "-sS", "http://127.0.0.1:%d/stream/5" % echo.port], capture_output=True)
    assert (result.returncode, result.stdout) == (0, b"x" * 5120)
