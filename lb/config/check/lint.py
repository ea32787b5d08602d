"""Faults that are valid: settings that work against each other, and the common mistakes of health checking.

A finding is a warning, never an error: the file does what it says, it may only not be what was meant. Each says what
will happen and what to do. The articles' mistakes are among them. Examples are no health check at all, one path for
liveness and readiness, and no time to start. Another is a liveness check that restarts what readiness would have
spared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from lb.config.check import lint_checks, lint_files, routes
from lb.config.check.lint_checks import Warned
from lb.config.load import Loaded
from lb.config.model.addresses import parse_bind, parse_target
from lb.config.model.config import Config
from lb.config.model.hsts import Hsts
from lb.config.model.merging import readiness_of
from lb.config.model.services import Pool, Service
from lb.config.model.units import format_duration, format_percent
from lb.config.resolve import World, resolve
from lb.config.yaml.problems import Problem
from lb.config.yaml.tree import Path

#: Pooled connections that wait longer than most servers keep theirs (nginx: 75 s, Go: none, Node: 5 s).
LONG_IDLE = 75.0
#: Idle time of common balancers in front (AWS ALB: 60 s); a listener must keep its connections longer.
BALANCER_IDLE = 60.0
#: Seconds below which a timeout measures the network and the scheduler, not the target.
SHORTEST = lint_checks.SHORTEST
#: Seconds that a policy must hold for the list of hosts which browsers are shipped with (hstspreload.org).
PRELOADED = 31536000.0
#: Hosts and networks that mean every client.
EVERYBODY = ("0.0.0.0/0", "::/0")
HASHED = ("ring", "maglev")
#: The codes of all warnings, which `lb check --ignore` takes.
CODES = frozenset(
    """
    access-log-unwritable affinity-cookie-shared acme-port acme-unused admin-in-clear asset-fallback-not-sticky
    bake-too-short blind-check certificate-early certificate-ends-soon certificate-expired
    certificate-chain certificate-lacks-name certificate-no-default certificate-none certificate-stray certificate-twice
    certificate-unusable check-asks-outside check-of-another-host drain-too-short expect-no-success fall-1
    fallback-active fallback-unreleased fast-interval-slow file-too-open forwarded-open hsts-never hsts-preload
    idle-too-long idle-too-short key-unused
    liveness-asks-outside liveness-asks-readiness liveness-before-readiness min-ready-too-many mirror-active
    never-restarted no-check no-check-of-its-own no-grace no-jitter no-route no-weight panic-spread
    panic-threshold per-try-unreachable port-0 preview-twice probed-too-often proxy-protocol-open response-unreachable
    retries-do-not-fit route-order route-unreachable same-check single-target slow-check slow-detection state-lost
    target-twice timeout-over-interval timeout-too-short too-many-probes unsafe-method unverified
    """.split()  # noqa: SIM905 - a list of so many is harder to read
)


def lint(loaded: Loaded, now: float | None = None, world: World | None = None) -> list[Problem]:
    """All warnings, in the order of the file. With `now` (seconds since the epoch) the files that it names are read.

    `world`: what the file resolves to, where the caller has it already."""
    world = world or resolve(loaded.config, 0)
    found: dict[tuple[int, int, str], Problem] = {}
    of_files = () if now is None else lint_files.warnings(loaded.config, now)
    of_routes = routes.warnings(loaded.config, world.snapshot, lambda path: loaded.source.find(path).line)
    for code, path, message, hint in chain(warnings(loaded.config, world), of_routes, of_files):
        problem = replace(loaded.problem((path, message, hint)), code=code)
        # A block that several aliases share is warned of once.
        found.setdefault((problem.line, problem.column, problem.message), problem)
    return [found[place] for place in sorted(found)]


def warnings(config: Config, world: World) -> Iterator[Warned]:
    yield from _doors(config)
    yield from _routes(config)
    yield from _cookies(config, world)
    yield from lint_checks.of_all(world)
    for name, service in config.services.items():
        at: Path = ("services", name)
        yield from lint_checks.of_service(at, service)
        for pool_name, pool in service.pools.items():
            yield from _pool((*at, "pools", pool_name), service, pool)
        yield from _requests(at, service, config)
        yield from _choices(at, service)
        yield from _release(at, service)


# --- clients ---------------------------------------------------------------------------------------------------------


def _doors(config: Config) -> Iterator[Warned]:
    for index, listener in enumerate(config.listeners):
        for position, network in enumerate(listener.proxy_protocol):
            if network in EVERYBODY:
                yield (
                    "proxy-protocol-open",
                    ("listeners", index, "proxy_protocol", position),
                    "anybody may claim any client address by a PROXY header",
                    "Name the networks of the proxies in front.",
                )
        yield from _hsts(("listeners", index, "hsts"), listener.hsts)
        if config.trusted_proxies and listener.timeouts.idle <= BALANCER_IDLE:
            yield (
                "idle-too-short",
                ("listeners", index, "timeouts", "idle"),
                f"the proxy in front may send a request just as its connection is closed after "
                f"{format_duration(listener.timeouts.idle)}",
                "Keep idle connections longer than that proxy does (AWS ALB: 60s): 75s.",
            )
    for index, network in enumerate(config.trusted_proxies):
        if network in EVERYBODY:
            yield (
                "forwarded-open",
                ("trusted_proxies", index),
                "anybody may forge X-Forwarded-For",
                "Name the networks of the proxies in front.",
            )
    admin = config.admin
    if admin.secured and admin.tls is None and not parse_bind(admin.bind).loopback:
        yield (
            "admin-in-clear",
            ("admin", "bind"),
            f"tokens for {admin.bind} cross the network in clear: whoever listens there has them",
            "Add `tls: {cert_file: …, key_file: …}` beside it.",
        )
    if "state_dir" in config.model_fields_set and config.state_dir.startswith(("/tmp/", "/run/")):
        yield (
            "state-lost",
            ("state_dir",),
            f"{config.state_dir} does not survive a restart of the machine, and switches and drains go with it",
            "Use a folder that stays: /var/lib/lb.",
        )


def _hsts(at: Path, hsts: Hsts | None) -> Iterator[Warned]:
    if hsts is not None and hsts.preload and not (hsts.include_subdomains and hsts.max_age >= PRELOADED):
        yield (
            "hsts-preload",
            (*at, "preload"),
            "the list of preloaded hosts takes none without include_subdomains and a max_age of 365d",
            "Write `include_subdomains: true` and `max_age: 365d`, or `preload: false`.",
        )


def _routes(config: Config) -> Iterator[Warned]:
    https = bool(config.trusted_proxies) or any(listener.tls is not None for listener in config.listeners)
    for index, route in enumerate(config.routes):
        for number, step in enumerate(route.steps):
            at: Path = ("routes", index, "steps", number, "hsts")
            yield from _hsts(at, step.hsts)
            if step.hsts is not None and not https:
                yield (
                    "hsts-never",
                    at,
                    "no listener has `tls`, so no request comes by https, and no answer gets the field",
                    "Remove it. If a proxy in front speaks https, name its network in `trusted_proxies`.",
                )
    reached = {name for route in config.route_list() for name in route.services()}
    for name in config.services:
        if name not in reached:
            yield (
                "no-route",
                ("services", name),
                f"no route leads to {name}: it is probed, but gets no requests",
                "Add a route, or remove the service.",
            )


def _cookies(config: Config, world: World) -> Iterator[Warned]:
    """Services that browsers send each other's affinity cookie to, as they have a host in common."""
    hosts: dict[str, set[str]] = {}
    for route in world.snapshot.routes:
        for name in route.services():
            hosts.setdefault(name, set()).add(route.host.lstrip("*"))
    seen: dict[str, list[str]] = {}
    for name, service in config.services.items():
        if service.affinity is None:
            continue
        mine = hosts.get(name, set())
        for other in seen.setdefault(service.affinity.cookie, []):
            if any(a.endswith(b) or b.endswith(a) for a in mine for b in hosts.get(other, ())):
                yield (
                    "affinity-cookie-shared",
                    ("services", name, "affinity", "cookie"),
                    f"{other} has a cookie {service.affinity.cookie} for the same host: each would replace the other's",
                    "Give one of them another name.",
                )
                break
        seen[service.affinity.cookie].append(name)


