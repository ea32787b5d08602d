"""One run's world: the file, the targets, the clients, the processes of `lb`, and beside them the reference.

The reference is fed with what is outside of `lb` (the file, orders that were carried out, the answers of probes) and
with two decisions that `lb` may take by itself: ejections, and the share of a rollout. After each change everything
that is under way learns what it may see from now on; a request may be served by what was right at any moment between
its start and its end.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from tests.model import reference
from tests.model.clock import CLOCK, Loop
from tests.model.found import Found
from tests.model.h2_client import Http2Client
from tests.model.names import Names
from tests.model.peers import Answer, Arrival, Backend, Client, Wish
from tests.model.plan import Plan, ServicePlan, TargetPlan, address_of
from tests.model.processes import Process, Processes
from tests.model.reference import Knowledge, Request

#: Seconds that a change of the last moment may still be on its way.
JUST_NOW = 0.002
#: Seconds that a worker which could not install a snapshot may serve by what was before, until another one replaces it.
BEHIND = 10.0
#: Why a request may go on after its client has heard the last of it.
LATER = frozenset({"client", "worker", "restart"})
#: Why a request may be tried again although a target has answered it.
BROKEN_OFF = frozenset({"backend", "client", "worker", "restart"})
#: Seconds after the begin of a worker's drain within which a connection may bring its first request.
FIRST_REQUEST = 2.0
#: Seconds at most between the end of a try and the look for another target: doubt, and a pause that grows.
PAUSES = 2.4
#: Seconds for which a target that refused a connection is left out, and a little more.
LEFT_OUT = 1.5
#: Times that GOAWAY may leave a request out until its target counts as one that was tried.
LEFT_OUT_TIMES = 3
#: So many failing requests are within the budget of retries, whatever else is asked.
BUDGET = 20
#: The adaptive bound on requests never goes below this.
ADAPTIVE = 10
#: Seconds that a request may wait for a target with room, as the runs' files say.
QUEUED = 1.0
#: What lb says where no target takes a WebSocket.
NO_WEBSOCKET = "takes no WebSocket"
#: Seconds after which a request that has no answer is taken to hang.
HANGS = 40.0


class Violation(Exception):  # noqa: N818 - it says what happened
    """The code did not do what the reference says."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.text = text


@dataclass
class Track:
    """A request from its start to its end."""

    wish: Wish
    request: Request
    service: str
    since: float
    allowed: frozenset[str] = frozenset()
    failed: set[str] = field(default_factory=set)  # addresses that may have failed it
    rescued: bool = True  # its one target apart, it was certain at all moments that the fallback could serve it
    untaken: bool = False  # a WebSocket: at some moment it was not certain that a target takes it
    starved: bool = False  # at some moment it was not certain that anybody could serve it
    excuses: set[str] = field(default_factory=set)
    arrivals: list[Arrival] = field(default_factory=list)
    answer: Answer | None = None
    rivals: int = 0  # the most requests that were under way to the same pools, itself included
    crowd: int = 0  # …and to the same service
    connections: float = inf  # the least of the service's bounds while it was under way: to one target…
    requests: float = inf  # …and in all
    copied_to: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    witnesses: frozenset[int] = frozenset()  # process ids when it ended
    ahead: bool = False  # sent behind another one on the same connection

    @property
    def keeps_a_target_busy(self) -> bool:
        """Whether its target may be at work though its client has gone: an end of file alone ends no request."""
        lasts = HANGS if "backend" in self.excuses else float(self.wish.do.get("delay", 0)) + 0.1
        begins = self.arrivals[-1].at if self.arrivals else self.since + QUEUED
        return "client" in self.excuses and CLOCK.now < begins + lasts


