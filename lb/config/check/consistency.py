"""Checks that need more than one field: names that must be defined, addresses that must differ, options that must fit.

Each finding is an error: the file would not do what it says. Settings that only deserve a second look are `lint`'s
part. Works on whatever part of the file could be read, so that these errors are reported together with all other ones;
`known` holds the names as they stand in the file, also where their definition is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from lb.config.check import acme, listener_tls, routes
from lb.config.check.messages import did_you_mean, dotted, joined, listed
from lb.config.model.addresses import Address, parse_bind, parse_target
from lb.config.model.checks import Check, ClientTls, Hook, Liveness, OnFailure
from lb.config.model.config import Config
from lb.config.model.discovery import Consul, Discover, Dns, Docker
from lb.config.model.listeners import Listener
from lb.config.model.merging import MEANT_FOR, merged_checks
from lb.config.model.services import Pool, Service
from lb.config.model.units import format_duration
from lb.config.yaml.tree import Path

#: (path, message, hint) of an error.
Finding = tuple[Path, str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """Names that the file defines: service → its pools, and certificate authorities."""

    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    acme: tuple[str, ...] = ()
    line: Callable[[Path], int] = field(default=lambda path: 0)  # of a place in the file; 0: it has none


def errors(config: Config, known: Known) -> Iterator[Finding]:
    yield from _addresses(config)
    yield from _schemes(config)
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None:
            yield from listener_tls.errors(("listeners", index, "tls"), listener.tls)
    yield from acme.errors(config, known.acme)
    for name, service in config.services.items():
        at: Path = ("services", name)
        pools = known.services.get(name, ()) or tuple(service.pools)
        yield from _pool_names(at, service, pools)
        yield from _targets(at, service)
        yield from _checks(at, service)
        yield from _releases(at, service)
        yield from _orders(at, service)
    yield from _routes(config, known)


# --- addresses -------------------------------------------------------------------------------------------------------


def _addresses(config: Config) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, listener in enumerate(config.listeners):
        address = parse_bind(listener.bind)
        if listener.bind in seen and (address.port or address.unix):
            first = f"listeners[{seen[listener.bind]}]"
            yield ("listeners", index, "bind"), f"{listener.bind} is bound by {first} already", "Remove one of them."
        wide = [first for bind, first in seen.items() if _covers(parse_bind(bind), address)]
        wide += [first for bind, first in seen.items() if _covers(address, parse_bind(bind))]
        if wide:
            yield (
                ("listeners", index, "bind"),
                f"{listener.bind} and {config.listeners[wide[0]].bind} (listeners[{wide[0]}]) overlap, and the kernel "
                f"gives an address once",
                "Remove one of them, or give them different ports.",
            )
        seen.setdefault(listener.bind, index)
    admin = parse_bind(config.admin.bind)
    if admin.unix:
        yield ("admin", "bind"), "the admin port cannot be a Unix socket", "Use a loopback address: 127.0.0.1:9900."
    elif not admin.loopback and not config.admin.secured:
        yield (
            ("admin", "bind"),
            f"{config.admin.bind} can be reached from other machines, so the admin port needs a token",
            "Add `token_file: FILE` beside it, or bind to 127.0.0.1.",
        )
    yield from _tokens(config)
    for index, listener in enumerate(config.listeners):
        if _overlap(parse_bind(listener.bind), admin):
            yield (
                ("listeners", index, "bind"),
                f"{listener.bind} is the admin port's address ({config.admin.bind}) as well",
                "Give one of them another port.",
            )


def _tokens(config: Config) -> Iterator[Finding]:
    names: dict[str, int] = {}
    files: dict[str, Path] = {}
    if config.admin.token_file is not None:
        files[config.admin.token_file] = ("token_file",)
    for index, token in enumerate(config.admin.tokens):
        at: Path = ("admin", "tokens", index)
        if token.name in names:
            first = f"tokens[{names[token.name]}]"
            yield (*at, "name"), f"{first} has the name {token.name} already", "Events must tell the two apart."
        names.setdefault(token.name, index)
        if token.token_file in files:
            other = dotted(files[token.token_file])
            yield (*at, "token_file"), f"{token.token_file} holds the token of {other} already", "Make another one."
        files.setdefault(token.token_file, ("tokens", index))


def _protocols(at: Path, listener: Listener) -> Iterator[Finding]:
    path = (*at, "protocols")
    if listener.protocols is None:
        return
    if not listener.protocols:
        yield path, f"{listener.bind} speaks no protocol", "Name one, or leave `protocols` out."
    elif "h2" in listener.protocols and listener.tls is None:
        yield path, f"h2 is HTTP/2 with TLS, and {listener.bind} has no `tls`", "Write `h2c`, or add `tls`."
    elif "h2c" in listener.protocols and listener.tls is not None:
        yield path, f"h2c is HTTP/2 without TLS, and {listener.bind} has `tls`", "Write `h2`."


def _schemes(config: Config) -> Iterator[Finding]:
    goal = any(listener.tls is not None and not parse_bind(listener.bind).unix for listener in config.listeners)
    for index, listener in enumerate(config.listeners):
        at: Path = ("listeners", index)
        yield from _protocols(at, listener)
        if listener.redirect is not None and listener.tls is not None:
            yield (
                (*at, "redirect"),
                f"{listener.bind} speaks https, and would redirect its clients to where they are",
                "Remove `redirect` here; it belongs to the listener without `tls`.",
            )
        elif listener.redirect is not None and listener.redirect.to_port is None and not goal:
            yield (
                (*at, "redirect"),
                "redirect: https has no port to go to: no listener with a port has `tls`",
                "Add such a listener, or write `redirect: {to_port: 443}`.",
            )
        if listener.hsts is not None and listener.tls is None:
            yield (
                (*at, "hsts"),
                f"hsts is set, but {listener.bind} speaks plain HTTP, where browsers ignore it (RFC 6797)",
                "Move it to the listener with `tls`.",
            )


def _covers(wide: Address, one: Address) -> bool:
    """Whether `wide` is all addresses of a family at the port of `one`, which is another address of that family."""
    six = ":" in one.host
    every = "::" if six else "0.0.0.0"
    return wide.host == every and one.host != every and wide.port == one.port > 0 and not one.unix


def _overlap(one: Address, other: Address) -> bool:
    if one.unix or other.unix or one.port != other.port or not one.port:
        return False
    return one.host == other.host or "0.0.0.0" in (one.host, other.host) or "::" in (one.host, other.host)


# --- names -----------------------------------------------------------------------------------------------------------


def _pool_names(at: Path, service: Service, pools: tuple[str, ...]) -> Iterator[Finding]:
    if service.active is None and len(pools) > 1:
        yield (
            (*at, "active"),
            f"'active' is missing: {at[-1]} has several pools, and one must serve first",
            f"Allowed: {listed(pools)}.",
        )
    named: list[tuple[Path, str | None]] = [((*at, "active"), service.active), ((*at, "fallback"), service.fallback)]
    if service.mirror is not None:
        named.append(((*at, "mirror", "pool"), service.mirror.pool))
    named += [((*at, "previews", index, "pool"), preview.pool) for index, preview in enumerate(service.previews)]
    for path, pool in named:
        if pool is not None and pool not in pools:
            hint = joined(did_you_mean(pool, pools), f"Pools of {at[-1]}: {listed(pools)}.")
            yield path, f"{path[-1]}: {at[-1]} has no pool {pool!r}", hint
    if service.panic == "fallback" and service.fallback is None:
        yield (*at, "panic"), "panic: fallback needs a pool to fall back to", "Add `fallback: POOL`."
    if service.panic == "fail" and service.fallback is not None:
        yield (
            (*at, "fallback"),
            "fallback names a pool, but `panic: fail` never uses it",
            "Remove one of them, or write `panic: fallback`.",
        )


def _routes(config: Config, known: Known) -> Iterator[Finding]:
    services = tuple(known.services) or tuple(config.services)
    if not config.routes and len(services) > 1:
        yield (
            ("routes",),
            f"'routes' is missing: there are {len(services)} services, and nothing says which request is for which",
            f"Services: {listed(services)}.",
        )
    for index, route in enumerate(config.routes):
        named: list[tuple[Path, str]] = [(("service",), route.service)] if route.service is not None else []
        named += [(("split", name), name) for name in route.split or ()]
        named += [(("fallback",), route.fallback)] if route.fallback is not None else []
        for where, name in named:
            if name not in services:
                hint = joined(did_you_mean(name, services), f"Services: {listed(services)}.")
                yield ("routes", index, *where), f"there is no service {name!r}", hint
        for number, step in enumerate(route.steps):
            asked = step.forward_auth.service if step.forward_auth is not None else None
            if asked is not None and asked not in services:
                hint = joined(did_you_mean(asked, services), f"Services: {listed(services)}.")
                at: Path = ("routes", index, "steps", number, "forward_auth", "service")
                yield at, f"there is no service {asked!r}", hint
        if route.client_certificate and not _verifies_clients(config):
            yield (
                ("routes", index, "client_certificate"),
                "no listener verifies clients: every request of this route would get 403",
                "Add `client: {mode: optional, ca_file: FILE}` to the `tls` of a listener.",
            )
    yield from routes.errors(config, known.line)


def _verifies_clients(config: Config) -> bool:
    settings = [listener.tls for listener in config.listeners if listener.tls is not None]
    return any(client.mode != "off" for tls in settings for client in tls.client_auths())


# --- targets and checks ----------------------------------------------------------------------------------------------


def _targets(at: Path, service: Service) -> Iterator[Finding]:
    for name, pool in service.pools.items():
        yield from _sources((*at, "pools", name), pool)
        seen: dict[str, int] = {}
        for index, target in enumerate(pool.targets):
            path: Path = (*at, "pools", name, "targets", index)
            address = parse_target(target.url)
            if address.text in seen and (address.port or address.unix):
                yield (
                    path,
                    f"{address.text} is in pool {name} already, as targets[{seen[address.text]}]",
                    "Remove one of them; give the other one a `weight` if it shall get more.",
                )
            seen.setdefault(address.text, index)
            if target.tls is not None:
                if not address.tls:
                    hint = f"Write {replace(address, tls=True).url}." if not address.unix else ""
                    yield (*path, "tls"), f"tls is set, but {target.url} is spoken to without TLS", hint
                yield from _key_pair((*path, "tls"), target.tls)
    if service.tls is not None:
        yield from _key_pair((*at, "tls"), service.tls)


def _sources(at: Path, pool: Pool) -> Iterator[Finding]:
    """What a pool gets its targets from."""
    if pool.discover is None:
        if not pool.targets:
            hint = "targets: Its addresses. Or say where they are found: `discover: {file: FILE}`."
            yield at, f"'targets' is missing in {dotted(at)}", hint
        if "removal_guard" in pool.model_fields_set:
            yield (*at, "removal_guard"), "removal_guard is about found targets, and the pool finds none", "Remove it."
    elif len(given := pool.discover.given()) != 1:
        said = f"{' and '.join(given)} are given" if given else "nothing says where"
        yield (*at, "discover"), f"{said}; a pool has one source", f"Allowed: one of {listed(Discover.model_fields)}."
    elif pool.discover.consul is not None:
        yield from _consul((*at, "discover", "consul"), pool.discover.consul)
    elif pool.discover.dns is not None:
        yield from _dns((*at, "discover", "dns"), pool.discover.dns)
    elif pool.discover.docker is not None:
        yield from _docker((*at, "discover", "docker"), pool.discover.docker)
    elif (kubernetes := pool.discover.kubernetes) is not None and kubernetes.context and not kubernetes.kubeconfig:
        message = "context chooses one of a kubeconfig file, and no file is given"
        yield (*at, "discover", "kubernetes", "context"), message, "Add `kubeconfig: FILE`, or remove it."


def _consul(at: Path, consul: Consul) -> Iterator[Finding]:
    if consul.tls is None:
        return
    if not consul.address.startswith("https:"):
        hint = "Write `address: https://HOST:8501`, or remove `tls`."
        yield (*at, "tls"), f"tls is set, but {consul.address} is spoken to without TLS", hint
    yield from _key_pair((*at, "tls"), consul.tls)


def _dns(at: Path, dns: Dns) -> Iterator[Finding]:
    if dns.kind() == "SRV" and dns.port is not None:
        yield (
            (*at, "port"),
            f"port: the SRV records of {dns.name} name ports themselves",
            "Remove it, or write `type: A`.",
        )
    elif dns.kind() != "SRV" and dns.port is None:
        hint = "Write `port: 8080` beside it, or `type: SRV` if its records name ports."
        yield at, f"{dns.name} stands for addresses, and no port is given", hint
    if dns.max_refresh < dns.min_refresh:
        yield from _shorter((*at, "max_refresh"), dns.max_refresh, "min_refresh", dns.min_refresh)


def _docker(at: Path, docker: Docker) -> Iterator[Finding]:
    if docker.tls is None:
        return
    if docker.socket.startswith(("unix:", "http:")):
        hint = "Write `socket: tcp://HOST:2376`, or remove `tls`."
        yield (*at, "tls"), f"tls is set, but {docker.socket} is spoken to without TLS", hint
    yield from _key_pair((*at, "tls"), docker.tls)


def _key_pair(path: Path, tls: ClientTls) -> Iterator[Finding]:
    if (tls.cert_file is None) != (tls.key_file is None):
        missing = "key_file" if tls.key_file is None else "cert_file"
        yield path, f"a client certificate needs both files; {missing!r} is missing", f"Add `{missing}: FILE`."


def _checks(at: Path, service: Service) -> Iterator[Finding]:
    """Each block where it stands, as it works out together with the blocks it refines."""
    for path, check in merged_checks(at, service):
        for key, message, hint in misfits(check):
            yield (*path, key) if key else path, message, hint
        if check.tls is not None:
            yield from _key_pair((*path, "tls"), check.tls)
        if isinstance(check, Liveness) and check.on_failure is not None:
            action = check.on_failure
            yield from _does_something((*path, "on_failure"), action)
            if action.max_backoff < action.backoff:
                yield from _shorter((*path, "on_failure", "max_backoff"), action.max_backoff, "backoff", action.backoff)


def misfits(check: Check) -> Iterator[tuple[str, str, str]]:
    """(key, message, hint) of options that do not fit the protocol."""
    kind = check.kind()
    for key, kinds in MEANT_FOR.items():
        if key in check.model_fields_set and kind not in kinds:
            wanted = " or ".join(kinds[:2])
            yield key, f"{key}: a {kind} check has no use for it", f"Remove it, or write `protocol: {wanted}`."
    if kind == "command" and not check.command:
        yield "protocol", "a command check needs a command", "Add `command: [program, argument]`."
    if kind in ("http", "https") and check.expect.body and (check.method == "HEAD" or not check.max_body):
        why = "an answer to HEAD has no body" if check.method == "HEAD" else "`max_body: 0` reads none of it"
        yield "expect", f"expect.body can never match: {why}", "Use GET, and a `max_body` that reaches far enough."
    if kind == "none" and isinstance(check, Liveness):
        yield "protocol", "a liveness check with `protocol: none` checks nothing", "Remove the whole block."


def _does_something(path: Path, action: OnFailure | Hook) -> Iterator[Finding]:
    if not action.command and not action.webhook:
        yield path, f"{path[-1]} does nothing", "Add `command: [program, argument]` or `webhook: URL`."


# --- releases and orders ---------------------------------------------------------------------------------------------


def _releases(at: Path, service: Service) -> Iterator[Finding]:
    for index, preview in enumerate(service.previews):
        path: Path = (*at, "previews", index)
        given = [key for key in ("header", "cookie", "host") if getattr(preview, key)]
        if len(given) != 1:
            said = "nothing says which requests" if not given else f"{' and '.join(given)} are given"
            yield path, f"{said}; a preview has one of header, cookie and host", "Write one entry for each."
        elif preview.value and given == ["host"]:
            yield (*path, "value"), "value belongs to a header or a cookie, not to a host", "Remove it."
    for key, hook in (("pre", service.rollout.pre), ("post", service.rollout.post)):
        if hook is not None:
            yield from _does_something((*at, "rollout", key), hook)


def _orders(at: Path, service: Service) -> Iterator[Finding]:
    outlier, damping, bake = service.outlier, service.damping, service.rollout.bake
    for path, long, other, short in (
        (("outlier", "max_ejection"), outlier.max_ejection, "base_ejection", outlier.base_ejection),
        (("damping", "max_hold"), damping.max_hold, "hold", damping.hold),
        (("rollout", "bake", "long_window"), bake.long_window, "short_window", bake.short_window),
    ):
        if long < short:
            yield from _shorter((*at, *path), long, other, short)


def _shorter(path: Path, value: float, other: str, bound: float) -> Iterator[Finding]:
    message = f"{path[-1]}: {format_duration(value)} is shorter than `{other}` ({format_duration(bound)})"
    yield path, message, f"Allowed: {format_duration(bound)} or more."
