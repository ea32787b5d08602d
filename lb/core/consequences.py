"""The effects of an order, one after the other: values for programs, each with a sentence for people. Pure.

Orders on one target are judged by two rotations of its service: the one now, and the one with the order in force.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from lb.core.rotation import given_shares
from lb.core.targets import Rotation, Target

Kind = Literal[
    "unchanged",  # the order changes nothing
    "hook",  # a hook is run first
    "share",  # a pool, or a target, gets another share of the requests, `old` → `new` per cent
    "compared",  # a pool's answers are compared with another pool's
    "watched",  # a pool is watched for a time
    "ended",  # a release ends
    "finishing",  # requests under way there may finish; `old`: how many, of a target
    "instead",  # the targets, or the pools, that get the requests of a target or pool that has left
    "unserved",  # clients get 503
    "short",  # fewer targets than wanted can serve
    "returning",  # a target gets requests again
    "waiting",  # a target gets requests once it can serve
    "configured",  # the file's value counts again
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequence:
    """One thing that an order would do; empty: does not apply."""

    kind: Kind
    text: str
    service: str = ""
    pool: str = ""
    target: str = ""  # its id
    field: str = ""  # the changed value: share, weight, in_flight, tunnels
    old: str = ""
    new: str = ""


def of_target(kind: Kind, target: Target, text: str, *, field: str = "", old: str = "", new: str = "") -> Consequence:
    """Something that an order does to a target."""
    return Consequence(
        kind=kind,
        text=text,
        service=target.service,
        pool=target.pool,
        target=target.id,
        field=field,
        old=old,
        new=new,
    )


def without_it(target: Target, now: Rotation, then: Rotation, able: Collection[str]) -> tuple[Consequence, ...]:
    """Which targets or pools get the requests of a target that is taken out; nothing where it gets none.

    `able`: the ids of the pool's targets that can serve.
    """
    before, after = _members(now, target.pool), _members(then, target.pool)
    if not before.get(target.id):
        return ()
    if after and not any(id in able for id in after):  # the pool is in panic, and set to `spread`
        rest = f"{len(after)} targets get" if len(after) > 1 else f"{next(iter(after))} gets"
        text = f"no other target of {target.pool} is ready: by `panic: spread`, {rest} its share all the same"
        return (_of_pool("short", target, text),)
    if after:
        rest = f"the other {len(after)} ready targets" if len(after) > 1 else f"{next(iter(after))} alone"
        return (_of_pool("instead", target, f"{rest} of {target.pool} get its share"),)
    why = f"{target.pool} has no other ready target"
    if len(before) > 1:
        why = f"the ready targets of {target.pool} are then fewer than `panic_threshold` asks for"
    return _of_its_pool(target, now, then, why)


def counted(target: Target, now: Rotation, then: Rotation) -> tuple[Consequence, ...]:
    """The pools that get the requests of a target's pool which offers no target any more, as that target counts again
    and cannot serve. Empty where the pool goes on, or offers no target now."""
    if not _members(now, target.pool) or _members(then, target.pool):
        return ()
    why = f"as long as {target.id} cannot serve, too few targets of {target.pool} are ready for `panic_threshold`"
    return _of_its_pool(target, now, then, why)


def _of_its_pool(target: Target, now: Rotation, then: Rotation, why: str) -> tuple[Consequence, ...]:
    if not given_shares(now).get(target.pool):
        return ()
    takers = [pool for pool, parts in given_shares(then).items() if parts and _members(then, pool)]
    if takers:
        return (_of_pool("instead", target, f"{why}: {' and '.join(takers)} get its share"),)
    return (_of_pool("unserved", target, f"{why}: its clients get 503"),)


def _of_pool(kind: Kind, target: Target, text: str) -> Consequence:
    return Consequence(kind=kind, text=text, service=target.service, pool=target.pool)


def _members(rotation: Rotation, pool: str) -> dict[str, float]:
    return dict(dict(rotation.weights).get(pool, ()))
