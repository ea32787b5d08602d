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
_encode = msgspec.json.Encoder().encode


class VerdictStore:
    """The verdicts' file in the state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._encoded: dict[str, tuple[Kept, bytes]] = {}  # by target, as written last
        self._written: tuple[int, int] | None = None  # the file as this store has written it; None: it has not

    def read(self) -> list[Kept]:
        """The stored verdicts. [] when the file is missing or unreadable."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Kept])
        except (OSError, msgspec.DecodeError):
            return []

    def write(self, kept: list[Kept]) -> bool:
        """Replace the file, unless it has that content already. False when it cannot be written.

        It is called each second, and of thousands of targets few have changed: each is encoded once.
        """
        former, encoded, changed = self._encoded, {}, len(kept) != len(self._encoded)
        for each in kept:
            known = former.get(each.target)
            if known is None or known[0] is not each:
                known, changed = (each, _encode(each)), True
            encoded[each.target] = known
        self._encoded = encoded
        if not changed and self._written is not None and self._written == self._there():
            return True
        self._written = None
        try:
            atomic_file.write(self._path, b"[" + b",".join([data for _, data in encoded.values()]) + b"]")
        except OSError:
            return False
        self._written = self._there()
        return True

    def _there(self) -> tuple[int, int] | None:
        """What tells the file that is there from any other one; None: there is none. Another lb writes there, too."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns
