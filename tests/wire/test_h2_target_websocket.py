"""WebSockets to targets that speak HTTP/2 (RFC 8441): extended CONNECT, both ways, refusals, ends and drains.

Numbers in brackets are the behaviours of tests/scenarios/http2.md.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb.http.h2.client_connection import STREAM_WINDOW
from lb.http.websocket import GOING_AWAY, GOING_AWAY_MASKED
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, Script, status_of, with_listener
from tests.support.h2_client import Client
from tests.support.h2_origin import Asked, Peer
from tests.support.h2_peer import GET

CONNECT_PROTOCOL = 8
KEY = b"MDEyMzQ1Njc4OWFiY2RlZg=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
HANDSHAKE = (
    b"GET /chat?a=b HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nOrigin: https://a.example\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
CONNECT = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:], ("sec-websocket-version", "13")]


def frame(payload: bytes) -> bytes:
    """A masked binary frame with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8, "big")
    return b"\x82" + length + bytes(4) + payload


class Echo:
    """A target that takes WebSockets on streams and sends back what comes. `status`: it answers with that."""

    def __init__(self, status: int = 200, settings: dict[int, int] | None = None) -> None:
        self.status = status
        self.settings = {CONNECT_PROTOCOL: 1} if settings is None else settings
        self.peer: Peer | None = None
        self.script: Script = self._script

    async def _script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        peer = self.peer = Peer(reader, writer, origin)
        await peer.greet(self.settings)
        begun: dict[int, int] = {}
        while True:
            for asked in await peer.read():
                if asked.stream not in begun:
                    begun[asked.stream] = 0
                    peer.head(asked.stream, ("sec-websocket-protocol", "chat"), status=self.status)
                    if self.status != 200:
                        peer.data(asked.stream, b"no", True)
                if self.status == 200 and asked.reset is None:
                    for at in range(begun[asked.stream], len(asked.body), 16384):
                        peer.data(asked.stream, asked.body[at : at + 16384])
                    begun[asked.stream] = len(asked.body)
                    if asked.ended:
                        peer.data(asked.stream, b"", True)

    @property
    def asked(self) -> list[Asked]:
        return list(self.peer.asked.values()) if self.peer is not None else []


def to(echo: Echo) -> Front:
    return Front(listener=with_listener(http2=True), http2=True, script=echo.script)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def front(echo: Echo) -> Iterator[Front]:
    with to(echo) as running:
        yield running


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(65536)):
        data += more
    return data


