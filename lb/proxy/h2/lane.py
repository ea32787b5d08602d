"""Http2Lane: one worker's live side of a target that speaks HTTP/2: few connections, and many requests on each.

A request takes a stream on the connection with the fewest ones. A further connection is opened when all are as full as
the target allows. `active` counts requests here, so `limits.connections` of a service bounds streams.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from lb.core.report import TargetTally
from lb.core.retry import CONNECT, REFUSED, Failure
from lb.http.h2.client_connection import STREAMS
from lb.proxy.h2.target import LOOK_AFTER, Http2TargetStream, Http2Upstream, LinkedLane
from lb.proxy.lane import Lane, Lease

if TYPE_CHECKING:
    from lb.core.targets import Service, Target
    from lb.proxy.context import Context
    from lb.proxy.lane import Begun, Connector, Pools
    from lb.proxy.target_stream import TargetStream

#: Seconds between two looks at the connections.
LOOK_EVERY: Final = 1.0


class Http2Lane(LinkedLane):
    """One worker's side of one target that speaks HTTP/2."""

    __slots__ = ("_limit", "links")

    def __init__(self, context: Context, connector: Connector, pools: Pools, target: Target, service: Service) -> None:
        super().__init__(context, connector, pools, target, service)
        self.links: list[Http2Upstream] = []  # connections, the oldest first
        self._limit = STREAMS  # streams that the target's newest connection may have

    # --- streams ----------------------------------------------------------------------------------------------------

    def lease(self, now: float, careful: bool) -> Lease | None:
        link = self._with_room(now, careful)
        if link is None:
            return None
        self.active += 1
        self.in_flight += 1
        lease = Lease()
        lease.lane = self
        lease.upstream = Http2TargetStream(link)
        return lease

    def _with_room(self, now: float, careful: bool) -> Http2Upstream | None:
        """The connection with the fewest requests that may carry one more."""
        best: Http2Upstream | None = None
        fewest = 0
        for link in list(self.links):
            count = len(link.wire.streams)
            if link.room <= 0 or link.wire.is_in_doubt(now) or (best is not None and count >= fewest):
                continue
            if not count and (careful or now - link.idle_since > LOOK_AFTER) and not link.looks_open():
                continue
            best, fewest = link, count
        return best

    def serve(self, link: Http2Upstream) -> None:
        self.prune()
        while self.waiters and link.room > 0:
            first = self.waiters[0]
            if first.needs_new_connection and link.requests:
                break
            self._connected(first, Http2TargetStream(link))

    def ask(self) -> None:
        first = self.waiters[-1]
        if not first.needs_new_connection and len(self.waiters) == 1:
            link = self._with_room(self.context.now, first.careful)
            if link is not None:
                self.serve(link)
        if self.waiters and self.needs_another():
            self.connector.ask(self)

    def needs_another(self) -> bool:
        """Whether there are more waiters than the connections being opened will carry."""
        self.prune()
        return len(self.waiters) > self.opening * max(1, self._limit)

    def linked(self, link: Http2Upstream) -> None:
        self.opening -= 1
        self.opened_at = link.idle_since
        self._limit = link.wire.limit
        if not self._limit:
            link.retire()
            failure = Failure(CONNECT, REFUSED, "allows no streams (SETTINGS_MAX_CONCURRENT_STREAMS is 0)")
            self.prune()
            self._fail_waiters(failure, inf, len(self.waiters))
            return
        self.links.append(link)
        self.expires_at = min(self.expires_at, self.context.now + LOOK_EVERY)
        if self.draining:
            link.retire()
        link.settle()
        while self.needs_another():
            self.connector.ask(self)
        if link.room > 0:
            self.pools.wake(self)

    def unlink(self, link: Http2Upstream) -> None:
        if link in self.links:
            self.links.remove(link)

    def not_opened(self, failure: Failure, begun: Begun) -> None:
        self.opening -= 1
        if not begun.for_copy or not all(lease.waiter.is_copy for lease in self.waiters):
            self.tally.connect_failures += 1
            self._count_failure(failure)
        self.prune()
        # Were another one asked for in its place each time, they would be refused in turn, and nobody would ever hear.
        self._fail_waiters(failure, begun.at, len(self.waiters) - self.opening * max(1, self._limit))
        if self.needs_another():
            self.connector.ask(self)
        self.pools.wake(self)

    def _fail_waiters(self, failure: Failure, until: float, most: int) -> None:
        """Have at most so many of the requests that have waited since then go elsewhere."""
        late = [lease for lease in self.waiters if lease.since <= until and not lease.released]
        for lease in late[: max(0, most)]:
            if lease.released or lease not in self.waiters:
                continue
            self._leaves(lease)
            self.active -= 1
            lease.waiter.on_failure(failure)

    def park(self, upstream: TargetStream, now: float) -> None:
        """A stream that was not begun takes nothing."""

    # --- coming and going -------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Look at the connections: age, silence, idleness."""
        for link in list(self.links):
            link.on_tick(now)
        self.expires_at = now + LOOK_EVERY if self.links else inf

    def retire_all(self) -> None:
        for link in list(self.links):
            link.retire()

    def close_idle(self) -> None:
        for link in list(self.links):
            if not link.wire.streams:
                link.close()
            elif self.draining:
                link.retire()

    def drain(self, draining: bool, now: float) -> None:
        super().drain(draining, now)
        if draining:
            self.retire_all()

    # --- reports ----------------------------------------------------------------------------------------------------

    def state_of(self) -> int:
        return hash((super().state_of(), len(self.links)))

    def read_tally(self) -> TargetTally:
        tally = super().read_tally()
        tally.idle = sum([not link.wire.streams for link in self.links])
        tally.active = len(self.links) - tally.idle + self.opening
        return tally


def make_lane(context: Context, connector: Connector, pools: Pools, target: Target, service: Service) -> Lane:
    """The lane of a target, by the protocol that it speaks."""
    return (Http2Lane if target.http2 else Lane)(context, connector, pools, target, service)
