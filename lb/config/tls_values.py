"""TLS settings as parts of a `World`: which there are, and the same world with other ones. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lb.config.resolve import World
from lb.core.checks import Checks, CheckSpec
from lb.core.targets import Service, Snapshot, Target, TlsClient, TlsServer


def clients(world: World) -> set[TlsClient]:
    """The TLS settings of targets and checks."""
    checks = [spec for each in world.checks.values() for spec in (each.readiness, each.liveness) if spec is not None]
    return {tls for tls in (*(t.tls for t in world.targets.values()), *(c.tls for c in checks)) if tls is not None}


def servers(world: World) -> set[TlsServer]:
    """The TLS settings of listeners."""
    return {listener.tls for listener in world.snapshot.listeners if listener.tls is not None}


def paths_of(tls: TlsClient | TlsServer) -> tuple[str, str, str]:
    """Of the authorities, the certificate and the key; empty: none is named."""
    ca = tls.ca_file if isinstance(tls, TlsClient) else tls.client_ca_file
    return ca, tls.cert_file, tls.key_file


def tls_paths(world: World) -> list[str]:
    """Every TLS file that the configuration names."""
    settings: list[TlsClient | TlsServer] = [*clients(world), *servers(world)]
    return sorted({path for tls in settings for path in paths_of(tls) if path})


def digests(world: World) -> set[str]:
    """Of the contents of all TLS files that the world uses."""
    settings: list[TlsClient | TlsServer] = [*clients(world), *servers(world)]
    return {digest for tls in settings for digest in tls.digests}


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
    )


def without_contents(world: World) -> World:
    """The world by the names of TLS files alone, whatever the files hold."""
    if not any(tls.digests for tls in clients(world)) and not any(tls.digests for tls in servers(world)):
        return world
    return with_settings(world, lambda tls: replace(tls, digests=()), lambda tls: replace(tls, digests=()))
