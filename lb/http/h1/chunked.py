"""Chunked bodies (RFC 9112 section 7.1), read strictly and forwarded with or without their framing.

The scanner follows the framing to the body's end. It refuses framing that two parsers could read differently. Refused
are a size with a sign, spaces, `0x` or more than 15 digits, a line without CR, and data without CRLF behind it. Chunk
extensions have no meaning beyond this hop (section 7.1.1): they are bounded and dropped. A trailer section is checked
as a whole. Fields that may not stand in it are removed, and the rest is forwarded when the caller wants trailers.
"""

from __future__ import annotations

import re
from typing import Final

from lb.http.h1.parse import read_trailers

#: Fifteen hexadecimal digits stay below 2**63, where parsers in other languages overflow.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15}+)(;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
_EXTENSION: Final = re.compile(
    rb"(?:[ \t]*+;[ \t]*+[!#$%&'*+.^_`|~0-9A-Za-z-]++"
    rb"(?:[ \t]*+=[ \t]*+(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++|\"(?:[^\"\\\r\n]|\\.)*+\"))?+)*+"
)
_LINE_LIMIT: Final = 1024
_EXTENSIONS_LIMIT: Final = 16384  # bytes of extensions in one body
_TRAILER_LIMIT: Final = 16384

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_DONE: Final = 4


class BadChunk(ValueError):  # noqa: N818 - as BadResponse
    """The body's framing is malformed: no byte after this point can be trusted."""


class ChunkedBody:
    """One chunked body on its way through.

    `framed`: forward data with its framing (both sides speak HTTP/1.1); otherwise the data alone.
    `trailers`: with the framing, forward trailer fields; otherwise drop them.
    `payload`: bytes of data so far, without framing and trailers.
    `trailer_lines`: the trailer fields that may be forwarded, whole lines, once the body has ended.
    `wire`: without `framed`, a list that collects the data with its framing, except the last chunk and the trailers.
    None when no stream splices the body.
    """

    __slots__ = (
        "_extensions",
        "_held",
        "_remaining",
        "_state",
        "framed",
        "payload",
        "trailer_lines",
        "trailers",
        "wire",
    )

    def __init__(self, framed: bool = True, trailers: bool = True) -> None:
        self.framed = framed
        self.trailers = trailers
        self.payload = 0
        self.trailer_lines = b""
        self.wire: list[bytes] | None = None
        self._state = _SIZE
        self._remaining = 0  # bytes of chunk data still to come
        self._held = b""  # an unfinished line
        self._extensions = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take the next bytes. Returns (bytes to forward, offset of the body's end in `data` or -1).

        Raises `BadChunk`.
        """
        state, wire = self._state, self.wire
        if state == _DATA and self._remaining >= len(data):  # the middle of a large chunk
            self._remaining -= len(data)
            self.payload += len(data)
            if not self._remaining:
                self._state = _DATA_END
            if wire is not None:
                wire.append(data)
            return data, -1
        shift = 0
        if self._held:
            shift = len(self._held)
            data = self._held + data
            self._held = b""
        out: list[bytes] = []
        position = 0
        size = len(data)
        while position < size:
            if state == _SIZE:
                match = _SIZE_LINE.match(data, position)
                if match is None:
                    self._hold_line(data, position)
                    break
                length = int(match[1], 16)
                if match[2] is not None:
                    self._check_extension(match[2])
                position = match.end()
                if length:
                    if self.framed:
                        out.append(match[0] if match[2] is None else match[1] + b"\r\n")
                    elif wire is not None:
                        wire.append(match[0] if match[2] is None else match[1] + b"\r\n")
                    self._remaining = length
                    state = _DATA
                else:
                    state = _TRAILER
            elif state == _DATA:
                piece = data[position : position + self._remaining]
                out.append(piece)
                if wire is not None:
                    wire.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                self.payload += len(piece)
                if not self._remaining:
                    state = _DATA_END
            elif state == _DATA_END:
                end = data[position : position + 2]
                if end != b"\r\n":
                    if end == b"\r":
                        self._held = end
                        break
                    raise BadChunk("chunk data is not followed by CRLF")
                if self.framed:
                    out.append(end)
                elif wire is not None:
                    wire.append(end)
                position += 2
                state = _SIZE
            else:  # _TRAILER: everything up to the empty line
                if data.startswith(b"\r\n", position):
                    end_at, block = position, b""
                else:
                    border = data.find(b"\r\n\r\n", position)
                    if border < 0:
                        self._hold_trailer(data, position)
                        break
                    end_at = border + 2
                    block = data[position:end_at]
                if len(block) > _TRAILER_LIMIT:
                    raise BadChunk(f"the trailer section is longer than {_TRAILER_LIMIT} bytes")
                try:
                    self.trailer_lines = lines = read_trailers(block) if block else b""
                except ValueError as error:
                    raise BadChunk(f"trailer: {error}") from None
                if self.framed:
                    out.append(b"0\r\n" + (lines if self.trailers else b"") + b"\r\n")
                self._state = _DONE
                return b"".join(out), end_at + 2 - shift
        self._state = state
        return (out[0] if len(out) == 1 else b"".join(out)), -1

    def _hold_line(self, data: bytes, position: int) -> None:
        rest = data[position:]
        newline = rest.find(b"\n")
        if newline >= 0:
            raise BadChunk("a chunk size that is not a plain hexadecimal number")
        if len(rest) > _LINE_LIMIT:
            raise BadChunk(f"a chunk size line longer than {_LINE_LIMIT} bytes")
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e\x80-\xff]*+)?\r?", rest):
            raise BadChunk("a chunk size that is not a plain hexadecimal number")
        self._held = rest

    def _hold_trailer(self, data: bytes, position: int) -> None:
        rest = data[position:]
        if re.search(rb"(?<!\r)\n|\r(?!\n|\Z)|\x00", rest):
            raise BadChunk("a bare CR, LF or NUL in the trailer section")
        if len(rest) > _TRAILER_LIMIT:
            raise BadChunk(f"the trailer section is longer than {_TRAILER_LIMIT} bytes")
        self._held = rest

    def _check_extension(self, extension: bytes) -> None:
        if len(extension) > _LINE_LIMIT:
            raise BadChunk(f"a chunk extension longer than {_LINE_LIMIT} bytes")
        self._extensions += len(extension)
        if self._extensions > _EXTENSIONS_LIMIT:
            raise BadChunk(f"more than {_EXTENSIONS_LIMIT} bytes of chunk extensions")
        if not _EXTENSION.fullmatch(extension):
            raise BadChunk("a malformed chunk extension")