# --- pools and requests ----------------------------------------------------------------------------------------------


def _pool(path: Path, service: Service, pool: Pool) -> Iterator[Warned]:
    found = pool.discover is not None  # how many there are shows when lb runs
    if len(pool.targets) == 1 and not found:
        yield (
            "single-target",
            path,
            f"pool {path[-1]} has one target: when it is down, there is nobody to take over",
            "Add a second one, or name a `fallback` pool." if service.fallback is None else "Add a second one.",
        )
    if all(target.weight == 0 for target in pool.targets) and not found:
        yield (
            "no-weight",
            path,
            f"all targets of pool {path[-1]} have weight 0: it cannot serve",
            "Give one of them a weight.",
        )
    count = service.rollout.min_ready.count
    if count > len(pool.targets) and len(service.pools) > 1 and not found:
        yield (
            "min-ready-too-many",
            (*path[:2], "rollout", "min_ready"),
            f"min_ready asks for {count} ready targets, but pool {path[-1]} has {len(pool.targets)}",
            "All of them must be ready then. Write a percentage if the pools differ in size.",
        )
    local: dict[int, str] = {}
    for index, target in enumerate(pool.targets):
        address = parse_target(target.url)
        if address.loopback and not address.unix and local.setdefault(address.port, address.text) != address.text:
            yield (
                "target-twice",
                (*path, "targets", index),
                f"{address.text} and {local[address.port]} are one address: it is probed twice and gets two shares",
                "Remove one of them.",
            )
        if not address.port and not address.unix:
            yield (
                "port-0",
                (*path, "targets", index),
                f"{target.url} has port 0, which stands for a free one with `lb run --demo` only",
                "Write the port that the target listens on.",
            )
        if target.tls is not None and not target.tls.verify and not address.loopback:
            yield from lint_checks.unverified((*path, "targets", index, "tls", "verify"))


