"""How far two sequences are alike at their beginnings and at their ends.

One of ten thousand targets is another one: all other ones stand before it or behind it, mostly as the same objects.
Looking at these takes C code, so that what is done for each target is done for the few between.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import is_not
from typing import TypeVar

T = TypeVar("T")


def common_ends(one: Sequence[T], two: Sequence[T]) -> tuple[int, int]:
    """(items that are alike at the beginning, items behind these that are alike at the end)."""
    most = min(len(one), len(two))
    start = _alike(one, two, most)
    return start, _alike(one[::-1], two[::-1], most - start)


def between(one: Sequence[T], two: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """The parts of both that lie between their common ends."""
    start, end = common_ends(one, two)
    return one[start : len(one) - end], two[start : len(two) - end]


def _alike(one: Sequence[T], two: Sequence[T], most: int) -> int:
    """Items at the beginning that are alike, `most` at most."""
    for place in compress(range(most), map(is_not, one, two)):
        if one[place] != two[place]:
            return place
    return most
