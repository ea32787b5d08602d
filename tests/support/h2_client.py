"""A client of HTTP/2 over a real socket, that sends whatever a test wants."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Self

from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from tests.support.front import Front
from tests.support.h2_peer import GET, PREFACE, Frames, raw, settings

#: Windows that no test fills.
WIDE = raw(8, 0, 0, b"\x3f\xff\xff\xff")


class Client:
    """One connection. `greet`: begin with the preface, and acknowledge lb's settings."""

    def __init__(self, front: Front | socket.socket, greet: bool = True, window: int = 1 << 24) -> None:
        self.sock = front if isinstance(front, socket.socket) else front.connect()
        self.frames = Frames()
        self.got: list[Frame] = []
        self.heads: dict[int, list[list[tuple[str, str]]]] = {}
        self.closed = False  # lb has ended the connection, and all that it sent was read
        self.broken = False  # it takes no more
        if greet:
            self.send(PREFACE, settings(window=window), WIDE, raw(4, 1, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> None:
        try:
            self.sock.sendall(b"".join(data))
        except OSError:
            self.broken = True

    def ask(self, stream: int, fields: list[tuple[str, str]] = GET, end: bool = True) -> None:
        self.send(self.frames.headers(stream, fields, end))

    def read(self, wait: float = 5.0) -> bool:
        """Read once. False: nothing came in time, or the connection is over."""
        self.sock.settimeout(wait)
        try:
            data = self.sock.recv(1 << 16)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        for frame in self.frames.read(data):
            self.got.append(frame)
            if isinstance(frame, HeadersFrame):
                fields = self.frames.decoder.decode(frame.data)
                self.heads.setdefault(frame.stream_id, []).append(fields)
        return True

    def until(self, condition: Callable[[], object], within: float = 5.0) -> None:
        """Read until it holds."""
        end = time.monotonic() + within
        while not condition():
            left = end - time.monotonic()
            assert left > 0 and (self.read(left) or condition()), f"{self.got[-20:]}, closed: {self.closed}"

    def until_closed(self, within: float = 5.0) -> float:
        """Read until the connection is over; returns the seconds."""
        begun = time.monotonic()
        self.until(lambda: self.closed, within)
        return time.monotonic() - begun

    def answer(self, stream: int, within: float = 5.0) -> tuple[int, dict[str, str], bytes]:
        """Status, fields and body, once the stream has ended."""
        self.until(lambda: self.ended(stream), within)
        final = next(head for head in self.heads[stream] if not head[0][1].startswith("1"))
        return int(final[0][1]), dict(final[1:]), self.body(stream)

    def ended(self, stream: int) -> bool:
        return any(frame.stream_id == stream and "END_STREAM" in frame.flags for frame in self.got)

    def body(self, stream: int) -> bytes:
        return b"".join(frame.data for frame in self.got if isinstance(frame, DataFrame) and frame.stream_id == stream)

    def reset(self, stream: int) -> int | None:
        """The code by which lb has reset a stream."""
        codes = [f.error_code for f in self.got if isinstance(f, RstStreamFrame) and f.stream_id == stream]
        return codes[0] if codes else None

    @property
    def goaways(self) -> list[tuple[int, int]]:
        """(last stream, code) of each GOAWAY."""
        return [(f.last_stream_id, f.error_code) for f in self.got if isinstance(f, GoAwayFrame)]

    @property
    def greeted(self) -> bool:
        return any(isinstance(frame, SettingsFrame) for frame in self.got)
