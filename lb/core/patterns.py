"""Patterns for answers: a text, or a `/regular expression/`, matched within a limit of time.

A pattern such as `(a+)+$` takes longer than the universe lasts on a body made for it. Python's own `re` can neither be
given a limit nor lets anything else run meanwhile, so one target could hold up the checks of all. So the `regex`
package matches the patterns: it understands the same and more, takes a limit of time, and lets other threads run.
"""

from __future__ import annotations

from typing import Any


class BadPattern(ValueError):  # noqa: N818 - it says what is wrong
    """It is no regular expression; the text says why."""


class TooCostly(Exception):  # noqa: N818 - it says what happened
    """The limit of time was over before an answer was found; the text is the pattern."""


class Pattern:
    """`/…/` is a regular expression to be found somewhere; anything else a text."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled: Any = None
        if len(text) > 2 and text.startswith("/") and text.endswith("/"):
            import regex  # large, and needed for patterns only

            try:
                self._compiled = regex.compile(text[1:-1], regex.DOTALL | regex.VERSION0)
            except regex.error as error:
                raise BadPattern(str(error)) from None

    @property
    def is_text(self) -> bool:
        return self._compiled is None

    def found_in(self, text: str, limit: float) -> bool:
        """Whether it is found within `limit` seconds. Raises `TooCostly`."""
        if self._compiled is None:
            return self.text in text
        try:
            return bool(self._compiled.search(text, timeout=limit, concurrent=True))
        except TimeoutError:
            raise TooCostly(self.text) from None
