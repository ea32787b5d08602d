"""Compression on the wire: whole answers, pieces, large ones in threads, and everything that is left alone."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
import zlib

import brotli
import pytest
from backports import zstd

from lb.core.guards import Compression
from lb.core.targets import COMPRESS, StepRule
from tests.support.front import Front, Origin, answers, read_all, read_request, status_of, with_listener
from tests.support.h2_client import GET, Client

RULE = StepRule(COMPRESS, compression=Compression(("text/*", "application/json")))
TEXT = b"<p>Some text that repeats itself.</p>\n" * 100
LARGE = b"".join(b"line %d of a large text\n" % number for number in range(20_000))


def answer(body: bytes = TEXT, lines: bytes = b"", status: bytes = b"200 OK", kind: bytes = b"text/html") -> bytes:
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: " + kind + b'\r\nETag: "t"\r\n' + lines
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes, kind: bytes = b"text/html", trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: "
        + kind
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        + body
        + b"0\r\n"
        + trailers
        + b"\r\n"
    )


def ask(
    front: Front, fields: bytes = b"Accept-Encoding: gzip\r\n", method: bytes = b"GET", close: bool = True
) -> bytes:
    end = b"Connection: close\r\n" if close else b""
    with front.connect() as sock:
        sock.sendall(method + b" / HTTP/1.1\r\nHost: a\r\n" + fields + end + b"\r\n")
        return read_all(sock)


def split(raw: bytes) -> tuple[bytes, bytes]:
    """(head, body without the framing of chunks)."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return head, rest
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return head, body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


def decoded(coding: bytes, data: bytes) -> bytes:
    if coding == b"gzip":
        return gzip.decompress(data)
    return bytes(brotli.decompress(data)) if coding == b"br" else zstd.decompress(data)


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd"])
@pytest.mark.parametrize("body", [TEXT, LARGE, LARGE * 5])
@pytest.mark.parametrize("framed", ["length", "chunked"])
def test_an_answer_comes_back(coding: bytes, body: bytes, framed: str) -> None:
    raw = answer(body) if framed == "length" else chunked(*[body[at : at + 50000] for at in range(0, len(body), 50000)])
    with Front(steps=(RULE,), script=answers(raw)) as front:
        got = ask(front, b"Accept-Encoding: " + coding + b"\r\n")
        head, data = split(got)
        assert status_of(got) == 200
        assert b"\r\nContent-Encoding: " + coding in head
        assert b"\r\nVary: Accept-Encoding" in head
        assert b'W/"t"' in head or framed == "chunked"
        assert len(data) < len(body) / 3
        assert decoded(coding, data) == body
        assert front.at_rest()


def test_whole_small_answers_have_a_length_and_keep_the_connection() -> None:
    with Front(steps=(RULE,), script=answers(answer())) as front, front.connect() as sock:
        for _ in range(3):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
            raw = sock.recv(65536)
            head, _, data = raw.partition(b"\r\n\r\n")
            assert b"\r\nContent-Length: %d" % len(data) in head
            assert gzip.decompress(data) == TEXT


@pytest.mark.parametrize(
    ("raw", "fields", "vary"),
    [
        (answer(), b"", True),
        (answer(), b"Accept-Encoding: identity\r\n", True),
        (answer(), b"Accept-Encoding: gzip;q=0\r\n", True),
        (answer(b"short"), b"Accept-Encoding: gzip\r\n", False),
        (answer(kind=b"image/png"), b"Accept-Encoding: gzip\r\n", False),
        (answer(lines=b"Content-Encoding: br\r\n"), b"Accept-Encoding: gzip\r\n", False),
        (answer(lines=b"Cache-Control: no-transform\r\n"), b"Accept-Encoding: gzip\r\n", False),
        (answer(status=b"206 x", lines=b"Content-Range: bytes 0-1/9\r\n"), b"Accept-Encoding: gzip\r\n", False),
        (answer(), b"Accept-Encoding: gzip\r\nRange: bytes=0-99\r\n", False),
    ],
)
def test_what_is_left_alone(raw: bytes, fields: bytes, vary: bool) -> None:
    with Front(steps=(RULE,), script=answers(raw)) as front:
        got = ask(front, fields)
        head, body = split(got)
        assert body == raw.partition(b"\r\n\r\n")[2]
        assert (b"\r\nVary: Accept-Encoding" in head) is vary
        assert b'\r\nETag: "t"' in head
        assert b"gzip" not in head


def test_http_1_0_gets_it_as_it_is() -> None:
    with Front(steps=(RULE,), script=answers(answer())) as front:
        got = front.send(b"GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        assert got.endswith(TEXT)


def test_events_come_at_once_and_as_they_are() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"6\r\ndata:1\r\n")
        await asyncio.sleep(5)

    with Front(steps=(RULE,), script=script) as front, front.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        got = b""
        while b"data:1" not in got:
            got += sock.recv(1000)
        assert b"gzip" not in got


