"""Http2Downstream: a client's connection that speaks HTTP/2: its bytes, its timeouts, its drain, and its requests.

`http.h2.connection` knows the protocol; this file connects it with a transport and begins an `Exchange` for each
request. Requests begin when a whole read has been looked at. So a request that is reset in the same read reaches no
target, and the first part of a body goes out with its head. No request begins while much of earlier answers waits for
the client.

There is no timer and no task for a stream or a connection: the sweeper calls `on_tick`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

from lb.core.targets import Listener
from lb.http.h1.excerpt import FIELD_LIMIT, METHOD_LIMIT, TARGET_LIMIT, Excerpt
from lb.http.h1.parse import MISDIRECTED, MISDIRECTED_TEXT, RequestError, host_name
from lb.http.h1.replies import Reply, response_of
from lb.http.h1.serialize import request_lines
from lb.http.h2.answer import response_block
from lb.http.h2.connection import Connection
from lb.http.h2.frames import ENHANCE_YOUR_CALM, SETTINGS_TIMEOUT
from lb.http.message import HTTP2, RequestHead
from lb.proxy.exchange import Exchange
from lb.proxy.h2.owner import StreamOwner
from lb.proxy.h2.policy import Policy
from lb.proxy.h2.stream import UNSENT_LIMIT, Http2Stream
from lb.proxy.sending import CLOSE_TIME, Sending

if TYPE_CHECKING:
    from lb.http.h2.stream import Stream
    from lb.proxy.front import Front
    from lb.proxy.services import LiveConfig

#: Seconds that a client has to acknowledge lb's settings (RFC 9113 section 6.5.3 leaves the time open).
SETTINGS_TIME = 10.0
#: Seconds between the two GOAWAY frames of a drain, unless the client answers the PING between them before.
NOTICE_TIME: Final = 1.0
#: Seconds that a connection reads on behind its last GOAWAY, for the client to see it; and behind a fault.
LINGER_TIME: Final = 5.0
LINGER_SHORT: Final = 1.0
#: Seconds in which a client that floods is sent its GOAWAY. Nothing is read of it meanwhile.
FLOOD_TIME: Final = 0.2


class Http2Downstream(StreamOwner):
    """One client connection. `peer`, `proto`, `trusted`, `identity`, `may_ask`: as for HTTP/1; `client_key`: it is
    counted so."""

    def __init__(
        self,
        live: LiveConfig,
        front: Front,
        listener: Listener,
        transport: asyncio.Transport,
        peer: bytes,
        proto: bytes,
        trusted: bool,
        client_key: bytes,
        identity: bytes | None,
        may_ask: Callable[[bytes], bool] | None,
    ) -> None:
        self.live = live
        self.context = live.context
        self.front = front
        self.listener = listener
        self.transport = transport
        self.peer = peer
        self.proto = proto
        self.trusted = trusted
        self.client_key = client_key
        self.identity = identity
        self.may_ask = may_ask
        self.tls = transport.get_extra_info("tls")
        self.policy = Policy(listener.hsts) if listener.hsts else None
        self.exchange: Exchange | None = None  # its streams have them
        now = self.context.now
        points = front.http2_points(peer, now)
        limits = listener.request_line, listener.header_block, listener.header_count
        self.wire = Connection(self, *limits, now, points)
        self.deadline = now + listener.header_timeout
        self.timer = "client_header"
        self._settings_due = now + SETTINGS_TIME
        self._block_due = inf  # when a header block that has begun must have ended
        self._notice_due = inf  # when a drain goes on without the client's word
        self._receiving = False
        self._begun: list[tuple[Stream, RequestHead]] = []  # requests that are to begin
        self.tunnels = 0  # streams that are WebSockets
        self._drains_later = False  # a drain waits for the last of them
        self._closing = False
        self._ended = False  # the last bytes were written
        self._closed = False
        self._paused = False

    def start(self, data: bytes) -> None:
        """Begin, on a transport that is open. `data` has come already."""
        self.front.clients.add(self)
        self.front.multiplexed.add(self)
        if self.front.draining or self.listener.bind in self.front.removed_binds:
            self.drain()
        self.flush()
        if data:
            self.data_received(data)

    # --- transport --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        """It was made for another protocol, whose place this one has taken."""

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        wire = self.wire
        self._receiving = True
        try:
            wire.receive(data, self.context.now)
        finally:
            self._receiving = False
        if wire.in_header_block:
            if self._block_due == inf:
                self._block_due = self.context.now + self.listener.header_timeout
        else:
            self._block_due = inf
        if self._begun:
            self._begin()
        elif self.timer == "client_header" and wire.acknowledged:
            self._rest()
        self.flush()

    def eof_received(self) -> bool:
        """The client sends no more: not even the windows that its answers need."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.unregister()
        self._lose()

    def _lose(self) -> None:
        """The client is gone."""
        self._closed = self._closing = True
        for stream in list(self.wire.streams.values()):
            self.on_reset(stream, "")
        self.wire.streams.clear()

    def read_anew(self) -> None:
        self.wire.read_anew()

    def unregister(self) -> None:
        """Remove the connection, which has ended, from all counts."""
        front = self.front
        front.clients.discard(self)
        front.multiplexed.discard(self)
        self.context.sending.pop(self, None)
        if self.client_key:
            front.leave(self.client_key)
            self.client_key = b""

    def pause_writing(self) -> None:
        self.wire.writable = False
        if not self._closing:
            self.context.sending[self] = Sending(self.transport, self.context.now, self.listener.send_timeout)

    def resume_writing(self) -> None:
        if self._closed:
            return
        if not self._closing:
            self.context.sending.pop(self, None)
        self.wire.write_on(self.context.now)
        if self._begun:
            self._begin()
        self.flush()

    def on_stalled(self) -> None:
        """The client has acknowledged no written bytes for too long."""
        if not self._closing:
            self.context.stats.reject("timeout_client_send")
            for stream in list(self.wire.streams.values()):
                user = stream.user
                if isinstance(user, Http2Stream) and user.exchange is not None and user.pipe is None:
                    user.exchange.client_too_slow("client_send")
        self.transport.abort()

    def flush(self) -> None:
        """Write what is to be sent, unless a read is under way, at whose end it is written at once."""
        wire = self.wire
        if self._receiving or self._closed:
            return
        if self._ended:
            wire.out.clear()
            return
        if wire.out:
            data = wire.out[0] if len(wire.out) == 1 else b"".join(wire.out)
            wire.out.clear()
            self.transport.write(data)
        if not self._closing and (wire.failed is not None or self._is_over):
            self._close()
        elif self._begun and wire.pending_size <= UNSENT_LIMIT and not self._closing:
            self._begin()

    @property
    def _is_over(self) -> bool:
        """Whether the last stream is over, and no other may come."""
        wire = self.wire
        return (wire.final >= 0 or wire.leaving) and not wire.streams

    def _close(self) -> None:
        """Close after what was written. Unread input would turn the close into a reset that eats the last frames."""
        self._closing = True
        self._begun.clear()
        transport, now = self.transport, self.context.now
        failed = self.wire.failed
        self._lose_streams()
        self._ended = True
        if failed is not None and failed.code == ENHANCE_YOUR_CALM:
            self.front.http2_offence(self.peer, now)
            self.timer = "flood"
            self.deadline = now + FLOOD_TIME
            self.pause()
            return
        if not transport.can_write_eof():
            transport.close()  # TLS: the transport reads on by itself
            self.context.sending[self] = Sending(transport, now, self.listener.send_timeout, CLOSE_TIME)
            return
        self.timer = "linger"
        self.deadline = now + (LINGER_SHORT if failed is not None or self.front.draining else LINGER_TIME)
        transport.write_eof()
        if self._paused:
            self.resume()

    def _lose_streams(self) -> None:
        """Behind a fault of the connection no stream is served on."""
        for stream in list(self.wire.streams.values()):
            self.on_reset(stream, "")

    # --- from the wire ----------------------------------------------------------------------------------------------

    def on_request(self, stream: Stream, head: RequestHead) -> None:
        may_ask = self.may_ask
        if may_ask is not None and not may_ask(host_name(head.host)):
            # The connection's other requests go on: this one belongs to another connection (RFC 9110 section 15.5.20).
            error = RequestError(421, MISDIRECTED, MISDIRECTED_TEXT)
            self.on_unwelcome(stream, error, [(b":method", head.method), (b":path", head.target)])
            return
        self.deadline = inf
        self.timer = ""
        self._begun.append((stream, head))

    def on_unwelcome(self, stream: Stream, error: RequestError, fields: list[tuple[bytes, bytes]]) -> None:
        context = self.context
        request_id = context.next_id()
        reply = Reply(error.status, error.reason, error.detail)
        seen = _excerpt(fields)
        head_only = seen.method == b"HEAD"
        response, payload = response_of(
            reply, request_id=request_id, head_only=head_only, retry_after=0, date=context.date
        )
        context.refused(error, self.peer, request_id, len(payload), seen)
        self.wire.send_head(stream, response_block(response), payload, True)

    def on_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        user = stream.user
        if isinstance(user, Http2Stream):
            user.on_body(piece, end)

    def on_trailers(self, stream: Stream, lines: bytes) -> None:
        user = stream.user
        if isinstance(user, Http2Stream):
            user.on_trailers(lines)

    def on_reset(self, stream: Stream, reason: str) -> None:
        user = stream.user
        if isinstance(user, Http2Stream):
            user.on_reset(reason)

    def on_room(self, stream: Stream) -> None:
        user = stream.user
        if isinstance(user, Http2Stream):
            user.on_room()

    def on_refused(self, reason: str) -> None:
        self.context.stats.refuse_http2(reason)

    def on_idle(self) -> None:
        self._rest()

    def _rest(self) -> None:
        """No request is under way."""
        if not self._closing:
            self.timer = "idle"
            self.deadline = self.context.now + self.listener.idle_timeout

    # --- requests ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the requests that have come, as long as little of earlier answers waits for the client."""
        begun, self._begun = self._begun, []
        wire = self.wire
        for number, (stream, head) in enumerate(begun):
            if wire.pending_size > UNSENT_LIMIT:
                self._begun = begun[number:]
                return
            if stream.id and not self._closing:
                self._begin_one(stream, head)

    def _begin_one(self, stream: Stream, head: RequestHead) -> None:
        fields = head.fields
        key = b""
        if fields.upgrade:  # a WebSocket: lb makes the handshake with the target (RFC 8441 section 5)
            key = base64.b64encode(self.context.rng.randbytes(16))
            fields.forwarded_lines.append(b"Sec-WebSocket-Key: " + key + b"\r\n")
        if not fields.cached_lines:
            fields.cached_lines = request_lines(fields, self.peer, self.proto, self.trusted, None, HTTP2, self.identity)
        client = Http2Stream(self, stream)
        client.key = key
        exchange = client.exchange = Exchange(self.live, client, head)
        stream.user = client
        limit = self.listener.requests_per_connection
        if limit and self.wire.requests >= limit:
            self.drain()
        if key or (stream.ended and not stream.held):
            exchange.start(b"", True, b"" if key else stream.trailers)
            return
        piece = b"".join(stream.held)
        stream.held.clear()
        if not stream.ended and not fields.expect_continue:
            client.expect_body()
        self.wire.read_on(stream, True)
        exchange.start(piece, stream.ended, stream.trailers)
        if fields.grpc and client.deadline != inf:
            client.expect_body()  # as the service has it, which is known now

    # --- timeouts and drain -----------------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """Called by the sweeper: the timeouts of streams, of settings, of a header block, of a drain."""
        wire = self.wire
        if self._closing:
            return
        if not wire.acknowledged and self._settings_due <= now:
            self.context.stats.reject("timeout_client_settings")
            wire.fail(SETTINGS_TIMEOUT, "settings_timeout", "the settings were not acknowledged in time")
        elif self._block_due <= now:
            self.context.stats.reject("timeout_client_header")
            wire.fail(ENHANCE_YOUR_CALM, "header_timeout", "a header block did not end in time")
        elif self._notice_due <= now:
            self._notice_due = inf
            wire.end_drain()
        for stream in list(wire.streams.values()):
            user = stream.user
            if isinstance(user, Http2Stream):
                user.on_tick(now)
        if wire.waiting and wire.writable:
            limit = self.listener.send_timeout
            for stream in list(wire.waiting.values()):
                if stream.send_window > 0 and wire.send_window > 0:
                    stream.moved_at = now
                elif now - stream.moved_at >= limit and isinstance(stream.user, Http2Stream):
                    stream.user.on_stalled()
        self.flush()

    def on_deadline(self) -> None:
        """A timeout of the connection has passed."""
        timer, self.deadline = self.timer, inf
        if timer == "linger":
            if self.transport.get_write_buffer_size():
                self.transport.close()
                self.context.sending[self] = Sending(
                    self.transport, self.context.now, self.listener.send_timeout, CLOSE_TIME
                )
            else:
                self.transport.abort()
        elif timer == "flood":
            self.transport.abort()
        elif timer == "idle":
            self.drain()
        else:
            self.context.stats.reject("timeout_client_header")
            self.transport.abort()

    def drain(self) -> None:
        """Have the client go elsewhere: a notice, then the last stream that is served, then the end of the last one.

        Some clients close a connection with its WebSockets when they are sent GOAWAY. So tunnels end first: by
        themselves, by a target's drain, or by the worker's, which has its own way to end them one after the other.
        """
        if self.tunnels:
            self._drains_later = True
        elif not self._closing and not self.wire.noticed:
            self.wire.begin_drain()
            self._notice_due = self.context.now + NOTICE_TIME
            self.flush()

    def on_tunnel_end(self) -> None:
        self.tunnels -= 1
        if not self.tunnels and self._drains_later:
            self.drain()

    def close_after_next(self) -> None:
        """The listener is gone."""
        self.drain()

    def cut(self) -> None:
        """The worker stops: end all streams, then the connection."""
        if not self._closing:
            for exchange in self.exchanges():
                exchange.cut_for_drain("the worker stopped before a target answered")
            self.wire.end_drain()
            self.flush()
        if not self._closed:
            self.transport.close()

    def exchanges(self) -> list[Exchange]:
        """The requests under way."""
        users = [stream.user for stream in self.wire.streams.values()]
        return [user.exchange for user in users if isinstance(user, Http2Stream) and user.exchange is not None]

    # --- reading ----------------------------------------------------------------------------------------------------

    def defer(self) -> None:
        """Defer reading until the loop's next turn, because this turn has lasted too long."""
        if not self._paused and not self._closing and not self._receiving:
            self.context.read_deferral.defer(self)

    def pause(self) -> None:
        if not self._closed and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._closed and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()


def _excerpt(fields: list[tuple[bytes, bytes]]) -> Excerpt:
    """The readable parts of a request that was refused."""
    values: dict[bytes, bytes] = {}
    for name, value in fields:
        values.setdefault(name, value)
    return Excerpt(
        values.get(b":method", b"")[:METHOD_LIMIT],
        values.get(b":path", b"")[:TARGET_LIMIT],
        b"HTTP/2.0",
        values.get(b":authority", values.get(b"host", b""))[:FIELD_LIMIT],
        values.get(b"user-agent", b"")[:FIELD_LIMIT],
    )


def speaks_http2(transport: Any) -> bool:
    """Whether the TLS handshake has chosen HTTP/2 (RFC 9113 section 3.2)."""
    tls = transport.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"
