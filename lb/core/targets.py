"""The values the data plane works on: targets, pools, services, routes, listeners and the snapshot that holds them.

All values are frozen: a worker swaps a whole `Snapshot`, the `Rotation` of one service or single targets, and never
edits one. They say what a thing *is*; how it *does* is known to `core.lifecycle.Health` (the supervisor's knowledge)
and `proxy.lane.Lane` (one worker's live side). Durations are seconds, sizes are bytes, 0 means "no limit".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lb.core.certificates import TlsServer
from lb.core.error_pages import ErrorPages
from lb.core.guards import ApiKeys, BasicAuth, Compression, Cors, ForwardAuth, Jwt


@dataclass(frozen=True, slots=True)
class TlsClient:
    """How a target is spoken to over TLS."""

    verify: bool = True
    server_name: str = ""  # SNI and the name verified; empty: the target's host
    ca_file: str = ""  # empty: the system's trust store
    cert_file: str = ""
    key_file: str = ""
    #: Of the contents of the three files, in this order: a file that is renewed in place makes another value.
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One backend address. `id` is `service/pool/host:port` and names it everywhere."""

    id: str
    service: str
    pool: str
    host: str  # name, IP address, or "unix:/path" (then port is 0)
    port: int
    weight: int = 1  # 0: takes no traffic
    tls: TlsClient | None = None
    http2: bool = False  # it speaks HTTP/2: as ALPN chooses with `tls`, with prior knowledge without
    #: The IP addresses that a host name stands for, the first to be tried first. Workers look no name up: targets in a
    #: message have addresses, targets from the file have none.
    addresses: tuple[str, ...] = ()


def spoken(http2: bool) -> str:
    """The protocol that is spoken to a target, as people and logs are told."""
    return "HTTP/2.0" if http2 else "HTTP/1.1"


@dataclass(frozen=True, slots=True)
class Pool:
    """One version of a service: `blue`, `green`, …"""

    name: str
    targets: tuple[Target, ...]
    replaced: tuple[str, ...] = ()  # ids of targets that the file no longer has: they serve until the new ones can


@dataclass(frozen=True, slots=True)
class Balance:
    """The balancing policy of a service and, for hashing, its input."""

    policy: str = "round_robin"  # round_robin | least_request | random_two | peak_ewma | ring | maglev
    key: str = "client"  # client | path | header:NAME | cookie:NAME


@dataclass(frozen=True, slots=True)
class Retries:
    """When a request may be tried again; `core.retry` holds the rules themselves."""

    attempts: int = 2  # further tries after the first
    budget: float = 0.2  # retries may be this share of active requests…
    budget_floor: int = 3  # …but this many at one time are always allowed (Envoy's default)
    statuses: tuple[int, ...] = ()  # of 502, 503, 504; idempotent requests only
    per_try: float = 0.0  # seconds to the first response byte of one try; 0: `Timeouts.response` alone
    replay: int = 65536  # bytes of request body kept for another try (Linkerd: 64 KiB)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; each has a name of its own that the 504 body, the log and the metric say."""

    queue: float = 1.0  # waiting for a target that has room
    connect: float = 1.0
    send: float = 30.0  # the target takes no more of the request body
    response: float = 30.0  # from the request's end to the first byte of the answer
    read: float = 60.0  # between two pieces of the answer
    total: float = 0.0  # the whole request
    tunnel: float = 3600.0  # an upgraded connection with no byte either way
    idle: float = 60.0  # an idle pooled connection to a target
    drain: float = 30.0  # a target or pool that leaves: in-flight requests may take this long
    lifetime: float = 3600.0  # a connection to a target, from its opening to its last request


@dataclass(frozen=True, slots=True)
class Breaker:
    """Bounds of one worker towards a service: requests over them wait in the queue or are shed with 503."""

    connections: int = 1024  # to one target
    pending: int = 1024  # requests waiting for a target, in each pool
    requests: int = 0  # in flight to the service; 0: no bound
    adaptive: bool = False  # gradient limit on in-flight requests (Netflix concurrency-limits)


