"""What the admin API says and takes. The OpenAPI document is made from these models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["starting", "ready", "slow_start", "unready", "ejected", "draining", "drained"]


class View(BaseModel):
    """Something the API says."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ProbeView(View):
    """One probe that was made."""

    at: float
    """When it began, Unix time."""
    ok: bool
    """Whether it passed."""
    seconds: float
    """How long it took."""
    text: str
    """What was found."""


class TrafficView(View):
    """What the clients' requests looked like over the last ten seconds."""

    requests: int = 0
    """Requests since the start, all workers together."""
    rate: float = 0.0
    """Requests per second."""
    error_rate: float = 0.0
    """Share of requests that were answered with 5xx or cut."""
    p50: float | None = None
    """Median time to the whole answer, seconds; null without requests."""
    p99: float | None = None
    """99th percentile of it, seconds."""


class TargetView(TrafficView):
    """One backend address."""

    id: str
    """`service/pool/host:port`."""
    address: str
    """Where requests are sent."""
    state: State
    """Its state in one word."""
    since: float
    """Since when, Unix time."""
    reason: str
    """Why it is in this state."""
    weight: int
    """Its configured or overridden weight."""
    share: float
    """Its share of the pool's requests now, 0 to 1."""
    in_flight: int = 0
    """Requests it is working on."""
    connections: int = 0
    """Open connections to it, idle ones included."""
    tunnels: int = 0
    """Upgraded connections (WebSocket) open to it."""
    draining: bool = False
    """Whether an operator drains it."""
    configured_weight: int | None = None
    """The file's weight, where an operator's override stands in its place."""
    closes_idle_after: float | None = None
    """Seconds after which it is known to close idle connections."""
    last_probe: ProbeView | None = None
    """The newest readiness probe."""


class PoolView(TrafficView):
    """One version of a service."""

    name: str
    """Its name."""
    active: bool
    """Whether it has the traffic, or most of it in a rollout."""
    share: int
    """Its part of the service's requests, of 100."""
    requested: int
    """Targets configured (Marathon: requested instances)."""
    running: int
    """Targets that answer, ready or not (Marathon: running)."""
    healthy: int
    """Targets that are ready (Marathon: healthy)."""
    targets: list[TargetView]
    """Its targets."""


class DetectionView(View):
    """How long a dead target can stay in rotation."""

    worst: float
    """Seconds at worst."""
    expected: float
    """Seconds on average."""


class ServiceView(TrafficView):
    """What clients want."""

    name: str
    """Its name."""
    active: str
    """The pool that has the traffic."""
    configured: str
    """`active:` in the file."""
    previous: str | None = None
    """The pool that a rollback returns to."""
    since: float = 0.0
    """When the traffic was switched last, Unix time; 0: never."""
    in_flight: int = 0
    """Requests under way."""
    pools: list[PoolView]
    """Its pools."""
    detection: DetectionView | None = None
    """How long a dead target can stay in."""
    rollout: dict[str, Any] | None = None
    """The rollout under way, with its steps and its analysis."""


class ListenerView(View):
    """An address that accepts clients."""

    bind: str
    """As configured."""
    address: str
    """With the port that was chosen for port 0."""


class ConfigView(View):
    """The configuration that runs."""

    file: str
    """Its file."""
    loaded_at: float
    """When it was read, Unix time."""
    last_reload_ok: bool = True
    """Whether the last attempt to read it again succeeded."""
    last_error: str = ""
    """Why it did not."""
    needs_restart: list[str] = Field(default_factory=list)
    """What the file says differently now that only a restart or an upgrade brings about."""


