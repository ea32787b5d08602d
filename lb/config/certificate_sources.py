"""The pairs of files that a source of certificates consists of.

A directory's pairs are `NAME.pem` or `NAME.crt` with `NAME.key`. Hidden files do not count: Kubernetes keeps the
versions of a ConfigMap in them, and tools their unfinished files. Certificates of ACME accounts and of lb's own
authority are directories below `state_dir`, which the supervisor writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lb.core.certificates import Source

#: Where certificates that lb has got by itself are, below `state_dir`.
STORED = "certificates"
_CERTIFICATES = (".pem", ".crt")


@dataclass(frozen=True, slots=True)
class Listing:
    """The pairs of a directory, and the files that belong to none."""

    pairs: tuple[tuple[str, str], ...] = ()
    strays: tuple[tuple[str, str], ...] = ()  # file, and why


def directory_of(source: Source, state_dir: str) -> str:
    """The directory of a source's pairs; empty: it is one pair."""
    if source.acme:
        return str(Path(state_dir) / STORED / "acme" / source.acme)
    if source.internal:
        return str(Path(state_dir) / STORED / "internal")
    return source.directory


def list_directory(directory: str) -> Listing:
    """The pairs of a directory, by name. Raises `OSError` when it cannot be read."""
    names = sorted(each.name for each in Path(directory).iterdir() if not each.name.startswith(".") and each.is_file())
    return Listing(tuple(_pairs(directory, names)), tuple(_strays(directory, names)))


def _pairs(directory: str, names: list[str]) -> Iterator[tuple[str, str]]:
    present = set(names)
    for name in names:
        stem = name.rpartition(".")[0]
        if name.endswith(_CERTIFICATES) and f"{stem}.key" in present and not _is_second(name, present):
            yield f"{directory}/{name}", f"{directory}/{stem}.key"


def _is_second(name: str, present: set[str]) -> bool:
    """Whether a `.crt` stands beside a `.pem` of the same name, which is the one that counts."""
    return name.endswith(".crt") and f"{name.removesuffix('.crt')}.pem" in present


def _strays(directory: str, names: list[str]) -> Iterator[tuple[str, str]]:
    present = set(names)
    for name in names:
        stem = name.rpartition(".")[0]
        path = f"{directory}/{name}"
        if name.endswith(".key"):
            if not any(f"{stem}{ending}" in present for ending in _CERTIFICATES):
                yield path, f"there is no certificate {stem}.pem beside it"
        elif not name.endswith(_CERTIFICATES):
            yield path, "it is neither a certificate (.pem, .crt) nor a key (.key)"
        elif _is_second(name, present):
            yield path, f"{stem}.pem is the certificate of that name"
        elif f"{stem}.key" not in present:
            yield path, f"there is no key {stem}.key beside it"
