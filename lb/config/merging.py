"""How checks refine each other: the service's, then the pool's options over it, then the target's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from lb.config.checking import Check, Liveness, Readiness
from lb.config.serving import Pool, Service, Target
from lb.config.source import Path

C = TypeVar("C", bound=Check)


def refined(base: C, *refinements: C | None) -> C:
    """`base` with what each refinement sets. `on_failure` and `expect` are replaced whole."""
    for refinement in refinements:
        if refinement is None:
            continue
        update = {name: getattr(refinement, name) for name in refinement.model_fields_set}
        if "protocol" not in update and base.protocol is not None:
            # `{path: /x}` over `tcp` means an HTTP check; `{interval: 1s}` over it does not.
            implied = refinement.kind()
            if implied != "tcp" and not (implied == "http" and base.protocol == "https"):
                update["protocol"] = implied
        base = base.model_copy(update=update)
    return base


def readiness_of(service: Service, pool: Pool | None = None, target: Target | None = None) -> Readiness:
    return refined(service.readiness, pool.readiness if pool else None, target.readiness if target else None)


def liveness_of(service: Service, pool: Pool | None = None, target: Target | None = None) -> Liveness | None:
    given = [level.liveness for level in (service, pool, target) if level is not None and level.liveness is not None]
    return refined(given[0], *given[1:]) if given else None


def merged_checks(at: Path, service: Service) -> Iterator[tuple[Path, Check]]:
    """Every block that stands in the file, with its path, as it works out."""
    if "readiness" in service.model_fields_set:
        yield (*at, "readiness"), service.readiness
    if service.liveness is not None:
        yield (*at, "liveness"), service.liveness
    for name, pool in service.pools.items():
        place: Path = (*at, "pools", name)
        if pool.readiness is not None:
            yield (*place, "readiness"), readiness_of(service, pool)
        if pool.liveness is not None and (liveness := liveness_of(service, pool)) is not None:
            yield (*place, "liveness"), liveness
        for index, target in enumerate(pool.targets):
            if target.readiness is not None:
                yield (*place, "targets", index, "readiness"), readiness_of(service, pool, target)
            if target.liveness is not None and (liveness := liveness_of(service, pool, target)) is not None:
                yield (*place, "targets", index, "liveness"), liveness
