"""Every close ends: a peer that takes nothing costs its descriptor for a bounded time, and counts until it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
import trustme

from lb.core.targets import Timeouts
from lb.proxy import tunnel as tunnel_module
from lb.proxy.h1 import client as downstream
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, Script, read_all, read_answer, read_request, status_of, with_listener
from tests.wire.messages import GET, HANDSHAKE, SWITCH
from tests.wire.peers import connect_tiny, endless, server_context, sized, speak_tls, tunnels


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def gone(front: Front) -> bool:
    """No client is counted, and no connection watched."""
    return bool(
        front.call(lambda: not (front.plane.clients or front.plane.front.turned_away or front.plane.context.sending))
    )


# --- clients that never read ------------------------------------------------------------------------------------------


@pytest.mark.timing
@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_clients_that_never_read_do_not_use_up_the_limit(minor: int, tls: bool, authority: trustme.CA) -> None:
    count = 20
    listener = with_listener(send_timeout=0.5, connections=count)
    with Front(listener=listener, tls=server_context(authority) if tls else None) as front:
        front.with_script(endless)
        before = descriptors()
        socks: list[socket.socket] = [connect_tiny(front) for _ in range(count)]
        if tls:
            socks = [speak_tls(authority, sock) for sock in socks]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.%d\r\nHost: a\r\n\r\n" % minor)
        eventually(lambda: front.plane.stats.rejected.get("timeout_client_send") == count, 20.0)
        eventually(lambda: gone(front), 5.0)
        eventually(front.at_rest)
        eventually(lambda: descriptors() <= before + count + 2, 5.0)  # the clients' own ends are still open
        front.with_script(sized(10))
        with front.connect() as plain:
            sock = speak_tls(authority, plain) if tls else plain
            sock.sendall(GET)
            assert status_of(read_answer(sock)) == 200
            sock.close()
        for sock in socks:
            sock.close()


def test_an_idle_client_that_has_not_taken_its_answer_is_closed() -> None:
    """Its answer is whole, so that nothing but the close waits for it."""
    with Front(listener=with_listener(idle_timeout=0.3, send_timeout=0.5)) as front:
        front.with_script(sized(60_000))
        with connect_tiny(front) as sock:
            sock.sendall(GET * 100)
            eventually(lambda: front.call(lambda: front.plane.context.sending))
            eventually(lambda: gone(front), 10.0)


def test_a_client_that_closes_its_half_and_reads_nothing_is_closed() -> None:
    with Front(listener=with_listener(send_timeout=0.5)) as front:
        front.with_script(sized(3_000_000))
        with connect_tiny(front) as sock:
            sock.sendall(GET * 4)
            eventually(lambda: front.call(lambda: front.plane.context.sending))
            sock.shutdown(socket.SHUT_WR)
            eventually(lambda: gone(front), 10.0)
        eventually(front.at_rest)


def test_a_target_that_breaks_off_does_not_leave_a_client_that_reads_nothing() -> None:
    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + bytes(8_000_000))
        await asyncio.sleep(0.3)
        writer.transport.abort()

    with Front(listener=with_listener(send_timeout=0.5)) as front:
        front.with_script(breaks_off)
        with connect_tiny(front) as sock:
            sock.sendall(GET)
            eventually(lambda: front.origin.ended, 5.0)
            eventually(lambda: gone(front), 10.0)
        eventually(front.at_rest)


def test_a_tls_client_that_never_answers_the_close_is_gone_all_the_same(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop waits for the client's close_notify; such a client is neither read nor written to any more."""
    monkeypatch.setattr(downstream, "CLOSE_TIME", 0.5)
    listener = with_listener(idle_timeout=0.2)
    with Front(listener=listener, tls=server_context(authority)) as front, front.connect() as plain:
        sock = speak_tls(authority, plain)
        sock.sendall(GET)
        read_answer(sock)
        eventually(lambda: front.call(lambda: front.plane.context.sending))
        eventually(lambda: gone(front), 5.0)
        sock.close()


