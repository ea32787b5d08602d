"""The part of an access log line that names a request's route and the steps that it met."""

from __future__ import annotations

import json
from collections.abc import Sequence


def fragment_of(title: str, steps: Sequence[str]) -> bytes:
    """The part of a line; it is made once for each route."""
    return f',"route":{json.dumps(title)},"steps":{json.dumps(steps)}'.encode()


def read_fragment(fragment: bytes) -> tuple[str, list[str]]:
    """The route and the steps. Both are empty for a route without steps."""
    if not fragment:
        return "", []
    parts = json.loads(b"{" + fragment[1:] + b"}")
    return parts["route"], parts["steps"]
