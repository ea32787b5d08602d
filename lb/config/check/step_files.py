"""Whether the files that steps of routes and affinities of services go by can be used.

They are looked at while loading, so that a reload with a broken file of users is refused, and lets nobody in by mistake
or locks everybody out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path as FilePath

from lb.config.check.consistency import Finding
from lb.config.model.config import Config
from lb.config.yaml.tree import Path
from lb.core import affinity, key_file
from lb.core.user_file import WRITE, BadLine, read_users

#: Bytes of a file at most.
LARGEST = 4 << 20
#: Lines of one file that are named.
MOST = 3


def errors(config: Config) -> Iterator[Finding]:
    """Faults of all these files. A file that many routes share is named once for each."""
    for name, service in config.services.items():
        if service.affinity is not None:
            yield from _lines(("services", name, "affinity", "secret_file"), service.affinity.secret_file, _SECRETS)
    for index, route in enumerate(config.routes):
        for number, step in enumerate(route.steps):
            at: Path = ("routes", index, "steps", number)
            if step.basic_auth is not None:
                yield from _lines((*at, "basic_auth", "users_file"), step.basic_auth.users_file, _USERS)
            if step.api_keys is not None:
                yield from _lines((*at, "api_keys", "keys_file"), step.api_keys.keys_file, _KEYS)
            if step.jwt is not None and step.jwt.jwks_file is not None:
                yield from _key_set((*at, "jwt", "jwks_file"), step.jwt.jwks_file)


@dataclass(frozen=True, slots=True)
class _Lines:
    """A kind of file that has an entry on each line."""

    what: str  # that the file has, for people
    read: Callable[[bytes], tuple[Sized, list[BadLine]]]  # the entries, and the lines that are none
    empty: str  # what is wrong where there is no entry
    write: str  # how such a file is written


_USERS = _Lines("users", read_users, "has no users, so that nobody could come in", WRITE)
_KEYS = _Lines("keys", key_file.read_keys, "has no keys, so that nobody could come in", key_file.WRITE)
_SECRETS = _Lines("the secret", affinity.read_secrets, "has no secret", affinity.WRITE)


def _lines(at: Path, file: str, kind: _Lines) -> Iterator[Finding]:
    data = yield from _contents(at, file, kind.what)
    if data is None:
        return
    entries, bad = kind.read(data)
    yield from _bad_lines(at, file, bad, kind.write)
    if not entries and not bad:
        yield at, f"{file} {kind.empty}", kind.write


def _key_set(at: Path, file: str) -> Iterator[Finding]:
    data = yield from _contents(at, file, "keys")
    if data is None:
        return
    from lb.net.jwks import BadKeys, read_keys  # needs a library that is slow to import

    try:
        read_keys(data)
    except BadKeys as error:
        yield at, f"{file} cannot be used: {error}", "It must be a JWKS document (RFC 7517)."


def _bad_lines(at: Path, file: str, bad: list[BadLine], hint: str) -> Iterator[Finding]:
    for each in bad[:MOST]:
        more = f" (and {len(bad) - MOST} lines more)" if len(bad) > MOST and each is bad[MOST - 1] else ""
        yield at, f"{file}, line {each.number}: {each.reason}{more}", hint


def _contents(at: Path, file: str, what: str) -> Generator[Finding, None, bytes | None]:
    """Yields why it cannot be read; returns the contents, or None."""
    try:
        with FilePath(file).open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        yield at, f"{what} cannot be read from {file}: {reason}", "Relative paths begin at this file's folder."
        return None
    if len(data) > LARGEST:
        yield at, f"{file} is larger than {LARGEST >> 20} MiB", "Use another kind of authentication for so many."
        return None
    return data
