"""A question that was put to a target and is not answered yet.

Most wait for nothing but their target: a connection to an address, a few bytes each way. Such a one is a `Prompt`: it
goes on by itself, from one event of its line to the next. A task, and a time limit of asyncio's, were a tenth of what
it cost. Questions that look up names, shake hands or run programs first are coroutines.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from lb.core.lifecycle import Verdict
from lb.health.probes.dial import failure
from lb.health.probes.lines import Line, Lines
from lb.net.resolver import Place

#: Hears, once, what came of a question: its verdict, or None where it was cancelled.
Told = Callable[[Verdict | None], None]


class Asking(Protocol):
    """A question under way."""

    def cancel(self) -> object:
        """Break it off. Whoever asked hears None, at once or when it has let go of what it held."""


class Prompt(ABC):
    """A question on a line of its own, an `Asker`. Who derives from it says what to make of what comes."""

    __slots__ = ("_began", "_line", "_timer", "_told", "is_connected", "question", "where")

    def __init__(self, question: bytes, where: str, told: Told) -> None:
        self.question = question
        self.where = where  # as people write it
        self.is_connected = False
        self._told: Told | None = told  # until it was told
        self._line: Line | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0

    def begin(self, lines: Lines, place: Place, timeout: float) -> None:
        """Ask. Nothing is told before this returns, nor more than `timeout` seconds later."""
        self._began = monotonic()
        self._timer = lines.loop.call_later(timeout, self._on_timeout)
        try:
            self._line = lines.open(self, place)
        except OSError as error:
            lines.loop.call_soon(self.connection_lost, error)

    def cancel(self) -> None:
        """Break it off."""
        self.tell(None)

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return monotonic() - self._began

    def tell(self, verdict: Verdict | None) -> None:
        """It is over: only the first verdict is told."""
        told, self._told = self._told, None
        if told is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.leave()
        told(verdict)

    def leave(self) -> None:
        """Close for good. What still comes is thrown away by the kernel."""
        if self._line is not None:
            self._line.abort()

    @abstractmethod
    def too_late(self) -> Verdict:
        """The verdict when its time is over."""

    def connected(self, line: Line) -> None:
        self.is_connected = True

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""

    @abstractmethod
    def eof_received(self) -> None:
        """No more will come; the line is closed."""

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.tell(failure(error, self.where, self.seconds))

    def _on_timeout(self) -> None:
        self.tell(self.too_late())
