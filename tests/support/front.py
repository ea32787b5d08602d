"""A real listener in front of a scripted origin, both on an event loop in a thread; tests speak raw bytes to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Self

import uvloop

from lb.core.certificates import TlsServer
from lb.core.report import Alarm
from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot, Target, TlsClient
from lb.net.tls.admission import Admission
from lb.net.tls.selection import Selected
from lb.net.tls.session import Buffers
from lb.net.tls.transport import TlsListener
from lb.proxy.plane import DataPlane
from lb.worker.handshakes import Handshakes

#: Answers one connection: it gets the reader, the writer and the origin, and returns when it is done with it.
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Origin"], Coroutine[Any, Any, None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One whole request as it came, body included."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    body = b""
    if b"transfer-encoding: chunked" in lower:
        while True:
            line = await reader.readuntil(b"\r\n")
            body += line
            size = int(line.split(b";")[0], 16)
            if not size:
                while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                    body += line
                return head + body + line
            body += await reader.readexactly(size + 2)
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            body = await reader.readexactly(int(line.partition(b":")[2]))
    return head + body


async def answers_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """The default: each request is read whole, noted, and answered with 200."""
    while True:
        request = await read_request(reader)
        origin.requests.append(request)
        if request.startswith(b"HEAD "):
            writer.write(OK[:-2])
        else:
            writer.write(OK)


def answers(raw: bytes, *, close: bool = False, pause: bytes = b"") -> Script:
    """A script that answers each request with these bytes (and then `pause`, a moment later)."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await read_request(reader))
            if origin.script is not script:  # the test went on: a kept connection plays along
                writer.write(OK)
                continue
            writer.write(raw)
            if pause:
                await asyncio.sleep(0.05)
                writer.write(pause)
            if close:
                await writer.drain()
                return

    return script


class Origin:
    """A target that plays a script."""

    def __init__(self) -> None:
        self.script: Script = answers_ok
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0  # connections that are over
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        server = await asyncio.start_server(self._serve, host, port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(reader, writer, self)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)
            self.ended += 1
            writer.close()

    def refuse(self) -> None:
        """Listen no more; call on the loop's thread."""
        self._server.close()

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()


