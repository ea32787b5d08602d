"""Edits of YAML texts in place: by themselves right, and harmless to everything else."""

from __future__ import annotations

import contextlib
import copy
import difflib
import random
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lb.config.edit.in_place import REMOVE, Path, edit
from lb.config.edit.yaml_cst import Unwritable
from lb.config.yaml.environment import veil

FILE = """\
# Our front door.
services:
  greeting:   # the only one
    pools:
      # blue is the old one
      blue: {targets: [http://127.0.0.1:5001, {url: "http://127.0.0.1:5002", weight: 2}]}   # two of them
      green:
        targets:
          - http://127.0.0.1:5003   # alone
          - url: http://127.0.0.1:5004
            weight: 3
    active: blue
    readiness:
      path: '/health/readiness'   # asks the database as well
      interval: 2s   # quick

    liveness: /alive # short form
    timeouts: {connect: 1s, # fast network
               response: 30s}
"""


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """Lines that went, and lines that came."""
    found = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:] for line in found if line.startswith("- ")], [line[2:] for line in found if line.startswith("+ ")]


@pytest.mark.parametrize(
    ("path", "value", "went", "came"),
    [
        ("services.greeting.readiness.interval", "5s", "      interval: 2s   # quick", "      interval: 5s   # quick"),
        (
            "services.greeting.readiness.path",
            "/ready",
            "      path: '/health/readiness'   # asks the database as well",
            "      path: '/ready'   # asks the database as well",
        ),
        ("services.greeting.readiness.fall", 2, "", "      fall: 2"),
        (
            "services.greeting.pools.blue.targets.1.weight",
            7,
            '      blue: {targets: [http://127.0.0.1:5001, {url: "http://127.0.0.1:5002", weight: 2}]}   # two of them',
            '      blue: {targets: [http://127.0.0.1:5001, {url: "http://127.0.0.1:5002", weight: 7}]}   # two of them',
        ),
        (
            "services.greeting.pools.blue.targets.2",
            "http://127.0.0.1:5009",
            '      blue: {targets: [http://127.0.0.1:5001, {url: "http://127.0.0.1:5002", weight: 2}]}   # two of them',
            '      blue: {targets: [http://127.0.0.1:5001, {url: "http://127.0.0.1:5002", weight: 2}, '
            "http://127.0.0.1:5009]}   # two of them",
        ),
        ("services.greeting.pools.green.targets.2", "http://[::1]:80", "", "          - http://[::1]:80"),
        (
            "services.greeting.pools.green.targets.2",
            {"url": "http://127.0.0.1:5005", "weight": 0},
            "",
            "          - {url: http://127.0.0.1:5005, weight: 0}",
        ),
        ("services.greeting.retries", {"attempts": 1}, "", "    retries:\n      attempts: 1"),
        ("services.greeting.retries.attempts", 1, "", "    retries:\n      attempts: 1"),
        ("workers", 2, "", "workers: 2"),
        (
            "services.greeting.liveness",
            {"path": "/alive", "fall": 5},
            "    liveness: /alive # short form",
            "    liveness: # short form\n      path: /alive\n      fall: 5",
        ),
        ("services.greeting.timeouts.response", REMOVE, "               response: 30s}", "               }"),
    ],
)
def test_an_edit_changes_its_own_lines_alone(path: str, value: Any, went: str, came: str) -> None:
    steps: Path = tuple(int(step) if step.isdigit() else step for step in path.split("."))
    if value is REMOVE:
        assert yaml.safe_load(edit(FILE, steps, value)) == without(yaml.safe_load(FILE), steps)
        return
    after = edit(FILE, steps, value)
    assert changed(FILE, after) == (went.splitlines(), came.splitlines())


