"""Forwarding fields of a trusted proxy: `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`, extended by lb's hop.

A target reads one of the two forms, and lb cannot tell which. So lb always writes both, and both agree. When the peer
sent one form alone, the other is derived from it. A malformed field counts as absent, because an open quote would
swallow the element that lb adds.

Sources: RFC 7239 sections 4 to 7.4. Readers such as Spring and Jetty take the leftmost `for`, `host` and `proto`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
#: name "=" value. A value with a colon or brackets ought to be quoted. Many senders do not, so lb quotes it.
_PAIR: Final = re.compile(
    rb"(" + _TOKEN + rb")=(?:"
    rb'("(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+")'
    rb"|([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]++))"
)
_BLANK: Final = re.compile(rb"[ \t]*+")
#: An element of X-Forwarded-For: an address with or without brackets and port, a name, or an obfuscated identifier.
_HOP: Final = re.compile(rb'[0-9A-Za-z._:%\[\]-]{1,255}|"[0-9A-Za-z._:%\[\]-]{1,253}"')
_IPV4: Final = re.compile(rb"([0-9]{1,3}(?:\.[0-9]{1,3}){3})(:[0-9]{1,5})?+")
_IPV6: Final = re.compile(rb"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")
_BRACKETED: Final = re.compile(rb"\[([0-9A-Fa-f:.]++)\](?::[0-9A-Za-z._-]{1,64})?+")
_HIDDEN: Final = re.compile(rb"unknown|_[0-9A-Za-z._-]{1,255}")  # RFC 7239 sections 6.2 and 6.3
_PROTO: Final = re.compile(rb"[A-Za-z][0-9A-Za-z+.-]{0,31}")  # RFC 3986 section 3.1
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_UNKNOWN: Final = b"unknown"

#: One element of Forwarded: (name as it was spelt, value without quotes).
Element = list[tuple[bytes, bytes]]


class Forwarding(NamedTuple):
    """The values of the four fields for the target. `host` is b"" when no message named one."""

    forwarded_for: bytes
    proto: bytes
    host: bytes
    forwarded: bytes


def node(address: bytes) -> bytes:
    """An address as the value of `for` (RFC 7239 section 6): IPv6 in brackets and quotes, a Unix socket as unknown."""
    return b'"[' + address + b']"' if b":" in address else (_UNKNOWN if address == b"unix" else address)


def extend(
    forwarded: list[bytes],
    forwarded_for: list[bytes],
    sent_proto: bytes,
    sent_host: bytes,
    *,
    peer: bytes,
    proto: bytes,
    host: bytes,
) -> Forwarding:
    """The fields of a trusted `peer`, extended by its hop to lb, on which the request came as `proto` for `host`.

    `forwarded` and `forwarded_for` are the values of all lines of that name. `sent_proto` and `sent_host` are the
    values of X-Forwarded-Proto and -Host, b"" when absent.
    """
    elements = parse(forwarded)
    hops = _hops(forwarded_for)
    x_proto, x_host = _first(sent_proto, _PROTO), _first(sent_host, _HOST)
    leftmost_proto, leftmost_host = _leftmost(elements, b"proto", _PROTO), _leftmost(elements, b"host", _HOST)
    if elements and not hops:
        hops = [_address(value) for element in elements for name, value in element if name.lower() == b"for"]
    elif hops and not elements:
        elements = [[(b"for", _identifier(hop))] for hop in hops]
        elements[0] += [(b"host", x_host)] if x_host else []
        elements[0] += [(b"proto", x_proto)] if x_proto else []
        leftmost_proto, leftmost_host = x_proto, x_host
    # The element for the hop to lb describes that hop, unless no element further left has the value. Readers take the
    # leftmost value, so this element has to hold the client's value then.
    hop_host = host if leftmost_host else x_host or host
    hop_proto = proto if leftmost_proto else x_proto or proto
    hop = b"for=" + node(peer) + (b';host="' + hop_host + b'"' if hop_host else b"") + b";proto=" + hop_proto
    return Forwarding(
        forwarded_for=b", ".join([*hops, peer]),
        proto=sent_proto if x_proto else leftmost_proto or proto,
        host=sent_host if x_host else leftmost_host or host,
        forwarded=b", ".join([*map(_written, elements), hop]),
    )


def client_of(
    forwarded: list[bytes], forwarded_for: list[bytes], peer: bytes, is_trusted: Callable[[bytes], bool]
) -> bytes:
    """The client's address by the fields of a trusted `peer`: the first from the right that is no trusted proxy's.

    An element that is no address makes the list worthless: then it is the peer's.
    """
    hops = [_bare(hop) for hop in _hops(forwarded_for)]
    if not hops:
        elements = parse(forwarded)
        hops = [_address(value) for element in elements for name, value in element if name.lower() == b"for"]
    last = peer
    for hop in reversed(hops):
        if not (_IPV4.fullmatch(hop) or _IPV6.fullmatch(hop)):
            return peer
        last = hop
        if not is_trusted(hop):
            return hop
    return last


def _bare(hop: bytes) -> bytes:
    """An element of X-Forwarded-For without quotes, brackets and port."""
    hop = hop.strip(b'"')
    match = _BRACKETED.fullmatch(hop) or _IPV4.fullmatch(hop)
    return hop if match is None else match[1]


def proto_of(forwarded: list[bytes], sent_proto: bytes, proto: bytes) -> bytes:
    """The scheme that the client has by the fields of a trusted peer; `proto` is that of the peer's connection."""
    sent = _first(sent_proto, _PROTO) or _leftmost(parse(forwarded), b"proto", _PROTO)
    return sent.lower() or proto


