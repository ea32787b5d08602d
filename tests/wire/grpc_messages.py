"""What tests of gRPC share: messages, answers of a target over HTTP/1.1, and what lb has counted."""

from __future__ import annotations

import asyncio

from tests.support.front import Front, Origin, Script, read_request

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n"


def message(payload: bytes) -> bytes:
    """A message of gRPC with its prefix."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def with_status(status: int, lines: bytes = b"") -> bytes:
    """An answer with a message, and the status in its trailers."""
    body = chunk(message(b"hello"))
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\ngrpc-status: %d\r\n%b\r\n" % (status, lines)


def trailers_only(status: int, lines: bytes = b"") -> bytes:
    return HEAD + b"grpc-status: %d\r\n%bContent-Length: 0\r\n\r\n" % (status, lines)


def says(*replies: bytes) -> Script:
    """Answers with each of them in turn, over all connections; the last one stays."""
    left = list(replies)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await read_request(reader))
            writer.write(left.pop(0) if len(left) > 1 else left[0])

    return script


def statuses(front: Front) -> dict[int, int]:
    return dict(front.call(lambda: front.plane.services["s"].grpc))