def test_a_slow_answer_of_unknown_length_is_not_held_back() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"5\r\nhello\r\n")
        await asyncio.sleep(5)

    with Front(steps=(RULE,), script=script) as front, front.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        got, reader, text, until = b"", zlib.decompressobj(31), b"", time.monotonic() + 3
        while b"\r\n\r\n" not in got or text != b"hello":
            assert time.monotonic() < until
            got += sock.recv(1000)
            _, _, rest = got.partition(b"\r\n\r\n")
            size, _, data = rest.partition(b"\r\n")
            if size and len(data) >= int(size, 16):
                text = reader.copy().decompress(data[: int(size, 16)])


def test_head_has_the_head_of_get() -> None:
    with Front(
        steps=(RULE,), script=answers(answer(b"", b"X-A: 1\r\n").replace(b"Length: 0", b"Length: 5000"))
    ) as front:
        raw = front.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        assert b"\r\nContent-Encoding: gzip\r\n" in raw
        assert b'W/"t"' in raw
        assert b"Content-Length" not in raw
        assert raw.endswith(b"\r\n\r\n")


def test_a_client_with_the_weak_tag_gets_304() -> None:
    raw = b'HTTP/1.1 304 Not Modified\r\nETag: "t"\r\n\r\n'
    with Front(steps=(RULE,), script=answers(raw)) as front:
        got = ask(front, b'Accept-Encoding: gzip\r\nIf-None-Match: W/"t"\r\n')
        assert status_of(got) == 304
        assert b'\r\nETag: W/"t"\r\n' in got
        assert b'\r\nIf-None-Match: W/"t", "t"\r\n' in front.origin.requests[0]


def test_a_slow_reader_stops_the_target() -> None:
    rng = random.Random(1)
    body = b"".join(b"%x" % rng.getrandbits(64) for _ in range(1 << 20))  # 16 MiB; half of it when compressed
    with Front(
        steps=(RULE,), script=answers(chunked(*[body[at : at + 65000] for at in range(0, len(body), 65000)]))
    ) as front:
        with front.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
            time.sleep(0.3)
            _, data = split(read_all(sock))
        assert decoded(b"gzip", data) == body
        assert front.at_rest()


def test_a_cut_answer_does_not_look_whole() -> None:
    raw = answer(LARGE)[:-1000]
    with Front(steps=(RULE,), script=answers(raw, close=True)) as front:
        got = ask(front)
        assert not got.endswith(b"0\r\n\r\n")
        assert front.at_rest()


def test_a_client_that_goes_while_a_piece_is_in_a_thread() -> None:
    with Front(steps=(RULE,), script=answers(answer(LARGE * 5))) as front:
        for _ in range(20):
            sock = front.connect()
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\n\r\n")
            time.sleep(0.005)
            sock.close()
        assert status_of(ask(front)) == 200
        time.sleep(0.2)
        assert front.at_rest()


def test_pipelined_requests_stay_in_order() -> None:
    with Front(steps=(RULE,), script=answers(answer(LARGE))) as front, front.connect() as sock:
        request = b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n%b\r\n"
        sock.sendall(request % b"" + request % b"" + request % b"Connection: close\r\n")
        raw = read_all(sock)
        assert raw.count(b"HTTP/1.1 200 OK") == 3
        for _ in range(3):
            head, body = split(raw)
            assert decoded(b"gzip", body) == LARGE
            raw = raw[len(head) + 4 :]
            if b"Content-Length" in head:
                raw = raw[len(body) :]
            else:
                raw = raw[raw.index(b"\r\n0\r\n\r\n") + 7 :]


def test_trailers_come_after_the_last_piece() -> None:
    raw = chunked(TEXT, trailers=b"X-Sum: 1\r\n")
    with Front(steps=(RULE,), script=answers(raw), trailers="pass") as front:
        got = ask(front)
        assert decoded(b"gzip", split(got)[1]) == TEXT
        assert got.endswith(b"\r\n0\r\nX-Sum: 1\r\n\r\n")


def test_over_http2() -> None:
    with (
        Front(steps=(RULE,), script=answers(answer(LARGE)), listener=with_listener(http2=True)) as front,
        Client(front) as client,
    ):
        for stream in (1, 3):
            client.ask(stream, [*GET, ("accept-encoding", "gzip, br")])
            status, fields, body = client.answer(stream)
            assert (status, fields["content-encoding"]) == (200, "br")
            assert decoded(b"br", body) == LARGE


def test_lbs_own_answers_are_left_alone() -> None:
    with Front(steps=(RULE,), ports=(1,)) as front:
        got = ask(front)
        assert status_of(got) in (502, 503)
        assert b"Content-Encoding" not in got