@dataclass(frozen=True, slots=True)
class Preview:
    """Requests that carry `header`/`cookie` = `value`, or come for `host`, go to `pool` whether active or not.

    An empty `value` stands for any value of a header or cookie that is there.
    """

    pool: str
    header: str = ""
    cookie: str = ""
    value: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Sticky:
    """How a client stays on one version while a rollout is under way."""

    by: str = ""  # "" (not sticky) | client | header:NAME | cookie:NAME
    asset_fallback: bool = False  # during a rollout, a GET or HEAD answered 404 is asked of the other pool


@dataclass(frozen=True, slots=True)
class Affinity:
    """The cookie that keeps a client at one target of the pool that is chosen for it; see `core.affinity`."""

    cookie: str
    file: str  # of secrets
    digest: str = ""  # of the file's contents, which `Snapshot.files` has


@dataclass(frozen=True, slots=True)
class Service:
    """A service that clients ask for; served by one or, during a rollout, two of its pools."""

    name: str
    pools: tuple[Pool, ...]
    balance: Balance = Balance()
    retries: Retries = Retries()
    timeouts: Timeouts = Timeouts()
    breaker: Breaker = Breaker()
    sticky: Sticky = Sticky()
    affinity: Affinity | None = None
    previews: tuple[Preview, ...] = ()
    retry_after: int = 1  # seconds, in the 503 of a service without a ready target
    host_header: str = ""  # replaces Host towards the targets; empty: the client's passes on
    via: bool = True  # add Via to requests
    trailers: str = "negotiate"  # negotiate (an answer's to clients with TE: trailers) | pass | drop
    passive: bool = True  # count failures for outlier ejection
    error_pages: ErrorPages | None = None  # of lb's own answers; None: the file's count


@dataclass(frozen=True, slots=True)
class Match:
    """What a request must have to take a route, besides its host and path; see `core.matching`.

    A value is exact, `*` for any, or a `/regular expression/`.
    """

    methods: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    cookies: tuple[tuple[str, str], ...] = ()
    clients: tuple[str, ...] = ()  # networks
    scheme: str = ""  # http | https
    protocols: tuple[str, ...] = ()  # any of http/1.0, http/1.1, h2, grpc, websocket


# Kinds of a route's path.
PREFIX = "prefix"  # at a segment's border: /a matches /a and /a/b, not /ab
EXACT = "exact"
REGEX = "regex"


