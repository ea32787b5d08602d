"""Stats: one worker's counters of requests and connections, and its records of eventful requests.

They are plain integers on objects that are at hand anyway; `DataPlane.report` adds them up. What is counted per target
is on its `Lane`, and moves with a `Lease`.
"""

from __future__ import annotations

from collections import deque

from lb.core.report import PoolTally, RequestRecord, empty_pool_tally
from lb.http.h1.excerpt import Excerpt
from lb.http.h1.parse import RequestError
from lb.proxy.access_log import PATH, escaped
from lb.proxy.crash_counters import BEGUN, OVER, cells
from lb.proxy.observers import Ended

#: Requests of the recent past kept for the next report.
RECORDS = 500


class Stats:
    """The counters of one worker. They are told of an exchange before the observers are."""

    def __init__(self, crash_counters: memoryview | None = None) -> None:
        self.accepted = 0  # connections of clients
        self.begun = self.over = 0  # requests, without mirrored copies
        self.crash_counters = crash_counters if crash_counters is not None else cells()
        self.unsolicited_bytes = 0  # times that a target sent bytes that no request asked for
        self.rejected: dict[str, int] = {}  # reason → answers of lb itself, and connections turned away
        self.records: deque[RequestRecord] = deque(maxlen=RECORDS)  # for the next report
        self.wall_offset = 0.0  # Unix time less monotonic time
        self._pools: dict[tuple[str, str], PoolTally] = {}

    def reject(self, reason: str) -> None:
        """Count an answer of our own, or a connection turned away."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def ended(self, exchange: Ended, seconds: float) -> None:
        """Count an exchange for its pool; keep it, if something happened to it, for `explain`."""
        self.over += 1
        self.crash_counters[OVER] = self.over
        tally = exchange.pool.tally
        tally.requests += 1
        tally.seconds += seconds
        tally.buckets[exchange.bucket] += 1
        if (
            exchange.status >= 500
            or exchange.attempt_log
            or exchange.answered_by_proxy
            or exchange.was_cut
            or exchange.lease is None
        ):
            self._eventful(exchange, seconds)

    def _eventful(self, exchange: Ended, seconds: float) -> None:
        """Count what is rare, and keep a request that failed, was retried or was answered by the proxy itself."""
        tally = exchange.pool.tally
        if exchange.answered_by_proxy or exchange.lease is None:
            tally.codes[exchange.status] += 1
        failed = exchange.status >= 500 or exchange.was_cut
        if failed:
            tally.errors += 1
        if exchange.attempt_log or failed or exchange.answered_by_proxy:
            self.record(exchange, seconds)

    def record(self, exchange: Ended, seconds: float) -> None:
        """Keep a request that failed, was retried or was answered by the proxy itself, for `explain`."""
        head = exchange.head
        lease = exchange.lease
        self.records.append(
            RequestRecord(
                id=exchange.request_id.decode("latin-1"),
                at=exchange.started + self.wall_offset,
                client=exchange.client.peer.decode(),
                method=head.method.decode(),
                path=head.target.decode("latin-1")[:PATH],
                service=exchange.service.name,
                pool=exchange.pool.name,
                target=lease.lane.id if lease is not None else "none",
                code=exchange.status,
                seconds=seconds,
                reason=exchange.reason,
                tries=list(exchange.attempt_log),
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
            )
        )

    # --- per pool ---------------------------------------------------------------------------------------------------

    def pool_tally(self, service: str, pool: str) -> PoolTally:
        """The counters of a pool; they outlive snapshots."""
        tally = self._pools.get((service, pool))
        if tally is None:
            tally = empty_pool_tally(service, pool)
            self._pools[service, pool] = tally
        return tally

    def pool_tallies(self) -> dict[tuple[str, str], PoolTally]:
        """Those of all pools, by service and pool."""
        return self._pools
