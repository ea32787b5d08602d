"""Services, their pools and targets, and how requests are shared out, tried again and bounded."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from lb.config.model.checks import AnyLiveness, AnyReadiness, ClientTls, Readiness
from lb.config.model.coerce import refuse
from lb.config.model.discovery import Discover
from lb.config.model.fields import (
    Bounds,
    Duration,
    FilePath,
    Flag,
    HashKey,
    HeaderValue,
    Name,
    Number,
    PageStatus,
    Percent,
    Period,
    Reference,
    Size,
    TargetUrl,
    Whole,
)
from lb.config.model.releases import Affinity, MirrorTo, Preview, Rollout, Sticky
from lb.config.model.section import Section
from lb.core import lifecycle, outlier, rotation

# Defaults of what `core` decides stand there, beside the rules that they belong to.
_OUTLIER = outlier.Outlier()
_EJECTION = lifecycle.Ejection()
_SLOW_START = lifecycle.SlowStart()
_DAMPING = lifecycle.Damping()
_RULES = rotation.ServiceRules()

Policy = Literal["round_robin", "least_request", "random_two", "peak_ewma", "ring", "maglev"]


class Target(Section):
    """One backend address."""

    url: TargetUrl
    """`http://host:port`, `https://host:port`, `h2c://host:port`, `h2://host:port`, `host:port` or `unix:/path`;
    without a path, since the client's is passed on. `h2c` is HTTP/2 with prior knowledge, `h2` is HTTP/2 over TLS. With
    `lb run --demo`, port 0 takes a free port."""
    weight: Annotated[Whole, Bounds(0, 1000)] = 1
    """Its share of the pool's requests, relative to the other targets; 0: none, but it is still probed. At most
    1000."""
    tls: ClientTls | None = None
    """TLS towards an `https://` or `h2://` target. Left out: the service's `tls`."""
    readiness: AnyReadiness | None = None
    """Options of the readiness check that differ for this target; the pool's count for the rest."""
    liveness: AnyLiveness | None = None
    """Options of the liveness check that differ for this target; the pool's count for the rest."""


