"""Chunked bodies: what passes, in whatever pieces, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.http.h1.chunked import BadChunk, ChunkedBody


def run(raw: bytes, cuts: list[int], *, framed: bool = True, trailers: bool = True) -> tuple[bytes, int]:
    """Feed `raw` in pieces; returns (what was passed on, where the body ended or -1)."""
    body = ChunkedBody(framed=framed, trailers=trailers)
    out = b""
    start = 0
    for cut in [*sorted(cuts), len(raw)]:
        if cut < start:
            continue
        piece = raw[start:cut]
        if not piece:
            continue
        passed, end = body.feed(piece)
        out += passed
        if end >= 0:
            return out, start + end
        start = cut
    return out, -1


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.lists(st.integers(0, 2500), max_size=10))
def test_whatever_is_well_formed_passes_byte_for_byte(chunks: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX-Sum: 1\r\n\r\n"
    behind = b"GET / HTTP/1.1\r\n"
    out, end = run(raw + behind, [cut for cut in cuts if cut < len(raw)])
    assert out == raw
    assert end == len(raw)
    out, end = run(raw + behind, [cut for cut in cuts if cut < len(raw)], framed=False)
    assert out == b"".join(chunks)
    assert end == len(raw)


@given(st.lists(st.integers(0, 80), max_size=12))
def test_extensions_are_dropped_and_the_data_kept(cuts: list[int]) -> None:
    raw = b'5;name=value;q="a b"\r\nhello\r\n3 ;x\r\nabc\r\n0;last\r\n\r\n'
    raw = raw.replace(b"3 ;x", b"3;x")
    out, end = run(raw, cuts)
    assert out == b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n"
    assert end == len(raw)


def test_trailers_that_would_change_framing_or_routing_are_dropped() -> None:
    raw = b"0\r\nContent-Length: 5\r\nX-Sum: 1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\nAuthorization: x\r\n\r\n"
    assert run(raw, [])[0] == b"0\r\nX-Sum: 1\r\n\r\n"
    assert run(raw, [], trailers=False)[0] == b"0\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\rhello\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"g\r\n",
        b"5_0\r\n",
        b"ffffffffffffffff\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b'5;a="\r\nhello\r\n0\r\n\r\n',
        b"5; \r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"0\r\nX: a\r\n b\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"5;" + b"x" * 2000,
        b"1;" + b"x" * 900 + b"\r\na\r\n",
    ],
)
def test_ambiguous_framing_is_refused(raw: bytes) -> None:
    many = raw * 20 if raw.startswith(b"1;") else raw
    for cuts in ([], list(range(len(many)))):
        with pytest.raises(BadChunk):
            run(many, cuts)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_pieces_never_change_the_verdict(raw: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> object:
        try:
            return run(raw, cuts)
        except BadChunk:
            return "bad"

    whole, pieces = outcome([]), outcome(cuts)
    if whole == "bad" or pieces == "bad":
        assert whole == pieces
    else:
        assert whole[1] == pieces[1]  # type: ignore[index]


def test_a_trailer_section_without_end_is_bounded() -> None:
    body = ChunkedBody()
    body.feed(b"0\r\n")
    fields = [b"X-Filler: " + b"x" * 1000 + b"\r\n"] * 100
    with pytest.raises(BadChunk):
        list(map(body.feed, fields))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.lists(st.integers(0, 2500), max_size=10))
def test_the_wire_holds_the_chunks_as_they_came(chunks: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    body = ChunkedBody(framed=False)
    body.wire = []
    start, data = 0, raw + b"0\r\nX-Sum: 1\r\n\r\n"
    payload = b""
    for cut in [*sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]:
        piece, _ = body.feed(data[start:cut])
        payload += piece
        start = cut
    assert payload == b"".join(chunks)
    assert b"".join(body.wire) == raw
    assert body.trailer_lines == b"X-Sum: 1\r\n"
