"""An answer's rate of bytes: held by not reading from the target, and none of the target's or the client's fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from lb.core.targets import BANDWIDTH, Bandwidth, StepRule, Timeouts
from tests.support.front import Front, Origin, read_request, with_listener
from tests.support.h2_client import Client

SIZE = 400_000


def paced(rate: int = 400_000, after: int = 0) -> tuple[StepRule, ...]:
    return (StepRule(BANDWIDTH, bandwidth=Bandwidth(rate, after)),)


async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Answers with a length, or in chunks to /chunked."""
    while True:
        request = await read_request(reader)
        body = b"x" * SIZE
        if b"/chunked" in request.split(b"\r\n")[0]:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(10):
                writer.write(b"%x\r\n%b\r\n" % (SIZE // 10, body[: SIZE // 10]))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + body)


def seconds(ask: Callable[[], bytes]) -> tuple[float, bytes]:
    began = time.monotonic()
    answer = ask()
    return time.monotonic() - began, answer


@pytest.mark.timing
@pytest.mark.parametrize("path", [b"/", b"/chunked"])
def test_an_answer_takes_its_time(path: bytes) -> None:
    request = b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with Front(steps=paced(), script=large) as front:
        took, answer = seconds(lambda: front.send(request))
        assert answer.count(b"x") >= SIZE
        assert 0.3 < took < 2.0, "what one read brings may be ahead"
        assert front.call(lambda: front.plane.stats.step_results(full=True)) == {"/": {"bandwidth": {"held": 1}}}
        assert front.at_rest()
        front.call(lambda: front.apply(steps=paced(after=SIZE)))
        took, _ = seconds(lambda: front.send(request))
        assert took < 0.3, "so much goes at full speed"


def test_a_wait_is_no_time_without_progress() -> None:
    """`timeouts.read` is shorter than the waits."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with Front(steps=paced(200_000), script=large, timeouts=Timeouts(read=0.3)) as front:
        assert front.send(request).count(b"x") == SIZE
        assert not front.alarms


def test_a_client_that_goes_away_while_it_waits() -> None:
    with Front(steps=paced(20_000), script=large) as front:
        with front.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(200):
            if front.at_rest():
                break
            time.sleep(0.01)
        assert front.at_rest()


def test_small_answers_are_not_held() -> None:
    with Front(steps=paced(1024)) as front:
        took, _ = seconds(lambda: front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        assert took < 1.0
        assert front.call(lambda: front.plane.stats.step_results(full=True)) == {}


@pytest.mark.timing
def test_over_http2() -> None:
    listener = with_listener(http2=True)
    with Front(steps=paced(), script=large, listener=listener) as front, Client(front) as client:
        began = time.monotonic()
        client.ask(1)
        status, _, body = client.answer(1)
        assert (status, len(body)) == (200, SIZE)
        assert 0.3 < time.monotonic() - began < 2.0
