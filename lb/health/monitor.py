"""Monitor: probes every target on its schedule and feeds the verdicts to `core.lifecycle.step`.

Each target is probed once, however many workers there are. The first probes start at once and side by side. Later
probes keep to a schedule that does not drift. Each is a random bit early (`jitter`), so that targets which started
together do not stay together. `interval` is measured from start to start and is an upper bound: detection takes at most
interval × fall + timeout. Probes of one target do not overlap, and no probe waits for another target's answer.

A failure is doubted before it is counted (`core.common_cause`). Then lb's loop may have stood still, its network may be
down, or the target may only be busy.

When the question of a check changes, the new check is on trial on targets that were ready under the former check. The
former check goes on and decides until the new one has passed there. (A target without a former check stays ready that
long.) When the new check fails on a target but passes on another target of the pool, the target leaves rotation. When
it passes on no target of the pool, the check itself is suspected, and a notice says so. In Marathon-LB #602 a bad new
check took the old instances out.

The monitor acts on nothing but `on_failure`. It reports changes of a target to `on_change`, verdicts to `on_probe`, and
suspicions to `on_notice`.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import msgspec

from lb.core import restore
from lb.core.checks import Checks, CheckSpec, definition, identity
from lb.core.common_cause import CommonCause, Notice, overloaded, stalled
from lb.core.lifecycle import (
    Effect,
    Event,
    Health,
    Probed,
    Rules,
    Seen,
    Tick,
    Verdict,
    in_rotation,
    initial,
    pause,
    step,
    under_rules,
)
from lb.core.liveness import Liveness
from lb.core.renames import NONE, Renames
from lb.core.restore import Kept
from lb.core.targets import Target, TlsClient
from lb.health.addresses import Addresses, OnAddress, order
from lb.health.healths import Healths
from lb.health.liveness import LivenessTracker
from lb.health.loop_lag import LoopLag
from lb.health.probes import Probe, ask, build
from lb.health.probes.dial import Dialer, place_of
from lb.health.probes.inline import PendingProbe
from lb.health.probes.turns import Turns
from lb.health.schedule import Schedule
from lb.net.resolver import LookUp, Resolver, is_name
from lb.net.tls.contexts import Contents

Kind = Literal["readiness", "liveness"]
#: A watch's part: `former` is a readiness check that was replaced and decides until the new one has passed.
Role = Literal["readiness", "liveness", "former", "canary"]
OnChange = Callable[[str, Health, Health, tuple[Effect, ...]], None]
OnProbe = Callable[[str, Kind, Seen], None]
OnNotice = Callable[[Notice], None]

#: Probes remembered per target and kind.
HISTORY = 20
#: First probes of many targets start this far apart, so that a thousand of them do not stall the loop.
PACE = 0.00015
#: Probes come due on a grid of so many seconds: at a thousand a second twenty start together, on one wake-up of the
#: process. That saves over a third of their cost. (For a wait below a fifth of a second the grid is a tenth of it.)
GRID = 0.02
#: Connections that probes may have open at one time, where the limit of descriptors allows so many.
CONNECTIONS = 4096
#: Programs that may run at one time for `protocol: command`.
PROGRAMS = 64
#: A nudged target is probed this long after its last probe at the earliest, seconds.
NUDGE = 0.2
#: Timers may fire a little early. A probe at the end of an ejection must not.
SLACK = 0.005
#: The check of a target that is not probed.
UNPROBED = CheckSpec(protocol="none")
#: Seconds by which the system's clock must be set for times that were made from it to be made anew.
CLOCK_SET = 0.1
#: Seconds after which another standstill of lb's own loop is reported.
REPORT_AGAIN = 5.0


class _Room:
    """The bound of probes of one kind that are under way at one time."""

    __slots__ = ("free", "waiting")

    def __init__(self, free: int) -> None:
        self.free = free
        self.waiting: deque[_Watch] = deque()


class _Watch:
    """One check of one target."""

    __slots__ = (
        "at",
        "began",
        "completed",
        "due",
        "history",
        "identity",
        "lost",
        "name",
        "passed",
        "pool",
        "probe",
        "queued",
        "role",
        "room",
        "spec",
        "started",
        "target",
        "trial",
        "turn",
        "under_way",
        "waiting",
    )

    def __init__(self, target: Target, role: Role, spec: CheckSpec, probe: Probe, room: _Room) -> None:
        self.target = target
        self.pool = _pool(target)
        self.room = room
        self.role: Role = role
        self.spec = spec
        self.probe = probe
        self.identity = identity(target, spec)
        host, _ = place_of(target, spec)
        self.name = host if is_name(host) else ""  # the host name to resolve; empty: there is nothing to resolve
        self.at = ""  # the address of that name that passed last
        self.turn = 0  # probes of a name so far
        self.due = 0.0
        self.started = 0.0  # of the last probe
        self.began = False  # it was probed at least once
        self.passed = False  # it passed at least once
        self.queued = False  # it is due and waits for room
        self.lost = 0.0  # `LoopLag.lost()` when the probe under way started
        self.completed: dict[int, int] = {}  # worker → its first count of completed requests during the probe
        self.trial: Health | None = None  # the target's health by this check, while the former check decides
        self.under_way: PendingProbe | None = None
        self.waiting: list[asyncio.Future[Verdict | None]] = []  # callers that wait for the end of the probe under way
        self.history: deque[Seen] = deque(maxlen=HISTORY)


class Monitor:
    """The supervisor's one checker. `on_change` is called when a step had effects, `on_probe` for each verdict."""

    def __init__(
        self,
        *,
        rng: random.Random,
        on_change: OnChange,
        on_probe: OnProbe,
        on_notice: OnNotice | None = None,
        on_address: OnAddress | None = None,
        on_tls: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        look_up: LookUp | None = None,
    ) -> None:
        self._rng = rng
        self._clock = clock
        self._on_change = on_change
        self._on_probe = on_probe
        self._on_notice = on_notice or (lambda notice: None)
        self._on_tls = on_tls or (lambda target: None)
        self._resolver = Resolver(clock, self._on_resolved, look_up)
        self._dialer = Dialer(clock, self._resolver)
        self._addresses = Addresses(on_address or (lambda target, before, after: None))
        self.addresses = self._addresses.in_use
        self._schedule: Schedule[_Watch] = Schedule(clock, self._due)
        self._loop_lag = LoopLag(clock)
        self._common_cause = CommonCause()
        self._liveness = LivenessTracker(clock, self._life)
        self._standstill_reported = float("-inf")
        self._rooms = {"command": _Room(PROGRAMS), "": _Room(_connections())}
        self._watches: dict[tuple[str, Role], _Watch] = {}
        self._targets: dict[str, Target] = {}
        self._named: dict[str, list[str]] = {}  # host name → targets
        self._unprobed: dict[str, tuple[Target, str]] = {}  # identities, as far as they were asked for
        self._rules: dict[str, Rules] = {}
        self._busy: dict[str, dict[int, tuple[int, int]]] = {}  # target → worker → (in flight, completed), as reported
        self._kept: dict[str, tuple[Health, Kept | None]] = {}  # what is to be kept of a health, and of which
        self._kept_offset = 0.0  # Unix time less monotonic time, by which it was made
        self._healths = Healths()
        self.healths: Mapping[str, Health] = self._healths  # no proxy: thousands of look-ups for one change
        self.not_ready = self._healths.not_ready
        self.liveness: Mapping[str, Liveness] = self._liveness.states

    # --- updates -----------------------------------------------------------------------------------------------------

    def update(
        self,
        checks: Mapping[str, Checks],
        targets: Mapping[str, Target],
        rules: Mapping[str, Rules],
        canary: tuple[Target, CheckSpec] | None = None,
        renames: Renames = NONE,
        contents: Contents | None = None,
    ) -> None:
        """Watch exactly these targets, with these contents of TLS files.

        A target whose address and check are unchanged keeps its health, also under another name (`renames`).
        """
        asked = [spec for each in checks.values() for spec in (each.readiness, each.liveness) if spec is not None]
        pairs = [*((watch.target, watch.spec) for watch in self._watches.values()), *([canary] if canary else [])]
        settings = [*(target.tls for target in targets.values()), *(spec.tls for spec in asked), TlsClient()]
        settings += [tls for target, spec in pairs for tls in (target.tls, spec.tls)]
        self._dialer.contexts.use({tls for tls in settings if tls is not None}, contents or {})
        self._take_names_over(checks, targets, renames)
        self._kept.clear()  # the checks may be other ones
        for target_id in [old for old in self._targets if old not in targets]:
            self._forget(target_id)
        for target_id, target in targets.items():
            self._watch(target, checks[target_id], rules[target_id])
        self._watch_canary(canary)
        self._named = {}
        for target in targets.values():
            if is_name(target.host):
                self._named.setdefault(target.host, []).append(target.id)
        self._resolver.use({*self._named, *(watch.name for watch in self._watches.values() if watch.name)})
        for host in self._named:
            self._use_unprobed(host)
        rounds = [watch.spec.interval + watch.spec.timeout for watch in self._watches.values()]
        self._common_cause.window = max(rounds, default=3.0)
        now, first = self._clock(), 0
        for watch in self._watches.values():
            if not watch.began and watch.under_way is None and not watch.queued:
                self._set(watch, now + first * PACE)
                first += 1

    def change(self, changed: Iterable[tuple[Target, Checks, Rules]], removed: Iterable[str]) -> None:
        """As `update`, where most targets stay: some are new, have other settings, or are gone.

        They have no names to resolve and no contents of TLS files that no other target has."""
        for target_id in removed:
            self._forget(target_id)
        now, first = self._clock(), 0
        for target, checks, rules in changed:
            self._watch(target, checks, rules)
            roles: tuple[Role, ...] = ("readiness", "liveness")
            for watch in [each for role in roles if (each := self._watches.get((target.id, role))) is not None]:
                self._common_cause.window = max(self._common_cause.window, watch.spec.interval + watch.spec.timeout)
                if not watch.began and watch.under_way is None and not watch.queued:
                    self._set(watch, now + first * PACE)
                    first += 1

    def _watch(self, target: Target, checks: Checks, rules: Rules) -> None:
        self._apply_rules(target.id, rules)
        self._kept.pop(target.id, None)
        self._targets[target.id] = target
        self._watch_readiness(target, checks.readiness)
        self._watch_liveness(target, checks)

    def foresee(
        self, checks: Mapping[str, Checks], targets: Mapping[str, Target], rules: Mapping[str, Rules], renames: Renames
    ) -> dict[str, Health]:
        """The health that these targets would have after `update` with the same values.

        A target without a health before and with probes to come is omitted.
        """
        now = self._clock()
        healths = {}
        for target_id, target in targets.items():
            spec = checks[target_id].readiness
            known_as, health = self._known_as(target, spec, renames)
            anew = initial(now, rules[target_id])
            if health is not None:
                health = under_rules(health, now, rules[target_id])
                healths[target_id] = health if self._keeps(known_as, target, spec) else _begun_anew(anew, health)
            elif not rules[target_id].probed:
                healths[target_id] = anew
        return healths

    def _known_as(self, target: Target, spec: CheckSpec, renames: Renames) -> tuple[str, Health | None]:
        """The id under which the health of `target` is stored, and the part of that health which it would keep."""
        if target.id in self._healths:
            return target.id, self._healths[target.id]
        former = self._former(target, spec, renames, self._healths)
        if former is None:
            return target.id, None
        old, stays, answered = former
        if not stays:
            return old, self._healths[old]
        return old, _probed_alone(self._healths[old], self._clock(), self._rules[old]) if answered else None

    def _keeps(self, known_as: str, target: Target, spec: CheckSpec) -> bool:
        """Whether `target`, with this check, keeps the health stored under an id: see `_watch_readiness`."""
        watch, former = self._watches.get((known_as, "readiness")), self._watches.get((known_as, "former"))
        ready = self._healths[known_as].probe == "ready"
        if watch is None:
            return ready
        if spec.protocol == "none" or not _same_place(watch.target, target):
            return False
        return ready or any(each is not None and _asks_the_same(each, target, spec) for each in (watch, former))

    def _take_names_over(self, checks: Mapping[str, Checks], targets: Mapping[str, Target], renames: Renames) -> None:
        """Give new targets the health of targets with the same address."""
        if not renames:
            return
        healths, rules, addresses = dict(self._healths), dict(self._rules), dict(self.addresses)
        successions = [
            (targets[new], former)
            for new in dict.fromkeys((*renames.targets, *renames.twins))
            if new in targets and (former := self._former(targets[new], checks[new].readiness, renames, healths))
        ]
        for target, (old, stays, answered) in successions:
            self._addresses.succeed(target.id, addresses.get(old, ()))
            if not stays and old in self._healths:
                self._rename(old, target)
            elif answered:  # the former target stays, or has another name already
                health = _probed_alone(healths[old], self._clock(), rules[old]) if stays else healths[old]
                self._rules[target.id] = rules[old]
                self._know_as(target, checks[target.id].readiness, health)

    def _former(
        self, target: Target, asked: CheckSpec, renames: Renames, healths: Mapping[str, Health]
    ) -> tuple[str, bool, bool] | None:
        """The target that `target` succeeds: (id, whether that one stays, whether its verdict answers `asked`)."""
        gone = [old for old in renames.targets.get(target.id, ()) if self._is_at(old, target)]
        twins = [old for old in renames.twins.get(target.id, ()) if self._is_at(old, target)]
        twins = [old for old in twins if healths[old].probe != "starting"]
        for olds, stay in ((gone, False), (twins, True)):
            alike = [old for old in olds if self._answers(old, asked)]
            if alike:
                return min(alike, key=lambda old: _ill(healths[old])), stay, True
            if olds and renames.is_renamed(target.id, olds[0]):
                return olds[0], stay, False  # its check has changed, so that the new check is on trial
        return None

    def _is_at(self, target_id: str, target: Target) -> bool:
        stored = self._targets.get(target_id)
        return stored is not None and _same_place(stored, target)

    def _answers(self, target_id: str, asked: CheckSpec) -> bool:
        """Whether a target's health is based on the same question."""
        watch = self._watches.get((target_id, "readiness"))
        if watch is None:
            return asked.protocol == "none"
        return watch.trial is None and _same_question(watch.spec, asked)

    def _rename(self, old: str, target: Target) -> None:
        """Watch `old` under the name of `target`, which takes over its probes, past and under way."""
        for role in ("readiness", "liveness", "former"):
            watch = self._watches.pop((old, role), None)
            if watch is not None:
                watch.target, watch.pool = replace(target, tls=watch.target.tls), _pool(target)
                watch.probe = build(watch.target, watch.spec, self._dialer)
                watch.completed.clear()  # workers count anew under the new name
                self._watches[target.id, role] = watch
        health = self._healths.take(old)
        self._healths[target.id] = health
        self._rules[target.id] = self._rules.pop(old)
        self._liveness.rename(old, target)
        self._busy.pop(old, None)
        self._unprobed.pop(old, None)
        self._addresses.forget(old)
        self._notify(self._common_cause.set_ready(_pool(self._targets.pop(old)), old, False))
        self._targets[target.id] = target
        self._hear_of(target, health)

    def _know_as(self, target: Target, spec: CheckSpec, health: Health) -> None:
        """Add a target with the health of another target of the same address."""
        self._targets[target.id] = target
        self._healths[target.id] = health
        if spec.protocol != "none":
            self._add(target, "readiness", spec).at = next(iter(self.addresses.get(target.id, ())), "")
        self._hear_of(target, health)

    def _hear_of(self, target: Target, health: Health) -> None:
        ready = health.probe == "ready" and (target.id, "readiness") in self._watches
        self._notify(self._common_cause.set_ready(_pool(target), target.id, ready))

    def _apply_rules(self, target_id: str, rules: Rules) -> None:
        """Use new rules; timed states under way go on by them."""
        health = self._healths.get(target_id)
        if health is not None and self._rules.get(target_id, rules) != rules:
            self._healths[target_id] = under_rules(health, self._clock(), rules)
        self._rules[target_id] = rules

    def _watch_readiness(self, target: Target, spec: CheckSpec) -> None:
        now = self._clock()
        key: tuple[str, Role] = (target.id, "readiness")
        watch = self._watches.get(key)
        health = self._healths.get(target.id)
        former = self._watches.get((target.id, "former"))
        if watch is not None and health is not None and _same_place(watch.target, target) and spec.protocol != "none":
            if _asks_the_same(watch, target, spec):
                self._adjust(watch, target, spec)
                if former is not None:
                    former.target = replace(target, tls=former.target.tls)
                return
            if former is not None and _asks_the_same(former, target, spec):  # the change was reverted
                self._unwatch(key)
                del self._watches[target.id, "former"]
                former.role = "readiness"
                self._watches[key] = former
                self._adjust(former, target, spec)
                return
            if health.probe == "ready":
                trusted = former
                if trusted is None:
                    trusted = self._watches.pop(key)
                    trusted.role = "former"
                    self._watches[target.id, "former"] = trusted
                else:
                    self._unwatch(key)
                trusted.target = replace(target, tls=trusted.target.tls)
                trial = self._add(target, "readiness", spec)
                trial.trial = initial(now, replace(self._rules[target.id], probed=True))
                return
        elif watch is None and health is not None and health.probe == "ready":
            if spec.protocol != "none":  # it counted as ready without a check, and does until the first check decides
                self._add(target, "readiness", spec).trial = initial(now, self._rules[target.id])
            return
        self._unwatch(key)
        self._unwatch((target.id, "former"))
        self._replace(target.id, initial(now, self._rules[target.id]))
        if spec.protocol != "none":
            self._add(target, "readiness", spec)

    def _watch_liveness(self, target: Target, checks: Checks) -> None:
        key: tuple[str, Role] = (target.id, "liveness")
        spec = checks.liveness
        if spec is None or spec.protocol == "none":
            self._unwatch(key)
            self._liveness.forget(target.id)
            return
        watch = self._watches.get(key)
        same = watch is not None and _same_place(watch.target, target) and _asks_the_same(watch, target, spec)
        if watch is not None and same:
            self._adjust(watch, target, spec)
        else:
            self._unwatch(key)
            self._add(target, "liveness", spec)
        self._liveness.watch(target, spec, checks.on_failure, anew=not same)

    def _watch_canary(self, canary: tuple[Target, CheckSpec] | None) -> None:
        watch = next((watch for watch in self._watches.values() if watch.role == "canary"), None)
        if watch is not None and (canary is None or (watch.target, watch.spec) != canary):
            self._unwatch((watch.target.id, "canary"))
            self._common_cause.canary = None
            watch = None
        if watch is None and canary is not None:
            self._add(canary[0], "canary", canary[1])

    def _add(self, target: Target, role: Role, spec: CheckSpec) -> _Watch:
        room = self._rooms["command" if spec.protocol == "command" else ""]
        watch = _Watch(target, role, spec, build(target, spec, self._dialer), room)
        self._watches[target.id, role] = watch
        return watch

    def _adjust(self, watch: _Watch, target: Target, spec: CheckSpec) -> None:
        """Use a check with the same question, perhaps at another interval."""
        if watch.target == target and watch.spec == spec:
            return
        watch.target, watch.spec = target, spec
        watch.identity = identity(target, spec)
        watch.probe = build(target, spec, self._dialer)  # a probe under way goes on with the old one
        sooner = self._clock() + spec.interval
        if watch.began and watch.under_way is None and watch.due > sooner:
            self._set(watch, sooner)

    def _unwatch(self, key: tuple[str, Role]) -> None:
        watch = self._watches.pop(key, None)
        if watch is not None:
            self._schedule.drop(watch)
            watch.queued = False
            if watch.under_way is not None:
                watch.under_way.cancel()  # it gives no verdict

    def _forget(self, target_id: str) -> None:
        target = self._targets.pop(target_id)
        for role in ("readiness", "liveness", "former"):
            self._unwatch((target_id, role))
        self._liveness.forget(target_id)
        self._addresses.forget(target_id)
        self._busy.pop(target_id, None)
        self._unprobed.pop(target_id, None)
        del self._rules[target_id], self._healths[target_id]
        self._kept.pop(target_id, None)
        self._notify(self._common_cause.set_ready(_pool(target), target_id, False))

    # --- queries -----------------------------------------------------------------------------------------------------

    def health(self, target_id: str) -> Health:
        return self._healths[target_id]

    def history(self, target_id: str, kind: Role = "readiness") -> tuple[Seen, ...]:
        """The last probes, oldest first."""
        watch = self._watches.get((target_id, kind))
        return tuple(watch.history) if watch is not None else ()

    def asked(self, target_id: str, kind: Role = "readiness") -> str:
        """The question of a target's probes, for people. Empty: it is not probed."""
        watch = self._watches.get((target_id, kind))
        return watch.probe.asked if watch is not None else ""

    def expected(self, target_id: str, kind: Role = "readiness") -> str:
        """The answer that a target's probes expect, for people."""
        watch = self._watches.get((target_id, kind))
        return watch.probe.expected if watch is not None else ""

    def next_probe(self, target_id: str, kind: Role = "readiness") -> float | None:
        """The time of a target's next probe, monotonic seconds. None: it is not probed. Past: one is under way."""
        watch = self._watches.get((target_id, kind))
        return watch.due if watch is not None else None

    def on_trial(self, target_id: str) -> Health | None:
        """The target's health by a changed check, while the former check decides. None: no check is on trial."""
        watch = self._watches.get((target_id, "readiness"))
        return watch.trial if watch is not None else None

    def trials(self) -> list[str]:
        """The targets on which a changed check has not passed yet."""
        return [id for (id, role), watch in self._watches.items() if role == "readiness" and watch.trial is not None]

    def former_tls(self) -> dict[str, TlsClient | None]:
        """The former TLS settings of targets whose new settings have not passed a check yet: requests use these."""
        formers = (watch.target for watch in self._watches.values() if watch.role == "former")
        return {target.id: target.tls for target in formers if target.tls != self._targets[target.id].tls}

    def late(self) -> list[float]:
        """Seconds by which the last probes started late."""
        return list(self._schedule.late)

    # --- other events --------------------------------------------------------------------------------------------

    def feed(self, target_id: str, event: Event) -> None:
        """Apply another event to a target: an operator's order, an ejection, the end of its last request."""
        self._step(target_id, event)

    def observe(self, worker: int, target_id: str, in_flight: int, completed: int) -> None:
        """Take a worker's report: requests to the target in flight now, and completed (answered below 500) so far."""
        self._busy.setdefault(target_id, {})[worker] = (in_flight, completed)
        watch = self._watches.get((target_id, "readiness"))
        if watch is not None and watch.under_way is not None:
            watch.completed.setdefault(worker, completed)

    def nudge(self, target_id: str) -> None:
        """Probe the target now, before it is due: traffic indicates a problem."""
        watch = self._watches.get((target_id, "readiness"))
        if watch is not None:
            self._nudge(watch)

    def _nudge(self, watch: _Watch) -> None:
        if watch.under_way is None and not watch.queued:
            at = max(self._clock(), watch.started + min(NUDGE, watch.spec.interval))
            if at < watch.due:
                self._set(watch, at)

    def tick(self) -> None:
        """End the ejections of unprobed targets whose time is over."""
        over = [id for id, health in self._healths.items() if health.ejected_until and not self._rules[id].probed]
        for target_id in over:
            self._step(target_id, Tick())

    async def probe_now(self, target_id: str, kind: Kind = "readiness") -> Verdict:
        """Probe at once, or wait for the probe under way. The verdict counts. Raises KeyError when it is not probed."""
        watch = self._watches[target_id, kind]
        if watch.under_way is None:
            self._schedule.drop(watch)
            watch.queued = False
            watch.due = self._clock()
            self._start(watch)
        over: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        watch.waiting.append(over)
        verdict = await over
        if verdict is None:
            return Verdict(False, 0.0, "broken off: the target or its check has changed", ignored=True)
        return verdict

    def keep(self) -> list[Kept]:
        """The verdicts of all targets, to be restored after a restart."""
        now, unix = self._clock(), time.time()
        if abs(unix - now - self._kept_offset) > CLOCK_SET:
            self._kept.clear()
            self._kept_offset = unix - now
        verdicts: dict[str, Kept] = {}
        for target_id in self._targets:
            health = self._healths[target_id]
            known = self._kept.get(target_id)
            kept = known[1] if known is not None and known[0] is health else self._keep(target_id, health, now, unix)
            if kept is not None:
                verdicts[target_id] = kept
        for target_id, life in self.liveness.items():
            watch = self._watches.get((target_id, "liveness"))
            if life.tries and watch is not None:
                kept = verdicts.get(target_id) or Kept(target_id, self._identity(target_id), False, False, 0.0, "")
                verdicts[target_id] = restore.with_life(kept, watch.identity, life, now, unix)
        for target_id, addresses in self.addresses.items():
            if target_id in verdicts:
                verdicts[target_id] = msgspec.structs.replace(verdicts[target_id], address=addresses[0])
        return list(verdicts.values())

    def _keep(self, target_id: str, health: Health, now: float, unix: float) -> Kept | None:
        """The part of a health to keep. It is remembered where only another health, or other checks, make it another
        one: thousands of targets stay as they are."""
        watch, former = self._watches.get((target_id, "readiness")), self._watches.get((target_id, "former"))
        decided = watch is not None and (watch.trial is None or former is not None)
        kept = restore.keep(target_id, self._identity(target_id), health, decided, now, unix)
        if former is not None:
            return restore.with_former(kept, former.spec) if kept is not None else None
        if restore.stands(health, now) and (watch is None or watch.trial is None):
            self._kept[target_id] = health, kept
        return kept

    def restore(self, kept: Iterable[Kept]) -> list[str]:
        """Take over the verdicts from before a restart, before the first probes. Returns the ids that have one."""
        self._kept.clear()  # checks may be on trial again
        kept = self._under_new_names(kept)
        now, unix = self._clock(), time.time()
        held = []
        for each in kept:
            watch = self._watches.get((each.target, "readiness"))
            if each.target not in self._healths or each.identity != self._identity(each.target):
                continue
            rules = self._rules[each.target]
            if watch is None:
                self._healths[each.target] = restore.warmth(each, self._healths[each.target], rules, now)
            elif not watch.began:
                former = restore.unsealed(each.former, watch.spec) if each.former is not None else None
                former = _with_contents_of(watch.spec, former) if former is not None else None
                if each.former is None:
                    deciding = watch
                elif former is not None and restore.on_trial(each, unix) and not _same_question(former, watch.spec):
                    deciding = self._resume_trial(watch, former, now)
                else:
                    continue  # too old, or its secrets are gone: only the check on trial is left
                health = restore.verdict(each, deciding.spec, rules, now, unix)
                if health is not None and self._restore_address(deciding, each.address):
                    held.append(each.target)
                else:
                    health = restore.held(each, self._healths[each.target], rules, now, unix)
                self._replace(each.target, health)
        self.restore_ejections(kept)
        for each in kept:
            watch = self._watches.get((each.target, "liveness"))
            if each.tries and watch is not None and watch.identity == each.life:
                self._liveness.resume(
                    each.target, restore.restarts(each, self.liveness[each.target], watch.spec, now, unix)
                )
        return held

    def _restore_address(self, watch: _Watch, address: str) -> bool:
        """Whether a verdict from before a restart has the address that passed. Requests use that address."""
        if self._decides_address(watch):
            if not address:
                return False
            watch.at = address
            self._addresses.use(watch.target.id, (address,))
        return True

    def _resume_trial(self, watch: _Watch, former: CheckSpec, now: float) -> _Watch:
        """Let the former check decide, as before the restart, until the new check has passed."""
        watch.trial = initial(now, replace(self._rules[watch.target.id], probed=True))
        deciding = self._add(watch.target, "former", former)
        self._set(deciding, now)
        return deciding

    def restore_ejections(self, kept: Iterable[Kept]) -> list[str]:
        """Restore ejections from before a restart. Returns the ids. A target ejected since then is unchanged."""
        now, unix = self._clock(), time.time()
        held = []
        for each in self._under_new_names(kept):
            health = self._healths.get(each.target)
            if health is None or health.ejections or not each.ejections or each.identity != self._identity(each.target):
                continue
            after = restore.ejected(each, health, self._rules[each.target], now, unix)
            self._healths[each.target] = after
            if after.ejected_until:
                held.append(each.target)
        return held

    def _under_new_names(self, kept: Iterable[Kept]) -> list[Kept]:
        """The stored verdicts. A target without one gets the addresses of the same question, asked of the same
        address."""
        kept = list(kept)
        stored = {each.target for each in kept}
        missing = [id for id in self._targets if id not in stored]
        if not missing:
            return kept
        by_identity: dict[str, list[Kept]] = {}
        for each in kept:
            by_identity.setdefault(each.identity, []).append(each)
        for target_id in missing:
            alike = by_identity.get(self._identity(target_id), [])
            gone = [each for each in alike if each.target not in self._targets]
            if gone or alike:
                kept.append(restore.under_name(gone or alike, target_id, moved=bool(gone)))
        return kept

    def _identity(self, target_id: str) -> str:
        watch = self._watches.get((target_id, "readiness"))
        if watch is not None:
            return watch.identity
        target = self._targets[target_id]
        cached = self._unprobed.get(target_id)
        if cached is None or cached[0] is not target:
            cached = self._unprobed[target_id] = target, identity(target, UNPROBED)
        return cached[1]

    # --- running -----------------------------------------------------------------------------------------------------

    async def resolve(self, hosts: Iterable[str], within: float) -> None:
        """Look these names up, for at most `within` seconds. Names that fail are skipped."""
        asked = [asyncio.ensure_future(self._resolver.resolve(host)) for host in set(hosts) if is_name(host)]
        if asked:
            await asyncio.wait(asked, timeout=within)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def start(self) -> None:
        self._schedule.start()
        self._resolver.start()
        self._loop_lag.start()

    async def close(self) -> None:
        """Stop probing. Probes and restarts under way are cancelled."""
        under_way = [watch.under_way for watch in self._watches.values()]
        parts = [each.task if isinstance(each, Turns) else each for each in under_way]
        tasks = [part for part in parts if isinstance(part, asyncio.Task)]
        for key in list(self._watches):
            self._unwatch(key)
        self._schedule.close()
        self._loop_lag.close()
        await self._liveness.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._dialer.close()

    def _set(self, watch: _Watch, due: float) -> None:
        watch.due = due
        self._schedule.set(watch, due)

    def _due(self, watch: _Watch, due: float) -> None:
        if watch.room.free > 0:
            self._start(watch)
        else:
            watch.queued = True
            watch.room.waiting.append(watch)

    def _start(self, watch: _Watch) -> None:
        watch.room.free -= 1
        watch.started = self._clock()
        watch.lost = self._loop_lag.lost()
        watch.completed.clear()
        if watch.name:
            self._ask_by_name(watch)
        else:
            watch.under_way = ask(watch.probe, watch.spec.timeout, partial(self._on_verdict, watch))

    def _ask_by_name(self, watch: _Watch) -> None:
        turns = watch.under_way = Turns(watch.probe, watch.spec.timeout, partial(self._on_verdict, watch))
        resolved = self._resolver.addresses(watch.name)
        in_use = self.addresses.get(watch.target.id, ())
        if self._decides_address(watch) or watch.name != watch.target.host:
            addresses = order(resolved, watch.at, watch.turn)
            watch.turn += 1
        else:  # liveness, or a changed check on trial: it asks the address that requests use
            addresses = list(in_use or resolved)
        if addresses:
            turns.begin(addresses)
        else:
            turns.look_up(self._resolver, watch.name)

    def _on_verdict(self, watch: _Watch, verdict: Verdict | None) -> None:
        """End the probe under way. None: it was cancelled."""
        turns, watch.under_way = watch.under_way, None
        room = watch.room
        room.free += 1
        while room.waiting and room.free > 0:
            waiting = room.waiting.popleft()
            if waiting.queued:
                waiting.queued = False
                self._start(waiting)
        if self._watches.get((watch.target.id, watch.role)) is not watch:
            verdict = None  # the target or its check was removed meanwhile
        if verdict is not None and isinstance(turns, Turns):
            self._on_turns(watch, turns.passed)
        try:
            if verdict is not None:
                self._assess(watch, verdict)
        finally:
            for over in watch.waiting:
                if not over.done():
                    over.set_result(verdict)
            watch.waiting.clear()

    def _on_turns(self, watch: _Watch, passed: str) -> None:
        """A probe of a name has ended. `passed` is the address that passed, or empty."""
        if passed != watch.at:
            self._resolver.renew(watch.name)  # the former address failed: the target may have moved
        if passed:
            watch.at = passed
            if self._decides_address(watch):
                self._addresses.use(watch.target.id, (passed,))

    def _decides_address(self, watch: _Watch) -> bool:
        """Whether requests use the address that passes this check."""
        if watch.role == "readiness" and (watch.target.id, "former") in self._watches:
            return False
        return watch.role in ("readiness", "former") and bool(watch.name) and watch.name == watch.target.host

    def _use_unprobed(self, host: str) -> None:
        """Give all addresses of a name to its targets whose address no check decides."""
        addresses = self._resolver.addresses(host)
        for target_id in self._named.get(host, ()):
            if not any(map(self._decides_address, self._readiness_watches(target_id))):
                self._addresses.use(target_id, addresses)

    def _readiness_watches(self, target_id: str) -> list[_Watch]:
        roles: tuple[Role, ...] = ("readiness", "former")
        return [watch for role in roles if (watch := self._watches.get((target_id, role))) is not None]

    def _on_resolved(self, host: str) -> None:
        """The addresses of a name have changed: probe its targets soon."""
        self._use_unprobed(host)
        for target_id in self._named.get(host, ()):
            for watch in self._readiness_watches(target_id):
                self._nudge(watch)

    def _assess(self, watch: _Watch, verdict: Verdict) -> None:
        lost = self._loop_lag.lost() - watch.lost
        standstill = stalled(lost, watch.spec.timeout, verdict)
        if standstill:
            self._report_standstill(lost)
        watch.passed = watch.passed or verdict.ok
        try:
            self._dispatch(watch, verdict, standstill)
        finally:  # the next probe is set also when a listener raises
            if self._watches.get((watch.target.id, watch.role)) is watch:
                self._set(watch, self._clock() if standstill else self._next(watch))
                watch.began = True

    def _next(self, watch: _Watch) -> float:
        spec = watch.spec
        wait = spec.interval
        now = self._clock()
        returns = 0.0
        if watch.role in ("readiness", "former"):
            health = self._healths[watch.target.id]
            wait = pause(watch.trial or health, spec)
            returns = health.ejected_until
        grid = min(GRID, wait / 10)
        if watch.began:
            wait *= 1 - spec.jitter * self._rng.random()
        else:
            wait *= 1 - 0.8 * self._rng.random()  # the first probes started together: spread them
        due = watch.due + wait
        due = max(due - due % grid, now)
        return min(due, returns + SLACK) if returns > now else due  # an ejection ends with a probe right at its time

    # --- verdicts --------------------------------------------------------------------------------------------------

    def _dispatch(self, watch: _Watch, verdict: Verdict, standstill: bool) -> None:
        target_id = watch.target.id
        if watch.role == "canary":
            self._common_cause.canary = verdict.ok if not standstill else self._common_cause.canary
            return
        if watch.role == "liveness":
            if standstill:
                verdict = verdict._replace(ignored=True, text=f"{verdict.text}; our own loop stood still")
            watch.history.append(seen := Seen(watch.started, verdict))
            self._on_probe(target_id, "liveness", seen)
            self._liveness.saw(target_id, verdict)
            return
        doubt = self._doubt(watch, verdict, standstill)
        watch.history.append(seen := Seen(watch.started, verdict, doubt))
        self._on_probe(target_id, "readiness", seen)
        if watch.trial is not None:
            self._try(watch, verdict)
        else:
            self._step(target_id, Probed(verdict, doubt))

    def _doubt(self, watch: _Watch, verdict: Verdict, standstill: bool) -> str:
        """A reason to doubt a failure, or "". Every verdict that decides is passed on to the suspicions."""
        if standstill:
            return "own_fault"
        target_id = watch.target.id
        if not verdict.ok:
            busy = self._busy.get(target_id, {})
            since = sum(max(0, busy[worker][1] - before) for worker, before in watch.completed.items())
            if overloaded(verdict, sum(in_flight for in_flight, _ in busy.values()), since):
                return "overloaded"
        if watch.trial is not None:
            return ""
        finding = self._common_cause.judge(watch.pool, target_id, verdict, self._clock())
        self._notify(finding.notices)
        return finding.doubt

    def _try(self, watch: _Watch, verdict: Verdict) -> None:
        """Apply a verdict of a check on trial, while the former check decides."""
        target_id = watch.target.id
        rules = replace(self._rules[target_id], grace=0.0)
        assert watch.trial is not None
        before = watch.trial
        watch.trial, _ = step(before, Probed(verdict), self._clock(), rules)
        if verdict.ok:
            self._end_trial(watch)
            if before.probe == "unready":
                text = "the changed check passes here: it decides from now on"
                self._notify((Notice(target_id, "trial", False, text),))
            self._step(target_id, Probed(verdict))
        elif watch.trial.probe == "unready":
            if (target_id, "former") not in self._watches or self._passes_elsewhere(watch):
                failed = watch.trial
                self._end_trial(watch)
                health = msgspec.structs.replace(self._healths[target_id], streak=failed.streak + 1)
                self._healths[target_id] = health
                self._step(target_id, Probed(verdict))
            elif before.probe != "unready":
                text = f"the changed check passes on no target of its pool ({verdict.text}); the former one decides on"
                self._notify((Notice(target_id, "trial", True, text),))

    def _passes_elsewhere(self, watch: _Watch) -> bool:
        return any(
            other.passed
            for (_, role), other in self._watches.items()
            if role == "readiness" and other.pool == watch.pool and _same_question(other.spec, watch.spec)
        )

    def _end_trial(self, watch: _Watch) -> None:
        watch.trial = None
        former = self._watches.get((watch.target.id, "former"))
        self._unwatch((watch.target.id, "former"))
        if former is not None and former.target.tls != watch.target.tls:
            self._on_tls(watch.target.id)

    def _step(self, target_id: str, event: Event) -> None:
        before = self._healths[target_id]
        after, effects = step(before, event, self._clock(), self._rules[target_id])
        self._healths[target_id] = after
        if (after.probe == "ready") != (before.probe == "ready"):
            pool = _pool(self._targets[target_id])
            self._notify(self._common_cause.set_ready(pool, target_id, after.probe == "ready"))
        if effects:
            for effect in effects:
                if effect.kind == "probe":
                    watch = self._watches.get((target_id, "readiness"))
                    if watch is not None and watch.under_way is None and effect.at < watch.due:
                        self._set(watch, effect.at + SLACK)
            self._on_change(target_id, before, after, effects)

    def _replace(self, target_id: str, health: Health) -> None:
        self._healths[target_id] = _begun_anew(health, self._healths.get(target_id))
        self._hear_of(self._targets[target_id], self._healths[target_id])

    def _report_standstill(self, lost: float) -> None:
        """Give one notice for all probes that one standstill has spoilt."""
        now = self._clock()
        if now - self._standstill_reported > REPORT_AGAIN:
            self._standstill_reported = now
            text = f"our own event loop stood still for {lost:.1f} s: probes that timed out meanwhile are not counted"
            self._notify((Notice("all", "own_fault", True, text),))

    def _notify(self, notices: tuple[Notice, ...]) -> None:
        for notice in notices:
            self._on_notice(notice)

    def _life(self, target: Target, what: str, text: str) -> None:
        self._on_notice(Notice(target.id, f"liveness_{what}", what in ("dead", "restart", "held"), text))


