"""The liveness of all targets, and the restarts that follow from it, a bounded number at one time.

`core.liveness` says who is dead and from when on a restart is allowed. Here the restarts are carried out: one for a
target at a time, `at_once` for a pool, counted from the action until the target passes again or has had its grace.
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

#: target, what happened ("dead", "alive", "restart", "restarted", "held"), the sentence for people.
OnLife = Callable[[Target, str, str], None]


class Lives:
    """Hears every liveness verdict."""

    def __init__(self, clock: Callable[[], float], tell: OnLife) -> None:
        self._clock = clock
        self._tell = tell
        self._lives: dict[str, Liveness] = {}
        self._targets: dict[str, tuple[Target, CheckSpec, OnFailure | None]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._held: set[str] = set()  # those whose wait was told already
        self.known = MappingProxyType(self._lives)

    def watch(self, target: Target, spec: CheckSpec, rules: OnFailure | None, anew: bool) -> None:
        """Know `target`; `anew`: forget what was known of it."""
        if anew or target.id not in self._lives:
            now = self._clock()
            self._lives[target.id] = Liveness(started=now, since=now)
        self._targets[target.id] = (target, spec, rules)

    def resume(self, target_id: str, life: Liveness) -> None:
        """What was known of its life before a restart of lb."""
        self._lives[target_id] = life

    def rename(self, old: str, target: Target) -> None:
        """`target` is the one that was known as `old`; a restart of it that is under way goes on."""
        if old in self._lives:
            self._lives[target.id] = self._lives.pop(old)
            _, spec, rules = self._targets.pop(old)
            self._targets[target.id] = (target, spec, rules)
        if old in self._tasks:
            self._tasks[target.id] = self._tasks.pop(old)
        if old in self._held:
            self._held.discard(old)
            self._held.add(target.id)

    def forget(self, target_id: str) -> None:
        self._lives.pop(target_id, None)
        self._targets.pop(target_id, None)
        self._held.discard(target_id)

    async def close(self) -> None:
        """Restarts that are under way are broken off."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def saw(self, target_id: str, verdict: Verdict) -> None:
        now = self._clock()
        target, spec, rules = self._targets[target_id]
        before = self._lives[target_id]
        if target_id in self._tasks:
            return  # whatever it answers while it is being restarted
        after = self._lives[target_id] = step_liveness(before, verdict, now, spec)
        if after.state != before.state:
            if after.state == "dead":
                self._tell(target, "dead", f"{-after.streak} liveness probes failed in a row; {after.text}")
            elif after.state == "alive":
                self._held.discard(target_id)
                self._tell(target, "alive", f"liveness passed; {after.text}")
        if after.state == "dead" and rules is not None:
            self._restart(target, after, spec, rules, now)

    def _restart(self, target: Target, life: Liveness, spec: CheckSpec, rules: OnFailure, now: float) -> None:
        """Restart it if it may be; else say once why not. The next failed probe asks again."""
        busy = [
            other.id
            for other, _, _ in self._targets.values()
            if (other.service, other.pool) == (target.service, target.pool)
            and (other.id in self._tasks or being_restarted(self._lives[other.id], now))
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
        self._lives[target.id] = restarted(life, now, spec)
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
            for name in [id for id, task in self._tasks.items() if task is mine]:  # it may have been renamed
                del self._tasks[name]
        if name in self._targets:
            self._tell(self._targets[name][0], "restarted", text or "nothing is configured to be done")
