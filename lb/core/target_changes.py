"""The difference between two snapshots where it is one of targets or listeners' certificates alone, and a snapshot with
such a difference. Pure.

Examples are a certificate that passed its check or was renewed, replaced targets that are needed no more, and an edited
list of targets. Each changes a few parts of a snapshot that may hold thousands. Workers are told these few. Anything
else takes the whole snapshot: settings, listeners, routes, pools that come or go, and targets that have another name
now, since their lanes move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from lb.core.renames import split_id
from lb.core.targets import Listener, Pool, Rotation, Service, Snapshot, Target, Targets


def target_changes(before: Snapshot, after: Snapshot) -> Targets | None:
    """The change from `before` to `after`; None: that takes a snapshot, or no target has changed at all."""
    if _without_targets(before) != _without_targets(after):
        return None
    old, new = _targets(before.services), _targets(after.services)
    changed = tuple(target for id, target in new.items() if old.get(id) != target)
    removed = tuple(id for id in old if id not in new)
    listeners = tuple(each for each in after.listeners if each not in before.listeners)
    if not changed and not removed and not listeners:
        return None
    gone = {split_id(id)[2] for id in removed}
    if any(target.id not in old and split_id(target.id)[2] in gone for target in changed):
        return None  # it has moved
    loses = {split_id(id)[0] for id in removed}
    former = {rotation.service: rotation for rotation in before.rotations}
    rotations = (new for new in after.rotations if new.service in loses or _differs(former.get(new.service), new))
    # Workers keep the contents that their targets need. Contents that only a listener has needed have to be sent.
    needed = _digests(changed) - _digests(old.values()) | _of_listeners(listeners) - _of_listeners(before.listeners)
    files = (file for file in after.files if file[0] in needed)
    return Targets(after.version, changed, removed, tuple(rotations), tuple(files), listeners)


def with_targets(snapshot: Snapshot, targets: Targets) -> Snapshot:
    """The snapshot with these changes; its version stays. A target of an unknown pool is skipped."""
    changed = {target.id: target for target in targets.changed}
    added: dict[tuple[str, str], list[Target]] = {}
    stored = _targets(snapshot.services)
    for target in targets.changed:
        if target.id not in stored:
            added.setdefault((target.service, target.pool), []).append(target)
    places = {split_id(id)[:2] for id in (*changed, *targets.removed)}

    def pool(service: Service, pool: Pool) -> Pool:
        if (service.name, pool.name) not in places:
            return pool
        stay = (changed.get(target.id, target) for target in pool.targets if target.id not in targets.removed)
        return replace(pool, targets=(*stay, *added.get((service.name, pool.name), ())))

    touched = {service for service, _ in places}
    services = (
        replace(service, pools=tuple(pool(service, each) for each in service.pools))
        if service.name in touched
        else service
        for service in snapshot.services
    )
    rotations = {rotation.service: rotation for rotation in (*snapshot.rotations, *targets.rotations)}
    files = {**dict(snapshot.files), **dict(targets.files)}
    renewed = {listener.bind: listener for listener in targets.listeners}
    return replace(
        snapshot,
        listeners=tuple(renewed.get(listener.bind, listener) for listener in snapshot.listeners),
        services=tuple(services),
        rotations=tuple(rotations.values()),
        files=tuple(files.items()),
    )


def with_addresses(snapshot: Snapshot, addresses: Mapping[str, tuple[str, ...]]) -> Snapshot:
    """The snapshot with the addresses of targets that are given by name, by target id."""
    if not addresses:
        return snapshot
    stored = _targets(snapshot.services)
    named = ((stored[id], each) for id, each in addresses.items() if id in stored)
    return with_targets(snapshot, Targets(snapshot.version, tuple(replace(t, addresses=each) for t, each in named)))


def _without_targets(snapshot: Snapshot) -> Snapshot:
    """The snapshot without the parts that a `Targets` can change."""
    services = (
        replace(service, pools=tuple(Pool(pool.name, ()) for pool in service.pools)) for service in snapshot.services
    )
    listeners = (
        replace(listener, tls=replace(listener.tls, certificates=())) if listener.tls is not None else listener
        for listener in snapshot.listeners
    )
    return replace(snapshot, version=0, listeners=tuple(listeners), services=tuple(services), rotations=(), files=())


def _targets(services: Iterable[Service]) -> dict[str, Target]:
    return {target.id: target for service in services for pool in service.pools for target in pool.targets}


def _digests(targets: Iterable[Target]) -> set[str]:
    """Of the contents of the TLS files that requests to these targets need."""
    return {digest for tls in {target.tls for target in targets} if tls is not None for digest in tls.digests}


def _of_listeners(listeners: Iterable[Listener]) -> set[str]:
    """Of the contents of listeners' certificates and keys."""
    return {
        digest
        for listener in listeners
        if listener.tls is not None
        for certificate in listener.tls.certificates
        for digest in certificate.digests
    }


def _differs(old: Rotation | None, new: Rotation) -> bool:
    return old is None or replace(old, version=new.version) != new
