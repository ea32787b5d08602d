"""Random walks over a lane that speaks HTTP/2: whatever the targets do, each request ends once, and nothing is left.

The test plays clients and targets in memory. A POST that a target may have acted on is seen by no other one.
"""

from __future__ import annotations

import random

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame

from lb.core.retry import CONNECT, REFUSED, Failure
from lb.core.targets import Retries
from lb.proxy.exchange import OVER, Exchange
from lb.proxy.h2.lane import Http2Lane
from lb.proxy.h2.target import Http2Upstream
from tests.support.data_plane import QUIET, Client, Stage
from tests.support.fake_transport import FakeTransport
from tests.support.h2_peer import PREFACE, Frames, raw

CODES = [0, 2, 7, 7, 8, 11, 13]


class Link:
    """One connection, and the target's side of it."""

    def __init__(self, upstream: Http2Upstream, limit: int) -> None:
        self.upstream = upstream
        self.transport = FakeTransport()
        self.transport.protocol = upstream
        self.frames = Frames()
        self.open: dict[int, bytes] = {}  # stream → its path
        self.answering: set[int] = set()  # streams whose head was sent
        self.unended: set[int] = set()  # streams whose request has not ended
        self.newest = 0
        self.lost = False
        self.left = False
        upstream.connection_made(self.transport)  # type: ignore[arg-type]
        assert self.transport.take().startswith(PREFACE)
        upstream.data_received(raw(4, 0, 0, b"\0\3" + limit.to_bytes(4, "big")))

    def send(self, data: bytes) -> None:
        if not self.lost and not self.transport.closed:
            self.upstream.data_received(data)

    def lose(self) -> None:
        self.lost = True
        self.open.clear()
        self.transport.closed = True
        self.upstream.connection_lost(None)


