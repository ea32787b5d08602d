"""Host names to addresses, without ever blocking the loop. Only the supervisor looks names up.

Workers get the addresses with their targets: if each process asked by itself, probes and requests could go to
different machines. Look-ups run in threads of their own, so that a resolver that hangs holds up the names it hangs on
and nothing else. A name in use is asked for again every `FRESH` seconds. When that fails, the last answer stays: a DNS
server that is down must not look like targets that are down.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import inf
from typing import NamedTuple

from lb.net.threads import threads

#: Seconds after which a name in use is asked for again.
FRESH = 5.0
#: Seconds between two passes over the names in use.
TICK = 1.0
#: Look-ups at one time; a thread is only started when it is needed.
THREADS = 16
#: Addresses of one name that are used.
MOST = 32

LookUp = Callable[[str], tuple[str, ...]]


class Place(NamedTuple):
    """One address to connect to."""

    family: int
    address: tuple[str, int]


class _Name:
    """One host name."""

    __slots__ = ("addresses", "asked_at", "asking")

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()  # the last good answer, in the resolver's order
        self.asked_at = -inf
        self.asking: asyncio.Future[tuple[str, ...]] | None = None


class Resolver:
    """The host names in use. `on_change` hears a name whose addresses are not the same as before."""

    def __init__(
        self,
        clock: Callable[[], float],
        on_change: Callable[[str], None] = lambda host: None,
        look_up: LookUp | None = None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._look_up = look_up or look_up_in_system
        self._names: dict[str, _Name] = {}
        self._in_use: frozenset[str] = frozenset()
        self._threads: ThreadPoolExecutor | None = None
        self._timer: asyncio.TimerHandle | None = None

    def use(self, hosts: Iterable[str]) -> None:
        """Keep exactly these names fresh, and ask for all of them again soon; forget the rest."""
        self._in_use = frozenset(hosts)
        for host in [host for host in self._names if host not in self._in_use]:
            del self._names[host]
        for host in self._in_use:
            self._names.setdefault(host, _Name()).asked_at = -inf

    def addresses(self, host: str) -> tuple[str, ...]:
        """The last good answer; empty: there is none yet."""
        name = self._names.get(host)
        return name.addresses if name is not None else ()

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of `host`; waits only where no answer is known yet. Raises `OSError` (`socket.gaierror`)."""
        name = self._names.setdefault(host, _Name())
        if self._clock() - name.asked_at >= FRESH:
            self._ask(host, name)
        if not name.addresses:
            # A caller that gives up must not end the look-up that other callers wait for.
            return await asyncio.shield(name.asking or self._ask(host, name))
        return name.addresses

    def renew(self, host: str) -> None:
        """A target of this name fails: ask now, at most once every `TICK` seconds."""
        name = self._names.get(host)
        if name is not None and self._clock() - name.asked_at >= TICK:
            self._ask(host, name)

    def start(self) -> None:
        """Begin to keep the names in use fresh."""
        self._tick()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        now = self._clock()
        for host in self._in_use:
            name = self._names[host]
            if now - name.asked_at >= (FRESH if name.addresses else TICK):
                self._ask(host, name)

    def _ask(self, host: str, name: _Name) -> asyncio.Future[tuple[str, ...]]:
        if name.asking is not None:
            return name.asking
        if self._threads is None:
            self._threads = threads(THREADS, "lb-names")
        name.asked_at = self._clock()
        name.asking = asking = asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host)
        asking.add_done_callback(lambda done: self._answered(host, name, done))
        return asking

    def _answered(self, host: str, name: _Name, done: asyncio.Future[tuple[str, ...]]) -> None:
        name.asking = None
        if done.cancelled() or done.exception() is not None or not done.result():
            return
        before, name.addresses = name.addresses, done.result()
        if set(before) != set(name.addresses) and self._names.get(host) is name:
            self._on_change(host)


@lru_cache(maxsize=32_768)
def literal(host: str, port: int) -> Place | None:
    """The place of a host that is an IP address already."""
    try:
        six = ipaddress.ip_address(host).version == 6
    except ValueError:
        return None
    return Place(socket.AF_INET6 if six else socket.AF_INET, (host, port))


def is_name(host: str) -> bool:
    """Whether `host` has to be looked up: it is neither an IP address nor `unix:/path`."""
    return not host.startswith("unix:") and literal(host, 0) is None


def look_up_in_system(host: str) -> tuple[str, ...]:
    """The answer of the system's resolver (hosts file, DNS), in its order. Blocks; raises `OSError`."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for _, _, _, _, address in answers))[:MOST]
