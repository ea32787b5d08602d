"""Opens a connection and closes it: somebody listens there. It says nothing about readiness beyond that."""

from __future__ import annotations

import asyncio
from time import monotonic

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.dial import Dialer, place_of, spell


class TcpProbe:
    """`protocol: tcp`."""

    def __init__(self, target: Target, spec: CheckSpec, dialer: Dialer) -> None:
        self._spec = spec
        self._dialer = dialer
        self._host, self._port = place_of(target, spec)
        self.where = spell(self._host, self._port)

    @property
    def asked(self) -> str:
        return f"a connection to {self.where}"

    @property
    def expected(self) -> str:
        return f"that it is accepted within {self._spec.timeout:g} s"

    async def run(self) -> Verdict:
        began = monotonic()
        connected = await self._dialer.open(_Knock, self._host, self._port)
        connected.leave()
        return Verdict(True, monotonic() - began, "connected", "passed", got="the connection was accepted")

    def timed_out(self, seconds: float) -> Verdict:
        return Verdict(False, seconds, f"no connection within {self._spec.timeout:g} s", "timeout")


class _Knock(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def leave(self) -> None:
        self.transport.close()
