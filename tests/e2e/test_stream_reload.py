"""Messages of the stream protocols cut at every byte by a reload: each is answered once, by the new process."""
import socket

import pytest

from harness import DEADLINE, worker_ini

ECHO = r"""
#include <baton.h>
#include <stdio.h>
static void on_message(baton_conn *conn, baton_str message)
{
    char text[256];
    int len = snprintf(text, sizeof text, "%llu:%.*s", (unsigned long long) baton_generation(), BATON_ARG(message));
    baton_send(conn, text, (size_t) len);
}
BATON_MODULE(.on_message = on_message);
"""


def frame(payload):
    return (len(payload) + 4).to_bytes(4, "big") + payload


def read_exactly(client, size):
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        assert part, "the connection ended after %r" % data
        data += part
    return data


@pytest.mark.parametrize("protocol, wire, answer", [
    ("text", b"hello\r\n", b"2:hello\n"),
    ("frame", frame(b"hello"), frame(b"2:hello")),
], ids=["text", "frame"])
def test_message_cut_at_every_byte_is_answered_by_the_new_process(new_service, protocol, wire, answer):
    service = new_service(worker_ini(count=1, module="./app.so").replace("http://", protocol + "://"))
    service.compile(ECHO, "app.so")
    service.start()
    clients = []
    try:
        for cut in range(len(wire)):
            client = socket.create_connection(("127.0.0.1", service.port), DEADLINE)
            clients.append(client)
            first = wire.replace(b"hello", b"first")
            client.sendall(first)
            assert read_exactly(client, len(answer)) == answer.replace(b"2:hello", b"1:first")
            client.sendall(wire[:cut])
        service.reload()
        for cut, client in enumerate(clients):
            client.sendall(wire[cut:] + wire)
            assert read_exactly(client, 2 * len(answer)) == 2 * answer
    finally:
        for client in clients:
            client.close()
