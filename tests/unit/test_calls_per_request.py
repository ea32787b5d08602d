"""The hot path is measured by count, not by time: Python and C calls for one small GET, with the access log on.

It needs no quiet machine. A change that adds calls changes the bound here, and says why in its commit.
"""

from __future__ import annotations

import gc
import sys
from time import monotonic
from types import FrameType

import pytest

from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot, Target
from lb.proxy.h1.target import Upstream
from lb.proxy.plane import DataPlane
from tests.support.data_plane import QUIET
from tests.support.fake_loop import FakeLoop
from tests.support.fake_transport import FakeTransport

#: Calls per request: (of Python functions, of C functions). Recorded with Python 3.11.
#: A dozen log lines are joined as soon as they are there: at once they would stop the loop.
PYTHON_CALLS, C_CALLS = 23, 14

REQUEST = b"GET /hello HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sat, 21 Nov 2026 05:01:46 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"
)


def calls(targets: int = 2, routes: int = 1) -> tuple[float, float]:
    """(Python calls, C calls) per request with so many targets in the pool and routes to it."""
    plane = DataPlane(worker=0, loop=FakeLoop(), alarm=lambda alarm: None)  # type: ignore[arg-type]
    members = tuple(Target(f"s/p/h:{i}", "s", "p", "h", i) for i in range(1, targets + 1))
    weights = (("p", tuple((target.id, 1.0) for target in members)),)
    paths = [f"/{i}" for i in range(1, routes)] + ["/hello" if routes > 1 else "/"]
    plane.apply(
        Snapshot(
            1,
            services=(Service("s", (Pool("p", members),)),),
            routes=tuple(Route("s", path=path) for path in paths),
            rotations=(Rotation("s", 1, (("p", 100),), weights),),
            access_log=AccessLog("json", "/dev/null"),
        )
    )
    for lane in plane.lanes.values():
        upstream = Upstream(lane, QUIET)
        upstream.connection_made(FakeTransport())  # type: ignore[arg-type]
        upstream.idle_since = monotonic() + 60.0  # however long the others take to make, it is fresh
        lane.keep(upstream)
    client = plane.downstream(Listener("test"))()
    client.connection_made(FakeTransport(("127.0.0.1", 1234)))  # type: ignore[arg-type]

    def one() -> None:
        client.data_received(REQUEST)
        exchange = client.exchange
        assert exchange is not None
        assert exchange.upstream is not None
        exchange.upstream.data_received(ANSWER)

    plane.context.now = monotonic() + 60.0  # no timer runs here: without this a slow machine's turn counts as overlong
    for _ in range(10):
        one()
    counts = {"call": 0, "c_call": 0}

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event in counts:
            counts[event] += 1

    rounds = 100
    # A busy machine makes this take long, and time that passes costs calls: idle connections grow old, and a timer that
    # is late makes clients rest. Neither counts here, so both begin in a minute. Nor do the callbacks and finalizers of
    # garbage that other tests have left (Hypothesis has a callback at each collection).
    plane.context.now = monotonic() + 60.0
    for lane in plane.lanes.values():
        for upstream in lane.idle:
            upstream.idle_since = plane.context.now
    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        for _ in range(rounds):
            one()
    finally:
        sys.setprofile(None)
        gc.enable()
    plane.close()
    return counts["call"] / rounds, counts["c_call"] / rounds


def test_calls_per_request() -> None:
    python, c = calls()
    assert python <= PYTHON_CALLS, python
    assert c <= C_CALLS, c


def test_a_thousand_targets_cost_no_call_more() -> None:
    assert calls(targets=1000) == pytest.approx(calls(targets=2), abs=0.5)


def test_a_thousand_routes_cost_no_call_more_than_two() -> None:
    assert calls(routes=1000) == pytest.approx(calls(routes=2), abs=0.5)
