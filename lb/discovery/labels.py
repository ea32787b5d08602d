"""What labels of a container, or a Consul service's meta, say of a target. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: The largest weight of a target.
MOST_WEIGHT = 1000


def number(labels: Mapping[str, Any], label: str, least: int, most: int) -> int | None:
    """A label's number; None: there is no such label. Raises `ValueError`."""
    if label not in labels:
        return None
    text = str(labels[label])
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise ValueError(f"its {label} is {text!r}; allowed is a number from {least} to {most}")
    return int(text)


def check(labels: Mapping[str, Any], label: str) -> str:
    """Settings of a target (`Found.settings`) whose check asks for the path of a label. Raises `ValueError`."""
    path = str(labels.get(label, ""))
    if path and not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        raise ValueError(f"its {label} is {path!r}, which is no path")
    return json.dumps({"readiness": {"path": path}}) if path else ""
