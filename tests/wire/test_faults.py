"""The fault matrix: each thing a target can do wrong × GET and POST × kept connections or not.

For every fault: the documented outcome, the next request on the client's connection is right, and nothing leaks.
docs/http.md says the same in words.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lb.core.targets import AccessLog, Listener, Pool, Retries, Rotation, Route, Service, Snapshot, Target, Timeouts
from lb.http.message import RequestFields, RequestHead
from lb.proxy.exchange import Exchange
from lb.proxy.h1.client import Downstream
from lb.proxy.plane import DataPlane
from tests.support.eventually import eventually
from tests.support.front import OK, Front, Origin, Script, answers_ok, read_answer, read_request, status_of
from tests.wire.request_table import TABLE

RESET = struct.pack("ii", 1, 0)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    origin.requests.append(await read_request(reader))
    await asyncio.sleep(30)


def says_then(raw: bytes, *, then: str) -> Script:
    """Reads the request, says some bytes, and closes, resets or keeps silent."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        writer.write(raw)
        await writer.drain()
        if then == "reset":
            await asyncio.sleep(0.01)
            reset(writer)
        elif then == "silence":
            await asyncio.sleep(30)

    return script


async def answers_before_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 403 Early\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    await asyncio.sleep(0.05)


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal"

#: fault → (script, status for GET, status for POST, whether the answer is cut)
FAULTS: dict[str, tuple[Script, int, int, bool]] = {
    "accepts and hangs": (hangs, 504, 504, False),
    "closes before an answer": (says_then(b"", then="close"), 502, 502, False),
    "resets before an answer": (says_then(b"", then="reset"), 502, 502, False),
    "resets within the head": (says_then(b"HTTP/1.1 200 OK\r\nCon", then="reset"), 502, 502, False),
    "closes within the head": (says_then(b"HTTP/1.1 200 OK\r\nCon", then="close"), 502, 502, False),
    "hangs within the head": (says_then(b"HTTP/1.1 200 OK\r\nCon", then="silence"), 504, 504, False),
    "resets within the body": (says_then(HALF, then="reset"), 200, 200, True),
    "closes within the body": (says_then(HALF, then="close"), 200, 200, True),
    "hangs within the body": (says_then(HALF, then="silence"), 200, 200, True),
    "sends half a chunk": (says_then(CHUNK, then="close"), 200, 200, True),
    "sends too much": (says_then(OK + b"EXTRA", then="silence"), 200, 200, False),
    "sends garbage": (says_then(b"\x00\x01\x02garbage\r\n\r\n", then="silence"), 502, 502, False),
    "answers before reading": (answers_before_reading, 403, 403, False),
}

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n%b\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n%b\r\nhello"


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault: str, method: str, kept: bool) -> None:
    script, for_get, for_post, cut = FAULTS[fault]
    timeouts = Timeouts(response=0.3, read=0.3, connect=0.3)
    with Front(timeouts=timeouts, retries=Retries(attempts=0)) as front, front.connect() as sock:
        if kept:  # the fault strikes on a connection that has served already
            sock.sendall(GET % b"")
            assert status_of(read_answer(sock)) == 200

            async def good_then_bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
                await read_request(reader)
                writer.write(OK)
                await script(reader, writer, origin)

            front.with_script(good_then_bad)
            sock.sendall(GET % b"")
            assert status_of(read_answer(sock)) == 200
        else:
            front.with_script(script)
        front.origin.requests.clear()
        sock.sendall((GET if method == "GET" else POST) % b"")
        answer = read_answer(sock)
        expected = for_get if method == "GET" else for_post
        if fault == "resets before an answer" and method == "GET" and kept:
            expected = 200  # most likely stale: an idempotent request is sent again, on a new connection
        assert status_of(answer) == expected, answer
        assert len(front.origin.requests) <= (2 if expected == 200 and not cut else 1), "asked once"
        if cut:
            assert b"<silence>" not in answer
            assert sock.recv(1) == b"", "a cut answer ends the connection"
        elif b"Connection: close" not in answer:
            front.with_script(answers_ok)
            sock.sendall(GET % b"")
            assert status_of(read_answer(sock)) == 200, "the connection serves on"
        until = time.monotonic() + 3
        while not front.at_rest():
            assert time.monotonic() < until, "something is still counted as under way"
            time.sleep(0.01)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_target_that_refuses(method: str) -> None:
    with Front(retries=Retries(attempts=1)) as front:
        front.call(front.origin.refuse)
        time.sleep(0.05)
        with front.connect() as sock:
            for _ in range(3):
                sock.sendall((GET if method == "GET" else POST) % b"")
                assert status_of(read_answer(sock)) == 502
        assert front.plane.stats.rejected == {"connect_refused": 3}
        assert front.alarms[0].kind == "refused"


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_fallback_takes_what_a_target_fails_with_its_last_breath(method: str, kept: bool) -> None:
    """The one target ends with a request in hand. Nobody has seen that yet, and the fallback has a ready target."""

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        for served in range(1 + kept):
            origin.requests.append(await read_request(reader))
            if served < kept:
                writer.write(OK)
        origin.refuse()

    with Front(origins=2) as front, front.connect() as sock:
        targets = tuple(replace(t, id=f"s/{n}/{t.port}", pool=n) for n, t in zip("pq", front.targets, strict=True))
        service = Service("s", tuple(Pool(target.pool, (target,)) for target in targets))
        weights = tuple((target.pool, ((target.id, 1.0),)) for target in targets)
        rotation = Rotation("s", 9, (("p", 100),), weights, fallback="q")
        snapshot = Snapshot(9, services=(service,), routes=(Route("s"),), rotations=(rotation,))
        front.call(lambda: front.plane.apply(replace(snapshot, access_log=AccessLog("off"))))
        front.origins[0].script = ends
        if kept:
            sock.sendall(GET % b"")
            assert status_of(read_answer(sock)) == 200
        sock.sendall((GET if method == "GET" else POST) % b"")
        assert status_of(read_answer(sock)) == (200 if method == "GET" else 502)
        assert len(front.origins[1].requests) == (method == "GET")
        sock.sendall((GET if method == "GET" else POST) % b"")
        assert status_of(read_answer(sock)) == 200, "it refuses connections: nothing was sent"
        assert front.call(lambda: front.plane.stats.pool_tally("s", "q").requests) == 1 + (method == "GET")
        assert front.at_rest()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_targets_that_close_idle_connections_at_random_cost_no_client_anything(method: str) -> None:
    """The third most repeated complaint about all peers; POSTs neither fail nor arrive twice."""
    rng = random.Random(5)

    async def fickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        patience = None  # with the first request of a connection: on a busy machine it comes much later than the accept
        while True:
            async with asyncio.timeout(patience) as idle:
                patience = rng.uniform(0.001, 0.03)
                head = await reader.readuntil(b"\r\n\r\n")
                idle.reschedule(None)
                body = await reader.readexactly(7) if head.startswith(b"POST") else head
                origin.requests.append(body)
                writer.write(OK)

    def client(number: int) -> list[int]:
        statuses = []
        with front.connect() as sock:
            for turn in range(100):
                body = b"%03d-%03d" % (number, turn)
                if method == "POST":
                    sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n" + body)
                else:
                    sock.sendall(GET % b"")
                statuses.append(status_of(read_answer(sock)))
                time.sleep(rng.choice([0, 0, 0.002, 0.01, 0.02]))
        return statuses

    for last in (False, False, True):
        with Front() as front:
            front.with_script(fickle)
            with ThreadPoolExecutor(8) as clients:
                statuses = [status for some in clients.map(client, range(8)) for status in some]
            if method == "POST":
                assert len(front.origin.requests) == len(set(front.origin.requests)), "never twice"
        if set(statuses) == {200}:
            assert len(front.origin.requests) >= 800
            return
        # On a machine that stands still for longer than the target waits, what broke off late looks like an answer
        # that failed, and a POST is given up rather than sent twice. Then once more.
        assert not last, statuses


