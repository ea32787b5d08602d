"""Endpoint: one end of an HTTP/2 connection (RFC 9113): bytes in, calls out, bytes to send in `out`.

It knows frames, the life of streams, both directions' windows, and how much nonsense a peer may cause. What is the
same for a server and a client is in here; each of them is a subclass. Time is an argument, and nothing waits in here.
"""

from __future__ import annotations

from typing import Final

from lb.core.native import mypyc_attr
from lb.http.h2 import allowance as costs
from lb.http.h2.allowance import SMALL, Allowance
from lb.http.h2.blocks import HeaderBlocks
from lb.http.h2.fault import Fault
from lb.http.h2.fields import Malformed, read_trailers
from lb.http.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER,
    HEADER_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    LARGEST,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    frame,
    goaway,
    read_settings,
    rst_stream,
)
from lb.http.h2.receiving import Receiver
from lb.http.h2.sending import Sender
from lb.http.h2.stream import HeaderBlock, Stream

#: Streams that lb has reset of late: frames for them may be under way.
RESETS: Final = 256


@mypyc_attr(allow_interpreted_subclasses=True)
class EndpointUser:
    """What both kinds of connections call. Each method is overridden."""

    __slots__ = ()

    def on_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        """More of a body, and with `end` its end. The stream has a user, as in the three calls below."""
        raise NotImplementedError

    def on_trailers(self, stream: Stream, lines: bytes) -> None:
        """A body's trailer fields, as whole lines of HTTP/1: its end."""
        raise NotImplementedError

    def on_reset(self, stream: Stream, reason: str) -> None:
        """A stream is over before its end: the peer has reset it (`reason` is empty), or lb has, for a fault of the
        peer's."""
        raise NotImplementedError

    def on_room(self, stream: Stream) -> None:
        """Of what waited to be sent on the stream, little is left; or nothing of all of it: then its `id` is 0."""
        raise NotImplementedError

    def on_refused(self, reason: str) -> None:
        """A stream was refused or reset for a fault of the peer's, or the whole connection is at fault: to be
        counted."""
        raise NotImplementedError

    def on_idle(self) -> None:
        """The last stream is over."""
        raise NotImplementedError


