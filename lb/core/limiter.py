"""An adaptive bound on requests in flight: as many as the service can work on before they begin to queue.

The gradient of Netflix's concurrency-limits (GradientLimit): the bound follows `latency without load / latency now`.
Near 1 there is no queue, so the bound may grow by its square root. Below 1 requests queue somewhere, so the bound
shrinks in proportion. The latency without load is the lowest average seen of late. A bound that is always used up never
shows the latency without a queue. So each window begins with half the bound for a moment; Envoy's adaptive concurrency
measures its minRTT in the same way. The long-term average of Gradient2Limit was tried instead: under steady overload it
drifts along with the queue, and so does the bound.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Final

#: Latency may grow by this factor before it counts as queueing (GradientLimit's rttTolerance: 1.5).
TOLERANCE: Final = 1.5
#: Weight of a new bound against the old one (GradientLimit: 0.2).
SMOOTHING: Final = 0.2
#: Samples that are averaged into one step.
STEP: Final = 10
#: Seconds after which the latency without load is measured anew.
WINDOW: Final = 60.0


class GradientLimiter:
    """`limit` is the bound; `observe` feeds it with one request's outcome."""

    __slots__ = (
        "_base",
        "_before",
        "_bound",
        "_count",
        "_dropped",
        "_in_flight",
        "_sum",
        "_until",
        "limit",
        "maximum",
        "minimum",
    )

    def __init__(self, initial: int = 50, minimum: int = 10, maximum: int = 5000) -> None:
        self.limit = initial
        self.minimum = minimum
        self.maximum = maximum
        self._bound = float(initial)
        self._base = inf  # the lowest average latency of this window…
        self._before = inf  # …and of the one before
        self._until = -inf
        self._sum = 0.0
        self._count = 0
        self._in_flight = 0
        self._dropped = False

    def observe(self, seconds: float, in_flight: int, dropped: bool, now: float) -> None:
        """A request took `seconds` with `in_flight` under way (itself included); `dropped`: shed or timed out."""
        self._sum += seconds
        self._count += 1
        self._in_flight = max(self._in_flight, in_flight)
        self._dropped = self._dropped or dropped
        if self._count >= STEP:
            self._step(now)

    def _step(self, now: float) -> None:
        short = self._sum / self._count
        in_flight, dropped = self._in_flight, self._dropped
        self._sum, self._count, self._in_flight, self._dropped = 0.0, 0, 0, False
        if short <= 0.0:
            return
        if now >= self._until:
            if self._until != -inf:
                self._set(self._bound / 2)
            self._before, self._base, self._until = self._base, inf, now + WINDOW
        self._base = min(self._base, short)
        if in_flight < self._bound / 2 and not dropped:
            return  # the bound was not what limited anything
        gradient = max(0.5, min(1.0, TOLERANCE * min(self._base, self._before) / short))
        if dropped:
            gradient = 0.5
        self._set(self._bound * (1 - SMOOTHING) + (self._bound * gradient + sqrt(self._bound)) * SMOOTHING)

    def _set(self, bound: float) -> None:
        self._bound = max(float(self.minimum), min(float(self.maximum), bound))
        self.limit = int(self._bound)
