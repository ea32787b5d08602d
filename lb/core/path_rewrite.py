"""Another path by a regular expression with groups: `/users/([0-9]+)` and `/u/{1}` make `/u/7` of `/users/7`.

An automaton without choices cannot tell where groups begin and end, and a search for it could take long. So groups
stand side by side: the pattern is a row of parts, each a group or what is between two groups. The parts are laid out
from the left, and each takes as much as it can. Where the rest of the pattern can still match is known before, from one
pass from the right for each part, by the automaton of the rest written backwards. So a match takes at most two steps a
part for each byte, whatever the pattern and the path. A group within another one, a repetition or alternatives has no
single place in this row, so nothing may refer to it. An optional one (`(…)?`) has.

Python's `re` agrees, but for alternatives (it takes the first that fits, not the longest) and lazy repetitions, which
are refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from lb.core.linear_pattern import ALT, CAT, REPEAT, SET, Automaton, BadLinearPattern, Node, Parser, literal_of

#: Groups that a pattern may have, and references of a text.
MOST_GROUPS: Final = 9
MOST_REFERENCES: Final = 20
#: Bytes of a path that comes of it.
LONGEST_PATH: Final = 16384
_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_PATH: Final = re.compile(r"/[\x21-\x7e]*")


class BadRewrite(ValueError):  # noqa: N818 - it says what is wrong
    """It cannot be done; the message says why, and `key` where."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class PathRewrite:
    """Raises `BadRewrite`."""

    __slots__ = ("_numbers", "_parts", "_rests", "_texts", "_whole")

    def __init__(self, pattern: str, to: str) -> None:
        parser = Parser(pattern)
        try:
            tree = parser.parse()
            parts, numbers = _row(parser, tree)
            self._whole = Automaton(tree)
            self._parts = [Automaton(part) for part in parts]
            #: Of what follows each part but the last, backwards.
            self._rests = [Automaton(_backwards(Node(CAT, parts[at + 1 :]))) for at in range(len(parts) - 1)]
        except BadLinearPattern as error:
            raise BadRewrite("pattern", f"{pattern!r} cannot be used: {error}") from None
        self._texts, references = _read(to)
        self._numbers: list[int] = []  # of the parts that the texts have in between; -1: the whole path
        for reference in references:
            if reference > len(parser.groups):
                have = len(parser.groups)
                raise BadRewrite("to", f"there is no group {reference}: the pattern has {have or 'none'}")
            if reference and reference not in numbers:
                why = "stands within another one, a repetition or alternatives, so it may be there often or never"
                raise BadRewrite("to", f"group {reference} {why}")
            self._numbers.append(numbers[reference] if reference else -1)
        begin = self._texts[0]
        if not begin and self._numbers:
            begin = b"/" if self._numbers[0] < 0 else literal_of(parts[self._numbers[0]])
        if begin[:1] != b"/":
            raise BadRewrite("to", f"{to!r} does not begin with /, as a path does, nor with a group that always does")

    def apply(self, path: bytes) -> bytes | None:
        """The new path; None: the pattern does not match."""
        if not self._whole.matches(path):
            return None
        if not self._numbers:
            return self._texts[0]
        groups = self._lay_out(path)
        made = [self._texts[0]]
        for number, text in zip(self._numbers, self._texts[1:], strict=True):
            made.append(path if number < 0 else groups[number])
            made.append(text)
        return b"".join(made)

    def _lay_out(self, path: bytes) -> list[bytes]:
        """What each part takes of a path that matches."""
        size = len(path)
        reverse = path[::-1]
        begin = 0
        taken: list[bytes] = []
        for part, rest in zip(self._parts, self._rests, strict=False):
            possible = {size - length for length in rest.ends(reverse, 0)}
            end = begin
            for place in reversed(part.ends(path, begin)):
                if place in possible:
                    end = place
                    break
            taken.append(path[begin:end])
            begin = end
        taken.append(path[begin:])
        return taken


@lru_cache(maxsize=1024)
def rewrite_of(pattern: str, to: str) -> PathRewrite:
    """The same, made once for each pair."""
    return PathRewrite(pattern, to)


def _row(parser: Parser, tree: Node) -> tuple[list[Node], dict[int, int]]:
    """(the parts of a pattern, the numbers of the parts that are groups, by the groups' own)."""
    if parser.lazy:
        raise BadLinearPattern("a lazy repetition (`*?`); here each part takes as much as it can, from the left")
    if len(parser.groups) > MOST_GROUPS:
        raise BadLinearPattern(f"it has {len(parser.groups)} groups; at most {MOST_GROUPS} are allowed")
    numbers: dict[int, int] = {}
    parts: list[Node] = []
    between: list[Node] = []
    for node in tree.parts if tree.kind == CAT else [tree]:
        optional = node.kind == REPEAT and node.most == 1
        inner = node.parts[0] if optional else node  # of a group that is not there, nothing is taken
        number = next((at for at, group in enumerate(parser.groups, 1) if group is inner), 0)
        if not number:
            between.append(node)
            continue
        if between:
            parts.append(Node(CAT, between))
            between = []
        numbers[number] = len(parts)
        parts.append(node)
    if between or not parts:
        parts.append(Node(CAT, between))
    return parts, numbers


def _backwards(node: Node) -> Node:
    """The pattern of the same texts, each read from its end."""
    parts = [_backwards(part) for part in node.parts]
    if node.kind == CAT:
        parts.reverse()
    assert node.kind in (SET, CAT, ALT, REPEAT)
    return Node(node.kind, parts, node.mask, node.least, node.most)


def _read(to: str) -> tuple[list[bytes], list[int]]:
    """(texts, the numbers of the groups between them)."""
    texts = [""]
    numbers: list[int] = []
    for part in _PART.finditer(to):
        if part[0] in ("{{", "}}"):
            texts[-1] += part[0][0]
        elif part[1] is not None:
            if not part[1].isascii() or not part[1].isdigit() or len(part[1]) > 2:
                raise BadRewrite("to", f"{{{part[1]}}} is no group; {{1}} is the first one, and {{0}} the whole path")
            numbers.append(int(part[1]))
            texts.append("")
        elif part[0] in ("{", "}"):
            raise BadRewrite("to", f"a single {part[0]}; write {part[0] * 2} for the character")
        else:
            texts[-1] += part[0]
    if len(numbers) > MOST_REFERENCES:
        raise BadRewrite("to", f"it has {len(numbers)} groups; at most {MOST_REFERENCES} are allowed")
    if not _PATH.fullmatch("/" + "".join(texts)) or "?" in to or "#" in to:
        raise BadRewrite("to", f"{to!r} is no path: visible ASCII characters without ? and #; the query stays as it is")
    return [text.encode() for text in texts], numbers
