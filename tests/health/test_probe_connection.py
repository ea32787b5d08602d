"""The connections of plain HTTP probes, on real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lb.health.probes.connection import ProbeConnection, ProbeTransport
from lb.net.resolver import Place
from tests.support.listeners import full_listener

SIX = 6.0


class Handler:
    """Puts a question and keeps what it hears."""

    def __init__(self, question: bytes = b"?") -> None:
        self.question = question
        self.connection: ProbeConnection | None = None
        self.heard = b""
        self.over: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connected(self, connection: ProbeConnection) -> None:
        self.connection = connection

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def eof_received(self) -> None:
        self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set_result(error)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
async def transport() -> AsyncIterator[ProbeTransport]:
    made = ProbeTransport()
    yield made
    made.close()


def place(sock: socket.socket) -> Place:
    return Place(socket.AF_INET, sock.getsockname())


async def test_a_question_and_its_answer(transport: ProbeTransport, listener: socket.socket) -> None:
    handler = Handler(b"how are you?")
    transport.open(handler, place(listener))
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    with sock:
        assert await loop.sock_recv(sock, 100) == b"how are you?"
        await loop.sock_sendall(sock, b"fine, ")
        await loop.sock_sendall(sock, b"thanks")
    assert await asyncio.wait_for(handler.over, SIX) is None
    assert handler.heard == b"fine, thanks"
    assert handler.connection is not None


async def test_a_question_that_does_not_go_out_in_one(transport: ProbeTransport, listener: socket.socket) -> None:
    question = os.urandom(8 << 20)
    handler = Handler(question)
    transport.open(handler, place(listener))
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    with sock:
        got = b""
        async with asyncio.timeout(SIX):
            while len(got) < len(question):
                got += await loop.sock_recv(sock, 1 << 20)
        await loop.sock_sendall(sock, b"all of it")
    assert await asyncio.wait_for(handler.over, SIX) is None
    assert got == question
    assert handler.heard == b"all of it"


async def test_nobody_there(transport: ProbeTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        where = place(gone)
    handler = Handler()
    try:
        transport.open(handler, where)
    except ConnectionRefusedError:
        return
    assert isinstance(await asyncio.wait_for(handler.over, SIX), ConnectionRefusedError)


async def test_a_reset(transport: ProbeTransport, listener: socket.socket) -> None:
    handler = Handler()
    transport.open(handler, place(listener))
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    assert isinstance(await asyncio.wait_for(handler.over, SIX), ConnectionResetError)


async def test_given_up_before_it_was_taken_nothing_is_left(transport: ProbeTransport) -> None:
    """A full accept queue: the kernel answers nobody."""
    with full_listener() as full:
        before = len(list(Path("/proc/self/fd").iterdir()))
        handler = Handler()
        connection = transport.open(handler, place(full))
        await asyncio.sleep(0.05)
        assert handler.connection is None, "it is not connected"
        connection.abort()
        connection.abort()
        await asyncio.sleep(0.05)
        assert not handler.over.done()
        # The epoll itself has come.
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


async def test_hundreds_at_a_time_and_each_hears_its_own(transport: ProbeTransport, listener: socket.socket) -> None:
    listener.listen(1024)
    loop = asyncio.get_running_loop()

    async def serve(sock: socket.socket) -> None:
        with sock:
            await loop.sock_sendall(sock, b"re: " + await loop.sock_recv(sock, 100))

    handlers = [Handler(b"question %d" % number) for number in range(300)]
    for handler in handlers:
        transport.open(handler, place(listener))
    serving = [asyncio.ensure_future(serve((await loop.sock_accept(listener))[0])) for _ in handlers]
    async with asyncio.timeout(SIX):
        await asyncio.gather(*serving, *(handler.over for handler in handlers))
    assert [handler.heard for handler in handlers] == [b"re: " + handler.question for handler in handlers]
