"""Downstream: a client's connection: reads requests, hands each to an exchange, and starts the next when it is over.

Requests of one connection are answered in order: bytes sent ahead (pipelining) are held, bounded, until their turn. No
request begins while the client has yet to take earlier answers: the connection, not the exchange, remembers that its
transport is full. A request that is refused is answered and the connection closed. A lingering read makes the client
see the answer and not a reset. Every close has a bounded end (`sending`), and a connection counts until its transport
is gone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from lb.core.networks import in_networks
from lb.core.targets import Listener
from lb.http import proxy_protocol
from lb.http.h1.chunked import BadChunk, ChunkedBody
from lb.http.h1.excerpt import excerpt
from lb.http.h1.parse import (
    MISDIRECTED,
    MISDIRECTED_TEXT,
    RequestError,
    check_partial,
    host_name,
    read_request,
    read_request_fields,
)
from lb.http.h1.replies import reply
from lb.http.h1.serialize import request_lines
from lb.http.h2.frames import PREFACE_HEAD
from lb.http.message import RequestFields, RequestHead, ResponseHead
from lb.net.tls.identity import identity_of
from lb.proxy.exchange import Exchange
from lb.proxy.h1.answer import AnswerWriter
from lb.proxy.h2.client import Http2Downstream, speaks_http2
from lb.proxy.private import PrivateConnections
from lb.proxy.sending import CLOSE_TIME, Sending
from lb.proxy.tcp import arrivals, send_end

if TYPE_CHECKING:
    from lb.proxy.front import Front
    from lb.proxy.lane import Lane
    from lb.proxy.services import LiveConfig
    from lb.proxy.target_stream import TargetStream

# The part that is read next. BLOCKED: nothing, for the client has to take its earlier answers first.
PROXY_HEADER: Final = 0
HEAD: Final = 1
BODY: Final = 2
ANSWER: Final = 3
BLOCKED: Final = 4
LINGER: Final = 5
TUNNEL: Final = 6
CLOSED: Final = 7

#: Bytes of pipelined requests held while an earlier one is answered.
PIPELINE_LIMIT: Final = 65536
#: A connection that is to close reads on, for the client to see the answer. It reads so many seconds in all, and no
#: longer than that without a byte (nginx: lingering_time 30s, lingering_timeout 5s).
LINGER_TIME = 30.0
LINGER_QUIET = 5.0
#: The same, in all, for clients over a limit, and for all clients while the worker drains.
LINGER_SHORT: Final = 2.0
#: Clients over a limit that get an answer at one time; more are closed without one. Descriptors are kept free for them.
TURNED_AWAY = 32
#: Seconds that a client's next request may take to come while the worker drains.
DRAIN_IDLE: Final = 0.5
#: The same for a client's first request: clients retry when an old connection ends, and fail when a new one does.
DRAIN_FIRST: Final = 2.0
#: Heads up to this size are remembered for the connection's next request.
MEMO_LIMIT: Final = 2048

_RESET: Final = struct.pack("ii", 1, 0)


class Downstream(AnswerWriter):
    """One client connection."""

    __slots__ = (
        "_blank",
        "_block_at",
        "_block_limit",
        "_body_remaining",
        "_chunked",
        "_count_limit",
        "_head",
        "_held",
        "_idle_timeout",
        "_line_limit",
        "_lingers_until",
        "_paused",
        "_raw",
        "_reading",
        "_requests_limit",
        "_seen_out",
        "_spliced_to",
        "_wire",
        "client_key",
        "context",
        "deadline",
        "front",
        "half_closed",
        "identity",
        "listener",
        "live",
        "may_ask",
        "proto",
        "served",
        "state",
        "timer",
    )

    def __init__(self, live: LiveConfig, front: Front, listener: Listener) -> None:
        super().__init__()
        self.live = live
        self.context = live.context
        self.front = front
        self._follow(listener)
        self.transport = None  # type: ignore[assignment]  # until `connection_made`
        self.peer = b"unknown"
        self.proto = b"https" if listener.tls else b"http"
        self.trusted = False
        self.identity: bytes | None = None  # lines about the client's certificate, where the listener verifies clients
        self.may_ask: Callable[[bytes], bool] | None = None  # whether the handshake allows a host; None: it allows any
        self.client_key = b""  # counted under this address; b"": not counted
        self.state = HEAD
        self.private = None  # made when the first connection is kept for this client
        self.deadline = inf
        self.timer = "client_header"
        self.served = 0
        self.half_closed = False
        self.blocked = False  # the transport's buffer is full: the client has yet to take what was written
        self._held = b""  # bytes that wait for their turn
        self._blank = False  # an empty line has come before the request that is awaited
        self._paused = False
        self._reading = False
        self._raw = b""  # the last head as it came, and its meaning: clients repeat themselves
        self._head: RequestHead | None = None
        self._block_at = 0  # where in `_raw` the header block begins
        self._body_remaining = 0
        self._chunked: ChunkedBody | None = None
        self._wire: list[bytes] | None = None  # a chunked body as it came, as far as no stream has it yet
        self._spliced_to: TargetStream | None = None  # the stream that gets it so
        self._seen_out = 0  # bytes of the answer when a half-closed client was last looked at
        self._lingers_until = 0.0

    def _follow(self, listener: Listener) -> None:
        """Go by these rules. Objects that each request asks for are at hand."""
        self.listener = listener
        self._idle_timeout = listener.idle_timeout
        self._requests_limit = listener.requests_per_connection
        self._line_limit, self._block_limit = listener.request_line, listener.header_block
        self._count_limit = listener.header_count

    # --- transport --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        context, front = self.context, self.front
        listener = self.listener
        context.stats.accepted += 1
        peername = transport.get_extra_info("peername")
        self.peer = _address(peername)
        if listener.tls is not None:
            self.tls = transport.get_extra_info("tls")
        self.deadline = context.now + listener.header_timeout
        if listener.proxy_protocol and in_networks(listener.proxy_protocol, self.peer):
            self.state = PROXY_HEADER
            self.timer = "proxy_header"
        elif listener.proxy_protocol:
            context.stats.reject("proxy_protocol_untrusted")
            self._close_now()
            return
        if len(front.clients) >= listener.connections:
            self._turn_away("connections", "this worker serves as many connections as it may")
            return
        front.clients.add(self)
        if listener.tls is not None:
            selected = transport.get_extra_info("selected")
            self.may_ask = selected.may_ask if selected is not None else None
            self.identity = identity_of(listener.tls, transport.get_extra_info("ssl_object"))
        if listener.bind in front.removed_binds:
            self.close_after_next()
        if front.draining:  # it waited in the queue, or its TLS handshake was under way
            self.drain()
        self._identify()
        if listener.http2 and self.state == HEAD and (speaks_http2(transport) or not listener.http1):
            self._become_http2(b"")

    def _identify(self) -> None:
        """Take the peer's address into account: trust, and the bound of connections per client."""
        front = self.front
        self.trusted = front.is_trusted(self.peer)
        limit = self.listener.connections_per_client
        if limit and self.state != PROXY_HEADER:
            count = front.per_client.get(self.peer, 0)
            if count >= limit:
                self._turn_away("connections_per_client", f"{limit} connections of one client are the most")
                return
            front.per_client[self.peer] = count + 1
            self.client_key = self.peer

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state == HEAD:
            if self._held:
                data = self._held + data
                self._held = b""
            self._read_heads(data)
        elif state == BODY:
            self._read_body(data)
        elif state in (ANSWER, BLOCKED):
            self._hold(data)
        elif state == LINGER:
            self.deadline = min(self.context.now + LINGER_QUIET, self._lingers_until)
        elif state == PROXY_HEADER:
            self._read_proxy_header(data)

    def eof_received(self) -> bool:
        """The client sends no more. It may wait for its answer (a half-close) or be gone: TCP does not tell which."""
        self.half_closed = True
        state = self.state
        if state == ANSWER and self.exchange is not None:
            self.timer = "half_close"
            self.deadline = self.context.now + self.listener.half_close
            self._seen_out = self.exchange.bytes_out
            if not self._held:
                self.keep_alive = False
            return True
        if state == BLOCKED and self._held:
            return True  # the requests that it has sent are answered once it takes more
        if state == BODY and self.exchange is not None:
            self.exchange.client_lost()
        elif state < LINGER:
            self._close(self.listener.send_timeout)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.unregister()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_lost()

    def read_anew(self) -> None:
        """Fields have another meaning from now on: what was made of the last head is not used again."""
        self._raw, self._head = b"", None

    def unregister(self) -> None:
        self.state = CLOSED
        front = self.front
        front.clients.discard(self)
        if self.private is not None:
            self.private.close()
            self.private = None
        front.turned_away.discard(self)
        self.context.sending.pop(self, None)
        if self.client_key:
            front.leave(self.client_key)
            self.client_key = b""

    def become_tunnel(self) -> bytes:
        """Hand the transport to a tunnel. Returns the bytes that were read ahead."""
        self.state = TUNNEL
        self.deadline = inf
        self.context.sending.pop(self, None)
        held, self._held = self._held, b""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return held

    def pause_writing(self) -> None:
        if self.state >= LINGER:
            return  # the close has a bound of its own
        self.blocked = True
        context = self.context
        context.sending[self] = Sending(self.transport, context.now, self.listener.send_timeout)
        if self.exchange is not None:
            self.exchange.client_blocked()

    def resume_writing(self) -> None:
        if not self.blocked:
            return
        self.blocked = False
        if self.state >= LINGER:
            return
        self.context.sending.pop(self, None)
        if self.exchange is not None:
            self.exchange.client_unblocked()
        elif self.state == BLOCKED:
            self.done(True)
            if self.half_closed and self.state == HEAD:
                self._close(self.listener.send_timeout)  # the held bytes are no whole request, and no more will come

    def on_stalled(self) -> None:
        """The client has acknowledged no written bytes for too long."""
        if self.state < LINGER:
            self.context.stats.reject("timeout_client_send")
            if self.exchange is not None:
                self.exchange.client_too_slow("client_send")
        sending = self.context.sending.get(self)
        if sending is not None and sending.pending:
            _reset_at_close(self.transport)  # else the kernel keeps the bytes, and offers them for many minutes
        self.transport.abort()

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read_heads(self, data: bytes) -> None:
        """Read requests from `data` until one is under way, or the data is used up."""
        self._reading = True
        try:
            while data and self.state == HEAD:
                data = self._read_head(data)
        except RequestError as refusal:
            if self.listener.http2 and not self.served and data.startswith(PREFACE_HEAD):
                self._become_http2(data)  # RFC 9113 section 3.3: prior knowledge
            else:
                self._refuse(refusal, data)
            data = b""
        finally:
            self._reading = False
        if data and self.state < LINGER:
            self._held = data
            if len(data) > PIPELINE_LIMIT:
                self.pause()

    def _read_head(self, data: bytes) -> bytes:
        """Begin one request; returns the bytes behind it. Raises `RequestError`."""
        head = self._head
        if data == self._raw and head is not None:
            position = len(data)  # the same request once more, alone
        else:
            if data[0] == 0x0D and not self._blank and data[:2] == b"\r\n":
                # RFC 9112 section 2.2: an empty line before the request line is ignored. A single one is, in whatever
                # pieces.
                self._blank = True
                data = data[2:]
                if not data:
                    return b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._hold_head(data)
                return b""
            position = end + 4
            raw = data[:position]
            if head is None or raw != self._raw:
                head = self._parse_head(raw)
        fields = head.fields
        piece = b""
        done = True
        trailers = b""
        if fields.chunked:
            chunked = self._chunked = ChunkedBody(framed=False)
            chunked.wire = self._wire = []
            self._spliced_to = None
            try:
                piece, ended = chunked.feed(data[position:])
            except BadChunk as error:
                raise RequestError(400, "bad_framing", str(error)) from None
            trailers = chunked.trailer_lines
            done = ended >= 0
            position = position + ended if done else len(data)
        elif fields.length > 0:
            piece = data[position : position + fields.length]
            position += len(piece)
            self._body_remaining = fields.length - len(piece)
            done = self._body_remaining == 0
        self.served += 1
        self._blank = False
        self.deadline = inf
        self.timer = ""
        self.state = ANSWER
        exchange = self.exchange = Exchange(self.live, self, head)
        if not done:
            self.state = BODY
            if not fields.expect_continue:
                self.expect_body()
        exchange.start(piece, done, trailers)
        return data[position:]

    def _become_http2(self, data: bytes) -> None:
        """Hand the connection over to HTTP/2, which the client speaks; `data` has come so far."""
        front, transport = self.front, self.transport
        front.clients.discard(self)
        self.state = CLOSED
        key, self.client_key = self.client_key, b""
        successor = Http2Downstream(
            self.live,
            front,
            self.listener,
            transport,
            self.peer,
            self.proto,
            self.trusted,
            key,
            self.identity,
            self.may_ask,
        )
        transport.set_protocol(cast("asyncio.Protocol", successor))
        successor.start(data)

    def _hold_head(self, data: bytes) -> None:
        """The begin of a head. Raises `RequestError`."""
        check_partial(data, self._line_limit, self._block_limit)
        self._held = data
        if self.timer != "client_header":
            self.timer = "client_header"
            self.deadline = self.context.now + self.listener.header_timeout

    def _parse_head(self, raw: bytes) -> RequestHead:
        """A head that is not the one this client sent last; its header block may be. Raises `RequestError`."""
        line_end = raw.find(b"\r\n")
        block = raw[line_end + 2 : -2]
        last = self._head
        if last is not None and block == self._raw[self._block_at : -2]:
            fields = last.fields
        else:
            fields = self._parse_fields(block, last)
        head = read_request(raw, line_end, fields, self._line_limit)
        if self.may_ask is not None and not self.may_ask(host_name(head.host)):
            raise RequestError(421, MISDIRECTED, MISDIRECTED_TEXT)
        if not head.minor or head.host is not fields.host:
            if last is not None and fields is last.fields:
                # HTTP/1.0 or an absolute-form target: the cached fields were for another kind.
                fields = head.fields = self._parse_fields(block, None)
            fields.log_fragment = b""
            if not head.minor and fields.upgrade:
                # RFC 9110 section 7.8: an Upgrade of HTTP/1.0 is ignored.
                fields.upgrade = b""
                fields.cached_lines = request_lines(fields, self.peer, self.proto, self.trusted, identity=self.identity)
        elif len(raw) <= MEMO_LIMIT:
            self._raw, self._head, self._block_at = raw, head, line_end + 2
        return head

    def _parse_fields(self, block: bytes, last: RequestHead | None) -> RequestFields:
        """The fields of a header block. Parts that equal the last block's are reused."""
        fields = read_request_fields(block, self._block_limit, self._count_limit)
        before = last.fields if last is not None else None
        fields.cached_lines = request_lines(fields, self.peer, self.proto, self.trusted, before, identity=self.identity)
        if before is not None and before.user_agent == fields.user_agent and before.host == fields.host:
            fields.log_fragment = before.log_fragment
        return fields

    def _read_body(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        rest = trailers = b""
        chunked = self._chunked
        if chunked is not None:
            try:
                piece, ended = chunked.feed(data)
            except BadChunk as error:
                exchange.on_body_broken(str(error))
                return
            done = ended >= 0
            if done:
                trailers = chunked.trailer_lines
                rest = data[ended:]
                self._chunked = None
        else:
            piece = data
            remaining = self._body_remaining - len(data)
            if remaining < 0:
                piece, rest = data[:remaining], data[remaining:]
                remaining = 0
            self._body_remaining = remaining
            done = remaining == 0
        if done:
            self.state = ANSWER
            self.deadline = inf
            if rest:
                self._hold(rest)
        elif not self._paused:
            self.expect_body()
        if piece or done:
            exchange.on_request_body(piece, done, trailers)
            if self._wire and (self._spliced_to is not None or exchange.upstream is not None):
                self._stop_splice()  # the target's stream is another one now, or does not ask for the framing

    def _hold(self, data: bytes) -> None:
        """Bytes of a later request."""
        self._held = self._held + data if self._held else data
        if len(self._held) > PIPELINE_LIMIT:
            self.pause()

    def _read_proxy_header(self, data: bytes) -> None:
        data = self._held + data
        try:
            header = proxy_protocol.read(data)
        except ValueError:
            self.context.stats.reject("bad_proxy_header")
            self._close_now()
            return
        if header is None:
            self._held = data
            return
        source, length = header
        self.peer = source or self.peer
        self.state = HEAD
        self.timer = "client_header"
        self._held = b""
        self._identify()
        if not self.listener.http1 and self.state == HEAD:
            self._become_http2(data[length:])
        elif data[length:]:
            self.data_received(data[length:])

    @property
    def held(self) -> int:
        """Bytes that have come and wait for their turn."""
        return len(self._held)

    @property
    def send_timeout(self) -> float:
        """Seconds without progress, after which the client counts as stalled."""
        return self.listener.send_timeout

    # --- from the exchange ------------------------------------------------------------------------------------------

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        exchange = self.exchange
        if response.plain and exchange is not None and not last:
            request = exchange.head
            limit = self._requests_limit
            # By far the most frequent case, written out: nothing to add but the request id.
            if (
                request.minor
                and exchange.body_done
                and not (request.fields.close or self.half_closed or self.front.draining)
                and (not limit or self.served < limit)
            ):
                self.keep_alive = True
                self._rechunk = self.until_close = False
                if self.state != CLOSED:
                    self.transport.write(
                        b"".join((response.front, b"X-Request-Id: ", exchange.request_id, b"\r\n\r\n", piece))
                    )
                return
        AnswerWriter.send_head(self, response, piece, end, last)

    def may_keep_alive(self, head: RequestHead) -> bool:
        fields = head.fields
        if fields.close or not (head.minor or fields.keep_alive) or self.half_closed or self.front.draining:
            return False
        limit = self._requests_limit
        return not limit or self.served < limit

    def write(self, data: bytes) -> None:
        if self.state != CLOSED:
            self.transport.write(data)

    def expect_body(self) -> None:
        self.timer = "client_body"
        self.deadline = self.context.now + self.listener.body_timeout

    def pause(self) -> None:
        if not self._paused and self.state != CLOSED and not self.transport.is_closing():
            self._paused = True
            if self.timer == "client_body":
                self.deadline = inf  # the client is not to blame
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.state > BODY and len(self._held) > PIPELINE_LIMIT:
            return
        if self._paused and self.state != CLOSED and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
            if self.state == BODY:
                self.expect_body()

    def done(self, complete: bool) -> None:
        exchange, self.exchange = self.exchange, None
        self._chunked = self._wire = None
        if self.state == CLOSED:
            return
        if not (complete and self.keep_alive):
            self._close_gently(exchange is None or exchange.body_done)
            return
        if self.blocked:
            self.state = BLOCKED
            self.timer = ""
            self.deadline = inf
            return
        self.state = HEAD
        self.timer = "idle"
        self.deadline = self.context.now + self._idle_timeout
        if self._held and not self._reading:
            data, self._held = self._held, b""
            self._read_heads(data)
        if self._paused:
            self.resume()

    def defer_read(self) -> None:
        if self.state == HEAD and not self._held:
            self.context.read_deferral.defer(self)

    def framed_request(self, stream: TargetStream, begin: bool) -> bytes | None:
        wire = self._wire
        if wire is None or self._spliced_to is not (None if begin else stream):
            self._stop_splice()
            return None
        self._spliced_to = stream
        framed = b"".join(wire)
        wire.clear()
        return framed

    def _stop_splice(self) -> None:
        """No stream gets the body as it came from now on."""
        self._wire = None
        if self._chunked is not None:
            self._chunked.wire = None

    def keep_private(self, lane: Lane, upstream: TargetStream) -> None:
        if self.state == CLOSED:
            upstream.close()
            return
        if self.private is None:
            self.private = PrivateConnections()
        self.private.keep(lane, upstream)

    def reset(self) -> None:
        """End the connection so that a half-sent answer does not look whole, once the client has what was written.

        Where its end would be the end of the body, as for HTTP/1.0, only a reset says that something is missing. It is
        sent when the client has acknowledged the rest, which it would throw away.
        """
        if self.state == CLOSED:
            return
        self.state = CLOSED
        self.exchange = None
        self.deadline = inf
        if not self.until_close:
            self.transport.close()
            self._bound_close(self.listener.send_timeout, CLOSE_TIME)
            return
        _reset_at_close(self.transport)
        if not self._watch_sending(self.listener.send_timeout, 0.0).pending:
            self.transport.abort()

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _refuse(self, refusal: RequestError, head: bytes) -> None:
        """Answer a request that is not forwarded, and close: its connection cannot be trusted any further.

        `head` are the received bytes of the request.
        """
        context = self.context
        request_id = context.next_id()
        data = reply(refusal.status, refusal.detail, request_id=request_id, date=context.date)
        context.refused(refusal, self.peer, request_id, len(data), excerpt(head))
        self.write(data)
        self._close_gently(False)

    def _turn_away(self, reason: str, text: str) -> None:
        """Refuse a connection over a limit with an answer, and close it. It is not counted."""
        context, front = self.context, self.front
        context.stats.reject(reason)
        front.clients.discard(self)
        if len(front.turned_away) >= TURNED_AWAY:
            self._close_now()
            return
        front.turned_away.add(self)
        self.transport.write(reply(503, text, retry_after=1, date=context.date))
        self._close_gently(False)
        context.sending[self] = Sending(self.transport, context.now, LINGER_SHORT, LINGER_SHORT)

    def _close_gently(self, body_done: bool) -> None:
        """Close after what was written. Unread input would turn the close into a reset that eats the answer."""
        transport = self.transport
        now = self.context.now
        long = LINGER_SHORT if self.front.draining else LINGER_TIME
        if (body_done and not self._held) or self.half_closed:
            self._close(self.listener.send_timeout)
            return
        self._held = b""
        self.state = LINGER
        self.timer = "linger"
        self._lingers_until = now + long
        self.deadline = min(now + LINGER_QUIET, self._lingers_until)
        if self._paused:
            self._paused = False
            transport.resume_reading()
        transport.write_eof()
        if transport.get_write_buffer_size():
            self._watch_sending(self.listener.send_timeout, inf)

    def _close(self, limit: float, quiet: float = CLOSE_TIME) -> None:
        """Close once the client has taken what was written, or takes nothing of it for `limit` seconds."""
        self.state = LINGER
        self.deadline = inf
        self.transport.close()
        self._bound_close(limit, quiet)

    def _bound_close(self, limit: float, quiet: float) -> None:
        """Have the close, which waits for the client, end. A TLS client that has everything has yet to close as well:
        for `quiet` seconds."""
        if self.listener.tls is not None or self.transport.get_write_buffer_size():
            self._watch_sending(limit, quiet)

    def _watch_sending(self, limit: float, quiet: float) -> Sending:
        """Bound a close that waits for the client. A client that has taken nothing so far has no new time."""
        context = self.context
        sending = Sending(self.transport, context.now, limit, quiet).follow(context.sending.get(self), context.now)
        context.sending[self] = sending
        return sending

    def _close_now(self) -> None:
        self.state = CLOSED if self.exchange is None else self.state
        self.transport.abort()

    def on_deadline(self) -> None:
        """A timeout of the client's side has passed."""
        if self._has_arrived():
            self.deadline = self.context.now  # looked at again in the next pass; the loop reads before that
            return
        timer, self.deadline = self.timer, inf
        exchange = self.exchange
        if timer == "client_body" and exchange is not None:
            exchange.client_too_slow(timer)
        elif timer == "half_close" and exchange is not None:
            if exchange.bytes_out == self._seen_out and not self.blocked:
                exchange.client_lost()  # no answer, or a stalled one: the client counts as gone
            else:
                self._seen_out = exchange.bytes_out
                self.deadline = self.context.now + self.listener.half_close
        elif timer == "client_header" and (self._held or not self.served):
            if self._held:
                self._refuse(
                    RequestError(408, "timeout_client_header", "the request's head did not come in time"), self._held
                )
            else:
                self._close_now()
        elif timer == "idle" and not self._held:
            self._close_idle()
        elif timer == "linger" and self.transport.get_write_buffer_size():
            self._close(self.listener.send_timeout)  # the client is slow, but takes its answer
        else:
            self._close_now()

    def _close_idle(self) -> None:
        """Close a connection on which nothing has come, at once: a request that comes after this look is lost. The
        transport would close it only after the whole pass, and a client that looks before it sends would not know.
        """
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        if sock is not None and self.listener.tls is None and not self.transport.get_write_buffer_size():
            send_end(sock)
        self._close(min(self.listener.send_timeout, CLOSE_TIME))

    def _has_arrived(self) -> bool:
        """Whether the next request's first bytes wait in the kernel. The loop runs its timers before it reads. After it
        has stood still, a request that came in time seems late, and closing the connection would reset it.
        """
        if self.state != HEAD or self._held or self._paused:
            return False
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        watch = arrivals(sock) if sock is not None else None
        return watch is not None and bool(watch.poll(0))

    def close_after_next(self) -> None:
        """The listener is gone: one more answer, and that says Connection: close."""
        self._follow(replace(self.listener, requests_per_connection=1))
        self.drain()

    def drain(self) -> None:
        """The worker is to stop. A request under way, or the next one if it comes soon, is answered with Connection:
        close; a client that sends none is let go. (Closing at once would cut clients whose request is on its way.)
        """
        if self.state == HEAD and self.exchange is None and not self._held:
            self.timer = "idle"
            # By the clock: `Context.now` is as old as the last pass, which is too long ago when the worker stood still.
            self.deadline = min(self.deadline, monotonic() + (DRAIN_IDLE if self.served else DRAIN_FIRST))
        elif self.state < LINGER:
            self._follow(_draining(self.listener))
        elif self.timer == "linger":
            self._lingers_until = min(self._lingers_until, self.context.now + LINGER_SHORT)
            self.deadline = min(self.deadline, self._lingers_until)


@lru_cache(maxsize=64)
def _draining(listener: Listener) -> Listener:
    """The rules for a client that has a request under way as the drain begins, and may have been promised another."""
    return replace(listener, idle_timeout=min(listener.idle_timeout, DRAIN_IDLE))


def _reset_at_close(transport: Any) -> None:
    """Have the transport's end be a reset, which throws away what the client has not acknowledged."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _address(peername: Any) -> bytes:
    """The peer's address as bytes; an IPv4 address mapped into IPv6 is written as IPv4."""
    if not isinstance(peername, tuple) or not peername:
        return b"unix"
    host: str = peername[0]
    return host.removeprefix("::ffff:").encode() if "." in host else host.encode()
