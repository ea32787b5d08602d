"""HTTP/2 to targets: `Http2Upstream` is one connection, `Http2TargetStream` one request on it.

`http.h2.client_connection` knows the protocol; this file connects it with a transport, and each of its streams with an
exchange. It decides nothing about retries, but says what is proved: a request that the target has refused, or that its
GOAWAY leaves out, was not acted on (RFC 9113 section 8.7).
"""

from __future__ import annotations

import select
import socket
from math import inf
from typing import TYPE_CHECKING, Final, cast

from lb.core.retry import BODY, GARBAGE, GONE, HEAD, NO_UPGRADE, REFUSED_STREAM, RESET, Failure
from lb.http.h2.answer import lines_block
from lb.http.h2.answer_head import switched
from lb.http.h2.client_connection import ClientConnection, ClientConnectionUser
from lb.http.h2.frames import NO_ERROR
from lb.http.h2.frames import REFUSED_STREAM as REFUSED_CODE
from lb.http.h2.request_head import connect_block, request_block
from lb.http.h2.request_stream import RequestStream
from lb.http.h2.sending import HIGH_WATER
from lb.http.websocket import accept_for
from lb.net.tls.resuming import keep_session
from lb.net.tls.target_faults import own_certificate_refused
from lb.proxy.h2.pipe import StreamTransport
from lb.proxy.lane import Lane
from lb.proxy.sending import CLOSE_TIME, Sending
from lb.proxy.target_stream import SHARED, TargetStream
from lb.proxy.tcp import arrivals, delivery

if TYPE_CHECKING:
    import asyncio

    from lb.http.h2.stream import Stream
    from lb.http.message import ResponseHead
    from lb.proxy.context import Context
    from lb.proxy.target_stream import Requester

#: Seconds that a target has for the end of a stream behind an answer without a body.
END_TIME: Final = 5.0
#: Seconds without a request, after which a connection is looked at before it carries one.
LOOK_AFTER: Final = 1.0

#: Names of error codes (RFC 9113 section 7), for people.
_CODES: Final = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip


class LinkedLane(Lane):
    """A lane, as its connections of HTTP/2 see it."""

    __slots__ = ()

    def linked(self, link: Http2Upstream) -> None:
        """A new connection, whose target has sent its settings."""
        raise NotImplementedError

    def unlink(self, link: Http2Upstream) -> None:
        """A connection is over."""
        raise NotImplementedError

    def serve(self, link: Http2Upstream) -> None:
        """Let waiting requests begin on a connection with room."""
        raise NotImplementedError


