"""Waiting for a condition, never for a fixed time. Tests that await import it from `eventually_async`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds within which anything happens on a busy machine, when only whether it happens is asked.
LONG_ENOUGH = 20.0
#: What a condition may raise as long as it is not true yet.
NOT_YET = (OSError, AssertionError, KeyError, ValueError)


class Wait(Generic[T]):
    """Looks at a condition again and again, up to a deadline."""

    def __init__(self, condition: Callable[[], T], within: float, what: str) -> None:
        self._condition = condition
        self._within = within
        self._what = what
        self._deadline = time.monotonic() + within

    def look(self) -> T | None:
        """The condition's value if it is true, else None; raises AssertionError once the deadline is over."""
        late = time.monotonic() > self._deadline
        seen: object
        try:
            value = self._condition()
        except NOT_YET as error:
            seen = error
        else:
            if value:
                return value
            seen = value
        if late:
            raise AssertionError(f"not within {self._within} s: {self._what or self._condition}; last seen: {seen!r}")
        return None


def eventually(condition: Callable[[], T], within: float = LONG_ENOUGH, what: str = "") -> T:
    """The first true value of `condition()`; raises AssertionError after `within` seconds, with what was seen last."""
    wait = Wait(condition, within, what)
    while (value := wait.look()) is None:
        time.sleep(0.01)
    return value
