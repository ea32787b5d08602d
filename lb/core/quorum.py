"""How many targets of a pool must be ready before something is done with it: a share of them, or a number."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quorum:
    """`count` counts when it is set; else `share` of the pool's targets, rounded up."""

    share: float = 1.0
    count: int = 0

    def needed(self, total: int) -> int:
        """Of a pool of `total` targets: at least 1, at most `total`, and 0 of an empty pool."""
        if total <= 0:
            return 0
        wanted = self.count or math.ceil(round(self.share * total, 9))
        return max(1, min(total, wanted))

    def __str__(self) -> str:
        return f"{self.count} targets" if self.count else f"{self.share * 100:.4g} % of the targets"
