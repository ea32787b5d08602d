"""What operators can ask for and order, carried out on the running supervisor.

Every order goes the same way: checked, written to disk, put in force, confirmed by the workers, told as an event.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from lb.config.diff import diff
from lb.config.lint import lint
from lb.config.lint_files import access_log_warnings
from lb.config.load import examine, load_text
from lb.config.model import Config
from lb.config.problems import ConfigError, Problem
from lb.config.resolve import World
from lb.config.tls_files import load_world
from lb.control.answers import digest
from lb.control.events import EventLog
from lb.control.metrics import Figures, exposition
from lb.control.models import (
    ConfigOrder,
    ConfigProblem,
    ConfigText,
    DrainState,
    Event,
    Explanation,
    Preview,
    ProbeResult,
    ReloadResult,
    RunView,
    ServiceView,
    Status,
    SwitchRequest,
    TargetView,
    UpgradeResult,
    Validation,
    WeightRequest,
)
from lb.control.operations import Base, Refused
from lb.control.refusals import problem
from lb.core.explain import explain, span, trial_text
from lb.core.lifecycle import shown
from lb.core.renames import split_id
from lb.core.report import RequestRecord, empty_tally
from lb.core.rotation import given_shares, is_served, rules_of
from lb.core.targets import Pool, Service, Target
from lb.process.channel import Order
from lb.supervisor.desired import OtherVersion
from lb.supervisor.os.processes import figures as process_figures
from lb.supervisor.reloads import CutsOff, Edited, NotNow, Reloaded
from lb.supervisor.sockets import CannotListen
from lb.supervisor.totals import Sums
from lb.supervisor.views import (
    probe_view,
    run_view,
    service_view,
    stages,
    state_trouble,
    status_view,
    target_view,
    weight_in_force,
)

if TYPE_CHECKING:
    from lb.supervisor.main import Supervisor

#: Targets of a pool that cannot serve which the explanation of a service names.
REASONS = 5
#: Kinds of events that change what is desired.
CHANGES = frozenset(("switch", "rollout", "drain", "weight", "reload"))


class LiveOperations:
    """`control.operations.Operations` of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._drains = supervisor.drains

    @property
    def events(self) -> EventLog:
        return self._supervisor.events.log

    @property
    def revision(self) -> int:
        return self._supervisor.desired.current.version

    @property
    def config_mark(self) -> str:
        return digest(self._supervisor.state.text.encode())

    def check_base(self, bases: Collection[Base], *, config: bool = False) -> int | None:
        if config:
            if any(base.mark == self.config_mark for base in bases):
                return None
            raise self._other_config()
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

    async def _sums(self) -> Sums:
        await self._supervisor.workers.poll()
        return self._supervisor.totals.sums(self._supervisor.state.targets)

    def names(self) -> dict[str, dict[str, list[str]]]:
        return {
            service.name: {pool.name: [target.id for target in pool.targets] for pool in service.pools}
            for service in self._supervisor.state.world.snapshot.services
        }

    async def status(self) -> Status:
        return status_view(self._supervisor, await self._sums())

    async def service(self, name: str) -> ServiceView:
        sums = await self._sums()  # first: a reload may take the service away meanwhile
        return service_view(self._supervisor, self._service(name), sums)

    async def target(self, id: str) -> TargetView:
        sums = await self._sums()
        target = self._target(id)
        return target_view(self._supervisor, target, self._share(target), sums)

    def readyz(self) -> tuple[bool, str]:
        if self._supervisor.state.draining:
            return False, "draining"
        if any(is_served(rotation) for rotation in self._supervisor.rotations.current.values()):
            return True, "ready"
        return False, "no service has a target that can serve: all clients get 503"

    async def metrics(self) -> bytes:
        supervisor = self._supervisor
        sums = await self._sums()
        now, targets, counters = time.monotonic(), supervisor.state.targets, supervisor.counters
        shares: dict[tuple[str, str], float] = {}
        for service in supervisor.state.world.snapshot.services:
            parts = given_shares(supervisor.rotations.current[service.name])
            for pool in service.pools:
                shares[service.name, pool.name] = parts.get(pool.name, 0) / 100
        for id in supervisor.state.targets:
            sums.targets.setdefault(id, empty_tally(id))
        pids = {"supervisor": os.getpid()} | {f"{n}": pid for n, pid in supervisor.workers.by_number.items()}
        used = await asyncio.to_thread(lambda: {name: process_figures(pid) for name, pid in pids.items()})
        # Of thousands of targets it takes half a second, in which probes and workers are to be attended to.
        return await asyncio.to_thread(
            exposition,
            Figures(
                targets=sums.targets,
                places={id: _place(id) for id in sums.targets},
                pools=sums.pools,
                states={id: shown(health, now) for id, health in supervisor.monitor.healths.items()},
                trials=_trials(supervisor),
                weights={id: weight_in_force(supervisor, target) for id, target in supervisor.state.targets.items()},
                alive={
                    id: life.state == "alive"
                    for id, life in supervisor.monitor.lives.items()
                    if life.state != "unknown" and id in supervisor.state.targets
                },
                able={id for id, target in supervisor.state.targets.items() if supervisor.rotations.can_serve(target)},
                shares=shares,
                active={name: desired.active for name, desired in supervisor.desired.current.services.items()},
                stages={
                    (service.name, pool.name, stage): count
                    for service in supervisor.state.world.snapshot.services
                    for pool in service.pools
                    for stage, count in stages(supervisor, pool).items()
                },
                retries=sums.retries,
                mirrored=sums.mirrored,
                rejected=sums.rejected,
                transitions={key: n for key, n in counters.transitions.items() if key[0] in targets},
                probes={key: n for key, n in counters.probes.items() if key[0] in targets},
                probe_seconds=deepcopy(supervisor.counters.probe_seconds),
                probes_late=_percentile(supervisor.monitor.late(), 0.99),
                switches=dict(supervisor.rollouts.switches),
                rollouts=supervisor.rollouts.states(),
                reloads=dict(supervisor.reloads.counts),
                processes={name: found for name, found in used.items() if found is not None},
                downstream=sums.downstream,
                accepted=sums.accepted,
                log_lines_lost=sums.log_lines_lost,
                log_writable=not sums.log_trouble,
                requests_lost=sums.lost,
                reload_ok=supervisor.reloads.ok and not supervisor.workers.behind,
                worker_restarts=supervisor.workers.restarts,
                restarts=supervisor.guard.restarts + Counter(sums.restarts),
                errors={"supervisor": supervisor.guard.errors, "worker": sums.errors},
                workers=len(supervisor.workers.pids),
                state_writable=not state_trouble(supervisor),
            ),
        )

    async def explain(self, subject: str) -> Explanation:
        supervisor = self._supervisor
        if any(service.name == subject for service in supervisor.state.world.snapshot.services):
            return self._explain_service(self._service(subject))
        try:
            return self._explain_target(self._target(subject))
        except Refused as unknown:
            record = supervisor.totals.records.get(subject)
            if record is None:  # the workers keep what went well themselves: it is asked for too rarely to be sent
                supervisor.workers.order(Order("recall", subject=subject))
                await supervisor.workers.poll()
                record = supervisor.totals.records.get(subject)
            if record is None:
                raise unknown
            return _explain_request(record)

    def _explain_target(self, target: Target) -> Explanation:
        supervisor = self._supervisor
        monitor, world = supervisor.monitor, supervisor.state.world
        readiness = world.checks[target.id].readiness
        rotation = supervisor.rotations.current[target.service]
        seen = monitor.history(target.id)
        found = explain(
            target.id,
            monitor.health(target.id),
            rules_of(world.rules[target.service], readiness),
            readiness,
            time.monotonic(),
            seen=seen,
            next_probe=monitor.next_probe(target.id),
            trial=monitor.on_trial(target.id),
            life=monitor.lives.get(target.id),
            weight=dict(dict(rotation.weights).get(target.pool, ())).get(target.id),
            idle=self._idle(target),
            until=supervisor.handovers.until(target),
        )
        return Explanation(
            subject=target.id,
            kind="target",
            summary=found.summary,
            lines=[*found.lines, *self._resolved(target)],
            probes=[probe_view(each) for each in reversed(seen[-10:])],
            runs=[run_view(run) for run in reversed(supervisor.ledger.of(target.id))],
        )

    def _resolved(self, target: Target) -> list[str]:
        addresses = self._supervisor.monitor.addresses.get(target.id, ())
        if len(addresses) < 2:
            return [f"Requests for {target.host} go to {address}." for address in addresses]
        return [f"Requests for {target.host} go to the first of {', '.join(addresses)} that accepts a connection."]

    def runs(self, since: float, subject: str) -> list[RunView]:
        found = self._supervisor.ledger.since(since)
        return [run_view(run) for run in found if not subject or f"{run.target}/".startswith(f"{subject}/")]

    def _idle(self, target: Target) -> str:
        """Why a target whose health lets it have requests gets none; empty: it gets some."""
        rotations = self._supervisor.rotations
        reason = rotations.why_not(target)
        if reason:
            return reason
        rotation = rotations.current[target.service]
        if target.id not in dict(dict(rotation.weights).get(target.pool, ())):
            return f"too few targets of {target.pool} are ready, and `panic` gives the whole pool up"
        service = self._service(target.service)
        if given_shares(rotation).get(target.pool) or any(p.pool == target.pool for p in service.previews):
            return ""
        return f"pool {target.pool} has no share of the requests of {target.service}"

    def _explain_service(self, service: Service) -> Explanation:
        rotations = self._supervisor.rotations
        rotation = rotations.current[service.name]
        given = given_shares(rotation)
        lines = []
        for pool in service.pools:
            share = given.get(pool.name, 0)
            lines.append(
                f"pool {pool.name}: {share} % of the requests, "
                f"{rotations.strength(pool)[0]} of {len(pool.targets)} targets can serve"
            )
            lines += [
                f"{each['target']} cannot: {each['reason']}"
                for each in (rotations.unable(pool)[:REASONS] if share else [])
            ]
        monitor = self._supervisor.monitor
        trials = [
            (id, trial)
            for id in monitor.trials()
            if id.startswith(f"{service.name}/") and (trial := monitor.on_trial(id))
        ]
        lines += [f"{id}: {trial_text(trial)}" for id, trial in trials[:REASONS]]
        rollout = self._supervisor.rollouts.view(service.name)
        if rollout is not None:
            lines.append(f"rollout {rollout['text']}")
        last = self._supervisor.desired.current.services[service.name].last
        if last is not None:
            lines.append(f"last rollout, {span(time.time() - last.at)} ago: {last.text}")
        taken_over = given.get(rotation.fallback, 0) > dict(rotation.shares).get(rotation.fallback, 0)
        if not is_served(rotation):
            summary = f"{service.name} has no target that can serve: clients get 503"
        elif taken_over:
            instead = " and ".join(pool for pool, parts in rotation.shares if parts)
            summary = f"{service.name} is served by its fallback {rotation.fallback}: no target of {instead} can serve"
        else:
            summary = f"{service.name} is served"
        return Explanation(subject=service.name, kind="service", summary=summary, lines=lines)

    # --- switching --------------------------------------------------------------------------------------------------

    async def switch(self, name: str, wanted: SwitchRequest, actor: str, revision: int | None = None) -> ServiceView:
        def gate() -> str:
            # Looked up at each call: while a hook runs, a reload may give the pool other targets.
            service = self._service(name)
            return self._gate(service, self._pool(service, wanted.to), wanted.force)

        self._pool(self._service(name), wanted.to)
        with self._based_on(revision):
            await self._supervisor.rollouts.switch(name, wanted, actor, gate, revision)
        return await self.service(name)

    async def rollback(self, name: str, force: bool, actor: str, revision: int | None = None) -> ServiceView:
        self._service(name)
        with self._based_on(revision):
            await self._supervisor.rollouts.roll_back(name, force, actor, revision)
        return await self.service(name)

    def foresee_switch(self, name: str, wanted: SwitchRequest) -> Preview:
        service, rollouts = self._service(name), self._supervisor.rollouts
        pool = self._pool(service, wanted.to)

        def look(force: bool) -> list[str]:
            return rollouts.foresee_switch(service, wanted, lambda: self._gate(service, pool, force))

        return _foreseen(look, wanted.force)

    def foresee_rollback(self, name: str, force: bool) -> Preview:
        service = self._service(name)
        return _foreseen(lambda force: self._supervisor.rollouts.foresee_roll_back(service, force), force)

    def _gate(self, service: Service, pool: Pool, force: bool) -> str:
        """Refuse a switch to a pool that cannot serve; with `force`, what the event adds about that. One target must,
        whatever the quorum, and as many as keep the pool out of panic; those of weight 0 are not counted in it, as
        nobody wants them to serve."""
        supervisor = self._supervisor
        _, meant = supervisor.rotations.strength(pool)
        quorum = supervisor.state.config.services[service.name].rollout.min_ready
        needed = max(supervisor.rotations.least_able(pool), quorum.needed(meant))
        detail = supervisor.rotations.shortfall(pool, needed)
        if detail and not force:
            raise Refused(409, "Not ready", detail, supervisor.rotations.unable(pool))
        return f" (forced: {detail})" if detail else ""

    # --- one target -------------------------------------------------------------------------------------------------

    async def drain(self, id: str, force: bool, actor: str, revision: int | None = None) -> DrainState:
        with self._based_on(revision):
            return await self._drains.begin(self._target(id), force, actor, version=revision)

    def foresee_drain(self, id: str, force: bool) -> Preview:
        target = self._target(id)
        return _foreseen(lambda force: self._drains.foresee(target, force), force)

    async def drain_state(self, id: str) -> DrainState:
        return await self._drains.state(self._target(id))

    async def undrain(self, id: str, force: bool, actor: str, revision: int | None = None) -> TargetView:
        target = self._target(id)
        with self._based_on(revision):
            await self._drains.undrain(target, force, actor, revision)
        return await self.target(target.id)

    def foresee_undrain(self, id: str, force: bool) -> Preview:
        target = self._target(id)
        return _foreseen(lambda force: self._drains.foresee_undrain(target, force), force)

    async def prestop(self, subject: str, wait: float, actor: str) -> DrainState:
        return await self._drains.prestop(self._caller(subject), wait, actor)

    async def weight(self, id: str, wanted: WeightRequest, actor: str, revision: int | None = None) -> TargetView:
        target = self._target(id)
        with self._based_on(revision):
            await self._supervisor.weights.put(target, wanted.weight, wanted.force, actor, revision)
        return await self.target(target.id)

    def foresee_weight(self, id: str, wanted: WeightRequest) -> Preview:
        target, weights = self._target(id), self._supervisor.weights
        return _foreseen(lambda force: weights.foresee(target, wanted.weight, force), wanted.force)

    async def probe(self, id: str) -> ProbeResult:
        monitor = self._supervisor.monitor
        target = self._target(id)
        try:
            async with asyncio.timeout(60.0):
                verdict = await monitor.probe_now(target.id)
        except KeyError:
            raise Refused(409, "Not probed", f"{target.id} has `protocol: none`: it is never probed") from None
        self._target(target.id)  # a reload may have taken it away while it was probed
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

    async def reload(self, force: bool, actor: str) -> ReloadResult:
        return await self._reloaded(self._supervisor.reloads.reload(actor, force))

    async def configure(self, wanted: ConfigOrder, actor: str) -> ReloadResult:
        supervisor = self._supervisor
        if supervisor.state.config.admin.token_file is None:
            new = await self._reaching(wanted.text)
            if new:
                reasons = [{"where": where, "reason": "is new, and needs a token"} for where in new]
                detail = "without a token, what lb runs and which files it writes can only be changed in the file"
                raise Refused(403, "Token needed for commands", detail, reasons)
        return await self._reloaded(supervisor.reloads.replace(wanted, actor))

    async def _reloaded(self, reloading: Coroutine[Any, Any, Reloaded]) -> ReloadResult:
        try:
            done = await reloading
        except ConfigError as error:
            reasons = [{"where": problem.where, "reason": problem.message} for problem in error.problems]
            problems = [_problem(problem) for problem in error.problems]
            raise Refused(422, "The file is invalid", "nothing has changed", reasons, problems) from None
        except CannotListen as error:
            raise Refused(409, "Cannot listen", str(error)) from None
        except CutsOff as error:
            raise _unserved(error) from None
        except NotNow as error:
            raise Refused(409, "Not now", str(error)) from None
        except Edited as error:
            raise Refused(409, "The file was edited", str(error)) from None
        except OSError as error:
            detail = f"{error.filename or self._supervisor.state.path}: {error.strerror or error}; nothing has changed"
            raise Refused(409, "The file cannot be written", detail) from None
        warnings = [f"{text}. {remedy}" for _, _, text, remedy in access_log_warnings(self._supervisor.state.config)]
        return ReloadResult(changed=bool(done.lines), lines=done.lines, forced=done.forced, warnings=warnings)

    async def _reaching(self, text: str) -> list[str]:
        """Places of `text` that reach out of lb in ways that what runs does not: commands, and files it writes."""
        try:
            config = await self._loaded(text)
        except ConfigError:
            return []  # it will be refused for that
        known = {(key, repr(value)) for key, value, _ in _outward(self._supervisor.state.config.model_dump())}
        return [where for key, value, where in _outward(config.model_dump()) if (key, repr(value)) not in known]

    async def _loaded(self, text: str) -> Config:
        path = self._supervisor.state.path
        return await asyncio.to_thread(load_text, text, str(path), base=str(path.resolve().parent))

    async def upgrade(self, within: float, actor: str) -> UpgradeResult:
        return UpgradeResult(pid=await self._supervisor.upgrade(actor, within))

    def config_text(self) -> ConfigText:
        try:
            return ConfigText(text=self._supervisor.state.text)
        except ConfigError as error:
            raise Refused(409, "The file cannot be read", str(error)) from None

    async def validate(self, text: str) -> Validation:
        supervisor = self._supervisor
        path = supervisor.state.path

        def look() -> tuple[Validation, World | None]:
            try:
                loaded = examine(text, str(path), os.environ, base=str(path.resolve().parent))
            except ConfigError as error:
                problems = [_problem(problem) for problem in error.problems]
                return Validation(ok=False, problems=problems, changes=[]), None
            plan = diff(supervisor.state.config, loaded.config)
            found = [_problem(warning) for warning in lint(loaded)]
            validation = Validation(ok=True, problems=[], warnings=found, changes=plan.lines(), summary=plan.summary())
            return validation, load_world(loaded.config)

        validation, world = await asyncio.to_thread(look)
        cut = supervisor.reloads.cut_off(world) if world is not None else ()
        if cut:
            validation.refusal = problem(_unserved(CutsOff(cut)))
        return validation

    # --- names ------------------------------------------------------------------------------------------------------

    def _service(self, name: str) -> Service:
        services = {service.name: service for service in self._supervisor.state.world.snapshot.services}
        if name not in services:
            raise Refused(404, "No such service", f"there is no service {name}; there is {', '.join(services)}")
        return services[name]

    def _pool(self, service: Service, name: str) -> Pool:
        pools = {pool.name: pool for pool in service.pools}
        if name not in pools:
            raise Refused(404, "No such pool", f"{service.name} has no pool {name}; it has {', '.join(pools)}")
        return pools[name]

    def _target(self, id: str) -> Target:
        targets = self._supervisor.state.targets
        if id in targets:
            return targets[id]
        matches = [known for known in targets if known.endswith(f"/{id}")]
        if len(matches) == 1:
            return targets[matches[0]]
        if matches:
            raise Refused(409, "Ambiguous target", f"{id} may be {' or '.join(sorted(matches))}")
        raise Refused(404, "No such target", f"there is no target {id}")

    def _caller(self, subject: str) -> Target:
        """A target by its name, or by the address that a container calls from."""
        try:
            return self._target(subject)
        except Refused:
            calling = [target for target in self._supervisor.state.targets.values() if target.host == subject]
            if len(calling) == 1:
                return calling[0]
            if calling:
                names = " or ".join(target.id for target in calling)
                raise Refused(409, "Ambiguous target", f"{subject} may be {names}; say ?target=") from None
            raise

    def _share(self, target: Target) -> float:
        rotation = self._supervisor.rotations.current[target.service]
        weights = dict(dict(rotation.weights).get(target.pool, ()))
        total = sum(weights.values())
        return weights.get(target.id, 0.0) / total if total else 0.0


