"""The addresses for requests to a target that is given by name.

A probed target has one address at a time: the last one that passed its readiness check. It keeps that address while the
name has it and it passes, as HAProxy's server lines do. Another address of the name takes over once it has passed. When
the name loses the address in use, its new addresses are asked first, and the old one serves until one passes. A target
that is not probed (`protocol: none`), or whose check goes to another host, has all addresses of its name. Workers take
the first that accepts a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

#: Target id, its addresses before, its addresses now.
OnAddress = Callable[[str, tuple[str, ...], tuple[str, ...]], None]


class Addresses:
    """The addresses in use, by target id. A target without an entry is given by address, or not resolved yet."""

    def __init__(self, on_change: OnAddress) -> None:
        self._on_change = on_change
        self._in_use: dict[str, tuple[str, ...]] = {}
        self.in_use: Mapping[str, tuple[str, ...]] = MappingProxyType(self._in_use)

    def use(self, target_id: str, addresses: tuple[str, ...]) -> None:
        """Send requests for this target to these addresses. Without addresses it keeps its own."""
        before = self._in_use.get(target_id, ())
        if addresses and addresses != before:
            self._in_use[target_id] = addresses
            self._on_change(target_id, before, addresses)

    def succeed(self, target_id: str, addresses: tuple[str, ...]) -> None:
        """Keep the addresses of a target under its new name. That is no change, so that no call-back is made."""
        if addresses:
            self._in_use[target_id] = addresses

    def forget(self, target_id: str) -> None:
        self._in_use.pop(target_id, None)


def order(resolved: tuple[str, ...], current: str, turn: int) -> list[str]:
    """The addresses to ask in one probe, in order. `resolved` are the addresses of the name.

    `turn` grows with each probe, so that each address comes early in some probe: the time of one probe may not suffice
    for all addresses.
    """
    others = [address for address in resolved if address != current]
    if others:
        shift = turn % len(others)
        others = others[shift:] + others[:shift]
    if not current:
        return others
    if current in resolved or not others:
        return [current, *others]
    return [others[0], current, *others[1:]]
