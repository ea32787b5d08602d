"""Reading heads: the one place that refuses a message. A message that passes is unambiguous and keeps its meaning.

Each check names its source. The checks are a few compiled patterns over the raw bytes. A parser's call-backs no longer
show a bare LF, a space before the colon or the spelling of `chunked`. Where RFC 9112 lets a recipient choose between
repairing and refusing, lb refuses: requests are smuggled in messages that two parsers read differently.

Refusals are exceptions, because they are rare: `RequestError` for requests, `BadResponse` for targets' answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from lb.http.grpc import read_status
from lb.http.message import CHUNKED, LENGTH, NONE, UNTIL_CLOSE, RequestFields, RequestHead, ResponseFields, ResponseHead


class RequestError(Exception):
    """A request that is not forwarded: status to answer, reason in `lb_rejected_total`, and text for the body."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail


class BadResponse(Exception):  # noqa: N818
    """An answer of a target that must not reach a client; the client gets a 502 or its connection is cut."""


# --- grammar ---------------------------------------------------------------------------------------------------------

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 section 5.6.2
#: RFC 9110 section 5.5: field-vchar, obs-text, SP and HTAB; no CR, LF, NUL, CTL.
VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]"

#: method SP request-target SP HTTP-version (RFC 9112 section 3): single spaces, no other white space, no 8-bit bytes.
_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.([0-9])")
#: The beginning of a request line. A client of another protocol is refused before its line ends.
_REQUEST_LINE_BEGUN: Final = re.compile(TOKEN + rb"*+(?: (?:[\x21-\x7e]++(?: [HTP/0-9.]{0,8}+)?+)?+)?+")
#: A field line (RFC 9112 section 5), its name and value. The last group is the block's rest from the first bad byte.
_FIELD: Final = re.compile(rb"((" + TOKEN + rb"++):(" + VALUE + rb"*+)\r\n)|([\x00-\xff]++)")
#: The same for a single line, without its CRLF.
_FIELD_LINE: Final = re.compile(rb"(" + TOKEN + rb"++):(" + VALUE + rb"*+)")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: (" + VALUE + rb"*+))?")
#: Bytes that no continuation makes a valid head: a bare CR or LF, or a control character.
_BROKEN: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_TOKEN_LIST: Final = re.compile(rb"[ \t]*+(?:" + TOKEN + rb"*+[ \t]*+,[ \t]*+)*+" + TOKEN + rb"*+[ \t]*+")
#: uri-host [":" port] (RFC 9110 section 7.2), without RFC 3986's sub-delims and percent-encoding. No host name in use
#: has them, and "a,b" is what a merged pair of Host lines looks like.
_HOST: Final = re.compile(rb"((?:[A-Za-z0-9._~-]++|\[[0-9A-Fa-f:.]++\]))(?::([0-9]{0,5}))?")
_ABSOLUTE: Final = re.compile(rb"(?i:http(s?))://([^/?#]*+)([/?][\x21-\x7e]*+)?")
_PROTOCOL: Final = re.compile(TOKEN + rb"++(?:/" + TOKEN + rb"++)?+")  # RFC 9110 section 7.8: name ["/" version]
#: A fragment's sign, by its number: for bytes in bytes CPython makes an exception each time, and throws it away.
HASH: Final = 0x23
TAB: Final = 0x09
#: Methods that had no body before HTTP/1.1.
_BODYLESS_10: Final = frozenset((b"GET", b"HEAD", b"DELETE"))
_REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z._~+/=:-]{1,128}")
#: The schemes whose login holds for a whole connection (RFC 4559 section 6), within a list of challenges or alone.
_CONNECTION_LOGIN: Final = re.compile(rb"(?i)(?:\A|,)[ \t]*+(?:ntlm|negotiate)(?:[ \t,]|\Z)")
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?i)(?:^|[,\s])timeout\s*=\s*([0-9]{1,6})")

