"""Replaces files so that a reader finds the old contents or the new ones, never a part.

The new contents are written beside the file and renamed over it. Two kinds of file are replaced. The program's own
state is replaced by `write`. A file that belongs to the operator is replaced by `Replacement`, and keeps its mode,
owner and former text.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

#: Mode of the program's own files: texts of targets' answers are in them.
PRIVATE = 0o600


def write(path: Path, data: bytes, *, durable: bool = False, keep: Path | None = None) -> None:
    """Replace `path` by `data`. Blocks; raises `OSError`, and then the file is as it was.

    `durable`: flush the data and the folder to the disk, so that a power cut leaves one of both. `keep`: a second name
    for the former contents.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if keep is not None:
            with suppress(FileNotFoundError):
                with suppress(FileNotFoundError):
                    keep.unlink()
                os.link(path, keep)
        temporary.replace(path)
        if durable:
            _flush_folder(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def left_over(folder: Path) -> Iterator[Path]:
    """Temporary files of processes that were killed while they wrote. Raises `OSError`."""
    for entry in folder.iterdir():
        if entry.name.startswith(".") and entry.name.rpartition(".")[2].isdecimal():
            yield entry


class Replacement:
    """A new text beside an operator's file. `put` makes it the file; otherwise the end of the block removes it.

    The target of a symbolic link is replaced, not the link. The former text is kept as FILE~. A file that is mounted by
    itself, or in a folder that may not be written (a ConfigMap), cannot be replaced: `OSError`, nothing has changed.
    """

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
        """Make the new text the file. Raises `OSError`."""
        with suppress(FileNotFoundError):
            shutil.copy2(self._file, self._file.with_name(f"{self._file.name}~"))
        self.path.replace(self._file)
        _flush_folder(self._file.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
