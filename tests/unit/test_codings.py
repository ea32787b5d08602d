"""Content codings: what a client takes, which answers may have one, and what their heads say."""

from __future__ import annotations

import gzip
import random

import brotli
import pytest
from backports import zstd

from lb.http.codings import (
    Types,
    chosen,
    coded_head,
    may_be_coded,
    weakened,
    with_strong_tags,
    with_vary,
)
from lb.http.encoders import encoder
from lb.http.h1.parse import read_request_fields, read_response, read_response_fields
from lb.http.message import ResponseHead

OFFERED = [b"zstd", b"br", b"gzip"]
TYPES = Types(["text/*", "application/json"])


def head(lines: bytes = b"", status: bytes = b"200 OK", kind: bytes = b"text/html; charset=utf-8") -> ResponseHead:
    block = b"Content-Type: " + kind + b"\r\nContent-Length: 5000\r\n" + lines
    line = b"HTTP/1.1 " + status + b"\r\n"
    return read_response(line, len(line) - 2, read_response_fields(block), b"GET")


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ([], b""),
        ([b""], b""),
        ([b"gzip"], b"gzip"),
        ([b"x-gzip"], b"gzip"),
        ([b"GZIP, deflate"], b"gzip"),
        ([b"gzip, deflate, br, zstd"], b"zstd"),
        ([b"gzip, br"], b"br"),
        ([b"gzip;q=1.0, br;q=0.9"], b"gzip"),
        ([b"br;q=0.5", b"gzip;q=0.6"], b"gzip"),
        ([b"gzip;q=0"], b""),
        ([b"gzip;q=0.000, br;q=0.001"], b"br"),  # `identity` has no weight of its own, and so the lowest
        ([b"*"], b"zstd"),
        ([b"*;q=0.5, zstd;q=0"], b"br"),
        ([b"*;q=0"], b""),
        ([b"identity"], b""),
        ([b"identity;q=0.5, gzip;q=0.4"], b""),
        ([b"identity;q=0, gzip"], b"gzip"),
        ([b"identity;q=0.5, gzip;q=0.5"], b"gzip"),
        ([b"gzip;q=2"], b""),
        ([b"gzip;q=-1"], b""),
        ([b"gzip;q=nan"], b""),
        ([b"gzip ; q=0.8 "], b"gzip"),
        ([b"gzipx, brx"], b""),
        ([b"deflate, compress"], b""),
    ],
)
def test_what_a_client_takes(accept: list[bytes], coding: bytes) -> None:
    assert chosen(accept, OFFERED) == coding


@pytest.mark.parametrize(
    ("response", "may"),
    [
        (head(), True),
        (head(kind=b"Application/JSON"), True),
        (head(kind=b"image/png"), False),
        (head(kind=b"application/jsonx"), False),
        (head(kind=b"text/event-stream"), False),
        (head(kind=b"text/event-stream; charset=utf-8"), False),
        (head(b"Content-Encoding: br\r\n"), False),
        (head(b"content-encoding: identity\r\n"), False),
        (head(b"Cache-Control: private, no-transform\r\n"), False),
        (head(b"Content-Range: bytes 0-1/2\r\n"), False),
        (head(status=b"203 x"), True),
        (head(status=b"404 x"), True),
        (head(status=b"500 x"), True),
        (head(status=b"206 x"), False),
        (head(status=b"302 x"), False),
        (head(status=b"304 x"), False),
        (head(status=b"416 x"), False),
    ],
)
def test_which_answers_may_have_one(response: ResponseHead, may: bool) -> None:
    assert may_be_coded(response, TYPES, 1024) is may
    assert not may_be_coded(response, TYPES, 5001)


def test_a_head_with_a_coding() -> None:
    lines = (
        b'ETag: "abc"\r\nAccept-Ranges: bytes\r\nContent-MD5: x\r\nRepr-Digest: x\r\nVary: Origin\r\nX-A: 1\r\n'
        b"Set-Cookie: a\r\nSet-Cookie: b\r\n"
    )
    made = coded_head(head(lines), b"br", 77, False)
    assert made.fields.forwarded_lines == (
        b'Content-Type: text/html; charset=utf-8\r\nETag: W/"abc"\r\nVary: Origin\r\nX-A: 1\r\nSet-Cookie: a\r\n'
        b"Set-Cookie: b\r\nVary: Accept-Encoding\r\nContent-Encoding: br\r\nContent-Length: 77\r\n"
    )
    assert b"Content-Length" not in coded_head(head(), b"br", -1, False).fields.forwarded_lines
    weak = coded_head(head(b'ETag: W/"abc"\r\nVary: accept-encoding\r\n'), b"gzip", 1, False).fields.forwarded_lines
    assert weak.count(b"W/") == weak.lower().count(b"vary") == 1


def test_vary_is_added_once() -> None:
    for lines, more in (
        (b"", 1),
        (b"Vary: *\r\n", 0),
        (b"vary: Cookie, Accept-Encoding\r\n", 0),
        (b"Vary: Cookie\r\n", 1),
    ):
        made = with_vary(head(lines)).fields.forwarded_lines
        assert made.count(b"Vary: Accept-Encoding\r\n") == more
        assert with_vary(with_vary(head(lines))).fields.forwarded_lines == made


def test_tags_of_conditions() -> None:
    def sent(line: bytes) -> list[bytes]:
        return with_strong_tags(read_request_fields(line, 1000, 100)).forwarded_lines

    assert sent(b'If-None-Match: W/"a", "b", W/"c,d"\r\nX: 1\r\n') == [
        b'If-None-Match: W/"a", "b", W/"c,d", "a", "c,d"\r\n',
        b"X: 1\r\n",
    ]
    assert sent(b'If-None-Match: "a"\r\n') == [b'If-None-Match: "a"\r\n']
    assert sent(b"If-None-Match: *\r\n") == [b"If-None-Match: *\r\n"]
    lines = weakened(head(b'etag: "a"\r\n', b"304 x")).fields.forwarded_lines
    assert b'\r\netag: W/"a"\r\n' in lines
    assert b"Vary: Accept-Encoding\r\n" in lines


def decoded(coding: bytes, data: bytes) -> bytes:
    if coding == b"gzip":
        return gzip.decompress(data)
    return bytes(brotli.decompress(data)) if coding == b"br" else zstd.decompress(data)


@pytest.mark.parametrize("coding", OFFERED)
@pytest.mark.parametrize("flush", [False, True])
def test_pieces_come_back(coding: bytes, flush: bool) -> None:
    rng = random.Random(1)
    made = encoder(coding)
    pieces = [rng.randbytes(rng.choice((0, 1, 100, 70000))) + b"text " * 1000 for _ in range(9)]
    out = b"".join(made.encode(piece, flush, number == 8) for number, piece in enumerate(pieces))
    assert decoded(coding, out) == b"".join(pieces)
    assert decoded(coding, encoder(coding).encode(b"", flush, True)) == b""
    assert len(encoder(coding).encode(b"text " * 1000, False, True)) < 100


@pytest.mark.parametrize("coding", OFFERED)
def test_a_flushed_piece_can_be_read_at_once(coding: bytes) -> None:
    made = encoder(coding)
    first = made.encode(b"hello", True, False)
    if coding == b"gzip":
        import zlib

        assert zlib.decompressobj(31).decompress(first) == b"hello"
    elif coding == b"br":
        assert brotli.Decompressor().process(first) == b"hello"
    else:
        assert zstd.ZstdDecompressor().decompress(first) == b"hello"
