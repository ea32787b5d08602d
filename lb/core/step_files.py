"""The files that steps of routes go by: their contents are part of a snapshot, under digests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lb.core.targets import Route, Snapshot


def step_digests(snapshot: Snapshot) -> set[str]:
    """Of the contents of all files that steps go by."""
    return {rule.digest for route in snapshot.routes for rule in route.steps if rule.digest}


def step_files(snapshot: Snapshot) -> dict[str, str]:
    """Digests of these files, by path."""
    return {rule.file: rule.digest for route in snapshot.routes for rule in route.steps if rule.file}


def with_step_files(snapshot: Snapshot, digest: Callable[[str], str]) -> Snapshot:
    """The snapshot with the digest of each file that a step goes by."""

    def changed(route: Route) -> Route:
        if not any(rule.file for rule in route.steps):
            return route
        rules = (replace(rule, digest=digest(rule.file)) if rule.file else rule for rule in route.steps)
        return replace(route, steps=tuple(rules))

    return replace(snapshot, routes=tuple(changed(route) for route in snapshot.routes))
