"""Upstream: one connection to a target: the answer's wire format, and whether the connection may be used again.

It reads heads with `http.h1.parse`, follows the body's framing, and tells the exchange it serves. It decides nothing
about retries. Bytes or an end of file on an idle connection close it: they belong to no request. Whether its reading is
paused and whether its write buffer is full are facts of the connection. It is read from again before it serves another
request, and serves none while bytes of the last one wait.
"""

from __future__ import annotations

import select
import socket
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from lb.core.keepalive import COINCIDENCE, TAKEN
from lb.core.retry import BODY, GARBAGE, HEAD, RESET, Failure
from lb.http.h1.chunked import BadChunk, ChunkedBody
from lb.http.h1.parse import BadResponse, check_partial_response, read_response, read_response_fields
from lb.http.h1.serialize import HTTP11_HOST, request_bytes
from lb.http.message import CHUNKED, LENGTH, NONE, UNTIL_CLOSE, ResponseHead
from lb.net.tls.resuming import keep_session
from lb.net.tls.target_faults import own_certificate_refused
from lb.proxy.sending import CLOSE_TIME, Sending
from lb.proxy.target_stream import SHARED, TargetStream
from lb.proxy.tcp import arrivals, delivery

if TYPE_CHECKING:
    import asyncio

    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import Requester

#: More interim (1xx) answers to one request than this are nonsense.
INTERIM_LIMIT: Final = 64
#: Answers' heads up to this size are remembered, raw and read: targets repeat themselves, and each other…
MEMO_LIMIT: Final = 2048
#: …until there are so many. (The Date field makes new ones each second.)
MEMO_HEADS = 256

#: Bytes at a time that are read of a connection that is lost, and reads at most: the client may not take more.
LAST_READ: Final = 1 << 16
LAST_READS: Final = 4

_LAST_CHUNK: Final = b"0\r\n\r\n"

_HEAD: Final = 0
_BODY: Final = 1
_IDLE: Final = 2


