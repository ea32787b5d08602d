"""Sets in the order in which their members came, for runs that are the same each time.

An object's place in a `set` comes from its address, and that from all that the process has done before.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, MutableSet
from typing import Any

#: Modules that keep objects in sets.
MODULES = (
    "lb.control.events",
    "lb.control.api.streams",
    "lb.proxy.front",
    "lb.proxy.lane",
    "lb.proxy.plane",
    "lb.proxy.services",
    "lb.worker.acceptor",
    "lb.supervisor.main",
    "lb.worker.main",
    "lb.supervisor.workers",
    "tests.model.peers",
)


class Ordered(MutableSet[Any]):
    """As a set, but its order is that of a dict."""

    def __init__(self, members: Iterable[Any] = ()) -> None:
        self._members = dict.fromkeys(members)

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, value: Any) -> None:
        self._members[value] = None

    def discard(self, value: Any) -> None:
        self._members.pop(value, None)


def install() -> None:
    """Let these modules make their sets this way."""
    for name in MODULES:
        vars(importlib.import_module(name))["set"] = Ordered
