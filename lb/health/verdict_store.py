"""Verdicts and ejections on disk, so that a restarted supervisor keeps the targets that were ready a moment ago.

The file is replaced by a rename and never flushed to the disk. After a power cut, or a restart that took too long
(`core.restore`), the targets are probed before they get requests. A damaged or unwritable file has the same effect.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lb.core.restore import Kept
from lb.net import atomic_file

FILE = "verdicts.json"


class VerdictStore:
    """The verdicts' file in the state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def read(self) -> list[Kept]:
        """The stored verdicts. [] when the file is missing or unreadable."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Kept])
        except (OSError, msgspec.DecodeError):
            return []

    def write(self, kept: list[Kept]) -> bool:
        """Replace the file. False when it cannot be written."""
        try:
            atomic_file.write(self._path, msgspec.json.encode(kept))
        except OSError:
            return False
        return True
