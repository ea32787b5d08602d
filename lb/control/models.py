"""The answers and bodies of the admin API. The OpenAPI document is made from these models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lb.build_form import Form
from lb.config.model.units import DURATION_PATTERN
from lb.control.certificate_models import RenewalView
from lb.control.view import View, Wanted
from lb.core.consequences import Kind as Consequence

#: Largest number of an event: what a browser's number holds exactly.
LAST_ID = 2**53 - 1

State = Literal["starting", "ready", "slow_start", "unready", "ejected", "draining", "drained"]


Duration = Annotated[str, Field(pattern=f"^{DURATION_PATTERN}$", max_length=40)]
Percentage = Annotated[int, Field(ge=1, le=100)]


class ProbeView(View):
    """One probe that was made."""

    at: float
    """When it began, Unix time."""
    ok: bool
    """Whether it passed."""
    seconds: float
    """How long it took."""
    text: str
    """The finding."""
    excerpt: str = ""
    """How the body of an answer that failed begins: 200 characters at most, printable. In memory alone."""


class TrafficView(View):
    """The clients' requests over the last ten seconds."""

    requests: int = 0
    """Requests since the start, all workers together."""
    rate: float = 0.0
    """Requests per second."""
    error_rate: float = 0.0
    """Share of requests that were answered with 5xx or cut."""
    client_error_rate: float = 0.0
    """Share of requests that were answered with 4xx."""
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
    protocol: str = "HTTP/1.1"
    """The protocol that is spoken to it: `HTTP/1.1` or `HTTP/2.0`."""
    resolved: list[str] = []
    """The IP addresses that requests go to, where the target is given by name; the first one while it accepts."""
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
    replaced: bool = False
    """Whether the file no longer has it: it serves until one of the pool's new targets can."""
    source: str = ""
    """The source that names it, such as `file green.yaml`; empty: the configuration does."""
    kept: bool = False
    """Whether its source no longer names it: too many were gone at one time, so it serves while it passes."""
    trial: str = ""
    """The finding of a changed check which has not passed here yet: the former check decides. Empty: there is none."""
    serves: bool = False
    """Whether it can serve: in rotation, and its weight is above 0."""
    configured_weight: int | None = None
    """The file's weight, where an operator's override stands in its place."""
    closes_idle_after: float | None = None
    """Seconds after which it is known to close idle connections."""
    last_probe: ProbeView | None = None
    """The newest readiness probe."""


class DiscoveryView(View):
    """The source that names targets of a pool."""

    provider: str
    """The kind of source: `consul`, `dns`, `docker`, `file`, `kubernetes` or `python`."""
    source: str
    """The source, for people."""
    up: bool
    """Whether it has answered the last time."""
    error: str = ""
    """Why it has not; its targets stay."""
    problems: list[str] = Field(default_factory=list)
    """What of its answer could not be used."""
    last_success: float | None = None
    """When it answered last, Unix time; null: not since the start."""
    named: int = 0
    """Targets that it names."""
    kept: list[str] = Field(default_factory=list)
    """Addresses that it no longer names, and that serve while they pass: too many were gone at one time."""


class PoolView(TrafficView):
    """One version of a service."""

    name: str
    """Its name."""
    active: bool
    """Whether it has the traffic, or most of it in a rollout."""
    share: int
    """Its part of the service's requests now, of 100: a fallback that serves has the parts of the pools that cannot."""
    requested: int
    """Targets configured (Marathon: requested instances)."""
    running: int
    """Targets that answer, ready or not (Marathon: running)."""
    healthy: int
    """Targets that can serve: ready, not leaving, of a weight above 0 (Marathon: healthy)."""
    targets: list[TargetView]
    """Its targets."""
    waiting: int = 0
    """Requests in its queue: no target has room for them."""
    discovery: DiscoveryView | None = None
    """The source of further targets; null: the configuration names all of them."""


class DetectionView(View):
    """How long a dead target can stay in rotation."""

    worst: float
    """Seconds at worst."""
    expected: float
    """Seconds on average."""


class RolloutView(View):
    """A switch that is under way, watched, or frozen."""

    from_: str = Field(alias="from")
    """The pool that the traffic comes from."""
    to: str
    """The pool that it goes to."""
    phase: Literal["stepping", "baking", "frozen", "done", "rolled_back"]
    """Its phase: in its steps, watched after the last one, or stopped until an operator decides."""
    steps: list[int]
    """Percentages, the last one 100."""
    step: int
    """The step under way, counted from 1."""
    share: int
    """Percentage of the requests that go to the new pool now."""
    lasted: float
    """Seconds that the step, or the watch, has lasted."""
    length: float
    """Seconds that it takes at least."""
    ready: dict[str, tuple[int, int]]
    """For both pools: targets that are ready, and targets that could be."""
    held: bool
    """Whether the next step waits for more requests or ready targets."""
    needed: int
    """Requests still needed to tell whether the new pool is as good as the old one."""
    analysis: str
    """The present result of the comparison."""
    reason: str
    """Why it was frozen or rolled back, if so."""
    actor: str
    """The operator's name."""
    text: str
    """All this in one sentence."""