def parse(lines: list[bytes]) -> list[Element]:
    """The elements of all `Forwarded` lines of a message, without empty ones. [] when one line is malformed."""
    elements: list[Element] = []
    for line in lines:
        element: Element = []
        names: set[bytes] = set()
        at, end = 0, len(line)
        while True:
            at = _BLANK.match(line, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            pair = _PAIR.match(line, at)
            if pair is not None:
                name, quoted, bare = pair.groups()
                if name.lower() in names:
                    return []  # RFC 7239 section 4: each parameter occurs once
                names.add(name.lower())
                element.append((name, re.sub(rb"\\(.)", rb"\1", quoted[1:-1]) if quoted is not None else bare))
                at = _BLANK.match(line, pair.end()).end()  # type: ignore[union-attr]
            border = line[at : at + 1]
            if border not in (b"", b",", b";"):
                return []
            if border != b";" and element:
                elements.append(element)
                element, names = [], set()
            if at >= end:
                break
            at += 1
    return elements


def _written(element: Element) -> bytes:
    pairs = []
    for name, value in element:
        if not re.fullmatch(_TOKEN, value):
            value = b'"' + re.sub(rb'(["\\])', rb"\\\1", value) + b'"'
        pairs.append(name + b"=" + value)
    return b";".join(pairs)


def _hops(lines: list[bytes]) -> list[bytes]:
    """The elements of X-Forwarded-For, without empty ones. An element that is no address becomes `unknown`."""
    hops = [hop for line in lines for part in line.split(b",") if (hop := part.strip(b" \t"))]
    return [hop if _HOP.fullmatch(hop) else _UNKNOWN for hop in hops]


def _first(value: bytes, form: re.Pattern[bytes]) -> bytes:
    """The first item of a field that may be a list, or b"" when that item does not match `form`."""
    item = value.partition(b",")[0].strip(b" \t")
    return item if form.fullmatch(item) else b""


def _leftmost(elements: list[Element], wanted: bytes, form: re.Pattern[bytes]) -> bytes:
    for element in elements:
        for name, value in element:
            if name.lower() == wanted and form.fullmatch(value):
                return value
    return b""


def _address(identifier: bytes) -> bytes:
    """A `for` value as X-Forwarded-For writes it: the address alone."""
    match = _BRACKETED.fullmatch(identifier) or _IPV4.fullmatch(identifier)
    if match is not None:
        return match[1]
    return identifier if _HIDDEN.fullmatch(identifier) else _UNKNOWN


def _identifier(hop: bytes) -> bytes:
    """An element of X-Forwarded-For as the value of `for`, without quotes."""
    hop = hop.strip(b'"')
    if _IPV4.fullmatch(hop) or _BRACKETED.fullmatch(hop) or _HIDDEN.fullmatch(hop):
        return hop
    return b"[" + hop + b"]" if _IPV6.fullmatch(hop) else _UNKNOWN
