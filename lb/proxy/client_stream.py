"""The client's side of an exchange, as narrow as the exchange sees it.

`Downstream` is one; a mirrored copy has another (`mirror.Shadow`), and tests a third.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lb.http1.head import RequestHead
    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import TargetStream


class PrivateStreams(Protocol):
    """The idle connections to targets that one client has for itself."""

    def find(
        self, pools: Sequence[Collection[Lane]], tried: Collection[Lane]
    ) -> tuple[Lane, TargetStream, int] | None: ...

    def take(self, upstream: TargetStream) -> None: ...


class ClientStream(Protocol):
    """Who asked, and where the answer goes."""

    peer: bytes
    trusted: bool
    transport: Any
    blocked: bool  # it takes no more for now

    @property
    def private(self) -> PrivateStreams | None: ...  # its own connections to targets; None: it has none

    @property
    def send_timeout(self) -> float: ...

    def may_keep_alive(self, head: RequestHead) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def expect_body(self) -> None: ...

    def keep_private(self, lane: Lane, upstream: TargetStream) -> None: ...

    def cut(self, reset: bool) -> None: ...

    def exchange_done(self, keep_alive: bool, body_done: bool) -> None: ...

    def rest(self) -> None: ...

    def become_tunnel(self) -> bytes: ...

    def leave(self) -> None: ...