# Kinds of a route's steps.
STRIP_PREFIX = "strip_prefix"
REPLACE_PREFIX = "replace_prefix"
REPLACE_PATH = "replace_path"
REWRITE = "rewrite"
REWRITE_HOST = "host"
REQUEST_HEADERS = "request_headers"
RESPONSE_HEADERS = "response_headers"
ALLOW = "allow"
DENY = "deny"
BASIC_AUTH = "basic_auth"
API_KEYS = "api_keys"
FORWARD_AUTH = "forward_auth"
JWT = "jwt"
COMPRESS = "compress"
CORS = "cors"
SECURITY_HEADERS = "security_headers"
HSTS = "hsts"
LOCATION = "location"
COOKIE_PATH = "cookie_path"
COOKIE_DOMAIN = "cookie_domain"
RATE_LIMIT = "rate_limit"
CONCURRENCY = "concurrency"
BANDWIDTH = "bandwidth"
FAULT = "fault"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How often requests with the same key may come: `number` in `seconds`, and `burst` at once."""

    number: int
    seconds: float
    burst: int
    key: str = "client"  # client | route | header:NAME | cookie:NAME
    name: str = "default"  # in the RateLimit fields
    fields: bool = True  # answers carry these
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many requests with the same key may be under way."""

    limit: int
    key: str = "route"  # client | route | header:NAME | cookie:NAME
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """How fast an answer goes to its client: `rate` bytes a second, after `after` bytes at full speed."""

    rate: int
    after: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on purpose: a `share` of requests is delayed, answered with the status `abort`, or both."""

    share: float  # of 1
    until: float  # Unix time
    delay: float = 0.0  # seconds
    abort: int = 0


@dataclass(frozen=True, slots=True)
class StepRule:
    """One check or change that a route makes. What its fields mean depends on the kind; each kind has a file in
    `proxy.steps`."""

    kind: str
    prefix: str = ""  # or pattern
    to: str = ""  # path, host or value
    replaced: tuple[tuple[str, str], ...] = ()  # header fields; values are templates (`http.template`)
    added: tuple[tuple[str, str], ...] = ()
    removed: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    rate: RateLimit | None = None
    concurrency: Concurrency | None = None
    bandwidth: Bandwidth | None = None
    fault: Fault | None = None
    file: str = ""  # that it goes by; or a URL
    digest: str = ""  # of the file's contents, which `Snapshot.files` has
    basic_auth: BasicAuth | None = None
    api_keys: ApiKeys | None = None
    forward_auth: ForwardAuth | None = None
    jwt: Jwt | None = None
    compression: Compression | None = None
    cors: Cors | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a route sends clients. What is empty stays as the client has it."""

    status: int = 302
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""  # a template
    query: str | None = None  # a template without `?`; None: the client's
    prefix: str = ""  # of the path, to be replaced by `to`
    to: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers by itself."""

    status: int
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What the clients of a route in maintenance get: 503, but for clients in networks that may pass."""

    retry_after: int  # seconds
    allow: tuple[str, ...] = ()  # networks
    page: str = ""  # HTML, for clients that take it; empty: lb's own


