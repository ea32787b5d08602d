"""Observers: called for each exchange that has ended, from one place and in one order.

`Context.observers` is the one tuple of them: the access log, and, where a service has one, its adaptive limit and its
mirror. `Exchange` calls `ended` of each and imports no observer. An observer that a worker does not need is not in the
tuple, and costs nothing. The counters (`stats`) are told first, by a call of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from lb.core.limiter import GradientLimiter
from lb.core.native import mypyc_attr
from lb.proxy.target_stream import Requester

if TYPE_CHECKING:
    from lb.http.message import RequestHead
    from lb.net.tls.session import Established


class Copy(Protocol):
    """The mirrored copy of an exchange."""

    def original_ended(self, status: int, seconds: float) -> None: ...


class Ended(Requester):
    """An observer's view of an exchange that has ended; times are monotonic, in seconds.

    A base class of `Exchange`, whose attributes a compiled observer reads like its own.
    """

    __slots__ = (
        "answered_by_proxy",
        "attempt",
        "attempt_log",
        "bucket",
        "bytes_in",
        "bytes_out",
        "connected_at",
        "first_byte_at",
        "grpc_status",
        "reason",
        "received",
        "route_fragment",
        "started",
        "status",
        "target_fragment",
        "was_cut",
    )

    started: float
    connected_at: float  # 0.0: it needed no new connection
    first_byte_at: float  # 0.0: head and body of the answer came at once
    status: int
    grpc_status: int  # of a call of gRPC; -1: it is none
    reason: str  # why lb answered by itself or cut; empty: it did not
    answered_by_proxy: bool  # lb answered by itself
    was_cut: bool  # the answer began, and was cut off
    attempt: int  # tries after the first
    attempt_log: Sequence[str]  # the result of each try that failed
    bucket: int  # of the histogram, for the seconds it took
    bytes_in: int
    bytes_out: int
    received: RequestHead  # as the client sent it; `head` is what a target gets
    route_fragment: bytes  # how a line of the access log names its route and the steps that it met; b"": it met none
    target_fragment: bytes  # how a line of the access log names service, pool and target; b"": no target was chosen

    @property
    def peer(self) -> bytes:
        """The address of its client."""
        raise NotImplementedError

    @property
    def tls(self) -> Established | None:
        """What its client's TLS handshake came to; None: there was none."""
        raise NotImplementedError

    @property
    def service_name(self) -> str:
        """Its service; "none": no route matched."""
        raise NotImplementedError

    @property
    def pool_name(self) -> str:
        """Its pool; "none": lb answered before one was chosen."""
        raise NotImplementedError

    @property
    def target_id(self) -> str:
        """The target that answered; empty: none was chosen, or another try was to follow."""
        raise NotImplementedError

    @property
    def limiter(self) -> GradientLimiter | None:
        """The adaptive limit of its service, which learns from what a target has answered."""
        raise NotImplementedError

    @property
    def in_flight(self) -> int:
        """Requests of its service under way, this one included."""
        raise NotImplementedError

    @property
    def copy(self) -> Copy | None:
        """Its mirrored copy."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Observer:
    """Called with every exchange that has ended, after `seconds`."""

    __slots__ = ()

    def ended(self, exchange: Ended, seconds: float) -> None:
        raise NotImplementedError


#: DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and UNAVAILABLE: of gRPC, what 503 and 504 are of HTTP.
OVERLOADED: Final = (4, 8, 14)


class Limits(Observer):
    """Teaches the adaptive limit of the exchange's service, where it has one."""

    __slots__ = ()

    def ended(self, exchange: Ended, seconds: float) -> None:
        limiter = exchange.limiter
        if limiter is not None and exchange.target_id:
            failed = exchange.status >= 503 or exchange.was_cut or exchange.grpc_status in OVERLOADED
            limiter.observe(seconds, exchange.in_flight, failed, exchange.started + seconds)


class Mirrors(Observer):
    """Tells the mirrored copy of the exchange, where there is one, that the original is over."""

    __slots__ = ()

    def ended(self, exchange: Ended, seconds: float) -> None:
        copy = exchange.copy
        if copy is not None:
            copy.original_ended(exchange.status, seconds)
