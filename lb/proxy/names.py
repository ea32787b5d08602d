"""Target names to addresses: asked of the system's resolver off the loop, kept a while, and longer when DNS fails."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from time import monotonic
from typing import Any

#: Seconds an answer is used before it is asked for again.
FRESH = 10.0


class Names:
    """A cache of host names; the last good answer stands in while the resolver fails."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._known: dict[tuple[str, int], tuple[float, list[tuple[int, Any]], int]] = {}

    async def address(self, host: str, port: int) -> tuple[int, Any]:
        """(family, socket address) for host and port, in turn where a name has several. Raises OSError."""
        key = (host, port)
        known = self._known.get(key)
        if known is None or (known[0] < monotonic()):
            known = await self._ask(key, known)
        until, addresses, turn = known
        self._known[key] = (until, addresses, turn + 1)
        return addresses[turn % len(addresses)]

    async def _ask(
        self, key: tuple[str, int], known: tuple[float, list[tuple[int, Any]], int] | None
    ) -> tuple[float, list[tuple[int, Any]], int]:
        host, port = key
        try:
            family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        except ValueError:
            pass
        else:
            return float("inf"), [(family, (host, port))], 0
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            if known is None:
                raise
            return monotonic() + FRESH, known[1], known[2]  # DNS is down: yesterday's answer beats none
        addresses = list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
        return monotonic() + FRESH, addresses, known[2] if known else 0