# The kinds of fields that a proxy acts on. Fields outside the tables are forwarded unchanged.
KEEP: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION: Final = 4
TE: Final = 5
UPGRADE: Final = 6
EXPECT: Final = 7
HOP: Final = 8
MAX_FORWARDS: Final = 9
FORWARDED: Final = 10
FORWARDED_FOR: Final = 11
FORWARDED_HOST: Final = 12
FORWARDED_PROTO: Final = 13
REQUEST_ID: Final = 14
USER_AGENT: Final = 15
CLAIM: Final = 16
AUTHORIZATION: Final = 17
KEEP_ALIVE: Final = 18
DATE: Final = 19
AUTHENTICATE: Final = 20
GRPC_STATUS: Final = 21

_REQUEST_KINDS: Final[dict[bytes, int]] = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"te": TE,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"keep-alive": HOP,  # RFC 9110 section 7.6.1 names these three
    b"proxy-connection": HOP,
    b"http2-settings": HOP,  # belongs to the h2c upgrade, which is never passed on (RFC 9113 section 3.1)
    b"max-forwards": MAX_FORWARDS,
    b"forwarded": FORWARDED,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-host": FORWARDED_HOST,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-request-id": REQUEST_ID,
    b"user-agent": USER_AGENT,
    b"authorization": AUTHORIZATION,
    b"proxy-authorization": AUTHORIZATION,
}
_RESPONSE_KINDS: Final[dict[bytes, int]] = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": HOP,
    b"upgrade": UPGRADE,
    b"date": DATE,
    b"x-request-id": REQUEST_ID,
    b"www-authenticate": AUTHENTICATE,
    b"proxy-authenticate": AUTHENTICATE,
    b"grpc-status": GRPC_STATUS,
}

#: Fields by which proxies describe the client to targets, besides the fields that lb writes. Targets believe them, so
#: lb forwards them from trusted proxies alone. Every name that begins with X-Forwarded- is one of them.
CLAIMS: Final = frozenset(
    b"""cf-connecting-ip client-cert client-cert-chain client-ip fastly-client-ip front-end-https
    proxy-client-ip true-client-ip wl-proxy-client-ip x-client-ip x-cluster-client-ip x-forwarded
    x-original-forwarded-for x-original-host x-original-proto x-real-ip x-remote-addr x-remote-ip x-scheme
    x-url-scheme""".split()
)
#: Beginnings of further such names; the last ones are of fields with a client's certificate, as peers have them.
_CLAIM_PREFIXES: Final = (b"x-forwarded-", b"x-ssl-", b"ssl-client-", b"x-client-cert")
#: Claims about a client's certificate: a listener that verifies clients writes them alone, whoever sends them.
_IDENTITY: Final = (b"client-cert", b"x-forwarded-client-cert", b"x-forwarded-tls-client-cert", *_CLAIM_PREFIXES[1:])
#: Fields that the configuration has lb write: no client sets them, not even a trusted proxy.
_own_fields: set[bytes] = set()

#: Fields that `Connection` may not remove: without them the message would have another meaning or another sender
#: (RFC 9110 section 7.6.1: "connection options … MUST NOT" name end-to-end fields).
ESSENTIAL: Final = frozenset(
    b"""accept accept-encoding accept-language accept-ranges age allow authorization cache-control content-disposition
    content-encoding content-language content-length content-location content-range content-type cookie date etag
    expect expires forwarded host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified
    location max-forwards origin pragma proxy-authenticate proxy-authorization range referer retry-after server
    set-cookie transfer-encoding user-agent vary via www-authenticate x-forwarded-for x-forwarded-host
    x-forwarded-proto x-request-id""".split()
)

#: Fields a trailer section may not carry (RFC 9110 section 6.5.1): framing, routing, authentication, and the like.
TRAILER_FORBIDDEN: Final = frozenset(
    b"""authorization cache-control connection content-encoding content-length content-range content-type cookie
    expect forwarded host keep-alive max-forwards proxy-authenticate proxy-authorization proxy-connection range
    set-cookie te trailer transfer-encoding upgrade via www-authenticate x-request-id""".split()
)
_ODD: Final = re.compile(rb"[^0-9a-z]")


