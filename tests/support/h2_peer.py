"""A client of HTTP/2 that may break every rule: frames by hyperframe, header blocks by hpack, none of them lb's."""

from __future__ import annotations

from typing import Any

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from lb.http.h1.parse import RequestError
from lb.http.h2.answer import lines_block
from lb.http.h2.connection import Connection, ConnectionUser
from lb.http.h2.hpack import encode_status
from lb.http.h2.stream import Stream
from lb.http.message import RequestHead

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")]
POST = [(":method", "POST"), *GET[1:]]


class Frames:
    """Writes and reads frames."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self._rest = b""

    def block(self, fields: list[tuple[str, str]]) -> bytes:
        return self.encoder.encode(fields)

    def headers(self, stream: int, fields: list[tuple[str, str]] | bytes = GET, end: bool = True) -> bytes:
        block = fields if isinstance(fields, bytes) else self.block(fields)
        frame = HeadersFrame(stream, block, flags=["END_HEADERS"])
        if end:
            frame.flags.add("END_STREAM")
        return frame.serialize()

    @staticmethod
    def data(stream: int, data: bytes = b"", end: bool = False, padding: int = 0) -> bytes:
        frame = DataFrame(stream, data)
        if end:
            frame.flags.add("END_STREAM")
        if padding:
            frame.flags.add("PADDED")
            frame.pad_length = padding
        return frame.serialize()

    def read(self, data: bytes) -> list[Frame]:
        """The whole frames in what has come so far."""
        data = self._rest + data
        frames = []
        while len(data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            if len(data) < 9 + length:
                break
            frame.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            frames.append(frame)
        self._rest = data
        return frames


def raw(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """Any frame, whatever is wrong with it."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    names = {
        "table": SettingsFrame.HEADER_TABLE_SIZE,
        "push": SettingsFrame.ENABLE_PUSH,
        "window": SettingsFrame.INITIAL_WINDOW_SIZE,
        "frame": SettingsFrame.MAX_FRAME_SIZE,
    }
    return SettingsFrame(0, settings={names[name]: value for name, value in values.items()}).serialize()


class Request:
    """A request that lb's side has got."""

    def __init__(self, stream: Stream, head: RequestHead) -> None:
        self.stream = stream
        self.head = head
        self.body = b"".join(stream.held)
        self.trailers = stream.trailers
        self.ended = stream.ended
        self.reset: str | None = None
        stream.user = self
        stream.held.clear()


class Server(ConnectionUser):
    """lb's side by itself: takes requests down, and answers when it is told to."""

    def __init__(self, points: float = 1000.0, header_size: int = 16384, header_count: int = 100) -> None:
        self.requests: list[Request] = []
        self.errors: list[RequestError] = []
        self.refused: list[str] = []
        self.idle = 0
        self.now = 1000.0
        self.connection = Connection(self, 8192, header_size, header_count, self.now, points)

    def on_request(self, stream: Stream, head: RequestHead) -> None:
        self.requests.append(Request(stream, head))
        self.connection.read_on(stream, True)

    def on_unwelcome(self, stream: Stream, error: RequestError, fields: list[tuple[bytes, bytes]]) -> None:
        self.errors.append(error)
        self.connection.send_head(stream, encode_status(error.status), b"", True)

    def on_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        request = self._of(stream)
        request.body += piece
        request.ended = end

    def on_trailers(self, stream: Stream, lines: bytes) -> None:
        request = self._of(stream)
        request.trailers = lines
        request.ended = True

    def on_reset(self, stream: Stream, reason: str) -> None:
        self._of(stream).reset = reason

    def on_room(self, stream: Stream) -> None:
        """Nothing more is to be sent."""

    @staticmethod
    def _of(stream: Stream) -> Request:
        assert isinstance(stream.user, Request)
        return stream.user

    def on_refused(self, reason: str) -> None:
        self.refused.append(reason)

    def on_idle(self) -> None:
        self.idle += 1

    def answer(self, request: Request, body: bytes = b"ok", end: bool = True, lines: bytes = b"") -> None:
        self.connection.send_head(request.stream, encode_status(200) + lines_block(lines), body, end)


class Talk:
    """A client and lb's side of one connection, in memory."""

    def __init__(self, greet: bool = True, **options: Any) -> None:
        self.server = Server(**options)
        self.frames = Frames()
        self.got: list[Frame] = []
        if greet:
            self.send(PREFACE, settings())

    def send(self, *data: bytes) -> list[Frame]:
        """Hand bytes over; returns the frames that come back."""
        for each in data:
            self.server.connection.receive(each, self.server.now)
        return self.take()

    def take(self) -> list[Frame]:
        out = self.server.connection.out
        frames = self.frames.read(b"".join(out))
        out.clear()
        self.got += frames
        return frames

    def ask(self, stream: int, fields: list[tuple[str, str]] | bytes = GET, end: bool = True) -> Request:
        """A request that passes."""
        count = len(self.server.requests)
        self.send(self.frames.headers(stream, fields, end))
        assert len(self.server.requests) == count + 1, self.got
        return self.server.requests[-1]

    @property
    def error(self) -> tuple[str, int] | None:
        """The error that has come back, of the connection or of a stream."""
        for frame in self.got:
            if isinstance(frame, GoAwayFrame) and frame.error_code:
                return "connection", frame.error_code
            if isinstance(frame, RstStreamFrame) and frame.error_code:
                return "stream", frame.error_code
        return None

    def body(self, stream: int) -> bytes:
        """All of an answer's body so far."""
        return b"".join(frame.data for frame in self.got if isinstance(frame, DataFrame) and frame.stream_id == stream)

    def fields(self, stream: int) -> list[list[tuple[str, str]]]:
        """The header blocks of a stream. (To be asked for once: the client's table moves.)"""
        blocks: list[list[tuple[str, str]]] = []
        parts = b""
        for frame in self.got:
            if isinstance(frame, HeadersFrame | ContinuationFrame):
                parts += frame.data
                if "END_HEADERS" in frame.flags:
                    fields = self.frames.decoder.decode(parts)
                    parts = b""
                    if frame.stream_id == stream:
                        blocks.append(fields)
        return blocks

    def ended(self, stream: int) -> bool:
        return any(frame.stream_id == stream and "END_STREAM" in frame.flags for frame in self.got)
