"""Peers that take little or nothing: what waits for them stays bounded, progress counts, and nobody else notices.

The cases come from junkurihara/rust-rpxy issue 596 and tempesta-tech/tempesta issue 995 (pipelined requests of a client
that reads nothing), haproxy/haproxy issue 2754 (what slow readers leave behind) and nginx's `send_timeout`, which is
the time between two successful writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from lb.core.targets import Retries, Timeouts
from lb.proxy.h1.client import PIPELINE_LIMIT
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, Script, read_all, read_answer, read_request, status_of, with_listener
from tests.wire.messages import GET, HANDSHAKE, SWITCH
from tests.wire.peers import connect_tiny, endless, server_context, sized, speak_tls, tunnels

#: What may wait in a worker for one client: the transport's high water, a read's pieces on top, and what is held.
MOST = 65536 + 262144 + 262144 + PIPELINE_LIMIT


def waiting(front: Front) -> int:
    """Bytes that wait in the worker for its clients, and for their turn."""

    def look() -> int:
        return sum(client.transport.get_write_buffer_size() + client.held for client in front.plane.clients)

    return int(front.call(look))


def settled(value: Callable[[], Any], quiet: float = 0.5, within: float = 10.0) -> Any:
    """The value, once it has not changed for a while."""
    until = time.monotonic() + within
    last, since = value(), time.monotonic()
    while time.monotonic() - since < quiet and time.monotonic() < until:
        time.sleep(0.02)
        if (now := value()) != last:
            last, since = now, time.monotonic()
    return last


# --- a client that pipelines and reads nothing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "request_line"),
    [
        (sized(60_000), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (sized(60_000, close=True), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (sized(60_000, "chunked"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (sized(60_000, "until close"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (sized(60_000), b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        (sized(60_000), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        (sized(60_000), b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ],
    ids=["length", "length, closed by the target", "chunked", "until close", "HTTP/1.0", "POST", "chunked POST"],
)
def test_pipelined_requests_of_a_client_that_reads_nothing_wait_unasked(script: Script, request_line: bytes) -> None:
    count = 120
    with Front() as front:
        front.with_script(script)
        with connect_tiny(front) as sock:
            sock.sendall(request_line * count)
            asked = settled(lambda: len(front.origin.requests))
            assert asked < count, "no request begins while the client does not take the answers"
            assert waiting(front) < MOST
            answered, tail = 0, b""
            while answered < count:
                more = sock.recv(1 << 20)
                assert more, "every request is answered once the client reads"
                answered += (tail + more).count(b"200 OK")
                tail = more[-5:]
        eventually(lambda: len(front.origin.requests) == count)
        eventually(front.at_rest)
        assert not front.call(lambda: front.plane.context.sending)


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize(("method", "status"), [("GET", 404), ("HEAD", 404), ("POST", 413), ("GET", 503)])
def test_answers_of_our_own_to_a_client_that_reads_nothing_are_bounded(method: str, status: int, minor: int) -> None:
    count = 200_000
    request = b"%b /x HTTP/1.%d\r\nHost: a\r\nConnection: keep-alive\r\n" % (method.encode(), minor)
    request += b"Content-Length: 3\r\n\r\nabc" if status == 413 else b"\r\n"
    with Front(max_body=2 if status == 413 else 0, path="/y" if status == 404 else "/") as front:
        if status == 503:
            front.call(lambda: front.plane.services["s"].pools["p"].rotate(()))
        with connect_tiny(front) as sock:
            sock.setblocking(False)
            pieces = request * 1000
            sent = 0
            while sent < len(pieces) * count // 1000:
                try:
                    sent += sock.send(pieces[sent % len(pieces) :])
                except BlockingIOError:
                    settled(lambda: waiting(front))
                    if not front.call(lambda: _readable(front)):
                        break
            assert waiting(front) < MOST
            if status != 413:  # a body that is cut in two is lingered over
                assert sent < len(request) * count, "the client's sending stops"
                assert front.call(lambda: next(iter(front.plane.clients)).blocked)


def _readable(front: Front) -> bool:
    """Whether a client is read from."""
    return any(client.transport.is_reading() for client in front.plane.clients)


def test_a_client_that_reads_nothing_and_resets_leaves_nothing() -> None:
    with Front() as front:
        front.with_script(sized(60_000))
        sock = connect_tiny(front)
        sock.sendall(GET * 300)
        settled(lambda: len(front.origin.requests))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        eventually(lambda: not front.call(lambda: front.plane.clients), 5.0)
        assert not front.call(lambda: front.plane.context.sending)
        eventually(front.at_rest)


# --- progress ---------------------------------------------------------------------------------------------------------


def read_slowly(sock: socket.socket, size: int, rate: int) -> int:
    """Read so many bytes at so many a second, in small pieces; returns what came."""
    begun, got = time.monotonic(), 0
    while got < size:
        piece = sock.recv(min(4096, size - got))
        if not piece:
            break
        got += len(piece)
        time.sleep(max(0.0, begun + got / rate - time.monotonic()))
    return got


def small_segments(sock: socket.socket) -> socket.socket:
    """A client on a real line: loopback's segments of 64 KiB are acknowledged rarely."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    return sock


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


