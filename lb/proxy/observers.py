"""Observers: what is told of each exchange that has ended, in one place and in one order.

`Context.observers` is the one tuple of them: the access log, and, where a service has one, its adaptive limit and its
mirror. `Exchange` calls `ended` of each and knows none of them. An observer that a worker does not need is not in the
tuple, and costs nothing. The counters (`stats`) are told first, by a call of their own: CPython calls a method fast
where it has met one type only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lb.core.limiter import GradientLimiter
from lb.core.report import PoolTally
from lb.http.message import RequestHead


class Peer(Protocol):
    """The client of an exchange: its address."""

    peer: bytes


class Named(Protocol):
    """The target of an exchange: its id, and how a line of the access log names it."""

    id: str
    log_fragment: str


class Claim(Protocol):
    """The lease of an exchange."""

    @property
    def lane(self) -> Named: ...


class PoolSeen(Protocol):
    """The pool of an exchange."""

    name: str
    tally: PoolTally


class ServiceSeen(Protocol):
    """The service of an exchange. `in_flight` still holds the exchange that ends."""

    name: str
    in_flight: int
    limiter: GradientLimiter | None


class Ended(Protocol):
    """What an observer sees of an exchange that has ended; times are monotonic, in seconds."""

    head: RequestHead
    request_id: bytes
    started: float
    connected_at: float  # 0.0: it needed no new connection
    first_byte_at: float  # 0.0: head and body of the answer came at once
    status: int
    reason: str  # why lb answered by itself or cut; empty: it did not
    answered_by_proxy: bool  # lb answered by itself
    was_cut: bool  # the answer began, and was cut off
    attempt: int  # tries after the first
    bucket: int  # of the histogram, for the seconds it took
    bytes_in: int
    bytes_out: int

    @property
    def client(self) -> Peer: ...

    @property
    def attempt_log(self) -> Sequence[str]: ...  # what became of each try that failed

    @property
    def service(self) -> ServiceSeen: ...

    @property
    def pool(self) -> PoolSeen: ...

    @property
    def lease(self) -> Claim | None: ...  # None: no target was chosen, or another try was to follow

    @property
    def mirror_client(self) -> Observer | None: ...  # its mirrored copy


class Observer(Protocol):
    """Is told of every exchange that has ended, in `seconds`."""

    def ended(self, exchange: Ended, seconds: float) -> None: ...


class Limits:
    """Teaches the adaptive limit of the exchange's service, where it has one."""

    __slots__ = ()

    def ended(self, exchange: Ended, seconds: float) -> None:
        service = exchange.service
        limiter = service.limiter
        if limiter is not None and exchange.lease is not None:
            failed = exchange.status >= 503 or exchange.was_cut
            limiter.observe(seconds, service.in_flight, failed, exchange.started + seconds)


class Mirrors:
    """Tells the mirrored copy of the exchange, where there is one, that the original is over."""

    __slots__ = ()

    def ended(self, exchange: Ended, seconds: float) -> None:
        mirror_client = exchange.mirror_client
        if mirror_client is not None:
            mirror_client.ended(exchange, seconds)
