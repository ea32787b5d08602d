"""Which targets a pool keeps when a reload replaces all of them at once, and until when. Pure.

A pool whose targets are all new has no target in rotation until one has passed its check: its clients would get 503. So
a pool with traffic is handed over. The replaced targets that can serve go on, probed and judged as before. They go as
soon as enough of the new ones can serve. Enough is one, or as many as keep the pool out of panic, each with its slow
start behind it. Else the first one to pass would get all requests at once, which is what a slow start is to prevent.

- A pool has traffic if it shares that of its service, or is the fallback, before the reload and after it. The targets
  of any other pool are replaced at once, so that nothing is sent to a version that is no longer in the file.
- A target that is in the file under another name has moved and is not replaced. A pool that gets a target which can
  serve elsewhere already needs no handover.
- A pool may have lost its own targets to a source that has not named any yet. Its handover goes on when it does.
- A handover goes on over further reloads, also under another name of the pool, until it is over.
- It ends after `LONGEST` seconds in any case, because a target that was removed from the file must not serve for ever.
- A restart forgets it, as the replaced targets are in no file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lb.core.desired import TargetDesired
from lb.core.explain import span
from lb.core.lifecycle import Health
from lb.core.renames import Place, Renames, split_id
from lb.core.rotation import Panic, can_serve, least_able, without_replaced
from lb.core.targets import Pool, Service, Target

#: Seconds that replaced targets serve at most.
LONGEST = 600.0


@dataclass(frozen=True, slots=True)
class Handover:
    """The replaced targets of one pool that go on serving."""

    targets: tuple[Target, ...]
    since: float
    replaced: tuple[str, ...]  # the ids under which they were known before the newest reload

    @property
    def until(self) -> float:
        return self.since + LONGEST


def handed_over(
    before: Iterable[Service],
    after: Iterable[Service],
    names: Renames,
    busy: Container[Place],
    able: Callable[[Target], bool],
    under_way: Mapping[Place, Handover],
    now: float,
) -> dict[Place, Handover]:
    """The handovers that a new configuration begins, and the handovers under way that go on.

    `before`: the services as they were served, with the replaced targets under way; `after`: the pools of the file.
    `busy`: the pools, by their new names, that have traffic before and after. `able`: whether an old target can serve.
    """
    old_pools = {(service.name, pool.name): pool for service in before for pool in service.pools}
    olds = {target.id: target for pool in old_pools.values() for target in pool.targets}
    handovers: dict[Place, Handover] = {}
    for place, pool in _pools(after):
        was = names.pool_was(*place)
        former = old_pools.get(was)
        if former is None:
            continue
        members = {target.id for target in former.targets}
        sources = {old for target in pool.targets for old in names.targets.get(target.id, (target.id,))}
        if not members & sources:
            relatives = (
                *sources,
                *(twin for target in pool.targets for twin in names.twins.get(target.id, ())),
            )
            gone = [target for target in former.targets if able(target) and not _moved(target, names)]
            waits = was in under_way and members <= {target.id for target in under_way[was].targets}
            since = under_way[was].since if waits else now
            if (place not in busy and not waits) or any(able(olds[old]) for old in relatives if old in olds):
                gone = []
        elif was in under_way:
            replaced = {target.id for target in under_way[was].targets}
            gone = [target for target in former.targets if target.id in replaced]
            since = under_way[was].since
        else:
            continue
        in_file = {target.id for target in pool.targets}
        kept = [(_at(place, target), target.id) for target in gone]
        stay = [(target, old) for target, old in kept if target.id not in in_file]
        if stay:
            handovers[place] = Handover(tuple(target for target, _ in stay), since, tuple(old for _, old in stay))
    return handovers


def with_names(names: Renames, handovers: Mapping[Place, Handover]) -> Renames:
    """`names` with the replaced targets of pools that have another name, which the file does not know."""
    more = {
        target.id: (old,)
        for handover in handovers.values()
        for target, old in zip(handover.targets, handover.replaced, strict=True)
        if target.id != old
    }
    return dataclasses.replace(names, targets={**names.targets, **more}) if more else names


def successors(
    pool: Pool, healths: Mapping[str, Health], overrides: Mapping[str, TargetDesired], panic: Panic, now: float
) -> list[str]:
    """The new targets of a pool under handover, once they can do without the replaced ones; none: they cannot yet."""
    fresh = without_replaced(pool)
    replaced_serve = any(can_serve(target, healths, overrides) for target in pool.targets if target.id in pool.replaced)
    able = [
        target.id
        for target in fresh.targets
        if can_serve(target, healths, overrides) and (now >= healths[target.id].warm_at or not replaced_serve)
    ]
    return able if len(able) >= least_able(fresh, healths, overrides, panic) else []


def why_over(handover: Handover, able: Sequence[str], now: float) -> str:
    """Why a handover is over, for people; empty: it is not. `able`: the result of `successors`."""
    if able:
        new_ones = f"{able[0]} can serve" if len(able) == 1 else f"{len(able)} new targets can serve"
        return f"{new_ones} after {span(now - handover.since)}: the replaced targets take no more requests"
    if now >= handover.until:
        return (
            f"no new target can serve after {span(LONGEST)}: the replaced targets are given up all the same, and the "
            "pool has nobody who serves until one can"
        )
    return ""


def _pools(services: Iterable[Service]) -> Iterator[tuple[Place, Pool]]:
    for service in services:
        for pool in service.pools:
            yield (service.name, pool.name), pool


def _moved(target: Target, names: Renames) -> bool:
    return any(target.id in formers for formers in names.targets.values())


def _at(place: Place, target: Target) -> Target:
    """`target` under the present name of its pool."""
    service, pool = place
    return replace(target, id=f"{service}/{pool}/{split_id(target.id)[2]}", service=service, pool=pool)
