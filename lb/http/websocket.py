"""WebSocket: the answer to a handshake, and frame borders (RFC 6455 section 5.2).

By the borders a close frame can be put between two frames of a tunnel.
Only lengths are read, never payloads.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

#: Close, status 1001 "going away" (RFC 6455 section 7.4.1), as a server sends it…
GOING_AWAY: Final = b"\x88\x02\x03\xe9"
#: …and as a client does, masked.
GOING_AWAY_MASKED: Final = b"\x88\x82\x00\x00\x00\x00\x03\xe9"
#: RFC 6455 section 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_for(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that belongs to a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


class Frames:
    """Follows one direction of a WebSocket connection."""

    __slots__ = ("_head", "_remaining", "closing")

    def __init__(self) -> None:
        self._head = b""  # the bytes of an unfinished frame header
        self._remaining = 0  # payload bytes still to come
        self.closing = False  # a close frame has been seen

    @property
    def between(self) -> bool:
        """Whether the bytes fed so far end at a frame's border."""
        return not self._remaining and not self._head

    def feed(self, data: bytes) -> int:
        """Follow `data`; returns the offset of the last frame border in it, or -1 if there is none."""
        size = len(data)
        border = -1
        position = 0
        if self._remaining:
            if self._remaining > size:
                self._remaining -= size
                return -1
            position = border = self._remaining
            self._remaining = 0
        while position < size:
            shift = len(self._head)
            head = self._head + data[position : position + 14 - shift]
            need = _header_length(head)
            if len(head) < need:
                self._head = head
                return border
            self._head = b""
            self.closing = self.closing or head[0] & 0x0F == 8
            position += need - shift
            length = head[1] & 0x7F
            if length == 126:
                length = int.from_bytes(head[2:4], "big")
            elif length == 127:
                length = int.from_bytes(head[2:10], "big")
            if position + length > size:
                self._remaining = length - (size - position)
                return border
            position += length
            border = position
        return border


def _header_length(head: bytes) -> int:
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    need = 2 + (2 if length == 126 else 8 if length == 127 else 0)
    return need + 4 if head[1] & 0x80 else need
