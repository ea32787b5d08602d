"""Private connections: connections to targets that authenticate a connection instead of each request (NTLM, Negotiate).

After such a login every request on the connection is that user's (RFC 4559 section 6 warns proxies of it). So a
connection that carried one serves only the client connection that it was made for. That client's next requests ride it,
as the login takes several of them. It ends with its client. An answer that merely offers such a login also keeps its
connection for that client until its next request. If that does not log in, the connection is shared again.

nginx does so with `ntlm`, HAProxy by marking the connection private (haproxy/haproxy#581 is what happens else).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from lb.proxy.client_stream import PrivateStreams
from lb.proxy.target_stream import OFFERED, SHARED

if TYPE_CHECKING:
    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import TargetStream

#: Connections that one client may have for itself, each to another pool or target; the oldest goes.
PRIVATE_LIMIT: Final = 8


class PrivateConnections(PrivateStreams):
    """The idle connections that one client has for itself."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle: list[tuple[Lane, TargetStream]] = []

    def __len__(self) -> int:
        return len(self._idle)

    def keep(self, lane: Lane, upstream: TargetStream) -> None:
        """A connection to this lane's target has become idle."""
        self._idle = [(each, stream) for each, stream in self._idle if not stream.gone]
        while len(self._idle) >= PRIVATE_LIMIT:
            self._idle.pop(0)[1].close()
        self._idle.append((lane, upstream))

    def find(self, pools: Sequence[Collection[Lane]], tried: Collection[Lane]) -> tuple[Lane, TargetStream, int] | None:
        """The connection that serves a request of the first of these pools that has one: its lane, itself, and which of
        the pools that is. None: there is none. A pool is the lanes in rotation; lanes in `tried` have failed it."""
        now = monotonic()
        for number, members in enumerate(pools):
            for lane, upstream in reversed(self._idle):
                if lane not in members or lane in tried or lane.draining:
                    continue
                young = now - upstream.idle_since <= lane.idle_limit.retire_after
                if young and not upstream.gone and upstream.looks_open():
                    return lane, upstream, number
                self._idle.remove((lane, upstream))
                upstream.close()
                return None  # the next one gets a new connection, and logs in once more
        return None

    def take(self, upstream: TargetStream) -> None:
        """The connection has a request again."""
        self._idle = [(lane, stream) for lane, stream in self._idle if stream is not upstream]
        if upstream.private == OFFERED:
            upstream.reserve(SHARED)

    def close(self) -> None:
        """The client is gone."""
        idle, self._idle = self._idle, []
        for _, upstream in idle:
            upstream.close()
