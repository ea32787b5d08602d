"""A pool whose targets are all replaced: which old ones go on serving, and until when."""

from __future__ import annotations

from dataclasses import replace

from msgspec.structs import replace as changed

from lb.config.load import load_text
from lb.config.resolve import resolve as resolve_file
from lb.core.checks import Checks
from lb.core.desired import TargetDesired
from lb.core.handover import LONGEST, Handover, handed_over, successors, why_over, with_names
from lb.core.lifecycle import Health, SlowStart
from lb.core.renames import NONE, Place, Renames, layout_of, renames
from lb.core.rotation import Panic, ServiceRules, in_panic, least_able, resolve, strength
from lb.core.targets import Pool, Service, Snapshot, Target
from lb.supervisor.handovers import with_replaced
from tests.support.healths import BLUE, READY, STARTING, UNREADY

ACTIVE = {("app", "blue")}


def service(name: str = "app", **pools: str) -> Service:
    """`blue="a b"`: a pool of two targets."""
    return Service(
        name,
        tuple(
            Pool(pool, tuple(Target(f"{name}/{pool}/{host}:1", name, pool, host, 1) for host in hosts.split()))
            for pool, hosts in pools.items()
        ),
    )


def begun(
    old: Service,
    new: Service,
    under_way: dict[Place, Handover] | None = None,
    *,
    busy: set[Place] = ACTIVE,
    unable: str = "",
    names: Renames | None = None,
    now: float = 10.0,
) -> dict[Place, Handover]:
    names = renames(layout_of([old]), layout_of([new])) if names is None else names
    return handed_over([old], [new], names, busy, lambda t: t.host not in unable.split(), under_way or {}, now)


def served(new: Service, found: dict[Place, Handover]) -> Service:
    """The service with the replaced targets beside those of the file."""
    targets = {target.id: target for pool in new.pools for target in pool.targets}
    world = replace(
        resolve_file(load_text("backends: [h:1]"), 0),
        snapshot=Snapshot(0, services=(new,)),
        checks=dict.fromkeys(targets, Checks()),
        targets=targets,
    )
    olds = {old for handover in found.values() for old in handover.replaced}
    whole = with_replaced(world, found, dict.fromkeys(olds, Checks()))
    [service] = whole.snapshot.services
    assert set(whole.checks) == set(whole.targets) == {each.id for pool in service.pools for each in pool.targets}
    return service


def hosts(found: dict[Place, Handover]) -> dict[str, str]:
    return {pool: " ".join(target.host for target in each.targets) for (_, pool), each in found.items()}


def test_replaced_targets_that_can_serve_go_on() -> None:
    old = service(blue="a b c", green="d")
    found = begun(old, service(blue="x y", green="d"), unable="b")
    assert hosts(found) == {"blue": "a c"}
    assert found["app", "blue"].until == 10.0 + LONGEST
    whole = served(service(blue="x y", green="d"), found)
    blue, green = whole.pools
    assert [target.host for target in blue.targets] == ["x", "y", "a", "c"]
    assert (blue.replaced, green.replaced) == (("app/blue/a:1", "app/blue/c:1"), ())


def test_nothing_is_kept_where_nothing_is_missing() -> None:
    old = service(blue="a b", green="c")
    assert not begun(old, service(blue="a x", green="c")), "one of them stays"
    assert not begun(old, service(blue="x", green="c"), busy={("app", "green")}), "it has no traffic"
    assert not begun(old, service(blue="a b")), "a pool that is gone has no traffic any more"
    assert not begun(old, service(blue="x", green="c"), unable="a b"), "none of them can serve"


def test_targets_that_move_are_not_replaced() -> None:
    old = service(blue="a", green="c")
    assert not begun(old, service(blue="c", green="a")), "two pools that are swapped: the new target serves at once"
    assert not begun(old, service(blue="c", green="a"), unable="c"), "a has another place in the file"
    assert not begun(old, service(blue="c", green="c")), "what stands in two pools is known in both"
    assert hosts(begun(old, service(blue="c", green="c"), unable="c")) == {"blue": "a"}


def test_a_handover_goes_on_over_further_reloads() -> None:
    first = begun(service(blue="a b"), service(blue="x y"))
    between = served(service(blue="x y"), first)
    again = begun(between, service(blue="x y z"), first, now=20.0)
    assert hosts(again) == {"blue": "a b"}
    assert again["app", "blue"].since == 10.0
    anew = begun(between, service(blue="z"), first, unable="x y", now=20.0)
    assert hosts(anew) == {"blue": "a b"}, "replaced once more: those that never served are no help"
    assert anew["app", "blue"].since == 20.0
    assert hosts(begun(between, service(blue="a x"), first)) == {"blue": "b"}, "taken back for one of them"
    assert not begun(between, service(blue="a b"), first), "taken back"
    assert not begun(between, service(green="x y"), first, names=NONE), "the pool is gone"


