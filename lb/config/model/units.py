"""How durations, sizes, shares and status ranges are written in the file, and back.

Durations carry their unit (`250ms`, `2s`, `1m30s`), because a bare number has misled the users of every peer: nginx
reads seconds, HAProxy milliseconds. Sizes may be bare bytes or `64KiB`; shares are percents. Values inside the program
are plain numbers: seconds, bytes, a share of 1. Arithmetic is decimal, so that what is written is what is read.

Outside its scope: bounds. Each field states its own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

_UNITS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_PART = r"[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d)"
DURATION_PATTERN = rf"(?:0|(?:{_PART})+)"
_DURATION = re.compile(DURATION_PATTERN)
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_COLONS = re.compile(r"([0-9]+):([0-9]{1,2})(?::([0-9]{1,2}))?")

_BYTES = {
    "": 1, "B": 1,
    "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
    "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
}  # fmt: skip
SIZE_PATTERN = r"[0-9]+(?:\.[0-9]+)? ?(?:B|KiB|MiB|GiB|TiB|[kK]B|MB|GB|TB)?"
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|KiB|MiB|GiB|TiB|[kK]B|MB|GB|TB)?")

RATE_PATTERN = r"[1-9][0-9]*/(?:s|m|h|d)"
_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|m|h|d)")

PERCENT_PATTERN = r"(?:0|[0-9]+(?:\.[0-9]+)? ?%)"
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")

STATUS_PATTERN = r"[1-5][0-9][0-9](?:-[1-5][0-9][0-9])?(?: ?, ?[1-5][0-9][0-9](?:-[1-5][0-9][0-9])?)*"
_STATUS = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")

DURATIONS_ALLOWED = "a number with its unit, such as 250ms, 2s, 1m or 1h30m"
SIZES_ALLOWED = "a number with its unit, such as 64KiB or 10MiB, or a number of bytes"
PERCENTS_ALLOWED = "a percentage, such as 20% or 0.5%"
RATES_ALLOWED = "a number for each second, minute, hour or day, such as 10/s, 5/m or 1000/h"
MOMENTS_ALLOWED = "a date and time with its zone, such as 2026-12-24T00:00:00Z"
STATUS_ALLOWED = "status codes and ranges, such as 200, 200-299 or 200-299,304"

#: Longest duration that makes sense; also keeps sums of them exact in a float.
LONGEST = 10 * 365 * 86400.0

Ranges = tuple[tuple[int, int], ...]


class Unreadable(ValueError):  # noqa: N818 - it says what the text is
    """A text that is not the quantity it should be; `suggestion` is what was probably meant."""

    def __init__(self, message: str, allowed: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.allowed = allowed
        self.suggestion = suggestion


# --- durations -------------------------------------------------------------------------------------------------------


def parse_duration(text: str) -> float:
    """Seconds."""
    if not _DURATION.fullmatch(text):
        raise Unreadable(f"{text!r} is not a duration", DURATIONS_ALLOWED, _meant_duration(text))
    seconds = float(sum((Decimal(number) * _UNITS[unit] for number, unit in _PARTS.findall(text)), Decimal(0)))
    if seconds > LONGEST:
        raise Unreadable(f"{text!r} is longer than ten years", DURATIONS_ALLOWED)
    return seconds


def format_duration(seconds: float) -> str:
    """In the largest unit that leaves a whole number; in seconds or milliseconds otherwise."""
    exact = Decimal(repr(float(seconds)))
    if not exact:
        return "0s"
    for unit in ("d", "h", "m"):
        if exact % _UNITS[unit] == 0:
            return f"{_plain(exact / _UNITS[unit])}{unit}"
    return f"{_plain(exact)}s" if exact >= 1 else f"{_plain(exact / _UNITS['ms'])}ms"


def _meant_duration(text: str) -> str:
    squeezed = text.strip().replace(" ", "").replace("_", "").lower()
    if _NUMBER.fullmatch(squeezed):
        return f"{squeezed}s"
    if match := _COLONS.fullmatch(squeezed):  # YAML 1.1 reads 1:30 as ninety
        numbers = [int(group) for group in match.groups() if group is not None]
        units = ("m", "s") if len(numbers) == 2 else ("h", "m", "s")
        return "".join(f"{number}{unit}" for number, unit in zip(numbers, units, strict=True) if number)
    words = {"milliseconds": "ms", "millisecond": "ms", "msec": "ms", "seconds": "s", "second": "s", "secs": "s"}
    words |= {"sec": "s", "minutes": "m", "minute": "m", "mins": "m", "min": "m", "hours": "h", "hour": "h"}
    words |= {"hrs": "h", "hr": "h", "days": "d", "day": "d"}
    for word, unit in words.items():
        if squeezed.endswith(word) and _NUMBER.fullmatch(squeezed.removesuffix(word)):
            return squeezed.removesuffix(word) + unit
    return squeezed if squeezed != text and _DURATION.fullmatch(squeezed) else ""


# --- sizes -----------------------------------------------------------------------------------------------------------


def parse_size(text: str) -> int:
    """Bytes."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Unreadable(f"{text!r} is not a size", SIZES_ALLOWED, _meant_size(text))
    number, unit = match.groups()
    value = Decimal(number) * _BYTES[unit or ""]
    if value != value.to_integral_value():
        raise Unreadable(f"{text!r} is not a whole number of bytes", SIZES_ALLOWED)
    if value > 2**53:
        raise Unreadable(f"{text!r} is more than any machine holds", SIZES_ALLOWED)
    return int(value)


