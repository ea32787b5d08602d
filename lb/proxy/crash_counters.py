"""Crash counters: after a worker's death, how many requests were under way and how many log lines were unwritten.

A few numbers in a page of memory that the supervisor has as well (memfd_create(2)). Reports go out four times a second;
these are true to the request, whatever the worker dies of. They cost two stores per request.

A cell has one writer each: the loop, or the thread that writes the access log.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Final

SIZE: Final = 4096
#: The counters are requests begun, requests over, log lines that the writing thread is done with, and lines that it
#: never had to write. Then come whether there is a log, and lines that the writing thread has begun to write. Until the
#: thread is done with them, it is unknown whether the file has them.
BEGUN: Final = 0
OVER: Final = 1
WRITTEN: Final = 2
UNWRITTEN: Final = 3
LOGGED: Final = 4
TAKEN: Final = 5


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The unfinished work of a worker that has ended."""

    under_way: int
    lines: int  # of the access log, that were not written


NOTHING: Final = Unfinished(0, 0)


def cells(fd: int = -1) -> memoryview:
    """A worker's page, to write into. Without a descriptor it is private memory."""
    page = mmap.mmap(fd, SIZE) if fd >= 0 else bytearray(SIZE)
    return memoryview(page).cast("q")


def create() -> int:
    """A page for a worker; returns its descriptor, or -1 where the kernel gives none."""
    try:
        fd = os.memfd_create("lb-crash-counters", os.MFD_CLOEXEC)
        os.ftruncate(fd, SIZE)
    except (OSError, AttributeError):
        return -1
    return fd


def read(fd: int) -> Unfinished | None:
    """The unfinished work of a worker that has ended, by its page. None when the page cannot be read."""
    try:
        page = memoryview(os.pread(fd, SIZE, 0)).cast("q")
    except (OSError, TypeError):
        return None
    owed = page[OVER] - page[WRITTEN] - page[UNWRITTEN] if page[LOGGED] else 0
    return Unfinished(max(0, page[BEGUN] - page[OVER]), max(0, owed))
