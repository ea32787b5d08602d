"""Faults on purpose: a share of requests, marked as such, until a moment."""

from __future__ import annotations

import time

from lb.core.targets import Fault
from lb.proxy.exchange import HELD, Exchange
from lb.proxy.services import LiveRoute
from lb.proxy.steps.fault import FaultStep
from tests.support.data_plane import GET, OK, Client, Stage

SOON = time.time() + 3600.0


def faulty(rule: Fault) -> Stage:
    stage = Stage(targets=1)
    step = FaultStep(rule, "/", stage.plane.context)
    stage.plane.live.only_route = LiveRoute(stage.plane.services["s"], 0, 0.0, (step,), title="/")
    return stage


def counted(stage: Stage) -> dict[str, int]:
    return stage.plane.stats.step_results(full=True).get("/", {}).get("fault", {})


def gives_up(asked: list[tuple[Client, Exchange]]) -> None:
    for client, exchange in asked:
        if not client.got:
            exchange.client_lost()


def test_a_share_is_answered() -> None:
    stage = faulty(Fault(0.2, SOON, abort=503))
    asked = [stage.ask(GET) for _ in range(1000)]
    failed = [(client, exchange) for client, exchange in asked if client.got]
    assert 140 < len(failed) < 260
    assert {(client.status, exchange.reason) for client, exchange in failed} == {(503, "fault")}
    assert counted(stage) == {"fault": len(failed)}
    assert stage.plane.stats.rejected == {"fault": len(failed)}
    gives_up(asked)


def test_a_delayed_request_goes_on() -> None:
    stage = faulty(Fault(1.0, SOON, delay=2.0))
    client, exchange = stage.ask(GET)
    assert exchange.phase == HELD
    assert [delay for delay, _, _ in stage.loop.later] == [2.0]
    assert not stage.connector.opening
    stage.loop.fire()
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    assert client.status == 200
    assert counted(stage) == {"delayed": 1}
    assert b'"remarks":["fault: delayed by 2 s on purpose"],"route":"/","steps":["fault"]' in exchange.route_fragment
    assert stage.at_rest()


def test_a_delay_before_an_answer() -> None:
    stage = faulty(Fault(1.0, SOON, delay=2.0, abort=451))
    client, _ = stage.ask(GET)
    assert not client.got
    stage.loop.fire()
    assert client.status == 451
    assert stage.at_rest()


def test_a_client_that_goes_away_waits_no_more() -> None:
    stage = faulty(Fault(1.0, SOON, delay=2.0))
    _, exchange = stage.ask(GET)
    exchange.client_lost()
    stage.loop.fire()
    assert not stage.connector.opening
    assert stage.at_rest()


def test_it_ends_by_itself() -> None:
    stage = faulty(Fault(1.0, time.time() - 1.0, abort=503))
    client, exchange = stage.ask(GET)
    assert not client.got
    assert counted(stage) == {}
    exchange.client_lost()


def test_waiting_requests_are_bounded() -> None:
    stage = faulty(Fault(1.0, SOON, delay=2.0))
    asked = [stage.ask(GET) for _ in range(1001)]
    assert [exchange.phase for _, exchange in asked].count(HELD) == 1000
    gives_up(asked)
    assert stage.plane.services["s"].in_flight == 0
