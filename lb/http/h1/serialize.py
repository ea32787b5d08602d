"""Request heads as bytes: the fields that a proxy adds, and the fields that it removes.

A target gets `Host` and the client's fields without the hop-by-hop ones (RFC 9110 section 7.6.1). It also gets
`X-Forwarded-For`, `-Proto`, `-Host`, `Forwarded` (RFC 7239), `Via` (RFC 9110 section 7.6.3) and `X-Request-Id`. When
the client is no trusted proxy, its forwarding fields are replaced and its other claims (`h1.parse.CLAIMS`) removed: any
client can write them.

The lines that depend on the connection and the header block alone are made once, by `request_lines`.
"""

from __future__ import annotations

from typing import Final

from lb.http.forwarded import extend, node
from lb.http.h1.parse import is_identity
from lb.http.message import RequestFields, RequestHead

#: The bytes between the target of a request line and the value of Host.
HTTP11_HOST: Final = b" HTTP/1.1\r\nHost: "
_REQUEST_ID: Final = b"X-Request-Id: "
#: By `RequestHead.minor`; all of one length.
_VIA: Final = tuple([b"Via: " + version + b" lb\r\n" + _REQUEST_ID for version in (b"1.0", b"1.1", b"2.0")])
_VIA_11: Final = _VIA[1]


def request_lines(
    fields: RequestFields,
    peer: bytes,
    proto: bytes,
    trusted: bool,
    last: RequestFields | None = None,
    minor: int = 1,
    identity: bytes | None = None,
) -> bytes:
    """The bytes that a target gets between the value of Host and the value of X-Request-Id.

    `peer` is the client's address ("192.0.2.1", "2001:db8::1" or "unix"), and `proto` is http or https. With `trusted`
    the peer's forwarding fields are extended, otherwise replaced. `last` are the fields of the request before, if it
    came on the same connection. `minor` is the head's. `identity` are the lines about the client's certificate, where
    the listener verifies clients: they replace whatever a trusted proxy says of one.
    """
    if trusted and fields.claims:
        claims = fields.claims if identity is None else [line for line in fields.claims if not is_identity(line)]
        fields.forwarded_lines = [*fields.forwarded_lines, *claims]
        fields.claims = []
    lines = [b"\r\n", *fields.forwarded_lines]
    if fields.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    connection: list[bytes] = []
    if fields.te_trailers:
        lines.append(b"TE: trailers\r\n")
        connection.append(b"TE")
    if fields.upgrade:
        lines.append(b"Upgrade: " + fields.upgrade + b"\r\n")
        connection.append(b"Upgrade")
    if connection:
        lines.append(b"Connection: " + b", ".join(connection) + b"\r\n")
    if last is not None and not trusted and last.host == fields.host:
        fields.forwarding_lines = last.forwarding_lines
    else:
        fields.forwarding_lines = _forwarding_lines(fields, peer, proto, trusted) + (identity or b"") + _VIA[minor]
    lines.append(fields.forwarding_lines)
    return b"".join(lines)


def _forwarding_lines(fields: RequestFields, peer: bytes, proto: bytes, trusted: bool) -> bytes:
    host = fields.host or b""
    if trusted:
        sent = (fields.forwarded, fields.forwarded_for, fields.forwarded_proto, fields.forwarded_host)
        forwarded_for, proto, host, forwarded = extend(*sent, peer=peer, proto=proto, host=host)
    else:
        forwarded_for = peer
        forwarded = b"for=" + node(peer) + (b';host="' + host + b'"' if host else b"") + b";proto=" + proto
    lines = [b"X-Forwarded-For: " + forwarded_for + b"\r\n", b"X-Forwarded-Proto: " + proto + b"\r\n"]
    if host:
        lines.append(b"X-Forwarded-Host: " + host + b"\r\n")
    lines.append(b"Forwarded: " + forwarded + b"\r\n")
    return b"".join(lines)


#: Parts of the head that a service's settings omit: the Via field, and the client's offer to take trailers.
OMIT_VIA: Final = 1
OMIT_TRAILERS: Final = 2


def request_bytes(head: RequestHead, host: bytes, request_id: bytes, omit: int = 0) -> bytes:
    """The whole head for the target, with its empty line. `omit` is 0, or a sum of the OMIT constants."""
    fields = head.fields
    lines = fields.cached_lines
    if omit or fields.special or not head.minor:
        lines = rare_lines(head, omit)
    return b"".join((head.method, b" ", head.target, HTTP11_HOST, host, lines, request_id, b"\r\n\r\n"))


def rare_lines(head: RequestHead, omit: int) -> bytes:
    """The lines of a request that differ from `RequestFields.cached_lines`: `omit` is not 0, or the fields are special,
    or it came over HTTP/1.0."""
    fields = head.fields
    lines = fields.cached_lines[: -len(_VIA_11)]
    if omit & OMIT_TRAILERS and fields.te_trailers:
        # The client's own TE and Connection are never forwarded, so that only the lines that lb has added match.
        lines = lines.replace(b"\r\nTE: trailers\r\n", b"\r\n", 1)
        lines = lines.replace(b"\r\nConnection: TE\r\n", b"\r\n", 1)
        lines = lines.replace(b"\r\nConnection: TE, Upgrade\r\n", b"\r\nConnection: Upgrade\r\n", 1)
    via = _REQUEST_ID if omit & OMIT_VIA else _VIA[head.minor]
    expect = b"Expect: 100-continue\r\n" if fields.expect_continue and head.minor else b""
    hops = b"Max-Forwards: %d\r\n" % _remaining_hops(head) if fields.max_forwards >= 0 else b""
    return lines + expect + hops + via


def _remaining_hops(head: RequestHead) -> int:
    """Max-Forwards for the target: TRACE and OPTIONS count down, other methods keep it (RFC 9110 section 7.6.2)."""
    hops = head.fields.max_forwards
    return hops - 1 if head.method in (b"TRACE", b"OPTIONS") and hops > 0 else hops
