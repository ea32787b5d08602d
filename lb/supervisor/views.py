"""What the supervisor knows, as the admin API shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import lb
from lb.control.models import (
    ConfigView,
    DetectionView,
    LastRolloutView,
    ListenerView,
    PoolView,
    ProbeView,
    RunView,
    ServiceView,
    Status,
    TargetView,
)
from lb.core.desired import LastRollout
from lb.core.explain import span, trial_text
from lb.core.lifecycle import Health, Seen, in_rotation, shown, shown_since
from lb.core.report import PoolTally, TargetTally
from lb.core.rotation import given_shares
from lb.core.runs import Run, sentence
from lb.core.targets import Pool, Service, Target
from lb.supervisor.rates import Traffic
from lb.supervisor.totals import Sums

if TYPE_CHECKING:
    from lb.supervisor.main import Supervisor

#: Failures that say that there is nobody.
NOBODY = frozenset({"refused", "unreachable", "dns"})


def unix(monotonic: float) -> float:
    """A monotonic time as Unix time."""
    return time.time() - time.monotonic() + monotonic


def status_view(supervisor: Supervisor, sums: Sums) -> Status:
    """Everything at a glance."""
    ready, _ = supervisor.operations.readyz()
    return Status(
        version=lb.__version__,
        revision=supervisor.desired.current.version,
        started_at=supervisor.state.started_at,
        ready=ready,
        pid=os.getpid(),
        workers=supervisor.workers.pids,
        workers_leaving=supervisor.workers.leaving,
        empty_seats=supervisor.workers.empty_seats,
        worker_restarts=supervisor.workers.restarts,
        in_flight=sums.in_flight,
        downstream_connections=sums.downstream,
        state_trouble=state_trouble(supervisor),
        access_log_trouble=sums.log_trouble,
        config=ConfigView(
            file=str(supervisor.state.path),
            loaded_at=supervisor.reloads.loaded_at,
            last_reload_ok=supervisor.reloads.ok,
            last_error=supervisor.reloads.error,
            needs_restart=supervisor.reloads.needs_restart,
            unconfirmed=supervisor.workers.behind,
        ),
        listeners=[ListenerView(bind=bind, address=address) for bind, address in supervisor.state.addresses.items()],
        admin=supervisor.admin_address,
        services=[service_view(supervisor, service, sums) for service in supervisor.state.world.snapshot.services],
    )


def state_trouble(supervisor: Supervisor) -> str:
    """Why something of the state directory cannot be written; empty: all of it can."""
    return supervisor.desired.trouble or supervisor.events.log.trouble or supervisor.ledger.trouble


def service_view(supervisor: Supervisor, service: Service, sums: Sums) -> ServiceView:
    """One service with its pools."""
    desired = supervisor.desired.current.services[service.name]
    rotation = supervisor.rotations.current[service.name]
    shares = given_shares(rotation)
    recent = supervisor.rates.of_service(service.name)
    requests = sum(tally.requests for (name, _), tally in sums.pools.items() if name == service.name)
    return ServiceView(
        name=service.name,
        active=desired.active,
        configured=desired.configured,
        previous=desired.previous or None,
        since=desired.since,
        in_flight=sum(
            sums.targets[target.id].in_flight
            for pool in service.pools
            for target in pool.targets
            if target.id in sums.targets
        ),
        pools=[
            _pool_view(supervisor, service, pool, shares.get(pool.name, 0), pool.name == desired.active, sums)
            for pool in service.pools
        ],
        detection=_detection(supervisor, service.name),
        rollout=supervisor.rollouts.view(service.name),
        last_rollout=_last_rollout(desired.last),
        requests=requests,
        **_figures(recent),
    )


def _last_rollout(last: LastRollout | None) -> LastRolloutView | None:
    if last is None:
        return None
    return LastRolloutView(
        from_=last.old, to=last.new, result=last.result, reason=last.reason, at=last.at, text=last.text
    )


def _detection(supervisor: Supervisor, service: str) -> DetectionView | None:
    found = supervisor.state.world.detections.get(service)
    return DetectionView(worst=found.worst, expected=found.expected) if found else None


def _pool_view(supervisor: Supervisor, service: Service, pool: Pool, share: int, active: bool, sums: Sums) -> PoolView:
    weights = dict(dict(supervisor.rotations.current[service.name].weights).get(pool.name, ()))
    total = sum(weights.values())
    tally = sums.pools.get((service.name, pool.name), PoolTally(service.name, pool.name))
    return PoolView(
        name=pool.name,
        active=active,
        share=share,
        **stages(supervisor, pool),
        targets=[
            target_view(supervisor, target, weights.get(target.id, 0.0) / total if total else 0.0, sums)
            for target in pool.targets
        ],
        requests=tally.requests,
        **_figures(supervisor.rates.of_pool(service.name, pool.name)),
    )


def stages(supervisor: Supervisor, pool: Pool) -> dict[str, int]:
    """How many of its targets are requested (configured), running (somebody answers there), healthy (can serve)."""
    healths = {target.id: supervisor.monitor.healths.get(target.id) for target in pool.targets}
    able, _ = supervisor.rotations.strength(pool)
    found = {"requested": len(pool.targets) - len(pool.replaced), "running": 0, "healthy": able}
    for id, health in healths.items():
        if health is not None:
            found["running"] += _runs(health, supervisor.monitor.history(id))
    return found


def _runs(health: Health, history: Sequence[Seen]) -> bool:
    """Whether somebody answers there, ready or not; one that hangs may still run."""
    return history[-1].verdict.kind not in NOBODY if history else health.probe == "ready"


def weight_in_force(supervisor: Supervisor, target: Target) -> float:
    """The file's weight, or the one that an operator has set."""
    override = supervisor.desired.current.targets.get(target.id)
    return override.weight if override is not None and override.weight is not None else target.weight


