"""Rotations: when health, wishes or a ramp change a service, its rotation is worked out anew and told to the workers.

So are the addresses of targets that are given by name. Changes of one turn of the loop are gathered, so that a thousand
targets that become ready at once are one message. Snapshots, rotations and targets share one growing version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from time import monotonic

from lb.core.desired import Desired, TargetDesired
from lb.core.lifecycle import Health
from lb.core.refusals import Obstacle
from lb.core.renames import Place
from lb.core.rotation import (
    KnownMembers,
    Panic,
    ServiceRules,
    can_serve,
    least_able,
    next_change,
    resolve,
    shortfall,
    stops,
    strength,
    undrained,
    why_not,
)
from lb.core.target_changes import with_addresses
from lb.core.targets import Mirror, Pool, Rotation, Service, Snapshot, Target, Targets
from lb.supervisor.confirming import confirm
from lb.supervisor.workers import Workers


class Rotations:
    """The pools and targets that get requests now, for all services."""

    def __init__(
        self,
        workers: Workers,
        healths: Mapping[str, Health],
        desired: Callable[[], Desired],
        addresses: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._workers = workers
        self._healths = healths
        self._addresses = addresses  # by target id, of targets that are given by name
        self._desired = desired
        self._services: dict[str, Service] = {}
        self._targets: dict[str, Target] = {}  # by id, as the workers were told
        self._moved: set[str] = set()  # ids of targets whose name stands for other addresses
        self._rules: Mapping[str, ServiceRules] = {}
        self._mirrors: Mapping[str, Mirror] = {}
        self._dirty: set[str] = set()
        self._flush_planned = False
        self._ramps: dict[str, asyncio.TimerHandle] = {}
        self._known: KnownMembers = {}
        self.current: dict[str, Rotation] = {}
        self.version = 0
        self._told = 0  # the newest version that workers were told

    def configure(
        self, snapshot: Snapshot, rules: Mapping[str, ServiceRules], mirrors: Mapping[str, Mirror]
    ) -> Snapshot:
        """Take a new configuration; returns its snapshot with a version, all rotations, and the addresses of names."""
        snapshot = with_addresses(snapshot, self._addresses)
        self._services = {service.name: service for service in snapshot.services}
        self._targets = {t.id: t for service in snapshot.services for pool in service.pools for t in pool.targets}
        self._moved.clear()
        self._known.clear()
        self._rules, self._mirrors = rules, mirrors
        for name in [name for name in self._ramps if name not in self._services]:
            self._ramps.pop(name).cancel()
        self.current = {name: self._resolve(name) for name in self._services}
        self._dirty.clear()
        self.version += 1
        self._told = self.version
        return replace(snapshot, version=self.version, rotations=tuple(self.current.values()))

    def change(
        self, place: Place, targets: tuple[Target, ...], changed: Collection[Target], gone: Iterable[str]
    ) -> None:
        """Some targets of a pool are new, have other settings, or are gone: tell the workers these, and the rotation.

        `targets`: all targets of the pool."""
        name, pool_name = place
        removed = tuple(gone)
        for id in removed:
            self._targets.pop(id, None)
            self._known.pop(id, None)
        self._targets |= {target.id: target for target in changed}
        if self._addresses:
            addresses = self._addresses
            targets = tuple(replace(each, addresses=addresses.get(each.id, ())) for each in targets)
        service = self._services[name]
        pools = (replace(pool, targets=targets) if pool.name == pool_name else pool for pool in service.pools)
        self._services[name] = replace(service, pools=tuple(pools))
        old, new = self.current.get(name), self._resolve(name)
        self._dirty.discard(name)
        differs = old is None or replace(old, version=new.version) != new
        if differs or removed:
            self.current[name] = new
        self.version += 1
        self._told = self.version
        rotations = (new,) if differs or removed else ()
        message = Targets(self.version, tuple(changed), removed, rotations)
        self._workers.change(message, tuple(self._services.values()))

    def next_version(self) -> int:
        """A version for a message that is told beside rotations."""
        self.version += 1
        self._told = self.version
        return self.version

    def touch(self, names: Iterable[str]) -> None:
        """Something changed for these services; it is worked out at the end of this turn of the loop."""
        self._dirty.update(name for name in names if name in self._services)
        if self._dirty:
            self._plan_flush()

    def move(self, target_id: str) -> None:
        """A target's name stands for other addresses; the workers are told at the end of this turn of the loop."""
        self._moved.add(target_id)
        self._plan_flush()

    def _plan_flush(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> int:
        """Tell the workers what has changed, now; returns the version that they serve by then."""
        self._flush_planned = False
        self._tell_addresses()  # before a rotation gives requests to a target whose address is new
        dirty, self._dirty = self._dirty, set()
        for name in dirty:
            old = self.current.get(name)
            new = self._resolve(name)
            if old is None or replace(old, version=new.version) != new:
                self.current[name] = new
                self._workers.rotate(new)
                self._told = new.version
        return self._told

    def _tell_addresses(self) -> None:
        moved, self._moved = self._moved, set()
        known = (self._targets[id] for id in moved if id in self._targets)
        changed = [replace(each, addresses=found) for each in known if (found := self._addresses.get(each.id, ()))]
        if changed:
            self._targets |= {target.id: target for target in changed}
            self.version += 1
            self._told = self.version
            self._workers.change(Targets(self.version, tuple(changed)))

    async def enforce(self, name: str) -> None:
        """Put the wishes for a service in force; returns when every worker has. Raises `Refused`."""
        self.touch((name,))
        await confirm(self._workers, self.flush())

    def _resolve(self, name: str) -> Rotation:
        service, rules, desired = self._services[name], self._rules[name], self._desired()
        now = monotonic()
        self.version += 1
        rotation = resolve(
            service,
            self._healths,
            desired.services[name],
            desired.targets,
            rules,
            now,
            self.version,
            self._mirrors.get(name),
            self._known,
        )
        pending = self._ramps.pop(name, None)
        if pending is not None:
            pending.cancel()
        again = next_change(self._healths, service, rules, now)
        if again is not None:
            self._ramps[name] = asyncio.get_running_loop().call_later(again, self.touch, (name,))
        return rotation

    # --- targets that can serve -------------------------------------------------------------------------------------

    @property
    def wishes(self) -> Mapping[str, TargetDesired]:
        """The operators' wishes, by target id; another object when one is another."""
        return self._desired().targets

    def can_serve(self, target: Target) -> bool:
        """Whether it takes a request that its pool is given."""
        return can_serve(target, self._healths, self._desired().targets)

    def strength(self, pool: Pool) -> tuple[int, int]:
        """(targets that can serve, targets that are meant to: targets with a weight above 0)."""
        return strength(pool, self._healths, self._desired().targets)

    def least_able(self, pool: Pool, without: str = "") -> int:
        """Targets of the pool that must be able to serve before any gets a request; `without` one that is to leave."""
        return least_able(pool, self._healths, self._desired().targets, self._panic(pool), without)

    def stops(self, pool: Pool, wanted: Mapping[str, TargetDesired]) -> bool:
        """Whether a pool that offers its targets that can serve would offer none, with these wishes for its targets."""
        wished = self._desired().targets
        return stops(pool, self._healths, wished, {**wished, **wanted}, self._panic(pool))

    def _panic(self, pool: Pool) -> Panic:
        """The rule of its service; a pool without targets needs none."""
        return self._rules[pool.targets[0].service].panic if pool.targets else Panic()

    def shortfall(self, pool: Pool, needed: int) -> str:
        """That fewer than `needed` targets of the pool can serve, for people; empty: enough can."""
        return shortfall(pool, self._healths, self._desired().targets, needed)

    def why_not(self, target: Target) -> str:
        """Why it cannot serve, for people; empty: it can."""
        return why_not(target, self._healths, self._desired().targets, monotonic())

    def why_not_then(self, target: Target, wanted: TargetDesired) -> str:
        """Why it could not serve with these wishes for it, for people; empty: it could."""
        wished = {target.id: wanted}
        return why_not(target, undrained(self._healths, wished), wished, monotonic())

    def with_wishes(self, target: Target, wanted: TargetDesired) -> Rotation:
        """The rotation of its service as other wishes for a target would make it; nothing is changed."""
        service, desired = self._services[target.service], self._desired()
        return resolve(
            service,
            undrained(self._healths, {target.id: wanted}),
            desired.services[service.name],
            {**desired.targets, target.id: wanted},
            self._rules[service.name],
            monotonic(),
            version=0,
        )

    def unable(self, pool: Pool) -> list[Obstacle]:
        """The targets of a pool that cannot serve, each with the reason."""
        reasons = ((target.id, self.why_not(target)) for target in pool.targets)
        return [Obstacle(reason, target=id) for id, reason in reasons if reason]

    def close(self) -> None:
        """No more changes."""
        for handle in self._ramps.values():
            handle.cancel()
        self._ramps.clear()
