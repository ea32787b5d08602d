"""Switches and rollouts of the running supervisor: `core.rollout` decides, this makes it so.

Every change takes the same steps. The desired state is on the disk before it is in force, every worker confirms it, and
an event says why. Twice a second each rollout is given the totals of both pools; nothing is measured before all workers
serve by the present share. The newest rollout of a service is kept until the next one. When it is over, the pool that
has lost its traffic is watched until nothing is in flight there. Then the `post` hook is run: the pool may be scaled
down.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from lb.config.model.units import Unreadable, format_duration, parse_duration
from lb.config.resolve import release_plan
from lb.core.analysis import Tally
from lb.core.consequences import Consequence, Kind
from lb.core.desired import Desired, ServiceDesired
from lb.core.refusals import Refusal, Refused
from lb.core.renames import Renames
from lb.core.report import PoolTally
from lb.core.rollout import (
    Bake,
    Next,
    Plan,
    Rollout,
    Sample,
    advance,
    announced,
    begin,
    from_dict,
    promote,
    renamed,
    resume,
    retired,
    roll_back,
    same_share,
    to_dict,
    traffic,
)
from lb.core.rotation import meant_to_serve
from lb.core.targets import Pool, Service
from lb.health.monitor import Monitor
from lb.process.guard import Guard
from lb.supervisor.confirming import confirm
from lb.supervisor.desired import DesiredState
from lb.supervisor.events import Events
from lb.supervisor.hooks import run_hook
from lb.supervisor.lookup import pool_of
from lb.supervisor.rotations import Rotations
from lb.supervisor.state import State
from lb.supervisor.totals import Counters, Totals
from lb.supervisor.workers import Workers

if TYPE_CHECKING:
    from lb.control.models import SwitchRequest

#: Seconds between two samples.
SAMPLE_EVERY = 0.5
#: Seconds between two looks back at what an active pool did, and how many are kept: five minutes.
REMEMBER_EVERY, REMEMBERED = 30.0, 10
#: Seconds after a start that the old pool has to become ready before an interrupted rollout is decided on.
RECOVERY = 15.0


class Rollouts:
    """The newest rollout of every service that has had one."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        rotations: Rotations,
        workers: Workers,
        monitor: Monitor,
        events: Events,
        totals: Totals,
        guard: Guard,
    ) -> None:
        self._state = state
        self._desired = desired
        self._rotations = rotations
        self._workers = workers
        self._monitor = monitor
        self._events = events
        self._totals = totals
        self._guard = guard
        self.switches: Counter[tuple[str, str]] = Counter()  # by service and result
        self._rollouts: dict[str, Rollout] = {}
        self._ordered: set[str] = set()  # services with an order under way
        self._recovering: dict[str, float] = {}  # service → monotonic time when it is decided
        self._past: dict[tuple[str, str], deque[tuple[float, Tally]]] = {}
        self._announcing: dict[str, asyncio.Task[None]] = {}

    # --- orders -----------------------------------------------------------------------------------------------------

    async def switch(
        self, name: str, wanted: SwitchRequest, actor: str, gate: Callable[[], str], version: int | None = None
    ) -> None:
        """Send the traffic of a service to another pool, at once or in steps. `gate` refuses one that is not ready, or
        returns what the event adds where it was forced. `version`: of the desired state that the order is based on."""
        with self._order(name):
            intended, _ = self._decided(name, wanted, actor, gate)
            prepared: Plan | None = None
            if isinstance(intended, Plan) and await self._prepare(name, intended):
                # The hook took its time: of what has changed since then, only what concerns the order counts.
                prepared, version = intended, None

            def decide() -> Next | None:
                intended, forced = self._decided(name, wanted, actor, gate, prepared)
                if isinstance(intended, Plan):
                    before = self._before(name, intended.old)
                    ready = self._ready_share(self._service(name), intended.new)
                    intended = begin(intended, ready, before)
                return None if intended is None else _worded(intended, forced)

            await self._enter(name, decide, actor, version)

    def _decided(
        self, name: str, wanted: SwitchRequest, actor: str, gate: Callable[[], str], prepared: Plan | None = None
    ) -> tuple[Plan | Next | None, str]:
        """The effects of an order now; `prepared` is what a hook was run for. A refusal is counted and told."""
        try:
            if prepared is not None:
                self._check_unchanged(name, prepared)
            return self._intended(name, wanted, actor, gate)
        except Refused as refused:
            self._count(name, "refused")
            self._events.emit("switch", f"to {wanted.to} refused: {refused.detail}", name, actor=actor)
            raise

    def _check_unchanged(self, name: str, prepared: Plan) -> None:
        """Refuse to go on with a release whose service is another one since the hook began."""
        pools = {pool.name for service in self._services() if service.name == name for pool in service.pools}
        gone = name if not pools else prepared.new if prepared.new not in pools else ""
        if gone:
            detail = f"a reload took {gone} away while the pre hook ran; nothing has been switched"
            raise Refused(Refusal.SERVICE_HAS_CHANGED, detail)
        if self._wanted(name).active != prepared.old:
            detail = f"{prepared.old} is not the active pool of {name} any more"
            raise Refused(Refusal.SERVICE_HAS_CHANGED, detail)

    def preview_switch(
        self, service: Service, wanted: SwitchRequest, gate: Callable[[], str], short: str
    ) -> list[Consequence]:
        """The effects of `switch`. Raises the `Refused` that it would raise; nothing is changed or told. `short`: that
        the pool has fewer targets that can serve than `gate` asks for."""
        name = service.name
        with self._order(name):
            intended, _ = self._intended(name, wanted, "", gate)
        if intended is None:
            text = f"{wanted.to} has the traffic of {name} already: nothing changes"
            return [Consequence(kind="unchanged", text=text, service=name, pool=wanted.to)]
        if isinstance(intended, Plan):
            hook = self._state.config.services[name].rollout.pre
            text = "the pre hook is run; when it fails, nothing changes"
            first = [Consequence(kind="hook", text=text, service=name)] if hook is not None else []
            at_once = intended.steps == (100,)
            instead = "" if at_once else intended.old
            return [*first, *_previewed(name, intended), *self._lacking(service, wanted.to, short, instead)]
        rollout, _ = intended
        return [*_moved(name, rollout), *self._lacking(service, wanted.to, short)]

    def preview_roll_back(self, service: Service, force: bool) -> list[Consequence]:
        """The effects of `roll_back`. Raises the `Refused` that it would raise."""
        (rollout, _), plan = self._way_back(service, force, "")
        found = _moved(service.name, rollout) if plan is None else _previewed(service.name, plan)
        return [*found, *self._lacking(service, rollout.plan.old if plan is None else plan.new, "")]

    def _lacking(self, service: Service, name: str, short: str, instead: str = "") -> list[Consequence]:
        """The effects where a pool that is to get requests lacks targets that can serve, as an order was forced.
        `instead`: the pool that gets its requests then; empty: the fallback, if that can."""
        unable = self._unable(service, pool_of(service, name))
        if not unable:
            return [Consequence(kind="short", text=short, service=service.name, pool=name)] if short else []
        instead = instead or self._fallback_of(service, name)
        end = f"{instead} gets its share" if instead else "its clients get 503"
        kind: Kind = "instead" if instead else "unserved"
        return [Consequence(kind=kind, text=f"{unable}: {end}", service=service.name, pool=name)]

    def _intended(
        self, name: str, wanted: SwitchRequest, actor: str, gate: Callable[[], str]
    ) -> tuple[Plan | Next | None, str]:
        """The result of an order: a new release, the next state of the one under way, or nothing to do. With it comes
        the event's addition where it was forced."""
        desired = self._wanted(name)
        rollout = self._current(name)
        if rollout is not None and rollout.phase in ("stepping", "frozen"):
            if wanted.to == rollout.plan.old and rollout.share < 100:
                nobody = self._nobody_at(self._service(name), rollout.plan.old, wanted.force)
                return roll_back(rollout, f"an operator switched back{nobody}"), ""
            if wanted.to == rollout.plan.new and wanted.steps in (None, [100]):
                forced = gate()
                return promote(rollout), forced
            if rollout.share < 100:
                raise Refused(
                    Refusal.ROLLOUT_UNDER_WAY,
                    f"{name} goes from {rollout.plan.old} to {rollout.plan.new} and is at {rollout.share} %; "
                    f"`lb rollback {name}` ends it, `lb switch {name} {rollout.plan.new}` completes it",
                )
        if wanted.to == desired.active:
            return None, ""
        plan = self._plan(name, desired.active, wanted, actor)
        return plan, gate()

    async def roll_back(self, name: str, force: bool, actor: str, version: int | None = None) -> None:
        """All traffic back to where it came from, at once, whatever else is under way. One target there that can serve
        is enough; with `force` none need be. `version`: of the desired state that the order is based on."""
        await self._enter(name, lambda: self._way_back(self._service(name), force, actor)[0], actor, version)

    def _way_back(self, service: Service, force: bool, actor: str) -> tuple[Next, Plan | None]:
        name = service.name
        desired, rollout = self._wanted(name), self._current(name)
        if rollout is not None and rollout.phase != "rolled_back":
            nobody = self._nobody_at(service, rollout.plan.old, force)
            return roll_back(rollout, f"an operator asked for it{nobody}"), None
        if not desired.previous:
            raise Refused(Refusal.NOTHING_TO_ROLL_BACK_TO, f"{name} has no previous pool: it was not switched")
        nobody = self._nobody_at(service, desired.previous, force)
        # Switched by an earlier lb, or the rollout is forgotten: the same change, unwatched.
        plan = Plan(desired.active, desired.previous, bake=Bake(time=0.0), actor=actor)
        return _worded(begin(plan), nobody), plan

    def _nobody_at(self, service: Service, name: str, force: bool) -> str:
        """Refuse to go back to a pool where no target can serve; with `force`, the event's addition about that."""
        pool = pool_of(service, name)
        unable = self._unable(service, pool)
        if not unable:
            return ""
        fallback = self._fallback_of(service, name)
        detail = f"{unable}: {f'{fallback} would, as the fallback' if fallback else 'clients would get 503'}"
        if not force:
            raise Refused(Refusal.NOT_READY, detail, self._rotations.unable(pool))
        return f" (forced: {detail})"

    def _unable(self, service: Service, pool: Pool) -> str:
        """That a pool would offer no target, for people; empty: it offers one."""
        able, meant = self._rotations.strength(pool)
        if able >= self._rotations.least_able(pool):
            return ""
        few = f"{able} of {meant} targets of {pool.name} can serve, too few by panic_threshold"
        return few if able else f"no target of {pool.name} can serve"

    def _fallback_of(self, service: Service, name: str) -> str:
        """The fallback that serves while a pool offers no target; empty: none does."""
        fallback = self._rotations.current[service.name].fallback
        others = [pool for pool in service.pools if pool.name == fallback != name]
        return fallback if any(self._rotations.strength(pool)[0] for pool in others) else ""

    @contextmanager
    def _order(self, name: str) -> Iterator[None]:
        """One order at a time for a service."""
        if name in self._ordered:
            raise Refused(Refusal.OTHER_ORDER_UNDER_WAY, f"somebody else is switching {name} right now")
        self._ordered.add(name)
        try:
            yield
        finally:
            self._ordered.discard(name)

    def _plan(self, name: str, active: str, wanted: SwitchRequest, actor: str) -> Plan:
        plan = release_plan(active, wanted.to, self._state.config.services[name].rollout, actor=actor)
        try:
            if wanted.steps is not None:
                plan = replace(plan, steps=tuple(wanted.steps))
            if wanted.step_time is not None:
                plan = replace(plan, step_time=parse_duration(wanted.step_time))
            if wanted.bake is not None:
                plan = replace(plan, bake=replace(plan.bake, time=parse_duration(wanted.bake)))
            if wanted.freeze_on_fail is not None:
                plan = replace(plan, freeze_on_fail=wanted.freeze_on_fail)
        except Unreadable as error:
            raise Refused(Refusal.INVALID_REQUEST, f"{error}; write {error.allowed}") from None
        except ValueError as error:
            raise Refused(Refusal.INVALID_REQUEST, str(error)) from None
        return plan

    async def _prepare(self, name: str, plan: Plan) -> bool:
        """Run `pre`; nothing changes unless it succeeds. Returns whether there is one."""
        hook = self._state.config.services[name].rollout.pre
        if hook is None:
            return False
        note = self._events.emit
        outcome = await run_hook(hook, _said("pre", name, plan))
        if not outcome.ok:
            self._count(name, "failed")
            note("rollout", f"pre failed, nothing has changed: {outcome.text}", name, actor=plan.actor)
            raise Refused(Refusal.PRE_HOOK_FAILED, f"nothing has changed: {outcome.text}")
        note("rollout", f"pre: {outcome.text}", name, actor=plan.actor)
        return True

    def rename(self, renames: Renames) -> None:
        """Go on under the names of a new configuration; the present step is measured anew, as pools count by name."""
        for new, old in renames.services.items():
            if old in self._rollouts:
                self._rollouts[new] = self._rollouts.pop(old)
            if old in self._recovering:
                self._recovering[new] = self._recovering.pop(old)
        for place, (was, pool) in renames.pools.items():
            name = place[0]
            task = self._announcing.pop(was, None)
            if task is not None:
                task.cancel()  # the awaited pool has another name
            rollout = self._current(name)  # not one that an earlier configuration has ended
            if rollout is not None:
                self._rollouts[name] = renamed(rollout, pool, place[1])

    # --- twice a second ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Give every rollout its samples, for as long as lb runs."""
        remembered = -REMEMBER_EVERY
        while True:
            await asyncio.sleep(SAMPLE_EVERY)
            if self._state.blocked_by:
                continue
            now = monotonic()
            names = [name for name, known in self._rollouts.items() if known.under_way or not known.announced]
            if names or now - remembered >= REMEMBER_EVERY:
                sums = self._totals.sums()
                if now - remembered >= REMEMBER_EVERY:
                    remembered = now
                    self._remember(sums, now)
                await self._go_on(names, sums, now)

    async def _go_on(self, names: list[str], sums: Counters, now: float) -> None:
        services = {service.name: service for service in self._services()}
        changed: list[tuple[str, Rollout]] = []
        for name in names:
            rollout = self._current(name)
            if rollout is None or name in self._ordered or name not in services:
                continue
            service = services[name]
            if name in self._recovering:
                if self._recovered(service, rollout, now) is not None:
                    changed.append((name, rollout))
            elif rollout.under_way:
                new, effects = advance(rollout, self._sample(service, rollout, sums), now)
                if effects or to_dict(new) != self._wanted(name).rollout:
                    changed.append((name, rollout))
                else:
                    self._rollouts[name] = new
            elif rollout.phase in ("done", "rolled_back") and not rollout.announced and name not in self._announcing:
                task = self._announcing[name] = asyncio.ensure_future(
                    self._guard.keep_running("announcements", partial(self._announce, service, rollout))
                )
                task.add_done_callback(self._announced)
        for name, rollout in changed:
            with suppress(Refused):  # an upgrade has begun meanwhile; the next look decides
                await self._take(name, partial(self._next, name, rollout))

    def _next(self, name: str, rollout: Rollout) -> Next | None:
        """The further state of a rollout that goes on by itself; None: an order has come first."""
        if self._current(name) is not rollout or name in self._ordered:
            return None
        service, now = self._service(name), monotonic()
        if name in self._recovering:
            return self._recovered(service, rollout, now)
        return advance(rollout, self._sample(service, rollout, self._totals.sums()), now)

    def _sample(self, service: Service, rollout: Rollout, sums: Counters) -> Sample:
        pools = {pool.name: pool for pool in service.pools}
        new, old = pools[rollout.plan.new], pools[rollout.plan.old]
        rotation = self._rotations.current[service.name]
        new_ready, new_total = self._readiness(new)
        old_ready, old_total = self._readiness(old)
        return Sample(
            new=_tally(sums, service.name, new.name),
            old=_tally(sums, service.name, old.name),
            new_ready=new_ready,
            new_total=new_total,
            old_ready=old_ready,
            old_total=old_total,
            applied=self._workers.confirmed(rotation.version),
        )

    def _remember(self, sums: Counters, now: float) -> None:
        """Keep what active pools did of late: a switch at once is compared with it."""
        for name, desired in self._desired.current.services.items():
            past = self._past.setdefault((name, desired.active), deque(maxlen=REMEMBERED))
            past.append((now, _tally(sums, name, desired.active)))
        active = {(name, desired.active) for name, desired in self._desired.current.services.items()}
        self._past = {key: past for key, past in self._past.items() if key in active}

    def _before(self, name: str, pool: str) -> Tally:
        past = self._past.get((name, pool))
        if not past:
            return Tally()
        return _tally(self._totals.sums(), name, pool).since(past[0][1])

    # --- after a restart --------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take the rollouts of an earlier lb up where it left them."""
        for name, desired in self._desired.current.services.items():
            if desired.rollout is None:
                continue
            try:
                rollout = from_dict(desired.rollout)
            except ValueError as error:
                self._events.emit("rollout", f"{error}; the traffic stays as it is", name)
                await self._desired.commit(partial(_without_rollout, name))
                continue
            self._rollouts[name] = rollout
            if rollout.under_way:
                self._recovering[name] = monotonic() + RECOVERY

    def _recovered(self, service: Service, rollout: Rollout, now: float) -> Next | None:
        """The decision, once the old pool is known to be ready, or has had the time to become so; None: not yet."""
        old = next(pool for pool in service.pools if pool.name == rollout.plan.old)
        ready, _ = self._readiness(old)
        return resume(rollout, can_go_back=ready > 0) if ready or now >= self._recovering[service.name] else None

    # --- what changes -----------------------------------------------------------------------------------------------

    async def _enter(self, name: str, decide: Callable[[], Next | None], actor: str, version: int | None) -> None:
        """Put an order in force; returns when every worker has confirmed it. Nothing is done if it comes to nothing."""
        if not await self._take(name, decide, actor=actor, version=version):
            return
        task = self._announcing.pop(name, None)
        if task is not None:
            task.cancel()
        await confirm(self._workers, self._rotations.current[name].version)
        rollout = self._current(name)  # a reload may have ended it meanwhile
        if rollout is not None and rollout.under_way:
            self._measure_from_now(name, rollout)

    def _measure_from_now(self, name: str, rollout: Rollout) -> None:
        """Every worker has confirmed: answers count from now on."""
        sample = self._sample(self._service(name), rollout, self._totals.sums())
        self._rollouts[name], _ = advance(rollout, sample, monotonic())

    async def _take(
        self, name: str, decide: Callable[[], Next | None], *, actor: str = "", version: int | None = None
    ) -> bool:
        """The next state of a rollout: on the disk, then to the workers, then told. False: `decide` wants none.

        `decide` looks at what is so when its turn has come, and may refuse. It is asked again once its state is on the
        disk. `Refused` is raised when it then wants another share: its last target may have gone meanwhile.
        """
        decisions: list[Next | None] = []

        def change(desired: Desired) -> tuple[Desired, tuple[Next, ServiceDesired] | None]:
            entered = decide()
            decisions.append(entered)
            if not same_share(decisions[0], entered):
                raise Refused(Refusal.NOT_NOW, "what was decided holds no more: the next look decides")
            if entered is None:
                return desired, None
            before = desired.services[name]
            if before.rollout == to_dict(entered[0]):
                return desired, (entered, before)
            wanted = traffic(entered[0], before, time.time())
            return replace(desired, services={**desired.services, name: wanted}), (entered, before)

        taken = await self._desired.commit(change, version)
        if taken is None:
            return False
        (rollout, effects), before = taken
        self._rollouts[name] = rollout
        self._recovering.pop(name, None)
        after = self._wanted(name)
        if after is not before:
            self._rotations.touch((name,))
            self._rotations.flush()
        for effect in effects:
            kind = "switch" if before.active != after.active else "rollout"
            self._events.emit(
                kind,
                effect.text,
                name,
                actor=actor,
                before=_spelled(before),
                after=_spelled(after),
                change_unsaid=after.shares != before.shares and bool(after.shares),
            )
            if effect.kind == "rollback":
                self._count(name, "rolled_back")
            elif effect.kind == "freeze":
                self._count(name, "frozen")
        if before.active != after.active and rollout.share == 100:
            self._count(name, "done")
        return True

    def _count(self, name: str, result: str) -> None:
        self.switches[name, result] += 1

    def forget(self, services: Container[str]) -> None:
        """Drop the counts of services that the configuration no longer has."""
        self.switches = Counter({key: n for key, n in self.switches.items() if key[0] in services})

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _announce(self, service: Service, rollout: Rollout) -> None:
        """Wait until the pool that lost its traffic is drained, and say so."""
        name, pool = service.name, retired(rollout)
        prefix = f"{name}/{pool}/"
        while True:
            if await self._workers.poll():
                tallies = self._totals.sums().targets
                if not any(t.in_flight + t.tunnels for id, t in tallies.items() if id.startswith(prefix)):
                    break
            await asyncio.sleep(0.5)
        if self._current(name) is not rollout:
            return
        used = self._still_used(service, pool)
        text = f"{pool} is drained, " + (f"but {used}" if used else "and safe to scale to zero")
        hook = self._state.config.services[name].rollout.post
        if hook is not None:
            said = _said("post", name, rollout.plan)
            said |= {"outcome": rollout.phase, "reason": rollout.reason, "drained": pool, "safe": not used}
            outcome = await run_hook(hook, said)
            text += f"; post{'' if outcome.ok else ' failed'}: {outcome.text}"
        done = announced(rollout)

        def change(desired: Desired) -> tuple[Desired, bool]:
            if self._current(name) is not rollout:
                return desired, False
            kept = replace(desired.services[name], rollout=to_dict(done))
            return replace(desired, services={**desired.services, name: kept}), True

        if await self._desired.amend(change):
            self._rollouts[name] = done
            self._events.emit("rollout", text, f"{name}/{pool}")

    def _announced(self, task: asyncio.Task[None]) -> None:
        """Forget the task, however it ended."""
        self._announcing = {name: known for name, known in self._announcing.items() if known is not task}

    def _still_used(self, service: Service, pool: str) -> str:
        """Why a pool without a share may get requests all the same."""
        if self._rotations.current[service.name].fallback == pool:
            return "it is the service's fallback"
        if any(preview.pool == pool for preview in service.previews):
            return "previews go to it"
        mirror = self._state.world.mirrors.get(service.name)
        return "requests are mirrored to it" if mirror is not None and mirror.pool == pool else ""

    def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._announcing.values():
            task.cancel()

    # --- looking ----------------------------------------------------------------------------------------------------

    def view(self, name: str) -> dict[str, Any] | None:
        """The rollout that is under way or frozen, as status shows it."""
        rollout = self._current(name)
        if rollout is None or not (rollout.under_way or rollout.phase == "frozen"):
            return None
        plan, measure = rollout.plan, rollout.measure
        length = plan.bake.time if rollout.phase == "baking" else plan.step_time
        lasted = max(0.0, monotonic() - measure.begin.at) if measure is not None else 0.0
        return {
            "from": plan.old,
            "to": plan.new,
            "phase": rollout.phase,
            "steps": list(plan.steps),
            "step": rollout.step + 1,
            "share": rollout.share,
            "lasted": round(lasted, 1),
            "length": length,
            "ready": {
                pool.name: list(self._readiness(pool))
                for pool in self._service(name).pools
                if pool.name in (plan.old, plan.new)
            },
            "held": rollout.held,
            "needed": rollout.needed,
            "analysis": rollout.outlook,
            "reason": rollout.reason,
            "actor": plan.actor,
            "text": _text(rollout, lasted, length),
        }

    def states(self) -> dict[str, tuple[str, int]]:
        """Service → (stepping, held, baking or frozen; requests still needed), of rollouts that are not over."""
        known = {name: rollout for name in list(self._rollouts) if (rollout := self._current(name)) is not None}
        return {
            name: ("held" if rollout.held else rollout.phase, rollout.needed)
            for name, rollout in known.items()
            if rollout.under_way or rollout.phase == "frozen"
        }

    def _current(self, name: str) -> Rollout | None:
        """The newest rollout; forgotten when a new configuration has made another decision."""
        rollout = self._rollouts.get(name)
        if rollout is None:
            return None
        desired = self._desired.current.services.get(name)
        if desired is not None and desired.rollout is not None:
            return rollout
        del self._rollouts[name]
        self._recovering.pop(name, None)
        if rollout.under_way:
            self._events.emit("rollout", "it ended: the new configuration decides who gets the traffic", name)
        return None

    def _services(self) -> tuple[Service, ...]:
        return self._state.world.snapshot.services

    def _service(self, name: str) -> Service:
        """Raises `Refused` when a reload has taken it away."""
        for service in self._services():
            if service.name == name:
                return service
        raise Refused(Refusal.SERVICE_HAS_CHANGED, f"a reload took {name} away; nothing has been switched")

    def _wanted(self, name: str) -> ServiceDesired:
        return self._desired.current.services[self._service(name).name]

    def _readiness(self, pool: Pool) -> tuple[int, int]:
        """(targets that can serve, targets that could). A target that is drained or has weight 0 on purpose, or was
        added just now and never ready yet, says nothing about the version."""
        rotations, health, overrides = self._rotations, self._monitor.health, self._desired.current.targets
        known = [
            target
            for target in pool.targets
            if meant_to_serve(target, overrides)
            and (found := health(target.id)).ever_ready
            and found.admin == "normal"
            and not found.asks_drain
        ]
        able = sum(1 for target in known if rotations.can_serve(target))
        # In a pool in panic no target gets a request: it is no place to go on to, nor to go back to.
        return able if rotations.strength(pool)[0] >= rotations.least_able(pool) else 0, len(known)

    def _ready_share(self, service: Service, name: str) -> float:
        ready, total = self._readiness(next(pool for pool in service.pools if pool.name == name))
        return ready / total if total else 0.0


def _tally(sums: Counters, service: str, pool: str) -> Tally:
    tally = sums.pools.get((service, pool)) or PoolTally(service, pool)
    return Tally(tally.requests, tally.errors, tuple(tally.buckets))


def _without_rollout(name: str, desired: Desired) -> tuple[Desired, None]:
    services = {**desired.services, name: replace(desired.services[name], rollout=None)}
    return replace(desired, services=services), None


def _worded(entered: Next, more: str) -> Next:
    """The next state of a rollout, with more to say about it."""
    rollout, effects = entered
    return rollout, tuple(effect._replace(text=f"{effect.text}{more}") for effect in effects)


def _previewed(name: str, plan: Plan) -> list[Consequence]:
    """The plan of a release."""
    found: list[Consequence] = []

    def add(kind: Kind, pool: str, text: str, field: str = "", new: str = "") -> None:
        found.append(Consequence(kind=kind, text=text, service=name, pool=pool, field=field, new=new))

    if plan.steps == (100,):
        text = f"all new requests of {name} go to {plan.new} at once; none enters {plan.old} any more"
        add("share", plan.new, text, "share", "100")
    else:
        steps = ", ".join(f"{step} %" for step in plan.steps)
        text = f"{plan.new} gets {steps} of the requests of {name}, each for {format_duration(plan.step_time)}"
        add("share", plan.new, text, "share", ",".join(map(str, plan.steps)))
        end = "stops there" if plan.freeze_on_fail else f"goes back to {plan.old} at once"
        add("compared", plan.new, f"each step is compared with {plan.old}: when {plan.new} is worse, it {end}")
    add("finishing", plan.old, f"requests under way in {plan.old} finish there, and it stays warm for a rollback")
    if plan.bake.time:
        what = "it stops and tells" if plan.freeze_on_fail else f"all traffic returns to {plan.old}"
        time = format_duration(plan.bake.time)
        add("watched", plan.new, f"then {plan.new} is watched for {time}: when too many fail, {what}", "time", time)
    return found


