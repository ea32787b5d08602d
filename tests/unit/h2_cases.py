"""What a client of HTTP/2 sends behind the preface and its settings, and what it gets: the cases of h2spec, and more.

Expected is the error of the connection or of a stream, `SERVED`: the request reaches lb as one, or the status that
it is answered with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.h2_peer import GET, POST, Frames, raw, settings

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)

Case = tuple[str, Callable[[Frames], list[bytes]], Any]
STREAM_PROTOCOL = ("stream", PROTOCOL)
SERVED = "served"


def connection(code: int) -> tuple[str, int]:
    return "connection", code


def fields(*extra: tuple[str, str], base: list[tuple[str, str]] = GET) -> Callable[[Frames], list[bytes]]:
    return lambda f: [f.headers(1, [*base, *extra])]


def without(name: str) -> Callable[[Frames], list[bytes]]:
    return lambda f: [f.headers(1, [field for field in GET if field[0] != name])]


def replaced(name: str, value: str) -> Callable[[Frames], list[bytes]]:
    return lambda f: [f.headers(1, [(key, value if key == name else old) for key, old in GET])]


def body(*pieces: bytes, length: str | None = None) -> Callable[[Frames], list[bytes]]:
    """A POST with these pieces, and a Content-Length."""
    extra = [("content-length", length)] if length is not None else []
    last = len(pieces) - 1
    return lambda f: [
        f.headers(1, [*POST, *extra], end=not pieces),
        *(f.data(1, piece, end=number == last) for number, piece in enumerate(pieces)),
    ]


def split(block: bytes, f: Frames, *between: bytes) -> list[bytes]:
    """A header block in two frames, with others in between."""
    return [raw(HEADERS, 1, 1, block[:5]), *between, raw(CONTINUATION, 4, 1, block[5:])]


def extended_connect(
    *more: tuple[str, str], protocol: str = "websocket", leave_out: str = "", end: bool = False
) -> Callable[[Frames], list[bytes]]:
    """RFC 8441 section 4."""
    base = [(":method", "CONNECT"), (":protocol", protocol), *GET[1:]]
    return lambda f: [f.headers(1, [field for field in base if field[0] != leave_out] + [*more], end)]


FRAMING: list[Case] = [
    ("a plain request", lambda f: [f.headers(1)], SERVED),
    ("3.4 a frame before SETTINGS", lambda f: [], None),
    ("4.1 an unknown frame type is ignored", lambda f: [raw(0x16, 0, 0, b"x" * 8), f.headers(1)], SERVED),
    ("4.1 undefined flags are ignored", lambda f: [raw(PING, 0x16, 0, bytes(8)), f.headers(1)], SERVED),
    ("4.1 the reserved bit is ignored", lambda f: [raw(PING, 0, 1 << 31, bytes(8)), f.headers(1)], SERVED),
    ("4.2 DATA of the largest size", lambda f: [f.headers(1, POST, False), f.data(1, bytes(16384), True)], SERVED),
    ("4.2 a frame larger than MAX_FRAME_SIZE", lambda f: [raw(DATA, 0, 1, bytes(16385))], connection(SIZE)),
    ("4.2 HEADERS larger than that", lambda f: [raw(HEADERS, 5, 1, bytes(16385))], connection(SIZE)),
    ("4.3 a block that does not decode", lambda f: [f.headers(1, b"\x00\xff\xff")], connection(COMPRESSION)),
    (
        "4.3 PRIORITY within a header block",
        lambda f: split(f.block(GET), f, raw(PRIORITY, 0, 1, bytes(4) + b"\x10")),
        connection(PROTOCOL),
    ),
    ("4.3 HEADERS within a header block", lambda f: split(f.block(GET), f, f.headers(3)), connection(PROTOCOL)),
    ("4.3 an unknown frame within a block", lambda f: split(f.block(GET), f, raw(0x16, 0, 0)), connection(PROTOCOL)),
    ("5.1 DATA on an idle stream", lambda f: [f.data(1, b"x", True)], connection(PROTOCOL)),
    ("5.1 RST_STREAM on an idle stream", lambda f: [raw(RST, 0, 1, bytes(3) + b"\x08")], connection(PROTOCOL)),
    ("5.1 WINDOW_UPDATE on an idle stream", lambda f: [raw(WINDOW, 0, 1, bytes(3) + b"\x64")], connection(PROTOCOL)),
    ("5.1 CONTINUATION on an idle stream", lambda f: [raw(CONTINUATION, 4, 1, f.block(GET))], connection(PROTOCOL)),
    ("5.1 DATA behind END_STREAM", lambda f: [f.headers(1), f.data(1, b"x", True)], ("stream", CLOSED)),
    ("5.1 HEADERS behind END_STREAM", lambda f: [f.headers(1), f.headers(1)], ("stream", CLOSED)),
    ("5.1 CONTINUATION behind END_STREAM", lambda f: [f.headers(1), raw(CONTINUATION, 4, 1)], connection(PROTOCOL)),
    (
        "5.1 DATA behind the client's own reset",
        lambda f: [f.headers(1, POST, False), raw(RST, 0, 1, bytes(3) + b"\x08"), f.data(1, b"x", True)],
        ("stream", CLOSED),
    ),
    (
        "5.1 HEADERS behind the client's own reset",
        lambda f: [f.headers(1, POST, False), raw(RST, 0, 1, bytes(3) + b"\x08"), f.headers(1)],
        connection(CLOSED),
    ),
    ("5.1.1 an even stream", lambda f: [f.headers(2)], connection(PROTOCOL)),
    ("5.1.1 a stream number that goes back", lambda f: [f.headers(5), f.headers(3)], connection(CLOSED)),
    (
        "5.1.2 more streams than MAX_CONCURRENT_STREAMS",
        lambda f: [f.headers(2 * n + 1, POST, False) for n in range(101)],
        ("stream", REFUSED),
    ),
    ("5.3.1 HEADERS that depend on themselves", lambda f: [raw(HEADERS, 0x25, 1, b"\0\0\0\1\x10" + f.block(GET))],
     connection(PROTOCOL)),
    ("5.3.1 PRIORITY that depends on itself", lambda f: [raw(PRIORITY, 0, 1, b"\0\0\0\1\x10")], connection(PROTOCOL)),
    ("6.1 DATA on stream 0", lambda f: [raw(DATA, 0, 0, b"x")], connection(PROTOCOL)),
    (
        "6.1 padding as long as its frame",
        lambda f: [f.headers(1, POST, False), raw(DATA, 9, 1, b"\x06" + b"x" * 5)],
        connection(PROTOCOL),
    ),
    ("6.1 a padded frame of no size", lambda f: [f.headers(1, POST, False), raw(DATA, 9, 1)], connection(SIZE)),
    ("6.2 HEADERS on stream 0", lambda f: [raw(HEADERS, 5, 0, f.block(GET))], connection(PROTOCOL)),
    ("6.2 HEADERS with too much padding", lambda f: [raw(HEADERS, 0xD, 1, b"\xff" + f.block(GET))],
     connection(PROTOCOL)),
    ("6.2 padded HEADERS", lambda f: [raw(HEADERS, 0xD, 1, b"\x03" + f.block(GET) + bytes(3))], SERVED),
    ("6.2 HEADERS with a priority", lambda f: [raw(HEADERS, 0x25, 1, b"\0\0\0\3\x10" + f.block(GET))], SERVED),
    ("6.2 HEADERS without room for its priority", lambda f: [raw(HEADERS, 0x25, 1, b"\0\0")], connection(SIZE)),
    ("6.3 PRIORITY on stream 0", lambda f: [raw(PRIORITY, 0, 0, b"\0\0\0\1\x10")], connection(PROTOCOL)),
    ("6.3 PRIORITY of a wrong size", lambda f: [raw(PRIORITY, 0, 1, b"\0\0\0\3")], connection(SIZE)),
    ("6.3 PRIORITY on an idle stream", lambda f: [raw(PRIORITY, 0, 5, b"\0\0\0\1\x10"), f.headers(1)], SERVED),
    ("6.4 RST_STREAM on stream 0", lambda f: [raw(RST, 0, 0, bytes(4))], connection(PROTOCOL)),
    ("6.4 RST_STREAM of a wrong size", lambda f: [f.headers(1), raw(RST, 0, 1, bytes(3))], connection(SIZE)),
    ("6.5 an acknowledgement with a payload", lambda f: [raw(SETTINGS, 1, 0, bytes(6))], connection(SIZE)),
    ("6.5 SETTINGS on a stream", lambda f: [raw(SETTINGS, 0, 1, bytes(6))], connection(PROTOCOL)),
    ("6.5 SETTINGS of a wrong size", lambda f: [raw(SETTINGS, 0, 0, bytes(5))], connection(SIZE)),
    ("6.5.2 ENABLE_PUSH is 2", lambda f: [settings(push=2)], connection(PROTOCOL)),
    ("6.5.2 INITIAL_WINDOW_SIZE is too large", lambda f: [settings(window=1 << 31)], connection(FLOW)),
    ("6.5.2 MAX_FRAME_SIZE is too small", lambda f: [settings(frame=16383)], connection(PROTOCOL)),
    ("6.5.2 MAX_FRAME_SIZE is too large", lambda f: [settings(frame=1 << 24)], connection(PROTOCOL)),
    ("6.5.2 an unknown setting is ignored", lambda f: [raw(SETTINGS, 0, 0, b"\0\xff\0\0\0\1"), f.headers(1)], SERVED),
    ("6.6 PUSH_PROMISE of a client", lambda f: [raw(PUSH, 4, 1, b"\0\0\0\2" + f.block(GET))], connection(PROTOCOL)),
    ("6.7 PING on a stream", lambda f: [raw(PING, 0, 1, bytes(8))], connection(PROTOCOL)),
    ("6.7 PING of a wrong size", lambda f: [raw(PING, 0, 0, bytes(6))], connection(SIZE)),
    ("6.8 GOAWAY on a stream", lambda f: [raw(GOAWAY, 0, 1, bytes(8))], connection(PROTOCOL)),
    ("6.8 GOAWAY of a wrong size", lambda f: [raw(GOAWAY, 0, 0, bytes(7))], connection(SIZE)),
    ("6.9 WINDOW_UPDATE of 0 on the connection", lambda f: [raw(WINDOW, 0, 0, bytes(4))], connection(PROTOCOL)),
    ("6.9 WINDOW_UPDATE of 0 on a stream", lambda f: [f.headers(1), raw(WINDOW, 0, 1, bytes(4))], STREAM_PROTOCOL),
    ("6.9 WINDOW_UPDATE of a wrong size", lambda f: [raw(WINDOW, 0, 0, bytes(3))], connection(SIZE)),
    ("6.9.1 a connection window over 2^31-1", lambda f: [raw(WINDOW, 0, 0, b"\x7f\xff\xff\xff")], connection(FLOW)),
    (
        "6.9.1 a stream window over 2^31-1",
        lambda f: [f.headers(1), raw(WINDOW, 0, 1, b"\x7f\xff\xff\xff")],
        ("stream", FLOW),
    ),
    (
        "6.9.2 streams' windows over 2^31-1",
        lambda f: [f.headers(1), raw(WINDOW, 0, 1, b"\x7f\xff\x00\x00"), settings(window=(1 << 31) - 1)],
        connection(FLOW),
    ),
    ("6.10 CONTINUATIONs", lambda f: [raw(HEADERS, 1, 1), raw(CONTINUATION, 0, 1, f.block(GET)),
                                       raw(CONTINUATION, 4, 1)], SERVED),
    ("6.10 CONTINUATION on stream 0", lambda f: [raw(HEADERS, 1, 1), raw(CONTINUATION, 4, 0, f.block(GET))],
     connection(PROTOCOL)),
    ("6.10 CONTINUATION behind END_HEADERS", lambda f: [f.headers(1), raw(CONTINUATION, 4, 1)], connection(PROTOCOL)),
    ("7 an unknown error code", lambda f: [f.headers(1, POST, False), raw(RST, 0, 1, b"\0\0\0\xff"), f.headers(3)],
     SERVED),
]  # fmt: skip

MESSAGES: list[Case] = [
    ("8.1 a second HEADERS without END_STREAM",
     lambda f: [f.headers(1, POST, False), f.headers(1, [("a", "b")], False)], STREAM_PROTOCOL),
    ("8.1 trailers", lambda f: [f.headers(1, POST, False), f.data(1, b"x"), f.headers(1, [("a", "b")])], SERVED),
    ("8.2.1 an upper-case name", fields(("X-A", "b")), STREAM_PROTOCOL),
    ("8.2.1 an empty name", fields(("", "b")), STREAM_PROTOCOL),
    ("8.2.1 a name with a space", fields(("x a", "b")), STREAM_PROTOCOL),
    ("8.2.1 a name with a colon", fields(("x:a", "b")), STREAM_PROTOCOL),
    ("8.2.1 a name with CR LF", fields(("x\r\nb", "b")), STREAM_PROTOCOL),
    ("8.2.1 an 8-bit name", fields(("x\u00e9", "b")), STREAM_PROTOCOL),
    ("8.2.1 LF in a value", fields(("x-a", "b\nc: d")), STREAM_PROTOCOL),
    ("8.2.1 CR in a value", fields(("x-a", "b\rc")), STREAM_PROTOCOL),
    ("8.2.1 NUL in a value", fields(("x-a", "b\0c")), STREAM_PROTOCOL),
    ("8.2.1 a control character in a value", fields(("x-a", "b\x01c")), STREAM_PROTOCOL),
    ("8.2.1 a space before a value", fields(("x-a", " b")), STREAM_PROTOCOL),
    ("8.2.1 a tab behind a value", fields(("x-a", "b\t")), STREAM_PROTOCOL),
    ("8.2.1 an empty value", fields(("x-a", "")), SERVED),
    *((f"8.2.2 {name}", fields((name, "x")), STREAM_PROTOCOL)
      for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")),
    ("8.2.2 te: trailers", fields(("te", "trailers")), SERVED),
    ("8.2.2 te: trailers, deflate", fields(("te", "trailers, deflate")), STREAM_PROTOCOL),
    ("8.2.2 te twice", fields(("te", "trailers"), ("te", "trailers")), STREAM_PROTOCOL),
    ("8.3 an unknown pseudo-header", fields(base=[*GET, (":test", "x")]), STREAM_PROTOCOL),
    ("8.3 a pseudo-header of answers", fields(base=[*GET, (":status", "200")]), STREAM_PROTOCOL),
    ("8.3 a pseudo-header behind a field", fields((":path", "/"), base=[*GET[:2], GET[3], ("x-a", "b")]),
     STREAM_PROTOCOL),
    ("8.3 a pseudo-header in trailers", lambda f: [f.headers(1, POST, False), f.headers(1, [(":method", "GET")])],
     STREAM_PROTOCOL),
    ("8.3 an upper-case name in trailers", lambda f: [f.headers(1, POST, False), f.headers(1, [("A", "b")])],
     STREAM_PROTOCOL),
    ("8.3 transfer-encoding in trailers",
     lambda f: [f.headers(1, POST, False), f.headers(1, [("transfer-encoding", "chunked")])], STREAM_PROTOCOL),
    *((f"8.3.1 no {name}", without(name), STREAM_PROTOCOL) for name in (":method", ":scheme", ":path")),
    *((f"8.3.1 {field[0]} twice", fields(base=[*GET, field]), STREAM_PROTOCOL) for field in GET),
    ("8.3.1 an empty :path", replaced(":path", ""), STREAM_PROTOCOL),
    ("8.3.1 an empty :authority", replaced(":authority", ""), STREAM_PROTOCOL),
    ("8.3.1 an empty :method", replaced(":method", ""), STREAM_PROTOCOL),
    ("desync: a path without a slash", replaced(":path", "hello"), STREAM_PROTOCOL),
    ("desync: an absolute path", replaced(":path", "http://b.example/"), STREAM_PROTOCOL),
    ("desync: a space in the path", replaced(":path", "/ HTTP/1.1\r\nHost: b"), STREAM_PROTOCOL),
    ("desync: an 8-bit path", replaced(":path", "/\u00e9"), STREAM_PROTOCOL),
    ("desync: a fragment in the path", replaced(":path", "/#x"), 400),
    ("desync: a scheme that is a URL", replaced(":scheme", "http://x/?"), STREAM_PROTOCOL),
    ("desync: a method with a question mark", replaced(":method", "GET?"), STREAM_PROTOCOL),
    ("desync: a method with a space", replaced(":method", "GET / HTTP/1.1"), STREAM_PROTOCOL),
    ("* for GET", replaced(":path", "*"), 400),
    ("no authority at all", without(":authority"), 400),
    ("Host alone", fields(("host", "a.example"), base=GET[:3]), SERVED),
    ("Host like :authority", fields(("host", "A.example:80")), SERVED),
    ("another Host than :authority", fields(("host", "b.example")), 400),
    ("two Hosts", fields(("host", "a.example"), ("host", "a.example")), STREAM_PROTOCOL),
    ("an authority with user information", replaced(":authority", "u@a.example"), 400),
    ("an authority with a comma", replaced(":authority", "a,b"), 400),
    ("an authority with a path", replaced(":authority", "a/b"), 400),
    ("an authority with a space", replaced(":authority", "a b"), 400),
    ("CONNECT", fields(base=[(":method", "CONNECT"), (":authority", "a.example:443")]), 501),
    ("extended CONNECT", extended_connect(), SERVED),
    ("extended CONNECT that ends at once", extended_connect(end=True), STREAM_PROTOCOL),
    ("extended CONNECT with a length", extended_connect(("content-length", "0")), STREAM_PROTOCOL),
    ("extended CONNECT without a path", extended_connect(leave_out=":path"), STREAM_PROTOCOL),
    ("extended CONNECT without a scheme", extended_connect(leave_out=":scheme"), STREAM_PROTOCOL),
    ("extended CONNECT for another protocol", extended_connect(protocol="connect-udp"), 501),
    (":protocol without CONNECT", fields(base=[*GET, (":protocol", "websocket")]), STREAM_PROTOCOL),
    ("an unknown expectation", fields(("expect", "x")), 417),
    ("a request line that is too long", replaced(":path", "/" + "x" * 9000), 414),
    ("too many fields", fields(*((f"x-{n}", "y") for n in range(110))), 431),
    ("fields that are too large", fields(*((f"x-{n}", "y" * 3000) for n in range(6))), 431),
    ("content-length matches", body(b"ab", b"cd", length="4"), SERVED),
    ("content-length of 0 without a body", body(length="0"), SERVED),
    ("content-length of 0 with an empty DATA", body(b"", length="0"), SERVED),
    ("content-length: more DATA", body(b"ab", b"cd", length="3"), STREAM_PROTOCOL),
    ("content-length: less DATA", body(b"ab", length="3"), STREAM_PROTOCOL),
    ("content-length: none at all", body(length="3"), STREAM_PROTOCOL),
    ("content-length: less, and trailers",
     lambda f: [f.headers(1, [*POST, ("content-length", "3")], False), f.data(1, b"ab"), f.headers(1, [("a", "b")])],
     STREAM_PROTOCOL),
    *((f"content-length {value!r}", body(b"abc", length=value), STREAM_PROTOCOL)
      for value in ("3,", "0,", "", "+3", "-3", "3 3", "0x3", "3, 3", "9" * 19)),
    ("content-length twice", lambda f: [f.headers(1, [*POST, ("content-length", "3"), ("content-length", "3")], False)],
     STREAM_PROTOCOL),
]  # fmt: skip

COMPRESSED: list[Case] = [
    ("2.3.3 index 0", lambda f: [f.headers(1, b"\x80")], connection(COMPRESSION)),
    ("2.3.3 an index beyond the tables", lambda f: [f.headers(1, b"\x82\x86\x84\xff\x00")], connection(COMPRESSION)),
    ("4.2 a size update at the end", lambda f: [f.headers(1, f.block(GET) + b"\x20")], connection(COMPRESSION)),
    ("6.3 a size update above the setting", lambda f: [f.headers(1, b"\x3f\xe2\x1f")], connection(COMPRESSION)),
    ("6.3 a size update within the setting", lambda f: [f.headers(1, b"\x3f\xe1\x1f" + f.block(GET))], SERVED),
    ("5.2 padding longer than 7 bits", lambda f: [f.headers(1, b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")],
     connection(COMPRESSION)),
    ("5.2 padding of zeros", lambda f: [f.headers(1, b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90")],
     connection(COMPRESSION)),
    ("5.2 the end's symbol within a string", lambda f: [f.headers(1, b"\x00\x85\xf2\xb2\x4a\x87\xff\xff\xff\xff\xff")],
     connection(COMPRESSION)),
    ("5.1 a number without end", lambda f: [f.headers(1, b"\xff" + b"\xff" * 8)], connection(COMPRESSION)),
    ("6.2 a string longer than its block", lambda f: [f.headers(1, b"\x00\x7f\x20abc")], connection(COMPRESSION)),
]  # fmt: skip
