"""Clients that would notice what a reload or a switch does to HTTP/2: `python -m benchmarks.http2_clients PORT OUT`.

Connections are kept. On each of them are streams with GET and with POST in pieces, or gRPC calls of all four kinds. One
call of each gRPC connection never ends by itself, so that a drain's limit may cut it. Runs until SIGTERM, then writes
counts and every failure in words, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from benchmarks.grpc_origin import EVERY, MESSAGES

CONNECTIONS, CHANNELS = 6, 4
#: Per connection: streams with GET, and with a POST; per channel: calls of each kind at one time.
GETS, POSTS, CALLS = 4, 2, 2
TIME = 20.0
HOST = (":authority", "bench"), (":scheme", "http"), (":path", "/")


class Book:
    """What all of them have seen."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.resets: list[str] = []

    def failed(self, what: str, why: object) -> None:
        if not self.over.is_set():
            self.failures.append(f"{time.time():.3f} {what}: {why}")

    def reset(self, what: str, why: object) -> None:
        if not self.over.is_set():
            self.resets.append(f"{time.time():.3f} {what}: {why}")


class ElsewhereError(Exception):
    """The connection has been told to end, and has not acted on this stream (RFC 9113 section 8.7)."""


class Connection(asyncio.Protocol):
    """One connection, by python-hyper's h2. A stream's future gets its status."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self.waiting: dict[int, asyncio.Future[int]] = {}
        self.statuses: dict[int, int] = {}
        self.leaving = False  # GOAWAY has come
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        # The library holds a connection for closed once GOAWAY has come; its streams go on (section 6.8).
        for event in self.h2.receive_data(data):
            stream = getattr(event, "stream_id", None)
            future = self.waiting.get(stream) if stream else None
            if isinstance(event, h2.events.ResponseReceived):
                self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded) and future is not None and not future.done():
                future.set_result(self.statuses.pop(event.stream_id, 0))
            elif isinstance(event, h2.events.StreamReset) and future is not None and not future.done():
                if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
                    future.set_exception(ElsewhereError())
                else:
                    future.set_exception(ConnectionResetError(f"RST_STREAM {event.error_code!r}"))
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.leaving = True
                for number, each in self.waiting.items():
                    if number > (event.last_stream_id or 0) and not each.done():
                        each.set_exception(ElsewhereError())
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.leaving = self.lost = True
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(EOFError("the connection ended under the request"))

    async def ask(self, pieces: int) -> int:
        """A GET, or a POST in so many pieces."""
        if self.leaving:
            raise ElsewhereError
        stream = self.h2.get_next_available_stream_id()
        future = self.waiting[stream] = asyncio.get_running_loop().create_future()
        try:
            self.h2.send_headers(stream, [(":method", "POST" if pieces else "GET"), *HOST], end_stream=not pieces)
            self.flush()
            for piece in range(pieces):
                await asyncio.sleep(EVERY)
                if future.done():
                    break
                self.h2.send_data(stream, b"x" * 1000, end_stream=piece == pieces - 1)
                self.flush()
            async with asyncio.timeout(TIME):
                status: int = await future
                return status
        finally:
            del self.waiting[stream]


class Streams:
    """One connection after another, with requests on it."""

    def __init__(self, book: Book, port: int) -> None:
        self.book = book
        self.port = port
        self.connection: Connection | None = None
        self.opening = asyncio.Lock()

    async def open(self) -> Connection:
        async with self.opening:
            if self.connection is None or self.connection.leaving:
                loop = asyncio.get_running_loop()
                _, self.connection = await loop.create_connection(lambda: Connection(self.book), "127.0.0.1", self.port)
                self.book.counts["connections of HTTP/2"] += 1
            return self.connection

    async def run(self, pieces: int) -> None:
        what = "POST" if pieces else "GET"
        while not self.book.over.is_set():
            try:
                connection = await self.open()
                status = await connection.ask(pieces)
                self.book.counts[what] += 1
                if status != 200:
                    self.book.failed(what, status)
                await asyncio.sleep(0.002)
            except ElsewhereError:
                self.book.counts["asked again elsewhere"] += 1
            except ConnectionResetError as error:
                self.book.reset(what, error)
                self.book.failed(what, error)
            except (OSError, EOFError, TimeoutError, h2.exceptions.ProtocolError) as error:
                self.book.failed(what, repr(error))
                await asyncio.sleep(0.05)


class Calls:
    """One gRPC channel."""

    def __init__(self, book: Book, port: int) -> None:
        self.book = book
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
        self.one = self.channel.unary_unary("/bench/one")
        self.down = self.channel.unary_stream("/bench/down")
        self.up = self.channel.stream_unary("/bench/up")
        self.both = self.channel.stream_stream("/bench/both")

    async def run(self, kind: str) -> None:
        while not self.book.over.is_set():
            try:
                await getattr(self, f"call_{kind}")()
                self.book.counts[f"gRPC {kind}"] += 1
            except grpc.RpcError as error:
                said = f"{error.code().name} {error.details()}"
                if "RST_STREAM" in said:
                    self.book.reset(f"gRPC {kind}", said)
                if kind == "endless" and error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE):
                    self.book.counts["endless calls that were cut"] += not self.book.over.is_set()
                else:
                    self.book.failed(f"gRPC {kind}", said)
            except (TimeoutError, ValueError) as error:
                self.book.failed(f"gRPC {kind}", repr(error))

    async def call_unary(self) -> None:
        if await self.one(b"x" * 1000, timeout=TIME) != b"x" * 1000:
            raise ValueError("another answer")
        await asyncio.sleep(0.005)

    async def call_down(self) -> None:
        count = 0
        async for _ in self.down(b"x", timeout=TIME):
            count += 1
        if count != MESSAGES:
            raise ValueError(f"{count} of {MESSAGES} messages")

    async def call_up(self) -> None:
        async def messages() -> AsyncIterator[bytes]:
            for _ in range(MESSAGES):
                yield b"x"
                await asyncio.sleep(EVERY)

        if await self.up(messages(), timeout=TIME) != b"%d" % MESSAGES:
            raise ValueError("another number of messages")

    async def call_both(self) -> None:
        call = self.both(timeout=TIME)
        for number in range(2 * MESSAGES):
            await exchange(call, b"%d" % number)
        await call.done_writing()
        if await call.code() != grpc.StatusCode.OK:
            raise await ended(call)

    async def call_endless(self) -> None:
        call = self.both()
        while not self.book.over.is_set():
            await exchange(call, b"x")
        call.cancel()


async def exchange(call: Any, message: bytes) -> None:
    """A message, its answer, and a moment."""
    try:
        await call.write(message)
        if await call.read() != message:
            raise await ended(call) if call.done() else ValueError("another message")
    except asyncio.InvalidStateError:  # the call was over before the message was written
        raise await ended(call) from None
    await asyncio.sleep(EVERY)


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """How a call has ended, though its messages were not all read."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(await call.code(), nothing, nothing, details=await call.details())


async def run(port: int, out: Path) -> None:
    book = Book()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, book.over.set)
    work = []
    for _ in range(CONNECTIONS):
        streams = Streams(book, port)
        work += [streams.run(0) for _ in range(GETS)] + [streams.run(MESSAGES) for _ in range(POSTS)]
    channels = [Calls(book, port) for _ in range(CHANNELS)]
    for calls in channels:
        work += [calls.run(kind) for kind in ("unary", "down", "up", "both") for _ in range(CALLS)]
        work.append(calls.run("endless"))
    tasks = [asyncio.ensure_future(one) for one in work]
    await book.over.wait()
    await asyncio.wait(tasks, timeout=5)
    for task in tasks:
        if task.done() and (error := task.exception()) is not None:
            book.failures.append(f"a client ended: {error!r}")
        task.cancel()
    for calls in channels:
        await calls.channel.close(0)
    out.write_text(json.dumps({"counts": book.counts, "failures": book.failures, "resets": book.resets}))


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2])))
