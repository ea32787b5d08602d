"""The address that requests for a target go to, where the target is given by name.

- A target has one address at a time: the last one that passed its check. A name that has moved, or has two addresses
  or none, changes nothing by itself.
- Once another address has passed, no request goes to the former one, by no connection that is open either.

So it is enough to know which address answered the last check that was counted. While there are two supervisors, or
none, that is not known: each address that ever passed may be in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.model.clock import CLOCK
from tests.model.peers import Backend

#: Seconds after a restart within which workers of two supervisors may serve.
TWO_AT_ONCE = 10.0


class Name:
    """One host name of one target."""

    def __init__(self, backend: Backend) -> None:
        self.had = [backend]  # all that it has stood for
        self.in_use: Backend | None = None
        self.left: dict[Backend, float] = {}  # until when it was in use

    def passed(self) -> None:
        """A check has passed, and lb has counted it."""
        last = max(self.had, key=lambda each: each.last_pass)
        if self.in_use is not None and last is not self.in_use:
            self.left[self.in_use] = CLOCK.now
        self.in_use = last

    def used_since(self, since: float) -> set[Backend]:
        """What was in use at any moment since then."""
        used = {backend for backend, at in self.left.items() if at >= since}
        return used | {self.in_use} if self.in_use is not None else used


class Names:
    """The names of a run, by host."""

    def __init__(self) -> None:
        self.known: dict[str, Name] = {}
        self.uncertain_until = -1e9

    def restarted(self) -> None:
        """Another supervisor looks names up, or none."""
        self.uncertain_until = CLOCK.now + TWO_AT_ONCE

    def used_since(self, host: str, since: float) -> set[Backend]:
        """The backends that requests for a host may have gone to since then."""
        name = self.known[host]
        if since <= self.uncertain_until:
            return {backend for backend in name.had if backend.last_pass}
        return name.used_since(since)

    def of(self, backend: Backend) -> str:
        """The host that has stood for a backend; empty: none has."""
        return next((host for host, name in self.known.items() if backend in name.had), "")

    def spelled(self, address: str, backends: Callable[[str], Backend]) -> str:
        """The address of the target that has a backend: with the name, where it has one."""
        host = self.of(backends(address))
        return f"{host}:{address.rpartition(':')[2]}" if host else address

    def stand_for(self, host: str, backends: Iterable[Backend]) -> None:
        """A host stands for these from now on, as far as it did not."""
        known = self.known.get(host)
        for backend in backends:
            if known is None:
                known = self.known[host] = Name(backend)
            elif backend not in known.had:
                known.had.append(backend)
