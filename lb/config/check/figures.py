"""A configuration in numbers: how fast trouble is noticed, and the cost of the checks."""

from __future__ import annotations

from dataclasses import dataclass

from lb.config.resolve import World
from lb.core.checks import CheckSpec
from lb.core.detection import Detection, detection
from lb.core.targets import Service


@dataclass(frozen=True, slots=True)
class CheckFigures:
    """One check definition with its timing, and the targets that have it."""

    spec: CheckSpec
    targets: tuple[str, ...]  # ids; of targets that are yet to be found: none
    detection: Detection | None  # None: it never takes anything out


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """One service."""

    name: str
    readiness: tuple[CheckFigures, ...]  # slowest first
    liveness: tuple[CheckFigures, ...]
    probes: float  # a second

    @property
    def worst(self) -> Detection | None:
        """Of its slowest check; None when a target has no check, or none is known yet."""
        return self.readiness[0].detection if self.readiness else None


def figures(world: World) -> list[ServiceFigures]:
    """Of each service, in the order of the file."""
    return [_service(world, service) for service in world.snapshot.services]


def _service(world: World, service: Service) -> ServiceFigures:
    readiness: dict[CheckSpec, list[str]] = {}
    liveness: dict[CheckSpec, list[str]] = {}
    probes = 0.0
    for id in (target.id for pool in service.pools for target in pool.targets):
        checks = world.checks[id]
        readiness.setdefault(checks.readiness, []).append(id)
        if checks.liveness is not None:
            liveness.setdefault(checks.liveness, []).append(id)
        probes += sum(1 / spec.interval for spec in (checks.readiness, checks.liveness) if spec and _asks(spec))
    for (name, _), checks in world.found_checks.items():
        if name == service.name:
            readiness.setdefault(checks.readiness, [])
            if checks.liveness is not None:
                liveness.setdefault(checks.liveness, [])
    return ServiceFigures(service.name, _sorted(readiness), _sorted(liveness), probes)


def _asks(spec: CheckSpec) -> bool:
    return spec.protocol != "none"


def _sorted(found: dict[CheckSpec, list[str]]) -> tuple[CheckFigures, ...]:
    rows = [CheckFigures(spec, tuple(ids), detection(spec)) for spec, ids in found.items()]
    return tuple(sorted(rows, key=lambda row: float("-inf") if row.detection is None else -row.detection.worst))
