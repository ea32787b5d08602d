"""Frames (RFC 9113 section 4 and 6): their types, flags and error codes, and how lb writes them."""

from __future__ import annotations

from struct import Struct
from typing import Final

# Types (RFC 9113 section 6; PRIORITY_UPDATE: RFC 9218 section 7.1).
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags.
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

# Settings (section 6.5.2; ENABLE_CONNECT_PROTOCOL: RFC 8441 section 3).
HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8

# Error codes (section 7).
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
SETTINGS_TIMEOUT: Final = 4
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

#: The bytes that a client's connection begins with (section 3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: The part of it that an HTTP/1 parser takes for a request's head.
PREFACE_HEAD: Final = b"PRI * HTTP/2.0\r\n\r\n"

#: The largest payload that lb takes and sends: the protocol's default (section 4.2).
FRAME_SIZE: Final = 16384
HEADER_SIZE: Final = 9
#: Length (high and low part), type, flags, stream.
HEADER: Final = Struct(">BHBBL")
#: The largest window (section 6.9.1), and the largest stream identifier.
LARGEST: Final = 0x7FFFFFFF

_CODE: Final = Struct(">BHBBLL")
_GOAWAY: Final = Struct(">BHBBLLL")
_SETTING: Final = Struct(">HL")

SETTINGS_ACK: Final = HEADER.pack(0, 0, SETTINGS, ACK, 0)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Any frame."""
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def data_header(size: int, end: bool, stream: int) -> bytes:
    """What stands before a piece of a body."""
    return HEADER.pack(size >> 16, size & 0xFFFF, DATA, 1 if end else 0, stream)


def headers(block: bytes, end: bool, stream: int) -> bytes:
    """A header block, in as many frames as it takes."""
    size = len(block)
    flags = END_STREAM if end else 0
    if size <= FRAME_SIZE:
        return HEADER.pack(0, size, HEADERS, flags | END_HEADERS, stream) + block
    out = [frame(HEADERS, flags, stream, block[:FRAME_SIZE])]
    for at in range(FRAME_SIZE, size, FRAME_SIZE):
        out.append(
            frame(CONTINUATION, END_HEADERS if at + FRAME_SIZE >= size else 0, stream, block[at : at + FRAME_SIZE])
        )
    return b"".join(out)


def rst_stream(stream: int, code: int) -> bytes:
    return _CODE.pack(0, 4, RST_STREAM, 0, stream, code)


def window_update(stream: int, increment: int) -> bytes:
    return _CODE.pack(0, 4, WINDOW_UPDATE, 0, stream, increment)


def goaway(last: int, code: int, text: bytes = b"") -> bytes:
    return _GOAWAY.pack(0, 8 + len(text), GOAWAY, 0, 0, last, code) + text


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(key, value) for key, value in values.items()]))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame, in order (section 6.5.3 wants them processed so)."""
    return [_SETTING.unpack_from(payload, at) for at in range(0, len(payload), 6)]
