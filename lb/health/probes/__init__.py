"""Probes: one file a protocol, and each `run()` is one question and its verdict.

The monitor calls `ask`, which holds the time limit and turns every error into a failed probe with its text. A cancelled
probe (its target or its check has changed) gives no verdict.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.command import CommandProbe
from lb.health.probes.dial import Dialer, failure, spell_at
from lb.health.probes.grpc import GrpcProbe
from lb.health.probes.http import HttpProbe
from lb.health.probes.http2 import Http2Probe
from lb.health.probes.inline import OnVerdict, PendingProbe
from lb.health.probes.tcp import TcpProbe


class Probe(Protocol):
    """One check of one target. At most one probe of it is under way."""

    where: str  # the address, for people

    @property
    def asked(self) -> str:
        """The question, for people."""

    @property
    def expected(self) -> str:
        """The condition for a pass, for people."""

    def begin(self, timeout: float, on_verdict: OnVerdict, at: str = "") -> PendingProbe | None:
        """Begin a probe that needs no task (`inline.InlineProbe`). Returns None when it needs one.

        `at` is the IP address to ask, when the target is given by name.
        """

    async def run(self, at: str = "") -> Verdict:
        """Probe in a task, when `begin` has returned None."""

    def timed_out(self, seconds: float) -> Verdict:
        """The verdict when `run` has exceeded its time limit."""


def build(target: Target, spec: CheckSpec, dialer: Dialer) -> Probe:
    """The probe for a check. Raises ValueError for an unknown protocol."""
    match spec.protocol:
        case "http" | "https":
            return (Http2Probe if spec.http2 else HttpProbe)(target, spec, dialer)
        case "tcp":
            return TcpProbe(target, spec, dialer)
        case "grpc":
            return GrpcProbe(target, spec, dialer)
        case "command":
            return CommandProbe(target, spec)
    raise ValueError(f"there is no probe for the protocol {spec.protocol!r}")


def ask(probe: Probe, timeout: float, on_verdict: OnVerdict, at: str = "") -> PendingProbe:
    """Begin one probe, at the IP address `at` when the probe's host is a name.

    `on_verdict` is called once, after this returns and at most `timeout` seconds later.
    """
    pending = probe.begin(timeout, on_verdict, at)
    if pending is not None:
        return pending
    task = asyncio.get_running_loop().create_task(_run(probe, timeout, at))
    task.add_done_callback(lambda task: on_verdict(None if task.cancelled() else task.result()))
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
