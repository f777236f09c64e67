"""Keep-alive clients that number their requests and check every answer: its text, its order, its connection's count.

Knows the answers of the module in test_random_kills.py; what a broken connection means is the test's business.
"""
import asyncio
import random
import threading
import time

ANSWER_DEADLINE = 60


class Broken(Exception):
    """The server's end of the connection is gone."""


class Connection:
    """What one connection has seen; the times are the monotonic clock's."""

    def __init__(self, client):
        self.client = client
        self.opened = time.monotonic()
        self.broke = None  # when the client noticed
        self.id = None  # until the first answer nobody knows it
        self.count = 0
        self.said = ""


class NumberedClients:
    """with NumberedClients(port, 40) as clients: ...; afterwards .connections, .answers and .wrong."""

    def __init__(self, port, number):
        self.port = port
        self.number = number
        self.connections = []
        self.alive = []  # when the clients ended, with an answer from each
        self.wrong = []
        self.answers = 0
        self.is_ending = False

    def __enter__(self):
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run_all()))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_ending = True
        self.thread.join()

    @property
    def broken(self):
        return [connection for connection in self.connections if connection.broke]

    async def _run_all(self):
        await asyncio.gather(*(self._run(client) for client in range(self.number)))

    async def _run(self, client):
        try:
            while not await self._one_connection(client):
                pass
        except Exception as error:  # also a refused connect: none is allowed
            self.wrong.append("client %d: %r" % (client, error))

    async def _one_connection(self, client):
        """True when the client has ended; False when it shall open another connection."""
        connection = Connection(client)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections.append(connection)
        try:
            while True:
                last = self.is_ending
                await self._batch(connection, reader, writer)
                if last or random.random() < 0.01:
                    await self._leave(connection, reader, writer, last)
                    return last
                await asyncio.sleep(random.random() * 0.02)
        except Broken as error:
            connection.broke = time.monotonic()
            connection.said = str(error)
            return False
        finally:
            writer.close()

    async def _batch(self, connection, reader, writer):
        """Some requests in one write; some are answered later than others."""
        paths = []
        for place in range(random.randint(1, 4)):
            later = random.choice((10, 40, 250)) if random.random() < 0.04 else 0
            paths.append("/%d/%d?later=%d" % (connection.client, connection.count + place + 1, later))
        writer.write("".join("GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path for path in paths).encode())
        for path in paths:
            await asyncio.wait_for(self._answer(connection, reader, path), ANSWER_DEADLINE)

    async def _answer(self, connection, reader, path):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(fields["Content-Length"]))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Broken("%r instead of the answer to %s" % (error, path)) from None
        connection.count += 1
        connection.id = connection.id or int(fields["X-Conn"])
        expected = (["HTTP/1.1 200 OK"], connection.id, connection.count, path.partition("?")[0].encode())
        got = (lines[:1], int(fields["X-Conn"]), int(fields["X-Count"]), body)
        if got != expected or "Connection" in fields:
            self.wrong.append("connection %s: %r instead of %r (%r)" % (connection.id, got, expected, fields))
        self.answers += 1

    async def _leave(self, connection, reader, writer, last):
        """Nothing may come after the last answer but the end."""
        if last:
            self.alive.append(connection)
        try:
            writer.write_eof()
            rest = await asyncio.wait_for(reader.read(), ANSWER_DEADLINE)
        except ConnectionError as error:
            raise Broken("%r instead of the end" % error) from None
        if rest:
            self.wrong.append("connection %s: %r after its last answer" % (connection.id, rest))
