"""Faults of checks that are valid: the articles' common mistakes, and times that work against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lb.config.model.checks import Check, Liveness
from lb.config.model.merging import liveness_of, merged_checks, readiness_of
from lb.config.model.services import Pool, Service
from lb.config.model.units import format_duration
from lb.config.resolve import World
from lb.config.yaml.tree import Path
from lb.core.checks import CheckSpec
from lb.core.detection import detection

#: (code, place, what will happen, what to do); the code is what `lb check --ignore` takes.
Warned = tuple[str, Path, str, str]

#: Probes per second from which their number is worth a word: for one address, and in all.
BUSY_ADDRESS = 10.0
BUSY_CHECKER = 2000.0
#: Detection time that is long for any service with users.
LONG = 60.0
#: A timeout from which the check itself is too much work: it is asked all the time, by every prober.
LABORIOUS = 5.0
#: Seconds below which a timeout measures the network and the scheduler, not the target.
SHORTEST = 0.01
#: Parts of a path that say that it looks at more than the process itself.
OUTSIDE = re.compile(
    r"(?:^|[^a-z])(deep|full|all|everything|dependenc(?:y|ies)|deps|downstream|upstream|external|integrations?|"
    r"database|db|sql|mysql|postgres(?:ql)?|mongo(?:db)?|redis|kafka|rabbit(?:mq)?|queues?|ldap|smtp)(?:$|[^a-z])",
    re.IGNORECASE,
)
#: Status codes that are no success: first and last of them, what they mostly mean, and what passes with them.
NO_SUCCESS = (
    (500, 599, "an exception in the check counts as a pass"),
    (400, 499, "a path that does not exist, or wants a login, counts as a pass"),
    (300, 399, "a redirect, be it to a page that says sorry, counts as a pass"),
)
UNSAFE_METHODS = ("POST", "PUT", "PATCH", "DELETE")


def of_service(at: Path, service: Service) -> Iterator[Warned]:
    """Warnings about the checks of one service."""
    yield from _no_check(at, service)
    for path, check in merged_checks(at, service):
        yield from _check(path, check)
    yield from _other_host(at, service)
    for name, pool in service.pools.items():
        yield from _liveness((*at, "pools", name), at, service, pool)


def of_all(world: World) -> Iterator[Warned]:
    """Warnings about the number of probes."""
    rates: dict[str, float] = {}
    places: dict[str, Path] = {}
    total = 0.0
    for id, target in world.targets.items():
        checks = world.checks[id]
        for spec in (checks.readiness, checks.liveness):
            if spec is None or spec.protocol == "none":
                continue
            address = f"{spec.host or target.host}:{spec.port or target.port}"
            rates[address] = rates.get(address, 0.0) + 1 / spec.interval
            places.setdefault(address, ("services", target.service))
            total += 1 / spec.interval
    for address, rate in rates.items():
        if rate > BUSY_ADDRESS:
            yield (
                "probed-too-often",
                places[address],
                f"{address} is probed {rate:.0f} times a second, for all its pools together",
                "Lengthen `interval`, or probe it in one pool and use `protocol: none` in the others.",
            )
    if total > BUSY_CHECKER:
        yield (
            "too-many-probes",
            ("services",),
            f"{len(world.targets)} targets are probed {total:.0f} times a second in all",
            "Lengthen `interval`, and use `fast_interval` for quick verdicts.",
        )


def _other_host(at: Path, service: Service) -> Iterator[Warned]:
    readiness = service.readiness
    if (
        service.host_header
        and readiness.kind() in ("http", "https")
        and "host" not in map(str.lower, readiness.headers)
    ):
        yield (
            "check-of-another-host",
            (*at, "readiness"),
            f"requests reach the targets with `Host: {service.host_header}`, probes with the target's address: "
            f"they may meet another site",
            f"Add `headers: {{Host: {service.host_header}}}`.",
        )


def _no_check(at: Path, service: Service) -> Iterator[Warned]:
    kinds = {readiness_of(service, pool, target).kind() for pool in service.pools.values() for target in pool.targets}
    kinds |= {readiness_of(service, pool).kind() for pool in service.pools.values() if pool.discover is not None}
    if kinds == {"none"}:
        yield (
            "no-check",
            (*at, "readiness"),
            "no target is checked: a dead one gets requests until they fail",
            "The most common mistake of all. Check a path that says whether it can serve: readiness: /health/readiness",
        )
    elif "readiness" not in service.model_fields_set and kinds == {"tcp"}:
        yield (
            "no-check-of-its-own",
            (*at, "readiness"),
            f"{at[-1]} has no readiness check of its own: a target that accepts connections counts as ready, even if "
            f"it answers errors",
            "Add `readiness: /path`, or `readiness: tcp` to say that this is meant.",
        )


def _check(path: Path, check: Check) -> Iterator[Warned]:
    kind = check.kind()
    live = isinstance(check, Liveness)
    if kind == "none":
        return
    interval, timeout = format_duration(check.interval), format_duration(check.timeout)
    if check.timeout >= check.interval:
        yield (
            "timeout-over-interval",
            (*path, "timeout" if "timeout" in check.model_fields_set else "interval"),
            f"the timeout ({timeout}) is not shorter than the interval ({interval}): a hung target is probed every "
            f"{timeout} only, and noticed later",
            f"Let a probe end before the next one begins: timeout {format_duration(_rounded(check.interval / 2))}.",
        )
    if check.fast_interval > check.interval:
        yield (
            "fast-interval-slow",
            (*path, "fast_interval"),
            f"fast_interval ({format_duration(check.fast_interval)}) is longer than the interval ({interval})",
            "It is meant to settle a doubt quickly.",
        )
    if kind in ("http", "https") and check.method in UNSAFE_METHODS:
        yield (
            "unsafe-method",
            (*path, "method"),
            f"a check by {check.method} may change something each time, here every {interval}",
            "Use GET or HEAD, and a path without side effects.",
        )
    if kind in ("http", "https"):
        yield from _asked(path, check, live)
    if check.timeout < SHORTEST:
        yield from too_short((*path, "timeout"), check.timeout)
    if check.timeout > LABORIOUS:
        yield (
            "slow-check",
            (*path, "timeout"),
            f"a check that needs up to {timeout} does too much, or hides a target that is too slow to serve",
            "Answer from memory: let the service find out in the background how it is. A second is plenty.",
        )
    if check.fall == 1:
        what = "restarts" if live else "takes out"
        yield (
            "fall-1",
            (*path, "fall"),
            f"one failed probe {what} a target, be it a lost packet",
            "Use 2 or 3, with a shorter interval if it has to be quick.",
        )
    if check.jitter == 0 and check.interval >= 1:
        yield (
            "no-jitter",
            (*path, "jitter"),
            "without jitter the probes of targets that started together stay together",
            "Use 10%.",
        )
    if check.grace == 0 and (live or kind in ("http", "https")):
        yield (
            "no-grace",
            (*path, "grace"),
            "grace is 0: a target that is still starting fails its checks",
            "Give it the time that it needs to start, and some more.",
        )
    if check.tls is not None and not check.tls.verify and "tls" in check.model_fields_set:
        yield from unverified((*path, "tls", "verify"))
    found = detection(_timing(check))
    if found is not None and not live and found.worst > LONG:
        yield (
            "slow-detection",
            (*path, "interval"),
            f"a dead target can stay in rotation for {format_duration(_rounded(found.worst))}",
            "Shorten the interval, or set `fast_interval: 1s` for the time of doubt.",
        )


def _asked(path: Path, check: Check, live: bool) -> Iterator[Warned]:
    """The part of an answer that an HTTP check looks at, and its condition for success."""
    outside = OUTSIDE.search(check.path)
    if outside and live:
        yield (
            "liveness-asks-outside",
            (*path, "path"),
            f"the liveness check asks {check.path}, which sounds as if it looked beyond the process ({outside[1]}): "
            f"when that fails, every instance is restarted, and nothing is mended",
            "Liveness asks whether the process itself is beyond help.",
        )
    elif outside:
        yield (
            "check-asks-outside",
            (*path, "path"),
            f"the readiness check asks {check.path}, which sounds as if it asked others ({outside[1]}): their outage "
            f"takes out all targets at once",
            "Look at what every request needs, and nothing else; `patience` bounds what a shared dependency can do.",
        )
    for first, last, what in NO_SUCCESS:
        taken = [(low, high) for low, high in check.expect.status if low <= last and high >= first]
        if taken:
            low, high = max(taken[0][0], first), min(taken[0][1], last)
            codes = str(low) if low == high else f"{low}-{high}"
            yield ("expect-no-success", (*path, "expect"), f"{codes} is expected: {what}", "Expect 200-299.")
            break


def too_short(path: Path, seconds: float) -> Iterator[Warned]:
    yield (
        "timeout-too-short",
        path,
        f"{format_duration(seconds)} is less than a busy machine needs to look: targets that are well fail",
        f"Give it {format_duration(SHORTEST)} at least; milliseconds are `ms`, seconds `s`.",
    )


def unverified(path: Path) -> Iterator[Warned]:
    yield (
        "unverified",
        path,
        "certificates are not verified: anybody on the way may answer instead",
        "Give `ca_file` instead.",
    )


def _liveness(path: Path, service_at: Path, service: Service, pool: Pool) -> Iterator[Warned]:
    readiness, liveness = readiness_of(service, pool), liveness_of(service, pool)
    if liveness is None:
        return
    at = (*path, "liveness") if pool.liveness is not None else (*service_at, "liveness")
    kinds = readiness.kind(), liveness.kind()
    http = all(kind in ("http", "https") for kind in kinds)
    if http and (readiness.path, readiness.port, readiness.host) == (liveness.path, liveness.port, liveness.host):
        yield (
            "same-check",
            (*at, "path"),
            f"liveness and readiness ask the same question ({liveness.path}): what should only lose its traffic is "
            f"restarted as well",
            "Liveness asks whether the process runs, readiness whether it can serve now.",
        )
    elif liveness.kind() in ("http", "https") and "ready" in liveness.path.lower():
        yield (
            "liveness-asks-readiness",
            (*at, "path"),
            f"the liveness check asks {liveness.path}, which sounds like a readiness check",
            "A target that waits for its database must not be restarted for it.",
        )
    if liveness.on_failure is not None and not liveness.fall:
        yield (
            "never-restarted",
            (*at, "fall"),
            "fall is 0: `on_failure` never runs, however long the target is dead",
            "Say after how many failures in a row, or remove `on_failure`.",
        )
    if liveness.on_failure is None or not liveness.fall:
        return
    ready, alive = detection(_timing(readiness)), detection(_timing(liveness))
    if ready is not None and alive is not None and alive.worst < ready.worst:
        yield (
            "liveness-before-readiness",
            (*at, "fall"),
            f"liveness gives up on a target ({format_duration(_rounded(alive.worst))} at worst) before readiness takes "
            f"it out ({format_duration(_rounded(ready.worst))}): it is restarted under its clients",
            "Let liveness be the more patient one: a longer interval, or a higher fall.",
        )


def _timing(check: Check) -> CheckSpec:
    return CheckSpec(
        protocol=check.kind(),
        interval=check.interval,
        timeout=check.timeout,
        rise=check.rise,
        fall=check.fall,
        jitter=check.jitter,
        fast_interval=check.fast_interval,
        down_interval=check.down_interval,
    )


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
