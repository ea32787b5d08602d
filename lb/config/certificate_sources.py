"""The pairs of files that a source of certificates consists of.

A directory's pairs are `NAME.pem` or `NAME.crt` with `NAME.key`. Hidden files do not count: Kubernetes keeps the
versions of a ConfigMap in them, and tools their unfinished files.

Certificates that lb has ordered from an ACME authority, or issued by its own one, are below `state_dir`, where the
supervisor writes them. There is one for each name, so that a name that fails takes no other one along. Key and chain
are in one file: it is replaced whole, and a pair is never half of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_CERTIFICATES = (".pem", ".crt")


@dataclass(frozen=True, slots=True)
class Listing:
    """The pairs of a directory, and the files that belong to none."""

    pairs: tuple[tuple[str, str], ...] = ()
    strays: tuple[tuple[str, str], ...] = ()  # file, and why


def certificate_id(names: Sequence[str], directory: str, profile: str = "") -> str:
    """The name of an ordered certificate's folder: the same for the same names at the same authority, in any order."""
    ordered = sorted(names)
    wanted = "\n".join([directory, profile, *ordered])
    return f"{_part(ordered[0])}-{hashlib.sha256(wanted.encode()).hexdigest()[:10]}"


def acme_folder(state_dir: str, id: str) -> Path:
    """The folder of an ordered certificate."""
    return Path(state_dir) / "acme" / "certificates" / id


def acme_file(state_dir: str, id: str) -> Path:
    """The file of an ordered certificate, with its key."""
    return acme_folder(state_dir, id) / "certificate.pem"


def internal_file(state_dir: str, name: str) -> Path:
    """The file of a certificate of lb's own authority, with its key."""
    return Path(state_dir) / "internal" / f"{_part(name)}.pem"


def _part(name: str) -> str:
    """A host name as a part of a path."""
    return name.replace("*", "_").replace("/", "_")[:150]


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
