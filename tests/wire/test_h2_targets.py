"""HTTP/2 to targets, over sockets: requests up, answers back, streams, what is proved at an end, silence, windows.

Numbers in brackets are the behaviours of tests/scenarios/http2.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from hyperframe.frame import PingFrame

from lb.core.targets import Breaker, Pool, Retries, Rotation, Route, Service, Snapshot, Timeouts, TlsClient
from lb.http.h2 import client_connection
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, answers_ok, read_answer, status_of, with_listener
from tests.support.h2_client import Client
from tests.support.h2_origin import MAX_STREAMS, Asked, Handler, Peer, speaks
from tests.wire.messages import get

H2C = with_listener(http2=True)
CHUNKED = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def to_h2(
    handler: Handler | None = None, origins: int = 1, settings: dict[int, int] | None = None, **options: Any
) -> Front:
    script = speaks(handler, settings=settings)
    return Front(origins, listener=H2C, http2=True, script=script, **options)


@pytest.fixture
def front() -> Iterator[Front]:
    with to_h2() as running:
        yield running


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_request_of_http1_arrives_as_one_of_http2() -> None:
    seen: list[Asked] = []

    def keep(peer: Peer, asked: Asked) -> None:
        seen.append(asked)
        peer.answer(asked.stream)

    with to_h2(keep) as front:
        head = (
            b"GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\nX-Mixed: V\r\nConnection: X-Hop, TE\r\nX-Hop: 1\r\n"
            b"TE: trailers, gzip\r\nKeep-Alive: timeout=5\r\nCookie: a=1; b=2\r\n\r\n"
        )
        assert status_of(front.send(head)) == 200
    (asked,) = seen
    assert asked.fields[:4] == [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/x?y=1"),
    ]
    assert asked["x-mixed"] == "V"
    assert asked["te"] == "trailers"
    assert asked["cookie"] == "a=1; b=2"
    assert asked["x-forwarded-for"] == "127.0.0.1"
    assert asked["via"] == "1.1 lb"
    assert asked["x-request-id"]
    names = {name for name, _ in asked.fields}
    assert not names & {"connection", "x-hop", "keep-alive", "transfer-encoding", "host", "upgrade"}
    assert all(name == name.lower() for name in names)


def test_one_connection_serves_requests_of_both_protocols(front: Front) -> None:
    for _ in range(3):
        assert status_of(front.send(get(b"/"))) == 200
    with Client(front) as client:
        for stream in (1, 3, 5):
            client.ask(stream)
        for stream in (1, 3, 5):
            assert client.answer(stream)[::2] == (200, b"ok")
    assert front.origin.connections == 1
    assert len(front.origin.requests) == 6
    eventually(front.at_rest)


def test_a_body_with_a_length_and_one_in_chunks_with_trailers() -> None:
    seen: list[Asked] = []

    def keep(peer: Peer, asked: Asked) -> None:
        seen.append(asked)
        peer.answer(asked.stream)

    with to_h2(keep, trailers="pass") as front:
        assert status_of(front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")) == 200
        assert status_of(front.send(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")) == 200
    first, second = seen
    assert (first.body, first["content-length"], first.trailers) == (b"hello", "5", [])
    assert (second.body, second.get("content-length"), second.trailers) == (b"abcde", None, [("x-sum", "5")])


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 300_000])
def test_bodies_of_all_sizes_pass_both_ways(size: int) -> None:
    def echo(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream)
        body = asked.body
        for at in range(0, len(body), 16384):
            peer.data(asked.stream, body[at : at + 16384])
        peer.data(asked.stream, end=True)

    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with to_h2(echo) as front, front.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body)
        answer = read_chunked(sock)
    assert answer == body


def read_chunked(sock: socket.socket) -> bytes:
    """The payload of an answer in chunks."""
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        more = sock.recv(1 << 16)
        assert more, data[-100:]
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    payload = b""
    while True:
        line, _, rest = rest.partition(b"\r\n")
        length = int(line, 16)
        if not length:
            return payload
        payload, rest = payload + rest[:length], rest[length + 2 :]


def test_expect_100_continue_passes() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        peer = Peer(reader, writer, origin)
        await peer.greet()
        asked = await peer.request(ended=False)
        assert asked["expect"] == "100-continue"
        peer.head(asked.stream, status=100)
        await peer.request()
        assert asked.body == b"hello"
        peer.answer(asked.stream)
        await peer.read()

    with Front(listener=H2C, http2=True, script=script) as front, front.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"hello")
        assert status_of(read_answer(sock)) == 200


def test_a_websocket_is_refused_clearly(front: Front) -> None:
    answer = front.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    assert status_of(answer) == 502
    assert b"takes no WebSocket over it" in answer
    assert not front.origin.requests
    eventually(front.at_rest)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_trailers_and_interim_answers_reach_both_kinds_of_client() -> None:
    def tell(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream, ("link", "</a>; rel=preload"), status=103)
        peer.head(asked.stream, ("content-type", "text/plain"))
        peer.data(asked.stream, b"abc")
        peer.trailers(asked.stream, ("x-sum", "3"))

    with to_h2(tell) as front:
        with front.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer.partition(b"\r\n0\r\n")[2]:
                answer += sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 103 ")
        assert answer.endswith(b"3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n")
        with Client(front) as client:
            client.ask(
                1, [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("te", "trailers")]
            )
            assert client.answer(1)[2] == b"abc"
            interim, _, trailers = client.heads[1]
            assert interim[0] == (":status", "103")
            assert trailers == [("x-sum", "3")]


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_without_a_body(status: int, at_once: bool) -> None:
    def tell(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream, status=status, end=at_once)
        if not at_once:
            peer.data(asked.stream, end=True)

    with to_h2(tell) as front:
        for _ in range(3):
            answer = front.send(get(b"/"))
            assert status_of(answer) == status
            assert b"chunked" not in answer
        eventually(front.at_rest)
        assert front.origin.connections == 1


def test_head() -> None:
    def tell(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream, ("content-length", "77"), end=True)

    with to_h2(tell) as front:
        answer = front.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(answer) == 200
        assert b"content-length: 77\r\n" in answer


def test_an_empty_answer_without_a_length_is_one_frame() -> None:
    """[37] An answer of gRPC in trailers alone."""

    def tell(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream, ("content-type", "application/grpc"), ("grpc-status", "12"), end=True)

    with to_h2(tell) as front:
        with Client(front) as client:
            client.ask(1)
            status, fields, _ = client.answer(1)
            assert (status, fields["grpc-status"], "content-length" in fields) == (200, "12", False)
            assert len([frame for frame in client.got if frame.stream_id == 1]) == 1
        assert front.send(get(b"/")).endswith(b"0\r\n\r\n")


BAD = {
    "no status": [("x", "y")],
    "two": [(":status", "200"), (":status", "200")],
    "late": [("x", "y"), (":status", "200")],
    "another": [(":status", "200"), (":path", "/")],
    "odd": [(":status", "2x0")],
    "large": [(":status", "2000")],
    "101": [(":status", "101")],
    "upper": [(":status", "200"), ("X-Upper", "y")],
    "connection": [(":status", "200"), ("connection", "close")],
    "encoding": [(":status", "200"), ("transfer-encoding", "chunked")],
    "upgrade": [(":status", "200"), ("upgrade", "h2c")],
    "lengths": [(":status", "200"), ("content-length", "2"), ("content-length", "2")],
    "length": [(":status", "200"), ("content-length", "+2")],
    "newline": [(":status", "200"), ("x", "a\r\nb: c")],
    "space": [(":status", "200"), ("x", " a")],
    "name": [(":status", "200"), ("x y", "a")],
    "empty": [(":status", "200"), ("", "a")],
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_a_malformed_head_is_a_502_and_resets_its_stream(fields: list[tuple[str, str]]) -> None:
    """[22] The connection goes on."""
    codes: list[int | None] = []

    async def tell(peer: Peer, asked: Asked) -> None:
        if asked[":path"] == "/bad":
            peer.send(peer.frames.headers(asked.stream, fields, False))
            await peer.until(lambda: asked.reset is not None)
            codes.append(asked.reset)
        else:
            peer.answer(asked.stream)

    with to_h2(tell) as front:
        answer = front.send(get(b"/bad"))
        assert status_of(answer) == 502
        assert b"not valid HTTP" in answer
        assert status_of(front.send(get(b"/"))) == 200
        assert front.origin.connections == 1
    assert codes == [1]


@pytest.mark.parametrize("kind", ["long", "short", "at once"])
def test_a_body_of_another_length_is_no_answer(kind: str) -> None:
    def tell(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream, ("content-length", "3"), end=kind == "at once")
        if kind != "at once":
            peer.data(asked.stream, b"abcd" if kind == "long" else b"ab", True)

    with to_h2(tell) as front:
        answer = front.send(get(b"/"))
        assert b"abcd" not in answer
        assert status_of(answer) == 502
        eventually(front.at_rest)


def test_a_body_that_the_answer_does_not_have_is_thrown_away() -> None:
    """[23] As over HTTP/1, where it ends the connection."""
    seen: list[Asked] = []

    def tell(peer: Peer, asked: Asked) -> None:
        seen.append(asked)
        peer.head(asked.stream, status=204)
        peer.data(asked.stream, b"ab")

    with to_h2(tell) as front:
        answer = front.send(get(b"/"))
        assert status_of(answer) == 204
        assert not answer.endswith(b"ab")
        eventually(lambda: seen[0].reset == 1)


def test_an_answer_that_breaks_off_is_cut() -> None:
    """[21]"""

    async def tell(peer: Peer, asked: Asked) -> None:
        peer.head(asked.stream)
        peer.data(asked.stream, b"abc")
        await asyncio.sleep(0.05)
        peer.reset(asked.stream, 2)

    with to_h2(tell) as front:
        with Client(front) as client:
            client.ask(1)
            client.until(lambda: client.reset(1) is not None)
            assert client.reset(1) == 2
            assert not client.ended(1)
        answer = front.send(get(b"/"))
        assert b"abc" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        eventually(front.at_rest)


# --- streams and connections -----------------------------------------------------------------------------------------


def test_another_connection_is_opened_at_the_targets_limit() -> None:
    """[30]"""
    held: list[tuple[Peer, int]] = []

    def hold(peer: Peer, asked: Asked) -> None:
        held.append((peer, asked.stream))

    with to_h2(hold, settings={MAX_STREAMS: 2}) as front, Client(front) as client:
        for stream in (1, 3, 5, 7, 9):
            client.ask(stream)
        eventually(lambda: len(held) == 5)
        assert front.origin.connections == 3
        for peer, number in held:
            front.loop.call_soon_threadsafe(peer.answer, number)
        for stream in (1, 3, 5, 7, 9):
            assert client.answer(stream)[0] == 200
        eventually(front.at_rest)


def test_connections_that_are_refused_are_not_asked_for_again_and_again() -> None:
    """Several are being opened at one time, since the target allows few streams on each."""
    held: list[tuple[Peer, int]] = []

    def hold(peer: Peer, asked: Asked) -> None:
        held.append((peer, asked.stream))

    with to_h2(hold, settings={MAX_STREAMS: 1}, retries=Retries(0)) as front, Client(front) as client:
        client.ask(1)
        eventually(lambda: len(held) == 1)
        front.call(front.origin.refuse)
        for stream in (3, 5, 7, 9):
            client.ask(stream)
        for stream in (3, 5, 7, 9):
            assert client.answer(stream)[0] == 502
        assert front.call(lambda: next(iter(front.plane.lanes.values())).tally.connect_failures) <= 8
        (peer, number), *_ = held
        front.loop.call_soon_threadsafe(peer.answer, number)
        assert client.answer(1)[0] == 200
        eventually(front.at_rest)


def test_a_burst_opens_few_connections() -> None:
    with to_h2() as front, Client(front) as client:
        for stream in range(1, 161, 2):
            client.ask(stream)
        for stream in range(1, 161, 2):
            assert client.answer(stream)[0] == 200
        assert front.origin.connections == 1


def test_a_target_that_allows_no_streams_is_a_refusal() -> None:
    with to_h2(settings={MAX_STREAMS: 0}, retries=Retries(0)) as front:
        answer = front.send(get(b"/"))
        assert status_of(answer) == 502
        eventually(front.at_rest)


def test_a_target_that_speaks_http1_alone() -> None:
    """[35] Nothing of the request was sent."""
    with Front(listener=H2C, http2=True, script=answers_ok, retries=Retries(0)) as front:
        answer = front.send(get(b"/"))
        assert status_of(answer) == 502
        assert not [request for request in front.origin.requests if b"Host" in request]
        eventually(front.at_rest)


@pytest.mark.parametrize("chosen", ["h2", "http/1.1"])
def test_over_tls_http2_has_to_be_chosen(chosen: str, tmp_path: Path) -> None:
    """[35]"""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols([chosen])
    tls = TlsClient(ca_file=str(tmp_path / "ca.pem"))
    seen: list[Asked] = []

    def keep(peer: Peer, asked: Asked) -> None:
        seen.append(asked)
        peer.answer(asked.stream)

    with to_h2(keep, target_tls=tls, origin_tls=context, retries=Retries(0)) as front:
        answers = [status_of(front.send(get(b"/"))) for _ in range(2)]
        assert answers == ([200, 200] if chosen == "h2" else [502, 502])
        assert [asked[":scheme"] for asked in seen] == (["https", "https"] if chosen == "h2" else [])
        eventually(front.at_rest)


# --- ends ------------------------------------------------------------------------------------------------------------


def test_requests_beyond_the_last_one_of_a_goaway_go_elsewhere_whatever_their_method() -> None:
    """[31]"""

    def leave(peer: Peer, asked: Asked) -> None:
        if peer.origin.connections == 1:
            peer.goaway(0)
        else:
            peer.answer(asked.stream)

    with to_h2(leave) as front:
        for _ in range(2):
            assert status_of(front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")) == 200
        assert front.origin.connections == 2
        assert front.origin.requests == [b"POST /"] * 3
        eventually(front.at_rest)


def test_a_request_that_a_goaway_leaves_out_is_not_one_for_the_fallback() -> None:
    """The target has failed nothing, and takes the request on its next connection."""

    def leave(peer: Peer, asked: Asked) -> None:
        if peer.origin.connections == 1:
            peer.goaway(0)
        else:
            peer.answer(asked.stream)

    with to_h2(leave, origins=2) as front:
        targets = tuple(replace(t, id=f"s/{n}/{t.port}", pool=n) for n, t in zip("pq", front.targets, strict=True))
        service = Service("s", tuple(Pool(target.pool, (target,)) for target in targets))
        weights = tuple((target.pool, ((target.id, 1.0),)) for target in targets)
        rotation = Rotation("s", 9, (("p", 100),), weights, fallback="q")
        snapshot = Snapshot(9, services=(service,), routes=(Route("s"),), rotations=(rotation,))
        front.call(lambda: front.plane.apply(snapshot))
        assert status_of(front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")) == 200
        assert [origin.connections for origin in front.origins] == [2, 0]
        eventually(front.at_rest)


def test_requests_up_to_the_last_one_of_a_goaway_go_on() -> None:
    async def leave(peer: Peer, asked: Asked) -> None:
        peer.goaway((1 << 31) - 1)
        peer.goaway(asked.stream)
        await asyncio.sleep(0.05)
        peer.answer(asked.stream)
        await peer.until(lambda: peer.left)
        peer.writer.close()

    with to_h2(leave) as front:
        for number in (1, 2):
            assert status_of(front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")) == 200
            assert front.origin.connections == number
        eventually(lambda: front.origin.ended == 2)


def test_a_refused_stream_goes_elsewhere_whatever_its_method() -> None:
    """[32]"""
    refused: list[int] = []

    def refuse(peer: Peer, asked: Asked) -> None:
        if not refused:
            refused.append(asked.stream)
            peer.reset(asked.stream, 7)
        else:
            peer.answer(asked.stream)

    with to_h2(refuse, origins=2) as front:
        assert status_of(front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")) == 200
        assert sorted(len(origin.requests) for origin in front.origins) == [1, 1]
        eventually(front.at_rest)


@pytest.mark.parametrize("code", [0, 2, 8, 11, 13])
@pytest.mark.parametrize(("method", "tries"), [(b"GET", 2), (b"POST", 1)])
def test_any_other_reset_is_judged_by_the_method(code: int, method: bytes, tries: int) -> None:
    """[32]"""

    def reset(peer: Peer, asked: Asked) -> None:
        peer.reset(asked.stream, code)

    with to_h2(reset, origins=2, retries=Retries(1)) as front:
        assert status_of(front.send(method + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")) == 502
        assert sum(len(origin.requests) for origin in front.origins) == tries
        eventually(front.at_rest)


@pytest.mark.parametrize(("method", "tries"), [(b"GET", 2), (b"POST", 1)])
def test_a_connection_that_ends_is_judged_by_the_method(method: bytes, tries: int) -> None:
    def close(peer: Peer, asked: Asked) -> None:
        peer.writer.close()

    with to_h2(close, origins=2, retries=Retries(1)) as front:
        assert status_of(front.send(method + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")) == 502
        assert sum(len(origin.requests) for origin in front.origins) == tries
        eventually(front.at_rest)


def test_a_client_that_goes_away_resets_its_stream_alone() -> None:
    seen: list[Asked] = []

    def hold(peer: Peer, asked: Asked) -> None:
        seen.append(asked)
        if asked[":path"] == "/":
            peer.answer(asked.stream)

    with to_h2(hold) as front:
        with front.connect() as sock:
            sock.sendall(get(b"/hold"))
            eventually(lambda: seen)
        eventually(lambda: seen[0].reset == 8)
        assert status_of(front.send(get(b"/"))) == 200
        assert front.origin.connections == 1
        eventually(front.at_rest)


def test_a_request_that_takes_too_long_is_given_up_and_the_connection_kept() -> None:
    seen: list[Asked] = []

    def hold(peer: Peer, asked: Asked) -> None:
        seen.append(asked)
        if asked[":path"] == "/":
            peer.answer(asked.stream)

    with to_h2(hold, retries=Retries(0), timeouts=Timeouts(response=0.3)) as front:
        assert status_of(front.send(get(b"/hold"))) == 504
        eventually(lambda: seen[0].reset == 8)
        assert status_of(front.send(get(b"/"))) == 200
        assert front.origin.connections == 1


# --- windows ---------------------------------------------------------------------------------------------------------


def test_an_upload_waits_for_the_targets_window() -> None:
    """[33] What waits is bounded: the client is read no more."""
    opened: list[Peer] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        peer = Peer(reader, writer, origin, credit=False)
        opened.append(peer)
        await peer.greet()
        while True:
            await peer.read()

    with Front(listener=H2C, http2=True, script=script, timeouts=Timeouts(send=1.0)) as front:
        with front.connect() as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
            sock.settimeout(0.5)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 100_000_000:
                    sent += sock.send(bytes(65536))
            assert sent < 20_000_000
            assert len(opened[0].asked[1].body) == 65535
            sock.settimeout(5)
            assert status_of(read_answer(sock)) == 504
        eventually(front.at_rest)


def test_a_client_that_takes_nothing_stops_its_own_answer_alone() -> None:
    sent: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        peer = Peer(reader, writer, origin)
        await peer.greet()
        large = await peer.request()
        peer.head(large.stream)
        for _ in range(8):  # all of a stream's window
            peer.data(large.stream, bytes(16384))
            sent.append(16384)
        small = await peer.request(2)
        peer.answer(small.stream)
        await peer.until(lambda: False)

    with Front(listener=H2C, http2=True, script=script) as front:
        with Client(front, window=1000) as slow, Client(front) as quick:
            slow.ask(1)
            eventually(lambda: len(sent) == 8)
            quick.ask(1)
            assert quick.answer(1)[0] == 200
            assert len(slow.body(1)) <= 1000
        eventually(front.at_rest)


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers_pings", [True, False])
def test_a_silent_target_is_asked_whether_it_is_there(answers_pings: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """[34] A target that is there may take its time; one that is not fails its requests long before their timeout."""
    monkeypatch.setattr(client_connection, "SILENCE", 0.2)
    monkeypatch.setattr(client_connection, "PING_TIME", 1.2)
    seen: list[Asked] = []

    async def tell(peer: Peer, asked: Asked) -> None:
        peer.answer_pings = answers_pings
        if asked[":path"] == "/" and not seen:
            seen.append(asked)
            await peer.until(lambda: any(isinstance(frame, PingFrame) for frame in peer.got))
            if not answers_pings:
                return
            await asyncio.sleep(1.5)
        peer.answer(asked.stream)

    with to_h2(tell, origins=2) as front:
        assert status_of(front.send(get(b"/"), wait=10)) == 200
        assert sum(origin.connections for origin in front.origins) == (1 if answers_pings else 2)
        eventually(front.at_rest)


def test_a_connection_is_closed_when_it_has_been_idle_for_long() -> None:
    with to_h2(timeouts=Timeouts(idle=0.5)) as front:
        assert status_of(front.send(get(b"/"))) == 200
        eventually(lambda: front.origin.ended == 1)
        assert status_of(front.send(get(b"/"))) == 200


def test_a_connection_ends_at_its_greatest_age() -> None:
    with to_h2(timeouts=Timeouts(lifetime=0.5)) as front:
        assert status_of(front.send(get(b"/"))) == 200
        eventually(lambda: front.origin.ended == 1)
        assert status_of(front.send(get(b"/"))) == 200


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_bound_of_connections_bounds_streams() -> None:
    """Requests over it wait in the pool's queue, as for HTTP/1."""
    under_way: list[int] = []
    most: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        peer = Peer(reader, writer, origin)
        await peer.greet()
        while True:
            for asked in await peer.read():
                under_way.append(asked.stream)
                most.append(len(under_way))
                asyncio.get_running_loop().call_later(0.03, finish, peer, asked.stream)

    def finish(peer: Peer, number: int) -> None:
        under_way.remove(number)
        peer.answer(number)

    with Front(listener=H2C, http2=True, script=script, breaker=Breaker(connections=2)) as front:
        with Client(front) as client:
            for stream in range(1, 21, 2):
                client.ask(stream)
            for stream in range(1, 21, 2):
                assert client.answer(stream)[0] == 200
        assert max(most) == 2
        eventually(front.at_rest)


def test_a_drained_target_ends_its_connections_with_the_last_request() -> None:
    held: list[tuple[Peer, int]] = []

    def hold(peer: Peer, asked: Asked) -> None:
        held.append((peer, asked.stream))

    with to_h2(hold) as front, Client(front) as client:
        client.ask(1)
        eventually(lambda: held)
        lane = next(iter(front.plane.lanes.values()))
        front.call(lambda: lane.drain(True, front.plane.context.now))
        assert front.origin.ended == 0
        front.call(lambda: held[0][0].answer(held[0][1]))
        assert client.answer(1)[0] == 200
        eventually(lambda: front.origin.ended == 1)
