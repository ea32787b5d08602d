"""Two texts compared by lines, and two people's changes of one text brought together.

Pure, and bounded: where a difference is too large to be looked for in sensible time, it is the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

#: Pairs of lines that may be compared.
_PAIRS = 4_000_000
#: Lines that are shown around a change.
AROUND = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a difference; numbers count from 1, 0: it is not in that text."""

    sign: Literal["+", "-", " ", "…"]  # …: lines in between are the same
    old: int
    new: int
    text: str


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of merging two people's changes."""

    text: str
    conflicts: int  # places that both have changed, differently: ours stands, theirs is in comments above


def difference(old: str, new: str, around: int = AROUND) -> list[Line]:
    """The changes from `old` to `new`, with the lines around them; empty when nothing has changed."""
    before, after = old.splitlines(), new.splitlines()
    codes = _opcodes(before, after)
    found: list[Line] = []
    if all(tag == "equal" for tag, *_ in codes):
        return found
    for at, (tag, a1, a2, b1, b2) in enumerate(codes):
        if tag != "equal":
            found += [Line("-", line + 1, 0, before[line]) for line in range(a1, a2)]
            found += [Line("+", 0, line + 1, after[line]) for line in range(b1, b2)]
            continue
        first = around if at > 0 else 0
        last = around if at < len(codes) - 1 else 0
        same = [Line(" ", a1 + step + 1, b1 + step + 1, before[a1 + step]) for step in range(a2 - a1)]
        if len(same) > first + last:
            same[first : len(same) - last] = [Line("…", 0, 0, "")]
        found += same
    return found


def merge(base: str, ours: str, theirs: str) -> Merged:
    """`theirs` with our changes of `base` made in it. Where both have changed a place, ours stands, and what theirs
    says is in comments above it."""
    lines = [text.splitlines(keepends=True) for text in (base, ours, theirs)]
    common, mine, others = lines
    out: list[str] = []
    conflicts = 0
    for start, end, our, their in _chunks(common, mine, others):
        was = common[start:end]
        if our in (was, their):
            out += their
        elif their == was:
            out += our
        elif was and (beside := _beside(was, our, their) or _beside(was, their, our)):
            out += beside
        else:
            conflicts += 1
            out += [f"# running now: {line.rstrip()}\n" for line in their] or ["# running now: (nothing)\n"]
            out += our
    return Merged("".join(out), conflicts)


def _beside(was: list[str], adding: list[str], changing: list[str]) -> list[str]:
    """Lines that one has only added right before or after the other one's changed lines: no conflict."""
    if adding[: len(was)] == was:
        return changing + adding[len(was) :]
    if adding[-len(was) :] == was:
        return adding[: -len(was)] + changing
    return []


def _chunks(base: list[str], ours: list[str], theirs: list[str]) -> Iterator[tuple[int, int, list[str], list[str]]]:
    """The base cut where both texts still agree with it: from, to, and what either has there."""
    first, second = _matching(base, ours), _matching(base, theirs)
    at = our = their = 0
    for line in range(len(base) + 1):
        whole = line == len(base)
        a, b = (len(ours), len(theirs)) if whole else (first.get(line, -1), second.get(line, -1))
        if a < 0 or b < 0:
            continue
        if line > at or a > our or b > their:
            yield at, line, ours[our:a], theirs[their:b]
        if not whole:
            yield line, line + 1, [ours[a]], [theirs[b]]
            at, our, their = line + 1, a + 1, b + 1


def _matching(old: list[str], new: list[str]) -> dict[int, int]:
    """For each line of `old` that is still there, where."""
    return {
        a1 + step: b1 + step for tag, a1, a2, b1, _ in _opcodes(old, new) if tag == "equal" for step in range(a2 - a1)
    }


def _opcodes(old: list[str], new: list[str]) -> list[tuple[str, int, int, int, int]]:
    """As `difflib` gives them. Equal lines at the beginning and at the end need no search."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    a, b = old[head : len(old) - tail], new[head : len(new) - tail]
    found: list[tuple[str, int, int, int, int]] = [("equal", 0, head, 0, head)] if head else []
    if len(a) * len(b) > _PAIRS:
        found.append(("replace", head, head + len(a), head, head + len(b)))
    else:
        for tag, a1, a2, b1, b2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
            found.append((tag, a1 + head, a2 + head, b1 + head, b2 + head))
    if tail:
        found.append(("equal", len(old) - tail, len(old), len(new) - tail, len(new)))
    return found
