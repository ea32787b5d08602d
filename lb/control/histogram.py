"""A histogram of durations, by the bounds that all of lb's metrics have."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from lb.core.report import BUCKETS


@dataclass(slots=True)
class Histogram:
    """Counts by bucket (not cumulative) and their sum, seconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds
