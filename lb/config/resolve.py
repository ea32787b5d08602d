"""A `Config` → what the rest of the program works on: core values, every default filled in, every shorthand gone.

Outside its scope: health, shares, overrides. A snapshot made here has no rotations; they come from what is known of the
targets (`core.rotation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from lb.config.certificate_sources import acme_file, certificate_id, internal_file
from lb.config.model import config as model
from lb.config.model.addresses import parse_bind, parse_target
from lb.config.model.merging import liveness_of, readiness_of
from lb.core.certificates import OFF, ClientAuth, Source, TlsServer
from lb.core.checks import Checks, CheckSpec, Expect, OnFailure
from lb.core.detection import Detection, detection
from lb.core.error_pages import ErrorPage, ErrorPages, parse_statuses
from lb.core.lifecycle import Damping, Ejection, Rules, SlowStart
from lb.core.outlier import Outlier
from lb.core.renames import Place
from lb.core.rollout import Bake, Plan, Thresholds
from lb.core.rotation import Panic, ServiceRules, rules_of
from lb.core.targets import (
    AccessLog,
    Affinity,
    Balance,
    Breaker,
    Listener,
    Mirror,
    Pool,
    Preview,
    Retries,
    Route,
    Service,
    Snapshot,
    Sticky,
    Target,
    Timeouts,
    TlsClient,
)

#: The name of this machine, whose internal certificate is for its loopback addresses as well.
LOCALHOST = "localhost"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a pool, and how it is checked."""

    target: Target
    checks: Checks
    replaced: bool = False  # the file no longer has it: it serves until the new ones can


@dataclass(frozen=True, slots=True)
class UnusablePair:
    """A certificate of a listener that cannot be served as it is on the disk; or authorities of its clients, or a
    directory."""

    cert_file: str
    key_file: str
    reason: str
    kept: bool  # what was read before is in force still

    def __str__(self) -> str:
        return f"{self.reason}; {'the former one stays in force' if self.kept else 'it is not served'}"


@dataclass(frozen=True, slots=True)
class World:
    """One version of everything that follows from the file alone."""

    snapshot: Snapshot  # without rotations
    checks: dict[str, Checks]  # by target id
    rules: dict[str, ServiceRules]  # by service
    detections: dict[str, Detection]  # by service: of its slowest check; absent when some target has no check
    mirrors: dict[str, Mirror]  # by service; only services that have one
    canary: tuple[Target, CheckSpec] | None  # probed to tell the targets' trouble from our own
    targets: dict[str, Target]  # by id
    config: model.Config  # admin, state_dir, workers, drain and other plain settings are read from here
    files: dict[str, bytes] = field(default_factory=dict, repr=False)  # TLS files by digest, see `tls_files`
    unusable: tuple[UnusablePair, ...] = ()  # certificates on the disk that are not served
    found_checks: Mapping[Place, Checks] = field(default_factory=dict)  # of targets that are yet to be found, by pool
    #: TLS settings that found targets may have, as the file gives them → with the digests of their files.
    found_tls: Mapping[TlsClient, TlsClient] = field(default_factory=dict)

    def actives(self) -> dict[str, str]:
        """Service → the pool that is active by the file."""
        return {name: service.first_active() for name, service in self.config.services.items()}

    def endpoints(self, service: str, pool: str) -> tuple[Endpoint, ...]:
        """The endpoints of a pool. Raises KeyError when there is no such pool."""
        found = {(each.name, one.name): one for each in self.snapshot.services for one in each.pools}[service, pool]
        return tuple(Endpoint(each, self.checks[each.id], each.id in found.replaced) for each in found.targets)

    def with_endpoints(self, service: str, pool: str, endpoints: Iterable[Endpoint]) -> World:
        """The world in which a pool has these endpoints instead of its own. `config` stays as the file has it.

        A replaced endpoint adds nothing to the detection times, which are about the endpoints that stay.
        """
        wanted = tuple(endpoints)
        targets = tuple(each.target for each in wanted)
        former = {each.target.id for each in self.endpoints(service, pool)}
        checks = {id: each for id, each in self.checks.items() if id not in former}
        checks |= {each.target.id: each.checks for each in wanted}
        made = Pool(pool, targets, tuple(each.target.id for each in wanted if each.replaced))

        def changed(known: Service) -> Service:
            if known.name != service:
                return known
            return replace(known, pools=tuple(made if each.name == pool else each for each in known.pools))

        services = tuple(changed(known) for known in self.snapshot.services)
        return replace(
            self,
            snapshot=replace(self.snapshot, services=services),
            checks=checks,
            targets={target.id: target for each in services for known in each.pools for target in known.targets},
            detections=_detections(services, checks, self.found_checks),
        )

    def pool(self, service: str, pool: str) -> Pool:
        """Raises KeyError when there is no such pool."""
        found = [one for each in self.snapshot.services if each.name == service for one in each.pools]
        return {each.name: each for each in found}[pool]

    def with_changed(
        self, service: str, pool: str, ids: Iterable[str], changed: Iterable[Endpoint], removed: Iterable[str]
    ) -> World:
        """As `with_endpoints`, where most endpoints stay. `ids`: of all endpoints of the pool, in their order.

        The detection times stay as well: the changed endpoints are checked as ones that are yet to be found.
        """
        checks, targets = dict(self.checks), dict(self.targets)
        for id in removed:
            del checks[id], targets[id]
        for each in changed:
            checks[each.target.id], targets[each.target.id] = each.checks, each.target
        made = Pool(pool, tuple(map(targets.__getitem__, ids)))
        services = tuple(
            replace(known, pools=tuple(made if each.name == pool else each for each in known.pools))
            if known.name == service
            else known
            for known in self.snapshot.services
        )
        return replace(self, snapshot=replace(self.snapshot, services=services), checks=checks, targets=targets)

    def rules_of(self, id: str) -> Rules:
        """The rules of one target's health."""
        return rules_of(self.rules[self.targets[id].service], self.checks[id].readiness)

    def target_rules(self) -> dict[str, Rules]:
        """The rules of each target's health, by its id."""
        return {
            id: rules_of(self.rules[target.service], self.checks[id].readiness) for id, target in self.targets.items()
        }


