"""Puts a new text in the place of a file: whole, on the disk, and with what was there before kept as FILE~.

The text is written beside the file and renamed over it, so that whoever reads the file finds the old text or the new
one, never a part. What a symbolic link leads to is replaced, not the link. Mode and owner stay, as far as the system
allows. A file that is mounted by itself, or in a folder that may not be written (a ConfigMap), cannot be replaced:
`OSError`, and nothing has changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class Replacement:
    """A text that stands beside its file. `put` makes it the file; the end of the block removes it otherwise."""

    def __init__(self, path: Path, text: str) -> None:
        self._file = path.resolve()
        fd, name = tempfile.mkstemp(prefix=f".{self._file.name}.", suffix=self._file.suffix, dir=self._file.parent)
        self.path = Path(name)
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
            with suppress(FileNotFoundError):
                now = self._file.stat()
                self.path.chmod(now.st_mode & 0o7777)
                with suppress(PermissionError):
                    os.chown(self.path, now.st_uid, now.st_gid)
        except BaseException:
            self.path.unlink()
            raise

    def put(self) -> None:
        """From here on it is the file."""
        with suppress(FileNotFoundError):
            shutil.copy2(self._file, self._file.with_name(f"{self._file.name}~"))
        self.path.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
