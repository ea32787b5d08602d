"""How checks refine each other: the service's, then the pool's options over it, then the target's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

from lb.config.model.checks import HTTP_KEYS, Check, Liveness, Readiness
from lb.config.model.services import Pool, Service, Target
from lb.config.yaml.tree import Path

C = TypeVar("C", bound=Check)

#: Protocols that an option is meant for; an option that is not listed is for all.
MEANT_FOR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(HTTP_KEYS, ("http", "https")),
    "grpc_service": ("grpc",),
    "command": ("command",),
    "tls": ("https", "grpc", "http"),
    "host": ("http", "https", "tcp", "grpc"),
    "port": ("http", "https", "tcp", "grpc"),
}


def refined(base: C, *refinements: C | None) -> C:
    """`base` with what each refinement sets. `on_failure` and `expect` are replaced whole.

    A refinement that asks by another protocol leaves behind what only the former one had a use for.
    """
    for refinement in refinements:
        if refinement is None:
            continue
        update = {name: getattr(refinement, name) for name in refinement.model_fields_set}
        kind = refinement.kind()
        if "protocol" not in update and (kind == "tcp" or (kind == "http" and base.kind() == "https")):
            kind = base.kind()  # `{path: /x}` over `tcp` means an HTTP check; `{interval: 1s}` over it does not
        elif base.kind() != kind:
            update["protocol"] = kind
        kept = {name: getattr(base, name) for name in base.model_fields_set}
        kept = {name: value for name, value in kept.items() if kind in MEANT_FOR.get(name, (kind,))}
        base = cast("C", type(base).model_construct(**{**kept, **update}))  # all values are validated already
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
