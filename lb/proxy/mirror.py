"""Mirroring: a share of a service's requests is copied to another pool and the answers are thrown away.

A copy is an exchange of its own whose client is a `MirrorClient`: a stream that takes everything and keeps nothing.
Copies are bounded in number and size. Over the bound a request is not copied, and that is counted. The original never
waits for its copy. Status and latency of the two are compared when both are over.

A copy is no request of a client. It sees the mirror's pool alone, on retries too, and only targets in rotation. It
counts for no bound, limiter, retry budget, queue or ejection of the service. Without room it is dropped, and it gives
its connection up to a client's request that finds none.

A pool that serves a request gets no copy of it. A switch, a rollout's share, a retry or a fallback can send the
original to the mirror's pool at any moment. So the copy is held back until the original's answer begins, because no
other try follows then.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from lb.core.retry import RetryBudget
from lb.core.targets import Mirror
from lb.proxy.connectionless_stream import ConnectionlessStream

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.services import LivePool, LiveService

#: A copy this many times slower than its original, and by more than SLOWER_BY seconds, counts as slower.
SLOWER: Final = 2.0
SLOWER_BY: Final = 0.010
#: Seconds that a copy may last longer than its original did, or than `timeouts.response`, once the original is over.
LONGER: Final = 60.0
#: Copies take no retry out of the service's budget.
NO_RETRIES: Final = RetryBudget(0.0, 0, 0.0)


class Mirroring:
    """The mirroring of one service, and the counts of its copies."""

    def __init__(self, service: LiveService, pool: LivePool, rules: Mirror) -> None:
        self.service = service
        self.pool = pool
        self.rules = rules
        self.outcomes = service.mirrored  # same | status_differs | slower | failed | dropped → count
        self.copies = service.copies
        self._due = 0.0

    def consider(self, exchange: Exchange) -> None:
        """Copy this request, whose body is complete, if it is its turn and another pool serves it."""
        if exchange.pool is self.pool:
            return
        self._due += self.rules.percent
        if self._due < 100.0:
            return
        self._due -= 100.0
        if (
            len(self.copies) >= self.rules.concurrency
            or exchange.bytes_in > self.rules.max_body
            or not exchange.replayable  # its body is held no more
            or exchange.head.fields.upgrade
            or not self.pool.members
        ):
            self.count("dropped")
            return
        MirrorClient(self, exchange).start()

    def count(self, outcome: str) -> None:
        """One more copy with this outcome."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    @staticmethod
    def has_seen(original: Exchange, copy: Exchange) -> bool:
        """Whether the copy's pool has received the original."""
        name = copy.pool.name
        return original.pool.name == name or any(lane.target.pool == name for lane in original.tried)


class MirrorClient(ConnectionlessStream):
    """The client port of a copy, and the comparison of the copy with its original."""

    def __init__(self, mirroring: Mirroring, original: Exchange) -> None:
        super().__init__(original.client, trusted=True)
        self.exchange: Exchange | None = None
        self._mirroring = mirroring
        self._original = original
        self._result: tuple[int, float] | None = None
        self._copied: tuple[int, float] | None = None
        self._dropped = False
        self._failed = False  # the copy has no whole answer of a target
        self.held = True  # the copy waits until its original's answer begins

    def start(self) -> None:
        """Make the copy, and a connection for it if none is idle."""
        original = self._original
        live = original.live
        copy = self.exchange = type(original)(live, self, original.head)
        copy.mirror_client = self
        original.mirror_client = self
        live.copies.add(copy)
        self._mirroring.copies.add(copy)
        copy.start_copy(original, self._mirroring.pool)

    def answer_begins(self) -> None:
        """The original needs no other try: now the copy may go, unless its pool has seen the original."""
        copy = self.exchange
        if not self.held or copy is None:
            return
        self.held = False
        if not self._dropped:
            if self._mirroring.has_seen(self._original, copy):
                self.drop()
            else:
                copy.send_copy()

    def may_go(self) -> bool:
        """Whether the copy's pool is still what the service mirrors to."""
        copy = self.exchange
        if copy is None or self._dropped:
            return False
        mirror = copy.service.mirror
        current = copy.live.services.get(copy.service.name)
        return mirror is not None and mirror.pool is copy.pool and copy.service is current

    def drop(self) -> None:
        """Give the copy up, and count it so."""
        if not self._dropped and self._copied is None and self.exchange is not None:
            self._dropped = True
            self._mirroring.count("dropped")
            self.exchange.client_lost()

    def original_ended(self, status: int, seconds: float) -> None:
        """The original is over."""
        self.answer_begins()
        self._result = (status, seconds)
        copy = self.exchange
        if copy is not None:
            longest = max(seconds, copy.service.rules.timeouts.response)
            copy.ends_at = monotonic() + longest + LONGER
        self._judge()

    def copy_ended(self, status: int, seconds: float) -> None:
        """The copy is over."""
        copy = self.exchange
        assert copy is not None
        self._copied = (status, seconds)
        self._failed = bool(copy.reason)  # an answer of our own, or cut
        copy.live.copies.discard(copy)
        self._mirroring.copies.discard(copy)
        self._judge()

    def _judge(self) -> None:
        if self._result is not None and self._copied is not None and not self._dropped:
            self._mirroring.count(self._compare(self._result, self._copied))

    def _compare(self, result: tuple[int, float], copied: tuple[int, float]) -> str:
        """The outcome: the copy's status and seconds compared with its original's."""
        (status, seconds), (copy_status, copy_seconds) = result, copied
        if self._failed:
            return "failed"
        if copy_status // 100 != status // 100:
            return "failed" if copy_status >= 500 else "status_differs"
        if copy_seconds > SLOWER * seconds and copy_seconds - seconds > SLOWER_BY:
            return "slower"
        return "same"