def _usual_spelling(lower: bytes) -> bytes:
    """The name with a hyphen for each unusual character. No client may set a field by a look-alike.

    CGI and WSGI read `X_Forwarded_For` as HTTP_X_FORWARDED_FOR, like the true name. Some servers treat a dot the same.
    """
    return _ODD.sub(b"-", lower)


def _request_kind(lower: bytes) -> int:
    kind = _REQUEST_KINDS.get(lower, KEEP)
    return CLAIM if kind == KEEP and (lower in CLAIMS or lower.startswith(_CLAIM_PREFIXES)) else kind


@lru_cache(maxsize=4096)
def request_field(name: bytes) -> int:
    """The kind of a request field as spelt by the client. Cached, because real clients use few spellings."""
    lower = name.lower()
    usual = _usual_spelling(lower)
    if usual in _own_fields or (usual != lower and _request_kind(usual) != KEEP):
        return HOP
    return _request_kind(lower)


def own(names: Iterable[bytes]) -> None:
    """From now on these fields, in every spelling, are removed from requests: lb writes them itself."""
    wanted = {_usual_spelling(name.lower()) for name in names}
    if wanted == _own_fields:
        return
    _own_fields.clear()
    _own_fields.update(wanted)
    request_field.cache_clear()
    may_be_trailer.cache_clear()
    _lines.clear()


def is_identity(line: bytes) -> bool:
    """Whether a field line tells of a client's certificate."""
    return line.lower().startswith(_IDENTITY)


@lru_cache(maxsize=4096)
def may_be_trailer(name: bytes) -> bool:
    """Whether a field, as spelt by the sender, may stand in a trailer section."""
    usual = _usual_spelling(name.lower())
    return not (
        usual in TRAILER_FORBIDDEN or usual in _own_fields or usual in _REQUEST_KINDS or _request_kind(usual) == CLAIM
    )


@lru_cache(maxsize=4096)
def response_field(name: bytes) -> tuple[int, bytes]:
    """(kind, lower-case name) of a response field as spelt by the target."""
    lower = name.lower()
    return _RESPONSE_KINDS.get(lower, KEEP), lower


#: The reason of a request for a host that the connection's handshake does not stand for, and its text.
MISDIRECTED: Final = "misdirected"
MISDIRECTED_TEXT: Final = "this connection was opened by other rules for TLS than this host has; open another one"


# --- requests --------------------------------------------------------------------------------------------------------


def check_partial(data: bytes, line_limit: int, block_limit: int) -> None:
    """Raise `RequestError` for an unfinished head that cannot become valid any more, or is over a limit already."""
    broken = _BROKEN.search(data)
    if broken:
        at = broken.start()
        raise RequestError(400, "bad_request", f"byte {data[at]:#04x} at offset {at} of the head")
    line_end = data.find(b"\r")
    if line_end < 0:
        line_end = len(data)
    if line_end > line_limit:
        raise RequestError(414, "request_line_too_long", f"the request line is longer than {line_limit} bytes")
    if not _REQUEST_LINE_BEGUN.fullmatch(data, 0, line_end):
        raise RequestError(400, "bad_request", "this does not begin like `METHOD target HTTP/1.1`")
    if len(data) > line_limit + block_limit + 4:
        raise RequestError(431, "header_too_large", f"the header block is longer than {block_limit} bytes")


