"""Requests as header blocks, for targets. The part that follows from the fields alone is made once for equal fields."""

from __future__ import annotations

from typing import Final

from lb.http.h1.serialize import rare_lines
from lb.http.h2.hpack import encode_plain, plain_text
from lb.http.message import RequestHead

#: `:scheme`, by whether the connection has TLS; whole fields of the static table.
_SCHEMES: Final = (b"\x86", b"\x87")
_METHODS: Final = {b"GET": b"\x82", b"POST": b"\x83"}
#: Fields that are HTTP/1's alone (RFC 9113 section 8.2.2). The lines that lb has for HTTP/1 have its own ones.
_CONNECTION_FIELDS: Final = frozenset((b"connection", b"transfer-encoding", b"upgrade"))
#: The name of the field whose value stands behind the lines.
_REQUEST_ID: Final = b"x-request-id"
_ID_FIELD: Final = b"\x00" + bytes((len(_REQUEST_ID),)) + _REQUEST_ID

#: Lines that were made into blocks of late. Bounded in number and length.
_blocks: Final[dict[bytes, bytes]] = {}
_BLOCKS: Final = 512
_LENGTH: Final = 2048


def request_block(head: RequestHead, host: bytes, request_id: bytes, omit: int, tls: bool) -> bytes:
    """The header block of a request. `host`, `request_id` and `omit` are as for HTTP/1 (`http.h1.serialize`).

    It uses no dynamic table, so a block depends on the request alone.
    """
    fields = head.fields
    lines = fields.cached_lines
    if omit or fields.special or not head.minor:
        lines = rare_lines(head, omit)
    block = _blocks.get(lines)
    if block is None:
        block = _lines_block(lines)
        if len(lines) <= _LENGTH:
            if len(_blocks) >= _BLOCKS:
                _blocks.clear()
            _blocks[lines] = block
    method = _METHODS.get(head.method) or b"\x02" + plain_text(head.method)
    return b"".join(
        (
            method,
            _SCHEMES[tls],
            b"\x01",  # :authority
            plain_text(host),
            b"\x04",  # :path
            plain_text(head.target),
            block,
            _ID_FIELD,
            plain_text(request_id),
        )
    )


def connect_block(head: RequestHead, host: bytes, request_id: bytes, omit: int, tls: bool) -> tuple[bytes, bytes]:
    """The header block of an extended CONNECT for the WebSocket that a request asks for, and its handshake's key.

    RFC 8441 section 5: neither the key nor its answer has a meaning over HTTP/2.
    """
    fields = head.fields
    lines = fields.cached_lines
    if omit or fields.special or not head.minor:
        lines = rare_lines(head, omit)
    key = b""
    kept = []
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            key = value.strip(b" \t")
        else:
            kept.append(line)
    block = (
        b"\x02",  # :method
        plain_text(b"CONNECT"),
        encode_plain(b":protocol", b"websocket"),
        _SCHEMES[tls],
        b"\x01",  # :authority
        plain_text(host),
        b"\x04",  # :path
        plain_text(head.target),
        _lines_block(b"\r\n".join(kept)),
        _ID_FIELD,
        plain_text(request_id),
    )
    return b"".join(block), key


def _lines_block(lines: bytes) -> bytes:
    out: list[bytes] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if colon and name not in _CONNECTION_FIELDS and name != _REQUEST_ID:
            out.append(encode_plain(name, value.strip(b" \t")))
    return b"".join(out)
