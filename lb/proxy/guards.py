"""Guards: the files that steps and services of one worker go by, and what checks of clients share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from lb.core.affinity import read_secrets
from lb.core.key_file import read_keys
from lb.core.user_file import read_users
from lb.http.error_answers import DEFAULT_PAGE, HtmlPage
from lb.net.jwks import BadKeys, KeySet
from lb.net.jwks import read_keys as read_key_set
from lb.proxy.passwords import Passwords

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Guards:
    """The contents of files that steps and affinities name, each read once, and the results of slow checks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.passwords = Passwords(loop)
        self.asked_keys: set[str] = set()  # sources of sets in which a token's key was not found, until the next report
        self._files: Mapping[str, bytes] = {}
        self._read: dict[tuple[str, str], object] = {}  # by (what it is, digest)
        self._former: dict[tuple[str, str], object] = {}

    def use(self, files: Mapping[str, bytes]) -> None:
        """Services and steps of a new configuration are made next. Their files are among these, by digest."""
        self._files = files
        self._former, self._read = self._read, {}

    def made(self) -> None:
        """All of them are made."""
        self._files, self._former = {}, {}

    def users(self, digest: str) -> dict[bytes, bytes]:
        """Hashes by user. A file that is not there has none, so that its route lets nobody in."""
        return self._once("users", digest, lambda data: read_users(data)[0])

    def api_keys(self, digest: str) -> dict[bytes, bytes]:
        """Names by the digests of their keys."""
        return self._once("keys", digest, lambda data: read_keys(data)[0])

    def secrets(self, digest: str) -> list[bytes]:
        """The secrets of an affinity. Without any there is none."""
        return self._once("secrets", digest, lambda data: read_secrets(data)[0])

    def key_set(self, digest: str) -> KeySet | None:
        """The keys that verify tokens. None: they have not come yet, or cannot be used."""
        return self._once("jwks", digest, _key_set)

    def page(self, digest: str) -> HtmlPage:
        """An error page. For one that is not there, lb's own."""
        return self._once("page", digest, lambda data: HtmlPage(data.decode("utf-8", "replace")), DEFAULT_PAGE.encode())

    def close(self) -> None:
        """No request comes any more."""
        self.passwords.close()

    def _once(self, kind: str, digest: str, read: Callable[[bytes], T], missing: bytes = b"") -> T:
        key = (kind, digest)
        value = self._read.get(key, self._former.get(key))
        if value is None:
            value = read(self._files.get(digest, missing))
        self._read[key] = value
        return value  # type: ignore[return-value]  # what is kept under a kind is of one type


def _key_set(data: bytes) -> KeySet | None:
    try:
        return read_key_set(data) if data else None
    except BadKeys:
        return None