class World:
    """Everything of one run."""

    slack = 0.3  # seconds that an answer may be later than a time limit says
    seed = 0

    def __init__(self, rng: random.Random, loop: Loop, prefix: str) -> None:
        self.rng = rng
        self.loop = loop
        self.prefix = prefix  # of all targets' addresses, such as 127.3.7
        self.directory = Path(
            tempfile.mkdtemp(prefix="lb-model-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self.processes = Processes(loop)
        self.processes.start_supervisor = self._run_supervisor
        self.backends: dict[str, Backend] = {}
        self.http2: set[str] = set()  # addresses of targets that are spoken to over HTTP/2
        self.names: dict[str, list[str]] = {}  # host name → IP addresses
        self.standing = Names()  # what these names have stood for, where checks decide that
        self.found = Found(self)
        self.plan = Plan(f"unix:{self.directory}/l.sock", str(self.directory / "state"), f"{prefix}.250:9900", {})
        self.knowledge: dict[str, Knowledge] = {}
        self.drained: set[str] = set()
        self.ejected: dict[str, float] = {}  # address → until when
        self.asked: set[str] = set()  # addresses that some client's request could go to so far
        #: Service and pool → targets that the file no longer has, which serve until a new one can; and since when.
        self.replaced: dict[tuple[str, str], tuple[list[TargetPlan], float]] = {}
        self.overrides: dict[str, tuple[int, int]] = {}  # address → (an operator's weight, the file's)
        self.supervisor: Any = None
        self.supervising: Process | None = None
        self.starting: Any = None  # the supervisor that was started last, and may not serve yet
        self.newest: Any = None  # the supervisor that served last, which may be dead
        self.busy_until = 0.0  # until then something may be under way that no client waits for
        self.tracks: dict[int, Track] = {}  # under way
        self.ended: dict[int, Track] = {}  # over, but a copy may still arrive
        self.closing: list[Track] = []  # of both, those whose target is to end its connection with the answer
        self.clients: list[Client] = []
        self.numbers = 0
        self.turns = 0  # how often a target has become ready, unready, or was taken out as it is replaced
        self.events_before = 0  # id of the newest event before the last order
        self.ejections = 0
        self.turned_within_the_order = False  # …while the last order was carried out
        self.ejected_within_the_order = False  # …as well: its dry run could not foresee it, its gate can
        self.traffic_moved = False  # …by lb itself, before the last order was refused
        self.orders = 0  # under way: what they change may be in force already
        self.waiting: list[Track] = []  # requests that ended while an order was under way
        self.late: list[tuple[Track, Arrival]] = []  # requests that had ended before, and arrived meanwhile
        #: Notes that the file of a reload is in force, given the services until then. Probes of its targets count from
        #: that moment, while the order may go on waiting for workers.
        self.on_reload: Callable[[dict[str, reference.Service]], None] | None = None
        self.former: dict[str, reference.Service] = {}  # before the reload under way; a worker may serve by them yet
        self.violations: list[Violation] = []
        self.troubles: list[str] = []  # what the loop's exception handler was told
        self.expected_troubles = 0
        self._services: dict[str, reference.Service] = {}
        self._former_services: dict[str, reference.Service] = {}
        self._recent: list[tuple[float, dict[str, reference.Service]]] = []
        self.workers_hurt = -1.0  # when a worker was killed last
        self.themes: set[str] = set()
        self.features: list[str] = []  # that the run's services may have
        self.pace: dict[Any, float] = {}  # step → how many times its usual weight it has in this run
        self.worker_count = 1
        self.orphans = False
        self.sleepers: list[tuple[float, Client]] = []  # clients that never read, since when
        #: Address → when it came into rotation; None: not known.
        self.entered: dict[str, float | None] = {}
        self.in_rotation: dict[str, bool | None] = {}  # address → whether it is; None: not known
        self.windows: dict[str, list[tuple[float, float]]] = {}  # service → (since, seconds of its slow start)
        self.relieved: set[str] = set()  # addresses that may have less than their weight, as they are overloaded
        self.started_at = 0.0  # when the supervisor started
        self.is_quiet = False  # nothing has been under way for long
        self.counted_exactly = True
        #: Address → arrivals that may have been clients' requests, since its last ejection or doubt about connections.
        self.tries: Counter[str] = Counter()
        self.unreachable: set[str] = set()  # addresses whose connections may have failed since the last ejection
        self.counted: dict[str, int] = {}  # service → requests that are over and that a living lb has counted
        self.cookies: dict[str, str] = {}  # address → the value of lb's cookie for it
        self.perhaps: dict[str, int] = {}  # …and those without an answer, that it may have counted
        loop.set_exception_handler(self._on_trouble)

    # --- the machinery ----------------------------------------------------------------------------------------------

    def _on_trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = f"{context.get('message')}: {type(error).__name__}: {error}"
        if "was destroyed but it is pending" in text:
            return
        self.troubles.append(text)

    @property
    def address(self) -> str:
        return self.plan.bind.removeprefix("unix:")

    @property
    def file(self) -> Path:
        return self.directory / "lb.yaml"

    def resolve(self, host: Any, port: Any, *args: Any, **more: Any) -> list[Any]:
        """In place of `socket.getaddrinfo`."""
        name = host.decode() if isinstance(host, bytes) else host
        addresses = self.names.get(name)
        if not addresses:
            if name and name[0].isdigit():
                addresses = [name]
            else:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0))) for address in addresses]

    async def settle(self) -> None:
        """Return when nothing more happens at this moment."""
        await asyncio.sleep(1e-6)

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- targets ----------------------------------------------------------------------------------------------------

    async def add_backend(self, number: int, tls: Any = None) -> Backend:
        backend = Backend(f"{self.prefix}.{number}", 8000, self.on_arrival)
        backend.tls = tls
        backend.on_fault = self.on_fault
        self.backends[backend.address] = backend
        await backend.start()
        return backend

    def backends_of(self, address: str) -> list[Backend]:
        """What is behind a target's address, or may be behind its name."""
        host, _, port = address.rpartition(":")
        found = [self.backends[f"{ip}:{port}"] for ip in self.names.get(host, [host])]
        if host in self.standing.known:
            found += [backend for backend in self.in_use(host) if backend not in found]
        return found

    def stand_for(self, host: str, backends: list[Backend]) -> None:
        """A name stands for these from now on."""
        self.names[host] = [backend.host for backend in backends]
        self.standing.stand_for(host, backends)
        for track in self.tracks.values():
            self._look(track, self.services())

    def in_use(self, host: str, since: float | None = None) -> list[Backend]:
        """What requests for a name may go to now, or may have gone to at any moment since then."""
        behind = any(worker.plane.behind for worker in self.workers)
        since = CLOCK.now if since is None else since
        if self.supervisor is None or len(self.processes.living("supervisor")) > 1:
            self.standing.restarted()
        found = self.standing.used_since(host, since - (BEHIND if behind else JUST_NOW))
        return sorted(found, key=lambda backend: backend.address)

    def answered(self, address: str) -> None:
        """A check of a target has passed."""
        name = self.standing.known.get(address.rpartition(":")[0])
        if name is not None:
            name.passed()
            self.in_use(address.rpartition(":")[0])

    def spelled(self, address: str) -> str:
        """A target's address, as the file has it, by an IP address."""
        return self.standing.spelled(address, self.backends.__getitem__)

    # --- the supervisor ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start lb; returns when it serves."""
        process = self.processes.new("supervisor")
        announced = asyncio.Event()
        process.body = announced
        process.begin(self._run_supervisor(process))
        ending = asyncio.ensure_future(process.wait())
        serving = asyncio.ensure_future(announced.wait())
        await asyncio.wait((ending, serving), return_when=asyncio.FIRST_COMPLETED, timeout=60.0)
        for task in (ending, serving):
            task.cancel()
        if self.supervising is not process:
            raise Violation("start", f"lb did not start: {self.processes.crashes}")
        self.services()  # a worker that cannot install its first snapshot of this supervisor serves by what was before
        self.replaced.clear()
        self.started_at = CLOCK.now
        self.on_change()
        await self.settle()

    async def _run_supervisor(self, process: Process) -> None:
        from lb.config.load import load
        from tests.model.watched import Watched

        supervisor = Watched(self, process, self.file, load(self.file), self.plan.extra.get("workers", 1))
        announced = process.body if isinstance(process.body, asyncio.Event) else None
        process.body = supervisor

        self.starting = supervisor

        def announce(started: Any) -> None:
            self.supervisor, self.supervising = supervisor, process
            self.newest = supervisor
            supervisor.begin_to_count()
            if announced is not None:
                announced.set()

        await supervisor.run(announce)

    async def within(self, coroutine: Coroutine[Any, Any, Any], timeout: float = 60.0) -> Any:
        """Carry something out as a part of the supervisor's process."""
        assert self.supervising is not None
        task = self.loop.create_task(coroutine, context=self.supervising.context.copy())
        done, _ = await asyncio.wait((task,), timeout=timeout)
        if not done:
            task.cancel()
            raise Violation("order", f"an order did not return within {timeout:g} s")
        error = task.exception()
        if error is not None and "Refused" not in [kind.__name__ for kind in type(error).__mro__]:
            raise Violation("no error", f"{type(error).__name__}: {error}")
        return task.result()

    @property
    def workers(self) -> list[Any]:
        """The living workers of the one lb."""
        return [process.body for process in self.processes.living("worker") if process.body is not None]

    def kill_supervisor(self) -> None:
        """kill -9."""
        if not self.processes.living("worker"):
            self.excuse("restart")  # the listening sockets, and who waits there, go with it
        process, supervisor = self.supervising, self.supervisor
        assert process is not None
        process.end(-9)
        with suppress(OSError):
            supervisor.store.unlock()
        for worker in supervisor.workers.processes:
            with suppress(OSError):
                if worker.crash_counters >= 0:
                    os.close(worker.crash_counters)
        self.supervisor = self.supervising = None

    # --- the reference ----------------------------------------------------------------------------------------------

    def services(self) -> dict[str, reference.Service]:
        if not self._services:
            self._services = {name: self._kept(name, self._service(plan)) for name, plan in self.plan.services.items()}
        return self._services

    def _kept(self, name: str, service: reference.Service) -> reference.Service:
        """The former one where nothing has changed: it remembers what was asked of it."""
        former = self._former_services.get(name)
        if former != service:
            former = self._former_services[name] = service
        return former

    def _service(self, plan: ServicePlan) -> reference.Service:
        settings = plan.settings
        panic = settings.get("panic") or ("fallback" if "fallback" in settings else "fail")
        mirror = settings.get("mirror")
        shares = self.shares(plan)
        sharing = sum(1 for parts in shares.values() if parts) > 1
        return reference.Service(
            pools={
                name: (
                    *(self._target(target, plan, False) for target in targets),
                    *(
                        self._target(target, plan, True)
                        for target in self.replaced.get((plan.name, name), ([], 0.0))[0]
                    ),
                )
                for name, targets in plan.pools.items()
            },
            shares=shares,
            previews=tuple(reference.Preview(**each) for each in settings.get("previews", ())),
            fallback=settings.get("fallback", ""),
            panic=panic,
            threshold=float(settings.get("panic_threshold", "0%").rstrip("%")) / 100,
            mirror=mirror["pool"] if mirror else "",
            asset_fallback=sharing and bool(plan.setting("sticky", "asset_fallback")),
            connections=plan.setting("breaker", "connections", default=1024),
            requests=ADAPTIVE if plan.setting("breaker", "adaptive") else plan.setting("breaker", "requests") or inf,
        )

    def _target(self, target: TargetPlan, plan: ServicePlan, replaced: bool) -> reference.Target:
        address = target.address
        known = self.knowledge[address]
        weight, configured = self.overrides.get(address, (target.weight, target.weight))
        if configured != target.weight:
            weight = target.weight
        drained = True if address in self.drained else known.asks_drain
        return reference.Target(
            address=address,
            weight=weight * known.share,
            ready=known.ready,
            ever=known.ever,
            out=bool(drained) or address in self.ejected,
            drained=drained,
            replaced=replaced,
            meant=weight > 0,
        )

    def forget_targets(self, there: set[str]) -> None:
        """Only these addresses are targets now: operators' orders for other ones, and what checks said, are gone."""
        for address in set(self.knowledge) - there:
            del self.knowledge[address]
            self.drained.discard(address)
            self.ejected.pop(address, None)
            self.overrides.pop(address, None)
            self.in_rotation.pop(address, None)
            self.entered.pop(address, None)

    def given_up(self, service: str, pool: str) -> None:
        """`lb` lets the replaced targets of a pool go: a new one has to be there instead."""
        if (service, pool) not in self.replaced:
            return
        targets = self.services()[service].pools[pool]
        _, since = self.replaced.pop((service, pool))
        fresh = [t for t in targets if not t.replaced and t.ready is not False and t.weight > 0]
        if not self.orders:  # the order under way may be its undrain
            fresh = [t for t in fresh if not t.out]
        told = f"the replaced targets of {service}/{pool} are given up after {CLOCK.now - since:.1f} s"
        if not fresh and CLOCK.now < since + 600.0:
            self.violate("3 handed over", f"{told}, and no new one can serve: {targets}")
        window = self.supervisor.state.config.services[service].slow_start.window  # a reload may just have edited it
        warm = []
        for target in fresh:
            at = self.entered.get(target.address) if target.ready else None  # None: it is not known when
            over = at is None or CLOCK.now > at + window - 0.1
            if over or self.warmth(service, target.address)[1] >= 1.0:  # by the window before an edit, too
                warm.append(target)
        if fresh and not warm and any(t.can_serve for t in targets if t.replaced):
            self.violate("3 handed over", f"{told}, and the new ones are in their slow start: {targets}")
        self.on_change()

    def shares(self, plan: ServicePlan) -> dict[str, int]:
        """Who shares the traffic: what was wished last, as it is on the disk."""
        supervisor = self.supervisor or self.newest  # workers without a supervisor go on by what the former one wished
        wished = supervisor.desired.current.services.get(plan.name) if supervisor is not None else None
        if wished is None:
            return {plan.active: 100}
        return {pool: parts for pool, parts in (wished.shares or ((wished.active, 100),)) if pool in plan.pools}

    def all_shares(self) -> dict[str, dict[str, int]]:
        """The shares of all services."""
        return {name: self.shares(plan) for name, plan in self.plan.services.items()}

    def on_probe(self) -> None:
        """A probe has been counted. Most change nothing, and the requests under way need no new look then."""
        made = {name: self._kept(name, self._service(plan)) for name, plan in self.plan.services.items()}
        known = all(made[name] is self._services.get(name) for name in made)
        if not known or any(worker.plane.behind for worker in self.workers):
            self.on_change()

    def on_change(self) -> None:
        """Something has changed that decides who may see what."""
        if self._services:
            self._recent.append((CLOCK.now, self._services))
        self._forget_former()
        self._services = {}
        for plan in self.plan.services.values():
            self._note_entries(plan)
        fading = [track for track in self.ended.values() if track.excuses & LATER and track.since > CLOCK.now - HANGS]
        for track in [*self.tracks.values(), *self.waiting, *fading]:
            self._look(track, self.services())

    def _note_entries(self, plan: ServicePlan) -> None:
        """Note who comes into rotation, and how long slow starts take from now on."""
        window = plan.seconds("slow_start", "window")
        windows = self.windows.setdefault(plan.name, [])
        if not windows or windows[-1][1] != window:
            windows.append((CLOCK.now, window))
        for targets in self.services()[plan.name].pools.values():
            for target in targets:
                before = self.in_rotation.get(target.address, False)
                known = self.knowledge[target.address]
                is_in = None if known.asks_drain or target.ready is None else bool(target.ready) and not target.out
                if is_in and before is not True:
                    self.entered[target.address] = CLOCK.now if before is False else None
                self.in_rotation[target.address] = is_in

    def warmth(self, service: str, address: str) -> tuple[float, float]:
        """The share of its weight that slow start leaves a target, at least and at most: it grows as a line from a
        tenth (Envoy's formula), in steps of a second or a twentieth of the window."""
        changes = self.windows[service]
        window = changes[-1][1]
        entered = self.entered.get(address)
        if not window:
            return 1.0, 1.0
        if entered is None:
            return 0.1, 1.0
        most = min(1.0, max(0.1, (CLOCK.now - entered) / window))
        spans = zip([at for at, _ in changes[1:]] + [CLOCK.now], changes, strict=True)
        if any(end > entered and end - entered >= seconds - 0.1 for end, (_, seconds) in spans):
            most = 1.0  # it was over at some time, and is not begun again
        passed = CLOCK.now - max(entered, self.started_at) - max(1.0, window / 20) - 0.1
        return min(1.0, max(0.1, passed / window)), most

    def _look(self, track: Track, services: dict[str, reference.Service]) -> None:
        service = services.get(track.service)
        if service is None:
            track.starved = track.untaken = True
            return
        track.connections = min(track.connections, service.connections)
        track.requests = min(track.requests, service.requests)
        allowed, certain = reference.may_see(service, track.request)
        first = len(allowed)
        for lagging in self._lagging(service):
            seen, sure = reference.may_see(lagging, track.request)
            allowed, certain = allowed | seen, certain and sure
        track.failed |= {
            target.address
            for targets in service.pools.values()
            for target in targets
            if any(self.may_have_failed(backend, track) for backend in self.backends_of(target.address))
            or (track.wish.websocket and not self.takes_websockets(target.address))
        }
        if track.wish.websocket:
            views = (service, *self._lagging(service))
            track.untaken |= not all(reference.taken(view, track.request, track.failed) for view in views)
        last, rescued = reference.resort(service, track.request, track.failed)
        allowed |= last
        well = not any(target.address in track.failed for target in service.pools.get(service.fallback, ()))
        track.rescued = track.rescued and rescued and well and first == 1
        if service.asset_fallback:
            for pool, parts in service.shares.items():
                if parts:
                    allowed |= service.offered(pool)
        track.allowed |= allowed
        self.asked |= allowed
        track.copied_to |= service.copied_to()
        if not certain:
            track.starved = True
        pools = [name for name, targets in service.pools.items() if any(t.address in allowed for t in targets)]
        track.pools |= frozenset(pools)
        for address in allowed:
            if not all(backend.is_well for backend in self.backends_of(address)):
                track.excuses.add("backend")

    def takes_websockets(self, address: str) -> bool:
        """Whether all that may be behind a target's address takes WebSockets."""
        return address not in self.http2 or all(backend.websockets for backend in self.backends_of(address))

    def _lagging(self, service: reference.Service) -> list[reference.Service]:
        """A service as workers have it that are behind, and are yet to be replaced."""
        behind = [worker.plane for worker in self.workers if worker.plane.behind and not worker.plane.front.draining]
        return [service.known_to(frozenset(map(address_of, plane.live.lanes))) for plane in behind]

    def may_have_failed(self, backend: Backend, track: Track) -> bool:
        """Whether a target may have failed a request that is under way, or be left out since it failed another."""
        refused = track.wish.do.get("first") == "503" and backend in [each.backend for each in track.arrivals]
        if self._closings(backend, track.since) > LEFT_OUT_TIMES:
            return True
        unwilling = backend.refused_at > track.since - JUST_NOW
        return refused or unwilling or not backend.is_well or backend.hurt > track.since - LEFT_OUT

    def _closings(self, backend: Backend, since: float) -> int:
        """How many of its connections a target has ended with an answer, and perhaps left requests out by that."""
        return sum(each.backend is backend and each.at >= since for track in self.closing for each in track.arrivals)

    def hurt(self, backend: Backend) -> None:
        """What is under way at a target may fail by what becomes of it now."""
        backend.hurt = CLOCK.now
        self.excuse("backend")
        for track in self.tracks.values():
            self._look(track, self.services())

    def unwilling(self, backend: Backend) -> None:
        """A target refuses streams: a request may go to another one, and is served all the same."""
        backend.refused_at = CLOCK.now
        for track in self.tracks.values():
            self._look(track, self.services())

    def allowed_now(self, number: int) -> frozenset[str] | None:
        """The addresses that may see a request that is under way, from now on; None: not known."""
        track = self.tracks.get(number)
        known = [self.former or self.services(), self.services(), *(known for _, known in self._recent)]
        if track is None or any(track.service not in each or each[track.service].asset_fallback for each in known):
            return None
        if track.wish.do.get("first") == "404":
            return None  # its first answer may have sent it to the other pool of a rollout that has ended since
        services, request = [each[track.service] for each in known], track.request
        first = frozenset().union(*(reference.may_see(service, request)[0] for service in services))
        return first.union(*(reference.resort(service, request, track.failed)[0] for service in services))

    def barrier(self) -> None:
        """What was before counts no more, unless a worker is behind."""
        if any(worker.plane.behind for worker in self.workers):
            self._forget_former()
        else:
            self._recent.clear()
        self.former = {}

    def _forget_former(self) -> None:
        """Forget what was before, as far as no worker can serve by it."""
        kept = BEHIND if any(worker.plane.behind for worker in self.workers) else JUST_NOW
        self._recent = [(at, known) for at, known in self._recent if at >= CLOCK.now - kept]

    # --- requests ---------------------------------------------------------------------------------------------------

    def wish(self, service: str, **more: Any) -> Wish:
        self.numbers += 1
        return Wish(self.numbers, route=self.plan.services[service].route, **more)

    def track(self, service: str, wish: Wish) -> Track:
        """A request begins."""
        track = Track(wish, Request(wish.method, wish.host, wish.fields), service, CLOCK.now)
        for services in [*(known for _, known in self._recent), self.former or self.services(), self.services()]:
            self._look(track, services)
        if self.workers_hurt > CLOCK.now - JUST_NOW:
            track.excuses.add("worker")
        serving = [worker for worker in self.workers if worker.plane.applied and not worker.plane.front.draining]
        if len(serving) < self.worker_count:
            track.excuses.add("accept")  # it may come to a worker that is still to start
        self.tracks[wish.number] = track
        if "close" in wish.do:
            self.closing.append(track)
        busy = [*self.tracks.values(), *(each for each in self.ended.values() if each.keeps_a_target_busy)]
        crowd = Counter(each.pools for each in busy if each.service == service)
        for each in self.tracks.values():
            if each.service == service:
                each.crowd = max(each.crowd, crowd.total())
                each.rivals = max(each.rivals, sum(crowd[pools] for pools in crowd if pools & each.pools))
        return track

    async def ask(self, service: str, wish: Wish, client: Client | None = None) -> Track:
        """Send a request; what comes of it is held against the reference when it is over."""
        if client is None:
            try:
                client = await self.client(http2="http2" in self.themes and self.rng.random() < 0.6)
            except OSError:
                return Track(wish, Request(), service, CLOCK.now)  # nobody is there to serve
        track = self.track(service, wish)
        track.ahead = client.busy
        future = client.send(wish)
        future.add_done_callback(lambda done: self.over(track, done.result()))
        return track

    async def client(self, fresh: bool = False, http2: bool = False) -> Client:
        """A connection that may begin a request; a new one where there is none, or with `fresh`.

        Raises OSError when neither a supervisor nor a worker that serves is there.
        """
        self.clients = [client for client in self.clients if client.open]
        kind = Http2Client if http2 else Client
        idle = [client for client in self.clients if client.has_room and type(client) is kind]
        if idle and not fresh:
            return idle[self.rng.randrange(len(idle))]
        try:
            client = await kind.connect(self.address)
        except OSError as error:
            serving = [worker for worker in self.workers if worker.plane.applied and not worker.plane.front.draining]
            if self.supervisor is None and not serving:
                raise
            raise Violation("reachable", f"a client cannot connect: {error}") from None
        if isinstance(client, Http2Client):
            client.on_fault = self.on_fault
        self.clients.append(client)
        return client

    def on_fault(self, text: str) -> None:
        """A peer of HTTP/2 has seen what no peer should."""
        self.violate("6 rules of HTTP/2", text)

    def excuse(self, reason: str) -> None:
        """Everything that is under way may suffer from this."""
        for track in self.tracks.values():
            track.excuses.add(reason)

    def on_arrival(self, arrival: Arrival) -> None:
        track = self.tracks.get(arrival.number) or self.ended.get(arrival.number)
        if track is None:
            self.violate("arrival", f"request {arrival.number} arrived at {arrival.backend} long after its end")
            return
        if arrival.stranger:
            self.violate(
                "1 a login is its client's", f"{track.wish} rode a connection that another client logged in on"
            )
        self._judge_copy(track, arrival)
        arrival.earlier = len(track.arrivals)
        track.arrivals.append(arrival)
        if track.wish.do.get("first") == "503" and track.answer is None:
            self._look(track, self.services())  # it is failed by this target, and may go on
        if "close" in track.wish.do and "http2" in self.themes:
            for each in self.tracks.values():
                self._look(each, self.services())
        host = self.standing.of(arrival.backend)
        if host and arrival.backend not in self.in_use(host):
            self.violate("1 ready and allowed", f"{track.wish} was seen by {arrival.backend}, which {host} has left")
        if arrival.backend.address in self._places(track.allowed, CLOCK.now):
            self.tries[arrival.backend.address] += 1
        if track.answer is not None and track not in self.waiting:
            if self.orders:
                self.late.append((track, arrival))
            else:
                self._judge_late(track, arrival)

    def over(self, track: Track, answer: Answer) -> None:
        track.answer = answer
        track.witnesses = self._witnesses()
        if answer.cookie and answer.backend:
            address = self.spelled(answer.backend)
            former = self.cookies.setdefault(address, answer.cookie)
            if former != answer.cookie:
                self.violate("9 affinity", f"the cookie of {address} was {former}, and is {answer.cookie} now")
        self.tracks.pop(track.wish.number, None)
        self.ended[track.wish.number] = track
        if "client" in track.excuses or track.copied_to or track.excuses & {"worker", "restart"}:
            self.busy_until = CLOCK.now + 6.0
        counts = self.counted if answer.status and "client" not in track.excuses else self.perhaps
        counts[track.service] = counts.get(track.service, 0) + 1
        if self.orders:
            self.waiting.append(track)
        else:
            self._judge(track)

    def _witnesses(self) -> frozenset[int]:
        """The processes that may know of a request that is over."""
        return frozenset(p.pid for p in (*self.processes.living("worker"), *self.processes.living("supervisor")))

    def remembered(self) -> list[Track]:
        """The last requests with an answer, of which lb has to know, as all its processes have lived on."""
        if any(worker.plane.front.draining or worker.plane.behind for worker in self.workers):
            return []  # one that leaves may be asked no more
        living = self._witnesses()
        # A worker may have died between its answer and the moment in which the run read it.
        lost = {"client", "worker", "restart"}
        known = [track for track in self.ended.values() if track.witnesses <= living and not track.excuses & lost]
        return [track for track in known if track.answer is not None and track.answer.request_id][-3:]

    def order_over(self) -> None:
        """The last order has returned: what had to wait for that is judged."""
        waiting, self.waiting = self.waiting, []
        for track in waiting:
            self._judge(track)
        late, self.late = self.late, []
        for track, arrival in late:
            self._judge_late(track, arrival)

    def violate(self, invariant: str, text: str) -> None:
        self.violations.append(Violation(invariant, text))

    def _places(self, addresses: frozenset[str], since: float = -inf) -> frozenset[str]:
        """IP addresses that have been behind targets' addresses since then."""
        found: set[Backend] = set()
        for address in addresses:
            host = address.rpartition(":")[0]
            found.update(self.in_use(host, since) if host in self.standing.known else self.backends_of(address))
        return frozenset(backend.address for backend in found)

    def _judge_copy(self, track: Track, arrival: Arrival) -> None:
        """A request that a target has answered well is tried no more; what arrives then is a copy, and its pool had
        none of the request before. The copy itself may be tried again."""
        answered = next((i for i, each in enumerate(track.arrivals) if each.answered and not each.fails), None)
        elsewhere = track.wish.do.get("first") == "404"  # an asset may be asked for in another pool
        if answered is None or elsewhere or track.wish.do.get("status") or track.excuses & BROKEN_OFF:
            return
        for plan in self.plan.services.values():
            for pool, targets in plan.pools.items():
                places = self._places(frozenset(target.address for target in targets))
                seen = [each.backend for each in track.arrivals[: answered + 1] if each.backend.address in places]
                if seen and arrival.backend.address in places:
                    told = f"{track.wish} (#{track.wish.number})"
                    self.violate("2 a copy is for another pool", f"{told}: {pool} got a copy after {seen}")

    def ejects(self, address: str, reason: str) -> None:
        """A target is ejected for its traffic: it takes as many clients' requests as the file says."""
        self.ejections += 1
        plan = next((s for s in self.plan.services.values() if s.pool_of(address)), None)
        places = self._places(frozenset((address,)))
        tries = sum(self.tries[place] for place in places)
        if plan is not None and "requests" in reason and not places & self.unreachable:
            least = min(int(plan.setting("outlier", "consecutive_failures", default=5)), 5)
            if tries < least:
                self.violate("2 a copy is no request", f"{address} is ejected after {tries} tries: {reason}")
        if plan is not None and not self._has_another(plan, address):
            self.violate("3 never the last one", f"{address} is ejected, and no other target of its pool can serve")
        for place in places:
            self.tries[place] = self._under_way_at(place)  # they may fail once it is back
            self.unreachable.discard(place)

    def _under_way_at(self, address: str) -> int:
        """Requests that a target has not answered yet."""
        arrivals = (each for track in (*self.tracks.values(), *self.ended.values()) for each in track.arrivals)
        return sum(1 for each in arrivals if each.backend.address == address and not each.over)

    def _has_another(self, plan: ServicePlan, address: str) -> bool:
        """Whether another target of the pool may serve."""
        targets = self.services()[plan.name].pools[plan.pool_of(address)]
        return any(t.ready is not False and t.weight > 0 and not t.out for t in targets if t.address != address)

    def stepped(self, service: str, before: dict[str, int]) -> None:
        """`lb` has moved traffic by itself: nobody gets more of it who cannot serve."""
        for pool, parts in self.shares(self.plan.services[service]).items():
            targets = self.services()[service].pools[pool]
            able = [t for t in targets if t.ready is not False and t.weight > 0 and t.drained is not True]
            if parts > before.get(pool, 0) > 0 and not able:
                self.violate("5 steps", f"{pool} of {service} gets {parts} %, and no target of it can serve: {targets}")

    def _judge_late(self, track: Track, arrival: Arrival) -> None:
        excused = track.excuses & {"client", "worker", "restart"}
        if excused and arrival.backend.address in self._places(track.allowed, track.since):
            copies = self._places(track.copied_to)
            originals = [each for each in track.arrivals if each.backend.address not in copies]
            if len(originals) > 1 and not track.request.idempotent:
                self.violate("2 at most one", f"{track.wish} was seen again after its client was gone")
        elif arrival.backend.address not in self._places(track.copied_to):
            self.violate("2 at most one", f"{track.wish} arrived at {arrival.backend} after its answer")

    def _judge(self, track: Track) -> None:
        """Hold what became of a request against what the reference says."""
        answer, wish = track.answer, track.wish
        assert answer is not None
        allowed, copies = self._places(track.allowed, track.since), self._places(track.copied_to, track.since)
        told = f"{wish} (#{wish.number})"
        originals = [arrival for arrival in track.arrivals if arrival.backend.address in allowed]
        others = [arrival for arrival in track.arrivals if arrival.backend.address not in allowed]
        for arrival in others:
            if arrival.backend.address not in copies:
                self.violate("1 ready and allowed", f"{told} was seen by {arrival.backend}, allowed: {sorted(allowed)}")
        # A copy that broke off is tried again by the rules of any request: it may have met a connection's end.
        whole = [each for each in others[:-1] if each.answered or not each.fails]
        if len(others) > 1 and (whole or not track.request.idempotent):
            self.violate("2 one copy", f"{told} was copied {len(others)} times")
        if not track.request.idempotent and len(originals) > 1 and not (allowed & copies and allowed - copies):
            self.violate("2 at most one", f"{told} was seen {len(originals)} times: {originals}")
        if originals and "backend" not in track.excuses:
            self._judge_wait(track, originals[0].at - track.since, told)
        if answer.status == 503 and answer.ours:
            self._judge_503(track, answer, told)
        elif answer.ours and NO_WEBSOCKET in answer.text:
            if not track.untaken:
                self.violate(f"3 served ({answer.status})", f"{told} got {answer.text!r}, while a target takes it")
        elif answer.ours and answer.status >= 500 and not track.excuses & {"backend", "worker"}:
            self.violate(
                f"3 served ({answer.status})",
                f"{told} got {answer.status} of ours: {answer.text!r}, all targets are well",
            )
        elif answer.ours and answer.status == 502 and self._could_be_rescued(track):
            self.violate("3 served (502)", f"{told} got 502: {answer.text!r}, while the fallback could serve it")
        elif answer.ours and answer.status >= 400 and answer.status < 500:
            self.violate(f"3 served ({answer.status})", f"{told} got {answer.status}: {answer.text!r}")
        elif track.ahead and not answer.begun and self.themes & {"kill", "restart"}:
            pass  # a worker that leaves answers no request sent behind another one
        elif not answer.status and not track.excuses & {"worker", "restart", "backend", "client"}:
            self.violate("3 served (cut)", f"{told}: the connection ended without an answer (begun: {answer.begun})")
        if answer.backend and answer.backend not in {arrival.backend.address for arrival in originals}:
            self.violate("1 ready and allowed", f"{told} was answered by {answer.backend}")

    def _could_be_rescued(self, track: Track) -> bool:
        """Whether a request that its one target failed had to be tried again at the fallback."""
        plan = self.plan.services.get(track.service)
        if plan is None or not track.rescued or not track.request.idempotent or track.ahead:
            return False
        # One try more than the failed one may have gone into a connection that was stale.
        attempts = plan.setting("retries", "attempts", default=2)
        failing = sum("backend" in each.excuses for each in [*self.tracks.values(), *self.ended.values()])
        behind = any(worker.plane.behind for worker in self.workers)
        return attempts >= 2 and failing < BUDGET and not behind and not track.excuses & LATER

    def _judge_503(self, track: Track, answer: Answer, told: str) -> None:
        text = answer.text
        if self._outlasted_a_drain(track, answer):
            return
        if track.wish.method == "HEAD" and (
            track.starved or max(track.rivals, track.crowd) > min(track.connections, track.requests)
        ):
            return  # it does not say why
        if "no target is ready" in text or "drained" in text or "stopped" in text:
            if not track.starved and "restart" not in track.excuses:
                self.violate("3 served (503)", f"{told} got 503: {text!r}, while {sorted(track.allowed)} could serve")
        elif "in flight" in text:
            if track.crowd <= track.requests and "load" not in track.excuses:
                self.violate("3 served (503)", f"{told} got 503: {text!r} with {track.crowd} requests under way")
        elif "room in time" in text or "wait for a target" in text:
            if track.rivals <= track.connections and "load" not in track.excuses and not track.starved:
                self.violate("3 served (503)", f"{told} got 503: {text!r} with {track.rivals} requests under way")
            end = track.since + answer.seconds  # what is judged after an order ended before it, perhaps
            tried = [arrival.over or end for arrival in track.arrivals]
            self._judge_wait(track, end - max(tried) - PAUSES if tried else answer.seconds, told)
        elif not track.starved:
            self.violate("3 served (503)", f"{told} got 503: {text!r}")

    def _outlasted_a_drain(self, track: Track, answer: Answer) -> bool:
        """Whether a request that its targets failed, and that was tried again, was cut at the end of a drain."""
        plan, text = self.plan.services.get(track.service), answer.text
        if plan is None or "backend" not in track.excuses:
            return False
        worker = "stopped" in text or track.wish.method == "HEAD"  # the answer to a HEAD does not say why
        late = FIRST_REQUEST if worker else 0.0
        return (worker or "drained" in text) and answer.seconds > plan.seconds("timeouts", "drain") - late - self.slack

    def _judge_wait(self, track: Track, seconds: float, told: str) -> None:
        """A request waits for a target with room as long as the file says; after each try anew."""
        plan = self.plan.services.get(track.service)
        limit = plan.seconds("timeouts", "queue", default=1.0) if plan else HANGS
        excused = track.ahead or track.excuses & {"worker", "accept", "restart", "slow", "client"}
        if seconds > limit + self.slack and not excused:
            self.violate("3 in time", f"{told} waited {seconds:.1f} s in the queue")

    def check(self) -> None:
        """Raise what was found so far."""
        from tests.model import invariants

        for track in list(self.tracks.values()):
            if CLOCK.now - track.since > HANGS and "client" not in track.excuses:
                self.violate("3 in time", f"{track.wish} (#{track.wish.number}) has no answer after {HANGS:g} s")
        if self.troubles and self.expected_troubles < len(self.troubles):
            self.violate("no error", self.troubles[-1])
        if self.processes.crashes:
            self.violate("no error", self.processes.crashes[-1])
        if self.violations:
            raise self.violations[0]
        self.found.check()
        if self.violations:
            raise self.violations[0]
        invariants.memory(self)
        invariants.queues(self)
        for number in [number for number, track in self.ended.items() if track.since < CLOCK.now - HANGS]:
            del self.ended[number]
        self.closing = [track for track in self.closing if track.wish.number in self.tracks | self.ended]
