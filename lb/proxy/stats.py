"""Stats: one worker's counters of requests and connections, and its records of eventful requests.

They are plain integers on objects that are at hand anyway; `DataPlane.report` adds them up. Counters per target are on
its `Lane`, and move with a `Lease`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection
from operator import add
from typing import Final

from lb.core.grpc import FAILURES
from lb.core.report import (
    BUCKETS,
    HandshakeTally,
    PoolTally,
    RequestRecord,
    empty_handshake_tally,
    empty_pool_tally,
)
from lb.http.h1.excerpt import Excerpt
from lb.http.h1.parse import RequestError
from lb.proxy.access_log import PATH, escaped
from lb.proxy.crash_counters import BEGUN, OVER, cells
from lb.proxy.observers import Ended
from lb.proxy.route_fragment import read_fragment, read_remarks

#: Requests of the recent past kept for the next report.
RECORDS: Final = 500


class PoolCounts:
    """The counters for the requests of one pool. The tally's own fields, which reports carry, are behind by what
    `settled` has yet to add: two stores for a request instead of four."""

    __slots__ = ("buckets", "seconds", "tally")

    def __init__(self, service: str, pool: str) -> None:
        self.tally = empty_pool_tally(service, pool)
        self.buckets = [0] * len(self.tally.buckets)
        self.seconds = 0.0

    def settled(self) -> PoolTally:
        """The tally, brought up to date."""
        tally, buckets = self.tally, self.buckets
        requests = sum(buckets)
        if requests:
            tally.requests += requests
            tally.seconds += self.seconds
            tally.buckets = list(map(add, tally.buckets, buckets))
            self.buckets = [0] * len(buckets)
            self.seconds = 0.0
        return tally


class StepCounts:
    """What a step of a route has done with requests."""

    __slots__ = ("moved", "results")

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.moved = False  # since the last report

    def count(self, result: str) -> None:
        """One more request with this result, of the few that the step's code knows."""
        self.results[result] = self.results.get(result, 0) + 1
        self.moved = True


