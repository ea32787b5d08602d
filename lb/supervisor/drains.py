"""Taking a target out gently: by an operator, or by a container that is about to stop and names itself (prestop).

A drained target stays so until an operator takes it back, also across restarts of lb. A container that named itself is
expected to come back. Its drain ends when a probe passes after one had failed. If it was never seen down, the drain
ends a while after its container was allowed to stop.

Nothing is drained below `min_ready`. At least one target that can serve must be left by default ("all targets", which
is meant for the pool that a switch leads to). A weight of 0 is refused by the same rule, as it ends the same way. The
rule holds for two more orders when they put the target's pool in panic. One gives a weight above 0 to a target that
cannot serve; the other ends its drain. A target that comes back by itself ends its drain in any case: its checks have
passed. A container that stops is drained in any case, as it would be gone anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lb.config.model.units import format_duration
from lb.core.consequences import Consequence, counted, of_target, without_it
from lb.core.desired import Desired, TargetDesired
from lb.core.lifecycle import Drain, Emptied, Seen, Undrain
from lb.core.refusals import Refusal, Refused
from lb.core.renames import Renames
from lb.core.report import TargetTally
from lb.core.rotation import given_shares
from lb.core.targets import Pool, Target
from lb.health.monitor import Monitor
from lb.supervisor.desired import DesiredState
from lb.supervisor.events import Events
from lb.supervisor.lookup import pool_of, service_of
from lb.supervisor.rates import Rates
from lb.supervisor.rotations import Rotations
from lb.supervisor.state import State
from lb.supervisor.totals import Counters, Totals
from lb.supervisor.workers import Workers

if TYPE_CHECKING:
    from lb.control.models import DrainState

#: Seconds between two looks at targets that drain.
LOOK_EVERY = 0.25
#: Seconds after which a container that was told it may stop, and was never seen down, counts as back.
BACK_AFTER = 60.0
#: Seconds that a prestop waits at most.
LONGEST_WAIT = 600.0


class Drains:
    """All drains of one supervisor."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        rotations: Rotations,
        workers: Workers,
        monitor: Monitor,
        events: Events,
        totals: Totals,
        rates: Rates,
    ) -> None:
        self._state = state
        self._desired = desired
        self._rotations = rotations
        self._workers = workers
        self._monitor = monitor
        self._events = events
        self._totals = totals
        self._rates = rates
        self._seen_down: set[str] = set()
        self._told_safe: dict[str, float] = {}  # since when, by targets that named themselves

    # --- orders -----------------------------------------------------------------------------------------------------

    async def begin(
        self, target: Target, force: bool, actor: str, *, returns: bool = False, version: int | None = None
    ) -> DrainState:
        """No new requests for it; returns when every worker has confirmed that. Raises `Refused`. `version`: of the
        desired state that the order is based on."""

        def change(desired: Desired) -> tuple[Desired, str | None]:
            without = self.without(self.still_there(target), force)
            before = self.wished(target)
            if before.draining:
                return desired, None
            return with_target(desired, target.id, replace(before, draining=True, returns=returns)), without

        without = await self._desired.commit(change, version)
        if without is not None:
            self._monitor.feed(target.id, Drain())
            text = f"{'stops soon, and drains' if returns else 'drains'}{without}"
            self._events.emit(
                "drain", text, target.id, actor=actor, before="in service", after="drained", change_unsaid=True
            )
            await self._rotations.enforce(target.service)
        return await self.state(target)

    async def undrain(self, target: Target, force: bool, actor: str, version: int | None = None) -> None:
        """It may get requests again, if it is ready; returns when every worker has confirmed that. Raises `Refused`.
        `version`: of the desired state that the order is based on."""
        await self._end(target, actor, lambda known: self._gate_of_undrain(known, force), version)

    async def _end(self, target: Target, actor: str, gate: Callable[[Target], str], version: int | None = None) -> None:
        """As `undrain`; `gate` may refuse it, and returns what the event adds."""

        def change(desired: Desired) -> tuple[Desired, str | None]:
            known = self.still_there(target)
            forced = gate(known)
            before = self.wished(known)
            return (with_target(desired, target.id, _undrained(before)), forced) if before.draining else (desired, None)

        forced = await self._desired.commit(change, version)
        if forced is not None:
            self._seen_down.discard(target.id)
            self._told_safe.pop(target.id, None)
            self._monitor.feed(target.id, Undrain())
            text = f"is no longer drained{forced}"
            self._events.emit(
                "drain", text, target.id, actor=actor, before="drained", after="in service", change_unsaid=True
            )
            await self._rotations.enforce(target.service)

    async def prestop(self, target: Target, wait: float, actor: str) -> DrainState:
        """Drain a container that is about to stop; returns when it may, or after `wait` seconds."""
        state = await self.begin(target, True, actor, returns=True)
        until = time.monotonic() + min(wait, LONGEST_WAIT)
        while not state.safe and time.monotonic() < until:
            await asyncio.sleep(LOOK_EVERY)
            state = await self.state(target)
        if state.safe:
            self._told_safe.setdefault(target.id, time.monotonic())
        return state

    def preview(self, target: Target, force: bool) -> list[Consequence]:
        """The effects of `begin`. Raises the `Refused` that it would raise; nothing is changed."""
        self.without(target, force)
        wished = self.wished(target)
        if wished.draining:
            return [of_target("unchanged", target, f"{target.id} is drained already: nothing changes")]
        tally = self._totals.sums().targets.get(target.id, TargetTally(target.id))
        bound = self._state.config.services[target.service].timeouts.drain
        text = f"no new request goes to {target.id}, until it is undrained"
        found = [of_target("share", target, text, field="share", new="0")]
        found += self.without_it(target, replace(wished, draining=True))
        for count, noun in ((tally.in_flight, "request"), (tally.tunnels, "tunnel")):
            if count:
                until = f" within {format_duration(bound)}, then it is cut" if bound else ""
                text = f"{count} {noun}{'' if count == 1 else 's'} under way there may end{until}"
                field = "in_flight" if noun == "request" else "tunnels"
                found.append(of_target("finishing", target, text, field=field, old=str(count)))
        return found

    def preview_undrain(self, target: Target, force: bool) -> list[Consequence]:
        """The effects of `undrain`. Raises the `Refused` that it would raise; nothing is changed."""
        if not self.wished(target).draining:
            return [of_target("unchanged", target, f"{target.id} is not drained: nothing changes")]
        self._gate_of_undrain(target, force)
        wanted = _undrained(self.wished(target))
        reason = self._rotations.why_not_then(target, wanted)
        if reason:
            text = f"{target.id} gets requests again once it can serve ({reason})"
            return [of_target("waiting", target, text), *self.counted(target, wanted)]
        return [of_target("returning", target, f"{target.id} gets requests of {target.pool} again at once")]

    def without_it(self, target: Target, wanted: TargetDesired) -> Sequence[Consequence]:
        """Which targets get the requests of a target that these wishes take out."""
        rotations = self._rotations
        pool = pool_of(service_of(self._state, target.service), target.pool)
        able = {each.id for each in pool.targets if rotations.can_serve(each)}
        return without_it(target, rotations.current[target.service], rotations.with_wishes(target, wanted), able)

    def counted(self, target: Target, wanted: TargetDesired) -> Sequence[Consequence]:
        """The path of a pool's requests when a target that cannot serve counts by these wishes."""
        rotations = self._rotations
        return counted(target, rotations.current[target.service], rotations.with_wishes(target, wanted))

    def configure(self, targets: Collection[str], renames: Renames) -> None:
        """Rename the targets to their new names, and forget removed targets."""
        for new, formers in renames.targets.items():
            for old in formers:
                if old in self._seen_down:
                    self._seen_down.add(new)
                if old in self._told_safe:
                    self._told_safe[new] = self._told_safe[old]
        self._seen_down.intersection_update(targets)
        self._told_safe = {id: since for id, since in self._told_safe.items() if id in targets}

    def drop(self, targets: Iterable[str]) -> None:
        """Forget these targets."""
        for id in targets:
            self._seen_down.discard(id)
            self._told_safe.pop(id, None)

    # --- looking ----------------------------------------------------------------------------------------------------

    async def state(self, target: Target) -> DrainState:
        """The remaining work, and for how long it will go on. Raises `Refused` when a reload has taken the target
        away."""
        answered = await self._workers.poll()
        return self._drain_state(self.still_there(target), self._totals.sums(), answered)

    def still_there(self, target: Target) -> Target:
        """The target as it is configured now. Raises `Refused` when a reload has taken it away."""
        known = self._state.targets.get(target.id)
        if known is None:
            raise Refused(Refusal.NO_SUCH_TARGET, f"a reload has taken {target.id} out of the configuration meanwhile")
        return known

    def _drain_state(self, target: Target, sums: Counters, answered: bool) -> DrainState:
        from lb.control.models import DrainState

        tally = sums.targets.get(target.id, TargetTally(target.id))
        draining = self.wished(target).draining
        left = tally.in_flight + tally.tunnels
        rotation = self._rotations.current[target.service]
        known = answered and self._workers.serves(rotation.version)
        bound = self._state.config.services[target.service].timeouts.drain
        passed = time.monotonic() - self._monitor.health(target.id).admin_since
        cut_in = max(0.0, bound - passed) if draining and left and bound else None
        return DrainState(
            target=target.id,
            safe=draining and not left and known,
            in_flight=tally.in_flight,
            tunnels=tally.tunnels,
            cut_in=cut_in,
            estimate=self._estimate(target, tally, cut_in) if draining else None,
        )

    def _estimate(self, target: Target, tally: TargetTally, cut_in: float | None) -> float | None:
        """Seconds until nothing is left, as an estimate. Tunnels go when they are cut, requests take as long as 99 of
        100 took of late."""
        if not tally.in_flight and not tally.tunnels:
            return 0.0
        if tally.tunnels:
            return cut_in
        usual = self._rates.of_target(target.id).percentile(0.99)
        if usual is None:
            return cut_in
        return usual if cut_in is None else min(usual, cut_in)

    def wished(self, target: Target) -> TargetDesired:
        """The operators' wish for it."""
        return self._desired.current.targets.get(target.id, TargetDesired())

    def without(self, target: Target, force: bool) -> str:
        """Refuse to take a target out when too few would be left; with `force`, the event's addition about that."""
        return _unless(force, lambda: self._check_enough_left(target))

    def counting(self, target: Target, wanted: TargetDesired, force: bool) -> str:
        """Refuse wishes by which a target that cannot serve counts, when that brings its pool into panic; with `force`,
        the event's addition about that."""
        return _unless(force, lambda: self._check_no_panic(target, wanted))

    def _gate_of_undrain(self, target: Target, force: bool) -> str:
        return self.counting(target, _undrained(self.wished(target)), force)

    def _pool_with_traffic(self, target: Target) -> Pool | None:
        """The target's pool, if requests are meant for it or go to it; None: the pool gets no requests."""
        desired = self._desired.current.services[target.service]
        given = given_shares(self._rotations.current[target.service])
        with_traffic = {pool for pool, parts in (*desired.shares, *given.items()) if parts} | {desired.active}
        if target.pool not in with_traffic:
            return None
        return pool_of(service_of(self._state, target.service), target.pool)

    def _check_enough_left(self, target: Target) -> None:
        rotations = self._rotations
        pool = self._pool_with_traffic(target)
        if pool is None or not rotations.can_serve(target):
            return
        able, meant = rotations.strength(pool)
        left = able - 1
        quorum = self._state.config.services[target.service].rollout.min_ready
        all_of_them = not quorum.count and quorum.share >= 1.0
        needed = max(rotations.least_able(pool, target.id), 1 if all_of_them else quorum.needed(meant))
        if left < needed:
            number = f"{left} ready target{'' if left == 1 else 's'}"
            detail = f"without {target.id} pool {pool.name}, which has traffic, has {number}; {needed} must be left"
            obstacles = [each for each in rotations.unable(pool) if each.target != target.id]
            raise Refused(Refusal.TOO_FEW_LEFT, detail, obstacles)

    def _check_no_panic(self, target: Target, wanted: TargetDesired) -> None:
        rotations = self._rotations
        pool = self._pool_with_traffic(target)
        if pool is not None and rotations.stops(pool, {target.id: wanted}):
            able, _ = rotations.strength(pool)
            detail = (
                f"{target.id} cannot serve ({rotations.why_not_then(target, wanted)}); once it counts, {able} ready in "
                f"{pool.name} are fewer than `panic_threshold` asks for"
            )
            raise Refused(Refusal.TOO_FEW_LEFT, detail, rotations.unable(pool))

    # --- what comes of them -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """See when targets are empty, and when containers are back, for as long as lb runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            healths = self._monitor.healths
            wishes = self._desired.current.targets  # of thousands of targets few have one
            draining = [id for id in wishes if id in healths and healths[id].admin == "draining"]
            if draining:
                await self._look(draining)
            for id, wanted in list(self._desired.current.targets.items()):
                if wanted.returns and id in healths and not self._state.blocked_by:
                    await self._look_for_return(id)

    async def _look(self, draining: list[str]) -> None:
        answered = await self._workers.poll()
        sums = self._totals.sums()  # once for all: a whole service may drain
        for id in draining:
            target = self._state.targets.get(id)
            if target is None or not self.wished(target).draining:
                continue
            if self._drain_state(target, sums, answered).safe:
                self._monitor.feed(id, Emptied())
                if self.wished(target).returns:
                    self._told_safe.setdefault(id, time.monotonic())

    async def _look_for_return(self, id: str) -> None:
        target, health = self._state.targets[id], self._monitor.health(id)
        if health.admin == "drained":
            self._told_safe.setdefault(id, time.monotonic())
        safe_since = self._told_safe.get(id)
        up = health.streak >= 0 and health.probe == "ready"
        if safe_since is not None and (not up or failed_since(self._monitor.history(id), safe_since)):
            self._seen_down.add(id)
        if not up:
            return
        if safe_since is not None and id not in self._seen_down:
            self._monitor.nudge(id)  # it stops at any moment, and may be back before its next probe is due
        if id in self._seen_down or (safe_since is not None and time.monotonic() - safe_since > BACK_AFTER):
            with suppress(Refused):
                await self._end(target, "it is back", lambda known: "")  # its checks have passed


def _undrained(wished: TargetDesired) -> TargetDesired:
    return replace(wished, draining=False, returns=False)


def _unless(force: bool, check: Callable[[], None]) -> str:
    """Let `check` refuse an order; with `force`, the event's addition about that."""
    try:
        check()
    except Refused as refused:
        if not force:
            raise
        return f" (forced: {refused.detail})"
    return ""


def with_target(desired: Desired, id: str, wanted: TargetDesired) -> Desired:
    """The same wishes with another one for a target."""
    targets = {**desired.targets, id: wanted}
    if wanted == TargetDesired():
        del targets[id]
    return replace(desired, targets=targets)


def failed_since(history: Iterable[Seen], since: float) -> bool:
    """Whether a probe that began at `since` (monotonic seconds) or later has failed. A container may go and come back
    between two looks at its state."""
    return any(seen.at >= since and not seen.verdict.ok and not seen.verdict.ignored for seen in history)
