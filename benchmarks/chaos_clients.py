"""Clients that keep books.

    python -m benchmarks.chaos_clients URL BOOK [--gets N --posts N --streams N --sockets N --previews N --tls N]

Every request, and every try of one, is a line of the book when it is over:

    id kind outcome port sent given ended

`id` went along as X-Request-Id, so that it is found again in the proxy's access log; `port` is the client's own, by
which can be told who held the connection; the times are CLOCK_MONOTONIC. `sent` is before the request was written,
`given` after the kernel had its head (inf: never); its client may stand still in between. Outcomes: a status; `none`
(the connection broke before a byte of an answer), `cut` (it broke within one), `unreachable`, `1000` (a WebSocket's
life was over), `1001` (a WebSocket was told to go elsewhere), `open` (the run ended before it did), `handshake` (the
connection broke within TLS, before a request), `certificate` (it is not one that the authority has issued for the
name), `wrong-pool` (a backend answered whose role this request must not meet).

A GET whose connection breaks is asked again on a new one, as RFC 9110 section 9.2.2 allows, with an id that ends in .2
(or .3); POSTs, streams that have begun, and WebSockets are not.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import random
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import uvloop

from benchmarks.switch_clients import frame

GET_EVERY, POST_EVERY, MESSAGE_EVERY = 0.04, 0.05, 0.1
TRIES = 3
ANSWER_WITHIN = 10.0
STREAM_EVENTS = (20, 120)  # ten a second
SOCKET_LIFE = (3.0, 30.0)
BODIES = (100, 3_000, 20_000, 60_000)
PREVIEW_EVERY, TLS_EVERY = 0.1, 0.1
#: The roles that may answer: a request with the preview's header, and any other.
PREVIEWED, SERVING = frozenset((b"next",)), frozenset((b"steady", b"spare"))
#: Turns of the loop after which uvloop has tried to write what it was given.
TURNS = 3
FRESH = 50  # requests on a connection before a client opens another one


#: Clients of each kind.
KINDS = {"gets": 8, "posts": 4, "streams": 4, "sockets": 6, "previews": 0, "tls": 0}


class Over(Exception):  # noqa: N818 - it says what happened
    """A request ended with this outcome."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Connection:
    """A client's way to the proxy."""

    def __init__(self, address: tuple[str, int], authority: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.authority = authority  # to speak TLS, and verify by
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.port = 0
        self.used = 0
        self.given = inf  # when the kernel surely had the head of the request under way

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The one there is, unless the proxy has closed it; or a new one. Raises `Over`."""
        if self.reader is not None and self.writer is not None:
            if not self.reader.at_eof() and self.reader.exception() is None and self.used < FRESH:
                self.used += 1
                return self.reader, self.writer
            self.close()
        sock = socket.socket()
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, self.address)
        except OSError:
            sock.close()
            self.port = 0
            raise Over("unreachable") from None
        self.port = sock.getsockname()[1]
        name = "chaos" if self.authority else None
        try:
            self.reader, self.writer = await asyncio.open_connection(
                sock=sock, ssl=self.authority, server_hostname=name, limit=1 << 18
            )
        except ssl.SSLCertVerificationError:
            raise Over("certificate") from None
        except (OSError, EOFError):
            raise Over("handshake") from None
        self.used = 1
        return self.reader, self.writer

    async def send(self, data: bytes) -> None:
        """Write a request; return when the kernel has its head. uvloop writes in the loop's next turn."""
        assert self.writer is not None
        self.writer.write(data)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self.given = monotonic()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Clients:
    """All of them."""

    def __init__(self, url: str, book: Path, tls_port: int = 0, authority: Path | None = None) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.tls_address = (self.address[0], tls_port)
        self.authority = ssl.create_default_context(cafile=authority) if authority else None
        self.lines = book.open("w", buffering=1 << 16)
        self.ended = asyncio.Event()
        self.rng = random.Random(1)
        self.next = 0

    def name(self) -> str:
        self.next += 1
        return f"c{self.next}"

    async def ask(self, kind: str, name: str, connection: Connection, talk: Callable[..., Awaitable[str]]) -> str:
        """One try, written into the book."""
        sent = monotonic()
        connection.given = inf
        try:
            reader, writer = await connection.open()
            sent = monotonic()
            outcome = await talk(name, reader, writer)
        except Over as over:
            outcome = over.outcome
        except (OSError, EOFError, asyncio.IncompleteReadError):
            outcome = "none"
        except TimeoutError:
            outcome = "timeout"
        except asyncio.CancelledError:
            outcome = "open"
        self.lines.write(
            f"{name} {kind} {outcome} {connection.port} {sent:.6f} {connection.given:.6f} {monotonic():.6f}\n"
        )
        if not outcome.isdecimal() or kind in ("stream", "socket"):
            connection.close()
        return outcome

    async def pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * self.rng.uniform(0.5, 1.5)):
                await self.ended.wait()

    # --- the kinds --------------------------------------------------------------------------------------------------

    async def getting(self) -> None:
        await self._get("get", Connection(self.address), GET_EVERY)

    async def previewing(self) -> None:
        await self._get("preview", Connection(self.address), PREVIEW_EVERY, "X-Preview: on\r\n", PREVIEWED)

    async def getting_by_tls(self) -> None:
        connection = Connection(self.tls_address, self.authority)
        await self._get("tls", connection, TLS_EVERY, "Connection: close\r\n")

    async def _get(
        self, kind: str, connection: Connection, every: float, more: str = "", roles: frozenset[bytes] = SERVING
    ) -> None:
        async def talk(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
            await connection.send(self.head("GET", "/get", name, more))
            return await self.answer(reader, connection, roles)

        while not self.ended.is_set():
            name = self.name()
            for attempt in range(1, TRIES + 1):
                outcome = await self.ask(kind, name if attempt == 1 else f"{name}.{attempt}", connection, talk)
                if outcome not in ("none", "cut", "handshake"):
                    break
            await self.pause(every)

    async def posting(self) -> None:
        connection = Connection(self.address)

        async def talk(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
            body = bytes(self.rng.choice(BODIES))
            await connection.send(self.head("POST", "/post", name, f"Content-Length: {len(body)}\r\n") + body)
            return await self.answer(reader, connection)

        while not self.ended.is_set():
            await self.ask("post", self.name(), connection, talk)
            await self.pause(POST_EVERY)

    async def streaming(self) -> None:
        connection = Connection(self.address)
        while not self.ended.is_set():
            events = self.rng.randint(*STREAM_EVENTS)

            async def talk(
                name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: int = events
            ) -> str:
                await connection.send(self.head("GET", f"/events?{events}", name, "Accept: text/event-stream\r\n"))
                async with asyncio.timeout(ANSWER_WITHIN):
                    head = await reader.readuntil(b"\r\n\r\n")
                status = head[9:12].decode()
                if status != "200":
                    return status
                try:
                    for number in range(events):
                        text = b"data: %d\n\n" % number
                        async with asyncio.timeout(ANSWER_WITHIN):
                            piece = await reader.readexactly(len(b"%x\r\n%b\r\n" % (len(text), text)))
                        if text not in piece:
                            return "garbled"
                    if await reader.readexactly(5) != b"0\r\n\r\n":
                        return "garbled"
                except (OSError, EOFError, asyncio.IncompleteReadError):
                    return "cut"
                return status

            await self.ask("stream", self.name(), connection, talk)
            await self.pause(0.05)

    async def sockets(self) -> None:
        connection = Connection(self.address)

        async def talk(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
            key = base64.b64encode(os.urandom(16)).decode()
            fields = f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            await connection.send(self.head("GET", "/ws", name, f"{fields}Connection: Upgrade\r\n"))
            async with asyncio.timeout(ANSWER_WITHIN):
                head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head[:20]:
                return head[9:12].decode()
            until = monotonic() + self.rng.uniform(*SOCKET_LIFE)
            try:
                while monotonic() < until and not self.ended.is_set():
                    text = b"%d" % self.rng.getrandbits(30)
                    writer.write(frame(1, text))
                    said = await self.message(reader)
                    if said[0] == 0x88:
                        writer.write(frame(8, said[2:]))
                        return str(int.from_bytes(said[2:4], "big"))
                    if said[0] != 0x81 or said[2:] != text:
                        return "garbled"
                    await self.pause(MESSAGE_EVERY)
                writer.write(frame(8, b"\x03\xe8"))
                with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):  # it was over in any case
                    return str(int.from_bytes((await self.message(reader))[2:4], "big"))
                return "1000"
            except (OSError, EOFError, asyncio.IncompleteReadError):
                return "cut"

        while not self.ended.is_set():
            await self.ask("socket", self.name(), connection, talk)
            await self.pause(0.05)

    # --- their words ------------------------------------------------------------------------------------------------

    @staticmethod
    def head(method: str, path: str, name: str, more: str = "") -> bytes:
        return f"{method} {path} HTTP/1.1\r\nHost: chaos\r\nX-Request-Id: {name}\r\n{more}\r\n".encode()

    @staticmethod
    async def answer(reader: asyncio.StreamReader, connection: Connection, roles: frozenset[bytes] = SERVING) -> str:
        async with asyncio.timeout(ANSWER_WITHIN):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            at = head.find(b"content-length:")
            try:
                await reader.readexactly(int(head[at + 15 : head.find(b"\r\n", at)]) if at >= 0 else 0)
            except (OSError, EOFError, asyncio.IncompleteReadError):
                raise Over("cut") from None
        if b"connection: close" in head:
            connection.close()
        status = head[9:12].decode()
        if (
            status == "200"
            and b"\r\nx-role: " in head
            and not any(b"\r\nx-role: " + role + b"\r\n" in head for role in roles)
        ):
            return "wrong-pool"
        return status

    @staticmethod
    async def message(reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(ANSWER_WITHIN):
            start = await reader.readexactly(2)
            return start + await reader.readexactly(start[1] & 0x7F)

    async def run(self, counts: dict[str, int]) -> None:
        """Ask by so many clients of each kind, until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.ended.set)
        talks = (self.getting, self.posting, self.streaming, self.sockets, self.previewing, self.getting_by_tls)
        kinds = zip(counts.values(), talks, strict=True)
        tasks = [asyncio.ensure_future(kind()) for count, kind in kinds for _ in range(count)]
        await self.ended.wait()
        _, late = await asyncio.wait(tasks, timeout=2.0)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.lines.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos_clients")
    parser.add_argument("url")
    parser.add_argument("book", type=Path)
    for kind, count in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--tls-port", type=int, default=0)
    parser.add_argument("--authority", type=Path, help="PEM file that the certificates of the TLS port are verified by")
    options = parser.parse_args()
    clients = Clients(options.url, options.book, options.tls_port, options.authority)
    uvloop.run(clients.run({kind: getattr(options, kind) for kind in KINDS}))


if __name__ == "__main__":
    main()
