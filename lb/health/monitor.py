"""Probes every target on its schedule and feeds the answers to `core.lifecycle.step`.

Each target is probed once, however many workers there are. The first probes go out at once and side by side; later
ones keep to a schedule that does not drift, each a little early by chance (`jitter`), so that targets which started
together do not stay together. `interval` is measured from start to start and is an upper bound: detection takes at
most interval × fall + timeout. No probe overlaps itself, and none waits for another one's answer.

What it does not do: act on anything. It tells `on_change` what became of a target and `on_probe` what was found.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from lb.core.checks import Checks, CheckSpec, definition
from lb.core.lifecycle import Effect, Event, Health, Probed, Rules, Verdict, initial, pause, step
from lb.core.targets import Target
from lb.health.probes import Probe, ask, build
from lb.health.probes.dial import Dialer
from lb.health.schedule import Schedule

Kind = Literal["readiness", "liveness"]
OnChange = Callable[[str, Health, Health, tuple[Effect, ...]], None]
OnProbe = Callable[[str, Kind, Verdict], None]

#: Probes remembered per target and kind.
HISTORY = 20
#: First probes of many targets start this far apart, so that a thousand of them do not stall the loop.
PACE = 0.00005
#: Probes come due on a grid of so many seconds: at a thousand a second ten start together, on one wake-up of the
#: process instead of ten. That takes a third off what they cost.
GRID = 0.01


class Seen(NamedTuple):
    """One probe of the past."""

    at: float  # monotonic seconds, its start
    verdict: Verdict
    doubt: str = ""


class _Watch:
    """One check of one target."""

    __slots__ = ("began", "due", "history", "kind", "probe", "spec", "target", "task")

    def __init__(self, target: Target, kind: Kind, spec: CheckSpec, probe: Probe) -> None:
        self.target = target
        self.kind = kind
        self.spec = spec
        self.probe = probe
        self.due = 0.0
        self.began = False  # it was probed at least once
        self.task: asyncio.Task[Verdict] | None = None
        self.history: deque[Seen] = deque(maxlen=HISTORY)


class Monitor:
    """The supervisor's one checker. `on_change` is called when a step had effects, `on_probe` for each verdict."""

    def __init__(
        self,
        *,
        rng: random.Random,
        on_change: OnChange,
        on_probe: OnProbe,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rng = rng
        self._clock = clock
        self._on_change = on_change
        self._on_probe = on_probe
        self._dialer = Dialer(clock)
        self._schedule: Schedule[_Watch] = Schedule(clock, self._start)
        self._watches: dict[tuple[str, Kind], _Watch] = {}
        self._targets: dict[str, Target] = {}
        self._rules: dict[str, Rules] = {}
        self._healths: dict[str, Health] = {}
        self.healths: Mapping[str, Health] = MappingProxyType(self._healths)

    # --- what is to be watched ---------------------------------------------------------------------------------------

    def update(self, checks: Mapping[str, Checks], targets: Mapping[str, Target], rules: Mapping[str, Rules]) -> None:
        """Watch exactly these. A target whose address and check are unchanged keeps what is known of it."""
        now = self._clock()
        self._dialer.forget()
        for target_id in [known for known in self._targets if known not in targets]:
            self._forget(target_id)
        first = 0
        for target_id, target in targets.items():
            self._rules[target_id] = rules[target_id]
            self._targets[target_id] = target
            wanted = checks[target_id]
            kept = self._watch(target, "readiness", wanted.readiness)
            if target_id not in self._healths or not kept:
                self._healths[target_id] = initial(now, rules[target_id])
            if wanted.liveness is None or wanted.liveness.protocol == "none":
                self._unwatch((target_id, "liveness"))
            else:
                self._watch(target, "liveness", wanted.liveness)
            for kind in ("readiness", "liveness"):
                watch = self._watches.get((target_id, kind))
                if watch is not None and not watch.began and watch.task is None:
                    self._set(watch, now + first * PACE)
                    first += 1

    def _watch(self, target: Target, kind: Kind, spec: CheckSpec) -> bool:
        """Have the check watched; returns whether what is known by it still holds."""
        key = (target.id, kind)
        watch = self._watches.get(key)
        if watch is None and spec.protocol == "none":
            health = self._healths.get(target.id)
            return health is not None and health.checked is None and health.ever_ready
        if watch is not None and _same(watch.target, watch.spec, target, spec):
            if watch.target != target or watch.spec != spec:
                sooner = self._clock() + spec.interval
                watch.target, watch.spec = target, spec
                watch.probe = build(target, spec, self._dialer)  # one under way goes on with the old one
                if watch.task is None and watch.due > sooner:
                    self._set(watch, sooner)
            return True
        self._unwatch(key)
        if spec.protocol != "none":
            self._watches[key] = _Watch(target, kind, spec, build(target, spec, self._dialer))
        return False

    def _unwatch(self, key: tuple[str, Kind]) -> None:
        watch = self._watches.pop(key, None)
        if watch is not None:
            self._schedule.drop(watch)
            if watch.task is not None:
                watch.task.cancel()  # no verdict comes of it

    def _forget(self, target_id: str) -> None:
        self._unwatch((target_id, "readiness"))
        self._unwatch((target_id, "liveness"))
        del self._targets[target_id], self._rules[target_id], self._healths[target_id]

    # --- what is known -----------------------------------------------------------------------------------------------

    def health(self, target_id: str) -> Health:
        return self._healths[target_id]

    def history(self, target_id: str, kind: Kind = "readiness") -> tuple[Seen, ...]:
        """The last probes, oldest first."""
        watch = self._watches.get((target_id, kind))
        return tuple(watch.history) if watch is not None else ()

    def asked(self, target_id: str, kind: Kind = "readiness") -> str:
        """What a probe of it asks, for people; empty: it is not probed."""
        watch = self._watches.get((target_id, kind))
        return watch.probe.asked if watch is not None else ""

    def expected(self, target_id: str, kind: Kind = "readiness") -> str:
        """What a probe of it must answer, for people."""
        watch = self._watches.get((target_id, kind))
        return watch.probe.expected if watch is not None else ""

    def feed(self, target_id: str, event: Event) -> None:
        """Something else happened to a target: an operator's wish, an ejection, its last request's end."""
        self._step(target_id, event)

    async def probe_now(self, target_id: str, kind: Kind = "readiness") -> Verdict:
        """Probe at once, or wait for the probe under way; the result counts like any other. KeyError: not probed."""
        watch = self._watches[target_id, kind]
        if watch.task is None:
            self._schedule.drop(watch)
            self._start(watch, self._clock())
        assert watch.task is not None
        return await asyncio.shield(watch.task)

    # --- running -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._schedule.start()

    async def close(self) -> None:
        """Stop probing. Probes under way give no verdict."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for key in list(self._watches):
            self._unwatch(key)
        self._schedule.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._dialer.close()

    def _set(self, watch: _Watch, due: float) -> None:
        watch.due = due
        self._schedule.set(watch, due)

    def _start(self, watch: _Watch, due: float) -> None:
        watch.due = due
        watch.task = asyncio.get_running_loop().create_task(self._probe(watch))

    async def _probe(self, watch: _Watch) -> Verdict:
        began = self._clock()
        verdict = await ask(watch.probe, watch.spec.timeout)
        # From here on nothing waits: either all of what follows happens, or the cancellation came before.
        watch.task = None
        watch.history.append(Seen(began, verdict))
        key = (watch.target.id, watch.kind)
        try:
            self._on_probe(*key, verdict)
            if watch.kind == "readiness":
                self._step(watch.target.id, Probed(verdict))
        finally:  # whatever a listener does, the next probe will come
            if self._watches.get(key) is watch:
                self._set(watch, self._next(watch))
                watch.began = True
        return verdict

    def _next(self, watch: _Watch) -> float:
        spec = watch.spec
        wait = pause(self._healths[watch.target.id], spec) if watch.kind == "readiness" else spec.interval
        if watch.began:
            wait *= 1 - spec.jitter * self._rng.random()
        else:
            wait *= 1 - 0.8 * self._rng.random()  # the first probes were together: part them
        due = watch.due + wait
        return max(due - due % min(GRID, wait), self._clock())

    def _step(self, target_id: str, event: Event) -> None:
        now = self._clock()
        before = self._healths[target_id]
        after, effects = step(before, event, now, self._rules[target_id])
        self._healths[target_id] = after
        if effects:
            for effect in effects:
                if effect.kind == "probe":
                    watch = self._watches.get((target_id, "readiness"))
                    if watch is not None and watch.task is None and effect.at < watch.due:
                        self._set(watch, effect.at)
            self._on_change(target_id, before, after, effects)


def _same(old: Target, old_spec: CheckSpec, new: Target, new_spec: CheckSpec) -> bool:
    """Whether a verdict about the one holds for the other: same address, same question, same expectation."""
    return (old.host, old.port, old.tls) == (new.host, new.port, new.tls) and definition(old_spec) == definition(
        new_spec
    )
