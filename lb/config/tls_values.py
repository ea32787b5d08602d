"""TLS settings and files of steps as parts of a `World`: which there are, and the same world with other ones. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lb.config.resolve import World
from lb.core.certificates import ClientAuth, TlsServer, digests_of
from lb.core.checks import Checks, CheckSpec
from lb.core.step_files import step_digests, with_step_files
from lb.core.targets import Service, Snapshot, Target, TlsClient


def clients(world: World) -> set[TlsClient]:
    """The TLS settings of targets and checks, also of targets that are yet to be found."""
    checks = [spec for each in world.checks.values() for spec in (each.readiness, each.liveness) if spec is not None]
    used = {tls for tls in (*(t.tls for t in world.targets.values()), *(c.tls for c in checks)) if tls is not None}
    return used.union(world.found_tls.values())


def servers(world: World) -> set[TlsServer]:
    """The TLS settings of listeners."""
    return {listener.tls for listener in world.snapshot.listeners if listener.tls is not None}


def paths_of(tls: TlsClient) -> tuple[str, str, str]:
    """Of the authorities, the certificate and the key; empty: none is named."""
    return tls.ca_file, tls.cert_file, tls.key_file


def tls_paths(world: World) -> list[str]:
    """Every TLS file that targets and checks name, and the files of the admin port."""
    admin = world.config.admin
    own = [file for _, file in admin.token_files()]
    own += [admin.tls.cert_file, admin.tls.key_file] if admin.tls is not None else []
    return sorted({path for path in (*own, *(path for tls in clients(world) for path in paths_of(tls))) if path})


def server_paths(world: World) -> list[str]:
    """Every TLS file of listeners, and the directories that have certificates for them."""
    found: set[str] = set()
    for tls in servers(world):
        found.update(path for client in tls.clients() for path in (client.ca_file, client.crl_file))
        for source in tls.sources:
            found.update((source.cert_file, source.key_file, source.directory, *source.stored))
        found.update(path for each in tls.certificates for path in (each.cert_file, each.key_file))
    return sorted(found - {""})


def served_certificates(world: World) -> frozenset[tuple[str, str]]:
    """The pairs of files whose certificates the world's listeners serve."""
    return frozenset(
        (each.cert_file, each.key_file) for tls in servers(world) for each in tls.certificates if each.not_after
    )


def digests(world: World) -> set[str]:
    """Of the contents of all TLS files that the world uses."""
    found = {digest for tls in clients(world) for digest in tls.digests}
    return found.union(*(digests_of(tls) for tls in servers(world)), step_digests(world.snapshot))


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


def with_settings(
    world: World, client: Callable[[TlsClient], TlsClient], server: Callable[[TlsServer], TlsServer]
) -> World:
    """The world with other TLS settings of its targets, checks and listeners."""

    def of_check(spec: CheckSpec) -> CheckSpec:
        return spec if spec.tls is None else replace(spec, tls=client(spec.tls))

    def of_checks(checks: Checks) -> Checks:
        readiness, liveness = of_check(checks.readiness), checks.liveness and of_check(checks.liveness)
        if readiness is checks.readiness and liveness is checks.liveness:
            return checks
        return replace(checks, readiness=readiness, liveness=liveness)

    snapshot = with_tls(world.snapshot, lambda target: target.tls and client(target.tls))
    listeners = tuple(replace(each, tls=server(each.tls)) if each.tls else each for each in snapshot.listeners)
    targets = {target.id: target for service in snapshot.services for pool in service.pools for target in pool.targets}
    return replace(
        world,
        snapshot=replace(snapshot, listeners=listeners),
        checks={id: of_checks(checks) for id, checks in world.checks.items()},
        targets=targets,
        found_tls={plain: client(tls) for plain, tls in world.found_tls.items()},
    )


def without_contents(world: World) -> World:
    """The world by the names of its files alone, whatever the files hold."""
    if step_digests(world.snapshot):
        world = replace(world, snapshot=with_step_files(world.snapshot, lambda path: ""))
    if not any(tls.digests for tls in clients(world)) and not any(map(digests_of, servers(world))):
        return world
    return with_settings(world, lambda tls: replace(tls, digests=()), plain)


def plain(tls: TlsServer) -> TlsServer:
    """A listener's TLS by the names of its files alone."""
    return with_clients(replace(tls, certificates=()), lambda client: replace(client, digests=()))


def with_clients(tls: TlsServer, change: Callable[[ClientAuth], ClientAuth]) -> TlsServer:
    """A listener's TLS with another verification of clients, its own and its sources'."""
    sources = (
        source if source.client is None else replace(source, client=change(source.client)) for source in tls.sources
    )
    return replace(tls, client=change(tls.client), sources=tuple(sources))
