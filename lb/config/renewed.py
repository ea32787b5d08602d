"""Which TLS files were renewed in place from one world to another. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lb.config.changes import Change, of_some
from lb.config.resolve import World
from lb.config.tls_values import paths_of
from lb.core.targets import TlsClient, TlsServer


def renewed(before: World, after: World) -> Iterator[Change]:
    """Files that were renewed in place, as far as nothing else about a listener or target's TLS has changed."""
    old = {listener.bind: listener.tls for listener in before.snapshot.listeners}
    for listener in after.snapshot.listeners:
        was = old.get(listener.bind)
        if listener.tls is not None and was is not None and _only_contents(was, listener.tls):
            files = ", ".join(_changed(was, listener.tls))
            yield Change(
                "change", f"listener {listener.bind}", f"{files} renewed, for new connections", "listener", field="tls"
            )
    groups: dict[tuple[str, str], list[str]] = {}
    for id, target in after.targets.items():
        former = before.targets.get(id)
        if former is not None and former.tls and target.tls and _only_contents(former.tls, target.tls):
            key = (f"{target.service}/{target.pool}", ", ".join(_changed(former.tls, target.tls)))
            groups.setdefault(key, []).append(id)
    for (_, files), ids in groups.items():
        yield of_some(ids, f"{files} renewed, for new connections once the check has passed with it", "tls")
    checks = {name for id in after.checks if id in before.checks for name in _renewed_of_checks(before, after, id)}
    for name in sorted(checks - {name for _, names in groups for name in names.split(", ")}):
        yield Change("change", name, "renewed, for checks")


def _renewed_of_checks(before: World, after: World, id: str) -> Iterator[str]:
    old, new = before.checks[id], after.checks[id]
    for was, now in ((old.readiness, new.readiness), (old.liveness, new.liveness)):
        if was is not None and now is not None and was.tls and now.tls and _only_contents(was.tls, now.tls):
            yield from _changed(was.tls, now.tls)


def _only_contents(old: TlsClient | TlsServer, new: TlsClient | TlsServer) -> bool:
    return old != new and replace(old, digests=()) == replace(new, digests=())


def _changed(old: TlsClient | TlsServer, new: TlsClient | TlsServer) -> list[str]:
    """The files whose contents differ."""
    names = [name or "the system's authorities" for name in paths_of(new)]
    pairs = zip(names, old.digests, new.digests, strict=False)
    return [name for name, before, after in pairs if before != after]
