"""Front: the state that one worker's client connections share: the connections, trusted networks, and the drain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from lb.core.networks import in_networks
from lb.core.targets import Listener
from lb.http.h2.allowance import POINTS

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class Connection(Protocol):
    """A client's connection, as the data plane and its sweeper see it."""

    listener: Listener
    transport: Any
    deadline: float
    exchange: Exchange | None

    def on_deadline(self) -> None: ...

    def drain(self) -> None: ...

    def close_after_next(self) -> None: ...

    def read_anew(self) -> None: ...


class Multiplexed(Connection, Protocol):
    """A connection with many requests at a time. `exchange` is None: each stream has its own."""

    def exchanges(self) -> list[Exchange]: ...

    def on_tick(self, now: float) -> None:
        """Called by the sweeper."""

    def cut(self) -> None:
        """The worker stops."""


#: Seconds for which a flood of HTTP/2 is held against an address, addresses that are remembered, and the least
#: allowance of their connections. Clients behind one proxy share an address, so that some use must remain possible.
OFFENCE_TIME: Final = 60.0
OFFENDERS: Final = 1024
LEAST_POINTS: Final = 50.0


class Front:
    """The client connections of one worker, and their shared state."""

    __slots__ = (
        "_offences",
        "clients",
        "draining",
        "multiplexed",
        "per_client",
        "removed_binds",
        "trusted",
        "turned_away",
    )

    def __init__(self) -> None:
        self.clients: set[Connection] = set()
        self.multiplexed: set[Multiplexed] = set()  # of these, the ones with many requests at a time
        self._offences: dict[
            bytes, tuple[int, float]
        ] = {}  # address → times sent away for floods, until when it counts
        self.turned_away: set[Connection] = set()  # over a limit, and not gone yet: not counted among the clients
        self.per_client: dict[bytes, int] = {}  # connections by the client's address, where a listener bounds them
        # Addresses of removed listeners: their last connections may be accepted after the removal.
        self.removed_binds: frozenset[str] = frozenset()
        self.draining = False
        self.trusted: tuple[str, ...] = ()  # networks of proxies whose forwarding fields are believed

    def exchanges(self) -> Iterator[Exchange]:
        """All requests of clients that are under way, also after they became tunnels."""
        for client in list(self.clients):
            if client.exchange is not None:
                yield client.exchange
        for connection in list(self.multiplexed):
            yield from connection.exchanges()

    def leave(self, key: bytes) -> None:
        """A connection that was counted under this address is gone."""
        remaining = self.per_client.get(key, 1) - 1
        if remaining:
            self.per_client[key] = remaining
        else:
            self.per_client.pop(key, None)

    def http2_offence(self, peer: bytes, now: float) -> None:
        """A client at this address was sent away for a flood: its next connections may cause less of it."""
        times = self._times(peer, now) + 1
        self._offences.pop(peer, None)
        while len(self._offences) >= OFFENDERS:
            del self._offences[next(iter(self._offences))]
        self._offences[peer] = times, now + OFFENCE_TIME

    def http2_points(self, peer: bytes, now: float) -> float:
        """The allowance of a new connection of HTTP/2; see `http.h2.allowance`."""
        return max(POINTS / 4 ** self._times(peer, now), LEAST_POINTS) if self._offences else POINTS

    def _times(self, peer: bytes, now: float) -> int:
        times, until = self._offences.get(peer, (0, 0.0))
        return times if now < until else 0

    def is_trusted(self, peer: bytes) -> bool:
        """Whether a peer's forwarding fields are believed."""
        return bool(self.trusted) and in_networks(self.trusted, peer)

    def trust(self, networks: tuple[str, ...]) -> None:
        """From now on believe these proxies."""
        if networks != self.trusted:
            self.trusted = networks
            in_networks.cache_clear()
