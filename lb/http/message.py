"""A message's head as values: start line, fields, and the framing of the body.

`RequestFields` and `ResponseFields` hold everything that follows from the header block alone. They are separate from
the start line, because clients and targets repeat their header blocks. A connection that sends the same block again
gets the same object again, and the block is parsed once.

Source of the framing steps: RFC 9112 section 6.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# Body framing (RFC 9112 section 6.3). Module ints, not an enum: they are compared for every message.
NONE: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3

#: `RequestHead.minor` of a request that came over HTTP/2. As for HTTP/1.1, its client knows trailers and 1xx answers.
HTTP2: Final = 2
#: The protocol as logs name it, by `RequestHead.minor`.
PROTOCOLS: Final = (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0")


class RequestFields:
    """A request's header block, parsed."""

    __slots__ = (
        "authenticates_connection",
        "cached_lines",
        "chunked",
        "claims",
        "close",
        "connection_named",
        "expect_continue",
        "forwarded",
        "forwarded_for",
        "forwarded_host",
        "forwarded_lines",
        "forwarded_proto",
        "forwarding_lines",
        "grpc",
        "grpc_timeout",
        "host",
        "keep_alive",
        "length",
        "log_fragment",
        "max_forwards",
        "memo",
        "request_id",
        "special",
        "te_trailers",
        "upgrade",
        "user_agent",
    )

    def __init__(self) -> None:
        self.host: bytes | None = None  # as sent, checked
        self.length: int = -1  # Content-Length; -1: none
        self.chunked = False
        self.close = False  # Connection: close
        self.keep_alive = False  # Connection: keep-alive (matters for HTTP/1.0)
        self.upgrade: bytes = b""  # protocols of a request with Connection: upgrade, without h2c
        self.te_trailers = False
        self.connection_named: frozenset[bytes] = frozenset()
        self.expect_continue = False
        self.max_forwards = -1
        self.authenticates_connection = False  # it carries an NTLM or Negotiate login
        self.grpc = False  # it is a call of gRPC
        self.grpc_timeout = -1.0  # …with a deadline after so many seconds; -1.0: with none
        self.special = False  # it has one of the four above: one look tells for nearly every request that it has not
        self.request_id: bytes = b""
        self.forwarded: list[bytes] = []
        self.forwarded_for: list[bytes] = []
        self.forwarded_host: bytes = b""
        self.forwarded_proto: bytes = b""
        self.claims: list[bytes] = []  # whole lines of other fields about the client, for trusted proxies alone
        self.user_agent: bytes = b""
        self.forwarded_lines: list[bytes] = []  # whole lines ("Name: value\r\n") that the target gets
        self.cached_lines: bytes = b""  # all bytes between Host and the request id: `serialize.request_lines`
        self.forwarding_lines: bytes = b""  # their end, which depends on the connection and Host alone
        self.log_fragment = b""  # the part of an access log line that depends on the fields; made when first logged
        #: What steps have made of these fields, by step: a connection repeats its fields, and they are read once.
        self.memo: dict[object, object] | None = None

    def remembered(self, step: object) -> object:
        """What the step has made of these fields before; None: nothing."""
        return None if self.memo is None else self.memo.get(step)

    def remember(self, step: object, made: object) -> None:
        """Keep what the step has made of these fields, for as long as the connection repeats them."""
        if self.memo is None:
            self.memo = {}
        self.memo[step] = made

    def value(self, name: bytes) -> bytes:
        """The first forwarded field called `name` (lower case), or b""."""
        return next(self.values(name), b"")

    def values(self, name: bytes) -> Iterator[bytes]:
        """The values of all forwarded fields called `name` (lower case)."""
        size = len(name)
        for line in self.forwarded_lines:
            if line[size : size + 1] == b":" and line[:size].lower() == name:
                yield line[size + 1 :].strip(b" \t\r\n")

    def cookie(self, name: bytes) -> bytes:
        """The first value of cookie `name`, or b""."""
        return next(self.cookies(name), b"")

    def cookies(self, name: bytes) -> Iterator[bytes]:
        """The values of all cookies called `name` (RFC 6265 section 5.4: pairs joined by "; ")."""
        for value in self.values(b"cookie"):
            for pair in value.split(b";"):
                left, equals, right = pair.strip().partition(b"=")
                if equals and left == name:
                    yield right

    def with_line(self, name: bytes, line: bytes, connection: bytes = b"") -> RequestFields:
        """A copy for the target, in which the forwarded field `name` (lower case) is this whole line. `connection` are
        lines for the connection that go with it."""
        made = RequestFields()
        made.host, made.length, made.chunked = self.host, self.length, self.chunked
        made.upgrade, made.te_trailers, made.max_forwards = self.upgrade, self.te_trailers, self.max_forwards
        made.close, made.keep_alive, made.connection_named = self.close, self.keep_alive, self.connection_named
        made.expect_continue = self.expect_continue
        made.authenticates_connection = self.authenticates_connection
        made.grpc, made.grpc_timeout, made.special = self.grpc, self.grpc_timeout, self.special
        made.request_id, made.user_agent = self.request_id, self.user_agent
        made.log_fragment, made.forwarding_lines = self.log_fragment, self.forwarding_lines
        made.cached_lines = self.cached_lines
        size = len(name)
        for former in self.forwarded_lines:
            if former[size : size + 1] == b":" and former[:size].lower() == name:
                made.cached_lines = made.cached_lines.replace(b"\r\n" + former, b"\r\n" + line + connection, 1)
                former = line
            if former:
                made.forwarded_lines.append(former)
        return made

    def with_changes(self, new: list[bytes], gone: list[bytes]) -> RequestFields:
        """A copy for the target, with these whole lines more and these less."""
        made = self.with_line(b"", b"")
        made.forwarded_lines = [*new, *[line for line in self.forwarded_lines if line not in gone]]
        lines = self.cached_lines
        for line in gone:
            lines = lines.replace(b"\r\n" + line, b"\r\n", 1)
        made.cached_lines = b"\r\n" + b"".join(new) + lines[2:]
        return made


