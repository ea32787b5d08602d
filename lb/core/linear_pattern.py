"""Regular expressions for routes: matched in one pass, so that no path or value can make a match slow.

Python's `re` tries one way after the other: a pattern such as `(a+)+` takes years on a text that is made for it, and
whoever sends the request chooses the text. Here a pattern becomes a deterministic automaton when it is read. A match
then takes one step for each byte, whatever the pattern and the text. The price is paid once: a pattern that needs too
many states is refused with the file. What no automaton can do is refused, too: back-references and look-around.

A pattern matches the whole text. It has literals, `.`, classes `[a-z]`, `\\d \\w \\s` and their opposites, groups,
alternatives, and the repetitions `* + ? {m,n}`. `(?i)` at its start makes it blind to case.

Source: Rabin and Scott's subset construction, as in Aho, Lam, Sethi, Ullman, "Compilers", section 3.7.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

#: Characters of a pattern, states of the automaton, and steps for building it.
LONGEST: Final = 256
MOST_STATES: Final = 500
MOST_STEPS: Final = 400_000
#: Copies that counted repetitions may come to.
MOST_COPIES: Final = 200

_ALL: Final = (1 << 256) - 1
_LITERAL_ESCAPES: Final = frozenset("/.-_~!$&'()*+,;=:@%#?[]{}|\\^\"<> `")


class BadLinearPattern(ValueError):  # noqa: N818 - it says what is wrong
    """The text is no pattern that can be matched in one pass; the message says why."""


def _mask(characters: bytes) -> int:
    mask = 0
    for byte in characters:
        mask |= 1 << byte
    return mask


_DIGITS: Final = _mask(b"0123456789")
_LETTERS: Final = _mask(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD: Final = _DIGITS | _LETTERS | _mask(b"_")
_SPACE: Final = _mask(b" \t\r\n\f\v")
_CLASSES: Final = {
    "d": _DIGITS, "D": _ALL & ~_DIGITS, "w": _WORD, "W": _ALL & ~_WORD, "s": _SPACE, "S": _ALL & ~_SPACE,
}  # fmt: skip
#: The bytes of a path: visible ASCII without `?` and `#`.
_PATH: Final = _mask(bytes(range(0x21, 0x7F))) & ~_mask(b"?#")

# Kinds of nodes.
SET: Final = 0
CAT: Final = 1
ALT: Final = 2
REPEAT: Final = 3


class Node:
    """A part of a pattern: a set of bytes, a sequence, alternatives, or a repetition."""

    __slots__ = ("kind", "least", "mask", "most", "parts")

    def __init__(self, kind: int, parts: list[Node], mask: int = 0, least: int = 0, most: int = 0) -> None:
        self.kind = kind
        self.parts = parts
        self.mask = mask
        self.least = least
        self.most = most  # -1: without end


class Parser:
    """Recursive descent over the text of a pattern. `groups` are the nodes of its numbered groups."""

    __slots__ = ("at", "blind", "depth", "groups", "lazy", "text")

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise BadLinearPattern(f"it has {len(text)} characters; at most {LONGEST} are allowed")
        self.text = text
        self.at = 0
        self.depth = 0
        self.blind = False
        self.lazy = False  # a repetition is written as `*?`
        self.groups: list[Node | None] = []

    def parse(self) -> Node:
        if self.text.startswith("(?i)", self.at):
            self.blind = True
            self.at += 4
        if self.text.startswith("^", self.at):
            self.at += 1
        node = self._alternatives()
        if self.at < len(self.text):
            raise BadLinearPattern("a closing parenthesis without an opening one")
        return node

    def _next(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def _alternatives(self) -> Node:
        parts = [self._sequence()]
        while self._next() == "|":
            self.at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Node(ALT, parts)

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._next() not in ("", "|", ")"):
            if self._next() == "$" and self.at == len(self.text) - 1:
                self.at += 1
                break
            parts.append(self._repeated(self._atom()))
        return Node(CAT, parts)

    def _repeated(self, node: Node) -> Node:
        sign = self._next()
        if sign not in ("*", "+", "?", "{") or not sign:
            return node
        if sign == "{":
            least, most = self._counts()
        else:
            self.at += 1
            least, most = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[sign]
        if self._next() == "?":  # lazy: the same texts match
            self.at += 1
            self.lazy = True
        if self._next() in ("*", "+", "{") and self._next():
            raise BadLinearPattern(f"two repetitions in a row, at character {self.at + 1}")
        return Node(REPEAT, [node], 0, least, most)

    def _counts(self) -> tuple[int, int]:
        end = self.text.find("}", self.at)
        left, comma, right = self.text[self.at + 1 : max(end, 0)].partition(",")
        if end < 0 or not left.isascii() or not left.isdigit() or (right and not right.isdigit()) or len(left) > 4:
            raise BadLinearPattern(
                f"`{{` at character {self.at + 1} begins no repetition; write `\\{{` for the character"
            )
        self.at = end + 1
        least = int(left)
        most = least if not comma else int(right) if right else -1
        if 0 <= most < least or max(least, most) > MOST_COPIES:
            raise BadLinearPattern(f"a repetition of {least} to {right or left}; at most {MOST_COPIES} times")
        return least, most

    def _atom(self) -> Node:
        sign = self._next()
        self.at += 1
        if sign == "(":
            return self._group()
        if sign == "[":
            return Node(SET, [], self._class())
        if sign == ".":
            return Node(SET, [], _ALL & ~_mask(b"\n"))
        if sign == "\\":
            return Node(SET, [], self._cased(self._escape()))
        if sign in ("*", "+", "?"):
            raise BadLinearPattern(f"{sign} at character {self.at} has nothing to repeat")
        if sign in ("^", "$"):
            raise BadLinearPattern(f"{sign} within the pattern; it matches the whole text anyway")
        return Node(SET, [], self._cased(self._byte(sign)))

    def _group(self) -> Node:
        number = len(self.groups)
        if self._next() == "?":
            if self.text.startswith("?:", self.at):
                self.at += 2
                number = -1
            elif self.text.startswith("?P<", self.at) and ">" in self.text[self.at :]:
                self.at = self.text.index(">", self.at) + 1
            else:
                raise BadLinearPattern("look-around, conditions and flags within a pattern need more than one pass")
        if number >= 0:
            self.groups.append(None)
        self.depth += 1
        if self.depth > 20:
            raise BadLinearPattern("groups are nested more than 20 deep")
        node = self._alternatives()
        if self._next() != ")":
            raise BadLinearPattern("an opening parenthesis without a closing one")
        self.at += 1
        self.depth -= 1
        if number >= 0:
            self.groups[number] = node
        return node

    def _escape(self) -> int:
        sign = self._next()
        self.at += 1
        if sign in _CLASSES:
            return _CLASSES[sign]
        if sign == "x":
            digits = self.text[self.at : self.at + 2]
            self.at += 2
            try:
                return 1 << int(digits, 16)
            except ValueError:
                raise BadLinearPattern("\\x needs two hexadecimal digits") from None
        if sign not in _LITERAL_ESCAPES or not sign:
            raise BadLinearPattern(f"\\{sign} is not supported")
        return self._byte(sign)

    def _class(self) -> int:
        negated = self._next() == "^"
        if negated:
            self.at += 1
        mask, first = 0, True
        while True:
            sign = self._next()
            if not sign:
                raise BadLinearPattern("[ without ]")
            if sign == "]" and not first:
                self.at += 1
                break
            first = False
            low = self._member()
            if self._next() == "-" and self.at + 1 < len(self.text) and self.text[self.at + 1] != "]":
                self.at += 1
                high = self._member()
                begin, end = low.bit_length() - 1, high.bit_length() - 1
                if low != 1 << begin or high != 1 << end or begin > end:
                    raise BadLinearPattern("a range within [ ] goes from a lower character to a higher one")
                low = ((1 << (end + 1)) - 1) & ~((1 << begin) - 1)
            mask |= low
        mask = self._cased(mask)
        return _ALL & ~mask if negated else mask

    def _member(self) -> int:
        sign = self._next()
        self.at += 1
        return self._escape() if sign == "\\" else self._byte(sign)

    def _byte(self, sign: str) -> int:
        if not sign or ord(sign) > 0x7E or ord(sign) < 0x20:
            raise BadLinearPattern("a pattern has visible ASCII characters; write others as a path has them, as %C3%A9")
        return 1 << ord(sign)

    def _cased(self, mask: int) -> int:
        if self.blind:
            for upper in range(0x41, 0x5B):
                pair = 1 << upper | 1 << (upper + 0x20)
                if mask & pair:
                    mask |= pair
        return mask


class _Builder:
    """The automaton with choices (Thompson's): each state has free moves, or one move on a set of bytes."""

    __slots__ = ("free", "masks", "targets")

    def __init__(self) -> None:
        self.free: list[list[int]] = []
        self.masks: list[int] = []
        self.targets: list[int] = []

    def state(self) -> int:
        if len(self.masks) >= 4 * MOST_STATES:
            raise BadLinearPattern("it is too large; its repetitions count too far")
        self.free.append([])
        self.masks.append(0)
        self.targets.append(-1)
        return len(self.masks) - 1

    def add(self, node: Node, begin: int) -> int:
        """Add the states of a node behind `begin`; returns the state at its end."""
        if node.kind == SET:
            end = self.state()
            step = self.state()
            self.free[begin].append(step)
            self.masks[step] = node.mask
            self.targets[step] = end
            return end
        if node.kind == CAT:
            for part in node.parts:
                begin = self.add(part, begin)
            return begin
        if node.kind == ALT:
            end = self.state()
            for part in node.parts:
                first = self.state()
                self.free[begin].append(first)
                self.free[self.add(part, first)].append(end)
            return end
        part = node.parts[0]
        for _ in range(node.least):
            begin = self.add(part, begin)
        if node.most < 0:
            loop = self.state()
            self.free[begin].append(loop)
            self.free[self.add(part, loop)].append(loop)
            end = self.state()
            self.free[loop].append(end)
            return end
        end = self.state()
        for _ in range(node.most - node.least):
            self.free[begin].append(end)
            begin = self.add(part, begin)
        self.free[begin].append(end)
        return end

    def closure(self, states: list[int]) -> frozenset[int]:
        """These states and all that free moves lead to."""
        reached = set(states)
        waiting = list(states)
        while waiting:
            for target in self.free[waiting.pop()]:
                if target not in reached:
                    reached.add(target)
                    waiting.append(target)
        return frozenset(reached)


class Automaton:
    """The automaton of a pattern or of a part of one. Raises `BadLinearPattern` when it is too large."""

    __slots__ = ("_accepting", "_kinds", "_rows", "_start")

    def __init__(self, tree: Node) -> None:
        builder = _Builder()
        start = builder.state()
        self._determine(builder, start, builder.add(tree, start))

    def _determine(self, builder: _Builder, start: int, end: int) -> None:
        """Make the automaton without choices. State 0 is the one that nothing leads out of."""
        self._kinds, samples = _kinds_of(builder.masks)
        first = builder.closure([start])
        numbers: dict[frozenset[int], int] = {first: 1}
        order = [first]
        rows: list[list[int]] = [[0] * len(samples)]
        steps = 0
        for members in order:
            row: list[int] = []
            for sample in samples:
                steps += len(members)
                reached = [builder.targets[state] for state in members if builder.masks[state] >> sample & 1]
                if not reached:
                    row.append(0)
                    continue
                following = builder.closure(reached)
                number = numbers.get(following, 0)
                if not number:
                    number = numbers[following] = len(numbers) + 1
                    order.append(following)
                row.append(number)
            rows.append(row)
            if len(numbers) > MOST_STATES or steps > MOST_STEPS:
                raise BadLinearPattern(f"an automaton for it has more than {MOST_STATES} states: it is too ambiguous")
        self._rows = rows
        self._start = 1
        self._accepting: list[bool] = [False] + [end in members for members in order]

    def matches(self, text: bytes) -> bool:
        """Whether it matches all of the text."""
        return self._accepting[self._after(text)]

    def ends(self, text: bytes, begin: int) -> list[int]:
        """All places where a match that begins at `begin` may end, in order."""
        rows, accepting = self._rows, self._accepting
        state = self._start
        found = [begin] if accepting[state] else []
        for at, kind in enumerate(text[begin:].translate(self._kinds), begin + 1):
            state = rows[state][kind]
            if not state:
                break
            if accepting[state]:
                found.append(at)
        return found

    def _after(self, text: bytes) -> int:
        rows = self._rows
        state = self._start
        for kind in text.translate(self._kinds):
            state = rows[state][kind]
            if not state:
                return 0
        return state


class LinearPattern(Automaton):
    """A pattern, ready to be matched. Raises `BadLinearPattern` when it cannot be."""

    __slots__ = ("literal", "text")

    def __init__(self, text: str) -> None:
        tree = Parser(text).parse()
        super().__init__(tree)
        self.text = text
        self.literal = literal_of(tree)  # the bytes that all of its texts begin with

    def matches_all_below(self, begin: bytes) -> bool:
        """Whether it matches every path that begins so."""
        return all(self._accepting[state] for state in self._reached(begin))

    def matches_some_below(self, begin: bytes) -> bool:
        """Whether it matches any path that begins so."""
        return any(self._accepting[state] for state in self._reached(begin))

    def _reached(self, begin: bytes) -> set[int]:
        """The states that paths lead to which begin so."""
        kinds = {self._kinds[byte] for byte in range(256) if _PATH >> byte & 1}
        reached = {self._after(begin)}
        waiting = list(reached)
        while waiting:
            row = self._rows[waiting.pop()]
            for kind in kinds:
                if row[kind] not in reached:
                    reached.add(row[kind])
                    waiting.append(row[kind])
        return reached


@lru_cache(maxsize=4096)
def pattern_of(text: str) -> LinearPattern:
    """The pattern, made once for each text: making it costs a thousand times what a match does."""
    return LinearPattern(text)


def _kinds_of(masks: list[int]) -> tuple[bytes, list[int]]:
    """The bytes that no set tells apart are of one kind: a table of kinds by byte, and a byte of each kind."""
    distinct = [mask for mask in set(masks) if mask]
    numbers: dict[int, int] = {}
    samples: list[int] = []
    kinds = bytearray(256)
    for byte in range(256):
        signature = 0
        for place, mask in enumerate(distinct):
            signature |= (mask >> byte & 1) << place
        if signature not in numbers:
            numbers[signature] = len(samples)
            samples.append(byte)
        kinds[byte] = numbers[signature]
    return bytes(kinds), samples


def literal_of(node: Node) -> bytes:
    """The bytes that every match begins with, as far as a sequence of single bytes says them."""
    found = bytearray()
    _collect(node, found)
    return bytes(found)


def _collect(node: Node, found: bytearray) -> bool:
    """Add the literal bytes of a node; whether all of it is literal."""
    if node.kind == SET:
        if node.mask and not node.mask & (node.mask - 1):
            found.append(node.mask.bit_length() - 1)
            return True
        return False
    if node.kind == CAT:
        return all(_collect(part, found) for part in node.parts)
    return False