def target_from_text(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


AnyTarget = Annotated[Target, BeforeValidator(target_from_text, json_schema_input_type=str | Target)]


Targets = Annotated[list[AnyTarget], Field(min_length=1)]


class Pool(Section):
    """One version of a service: `blue`, `green`, …"""

    targets: Targets = Field(default_factory=list)
    """Its addresses: URLs, or mappings with `url`, `weight` and so on. May be left out beside `discover`."""
    discover: Discover | None = None
    """Where further targets are found. Both may be given: an address that is in `targets` is taken from there."""
    removal_guard: Percent = 0.5
    """Found targets that may vanish at one time, as a share of those that pass their checks. When more vanish, the ones
    that still pass are kept: until they fail, until enough others pass, or until an operator confirms with `lb discover
    --confirm POOL`. `0%`: nothing that passes is taken out; `100%`: no guard."""
    readiness: AnyReadiness | None = None
    """Options of the readiness check that differ for this pool; the service's count for the rest."""
    liveness: AnyLiveness | None = None
    """Options of the liveness check that differ for this pool; the service's count for the rest."""


def pool_from_list(value: Any) -> Any:
    return {"targets": value} if isinstance(value, list) else value


AnyPool = Annotated[Pool, BeforeValidator(pool_from_list, json_schema_input_type=Targets | Pool)]


class Balance(Section):
    """Which ready target gets the next request."""

    policy: Policy = "round_robin"
    """`round_robin`: in turn, by weight, smoothly (nginx). `least_request`: the one with the fewest requests in
    flight for its weight. `random_two`: the better of two drawn at random. `peak_ewma`: by recent latency and requests
    in flight, peaks weigh in at once (Finagle, Linkerd). `ring` and `maglev`: one client's requests go to one target
    as long as it is there (consistent hashing)."""
    key: HashKey = "client"
    """The input of `ring` and `maglev`: `client` (its address), `path`, `header:NAME` or `cookie:NAME`."""


def balance_from_text(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


AnyBalance = Annotated[Balance, BeforeValidator(balance_from_text, json_schema_input_type=Policy | Balance)]


def _retried(statuses: list[int]) -> list[int]:
    for status in statuses:
        if status not in (502, 503, 504):
            refuse(f"{status} is not an answer that another target would better", "a list of 502, 503 and 504")
    return statuses


class Retries(Section):
    """When a request is tried again, at another target. Never once a byte of the answer has been passed on; a request
    that is not idempotent only if nothing of it can have arrived."""

    attempts: Annotated[Whole, Bounds(0, 100)] = 2
    """Further tries after the first. HAProxy: 3; Envoy: 1; nginx: as many as there are servers."""
    budget: Percent = 0.2
    """Retries may be this share of the requests, so that they cannot multiply an outage. Finagle, Linkerd: 20%."""
    budget_floor: Annotated[Whole, Bounds(0)] = 3
    """This many retries per second are allowed besides, so that a quiet service has some. Linkerd: 10."""
    statuses: Annotated[list[Whole], AfterValidator(_retried)] = Field(default_factory=list)
    """Answers that are tried again: a list of 502, 503, 504. Empty: an answer is an answer."""
    per_try: Duration = 0.0
    """Longest wait for one try's first byte; `0s`: `timeouts.response` alone."""
    replay: Size = 65536
    """Bytes of a request's body that are kept for another try; a longer body is sent once. Linkerd: 64 KiB."""


class Timeouts(Section):
    """How long things may take between `lb` and the targets. The 504, the log and the metric say which one it was."""

    queue: Duration = 1.0
    """A request waits this long for a target that has room, then it gets 503. A request that a target was sent waits
    anew."""
    connect: Period = 1.0
    """Opening a connection, TLS included. Envoy: 5s; nginx: 60s."""
    send: Period = 30.0
    """The target takes nothing of the request's body; one that takes a little at a time is waited for. A tunnel ends
    when its target takes nothing for this long. nginx: 60s."""
    response: Period = 30.0
    """From the end of the request to the first byte of the answer. Each interim (1xx) answer starts it anew, 64 times
    at most. nginx: 60s; Envoy: 15s for the whole."""
    read: Period = 60.0
    """Between two pieces of the answer. nginx: 60s. Server-sent events need a heartbeat, or more."""
    total: Duration = 0.0
    """The whole request with all its tries; `0s`: no limit. A route may set its own."""
    tunnel: Duration = 3600.0
    """An upgraded connection (WebSocket) without a byte either way; what a slow reader takes counts too. A call
    of gRPC is bound so as well while its client may still send. Envoy: 1h."""
    idle: Period = 60.0
    """A pooled connection to a target is closed after this long without a request, sooner if the target is known to
    close earlier. nginx: 60s."""
    lifetime: Duration = 3600.0
    """A connection to a target takes no new request after this long. The time is a little shorter by chance, so that
    connections opened together do not end together; `0s`: no limit. nginx's `keepalive_time`: 1h."""
    drain: Duration = 30.0
    """Requests and tunnels on a target or pool that leaves may take this long; then they are cut, and counted."""


class Breaker(Section):
    """Bounds towards the service, per worker. Requests over them wait in the queue, or are shed with 503."""

    connections: Annotated[Whole, Bounds(1)] = 1024
    """Connections to one target; as many are kept when they are idle. Envoy: 1024."""
    pending: Annotated[Whole, Bounds(0)] = 1024
    """Requests that wait for a target with room, in each pool. Envoy: 1024."""
    requests: Annotated[Whole, Bounds(0)] = 0
    """Requests in flight to the service; 0: no limit. Envoy: 1024."""
    adaptive: Flag = False
    """Find the bound on requests in flight by itself, from how latency answers to load (the gradient of Netflix's
    concurrency-limits)."""


class Outlier(Section):
    """When a target's own traffic speaks against it though its probes pass: it is ejected for a while."""

    enabled: Flag = True
    """Watch the targets' answers at all."""
    consecutive_failures: Annotated[Whole, Bounds(0)] = _OUTLIER.consecutive_failures
    """Requests in a row that failed (5xx, reset, timeout, no connection); 0: off. Envoy: 5; Linkerd: 7."""
    consecutive_connect: Annotated[Whole, Bounds(0)] = _OUTLIER.consecutive_connect
    """Connections in a row that could not be made; 0: off."""
    failure_share: Percent = _OUTLIER.failure_share
    """Share of failed requests within `window`; `0%`: off. Envoy: 85%, not enforced."""
    deviations: Annotated[Number, Bounds(0, 10)] = _OUTLIER.deviations
    """Success rate below the pool's mean by this many standard deviations; 0: off. Envoy: 1.9."""
    latency: Annotated[Number, Bounds(0, 1000)] = _OUTLIER.latency
    """Mean latency above this many times the median of its peers; 0: off."""
    minimum: Annotated[Whole, Bounds(1)] = _OUTLIER.minimum
    """Requests within `window` below which shares and latencies say nothing. Envoy: 50."""
    rate_minimum: Annotated[Whole, Bounds(1)] = _OUTLIER.rate_minimum
    """Requests within `window` below which success rates are not compared. Envoy: 100."""
    peers: Annotated[Whole, Bounds(2)] = _OUTLIER.peers
    """Targets with enough requests that a comparison with peers needs. Envoy: 5."""
    window: Period = _OUTLIER.window
    """How far back shares, rates and latencies look. Envoy: 10s."""
    base_ejection: Period = _EJECTION.base
    """Length of a first ejection; each repetition adds as much again. Envoy: 30s."""
    connect_ejection: Period = _EJECTION.connect_base
    """The same for a target that could only not be connected to: its next probe goes that very way, and knows soon."""
    max_ejection: Period = _EJECTION.longest
    """Longest ejection. Envoy: 300s."""
    calm: Period = _EJECTION.calm
    """Each such span without an ejection takes one off the count of repetitions. Envoy: one sweep, 10s."""
    max_ejected: Percent = _OUTLIER.max_ejected
    """Share of a pool that may be ejected at one time; one target always may. Envoy: 10%."""


class SlowStart(Section):
    """The ramp of a target that enters rotation, so that a cold cache or a cold JIT is not hit by a full share."""

    window: Duration = _SLOW_START.window
    """How long the ramp takes; `0s`: full weight at once."""
    aggression: Annotated[Number, Bounds(0.1, 10)] = _SLOW_START.aggression
    """1 is a straight line; above 1 it grows fast at first, below 1 slowly. Envoy's formula."""
    floor: Percent = _SLOW_START.floor
    """Share of its weight that it begins with. Envoy: 10%."""


def slow_start_from_text(value: Any) -> Any:
    return {"window": value} if isinstance(value, str | int | float) else value


AnySlowStart = Annotated[SlowStart, BeforeValidator(slow_start_from_text, json_schema_input_type=str | SlowStart)]


class Damping(Section):
    """Holds back a target that keeps falling: each fall adds 1 to a penalty that halves every `half_life`."""

    flaps: Annotated[Whole, Bounds(0)] = _DAMPING.flaps
    """Penalty from which a target is held back; 0: off, since rise and fall damp already."""
    half_life: Period = _DAMPING.half_life
    """Time in which the penalty halves."""
    hold: Period = _DAMPING.hold
    """It is held out for this long at least; each further fall doubles it."""
    max_hold: Period = _DAMPING.max_hold
    """Longest time it is held out."""


class Service(Section):
    """A service that clients ask for. A pool serves it, or two pools during a release."""

    pools: Annotated[dict[Name, AnyPool], Field(min_length=1)]
    """Its versions, by name. A list of targets may stand for a pool."""
    active: Reference | None = None
    """The pool that serves at the first start. Afterwards the persisted switch wins, until this line is edited.
    Needed when there are several pools."""
    balance: AnyBalance = Field(default_factory=Balance.defaults)
    """Balancing policy: its name, or a mapping with `policy` and `key`."""
    readiness: AnyReadiness = Field(default_factory=Readiness.defaults)
    """Decides whether a target gets traffic. A path alone is an HTTP check; left out: a TCP check."""
    liveness: AnyLiveness | None = None
    """Decides whether a target should be restarted. Left out: no liveness check."""
    retries: Retries = Field(default_factory=Retries.defaults)
    """When a request is tried again."""
    timeouts: Timeouts = Field(default_factory=Timeouts.defaults)
    """How long things may take."""
    breaker: Breaker = Field(default_factory=Breaker.defaults)
    """Bounds that protect the targets."""
    outlier: Outlier = Field(default_factory=Outlier.defaults)
    """Ejection of targets that fail their requests though their probes pass."""
    panic_threshold: Percent = _RULES.panic.threshold
    """When fewer than this share of a pool's targets are in rotation, `panic` applies. `0%`: only when none is left,
    because traffic is only ever to reach a target that is ready. Envoy: 50%, and then all of them get traffic."""
    panic: Literal["fail", "spread", "fallback"] | None = None
    """`fail`: 503 with `Retry-After`. `spread`: over all targets that were ready at least once. `fallback`: to the
    pool that `fallback` names. Left out: `fallback` if one is named, else `fail`."""
    fallback: Reference | None = None
    """The pool that serves when the one that should has no target to offer. It also gets a request that may be tried
    again and that all targets of its pool have failed, unless a preview chose that pool."""
    patience: Duration = _RULES.patience
    """When failed probes look like the checker's own fault, a shared dependency or an overload, the last verdict
    is kept for at most this long."""
    slow_start: AnySlowStart = Field(default_factory=SlowStart.defaults)
    """Ramp for targets that enter rotation; a duration alone may stand here."""
    damping: Damping = Field(default_factory=Damping.defaults)
    """Hold-down for targets that flap."""
    tls: ClientTls | None = None
    """TLS towards the `https://` and `h2://` targets. Left out: certificates are verified against the system's
    authorities."""
    host_header: HeaderValue = ""
    """Host header towards the targets. Left out: the client's is passed on."""
    via: Flag = True
    """Add `Via: 1.1 lb` to requests (RFC 9110). As a target nginx compresses no answer to a request with a Via, unless
    its `gzip_proxied` allows it: then `false` helps. A client's own Via passes on in any case."""
    trailers: Literal["negotiate", "pass", "drop"] = "negotiate"
    """Fields behind a chunked body. `negotiate`: a request's pass on, an answer's to clients that sent `TE: trailers`
    (RFC 9110). `pass`: both always. `drop`: neither, as nginx does, and targets are not told of such clients."""
    retry_after: Annotated[Whole, Bounds(0, 3600)] = 1
    """Seconds in the `Retry-After` of a 503."""
    error_pages: dict[PageStatus, FilePath] | None = None
    """HTML pages for lb's own answers to this service's requests; a route's `error_pages` come first."""
    sticky: Sticky = Field(default_factory=Sticky.defaults)
    """How a client stays on one version during a release."""
    affinity: Affinity | None = None
    """Keep a client at one target by a cookie. Left out: `balance` decides each request by itself."""
    previews: list[Preview] = Field(default_factory=list)
    """Requests that go to a chosen pool, whether active or not."""
    mirror: MirrorTo | None = None
    """A share of the requests is copied to another pool."""
    rollout: Rollout = Field(default_factory=Rollout.defaults)
    """The conditions of a switch, and how it is watched."""

    def first_active(self) -> str:
        """The pool that serves at the first start."""
        return self.active or next(iter(self.pools))

    def panic_choice(self) -> Literal["fail", "spread", "fallback"]:
        return self.panic or ("fallback" if self.fallback else "fail")