def read_request(data: bytes, line_end: int, fields: RequestFields, line_limit: int) -> RequestHead:
    """Check the request line `data[:line_end]` and make the head of line and fields. Raises `RequestError`."""
    if line_end > line_limit:
        raise RequestError(414, "request_line_too_long", f"the request line is longer than {line_limit} bytes")
    match = _REQUEST_LINE.fullmatch(data, 0, line_end)
    if match is None:
        raise _bad_request_line(data[:line_end])
    method, target, minor_digit = match.groups()
    minor = 0 if minor_digit == b"0" else 1  # RFC 9110 section 2.5: a higher minor version counts as HTTP/1.1
    host = fields.host
    if host is None:
        if minor:
            raise RequestError(400, "bad_host", "an HTTP/1.1 request needs a Host field")  # RFC 9112 section 3.2
        host = b""
    if minor == 0 and fields.chunked:
        # RFC 9112 section 6.1: Transfer-Encoding in an HTTP/1.0 message means that its framing is faulty.
        raise RequestError(400, "bad_framing", "Transfer-Encoding in an HTTP/1.0 request")
    if minor == 0 and fields.length > 0 and method in _BODYLESS_10:
        # RFC 1945 section 7.2: these methods have no body, so that some servers leave it unread. HAProxy refuses it.
        raise RequestError(400, "bad_framing", f"{method.decode()} of HTTP/1.0 with a body")
    if target[0] != 0x2F or HASH in target or method == b"CONNECT" or method == b"TRACE":
        target, host = _unusual_target(method, target, host, fields)
    query = target.find(b"?")
    return RequestHead(method, target, target if query < 0 else target[:query], minor, host, fields)


def _bad_request_line(line: bytes) -> RequestError:
    version = re.search(rb" HTTP/([0-9]\.[0-9])$", line)
    if version and not version[1].startswith(b"1.") and version[1] != b"0.9":
        text = f"HTTP/{version[1].decode()} is not spoken here; HTTP/1.1 and HTTP/1.0 are"
        return RequestError(505, "bad_version", text)
    return RequestError(400, "bad_request", "the request line is not `METHOD target HTTP/1.1`")


def _unusual_target(method: bytes, target: bytes, host: bytes, fields: RequestFields) -> tuple[bytes, bytes]:
    """The target forms other than origin-form (RFC 9112 section 3.2); returns (origin-form target, host)."""
    if method == b"CONNECT":
        raise RequestError(501, "method_not_proxied", "CONNECT is not proxied")
    if HASH in target:
        raise RequestError(400, "bad_target", "a request target has no fragment")
    if method == b"TRACE" and (fields.length > 0 or fields.chunked):
        raise RequestError(400, "bad_framing", "a TRACE request has no body")  # RFC 9110 section 9.3.8
    if target[0] == 0x2F:
        return target, host
    if target == b"*":
        if method != b"OPTIONS":
            raise RequestError(400, "bad_target", "the target * is for OPTIONS alone")
        return target, host
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise RequestError(400, "bad_target", "the request target is neither a path nor an http(s) URL")
    secure, authority, rest = match.groups()
    check_host(authority)
    if fields.host is not None and not same_host(fields.host, authority, b"443" if secure else b"80"):
        # RFC 9112 section 3.2.2 would let the authority win; a target that reads Host instead would be misled.
        raise RequestError(400, "bad_host", "the Host field differs from the host in the request target")
    host = authority.removesuffix(b":")  # RFC 3986 section 6.2.3: an empty port is no port
    if not rest:
        return (b"*" if method == b"OPTIONS" else b"/"), host  # RFC 9112 section 3.2.4
    return (b"/" + rest if rest[0] == 0x3F else rest), host


def same_host(one: bytes, other: bytes, default: bytes) -> bool:
    """Whether both name the same host and port (RFC 9110 section 4.2.3: in any case; an empty port is `default`)."""
    return _host_and_port(one, default) == _host_and_port(other, default)


def _host_and_port(value: bytes, default: bytes) -> tuple[bytes, int]:
    match = _HOST.fullmatch(value)  # both have passed `check_host`
    return (match[1].lower(), int(match[2] or default)) if match else (value, 0)