class Status(View):
    """Everything at a glance."""

    version: str
    """Version of lb."""
    revision: int
    """Version of the desired state; the ETag of changes."""
    started_at: float
    """When the supervisor started, Unix time."""
    ready: bool
    """What /readyz says."""
    pid: int = 0
    """Process id of the supervisor."""
    workers: list[int]
    """Process ids of the workers."""
    workers_leaving: list[int] = Field(default_factory=list)
    """Process ids of those that were replaced and only end what is under way."""
    empty_seats: int = 0
    """Workers that died again and again and were given up, until a reload."""
    worker_restarts: int = 0
    """Workers that had to be replaced."""
    in_flight: int = 0
    """Requests under way."""
    downstream_connections: int = 0
    """Client connections."""
    state_trouble: str = ""
    """Why the desired state could not be written, if so."""
    config: ConfigView
    """The configuration that runs."""
    listeners: list[ListenerView]
    """Where clients come in."""
    admin: str
    """The admin port's address."""
    services: list[ServiceView]
    """All services."""


class Explanation(View):
    """Why something is or is not getting traffic."""

    subject: str
    """What was asked about."""
    kind: Literal["service", "target", "request"]
    """What it is."""
    summary: str
    """The answer in one sentence."""
    lines: list[str]
    """The reasons, in order: counters against thresholds, what has to happen next and when."""
    probes: list[ProbeView] = Field(default_factory=list)
    """The last probes, newest first."""


class Event(View):
    """Something that happened."""

    id: int
    """Grows by one with each event."""
    at: float
    """Unix time."""
    kind: str
    """transition | switch | drain | weight | reload | worker | rollout | note"""
    subject: str
    """The service, pool or target it happened to."""
    text: str
    """What happened, and why."""
    actor: str = ""
    """Who asked for it; empty: nobody."""
    before: str = ""
    """What was."""
    after: str = ""
    """What is."""


class SwitchRequest(View):
    """Send a service's traffic to another pool."""

    to: str
    """The pool."""
    steps: list[int] | None = None
    """Percentages, the last one 100; left out: as configured."""
    step_time: str | None = None
    """Length of each step, such as `60s`; left out: as configured."""
    force: bool = False
    """Even if targets are not ready."""
    freeze_on_fail: bool | None = None
    """Stop and tell instead of rolling back, for releases that cannot go back; left out: as configured."""
    bake: str | None = None
    """How long the new pool is watched after the last step, such as `15m`; left out: as configured."""


class DrainRequest(View):
    """Take a target out gently."""

    force: bool = False
    """Even if fewer than min_ready targets are left."""


class WeightRequest(View):
    """Give a target more or less traffic."""

    weight: int = Field(ge=0, le=1000)
    """Relative to the others of its pool."""


class DrainState(View):
    """How far a drain has come."""

    target: str
    """The target's id."""
    safe: bool
    """Whether nothing is in flight there: it may be stopped."""
    in_flight: int
    """Requests left."""
    tunnels: int
    """Upgraded connections left."""
    cut_in: float | None = None
    """Seconds until what is left is cut."""
    estimate: float | None = None
    """Seconds until nothing is left, as far as can be told; null: not draining, or no telling."""


class ProbeResult(View):
    """A probe that was made on demand."""

    target: str
    """The target's id."""
    ok: bool
    """Whether it passed."""
    seconds: float
    """How long it took."""
    text: str
    """What was found."""
    asked: str
    """What was asked."""
    got: str
    """What came back."""
    expected: str
    """What would have been right."""


class ReloadResult(View):
    """What a reload changed."""

    changed: bool
    """Whether anything did."""
    lines: list[str]
    """The changes, in words."""


class UpgradeRequest(View):
    """Put the installed code in the place of the running one."""

    within: float = Field(default=30.0, gt=0, le=600)
    """Seconds that the new lb has to get ready; then the old one goes on."""


class UpgradeResult(View):
    """What an upgrade led to."""

    pid: int
    """Process id of the supervisor that has taken over."""


class ConfigText(View):
    """The text of a configuration file."""

    text: str
    """YAML."""


class ConfigProblem(View):
    """One error of a configuration file."""

    line: int
    """Counted from 1."""
    column: int
    """Counted from 1."""
    message: str
    """What is wrong, and what is allowed."""


class Validation(View):
    """What a configuration text would do."""

    ok: bool
    """Whether it could be loaded."""
    problems: list[ConfigProblem]
    """All its errors."""
    changes: list[str]
    """What it would change of what runs."""