#: `timeouts.send` in these tests, and bytes a second of a peer that is slow but goes on. The kernel has room for more
#: only when a third of its buffer is free again, which takes longer than the limit.
LIMIT, SLOWLY = 0.75, 80_000


@pytest.mark.timing
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_slow_reader_that_goes_on_is_served(framing: str, tls: bool, authority: trustme.CA) -> None:
    size = 12_000_000
    context = server_context(authority) if tls else None
    with Front(listener=with_listener(send_timeout=LIMIT), tls=context, timeouts=Timeouts(read=1.0)) as front:
        front.with_script(sized(size, framing))
        with small_segments(socket.socket()) as plain:
            plain.settimeout(10)
            plain.connect(("127.0.0.1", front.port))
            sock = speak_tls(authority, plain) if tls else plain
            sock.sendall(GET)
            read_slowly(sock, int(SLOWLY * 4 * LIMIT), SLOWLY)
            assert not front.plane.stats.rejected
            assert len(read_all(sock, size // 2)) >= size // 2, "it is served on"
            sock.close()
        eventually(front.at_rest)


@pytest.mark.timing
def test_after_a_slow_reader_the_targets_connection_serves_the_next_client() -> None:
    """[haproxy 2754] The connection is read from again before it is pooled."""
    with Front(timeouts=Timeouts(response=3.0)) as front:
        front.with_script(sized(1_500_000))
        for _ in range(5):
            with small_segments(socket.socket()) as sock:
                sock.settimeout(10)
                sock.connect(("127.0.0.1", front.port))
                sock.sendall(GET)
                eventually(lambda: any(client.blocked for client in front.call(lambda: list(front.plane.clients))))
                read_answer(sock)
            assert status_of(front.send(GET)) == 200
        assert front.origin.connections <= 2


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("minor", [0, 1])
def test_a_reader_that_takes_nothing_is_cut_off_and_gone(minor: int, tls: bool, authority: trustme.CA) -> None:
    with Front(listener=with_listener(send_timeout=0.5), tls=server_context(authority) if tls else None) as front:
        front.with_script(endless)
        plain = connect_tiny(front)
        sock = speak_tls(authority, plain) if tls else plain
        with sock:
            begun = time.monotonic()
            sock.sendall(b"GET / HTTP/1.%d\r\nHost: a\r\n\r\n" % minor)
            eventually(lambda: front.plane.stats.rejected == {"timeout_client_send": 1})
            assert time.monotonic() - begun >= 0.5
            eventually(lambda: not front.call(lambda: front.plane.clients), 5.0)
        assert not front.call(lambda: front.plane.context.sending)
        eventually(front.at_rest)


def test_a_unix_socket_shows_progress_as_well(tmp_path: Path) -> None:
    size = 2_000_000
    with Front(listener=with_listener(send_timeout=0.5), unix=str(tmp_path / "s")) as front:
        front.with_script(sized(size))
        with front.connect() as sock:
            sock.sendall(GET)
            assert read_slowly(sock, size, size // 3) == size
        front.with_script(endless)
        with front.connect() as sock:
            sock.sendall(GET)
            eventually(lambda: front.plane.stats.rejected == {"timeout_client_send": 1})
            eventually(lambda: not front.call(lambda: front.plane.clients), 5.0)


def test_a_half_closed_client_that_reads_slowly_gets_its_answer() -> None:
    """`half_close` asks whether anybody waits for the answer; a client that takes it does."""
    size = 1_000_000
    with Front(listener=with_listener(half_close=0.2)) as front:
        front.with_script(sized(size))
        with connect_tiny(front) as sock:
            sock.sendall(GET)
            sock.shutdown(socket.SHUT_WR)
            time.sleep(0.6)
            assert len(read_all(sock)) > size
        eventually(lambda: not front.call(lambda: front.plane.clients), 5.0)


def test_a_half_closed_client_is_dropped_when_its_answer_never_begins_however_often_it_was_blocked() -> None:
    """`resume_writing` ends its own time and no other: what `half_close` is about may still come to pass."""

    async def blocks_then_hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + bytes(8_000_000))
        await asyncio.sleep(60)

    with Front(listener=with_listener(half_close=0.3), timeouts=Timeouts(read=60.0)) as front:
        front.with_script(blocks_then_hangs)
        with connect_tiny(front) as sock:
            sock.sendall(GET)
            sock.shutdown(socket.SHUT_WR)
            eventually(lambda: any(client.blocked for client in front.call(lambda: list(front.plane.clients))))
            assert len(read_all(sock)) > 8_000_000
        eventually(front.at_rest)


# --- requests' bodies -------------------------------------------------------------------------------------------------


class SlowTarget:
    """A target that takes a body at so many bytes a second, or nothing of it (0), until it is to end."""

    def __init__(self, rate: int) -> None:
        self.listener = small_segments(socket.socket())
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.port: int = self.listener.getsockname()[1]
        self.rate = rate
        self.ends = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        sock, _ = self.listener.accept()
        with sock, self.listener:
            sock.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(1)
            while self.rate and not self.ends.is_set():
                read_slowly(sock, self.rate // 10, self.rate)
            self.ends.wait(20)


@pytest.mark.parametrize("rate", [SLOWLY, 0], ids=["slowly", "nothing"])
def test_a_target_that_goes_on_taking_a_body_is_waited_for(rate: int) -> None:
    size = 12_000_000
    target = SlowTarget(rate)
    with Front(ports=(target.port,), timeouts=Timeouts(send=LIMIT), retries=Retries(attempts=0)) as front:
        with front.connect() as sock:
            head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
            sender = threading.Thread(target=lambda: _try_to_send(sock, head + bytes(size)))
            sender.start()
            if rate:
                time.sleep(5 * LIMIT)
                assert not front.plane.stats.rejected
                target.ends.set()
            else:
                assert status_of(read_answer(sock)) == 504
                assert front.plane.stats.rejected == {"timeout_send": 1}
                target.ends.set()
                sock.shutdown(socket.SHUT_RDWR)
            sender.join(20)
        eventually(front.at_rest)
        assert not front.call(lambda: front.plane.context.sending)


def _try_to_send(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)


# --- tunnels ----------------------------------------------------------------------------------------------------------


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Switches protocols, sends as much as is taken, and counts it."""
    origin.requests.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(SWITCH)
    while True:
        writer.write(b"\x82\x7e\xff\xff" + bytes(65535))
        await writer.drain()
        origin.requests.append(b"")


async def is_deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Switches protocols, reads nothing more, and says something each tenth of a second."""
    origin.requests.append(await reader.readuntil(b"\r\n\r\n"))
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(SWITCH)
    while True:
        writer.write(b"\x82\x01x")
        await asyncio.sleep(0.1)


def test_a_tunnels_client_that_reads_nothing() -> None:
    with Front(listener=with_listener(send_timeout=0.5)) as front:
        front.with_script(floods)
        with connect_tiny(front) as sock:
            sock.sendall(HANDSHAKE)
            eventually(lambda: tunnels(front) > 65536)
            assert tunnels(front) < MOST
            eventually(lambda: not front.call(lambda: front.plane.context.tunnels), 10.0)
            eventually(lambda: not front.call(lambda: front.plane.clients), 5.0)
        assert not front.call(lambda: front.plane.context.sending)
        eventually(front.at_rest)


def test_a_tunnels_target_that_reads_nothing_although_it_speaks() -> None:
    """The bytes that come the other way are no progress."""
    with Front(timeouts=Timeouts(send=0.5)) as front:
        front.with_script(is_deaf)
        with front.connect() as sock:
            sock.sendall(HANDSHAKE)
            sock.settimeout(10)
            sender = threading.Thread(target=lambda: _try_to_send(sock, bytes(40_000_000)))
            sender.start()
            read_all(sock)
            sender.join(10)
            eventually(lambda: not front.call(lambda: front.plane.context.tunnels), 5.0)
        assert not front.call(lambda: front.plane.context.sending)
        eventually(front.at_rest)


@pytest.mark.timing
def test_a_slow_reader_keeps_its_tunnel() -> None:
    """What a peer takes counts as much as what it sends: neither `send` nor `tunnel` is over."""
    size = 12_000_000

    async def sends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(SWITCH + b"\x82\x7f" + size.to_bytes(8) + bytes(size))
        await writer.drain()
        await reader.read(1)

    with Front(listener=with_listener(send_timeout=LIMIT), timeouts=Timeouts(tunnel=LIMIT)) as front:
        front.with_script(sends)
        with small_segments(socket.socket()) as sock:
            sock.settimeout(10)
            sock.connect(("127.0.0.1", front.port))
            sock.sendall(HANDSHAKE)
            read_slowly(sock, int(SLOWLY * 4 * LIMIT), SLOWLY)
            assert front.call(lambda: len(front.plane.context.tunnels)) == 1
            assert len(read_all(sock, size // 2)) >= size // 2
