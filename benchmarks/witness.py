"""A backend that keeps its own log: what came, when, and what was in it. `python -m benchmarks.witness PORT POOL LOG`

GET and POST answer the pool's name; `/stream` answers ten pieces in 400 ms; `/ws` echoes WebSocket messages. Each
request is a line of the log: arrival, the client's `X-Sent` (both CLOCK_MONOTONIC), method, path, `X-Id`, body length
and CRC-32. The log is complete when the process has ended.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import signal
import sys
import zlib
from pathlib import Path
from time import monotonic
from typing import cast

import uvloop

PIECES, PIECE_EVERY = 10, 0.04
LOG: list[str] = []


def field(head: bytes, name: bytes) -> bytes:
    """A header's value; names are compared in lower case."""
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


class Witness(asyncio.Protocol):
    """One connection."""

    pool = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.held = b""
        self.websocket = False
        self.busy = False

    def data_received(self, data: bytes) -> None:
        self.held += data
        if self.websocket:
            self._echo()
            return
        while not self.busy and self._request():
            pass

    def _request(self) -> bool:
        end = self.held.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self.held[:end]
        length = int(field(head, b"content-length") or 0)
        if len(self.held) < end + 4 + length:
            return False
        body = self.held[end + 4 : end + 4 + length]
        self.held = self.held[end + 4 + length :]
        method, path, _ = head[: head.find(b"\r\n")].split(b" ", 2)
        if path != b"/health":
            sent, name = field(head, b"x-sent").decode(), field(head, b"x-id").decode()
            what = f"{method.decode()} {path.decode()} {name or '-'} {length} {zlib.crc32(body)}"
            LOG.append(f"{monotonic():.6f} {sent or '-'} {what}")
        if path == b"/ws":
            self._upgrade(field(head, b"sec-websocket-key"))
        elif path == b"/stream":
            self.busy = True
            self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Pool: " + self.pool + b"\r\n\r\n")
            self._piece(0)
        else:
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Pool: %b\r\n\r\n%b"
            self.transport.write(answer % (len(self.pool), self.pool, self.pool))
        return not self.websocket

    def _piece(self, number: int) -> None:
        if self.transport.is_closing():
            return
        if number == PIECES:
            self.transport.write(b"0\r\n\r\n")
            self.busy = False
            self.data_received(b"")
            return
        self.transport.write(b"5\r\npiece\r\n")
        asyncio.get_running_loop().call_later(PIECE_EVERY, self._piece, number + 1)

    def _upgrade(self, key: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.websocket = True
        self._echo()

    def _echo(self) -> None:
        """Short masked frames only; a close is answered and ends the connection."""
        while len(self.held) >= 6:
            size = self.held[1] & 0x7F
            if len(self.held) < 6 + size:
                return
            kind, mask = self.held[0] & 0x0F, self.held[2:6]
            body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.held[6 : 6 + size]))
            self.held = self.held[6 + size :]
            self.transport.write(bytes((0x80 | kind, size)) + body)
            if kind == 8:
                self.transport.close()
                return


async def serve(port: int, pool: str, log: Path) -> None:
    loop = asyncio.get_running_loop()
    Witness.pool = pool.encode()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await loop.create_server(Witness, "127.0.0.1", port, backlog=4096)
    with log.open("w") as file:
        while not ended.is_set():
            try:
                async with asyncio.timeout(0.25):
                    await ended.wait()
            except TimeoutError:
                pass
            lines, LOG[:] = LOG[:], []
            file.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
