"""PROXY protocol headers, versions 1 and 2, whole, in pieces, and broken."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.http1.proxy_protocol import SIGNATURE_V2, read


def v2(command: int = 1, family: int = 0x11, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return SIGNATURE_V2 + bytes([0x20 | command, family]) + size.to_bytes(2, "big") + payload


INET = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + b"\x12\x34\x00\x50"
INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + b"\0\1\0\2"
)

GOOD = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 4660 80\r\n", b"192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4660 80\r\n", b"2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", b""),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", b""),
    (v2(payload=INET), b"192.0.2.7"),
    (v2(family=0x21, payload=INET6), b"2001:db8::7"),
    (v2(payload=INET + b"\x03\x00\x04abcd"), b"192.0.2.7"),  # with a TLV behind
    (v2(command=0, family=0), b""),  # LOCAL
    (v2(family=0x31, payload=b"\0" * 216), b""),  # AF_UNIX
]


@pytest.mark.parametrize(("raw", "source"), GOOD)
def test_good_headers(raw: bytes, source: bytes) -> None:
    assert read(raw + b"GET / HTTP/1.1\r\n") == (source, len(raw))
    for cut in range(1, len(raw)):
        assert read(raw[:cut]) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4660 80 \r\n",
        b"PROXY TCP4 192.0.2.777 192.0.2.1 4660 80\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 80\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP5 192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE_V2 + bytes([0x11, 0x11, 0, 0]),  # version 1 in a v2 header
        SIGNATURE_V2 + bytes([0x22, 0x11, 0, 0]),  # an unknown command
        v2(payload=b"", length=60000),
    ],
)
def test_bad_headers(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any words will do
        read(raw)


@given(st.binary(max_size=300))
def test_noise_never_crashes(raw: bytes) -> None:
    try:
        found = read(raw)
    except ValueError:
        return
    if found is not None:
        assert 0 < found[1] <= len(raw)
