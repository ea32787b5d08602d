"""A source of targets of your own: what a registry of services answers over HTTP.

lb calls `targets` every two seconds, in a process of its own. It returns what `targets` of a pool holds. When it
raises, does not return, or returns something else, the last targets stay, and `lb status` says why.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def targets(url: str, zone: str = "") -> list[dict[str, Any]]:
    """The instances that the registry has, of one zone or of all. `url` and `zone` come from `arguments`."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        instances = json.load(answer)["instances"]
    return [
        {"url": f"http://{each['host']}:{each['port']}", "weight": each.get("weight", 1)}
        for each in instances
        if not zone or each.get("zone") == zone
    ]