class LastRolloutView(View):
    """How a rollout has ended."""

    from_: str = Field(alias="from")
    """The pool that the traffic came from."""
    to: str
    """The pool that it went to."""
    result: Literal["done", "rolled_back", "dropped"]
    """It went through, all traffic went back, or a new configuration decided instead."""
    reason: str
    """Why it ended so."""
    at: float
    """When, Unix time."""
    text: str
    """All this in one sentence."""


class ServiceView(TrafficView):
    """A service that clients ask for."""

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
    retry_rate: float = 0.0
    """Tries after the first of a request, per second."""
    pools: list[PoolView]
    """Its pools."""
    detection: DetectionView | None = None
    """How long a dead target can stay in."""
    rollout: RolloutView | None = None
    """The rollout under way, with its steps and its analysis."""
    last_rollout: LastRolloutView | None = None
    """The newest rollout that is over; kept over restarts until the next one ends."""


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
    last_reload_partial: bool = False
    """Whether certificates alone could not be taken: everything else is in force."""
    last_error: str = ""
    """Why it did not: of a file with errors the first one, in one line."""
    needs_restart: list[str] = Field(default_factory=list)
    """The file's changes that only a restart or an upgrade brings about."""
    unconfirmed: list[str] = Field(default_factory=list)
    """Workers that serve by an older one, and why; they are being replaced."""


class Status(View):
    """Everything at a glance."""

    version: str
    """Version of lb."""
    form: Form = "pure"
    """`compiled` where its hot modules are, else `pure`."""
    python: str = ""
    """Version of the Python that it runs on."""
    revision: int
    """Version of the desired state; the ETag of changes."""
    started_at: float
    """When the supervisor started, Unix time."""
    ready: bool
    """The answer of /readyz."""
    pid: int = 0
    """Process id of the supervisor."""
    workers: list[int]
    """Process ids of the workers."""
    workers_leaving: list[int] = Field(default_factory=list)
    """Process ids of replaced workers that only finish their requests."""
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
    access_log_trouble: str = ""
    """Why a worker cannot open or write its access log, if so."""
    certificates: list[RenewalView] = Field(default_factory=list)
    """Certificates that lb orders by itself and that fail to come, or have not come yet."""
    maintenance: list[MaintenanceView] = Field(default_factory=list)
    """Routes in maintenance."""
    config: ConfigView
    """The configuration that runs."""
    listeners: list[ListenerView]
    """Where clients come in."""
    admin: str
    """The admin port's address."""
    services: list[ServiceView]
    """All services."""


class MaintenanceView(View):
    """A route in maintenance: its clients get 503."""

    route: str
    """Its name, or its host and path."""
    since: float
    """When that was ordered, Unix time."""
    actor: str = ""
    """Who ordered it."""
    retry_after: int
    """Seconds after which clients are told to come back."""
    allow: list[str]
    """Networks whose clients pass."""
    page: bool = False
    """Whether it has a page of its own."""


class MaintenanceState(View):
    """Whether a route is in maintenance."""

    route: str
    """Its name, or its host and path."""
    maintenance: MaintenanceView | None = None
    """null: it is not."""


class RunView(View):
    """Probes in a row that found the same."""

    target: str
    """The target."""
    check: Literal["readiness", "liveness"]
    """Which of its checks."""
    result: Literal["passed", "failed", "ignored", "mixed"]
    """Their common result; `mixed`: the target changed too fast to be told one by one."""
    kind: str
    """The sort of failure: refused, reset, timeout, status …; otherwise the result again."""
    count: int
    """How many there were."""
    passed: int
    """How many of them passed."""
    failed: int
    """How many failed."""
    first: float
    """When the first of them began, Unix time."""
    last: float
    """When the last of them began."""
    fastest: float
    """Seconds that the fastest took."""
    slowest: float
    """Seconds that the slowest took."""
    text: str
    """The text of the last of them."""
    doubt: str = ""
    """Why the failures were not counted: own_fault | shared | overloaded; empty: they were."""
    told: str
    """All of this in one sentence."""


