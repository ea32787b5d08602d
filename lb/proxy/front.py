"""Front: the state that one worker's client connections share: the connections, trusted networks, and the drain."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from lb.core.targets import Listener

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


class Front:
    """The client connections of one worker, and their shared state."""

    __slots__ = ("clients", "draining", "per_client", "removed_binds", "trusted", "turned_away")

    def __init__(self) -> None:
        self.clients: set[Connection] = set()
        self.turned_away: set[Connection] = set()  # over a limit, and not gone yet: not counted among the clients
        self.per_client: dict[bytes, int] = {}  # connections by the client's address, where a listener bounds them
        # Addresses of removed listeners: their last connections may be accepted after the removal.
        self.removed_binds: frozenset[str] = frozenset()
        self.draining = False
        self.trusted: tuple[str, ...] = ()  # networks of proxies whose forwarding fields are believed

    def is_trusted(self, peer: bytes) -> bool:
        """Whether a peer's forwarding fields are believed."""
        return bool(self.trusted) and in_networks(self.trusted, peer)

    def trust(self, networks: tuple[str, ...]) -> None:
        """From now on believe these proxies."""
        if networks != self.trusted:
            self.trusted = networks
            in_networks.cache_clear()


@lru_cache(maxsize=4096)
def in_networks(networks: tuple[str, ...], peer: bytes) -> bool:
    """Whether the address lies in one of the networks; "unix" stands for every Unix-socket peer."""
    if peer == b"unix":
        return "unix" in networks
    try:
        address = ipaddress.ip_address(peer.decode())
    except ValueError:
        return False
    return any(address in _network(network) for network in networks if network != "unix")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network; one of IPv4 addresses mapped into IPv6 is written as peers' addresses are, as IPv4."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network
