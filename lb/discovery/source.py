"""The interface of a source of targets.

A source proposes and decides nothing. It tells each of its answers, whole, and each failure to answer. What becomes of
an answer is decided in `core.membership`, the same for all sources. To add a provider: a file beside this one, its
settings in `config.model.discovery`, and a line in `providers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lb.core.membership import Answer


class NoAnswer(Exception):  # noqa: N818 - it says what happened
    """A source has not answered; the text says why. Nothing changes by it."""


#: Is told an answer, or why there is none. The same object again means that nothing has changed.
Tell = Callable[[Answer | NoAnswer], None]


class Newest:
    """Tells what a source says; what it says again is told as the same object."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last: Answer | NoAnswer | None = None

    def __call__(self, now: Answer | NoAnswer) -> None:
        if not same(self._last, now):
            self._last = now
        assert self._last is not None
        self._tell(self._last)


def same(one: Answer | NoAnswer | None, other: Answer | NoAnswer) -> bool:
    """Whether two answers, or two failures, say the same."""
    if isinstance(one, NoAnswer) and isinstance(other, NoAnswer):
        return str(one) == str(other)
    return one == other


class Source(Protocol):
    """One source, as the settings of one pool describe it. It runs in the supervisor's event loop, and never blocks."""

    async def ask(self) -> Answer:
        """What the source says now. Raises `NoAnswer`, in bounded time."""

    async def watch(self, tell: Tell) -> None:
        """Tell what the source says, at once and whenever that changes, until cancelled."""
