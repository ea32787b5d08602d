"""Operators' requests and orders, carried out on the running supervisor.

Every order goes the same way: checked, written to disk, put in force, confirmed by the workers, told as an event.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lb.config.check.lint import lint
from lb.config.check.lint_files import access_log_warnings
from lb.config.diff import diff
from lb.config.load import examine, load_text
from lb.config.model.config import Config
from lb.config.resolve import World
from lb.config.tls_files import load_world
from lb.config.yaml.problems import ConfigError
from lb.control.certificate_models import AuthorityView, NameView, RenewResult
from lb.control.event import Event
from lb.control.events import EventLog
from lb.control.models import (
    ConfigOrder,
    ConfigText,
    DrainState,
    Explanation,
    MaintenanceRequest,
    MaintenanceState,
    ProbeResult,
    RunView,
    ServiceView,
    Status,
    SwitchRequest,
    TargetView,
    UpgradeResult,
    WeightRequest,
)
from lb.control.operations import Base, InvalidFile, Previewed, Reloaded, Validated
from lb.control.probe_history import ProbeHistory
from lb.control.trial_models import Trial, TrialRequest
from lb.core.consequences import Consequence
from lb.core.digest import digest
from lb.core.refusals import Obstacle, Refusal, Refused
from lb.core.targets import Pool, Service
from lb.health.monitor import Monitor
from lb.supervisor.certificate_views import CertificateViews
from lb.supervisor.desired import DesiredState, OtherVersion
from lb.supervisor.discoveries import Discoveries
from lb.supervisor.drains import Drains
from lb.supervisor.events import Events
from lb.supervisor.explanations import Explanations
from lb.supervisor.lookup import caller_of, pool_of, route_of, service_of, target_of
from lb.supervisor.maintenances import Maintenances
from lb.supervisor.metrics import Metrics
from lb.supervisor.reloads import CutsOff, Edited, NotNow, OtherText, Reloads
from lb.supervisor.rollouts import Rollouts
from lb.supervisor.rotations import Rotations
from lb.supervisor.route_trials import RouteTrials
from lb.supervisor.sockets import CannotListen
from lb.supervisor.state import State
from lb.supervisor.totals import Counters, Totals
from lb.supervisor.views import Views, run_view
from lb.supervisor.weights import Weights
from lb.supervisor.workers import Workers

#: Kinds of events that change what is desired.
CHANGES = frozenset(("switch", "rollout", "drain", "weight", "maintenance", "reload"))


class LiveOperations:
    """`control.operations.Operations` of one supervisor."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        workers: Workers,
        monitor: Monitor,
        rotations: Rotations,
        events: Events,
        totals: Totals,
        probe_history: ProbeHistory,
        rollouts: Rollouts,
        reloads: Reloads,
        drains: Drains,
        weights: Weights,
        maintenances: Maintenances,
        views: Views,
        explanations: Explanations,
        metrics: Metrics,
        certificates: CertificateViews,
        discoveries: Discoveries,
        route_trials: RouteTrials,
        upgrade: Callable[[str, float], Awaitable[int]],
    ) -> None:
        self._state = state
        self._desired = desired
        self._workers = workers
        self._monitor = monitor
        self._rotations = rotations
        self._events = events
        self._totals = totals
        self._probe_history = probe_history
        self._rollouts = rollouts
        self._reloads = reloads
        self._drains = drains
        self._weights = weights
        self._maintenances = maintenances
        self._views = views
        self._explanations = explanations
        self._metrics = metrics
        self._certificates = certificates
        self._discoveries = discoveries
        self._route_trials = route_trials
        self._upgrade = upgrade

    @property
    def events(self) -> EventLog:
        return self._events.log

    @property
    def revision(self) -> int:
        return self._desired.current.version

    @property
    def config_mark(self) -> str:
        return digest(self._state.text.encode())

    def check_config_base(self, marks: Collection[str]) -> None:
        if self.config_mark not in marks:
            raise self._other_config()

    def check_base(self, bases: Collection[Base]) -> int:
        if any(base.revision == self.revision for base in bases):
            return self.revision
        raise self._other_revision(" or ".join(str(base.revision) for base in bases))

    def _other_config(self) -> Refused:
        changes = [event for event in self.events.since() if event.kind == "reload"]
        return _somebody_was_faster("the configuration that runs is another one now", changes)

    def _other_revision(self, seen: str) -> Refused:
        changes = [event for event in self.events.since() if event.kind in CHANGES]
        return _somebody_was_faster(f"the order is based on revision {seen}, now it is {self.revision}", changes)

    @contextmanager
    def _based_on(self, revision: int | None) -> Iterator[None]:
        """Refuse an order when another one has come first, in the words of `check_base`."""
        try:
            yield
        except OtherVersion:
            raise self._other_revision(str(revision)) from None

    # --- looking ----------------------------------------------------------------------------------------------------

    async def _sums(self) -> Counters:
        await self._workers.poll()
        return self._totals.sums(self._state.targets)

    def names(self) -> dict[str, dict[str, list[str]]]:
        return {
            service.name: {pool.name: [target.id for target in pool.targets] for pool in service.pools}
            for service in self._state.world.snapshot.services
        }

    async def try_request(self, wanted: TrialRequest) -> Trial:
        return await self._route_trials.tried(wanted)

    async def status(self) -> Status:
        return self._views.status(await self._sums())

    async def service(self, name: str) -> ServiceView:
        sums = await self._sums()  # first: a reload may take the service away meanwhile
        return self._views.service(service_of(self._state, name), sums)

    async def target(self, id: str) -> TargetView:
        sums = await self._sums()
        return self._views.target(target_of(self._state, id), sums)

    def certificates(self) -> list[NameView]:
        return self._certificates.names()

    def certificates_of(self, name: str) -> list[NameView]:
        return self._certificates.of_name(name)

    def renew_certificate(self, name: str, actor: str) -> RenewResult:
        under_way = self._certificates.renew(name)
        self._events.emit("certificate", "; ".join(under_way), actor=actor)
        return RenewResult(under_way=under_way)

    async def certificate_authority(self) -> AuthorityView:
        return await asyncio.to_thread(self._certificates.authority)

    def readyz(self) -> tuple[bool, str]:
        return self._views.readyz()

    async def metrics(self) -> bytes:
        return await self._metrics.exposition()

    async def explain(self, subject: str) -> Explanation:
        return await self._explanations.of(subject)

    def runs(self, since: float, subject: str) -> list[RunView]:
        found = self._probe_history.since(since)
        return [run_view(run) for run in found if not subject or f"{run.target}/".startswith(f"{subject}/")]

    # --- switching --------------------------------------------------------------------------------------------------

    async def switch(self, name: str, wanted: SwitchRequest, actor: str, revision: int | None = None) -> ServiceView:
        def gate() -> str:
            # Looked up at each call: while a hook runs, a reload may give the pool other targets.
            service = service_of(self._state, name)
            return self._gate(service, pool_of(service, wanted.to), wanted.force)

        pool_of(service_of(self._state, name), wanted.to)
        with self._based_on(revision):
            await self._rollouts.switch(name, wanted, actor, gate, revision)
        return await self.service(name)

    async def rollback(self, name: str, force: bool, actor: str, revision: int | None = None) -> ServiceView:
        service_of(self._state, name)
        with self._based_on(revision):
            await self._rollouts.roll_back(name, force, actor, revision)
        return await self.service(name)

    def preview_switch(self, name: str, wanted: SwitchRequest) -> Previewed:
        service, rollouts = service_of(self._state, name), self._rollouts
        pool = pool_of(service, wanted.to)

        def look(force: bool) -> list[Consequence]:
            short = self._shortfall(service, pool)
            return rollouts.preview_switch(service, wanted, lambda: self._gate(service, pool, force), short)

        return _previewed(look, wanted.force)

    def preview_rollback(self, name: str, force: bool) -> Previewed:
        service = service_of(self._state, name)
        return _previewed(lambda force: self._rollouts.preview_roll_back(service, force), force)

    def _gate(self, service: Service, pool: Pool, force: bool) -> str:
        """Refuse a switch to a pool that cannot serve; with `force`, the event's addition about that."""
        detail = self._shortfall(service, pool)
        if detail and not force:
            raise Refused(Refusal.NOT_READY, detail, self._rotations.unable(pool))
        return f" (forced: {detail})" if detail else ""

    def _shortfall(self, service: Service, pool: Pool) -> str:
        """That a pool cannot serve, for people; empty: it can. One target must, whatever the quorum, and as many as
        keep the pool out of panic. Targets of weight 0 are not counted in it, as they are not meant to serve."""
        _, meant = self._rotations.strength(pool)
        quorum = self._state.config.services[service.name].rollout.min_ready
        needed = max(self._rotations.least_able(pool), quorum.needed(meant))
        return self._rotations.shortfall(pool, needed)

    async def confirm_removals(self, name: str, pool: str, actor: str) -> ServiceView:
        service = service_of(self._state, name)
        pool_of(service, pool)
        self._discoveries.confirm_removals((name, pool), actor)
        return await self.service(name)

    # --- one target -------------------------------------------------------------------------------------------------

    async def drain(self, id: str, force: bool, actor: str, revision: int | None = None) -> DrainState:
        with self._based_on(revision):
            return await self._drains.begin(target_of(self._state, id), force, actor, version=revision)

    def preview_drain(self, id: str, force: bool) -> Previewed:
        target = target_of(self._state, id)
        return _previewed(lambda force: self._drains.preview(target, force), force)

    async def drain_state(self, id: str) -> DrainState:
        return await self._drains.state(target_of(self._state, id))

    async def undrain(self, id: str, force: bool, actor: str, revision: int | None = None) -> TargetView:
        target = target_of(self._state, id)
        with self._based_on(revision):
            await self._drains.undrain(target, force, actor, revision)
        return await self.target(target.id)

    def preview_undrain(self, id: str, force: bool) -> Previewed:
        target = target_of(self._state, id)
        return _previewed(lambda force: self._drains.preview_undrain(target, force), force)

    async def prestop(self, subject: str, wait: float, actor: str) -> DrainState:
        return await self._drains.prestop(caller_of(self._state, subject), wait, actor)

    async def weight(self, id: str, wanted: WeightRequest, actor: str, revision: int | None = None) -> TargetView:
        target = target_of(self._state, id)
        with self._based_on(revision):
            await self._weights.put(target, wanted.weight, wanted.force, actor, revision)
        return await self.target(target.id)

    def preview_weight(self, id: str, wanted: WeightRequest) -> Previewed:
        target, weights = target_of(self._state, id), self._weights
        return _previewed(lambda force: weights.preview(target, wanted.weight, force), wanted.force)

    def maintenance(self, route: str) -> MaintenanceState:
        return self._maintenances.state(route_of(self._state, route).title())

    async def maintain(
        self, route: str, wanted: MaintenanceRequest, actor: str, revision: int | None = None
    ) -> MaintenanceState:
        with self._based_on(revision):
            return await self._maintenances.put(route, wanted, actor, revision)

    async def probe(self, id: str) -> ProbeResult:
        monitor = self._monitor
        target = target_of(self._state, id)
        try:
            async with asyncio.timeout(60.0):
                verdict = await monitor.probe_now(target.id)
        except KeyError:
            raise Refused(Refusal.NOT_PROBED, f"{target.id} has `protocol: none`: it is never probed") from None
        target_of(self._state, target.id)  # a reload may have taken it away while it was probed
        return ProbeResult(
            target=target.id,
            ok=verdict.ok,
            seconds=verdict.seconds,
            text=verdict.text,
            asked=monitor.asked(target.id),
            got=verdict.got or verdict.text,
            expected=monitor.expected(target.id),
        )

    # --- configuration ----------------------------------------------------------------------------------------------

    async def reload(self, force: bool, actor: str, marks: Collection[str] | None = None) -> Reloaded:
        return await self._reloaded(self._reloads.reload(actor, force, marks))

    async def configure(self, wanted: ConfigOrder, actor: str, marks: Collection[str] | None = None) -> Reloaded:
        if not self._state.config.admin.secured:
            new = await self._reaching(wanted.text)
            if new:
                obstacles = [Obstacle("is new, and needs a token", where=where) for where in new]
                detail = "without a token, what lb runs, writes and finds targets in can only be changed in the file"
                raise Refused(Refusal.TOKEN_NEEDED_FOR_COMMANDS, detail, obstacles)
        return await self._reloaded(self._reloads.replace(wanted, actor, marks))

    async def _reloaded(self, reloading: Coroutine[Any, Any, Reloaded]) -> Reloaded:
        try:
            done = await reloading
        except ConfigError as error:
            raise InvalidFile(error) from None
        except CannotListen as error:
            raise Refused(Refusal.CANNOT_LISTEN, str(error)) from None
        except CutsOff as error:
            raise _unserved(error) from None
        except OtherText:
            raise self._other_config() from None
        except NotNow as error:
            raise Refused(Refusal.NOT_NOW, str(error)) from None
        except Edited as error:
            raise Refused(Refusal.FILE_EDITED, str(error)) from None
        except OSError as error:
            detail = f"{error.filename or self._state.path}: {error.strerror or error}; nothing has changed"
            raise Refused(Refusal.FILE_NOT_WRITTEN, detail) from None
        warnings = (f"{text}. {remedy}" for _, _, text, remedy in access_log_warnings(self._state.config))
        return done._replace(warnings=tuple(warnings))

    async def _reaching(self, text: str) -> list[str]:
        """Places of `text` that reach out of lb in ways that what runs does not: commands, files, engines."""
        try:
            config = await self._loaded(text)
        except ConfigError:
            return []  # it will be refused for that
        known = {(key, repr(value)) for key, value, _ in _outward(self._state.config.model_dump())}
        return [where for key, value, where in _outward(config.model_dump()) if (key, repr(value)) not in known]

    async def _loaded(self, text: str) -> Config:
        path = self._state.path
        return await asyncio.to_thread(load_text, text, str(path), base=str(path.resolve().parent))

    async def upgrade(self, within: float, actor: str) -> UpgradeResult:
        return UpgradeResult(pid=await self._upgrade(actor, within))

    def config_text(self) -> ConfigText:
        return ConfigText(text=self._state.text)

    async def validate(self, text: str) -> Validated:
        path = self._state.path

        def look() -> tuple[Validated, World | None]:
            try:
                loaded = examine(text, str(path), os.environ, base=str(path.resolve().parent))
            except ConfigError as error:
                return Validated(problems=tuple(error.problems)), None
            world = load_world(loaded.config, self._state.world)
            plan = diff(self._state.file_world, world)
            return Validated(plan, warnings=tuple(lint(loaded, world=world))), world

        validated, world = await asyncio.to_thread(look)
        cut = self._reloads.cut_off(world) if world is not None else ()
        return validated._replace(refused=_unserved(CutsOff(cut))) if cut else validated