def resolve(config: model.Config, version: int) -> World:
    services = tuple(_service(name, service) for name, service in config.services.items())
    targets = {target.id: target for service in services for pool in service.pools for target in pool.targets}
    checks: dict[str, Checks] = {}
    found_checks, found_tls = _yet_to_be_found(config)
    for name, service in config.services.items():
        for pool_name, pool in service.pools.items():
            for target in pool.targets:
                known = targets[target_id(name, pool_name, target.url)]
                checks[known.id] = _checks(service, pool, target, known)
    return World(
        snapshot=Snapshot(
            version=version,
            listeners=tuple(_listener(listener, config) for listener in config.listeners),
            services=services,
            routes=tuple(_route(route) for route in config.route_list()),
            trusted_proxies=tuple(config.trusted_proxies),
            access_log=AccessLog(config.access_log.format, config.access_log.path, config.access_log.sample),
            orphan=config.worker_limits.orphan,
            error_pages=_error_pages(config.error_pages),
        ),
        checks=checks,
        rules={name: _rules(service) for name, service in config.services.items()},
        detections=_detections(services, checks, found_checks),
        mirrors={name: mirror for name, service in config.services.items() if (mirror := _mirror(service))},
        canary=_canary(config.canary) if config.canary else None,
        targets=targets,
        config=config,
        found_checks=found_checks,
        found_tls={tls: tls for tls in found_tls},
    )


def endpoint(config: model.Config, service: str, pool: str, target: model.Target) -> Endpoint:
    """A target that the pool of the file does not name."""
    of_service = config.services[service]
    made = _target(service, pool, of_service, target)
    return Endpoint(made, _checks(of_service, of_service.pools[pool], target, made))


def _yet_to_be_found(config: model.Config) -> tuple[dict[Place, Checks], set[TlsClient]]:
    """The checks of targets that are yet to be found, by pool, and the TLS settings that these targets may have."""
    found_checks: dict[Place, Checks] = {}
    settings: set[TlsClient | None] = set()
    for name, service in config.services.items():
        for pool in (pool for pool, each in service.pools.items() if each.discover is not None):
            for url in ("https://192.0.2.1:443", "http://192.0.2.1:80"):  # examples; nothing is sent to them
                example = endpoint(config, name, pool, model.Target.model_construct(url=url))
                checks = found_checks[name, pool] = example.checks
                settings |= {example.target.tls, checks.readiness.tls, checks.liveness.tls if checks.liveness else None}
    return found_checks, {tls for tls in settings if tls is not None}