def _requests(at: Path, service: Service, config: Config) -> Iterator[Warned]:
    timeouts, retries = service.timeouts, service.retries
    one = timeouts.connect + (min(retries.per_try, timeouts.response) if retries.per_try else timeouts.response)
    totals: list[tuple[Path, float]] = [((*at, "timeouts", "total"), timeouts.total)] if timeouts.total else []
    totals += [
        (("routes", index, "timeout"), route.timeout)
        for index, route in enumerate(config.routes)
        if at[-1] in route.services() and route.timeout
    ]
    for path, total in totals:
        allowed = format_duration(total)
        if total < timeouts.response:
            yield (
                "response-unreachable",
                path,
                f"a request may take {allowed} in all, so `timeouts.response` "
                f"({format_duration(timeouts.response)}) is never reached",
                "Shorten `timeouts.response`, so that a slow target is told from a slow request.",
            )
        elif retries.attempts and one * (retries.attempts + 1) > total:
            yield (
                "retries-do-not-fit",
                path,
                f"{retries.attempts + 1} tries of up to {format_duration(_rounded(one))} do not fit into {allowed}: "
                f"slow targets leave no time for another one",
                f"Set `retries.per_try` to {format_duration(_rounded(total / (retries.attempts + 1)))} or less.",
            )
    if retries.per_try > timeouts.response:
        yield (
            "per-try-unreachable",
            (*at, "retries", "per_try"),
            f"per_try ({format_duration(retries.per_try)}) is longer than `timeouts.response` "
            f"({format_duration(timeouts.response)}), which ends the try before",
            "Shorten it, or remove it.",
        )
    if timeouts.idle > LONG_IDLE:
        yield (
            "idle-too-long",
            (*at, "timeouts", "idle"),
            f"pooled connections wait {format_duration(timeouts.idle)}; most servers close theirs sooner (nginx after "
            f"75s, Node and uvicorn after 5s), and a request may meet the close",
            "Stay below what the targets keep: 60s or less. `lb status` shows what they were seen to keep.",
        )
    if config.drain < timeouts.response and "drain" in config.model_fields_set:
        yield (
            "drain-too-short",
            ("drain",),
            f"a stop cuts requests after {format_duration(config.drain)}, but {at[-1]} may take "
            f"{format_duration(timeouts.response)} to answer",
            "Give the drain as long as the longest request takes.",
        )
    if service.tls is not None and not service.tls.verify:
        yield from lint_checks.unverified((*at, "tls", "verify"))

    for name, seconds in (("connect", timeouts.connect), ("response", timeouts.response)):
        if seconds < SHORTEST:
            yield from lint_checks.too_short((*at, "timeouts", name), seconds)


