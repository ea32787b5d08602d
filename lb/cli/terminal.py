"""How the client commands write: colours only where a person looks, columns that line up, numbers that fit.

Colour is used on a terminal, unless NO_COLOR is set or TERM is dumb (no-color.org); FORCE_COLOR overrides.
No state is told by colour alone: the words are always there.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence

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
    """Columns to write in: the terminal's, or 80 for a pipe."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


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
