"""Reports of a worker to the supervisor: cumulative counters since its start, so that a lost report harms nothing.

A `Report` holds the whole current state of every lane and pool that changed since the last report, keyed by name.
The supervisor keeps the newest state per worker; of a worker that is gone it adds the last state to its totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, field

import msgspec

#: Upper bounds of the latency histograms, seconds; the last bucket, +Inf, is implied.
BUCKETS: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class TargetTally(msgspec.Struct, array_like=True, gc=False):
    """One worker's counters for one target. A report may hold thousands: packed as an array they cost a fifth."""

    target: str  # id
    codes: dict[int, int] = msgspec.field(default_factory=Counter)  # status as the client saw it → requests
    buckets: list[int] = msgspec.field(default_factory=list)  # len(BUCKETS) + 1, not cumulative
    seconds: float = 0.0  # sum of time to the whole answer, as the worker saw the target
    in_flight: int = 0
    idle: int = 0  # pooled connections that wait
    active: int = 0  # connections that carry a request, a tunnel, or are being opened
    opened: int = 0  # connections opened so far
    connect_failures: int = 0  # refused, unreachable, timed out
    resets: int = 0  # broke off or answered nonsense before or within an answer
    timeouts: int = 0
    server_errors: int = 0  # answered 5xx
    successes: int = 0  # answered below 500
    streak: int = 0  # failures in a row, of any of the kinds above
    closes_idle_after: float = 0.0  # learnt keep-alive limit of the target, seconds; 0: none learnt
    tunnels: int = 0  # upgraded connections open now

    def plus(self, other: TargetTally, gauges: bool = True) -> TargetTally:
        """The sum of both, as a value of its own."""
        total = copy(self)
        total.codes = self.codes.copy()
        total.add(other, gauges)
        return total

    def add(self, other: TargetTally, gauges: bool = True) -> None:
        """Add another one's counters; with `gauges`, its open connections and requests as well."""
        codes = self.codes
        for code, count in other.codes.items():
            codes[code] = codes.get(code, 0) + count
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds
        self.opened += other.opened
        self.connect_failures += other.connect_failures
        self.resets += other.resets
        self.timeouts += other.timeouts
        self.server_errors += other.server_errors
        self.successes += other.successes
        self.closes_idle_after = min(filter(None, (self.closes_idle_after, other.closes_idle_after)), default=0.0)
        if gauges:
            self.in_flight += other.in_flight
            self.idle += other.idle
            self.active += other.active
            self.tunnels += other.tunnels
            self.streak = max(self.streak, other.streak)


def empty_tally(target: str) -> TargetTally:
    """The counters of a target that has done nothing."""
    return TargetTally(target, buckets=[0] * (len(BUCKETS) + 1))


#: Counters of removed parts of the configuration go under this name.
REMOVED = "removed"


def removed_id(service: str, pool: str) -> str:
    """Under this id a pool's removed targets are counted on, all together. So sums stay exact, and the number of series
    stays bounded."""
    return f"{service}/{pool}/{REMOVED}"


def counted_under(service: str, pool: str, pools: Mapping[str, Collection[str]]) -> tuple[str, str]:
    """The service and pool under which a place is counted on; `pools`: service → its pools, of the configuration.

    All removed pools of a service are one, and so are all removed services. Versions that come and go leave no series
    behind, and no sum goes backwards.
    """
    if service not in pools and service != "none":
        return REMOVED, REMOVED
    if pool in ("none", REMOVED) or pool in pools.get(service, ()):
        return service, pool
    return service, REMOVED


@dataclass(slots=True)
class PoolTally:
    """One worker's view of the requests that a pool answered (or failed to), as the clients saw them."""

    service: str  # "none": no route matched
    pool: str  # "none": answered before a pool was chosen
    codes: dict[int, int] = field(default_factory=Counter)  # answered by the proxy itself, target "none"
    buckets: list[int] = field(default_factory=list)
    seconds: float = 0.0
    requests: int = 0  # all requests, whether a target or lb answered
    errors: int = 0  # of these, 5xx and cut answers

    def add(self, other: PoolTally) -> None:
        """Add another one's counters."""
        self.codes = Counter(self.codes)
        self.codes.update(other.codes)
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds
        self.requests += other.requests
        self.errors += other.errors


def client_errors(codes: Mapping[int, int]) -> int:
    """How many of the answers, counted by status, are 4xx."""
    return sum(count for code, count in codes.items() if 400 <= code < 500)


