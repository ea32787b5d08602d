"""Questions of forward auth: no reload sends one to another service, and drains and deadlines find it."""

from __future__ import annotations

from dataclasses import replace

from lb.core.guards import ForwardAuth
from lb.core.targets import FORWARD_AUTH, Breaker, Pool, Rotation, Route, Service, Snapshot, StepRule, Target
from tests.support.data_plane import GET, OK, Stage

RULE = StepRule(FORWARD_AUTH, forward_auth=ForwardAuth("auth", "/verify", ("X-User",)))


def staged(**auth: object) -> Stage:
    """A service `s` whose only route asks the service `auth`, each with one target."""
    stage = Stage(targets=1)
    pools = (Pool("p", (Target("auth/p/h:9", "auth", "p", "h", 9),)),)
    asked = Service("auth", pools, **auth)  # type: ignore[arg-type]
    services = (*stage.snapshot.services, asked)
    stage.snapshot = replace(stage.snapshot, services=services, routes=(Route("s", steps=(RULE,)),))
    apply(stage, stage.snapshot)
    return stage


def apply(stage: Stage, snapshot: Snapshot) -> None:
    stage.version += 1
    rotations = [
        Rotation("s", stage.version, (("blue", 100),), (("blue", (("s/blue/h:1", 1.0),)),)),
        Rotation("auth", stage.version, (("p", 100),), (("p", (("auth/p/h:9", 1.0),)),)),
    ]
    stage.plane.apply(replace(snapshot, version=stage.version, rotations=tuple(rotations)))


def test_a_question_is_counted_and_leaves_nothing_behind() -> None:
    stage = staged()
    client, _ = stage.ask(GET + b"X-User: root\r\n")
    upstream, transport = stage.accept()
    assert transport.written.startswith(b"GET /verify HTTP/1.1\r\nHost: h:9\r\n")
    assert len(stage.plane.live.copies) == 1
    upstream.data_received(OK)
    upstream, transport = stage.accept()
    assert b"X-User" not in transport.written
    upstream.data_received(OK)
    assert client.status == 200
    assert not stage.plane.live.copies
    assert [tally.codes.get(200) for lane in stage.plane.lanes.values() for tally in [lane.read_tally()]].count(1) <= 2
    assert stage.plane.stats.begun == stage.plane.stats.over == 2
    assert stage.at_rest()


def test_a_reload_sends_no_question_elsewhere() -> None:
    stage = staged(breaker=Breaker(connections=1))
    first, _ = stage.ask(GET)
    second, _ = stage.ask(GET)
    asked, _ = stage.accept()
    services, routes = stage.snapshot.services[:1], (Route("s"),)
    apply(stage, replace(stage.snapshot, services=services, routes=routes))
    assert second.status == 503
    assert not stage.connector.opening
    asked.data_received(OK)
    assert first.got == b""
    upstream, transport = stage.accept()
    assert transport.written.startswith(b"GET /x HTTP/1.1\r\n")
    upstream.data_received(OK)
    assert first.status == 200
    assert not stage.plane.live.copies


def test_the_end_of_a_worker_ends_questions() -> None:
    stage = staged()
    client, exchange = stage.ask(GET)
    upstream, _ = stage.accept()
    for copy in list(stage.plane.live.copies):
        copy.cut_for_drain()
    assert client.status == 503
    assert exchange.reason == "auth_unavailable"
    assert not stage.plane.live.copies
    assert upstream.transport is None or upstream.transport.is_closing()
