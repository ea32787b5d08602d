"""Renames between two configurations, matched by address and not by place. Pure.

A target's id says where it stands: `service/pool/host:port`. A renamed pool or service, or a target that moves, has
other ids for the same addresses. The results collected for an address must not be lost with a name. So:

- A name that both configurations have means the same thing in both; only names that are gone and names that are new
  are matched.
- A service or a pool was renamed when that is unmistakable. Its set of addresses is then the same, and no other one of
  the old or of the new configuration has the same set.
- A new target succeeds every target of its address that is gone. The order of preference: the target of the renamed
  pool, of the same service, of a pool of the same name, then by id.
- A target that is added where its address has a place already is that one's twin. One machine asked the same question
  answers the same, but operators' wishes for the one say nothing about the other.

Outside its scope: the part that a successor gets. That is for `desired`, the monitor and the data plane.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lb.core.targets import Service

#: Service → pool → the addresses of its targets, as the last part of their ids has them.
Layout = Mapping[str, Mapping[str, Sequence[str]]]
Place = tuple[str, str]  # service and pool


@dataclass(frozen=True, slots=True)
class Renames:
    """The names that have changed between two configurations."""

    services: Mapping[str, str] = field(default_factory=dict)  # new name → old one
    pools: Mapping[Place, Place] = field(default_factory=dict)  # new place → old one, of whatever has moved or changed
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # new id → the ids it succeeds, the first best
    twins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # new id → ids that stay, of the same address

    def __bool__(self) -> bool:
        return bool(self.services or self.pools or self.targets or self.twins)

    def pool_was(self, service: str, pool: str) -> Place:
        """The place that a pool had: its own when nothing has changed."""
        return self.pools.get((service, pool), (service, pool))

    def is_renamed(self, new: str, old: str) -> bool:
        """Whether `new` succeeds `old` because its pool or service was renamed, not because it was moved alone."""
        service, pool, _ = split_id(new)
        return self.pools.get((service, pool)) == split_id(old)[:2]


NONE = Renames()


def split_id(target: str) -> tuple[str, str, str]:
    """Service, pool and address of a target's id."""
    service, pool, address = target.split("/", 2)
    return service, pool, address


def layout_of(services: Iterable[Service]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The layout of a snapshot's services."""
    return {
        service.name: {pool.name: tuple(split_id(target.id)[2] for target in pool.targets) for pool in service.pools}
        for service in services
    }


def renames(old: Layout, new: Layout) -> Renames:
    """The renames from `old` to `new`."""
    before, after = _ids(old), _ids(new)
    fresh = [id for id in after if id not in before]
    if not fresh:
        return NONE
    services = _matched(
        {name: frozenset(address for pool in old[name].values() for address in pool) for name in old},
        {name: frozenset(address for pool in new[name].values() for address in pool) for name in new},
    )
    pools: dict[Place, Place] = {}
    for name, layout in new.items():
        was = services.get(name, name)
        old_pool_of = _matched(
            {pool: frozenset(addresses) for pool, addresses in old.get(was, {}).items()},
            {pool: frozenset(addresses) for pool, addresses in layout.items()},
        )
        for pool in layout:
            former = old_pool_of.get(pool, pool)
            if (was, former) != (name, pool) and former in old.get(was, {}):
                pools[name, pool] = was, former
    by_address: dict[str, list[str]] = {}
    for id, address in before.items():
        by_address.setdefault(address, []).append(id)
    targets: dict[str, tuple[str, ...]] = {}
    twins: dict[str, tuple[str, ...]] = {}
    for id in fresh:
        alike = by_address.get(after[id], [])
        gone = sorted((one for one in alike if one not in after), key=lambda one: _distance(id, one, services, pools))
        stay = sorted(one for one in alike if one in after)
        if gone:
            targets[id] = tuple(gone)
        if stay:
            twins[id] = tuple(stay)
    return Renames(services, pools, targets, twins)


def _ids(layout: Layout) -> dict[str, str]:
    """Target id → address."""
    return {
        f"{service}/{pool}/{address}": address
        for service, pools in layout.items()
        for pool, addresses in pools.items()
        for address in addresses
    }


def _matched(old: Mapping[str, Hashable], new: Mapping[str, Hashable]) -> dict[str, str]:
    """New name → old name, where the old one is gone, the new one is new, and no other one has the same content."""
    was = _alone(old)
    return {
        name: was[content]
        for content, name in _alone(new).items()
        if name not in old and content in was and was[content] not in new
    }


def _alone(contents: Mapping[str, Hashable]) -> dict[Hashable, str]:
    """Content → name, of contents that only one name has."""
    names_by_content: dict[Hashable, list[str]] = {}
    for name, content in contents.items():
        if content:
            names_by_content.setdefault(content, []).append(name)
    return {content: names[0] for content, names in names_by_content.items() if len(names) == 1}


def _distance(
    new: str, old: str, services: Mapping[str, str], pools: Mapping[Place, Place]
) -> tuple[bool, bool, bool, str]:
    """How far an old target is from a new one of the same address; the smallest comes first."""
    service, pool, _ = split_id(new)
    old_service, old_pool, _ = split_id(old)
    return (
        pools.get((service, pool), (service, pool)) != (old_service, old_pool),
        services.get(service, service) != old_service,
        pool != old_pool,
        old,
    )