class Upstream(TargetStream):
    """A connection to `lane`'s target, serving one exchange at a time."""

    __slots__ = (
        "_before",
        "_chunked",
        "_framing",
        "_held",
        "_in_chunks",
        "_interim",
        "_lost",
        "_paused",
        "_remaining",
        "_spliced",
        "_state",
        "_watch",
        "lane",
        "refusal",
        "sent",
        "sock",
        "special",
    )

    def __init__(self, lane: Lane, sock: socket.socket) -> None:
        self.lane = lane
        self.sock = sock
        self.transport = None  # type: ignore[assignment]  # until `connection_made`
        self.exchange = None
        self.idle_since = 0.0
        self.expires_at = inf  # when it takes no more requests
        self.retired = False  # it takes no request after this one, whatever the answer says
        self.reusable = False
        self.pooled = False  # it was kept for the next request without having served one
        self.private = SHARED  # or whose: see `proxy.private`
        self.sent = 0  # bytes written on this connection
        self._before = 0  # of these, before the current request
        self._state = _IDLE
        self._framing = NONE
        self._remaining = 0
        self._chunked: ChunkedBody | None = None
        self._held = b""
        self._in_chunks = False  # the request's body is sent in chunks
        self._spliced = False  # …as they came from the client
        self._interim = 0
        self.special = False  # it is lost, retired, blocked, paused or private: `detach` has to look
        self._lost = False
        self.refusal = ""  # why the target does not take lb for a client
        self._paused = False  # its reading is stopped, for the client takes no more
        self.blocked = False  # its write buffer is full
        self._watch: select.poll | None = None  # made when it is first asked whether the connection looks open

    # --- transport --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.idle_since = monotonic()
        self.lane.connections.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        state = self._state
        if exchange is None or state == _IDLE:
            self._on_unsolicited_bytes()
        elif state == _HEAD:
            try:
                self._read_head(exchange, data)
            except BadResponse as error:
                self._broken(exchange, HEAD, str(error))
        else:
            self._read_body(exchange, data)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is None or self._state == _IDLE:
            self.lane.learn_close(self)
            return False
        if self._state == _BODY and self._framing == UNTIL_CLOSE:
            self.reusable = False
            exchange.on_response_body(b"", True)
            return False
        self._lost_with(exchange, ended=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.exchange is not None:
            self._read_rest()
        self._lost = self.special = True
        self.lane.connections.discard(self)
        if self.lane.target.tls is not None:
            keep_session(self.transport)
        self.lane.context.sending.pop(self, None)
        exchange = self.exchange
        if exc is not None and self._state != _BODY and not self._held:
            self.refusal = own_certificate_refused(exc)
        if self.refusal:
            self._not_let_in(exchange)
        elif exchange is not None:
            self._lost_with(exchange, ended=exc is None)
        elif self in self.lane.idle:
            self.lane.learn_close(self)

    def pause_writing(self) -> None:
        self.blocked = self.special = True
        lane = self.lane
        lane.context.sending[self] = Sending(self.transport, lane.context.now, lane.service.timeouts.send or inf)
        if self.exchange is not None:
            self.exchange.upstream_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        self.lane.context.sending.pop(self, None)
        if self.exchange is not None:
            self.exchange.upstream_unblocked()

    def on_stalled(self) -> None:
        """The target has acknowledged no written bytes, or no close, for too long."""
        if self.exchange is not None:
            self.exchange.target_stalled()
        else:
            self.abort()

    # --- from the exchange ------------------------------------------------------------------------------------------

    def send_request(self, requester: Requester, host: bytes, omit: int, piece: bytes, end: bool) -> None:
        head = requester.head
        fields = head.fields
        chunked = self._in_chunks = fields.chunked
        if not (omit or fields.special or chunked) and head.minor:
            # `request_bytes` of nearly every request, written out.
            data = b"".join(
                (
                    head.method,
                    b" ",
                    head.target,
                    HTTP11_HOST,
                    host,
                    fields.cached_lines,
                    requester.request_id,
                    b"\r\n\r\n",
                    piece,
                )
            )
        else:
            data = request_bytes(head, host, requester.request_id, omit)
            if chunked:
                framed = requester.framed_request(self, True)
                self._spliced = framed is not None
                data += _chunk(piece) if framed is None else framed
                if end:
                    data += _LAST_CHUNK
            elif piece:
                data += piece
        self.exchange = requester
        self._state = _HEAD
        self._interim = 0
        self._before = self.sent
        self.sent += len(data)
        if not self._lost:
            self.transport.write(data)

    def send_body(self, piece: bytes, end: bool) -> None:
        if self._in_chunks:
            framed = self.exchange.framed_request(self, False) if self._spliced and self.exchange is not None else None
            piece = _chunk(piece) if framed is None else framed
            if end:
                piece += _LAST_CHUNK
        if piece and not self._lost:
            self.sent += len(piece)
            self.transport.write(piece)

    def send_trailers(self, lines: bytes) -> None:
        if self._in_chunks and not self._lost:
            data = b"0\r\n" + lines + b"\r\n"
            self.sent += len(data)
            self.transport.write(data)

    def cancel(self) -> None:
        self.exchange = None
        self.reusable = False

    def pause(self) -> None:
        if not self._lost and not self.transport.is_closing():
            self._paused = self.special = True
            self.transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if not self._lost and not self.transport.is_closing():
            self.transport.resume_reading()

    def retire(self) -> None:
        self.retired = self.special = True

    def reserve(self, private: int) -> None:
        self.private = private
        self.special = True

    def detach(self, now: float) -> None:
        lane = self.lane
        if not self.reusable or self._state != _IDLE or lane.draining:
            self.abort()
        elif self.special:
            self._detach_special(now)
        else:
            self.exchange = None
            self.idle_since = now
            if lane.waiters:
                lane.hand_over(self)
            elif lane.freshest is None:
                lane.freshest = self
            else:
                lane.keep(self)

    def _detach_special(self, now: float) -> None:
        """The same for a connection to which something has happened."""
        exchange, self.exchange = self.exchange, None
        if self._lost or self.retired or self.blocked:
            self.abort()
            return
        if self._paused:
            self.resume()
        self.special = self.private != SHARED
        self.idle_since = now
        if self.special and exchange is not None:
            exchange.keep_private(self)
        elif self.lane.waiters:
            self.lane.hand_over(self)
        else:
            self.lane.keep(self)

    def abort(self) -> None:
        self.exchange = None
        if not self._lost:
            self.transport.abort()

    def close(self) -> None:
        if not self._lost:
            self.transport.close()
            lane = self.lane
            if lane.target.tls is not None:  # the close waits for the target's
                lane.context.sending[self] = Sending(self.transport, lane.context.now, CLOSE_TIME, CLOSE_TIME)

    @property
    def unsent(self) -> bool:
        return not self._lost and self.transport.get_write_buffer_size() > 0

    @property
    def gone(self) -> bool:
        return self._lost or bool(self.transport.is_closing())

    def looks_open(self) -> bool:
        if self._lost:
            return False
        watch = self._watch
        if watch is None:
            watch = self._watch = arrivals(self.sock)
        return watch is not None and not watch.poll(0)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read_head(self, exchange: Requester, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        context = self.lane.context
        while True:
            last = context.last_reply
            if last is not None and data.startswith(context.last_reply_raw) and exchange.head.method != b"HEAD":
                head, end = last, len(context.last_reply_raw)  # most often: no hash of all of it, and no copy
            else:
                end = data.find(b"\r\n\r\n") + 4
                if end < 4:
                    check_partial_response(data)
                    self._held = data
                    return
                head = self._head_of(data[:end], exchange)
            if head.fields.keep_alive_timeout:
                self.lane.idle_limit.heard(head.fields.keep_alive_timeout, self.lane.service.timeouts.idle)
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                exchange.on_upgrade(head, data)
                return
            self._interim += 1
            if self._interim > INTERIM_LIMIT:
                raise BadResponse(f"more than {INTERIM_LIMIT} interim answers")
            exchange.on_interim(head)
            if not data:
                return
        self.reusable = head.reusable
        framing = self._framing = head.framing
        size = len(data)
        if framing == LENGTH:
            remaining = head.fields.length - size
            if remaining > 0:
                self._remaining = remaining
                self._state = _BODY
                exchange.on_response(head, data, False)
                return
            if remaining < 0:
                data = data[:remaining]
                self._extra()
            self._state = _IDLE
            exchange.on_response(head, data, True)
        elif framing == NONE:
            if data:
                data = b""
                self._extra()
            self._state = _IDLE
            exchange.on_response(head, data, True)
        elif framing == CHUNKED:
            self._state = _BODY
            chunked = self._chunked = ChunkedBody(framed=exchange.splice(head), trailers=exchange.passes_trailers)
            try:
                piece, ended = chunked.feed(data)
            except BadChunk as error:
                # Nothing of this answer has reached the client yet.
                raise BadResponse(str(error)) from None
            if ended >= 0:
                if ended < size:
                    self._extra()
                self._state = _IDLE
            # With its framing the piece has the trailers, too.
            trailers = b"" if chunked.framed or not chunked.trailers else chunked.trailer_lines
            exchange.on_response(head, piece, ended >= 0 and not trailers, len(piece) - chunked.payload)
            if trailers and self.exchange is exchange:
                exchange.on_response_trailers(trailers)
        else:
            self.reusable = False
            self._state = _BODY
            exchange.on_response(head, data, False)

    def _head_of(self, raw: bytes, exchange: Requester) -> ResponseHead:
        """A head that is not the one before it; it may have been sent of late. Raises `BadResponse`."""
        method = exchange.head.method
        context = self.lane.context
        heads = context.reply_heads
        cached = heads.get(raw) if method != b"HEAD" else None
        if cached is not None:
            context.last_reply, context.last_reply_raw = cached, raw
            return cached
        line_end = raw.find(b"\r\n")
        fields = read_response_fields(raw[line_end + 2 : -2])
        head = read_response(raw, line_end, fields, method)
        if len(raw) <= MEMO_LIMIT and method != b"HEAD" and head.status >= 200:
            if len(heads) >= MEMO_HEADS:
                heads.clear()
            heads[raw] = head
            context.last_reply, context.last_reply_raw = head, raw
        return head

    def _read_body(self, exchange: Requester, data: bytes) -> None:
        framing = self._framing
        if framing == LENGTH:
            remaining = self._remaining = self._remaining - len(data)
            if remaining > 0:
                exchange.on_response_body(data, False)
                return
            if remaining < 0:
                data = data[:remaining]
                self._extra()
            self._state = _IDLE
            exchange.on_response_body(data, True)
        elif framing == CHUNKED:
            chunked = self._chunked
            assert chunked is not None
            before = chunked.payload
            try:
                piece, ended = chunked.feed(data)
            except BadChunk as error:
                self._broken(exchange, BODY, str(error))
                return
            if ended >= 0:
                if ended < len(data):
                    self._extra()
                self._state = _IDLE
            trailers = b"" if chunked.framed or not chunked.trailers else chunked.trailer_lines
            if piece or ended >= 0:
                exchange.on_response_body(piece, ended >= 0 and not trailers, len(piece) - (chunked.payload - before))
            if trailers and self.exchange is exchange:
                exchange.on_response_trailers(trailers)
        else:
            exchange.on_response_body(data, False)

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _extra(self) -> None:
        """More bytes than the answer has: they are no answer to anything."""
        self.reusable = False
        self.lane.context.stats.unsolicited_bytes += 1

    def _on_unsolicited_bytes(self) -> None:
        """Bytes on an idle connection."""
        self.lane.context.stats.unsolicited_bytes += 1
        self.lane.forget(self)
        self.abort()

    def _broken(self, exchange: Requester, phase: int, text: str) -> None:
        self.reusable = False
        if not exchange.is_copy:
            self.lane.try_failed("reset", text)
        exchange.on_failure(Failure(phase, GARBAGE, text))

    def _read_rest(self) -> None:
        """Read what came before a reset, and is in the kernel still: the target's early answer to an upload.

        A write that fails first ends the transport, which then reads no more. Its descriptor is closed after
        `connection_lost`. Of TLS the kernel has records, and the keys for them are gone.
        """
        if self.lane.target.tls is not None:
            return
        for _ in range(LAST_READS):
            exchange = self.exchange
            if exchange is None or self._state == _IDLE or exchange.client_is_blocked:
                return
            try:
                data = self.sock.recv(LAST_READ, socket.MSG_DONTWAIT)
            except OSError:
                return
            if not data:
                return
            self.data_received(data)

    def _lost_with(self, exchange: Requester, ended: bool) -> None:
        """The connection went away under a request; `ended`: by an end of file, not by a reset."""
        self.reusable = False
        lane = self.lane
        now = monotonic()
        answered = self._state == _BODY or bool(self._held)
        idle = max(0.0, exchange.written_at - self.idle_since)
        elapsed = now - exchange.written_at
        unsent = not answered and self._unsent(ended)
        worked_on = answered or (elapsed > (TAKEN if ended else COINCIDENCE) and not unsent)
        if worked_on:
            lane.idle_limit.broke_off(now)
        deserted = lane.is_deserted()
        if unsent and ended:
            lane.idle_limit.closed(idle + elapsed, now, lane.service.timeouts.idle, last=deserted)
        ends = lane.idle_limit.ends(idle + elapsed, now, deserted) or (lane.freshest is not None and deserted)
        pooled = self._before > 0 or self.pooled
        # A new connection over TLS that ends at once was not idle too long: some servers refuse clients so, silently.
        may_be_stale = pooled or lane.target.tls is None
        doubtful = may_be_stale and not worked_on
        stale = unsent or (doubtful and not ends and lane.idle_limit.explains(idle, elapsed, now))
        what = "closed the connection" if ended else "reset the connection"
        # The idle limit proves nothing: a request that must not be sent twice waits for more evidence.
        proved = unsent or (stale and exchange.head.idempotent)
        if not (stale or exchange.is_copy):
            lane.try_failed("reset", what)
        where = "within its answer" if answered else "before it answered"
        exchange.on_failure(
            Failure(
                BODY if self._state == _BODY else HEAD,
                RESET,
                f"{what} {where}",
                # A reset may be the kernel's word for "closed with your request unread"; an end of file is not.
                reused=pooled and not answered and (stale or not ended or lane.target.tls is not None),
                unprocessed=proved,
                idle=idle if doubtful and not proved else -1.0,
                elapsed=elapsed,
            )
        )

    def _not_let_in(self, exchange: Requester | None) -> None:
        """The target wants another client certificate: it has read no request, and will read none."""
        self.reusable = False
        self.lane.forget(self)
        if exchange is not None:
            failure = self.lane.not_let_in(self.refusal)
            exchange.on_failure(failure)

    def _unsent(self, ended: bool) -> bool:
        """Whether the request provably never reached the target, so that it may be sent elsewhere.

        Proof one: not a byte of it left this machine. Proof two: the target's end of file acknowledges none of it, so
        it was sent before the request came in. A FIN carries an ACK; bytes that come after it meet a closed socket.
        Nothing else proves anything. The kernel resets a connection that is closed with unread bytes, but also for
        SO_LINGER 0. And an event loop may have read a request that its application never looks at. Then it takes the
        target's habits to tell (`core.keepalive`).
        """
        if self.lane.target.tls is not None:
            return False
        counts = delivery(self.sock)
        return counts is not None and (counts.sent <= self._before or (ended and counts.acked <= self._before))


def _chunk(piece: bytes) -> bytes:
    """A piece of payload as a chunk; nothing, which would be the last chunk, if it is empty."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
