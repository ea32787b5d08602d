"""Encoders of content codings, by libraries in C that let other threads run meanwhile."""

from __future__ import annotations

import zlib
from typing import Any, Final

from lb.core.native import mypyc_attr

#: The codings, the one that is taken first where a client has no preference.
CODINGS: Final = ("zstd", "br", "gzip")
#: Effort, as is usual for answers that are made for one client: a good ratio for little time.
_GZIP_LEVEL: Final = 5
_BROTLI_QUALITY: Final = 4
_ZSTD_LEVEL: Final = 3


@mypyc_attr(allow_interpreted_subclasses=True)
class Encoder:
    """One answer's encoder."""

    __slots__ = ()

    def encode(self, piece: bytes, flush: bool, end: bool) -> bytes:
        """The next bytes. `flush`: all of what came so far can be decoded by them."""
        raise NotImplementedError


class Gzip(Encoder):
    """RFC 1952."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        self._inner: Any = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)

    def encode(self, piece: bytes, flush: bool, end: bool) -> bytes:
        out: bytes = self._inner.compress(piece)
        if end:
            out += self._inner.flush()
        elif flush:
            out += self._inner.flush(zlib.Z_SYNC_FLUSH)
        return out


class Brotli(Encoder):
    """RFC 7932."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        import brotli  # loaded where a route has it

        self._inner: Any = brotli.Compressor(quality=_BROTLI_QUALITY)

    def encode(self, piece: bytes, flush: bool, end: bool) -> bytes:
        out: bytes = self._inner.process(piece)
        if end:
            out += self._inner.finish()
        elif flush:
            out += self._inner.flush()
        return out


class Zstd(Encoder):
    """RFC 8878. Its window is far below the 8 MiB that clients have to take."""

    __slots__ = ("_flush_block", "_flush_frame", "_inner", "_more")

    def __init__(self) -> None:
        zstd = _zstd()
        self._inner: Any = zstd.ZstdCompressor(level=_ZSTD_LEVEL)
        self._more: Any = self._inner.CONTINUE
        self._flush_block: Any = self._inner.FLUSH_BLOCK
        self._flush_frame: Any = self._inner.FLUSH_FRAME

    def encode(self, piece: bytes, flush: bool, end: bool) -> bytes:
        mode = self._flush_frame if end else self._flush_block if flush else self._more
        return bytes(self._inner.compress(piece, mode))


def _zstd() -> Any:
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        from backports import zstd
    return zstd


def encoder(coding: bytes) -> Encoder:
    """The encoder of one answer."""
    if coding == b"gzip":
        return Gzip()
    return Brotli() if coding == b"br" else Zstd()
