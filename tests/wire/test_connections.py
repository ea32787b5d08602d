"""Connections and time: pipelining, interim answers, half-close, tunnels, limits, every timeout, stale connections.

Names in brackets are lines of the peers' own test suites that a case answers to.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb.core.targets import AccessLog, Breaker, Retries, Timeouts
from lb.http.websocket import GOING_AWAY
from lb.proxy.tcp import arrivals
from tests.support.eventually import eventually
from tests.support.front import (
    OK,
    Front,
    Origin,
    answers,
    read_all,
    read_answer,
    read_request,
    status_of,
    with_listener,
)
from tests.support.listeners import full_listener
from tests.wire.messages import GET, HANDSHAKE, SWITCH, get


@pytest.fixture
def front() -> Iterator[Front]:
    with Front() as running:
        yield running


# --- in order, and in pieces -----------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(front: Front) -> None:
    async def slow_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            path = (await read_request(reader)).split(b" ")[1]
            await asyncio.sleep(0.1 if path == b"/0" else 0)
            writer.write(b"HTTP/1.1 200 OK\r\nX-Path: " + path + b"\r\nContent-Length: 0\r\n\r\n")

    front.with_script(slow_first)
    with front.connect() as sock:
        sock.sendall(b"".join(get(b"/%d" % i) for i in range(20)) + get(b"/end", b"Connection: close\r\n"))
        answer = read_all(sock)
    paths = [line.split(b": ")[1] for line in answer.split(b"\r\n") if line.startswith(b"X-Path")]
    assert paths == [b"/%d" % i for i in range(20)] + [b"/end"]


def test_a_bad_request_behind_good_ones_is_refused_after_their_answers(front: Front) -> None:
    with front.connect() as sock:
        sock.sendall(GET + GET + b"GET / HTTP/1.1\r\nX : y\r\n\r\n" + GET)
        answer = read_all(sock)
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 200, 400]


def test_kept_connections_on_both_sides(front: Front) -> None:
    """[haproxy 18, nginx proxy_keepalive] GET, HEAD, POST and a chunked POST ride one connection each side."""
    with front.connect() as sock:
        for raw in (
            GET,
            b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            GET,
        ):
            sock.sendall(raw)
            assert status_of(read_answer(sock, raw.startswith(b"HEAD"))) == 200
    assert front.origin.connections == 1
    assert len(front.origin.requests) == 5


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (GET, True),
        (get(b"/", b"Connection: close\r\n"), False),
        (get(b"/", b"Connection: keep-alive, close\r\n"), False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_who_keeps_the_connection(front: Front, raw: bytes, kept: bool) -> None:
    with front.connect() as sock:
        sock.sendall(raw)
        answer = read_answer(sock)
        assert (b"Connection: close" in answer) == (not kept)
        if not kept:
            assert sock.recv(1) == b""
        elif b"HTTP/1.0" in raw:
            assert b"Connection: keep-alive" in answer


def test_a_body_is_passed_on_before_it_is_complete(front: Front) -> None:
    """[nginx proxy_request_buffering] Unbuffered: the target reads the first piece while the client holds the rest."""
    first = asyncio.Event()

    async def looks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        origin.requests.append(await reader.readexactly(5))
        first.set()
        origin.requests.append(await reader.readexactly(5))
        writer.write(OK)

    front.with_script(looks)
    with front.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
        eventually(lambda: front.origin.requests == [b"hello"])
        sock.sendall(b"world")
        assert status_of(read_answer(sock)) == 200
    assert front.origin.requests == [b"hello", b"world"]


@pytest.mark.timing
def test_server_sent_events_are_not_held_back(front: Front) -> None:
    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            data = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await asyncio.sleep(0.15)
        writer.write(b"0\r\n\r\n")

    front.with_script(events)
    seen = []
    with front.connect() as sock:
        sock.sendall(GET)
        data, began = b"", time.monotonic()
        while b"0\r\n\r\n" not in data:
            data += sock.recv(65536)
            seen.append((data.count(b"data: "), time.monotonic() - began))
    assert any(count == 1 for count, _ in seen)
    assert next(at for count, at in seen if count >= 1) < 0.12


def test_a_body_larger_than_every_buffer_goes_through_both_ways(front: Front) -> None:
    size = 20 << 20

    async def echo_size(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(min(left, 1 << 18)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()

    front.with_script(echo_size)
    with front.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        sock.sendall(bytes(size))
        data = read_answer(sock)
    assert len(data.partition(b"\r\n\r\n")[2]) == size


# --- 100-continue ----------------------------------------------------------------------------------------------------

EXPECTS = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def test_100_continue_is_the_targets_to_give(front: Front) -> None:
    async def continues(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        origin.requests.append(await reader.readexactly(5))
        writer.write(OK)

    front.with_script(continues)
    with front.connect() as sock:
        sock.sendall(EXPECTS)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert status_of(read_answer(sock)) == 200
    assert front.origin.requests == [b"hello"]


def test_a_final_answer_instead_of_100_closes(front: Front) -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(5)

    front.with_script(refuses)
    with front.connect() as sock:
        sock.sendall(EXPECTS)
        answer = read_all(sock)
    assert status_of(answer) == 413
    assert b"Connection: close" in answer


@pytest.mark.parametrize("with_body", [False, True])
def test_a_target_that_answers_an_expectation_may_not_have_read_the_body(with_body: bool) -> None:
    """[Kettle 2025, Expect-based desync] A body that the target leaves unread must not begin another's request."""

    async def forgets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)

    hidden = get(b"/hidden")
    expects = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    with Front() as front:
        front.with_script(forgets)
        with front.connect() as sock:
            sock.sendall(expects + (hidden if with_body else b""))
            assert status_of(read_answer(sock)) == 200
            if not with_body:
                sock.sendall(hidden)
        assert status_of(front.send(get(b"/another"))) == 200
        assert front.origin.connections == 2, "nobody rides a connection on which a body may lie unread"