# --- over a limit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["connections", "connections_per_client"])
def test_clients_over_a_limit_are_answered_a_few_at_a_time_and_not_counted(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downstream, "TURNED_AWAY", 3)
    with Front(listener=with_listener(**{limit: 1})) as front, front.connect() as first:
        first.sendall(GET)
        read_answer(first)
        socks = [front.connect() for _ in range(8)]
        eventually(lambda: front.plane.stats.rejected.get(limit) == 8)
        assert front.call(lambda: (len(front.plane.clients), len(front.plane.front.turned_away))) == (1, 3)
        assert sum(b" 503 " in read_all(sock) for sock in socks) == 3
        eventually(lambda: front.call(lambda: not front.plane.front.turned_away), 5.0)  # they have not closed
        assert front.call(lambda: len(front.plane.clients)) == 1
        for sock in socks:
            sock.close()


# --- tunnels ----------------------------------------------------------------------------------------------------------


def never_reads(flood: bool) -> Script:
    """A target that switches protocols and reads nothing more; with `flood` it sends all the more."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(SWITCH)
        while flood:
            writer.write(bytes(65536))
            await writer.drain()
        await asyncio.sleep(60)

    return script


@pytest.mark.parametrize("how", ["tunnel", "drain", "stop"])
def test_a_tunnel_whose_sides_read_nothing_is_cut(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_module, "CLOSE_TIME", 0.5)
    timeouts = Timeouts(tunnel=0.5 if how == "tunnel" else 60.0, drain=0.5)
    with Front(timeouts=timeouts) as front:
        front.with_script(never_reads(flood=True))
        with connect_tiny(front) as sock:
            sock.sendall(HANDSHAKE)
            eventually(lambda: tunnels(front) > 65536)
            sock.setblocking(False)
            fill(sock)
            if how == "drain":
                front.call(lambda: next(iter(front.plane.lanes.values())).drain(True, front.plane.context.now))
            elif how == "stop":
                front.call(lambda: [tunnel.cut("drain_cut") for tunnel in front.plane.context.tunnels])
            eventually(lambda: not front.call(lambda: front.plane.context.tunnels), 20.0)
            eventually(lambda: gone(front), 5.0)
        eventually(front.at_rest)


def fill(sock: socket.socket) -> None:
    """Send until nothing more is taken."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))
            time.sleep(0.001)


def drip(sock: socket.socket) -> None:
    """Send a little at a time until the connection is gone."""
    with contextlib.suppress(ConnectionError):
        while True:
            sock.sendall(bytes(1000))
            time.sleep(0.05)


# --- answers that break off -------------------------------------------------------------------------------------------


