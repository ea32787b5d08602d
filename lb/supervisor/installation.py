"""Installs configurations: makes one that is valid the one in force, here and in the workers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from socket import socket

from lb.config.found import FoundChange
from lb.config.model.config import Config
from lb.config.resolve import World
from lb.config.tls_values import tls_paths, with_tls
from lb.control.probe_history import ProbeHistory
from lb.core.certificates import digests_of
from lb.core.desired import Desired, under_configuration, under_names, under_routes
from lb.core.handover import Handover
from lb.core.lifecycle import Drain
from lb.core.refusals import Refused
from lb.core.renames import NONE, Place, Renames, split_id
from lb.core.step_files import step_digests
from lb.core.targets import Snapshot, Target
from lb.health.monitor import Monitor
from lb.net.resolver import is_name
from lb.supervisor import logs
from lb.supervisor.confirming import confirm
from lb.supervisor.desired import DesiredState
from lb.supervisor.discoveries import Discoveries, InForce
from lb.supervisor.drains import Drains
from lb.supervisor.ejections import Ejections
from lb.supervisor.events import Events
from lb.supervisor.handovers import Handovers
from lb.supervisor.health_counters import HealthCounters
from lb.supervisor.rollouts import Rollouts
from lb.supervisor.rotations import Rotations
from lb.supervisor.sockets import bound_name, remove_file
from lb.supervisor.state import State
from lb.supervisor.totals import Totals
from lb.supervisor.workers import Workers

#: Seconds between two looks at pools that are handed over.
LOOK_EVERY = 0.25
#: Seconds at most that a start or a reload waits for the names of targets that are not probed.
LOOK_UP_WITHIN = 2.0
#: Seconds within which checks that pass with new TLS settings make one message to the workers.
TOGETHER = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration, and the state that would be in force with it."""

    config: Config
    text: str
    file_world: World  # the results of the file alone


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of a file's world: see `State` for the meaning of the fields."""

    world: World
    found: InForce  # the found targets in it
    renames: Renames
    handovers: Mapping[Place, Handover]
    desired: Desired


