"""Pools whose targets a reload has replaced all at once: the old ones serve until the new ones can.

What is decided is in `core.handover`. Here the decisions become a part of the world that is probed and served.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lb.config.resolve import World
from lb.config.tls_files import digests
from lb.control.operations import Refused
from lb.core.desired import Desired
from lb.core.explain import span
from lb.core.handover import LONGEST, Handover, handed_over, successors, why_over, with_names, with_replaced
from lb.core.renames import Place, Renames
from lb.core.targets import Target

if TYPE_CHECKING:
    from lb.supervisor.main import Supervisor

#: Seconds between two looks at pools that are handed over.
LOOK_EVERY = 0.25


class Handovers:
    """The handovers of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.under_way: Mapping[Place, Handover] = {}
        self._file = supervisor.state.world  # the world that follows from the file alone
        self._begun: list[Place] = []  # by the newest reload

    def take(self, world: World, names: Renames, desired: Desired) -> tuple[World, Renames]:
        """Take what the file says; returns it with the replaced targets that go on serving. `desired`: which pools have
        traffic from now on."""
        self._file = world
        began = self.under_way
        whole, names, self.under_way = self.foresee(world, names, desired)
        self._begun = [
            place
            for place, handover in self.under_way.items()
            if (was := began.get(names.pool_was(*place))) is None or was.since != handover.since
        ]
        return whole, names

    def foresee(
        self, world: World, names: Renames, desired: Desired
    ) -> tuple[World, Renames, Mapping[Place, Handover]]:
        """What `take` would return, and the handovers that would be under way."""
        supervisor = self._supervisor
        services = world.snapshot.services
        had_traffic = self._had_traffic()
        busy = {
            (service.name, pool)
            for service in services
            for pool in _sharing(desired, service.name, world.rules[service.name].fallback)
            if names.pool_was(service.name, pool) in had_traffic
        }
        before, can_serve = supervisor.state.world, supervisor.rotations.can_serve
        former, now = before.snapshot.services, time.monotonic()
        found = handed_over(former, services, names, busy, can_serve, self.under_way, now)
        if not found:
            return world, names, found
        checks, targets = dict(world.checks), dict(world.targets)
        for handover in found.values():
            for target, old in zip(handover.targets, handover.replaced, strict=True):
                checks[target.id], targets[target.id] = before.checks[old], target
        snapshot = replace(world.snapshot, services=with_replaced(services, found))
        whole = replace(world, snapshot=snapshot, checks=checks, targets=targets)
        files = {digest: before.files[digest] for digest in digests(whole) & before.files.keys()}
        return replace(whole, files={**files, **world.files}), with_names(names, found), found

    def _had_traffic(self) -> set[Place]:
        rotations = self._supervisor.rotations.current.values()
        return {(r.service, pool) for r in rotations for pool in (*r.sharing, r.fallback) if pool}

    def until(self, target: Target) -> float:
        """When a replaced target stops serving at the latest, monotonic seconds; 0: it is not one."""
        handover = self.under_way.get((target.service, target.pool))
        return handover.until if handover is not None and target in handover.targets else 0.0

    def busy(self) -> str:
        """Why this lb cannot be followed by another one now, which would not know of the replaced targets; empty: it
        can."""
        for (service, pool), handover in self.under_way.items():
            left = handover.until - time.monotonic()
            return (
                f"the new targets of {service}/{pool} are not ready yet and the replaced ones serve, "
                f"for {span(left)} at most"
            )
        return ""

    async def run(self) -> None:
        """See when handovers are over, for as long as lb runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self.end_those_over():
                with contextlib.suppress(Refused):  # it was told, and the worker is replaced
                    await self._supervisor.put_in_force()

    def end_those_over(self) -> bool:
        """Give up the replaced targets that are needed no more. True: the workers have to be told."""
        supervisor = self._supervisor
        now = time.monotonic()
        over = {place: why_over(each, self._successors(place, now), now) for place, each in self.under_way.items()}
        over = {place: text for place, text in over.items() if text}
        if not over:
            return False
        self.under_way = {place: handover for place, handover in self.under_way.items() if place not in over}
        supervisor.take(supervisor.state.config, self._file)
        supervisor.save()
        supervisor.watch_targets()
        for (service, pool), text in over.items():
            supervisor.events.emit(
                "handover", text, f"{service}/{pool}", before="replaced targets", after="new targets"
            )
        return True

    def _successors(self, place: Place, now: float) -> list[str]:
        supervisor, world = self._supervisor, self._supervisor.state.world
        pools = (pool for service in world.snapshot.services if service.name == place[0] for pool in service.pools)
        pool = next(pool for pool in pools if pool.name == place[1])
        healths, overrides = supervisor.monitor.healths, supervisor.desired.targets
        return successors(pool, healths, overrides, world.rules[place[0]].panic, now)

    def tell(self) -> None:
        """Say which handovers a reload has begun."""
        for service, pool in self._begun:
            handover = self.under_way.get((service, pool))
            if handover is not None:
                number = len(handover.targets)
                olds = f"{number} old ones serve" if number > 1 else "an old one serves"
                text = f"all targets are replaced: {olds} until a new one can, for {span(LONGEST)} at most"
                self._supervisor.events.emit("handover", text, f"{service}/{pool}")
        self._begun = []


def _sharing(desired: Desired, service: str, fallback: str) -> set[str]:
    """The pools that get requests without a preview."""
    wanted = desired.services[service]
    shares = wanted.shares or ((wanted.active, 100),)
    return {*(pool for pool, parts in shares if parts > 0), fallback}