def _somebody_was_faster(what: str, changes: list[Event]) -> Refused:
    """`changes`: orders that may have been faster, the newest last."""
    if changes:
        by = f" (by {changes[-1].actor})" if changes[-1].actor else ""
        what += f"; the last change: {changes[-1].subject}: {changes[-1].text}{by}"
    return Refused(Refusal.BASE_OUTDATED, what)


def _previewed(look: Callable[[bool], list[Consequence]], force: bool) -> Previewed:
    """The effects of an order; when it is refused, whether force would allow it."""
    try:
        return Previewed(look(force))
    except Refused as refused:
        forcible = False
        found: list[Consequence] = []
        if not force:
            with suppress(Refused):
                found, forcible = look(True), True
        return Previewed(found, refused, forcible)


def _unserved(error: CutsOff) -> Refused:
    obstacles = [Obstacle(reason, target=id) for each in error.found for id, reason in each.reasons]
    return Refused(Refusal.NO_TARGET_COULD_SERVE, str(error), obstacles)


def _outward(value: object, where: tuple[str, ...] = ()) -> Iterator[tuple[str, object, str]]:
    """The ways of a configuration out of lb: (kind, value, place) of each command, of each file that it writes, and of
    each source of targets on this machine, whose lines errors would show."""
    if isinstance(value, dict):
        for key, below in value.items():
            place = (*where, str(key))
            written = place in (("access_log", "path"), ("state_dir",))
            source = place[-2:] in (
                ("discover", "file"),
                ("consul", "address"),
                ("consul", "token_file"),
                ("docker", "socket"),
                ("kubernetes", "kubeconfig"),
                ("python", "source"),
            )
            if (key == "command" and below) or written or (source and below):
                yield key, below, ".".join(place)
            else:
                yield from _outward(below, place)
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from _outward(below, (*where, str(number)))
