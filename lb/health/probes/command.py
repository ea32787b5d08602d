"""Command probes: run a program and judge its exit status. 0 is a pass.

The program's environment has `LB_TARGET_HOST`, `LB_TARGET_PORT`, `LB_TARGET` (the target's id), and
`LB_TARGET_ADDRESS`. The last one is the IP address that requests will go to, when the host is a name. `net.command`
runs, bounds and kills it.
"""

from __future__ import annotations

import signal
from time import monotonic

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.answer import agent_line
from lb.health.probes.dial import place_of, spell
from lb.health.probes.inline import OnVerdict, PendingProbe
from lb.net.command import Output, run_command


class CommandProbe:
    """`protocol: command`."""

    def __init__(self, target: Target, spec: CheckSpec) -> None:
        self._spec = spec
        self._id = target.id
        self._host, self._port = place_of(target, spec)
        self._output = Output()
        self.where = spell(self._host, self._port)

    @property
    def asked(self) -> str:
        variables = f"LB_TARGET_HOST={self._host} LB_TARGET_PORT={self._port} LB_TARGET={self._id}"
        return f"{variables}\n{' '.join(self._spec.command)}"

    @property
    def expected(self) -> str:
        return f"exit status 0 within {self._spec.timeout:g} s"

    def begin(self, timeout: float, on_verdict: OnVerdict, at: str = "") -> PendingProbe | None:
        return None

    async def run(self, at: str = "") -> Verdict:
        began = monotonic()
        output = self._output = Output()
        code = await run_command(
            self._spec.command,
            {
                "LB_TARGET_HOST": self._host,
                "LB_TARGET_PORT": str(self._port),
                "LB_TARGET": self._id,
                "LB_TARGET_ADDRESS": at or self._host,
            },
            output,
        )
        seconds = monotonic() - began
        got = output.text()
        last = output.last_line()
        if code:
            ended = f"exit status {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
            return Verdict(False, seconds, f"{ended}{f': {last}' if last else ''}", "exit", got=got)
        weight, drain = agent_line(output.beginning)
        return Verdict(True, seconds, "exit status 0", "passed", weight, drain, got=got)

    def timed_out(self, seconds: float) -> Verdict:
        text = f"still running after {self._spec.timeout:g} s; killed with all its processes"
        return Verdict(False, seconds, text, "timeout", got=self._output.text())
