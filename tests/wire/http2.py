"""What tests of HTTP/2 share: frames that a client sends, and a target that does not answer."""

from __future__ import annotations

import asyncio

from tests.support.front import Origin, Script, read_request, with_listener
from tests.support.h2_peer import raw

RST, WINDOW = 3, 8
CANCEL = bytes(3) + b"\x08"
H2C = with_listener(http2=True)


def update(stream: int, octets: int) -> bytes:
    return raw(WINDOW, 0, stream, octets.to_bytes(4, "big"))


def silent(seconds: float = 30.0) -> Script:
    """Reads each request, and does not answer it."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        await reader.read(1)  # until the connection ends

    return script
