"""Desired state on disk: written before it takes effect, so that kill -9 at any moment leaves one of two legal states.

The former file is kept beside the new one, and every file carries a checksum. So a torn or damaged file is noticed, and
the last good one is used instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from lb.core.desired import Desired
from lb.net import atomic_file
from lb.supervisor.desired import CannotSave

FILE = "desired.json"
LAST_GOOD = "desired.last.json"
DAMAGED = "desired.damaged.json"
LOCK = "lock"
#: Grows when the meaning of the file changes.
FORMAT = 1


class StateTaken(Exception):  # noqa: N818 - it says what happened
    """Another lb uses this state directory."""


class FileStore:
    """`lb.supervisor.desired.Store` in the state directory of one supervisor, which its lock makes the only writer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the directory for this process. Raises `StateTaken`, or OSError when it cannot be made."""
        self.directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise StateTaken(
                f"{self.directory} is used by another lb (process {holder or 'unknown'}); "
                "stop it, or give this one a state_dir of its own"
            ) from None
        self.take_lock(fd)
        self._sweep()

    def _sweep(self) -> None:
        """Remove half-written files of processes that were killed while they wrote: over years it would be many."""
        with suppress(OSError):
            for entry in atomic_file.left_over(self.directory):
                entry.unlink()

    def take_lock(self, fd: int) -> None:
        """Hold a lock that this process or its predecessor has got; from now on it names this process."""
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock = fd

    @property
    def lock_fd(self) -> int:
        """The lock's descriptor, for a successor: the lock is held until the last copy is closed."""
        assert self._lock is not None
        return self._lock

    @property
    def lock_path(self) -> Path:
        """The file that names the process which holds the lock."""
        return self.directory / LOCK

    def unlock(self) -> None:
        """Let the directory go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def load(self) -> tuple[Desired | None, str]:
        """(the newest good state, the fault of a newer one); None when there is none at all.

        A damaged file is put aside, so that it is there to be looked at and never becomes the last good one.
        """
        complaints = []
        for name in (FILE, LAST_GOOD):
            path = self.directory / name
            try:
                state = _read(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                complaints.append(f"{path}: {error.strerror if isinstance(error, OSError) else error}")
                with suppress(OSError):
                    path.replace(self.directory / DAMAGED)
                continue
            return state, "; ".join([*complaints, "the state before it is used"]) if complaints else ""
        return None, "; ".join([*complaints, "lb begins as the file says"]) if complaints else ""

    def save(self, desired: Desired) -> None:
        """Write a new state, and flush it to the disk. Raises `CannotSave`; then the former one is still there."""
        state = msgspec.to_builtins(desired)
        body = json.dumps({"format": FORMAT, "state": state}, separators=(",", ":"), sort_keys=True)
        data = json.dumps({"checksum": _checksum(body), "body": body}).encode()
        path = self.directory / FILE
        try:
            atomic_file.write(path, data, durable=True, keep=self.directory / LAST_GOOD)
        except OSError as error:
            raise CannotSave(f"{path} cannot be written: {error.strerror or error}") from None


def _read(path: Path) -> Desired:
    """The state in a file. Raises ValueError for a damaged one."""
    try:
        envelope: dict[str, Any] = json.loads(path.read_bytes())
        body = str(envelope["body"])
        if envelope["checksum"] != _checksum(body):
            raise ValueError("it is damaged: its checksum does not match")
        content = json.loads(body)
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']}, this lb reads format {FORMAT}")
        return msgspec.convert(content["state"], Desired)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is damaged: {error!r}") from None
    except (json.JSONDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"it is damaged: {error}") from None


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
