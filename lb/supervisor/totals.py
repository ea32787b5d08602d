"""Exact sums over workers: the reports of the living, and the last reports of the dead.

A worker's reports are cumulative since its start, so that its newest one is all that has to be kept. When a worker is
gone its counters are added to a base, and its gauges (requests in flight, open connections) are dropped.

Sums of targets are kept, and worked out anew only for targets that were reported since. They are asked for every
second, and of ten thousand targets most have nothing new.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import reduce

from lb.core.renames import split_id
from lb.core.report import (
    HandshakeTally,
    PoolTally,
    Report,
    RequestRecord,
    TargetTally,
    counted_under,
    empty_handshake_tally,
    empty_pool_tally,
    empty_tally,
    removed_id,
)
from lb.proxy.crash_counters import NOTHING, Unfinished

#: Requests of the recent past that `explain REQUEST-ID` can tell about.
RECORDS = 5000


@dataclass(slots=True)
class Counters:
    """Counters of one worker, or of several added up. The tallies of targets are never changed, only replaced: so sums
    share them, and the common case, one worker, costs no copies."""

    targets: dict[str, TargetTally] = field(default_factory=dict)
    pools: dict[tuple[str, str], PoolTally] = field(default_factory=dict)
    retries: dict[str, dict[str, int]] = field(default_factory=dict)
    waiting: dict[str, dict[str, int]] = field(default_factory=dict)  # service → pool → requests in its queue
    rejected: dict[str, int] = field(default_factory=dict)
    handshakes: dict[str, HandshakeTally] = field(default_factory=dict)  # by listener
    mirrored: dict[str, dict[str, int]] = field(default_factory=dict)
    grpc: dict[str, dict[str, int]] = field(default_factory=dict)
    steps: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # route → step → result
    http2_refused: dict[str, int] = field(default_factory=dict)
    downstream: int = 0
    in_flight: int = 0
    http2_streams: int = 0
    accepted: int = 0
    rate_evictions: int = 0
    log_lines_lost: int = 0
    log_trouble: str = ""  # why a worker cannot open or write its access log
    lost: int = 0  # requests that were under way in workers when these died
    restarts: dict[str, int] = field(default_factory=dict)
    errors: int = 0

    def take(self, report: Report) -> None:
        """A newer report of the same worker replaces what it names."""
        for id in report.folded:
            self.targets.pop(id, None)
        for service, name in report.folded_pools:
            self.pools.pop((service, name), None)
        for tally in report.targets:
            self.targets[tally.target] = tally
        for pool in report.pools:
            self.pools[pool.service, pool.pool] = pool
        self.retries = report.retries
        self.waiting = report.waiting
        self.rejected = report.rejected
        self.handshakes = {tally.listener: tally for tally in report.handshakes}
        self.mirrored = report.mirrored
        self.grpc = report.grpc
        for route, steps in report.steps.items():
            self.steps.setdefault(route, {}).update(steps)
        self.http2_refused = report.http2_refused
        self.http2_streams = report.http2_streams
        self.downstream = report.downstream
        self.in_flight = report.in_flight
        self.accepted = report.accepted
        self.rate_evictions = report.rate_evictions
        self.log_lines_lost = report.log_lines_lost
        self.restarts = report.restarts
        self.errors = report.errors
        self.log_trouble = report.log_trouble

    def add_gone(self, other: Counters) -> None:
        """Add the counters of a worker that is gone, without its gauges."""
        for id, tally in other.targets.items():
            self.targets[id] = self.targets.get(id, empty_tally(id)).plus(tally, gauges=False)
        self.add_beside_targets(other, gauges=False)

    def add_beside_targets(self, other: Counters, gauges: bool = True) -> None:
        """Add what another one has counted beside its targets; with `gauges`, what is open there now as well."""
        for key, pool in other.pools.items():
            self.pools.setdefault(key, empty_pool_tally(*key)).add(pool)
        _add_nested(self.retries, other.retries)
        _add_nested(self.mirrored, other.mirrored)
        _add_nested(self.grpc, other.grpc)
        for route, steps in other.steps.items():
            _add_nested(self.steps.setdefault(route, {}), steps)
        for reason, count in other.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count
        for listener, handshakes in other.handshakes.items():
            self.handshakes.setdefault(listener, empty_handshake_tally(listener)).add(handshakes)
        for reason, count in other.http2_refused.items():
            self.http2_refused[reason] = self.http2_refused.get(reason, 0) + count
        for label, count in other.restarts.items():
            self.restarts[label] = self.restarts.get(label, 0) + count
        self.errors += other.errors
        self.accepted += other.accepted
        self.rate_evictions += other.rate_evictions
        self.log_lines_lost += other.log_lines_lost
        self.lost += other.lost
        if gauges:
            _add_nested(self.waiting, other.waiting)
            self.downstream += other.downstream
            self.in_flight += other.in_flight
            self.http2_streams += other.http2_streams
            self.log_trouble = self.log_trouble or other.log_trouble

    def fold(self, known: Collection[str]) -> set[str]:
        """Count targets that the configuration no longer has together, by pool, and so pools and services. Returns the
        ids under which something else is counted now."""
        touched: set[str] = set()
        if not (self.targets or self.pools or self.retries or self.mirrored or self.grpc):
            return touched  # and thousands are known
        layout: dict[str, set[str]] = {}
        for id in known:
            service, pool, _ = split_id(id)
            layout.setdefault(service, set()).add(pool)
        for id in [id for id in self.targets if id not in known]:
            service, pool, _ = split_id(id)
            place = removed_id(*counted_under(service, pool, layout))
            if place != id:
                gone = self.targets.pop(id)
                self.targets[place] = self.targets.get(place, empty_tally(place)).plus(gone)
                touched |= {id, place}
        for key in list(self.pools):
            standing = counted_under(*key, layout)
            if standing != key:
                gone_pool = self.pools.pop(key)
                total = empty_pool_tally(*standing)
                for tally in filter(None, (self.pools.get(standing), gone_pool)):
                    total.add(tally)
                self.pools[standing] = total
        for counts in (self.retries, self.mirrored, self.grpc):
            for name in [name for name in counts if name not in layout and name != "none"]:
                del counts[name]
        return touched

    def fold_routes(self, titles: Collection[str]) -> None:
        """Drop what steps of other routes have counted."""
        for title in [title for title in self.steps if title not in titles]:
            del self.steps[title]


class Totals:
    """All workers' counters, the dead ones' included."""

    def __init__(self) -> None:
        self._gone = Counters()
        self._live: dict[int, Counters] = {}  # incarnation → its newest state
        self._targets: dict[str, TargetTally] = {}  # of all workers together…
        self._stale: set[str] = set()  # …but for these ids
        self.records: dict[str, RequestRecord] = {}  # request id → record, oldest first
        self._known: Collection[str] | None = None  # the configuration's targets, once `forget` was called
        self._routes: Collection[str] = ()  # …and the titles of its routes

    def take(self, report: Report) -> None:
        """A worker reports."""
        self._live.setdefault(report.incarnation, Counters()).take(report)
        self._stale.update(report.folded)
        self._stale.update([tally.target for tally in report.targets])
        for record in report.records:
            self.records[record.id] = record
        while len(self.records) > RECORDS:
            del self.records[next(iter(self.records))]

    def gone(self, incarnation: int, left: Unfinished = NOTHING) -> None:
        """A worker is gone: keep its counters, drop its gauges, count what it took with it."""
        self._gone.lost += left.under_way
        self._gone.log_lines_lost += left.lines
        sums = self._live.pop(incarnation, None)
        if sums is not None:
            self._gone.add_gone(sums)
            self._stale.update(sums.targets)
            if self._known is not None:
                self._stale |= self._gone.fold(self._known)
                self._gone.fold_routes(self._routes)

    def gone_sums(self) -> Counters:
        """The counts of workers that are gone: for a successor, to which the living workers will report."""
        return self._gone

    def inherit(self, sums: Counters) -> None:
        """Add what the workers of a predecessor had counted before they were gone."""
        self._gone.add_gone(sums)
        self._stale.update(sums.targets)

    def sums(self, known: Collection[str] | None = None) -> Counters:
        """Everything added up, as a value of its own; with `known`, all other targets together by pool."""
        every = (self._gone, *self._live.values())  # the first has no gauges
        for id in self._stale:
            tallies = [tally for each in every if (tally := each.targets.get(id)) is not None]
            if tallies:
                self._targets[id] = reduce(TargetTally.plus, tallies)
            else:
                self._targets.pop(id, None)
        self._stale.clear()
        total = Counters(self._targets.copy())
        for each in every:
            total.add_beside_targets(each)
        if known is not None:
            total.fold(known)
        return total

    def forget(self, known: Collection[str], routes: Collection[str] = ()) -> None:
        """The configuration has no targets and routes but these any more. The living workers have seen to theirs."""
        self._known, self._routes = known, routes
        self._stale |= self._gone.fold(known)
        for counters in (self._gone, *self._live.values()):
            counters.fold_routes(routes)


def _add_nested(to: dict[str, dict[str, int]], other: dict[str, dict[str, int]]) -> None:
    for name, counts in other.items():
        mine = to.setdefault(name, {})
        for key, count in counts.items():
            mine[key] = mine.get(key, 0) + count