@pytest.mark.parametrize(
    ("before", "path", "value", "after"),
    [
        ("", ("a", "b"), 1, "a:\n  b: 1\n"),
        ("# nothing yet\n", ("a",), "x", "# nothing yet\na: x\n"),
        ("a: 1", ("b",), 2, "a: 1\nb: 2"),
        ("a:\n    b: 1\n", ("c", "d"), 2, "a:\n    b: 1\nc:\n    d: 2\n"),
        ("a: 1\r\nb: 2\r\n", ("c",), 3, "a: 1\r\nb: 2\r\nc: 3\r\n"),
        ("a: 1\nb: 2\n", ("a",), REMOVE, "b: 2\n"),
        ("a: 1\n", ("a",), REMOVE, "{}\n"),
        ("a: {b: 1}\n", ("a", "b"), REMOVE, "a: {}\n"),
        ("a:\n  b: 1 # why\nc: 2\n", ("a", "b"), REMOVE, "a: {}\nc: 2\n"),
        ("a:\n- 1\n- 2\n", ("a", 0), REMOVE, "a:\n- 2\n"),
        ("a:\n- 1\n- 2\n", ("a", 2), 3, "a:\n- 1\n- 2\n- 3\n"),
        ("a:\n- u: 1\n  w: 2\n", ("a", 0, "u"), REMOVE, "a:\n- w: 2\n"),
        ("a: [\n  x,  # one\n  y   # two\n]\n", ("a", 2), "z", "a: [\n  x,  # one\n  y,   # two\n  z\n]\n"),
        ("a: [\n  x,  # one\n  y,  # two\n]\n", ("a", 2), "z", "a: [\n  x,  # one\n  y,  # two\n  z,\n]\n"),
        ("a: [\n  x,  # one\n  y   # two\n]\n", ("a", 1), REMOVE, "a: [\n  x,  # one\n]\n"),
        ("a:  # later\nb: 1\n", ("a",), 5, "a: 5  # later\nb: 1\n"),
        ("a:  # later\nb: 1\n", ("a", "c"), 5, "a:  # later\n  c: 5\nb: 1\n"),
        ("a: |\n  long\n  text\nb: 1\n", ("a",), "short", "a: short\nb: 1\n"),
        ("a: |\n  long\n  text\nb: 1\n", ("b",), REMOVE, "a: |\n  long\n  text\n"),
        ("a:   # why\n  b: 1\n  c: 2\nd: 3\n", ("a",), "x", "a: x   # why\nd: 3\n"),
        ("a: x # why\n", ("a",), {"b": 1, "c": 2}, "a: # why\n  b: 1\n  c: 2\n"),
        ("a: x\n", ("a",), "yes", "a: 'yes'\n"),
        ("a: x\n", ("a",), "1.10", "a: '1.10'\n"),
        ("a: x\n", ("a",), "it's: so", "a: 'it''s: so'\n"),
        ("a: x\n", ("a",), "two\nlines", 'a: "two\\nlines"\n'),
        ("a: [x]\n", ("a", 0), "b, c", "a: ['b, c']\n"),
        ("a: x\n", ("a",), "b, c", "a: b, c\n"),
        ("a: {b: x}\n", ("a", "b"), "${NAME:-x}", "a: {b: ${NAME:-x}}\n"),
        ("a: {u: http://h:${PORT}, w: 1}\n", ("a", "w"), 2, "a: {u: http://h:${PORT}, w: 2}\n"),
        ("a: &b {c: 1}\nd: 2\n", ("a", "c"), 3, "a: &b {c: 3}\nd: 2\n"),
        ("x: &b {c: 1}\na:\n  <<: *b\n  d: 2\n", ("a", "c"), 3, "x: &b {c: 1}\na:\n  <<: *b\n  d: 2\n  c: 3\n"),
        ("x: &b {c: 1}\na: *b # same\n", ("a",), 3, "x: &b {c: 1}\na: 3 # same\n"),
        ("s: {}\n", ("s", "greeting", "pools", "blue"), ["http://127.0.0.1:1"], None),
    ],
)
def test_all_ways_of_writing(before: str, path: Path, value: Any, after: str | None) -> None:
    edited = edit(before, path, value)
    if after is not None:
        assert edited == after
    wanted = yaml.safe_load(veil(before)) or {}
    if isinstance(value, str):
        value = veil(value)
    assert yaml.safe_load(veil(edited)) == (without(wanted, path) if value is REMOVE else with_(wanted, path, value))


@pytest.mark.parametrize(
    ("text", "path", "value", "why"),
    [
        ("x: &b {c: 1}\na: *b\n", ("a", "c"), 2, "a is *b in line 2, which stands for what &b names; change it there"),
        ("x: &b {c: 1}\na: *b\n", ("x", "c"), 2, "x is (or holds) &b, which line 2 uses as well"),
        ("x: &b {c: 1}\na: *b\n", ("x",), REMOVE, "x is (or holds) &b, which line 2 uses as well"),
        ("x: &b {c: {d: 1}}\na: {<<: *b}\n", ("a", "c", "d"), 2, "a.c comes in by `<<` in line 2"),
        ("x: &b {c: 1}\na:\n  <<: *b\n", ("a", "c"), REMOVE, "a.c comes in by `<<`"),
        ("a: 1\n", ("a", "b"), 2, "a is a single value: no 'b' in it"),
        ("a: [1]\n", ("a", 3), 2, "the list has 1 entries"),
        ("a: {b: 1\n", ("a", "b"), 2, "not YAML"),
        ("a: 1\na: 2\n", ("a",), 2, "'a' is given twice"),
        ("a: 1\n---\nb: 1\n", ("a",), 2, "more than one document"),
        ("a: 1\n", (), 2, "the path names no setting"),
        ("[" * 40, ("a",), 2, "nested more than 32 levels deep"),
    ],
)
def test_what_cannot_be_changed_is_refused_with_the_reason(text: str, path: Path, value: Any, why: str) -> None:
    with pytest.raises(Unwritable) as refused:
        edit(text, path, value)
    assert why in str(refused.value)


