"""Targets from a file, or from all files of a directory.

It looks twice a second instead of asking for notifications. That sees every way of replacing files, on every file
system: renames, symbolic links turned elsewhere, files written in place. A change counts when all files have stayed the
same for one more look, so that no file is read while it is being written.

A file that cannot be used keeps what it named before. In a directory, the other files count all the same.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from lb.config.found import FoundFile
from lb.config.yaml.problems import ConfigError
from lb.core.membership import Answer, Found
from lb.discovery.source import NoAnswer, Tell, same

#: Seconds between two looks.
LOOK_EVERY = 0.5
#: Seconds after which files with faults are read again although none has changed.
READ_AGAIN = 2.0
#: Names of a directory's files that are read.
SUFFIXES = (".yaml", ".yml", ".json")
#: Files of one directory that are read at most.
MOST_FILES = 1000
#: Problems of one answer that are kept.
MOST_PROBLEMS = 5

#: Modification time (ns), size, inode and device of a file; None: it is not there.
_Stamp = tuple[int, int, int, int] | None
_Stamps = dict[Path, _Stamp]


class FileSource:
    """One file or directory."""

    def __init__(
        self,
        path: Path,
        every: float = LOOK_EVERY,
        read: Callable[[Path, str], tuple[Found, ...]] | None = None,
    ) -> None:
        self._path = path
        self._every = every
        self._read = read or FoundFile()
        self._parsed: dict[Path, tuple[_Stamp, tuple[Found, ...]]] = {}

    async def ask(self) -> Answer:
        return await asyncio.to_thread(self._answer)

    async def watch(self, tell: Tell) -> None:
        last: Answer | NoAnswer | None = None
        read: _Stamps | None = None
        read_at = 0.0
        before = await asyncio.to_thread(self._look)
        while True:
            now = await asyncio.to_thread(self._look)
            failing = isinstance(last, NoAnswer) or (last is not None and bool(last.problems))
            again = failing and time.monotonic() - read_at > READ_AGAIN  # its mode may be another one
            if now == before and (now != read or again):
                try:
                    found: Answer | NoAnswer = await self.ask()
                except NoAnswer as error:
                    found = error
                if now != read or not same(last, found):
                    last = found
                read, read_at = now, time.monotonic()
            before = now
            if last is not None:
                tell(last)
            await asyncio.sleep(self._every)

    def _files(self) -> list[Path] | None:
        """The files of a directory; None: it is a file."""
        if not self._path.is_dir():
            return None
        with os.scandir(self._path) as entries:
            names = sorted(entry.name for entry in entries)
        return [self._path / name for name in names if name.endswith(SUFFIXES) and name[0] not in ".#"][:MOST_FILES]

    def _look(self) -> _Stamps:
        try:
            files = self._files() or []
        except OSError:
            files = []
        return {path: _stamp(path) for path in (self._path, *files)}

    def _answer(self) -> Answer:
        try:
            files = self._files()
        except OSError as error:
            raise NoAnswer(f"{self._path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        if files is None:
            try:
                return Answer(self._read(self._path, ""))
            except ConfigError as error:
                raise NoAnswer(error.brief) from None
        found: list[Found] = []
        unanswered: set[str] = set()
        problems: list[str] = []
        for path in files:
            try:
                found += self._of(path)
            except ConfigError as error:
                unanswered.add(path.name)
                problems.append(error.brief)
        self._parsed = {path: known for path, known in self._parsed.items() if path in files}
        return Answer(tuple(found), frozenset(unanswered), tuple(problems[:MOST_PROBLEMS]))

    def _of(self, path: Path) -> tuple[Found, ...]:
        """A file that has not changed is not read again."""
        stamp = _stamp(path)
        known = self._parsed.get(path)
        if known is None or known[0] != stamp:
            self._parsed[path] = known = stamp, self._read(path, path.name)
        return known[1]


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
