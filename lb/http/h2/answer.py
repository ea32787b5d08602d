"""Answers as header blocks. A block depends on the answer alone, and is made once for each distinct head."""

from __future__ import annotations

from typing import Final

from lb.http.h2.hpack import encode_field, encode_status
from lb.http.message import ResponseHead

#: A literal field that is not indexed, with a literal name and a value that is no Huffman string.
_REQUEST_ID: Final = b"\x00\x0cx-request-id"


def response_block(response: ResponseHead) -> bytes:
    """The block of a response's head, without the fields that lb adds."""
    if not response.block:
        response.block = encode_status(response.status) + lines_block(response.fields.forwarded_lines)
    return response.block


def lines_block(lines: bytes) -> bytes:
    """Fields as a block: `lines` are whole lines of HTTP/1, and have been checked."""
    out: list[bytes] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            out.append(encode_field(name.lower(), value.strip(b" \t")))
    return b"".join(out)


def request_id_field(request_id: bytes) -> bytes:
    """`x-request-id`, which differs for each answer: not compressed, since that takes longer than sending it."""
    size = len(request_id)
    if size >= 127:
        return encode_field(b"x-request-id", request_id)
    return _REQUEST_ID + bytes((size,)) + request_id