class Http2Upstream(ClientConnectionUser):
    """One connection to `lane`'s target."""

    __slots__ = (
        "_heads",
        "_lingering",
        "_lost",
        "_receiving",
        "_watch",
        "expires_at",
        "idle_since",
        "lane",
        "on_greeting",
        "refusal",
        "requests",
        "retired",
        "sent",
        "sock",
        "transport",
        "wire",
    )

    def __init__(self, lane: LinkedLane, sock: socket.socket, now: float) -> None:
        self.lane = lane
        self.sock = sock
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until `connection_made`
        self.wire = ClientConnection(self, now)
        self.on_greeting: asyncio.Future[None] | None = None  # for the target's settings, or its end
        self.idle_since = now
        self.expires_at = inf  # when it takes no more requests
        self.retired = False  # it takes no more requests, and ends with the last one
        self.refusal = ""  # why the target lets lb not in: it wants another client certificate
        self.requests = 0  # begun on it
        self.sent = 0  # bytes written
        self._receiving = False
        self._lost = False
        self._watch: select.poll | None = None
        self._heads: list[Http2TargetStream] = []  # whose head has come in the read under way
        self._lingering: dict[RequestStream, float] = {}  # answered without a body, but not ended → until when

    # --- transport --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.flush()

    def data_received(self, data: bytes) -> None:
        wire = self.wire
        self._receiving = True
        try:
            wire.receive(data, self.lane.context.now)
            if self._heads:
                heads, self._heads = self._heads, []
                for user in heads:
                    user.flush_head()
        finally:
            self._receiving = False
        if self.on_greeting is not None and (wire.greeted or wire.failed is not None):
            self._greet()
        self.settle()

    def eof_received(self) -> bool:
        self._lose(ended=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lane.target.tls is not None:
            keep_session(self.transport)
            if exc is not None and not self.requests:
                self.refusal = own_certificate_refused(exc)
        self._lose(ended=exc is None)

    def pause_writing(self) -> None:
        self.wire.writable = False
        lane = self.lane
        lane.context.sending[self] = Sending(self.transport, lane.context.now, lane.service.timeouts.send or inf)

    def resume_writing(self) -> None:
        self.lane.context.sending.pop(self, None)
        self.wire.write_on(self.lane.context.now)
        self.settle()

    def on_stalled(self) -> None:
        """The target has acknowledged no written bytes, or no close, for too long."""
        for stream in self.users():
            if stream.exchange is not None:
                stream.exchange.target_stalled()
        self.abort()

    def _greet(self) -> None:
        greeting, self.on_greeting = self.on_greeting, None
        if greeting is not None and not greeting.done():
            greeting.set_result(None)

    def flush(self) -> None:
        """Write what is to be sent, unless a read is under way, at whose end it is written at once."""
        out = self.wire.out
        if out and not self._receiving:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if not self._lost:
                self.sent += len(data)
                self.transport.write(data)

    def settle(self) -> None:
        """After something has happened: write, let waiting requests begin, or end."""
        if self._receiving or self._lost:
            return
        wire = self.wire
        if wire.failed is not None:
            self._fail(wire.failed.text)
            return
        lane = self.lane
        if lane.waiters and not self.retired and wire.room > 0:
            self._receiving = True
            try:
                lane.serve(self)
            finally:
                self._receiving = False
        self.flush()
        if not wire.streams and (self.retired or wire.leaving) and not self._lost:
            self.close()

    # --- of its tunnels ---------------------------------------------------------------------------------------------

    @property
    def context(self) -> Context:
        return self.lane.context

    def on_tunnel_end(self) -> None:
        """A stream is a tunnel no more. Its request gives the stream back."""

    # --- of the lane ------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Requests that may begin now."""
        return 0 if self._lost or self.retired else self.wire.room

    def looks_open(self) -> bool:
        """Whether the kernel reports no end of an idle connection. With TLS, unread bytes may tell of one."""
        if self.gone:
            return False
        watch = self._watch
        if watch is None:
            watch = self._watch = arrivals(self.sock)
        if watch is None:
            return False
        if not watch.poll(0):
            return True
        if self.lane.target.tls is not None:
            return False
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    @property
    def gone(self) -> bool:
        """Whether the connection is over, or about to be."""
        return self._lost or self.transport is None or bool(self.transport.is_closing())

    def users(self) -> list[Http2TargetStream]:
        """The requests under way."""
        users = [stream.user for stream in self.wire.streams.values()]
        return [user for user in users if isinstance(user, Http2TargetStream)]

    def retire(self) -> None:
        """Take no further request, and end with the last one."""
        self.retired = True
        if not self.wire.streams:
            self.close()

    def close(self) -> None:
        """Close, as no request is under way."""
        if self._lost:
            return
        self.wire.leave()
        self.flush()
        self._end()
        self.transport.close()
        context = self.lane.context
        context.sending[self] = Sending(self.transport, context.now, CLOSE_TIME, CLOSE_TIME)

    def abort(self) -> None:
        """Close at once; requests under way have broken off."""
        transport = self.transport
        if transport is not None:
            transport.abort()

    def on_tick(self, now: float) -> None:
        """Called by the lane once a second: age, silence, windows that stay shut, ends that do not come."""
        wire = self.wire
        if self.expires_at <= now and not self.retired:
            self.retire()
        if not wire.look(now):
            self._fail("answered no PING of HTTP/2 in time", cause=RESET)
            return
        for stream, until in list(self._lingering.items()):
            if not stream.id:
                del self._lingering[stream]
            elif until <= now:
                wire.give_up(stream)
        limit = self.lane.service.timeouts.send
        if limit and wire.waiting and wire.writable:
            for waiting in list(wire.waiting.values()):
                user = waiting.user
                if (
                    now - waiting.moved_at >= limit
                    and isinstance(user, Http2TargetStream)
                    and user.exchange is not None
                ):
                    user.exchange.target_stalled()
        idle = self.lane.service.timeouts.idle
        if idle and not wire.streams and now - self.idle_since >= idle:
            self.retire()
        else:
            self.settle()

    # --- of its streams ---------------------------------------------------------------------------------------------

    def ask_in_doubt(self) -> None:
        """A request was given up without an answer: ask whether the target is there at all."""
        now = self.lane.context.now
        if not self._lost and now - self.wire.heard_at >= LOOK_AFTER:
            self.wire.ask(now)

    def let_end(self, stream: RequestStream) -> None:
        """The answer has no body, but its end has yet to come. To reset the stream would look like a fault."""
        self._lingering[stream] = self.lane.context.now + END_TIME

    # --- from the wire ----------------------------------------------------------------------------------------------

    def on_interim(self, stream: RequestStream, head: ResponseHead) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream) and user.exchange is not None:
            user.exchange.on_interim(head)

    def on_answer(self, stream: RequestStream, head: ResponseHead, end: bool) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream):
            if end or stream.bodiless:
                user.on_head(head, b"", True)
            else:
                user.held = head  # until the first part of the body is there, or the read is over
                self._heads.append(user)

    def on_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream):
            user.on_body(piece, end)

    def on_trailers(self, stream: Stream, lines: bytes) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream):
            user.on_trailers(lines)

    def on_reset(self, stream: Stream, reason: str) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream):
            user.fail(GARBAGE, reason)

    def on_given_up(self, stream: RequestStream, code: int) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream):
            if code == REFUSED_CODE and not user.answered:
                user.fail(REFUSED_STREAM, "refused the stream (REFUSED_STREAM)", unprocessed=True)
            else:
                user.fail(RESET, f"reset the stream ({_name_of(code)})")

    def on_unprocessed(self, stream: RequestStream) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream):
            user.fail(GONE, "ended the connection before it took the request (GOAWAY)", unprocessed=True)

    def on_room(self, stream: Stream) -> None:
        user = stream.user
        if isinstance(user, Http2TargetStream):
            user.on_room()

    def on_refused(self, reason: str) -> None:
        """Faults of targets are counted as failures of their requests."""

    def on_idle(self) -> None:
        """`settle` looks whether there are requests."""

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """It is over, or about to be: it takes no request."""
        self._lost = True
        self.lane.unlink(self)
        self._greet()

    def _fail(self, text: str, cause: int = GARBAGE) -> None:
        """The target has broken the protocol, or does not answer: no request on this connection comes to an end."""
        self.flush()
        already = self._lost
        self._end()
        for user in self.users():
            user.fail(cause, text)
        if not already:
            self.transport.close()
            context = self.lane.context
            context.sending[self] = Sending(self.transport, context.now, CLOSE_TIME, CLOSE_TIME)

    def _lose(self, ended: bool) -> None:
        """The connection went away; `ended`: by an end of file, not by a reset."""
        self.lane.context.sending.pop(self, None)
        users = self.users()
        counts = delivery(self.sock) if users and self.lane.target.tls is None else None
        self._end()
        what = "closed the connection" if ended else "reset the connection"
        if self.wire.goaway_code != NO_ERROR:
            what = f"ended the connection ({_name_of(self.wire.goaway_code)})"
        for user in users:
            before = user.sent_before
            unprocessed = not user.answered and (
                counts is not None and (counts.sent <= before or (ended and counts.acked <= before))
            )
            user.fail(RESET, what, unprocessed=unprocessed, reused=user.on_idle_connection)
        for stream in self.wire.streams.values():
            stream.id = 0  # a tunnel gives its stream back later
        self.wire.streams.clear()


