"""Tunnel: after a 101 the client's and the target's connection are one pipe, with backpressure and an idle limit.

A WebSocket tunnel has to go when its target is drained or the worker stops. It is ended with a close frame 1001 to both
sides, put between two frames. Any other tunnel is closed when its time is over. A side may take nothing of what the
other one sends for as long as an answer or a request's body might wait for it. Then the tunnel ends (nginx does the
same).
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from lb.http.websocket import GOING_AWAY, GOING_AWAY_MASKED, Frames
from lb.proxy.sending import CLOSE_TIME, Sending

if TYPE_CHECKING:
    from lb.core.targets import Service
    from lb.proxy.client_stream import ClientStream
    from lb.proxy.context import Context
    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import TargetStream

#: Seconds that both sides have to finish their closing handshake after 1001.
GOODBYE_TIME: Final = 5.0


class ServiceRules(Protocol):
    """The service of a tunnel. A reload may give it other rules."""

    @property
    def rules(self) -> Service: ...


class Tunnelled(Protocol):
    """The exchange that has become a tunnel."""

    @property
    def client(self) -> ClientStream: ...

    @property
    def service(self) -> ServiceRules: ...

    def on_tunnel_end(self, bytes_in: int, bytes_out: int, reason: str) -> None: ...


class Tunnel:
    """Two connections tied together for the rest of their life."""

    def __init__(
        self, context: Context, exchange: Tunnelled, lane: Lane, upstream: TargetStream, websocket: bool
    ) -> None:
        self.context = context
        self.exchange = exchange
        self.lane = lane
        self.upstream = upstream
        self.websocket = websocket
        self.last_byte = self.context.now  # the pass that last saw bytes move
        self.moved = False  # bytes have come since the last pass
        self.close_frame_at = 0.0  # when to send 1001; 0: not to be closed
        self.closes_at = 0.0  # when to cut, after the close frame
        self.reason = ""
        down, up = exchange.client.transport, upstream.transport
        self.client_end = _End(self, down, GOING_AWAY)
        self.target_end = _End(self, up, GOING_AWAY_MASKED)
        self.client_end.other = self.target_end
        self.target_end.other = self.client_end

    @property
    def drain_time(self) -> float:
        """`timeouts.drain` of its service, in seconds."""
        return self.exchange.service.rules.timeouts.drain

    def start(self, rest: bytes) -> None:
        """Take both transports over; `rest` is what the target sent behind its 101."""
        self.context.tunnels.add(self)
        self.lane.tunnels += 1
        held = self.exchange.client.become_tunnel()
        self.context.sending.pop(self.upstream, None)
        self.client_end.transport.set_protocol(self.client_end)
        self.target_end.transport.set_protocol(self.target_end)
        if self.exchange.client.blocked:
            self.client_end.pause_writing()
        if self.upstream.blocked:
            self.target_end.pause_writing()
        if held:
            self.client_end.data_received(held)
        if rest:
            self.target_end.data_received(rest)

    def on_tick(self, now: float) -> None:
        """Called by the sweeper: idle limit, close frame, cut."""
        if self.moved:
            self.moved = False
            self.last_byte = now
        limit = self.exchange.service.rules.timeouts.tunnel
        if limit and now - self.last_byte > limit and now - self._taken_at() > limit:
            self.cut("timeout_tunnel")
        elif self.closes_at and now >= self.closes_at:
            self.cut("drain_cut")
        elif self.close_frame_at and now >= self.close_frame_at and not self.closes_at and self.websocket:
            self.closes_at = now + GOODBYE_TIME
            self.reason = "drained"
            self.client_end.send_close_frame()
            self.target_end.send_close_frame()

    def _taken_at(self) -> float:
        """The time of the last progress of a side whose buffer is full."""
        watched = self.context.sending.get(self.client_end), self.context.sending.get(self.target_end)
        return max((sending.moved_at for sending in watched if sending is not None), default=0.0)

    def limit_of(self, end: _End) -> float:
        """Seconds that a side may take nothing (`timeouts.send` of its listener, or of its service)."""
        if end is self.client_end:
            return self.exchange.client.send_timeout
        return self.lane.service.timeouts.send or inf

    def cut(self, reason: str) -> None:
        """Close both sides now."""
        self.reason = self.reason or reason
        self.client_end.close()
        self.target_end.close()

    def on_lost(self) -> None:
        """One side is gone: close the other; when both are, tell the exchange."""
        if self.client_end.lost and self.target_end.lost:
            if self in self.context.tunnels:
                self.context.tunnels.discard(self)
                self.lane.tunnels -= 1
                self.lane.connections.discard(self.upstream)
                self.exchange.client.unregister()
                self.exchange.on_tunnel_end(self.client_end.received, self.target_end.received, self.reason)
        elif self.client_end.lost:
            self._broke_off("client_gone")
            self.target_end.close()
        else:
            self._broke_off("target_reset")
            self.client_end.close()

    def _broke_off(self, reason: str) -> None:
        """Record that a side of a WebSocket has ended without a close frame (RFC 6455 section 7.1.5: code 1006)."""
        frames = self.client_end._frames, self.target_end._frames
        if self.websocket and not any(each is not None and each.closing for each in frames):
            self.reason = self.reason or reason


class _End(asyncio.Protocol):
    """One side of the tunnel. `close_frame` is the close frame for this side."""

    other: _End

    def __init__(self, tunnel: Tunnel, transport: Any, close_frame: bytes) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self.lost = False
        self.received = 0
        self._ended = False  # this side sends no more
        self._frames = Frames() if tunnel.websocket else None  # of the bytes that this side receives
        self._close_frame = close_frame
        self._leaving = False  # write the close frame at the next frame border
        self._closing = False  # the connection is to end
        self._mute = False  # the close frame is written: nothing more is written to this side

    def data_received(self, data: bytes) -> None:
        tunnel = self.tunnel
        tunnel.moved = True
        self.received += len(data)
        other = self.other
        if other._mute or other.lost:
            return
        if self._frames is not None:
            border = self._frames.feed(data)
            if other._leaving and border >= 0:
                other.transport.write(data[:border] + other._close_frame)
                other._mute = True
                return
        other.transport.write(data)

    def send_close_frame(self) -> None:
        """Write the close frame to this side, as soon as the frame under way is through."""
        self._leaving = True
        frames = self.other._frames
        if frames is not None and frames.between and not self._mute and not self.lost:
            self.transport.write(self._close_frame)
            self._mute = True

    def eof_received(self) -> bool:
        self._ended = True
        other = self.other
        if other._ended or other.lost or self.tunnel.closes_at or not other.transport.can_write_eof():
            self._bound_close()  # the transport closes itself now
            return False
        other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.tunnel.context.sending.pop(self, None)
        self.tunnel.on_lost()

    def pause_writing(self) -> None:
        tunnel = self.tunnel
        if not self._closing:
            tunnel.context.sending[self] = Sending(self.transport, tunnel.context.now, tunnel.limit_of(self))
        if not self.other.lost and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._closing:
            self.tunnel.context.sending.pop(self, None)
        if not self.other.lost and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def on_stalled(self) -> None:
        """This side has taken nothing of what was written, or of the close, for too long."""
        if not self._closing:
            self.tunnel.cut("timeout_client_send" if self is self.tunnel.client_end else "timeout_send")
        self.transport.abort()

    def close(self) -> None:
        """Close after what was written, unless this side takes nothing of it for a while."""
        if not self.lost and not self._closing:
            self.transport.close()
            self._bound_close()

    def _bound_close(self) -> None:
        self._closing = True
        context = self.tunnel.context
        context.sending[self] = Sending(self.transport, context.now, CLOSE_TIME)
