"""Files with secrets that other users of the machine may read or change."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path as FilePath

from lb.config.check.lint_checks import Warned
from lb.config.model.config import Config
from lb.config.yaml.tree import Path


def mode(at: Path, file: str, what: str) -> Iterator[Warned]:
    try:
        bits = stat.S_IMODE(FilePath(file).stat().st_mode)
    except OSError:
        return
    if bits & 0o037:
        yield (
            "file-too-open",
            at,
            f"{what} in {file} has mode {bits:04o}: other users of this machine may {_verb(bits)} it",
            f"chmod 600 {file}",
        )


def modes_of_admin(config: Config) -> Iterator[Warned]:
    """Warnings about tokens and the key of the admin port that other users of this machine may read."""
    for at, file in config.admin.token_files():
        yield from mode(("admin", *at), file, "the token")
    if config.admin.tls is not None:
        yield from mode(("admin", "tls", "key_file"), config.admin.tls.key_file, "the key")


def _verb(bits: int) -> str:
    return "change" if bits & 0o022 else "read"