def check_host(value: bytes) -> None:
    """Raise `RequestError` unless Host is one name or address with an optional port (RFC 9110 section 7.2)."""
    if value in _good_hosts:
        return
    match = _HOST.fullmatch(value)
    if match is None or (match[2] and int(match[2]) > 65535) or not _is_host(match[1]):
        raise RequestError(400, "bad_host", "the Host field does not name one host")
    if len(value) <= 256:
        if len(_good_hosts) >= 1024:
            _good_hosts.clear()
        _good_hosts.add(value)


#: Host values that have passed the check. Most requests name the same few. Bounded in number and length.
_good_hosts: set[bytes] = set()


def _is_host(name: bytes) -> bool:
    if name[0] != 0x5B:
        return b".." not in name and name[0] != 0x2E
    try:
        IPv6Address(name[1:-1].decode())
    except ValueError:
        return False
    return True


def host_name(host: bytes) -> bytes:
    """The host in lower case, without port and without the root's dot, as routes are matched."""
    name = host.lower()
    if name[:1] == b"[":
        return name[: name.find(b"]") + 1]
    colon = name.find(b":")
    if colon >= 0:
        name = name[:colon]
    return name.removesuffix(b".")


def without_port(host: bytes) -> bytes:
    """The host as it is spelt, without its port."""
    if host[:1] == b"[":
        return host[: host.find(b"]") + 1]
    return host.partition(b":")[0]


class _Line:
    """A field line of a request, checked."""

    __slots__ = ("kind", "line", "name", "raw", "value")

    def __init__(self, kind: int, line: bytes, name: bytes, raw: bytes) -> None:
        self.kind = kind
        self.line = line  # with its CRLF
        self.name = name
        self.raw = raw  # all that is behind the colon
        self.value = raw.strip(b" \t")


#: Lines that have passed the check, without their CRLF: of a head that differs from the last one, most lines do not.
#: Bounded in number and length.
_lines: Final[dict[bytes, _Line]] = {}
KNOWN_LINES: Final = 512
KNOWN_LENGTH: Final = 256


def _read_line(text: bytes) -> _Line:
    """Check a field line that is not among the known ones. Raises `RequestError`."""
    match = _FIELD_LINE.fullmatch(text)
    if match is None:
        raise _bad_field(text)
    name = match[1]
    line = _Line(request_field(name), text + b"\r\n", name, match[2])
    if len(text) <= KNOWN_LENGTH:
        if len(_lines) >= KNOWN_LINES:
            _lines.clear()
        _lines[text] = line
    return line


