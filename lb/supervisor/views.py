"""The supervisor's state, as the admin API shows it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence

import lb
from lb import build_form
from lb.control.models import (
    ConfigView,
    DetectionView,
    DiscoveryView,
    LastRolloutView,
    ListenerView,
    MaintenanceView,
    PoolView,
    ProbeView,
    RunView,
    ServiceView,
    Status,
    TargetView,
)
from lb.control.probe_history import ProbeHistory
from lb.core.desired import Desired, LastRollout
from lb.core.explain import span, trial_text
from lb.core.lifecycle import Health, Seen, in_rotation, shown, shown_since
from lb.core.report import PoolTally, TargetTally
from lb.core.rotation import given_shares, is_served
from lb.core.runs import Run, sentence
from lb.core.targets import Pool, Service, Target, spoken
from lb.health.monitor import Monitor
from lb.supervisor.admin_port import AdminPort
from lb.supervisor.certificate_views import renewal_views
from lb.supervisor.desired import DesiredState
from lb.supervisor.discoveries import Discoveries, Watched
from lb.supervisor.events import Events
from lb.supervisor.handovers import Handovers
from lb.supervisor.issuing import Issuing
from lb.supervisor.rates import Rates, Traffic
from lb.supervisor.reloads import Reloads
from lb.supervisor.rollouts import Rollouts
from lb.supervisor.rotations import Rotations
from lb.supervisor.state import State
from lb.supervisor.totals import Counters
from lb.supervisor.unix_time import unix
from lb.supervisor.workers import Workers

#: Failures that mean that no process is at the address.
NOBODY = frozenset({"refused", "unreachable", "dns"})


class Views:
    """The views of one supervisor."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        rotations: Rotations,
        workers: Workers,
        monitor: Monitor,
        events: Events,
        probe_history: ProbeHistory,
        rates: Rates,
        rollouts: Rollouts,
        reloads: Reloads,
        handovers: Handovers,
        admin: AdminPort,
        issuing: Issuing,
        discoveries: Discoveries,
    ) -> None:
        self._state = state
        self._desired = desired
        self._rotations = rotations
        self._workers = workers
        self._monitor = monitor
        self._events = events
        self._probe_history = probe_history
        self._rates = rates
        self._rollouts = rollouts
        self._reloads = reloads
        self._handovers = handovers
        self._admin = admin
        self._issuing = issuing
        self._discoveries = discoveries

    def readyz(self) -> tuple[bool, str]:
        """Whether clients can be served, and why not."""
        if self._state.draining:
            return False, "draining"
        if waits := self._discoveries.waits_for():
            return False, f"no targets yet from {waits}"
        if any(is_served(rotation) for rotation in self._rotations.current.values()):
            return True, "ready"
        return False, "no service has a target that can serve: all clients get 503"

    def status(self, sums: Counters) -> Status:
        """Everything at a glance."""
        ready, _ = self.readyz()
        return Status(
            version=lb.__version__,
            form=build_form.form(),
            python=platform.python_version(),
            revision=self._desired.current.version,
            started_at=self._state.started_at,
            ready=ready,
            pid=os.getpid(),
            workers=self._workers.pids,
            workers_leaving=self._workers.leaving,
            empty_seats=self._workers.empty_seats,
            worker_restarts=self._workers.restarts,
            in_flight=sums.in_flight,
            downstream_connections=sums.downstream,
            state_trouble=self.state_trouble(),
            access_log_trouble=sums.log_trouble,
            certificates=[
                each for each in renewal_views(self._issuing) if each.failures or each.waiting_since is not None
            ],
            maintenance=maintenance_views(self._desired.current),
            config=ConfigView(
                file=str(self._state.path),
                loaded_at=self._reloads.loaded_at,
                last_reload_ok=self._reloads.ok,
                last_reload_partial=self._reloads.partial,
                last_error=self._reloads.error,
                needs_restart=self._reloads.needs_restart,
                unconfirmed=self._workers.behind,
            ),
            listeners=[ListenerView(bind=bind, address=address) for bind, address in self._state.addresses.items()],
            admin=self._admin.address,
            services=[self.service(service, sums) for service in self._state.world.snapshot.services],
        )

    def state_trouble(self) -> str:
        """Why something of the state directory cannot be written; empty: all of it can."""
        return (
            self._desired.trouble
            or self._events.log.trouble
            or self._probe_history.trouble
            or (f"certificates: {self._issuing.trouble}" if self._issuing.trouble else "")
            or self._discoveries.trouble
        )

    def service(self, service: Service, sums: Counters) -> ServiceView:
        """One service with its pools."""
        desired = self._desired.current.services[service.name]
        rotation = self._rotations.current[service.name]
        shares = given_shares(rotation)
        recent = self._rates.of_service(service.name)
        of_targets = {target.id: self._rates.of_target(target.id) for pool in service.pools for target in pool.targets}
        recent.client_errors += sum(each.client_errors for each in of_targets.values())
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
                self._pool(service, pool, shares.get(pool.name, 0), pool.name == desired.active, sums, of_targets)
                for pool in service.pools
            ],
            detection=self._detection(service.name),
            rollout=self._rollouts.view(service.name),
            last_rollout=_last_rollout(desired.last),
            requests=requests,
            retry_rate=recent.retry_rate,
            **_figures(recent),
        )

    def _detection(self, service: str) -> DetectionView | None:
        found = self._state.world.detections.get(service)
        return DetectionView(worst=found.worst, expected=found.expected) if found else None

    def _pool(
        self,
        service: Service,
        pool: Pool,
        share: int,
        active: bool,
        sums: Counters,
        of_targets: dict[str, Traffic],
    ) -> PoolView:
        tally = sums.pools.get((service.name, pool.name), PoolTally(service.name, pool.name))
        recent = self._rates.of_pool(service.name, pool.name)
        recent.client_errors += sum(of_targets[target.id].client_errors for target in pool.targets)
        return PoolView(
            name=pool.name,
            active=active,
            share=share,
            **self.stages(pool),
            targets=[self.target(target, sums, of_targets[target.id]) for target in pool.targets],
            discovery=_discovery(self._discoveries.of((service.name, pool.name))),
            requests=tally.requests,
            waiting=sums.waiting.get(service.name, {}).get(pool.name, 0),
            **_figures(recent),
        )

    def stages(self, pool: Pool) -> dict[str, int]:
        """How many of its targets are requested (configured), running (they answer), healthy (can serve)."""
        healths = {target.id: self._monitor.healths.get(target.id) for target in pool.targets}
        able, _ = self._rotations.strength(pool)
        found = {"requested": len(pool.targets) - len(pool.replaced), "running": 0, "healthy": able}
        for id, health in healths.items():
            if health is not None:
                found["running"] += _runs(health, self._monitor.history(id))
        return found

    def weight_in_force(self, target: Target) -> float:
        """The file's weight, or an operator's."""
        override = self._desired.current.targets.get(target.id)
        return override.weight if override is not None and override.weight is not None else target.weight

    def share(self, target: Target) -> float:
        """The target's part of its pool's requests."""
        weights = dict(dict(self._rotations.current[target.service].weights).get(target.pool, ()))
        total = sum(weights.values())
        return weights.get(target.id, 0.0) / total if total else 0.0

    def target(self, target: Target, sums: Counters, recent: Traffic | None = None) -> TargetView:
        """One target. `recent`: what it has answered in the recent past, if that was looked up before."""
        now = time.monotonic()
        health = self._monitor.health(target.id)
        override = self._desired.current.targets.get(target.id)
        tally = sums.targets.get(target.id, TargetTally(target.id))
        history = self._monitor.history(target.id)
        found = self._discoveries.naming(target)
        overridden = override is not None and override.weight is not None
        return TargetView(
            id=target.id,
            address=target.host if not target.port else f"{target.host}:{target.port}",
            protocol=spoken(target.http2),
            resolved=list(self._monitor.addresses.get(target.id, ())),
            state=shown(health, now),
            since=unix(shown_since(health, now)),
            reason=self._reason(target, health),
            weight=self.weight_in_force(target),
            share=self.share(target),
            in_flight=tally.in_flight,
            connections=tally.idle + tally.active,
            tunnels=tally.tunnels,
            draining=override is not None and override.draining,
            replaced=bool(self._handovers.until(target)),
            source=found[0].title if found is not None else "",
            kept=found is not None and found[1] is not None,
            serves=self._rotations.can_serve(target),
            trial=trial_text(trial) if (trial := self._monitor.on_trial(target.id)) is not None else "",
            configured_weight=target.weight if overridden else None,
            closes_idle_after=tally.closes_idle_after or None,
            last_probe=probe_view(history[-1]) if history else None,
            requests=sum(tally.codes.values()),
            **_figures(recent or self._rates.of_target(target.id)),
        )

    def _reason(self, target: Target, health: Health) -> str:
        if health.admin != "normal":
            return "drained by an operator"
        if health.ejected_until:
            return health.ejected_for
        reason = (self._rotations.why_not(target) if in_rotation(health) else "") or health.text
        until = self._handovers.until(target)
        if until:
            return f"replaced: it serves until a new target can, for {span(until - time.monotonic())} at most; {reason}"
        found = self._discoveries.naming(target)
        if found is not None and found[1] is not None:
            return f"kept: {found[0].title} no longer names it, since {span(time.monotonic() - found[1])}; {reason}"
        return reason


