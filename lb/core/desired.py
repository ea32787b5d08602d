"""Desired state: the active pools, shares of traffic, drains and weights that operators have ordered.

The supervisor owns one `Desired`, changes it by replacing it, and persists every version before it takes effect.
Each override keeps the configured value that it replaced, so that a later edit of the file wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lb.core.renames import Renames, layout_of, renames
from lb.core.targets import Maintenance, Route, Service


@dataclass(frozen=True, slots=True)
class LastRollout:
    """How the newest rollout that is over has ended. It stays until the next one ends."""

    old: str
    new: str
    result: Literal["done", "rolled_back", "dropped"]  # dropped: a new configuration set the active pool
    reason: str
    at: float  # Unix time

    @property
    def text(self) -> str:
        """All but the time in one sentence."""
        how = {"done": "went through", "rolled_back": "was rolled back", "dropped": "was dropped"}[self.result]
        return f"{self.old} → {self.new} {how}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ServiceDesired:
    """The traffic of one service. `configured` is the file's `active:` at the time of the switch."""

    active: str
    configured: str
    previous: str = ""  # the pool that a rollback returns to; empty: none
    shares: tuple[tuple[str, int], ...] = ()  # (pool, parts of 100) during a rollout; empty: all to `active`
    since: float = 0.0  # Unix time of the last switch
    rollout: dict[str, object] | None = None  # `core.rollout` state while one is under way
    last: LastRollout | None = None  # None: no rollout has ended yet


@dataclass(frozen=True, slots=True)
class TargetDesired:
    """One target's overrides; absent from `Desired.targets` when it has none."""

    draining: bool = False
    weight: int | None = None
    configured_weight: int | None = None  # the file's weight that `weight` replaced
    returns: bool = False  # it drains because it is about to be restarted: taken back when it is there again


