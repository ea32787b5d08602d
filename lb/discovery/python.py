"""Targets from a user's own Python function, which runs in a process of its own.

So no fault of the function is one of lb: an exception and an answer that names no targets are told, a function that
does not return is killed, a process that has ended is started again. The last answer stays meanwhile. Targets are
checked as those of a discovery file are, and may not have lb run a program either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from lb.config.found import Unfit, found_of
from lb.config.model.discovery import Python
from lb.core.membership import Answer
from lb.core.printable import printable
from lb.discovery import python_child
from lb.discovery.backoff import backoff
from lb.discovery.lines import Lines, TooLong
from lb.discovery.source import Newest, NoAnswer, Tell

#: Seconds that a process has to start, beside the time for its first call.
START = 5.0
#: Seconds before a process is started again: the first wait, doubled with each failure up to the second one.
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
#: Octets of one answer.
MOST_OCTETS = 32 << 20


class PythonSource:
    """One function."""

    def __init__(self, settings: Python, dice: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._dice = dice
        self._last: tuple[bytes, Answer] | None = None  # an answer that is given again is not checked again

    async def ask(self) -> Answer:
        async with self._running(0.0) as child:
            return await self._answer(child, START + self._settings.timeout)

    async def watch(self, tell: Tell) -> None:
        newest = Newest(tell)
        failures = 0
        while True:
            answered = 0
            try:
                async with self._running(self._settings.interval) as child:
                    wait = START + self._settings.timeout
                    while True:
                        try:
                            newest(await self._answer(child, wait))
                        except Failed as error:
                            newest(error)
                        answered += 1
                        wait = self._settings.interval + self._settings.timeout
            except Ended as error:
                if not error.by_itself or not answered:
                    newest(error)
            except NoAnswer as error:
                newest(error)
            failures = 0 if answered > 1 else failures + 1
            await asyncio.sleep(backoff(failures + 1, FIRST_WAIT, LONGEST_WAIT, self._dice()))

    async def _answer(self, child: Child, wait: float) -> Answer:
        """The next answer of the process. Raises `Failed` where it goes on after that, else `NoAnswer`."""
        line = await child.line(wait, self._settings)
        if self._last is not None and self._last[0] == line:
            return self._last[1]
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            raise NoAnswer(f"{self._settings.source} has written something else than its answer") from None
        if not isinstance(reply, dict) or "targets" not in reply:
            said = printable(str(reply.get("error") if isinstance(reply, dict) else reply).encode(), 500)
            raise Failed(f"{self._settings.source} has failed: {said}")
        try:
            found = await asyncio.to_thread(found_of, reply["targets"])
        except Unfit as error:
            raise Failed(f"{self._settings.source} names what is no target: {error}") from None
        self._last = line, Answer(found)
        return self._last[1]

    @asynccontextmanager
    async def _running(self, interval: float) -> AsyncIterator[Child]:
        """The process, for the time of a block."""
        order = {
            "source": self._settings.source,
            "path": self._settings.path or "",
            "arguments": self._settings.arguments,
            "interval": interval,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # modules come from the path that the file names, and from installed packages
                str(Path(python_child.__file__)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise NoAnswer(f"no process can be started for {self._settings.source}: {error.strerror}") from None
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            yield Child(process)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await process.wait()


class Failed(NoAnswer):
    """The function has failed, and will be called again."""


class Ended(NoAnswer):
    """The process has ended. `by_itself`: without an error, as it does when its code has changed."""

    def __init__(self, text: str, by_itself: bool) -> None:
        super().__init__(text)
        self.by_itself = by_itself


class Child:
    """A running process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines = Lines(MOST_OCTETS)
        self._ready: list[bytes] = []

    async def line(self, wait: float, settings: Python) -> bytes:
        """Its next line. Raises `NoAnswer`."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(wait):
                while not self._ready:
                    assert self._process.stdout is not None
                    data = await self._process.stdout.read(1 << 18)
                    if not data:
                        status = await self._process.wait()
                        text = f"the process of {settings.source} has ended ({_exit(status)})"
                        raise Ended(text, status == 0)
                    self._ready = self._lines.add(data)
        except TimeoutError:
            lasted = time.monotonic() - began
            raise NoAnswer(f"{settings.source} has not returned for {lasted:.0f} s, and is killed") from None
        except TooLong:
            raise NoAnswer(f"{settings.source} answered more than {MOST_OCTETS >> 20} MiB") from None
        return self._ready.pop(0)


def _exit(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
