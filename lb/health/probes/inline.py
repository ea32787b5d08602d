"""A probe under way, and the kind that needs no task.

Most probes wait for nothing but their target: a connection to an address, and a few bytes each way. An `InlineProbe`
does that from one event of its connection to the next. A task and a time limit of asyncio's were a tenth of its cost.
Probes that look up names, shake hands or run programs are coroutines.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from lb.core.lifecycle import Verdict
from lb.health.probes.connection import ProbeConnection, ProbeTransport
from lb.health.probes.dial import failure
from lb.net.resolver import Place

#: Called once with the verdict of a probe, or with None when the probe was cancelled.
OnVerdict = Callable[[Verdict | None], None]


class PendingProbe(Protocol):
    """A probe under way."""

    def cancel(self) -> object:
        """Cancel the probe. `OnVerdict` is called with None, at once or when the probe has released its resources."""


class InlineProbe(ABC):
    """A probe on a `ProbeConnection`, whose `Handler` it is. A subclass judges the answer."""

    __slots__ = ("_began", "_connection", "_on_verdict", "_timer", "is_connected", "question", "where")

    def __init__(self, question: bytes, where: str, on_verdict: OnVerdict) -> None:
        self.question = question
        self.where = where  # as people write it
        self.is_connected = False
        self._on_verdict: OnVerdict | None = on_verdict  # None once it has been called
        self._connection: ProbeConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0

    def begin(self, transport: ProbeTransport, place: Place, timeout: float) -> None:
        """Connect and ask. The verdict comes after this returns, and at most `timeout` seconds later."""
        self._began = monotonic()
        self._timer = transport.loop.call_later(timeout, self._on_timeout)
        try:
            self._connection = transport.open(self, place)
        except OSError as error:
            transport.loop.call_soon(self.connection_lost, error)

    def cancel(self) -> None:
        """Cancel the probe: its verdict is None."""
        self.finish(None)

    @property
    def seconds(self) -> float:
        """Seconds since the probe began."""
        return monotonic() - self._began

    def finish(self, verdict: Verdict | None) -> None:
        """End the probe with a verdict. A second call does nothing."""
        on_verdict, self._on_verdict = self._on_verdict, None
        if on_verdict is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.close()
        on_verdict(verdict)

    def close(self) -> None:
        """Close the connection. The kernel discards all later bytes."""
        if self._connection is not None:
            self._connection.abort()

    @abstractmethod
    def too_late(self) -> Verdict:
        """The verdict when the timeout has passed."""

    def connected(self, connection: ProbeConnection) -> None:
        self.is_connected = True

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""

    @abstractmethod
    def eof_received(self) -> None:
        """The target has ended its answer, and the connection is closed."""

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.finish(failure(error, self.where, self.seconds))

    def _on_timeout(self) -> None:
        self.finish(self.too_late())
