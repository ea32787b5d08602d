"""HeaderBlocks: the header blocks that a connection receives, put together from their frames and decoded.

Blocks that repeat are decoded once: the same block means the same while the peer's dynamic table stands still.
"""

from __future__ import annotations

from typing import Final

from lb.http.h2.fault import Fault
from lb.http.h2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM
from lb.http.h2.hpack import BadBlock, Decoder
from lb.http.h2.stream import HeaderBlock

#: CONTINUATION frames of one header block (python-hyper/h2: 64).
CONTINUATIONS: Final = 64
#: Header blocks whose meaning is kept for the connection's next heads, and their largest size.
BLOCKS: Final = 32
BLOCK_SIZE: Final = 1024


class HeaderBlocks:
    """Of one connection. `stream` has a block under way; 0: none has. `end`: the block is the end of its stream."""

    __slots__ = (
        "_blocks",
        "_decoder",
        "_generation",
        "_header_count",
        "_header_size",
        "_parts",
        "_size",
        "end",
        "stream",
    )

    def __init__(self, header_size: int, header_count: int) -> None:
        self._header_size = header_size
        self._header_count = header_count
        self._decoder = Decoder()
        self._generation = 0
        self._blocks: dict[bytes, HeaderBlock] = {}
        self.stream = 0
        self.end = False
        self._parts: list[bytes] = []
        self._size = 0

    def begin(self, stream: int, end: bool, part: bytes) -> None:
        """A block that takes more than one frame."""
        self.stream, self.end = stream, end
        self._parts = [part]
        self._size = len(part)

    def go_on(self, part: bytes, last: bool) -> bytes:
        """The next frame of the block; returns the block with its last one."""
        self._parts.append(part)
        self._size += len(part)
        if len(self._parts) > CONTINUATIONS or self._size > 2 * self._header_size:
            raise Fault(ENHANCE_YOUR_CALM, "flood_continuation", "a header block without end")
        if not last:
            return b""
        block = b"".join(self._parts)
        self._parts = []
        self.stream = 0
        return block

    def decode(self, data: bytes) -> HeaderBlock:
        """The meaning of a block. Each block is decoded, wanted or not: the table is the connection's."""
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
        block = HeaderBlock(fields, decoder.too_large, decoder.count)
        if decoder.generation != self._generation:
            self._generation = decoder.generation
            blocks.clear()
        elif len(data) <= BLOCK_SIZE:
            if len(blocks) >= BLOCKS:
                blocks.clear()
            blocks[data] = block
        return block

    def forget(self) -> None:
        """Fields have another meaning from now on: forget what was made of earlier blocks."""
        self._blocks.clear()
