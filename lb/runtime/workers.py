"""The supervisor's side of its workers: start, replace, tell, and listen.

A worker that dies is replaced at once on the same sockets; one that dies again and again is given more and more time.
A newcomer is told the whole snapshot first. `confirm` waits until every worker serves by a version.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from lb.core.report import Alarm, Report
from lb.core.targets import Rotation, Snapshot
from lb.runtime.channel import VERSION, Applied, Channel, Hello, Message, Order, Poll, Polled, pack
from lb.runtime.totals import Totals

log = logging.getLogger("lb.workers")

#: Seconds without a sign of life after which a worker is taken for hung. It reports four times a second.
HUNG_AFTER = 10.0
#: Seconds that a worker must live for its death to count as the first one again.
STEADY_AFTER = 10.0
#: Seconds before a worker that died early is started again: 0 at first, doubling to the last.
BACKOFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class _Seat:
    """One worker's place: its number, its sockets, and the process that sits there now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.incarnation = 0
        self.applied = 0
        self.polled = 0
        self.started = 0.0
        self.heard = 0.0
        self.early_deaths = 0
        self.ready = asyncio.Event()


class Workers:
    """All workers of one supervisor."""

    def __init__(self, count: int, totals: Totals, on_alarm: Callable[[Alarm], None]) -> None:
        self.count = count
        self.totals = totals
        self.restarts = 0
        self.sockets: dict[str, list[socket.socket]] = {}  # bind → one listening socket per worker
        self.on_report: Callable[[Report], None] = lambda report: None
        self._on_alarm = on_alarm
        self._seats = [_Seat(number) for number in range(count)]
        self._snapshot = Snapshot(0)
        self._rotations: dict[str, Rotation] = {}
        self._changed = asyncio.Event()
        self._polls = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are alive."""
        return [seat.process.pid for seat in self._seats if seat.process is not None]

    async def start(self, snapshot: Snapshot, within: float = 15.0) -> None:
        """Start every worker; returns when all serve by `snapshot`. Raises TimeoutError."""
        self._snapshot = snapshot
        for seat in self._seats:
            await self._spawn(seat)
        self._watch(self._look_for_hung())
        await self.confirm(snapshot.version, within)

    # --- telling ----------------------------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> None:
        """A new snapshot for all."""
        self._snapshot = snapshot
        self._rotations = {rotation.service: rotation for rotation in snapshot.rotations}
        self._tell(snapshot)

    def rotate(self, rotation: Rotation) -> None:
        """A new rotation of one service for all."""
        self._rotations[rotation.service] = rotation
        self._tell(rotation)

    def order(self, what: str) -> None:
        """drain, stop or reopen, for all."""
        self._tell(Order(what))

    def _tell(self, message: Message) -> None:
        frame = pack(message)
        for seat in self._seats:
            if seat.channel is not None:
                seat.channel.send_frame(frame)

    async def confirm(self, version: int, within: float = 5.0) -> None:
        """Wait until every living worker serves by `version`. Raises TimeoutError."""
        async with asyncio.timeout(within):
            while any(seat.process is not None and seat.applied < version for seat in self._seats):
                self._changed.clear()
                await self._changed.wait()

    async def poll(self, within: float = 0.5) -> bool:
        """Ask all for a report now; False when one did not answer in time (its last report stands)."""
        self._polls += 1
        number = self._polls
        self._tell(Poll(number))
        try:
            async with asyncio.timeout(within):
                while any(seat.channel is not None and seat.polled < number for seat in self._seats):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # --- listening --------------------------------------------------------------------------------------------------

    def _on_message(self, seat: _Seat, message: Message) -> None:
        seat.heard = time.monotonic()
        if isinstance(message, Report):
            self.totals.take(message)
            seat.applied = max(seat.applied, message.applied)
            self.on_report(message)
        elif isinstance(message, Applied):
            seat.applied = message.version
        elif isinstance(message, Polled):
            seat.polled = message.number
        elif isinstance(message, Alarm):
            self._on_alarm(message)
        elif isinstance(message, Hello):
            if message.version != VERSION:
                log.error("worker %d speaks version %d, not %d", seat.number, message.version, VERSION)
            seat.incarnation = message.incarnation
        self._changed.set()

    # --- processes --------------------------------------------------------------------------------------------------

    async def _spawn(self, seat: _Seat) -> None:
        ours, theirs = socket.socketpair()
        fds = {bind: sockets[seat.number].fileno() for bind, sockets in self.sockets.items()}
        told = json.dumps({"number": seat.number, "channel": theirs.fileno(), "listeners": fds})
        seat.applied = 0
        seat.started = seat.heard = time.monotonic()
        seat.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lb.runtime.worker",
            told,
            pass_fds=(theirs.fileno(), *fds.values()),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
        )
        theirs.close()
        seat.channel = await Channel.over(ours, lambda message: self._on_message(seat, message), self._changed.set)
        rotations = tuple(self._rotations.values()) or self._snapshot.rotations
        version = max([self._snapshot.version, *(rotation.version for rotation in rotations)])
        seat.channel.send(replace(self._snapshot, version=version, rotations=rotations))
        self._watch(self._await_end(seat, seat.process))

    async def _await_end(self, seat: _Seat, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if seat.channel is not None:
            await asyncio.sleep(0)  # what it sent last is read first
            seat.channel.close()
        seat.channel = None
        seat.process = None
        self.totals.gone(seat.incarnation)
        self._changed.set()
        if self._stopping:
            return
        lived = time.monotonic() - seat.started
        seat.early_deaths = seat.early_deaths + 1 if lived < STEADY_AFTER else 0
        pause = BACKOFF[min(seat.early_deaths, len(BACKOFF) - 1)]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        log.error("worker %d %s after %.1f s; the next one starts in %.1f s", seat.number, how, lived, pause)
        self.restarts += 1
        await asyncio.sleep(pause)
        if not self._stopping:
            await self._spawn(seat)

    async def _look_for_hung(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for seat in self._seats:
                silent = time.monotonic() - seat.heard
                if seat.process is not None and silent > HUNG_AFTER:
                    log.error("worker %d has said nothing for %.0f s and is replaced", seat.number, silent)
                    seat.process.kill()

    def _watch(self, coroutine: object) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, within: float) -> None:
        """Let requests under way end for `within` seconds, then stop at once."""
        self._stopping = True
        self.order("drain")
        try:
            async with asyncio.timeout(within):
                while self.pids:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.order("stop")
            await self._end_all()

    async def _end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                async with asyncio.timeout(1.0):
                    while self.pids:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                for pid in self.pids:
                    os.kill(pid, number)
            else:
                return
