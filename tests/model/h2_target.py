"""A target's connection of HTTP/2: the script of a request is the one of `peers`, and streams may be refused besides.

Frames by hyperframe, blocks by hpack. What the target refuses (REFUSED_STREAM), or leaves out of its GOAWAY, it has not
seen: such a request is no arrival.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.model.clock import CLOCK
from tests.support.h2_peer import PREFACE, Frames, raw

if TYPE_CHECKING:
    from tests.model.peers import Arrival, Backend

RST, SETTINGS, PING, GOAWAY, WINDOW = 3, 4, 6, 7, 8
ACK = 1
INTERNAL_ERROR, REFUSED_STREAM = 2, 7
FRAME = 16384
#: Seconds between a target's decision to leave and its GOAWAY: streams that come meanwhile are not read.
LEAVING = 0.01
#: Seconds between its last answer behind the GOAWAY and the end of the connection.
CLOSING = 0.05
_PATH = re.compile(r"^/(?:[a-z]+/)*r/(\d+)")


@dataclass
class Stream:
    """A request that was taken."""

    id: int
    method: str
    window: int  # octets that lb lets it send
    do: dict[str, str]
    arrival: Arrival | None = None  # None: a probe
    waiting: int = 0  # octets of the answer's body that wait for a window
    tunnel: bool = False  # what comes is sent back


class Http2Conversation(asyncio.Protocol):
    """A connection to a target that has begun with the preface of HTTP/2."""

    def __init__(self, backend: Backend, transport: Any) -> None:
        self.backend = backend
        self.transport = transport
        self.streams: dict[int, Stream] = {}
        self.newest = 0  # the last stream that was taken or refused
        self.left_out: set[int] = set()  # streams that the GOAWAY to come leaves out
        self.leaving = False  # no further stream is taken
        self.told = False  # …and lb was sent the GOAWAY
        self.limits = [backend.streams]  # streams at one time: in force, and those that lb has yet to acknowledge
        self._frames = Frames()
        self._window = self._initial = 65535
        self._preface = len(PREFACE)
        self._first = True
        transport.write(SettingsFrame(0, settings=self._settings()).serialize())
        transport.write(raw(WINDOW, 0, 0, (1 << 24).to_bytes(4, "big")))

    def _settings(self) -> dict[int, int]:
        takes = {SettingsFrame.ENABLE_CONNECT_PROTOCOL: 1} if self.backend.websockets else {}
        return {SettingsFrame.MAX_CONCURRENT_STREAMS: self.limits[-1], **takes}

    # --- as of any connection to a target ---------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self.streams)

    def abort(self) -> None:
        self._break_off()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._break_off()
        self.backend.connections.discard(self)

    def _break_off(self) -> None:
        """What is under way gets no (whole) answer."""
        for stream in list(self.streams.values()):
            if stream.arrival is not None:
                stream.arrival.fails = stream.arrival.fails or not stream.arrival.answered
            self._over(stream)

    # --- what steps do ----------------------------------------------------------------------------------------------

    def limit(self, streams: int) -> None:
        """From lb's acknowledgement on no more streams begin while so many are open."""
        self.limits.append(streams)
        self.transport.write(SettingsFrame(0, settings=self._settings()).serialize())

    def leave(self, at_once: bool) -> None:
        """End with the requests that were taken so far. Unless it is said at once, some more come meanwhile."""
        if self.leaving:
            return
        self.leaving = True
        if at_once:
            self._goaway()
        else:
            asyncio.get_running_loop().call_later(LEAVING, self._goaway)

    def _goaway(self) -> None:
        if self.transport.is_closing() or self.told:
            return
        self.told = True
        self.transport.write(raw(GOAWAY, 0, 0, self.newest.to_bytes(4, "big") + bytes(4)))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self.told and not self.streams:
            # At once, unread requests would turn the close into a reset, which may eat the GOAWAY.
            asyncio.get_running_loop().call_later(CLOSING, self.transport.close)

    # --- frames -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._preface:
            taken = min(self._preface, len(data))
            data, self._preface = data[taken:], self._preface - taken
        for frame in self._frames.read(data):
            if not self.transport.is_closing():
                self._on_frame(frame)

    def _on_frame(self, frame: Frame) -> None:
        if isinstance(frame, HeadersFrame):
            self._on_head(frame)
        elif isinstance(frame, DataFrame):
            self._on_data(frame)
        elif isinstance(frame, WindowUpdateFrame):
            self._on_window(frame)
        elif isinstance(frame, RstStreamFrame):
            stream = self.streams.get(frame.stream_id)
            if stream is not None:
                self._over(stream)
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.transport.write(raw(PING, ACK, 0, frame.opaque_data))
        elif isinstance(frame, SettingsFrame):
            self._on_settings(frame)

    def _on_settings(self, frame: Any) -> None:
        if "ACK" in frame.flags:
            if not self._first:
                del self.limits[0]
            self._first = False
            return
        initial = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._initial)
        for stream in self.streams.values():
            stream.window += initial - self._initial
        self._initial = initial
        self.transport.write(raw(SETTINGS, ACK, 0))

    def _on_window(self, frame: Any) -> None:
        if not frame.stream_id:
            self._window += frame.window_increment
        elif frame.stream_id in self.streams:
            self.streams[frame.stream_id].window += frame.window_increment
        for stream in list(self.streams.values()):
            self._write(stream)

    def _on_data(self, frame: Any) -> None:
        stream = self.streams.get(frame.stream_id)
        size = frame.flow_controlled_length
        if size:
            self.transport.write(raw(WINDOW, 0, 0, size.to_bytes(4, "big")))
        if stream is None:
            return
        if stream.tunnel:
            ended = "END_STREAM" in frame.flags
            self.transport.write(self._frames.data(stream.id, frame.data, ended))
            if ended:
                self._over(stream)
                return
        if "END_STREAM" in frame.flags:
            self._whole(stream)
        elif size:
            self.transport.write(raw(WINDOW, 0, stream.id, size.to_bytes(4, "big")))

    def _on_head(self, frame: Any) -> None:
        named = dict(self._frames.decoder.decode(frame.data))
        id, backend = frame.stream_id, self.backend
        if id in self.streams:
            self._whole(self.streams[id])  # its trailers
            return
        if self.leaving:
            return  # the GOAWAY leaves it out
        self.newest = id
        if len(self.streams) >= max(self.limits):
            backend.on_fault(f"{backend} has {len(self.streams) + 1} streams at once, allowed: {self.limits}")
        number = _PATH.match(named[":path"])
        if number is not None and backend.refuses:
            backend.refuses -= 1
            self.transport.write(raw(RST, 0, id, REFUSED_STREAM.to_bytes(4, "big")))
            return
        do = dict(part.split("=") for part in named["x-do"].split(",")) if named.get("x-do") else {}
        asked = named.get(":protocol", "")
        if ("tunnel" in do) != bool(asked) or (asked and not backend.websockets):
            backend.on_fault(f"{backend} is asked for a WebSocket by {named}, extended CONNECT: {backend.websockets}")
        stream = self.streams[id] = Stream(id, named[":method"], self._initial, do)
        if number is not None:
            stream.arrival = backend.arrive(int(number[1]), stream.method, do)
        if "END_STREAM" in frame.flags or asked:
            self._whole(stream, named[":path"])

    def _whole(self, stream: Stream, path: str = "") -> None:
        """The request has come, to its end."""
        if stream.arrival is None:
            passes = self.backend.passes_probe(path)
            if passes is not None:
                words = [line.partition(": ")[::2] for line in self.backend.words.split("\r\n") if line]
                self._head(stream, 200 if passes else 503, [*words, ("content-length", "0")] if passes else [], True)
                self._over(stream)
            return
        self._answer(stream)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, stream: Stream) -> None:
        mood, do = self.backend.mood, stream.do
        loop = asyncio.get_running_loop()
        if "tunnel" in do and mood == "well":
            stream.tunnel = True
            self._head(stream, 200, [("x-backend", self.backend.address)], False)
            if stream.arrival is not None:
                stream.arrival.answered = True
            return
        if mood in ("reset", "close") and stream.method == "POST":
            mood = "500"  # as over HTTP/1.1
        if mood == "hang":
            return
        if mood == "reset":
            self.transport.write(raw(RST, 0, stream.id, INTERNAL_ERROR.to_bytes(4, "big")))
            self._over(stream)
        elif mood == "close":
            self._break_off()
            self.transport.close()
        elif "interim" in do:
            loop.call_later(float(do["interim"]), self._go_on_working, stream, mood)
        elif "delay" in do:
            loop.call_later(float(do["delay"]), self._reply, stream, mood)
        else:
            self._reply(stream, mood)

    def _go_on_working(self, stream: Stream, mood: str) -> None:
        if stream.id in self.streams and not self.transport.is_closing():
            self._head(stream, 102, [], False)
            asyncio.get_running_loop().call_later(float(stream.do["interim"]), self._reply, stream, mood)

    def _reply(self, stream: Stream, mood: str) -> None:
        if stream.id not in self.streams or self.transport.is_closing():
            return
        do = stream.do
        status = int(do.get("status", 200)) if mood == "well" else 500
        for _ in range(int(do.get("hints", 0)) // 12):
            self._head(stream, 103, [("link", "l" * 12_000)], False)
        fields = [("x-backend", self.backend.address)]
        size = int(do.get("size", 2))
        if "chunked" not in do:
            fields.append(("content-length", str(size)))
        empty = stream.method == "HEAD" or not size
        self._head(stream, status, fields, empty)
        if stream.arrival is not None:
            stream.arrival.answered = True
            stream.arrival.over = CLOCK.now
        if "close" in do:
            self.leave(True)
        stream.waiting = 0 if empty else size
        if empty:
            self._over(stream)
        else:
            self._write(stream)

    def _head(self, stream: Stream, status: int, fields: list[tuple[str, str]], end: bool) -> None:
        lowered = [(name.lower(), value) for name, value in fields]
        self.transport.write(self._frames.headers(stream.id, [(":status", str(status)), *lowered], end))

    def _write(self, stream: Stream) -> None:
        """What the windows let through."""
        while stream.waiting:
            size = min(FRAME, stream.waiting, stream.window, self._window)
            if size <= 0:
                return
            stream.waiting -= size
            stream.window -= size
            self._window -= size
            self.transport.write(self._frames.data(stream.id, b"x" * size, not stream.waiting))
            if not stream.waiting:
                self._over(stream)

    def _over(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        if stream.arrival is not None and not stream.arrival.over:
            stream.arrival.over = CLOCK.now
        self._close_if_done()
