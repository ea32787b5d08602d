"""A step that cannot decide at once: the request waits, bounded, and goes on or is answered."""

from __future__ import annotations

import pytest

from lb.core.targets import Snapshot
from lb.http.h1.replies import Reply
from lb.proxy.exchange import HELD, OVER, PENDING_LIMIT, Exchange
from lb.proxy.hold import Hold
from lb.proxy.services import LiveRoute, Step
from tests.support.data_plane import GET, OK, POST, Stage


class Work(Hold):
    def __init__(self) -> None:
        super().__init__(Reply(503, "late", "too late"))
        self.begun = 0
        self.cancelled = 0

    def begin(self) -> None:
        self.begun += 1

    def cancel(self) -> None:
        self.cancelled += 1


class Slow(Step):
    def __init__(self) -> None:
        self.works: list[Work] = []

    def before(self, exchange: Exchange) -> Reply | None:
        self.works.append(Work())
        return exchange.hold(self.works[-1], 5.0)


class Counter(Step):
    def __init__(self, reply: Reply | None = None) -> None:
        self.asked = 0
        self.reply = reply

    def before(self, exchange: Exchange) -> Reply | None:
        self.asked += 1
        return self.reply


def staged(*steps: Step) -> Stage:
    stage = Stage(targets=1)
    stage.plane.live.only_route = LiveRoute(stage.plane.services["s"], 0, 0.0, steps, title="r")
    return stage


def test_it_goes_on_with_the_steps_that_follow() -> None:
    before, slow, other, after = Counter(), Slow(), Slow(), Counter()
    stage = staged(before, slow, other, after)
    client, exchange = stage.ask(POST, b"he", done=False)
    exchange.on_request_body(b"llo", True)
    assert (exchange.phase, before.asked, slow.works[0].begun, after.asked) == (HELD, 1, 1, 0)
    exchange.go_on(slow.works[0], None)
    assert (exchange.phase, other.works[0].begun, after.asked) == (HELD, 1, 0)
    exchange.go_on(slow.works[0], None)  # it has decided already
    assert exchange.phase == HELD
    exchange.go_on(other.works[0], None)
    assert (before.asked, len(slow.works), after.asked) == (1, 1, 1)
    upstream, transport = stage.accept()
    assert transport.written.endswith(b"\r\n\r\nhello")
    upstream.data_received(OK)
    assert client.status == 200
    assert exchange.route_fragment.endswith(b'"steps":["counter", "slow", "slow", "counter"]')
    assert not slow.works[0].cancelled
    assert stage.at_rest()


def test_a_step_after_it_may_answer() -> None:
    slow = Slow()
    stage = staged(slow, Counter(Reply(403, "no", "no")), Counter())
    client, exchange = stage.ask(GET)
    exchange.go_on(slow.works[0], None)
    assert client.status == 403
    assert exchange.route_fragment.endswith(b'"steps":["slow", "counter"]')
    assert stage.at_rest()


def test_it_answers() -> None:
    slow = Slow()
    stage = staged(slow, Counter())
    client, exchange = stage.ask(GET)
    exchange.go_on(slow.works[0], Reply(401, "who", "who are you"))
    assert client.status == 401
    assert client.kept is True
    assert exchange.route_fragment.endswith(b'"steps":["slow"]')
    assert stage.at_rest()


def test_the_time_to_decide_is_bounded() -> None:
    slow = Slow()
    stage = staged(slow)
    client, exchange = stage.ask(GET)
    assert exchange.started + 4.9 < exchange.deadline < exchange.started + 5.5
    exchange.on_deadline(exchange.deadline)
    assert (client.status, exchange.reason) == (503, "late")
    assert slow.works[0].cancelled == 1
    exchange.go_on(slow.works[0], None)
    assert exchange.phase == OVER
    assert stage.at_rest()


def test_the_body_is_held_up_to_a_bound() -> None:
    slow = Slow()
    stage = staged(slow)
    client, exchange = stage.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n", done=False)
    exchange.on_request_body(b"x" * 60000, False)
    assert not client.paused
    exchange.on_request_body(b"x" * (PENDING_LIMIT - 59999), False)
    assert client.paused
    exchange.go_on(slow.works[0], None)
    stage.accept()
    assert not client.paused


@pytest.mark.parametrize("how", ["gone", "body", "slow", "drain"])
def test_a_request_that_ends_meanwhile(how: str) -> None:
    slow = Slow()
    stage = staged(slow)
    _, exchange = stage.ask(POST, done=False)
    if how == "gone":
        exchange.client_lost()
    elif how == "body":
        exchange.on_body_broken("odd chunk")
    elif how == "slow":
        exchange.client_too_slow("client_body")
    else:
        exchange.cut_for_drain()
    assert slow.works[0].cancelled == 1
    assert exchange.phase == OVER
    exchange.go_on(slow.works[0], None)
    assert not stage.connector.opening
    assert stage.at_rest()


def test_the_whole_time_of_a_request_counts() -> None:
    slow = Slow()
    stage = staged(slow)
    stage.plane.live.only_route.total = 3.0  # type: ignore[union-attr]
    _, exchange = stage.ask(GET)
    exchange.go_on(slow.works[0], None)
    assert exchange.ends_at == exchange.started + 3.0


def test_a_reload_keeps_the_request_and_a_removed_service_ends_it() -> None:
    slow = Slow()
    stage = staged(slow)
    client, exchange = stage.ask(GET)
    stage.reload()
    exchange.go_on(slow.works[0], None)
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    assert client.status == 200
    assert exchange.service is stage.plane.services["s"]
    stage.plane.live.only_route = LiveRoute(stage.plane.services["s"], 0, 0.0, (slow,))
    client, exchange = stage.ask(GET)
    stage.plane.apply(Snapshot(9))
    exchange.go_on(slow.works[1], None)
    assert client.status == 503
