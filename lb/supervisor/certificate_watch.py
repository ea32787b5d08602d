"""Notices that files of listeners' certificates have changed: renewed, added to a directory, or turned elsewhere.

It looks twice a second instead of asking for notifications, as the watch on the configuration does: that sees renames,
files written in place and symbolic links alike, on every file system. A change counts when all files have stayed the
same for one more look. `changed` is awaited then, and again once a minute, because a certificate that was kept for its
successor's sake may end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from lb.supervisor.os.file_watch import Stamp, stamp

#: Seconds between two looks.
LOOK_EVERY = 0.5
#: Seconds after which certificates are read again although no file has changed.
READ_AGAIN = 60.0

_Stamps = dict[Path, Stamp]


class CertificateWatch:
    """`paths`: the files, and the directories whose files count as well."""

    def __init__(
        self,
        paths: Callable[[], Iterable[str]],
        changed: Callable[[], Awaitable[None]],
        every: float = LOOK_EVERY,
        read_again: float = READ_AGAIN,
    ) -> None:
        self._paths = paths
        self._changed = changed
        self._every = every
        self._read_again = read_again

    async def run(self) -> None:
        """Look until cancelled."""
        in_force = before = await self._look()
        read_at = time.monotonic()
        while True:
            await asyncio.sleep(self._every)
            now = await self._look()
            settled = now == before
            before = now
            late = bool(now) and time.monotonic() - read_at > self._read_again
            if settled and (now != in_force or late):
                await self._changed()
                in_force, read_at = now, time.monotonic()

    async def _look(self) -> _Stamps:
        paths = list(self._paths())
        # Hundreds of files on a slow file system must not delay a probe.
        return await asyncio.to_thread(_stamps, paths) if paths else {}


def _stamps(paths: Iterable[str]) -> _Stamps:
    found: _Stamps = {}
    for path in map(Path, paths):
        found[path] = stamp(path)
        try:
            inside = list(path.iterdir())
        except OSError:  # it is a file, or it is gone
            continue
        found.update((each, stamp(each)) for each in inside if not each.name.startswith("."))
    return found