def _discovery(watched: Watched | None) -> DiscoveryView | None:
    if watched is None:
        return None
    return DiscoveryView(
        provider=watched.settings.kind(),
        source=watched.title,
        up=bool(watched.up),
        error=watched.error,
        problems=list(watched.problems),
        last_success=watched.last_success or None,
        named=len(watched.members.named),
        kept=[each.found.address for each in watched.members.held],
    )


def maintenance_views(desired: Desired) -> list[MaintenanceView]:
    """Routes in maintenance."""
    return [
        MaintenanceView(
            route=title,
            since=wish.since,
            actor=wish.actor,
            retry_after=wish.maintenance.retry_after,
            allow=list(wish.maintenance.allow),
            page=bool(wish.maintenance.page),
        )
        for title, wish in sorted(desired.routes.items())
    ]


def _last_rollout(last: LastRollout | None) -> LastRolloutView | None:
    if last is None:
        return None
    return LastRolloutView(
        from_=last.old, to=last.new, result=last.result, reason=last.reason, at=last.at, text=last.text
    )


def _runs(health: Health, history: Sequence[Seen]) -> bool:
    """Whether the target answers, ready or not; a target that hangs may still run."""
    return history[-1].verdict.kind not in NOBODY if history else health.probe == "ready"


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
        "client_error_rate": traffic.client_error_rate,
        "p50": traffic.percentile(0.5),
        "p99": traffic.percentile(0.99),
    }
