"""The metrics, as Prometheus reads them: one collector over values that are already in hand.

Counting happens on plain integers where things happen; here they are only written down. Label sets are bounded: by the
configuration, by the status codes, by the reasons that the code knows.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

import lb
from lb import build_form
from lb.control.histogram import Histogram
from lb.core.background import LOOPS
from lb.core.report import BUCKETS, HandshakeTally, PoolTally, TargetTally

STATES = ("starting", "ready", "slow_start", "unready", "ejected", "draining", "drained")

#: Statuses with which lb answers by itself for a pool. Their series begin at 0, so that a share of errors is 0 and not
#: nothing before the first one.
OWN_ERRORS = ("502", "503", "504")

#: name → (type, labels, help). The reference page is made from this table.
METRICS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "lb_requests_total": (
        "counter",
        ("service", "pool", "target", "code"),
        "Requests by status as the client saw it; target is none when the proxy answered by itself.",
    ),
    "lb_request_duration_seconds": (
        "histogram",
        ("service", "pool"),
        "Time from a request's head to the last byte of its answer.",
    ),
    "lb_upstream_duration_seconds": (
        "histogram",
        ("service", "pool", "target"),
        "The same for the requests that a target answered.",
    ),
    "lb_requests_in_flight": ("gauge", ("service", "pool", "target"), "Requests that a target is working on."),
    "lb_requests_waiting": ("gauge", ("service", "pool"), "Requests in the pool's queue: no target has room for them."),
    "lb_target_failures_total": (
        "counter",
        ("service", "pool", "target", "kind"),
        "Tries that failed at a target, by kind (connect, reset, timeout, 5xx), whatever the client got. A connection "
        "that timed out is both connect and timeout.",
    ),
    "lb_target_weight": ("gauge", ("service", "pool", "target"), "The weight in force: the file's, or an operator's."),
    "lb_target_alive": (
        "gauge",
        ("service", "pool", "target"),
        "1 if the liveness check has passed last, 0 if the target counts as dead; only where it has decided.",
    ),
    "lb_retries_total": ("counter", ("service", "reason"), "Tries after the first, by why the one before failed."),
    "lb_checks_on_trial": (
        "gauge",
        ("service", "pool"),
        "Targets on which a changed check has not passed yet, so that the former one decides.",
    ),
    "lb_target_ready": (
        "gauge",
        ("service", "pool", "target"),
        "1 if the target can serve: in rotation, and its weight is above 0.",
    ),
    "lb_target_state": ("gauge", ("service", "pool", "target", "state"), "1 for the target's state, else 0."),
    "lb_target_transitions_total": (
        "counter",
        ("service", "pool", "target", "to"),
        "Changes of a target's state, by the new one.",
    ),
    "lb_probes_total": (
        "counter",
        ("service", "pool", "target", "kind", "result"),
        "Probes by kind (readiness, liveness) and result (passed, failed, ignored).",
    ),
    "lb_probe_duration_seconds": ("histogram", ("service", "kind"), "Time that probes took."),
    "lb_probe_late_seconds": ("gauge", (), "99th percentile of how late the last probes began, by their schedule."),
    "lb_pool_active": ("gauge", ("service", "pool"), "1 for the active pool of a service, else 0."),
    "lb_pool_targets": (
        "gauge",
        ("service", "pool", "stage"),
        "Targets by how far they are: requested (configured), running (it answers), healthy (in rotation).",
    ),
    "lb_pool_traffic_ratio": (
        "gauge",
        ("service", "pool"),
        "The pool's share of the service's requests now, a serving fallback's included, 0 to 1.",
    ),
    "lb_switches_total": (
        "counter",
        ("service", "result"),
        "Switches by result (done, refused, rolled_back, frozen, failed: its pre hook).",
    ),
    "lb_rollout_state": (
        "gauge",
        ("service", "state"),
        "1 for the state of a rollout that is not over (stepping, held, baking, frozen).",
    ),
    "lb_rollout_requests_needed": (
        "gauge",
        ("service",),
        "Requests that the analysis of a rollout still needs; above 0: not enough data.",
    ),
    "lb_grpc_requests_total": (
        "counter",
        ("service", "grpc_status"),
        "Calls of gRPC by the status that their clients got, lb's own answers included.",
    ),
    "lb_route_step_total": (
        "counter",
        ("route", "step", "outcome"),
        "Requests by what a step of their route did: the reason of its answer, or for limits `passed` or `dry_run`.",
    ),
    "lb_route_maintenance": ("gauge", ("route",), "1 for each route in maintenance, whose clients get 503."),
    "lb_rate_limit_evictions_total": (
        "counter",
        (),
        "Buckets of rate limits that gave way to other keys before they were full: the table has too many keys.",
    ),
    "lb_mirrored_total": ("counter", ("service", "outcome"), "Mirrored copies by what came of them."),
    "lb_downstream_connections": ("gauge", (), "Client connections open."),
    "lb_downstream_accepted_total": ("counter", (), "Client connections accepted."),
    "lb_downstream_streams": ("gauge", ("protocol",), "Requests under way, by the protocol of the client."),
    "lb_http2_refused_total": (
        "counter",
        ("reason",),
        "Streams of HTTP/2 refused or reset for a fault of the client's, and connections ended so, by reason.",
    ),
    "lb_upstream_connections": ("gauge", ("service", "state"), "Connections to targets by state (idle, active)."),
    "lb_upstream_streams": (
        "gauge",
        ("service", "protocol"),
        "Requests under way at targets, by the protocol that is spoken to them.",
    ),
    "lb_rejected_total": ("counter", ("reason",), "Answers of the proxy's own and connections turned away, by reason."),
    "lb_tls_handshakes_total": (
        "counter",
        ("listener", "version", "result"),
        "TLS handshakes by result: ok, or why they failed. `version` is none where none was agreed upon.",
    ),
    "lb_tls_handshake_duration_seconds": (
        "histogram",
        ("listener",),
        "Time of successful TLS handshakes, from the accept to their end.",
    ),
    "lb_tls_resumptions_total": ("counter", ("listener",), "Successful TLS handshakes that resumed a session."),
    "lb_access_log_lines_lost_total": (
        "counter",
        (),
        "Access log lines that no reader or disk took, or that a worker that died had not written yet.",
    ),
    "lb_access_log_writable": (
        "gauge",
        (),
        "1 if every worker could open and write its access log the last time, else 0.",
    ),
    "lb_requests_lost_total": ("counter", (), "Requests that were under way in workers when these died."),
    "lb_config_last_reload_successful": (
        "gauge",
        (),
        "1 if the configuration that was read last is in force in all workers, else 0.",
    ),
    "lb_config_reloads_total": (
        "counter",
        ("result",),
        "Readings of the configuration by result (ok; partial: some certificates could not be taken; failed; "
        "unconfirmed: in force, but a worker did not confirm it).",
    ),
    "lb_tls_certificate_not_after_seconds": (
        "gauge",
        ("name",),
        "Unix time at which the certificate of a host name ends; of several, the first end.",
    ),
    "lb_certificate_renewals_total": (
        "counter",
        ("name", "result"),
        "Orders of certificates that lb gets from ACME authorities, by result (ok, failed).",
    ),
    "lb_certificate_failing": (
        "gauge",
        ("name",),
        "1 if the last order of the name's certificate failed, or the first one has not come yet, else 0.",
    ),
    "lb_tls_certificates_unusable": (
        "gauge",
        (),
        "Certificates that are broken on the disk, so that the former one is served, or none.",
    ),
    "lb_discovery_up": (
        "gauge",
        ("service", "pool", "provider"),
        "1 if the source of a pool's targets answered the last time it was asked, else 0: its targets stay.",
    ),
    "lb_discovery_last_success_timestamp_seconds": (
        "gauge",
        ("service", "pool", "provider"),
        "Unix time at which the source answered last; 0: not since lb started.",
    ),
    "lb_discovery_targets": ("gauge", ("service", "pool", "provider"), "Targets that the source names."),
    "lb_discovery_held_removals": (
        "gauge",
        ("service", "pool", "provider"),
        "Targets that the source no longer names, kept while they pass their checks: too many were gone at one time.",
    ),
    "lb_worker_restarts_total": ("counter", (), "Workers that had to be replaced."),
    "lb_background_restarts_total": (
        "counter",
        ("loop",),
        "Background loops that failed and were started again; the log says why, with a traceback.",
    ),
    "lb_unhandled_errors_total": (
        "counter",
        ("process",),
        "Exceptions that nothing caught, of callbacks and tasks in the supervisor and the workers; the log has them.",
    ),
    "lb_process_start_time_seconds": (
        "gauge",
        ("process",),
        "Unix time at which a process began: the supervisor, or a worker by its number.",
    ),
    "lb_process_cpu_seconds_total": ("counter", ("process",), "Processor time that it has used."),
    "lb_process_resident_memory_bytes": ("gauge", ("process",), "Memory that it holds."),
    "lb_process_open_fds": ("gauge", ("process",), "Descriptors that it has open."),
    "lb_workers": ("gauge", (), "Workers that are alive."),
    "lb_state_writable": ("gauge", (), "1 if the desired state could be written the last time, else 0."),
    "lb_build_info": ("gauge", ("version", "python", "form"), "1; the labels say what runs. `form`: pure or compiled."),
}

_NONE = ("none", "none", "none")
#: The results of reading the configuration.
RELOADS = ("ok", "partial", "failed", "unconfirmed")


class ProcessFigures(NamedTuple):
    """The resources of one process."""

    started: float  # Unix time
    cpu: float  # seconds
    resident: int  # bytes
    descriptors: int


class SourceFigures(NamedTuple):
    """A source of targets."""

    up: bool
    last_success: float  # Unix time
    named: int
    held: int


@dataclass(slots=True)
class Figures:
    """All that the metrics are written from."""

    targets: Mapping[str, TargetTally]  # id → counters over all workers
    places: Mapping[str, tuple[str, str, str]]  # id → labels (service, pool, target)
    pools: Mapping[tuple[str, str], PoolTally]
    states: Mapping[str, str]  # id → state
    weights: Mapping[str, float]  # id → weight in force
    alive: Mapping[str, bool]  # id → what the liveness check has decided, where it has
    able: Collection[str]  # ids of the targets that can serve
    trials: Mapping[tuple[str, str], int]  # (service, pool) → targets whose changed check has not passed yet
    shares: Mapping[tuple[str, str], float]  # (service, pool) → 0..1
    active: Mapping[str, str]  # service → pool
    stages: Mapping[tuple[str, str, str], int]  # (service, pool, requested | running | healthy) → targets
    retries: Mapping[str, Mapping[str, int]]
    mirrored: Mapping[str, Mapping[str, int]]
    rejected: Mapping[str, int]
    handshakes: Mapping[str, HandshakeTally]  # by listener
    transitions: Mapping[tuple[str, str], int]  # (target id, state) → count
    probes: Mapping[tuple[str, str, str], int]  # (target id, kind, result) → count
    probe_seconds: Mapping[tuple[str, str], Histogram]  # (service, kind)
    probes_late: float  # seconds
    switches: Mapping[tuple[str, str], int]
    rollouts: Mapping[str, tuple[str, int]]  # service → (state, requests still needed), of releases under way
    reloads: Mapping[str, int]
    processes: Mapping[str, ProcessFigures]  # supervisor, or a worker's number
    streams: Mapping[str, int] = field(default_factory=dict)  # protocol → requests under way
    http2_refused: Mapping[str, int] = field(default_factory=dict)
    downstream: int = 0
    accepted: int = 0
    maintenance: Collection[str] = ()  # titles of routes
    rate_evictions: int = 0
    log_lines_lost: int = 0
    log_writable: bool = True
    requests_lost: int = 0
    reload_ok: bool = True
    worker_restarts: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)  # background loops: label → times
    waiting: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # service → pool → requests, if any
    grpc: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # service → grpc-status → calls
    steps: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)  # route → step → result
    errors: Mapping[str, int] = field(default_factory=dict)  # supervisor | worker → exceptions that nothing caught
    workers: int = 0
    state_writable: bool = True
    certificates: Mapping[str, float] = field(default_factory=dict)  # host name → Unix time of its certificate's end
    certificates_unusable: int = 0
    renewals: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (name, result) of orders
    failing: Mapping[str, bool] = field(default_factory=dict)  # name → whether its certificate does not come
    sources: Mapping[tuple[str, str, str], SourceFigures] = field(default_factory=dict)  # (service, pool, provider)
    over_http2: Collection[str] = ()  # ids of the targets that speak HTTP/2


def exposition(figures: Figures) -> bytes:
    """The text that /metrics answers with."""
    registry = CollectorRegistry()
    registry.register(_Collector(figures))
    return generate_latest(registry)


class _Collector:
    """Writes `Figures` down as metric families."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        f = self._figures
        yield self._requests()
        durations = _histogram("lb_request_duration_seconds")
        for key, seen in sorted(f.pools.items()):
            _add(durations, key, seen.buckets, seen.seconds)
        yield durations
        upstream = _histogram("lb_upstream_duration_seconds")
        for id, tally in f.targets.items():
            _add(upstream, self._place(id), tally.buckets, tally.seconds)
        yield upstream
        yield _gauge("lb_requests_in_flight", {self._place(id): t.in_flight for id, t in f.targets.items()})
        yield _gauge("lb_requests_waiting", {(s, p): f.waiting.get(s, {}).get(p, 0) for s, p in f.shares})
        yield _counter("lb_target_failures_total", self._failures())
        yield _gauge("lb_target_weight", {self._place(id): weight for id, weight in f.weights.items()})
        yield _gauge("lb_target_alive", {self._place(id): alive for id, alive in f.alive.items()})
        yield _counter("lb_retries_total", _flat(f.retries))
        yield _gauge("lb_checks_on_trial", f.trials)
        yield _gauge("lb_target_ready", {self._place(id): id in f.able for id in f.states})
        yield _gauge(
            "lb_target_state", {(*self._place(id), s): s == now for id, now in f.states.items() for s in STATES}
        )
        yield _counter(
            "lb_target_transitions_total", {(*self._place(i), to): n for (i, to), n in f.transitions.items()}
        )
        yield _counter("lb_probes_total", {(*self._place(i), k, r): n for (i, k, r), n in f.probes.items()})
        probes = _histogram("lb_probe_duration_seconds")
        for labels, histogram in f.probe_seconds.items():
            _add(probes, labels, histogram.buckets, histogram.seconds)
        yield probes
        yield _gauge("lb_probe_late_seconds", {(): f.probes_late})
        yield _gauge("lb_pool_active", {key: f.active.get(key[0]) == key[1] for key in f.shares})
        yield _gauge("lb_pool_targets", f.stages)
        yield _gauge("lb_pool_traffic_ratio", f.shares)
        yield _counter("lb_switches_total", f.switches)
        yield _gauge("lb_rollout_state", {(name, state): 1 for name, (state, _) in f.rollouts.items()})
        yield _gauge("lb_rollout_requests_needed", {(name,): needed for name, (_, needed) in f.rollouts.items()})
        yield _counter("lb_grpc_requests_total", _flat(f.grpc))
        yield _counter(
            "lb_route_step_total",
            {(r, s, result): n for r, steps in f.steps.items() for s, c in steps.items() for result, n in c.items()},
        )
        yield _gauge("lb_route_maintenance", {(title,): 1 for title in f.maintenance})
        yield _counter("lb_rate_limit_evictions_total", {(): f.rate_evictions})
        yield _counter("lb_mirrored_total", _flat(f.mirrored))
        yield _gauge("lb_downstream_connections", {(): f.downstream})
        yield _counter("lb_downstream_accepted_total", {(): f.accepted})
        yield _gauge("lb_downstream_streams", {(protocol,): count for protocol, count in f.streams.items()})
        yield _counter("lb_http2_refused_total", {(reason,): count for reason, count in f.http2_refused.items()})
        yield _gauge("lb_upstream_connections", self._connections())
        yield _gauge("lb_upstream_streams", self._streams())
        yield _counter("lb_rejected_total", {(reason,): count for reason, count in f.rejected.items()})
        yield _counter("lb_tls_handshakes_total", self._handshakes())
        handshakes = _histogram("lb_tls_handshake_duration_seconds")
        for listener, seen_there in sorted(f.handshakes.items()):
            _add(handshakes, (listener,), seen_there.buckets, seen_there.seconds)
        yield handshakes
        yield _counter("lb_tls_resumptions_total", {(name,): tally.resumed for name, tally in f.handshakes.items()})
        yield _counter("lb_access_log_lines_lost_total", {(): f.log_lines_lost})
        yield _gauge("lb_access_log_writable", {(): f.log_writable})
        yield _counter("lb_requests_lost_total", {(): f.requests_lost})
        yield _gauge("lb_config_last_reload_successful", {(): f.reload_ok})
        yield _gauge("lb_tls_certificate_not_after_seconds", {(name,): at for name, at in f.certificates.items()})
        yield _counter("lb_certificate_renewals_total", f.renewals)
        yield _gauge("lb_certificate_failing", {(name,): failing for name, failing in f.failing.items()})
        yield _gauge("lb_tls_certificates_unusable", {(): f.certificates_unusable})
        yield _counter("lb_config_reloads_total", {(result,): f.reloads.get(result, 0) for result in RELOADS})
        yield _gauge("lb_discovery_up", {key: each.up for key, each in f.sources.items()})
        seen_at = {key: each.last_success for key, each in f.sources.items()}
        yield _gauge("lb_discovery_last_success_timestamp_seconds", seen_at)
        yield _gauge("lb_discovery_targets", {key: each.named for key, each in f.sources.items()})
        yield _gauge("lb_discovery_held_removals", {key: each.held for key, each in f.sources.items()})
        yield _counter("lb_worker_restarts_total", {(): f.worker_restarts})
        yield _counter("lb_background_restarts_total", {(label,): f.restarts.get(label, 0) for label in LOOPS})
        yield _counter("lb_unhandled_errors_total", {(process,): count for process, count in f.errors.items()})
        yield _gauge("lb_process_start_time_seconds", {(name,): p.started for name, p in f.processes.items()})
        yield _counter("lb_process_cpu_seconds_total", {(name,): p.cpu for name, p in f.processes.items()})
        yield _gauge("lb_process_resident_memory_bytes", {(name,): p.resident for name, p in f.processes.items()})
        yield _gauge("lb_process_open_fds", {(name,): p.descriptors for name, p in f.processes.items()})
        yield _gauge("lb_workers", {(): f.workers})
        yield _gauge("lb_state_writable", {(): f.state_writable})
        yield _gauge("lb_build_info", {(lb.__version__, platform.python_version(), build_form.form()): 1})

    def _place(self, id: str) -> tuple[str, str, str]:
        return self._figures.places.get(id, _NONE)

    def _requests(self) -> Metric:
        values: dict[tuple[str, ...], float] = {}
        for id, tally in self._figures.targets.items():
            for code, count in tally.codes.items():
                values[(*self._place(id), str(code))] = count
        for (service, pool), pool_tally in self._figures.pools.items():
            for code, count in pool_tally.codes.items():
                values[service, pool, "none", str(code)] = count
        for (service, pool), error in product(self._figures.shares, OWN_ERRORS):
            values.setdefault((service, pool, "none", error), 0)
        return _counter("lb_requests_total", values)

    def _handshakes(self) -> dict[tuple[str, ...], float]:
        return {
            (listener, version, result): count
            for listener, tally in self._figures.handshakes.items()
            for version, results in tally.results.items()
            for result, count in results.items()
        }

    def _failures(self) -> dict[tuple[str, ...], float]:
        values: dict[tuple[str, ...], float] = {}
        for id, tally in self._figures.targets.items():
            place = self._place(id)
            values[*place, "connect"] = tally.connect_failures
            values[*place, "reset"] = tally.resets
            values[*place, "timeout"] = tally.timeouts
            values[*place, "5xx"] = tally.server_errors
        return values

    def _connections(self) -> dict[tuple[str, ...], float]:
        values: dict[tuple[str, ...], float] = {}
        for id, tally in self._figures.targets.items():
            service = self._place(id)[0]
            for state, count in (("idle", tally.idle), ("active", tally.active)):
                values[service, state] = values.get((service, state), 0) + count
        return values

    def _streams(self) -> dict[tuple[str, ...], float]:
        values: dict[tuple[str, ...], float] = {}
        for id, tally in self._figures.targets.items():
            key = self._place(id)[0], "h2" if id in self._figures.over_http2 else "http/1.1"
            values[key] = values.get(key, 0) + tally.in_flight
        return values


def _counter(name: str, values: Mapping[Any, float]) -> Metric:
    _, labels, text = METRICS[name]
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, values: Mapping[Any, float]) -> Metric:
    _, labels, text = METRICS[name]
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _histogram(name: str) -> HistogramMetricFamily:
    _, labels, text = METRICS[name]
    return HistogramMetricFamily(name, text, labels=labels)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], buckets: list[int], seconds: float) -> None:
    total = 0
    cumulative: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), buckets, strict=True):
        total += count
        cumulative.append((bound, total))
    family.add_metric(labels, buckets=cumulative, sum_value=seconds)


def _flat(nested: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, ...], float]:
    return {(outer, inner): count for outer, counts in nested.items() for inner, count in counts.items()}
