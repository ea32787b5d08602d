"""The world of an end-to-end run: as `tests.model.world.World`, but `lb` is processes, and time is real.

What lb knows can only be seen from outside, a while after it became so. So the reference is fed with intervals:

- A target is ready for sure when its checks have passed without a break for longer than lb takes to find out, and not
  ready for sure when they have failed for longer than that. In between both is allowed (`Target.ready` is None).
- While an order is carried out, the state before it and the state after it are both possible; once it has returned,
  only one of them.
- While a rollout is under way, all splits of its two pools are possible.
- The replaced targets of a pool serve for sure until a new one may (`e2e/handovers.py`).
- A target that has failed requests may be ejected until its longest ejection is over.

A request is judged by all that was possible between its start and its end.
"""

from __future__ import annotations

import asyncio
import copy
import random
import select
import shutil
import weakref
from dataclasses import dataclass, field, replace
from typing import Any

from tests.model import driver, reference
from tests.model.clock import CLOCK
from tests.model.e2e import handovers
from tests.model.e2e.handovers import Handovers
from tests.model.e2e.processes import Program, Said, ask
from tests.model.h2_client import Http2Client
from tests.model.peers import WELL, Answer, Backend, Client, Wish, asks
from tests.model.plan import Plan, ServicePlan, TargetPlan
from tests.model.world import LEFT_OUT, Track, Violation, World

#: Seconds that anything may take longer than its settings say, on a busy machine.
MARGIN = 0.7
#: Seconds after trouble during which a target may be ejected by it, or come back from that.
EJECTED = 6.0
#: Seconds that the end of a connection may take to be seen.
SEEN = 0.4
#: Seconds that the driver may be late before it believes nothing that depended on its answers.
LATE = 0.15
BEAT = 0.02
#: Seconds within which another address of a name is known, and the former one has no request any more.
LOOKED_UP = 12.0

Shares = dict[str, int]


@dataclass
class Seen:
    """What one target's backend has done, as lb could see it."""

    passing: bool
    since: float  # when `passing` became so
    ever: bool  # its checks have passed at any time
    words: str = ""
    words_since: float = 0.0
    last_words: str = ""  # those before
    troubled: float = -1e9  # when it last failed requests, or could have
    hurt: float = -1e9  # when its connections broke last
    unsure: bool = False  # a name has moved, and its new address has passed, then failed: lb may use either


def _is_closed(client: Client) -> bool:
    """Whether the end of an idle connection waits in the kernel: a client that stood still looks before it sends."""
    poll = select.poll()
    poll.register(client.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


@dataclass
class Wished:
    """What the file and the operators want."""

    plan: Plan
    shares: dict[str, list[Shares]]  # service → every split that is possible
    drained: set[str] = field(default_factory=set)
    overrides: dict[str, tuple[int, int]] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)  # address → since when lb probes it
    handovers: Handovers = field(default_factory=Handovers)

    def copy(self) -> Wished:
        return copy.deepcopy(self)


class RealBackend(Backend):
    """A backend that remembers that its connections broke."""

    def stop(self) -> None:
        self.hurt = CLOCK.now
        super().stop()

    def close_idle(self) -> None:
        self.hurt = CLOCK.now
        super().close_idle()


