"""A message's head: what was said, as values, and how its body is framed.

`RequestFields` and `ResponseFields` hold everything that follows from the header block alone. They are kept apart
from the start line because clients and targets repeat themselves: a connection that sends the same block again gets
the same object again (see `rules.read_request`), and nothing of it is worked out twice.

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


class RequestFields:
    """What a request's header block says."""

    __slots__ = (
        "authenticates_connection",
        "chunked",
        "claims",
        "close",
        "connection_named",
        "expect_continue",
        "forwarded",
        "forwarded_for",
        "forwarded_host",
        "forwarded_proto",
        "host",
        "keep_alive",
        "kept",
        "length",
        "log_fragment",
        "max_forwards",
        "request_id",
        "special",
        "suffix",
        "tail",
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
        self.upgrade: bytes = b""  # protocol asked for with Connection: upgrade; h2c is never in here
        self.te_trailers = False
        self.connection_named: frozenset[bytes] = frozenset()
        self.expect_continue = False
        self.max_forwards = -1
        self.authenticates_connection = False  # it carries an NTLM or Negotiate login
        self.special = False  # one of the three above may matter: that is looked at once, and nearly never the case
        self.request_id: bytes = b""
        self.forwarded: list[bytes] = []
        self.forwarded_for: list[bytes] = []
        self.forwarded_host: bytes = b""
        self.forwarded_proto: bytes = b""
        self.claims: list[bytes] = []  # whole lines of other fields about the client: a trusted proxy's alone pass
        self.user_agent: bytes = b""
        self.kept: list[bytes] = []  # whole lines ("Name: value\r\n") that go on to the target
        self.suffix: bytes = b""  # kept lines and our own: all between Host and the request id
        self.tail: bytes = b""  # the end of it that the connection and Host decide
        self.log_fragment = ""  # what the access log says of the fields; made when first logged

    def value(self, name: bytes) -> bytes:
        """The first kept field called `name` (lower case), or b""."""
        return next(self.values(name), b"")

    def values(self, name: bytes) -> Iterator[bytes]:
        """The values of all kept fields called `name` (lower case)."""
        size = len(name)
        for line in self.kept:
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


class RequestHead:
    """One request's start line and fields, checked by `rules.read_request`."""

    __slots__ = ("fields", "host", "method", "minor", "path", "target")

    def __init__(
        self, method: bytes, target: bytes, path: bytes, minor: int, host: bytes, fields: RequestFields
    ) -> None:
        self.method = method
        self.target = target  # origin-form (or "*"), byte for byte as sent
        self.path = path  # `target` without the query
        self.minor = minor  # HTTP/1.`minor`: 0 or 1
        self.host = host  # as sent to the target; b"" when an HTTP/1.0 client named none
        self.fields = fields

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice means the same as once (RFC 9110 section 9.2.2)."""
        return self.method in IDEMPOTENT or bool(self.fields.value(b"idempotency-key"))


#: RFC 9110 section 9.2.2.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class ResponseFields:
    """What a response's header block says."""

    __slots__ = (
        "authenticates_connection",
        "chunked",
        "close",
        "has_date",
        "has_request_id",
        "keep_alive_timeout",
        "kept",
        "length",
        "upgrade",
    )

    def __init__(self) -> None:
        self.length = -1
        self.chunked = False
        self.close = False
        self.keep_alive_timeout = 0.0  # seconds, from Keep-Alive: timeout=N; 0: not said
        self.upgrade: bytes = b""
        self.authenticates_connection = False  # it offers or goes on with an NTLM or Negotiate login
        self.has_date = False
        self.has_request_id = False
        self.kept: bytes = b""  # the lines that go on to the client, joined


class ResponseHead:
    """One response's status line and fields, checked by `rules.read_response`."""

    __slots__ = ("fields", "framing", "front", "line", "minor", "plain", "reusable", "status")

    def __init__(self, status: int, minor: int, line: bytes, framing: int, fields: ResponseFields) -> None:
        self.status = status
        self.minor = minor
        self.line = line  # b"HTTP/1.1 200 OK\r\n"
        self.framing = framing
        self.fields = fields
        self.front = line + fields.kept
        self.reusable = minor == 1 and not fields.close
        #: Nothing but the request id has to be added for an HTTP/1.1 client that keeps its connection.
        self.plain = fields.has_date and not (
            fields.has_request_id
            or fields.upgrade
            or fields.chunked
            or framing == UNTIL_CLOSE
            or fields.authenticates_connection
        )
