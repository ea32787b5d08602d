"""The supervisor's side of its workers: start, replace, tell, and listen.

Every worker has a seat: a number, and listening sockets of its own that the supervisor keeps open. When a worker dies,
a neighbour listens on its sockets at once, and hands them back when the successor serves: nobody waits in a queue that
is not attended to. The same is done for one that gives no sign of life, until it is ended or comes round.

A worker that dies again and again, hardly having served, is given more and more time, and after `GIVE_UP` deaths in a
row its seat stays empty. When all are, `on_hopeless` is called: there is nothing left to supervise.

One that has grown above `memory` is recycled: its heir serves first, on the same sockets, then it drains. So is one
that is behind, as it could not install a snapshot or rotation; it gets the newest snapshot once more when it drains. A
new one that cannot install its first snapshot is killed, which counts as an early death.

`confirm` waits until every worker serves by a version, `poll` until all have reported.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lb.core.report import Alarm, Report
from lb.core.target_changes import target_changes, with_targets
from lb.core.targets import Rotation, Snapshot, Targets
from lb.process import fd_handover
from lb.process.channel import VERSION, Applied, Behind, Channel, Hello, Message, Order, Poll, Polled, Trouble, pack
from lb.process.guard import Guard
from lb.proxy import crash_counters
from lb.proxy.crash_counters import NOTHING, Unfinished
from lb.supervisor.totals import Totals

log = logging.getLogger("lb.workers")

#: Seconds that a worker must have served for its death to count as the first one again.
STEADY_AFTER = 3.0
#: Seconds before the successor of a worker that died early is started: none at first, growing to the last.
BACKOFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: Early deaths in a row after which a seat stays empty.
GIVE_UP = 10
#: Seconds between two looks at what workers do.
LOOK_EVERY = 0.25
#: Seconds without a sign of life after which a neighbour helps out; a worker reports four times a second.
SILENT_AFTER = 1.5
#: Seconds that a new worker has to serve before it is given up.
SERVE_WITHIN = 15.0
#: Seconds before a seat's worker is recycled again: one that is born too large must not be replaced for ever.
RECYCLE_EVERY = 60.0
#: Seconds before the next heir of a worker that is behind, growing to the last while no heir can install the snapshot.
HEIR_BACKOFF = (1.0, 2.0, 5.0, 15.0, 60.0)
#: glibc gives memory back to the kernel, and takes it anew, with nearly every piece of a large answer: half of what
#: such an answer costs. With a margin it does so rarely; what is set in the environment already stays.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_TOP_PAD_": str(1 << 20)}
#: Seconds at most for reading what a worker that has ended had sent: its socket is closed, so nothing more is coming.
READ_TO_END = 5.0
#: Seconds that a worker has to leave a trace of where it hangs, before it is killed.
TRACE_TIME = 0.3


class Unconfirmed(Exception):  # noqa: N818 - it says what happened
    """Workers that serve have not confirmed a version in time: each one's name, and why."""

    def __init__(self, workers: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name} {why}" for name, why in workers))
        self.workers = workers


class Life:
    """One worker process, from its start to its end."""

    def __init__(self, number: int, pid: int, process: asyncio.subprocess.Process | None) -> None:
        self.number = number
        self.pid = pid
        self.process = process  # None: another supervisor started it
        self.channel: Channel | None = None
        self.doors: socket.socket | None = None
        self.incarnation = 0
        self.applied = 0
        self.behind: Behind | None = None  # what it could not install; it confirms nothing until it can
        self.polled = 0
        self.heard = time.monotonic()
        self.served_since = 0.0  # 0: it does not serve yet
        self.leaving = False  # its successor serves already; it only ends what is under way
        self.doomed = False  # it is being killed
        self.rss = 0
        self.crash_counters = -1  # the page of `proxy.crash_counters`

    def say(self, message: Message) -> None:
        if self.channel is not None:
            self.channel.send(message)

    def hand(self, door: fd_handover.Door, sock: socket.socket, spare: bool = False) -> None:
        """Give it a socket to listen on, or to keep; one that takes none hangs, and will be found out."""
        if self.doors is not None:
            with suppress(OSError):
                fd_handover.hand(self.doors, door, sock, spare)

    def left(self) -> Unfinished:
        """What it had under way when it ended, by the page that outlives it."""
        return (crash_counters.read(self.crash_counters) if self.crash_counters >= 0 else None) or NOTHING

    def close(self) -> None:
        """Let go of everything that led to it."""
        if self.channel is not None:
            self.channel.close()
        if self.doors is not None:
            self.doors.close()
        if self.crash_counters >= 0:
            os.close(self.crash_counters)
            self.crash_counters = -1

    def close_door(self, door: fd_handover.Door) -> None:
        if self.doors is not None:
            with suppress(OSError):
                fd_handover.close(self.doors, door)


