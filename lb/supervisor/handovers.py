"""Pools whose targets a reload has replaced all at once: the old ones serve until the new ones can.

The decisions are in `core.handover`. Here the decisions become a part of the world that is probed and served;
`Installation` puts that world in force.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from lb.config.resolve import Endpoint, World
from lb.config.tls_values import digests
from lb.core.checks import Checks
from lb.core.desired import Desired
from lb.core.explain import span
from lb.core.handover import LONGEST, Handover, handed_over, successors, why_over, with_names
from lb.core.renames import Place, Renames
from lb.core.targets import Target
from lb.health.monitor import Monitor
from lb.supervisor.desired import DesiredState
from lb.supervisor.events import Events
from lb.supervisor.rotations import Rotations
from lb.supervisor.state import State


class Handovers:
    """The handovers of one supervisor."""

    def __init__(
        self, state: State, desired: DesiredState, rotations: Rotations, monitor: Monitor, events: Events
    ) -> None:
        self._state = state
        self._desired = desired
        self._rotations = rotations
        self._monitor = monitor
        self._events = events
        self.under_way: Mapping[Place, Handover] = {}
        self._begun: list[Place] = []  # by the newest reload

    def foresee(
        self, world: World, names: Renames, desired: Desired, under_way: Mapping[Place, Handover], begin: bool = True
    ) -> tuple[World, Renames, Mapping[Place, Handover]]:
        """The result of a file's world. It has the world with the replaced targets that go on serving, its new names,
        and the handovers that would be under way then.

        `desired`: which pools would have traffic. `under_way`: the handovers that may go on. `begin`: whether
        others may begin. Targets that a source no longer names are held or given up by its own rules.
        """
        services = world.snapshot.services
        had_traffic = self._had_traffic()
        busy = {
            (service.name, pool)
            for service in services
            for pool in _sharing(desired, service.name, world.rules[service.name].fallback)
            if begin and names.pool_was(service.name, pool) in had_traffic
        }
        before, can_serve = self._state.world, self._rotations.can_serve
        former, now = before.snapshot.services, time.monotonic()
        found = handed_over(former, services, names, busy, can_serve, under_way, now)
        if not found:
            return world, names, found
        whole = with_replaced(world, found, before.checks)
        files = {digest: before.files[digest] for digest in digests(whole) & before.files.keys()}
        return replace(whole, files={**files, **world.files}), with_names(names, found), found

    def take(self, found: Mapping[Place, Handover], names: Renames) -> None:
        """Go on with the handovers that `foresee` has found, whose world is the one in force now."""
        began, self.under_way = self.under_way, found
        self._begun = [
            place
            for place, handover in found.items()
            if (was := began.get(names.pool_was(*place))) is None or was.since != handover.since
        ]

    def _had_traffic(self) -> set[Place]:
        rotations = self._rotations.current.values()
        return {(r.service, pool) for r in rotations for pool in (*r.sharing, r.fallback) if pool}

    def until(self, target: Target) -> float:
        """When a replaced target stops serving at the latest, monotonic seconds; 0: it is not one."""
        handover = self.under_way.get((target.service, target.pool))
        return handover.until if handover is not None and target in handover.targets else 0.0

    def blocked_by(self) -> str:
        """Why this lb cannot be followed by another one now, which would not know of the replaced targets; empty: it
        can."""
        for (service, pool), handover in self.under_way.items():
            left = handover.until - time.monotonic()
            return (
                f"the new targets of {service}/{pool} are not ready yet and the replaced ones serve, "
                f"for {span(left)} at most"
            )
        return ""

    def over(self) -> dict[Place, str]:
        """The handovers whose replaced targets are needed no more, each with the reason."""
        now = time.monotonic()
        found = {place: why_over(each, self._successors(place, now), now) for place, each in self.under_way.items()}
        return {place: text for place, text in found.items() if text}

    def _successors(self, place: Place, now: float) -> list[str]:
        world = self._state.world
        pools = (pool for service in world.snapshot.services if service.name == place[0] for pool in service.pools)
        pool = next(pool for pool in pools if pool.name == place[1])
        overrides = self._desired.current.targets
        return successors(pool, self._monitor.healths, overrides, world.rules[place[0]].panic, now)

    def tell(self) -> None:
        """Emit which handovers a reload has begun."""
        for service, pool in self._begun:
            handover = self.under_way.get((service, pool))
            if handover is not None:
                number = len(handover.targets)
                olds = f"{number} old ones serve" if number > 1 else "an old one serves"
                text = f"all targets are replaced: {olds} until a new one can, for {span(LONGEST)} at most"
                self._events.emit("handover", text, f"{service}/{pool}")
        self._begun = []


def with_replaced(world: World, handovers: Mapping[Place, Handover], checks: Mapping[str, Checks]) -> World:
    """The world of a file with the replaced targets beside the new ones. `checks`: of these targets, by former id."""
    for place, handover in handovers.items():
        olds = zip(handover.targets, handover.replaced, strict=True)
        kept = [Endpoint(target, checks[old], replaced=True) for target, old in olds]
        world = world.with_endpoints(*place, (*world.endpoints(*place), *kept))
    return world


def _sharing(desired: Desired, service: str, fallback: str) -> set[str]:
    """The pools that get requests without a preview."""
    wanted = desired.services[service]
    shares = wanted.shares or ((wanted.active, 100),)
    return {*(pool for pool, parts in shares if parts > 0), fallback}
