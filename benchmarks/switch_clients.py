"""Clients that would notice a switch: POSTs with bodies, streams, WebSockets.

    python -m benchmarks.switch_clients URL OUT

Runs until SIGTERM, then writes what it saw as JSON: counts, every failure in words, and each POST's id, length and
CRC-32, to be found again in the backends' logs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import sys
import zlib
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import uvloop

POSTS, STREAMS, SOCKETS = 8, 6, 6
SOCKET_LIFE, MESSAGE_EVERY = 3.0, 0.05


class Clients:
    """All of them, and their book."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.ended = asyncio.Event()
        self.rng = random.Random(1)
        self.next = 0
        self.counts = {"posts": 0, "streams": 0, "sockets": 0, "messages": 0}
        self.failures: list[str] = []
        self.bodies: dict[str, tuple[int, int]] = {}

    def head(self, method: str, path: str, more: str = "") -> bytes:
        return (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nX-Sent: {monotonic():.6f}\r\n{more}\r\n".encode()
        )  # the moment before it is written

    def failed(self, what: str, error: BaseException | str) -> None:
        if not self.ended.is_set():
            self.failures.append(f"{monotonic():.3f} {what}: {error!r}")

    async def post(self) -> None:
        reader = writer = None
        while not self.ended.is_set():
            body = self.rng.randbytes(self.rng.choice((100, 3_000, 20_000, 60_000)))
            self.next += 1
            name = f"p{self.next}"
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection(*self.address)
                writer.write(self.head("POST", "/post", f"X-Id: {name}\r\nContent-Length: {len(body)}\r\n") + body)
                head, _ = await answer(reader)
                if not head.startswith(b"HTTP/1.1 200"):
                    raise ValueError(head[:40])
                self.bodies[name] = (len(body), zlib.crc32(body))
                self.counts["posts"] += 1
                if b"connection: close" in head.lower():
                    writer.close()
                    reader = writer = None
            except (OSError, ValueError, EOFError, TimeoutError) as error:
                self.failed("POST", error)
                reader = writer = None

    async def stream(self) -> None:
        while not self.ended.is_set():
            try:
                reader, writer = await asyncio.open_connection(*self.address)
                writer.write(self.head("GET", "/stream", "Connection: close\r\n"))
                async with asyncio.timeout(10):
                    whole = await reader.read(-1)
                if whole.count(b"piece") != 10 or not whole.endswith(b"0\r\n\r\n"):
                    raise ValueError(f"{whole.count(b'piece')} of 10 pieces")
                writer.close()
                self.counts["streams"] += 1
            except (OSError, ValueError, EOFError, TimeoutError) as error:
                self.failed("stream", error)

    async def socket(self) -> None:
        while not self.ended.is_set():
            try:
                reader, writer = await asyncio.open_connection(*self.address)
                key = base64.b64encode(os.urandom(16)).decode()
                writer.write(
                    self.head(
                        "GET",
                        "/ws",
                        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        f"Sec-WebSocket-Key: {key}\r\n",
                    )
                )
                async with asyncio.timeout(10):
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b" 101 " not in head[:20]:
                        raise ValueError(head[:40])
                    self.counts["sockets"] += 1
                    await self.talk(reader, writer)
                writer.close()
            except (OSError, ValueError, EOFError, TimeoutError) as error:
                self.failed("WebSocket", error)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        until = monotonic() + SOCKET_LIFE
        while monotonic() < until and not self.ended.is_set():
            text = b"%d" % self.rng.getrandbits(30)
            writer.write(frame(1, text))
            back = await reader.readexactly(2)
            got = await reader.readexactly(back[1] & 0x7F)
            if back[0] != 0x81 or got != text:
                raise ValueError(f"sent {text!r}, got {back!r} {got!r}")
            self.counts["messages"] += 1
            await asyncio.sleep(MESSAGE_EVERY)
        writer.write(frame(8, b"\x03\xe8"))
        await reader.read(-1)

    async def run(self, out: Path) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.ended.set)
        work = [self.post() for _ in range(POSTS)]
        work += [self.stream() for _ in range(STREAMS)] + [self.socket() for _ in range(SOCKETS)]
        tasks = [asyncio.ensure_future(one) for one in work]
        await self.ended.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*tasks)
        out.write_text(json.dumps({"counts": self.counts, "failures": self.failures, "bodies": self.bodies}))


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        return head, await reader.readexactly(int(head[at + 15 : head.find(b"\r\n", at)])) if at >= 0 else b""


def frame(kind: int, text: bytes) -> bytes:
    mask = os.urandom(4)
    return bytes((0x80 | kind, 0x80 | len(text))) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))


if __name__ == "__main__":
    uvloop.run(Clients(sys.argv[1]).run(Path(sys.argv[2])))
