"""The ClientHello, in whatever pieces it comes, against what real clients send and what no client may."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.net.tls.client_hello import (
    HELLO_LIMIT,
    MALFORMED,
    NOT_TLS,
    PLAIN_HTTP,
    RECORDS,
    TOO_LARGE,
    HelloError,
    fold,
    parse,
)


def hello_of(name: str | None, **settings: object) -> bytes:
    """The bytes that OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    if "alpn" in settings:
        context.set_alpn_protocols(settings["alpn"])  # type: ignore[arg-type]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


ORDINARY = hello_of("A.Example.ORG", alpn=["h2", "http/1.1"])


def records(message: bytes, cuts: Sequence[int] = ()) -> bytes:
    """A handshake message in records, cut at these places."""
    places = sorted({cut for cut in cuts if 0 < cut < len(message)})
    pieces = [message[a:b] for a, b in zip([0, *places], [*places, len(message)], strict=True)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def message(*extensions: tuple[int, bytes], ciphers: bytes = b"\x13\x01", tail: bytes = b"") -> bytes:
    """A ClientHello with these extensions."""
    block = b"".join(kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for kind, value in extensions)
    body = b"\x03\x03" + bytes(32) + b"\0" + len(ciphers).to_bytes(2, "big") + ciphers + b"\x01\0"
    body += len(block).to_bytes(2, "big") + block + tail
    return b"\x01" + len(body).to_bytes(3, "big") + body


def name_extension(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for name in names)
    return 0, len(entries).to_bytes(2, "big") + entries


def refusal(data: bytes) -> HelloError:
    with pytest.raises(HelloError) as caught:
        parse(data)
    return caught.value


def test_what_a_client_offers_is_read() -> None:
    hello = parse(ORDINARY)
    assert hello is not None
    assert hello.server_name == "a.example.org"
    assert hello.alpn == ("h2", "http/1.1")


def test_a_client_without_a_name_and_protocols() -> None:
    hello = parse(hello_of(None))
    assert hello is not None
    assert hello.server_name == ""
    assert hello.alpn == ()


@given(st.lists(st.integers(1, len(ORDINARY)), max_size=60), st.data())
def test_records_and_segments_do_not_change_what_is_read(cuts: list[int], data: st.DataObject) -> None:
    """CVE-2026-32305: a name behind a fragment was read as no name, and so judged by another policy."""
    cut = records(ORDINARY[5:], cuts)
    assert parse(cut) == parse(ORDINARY)
    end = data.draw(st.integers(0, len(cut) - 1))
    assert parse(cut[:end]) is None
    assert parse(cut + data.draw(st.binary(max_size=20))) == parse(ORDINARY), "later records are no matter of the hello"


def outcome(data: bytes) -> str:
    """What is made of the bytes: a hello, nothing yet, or the reason of the refusal."""
    try:
        return "waits" if parse(data) is None else "hello"
    except HelloError as error:
        return error.reason if str(error) else "a refusal without words"


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_have_a_defined_outcome(noise: bytes, framed: bool) -> None:
    data = records(b"\x01" + len(noise).to_bytes(3, "big") + noise) if framed else noise
    assert outcome(data) in {"waits", "hello", PLAIN_HTTP, NOT_TLS, MALFORMED, TOO_LARGE}


@given(st.integers(0, len(ORDINARY) - 1), st.integers(0, 255))
def test_one_changed_byte_has_a_defined_outcome(place: int, value: int) -> None:
    changed = bytearray(ORDINARY)
    changed[place] = value
    assert outcome(bytes(changed)) in {"waits", "hello", NOT_TLS, MALFORMED, TOO_LARGE}


@pytest.mark.parametrize("name", ["a.example.org.", "A.EXAMPLE.org", "a.example.org", "a.example.org "])
def test_names_are_folded(name: str) -> None:
    hello = parse(records(message(name_extension(name.encode()))))
    assert hello is not None
    assert hello.server_name == fold(name) == "a.example.org"


@pytest.mark.parametrize(
    "extensions",
    [
        [name_extension(b"a", b"b")],
        [name_extension()],
        [name_extension(b"")],
        [name_extension(b".")],
        [name_extension(b"a\0b")],
        [name_extension("ä".encode())],
        [name_extension(b"a b")],
        [name_extension(b"a" * 300)],
        [name_extension(b"a", kind=1)],
        [name_extension(b"a"), name_extension(b"a")],
        [(0, b"\x00\x04\x00\x00\x01a!")],
        [(16, b"\x00\x00")],
        [(16, b"\x00\x01\x00")],
        [(16, b"\x00\x03\x05h2")],
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(extensions: list[tuple[int, bytes]]) -> None:
    assert refusal(records(message(*extensions))).reason == MALFORMED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", PLAIN_HTTP),
        (b"OPTIONS * HTTP/1.1\r\n", PLAIN_HTTP),
        (b"CONNECT a:443 HTTP/1.1\r\n", PLAIN_HTTP),
        (b"VERSION-CONTROL http://a/ HTTP/1.1\r\n", PLAIN_HTTP),
        (b"SSH-2.0-OpenSSH_9.6\r\n", NOT_TLS),
        (b"\x80\x2e\x01\x00\x02", NOT_TLS),
        (b"\0" * 10, NOT_TLS),
        (b"A" * 100, NOT_TLS),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4660 80\r\n", NOT_TLS),
        (b"\x15\x03\x01\x00\x02\x01\x00", NOT_TLS),
        (b"\x16\x02\x00\x00\x05hello", MALFORMED),
        (b"\x16\x03\x01\x00\x00", MALFORMED),
        (b"\x16\x03\x01\x40\x01", MALFORMED),
        (b"\x16\x03\x01\x00\x01\x01\x17", MALFORMED),
        (b"\x16\x03\x01\x00\x01\x01\x17\x03\x01\x00\x03abc", MALFORMED),
        (records(b"\x02\x00\x00\x00"), MALFORMED),
        (records(message(tail=b"x")), MALFORMED),
        (records(message() + b"\x0b"), MALFORMED),
        (records(message(ciphers=b"\x13")), MALFORMED),
        (records(b"\x01" + (HELLO_LIMIT + 1).to_bytes(3, "big")), TOO_LARGE),
        (b"\x16\x03\x01\x00\x04\x01\x00\x60\x00" + b"\x16\x03\x01\x00\x01x" * RECORDS, TOO_LARGE),
    ],
)
def test_what_is_no_client_hello_has_a_reason(data: bytes, reason: str) -> None:
    assert refusal(data).reason == reason


@pytest.mark.parametrize(
    "begin", [b"G", b"GET", b"GET ", b"VERSION-CONTROL ", b"\x16", b"\x16\x03", b"\x16\x03\x01\x02"]
)
def test_a_begin_that_may_become_either_is_waited_for(begin: bytes) -> None:
    assert parse(begin) is None


def test_no_bytes_are_no_hello() -> None:
    assert parse(b"") is None