def test_an_early_answer_while_the_body_is_coming(front: Front) -> None:
    """[nginx proxy_request_buffering_keepalive] The answer gets through; that connection serves nobody again."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(5)

    front.with_script(early)
    with front.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + bytes(100_000))
        answer = read_answer(sock)
        assert status_of(answer) == 403
        assert answer.endswith(b"no")
    front.with_script(answers(OK))
    assert status_of(front.send(GET)) == 200
    assert front.origin.connections == 2


# --- half-close and clients that leave -------------------------------------------------------------------------------


def test_who_comes_through_a_listener_that_has_gone_gets_one_answer(front: Front) -> None:
    """It was in the queue when the listener was closed: it is let in, but does not stay."""

    assert b"Connection: close" not in front.send(GET)
    front.call(lambda: setattr(front.plane.front, "removed_binds", frozenset({"test"})))
    with front.connect() as sock:
        sock.sendall(GET + GET)
        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in answer


def test_a_half_closed_client_gets_its_answer(front: Front) -> None:
    assert status_of(front.send(GET, half_close=True)) == 200


def test_a_client_that_has_gone_frees_the_target() -> None:
    """[haproxy http_abortonclose c3] The target sees the end although it has not answered."""

    async def thinks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        origin.requests.append(await reader.read(1))

    with Front(listener=with_listener(half_close=0.2)) as front:
        front.with_script(thinks)
        sock = front.connect()
        sock.sendall(GET)
        eventually(lambda: front.origin.requests)
        sock.close()
        eventually(lambda: len(front.origin.requests) == 2, 3.0)
        assert front.origin.requests[1] == b""
        eventually(front.at_rest)
        tally = front.call(lambda: dict(next(iter(front.plane.lanes.values())).tally.codes))
        assert tally == {499: 1}, "logged as 499, and no failure of the target's"
        assert not front.alarms


# --- upgrades --------------------------------------------------------------------------------------------------------


async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Switches protocols and sends back what comes."""
    origin.requests.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(SWITCH)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def frame(payload: bytes) -> bytes:
    """A masked binary frame with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x82" + length + bytes(4) + payload


def test_a_tunnel_carries_bytes_both_ways(front: Front) -> None:
    """[nginx proxy_upgrade, proxy_websocket] Frames small and large, in a row and interleaved; what came with the
    handshake gets through as well.
    """
    front.with_script(echoes)
    with front.connect() as sock:
        sock.sendall(HANDSHAKE + frame(b"early"))
        answer = receive(sock, len(SWITCH))
        assert answer.startswith(b"HTTP/1.1 101")
        rest = answer.partition(b"\r\n\r\n")[2]
        assert rest + receive(sock, len(frame(b"early")) - len(rest)) == frame(b"early")
        for payload in (b"foo", bytes(48 << 10), os.urandom(16 << 10)) * 5:
            sock.sendall(frame(payload))
            assert receive(sock, len(frame(payload))) == frame(payload)
    eventually(lambda: front.call(lambda: not front.plane.context.tunnels), 5.0)
    eventually(front.at_rest)


def test_a_tunnel_passes_a_half_close_on(front: Front) -> None:
    front.with_script(echoes)
    with front.connect() as sock:
        sock.sendall(HANDSHAKE)
        receive(sock, len(SWITCH))
        sock.sendall(frame(b"last"))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(frame(b"last"))


@pytest.mark.timing
def test_an_idle_tunnel_is_closed() -> None:
    with Front(timeouts=Timeouts(tunnel=0.3)) as front:
        front.with_script(echoes)
        with front.connect() as sock:
            sock.sendall(HANDSHAKE)
            receive(sock, len(SWITCH))
            began = time.monotonic()
            assert read_all(sock) == b""
            assert 0.2 < time.monotonic() - began < 2.0


def test_a_draining_websocket_is_told_to_go_away(front: Front) -> None:
    """1001 between two frames, to both sides."""
    front.with_script(echoes)
    with front.connect() as sock:
        sock.sendall(HANDSHAKE)
        receive(sock, len(SWITCH))
        sock.sendall(frame(b"hello"))
        receive(sock, len(frame(b"hello")))
        front.call(lambda: front.plane.drain(5.0))
        assert receive(sock, 4) == GOING_AWAY


@pytest.mark.parametrize("kept", [False, True], ids=["a new connection", "a kept one"])
def test_a_request_that_came_while_a_draining_worker_stood_still_is_served(front: Front, kept: bool) -> None:
    """The loop runs its timers before it reads: the drain's deadline is over, and the request is in the kernel."""
    with front.connect() as sock:
        if kept:
            sock.sendall(GET)
            read_answer(sock)
        else:
            eventually(lambda: front.plane.clients)

        ours, theirs = socket.socketpair()

        def stand_still() -> None:
            front.loop.remove_reader(ours)
            front.plane.drain(10.0)
            sock.sendall(GET)
            time.sleep(2.5)

        # What a reader does is done after the loop has looked for what can be read, and before its timers.
        front.call(lambda: front.loop.add_reader(ours, stand_still))
        theirs.send(b".")
        answer = read_all(sock)
        ours.close()
        theirs.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert b"Connection: close" in answer


