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

#: Seconds that a worker must live for its death to count as the first one again.
STEADY_AFTER = 10.0
#: Seconds before a worker that died early is started again: 0 at first, doubling to the last.
BACKOFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class _Life:
    """One worker process, from its start to its end."""

    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        self.number = number
        self.process = process
        self.channel: Channel | None = None
        self.incarnation = 0
        self.applied = 0
        self.polled = 0
        self.started = self.heard = time.monotonic()
        self.leaving = False  # its successor serves already; it only ends what is under way


class _Seat:
    """A worker's place: its number, and who sits there."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.life: _Life | None = None
        self.early_deaths = 0


class Workers:
    """All workers of one supervisor."""

    def __init__(self, count: int, totals: Totals, on_alarm: Callable[[Alarm], None]) -> None:
        self.count = count
        self.totals = totals
        self.restarts = 0
        self.sockets: dict[str, list[socket.socket]] = {}  # bind → one listening socket per worker
        self.hung_after = 10.0  # seconds without a sign of life; a worker reports four times a second
        self.on_report: Callable[[Report], None] = lambda report: None
        self.on_death: Callable[[str], None] = log.error
        self._on_alarm = on_alarm
        self._seats = [_Seat(number) for number in range(count)]
        self._lives: list[_Life] = []
        self._snapshot = Snapshot(0)
        self._rotations: dict[str, Rotation] = {}
        self._changed = asyncio.Event()
        self._polls = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are alive."""
        return [life.process.pid for life in self._lives]

    async def start(self, snapshot: Snapshot, within: float = 15.0) -> None:
        """Start every worker; returns when all serve by `snapshot`. Raises TimeoutError."""
        self._snapshot = snapshot
        self._rotations = {rotation.service: rotation for rotation in snapshot.rotations}
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
        for life in self._lives:
            if life.channel is not None:
                life.channel.send_frame(frame)

    def serves(self, version: int) -> bool:
        """Whether every worker serves by `version`."""
        return all(life.applied >= version for life in self._lives)

    async def confirm(self, version: int, within: float = 5.0) -> None:
        """Wait until every worker serves by `version`. Raises TimeoutError."""
        await self._until(lambda: self.serves(version), within)

    async def poll(self, within: float = 0.5) -> bool:
        """Ask all for a report now; False when one did not answer in time (its last report stands)."""
        self._polls += 1
        number = self._polls
        self._tell(Poll(number))
        try:
            await self._until(lambda: all(life.polled >= number for life in self._lives if life.channel), within)
        except TimeoutError:
            return False
        return True

    async def _until(self, condition: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within):
            while not condition():
                changed = self._changed
                await changed.wait()

    def _wake(self) -> None:
        """Something changed: everybody who waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # --- listening --------------------------------------------------------------------------------------------------

    def _on_message(self, life: _Life, message: Message) -> None:
        life.heard = time.monotonic()
        if isinstance(message, Report):
            self.totals.take(message)
            life.applied = max(life.applied, message.applied)
            self.on_report(message)
        elif isinstance(message, Applied):
            life.applied = message.version
        elif isinstance(message, Polled):
            life.polled = message.number
        elif isinstance(message, Alarm):
            self._on_alarm(message)
        elif isinstance(message, Hello):
            if message.version != VERSION:
                log.error("worker %d speaks version %d, not %d", life.number, message.version, VERSION)
            life.incarnation = message.incarnation
        self._wake()

    # --- processes --------------------------------------------------------------------------------------------------

    async def renew(self, within: float = 15.0) -> None:
        """Put a new process on every seat, with the sockets as they are now; the old ones end what is under way."""
        for seat in self._seats:
            old = seat.life
            await self._spawn(seat)
            heir = seat.life
            assert heir is not None
            await self._until(lambda heir=heir: heir.applied > 0 or heir not in self._lives, within)  # type: ignore[misc]
            if old is not None and old.channel is not None:
                old.leaving = True
                old.channel.send(Order("drain"))

    async def _spawn(self, seat: _Seat) -> None:
        ours, theirs = socket.socketpair()
        fds = {bind: sockets[seat.number].fileno() for bind, sockets in self.sockets.items()}
        told = json.dumps({"number": seat.number, "channel": theirs.fileno(), "listeners": fds})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lb.runtime.worker",
            told,
            pass_fds=(theirs.fileno(), *fds.values()),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
        )
        theirs.close()
        life = seat.life = _Life(seat.number, process)
        self._lives.append(life)
        life.channel = await Channel.over(ours, lambda message: self._on_message(life, message), self._wake)
        rotations = tuple(self._rotations.values())
        version = max([self._snapshot.version, *(rotation.version for rotation in rotations)])
        life.channel.send(replace(self._snapshot, version=version, rotations=rotations))
        self._watch(self._await_end(seat, life))

    async def _await_end(self, seat: _Seat, life: _Life) -> None:
        code = await life.process.wait()
        await asyncio.sleep(0)  # what it sent last is read first
        if life.channel is not None:
            life.channel.close()
        self._lives.remove(life)
        self.totals.gone(life.incarnation)
        self._wake()
        if self._stopping or life.leaving or seat.life is not life:
            return
        lived = time.monotonic() - life.started
        seat.early_deaths = seat.early_deaths + 1 if lived < STEADY_AFTER else 0
        pause = BACKOFF[min(max(0, seat.early_deaths - 1), len(BACKOFF) - 1)]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        self.on_death(f"worker {seat.number} {how} after {lived:.1f} s; the next one starts in {pause:g} s")
        self.restarts += 1
        await asyncio.sleep(pause)
        if not self._stopping:
            await self._spawn(seat)

    async def _look_for_hung(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for life in self._lives:
                silent = time.monotonic() - life.heard
                if silent > self.hung_after:
                    self.on_death(f"worker {life.number} has said nothing for {silent:.0f} s and is replaced")
                    life.process.kill()

    def _watch(self, coroutine: object) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, within: float) -> None:
        """Let requests under way end for `within` seconds, then stop at once."""
        self._stopping = True
        self.close_sockets()  # the workers' own are the last ones then, and end in order
        self.order("drain")
        try:
            await self._until(lambda: not self._lives, within)
        except TimeoutError:
            self.order("stop")
            await self._end_all()

    def close_sockets(self) -> None:
        """Close the supervisor's copies of the listening sockets."""
        for sockets in self.sockets.values():
            for sock in sockets:
                sock.close()

    async def _end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                await self._until(lambda: not self._lives, 1.0)
            except TimeoutError:
                for pid in self.pids:
                    os.kill(pid, number)
            else:
                return
        await self._until(lambda: not self._lives, 5.0)
