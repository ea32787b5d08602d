"""RateTable: the buckets of all rate limits, in a piece of memory that all workers have (memfd_create(2)).

A bucket is one number, the time at which it is full again (`core.rate_limit`). Here it is a base, and the tokens that
each worker process has ever taken, in a column of its own. So a process writes its own column alone, and reads all of
them: no token is lost, also when a process is suspended in the middle, and none waits for another one. The base is
written when a full bucket is used again, and counts from what was taken by then.

The table has `SETS` sets of `WAYS` slots. A key has its set by a hash with a secret, so no client chooses its place. A
slot whose bucket is full again is free. If a set has no free slot, the bucket that is full soonest gives way, and is
counted: a full table never refuses a request.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import Final

from lb.core.rate_limit import TokenBucket
from lb.proxy.limit_memory import REGIONS, SECRET, create_memory, mark_of

SETS: Final = 1 << 14
WAYS: Final = 8
#: In numbers of eight bytes: what comes before the first set; one set, with marks, times and bases of its slots; and a
#: column. A time is when the bucket is full again as the last process saw it: by it slots are free. Pages that no key
#: uses take no memory.
HEAD: Final = 8
SET: Final = 3 * WAYS
COLUMNS: Final = HEAD + SETS * SET
COLUMN: Final = SETS * WAYS
SIZE: Final = 8 * (COLUMNS + REGIONS * COLUMN)


class RateTable:
    """The table in one worker, which writes the column `region`. Without a descriptor it is private memory. Of the sets
    only the first `sets` are used."""

    __slots__ = ("_counts", "_mine", "_secret", "_sets", "_times", "evicted")

    def __init__(self, fd: int = -1, region: int = 0, sets: int = SETS) -> None:
        memory = memoryview(mmap.mmap(fd, SIZE if fd >= 0 else 8 * (COLUMNS + COLUMN)))
        if fd < 0:
            memory[:SECRET] = os.urandom(SECRET)
        self._secret = bytes(memory[:SECRET])
        self._counts = memory.cast("q")
        self._times = memory.cast("d")
        if fd < 0:
            self._counts[SECRET // 8] = 1
        self._sets = sets
        self._mine = COLUMNS + region * COLUMN
        self.evicted = 0  # buckets that were not full, and gave way to other keys

    def mark(self, limit: bytes, key: bytes) -> int:
        """What stands for a key of a limit in the table; never 0."""
        return mark_of(self._secret, limit, key)

    def take(self, mark: int, bucket: TokenBucket, now: float) -> float:
        """Take a token; see `TokenBucket.take`."""
        counts, times = self._counts, self._times
        number = (mark >> 1) % self._sets
        first = HEAD + number * SET
        soonest, place = 0.0, -1
        for way in range(WAYS):
            if counts[first + way] == mark:
                return self._taken(first + way, number * WAYS + way, bucket, now, times[first + way + 2 * WAYS])
            full_at: float = times[first + way + WAYS]
            if place < 0 or full_at < soonest:
                soonest, place = full_at, way
        if soonest > now:
            self.evicted += 1
        moved = self._taken(first + place, number * WAYS + place, bucket, now, None)
        counts[first + place] = mark
        return moved

    def _taken(self, slot: int, cell: int, bucket: TokenBucket, now: float, base: float | None) -> float:
        """Take a token of the bucket in a slot; without a base it is full."""
        counts, times = self._counts, self._times
        taken = 0
        columns: int = counts[SECRET // 8]
        for column in range(columns):
            taken += counts[COLUMNS + column * COLUMN + cell]
        full_at = base + taken * bucket.interval if base is not None else 0.0
        moved = bucket.take(full_at, now)
        if moved > 0.0:
            counts[self._mine + cell] += 1
            if base is None or moved != full_at + bucket.interval:  # it was full
                times[slot + 2 * WAYS] = moved - (taken + 1) * bucket.interval
            times[slot + WAYS] = moved
        return moved


def create() -> int:
    """The memory for a table, with its secret; returns its descriptor. Raises OSError."""
    return create_memory("lb-rate-limits", SIZE)


def use(fd: int, region: int) -> None:
    """A process is to write this column: all look at it from now on."""
    columns = max(int.from_bytes(os.pread(fd, 8, SECRET), sys.byteorder), region + 1)
    os.pwrite(fd, columns.to_bytes(8, sys.byteorder), SECRET)
