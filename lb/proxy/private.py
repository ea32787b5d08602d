"""Private connections: those to targets that authenticate a connection instead of each request (NTLM, Negotiate).

After such a login every request on the connection is that user's (RFC 4559 section 6 warns proxies of it). So a
connection that carried one serves the client connection it was made for, and nobody else; that client's next requests
ride it, as the login takes several of them. It ends with its client. An answer that merely offers such a login also
keeps its connection for that client until its next request; if that does not log in, the connection is shared again.

nginx does so with `ntlm`, HAProxy by marking the connection private (haproxy/haproxy#581 is what happens else).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.services import LivePool
    from lb.proxy.upstream import Upstream

#: Whom a connection may serve: anybody; the client that was offered a login on it; the one that has sent a login.
SHARED, OFFERED, AUTHENTICATED = range(3)
#: Connections that one client may have for itself, each to another pool or target; the oldest goes.
PRIVATE_LIMIT = 8


class PrivateConnections:
    """The idle connections that one client has for itself."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle: list[Upstream] = []

    def __len__(self) -> int:
        return len(self._idle)

    def keep(self, upstream: Upstream) -> None:
        """A connection has become idle."""
        self._idle = [each for each in self._idle if not each.gone]
        while len(self._idle) >= PRIVATE_LIMIT:
            self._idle.pop(0).close()
        self._idle.append(upstream)

    def find(self, exchange: Exchange) -> tuple[Upstream, LivePool] | None:
        """The connection that serves this request, and its pool; None if there is none.

        Its target must be in rotation and not have been tried. While a rollout shares traffic among pools, a client
        stays where it is logged in, unless a preview or stickiness has chosen its pool.
        """
        now = monotonic()
        service, chosen = exchange.service, exchange.pool
        pools = [chosen]
        if service.plain and service.split.only is None and chosen.serving:
            pools += [p for p in service.pools.values() if p.serving and p is not chosen and p is not service.fallback]
        for pool in pools:
            for upstream in reversed(self._idle):
                lane = upstream.lane
                if lane not in pool.members or lane in exchange.tried or lane.draining:
                    continue
                young = now - upstream.idle_since <= lane.idle_limit.retire_after
                if young and not upstream.gone and upstream.looks_open():
                    return upstream, pool
                self._idle.remove(upstream)
                upstream.close()
                return None  # the next one gets a new connection, and logs in once more
        return None

    def take(self, upstream: Upstream) -> None:
        """The connection has a request again."""
        self._idle.remove(upstream)
        if upstream.private == OFFERED:
            upstream.reserve(SHARED)

    def close(self) -> None:
        """The client is gone."""
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()
