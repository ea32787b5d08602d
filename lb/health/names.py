"""Host names to socket addresses for probes, without ever blocking the loop.

Look-ups run in threads of our own, so that a resolver that hangs holds up the names it hangs on and nothing else. An
answer is used for `FRESH` seconds. After that it is still used, for `STALE` seconds, while it is asked for again: a
DNS server that is down must not look like targets that are down.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

FRESH = 10.0
STALE = 300.0
#: Look-ups at one time; a thread is only started when it is needed.
THREADS = 16


class Place(NamedTuple):
    """One address to connect to."""

    family: int
    address: tuple[str, int]


class _Answer(NamedTuple):
    at: float
    places: list[Place]


class Names:
    """A cache of look-ups, shared by all probes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[str, int], _Answer] = {}
        self._asked: dict[tuple[str, int], asyncio.Future[list[Place]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    async def places(self, host: str, port: int) -> list[Place]:
        """Where `host` is, in the resolver's order. Raises `OSError` (`socket.gaierror`)."""
        key = (host, port)
        known = self._known.get(key)
        age = self._clock() - known.at if known is not None else STALE
        if known is not None and age < FRESH:
            return known.places
        asked = self._asked.get(key)
        if asked is None:
            asked = self._ask(key)
        if known is not None and age < STALE:
            return known.places
        return await asyncio.shield(asked)  # whoever waits may give up; the others still want the answer

    def forget(self) -> None:
        """Ask for every name again."""
        self._known.clear()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, key: tuple[str, int]) -> asyncio.Future[list[Place]]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="lb-names")
        asked = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, *key)
        self._asked[key] = asked
        asked.add_done_callback(lambda done: self._answered(key, done))
        return asked

    def _answered(self, key: tuple[str, int], done: asyncio.Future[list[Place]]) -> None:
        self._asked.pop(key, None)
        if not done.cancelled() and done.exception() is None:
            self._known[key] = _Answer(self._clock(), done.result())


@lru_cache(maxsize=8192)
def literal(host: str, port: int) -> Place | None:
    """The place of a host that is an IP address already."""
    try:
        six = ipaddress.ip_address(host).version == 6
    except ValueError:
        return None
    return Place(socket.AF_INET6 if six else socket.AF_INET, (host, port))


def _look_up(host: str, port: int) -> list[Place]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places = [Place(int(family), (str(address[0]), port)) for family, _, _, _, address in found]
    return list(dict.fromkeys(places))
