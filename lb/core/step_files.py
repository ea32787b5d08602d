"""The files that steps of routes and affinities of services go by: a snapshot has their contents, under digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from lb.core.targets import Affinity, Route, Service, Snapshot, StepRule


def step_digests(snapshot: Snapshot) -> set[str]:
    """Of the contents of all these files."""
    return {rule.digest for rule in _rules(snapshot) if rule.digest}


def step_files(snapshot: Snapshot) -> dict[str, str]:
    """Digests of these files, by path."""
    return {rule.file: rule.digest for rule in _rules(snapshot) if rule.file}


def with_step_files(snapshot: Snapshot, digest: Callable[[str], str]) -> Snapshot:
    """The snapshot with the digest of each of these files."""

    def changed(route: Route) -> Route:
        if not any(rule.file for rule in route.steps):
            return route
        rules = (replace(rule, digest=digest(rule.file)) if rule.file else rule for rule in route.steps)
        return replace(route, steps=tuple(rules))

    def with_affinity(service: Service) -> Service:
        rule = service.affinity
        return service if rule is None else replace(service, affinity=replace(rule, digest=digest(rule.file)))

    routes = tuple(changed(route) for route in snapshot.routes)
    return replace(snapshot, routes=routes, services=tuple(with_affinity(service) for service in snapshot.services))


def _rules(snapshot: Snapshot) -> Iterator[StepRule | Affinity]:
    for route in snapshot.routes:
        yield from route.steps
    for service in snapshot.services:
        if service.affinity is not None:
            yield service.affinity
