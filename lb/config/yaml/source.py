"""The text of a file → a tree of nodes that know their place. YAML as people mean it, and nothing beyond.

Built from PyYAML's events, not its nodes. So a scalar keeps the text it has in the file (see `coerce`), and keys that
come twice are seen. Depth and size are bounded while reading. PyYAML's own composer overflows the C stack on ten
thousand opening brackets.

- References to the environment are replaced (`environment`). The result counts as plain text, so that
  `workers: "${WORKERS}"` is a number.
- Anchors, aliases and `<<` merges work; how much they may expand to is bounded. Tags are refused, but for `!!str`.
- A key without a value is an error: it is more often forgotten than meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from lb.config.yaml.environment import HIDDEN, substitute, veil
from lb.config.yaml.problems import ConfigError, Problem
from lb.config.yaml.syntax import explain
from lb.config.yaml.tree import MISSING, NULLS, Entry, Node, Place, Source

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 500_000

#: Where YAML 1.1 ends a line (`str.splitlines` ends it in more places).
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
#: libyaml where PyYAML was built with it: ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(text: str, name: str, environ: Mapping[str, str]) -> Source:
    """The tree of `text`; raises `ConfigError` when there is none to be had. Lesser errors are in `problems`."""
    source = Source(name, _lines(text), Node(Place(1, 1)))
    if len(text) > MAX_BYTES:
        raise ConfigError([Problem(name, 0, 0, f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB")])
    if hidden := HIDDEN.search(text):
        before = text.count("\n", 0, hidden.start())
        place = Place(before + 1, hidden.start() - text.rfind("\n", 0, hidden.start()))
        raise ConfigError([source.problem(place, "a character of the private-use area is not allowed here")])
    builder = _Builder(source, environ)
    try:
        for event in yaml.parse(veil(text), Loader=_LOADER):
            builder.take(event)
    except _TooMuch as error:
        raise ConfigError([*source.problems, source.problem(error.place, str(error))]) from None
    except yaml.YAMLError as error:
        broken = explain(source, error)
        # Errors in the same line before YAML gave up mostly follow from the same slip.
        raise ConfigError([*(one for one in source.problems if one.line != broken.line), broken]) from None
    if builder.root is None or (builder.root.plain and builder.root.text in NULLS):
        message = "the file is empty"
        raise ConfigError([Problem(name, 1, 1, message, hint=f"The smallest file is:\n{SMALLEST}")])
    source.root = builder.root
    return source


SMALLEST = "backends: [http://127.0.0.1:5001, http://127.0.0.1:5002]"


class _TooMuch(Exception):  # noqa: N818 - it says what happened
    """A bound was passed; reading stops."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    node: Node
    anchor: str | None
    flow: bool = False  # written with { } or [ ]
    key: tuple[str, Place] | None = None
    merges: list[Node] = field(default_factory=list)