def read_request_fields(block: bytes, block_limit: int, count_limit: int) -> RequestFields:
    """Check a request's header block (field lines, each with its CRLF) and read it. Raises `RequestError`."""
    if len(block) > block_limit:
        raise RequestError(431, "header_too_large", f"the header block is longer than {block_limit} bytes")
    found = [_lines.get(text) or _read_line(text) for text in block[:-2].split(b"\r\n")] if block else []
    if len(found) > count_limit:
        raise RequestError(431, "too_many_headers", f"more than {count_limit} header fields")
    fields = RequestFields()
    lines = fields.forwarded_lines
    upgrade = b""
    encodings = 0
    upgrade_asked = False
    for field in found:
        kind = field.kind
        if kind == KEEP:
            lines.append(field.line)
            continue
        line = field.line
        value = field.value
        if kind == HOST:
            if fields.host is not None:
                raise RequestError(400, "bad_host", "more than one Host field")  # RFC 9112 section 3.2
            check_host(value)
            fields.host = value
        elif kind == USER_AGENT:
            lines.append(line)
            fields.user_agent = value
        elif kind == AUTHORIZATION:
            lines.append(line)
            if _CONNECTION_LOGIN.match(value):
                fields.authenticates_connection = fields.special = True
        elif kind == CONNECTION:
            upgrade_asked |= _read_connection(value, fields)
        elif kind == CONTENT_LENGTH:
            if fields.length >= 0:
                raise RequestError(400, "bad_framing", "more than one Content-Length")  # RFC 9112 section 6.3, step 5
            fields.length = _read_length(value, field.raw)
            lines.append(field.name + b": %d\r\n" % fields.length)  # without leading zeros, which some read as octal
        elif kind == TRANSFER_ENCODING:
            encodings += 1
            _check_transfer_encoding(value, field.raw)
            fields.chunked = True
        elif kind == EXPECT:
            if value.lower() != b"100-continue":
                raise RequestError(417, "bad_expectation", "the only expectation known is 100-continue")
            fields.expect_continue = fields.special = True
        elif kind == UPGRADE:
            upgrade = upgrade + b"," + value if upgrade else value
        elif kind == TE:
            # RFC 9110 section 10.1.4: of TE, `trailers` alone may be passed on.
            fields.te_trailers |= any(item.strip().lower() == b"trailers" for item in value.split(b","))
        elif kind == MAX_FORWARDS:
            if not _LENGTH.fullmatch(value):
                raise RequestError(400, "bad_request", "Max-Forwards is not a number")
            fields.max_forwards = min(int(value), 1 << 31)
            fields.special = True
        elif kind == CLAIM:
            fields.claims.append(line)
        elif kind == FORWARDED_FOR:
            fields.forwarded_for.append(value)
        elif kind == FORWARDED:
            fields.forwarded.append(value)
        elif kind == FORWARDED_HOST:
            fields.forwarded_host = value
        elif kind == FORWARDED_PROTO:
            fields.forwarded_proto = value
        elif kind == REQUEST_ID and _REQUEST_ID.fullmatch(value):
            fields.request_id = value
    if encodings > 1:
        raise RequestError(400, "bad_framing", "more than one Transfer-Encoding")
    if fields.expect_continue and not (fields.chunked or fields.length > 0):
        fields.expect_continue = False  # RFC 9110 section 10.1.1: there is nothing to wait for
    if fields.chunked and fields.length >= 0:
        # RFC 9112 section 6.3, step 3: ought to be handled as an error.
        raise RequestError(400, "bad_framing", "both Content-Length and Transfer-Encoding")
    if upgrade_asked and upgrade:
        protocols = _items(upgrade)
        if not all(map(_PROTOCOL.fullmatch, protocols)):
            raise RequestError(400, "bad_upgrade", "Upgrade is not a list of protocols")
        fields.upgrade = b", ".join(item for item in protocols if not item.lower().startswith(b"h2c"))
    if fields.connection_named:
        _drop_named(fields)
    return fields


def _bad_field(rest: bytes) -> RequestError:
    line = rest.split(b"\r\n", 1)[0]
    if line[:1] in (b" ", b"\t"):
        return RequestError(400, "bad_header", "a folded header line")  # RFC 9112 section 5.2
    name, colon, _ = line.partition(b":")
    if not colon:
        return RequestError(400, "bad_header", "a header line without a colon")
    if name != name.rstrip():
        return RequestError(400, "bad_header", "white space before the colon of a header line")  # RFC 9112 section 5.1
    if re.fullmatch(TOKEN + rb"+", name):
        return RequestError(400, "bad_header", f"a control character in the value of {name[:60].decode('latin-1')}")
    return RequestError(400, "bad_header", "a header name that is not a token")


def _read_length(value: bytes, raw: bytes) -> int:
    if TAB in raw:
        # RFC 9112 section 5 allows it; nginx does not.
        raise RequestError(400, "bad_framing", "a tab beside Content-Length")
    if not _LENGTH.fullmatch(value):  # RFC 9110 section 8.6: digits alone; 18 of them stay below 2**63
        raise RequestError(400, "bad_framing", "Content-Length is not a number")
    return int(value)


