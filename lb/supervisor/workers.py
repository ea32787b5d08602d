"""The supervisor's side of its workers: start, replace, tell, and listen.

Every worker has a slot: a number, and listening sockets of its own that the supervisor keeps open. When a worker dies,
a neighbour listens on its sockets at once, and hands them back when the successor serves. So no connection waits in an
unattended queue. The same is done for one that gives no sign of life, until it is ended or comes round.

A worker that dies again and again, hardly having served, is given more and more time. After `GIVE_UP` deaths in a row
its slot stays empty. When all are, `on_hopeless` is called: there is nothing left to supervise.

A worker that has grown above `memory` is recycled: its replacement serves first, on the same sockets, then it drains.
A worker that is behind, because it could not install a snapshot or rotation, is recycled as well. It gets the newest
snapshot once more when it drains. A new worker that cannot install its first snapshot is killed, which counts as an
early death.

`confirm` waits until every worker serves by a version, `poll` until all have reported.

In the last step of an upgrade (`hold`), another supervisor takes these workers over and drains them. One that ends then
is not replaced.
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

from lb.core.challenges import Challenges
from lb.core.report import Alarm, Report
from lb.core.rotation_change import rotation_change
from lb.core.target_changes import target_changes, with_targets
from lb.core.targets import Rotation, Service, Snapshot, Targets
from lb.net.tls import ticket_keys
from lb.process import fd_handover
from lb.process.channel import (
    VERSION,
    Applied,
    Behind,
    Channel,
    Command,
    Hello,
    Message,
    Poll,
    Polled,
    TicketSecret,
    WorkerError,
    pack,
)
from lb.process.guard import Guard
from lb.proxy import crash_counters, rate_table
from lb.proxy.crash_counters import NOTHING, Unfinished
from lb.proxy.in_flight_table import Regions
from lb.supervisor.totals import Totals

log = logging.getLogger("lb.workers")

#: Seconds that a worker must have served for its death to count as the first one again.
STEADY_AFTER = 3.0
#: Seconds before the successor of a worker that died early is started: none at first, growing to the last.
BACKOFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: Early deaths in a row after which a slot stays empty.
GIVE_UP = 10
#: Seconds between two looks at what workers do.
LOOK_EVERY = 0.25
#: Seconds without a sign of life after which a neighbour helps out; a worker reports four times a second.
SILENT_AFTER = 1.5
#: Seconds that a new worker has to serve before it is given up.
SERVE_WITHIN = 15.0
#: Seconds before a slot's worker is recycled again: a worker that is born too large must not be replaced for ever.
RECYCLE_EVERY = 60.0
#: Seconds before the next replacement of a worker that is behind. They grow while no replacement can install the
#: snapshot.
REPLACEMENT_BACKOFF = (1.0, 2.0, 5.0, 15.0, 60.0)
#: glibc gives memory back to the kernel, and takes it anew, with nearly every piece of a large answer. That is half the
#: cost of such an answer. With a margin it does so rarely; a setting in the environment stays.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_TOP_PAD_": str(1 << 20)}
#: Seconds at most for reading what a worker that has ended had sent: its socket is closed, so nothing more is coming.
READ_TO_END = 5.0
#: Seconds within which a process that is being started runs: the kernel has it at once.
STARTED_WITHIN = 5.0
#: Seconds that a worker has to leave a trace of where it hangs, before it is killed.
TRACE_TIME = 0.3


class Unconfirmed(Exception):  # noqa: N818 - it says what happened
    """Workers that serve have not confirmed a version in time: each one's name, and why."""

    def __init__(self, workers: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name} {why}" for name, why in workers))
        self.workers = workers


