"""RateTable: the buckets of all rate limits, in a piece of memory that all workers have (memfd_create(2)).

A bucket is one number (`core.rate_limit`), so a request reads it and writes it, and no worker waits for another one.
Two workers that do so within the same tenth of a microsecond count one request for two. A worker that is suspended
between both gives back what other ones took meanwhile. Both are rare, and far below a hundredth of what passes.

The table has `SETS` sets of `WAYS` slots. A key has its set by a hash with a secret, so no client chooses its place. A
slot whose bucket is full again is free. If a set has no free slot, the bucket that is full soonest gives way, and is
counted: a full table never refuses a request.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from hashlib import blake2b
from typing import Final

from lb.core.rate_limit import TokenBucket

SETS: Final = 1 << 14
WAYS: Final = 8
#: Looks at a bucket that other workers take from at the same moment.
TRIES: Final = 4
#: Bytes of the secret, at the table's beginning, and of all before the first slot.
SECRET: Final = 32
HEAD: Final = 64
#: Two numbers of eight bytes for a slot: the key's mark, and the time at which its bucket is full. Pages that no key
#: uses take no memory.
SIZE: Final = HEAD + SETS * WAYS * 16


class RateTable:
    """The table in one worker. Without a descriptor it is private memory."""

    __slots__ = ("_marks", "_secret", "_times", "evicted")

    def __init__(self, fd: int = -1) -> None:
        memory = memoryview(mmap.mmap(fd, SIZE))
        if fd < 0:
            memory[:SECRET] = os.urandom(SECRET)
        self._secret = bytes(memory[:SECRET])
        self._marks = memory.cast("Q")
        self._times = memory.cast("d")
        self.evicted = 0  # buckets that were not full, and gave way to other keys

    def mark(self, limit: bytes, key: bytes) -> int:
        """What stands for a key of a limit in the table; never 0."""
        digest = blake2b(limit + b"\0" + key, digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "little") | 1

    def take(self, mark: int, bucket: TokenBucket, now: float) -> float:
        """Take a token; see `TokenBucket.take`."""
        marks, times = self._marks, self._times
        first = HEAD // 8 + (mark >> 1) % SETS * (2 * WAYS)
        soonest, place = 0.0, -1
        for slot in range(first, first + WAYS):
            if marks[slot] == mark:
                return self._taken(slot + WAYS, bucket, now)
            full_at: float = times[slot + WAYS]
            if place < 0 or full_at < soonest:
                soonest, place = full_at, slot
        if soonest > now:
            self.evicted += 1
        moved = bucket.take(0.0, now)
        times[place + WAYS] = moved
        marks[place] = mark
        return moved

    def _taken(self, place: int, bucket: TokenBucket, now: float) -> float:
        """Take a token of the bucket at a place. What another worker took meanwhile counts: it is looked at again right
        before it is replaced."""
        times, moved = self._times, 0.0
        for _ in range(TRIES):
            full_at: float = times[place]
            moved = bucket.take(full_at, now)
            if moved <= 0.0:
                return moved
            if times[place] == full_at:
                break
        times[place] = moved
        return moved


def create() -> int:
    """The memory for a table, with its secret; returns its descriptor. Raises OSError."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("lb-rate-limits", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, SIZE)
    os.pwrite(fd, os.urandom(SECRET), 0)
    return fd
