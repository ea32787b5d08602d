"""Rates and percentiles of the recent past: differences between sums taken once a second."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lb.core.report import BUCKETS, REMOVED, TargetTally, client_errors
from lb.supervisor.totals import Counters

#: Seconds that a rate looks back.
SPAN = 10.0


@dataclass(slots=True)
class Traffic:
    """The count within the span."""

    requests: int = 0
    errors: int = 0
    client_errors: int = 0  # answered 4xx
    retries: int = 0  # tries after the first; of a service
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0  # length of the span

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_rate(self) -> float:
        """Share of failed requests."""
        return self.errors / self.requests if self.requests > 0 else 0.0

    @property
    def client_error_rate(self) -> float:
        """Share of requests that were answered 4xx."""
        return self.client_errors / self.requests if self.requests > 0 else 0.0

    @property
    def retry_rate(self) -> float:
        """Retries per second."""
        return self.retries / self.seconds if self.seconds > 0 else 0.0

    def percentile(self, share: float) -> float | None:
        """Seconds that this share of the requests took at most, interpolated within its bucket; None without any."""
        total = sum(self.buckets)
        if not total:
            return None
        rank = share * total
        below, lower = 0, 0.0
        for bound, count in zip(BUCKETS, self.buckets, strict=False):
            if count and below + count >= rank:
                return lower + (bound - lower) * max(0.0, rank - below) / count
            below += count
            lower = bound
        return BUCKETS[-1]


@dataclass(slots=True)
class _Sample:
    at: float
    targets: dict[str, TargetTally]  # sums are values of their own: they can be looked into when somebody asks
    pools: dict[tuple[str, str], _Counted]
    retries: dict[str, int]  # by service


#: Requests, errors, answers of 4xx, histogram.
_Counted = tuple[int, int, int, list[int]]


class Rates:
    """A window of samples."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=int(SPAN) + 1)

    def sample(self, sums: Counters, now: float) -> None:
        """Take one, about once a second."""
        pools = {
            key: (tally.requests, tally.errors, client_errors(tally.codes), list(tally.buckets))
            for key, tally in sums.pools.items()
        }
        retries = {service: sum(reasons.values()) for service, reasons in sums.retries.items()}
        self._samples.append(_Sample(now, sums.targets, pools, retries))

    def of_target(self, id: str) -> Traffic:
        """The recent past of one target."""
        if len(self._samples) < 2:
            return Traffic()
        first, last = self._samples[0], self._samples[-1]
        return _between(_counted(first.targets.get(id)), _counted(last.targets.get(id)), last.at - first.at)

    def of_pool(self, service: str, pool: str) -> Traffic:
        """The recent past of one pool; of its answers of 4xx those alone that are lb's own."""
        if len(self._samples) < 2:
            return Traffic()
        first, last = self._samples[0], self._samples[-1]
        return _between(first.pools.get((service, pool)), last.pools.get((service, pool)), last.at - first.at)

    def of_service(self, service: str) -> Traffic:
        """The recent past of one service, all its pools together, with their answers of 4xx."""
        total = Traffic()
        if len(self._samples) >= 2:
            for name, pool in self._samples[-1].pools:
                if name == service and pool != REMOVED:  # counts folded into it were counted before
                    part = self.of_pool(name, pool)
                    total.requests += part.requests
                    total.errors += part.errors
                    total.client_errors += part.client_errors
                    total.buckets = [a + b for a, b in zip(total.buckets, part.buckets, strict=True)]
                    total.seconds = part.seconds
            first, last = self._samples[0], self._samples[-1]
            total.retries = max(0, last.retries.get(service, 0) - first.retries.get(service, 0))
        return total


def _counted(tally: TargetTally | None) -> _Counted | None:
    """What one target has answered; None: there is nothing."""
    if tally is None:
        return None
    return sum(tally.codes.values()), tally.server_errors, client_errors(tally.codes), tally.buckets


def _between(first: _Counted | None, last: _Counted | None, seconds: float) -> Traffic:
    if last is None:
        return Traffic(seconds=seconds)
    requests, errors, refused, counts = last
    requests_then, errors_then, refused_then, counts_then = first or (0, 0, 0, [0] * len(counts))
    return Traffic(
        max(0, requests - requests_then),
        max(0, errors - errors_then),
        max(0, refused - refused_then),
        buckets=[max(0, new - old) for new, old in zip(counts, counts_then, strict=True)],
        seconds=seconds,
    )
