"""Runs a program and looks at its exit status: 0 is a pass.

The program gets `LB_TARGET_HOST`, `LB_TARGET_PORT`, `LB_TARGET` (the target's id) and `LB_TARGET_ADDRESS` (the IP
address that requests will go to, where the host is a name) in its environment, no input, and a process group of its
own. When its time is over the whole group is killed, whatever it has forked and whatever
signals it ignores; when it ends by itself, what it left behind in its group is killed as well.

Its output is kept up to a bound, the beginning and the end of it. A program that prints without end is read at a
bounded pace, so that it cannot keep the checker busy. A child that gives itself another session escapes; nothing
short of a container holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from time import monotonic
from typing import cast

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.targets import Target
from lb.health.probes.answer import agent_line, printable
from lb.health.probes.asking import Asking, Told
from lb.health.probes.dial import place_of, spell

#: Bytes of output that are kept: so many of its beginning and as many of its end.
KEPT = 2048
#: Output is read in bursts of so many bytes, then not for `REST` seconds.
BURST = 65536
REST = 0.02


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

    def begin(self, timeout: float, told: Told, at: str = "") -> Asking | None:
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
        last = got.rpartition("\n")[2]
        if code:
            ended = f"exit status {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
            return Verdict(False, seconds, f"{ended}{f': {last[:200]}' if last else ''}", "exit", got=got)
        weight, drain = agent_line(output.beginning)
        return Verdict(True, seconds, "exit status 0", "passed", weight, drain, got=got)

    def timed_out(self, seconds: float) -> Verdict:
        text = f"still running after {self._spec.timeout:g} s; killed with all its processes"
        return Verdict(False, seconds, text, "timeout", got=self._output.text())


async def run_command(command: tuple[str, ...], variables: dict[str, str], output: Output) -> int:
    """Run `command` to its end and return its exit status (-N: by signal N). Killed if the caller is cancelled."""
    loop = asyncio.get_running_loop()
    try:
        transport, process = await loop.subprocess_exec(
            lambda: _Process(loop, output),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise RuntimeError(f"cannot run {command[0]}: {error.strerror}") from None
    group = transport.get_pid()
    try:
        await asyncio.shield(process.ended)
        await process.read_on()
        return transport.get_returncode() or 0
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        transport.close()


class Output:
    """The beginning and the end of what a program printed."""

    __slots__ = ("beginning", "end", "size")

    def __init__(self) -> None:
        self.beginning = b""
        self.end = b""
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        room = KEPT - len(self.beginning)
        if room > 0:
            self.beginning += data[:room]
            data = data[room:]
        if data:
            self.end = (self.end + data)[-KEPT:]

    def text(self) -> str:
        lost = self.size - len(self.beginning) - len(self.end)
        between = f"\n… {lost} bytes …\n".encode() if lost > 0 else b""
        return printable(self.beginning + between + self.end, 2 * KEPT + 40).strip()


class _Process(asyncio.SubprocessProtocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, output: Output) -> None:
        self._loop = loop
        self._output = output
        self._burst = 0
        self._pipe: asyncio.ReadTransport | None = None
        self._closed = loop.create_future()  # its output has ended
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pipe = cast("asyncio.SubprocessTransport", transport).get_pipe_transport(1)
        self._pipe = cast("asyncio.ReadTransport", pipe)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self._output.add(data)
        self._burst += len(data)
        if self._burst > BURST and self._pipe is not None:
            self._burst = 0
            self._pipe.pause_reading()
            self._loop.call_later(REST, self._resume)

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        self._pipe = None
        if not self._closed.done():
            self._closed.set_result(None)

    def process_exited(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    async def read_on(self) -> None:
        """What it printed last may still be on its way; but others may hold its output open, so not for long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._closed), 0.05)

    def _resume(self) -> None:
        if self._pipe is not None and not self._pipe.is_closing():
            self._pipe.resume_reading()
