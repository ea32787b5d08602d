"""Answers over a route's `max_response`: a 502 while nothing was passed on, else a cut, on both versions of HTTP."""

from __future__ import annotations

import asyncio

import pytest

from lb.core.guards import Compression
from lb.core.targets import COMPRESS, Retries, StepRule
from tests.support.front import Front, Origin, Script, answers, read_request, status_of, with_listener
from tests.support.h2_client import Client
from tests.support.h2_origin import Asked, Peer, speaks

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def sized(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)


def chunk(size: int) -> bytes:
    return b"%x\r\n" % size + bytes(size) + b"\r\n"


def in_pieces(*pieces: bytes) -> Script:
    """Sends these one after the other, each a moment after the one before."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)

    return script


def counts(front: Front) -> tuple[int, int]:
    """(answers of this reason, the step's count)."""
    steps = front.plane.stats.step_results(full=True).get("/", {}).get("response_limit", {})
    return front.plane.stats.rejected.get("response_too_large", 0), steps.get("response_too_large", 0)


@pytest.mark.parametrize(
    "script", [answers(sized(1001)), in_pieces(sized(50_000)[:50]), answers(CHUNKED + chunk(1001) + b"0\r\n\r\n")]
)
def test_nothing_was_passed_on_yet(script: Script) -> None:
    with Front(script=script, max_response=1000, retries=Retries(2, statuses=(502,))) as front:
        answer = front.send(GET)
        assert status_of(answer) == 502
        assert b"longer than 1000 bytes" in answer
        assert counts(front) == (1, 1)
        assert len(front.origin.requests) == 1, "no other try"
        assert front.at_rest()
        assert not front.alarms
        front.with_script(answers(sized(3)))
        assert status_of(front.send(GET)) == 200


@pytest.mark.parametrize(
    "raw", [sized(1000), CHUNKED + chunk(600) + chunk(400) + b"0\r\n\r\n", UNTIL_CLOSE + bytes(1000)]
)
def test_an_answer_of_just_that_length_passes(raw: bytes) -> None:
    with Front(script=answers(raw, close=raw.startswith(UNTIL_CLOSE)), max_response=1000) as front:
        answer = front.send(GET, half_close=False)
        assert status_of(answer) == 200
        assert answer.count(b"\0") == 1000
        assert counts(front) == (0, 0)


def test_the_head_of_a_long_answer_passes() -> None:
    for line in (b"HEAD", b"GET"):
        status = b"200 OK" if line == b"HEAD" else b"304 Not Modified"
        raw = b"HTTP/1.1 " + status + b"\r\nContent-Length: 5000\r\n\r\n"
        with Front(script=answers(raw), max_response=1000) as front:
            assert status_of(front.send(line + GET[3:])) == int(status[:3])


@pytest.mark.parametrize(
    "pieces",
    [
        (CHUNKED + chunk(600), chunk(300), chunk(101), chunk(5)),
        (CHUNKED + chunk(600), chunk(401) + b"0\r\n\r\n"),
        (UNTIL_CLOSE + bytes(600), bytes(401)),
    ],
)
def test_a_longer_answer_is_cut(pieces: tuple[bytes, ...]) -> None:
    with Front(script=in_pieces(*pieces), max_response=1000) as front, front.connect() as sock:
        sock.sendall(GET)
        got = b""
        try:
            while more := sock.recv(65536):
                got += more
        except ConnectionResetError:
            pass
        assert status_of(got) == 200
        assert not got.endswith(b"0\r\n\r\n"), "it does not look whole"
        assert 600 <= got.count(b"\0") <= 1000
        assert counts(front) == (1, 1)
        assert front.at_rest()


def test_over_http2() -> None:
    pieces = (CHUNKED + chunk(600), chunk(401))
    listener = with_listener(http2=True, http1=False)
    with Front(listener=listener, script=in_pieces(*pieces), max_response=1000) as front, Client(front) as client:
        client.ask(1)
        client.until(lambda: client.reset(1) is not None)
        assert len(client.body(1)) == 600
        front.with_script(answers(sized(1001)))
        client.ask(3)
        status, _, body = client.answer(3)
        assert (status, b"longer than 1000" in body) == (502, True)
        front.with_script(answers(sized(1000)))
        client.ask(5)
        assert client.answer(5)[0] == 200
        assert counts(front) == (2, 2)
        assert front.at_rest()


def test_targets_of_http2() -> None:
    """What has come behind a refused answer is not read as another one's, and its connection serves on."""

    async def answer(peer: Peer, asked: Asked) -> None:
        if asked[":path"] == "/long":
            peer.head(asked.stream, ("content-length", "5000"))
            peer.data(asked.stream, bytes(5000), True)
        elif asked[":path"] == "/ok":
            peer.answer(asked.stream, bytes(1000))
        else:
            peer.head(asked.stream)
            for _ in range(4):
                peer.data(asked.stream, bytes(300))
                await asyncio.sleep(0.05)
            peer.data(asked.stream, b"", True)

    listener = with_listener(http2=True)
    with Front(listener=listener, http2=True, script=speaks(answer), max_response=1000) as front:
        assert status_of(front.send(GET.replace(b"/ ", b"/long "))) == 502
        assert status_of(front.send(GET.replace(b"/ ", b"/ok "))) == 200
        cut = front.send(GET.replace(b"/ ", b"/cut "))
        assert status_of(cut) == 200
        assert not cut.endswith(b"0\r\n\r\n")
        with Client(front) as client:
            client.ask(1, with_path("/long"))
            assert client.answer(1)[0] == 502
            client.ask(3, with_path("/cut"))
            client.until(lambda: client.reset(3) is not None)
            client.ask(5, with_path("/ok"))
            assert client.answer(5)[0] == 200
        assert counts(front) == (4, 4)
        assert front.origin.connections == 1
        assert front.at_rest()


def with_path(path: str) -> list[tuple[str, str]]:
    return [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a.example")]


def test_it_counts_what_the_target_sends_and_not_what_is_compressed() -> None:
    step = StepRule(COMPRESS, compression=Compression(("text/*",), 100, ("gzip",)))
    typed = sized(1001).replace(b"200 OK\r\n", b"200 OK\r\nContent-Type: text/plain\r\n")
    with Front(script=answers(typed), max_response=1000, steps=(step,)) as front:
        request = GET[:-2] + b"Accept-Encoding: gzip\r\n\r\n"
        assert status_of(front.send(request)) == 502
        pieces = (CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n") + chunk(600), chunk(401))
        front.with_script(in_pieces(*pieces))
        answer = front.send(request)
        assert not answer.endswith(b"0\r\n\r\n")
        assert counts(front) == (2, 2)
        assert front.at_rest()
