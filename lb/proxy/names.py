"""Target names to addresses: asked of the system's resolver off the loop, kept a while, and longer when DNS is down.

An answer is used for `FRESH` seconds. After that it is still used while it is asked for again: a resolver that fails
or hangs must not look like targets that are down. Only a name of which nothing is known yet is waited for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from math import inf
from time import monotonic
from typing import Any

#: Seconds an answer is used before it is asked for again.
FRESH = 10.0


class _Known:
    """What is known of a name."""

    __slots__ = ("addresses", "asked", "turn", "until")

    def __init__(self) -> None:
        self.addresses: list[tuple[int, Any]] = []
        self.until = -inf  # when it is asked for again
        self.turn = 0
        self.asked: asyncio.Task[None] | None = None


class Names:
    """A cache of host names; the last good answer stands in while the resolver fails."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._known: dict[tuple[str, int], _Known] = {}

    async def address(self, host: str, port: int) -> tuple[int, Any]:
        """(family, socket address) for host and port, in turn where a name has several. Raises OSError."""
        key = (host, port)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _of_literal(host, port) or _Known()
        if known.until < monotonic():
            if known.asked is None:
                known.asked = self._loop.create_task(self._ask(known, host, port))
                known.asked.add_done_callback(_seen)
            if not known.addresses:
                await asyncio.shield(known.asked)  # whoever waits may give up; the others still want the answer
        known.turn += 1
        return known.addresses[known.turn % len(known.addresses)]

    async def _ask(self, known: _Known, host: str, port: int) -> None:
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            known.addresses = list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
        finally:
            known.asked = None
            if known.addresses:
                known.until = monotonic() + FRESH


def _of_literal(host: str, port: int) -> _Known | None:
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return None
    known = _Known()
    known.addresses, known.until = [(family, (host, port))], inf
    return known


def _seen(asked: asyncio.Task[None]) -> None:
    """That DNS is down is not worth a word here: probes tell it."""
    if not asked.cancelled():
        asked.exception()
