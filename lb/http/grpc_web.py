"""gRPC-Web on the wire (gRPC's PROTOCOL-WEB): what browsers speak, as they can neither send nor read trailers.

Messages are framed as in gRPC. The trailers are a last frame of the body, with the highest bit of its first octet set.
In the text form the whole body is base64, in pieces with a padding each.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

#: The forms of a body.
NONE: Final = 0
BINARY: Final = 1
TEXT: Final = 2

_NATIVE: Final = b"application/grpc"
_WEB: Final = b"application/grpc-web"
_WEB_TEXT: Final = b"application/grpc-web-text"


def form_of(content_type: bytes) -> int:
    """The form of the body that this content type stands for; NONE: it is not gRPC-Web."""
    lower = content_type.lower()
    for prefix, form in ((_WEB_TEXT, TEXT), (_WEB, BINARY)):
        if lower.startswith(prefix):
            return form if lower[len(prefix) : len(prefix) + 1] in (b"", b"+", b";", b" ") else NONE
    return NONE


def native_type(content_type: bytes, form: int) -> bytes:
    """The content type of the same messages in gRPC."""
    return _NATIVE + content_type[len(_WEB_TEXT if form == TEXT else _WEB) :]


def web_type(content_type: bytes, form: int) -> bytes:
    """The content type of gRPC-Web for an answer of gRPC."""
    return (_WEB_TEXT if form == TEXT else _WEB) + content_type[len(_NATIVE) :]


def trailer_frame(lines: bytes) -> bytes:
    """Trailer fields, whole lines, as the last frame of a body. Their names are in lower case there."""
    text = b"".join(
        [
            name.lower() + b":" + value.strip(b" \t") + b"\r\n"
            for name, colon, value in [line.partition(b":") for line in lines.split(b"\r\n")]
            if colon
        ]
    )
    return b"\x80" + len(text).to_bytes(4, "big") + text


def encode_text(piece: bytes) -> bytes:
    """A piece of a body in the text form."""
    return base64.b64encode(piece)


class TextReader:
    """Decodes a body of the text form, however it is cut."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def read(self, piece: bytes, end: bool) -> bytes:
        """The octets of the next piece. Raises ValueError for what is no base64."""
        data = self._rest + piece
        whole = len(data) & ~3
        self._rest = data[whole:]
        if end and self._rest:
            raise ValueError("a body of gRPC-Web that ends within its base64")
        out: list[bytes] = []
        start = 0
        while start < whole:
            # Each padding is the end of a piece that was encoded by itself.
            padding = data.find(b"=", start, whole)
            stop = whole if padding < 0 else (padding & ~3) + 4
            try:
                out.append(base64.b64decode(data[start:stop], validate=True))
            except binascii.Error as error:
                raise ValueError("a body of gRPC-Web that is no base64") from error
            start = stop
        return b"".join(out)
