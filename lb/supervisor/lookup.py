"""Finds what operators name in the configuration in force. An unknown name is refused, with the existing names."""

from __future__ import annotations

from lb.core.refusals import Refusal, Refused
from lb.core.targets import Pool, Service, Target
from lb.supervisor.state import State


def service_of(state: State, name: str) -> Service:
    """Raises `Refused`."""
    services = {service.name: service for service in state.world.snapshot.services}
    if name not in services:
        raise Refused(Refusal.NO_SUCH_SERVICE, f"there is no service {name}; there is {', '.join(services)}")
    return services[name]


def pool_of(service: Service, name: str) -> Pool:
    """Raises `Refused`."""
    pools = {pool.name: pool for pool in service.pools}
    if name not in pools:
        raise Refused(Refusal.NO_SUCH_POOL, f"{service.name} has no pool {name}; it has {', '.join(pools)}")
    return pools[name]


def target_of(state: State, id: str) -> Target:
    """A target by its id, or by the end of it where that is enough. Raises `Refused`."""
    targets = state.targets
    if id in targets:
        return targets[id]
    matches = [known for known in targets if known.endswith(f"/{id}")]
    if len(matches) == 1:
        return targets[matches[0]]
    if matches:
        raise Refused(Refusal.AMBIGUOUS_TARGET, f"{id} may be {' or '.join(sorted(matches))}")
    raise Refused(Refusal.NO_SUCH_TARGET, f"there is no target {id}")


def caller_of(state: State, subject: str) -> Target:
    """A target by its name, or by the address that a container calls from. Raises `Refused`."""
    try:
        return target_of(state, subject)
    except Refused:
        calling = [target for target in state.targets.values() if target.host == subject]
        if len(calling) == 1:
            return calling[0]
        if calling:
            names = " or ".join(target.id for target in calling)
            raise Refused(Refusal.AMBIGUOUS_TARGET, f"{subject} may be {names}; say ?target=") from None
        raise
