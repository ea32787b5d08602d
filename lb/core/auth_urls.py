"""URLs of `forward_auth`: each stands for a service, which lb checks and connects to like any other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

_URL: Final = re.compile(r"((?:https?|h2c?)://([^/?#\s]+))([/?][^#\s]*)?")
_ODD: Final = re.compile(r"[^A-Za-z0-9._]+")


def split_auth_url(url: str) -> tuple[str, str]:
    """(URL of the server, path and query). Raises ValueError."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(url)
    target = match[3] or "/"
    return match[1], target if target.startswith("/") else f"/{target}"


def auth_service(url: str) -> str:
    """The name of the service that a URL stands for."""
    server, _ = split_auth_url(url)
    scheme, _, place = server.partition("://")
    prefix = "auth-" if scheme == "http" else f"auth-{scheme}-"
    return _ODD.sub("-", prefix + place).strip("-._")[:63].rstrip("-._")


def auth_urls(data: dict[Any, Any]) -> Iterator[str]:
    """The URLs in a file's values, which may have any form still."""
    routes = data.get("routes")
    for route in routes if isinstance(routes, list) else ():
        steps = route.get("steps") if isinstance(route, dict) else None
        for step in steps if isinstance(steps, list) else ():
            rule = step.get("forward_auth") if isinstance(step, dict) else None
            url = rule.get("url") if isinstance(rule, dict) else None
            if isinstance(url, str) and _URL.fullmatch(url):
                yield url