def _moved(name: str, rollout: Rollout) -> list[Consequence]:
    """The meaning of the next state of a release that is under way."""
    plan = rollout.plan
    if rollout.phase == "rolled_back":
        to, text = plan.old, f"all new requests go to {plan.old} at once"
        end = f"the release of {plan.new} ends; requests under way there finish"
        more = [Consequence(kind="ended", text=end, service=name, pool=plan.new)]
    else:
        to, text = plan.new, f"{plan.new} gets all requests at once; the steps that were left are not taken"
        more = []
    return [Consequence(kind="share", text=text, service=name, pool=to, field="share", new="100"), *more]


def _said(event: str, service: str, plan: Plan) -> dict[str, str | int | bool]:
    """The values passed to a hook."""
    return {
        "event": event,
        "service": service,
        "from": plan.old,
        "to": plan.new,
        "steps": ",".join(map(str, plan.steps)),
        "actor": plan.actor,
    }


def _spelled(desired: ServiceDesired) -> str:
    return ", ".join(f"{pool} {parts} %" for pool, parts in desired.shares) or desired.active


def _text(rollout: Rollout, lasted: float, length: float) -> str:
    plan = rollout.plan
    if rollout.phase == "frozen":
        return f"{plan.old} → {plan.new} {rollout.reason}"
    if rollout.measure is None:
        return f"{plan.old} → {plan.new} at {rollout.share} %, not yet confirmed by all workers"
    what = (
        "watched"
        if rollout.phase == "baking"
        else "held"
        if rollout.held
        else f"step {rollout.step + 1} of {len(plan.steps)}"
    )
    text = f"{plan.old} → {plan.new} at {rollout.share} %, {what}, {lasted:.0f} of {length:g} s"
    return f"{text}: {rollout.outlook}" if rollout.outlook else text
