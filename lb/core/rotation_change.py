"""The difference between two rotations of one service, and a rotation with such a difference. Pure.

One target of ten thousand becomes ready. Its pool's members are half a megabyte for each worker, the difference is a
hundred bytes. A difference names the members by their places, as the order of members is part of a rotation.

A difference is not whole state: it fits one base, which it names. It is safe as the channel to a worker keeps messages
in order and loses none while it lasts, and a channel that is begun anew, like a worker that is, begins with a snapshot.
A repeated difference is older than what is in force by then, and is passed over. One with another base is refused: that
worker is behind, and gets a whole snapshot, as after any message that it could not install.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from lb.core.common_ends import common_ends
from lb.core.targets import MembersChange, Rotation, RotationChange, Weighted


def rotation_change(before: Rotation | None, after: Rotation, suspects: Collection[str] = ()) -> RotationChange | None:
    """The change from one rotation to a newer one; None: the whole rotation takes hardly more. `suspects`: ids of the
    members that are most likely all that differ."""
    if before is None or [name for name, _ in before.weights] != [name for name, _ in after.weights]:
        return None
    pools: list[MembersChange] = []
    for (name, old), (_, new) in zip(before.weights, after.weights, strict=True):
        if old == new:
            continue
        change = _of_suspects(name, old, new, suspects) if suspects else None
        if change is None or _members(old, change) != new:
            change = _change(name, old, new)
            if 2 * (len(change.left) + len(change.placed)) > len(new) or _members(old, change) != new:
                return None  # most of it, or the order, is another one
        pools.append(change)
    return RotationChange(
        service=after.service,
        version=after.version,
        base=before.version,
        shares=after.shares,
        pools=tuple(pools),
        fallback=after.fallback,
        draining=after.draining,
        mirror=after.mirror,
        sharing=after.sharing,
    )


def _change(pool: str, old: Weighted, new: Weighted) -> MembersChange:
    start, end = common_ends(old, new)  # most members are alike, and need no look-up
    former, latter = dict(old[start : len(old) - end]), dict(new[start : len(new) - end])
    left = tuple([id for id in former if id not in latter])
    placed = [(place, *each) for place, each in enumerate(latter.items(), start) if former.get(each[0]) != each[1]]
    return MembersChange(pool, left, tuple(placed))


def _of_suspects(pool: str, old: Weighted, new: Weighted, suspects: Collection[str]) -> MembersChange:
    """The change, if no member but these is another one. To be proved."""
    placed = [(place, id, weight) for place, (id, weight) in enumerate(new) if id in suspects]
    stay = {id for _, id, _ in placed}
    return MembersChange(pool, tuple([id for id, _ in old if id in suspects and id not in stay]), tuple(placed))


def with_rotation_change(rotation: Rotation, change: RotationChange) -> Rotation:
    """The rotation with a change that is based on it."""
    changed = {each.pool: each for each in change.pools}
    weights = [
        (name, _members(members, changed[name]) if name in changed else members) for name, members in rotation.weights
    ]
    return replace(
        rotation,
        version=change.version,
        shares=change.shares,
        weights=tuple(weights),
        fallback=change.fallback,
        draining=change.draining,
        mirror=change.mirror,
        sharing=change.sharing,
    )


def _members(members: Weighted, change: MembersChange) -> Weighted:
    """The members of a pool with a change: what is to stay, and between it the placed ones, the first place first."""
    moved = {*change.left, *[id for _, id, _ in change.placed]}
    found = [member for member in members if member[0] not in moved]
    for place, id, weight in change.placed:
        found.insert(place, (id, weight))
    return tuple(found)