def _detections(
    services: tuple[Service, ...], checks: dict[str, Checks], found_checks: Mapping[Place, Checks]
) -> dict[str, Detection]:
    slowest: dict[str, Detection] = {}
    for service in services:
        targets = (target for pool in service.pools for target in pool.targets if target.id not in pool.replaced)
        specs = {checks[target.id].readiness for target in targets}
        specs |= {each.readiness for (name, _), each in found_checks.items() if name == service.name}
        found = [one for spec in specs if (one := detection(spec)) is not None]
        if found and len(found) == len(specs):
            slowest[service.name] = max(found, key=lambda one: one.worst)
    return slowest


def target_id(service: str, pool: str, url: str) -> str:
    """`service/pool/host:port`, its one name everywhere."""
    return f"{service}/{pool}/{parse_target(url).text}"


# --- listeners -------------------------------------------------------------------------------------------------------


def _listener(listener: model.Listener, config: model.Config) -> Listener:
    tls, hsts = listener.tls, listener.hsts
    timeouts, limits = listener.timeouts, listener.limits
    protocols = listener.spoken()
    return Listener(
        bind=listener.bind,
        tls=replace(_server_tls(tls, config), alpn=protocols) if tls else None,
        proxy_protocol=tuple(listener.proxy_protocol),
        header_timeout=timeouts.header,
        body_timeout=timeouts.body,
        idle_timeout=timeouts.idle,
        send_timeout=timeouts.send,
        half_close=timeouts.half_close,
        request_line=limits.request_line,
        header_block=limits.header_block,
        header_count=limits.header_count,
        connections=limits.connections,
        connections_per_client=limits.connections_per_client,
        requests_per_connection=limits.requests_per_connection,
        redirect=_redirect(listener, config.listeners),
        hsts=hsts.value() if hsts else "",
        http1="http/1.1" in protocols,
        http2="h2" in protocols or "h2c" in protocols,
    )


def _redirect(listener: model.Listener, all_of_them: Sequence[model.Listener]) -> str:
    """The bind whose port a redirect goes to; empty: the listener does not redirect."""
    if listener.redirect is None:
        return ""
    if listener.redirect.to_port is not None:
        return f":{listener.redirect.to_port}"
    return next((each.bind for each in https_listeners(listener, all_of_them)), ":443")


def https_listeners(listener: model.Listener, all_of_them: Sequence[model.Listener]) -> list[model.Listener]:
    """The listeners with TLS that a redirect may go to, the best one first: at the same address, then in the order of
    the file."""
    host = parse_bind(listener.bind).host
    secure = [each for each in all_of_them if each.tls is not None and not parse_bind(each.bind).unix]
    return sorted(secure, key=lambda each: parse_bind(each.bind).host != host)


def _server_tls(tls: model.ServerTls, config: model.Config) -> TlsServer:
    clients = tls.client_auths()
    fields = {name: kind for client in clients if client.mode != OFF for name, kind in client.fields.items()}
    return TlsServer(
        sources=tuple(_source(source, config) for source in tls.sources()),
        default=tls.default,
        strict_sni=tls.strict_sni,
        min_version=tls.min_version,
        client=_client_auth(clients[0]),
        client_fields=tuple(fields.items()),
    )


def _client_auth(client: model.ClientAuth) -> ClientAuth:
    if client.mode == OFF:
        return ClientAuth()
    return ClientAuth(client.mode, client.ca_file or "", client.crl_file or "")


def _source(source: model.CertificateSource, config: model.Config) -> Source:
    names = tuple(source.names)
    stored: Iterable[FilePath] = ()
    if source.acme is not None and source.acme in config.acme:
        entry = config.acme[source.acme]
        ids = (certificate_id((name,), entry.directory, entry.profile) for name in names)
        stored = (acme_file(config.state_dir, id) for id in ids)
    elif source.authority is not None:
        names = names or internal_names(config)
        stored = (internal_file(config.state_dir, name) for name in names)
    return Source(
        cert_file=source.cert_file or "",
        key_file=source.key_file or "",
        directory=source.directory or "",
        acme=source.acme or "",
        internal=source.authority == "internal",
        names=names,
        stored=tuple(map(str, stored)),
        min_version=source.min_version or "",
        client=_client_auth(source.client) if source.client is not None else None,
    )