class Http2TargetStream(TargetStream):
    """One request on a connection that others share."""

    __slots__ = ("_key", "_pipe", "_stream", "answered", "connection", "held", "on_idle_connection", "sent_before")

    def __init__(self, connection: Http2Upstream) -> None:
        self.connection = connection
        self.transport = connection.transport
        self.exchange: Requester | None = None
        self.idle_since = connection.idle_since
        self.expires_at = inf
        self.retired = False
        self.reusable = False
        self.pooled = False
        self.private = SHARED  # a login that holds for a connection means nothing where streams share it
        self.blocked = False
        self.sent_before = 0  # bytes written on the connection before this request
        self.on_idle_connection = False  # no other request was under way, and one had been before
        self.held: ResponseHead | None = None  # a head that the exchange has yet to get
        self.answered = False  # it has got one
        self._stream: RequestStream | None = None
        self._key = b""  # of the WebSocket that is asked for
        self._pipe: StreamTransport | None = None  # the stream as a tunnel's transport

    # --- from the exchange ------------------------------------------------------------------------------------------

    def send_request(self, requester: Requester, host: bytes, omit: int, piece: bytes, end: bool) -> None:
        self.exchange = requester
        connection = self.connection
        head = requester.head
        wire, lane = connection.wire, connection.lane
        connection.flush()
        self.sent_before = connection.sent + sum([len(part) for part in wire.out])
        self.on_idle_connection = not wire.streams and connection.requests > 0
        upgrade = head.fields.upgrade
        if upgrade and b"websocket" in upgrade.lower().split(b", "):
            # RFC 9113 section 8.6: there is no upgrade, and without it the handshake would be a plain GET.
            block, self._key = connect_block(head, host, requester.request_id, omit, lane.target.tls is not None)
            if not (wire.extended_connect and end and not piece):
                text = "speaks HTTP/2, and takes no WebSocket over it (RFC 8441)"
                requester.on_failure(Failure(HEAD, NO_UPGRADE, text, unprocessed=True))
                return
            end = False
        else:
            block = request_block(head, host, requester.request_id, omit, lane.target.tls is not None)
        connection.requests += 1
        now = lane.context.now
        self._stream = wire.begin(self, block, piece, end, head.method == b"HEAD", now)
        self._look()
        connection.flush()

    def send_body(self, piece: bytes, end: bool) -> None:
        if self._stream is not None:
            self.connection.wire.send_body(self._stream, piece, end)
            self._look()
            self.connection.settle()

    def send_trailers(self, lines: bytes) -> None:
        if self._stream is not None:
            self.connection.wire.send_trailers(self._stream, lines_block(lines))
            self.connection.settle()

    def _look(self) -> None:
        """Whether enough waits for the target."""
        if self._stream is not None and self._stream.pending_size > HIGH_WATER and not self.blocked:
            self.blocked = True
            if self.exchange is not None:
                self.exchange.upstream_blocked()

    def cancel(self) -> None:
        self.exchange = None

    def pause(self) -> None:
        if self._stream is not None:
            self.connection.wire.read_on(self._stream, False)

    def resume(self) -> None:
        if self._stream is not None and not self._stream.reading:
            self.connection.wire.read_on(self._stream, True)
            self.connection.flush()

    def reserve(self, private: int) -> None:
        """No login holds for a connection that requests of all clients share."""

    @property
    def unsent(self) -> bool:
        return self._stream is not None and self._stream.pending_size > 0

    def on_stalled(self) -> None:
        """The connection is watched, not its streams."""

    # --- of the lane ------------------------------------------------------------------------------------------------

    def detach(self, now: float) -> None:
        self.exchange = None
        connection, stream = self.connection, self._stream
        connection.idle_since = now
        if stream is not None and stream.id:
            if stream.bodiless and stream.end_sent and not (stream.ended or connection.retired):
                connection.let_end(stream)
            else:
                if stream.head is None:
                    connection.ask_in_doubt()
                connection.wire.give_up(stream)
        connection.settle()

    def retire(self) -> None:
        """It ends with its request anyway."""

    def abort(self) -> None:
        self.detach(self.connection.lane.context.now)

    def close(self) -> None:
        self.detach(self.connection.lane.context.now)

    @property
    def gone(self) -> bool:
        return self.connection.gone

    def looks_open(self) -> bool:
        return self.connection.looks_open()

    # --- from the connection ----------------------------------------------------------------------------------------

    def on_head(self, head: ResponseHead, piece: bytes, end: bool) -> None:
        exchange = self.exchange
        self.held = None
        self.answered = True
        if exchange is None:
            return
        if self._key and 200 <= head.status < 300 and self._stream is not None and not self._stream.bodiless:
            self._pipe = StreamTransport(self.connection, self._stream)
            self.transport = cast("asyncio.Transport", self._pipe)
            exchange.on_upgrade(switched(head, accept_for(self._key)), piece)
            return
        exchange.on_response(head, piece, end)

    def flush_head(self) -> None:
        """No part of the body has come with the head."""
        if self.held is not None:
            self.on_head(self.held, b"", False)

    def on_body(self, piece: bytes, end: bool) -> None:
        if self._pipe is not None:
            if piece:
                self._pipe.on_data(piece)
            if end:
                self._pipe.on_end()
        elif self.held is not None:
            self.on_head(self.held, piece, end)
        elif self.exchange is not None:
            self.exchange.on_response_body(piece, end)

    def on_trailers(self, lines: bytes) -> None:
        self.flush_head()
        if self._pipe is not None:
            self._pipe.on_end()
            return
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.passes_trailers:
            exchange.on_response_trailers(lines)
        else:
            exchange.on_response_body(b"", True)

    def on_room(self) -> None:
        if self._pipe is not None:
            self._pipe.on_room()
        if self.blocked:
            self.blocked = False
            if self.exchange is not None:
                self.exchange.upstream_unblocked()

    def fail(self, cause: int, text: str, unprocessed: bool = False, reused: bool = False) -> None:
        """The request will get no (whole) answer here."""
        exchange = self.exchange
        self.held = None  # of an answer that has reached no client, nothing is kept
        if self._pipe is not None:
            self._pipe.lose()
            return
        if exchange is None:
            return
        answered = self.answered
        if not (unprocessed or exchange.is_copy):
            self.connection.lane.try_failed("reset", text)
        if cause == RESET:
            text += " within its answer" if answered else " before it answered"
        phase = BODY if answered else HEAD
        exchange.on_failure(Failure(phase, cause, text, reused=reused and not answered, unprocessed=unprocessed))


def _name_of(code: int) -> str:
    """An error code, for people."""
    return _CODES[code] if code < len(_CODES) else f"error {code}"
