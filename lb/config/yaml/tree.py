"""The tree of a file: mappings, lists and scalars that know their place, and problems that quote their line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lb.config.model.coerce import DECIMAL, WHOLE, Scalar
from lb.config.yaml.problems import Problem

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column count from 1; `width` is how much of the line it is about."""

    line: int
    column: int
    width: int = 1


@dataclass(slots=True, eq=False)
class Node:
    """A mapping (`entries`), a list (`items`) or a scalar (`text`)."""

    place: Place
    entries: dict[str, Entry] | None = None
    items: list[Node] | None = None
    text: str = ""
    plain: bool = False  # written without quotes, or from the environment
    size: int = 1  # nodes it expands to, aliases counted each time
    broken: bool = False  # reported already: what the model says of it only follows from that
    anchored: bool = False  # it has an anchor, so aliases may name it

    def child(self, step: str | int) -> Node | None:
        if self.entries is not None and isinstance(step, str):
            entry = self.entries.get(step)
            return entry.node if entry else None
        if self.items is not None and isinstance(step, int) and 0 <= step < len(self.items):
            return self.items[step]
        return None

    def below(self, step: str | int) -> Node | None:
        """The child, or the list itself where it stands for a mapping with that list as its `targets`."""
        return self if step == "targets" and self.items is not None else self.child(step)

    def data(self) -> Any:
        """Plain Python values for the model."""
        if self.entries is not None:
            return {key: entry.node.data() for key, entry in self.entries.items() if entry.node is not MISSING}
        if self.items is not None:
            return [item.data() for item in self.items]
        return Scalar(self.text) if self.plain and _odd(self.text) else self.text


@dataclass(slots=True, eq=False)
class Entry:
    """A key with its place, and its value."""

    place: Place
    node: Node
    merged: bool = False  # came in by `<<`


def _odd(text: str) -> bool:
    """Whether a YAML reader takes this plain text for something else."""
    return text in _WORDS or WHOLE.fullmatch(text) is not None or DECIMAL.fullmatch(text) is not None or _lead(text)


def _lead(text: str) -> bool:
    return text[:1] in "0123456789+-." and re.fullmatch(r"[+-]?\.?[0-9][0-9a-fA-FoxXb_.:eE+-]*", text) is not None


NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_WORDS = frozenset(("true", "True", "TRUE", "false", "False", "FALSE", *NULLS))


@dataclass
class Source:
    """A file that was read: its lines, its tree, and what was wrong with it so far."""

    name: str
    lines: list[str]
    root: Node
    problems: list[Problem] = field(default_factory=list)

    def problem(self, place: Place, message: str, hint: str = "", path: str = "") -> Problem:
        quote = self.lines[place.line - 1] if 0 < place.line <= len(self.lines) else ""
        return Problem(self.name, place.line, place.column, message, quote, hint, place.width, path)

    def node(self, path: Path) -> Node | None:
        """The value at a path, or None where the file has none."""
        node: Node | None = self.root
        for step in path:
            node = node.below(step) if node is not None else None
        return node

    def find(self, path: Path, key: bool = False) -> Place:
        """The place of a value, or of what comes nearest to it on its way; with `key`, of its key."""
        node, place = self.root, Place(1, 1)
        for step in path:
            child = node.below(step)
            if child is None:
                return place
            if child is node:
                continue
            own = child.place
            if node.entries is not None and isinstance(step, str):
                entry = node.entries[step]
                # A mapping or list is pointed at by its key: its own place is that of its first line.
                own = entry.place if key or child.entries is not None or child.items is not None else child.place
            node, place = child, own
        return place


#: Stands for a value that was reported already; `load` leaves it out.
MISSING = Node(Place(0, 0))
