"""WebSockets on streams of HTTP/2 (RFC 8441), over sockets: the handshake down to HTTP/1, both ways, ends, drains.

Numbers in brackets are the behaviours of tests/scenarios/http2.md.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
from collections.abc import Iterator

import h2.connection
import h2.events
import h2.settings
import pytest
from hyperframe.frame import SettingsFrame

from lb.core.targets import Timeouts
from lb.http.websocket import GOING_AWAY, GOING_AWAY_MASKED
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, answers, read_request, with_listener
from tests.support.h2_client import Client
from tests.support.h2_peer import GET, POST, raw
from tests.wire.http2 import CANCEL, H2C, RST, silent, update

CONNECT = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:], ("sec-websocket-version", "13")]
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(payload: bytes) -> bytes:
    """A masked binary frame with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x82" + length + bytes(4) + payload


def switch_for(head: bytes) -> bytes:
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")).split(b" ")[1]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: b\r\n"
        b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """Accepts WebSockets and sends back what comes; answers other requests with 200."""
    while True:
        head = await read_request(reader)
        origin.requests.append(head)
        if b"upgrade: websocket" in head.lower():
            break
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    writer.write(switch_for(head))
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest.fixture
def front() -> Iterator[Front]:
    with Front(listener=H2C) as running:
        running.with_script(echoes)
        yield running


def opened(client: Client, stream: int = 1) -> dict[str, str]:
    client.ask(stream, CONNECT, end=False)
    client.until(lambda: client.heads.get(stream))
    [head] = client.heads[stream]
    assert head[0] == (":status", "200")
    return dict(head[1:])


def say(client: Client, stream: int, payload: bytes) -> None:
    """Send a message, and read it back."""
    had = len(client.body(stream))
    client.send(client.frames.data(stream, frame(payload)))
    client.until(lambda: client.body(stream)[had:] == frame(payload))


def no_tunnels(front: Front) -> bool:
    return front.call(lambda: not front.plane.context.tunnels) and front.at_rest()


def test_it_is_offered(client: Client) -> None:
    client.until(lambda: client.greeted)
    offered = next(f for f in client.got if isinstance(f, SettingsFrame) and "ACK" not in f.flags)
    assert offered.settings[8] == 1


