"""The files that steps of routes, affinities of services and error pages go by: a snapshot has their contents, under
digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from lb.core.error_pages import ErrorPages
from lb.core.targets import Route, Service, Snapshot


def step_digests(snapshot: Snapshot) -> set[str]:
    """Of the contents of all these files."""
    return {digest for _, digest in _files(snapshot) if digest}


def step_files(snapshot: Snapshot) -> dict[str, str]:
    """Digests of these files, by path."""
    return {file: digest for file, digest in _files(snapshot) if file}


def with_step_files(snapshot: Snapshot, digest: Callable[[str], str]) -> Snapshot:
    """The snapshot with the digest of each of these files."""

    def of_route(route: Route) -> Route:
        pages = _read(route.error_pages, digest)
        if pages is route.error_pages and not any(rule.file for rule in route.steps):
            return route
        rules = (replace(rule, digest=digest(rule.file)) if rule.file else rule for rule in route.steps)
        return replace(route, steps=tuple(rules), error_pages=pages)

    def of_service(service: Service) -> Service:
        rule, pages = service.affinity, _read(service.error_pages, digest)
        if rule is not None:
            rule = replace(rule, digest=digest(rule.file))
        elif pages is service.error_pages:
            return service
        return replace(service, affinity=rule, error_pages=pages)

    return replace(
        snapshot,
        routes=tuple(of_route(route) for route in snapshot.routes),
        services=tuple(of_service(service) for service in snapshot.services),
        error_pages=_read(snapshot.error_pages, digest),
    )


def _files(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """(path, digest) of each file."""
    for route in snapshot.routes:
        yield from ((rule.file, rule.digest) for rule in route.steps)
    for service in snapshot.services:
        if service.affinity is not None:
            yield service.affinity.file, service.affinity.digest
    for pages in all_error_pages(snapshot):
        if pages is not None:
            yield from pages.files()


def all_error_pages(snapshot: Snapshot) -> Iterator[ErrorPages | None]:
    """Of the file, of each service and of each route."""
    yield snapshot.error_pages
    yield from (service.error_pages for service in snapshot.services)
    yield from (route.error_pages for route in snapshot.routes)


def _read(pages: ErrorPages | None, digest: Callable[[str], str]) -> ErrorPages | None:
    return pages.with_digests(digest) if pages is not None and pages.pages else pages
