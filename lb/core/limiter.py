"""An adaptive bound on requests in flight: as many as the service can work on before they begin to queue.

The gradient of Netflix's concurrency-limits (Gradient2Limit): the bound follows `long-term latency / latency now`. A
ratio of one means no queue, so the bound may grow by its square root; latency above the long-term average (with a
tolerance) means that requests queue somewhere, so the bound shrinks in proportion.
"""

from __future__ import annotations

from math import sqrt

#: Latency may grow by this factor before it counts as queueing (Gradient2Limit: 1.5).
TOLERANCE = 1.5
#: Weight of a new bound against the old one (Gradient2Limit: 0.2).
SMOOTHING = 0.2
#: Samples that the long-term average looks back on (Gradient2Limit: 600).
LONG_WINDOW = 600
#: Samples that are averaged into one step.
STEP = 10


class GradientLimiter:
    """`limit` is the bound; `observe` feeds it with one request's outcome."""

    __slots__ = ("_bound", "_count", "_dropped", "_in_flight", "_long", "_sum", "limit", "maximum", "minimum")

    def __init__(self, initial: int = 50, minimum: int = 10, maximum: int = 5000) -> None:
        self.limit = initial
        self.minimum = minimum
        self.maximum = maximum
        self._bound = float(initial)
        self._long = 0.0
        self._sum = 0.0
        self._count = 0
        self._in_flight = 0
        self._dropped = False

    def observe(self, seconds: float, in_flight: int, dropped: bool) -> None:
        """A request took `seconds` with `in_flight` under way (itself included); `dropped`: shed or timed out."""
        self._sum += seconds
        self._count += 1
        self._in_flight = max(self._in_flight, in_flight)
        self._dropped = self._dropped or dropped
        if self._count >= STEP:
            self._step()

    def _step(self) -> None:
        short = self._sum / self._count
        in_flight, dropped = self._in_flight, self._dropped
        self._sum, self._count, self._in_flight, self._dropped = 0.0, 0, 0, False
        if short <= 0.0:
            return
        factor = 2.0 * STEP / (LONG_WINDOW + STEP)
        self._long = short if not self._long else self._long + (short - self._long) * factor
        if self._long / short > 2.0:
            self._long *= 0.95  # latency fell for good: come down faster than the average would
        if in_flight < self._bound / 2 and not dropped:
            return  # the bound was not what limited anything
        gradient = max(0.5, min(1.0, TOLERANCE * self._long / short))
        wanted = self._bound * (0.5 if dropped and gradient >= 1.0 else gradient) + sqrt(self._bound)
        self._bound = self._bound * (1 - SMOOTHING) + wanted * SMOOTHING
        self._bound = max(float(self.minimum), min(float(self.maximum), self._bound))
        self.limit = int(self._bound)
