"""Context: the state that all parts of a worker's data plane share: clock, random numbers, ids, counters, watches.

It knows no request, target or route, so every file of the data plane may know it. `DataPlane` makes it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from lb.core.report import Alarm
from lb.proxy.guards import Guards
from lb.proxy.offload import Offload
from lb.proxy.read_deferral import ReadDeferral

if TYPE_CHECKING:
    from lb.http.h1.excerpt import Excerpt
    from lb.http.h1.parse import RequestError
    from lb.http.message import ResponseHead
    from lb.proxy.access_log import Log
    from lb.proxy.in_flight_table import InFlightTable
    from lb.proxy.observers import Observer
    from lb.proxy.rate_table import RateTable
    from lb.proxy.sending import Sender, Sending
    from lb.proxy.stats import Stats

#: The last two digits of a request id. (Formatting all of it costs three times what joining two parts does.)
HEX_PAIRS: Final = [b"%02x" % number for number in range(256)]


class OpenTunnel(Protocol):
    """A tunnel, as drains and the sweeper see it."""

    close_frame_at: float  # when to send 1001; 0: not to be closed

    @property
    def lane(self) -> object: ...

    @property
    def drain_time(self) -> float: ...  # `timeouts.drain` of its service, in seconds

    def on_tick(self, now: float) -> None: ...


class Context:
    """The shared state of one worker's connections and requests. `now` is the time of the sweeper's last pass."""

    __slots__ = (
        "_date_second",
        "_id_prefix",
        "alarm",
        "challenges",
        "date",
        "guards",
        "id_front",
        "id_next",
        "in_flight",
        "last_reply",
        "last_reply_raw",
        "log",
        "loop",
        "now",
        "observers",
        "offload",
        "rates",
        "read_deferral",
        "reply_heads",
        "rng",
        "sending",
        "stats",
        "tunnels",
        "wall_offset",
        "worker",
    )

    def __init__(
        self,
        worker: int,
        loop: asyncio.AbstractEventLoop,
        alarm: Callable[[Alarm], None],
        seed: int | None,
        stats: Stats,
        rates: RateTable,
        in_flight: InFlightTable,
    ) -> None:
        self.worker = worker  # its number
        self.loop = loop
        self.alarm = alarm  # called at once with failures that the supervisor has to get before a report
        self.rng = random.Random(seed)
        self.stats = stats
        self.rates = rates  # the buckets of rate limits
        self.in_flight = in_flight  # requests under way of limited routes
        self.guards = Guards(loop)
        self.offload = Offload(loop)
        self.challenges: dict[bytes, bytes] = {}  # by path, what a certificate authority expects there
        self.observers: tuple[Observer, ...] = ()
        self.log: Log | None = None
        self.read_deferral = ReadDeferral(loop)
        self.reply_heads: dict[bytes, ResponseHead] = {}  # see `Upstream`
        self.last_reply: ResponseHead | None = None  # of these, the last one met, and how it came
        self.last_reply_raw = b""
        self.sending: dict[Sender, Sending] = {}  # connections whose peer has yet to take bytes, or the close
        self.tunnels: set[OpenTunnel] = set()
        self.now = monotonic()
        self.wall_offset = 0.0  # Unix time less monotonic time
        self.date = b""  # the value of the Date field
        self._date_second = 0
        self._id_prefix = b"%012x" % self.rng.getrandbits(48)
        self.id_next = 0
        self.begin_ids()
        self.refresh(self.now)

    def next_id(self) -> bytes:
        """A request id: unique per worker start, and to be found in logs with any text search. `Exchange` has this
        written out."""
        self.id_next += 1
        if not self.id_next & 0xFF:
            self.begin_ids()
        return self.id_front + HEX_PAIRS[self.id_next & 0xFF]

    def begin_ids(self) -> None:
        """Write out the common part of the next ids, which differ in two digits alone."""
        self.id_front = b"%b%06x" % (self._id_prefix, self.id_next >> 8)

    def refresh(self, now: float) -> None:
        """Once per pass: the Date field, which changes by the second, and the wall clock, which may jump."""
        wall = time.time()
        self.wall_offset = self.stats.wall_offset = wall - now
        if self.log is not None:
            self.log.wall = self.wall_offset
        second = int(wall)
        if second != self._date_second:
            self._date_second = second
            self.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)).encode()

    def refused(self, refusal: RequestError, peer: bytes, request_id: bytes, size: int, seen: Excerpt) -> None:
        """Count and log a request that was refused before it became an exchange; `size` bytes were answered."""
        self.stats.refused(refusal, peer, request_id, self.now, seen)
        if self.log is not None:
            self.log.refused(peer, request_id, refusal.status, refusal.reason, size, self.now, seen)
