"""Reading the file again: validated whole, compared with what runs, in force on all workers at once or not at all.

One reload follows another. The file is resolved once, to a world; the world is compared with the one that runs, judged
and installed. Work that does not depend on the event loop (parsing, validation, the difference) runs in a thread. So a
file with a thousand services delays no probe. New listeners are opened before anything is in force, so that an address
in use refuses the whole reload. What the reload leaves to serve is judged before the new state is written and once more
after that, as a target may be ejected while a slow disk takes its time.

`replace` does the same for a text that is not in the file yet. The file is written last, when nothing can fail any more
but the writing itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lb.config.changes import Change, Plan
from lb.config.diff import diff, needs_restart
from lb.config.load import Served, load_text, read_text
from lb.config.model.config import Config
from lb.config.renewed import renewed
from lb.config.resolve import World
from lb.config.tls_files import NONE_HELD, Held, check_renewed, load_world, with_certificates_read_again
from lb.config.tls_values import served_certificates
from lb.config.yaml.problems import ConfigError
from lb.control.operations import Reloaded
from lb.core.digest import digest
from lb.core.refusals import Refused
from lb.core.reload_gate import CutOff, Situation, cut_off, described
from lb.health.monitor import Monitor
from lb.net.atomic_file import Replacement
from lb.supervisor.admin_port import AdminPort, Credentials, read_credentials
from lb.supervisor.desired import DesiredState
from lb.supervisor.events import Events
from lb.supervisor.handovers import Handovers
from lb.supervisor.installation import Candidate, Installation
from lb.supervisor.installation import Plan as InForce
from lb.supervisor.os import systemd
from lb.supervisor.os.file_watch import FileWatch
from lb.supervisor.sockets import CannotListen, open_listener
from lb.supervisor.state import State
from lb.supervisor.workers import Workers

if TYPE_CHECKING:
    from lb.control.models import ConfigOrder

log = logging.getLogger("lb")


class NotNow(Exception):  # noqa: N818 - it says what happened
    """A reload has to wait for something else; the text says for what."""


class Edited(Exception):  # noqa: N818 - it says what happened
    """The file on the disk differs from the running one: replacing it would lose an edit."""


class OtherText(Exception):  # noqa: N818 - it says what happened
    """The configuration that runs is not one that an order is based on."""


class CutsOff(Exception):  # noqa: N818 - it says what happened
    """With the file as it is, a service that is served now would have no target that can serve."""

    def __init__(self, found: tuple[CutOff, ...]) -> None:
        super().__init__(f"{described(found)}. Make one of its targets ready first, or force it (`lb reload --force`)")
        self.found = found


#: Seconds between two readings of a pair that may be half written.
READ_AGAIN = 0.2
#: Certificates that cannot be used which one event names.
MOST_NAMED = 3
#: Why a configuration is refused.
REFUSALS = (ConfigError, CannotListen, CutsOff)


class Installed(NamedTuple):
    """A configuration that is in force here; the workers have not confirmed it yet."""

    changes: tuple[Change, ...]
    forced: str
    before: str  # the text before
    after: str


class Read(NamedTuple):
    """A file that was read, and its world."""

    text: str
    config: Config
    plan: Plan  # against what runs
    world: World
    restart: list[str]  # changes that only a restart brings about
    credentials: Credentials  # of the admin port


class Reloads:
    """The reloads of one supervisor, and how the last one went."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        workers: Workers,
        monitor: Monitor,
        events: Events,
        handovers: Handovers,
        installation: Installation,
        file_watch: FileWatch,
        read: Callable[[Path, Served], Config],
        admin: AdminPort,
    ) -> None:
        self._state = state
        self._desired = desired
        self._workers = workers
        self._monitor = monitor
        self._events = events
        self._handovers = handovers
        self._installation = installation
        self._file_watch = file_watch
        self._load = read
        self._admin = admin
        self._lock = asyncio.Lock()
        self._at_start = state.config
        self.ok = True
        self.partial = False  # certificates could not be taken, and everything else is in force
        self.error = ""
        self.loaded_at = time.time()
        self.counts: Counter[str] = Counter()
        self.needs_restart: list[str] = []  # differences between the file and what was read at the start alone
        # The contents of certificates that lb has got by itself. It is called in a thread, and may issue some.
        self.held: Callable[[Config], Held] = lambda config: NONE_HELD
        self.on_read: Callable[[World], None] = lambda world: None  # is told each world that is in force

    async def reload(self, actor: str, force: bool = False, marks: Collection[str] | None = None) -> Reloaded:
        """Read the file again and do what it says. Raises `ConfigError`, `CannotListen`, `NotNow` or, unless `force`,
        `CutsOff`; then nothing has changed. Raises `Refused` when it is in force, but a worker has not confirmed it.

        `marks`: digests of the texts that the order is based on. Raises `OtherText` where another one runs."""
        async with self._lock:
            self._check_base(marks)
            self._check_free()
            systemd.notify_reloading()
            self._file_watch.seen()
            try:
                read = await asyncio.to_thread(self._read, self._state.path)
                await self._installation.resolve_unprobed(read.world)
                installed = await self._install(read, force)
            except REFUSALS as error:
                self.ok, self.partial = False, False
                # Whole and in one line: what shows it would cut a page of 80 columns at its first wrap.
                self.error = error.brief if isinstance(error, ConfigError) else str(error)
                self.counts["failed"] += 1
                self._events.emit("reload", f"refused, nothing has changed: {_shortly(error)}", actor=actor)
                raise
            finally:
                systemd.notify("READY=1")
            return await self._confirm(installed, actor)

    async def read_certificates(self, actor: str, patience: float = 0.0) -> None:
        """Read the files of listeners' certificates again, and nothing else. What is broken keeps its former contents.

        `patience`: seconds for which a pair that is newly broken is read again, because it may be half written. Raises
        `NotNow`, and `Refused` when a worker has not confirmed it."""
        until = time.monotonic() + patience
        while time.monotonic() < until:  # orders need not wait for this
            former = self._state.file_world
            world = await asyncio.to_thread(self._again, former)
            if set(world.unusable) <= set(former.unusable):
                break
            await asyncio.sleep(READ_AGAIN)
        async with self._lock:
            self._check_free()
            former = self._state.file_world
            world = await asyncio.to_thread(self._again, former)
            if world.snapshot == former.snapshot and world.unusable == former.unusable:
                return
            changes = tuple(renewed(former, world))
            candidate = Candidate(self._state.config, self._state.text, world)
            await self._installation.install(candidate, lambda plan: None, dict, new_version=False)
            self.judge(world)
            if changes:
                await self._confirm(Installed(changes, "", self._state.text, self._state.text), actor)
            elif world.unusable:
                self.counts["partial"] += 1

    def _again(self, former: World) -> World:
        return with_certificates_read_again(former, self.held(former.config))

    def judge(self, world: World) -> None:
        """Whether all of what was read is in force, and what is not."""
        self.on_read(world)
        self.ok, self.partial = not world.unusable, bool(world.unusable)
        self.error = "; ".join(map(str, world.unusable))

    async def replace(self, wanted: ConfigOrder, actor: str, marks: Collection[str] | None = None) -> Reloaded:
        """Make a text the file, and do what it says. Raises like `reload`, and `Edited` when the file differs from the
        loaded one (unless `force`), and `OSError`. Then, unless it was `Refused`, nothing has changed, nor has the
        file."""
        text, path = wanted.text, self._state.path
        async with self._lock:
            self._check_base(marks)
            self._check_free()
            if not wanted.force and text_of(path) != self._state.text:
                raise Edited(f"{path} was edited since it was loaded")
            try:
                base = str(path.resolve().parent)
                served = served_certificates(self._state.world)
                await asyncio.to_thread(load_text, text, str(path), base=base, check_files=True, served=served)
                with await asyncio.to_thread(Replacement, path, text) as replacement:
                    read = await asyncio.to_thread(self._read, replacement.path)
                    await self._installation.resolve_unprobed(read.world)

                    def put(replacement: Replacement = replacement) -> None:
                        replacement.put()
                        self._file_watch.seen()

                    installed = await self._install(read, wanted.force_unserved, put)
            except (*REFUSALS, OSError) as error:
                self._events.emit("reload", f"a new text was refused: {_shortly(error)}", actor=actor)
                raise
            return await self._confirm(installed, actor)

    def cut_off(self, world: World) -> tuple[CutOff, ...]:
        """The services that are served now, and would not be with this configuration."""
        return self._cut_off(self._installation.plan(world))

    def _cut_off(self, plan: InForce) -> tuple[CutOff, ...]:
        services, running = plan.world.snapshot.services, self._state.world
        healths = self._monitor.foresee(plan.world.checks, plan.world.targets, plan.world.target_rules(), plan.renames)
        before = Situation(running.snapshot.services, self._monitor.healths, self._desired.current, running.rules)
        after = Situation(services, healths, plan.desired, plan.world.rules)
        return cut_off(before, after, plan.renames, time.monotonic())

    def _check_served(self, plan: InForce, force: bool) -> str:
        """Refuse a configuration that leaves a service without a target that can serve; with `force`, say which."""
        found = self._cut_off(plan)
        if found and not force:
            raise CutsOff(found)
        return described(found)

    def _check_base(self, marks: Collection[str] | None) -> None:
        """An order looks here when it has its turn, as the one before it may have replaced what it is based on."""
        if marks is not None and digest(self._state.text.encode()) not in marks:
            raise OtherText

    def _check_free(self) -> None:
        if self._state.blocked_by:
            raise NotNow(self._state.blocked_by)

    async def quietly(self, actor: str) -> None:
        """For callers that get no answer: a signal, the file's watch. The error has been emitted as an event."""
        try:
            await self.reload(actor)
        except NotNow as error:
            self._events.emit("reload", f"not done: {error}", actor=actor)
        except (*REFUSALS, Refused):
            pass

    def _read(self, path: Path) -> Read:
        text = text_of(path)
        former = self._state.world
        config = self._load(path, served_certificates(former))
        world = load_world(config, former, self.held(config))
        check_renewed(self._state.world, world, str(path))
        restart = [str(change) for change in needs_restart(self._at_start, config)]
        credentials = read_credentials(config.admin, path.resolve().parent)
        return Read(text, config, diff(self._state.file_world, world), world, restart, credentials)

    async def _install(self, read: Read, force: bool, put: Callable[[], None] = lambda: None) -> Installed:
        """Put what was read in force, unless it is refused. `put` makes the text the file, when nothing else can fail;
        its exception refuses the configuration as well."""
        changes = (*read.plan.changes, *self._admin.renewed(read.credentials))
        before = self._state.text
        forced = ""

        def judge(plan: InForce) -> None:
            nonlocal forced
            forced = self._check_served(plan, force)

        def prepare() -> dict[str, list[socket.socket]]:
            opened = self._open_new(read.world)
            try:
                put()
            except OSError:
                _close(opened)
                raise
            return opened

        candidate = Candidate(read.config, read.text, read.world)
        await self._installation.install(candidate, judge, prepare, new_version=bool(changes))
        await self._admin.use(read.credentials)
        self.needs_restart = read.restart
        self.judge(read.world)
        self.loaded_at = time.time()
        return Installed(changes, forced, before, read.text)

    async def _confirm(self, installed: Installed, actor: str) -> Reloaded:
        """Wait for the workers, and tell what has changed."""
        result = "unconfirmed"
        unusable = self._state.file_world.unusable
        try:
            await self._installation.confirm()
            result = "partial" if unusable else "ok"
        finally:
            self.counts[result] += 1
            forced = installed.forced
            self._events.emit(
                "reload",
                ("; ".join(map(str, installed.changes)) or "nothing has changed")
                + (f"; partial: {'; '.join(map(str, unusable[:MOST_NAMED]))}" if unusable else "")
                + (f" (forced: {forced})" if forced else ""),
                actor=actor,
                before=f"configuration {digest(installed.before.encode())}",
                after=f"configuration {digest(installed.after.encode())}",
                change_unsaid=installed.before != installed.after,
            )
            self._handovers.tell()
        return Reloaded(installed.changes, installed.forced, unusable=unusable)

    def _open_new(self, world: World) -> dict[str, list[socket.socket]]:
        workers = self._workers
        opened: dict[str, list[socket.socket]] = {}
        try:
            for listener in world.snapshot.listeners:
                if listener.bind not in workers.sockets:
                    opened[listener.bind] = open_listener(listener.bind, workers.count)
        except CannotListen:
            _close(opened)
            raise
        return opened


def _close(opened: dict[str, list[socket.socket]]) -> None:
    for sockets in opened.values():
        for sock in sockets:
            sock.close()


def _shortly(error: Exception) -> str:
    """One line; the event of a file with a hundred errors is one line as well."""
    if isinstance(error, ConfigError):
        return error.brief
    first, *rest = str(error).splitlines()
    return f"{first} (and {len(rest)} more line{'s' * (len(rest) > 1)}; `lb check` shows all)" if rest else first


def text_of(path: Path) -> str:
    """The file's text; one that is just being read can hardly be unreadable, and then there is nothing to show."""
    try:
        return read_text(path)
    except ConfigError:
        return ""