def opened(front: Front) -> socket.socket:
    """A WebSocket of an HTTP/1.1 client."""
    sock = front.connect()
    sock.sendall(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert status_of(head) == 101, head
    return sock


def over(front: Front) -> bool:
    return front.call(lambda: not front.plane.context.tunnels) and front.at_rest()


def test_the_handshake_becomes_an_extended_connect(front: Front, echo: Echo) -> None:
    with front.connect() as sock:
        sock.sendall(HANDSHAKE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
    assert status_of(head) == 101
    for line in (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT):
        assert b"\r\n" + line + b"\r\n" in head
    assert b"sec-websocket-protocol: chat\r\n" in head
    [asked] = echo.asked
    assert asked.fields[:5] == [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/chat?a=b"),
    ]
    assert asked["sec-websocket-version"] == "13"
    assert asked["sec-websocket-protocol"] == "chat"
    assert asked["origin"] == "https://a.example"
    assert not {"upgrade", "connection", "sec-websocket-key", "host"} & {name for name, _ in asked.fields}
    eventually(lambda: over(front))


def test_messages_of_all_sizes_pass_both_ways(front: Front) -> None:
    with opened(front) as sock:
        for size in (0, 1, 100, 1_000_000):
            sock.sendall(frame(bytes(size)))
            assert read(sock, len(frame(bytes(size)))) == frame(bytes(size))
    eventually(lambda: over(front))


def test_a_client_of_http2_as_well(front: Front, echo: Echo) -> None:
    with Client(front) as client:
        client.ask(1, CONNECT, end=False)
        client.until(lambda: client.heads.get(1))
        fields = dict(client.heads[1][0])
        assert fields[":status"] == "200"
        assert "sec-websocket-accept" not in fields
        client.send(client.frames.data(1, frame(b"hello")))
        client.until(lambda: client.body(1) == frame(b"hello"))
        client.send(client.frames.data(1, b"", True))
        client.until(lambda: any(f.stream_id == 1 and "END_STREAM" in f.flags for f in client.got))
        eventually(lambda: echo.asked[0].ended)
    eventually(lambda: over(front))


def test_many_share_one_connection_and_its_requests_go_on(front: Front, echo: Echo) -> None:
    socks = [opened(front) for _ in range(20)]
    for number, sock in enumerate(socks):
        sock.sendall(frame(b"%d" % number))
        assert read(sock, len(frame(b"%d" % number))) == frame(b"%d" % number)
    assert front.origin.connections == 1
    for sock in socks:
        sock.close()
    eventually(lambda: over(front))


def test_a_target_that_refuses_is_passed_on() -> None:
    with to(Echo(status=403)) as front:
        answer = front.send(HANDSHAKE)
        assert status_of(answer) == 403
        assert b"no" in answer.partition(b"\r\n\r\n")[2]
        eventually(front.at_rest)


@pytest.mark.parametrize("origins", [1, 20])
@pytest.mark.parametrize("settings", [{}, {CONNECT_PROTOCOL: 0}])
def test_targets_that_offer_none(settings: dict[int, int], origins: int) -> None:
    echo = Echo(settings=settings)
    listener = with_listener(http2=True)
    with Front(listener=listener, http2=True, script=echo.script, origins=origins) as front:
        answer = front.send(HANDSHAKE)
        assert status_of(answer) == 502
        assert b"RFC 8441" in answer
        with Client(front) as client:
            client.ask(1, CONNECT, end=False)
            client.until(lambda: client.heads.get(1))
            assert client.heads[1][0][0] == (":status", "502")
        assert not echo.asked
        eventually(front.at_rest)


@pytest.mark.parametrize("number", [6, 300])
def test_the_one_target_that_takes_websockets_is_found(number: int) -> None:
    """Whatever `retries.attempts` says: the other ones are sent nothing."""
    echo, other = Echo(), Echo(settings={})
    with Front(listener=with_listener(http2=True), http2=True, script=other.script, origins=number) as front:
        front.origins[-1].script = echo.script
        for count in range(1, 4):
            with opened(front) as sock:
                sock.sendall(frame(b"hello"))
                assert read(sock, len(frame(b"hello"))) == frame(b"hello")
            assert len(echo.asked) == count
        assert not other.asked
        eventually(lambda: over(front))


def test_a_target_that_refuses_connections_behind_many_that_take_no_websocket() -> None:
    """Those do not count among the tries."""
    echo, other = Echo(), Echo(settings={})
    with Front(listener=with_listener(http2=True), http2=True, script=other.script, origins=6) as front:
        front.origins[-1].script = echo.script
        front.call(front.origins[-2].refuse)
        for _ in range(6):
            opened(front).close()
        assert len(echo.asked) == 6
        assert not other.asked
        eventually(lambda: over(front))


def test_a_client_that_goes_ends_the_stream(front: Front, echo: Echo) -> None:
    with opened(front):
        pass
    eventually(lambda: echo.asked[0].ended or echo.asked[0].reset is not None)
    eventually(lambda: over(front))


@pytest.mark.parametrize("ends", [True, False])
def test_a_target_that_ends_or_resets_the_stream_ends_the_websocket(front: Front, echo: Echo, ends: bool) -> None:
    with opened(front) as sock:
        peer, stream = echo.peer, echo.asked[0].stream
        assert peer is not None
        front.call(lambda: peer.data(stream, b"", True) if ends else peer.reset(stream, 8))
        assert read(sock, 1) == b""
    eventually(lambda: over(front))


def test_a_target_whose_connection_breaks_off(front: Front, echo: Echo) -> None:
    with opened(front) as sock:
        peer = echo.peer
        assert peer is not None
        front.call(peer.writer.close)
        assert read(sock, 1) == b""
    eventually(lambda: over(front))


def test_goaway_of_the_target_leaves_the_websocket(front: Front, echo: Echo) -> None:
    with opened(front) as sock:
        peer = echo.peer
        assert peer is not None
        front.call(lambda: peer.goaway(1))
        with opened(front) as second:
            for each in (sock, second):
                each.sendall(frame(b"still here"))
                assert read(each, len(frame(b"still here"))) == frame(b"still here")
        assert front.origin.connections == 2
    eventually(lambda: over(front))


def test_a_drain_sends_close_frames_to_both_sides(front: Front, echo: Echo) -> None:
    with opened(front) as sock:
        [lane] = front.call(lambda: list(front.plane.lanes.values()))
        front.call(lambda: lane.drain(True, front.plane.context.now))
        assert read(sock, len(GOING_AWAY)) == GOING_AWAY
        eventually(lambda: echo.asked[0].body.endswith(GOING_AWAY_MASKED))
    eventually(lambda: over(front))


def test_a_client_that_reads_nothing_stops_the_target(front: Front, echo: Echo) -> None:
    """The stream's window is its backpressure."""
    with opened(front) as sock:
        peer, stream = echo.peer, echo.asked[0].stream
        assert peer is not None
        sent = 0
        piece = frame(bytes(16000))
        while has_room(front, peer, stream, sent):
            front.call(lambda: peer.data(stream, piece))
            sent += len(piece)
            assert sent < 50_000_000
        assert read(sock, sent) == piece * (sent // len(piece))
    eventually(lambda: over(front))


def has_room(front: Front, peer: Peer, stream: int, sent: int) -> bool:
    """Whether the stream's window lets a frame through, or does so soon."""
    room = lambda: front.call(lambda: peer.updates(stream)) + STREAM_WINDOW - sent >= 16384  # noqa: E731
    try:
        eventually(room, 0.5)
    except AssertionError:
        return False
    return True


NODE = """
const http2 = require('http2');
const server = http2.createServer({settings: {enableConnectProtocol: true}});
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':method'] !== 'CONNECT') { stream.respond({':status': 200}); stream.end('plain'); return; }
  stream.respond({':status': 200, 'x-protocol': headers[':protocol']});
  stream.pipe(stream);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


def test_node_as_the_target(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    script = tmp_path / "server.js"
    script.write_text(NODE)
    process = subprocess.Popen(["node", str(script)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with Front(listener=with_listener(http2=True), http2=True, ports=(port,)) as front:
            with opened(front) as sock:
                sock.sendall(frame(bytes(300_000)))
                assert read(sock, len(frame(bytes(300_000)))) == frame(bytes(300_000))
                assert front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"plain\r\n0\r\n\r\n")
            eventually(lambda: over(front))
    finally:
        process.kill()
        process.wait(10)
