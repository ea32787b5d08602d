"""The ways to ask a target: one file a protocol, each `run()` one question and its verdict.

`ask` is what the monitor calls: it holds the time limit, and makes every error a failed probe with its text. A probe
that is cancelled (its target or its check has changed) gives no verdict at all.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.asking import Asking, Told
from lb.health.probes.command import CommandProbe
from lb.health.probes.dial import Dialer, failure, spell_at
from lb.health.probes.grpc import GrpcProbe
from lb.health.probes.http import HttpProbe
from lb.health.probes.tcp import TcpProbe


class Probe(Protocol):
    """One check of one target. It is asked one question at a time."""

    where: str  # the address, as people write it

    @property
    def asked(self) -> str:
        """What is asked, for people."""

    @property
    def expected(self) -> str:
        """What a pass must be, for people."""

    def begin(self, timeout: float, told: Told, at: str = "") -> Asking | None:
        """Ask, if that can be done without a task (`asking.Prompt`). `at`: the IP address to ask, for a host name."""

    async def run(self, at: str = "") -> Verdict:
        """Ask where `begin` could not."""

    def timed_out(self, seconds: float) -> Verdict:
        """The verdict when `run` was stopped because its time was over."""


def build(target: Target, spec: CheckSpec, dialer: Dialer) -> Probe:
    """The probe for a check; ValueError for a protocol there is none for."""
    match spec.protocol:
        case "http" | "https":
            return HttpProbe(target, spec, dialer)
        case "tcp":
            return TcpProbe(target, spec, dialer)
        case "grpc":
            return GrpcProbe(target, spec, dialer)
        case "command":
            return CommandProbe(target, spec)
    raise ValueError(f"there is no probe for the protocol {spec.protocol!r}")


def ask(probe: Probe, timeout: float, told: Told, at: str = "") -> Asking:
    """One question, put to the IP address `at` where the probe's host is a name.

    `told` hears what came of it, not before this returns and after `timeout` seconds at most.
    """
    asking = probe.begin(timeout, told, at)
    if asking is not None:
        return asking
    task = asyncio.get_running_loop().create_task(_run(probe, timeout, at))
    task.add_done_callback(lambda task: told(None if task.cancelled() else task.result()))
    return task


async def _run(probe: Probe, timeout: float, at: str) -> Verdict:
    """Raises nothing but `CancelledError`."""
    began = monotonic()
    try:
        async with asyncio.timeout(timeout) as limit:
            return await probe.run(at)
    except Exception as error:
        seconds = monotonic() - began
        if isinstance(error, TimeoutError) and limit.expired():
            return probe.timed_out(seconds)
        return failure(error, spell_at(probe.where, at), seconds)