def test_upgrade_with_an_unfinished_body_is_no_tunnel(front: Front) -> None:
    """[haproxy 24] 101 before the POST body ended → 502."""
    front.with_script(answers(b"HTTP/1.1 101 X\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n"))

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 X\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n")
        await asyncio.sleep(1)

    front.with_script(hasty)
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: Upgrade\r\nContent-Length: 10\r\n\r\nhalf"
    assert status_of(front.send(raw)) == 502


# --- limits ----------------------------------------------------------------------------------------------------------


def test_connections_per_client_and_per_worker() -> None:
    for limit in ({"connections": 3}, {"connections_per_client": 3}):
        with Front(listener=with_listener(**limit)) as front:
            socks = [front.connect() for _ in range(3)]
            eventually(lambda: front.call(lambda: len(front.plane.clients)) == 3)
            answer = front.send(GET)
            assert status_of(answer) == 503
            assert b"Retry-After: 1" in answer
            assert front.plane.stats.rejected == {next(iter(limit)): 1}
            for sock in socks:
                sock.sendall(GET)
                assert status_of(read_answer(sock)) == 200
                sock.close()
            eventually(lambda: front.call(lambda: len(front.plane.clients)) == 0, 5.0)
            assert status_of(front.send(GET)) == 200


def test_requests_per_connection() -> None:
    with Front(listener=with_listener(requests_per_connection=2)) as front, front.connect() as sock:
        sock.sendall(GET)
        assert b"Connection: close" not in read_answer(sock)
        sock.sendall(GET)
        assert b"Connection: close" in read_answer(sock)
        assert sock.recv(1) == b""


def test_body_limits_of_a_route() -> None:
    with Front(max_body=1000) as front:
        too_long = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"
        assert status_of(front.send(too_long)) == 413
        body = b"".join(b"64\r\n" + bytes(100) + b"\r\n" for _ in range(20))
        answer = front.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        assert status_of(answer) == 413
        assert not front.origin.requests
        assert front.plane.stats.rejected == {"body_too_large": 2}


