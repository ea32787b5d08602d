"""The connections of plain HTTP probes, on real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lb.health.probes.lines import Line, Lines
from lb.net.resolver import Place
from tests.support.listeners import full_listener

SIX = 6.0


class Asker:
    """Puts a question and keeps what it hears."""

    def __init__(self, question: bytes = b"?") -> None:
        self.question = question
        self.line: Line | None = None
        self.heard = b""
        self.over: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connected(self, line: Line) -> None:
        self.line = line

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
async def lines() -> AsyncIterator[Lines]:
    made = Lines()
    yield made
    made.close()


def place(sock: socket.socket) -> Place:
    return Place(socket.AF_INET, sock.getsockname())


async def test_a_question_and_its_answer(lines: Lines, listener: socket.socket) -> None:
    asker = Asker(b"how are you?")
    lines.open(asker, place(listener))
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    with sock:
        assert await loop.sock_recv(sock, 100) == b"how are you?"
        await loop.sock_sendall(sock, b"fine, ")
        await loop.sock_sendall(sock, b"thanks")
    assert await asyncio.wait_for(asker.over, SIX) is None
    assert asker.heard == b"fine, thanks"
    assert asker.line is not None


async def test_a_question_that_does_not_go_out_in_one(lines: Lines, listener: socket.socket) -> None:
    question = os.urandom(8 << 20)
    asker = Asker(question)
    lines.open(asker, place(listener))
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    with sock:
        got = b""
        async with asyncio.timeout(SIX):
            while len(got) < len(question):
                got += await loop.sock_recv(sock, 1 << 20)
        await loop.sock_sendall(sock, b"all of it")
    assert await asyncio.wait_for(asker.over, SIX) is None
    assert got == question
    assert asker.heard == b"all of it"


async def test_nobody_there(lines: Lines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        where = place(gone)
    asker = Asker()
    try:
        lines.open(asker, where)
    except ConnectionRefusedError:
        return
    assert isinstance(await asyncio.wait_for(asker.over, SIX), ConnectionRefusedError)


async def test_a_reset(lines: Lines, listener: socket.socket) -> None:
    asker = Asker()
    lines.open(asker, place(listener))
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    assert isinstance(await asyncio.wait_for(asker.over, SIX), ConnectionResetError)


async def test_given_up_before_it_was_taken_nothing_is_left(lines: Lines) -> None:
    """A full accept queue: the kernel answers nobody."""
    with full_listener() as full:
        before = len(list(Path("/proc/self/fd").iterdir()))
        asker = Asker()
        line = lines.open(asker, place(full))
        await asyncio.sleep(0.05)
        assert asker.line is None, "it is not connected"
        line.abort()
        line.abort()
        await asyncio.sleep(0.05)
        assert not asker.over.done()
        # The epoll itself has come.
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


async def test_hundreds_at_a_time_and_each_hears_its_own(lines: Lines, listener: socket.socket) -> None:
    listener.listen(1024)
    loop = asyncio.get_running_loop()

    async def serve(sock: socket.socket) -> None:
        with sock:
            await loop.sock_sendall(sock, b"re: " + await loop.sock_recv(sock, 100))

    askers = [Asker(b"question %d" % number) for number in range(300)]
    for asker in askers:
        lines.open(asker, place(listener))
    serving = [asyncio.ensure_future(serve((await loop.sock_accept(listener))[0])) for _ in askers]
    async with asyncio.timeout(SIX):
        await asyncio.gather(*serving, *(asker.over for asker in askers))
    assert [asker.heard for asker in askers] == [b"re: " + asker.question for asker in askers]
