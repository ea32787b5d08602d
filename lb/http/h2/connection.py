"""Connection: the server's side of one HTTP/2 connection (RFC 9113): bytes in, calls out, bytes to send in `out`.

It knows frames, the life of streams, both directions' windows, header compression, and how much nonsense a client may
cause; `fields` judges the requests. What becomes of a request is its user's business. Time is an argument, and nothing
waits in here.

There are two ledgers for received octets: the stream's window, and the connection's. An octet is given back to both
once it is passed on, and not while the stream is paused. So all paused streams together hold no more than the
connection's window. Octets that are thrown away, padding too, are given back to the connection at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.native import mypyc_attr
from lb.http.h1.parse import RequestError
from lb.http.h2 import allowance as costs
from lb.http.h2.allowance import SMALL, Allowance
from lb.http.h2.fields import Malformed, read_request, read_trailers
from lb.http.h2.frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
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
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
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
    data_header,
    frame,
    goaway,
    headers,
    read_settings,
    rst_stream,
    settings,
    window_update,
)
from lb.http.h2.hpack import NO_TABLE, BadBlock, Decoder
from lb.http.h2.stream import HeaderBlock, Stream

if TYPE_CHECKING:
    from lb.http.message import RequestHead

#: Streams at one time (nginx: 128; HAProxy: 100).
STREAMS: Final = 100
#: Octets that a client may send ahead, on one stream and on all of them.
STREAM_WINDOW: Final = 65536
CONNECTION_WINDOW: Final = 1 << 20
#: CONTINUATION frames of one header block (python-hyper/h2: 64).
CONTINUATIONS: Final = 64
#: Octets of an answer that wait for a window until the target's reading stops, and from which on it goes on.
HIGH_WATER: Final = 65536
LOW_WATER: Final = 16384
#: Header blocks whose meaning is kept for the connection's next requests, and their largest size.
BLOCKS: Final = 32
BLOCK_SIZE: Final = 1024
#: Streams that lb has reset of late: frames for them may be under way.
RESETS: Final = 256
#: The window that a client's streams have until it says otherwise (RFC 9113 section 6.9.2).
_DEFAULT_WINDOW: Final = 65535
#: The PING between the two GOAWAY frames of a drain.
_DRAIN_PING: Final = b"lb-drain"


class Fault(Exception):  # noqa: N818
    """An error that ends the connection (RFC 9113 section 5.4.1): code, label of the metric, text for the client."""

    def __init__(self, code: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.text = text


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectionUser:
    """What a connection calls. Each method is overridden."""

    __slots__ = ()

    def on_request(self, stream: Stream, head: RequestHead) -> None:
        """A new request. Its body, as far as there is one, is held until the stream has a user."""
        raise NotImplementedError

    def on_unwelcome(self, stream: Stream, error: RequestError, fields: list[tuple[bytes, bytes]]) -> None:
        """A new request that is not forwarded, but answered; `fields` are empty where they were too large."""
        raise NotImplementedError

    def on_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        """More of a request's body, and with `end` its end. The stream has a user, as in the three calls below."""
        raise NotImplementedError

    def on_trailers(self, stream: Stream, lines: bytes) -> None:
        """A request's trailer fields, as whole lines of HTTP/1: its end."""
        raise NotImplementedError

    def on_reset(self, stream: Stream, reason: str) -> None:
        """A stream is over before its end: the client has reset it (`reason` is empty), or lb has, for a fault of the
        client's."""
        raise NotImplementedError

    def on_room(self, stream: Stream) -> None:
        """Of the stream's answer, little waits any more."""
        raise NotImplementedError

    def on_refused(self, reason: str) -> None:
        """A stream was refused or reset for a fault of the client's, or the whole connection is at fault: to be
        counted."""
        raise NotImplementedError

    def on_idle(self) -> None:
        """The last stream is over."""
        raise NotImplementedError


