"""A file of lines that only ever grows at its end, and is bounded: when it is full it becomes the old one.

After a crash the disk has the lines written before, and perhaps the beginning of one more line. That is ended before
the next one. A disk that takes no more costs lines, never anything else, and `trouble` says so until a line is written
again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Bytes of the file after which it becomes the old one, and a new one begins.
FILE_LIMIT = 4 << 20
#: Bytes of a file beyond that which are read at most: the limit was another one, or it is no file at all.
MARGIN = 1 << 20


class JsonLines:
    """`name.jsonl` and, once that has been full, `name.old.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.trouble = ""  # why lines cannot be written; empty: they are
        self._path = path
        self._old = path.with_suffix(".old.jsonl")
        self._size = 0
        self._torn = False  # the last line is not whole: the next one must not hang on it
        with suppress(OSError), path.open("rb") as file:
            self._size = file.seek(0, os.SEEK_END)
            if self._size:
                file.seek(-1, os.SEEK_END)
                self._torn = file.read(1) != b"\n"

    def lines(self) -> Iterator[bytes]:
        """All lines that there are, oldest first; one may be torn or damaged."""
        for path in (self._old, self._path):
            with suppress(OSError), path.open("rb") as file:
                yield from file.read(FILE_LIMIT + MARGIN).splitlines()

    def append(self, lines: bytes) -> bool:
        """Write whole lines, each with its end; False when the disk does not take them."""
        data = b"\n" + lines if self._torn else lines
        try:
            if self._size and self._size + len(data) > FILE_LIMIT:
                self._path.replace(self._old)
                self._size, self._torn, data = 0, False, lines
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                written = os.write(fd, data)
            finally:
                os.close(fd)
            self._size += written
            self._torn = written < len(data)
            self.trouble = f"{self._path}: no room for all of it" if self._torn else ""
        except OSError as error:
            self.trouble = f"{self._path}: {error.strerror or error}"
        return not self.trouble
