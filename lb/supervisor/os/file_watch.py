"""Notices that the configuration file, or a TLS file that it names, has changed, for `watch: true`.

It looks once a second instead of asking for notifications. That sees every way of replacing files, on every file
system. They may be written in place, renamed over, or be a symbolic link turned elsewhere, as Kubernetes does with a
ConfigMap. It costs one system call a file. A change counts when all files have stayed the same for one more look. So a
file that is being written is not read half, nor a certificate taken without its new key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

#: Seconds between two looks.
LOOK_EVERY = 1.0


#: Modification time (ns), size, inode, device of each file; None: it cannot be looked at.
Stamp = tuple[int, int, int, int] | None


class FileWatch:
    """One file, and further files that go with it. `changed` is awaited for each change, one after the other."""

    def __init__(
        self,
        path: Path,
        changed: Callable[[], Awaitable[None]],
        every: float = LOOK_EVERY,
        more: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._path = path
        self._more = more
        self._changed = changed
        self._every = every
        self._seen = self._look()

    def seen(self) -> None:
        """The file was just read for another reason: its present text is no news."""
        self._seen = self._look()

    async def run(self) -> None:
        """Look until cancelled."""
        before = self._seen
        while True:
            await asyncio.sleep(self._every)
            now = self._look()
            if now is not None and now == before:
                former, self._seen = self._seen, now
                # A file that the configuration names only now was read when it was loaded.
                if any(stamp != (former or {}).get(path, stamp) for path, stamp in now.items()):
                    try:
                        await self._changed()
                    except Exception:
                        self._seen = former  # the change is not in force: the next run finds it again
                        raise
            before = now

    def _look(self) -> dict[Path, Stamp] | None:
        """The stamps of all files; None while the file itself is not there."""
        stamps = {path: stamp(path) for path in (self._path, *map(Path, self._more()))}
        return stamps if stamps[self._path] is not None else None


def stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
