"""How a tunnel ends, and what the access log says of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lb.proxy.h1.target import Upstream
from lb.proxy.tunnel import Tunnel
from tests.support.data_plane import QUIET, Client, Stage
from tests.support.fake_transport import FakeTransport

CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
TEXT = b"\x81\x82\x00\x00\x00\x00hi"


class Pipe:
    """A tunnel between two connections, and what came of it."""

    def __init__(self, websocket: bool = True) -> None:
        self.client, self.target = FakeTransport(), FakeTransport()
        self.ended: list[str] = []
        plane = Stage(targets=1).plane
        plane.context.now = 0.0
        client = Client()
        client.transport = self.client  # type: ignore[assignment]
        timeouts = SimpleNamespace(tunnel=10.0)
        exchange: Any = SimpleNamespace(
            client=client,
            service=SimpleNamespace(rules=SimpleNamespace(timeouts=timeouts)),
            on_tunnel_end=lambda bytes_in, bytes_out, reason: self.ended.append(reason),
        )
        lane = next(iter(plane.lanes.values()))
        upstream = Upstream(lane, QUIET)
        upstream.connection_made(self.target)  # type: ignore[arg-type]
        self.tunnel = Tunnel(plane.context, exchange, lane, upstream, websocket)
        self.tunnel.start(b"")


@pytest.mark.parametrize(("first", "reason"), [("target", "target_reset"), ("client", "client_gone")])
def test_a_websocket_that_breaks_off_without_a_word_has_a_reason(first: str, reason: str) -> None:
    pipe = Pipe()
    pipe.client.protocol.data_received(TEXT)
    assert pipe.target.written == TEXT
    gone, other = (pipe.target, pipe.client) if first == "target" else (pipe.client, pipe.target)
    gone.lose()
    assert other.closed
    assert not pipe.ended
    other.lose()
    assert pipe.ended == [reason]


@pytest.mark.parametrize("cut", range(1, len(CLOSE)))
def test_after_a_close_frame_it_is_an_end_like_any_other(cut: int) -> None:
    pipe = Pipe()
    pipe.client.protocol.data_received(TEXT + CLOSE[:cut])
    pipe.client.protocol.data_received(CLOSE[cut:])
    pipe.target.lose()
    pipe.client.lose()
    assert pipe.ended == [""]


def test_of_other_protocols_nothing_is_known() -> None:
    pipe = Pipe(websocket=False)
    pipe.target.lose()
    pipe.client.lose()
    assert pipe.ended == [""]


def test_what_lb_has_ended_itself_says_why() -> None:
    pipe = Pipe()
    pipe.tunnel.cut("drain_cut")
    pipe.client.lose()
    pipe.target.lose()
    assert pipe.ended == ["drain_cut"]


def test_bytes_that_came_while_the_worker_stood_still_count_as_of_now() -> None:
    """The plane's clock stands still with the worker: bytes that have just come are not as old as its last pass."""
    pipe = Pipe()
    pipe.client.protocol.data_received(TEXT)
    pipe.tunnel.on_tick(60.0)
    assert not pipe.client.closed
    pipe.tunnel.on_tick(69.0)
    assert not pipe.client.closed
    pipe.tunnel.on_tick(71.0)
    assert pipe.client.closed
    assert pipe.target.closed
