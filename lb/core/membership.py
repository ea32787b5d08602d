"""Which targets a pool has of a source that names them. Pure: discovery proposes, health disposes.

A source's answer is a proposal. A target that is new in it gets its first request after its first passed check. A
target that is missing from it goes at once, unless too much goes at once:

- **Removals are held** where an answer would leave less than a share (`1 - guard`) of the members that passed their
  checks within the last `WINDOW` seconds. Only named members that pass are left.
- The missing members are then kept as long as they pass. A held member that fails its checks goes alone. All of them go
  once enough named members pass. An operator can confirm the removal as well.
- A part of a source may have no answer: one record type, one file of a directory. Its members stay.
- Answers are compared as sets: their order never changes anything. Of two endpoints with one address the first counts.
- Members with a higher `priority` number get requests only when no member with a lower one passes its checks.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lb.core.common_ends import between

#: Seconds over which removals are added up, so that a set that shrinks in steps is noticed as well.
WINDOW = 60.0
#: Members of one source that are used at most.
MOST = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """One endpoint, as a source names it."""

    address: str  # `host:port`, as in a target's id
    url: str
    weight: int = 1
    priority: int = 0  # the lowest one serves
    part: str = ""  # of the source: what has to answer for this endpoint to be gone
    name: str = ""  # the source's own name for it, for people
    settings: str = ""  # JSON: further settings that the file could give for a target


@dataclass(frozen=True, slots=True)
class Answer:
    """All endpoints that a source names now."""

    found: tuple[Found, ...]
    unanswered: frozenset[str] = frozenset()  # parts of the source that did not answer
    problems: tuple[str, ...] = ()  # what of the source could not be used, for people


@dataclass(frozen=True, slots=True)
class Held:
    """A member that the source no longer names."""

    found: Found
    since: float  # as the caller's clock has it


@dataclass(frozen=True)
class Members:
    """The members of one pool that come from its source. What follows from thousands of them is worked out once."""

    named: tuple[Found, ...] = ()  # by the newest answer; in order of their addresses
    held: tuple[Held, ...] = ()
    most: int = 0  # members that passed at one time, counted not longer than `WINDOW` ago
    counted_at: float = -math.inf

    @cached_property
    def all(self) -> tuple[Found, ...]:
        """Named and held members."""
        return (*self.named, *(each.found for each in self.held)) if self.held else self.named

    @cached_property
    def by_address(self) -> Mapping[str, Found]:
        """Named and held members by their addresses, in the same order."""
        return {each.address: each for each in self.all}

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The priorities of the members, the one that serves first."""
        return tuple(sorted({each.priority for each in self.all}))


#: The endpoints that do not pass their checks, by address. False: it fails; None: it was not checked yet. Of thousands
#: they are mostly few.
NotPassing = Mapping[str, bool | None]


#: What lies between the common ends of two answers: of the former one, and of the latter.
Difference = tuple[Sequence[Found], Sequence[Found]]


def restored(found: Iterable[Found]) -> Members:
    """The members that were stored before a restart."""
    return Members(tuple(_distinct(found, {}).values()))


def proposed(
    members: Members, answer: Answer, guard: float, ailing: NotPassing, now: float, parts: Difference | None = None
) -> Members:
    """The members after an answer. `guard`: the share of members that may go at one time. `parts`: by `difference`;
    with it, the cost of a small change hardly grows with what stays."""
    before = {each.address: each for each in members.named} if members.held else members.by_address
    silent = answer.unanswered
    kept = [each for each in members.named if each.part in silent] if silent else []
    now_named = _changed(members, parts) if parts is not None else None
    if now_named is None:
        now_named = _distinct((*answer.found, *kept) if kept else answer.found, before)
    named, addresses = tuple(now_named.values()), now_named.keys()
    lost = sorted({each.address for each in parts[0]} & before.keys()) if parts is not None else before
    gone = [before[address] for address in lost if address not in addresses]
    held = [each for each in members.held if each.found.address not in addresses]
    failing = sum(1 for address, checked in ailing.items() if checked is False and address in members.by_address)
    good = len(members.all) - failing
    if good >= members.most or now - members.counted_at > WINDOW:
        after = Members(named, tuple(held), good, now)
    else:
        after = replace(members, named=named, held=tuple(held))
    if gone and not _are_left(after, enough(after.most, guard), ailing, before):
        after = replace(after, held=(*held, *(Held(each, now) for each in gone)))
    return reviewed(after, guard, ailing)


