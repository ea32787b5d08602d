"""Which services a new configuration would leave without a target that can serve. Pure.

A switch, a drain and a weight are refused when no target would be left to serve. An edit of the file can do the same to
a service: another `active`, a pool that is gone, weight 0. So a reload asks here before it changes anything.

- A service counts if a target that can serve gets its requests now, in a pool with a share of them or in the fallback.
  At a start there is none, so nothing is refused then.
- Previews do not count: the requests they choose are a tester's.
- `panic: spread` does not help: it sends requests to targets that said they cannot serve.
- A target that was never probed cannot serve, as at a switch. Where all targets of a pool with traffic are replaced,
  `after` has the old ones that serve until a new one can (`core.handover`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lb.core.desired import Desired
from lb.core.lifecycle import Health
from lb.core.renames import Place, Renames
from lb.core.rotation import ServiceRules, can_serve, given_shares, least_able, resolve, shortfall, why_not
from lb.core.targets import Rotation, Service


@dataclass(frozen=True, slots=True)
class Situation:
    """The settings that decide which targets can serve. A target without a health was never probed."""

    services: tuple[Service, ...]
    healths: Mapping[str, Health]
    desired: Desired
    rules: Mapping[str, ServiceRules]


@dataclass(frozen=True, slots=True)
class CutOff:
    """A service that is served now, and would not be."""

    service: str
    text: str
    reasons: tuple[tuple[str, str], ...]  # (target id, why it cannot serve)


def cut_off(before: Situation, after: Situation, renames: Renames, now: float) -> tuple[CutOff, ...]:
    """The services that are served `before` and would not be `after`."""
    old = {service.name: service for service in before.services}
    cut_offs = []
    for service in after.services:
        former = old.get(renames.services.get(service.name, service.name))
        serving = _serving(former, before, before.healths, now) if former is not None else frozenset()
        if not serving:
            continue
        if not _serving(service, after, after.healths, now):
            cut_offs.append(_described(service, after, sorted(pool for _, pool in serving), now))
    return tuple(cut_offs)


def described(cut_offs: tuple[CutOff, ...]) -> str:
    """All of it in one text."""
    return "; ".join(each.text for each in cut_offs)


def _serving(service: Service, situation: Situation, healths: Mapping[str, Health], now: float) -> frozenset[Place]:
    """The pools of the service of which a target that can serve gets requests."""
    rotation = _rotation(service, situation, healths, now)
    given = given_shares(rotation)
    members = {pool: dict(weights) for pool, weights in rotation.weights}
    overrides = situation.desired.targets
    return frozenset(
        (service.name, pool.name)
        for pool in service.pools
        if given.get(pool.name)
        and any(can_serve(target, healths, overrides) for target in pool.targets if target.id in members[pool.name])
    )


def _rotation(service: Service, situation: Situation, healths: Mapping[str, Health], now: float) -> Rotation:
    desired, rules = situation.desired, situation.rules[service.name]
    return resolve(service, healths, desired.services[service.name], desired.targets, rules, now, version=0)


def _described(service: Service, after: Situation, serving: list[str], now: float) -> CutOff:
    healths, overrides = after.healths, after.desired.targets
    panic = after.rules[service.name].panic
    rotation = _rotation(service, after, healths, now)
    wanted = {*given_shares(rotation), rotation.fallback}
    pools = [pool for pool in service.pools if pool.name in wanted]
    why = ", and ".join(
        shortfall(pool, healths, overrides, least_able(pool, healths, overrides, panic)) for pool in pools
    )
    text = (
        f"{service.name} is served by {' and '.join(serving)} now; with this file "
        f"{' or '.join(pool.name for pool in pools)} serves it, but {why}: its clients would get 503"
    )
    targets = [target for pool in pools for target in pool.targets]
    reasons = ((target.id, why_not(target, healths, overrides, now)) for target in targets)
    return CutOff(service.name, text, tuple((id, reason) for id, reason in reasons if reason))
