"""Which TLS files and files of steps were renewed in place from one world to another. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lb.config.changes import Change, of_some
from lb.config.resolve import World
from lb.config.tls_values import paths_of, plain
from lb.core.certificates import TlsServer
from lb.core.step_files import step_files
from lb.core.targets import TlsClient

#: Files that one sentence names; of more it names two.
MOST_NAMES = 6


def renewed(before: World, after: World) -> Iterator[Change]:
    """Files that were renewed in place, as far as nothing else about a listener or target's TLS has changed."""
    old = {listener.bind: listener.tls for listener in before.snapshot.listeners}
    for listener in after.snapshot.listeners:
        was = old.get(listener.bind)
        if listener.tls is not None and was is not None and was != listener.tls and plain(was) == plain(listener.tls):
            for text in _of_listener(was, listener.tls):
                yield Change("change", f"listener {listener.bind}", text, "listener", field="tls")
    before_files = step_files(before.snapshot)
    for path, digest in step_files(after.snapshot).items():
        if before_files.get(path, digest) != digest:
            yield Change("change", path, "renewed, for new requests")
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


def _of_listener(was: TlsServer, now: TlsServer) -> Iterator[str]:
    """What has changed of a listener's files, in sentences."""
    old = {(each.cert_file, each.key_file): each for each in was.certificates}
    new = {(each.cert_file, each.key_file): each for each in now.certificates}
    files = [
        path
        for pair, each in new.items()
        if pair in old
        for path, before, after in zip(pair, old[pair].digests, each.digests, strict=False)
        if before != after
    ]
    for former, client in zip(was.clients(), now.clients(), strict=True):
        pairs = zip((client.ca_file, client.crl_file), former.digests, client.digests, strict=False)
        files += [path for path, before, after in pairs if before != after]
    if files:
        yield f"{_some(list(dict.fromkeys(files)))} renewed, for new connections"
    if added := [cert for cert, key in new if (cert, key) not in old]:
        yield f"{_some(added)} added, for new connections"
    if gone := [cert for cert, key in old if (cert, key) not in new]:
        yield f"{_some(gone)} is gone, for new connections" if len(gone) == 1 else f"{_some(gone)} are gone"


def _some(names: list[str]) -> str:
    """The first names of a list, and how many there are beside."""
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _only_contents(old: TlsClient, new: TlsClient) -> bool:
    return old != new and replace(old, digests=()) == replace(new, digests=())


def _changed(old: TlsClient, new: TlsClient) -> list[str]:
    """The files whose contents differ."""
    names = [name or "the system's authorities" for name in paths_of(new)]
    pairs = zip(names, old.digests, new.digests, strict=False)
    return [name for name, before, after in pairs if before != after]
