"""The supervisor: owns what is desired and what is known, and carries no traffic.

It opens the listening sockets, starts workers, probes every target once, resolves rotations, keeps wishes on disk, and
serves the admin port. The order of start and stop is in `run`, operators' requests are in `operations`, and `upgrade`
is about one supervisor following another.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

import lb
from lb import build_form, early_signals
from lb.config.check.file_modes import modes_of_admin
from lb.config.load import Served, load_again
from lb.config.model.config import Config
from lb.config.resolve import World
from lb.config.tls_files import Held, load_world
from lb.config.tls_values import server_paths, tls_paths
from lb.control.probe_history import ProbeHistory
from lb.core.lifecycle import Effect, Health
from lb.core.refusals import Refusal, Refused
from lb.core.report import Report
from lb.discovery.store import FoundStore
from lb.health.monitor import Monitor
from lb.health.verdict_store import VerdictStore
from lb.net.threads import threads
from lb.process.channel import Command
from lb.process.descriptors import connections, keep_from_children, raise_limit
from lb.process.fd_handover import FoundWorker
from lb.process.guard import Guard
from lb.supervisor.admin_port import AdminPort, import_server, read_credentials
from lb.supervisor.certificate_watch import CertificateWatch
from lb.supervisor.certificates import Certificates
from lb.supervisor.desired import DesiredState
from lb.supervisor.discoveries import Discoveries
from lb.supervisor.drains import Drains
from lb.supervisor.ejections import Ejections
from lb.supervisor.events import Events
from lb.supervisor.findings import Findings
from lb.supervisor.handovers import Handovers
from lb.supervisor.health_counters import HealthCounters
from lb.supervisor.installation import Installation
from lb.supervisor.issuing import Issuing
from lb.supervisor.key_sets import KeySets
from lb.supervisor.maintenances import Maintenances
from lb.supervisor.os import reaper, systemd
from lb.supervisor.os.file_watch import FileWatch
from lb.supervisor.rates import Rates
from lb.supervisor.reloads import NotNow, Reloads, text_of
from lb.supervisor.rollouts import Rollouts
from lb.supervisor.rotations import Rotations
from lb.supervisor.sockets import CannotListen, is_at, open_listener, remove_left_over
from lb.supervisor.state import State
from lb.supervisor.store import FileStore, StateTaken
from lb.supervisor.totals import Totals
from lb.supervisor.upgrade import (
    READY_WITHIN,
    Failed,
    HandoverState,
    OrphanedWorkers,
    Predecessor,
    Successor,
    command_line,
    find_orphans,
    pass_on,
    step_aside,
)
from lb.supervisor.weights import Weights
from lb.supervisor.workers import Workers

if TYPE_CHECKING:
    from lb.supervisor.operations import LiveOperations
    from lb.supervisor.views import Views

T = TypeVar("T")

log = logging.getLogger("lb")

#: Seconds between two writings of what is known of the targets.
REMEMBER_EVERY = 1.0
#: Of many targets they are written down less often: so many a second, and each `REMEMBERED_WITHIN` seconds at least.
REMEMBERED_PER_SECOND, REMEMBERED_WITHIN = 2_000, 5.0
#: Calls that block, at one time; a thread is only started when it is needed.
THREADS = 8
#: Seconds between two samples for rates.
SAMPLE_EVERY = 1.0
#: Seconds within which a certificate's second file has to follow its first one.
HALF_WRITTEN = 2.0
#: Seconds at most that a successor waits for the first verdicts before its workers serve beside the old ones.
FIRST_VERDICTS = 5.0

#: Connections of a worker below which the limit of descriptors is worth a word.
FEW_CONNECTIONS = 4000


class CannotStart(Exception):  # noqa: N818 - it says what happened
    """Why `lb run` ends with 1 before it has served any request."""


class StoppedEarly(Exception):  # noqa: N818 - it says what happened
    """A signal, or workers that all die, ended the start."""


class Supervisor:
    """One running lb."""

    def __init__(
        self,
        path: Path,
        config: Config,
        workers: int,
        read: Callable[[Path, Served], Config] = load_again,
        upgradable: bool = True,
    ) -> None:
        self.upgradable = upgradable
        self.store = FileStore(_under(path, config.state_dir))
        self.events = Events()
        self.issuing = Issuing(self.store.directory, self.events, lambda: (self.workers, self.rotations))
        self.issuing.configure(config)
        self.key_sets = KeySets(self.store.directory, lambda text: self.events.emit("note", text))
        self.key_sets.configure(config)
        world = load_world(config, held=self._got_by_itself(config))
        text, paths = text_of(path), tls_paths(world)
        self.state = State(path=path, text=text, config=config, file_world=world, world=world, tls_paths=paths)
        self.desired = DesiredState(self.store, self.state, self.events)
        self.probe_history = ProbeHistory()
        self.totals = Totals()
        self.rates = Rates()
        self.counters = HealthCounters()
        self.exit_code = 0
        self.successor = 0  # process id of the supervisor that has taken over
        self.ends_passed_on = 0  # signals to end that the successor has got from this one
        self.admin = AdminPort()
        self.guard = Guard(lambda text: self.events.emit("note", text))
        self.workers = Workers(
            workers,
            self.totals,
            directory=self.store.directory,
            on_alarm=lambda alarm, incarnation: self.findings.alarmed(alarm, incarnation),
            on_report=self._on_report,
            on_gone=lambda worker, incarnation: self.ejections.gone(worker, incarnation),
            tell=lambda text: self.events.emit("worker", text),
            on_hopeless=self._on_hopeless,
            guard=self.guard,
        )
        self.monitor = Monitor(
            rng=random.Random(),
            on_change=self._on_health,
            on_probe=lambda *probe: self.findings.probed(*probe),
            on_notice=lambda notice: self.findings.noticed(notice),
            on_address=lambda *move: self.findings.moved(*move),
            on_tls=lambda id: self.installation.tls_changed(),
        )
        self.rotations = Rotations(
            self.workers, self.monitor.healths, lambda: self.desired.current, self.monitor.addresses
        )
        self.ejections = Ejections()
        self._verdict_store = VerdictStore(self.store.directory)
        self.findings = Findings(
            self.state,
            self.rotations,
            self.monitor,
            self.events,
            self.probe_history,
            self.counters,
            self.ejections,
            self._verdict_store,
        )
        self.rollouts = Rollouts(
            self.state,
            self.desired,
            self.rotations,
            self.workers,
            self.monitor,
            self.events,
            self.totals,
            self.guard,
        )
        self.drains = Drains(
            self.state,
            self.desired,
            self.rotations,
            self.workers,
            self.monitor,
            self.events,
            self.totals,
            self.rates,
        )
        self.weights = Weights(self.desired, self.rotations, self.drains, self.events)
        self.handovers = Handovers(self.state, self.desired, self.rotations, self.monitor, self.events)
        self.discoveries = Discoveries(
            self.state,
            self.monitor.healths,
            self.monitor.not_ready,
            self.events,
            self.guard,
            FoundStore(self.store.directory),
            lambda: self.installation.take_found(),
        )
        self.installation = Installation(
            self.state,
            self.desired,
            self.rotations,
            self.workers,
            self.monitor,
            self.events,
            self.totals,
            self.probe_history,
            self.counters,
            self.ejections,
            self.drains,
            self.rollouts,
            self.handovers,
            self.discoveries,
            self._watch_file,
        )
        self.maintenances = Maintenances(self.state, self.desired, self.installation, self.workers, self.events)
        self.certificate_watch = CertificateWatch(lambda: server_paths(self.state.file_world), self._read_certificates)
        self.file_watch = FileWatch(path, lambda: self.reloads.quietly("watch"), more=lambda: self.state.tls_paths)
        self.reloads = Reloads(
            self.state,
            self.desired,
            self.workers,
            self.monitor,
            self.events,
            self.handovers,
            self.installation,
            self.file_watch,
            read,
            self.admin,
        )
        self.certificates = Certificates(self.events)
        self.reloads.on_read = self._on_read
        self.reloads.held = self._got_by_itself
        self._given: list[socket.socket] = []  # by systemd
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._over = asyncio.Event()  # a stop signal came, or a successor has taken over
        self._started = False
        self._held: list[int] = []  # signals that came before, or in an upgrade's last step
        self._decided = asyncio.Event()  # clear in an upgrade's last step: either lb may go on
        self._decided.set()
        self._upgrade_ended = asyncio.Event()  # clear during an upgrade, until a successor that failed has ended
        self._upgrade_ended.set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watching: asyncio.Task[None] | None = None

    @cached_property
    def views(self) -> Views:
        """The admin port's view of everything."""
        from lb.supervisor.views import Views

        return Views(
            self.state,
            self.desired,
            self.rotations,
            self.workers,
            self.monitor,
            self.events,
            self.probe_history,
            self.rates,
            self.rollouts,
            self.reloads,
            self.handovers,
            self.admin,
            self.issuing,
            self.discoveries,
        )

    @cached_property
    def operations(self) -> LiveOperations:
        """The questions and orders of the admin port."""
        from lb.supervisor.certificate_views import CertificateViews
        from lb.supervisor.explanations import Explanations
        from lb.supervisor.metrics import Metrics
        from lb.supervisor.operations import LiveOperations
        from lb.supervisor.route_trials import RouteTrials

        certificate_views = CertificateViews(self.state, self.certificates, self.issuing)
        return LiveOperations(
            self.state,
            self.desired,
            self.workers,
            self.monitor,
            self.rotations,
            self.events,
            self.totals,
            self.probe_history,
            self.rollouts,
            self.reloads,
            self.drains,
            self.weights,
            self.maintenances,
            self.views,
            Explanations(
                self.state,
                self.desired,
                self.rotations,
                self.workers,
                self.monitor,
                self.totals,
                self.probe_history,
                self.rollouts,
                self.handovers,
                certificate_views,
                self.discoveries,
            ),
            Metrics(
                self.state,
                self.desired,
                self.rotations,
                self.workers,
                self.monitor,
                self.totals,
                self.counters,
                self.rollouts,
                self.reloads,
                self.guard,
                self.views,
                certificate_views,
                self.discoveries,
            ),
            certificate_views,
            self.discoveries,
            RouteTrials(self.state, self.desired),
            self.upgrade,
        )

    # --- start ------------------------------------------------------------------------------------------------------

    async def run(self, announce: Callable[[Supervisor], None]) -> None:
        """Serve until a signal says stop, or a successor has taken over. Raises `CannotStart`."""
        predecessor = Predecessor.known()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.guard.on_error)
        loop.set_default_executor(threads(THREADS, "lb-aside"))
        try:
            self._handle_signals()
            try:
                await self._start(predecessor)
            except (CannotListen, StateTaken, Failed) as error:
                raise CannotStart(str(error)) from None
            gc.freeze()  # objects made at start stay: only leftovers of probes are looked through, and rarely
            gc.set_threshold(20_000, 20, 10)
            gc.enable()
            announce(self)
            systemd.notify("READY=1", f"STATUS=serves {self.state.path}", f"MAINPID={os.getpid()}")
            self._started = True
            self._act_on_held()
            await self._over.wait()
            await self._decided.wait()
            if not self.successor:
                await self._wind_down()
                await self._upgrade_ended.wait()  # the new lb that was ended has requests, too
        except StoppedEarly:
            if self.exit_code:
                raise CannotStart("the workers die at once") from None
            if predecessor is not None:
                predecessor.fail("it was stopped")
        except CannotStart as error:
            if predecessor is not None:
                predecessor.fail(str(error))
            raise
        finally:
            await self._close()

    async def _start(self, predecessor: Predecessor | None) -> None:
        self._given = systemd.take_sockets()
        if predecessor is None or predecessor.directory != self.store.directory:
            self._lock()
        orphans = await find_orphans(
            predecessor.directory if predecessor else self.store.directory, kill_hung=predecessor is None
        )
        try:
            self._check_wanted()
            handover_state = await self._begin(predecessor, orphans)
        except StoppedEarly:
            if predecessor is None and not self.exit_code:
                await self._end_with(orphans)
            else:
                orphans.leave()
            raise
        except BaseException:
            orphans.leave()
            raise
        await self._settle(predecessor, orphans, handover_state)

    def _check_wanted(self) -> None:
        """Raise `StoppedEarly` when a signal has come."""
        if self._over.is_set():
            raise StoppedEarly

    async def _unless_over(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises `StoppedEarly` when a signal comes first."""
        working = asyncio.ensure_future(work)
        over = asyncio.ensure_future(self._over.wait())
        await asyncio.wait((working, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
            raise StoppedEarly
        return await working

    async def _end_with(self, orphans: OrphanedWorkers) -> None:
        """A signal ended the start: the workers of the lb that had died end with this one, as no other process ends
        them."""
        for visit in orphans.workers:
            visit.close_sockets()
            await self.workers.adopt(visit)
        if orphans.workers:
            self.events.emit(
                "stop", f"stopped during the start: {len(orphans.workers)} workers of an lb that had died end, too"
            )
            await self._end_workers()

    def _lock(self) -> None:
        try:
            self.store.lock()
        except OSError as error:
            raise CannotStart(f"state_dir {self.store.directory}: {error.strerror or error}") from None

    async def _begin(self, predecessor: Predecessor | None, orphans: OrphanedWorkers) -> HandoverState | None:
        """Everything up to workers that serve; with a predecessor, the state that it hands over."""
        complaint = self.desired.load()
        self.discoveries.load()
        await self.installation.begin()
        if predecessor is None:
            await self._take_over(complaint)
        self.rotations.version = orphans.version
        for listener in self.state.world.snapshot.listeners:
            given = [*orphans.sockets(listener.bind), *self._take_given(listener.bind)]
            self.installation.open_listener(listener.bind, open_listener(listener.bind, self.workers.count, given))
        orphans.close_rest()
        self.installation.watch_targets()
        held = self.monitor.restore(self._verdict_store.read())
        self.discoveries.begin(wait=predecessor is None)
        credentials = await asyncio.to_thread(
            read_credentials, self.state.config.admin, self.state.path.resolve().parent
        )
        for _, _, text, remedy in modes_of_admin(self.state.config):
            log.warning("%s; %s", text, remedy)
        inherits = predecessor is not None and predecessor.admin_bind == self.state.config.admin.bind
        if not inherits:
            [*admin] = self._take_given(self.state.config.admin.bind)
            self.admin.open(self.state.config.admin, admin[0] if admin else None)
        for sock in self._given:
            log.warning("systemd handed over %s, which no listener has as its bind", sock.getsockname())
            sock.close()
        await self.monitor.start()
        await self.installation.resolve_unprobed(self.state.world)
        self._check_wanted()
        if held:
            self.events.emit(
                "start", f"{len(held)} verdicts from before the restart are fresh and hold until the next probes"
            )
        trials = self.monitor.trials()
        if trials:
            some = ", ".join(trials[:3]) + (f" and {len(trials) - 3} more" if len(trials) > 3 else "")
            self.events.emit(
                "start", f"a changed check has not passed yet on {some}: the former one decides, as before"
            )
        if orphans.workers:
            await self._first_verdicts()
        await self._start_workers()
        await asyncio.to_thread(_import_admin_side)
        handover_state = None
        if predecessor is not None:
            handover_state = await predecessor.hand_over(self.views.readyz()[0])
            await self._inherit(predecessor, handover_state)
        await self.admin.prepare(self.operations, credentials)
        return handover_state

    async def _start_workers(self) -> None:
        try:
            await self._unless_over(self.workers.start(self.installation.snapshot()))
        except TimeoutError:
            raise CannotStart("the workers did not start in time") from None
        except OSError as error:
            raise CannotStart(f"workers cannot be started: {error.strerror or error}") from None

    async def _inherit(self, predecessor: Predecessor, handover_state: HandoverState) -> None:
        """Take what a predecessor leaves: from here on this supervisor is the one."""
        if predecessor.directory == self.store.directory:
            self.store.take_lock(handover_state.lock)
        else:
            os.close(handover_state.lock)
        if self.admin.sock is None:
            self.admin.open(self.state.config.admin, handover_state.admin)
        elif handover_state.admin is not None:
            handover_state.admin.close()
        for id in self.monitor.restore_ejections(self._verdict_store.read()):  # of while this one was starting
            self.rotations.touch((self.state.targets[id].service,))
        self.totals.inherit(handover_state.sums)
        self.rotations.version = max(self.rotations.version, handover_state.version)
        await self._take_over("")

    async def _take_over(self, complaint: str) -> None:
        """From here on what happens is written down: no other supervisor does any more. `complaint`: the fault of the
        desired state on the disk."""
        self.events.open(self.store.directory)
        self.probe_history.open(self.store.directory)
        if complaint:
            self.events.emit("state", complaint)
        await self.desired.own()
        await self.rollouts.recover()

    async def _settle(
        self, predecessor: Predecessor | None, orphans: OrphanedWorkers, handover_state: HandoverState | None
    ) -> None:
        """All is well: the workers may outlive this process, workers of an earlier one may end."""
        self.workers.settle()
        for visit in orphans.workers:
            await self.workers.adopt(visit)
        if predecessor is not None:
            predecessor.done([visit.pid for visit in (*orphans.workers, *await self._adopt_late(predecessor, orphans))])
        await self.admin.resume()  # not before `done`: until then the other lb may be the one that goes on
        for label, body in (
            ("sweep", self.findings.run),
            ("rates", self._sample),
            ("verdicts", self._remember),
            ("rollouts", self.rollouts.run),
            ("drains", self.drains.run),
            ("handovers", self.installation.run),
            ("discoveries", self.discoveries.run),
            ("certificates", self.certificate_watch.run),
            ("orders", self.issuing.order),
            ("issuing", partial(self.issuing.take_in, self._take_in)),
            ("keys", partial(self.key_sets.run, self._take_in)),
        ):
            self._keep_running(label, body)
        if systemd.watchdog():
            self._keep_running("watchdog", partial(systemd.show_life, systemd.watchdog()))
        if reaper.is_needed():
            self._keep_running("reaper", reaper.run)
        text = f"lb {lb.__version__} serves {self.state.path}"
        if handover_state is not None:
            text += ", taken over from the lb before it"
        elif orphans.workers or orphans.ended:
            workers = f"{len(orphans.workers)} worker{'s' * (len(orphans.workers) != 1)}"
            text += f"; {workers} of an lb that had died served until now, and drain"
        if orphans.ended:
            text += f"; {len(orphans.ended)} of them hung and were killed"
        self.events.emit("start", text)
        self.reloads.judge(self.state.file_world)
        if not build_form.is_optimised():
            log.info("Python %s was built without optimisation: requests cost more", platform.python_version())
        if connections() < FEW_CONNECTIONS:
            self.events.emit(
                "start", f"ulimit -n lets each worker serve no more than {connections()} connections at a time"
            )

    async def _adopt_late(self, predecessor: Predecessor, orphans: OrphanedWorkers) -> list[FoundWorker]:
        """Adopt workers that the predecessor has started since this one looked: in place of a worker that died or was
        behind. Otherwise they would serve on by the predecessor's last snapshot."""
        seen = {*(visit.pid for visit in orphans.workers), *(process.pid for process in self.workers.processes)}
        late = await find_orphans(predecessor.directory, kill_hung=False, but=seen)
        late.close_rest()
        own = {process.pid for process in self.workers.processes}  # perhaps one more by now
        for visit in late.workers:
            if visit.pid in own:
                visit.leave()
            else:
                await self.workers.adopt(visit)
        return [visit for visit in late.workers if visit.pid not in own]

    async def _first_verdicts(self) -> None:
        """The workers that serve already have verdicts on the targets. Workers beside them must not know less."""
        until = time.monotonic() + FIRST_VERDICTS
        checks = self.state.world.checks

        def unknown() -> bool:
            return any(
                health.checked is None and checks[id].readiness.protocol != "none"
                for id, health in self.monitor.healths.items()
            )

        while time.monotonic() < until and unknown():
            self._check_wanted()
            await asyncio.sleep(0.02)

    def _take_given(self, bind: str) -> list[socket.socket]:
        found = [sock for sock in self._given if is_at(sock, bind)]
        self._given = [sock for sock in self._given if sock not in found]
        return found

    def _on_read(self, world: World) -> None:
        """A world is in force."""
        self.certificates.told(world)
        self.issuing.configure(world.config)
        self.key_sets.configure(world.config)

    def _on_report(self, report: Report) -> None:
        self.findings.reported(report)
        if report.asked_keys:
            self.key_sets.asked(report.asked_keys)

    def _got_by_itself(self, config: Config) -> Held:
        """The contents of what lb has got by itself, by path or URL."""
        return {**self.issuing.held(config), **self.key_sets.held()}

    async def _take_in(self) -> bool:
        """Certificates or keys that lb has got by itself are to be served; whether they are."""
        try:
            await self.reloads.read_certificates("issuing")
        except NotNow:
            return False
        except Refused:
            pass  # they are in force, and a worker that has not confirmed them was told of
        return True

    async def _read_certificates(self) -> None:
        """A file of a certificate has changed. Half a pair has this long to become a whole one."""
        with contextlib.suppress(NotNow, Refused):  # the next look comes again; a refusal was told
            await self.reloads.read_certificates("watch", HALF_WRITTEN)

    def _watch_file(self, wanted: bool) -> None:
        if wanted and self._watching is None:
            self._watching = self._keep_running("watch", self.file_watch.run)
        elif not wanted and self._watching is not None:
            self._watching.cancel()
            self._watching = None

    # --- signals and the end ----------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in early_signals.HANDLED:
            loop.add_signal_handler(number, self._on_signal, number)
        for came in early_signals.taken():
            self._on_signal(came)

    def _on_signal(self, number: int) -> None:
        if not self._decided.is_set():
            self._hold(number)
        elif self.successor:
            pass_on(number, self.successor)
            self.ends_passed_on += number in early_signals.ENDING
        elif number in early_signals.ENDING:
            self._on_stop_signal()
        elif not self._started:
            self._hold(number)
        elif number == signal.SIGHUP:
            self._spawn(self.reloads.quietly("SIGHUP"))
        elif number == signal.SIGUSR1:
            self.workers.send_command(Command("reopen"))
        elif number == signal.SIGUSR2:
            self._spawn(self._upgrade_by_signal())

    def _hold(self, number: int) -> None:
        if number in early_signals.ENDING or number not in self._held:
            self._held.append(number)

    def _act_on_held(self) -> None:
        held, self._held = self._held, []
        for number in held:
            self._on_signal(number)

    def _on_stop_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()
        self._over.set()

    def _on_health(self, id: str, old: Health, new: Health, effects: tuple[Effect, ...]) -> None:
        self.findings.changed(id, old, new, effects)
        self.discoveries.look()

    def _on_hopeless(self) -> None:
        """No worker lives long enough to serve: the caller of lb has to hear of it."""
        self.events.emit("stop", "every worker dies at once, again and again: lb ends with 1")
        self.exit_code = 1
        self._stop_now.set()
        self._stop.set()
        self._over.set()

    async def _wind_down(self) -> None:
        """/readyz says no; clients are served on for `lame_duck`; then what is under way may end."""
        self.state.draining = True
        systemd.notify("STOPPING=1")
        for_now = f"in {self.state.config.lame_duck:g} s " if self.state.config.lame_duck else ""
        self.events.emit("stop", f"stopping: {for_now}no new connections are taken, requests under way may end")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.state.config.lame_duck):
                await self._stop_now.wait()
        self._write_down()
        await self._end_workers()

    async def _end_workers(self) -> None:
        """Requests under way may end for `drain` seconds; a second signal ends them at once."""
        ending = asyncio.ensure_future(self.workers.stop(self.state.config.drain))
        hurry = asyncio.ensure_future(self._stop_now.wait())
        await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            ending.cancel()
            await self.workers.stop(0.0)
        hurry.cancel()

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self.installation.close()
        self.discoveries.close()
        self.rollouts.close()
        self.rotations.close()
        await self.monitor.close()
        await self.admin.close()
        if not self.successor:
            self.probe_history.flush(everything=True)
            await self._end_workers()  # after a start that has failed, some may have requests
            for bind in (*self.state.addresses, self.admin.bind):
                remove_left_over(bind)
        self.desired.close()
        self.store.unlock()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _keep_running(self, label: str, body: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return self._spawn(self.guard.keep_running(label, body))

    # --- handing over -----------------------------------------------------------------------------------------------

    async def upgrade(self, actor: str, within: float = READY_WITHIN) -> int:
        """Start the installed code as a new supervisor and leave everything to it; returns its process id.

        Raises `Refused`; then this one goes on as if nothing had been.
        """
        if not self.upgradable:
            raise Refused(Refusal.NO_UPGRADE, "its demo backends would end with it; start lb without --demo")
        if (
            reason := self.state.blocked_by
            or self.handovers.blocked_by()
            or ("lb is stopping" if self._over.is_set() else "")
        ):
            raise Refused(Refusal.NOT_NOW, reason)
        self.state.blocked_by = "an upgrade is under way"
        self._upgrade_ended.clear()
        self.events.emit("upgrade", "begins: a new lb is started beside this one", actor=actor)
        successor: Successor | None = None
        try:
            await self.desired.settle()  # the new lb reads what is on the disk
            self._verdict_store.write(self.monitor.keep())
            successor = await Successor.start(command_line(), self.store.directory, self.admin.bind)
            was_ready = self.views.readyz()[0]
            if not await self._unless_over(successor.ready(within)) and was_ready:
                raise Failed("it finds no ready target, while there are some")
            await self._hand_over(successor)
        except (Failed, OSError, StoppedEarly) as error:
            if successor is not None:
                await successor.back_out(self.state.config.drain, self._stop_now)
            self.state.blocked_by = ""
            what = "this lb stops" if isinstance(error, StoppedEarly) else f"this lb goes on: {error}"
            self.events.emit("upgrade", f"backed out, {what}", actor=actor)
            if isinstance(error, StoppedEarly):
                raise Refused(Refusal.NOT_NOW, "lb is stopping") from None
            raise Refused(Refusal.BACKED_OUT, f"the new lb did not get ready: {error}") from None
        finally:
            self._upgrade_ended.set()
        before, after = f"process {os.getpid()}", f"process {successor.pid}"
        self.events.emit("upgrade", f"{after} has taken over", actor=actor, before=before, after=after)
        self._over.set()
        return successor.pid

    async def _hand_over(self, successor: Successor) -> None:
        """The last step: leave everything to the successor. Raises `Failed`, or `StoppedEarly` before anything is left.

        Until its outcome either lb may be the one that goes on. So signals are held, and are then acted on by that one.
        """
        self._check_wanted()
        self._decided.clear()
        try:
            await self.workers.hold()
            await self.admin.pause()
            self.findings.hold()
            self._write_down()
            self.probe_history.pause()
            adopted = await successor.go(self._handover_state())
        except (Failed, OSError):
            self.workers.resume()
            self.findings.resume()
            self.probe_history.resume()
            await self.admin.resume()
            raise
        else:
            self.workers.let_go(adopted)
            self.successor = successor.pid
        finally:
            self._decided.set()
            self._act_on_held()

    def _handover_state(self) -> HandoverState:
        return HandoverState(self.store.lock_fd, self.admin.sock, self.totals.gone_sums(), self.rotations.version)

    async def _upgrade_by_signal(self) -> None:
        with contextlib.suppress(Refused):  # it was told
            await self.upgrade("SIGUSR2")

    @property
    def admin_address(self) -> str:
        """Where the admin port listens."""
        return self.admin.address

    # --- in the background --------------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        lost, trouble = 0, ""
        while True:
            sums = self.totals.sums()
            self.rates.sample(sums, time.monotonic())
            if sums.log_lines_lost and not lost:
                spec = self.state.world.snapshot.access_log
                where = "stdout" if spec.path == "-" else spec.path
                self.events.emit("note", f"access log: lines are lost, {where} cannot be opened or takes no more")
            lost = sums.log_lines_lost
            if sums.log_trouble != trouble:
                trouble = sums.log_trouble
                self.events.emit("note", f"access log: {trouble or 'it can be opened and written again'}")
            await asyncio.sleep(SAMPLE_EVERY)
            await self.desired.retry()  # the disk may have room again

    async def _remember(self) -> None:
        """Keep verdicts and probes for a supervisor that comes after this one."""
        while True:
            pause = min(REMEMBERED_WITHIN, len(self.monitor.healths) / REMEMBERED_PER_SECOND)
            await asyncio.sleep(max(REMEMBER_EVERY, pause))
            before = self.probe_history.trouble
            self._write_down()
            if self.probe_history.trouble and not before:
                self.events.emit(
                    "state", f"{self.probe_history.trouble}; the history of probes is kept in memory alone"
                )
            elif before and not self.probe_history.trouble:
                self.events.emit("state", "the history of probes can be written again, and is")

    def _write_down(self) -> None:
        self._verdict_store.write(self.monitor.keep())
        self.probe_history.flush()


def _import_admin_side() -> None:
    """Import what only the admin port needs: the workers serve meanwhile."""
    import lb.supervisor.explanations
    import lb.supervisor.metrics
    import lb.supervisor.operations
    import lb.supervisor.views  # noqa: F401

    import_server()


def _block_signals() -> None:
    """The loop is about to take its handlers away. It still acts on what came until now; what comes later waits for
    `step_aside`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, early_signals.HANDLED)


def _under(path: Path, name: str | Path) -> Path:
    """A path of the file: relative ones begin at the file's folder."""
    return path.resolve().parent / name


def run(
    path: Path,
    config: Config,
    *,
    workers: int | None,
    announce: Callable[[Supervisor], None],
    read: Callable[[Path, Served], Config] = load_again,
    upgradable: bool = True,
) -> int:
    """Serve `config`, which `read` made of `path` (and will again at each reload), until a signal; the exit code."""
    count = workers or config.workers or len(os.sched_getaffinity(0))

    async def serve() -> Supervisor:
        supervisor = Supervisor(path, config, count, read, upgradable)
        try:
            await supervisor.run(announce)
        finally:
            _block_signals()
        return supervisor

    raise_limit()
    keep_from_children()
    try:
        ended = uvloop.run(serve())
    except CannotStart as error:
        print(f"lb: {error}", file=sys.stderr)
        return 1
    if ended.successor:
        step_aside(ended.successor, ended.store.lock_path, ended.ends_passed_on)
    return ended.exit_code