class Stats:
    """The counters of one worker."""

    def __init__(self, crash_counters: memoryview | None = None) -> None:
        self.accepted = 0  # connections of clients
        self.begun = self.over = 0  # requests, without mirrored copies
        self.crash_counters = crash_counters if crash_counters is not None else cells()
        self.unsolicited_bytes = 0  # times that a target sent bytes that no request asked for
        self.rejected: dict[str, int] = {}  # reason → answers of lb itself, and connections turned away
        self.http2_refused: dict[str, int] = {}  # reason → streams, or whole connections, at a fault of the client's
        self.records: deque[RequestRecord] = deque(maxlen=RECORDS)  # for the next report
        self.wall_offset = 0.0  # Unix time less monotonic time
        self.pools: dict[tuple[str, str], PoolCounts] = {}
        self.handshakes: dict[str, HandshakeTally] = {}  # by listener
        self.steps: dict[tuple[str, str], StepCounts] = {}  # by route and step

    def reject(self, reason: str) -> None:
        """Count an answer of our own, or a connection turned away."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def handshake(self, listener: str, version: str, result: str, seconds: float, resumed: bool) -> None:
        """Count a TLS handshake that is over. `version` is empty where it has failed."""
        tally = self.handshakes.get(listener)
        if tally is None:
            tally = self.handshakes[listener] = empty_handshake_tally(listener)
        tally.count(version or "none", result)
        if version:
            tally.buckets[bisect_left(BUCKETS, seconds)] += 1
            tally.seconds += seconds
            tally.resumed += resumed

    def step_counts(self, route: str, step: str) -> StepCounts:
        """The counters of a step; they outlive snapshots that have the route. Steps of one name share them."""
        counts = self.steps.get((route, step))
        if counts is None:
            counts = self.steps[route, step] = StepCounts()
        return counts

    def forget_routes(self, titles: Collection[str]) -> None:
        """Drop what steps of all other routes have counted."""
        for key in [key for key in self.steps if key[0] not in titles]:
            del self.steps[key]

    def step_results(self, full: bool) -> dict[str, dict[str, dict[str, int]]]:
        """Route → step → result → requests, of steps that have counted one since the last call; with `full` of all."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for (route, step), counts in self.steps.items():
            if counts.moved or (full and counts.results):
                counts.moved = False
                found.setdefault(route, {})[step] = dict(counts.results)
        return found

    def refuse_http2(self, reason: str) -> None:
        """Count a stream of HTTP/2 that was refused or reset for a fault of the client's, or a connection ended so."""
        self.http2_refused[reason] = self.http2_refused.get(reason, 0) + 1

    def eventful(self, exchange: Ended, tally: PoolTally, seconds: float) -> None:
        """Count what is rare for its pool, and keep a request that failed, was retried or was answered by the proxy
        itself. (What is counted of each request, `Exchange` does.)"""
        if exchange.answered_by_proxy or not exchange.target_id:
            tally.codes[exchange.status] += 1
        failed = exchange.status >= 500 or exchange.was_cut or exchange.grpc_status in FAILURES
        if failed:
            tally.errors += 1
        if exchange.attempt_log or failed or exchange.answered_by_proxy:
            self.record(exchange, seconds)

    def record(self, exchange: Ended, seconds: float) -> None:
        """Keep a request that failed, was retried or was answered by the proxy itself, for `explain`."""
        head = exchange.received
        route, steps = read_fragment(exchange.route_fragment)
        self.records.append(
            RequestRecord(
                id=exchange.request_id.decode("latin-1"),
                at=exchange.started + self.wall_offset,
                client=exchange.peer.decode(),
                method=head.method.decode(),
                path=head.target.decode("latin-1")[:PATH],
                service=exchange.service_name,
                pool=exchange.pool_name,
                target=exchange.target_id or "none",
                code=exchange.status,
                seconds=seconds,
                reason=exchange.reason,
                tries=list(exchange.attempt_log),
                protocol=head.protocol.decode(),
                route=route,
                steps=steps,
                remarks=read_remarks(exchange.route_fragment),
            )
        )

    def refused(self, refusal: RequestError, peer: bytes, request_id: bytes, now: float, seen: Excerpt) -> None:
        """Count a request that was refused before it became an exchange; `seen` is what could be read of it."""
        self.reject(refusal.reason)
        self.begun += 1
        self.over += 1
        self.crash_counters[BEGUN], self.crash_counters[OVER] = self.begun, self.over
        tally = self.pool_tally("none", "none")
        tally.requests += 1
        tally.codes[refusal.status] += 1
        self.records.append(
            RequestRecord(
                id=request_id.decode("latin-1"),
                at=now + self.wall_offset,
                client=peer.decode(),
                method=escaped(seen.method),
                path=escaped(seen.target)[:PATH],
                service="none",
                pool="none",
                target="none",
                code=refusal.status,
                seconds=0.0,
                reason=refusal.reason,
                host=escaped(seen.host)[:PATH],
                refused=refusal.detail,
                protocol=escaped(seen.protocol),
            )
        )

    # --- per pool ---------------------------------------------------------------------------------------------------

    def pool_counts(self, service: str, pool: str) -> PoolCounts:
        """The counters for the requests of a pool; they outlive snapshots."""
        counts = self.pools.get((service, pool))
        if counts is None:
            counts = self.pools[service, pool] = PoolCounts(service, pool)
        return counts

    def pool_tally(self, service: str, pool: str) -> PoolTally:
        """The counters of a pool."""
        return self.pool_counts(service, pool).settled()

    def pool_tallies(self) -> dict[tuple[str, str], PoolTally]:
        """The tallies of all pools, by service and pool."""
        return {key: counts.settled() for key, counts in self.pools.items()}

    def fold(self, key: tuple[str, str], into: tuple[str, str]) -> tuple[PoolCounts, PoolCounts]:
        """A pool is gone: count what was counted for it under another name. Returns the former counters, and the
        present ones."""
        counts, total = self.pools.pop(key), self.pool_counts(*into)
        total.settled().add(counts.settled())
        return counts, total
