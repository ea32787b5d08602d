"""Rotation: who gets how much, panic, fallback, drains, and shares of dead pools."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lb.core.checks import CheckSpec
from lb.core.desired import TargetDesired
from lb.core.lifecycle import SlowStart
from lb.core.rotation import (
    Panic,
    ServiceRules,
    bears_on_rotation,
    can_serve,
    given_shares,
    in_panic,
    is_served,
    least_able,
    living_shares,
    next_change,
    resolve,
    rules_of,
    stops,
    strength,
    why_not,
)
from lb.core.targets import Mirror, Pool, Service, Target
from tests.support.healths import BLUE, DRAINING, EJECTED, READY, STARTING, UNREADY


def pool(name: str, *weights: int) -> Pool:
    return Pool(name, tuple(Target(f"app/{name}/t{i}:1", "app", name, f"t{i}", 1, w) for i, w in enumerate(weights)))


SERVICE = Service("app", (pool("blue", 1, 2, 1), pool("green", 1)))
BLUES = [target.id for target in SERVICE.pools[0].targets]
GREENS = [target.id for target in SERVICE.pools[1].targets]


def rotation(healths, rules=None, desired=BLUE, overrides=None, now=10.0, **more):
    return resolve(SERVICE, healths, desired, overrides or {}, rules or ServiceRules(), now, 7, **more)


def members(rotation, name="blue"):
    return dict(dict(rotation.weights)[name])


def test_only_ready_targets_rotate():
    found = rotation(dict(zip(BLUES, (READY, UNREADY, STARTING), strict=True)))
    assert (found.service, found.version, found.shares) == ("app", 7, (("blue", 100),))
    assert members(found) == {BLUES[0]: 1.0}
    assert members(found, "green") == {}  # nobody looked at it yet


def test_pools_that_are_not_active_are_resolved_as_well():
    """A preview, a fallback and a switch need them."""
    assert members(rotation({GREENS[0]: READY}), "green") == {GREENS[0]: 1.0}


def test_weights_multiply():
    slow = ServiceRules(slow_start=SlowStart(20.0))
    health = replace(READY, weight=0.5, relief=0.5, rotation_since=0.0, warm_at=20.0)
    found = rotation({BLUES[1]: health}, slow, overrides={BLUES[1]: TargetDesired(weight=8)})
    assert members(found) == {BLUES[1]: 8 * 0.5 * 0.5 * 0.5}


def test_weight_nought_is_left_out():
    asks_for_none = replace(READY, weight=0.0)
    found = rotation({BLUES[0]: READY, BLUES[1]: asks_for_none, BLUES[2]: READY},
                     overrides={BLUES[0]: TargetDesired(weight=0)})  # fmt: skip
    assert members(found) == {BLUES[2]: 1.0}


UNABLE = {
    "no health": (None, None, 1, "starting: not probed yet"),
    "unready": (UNREADY, None, 1, "unready: HTTP 200"),
    "ejected": (EJECTED, None, 1, "ejected: HTTP 200"),
    "drained by an operator": (READY, TargetDesired(draining=True), 1, "draining: drained by an operator"),
    "asks to be drained": (replace(READY, asks_drain=True), None, 1, "draining: HTTP 200"),
    "weight 0 of the file": (READY, None, 0, "its weight is 0: so says the file"),
    "weight 0 of an operator": (READY, TargetDesired(weight=0), 3, "its weight is 0: set by an operator"),
    "weight 0 of its answer": (replace(READY, weight=0.0), None, 1, "it asks for a weight of 0 itself"),
}


@pytest.mark.parametrize("case", UNABLE)
def test_who_cannot_serve_and_why(case):
    """[proxysql 4384, Kong 9065] A target of weight 0 counts as up there."""
    health, override, weight, why = UNABLE[case]
    one = Target("app/blue/a:1", "app", "blue", "a", 1, weight)
    healths = {one.id: health} if health else {}
    overrides = {one.id: override} if override else {}
    assert not can_serve(one, healths, overrides)
    assert why_not(one, healths, overrides, 10.0) == why
    other = Target("app/blue/b:1", "app", "blue", "b", 1)
    healths[other.id] = READY
    blue = Pool("blue", (one, other))
    assert why_not(other, healths, overrides, 10.0) == ""
    meant = 1 if case in ("weight 0 of the file", "weight 0 of an operator") else 2
    assert strength(blue, healths, overrides) == (1, meant)
    found = resolve(Service("app", (blue,)), healths, BLUE, overrides, ServiceRules(), 10.0, 1)
    assert members(found) == {other.id: 1.0}, "who cannot serve is in no rotation"


def test_an_operators_weight_wins_over_the_files_nought():
    one = Target("app/blue/a:1", "app", "blue", "a", 1, 0)
    assert can_serve(one, {one.id: READY}, {one.id: TargetDesired(weight=2)})


def test_a_slow_start_from_nothing_is_no_weight_of_nothing():
    """The only target of a pool begins its ramp: it serves from the first moment on, whatever the floor."""
    rules = ServiceRules(slow_start=SlowStart(20.0, floor=0.0))
    found = rotation({BLUES[0]: replace(READY, rotation_since=10.0, warm_at=30.0)}, rules)
    assert members(found)[BLUES[0]] > 0


def test_the_fallback_has_the_parts_of_pools_that_cannot_serve():
    rules = ServiceRules(fallback="green")
    found = rotation({GREENS[0]: READY}, rules)
    assert (given_shares(found), is_served(found)) == ({"green": 100}, True)
    found = rotation({GREENS[0]: READY, BLUES[0]: READY}, rules)
    assert (given_shares(found), is_served(found)) == ({"blue": 100}, True)
    found = rotation({}, rules)
    assert (given_shares(found), is_served(found)) == ({"blue": 100}, False)
    found = rotation({GREENS[0]: READY})
    assert (given_shares(found), is_served(found)) == ({"blue": 100}, False), "a standby pool serves nobody"


def test_panic_does_not_count_on_who_asks_for_nothing():
    asks_for_none = replace(READY, weight=0.0)
    blue = pool("blue", 1, 1)
    ids = [target.id for target in blue.targets]
    assert in_panic(blue, {ids[0]: READY, ids[1]: asks_for_none}, {}, Panic(0.6))
    assert in_panic(blue, dict.fromkeys(ids, asks_for_none), {}, Panic())


def test_draining_by_health_by_wish_and_by_its_own_word():
    asks = replace(READY, asks_drain=True)
    found = rotation({BLUES[0]: DRAINING, BLUES[1]: READY, BLUES[2]: asks, GREENS[0]: READY},
                     overrides={BLUES[1]: TargetDesired(draining=True)})  # fmt: skip
    assert members(found) == {}
    assert found.draining == tuple(BLUES)


def test_mirror_and_fallback_are_passed_on():
    mirror = Mirror("green", 10.0)
    found = rotation({}, ServiceRules(fallback="green"), mirror=mirror)
    assert (found.mirror, found.fallback) == (mirror, "green")


# --- panic -----------------------------------------------------------------------------------------------------------

ONE_LEFT = dict(zip(BLUES, (READY, UNREADY, EJECTED), strict=True))
NONE_LEFT = dict(zip(BLUES, (UNREADY, EJECTED, STARTING), strict=True))


def test_by_default_those_that_are_left_serve_and_then_nobody():
    assert members(rotation(ONE_LEFT)) == {BLUES[0]: 1.0}
    assert members(rotation(NONE_LEFT)) == {}


def test_spread_uses_all_that_ever_passed():
    rules = ServiceRules(panic=Panic(0.5, "spread"))
    assert members(rotation(ONE_LEFT, rules)) == {BLUES[0]: 1.0, BLUES[1]: 2.0, BLUES[2]: 1.0}
    assert members(rotation(NONE_LEFT, rules)) == {BLUES[0]: 1.0, BLUES[1]: 2.0}  # none that never passed
    drained = {**ONE_LEFT, BLUES[1]: replace(UNREADY, admin="draining")}
    assert BLUES[1] not in members(rotation(drained, rules))
    silent = {**ONE_LEFT, BLUES[1]: replace(UNREADY, weight=0.0)}  # asked for nothing before it failed
    assert BLUES[1] not in members(rotation(silent, rules))


def test_fail_and_fallback_give_the_pool_up():
    for choice in ("fail", "fallback"):
        rules = ServiceRules(panic=Panic(0.5, choice), fallback="green")
        assert members(rotation(ONE_LEFT, rules)) == {}
        two = {**ONE_LEFT, BLUES[1]: READY}
        assert members(rotation(two, rules)) == {BLUES[0]: 1.0, BLUES[1]: 2.0}


@given(st.lists(st.sampled_from([READY, UNREADY, STARTING, EJECTED]), min_size=1, max_size=20), st.floats(0, 1))
def test_panic_is_envoys_share_of_available(states, threshold):
    """Envoy: panic when available < threshold; 0 % switches it off, and then nobody is left to serve only at none."""
    blue = pool("blue", *[1] * len(states))
    healths = {target.id: state for target, state in zip(blue.targets, states, strict=True)}
    available = states.count(READY)
    expected = available == 0 or available / len(states) < threshold
    assert in_panic(blue, healths, {}, Panic(threshold)) == expected


def test_draining_targets_do_not_count_towards_panic():
    blue = pool("blue", 1, 1, 1, 1)
    ids = [target.id for target in blue.targets]
    healths = dict(zip(ids, (READY, DRAINING, DRAINING, DRAINING), strict=True))
    assert not in_panic(blue, healths, {}, Panic(0.5))
    assert not in_panic(blue, dict.fromkeys(ids, READY), {i: TargetDesired(draining=True) for i in ids[1:]}, Panic(0.5))


KINDS = [
    replace(health, asks_drain=asks, weight=weight)
    for health in (READY, UNREADY, STARTING, EJECTED, DRAINING)
    for asks in (False, True)
    for weight in (1.0, 0.5, 0.0)
]


@pytest.mark.parametrize("choice", ["fail", "spread"])
def test_what_does_not_bear_on_a_rotation_leaves_it_as_it_is(choice):
    """A target that asks to be drained while it is ejected no longer counts: the pool may be out of panic by that."""
    rules = ServiceRules(panic=Panic(0.5, choice))
    silent = 0
    for old, new in itertools.product(KINDS, KINDS):
        others = {BLUES[0]: READY, BLUES[2]: EJECTED}
        before, after = (rotation({**others, BLUES[1]: health}, rules) for health in (old, new))
        if not bears_on_rotation(old, new):
            assert before == after
            silent += 1
    assert silent > len(KINDS)


@pytest.mark.parametrize(
    ("panic", "ready", "stopped"),
    [
        (Panic(0.6), 1, True),  # 1 of 2
        (Panic(0.5), 1, False),
        (Panic(0.6), 2, False),  # 2 of 3
        (Panic(0.6), 0, False),  # nobody got a request before
        (Panic(0.6, "spread"), 1, False),
        (Panic(), 1, False),
    ],
)
def test_a_target_that_counts_again_may_bring_its_pool_into_panic(panic, ready, stopped):
    blue = pool("blue", *[1] * ready, 0)
    ids = [target.id for target in blue.targets]
    healths = {**dict.fromkeys(ids, READY), ids[-1]: UNREADY}
    assert stops(blue, healths, {}, {ids[-1]: TargetDesired(weight=1)}, panic) == stopped


@pytest.mark.parametrize(("panic", "stopped"), [(Panic(0.6), True), (Panic(0.5), False), (Panic(0.6, "spread"), False)])
@pytest.mark.parametrize("admin", ["draining", "drained"])
def test_the_end_of_a_drain_may_bring_its_pool_into_panic(admin, panic, stopped):
    blue = pool("blue", 1, 1)
    able, id = (target.id for target in blue.targets)
    before, after = {id: TargetDesired(draining=True)}, {id: TargetDesired()}
    drained = replace(UNREADY, admin=admin)
    assert stops(blue, {able: READY, id: drained}, before, after, panic) == stopped
    assert not stops(blue, {able: READY, id: replace(READY, admin=admin)}, before, after, panic)


# --- shares ----------------------------------------------------------------------------------------------------------


def test_a_dead_pools_share_goes_to_the_living():
    """Traefik #7693: a weighted service answers 503 for its dead half."""
    desired = dataclasses.replace(BLUE, shares=(("blue", 95), ("green", 5)))
    assert rotation({BLUES[0]: READY}, desired=desired).shares == (("blue", 100),)
    assert rotation({GREENS[0]: READY}, desired=desired).shares == (("green", 100),)
    assert rotation({BLUES[0]: READY, GREENS[0]: READY}, desired=desired).shares == desired.shares
    assert rotation({}, desired=desired).shares == desired.shares  # all dead: nothing to give to


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(sum), st.sets(st.integers(0, 4)))
def test_living_shares_sum_to_a_hundred_and_keep_proportions(raw, dead):
    total = sum(raw)
    parts = [part * 100 // total for part in raw]
    parts[0] += 100 - sum(parts)
    shares = tuple((f"p{i}", part) for i, part in enumerate(parts))
    living = {name for i, (name, part) in enumerate(shares) if i not in dead}
    found = living_shares(shares, living)
    assert sum(part for _, part in found) == 100
    left = sum(part for name, part in shares if name in living)
    if left:
        for name, part in found:
            assert name in living
            assert abs(part - dict(shares)[name] * 100 / left) < 1


# --- when to look again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "now", "expected"), [(60.0, 0.0, 3.0), (10.0, 0.0, 1.0), (60.0, 59.5, 0.5)])
def test_slow_starts_are_resolved_again_at_haproxys_pace(window, now, expected):
    rules = ServiceRules(slow_start=SlowStart(window))
    healths = {BLUES[0]: replace(READY, rotation_since=0.0, warm_at=window)}
    assert next_change(healths, SERVICE, rules, now) == expected
    assert next_change(healths, SERVICE, rules, window) is None
    assert next_change({BLUES[0]: READY}, SERVICE, rules, now) is None


def test_rules_of_a_target():
    rules = rules_of(ServiceRules(patience=3.0), CheckSpec(protocol="none", rise=4, fall=5, grace=6.0))
    assert (rules.probed, rules.rise, rules.fall, rules.grace, rules.patience) == (False, 4, 5, 6.0, 3.0)


@pytest.mark.parametrize(
    ("panic", "without", "needed"),
    [
        (Panic(), "", 1),
        (Panic(0.5), "", 2),  # of three; with one able target nobody would get a request
        (Panic(0.5), BLUES[0], 1),  # of the two that stay
        (Panic(1.0), "", 3),
        (Panic(0.5, "spread"), "", 1),
        (Panic(0.5, "fallback"), "", 2),
    ],
)
def test_as_many_must_be_able_as_keep_a_pool_out_of_panic(panic, without, needed):
    healths = dict.fromkeys(BLUES, READY)
    assert least_able(SERVICE.pools[0], healths, {}, panic, without) == needed


WISHES = st.dictionaries(
    st.sampled_from(BLUES), st.builds(TargetDesired, weight=st.none() | st.integers(0, 3), draining=st.booleans())
)
HEALTHS = st.sampled_from(
    [READY, UNREADY, STARTING, EJECTED, DRAINING, replace(READY, weight=0.5), replace(READY, warm_at=12.0)]
)


@given(st.lists(st.tuples(st.lists(HEALTHS, min_size=3, max_size=3), WISHES, st.integers(0, 3)), max_size=8))
def test_what_is_known_of_members_changes_no_rotation(turns):
    known = {}
    rules = ServiceRules(slow_start=SlowStart(window=10.0), panic=Panic(0.5, "spread"))
    for healths, wishes, seconds in turns:
        of = dict(zip(BLUES, healths, strict=True))
        now = 10.0 + seconds
        assert rotation(of, rules, overrides=wishes, now=now, known=known) == rotation(
            of, rules, overrides=wishes, now=now
        )
