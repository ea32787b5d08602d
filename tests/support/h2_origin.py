"""A target that speaks HTTP/2 and may break every rule: frames by hyperframe, header blocks by hpack, none lb's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.front import OK, Origin, Script
from tests.support.h2_peer import PREFACE, Frames, raw

PING, GOAWAY, WINDOW, RST, SETTINGS = 6, 7, 8, 3, 4
MAX_STREAMS, WINDOW_SIZE = SettingsFrame.MAX_CONCURRENT_STREAMS, SettingsFrame.INITIAL_WINDOW_SIZE


@dataclass
class Asked:
    """A request that has come."""

    stream: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    def get(self, name: str) -> str | None:
        return dict(self.fields).get(name)

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]


class Peer:
    """The target's side of one connection. `credit`: it gives back the windows of what it gets."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin, credit: bool = True
    ) -> None:
        self.reader, self.writer, self.origin = reader, writer, origin
        self.frames = Frames()
        self.credit = credit
        self.asked: dict[int, Asked] = {}
        self.got: list[Frame] = []
        self.answer_pings = True

    async def greet(self, settings: dict[int, int] | None = None, begun: bytes = b"") -> None:
        """Take the preface, of which the beginning has been read already."""
        assert begun + await self.reader.readexactly(len(PREFACE) - len(begun)) == PREFACE
        self.send(SettingsFrame(0, settings=settings or {}).serialize())

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def read(self) -> list[Asked]:
        """Read once; returns the requests that something has come of."""
        data = await self.reader.read(1 << 16)
        if not data:
            raise ConnectionResetError
        touched: list[Asked] = []
        for frame in self.frames.read(data):
            self.got.append(frame)
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(raw(SETTINGS, 1, 0))
            elif isinstance(frame, PingFrame) and "ACK" not in frame.flags and self.answer_pings:
                self.send(raw(PING, 1, 0, frame.opaque_data))
            elif isinstance(frame, HeadersFrame):
                fields = self.frames.decoder.decode(frame.data)
                known = self.asked.get(frame.stream_id)
                if known is None:
                    known = self.asked[frame.stream_id] = Asked(frame.stream_id, fields)
                else:
                    known.trailers = fields
                known.ended = "END_STREAM" in frame.flags
                touched.append(known)
            elif isinstance(frame, DataFrame):
                known = self.asked[frame.stream_id]
                known.body += frame.data
                known.ended = "END_STREAM" in frame.flags
                size = frame.flow_controlled_length
                if self.credit and size:
                    self.send(raw(WINDOW, 0, 0, size.to_bytes(4, "big")))
                    if not known.ended:
                        self.send(raw(WINDOW, 0, frame.stream_id, size.to_bytes(4, "big")))
                touched.append(known)
            elif isinstance(frame, RstStreamFrame):
                self.asked[frame.stream_id].reset = frame.error_code
                touched.append(self.asked[frame.stream_id])
        return touched

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self.read()

    async def request(self, number: int = 1, ended: bool = True) -> Asked:
        """The connection's request of that number, whole."""
        await self.until(lambda: len(self.asked) >= number and (self._nth(number).ended or not ended))
        return self._nth(number)

    def _nth(self, number: int) -> Asked:
        return list(self.asked.values())[number - 1]

    def head(self, stream: int, *fields: tuple[str, str], status: int = 200, end: bool = False) -> None:
        self.send(self.frames.headers(stream, [(":status", str(status)), *fields], end))

    def data(self, stream: int, data: bytes = b"", end: bool = False) -> None:
        self.send(self.frames.data(stream, data, end))

    def answer(self, stream: int, body: bytes = b"ok", status: int = 200) -> None:
        self.head(stream, ("content-length", str(len(body))), status=status)
        self.data(stream, body, True)

    def trailers(self, stream: int, *fields: tuple[str, str]) -> None:
        self.send(self.frames.headers(stream, list(fields), True))

    def reset(self, stream: int, code: int) -> None:
        self.send(raw(RST, 0, stream, code.to_bytes(4, "big")))

    def goaway(self, last: int, code: int = 0, text: bytes = b"") -> None:
        self.send(raw(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text))

    @property
    def left(self) -> bool:
        """lb has said that it goes."""
        return any(isinstance(frame, GoAwayFrame) for frame in self.got)

    def updates(self, stream: int) -> int:
        """Octets that lb has given back to a window."""
        return sum(
            frame.window_increment
            for frame in self.got
            if isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream
        )


#: What a test has a target do with one request.
Handler = Callable[[Peer, Asked], Awaitable[None] | None]


def speaks(handler: Handler | None = None, *, settings: dict[int, int] | None = None, credit: bool = True) -> Script:
    """Answers each request once it is whole, or has `handler` do so. Whole requests are noted as `origin.requests`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        peer = Peer(reader, writer, origin, credit)
        await peer.greet(settings)
        await _serve(peer, handler)

    return script


def speaks_both(handler: Handler) -> Script:
    """HTTP/2 with prior knowledge, or HTTP/1.1: as the client begins. Requests of HTTP/1.1 are answered with `ok`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if PREFACE.startswith(head):
                peer = Peer(reader, writer, origin)
                await peer.greet(begun=head)
                await _serve(peer, handler)
            length = re.search(rb"(?i)content-length: ([0-9]+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(OK)

    return script


async def _serve(peer: Peer, handler: Handler | None) -> None:
    done: set[int] = set()
    while True:
        for asked in await peer.read():
            if asked.ended and asked.stream not in done and asked.reset is None:
                done.add(asked.stream)
                peer.origin.requests.append(f"{asked[':method']} {asked[':path']}".encode())
                if handler is None:
                    peer.answer(asked.stream)
                elif (waits := handler(peer, asked)) is not None:
                    await waits
