"""Pools named by version and services that come and go leave nothing behind, and no count is lost or told twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from lb.core.report import counted_under
from lb.core.targets import Pool, Rotation, Route, Service, Snapshot, Target
from lb.proxy.lane import Lane
from lb.proxy.plane import DataPlane
from lb.supervisor.rates import Rates
from lb.supervisor.totals import Totals
from tests.support.data_plane import GET, OK, Client, Stage


def world(service: str, pools: tuple[str, ...], version: int) -> Snapshot:
    """One service whose pools have a target each, at an address of its own; the first pool has the traffic."""
    made = tuple(Pool(pool, (Target(f"{service}/{pool}/{pool}:1", service, pool, pool, 1),)) for pool in pools)
    weights = tuple((pool.name, ((pool.targets[0].id, 1.0),)) for pool in made)
    rotation = Rotation(service, version, ((pools[0], 100),), weights)
    return Snapshot(version, services=(Service(service, made),), routes=(Route(service),), rotations=(rotation,))


def ids(snapshot: Snapshot) -> set[str]:
    return {target.id for service in snapshot.services for pool in service.pools for target in pool.targets}


def growing(plane: DataPlane) -> dict[str, int]:
    """Sizes of all that a plane itself keeps, but for what is bounded by construction and lanes with requests."""
    return {
        name: len(kept)
        for name, kept in vars(plane).items()
        if isinstance(kept, dict | set | list) and not any(isinstance(each, Lane) for each in kept)
    }


def apply(stage: Stage, snapshot: Snapshot) -> None:
    stage.plane.apply(replace(snapshot, access_log=stage.snapshot.access_log))


def served(totals: Totals, known: set[str]) -> tuple[int, int]:
    """(requests by targets, requests by pools)"""
    sums = totals.sums(known)
    return (
        sum(sum(tally.codes.values()) for tally in sums.targets.values()),
        sum(tally.requests for tally in sums.pools.values()),
    )


@pytest.mark.parametrize("what", ["pools", "services"])
@pytest.mark.parametrize("in_flight", [False, True])
def test_fifty_versions_leave_no_series_behind(what: str, in_flight: bool) -> None:
    stage, totals = Stage(), Totals()
    asked: list[tuple[Client, object]] = []
    before = 0
    for number in range(50):
        service = "app" if what == "pools" else f"app{number}"
        snapshot = world(service, (f"v{number}", f"v{number + 1}"), number + 2)
        apply(stage, snapshot)
        known = ids(snapshot)
        totals.forget(known)
        client, exchange = stage.ask(GET)
        client.exchange, client.deadline = exchange, 1e9  # type: ignore[attr-defined]
        stage.plane.clients.add(client)  # type: ignore[arg-type]
        stage.loop.turn()
        upstream, _ = stage.accept()
        if not in_flight or number % 2:
            upstream.data_received(OK)
            assert client.status == 200
        else:
            asked.append((client, upstream))
        totals.take(stage.plane.report())
        totals.take(stage.plane.report(full=True))
        done = number + 1 - len(asked)
        assert served(totals, known) == (done, done), "each request is counted once, whatever its pool was called"
        sums = totals.sums(known)
        series = len(sums.targets) + len(sums.pools)
        assert done >= before
        before = done
    assert series <= 10, sorted(sums.targets) + sorted(sums.pools)
    if what == "pools":
        mine = sum(tally.requests for (name, _), tally in sums.pools.items() if name == "app")
        assert mine == done, "the sum of a service that lives never goes backwards"
        assert ("app", "removed") in sums.pools
    assert len(stage.plane.stats.pool_tallies()) <= 8
    for name, size in growing(stage.plane).items():
        assert size <= 8, name
    assert sum(tally.in_flight for tally in sums.targets.values()) == len(asked)
    for client, upstream in asked:
        upstream.data_received(OK)  # type: ignore[attr-defined]
        assert client.status == 200
    totals.take(stage.plane.report())
    assert served(totals, known) == (50, 50), "also of those that ended after their pool was gone"
    assert sum(tally.in_flight for tally in totals.sums(known).targets.values()) == 0


def test_a_worker_that_dies_brings_no_pool_back() -> None:
    """It had not heard of the reload, or was killed before it told what it had folded."""
    totals = Totals()
    for number in range(50):
        stage = Stage()
        stage.plane.incarnation = number + 1
        old = world("app", (f"v{number}",), 2)
        apply(stage, old)
        stage.ask(GET)
        stage.accept()[0].data_received(OK)
        totals.take(stage.plane.report(full=True))
        new = world("app", (f"v{number + 1}",), 3)
        totals.forget(ids(new))
        totals.gone(number + 1)
        gone = totals.gone_sums()
        assert len(gone.targets) + len(gone.pools) <= 6, "not in memory either"
        assert served(totals, ids(new)) == (number + 1, number + 1)
    heir = Totals()
    heir.inherit(totals.gone_sums())
    assert served(heir, ids(new)) == (50, 50)


def test_a_pool_that_comes_back_counts_on_where_it_is_told() -> None:
    stage, totals = Stage(), Totals()
    for number, name in enumerate(("v1", "v2", "v1", "v2", "v1")):
        snapshot = world("app", (name,), number + 2)
        apply(stage, snapshot)
        totals.forget(ids(snapshot))
        stage.ask(GET)
        stage.loop.turn()
        stage.accept()[0].data_received(OK)
        totals.take(stage.plane.report())
        assert served(totals, ids(snapshot)) == (number + 1, number + 1)
    assert totals.sums(ids(snapshot)).pools["app", "v1"].requests == 1


def test_what_becomes_of_a_removed_pools_count_is_no_traffic() -> None:
    """Its counts come to those of all removed pools in one moment: the service's rate must not jump."""
    stage, totals, rates = Stage(), Totals(), Rates()
    first, second = world("app", ("v1", "v2"), 2), world("app", ("v2",), 3)
    apply(stage, first)
    for _ in range(20):
        stage.ask(GET)
        if stage.connector.opening:
            upstream, _ = stage.accept()
        upstream.data_received(OK)
    totals.take(stage.plane.report())
    rates.sample(totals.sums(ids(first)), 100.0)
    apply(stage, second)
    totals.take(stage.plane.report())
    rates.sample(totals.sums(ids(second)), 101.0)
    assert rates.of_service("app").requests == 0


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("app", "v2"), ("app", "v2")),
        (("app", "v1"), ("app", "removed")),
        (("app", "removed"), ("app", "removed")),
        (("app", "none"), ("app", "none")),
        (("none", "none"), ("none", "none")),
        (("gone", "v2"), ("removed", "removed")),
        (("gone", "none"), ("removed", "removed")),
        (("removed", "removed"), ("removed", "removed")),
    ],
)
def test_where_a_place_is_counted(place: tuple[str, str], expected: tuple[str, str]) -> None:
    found = counted_under(*place, {"app": ["v2"]})
    assert found == expected
    assert counted_under(*found, {"app": ["v2"]}) == found


def test_retries_and_copies_of_services_that_are_gone_are_dropped() -> None:
    totals = Totals()
    stage = Stage()
    report = stage.plane.report()
    report.retries, report.mirrored = {"old": {"reset": 3}, "s": {"reset": 1}}, {"old": {"sent": 2}}
    totals.take(report)
    sums = totals.sums({"s/blue/h:1"})
    assert (sums.retries, sums.mirrored) == ({"s": {"reset": 1}}, {})
    assert Counter(report.retries["old"]) == {"reset": 3}
