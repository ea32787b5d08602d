"""The changes of one configuration against another, for people: single changes, and all of them with what stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lb.core.renames import split_id

Kind = Literal["add", "drain", "change", "restart"]
What = Literal["listener", "route", "service", "pool", "target", "setting"]
SIGNS: dict[Kind, str] = {"add": "+", "drain": "-", "change": "~", "restart": "!"}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, and what a reload makes of it."""

    kind: Kind
    subject: str  # a target's id, or a path such as services.greeting.readiness.interval
    text: str
    what: What = "setting"  # what changes
    service: str = ""  # the service that it belongs to; empty: to none
    pool: str = ""
    target: str = ""  # a target's id, where it is one target
    field: str = ""  # what of it changes, where that is one thing
    old: str = ""  # its value before and after, as they are shown; empty: not one value, or secret
    new: str = ""
    of_many: str = ""  # `text` about several targets; empty: the same words fit

    def __str__(self) -> str:
        return f"{SIGNS[self.kind]} {self.subject}: {self.text}"


def of_target(
    kind: Kind, id: str, text: str, *, field: str = "", old: str = "", new: str = "", of_many: str = ""
) -> Change:
    """A change of one target."""
    service, pool, _ = split_id(id)
    return Change(kind, id, text, "target", service, pool, id, field, old, new, of_many)


def of_some(ids: Sequence[str], text: str, field: str) -> Change:
    """The same change of several targets, named by pool; of one, by its id."""
    if len(ids) == 1:
        return of_target("change", ids[0], text, field=field)
    places = dict.fromkeys(split_id(id)[:2] for id in ids)
    subject = f"{len(ids)} targets of {', '.join(f'{service}/{pool}' for service, pool in places)}"
    services = {service for service, _ in places}
    service = services.pop() if len(services) == 1 else ""
    pool = next(iter(places))[1] if len(places) == 1 else ""
    return Change("change", subject, text, "target", service, pool, field=field)


def of_pool(kind: Kind, service: str, pool: str, text: str) -> Change:
    """A change of a pool."""
    return Change(kind, f"pool {service}/{pool}", text, "pool", service, pool)


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between two configurations; see `diff`."""

    changes: tuple[Change, ...]
    kept: tuple[str, ...]  # ids of targets that keep health, connections and counters

    def of(self, kind: Kind) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.kind == kind)

    def lines(self) -> list[str]:
        """One line for each change; none when there are none."""
        return [str(change) for change in self.changes]

    def summary(self) -> str:
        """In one sentence."""
        if not self.changes:
            return "Nothing would change."
        words = {"add": "added", "drain": "drained", "change": "changed", "restart": "only after a restart"}
        counts = [f"{len(found)} {words[kind]}" for kind in SIGNS if (found := self.of(kind))]
        kept = f"; {counted(len(self.kept), 'target')} kept as they are" if self.kept else ""
        return f"{', '.join(counts)}{kept}."


def counted(number: int, noun: str) -> str:
    """`1 target`, `2 targets`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
