"""Runs a program to its end, in a process group of its own and without input.

When the caller is cancelled, the whole group is killed, whatever it has forked and whatever signals it ignores. When
the program ends by itself, the processes that it left behind in its group are killed as well. A child that starts
another session escapes; nothing short of a container holds it.

The output is kept up to a bound: its beginning and its end. A program that prints without end is read at a bounded
pace, so that it cannot keep the event loop busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import cast

from lb.core.printable import printable

#: Bytes of output that are kept: so many of its beginning and as many of its end.
KEPT = 2048
#: Output is read in bursts of so many bytes, then not for `REST` seconds.
BURST = 65536
REST = 0.02
#: Seconds in which the last output may still arrive after the program has ended.
LAST_OUTPUT = 0.05


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

    def last_line(self) -> str:
        """The last line of the text, at most 200 characters."""
        return self.text().rpartition("\n")[2][:200]


async def run_command(command: tuple[str, ...], variables: Mapping[str, str], output: Output) -> int:
    """Run `command` to its end and return its exit status (-N: ended by signal N).

    `variables` are added to the environment. Raises `RuntimeError` when the program cannot be run.
    """
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
        await process.read_last_output()
        return transport.get_returncode() or 0
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        transport.close()


class _Process(asyncio.SubprocessProtocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, output: Output) -> None:
        self._loop = loop
        self._output = output
        self._burst = 0
        self._pipe: asyncio.ReadTransport | None = None
        self._output_ended = loop.create_future()
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
        if not self._output_ended.done():
            self._output_ended.set_result(None)

    def process_exited(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    async def read_last_output(self) -> None:
        """Wait for the end of the output, but not for long: a child may hold the pipe open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._output_ended), LAST_OUTPUT)

    def _resume(self) -> None:
        if self._pipe is not None and not self._pipe.is_closing():
            self._pipe.resume_reading()
