"""How the client commands write: colours only where a person looks, columns that line up, numbers that fit.

Colour is used on a terminal, unless NO_COLOR is set or TERM is dumb (no-color.org); FORCE_COLOR overrides.
No state is told by colour alone: the words are always there.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35"}

#: How a target's state looks; the sign stands before the word.
STATES = {
    "ready": ("●", "green"),
    "slow_start": ("◐", "green"),
    "starting": ("○", "yellow"),
    "draining": ("◔", "blue"),
    "drained": ("◌", "blue"),
    "unready": ("✖", "red"),
    "ejected": ("✖", "magenta"),
}


def colours(stream: object = None) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    stream = stream or sys.stdout
    return bool(getattr(stream, "isatty", lambda: False)()) and os.environ.get("TERM") != "dumb"


class Ink:
    """Paints text, or leaves it alone."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, text: str, *styles: str) -> str:
        if not self.on or not styles or not text:
            return text
        return f"\x1b[{';'.join(CODES[style] for style in styles)}m{text}\x1b[0m"

    def state(self, state: str) -> str:
        sign, colour = STATES.get(state, ("?", "yellow"))
        return self(f"{sign} {state}", colour)


def width() -> int:
    """Columns to write in: those of $COLUMNS, else the terminal's, or 80 for a pipe. `shutil` asks the same, but brings
    in three compressors."""
    told = os.environ.get("COLUMNS", "")
    try:
        found = int(told) if told.isdecimal() else 0
        found = found or os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # stdout is closed, or no terminal
        found = 0
    return max(40, found or 80)


def plain_length(text: str) -> int:
    """Columns that `text` takes, escapes not counted."""
    length, skip = 0, False
    for char in text:
        if char == "\x1b":
            skip = True
        elif skip:
            skip = char != "m"
        elif not unicodedata.combining(char):
            length += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return length


def columns(rows: Sequence[Sequence[str]], align: str, gap: str = "  ", least: Sequence[int] = ()) -> list[str]:
    """Rows as lines with aligned columns; `align` holds one of `<>` for each column."""
    if not rows:
        return []
    sizes = [max(plain_length(row[i]) for row in rows) for i in range(len(rows[0]))]
    for index, size in enumerate(least):
        sizes[index] = max(sizes[index], size)
    lines = []
    for row in rows:
        cells = [
            " " * (size - plain_length(cell)) + cell if side == ">" else cell + " " * (size - plain_length(cell))
            for cell, size, side in zip(row, sizes, align, strict=True)
        ]
        lines.append(gap.join(cells).rstrip())
    return lines


def wrapped(line: str, hanging: str = "", stream: TextIO | None = None) -> list[str]:
    """A line of plain text as lines that fit a terminal, broken between words; for a pipe it stays whole (`grep`)."""
    if not (stream or sys.stdout).isatty() or len(line) <= width():
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line, width(), subsequent_indent=indent + hanging, break_long_words=False, break_on_hyphens=False
    )


def say(text: str, stream: TextIO | None = None) -> None:
    """Print text without colours, in lines that fit a terminal."""
    for line in text.splitlines():
        for part in wrapped(line, "  ", stream):
            print(part, file=stream or sys.stdout, flush=True)


def aside(text: str) -> None:
    """Text beside the answer: it goes to stderr."""
    say(text, sys.stderr)


def flowing(parts: Iterable[str], between: str) -> list[str]:
    """Painted pieces as lines that fit, broken between pieces only."""
    lines: list[str] = []
    for part in parts:
        if lines and plain_length(lines[-1]) + len(between) + plain_length(part) <= width():
            lines[-1] += between + part
        else:
            lines.append(part)
    return lines


class Ticker:
    """A line on stderr that says how things stand, as long as they do; only on a terminal, never wider than it."""

    def __init__(self, quiet: bool = False) -> None:
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet
        self._shown = False

    def show(self, text: str) -> None:
        if self.live:
            print(f"\r\x1b[K{shorten(text, width() - 1)}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


#: Seconds after which something that is not done yet is worth a word, and between two looks at the clock.
NOTICED = 0.7
TICK = 0.2


@contextlib.contextmanager
def working(text: str, quiet: bool = False) -> Iterator[None]:
    """Shows `text` and the time while the block lasts, if that is long enough to wonder."""
    ticker = Ticker(quiet)
    if not ticker.live:
        yield
        return
    from threading import Event, Thread

    over, began = Event(), time.monotonic()

    def tick() -> None:
        pause = NOTICED
        while not over.wait(pause):
            ticker.show(f"{text} … {span(time.monotonic() - began)}")
            pause = TICK

    ticking = Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        over.set()
        ticking.join()
        ticker.clear()


def shorten(text: str, size: int) -> str:
    """`text` in at most `size` columns; what is cut shows as …"""
    return text if len(text) <= size else text[: max(0, size - 1)] + "…"


def age(seconds: float) -> str:
    """How long: 3s, 4m, 2h, 5d; the two largest units where the first is small: 1m20s."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 36000:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 3600}h" if whole < 172800 else f"{whole // 86400}d"


def span(seconds: float) -> str:
    """A latency or a setting: 0.4ms, 12ms, 1.5s, 2m."""
    if seconds <= 0:
        return "0s" if seconds == 0 else "-"
    if seconds < 0.01:
        return f"{seconds * 1000:.1f}ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.3g}s" if seconds < 120 else age(seconds)


def count(number: float) -> str:
    """950, 1.2k, 35k, 4.1M."""
    for limit, divisor, unit in ((1000, 1, ""), (1_000_000, 1000, "k"), (1_000_000_000, 1_000_000, "M")):
        if number < limit * 0.9995:
            value = number / divisor
            return f"{value:.1f}".removesuffix(".0") + unit if value < 9.95 else f"{value:.0f}{unit}"
    return f"{number / 1_000_000_000:.1f}G"


def percent(share: float) -> str:
    """A share of 1 as 0%, 0.3%, 12%; what is not nothing never shows as nothing."""
    if share <= 0:
        return "0%"
    if share < 0.001:
        return "<.1%"
    return f"{share * 100:.1f}%" if share < 0.1 else f"{share * 100:.0f}%"
