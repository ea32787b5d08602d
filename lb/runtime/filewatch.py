"""Notices that the configuration file has changed, for `watch: true`.

It looks once a second instead of asking for notifications: that sees every way in which files are replaced (written in
place, renamed over, a symbolic link turned elsewhere as Kubernetes does with a ConfigMap) on every file system, and
costs one system call. A change counts when the file has stayed the same for one more look, so that a file that is
being written is not read half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

#: Seconds between two looks.
LOOK_EVERY = 1.0


class FileWatch:
    """One file. `changed` is awaited for each change, one after the other."""

    def __init__(self, path: Path, changed: Callable[[], Awaitable[None]], every: float = LOOK_EVERY) -> None:
        self._path = path
        self._changed = changed
        self._every = every
        self._seen = self._look()

    def seen(self) -> None:
        """The file was just read for another reason: what it is now is no news."""
        self._seen = self._look()

    async def run(self) -> None:
        """Look until cancelled."""
        before = self._seen
        while True:
            await asyncio.sleep(self._every)
            now = self._look()
            if now is not None and now == before and now != self._seen:
                self._seen = now
                await self._changed()
            before = now

    def _look(self) -> tuple[int, int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