def empty_pool_tally(service: str, pool: str) -> PoolTally:
    """The counters of a pool that has done nothing."""
    return PoolTally(service, pool, buckets=[0] * (len(BUCKETS) + 1))


@dataclass(slots=True)
class HandshakeTally:
    """One worker's TLS handshakes on one listener."""

    listener: str
    results: dict[str, dict[str, int]] = field(default_factory=dict)  # TLS version, or "none" → result → handshakes
    resumed: int = 0  # of the successful ones
    buckets: list[int] = field(default_factory=list)  # of the successful ones: from the accept to the end
    seconds: float = 0.0

    def count(self, version: str, result: str, number: int = 1) -> None:
        """Count handshakes with the same result."""
        results = self.results.setdefault(version, {})
        results[result] = results.get(result, 0) + number

    def add(self, other: HandshakeTally) -> None:
        """Add another one's counters."""
        for version, results in other.results.items():
            for result, number in results.items():
                self.count(version, result, number)
        self.resumed += other.resumed
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds


def empty_handshake_tally(listener: str) -> HandshakeTally:
    """The counters of a listener without a handshake."""
    return HandshakeTally(listener, buckets=[0] * (len(BUCKETS) + 1))


@dataclass(slots=True)
class RequestRecord:
    """One request of the recent past that `explain REQUEST-ID` can tell about (failed, retried or sampled)."""

    id: str
    at: float  # Unix time
    client: str
    method: str
    path: str
    service: str
    pool: str
    target: str
    code: int
    seconds: float
    reason: str  # why the proxy answered by itself or cut; empty: the target's answer passed on
    tries: list[str] = field(default_factory=list)  # "target: result", in order
    host: str = ""  # of a refused request alone, as far as it could be read
    refused: str = ""  # the error in a request that was refused before it was understood
    protocol: str = ""  # of the client: HTTP/1.1, HTTP/2.0; empty: it could not be read
    route: str = ""  # its route, where that has steps
    steps: list[str] = field(default_factory=list)  # the steps of its route that it met, in order
    remarks: list[str] = field(default_factory=list)  # what steps did with it without an answer


@dataclass(slots=True)
class Report:
    """The changes in a worker since its last report. Every entry is that entry's whole state."""

    worker: int
    incarnation: int  # the worker's start, Unix nanoseconds: tells a successor's counters from its predecessor's
    sequence: int
    applied: int  # newest Snapshot/Rotation version that serves new requests
    targets: list[TargetTally] = field(default_factory=list)
    pools: list[PoolTally] = field(default_factory=list)
    retries: dict[str, dict[str, int]] = field(default_factory=dict)  # service → reason → count
    rejected: dict[str, int] = field(default_factory=dict)  # reason → count
    downstream: int = 0  # client connections open now
    in_flight: int = 0
    http2_streams: int = 0  # of the requests in flight, the ones of clients that speak HTTP/2
    http2_refused: dict[str, int] = field(default_factory=dict)  # reason → count
    accepted: int = 0  # client connections so far
    log_lines_lost: int = 0
    mirrored: dict[str, dict[str, int]] = field(default_factory=dict)  # service → outcome → count
    grpc: dict[str, dict[str, int]] = field(default_factory=dict)  # service → grpc-status → calls
    records: list[RequestRecord] = field(default_factory=list)  # new ones only
    folded: list[str] = field(default_factory=list)  # targets whose counters are in `removed_id`'s since this report
    folded_pools: list[tuple[str, str]] = field(default_factory=list)  # (service, pool): `counted_under` since then
    restarts: dict[str, int] = field(default_factory=dict)  # background loops that failed: label → times
    errors: int = 0  # in callbacks and tasks that nothing waited for
    handshakes: list[HandshakeTally] = field(default_factory=list)  # of all TLS listeners
    steps: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # route → step → result
    rate_evictions: int = 0  # buckets of rate limits that gave way to other keys before they were full
    asked_keys: list[str] = field(default_factory=list)  # URLs of key sets that lack a token's key, since the last one
    log_trouble: str = ""  # why the access log cannot be opened or written; empty: it can
    waiting: dict[str, dict[str, int]] = field(default_factory=dict)  # service → pool → requests in its queue, if any


@dataclass(slots=True)
class Alarm:
    """Sent at once: a target that this worker just found failing, ahead of the next report."""

    worker: int
    target: str
    # refused | unreachable | timeout | reset | 5xx | tls_verify | tls_expired | tls_client_certificate | tls
    kind: str
    streak: int
    text: str
