"""A configuration's rehearsal: its services with fake targets in place of the real ones, one copy for each fault.

Everything that decides how trouble is noticed and survived stays as the file says: checks, thresholds, outlier
ejection, retries, timeouts, balancing, bounds. Settings that point outside are taken away: addresses, TLS, hooks,
restarts, the admin token, the state directory. A protocol that a fake target cannot speak (gRPC, a command) is probed
by TCP with the same times, with a remark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lb.config.model.config import Check, Config, Service
from lb.core.checks import CheckSpec

#: Fake targets of a pool, at most.
TARGETS = 8
#: Faults that a probe notices, by its protocol; what is missing only the requests themselves can show.
SEEN = {
    "http": ("refuse", "reset", "hang", "slow", "errors", "half-open", "flap"),
    "tcp": ("refuse", "half-open"),
    "none": (),
}
#: Faults in which nothing is heard: on a busy target such probes are taken for overload first, for up to `patience`.
SILENT = ("hang", "slow", "half-open")
#: Faults that fail requests in ways that outlier ejection counts.
COUNTED = ("refuse", "reset", "hang", "errors", "lies", "half-open", "flap")


@dataclass(slots=True)
class Rehearsal:
    """One service of the file, as it will be rehearsed."""

    service: str
    model: dict[str, Any]  # the service's block, without pools
    weights: list[int]
    protocol: str  # of its probes here: http | tcp | none
    patience: float  # seconds that failures in doubt may go uncounted
    notes: list[str] = field(default_factory=list)

    def sees(self, fault: str, outlier: bool) -> str:
        """The part that is going to notice this fault: `probe`, `requests`, or nothing."""
        if fault in SEEN[self.protocol]:
            return "probe"
        return "requests" if outlier and fault in COUNTED else ""


def rehearse(config: Config, name: str) -> Rehearsal:
    """The service as it can be rehearsed."""
    service = config.services[name]
    pool = service.pools[service.first_active()]
    notes: list[str] = []
    block = service.model_dump(mode="json", exclude_unset=True)
    # Settings that reach outside, or belong to releases rather than to faults.
    for key in (
        "pools",
        "active",
        "tls",
        "liveness",
        "mirror",
        "previews",
        "rollout",
        "fallback",
        "panic",
        "host_header",
        "via",
        "trailers",
    ):
        block.pop(key, None)
    if service.panic == "spread":
        block["panic"] = "spread"
    check = pool.readiness if pool.readiness is not None else service.readiness
    readiness = dict(block.get("readiness") or {})
    if pool.readiness is not None:
        readiness |= pool.readiness.model_dump(mode="json", exclude_unset=True)
    protocol, block["readiness"] = adapted(check, service, readiness, notes)
    weights = [target.weight for target in pool.targets][:TARGETS]
    if len(pool.targets) > TARGETS:
        notes.append(f"the pool's {len(pool.targets)} targets are stood in for by {TARGETS}")
    if pool.discover is not None:
        weights = [*weights, 1, 1][: max(2, len(weights))]
        notes.append(f"targets that are found at run time are stood in for: there are {len(weights)}")
    if len(weights) == 1:
        notes.append("the pool has one target: when it is down there is nobody to take over")
    if any(target.readiness is not None for target in pool.targets):
        notes.append("the targets' own readiness options are left out: all are probed as the pool says")
    return Rehearsal(name, block, weights, protocol, service.patience, notes)


def adapted(check: Check, service: Service, readiness: dict[str, Any], notes: list[str]) -> tuple[str, dict[str, Any]]:
    """The readiness block for fake targets, and the protocol it comes to."""
    kind = service.readiness.kind() if not check.model_fields_set else check.kind()
    for key in ("tls", "host", "port", "command", "grpc_service", "protocol"):
        readiness.pop(key, None)
    if kind in ("grpc", "command"):
        notes.append(f"the {kind} check is stood in for by a TCP check with the same times")
        kept = ("interval", "timeout", "rise", "fall", "grace", "jitter", "fast_interval", "down_interval")
        return "tcp", {"protocol": "tcp", **{key: readiness[key] for key in kept if key in readiness}}
    if kind in ("http", "https"):
        expect = readiness.get("expect")
        if isinstance(expect, dict):
            patterns = [expect.get("body", ""), *(expect.get("headers") or {}).values()]
            if any(len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/") for pattern in patterns):
                notes.append("regular expressions in `expect` are left out: fake targets do not know what would match")
                readiness["expect"] = {key: value for key, value in expect.items() if key == "status"}
        return "http", {"protocol": "http", **readiness}
    return kind, {"protocol": kind, **readiness}


def signature(rehearsal: Rehearsal) -> str:
    """Equal for services that would be rehearsed alike."""
    return repr((rehearsal.model, len(rehearsal.weights)))


def copy_name(service: str, fault: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', service)}-{fault}"


def document(
    rehearsals: dict[str, tuple[Rehearsal, list[str]]], config: Config, admin_port: int, state_dir: str
) -> dict[str, Any]:
    """The file for the rehearsing lb: (rehearsal, its targets' addresses) by the copy's name."""
    services: dict[str, Any] = {}
    routes: list[dict[str, Any]] = []
    for name, (rehearsal, addresses) in rehearsals.items():
        targets = [
            {"url": f"http://{address}", "weight": weight}
            for address, weight in zip(addresses, rehearsal.weights, strict=True)
        ]
        services[name] = {"pools": {"drill": {"targets": targets}}, **rehearsal.model}
        routes.append({"host": f"{name}.drill", "path": "/", "service": name})
    return {
        "listeners": [{"bind": "127.0.0.1:0"}],
        "admin": {"bind": f"127.0.0.1:{admin_port}"},
        "services": services,
        "routes": routes,
        "access_log": {"format": "off"},
        "workers": min(config.workers, 2) or 1,
        "state_dir": state_dir,
        "log": {"level": "warning"},
    }


def passing(spec: CheckSpec) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """Status, body and fields of an answer that this check takes for a pass."""
    status = next((low for low, _ in spec.expect.status if low >= 200), 200)
    return status, spec.expect.body or "OK", spec.expect.headers
