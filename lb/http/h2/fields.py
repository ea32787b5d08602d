"""What is refused of an HTTP/2 request, and the head that the rest of lb gets of one that is not.

RFC 9113 section 8 is judged here. Then the request is written as one of HTTP/1 and read by `http.h1.parse`, as any
other: so host, target, framing and every field are judged by the same rules, and a target never gets a request that
lb would have refused from a client of HTTP/1.
"""

from __future__ import annotations

import re
from typing import Final

from lb.http.grpc import is_grpc, read_timeout
from lb.http.h1 import parse
from lb.http.h1.parse import RequestError, read_request_fields
from lb.http.message import HTTP2, RequestHead

Fields = list[tuple[bytes, bytes]]


class Malformed(Exception):  # noqa: N818
    """A request that RFC 9113 section 8.1.1 calls malformed: its stream is reset with PROTOCOL_ERROR."""


#: Section 8.2.1: a token without upper-case letters.
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]++")
#: Section 8.2.1: no CR, LF, NUL, nor white space at either end. Other control characters are refused as in HTTP/1.
FIELD_VALUE: Final = re.compile(rb"(?![ \t])" + parse.VALUE + rb"*+(?<![ \t])")
_METHOD: Final = re.compile(parse.TOKEN + rb"++")
_PATH: Final = re.compile(rb"/[\x21-\x7e]*+|\*")
#: Section 8.2.2: fields that speak of the connection.
_CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_COLON: Final = 0x3A
#: Names that have passed the check, with whether they need a look at their value. Bounded in number and length.
_names: Final[dict[bytes, bool]] = {}
_NAMES: Final = 1024
_NAME_LENGTH: Final = 64
_KEY: Final = b"sec-websocket-key:"
_LOOKED_AT: Final = frozenset((b"host", b"cookie", b"te", b"content-length", b"content-type", b"grpc-timeout"))


def read_request(fields: Fields, end: bool, line_limit: int, block_limit: int, count_limit: int) -> RequestHead:
    """The head of a request. `end`: it has no body. Raises `Malformed`, or `RequestError` for what gets an answer."""
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    crumbs: list[bytes] = []
    host = b""
    has_host = has_te = has_length = grpc = False
    timeout = -1.0
    for name, value in fields:
        if name[:1] == b":":
            if lines or crumbs or has_host:
                raise Malformed("a pseudo-header field behind another field")  # section 8.3
            if name not in _PSEUDO:
                raise Malformed("an unknown pseudo-header field")
            if name in pseudo:
                raise Malformed("a pseudo-header field that comes twice")
            pseudo[name] = value
            continue
        looked_at = _names.get(name)
        if looked_at is None:
            looked_at = check_name(name)
        if not FIELD_VALUE.fullmatch(value):
            raise Malformed("a field value with a control character, or white space at an end")
        if looked_at:
            if name == b"cookie":
                crumbs.append(value)  # section 8.2.3
                continue
            if name == b"host":
                if has_host:
                    raise Malformed("more than one Host field")
                host, has_host = value, True
                continue
            if name == b"te":
                if has_te or value.lower() != b"trailers":
                    raise Malformed("TE is not `trailers`")  # section 8.2.2
                has_te = True
            elif name == b"content-length":
                has_length = True
            elif name == b"content-type":
                grpc = is_grpc(value)
            else:
                timeout = read_timeout(value)
        lines.append(name + b": " + value + b"\r\n")
    method, target, authority = _check_pseudo(pseudo, host, has_host)
    websocket = b":protocol" in pseudo
    if websocket:
        if end or has_length:
            raise Malformed("an extended CONNECT with an end, or a length")
        lines = [line for line in lines if not line.startswith(_KEY)]  # RFC 8441 section 5: it means nothing here
    front = b"Host: " + authority + b"\r\n"
    if crumbs:
        lines.append(b"cookie: " + b"; ".join(crumbs) + b"\r\n")
    if not end and not has_length and not websocket:
        lines.append(b"transfer-encoding: chunked\r\n")  # to HTTP/1 a body without a length goes in chunks
    block = front + b"".join(lines)
    try:
        parsed = read_request_fields(block, block_limit, count_limit)
        line = method + b" " + target + b" HTTP/1.1"
        head = parse.read_request(line, len(line), parsed, line_limit)
    except RequestError as error:
        if error.reason in ("bad_framing", "bad_header"):
            raise Malformed(error.detail) from None  # section 8.1.1
        raise
    if end and parsed.length > 0:
        raise Malformed("a body of another length than Content-Length")
    if websocket:
        parsed.upgrade = b"websocket"
    elif grpc:
        parsed.grpc = parsed.special = True
        parsed.grpc_timeout = timeout
    head.minor = HTTP2
    return head


def check_name(name: bytes) -> bool:
    """Whether the value of such a field is looked at. Raises `Malformed`."""
    if not _NAME.fullmatch(name):
        raise Malformed("a field name that is not a token in lower case")
    if name in _CONNECTION_FIELDS:
        raise Malformed(f"{name.decode()} in HTTP/2")
    looked_at = name in _LOOKED_AT
    if len(name) <= _NAME_LENGTH:
        if len(_names) >= _NAMES:
            _names.clear()
        _names[name] = looked_at
    return looked_at


def _check_pseudo(pseudo: dict[bytes, bytes], host: bytes, has_host: bool) -> tuple[bytes, bytes, bytes]:
    """Method, target and host (RFC 9113 section 8.3.1)."""
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise Malformed(":method is missing, or no token")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT":
        if protocol is None:
            raise RequestError(501, "method_not_proxied", "CONNECT is not proxied")
        if protocol != b"websocket":
            raise RequestError(501, "method_not_proxied", "CONNECT is proxied for WebSocket alone")
        method = b"GET"  # RFC 8441 section 5: what it is over HTTP/1
    elif protocol is not None:
        raise Malformed(":protocol without CONNECT")  # RFC 8441 section 4
    scheme = pseudo.get(b":scheme", b"")
    if scheme not in (b"http", b"https"):
        raise Malformed(":scheme is neither http nor https")
    target = pseudo.get(b":path", b"")
    if not _PATH.fullmatch(target):
        raise Malformed(":path is missing, or no path")
    authority = pseudo.get(b":authority")
    if authority is None:
        if not has_host:
            raise RequestError(400, "bad_host", "a request needs :authority or a Host field")
        return method, target, host
    if not authority:
        raise Malformed(":authority is empty")
    if has_host and host != authority:
        # Section 8.3.1 would let :authority win; a target that reads Host instead would be misled.
        parse.check_host(authority)
        parse.check_host(host)
        if not parse.same_host(host, authority, b"443" if scheme == b"https" else b"80"):
            raise RequestError(400, "bad_host", "the Host field differs from :authority")
    return method, target, authority


def read_trailers(fields: Fields) -> bytes:
    """The trailer fields that may be forwarded, as lines of HTTP/1. Raises `Malformed` (section 8.1)."""
    lines: list[bytes] = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or name in _CONNECTION_FIELDS:
            raise Malformed("a trailer field whose name may not be there")
        if not FIELD_VALUE.fullmatch(value):
            raise Malformed("a trailer field's value with a control character, or white space at an end")
        lines.append(name + b": " + value + b"\r\n")
    try:
        return parse.read_trailers(b"".join(lines))
    except ValueError as error:
        raise Malformed(str(error)) from None
