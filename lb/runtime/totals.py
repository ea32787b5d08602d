"""Exact sums over workers: what the living report, and what the dead had reported last.

A worker's reports are cumulative since its start, so that its newest one is all that has to be kept. When a worker is
gone its counters are added to a base, and its gauges (requests in flight, open connections) are dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from lb.core.report import BUCKETS, PoolTally, Report, RequestRecord, TargetTally

#: Requests of the recent past that `explain REQUEST-ID` can tell about.
RECORDS = 5000


@dataclass(slots=True)
class Sums:
    """Counters of one worker, or of several added up."""

    targets: dict[str, TargetTally] = field(default_factory=dict)
    pools: dict[tuple[str, str], PoolTally] = field(default_factory=dict)
    retries: dict[str, dict[str, int]] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    mirrored: dict[str, dict[str, int]] = field(default_factory=dict)
    downstream: int = 0
    in_flight: int = 0
    accepted: int = 0
    log_lines_lost: int = 0

    def take(self, report: Report) -> None:
        """A newer report of the same worker replaces what it names."""
        for tally in report.targets:
            self.targets[tally.target] = tally
        for pool in report.pools:
            self.pools[pool.service, pool.pool] = pool
        self.retries = report.retries
        self.rejected = report.rejected
        self.mirrored = report.mirrored
        self.downstream = report.downstream
        self.in_flight = report.in_flight
        self.accepted = report.accepted
        self.log_lines_lost = report.log_lines_lost

    def add(self, other: Sums, gauges: bool = True) -> None:
        """Add another worker's counters, and its gauges unless it is gone."""
        for id, tally in other.targets.items():
            _add_target(self.targets.setdefault(id, _empty_target(id)), tally, gauges)
        for key, pool in other.pools.items():
            _add_pool(self.pools.setdefault(key, PoolTally(*key, buckets=[0] * (len(BUCKETS) + 1))), pool)
        _add_nested(self.retries, other.retries)
        _add_nested(self.mirrored, other.mirrored)
        for reason, count in other.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count
        self.accepted += other.accepted
        self.log_lines_lost += other.log_lines_lost
        if gauges:
            self.downstream += other.downstream
            self.in_flight += other.in_flight


class Totals:
    """All workers' counters, the dead ones' included."""

    def __init__(self) -> None:
        self._gone = Sums()
        self._live: dict[int, Sums] = {}  # incarnation → its newest state
        self.records: dict[str, RequestRecord] = {}  # request id → record, oldest first

    def take(self, report: Report) -> None:
        """A worker reports."""
        self._live.setdefault(report.incarnation, Sums()).take(report)
        for record in report.records:
            self.records[record.id] = record
        while len(self.records) > RECORDS:
            del self.records[next(iter(self.records))]

    def gone(self, incarnation: int) -> None:
        """A worker is gone: keep its counters, drop its gauges."""
        sums = self._live.pop(incarnation, None)
        if sums is not None:
            self._gone.add(sums, gauges=False)

    def gone_sums(self) -> Sums:
        """What workers that are gone had counted: for a successor, to whom the living will report themselves."""
        return self._gone

    def inherit(self, sums: Sums) -> None:
        """Add what the workers of a predecessor had counted before they were gone."""
        self._gone.add(sums, gauges=False)

    def sums(self) -> Sums:
        """Everything added up, as a value of its own."""
        total = Sums()
        total.add(self._gone, gauges=False)
        for sums in self._live.values():
            total.add(sums)
        return total

    def forget(self, targets: Iterable[str]) -> None:
        """Drop targets that are not in the configuration any more, so that series do not pile up."""
        for id in targets:
            self._gone.targets.pop(id, None)
            for sums in self._live.values():
                sums.targets.pop(id, None)


def _empty_target(id: str) -> TargetTally:
    return TargetTally(id, buckets=[0] * (len(BUCKETS) + 1))


def _add_target(to: TargetTally, tally: TargetTally, gauges: bool) -> None:
    to.codes = Counter(to.codes)
    to.codes.update(tally.codes)
    to.buckets = [a + b for a, b in zip(to.buckets, tally.buckets, strict=True)]
    to.seconds += tally.seconds
    to.opened += tally.opened
    to.connect_failures += tally.connect_failures
    to.resets += tally.resets
    to.timeouts += tally.timeouts
    to.server_errors += tally.server_errors
    to.successes += tally.successes
    to.closes_idle_after = min(filter(None, (to.closes_idle_after, tally.closes_idle_after)), default=0.0)
    if gauges:
        to.in_flight += tally.in_flight
        to.idle += tally.idle
        to.active += tally.active
        to.tunnels += tally.tunnels
        to.streak = max(to.streak, tally.streak)


def _add_pool(to: PoolTally, tally: PoolTally) -> None:
    to.codes = Counter(to.codes)
    to.codes.update(tally.codes)
    to.buckets = [a + b for a, b in zip(to.buckets, tally.buckets, strict=True)]
    to.seconds += tally.seconds
    to.requests += tally.requests
    to.errors += tally.errors


def _add_nested(to: dict[str, dict[str, int]], other: dict[str, dict[str, int]]) -> None:
    for name, counts in other.items():
        mine = to.setdefault(name, {})
        for key, count in counts.items():
            mine[key] = mine.get(key, 0) + count
