"""The text of a file → a tree of nodes that know their place. YAML as people mean it, and nothing beyond.

Built from PyYAML's events, not its nodes: so a scalar keeps the text it has in the file (see `fields`), keys that
come twice are seen, and depth and size are bounded while reading (PyYAML's own composer overflows the C stack on ten
thousand opening brackets).

- `${NAME}` and `${NAME:-default}` are replaced within scalars, after YAML has found them: no value of the environment
  can change the structure of the file. `$$` is a dollar sign. What came from the environment counts as plain text, so
  that `workers: "${WORKERS}"` is a number.
- Anchors, aliases and `<<` merges work; how much they may expand to is bounded. Tags are refused, but for `!!str`.
- A key without a value is an error: it is more often forgotten than meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from lb.config.fields import DECIMAL, WHOLE, Scalar
from lb.config.problems import ConfigError, Problem

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 500_000

#: libyaml where PyYAML was built with it: ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

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

    def child(self, step: str | int) -> Node | None:
        if self.entries is not None and isinstance(step, str):
            entry = self.entries.get(step)
            return entry.node if entry else None
        if self.items is not None and isinstance(step, int) and 0 <= step < len(self.items):
            return self.items[step]
        return None

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


_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_WORDS = frozenset(("true", "True", "TRUE", "false", "False", "FALSE", *_NULLS))


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

    def find(self, path: Path, key: bool = False) -> Place:
        """The place of a value, or of what comes nearest to it on its way; with `key`, of its key."""
        node, place = self.root, Place(1, 1)
        for step in path:
            child = node.child(step)
            if child is None:
                return place
            own = child.place
            if node.entries is not None and isinstance(step, str):
                entry = node.entries[step]
                # A mapping or list is pointed at by its key: its own place is that of its first line.
                own = entry.place if key or child.entries is not None or child.items is not None else child.place
            node, place = child, own
        return place

    def walk(self) -> Iterator[tuple[Path, Node]]:
        stack: list[tuple[Path, Node]] = [((), self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            for key, entry in (node.entries or {}).items():
                stack.append(((*path, key), entry.node))
            for index, item in enumerate(node.items or ()):
                stack.append(((*path, index), item))


def read(text: str, name: str, environ: Mapping[str, str]) -> Source:
    """The tree of `text`; raises `ConfigError` when there is none to be had. Lesser errors are in `problems`."""
    source = Source(name, text.splitlines(), Node(Place(1, 1)))
    if len(text) > MAX_BYTES:
        raise ConfigError([Problem(name, 0, 0, f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB")])
    if hidden := _HIDDEN.search(text):
        before = text.count("\n", 0, hidden.start())
        place = Place(before + 1, hidden.start() - text.rfind("\n", 0, hidden.start()))
        raise ConfigError([source.problem(place, "a character of the private-use area is not allowed here")])
    builder = _Builder(source, environ)
    try:
        for event in yaml.parse(_veil(text), Loader=_LOADER):
            builder.take(event)
    except _TooMuch as error:
        raise ConfigError([*source.problems, source.problem(error.place, str(error))]) from None
    except yaml.YAMLError as error:
        broken = _syntax(source, error)
        # What was found in the same line before YAML gave up mostly follows from the same slip.
        raise ConfigError([*(one for one in source.problems if one.line != broken.line), broken]) from None
    if builder.root is None or (builder.root.plain and builder.root.text in _NULLS):
        message = "the file is empty"
        raise ConfigError([Problem(name, 1, 1, message, hint=f"The smallest file is:\n{SMALLEST}")])
    source.root = builder.root
    return source


SMALLEST = "backends: [http://127.0.0.1:5001, http://127.0.0.1:5002]"


# --- the environment -------------------------------------------------------------------------------------------------

# Inside [ ] and { } YAML would read the braces of ${NAME} itself. So each one is veiled before YAML sees the text:
# every character becomes one of the private-use area, which keeps lines and columns as they are, and back afterwards.
_REFERENCE = re.compile(r"\$\$|\$\{[^}\n]*\}")
_HIDDEN = re.compile("[\ue000-\ue07f]")
_VEIL = {code: chr(0xE000 + code) for code in range(0x20, 0x7F)}
_UNVEIL = {0xE000 + code: chr(code) for code in range(0x20, 0x7F)}
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{)")


def _veil(text: str) -> str:
    return _REFERENCE.sub(lambda match: match[0].translate(_VEIL) if match[0] != "$$" else match[0], text)


# --- events → nodes --------------------------------------------------------------------------------------------------


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
        faults = len(self.source.problems)
        text, replaced = self._substituted(event.value, place)
        plain = (not event.style and event.tag is None) or replaced
        node = Node(place, text=text, plain=plain, broken=len(self.source.problems) > faults)
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
                # What stands in the mapping itself wins, and of several merges the first one.
                if key not in into.entries:
                    into.entries[key] = Entry(entry.place, entry.node, merged=True)
                    into.size += entry.node.size + 1

    def _is_null(self, node: Node, quoted: bool) -> bool:
        return node.plain and not quoted and node.entries is None and node.items is None and node.text in _NULLS

    def _tagless(self, event: Any, harmless: tuple[str, ...]) -> None:
        if event.tag is not None and event.tag not in harmless and event.tag != "!":
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(_place(event), f"the tag {tag} is not supported", "Remove it; the key decides what a value is.")

    def _substituted(self, raw: str, place: Place) -> tuple[str, bool]:
        """The scalar with its references replaced, and whether there were any."""
        text = raw.translate(_UNVEIL)
        if "$" not in text:
            return text, False
        replaced = False

        def value(match: re.Match[str]) -> str:
            nonlocal replaced
            if match[0] == "$$":
                return "$"
            if match["broken"]:
                hint = "Write ${NAME} or ${NAME:-default}, or $$ for a dollar sign."
                self._fault(place, f"{_shortened(text)!r} has a reference that cannot be read", hint)
                return ""
            replaced = True
            name, default = match["name"], match["default"]
            found = self.environ.get(name)
            if default is not None:
                return found or default  # as in a shell, `:-` covers the empty value too
            if found is None:
                hint = f"Set it, or give a default: ${{{name}:-…}}."
                self._fault(place, f"the environment variable {name} is not set", hint)
                return f"${{{name}}}"
            return found

        return _VARIABLE.sub(value, text), replaced


#: Stands for a value that was reported already; `load` leaves it out.
MISSING = Node(Place(0, 0))


def _place(event: Any) -> Place:
    start, end = event.start_mark, event.end_mark
    width = end.column - start.column if end.line == start.line else 0
    if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
        width = 1
    return Place(start.line + 1, start.column + 1, max(1, width))


def _nearest(name: str, names: Mapping[str, object]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, names, n=1)), "")


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


# --- syntax errors ---------------------------------------------------------------------------------------------------

_SAID: list[tuple[str, str, str]] = [
    (
        "mapping values are not allowed",
        "a second `:` makes this line ambiguous",
        "Put the text in quotes if the colon belongs to it; check the indentation if it is a key.",
    ),
    (
        "did not find expected key",
        "this does not fit the mapping above it",
        "Check the indentation: keys of one mapping begin in the same column.",
    ),
    ("did not find expected ',' or ']'", "a list that began with `[` does not go on here", "Add a comma or the `]`."),
    (
        "did not find expected ',' or '}'",
        "a mapping that began with `{` does not go on here",
        "Add a comma or the `}`.",
    ),
    ("found unexpected end of stream", "a quoted text never ends", "Add the closing quote."),
    ("did not find expected '-' indicator", "this does not fit the list above it", "Begin the line with a dash."),
    ("did not find expected node content", "a value is missing here", "Write a value, or close the bracket."),
    ("could not find expected ':'", "a key without a colon", "Write `key: value`."),
]


def _syntax(source: Source, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or "")
    if mark is None:
        position = getattr(error, "position", 0) or 0
        character = getattr(error, "character", "")
        code = character if isinstance(character, int) else 0
        message = f"the character U+{code:04X} is not allowed in YAML" if code else "this is not YAML"
        lines = source.lines
        for number, line in enumerate(lines, 1):
            if position <= len(line):
                return source.problem(Place(number, position + 1), message, "Remove it, or escape it in double quotes.")
            position -= len(line) + 1
        return source.problem(Place(1, 1), message)
    place = Place(mark.line + 1, mark.column + 1)
    quote = source.lines[mark.line] if mark.line < len(source.lines) else ""
    character = quote[mark.column : mark.column + 1]
    if character == "\t" or (quote[: mark.column].isspace() and "\t" in quote[: mark.column]):
        return source.problem(place, "a tab is used for indentation", "YAML indents with spaces.")
    if "cannot start any token" in said:
        hint = "Put the text in quotes."
        return source.problem(place, f"a plain text cannot begin with `{character}`", hint)
    for sign, message, hint in _SAID:
        if sign in said:
            context = getattr(error, "context_mark", None)
            if context is not None and context.line != mark.line:
                message = f"{message} (it began in line {context.line + 1})"
            if mark.line >= len(source.lines) and context is not None:  # the end of the file says little
                place = Place(context.line + 1, context.column + 1)
                message = message.partition(" (it began")[0]
            if re.search(r"//\[|[\s,\[]\[[0-9A-Fa-f]*:", quote):
                hint = "Put an address with brackets in quotes: 'http://[::1]:8080'."
            return source.problem(place, message, hint)
    return source.problem(place, f"this is not YAML: {said or error}")
