"""The greeting service: a backend small enough to read, with the two health endpoints every backend should have.

`lb run --demo` starts one such process for each address of the file, and by hand it is
`python -m lb.demo.greeting 127.0.0.1:5001 --version blue`. It knows how to misbehave on request, so that health
checks, retries and rollbacks can be watched at work:

    GET  /greeting            {"greeting": "Hello, World!", "version": "blue", "instance": "127.0.0.1:5001"}
    GET  /health/liveness     200: the process runs
    GET  /health/readiness    200, or 503 after a toggle: may it get traffic?
    POST /toggle_health       flips readiness
    GET  /slow?seconds=5      a greeting that takes its time
    POST /break?errors=20&delay=0.3   20 of 100 greetings fail, each takes 0.3 s longer; readiness still says yes
    POST /mend                undoes /break

Standard library only: four of them start in a blink. It is a demonstration, not a framework: one process, one thread,
no TLS, bodies are read and thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
REASONS |= {431: "Request Header Fields Too Large", 503: "Service Unavailable"}
MAX_HEAD = 65536


class Greeting:
    """The service's state and answers; no bytes, no sockets."""

    def __init__(self, instance: str, version: str, readiness: str, liveness: str) -> None:
        self.instance = instance
        self.version = version
        self.readiness = readiness
        self.liveness = liveness
        self.healthy = True
        self.errors = 0.0  # share of greetings that fail, of 100
        self.delay = 0.0  # seconds added to each greeting
        self.served = 0

    def answer(self, method: str, target: str) -> tuple[int, str | dict[str, object], float]:
        """(status, body, seconds to wait before it is sent)."""
        url = urlsplit(target)
        path, query = url.path.rstrip("/") or "/", parse_qs(url.query)
        if method not in ("GET", "HEAD", "POST"):
            return 405, {"error": f"{method} is not spoken here"}, 0.0
        if path == self.liveness:
            return 200, "OK", 0.0
        if path == self.readiness:
            return (200, "OK", 0.0) if self.healthy else (503, "Service is not ready", 0.0)
        if path in ("/toggle_health", "/break", "/mend"):
            if method != "POST":
                return 405, {"error": f"{path} wants POST: curl -X POST …{path}"}, 0.0
            return self._change(path, query)
        seconds = number(query, "seconds", 1.0) if path.endswith("/slow") else 0.0
        if seconds or path == "/" or path.endswith("/greeting"):
            return self._greet(min(seconds, 3600.0))
        return 404, {"error": f"{path} is not known here; try /greeting"}, 0.0

    def _greet(self, seconds: float) -> tuple[int, dict[str, object], float]:
        self.served += 1
        # Spread evenly instead of by luck: of any 100 greetings in a row exactly `errors` fail.
        failed = int(self.served * self.errors / 100) > int((self.served - 1) * self.errors / 100)
        body: dict[str, object] = {"greeting": "Hello, World!"} if not failed else {"error": "broken by POST /break"}
        return 500 if failed else 200, body | self._who(), seconds + self.delay

    def _change(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, object], float]:
        if path == "/toggle_health":
            self.healthy = not self.healthy
            return 200, {"status": "Health toggled", "healthy": self.healthy} | self._who(), 0.0
        broken = path == "/break"
        self.errors = min(number(query, "errors", 0.0), 100.0) if broken else 0.0
        self.delay = min(number(query, "delay", 0.0), 60.0) if broken else 0.0
        return 200, {"errors": self.errors, "delay": self.delay} | self._who(), 0.0

    def _who(self) -> dict[str, object]:
        return {"version": self.version, "instance": self.instance}


def number(query: dict[str, list[str]], name: str, default: float) -> float:
    """A non-negative number of the query string; nonsense counts as not given."""
    try:
        value = float(query[name][0])
    except (KeyError, ValueError):
        return default
    return value if 0 <= value < float("inf") else default


