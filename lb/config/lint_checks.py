"""Faults of checks that are valid: the articles' common mistakes, and times that work against each other."""

from __future__ import annotations

from collections.abc import Iterator

from lb.config.checking import Check, Liveness
from lb.config.consistency import Finding
from lb.config.merging import liveness_of, merged_checks, readiness_of
from lb.config.quantities import format_duration
from lb.config.resolve import World
from lb.config.serving import Pool, Service
from lb.config.tree import Path
from lb.core.checks import CheckSpec
from lb.core.detection import detection

#: Probes per second from which their number is worth a word: for one address, and in all.
BUSY_ADDRESS = 10.0
BUSY_CHECKER = 2000.0
#: Detection time that is long for any service with users.
LONG = 60.0
UNSAFE_METHODS = ("POST", "PUT", "PATCH", "DELETE")


def of_service(at: Path, service: Service) -> Iterator[Finding]:
    """Warnings about the checks of one service."""
    yield from _no_check(at, service)
    for path, check in merged_checks(at, service):
        yield from _check(path, check)
    for name, pool in service.pools.items():
        yield from _liveness((*at, "pools", name), at, service, pool)


def of_all(world: World) -> Iterator[Finding]:
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
                places[address],
                f"{address} is probed {rate:.0f} times a second, for all its pools together",
                "Lengthen `interval`, or probe it in one pool and use `protocol: none` in the others.",
            )
    if total > BUSY_CHECKER:
        yield (
            ("services",),
            f"{len(world.targets)} targets are probed {total:.0f} times a second in all",
            "Lengthen `interval`, and use `fast_interval` for quick verdicts.",
        )


def _no_check(at: Path, service: Service) -> Iterator[Finding]:
    kinds = {readiness_of(service, pool, target).kind() for pool in service.pools.values() for target in pool.targets}
    if kinds == {"none"}:
        yield (
            (*at, "readiness"),
            "no target is checked: a dead one gets requests until they fail",
            "The most common mistake of all. Check a path that says whether it can serve: readiness: /health/readiness",
        )
    elif "readiness" not in service.model_fields_set and kinds == {"tcp"}:
        yield (
            (*at, "readiness"),
            f"{at[-1]} has no readiness check of its own: a target that accepts connections counts as ready, even if "
            f"it answers errors",
            "Add `readiness: /path`, or `readiness: tcp` to say that this is meant.",
        )


def _check(path: Path, check: Check) -> Iterator[Finding]:
    kind = check.kind()
    live = isinstance(check, Liveness)
    if kind == "none":
        return
    interval, timeout = format_duration(check.interval), format_duration(check.timeout)
    if check.timeout >= check.interval:
        yield (
            (*path, "timeout" if "timeout" in check.model_fields_set else "interval"),
            f"the timeout ({timeout}) is not shorter than the interval ({interval}): a hung target is probed every "
            f"{timeout} only, and noticed later",
            f"Let a probe end before the next one begins: timeout {format_duration(_rounded(check.interval / 2))}.",
        )
    if check.fast_interval > check.interval:
        yield (
            (*path, "fast_interval"),
            f"fast_interval ({format_duration(check.fast_interval)}) is longer than the interval ({interval})",
            "It is meant to settle a doubt quickly.",
        )
    if kind in ("http", "https") and check.method in UNSAFE_METHODS:
        yield (
            (*path, "method"),
            f"a check by {check.method} may change something each time, here every {interval}",
            "Use GET or HEAD, and a path without side effects.",
        )
    if check.fall == 1:
        what = "restarts" if live else "takes out"
        yield (
            (*path, "fall"),
            f"one failed probe {what} a target, be it a lost packet",
            "Use 2 or 3, with a shorter interval if it has to be quick.",
        )
    if check.jitter == 0 and check.interval >= 1:
        yield (
            (*path, "jitter"),
            "without jitter the probes of targets that started together stay together",
            "Use 10%.",
        )
    if check.grace == 0 and (live or kind in ("http", "https")):
        yield (
            (*path, "grace"),
            "grace is 0: a target that is still starting fails its checks",
            "Give it the time that it needs to start, and some more.",
        )
    if check.tls is not None and not check.tls.verify and "tls" in check.model_fields_set:
        yield from unverified((*path, "tls", "verify"))
    found = detection(_timing(check))
    if found is not None and not live and found.worst > LONG:
        yield (
            (*path, "interval"),
            f"a dead target can stay in rotation for {format_duration(_rounded(found.worst))}",
            "Shorten the interval, or set `fast_interval: 1s` for the time of doubt.",
        )


def unverified(path: Path) -> Iterator[Finding]:
    yield path, "certificates are not verified: anybody on the way may answer instead", "Give `ca_file` instead."


def _liveness(path: Path, service_at: Path, service: Service, pool: Pool) -> Iterator[Finding]:
    readiness, liveness = readiness_of(service, pool), liveness_of(service, pool)
    if liveness is None:
        return
    at = (*path, "liveness") if pool.liveness is not None else (*service_at, "liveness")
    kinds = readiness.kind(), liveness.kind()
    http = all(kind in ("http", "https") for kind in kinds)
    if http and (readiness.path, readiness.port, readiness.host) == (liveness.path, liveness.port, liveness.host):
        yield (
            (*at, "path"),
            f"liveness and readiness ask the same question ({liveness.path}): what should only lose its traffic is "
            f"restarted as well",
            "Liveness asks whether the process runs, readiness whether it can serve now.",
        )
    elif liveness.kind() in ("http", "https") and "ready" in liveness.path.lower():
        yield (
            (*at, "path"),
            f"the liveness check asks {liveness.path}, which sounds like a readiness check",
            "A target that waits for its database must not be restarted for it.",
        )
    if liveness.on_failure is None or not liveness.fall:
        return
    ready, alive = detection(_timing(readiness)), detection(_timing(liveness))
    if ready is not None and alive is not None and alive.worst < ready.worst:
        yield (
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
