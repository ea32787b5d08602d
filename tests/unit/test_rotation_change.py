"""Differences of rotations: applied to their base they are the whole, and a change of something else is refused."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lb.core.rotation_change import rotation_change, with_rotation_change
from lb.core.targets import Rotation, RotationChange

WEIGHTS = st.sampled_from([0.5, 1.0, 2.0])
MEMBERS = st.dictionaries(st.integers(0, 12), WEIGHTS)


def rotation(version: int, *pools: dict[int, float], fallback: str = "") -> Rotation:
    weights = tuple(
        (f"p{number}", tuple((f"s/p{number}/t{at}:1", weight) for at, weight in members.items()))
        for number, members in enumerate(pools)
    )
    return Rotation("s", version, (("p0", 100),), weights, fallback)


@st.composite
def histories(draw: st.DrawFn) -> list[Rotation]:
    """Rotations of which each mostly has a few other members than the one before, in any order at times."""
    pools = [draw(MEMBERS), draw(MEMBERS)]
    found = [rotation(1, *pools)]
    for version in range(2, draw(st.integers(3, 8))):
        for number, members in enumerate(pools):
            changed = draw(st.dictionaries(st.integers(0, 12), st.one_of(st.none(), WEIGHTS), max_size=3))
            merged = {at: weight for at, weight in {**members, **changed}.items() if weight is not None}
            pools[number] = merged if draw(st.integers(0, 9)) == 0 else dict(sorted(merged.items()))
        found.append(rotation(version, *pools, fallback=draw(st.sampled_from(["", "p1"]))))
    return found


@given(histories(), st.sets(st.integers(0, 12).map(lambda at: f"s/p0/t{at}:1")))
def test_changes_of_any_history_lead_to_what_is_resolved(history: list[Rotation], suspects: set[str]) -> None:
    known = history[0]
    for before, after in pairwise(history):
        change = rotation_change(before, after, suspects)
        if change is not None:
            wire = msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=RotationChange)
            known = with_rotation_change(known, wire)
        else:
            known = after
        assert known == after


def test_one_of_many_is_told_alone() -> None:
    members = dict.fromkeys(range(1000), 1.0)
    before, lacks = rotation(1, members), {at: weight for at, weight in members.items() if at != 500}
    gone = rotation_change(before, rotation(2, lacks))
    assert gone is not None and gone.pools[0].left == ("s/p0/t500:1",) and not gone.pools[0].placed
    back = rotation_change(rotation(2, lacks), rotation(3, members))
    assert back is not None and back.pools[0].placed == ((500, "s/p0/t500:1", 1.0),) and not back.pools[0].left
    weighed = rotation_change(before, rotation(2, {**members, 7: 0.5}))
    assert weighed is not None and weighed.pools[0].placed == ((7, "s/p0/t7:1", 0.5),)


def test_what_is_mostly_another_one_is_told_whole() -> None:
    before = rotation(1, {1: 1.0, 2: 1.0, 3: 1.0})
    assert rotation_change(None, before) is None
    assert rotation_change(before, rotation(2, {4: 1.0, 5: 1.0, 6: 1.0})) is None
    assert rotation_change(before, rotation(2, {3: 1.0, 1: 1.0, 2: 1.0})) is None, "the order is a part of it"
    assert rotation_change(before, rotation(2, {1: 1.0, 2: 1.0, 3: 1.0}, {1: 1.0})) is None, "another pool"
