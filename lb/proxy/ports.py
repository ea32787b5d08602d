"""The client's side of an exchange, as narrow as the exchange sees it.

`Downstream` is one; a mirrored copy has another (`mirror.Shadow`), and tests a third.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from lb.http1.head import RequestHead
from lb.proxy.private import PrivateConnections

if TYPE_CHECKING:
    from lb.proxy.upstream import Upstream


class ClientPort(Protocol):
    """Who asked, and where the answer goes."""

    peer: bytes
    trusted: bool
    transport: Any
    private: PrivateConnections | None  # its own connections to targets; None: it has none
    blocked: bool  # it takes no more for now

    @property
    def send_timeout(self) -> float: ...

    def may_keep_alive(self, head: RequestHead) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def expect_body(self) -> None: ...

    def keep_private(self, upstream: Upstream) -> None: ...

    def cut(self, reset: bool) -> None: ...

    def exchange_done(self, keep_alive: bool, body_done: bool) -> None: ...

    def rest(self) -> None: ...

    def become_tunnel(self) -> bytes: ...

    def leave(self) -> None: ...
