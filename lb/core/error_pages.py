"""Pages for answers that lb gives itself: which file is for which status. Their contents are part of a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """A page for the statuses from `first` to `last`, both included."""

    first: int
    last: int
    file: str
    digest: str = ""  # of its contents


@dataclass(frozen=True, slots=True)
class ErrorPages:
    """The pages of a route, a service or the file. Without any page, lb's own short one is meant."""

    pages: tuple[ErrorPage, ...] = ()

    def find(self, status: int) -> ErrorPage | None:
        """The page for a status: one for it alone comes before one for its class."""
        fits = [page for page in self.pages if page.first <= status <= page.last]
        return min(fits, key=lambda page: page.last - page.first, default=None)

    def files(self) -> Iterator[tuple[str, str]]:
        """(path, digest) of each page."""
        for page in self.pages:
            yield page.file, page.digest

    def with_digests(self, digest: Callable[[str], str]) -> ErrorPages:
        """The pages with the digest of each file."""
        return replace(self, pages=tuple(replace(page, digest=digest(page.file)) for page in self.pages))


def parse_statuses(key: str) -> tuple[int, int]:
    """(first, last) of `503` or `5xx`."""
    if key.endswith("xx"):
        return int(key[0]) * 100, int(key[0]) * 100 + 99
    return int(key), int(key)
