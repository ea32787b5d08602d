"""Rate limits: a token bucket as one number (GCRA, the generic cell rate algorithm of ATM).

The number is the time at which the bucket is full again. A request moves it by `interval`, the time in which one token
comes. It passes if the bucket is full again at most `window` later, the time that fills an empty bucket. A refused
request moves nothing, so refused ones cost no tokens. A full bucket and one that was never used are the same.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from lb.core.native import mypyc_attr

#: Seconds of rounding that are forgiven: sums of small intervals on a machine that has run for years.
_ROUNDING: Final = 1e-6
#: Seconds that one worker's requests may be older than another one's when they take their tokens.
_SKEW: Final = 10.0


@mypyc_attr(allow_interpreted_subclasses=True)
class TokenBucket:
    """`number` tokens come in `seconds`, and `burst` of them are kept at most."""

    __slots__ = ("_most", "burst", "interval", "window")

    def __init__(self, number: int, seconds: float, burst: int) -> None:
        self.burst = burst
        self.interval = seconds / number
        self.window = burst * self.interval
        self._most = self.window + min(_ROUNDING, self.interval / 2)

    def take(self, full_at: float, now: float) -> float:
        """When the bucket is full again, after a request at `now`; below 0: it has no token, less the seconds to wait.

        `full_at` 0.0 is a full bucket. A time further away than any request leaves it is another bucket's, or a broken
        one, and counts as full.
        """
        if full_at < now or full_at > now + self._most + _SKEW:
            full_at = now
        moved = full_at + self.interval
        wait = moved - now - self._most
        return moved if wait <= 0.0 else -wait

    def left(self, full_at: float, now: float) -> int:
        """Tokens that are left."""
        return max(int((self.window - (full_at - now)) / self.interval + 1e-3), 0)

    def next_in(self, full_at: float, now: float) -> int:
        """Whole seconds until a further token is there, rounded up."""
        missing = full_at - now
        return max(ceil(missing - (ceil(missing / self.interval - 1e-3) - 1) * self.interval - _ROUNDING), 1)


def retry_after(wait: float) -> int:
    """Whole seconds, rounded up: a try at that time passes."""
    return max(ceil(wait), 1)
