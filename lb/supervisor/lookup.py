"""Finds what operators name in the configuration in force. An unknown name is refused, with the existing names."""

from __future__ import annotations

from lb.core.refusals import Refusal, Refused
from lb.core.targets import Pool, Route, Service, Target
from lb.supervisor.state import State

#: Routes that a refusal names.
NAMED = 20


def service_of(state: State, name: str) -> Service:
    """Raises `Refused`."""
    services = {service.name: service for service in state.world.snapshot.services}
    if name not in services:
        raise Refused(Refusal.NO_SUCH_SERVICE, f"there is no service {name}; there is {', '.join(services)}")
    return services[name]


def route_of(state: State, name: str) -> Route:
    """A route by its name, or by its host and path. Raises `Refused`."""
    routes = state.world.snapshot.routes
    found = [route for route in routes if route.title() == name]
    if len(found) > 1:
        raise Refused(Refusal.AMBIGUOUS_ROUTE, f"{len(found)} routes are called {name}: give them names in the file")
    if not found:
        some = ", ".join(route.title() for route in routes[:NAMED])
        more = f" and {len(routes) - NAMED} more" if len(routes) > NAMED else ""
        raise Refused(Refusal.NO_SUCH_ROUTE, f"there is no route {name}; there is {some}{more}")
    return found[0]


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