# --- any text, any edit ----------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "bb", "interval", "x-y", "on", "1", "two words", "http://h:1", "ä", "b,c"])
LEAVES = st.one_of(
    st.integers(-5, 5000),
    st.booleans(),
    st.sampled_from(
        """2s|/health|http://127.0.0.1:80||no|a: b|a #b|- x|it's|"|1.5|x, y|[|{}|ü|😀|tab\there|two\nlines\n| lead|*a|&a
        |!t|%|@|#|null|~|?|:|-|<<|2001-01-01|0x1F|1_000|=|[x, y]|x:|http://[::1]:8|a{b|a}b|,a""".split("|")  # noqa: SIM905
    ),
    st.text("ab :#-'\"[]{},\n", max_size=6),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(KEYS, inner, min_size=1, max_size=4),
        max_leaves=16,
    ),
    min_size=1,
    max_size=4,
)


class Scribe:
    """Writes a value as some person would: styles, quotes, indentation, comments and blank lines by chance."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.step = self.rng.choice([2, 2, 4])
        self.dashes_in = self.rng.random() < 0.5
        self.comments = 0
        self.literal = False

    def text(self, value: dict[str, Any]) -> str:
        lines = self.block(value, 0)
        # A block scalar at the very end needs its line break: without it the text says something else.
        return "\n".join(lines) + self.rng.choice(["\n", "\n\n# end\n", "\n" if self.literal else ""])

    def remark(self) -> str:
        self.comments += 1
        return f"# note-{self.comments}: it's - a [remark]"

    def tail(self) -> str:
        return f"  {self.remark()}" if self.rng.random() < 0.3 else ""

    def between(self, indent: int) -> list[str]:
        roll = self.rng.random()
        return [""] if roll < 0.1 else [" " * indent + self.remark()] if roll < 0.3 else []

    def scalar(self, value: Any, flow: bool) -> str:
        style = self.rng.choice([None, None, "'", '"']) if isinstance(value, str) else None
        written = yaml.safe_dump([value] if flow else value, default_style=style, width=2**30, allow_unicode=True)
        if flow:
            written = yaml.safe_dump(
                [value], default_style=style, default_flow_style=True, width=2**30, allow_unicode=True
            )
            return written.strip()[1:-1]
        return written.removesuffix("\n").removesuffix("\n...").strip() if "\n\n" not in written else repr_of(value)

    def flow(self, value: Any, indent: int) -> str:
        wide = self.rng.random() < 0.3
        if isinstance(value, dict):
            parts = [f"{self.scalar(key, True)}: {self.flow(one, indent + 4)}" for key, one in value.items()]
            begin, end = "{", "}"
        elif isinstance(value, list):
            parts = [self.flow(one, indent + 4) for one in value]
            begin, end = "[", "]"
        else:
            return self.scalar(value, True) if "\n" not in str(value) else repr_of(value)
        if not parts or not wide:
            return begin + ", ".join(parts) + end
        pad = " " * (indent + 4)
        rows = [
            f"{pad}{part}{',' if at + 1 < len(parts) or self.rng.random() < 0.5 else ''}{self.tail()}"
            for at, part in enumerate(parts)
        ]
        return "\n".join([begin + self.tail(), *rows, " " * (indent + 2) + end])

    def block(self, value: Any, indent: int) -> list[str]:
        lines: list[str] = []
        pad = " " * indent
        for key, one in value.items() if isinstance(value, dict) else [(None, each) for each in value]:
            lines += self.between(indent)
            begin = f"{pad}-" if key is None else f"{pad}{self.scalar(key, False)}:"
            if isinstance(one, dict | list) and one and self.rng.random() < 0.6:
                if key is None:
                    inner = self.block_without_lead(one, indent + 2)
                    lines += [f"{begin} {inner[0].lstrip()}", *inner[1:]]
                else:
                    deeper = indent + (self.step if isinstance(one, dict) or self.dashes_in else 0)
                    lines += [f"{begin}{self.tail()}", *self.block(one, deeper)]
            elif isinstance(one, str) and one.strip() and one.isascii() and "\n" in one and one[0] in "ab":
                keep = {True: "|", False: "|-"}.get(one.endswith("\n"), "|")
                body = one.removesuffix("\n")
                if body.endswith("\n") or "\n " in one:
                    lines.append(f"{begin} {repr_of(one)}{self.tail()}")
                else:
                    self.literal = True
                    lines += [f"{begin} {keep}", *(f"{pad}    {line}" if line else "" for line in body.split("\n"))]
            elif isinstance(one, dict | list):
                lines.append(f"{begin} {self.flow(one, indent)}{self.tail()}")
            elif isinstance(one, str) and "\n" in one:
                lines.append(f"{begin} {repr_of(one)}{self.tail()}")
            else:
                lines.append(f"{begin} {self.scalar(one, False)}{self.tail()}")
        return lines

    def block_without_lead(self, value: Any, indent: int) -> list[str]:
        lines = self.block(value, indent)
        while not lines[0].strip() or lines[0].lstrip().startswith("#"):
            lines.pop(0)
        return lines


def repr_of(value: Any) -> str:
    return yaml.safe_dump(value, default_style='"', width=2**30, allow_unicode=True).strip()


def with_(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    step = path[0]
    if isinstance(step, str):
        inside = dict(value) if isinstance(value, dict) else {}
        return {**inside, step: with_(inside.get(step), path[1:], new)}
    items = list(value) if isinstance(value, list) else []
    items[step : step + 1] = [with_(items[step] if step < len(items) else None, path[1:], new)]
    return items


def without(value: Any, path: Path) -> Any:
    value = copy.deepcopy(value)
    inside = value
    for step in path[:-1]:
        inside = inside[step]
    del inside[path[-1]]
    return value


def all_paths(value: Any, above: Path = ()) -> list[Path]:
    found: list[Path] = [above] if above else []
    if isinstance(value, dict):
        for key, one in value.items():
            found += all_paths(one, (*above, key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            found += all_paths(one, (*above, at))
    return found


def holders(value: Any, above: Path = ()) -> list[tuple[Path, Any]]:
    """Mappings and lists, the outermost one too."""
    found: list[tuple[Path, Any]] = []
    if isinstance(value, dict | list):
        found.append((above, value))
        steps: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        for step in steps:
            found += holders(value[step], (*above, step))
    return found


@settings(max_examples=120, deadline=None)
@given(DOCUMENTS, st.integers(0, 10**6), st.data())
def test_an_edited_text_loads_as_the_edited_value(document: dict[str, Any], seed: int, data: st.DataObject) -> None:
    text = Scribe(seed).text(document)
    assert yaml.safe_load(text) == document
    paths = all_paths(document)
    way = data.draw(st.sampled_from(["change", "add", "remove"]))
    if way == "add":
        above, inside = data.draw(st.sampled_from(holders(document)))
        step: str | int = data.draw(KEYS) if isinstance(inside, dict) else len(inside)
        more = tuple(data.draw(st.lists(KEYS, max_size=2))) if step not in inside or isinstance(inside, list) else ()
        path: Path = (*above, step, *more)
    else:
        path = data.draw(st.sampled_from(paths))
    if way == "remove":
        edited = edit(text, path, REMOVE)
        assert yaml.safe_load(edited) == without(document, path)
    else:
        value = data.draw(VALUES)
        edited = edit(text, path, value)
        assert yaml.safe_load(edited) == with_(document, path, value)


@settings(max_examples=80, deadline=None)
@given(DOCUMENTS, st.integers(0, 10**6), st.data())
def test_lines_that_are_not_about_it_stay_as_they_are(document: dict[str, Any], seed: int, data: st.DataObject) -> None:
    text = Scribe(seed).text(document)
    leaves = [
        path
        for path, one in ((path, at(document, path)) for path in all_paths(document))
        if not isinstance(one, dict | list) and "\n" not in str(one)
    ]
    if leaves:
        path = data.draw(st.sampled_from(leaves))
        edited = edit(text, path, data.draw(st.integers() | st.sampled_from(["x", "a: b", "5s"])))
        before, after = text.splitlines(), edited.splitlines()
        assert len(before) == len(after)
        assert sum(old != new for old, new in zip(before, after, strict=True)) <= 1
        assert [line.rpartition("# note")[2] for line in before if "# note" in line] == [
            line.rpartition("# note")[2] for line in after if "# note" in line
        ]
    added = edit(text, ("new key",), 1)
    assert [line for line in added.splitlines() if line != "new key: 1"] == text.splitlines()


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


@settings(max_examples=150, deadline=None)
@given(
    st.text("ab:-#'\"[]{}&*|>? \n,<!%1", max_size=40), st.lists(st.sampled_from(["a", "b", 0, 1]), max_size=3), VALUES
)
@example("? a\n: b\n", ["a"], 1)
@example("a: !!str 1\n", ["a"], 2)
@example("%YAML 1.1\n---\na: 1\n...\n", ["b"], 2)
@example("\ufeffa: 1\n", ["b"], 2)
def test_any_text_at_all_is_edited_rightly_or_refused(text: str, path: list[Any], value: Any) -> None:
    with contextlib.suppress(Unwritable):
        edited = edit(text, tuple(path), value)
        assert yaml.safe_load(edited) == with_(yaml.safe_load(text), tuple(path), value)
