"""Collects the figures of /metrics from the supervisor's parts."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from copy import deepcopy

from lb.control.metrics import Figures, SourceFigures, exposition
from lb.core.lifecycle import shown
from lb.core.renames import split_id
from lb.core.report import empty_tally
from lb.core.rotation import given_shares
from lb.health.monitor import Monitor
from lb.process.guard import Guard
from lb.supervisor.certificate_views import CertificateViews
from lb.supervisor.desired import DesiredState
from lb.supervisor.discoveries import Discoveries
from lb.supervisor.health_counters import HealthCounters
from lb.supervisor.os.processes import figures as process_figures
from lb.supervisor.reloads import Reloads
from lb.supervisor.rollouts import Rollouts
from lb.supervisor.rotations import Rotations
from lb.supervisor.state import State
from lb.supervisor.totals import Totals
from lb.supervisor.views import Views
from lb.supervisor.workers import Workers


class Metrics:
    """The metrics of one supervisor."""

    def __init__(
        self,
        state: State,
        desired: DesiredState,
        rotations: Rotations,
        workers: Workers,
        monitor: Monitor,
        totals: Totals,
        counters: HealthCounters,
        rollouts: Rollouts,
        reloads: Reloads,
        guard: Guard,
        views: Views,
        certificates: CertificateViews,
        discoveries: Discoveries,
    ) -> None:
        self._state = state
        self._desired = desired
        self._rotations = rotations
        self._workers = workers
        self._monitor = monitor
        self._totals = totals
        self._counters = counters
        self._rollouts = rollouts
        self._reloads = reloads
        self._guard = guard
        self._views = views
        self._certificates = certificates
        self._discoveries = discoveries

    async def exposition(self) -> bytes:
        """The page of /metrics."""
        await self._workers.poll()
        sums = self._totals.sums(self._state.targets)
        sums.fold_routes({route.title() for route in self._state.world.snapshot.routes})
        now, targets, counters = time.monotonic(), self._state.targets, self._counters
        shares: dict[tuple[str, str], float] = {}
        for service in self._state.world.snapshot.services:
            parts = given_shares(self._rotations.current[service.name])
            for pool in service.pools:
                shares[service.name, pool.name] = parts.get(pool.name, 0) / 100
        for id in self._state.targets:
            sums.targets.setdefault(id, empty_tally(id))
        pids = {"supervisor": os.getpid()} | {f"{n}": pid for n, pid in self._workers.by_number.items()}
        used = await asyncio.to_thread(lambda: {name: process_figures(pid) for name, pid in pids.items()})
        # Of thousands of targets it takes half a second, in which probes and workers are to be attended to.
        return await asyncio.to_thread(
            exposition,
            Figures(
                targets=sums.targets,
                places={id: _place(id) for id in sums.targets},
                pools=sums.pools,
                states={id: shown(health, now) for id, health in self._monitor.healths.items()},
                trials=self._trials(),
                weights={id: self._views.weight_in_force(target) for id, target in self._state.targets.items()},
                alive={
                    id: life.state == "alive"
                    for id, life in self._monitor.liveness.items()
                    if life.state != "unknown" and id in self._state.targets
                },
                able={id for id, target in self._state.targets.items() if self._rotations.can_serve(target)},
                over_http2={id for id, target in self._state.targets.items() if target.http2},
                shares=shares,
                active={name: desired.active for name, desired in self._desired.current.services.items()},
                stages={
                    (service.name, pool.name, stage): count
                    for service in self._state.world.snapshot.services
                    for pool in service.pools
                    for stage, count in self._views.stages(pool).items()
                },
                retries=sums.retries,
                waiting=sums.waiting,
                mirrored=sums.mirrored,
                grpc=sums.grpc,
                steps=sums.steps,
                rejected=sums.rejected,
                maintenance=sorted(self._desired.current.routes),
                handshakes=sums.handshakes,
                transitions={key: n for key, n in counters.transitions.items() if key[0] in targets},
                probes={key: n for key, n in counters.probes.items() if key[0] in targets},
                probe_seconds=deepcopy(self._counters.probe_seconds),
                probes_late=_percentile(self._monitor.late(), 0.99),
                switches=dict(self._rollouts.switches),
                rollouts=self._rollouts.states(),
                reloads=dict(self._reloads.counts),
                processes={name: found for name, found in used.items() if found is not None},
                downstream=sums.downstream,
                streams={"h2": sums.http2_streams, "http/1.1": max(sums.in_flight - sums.http2_streams, 0)},
                http2_refused=sums.http2_refused,
                accepted=sums.accepted,
                rate_evictions=sums.rate_evictions,
                log_lines_lost=sums.log_lines_lost,
                log_writable=not sums.log_trouble,
                requests_lost=sums.lost,
                reload_ok=self._reloads.ok and not self._workers.behind,
                certificates=self._certificates.ends(),
                certificates_unusable=len(self._certificates.unusable()),
                renewals=self._certificates.renewals(),
                failing=self._certificates.failing(),
                sources={
                    (*each.place, each.settings.kind()): SourceFigures(
                        bool(each.up), each.last_success, len(each.members.named), len(each.members.held)
                    )
                    for each in self._discoveries.all()
                },
                worker_restarts=self._workers.restarts,
                restarts=self._guard.restarts + Counter(sums.restarts),
                errors={"supervisor": self._guard.errors, "worker": sums.errors},
                workers=len(self._workers.pids),
                state_writable=not self._views.state_trouble(),
            ),
        )

    def _trials(self) -> dict[tuple[str, str], int]:
        """(service, pool) → targets whose changed check has not passed yet."""
        found = {(target.service, target.pool): 0 for target in self._state.targets.values()}
        for id in self._monitor.trials():
            found[self._state.targets[id].service, self._state.targets[id].pool] += 1
        return found


def _place(id: str) -> tuple[str, str, str]:
    """Service, pool and target as the metrics name them."""
    service, pool, target = split_id(id)
    return service, pool, target


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0
