"""Verdicts and ejections on disk, so that a supervisor that comes back knows who was ready a moment ago.

The file is replaced whole by a rename and never flushed to the disk: after a power cut the targets are probed first, as
they are after any restart that took too long (`core.continuity`). A file that is damaged or cannot be written costs
nothing but that.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lb.core.continuity import Kept
from lb.net import atomic_file

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
        try:
            atomic_file.write(self._path, msgspec.json.encode(kept))
        except OSError:
            return False
        return True
