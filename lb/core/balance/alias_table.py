"""Weighted random draws in constant time: Vose's alias method (A linear algorithm for generating random numbers with
a given distribution, 1991). One random number gives both the column and the choice within it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


class AliasTable:
    """Draws an index with probability weight / sum(weights)."""

    __slots__ = ("_alias", "_keep", "_random", "_sides", "fair")

    def __init__(self, weights: Sequence[float], rng: random.Random) -> None:
        sides = len(weights)
        self.fair = min(weights) == max(weights)
        self._random = rng.random
        self._sides = sides
        self._keep = [1.0] * sides
        self._alias = list(range(sides))
        if self.fair:
            return  # each draw stands as it is
        mean = sum(weights, 0.0) / sides
        scaled = [weight / mean for weight in weights]
        poor = [i for i, share in enumerate(scaled) if share < 1.0]
        rich = [i for i, share in enumerate(scaled) if share >= 1.0]
        while poor and rich:
            low, high = poor.pop(), rich[-1]
            self._keep[low] = scaled[low]
            self._alias[low] = high
            scaled[high] -= 1.0 - scaled[low]
            if scaled[high] < 1.0:
                poor.append(rich.pop())

    def draw(self) -> int:
        x = self._random() * self._sides
        column = int(x)
        return column if x - column < self._keep[column] else self._alias[column]

    def draw_two(self) -> tuple[int, int]:
        """Two different indices; the second is drawn again while it equals the first (nginx: `random two`)."""
        sides = self._sides
        if self.fair:
            first = int(self._random() * sides)
            second = int(self._random() * (sides - 1))
            return first, second + 1 if second >= first else second
        first = self.draw()
        for _ in range(8):
            second = self.draw()
            if second != first:
                return first, second
        # One side is nearly certain: any other one will do for the comparison.
        second = int(self._random() * (sides - 1))
        return first, second + 1 if second >= first else second
