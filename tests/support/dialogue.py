"""Whole dialogues in memory: a data plane's own client and target protocols over transports that only take notes.

Nothing waits and nothing runs at the same time, so that thousands of dialogues a second can be played, each in more
than one way: the bytes at once, and cut into pieces. What a target is sent is read by h11, a strict parser that shares
no code with lb; so is what a client gets. `fuzz_atheris.py` and `test_dialogues.py` play what they think of here.
"""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterable
from typing import NamedTuple

import h11

from lb.core.targets import AccessLog, Listener, Pool, Retries, Rotation, Route, Service, Snapshot, Target
from lb.proxy.context import Context
from lb.proxy.h1.client import Downstream
from lb.proxy.h1.target import Upstream
from lb.proxy.plane import DataPlane
from tests.support.fake_connector import FakeConnector
from tests.support.fake_loop import FakeLoop
from tests.support.fake_transport import FakeTransport

#: A socket with nothing to read: what a healthy idle connection looks like to the kernel.
QUIET = socket.socketpair()[0]
LISTENER = Listener("dialogue")
#: Larger than every limit of lb: h11 is to judge grammar, not sizes.
H11_LIMIT = 1 << 22


class Request(NamedTuple):
    """One message as a strict parser at the target read it, without what changes from one request to the next."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]


class Asked(NamedTuple):
    """What became of a client's bytes."""

    requests: tuple[Request, ...]  # those that a target got whole
    statuses: tuple[int, ...]  # of the answers
    answer: bytes
    closed: bool


class Answered(NamedTuple):
    """What became of a target's bytes, as a strict parser at the client read them."""

    interim: tuple[int, ...]
    status: int
    body: bytes
    whole: bool
    own: bool  # the proxy's own answer


class _TargetEnd:
    """One connection to a target: h11 reads what it is sent; whole requests are answered, unless it keeps silent."""

    def __init__(self, stage: Stage, upstream: Upstream) -> None:
        self.stage = stage
        self.upstream = upstream
        self.transport = FakeTransport()
        self.silent = stage.silent
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=H11_LIMIT)
        self._head: h11.Request | None = None
        self._body = b""

    def read(self) -> bool:
        """Read what has been written to it; returns whether there was anything."""
        data = self.transport.take()
        if not data:
            return False
        self.h11.receive_data(data)
        while True:
            event = self.h11.next_event()  # raises for anything that is not valid HTTP
            if isinstance(event, h11.Request):
                self._head, self._body = event, b""
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._got(event)
                if self.silent:
                    return True
            else:
                return True

    def _got(self, end: h11.EndOfMessage) -> None:
        head = self._head
        assert head is not None
        fields = tuple((name, value) for name, value in head.headers if name != b"x-request-id")
        self.stage.requests.append(Request(head.method, head.target, fields, self._body, tuple(end.headers)))
        if self.silent:
            return
        self.h11.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        self.h11.send(h11.EndOfMessage())
        mark = head.target.rpartition(b"/")[2]
        self.upstream.data_received(b"HTTP/1.1 200 OK\r\nX-Seen: %b\r\nContent-Length: 0\r\n\r\n" % mark)
        if self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE:
            self.h11.start_next_cycle()


class Stage:
    """A data plane with one target; `silent`: new connections to it are played by the test."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.plane = DataPlane(
            worker=0,
            loop=self.loop,  # type: ignore[arg-type]
            alarm=lambda alarm: None,
            seed=1,
            connector=self._connector,
        )
        target = Target("s/p/h:1", "s", "p", "h", 1)
        weights = (("p", ((target.id, 1.0),)),)
        self.plane.apply(
            Snapshot(
                1,
                services=(Service("s", (Pool("p", (target,)),), retries=Retries(attempts=0)),),
                routes=(Route("s"),),
                rotations=(Rotation("s", 1, (("p", 100),), weights),),
                access_log=AccessLog("off"),
            )
        )
        self.silent = False
        self.requests: list[Request] = []
        self.ends: list[_TargetEnd] = []
        self.clients: list[tuple[Downstream, FakeTransport]] = []

    def _connector(self, context: Context) -> FakeConnector:
        self.connector = FakeConnector(context)
        return self.connector

    def client(self) -> tuple[Downstream, FakeTransport]:
        """A client connects."""
        downstream, transport = Downstream(self.plane.live, self.plane.front, LISTENER), FakeTransport(("192.0.2.1", 1))
        downstream.connection_made(transport)
        self.clients.append((downstream, transport))
        return downstream, transport

    def settle(self) -> None:
        """Do what an event loop would do, until nothing is left to do."""
        moving = True
        while moving:
            moving = False
            opening, self.connector.opening = self.connector.opening, []
            for lane, _ in opening:
                moving = True
                upstream = Upstream(lane, QUIET)
                end = _TargetEnd(self, upstream)
                self.ends.append(end)
                upstream.connection_made(end.transport)
                lane.opened(upstream)
            for end in list(self.ends):
                moving |= end.read()
                if end.transport.closed and not end.transport.lost:
                    moving = end.transport.lost = True
                    end.upstream.connection_lost(None)
                    self.ends.remove(end)
            moving |= self.loop.turn()
            moving |= self.loop.fire()

    def say(self, client: tuple[Downstream, FakeTransport], pieces: Iterable[bytes]) -> None:
        """The client sends pieces."""
        downstream, transport = client
        for piece in pieces:
            if transport.closed:
                return
            downstream.data_received(piece)
            self.settle()
            assert not transport.paused or downstream.exchange is not None, "paused for nothing"

    def leave(self, client: tuple[Downstream, FakeTransport]) -> None:
        """The client goes away."""
        downstream, transport = client
        if not transport.lost:
            transport.closed = transport.lost = True
            downstream.connection_lost(None)
        self.settle()

    def check_rest(self) -> None:
        """Nothing is left over once all clients have gone."""
        for client in self.clients:
            self.leave(client)
        for lane in self.plane.lanes.values():
            lane.close_idle()
        self.settle()
        assert not self.plane.clients
        assert not any(lane.in_flight or lane.active or lane.connections for lane in self.plane.lanes.values())
        assert self.plane.services["s"].in_flight == 0


def cut(data: bytes, seed: int) -> list[bytes]:
    """`data` in pieces; 0: whole, 1: single bytes, otherwise by chance."""
    if seed == 0 or not data:
        return [data]
    if seed == 1:
        return [data[i : i + 1] for i in range(len(data))]
    rng = random.Random(seed)
    marks = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randint(1, 12)))})
    return [data[a:b] for a, b in itertools.pairwise(marks)]


def ask(raw: bytes, seed: int = 0) -> Asked:
    """A client sends `raw`; another one, between two of its pieces, sends a request of its own and gets its answer."""
    stage = Stage()
    bad, good = stage.client(), stage.client()
    pieces = cut(raw, seed)
    middle = len(pieces) // 2
    stage.say(bad, pieces[:middle])
    before = len(stage.requests)
    stage.say(good, [b"GET /secret-of-another HTTP/1.1\r\nHost: good.example\r\n\r\n"])
    assert [request.target for request in stage.requests[before:]] == [b"/secret-of-another"]
    del stage.requests[before:]
    mine = good[1].written
    assert mine.startswith(b"HTTP/1.1 200 OK\r\nX-Seen: secret-of-another\r\n"), mine
    assert mine.count(b"HTTP/1.1") == 1
    stage.say(bad, pieces[middle:])
    assert good[1].written == mine
    answer, closed = bad[1].written, bad[1].closed
    if b"secret-of-another" not in raw:
        assert b"secret-of-another" not in answer
    stage.check_rest()
    return Asked(tuple(stage.requests), statuses(answer), answer, closed)


def statuses(answer: bytes) -> tuple[int, ...]:
    """The statuses of a row of answers whose bodies are empty or the proxy's own."""
    found = []
    while answer:
        head, end, answer = answer.partition(b"\r\n\r\n")
        assert end
        assert head.startswith(b"HTTP/1.1 ")
        status = head[9:12]
        found.append(int(status))
        if answer.startswith(status + b" "):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            answer = answer[length:]
    return tuple(found)


