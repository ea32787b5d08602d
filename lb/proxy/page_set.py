"""The error pages of a route, a service or the file, read once for a configuration."""

from __future__ import annotations

from collections.abc import Callable

from lb.core.error_pages import ErrorPages
from lb.http.error_answers import HtmlPage


class PageSet:
    """The pages of a route, a service or the file, read."""

    __slots__ = ("_pages", "_rules")

    def __init__(self, rules: ErrorPages, read: Callable[[str], HtmlPage]) -> None:
        self._rules = rules
        self._pages = {page.digest: read(page.digest) for page in rules.pages}

    def find(self, status: int) -> HtmlPage | None:
        """The page for a status."""
        page = self._rules.find(status)
        return self._pages[page.digest] if page is not None else None