def _pool(target: Target) -> str:
    return f"{target.service}/{target.pool}"


def _begun_anew(health: Health, before: Health | None) -> Health:
    """`health`, with the state from operators and from traffic of `before`."""
    if before is None:
        return health
    return msgspec.structs.replace(
        health,
        admin=before.admin,
        admin_since=before.admin_since,
        ejected_until=before.ejected_until,
        ejected_at=before.ejected_at,
        ejections=before.ejections,
        ejected_for=before.ejected_for,
        returned_at=before.returned_at,
    )


def _ill(health: Health) -> int:
    """Sort key for several healths of one address: an unready one counts first, and any probed one before none."""
    return {"unready": 0, "ready": 1, "starting": 2}[health.probe]


def _probed_alone(health: Health, now: float, rules: Rules) -> Health:
    """A health from probes alone, without the state from operators and from traffic."""
    alone = msgspec.structs.replace(
        health,
        admin="normal",
        admin_since=0.0,
        ejected_until=0.0,
        ejected_at=0.0,
        ejected_for="",
        ejections=0,
        returned_at=0.0,
        relief=1.0,
    )
    if in_rotation(alone) and not in_rotation(health):
        return msgspec.structs.replace(alone, rotation_since=now, warm_at=now + rules.slow_start.window)
    return alone


