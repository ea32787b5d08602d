"""Opens a connection and closes it: somebody listens there. It says nothing about readiness beyond that."""

from __future__ import annotations

import asyncio
from time import monotonic

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.asking import Asking, Prompt, Told
from lb.health.probes.dial import Dialer, place_of, spell, spell_at
from lb.health.probes.lines import Line
from lb.net.resolver import literal


class TcpProbe:
    """`protocol: tcp`."""

    def __init__(self, target: Target, spec: CheckSpec, dialer: Dialer) -> None:
        self._spec = spec
        self._dialer = dialer
        self._host, self._port = place_of(target, spec)
        self._place = literal(self._host, self._port)
        self.where = spell(self._host, self._port)

    @property
    def asked(self) -> str:
        return f"a connection to {self.where}"

    @property
    def expected(self) -> str:
        return f"that it is accepted within {self._spec.timeout:g} s"

    def begin(self, timeout: float, told: Told, at: str = "") -> Asking | None:
        place = literal(at, self._port) if at else self._place
        if place is None:
            return None
        knock = _Knock(self, told, at)
        knock.begin(self._dialer.lines, place, timeout)
        return knock

    async def run(self, at: str = "") -> Verdict:
        began = monotonic()
        connected = await self._dialer.open(_Visit, self._host, self._port, at=at)
        connected.leave()
        return accepted(monotonic() - began)

    def timed_out(self, seconds: float) -> Verdict:
        return Verdict(False, seconds, f"no connection within {self._spec.timeout:g} s", "timeout")


def accepted(seconds: float) -> Verdict:
    """The verdict when somebody listens."""
    return Verdict(True, seconds, "connected", "passed", got="the connection was accepted")


class _Knock(Prompt):
    """To an address: nothing is said."""

    __slots__ = ("_probe",)

    def __init__(self, probe: TcpProbe, told: Told, at: str) -> None:
        super().__init__(b"", spell_at(probe.where, at), told)
        self._probe = probe

    def connected(self, line: Line) -> None:
        asyncio.get_running_loop().call_soon(self.tell, accepted(self.seconds))

    def data_received(self, data: bytes) -> None:
        """What comes unasked says nothing."""

    def eof_received(self) -> None:
        """Nor does it that no more comes."""

    def too_late(self) -> Verdict:
        return self._probe.timed_out(self.seconds)


class _Visit(asyncio.Protocol):
    """To a name or a Unix socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def leave(self) -> None:
        self.transport.close()
