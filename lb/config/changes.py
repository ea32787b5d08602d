"""What one configuration changes of another, for people: single changes, and all of them with what stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["add", "drain", "change", "restart"]
SIGNS: dict[Kind, str] = {"add": "+", "drain": "-", "change": "~", "restart": "!"}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, and what a reload makes of it."""

    kind: Kind
    subject: str  # a target's id, or a path such as services.greeting.readiness.interval
    text: str

    def __str__(self) -> str:
        return f"{SIGNS[self.kind]} {self.subject}: {self.text}"


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
