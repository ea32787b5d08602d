"""The last members of each source on disk, so that a restart without the sources serves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from lb.core.membership import Found
from lb.core.renames import Place
from lb.net import atomic_file

FILE = "discovery.json"


class _Stored(msgspec.Struct, frozen=True):
    service: str
    pool: str
    found: list[Found]


class FoundStore:
    """The file in the state directory. A damaged or missing one means that nothing is known."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def read(self) -> dict[Place, tuple[Found, ...]]:
        """Blocks."""
        try:
            stored = msgspec.json.decode(self._path.read_bytes(), type=list[_Stored])
        except (OSError, msgspec.DecodeError):
            return {}
        return {(each.service, each.pool): tuple(each.found) for each in stored}

    def write(self, found: Mapping[Place, tuple[Found, ...]]) -> bool:
        """Replace the file. False when it cannot be written. Blocks."""
        stored = [_Stored(service, pool, list(each)) for (service, pool), each in found.items()]
        try:
            atomic_file.write(self._path, msgspec.json.encode(stored))
        except OSError:
            return False
        return True
