"""The pools and targets that get the requests of one service, and their shares: health, operators' wishes and rules
made one value.

`resolve` is called whenever one of its inputs changed, and while a slow start is under way (`next_change` says when).
Its result is whole state, so that a lost or repeated one harms nothing.

A target's weight is the operator's (or the file's) × its slow start × the share it asked for × the relief it has while
overloaded. A target whose weight comes to 0 is left out.

Panic: when fewer than `threshold` of a pool's targets are in rotation, the pool's `choice` applies. The default is
threshold 0 and "fail": the ready targets serve as long as there is one, and then clients get 503 with Retry-After. The
reason is the product's promise, that traffic only ever reaches a target that is ready; Envoy's default (50 %, all of
them) sends requests to targets that said they cannot serve. "spread" uses every target of the pool that was ready at
least once and is not draining; none that never passed a check. "fallback" hands over to another pool.

During a rollout a pool without any target loses its share to the other pools: a weighted service must skip a dead child
(traefik#7693).

`can_serve` is the one predicate that gates, drains, ejections, rollbacks, explain, status, /readyz and metrics share. A
ready target of weight 0 takes no request, so it replaces no other target. HAProxy and proxysql count such a target as
up, and so let the last one that serves be taken out. Slow start plays no part in it, as a ramp never comes to nothing
(`LEAST_SHARE`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal

from msgspec.structs import replace as changed

from lb.core.checks import CheckSpec
from lb.core.desired import ServiceDesired, TargetDesired
from lb.core.lifecycle import Damping, Ejection, Health, Rules, SlowStart, in_rotation, ramp, shown
from lb.core.outlier import Outlier
from lb.core.targets import Mirror, Pool, Rotation, Service, Target

#: Share of its weight that slow start leaves to a target: with `floor: 0%` it would be ready at first and get nothing.
LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Panic:
    """A pool's behaviour with too few targets in rotation."""

    threshold: float = 0.0  # share of the pool's targets; 0: only when none is left
    choice: Literal["fail", "spread", "fallback"] = "fail"


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """The rules of one service's health; `rules_of` makes each target's `Rules` from it."""

    slow_start: SlowStart = field(default_factory=SlowStart)
    damping: Damping = field(default_factory=Damping)
    ejection: Ejection = field(default_factory=Ejection)
    outlier: Outlier = field(default_factory=Outlier)
    panic: Panic = Panic()
    fallback: str = ""  # the pool that serves when the chosen one has no target to offer
    patience: float = 15.0  # seconds that failures in doubt go uncounted at one stretch


def rules_of(service: ServiceRules, readiness: CheckSpec) -> Rules:
    """The rules of a target that is checked by `readiness`."""
    return Rules(
        probed=readiness.protocol != "none",
        rise=readiness.rise,
        fall=readiness.fall,
        grace=readiness.grace,
        slow_start=service.slow_start,
        damping=service.damping,
        ejection=service.ejection,
        patience=service.patience,
    )


#: Members by id, each with the health and the target that it follows from: of thousands most stay as they are.
KnownMembers = dict[str, tuple[Health, Target, tuple[str, float]]]


def resolve(
    service: Service,
    healths: Mapping[str, Health],
    desired: ServiceDesired,
    overrides: Mapping[str, TargetDesired],
    rules: ServiceRules,
    now: float,
    version: int,
    mirror: Mirror | None = None,
    known: KnownMembers | None = None,
) -> Rotation:
    """The rotation of `service` at `now`; targets without a `Health` are taken as never checked. What is `known` of its
    members from before is looked up, and noted, there."""
    weights: list[tuple[str, tuple[tuple[str, float], ...]]] = []
    draining: list[str] = []
    for pool in service.pools:
        members, leaving = _members(pool, healths, overrides, rules, now, {} if known is None else known)
        weights.append((pool.name, members))
        draining.extend(leaving)
    shares = desired.shares or ((desired.active, 100),)
    return Rotation(
        service=service.name,
        version=version,
        shares=living_shares(shares, {name for name, members in weights if members}),
        weights=tuple(weights),
        fallback=rules.fallback,
        draining=tuple(draining),
        mirror=mirror,
        sharing=tuple(name for name, parts in shares if parts > 0),
    )


def in_panic(pool: Pool, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired], panic: Panic) -> bool:
    """Whether fewer than the threshold of the pool's targets are in rotation. Draining ones are not counted at all."""
    if pool.replaced and not in_panic(without_replaced(pool), healths, overrides, panic):
        return False
    if not panic.threshold:  # the usual case, without a look at each target
        return not any(can_serve(target, healths, overrides) for target in pool.targets)
    counted = list(_counted(pool, healths, overrides))
    ready = sum(1 for target in counted if can_serve(target, healths, overrides))
    return not ready or ready / len(counted) < panic.threshold


