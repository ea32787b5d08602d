"""PROXY protocol headers, versions 1 and 2, whole, in pieces, and broken."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.http.proxy_protocol import SIGNATURE_V2, read


def v2(command: int = 1, family: int = 0x11, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return SIGNATURE_V2 + bytes([0x20 | command, family]) + size.to_bytes(2, "big") + payload


INET = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + b"\x12\x34\x00\x50"
INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + b"\0\1\0\2"
)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7") + socket.inet_pton(socket.AF_INET6, "::1") + b"\0\1\0\2"

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
    (v2(family=0x12, payload=INET), b""),  # a datagram: no client of ours
    (v2(family=0x00, payload=b"whatever"), b""),  # UNSPEC: the block is ignored
    (v2(command=0, family=0xFF, payload=b"\x02"), b""),  # LOCAL: so is it, with its family
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 4660 80\r\n", b"192.0.2.7"),
    (b"PROXY TCP6 ::FFFF:c000:207 2001:db8::1 0 65535\r\n", b"192.0.2.7"),
    (v2(family=0x21, payload=MAPPED), b"192.0.2.7"),
    (v2(family=0x21, payload=MAPPED + b"\x04\x00\x00\x02\x00\x01x"), b"192.0.2.7"),
    (b"PROXY TCP6 ::192.0.2.7 ::1 1 2\r\n", b"::c000:207"),  # "compatible" is not "mapped": another address
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
        v2(payload=INET[:4]),  # an address block that is too short
        v2(payload=b""),
        v2(family=0x21, payload=INET),
        v2(family=0x31, payload=b"\0" * 215),
        v2(payload=INET + b"\x02\x00\x50abcde"),  # a TLV that is longer than the header
        v2(payload=INET + b"\x02\x00"),
        v2(family=0x41, payload=INET6),  # families and transports that there are none of
        v2(family=0x13, payload=INET),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 04660 80\r\n",
        b"PROXY TCP4 192.0.2.07 192.0.2.1 1 80\r\n",
        b"PROXY  TCP4 192.0.2.7 192.0.2.1 1 80\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN a\nb\r\n",
        b"PROXY tcp4 192.0.2.7 192.0.2.1 1 80\r\n",
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
