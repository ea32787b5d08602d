"""A data plane in memory: the test plays client and target, and opens the connections between them.

No socket, no event loop: what is written is taken down by fakes, and nothing happens by itself.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from lb.core.report import Alarm
from lb.core.retry import CONNECT, REFUSED, Failure
from lb.core.targets import (
    AccessLog,
    Mirror,
    Pool,
    Rotation,
    Route,
    Service,
    Snapshot,
    Target,
)
from lb.http.h1.parse import read_request, read_request_fields
from lb.http.h1.serialize import request_lines
from lb.proxy.client_stream import PrivateStreams
from lb.proxy.context import Context
from lb.proxy.exchange import Exchange
from lb.proxy.h1.answer import AnswerWriter
from lb.proxy.h1.target import Upstream
from lb.proxy.lane import Lane
from lb.proxy.plane import DataPlane
from lb.proxy.private import PrivateConnections
from lb.proxy.target_stream import TargetStream
from tests.support.fake_connector import FakeConnector
from tests.support.fake_loop import FakeLoop
from tests.support.fake_transport import FakeTransport

#: A socket with nothing to read: what a healthy idle connection looks like to the kernel.
QUIET, _OTHER_END = socket.socketpair()


class Client(AnswerWriter):
    """The client's side; heads and bodies are written as for any client of HTTP/1."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = b"192.0.2.1"
        self.trusted = False
        self.transport = None
        self.private: PrivateStreams | None = None
        self.got = b""
        self.kept: bool | None = None  # keep-alive, once the exchange is over
        self.was_cut = False
        self.paused = False
        self.rests = False
        self.blocked = False

    @property
    def send_timeout(self) -> float:
        return 60.0

    def read_anew(self) -> None:
        """It keeps no head."""

    def may_keep_alive(self, head: Any) -> bool:
        return not head.fields.close and bool(head.minor or head.fields.keep_alive)

    def write(self, data: bytes) -> None:
        self.got += data

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def expect_body(self) -> None:
        pass

    def keep_private(self, lane: Lane, upstream: TargetStream) -> None:
        self.private = self.private or PrivateConnections()
        self.private.keep(lane, upstream)

    def reset(self) -> None:
        self.was_cut = True

    def done(self, complete: bool) -> None:
        assert self.kept is None, "an exchange ends once"
        self.kept = complete and self.keep_alive

    def become_tunnel(self) -> bytes:
        return b""

    def unregister(self) -> None:
        pass

    def defer_read(self) -> None:
        assert self.kept is not None
        self.rests = True

    @property
    def status(self) -> int:
        return int(self.got.split(b" ", 2)[1])


class Stage:
    """A data plane with one service of two pools, whose connections the test opens."""

    def __init__(
        self,
        targets: int = 2,
        max_body: int = 0,
        http2: bool = False,
        files: tuple[tuple[str, bytes], ...] = (),
        **options: Any,
    ) -> None:
        self.loop = FakeLoop()
        self.alarms: list[Alarm] = []
        self.plane = DataPlane(
            worker=0,
            loop=self.loop,  # type: ignore[arg-type]
            alarm=self.alarms.append,
            seed=1,
            connector=self._connector,
        )
        self.names = [f"h:{i}" for i in range(1, targets + 1)]
        pools = tuple(
            Pool(
                pool,
                tuple(Target(f"s/{pool}/{name}", "s", pool, "h", int(name[2:]), http2=http2) for name in self.names),
            )
            for pool in ("blue", "green")
        )
        service = Service("s", pools, **options)
        routes = (Route("s", max_body=max_body),)
        self.snapshot = Snapshot(1, services=(service,), routes=routes, access_log=AccessLog("off"), files=files)
        self.plane.apply(self.snapshot)
        self.version = 1
        self.rotate((("blue", 100),))

    def _connector(self, context: Context) -> FakeConnector:
        self.connector = FakeConnector(context)
        return self.connector

    def reload(self) -> None:
        """The same file is read again."""
        self.version += 1
        weights = (("blue", tuple((f"s/blue/{name}", 1.0) for name in self.names)),)
        rotation = Rotation("s", self.version, (("blue", 100),), weights)
        self.plane.apply(replace(self.snapshot, version=self.version, rotations=(rotation,)))

    def rotate(self, shares: tuple[tuple[str, int], ...], mirror: Mirror | None = None, only: str = "") -> None:
        """Share the traffic; all targets are in rotation, or `only` those of one pool."""
        self.version += 1
        weights = tuple(
            (pool, tuple((f"s/{pool}/{name}", 1.0) for name in self.names))
            for pool in ("blue", "green")
            if only in ("", pool)
        )
        self.plane.rotate(Rotation("s", self.version, shares, weights, mirror=mirror))

    def ask(
        self, head: bytes, body: bytes = b"", done: bool = True, client: Client | None = None
    ) -> tuple[Client, Exchange]:
        """A client sends a request; `client` has sent one before."""
        client = client or Client()
        client.got, client.kept = b"", None
        line, _, block = head.partition(b"\r\n")
        fields = read_request_fields(block, 10_000, 100)
        fields.cached_lines = request_lines(fields, client.peer, b"http", False)
        request = read_request(head, len(line), fields, 10_000)
        exchange = client.exchange = Exchange(self.plane.live, client, request)
        exchange.start(body, done)
        return client, exchange

    def accept(self) -> tuple[Upstream, FakeTransport]:
        """The target accepts the connection that is being opened."""
        lane, _ = self.connector.opening.pop(0)
        upstream = Upstream(lane, QUIET)
        transport = FakeTransport()
        upstream.connection_made(transport)  # type: ignore[arg-type]
        lane.opened(upstream)
        return upstream, transport

    def refuse(self) -> str:
        """The target refuses; returns its id."""
        lane, begun = self.connector.opening.pop(0)
        lane.not_opened(Failure(CONNECT, REFUSED, "refused the connection"), begun)
        return str(lane.id)

    def at_rest(self) -> bool:
        """Nothing is counted as under way."""
        service = self.plane.services["s"]
        return service.in_flight == 0 and all(
            lane.in_flight == 0 and lane.active == 0 for lane in self.plane.lanes.values()
        )


GET = b"GET /x HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
OK = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nok"
NTLM = GET + b"Authorization: NTLM TlRMTVNTUAAB\r\n"
OFFER = b"HTTP/1.1 401 Unauthorized\r\nDate: now\r\nWWW-Authenticate: Basic, NTLM\r\nContent-Length: 0\r\n\r\n"


def logged_in(stage: Stage, head: bytes = NTLM) -> tuple[Client, Upstream]:
    """A client that has sent its login, and the connection that it went on."""
    client, _ = stage.ask(head)
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    return client, upstream