class Connection(asyncio.Protocol):
    """One client's connection: HTTP/1.1 with keep-alive, one request after the other."""

    def __init__(self, service: Greeting) -> None:
        self.service = service
        self.buffer = bytearray()
        self.busy = False  # an answer is due; what comes meanwhile waits in the buffer
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy:
            self.next_request()

    def next_request(self) -> None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > MAX_HEAD:
                self.send(431, "Too many header bytes", False, False)
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        try:
            method, target, version = lines[0].split(" ")
            size = body_size(self.buffer, end + 4, fields)
        except ValueError:
            self.send(400, "This is no HTTP/1.1 request", False, False)
            return
        if size < 0:
            return  # the body has not come whole yet
        del self.buffer[: end + 4 + size]
        keep = version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        keep = keep or fields.get("connection", "").lower() == "keep-alive"
        status, body, seconds = self.service.answer(method, target)
        if seconds <= 0:
            self.send(status, body, method == "HEAD", keep)
        else:
            self.busy = True
            asyncio.get_running_loop().call_later(seconds, self.send, status, body, method == "HEAD", keep)

    def send(self, status: int, body: str | dict[str, object], head_only: bool, keep: bool) -> None:
        self.busy = False
        if self.transport is None or self.transport.is_closing():
            return
        kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        payload = (body if isinstance(body, str) else json.dumps(body) + "\n").encode()
        head = (
            f"{self.head(status)}Content-Type: {kind}\r\nContent-Length: {len(payload)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.transport.write(head.encode() + (b"" if head_only else payload))
        if not keep:
            self.transport.close()
        elif self.buffer:
            self.next_request()

    def head(self, status: int) -> str:
        """The status line and the fields that name the answering process."""
        who = f"X-Served-By: {self.service.version} {self.service.instance}\r\n"
        return f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n{who}"


def body_size(buffer: bytearray, start: int, fields: dict[str, str]) -> int:
    """Bytes of the request's body in `buffer` from `start` on; -1 while it is not all there. Raises ValueError."""
    if "transfer-encoding" not in fields:
        length = int(fields.get("content-length", "0"))
        if length < 0:
            raise ValueError(length)
        return length if len(buffer) - start >= length else -1
    position = start
    while True:
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return -1
        chunk = int(bytes(buffer[position:line_end]).partition(b";")[0], 16)
        if chunk == 0:  # then trailers, if any, up to an empty line
            end = buffer.find(b"\r\n\r\n", line_end)
            return end + 4 - start if end >= 0 else -1
        position = line_end + 2 + chunk + 2


async def serve(service: Greeting, sock: socket.socket, until_eof: bool) -> None:
    """Answer until SIGTERM, SIGINT, or (with `until_eof`) until the parent process is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number_, stop.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), end_of_parent(loop, stop))
    factory: Callable[[], asyncio.Protocol] = lambda: Connection(service)  # noqa: E731 - one line says it all
    unix = sock.family == socket.AF_UNIX
    server = await (loop.create_unix_server(factory, sock=sock) if unix else loop.create_server(factory, sock=sock))
    try:
        await stop.wait()
    finally:
        server.close()


def end_of_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Callable[[], None]:
    """A pipe from the parent says nothing, ever, until the kernel closes it, however the parent ended."""

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin.fileno())
                stop.set()

    return readable


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lb.demo.greeting", description="A small greeting backend.")
    parser.add_argument("address", help="host:port, or unix:/path")
    parser.add_argument("--version", default="blue", help="what the answers call this version (default: blue)")
    parser.add_argument("--readiness", default="/health/readiness", help="path of the readiness endpoint")
    parser.add_argument("--liveness", default="/health/liveness", help="path of the liveness endpoint")
    parser.add_argument("--fd", type=int, help="use this listening socket, inherited from the parent")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input is closed")
    asked = parser.parse_args()
    sock = socket.socket(fileno=asked.fd) if asked.fd is not None else listen(asked.address)
    service = Greeting(asked.address, asked.version, asked.readiness, asked.liveness)
    if not asked.until_eof:  # a person has started it
        print(f"{asked.version} answers on {asked.address}; POST /toggle_health makes it unready", flush=True)
    asyncio.run(serve(service, sock, asked.until_eof))
    return 0


def listen(address: str) -> socket.socket:
    """A listening socket. Raises OSError when the address is taken or not ours."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - a stale socket of a run before, not a user's file
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
    else:
        host, _, port = address.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
    sock.listen(1024)
    sock.setblocking(False)
    return sock


if __name__ == "__main__":
    sys.exit(main())