def _check_transfer_encoding(value: bytes, raw: bytes) -> None:
    """Raise `RequestError` unless the value is `chunked` (RFC 9112 section 6.1).

    Another registered coding is answered with 501, everything else with 400.
    """
    if TAB in raw:
        raise RequestError(400, "bad_framing", "a tab beside Transfer-Encoding")  # as for Content-Length
    if value.lower() == b"chunked":
        return
    items = _items(value)
    if len(items) > 1 and items[-1].lower() == b"chunked" and b"chunked" not in [item.lower() for item in items[:-1]]:
        raise RequestError(501, "bad_framing", "the only transfer coding known is chunked")
    if re.fullmatch(TOKEN + rb"+", value) and value.lower() in (b"identity", b"gzip", b"deflate", b"compress"):
        raise RequestError(501, "bad_framing", "the only transfer coding known is chunked")
    raise RequestError(400, "bad_framing", "Transfer-Encoding is not `chunked`")


def _items(value: bytes) -> list[bytes]:
    return [item for part in value.split(b",") if (item := part.strip(b" \t"))]


def _read_connection(value: bytes, fields: RequestFields) -> bool:
    """Read `Connection` (RFC 9110 section 7.6.1) into the fields. Returns whether it has the option `upgrade`."""
    lower = value.lower()
    if lower == b"keep-alive":
        fields.keep_alive = True
        return False
    if lower == b"close":
        fields.close = True
        return False
    if not _TOKEN_LIST.fullmatch(lower):
        raise RequestError(400, "bad_header", "Connection is not a list of names")
    upgrade = False
    named = set(fields.connection_named)
    for option in _items(lower):
        if option == b"close":
            fields.close = True
        elif option == b"keep-alive":
            fields.keep_alive = True
        elif option == b"upgrade":
            upgrade = True
        elif option not in ESSENTIAL:
            named.add(option)
    fields.connection_named = frozenset(named)
    return upgrade


def _drop_named(fields: RequestFields) -> None:
    named = fields.connection_named
    fields.forwarded_lines = [line for line in fields.forwarded_lines if line[: line.find(b":")].lower() not in named]


# --- responses -------------------------------------------------------------------------------------------------------


def read_response(data: bytes, line_end: int, fields: ResponseFields, method: bytes) -> ResponseHead:
    """Check the status line `data[:line_end]`, decide the body's framing and make the head. Raises `BadResponse`."""
    match = _STATUS_LINE.fullmatch(data, 0, line_end)
    if match is None:
        raise BadResponse("the status line is not `HTTP/1.1 NNN reason`")
    status = int(match[2])
    minor = 1 if match[1] == b"1" else 0
    if fields.chunked and minor == 0:
        raise BadResponse("Transfer-Encoding in an HTTP/1.0 response")
    # RFC 9112 section 6.3, steps 1 to 8.
    if status < 200 or status == 204:
        if fields.chunked or fields.length >= 0:
            if status != 204 and (fields.chunked or fields.length):
                raise BadResponse(f"a {status} response with a body")
            fields = _without_framing(fields)
        framing = NONE
    elif method == b"HEAD" or status == 304:
        framing = NONE
    elif fields.chunked:
        framing = CHUNKED
    elif fields.length >= 0:
        framing = LENGTH if fields.length else NONE
    else:
        framing = UNTIL_CLOSE
    line = data[: line_end + 2] if minor and match[3] is not None else b"HTTP/1.1 %d %b\r\n" % (status, match[3] or b"")
    return ResponseHead(status, minor, line, framing, fields)


def _without_framing(fields: ResponseFields) -> ResponseFields:
    """The fields of a 1xx or 204, which has no Content-Length, not even 0 (RFC 9110 section 8.6).

    When the target announced a body, its connection is closed: it cannot be trusted for another response.
    """
    clean = ResponseFields()
    clean.forwarded_lines = b"".join(
        line + b"\r\n"
        for line in fields.forwarded_lines.split(b"\r\n")
        if line and not line.lower().startswith(b"content-length:")
    )
    clean.close = fields.close or fields.chunked or fields.length > 0
    clean.keep_alive_timeout, clean.upgrade = fields.keep_alive_timeout, fields.upgrade
    clean.authenticates_connection = fields.authenticates_connection
    clean.has_date, clean.has_request_id = fields.has_date, fields.has_request_id
    clean.grpc_status = fields.grpc_status
    return clean


