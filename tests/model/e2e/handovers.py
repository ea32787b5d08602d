"""Pools whose targets a reload has replaced all at once: the old ones serve until a new one can.

Which of them go on, and until when, is the reference's as far as it is sure: a pool that surely had traffic, and a
target that surely could serve, make a handover; while no new target may serve it goes on, and once enough of them
surely serve it ends. In between lb is asked which targets are replaced (`status` says it).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.model import reference
from tests.model.clock import CLOCK
from tests.model.plan import Plan, ServicePlan, TargetPlan
from tests.model.steps_reload import former_name

if TYPE_CHECKING:
    from tests.model.e2e.world import RealWorld

#: Seconds after lb has said that a handover is over within which every worker knows it.
TOLD = 1.0
#: Seconds after the slow start of the new targets within which lb lets the old ones go.
LET_GO = 1.5

Place = tuple[str, str]  # service and pool
Services = dict[str, reference.Service]
Replaced = dict[Place, tuple[list[TargetPlan], float]]


@dataclass
class Former:
    """The replaced targets of one pool."""

    targets: list[TargetPlan]
    able: frozenset[str]  # addresses of those that surely could serve
    sure: bool  # it goes on for sure until it may be over
    window: float  # seconds of the longest slow start that was in the file meanwhile
    may_be_over: bool = False  # a new target may have been able to serve
    enough: float | None = None  # since when new ones are surely enough
    over: float | None = None  # when lb said so


@dataclass
class Handovers:
    """Those under way, in one of the states of what is wished."""

    under_way: dict[Place, Former] = field(default_factory=dict)

    def views(self) -> Iterator[Replaced]:
        """Every set of replaced targets that may serve."""
        places = [
            [(place, True)] if each.sure and not each.may_be_over and each.over is None
            else [(place, True), (place, False)]
            for place, each in self.under_way.items()
        ]  # fmt: skip
        for way in itertools.product(*places):
            yield {place: (self.under_way[place].targets, 0.0) for place, on in way if on}

    def see(self, services: Services) -> None:
        """Look at the new targets."""
        for (service, pool), each in self.under_way.items():
            fresh = [target for target in services[service].pools[pool] if not target.replaced]
            if any(target.ready is not False and target.weight > 0 and not target.out for target in fresh):
                each.may_be_over = True
            if not services[service].enough(fresh):
                each.enough = None
            elif each.enough is None:
                each.enough = CLOCK.now

    def doubt(self) -> None:
        """What could serve as a reload was asked for may not have been able to as lb took it."""
        for each in self.under_way.values():
            if each.able:  # lb has not said yet who serves on
                each.able, each.sure = frozenset(), False

    def forget(self) -> None:
        """Leave out those that every worker knows to be over."""
        now = CLOCK.now
        self.under_way = {p: each for p, each in self.under_way.items() if each.over is None or now < each.over + TOLD}

    def addresses(self) -> dict[str, TargetPlan]:
        return {target.address: target for each in self.under_way.values() for target in each.targets}


def begun(world: RealWorld, plan: Plan) -> Handovers:
    """The handovers that are under way once a plan is the file."""
    before = world.wished
    found = Handovers()
    known = {target.address for old in before.plan.services.values() for pool in old.pools.values() for target in pool}
    known |= set(before.handovers.addresses())
    for name, service in plan.services.items():
        old = before.plan.services.get(name)
        if old is None:
            continue
        for pool, targets in service.pools.items():
            was = pool if pool in old.pools else former_name(old, service, targets)
            if not was:
                continue
            earlier = before.handovers.under_way.get((name, was))
            members = [*old.pools[was], *(earlier.targets if earlier is not None else ())]
            addresses = {target.address for target in targets}
            window = max(service.seconds("slow_start", "window"), earlier.window if earlier is not None else 0.0)
            if addresses.isdisjoint(target.address for target in members):
                able, unable = _able(world, name, was)
                kept = [target for target in members if target.address not in unable]
                sure = (
                    bool(able) and addresses.isdisjoint(known) and _has_traffic(before.shares[name], old, service, was)
                )
                if kept:
                    found.under_way[name, pool] = Former(kept, able, sure, window)
            elif earlier is not None:
                left = [target for target in earlier.targets if target.address not in addresses]
                if left:
                    found.under_way[name, pool] = replace(earlier, targets=left, window=window)
    return found


def _able(world: RealWorld, service: str, pool: str) -> tuple[frozenset[str], frozenset[str]]:
    """The targets of a pool that can serve for sure, and those that cannot for sure."""
    every = [services[service].pools[pool] for services in world.possible()]
    known = {target.address for targets in every for target in targets}
    able = [{target.address for target in targets if target.can_serve} for targets in every]
    perhaps = {
        target.address
        for targets in every
        for target in targets
        if target.ready is not False and target.weight > 0 and not target.out
    }
    return frozenset(known.intersection(*able)), frozenset(known - perhaps)


def _has_traffic(options: list[dict[str, int]], old: ServicePlan, new: ServicePlan, pool: str) -> bool:
    """Whether a pool surely has a share of its service's requests, or is the fallback, and goes on having it."""
    if not stays(old, new):
        return False
    fallbacks = {each.settings.get("fallback", "") for each in (old, new)}
    return fallbacks == {pool} or all(shares.get(pool) for shares in options)


def stays(old: ServicePlan, new: ServicePlan) -> bool:
    """Whether an edit leaves alone which pools share the traffic."""
    return list(old.pools) == list(new.pools) and old.active == new.active


def hear(world: RealWorld, view: Any, due: set[Place]) -> None:
    """Hold what lb says of a service's replaced targets against the reference. `due`: handovers that had to be over
    before it was asked."""
    name = view["name"]
    under_way = world.wished.handovers.under_way
    for pool in view["pools"]:
        place = (name, pool["name"])
        said = {target["id"].rpartition("/")[2] for target in pool["targets"] if target["replaced"]}
        former = under_way.get(place)
        if former is None or former.over is not None:
            if said:
                world.violate("3 handed over", f"{place}: {said} serve in the place of targets that need no help")
        elif not said:
            if former.sure and not former.may_be_over:
                new_ones = world.services()[name].pools[pool["name"]]
                world.violate("3 handed over", f"{place}: no replaced target serves, nor can a new one: {new_ones}")
            former.over = CLOCK.now
        else:
            if place in due:
                world.violate("3 handed over", f"{place}: {said} serve on, though enough new targets can serve")
            if not former.able <= said:
                world.violate("3 handed over", f"{place}: only {said} serve on, though {set(former.able)} could")
            former.targets = [target for target in former.targets if target.address in said]
            former.able, former.sure = frozenset(), True


def due(world: RealWorld, name: str) -> set[Place]:
    """The handovers of a service that have to be over."""
    return {
        place
        for place, each in world.wished.handovers.under_way.items()
        if place[0] == name and each.enough is not None and CLOCK.now > each.enough + each.window + LET_GO
    }
