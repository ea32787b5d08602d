"""A worker that drains waits for TLS handshakes that are under way, for a bounded time."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trustme

from lb.core.certificates import Certificate, TlsServer
from lb.core.targets import Listener, Snapshot
from lb.process import fd_handover
from lb.process.channel import Applied, Channel, Command, Message
from lb.worker.main import Worker
from tests.support.eventually_async import eventually

AUTHORITY = trustme.CA()
BIND = "127.0.0.1:0"


class Draining:
    """A worker with one TLS listener, told to drain, and a client that has sent half of its ClientHello before."""

    def __init__(self, worker: Worker, running: asyncio.Future[None], sock: socket.socket) -> None:
        self.worker = worker
        self.running = running
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._loop = asyncio.get_running_loop()

    async def begin(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            hello = self._out.read()
        await self._loop.sock_sendall(self._sock, hello[:100])
        self._out.write(hello[100:])

    async def handshake(self) -> None:
        """End the handshake."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._exchange()
            else:
                await self._loop.sock_sendall(self._sock, self._out.read())
                return

    async def ask(self) -> bytes:
        """Send a request, and return the answer."""
        self._tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while True:
            try:
                return self._tls.read(4096)
            except ssl.SSLWantReadError:
                await self._exchange()

    async def read_to_end(self) -> None:
        """Wait until the worker sends its close_notify."""
        with suppress(ssl.SSLZeroReturnError):
            while True:
                try:
                    assert not self._tls.read(4096)
                    return
                except ssl.SSLWantReadError:
                    await self._exchange()

    def leave(self) -> None:
        self._sock.close()

    async def _exchange(self) -> None:
        if self._out.pending:
            await self._loop.sock_sendall(self._sock, self._out.read())
        data = await self._loop.sock_recv(self._sock, 65536)
        assert data, "the worker ended"
        self._in.write(data)


@asynccontextmanager
async def draining(folder: Path, within: float) -> AsyncIterator[Draining]:
    loop = asyncio.get_running_loop()
    issued = AUTHORITY.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "own.pem")
    tls = TlsServer(certificates=(Certificate(str(folder / "own.pem"), str(folder / "own.pem")),))
    messages: list[Message] = []
    ours, theirs = socket.socketpair()
    our_fds, their_fds = fd_handover.pair()
    their_fds.setblocking(False)
    worker = Worker(0, loop, None)
    channel = await Channel.over(ours, messages.append, lambda: None)
    running = asyncio.ensure_future(worker.run(theirs, their_fds))
    listening = socket.create_server(("127.0.0.1", 0))
    fd_handover.hand(our_fds, (BIND, 0), listening)
    try:
        channel.send(Snapshot(1, (Listener(BIND, tls=tls),)))
        await eventually(lambda: any(isinstance(message, Applied) for message in messages))
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, listening.getsockname())
            client = Draining(worker, running, sock)
            await client.begin()
            channel.send(Command("drain", within))
            await eventually(lambda: worker.plane.front.draining)
            yield client
    finally:
        worker.done.set()
        await running
        channel.close()
        our_fds.close()
        listening.close()


async def test_a_client_whose_handshake_is_under_way_gets_its_answer(tmp_path: Path) -> None:
    async with draining(tmp_path, 10.0) as client:
        await asyncio.sleep(0.3)
        assert not client.running.done()
        await client.handshake()
        answer = await client.ask()
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"\r\nConnection: close\r\n" in answer
        client.leave()
        await asyncio.wait_for(asyncio.shield(client.running), 5.0)


async def test_a_client_that_asks_nothing_after_its_handshake_holds_the_worker_up_for_a_moment(tmp_path: Path) -> None:
    async with draining(tmp_path, 30.0) as client:
        await client.handshake()
        began = time.monotonic()
        await client.read_to_end()
        client.leave()
        await asyncio.wait_for(asyncio.shield(client.running), 10.0)
        assert time.monotonic() - began > 1.0, "its request may be on its way"


async def test_one_that_never_ends_its_handshake_is_waited_for_no_longer_than_the_drain(tmp_path: Path) -> None:
    async with draining(tmp_path, 0.5) as client:
        await asyncio.wait_for(asyncio.shield(client.running), 5.0)