def check_request(raw: bytes, seed: int) -> None:
    """Pieces change nothing about what targets get, nor about what is refused."""
    whole, pieces = ask(raw), ask(raw, seed)
    assert whole.requests == pieces.requests, (whole, pieces)
    # Bytes that can never become a head are refused as they come, before what would be refused further on, so that the
    # statuses of refusals may differ.
    assert [min(status, 400) for status in whole.statuses] == [min(status, 400) for status in pieces.statuses], pieces
    assert whole.closed == pieces.closed, (whole, pieces)


def answer(raw: bytes, seed: int, head: bytes, closes: bool) -> Answered:
    """A target answers `head` with `raw`; then another client's request must get the answer that belongs to it."""
    stage = Stage()
    stage.silent = True
    client = stage.client()
    stage.say(client, [head])
    stage.silent = False
    [end] = stage.ends
    assert len(stage.requests) == 1
    for piece in cut(raw, seed):
        if end.transport.closed:
            break
        end.upstream.data_received(piece)
        stage.settle()
    if closes and not end.transport.closed:
        end.transport.closed = end.transport.lost = True
        stage.ends.remove(end)
        end.upstream.eof_received()
        end.upstream.connection_lost(None)
        stage.settle()
    elif not end.transport.closed:
        end.silent = False
        end.h11.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        end.h11.send(h11.EndOfMessage())
        if end.h11.our_state is h11.DONE:
            end.h11.start_next_cycle()
    result = _read_answer(client[1].written, head)
    good = stage.client()
    stage.say(good, [b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"])
    assert good[1].written.startswith(b"HTTP/1.1 200 OK\r\nX-Seen: next\r\n"), good[1].written
    assert good[1].written.count(b"HTTP/1.1 ") == 1
    if not client[1].closed and result.whole and client[0].exchange is None:
        before = len(client[1].written)
        stage.say(client, [b"GET /mine HTTP/1.1\r\nHost: a\r\n\r\n"])
        more = client[1].written[before:]
        assert more.startswith(b"HTTP/1.1 200 OK\r\nX-Seen: mine\r\n"), more
    stage.check_rest()
    return result


def _read_answer(data: bytes, head: bytes) -> Answered:
    """Read with h11 what the client got. Raises if it is not valid HTTP."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=H11_LIMIT)
    method = head.split(b" ")[0]
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    parser.send(h11.EndOfMessage())
    if data:
        parser.receive_data(data)
    interim: list[int] = []
    status, body, own = 0, b"", False
    while True:
        event = parser.next_event()
        if isinstance(event, h11.InformationalResponse):
            interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            status = event.status_code
            own = (b"server", b"lb") in list(event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert not parser.trailing_data[0], "bytes behind the answer"
            return Answered(tuple(interim), status, body, True, own)
        else:
            return Answered(tuple(interim), status, body, False, own)


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def check_response(raw: bytes, seed: int, head: bytes = GET, closes: bool = False) -> None:
    """Pieces change nothing about what a client gets, but for how much of a bad answer had gone on before it broke."""
    whole, pieces = answer(raw, 0, head, closes), answer(raw, seed, head, closes)
    if whole.whole and not whole.own:
        assert whole == pieces, (whole, pieces)
    else:
        assert pieces.own or not pieces.whole, (whole, pieces)