def test_the_handshake_becomes_one_of_http_1(front: Front, client: Client) -> None:
    """[19] With a key of lb's: what a client says of one means nothing on HTTP/2."""
    client.ask(1, [*CONNECT, ("sec-websocket-key", "theirs"), ("sec-websocket-protocol", "chat")], end=False)
    client.until(lambda: client.heads.get(1))
    request = front.origin.requests[0].lower()
    assert request.startswith(b"get / http/1.1\r\nhost: a.example\r\n")
    assert request.count(b"sec-websocket-key: ") == 1
    assert b"theirs" not in request
    for line in (b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13", b"via: 2.0 lb"):
        assert b"\r\n" + line + b"\r\n" in request
    assert b"transfer-encoding" not in request
    fields = dict(client.heads[1][0])
    assert fields["sec-websocket-protocol"] == "chat"
    assert fields["x-a"] == "b"
    assert not {"sec-websocket-accept", "upgrade", "connection"} & set(fields)
    assert fields["x-request-id"]


def test_each_has_a_key_of_its_own(front: Front, client: Client) -> None:
    for stream in (1, 3, 5):
        opened(client, stream)
    keys = {line for request in front.origin.requests for line in request.split(b"\r\n") if b"-Key: " in line}
    assert len(keys) == 3


def test_messages_both_ways_beside_other_requests(front: Front, client: Client) -> None:
    opened(client)
    sent = b""
    for stream, payload in zip(range(3, 30, 2), (b"foo", bytes(48 << 10), os.urandom(16 << 10)) * 5, strict=False):
        client.ask(stream)
        sent += frame(payload)
        for at in range(0, len(frame(payload)), 16384):
            client.send(client.frames.data(1, frame(payload)[at : at + 16384]))
        assert client.answer(stream)[0] == 200
    client.until(lambda: client.body(1) == sent)
    client.send(client.frames.data(1, b"", end=True))
    client.until(lambda: client.ended(1))
    eventually(lambda: no_tunnels(front))
    assert client.reset(1) is None


def test_bytes_before_the_101_are_held_for_it(front: Front, client: Client) -> None:
    """[20b]"""
    client.send(client.frames.headers(1, CONNECT, False), client.frames.data(1, frame(b"early")))
    client.until(lambda: client.body(1) == frame(b"early"))


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"302 Found"])
def test_a_target_that_does_not_switch_gets_none_of_them(front: Front, client: Client, status: bytes) -> None:
    """[19, 20b]"""
    front.with_script(answers(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno"))
    client.send(client.frames.headers(1, CONNECT, False), client.frames.data(1, b"GET /admin HTTP/1.1\r\n\r\n"))
    got, _, body = client.answer(1)
    assert (got, body) == (int(status[:3]), b"no")
    client.ask(3)
    client.answer(3)
    assert not any(b"admin" in request for request in front.origin.requests)


def test_a_target_that_accepts_another_key_is_refused(front: Front, client: Client) -> None:
    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await read_request(reader)
        writer.write(switch_for(b"Sec-WebSocket-Key: another"))
        await reader.read()

    front.with_script(wrong)
    client.ask(1, CONNECT, end=False)
    assert client.answer(1)[0] == 502


def test_the_targets_end_ends_the_stream(front: Front, client: Client) -> None:
    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        writer.write(switch_for(await read_request(reader)) + b"\x82\x03bye")

    front.with_script(closes)
    client.ask(1, CONNECT, end=False)
    assert client.answer(1)[2] == b"\x82\x03bye"
    eventually(lambda: no_tunnels(front))
    client.ask(3)
    client.until(lambda: client.heads.get(3))  # the connection goes on


def test_a_reset_of_the_client_ends_the_targets_connection(front: Front, client: Client) -> None:
    opened(client)
    client.send(raw(RST, 0, 1, CANCEL))
    eventually(lambda: no_tunnels(front))


def test_a_reset_before_the_101(front: Front, client: Client) -> None:
    front.with_script(silent())
    client.ask(1, CONNECT, end=False)
    eventually(lambda: front.origin.requests)
    client.send(raw(RST, 0, 1, CANCEL))
    eventually(front.at_rest)


def test_a_lost_connection_ends_all_of_its_tunnels(front: Front) -> None:
    with Client(front) as client:
        for stream in (1, 3, 5):
            opened(client, stream)
    eventually(lambda: no_tunnels(front))


def test_a_client_that_takes_nothing_stops_the_target(front: Front) -> None:
    sent = 0

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        nonlocal sent
        writer.write(switch_for(await read_request(reader)))
        while True:
            writer.write(b"\x82\x7f" + (60_000).to_bytes(8, "big") + bytes(60_000))
            await writer.drain()
            sent += 60_010

    front.with_script(floods)
    with Client(front, window=1000) as client:
        opened(client)
        client.ask(3, GET)  # it waits for nothing of the other stream
        held: list[int] = []

        def stands() -> bool:
            held.append(sent)
            return len(held) > 10 and held[-10] == sent

        eventually(stands, within=20)
        assert sent < 16 << 20
        waits = front.call(lambda: [each.wire.pending_size for each in front.plane.front.multiplexed])
        assert waits[0] < 1 << 20
        client.send(update(1, 1 << 20))
        client.until(lambda: len(client.body(1)) > 1 << 20)


@pytest.mark.timing
def test_a_client_that_takes_nothing_at_all_has_an_end() -> None:
    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        writer.write(switch_for(await read_request(reader)) + b"\x82\x7f" + (1 << 30).to_bytes(8, "big"))
        while True:
            writer.write(bytes(60_000))
            await writer.drain()

    with Front(listener=with_listener(http2=True, send_timeout=0.5)) as front:
        front.with_script(floods)
        with Client(front, window=1000) as client:
            opened(client)
            client.until(lambda: client.reset(1) == 8, within=10)
            eventually(lambda: no_tunnels(front))


@pytest.mark.timing
def test_an_idle_tunnel_is_closed() -> None:
    with Front(listener=H2C, timeouts=Timeouts(tunnel=0.3)) as front:
        front.with_script(echoes)
        with Client(front) as client:
            opened(client)
            client.until(lambda: client.ended(1))
            eventually(lambda: no_tunnels(front))


def test_a_drain_tells_the_websocket_and_only_then_the_connection(front: Front, client: Client) -> None:
    """[28] Firefox drops a connection with its WebSockets when it is sent GOAWAY."""
    opened(client)
    say(client, 1, b"hello")
    had = len(client.body(1))
    front.call(lambda: front.plane.drain(5.0))
    client.until(lambda: client.body(1)[had:] == GOING_AWAY)
    assert not client.goaways
    client.send(client.frames.data(1, GOING_AWAY_MASKED, end=True))
    client.until(lambda: client.goaways)
    client.until(lambda: client.ended(1))


def test_a_removed_listener_leaves_the_websocket(front: Front, client: Client) -> None:
    """[28] A reload that takes the listener away."""
    opened(client)
    front.call(lambda: [each.close_after_next() for each in list(front.plane.clients)])
    say(client, 1, b"still here")
    client.ask(3)
    assert client.answer(3)[0] == 200
    assert not client.goaways
    client.send(raw(RST, 0, 1, CANCEL))
    client.until(lambda: client.goaways)


def test_the_worker_stops(front: Front, client: Client) -> None:
    opened(client)
    front.call(front.plane.close)
    client.until_closed()


def test_a_tunnel_with_python_h2(front: Front) -> None:
    """It knows the setting, and checks what it is sent."""
    with front.connect() as sock:
        peer = h2.connection.H2Connection()
        peer.initiate_connection()
        sock.sendall(peer.data_to_send())
        while peer.remote_settings.enable_connect_protocol != 1:
            peer.receive_data(sock.recv(65536))
        peer.send_headers(1, CONNECT)
        got = b""
        begun = False
        while got != frame(b"hello"):
            sock.sendall(peer.data_to_send())
            for event in peer.receive_data(_some(sock)):
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
                if isinstance(event, h2.events.ResponseReceived):
                    begun = True
                    peer.send_data(1, frame(b"hello"))
                elif isinstance(event, h2.events.DataReceived):
                    got += event.data
                    peer.acknowledge_received_data(event.flow_controlled_length, 1)
        assert begun
        peer.end_stream(1)
        sock.sendall(peer.data_to_send())
        ended = False
        while not ended:
            ended = any(isinstance(event, h2.events.StreamEnded) for event in peer.receive_data(_some(sock)))


def _some(sock: socket.socket) -> bytes:
    sock.settimeout(5)
    data = sock.recv(65536)
    assert data
    return data


def test_an_upgrade_field_is_still_malformed(client: Client) -> None:
    client.ask(1, [*POST, ("upgrade", "websocket")])
    client.until(lambda: client.reset(1) == 1)
