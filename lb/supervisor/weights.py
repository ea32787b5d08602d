"""Weights that operators give to targets, until the file's weight is changed."""

from __future__ import annotations

from dataclasses import replace

from lb.core.consequences import Consequence, of_target
from lb.core.desired import Desired, TargetDesired
from lb.core.targets import Target
from lb.supervisor.desired import DesiredState
from lb.supervisor.drains import Drains, with_target
from lb.supervisor.events import Events
from lb.supervisor.rotations import Rotations


class Weights:
    """The weights of one supervisor's targets."""

    def __init__(self, desired: DesiredState, rotations: Rotations, drains: Drains, events: Events) -> None:
        self._desired = desired
        self._rotations = rotations
        self._drains = drains
        self._events = events

    async def put(self, target: Target, weight: int, force: bool, actor: str, version: int | None = None) -> None:
        """Give a target a weight; returns when every worker has confirmed it. Raises `Refused`. `version`: of the
        desired state that the order is based on."""

        def change(desired: Desired) -> tuple[Desired, tuple[int, str]]:
            known = self._drains.still_there(target)
            old = self._drains.wished(known)
            before = old.weight if old.weight is not None else known.weight
            new = _weighing(old, known, weight)
            forced = self._gate(known, new, weight, force)
            return with_target(desired, target.id, new), (before, forced)

        before, forced = await self._desired.commit(change, version)
        text = f"weight {before} → {weight}{forced}"
        self._events.emit("weight", text, target.id, actor=actor, before=str(before), after=str(weight))
        await self._rotations.enforce(target.service)

    def _gate(self, target: Target, new: TargetDesired, weight: int, force: bool) -> str:
        """Refuse a weight that leaves its pool too few targets; with `force`, the event's addition about that."""
        return self._drains.counting(target, new, force) if weight else self._drains.without(target, force)

    def preview(self, target: Target, weight: int, force: bool) -> list[Consequence]:
        """The effects of another weight. Raises the `Refused` that `put` would raise."""
        wished = self._drains.wished(target)
        now = wished.weight if wished.weight is not None else target.weight
        if weight == now:
            return [of_target("unchanged", target, f"{target.id} has the weight {weight} already: nothing changes")]
        wanted = _weighing(wished, target, weight)
        self._gate(target, wanted, weight, force)
        weights = dict(dict(self._rotations.current[target.service].weights).get(target.pool, ()))
        if weight == 0:
            text = f"no new request goes to {target.id}"
            found = [of_target("share", target, text, field="share", new="0")]
            found += self._drains.without_it(target, wanted)
        elif target.id not in weights:
            text = f"{target.id} gets no requests now; when it does, its weight is {weight}"
            found = [of_target("waiting", target, text, field="weight", old=str(now), new=str(weight))]
            found += self._drains.counted(target, wanted)
        else:
            before = weights[target.id] / sum(weights.values())
            weights[target.id] *= weight / now if now else 1.0
            after = weights[target.id] / sum(weights.values())
            text = f"{target.id} gets about {after:.0%} of the requests of {target.pool}, now {before:.0%}"
            old, new = f"{before * 100:.0f}", f"{after * 100:.0f}"
            found = [of_target("share", target, text, field="share", old=old, new=new)]
        if weight == target.weight:
            found.append(of_target("configured", target, "the file's weight counts again", field="weight"))
        return found


def _weighing(old: TargetDesired, target: Target, weight: int) -> TargetDesired:
    """The wishes for a target with another weight; the file's own needs none."""
    same = weight == target.weight
    return replace(old, weight=None if same else weight, configured_weight=None if same else target.weight)
