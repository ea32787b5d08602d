"""What the peers' own test suites pin down and the other files here do not; tests/scenarios/messages.md is the map."""

from __future__ import annotations

import asyncio
import time

import pytest

from lb.core.targets import Breaker, Retries, Timeouts
from tests.support.eventually import eventually
from tests.support.front import OK, Front, Origin, Script, answers, read_all, read_answer, read_request, status_of
from tests.wire.messages import get

GET = get(b"/")


def says(status: bytes, extra: bytes = b"") -> Script:
    """A target that answers everything with this status."""
    return answers(b"HTTP/1.1 " + status + b" X\r\n" + extra + b"Content-Length: 0\r\n\r\n")


def stop_listening(front: Front, origin: Origin) -> None:
    """From now on this target refuses connections."""
    front.call(origin.refuse)


# --- what follows a close --------------------------------------------------------------------------------------------


def test_bytes_behind_connection_close_are_never_sent_on() -> None:
    with Front() as front:
        with front.connect() as sock:
            sock.sendall(get(b"/last", b"Connection: close\r\n") + get(b"/behind") + get(b"/behind"))
            answer = read_all(sock)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert [request.split(b" ")[1] for request in front.origin.requests] == [b"/last"]


def test_a_chunk_header_split_over_packets() -> None:
    with Front() as front, front.connect() as sock:
        for piece in (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chu",
            b"nked\r\n\r\n1",
            b"0\r",
            b"\n",
            b"x" * 16,
        ):
            sock.sendall(piece)
            time.sleep(0.01)  # so that they are packets of their own
        sock.sendall(b"\r\n0\r\n\r\n")
        assert status_of(read_answer(sock)) == 200
        assert front.origin.requests[0].endswith(b"\r\n\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n")


def test_the_last_answers_of_a_draining_worker_say_so() -> None:
    """A request under way is finished, and its answer carries Connection: close."""
    gate = asyncio.Event()

    async def gated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        await gate.wait()
        writer.write(OK)

    with Front() as front, front.connect() as sock:
        front.with_script(gated)
        sock.sendall(GET)
        eventually(lambda: front.origin.requests)
        front.call(lambda: front.plane.drain(5.0))
        front.loop.call_soon_threadsafe(gate.set)
        answer = read_answer(sock)
        assert status_of(answer) == 200
        assert b"Connection: close\r\n" in answer
        assert sock.recv(1) == b""


# --- trying again ----------------------------------------------------------------------------------------------------


def test_listed_statuses_go_to_another_target_and_leave_no_trace() -> None:
    with Front(origins=2, retries=Retries(statuses=(502, 503))) as front:
        front.origins[0].script = says(b"503", b"X-Failed: yes\r\nRetry-After: 9\r\n")
        for _ in range(6):
            answer = front.send(GET)
            assert status_of(answer) == 200
            assert b"X-Failed" not in answer
            assert b"Retry-After" not in answer
        assert len(front.origins[1].requests) == 6
        assert len(front.origins[0].requests) >= 2


@pytest.mark.parametrize("status", [b"404", b"500", b"504"])
def test_other_statuses_are_passed_on(status: bytes) -> None:
    with Front(origins=2, retries=Retries(statuses=(502, 503))) as front:
        for origin in front.origins:
            origin.script = says(status)
        assert status_of(front.send(GET)) == int(status)
        assert sum(len(origin.requests) for origin in front.origins) == 1


def test_when_all_have_failed_the_targets_own_answer_is_shown() -> None:
    with Front(origins=2, retries=Retries(statuses=(502, 503))) as front:
        for origin in front.origins:
            origin.script = says(b"503", b"X-Mine: yes\r\n")
        answer = front.send(GET)
        assert status_of(answer) == 503
        assert b"X-Mine: yes\r\n" in answer
        assert [len(origin.requests) for origin in front.origins] == [1, 1]


@pytest.mark.parametrize("attempts", [0, 1, 2])
def test_the_number_of_tries_is_kept(attempts: int) -> None:
    async def takes_and_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))

    with Front(origins=4, retries=Retries(attempts=attempts)) as front:
        for origin in front.origins:
            origin.script = takes_and_closes
        assert status_of(front.send(GET)) == 502
        assert sorted(len(origin.requests) for origin in front.origins) == [0] * (3 - attempts) + [1] * (attempts + 1)


def test_a_post_with_an_idempotency_key_may_be_tried_again() -> None:
    async def takes_and_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))

    with Front(origins=2) as front:
        front.origins[0].script = takes_and_closes
        for number in range(4):
            raw = b"POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k%d\r\nContent-Length: 2\r\n\r\nhi" % number
            assert status_of(front.send(raw)) == 200
        assert len(front.origins[1].requests) == 4


@pytest.mark.parametrize("size", [5, 1 << 20])
def test_a_body_that_met_a_refusing_target_goes_whole_to_the_next(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            origin.requests.append(await reader.readexactly(size))
            writer.write(OK)

    with Front(origins=2) as front:
        front.with_script(reads)
        stop_listening(front, front.origins[0])
        for _ in range(3):
            assert (
                status_of(front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body)) == 200
            )
        assert front.origins[1].requests == [body] * 3


# --- connections to targets ------------------------------------------------------------------------------------------


def test_an_idle_connection_to_a_target_is_closed_in_time() -> None:
    with Front(timeouts=Timeouts(idle=0.3)) as front:
        assert status_of(front.send(GET)) == 200
        assert front.origin.ended == 0
        eventually(lambda: front.origin.ended == 1, 5.0)
        assert status_of(front.send(GET)) == 200
        assert front.origin.connections == 2


def test_what_was_in_use_at_once_is_kept_up_to_the_bound_of_connections() -> None:
    gate = asyncio.Event()

    async def gated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await read_request(reader))
            await gate.wait()
            writer.write(OK)

    def idle(front: Front) -> list[int]:
        return front.call(lambda: [len(lane.idle) for lane in front.plane.lanes.values()])

    with Front(timeouts=Timeouts(connect=30.0, queue=30.0)) as front:  # nothing is tried twice on a busy machine
        front.with_script(gated)
        clients = [front.connect() for _ in range(300)]
        for client in clients:
            client.sendall(GET)
        eventually(lambda: len(front.origin.requests) == 300)
        front.loop.call_soon_threadsafe(gate.set)
        assert {status_of(read_answer(client)) for client in clients} == {200}
        assert front.origin.connections == 300
        assert idle(front) == [300], "the next 300 at once need them again"
        front.call(lambda: front.apply(breaker=Breaker(connections=3)))
        assert status_of(front.send(GET)) == 200
        eventually(lambda: front.origin.ended == 297, 5.0)
        assert idle(front) == [3]
        for client in clients:
            client.close()


def test_an_answer_in_single_bytes_arrives_whole() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            await read_request(reader)
            for byte in raw:
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)

    with Front() as front, front.connect() as sock:
        front.with_script(drips)
        for _ in range(3):
            sock.sendall(GET)
            assert read_answer(sock).endswith(b"2\r\nok\r\n0\r\n\r\n")
        assert front.origin.connections == 1