def test_a_handover_follows_another_name() -> None:
    first = begun(service(blue="a"), service(blue="x"))
    between = served(service(blue="x"), first)
    names = renames(layout_of([service(blue="x")]), layout_of([service(teal="x")]))
    found = begun(between, service(teal="x"), first, busy={("app", "teal")}, names=names)
    assert [target.id for target in found["app", "teal"].targets] == ["app/teal/a:1"]
    assert with_names(names, found).targets["app/teal/a:1"] == ("app/blue/a:1",)
    assert with_names(names, first) is names


def handing_over(old: str, new: str) -> Pool:
    found = begun(service(blue=old), service(blue=new))
    return served(service(blue=new), found).pools[0]


def healths(**known: Health) -> dict[str, Health]:
    return {f"app/blue/{host}:1": health for host, health in known.items()}


def test_it_is_over_when_enough_of_the_new_targets_can_serve() -> None:
    pool = handing_over("a b", "x y")
    both = {"a": READY, "b": READY}
    assert successors(pool, healths(**both, x=STARTING, y=STARTING), {}, Panic(), 10.0) == []
    assert successors(pool, healths(**both, x=STARTING, y=READY), {}, Panic(), 10.0) == ["app/blue/y:1"]
    half = Panic(0.6)
    assert successors(pool, healths(**both, x=STARTING, y=READY), {}, half, 10.0) == []
    assert len(successors(pool, healths(**both, x=READY, y=READY), {}, half, 10.0)) == 2
    nothing = {"app/blue/y:1": TargetDesired(weight=0)}
    assert successors(pool, healths(**both, x=STARTING, y=READY), nothing, Panic(), 10.0) == []


def test_a_slow_start_comes_to_its_end_beside_the_old_targets() -> None:
    pool = handing_over("a", "x")
    cold = changed(READY, rotation_since=5.0, warm_at=15.0)
    assert successors(pool, healths(a=READY, x=cold), {}, Panic(), 10.0) == []
    assert successors(pool, healths(a=READY, x=cold), {}, Panic(), 15.0) == ["app/blue/x:1"]
    assert successors(pool, healths(a=UNREADY, x=cold), {}, Panic(), 10.0) == ["app/blue/x:1"], "nobody to wait beside"
    rules = ServiceRules(slow_start=SlowStart(10.0))
    rotation = resolve(Service("app", (pool,)), healths(a=READY, x=cold), BLUE, {}, rules, 10.0, 1)
    assert dict(dict(rotation.weights)["blue"]) == {"app/blue/a:1": 1.0, "app/blue/x:1": 0.5}


def test_new_targets_do_not_bring_their_pool_into_panic() -> None:
    pool = handing_over("a", "x y")
    half = Panic(0.6)
    known = healths(a=READY, x=STARTING, y=STARTING)
    assert not in_panic(pool, known, {}, half)
    assert strength(pool, known, {}) == (1, 3)
    assert least_able(pool, known, {}, half) == 1
    assert in_panic(pool, healths(a=UNREADY, x=READY, y=STARTING), {}, half)
    assert not in_panic(pool, healths(a=UNREADY, x=READY, y=READY), {}, half)


def test_it_ends_after_a_while_in_any_case_and_says_so() -> None:
    handover = begun(service(blue="a"), service(blue="x"))["app", "blue"]
    assert why_over(handover, [], 10.0 + LONGEST - 1) == ""
    assert why_over(handover, ["app/blue/x:1"], 12.0).startswith("app/blue/x:1 can serve after 2.0 s")
    assert why_over(handover, [], 10.0 + LONGEST).startswith("no new target can serve after 10 min: the replaced")


def test_a_pool_that_waits_for_its_source_goes_on_when_that_has_named_targets() -> None:
    """A reload gave the pool a source instead of its targets; the source answers later, by no reload."""
    old, empty, found = service(blue="a b"), service(blue=""), service(blue="x y")
    waiting = begun(old, empty)
    assert hosts(waiting) == {"blue": "a b"}
    after = begun(served(empty, waiting), found, waiting, busy=set(), now=20.0)
    assert hosts(after) == {"blue": "a b"}
    assert after["app", "blue"].until == 10.0 + LONGEST
    assert begun(found, service(blue="z"), {}, busy=set()) == {}