def _choices(at: Path, service: Service) -> Iterator[Warned]:
    if "key" in service.balance.model_fields_set and service.balance.policy not in HASHED:
        yield (
            "key-unused",
            (*at, "balance", "key"),
            f"{service.balance.policy} hashes nothing, so the key has no effect",
            "Use `policy: ring` or `policy: maglev`, or remove the key.",
        )
    if service.panic_choice() == "spread":
        yield (
            "panic-spread",
            (*at, "panic"),
            "in a panic, requests go to targets that said they are not ready",
            "Keep `fail`, or name a `fallback` pool, unless a wrong answer is better than none.",
        )
    elif service.panic_threshold > 0:
        yield (
            "panic-threshold",
            (*at, "panic_threshold"),
            f"with fewer than {format_percent(service.panic_threshold)} of the targets ready, the ready ones get no "
            f"requests either",
            "Keep 0% unless too few targets would break down under the load.",
        )
    if service.fallback is not None and service.fallback == service.first_active():
        yield (
            "fallback-active",
            (*at, "fallback"),
            f"{service.fallback} is the active pool, and cannot stand in for itself",
            "Name another pool.",
        )
    elif service.fallback is not None and len(service.pools) == 2:
        yield (
            "fallback-unreleased",
            (*at, "fallback"),
            f"{service.fallback} is also the only pool to switch to: when {service.first_active()} fails, clients get "
            f"a version that nobody has released",
            "Give the fallback a pool of its own.",
        )
    readiness = {readiness_of(service, pool).kind() for pool in service.pools.values()}
    if not service.outlier.enabled and readiness <= {"tcp", "none"}:
        yield (
            "blind-check",
            (*at, "outlier", "enabled"),
            "nothing notices a target that answers errors: its check sees connections alone, and ejection is off",
            "Use an HTTP readiness check, or leave `outlier` on.",
        )


def _release(at: Path, service: Service) -> Iterator[Warned]:
    seen: dict[tuple[str, str, str, str], int] = {}
    for index, preview in enumerate(service.previews):
        chosen = (preview.header.lower(), preview.cookie, preview.value, preview.host)
        first = seen.setdefault(chosen, index)
        if first != index:
            yield (
                "preview-twice",
                (*at, "previews", index),
                f"previews[{first}] chooses the same requests, so this one is never reached",
                "Remove one of them.",
            )
    if service.sticky.asset_fallback and not service.sticky.by:
        yield (
            "asset-fallback-not-sticky",
            (*at, "sticky", "asset_fallback"),
            "without `by` each request of a page may meet another version; the fallback mends missing files alone",
            "Add `by: client`, or `by: cookie:NAME`.",
        )
    rollout = service.rollout
    if 0 < rollout.bake.time < rollout.bake.long_window:
        yield (
            "bake-too-short",
            (*at, "rollout", "bake"),
            f"the watch after a switch ({format_duration(rollout.bake.time)}) ends before its long window "
            f"({format_duration(rollout.bake.long_window)}) is full: it can hardly find anything",
            "Watch longer, or shorten `bake.long_window`.",
        )
    if service.mirror is not None and service.mirror.pool == service.first_active():
        yield (
            "mirror-active",
            (*at, "mirror", "pool"),
            f"{service.mirror.pool} is the active pool: it would get its own requests twice, so none is copied",
            "Name the pool that is to be tried out.",
        )


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
