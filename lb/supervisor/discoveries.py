"""The sources of discovered targets: asked here, judged in `core.membership`, put in force by `Installation`.

Each pool with `discover` has a source, which is watched in a task of its own. An answer changes the members of the pool
at once, in memory. Changes of a burst are put in force together, after a quiet moment and within a bounded time. Held
members are looked at four times a second, as probes may have had their say on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import compress
from operator import is_not

from lb.config.found import Alike, FoundChange, Made, found_endpoint, with_found
from lb.config.model.config import Config
from lb.config.model.discovery import Discover
from lb.config.resolve import World
from lb.core.explain import span
from lb.core.lifecycle import Health
from lb.core.membership import (
    Answer,
    Debounce,
    Difference,
    Found,
    Members,
    NotPassing,
    confirmed,
    difference,
    proposed,
    restored,
    reviewed,
    serving,
    weighed,
)
from lb.core.renames import Place, split_id
from lb.core.targets import Target
from lb.discovery.providers import source_of
from lb.discovery.source import NoAnswer, Source
from lb.discovery.store import FoundStore
from lb.process.guard import Guard
from lb.supervisor.events import Events
from lb.supervisor.state import State

#: Seconds between two looks at members that are held or stand by.
REVIEW_EVERY = 0.25
#: Seconds at most that /readyz waits for the first answer of a source of which nothing is known.
FIRST_LOAD = 15.0
#: Changed members that are put in force one by one in any case; of large sources a quarter is.
MANY = 512
#: Targets that one event names.
MOST_NAMED = 3
#: Seconds between two attempts to write the members down.
WRITE_AGAIN = 5.0
#: Members of which more than so many a second are not written down.
WRITTEN_PER_SECOND = 2_000

#: Of each source whose members are in force: which version of them, and the priority that serves.
InForce = Mapping[Place, tuple[int, int]]


@dataclass(slots=True, eq=False)
class Watched:
    """The source of one pool."""

    place: Place
    settings: Discover
    guard: float = 0.0
    members: Members = field(default_factory=Members)
    version: int = 0  # of the members: grows with each change
    level: int = 0  # the priority that serves
    last: Answer | NoAnswer | None = None
    up: bool | None = None  # None: it was not asked yet
    last_success: float = 0.0  # Unix time; 0: none in this run
    failing_since: float = 0.0  # monotonic
    waits_until: float = 0.0  # monotonic: /readyz waits for its first answer
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    _names: tuple[int, dict[str, float | None]] = field(default=(-1, {}), repr=False)

    def since(self) -> Mapping[str, float | None]:
        """Address of each member → since when the source no longer names it (monotonic); None: it does."""
        if self._names[0] != self.version:
            held = {each.found.address: each.since for each in self.members.held}
            self._names = self.version, {**{each.address: None for each in self.members.named}, **held}
        return self._names[1]

    def name_of(self, address: str) -> str:
        """The source's own name for a member; empty: it has none."""
        found = self.members.by_address.get(address)
        return found.name if found is not None else ""

    @property
    def name(self) -> str:
        return "/".join(self.place)

    @property
    def title(self) -> str:
        """The source, for people."""
        return self.settings.title()

    @property
    def error(self) -> str:
        """Why it does not answer; empty: it does."""
        return str(self.last) if isinstance(self.last, NoAnswer) else ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What of its answer could not be used."""
        return self.last.problems if isinstance(self.last, Answer) else ()


class Discoveries:
    """All sources of one supervisor."""

    def __init__(
        self,
        state: State,
        healths: Mapping[str, Health],
        not_ready: AbstractSet[str],
        events: Events,
        guard: Guard,
        store: FoundStore,
        apply: Callable[[], Awaitable[None]],
        make: Callable[[Discover], Source] = source_of,
    ) -> None:
        self._state = state
        self._healths = healths
        self._not_ready = not_ready  # ids of targets whose probes do not pass
        self._events = events
        self._guard = guard
        self._store = store
        self._apply = apply  # puts the members in force
        self.make = make  # of each source that is begun from now on
        self._watched: dict[Place, Watched] = {}
        self._stored: dict[Place, tuple[Found, ...]] = {}
        self._in_force: InForce = {}
        #: The newest result of `world`: what it was made of, the endpoints in it, and itself.
        self._made_of = self._whole = state.file_world
        self._made_with: InForce | None = None
        self._made: Made = {}
        self._found_in: dict[Place, Mapping[str, Found]] = {}  # by address, of each source
        self._alike: dict[Place, Alike] = {}
        self._debounce = Debounce()
        self._wake = asyncio.Event()
        self._begun = False
        self._waiting = False  # members are held, or stand by
        self._written: dict[Place, int] = {}  # versions of the members on the disk
        self._written_at = 0.0
        self.trouble = ""  # why the members cannot be written; empty: they can

    # --- the configuration ------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Take the members that were stored before a restart. Blocks."""
        self._stored = self._store.read()

    def world(self, file_world: World) -> tuple[World, InForce]:
        """A file's world with the targets that are found, and what of each source is in it."""
        known = self._known(file_world.config)
        sources = {
            place: known.get(place) or self._restored(place, settings)
            for place, settings, _ in _pools(file_world.config)
        }
        in_force = {place: (each.version, each.level) for place, each in sources.items()}
        again = file_world is self._made_of
        if again and in_force == self._made_with:
            return self._whole, in_force
        made, used, whole = self._made if again else {}, Made(), file_world
        for place, each in sources.items():
            found = weighed(each.members, each.level)
            used |= {key: made[key] for one in found if (key := (place, *one)) in made}
            if found:
                whole = with_found(whole, place, found, used)
        self._made_of, self._made_with, self._made, self._whole = file_world, in_force, used, whole
        self._found_in = {place: known.members.by_address for place, known in sources.items()}
        if not again:
            self._alike = {}
        return whole, in_force

    def change(self, file_world: World, world: World) -> FoundChange | None:
        """What differs between the world in force and `world(file_world)`, where that is no more than targets of one
        source; None: it is more, or nothing."""
        if file_world is not self._made_of or world is not self._whole or self._made_with is None:
            return None
        made = self._made_with
        news = [each for place, each in self._watched.items() if made.get(place) != (each.version, each.level)]
        if len(news) != 1 or made.get(news[0].place, (0, None))[1] != news[0].level or len(news[0].members.levels) > 1:
            return None
        watched, place = news[0], news[0].place
        before, after = self._found_in[place], watched.members.by_address
        gone = before.keys() - after.keys()
        others = compress(after.values(), map(is_not, map(before.get, after), after.values()))  # of thousands, the few
        fresh = [each for each in others if before.get(each.address) != each]
        if len(gone) + len(fresh) > max(MANY, len(after) // 4):
            return None  # working the whole out is not dearer then
        start = f"{watched.name}/"
        own = [target.id for target in file_world.pool(*place).targets]
        ids = list(map(start.__add__, after))
        if own:
            taken = frozenset(own)
            ids = [*own, *(id for id in ids if id not in taken)]
            gone = {address for address in gone if start + address not in taken}
            fresh = [each for each in fresh if start + each.address not in taken]
        if any(each.settings for each in (*fresh, *(before[address] for address in gone))):
            return None  # its check may be another one
        if any(was.settings for each in fresh if (was := before.get(each.address)) is not None):
            return None
        alike = self._alike.setdefault(place, {})
        changed = [found_endpoint(file_world, place, each, each.weight, alike) for each in fresh]
        return FoundChange(place, tuple(ids), tuple(changed), tuple(start + address for address in sorted(gone)))

    def took(self, change: FoundChange, world: World) -> None:
        """A change is in force; `world` is the one with it."""
        watched, place = self._watched[change.place], change.place
        before, after = self._found_in[place], watched.members.by_address
        start = len(watched.name) + 1
        for id in change.removed:
            was = before[id[start:]]
            self._made.pop((place, was, was.weight), None)
        for each in change.changed:
            found, was_here = after[each.target.id[start:]], before.get(each.target.id[start:])
            if was_here is not None:
                self._made.pop((place, was_here, was_here.weight), None)
            self._made[place, found, found.weight] = each
        assert self._made_with is not None
        self._made_with = self._in_force = {**self._made_with, place: (watched.version, watched.level)}
        self._found_in[place], self._whole = after, world
        self._note_waiting()

    def _known(self, config: Config) -> dict[Place, Watched]:
        """The sources of the pools of `config`: a pool's own, or the same source of a pool that has another name there.
        So the members are the ones that `renames` compares."""
        wanted = {place: settings for place, settings, _ in _pools(config)}
        known = {place: self._watched[place] for place in wanted if place in self._watched}
        gone = [each for place, each in self._watched.items() if place not in known]
        for place, settings in wanted.items():
            if place not in known and (same := next((each for each in gone if each.settings == settings), None)):
                gone.remove(same)
                known[place] = same
        return known

    def configure(self, config: Config, in_force: InForce) -> None:
        """A configuration is in force: watch the sources that it has."""
        kept, former, self._watched = self._known(config), self._watched, {}
        for place, settings, guard in _pools(config):
            known = kept.get(place)
            if known is None:
                known = self._restored(place, settings)
            elif known.settings != settings:  # its members stay until the new source answers
                _end(known)
                known.last, known.up, known.last_success = None, None, 0.0
            known.place, known.settings, known.guard = place, settings, guard
            self._watched[place] = known
            if self._begun and known.task is None:
                self._start(known)
        for each in former.values():
            if each not in self._watched.values():
                _end(each)
        self._in_force, self._stored = in_force, {}  # a pool that gets a source later begins without members
        self._note_waiting()
        if any(in_force.get(place) != (each.version, each.level) for place, each in self._watched.items()):
            self._changed()
        if self._watched.keys() != former.keys():
            self._wake.set()  # a restart is to find the members under the pool's new name

    def _restored(self, place: Place, settings: Discover) -> Watched:
        """A source that was not asked yet, with the members that were stored of it."""
        members = restored(self._stored.get(place, ()))
        return Watched(place, settings, members=members, level=min(members.levels, default=0))

    def begin(self, wait: bool) -> None:
        """Begin to watch the sources. `wait`: /readyz is to wait for sources of which nothing is known."""
        self._begun = True
        for each in self._watched.values():
            if wait and not each.members.all:
                each.waits_until = time.monotonic() + FIRST_LOAD
            self._start(each)

    def _start(self, watched: Watched) -> None:
        source = self.make(watched.settings)
        watched.task = asyncio.ensure_future(
            self._guard.keep_running("discovery", lambda: source.watch(lambda what: self._told(watched, what)))
        )

    def close(self) -> None:
        for each in self._watched.values():
            _end(each)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _told(self, watched: Watched, what: Answer | NoAnswer) -> None:
        """A source has answered, or has not."""
        if isinstance(what, Answer):
            watched.last_success = time.time()
        if what is watched.last:
            return
        before, watched.last = watched.last, what
        if isinstance(what, NoAnswer):
            self._failed(watched, str(what))
            return
        if watched.up is False:
            lasted = span(time.monotonic() - watched.failing_since)
            self._emit(watched, f"{watched.title} answers again, after {lasted}", before="down", after="up")
        if what.problems and (not isinstance(before, Answer) or before.problems != what.problems):
            self._emit(watched, f"a part of {watched.title} cannot be used: {'; '.join(what.problems)}")
        watched.up, watched.waits_until = True, 0.0
        former = watched.members
        parts = difference(former, before if isinstance(before, Answer) else None, what)
        known, came = former.by_address, what.found if parts is None else parts[1]
        ailing = self._ailing(watched, [each.address for each in came if each.address not in known])
        members = proposed(former, what, watched.guard, ailing, time.monotonic(), parts)
        if self._replace(watched, members):
            self._emit(watched, _said(watched, former, members, parts or (former.all, members.all)))

    def _failed(self, watched: Watched, reason: str) -> None:
        if watched.up is not False:
            watched.failing_since = time.monotonic()
            count = len(watched.members.all)
            stay = f"its {count} targets stay, probed as ever" if count else "no target of it is known yet"
            text = f"{watched.title} does not answer: {reason}; {stay}"
            self._emit(watched, text, before="up" if watched.up else "", after="down")
        watched.up = False

    def _replace(self, watched: Watched, members: Members) -> bool:
        """Take other members, or the same ones with other counts. Returns whether any has changed."""
        before, watched.members = watched.members, members
        if before.named == members.named and before.held == members.held:
            return False
        watched.version += 1
        self._note_waiting()
        watched.level = serving(members, self._ailing(watched) if len(members.levels) > 1 else {})
        self._changed()
        return True

    def _changed(self) -> None:
        self._debounce.changed(time.monotonic())
        self._wake.set()

    def _note_waiting(self) -> None:
        """Note whether members are held, or stand by: asked at each change of a target's health."""
        self._waiting = any(each.members.held or len(each.members.levels) > 1 for each in self._watched.values())

    def look(self) -> None:
        """A target's health is another one: look at the members that are held or stand by."""
        if self._waiting:
            self._wake.set()

    def _ailing(self, watched: Watched, more: Iterable[str] = ()) -> NotPassing:
        """The members that do not pass their checks, and the ones of `more` addresses."""
        start, healths = f"{watched.name}/", self._healths
        known: Iterable[str] = watched.members.by_address
        if self._in_force.get(watched.place) == (watched.version, watched.level):  # each of them is a target, then
            size = len(start)
            known = [id[size:] for id in self._not_ready if id.startswith(start) and id[size:] in known]
        return {
            address: None if health is None or (health.probe == "starting" and health.checked is None) else False
            for address in (*known, *more)
            if (health := healths.get(start + address)) is None or health.probe != "ready"
        }

    # --- in the background ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Put changes in force, for as long as lb runs."""
        while True:
            due = None if self._state.blocked_by else self._debounce.due()
            wait = REVIEW_EVERY if due is None else min(REVIEW_EVERY, max(0.0, due - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            self._wake.clear()
            for watched in self._watched.values():
                self._review(watched)
            due = self._debounce.due()
            if due is not None and time.monotonic() >= due and not self._state.blocked_by:
                self._debounce.taken()
                await self._apply()
            await self._write()

    def _review(self, watched: Watched) -> None:
        """See what probes say of members that are held, or stand by."""
        if not watched.members.held and len(watched.members.levels) < 2:
            return
        ailing = self._ailing(watched)
        if watched.members.held:
            before, after = watched.members, reviewed(watched.members, watched.guard, ailing)
            if after is not before and self._replace(watched, after):
                self._emit(watched, _released(before, after, watched.title))
        if len(watched.members.levels) > 1:
            level = serving(watched.members, ailing)
            if level != watched.level:
                text = f"no target of priority {watched.level} passes its checks: those of {level} get the requests"
                if level < watched.level:
                    text = f"targets of priority {level} pass their checks again: they get the requests"
                self._emit(watched, text)
                watched.level = level
                self._debounce.at_once()  # nobody serves until then

    async def _write(self) -> None:
        versions = {place: each.version for place, each in self._watched.items() if each.up is not None}
        count = sum(len(each.members.named) for each in self._watched.values())
        pause = WRITE_AGAIN if self.trouble else min(WRITE_AGAIN, count / WRITTEN_PER_SECOND) if self._written else 0.0
        if versions == self._written or time.monotonic() - self._written_at < pause:
            return
        kept = {place: each.members.all for place, each in self._watched.items()}
        self._written_at = time.monotonic()
        if await asyncio.to_thread(self._store.write, kept):
            self._written, self.trouble = versions, ""
        else:
            self.trouble = "found targets cannot be written to the state directory"

    # --- questions and orders ---------------------------------------------------------------------------------------

    def waits_for(self) -> str:
        """The sources whose first answer /readyz waits for; empty: none."""
        now = time.monotonic()
        return ", ".join(f"{each.title} ({each.name})" for each in self._watched.values() if each.waits_until > now)

    def of(self, place: Place) -> Watched | None:
        """The source of a pool; None: it has none."""
        return self._watched.get(place)

    def all(self) -> Collection[Watched]:
        return self._watched.values()

    def naming(self, target: Target) -> tuple[Watched, float | None] | None:
        """The source that a target comes from, and since when that no longer names it (monotonic; None: it does). None:
        the target comes from the file."""
        watched = self._watched.get((target.service, target.pool))
        if watched is None or target.id in self._state.file_world.targets:
            return None
        address = split_id(target.id)[2]
        return (watched, watched.since()[address]) if address in watched.since() else None

    def confirm_removals(self, place: Place, actor: str) -> int:
        """An operator says that the held members of a pool are to go. Returns how many."""
        watched = self._watched.get(place)
        if watched is None or not watched.members.held:
            return 0
        count = len(watched.members.held)
        self._replace(watched, confirmed(watched.members))
        self._emit(watched, f"the removal of {_targets(count)} is confirmed", actor=actor)
        return count

    def _emit(self, watched: Watched, text: str, *, actor: str = "", before: str = "", after: str = "") -> None:
        self._events.emit("discovery", text, watched.name, actor=actor, before=before, after=after)


def _pools(config: Config) -> Iterator[tuple[Place, Discover, float]]:
    """The pools whose targets are found: place, settings of the source, guard."""
    for service_name, service in config.services.items():
        for pool_name, pool in service.pools.items():
            if pool.discover is not None:
                yield (service_name, pool_name), pool.discover, pool.removal_guard


def _end(watched: Watched) -> None:
    if watched.task is not None:
        watched.task.cancel()
        watched.task = None


def _targets(count: int) -> str:
    return "1 target" if count == 1 else f"{count} targets"


def _named(addresses: list[str]) -> str:
    more = len(addresses) - MOST_NAMED
    return ", ".join(addresses[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _said(watched: Watched, before: Members, after: Members, differing: Difference) -> str:
    """What an answer has changed, for people. All that has is among the differing members, before and after."""
    old, new = before.by_address, after.by_address
    held = {each.found.address for each in after.held} - {each.found.address for each in before.held}
    came = [each.address for each in differing[1]]
    added = sorted({address for address in came if address not in old and address in new})
    gone = sorted({each.address for each in differing[0] if each.address not in new})
    changed = sorted(
        {address for address in came if address in old and address in new and old[address] != new[address]}
    )
    parts = []
    if added:
        parts.append(f"{_targets(len(added))} found ({_named(added)})")
    if gone:
        parts.append(f"{_targets(len(gone))} gone ({_named(gone)})")
    if changed:
        parts.append(f"{_targets(len(changed))} with other settings ({_named(changed)})")
    if held:
        parts.append(
            f"{_targets(len(held))} no longer named, but kept while they pass their checks ({_named(sorted(held))}): "
            f"too many are gone at one time; `lb discover --confirm {watched.name}` lets them go"
        )
    return f"{watched.title}: {', '.join(parts) or 'named again what it no longer had'}"


def _released(before: Members, after: Members, title: str) -> str:
    stay = {each.found.address for each in after.held}
    gone = [each.found.address for each in before.held if each.found.address not in stay]
    if stay:
        why = "they fail their checks" if len(gone) > 1 else "it fails its checks"
    else:
        why = "enough named targets pass, or they fail their checks"
    return f"{_targets(len(gone))} that {title} no longer names are dropped ({_named(gone)}): {why}"