class Installation:
    """The only writer of the configuration in force."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        rotations: Rotations,
        workers: Workers,
        monitor: Monitor,
        events: Events,
        totals: Totals,
        probe_history: ProbeHistory,
        counters: HealthCounters,
        ejections: Ejections,
        drains: Drains,
        rollouts: Rollouts,
        handovers: Handovers,
        discoveries: Discoveries,
        watch_file: Callable[[bool], None],
    ) -> None:
        self._state = state
        self._desired = desired
        self._rotations = rotations
        self._workers = workers
        self._monitor = monitor
        self._events = events
        self._totals = totals
        self._probe_history = probe_history
        self._counters = counters
        self._ejections = ejections
        self._drains = drains
        self._rollouts = rollouts
        self._handovers = handovers
        self._discoveries = discoveries
        self._watch_file = watch_file  # begins or ends the watch on the file
        self._tls_files: dict[str, bytes] = {}  # contents by digest, of the files that workers use
        self._tls_changed: asyncio.TimerHandle | None = None
        #: Targets, and their addresses as ids have them.
        self._known_addresses: tuple[Mapping[str, Target], set[str]] = ({}, set())

    # --- a configuration --------------------------------------------------------------------------------------------

    def plan(self, world: World) -> Plan:
        """The configuration that would be in force with a file's world."""
        return self._plan(world, self._desired.current, self._handovers.under_way)

    def _plan(
        self, file_world: World, current: Desired, under_way: Mapping[Place, Handover], begin: bool = True
    ) -> Plan:
        """`begin`: whether a pool whose targets are all replaced is handed over."""
        world, found = self._discoveries.world(file_world)
        actives, at = world.actives(), time.time()
        desired, names = under_configuration(current, world.snapshot.services, actives, at)
        whole, names, handovers = self._handovers.foresee(world, names, desired, under_way, begin)
        wanted = under_names(current, names, whole.snapshot.services, actives, at)
        wanted = under_routes(replace(wanted, layout=desired.layout), whole.snapshot.routes)
        return Plan(whole, found, names, handovers, wanted)

    async def begin(self) -> None:
        """Bring what is desired and the configuration of the start together."""
        state = self._state

        def change(current: Desired) -> tuple[Desired, Plan]:
            plan = self._plan(state.file_world, current, {})
            return plan.desired, plan

        self._put(Candidate(state.config, state.text, state.file_world), await self._desired.amend(change))

    async def install(
        self,
        candidate: Candidate,
        judge: Callable[[Plan], None],
        prepare: Callable[[], Mapping[str, list[socket]]],
        *,
        new_version: bool,
    ) -> None:
        """Put a new configuration in force and tell the workers; `confirm` waits for them.

        `judge` looks at what would be in force, before the new state is written and again after that. `prepare` returns
        the sockets of the binds that are new. It is called once, right before the configuration is in force. An
        exception of either is passed on, and then nothing has changed. `new_version`: the configuration differs from
        the one before, so that orders based on that no longer fit.
        """
        opened: dict[str, list[socket]] = {}

        def change(current: Desired) -> tuple[Desired, Plan]:
            plan = self._plan(candidate.file_world, current, self._handovers.under_way)
            judge(plan)
            return plan.desired, plan

        plan = await self._desired.amend(change, lambda: opened.update(prepare()), new_version=new_version)
        self._put(candidate, plan)
        wanted = {listener.bind for listener in candidate.file_world.snapshot.listeners}
        for bind in set(self._workers.sockets) - wanted:
            self._close_listener(bind)
        for bind, sockets in opened.items():
            self.open_listener(bind, sockets)
        self.watch_targets()
        self._tell_workers()
        await self.end_handovers()

    def _put(self, candidate: Candidate, plan: Plan) -> None:
        state, config, renames = self._state, candidate.config, plan.renames
        state.config, state.text, state.file_world = config, candidate.text, candidate.file_world
        state.tls_paths = tls_paths(candidate.file_world)
        state.world, state.renames = plan.world, renames
        state.targets = dict(plan.world.targets)
        self._discoveries.configure(config, plan.found)
        self._handovers.take(plan.handovers, renames)
        self._rollouts.rename(renames)
        self._drains.configure(state.targets, renames)
        self._ejections.configure(state.targets, candidate.file_world.rules, renames)
        self._probe_history.rename({new: formers[0] for new, formers in renames.targets.items()})
        self._probe_history.keep(state.targets)
        self._workers.hung_after = config.worker_limits.hang
        self._workers.memory = config.worker_limits.memory
        self._workers.drain = config.drain
        logs.level(config.log.level)
        self._watch_file(config.watch)

    def watch_targets(self) -> None:
        """Probe the targets as the configuration says."""
        state, world = self._state, self._state.world
        self._monitor.update(
            world.checks, state.targets, world.target_rules(), world.canary, state.renames, world.files
        )
        for id in state.targets:
            override = self._desired.current.targets.get(id)
            if override is not None and override.draining:
                self._monitor.feed(id, Drain())

    async def resolve_unprobed(self, world: World) -> None:
        """Look up the names of targets that are taken as ready without a probe, before they get requests."""
        hosts = [target.host for id, target in world.targets.items() if world.checks[id].readiness.protocol == "none"]
        await self._monitor.resolve(hosts, LOOK_UP_WITHIN)

    async def take_found(self) -> None:
        """Put the targets in force that sources name now, and tell the workers."""
        if not await self._take_change():
            await self._take_all_found()
        with contextlib.suppress(Refused):  # it was told, and the worker is replaced
            await self.confirm()

    async def _take_change(self) -> bool:
        """Put in force what differs, at a cost that hardly grows with what stays; False: that is not possible."""
        state = self._state

        def change(current: Desired) -> tuple[Desired, FoundChange | None]:
            found = self._discoveries.change(state.file_world, state.world)
            if found is None or not self._stands_alone(found, current):
                return current, None
            (service, pool), start = found.place, sum(map(len, found.place)) + 2
            addresses = tuple([id[start:] for id in found.ids])
            layout = {**current.layout, service: {**current.layout.get(service, {}), pool: addresses}}
            return replace(current, layout=layout), found

        found = await self._desired.amend_softly(change)
        if found is None:
            return False
        world = found.apply(state.world)
        state.world, state.targets, state.renames = world, world.targets, NONE
        self._known_addresses = state.targets, self._addresses_with(found)
        self._discoveries.took(found, world)
        self._handovers.take({}, NONE)
        changed = [each.target for each in found.changed]
        self._drains.drop(found.removed)
        self._ejections.change(found.place, changed, found.removed, world.rules[found.place[0]])
        self._probe_history.drop(found.removed)
        self._monitor.change(
            [(each.target, each.checks, world.rules_of(each.target.id)) for each in found.changed], found.removed
        )
        self._rotations.change(found.place, world.pool(*found.place).targets, changed, found.removed)
        self._workers.retry()
        self._counters.drop(found.removed)
        return True

    def _stands_alone(self, found: FoundChange, current: Desired) -> bool:
        """Whether a change has no part in anything else: an operator's wish, a handover, a renamed or moved target,
        addresses of names, contents of TLS files."""
        state = self._state
        if self._handovers.under_way or not current.targets.keys().isdisjoint(found.removed):
            return False
        addresses = self._addresses()
        present = state.world.pool(*found.place).targets
        tls = {target.tls for target in present[:1]} | {None}
        for each in found.changed:
            target, known = each.target, state.targets.get(each.target.id)
            if target.id in current.targets or target.tls not in tls or is_name(target.host):
                return False
            if known is not None and (known.tls is not None or known.http2 != target.http2):
                return False
            if known is None and split_id(target.id)[2] in addresses:
                return False
        return True

    def _addresses(self) -> set[str]:
        """The addresses of all targets, as their ids have them."""
        of, addresses = self._known_addresses
        if of is not self._state.targets:
            addresses = {split_id(id)[2] for id in self._state.targets}
            self._known_addresses = self._state.targets, addresses
        return addresses

    def _addresses_with(self, found: FoundChange) -> set[str]:
        addresses = self._known_addresses[1]
        addresses.difference_update(split_id(id)[2] for id in found.removed)
        addresses.update(split_id(each.target.id)[2] for each in found.changed)
        return addresses

    async def _take_all_found(self) -> None:
        """Put all targets in force that sources name now."""

        def change(current: Desired) -> tuple[Desired, Plan]:
            plan = self._plan(self._state.file_world, current, self._handovers.under_way, begin=False)
            return plan.desired, plan

        await self.resolve_unprobed(self._discoveries.world(self._state.file_world)[0])
        plan = await self._desired.amend(change)
        state = self._state
        self._put(Candidate(state.config, state.text, state.file_world), plan)
        self.watch_targets()
        self._tell_workers()

    # --- listeners --------------------------------------------------------------------------------------------------

    def open_listener(self, bind: str, sockets: list[socket]) -> None:
        """Serve an address; the snapshot that has it follows."""
        self._workers.open(bind, sockets)
        self._state.addresses[bind] = bound_name(bind, sockets[0])

    def _close_listener(self, bind: str) -> None:
        """Serve an address no more; the snapshot without it follows."""
        self._workers.close(bind)
        del self._state.addresses[bind]
        remove_file(bind)

    # --- the workers ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The whole world as it is now, for workers, under a new version."""
        world = self._state.world
        former = self._monitor.former_tls()
        snapshot = world.snapshot
        if former:
            snapshot = with_tls(snapshot, lambda target: former.get(target.id, target.tls))
        self._tls_files |= world.files
        used = digests_of_snapshot(snapshot)
        self._tls_files = {digest: data for digest, data in self._tls_files.items() if digest in used}
        wishes = self._desired.current.routes
        routes = snapshot.routes
        if wishes:
            routes = tuple(
                replace(route, maintenance=wishes[title].maintenance) if (title := route.title()) in wishes else route
                for route in routes
            )
        snapshot = replace(snapshot, files=tuple(self._tls_files.items()), routes=routes)
        return self._rotations.configure(snapshot, world.rules, world.mirrors)

    def _tell_workers(self) -> None:
        self._workers.apply(self.snapshot())
        self._workers.retry()
        self._counters.forget(self._state.targets, self._state.config.services)
        self._rollouts.forget(self._state.config.services)

    async def confirm(self) -> None:
        """Return when the workers serve the world as it is.

        Raises `Refused` where a worker has not said so in time; that is an event already.
        """
        try:
            await confirm(self._workers, self._rotations.flush())
        except Refused as refused:
            late = "; ".join(f"{each.where} {each.reason}" for each in refused.obstacles)
            self._events.emit("worker", f"the new configuration is not confirmed: {late}")
            raise
        finally:
            self._totals.forget(self._state.targets, {route.title() for route in self._state.world.snapshot.routes})

    def tell_routes(self) -> int:
        """Tell the workers which routes are in maintenance; returns the version that they serve by then."""
        self._workers.apply(self.snapshot())
        return self._rotations.flush()

    def tls_changed(self) -> None:
        """A check has passed with new TLS settings or certificates: requests take them as well."""
        if self._tls_changed is None:  # one message for all targets of one moment
            self._tls_changed = asyncio.get_running_loop().call_later(TOGETHER, self.use_new_tls)

    def use_new_tls(self) -> None:
        """Tell the workers at once."""
        self._tls_changed = None
        self._workers.apply(self.snapshot())

    # --- handovers --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """See when handovers are over, for as long as lb runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if await self.end_handovers():
                with contextlib.suppress(Refused):  # it was told, and the worker is replaced
                    await self.confirm()

    async def end_handovers(self) -> Collection[Place]:
        """Give up the replaced targets that are needed no more, and tell the workers. Returns the pools."""
        if not self._handovers.over():
            return ()

        def change(current: Desired) -> tuple[Desired, tuple[Plan, dict[Place, str]] | None]:
            over = self._handovers.over()  # a reload may have come first
            if not over:
                return current, None
            remaining = {place: each for place, each in self._handovers.under_way.items() if place not in over}
            plan = self._plan(self._state.file_world, current, remaining)
            return plan.desired, (plan, over)

        ended = await self._desired.amend(change)
        if ended is None:
            return ()
        state, (plan, over) = self._state, ended
        self._put(Candidate(state.config, state.text, state.file_world), plan)
        self.watch_targets()
        for (service, pool), text in over.items():
            place = f"{service}/{pool}"
            self._events.emit(
                "handover", text, place, before="replaced targets", after="new targets", change_unsaid=True
            )
        self._tell_workers()
        return over

    def close(self) -> None:
        """Tell the workers nothing more."""
        if self._tls_changed is not None:
            self._tls_changed.cancel()


def digests_of_snapshot(snapshot: Snapshot) -> set[str]:
    """Of all files that the snapshot's listeners, targets and steps need."""
    clients = {target.tls for service in snapshot.services for pool in service.pools for target in pool.targets}
    found = {digest for tls in clients if tls is not None for digest in tls.digests}
    found |= step_digests(snapshot)
    return found.union(*(digests_of(listener.tls) for listener in snapshot.listeners if listener.tls is not None))