def format_size(size: int) -> str:
    """The largest binary unit that leaves a whole number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B" if size else "0"


def _meant_size(text: str) -> str:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmgt])(i?b?|bytes)", text.strip().replace(" ", ""), re.IGNORECASE)
    return f"{match[1]}{match[2].upper()}iB" if match else ""


# --- rates -----------------------------------------------------------------------------------------------------------


def parse_rate(text: str) -> tuple[int, float]:
    """(number, seconds)."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise Unreadable(f"{text!r} is not a rate", RATES_ALLOWED, _meant_rate(text))
    return int(match[1]), float(_UNITS[match[2]])


def format_rate(rate: tuple[int, float]) -> str:
    unit = next(unit for unit, seconds in _UNITS.items() if float(seconds) == rate[1])
    return f"{rate[0]}/{unit}"


def _meant_rate(text: str) -> str:
    match = re.fullmatch(r"([1-9][0-9]*)(?:r?/| per )(s|m|h|d)[a-z]*", text.strip().lower().replace("/ ", "/"))
    return f"{match[1]}/{match[2]}" if match else ""


# --- moments ---------------------------------------------------------------------------------------------------------


def parse_moment(text: str) -> float:
    """Unix time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Unreadable(f"{text!r} is not a moment", MOMENTS_ALLOWED) from None
    if moment.tzinfo is None:
        raise Unreadable(f"{text!r} names no time zone", MOMENTS_ALLOWED, f"{text}Z" if "T" in text else "")
    return moment.timestamp()


def format_moment(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


# --- shares ----------------------------------------------------------------------------------------------------------


def parse_percent(text: str) -> float:
    """A share of 1."""
    if text == "0":
        return 0.0
    match = _PERCENT.fullmatch(text)
    if match is None:
        suggestion = f"{text}%" if _NUMBER.fullmatch(text) else ""
        if suggestion and 0 < Decimal(text) < 1:
            suggestion = f"{_plain(Decimal(text) * 100)}%"
        raise Unreadable(f"{text!r} is not a percentage", PERCENTS_ALLOWED, suggestion)
    return float(Decimal(match[1]) / 100)


def format_percent(share: float) -> str:
    return f"{_plain(Decimal(repr(float(share))) * 100)}%"


# --- statuses --------------------------------------------------------------------------------------------------------


def parse_statuses(text: str) -> Ranges:
    """Inclusive ranges, in order, without ranges that another one covers."""
    ranges: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _STATUS.fullmatch(part.strip())
        if match is None:
            raise Unreadable(f"{part.strip()!r} is not a status code or range", STATUS_ALLOWED, _meant_status(part))
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise Unreadable(f"the range {part.strip()!r} ends before it begins", STATUS_ALLOWED, f"{high}-{low}")
        ranges.append((low, high))
    return tuple(sorted(set(ranges)))


def format_statuses(ranges: Ranges) -> str:
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)


def _meant_status(part: str) -> str:
    match = re.fullmatch(r"([1-5])(?:xx|\*\*?|--)", part.strip().lower())
    return f"{match[1]}00-{match[1]}99" if match else ""


def _plain(number: Decimal) -> str:
    """Without exponent or trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