def target_view(supervisor: Supervisor, target: Target, share: float, sums: Sums) -> TargetView:
    """One target."""
    now = time.monotonic()
    health = supervisor.monitor.health(target.id)
    override = supervisor.desired.current.targets.get(target.id)
    tally = sums.targets.get(target.id, TargetTally(target.id))
    history = supervisor.monitor.history(target.id)
    overridden = override is not None and override.weight is not None
    return TargetView(
        id=target.id,
        address=target.host if not target.port else f"{target.host}:{target.port}",
        resolved=list(supervisor.monitor.addresses.get(target.id, ())),
        state=shown(health, now),
        since=unix(shown_since(health, now)),
        reason=_reason(supervisor, target, health),
        weight=weight_in_force(supervisor, target),
        share=share,
        in_flight=tally.in_flight,
        connections=tally.idle + tally.active,
        tunnels=tally.tunnels,
        draining=override is not None and override.draining,
        replaced=bool(supervisor.handovers.until(target)),
        serves=supervisor.rotations.can_serve(target),
        trial=trial_text(trial) if (trial := supervisor.monitor.on_trial(target.id)) is not None else "",
        configured_weight=target.weight if overridden else None,
        closes_idle_after=tally.closes_idle_after or None,
        last_probe=probe_view(history[-1]) if history else None,
        requests=sum(tally.codes.values()),
        **_figures(supervisor.rates.of_target(target.id)),
    )


def _reason(supervisor: Supervisor, target: Target, health: Health) -> str:
    if health.admin != "normal":
        return "drained by an operator"
    if health.ejected_until:
        return health.ejected_for
    reason = (supervisor.rotations.why_not(target) if in_rotation(health) else "") or health.text
    until = supervisor.handovers.until(target)
    if until:
        return f"replaced: it serves until a new target can, for {span(until - time.monotonic())} at most; {reason}"
    return reason


def probe_view(seen: object) -> ProbeView:
    """One probe of the monitor's history."""
    at, verdict = seen.at, seen.verdict  # type: ignore[attr-defined]
    return ProbeView(at=unix(at), ok=verdict.ok, seconds=verdict.seconds, text=verdict.text, excerpt=verdict.excerpt)


def run_view(run: Run) -> RunView:
    """Probes folded into a run."""
    return RunView(
        target=run.target,
        check="liveness" if run.check == "liveness" else "readiness",
        result=run.result,
        kind=run.kind,
        count=run.count,
        passed=run.passed,
        failed=run.failed,
        first=run.first,
        last=run.last,
        fastest=run.low,
        slowest=run.high,
        text=run.text,
        doubt=run.doubt,
        told=sentence(run),
    )


def _figures(traffic: Traffic) -> dict[str, float | None]:
    return {
        "rate": traffic.rate,
        "error_rate": traffic.error_rate,
        "p50": traffic.percentile(0.5),
        "p99": traffic.percentile(0.99),
    }
