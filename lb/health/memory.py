"""Verdicts and ejections on disk, so that a supervisor that comes back knows who was ready a moment ago.

The file is replaced whole by a rename and never flushed to the disk: after a power cut the targets are probed first, as
they are after any restart that took too long (`core.continuity`). A file that is damaged or cannot be written costs
nothing but that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from lb.core.continuity import Kept

FILE = "verdicts.json"


class Memory:
    """The verdicts' file in the state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def read(self) -> list[Kept]:
        """What was kept; nothing when there is none, or none that can be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Kept])
        except (OSError, msgspec.DecodeError):
            return []

    def write(self, kept: list[Kept]) -> bool:
        """Replace the file; False when the disk does not take it."""
        temporary = self._path.with_name(f".{FILE}.{os.getpid()}")
        try:
            # Texts of answers are in it: nobody else is to read it.
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.encode(kept))
            temporary.replace(self._path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return False
        return True
