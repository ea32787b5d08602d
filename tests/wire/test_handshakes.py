"""TLS handshakes that fail leave a trace: a count by reason, and a line now and then."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
import uvloop

from lb.core.targets import Listener
from lb.proxy.plane import DataPlane
from lb.worker import handshakes
from lb.worker.acceptor import Acceptor
from lb.worker.handshakes import HandshakeFailures, TlsServer
from tests.support.front import status_of

AUTHORITY = trustme.CA()


class Desk:
    """One TLS listener on the running loop."""

    def __init__(
        self,
        client_certificates: bool = False,
        handshake_time: float = 5.0,
        door: Callable[[socket.socket], Any] = lambda sock: sock,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.said: list[str] = []
        self.plane = DataPlane(worker=0, loop=loop, alarm=lambda alarm: None)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert("localhost").configure_cert(context)
        if client_certificates:
            AUTHORITY.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = self.sock.getsockname()
        failures = HandshakeFailures(self.plane.stats.reject, self.said.append)
        options = {"ssl": context, "ssl_handshake_timeout": handshake_time}
        factory = self.plane.downstream(Listener("test"))
        acceptor = Acceptor(
            loop,
            door(self.sock),
            factory,
            options,
            asyncio.ensure_future,
            lambda peer, e: failures.note("test", peer, e),
        )
        self.server = TlsServer(loop, self.sock.dup(), acceptor, 128)

    async def meet(self, client: Callable[[socket.socket], Any]) -> Any:
        """Let a (blocking) client have its way in a thread."""

        def run() -> Any:
            with socket.create_connection(self.address, timeout=10) as sock:
                return client(sock)

        return await self.loop.run_in_executor(None, run)

    async def counted(self, **expected: int) -> None:
        async with asyncio.timeout(5):
            while self.plane.stats.rejected != expected:  # noqa: ASYNC110 - the plane tells no events
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self.server.close()
        self.sock.close()
        self.plane.close()


def plain(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with contextlib.suppress(OSError):
        sock.recv(1000)


def noise(sock: socket.socket) -> None:
    sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    with contextlib.suppress(OSError):
        sock.recv(1000)


def distrusts(sock: socket.socket) -> None:
    with contextlib.suppress(ssl.SSLError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")


def trusts(sock: socket.socket) -> int:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    with contextlib.suppress(OSError), context.wrap_socket(sock, server_hostname="localhost") as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return status_of(secure.recv(1000))
    return 0


def leaves(sock: socket.socket) -> None:
    pass


def waits(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.recv(1000)


@pytest.mark.parametrize(
    ("client", "reason", "words"),
    [
        (plain, "tls_plain_http", "listener test: 127.0.0.1 sent plain HTTP, but this listener speaks TLS"),
        (noise, "tls_handshake", "listener test: the TLS handshake with 127.0.0.1 failed: wrong version number"),
        (distrusts, "tls_handshake", "failed: tlsv1 alert unknown ca"),
        (leaves, "tls_closed", ""),
        (waits, "tls_timeout", "listener test: 127.0.0.1 did not finish its TLS handshake in time"),
    ],
)
def test_a_handshake_that_fails_is_counted_and_said(client: Any, reason: str, words: str) -> None:
    async def run() -> list[str]:
        desk = Desk(handshake_time=0.2 if client is waits else 5.0)
        try:
            for turn in range(1, 4):
                await desk.meet(client)
                await desk.counted(**{reason: turn})
            assert client is waits or await desk.meet(trusts) == 404, "the listener serves on"
        finally:
            desk.close()
        return desk.said

    said = uvloop.run(run())
    assert len(said) == (1 if words else 0), "one line, however many there are"
    assert all(words in line for line in said)


def test_a_client_without_the_certificate_it_needs_is_counted() -> None:
    async def run() -> None:
        desk = Desk(client_certificates=True)
        try:
            assert await desk.meet(trusts) == 0
            await desk.counted(tls_handshake=1)
            assert "peer did not return a certificate" in desk.said[0]
        finally:
            desk.close()

    uvloop.run(run())


def test_a_server_that_is_closed_twice_is_closed() -> None:
    """A worker that drains closes it before it empties the queue, and again with the socket."""

    async def run() -> None:
        desk = Desk()
        desk.server.close()
        desk.close()

    uvloop.run(run())


def test_what_was_not_said_is_said_later() -> None:
    now = 100.0
    counted: list[str] = []
    said: list[str] = []
    failures = HandshakeFailures(counted.append, said.append, lambda: now)
    for _ in range(5):
        failures.note("a", "192.0.2.1", ssl.SSLError(1, "x"))
    failures.note("b", "192.0.2.1", ConnectionAbortedError())
    now += handshakes.SAID_EVERY
    failures.note("a", "192.0.2.1", ssl.SSLError(1, "x"))
    assert len(counted) == 7
    assert len(said) == 3
    assert said[-1].endswith("(4 more such failures before this one)")


def test_without_descriptors_accepting_pauses_and_goes_on() -> None:
    """The socket stays readable: to look at it again and again would take the whole processor."""

    class Full:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.looked = 0
            self.full = True

        def accept(self) -> tuple[socket.socket, Any]:
            self.looked += 1
            if self.full:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

    async def run() -> None:
        doors: list[Full] = []

        def door(sock: socket.socket) -> Full:
            doors.append(Full(sock))
            return doors[0]

        desk = Desk(door=door)
        [full] = doors
        try:
            client = asyncio.ensure_future(desk.meet(trusts))
            while not full.looked:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            for _ in range(200):
                await asyncio.sleep(0)
            assert full.looked < 20
            full.full = False
            assert await client == 404
        finally:
            desk.close()

    uvloop.run(run())