def reviewed(members: Members, guard: float, ailing: NotPassing) -> Members:
    """The members once probes have had their say on the ones that are held."""
    if not members.held:
        return members
    stay = tuple(each for each in members.held if ailing.get(each.found.address, True) is not False)
    if stay and _are_left(members, enough(members.most, guard), ailing):
        stay = ()
    return members if len(stay) == len(members.held) else replace(members, held=stay)


def _are_left(members: Members, needed: int, ailing: NotPassing, before: Container[str] = ()) -> bool:
    """Whether so many named members pass. One whose address was named `before` counts as well until it is checked."""
    held = {each.found.address for each in members.held}
    lost = sum(
        1
        for address, checked in ailing.items()
        if address in members.by_address and address not in held and (checked is False or address not in before)
    )
    return len(members.named) - lost >= needed


def confirmed(members: Members) -> Members:
    """The members once an operator has confirmed that the held ones are to go."""
    return replace(members, held=(), most=0)


def enough(most: int, guard: float) -> int:
    """Members that must be left of `most` for the other ones to go. The guard is off at 1."""
    return math.ceil(round((1 - guard) * most, 9))


def serving(members: Members, ailing: NotPassing) -> int:
    """The priority whose members get requests: the lowest one of which a member passes, else the lowest one."""
    known = members.levels
    if len(known) < 2:
        return known[0] if known else 0
    able = {each.priority for each in members.all if each.weight and each.address not in ailing}
    return min(able, default=known[0])


def weighed(members: Members, level: int) -> list[tuple[Found, int]]:
    """The members, each with its weight while `level` serves; 0 for members that stand by."""
    return [(each, each.weight if each.priority == level else 0) for each in members.all]


def _distinct(found: Iterable[Found], before: Mapping[str, Found]) -> dict[str, Found]:
    """The endpoints in order of their addresses. One that is as it was `before` is the same object. (Members are in
    that order already, and sorting what is nearly sorted takes little.)"""
    first = {each.address: each for each in reversed(tuple(found))}  # of two with one address the first counts
    for address, each in first.items():
        known = before.get(address)
        if known is not each and known == each:
            first[address] = known
    in_order = sorted([*filter(first.__contains__, before), *(first.keys() - before.keys())])
    return {address: first[address] for address in in_order[:MOST]}


def difference(members: Members, last: Answer | None, answer: Answer) -> Difference | None:
    """The difference between the answer that the members are of and a new one. None: it is large, or the members are
    not just what the last one named."""
    if last is None or members.held or last.unanswered or answer.unanswered or len(last.found) != len(members.named):
        return None
    left, came = between(last.found, answer.found)
    return (left, came) if len(left) + len(came) <= len(last.found) else None


def _changed(members: Members, parts: Difference) -> dict[str, Found] | None:
    """The same as `_distinct`, by a difference. None: the new answer names an address twice, or too many."""
    left, came = parts
    before = members.by_address
    found = dict(before)
    for each in left:
        if found.pop(each.address, None) is None:
            return None
    for each in came:
        if each.address in found:
            return None
        known = before.get(each.address)
        found[each.address] = known if known is not None and known == each else each
    if len(found) > MOST:
        return None
    return {address: found[address] for address in sorted(found)} if came else found


class Debounce:
    """When changes that come in a burst are put in force: after a quiet moment, and within a bounded time."""

    def __init__(self, quiet: float = 0.05, longest: float = 1.0) -> None:
        self._quiet = quiet
        self._longest = longest
        self._first: float | None = None
        self._last = 0.0

    def changed(self, now: float) -> None:
        if self._first is None:
            self._first = now
        self._last = now

    def at_once(self) -> None:
        """A change that must not wait."""
        self._first = -math.inf

    def due(self) -> float | None:
        """When the changes are to be in force; None: there are none."""
        return None if self._first is None else min(self._last + self._quiet, self._first + self._longest)

    def taken(self) -> None:
        self._first = None