# --- targets that can serve ------------------------------------------------------------------------------------------


def can_serve(target: Target, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired]) -> bool:
    """Whether `target` takes a request that its pool is given: in rotation, not leaving, and its weight above 0."""
    health = healths.get(target.id)
    if health is None or not in_rotation(health) or _leaving(target, healths, overrides):
        return False
    return _base_weight(target, overrides) * health.weight * health.relief > 0


def meant_to_serve(target: Target, overrides: Mapping[str, TargetDesired]) -> bool:
    """Whether the file and the operators give `target` a weight above 0; a quorum counts no other targets."""
    return _base_weight(target, overrides) > 0


def why_not(target: Target, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired], now: float) -> str:
    """Why `target` cannot serve, for people; empty: it can."""
    if can_serve(target, healths, overrides):
        return ""
    health = healths.get(target.id)
    if health is None:
        return "starting: not probed yet"
    if not in_rotation(health):
        return f"{shown(health, now)}: {health.text}"
    override = overrides.get(target.id)
    if override is not None and override.draining:
        return "draining: drained by an operator"
    if override is not None and override.weight == 0:
        return "its weight is 0: set by an operator"
    return "its weight is 0: so says the file" if not target.weight else "it asks for a weight of 0 itself"


def strength(pool: Pool, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired]) -> tuple[int, int]:
    """(targets that can serve, targets that are meant to)."""
    able = sum(1 for target in pool.targets if can_serve(target, healths, overrides))
    return able, sum(1 for target in pool.targets if meant_to_serve(target, overrides))


def without_replaced(pool: Pool) -> Pool:
    """The pool as the file has it."""
    in_file = tuple(target for target in pool.targets if target.id not in pool.replaced)
    return replace(pool, targets=in_file, replaced=())


def shortfall(pool: Pool, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired], needed: int) -> str:
    """That fewer than `needed` targets of the pool can serve, for people; empty: enough can."""
    able, meant = strength(pool, healths, overrides)
    if able >= needed:
        return ""
    if not pool.targets:
        return f"no target of {pool.name} has been found yet"
    if not meant:
        return f"all targets of {pool.name} have weight 0: none takes a request"
    return f"{able} of {meant} targets of {pool.name} are ready, {needed} are needed"


def least_able(
    pool: Pool,
    healths: Mapping[str, Health],
    overrides: Mapping[str, TargetDesired],
    panic: Panic,
    without: str = "",
) -> int:
    """Targets of the pool that must be able to serve before any of them gets a request. It is one, or as many as keep
    it out of panic. `without` names a target that is about to leave."""
    if panic.choice == "spread":
        return 1
    counted = sum(1 for target in _counted(pool, healths, overrides) if target.id != without)
    return max(1, ceil(round(panic.threshold * counted, 9)))


def stops(
    pool: Pool,
    healths: Mapping[str, Health],
    before: Mapping[str, TargetDesired],
    after: Mapping[str, TargetDesired],
    panic: Panic,
) -> bool:
    """Whether other wishes for its targets keep a pool from offering the targets that can serve: more are counted
    then."""
    if panic.choice == "spread" or in_panic(pool, healths, before, panic):
        return False
    return in_panic(pool, undrained(healths, after), after, panic)


def undrained(healths: Mapping[str, Health], wished: Mapping[str, TargetDesired]) -> Mapping[str, Health]:
    """The healths once drains have ended that these wishes no longer ask for. `wished` may leave targets out."""
    ended = [id for id, wish in wished.items() if not wish.draining and id in healths]
    return {**healths, **{id: changed(healths[id], admin="normal") for id in ended}}


def bears_on_rotation(old: Health, new: Health) -> bool:
    """Whether a change of a target's health may change its service's rotation.

    A target that is out of rotation has a part in it as well. A pool in panic may use it, and a target that asks to be
    drained no longer counts towards `threshold`.
    """
    return (
        in_rotation(old) != in_rotation(new)
        or (old.admin != "normal" or old.asks_drain) != (new.admin != "normal" or new.asks_drain)
        or old.weight * old.relief != new.weight * new.relief
        or old.ever_ready != new.ever_ready
    )


