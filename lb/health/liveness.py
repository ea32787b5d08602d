"""The liveness of all targets, and their restarts, a bounded number at a time.

`core.liveness` decides whether a target is dead and when a restart is allowed. Here restarts are carried out: one at a
time for a target, and `at_once` for a pool. A restart counts until the target passes again or its grace is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import MappingProxyType

from lb.core.checks import CheckSpec, OnFailure
from lb.core.lifecycle import Verdict
from lb.core.liveness import Liveness, being_restarted, restart_at, restarted, step_liveness
from lb.core.targets import Target
from lb.health.restart import restart
from lb.net.actions import Event

#: Called with the target, the kind of event ("dead", "alive", "restart", "restarted", "held"), and a text for people.
OnLiveness = Callable[[Target, str, str], None]


class LivenessTracker:
    """Takes every liveness verdict, and restarts dead targets that have `on_failure`."""

    def __init__(self, clock: Callable[[], float], tell: OnLiveness) -> None:
        self._clock = clock
        self._tell = tell
        self._states: dict[str, Liveness] = {}
        self._targets: dict[str, tuple[Target, CheckSpec, OnFailure | None]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._held: set[str] = set()  # targets whose wait for a restart is reported already
        self.states = MappingProxyType(self._states)

    def watch(self, target: Target, spec: CheckSpec, rules: OnFailure | None, anew: bool) -> None:
        """Track `target`. `anew` forgets its earlier verdicts."""
        if anew or target.id not in self._states:
            now = self._clock()
            self._states[target.id] = Liveness(started=now, since=now)
        self._targets[target.id] = (target, spec, rules)

    def resume(self, target_id: str, life: Liveness) -> None:
        """Take over a target's liveness from before a restart of lb."""
        self._states[target_id] = life

    def rename(self, old: str, target: Target) -> None:
        """Track `old` under the name of `target`. A restart under way goes on."""
        if old in self._states:
            self._states[target.id] = self._states.pop(old)
            _, spec, rules = self._targets.pop(old)
            self._targets[target.id] = (target, spec, rules)
        if old in self._tasks:
            self._tasks[target.id] = self._tasks.pop(old)
        if old in self._held:
            self._held.discard(old)
            self._held.add(target.id)

    def forget(self, target_id: str) -> None:
        self._states.pop(target_id, None)
        self._targets.pop(target_id, None)
        self._held.discard(target_id)

    async def close(self) -> None:
        """Cancel the restarts under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def saw(self, target_id: str, verdict: Verdict) -> None:
        now = self._clock()
        target, spec, rules = self._targets[target_id]
        before = self._states[target_id]
        if target_id in self._tasks:
            return  # verdicts during a restart do not count
        after = self._states[target_id] = step_liveness(before, verdict, now, spec)
        if after.state != before.state:
            if after.state == "dead":
                self._tell(target, "dead", f"{-after.streak} liveness probes failed in a row; {after.text}")
            elif after.state == "alive":
                self._held.discard(target_id)
                self._tell(target, "alive", f"liveness passed; {after.text}")
        if after.state == "dead" and rules is not None:
            self._restart(target, after, spec, rules, now)

    def _restart(self, target: Target, life: Liveness, spec: CheckSpec, rules: OnFailure, now: float) -> None:
        """Restart the target if allowed. Otherwise report the reason once; the next failed probe tries again."""
        busy = [
            other.id
            for other, _, _ in self._targets.values()
            if (other.service, other.pool) == (target.service, target.pool)
            and (other.id in self._tasks or being_restarted(self._states[other.id], now))
        ]
        at = restart_at(life, rules, now)
        if at > now or len(busy) >= rules.at_once:
            if target.id not in self._held:
                self._held.add(target.id)
                if at > now:
                    why = f"{len(life.tries)} tries within the hour, the next in {at - now:.0f} s at the earliest"
                else:
                    why = f"waits until {', '.join(busy)} is back: {rules.at_once} of a pool at one time"
                self._tell(target, "held", f"not restarted yet: {why}")
            return
        self._held.discard(target.id)
        self._states[target.id] = restarted(life, now, spec)
        failure: Event = {
            "reason": life.text,
            "failures": -life.streak,
            "attempt": life.in_a_row + 1,
        }
        self._tell(target, "restart", f"restart {life.in_a_row + 1}: {life.text}")
        task = asyncio.get_running_loop().create_task(self._act(target, rules, failure))
        self._tasks[target.id] = task

    async def _act(self, target: Target, rules: OnFailure, failure: Event) -> None:
        text, name = "", ""
        try:
            text = await restart(rules, target, failure)
        finally:
            mine = asyncio.current_task()
            for name in [id for id, task in self._tasks.items() if task is mine]:  # the target may have been renamed
                del self._tasks[name]
        if name in self._targets:
            self._tell(self._targets[name][0], "restarted", text or "nothing is configured to be done")
