"""One probe of a target that is given by name: its addresses are asked in turn until one passes.

Requests go to the address that has passed, and to no other address. So a failing address, or a family that is not
routed, costs the target nothing while another address passes. An example is a dead AAAA record beside a live A record.

The address in use is asked first and has the whole `timeout`. The other addresses together have as much time again, so
that a probe ends after twice its `timeout` at the latest. An address without a turn has one in a later probe (see
`Monitor`).
"""

from __future__ import annotations

import asyncio
from time import monotonic

from lb.core.lifecycle import Verdict
from lb.health.probes import Probe, ask
from lb.health.probes.dial import failure
from lb.health.probes.inline import OnVerdict, PendingProbe
from lb.net.resolver import Resolver


class Turns:
    """A probe under way that may ask several addresses."""

    __slots__ = ("_ends", "_failed", "_next", "_on_verdict", "_probe", "_timeout", "_under_way", "passed")

    def __init__(self, probe: Probe, timeout: float, on_verdict: OnVerdict) -> None:
        self.passed = ""  # the address that passed
        self._probe = probe
        self._timeout = timeout
        self._on_verdict = on_verdict
        self._under_way: PendingProbe | None = None
        self._next: list[str] = []
        self._failed: list[tuple[str, Verdict]] = []
        self._ends = 0.0

    def begin(self, order: list[str]) -> None:
        """Ask these addresses, at least one, in this order."""
        self._next = order
        self._ends = monotonic() + 2 * self._timeout
        self._ask_one(self._timeout)

    def look_up(self, resolver: Resolver, host: str) -> None:
        """Ask the addresses of a name that is not resolved yet."""
        self._under_way = task = asyncio.get_running_loop().create_task(self._resolve(resolver, host))
        task.add_done_callback(lambda task: self._resolved(None if task.cancelled() else task.result()))

    def cancel(self) -> None:
        """Cancel the probe."""
        if self._under_way is not None:
            self._under_way.cancel()

    @property
    def task(self) -> asyncio.Task[object] | None:
        """The task of the probe, if it has one."""
        return self._under_way if isinstance(self._under_way, asyncio.Task) else None

    async def _resolve(self, resolver: Resolver, host: str) -> Verdict | tuple[str, ...]:
        began = monotonic()
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await resolver.resolve(host)
        except Exception as error:
            seconds = monotonic() - began
            if isinstance(error, TimeoutError) and limit.expired():
                return Verdict(False, seconds, f"{host} was not looked up within {self._timeout:g} s", "dns")
            return failure(error, self._probe.where, seconds)

    def _resolved(self, answer: Verdict | tuple[str, ...] | None) -> None:
        if answer is None or isinstance(answer, Verdict):
            self._on_verdict(answer)
        else:
            self.begin(list(answer))

    def _ask_one(self, timeout: float) -> None:
        address = self._next.pop(0)
        self._under_way = ask(self._probe, timeout, lambda verdict: self._heard(address, verdict), address)

    def _heard(self, address: str, verdict: Verdict | None) -> None:
        if verdict is None or verdict.ignored:
            self._on_verdict(verdict)
        elif verdict.ok:
            self.passed = address
            self._on_verdict(self._with_failures(address, verdict) if self._failed else verdict)
        else:
            self._failed.append((address, verdict))
            time = min(self._timeout, self._ends - monotonic())
            if self._next and time > 0.001 and verdict.kind != "local":
                self._ask_one(time)
            else:
                first, why = self._failed[0]
                self._on_verdict(self._with_failures(first, why) if len(self._failed) > 1 else why)

    def _with_failures(self, address: str, verdict: Verdict) -> Verdict:
        """The verdict on `address`, with the failures of the other addresses."""
        others = [f"at {other}: {why.text}" for other, why in self._failed if other != address]
        return verdict._replace(text="; ".join([f"at {address}: {verdict.text}", *others]))
