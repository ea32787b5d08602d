"""Targets behind a source that names them, one of which takes the place of another, and h2load at a constant rate."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from benchmarks.processes import binary

BODY = b"x"  # of a POST
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
NOT_YET = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
GOODBYE = ANSWER.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")
#: The check of proxies that check targets.
CHECK = "/health"
#: Clients of the load.
CLIENTS = 50


class Connection(asyncio.Protocol):
    """A connection to one target: an answer for each request, and a close when the target ends."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.target.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.target.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        *whole, self.held = (self.held + data).split(b"\r\n\r\n")
        for head in whole:  # the body of a POST stands before the next head, and is one byte
            self.target.asked += not head.startswith(f"GET {CHECK} ".encode())
            cold = time.monotonic() < self.target.warm_at
            self.transport.write(GOODBYE if self.target.ending else NOT_YET if cold else ANSWER)
        if self.target.ending:
            self.transport.close()


class Target:
    """One address that answers."""

    def __init__(self, host: str, port: int, warm_at: float) -> None:
        self.host, self.port = host, port
        self.warm_at = warm_at  # monotonic
        self.connections: set[Connection] = set()
        self.asked = 0  # requests but for checks
        self.ending = False

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), self.host, self.port)

    async def end(self, grace: float) -> None:
        """After `grace` seconds take no more connections, and close each when what is on its way has been answered."""
        await asyncio.sleep(grace)
        self.ending = True
        self.server.close()
        await asyncio.sleep(0.1)
        for connection in list(self.connections):
            if len(connection.held) <= len(BODY):
                connection.transport.close()


class Targets:
    """The targets that a source names, in a loop of their own. `say` has the source name the hosts that it is given."""

    def __init__(self, say: Callable[[list[str]], None], port: int, count: int) -> None:
        self.say, self.port = say, port
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.serving = [self._begin(1, number) for number in range(count)]
        self.all = list(self.serving)
        self._say()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.all:
            each.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)

    def replace(self, number: int, grace: float, warm_up: float = 0.0) -> Target:
        """Let another target take the place of one; returns it."""
        old, new = self.serving[number], self._begin(2, number, time.monotonic() + warm_up)
        self.serving[number] = new
        self.all.append(new)
        self._say()
        asyncio.run_coroutine_threadsafe(old.end(grace), self.loop)
        return new

    def _begin(self, generation: int, number: int, warm_at: float = 0.0) -> Target:
        target = Target(f"127.0.{generation}.{number + 1}", self.port, warm_at)
        asyncio.run_coroutine_threadsafe(target.begin(), self.loop).result(10)
        return target

    def _say(self) -> None:
        self.say([each.host for each in self.serving])


class Counts(NamedTuple):
    """What h2load counted."""

    requests: int
    failed: int  # without an answer, or with one of 4xx or 5xx
    answered_5xx: int


def h2load(url: str, seconds: int, rate: int, *more: str) -> subprocess.Popen[str]:
    """Requests over HTTP/1.1 at a constant rate, per second."""
    pace = ("--h1", "-t1", "-c", str(CLIENTS), "-D", str(seconds), "--rps", f"{rate / CLIENTS:g}")
    return subprocess.Popen([binary("h2load"), *more, *pace, url], stdout=subprocess.PIPE, text=True)


def counts(load: subprocess.Popen[str], within: float) -> Counts:
    """What it counted, once it has ended; `within` seconds."""
    said = load.communicate(timeout=within)[0]
    done = re.search(r"requests: (\d+) total.* (\d+) succeeded, (\d+) failed, (\d+) errored", said)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    if done is None or codes is None:
        raise RuntimeError(f"h2load said: {said}")
    return Counts(int(done[1]), int(done[3]), int(codes[4]))
