"""Certificates, orders and accounts of lb's own, below `state_dir`. Folders are 0700, files 0600, replaced whole.

    acme/accounts/HOST-HASH/account.json, key.pem
    acme/certificates/NAME-HASH/certificate.pem   key and chain in one file: a pair can never be half of one
    acme/certificates/NAME-HASH/order.json        an order under way, with the key it is for
    acme/certificates/NAME-HASH/staging.json      an order under way at the staging authority
    acme/certificates/NAME-HASH/state.json        failures, next attempt, renewal window

All functions block and raise `OSError`. A file that cannot be read as what it should be is taken as missing: it is
written anew, and `complaint` says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from lb.config.certificate_sources import acme_file, acme_folder
from lb.issuing.acme.material import Facts, Unusable, facts
from lb.issuing.acme.order import OrderRecord
from lb.issuing.acme.renewal import Ari
from lb.net import atomic_file

FOLDER_MODE = 0o700
#: Bytes of one file that are read at most.
LARGEST = 1 << 20

Value = TypeVar("Value", bound=msgspec.Struct)


class Account(msgspec.Struct, frozen=True):
    """An account at an authority."""

    directory: str
    url: str
    contact: str = ""


class NameState(msgspec.Struct, frozen=True):
    """What has to outlive a restart, of one certificate. Times are Unix times, 0: never."""

    waiting_since: float = 0.0  # wanted, and never issued yet
    failures: int = 0  # in a row
    failing_since: float = 0.0
    failed_at: float = 0.0
    failure: str = ""
    judged: bool = False  # the last failure was the authority's verdict
    staging_passed: bool = False  # since the last failure
    next_attempt: float = 0.0
    ordered_at: float = 0.0  # the last order that was placed
    ari: Ari = Ari()


class Stored(msgspec.Struct, frozen=True):
    """A certificate on the disk, or in memory where the disk takes nothing."""

    pem: bytes  # key and chain
    facts: Facts


class Busy(Exception):  # noqa: N818 - it says what the store is
    """Another process works with it."""


class Store:
    """The folder `acme` of one `state_dir`."""

    def __init__(self, state_dir: Path, complain: Callable[[str], None] = lambda text: None) -> None:
        self.folder = state_dir / "acme"
        self._state_dir = str(state_dir)
        self._complain = complain
        self._lock = -1

    def lock(self) -> None:
        """Be the only process that orders. Raises `Busy`; a process that dies gives the lock back."""
        if self._lock >= 0:
            return
        _make(self.folder)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, atomic_file.PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise Busy(f"{self.folder}: another lb orders certificates") from None
        self._lock = descriptor

    def unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def tidy(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        with suppress(OSError):
            for folder in self.folder.glob("*/*/"):
                for path in atomic_file.left_over(folder):
                    with suppress(OSError):
                        path.unlink()

    # --- accounts ---------------------------------------------------------------------------------------------------

    def account_key(self, directory: str) -> bytes | None:
        return _read(self._account(directory) / "key.pem")

    def save_account_key(self, directory: str, pem: bytes) -> None:
        self._write(self._account(directory) / "key.pem", pem)

    def account(self, directory: str) -> Account | None:
        found = self._decoded(self._account(directory) / "account.json", Account)
        return found if found is not None and found.directory == directory else None

    def drop_account(self, directory: str) -> None:
        """The authority does not know it any more. Its key stays, since orders may be bound to it."""
        with suppress(FileNotFoundError):
            (self._account(directory) / "account.json").unlink()

    def save_account(self, account: Account) -> None:
        self._write(self._account(account.directory) / "account.json", msgspec.json.encode(account))

    def _account(self, directory: str) -> Path:
        host = re.sub(r"[^a-z0-9.-]+", "-", directory.partition("//")[2].partition("/")[0].lower())
        return self.folder / "accounts" / f"{host[:100]}-{_hash(directory)}"

    # --- certificates -----------------------------------------------------------------------------------------------

    def certificate_path(self, id: str) -> Path:
        return acme_file(self._state_dir, id)

    def certificate(self, id: str) -> Stored | None:
        data = _read(self.certificate_path(id))
        if data is None:
            return None
        try:
            return Stored(data, facts(data, data.decode("ascii")))
        except (Unusable, ValueError) as error:
            self._complain(f"{self.certificate_path(id)} cannot be used, and is not: {error}")
            return None

    def save_certificate(self, id: str, pem: bytes) -> None:
        self._write(self.certificate_path(id), pem)

    def order(self, id: str, staging: bool = False) -> OrderRecord | None:
        return self._decoded(self._order(id, staging), OrderRecord)

    def save_order(self, id: str, record: OrderRecord, staging: bool = False) -> None:
        self._write(self._order(id, staging), msgspec.json.encode(record))

    def drop_order(self, id: str, staging: bool = False) -> None:
        with suppress(FileNotFoundError):
            self._order(id, staging).unlink()

    def _order(self, id: str, staging: bool) -> Path:
        return self._certificate(id) / ("staging.json" if staging else "order.json")

    def state(self, id: str) -> NameState:
        return self._decoded(self._certificate(id) / "state.json", NameState) or NameState()

    def save_state(self, id: str, state: NameState) -> None:
        self._write(self._certificate(id) / "state.json", msgspec.json.encode(state))

    def _certificate(self, id: str) -> Path:
        return acme_folder(self._state_dir, id)

    # --- files ------------------------------------------------------------------------------------------------------

    def _write(self, path: Path, data: bytes) -> None:
        _make(path.parent)
        atomic_file.write(path, data, durable=True)

    def _decoded(self, path: Path, kind: type[Value]) -> Value | None:
        data = _read(path)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._complain(f"{path} cannot be read, and is not used: {error}")
            return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _read(path: Path) -> bytes | None:
    """The file's contents; None: there is no such file, or none of that size. Raises `OSError` for anything else: a
    disk that cannot be read now must not look like one without certificates."""
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data if len(data) <= LARGEST else None


def _make(folder: Path) -> None:
    """Make a folder and the ones above it, closed to other users."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with suppress(FileExistsError):
            each.mkdir(FOLDER_MODE)