@dataclass(frozen=True, slots=True)
class Route:
    """Which requests go to a service; `core.routing` says which route wins among several."""

    service: str
    host: str = ""  # "" any | exact | "*.suffix"
    path: str = "/"
    max_body: int = 0
    max_response: int = 0
    total: float = 0.0  # overrides the service's `Timeouts.total` when set
    client_certificate: bool = False  # its requests are for connections that have shown a verified certificate
    grpc_web: bool = False  # calls of gRPC-Web become calls of gRPC
    steps: tuple[StepRule, ...] = ()  # what it changes, in this order
    redirect: Redirect | None = None  # answered instead of a service
    answer: Answer | None = None  # the same
    kind: str = PREFIX  # of its path
    match: Match = Match()
    name: str = ""
    maintenance: Maintenance | None = None  # an operator has ordered it
    split: tuple[tuple[str, int], ...] = ()  # (service, weight), instead of `service`
    split_by: str = ""  # what keeps a client at a service: client | header:NAME | cookie:NAME; empty: nothing
    fallback: str = ""  # the service that serves while no other one can
    error_pages: ErrorPages | None = None  # of lb's own answers; None: the service's count

    def services(self) -> tuple[str, ...]:
        """The services that its requests may go to."""
        named = (self.service, *(name for name, _ in self.split), self.fallback)
        return tuple(dict.fromkeys(name for name in named if name))

    def title(self) -> str:
        """Its name, or its host and path, with `=` before an exact path and `~` before a regular expression."""
        return self.name or f"{self.host}{'=' if self.kind == EXACT else '~' if self.kind == REGEX else ''}{self.path}"


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that accepts clients, and the limits for them."""

    bind: str  # as configured: host:port, [v6]:port or unix:/path; names the listener
    tls: TlsServer | None = None
    proxy_protocol: tuple[str, ...] = ()  # networks whose connections open with a PROXY header (v1, v2)
    header_timeout: float = 10.0  # slowloris: the whole head must have come
    body_timeout: float = 30.0  # between two pieces of a request body
    idle_timeout: float = 75.0  # keep-alive between requests (nginx: 75 s)
    send_timeout: float = 60.0  # a client that takes no more of its answer
    half_close: float = 1.0  # a client that sends no more may wait this long for its answer to begin
    request_line: int = 8192
    header_block: int = 32768
    header_count: int = 100
    connections: int = 20000  # per worker
    connections_per_client: int = 0
    requests_per_connection: int = 0
    #: Each request is answered with its https URL, at the port of this bind; port 0 means the port that the system
    #: chose for the listener of that name. Empty: requests are served.
    redirect: str = ""
    hsts: str = ""  # the value of Strict-Transport-Security in answers; empty: none is added
    http1: bool = True  # clients may speak HTTP/1
    http2: bool = False  # …and HTTP/2: as ALPN has chosen, or with prior knowledge


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Where each request's line goes; `sample` is the share of successful requests that is written."""

    format: str = "json"  # json | combined | off
    path: str = "-"  # "-": stdout
    sample: float = 1.0


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of `percent` of the requests goes to `pool`; its answers are thrown away."""

    pool: str
    percent: float
    concurrency: int = 64
    max_body: int = 65536


@dataclass(frozen=True, slots=True)
class Rotation:
    """The pools and targets that get the requests of one service now: whole state, so a lost or repeated one harms
    nothing.

    `weights` holds, per pool, the targets in rotation and their effective weight (slow start, agent hints and
    operator overrides already worked in). A pool with no entry, or an empty one, has no target to offer.
    """

    service: str
    version: int
    shares: tuple[tuple[str, int], ...]  # (pool, parts of 100); the parts sum to 100
    weights: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
    fallback: str = ""  # pool that serves when the chosen one has no target
    draining: tuple[str, ...] = ()  # target ids whose connections are to end
    mirror: Mirror | None = None
    sharing: tuple[str, ...] = ()  # pools that are to have a share, with or without a target; empty: as `shares`


#: Targets in rotation by id, each with its effective weight, in their order.
Weighted = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class MembersChange:
    """Members of one pool that have changed."""

    pool: str
    left: tuple[str, ...]  # ids that are no members any more
    placed: tuple[tuple[int, str, float], ...]  # (place among the members, id, weight): new, or with another weight


@dataclass(frozen=True, slots=True)
class RotationChange:
    """A new rotation of one service, of which only the changed members are named: see `core.rotation_change`."""

    service: str
    version: int
    base: int  # the version of the rotation that it is a change of
    shares: tuple[tuple[str, int], ...]
    pools: tuple[MembersChange, ...]
    fallback: str = ""
    draining: tuple[str, ...] = ()
    mirror: Mirror | None = None
    sharing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of the whole world for a worker."""

    version: int
    listeners: tuple[Listener, ...] = ()
    services: tuple[Service, ...] = ()
    routes: tuple[Route, ...] = ()
    rotations: tuple[Rotation, ...] = ()
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-*, Forwarded, X-Request-Id are kept
    access_log: AccessLog = field(default_factory=AccessLog)
    orphan: float = 3600.0  # seconds that a worker serves on without a supervisor
    error_pages: ErrorPages | None = None  # of lb's own answers; None: they are plain text
    #: Contents of TLS files and of steps' files by digest, so that no worker reads other ones than the supervisor.
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Targets:
    """The changes to the targets of a snapshot and to listeners' certificates, where nothing else has changed: its cost
    does not grow with the snapshot.

    Each part is a whole value or names its base, so that a repeated one harms nothing. All of it is in force in one
    step, between two requests.
    """

    version: int
    changed: tuple[Target, ...] = ()  # each new, or with other settings or addresses; it names its service and pool
    removed: tuple[str, ...] = ()  # ids
    rotations: tuple[Rotation, ...] = ()  # rotations that have changed as well
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)  # contents that nothing before has needed
    listeners: tuple[Listener, ...] = ()  # listeners whose certificates have changed, and nothing else of them
    rotation_changes: tuple[RotationChange, ...] = ()  # rotations of which only a few members have changed
