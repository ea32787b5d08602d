"""Feeds the workers' reports on each target to its pool's `core.outlier.Ejector`, and names the targets to eject."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from lb.core.desired import TargetDesired
from lb.core.lifecycle import Health, in_rotation
from lb.core.outlier import Ejector, Suspect
from lb.core.renames import NONE, Renames
from lb.core.report import Alarm, Report
from lb.core.rotation import ServiceRules, can_serve
from lb.core.targets import Target


class Ejections:
    """All pools' ejectors."""

    def __init__(self) -> None:
        self._ejectors: dict[tuple[str, str], Ejector] = {}
        self._members: dict[tuple[str, str], dict[str, Target]] = {}
        self._pools: dict[str, tuple[str, str]] = {}  # target id → service and pool
        self._workers: set[tuple[int, int]] = set()  # number and incarnation of the workers that have reported
        self._states: dict[tuple[str, str], dict[str, str]] = {}  # of each pool's targets, as of the last sweep…
        self._seen: dict[str, Health] = {}  # …by these healths…
        self._wishes: Mapping[str, TargetDesired] = {}  # …and these wishes

    def configure(
        self, targets: Mapping[str, Target], rules: Mapping[str, ServiceRules], renames: Renames = NONE
    ) -> None:
        """Take the targets as they are now; records of targets that stay, or have another name, are kept."""
        former, places = self._ejectors, self._pools
        self._pools = {id: (target.service, target.pool) for id, target in targets.items()}
        self._members, self._states, self._seen = {}, {}, {}
        for id, pool in self._pools.items():
            self._members.setdefault(pool, {})[id] = targets[id]
        self._ejectors = {pool: self._ejectors.get(pool) or Ejector(rules[pool[0]].outlier) for pool in self._members}
        for (service, _), ejector in self._ejectors.items():
            ejector.configure(rules[service].outlier)
        for new, (old, *_) in renames.targets.items():
            if new in self._pools and old in places:
                self._ejectors[self._pools[new]].rename(old, new, former[places[old]])
        for ejector in self._ejectors.values():
            ejector.forget(targets)

    def change(
        self, place: tuple[str, str], changed: Iterable[Target], removed: Collection[str], rules: ServiceRules
    ) -> None:
        """Some targets of a pool are new, have other settings, or are gone; all else stays."""
        members = self._members.setdefault(place, {})
        if place not in self._ejectors:
            self._ejectors[place] = Ejector(rules.outlier)
        states = self._states.setdefault(place, {})
        for id in removed:
            del members[id], self._pools[id]
            states.pop(id, None)
            self._seen.pop(id, None)
        for target in changed:
            members[target.id], self._pools[target.id] = target, place
            self._seen.pop(target.id, None)
        self._ejectors[place].drop(removed)

    def report(self, report: Report, now: float) -> None:
        """A worker's newest counters.

        Its first report is a full one, and has all that it has counted under another supervisor.
        """
        worker = (report.worker, report.incarnation)
        known = worker in self._workers
        self._workers.add(worker)
        for tally in report.targets:
            pool = self._pools.get(tally.target)
            if pool is None:
                continue
            if known:
                self._ejectors[pool].tally(worker, tally, now)
            else:
                self._ejectors[pool].inherit(worker, tally)

    def alarm(self, alarm: Alarm, incarnation: int) -> None:
        """An alarm: a worker's message that could not wait for its report. `incarnation`: of that worker."""
        pool = self._pools.get(alarm.target)
        if pool is not None:
            self._ejectors[pool].alarm((alarm.worker, incarnation), alarm)

    def gone(self, worker: int, incarnation: int) -> None:
        """A worker has ended."""
        self._workers.discard((worker, incarnation))
        for ejector in self._ejectors.values():
            ejector.gone((worker, incarnation))

    def sweep(
        self, healths: Mapping[str, Health], wishes: Mapping[str, TargetDesired], now: float
    ) -> Iterator[Suspect]:
        """The targets to eject now. `wishes`: the operators', by target id; a value that is replaced, never changed."""
        if wishes is not self._wishes:
            self._wishes = wishes
            self._seen.clear()
        for place, ejector in self._ejectors.items():
            if not ejector.rules.off:
                yield from ejector.sweep(self._states_of(place, healths), now)

    def _states_of(self, place: tuple[str, str], healths: Mapping[str, Health]) -> Mapping[str, str]:
        """The state of each target of a pool. Only targets with another health are looked at: thousands stay as they
        are for hours."""
        states, seen = self._states.setdefault(place, {}), self._seen
        for id, target in self._members[place].items():
            health = healths[id]
            if seen.get(id) is not health:
                seen[id] = health
                states[id] = _state(health, can_serve(target, healths, self._wishes))
        return states


def _state(health: Health, able: bool) -> str:
    if health.ejected_until:
        return "ejected"
    if able:
        return "in"
    return "idle" if in_rotation(health) else "out"