def test_the_queue_for_targets_is_bounded_in_length_and_time() -> None:
    gate = asyncio.Event()

    async def gated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await read_request(reader))
            await gate.wait()
            writer.write(OK)

    with Front(breaker=Breaker(connections=1, pending=1), timeouts=Timeouts(queue=0.4)) as front:
        front.with_script(gated)
        first, second = front.connect(), front.connect()
        first.sendall(GET)
        eventually(lambda: front.origin.requests)
        second.sendall(GET)
        eventually(lambda: front.call(lambda: len(front.plane.services["s"].waiting)) == 1)
        assert status_of(front.send(GET)) == 503  # the queue is full
        assert status_of(read_answer(second)) == 503  # its time is over
        front.loop.call_soon_threadsafe(gate.set)
        assert status_of(read_answer(first)) == 200
        assert front.plane.stats.rejected == {"queue_full": 1, "timeout_queue": 1}
        first.close()
        second.close()


# --- timeouts, each with its name ------------------------------------------------------------------------------------


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    origin.requests.append(await reader.readuntil(b"\r\n\r\n"))
    await asyncio.sleep(30)


async def stops_within(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await asyncio.sleep(30)


@pytest.mark.timing
def test_client_header() -> None:
    with Front(listener=with_listener(header_timeout=0.4)) as front, front.connect() as sock:
        began = time.monotonic()
        for byte in b"GET / HTTP/1.1\r\n":  # drop by drop: progress does not help (slowloris)
            sock.sendall(bytes((byte,)))
            time.sleep(0.01)
        answer = read_all(sock)
        assert status_of(answer) == 408
        assert time.monotonic() - began < 1.5
        assert front.plane.stats.rejected == {"timeout_client_header": 1}


def test_client_body() -> None:
    with Front(listener=with_listener(body_timeout=0.3)) as front:
        answer = front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        assert status_of(answer) == 408
        assert front.plane.stats.rejected == {"timeout_client_body": 1}
        assert not front.origin.requests, "[nginx http_request_buffer] the target saw no whole request"


def test_idle_connections_are_closed_without_a_word() -> None:
    with Front(listener=with_listener(idle_timeout=0.3)) as front, front.connect() as sock:
        sock.sendall(GET)
        read_answer(sock)
        assert sock.recv(100) == b""
        assert not front.plane.stats.rejected


def test_an_idle_connection_ends_before_the_loop_goes_on(front: Front) -> None:
    """A request that comes between the last look for it and the end of the connection would be reset. Seen by the model
    end to end, as workers drained."""

    def give_up() -> bool:
        client = next(iter(front.plane.clients))
        client.on_deadline()
        client_sees = arrivals(sock)
        return client_sees is not None and bool(client_sees.poll(1000))

    with front.connect() as sock:
        sock.sendall(GET)
        read_answer(sock)
        assert front.call(give_up)
        assert sock.recv(100) == b""


def test_client_send() -> None:
    """A client that takes nothing of a large answer is cut off, and costs the target no more."""
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(50_000_000)
    with Front(listener=with_listener(send_timeout=0.5)) as front:
        front.with_script(answers(big))
        with front.connect() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(GET)
            eventually(lambda: front.plane.stats.rejected.get("timeout_client_send") == 1)
        eventually(front.at_rest)


@pytest.mark.timing
@pytest.mark.parametrize(
    ("timeouts", "script", "status", "name"),
    [
        (Timeouts(response=0.3), hangs, 504, "response"),
        (Timeouts(total=0.3), hangs, 504, "total"),
        (Timeouts(read=0.3), stops_within, 200, "read"),
    ],
)
def test_target_timeouts(timeouts: Timeouts, script: object, status: int, name: str) -> None:
    with Front(timeouts=timeouts, retries=Retries(attempts=0)) as front:
        front.with_script(script)  # type: ignore[arg-type]
        with front.connect() as sock:
            sock.sendall(GET)
            began = time.monotonic()
            answer = read_all(sock) if status == 200 else read_answer(sock)
            assert 0.15 < time.monotonic() - began < 1.5
        assert status_of(answer) == status
        if status == 504:
            assert front.plane.stats.rejected == {f"timeout_{name}": 1}
            assert b"too long" in answer or b"longer" in answer or f"timeout: {name}".encode() in answer
        else:
            assert answer.endswith(b"half")
        eventually(front.at_rest)


def test_connect_timeout_is_named() -> None:
    with full_listener() as full:
        time.sleep(0.05)
        with Front(timeouts=Timeouts(connect=0.3), retries=Retries(attempts=0)) as front:

            def point() -> None:
                from dataclasses import replace

                front.targets = (replace(front.targets[0], port=full.getsockname()[1]),)
                front.apply()

            front.call(point)
            answer = front.send(GET)
            assert status_of(answer) == 504
            assert b"timeout: connect" in answer
            assert front.plane.stats.rejected == {"timeout_connect": 1}


# --- trust -----------------------------------------------------------------------------------------------------------


def test_forwarding_fields_of_a_trusted_proxy_are_kept_and_extended() -> None:
    with Front(trusted_proxies=("127.0.0.0/8",)) as front:
        extra = b"X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n"
        front.send(get(b"/", extra + b"X-Request-Id: abc\r\nForwarded: for=192.0.2.9\r\n"))
        [request] = front.origin.requests
        assert b"X-Forwarded-For: 192.0.2.9, 127.0.0.1\r\n" in request
        assert b"X-Forwarded-Proto: https\r\n" in request
        assert b"X-Request-Id: abc\r\n" in request
        assert b"Forwarded: for=192.0.2.9, for=127.0.0.1;" in request


def test_a_trusted_proxy_that_sends_one_form_does_not_get_another_story_told() -> None:
    with Front(trusted_proxies=("127.0.0.0/8",)) as front:
        front.send(get(b"/", b"X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n"))
        front.send(get(b"/", b'Forwarded: for="[2001:db8::9]:80";proto=https;host=b\r\n'))
        first, second = front.origin.requests
        assert b'Forwarded: for=192.0.2.9;host=b;proto=https, for=127.0.0.1;host="a";proto=http\r\n' in first
        assert b"X-Forwarded-For: 2001:db8::9, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n" in second
        assert b"X-Forwarded-Host: b\r\n" in second


def test_other_claims_of_a_trusted_proxy_are_kept_and_connection_cannot_take_them_away() -> None:
    with Front(trusted_proxies=("127.0.0.0/8",)) as front:
        extra = b"X-Real-IP: 192.0.2.9\r\nX-Forwarded-Port: 443\r\nX_Real_IP: 6.6.6.6\r\nConnection: X-Real-IP\r\n"
        front.send(get(b"/", extra))
        front.send(get(b"/", extra).replace(b"HTTP/1.1", b"HTTP/1.0"))
        for request in front.origin.requests:
            assert request.count(b"X-Real-IP: 192.0.2.9\r\n") == 1
            assert request.count(b"X-Forwarded-Port: 443\r\n") == 1
            assert b"6.6.6.6" not in request


@pytest.mark.parametrize("networks", [("10.0.0.0/8",), ("::ffff:10.0.0.0/104",)])
def test_an_address_that_is_mapped_into_ipv6_is_the_ipv4_address(networks: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    listener = with_listener(proxy_protocol=("127.0.0.1",))
    with Front(listener=listener, trusted_proxies=networks, access_log=AccessLog("json", str(path))) as front:
        header = b"PROXY TCP6 ::ffff:10.1.2.3 ::ffff:127.0.0.1 5000 80\r\n"
        assert status_of(front.send(header + get(b"/", b"X-Forwarded-For: 192.0.2.9\r\n"))) == 200
        assert b"X-Forwarded-For: 192.0.2.9, 10.1.2.3\r\n" in front.origin.requests[0]
        front.call(lambda: front.plane.log.flush())  # type: ignore[union-attr]
        eventually(lambda: path.exists() and '"client":"10.1.2.3"' in path.read_text())


@pytest.mark.parametrize("version", [1, 2])
def test_the_proxy_protocol_tells_the_client(version: int) -> None:
    header = b"PROXY TCP4 192.0.2.9 192.0.2.1 1234 80\r\n"
    if version == 2:
        from lb.http.proxy_protocol import SIGNATURE_V2

        addresses = socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 1234, 80)
        header = SIGNATURE_V2 + b"\x21\x11\x00\x0c" + addresses
    with Front(listener=with_listener(proxy_protocol=("127.0.0.1",))) as front:
        assert status_of(front.send(header + GET)) == 200
        assert b"X-Forwarded-For: 192.0.2.9\r\n" in front.origin.requests[0]
        assert front.send(GET) == b"", "without the header the connection is closed"


def test_the_proxy_protocol_is_not_taken_from_strangers() -> None:
    with Front(listener=with_listener(proxy_protocol=("192.0.2.0/24",))) as front:
        assert status_of(front.send(b"PROXY TCP4 192.0.2.9 192.0.2.1 1234 80\r\n" + GET)) == 0
        assert not front.origin.requests


# --- several targets -------------------------------------------------------------------------------------------------


def test_strict_rotation() -> None:
    """[haproxy balance-rr] Four targets, in turn."""
    with Front(origins=4) as front:
        for _ in range(8):
            assert status_of(front.send(GET)) == 200
        assert [len(origin.requests) for origin in front.origins] == [2, 2, 2, 2]


def test_a_target_that_closes_each_third_time_loses_nothing() -> None:
    """[nginx upstream.t]"""

    async def third(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        for _ in range(2):
            origin.requests.append(await read_request(reader))
            writer.write(OK)
        await read_request(reader)

    with Front(origins=2) as front:
        front.origins[0].script = third
        assert [status_of(front.send(GET)) for _ in range(30)] == [200] * 30


def test_a_post_is_never_sent_twice() -> None:
    """[nginx proxy_non_idempotent] The target takes it and closes: 502; a GET goes elsewhere."""

    async def takes_and_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))

    with Front(origins=2) as front:
        for origin in front.origins:
            origin.script = takes_and_closes
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        assert status_of(front.send(post)) == 502
        assert sum(len(origin.requests) for origin in front.origins) == 1
        assert status_of(front.send(GET)) == 502
        assert sum(len(origin.requests) for origin in front.origins) == 3, "GET was tried at both"