class RealWorld(World):
    """Everything of one run."""

    slack = 1.5

    def __init__(self, rng: random.Random, loop: asyncio.AbstractEventLoop, prefix: str) -> None:
        super().__init__(rng, loop, prefix)  # type: ignore[arg-type]
        loop.set_task_factory(None)
        self.plan.bind = f"{prefix}.251:8080"
        self.program = Program(self.file, (f"{prefix}.250", 9900))
        self.wished = Wished(self.plan, {})
        self.planned: Wished | None = None  # while an order is carried out: what may be in its place already
        self.seen: dict[str, Seen] = {}
        self.front: Any = None  # the listener with certificates
        self.away = False  # nobody listens, or nobody may
        self.certain_from = 0.0  # until then no target is ready for sure
        self.disturbed = -1e9  # when processes ended last
        self.frozen_from = 1e18  # when the supervisor died last: what it has decided stays so until…
        self.frozen_until = 1e18  # …the next one serves
        self.lateness = 0.0
        self.judged = 0  # requests
        self.certain = 0  # requests that had to be served well
        self.named = -1e9  # when a name was given another address
        self.moved = -1e9  # when anything happened last that may end a tunnel
        self.private: weakref.WeakSet[Client] = weakref.WeakSet()  # connections that only one step uses
        self.staying: set[asyncio.Task[None]] = set()  # clients in tunnels
        self.told: list[str] = []  # what happened, with its time

        self.leaving: list[tuple[float, str]] = []  # until when an address may still be what a name stands for
        self.hosts = self.directory / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.can_name = driver.own_hosts(str(self.hosts))
        self._view: tuple[Wished, int] = (self.wished, 0)
        self._beating: list[asyncio.Task[None]] = []
        self._woken = 1e18  # when the driver last looked; far ahead until it does

    # --- the machinery ----------------------------------------------------------------------------------------------

    @property
    def address(self) -> Any:
        host, _, port = self.plan.bind.rpartition(":")
        return (host, int(port))

    def note(self, text: str) -> None:
        self.told.append(f"{CLOCK.now:10.3f} {text}")

    async def settle(self) -> None:
        await asyncio.sleep(0.01)

    async def add_backend(self, number: int, tls: Any = None) -> Backend:
        backend = RealBackend(f"{self.prefix}.{number}", 8000, self.on_arrival)
        backend.tls = tls
        self.backends[backend.address] = backend
        await backend.start()
        return backend

    async def start(self) -> None:
        """Start lb; returns when it serves."""
        try:
            await self.program.start()
        except RuntimeError as error:
            raise Violation("start", str(error)) from None
        self.away = False

    async def start_anew(self) -> None:
        """Start lb where it has ended. It serves no replaced targets: they are in no file."""
        planned = self.planned = self.wished.copy()
        planned.handovers = Handovers()
        self.on_change()
        await self.start()
        self.become(planned)
        self.planned = None
        self.on_change()

    def begin(self) -> None:
        """Look at everything all the time."""
        self._beating = [asyncio.ensure_future(self._beat()), asyncio.ensure_future(self._follow())]

    async def _beat(self) -> None:
        while True:
            self._woken = CLOCK.now
            await asyncio.sleep(BEAT)
            self.on_change()

    def _notice_lateness(self) -> None:
        """Doubt what is known where the driver stood still, before what came meanwhile is judged."""
        late = CLOCK.now - self._woken - BEAT
        if late > LATE:
            self._woken = CLOCK.now
            self.lateness = max(self.lateness, late)
            self.doubt(f"the driver was {late:.2f} s late", late)
            self.excuse("load")

    def calm(self) -> bool:
        """Whether everything has been known for sure for a while."""
        possible = self.possible()
        return len(possible) == 1 and all(
            target.ready is not None
            for service in possible[0].values()
            for pool in service.pools.values()
            for target in pool
        )

    def doubt(self, why: str, late: float = 0.0) -> None:
        """Nothing is ready for sure until the checks have decided anew. Where the machine has kept the driver waiting,
        it may do the same to lb for as long."""
        self.note(f"doubt: {why}")
        self.moved = CLOCK.now
        self.certain_from = max(self.certain_from, CLOCK.now + late)
        for wished in filter(None, (self.wished, self.planned)):
            wished.handovers.doubt()
        self.on_change()

    async def _follow(self) -> None:
        """Ask how rollouts end."""
        while True:
            await asyncio.sleep(0.2)
            for name, options in list(self.wished.shares.items()):
                handed_over = any(place[0] == name for place in self.wished.handovers.under_way)
                if (len(options) > 1 or handed_over) and not self.away and self.planned is None:
                    await self.resolve(name)

    async def resolve(self, name: str) -> None:
        """Which splits are possible, and which targets are replaced, as far as lb says it."""
        self.on_change()
        wished, due = self.wished, handovers.due(self, name)
        said = await self.admin("GET", f"/api/v1/services/{name}", within=5.0)
        if not said.ok or self.wished is not wished or self.planned is not None or name not in wished.shares:
            return
        rollout = said.body["rollout"]
        if rollout is not None and rollout["phase"] in ("stepping", "baking", "frozen"):
            old, new = rollout["from"], rollout["to"]
            wished.shares[name] = [{old: 100}, {old: 50, new: 50}, {new: 100}]
        else:
            wished.shares[name] = [{said.body["active"]: 100}]
        self.on_change()
        handovers.hear(self, said.body, due)
        self.on_change()

    async def stop_beating(self) -> None:
        self._woken = 1e18
        for task in (*self._beating, *self.staying):
            task.cancel()
        await asyncio.gather(*self._beating, *self.staying, return_exceptions=True)

    async def admin(self, method: str, path: str, body: Any = None, within: float = 40.0) -> Said:
        return await ask(self.program.admin, method, path, body, within)

    def close(self) -> None:
        self.program.end_all()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- orders -----------------------------------------------------------------------------------------------------

    async def order(self, method: str, path: str, body: Any, planned: Wished) -> Said:
        """Carry out an order. While it is under way, `planned` may be in force; afterwards it is, or is not."""
        if planned.plan == self.wished.plan:  # it may have been made a while ago
            planned.handovers = copy.deepcopy(self.wished.handovers)
        self.planned = planned
        self.moved = CLOCK.now
        self.on_change()
        said = await self.admin(method, path, body)
        if said.status == 504 or not said.status:
            self.planned = None
            self.violate("5 confirmed", f"{method} {path} {body}: {said.status} {said.detail}")
        elif said.ok:
            self.become(planned)
        self.planned = None
        self.on_change()
        for name in list(self.wished.shares):
            await self.resolve(name)
        return said

    def become(self, wished: Wished) -> None:
        """An order was carried out."""
        self.wished, self.plan = wished, wished.plan
        self.drained, self.overrides = wished.drained, wished.overrides
        self.on_change()

    def planned_file(self, plan: Plan) -> Wished:
        """What is wished once a plan is the file."""
        wished = self.wished.copy()
        before, wished.plan = wished.plan, plan
        wished.handovers = handovers.begun(self, plan)
        addresses = {t.address: t for s in plan.services.values() for pool in s.pools.values() for t in pool}
        addresses |= wished.handovers.addresses()
        wished.drained &= set(addresses)
        wished.overrides = {
            address: override
            for address, override in wished.overrides.items()
            if address in addresses and override[1] == addresses[address].weight
        }
        wished.known = {address: wished.known.get(address, CLOCK.now) for address in addresses}
        for name, service in plan.services.items():
            pools = list(service.pools)
            if name not in before.services or not handovers.stays(before.services[name], service):
                wished.shares[name] = [{pool: 100} for pool in pools] + [dict.fromkeys(pools, 1)]
        wished.shares = {name: options for name, options in wished.shares.items() if name in plan.services}
        return wished

    # --- the reference ----------------------------------------------------------------------------------------------

    def possible(self) -> list[dict[str, reference.Service]]:
        """All that may be so at this moment."""
        self._see()
        self._forget_names()
        found: list[dict[str, reference.Service]] = []
        for wished in filter(None, (self.wished, self.planned)):
            found += [services for services in self.possible_by(wished) if services not in found]
        return found

    def possible_by(self, wished: Wished) -> list[dict[str, reference.Service]]:
        """All that may be so at this moment, given what is wished."""
        found: list[dict[str, reference.Service]] = []
        wished.handovers.forget()
        options = max((len(each) for each in wished.shares.values()), default=1)
        if wished.handovers.under_way:
            wished.handovers.see(self._viewed(wished, 0, {}))
        for number in range(options):
            for replaced in wished.handovers.views():
                services = self._viewed(wished, number, replaced)
                if services not in found:
                    found.append(services)
        return found

    def _viewed(self, wished: Wished, number: int, replaced: handovers.Replaced) -> dict[str, reference.Service]:
        self._view, self.replaced = (wished, number), replaced
        return {name: self._service(plan) for name, plan in wished.plan.services.items()}

    def services(self) -> dict[str, reference.Service]:
        return self.possible()[0]

    def shares(self, plan: ServicePlan) -> Shares:
        wished, number = self._view
        options = wished.shares.get(plan.name) or [{plan.active: 100}]
        return options[min(number, len(options) - 1)]

    def _see(self) -> None:
        """Look at the backends."""
        now = CLOCK.now
        for address, backend in self.backends.items():
            passing = backend.up and backend.ready == "pass" and not backend.bad_paths
            seen = self.seen.get(address)
            if seen is None:
                seen = self.seen[address] = Seen(passing, now, passing, backend.words)
            if passing != seen.passing:
                seen.passing, seen.since = passing, now
                self.moved = now
                seen.ever = seen.ever or passing
            if backend.words != seen.words:
                self.moved = now
                seen.last_words, seen.words, seen.words_since = seen.words, backend.words, now
            if backend.mood not in WELL or not backend.up:
                seen.troubled = seen.hurt = self.moved = now
            seen.hurt = max(seen.hurt, backend.hurt)
            seen.troubled = max(seen.troubled, backend.hurt)
            self.moved = max(self.moved, backend.hurt)

    def name(self, host: str, address: str) -> None:
        """A name stands for another address; what it stood for may be asked for a while."""
        former = self.names.get(host, [])
        self.hosts.write_text(f"127.0.0.1 localhost\n{address} {host}\n")
        self.names[host] = [address, *former]
        self.leaving += [(CLOCK.now + LOOKED_UP, each) for each in former]
        self.moved = CLOCK.now + LOOKED_UP
        self.named = CLOCK.now

    def _forget_names(self) -> None:
        gone = {address for until, address in self.leaving if until < CLOCK.now and self._new_ones_pass()}
        if gone:
            self.leaving = [each for each in self.leaving if each[1] not in gone]
            self.names = {
                host: [each for number, each in enumerate(found) if number == 0 or each not in gone]
                for host, found in self.names.items()
            }

    def _new_ones_pass(self) -> bool:
        """Whether the newest addresses of all names have passed for long: until then the former ones may serve on."""
        newest = {found[0] for found in self.names.values()}
        seen = [self.seen[address] for address, backend in self.backends.items() if backend.host in newest]
        return all(each.passing and each.since < CLOCK.now - LOOKED_UP for each in seen)

    def _seen_at(self, address: str) -> Seen:
        """What was seen of a target; one that is a name passes when one of its addresses does."""
        every = [self.seen[backend.address] for backend in self.backends_of(address)]
        if len(every) == 1 and address.rpartition(":")[0] not in self.names:
            return every[0]
        since = max(*(each.since for each in every), self.named, *(until - 1.0 for until, _ in self.leaving))
        base = next((each for each in every if each.passing), every[0])  # whose checks fail asks for nothing
        found = replace(base, passing=any(each.passing for each in every), since=since)
        found.words_since = max(base.words_since, since)
        found.last_words = next((each.words for each in every if each.words != base.words), base.last_words)
        found.unsure = len(every) > 1 and every[0].ever and not every[0].passing
        found.ever = any(each.ever for each in every)
        found.troubled = max(each.troubled for each in every)
        return found

    def _target(self, target: TargetPlan, plan: ServicePlan, replaced: bool) -> reference.Target:
        wished, _ = self._view
        address = target.address
        now = CLOCK.now
        each = self._seen_at(address)
        if any((plan.scheme == "https") != (backend.tls is not None) for backend in self.backends_of(address)):
            each = Seen(False, -1e9, False)  # it speaks another protocol
        known = wished.known.get(address, now)
        up = plan.timeout + (plan.check["rise"] + 1) * plan.interval + MARGIN
        down = (plan.check["fall"] + 1) * max(plan.interval, plan.timeout) + MARGIN
        ready: bool | None = None
        ever: bool | None = None
        has_passed = each.ever and (each.passing or each.since > known)  # since lb has probed it
        if each.passing and self._unchanged(max(each.since, known, self.certain_from), up):
            ready = ever = True
        elif not each.passing and (not has_passed or self._unchanged(max(each.since, known), down)):
            ready = False
            ever = None if has_passed else False
        share, drains = asks(each.words)
        if not self._unchanged(each.words_since, up):
            before = asks(each.last_words)
            if before != (share, drains):
                ready = None if ready else ready
                share, drains = max(before[0], share), before[1] and drains
        if ready and plan.setting("outlier", "enabled", default=True) and now - each.troubled < EJECTED:
            ready = None
        if each.unsure:
            ready = None
        weight, configured = wished.overrides.get(address, (target.weight, target.weight))
        if configured != target.weight:
            weight = target.weight
        drained = address in wished.drained or drains
        return reference.Target(
            address,
            weight * share,
            ready,
            ever,
            out=drained,
            drained=drained,
            replaced=replaced,
            meant=weight > 0,
        )

    def _unchanged(self, since: float, needed: float) -> bool:
        """Whether what is so since then has become known to lb, which takes so many seconds of its life."""
        if since + needed > self.frozen_from:
            if CLOCK.now < self.frozen_until:
                return False
            since = max(since, self.frozen_until)
        return CLOCK.now - since > needed

    def on_change(self) -> None:
        self._notice_lateness()
        possible = self.possible()
        if [services for _, services in self._recent] == possible:
            return
        self._recent = [(CLOCK.now, services) for services in possible]
        fading = [track for track in self.ended.values() if track.excuses and track.since > CLOCK.now - 12.0]
        for track in [*self.tracks.values(), *fading]:
            for services in possible:
                self._look(track, services)

    def barrier(self) -> None:
        """There is nothing to forget: what is possible is worked out anew each time."""

    def _look(self, track: Track, services: dict[str, reference.Service]) -> None:
        super()._look(track, services)
        for address in track.allowed:
            for backend in self.backends_of(address):
                if CLOCK.now - self.seen[backend.address].hurt < SEEN:
                    track.excuses.add("backend")

    def may_have_failed(self, backend: Backend, track: Track) -> bool:
        last = max(backend.hurt, self.seen[backend.address].hurt)
        return super().may_have_failed(backend, track) or last > track.since - LEFT_OUT - SEEN

    # --- requests ---------------------------------------------------------------------------------------------------

    def track(self, service: str, wish: Wish) -> Track:
        self.on_change()
        track = super().track(service, wish)
        if CLOCK.now - self.workers_hurt < SEEN:
            track.excuses.add("worker")
        if self.away or CLOCK.now - self.disturbed < SEEN:
            track.excuses.add("restart")
        return track

    async def client(self, fresh: bool = False, http2: bool = False) -> Client:
        """A connection for one request, of HTTP/2 for several; a fresh one is the caller's own, whatever it does with
        it."""
        self.clients = [client for client in self.clients if client.open]
        kind = Http2Client if http2 else Client
        free = [client for client in self.clients if type(client) is kind and client not in self.private]
        idle = [client for client in free if (client.has_room if http2 else client.idle and not _is_closed(client))]
        if idle and not fresh:
            return self.rng.choice(idle)
        client = await kind.connect(self.address)
        if isinstance(client, Http2Client):
            client.on_fault = self.on_fault
        self.clients.append(client)
        if fresh:
            self.private.add(client)
        return client

    async def ask(self, service: str, wish: Wish, client: Client | None = None) -> Track:
        if client is None:
            try:
                client = await self.client(http2="http2" in self.themes and self.rng.random() < 0.5)
            except OSError as error:
                if self.away or CLOCK.now - self.disturbed < SEEN:
                    return Track(wish, reference.Request(), service, CLOCK.now)
                raise Violation("reachable", f"a client cannot connect: {error}") from None
        return await super().ask(service, wish, client)

    def over(self, track: Track, answer: Answer) -> None:
        self.on_change()
        for services in self.possible():
            self._look(track, services)  # a target may have failed it meanwhile
        before = len(self.violations)
        super().over(track, answer)
        self.judged += 1
        self.certain += not track.starved and not track.excuses - {"accept"}  # that is always so here
        if len(self.violations) > before:
            arrivals = [f"{arrival.at:.3f} {arrival.backend}" for arrival in track.arrivals]
            began, excuses = f"{track.since:.3f}", sorted(track.excuses)
            self.note(f"#{track.wish.number} began {began}, arrived {arrivals}, {excuses}, allowed {track.allowed}")

    def violate(self, invariant: str, text: str) -> None:
        super().violate(invariant, text)
        self.note(f"violation: {invariant}: {text}")

    def _judge(self, track: Track) -> None:
        if "load" in track.excuses:
            track.excuses.add("backend")  # targets live in the driver, and stood still with it
        super()._judge(track)

    def _judge_503(self, track: Track, answer: Answer, told: str) -> None:
        # What has ended for its client has not ended yet for lb, and a copy has no client.
        track.rivals += 3
        track.crowd += 3
        if "load" in track.excuses and track.wish.method == "HEAD":
            return  # it does not say why
        super()._judge_503(track, answer, told)