def read_response_fields(block: bytes, block_limit: int = 65536, count_limit: int = 200) -> ResponseFields:
    """Check a response's header block and read it. Raises `BadResponse`."""
    if len(block) > block_limit:
        raise BadResponse(f"the header block is longer than {block_limit} bytes")
    matches = _FIELD.findall(block)
    if matches and matches[-1][3]:
        raise BadResponse(_bad_field(matches[-1][3]).detail)
    if len(matches) > count_limit:
        raise BadResponse(f"more than {count_limit} header fields")
    fields = ResponseFields()
    lines: list[tuple[bytes, bytes]] = []
    named: set[bytes] = set()
    upgrade_value = b""
    upgrade_asked = False
    for line, name, value, _ in matches:
        kind, lower = response_field(name)
        if kind == KEEP:
            lines.append((lower, line))
            continue
        raw = value
        value = value.strip(b" \t")
        if kind == DATE:
            fields.has_date = True
            lines.append((lower, line))
        elif kind == CONTENT_LENGTH:
            if fields.length >= 0:
                raise BadResponse("more than one Content-Length")
            if TAB in raw or not _LENGTH.fullmatch(value):
                raise BadResponse("Content-Length is not a number")
            fields.length = int(value)
            lines.append((lower, name + b": %d\r\n" % fields.length))
        elif kind == CONNECTION:
            options = _items(value.lower())
            for option in options:
                if option == b"close":
                    fields.close = True
                elif option == b"upgrade":
                    upgrade_asked = True
                elif option not in ESSENTIAL and option != b"keep-alive":
                    named.add(option)
        elif kind == TRANSFER_ENCODING:
            if fields.chunked or TAB in raw or value.lower() != b"chunked":
                raise BadResponse("Transfer-Encoding is not `chunked`")
            fields.chunked = True
        elif kind == UPGRADE:
            upgrade_value = value
        elif kind == KEEP_ALIVE:
            match = _KEEP_ALIVE_TIMEOUT.search(value)
            if match:
                fields.keep_alive_timeout = float(match[1])
        elif kind == REQUEST_ID:
            fields.has_request_id = True
            lines.append((lower, line))
        elif kind == AUTHENTICATE:
            lines.append((lower, line))
            fields.authenticates_connection |= _CONNECTION_LOGIN.search(value) is not None
        elif kind == GRPC_STATUS:
            lines.append((lower, line))
            fields.grpc_status = read_status(line)
    if fields.chunked and fields.length >= 0:
        raise BadResponse("both Content-Length and Transfer-Encoding")
    if upgrade_value:
        # An Upgrade offer in a 200 or 426 is meant for the client (RFC 9110 section 7.8), on this connection.
        fields.upgrade = upgrade_value if upgrade_asked or not named else b""
    fields.forwarded_lines = b"".join(line for lower, line in lines if lower not in named)
    return fields


def check_partial_response(data: bytes, limit: int = 65536) -> None:
    """Raise `BadResponse` for an unfinished response head that cannot become valid any more."""
    if _BROKEN.search(data):
        raise BadResponse("a bare CR or LF, or a control character, in the head")
    if len(data) > limit:
        raise BadResponse(f"the head is longer than {limit} bytes")
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise BadResponse("the answer does not begin with HTTP/1.")


# --- trailers --------------------------------------------------------------------------------------------------------


def read_trailers(block: bytes, count_limit: int = 100) -> bytes:
    """The trailer lines that may be forwarded (RFC 9110 section 6.5.1), joined. Raises ValueError."""
    matches = _FIELD.findall(block)
    if matches and matches[-1][3]:
        raise ValueError(_bad_field(matches[-1][3]).detail)
    if len(matches) > count_limit:
        raise ValueError(f"more than {count_limit} trailer fields")
    return b"".join(line for line, name, _, _ in matches if may_be_trailer(name))