def breaking(head: bytes, body: bytes, reset: bool) -> Script:
    """A target that breaks off after these bytes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        writer.write(head + body)
        await writer.drain()
        await asyncio.sleep(0.2)
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

    return script


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize(
    ("head", "framed"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000100\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nF4300\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
    ],
    ids=["length", "chunked", "until close"],
)
def test_an_answer_that_breaks_off_brings_what_had_arrived(head: bytes, framed: bool, minor: int) -> None:
    """The client reads late. A reset ends the answer only where its end would be the end of the body."""
    size = 1_000_000
    with Front() as front:
        front.with_script(breaking(head, b"x" * size, reset=True))
        with front.connect() as sock:
            sock.sendall(b"GET / HTTP/1.%d\r\nHost: a\r\n\r\n" % minor)
            eventually(lambda: front.origin.ended, 5.0)
            time.sleep(0.3)
            answer = read_all(sock)
        assert answer.count(b"x") >= size
        assert answer.endswith(b"<reset>") == (not minor and not framed)
        assert not answer.endswith(b"0\r\n\r\n")


# --- answers before the end of the request ----------------------------------------------------------------------------


async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Answers as soon as it has a head, and closes with the body unread."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")


@pytest.mark.parametrize(
    ("where", "tls", "chunked"),
    [("lb", False, False), ("lb", True, False), ("target", False, False), ("target", True, True), ("lb", False, True)],
)
def test_a_client_that_goes_on_sending_sees_the_early_answer(
    where: str, tls: bool, chunked: bool, authority: trustme.CA
) -> None:
    """[express-http-proxy 546, envoy 2929] It sends all, for longer than a moment and more than buffers hold, and then
    reads, as http.client does."""
    pieces, seconds = 60, 3.0
    piece = bytes(500_000)
    context = server_context(authority) if tls else None
    with Front(max_body=1000 if where == "lb" else 0, tls=context) as front:
        front.with_script(refuses)
        with front.connect() as plain:
            plain.settimeout(20)
            sock = speak_tls(authority, plain) if tls else plain
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (pieces * len(piece))
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
            for _ in range(pieces):
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                time.sleep(seconds / pieces)
            assert status_of(read_answer(sock)) == 413
            sock.close()
        eventually(lambda: gone(front), 5.0)
        eventually(front.at_rest)


def test_an_answer_before_a_reset_is_read_although_a_write_fails_first() -> None:
    """The next piece of the upload meets the reset before the loop looks at the target's side."""
    with socket.create_server(("127.0.0.1", 0)) as server, Front(ports=(server.getsockname()[1],)) as front:
        ours, theirs = socket.socketpair()
        with front.connect() as sock, ours, theirs:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 10)
            target, _ = server.accept()
            received = b""
            while not received.endswith(b"x" * 10):
                received += target.recv(65536)

            def stand_still() -> None:
                front.loop.remove_reader(ours)
                sock.sendall(b"x" * 1000)  # so that the loop finds the client's bytes first…
                target.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")
                target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                target.close()  # …and a reset behind the answer
                time.sleep(0.1)

            front.call(lambda: front.loop.add_reader(ours, stand_still))
            theirs.send(b".")
            answer = read_answer(sock)
        assert status_of(answer) == 413, answer
        assert answer.endswith(b"too large")
        eventually(front.at_rest)


def test_a_lingering_client_that_stays_silent_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream, "LINGER_QUIET", 0.4)
    with Front(max_body=1000) as front, front.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        assert status_of(read_answer(sock)) == 413
        begun = time.monotonic()
        eventually(lambda: gone(front), 5.0)
        assert time.monotonic() - begun > 0.2


def test_a_lingering_client_that_never_stops_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream, "LINGER_TIME", 0.6)
    with Front(max_body=1000) as front, front.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        assert status_of(read_answer(sock)) == 413
        sender = threading.Thread(target=lambda: drip(sock))
        sender.start()
        eventually(lambda: gone(front), 5.0)
        sender.join(5)
        assert not sender.is_alive()


# --- drains -----------------------------------------------------------------------------------------------------------


def test_a_draining_worker_lets_a_slow_reader_finish_and_waits_no_longer() -> None:
    """Its answer had promised to keep the connection when the drain began; the promise is kept for half a second."""
    with Front() as front:
        front.with_script(sized(8_000_000))
        with front.connect() as sock:
            sock.sendall(GET)
            eventually(lambda: front.call(lambda: front.plane.context.sending))
            front.call(lambda: front.plane.drain(30.0))
            assert not front.call(front.plane.idle)
            answer = read_answer(sock)
            assert len(answer) > 8_000_000
            eventually(lambda: front.call(front.plane.idle), 5.0)
            assert sock.recv(1) == b""


def test_a_stopping_worker_ends_those_who_read_nothing() -> None:
    with Front() as front:
        front.with_script(endless)
        with connect_tiny(front) as first, connect_tiny(front) as second:
            first.sendall(GET)
            second.sendall(HANDSHAKE)
            eventually(lambda: front.call(lambda: front.plane.context.sending))
            front.call(front.plane.close)
            eventually(lambda: front.call(lambda: not front.plane.clients), 5.0)
        assert front.call(lambda: not front.plane.context.sending)