class Seat:
    """A worker's place: its number, who sits there, and who helps out."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.life: Life | None = None
        self.heir: Life | None = None  # is to take the place when it serves
        self.keeper: Life | None = None  # a neighbour that listens on this seat's sockets meanwhile
        self.early_deaths = 0
        self.given_up = False
        self.recycled = 0.0
        self.replacing = False  # an heir is being started
        self.failed_heirs = 0  # in a row, of a worker that is behind
        self.next_heir = 0.0  # when that worker may have another one


class Workers:
    """All workers of one supervisor."""

    def __init__(
        self,
        count: int,
        totals: Totals,
        *,
        directory: Path | None = None,
        on_alarm: Callable[[Alarm], None] = lambda alarm: None,
        on_report: Callable[[Report], None] = lambda report: None,
        tell: Callable[[str], None] = log.warning,
        on_hopeless: Callable[[], None] = lambda: None,
        guard: Guard | None = None,
    ) -> None:
        self.count = count
        self.totals = totals
        self.directory = directory  # where workers can be found by an heir of this supervisor
        self.restarts = 0
        self.sockets: dict[str, list[socket.socket]] = {}  # bind → its queues; number n belongs to seat n mod count
        self.hung_after = 10.0  # seconds without a sign of life
        self.memory = 0  # bytes of resident memory above which a worker is recycled; 0: no bound
        self.drain = 30.0  # seconds that what is under way may take in a worker that was recycled
        self._on_alarm = on_alarm
        self._on_report = on_report
        self._tell_people = tell
        self._on_hopeless = on_hopeless
        self._guard = guard or Guard(tell)
        self._seats = [Seat(number) for number in range(count)]
        self._lives: list[Life] = []
        self._snapshot = Snapshot(0)
        self._version = 0  # of the snapshot, or of the newest change of its targets
        self._rotations: dict[str, Rotation] = {}
        self._changed = asyncio.Event()
        self._polls = 0
        self._settled = False
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def seats(self) -> tuple[Seat, ...]:
        """Every worker's place, by number."""
        return tuple(self._seats)

    @property
    def lives(self) -> tuple[Life, ...]:
        """Every process that has not ended yet, those that leave included."""
        return tuple(self._lives)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that serve or are about to; without those that only end what is under way."""
        return [seat.life.pid for seat in self._seats if seat.life is not None]

    @property
    def by_number(self) -> dict[int, int]:
        """Process ids by the worker's number, of those that `pids` names."""
        return {seat.number: seat.life.pid for seat in self._seats if seat.life is not None}

    @property
    def leaving(self) -> list[int]:
        """Process ids of those that have an heir and drain."""
        return [life.pid for life in self._lives if life.leaving]

    @property
    def empty_seats(self) -> int:
        """Seats whose workers died again and again."""
        return sum(seat.given_up for seat in self._seats)

    async def start(self, snapshot: Snapshot, within: float = SERVE_WITHIN) -> None:
        """Start every worker; returns when all serve by `snapshot`. Raises TimeoutError, or OSError."""
        self._take(snapshot)
        for seat in self._seats:
            seat.life = await self._spawn(seat)
        self._go(self._guard.keep_running("workers", self._look))
        await self._until(lambda: all(seat.life is not None and seat.life.served_since for seat in self._seats), within)

    def settle(self) -> None:
        """All is well: workers outlive their supervisor from now on."""
        self._settled = True
        self._tell(Order("settle"))

    async def adopt(self, visit: fd_handover.Visit) -> None:
        """Take a worker of an earlier supervisor in: its reports count, it is told what is new, and it drains."""
        life = Life(visit.number, visit.pid, None)
        life.incarnation, life.applied, life.leaving = visit.incarnation, visit.applied, True
        life.served_since = life.heard
        life.crash_counters = visit.crash_counters
        self._lives.append(life)
        life.channel = await Channel.over(
            visit.connection, lambda message: self._on_message(life, message), lambda: self._on_end(None, life, None)
        )
        if self._snapshot.version:  # not in a start that ends before there is one
            life.say(self._whole())
        life.say(Order("drain", self.drain))

    # --- telling ----------------------------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> None:
        """A new snapshot for all: where it differs by targets alone, what has changed of them."""
        changes = target_changes(self._whole(), snapshot)
        self._take(snapshot)
        if changes is None:
            self._tell(snapshot)
        else:
            self._tell_changes(changes)

    def change(self, targets: Targets) -> None:
        """Changed targets for all."""
        self._snapshot = with_targets(self._snapshot, targets)
        self._rotations |= {rotation.service: rotation for rotation in targets.rotations}
        self._version = max(self._version, targets.version)
        self._tell_changes(targets)

    def _tell_changes(self, targets: Targets) -> None:
        """Tell who is behind everything: it does not have what these targets are a change of."""
        self._tell(targets, [life for life in self._lives if life.behind is None])
        behind = [life for life in self._lives if life.behind is not None]
        if behind:
            self._tell(self._whole(), behind)

    def rotate(self, rotation: Rotation) -> None:
        """A new rotation of one service for all."""
        self._rotations[rotation.service] = rotation
        self._tell(rotation)

    def order(self, order: Order) -> None:
        """An order for all."""
        self._tell(order)

    def open(self, bind: str, sockets: list[socket.socket]) -> None:
        """A new listener, one socket a seat; the snapshot that knows it must follow."""
        self.sockets[bind] = sockets
        for life in self._lives:
            if not life.leaving:
                self._equip(life, (bind,))
        for seat in self._seats:
            if seat.keeper is not None:
                self._hand(seat.keeper, seat.number, (bind,))

    def _equip(self, life: Life, binds: Collection[str]) -> None:
        """Give a worker the queues of its seat, and those of the next seat to keep: the kernel resets the
        connections in a queue whose last descriptor is closed, and the supervisor may die together with a worker."""
        self._hand(life, life.number, binds)
        if self.count > 1:
            own = [bind for bind in binds if not bind.startswith("unix:")]  # all share the queue of a Unix socket
            self._hand(life, (life.number + 1) % self.count, own, spare=True)

    def _hand(self, life: Life, number: int, binds: Iterable[str], spare: bool = False) -> None:
        """Give a worker the queues of a seat: one a bind, more when the lb before had more workers."""
        for bind in binds:
            for place in range(number, len(self.sockets[bind]), self.count):
                life.hand((bind, place), self.sockets[bind][place], spare)

    def close(self, bind: str) -> None:
        """A listener is gone; workers close theirs when the snapshot without it comes."""
        for sock in self.sockets.pop(bind):
            sock.close()

    def close_all(self) -> None:
        """Close the supervisor's copies of all listening sockets."""
        for bind in list(self.sockets):
            self.close(bind)

    def retry(self) -> None:
        """Somebody has changed something: seats that were given up get another chance."""
        for seat in self._seats:
            seat.failed_heirs, seat.next_heir = 0, 0.0
            if seat.given_up:
                seat.given_up, seat.early_deaths = False, 0
                self._go(self._fill(seat, 0.0))

    def serves(self, version: int) -> bool:
        """Whether every worker serves by `version`, those that start or leave included: any of them may still have a
        request to send. A drained target may only stop when this holds."""
        return all(life.applied >= version for life in self._lives if not life.doomed)

    def confirmed(self, version: int) -> bool:
        """Whether every worker serves by `version` that an order has to wait for."""
        now = time.monotonic()
        return all(life.applied >= version for life in self._lives if self._is_awaited(life, now))

    async def confirm(self, version: int, within: float = 5.0) -> None:
        """Wait until every worker serves by `version`. Raises `Unconfirmed` when one that serves does not.

        Those that start or leave are waited for as well, as they may be given requests, but they fail no order.
        """
        try:
            await self._until(lambda: self.confirmed(version), within)
        except TimeoutError:
            late = [life for life in self._lives if self._serves_on(life) and life.applied < version]
            if late:
                raise Unconfirmed([(_named(life), _why_late(life)) for life in late]) from None

    @property
    def behind(self) -> list[str]:
        """Workers that serve by an older version than the newest, as they could not install it, and why."""
        return [
            f"{_named(life)} {_why_late(life)}"
            for life in self._lives
            if life.behind is not None and self._serves_on(life)
        ]

    @staticmethod
    def _serves_on(life: Life) -> bool:
        """Whether it takes connections, and will go on to."""
        return bool(life.served_since) and not life.leaving and not life.doomed

    def _is_awaited(self, life: Life, now: float) -> bool:
        if self._serves_on(life):
            return True
        return not life.doomed and life.behind is None and now - life.heard <= SILENT_AFTER

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

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot, self._version = snapshot, snapshot.version
        self._rotations = {rotation.service: rotation for rotation in snapshot.rotations}

    def _whole(self) -> Snapshot:
        """The newest snapshot with the newest rotations and targets."""
        rotations = tuple(self._rotations.values())
        version = max([self._version, *(rotation.version for rotation in rotations)])
        return replace(self._snapshot, version=version, rotations=rotations)

    def _tell(self, message: Message, lives: Iterable[Life] | None = None) -> None:
        frame = pack(message)
        for life in self._lives if lives is None else lives:
            if life.channel is not None:
                life.channel.send_frame(frame)

    async def _until(self, condition: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within):
            while not condition():
                await self._changed.wait()

    def _wake(self) -> None:
        """Something changed: everybody who waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # --- listening --------------------------------------------------------------------------------------------------

    def _on_message(self, life: Life, message: Message) -> None:
        life.heard = time.monotonic()
        if isinstance(message, Report):
            self.totals.take(message)
            life.incarnation = message.incarnation
            self._on_report(message)
        elif isinstance(message, Applied):
            life.applied, life.behind = max(life.applied, message.version), None
            if not life.served_since:
                life.served_since = life.heard
                self._on_served(life)
        elif isinstance(message, Behind):
            self._on_behind(life, message)
        elif isinstance(message, Polled):
            life.polled = message.number
        elif isinstance(message, Alarm):
            self._on_alarm(message)
        elif isinstance(message, Trouble):
            self._tell_people(message.text)
        elif isinstance(message, Hello):
            life.incarnation = message.incarnation
            if message.version != VERSION and life.process is None:
                # An upgrade's: what it has under way is not to be lost. It knows how to drain without being talked to.
                self._tell_people(
                    f"{_named(life)} of the lb before speaks version {message.version} of the channel, this one "
                    f"{VERSION}: it drains by itself, and what it counts from now on is not known"
                )
                end([life.pid], signal.SIGTERM)
            elif message.version != VERSION:
                self._tell_people(
                    f"worker {life.number} speaks version {message.version} of the channel, this lb {VERSION}: the "
                    "installed code has changed; `lb upgrade` (or a restart) brings them together"
                )
                self._kill(life)
        self._wake()

    def _on_behind(self, life: Life, message: Behind) -> None:
        """It cannot follow. One that serves is replaced by an heir, a new one by the next."""
        is_news = life.behind is None or life.behind.reason != message.reason
        life.behind = message
        if is_news:
            self._tell_people(f"{_named(life)} could not install version {message.version}: {message.reason}")
        if not life.served_since:
            self._kill(life)

    def _on_served(self, life: Life) -> None:
        seat = self._seats[life.number] if life.number < len(self._seats) else None
        if seat is not None and life in (seat.life, seat.heir):
            self._give_back(seat)

    # --- processes --------------------------------------------------------------------------------------------------

    async def _spawn(self, seat: Seat) -> Life:
        """A new process for a seat, with its sockets and everything that it has to know. Raises OSError."""
        ours, theirs = socket.socketpair()
        our_doors, their_doors = fd_handover.pair()
        page = crash_counters.create()
        told = {
            "number": seat.number,
            "channel": theirs.fileno(),
            "sockets": their_doors.fileno(),
            "crash_counters": page,
            "directory": str(self.directory) if self.directory is not None else "",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lb.worker.main",
                json.dumps(told),
                pass_fds=(theirs.fileno(), their_doors.fileno(), *((page,) if page >= 0 else ())),
                env={**MALLOC, **os.environ},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )
        except BaseException:
            ours.close()
            our_doors.close()
            if page >= 0:
                os.close(page)
            raise
        finally:
            theirs.close()
            their_doors.close()
        life = Life(seat.number, process.pid, process)
        life.doors, life.crash_counters = our_doors, page
        self._lives.append(life)
        try:
            life.channel = await Channel.over(ours, lambda message: self._on_message(life, message), self._wake)
        except BaseException:  # a stop in the middle of the start: nobody will ever talk to it
            ours.close()
            self._kill(life)
            self._go(self._await_end(seat, life, process))
            raise
        self._equip(life, self.sockets)
        life.say(self._whole())
        if self._settled:
            life.say(Order("settle"))
        self._go(self._await_end(seat, life, process))
        return life

    async def _await_end(self, seat: Seat, life: Life, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if life.channel is not None:
            await life.channel.read_to_end(READ_TO_END)  # its last report is among what it sent last
        self._on_end(seat, life, code)

    def _on_end(self, seat: Seat | None, life: Life, code: int | None) -> None:
        """A worker is gone; if nobody else sits in its place, somebody will."""
        if life not in self._lives:
            return
        self._lives.remove(life)
        left = life.left()
        self.totals.gone(life.incarnation, left)
        life.close()
        if self.directory is not None:
            fd_handover.forget(self.directory, life.pid)
        self._wake()
        if self._stopping:
            return
        for other in self._seats:
            if other.keeper is life:
                other.keeper = None
                self._lend(other)
        if seat is None or seat.life is not life:
            if left != NOTHING:
                self._tell_people(f"{_named(life)} {_ended(code)} while it drained, {_with(left)}")
            return
        seat.life = None
        self.restarts += 1
        self._lend(seat)
        lived = time.monotonic() - life.served_since if life.served_since else 0.0
        seat.early_deaths = seat.early_deaths + 1 if lived < STEADY_AFTER else 1
        self._refill(seat, f"{_named(life)} {_ended(code)} after {lived:.1f} s of service, {_with(left)}")

    def _refill(self, seat: Seat, text: str) -> None:
        if seat.early_deaths >= GIVE_UP:
            seat.given_up = True
            self._tell_people(
                f"{text}; it was the {seat.early_deaths}th early death in a row: its seat stays empty until a reload"
            )
            if all(seat.given_up for seat in self._seats):
                self._on_hopeless()
            return
        pause = BACKOFF[min(seat.early_deaths - 1, len(BACKOFF) - 1)]
        self._tell_people(f"{text}; the next one starts {f'in {pause:g} s' if pause else 'at once'}")
        self._go(self._fill(seat, pause))

    async def _fill(self, seat: Seat, pause: float) -> None:
        await asyncio.sleep(pause)
        if self._stopping or seat.life is not None or seat.heir is not None:
            return
        try:
            seat.life = await self._spawn(seat)
        except OSError as error:  # no memory, no descriptors, no processes left
            seat.early_deaths += 1
            self._refill(seat, f"worker {seat.number} cannot be started: {error.strerror or error}")

    def _kill(self, life: Life, trace: bool = False) -> None:
        """End a worker that does not listen; with `trace` it first tells where it hangs, if it can."""
        if life.doomed:
            return
        life.doomed = True
        with suppress(ProcessLookupError):
            os.kill(life.pid, signal.SIGABRT if trace else signal.SIGKILL)
        if trace:
            asyncio.get_running_loop().call_later(TRACE_TIME, self._finish_off, life)

    def _finish_off(self, life: Life) -> None:
        if life in self._lives:
            with suppress(ProcessLookupError):
                os.kill(life.pid, signal.SIGKILL)

    # --- neighbours -------------------------------------------------------------------------------------------------

    def _lend(self, seat: Seat) -> None:
        """Let a neighbour listen on the sockets of a seat, until somebody serves there."""
        able = [
            life
            for other in self._seats
            if other is not seat
            and (life := other.life) is not None
            and life.served_since
            and not life.doomed
            and time.monotonic() - life.heard < SILENT_AFTER
        ]
        if seat.keeper is not None or not able:
            return
        seat.keeper = able[seat.number % len(able)]
        self._hand(seat.keeper, seat.number, self.sockets)

    def _give_back(self, seat: Seat) -> None:
        keeper, seat.keeper = seat.keeper, None
        if keeper is not None:
            for bind, sockets in self.sockets.items():
                for place in range(seat.number, len(sockets), self.count):
                    keeper.close_door((bind, place))

    # --- looking after them -----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        looked = time.monotonic()
        while not self._stopping:
            await asyncio.sleep(LOOK_EVERY)
            now = time.monotonic()
            if now - looked > 4 * LOOK_EVERY:
                # It was the supervisor that stood still: what workers said meanwhile has yet to be read.
                for life in self._lives:
                    life.heard = now
            looked = now
            for life in list(self._lives):
                # (One that starts has its own bound: on a busy machine its imports alone take seconds.)
                patience = self.hung_after if life.served_since else max(self.hung_after, SERVE_WITHIN)
                if not life.doomed and now - life.heard > patience:
                    self._tell_people(
                        f"worker {life.number} (process {life.pid}) gave no sign of life for "
                        f"{now - life.heard:.1f} s and is ended"
                    )
                    self._kill(life, trace=True)
            for seat in self._seats:
                self._look_at(seat, now)
            self._wake()  # who has been silent for too long is no longer waited for

    def _look_at(self, seat: Seat, now: float) -> None:
        life = seat.life
        if life is None or not life.served_since:
            return
        silent = now - life.heard
        if silent > SILENT_AFTER:
            self._lend(seat)
        elif seat.keeper is not None and silent < 2 * LOOK_EVERY and not life.doomed:
            self._give_back(seat)
        life.rss = resident(life.pid)
        if seat.replacing:
            return
        due = not seat.recycled or now - seat.recycled > RECYCLE_EVERY
        if life.behind is not None and now >= seat.next_heir:
            seat.next_heir = now + HEIR_BACKOFF[min(seat.failed_heirs, len(HEIR_BACKOFF) - 1)]
            seat.failed_heirs += 1
            self._go(self._replace(seat, life, f"is behind (version {life.behind.version}: {life.behind.reason})"))
        elif self.memory and life.rss > self.memory and due:
            seat.recycled = now
            size = f"{life.rss >> 20} MiB, above the bound of {self.memory >> 20} MiB"
            self._go(self._replace(seat, life, f"has {size}"))

    async def _replace(self, seat: Seat, old: Life, why: str) -> None:
        """Put an heir in the place of a worker; it serves before the old one drains."""
        what = f"{_named(old)} {why}"
        seat.replacing = True
        try:
            heir = seat.heir = await self._spawn(seat)
            await self._until(lambda: bool(heir.served_since) or heir not in self._lives, SERVE_WITHIN)
        except (OSError, TimeoutError) as error:
            if seat.heir is not None:
                self._kill(seat.heir)
            self._go_on(seat, f"{what}, but its heir does not start: {error or 'it took too long'}")
            return
        finally:
            seat.heir, seat.replacing = None, False
        if heir not in self._lives:
            self._go_on(seat, f"{what}, but its heir {'is as well' if heir.behind else 'died at once'}")
            return
        self._tell_people(f"{what}: process {heir.pid} takes its place, it drains")
        seat.failed_heirs = 0
        if seat.life is old:
            old.leaving = True
            old.say(Order("drain", self.drain))
            if old.behind is not None:
                # Connections that it has may bring requests yet, and rotations name targets that it does not know.
                old.say(self._whole())
        seat.life = heir
        self._wake()

    def _go_on(self, seat: Seat, text: str) -> None:
        """There is no heir: the old one serves on, unless it has died meanwhile."""
        if seat.life is not None:
            self._tell_people(text)
        elif not self._stopping:
            self._refill(seat, text)

    def _go(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def stop(self, within: float) -> None:
        """Let requests under way end for `within` seconds, then stop at once."""
        self._stopping = True
        self.close_all()  # the workers' own are the last ones then, and end in order
        self.order(Order("drain", within))
        try:
            await self._until(lambda: not self._lives, within)
        except TimeoutError:
            self.order(Order("stop"))
            await self._end_all()

    def let_go(self) -> None:
        """Another supervisor has taken the workers over; this one forgets them."""
        self._stopping = True
        for life in self._lives:
            life.close()
        self._lives.clear()
        self.close_all()

    async def _end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                await self._until(lambda: not self._lives, 1.0)
            except TimeoutError:
                end([life.pid for life in self._lives], number)
            else:
                return
        await self._until(lambda: not self._lives, 5.0)


def end(pids: Iterable[int], number: int) -> None:
    """Signal processes that may be gone already."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def _named(life: Life) -> str:
    return f"worker {life.number} (process {life.pid})"


def _why_late(life: Life) -> str:
    """Why it has not confirmed a version, as far as is known."""
    if life.behind is not None:
        return f"could not install version {life.behind.version}: {life.behind.reason}; it is to be replaced"
    silent = time.monotonic() - life.heard
    return f"has given no sign of life for {silent:.1f} s" if silent > SILENT_AFTER else "has not answered yet"


def _with(left: Unfinished) -> str:
    lines = f" and {left.lines} log lines unwritten" if left.lines else ""
    return f"with {left.under_way} request{'' if left.under_way == 1 else 's'} under way{lines}"


def _ended(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
