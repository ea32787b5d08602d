"""TLS handshakes that fail leave a trace: a count by reason, and a line now and then."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import pytest
import trustme
import uvloop

from lb.core.certificates import TlsServer
from lb.core.targets import Listener
from lb.net.tls.admission import Admission
from lb.net.tls.selection import UNRECOGNIZED_NAME, Alert, Select, Selected
from lb.net.tls.session import Buffers
from lb.net.tls.transport import TIMEOUT, Outcome, TlsListener
from lb.proxy.observers import Ended, Observer
from lb.proxy.plane import DataPlane
from lb.proxy.stats import Stats
from lb.worker import handshakes
from lb.worker.handshakes import Handshakes
from tests.support.front import read_all, status_of

AUTHORITY = trustme.CA()


class Desk:
    """One TLS listener on the running loop."""

    def __init__(
        self,
        client_certificates: bool = False,
        handshake_time: float = 5.0,
        select: Select | None = None,
        limit: int = 100,
        proxies: Callable[[bytes], bool] | None = None,
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
        self.admission = Admission(loop, limit, handshake_time)
        self._listener = TlsListener(
            loop,
            select or (lambda hello: Selected(context)),
            self.plane.downstream(Listener("test", tls=TlsServer())),
            self.admission,
            Buffers(),
            partial(Handshakes(self.plane.stats, self.said.append).ended, "test"),
            proxies,
        )

    async def open(self) -> Self:
        self.server = await self.loop.create_server(self._listener, sock=self.sock, backlog=1000)
        return self

    def results(self) -> dict[str, int]:
        """Handshakes by result, whatever their version."""
        found: dict[str, int] = {}
        for tally in self.plane.stats.handshakes.values():
            for results in tally.results.values():
                for result, count in results.items():
                    found[result] = found.get(result, 0) + count
        return found

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
        self.admission.close()
        self.plane.close()


def plain(sock: socket.socket) -> bytes:
    sock.sendall(b"GET /a?b HTTP/1.1\r\nHost: www.example.org:8443\r\n\r\n")
    return read_all(sock)


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
        (
            noise,
            "tls_handshake",
            "listener test: the TLS handshake with 127.0.0.1 failed: the connection does not begin",
        ),
        (distrusts, "tls_handshake", "failed: tlsv1 alert unknown ca"),
        (leaves, "tls_closed", ""),
        (waits, "tls_timeout", "listener test: 127.0.0.1 did not finish its TLS handshake in time"),
    ],
)
def test_a_handshake_that_fails_is_counted_and_said(client: Any, reason: str, words: str) -> None:
    async def run() -> list[str]:
        desk = await Desk(handshake_time=0.2 if client is waits else 5.0).open()
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
        desk = await Desk(client_certificates=True).open()
        try:
            assert await desk.meet(trusts) == 0
            await desk.counted(tls_handshake=1)
            assert "peer did not return a certificate" in desk.said[0]
        finally:
            desk.close()

    uvloop.run(run())


def test_what_was_not_said_is_said_later() -> None:
    now = 100.0
    stats, said = Stats(), list[str]()
    failures = Handshakes(stats, said.append, lambda: now)
    for _ in range(5):
        failures.ended("a", Outcome("192.0.2.1", "no_shared_cipher", "x", 0.1))
    failures.ended("b", Outcome("192.0.2.1", TIMEOUT, "", 0.1))
    now += handshakes.SAID_EVERY
    failures.ended("a", Outcome("192.0.2.1", "no_shared_cipher", "x", 0.1))
    assert stats.rejected == {"tls_handshake": 6, "tls_timeout": 1}
    assert len(said) == 3
    assert said[-1].endswith("(4 more such failures before this one)")


def test_plain_http_is_told_the_https_url() -> None:
    async def run() -> None:
        desk = await Desk().open()
        try:
            answer = await desk.meet(plain)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"Content-Type: text/plain" in answer
            assert b"use https://www.example.org:8443/a?b\n" in answer
            assert desk.results() == {"plain_http": 1}
        finally:
            desk.close()

    uvloop.run(run())


def test_a_large_plain_request_gets_its_answer_and_no_reset() -> None:
    def upload(sock: socket.socket) -> bytes:
        with contextlib.suppress(OSError):
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        return read_all(sock)

    async def run() -> None:
        desk = await Desk().open()
        try:
            answer = await desk.meet(upload)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.endswith(b"use https://a/\n")
        finally:
            desk.close()

    uvloop.run(run())


def test_an_alert_and_nothing_else_refuses_a_name() -> None:
    async def run() -> None:
        desk = await Desk(select=lambda hello: Alert(UNRECOGNIZED_NAME, "unrecognized_name")).open()
        try:

            def client(sock: socket.socket) -> bytes:
                sock.sendall(client_hello("www.example.org"))
                return read_all(sock)

            assert await desk.meet(client) == b"\x15\x03\x03\x00\x02\x02\x70"
            assert desk.results() == {"unrecognized_name": 1}
            assert "for www.example.org failed: unrecognized name" in desk.said[0]
        finally:
            desk.close()

    uvloop.run(run())


def test_newcomers_that_never_finish_give_way_to_clients_that_do() -> None:
    """The oldest that waits for its client is given up."""

    async def run() -> None:
        desk = await Desk(limit=20, handshake_time=30.0).open()
        half = [socket.create_connection(desk.address, timeout=10) for _ in range(60)]
        try:
            for sock in half:
                with contextlib.suppress(OSError):
                    sock.sendall(client_hello("localhost")[:100])
            for _ in range(5):
                assert await desk.meet(trusts) == 404
            assert desk.results()["ok"] == 5
            assert desk.results()["overload"] >= 40
            assert 0 < len(desk.admission) < 20
        finally:
            for sock in half:
                sock.close()
            desk.close()

    uvloop.run(run())


def test_one_byte_a_second_is_not_waited_for_longer_than_silence() -> None:
    def drips(sock: socket.socket) -> float:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in client_hello("localhost"):
                sock.sendall(bytes((byte,)))
                time.sleep(0.02)
            raise AssertionError("it was never cut off")
        return time.monotonic() - began

    async def run() -> None:
        desk = await Desk(handshake_time=0.5).open()
        try:
            assert await desk.meet(drips) < 3.0
            assert desk.results() == {"timeout": 1}
        finally:
            desk.close()

    uvloop.run(run())


def test_the_proxy_header_comes_before_the_client_hello() -> None:
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n"

    def through(sock: socket.socket, pieces: tuple[bytes, ...] = (header,)) -> int:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.05)
        return trusts(sock)

    async def run() -> None:
        desk = await Desk(proxies=lambda peer: peer == b"127.0.0.1").open()
        peers: list[bytes] = []
        desk.plane.context.observers = (Peers(peers),)
        try:
            assert await desk.meet(through) == 404
            assert await desk.meet(lambda sock: through(sock, (header[:9], header[9:]))) == 404
            assert peers == [b"192.0.2.7", b"192.0.2.7"]
            assert await desk.meet(trusts) == 0, "a listener that wants a header is not spoken to without"
            assert desk.results() == {"ok": 2, "bad_proxy_header": 1}
        finally:
            desk.close()
        desk = await Desk(proxies=lambda peer: False).open()
        try:
            assert await desk.meet(through) == 0
            assert desk.plane.stats.rejected == {"proxy_protocol_untrusted": 1}
        finally:
            desk.close()

    uvloop.run(run())


class Peers(Observer):
    def __init__(self, peers: list[bytes]) -> None:
        self._peers = peers

    def ended(self, exchange: Ended, seconds: float) -> None:
        self._peers.append(exchange.peer)


def client_hello(name: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
