"""Which addresses the requests for a target get, where the target is given by name.

A probed target has one address at a time: the last one that passed its readiness check. It keeps that address while
the name still has it and it passes, as HAProxy's server lines do; another address of the name takes over once it has
passed. When the name no longer has the address in use, the new ones are asked first, and the old one serves on until
one of them passes. A target that is not probed (`protocol: none`), or whose check goes to another host, has all
addresses of its name: workers take the first that accepts a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

#: Target id, its addresses before, its addresses now.
OnAddress = Callable[[str, tuple[str, ...], tuple[str, ...]], None]


class Addresses:
    """The addresses in use, by target id; a target without an entry is no name, or not resolved yet."""

    def __init__(self, on_change: OnAddress) -> None:
        self._on_change = on_change
        self._in_use: dict[str, tuple[str, ...]] = {}
        self.in_use: Mapping[str, tuple[str, ...]] = MappingProxyType(self._in_use)

    def use(self, target_id: str, addresses: tuple[str, ...]) -> None:
        """From now on requests for this target go there. No addresses: keep the ones it has."""
        before = self._in_use.get(target_id, ())
        if addresses and addresses != before:
            self._in_use[target_id] = addresses
            self._on_change(target_id, before, addresses)

    def succeed(self, target_id: str, addresses: tuple[str, ...]) -> None:
        """A target under a new name: its requests go where they went, which is no change to be told."""
        if addresses:
            self._in_use[target_id] = addresses

    def forget(self, target_id: str) -> None:
        self._in_use.pop(target_id, None)


def order(resolved: tuple[str, ...], current: str, turn: int) -> list[str]:
    """The addresses to ask in one probe. `resolved`: what the name stands for. `turn`: grows with each probe, so that
    each address comes early in some probe (the time of a probe may not suffice for all of them)."""
    others = [address for address in resolved if address != current]
    if others:
        shift = turn % len(others)
        others = others[shift:] + others[:shift]
    if not current:
        return others
    if current in resolved or not others:
        return [current, *others]
    return [others[0], current, *others[1:]]
