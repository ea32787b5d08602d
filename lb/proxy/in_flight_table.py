"""InFlightTable: requests under way by key, of all workers, in a piece of memory that they share.

Each worker process has a region of its own, which it alone writes, so no count is lost. It reads the regions of all.
The supervisor gives out regions, and clears the region of a process that has ended. So a worker that is killed leaves
no request behind.

A region has `SETS` sets of `WAYS` slots. A slot without requests is free. If a set has none, more keys have requests
under way than the table is made for: these requests pass uncounted.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from typing import Final

from lb.proxy.limit_memory import REGIONS, SECRET, create_memory, mark_of

SETS: Final = 512
WAYS: Final = 8
HEAD: Final = 64
#: A set is the marks of its keys, and then the requests under way of each.
_HALF: Final = struct.Struct(f"={WAYS}q")
REGION: Final = SETS * 2 * _HALF.size
SIZE: Final = HEAD + REGIONS * REGION
#: Instead of a slot: the request is not counted, or too many are under way.
UNCOUNTED: Final = -1
FULL: Final = -2


class InFlightTable:
    """The table in one worker, whose region is `region`. Without a descriptor it is private memory. Of the sets only
    the first `sets` are used."""

    __slots__ = ("_cells", "_memory", "_mine", "_secret", "_sets")

    def __init__(self, fd: int = -1, region: int = 0, sets: int = SETS) -> None:
        self._memory = memoryview(mmap.mmap(fd, SIZE))
        if fd < 0:
            self._memory[:SECRET] = os.urandom(SECRET)
        self._secret = bytes(self._memory[:SECRET])
        self._cells = self._memory.cast("q")
        if fd < 0:
            self._cells[SECRET // 8] = region + 1
        self._mine = region
        self._sets = sets

    def mark(self, limit: bytes, key: bytes) -> int:
        """What stands for a key of a limit in the table; never 0."""
        return mark_of(self._secret, limit, key)

    def enter(self, mark: int, limit: int) -> int:
        """Count one more request, and return its slot for `leave`; or `FULL`, or `UNCOUNTED`.

        Two workers that count the last one within the same microsecond may both pass.
        """
        memory, place = self._memory, HEAD + (mark >> 1) % self._sets * (2 * _HALF.size)
        total, own = 0, -1
        regions: int = self._cells[SECRET // 8]
        for region in range(regions):
            marks = _HALF.unpack_from(memory, place + region * REGION)
            if mark in marks:
                slot = (place + region * REGION + _HALF.size) // 8 + marks.index(mark)
                total += self._cells[slot]
                if region == self._mine:
                    own = slot
        if total >= limit:
            return FULL
        if own < 0:
            counts = _HALF.unpack_from(memory, place + self._mine * REGION + _HALF.size)
            if 0 not in counts:
                return UNCOUNTED
            own = (place + self._mine * REGION + _HALF.size) // 8 + counts.index(0)
            self._cells[own - WAYS] = mark
        self._cells[own] += 1
        return own

    def leave(self, slot: int) -> None:
        """A counted request is over."""
        self._cells[slot] -= 1


class Regions:
    """The supervisor's side: which process has which region."""

    def __init__(self) -> None:
        self.fd = create_memory("lb-in-flight", SIZE)
        self._given: set[int] = set()
        self._most = 0

    def give(self) -> int:
        """A region for a new process; -1: none is free."""
        region = next((number for number in range(REGIONS) if number not in self._given), -1)
        if region >= 0:
            self._given.add(region)
            self._most = max(self._most, region + 1)
            os.pwrite(self.fd, self._most.to_bytes(8, sys.byteorder), SECRET)
        return region

    def take_back(self, region: int) -> None:
        """The process has ended: its requests are over."""
        if region in self._given and self.fd >= 0:
            os.pwrite(self.fd, bytes(REGION), HEAD + region * REGION)
            self._given.discard(region)

    def close(self) -> None:
        """Workers have the table themselves."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
