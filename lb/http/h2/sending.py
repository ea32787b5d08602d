"""Sender: the sending half of a connection: heads, bodies within both windows, and what waits for them.

What the windows, or the transport, do not let through waits with its stream. Streams that wait take turns of a frame.
"""

from __future__ import annotations

from typing import Final

from lb.http.h2 import allowance as costs
from lb.http.h2.allowance import SMALL, Allowance
from lb.http.h2.fault import Fault
from lb.http.h2.frames import FLOW_CONTROL_ERROR, FRAME_SIZE, LARGEST, data_header, headers
from lb.http.h2.hpack import NO_TABLE
from lb.http.h2.stream import Stream

#: Octets of a body that wait for a window until its source's reading stops, and from which on it goes on.
HIGH_WATER: Final = 65536
LOW_WATER: Final = 16384
#: The window that both peers have until they say otherwise (RFC 9113 section 6.9.2).
DEFAULT_WINDOW: Final = 65535


class Sender:
    """Of one connection. What is to be written is in `out`. A subclass says what follows when a stream is sent."""

    __slots__ = (
        "_allowance",
        "_first_block",
        "_initial_window",
        "_now",
        "out",
        "pending_size",
        "send_window",
        "streams",
        "waiting",
        "writable",
    )

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._now = now
        self._first_block = True
        self._initial_window = DEFAULT_WINDOW
        self.out: list[bytes] = []
        self.streams: dict[int, Stream] = {}
        self.waiting: dict[int, Stream] = {}  # streams with something that waits to be sent, in turn
        self.send_window = DEFAULT_WINDOW
        self.pending_size = 0  # octets of all streams that wait to be sent
        self.writable = True  # the transport takes more

    def _on_sent(self, stream: Stream) -> None:
        """All of the stream is sent."""
        raise NotImplementedError

    def _on_room(self, stream: Stream) -> None:
        """Of the stream's body, little waits any more, or nothing of the whole stream: then its `id` is 0."""
        raise NotImplementedError

    def send_head(self, stream: Stream, block: bytes, piece: bytes, end: bool) -> None:
        """A head, with the first piece of its body."""
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
            # By far the most frequent case, written out: all of it in one piece.
            self.out.append(headers(block, False, id))
            self.out.append(data_header(size, end, id))
            self.out.append(piece)
            stream.send_window -= size
            self.send_window -= size
            if end:
                self._on_sent(stream)
            else:
                self._allowance.sent(costs.FRAME_EARNS)
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
        """The trailer fields, behind what waits; that is its end."""
        if stream.id:
            stream.trailer_block = block
            stream.finish = True
            self._queue(stream)

    def _queue(self, stream: Stream) -> None:
        """Send what may be sent; the rest takes its turn with the other streams.

        Nothing that waits already could go on now. While the connection's window is open and the transport takes more,
        it waits for a window of its own, and so this stream takes nobody's turn.
        """
        if stream.id not in self.waiting:
            stream.moved_at = self._now
            if self.writable:
                self._send_some(stream, LARGEST)
            if stream.id and stream.waits:
                self.waiting[stream.id] = stream

    def write_on(self, now: float) -> None:
        """The transport takes more again."""
        self._now = now
        self.writable = True
        self._allowance.pass_time(now, False)
        self._pump()

    def widen(self, increment: int) -> None:
        """The peer has widened the connection's window."""
        was_shut = self.send_window <= 0
        self.send_window += increment
        if self.send_window > LARGEST:
            raise Fault(FLOW_CONTROL_ERROR, "flow_control", "a window that is too large")  # section 6.9.1
        if was_shut:  # else all that waits does so for windows of its own
            self._pump()

    def widen_stream(self, stream: Stream, increment: int) -> bool:
        """The peer has widened a stream's window. False: it is too large."""
        stream.send_window += increment
        if stream.send_window > LARGEST:
            return False
        while stream.id in self.waiting and self.writable and self._send_turn(stream):
            pass  # what other streams wait for has not changed
        return True

    def _resize(self, window: int) -> None:
        """The peer gives its streams another window. A negative one is legal, and waits (RFC 9113 section 6.9.2)."""
        if window > LARGEST:
            raise Fault(FLOW_CONTROL_ERROR, "flow_control", "INITIAL_WINDOW_SIZE is too large")
        change = window - self._initial_window
        self._initial_window = window
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > LARGEST:
                raise Fault(FLOW_CONTROL_ERROR, "flow_control", "a window that is too large")

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
        if stream.id and not stream.waits:
            self.waiting.pop(stream.id, None)
        if stream.pending_size <= LOW_WATER and stream.user is not None:
            self._on_room(stream)
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
                self._allowance.sent(costs.FRAME_EARNS)
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
