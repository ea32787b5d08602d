"""gRPC-Web's content types, trailer frames and base64."""

from __future__ import annotations

import base64
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.http.grpc_web import BINARY, NONE, TEXT, TextReader, encode_text, form_of, native_type, trailer_frame, web_type


@pytest.mark.parametrize(
    ("content_type", "form", "native"),
    [
        (b"application/grpc-web", BINARY, b"application/grpc"),
        (b"application/grpc-web+proto", BINARY, b"application/grpc+proto"),
        (b"application/grpc-web-text", TEXT, b"application/grpc"),
        (b"Application/gRPC-Web-Text+json; a=b", TEXT, b"application/grpc+json; a=b"),
        (b"application/grpc", NONE, b""),
        (b"application/grpc-website", NONE, b""),
        (b"application/grpc-web-texture", NONE, b""),
        (b"", NONE, b""),
    ],
)
def test_content_types(content_type: bytes, form: int, native: bytes) -> None:
    assert form_of(content_type) == form
    if form:
        assert native_type(content_type, form) == native
        assert form_of(web_type(native, form)) == form


def test_a_trailer_frame() -> None:
    text = b"grpc-status:0\r\ngrpc-message:a b\r\n"
    frame = b"\x80" + len(text).to_bytes(4, "big") + text
    assert trailer_frame(b"Grpc-Status: 0\r\ngrpc-message:  a b\r\n") == frame


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 200), max_size=8))
def test_pieces_come_back_however_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    text = b"".join(encode_text(piece) for piece in pieces)
    reader = TextReader()
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    got = b"".join(reader.read(text[a:b], False) for a, b in pairwise(places))
    assert got + reader.read(b"", True) == b"".join(pieces)


@pytest.mark.parametrize("text", [b"abc", b"ab=c", b"a===", b"!!!!", b"abcd\n", b"ab c"])
def test_what_is_no_base64(text: bytes) -> None:
    with pytest.raises(ValueError, match="gRPC-Web"):
        TextReader().read(text, True)


def test_a_piece_is_padded_by_itself() -> None:
    assert encode_text(b"a") == base64.b64encode(b"a") == b"YQ=="
