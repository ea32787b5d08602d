"""Who gets the requests of one service, and how much of them: health, operators' wishes and rules made one value.

`resolve` is called whenever one of its inputs changed, and while a slow start is under way (`next_change` says when).
Its result is whole state, so that a lost or repeated one harms nothing.

A target's weight is the operator's (or the file's) × its slow start × the share it asked for × the relief it has while
overloaded. One whose weight comes to nothing is left out.

Panic: when fewer than `threshold` of a pool's targets are in rotation, the pool's `choice` applies. The default is
threshold 0 and "fail": those that are ready serve as long as there is one, and then clients get 503 with Retry-After.
The reason is the product's promise, that traffic only ever reaches a target that is ready; Envoy's default (50 %, all
of them) sends requests to targets that said they cannot serve. "spread" uses every target of the pool that was ready
at least once and is not draining; none that never passed a check. "fallback" hands over to another pool.

During a rollout a pool without any target loses its share to the others: a weighted service must skip a dead child
(traefik#7693).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lb.core.checks import CheckSpec
from lb.core.desired import ServiceDesired, TargetDesired
from lb.core.lifecycle import Damping, Ejection, Health, Rules, SlowStart, in_rotation, ramp
from lb.core.outlier import Outlier
from lb.core.targets import Mirror, Pool, Rotation, Service, Target


@dataclass(frozen=True, slots=True)
class Panic:
    """What a pool does with too few targets in rotation."""

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


def resolve(
    service: Service,
    healths: Mapping[str, Health],
    desired: ServiceDesired,
    overrides: Mapping[str, TargetDesired],
    rules: ServiceRules,
    now: float,
    version: int,
    mirror: Mirror | None = None,
) -> Rotation:
    """The rotation of `service` at `now`; targets without a `Health` are taken as never checked."""
    weights: list[tuple[str, tuple[tuple[str, float], ...]]] = []
    draining: list[str] = []
    for pool in service.pools:
        weights.append((pool.name, _members(pool, healths, overrides, rules, now)))
        draining.extend(target.id for target in pool.targets if _leaving(target, healths, overrides))
    shares = desired.shares or ((desired.active, 100),)
    return Rotation(
        service=service.name,
        version=version,
        shares=living_shares(shares, {name for name, members in weights if members}),
        weights=tuple(weights),
        fallback=rules.fallback,
        draining=tuple(draining),
        mirror=mirror,
    )


def in_panic(pool: Pool, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired], panic: Panic) -> bool:
    """Whether fewer than the threshold of the pool's targets are in rotation. Draining ones are not counted at all."""
    counted = [t for t in pool.targets if _base_weight(t, overrides) > 0 and not _leaving(t, healths, overrides)]
    ready = sum(1 for target in counted if _rotates(target, healths))
    return not ready or ready / len(counted) < panic.threshold


def living_shares(shares: tuple[tuple[str, int], ...], living: set[str]) -> tuple[tuple[str, int], ...]:
    """The parts of 100 with those of pools without a target given to the others, in proportion, still 100 in sum."""
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
    ends = [
        health.warm_at - now
        for pool in service.pools
        for target in pool.targets
        if (health := healths.get(target.id)) is not None and health.warm_at > now and in_rotation(health)
    ]
    return min(max(window / 20, 1.0), *ends) if ends else None


def _members(
    pool: Pool,
    healths: Mapping[str, Health],
    overrides: Mapping[str, TargetDesired],
    rules: ServiceRules,
    now: float,
) -> tuple[tuple[str, float], ...]:
    panic = in_panic(pool, healths, overrides, rules.panic)
    if panic and rules.panic.choice != "spread":
        return ()
    members: list[tuple[str, float]] = []
    for target in pool.targets:
        health = healths.get(target.id)
        if health is None or _leaving(target, healths, overrides):
            continue
        if in_rotation(health):
            share = ramp(health, now, rules.slow_start) * health.weight * health.relief
        elif panic and health.ever_ready:
            share = 1.0
        else:
            continue
        weight = _base_weight(target, overrides) * share
        if weight > 0:
            members.append((target.id, weight))
    return tuple(members)


def _base_weight(target: Target, overrides: Mapping[str, TargetDesired]) -> int:
    override = overrides.get(target.id)
    return target.weight if override is None or override.weight is None else override.weight


def _rotates(target: Target, healths: Mapping[str, Health]) -> bool:
    health = healths.get(target.id)
    return health is not None and in_rotation(health)


def _leaving(target: Target, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired]) -> bool:
    override = overrides.get(target.id)
    if override is not None and override.draining:
        return True
    health = healths.get(target.id)
    return health is not None and (health.admin != "normal" or health.asks_drain)
