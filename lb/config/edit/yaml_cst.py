"""A YAML text → where each of its values begins and ends, so that one of them can be changed and the rest left alone.

`source` reads what a file means; this reads how it is written: styles, quotes, anchors. Aliases stay aliases, and
merges are keys like any other. Positions are counted in characters of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml
from yaml.resolver import Resolver

from lb.config.yaml.environment import HIDDEN, veil

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_DEPTH = 32
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Any = Resolver()
_TEXT = "tag:yaml.org,2002:str"


class Unwritable(Exception):  # noqa: N818 - it says what happened
    """The change cannot be made by itself; the text says why, and what to do instead."""


@dataclass(slots=True, eq=False)
class Part:
    """One value as it stands in the text: `text[start:end]` for a scalar, an alias and what has brackets."""

    kind: Literal["mapping", "list", "scalar", "alias"]
    start: int
    end: int
    flow: bool = False  # with { } or [ ]
    entries: list[tuple[Part, Part]] = field(default_factory=list)
    items: list[Part] = field(default_factory=list)
    text: str = ""  # of a scalar; of an alias, its name
    tag: str = ""
    style: str | None = None  # of a scalar: None, ', ", | or >
    anchor: str | None = None

    def children(self) -> list[Part]:
        return self.items if self.kind == "list" else [value for _, value in self.entries]

    def below(self) -> Iterator[Part]:
        """It, and all within it."""
        yield self
        for key, value in self.entries:
            yield key
            yield from value.below()
        for item in self.items:
            yield from item.below()

    @property
    def block(self) -> bool:
        """Whether it is written with indentation alone."""
        return self.kind in ("mapping", "list") and not self.flow

    @property
    def null(self) -> bool:
        return self.kind == "scalar" and self.style is None and self.tag.endswith(":null")


def outline(text: str) -> Part | None:
    """The outermost value; None when there is none. Raises `Unwritable` when the text is not one YAML document."""
    if len(text) > MAX_CHARACTERS:
        raise Unwritable(f"the text is larger than {MAX_CHARACTERS // 1024 // 1024} MiB")
    if HIDDEN.search(text):
        raise Unwritable("the text has a character of the private-use area, which is not allowed")
    try:
        return _Reader().read(veil(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1} is" if mark is not None else "the text is"
        raise Unwritable(f"{where} not YAML; put that right first") from None


class _Reader:
    def __init__(self) -> None:
        self._open: list[tuple[Part, list[Part]]] = []
        self._root: Part | None = None
        self._documents = 0

    def read(self, veiled: str) -> Part | None:
        event: Any
        for event in yaml.parse(veiled, Loader=_LOADER):
            start, end = event.start_mark.index, event.end_mark.index
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise Unwritable("there is more than one document; a file is one")
                case yaml.ScalarEvent():
                    tag = event.tag or _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
                    style = event.style or None
                    self._add(Part("scalar", start, end, text=event.value, tag=tag, style=style, anchor=event.anchor))
                case yaml.AliasEvent():
                    self._add(Part("alias", start, end, text=event.anchor or ""))
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    if len(self._open) >= MAX_DEPTH:
                        raise Unwritable(f"nested more than {MAX_DEPTH} levels deep")
                    kind: Literal["mapping", "list"] = "list"
                    if isinstance(event, yaml.MappingStartEvent):
                        kind = "mapping"
                    part = Part(kind, start, end, bool(event.flow_style), tag=event.tag or "", anchor=event.anchor)
                    self._open.append((part, []))
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._end(end)
                case _:
                    pass
        return self._root

    def _end(self, end: int) -> None:
        part, parts = self._open.pop()
        if part.kind == "list":
            part.items = parts
        else:
            part.entries = list(zip(parts[::2], parts[1::2], strict=True))
            seen: set[str] = set()
            for key, _ in part.entries:
                if key.kind != "scalar":
                    raise Unwritable("a key is not a text")
                if key.text in seen:
                    raise Unwritable(f"{key.text!r} is given twice; keep one of them first")
                seen.add(key.text)
        part.end = end
        self._add(part)

    def _add(self, part: Part) -> None:
        if self._open:
            self._open[-1][1].append(part)
        else:
            self._root = part


def shape(part: Part | None) -> Any:
    """The value, however it is written; equal shapes load as equal values."""
    match part:
        case None:
            return None
        case Part(kind="mapping"):
            return {key.text: shape(value) for key, value in part.entries}
        case Part(kind="list"):
            return [shape(item) for item in part.items]
        case Part(kind="alias"):
            return ("alias", part.text)
    return None if part.null else (part.tag, part.text)


def shape_of(value: Any) -> Any:
    """The shape that a text of this value has."""
    if isinstance(value, dict):
        return {veil(key): shape_of(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape_of(one) for one in value]
    if isinstance(value, str):
        return (_TEXT, veil(value))
    spelled = yaml.safe_dump(value).removesuffix("\n...\n").strip()
    tag = _RESOLVER.resolve(yaml.ScalarNode, spelled, (True, False))
    return None if value is None else (tag, spelled)