def test_idle_limits_are_learnt_and_kept() -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            async with asyncio.timeout(0.3):
                origin.requests.append(await read_request(reader))
            writer.write(OK)

    async def tells(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=7\r\nContent-Length: 0\r\n\r\n")

    def learnt(front: Front) -> float:
        return float(front.call(lambda: next(iter(front.plane.lanes.values())).idle_limit.learnt))

    with Front() as front:
        front.with_script(short)
        front.send(GET)
        eventually(lambda: 0.2 < learnt(front) < 0.5)
    with Front() as front:
        front.with_script(tells)
        front.send(GET)
        assert learnt(front) == 7.0


# --- what is counted -------------------------------------------------------------------------------------------------


def bodies(pieces: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0\r\n" + trailers + b"\r\n"


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (bodies([b"0123456789"]), 200),
        (bodies([b"0"] * 10), 200),
        (bodies([b"01234", b"56789"], b";a=b"), 200),
        (bodies([b"0123456789"], trailers=b"X-Sum: " + b"1" * 100 + b"\r\n"), 200),
        (bodies([b"0123456789a"]), 413),
        (bodies([b"0"] * 11), 413),
        (bodies([b"0123456789"]).replace(b"0\r\n\r\n", b"1\r\na\r\n0\r\n\r\n"), 413),
    ],
)
def test_max_body_counts_payload_alone(body: bytes, status: int, apart: bool) -> None:
    with Front(max_body=10) as front, front.connect() as sock:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        try:
            for piece in [head, *(bytes((byte,)) for byte in body)] if apart else [head + body]:
                sock.sendall(piece)
        except OSError:  # it was refused meanwhile
            pass
        assert status_of(read_answer(sock)) == status
        assert len(front.origin.requests) == (status == 200)


