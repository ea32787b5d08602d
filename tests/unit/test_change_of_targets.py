"""A worker takes changed targets without a snapshot: new ones, ones with other settings, and ones that are gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lb.core.rotation_change import rotation_change
from lb.core.targets import Breaker, Pool, Rotation, RotationChange, Target, Targets, TlsClient
from tests.support.data_plane import GET, OK, Stage

OLD, NEW = "s/blue/h:1", "s/blue/h:7"
ADDED = Target(NEW, "s", "blue", "192.0.2.7", 7)


def change(stage: Stage, *changed: Target, removed: tuple[str, ...] = (), ready: str = "") -> None:
    """Changed targets; with `ready` the targets of blue that are in rotation from now on."""
    stage.version += 1
    weights = (("blue", tuple((id, 1.0) for id in ready.split())),)
    rotations = (Rotation("s", stage.version, (("blue", 100),), weights),) if ready else ()
    stage.plane.change(Targets(stage.version, changed, removed, rotations))


def test_a_new_target_gets_no_request_before_a_rotation_says_so() -> None:
    stage = Stage(targets=1)
    change(stage, ADDED)
    assert stage.plane.applied == stage.version
    pool = stage.plane.services["s"].pools["blue"]
    assert list(pool.lanes) == [OLD, NEW] and [lane.id for lane in pool.members] == [OLD]
    change(stage, ready=f"{OLD} {NEW}")
    assert [lane.id for lane in pool.members] == [OLD, NEW]


def differing(stage: Stage, ready: str, draining: tuple[str, ...] = ()) -> RotationChange:
    """What makes the targets of `ready` the ones of blue."""
    known = stage.plane.services["s"].rotation
    assert known is not None
    stage.version += 1
    weights = [(name, tuple((id, 1.0) for id in ready.split()) if name == "blue" else of) for name, of in known.weights]
    change = rotation_change(known, replace(known, version=stage.version, weights=tuple(weights), draining=draining))
    assert change is not None
    return change


def test_a_rotation_is_told_by_what_differs() -> None:
    stage = Stage(targets=3)
    blue = stage.plane.services["s"].pools["blue"]
    one, two, three = (lane.id for lane in blue.members)
    stage.plane.change_rotation(out := differing(stage, f"{one} {three}", draining=(two,)))
    assert [lane.id for lane in blue.members] == [one, three] and stage.plane.applied == stage.version
    assert stage.plane.lanes[two].draining
    stage.plane.change_rotation(back := differing(stage, f"{one} {two} {three}"))
    assert [lane.id for lane in blue.members] == [one, two, three] and not stage.plane.lanes[two].draining
    for repeated in (out, back):
        stage.plane.change_rotation(repeated)
        assert [lane.id for lane in blue.members] == [one, two, three] and stage.plane.applied == stage.version


def test_a_target_comes_with_what_differs_in_the_rotation() -> None:
    stage = Stage(targets=3)
    ready = " ".join(lane.id for lane in stage.plane.services["s"].pools["blue"].members)
    rotation = differing(stage, f"{ready} {NEW}")
    stage.plane.change(Targets(rotation.version, (ADDED,), rotation_changes=(rotation,)))
    assert [lane.id for lane in stage.plane.services["s"].pools["blue"].members][-1] == NEW
    assert stage.plane.applied == rotation.version


def test_what_differs_from_another_rotation_is_refused() -> None:
    """Unless it is known already that a snapshot is missing: then one follows."""
    stage = Stage(targets=3)
    first, _, third = (lane.id for lane in stage.plane.services["s"].pools["blue"].members)
    lost = differing(stage, f"{first} {third}")
    change = replace(lost, base=lost.version, version=lost.version + 1)
    before = stage.plane.applied
    with pytest.raises(ValueError, match="has not the rotation"):
        stage.plane.change_rotation(change)
    assert stage.plane.applied == before
    stage.plane.behind = change.version
    stage.plane.change_rotation(change)
    assert stage.plane.applied == before and len(stage.plane.services["s"].pools["blue"].members) == 3


def test_a_request_on_a_target_that_is_gone_ends_there_and_no_other_begins() -> None:
    stage = Stage(targets=1)
    client, exchange = stage.ask(GET)
    upstream, wire = stage.accept()
    change(stage, ADDED, removed=(OLD,), ready=NEW)
    later, other = stage.ask(GET)
    assert other.lane is stage.plane.lanes[NEW]
    upstream.data_received(OK)
    assert client.status == 200 and wire.closed, "the connection is not kept"
    assert exchange.lane is None or exchange.lane.id == OLD
    stage.accept()[0].data_received(OK)
    assert later.status == 200 and stage.at_rest()
    stage.plane.end_drains(stage.plane.context.now, [], [])
    assert [tally.target for tally in stage.plane.report(full=True).targets] == ["s/green/h:1", NEW, "s/blue/removed"]


def test_a_request_that_waits_goes_to_the_target_that_came() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1))
    stage.ask(GET)
    stage.accept()
    client, _ = stage.ask(GET)
    assert stage.plane.services["s"].waiting
    change(stage, ADDED, removed=(OLD,), ready=NEW)
    stage.accept()[0].data_received(OK)
    assert client.status == 200


def test_what_a_target_that_is_gone_had_under_way_is_cut_when_its_drain_is_over() -> None:
    stage = Stage(targets=1)
    client, _ = stage.ask(GET)
    stage.plane.clients.add(client)  # type: ignore[arg-type]
    stage.accept()
    change(stage, ADDED, removed=(OLD,), ready=NEW)
    stage.plane.end_drains(stage.plane.context.now + 29.0, [], [])
    assert not client.got
    stage.plane.end_drains(stage.plane.context.now + 31.0, [], [])
    assert client.status == 503


def test_other_tls_settings_are_for_new_connections() -> None:
    stage = Stage(targets=1)
    client, _ = stage.ask(GET)
    upstream, wire = stage.accept()
    upstream.data_received(OK)
    lane = stage.plane.lanes[OLD]
    change(stage, replace(lane.target, tls=TlsClient(verify=False)))
    assert stage.plane.lanes[OLD] is lane and lane.target.tls is not None
    assert wire.closed and client.status == 200


def test_a_snapshot_after_changes_keeps_the_lanes_of_what_has_another_name() -> None:
    stage = Stage(targets=1)
    change(stage, ADDED, removed=(OLD,), ready=NEW)
    lane = stage.plane.lanes[NEW]
    rules = stage.snapshot.services[0]
    moved = replace(rules.pools[0], name="teal", targets=(replace(ADDED, id="s/teal/h:7", pool="teal"),))
    stage.plane.apply(replace(stage.snapshot, version=99, services=(replace(rules, pools=(moved, rules.pools[1])),)))
    assert stage.plane.lanes["s/teal/h:7"] is lane


def test_targets_of_a_pool_that_is_not_there_are_passed_over() -> None:
    stage = Stage(targets=1)
    change(
        stage, replace(ADDED, id="s/red/h:7", pool="red"), replace(ADDED, id="t/a/h:7", service="t"), removed=("x/y/z",)
    )
    assert stage.plane.applied == stage.version and len(stage.plane.lanes) == 2


def test_a_target_that_is_gone_leaves_also_where_half_a_snapshot_has_moved_it() -> None:
    stage = Stage(targets=1)
    client, _ = stage.ask(GET)
    upstream, wire = stage.accept()
    upstream.data_received(OK)
    rules = stage.snapshot.services[0]
    moved = replace(rules.pools[0], name="teal", targets=(Target("s/teal/h:1", "s", "teal", "h", 1),))
    half = replace(rules, pools=(moved, Pool("red", (Target("s/red/no:1", "s", "red", "no", 1, addresses=("no",)),))))
    with pytest.raises(ValueError, match="no"):
        stage.plane.apply(replace(stage.snapshot, version=99, services=(half,)))
    assert stage.plane.lanes[OLD].target.pool == "teal"
    change(stage, removed=(OLD,))
    assert OLD not in stage.plane.lanes and wire.closed and client.status == 200


def test_a_worker_that_is_behind_confirms_no_change() -> None:
    stage = Stage(targets=1)
    before = stage.plane.applied
    stage.plane.behind = stage.version
    change(stage, ADDED)
    assert stage.plane.applied == before