class Explanation(View):
    """Why something is or is not getting traffic."""

    subject: str
    """The subject of the question."""
    kind: Literal["service", "target", "request", "host"]
    """The kind of the subject."""
    summary: str
    """The answer in one sentence."""
    predicate: str
    """`summary` without `subject` in front, such as `gets traffic: ready for 12 s`."""
    lines: list[str]
    """The reasons, in order: counters against thresholds, what has to happen next and when."""
    probes: list[ProbeView] = Field(default_factory=list)
    """The last probes, newest first."""
    runs: list[RunView] = Field(default_factory=list)
    """All probes in the history, folded into runs, newest first; runs from before a restart as well."""


class SwitchRequest(Wanted):
    """Send a service's traffic to another pool."""

    to: str = Field(examples=["green"])
    """The pool."""
    steps: list[Percentage] | None = Field(default=None, min_length=1, max_length=100, examples=[[5, 25, 50, 100]])
    """Growing percentages, the last one 100; left out: as configured."""
    step_time: Duration | None = Field(default=None, examples=["60s"])
    """Length of each step, such as `60s`; left out: as configured."""
    force: bool = False
    """Even if targets are not ready."""
    freeze_on_fail: bool | None = None
    """Stop and tell instead of rolling back, for releases that cannot go back; left out: as configured."""
    bake: Duration | None = Field(default=None, examples=["15m"])
    """How long the new pool is watched after the last step, such as `15m`; left out: as configured."""


class DrainRequest(Wanted):
    """Take a target out gently."""

    force: bool = False
    """Even if fewer than min_ready targets are left."""


class UndrainRequest(Wanted):
    """Take a drain back."""

    force: bool = False
    """Even if the target is not ready and its pool is in panic (`panic_threshold`) as soon as it counts."""


class ConfirmRequest(Wanted):
    """Let targets go that their source no longer names."""


class WeightRequest(Wanted):
    """Give a target more or less traffic."""

    weight: int = Field(ge=0, le=1000, examples=[2])
    """Relative to the other targets of its pool; 0: no requests."""
    force: bool = False
    """Weight 0 even if fewer than min_ready targets that can serve are left."""


class MaintenanceRequest(Wanted):
    """Begin, change or end a route's maintenance."""

    on: bool = Field(examples=[True])
    """Whether its clients get 503 from now on."""
    retry_after: int = Field(default=60, ge=1, le=604800)
    """Seconds after which they are told to come back."""
    allow: list[Annotated[str, Field(max_length=50)]] = Field(default_factory=list, max_length=100)
    """Networks whose clients pass, such as `10.0.0.0/8`; `unix` for clients of a Unix socket."""
    page: str = Field(default="", max_length=65536)
    """HTML for clients that take it. Empty: lb's own page."""


class RollbackRequest(Wanted):
    """Go back to the previous pool."""

    force: bool = False
    """Even if no target there can serve."""


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
    """The finding."""
    asked: str
    """The question."""
    got: str
    """The answer."""
    expected: str
    """The condition for a pass."""


class PlannedChange(View):
    """One difference between two configurations, and what a reload makes of it."""

    kind: Literal["add", "drain", "change", "restart"]
    """It is new; it goes, after what is under way; it is another; or it counts after a restart only."""
    subject: str
    """The subject of the change: a target's id, `pool SERVICE/POOL`, or a setting's place in the file."""
    text: str
    """The change, in words."""
    what: Literal["listener", "route", "service", "pool", "target", "setting"]
    """The sort of thing that changes."""
    service: str = ""
    """The service that it belongs to; empty: to none."""
    pool: str = ""
    """The pool, if it belongs to one."""
    target: str = ""
    """The target's id, if it is one target."""
    field: str = ""
    """The changed part, where that is one value, such as `weight` or `readiness.interval`."""
    old: str = ""
    """Its value before; empty where there is not one value, or it is secret."""
    new: str = ""
    """Its value then."""
    of_many: str = ""
    """`text` about several targets; empty: the same words fit."""


class ReloadRequest(Wanted):
    """Read the file again."""

    force: bool = False
    """Even if a service that is served now has no target that can serve then."""


class UnusableCertificate(View):
    """A certificate that cannot be served as it is on the disk; or authorities of clients, or a directory."""

    cert_file: str
    """The file of the certificate."""
    key_file: str
    """The file of its key."""
    reason: str
    """The fault."""
    kept: bool
    """Whether what was read before is in force still."""
    told: str
    """All of this in one sentence."""


class ReloadResult(View):
    """The changes of a reload."""

    changed: bool
    """Whether anything did."""
    lines: list[str]
    """The changes, in words."""
    changes: list[PlannedChange] = Field(default_factory=list)
    """The same for programs: one for each line."""
    forced: str = ""
    """Which services have no target that can serve now, if that was forced."""
    warnings: list[str] = Field(default_factory=list)
    """The settings that do not work as the file says: an access log that cannot be written."""
    unusable: list[UnusableCertificate] = Field(default_factory=list)
    """Certificates that could not be taken. Everything else is in force: the reload was partial."""


