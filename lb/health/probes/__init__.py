"""The ways to ask a target: one file a protocol, each `run()` one question and its verdict.

`ask` is what the monitor calls: it holds the time limit, and makes every error a failed probe with its text. A probe
that is cancelled (its target or its check has changed) gives no verdict at all.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Protocol

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.command import CommandProbe
from lb.health.probes.dial import Dialer, failure
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

    async def run(self) -> Verdict: ...

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


async def ask(probe: Probe, timeout: float) -> Verdict:
    """One question, `timeout` seconds at most. Raises nothing but `CancelledError`.

    It does what `asyncio.timeout` does, for half of what that costs.
    """
    began = monotonic()
    task = asyncio.current_task()
    assert task is not None
    limit = _Limit(task)
    timer = task.get_loop().call_later(timeout, limit.expire)
    try:
        return await probe.run()
    except asyncio.CancelledError:
        if limit.expired and not task.uncancel():  # by us, and by nobody else
            return probe.timed_out(monotonic() - began)
        raise
    except Exception as error:
        return failure(error, probe.where, monotonic() - began)
    finally:
        timer.cancel()


class _Limit:
    """Cancels a task whose time is over."""

    __slots__ = ("_task", "expired")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.expired = False

    def expire(self) -> None:
        self.expired = True
        self._task.cancel()
