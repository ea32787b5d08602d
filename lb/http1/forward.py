"""What a proxy adds to a message and what it takes away, as bytes.

To targets: `Host`, the client's own fields less the hop-by-hop ones (RFC 9110 section 7.6.1), `X-Forwarded-For`,
`-Proto`, `-Host`, `Forwarded` (RFC 7239), `Via` (RFC 9110 section 7.6.3) and `X-Request-Id`. Forwarding fields of a
client that is no trusted proxy are replaced, and its other claims about itself (`rules.CLAIMS`) taken away: anyone can
write them. To clients: the target's fields less the hop-by-hop ones.

Everything that depends on the connection and the header block alone is worked out once, in `request_suffix`.
"""

from __future__ import annotations

from lb.http1.forwarded import extend, node
from lb.http1.head import RequestFields, RequestHead

#: What is between the target of a request line and the value of Host.
HTTP11_HOST = b" HTTP/1.1\r\nHost: "
_REQUEST_ID = b"X-Request-Id: "
_VIA_11 = b"Via: 1.1 lb\r\n" + _REQUEST_ID
_VIA_10 = b"Via: 1.0 lb\r\n" + _REQUEST_ID


def request_suffix(
    fields: RequestFields, peer: bytes, proto: bytes, trusted: bool, last: RequestFields | None = None
) -> bytes:
    """Everything that the target gets between the value of Host and that of X-Request-Id.

    `peer` is the client's address ("192.0.2.1", "2001:db8::1" or "unix"), `proto` is http or https, `trusted` says
    whether the peer's own forwarding fields are believed and extended or replaced. `last` are the fields of the
    request before, if that came from the same peer in the same way.
    """
    if trusted and fields.claims:
        fields.kept = [*fields.kept, *fields.claims]
        fields.claims = []
    lines = [b"\r\n", *fields.kept]
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
        fields.tail = last.tail
    else:
        fields.tail = _forwarding_lines(fields, peer, proto, trusted)
    lines.append(fields.tail)
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
    lines.append(_VIA_11)
    return b"".join(lines)


#: What a service may want left out of the head: the Via field, and the word that somebody takes trailers.
OMIT_VIA, OMIT_TRAILERS = 1, 2


def request_bytes(head: RequestHead, host: bytes, request_id: bytes, omit: int = 0) -> bytes:
    """The whole head for the target, with its empty line. `omit`: 0, or the sum of what is to be left out."""
    fields = head.fields
    suffix = fields.suffix
    if omit or fields.special or not head.minor:
        suffix = _rare_suffix(head, omit)
    return b"".join((head.method, b" ", head.target, HTTP11_HOST, host, suffix, request_id, b"\r\n\r\n"))


def _rare_suffix(head: RequestHead, omit: int) -> bytes:
    fields = head.fields
    own = fields.suffix[: -len(_VIA_11)]
    if omit & OMIT_TRAILERS and fields.te_trailers:
        # No client's TE or Connection is among the lines, so that at the begin of a line these are the ones added here.
        own = own.replace(b"\r\nTE: trailers\r\n", b"\r\n", 1)
        own = own.replace(b"\r\nConnection: TE\r\n", b"\r\n", 1)
        own = own.replace(b"\r\nConnection: TE, Upgrade\r\n", b"\r\nConnection: Upgrade\r\n", 1)
    via = _REQUEST_ID if omit & OMIT_VIA else _VIA_11 if head.minor else _VIA_10
    expect = b"Expect: 100-continue\r\n" if fields.expect_continue and head.minor else b""
    hops = b"Max-Forwards: %d\r\n" % _hops_left(head) if fields.max_forwards >= 0 else b""
    return own + expect + hops + via


def _hops_left(head: RequestHead) -> int:
    """RFC 9110 section 7.6.2: TRACE and OPTIONS count down; for other methods the field is passed on."""
    hops = head.fields.max_forwards
    return hops - 1 if head.method in (b"TRACE", b"OPTIONS") and hops > 0 else hops
