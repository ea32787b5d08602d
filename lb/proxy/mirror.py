"""Mirroring: a share of a service's requests is copied to another pool and the answers are thrown away.

A copy is an exchange of its own whose client is a `Shadow`: a port that takes everything and keeps nothing. Copies are
bounded in number and size; over the bound a request is simply not copied (and counted). The original never waits for
its copy. Status and latency of the two are compared when both are over.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from lb.core.targets import Mirror
from lb.http1.head import RequestHead
from lb.proxy.private import PrivateConnections

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.services import LivePool, LiveService
    from lb.proxy.upstream import Upstream

#: A copy this many times slower than its original, and by more than SLOWER_BY seconds, counts as slower.
SLOWER = 2.0
SLOWER_BY = 0.010


class Mirroring:
    """What one service mirrors, and what came of it."""

    def __init__(self, service: LiveService, pool: LivePool, rules: Mirror, outcomes: dict[str, int]) -> None:
        self.service = service
        self.pool = pool
        self.rules = rules
        self.outcomes = outcomes  # same | status_differs | slower | failed | dropped → count
        self._due = 0.0
        self._under_way = 0

    def consider(self, exchange: Exchange) -> None:
        """Copy this request, whose body is complete, if it is its turn."""
        self._due += self.rules.percent
        if self._due < 100.0:
            return
        self._due -= 100.0
        full = self._under_way >= self.rules.concurrency
        if full or exchange.bytes_in > self.rules.max_body or exchange.head.fields.upgrade or not self.pool.members:
            self.count("dropped")
            return
        self._under_way += 1
        Shadow(self, exchange).start()

    def count(self, outcome: str) -> None:
        """One more copy with this outcome."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def over(self) -> None:
        """A copy is over."""
        self._under_way -= 1


class Shadow:
    """The client port of a copy, and the comparison of the copy with its original."""

    def __init__(self, mirroring: Mirroring, original: Exchange) -> None:
        self.peer = original.client.peer
        self.trusted = True
        self.transport = None
        self.private: PrivateConnections | None = None
        self.blocked = False
        self.send_timeout = inf
        self.exchange: Exchange | None = None
        self._mirroring = mirroring
        self._original = original
        self._result: tuple[int, float] | None = None
        self._copied: tuple[int, float] | None = None

    def start(self) -> None:
        """Send the copy on its way."""
        original = self._original
        plane = original.plane
        copy = self.exchange = type(original)(plane, self, original.head)
        copy.shadow = self
        original.shadow = self
        plane.shadows.add(copy)
        copy.start_copy(original, self._mirroring.pool)

    def ended(self, exchange: Exchange, status: int, seconds: float) -> None:
        """The original or the copy is over."""
        if exchange is self.exchange:
            self._copied = (status, seconds)
            exchange.plane.shadows.discard(exchange)
            self._mirroring.over()
        else:
            self._result = (status, seconds)
        if self._result is None or self._copied is None:
            return
        (status, seconds), (copy_status, copy_seconds) = self._result, self._copied
        if copy_status == 499 or exchange.own:
            outcome = "failed"
        elif copy_status // 100 != status // 100:
            outcome = "failed" if copy_status >= 500 else "status_differs"
        elif copy_seconds > SLOWER * seconds and copy_seconds - seconds > SLOWER_BY:
            outcome = "slower"
        else:
            outcome = "same"
        self._mirroring.count(outcome)

    # --- the port: takes everything, keeps nothing ------------------------------------------------------------------

    def may_keep_alive(self, head: RequestHead) -> bool:
        """There is no connection to keep."""
        return False

    def write(self, data: bytes) -> None:
        """Thrown away."""

    def pause(self) -> None:
        """Nothing to pause."""

    def resume(self) -> None:
        """Nothing to resume."""

    def expect_body(self) -> None:
        """The body is complete."""

    def keep_private(self, upstream: Upstream) -> None:
        """No second request of this client follows."""
        upstream.close()

    def cut(self, reset: bool) -> None:
        """Nobody sees the answer."""

    def exchange_done(self, keep_alive: bool, body_done: bool) -> None:
        """Nothing follows."""

    def rest(self) -> None:
        """Nothing follows."""

    def become_tunnel(self) -> bytes:
        """Upgrades are not copied."""
        return b""

    def leave(self) -> None:
        """There is no connection to leave."""