def _somebody_was_faster(what: str, changes: list[Event]) -> Refused:
    """`changes`: what may have been the faster order, the newest last."""
    if changes:
        by = f" (by {changes[-1].actor})" if changes[-1].actor else ""
        what += f"; the last change: {changes[-1].subject}: {changes[-1].text}{by}"
    return Refused(412, "Somebody was faster", what)


def _foreseen(look: Callable[[bool], list[str]], force: bool) -> Preview:
    """What an order would do; when it is refused, whether it would not be with force."""
    try:
        return Preview(allowed=True, lines=look(force))
    except Refused as refused:
        forcible = False
        lines: list[str] = []
        if not force:
            with suppress(Refused):
                lines, forcible = look(True), True
        return Preview(allowed=False, lines=lines, refusal=problem(refused), forcible=forcible)


def _unserved(error: CutsOff) -> Refused:
    reasons = [{"target": id, "reason": reason} for each in error.found for id, reason in each.reasons]
    return Refused(409, "No target could serve", str(error), reasons)


def _problem(found: Problem) -> ConfigProblem:
    return ConfigProblem(
        line=found.line,
        column=found.column,
        message=found.message,
        hint=found.hint,
        quote=found.quote,
        width=found.width,
        path=found.path,
    )


def _outward(value: object, where: tuple[str, ...] = ()) -> Iterator[tuple[str, object, str]]:
    """What a configuration does outside of lb: (kind, value, place) of each command, and of each file it writes."""
    if isinstance(value, dict):
        for key, below in value.items():
            place = (*where, str(key))
            if (key == "command" and below) or place == ("access_log", "path") or place == ("state_dir",):
                yield key, below, ".".join(place)
            else:
                yield from _outward(below, place)
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from _outward(below, (*where, str(number)))