class WorkerProcess:
    """One worker process, from its start to its end."""

    def __init__(self, number: int, pid: int, process: asyncio.subprocess.Process | None) -> None:
        self.number = number
        self.pid = pid
        self.process = process  # None: another supervisor started it
        self.channel: Channel | None = None
        self.fd_channel: socket.socket | None = None
        self.incarnation = 0
        self.applied = 0
        self.behind: Behind | None = None  # the snapshot it could not install; it confirms nothing until it can
        self.polled = 0
        self.heard = time.monotonic()
        self.served_since = 0.0  # 0: it does not serve yet
        self.leaving = False  # its successor serves already; it only ends what is under way
        self.doomed = False  # it is being killed
        self.rss = 0
        self.crash_counters = -1  # the page of `proxy.crash_counters`
        self.region = -1  # of `proxy.in_flight_table`

    def say(self, message: Message) -> None:
        if self.channel is not None:
            self.channel.send(message)

    def hand(self, key: fd_handover.ListenerKey, sock: socket.socket, spare: bool = False) -> None:
        """Give it a socket to listen on, or to keep; a worker that takes none hangs, and will be found out."""
        if self.fd_channel is not None:
            with suppress(OSError):
                fd_handover.hand(self.fd_channel, key, sock, spare)

    def left(self) -> Unfinished:
        """Its requests under way when it ended, by the page that outlives it."""
        return (crash_counters.read(self.crash_counters) if self.crash_counters >= 0 else None) or NOTHING

    def close(self) -> None:
        """Let go of everything that led to it."""
        if self.channel is not None:
            self.channel.close()
        if self.fd_channel is not None:
            self.fd_channel.close()
        if self.crash_counters >= 0:
            os.close(self.crash_counters)
            self.crash_counters = -1

    def close_key(self, key: fd_handover.ListenerKey) -> None:
        if self.fd_channel is not None:
            with suppress(OSError):
                fd_handover.close(self.fd_channel, key)