class Front:
    """One data plane with one listener, in a thread. `tls` is the server's context, if clients are to speak TLS;
    `unix` the path of a socket to listen on instead of a port. Without `serves`, handshakes are all that TLS is for.
    `http2`: targets speak HTTP/2. `target_tls`: they are spoken to over TLS, with `origin_tls` at the origins. `script`
    is what the origins play from the start."""

    def __init__(
        self,
        origins: int = 1,
        listener: Listener | None = None,
        ports: tuple[int, ...] = (),
        *,
        tls: ssl.SSLContext | None = None,
        unix: str = "",
        serves: bool = True,
        http2: bool = False,
        target_tls: TlsClient | None = None,
        origin_tls: ssl.SSLContext | None = None,
        script: Script | None = None,
        **service: Any,
    ) -> None:
        self.alarms: list[Alarm] = []
        self.origins = [Origin() for _ in range(origins)]
        self._listener = listener or Listener("test")
        self._tls = tls
        if tls is not None and self._listener.tls is None:
            self._listener = replace(self._listener, tls=TlsServer())
        self._unix = unix
        self._serves = serves
        self._service = service
        self._http2, self._target_tls, self._origin_tls = http2, target_tls, origin_tls
        if script is not None:
            for origin in self.origins:
                origin.script = script
        self._ports = ports  # targets that are there already, instead of origins
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)
        self.port = 0

    @property
    def origin(self) -> Origin:
        return self.origins[0]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        for origin in self.origins:
            await origin.start(tls=self._origin_tls)
        self.plane = DataPlane(worker=0, loop=self.loop, alarm=self.alarms.append)
        self.targets = tuple(
            Target(f"s/p/127.0.0.1:{port}", "s", "p", "127.0.0.1", port, tls=self._target_tls, http2=self._http2)
            for port in self._ports or [origin.port for origin in self.origins]
        )
        self.version = 0
        self.apply()
        factory = self.plane.downstream(self._listener)
        if self._tls is not None:
            factory = self._over_tls(self._tls, factory)
        if self._unix:
            server = await self.loop.create_unix_server(factory, self._unix)
        else:
            server = await self.loop.create_server(factory, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        self.plane.close()
        for origin in self.origins:
            await origin.stop()

    def _over_tls(
        self, context: ssl.SSLContext, factory: Callable[[], asyncio.Protocol]
    ) -> Callable[[], asyncio.Protocol]:
        self.admission = Admission(self.loop)
        ended = partial(Handshakes(self.plane.stats, lambda text: None).ended, "test")
        return TlsListener(
            self.loop, lambda hello: Selected(context, serves=self._serves), factory, self.admission, Buffers(), ended
        )

    def apply(self, **changes: Any) -> None:
        """Take a (changed) snapshot; call on the loop's thread."""
        self.version += 1
        options = {**self._service, **changes}
        of_route = (
            "max_body",
            "max_response",
            "total",
            "path",
            "client_certificate",
            "grpc_web",
            "kind",
            "match",
            "steps",
            "redirect",
            "answer",
            "maintenance",
        )
        route = {key: options.pop(key) for key in of_route if key in options}
        route["error_pages"] = options.pop("route_pages", None)
        trusted = options.pop("trusted_proxies", ())
        files = options.pop("files", ())
        file_pages = options.pop("file_pages", None)
        log = options.pop("access_log", AccessLog("off"))
        addresses = options.pop("addresses", {})
        targets = tuple(replace(target, addresses=addresses.get(target.id, ())) for target in self.targets)
        services: tuple[Service, ...] = ()
        rotations: tuple[Rotation, ...] = ()
        if options.pop("asks", False):  # the last origin is a service of its own, `auth`
            asked, targets = replace(targets[-1], id="auth/p/last", service="auth"), targets[:-1]
            services = (Service("auth", (Pool("p", (asked,)),), **options.pop("auth", {})),)
            rotations = (Rotation("auth", self.version, (("p", 100),), (("p", ((asked.id, 1.0),)),)),)
        service = Service("s", (Pool("p", targets),), **options)
        weights = (("p", tuple((target.id, 1.0) for target in targets)),)
        self.snapshot = Snapshot(
            version=self.version,
            listeners=(self._listener,),
            services=(service, *services),
            routes=(Route("s", **route),),
            rotations=(Rotation("s", self.version, (("p", 100),), weights), *rotations),
            trusted_proxies=trusted,
            access_log=log,
            files=files,
            error_pages=file_pages,
        )
        self.plane.apply(self.snapshot)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run something on the loop's thread."""
        done: Future[Any] = Future()
        self.loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(10)

    def with_script(self, script: Script) -> Self:
        """Have the origins play another script from the next connection on; kept ones are closed."""
        for origin in self.origins:
            origin.script = script
            origin.requests.clear()
        self.call(lambda: [lane.close_idle() for lane in self.plane.lanes.values()])
        return self

    def at_rest(self) -> bool:
        """Nothing is counted as under way."""

        def look() -> bool:
            service = self.plane.services["s"]
            lanes = self.plane.lanes.values()
            return service.in_flight == 0 and not any(lane.in_flight or lane.active for lane in lanes)

        return bool(self.call(look))

    def connect(self) -> socket.socket:
        """A client's connection."""
        if self._unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(5)
            sock.connect(self._unix)
            return sock
        sock = socket.create_connection(("127.0.0.1", self.port), 5)
        sock.settimeout(5)
        return sock

    def send(self, raw: bytes, *, wait: float = 5.0, half_close: bool = False) -> bytes:
        """Send bytes on a connection of their own; returns the first complete answer, or all until it closes."""
        with self.connect() as sock:
            sock.settimeout(wait)
            try:
                sock.sendall(raw)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            return read_answer(sock, head_only=raw.startswith(b"HEAD "))


def with_listener(**changes: Any) -> Listener:
    """A listener with other limits."""
    return replace(Listener("test"), **changes)


def read_all(sock: socket.socket, most: float = inf) -> bytes:
    """Everything until the connection closes, or `most` bytes have come."""
    data = bytearray()
    try:
        while len(data) < most and (more := sock.recv(65536)):
            data += more
    except ConnectionResetError:
        data += b"<reset>"
    return bytes(data)


def read_answer(sock: socket.socket, head_only: bool = False) -> bytes:
    """One answer: interim ones, head, and the body by its framing; what there is when it closes or takes too long."""
    data = b""
    while True:
        end = _complete(data, head_only)
        if end:
            return data[:end]
        try:
            more = sock.recv(65536)
        except TimeoutError:
            return data + b"<silence>"
        except ConnectionResetError:
            return data + b"<reset>"
        if not more:
            return data
        data += more


def _complete(data: bytes, head_only: bool) -> int:
    start = 0
    while True:
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            return 0
        head = data[start:end].lower()
        status = int(head[9:12])
        body = end + 4
        if 100 <= status < 200 and status != 101:
            start = body
            continue
        if head_only or status in (101, 204, 304):
            return body
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
                return body + length if len(data) >= body + length else 0
        if b"transfer-encoding: chunked" in head:
            stop = data.find(b"0\r\n", body)
            last = data.find(b"\r\n\r\n", body - 2)
            return last + 4 if stop >= 0 and last >= 0 else 0
        return 0  # until it closes


def status_of(answer: bytes) -> int:
    """The final status of an answer; 0 when there is none."""
    start = 0
    while answer[start : start + 9] == b"HTTP/1.1 ":
        status = int(answer[start + 9 : start + 12])
        if status >= 200 or status == 101:
            return status
        start = answer.find(b"\r\n\r\n", start) + 4
    return 0
