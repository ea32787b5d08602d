"""A backend that breaks in the ways backends do: what `lb drill` puts behind a configuration.

Each fault is one that was met in the wild:

    refuse     the process is gone: nothing listens, open connections are reset
    reset      requests are taken, then the connection is reset: a crash per request
    hang       connections and requests are taken, nothing is ever answered: a deadlock
    slow       every answer takes longer than a probe may take: a starved machine
    errors     every answer is a 500, the probes' too: a lost database
    lies       probes are answered with "ready", requests with 500: a readiness check that checks nothing
    half-open  the machine is gone: nothing is refused, nothing is answered, connections cannot be made
    flap       errors and fine in turns

A target answers probes (requests for `readiness`) as the configuration expects them to be answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time

from lb.core.checks import CheckSpec
from lb.demo.greeting import Connection, Greeting, listen

FAULTS = ("refuse", "reset", "hang", "slow", "errors", "lies", "half-open", "flap")
#: Seconds that a flapping target is up, then down.
FLAP = 1.5


class FakeTarget(Greeting):
    """One target, its listening socket and its connections."""

    def __init__(self, readiness: str, status: int = 200, body: str = "OK", fields: tuple[tuple[str, str], ...] = ()):
        super().__init__("", "drill", readiness, readiness)
        self.pass_status, self.pass_body, self.pass_fields = status, body, fields
        self.fault = ""
        self.broken_at = 0.0
        self.slowness = 2.0
        self.spec = CheckSpec()  # how it is probed
        self.connections: set[FaultyConnection] = set()
        self.requests = 0  # that reached it, probes not counted
        self._server: asyncio.Server | None = None
        self._full: list[socket.socket] = []  # a backlog that is full, and what fills it

    @property
    def address(self) -> str:
        return self.instance

    async def start(self) -> None:
        """Listen on a port of the kernel's choice."""
        sock = listen("127.0.0.1:0")
        self.instance = f"127.0.0.1:{sock.getsockname()[1]}"
        await self._serve(sock)

    async def _serve(self, sock: socket.socket) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: FaultyConnection(self), sock=sock)

    async def become(self, fault: str) -> None:
        """Break in this way, at once."""
        self.fault = fault
        self.broken_at = time.monotonic()
        if fault in ("refuse", "half-open"):
            self._stop_listening()
        for connection in tuple(self.connections):
            if fault == "refuse":
                connection.reset()
            elif fault == "half-open" and connection.transport is not None:
                connection.transport.pause_reading()
        if fault == "half-open":
            self._fill_backlog()

    async def mend(self) -> None:
        """Be well again."""
        broken, self.fault = self.fault, ""
        for connection in tuple(self.connections):
            if broken in ("half-open", "hang"):
                connection.reset()
        for sock in self._full:
            sock.close()
        self._full.clear()
        if self._server is None:
            for _ in range(50):  # the port is ours, but its last connections may still be closing
                try:
                    await self._serve(listen(self.instance))
                    return
                except OSError:
                    await asyncio.sleep(0.02)

    async def close(self) -> None:
        self._stop_listening()
        for sock in self._full:
            sock.close()
        for connection in tuple(self.connections):
            connection.reset()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _fill_backlog(self) -> None:
        """A listener that accepts no connection: further connections wait for an answer to their first packet."""
        host, _, port = self.instance.rpartition(":")
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            door.bind((host, int(port)))
            door.listen(0)
            for _ in range(3):
                caller = socket.socket()
                caller.setblocking(False)
                self._full.append(caller)
                caller.connect_ex((host, int(port)))
        self._full.append(door)

    def down_now(self) -> bool:
        """Whether a flapping target is in its bad turn."""
        return self.fault == "flap" and int((time.monotonic() - self.broken_at) / FLAP) % 2 == 0

    def answer(self, method: str, target: str) -> tuple[int, str | dict[str, object], float]:
        probe = target.partition("?")[0] == self.readiness.partition("?")[0]
        self.requests += not probe
        seconds = self.slowness if self.fault == "slow" else 0.0
        if self.fault == "errors" or (self.fault == "lies" and not probe) or self.down_now():
            return 500, "broken by the drill", seconds
        if probe:
            return self.pass_status, self.pass_body, seconds
        return 200, {"greeting": "Hello, drill!", "instance": self.instance}, seconds


class FaultyConnection(Connection):
    """A connection that follows its target's fault."""

    service: FakeTarget

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.service.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.service.fault == "reset":
            self.reset()
        elif self.service.fault not in ("hang", "half-open"):
            super().data_received(data)

    def head(self, status: int) -> str:
        fields = self.service.pass_fields if status == self.service.pass_status else ()
        return super().head(status) + "".join(f"{name}: {value}\r\n" for name, value in fields)

    def reset(self) -> None:
        """Close with RST: what is left of a connection whose process died with data unread."""
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
