"""Http2Stream: one stream of a client's connection as the client's side of an exchange.

The connection writes for it, within the windows that the client gives. What those hold back is bounded: when enough of
an answer waits, the target is read no more. The exchange may be over before its answer is sent; the rest goes out as
the client takes it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, cast

from lb.http.grpc import DEADLINE
from lb.http.h2.answer import lines_block, request_id_field, response_block
from lb.http.h2.frames import CANCEL, INTERNAL_ERROR
from lb.http.h2.grpc import status_block
from lb.http.h2.hpack import encode_field, encode_status
from lb.http.h2.sending import HIGH_WATER
from lb.http.h2.stream import Stream
from lb.http.message import ResponseHead
from lb.http.websocket import accept_for
from lb.proxy.client_stream import ClientStream
from lb.proxy.h2.owner import StreamOwner
from lb.proxy.h2.pipe import StreamTransport

if TYPE_CHECKING:
    import asyncio

    from lb.proxy.exchange import Exchange
    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import TargetStream

#: Octets of all of a connection's answers that wait to be sent: from there on each target is read no more, and no
#: further request begins.
UNSENT_LIMIT: Final = 1 << 20


class Http2Stream(ClientStream):
    """A stream with a request under way, or with an answer that the client has yet to take."""

    __slots__ = ("connection", "deadline", "exchange", "key", "pipe", "stream")

    def __init__(self, connection: StreamOwner, stream: Stream) -> None:
        self.connection = connection
        self.stream = stream
        self.peer = connection.peer
        self.trusted = connection.trusted
        self.transport = connection.transport
        self.tls = connection.tls
        self.private = None  # a login that holds for a connection means nothing where streams share it
        self.blocked = False
        self.exchange: Exchange | None = None
        self.deadline = inf  # when the next piece of the body has to be there
        self.key = b""  # of the WebSocket that is asked for (RFC 8441)
        self.pipe: StreamTransport | None = None  # the stream as a tunnel's transport

    @property
    def send_timeout(self) -> float:
        return self.connection.listener.send_timeout

    # --- from the exchange ------------------------------------------------------------------------------------------

    def splice(self, response: ResponseHead) -> bool:
        return False

    def send_interim(self, response: ResponseHead) -> bool:
        self.connection.wire.send_interim(self.stream, response_block(response))
        self.connection.flush()
        return True

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        exchange, connection = self.exchange, self.connection
        if exchange is None:
            return
        if exchange.answered_by_proxy and exchange.head.fields.grpc and exchange.client is self:
            # A client of gRPC reads lb's own answer in the trailers alone (PROTOCOL-HTTP2, "Trailers-Only").
            block, piece, end = status_block(response.status, exchange.reason), b"", True
        else:
            if connection.policy is not None:
                response = connection.policy.apply(response, exchange.received.host)
            block = response.block or response_block(response)
        fields = response.fields
        if not fields.has_date:
            block += encode_field(b"date", exchange.context.date)
        if not fields.has_request_id or block is not response.block:
            block += request_id_field(exchange.request_id)
        connection.wire.send_head(self.stream, block, piece, end)
        connection.flush()
        if not end:
            self._look()

    def send_body(self, piece: bytes, end: bool) -> None:
        if self.deadline != inf and self.exchange is not None and self.exchange.head.fields.grpc:
            self.expect_body()  # a message either way shows that the call is alive
        self.connection.wire.send_body(self.stream, piece, end)
        self.connection.flush()
        if not end:
            self._look()

    def send_trailers(self, lines: bytes) -> None:
        self.connection.wire.send_trailers(self.stream, lines_block(lines))
        self.connection.flush()

    def _look(self) -> None:
        """Whether enough waits for the client."""
        waits = self.stream.pending_size
        enough = waits > HIGH_WATER or (waits and self.connection.wire.pending_size > UNSENT_LIMIT)
        if enough and not self.blocked:
            self.blocked = True
            if self.exchange is not None:
                self.exchange.client_blocked()

    def reset(self) -> None:
        exchange = self.exchange
        code = CANCEL if exchange is not None and exchange.reason in ("drain_cut", DEADLINE) else INTERNAL_ERROR
        self.connection.wire.reset(self.stream, code)
        self.connection.flush()

    def done(self, complete: bool) -> None:
        self.exchange = None
        self.deadline = inf
        if not complete:
            self.connection.wire.reset(self.stream, CANCEL)
            self.connection.flush()
        elif self.stream.id:
            self.connection.wire.read_on(self.stream, True)  # what comes of the body is thrown away

    def pause(self) -> None:
        self.deadline = inf  # the client is not to blame
        self.connection.wire.read_on(self.stream, False)

    def resume(self) -> None:
        if not self.stream.reading:
            self.connection.wire.read_on(self.stream, True)
            if not self.stream.ended:
                self.expect_body()
            self.connection.flush()

    def expect_body(self) -> None:
        """A call of gRPC may be silent for as long as a tunnel may: it speaks when there is something to say."""
        limit = self.connection.listener.body_timeout
        exchange = self.exchange
        if exchange is not None and exchange.head.fields.grpc:
            limit = exchange.service.rules.timeouts.tunnel or inf
        self.deadline = self.connection.context.now + limit

    def defer_read(self) -> None:
        self.connection.defer()

    def keep_private(self, lane: Lane, upstream: TargetStream) -> None:
        upstream.close()

    def accepts(self, response: ResponseHead) -> bool:
        wanted = accept_for(self.key)
        for line in response.fields.forwarded_lines.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-accept":
                return value.strip(b" \t") == wanted
        return False

    def send_upgrade(self, response: ResponseHead) -> int:
        """The target's 101 is a 200 on the stream, whose DATA is the WebSocket from here on (RFC 8441 section 5)."""
        connection, exchange = self.connection, self.exchange
        assert exchange is not None
        lines = [
            line + b"\r\n"
            for line in response.fields.forwarded_lines.split(b"\r\n")
            if not line.lower().startswith(b"sec-websocket-accept:")
        ]
        block = [encode_status(200), lines_block(b"".join(lines))]
        if not response.fields.has_date:
            block.append(encode_field(b"date", exchange.context.date))
        if not response.fields.has_request_id:
            block.append(request_id_field(exchange.request_id))
        connection.wire.send_head(self.stream, b"".join(block), b"", False)
        connection.flush()
        connection.tunnels += 1
        self.pipe = StreamTransport(connection, self.stream)
        self.transport = cast("asyncio.Transport", self.pipe)
        return 200

    def become_tunnel(self) -> bytes:
        """What came before the target's 101 was held: a target that does not switch gets none of it."""
        held = b"".join(self.stream.held)
        self.stream.held.clear()
        return held

    def unregister(self) -> None:
        """The tunnel is over. The connection goes on."""
        self.exchange = None

    # --- from the connection ----------------------------------------------------------------------------------------

    def on_body(self, piece: bytes, end: bool) -> None:
        if self.key:
            self._on_tunnel_body(piece, end)
            return
        exchange = self.exchange
        if exchange is None:
            return
        if end:
            self.deadline = inf
        elif self.stream.reading:
            self.expect_body()
        exchange.on_request_body(piece, end)

    def _on_tunnel_body(self, piece: bytes, end: bool) -> None:
        if self.pipe is None:
            if piece and self.exchange is not None:
                self.stream.held.append(piece)
            return
        if piece:
            self.pipe.on_data(piece)
        if end:
            self.pipe.on_end()

    def on_trailers(self, lines: bytes) -> None:
        if self.key:
            self._on_tunnel_body(b"", True)
            return
        exchange = self.exchange
        if exchange is not None:
            self.deadline = inf
            exchange.on_request_body(b"", True, lines)

    def on_reset(self, reason: str) -> None:
        if self.pipe is not None:
            self.pipe.lose()
            return
        exchange = self.exchange
        if exchange is not None:
            if reason:
                exchange.reason = "bad_framing"
            exchange.client_lost()

    def on_room(self) -> None:
        if self.pipe is not None:
            self.pipe.on_room()
        if self.blocked:
            self.blocked = False
            if self.exchange is not None:
                self.exchange.client_unblocked()

    def on_tick(self, now: float) -> None:
        """Called by the sweeper."""
        exchange = self.exchange
        if exchange is None:
            return
        if self.deadline <= now:
            self.deadline = inf
            exchange.client_too_slow("tunnel" if exchange.head.fields.grpc else "client_body")
        elif exchange.deadline <= now or exchange.ends_at <= now:
            exchange.on_deadline(now)

    def on_stalled(self) -> None:
        """The client's windows have been shut for too long."""
        self.connection.context.stats.reject("timeout_client_send")
        if self.pipe is not None:
            if self.exchange is not None and self.exchange.tunnel is not None:
                self.exchange.tunnel.cut("timeout_client_send")
            self.pipe.abort()
        elif self.exchange is not None:
            self.exchange.client_too_slow("client_send")
        else:
            self.connection.wire.reset(self.stream, CANCEL)
