"""A client's connection of HTTP/2 by prior knowledge: many requests at once. Frames by hyperframe, blocks by hpack.

It keeps the rules that lb's drain relies on (RFC 9113 section 6.8): after a GOAWAY it begins no stream, and it answers
a PING at once. So no stream of it may be left out by the last GOAWAY.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.model.clock import CLOCK
from tests.model.peers import COOKIE, Answer, Client, Wish
from tests.support.h2_peer import PREFACE, Frames, raw

RST, SETTINGS, PING, GOAWAY, WINDOW = 3, 4, 6, 7, 8
ACK = 1
CANCEL = 8
#: Streams of one client at one time, fewer than lb's bound of 100.
STREAMS = 30
#: Octets that lb may send ahead on one stream, and on all of them.
NARROW, WIDE = 65535, 1 << 24


@dataclass
class Stream:
    """A request under way."""

    wish: Wish
    future: asyncio.Future[Answer]
    since: float
    answer: Answer = field(default_factory=Answer)
    length: int = -1  # that the head has named
    got: int = 0  # octets of the body
    text: bytes = b""
    unread: int = 0  # octets whose window was not given back, as the client holds them back


class Http2Client(Client):
    """One connection. `on_fault` is called with each thing that no client should see."""

    def __init__(self, window: int = WIDE) -> None:
        super().__init__()
        self.on_fault: Callable[[str], None] = lambda text: None
        self.streams: dict[int, Stream] = {}
        self.held: set[int] = set()  # streams whose windows stay shut
        self._window = window
        self._frames = Frames()
        self._next = 1
        self._unread = 0

    # --- as of any client -------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a request would wait behind another one: none does."""
        return False

    @property
    def idle(self) -> bool:
        return self.open and not self.streams and not self.transport.is_closing()

    @property
    def has_room(self) -> bool:
        return self.open and not self.last and len(self.streams) < STREAMS and not self.transport.is_closing()

    def send(self, wish: Wish) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        wish.sender = self.number
        if not self.open or self.last:
            future.set_result(Answer())
            return future
        id, self._next = self._next, self._next + 2
        self.streams[id] = Stream(wish, future, CLOCK.now)
        pieces = [b"b" * (wish.chunk or wish.body)] * (wish.body // (wish.chunk or wish.body)) if wish.body else []
        out = [self._frames.headers(id, fields_of(wish), not pieces and not wish.websocket)]
        out += [self._frames.data(id, piece, False) for piece in pieces[:-1]]
        out += [self._frames.data(id, piece, True) for piece in pieces[-1:]]
        self.transport.write(b"".join(out))
        return future

    # --- what steps do ----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        [id] = [id for id, stream in self.streams.items() if stream.wish.websocket]
        self.transport.write(self._frames.data(id, data))

    def reset(self, id: int) -> None:
        """Give a request up."""
        stream = self.streams.pop(id, None)
        if stream is not None and self.open:
            self.held.discard(id)
            self.transport.write(raw(RST, 0, id, CANCEL.to_bytes(4, "big")))
            self._end(stream, Answer(begun=stream.answer.begun))

    def hold(self, id: int) -> None:
        """Give no window back for a stream, so that its answer stops at the window's size."""
        self.held.add(id)

    def release(self) -> None:
        """Take all answers that were held back."""
        for id in sorted(self.held):
            stream = self.streams.get(id)
            if stream is not None and stream.unread and self.open:
                self.transport.write(raw(WINDOW, 0, id, stream.unread.to_bytes(4, "big")))
                stream.unread = 0
        self.held.clear()

    # --- transport --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        settings = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: self._window})
        self.transport.write(PREFACE + settings.serialize() + raw(WINDOW, 0, 0, (WIDE * 8).to_bytes(4, "big")))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            self._end(stream, Answer(begun=stream.answer.begun))

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.read(data):
            self._on_frame(frame)

    def _on_frame(self, frame: Frame) -> None:
        if isinstance(frame, HeadersFrame):
            self._on_head(frame)
        elif isinstance(frame, DataFrame):
            self._on_data(frame)
        elif isinstance(frame, RstStreamFrame):
            stream = self.streams.pop(frame.stream_id, None)
            if stream is not None:
                self._end(stream, Answer(begun=stream.answer.begun))
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.transport.write(raw(SETTINGS, ACK, 0))
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.transport.write(raw(PING, ACK, 0, frame.opaque_data))
        elif isinstance(frame, GoAwayFrame):
            self._on_goaway(frame)

    def _on_goaway(self, frame: Any) -> None:
        self.last = True
        if frame.error_code:
            self.on_fault(f"GOAWAY with code {frame.error_code}: {frame.additional_data!r}")
        for id in [id for id in self.streams if id > frame.last_stream_id]:
            stream = self.streams.pop(id)
            self.on_fault(f"the last GOAWAY ({frame.last_stream_id}) leaves out stream {id}: {stream.wish}")
            self._end(stream, Answer())

    def _on_head(self, frame: Any) -> None:
        fields = self._frames.decoder.decode(frame.data)
        id = frame.stream_id
        stream = self.streams.get(id)
        if stream is None:
            if id >= self._next:
                self.on_fault(f"an answer on stream {id}, which was not begun")
            return
        named = dict(fields)
        status = int(named.get(":status", 0))
        if 100 <= status < 200:
            return
        if stream.answer.begun and status:
            self.on_fault(f"a second answer to {stream.wish}: {status}")
        if status:
            backend = named.get("x-backend", "")
            stream.answer = Answer(status, named.get("server") == "lb" and not backend, "", backend, begun=True)
            stream.answer.request_id = named.get("x-request-id", "")
            given = COOKIE.search(named.get("set-cookie", ""))
            stream.answer.cookie = given[1] if given else ""
            stream.length = int(named.get("content-length", -1))
            if stream.wish.websocket and status == 200:
                self.tunnel = True
                self._end(stream, stream.answer)
        if "END_STREAM" in frame.flags:
            self._done(id, stream)

    def _on_data(self, frame: Any) -> None:
        id, size = frame.stream_id, frame.flow_controlled_length
        stream = self.streams.get(id)
        ended = "END_STREAM" in frame.flags
        if size:
            self.transport.write(raw(WINDOW, 0, 0, size.to_bytes(4, "big")))
        if stream is None:
            return  # it was reset
        stream.got += len(frame.data)
        if self.tunnel and stream.wish.websocket:
            self.came += frame.data
        stream.text = (stream.text + frame.data)[:300]
        if size and not ended:
            if id in self.held:
                stream.unread += size
            else:
                self.transport.write(raw(WINDOW, 0, id, size.to_bytes(4, "big")))
        if ended:
            self._done(id, stream)

    def _done(self, id: int, stream: Stream) -> None:
        del self.streams[id]
        self.held.discard(id)
        if stream.length not in (-1, stream.got) and stream.wish.method != "HEAD":
            self.on_fault(f"{stream.got} octets of {stream.length} in the answer to {stream.wish}")
        stream.answer.text = stream.text.decode("latin-1")
        self._end(stream, stream.answer)

    def _end(self, stream: Stream, answer: Answer) -> None:
        answer.seconds = CLOCK.now - stream.since
        if not stream.future.done():
            stream.future.set_result(answer)


def fields_of(wish: Wish) -> list[tuple[str, str]]:
    """A request's head. A WebSocket's is an extended CONNECT (RFC 8441 section 4)."""
    fields = [(":method", "CONNECT"), (":protocol", "websocket")] if wish.websocket else [(":method", wish.method)]
    fields += [(":scheme", "http"), (":authority", wish.host), (":path", f"{wish.route}/r/{wish.number}")]
    unasked = ("Connection", "Upgrade", "Sec-WebSocket-Key") if wish.websocket else ()
    fields += [(name.lower(), value) for name, value in wish.fields.items() if name not in unasked]
    if wish.do:
        fields.append(("x-do", ",".join(f"{key}={value}" for key, value in wish.do.items())))
    fields.append(("x-sender", str(wish.sender)))
    if (wish.body or wish.method == "POST") and not wish.chunk:
        fields.append(("content-length", str(wish.body)))
    return fields