def _same_place(old: Target, new: Target) -> bool:
    """Whether verdicts of the former target hold: `http://` and `https://` at one port are two servers."""
    return (old.host, old.port, old.tls is None) == (new.host, new.port, new.tls is None)


def _asks_the_same(watch: _Watch, target: Target, spec: CheckSpec) -> bool:
    """Whether the watch's verdicts hold for this check of this target, including TLS settings and certificates."""
    return _same_question(watch.spec, spec) and _tls_of(watch.target, watch.spec) == _tls_of(target, spec)


def _tls_of(target: Target, spec: CheckSpec) -> TlsClient | None:
    """The TLS settings of a probe. None: it uses no TLS."""
    return (spec.tls or target.tls) if spec.protocol in ("https", "grpc") else None


def _with_contents_of(spec: CheckSpec, former: CheckSpec) -> CheckSpec:
    """`former` with the contents of TLS files loaded for `spec`, because contents do not outlive a restart."""
    old, new = former.tls, spec.tls
    same_files = old is not None and new is not None and replace(old, digests=()) == replace(new, digests=())
    return replace(former, tls=new) if same_files else former


def _same_question(old: CheckSpec, new: CheckSpec) -> bool:
    """Whether a verdict of one check holds for the other: question and expected answer are the same."""
    return old is new or definition(old) == definition(new)  # many targets share one value


def _connections() -> int:
    """A quarter of the descriptors this process may have, up to `CONNECTIONS`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, min(CONNECTIONS, soft // 4)) if soft != resource.RLIM_INFINITY else CONNECTIONS
