"""TCP probes: open a connection and close it. A pass proves that the port accepts connections, and no more."""

from __future__ import annotations

import asyncio
from time import monotonic

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.connection import ProbeConnection
from lb.health.probes.dial import Dialer, place_of, spell, spell_at
from lb.health.probes.inline import InlineProbe, OnVerdict, PendingProbe
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

    def begin(self, timeout: float, on_verdict: OnVerdict, at: str = "") -> PendingProbe | None:
        place = literal(at, self._port) if at else self._place
        if place is None:
            return None
        knock = _Knock(self, on_verdict, at)
        knock.begin(self._dialer.transport, place, timeout)
        return knock

    async def run(self, at: str = "") -> Verdict:
        began = monotonic()
        connected = await self._dialer.open(_Visit, self._host, self._port, at=at)
        connected.close()
        return accepted(monotonic() - began)

    def timed_out(self, seconds: float) -> Verdict:
        return Verdict(False, seconds, f"no connection within {self._spec.timeout:g} s", "timeout")


def accepted(seconds: float) -> Verdict:
    """The verdict when the target has accepted the connection."""
    return Verdict(True, seconds, "connected", "passed", got="the connection was accepted")


class _Knock(InlineProbe):
    """A connection to an IP address; nothing is sent."""

    __slots__ = ("_probe",)

    def __init__(self, probe: TcpProbe, on_verdict: OnVerdict, at: str) -> None:
        super().__init__(b"", spell_at(probe.where, at), on_verdict)
        self._probe = probe

    def connected(self, connection: ProbeConnection) -> None:
        asyncio.get_running_loop().call_soon(self.finish, accepted(self.seconds))

    def data_received(self, data: bytes) -> None:
        """Ignored: nothing was asked."""

    def eof_received(self) -> None:
        """Ignored: the connection was accepted before."""

    def too_late(self) -> Verdict:
        return self._probe.timed_out(self.seconds)


class _Visit(asyncio.Protocol):
    """A connection to a name or a Unix socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def close(self) -> None:
        self.transport.close()
