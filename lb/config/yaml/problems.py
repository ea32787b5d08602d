"""Errors of a file, each with its place, and how they are shown to a person in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 80
#: Longest part of an offending line that is quoted.
_QUOTED = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning. `line` and `column` count from 1; 0: the file as a whole."""

    file: str
    line: int
    column: int
    message: str  # what is wrong, with the value
    quote: str = ""  # the offending line as it stands in the file
    hint: str = ""  # what is allowed, what was probably meant, what to do
    width: int = 1  # columns that the caret underlines
    path: str = ""  # where in the file's structure, such as services.greeting.readiness.interval
    code: str = ""  # of a warning: what `lb check --ignore` takes

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        """One line, as compilers write it."""
        return f"{self.where}: {self.message}" + (f" [{self.code}]" if self.code else "")


class ConfigError(Exception):
    """The file cannot be used. `problems` holds all of its errors, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(render(problem) for problem in self.problems)

    @property
    def brief(self) -> str:
        """One line, however many errors there are: the first one, whole."""
        first, *more = self.problems
        plural = "s" * (len(more) > 1)
        return f"{first} (and {len(more)} more error{plural}; `lb check` shows all)" if more else str(first)


def render(problem: Problem, width: int = WIDTH) -> str:
    """The problem, the line it is in with a caret under it, and the hint."""
    lines = _wrapped(str(problem), width, "  ")
    if problem.quote.strip():
        quote, column = _window(problem.quote.expandtabs(1), problem.column)
        gutter = f"{problem.line:>5} | "
        lines.append(f"{gutter}{quote}".rstrip())
        underline = "^" * max(1, min(problem.width, len(quote) - column + 1))
        lines.append(f"{'| ':>{len(gutter)}}{' ' * (column - 1)}{underline}")
    for paragraph in problem.hint.splitlines():
        lines.extend(_wrapped(f"      {paragraph}", width, "        "))
    return "\n".join(lines)


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    # Long names, paths and URLs are never broken: they are there to be copied.
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a long line around `column`, and where that column is in it."""
    line = line.rstrip()
    if len(line) <= _QUOTED:
        return line, min(column, len(line) + 1)
    start = max(0, min(column - _QUOTED // 2, len(line) - _QUOTED))
    part = line[start : start + _QUOTED]
    if start:
        part = f"…{part[1:]}"
    if start + _QUOTED < len(line):
        part = f"{part[:-1]}…"
    return part, column - start