def internal_names(config: model.Config) -> tuple[str, ...]:
    """The names that lb's own authority vouches for where the file names none: this machine, and the routes' hosts."""
    return tuple(dict.fromkeys((LOCALHOST, *(host for route in config.routes if (host := route.for_host())))))


def _route(route: model.Route) -> Route:
    kind, path = route.for_path()
    return Route(
        service=route.service or "",
        host=route.for_host(),
        path=path,
        max_body=route.max_body,
        max_response=route.max_response,
        total=route.timeout,
        client_certificate=route.client_certificate,
        grpc_web=route.grpc_web,
        steps=tuple(step.rule() for step in route.steps),
        redirect=route.redirect.value() if route.redirect is not None else None,
        answer=route.answer.value() if route.answer is not None else None,
        kind=kind,
        match=route.conditions(),
        name=route.name or "",
        split=tuple((route.split or {}).items()),
        split_by=route.split_by or "",
        fallback=route.fallback or "",
        error_pages=_error_pages(route.error_pages),
    )


def _error_pages(files: Mapping[str, str] | None) -> ErrorPages | None:
    if files is None:
        return None
    return ErrorPages(tuple(ErrorPage(*parse_statuses(key), file) for key, file in files.items()))


# --- services --------------------------------------------------------------------------------------------------------


def _service(name: str, service: model.Service) -> Service:
    retries, timeouts, breaker = service.retries, service.timeouts, service.breaker
    return Service(
        name=name,
        pools=tuple(
            Pool(pool_name, tuple(_target(name, pool_name, service, target) for target in pool.targets))
            for pool_name, pool in service.pools.items()
        ),
        balance=Balance(service.balance.policy, service.balance.key),
        retries=Retries(
            attempts=retries.attempts,
            budget=retries.budget,
            budget_floor=retries.budget_floor,
            statuses=tuple(retries.statuses),
            per_try=retries.per_try,
            replay=retries.replay,
        ),
        timeouts=Timeouts(
            queue=timeouts.queue,
            connect=timeouts.connect,
            send=timeouts.send,
            response=timeouts.response,
            read=timeouts.read,
            total=timeouts.total,
            tunnel=timeouts.tunnel,
            idle=timeouts.idle,
            lifetime=timeouts.lifetime,
            drain=timeouts.drain,
        ),
        breaker=Breaker(
            connections=breaker.connections,
            pending=breaker.pending,
            requests=breaker.requests,
            adaptive=breaker.adaptive,
        ),
        sticky=Sticky(service.sticky.by, service.sticky.asset_fallback),
        affinity=Affinity(service.affinity.cookie, service.affinity.secret_file) if service.affinity else None,
        previews=tuple(
            Preview(preview.pool, preview.header, preview.cookie, preview.value, preview.host)
            for preview in service.previews
        ),
        retry_after=service.retry_after,
        host_header=service.host_header,
        via=service.via,
        trailers=service.trailers,
        passive=service.outlier.enabled,
        error_pages=_error_pages(service.error_pages),
    )


def _canary(canary: model.Canary) -> tuple[Target, CheckSpec]:
    address = parse_target(canary.url)
    tls = TlsClient() if address.tls else None
    # No service can be called "none", so the canary cannot be mistaken for a target.
    place = f"none/none/{address.text}", "none", "none", address.host, address.port
    target = Target(*place, tls=tls, http2=address.http2)
    return target, _spec(canary.readiness, target)


def release_plan(old: str, new: str, rollout: model.Rollout, *, actor: str = "") -> Plan:
    """The settings of a switch from `old` to `new`, when the operator asks for nothing else."""
    analysis, bake = rollout.analysis, rollout.bake
    return Plan(
        old=old,
        new=new,
        steps=tuple(rollout.steps),
        step_time=rollout.step_time,
        thresholds=Thresholds(
            error_rate=analysis.error_rate,
            latency=analysis.latency,
            ready=analysis.ready,
            min_requests=analysis.min_requests,
            false_alarm=analysis.false_alarm,
        ),
        bake=Bake(
            time=bake.time,
            budget=bake.budget,
            short_window=bake.short_window,
            long_window=bake.long_window,
            burn=bake.burn,
        ),
        freeze_on_fail=rollout.freeze_on_fail,
        after_restart=rollout.after_restart,
        actor=actor,
    )


