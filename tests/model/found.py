"""Targets that are found: the sources of a run, and what of their answers may be in force.

- What the newest answer names is a member of its pool. A source, or a part of it, that does not answer changes nothing.
- What the answer no longer names goes at once, unless too few are left by `removal_guard`. Then it is kept while it
  passes its checks, until enough of the named ones pass or an operator confirms.
- A restart, a reload, another source and another name of the pool change no member by themselves.
- What changes is in force within a bounded time. What is in force is probed, and serves as any other target.

So this follows what each source has told, and holds lb's members against it at each change. Which of them pass is not
always known for sure (`Knowledge.ready` is None); then both are right.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import random
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.model.clock import CLOCK
from tests.model.plan import ServicePlan, SourcePlan, TargetPlan, address_of
from tests.model.reference import Knowledge

if TYPE_CHECKING:
    from tests.model.watched import Watched
    from tests.model.world import World

Place = tuple[str, str]
#: Seconds between two looks of lb at a source that the model plays.
EVERY = 0.1
#: Seconds over which lb adds up what a source no longer names.
WINDOW = 60.0
#: Seconds within which an answer is in force: bursts are put in force together…
IN_FORCE = 1.5
#: …and longer where a worker, the disk or another lb keeps it waiting.
HELD_UP = 20.0
#: Seconds within which a file that has changed is read, at the latest.
READ = 4.0


class Source:
    """One source, as it is beside lb."""

    def __init__(self, world: World, path: str) -> None:
        self.world = world
        self.path = path
        self.is_file = Path(path).name.startswith("file")  # lb reads it; else the model plays it
        self.targets: dict[str, TargetPlan] = {}  # by address
        self.part: dict[str, str] = {}  # address → the part of the source that names it
        self.silent: set[str] = set()  # parts that do not answer
        self.had: dict[str, TargetPlan] = {}  # all that it has ever named
        self.down = False
        self.delay = 0.0  # seconds that its first answer to a supervisor takes
        self.changed_at = 0.0
        self.answer: Any = None

    def publish(self, dice: random.Random) -> None:
        """What it says is another thing from now on."""
        from lb.core.membership import Answer, Found
        from lb.discovery.source import NoAnswer

        self.changed_at = CLOCK.now
        self.had |= self.targets
        targets = list(self.targets.values())
        dice.shuffle(targets)
        urls = {target.address: f"{target.scheme or 'http'}://{target.address}" for target in targets}
        if self.is_file:
            spelled = [{"url": urls[target.address], "weight": target.weight} for target in targets]
            self._write(json.dumps(spelled), dice)
        elif self.down:
            self.answer = NoAnswer("the model wants it so")
        else:
            found = [
                Found(target.address, urls[target.address], target.weight, part=self.part.get(target.address, ""))
                for target in targets
                if self.part.get(target.address, "") not in self.silent
            ]
            found += found[:1]  # one of them twice
            self.answer = Answer(tuple(found), frozenset(self.silent))

    def _write(self, text: str, dice: random.Random) -> None:
        path = Path(self.path)
        how = dice.choice(("gone", "empty", "half")) if self.down else "whole"
        if how == "gone":
            path.unlink(missing_ok=True)
            return
        fresh = path.with_suffix(".new")
        fresh.write_text({"whole": text, "half": text[:-1], "empty": ""}[how])
        fresh.replace(path)


class Asking:
    """A source as one supervisor asks it: `lb.discovery.source.Source`."""

    def __init__(self, found: Found, supervisor: Watched, settings: Any) -> None:
        from lb.discovery.file import FileSource

        self.found, self.supervisor, self.settings = found, supervisor, settings
        self.source = found.source(settings.file)
        self.file = FileSource(Path(settings.file)) if self.source.is_file else None

    async def ask(self) -> Any:
        return await self.file.ask() if self.file is not None else self.source.answer

    async def watch(self, tell: Any) -> None:
        def told(what: Any) -> None:
            if self.supervisor.counts:
                self.found.note(self.supervisor)
            tell(what)
            if self.supervisor.counts:
                self.found.told(self.supervisor, self.settings, what)

        if self.file is not None:
            await self.file.watch(told)
        await asyncio.sleep(self.source.delay)
        while True:
            told(self.source.answer)
            await asyncio.sleep(EVERY)


@dataclasses.dataclass
class Members:
    """The members of one pool."""

    path: str  # of the source
    share: float  # that may vanish at one time
    named: dict[str, int] = dataclasses.field(default_factory=dict)  # address → weight
    held: dict[str, int] = dataclasses.field(default_factory=dict)
    parts: dict[str, str] = dataclasses.field(default_factory=dict)  # address → part, as it was told
    most: tuple[int, int] = (0, 0)  # members that passed at one time of the last minute: at least, at most
    counted: tuple[float, float] = (-inf, -inf)  # when: at the earliest, at the latest
    last: Any = None  # the last answer
    seen: Any = None  # lb's members, as they were last held against these
    changed_at: float = 0.0  # when it last had other members
    overdue: dict[str, float] = dataclasses.field(default_factory=dict)  # held, and surely to go since then
    confirmed: bool = False  # an operator says that the held ones are to go

    @property
    def all(self) -> dict[str, int]:
        return {**self.named, **self.held}


class Found:
    """The found targets of a run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sources: dict[str, Source] = {}  # by path
        self.pools: dict[Place, Members] = {}
        self.trouble_until = 0.0  # until then lb may take longer

    # --- sources ----------------------------------------------------------------------------------------------------

    async def begin(self, service: ServicePlan, dice: random.Random) -> None:
        """One or two pools of a service have a source, and perhaps no other targets."""
        from tests.model.rules import new_target

        for pool in dice.sample(list(service.pools), dice.choice((1, 1, 2))):
            fixed = service.pools[pool] if dice.random() < 0.4 else []
            source = self.add_source(dice)
            for _ in range(dice.choice((1, 2, 3, 5))):
                target = await new_target(self.world)
                source.targets[target.address] = target
            source.publish(dice)
            service.pools[pool] = fixed
            service.sources[pool] = SourcePlan(source.path, dice.choice(("50%", "50%", "30%", "0%", "100%")))

    def add_source(self, dice: random.Random) -> Source:
        name = f"{dice.choice(('file', 'api'))}{len(self.sources)}.json"
        source = Source(self.world, str(self.world.directory / name))
        self.sources[source.path] = source
        return source

    def source(self, path: str) -> Source:
        return self.sources[path]

    def make(self, supervisor: Watched, settings: Any) -> Asking:
        """A source for a supervisor."""
        return Asking(self, supervisor, settings)

    def in_use(self) -> list[tuple[ServicePlan, str, Source]]:
        """The pools with a source."""
        return [
            (service, pool, self.sources[plan.path])
            for service in self.world.plan.services.values()
            for pool, plan in service.sources.items()
        ]

    def is_in_force(self, address: str) -> bool:
        """Whether a pool has the target."""
        return any(service.pool_of(address) for service in self.world.plan.services.values())

    def note_drain(self, address: str) -> None:
        """A target is drained, unless it has gone meanwhile."""
        if self.is_in_force(address):
            self.world.drained.add(address)

    def may_be_waited_for(self) -> bool:
        """Whether /readyz may wait for the first answer of a source of which nothing is known."""
        return any(not members.all for members in self.pools.values())

    # --- what is told -----------------------------------------------------------------------------------------------

    def told(self, supervisor: Watched, settings: Any, what: Any) -> None:
        """A source has told a supervisor something, and that has changed its members."""
        from lb.core.membership import Answer

        watched = next((each for each in supervisor.discoveries.all() if each.settings == settings), None)
        members = self.pools.get(watched.place) if watched is not None else None
        if watched is None or members is None or what is members.last:
            return
        members.last = what
        if not isinstance(what, Answer):
            self.note(supervisor)
            return
        before = members.named
        wanted: dict[str, int] = {}
        kept = {address: w for address, w in before.items() if members.parts.get(address, "") in what.unanswered}
        for each in what.found:
            wanted.setdefault(each.address, each.weight)
            members.parts[each.address] = each.part
        good = self._passing(members.all, unchecked=True)
        members.named = {**kept, **wanted}
        self._count(members, good)
        missing = {address: weight for address, weight in before.items() if address not in members.named}
        held = {address: weight for address, weight in members.held.items() if address not in members.named}
        kept_by_lb = {each.found.address for each in watched.members.held}
        left = self._left(members, known=before)
        for address in missing:
            if address not in kept_by_lb and not self._may_go(members, address, left):
                self._violate(watched.place, f"{address} goes at once, and {left} of {members.most} are left")
            elif address in kept_by_lb and left[0] >= _enough(members.most[1], members.share):
                self._violate(watched.place, f"{address} is kept, and {left} of {members.most} are left")
        members.held = {**held, **{address: w for address, w in missing.items() if address in kept_by_lb}}
        self._see(watched, members)

    def _count(self, members: Members, good: tuple[int, int]) -> None:
        """Members that passed at one time are counted for a minute."""
        now = CLOCK.now
        surely_over, perhaps_over = now - members.counted[1] > WINDOW, now - members.counted[0] > WINDOW
        if surely_over or good[0] >= members.most[1]:
            members.most, members.counted = good, (now, now)
        elif perhaps_over:
            members.most = good[0], max(good[1], members.most[1])
            members.counted = min(members.counted[0], now), now
        elif good[1] >= members.most[0]:
            members.most = max(good[0], members.most[0]), max(good[1], members.most[1])
            members.counted = members.counted[0], now

    def _passing(self, addresses: Iterable[str], unchecked: bool) -> tuple[int, int]:
        """How many of these pass their checks, at least and at most. `unchecked`: whether those count that were not
        checked yet."""
        least = most = 0
        for address in addresses:
            known = self.world.knowledge.get(address)
            if known is None or (known.ready is False and known.ever is False and not known.streak):
                least, most = least + (unchecked and known is None), most + unchecked
            else:
                least, most = least + (known.ready is True), most + (known.ready is not False)
        return least, most

    def _left(self, members: Members, known: Iterable[str] = ()) -> tuple[int, int]:
        """Named members that pass. `known`: of these those count that were not checked yet."""
        known = set(known)
        old = self._passing([address for address in members.named if address in known], unchecked=True)
        new = self._passing([address for address in members.named if address not in known], unchecked=False)
        return old[0] + new[0], old[1] + new[1]

    def _may_go(self, members: Members, address: str, left: tuple[int, int]) -> bool:
        known = self.world.knowledge.get(address)
        fails = known is not None and known.ready is not True
        return fails or members.confirmed or left[1] >= _enough(members.most[0], members.share)

    # --- what lb makes of it ----------------------------------------------------------------------------------------

    def note(self, supervisor: Watched) -> None:
        """Hold lb's members against these, by all that was known until now."""
        for watched in supervisor.discoveries.all():
            members = self.pools.get(watched.place)
            if members is not None and watched.members is not members.seen:
                self._see(watched, members)

    def _see(self, watched: Any, members: Members) -> None:
        lb, members.seen = watched.members, watched.members
        named = {each.address: each.weight for each in lb.named}
        held = {each.found.address for each in lb.held}
        if named != members.named:
            self._violate(watched.place, f"lb has {named}, named are {members.named}")
            members.named = named
        if held - members.held.keys():
            self._violate(watched.place, f"lb keeps {held}, to be kept are {sorted(members.held)} at most")
        left = self._left(members)
        for address in [address for address in members.held if address not in held]:
            if not self._may_go(members, address, left):
                told = f"lb gives {address} up, which passes, and {left} of {members.most} are left"
                self._violate(watched.place, told)
            del members.held[address]
        if members.confirmed and not held:
            members.most, members.confirmed = (0, 0), False
        members.changed_at = CLOCK.now

    def begin_anew(self, supervisor: Watched) -> None:
        """Another supervisor counts: it has the members that the last one had."""
        self.trouble_until = max(self.trouble_until, CLOCK.now + HELD_UP)
        for watched in supervisor.discoveries.all():
            members = self.pools.get(watched.place)
            if members is None:
                continue
            named = {each.address: each.weight for each in watched.members.named}
            held = {each.found.address: each.found.weight for each in watched.members.held}
            if not watched.last_success and named != members.all and CLOCK.now > members.changed_at + 0.01:
                self._violate(watched.place, f"after a restart lb has {named}, before it was {members.all}")
            # Its answers until now were counted by nobody.
            most = 0, len(named) + len(held)
            members.named, members.held, members.most, members.counted = named, held, most, (-inf, inf)
            members.last, members.seen, members.changed_at = watched.last, watched.members, CLOCK.now
        self.put(supervisor)

    def put(self, supervisor: Watched) -> None:
        """lb has put members in force."""
        if not self.sources:
            return
        world, changed = self.world, False
        former, self.pools = self.pools, {}
        for name, service in world.plan.services.items():
            for pool, plan in service.sources.items():
                watched = supervisor.discoveries.of((name, pool))
                if watched is None:
                    continue
                self.pools[name, pool] = self._members(former, (name, pool), plan, watched)
        self.note(supervisor)
        for service in world.plan.services.values():
            for pool in service.pools:
                changed = self.fit(supervisor, service, pool) or changed
        if changed:
            self._know(supervisor)
            world.turns += 1  # so an order's dry run may have been about other targets
            world.on_change()

    def _members(self, former: dict[Place, Members], place: Place, plan: SourcePlan, watched: Any) -> Members:
        members = former.get(place)
        gone = [each for known, each in former.items() if known[1] not in self.world.plan.services[known[0]].sources]
        if members is None:
            members = next((each for each in gone if each.path == plan.path), None)
        if members is None:
            members = Members(plan.path, plan.share)
            if watched.up is None and watched.members.all:
                self._violate(place, f"lb has {watched.members.named} before it has asked")
            members.named = {each.address: each.weight for each in watched.members.all}
            members.most, members.counted = (0, len(members.named)), (-inf, inf)
        if members.path != plan.path:
            members.path, members.last = plan.path, None
        members.share = plan.share
        return members

    def fit(self, supervisor: Watched, service: ServicePlan, pool: str) -> bool:
        """The plan of a pool has the found targets that are in force. Returns whether that changes it."""
        fixed = [target for target in service.pools[pool] if not target.found]
        before = [target for target in service.pools[pool] if target.found]
        found = []
        if pool in service.sources:
            here = f"{service.name}/{pool}/"
            replaced = supervisor.handovers.under_way.get((service.name, pool))
            others = {target.address for target in fixed}
            others |= {address_of(target.id) for target in replaced.targets} if replaced is not None else set()
            had = {**{t.address: t for s in self.sources.values() for t in s.had.values()}}
            for id, target in supervisor.state.targets.items():
                address = address_of(id)
                if id.startswith(here) and address not in others:
                    found.append(dataclasses.replace(had[address], weight=target.weight, found=True))
        service.pools[pool] = [*fixed, *found]
        return before != found

    def _know(self, supervisor: Watched) -> None:
        """Targets that are new are yet to be checked; what is gone is forgotten."""
        world = self.world
        there = set()
        for service in world.plan.services.values():
            for targets in service.pools.values():
                for target in targets:
                    there.add(target.address)
                    if target.address not in world.knowledge:
                        world.knowledge[target.address] = Knowledge(service.check["rise"], service.check["fall"])
                        world.in_rotation.pop(target.address, None)
                        world.entered.pop(target.address, None)
                    override = world.overrides.get(target.address)
                    if override is not None and override[1] != target.weight:
                        del world.overrides[target.address]
        for place in list(world.replaced):
            targets, since = world.replaced[place]
            if place not in supervisor.handovers.under_way:
                world.given_up(*place)
                continue
            addresses = {target.address for target in world.plan.services[place[0]].pools[place[1]]}
            world.replaced[place] = [target for target in targets if target.address not in addresses], since
        there |= {target.address for targets, _ in world.replaced.values() for target in targets}
        world.forget_targets(there)

    def check(self) -> None:
        """What was told is in force in time, and what is to go is gone."""
        world, supervisor = self.world, self.world.supervisor
        if supervisor is None or not self.pools:
            return
        self.note(supervisor)
        hurt = world.workers_hurt > CLOCK.now - HELD_UP or any(worker.plane.behind for worker in world.workers)
        if hurt or world.orders:
            self.trouble_until = max(self.trouble_until, CLOCK.now + HELD_UP)
        late = HELD_UP if self.trouble_until > CLOCK.now else 0.0
        for (name, pool), members in self.pools.items():
            service, source = world.plan.services[name], self.sources[members.path]
            fixed = {target.address for target in service.pools[pool] if not target.found}
            in_force = {target.address: target.weight for target in service.pools[pool] if target.found}
            wanted = {address: weight for address, weight in members.all.items() if address not in fixed}
            replaced = {target.address for target in world.replaced.get((name, pool), ([], 0.0))[0]}
            wanted = {address: w for address, w in wanted.items() if address not in replaced or address in in_force}
            if in_force != wanted and CLOCK.now > members.changed_at + IN_FORCE + late:
                self._violate((name, pool), f"in force are {in_force}, members {wanted} for a while")
            self._check_told((name, pool), members, source, late)
            self._check_held((name, pool), members, late)

    def _check_told(self, place: Place, members: Members, source: Source, late: float) -> None:
        """What a source says is known in time."""
        since = max(source.changed_at, self.world.started_at + source.delay)
        if source.down or CLOCK.now < since + READ + late:
            return
        names = {a: t.weight for a, t in source.targets.items() if source.part.get(a, "") not in source.silent}
        if not names.items() <= members.named.items():
            self._violate(place, f"the source says {names} since {since:.1f}, known is {members.named}")
        if not source.silent and names != members.named:
            self._violate(place, f"the source says {names} since {since:.1f}, named is {members.named}")

    def _check_held(self, place: Place, members: Members, late: float) -> None:
        """A held member goes when it fails, or when enough named ones pass."""
        enough = self._left(members)[0] >= _enough(members.most[1], members.share)
        due = {}
        for address in members.held:
            known = self.world.knowledge.get(address)
            if enough or (known is not None and known.ready is False and known.streak < 0):
                due[address] = members.overdue.get(address, CLOCK.now)
                if CLOCK.now > due[address] + 1.0 + late:
                    self._violate(place, f"{address} is kept since {due[address]:.1f}, and is to go: {known}")
        members.overdue = due

    def _violate(self, place: Place, text: str) -> None:
        self.world.violate("1 found", f"{'/'.join(place)}: {text}")


def _enough(most: int, share: float) -> int:
    """Members that are to be left of so many."""
    return math.ceil(round((1 - share) * most, 9))