@dataclass(frozen=True, slots=True)
class RouteDesired:
    """A route in maintenance; absent from `Desired.routes` when it is not."""

    maintenance: Maintenance
    since: float  # Unix time
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that survives a restart. `version` grows by one with each change (If-Match, two operators)."""

    version: int = 0
    services: dict[str, ServiceDesired] = field(default_factory=dict)
    targets: dict[str, TargetDesired] = field(default_factory=dict)  # by target id
    routes: dict[str, RouteDesired] = field(default_factory=dict)  # by title
    layout: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)  # of the file: see `core.renames`


def under_configuration(
    desired: Desired, services: Iterable[Service], actives: Mapping[str, str], at: float = 0.0
) -> tuple[Desired, Renames]:
    """The wishes in line with a (new) configuration, and the renamed parts.

    `actives`: service → `active:` of the file; `at`: Unix time.
    """
    services = tuple(services)
    layout = layout_of(services)
    names = renames(desired.layout, layout)
    reconciled = under_names(desired, names, services, actives, at)
    return replace(reconciled, layout=layout), names


def under_routes(desired: Desired, routes: Iterable[Route]) -> Desired:
    """The wishes without those for routes that the configuration does not have."""
    titles = {route.title() for route in routes}
    if desired.routes.keys() <= titles:
        return desired
    return replace(desired, routes={title: wish for title, wish in desired.routes.items() if title in titles})


def under_names(
    desired: Desired, names: Renames, services: Iterable[Service], actives: Mapping[str, str], at: float = 0.0
) -> Desired:
    """The wishes in line with these services, where it is known what has another name."""
    services = tuple(services)
    return reconcile(
        renamed(desired, names),
        actives,
        {service.name: frozenset(pool.name for pool in service.pools) for service in services},
        {target.id: target.weight for service in services for pool in service.pools for target in pool.targets},
        at,
    )


def renamed(desired: Desired, renames: Renames) -> Desired:
    """The same wishes under the names of a new configuration; a part without a new name is left for `reconcile` to
    drop.

    A target that succeeds several is drained if one of them is: that costs an undrain, the contrary costs requests.
    """
    if not renames:
        return desired
    services = dict(desired.services)
    for name in {*desired.services, *renames.services}:
        wanted = desired.services.get(renames.services.get(name, name))
        pools = {old[1]: new[1] for new, old in renames.pools.items() if new[0] == name and old[1] != new[1]}
        if wanted is not None:
            services[name] = _with_pools(wanted, pools)
    targets = dict(desired.targets)
    for id, formers in renames.targets.items():
        wishes = [desired.targets[former] for former in formers if former in desired.targets]
        drains = [wish for wish in wishes if wish.draining]
        weighed = next((wish for wish in wishes if wish.weight is not None), TargetDesired())
        if wishes:
            targets[id] = replace(
                weighed, draining=bool(drains), returns=bool(drains) and all(wish.returns for wish in drains)
            )
    return replace(desired, services=services, targets=targets)


def _with_pools(wanted: ServiceDesired, names: Mapping[str, str]) -> ServiceDesired:
    """`wanted` with the new names of pools; `names`: old name → new one."""
    if not names:
        return wanted
    rollout = wanted.rollout
    if rollout is not None and isinstance(plan := rollout.get("plan"), dict):
        both: dict[str, Any] = {key: names.get(plan[key], plan[key]) for key in ("old", "new") if key in plan}
        rollout = {**rollout, "plan": {**plan, **both}}
    last = wanted.last
    if last is not None:
        last = replace(last, old=names.get(last.old, last.old), new=names.get(last.new, last.new))
    return replace(
        wanted,
        active=names.get(wanted.active, wanted.active),
        configured=names.get(wanted.configured, wanted.configured),
        previous=names.get(wanted.previous, wanted.previous),
        shares=tuple((names.get(pool, pool), parts) for pool, parts in wanted.shares),
        rollout=rollout,
        last=last,
    )


def reconcile(
    desired: Desired,
    actives: Mapping[str, str],
    pools: Mapping[str, frozenset[str]],
    weights: Mapping[str, int],
    at: float = 0.0,
) -> Desired:
    """Bring persisted wishes and a (new) configuration together; the version stays as it is.

    `actives`: service → `active:` of the file; `pools`: service → its pools; `weights`: target id → the file's weight;
    `at`: Unix time. A persisted switch wins over the file as long as the file says what it said when the switch was
    made. An edit of `active:` is a newer wish, and wins. The same holds for weights. A pool that the configuration no
    longer has is dropped, and a rollout with either of its pools.
    """
    services: dict[str, ServiceDesired] = {}
    for name, configured in actives.items():
        old = desired.services.get(name)
        if old is None or old.configured != configured or old.active not in pools[name]:
            previous = old.active if old is not None and old.active in pools[name] and old.active != configured else ""
            services[name] = ServiceDesired(configured, configured, previous=previous, last=_dropped(old, at))
        elif any(pool not in pools[name] for pool, _ in old.shares) or old.previous not in {"", *pools[name]}:
            services[name] = ServiceDesired(old.active, configured, since=old.since, last=_dropped(old, at))
        elif not pools[name].issuperset(_released(old)):  # a pool that later takes the name has no part in it
            services[name] = replace(old, rollout=None, last=_dropped(old, at))
        else:
            services[name] = old
    targets: dict[str, TargetDesired] = {}
    for id, override in desired.targets.items():
        if id not in weights:
            continue
        if override.weight is not None and override.configured_weight != weights[id]:
            override = replace(override, weight=None, configured_weight=None)
        if override.draining or override.weight is not None:
            targets[id] = override
    return replace(desired, services=services, targets=targets)


def _dropped(old: ServiceDesired | None, at: float) -> LastRollout | None:
    """How the last rollout has ended, of a service whose present one, if there is one, the new configuration ends."""
    if old is None or old.rollout is None or old.rollout.get("phase") not in ("stepping", "baking", "frozen"):
        return old.last if old is not None else None
    former, new = _released(old) or ("", "")
    return LastRollout(former, new, "dropped", "the new configuration decides who gets the traffic", at)


def _released(service: ServiceDesired) -> tuple[str, ...]:
    """The old and the new pool of the newest rollout; empty: there is none."""
    plan = service.rollout.get("plan") if service.rollout is not None else None
    return (str(plan.get("old")), str(plan.get("new"))) if isinstance(plan, Mapping) else ()
