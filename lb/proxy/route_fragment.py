"""The part of an access log line that names a request's route, the steps that it met, and what these remarked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_REMARKS: Final = b',"remarks":['


def fragment_of(title: str, steps: Sequence[str]) -> bytes:
    """The part of a line; it is made once for each route."""
    return f',"route":{json.dumps(title)},"steps":{json.dumps(steps)}'.encode()


def with_remark(fragment: bytes, text: str) -> bytes:
    """What a step has done with a request that it has not answered, in front of what `fragment_of` makes."""
    said = json.dumps(text).encode()
    return fragment[:-1] + b"," + said + b"]" if fragment else _REMARKS + said + b"]"


def with_late_remark(fragment: bytes, text: str) -> bytes:
    """The same where the route is there already: it comes before earlier remarks."""
    said = _REMARKS + json.dumps(text).encode()
    return said + b"," + fragment[len(_REMARKS) :] if fragment.startswith(_REMARKS) else said + b"]" + fragment


def read_remarks(fragment: bytes) -> list[str]:
    """The remarks of steps."""
    if not fragment.startswith(_REMARKS):
        return []
    remarks: list[str] = json.loads(b"{" + fragment[1:] + b"}")["remarks"]
    return remarks


def read_fragment(fragment: bytes) -> tuple[str, list[str]]:
    """The route and the steps. Both are empty for a route without steps."""
    if not fragment:
        return "", []
    route, steps = _read(fragment)
    return route, list(steps)


@lru_cache(maxsize=256)
def _read(fragment: bytes) -> tuple[str, tuple[str, ...]]:
    """The same, once for all requests that a step refuses: a flood of these is no time to read JSON."""
    parts = json.loads(b"{" + fragment[1:] + b"}")
    return parts.get("route", ""), tuple(parts.get("steps", ()))
