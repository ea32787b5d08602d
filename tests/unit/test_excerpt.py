"""What the log says of requests that are refused: whatever can be read, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.http.h1.excerpt import FIELD_LIMIT, METHOD_LIMIT, TARGET_LIMIT, Excerpt, excerpt


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"GET /x HTTP/1.1\r\nX : y\r\nHost: a\r\nUser-Agent: b c\r\n\r\n", (b"GET", b"/x", b"HTTP/1.1", b"a", b"b c")),
        (b"\r\nGET /x HTTP/2.0\r\n\r\nHost: later\r\n", (b"GET", b"/x", b"HTTP/2.0")),
        (b"GET /x y HTTP/1.1\r\nhost:a:80\r\n\r\n", (b"GET", b"/x", b"HTTP/1.1", b"a:80")),
        (b"GET /x HTTP/1.1\nHost: a\n\n", (b"GET", b"/x", b"HTTP/1.1", b"a")),
        (b"GET /half", (b"GET", b"/half")),
        (b"GET ", (b"GET",)),
        (b"GET", ()),
        (b"", ()),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 / HTTP/1.1", ()),
        (b"<script> / HTTP/1.1\r\n\r\n", ()),
        (b"POST /a\x00b HTTP/1.1\r\nHost: a\x1b[2J\r\n\r\n", (b"POST", b"/a", b"HTTP/1.1", b"a")),
        (b"GET /a?b#c\xff HTTP/1.1\r\n\r\n", (b"GET", b"/a?b#c\xff", b"HTTP/1.1")),
    ],
)
def test_what_can_be_read(raw: bytes, seen: tuple[bytes, ...]) -> None:
    assert excerpt(raw) == Excerpt(*seen)


@given(st.one_of(st.binary(max_size=300), st.text("GET /HTP1.\r\n host:a\x00", max_size=300).map(str.encode)))
def test_noise_is_bounded_and_printable(raw: bytes) -> None:
    assert all(byte >= 0x20 and byte != 0x7F for value in excerpt(raw) for byte in value)


def test_values_are_cut() -> None:
    long = b"x" * 100_000
    assert excerpt(long + b" / HTTP/1.1\r\n") == Excerpt()
    head = b"GET /%b HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\n\r\n" % (long[:20000], long[:20000], long[:20000])
    assert [len(value) for value in excerpt(head)] == [3, TARGET_LIMIT, 8, FIELD_LIMIT, FIELD_LIMIT]
    assert METHOD_LIMIT < 100