def test_the_access_log_counts_payload_alone(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with Front(access_log=AccessLog("json", str(path))) as front:
        front.with_script(answers(chunked, pause=b"2;x\r\nde\r\n0\r\n\r\n"))
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        front.send(head + bodies([b"ab", b"cd"]))
        front.send(GET.replace(b"1.1", b"1.0"))
        front.with_script(answers(b"HTTP/1.1 200 OK\r\n\r\nabcd", close=True))
        front.send(GET)
        front.call(lambda: front.plane.log.flush())  # type: ignore[union-attr]
        eventually(lambda: path.exists() and path.read_text().count("\n") == 3)
        said = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(each["bytes_in"], each["bytes_out"]) for each in said] == [(4, 5), (0, 5), (0, 4)]


def test_interim_answers_prolong_the_wait_for_the_final_one_but_not_the_total() -> None:
    async def works(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            await read_request(reader)
            for _ in range(5):
                await asyncio.sleep(0.5)
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            writer.write(OK)

    for total in (0.0, 1.8):
        with Front(timeouts=Timeouts(response=1.5, total=total), retries=Retries(attempts=0)) as front:
            front.with_script(works)
            with front.connect() as sock:
                sock.sendall(get(b"/", b"Connection: close\r\n"))
                answer = read_all(sock)
            statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
            assert set(statuses[:-1]) <= {102}
            assert statuses[-1] == (504 if total else 200)


@pytest.mark.parametrize("form", ["json", "combined"])
def test_refused_requests_are_logged_with_what_they_asked_for(form: str, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    refused = [
        b"GET /bad HTTP/1.1\r\nHost: a\r\nX : y\r\nUser-Agent: curl\r\n\r\n",
        b"POST /chunks HTTP/1.1\r\nHost: a\r\nUser-Agent: curl\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b'GET /"\x5c HTTP/3.0\r\nHost: a\r\n\r\n',
        b"GET /two HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
    ]
    with Front(access_log=AccessLog(form, str(path))) as front:
        for raw in refused:
            assert 400 <= status_of(front.send(raw)) <= 505
        front.call(lambda: front.plane.log.flush())  # type: ignore[union-attr]
        eventually(lambda: path.exists() and path.read_text().count("\n") == len(refused))
        lines = path.read_text().splitlines()
        counted = front.plane.stats.rejected
    if form == "json":
        said = [json.loads(line) for line in lines]
        assert [(each["method"], each["path"][:9], each["host"], each["status"]) for each in said] == [
            ("GET", "/bad", "a", 400),
            ("POST", "/chunks", "a", 400),
            ("GET", "/xxxxxxxx", "a", 414),
            ("GET", '/"\\', "a", 505),
            ("GET", "/two", "a", 400),
            ("", "", "", 400),
        ]
        assert [each["user_agent"] for each in said[:2]] == ["curl", "curl"]
        assert len(lines[2]) < 2000, "a long target is cut"
        assert sum(counted.values()) == len(refused)
    else:
        assert '"GET /bad HTTP/1.1" 400' in lines[0]
        assert lines[0].endswith('"curl"')
        assert '"-" 400' in lines[-1]


# --- switches --------------------------------------------------------------------------------------------------------


def test_without_via_a_target_does_not_see_the_proxy() -> None:
    with Front(via=False) as front:
        assert status_of(front.send(get(b"/", b"Via: 1.1 other\r\n"))) == 200
        front.send(GET.replace(b"1.1", b"1.0"))
        front.send(get(b"/", b"Max-Forwards: 3\r\nTE: trailers\r\n"))
        assert all(b" lb\r\n" not in request for request in front.origin.requests)
        assert all(request.count(b"\r\nX-Request-Id: ") == 1 for request in front.origin.requests)
        assert b"\r\nVia: 1.1 other\r\n" in front.origin.requests[0]
        assert b"\r\nTE: trailers\r\nConnection: TE\r\n" in front.origin.requests[2]
        assert b"\r\nMax-Forwards: 3\r\n" in front.origin.requests[2]


@pytest.mark.parametrize("mode", ["negotiate", "pass", "drop"])
def test_trailers_by_choice(mode: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = bodies([b"ab"], trailers=b"X-Sum: 2\r\n")
    with Front(trailers=mode) as front:
        front.with_script(answers(answer))
        assert (b"X-Sum: 1\r\n" in front.send(GET)) == (mode == "pass")
        with_te = get(b"/", b"X-TE: trailers\r\nTE: trailers\r\nConnection: TE\r\n")
        assert (b"X-Sum: 1\r\n" in front.send(with_te)) == (mode != "drop")
        assert b"\r\nX-TE: trailers\r\n" in front.origin.requests[-1]
        assert (b"\r\nTE: trailers\r\nConnection: TE\r\n" in front.origin.requests[-1]) == (mode != "drop")
        for pieces in ([head + body], [head, body], [head, body[:-3], body[-3:]]):
            with front.connect() as sock:
                for piece in pieces:
                    sock.sendall(piece)
                    time.sleep(0.02)
                assert status_of(read_answer(sock)) == 200
            assert front.origin.requests[-1].endswith(
                bodies([b"ab"], trailers=b"" if mode == "drop" else b"X-Sum: 2\r\n")
            )
