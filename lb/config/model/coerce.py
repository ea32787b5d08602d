"""How a field reads what YAML gave, and what it says when it cannot.

YAML 1.1 and 1.2 disagree about plain texts such as `yes`, `010`, `1_000` and `1:30`. Here it is the field that decides:
`source` hands over every plain scalar as a `Scalar`, the text as it stands in the file. A field of whole numbers reads
a number from it, while a field of texts keeps it as it is. A value that the two versions read differently is refused
with both readings named, never guessed.

Python values are taken as well, so that a model can be built in code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from pydantic_core import PydanticCustomError

from lb.config.model import units
from lb.config.model.units import Unreadable
from lb.core.quorum import Quorum


class Scalar(str):
    """A plain scalar that some YAML reads as something else than text: `3`, `1.5`, `true`, `null`."""

    __slots__ = ()


WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ODD_WHOLE = re.compile(r"[+-]?(?:0[0-7_]+|0[xX][0-9a-fA-F_]+|0o[0-7]+|0b[01_]+|[0-9][0-9_]*)")
_YES = frozenset(("yes", "on", "y"))
_NO = frozenset(("no", "off", "n"))
QUORUM_ALLOWED = "a percentage above 0%, or a number of targets"


def refuse(message: str, allowed: str = "", suggestion: str = "") -> NoReturn:
    """Raise what `wording` turns into a problem with its place."""
    raise refusal(message, allowed, suggestion)


def refusal(message: str, allowed: str = "", suggestion: str = "") -> PydanticCustomError:
    context = {"message": message, "allowed": allowed, "suggestion": suggestion}
    return PydanticCustomError("refused", "{message}", context)


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return repr(str(value)) if isinstance(value, str) else repr(value)


def _spelled(value: object, wanted: str) -> str:
    """The text of a scalar, for the readers below."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    refuse(f"{_kind(value)} is not {wanted}", wanted)


def read_flag(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        lowered = value.lower()
        if isinstance(value, Scalar) and lowered in ("true", "false"):
            return lowered == "true"
        if lowered in ("true", "false"):
            refuse(f"{str(value)!r} in quotes is a text", "true or false, without quotes", lowered)
        if lowered in _YES or lowered in _NO:
            refuse(
                f"{str(value)!r} is a truth value in YAML 1.1 and a text in YAML 1.2",
                "true or false",
                "true" if lowered in _YES else "false",
            )
    refuse(f"{_kind(value)} is neither true nor false", "true or false")


def read_whole(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if WHOLE.fullmatch(value) and len(value) <= 18:
            if isinstance(value, Scalar):
                return int(value)
            refuse(f"{str(value)!r} in quotes is a text", "a whole number, without quotes", str(value))
        if _ODD_WHOLE.fullmatch(value) and len(value) <= 18:
            digits = value.replace("_", "").lstrip("+")
            plain = digits.lstrip("0") if digits.isdigit() else ""
            refuse(f"{str(value)!r} is read in two ways by YAML 1.1 and 1.2", "a whole number in plain digits", plain)
    refuse(f"{_kind(value)} is not a whole number", "a whole number")


def read_number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and DECIMAL.fullmatch(value) and len(value) <= 40:
        if isinstance(value, Scalar):
            return float(value)
        refuse(f"{str(value)!r} in quotes is a text", "a number, without quotes", str(value))
    refuse(f"{_kind(value)} is not a number", "a number, such as 1 or 1.5")


def read_text(value: object) -> object:
    """Plain numbers and truth values are texts here as they stand: `X-Version: 1.10` keeps its zero."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    refuse(f"{_kind(value)} is not a text", "a text")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except Unreadable as error:
        refuse(str(error), error.allowed, error.suggestion)


def read_duration(value: object) -> object:
    """Python numbers are seconds; the file must name the unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= units.LONGEST:
            refuse(f"{value!r} is not a duration", units.DURATIONS_ALLOWED)
        return float(value)
    return parsed(units.parse_duration, _spelled(value, "a duration"))


def read_percent(value: object) -> object:
    """Python numbers are shares of 1; the file must write percents."""
    return value if _number(value) else parsed(units.parse_percent, _spelled(value, "a percentage"))


def read_moment(value: object) -> object:
    """Python numbers are Unix time; the file writes a date with its zone."""
    return value if isinstance(value, float) else parsed(units.parse_moment, _spelled(value, "a moment"))


def read_rate(value: object) -> object:
    """Python tuples are (number, seconds) already."""
    return value if isinstance(value, tuple) else parsed(units.parse_rate, _spelled(value, "a rate"))


def read_size(value: object) -> object:
    """Python numbers are bytes, and so are bare ones of the file."""
    return value if _number(value) else parsed(units.parse_size, _spelled(value, "a size"))


def read_statuses(value: object) -> object:
    """Python tuples are ranges already."""
    if isinstance(value, tuple):
        return value
    parts = value if isinstance(value, list) else [value]
    return parsed(units.parse_statuses, ",".join(_spelled(part, "a status code or range") for part in parts))


def read_quorum(value: object) -> object:
    """`75%` or a number of targets."""
    if isinstance(value, Quorum):
        return value
    text = _spelled(value, QUORUM_ALLOWED)
    if WHOLE.fullmatch(text) and len(text) <= 9:
        if int(text) < 1:
            refuse(f"{text!r} targets are none", QUORUM_ALLOWED, "1")
        return Quorum(share=0.0, count=int(text))
    share = parsed(units.parse_percent, text)
    if not 0 < share <= 1:
        refuse(f"{text!r} is out of range", QUORUM_ALLOWED)
    return Quorum(share=share)


def write_quorum(quorum: Quorum) -> str | int:
    return quorum.count or units.format_percent(quorum.share)


def above_zero(value: float) -> float:
    if value <= 0:
        refuse("0 is not enough here", "a duration above 0")
    return value


def at_most_all(value: float) -> float:
    if not 0 <= value <= 1:
        refuse(f"{units.format_percent(value)} is out of range", "0% to 100%")
    return value
