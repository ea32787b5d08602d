"""Networks: whether an address lies in one."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4096)
def in_networks(networks: tuple[str, ...], address: bytes) -> bool:
    """Whether the address lies in one of the networks; "unix" stands for every Unix-socket peer."""
    if address == b"unix":
        return "unix" in networks
    try:
        parsed = ipaddress.ip_address(address.decode())
    except ValueError:
        return False
    return any(parsed in network_of(network) for network in networks if network != "unix")


def limited_as(address: bytes) -> bytes:
    """The address that limits count a client by: its own, or for IPv6 its network of 64 bits, which is one customer's.
    The text is made anew for equal addresses in other spellings."""
    if b":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition(b"%")[0].decode())
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped).encode() if mapped is not None else parsed.packed[:8]


@lru_cache(maxsize=4096)
def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network; one of IPv4 addresses mapped into IPv6 is written as peers' addresses are, as IPv4."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network
