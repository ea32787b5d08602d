"""Routes with several services: shares by weight, services without targets, the fallback."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.shares import BUCKETS, parts_of
from lb.core.targets import AccessLog, Breaker, Pool, Rotation, Route, Service, Snapshot, Target, Timeouts
from lb.proxy.plane import DataPlane
from tests.support.data_plane import GET, Client, Stage
from tests.support.fake_loop import FakeLoop


class Services(Stage):
    """A data plane with services a, b and c, of one target each, behind one route."""

    def __init__(self, route: Route, **options: Any) -> None:
        self.loop = FakeLoop()
        self.plane = DataPlane(
            worker=0,
            loop=self.loop,  # type: ignore[arg-type]
            alarm=lambda alarm: None,
            seed=1,
            connector=self._connector,
        )
        pools = {n: Pool("p", (Target(f"{n}/p/h:1", n, "p", "h", 1),)) for n in "abc"}
        services = tuple(Service(n, (pool,), **options.get(n, {})) for n, pool in pools.items())
        routes = (route, Route("a", path="/other"))
        self.plane.apply(Snapshot(1, services=services, routes=routes, access_log=AccessLog("off")))
        self.version = 1
        for name in "abc":
            self.offer(name)

    def offer(self, name: str, offers: bool = True) -> None:
        self.version += 1
        weights = (("p", ((f"{name}/p/h:1", 1.0),)),) if offers else ()
        self.plane.rotate(Rotation(name, self.version, (("p", 100),), weights))

    def went(self, times: int = 1, fields: bytes = b"") -> Counter[str]:
        """Where so many requests went; "": lb answered by itself. Each is given up."""
        found: Counter[str] = Counter()
        for _ in range(times):
            client, exchange = self.ask(GET + fields)
            found[exchange.service.name if not client.got else ""] += 1
            if not client.got:
                exchange.client_lost()
        assert all(service.in_flight == 0 for service in self.plane.services.values())
        return found

    def counted(self) -> dict[str, dict[str, int]]:
        return self.plane.stats.step_results(full=True).get("/", {})


SPLIT = Route("", split=(("a", 90), ("b", 9), ("c", 1)))


def test_shares_are_exact() -> None:
    stage = Services(SPLIT)
    assert stage.went(100) == {"a": 90, "b": 9, "c": 1}
    assert stage.went(100) == {"a": 90, "b": 9, "c": 1}
    assert stage.plane.services["a"].budget.requests == 180, "retries go by the requests of the chosen service"
    assert stage.counted() == {}


def test_the_share_of_a_service_without_targets_goes_to_the_others() -> None:
    stage = Services(SPLIT)
    stage.offer("a", offers=False)
    assert stage.went(100) == {"b": 90, "c": 10}
    assert stage.counted() == {"split": {"moved": 90}}
    stage.offer("b", offers=False)
    assert stage.went(100) == {"c": 100}
    stage.offer("c", offers=False)
    client, exchange = stage.ask(GET)
    assert client.status == 503
    assert exchange.reason == "no_target"
    stage.offer("a")
    assert stage.went(10) == {"a": 10}


def test_a_weight_of_0_gets_nothing_also_while_nothing_else_can_serve() -> None:
    stage = Services(Route("", split=(("a", 1), ("b", 0))))
    assert stage.went(100) == {"a": 100}
    stage.offer("a", offers=False)
    assert stage.went(1) == {"": 1}


@pytest.mark.parametrize("by", ["client", "header:x-user", "cookie:id"])
def test_a_client_stays_at_its_service(by: str) -> None:
    stage = Services(Route("", split=(("a", 1), ("b", 1)), split_by=by))
    fields = b"X-User: u7\r\nCookie: id=7\r\n"
    [(stays, _)] = stage.went(20, fields).items()
    users = [stage.went(1, b"X-User: u%d\r\nCookie: id=%d\r\n" % (user, user)) for user in range(60)]
    if by != "client":
        assert 15 < sum(each["a"] for each in users) < 45
    stage.offer(stays, offers=False)
    assert stage.went(20, fields) == {"b" if stays == "a" else "a": 20}
    stage.offer(stays)
    assert stage.went(20, fields) == {stays: 20}


def test_a_fallback_serves_while_the_service_cannot() -> None:
    stage = Services(Route("a", fallback="c"))
    assert stage.went(5) == {"a": 5}
    stage.offer("a", offers=False)
    assert stage.went(5) == {"c": 5}
    assert stage.counted() == {"fallback": {"fallback": 5}}
    _, exchange = stage.ask(GET)
    assert b'"remarks":["fallback: no target of a can serve"],"route":"/"' in exchange.route_fragment
    exchange.client_lost()
    stage.offer("c", offers=False)
    assert stage.went(1) == {"": 1}
    stage.offer("a")
    stage.offer("c")
    assert stage.went(5) == {"a": 5}


def test_a_split_with_a_fallback() -> None:
    stage = Services(Route("", split=(("a", 1), ("b", 1)), fallback="c"))
    assert set(stage.went(20)) == {"a", "b"}
    stage.offer("a", offers=False)
    assert stage.went(20) == {"b": 20}
    stage.offer("b", offers=False)
    assert stage.went(20) == {"c": 20}


def test_limits_and_times_are_those_of_the_chosen_service() -> None:
    stage = Services(
        Route("", split=(("a", 1), ("b", 1))), a={"breaker": Breaker(requests=1), "timeouts": Timeouts(total=5.0)}
    )
    totals: dict[str, bool] = {}
    asked: list[tuple[Client, Any]] = [stage.ask(GET) for _ in range(8)]
    for client, exchange in asked:
        if not client.got:
            totals[exchange.service.name] = exchange.ends_at < exchange.started + 6
    assert totals == {"a": True, "b": False}
    refused = [exchange for client, exchange in asked if client.got]
    assert {(exchange.reason, exchange.service.name) for exchange in refused} == {("overload", "a")}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_weights_become_parts_of_a_hundred(weights: list[int]) -> None:
    named = [(f"s{place}", weight) for place, weight in enumerate(weights)]
    parts = dict(parts_of(named))
    assert sum(parts.values()) == BUCKETS
    assert set(parts) == {name for name, weight in named if weight}
    assert min(parts.values()) >= 1
    if min(weight for weight in weights if weight) * BUCKETS >= sum(weights):
        assert all(abs(parts[name] - BUCKETS * weight / sum(weights)) < 1 for name, weight in named if weight)