class UpgradeRequest(Wanted):
    """Put the installed code in the place of the running one."""

    within: float = Field(default=30.0, gt=0, le=600)
    """Seconds that the new lb has to get ready; then the old one goes on."""


class UpgradeResult(View):
    """The result of an upgrade."""

    pid: int
    """Process id of the supervisor that has taken over."""


class ConfigText(View):
    """The text of a configuration file."""

    text: str
    """YAML."""


class ConfigDraft(Wanted):
    """A text that may become the configuration."""

    text: str = Field(max_length=4 << 20, examples=["backends: [http://127.0.0.1:5001, http://127.0.0.1:5002]\n"])
    """YAML."""
    written_out: bool = False
    """Has no effect: with it, the answer of `POST /api/v1/config/edit` can be sent on as it is."""


class ConfigOrder(ConfigDraft):
    """A text that is to become the configuration."""

    force: bool = False
    """Even if the file was edited since it was loaded: that edit is lost, but for the copy FILE~."""
    force_unserved: bool = False
    """Even if a service that is served now has no target that can serve then."""


class ConfigProblem(View):
    """One error, or one warning, of a configuration file."""

    line: int
    """Counted from 1; 0: the file as a whole."""
    column: int
    """Counted from 1."""
    message: str
    """The fault, with the value."""
    hint: str = ""
    """The allowed values, the probable meaning, or the remedy."""
    hints: list[str] = Field(default_factory=list)
    """`hint` line by line: the first says what to do, the further ones are examples or more of it."""
    quote: str = ""
    """The offending line as it stands in the file."""
    width: int = 1
    """Columns that are to be underlined."""
    path: str = ""
    """Where in the file's structure, such as `services.greeting.readiness.interval`."""


class Reason(View):
    """A reason of a refusal: the obstacle, and why."""

    target: str | None = None
    """A target's id, if it is one."""
    where: str | None = None
    """A place in the body or in a file, if it is one."""
    reason: str
    """Why."""


class Problem(View):
    """Why the answer is no (RFC 9457, `application/problem+json`)."""

    type: str = Field(examples=["/problems/not-ready"])
    """The kind of problem: an address on this port that says more, always the same for one kind."""
    title: str = Field(examples=["Not ready"])
    """The kind in words."""
    status: int = Field(ge=400, le=599, examples=[409])
    """The answer's status code."""
    detail: str = Field(examples=["1 of 2 targets of green are ready, 2 are needed"])
    """The details of this time."""
    reasons: list[Reason] = Field(default_factory=list)
    """One for each target, field or place that is in the way."""
    problems: list[ConfigProblem] = Field(default_factory=list)
    """The errors of a configuration text, with their places."""


class Validation(View):
    """The effects of a configuration text."""

    ok: bool
    """Whether it could be loaded."""
    problems: list[ConfigProblem]
    """All its errors."""
    warnings: list[ConfigProblem] = Field(default_factory=list)
    """Valid settings that may not be meant."""
    changes: list[str]
    """Its changes to the running configuration, in words."""
    plan: list[PlannedChange] = Field(default_factory=list)
    """The same for programs: one for each of `changes`."""
    summary: str = ""
    """The changes in one sentence."""
    refusal: Problem | None = None
    """Why a reload would be refused unless forced: a service that is served now would have no target that can serve."""


class PreviewedChange(View):
    """One thing that an order would do."""

    kind: Consequence
    """`share`: a pool or target gets another share of the requests; `instead`: other targets or pools get them;
    `unserved`: clients get 503; `short`: fewer targets can serve than are wanted; `returning`, `waiting`: a target gets
    requests again at once, or once it can serve; `finishing`: requests under way may finish; `compared`, `watched`: a
    pool is; `ended`: a release is; `hook`: one is run first; `configured`: the file's value counts again; `unchanged`:
    the order changes nothing."""
    text: str
    """It in words."""
    service: str = ""
    """The service that it happens to; empty: to none."""
    pool: str = ""
    """The pool, if it happens to one."""
    target: str = ""
    """The target's id, if it happens to one."""
    field: str = ""
    """The changed part: `share`, `weight`, `in_flight`, `tunnels`, `time`."""
    old: str = ""
    """Its value before, where that is known; shares are in per cent."""
    new: str = ""
    """Its value then; the shares of a rollout's steps have commas between them."""


class Preview(View):
    """The effects of an order. Nothing was changed."""

    allowed: bool
    """Whether the order would be carried out."""
    lines: list[str]
    """The effects in words, one after the other."""
    changes: list[PreviewedChange] = Field(default_factory=list)
    """The same for programs: one for each line."""
    refusal: Problem | None = None
    """Why it would be refused, if so."""
    forcible: bool = False
    """Whether `force` would carry it out all the same."""