def _trials(supervisor: Supervisor) -> dict[tuple[str, str], int]:
    """(service, pool) → targets whose changed check has not passed yet."""
    found = {(target.service, target.pool): 0 for target in supervisor.state.targets.values()}
    for id in supervisor.monitor.trials():
        found[supervisor.state.targets[id].service, supervisor.state.targets[id].pool] += 1
    return found


def _place(id: str) -> tuple[str, str, str]:
    """Service, pool and target as the metrics name them."""
    service, pool, target = split_id(id)
    return service, pool, target


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


def _explain_request(record: RequestRecord) -> Explanation:
    reason = f": {record.reason}" if record.reason else ""
    what = " ".join(part for part in (record.method, record.path, record.host and f"of host {record.host}") if part)
    lines = [f"{what} from {record.client}" if what else f"from {record.client}"]
    if record.target != "none":
        lines.append(f"service {record.service}, pool {record.pool}, target {record.target}")
    elif record.service != "none":
        lines.append(f"service {record.service}, pool {record.pool}; lb answered by itself")
    else:
        lines.append("no service had a part in it: lb answered by itself")
    if not record.refused:
        lines += [f"try {number}: {text}" for number, text in enumerate(record.tries, 1)]
        lines.append(f"answered {record.code} after {record.seconds * 1000:.1f} ms{reason}")
    else:
        lines.append(f"refused before it was understood, with {record.code}{reason} ({record.refused})")
    summary = f"{record.id} ended with {record.code}{reason}"
    return Explanation(subject=record.id, kind="request", summary=summary, lines=lines)
