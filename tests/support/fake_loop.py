"""An event loop that runs nothing by itself: a test takes its turns and fires its timers."""

from __future__ import annotations

from typing import Any

from lb.proxy.deadlines import Sweeper


class FakeLoop:
    """Takes down what is to happen soon, and later. The sweeper's timer is never run."""

    def __init__(self) -> None:
        self.soon: list[tuple[Any, tuple[Any, ...]]] = []
        self.later: list[tuple[float, Any, tuple[Any, ...]]] = []  # (seconds, what to call, with what)

    def call_soon(self, call: Any, *args: Any) -> None:
        self.soon.append((call, args))

    def call_later(self, delay: float, call: Any, *args: Any) -> None:
        if not isinstance(getattr(call, "__self__", None), Sweeper):
            self.later.append((delay, call, args))

    def turn(self) -> bool:
        """What is to happen in the next turn; returns whether there was anything."""
        due, self.soon = self.soon, []
        for call, args in due:
            call(*args)
        return bool(due)

    def fire(self) -> bool:
        """Run all timers now; returns whether there were any."""
        due, self.later = self.later, []
        for _, call, args in due:
            call(*args)
        return bool(due)