class _Builder:
    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self.source = source
        self.environ = environ
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}  # None: still open, so an alias would contain itself
        self._count = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _TooMuch("a second document begins here; a file is one document", _place(event))
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case _:
                pass

    def _fault(self, place: Place, message: str, hint: str = "") -> None:
        self.source.problems.append(self.source.problem(place, message, hint))

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        place = _place(event)
        if len(self._open) >= MAX_DEPTH:
            raise _TooMuch(f"nested more than {MAX_DEPTH} levels deep", place)
        self._tagless(event, ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"))
        node = Node(place)
        if isinstance(event, yaml.MappingStartEvent):
            node.entries = {}
        else:
            node.items = []
        if event.anchor is not None:
            self._anchors[event.anchor] = None
            node.anchored = True
        self._open.append(_Open(node, event.anchor, bool(event.flow_style)))

    def _end(self) -> None:
        done = self._open.pop()
        for merge in done.merges:
            self._merge(done.node, merge)
        if done.anchor is not None:
            self._anchors[done.anchor] = done.node
        self._add(done.node)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._tagless(event, ("tag:yaml.org,2002:str",))
        place = _place(event)
        done = substitute(event.value, self.environ)
        for message, hint in done.faults:
            self._fault(place, message, hint)
        plain = (not event.style and event.tag is None) or done.replaced
        node = Node(place, text=done.text, plain=plain, broken=bool(done.faults))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node, quoted=bool(event.style))

    def _alias(self, event: yaml.AliasEvent) -> None:
        place = _place(event)
        anchor = event.anchor or ""
        if anchor not in self._anchors:
            near = _nearest(anchor, self._anchors)
            self._fault(place, f"there is no anchor &{anchor} above this line", near and f"Did you mean *{near}?")
            self._add(Node(place, broken=True))
            return
        node = self._anchors[anchor]
        if node is None:
            raise _TooMuch(f"*{anchor} stands inside of what it names", place)
        self._add(node, alias=place)

    def _add(self, node: Node, quoted: bool = False, alias: Place | None = None) -> None:
        place = alias or node.place
        self._count += 1
        if self._count > MAX_NODES or node.size > MAX_NODES:
            raise _TooMuch(f"the file has, or its aliases expand to, more than {MAX_NODES} values", place)
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        inside = top.node
        if inside.items is not None:
            if self._is_null(node, quoted):
                self._fault(place, "a list entry has no value", "Remove the dash, or write a value behind it.")
            inside.items.append(node)
            inside.size += node.size
        elif top.key is None:
            if node.entries is not None or node.items is not None:
                raise _TooMuch("a key must be a text, not a mapping or a list", place)
            top.key = (node.text, place)
        else:
            self._entry(top, node, quoted, place)

    def _entry(self, top: _Open, node: Node, quoted: bool, place: Place) -> None:
        inside = top.node
        assert inside.entries is not None and top.key is not None
        key, key_place = top.key
        top.key = None
        if key == "<<":
            top.merges.append(node)
            return
        if earlier := inside.entries.get(key):
            message = f"{key!r} is given twice; the first one is in line {earlier.place.line}"
            self._fault(key_place, message, "Keep one of them.")
            return
        if self._is_null(node, quoted):
            hint = "Give it one, or remove the line to take the default."
            if top.flow:
                hint = "Give it one, or remove it to take the default.\nInside { } a text with a comma needs quotes."
            self._fault(key_place, f"{key!r} has no value", hint)
            inside.entries[key] = Entry(key_place, MISSING)
            return
        inside.entries[key] = Entry(key_place, node)
        inside.size += node.size + 1

    def _merge(self, into: Node, merged: Node) -> None:
        assert into.entries is not None
        for node in merged.items if merged.items is not None else [merged]:
            if node.entries is None:
                self._fault(node.place, "`<<` takes a mapping, or a list of mappings", "Write `<<: *name`.")
                continue
            for key, entry in node.entries.items():
                # A key in the mapping itself wins, and of several merges the first one.
                if key not in into.entries:
                    into.entries[key] = Entry(entry.place, entry.node, merged=True)
                    into.size += entry.node.size + 1

    def _is_null(self, node: Node, quoted: bool) -> bool:
        return node.plain and not quoted and node.entries is None and node.items is None and node.text in NULLS

    def _tagless(self, event: Any, harmless: tuple[str, ...]) -> None:
        if event.tag is not None and event.tag not in harmless and event.tag != "!":
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(_place(event), f"the tag {tag} is not supported", "Remove it; the key decides what a value is.")


def _lines(text: str) -> list[str]:
    lines = _LINE_BREAK.split(text)
    return lines if lines[-1] else lines[:-1]


def _place(event: Any) -> Place:
    start, end = event.start_mark, event.end_mark
    width = end.column - start.column if end.line == start.line else 0
    if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
        width = 1
    return Place(start.line + 1, start.column + 1, max(1, width))


def _nearest(name: str, names: Mapping[str, object]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, names, n=1)), "")
