"""StreamOwner: a client's connection of HTTP/2, as its streams and their tunnels see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h2.connection import Connection, ConnectionUser

if TYPE_CHECKING:
    import asyncio

    from lb.core.targets import Listener
    from lb.net.tls.session import Established
    from lb.proxy.context import Context
    from lb.proxy.h2.policy import Policy


class StreamOwner(ConnectionUser):
    """A connection, as its streams see it. A subclass sets the attributes and overrides the methods."""

    wire: Connection
    context: Context
    listener: Listener
    transport: asyncio.Transport
    peer: bytes
    trusted: bool
    tls: Established | None
    policy: Policy | None
    tunnels: int

    def on_tunnel_end(self) -> None:
        """A stream is a tunnel no more."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what is to be sent."""
        raise NotImplementedError

    def defer(self) -> None:
        """Defer reading until the loop's next turn, because this turn has lasted too long."""
        raise NotImplementedError