class Endpoint(Sender):
    """One end. `preface`: whether the peer begins with a client's preface. `window` and `stream_window`: octets that
    the peer may send ahead, on all streams and on each. A subclass puts its settings into `out`."""

    __slots__ = (
        "_begun",
        "_greeted",
        "_resets",
        "_rest",
        "_user",
        "acknowledged",
        "blocks",
        "failed",
        "last",
        "leaving",
        "receiver",
    )

    def __init__(
        self,
        user: EndpointUser,
        preface: bool,
        header_size: int,
        header_count: int,
        window: int,
        stream_window: int,
        now: float,
        points: float,
    ) -> None:
        Sender.__init__(self, Allowance(now, points), now)
        self._user = user
        self._rest = b""
        self._begun = not preface  # the preface has come
        self._greeted = False  # …and the peer's settings
        self.acknowledged = False  # …and its acknowledgement of lb's
        self.blocks = HeaderBlocks(header_size, header_count)
        self.receiver = Receiver(self.out, window, stream_window)
        self._resets: dict[int, None] = {}
        self.last = 0  # the newest stream
        self.leaving = False  # the peer has sent GOAWAY
        self.failed: Fault | None = None  # the connection is to close once `out` is sent

    # --- what differs by role ---------------------------------------------------------------------------------------

    def _on_block(self, id: int, end: bool, data: bytes) -> None:
        """A whole header block has come."""
        raise NotImplementedError

    def _on_setting(self, key: int, value: int) -> None:
        """A setting of the peer that does not mean the same for both roles."""

    def _on_goaway(self, last: int, code: int) -> None:
        """The peer takes, or opens, no more streams than up to `last`."""

    def _on_pong(self, payload: bytes) -> None:
        """The answer to a PING."""

    def _ignores(self, id: int) -> bool:
        """Whether frames for a stream that is over may be under way, without a fault of the peer's."""
        return id in self._resets

    # --- bytes in ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Bytes of the peer. Everything that they lead to happens now, but the sending of `out`."""
        if self.failed is not None:
            return
        self._now = now
        self._allowance.pass_time(now, self.writable)
        try:
            self._read(data)
        except Fault as fault:
            self.fail(fault.code, fault.reason, fault.text)

    def _read(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position = 0
        if not self._begun:
            if not data.startswith(PREFACE):
                if PREFACE.startswith(data):
                    self._rest = data
                    return
                raise Fault(PROTOCOL_ERROR, "bad_preface", "this is not HTTP/2")  # RFC 9113 section 3.4
            self._begun = True
            position = len(PREFACE)
        size = len(data)
        while size - position >= HEADER_SIZE:
            high, low, kind, flags, stream = HEADER.unpack_from(data, position)
            length = high << 16 | low
            if length > FRAME_SIZE:
                raise Fault(FRAME_SIZE_ERROR, "frame_size", f"a frame larger than {FRAME_SIZE}")  # section 4.2
            start = position + HEADER_SIZE
            end = start + length
            if end > size:
                break
            position = end
            self._on_frame(kind, flags, stream & LARGEST, data[start:end])
            if self.failed is not None:
                return
        if position < size:
            self._rest = data[position:] if position else data

    def _on_frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self.blocks.stream and (kind != CONTINUATION or id != self.blocks.stream):
            # RFC 9113 section 6.10: nothing may come within a header block.
            raise Fault(PROTOCOL_ERROR, "protocol", "a frame within a header block")
        if not self._greeted:
            if kind != SETTINGS or flags & ACK:
                raise Fault(PROTOCOL_ERROR, "bad_preface", "the first frame is not SETTINGS")  # section 3.4
            self._greeted = True
        if kind == HEADERS:
            self._on_headers(flags, id, payload)
        elif kind == DATA:
            self._on_data(flags, id, payload)
        elif kind == WINDOW_UPDATE:
            self._on_window_update(id, payload)
        elif kind == RST_STREAM:
            self._on_reset(id, payload)
        elif kind == SETTINGS:
            self._on_settings(flags, id, payload)
        elif kind == PING:
            self._on_ping(flags, id, payload)
        elif kind == CONTINUATION:
            self._on_continuation(flags, id, payload)
        elif kind == PRIORITY:
            self._on_priority(id, payload)
        elif kind == GOAWAY:
            if id or len(payload) < 8:
                raise Fault(PROTOCOL_ERROR if id else FRAME_SIZE_ERROR, "protocol", "a malformed GOAWAY")  # section 6.8
            self.leaving = True
            self._on_goaway(int.from_bytes(payload[:4], "big") & LARGEST, int.from_bytes(payload[4:8], "big"))
            if not self.streams:
                self._user.on_idle()
        elif kind == PUSH_PROMISE:
            raise Fault(PROTOCOL_ERROR, "protocol", "PUSH_PROMISE, which no client may send, and lb has asked for none")
        else:  # section 5.5: frames of unknown types are ignored
            self._spend(costs.UNKNOWN, "flood_unknown")

    def _spend(self, cost: float, reason: str) -> None:
        if not self._allowance.spend(cost):
            raise Fault(ENHANCE_YOUR_CALM, reason, "too much useless work")

    def _spend_reply(self, cost: float, reason: str) -> None:
        """For a frame that may follow what the peer was sent."""
        if not self._allowance.spend_reply(cost):
            raise Fault(ENHANCE_YOUR_CALM, reason, "too much useless work")

    # --- header blocks ----------------------------------------------------------------------------------------------

    def _on_headers(self, flags: int, id: int, payload: bytes) -> None:
        if not id & 1:
            raise Fault(PROTOCOL_ERROR, "protocol", "HEADERS on an even stream")  # RFC 9113 section 5.1.1
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & PRIORITIZED:
            if len(payload) < 5:
                raise Fault(FRAME_SIZE_ERROR, "frame_size", "HEADERS without room for its priority")
            self._check_dependency(id, payload)
            payload = payload[5:]
        end = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self._on_block(id, end, payload)
            return
        self.blocks.begin(id, end, payload)

    def _on_continuation(self, flags: int, id: int, payload: bytes) -> None:
        blocks = self.blocks
        if not blocks.stream:
            raise Fault(PROTOCOL_ERROR, "protocol", "CONTINUATION without HEADERS")  # RFC 9113 section 6.10
        last = flags & END_HEADERS != 0
        block = blocks.go_on(payload, last)
        if last:
            self._on_block(id, blocks.end, block)

    @property
    def in_header_block(self) -> bool:
        """Whether a header block has begun and not ended."""
        return self.blocks.stream != 0

    def read_anew(self) -> None:
        """Fields have another meaning from now on: forget what was made of earlier header blocks."""
        self.blocks.forget()

    def _on_trailers(self, stream: Stream, end: bool, block: HeaderBlock) -> None:
        if stream.ended:
            self.refuse(stream, STREAM_CLOSED, "HEADERS behind the end of a stream")  # RFC 9113 section 5.1
            return
        if not end:
            self.refuse(stream, PROTOCOL_ERROR, "trailers without the stream's end")  # section 8.1
            return
        if 0 <= stream.length != stream.received:
            self.refuse(stream, PROTOCOL_ERROR, "a body of another length than Content-Length")  # section 8.1.1
            return
        try:
            lines = b"" if block.too_large else read_trailers(block.fields)
        except Malformed as error:
            self.refuse(stream, PROTOCOL_ERROR, str(error))
            return
        stream.ended = True
        if stream.user is None:
            stream.trailers = lines
        elif lines:
            self._user.on_trailers(stream, lines)
        else:
            self._user.on_body(stream, b"", True)

    def _check_dependency(self, id: int, payload: bytes) -> None:
        if int.from_bytes(payload[:4], "big") & LARGEST == id:
            raise Fault(PROTOCOL_ERROR, "protocol", "a stream that depends on itself")  # RFC 7540 section 5.3.1

    def _on_priority(self, id: int, payload: bytes) -> None:
        if not id:
            raise Fault(PROTOCOL_ERROR, "protocol", "PRIORITY without a stream")  # RFC 9113 section 6.3
        if len(payload) != 5:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "PRIORITY of a wrong size")
        self._check_dependency(id, payload)
        self._spend(costs.PRIORITY, "flood_priority")

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _on_data(self, flags: int, id: int, payload: bytes) -> None:
        size = len(payload)
        receiver = self.receiver
        receiver.take(size)
        stream = self.streams.get(id)
        if stream is None or stream.ended:
            receiver.give_back(size)
            if stream is not None:
                self.refuse(stream, STREAM_CLOSED, "DATA behind the end of a stream")  # RFC 9113 section 5.1
            elif not id or id > self.last:
                raise Fault(PROTOCOL_ERROR, "protocol", "DATA on an idle stream")
            elif not self._ignores(id):
                self._user.on_refused("protocol")
                self.out.append(rst_stream(id, STREAM_CLOSED))
                self._note_reset(id)
                self._spend(costs.RESET, "flood_reset")
            elif not size:
                self._spend(costs.EMPTY_DATA, "flood_data")
            return
        if flags & PADDED:
            payload = _unpadded(payload)
        stream.receive_window -= size
        if stream.receive_window < 0:
            receiver.give_back(size)
            self.refuse(stream, FLOW_CONTROL_ERROR, "more than the stream's window")
            return
        end = flags & END_STREAM != 0
        received = stream.received = stream.received + len(payload)
        stream.uncredited += size
        length = stream.length
        if length >= 0 and (received > length or (end and received != length)):
            # Section 8.1.1: a message of another length than it says is malformed.
            self.refuse(stream, PROTOCOL_ERROR, "a body of another length than Content-Length")
            return
        if not payload and not end:
            self._spend(costs.EMPTY_DATA, "flood_data")
        stream.ended = end
        if stream.user is None:
            if payload:
                stream.held.append(payload)
        elif payload or end:
            self._user.on_body(stream, payload, end)
        if stream.reading:
            receiver.credit(stream)

    def read_on(self, stream: Stream, reading: bool) -> None:
        """Whether what comes on the stream is passed on: its windows are given back, or kept shut."""
        self.receiver.read_on(stream, reading)

    # --- control ----------------------------------------------------------------------------------------------------

    def _on_reset(self, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "RST_STREAM of a wrong size")  # RFC 9113 section 6.4
        if not id or id > self.last:
            raise Fault(PROTOCOL_ERROR, "protocol", "RST_STREAM on an idle stream")
        stream = self.streams.get(id)
        if stream is not None:
            self._drop(stream)
            if stream.user is not None:
                self._user.on_reset(stream, "")
            self._spend(costs.RESET, "flood_reset")

    def _on_settings(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise Fault(PROTOCOL_ERROR, "protocol", "SETTINGS on a stream")  # RFC 9113 section 6.5
        if flags & ACK:
            if payload:
                raise Fault(FRAME_SIZE_ERROR, "frame_size", "an acknowledgement with settings")
            self.acknowledged = True
            return
        if len(payload) % 6:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "SETTINGS of a wrong size")
        for key, value in read_settings(payload):
            if key == INITIAL_WINDOW_SIZE:
                self._resize(value)
            elif key == MAX_FRAME_SIZE:
                if not FRAME_SIZE <= value < 1 << 24:
                    raise Fault(PROTOCOL_ERROR, "protocol", "MAX_FRAME_SIZE out of its range")  # section 6.5.2
            else:
                self._on_setting(key, value)
        self.out.append(SETTINGS_ACK)
        self._spend(costs.SETTINGS + len(payload) // 60, "flood_settings")
        self._pump()

    def _on_ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise Fault(PROTOCOL_ERROR, "protocol", "PING on a stream")  # RFC 9113 section 6.7
        if len(payload) != 8:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "PING of a wrong size")
        if flags & ACK:
            self._on_pong(payload)
            return
        self.out.append(frame(PING, ACK, 0, payload))
        self._spend_reply(costs.PING, "flood_ping")

    def _on_window_update(self, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "WINDOW_UPDATE of a wrong size")  # RFC 9113 section 6.9
        increment = int.from_bytes(payload, "big") & LARGEST
        self._spend_reply(costs.SMALL_WINDOW if increment < SMALL else costs.WINDOW, "flood_window")
        if not id:
            if not increment:
                raise Fault(PROTOCOL_ERROR, "protocol", "a window update of nothing")
            self.widen(increment)
            return
        stream = self.streams.get(id)
        if stream is None:
            if id > self.last:
                raise Fault(PROTOCOL_ERROR, "protocol", "WINDOW_UPDATE on an idle stream")  # section 5.1
            return
        if not increment:
            self.refuse(stream, PROTOCOL_ERROR, "a window update of nothing")
            return
        if not self.widen_stream(stream, increment):
            self.refuse(stream, FLOW_CONTROL_ERROR, "a window that is too large")

    def _on_room(self, stream: Stream) -> None:
        self._user.on_room(stream)

    # --- ends -------------------------------------------------------------------------------------------------------

    def reset(self, stream: Stream, code: int = INTERNAL_ERROR) -> None:
        """Cut the stream off, for a reason of lb's own."""
        if stream.id:
            self.out.append(rst_stream(stream.id, code))
            self._note_reset(stream.id)
            self._drop(stream)

    def refuse(self, stream: Stream, code: int, text: str) -> None:
        """Reset the stream for a fault of the peer's (RFC 9113 section 5.4.2), which costs what its own resets do."""
        if not stream.id:
            return
        self.reset(stream, code)
        self._user.on_refused(_REASONS.get(code, "malformed"))
        if stream.user is not None:
            self._user.on_reset(stream, text)
        self.blame()

    def blame(self) -> None:
        """The peer has had lb do something in vain: a reset's worth."""
        if self.failed is None and not self._allowance.spend(costs.RESET):
            self.fail(ENHANCE_YOUR_CALM, "flood_reset", "too much useless work")

    def _note_reset(self, id: int) -> None:
        resets = self._resets
        resets[id] = None
        if len(resets) > RESETS:
            del resets[next(iter(resets))]

    def _drop(self, stream: Stream) -> None:
        """The stream is over."""
        id, stream.id = stream.id, 0
        del self.streams[id]
        if stream.pending_size or stream.finish:
            self.waiting.pop(id, None)
            self.pending_size -= stream.pending_size
            stream.pending.clear()
            stream.pending_size = 0
        stream.held.clear()
        if stream.uncredited:
            self.receiver.credit(stream)
        if not self.streams:
            self._user.on_idle()

    def fail(self, code: int, reason: str = "", text: str = "") -> None:
        """End the connection (RFC 9113 section 5.4.1), after a last GOAWAY."""
        if self.failed is None:
            self.failed = Fault(code, reason, text)
            self.out.append(goaway(self.last, code, text.encode()))
            if reason:
                self._user.on_refused(reason)


#: Labels of `lb_http2_refused_total` for stream errors.
_REASONS: Final = {
    STREAM_CLOSED: "protocol",
    FLOW_CONTROL_ERROR: "flow_control",
    REFUSED_STREAM: "streams",
}


def _unpadded(payload: bytes) -> bytes:
    """The payload without its padding (RFC 9113 section 6.1)."""
    if not payload:
        raise Fault(FRAME_SIZE_ERROR, "frame_size", "a padded frame without padding")
    padding = payload[0]
    if padding >= len(payload):
        raise Fault(PROTOCOL_ERROR, "protocol", "padding longer than its frame")
    return payload[1 : len(payload) - padding]