class Slot:
    """A worker's place: its number, the process in it, and its stand-in."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.replacement: WorkerProcess | None = None  # is to take the place when it serves
        self.stand_in: WorkerProcess | None = None  # a neighbour that listens on this slot's sockets meanwhile
        self.early_deaths = 0
        self.given_up = False
        self.recycled = 0.0
        self.filling = False  # a process is being started, for want of one
        self.replacing = False  # a replacement is being started
        self.failed_replacements = 0  # in a row, of a worker that is behind
        self.next_replacement = 0.0  # when that worker may have another one


class Workers:
    """All workers of one supervisor."""

    def __init__(
        self,
        count: int,
        totals: Totals,
        *,
        directory: Path | None = None,
        on_alarm: Callable[[Alarm, int], None] = lambda alarm, incarnation: None,
        on_report: Callable[[Report], None] = lambda report: None,
        on_gone: Callable[[int, int], None] = lambda worker, incarnation: None,
        tell: Callable[[str], None] = log.warning,
        on_hopeless: Callable[[], None] = lambda: None,
        guard: Guard | None = None,
    ) -> None:
        self.count = count
        self.totals = totals
        self.directory = directory  # where workers can be found by a replacement of this supervisor
        self.restarts = 0
        self.sockets: dict[str, list[socket.socket]] = {}  # bind → its queues; number n belongs to slot n mod count
        self.hung_after = 10.0  # seconds without a sign of life
        self.memory = 0  # bytes of resident memory above which a worker is recycled; 0: no bound
        self.drain = 30.0  # seconds that what is under way may take in a worker that was recycled
        self._on_alarm = on_alarm
        self._on_report = on_report
        self._on_gone = on_gone
        self._tell_people = tell
        self._on_hopeless = on_hopeless
        self._guard = guard or Guard(tell)
        self._slots = [Slot(number) for number in range(count)]
        self._processes: list[WorkerProcess] = []
        self._snapshot = Snapshot(0)
        self._version = 0  # of the snapshot, or of the newest change of its targets
        self._rotations: dict[str, Rotation] = {}
        self._challenges: Challenges | None = None  # the newest; None: there never were any
        self._ticket_secret = TicketSecret(os.urandom(ticket_keys.SECRET))
        self._tickets_renewed = time.monotonic()
        self._changed = asyncio.Event()
        self._polls = 0
        self._regions = Regions()  # of requests under way on limited routes
        self._rates = rate_table.create()  # the buckets of rate limits; every worker has them
        self._settled = False
        self._stopping = False
        self._held = False  # in the last step of an upgrade: no worker is started
        self._starts = 0  # of processes, under way
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every worker's place, by number."""
        return tuple(self._slots)

    @property
    def processes(self) -> tuple[WorkerProcess, ...]:
        """Every process that has not ended yet, leaving ones included."""
        return tuple(self._processes)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that serve or are about to; without workers that only finish their requests."""
        return [slot.worker.pid for slot in self._slots if slot.worker is not None]

    @property
    def by_number(self) -> dict[int, int]:
        """Process ids by the worker's number, as far as `pids` names them."""
        return {slot.number: slot.worker.pid for slot in self._slots if slot.worker is not None}

    @property
    def leaving(self) -> list[int]:
        """Process ids of workers that have a replacement and drain."""
        return [worker.pid for worker in self._processes if worker.leaving]

    @property
    def empty_seats(self) -> int:
        """Seats whose workers died again and again."""
        return sum(slot.given_up for slot in self._slots)

    async def start(self, snapshot: Snapshot, within: float = SERVE_WITHIN) -> None:
        """Start every worker; returns when all serve by `snapshot`. Raises TimeoutError, or OSError."""
        self._take(snapshot)
        for slot in self._slots:
            slot.worker = await self._spawn(slot)
        self._go(self._guard.keep_running("workers", self._look))
        await self._until(
            lambda: all(slot.worker is not None and slot.worker.served_since for slot in self._slots), within
        )

    def settle(self) -> None:
        """All is well: workers outlive their supervisor from now on."""
        self._settled = True
        self._tell(Command("settle"))

    async def adopt(self, found: fd_handover.FoundWorker) -> None:
        """Take a worker of an earlier supervisor in: its reports count, it is told what is new, and it drains."""
        worker = WorkerProcess(found.number, found.pid, None)
        worker.incarnation, worker.applied, worker.leaving = found.incarnation, found.applied, True
        worker.served_since = worker.heard
        worker.crash_counters = found.crash_counters
        self._processes.append(worker)
        worker.channel = await Channel.over(
            found.connection,
            lambda message: self._on_message(worker, message),
            lambda: self._on_end(None, worker, None),
        )
        if self._snapshot.version:  # not in a start that ends before there is one
            self._say_all(worker)
        worker.say(Command("drain", self.drain))

    # --- telling ----------------------------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> None:
        """A new snapshot for all: where it differs by targets alone, only the changed ones."""
        changes = target_changes(self._whole(), snapshot)
        if changes is None:
            self._take(snapshot)
            self._tell(snapshot)
            return
        former, message = self._rotations, self._without_known_members(changes)
        self._take(snapshot)
        told = {rotation.service for rotation in changes.rotations}
        self._rotations |= {name: each for name, each in former.items() if name not in told}  # changes have this base
        self._tell_changes(message)

    def change(self, targets: Targets, services: tuple[Service, ...] = ()) -> None:
        """Changed targets for all. `services`: all of them with these targets, where the caller has them."""
        self._snapshot = (
            replace(self._snapshot, services=services) if services else with_targets(self._snapshot, targets)
        )
        message = self._without_known_members(targets)
        self._rotations |= {rotation.service: rotation for rotation in targets.rotations}
        self._version = max(self._version, targets.version)
        self._tell_changes(message)

    def _without_known_members(self, targets: Targets) -> Targets:
        """The same for workers that have the rotations of before: of what they know, nothing is told again."""
        suspects = {*targets.removed, *(target.id for target in targets.changed)}
        changes = [
            (each, rotation_change(self._rotations.get(each.service), each, suspects)) for each in targets.rotations
        ]
        return replace(
            targets,
            rotations=tuple(rotation for rotation, change in changes if change is None),
            rotation_changes=tuple(change for _, change in changes if change is not None),
        )

    def _tell_changes(self, targets: Targets) -> None:
        """Send the whole snapshot to workers that are behind: they lack the one that these targets are a change of."""
        self._tell(targets, [worker for worker in self._processes if worker.behind is None])
        if behind := self._behind():
            self._tell(self._whole(), behind)

    def _behind(self) -> list[WorkerProcess]:
        return [worker for worker in self._processes if worker.behind is not None]

    def rotate(self, rotation: Rotation) -> None:
        """A new rotation of one service for all."""
        change = rotation_change(self._rotations.get(rotation.service), rotation)
        self._rotations[rotation.service] = rotation
        if change is None:
            self._tell(rotation)
            return
        self._tell(change, [worker for worker in self._processes if worker.behind is None])
        if behind := self._behind():
            self._tell(rotation, behind)

    def challenge(self, challenges: Challenges) -> None:
        """The answers to challenges of certificate authorities, for all."""
        self._challenges = challenges
        self._tell(challenges)

    def _renew_tickets(self, now: float) -> None:
        """Give the workers a new secret for session tickets, when the present one is old."""
        if now - self._tickets_renewed >= ticket_keys.LIFETIME:
            self._tickets_renewed = now
            self._ticket_secret = TicketSecret(os.urandom(ticket_keys.SECRET))
            self._tell(self._ticket_secret, [worker for worker in self._processes if not worker.leaving])

    def send_command(self, command: Command) -> None:
        """An order for all."""
        self._tell(command)

    def open(self, bind: str, sockets: list[socket.socket]) -> None:
        """A new listener, one socket a slot; the snapshot that knows it must follow."""
        self.sockets[bind] = sockets
        for worker in self._processes:
            if not worker.leaving:
                self._equip(worker, (bind,))
        for slot in self._slots:
            if slot.stand_in is not None:
                self._hand(slot.stand_in, slot.number, (bind,))

    def _equip(self, worker: WorkerProcess, binds: Collection[str]) -> None:
        """Give a worker the queues of its slot, and the queues of the next slot to keep. The kernel resets the
        connections in a queue whose last descriptor is closed, and the supervisor may die together with a worker."""
        self._hand(worker, worker.number, binds)
        if self.count > 1:
            own = [bind for bind in binds if not bind.startswith("unix:")]  # all share the queue of a Unix socket
            self._hand(worker, (worker.number + 1) % self.count, own, spare=True)

    def _hand(self, worker: WorkerProcess, number: int, binds: Iterable[str], spare: bool = False) -> None:
        """Give a worker the queues of a slot: one a bind, more when the lb before had more workers."""
        for bind in binds:
            for place in range(number, len(self.sockets[bind]), self.count):
                worker.hand((bind, place), self.sockets[bind][place], spare)

    def close(self, bind: str) -> None:
        """A listener is gone; workers close theirs when the snapshot without it comes."""
        for sock in self.sockets.pop(bind):
            sock.close()

    def close_all(self) -> None:
        """Close the supervisor's copies of all listening sockets."""
        for bind in list(self.sockets):
            self.close(bind)

    def retry(self) -> None:
        """The configuration has changed: slots that were given up get another chance."""
        for slot in self._slots:
            slot.failed_replacements, slot.next_replacement = 0, 0.0
            if slot.given_up:
                slot.given_up, slot.early_deaths = False, 0
                self._go(self._fill(slot, 0.0))

    def serves(self, version: int) -> bool:
        """Whether every worker serves by `version`, starting and leaving ones included: any of them may still have a
        request to send. A drained target may only stop when this holds."""
        return all(worker.applied >= version for worker in self._processes if not worker.doomed)

    def confirmed(self, version: int) -> bool:
        """Whether every worker serves by `version` that an order has to wait for."""
        now = time.monotonic()
        return all(worker.applied >= version for worker in self._processes if self._is_awaited(worker, now))

    async def confirm(self, version: int, within: float = 5.0) -> None:
        """Wait until every worker serves by `version`. Raises `Unconfirmed` when one that serves does not.

        Starting and leaving workers are waited for as well, as they may be given requests, but they fail no order.
        """
        try:
            await self._until(lambda: self.confirmed(version), within)
        except TimeoutError:
            late = [worker for worker in self._processes if self._serves_on(worker) and worker.applied < version]
            if late:
                raise Unconfirmed([(_named(worker), _why_late(worker)) for worker in late]) from None

    @property
    def behind(self) -> list[str]:
        """Workers that serve by an older version than the newest, as they could not install it, and why."""
        return [
            f"{_named(worker)} {_why_late(worker)}"
            for worker in self._processes
            if worker.behind is not None and self._serves_on(worker)
        ]

    @staticmethod
    def _serves_on(worker: WorkerProcess) -> bool:
        """Whether it takes connections, and will go on to."""
        return bool(worker.served_since) and not worker.leaving and not worker.doomed

    def _is_awaited(self, worker: WorkerProcess, now: float) -> bool:
        if self._serves_on(worker):
            return True
        return not worker.doomed and worker.behind is None and now - worker.heard <= SILENT_AFTER

    async def poll(self, within: float = 0.5) -> bool:
        """Ask all for a report now; False when one did not answer in time (its last report stands)."""
        self._polls += 1
        number = self._polls
        self._tell(Poll(number))
        try:
            await self._until(
                lambda: all(worker.polled >= number for worker in self._processes if worker.channel), within
            )
        except TimeoutError:
            return False
        return True

    def _say_all(self, worker: WorkerProcess) -> None:
        """Everything that a worker serves by. An empty message on challenges counts: its version is waited for."""
        if not worker.leaving:  # else it does no more handshakes
            worker.say(self._ticket_secret)
        worker.say(self._whole())
        if self._challenges is not None:
            worker.say(self._challenges)

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot, self._version = snapshot, snapshot.version
        self._rotations = {rotation.service: rotation for rotation in snapshot.rotations}

    def _whole(self) -> Snapshot:
        """The newest snapshot with the newest rotations and targets."""
        rotations = tuple(self._rotations.values())
        version = max([self._version, *(rotation.version for rotation in rotations)])
        return replace(self._snapshot, version=version, rotations=rotations)

    def _tell(self, message: Message, processes: Iterable[WorkerProcess] | None = None) -> None:
        frame = pack(message)
        for worker in self._processes if processes is None else processes:
            if worker.channel is not None:
                worker.channel.send_frame(frame)

    async def _until(self, condition: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within):
            while not condition():
                await self._changed.wait()

    def _wake(self) -> None:
        """The state of a worker has changed: all waiting tasks look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # --- listening --------------------------------------------------------------------------------------------------

    def _on_message(self, worker: WorkerProcess, message: Message) -> None:
        worker.heard = time.monotonic()
        if isinstance(message, Report):
            self.totals.take(message)
            worker.incarnation = message.incarnation
            self._on_report(message)
        elif isinstance(message, Applied):
            caught_up = worker.behind is not None
            worker.applied, worker.behind = max(worker.applied, message.version), None
            if not worker.served_since:
                worker.served_since = worker.heard
                self._on_served(worker)
            elif caught_up:
                self._follows(worker)
        elif isinstance(message, Behind):
            self._on_behind(worker, message)
        elif isinstance(message, Polled):
            worker.polled = message.number
        elif isinstance(message, Alarm):
            self._on_alarm(message, worker.incarnation)
        elif isinstance(message, WorkerError):
            self._tell_people(message.text)
        elif isinstance(message, Hello):
            worker.incarnation = message.incarnation
            if message.version != VERSION and worker.process is None:
                # An upgrade's: its requests under way are not to be lost. It knows how to drain without being talked
                # to.
                self._tell_people(
                    f"{_named(worker)} of the lb before speaks version {message.version} of the channel, this one "
                    f"{VERSION}: it drains by itself, and what it counts from now on is not known"
                )
                end([worker.pid], signal.SIGTERM)
            elif message.version != VERSION:
                self._tell_people(
                    f"worker {worker.number} speaks version {message.version} of the channel, this lb {VERSION}: the "
                    "installed code has changed; `lb upgrade` (or a restart) brings them together"
                )
                self._kill(worker)
        self._wake()

    def _on_behind(self, worker: WorkerProcess, message: Behind) -> None:
        """It cannot follow. A serving worker is replaced by a replacement, a new one by the next."""
        is_news = worker.behind is None or worker.behind.reason != message.reason
        worker.behind = message
        if is_news:
            self._tell_people(f"{_named(worker)} could not install version {message.version}: {message.reason}")
        if not worker.served_since:
            self._kill(worker)

    def _on_served(self, worker: WorkerProcess) -> None:
        slot = self._slots[worker.number] if worker.number < len(self._slots) else None
        if slot is not None and worker in (slot.worker, slot.replacement):
            self._give_back(slot)
        self._follows(worker)

    def _follows(self, worker: WorkerProcess) -> None:
        """It serves by what it was told last: replacements that failed before it say nothing of its own."""
        slot = self._slots[worker.number] if worker.number < len(self._slots) else None
        if slot is not None and worker is slot.worker:
            slot.failed_replacements = 0
            slot.next_replacement = min(slot.next_replacement, time.monotonic() + REPLACEMENT_BACKOFF[0])

    # --- processes --------------------------------------------------------------------------------------------------

    async def _spawn(self, slot: Slot) -> WorkerProcess:
        """A new process for a slot, with its sockets and everything that it has to know. Raises OSError."""
        ours, theirs = socket.socketpair()
        our_fds, their_fds = fd_handover.pair()
        page, region = crash_counters.create(), self._regions.give()
        if region >= 0 and self._rates >= 0:
            rate_table.use(self._rates, region)
        told = {
            "number": slot.number,
            "channel": theirs.fileno(),
            "sockets": their_fds.fileno(),
            "crash_counters": page,
            "rates": self._rates if region >= 0 else -1,
            "in_flight": self._regions.fd,
            "region": region,
            "directory": str(self.directory) if self.directory is not None else "",
        }
        self._starts += 1
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lb.worker.main",
                json.dumps(told),
                pass_fds=(
                    theirs.fileno(),
                    their_fds.fileno(),
                    *(fd for fd in (page, self._rates, self._regions.fd) if fd >= 0),
                ),
                env={**MALLOC, **os.environ},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )
        except BaseException:
            ours.close()
            our_fds.close()
            self._regions.take_back(region)
            if page >= 0:
                os.close(page)
            raise
        finally:
            self._starts -= 1
            self._wake()
            theirs.close()
            their_fds.close()
        worker = WorkerProcess(slot.number, process.pid, process)
        worker.fd_channel, worker.crash_counters, worker.region = our_fds, page, region
        self._processes.append(worker)
        try:
            worker.channel = await Channel.over(ours, lambda message: self._on_message(worker, message), self._wake)
        except BaseException:  # a stop in the middle of the start: no supervisor will ever use its channel
            ours.close()
            self._kill(worker)
            self._go(self._await_end(slot, worker, process))
            raise
        if self._stopping:
            self._kill(worker)  # the order to drain came too early for it
        self._equip(worker, self.sockets)
        self._say_all(worker)
        if self._settled:
            worker.say(Command("settle"))
        self._go(self._await_end(slot, worker, process))
        return worker

    async def _await_end(self, slot: Slot, worker: WorkerProcess, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if worker.channel is not None:
            await worker.channel.read_to_end(READ_TO_END)  # its last report is among what it sent last
        self._on_end(slot, worker, code)

    def _on_end(self, slot: Slot | None, worker: WorkerProcess, code: int | None) -> None:
        """A worker is gone; if its slot is empty, start another one."""
        if worker not in self._processes:
            return
        self._processes.remove(worker)
        self._regions.take_back(worker.region)
        left = worker.left()
        self.totals.gone(worker.incarnation, left)
        self._on_gone(worker.number, worker.incarnation)
        worker.close()
        if self.directory is not None:
            fd_handover.forget(self.directory, worker.pid)
        self._wake()
        if self._stopping:
            return
        for other in self._slots:
            if other.stand_in is worker:
                other.stand_in = None
                self._lend(other)
        if slot is None or slot.worker is not worker:
            if left != NOTHING:
                self._tell_people(f"{_named(worker)} {_ended(code)} while it drained, {_with(left)}")
            return
        slot.worker = None
        if self._held:
            if code:
                self._tell_people(f"{_named(worker)} {_ended(code)} during an upgrade, {_with(left)}")
            return
        self.restarts += 1
        self._lend(slot)
        lived = time.monotonic() - worker.served_since if worker.served_since else 0.0
        slot.early_deaths = slot.early_deaths + 1 if lived < STEADY_AFTER else 1
        self._refill(slot, f"{_named(worker)} {_ended(code)} after {lived:.1f} s of service, {_with(left)}")

    def _refill(self, slot: Slot, text: str) -> None:
        if slot.early_deaths >= GIVE_UP:
            slot.given_up = True
            self._tell_people(
                f"{text}; it was the {slot.early_deaths}th early death in a row: its seat stays empty until a reload"
            )
            if all(slot.given_up for slot in self._slots):
                self._on_hopeless()
            return
        pause = BACKOFF[min(slot.early_deaths - 1, len(BACKOFF) - 1)]
        self._tell_people(f"{text}; the next one starts {f'in {pause:g} s' if pause else 'at once'}")
        self._go(self._fill(slot, pause))

    async def _fill(self, slot: Slot, pause: float) -> None:
        await asyncio.sleep(pause)
        if self._stopping or self._held or slot.filling or slot.worker is not None or slot.replacement is not None:
            return
        slot.filling = True
        try:
            slot.worker = await self._spawn(slot)
        except OSError as error:  # no memory, no descriptors, no processes left
            slot.early_deaths += 1
            self._refill(slot, f"worker {slot.number} cannot be started: {error.strerror or error}")
        finally:
            slot.filling = False

    def _kill(self, worker: WorkerProcess, trace: bool = False) -> None:
        """End a worker that does not listen; with `trace` it first tells where it hangs, if it can."""
        if worker.doomed:
            return
        worker.doomed = True
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGABRT if trace else signal.SIGKILL)
        if trace:
            asyncio.get_running_loop().call_later(TRACE_TIME, self._finish_off, worker)

    def _finish_off(self, worker: WorkerProcess) -> None:
        if worker in self._processes:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    # --- neighbours -------------------------------------------------------------------------------------------------

    def _lend(self, slot: Slot) -> None:
        """Let a neighbour listen on the sockets of a slot, until a worker of its own serves."""
        able = [
            worker
            for other in self._slots
            if other is not slot
            and (worker := other.worker) is not None
            and worker.served_since
            and not worker.doomed
            and time.monotonic() - worker.heard < SILENT_AFTER
        ]
        if slot.stand_in is not None or not able:
            return
        slot.stand_in = able[slot.number % len(able)]
        self._hand(slot.stand_in, slot.number, self.sockets)

    def _give_back(self, slot: Slot) -> None:
        stand_in, slot.stand_in = slot.stand_in, None
        if stand_in is not None:
            for bind, sockets in self.sockets.items():
                for place in range(slot.number, len(sockets), self.count):
                    stand_in.close_key((bind, place))

    # --- looking after them -----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        looked = time.monotonic()
        while not self._stopping:
            await asyncio.sleep(LOOK_EVERY)
            if self._held:
                continue  # workers may talk to the other supervisor
            now = time.monotonic()
            if now - looked > 4 * LOOK_EVERY:
                # The supervisor stood still, or held: workers' messages of that time have yet to be read.
                for worker in self._processes:
                    worker.heard = now
            looked = now
            for worker in list(self._processes):
                # (One that starts has its own bound: on a busy machine its imports alone take seconds.)
                patience = self.hung_after if worker.served_since else max(self.hung_after, SERVE_WITHIN)
                if not worker.doomed and now - worker.heard > patience:
                    self._tell_people(
                        f"worker {worker.number} (process {worker.pid}) gave no sign of life for "
                        f"{now - worker.heard:.1f} s and is ended"
                    )
                    self._kill(worker, trace=True)
            for slot in self._slots:
                self._look_at(slot, now)
            self._renew_tickets(now)
            self._wake()  # a worker that has been silent for too long is no longer waited for

    def _look_at(self, slot: Slot, now: float) -> None:
        worker = slot.worker
        if worker is None or not worker.served_since:
            return
        silent = now - worker.heard
        if silent > SILENT_AFTER:
            self._lend(slot)
        elif slot.stand_in is not None and silent < 2 * LOOK_EVERY and not worker.doomed:
            self._give_back(slot)
        worker.rss = resident(worker.pid)
        if slot.replacing:
            return
        due = not slot.recycled or now - slot.recycled > RECYCLE_EVERY
        if worker.behind is not None and now >= slot.next_replacement:
            slot.next_replacement = (
                now + REPLACEMENT_BACKOFF[min(slot.failed_replacements, len(REPLACEMENT_BACKOFF) - 1)]
            )
            slot.failed_replacements += 1
            self._go(
                self._replace(slot, worker, f"is behind (version {worker.behind.version}: {worker.behind.reason})")
            )
        elif self.memory and worker.rss > self.memory and due:
            slot.recycled = now
            size = f"{worker.rss >> 20} MiB, above the bound of {self.memory >> 20} MiB"
            self._go(self._replace(slot, worker, f"has {size}"))

    async def _replace(self, slot: Slot, old: WorkerProcess, why: str) -> None:
        """Put a replacement in the place of a worker; it serves before the old one drains."""
        what = f"{_named(old)} {why}"
        slot.replacing = True
        try:
            replacement = slot.replacement = await self._spawn(slot)
            await self._until(
                lambda: bool(replacement.served_since) or replacement not in self._processes, SERVE_WITHIN
            )
        except (OSError, TimeoutError) as error:
            if slot.replacement is not None:
                self._kill(slot.replacement)
            self._go_on(slot, f"{what}, but its heir does not start: {error or 'it took too long'}")
            return
        finally:
            slot.replacement, slot.replacing = None, False
        if replacement not in self._processes:
            self._go_on(slot, f"{what}, but its heir {'is as well' if replacement.behind else 'died at once'}")
            return
        self._tell_people(f"{what}: process {replacement.pid} takes its place, it drains")
        slot.failed_replacements = 0
        if slot.worker is old:
            old.leaving = True
            old.say(Command("drain", self.drain))
            if old.behind is not None:
                # Connections that it has may bring requests yet, and rotations name targets that it does not know.
                old.say(self._whole())
        slot.worker = replacement
        self._wake()

    def _go_on(self, slot: Slot, text: str) -> None:
        """There is no replacement: the old one serves on, unless it has died meanwhile."""
        if slot.worker is not None:
            self._tell_people(text)
        elif not self._stopping:
            self._refill(slot, text)

    def _go(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def stop(self, within: float) -> None:
        """Let requests under way end for `within` seconds, then stop at once."""
        self._stopping = True
        self.close_all()  # the workers' own are the last ones then, and end in order
        self.send_command(Command("drain", within))
        try:
            await self._until(self._none_left, within)
        except TimeoutError:
            self.send_command(Command("stop"))
            await self._end_all()
        self._close_rates()

    def _close_rates(self) -> None:
        """Workers have the tables of limits themselves."""
        rates, self._rates = self._rates, -1
        if rates >= 0:
            os.close(rates)
        self._regions.close()

    def _none_left(self) -> bool:
        return not self._processes and not self._starts

    async def hold(self) -> None:
        """Start no worker from now on, until `resume` or `let_go`. Returns when none is being started. Raises
        TimeoutError.

        A worker that the other supervisor has taken over drains and ends, perhaps before this one hears that it was
        taken over.
        """
        self._held = True
        await self._until(lambda: not self._starts, STARTED_WITHIN)

    def resume(self) -> None:
        """No other supervisor has taken over: start the workers that are missing."""
        self._held = False
        for slot in self._slots:
            if slot.worker is None and not slot.given_up:
                self._go(self._fill(slot, 0.0))

    def let_go(self, adopted: Collection[int] | None = None) -> None:
        """Another supervisor has taken over these workers (process ids; None: all), and this one forgets all of them.

        A worker that it has not taken started in the last moment. Without a supervisor it would serve by an old
        snapshot, so it ends: at once if it does not serve yet.
        """
        self._stopping = True
        for worker in self._processes:
            if adopted is not None and worker.pid not in adopted:
                if worker.served_since:
                    worker.say(Command("drain", self.drain))
                else:
                    self._kill(worker)
            worker.close()
        self._processes.clear()
        self.close_all()
        self._close_rates()

    async def _end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                await self._until(self._none_left, 1.0)
            except TimeoutError:
                end([worker.pid for worker in self._processes], number)
            else:
                return
        await self._until(self._none_left, 5.0)


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


def _named(worker: WorkerProcess) -> str:
    return f"worker {worker.number} (process {worker.pid})"


def _why_late(worker: WorkerProcess) -> str:
    """Why it has not confirmed a version, as far as is known."""
    if worker.behind is not None:
        return f"could not install version {worker.behind.version}: {worker.behind.reason}; it is to be replaced"
    silent = time.monotonic() - worker.heard
    return f"has given no sign of life for {silent:.1f} s" if silent > SILENT_AFTER else "has not answered yet"


def _with(left: Unfinished) -> str:
    lines = f" and {left.lines} log lines unwritten" if left.lines else ""
    return f"with {left.under_way} request{'' if left.under_way == 1 else 's'} under way{lines}"


def _ended(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
