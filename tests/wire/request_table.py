"""Raw requests with what must become of them. Each row: name, bytes, outcome, source.

An outcome is a status of ours (the target must see nothing of the request) or `Seen(...)`: the request passes, and
what the target gets begins with `start`, holds each of `parts`, and none of `without`.
Sources: RFC sections; nginx-tests and HAProxy reg-tests by file; published smuggling techniques by name.
"""

from __future__ import annotations

from typing import NamedTuple


class Seen(NamedTuple):
    """The request passes; this is what the target must see of it."""

    start: bytes = b""
    parts: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()
    end: bytes = b""


class Row(NamedTuple):
    name: str
    raw: bytes
    outcome: int | Seen
    source: str


H = b"Host: a.example\r\n"
PASS = Seen()


def get(target: bytes = b"/", extra: bytes = b"", host: bytes = H, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + host + extra + b"\r\n"


def post(extra: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + H + extra + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


def line(first: bytes) -> bytes:
    return first + b"\r\n" + H + b"\r\n"


METHODS = [
    Row(
        f"method {m.decode()}",
        b"%b / HTTP/1.1\r\n%b\r\n" % (m, H),
        Seen(m + b" / HTTP/1.1\r\n"),
        "RFC 9110 9.1: any token",
    )
    for m in (
        b"GET",
        b"POST",
        b"PUT",
        b"DELETE",
        b"PATCH",
        b"OPTIONS",
        b"PROPFIND",
        b"BREW",
        b"get",
        b"M-SEARCH",
        b"X!#$%&'*+.^_`|~",
    )
] + [
    Row("HEAD", b"HEAD / HTTP/1.1\r\n" + H + b"\r\n", Seen(b"HEAD / "), "RFC 9110 9.3.2"),
    Row("TRACE passes without a body", line(b"TRACE / HTTP/1.1"), Seen(b"TRACE / "), "RFC 9110 9.3.8"),
    Row("TRACE with a body", b"TRACE / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\nx", 400, "RFC 9110 9.3.8"),
    Row("CONNECT", b"CONNECT a.example:443 HTTP/1.1\r\n" + H + b"\r\n", 501, "RFC 9110 9.3.6; nginx http_method.t"),
    Row("CONNECT with a path", line(b"CONNECT / HTTP/1.1"), 501, "RFC 9110 9.3.6"),
    Row("method with a space before", line(b" GET / HTTP/1.1"), 400, "RFC 9112 3"),
    Row("method with a tab", line(b"GET\t/ HTTP/1.1"), 400, "RFC 9112 3"),
    Row("method with a control byte", line(b"G\x01ET / HTTP/1.1"), 400, "RFC 9110 5.6.2"),
    Row("method with a colon", line(b"GET: / HTTP/1.1"), 400, "RFC 9110 5.6.2"),
    Row("method with parentheses", line(b"GET() / HTTP/1.1"), 400, "RFC 9110 5.6.2"),
    Row("method with an 8-bit byte", line(b"G\xc3\xa9T / HTTP/1.1"), 400, "RFC 9110 5.6.2"),
    Row("empty method", line(b" / HTTP/1.1"), 400, "RFC 9112 3"),
    Row("quoted method", line(b'"GET" / HTTP/1.1'), 400, "RFC 9110 5.6.2"),
]

TARGETS = [
    Row(
        "path kept byte for byte",
        get(b"/a%2Fb/../c//d/./e?x=%20&y=%zz"),
        Seen(b"GET /a%2Fb/../c//d/./e?x=%20&y=%zz HTTP/1.1\r\n"),
        "RFC 3986 6.2.2; issue: encoded paths",
    ),
    Row("double slash", get(b"//a//b"), Seen(b"GET //a//b "), "nginx merge_slashes off"),
    Row("semicolon and comma", get(b"/a;b=c,d"), Seen(b"GET /a;b=c,d "), "RFC 3986 3.3"),
    Row("percent-encoded NUL", get(b"/%00"), Seen(b"GET /%00 "), "the target decodes, not the proxy"),
    Row("percent-encoded CRLF", get(b"/%0d%0aX:%20y"), Seen(b"GET /%0d%0aX:%20y "), "RFC 3986 2.1"),
    Row(
        "braces and bars", get(b"/{a}|b^c`"), Seen(b"GET /{a}|b^c` "), "browsers send them; HAProxy and nginx pass them"
    ),
    Row("backslash", get(b"/a\\b"), Seen(b"GET /a\\b "), "nginx and HAProxy pass it"),
    Row("query without path", get(b"?x=1"), 400, "RFC 9112 3.2.1"),
    Row("relative path", get(b"a/b"), 400, "HAProxy h1_request_target_validation"),
    Row("fragment", get(b"/a#b"), 400, "RFC 9112 3.2: no fragment"),
    Row("fragment alone", get(b"#"), 400, "RFC 9112 3.2"),
    Row("fragment in absolute form", get(b"http://a.example/x#y"), 400, "RFC 9112 3.2.2"),
    Row("8-bit byte in the path", get(b"/\xff"), 400, "RFC 3986 2; HAProxy refuses"),
    Row("DEL in the path", get(b"/\x7f"), 400, "RFC 3986 2"),
    Row("NUL in the path", get(b"/\x00"), 400, "RFC 9112 2.2"),
    Row("space in the path", get(b"/a b"), 400, "RFC 9112 3.2"),
    Row("tab in the path", get(b"/a\tb"), 400, "RFC 9112 3.2"),
    Row("bare CR in the path", get(b"/a\rb"), 400, "RFC 9112 2.2"),
    Row(
        "absolute form",
        get(b"http://a.example/x?y"),
        Seen(b"GET /x?y HTTP/1.1\r\nHost: a.example\r\n"),
        "RFC 9112 3.2.2",
    ),
    Row("absolute form, upper-case scheme", get(b"HTTP://a.example/"), Seen(b"GET / HTTP/1.1\r\n"), "RFC 3986 3.1"),
    Row("absolute form, https", get(b"https://a.example/"), Seen(b"GET / "), "RFC 9112 3.2.2"),
    Row("absolute form, no path", get(b"http://a.example"), Seen(b"GET / "), "RFC 9112 3.2.1"),
    Row("absolute form, query alone", get(b"http://a.example?x"), Seen(b"GET /?x "), "RFC 9112 3.2.1"),
    Row("absolute form, host in other case", get(b"http://A.Example/"), PASS, "RFC 9110 4.2.3"),
    Row("absolute form against another Host", get(b"http://b.example/"), 400, "HAProxy h1_host_normalization"),
    Row("absolute form, empty port", get(b"http://a.example:/"), Seen(b"GET / ", (H,)), "RFC 3986 6.2.3"),
    Row("absolute form, port 80", get(b"http://a.example:80/"), PASS, "RFC 9110 4.2.3"),
    Row("absolute form, https, empty port", get(b"https://a.example:/"), PASS, "RFC 9110 4.2.3"),
    Row(
        "absolute form, Host with an empty port",
        get(b"http://a.example/", host=b"Host: a.example:\r\n"),
        PASS,
        "RFC 9110 4.2.3",
    ),
    Row("absolute form, empty port, another host", get(b"http://b.example:/"), 400, "HAProxy h1_host_normalization"),
    Row(
        "absolute form, empty port against port 81",
        get(b"http://a.example:/", host=b"Host: a.example:81\r\n"),
        400,
        "RFC 9110 4.2.3",
    ),
    Row("absolute form with another port", get(b"http://a.example:81/"), 400, "HAProxy h1_host_normalization"),
    Row("absolute form with user", get(b"http://u@a.example/"), 400, "RFC 9110 4.2.4"),
    Row("absolute form, other scheme", get(b"ftp://a.example/"), 400, "RFC 9112 3.2.2"),
    Row("absolute form, no authority", get(b"http:///x"), 400, "RFC 9110 4.2.1"),
    Row("absolute form, broken", get(b"http:/a.example"), 400, "RFC 9112 3.2.2"),
    Row("asterisk with OPTIONS", line(b"OPTIONS * HTTP/1.1"), Seen(b"OPTIONS * HTTP/1.1\r\n"), "RFC 9112 3.2.4"),
    Row(
        "absolute OPTIONS without path",
        line(b"OPTIONS http://a.example HTTP/1.1"),
        Seen(b"OPTIONS * "),
        "RFC 9112 3.2.4",
    ),
    Row("asterisk with GET", get(b"*"), 400, "HAProxy h1_request_target_validation"),
    Row("authority form with GET", get(b"a.example:80"), 400, "RFC 9112 3.2.3"),
]

VERSIONS = [
    Row(
        "HTTP/1.0",
        b"GET / HTTP/1.0\r\n" + H + b"\r\n",
        Seen(b"GET / HTTP/1.1\r\n"),
        "RFC 9110 2.5: the proxy's own version",
    ),
    Row("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", PASS, "RFC 9112 3.2"),
    Row("HTTP/1.2 is read as 1.1", get(version=b"HTTP/1.2"), Seen(b"GET / HTTP/1.1\r\n"), "RFC 9110 2.5"),
    Row("HTTP/2.0", get(version=b"HTTP/2.0"), 505, "RFC 9110 15.6.6"),
    Row("HTTP/3.1", get(version=b"HTTP/3.1"), 505, "RFC 9110 15.6.6"),
    Row("HTTP/0.9", get(version=b"HTTP/0.9"), 400, "RFC 9112 3"),
    Row("no version", b"GET /\r\n" + H + b"\r\n", 400, "RFC 9112 3; HTTP/0.9"),
    Row("lower-case", get(version=b"http/1.1"), 400, "RFC 9112 2.3: case-sensitive"),
    Row("two-digit minor", get(version=b"HTTP/1.10"), 400, "RFC 9112 2.3: one digit"),
    Row("two-digit major", get(version=b"HTTP/01.1"), 400, "RFC 9112 2.3"),
    Row("no minor", get(version=b"HTTP/1"), 400, "RFC 9112 2.3"),
    Row("comma for dot", get(version=b"HTTP/1,1"), 400, "RFC 9112 2.3"),
    Row("other protocol", get(version=b"ICY/1.1"), 400, "RFC 9112 2.3"),
    Row("space behind", get(version=b"HTTP/1.1 "), 400, "RFC 9112 3"),
    Row("two spaces", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400, "RFC 9112 3: single SP"),
    Row("tab between", b"GET /\tHTTP/1.1\r\n" + H + b"\r\n", 400, "RFC 9112 3"),
    Row("text behind", get(version=b"HTTP/1.1 x"), 400, "RFC 9112 3"),
    Row("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "RFC 9113 3.4"),
    Row("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 30, 400, "nginx: plain port"),
]

LINES = [
    Row("one empty line before", b"\r\n" + get(), PASS, "RFC 9112 2.2"),
    Row("bare LF before", b"\n" + get(), 400, "RFC 9112 2.2"),
    Row("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", 400, "RFC 9112 2.2; http-garden"),
    Row("bare LF after the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400, "RFC 9112 2.2"),
    Row("bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400, "RFC 9112 2.2; http-garden"),
    Row("bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "RFC 9112 2.2"),
    Row("bare CR after the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "RFC 9112 2.2"),
    Row("bare CR in a value", get(extra=b"X: a\rb\r\n"), 400, "RFC 9112 2.2"),
    Row("CR CR LF", get(extra=b"X: a\r\r\n"), 400, "RFC 9112 2.2"),
    Row("NUL in a value", get(extra=b"X: a\x00b\r\n"), 400, "RFC 9110 5.5"),
    Row("NUL in a name", get(extra=b"X\x00: a\r\n"), 400, "RFC 9110 5.1"),
    Row("control byte in a value", get(extra=b"X: \x0b\r\n"), 400, "RFC 9110 5.5"),
    Row("DEL in a value", get(extra=b"X: \x7f\r\n"), 400, "RFC 9110 5.5"),
    Row("tab in a value", get(extra=b"X: a\tb\r\n"), Seen(parts=(b"X: a\tb\r\n",)), "RFC 9110 5.5"),
    Row(
        "8-bit value", get(extra=b"X: caf\xc3\xa9\r\n"), Seen(parts=(b"X: caf\xc3\xa9\r\n",)), "RFC 9110 5.5: obs-text"
    ),
    Row("empty value", get(extra=b"X:\r\n"), Seen(parts=(b"X:\r\n",)), "RFC 9110 5.5"),
    Row("no space after the colon", get(extra=b"X:y\r\n"), Seen(parts=(b"X:y\r\n",)), "RFC 9112 5"),
    Row("much space around a value", get(extra=b"X:  \t y \t\r\n"), PASS, "RFC 9112 5"),
    Row("colon in a value", get(extra=b"X: a:b:c\r\n"), Seen(parts=(b"X: a:b:c\r\n",)), "RFC 9112 5"),
    Row(
        "spelling of names kept",
        get(extra=b"x-MiXeD-CaSe: y\r\n"),
        Seen(parts=(b"x-MiXeD-CaSe: y\r\n",)),
        "RFC 9110 5.1",
    ),
    Row(
        "order of equal names kept",
        get(extra=b"X: 1\r\nY: 2\r\nX: 3\r\n"),
        Seen(parts=(b"X: 1\r\nY: 2\r\nX: 3\r\n",)),
        "RFC 9110 5.3",
    ),
    Row("unusual token as name", get(extra=b"!#$%&'*+-.^_`|~: y\r\n"), PASS, "RFC 9110 5.6.2"),
    Row("field with space before the colon", get(extra=b"X : y\r\n"), 400, "RFC 9112 5.1"),
    Row("tab before the colon", get(extra=b"X\t: y\r\n"), 400, "RFC 9112 5.1"),
    Row("space within a name", get(extra=b"X Y: z\r\n"), 400, "RFC 9110 5.1; nginx ignore_invalid_headers.t"),
    Row("empty name", get(extra=b": y\r\n"), 400, "RFC 9110 5.1"),
    Row("no colon", get(extra=b"XY\r\n"), 400, "RFC 9112 5"),
    Row("8-bit name", get(extra=b"X\xff: y\r\n"), 400, "RFC 9110 5.1"),
    Row("parenthesis in a name", get(extra=b"X(: y\r\n"), 400, "RFC 9110 5.6.2"),
    Row("quote in a name", get(extra=b'"X": y\r\n'), 400, "RFC 9110 5.6.2"),
    Row("folded line", get(extra=b"X: a\r\n b\r\n"), 400, "RFC 9112 5.2"),
    Row("folded with tab", get(extra=b"X: a\r\n\tb\r\n"), 400, "RFC 9112 5.2"),
    Row("fold before the first field", b"GET / HTTP/1.1\r\n " + H + b"\r\n", 400, "RFC 9112 2.2"),
    Row(
        "folded Transfer-Encoding",
        post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
        400,
        "smuggling: obs-fold",
    ),
]

HOSTS = [
    Row(f"Host {name}", get(host=b"Host: " + value + b"\r\n"), outcome, source)
    for name, value, outcome, source in (
        ("name", b"a.example", Seen(parts=(b"Host: a.example\r\n",)), "RFC 9110 7.2"),
        ("with port", b"a.example:8080", Seen(parts=(b"Host: a.example:8080\r\n",)), "RFC 9110 7.2"),
        ("with empty port", b"a.example:", PASS, "RFC 3986 3.2.3"),
        ("in upper case", b"A.EXAMPLE", Seen(parts=(b"Host: A.EXAMPLE\r\n",)), "RFC 9110 4.2.3"),
        ("with root dot", b"a.example.", PASS, "nginx http_host.t"),
        ("IPv4", b"192.0.2.1:80", PASS, "RFC 3986 3.2.2"),
        ("IPv6", b"[2001:db8::1]:80", PASS, "RFC 3986 3.2.2"),
        ("with underscore", b"a_b.example", PASS, "in use"),
        ("empty", b"", 400, "RFC 9110 7.2: http has an authority"),
        ("with port out of range", b"a:65536", 400, "nginx http_host.t"),
        ("with port of letters", b"a:http", 400, "RFC 3986 3.2.3"),
        ("with two ports", b"a:80:80", 400, "RFC 3986 3.2"),
        ("with user", b"u@a", 400, "RFC 9110 4.2.4"),
        ("with path", b"a/b", 400, "nginx http_host.t"),
        ("with query", b"a?b", 400, "RFC 3986 3.2"),
        ("with space", b"a b", 400, "RFC 3986 3.2.2"),
        ("with comma", b"a,b", 400, "what a merged pair looks like"),
        ("double dot", b"a..b", 400, "nginx http_host.t"),
        ("broken IPv6", b"[2001:db8::1", 400, "nginx http_host.t"),
        ("IPv6 with text behind", b"[::1]x", 400, "nginx http_host.t"),
        ("8-bit", b"\xff", 400, "RFC 3986 3.2.2"),
        ("percent-encoded", b"a%2eexample", 400, "no name in use has it"),
        ("with backslash", b"a\\b", 400, "RFC 3986 3.2.2"),
        ("as a URL", b"http://a", 400, "nginx http_host.t"),
    )
] + [
    Row("no Host", b"GET / HTTP/1.1\r\n\r\n", 400, "RFC 9112 3.2"),
    Row("no Host with absolute form", b"GET http://a.example/ HTTP/1.1\r\n\r\n", 400, "RFC 9112 3.2"),
    Row("two Hosts", get(extra=b"Host: b.example\r\n"), 400, "RFC 9112 3.2"),
    Row("two equal Hosts", get(extra=H), 400, "RFC 9112 3.2"),
    Row("Host with space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "RFC 9112 5.1"),
    Row("Host in lower case", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", PASS, "RFC 9110 5.1"),
]

LENGTHS = (
    [
        Row(
            "Content-Length",
            post(b"Content-Length: 3\r\n", b"abc"),
            Seen(parts=(b"Content-Length: 3\r\n",), end=b"\r\n\r\nabc"),
            "RFC 9112 6.2",
        ),
        Row("Content-Length 0", post(b"Content-Length: 0\r\n"), PASS, "RFC 9112 6.2"),
        Row(
            "GET with a body",
            get(extra=b"Content-Length: 3\r\n") + b"abc",
            Seen(end=b"abc"),
            "RFC 9110 9.3.1; HAProxy h1_to_h1",
        ),
        Row(
            "leading zeros",
            post(b"Content-Length: 003\r\n", b"abc"),
            Seen(parts=(b"\r\nContent-Length: 3\r\n",), end=b"abc"),
            "RFC 9110 8.6: 1*DIGIT; no octal reading further on (Http11Probe SMUG-CL-LEADING-ZEROS)",
        ),
    ]
    + [
        Row(f"Content-Length {value!r}", post(b"Content-Length: " + value + b"\r\n", b"abc"), 400, source)
        for value, source in (
            (b"+3", "RFC 9110 8.6; http-garden"),
            (b"-3", "RFC 9110 8.6"),
            (b"0x3", "http-garden"),
            (b"3,3", "RFC 9112 6.3(5): refused here"),
            (b"3, 3", "RFC 9112 6.3(5)"),
            (b"3,4", "RFC 9112 6.3(5)"),
            (b"3 3", "RFC 9110 8.6"),
            (b"3;x", "RFC 9110 8.6"),
            (b"3.0", "RFC 9110 8.6"),
            (b"1e1", "RFC 9110 8.6"),
            (b"1_0", "Python int() takes it"),
            (b"", "HAProxy h1_to_h1 c5"),
            (b"0,", "HAProxy h1_to_h1 c4"),
            (b"\xb2", "a digit to Unicode only"),
            (b"three", "RFC 9110 8.6"),
            (b"\x0b3", "RFC 9110 5.5"),
            (b"18446744073709551619", "overflow of 64 bits"),
            (b"9999999999999999999999999", "overflow"),
            (b'"3"', "RFC 9110 8.6"),
        )
    ]
    + [
        Row(
            "two Content-Lengths", post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), 400, "RFC 9112 6.3(5)"
        ),
        Row(
            "two equal Content-Lengths",
            post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"),
            400,
            "nginx refuses",
        ),
        Row("Content-Length with space before the colon", post(b"Content-Length : 3\r\n", b"abc"), 400, "smuggling"),
        Row(
            "Content-Length with underscore is another field",
            post(b"Content_Length: 3\r\n"),
            Seen(without=(b"Content_Length",)),
            "CGI look-alike dropped",
        ),
        Row(
            "both, TE first",
            post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
            400,
            "CL.TE; RFC 9112 6.3(3)",
        ),
        Row(
            "both, CL first",
            post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            400,
            "TE.CL; RFC 9112 6.3(3)",
        ),
    ]
)

ENCODINGS = [
    Row(f"Transfer-Encoding {name!r}", post(b"Transfer-Encoding:" + name + b"\r\n", b"0\r\n\r\n"), outcome, source)
    for name, outcome, source in (
        (b" chunked", Seen(parts=(b"Transfer-Encoding: chunked\r\n",), end=b"0\r\n\r\n"), "RFC 9112 6.1"),
        (b" Chunked", PASS, "RFC 9112 7: case-insensitive"),
        (b"chunked", PASS, "RFC 9112 5"),
        (b"\tchunked\t", 400, "RFC 9112 5 allows it; nginx does not"),
        (b" xchunked", 400, "TE.TE"),
        (b" chunked1", 400, "TE.TE"),
        (b" chunk", 400, "TE.TE"),
        (b" chunked, chunked", 400, "RFC 9112 6.1: not twice"),
        (b" chunked,", 400, "TE.TE"),
        (b" ,chunked", 400, "TE.TE"),
        (b" chunked, identity", 400, "RFC 9112 6.1: last"),
        (b" identity, chunked", 501, "nginx body_chunked.t: 501"),
        (b" identity", 501, "nginx body_chunked.t: 501"),
        (b" gzip, chunked", 501, "RFC 9112 6.1"),
        (b" gzip", 501, "RFC 9112 6.1"),
        (b" chunked;a=b", 400, "TE.TE"),
        (b' "chunked"', 400, "TE.TE"),
        (b" 'chunked'", 400, "TE.TE"),
        (b" \x0bchunked", 400, "TE.TE: vertical tab"),
        (b" \x00chunked", 400, "TE.TE: NUL"),
        (b" chunked\x00", 400, "TE.TE"),
        (b" chun ked", 400, "TE.TE"),
        (b"", 400, "TE.TE"),
        (b" \xa0chunked", 400, "TE.TE: no-break space"),
        (b" chunkeD\x85", 400, "TE.TE: next line"),
    )
] + [
    Row(
        "two Transfer-Encodings",
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
        "nginx body_chunked.t",
    ),
    Row(
        "two, the second odd",
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", b"0\r\n\r\n"),
        400,
        "TE.TE",
    ),
    Row(
        "two, the first odd",
        post(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        501,
        "TE.TE",
    ),
    Row("TE with space before the colon", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400, "TE.TE"),
    Row(
        "underscore is another field",
        post(b"Transfer_Encoding: chunked\r\n"),
        Seen(without=(b"Transfer_Encoding",)),
        "CGI look-alike dropped",
    ),
    Row(
        "in HTTP/1.0",
        b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "RFC 9112 6.1; nginx body_chunked.t",
    ),
    Row("behind a NUL field", post(b"X: \x00\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400, "http-garden"),
]

CHUNKS = [
    Row(
        "chunks",
        chunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        Seen(end=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        "RFC 9112 7.1",
    ),
    Row("hexadecimal in both cases", chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), PASS, "RFC 9112 7.1"),
    Row("chunk sizes with leading zeros", chunked(b"0003\r\nabc\r\n000\r\n\r\n"), PASS, "RFC 9112 7.1: 1*HEXDIG"),
    Row(
        "extension dropped",
        chunked(b"3;a=b\r\nabc\r\n0;c\r\n\r\n"),
        Seen(end=b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        "RFC 9112 7.1.1",
    ),
    Row("quoted extension", chunked(b'3;a="b c"\r\nabc\r\n0\r\n\r\n'), Seen(without=(b";a",)), "RFC 9112 7.1.1"),
    Row("trailer kept", chunked(b"0\r\nX-Sum: 1\r\n\r\n"), Seen(end=b"0\r\nX-Sum: 1\r\n\r\n"), "RFC 9112 7.1.2"),
    Row(
        "trailers that a client may not set in a header either",
        chunked(
            b"0\r\nX_Forwarded_For: 9\r\nX-Real-IP: 9\r\nX-Forwarded-Port: 9\r\nTransfer_Encoding: 9\r\n"
            b"x_request_id: 9\r\nForwarded: 9\r\nX.Forwarded.Proto: 9\r\nX_Sum: 1\r\n\r\n"
        ),
        Seen(end=b"0\r\nX_Sum: 1\r\n\r\n"),
        "CGI look-alikes",
    ),
    Row(
        "forbidden trailers dropped",
        chunked(b"0\r\nContent-Length: 9\r\nHost: b\r\nX: 1\r\n\r\n"),
        Seen(end=b"0\r\nX: 1\r\n\r\n"),
        "RFC 9110 6.5.1",
    ),
] + [
    Row(f"chunk {raw!r:.60}", chunked(raw), 400, source)
    for raw, source in (
        (b"+3\r\nabc\r\n0\r\n\r\n", "http-garden"),
        (b"-3\r\nabc\r\n0\r\n\r\n", "http-garden"),
        (b"0x3\r\nabc\r\n0\r\n\r\n", "http-garden"),
        (b" 3\r\nabc\r\n0\r\n\r\n", "http-garden"),
        (b"3 \r\nabc\r\n0\r\n\r\n", "http-garden"),
        (b"3\t\r\nabc\r\n0\r\n\r\n", "http-garden"),
        (b"3_0\r\nabc\r\n0\r\n\r\n", "http-garden"),
        (b"3\nabc\r\n0\r\n\r\n", "RFC 9112 2.2: CRLF"),
        (b"3\r\nabc\n0\r\n\r\n", "RFC 9112 7.1"),
        (b"3\r\nabcX\r\n0\r\n\r\n", "nginx body_chunked.t: runaway chunk"),
        (b"3\r\nab\r\n0\r\n\r\n", "RFC 9112 7.1"),
        (b"3\r\n\r\nabc0\r\n\r\n", "RFC 9112 7.1"),
        (b"\r\n3\r\nabc\r\n0\r\n\r\n", "RFC 9112 7.1"),
        (b"g\r\nabc\r\n0\r\n\r\n", "RFC 9112 7.1"),
        (b";x\r\nabc\r\n0\r\n\r\n", "RFC 9112 7.1"),
        (b"ffffffffffffffff\r\nabc", "overflow of 64 bits"),
        (b"10000000000000003\r\nabc\r\n0\r\n\r\n", "overflow to 3"),
        (b"00000000000000000000003\r\nabc\r\n0\r\n\r\n", "too many digits"),
        (b"3;\x00\r\nabc\r\n0\r\n\r\n", "control byte in an extension"),
        (b"3;a\nb\r\nabc\r\n0\r\n\r\n", "bare LF in an extension: CVE-2025-22871"),
        (b"3;a\rb\r\nabc\r\n0\r\n\r\n", "bare CR in an extension"),
        (b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n", "bounded: CVE-2023-39326"),
        (b"0\r\nX : y\r\n\r\n", "RFC 9112 5.1 in a trailer"),
        (b"0\r\nX: a\r\n b\r\n\r\n", "RFC 9112 5.2 in a trailer"),
        (b"0\r\nX: a\nY: b\r\n\r\n", "bare LF in a trailer"),
        (b"0\r\n\x00: a\r\n\r\n", "NUL in a trailer"),
        (b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n", "too many trailers"),
    )
]

HOP_BY_HOP = [
    Row(
        "Connection and what it names",
        get(extra=b"Connection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n"),
        Seen(parts=(b"X-End: 2",), without=(b"X-Hop", b"Connection: close")),
        "RFC 9110 7.6.1",
    ),
    Row(
        "two Connection lines",
        get(extra=b"Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2\r\n"),
        Seen(without=(b"X-A", b"X-B")),
        "RFC 9110 7.6.1",
    ),
    Row(
        "Keep-Alive and Proxy-Connection",
        get(extra=b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"),
        Seen(without=(b"Keep-Alive", b"Proxy-Connection")),
        "RFC 9110 7.6.1",
    ),
    Row(
        "TE: trailers passes",
        get(extra=b"TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n"),
        Seen(parts=(b"TE: trailers\r\n", b"Connection: TE\r\n"), without=(b"deflate",)),
        "HAProxy http_transfer_encoding",
    ),
    Row("TE without trailers is dropped", get(extra=b"TE: gzip\r\n"), Seen(without=(b"TE: ",)), "RFC 9110 10.1.4"),
    Row(
        "Upgrade without Connection", get(extra=b"Upgrade: websocket\r\n"), Seen(without=(b"Upgrade",)), "RFC 9110 7.8"
    ),
    Row(
        "h2c is never passed on",
        get(extra=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
        Seen(without=(b"h2c", b"HTTP2-Settings", b"Upgrade")),
        "h2c smuggling; RFC 9113 3.1",
    ),
    Row(
        "h2c among others",
        get(extra=b"Connection: Upgrade\r\nUpgrade: h2c, foo\r\n"),
        Seen(parts=(b"Upgrade: foo\r\n",), without=(b"h2c",)),
        "RFC 9113 3.1",
    ),
    Row(
        "end-to-end fields survive Connection",
        get(
            extra=b"Connection: Host, Authorization, Cookie, Content-Type\r\nAuthorization: x\r\nCookie: a=b\r\nContent-Type: t/t\r\n"
        ),
        Seen(parts=(b"Authorization: x", b"Cookie: a=b", b"Content-Type: t/t", b"Host: a.example")),
        "abuse of hop-by-hop fields",
    ),
    Row(
        "framing survives Connection",
        post(b"Connection: Content-Length\r\nContent-Length: 3\r\n", b"abc"),
        Seen(parts=(b"Content-Length: 3",), end=b"abc"),
        "abuse of hop-by-hop fields",
    ),
    Row(
        "chunked survives Connection",
        post(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        Seen(parts=(b"Transfer-Encoding: chunked",)),
        "abuse of hop-by-hop fields",
    ),
    Row(
        "forwarding fields survive Connection",
        get(extra=b"Connection: X-Forwarded-For, X-Request-Id\r\n"),
        Seen(parts=(b"X-Forwarded-For: 127.0.0.1", b"X-Request-Id: ")),
        "abuse of hop-by-hop fields",
    ),
    Row("Connection that is no list", get(extra=b"Connection: close;x\r\n"), 400, "RFC 9110 7.6.1"),
    Row(
        "a stranger's forwarding fields",
        get(
            extra=b"X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Request-Id: mine\r\n"
        ),
        Seen(
            parts=(b"X-Forwarded-For: 127.0.0.1\r\n", b"X-Forwarded-Proto: http\r\n"),
            without=(b"1.2.3.4", b"evil", b"mine", b"https"),
        ),
        "trust",
    ),
    Row(
        "look-alikes of them",
        get(extra=b"X_Forwarded_For: 1.2.3.4\r\nX-Forwarded_For: 1.2.3.4\r\n"),
        Seen(without=(b"1.2.3.4",)),
        "CGI look-alikes",
    ),
    *(
        Row(
            f"a stranger's {name.decode()}",
            get(extra=name + b": 1.2.3.4\r\nX-Other: y\r\n"),
            Seen(parts=(b"X-Other: y\r\n",), without=(b"1.2.3.4",)),
            "trust",
        )
        for name in (
            b"X-Real-IP",
            b"x_real_ip",
            b"X.Real.IP",
            b"X-Forwarded-Port",
            b"X-Forwarded-Protocol",
            b"X-Forwarded-Ssl",
            b"X-FORWARDED-SERVER",
            b"X-Forwarded_Prefix",
            b"X-Forwarded",
            b"X-Forwarded-By",
            b"Client-IP",
            b"True-Client-IP",
            b"X_Client-IP",
        )
    ),
    Row(
        "Via is added to",
        get(extra=b"Via: 1.0 other\r\n"),
        Seen(parts=(b"Via: 1.0 other\r\n", b"Via: 1.1 lb\r\n")),
        "RFC 9110 7.6.3",
    ),
    Row(
        "Max-Forwards counts down",
        b"OPTIONS / HTTP/1.1\r\n" + H + b"Max-Forwards: 3\r\n\r\n",
        Seen(parts=(b"Max-Forwards: 2\r\n",)),
        "RFC 9110 7.6.2",
    ),
    Row("Max-Forwards 0 ends here", b"OPTIONS / HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n", 200, "RFC 9110 7.6.2"),
    Row("TRACE with Max-Forwards 0", b"TRACE / HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n", 405, "RFC 9110 7.6.2"),
    Row("Max-Forwards of letters", get(extra=b"Max-Forwards: x\r\n"), 400, "RFC 9110 7.6.2"),
    Row("unknown expectation", post(b"Expect: 200-ok\r\nContent-Length: 0\r\n"), 417, "RFC 9110 10.1.1"),
    Row(
        "Expect in other case",
        post(b"Expect: 100-Continue\r\nContent-Length: 1\r\n", b"x"),
        Seen(parts=(b"Expect: 100-continue\r\n",)),
        "nginx http_expect_100_continue.t",
    ),
    Row(
        "Expect of HTTP/1.0 is ignored",
        b"POST / HTTP/1.0\r\n" + H + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        Seen(without=(b"Expect",)),
        "RFC 9110 10.1.1",
    ),
    Row("WebSocket without key", get(extra=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), 400, "HAProxy websocket"),
    Row(
        "WebSocket by POST",
        post(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"),
        400,
        "RFC 6455 4.1",
    ),
]

LIMITS = [
    Row("request line too long", get(b"/" + b"a" * 9000), 414, "RFC 9110 15.5.15"),
    Row("request line just fits", get(b"/" + b"a" * 8000), PASS, "nginx: 8 KiB"),
    Row("endless request line", b"GET /" + b"a" * 9000, 414, "bounded"),
    Row("one header too large", get(extra=b"X: " + b"a" * 40000 + b"\r\n"), 431, "RFC 6585 5"),
    Row(
        "headers too large together",
        get(extra=b"".join(b"X-%d: %b\r\n" % (i, b"a" * 900) for i in range(40))),
        431,
        "RFC 6585 5",
    ),
    Row("too many headers", get(extra=b"X: y\r\n" * 101), 431, "nginx http_max_headers.t"),
    Row("just as many as allowed", get(extra=b"X: y\r\n" * 99), PASS, "limit 100"),
    Row("endless headers", b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 50000, 431, "bounded"),
]

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

#: What published research and other suites try; the same technique stands above where it belongs to one rule alone.
ATTACKS = [
    Row(name, raw, outcome, source)
    for name, raw, outcome, source in (
        (
            "TERM.EXT: bare LF ends a size line with an extension",
            chunked(b"3;\nxx\r\nabc\r\n0\r\n\r\n"),
            400,
            "TERM.EXT; Http11Probe SMUG-CHUNK-EXT-LF",
        ),
        (
            "EXT.TERM: bare LF within an extension",
            chunked(b"2;\nxx\r\n49\r\nabc\r\n0\r\n\r\n"),
            400,
            "EXT.TERM; CVE-2025-22871",
        ),
        ("ONE.TWO: LF behind chunk data", chunked(b"3\r\nabc\n0\r\n\r\n" + SMUGGLED), 400, "ONE.TWO"),
        ("TWO.ONE: data where a CRLF belongs", chunked(b"3\r\nabcXX0\r\n\r\n" + SMUGGLED), 400, "TWO.ONE; http-garden"),
        ("CR alone behind a size", chunked(b"3\rabc\r\n0\r\n\r\n"), 400, "Http11Probe SMUG-CHUNK-BARE-CR-TERM"),
        ("CR alone in an extension", chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), 400, "Http11Probe SMUG-CHUNK-EXT-CR"),
        ("bare LF as the last line", chunked(b"0\r\n\n" + SMUGGLED), 400, "Http11Probe SMUG-CHUNK-LF-TRAILER"),
        ("vertical tab behind a size", chunked(b"3\x0b\r\nabc\r\n0\r\n\r\n"), 400, "http-garden"),
        ("no size", chunked(b"\r\n\r\n"), 400, "http-garden: empty sizes read as 0; Go issue 64517"),
        ("negative zero", chunked(b"-0\r\n\r\n"), 400, "http-garden: relayd, Pound"),
        ("size with underscore", chunked(b"0_2e\r\n\r\n" + SMUGGLED), 400, "http-garden; CVE-2023-47627"),
        ("extension without a name", chunked(b"3;\r\nabc\r\n0\r\n\r\n"), 400, "RFC 9112 7.1.1; Http11Probe"),
        ("open quote in an extension", chunked(b'3;a="\r\nabc\r\n0\r\n\r\n'), 400, "llhttp: quoted chunk extensions"),
        ("extension quoted with an escape", chunked(b'3;a="\\""\r\nabc\r\n0\r\n\r\n'), PASS, "RFC 9110 5.6.4; llhttp"),
        (
            "trailers that frame, route and authenticate are dropped",
            chunked(
                b"0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nHost: b\r\nAuthorization: x\r\nX: 1\r\n\r\n"
            ),
            Seen(end=b"0\r\nX: 1\r\n\r\n"),
            "Http11Probe SMUG-TRAILER-*; TR.TE",
        ),
        ("CL.TE", post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nG"), 400, "Kettle 2019"),
        (
            "TE.CL",
            post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"5c\r\nGPOST / HTTP/1.1\r\n\r\n"),
            400,
            "Kettle 2019",
        ),
        (
            "CL.0",
            post(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
            Seen(end=SMUGGLED),
            "Kettle 2022: a body stays a body",
        ),
        (
            "0.CL on a GET",
            get(extra=b"Content-Length: %d\r\n" % len(SMUGGLED)) + SMUGGLED,
            Seen(end=SMUGGLED),
            "Kettle 2025: a body stays a body, whatever the method",
        ),
        (
            "TE.0",
            b"OPTIONS / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            PASS,
            "TE.0, 2024",
        ),
        (
            "two Content-Lengths, one empty",
            post(b"Content-Length:\r\nContent-Length: 5\r\n", b"hello"),
            400,
            "CVE-2023-40225",
        ),
        ("Content-Length 0 and an empty one", post(b"Content-Length: 0\r\nContent-Length:\r\n"), 400, "CVE-2023-40225"),
        ("three lengths", post(b"Content-Length: 0\r\nContent-Length: 5\r\nContent-Length: 0\r\n"), 400, "smugglex"),
        ("length in a fold", post(b"Content-Length:\r\n 5\r\n", b"hello"), 400, "Kettle 2019: obs-fold"),
        (
            "octal length",
            post(b"Content-Length: 010\r\n", b"0123456789"),
            Seen(parts=(b"Content-Length: 10\r\n",)),
            "Http11Probe",
        ),
        (
            "length 00",
            post(b"Content-Length: 00\r\n"),
            Seen(parts=(b"Content-Length: 0\r\n",)),
            "Http11Probe SMUG-CL-DOUBLE-ZERO",
        ),
        ("length with NUL", post(b"Content-Length: 5\x00\r\n", b"hello"), 400, "smugglex"),
        ("length as 5e0", post(b"Content-Length: 5e0\r\n", b"hello"), 400, "http-request-smuggler CL-e"),
        ("no-break space before a length", post(b"Content-Length:\xa05\r\n", b"hello"), 400, "http-garden: Tornado"),
        (
            "TE behind a bare CR",
            post(b"Foo: bar\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler badsetupCR",
        ),
        (
            "TE behind a bare LF",
            post(b"Foo: bar\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler badsetupLF",
        ),
        (
            "TE behind CR LF CR",
            post(b"Foo: bar\r\n\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler 0dwrap",
        ),
        (
            "CR in the name of TE",
            post(b"Tra\rnsfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler 0dspam",
        ),
        (
            "LF before the colon of TE",
            post(b"Transfer-Encoding\n : chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler gareth1",
        ),
        ("word before the colon of TE", post(b"Transfer-Encoding x: chunked\r\n", b"0\r\n\r\n"), 400, "Klein 2020"),
        ("backslash in the name of TE", post(b"Transfer\\Encoding: chunked\r\n", b"0\r\n\r\n"), 400, "Klein 2020"),
        (
            "soft hyphen in the name of TE",
            post(b"Transfer\xadEncoding: chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler shy",
        ),
        (
            "TE in a doubly folded line",
            post(b"Transfer-Encoding:\r\n \r\n chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler doublewrapped",
        ),
        (
            "TE with a tab fold behind",
            post(b"Transfer-Encoding: chunked\r\n\t\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler tabwrap",
        ),
        (
            "TE folded behind another field",
            post(b"Foo: bar\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler nameprefix1",
        ),
        (
            "TE in MIME words",
            post(b"Transfer-Encoding: =?iso-8859-1?B?Y2h1bmtlZA==?=\r\n", b"0\r\n\r\n"),
            400,
            "http-request-smuggler qencode",
        ),
        ("TE with a form feed", post(b"Transfer-Encoding: \x0cchunked\r\n", b"0\r\n\r\n"), 400, "smuggler endspace-0c"),
        ("TE with an accent", post(b"Transfer-Encoding: ch\x96nked\r\n", b"0\r\n\r\n"), 400, "smuggler accentCH"),
        ("TE empty, and a length", post(b"Transfer-Encoding:\r\nContent-Length: 5\r\n", b"hello"), 400, "http-garden"),
        (
            "TE in a list with a length",
            post(b"Transfer-Encoding: ,chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
            400,
            "http-garden: OpenLiteSpeed, Pound, relayd",
        ),
        (
            "tab before a coding",
            post(b"Transfer-Encoding:\tchunked\r\n", b"0\r\n\r\n"),
            400,
            "smuggler tabprefix1: nginx reads it in another way than HAProxy",
        ),
        (
            "tab before a length",
            post(b"Content-Length:\t5\r\n", b"hello"),
            400,
            "Http11Probe MAL-CL-TAB-BEFORE-VALUE: as for a coding",
        ),
        (
            "GET of HTTP/1.0 with a body",
            b"GET / HTTP/1.0\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
            400,
            "RFC 1945 7.2; HAProxy 413",
        ),
        (
            "WebSocket among others, by POST",
            post(b"Connection: Upgrade\r\nUpgrade: foo, websocket\r\nSec-WebSocket-Key: x\r\n"),
            400,
            "RFC 6455 4.1; HAProxy",
        ),
        (
            "white space before the first field",
            b"GET / HTTP/1.1\r\n\tContent-Length: 1\r\n" + H + b"\r\nX",
            400,
            "http-garden",
        ),
        ("white space alone in a line", get(extra=b" \r\nX: y\r\n"), 400, "http-request-smuggler spacesplit"),
        ("field without a name behind another", get(extra=b"X: y\r\n: z\r\n"), 400, "CVE-2023-25725"),
        ("NUL in Host", b"GET / HTTP/1.1\r\nHost: a\x00.b\r\n\r\n", 400, "http-garden: HAProxy 2023"),
        ("8-bit byte before a name", get(extra=b"\xefX: y\r\n"), 400, "http-garden: aiohttp, Daphne, Mongoose"),
        ("request line split by LF", b"GET /\nHTTP/1.1\r\n" + H + b"\r\n", 400, "http-garden"),
        ("version with CRs", b"GET / HTTP/\r\r1.1\r\n" + H + b"\r\n", 400, "http-garden: FastHTTP"),
        ("version 1.00", get(version=b"HTTP/1.00"), 400, "RFC 9112 2.3"),
        ("version 1.32", get(version=b"HTTP/1.32"), 400, "http-garden: aiohttp"),
        ("version -1.1", get(version=b"HTTP/-1.1"), 400, "RFC 9112 2.3"),
        ("HTTP/0.9 with a host", b"GET http://a.example/\r\n\r\n", 400, "RFC 9112 3"),
        ("method with punctuation", b'G=":<>(e),[T];?" / HTTP/1.1\r\n' + H + b"\r\n", 400, "http-garden: aiohttp"),
        ("target of one mark", get(b"!"), 400, "http-garden: aiohttp"),
        ("LF before, CRLF behind", b"\n\r\n" + get(), 400, "RFC 9112 2.2"),
        ("two empty lines before", b"\r\n\r\n" + get(), 400, "RFC 9112 2.2: one is ignored"),
        (
            "absolute form with the default port",
            get(b"http://a.example:80/"),
            PASS,
            "RFC 9110 4.2.3; HAProxy h1_host_normalization",
        ),
        (
            "absolute form, Host with the default port",
            get(b"http://a.example/", host=b"Host: a.example:80\r\n"),
            PASS,
            "RFC 9110 4.2.3",
        ),
        ("absolute form, https, port 80", get(b"https://a.example:80/"), 400, "RFC 9110 4.2.2"),
        ("absolute form with backslash", get(b"http://a.example\\@b/"), 400, "parsers of URLs differ"),
        ("absolute form with an open bracket", get(b"http://[::1/"), 400, "RFC 3986 3.2.2"),
        ("Host of colons", get(host=b"Host: [:::::]\r\n"), 400, "RFC 3986 3.2.2"),
        ("Host IPv4 in brackets", get(host=b"Host: [1.2.3.4]\r\n"), 400, "RFC 3986 3.2.2"),
        ("Host of a dot", get(host=b"Host: .\r\n"), 400, "no name in use"),
        ("Host with zone", get(host=b"Host: [fe80::1%25eth0]\r\n"), 400, "RFC 6874 is withdrawn"),
        ("Host folded", b"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", 400, "RFC 9112 5.2"),
        (
            "Expect with words before",
            post(b"Expect: y 100-continue\r\nContent-Length: 1\r\n", b"x"),
            417,
            "Kettle 2025: obfuscated Expect",
        ),
        ("Expect folded", post(b"Expect:\r\n 100-continue\r\nContent-Length: 1\r\n", b"x"), 400, "Kettle 2025"),
        ("Expect in a list", post(b"Expect: 100-continue, x\r\nContent-Length: 1\r\n", b"x"), 417, "RFC 9110 10.1.1"),
        (
            "Expect twice, once odd",
            post(b"Expect: 100-continue\r\nExpect: x\r\nContent-Length: 1\r\n", b"x"),
            417,
            "RFC 9110 10.1.1",
        ),
        ("Expect empty", post(b"Expect:\r\nContent-Length: 1\r\n", b"x"), 417, "RFC 9110 10.1.1"),
        (
            "Expect without a body",
            get(extra=b"Expect: 100-continue\r\n"),
            Seen(without=(b"Expect",)),
            "RFC 9110 10.1.1; Kettle 2025: 0.CL",
        ),
        ("Upgrade in quotes", get(extra=b'Connection: Upgrade\r\nUpgrade: "h2c"\r\n'), 400, "RFC 9110 7.8"),
        (
            "Upgrade with words before",
            get(extra=b"Connection: Upgrade\r\nUpgrade: foo h2c\r\n"),
            400,
            "h2c smuggling, obfuscated",
        ),
        (
            "Upgrade with a version",
            get(extra=b"Connection: Upgrade\r\nUpgrade: foo/1.0\r\n"),
            Seen(parts=(b"Upgrade: foo/1.0\r\n",)),
            "RFC 9110 7.8",
        ),
        (
            "Upgrade to H2C",
            get(extra=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C-14\r\n"),
            Seen(without=(b"Upgrade", b"H2C")),
            "h2c smuggling",
        ),
        (
            "Upgrade of HTTP/1.0",
            b"GET / HTTP/1.0\r\n" + H + b"Connection: Upgrade\r\nUpgrade: foo\r\n\r\n",
            Seen(without=(b"Upgrade",)),
            "RFC 9110 7.8",
        ),
        (
            "TRACE with chunks",
            b"TRACE / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "RFC 9110 9.3.8",
        ),
        (
            "CONNECT with a body",
            b"CONNECT a.example:443 HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
            501,
            "RFC 9110 9.3.6",
        ),
        ("CONNECT by HTTP/1.0", b"CONNECT a.example:443 HTTP/1.0\r\n\r\n", 501, "RFC 9110 9.3.6"),
        ("asterisk with POST", b"POST * HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n", 400, "RFC 9112 3.2.4"),
        ("asterisk with more", line(b"OPTIONS *x HTTP/1.1"), 400, "RFC 9112 3.2.4"),
        (
            "Connection names Content-Length of another spelling",
            post(b"Connection: cOnTeNt-LeNgTh\r\nContent-Length: 3\r\n", b"abc"),
            Seen(end=b"abc"),
            "abuse of hop-by-hop fields",
        ),
        ("Connection with NUL", get(extra=b"Connection: close\x00\r\n"), 400, "RFC 9110 5.5"),
        ("a method of forty signs", get().replace(b"GET", b"'" * 40), PASS, "found by fuzzing: the same in pieces"),
    )
]

TABLE: list[Row] = [
    *METHODS, *TARGETS, *VERSIONS, *LINES, *HOSTS, *LENGTHS, *ENCODINGS, *CHUNKS, *HOP_BY_HOP, *LIMITS, *ATTACKS,
]  # fmt: skip