class Connection:
    """One connection. `line_limit`, `header_size` and `header_count` bound a request's head, as for HTTP/1."""

    __slots__ = (
        "_allowance",
        "_begun",
        "_block",
        "_block_end",
        "_block_parts",
        "_block_size",
        "_block_stream",
        "_blocks",
        "_decoder",
        "_drain_ping",
        "_first_block",
        "_generation",
        "_greeted",
        "_header_count",
        "_header_size",
        "_initial_window",
        "_line_limit",
        "_now",
        "_resets",
        "_rest",
        "_unreturned",
        "_user",
        "acknowledged",
        "failed",
        "final",
        "last",
        "leaving",
        "noticed",
        "out",
        "pending_size",
        "receive_window",
        "requests",
        "send_window",
        "streams",
        "waiting",
        "writable",
    )

    def __init__(
        self,
        user: ConnectionUser,
        line_limit: int,
        header_size: int,
        header_count: int,
        now: float,
        points: float = costs.POINTS,
    ) -> None:
        self._user = user
        self._line_limit = line_limit
        self._header_size = header_size
        self._header_count = header_count
        self._allowance = Allowance(now, points)
        self._now = now
        self._rest = b""
        self._begun = False  # the preface has come
        self._greeted = False  # …and the client's settings
        self.acknowledged = False  # …and its acknowledgement of lb's
        self._decoder = Decoder()
        self._generation = 0
        self._blocks: dict[bytes, HeaderBlock] = {}
        self._first_block = True
        # The header block under way: of which stream, its parts so far.
        self._block_stream = 0
        self._block_end = False
        self._block_parts: list[bytes] = []
        self._block_size = 0
        self.streams: dict[int, Stream] = {}
        self.waiting: dict[int, Stream] = {}  # streams with an answer that waits to be sent, in turn
        self._resets: dict[int, None] = {}
        self.last = 0  # the client's newest stream
        self.requests = 0
        self._initial_window = _DEFAULT_WINDOW
        self.send_window = _DEFAULT_WINDOW
        self.receive_window = CONNECTION_WINDOW
        self._unreturned = 0  # octets to be given back with the connection's next update
        self.pending_size = 0  # octets of all streams that wait to be sent
        self.writable = True  # the transport takes more
        self.leaving = False  # the client has sent GOAWAY
        self.noticed = False  # a GOAWAY without a last stream was sent: more will follow
        self.final = -1  # the last stream that is served; -1: that is open
        self._drain_ping = False
        self.failed: Fault | None = None  # the connection is to close once `out` is sent
        self.out: list[bytes] = [
            settings(
                {
                    MAX_CONCURRENT_STREAMS: STREAMS,
                    INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    MAX_HEADER_LIST_SIZE: header_size,
                }
            ),
            window_update(0, CONNECTION_WINDOW - _DEFAULT_WINDOW),
        ]

    # --- bytes in ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Bytes of the client. Everything that they lead to happens now, but the sending of `out`."""
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
        if self._block_stream and (kind != CONTINUATION or id != self._block_stream):
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
            if not self.streams:
                self._user.on_idle()
        elif kind == PUSH_PROMISE:
            raise Fault(PROTOCOL_ERROR, "protocol", "PUSH_PROMISE of a client")  # section 8.4
        else:  # section 5.5: frames of unknown types are ignored
            self._spend(costs.UNKNOWN, "flood_unknown")

    def _spend(self, cost: float, reason: str) -> None:
        if not self._allowance.spend(cost):
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
        self._block_stream, self._block_end = id, end
        self._block_parts = [payload]
        self._block_size = len(payload)

    def _on_continuation(self, flags: int, id: int, payload: bytes) -> None:
        if not self._block_stream:
            raise Fault(PROTOCOL_ERROR, "protocol", "CONTINUATION without HEADERS")  # RFC 9113 section 6.10
        self._block_parts.append(payload)
        self._block_size += len(payload)
        if len(self._block_parts) > CONTINUATIONS or self._block_size > 2 * self._header_size:
            raise Fault(ENHANCE_YOUR_CALM, "flood_continuation", "a header block without end")
        if flags & END_HEADERS:
            block = b"".join(self._block_parts)
            self._block_parts = []
            self._block_stream = 0
            self._on_block(id, self._block_end, block)

    @property
    def in_header_block(self) -> bool:
        """Whether a header block has begun and not ended."""
        return self._block_stream != 0

    def _decode(self, data: bytes) -> HeaderBlock:
        """The meaning of a block. The same block means the same while the table stands still."""
        decoder = self._decoder
        blocks = self._blocks
        known = blocks.get(data)
        if known is not None:
            return known
        try:
            # Cookies come in crumbs (section 8.2.3), so that there may be more fields than lines.
            fields = decoder.decode(data, self._header_size, 2 * self._header_count + 16)
        except BadBlock as error:
            raise Fault(COMPRESSION_ERROR, "compression", str(error)) from None  # section 4.3
        block = HeaderBlock(fields, decoder.too_large)
        if decoder.generation != self._generation:
            self._generation = decoder.generation
            blocks.clear()
        elif len(data) <= BLOCK_SIZE:
            if len(blocks) >= BLOCKS:
                blocks.clear()
            blocks[data] = block
        return block

    def _on_block(self, id: int, end: bool, data: bytes) -> None:
        block = self._decode(data)  # always: the table is the connection's
        stream = self.streams.get(id)
        if stream is not None:
            self._on_trailers(stream, end, block)
            return
        if id <= self.last:
            if id not in self._resets:
                raise Fault(STREAM_CLOSED, "protocol", "HEADERS on a closed stream")  # RFC 9113 section 5.1
            self._spend(costs.UNKNOWN, "flood_reset")
            return
        self.last = id
        if 0 <= self.final < id:
            return  # section 6.8: it was told that this stream is not served
        if len(self.streams) >= STREAMS:
            self._user.on_refused("streams")
            self._note_reset(id)
            self.out.append(rst_stream(id, REFUSED_STREAM))  # section 5.1.2
            self._spend(costs.REFUSED, "flood_streams")
            return
        stream = Stream(id, end, self._initial_window, STREAM_WINDOW)
        self.streams[id] = stream
        self.requests += 1
        head = block.whole if end else block.open
        try:
            if head is None:
                head = self._judge(block, end)
        except Malformed as malformed:  # a name of its own: compiled, a variable has one type
            self.refuse(stream, PROTOCOL_ERROR, str(malformed))
        except RequestError as error:
            self._user.on_unwelcome(stream, error, block.fields)
            self.blame()
        else:
            stream.length = head.fields.length
            self._user.on_request(stream, head)

    def _judge(self, block: HeaderBlock, end: bool) -> RequestHead:
        """The request of a block that was not met before. Raises `Malformed` and `RequestError`."""
        if block.too_large:
            raise RequestError(431, "header_too_large", f"the header fields are more than {self._header_size} bytes")
        head = read_request(block.fields, end, self._line_limit, self._header_size, self._header_count)
        if end:
            block.whole = head
        else:
            block.open = head
        return head

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

    def read_anew(self) -> None:
        """Fields have another meaning from now on: forget what was made of earlier header blocks."""
        self._blocks.clear()

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _on_data(self, flags: int, id: int, payload: bytes) -> None:
        size = len(payload)
        self.receive_window -= size
        if self.receive_window < 0:
            raise Fault(FLOW_CONTROL_ERROR, "flow_control", "more than the connection's window")  # section 6.9.1
        stream = self.streams.get(id)
        if stream is None or stream.ended:
            self._return(size)
            if stream is not None:
                self.refuse(stream, STREAM_CLOSED, "DATA behind the end of a stream")  # RFC 9113 section 5.1
            elif not id or id > self.last:
                raise Fault(PROTOCOL_ERROR, "protocol", "DATA on an idle stream")
            elif id not in self._resets and not 0 <= self.final < id:
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
            self._return(size)
            self.refuse(stream, FLOW_CONTROL_ERROR, "more than the stream's window")
            return
        end = flags & END_STREAM != 0
        received = stream.received = stream.received + len(payload)
        stream.uncredited += size
        length = stream.length
        if length >= 0 and (received > length or (end and received != length)):
            # Section 8.1.1: a request of another length than it says is malformed.
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
            self._credit(stream)

    def read_on(self, stream: Stream, reading: bool) -> None:
        """Whether what comes on the stream is passed on: its windows are given back, or kept shut."""
        stream.reading = reading
        if reading and stream.uncredited:
            self._credit(stream)

    def _credit(self, stream: Stream) -> None:
        """Give both windows back what the stream has been passed on."""
        size, stream.uncredited = stream.uncredited, 0
        self._return(size)
        if stream.id and not stream.ended:
            stream.unreturned += size
            if stream.unreturned >= STREAM_WINDOW // 2:
                self.out.append(window_update(stream.id, stream.unreturned))
                stream.receive_window += stream.unreturned
                stream.unreturned = 0

    def _return(self, size: int) -> None:
        """Give octets back to the connection's window."""
        self._unreturned += size
        if self._unreturned >= CONNECTION_WINDOW // 2:
            self.out.append(window_update(0, self._unreturned))
            self.receive_window += self._unreturned
            self._unreturned = 0

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
            elif key == ENABLE_PUSH:
                if value > 1:
                    raise Fault(PROTOCOL_ERROR, "protocol", "ENABLE_PUSH is neither 0 nor 1")  # section 6.5.2
            elif key == MAX_FRAME_SIZE and not FRAME_SIZE <= value < 1 << 24:
                raise Fault(PROTOCOL_ERROR, "protocol", "MAX_FRAME_SIZE out of its range")
        self.out.append(SETTINGS_ACK)
        self._spend(costs.SETTINGS + len(payload) // 60, "flood_settings")
        self._pump()

    def _resize(self, window: int) -> None:
        """The client gives its streams another window. A negative one is legal, and waits (RFC 9113 section 6.9.2)."""
        if window > LARGEST:
            raise Fault(FLOW_CONTROL_ERROR, "flow_control", "INITIAL_WINDOW_SIZE is too large")
        change = window - self._initial_window
        self._initial_window = window
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > LARGEST:
                raise Fault(FLOW_CONTROL_ERROR, "flow_control", "a window that is too large")

    def _on_ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise Fault(PROTOCOL_ERROR, "protocol", "PING on a stream")  # RFC 9113 section 6.7
        if len(payload) != 8:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "PING of a wrong size")
        if flags & ACK:
            if self._drain_ping and payload == _DRAIN_PING:
                self.end_drain()
            return
        self.out.append(frame(PING, ACK, 0, payload))
        self._spend(costs.PING, "flood_ping")

    def _on_window_update(self, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "WINDOW_UPDATE of a wrong size")  # RFC 9113 section 6.9
        increment = int.from_bytes(payload, "big") & LARGEST
        self._spend(costs.SMALL_WINDOW if increment < SMALL else costs.WINDOW, "flood_window")
        if not id:
            if not increment:
                raise Fault(PROTOCOL_ERROR, "protocol", "a window update of nothing")
            was_shut = self.send_window <= 0
            self.send_window += increment
            if self.send_window > LARGEST:
                raise Fault(FLOW_CONTROL_ERROR, "flow_control", "a window that is too large")  # section 6.9.1
            if was_shut:  # else all that waits does so for windows of its own
                self._pump()
            return
        stream = self.streams.get(id)
        if stream is None:
            if id > self.last:
                raise Fault(PROTOCOL_ERROR, "protocol", "WINDOW_UPDATE on an idle stream")  # section 5.1
            return
        if not increment:
            self.refuse(stream, PROTOCOL_ERROR, "a window update of nothing")
            return
        stream.send_window += increment
        if stream.send_window > LARGEST:
            self.refuse(stream, FLOW_CONTROL_ERROR, "a window that is too large")
            return
        while id in self.waiting and self.writable and self._send_turn(stream):
            pass  # what other streams wait for has not changed

    # --- answers ----------------------------------------------------------------------------------------------------

    def send_head(self, stream: Stream, block: bytes, piece: bytes, end: bool) -> None:
        """The head of an answer, with the first piece of its body."""
        id = stream.id
        if not id:
            return
        if self._first_block:
            self._first_block = False
            block = NO_TABLE + block
        size = len(piece)
        if not size:
            self.out.append(headers(block, end, id))
            if end:
                self._on_sent(stream)
        elif size <= FRAME_SIZE and self.writable and size <= stream.send_window and size <= self.send_window:
            # By far the most frequent case, written out: all of the answer in one piece.
            self.out.append(headers(block, False, id))
            self.out.append(data_header(size, end, id))
            self.out.append(piece)
            stream.send_window -= size
            self.send_window -= size
            if end:
                self._on_sent(stream)
        else:
            self.out.append(headers(block, False, id))
            self.send_body(stream, piece, end)

    def send_interim(self, stream: Stream, block: bytes) -> None:
        """A 1xx head (RFC 9113 section 8.1)."""
        self.send_head(stream, block, b"", False)

    def send_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        """More of the body. What the windows do not let through waits."""
        if not stream.id:
            return
        if piece:
            stream.pending.append(piece)
            stream.pending_size += len(piece)
            self.pending_size += len(piece)
        stream.finish = end
        self._queue(stream)

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """The trailer fields, behind what waits; that is the answer's end."""
        if stream.id:
            stream.trailer_block = block
            stream.finish = True
            self._queue(stream)

    def _queue(self, stream: Stream) -> None:
        """Send what may be sent; the rest takes its turn with the other streams."""
        if stream.id not in self.waiting:
            stream.moved_at = self._now
            if self.writable:
                self._send_some(stream, FRAME_SIZE if self.waiting else LARGEST)
            if stream.id and stream.waits:
                self.waiting[stream.id] = stream

    def write_on(self, now: float) -> None:
        """The transport takes more again."""
        self._now = now
        self.writable = True
        self._allowance.pass_time(now, False)
        self._pump()

    def _pump(self) -> None:
        """Send what waits, a frame of each stream in turn, as far as windows and transport allow."""
        waiting = self.waiting
        moved = True
        while moved and waiting and self.writable:
            moved = False
            for stream in list(waiting.values()):
                if not stream.id or not self.writable:
                    continue
                moved |= self._send_turn(stream)

    def _send_turn(self, stream: Stream) -> bool:
        """Send a frame of a stream that waits. False: its window is shut."""
        moved = self._send_some(stream, FRAME_SIZE)
        if moved:
            stream.moved_at = self._now
        if stream.id:
            if not stream.waits:
                self.waiting.pop(stream.id, None)
            if stream.pending_size <= LOW_WATER and stream.user is not None:
                self._user.on_room(stream)
        return moved

    def _send_some(self, stream: Stream, most: int) -> bool:
        """Send up to `most` octets of the stream's body, and its end if that is due. False: its window is shut."""
        sent = False
        pending = stream.pending
        while pending and most > 0:
            piece = pending[0]
            offset = stream.offset
            size = min(len(piece) - offset, stream.send_window, self.send_window, FRAME_SIZE, most)
            if size <= 0:
                return sent
            if size < len(piece) - offset:
                stream.offset += size
                piece = piece[offset : offset + size]
                whole = size == FRAME_SIZE
            else:
                pending.popleft()
                stream.offset = 0
                piece = piece[offset:]
                whole = True
            stream.pending_size -= size
            self.pending_size -= size
            stream.send_window -= size
            self.send_window -= size
            most -= size
            end = stream.finish and not pending and not stream.trailer_block
            self.out.append(data_header(size, end, stream.id))
            self.out.append(piece)
            sent = True
            if whole or size >= SMALL:
                self._allowance.earn(costs.FRAME_EARNS)
            if end:
                self._on_sent(stream)
                return True
        if stream.finish and not pending:
            if stream.trailer_block:
                self.out.append(headers(stream.trailer_block, True, stream.id))
            else:
                self.out.append(data_header(0, True, stream.id))
            self._on_sent(stream)
            return True
        return sent

    # --- ends -------------------------------------------------------------------------------------------------------

    def _on_sent(self, stream: Stream) -> None:
        """The answer is sent whole. A request whose body has not ended needs no more of it (RFC 9113 section 8.1)."""
        self._allowance.earn(costs.ANSWER_EARNS)
        if not stream.ended:
            self.out.append(rst_stream(stream.id, NO_ERROR))
            self._note_reset(stream.id)
        self._drop(stream)

    def reset(self, stream: Stream, code: int = INTERNAL_ERROR) -> None:
        """Cut the stream off, for a reason of lb's own."""
        if stream.id:
            self.out.append(rst_stream(stream.id, code))
            self._note_reset(stream.id)
            self._drop(stream)

    def refuse(self, stream: Stream, code: int, text: str) -> None:
        """Reset the stream for a fault of the client's (RFC 9113 section 5.4.2), which costs what its own resets do."""
        if not stream.id:
            return
        self.reset(stream, code)
        self._user.on_refused(_REASONS.get(code, "malformed"))
        if stream.user is not None:
            self._user.on_reset(stream, text)
        self.blame()

    def blame(self) -> None:
        """The client has had lb do something in vain: a reset's worth."""
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
            self._credit(stream)
        if not self.streams:
            self._user.on_idle()

    def fail(self, code: int, reason: str = "", text: str = "") -> None:
        """End the connection (RFC 9113 section 5.4.1), after a last GOAWAY."""
        if self.failed is None:
            self.failed = Fault(code, reason, text)
            self.out.append(goaway(self.last, code, text.encode()))
            if reason:
                self._user.on_refused(reason)

    def begin_drain(self) -> None:
        """Tell the client to go elsewhere. Streams that are under way to lb are served still (section 6.8)."""
        if not self.noticed and self.final < 0:
            self.noticed = True
            self._drain_ping = True
            self.out.append(goaway(LARGEST, NO_ERROR))
            self.out.append(frame(PING, 0, 0, _DRAIN_PING))

    def end_drain(self) -> None:
        """From now on serve no further stream: the client has had its notice, or the time for it."""
        if self.final < 0:
            self._drain_ping = False
            self.final = self.last
            self.out.append(goaway(self.last, NO_ERROR))
            if not self.streams:
                self._user.on_idle()


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
