"""A backend that is worth killing: it takes a moment for each answer.

    python -m benchmarks.chaos_backend PORT BOOK [ROLE]

GET and POST are answered after 2 to 20 ms; `/events?N` sends N server-sent events, ten a second; `/ws` echoes WebSocket
messages. Every POST is a line of the book (a file that all backends share) as soon as it has come, so that not even
SIGKILL can hide it: a POST that is there twice was sent twice. Each answer names the backend's role in `X-Role`, so
that a client sees which pool has served it. SIGUSR1 makes the backend unready for `UNREADY` seconds; it serves on.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from time import monotonic

import uvloop

from benchmarks.witness import Witness, field

EVENT_EVERY = 0.1
FASTEST, SLOWEST = 0.002, 0.02
UNREADY = 4.0


class Backend(Witness):
    """One connection."""

    book = -1
    role = b"steady"
    ready_at = 0.0  # CLOCK_MONOTONIC
    rng = random.Random()

    def _request(self) -> bool:
        end = self.held.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self.held[:end]
        length = int(field(head, b"content-length") or 0)
        if len(self.held) < end + 4 + length:
            return False
        self.held = self.held[end + 4 + length :]
        method, path, _ = head[: head.find(b"\r\n")].split(b" ", 2)
        if method == b"POST":
            os.write(self.book, field(head, b"x-request-id") + b" %d\n" % length)
        if path == b"/ws":
            self._upgrade(field(head, b"sec-websocket-key"))
            return False
        self.busy = True
        if path.startswith(b"/events?"):
            framing = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            self.transport.write(b"HTTP/1.1 200 OK\r\n%bX-Role: %b\r\n\r\n" % (framing, self.role))
            self._event(0, int(path[8:]))
        elif path == b"/health":
            self._answer(b"200 OK" if monotonic() >= Backend.ready_at else b"503 Service Unavailable")
        else:
            asyncio.get_running_loop().call_later(self.rng.uniform(FASTEST, SLOWEST), self._answer)
        return True

    def _answer(self, status: bytes = b"200 OK") -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %b\r\nContent-Length: 5\r\nX-Role: %b\r\n\r\nhello" % (status, self.role))
            self._next()

    def _event(self, number: int, last: int) -> None:
        if self.transport.is_closing():
            return
        if number == last:
            self.transport.write(b"0\r\n\r\n")
            self._next()
            return
        text = b"data: %d\n\n" % number
        self.transport.write(b"%x\r\n%b\r\n" % (len(text), text))
        asyncio.get_running_loop().call_later(EVENT_EVERY, self._event, number + 1, last)

    def _next(self) -> None:
        self.busy = False
        self.data_received(b"")


def be_unready() -> None:
    Backend.ready_at = monotonic() + UNREADY


async def serve(port: int, book: Path, role: str) -> None:
    Backend.role = role.encode()
    Backend.book = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, be_unready)
    await loop.create_server(Backend, "127.0.0.1", port, backlog=4096, reuse_address=True)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "steady"))
