"""Raw answers of a target with what the client must get. Each row: name, request, bytes, outcome, source.

An outcome is `Gets(...)`: the client's answer begins with that status, holds each of `parts`, none of `without`, and ends
with `end`; `cut`: the connection closes before the body is complete; `pooled`: whether the connection to the target may
serve another request. A plain 502 means that nothing of the answer reaches the client.
"""

from __future__ import annotations

from typing import NamedTuple


class Gets(NamedTuple):
    """What the client gets."""

    status: int = 200
    parts: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()
    end: bytes = b""
    cut: bool = False
    pooled: bool = True


class Row(NamedTuple):
    name: str
    raw: bytes
    outcome: Gets
    source: str
    request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    close: bool = False  # the target closes after it


BAD = Gets(502, pooled=False)
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
TRAILERS = b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
SOCKET = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def ok(extra: bytes = b"", body: bytes = b"ok", length: bytes | None = None) -> bytes:
    size = b"%d" % len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n" + extra + b"\r\n" + body


def chunked(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + extra + b"\r\n" + body


STATUS_LINES = [
    Row("plain", ok(), Gets(end=b"\r\n\r\nok"), "RFC 9112 4"),
    Row("no reason, with its space", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Gets(), "RFC 9112 4"),
    Row(
        "no reason, no space",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        Gets(parts=(b"HTTP/1.1 200 \r\n",)),
        "widely accepted",
    ),
    Row("reason with 8-bit text", b"HTTP/1.1 200 caf\xe9\r\nContent-Length: 0\r\n\r\n", Gets(), "RFC 9112 4: obs-text"),
    Row("unknown status", b"HTTP/1.1 299 X\r\nContent-Length: 0\r\n\r\n", Gets(299), "RFC 9110 15"),
    Row(
        "status 999",
        b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n",
        Gets(999),
        "passed on as by nginx; cache-tests use it",
    ),
    Row(
        "HTTP/1.0 answer",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Gets(parts=(b"HTTP/1.1 200 OK",), end=b"ok", pooled=False),
        "RFC 9110 2.5",
    ),
] + [
    Row(name, raw, BAD, source)
    for name, raw, source in (
        ("two-digit status", b"HTTP/1.1 20 OK\r\n\r\n", "RFC 9112 4"),
        ("four-digit status", b"HTTP/1.1 2000 OK\r\n\r\n", "RFC 9112 4"),
        ("status of letters", b"HTTP/1.1 abc OK\r\n\r\n", "RFC 9112 4"),
        ("status 000", b"HTTP/1.1 000 OK\r\n\r\n", "RFC 9110 15"),
        ("status with sign", b"HTTP/1.1 +20 OK\r\n\r\n", "RFC 9112 4"),
        ("two spaces", b"HTTP/1.1  200 OK\r\n\r\n", "RFC 9112 4"),
        ("HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n", "RFC 9112 2.3"),
        ("HTTP/0.9", b"just text, no head\r\n\r\n", "RFC 9112 4"),
        ("other protocol", b"ICY 200 OK\r\n\r\n", "RFC 9112 2.3"),
        ("lower-case version", b"http/1.1 200 OK\r\n\r\n", "RFC 9112 2.3"),
        ("empty line before", b"\r\nHTTP/1.1 200 OK\r\n\r\n", "RFC 9112 2.2: requests alone"),
        ("NUL in the reason", b"HTTP/1.1 200 O\x00K\r\n\r\n", "RFC 9112 4"),
        ("bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n", "response splitting"),
        ("TLS alert", b"\x15\x03\x01\x00\x02\x02\x16", "a TLS target spoken to in plain"),
        ("SSH banner", b"SSH-2.0-OpenSSH_9.2p1\r\n", "garbage"),
    )
]

FIELDS = [
    Row(
        "order and spelling kept",
        ok(b"x-A: 1\r\nX-b: 2\r\nx-A: 3\r\n"),
        Gets(parts=(b"x-A: 1\r\nX-b: 2\r\nx-A: 3\r\n",)),
        "RFC 9110 5.3",
    ),
    Row(
        "several Set-Cookie",
        ok(b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"),
        Gets(parts=(b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n",)),
        "RFC 6265 3",
    ),
    Row(
        "Connection and what it names",
        ok(b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"),
        Gets(without=(b"X-Hop", b"Keep-Alive", b"Connection:")),
        "RFC 9110 7.6.1",
    ),
    Row(
        "end-to-end fields survive Connection",
        ok(b"Connection: Content-Type, Set-Cookie\r\nContent-Type: t/t\r\nSet-Cookie: a=1\r\n"),
        Gets(parts=(b"Content-Type: t/t", b"Set-Cookie: a=1")),
        "abuse of hop-by-hop fields",
    ),
    Row(
        "Connection: close of the target",
        ok(b"Connection: close\r\n"),
        Gets(without=(b"Connection: close",), pooled=False),
        "RFC 9112 9.6: hop by hop",
    ),
    Row("Proxy-Connection", ok(b"Proxy-Connection: close\r\n"), Gets(without=(b"Proxy-Connection",)), "RFC 9110 7.6.1"),
    Row(
        "Upgrade offer in a 426",
        b"HTTP/1.1 426 X\r\nUpgrade: foo\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        Gets(426, parts=(b"Upgrade: foo\r\n", b"Connection: Upgrade")),
        "RFC 9110 7.8; nginx proxy_connection_headers.t",
    ),
    Row(
        "Upgrade offer in a 200",
        ok(b"Upgrade: foo\r\nConnection: Upgrade\r\n"),
        Gets(parts=(b"Upgrade: foo\r\n", b"Connection: Upgrade"), end=b"ok"),
        "RFC 9110 7.8; nginx proxy_connection_headers.t",
    ),
    Row(
        "its own Date kept",
        ok(b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
        Gets(parts=(b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",)),
        "RFC 9110 6.6.1",
    ),
    Row("Date added", ok(), Gets(parts=(b"\r\nDate: ",)), "RFC 9110 6.6.1"),
    Row(
        "Server kept",
        ok(b"Server: x/1\r\n"),
        Gets(parts=(b"Server: x/1\r\n",), without=(b"Server: lb",)),
        "transparency",
    ),
    Row("empty value", ok(b"X:\r\n"), Gets(parts=(b"X:\r\n",)), "RFC 9110 5.5"),
] + [
    Row(name, raw, BAD, source)
    for name, raw, source in (
        ("folded field", ok(b"X: a\r\n b\r\n"), "RFC 9112 5.2: replace or refuse"),
        ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "RFC 9112 2.2"),
        ("bare LF in the middle", b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\nok", "RFC 9112 2.2"),
        ("bare CR in a value", ok(b"X: a\rSet-Cookie: evil=1\r\n"), "response splitting"),
        ("NUL in a value", ok(b"X: a\x00b\r\n"), "RFC 9110 5.5"),
        ("control byte in a value", ok(b"X: \x01\r\n"), "RFC 9110 5.5"),
        ("space before the colon", ok(b"X : y\r\n"), "RFC 9112 5.1"),
        ("no colon", ok(b"nonsense\r\n"), "RFC 9112 5"),
        ("empty name", ok(b": y\r\n"), "RFC 9110 5.1"),
        ("8-bit name", ok(b"X\xff: y\r\n"), "RFC 9110 5.1"),
        ("header block too large", ok(b"X: " + b"a" * 70000 + b"\r\n"), "bounded"),
        ("too many fields", ok(b"X: y\r\n" * 300), "bounded"),
        ("endless head", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 80000, "bounded"),
    )
]

LENGTHS = (
    [
        Row(
            "longer than its length",
            ok(body=b"okEXTRA", length=b"2"),
            Gets(end=b"\r\n\r\nok", pooled=False),
            "nginx proxy_extra_data.t",
        ),
        Row(
            "length 0 with data",
            ok(body=b"EXTRA", length=b"0"),
            Gets(end=b"\r\n\r\n", pooled=False),
            "nginx proxy_extra_data.t",
        ),
        Row(
            "shorter than its length",
            ok(body=b"short", length=b"50"),
            Gets(end=b"short", cut=True, pooled=False),
            "nginx proxy_extra_data.t",
            close=True,
        ),
        Row("leading zeros", ok(length=b"002"), Gets(parts=(b"Content-Length: 2\r\n",), end=b"ok"), "RFC 9110 8.6"),
    ]
    + [
        Row(f"Content-Length {value!r}", ok(length=value), BAD, source)
        for value, source in (
            (b"+2", "nginx proxy_duplicate_headers.t: invalid"),
            (b"-2", "RFC 9110 8.6"),
            (b"0x2", "RFC 9110 8.6"),
            (b"2, 2", "RFC 9112 6.3(5)"),
            (b"2 2", "RFC 9110 8.6"),
            (b"", "RFC 9110 8.6"),
            (b"two", "RFC 9110 8.6"),
            (b"99999999999999999999", "overflow"),
        )
    ]
    + [
        Row("two lengths", ok(b"Content-Length: 3\r\n"), BAD, "nginx proxy_duplicate_headers.t"),
        Row("two equal lengths", ok(b"Content-Length: 2\r\n"), BAD, "nginx proxy_duplicate_headers.t"),
        Row(
            "length and chunked",
            ok(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            BAD,
            "nginx proxy_duplicate_headers.t; RFC 9112 6.3(3)",
        ),
    ]
)

CHUNKS = (
    [
        Row(
            "chunks",
            chunked(b"2\r\nok\r\n0\r\n\r\n"),
            Gets(parts=(b"Transfer-Encoding: chunked\r\n",), end=b"2\r\nok\r\n0\r\n\r\n"),
            "RFC 9112 7.1",
        ),
        Row("empty body", chunked(b"0\r\n\r\n"), Gets(end=b"0\r\n\r\n"), "nginx proxy_keepalive.t"),
        Row(
            "extensions dropped",
            chunked(b"2;a=b\r\nok\r\n0;c\r\n\r\n"),
            Gets(end=b"\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            "RFC 9112 7.1.1",
        ),
        Row(
            "trailers to who asked",
            chunked(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"),
            Gets(end=b"0\r\nX-Sum: 1\r\n\r\n"),
            "nginx proxy_trailers.t",
            TRAILERS,
        ),
        Row(
            "no trailers to who did not ask",
            chunked(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"),
            Gets(end=b"ok\r\n0\r\n\r\n"),
            "nginx proxy_trailers.t",
        ),
        Row(
            "forbidden trailers",
            chunked(b"0\r\nSet-Cookie: a=1\r\nContent-Length: 5\r\nX: 1\r\n\r\n"),
            Gets(end=b"0\r\nX: 1\r\n\r\n"),
            "RFC 9110 6.5.1",
            TRAILERS,
        ),
        Row(
            "chunks to HTTP/1.0",
            chunked(b"2\r\nok\r\n0\r\n\r\n"),
            Gets(without=(b"Transfer-Encoding",), end=b"\r\n\r\nok"),
            "RFC 9112 7.1.2",
            OLD,
        ),
        Row(
            "data behind the last chunk",
            chunked(b"0\r\n\r\nEXTRA"),
            Gets(end=b"0\r\n\r\n", pooled=False),
            "nginx proxy_chunked_extra.t",
        ),
        Row(
            "unfinished",
            chunked(b"2\r\nok\r\n5\r\nhe"),
            Gets(end=b"he", cut=True, pooled=False),
            "nginx proxy_unfinished.t",
            close=True,
        ),
        Row(
            "no last chunk",
            chunked(b"2\r\nok\r\n"),
            Gets(end=b"2\r\nok\r\n", cut=True, pooled=False),
            "nginx proxy_unfinished.t",
            close=True,
        ),
        Row(
            "chunked by HTTP/1.0",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
            "RFC 9112 6.1",
        ),
    ]
    + [
        Row(
            f"Transfer-Encoding {value!r}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n",
            BAD,
            source,
        )
        for value, source in (
            (b"gzip", "nginx proxy_duplicate_headers.t: unknown"),
            (b"identity", "RFC 9112 6.1"),
            (b"gzip, chunked", "RFC 9112 6.1"),
            (b"chunked, chunked", "RFC 9112 6.1"),
            (b"xchunked", "TE.TE"),
            (b"chunked;a", "TE.TE"),
            (b"", "TE.TE"),
        )
    ]
    + [
        Row(
            "two Transfer-Encodings",
            chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
            BAD,
            "nginx proxy_duplicate_headers.t: twice",
        ),
    ]
    + [
        Row(f"chunk {raw!r}", chunked(raw), BAD, source)
        for raw, source in (
            (b"+2\r\nok\r\n0\r\n\r\n", "RFC 9112 7.1"),
            (b"0x2\r\nok\r\n0\r\n\r\n", "RFC 9112 7.1"),
            (b" 2\r\nok\r\n0\r\n\r\n", "RFC 9112 7.1"),
            (b"2\nok\n0\n\n", "RFC 9112 2.2"),
            (b"2\r\nokX\r\n0\r\n\r\n", "RFC 9112 7.1"),
            (b"g\r\n", "RFC 9112 7.1"),
            (b"fffffffffffffffff\r\nok", "overflow"),
        )
    ]
)

BODYLESS = [
    Row(
        "HEAD with length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        Gets(parts=(b"Content-Length: 5",), end=b"\r\n\r\n"),
        "RFC 9110 9.3.2",
        HEAD,
    ),
    Row("HEAD answered with a body", ok(), Gets(end=b"\r\n\r\n", pooled=False), "HAProxy http_bodyless_response", HEAD),
    Row(
        "HEAD answered with chunks",
        chunked(b"2\r\nok\r\n0\r\n\r\n"),
        Gets(parts=(b"Transfer-Encoding: chunked",), end=b"\r\n\r\n", pooled=False),
        "HAProxy http_bodyless_response",
        HEAD,
    ),
    Row(
        "HEAD, chunked",
        chunked(b""),
        Gets(parts=(b"Transfer-Encoding: chunked",), end=b"\r\n\r\n"),
        "HAProxy http_bodyless_response",
        HEAD,
    ),
    Row("204", b"HTTP/1.1 204 No Content\r\n\r\n", Gets(204), "RFC 9110 15.3.5"),
    Row(
        "204 with length 0",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        Gets(204, without=(b"Content-Length",)),
        "RFC 9110 8.6",
    ),
    Row(
        "204 with length",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        Gets(204, without=(b"Content-Length",), pooled=False),
        "RFC 9110 8.6",
    ),
    Row(
        "204, chunked",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Gets(204, without=(b"Transfer-Encoding",), pooled=False),
        "RFC 9112 6.1",
    ),
    Row(
        "304 with length",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n",
        Gets(304, parts=(b"Content-Length: 100",)),
        "nginx proxy_keepalive.t",
    ),
    Row("304 without length", b"HTTP/1.1 304 Not Modified\r\n\r\n", Gets(304), "nginx proxy_keepalive.t"),
]

UNTIL_CLOSE = [
    Row(
        "until close, to HTTP/1.1",
        b"HTTP/1.1 200 OK\r\n\r\nbody",
        Gets(parts=(b"Transfer-Encoding: chunked",), end=b"4\r\nbody\r\n0\r\n\r\n", pooled=False),
        "RFC 9112 6.3(8)",
        close=True,
    ),
    Row(
        "until close, to HTTP/1.0",
        b"HTTP/1.1 200 OK\r\n\r\nbody",
        Gets(end=b"\r\n\r\nbody", pooled=False),
        "RFC 9112 6.3(8)",
        OLD,
        close=True,
    ),
    Row(
        "HTTP/1.0 until close",
        b"HTTP/1.0 200 OK\r\n\r\nbody",
        Gets(end=b"4\r\nbody\r\n0\r\n\r\n", pooled=False),
        "RFC 9112 6.3(8)",
        close=True,
    ),
    Row("closes without an answer", b"", BAD, "RFC 9110 15.6.3", close=True),
    Row("closes within the head", b"HTTP/1.1 200 OK\r\nContent-Le", BAD, "RFC 9112 8", close=True),
]

INTERIM = [
    Row(
        "103 before the answer",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(),
        Gets(parts=(b"103 Early Hints\r\nLink: </a>\r\n",), end=b"ok"),
        "nginx proxy_early_hints.t",
    ),
    Row(
        "102 and 103",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 X\r\n\r\n" + ok(),
        Gets(parts=(b"102 Processing", b"103 X"), end=b"ok"),
        "RFC 9110 15.2",
    ),
    Row(
        "100 unasked", b"HTTP/1.1 100 Continue\r\n\r\n" + ok(), Gets(end=b"ok"), "RFC 9110 15.2: a client can parse it"
    ),
    Row(
        "no interim answer to HTTP/1.0",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(),
        Gets(without=(b"103 Early",), end=b"ok"),
        "RFC 9110 15.2",
        OLD,
    ),
    Row("103 and then the end", b"HTTP/1.1 103 Early Hints\r\n\r\n", BAD, "nginx proxy_early_hints.t", close=True),
    Row("endless interim answers", b"HTTP/1.1 103 X\r\n\r\n" * 100 + ok(), BAD, "bounded"),
    Row(
        "103 with length 0",
        b"HTTP/1.1 103 X\r\nContent-Length: 0\r\nLink: </a>\r\n\r\n" + ok(),
        Gets(parts=(b"HTTP/1.1 103 X\r\nLink: </a>\r\n\r\n",), end=b"ok"),
        "RFC 9110 8.6",
    ),
    Row("103 with a body", b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\nhello" + ok(), BAD, "RFC 9110 15.2"),
    Row(
        "101 unasked",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n",
        BAD,
        "nginx proxy_upgrade.t",
    ),
    Row(
        "101 to another protocol",
        b"HTTP/1.1 101 X\r\nUpgrade: bar\r\nConnection: Upgrade\r\n\r\n",
        BAD,
        "RFC 9110 15.2.2",
        UPGRADE,
    ),
    Row("101 without Upgrade", b"HTTP/1.1 101 X\r\n\r\n", BAD, "RFC 9110 15.2.2", UPGRADE),
    Row(
        "101 as asked",
        b"HTTP/1.1 101 X\r\nUpgrade: foo\r\nConnection: Upgrade, X-Hop\r\nX-Hop: 1\r\n\r\n",
        Gets(101, parts=(b"Upgrade: foo", b"Connection: Upgrade"), without=(b"X-Hop",), pooled=False),
        "Caddy TestFinalizeResponse_101",
        UPGRADE,
    ),
    Row(
        "WebSocket without accept",
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        BAD,
        "HAProxy websocket",
        SOCKET,
    ),
    Row("refused upgrade", ok(), Gets(end=b"ok"), "RFC 9110 7.8", UPGRADE),
]

#: What a target that is broken, or in somebody else's hands, may send to split, smuggle or poison.
ATTACKS = [
    Row(
        "two answers at once",
        ok() + ok(b"X: evil\r\n"),
        Gets(without=(b"evil",), end=b"ok", pooled=False),
        "response queue poisoning",
    ),
    Row(
        "an answer behind a 204",
        b"HTTP/1.1 204 X\r\n\r\n" + ok(b"X: evil\r\n"),
        Gets(204, without=(b"evil",), pooled=False),
        "response queue poisoning",
    ),
    Row(
        "an answer behind a HEAD",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + ok(),
        Gets(end=b"\r\n\r\n", pooled=False),
        "response queue poisoning",
        HEAD,
    ),
    Row(
        "an answer behind chunks",
        chunked(b"0\r\n\r\n") + ok(b"X: evil\r\n"),
        Gets(end=b"0\r\n\r\n", pooled=False),
        "response queue poisoning",
    ),
    Row(
        "304 with a body", b"HTTP/1.1 304 X\r\nContent-Length: 2\r\n\r\nok", Gets(304, pooled=False), "RFC 9110 15.4.5"
    ),
    Row(
        "304, chunked, with chunks",
        b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Gets(304, pooled=False),
        "RFC 9112 6.3(1)",
    ),
] + [
    Row(name, raw, BAD, source)
    for name, raw, source in (
        ("103 with chunks", b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + ok(), "RFC 9112 6.3(1)"),
        ("TERM.EXT", chunked(b"2;\nx\r\nok\r\n0\r\n\r\n"), "TERM.EXT, from a target"),
        ("EXT.TERM", chunked(b"2;a\nok\r\n0\r\n\r\n"), "EXT.TERM; CVE-2025-22871"),
        ("negative chunk", chunked(b"-2\r\nok\r\n0\r\n\r\n"), "http-garden: relayd"),
        ("chunk size with underscore", chunked(b"0_2\r\nok\r\n0\r\n\r\n"), "http-garden"),
        ("bare CR behind a size", chunked(b"2\rok\r\n0\r\n\r\n"), "RFC 9112 7.1"),
        ("bare LF behind a size", chunked(b"2\nok\r\n0\r\n\r\n"), "RFC 9112 2.2"),
        ("chunk size of a size", chunked(b"1" * 40 + b"\r\n"), "overflow"),
        ("TE with a vertical tab", chunked(b"0\r\n\r\n").replace(b" chunked", b"\x0bchunked"), "TE.TE"),
        ("TE behind a bare CR", ok(b"X: y\rTransfer-Encoding: chunked\r\n"), "response splitting"),
        ("TE folded", chunked(b"0\r\n\r\n").replace(b" chunked", b"\r\n chunked"), "RFC 9112 5.2"),
        ("TE with space before the colon", chunked(b"0\r\n\r\n").replace(b"Encoding:", b"Encoding :"), "RFC 9112 5.1"),
        ("length with NUL", ok(length=b"2\x00"), "RFC 9110 8.6"),
        ("length with underscore", ok(length=b"0_2"), "RFC 9110 8.6"),
        ("length in a fold", ok(length=b"\r\n 2"), "RFC 9112 5.2"),
        ("LF before the status line", b"\n" + ok(), "RFC 9112 2.2"),
        ("white space before the first field", b"HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\nok", "RFC 9112 2.2"),
        ("tab in the status line", b"HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok", "RFC 9112 4"),
        ("version 1.10", b"HTTP/1.10 200 OK\r\nContent-Length: 2\r\n\r\nok", "RFC 9112 2.3"),
        (
            "101 and an answer",
            b"HTTP/1.1 101 X\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n" + ok(),
            "nginx proxy_upgrade.t",
        ),
    )
]

TABLE: list[Row] = [
    *STATUS_LINES, *FIELDS, *LENGTHS, *CHUNKS, *BODYLESS, *UNTIL_CLOSE, *INTERIM, *ATTACKS,
]  # fmt: skip
