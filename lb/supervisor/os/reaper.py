"""The duties of process 1. Orphaned children become its own when their parents die, and stay in the process table until
it asks for them.

Containers have no init of their own, and a health check that is a command may leave grandchildren. The event loop waits
for the children it has started, and for no other ones. A child that lies dead for two looks in a row is not the loop's
own.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

#: Seconds between two looks.
LOOK_EVERY = 5.0


def is_needed() -> bool:
    """Whether orphans become this process's children."""
    return os.getpid() == 1


async def run(every: float = LOOK_EVERY) -> None:
    """Look until cancelled."""
    before: set[int] = set()
    while True:
        await asyncio.sleep(every)
        dead = dead_children()
        for pid in dead & before:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it is dead, and nothing is waited for
        before = dead - before


def dead_children() -> set[int]:
    """Children of this process that have ended and were not asked for."""
    dead = set()
    mine = str(os.getpid())
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, IndexError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z" and parent == mine:
                    dead.add(int(entry.name))
    return dead