def test_a_target_that_restarts_at_once_is_sent_no_post_again() -> None:
    """It closes idle connections after 30 ms, and restarts within a moment: it never refuses a connection. Seen by the
    model end to end."""
    bodies: list[bytes] = []
    restart = asyncio.Event()

    async def restarts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            async with asyncio.timeout(0.03):
                await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.readexactly(7))
            if bodies[-1] == b"short-b":
                await asyncio.sleep(0.05)
                restart.set()
            if bodies[-1].startswith((b"short", b"long")):
                await restart.wait()
                writer.transport.abort()
                return
            writer.write(OK)

    def post(sock: socket.socket, body: bytes) -> None:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n" + body)

    with Front() as front, front.connect() as one, front.connect() as other:
        front.with_script(restarts)
        for number in range(3):
            post(other, b"teach-%d" % number)
            assert status_of(read_answer(other)) == 200
            time.sleep(0.06)
        assert front.call(lambda: next(iter(front.plane.lanes.values())).idle_limit.learnt) > 0
        post(one, b"long-aa")
        eventually(lambda: b"long-aa" in bodies)
        time.sleep(0.15)  # it is under way for longer than a coincidence
        post(other, b"teach-9")
        assert status_of(read_answer(other)) == 200
        post(other, b"short-b")
        assert [status_of(read_answer(sock)) for sock in (one, other)] == [502, 502]
        assert len(bodies) == len(set(bodies)), "never twice"