def given_shares(rotation: Rotation) -> dict[str, int]:
    """Pool → parts of 100 of the requests that it is given now. A pool without a target to offer hands its parts to the
    fallback while the fallback has one. Otherwise the parts stay with it, and are answered with 503."""
    able = {pool for pool, members in rotation.weights if members}
    parts: dict[str, int] = {}
    for pool, share in rotation.shares:
        taker = rotation.fallback if pool not in able and rotation.fallback in able else pool
        parts[taker] = parts.get(taker, 0) + share
    return parts


def is_served(rotation: Rotation) -> bool:
    """Whether any request gets to a target, of a pool with a share or of the fallback."""
    able = {pool for pool, members in rotation.weights if members}
    return any(share and pool in able for pool, share in given_shares(rotation).items())


def living_shares(shares: tuple[tuple[str, int], ...], living: set[str]) -> tuple[tuple[str, int], ...]:
    """The parts of 100, in which pools without a target give theirs to the other pools, in proportion. The sum is still
    100."""
    kept = [(pool, parts) for pool, parts in shares if pool in living and parts > 0]
    total = sum(parts for _, parts in kept)
    if not kept:
        return tuple(shares)
    if total == 100:
        return tuple(kept)
    exact = [parts * 100 / total for _, parts in kept]
    whole = [int(part) for part in exact]
    for index in sorted(range(len(kept)), key=lambda i: (whole[i] - exact[i], i))[: 100 - sum(whole)]:
        whole[index] += 1
    return tuple((pool, parts) for (pool, _), parts in zip(kept, whole, strict=True))


def next_change(healths: Mapping[str, Health], service: Service, rules: ServiceRules, now: float) -> float | None:
    """Seconds until the rotation is to be resolved again because of slow starts; None: no need.

    HAProxy's pace: a twentieth of the window, and at least a second, or the rest of it.
    """
    window = rules.slow_start.window
    if window <= 0:
        return None
    ends = [
        health.warm_at - now
        for pool in service.pools
        for target in pool.targets
        if (health := healths.get(target.id)) is not None and health.warm_at > now and in_rotation(health)
    ]
    return min(max(window / 20, 1.0), *ends) if ends else None


def _counted(pool: Pool, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired]) -> Iterator[Target]:
    """The targets of which a share must be ready: none that is meant to take nothing or is leaving. While the pool is
    handed over, a new target counts once it can serve: the replaced targets do its work until then."""
    for target in pool.targets:
        waits = bool(pool.replaced) and target.id not in pool.replaced and not can_serve(target, healths, overrides)
        if not waits and meant_to_serve(target, overrides) and not _leaving(target, healths, overrides):
            yield target


def _members(
    pool: Pool,
    healths: Mapping[str, Health],
    overrides: Mapping[str, TargetDesired],
    rules: ServiceRules,
    now: float,
    known: KnownMembers,
) -> tuple[tuple[tuple[str, float], ...], list[str]]:
    """The targets of a pool that get requests, with their weights, and the targets that are leaving.

    It looks at each of what may be ten thousand targets, so it calls nothing for one that is plainly in rotation."""
    panic = in_panic(pool, healths, overrides, rules.panic)
    serves = not panic or rules.panic.choice == "spread"
    members: list[tuple[str, float]] = []
    leaving: list[str] = []
    health_of, known_of = healths.get, known.get
    for target in pool.targets:
        id = target.id
        health, override = health_of(id), overrides.get(id) if overrides else None
        before = known_of(id)
        if before is not None and before[0] is health and before[1] is target and serves and override is None:
            members.append(before[2])
            continue
        if (override is not None and override.draining) or (
            health is not None and (health.admin != "normal" or health.asks_drain)
        ):
            leaving.append(id)
            continue
        if health is None or not serves:
            continue
        if health.probe == "ready" and not health.ejected_until:
            share = 1.0 if now >= health.warm_at else max(LEAST_SHARE, ramp(health, now, rules.slow_start))
            share *= health.weight * health.relief
        elif panic and health.ever_ready:
            share = 1.0 if health.weight else 0.0  # it asked for nothing before it failed
        else:
            continue
        weight = (target.weight if override is None else _base_weight(target, overrides)) * share
        if weight > 0:
            member = (id, weight)
            members.append(member)
            if override is None and health.probe == "ready" and not health.ejected_until and now >= health.warm_at:
                known[id] = health, target, member
    return tuple(members), leaving


def _base_weight(target: Target, overrides: Mapping[str, TargetDesired]) -> int:
    override = overrides.get(target.id)
    return target.weight if override is None or override.weight is None else override.weight


def _leaving(target: Target, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired]) -> bool:
    override = overrides.get(target.id)
    if override is not None and override.draining:
        return True
    health = healths.get(target.id)
    return health is not None and (health.admin != "normal" or health.asks_drain)
