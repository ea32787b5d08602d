"""The contents of the TLS files that a configuration names, as part of what it resolves to.

A certificate or authority that is renewed in place leaves the text of the configuration as it was. So the contents are
read with each load, digests of them become part of the resolved values, and a reload sees what was renewed.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lb.config.diff import Change
from lb.config.model.config import Config
from lb.config.resolve import World, resolve
from lb.config.yaml.problems import ConfigError, Problem
from lb.core.checks import Checks, CheckSpec
from lb.core.targets import Service, Snapshot, Target, TlsClient, TlsServer
from lb.net import tls as contexts

#: Bytes of one file that are read at most. The largest bundles of authorities have a quarter of a MiB.
LARGEST = 4 << 20


def load_world(config: Config) -> World:
    """What `config` resolves to, with the contents of its TLS files as they are now. Blocks.

    A file that cannot be read is left to be opened when it is needed: loading has refused it already, or it has gone
    since.
    """
    reading = _Reading()
    world = resolve(config, 0)
    snapshot = with_tls(world.snapshot, lambda target: reading.client(target.tls))
    listeners = tuple(replace(each, tls=reading.server(each.tls)) if each.tls else each for each in snapshot.listeners)
    targets = {target.id: target for service in snapshot.services for pool in service.pools for target in pool.targets}
    return replace(
        world,
        snapshot=replace(snapshot, listeners=listeners),
        checks={id: _with_digests(checks, reading) for id, checks in world.checks.items()},
        targets=targets,
        files=reading.files,
    )


def with_tls(snapshot: Snapshot, tls_of: Callable[[Target], TlsClient | None]) -> Snapshot:
    """The snapshot with other TLS settings of its targets."""

    def changed(service: Service) -> Service:
        if not any(target.tls != tls_of(target) for pool in service.pools for target in pool.targets):
            return service
        pools = (
            replace(pool, targets=tuple(replace(target, tls=tls_of(target)) for target in pool.targets))
            for pool in service.pools
        )
        return replace(service, pools=tuple(pools))

    return replace(snapshot, services=tuple(changed(service) for service in snapshot.services))


def tls_paths(world: World) -> list[str]:
    """Every TLS file that the configuration names."""
    settings: list[TlsClient | TlsServer] = [*_clients(world), *_servers(world)]
    return sorted({path for tls in settings for path in _paths(tls) if path})


def digests(world: World) -> set[str]:
    """Of the contents of all TLS files that the world uses."""
    settings: list[TlsClient | TlsServer] = [*_clients(world), *_servers(world)]
    return {digest for tls in settings for digest in tls.digests}


def check_renewed(before: World, after: World, file: str) -> None:
    """Raise `ConfigError` where contents that are new cannot be used: they may have changed since they were checked."""
    try:
        for server in _servers(after) - _servers(before):
            contexts.server_context(server, after.files)
        for client in _clients(after) - _clients(before):
            contexts.client_context(client, (), after.files)
    except (OSError, ValueError) as error:
        reason = contexts.in_words(contexts.openssl_reason(error))
        text = f"a TLS file changed while it was read, and cannot be used: {reason}"
        raise ConfigError([Problem(file, 0, 0, text, hint="Reload again when all files are in place.")]) from None


def renewed(before: World, after: World) -> Iterator[Change]:
    """Files that were renewed in place, as far as nothing else about a listener or target's TLS has changed."""
    old = {listener.bind: listener.tls for listener in before.snapshot.listeners}
    for listener in after.snapshot.listeners:
        was = old.get(listener.bind)
        if listener.tls is not None and was is not None and _only_contents(was, listener.tls):
            files = ", ".join(_changed(was, listener.tls))
            yield Change("change", f"listener {listener.bind}", f"{files} renewed, for new connections")
    groups: dict[tuple[str, str], list[str]] = {}
    for id, target in after.targets.items():
        former = before.targets.get(id)
        if former is not None and former.tls and target.tls and _only_contents(former.tls, target.tls):
            key = (f"{target.service}/{target.pool}", ", ".join(_changed(former.tls, target.tls)))
            groups.setdefault(key, []).append(id)
    for (pool, files), ids in groups.items():
        subject = ids[0] if len(ids) == 1 else f"{len(ids)} targets of {pool}"
        yield Change("change", subject, f"{files} renewed, for new connections once the check has passed with it")
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
    names = [name or "the system's authorities" for name in _paths(new)]
    pairs = zip(names, old.digests, new.digests, strict=False)
    return [name for name, before, after in pairs if before != after]


def _paths(tls: TlsClient | TlsServer) -> tuple[str, str, str]:
    ca = tls.ca_file if isinstance(tls, TlsClient) else tls.client_ca_file
    return ca, tls.cert_file, tls.key_file


def _clients(world: World) -> set[TlsClient]:
    checks = [spec for each in world.checks.values() for spec in (each.readiness, each.liveness) if spec is not None]
    return {tls for tls in (*(t.tls for t in world.targets.values()), *(c.tls for c in checks)) if tls is not None}


def _servers(world: World) -> set[TlsServer]:
    return {listener.tls for listener in world.snapshot.listeners if listener.tls is not None}


def _with_digests(checks: Checks, reading: _Reading) -> Checks:
    def changed(spec: CheckSpec | None) -> CheckSpec | None:
        return replace(spec, tls=reading.client(spec.tls)) if spec is not None and spec.tls is not None else spec

    readiness = changed(checks.readiness)
    assert readiness is not None
    return replace(checks, readiness=readiness, liveness=changed(checks.liveness))


class _Reading:
    """One reading of all files: each is read once, however many settings name it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}  # by digest
        self._digests: dict[str, str] = {}  # by path
        self._clients: dict[TlsClient, TlsClient] = {}

    def client(self, tls: TlsClient | None) -> TlsClient | None:
        if tls is None:
            return None
        known = self._clients.get(tls)
        if known is None:
            ca = self._digest(tls.ca_file) if tls.ca_file else _stamp_of_system() if tls.verify else ""
            pair = self._digest(tls.cert_file), self._digest(tls.key_file)
            known = self._clients[tls] = replace(tls, digests=(ca, *pair))
        return known

    def server(self, tls: TlsServer) -> TlsServer:
        digests = tuple(self._digest(path) for path in _paths(tls))
        return replace(tls, digests=digests)

    def _digest(self, path: str) -> str:
        if not path:
            return ""
        if path not in self._digests:
            try:
                with Path(path).open("rb") as stream:
                    data = stream.read(LARGEST + 1)
            except OSError:
                data = b""
            digest = hashlib.sha256(data).hexdigest()[:32] if data and len(data) <= LARGEST else ""
            self._digests[path] = digest
            if digest:
                self.files[digest] = data
        return self._digests[path]


def _stamp_of_system() -> str:
    """Changes when the system's bundle of authorities does. Its contents are too large to be sent around."""
    bundle = ssl.get_default_verify_paths().cafile
    if bundle is None:
        return ""
    try:
        found = Path(bundle).stat()
    except OSError:
        return ""
    return f"{bundle}:{found.st_mtime_ns}:{found.st_size}"
