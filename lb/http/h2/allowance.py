"""Allowance: how much useless work a client may cause on one connection before it is sent away.

Frames that cost lb work, and the client nearly none, cost points: streams that are reset, PING, SETTINGS, empty DATA,
priorities, tiny windows. Points come back with time, and with useful work: answers that the client takes. So the
bound holds for each kind of flood and for their mixtures, and a busy client earns what its habits cost.

Window updates and PINGs that follow what the client was sent are no abuse: gRPC's clients widen both windows for each
small message, and measure the delay. So each frame of a body pays for ten of them, as in Envoy, in a count of its own:
while points are at their most, frames could earn none.

Resets that a client provokes (MadeYouReset, CVE-2025-8671) cost what its own do (rapid reset, CVE-2023-44487).
"""

from __future__ import annotations

from typing import Final

#: Points that a connection begins with, and the most it may have.
POINTS: Final = 1000.0
#: Points that come back in a second.
PER_SECOND: Final = 50.0
#: Points for an answer that the client has been sent whole, and for a frame of its body that no small window has cut.
ANSWER_EARNS: Final = 5.0
FRAME_EARNS: Final = 1.0
#: Window updates and PINGs that such a frame pays for, and the most that are paid for ahead.
FRAME_PAYS: Final = 10
PAID: Final = 1 << 16

#: What it costs. A browser that leaves a page resets at most all its streams: 100 × 5 is half of the points.
RESET: Final = 5.0
REFUSED: Final = 5.0
SETTINGS: Final = 5.0
EMPTY_DATA: Final = 2.0
PING: Final = 2.0
PRIORITY: Final = 1.0
UNKNOWN: Final = 1.0
#: A field of a block over the limit, which is decoded for the table's sake alone.
FIELD: Final = 1 / 16
WINDOW: Final = 0.1
SMALL_WINDOW: Final = 1.0

#: A window update below this is a small one.
SMALL: Final = 1024


class Allowance:
    """One connection's points. `points` to begin with: fewer for an address that was sent away of late."""

    __slots__ = ("_at", "_paid", "_points")

    def __init__(self, now: float, points: float = POINTS) -> None:
        self._points = points
        self._at = now
        self._paid = 0  # window updates and PINGs that cost nothing

    def spend(self, cost: float) -> bool:
        """Take points. False: there are no more."""
        self._points -= cost
        return self._points >= 0.0

    def spend_reply(self, cost: float) -> bool:
        """The same for a window update or a PING, which a frame of a body may have paid for."""
        if self._paid:
            self._paid -= 1
            return True
        return self.spend(cost)

    def sent(self, points: float) -> None:
        """The client has been sent a frame of a body, or a whole answer, that no small window has cut."""
        total = self._points + points
        self._points = total if total < POINTS else POINTS
        paid = self._paid + FRAME_PAYS
        self._paid = paid if paid < PAID else PAID

    def earn(self, points: float) -> None:
        """The client has taken something."""
        total = self._points + points
        self._points = total if total < POINTS else POINTS

    def pass_time(self, now: float, writable: bool) -> None:
        """Give points back for the time since the last call. None come back while the client does not read: the
        answers to its frames would pile up."""
        if writable:
            self.earn((now - self._at) * PER_SECOND)
        self._at = now