def _target(service_name: str, pool_name: str, service: model.Service, target: model.Target) -> Target:
    address = parse_target(target.url)
    return Target(
        id=f"{service_name}/{pool_name}/{address.text}",
        service=service_name,
        pool=pool_name,
        host=address.host,
        port=address.port,
        weight=target.weight,
        tls=_tls(target.tls or service.tls or model.ClientTls()) if address.tls else None,
        http2=address.http2,
    )


def _tls(tls: model.ClientTls) -> TlsClient:
    return TlsClient(
        verify=tls.verify,
        server_name=tls.server_name,
        ca_file=tls.ca_file or "",
        cert_file=tls.cert_file or "",
        key_file=tls.key_file or "",
    )


def _mirror(service: model.Service) -> Mirror | None:
    mirror = service.mirror
    if mirror is None or not mirror.percent:
        return None
    return Mirror(mirror.pool, mirror.percent * 100, mirror.concurrency, mirror.max_body)


def _rules(service: model.Service) -> ServiceRules:
    outlier, damping, ramp = service.outlier, service.damping, service.slow_start
    choice = service.panic_choice()
    return ServiceRules(
        slow_start=SlowStart(ramp.window, ramp.aggression, ramp.floor),
        damping=Damping(damping.flaps, damping.half_life, damping.hold, damping.max_hold),
        ejection=Ejection(
            base=outlier.base_ejection,
            longest=outlier.max_ejection,
            connect_base=outlier.connect_ejection,
            calm=outlier.calm,
        ),
        outlier=Outlier(
            consecutive_failures=outlier.consecutive_failures,
            consecutive_connect=outlier.consecutive_connect,
            failure_share=outlier.failure_share,
            minimum=outlier.minimum,
            rate_minimum=outlier.rate_minimum,
            window=outlier.window,
            peers=outlier.peers,
            deviations=outlier.deviations,
            latency=outlier.latency,
            max_ejected=outlier.max_ejected,
        )
        if outlier.enabled
        else Outlier(consecutive_failures=0, consecutive_connect=0, failure_share=0.0, deviations=0.0, latency=0.0),
        panic=Panic(service.panic_threshold, choice),
        fallback=service.fallback or "",
        patience=service.patience,
    )


# --- checks ----------------------------------------------------------------------------------------------------------


def _checks(service: model.Service, pool: model.Pool, target: model.Target, known: Target) -> Checks:
    liveness = liveness_of(service, pool, target)
    return Checks(
        readiness=_spec(readiness_of(service, pool, target), known),
        liveness=_spec(liveness, known) if liveness else None,
        on_failure=_on_failure(liveness.on_failure) if liveness and liveness.on_failure else None,
    )


def _spec(check: model.Check, target: Target) -> CheckSpec:
    protocol = check.kind()
    elsewhere = bool(check.host or check.port)
    if protocol == "http" and target.tls is not None and not elsewhere:
        protocol = "https"
    tls: TlsClient | None = None
    if protocol == "https":
        tls = _tls(check.tls) if check.tls else target.tls or TlsClient()
    elif protocol == "grpc":
        tls = _tls(check.tls) if check.tls else None if elsewhere else target.tls
    return CheckSpec(
        protocol=protocol,
        path=check.path,
        method=check.method,
        host=check.host,
        port=check.port,
        headers=tuple(check.headers.items()),
        expect=Expect(check.expect.status, check.expect.body, tuple(check.expect.headers.items())),
        ignore_1xx=check.ignore_1xx,
        interval=check.interval,
        timeout=check.timeout,
        rise=check.rise,
        fall=check.fall,
        grace=check.grace,
        jitter=check.jitter,
        fast_interval=check.fast_interval,
        down_interval=check.down_interval,
        max_body=check.max_body,
        tls=tls,
        grpc_service=check.grpc_service,
        command=tuple(check.command),
        http2=target.http2 and not elsewhere and protocol in ("http", "https"),
    )


def _on_failure(action: model.OnFailure) -> OnFailure:
    return OnFailure(
        command=tuple(action.command),
        webhook=action.webhook,
        timeout=action.timeout,
        backoff=action.backoff,
        max_backoff=action.max_backoff,
        per_hour=action.per_hour,
        at_once=action.at_once,
    )