def test_a_target_that_has_read_a_post_and_ends_is_sent_it_no_second_time() -> None:
    """It closes idle connections after 30 ms, works on a request for 50 ms, and restarts within a moment: no request
    that is under way for long says that it was no idle close. Seen by the model end to end."""
    bodies: list[bytes] = []

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            async with asyncio.timeout(0.03):
                await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.readexactly(7))
            if bodies[-1] == b"is-read":
                await asyncio.sleep(0.05)
                writer.transport.abort()
                return
            writer.write(OK)

    with Front() as front, front.connect() as sock:
        front.with_script(ends)
        for number in range(3):
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nteach-%d" % number)
            assert status_of(read_answer(sock)) == 200
            time.sleep(0.06)
        assert front.call(lambda: next(iter(front.plane.lanes.values())).idle_limit.learnt) > 0
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nis-read")
        assert status_of(read_answer(sock)) == 502
        assert bodies.count(b"is-read") == 1


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_faults_leak_neither_descriptors_nor_connections() -> None:
    """A thousand faults of every kind, and some clients that leave in the middle."""
    rng = random.Random(1)
    patient = ("accepts and hangs", "hangs within the head", "hangs within the body", "sends too much", "sends garbage")
    scripts = [script for name, (script, *_) in FAULTS.items() if name not in patient]  # those hold their end open

    async def any_fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await rng.choice([*scripts, answers_ok])(reader, writer, origin)

    timeouts = Timeouts(response=0.5, read=0.5)
    with Front(timeouts=timeouts, origins=2) as front:
        for origin in front.origins:
            origin.script = any_fault
        before = descriptors()
        for number in range(1000):
            with front.connect() as sock:
                sock.sendall((GET if number % 2 else POST) % b"")
                if number % 5:
                    read_answer(sock)
        until = time.monotonic() + 10
        while descriptors() > before or not front.at_rest():
            front.call(lambda: [lane.close_idle() for lane in front.plane.lanes.values()])
            assert time.monotonic() < until, f"{descriptors()} descriptors, {before} before"
            time.sleep(0.05)
        assert front.call(lambda: len(front.plane.clients)) == 0


# --- noise -----------------------------------------------------------------------------------------------------------

PIECES = [row.raw for row in TABLE if len(row.raw) < 400]


@pytest.fixture(scope="module")
def noisy() -> Front:
    front = Front(timeouts=Timeouts(response=0.5, read=0.5))
    return front.__enter__()  # for the whole module; its thread is a daemon


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=60)), min_size=1, max_size=5),
    st.lists(st.integers(0, 1500), max_size=5),
)
def test_noise_never_hangs_or_crosses_over(noisy: Front, pieces: list[bytes], cuts: list[int]) -> None:
    """Whatever one client sends, another one gets its own answer and nothing else."""
    raw = b"".join(pieces)
    mark = os.urandom(8).hex().encode()
    with noisy.connect() as bad, noisy.connect() as good:
        start = 0
        try:
            for cut in [*sorted(cut for cut in cuts if cut < len(raw)), len(raw)]:
                bad.sendall(raw[start:cut])
                start = cut
        except OSError:
            pass
        good.sendall(b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % mark)
        answer = read_answer(good)
        assert status_of(answer) == 200
        assert answer.endswith(b"\r\n\r\nok")
        assert good.recv(1) == b""
    mine = [request for request in noisy.origin.requests if mark in request]
    assert len(mine) == 1
    assert mine[0].startswith(b"GET /" + mark + b" HTTP/1.1\r\nHost: a\r\n")
    noisy.origin.requests.clear()


# --- connections that are given up while they are made ---------------------------------------------------------------


@pytest.mark.parametrize("ticks", range(6))
def test_a_connection_that_comes_just_too_late_leaves_nothing(ticks: int) -> None:
    uvloop.run(_just_too_late(ticks))


async def _just_too_late(ticks: int) -> None:
    """The loop stands still while a connection is made, and finds it made and too late at the same time."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    plane = DataPlane(worker=0, loop=loop, alarm=lambda alarm: None)
    target = Target("s/p/x", "s", "p", "127.0.0.1", server.sockets[0].getsockname()[1])
    service = Service("s", (Pool("p", (target,)),), timeouts=Timeouts(connect=0.02))
    plane.apply(Snapshot(1, services=(service,), routes=(Route("s"),), access_log=AccessLog("off")))
    [lane] = plane.lanes.values()
    client = Downstream(plane.live, plane.front, Listener("x"))
    exchange = Exchange(plane.live, client, RequestHead(b"GET", b"/", b"/", 1, b"a", RequestFields()))
    exchange.service = plane.services["s"]
    for _ in range(30):
        lease = lane.hold()
        lease.open(exchange, needs_new_connection=False, careful=False)
        lease.release()
    for _ in range(ticks):
        await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 - the point of it
    for _ in range(500):
        if not plane.connector.tasks:
            break
        await asyncio.sleep(0.01)
    lane.close_idle()
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert lane.active == 0
    assert not lane.connections
    plane.close()
    server.close()


def test_a_target_that_closes_at_once_is_a_failed_connect() -> None:
    """Nothing was sent, so a POST may go elsewhere; and it tells nothing about idle connections."""

    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        reset(writer)

    with Front(origins=2, timeouts=Timeouts(response=30.0)) as front:
        front.origins[0].script = closes
        began = time.monotonic()
        for _ in range(20):
            assert status_of(front.send(POST % b"Connection: close\r\n")) == 200
            front.call(lambda: [lane.close_idle() for lane in front.plane.lanes.values()])
        assert time.monotonic() - began < 25.0, "nobody waited for an answer that cannot come"
        assert len(front.origins[1].requests) == 20
