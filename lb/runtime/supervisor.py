"""The supervisor: owns what is desired and what is known, and carries no traffic.

It reads the file, opens the listening sockets, starts workers, probes every target once, resolves rotations, keeps
wishes on disk, and serves the admin port. What happens when is in `run`; what operators ask for is in `operations`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvloop
from aiohttp import web

import lb
from lb.config.diff import diff
from lb.config.load import load, read_text
from lb.config.model import Config
from lb.config.problems import ConfigError
from lb.config.resolve import World, resolve
from lb.control import api
from lb.control.events import EventLog
from lb.control.metrics import Histogram
from lb.core.desired import Desired, reconcile
from lb.core.lifecycle import Drain, Effect, Eject, Health, Undrain, Verdict, in_rotation, shown
from lb.core.outlier import Ejector
from lb.core.report import Alarm, Report
from lb.core.rotation import rules_of
from lb.core.suspicion import Notice
from lb.core.targets import Snapshot, Target
from lb.health.memory import Memory
from lb.health.monitor import Monitor
from lb.runtime.channel import Order
from lb.runtime.descriptors import raise_limit
from lb.runtime.operations import LiveOperations
from lb.runtime.rates import Rates
from lb.runtime.rollouts import Rollouts
from lb.runtime.rotations import Rotations
from lb.runtime.sockets import CannotListen, bound_name, open_listener, parse_bind
from lb.runtime.store import StateTaken, Store
from lb.runtime.totals import Totals
from lb.runtime.workers import Workers

log = logging.getLogger("lb")

#: Seconds between two looks at what workers report about failing targets.
SWEEP_EVERY = 0.5
#: Seconds between two writings of what is known of the targets.
REMEMBER_EVERY = 1.0
#: Seconds between two samples for rates.
SAMPLE_EVERY = 1.0


class CannotStart(Exception):  # noqa: N818 - it says what happened
    """Why `lb run` ends with 1 before it has served anybody."""


class Supervisor:
    """One running lb."""

    def __init__(self, path: Path, config: Config, workers: int, read: Callable[[Path], Config] = load) -> None:
        self.path = path
        self.config = config
        self.read = read
        self.text = _text(path)  # of the file that runs, which may have been edited since
        self.started_at = time.time()
        self.loaded_at = self.started_at
        self.reload_ok = True
        self.reload_error = ""
        self.world: World = resolve(config, 0)
        self.targets: dict[str, Target] = {}
        self.desired = Desired()
        self.store = Store(_under(path, config.state_dir))
        self.events = EventLog()
        self.totals = Totals()
        self.rates = Rates()
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.probes: Counter[tuple[str, str, str]] = Counter()
        self.probe_seconds: dict[tuple[str, str], Histogram] = {}
        self.switches: Counter[tuple[str, str]] = Counter()
        self.reloads: Counter[str] = Counter()
        self.draining = False
        self.exit_code = 0
        self.addresses: dict[str, str] = {}  # a listener's bind → with the chosen port
        self.admin_address = ""
        self.workers = Workers(
            workers,
            self.totals,
            directory=self.store.directory,
            on_alarm=self._on_alarm,
            on_report=self._on_report,
            tell=lambda text: self.note("worker", text),
            on_hopeless=self._on_hopeless,
        )
        self.monitor = Monitor(
            rng=random.Random(), on_change=self._on_change, on_probe=self._on_probe, on_notice=self._on_notice
        )
        self._memory = Memory(self.store.directory)
        self.rotations = Rotations(self.workers, self.monitor.healths, lambda: self.desired)
        self.rollouts = Rollouts(self)
        self.operations = LiveOperations(self)
        self._ejectors: dict[tuple[str, str], Ejector] = {}
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._admin: web.AppRunner | None = None

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def run(self, announce: Callable[[Supervisor], None]) -> None:
        """Serve until a signal says stop. Raises `CannotStart`."""
        loop = asyncio.get_running_loop()
        try:
            await self._start(loop)
            announce(self)
            self._notify("READY=1")
            await self._stop.wait()
            await self._wind_down()
        finally:
            await self._close()

    async def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self.store.lock()
        except StateTaken as error:
            raise CannotStart(str(error)) from None
        except OSError as error:
            raise CannotStart(f"state_dir {self.store.directory}: {error.strerror or error}") from None
        self.events = EventLog(self.store.directory)
        persisted, complaint = self.store.load()
        if complaint:
            self.note("state", f"{complaint}; the last good state is used")
        self.desired = persisted or Desired()
        self._take(self.world)
        self.save()
        self.rollouts.recover()
        self._open_listeners()
        self._watch_targets()
        held = self.monitor.restore(self._memory.read())
        if held:
            self.note("start", f"{len(held)} verdicts from before the restart are fresh and hold until the next probes")
        await self._open_admin()
        await self.monitor.start()
        self.workers.hung_after = self.config.worker_limits.hang
        await self.workers.start(self._snapshot())
        self.workers.settle()
        for task in (self._sweep(), self._sample(), self._remember(), self.rollouts.run()):
            self._spawn(task)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload_signal)
        loop.add_signal_handler(signal.SIGUSR1, self.workers.order, Order("reopen"))
        self.note("start", f"lb {lb.__version__} serves {self.path}")

    def _open_listeners(self) -> None:
        for listener in self.world.snapshot.listeners:
            try:
                sockets = open_listener(listener.bind, self.workers.count)
            except CannotListen as error:
                raise CannotStart(str(error)) from None
            self.workers.sockets[listener.bind] = sockets
            self.addresses[listener.bind] = bound_name(listener.bind, sockets[0])

    async def _open_admin(self) -> None:
        admin = self.config.admin
        token = ""
        if admin.token_file is not None:
            try:
                token = _under(self.path, admin.token_file).read_text().strip()
            except OSError as error:
                raise CannotStart(f"admin token_file {admin.token_file}: {error.strerror or error}") from None
        try:
            sock = _admin_socket(admin.bind)
        except OSError as error:
            raise CannotStart(f"cannot listen on {admin.bind} (admin): {error.strerror or error}") from None
        app = api.build(self.operations, token=token, allowed_hosts=tuple(admin.allowed_hosts))
        self._admin = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._admin.setup()
        await web.SockSite(self._admin, sock).start()
        self.admin_address = bound_name(admin.bind, sock)

    def _on_hopeless(self) -> None:
        """No worker lives long enough to serve: whoever started lb has to hear of it."""
        self.note("stop", "every worker dies at once, again and again: lb ends with 1")
        self.exit_code = 1
        self._stop_now.set()
        self._stop.set()

    def _on_stop_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def _wind_down(self) -> None:
        """/readyz says no; clients are served on for `lame_duck`; then what is under way may end."""
        self.draining = True
        self._notify("STOPPING=1")
        self.note("stop", "stopping: no new connections are taken, requests under way may end")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.lame_duck):
                await self._stop_now.wait()
        self._memory.write(self.monitor.keep())
        ending = asyncio.ensure_future(self.workers.stop(self.config.drain))
        hurry = asyncio.ensure_future(self._stop_now.wait())
        await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            ending.cancel()
            await self.workers.stop(0.0)
        hurry.cancel()

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self.rollouts.close()
        self.rotations.close()
        await self.monitor.close()
        if self._admin is not None:
            await self._admin.cleanup()
        if self.workers.pids:
            await self.workers.stop(0.0)
        self.workers.close_all()
        self.store.unlock()

    def _spawn(self, coroutine: object) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _notify(self, state: str) -> None:
        """Tell systemd, if it listens (sd_notify(3))."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect("\0" + address[1:] if address.startswith("@") else address)
                sock.send(state.encode())

    # --- configuration ----------------------------------------------------------------------------------------------

    def _take(self, world: World) -> None:
        """Make a resolved configuration the one that counts, and bring the wishes in line with it."""
        self.world = world
        services = world.snapshot.services
        self.targets = {target.id: target for s in services for pool in s.pools for target in pool.targets}
        self.desired = reconcile(
            self.desired,
            {name: service.first_active() for name, service in self.config.services.items()},
            {service.name: frozenset(pool.name for pool in service.pools) for service in services},
            {id: target.weight for id, target in self.targets.items()},
        )
        kept = {(s.name, pool.name) for s in services for pool in s.pools}
        self._ejectors = {key: self._ejectors.get(key) or Ejector(world.rules[key[0]].outlier) for key in kept}
        for (service, _), ejector in self._ejectors.items():
            ejector.rules = world.rules[service].outlier
            ejector.forget(self.targets)

    def _watch_targets(self) -> None:
        rules = {
            id: rules_of(self.world.rules[target.service], self.world.checks[id].readiness)
            for id, target in self.targets.items()
        }
        self.monitor.update(self.world.checks, self.targets, rules, self.world.canary)
        for id in self.targets:
            override = self.desired.targets.get(id)
            if override is not None and override.draining:
                self.monitor.feed(id, Drain())

    def _snapshot(self) -> Snapshot:
        return self.rotations.configure(self.world.snapshot, self.world.rules, self.world.mirrors)

    async def reload(self, actor: str) -> list[str]:
        """Read the file again and do what it says. Raises `ConfigError`; then nothing has changed."""
        try:
            config = self.read(self.path)
            plan = diff(self.config, config)
            world = resolve(config, self.rotations.version)
            self._check_listeners(world)
        except (ConfigError, CannotListen) as error:
            self.reload_ok, self.reload_error = False, str(error)
            self.reloads["failed"] += 1
            self.note("reload", f"refused, nothing has changed: {str(error).splitlines()[0]}", actor=actor)
            raise
        old = set(self.targets)
        self.config = config
        self.text = _text(self.path)
        self.loaded_at = time.time()
        self._take(world)
        self.save()
        self._change_listeners()
        self._watch_targets()
        self.workers.apply(self._snapshot())
        await self.workers.confirm(self.rotations.version)
        self.totals.forget(old - set(self.targets))
        self.reload_ok, self.reload_error = True, ""
        self.reloads["ok"] += 1
        lines = plan.lines()
        self.note("reload", "; ".join(lines) or "nothing has changed", actor=actor)
        return lines

    def _check_listeners(self, world: World) -> None:
        """Open what is new before anything changes: an address in use refuses the whole reload."""
        opened: dict[str, list[socket.socket]] = {}
        try:
            for listener in world.snapshot.listeners:
                if listener.bind not in self.workers.sockets:
                    opened[listener.bind] = open_listener(listener.bind, self.workers.count)
        except CannotListen:
            for sockets in opened.values():
                for sock in sockets:
                    sock.close()
            raise
        self._opened = opened

    def _change_listeners(self) -> None:
        wanted = {listener.bind for listener in self.world.snapshot.listeners}
        for bind in set(self.workers.sockets) - wanted:
            self.workers.close(bind)
            del self.addresses[bind]
        for bind, sockets in self._opened.items():
            self.workers.open(bind, sockets)
            self.addresses[bind] = bound_name(bind, sockets[0])

    def _on_reload_signal(self) -> None:
        self._spawn(self._reload_by_signal())

    async def _reload_by_signal(self) -> None:
        with contextlib.suppress(ConfigError, CannotListen):
            await self.reload("SIGHUP")

    def config_text(self) -> str:
        """The text that runs."""
        return self.text

    # --- wishes -----------------------------------------------------------------------------------------------------

    def wish(self, desired: Desired) -> None:
        """Replace what is desired: first on the disk, then in force."""
        self.desired = replace(desired, version=self.desired.version + 1)
        self.save()

    def save(self) -> None:
        """Write what is desired; trouble is said once, and shown in status."""
        before = self.store.trouble
        if not self.store.save(self.desired) and self.store.trouble != before:
            self.note("state", f"{self.store.trouble}; changes hold until lb ends")

    # --- what happens -----------------------------------------------------------------------------------------------

    def note(
        self, kind: str, text: str, subject: str = "lb", *, actor: str = "", before: str = "", after: str = ""
    ) -> None:
        """An event, and a line of the log."""
        self.events.add(kind, subject, text, actor=actor, before=before, after=after)
        log.info("%s%s%s", f"{subject}: " if subject != "lb" else "", text, f" (by {actor})" if actor else "")

    def _on_change(self, id: str, old: Health, new: Health, effects: tuple[Effect, ...]) -> None:
        now = time.monotonic()
        target = self.targets.get(id)
        if target is None:
            return
        before, after = shown(old, now), shown(new, now)
        text = "; ".join(effect.text for effect in effects if effect.text) or new.text
        if before != after:
            self.transitions[id, after] += 1
            self.note("transition", f"{before} → {after}: {text}", id, before=before, after=after)
        elif any(effect.kind == "say" for effect in effects):
            self.note("note", text, id)
        if any(effect.kind in ("enter", "leave", "reweigh") for effect in effects) or in_rotation(old) != in_rotation(
            new
        ):
            self.rotations.touch((target.service,))

    def _on_probe(self, id: str, kind: str, verdict: Verdict) -> None:
        result = "ignored" if verdict.ignored else "passed" if verdict.ok else "failed"
        self.probes[id, kind, result] += 1
        target = self.targets.get(id)
        if target is not None:
            self.probe_seconds.setdefault((target.service, kind), Histogram()).observe(verdict.seconds)

    def _on_notice(self, notice: Notice) -> None:
        """What the monitor thinks of many failures at once, a changed check, a target that is not alive."""
        self.note("liveness" if notice.cause.startswith("liveness") else "note", notice.text, notice.scope)

    async def _remember(self) -> None:
        """Keep the verdicts for a supervisor that comes after this one."""
        while True:
            await asyncio.sleep(REMEMBER_EVERY)
            self._memory.write(self.monitor.keep())

    def _on_report(self, report: Report) -> None:
        now = time.monotonic()
        worker = (report.worker, report.incarnation)
        for tally in report.targets:
            target = self.targets.get(tally.target)
            if target is not None:
                self._ejectors[target.service, target.pool].tally(worker, tally, now)
                self.monitor.observe(report.worker, tally.target, tally.in_flight, tally.successes)

    def _on_alarm(self, alarm: Alarm) -> None:
        target = self.targets.get(alarm.target)
        if target is not None:
            self._ejectors[target.service, target.pool].alarm(alarm)
            if alarm.kind != "5xx":  # a probe can see it as well: do not wait for the next one
                self.monitor.nudge(alarm.target)

    async def _sweep(self) -> None:
        """Eject who fails its clients."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            now = time.monotonic()
            for (service, pool), ejector in self._ejectors.items():
                if ejector.rules.off:
                    continue
                states = {
                    id: "ejected" if (health := self.monitor.health(id)).ejected_until else
                    "in" if in_rotation(health) else "out"
                    for id, target in self.targets.items()
                    if (target.service, target.pool) == (service, pool)
                }  # fmt: skip
                for found in ejector.sweep(states, now):
                    self.monitor.feed(found.target, Eject(found.reason, found.quick))

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_EVERY)
            self.rates.sample(self.totals.sums(), time.monotonic())

    def undrain(self, id: str) -> None:
        """Tell the lifecycle that an operator takes a drain back."""
        self.monitor.feed(id, Undrain())

    def drain(self, id: str) -> None:
        """Tell the lifecycle that an operator drains a target."""
        self.monitor.feed(id, Drain())


def _text(path: Path) -> str:
    """The file's text; one that was just read can hardly be unreadable, and then there is nothing to show."""
    try:
        return read_text(path)
    except ConfigError:
        return ""


def _under(path: Path, name: str | Path) -> Path:
    """A path of the file: relative ones begin at the file's folder."""
    return path.resolve().parent / name


def _admin_socket(bind: str) -> socket.socket:
    family, address = parse_bind(bind)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def run(
    path: Path,
    config: Config,
    *,
    workers: int | None,
    announce: Callable[[Supervisor], None],
    read: Callable[[Path], Config] = load,
) -> int:
    """Serve `config`, which `read` made of `path` (and will again at each reload), until a signal; the exit code."""
    count = workers or config.workers or len(os.sched_getaffinity(0))

    async def serve() -> int:
        supervisor = Supervisor(path, config, count)
        await supervisor.run(announce)
        return supervisor.exit_code

    raise_limit()
    try:
        return uvloop.run(serve())
    except CannotStart as error:
        print(f"lb: {error}", file=sys.stderr)
        return 1
    except TimeoutError:
        print("lb: the workers did not start in time", file=sys.stderr)
        return 1