class RequestHead:
    """One request's start line and fields, checked by `h1.parse.read_request`. A connection that repeats a whole head
    has the same object again, and with it what was found out before."""

    __slots__ = ("fields", "host", "method", "minor", "passed", "path", "route", "table", "target")

    def __init__(
        self, method: bytes, target: bytes, path: bytes, minor: int, host: bytes, fields: RequestFields
    ) -> None:
        self.method = method
        self.target = target  # origin-form (or "*"), byte for byte as sent
        self.path = path  # `target` without the query
        self.minor = minor  # HTTP/1.`minor`: 0 or 1; or HTTP2
        self.host = host  # the value of Host for the target; b"" when an HTTP/1.0 client sent none
        self.fields = fields
        self.table: object = None  # the table of routes that was asked last…
        self.route = -1  # …and its answer
        self.passed: object = None  # the steps that it has passed last: `proxy.steps.steady`

    @property
    def protocol(self) -> bytes:
        """The protocol as logs name it."""
        return PROTOCOLS[self.minor]

    @property
    def idempotent(self) -> bool:
        """Whether sending the request twice has the effect of sending it once (RFC 9110 section 9.2.2)."""
        return self.method in IDEMPOTENT or bool(self.fields.value(b"idempotency-key"))


#: RFC 9110 section 9.2.2.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class ResponseFields:
    """A response's header block, parsed."""

    __slots__ = (
        "authenticates_connection",
        "chunked",
        "close",
        "forwarded_lines",
        "grpc_status",
        "has_date",
        "has_request_id",
        "keep_alive_timeout",
        "length",
        "upgrade",
    )

    def __init__(self) -> None:
        self.length = -1
        self.chunked = False
        self.close = False
        self.keep_alive_timeout = 0.0  # seconds, from Keep-Alive: timeout=N; 0: no such field
        self.upgrade: bytes = b""
        self.authenticates_connection = False  # it offers or goes on with an NTLM or Negotiate login
        self.has_date = False
        self.has_request_id = False
        self.grpc_status = -1  # of an answer of gRPC that has its status in its head; -1: it has none there
        self.forwarded_lines: bytes = b""  # the lines that the client gets, joined


class ResponseHead:
    """One response's status line and fields, checked by `h1.parse.read_response`."""

    __slots__ = ("block", "fields", "framing", "front", "line", "minor", "plain", "reusable", "status")

    def __init__(self, status: int, minor: int, line: bytes, framing: int, fields: ResponseFields) -> None:
        self.status = status
        self.minor = minor
        self.line = line  # b"HTTP/1.1 200 OK\r\n"
        self.framing = framing
        self.fields = fields
        self.front = line + fields.forwarded_lines
        self.block = b""  # the same as a header block of HTTP/2, once one was needed
        self.reusable = minor == 1 and not fields.close
        #: For an HTTP/1.1 client that keeps its connection, only the request id is added.
        self.plain = fields.has_date and not (
            fields.has_request_id
            or fields.upgrade
            or fields.chunked
            or framing == UNTIL_CLOSE
            or fields.authenticates_connection
            or fields.grpc_status >= 0
        )

    def with_lines(self, lines: bytes) -> ResponseHead:
        """A copy for the client with these lines; the framing of the body stays."""
        fields, former = ResponseFields(), self.fields
        fields.length, fields.chunked, fields.close = former.length, former.chunked, former.close
        fields.upgrade, fields.keep_alive_timeout = former.upgrade, former.keep_alive_timeout
        fields.authenticates_connection = former.authenticates_connection
        fields.has_date, fields.has_request_id = former.has_date, former.has_request_id
        fields.grpc_status = former.grpc_status
        fields.forwarded_lines = lines
        return ResponseHead(self.status, self.minor, self.line, self.framing, fields)
