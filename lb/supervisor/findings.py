"""Passes on what the monitor and the workers find: to rotations, ejections, the timeline, probe history and metrics."""

from __future__ import annotations

import asyncio
import time

from lb.control.probe_history import ProbeHistory
from lb.core.common_cause import Notice
from lb.core.lifecycle import Effect, Eject, Health, Seen, shown
from lb.core.report import Alarm, Report
from lb.core.rotation import bears_on_rotation
from lb.health.monitor import Monitor
from lb.health.verdict_store import VerdictStore
from lb.supervisor.ejections import Ejections
from lb.supervisor.events import Events
from lb.supervisor.health_counters import HealthCounters
from lb.supervisor.rotations import Rotations
from lb.supervisor.state import State
from lb.supervisor.unix_time import unix

#: Seconds between two looks at what workers report about failing targets.
SWEEP_EVERY = 0.5


class Findings:
    """Findings about the targets of one supervisor."""

    def __init__(
        self,
        state: State,
        rotations: Rotations,
        monitor: Monitor,
        events: Events,
        probe_history: ProbeHistory,
        counters: HealthCounters,
        ejections: Ejections,
        verdict_store: VerdictStore,
    ) -> None:
        self._state = state
        self._rotations = rotations
        self._monitor = monitor
        self._events = events
        self._probe_history = probe_history
        self._counters = counters
        self._ejections = ejections
        self._verdict_store = verdict_store
        self._held = False  # another lb may be the one that decides

    def changed(self, id: str, old: Health, new: Health, effects: tuple[Effect, ...]) -> None:
        """A target's health is another one."""
        now = time.monotonic()
        target = self._state.targets.get(id)
        if target is None:
            return
        before, after = shown(old, now), shown(new, now)
        # The lifecycle's texts are for people; the other effects repeat the probe's finding.
        said = [effect.text for effect in effects if effect.kind == "say"] or [effect.text for effect in effects]
        text = "; ".join(dict.fromkeys(filter(None, said))).removeprefix(f"{after}: ") or new.text
        cause = next((effect.cause for effect in effects if effect.cause), "")
        if before != after:
            self._counters.transitions[id, after] += 1
            self._events.emit("transition", f"{before} → {after}: {text}", id, cause=cause, before=before, after=after)
        elif any(effect.kind == "say" for effect in effects):
            self._events.emit("note", text, id, cause=cause)
        if bears_on_rotation(old, new):
            self._rotations.touch((target.service,))

    def probed(self, id: str, kind: str, seen: Seen) -> None:
        """A probe has ended."""
        verdict = seen.verdict
        result = "ignored" if verdict.ignored else "passed" if verdict.ok else "failed"
        self._counters.probed(id, kind, result)
        target = self._state.targets.get(id)
        if target is not None:
            self._counters.lasted(target.service, kind, verdict.seconds)
            self._probe_history.saw(id, kind, unix(seen.at), verdict, seen.doubt)

    def moved(self, id: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        """A target that is given by name has another address: one that passed its check, where it has one."""
        target = self._state.targets.get(id)
        if target is None:
            return
        self._rotations.move(id)
        if before:
            old, new = ", ".join(before), ", ".join(after)
            self._events.emit(
                "address", f"requests for {target.host} go to {new}, no longer to {old}", id, before=old, after=new
            )

    def noticed(self, notice: Notice) -> None:
        """The monitor's findings on many failures at once, a changed check, a target that is not alive."""
        kind = "liveness" if notice.cause.startswith("liveness") else "note"
        place = "" if notice.scope == "all" else notice.scope
        self._events.emit(kind, notice.text, place, general="all", cause=notice.cause)

    def reported(self, report: Report) -> None:
        """A worker's newest counters."""
        self._ejections.report(report, time.monotonic())
        for tally in report.targets:
            if tally.target in self._state.targets:
                self._monitor.observe(report.worker, tally.target, tally.in_flight, tally.successes)

    def alarmed(self, alarm: Alarm, incarnation: int) -> None:
        """An alarm: a worker's message that could not wait for its report. `incarnation`: of that worker."""
        if alarm.target in self._state.targets:
            self._ejections.alarm(alarm, incarnation)
            if alarm.kind != "5xx":  # a probe can see it as well: do not wait for the next one
                self._monitor.nudge(alarm.target)

    async def run(self) -> None:
        """Eject targets that fail their clients, for as long as lb runs."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            if self._held:
                continue
            ejected = list(self._ejections.sweep(self._monitor.healths, self._rotations.wishes, time.monotonic()))
            for found in ejected:
                self._monitor.feed(found.target, Eject(found.reason, found.quick))
            if ejected:
                self._verdict_store.write(self._monitor.keep())  # a restart is to find them out of rotation
            self._monitor.tick()

    def hold(self) -> None:
        """Eject no target until `resume`: a supervisor that takes over has read the stored ejections by now, and would
        not know this one."""
        self._held = True

    def resume(self) -> None:
        """No other supervisor has taken over."""
        self._held = False