class Walk:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.stage = Stage(targets=self.dice.choice([1, 2, 3]), http2=True, retries=Retries(2, statuses=(503,)))
        self.links: list[Link] = []
        self.requests: dict[bytes, tuple[Client, Exchange]] = {}
        self.acted: dict[bytes, int] = {}  # path of a POST → targets that may have acted on it
        self.now = 0.0

    # --- what comes to pass -----------------------------------------------------------------------------------------

    def ask(self) -> None:
        path = b"/%d" % len(self.requests)
        method = self.dice.choice([b"GET", b"POST", b"POST"])
        whole = self.dice.random() < 0.7
        length = b"Content-Length: 4\r\n" if method == b"POST" else b""
        head = b"%b %b HTTP/1.1\r\nHost: a\r\n%b" % (method, path, length)
        done = whole or method == b"GET"
        client, exchange = self.stage.ask(head, b"body" if method == b"POST" and whole else b"", done)
        self.requests[path] = client, exchange

    def go_on(self) -> None:
        """The rest of a body."""
        for _, exchange in self.requests.values():
            if exchange.phase != OVER and not exchange.body_done:
                exchange.on_request_body(b"body", True)
                return

    def leave(self) -> None:
        """A client goes away."""
        under_way = [exchange for _, exchange in self.requests.values() if exchange.phase != OVER]
        if under_way:
            self.dice.choice(under_way).client_lost()

    def connect(self) -> None:
        opening = self.stage.connector.opening
        if not opening:
            return
        lane, begun = opening.pop(0)
        assert isinstance(lane, Http2Lane)
        if self.dice.random() < 0.2:
            lane.not_opened(Failure(CONNECT, REFUSED, "refused the connection"), begun)
            return
        upstream = Http2Upstream(lane, QUIET, lane.context.now)
        self.links.append(Link(upstream, self.dice.choice([0, 1, 2, 100])))
        if not upstream.gone:
            lane.linked(upstream)

    def look(self) -> None:
        """Targets read what has come."""
        for link in self.links:
            for frame in link.frames.read(link.transport.take()):
                stream = frame.stream_id
                if isinstance(frame, HeadersFrame):
                    fields = dict(link.frames.decoder.decode(frame.data))
                    path = fields[":path"].encode()
                    assert stream > link.newest
                    assert not link.left or not link.transport.closed
                    link.newest = stream
                    link.open[stream] = path
                    if fields[":method"] == "POST":
                        self.acted[path] = self.acted.get(path, 0) + 1
                    if "END_STREAM" not in frame.flags:
                        link.unended.add(stream)
                elif isinstance(frame, DataFrame) and "END_STREAM" in frame.flags:
                    link.unended.discard(stream)
                elif isinstance(frame, RstStreamFrame):
                    link.open.pop(stream, None)
                elif isinstance(frame, GoAwayFrame):
                    assert frame.last_stream_id == 0

    def some(self) -> tuple[Link, int] | None:
        """A stream that a target has."""
        streams = [(link, stream) for link in self.links if not link.lost for stream in link.open]
        return self.dice.choice(streams) if streams else None

    def answer(self, status: int = 0) -> None:
        chosen = self.some()
        if chosen is None:
            return
        link, stream = chosen
        if stream not in link.answering:
            end = self.dice.random() < 0.3
            status = status or self.dice.choice([200, 200, 200, 204, 503])
            link.answering.add(stream)
            data = link.frames.headers(stream, [(":status", str(status))], end)
            if not end and self.dice.random() < 0.5:
                end = True
                data += link.frames.data(stream, b"" if status == 204 else b"hello", True)
            if end:
                link.open.pop(stream)
            link.send(data)
        elif self.dice.random() < 0.5:
            link.open.pop(stream)
            link.send(link.frames.data(stream, b"", True))
        else:
            link.open.pop(stream)
            link.send(link.frames.headers(stream, [("x-sum", "1")]))

    def reset(self) -> None:
        chosen = self.some()
        if chosen is None:
            return
        link, stream = chosen
        code = self.dice.choice(CODES)
        path = link.open.pop(stream)
        if code == 7 and stream not in link.answering and path in self.acted:
            self.acted[path] -= 1  # it was not acted on
        link.send(raw(3, 0, stream, code.to_bytes(4, "big")))

    def go_away(self) -> None:
        links = [link for link in self.links if not link.lost]
        if not links:
            return
        link = self.dice.choice(links)
        last = self.dice.choice([0, link.newest, (1 << 31) - 1, *link.open])
        for stream in [stream for stream in link.open if stream > last]:
            path = link.open.pop(stream)
            if path in self.acted and stream not in link.answering:
                self.acted[path] -= 1
        link.left = True
        link.send(raw(7, 0, 0, last.to_bytes(4, "big") + bytes(4)))

    def lose(self) -> None:
        links = [link for link in self.links if not link.lost]
        if links:
            self.dice.choice(links).lose()

    def pass_time(self) -> None:
        self.now += self.dice.choice([0.5, 2.0, 20.0])
        self.stage.plane.context.now = max(self.stage.plane.context.now, self.now)
        for lane in self.stage.plane.lanes.values():
            lane.expire(self.stage.plane.context.now)
        self.stage.loop.fire()

    def settle(self) -> None:
        """The loop's turn: connections that lb has closed are lost."""
        self.stage.loop.turn()
        self.look()
        for link in self.links:
            if link.transport.closed and not link.lost:
                link.lose()

    def step(self) -> None:
        steps = [self.ask, self.ask, self.go_on, self.connect, self.connect, self.answer, self.answer]
        rare = [self.leave, self.reset, self.go_away, self.lose, self.pass_time]
        self.dice.choice(rare if self.dice.random() < 0.15 else steps)()
        self.settle()

    def finish(self) -> None:
        """From now on all goes well: every request comes to its end."""
        for _ in range(3000):
            over = all(exchange.phase == OVER for _, exchange in self.requests.values())
            if over and not self.stage.connector.opening:
                return
            self.go_on()
            while self.stage.connector.opening:
                lane, _ = self.stage.connector.opening.pop(0)
                assert isinstance(lane, Http2Lane)
                upstream = Http2Upstream(lane, QUIET, lane.context.now)
                self.links.append(Link(upstream, 100))
                lane.linked(upstream)
                self.settle()
            self.settle()
            self.answer(200)
            self.stage.loop.fire()
            self.settle()
        raise AssertionError([exchange for _, exchange in self.requests.values() if exchange.phase != OVER])


@pytest.mark.parametrize("seed", range(60))
def test_whatever_targets_do_each_request_ends_and_nothing_is_left(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(300):
        walk.step()
    walk.finish()
    for path, times in walk.acted.items():
        assert times <= 1, f"{path!r} was acted on {times} times"
    for _ in range(30):
        walk.settle()
    walk.stage.loop.fire()
    assert walk.stage.at_rest()
    walk.pass_time()  # a stream whose answer has no body is waited for, a while
    walk.stage.plane.context.now += 10.0
    walk.pass_time()
    for link in walk.links:
        if not link.lost:
            assert not link.upstream.users()
