"""WebSocket messages: an echo server and its clients, each a process, on bare event-loop protocols.

    python -m benchmarks.websocket serve PORT
    python -m benchmarks.websocket load PORT CONNECTIONS SECONDS      prints a result as JSON

Only what the benchmark needs of RFC 6455: unfragmented messages of up to 125 bytes, masked with zeros by the clients,
so that an echo is the same payload under another head. Each client has one message under way.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from time import perf_counter
from typing import Any

import uvloop

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PAYLOAD = b"x" * 64
_MESSAGE = b"\x81" + bytes([0x80 | len(_PAYLOAD)]) + bytes(4) + _PAYLOAD
_ECHO = 2 + len(_PAYLOAD)
_HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class _Echo(asyncio.Protocol):
    """The server's side: a handshake, or a plain 200 for whoever asks whether it is up; then echoes."""

    def __init__(self) -> None:
        self.upgraded = False
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        data = self.held + data
        self.held = b""
        if not self.upgraded:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self.held = data
                return
            self._answer(data[:end])
            data = data[end:]
        out = []
        while len(data) >= 6 and len(data) >= (size := 6 + (data[1] & 0x7F)):
            out.append(data[:1] + bytes([size - 6]) + data[6:size])
            data = data[size:]
        self.held = data
        if out:
            self.transport.write(b"".join(out))

    def _answer(self, head: bytes) -> None:
        key = head.lower().find(b"sec-websocket-key:")
        if key < 0:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup")
            return
        value = head[key + 18 : head.find(b"\r\n", key)].strip()
        accept = base64.b64encode(hashlib.sha1(value + _MAGIC).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.upgraded = True


class _Client(asyncio.Protocol):
    """One client: sends a message, awaits its echo, sends the next."""

    def __init__(self, times: list[float], failed: list[str]) -> None:
        self.times, self.failed = times, failed
        self.upgraded = False
        self.got = 0
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.transport.write(_HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        if not self.upgraded:
            if not data.startswith(b"HTTP/1.1 101"):
                self.failed.append(data[:40].decode("latin-1"))
                self.transport.close()
                return
            self.upgraded = True
        else:
            self.got += len(data)
            if self.got < _ECHO:
                return
            self.got = 0
            self.times.append(perf_counter() - self.sent_at)
        self.sent_at = perf_counter()
        self.transport.write(_MESSAGE)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.upgraded:
            self.failed.append("closed")


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


async def _load(port: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    failed: list[str] = []
    clients = [
        (await loop.create_connection(lambda: _Client(times, failed), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    count, errors = len(times), list(failed)
    for client in clients:
        client.transport.abort()
    print(json.dumps({"times": times[:count], "errors": errors, "bytes": count * _ECHO}))


def main() -> None:
    what, port, *rest = sys.argv[1:]
    if what == "serve":
        uvloop.run(_serve(int(port)))
    else:
        uvloop.run(_load(int(port), int(rest[0]), float(rest[1])))


if __name__ == "__main__":
    main()
