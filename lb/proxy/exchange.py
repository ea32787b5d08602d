"""Exchange: one request, from its head to the last byte of its answer.

It knows its two sides (a `ClientStream`, a `TargetStream`) and `LiveConfig` (routes, services with their pools, lanes
by lease). It also knows the worker's `Context` (clock, timers, ids, counters, observers). It knows no socket, no worker
and no other client. It is the only place that knows of retries. Read from top to bottom, this file is what the proxy
does:

    1 begin         start(), go_on()               route, its steps, pool, lane; or an answer of our own
    2 connected     on_connected()                 head and first body piece go out in one write
    3 body up       on_request_body()              relayed as it comes, kept (bounded) for another try
    4 answer        on_interim/response/upgrade()  relayed as it comes; head and first piece in one write
    5 trouble       on_failure/deadline(), client_lost()   retry.decide: again, answer, or cut
    6 backpressure  client_blocked/upstream_blocked()      a side whose buffer is full stops the other's reading
    7 end           _finish()                      lease released, connection back or closed, counted, observers told
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from lb.core.grpc import FAILURES, counts_as, described
from lb.core.keepalive import COINCIDENCE
from lb.core.report import BUCKETS
from lb.core.retry import (
    CAUSES,
    CONNECT,
    CUT,
    GARBAGE,
    GONE,
    HEAD,
    LASTING,
    NO_UPGRADE,
    PHASES,
    RETRY,
    STATUS,
    TIMEOUT,
    Decision,
    Failure,
    decide,
)
from lb.core.routing import AMBIGUOUS, NO_ROUTE, UNREADABLE
from lb.http.grpc import (
    CANCELLED,
    DEADLINE,
    INTERNAL,
    forbids_retry,
    read_status,
    status_of,
    write_timeout,
)
from lb.http.h1.parse import host_name
from lb.http.h1.replies import Reply, response_of
from lb.http.h1.serialize import OMIT_TRAILERS
from lb.http.message import IDEMPOTENT, RequestHead, ResponseHead
from lb.proxy.context import HEX_PAIRS
from lb.proxy.crash_counters import BEGUN
from lb.proxy.crash_counters import OVER as OVER_CELL
from lb.proxy.hold import WAIT
from lb.proxy.lane import ABANDONED, COMPLETE
from lb.proxy.lane import CUT as CUT_OFF
from lb.proxy.lane import FAILED as FAILED_CALL
from lb.proxy.mirror import NO_RETRIES
from lb.proxy.observers import Ended
from lb.proxy.read_deferral import LATE
from lb.proxy.route_fragment import with_late_remark, with_remark
from lb.proxy.target_stream import AUTHENTICATED, OFFERED, SHARED
from lb.proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from lb.core.limiter import GradientLimiter
    from lb.http.grpc_web import TextReader
    from lb.net.tls.session import Established
    from lb.proxy.client_stream import ClientStream, PrivateStreams
    from lb.proxy.hold import Hold
    from lb.proxy.lane import Lane, Lease
    from lb.proxy.mirror import MirrorClient
    from lb.proxy.pace import Pace
    from lb.proxy.services import AnswerBound, AnswerStep, LiveConfig, LivePool, LiveRoute, LiveService, Step
    from lb.proxy.target_stream import TargetStream

# Phases. Module ints: an enum's member costs a look-up each time.
NEW: Final = 0
QUEUED: Final = 1
CONNECTING: Final = 2
WAITING: Final = 3
AWAITING_EVIDENCE: Final = 4
ANSWERING: Final = 5
TUNNELLING: Final = 6
OVER: Final = 7
HELD: Final = 8
PHASE_NAMES: Final = (
    "new",
    "queued",
    "connecting",
    "waiting",
    "awaiting evidence",
    "answering",
    "tunnelling",
    "over",
    "held",
)

#: The answers to requests that no route takes, by the result of `RouteTable.match`.
UNROUTED: Final = {
    NO_ROUTE: Reply(404, "no_route", "no route matches this request"),
    AMBIGUOUS: Reply(400, "ambiguous_path", "the path can be read as another one, which takes another route"),
    UNREADABLE: Reply(
        400, "bad_path", "the path has a broken escape, leads above the root, or can be read in many ways"
    ),
}

#: Request bytes held while a connection is opened, before the client's reading stops.
PENDING_LIMIT: Final = 65536
#: Seconds that a request waits for evidence, after its connection has broken off, before it fails.
EVIDENCE_TIME: Final = 0.2
#: The most waits in a row, while it is unknown whether the target still accepts connections.
EVIDENCE_TURNS: Final = 4
#: Tries of a request that targets' GOAWAY frames may leave out until such a target counts as one that was tried.
LEFT_OUT_TIMES: Final = 3

_BUCKETS: Final = BUCKETS
#: The buckets of requests that take less than the fifth bound. All of their bounds are multiples of the first one, so
#: an index is found sooner than by comparing.
_FIRST: Final = 1.0 / BUCKETS[0]
_SHORT: Final = BUCKETS[4]
_SHORT_BUCKETS: Final = [
    bisect_left(BUCKETS, (number + 0.5) * BUCKETS[0]) for number in range(int(_SHORT * _FIRST) + 1)
]


class Exchange(Ended):
    """One request and its answer."""

    __slots__ = (
        "answer_steps",
        "asset_tried",
        "body",
        "body_bytes",
        "body_done",
        "body_may_be_unread",
        "client",
        "context",
        "deadline",
        "ends_at",
        "held_at",
        "held_by",
        "in_flight_slots",
        "key",
        "lease",
        "live",
        "max_body",
        "mirror_client",
        "needs_new_connection",
        "omits_trailers",
        "pace",
        "passed_over",
        "phase",
        "pool",
        "queued_until",
        "replayable",
        "response_limit",
        "service",
        "text_reader",
        "timer",
        "trailers",
        "tried",
        "tunnel",
        "upstream",
    )

    def __init__(self, live: LiveConfig, client: ClientStream, head: RequestHead) -> None:
        self.live = live
        context = self.context = live.context
        self.client = client
        self.head = self.received = head  # what a target gets; what the client has sent
        self.started = monotonic()
        self.deadline = self.ends_at = self.queued_until = inf  # of phase, whole, wait
        self.timer = self.reason = ""  # which timeout `deadline` is; why the proxy answered by itself or cut
        self.service: LiveService = live.no_service
        self.pool: LivePool = live.no_service.no_pool
        self.lease: Lease | None = None  # of the target that is tried, or that has answered
        self.upstream: TargetStream | None = None
        self.tunnel: Tunnel | None = None
        self.pace: Pace | None = None  # of its answer, where the route limits that
        self.response_limit: AnswerBound | None = None  # of its answer's length
        self.held_by: Hold | None = None  # what a step of the route waits for
        self.held_at: tuple[LiveRoute, Step, tuple[Step, ...]] | None = None  # that step, and the ones that follow
        self.text_reader: TextReader | None = None  # of a body in base64: gRPC-Web
        self.mirror_client: MirrorClient | None = None  # the mirrored copy, or on a copy its own port
        self.body: list[bytes] | None = None  # pieces kept for another try
        self.phase = self.status = self.key = self.attempt = 0
        self.passed_over = 0  # tries of a WebSocket at targets that take none, and were sent nothing
        self.grpc_status = -1  # -1: it is no call of gRPC, or its status has not come
        self.body_bytes = self.max_body = self.bytes_in = self.bytes_out = 0
        self.connected_at = self.first_byte_at = 0.0
        self.replayable = self.body_done = True
        self.omits_trailers = False  # a step has made sure of fields that the request's trailers must not bring back
        self.needs_new_connection = False  # the next try may not ride a pooled connection
        self.asset_tried = False
        self.trailers = b""  # of the request, whole lines
        self.target_fragment = self.route_fragment = b""  # of the log's line
        self.answer_steps: Sequence[AnswerStep] = ()  # steps that change the answer
        self.in_flight_slots: Sequence[int] = ()  # where limits of its route count it
        self.body_may_be_unread = False  # the target may leave the body unread: its connection serves no other request
        self.answered_by_proxy = False  # the proxy answered by itself
        self.tried: list[Lane] | tuple[()] = ()
        self.attempt_log = ()
        if client.trusted and head.fields.request_id:
            self.request_id = head.fields.request_id
        else:  # `Context.next_id`, written out: a call less for each request
            number = context.id_next = context.id_next + 1
            if not number & 0xFF:
                context.begin_ids()
            self.request_id = context.id_front + HEX_PAIRS[number & 0xFF]

    def __repr__(self) -> str:
        head = self.head
        return f"<Exchange {head.method.decode()} {head.target.decode()} {PHASE_NAMES[self.phase]}>"

    # 1 --- begin ----------------------------------------------------------------------------------------------------

    def start(self, piece: bytes, done: bool, trailers: bytes = b"") -> None:
        """Begin, after the head has been read.

        `piece` is the payload that came with it. `done`: the body is complete. `trailers` are its trailer fields, whole
        lines.
        """
        live = self.live
        context = self.context
        stats = context.stats
        stats.begun += 1
        stats.crash_counters[BEGUN] = stats.begun
        head = self.head
        fields = head.fields
        self.body_done = done
        if piece:
            self.body = [piece]
            self.body_bytes = self.bytes_in = len(piece)
        if trailers:
            self.trailers = trailers
        if context.challenges and self._meets_challenge():
            return
        if live.only_route is not None:
            route = live.only_route
        else:
            table = live.table
            if head.table is table:
                number = head.route
            else:
                path = head.path if head.path != b"*" else b"/"
                number = table.match(host_name(head.host), path, live.asked(self) if table.conditional else None)
                head.table, head.route = table, number
            if number < 0:
                self.answer_with(UNROUTED[number])
                return
            route = live.routes[number]
        service = self.service = route.service
        service.in_flight += 1
        service.budget.requests += 1
        self.max_body = route.max_body
        for step in route.way if not (fields.special or fields.upgrade) else route.rare_way:
            refusal = step.before(self)
            if refusal is not None:
                if refusal is WAIT:
                    self._wait_at(route, step)
                    return
                route.answered(self, step, refusal.reason)
                self.answer_with(refusal)
                return
        self.route_fragment += route.fragment
        if route.total and self.started + route.total < self.ends_at:
            self.ends_at = self.started + route.total
        service = self.service  # a step may have chosen it
        only = service.split.only
        # The first case is `choose`, inlined for a service with one pool for all traffic.
        self.pool = only if only is not None and service.plain and only.members else service.choose(self)
        if service.mirror is not None and done:
            service.mirror.consider(self)
        self._next_lane()

    def hold(self, work: Hold, within: float) -> Reply:
        """A step cannot decide yet. It returns this, and `work` calls `go_on` later, within so many seconds."""
        self.held_by = work
        self.phase = HELD
        self.deadline = monotonic() + within
        return WAIT

    def _wait_at(self, route: LiveRoute, step: Step) -> None:
        """The step holds the request: remember which ones follow."""
        work = self.held_by
        assert work is not None
        fields = self.received.fields
        steps = route.way if not (fields.special or fields.upgrade) else route.rare_way
        self.held_at = route, step, steps[steps.index(step) + 1 :]
        work.begin()

    def go_on(self, work: Hold, reply: Reply | None) -> None:
        """The step that held the request has decided: answer, or go on with the steps that follow."""
        at = self.held_at
        if self.held_by is not work or self.phase != HELD or at is None:
            return  # it has ended meanwhile
        self.held_at = self.held_by = None
        self.phase, self.deadline = NEW, inf
        route, last, rest = at
        if reply is None:
            for step in rest:
                reply = step.before(self)
                if reply is WAIT:
                    self._wait_at(route, step)
                    return
                if reply is not None:
                    last = step
                    break
        if reply is not None:
            route.answered(self, last, reply.reason)
            self.answer_with(reply)
            return
        self.route_fragment += route.fragment
        if route.total:
            self.ends_at = min(self.ends_at, self.started + route.total)
        service = self.live.services.get(self.service.name, self.live.no_service)
        if service is not self.service:  # a reload came meanwhile
            if service is self.live.no_service:
                self.answer(503, "no_target", "the service is no longer served")
                return
            self.service.in_flight -= 1
            self.move_to(service)
        self.pool = service.choose(self)
        if service.mirror is not None and self.body_done:
            service.mirror.consider(self)
        self._next_lane()

    def _let_go(self) -> None:
        """Nothing waits for the step's decision any more."""
        work, self.held_by = self.held_by, None
        if work is not None:
            work.cancel()

    def _meets_challenge(self) -> bool:
        """Answer a certificate authority, before any redirect or route. A path that it did not name passes on."""
        text = self.context.challenges.get(self.head.path)
        if text is None or self.head.method not in (b"GET", b"HEAD"):
            return False
        self.answer_with(Reply(200, "acme_challenge", "", payload=text))
        return True

    def remark(self, text: str) -> None:
        """Have the log say what a step has done with this request, which it does not answer."""
        self.route_fragment = with_remark(self.route_fragment, text)

    def remark_late(self, text: str) -> None:
        """The same once the log names the route."""
        self.route_fragment = with_late_remark(self.route_fragment, text)

    @property
    def lane(self) -> Lane | None:
        """The target that is tried, or that has answered; None: none yet, or lb answered by itself before one was."""
        return None if self.lease is None else self.lease.lane

    @property
    def is_copy(self) -> bool:
        """Whether this is a mirrored copy and not a client's request; see `proxy.mirror`."""
        return self.client is self.mirror_client

    @property
    def copy(self) -> MirrorClient | None:
        return self.mirror_client

    @property
    def peer(self) -> bytes:
        return self.client.peer

    @property
    def tls(self) -> Established | None:
        return self.client.tls

    @property
    def service_name(self) -> str:
        return self.service.name

    @property
    def pool_name(self) -> str:
        return self.pool.name

    @property
    def target_id(self) -> str:
        return self.lease.lane.id if self.lease is not None else ""

    @property
    def limiter(self) -> GradientLimiter | None:
        return self.service.limiter

    @property
    def in_flight(self) -> int:
        return self.service.in_flight

    @property
    def waits_to_connect(self) -> bool:
        """Whether a connection is being opened for it."""
        return self.phase == CONNECTING

    def start_copy(self, original: Exchange, pool: LivePool) -> None:
        """Begin as a mirrored copy of `original`, whose body is complete: choose a target, have a connection, wait."""
        self.service = original.service
        self.pool = pool
        self.request_id = original.request_id
        self.received = original.received
        self.body = list(original.body) if original.body else None
        self.body_bytes, self.bytes_in, self.trailers = original.body_bytes, original.bytes_in, original.trailers
        balancer = pool.balancer
        if balancer.needs_key:
            self.key = self.service.key_of(self)
        lane = balancer.pick(self.key, (), self.started)
        if lane is not None:
            self.lease = lane.hold()
            if lane.freshest is None and self._may_open(lane):
                self._open(self.lease)

    def send_copy(self) -> None:
        """The original needs no other try: send the copy, unless its connection is still to come."""
        self.started = monotonic()  # its waiting time does not count
        if self.phase != NEW:
            return
        assert self.mirror_client is not None
        lane = self.lane
        if self.lease is not None and lane not in self.pool.members:
            self.lease.release()
            self.lease = None
        if not self.pool.members or not self.mirror_client.may_go():
            self.mirror_client.drop()
            return
        if self.lease is None or lane is None:
            self._next_lane()
            return
        if not self._may_open(lane):
            self.mirror_client.drop()
            return
        lease = lane.lease(self.started, self.head.method not in IDEMPOTENT)
        if lease is not None:
            self.lease.release()
            self.lease = lease
            self._send(lease.upstream)
        else:
            self._open(self.lease)

    def _open(self, lease: Lease) -> None:
        """Wait for a connection to the target that is held."""
        self.phase = CONNECTING
        lease.open(self, self.needs_new_connection, self.head.method not in IDEMPOTENT)

    def _may_open(self, lane: Lane) -> bool:
        """Whether a target may have one more connection in use."""
        limit = self.service.connections
        return not limit or lane.active < limit

    def _copy_connected(self, upstream: TargetStream) -> None:
        """A copy's connection is open: send the copy, or keep the connection until the copy may be sent."""
        mirror_client, lease = self.mirror_client, self.lease
        assert mirror_client is not None
        assert lease is not None
        if not mirror_client.held and lease.lane in self.pool.members and mirror_client.may_go():
            self._send(upstream)
            return
        self.phase = NEW
        lease.leave_unused(upstream, self.connected_at)
        if not mirror_client.held:
            mirror_client.drop()
        if self.pool.waiting:
            self.pool.wake()  # a client's request may ride it

    def _next_lane(self) -> None:
        """Pick a target and lease a connection to it: an idle one, a new one, or a place in the queue."""
        private = self.client.private
        if private is not None and not self.needs_new_connection and self._ride_private(private):
            return
        pool = self.pool
        balancer = pool.balancer
        if balancer.needs_key and not self.key:
            self.key = self.service.key_of(self)
        lane = balancer.pick(self.key, self.tried, self.started)
        if lane is None:
            self.answer(503, "no_target", "no target is ready")
            return
        limit = self.service.connections
        if limit and lane.active >= limit:
            lane_with_room = self._with_room(limit)
            if lane_with_room is None:
                self._queue()
                return
            lane = lane_with_room
        if not self.needs_new_connection:
            now = self.started if not self.attempt else monotonic()
            lease = lane.lease(now, self.head.method not in IDEMPOTENT)
            if lease is not None:
                self.lease = lease
                self._send(lease.upstream)
                return
        self.lease = lane.hold()
        self._open(self.lease)

    def _ride_private(self, connections: PrivateStreams) -> bool:
        """Use the client's own connection, on which it is logged in. False: none may serve this request."""
        service, chosen = self.service, self.pool
        pools = [chosen]
        if service.plain and service.split.only is None and chosen.serving:
            # While a rollout shares traffic among pools, a client stays where it is logged in, unless a preview or
            # stickiness has chosen its pool.
            pools += [p for p in service.pools.values() if p.serving and p is not chosen and p is not service.fallback]
        match = connections.find([pool.members for pool in pools], self.tried)
        if match is None:
            return False
        lane, upstream, number = match
        self.pool = pools[number]
        if not self._may_open(lane):
            self._queue()
            return True
        connections.take(upstream)
        self.lease = lane.hold()
        self.lease.ride()
        self._send(upstream)
        return True

    def _with_room(self, limit: int) -> Lane | None:
        """Another lane of the pool that is below its bound of connections."""
        return self.choose_of(_below(limit, self.pool.members))

    def choose_of(self, free: Iterable[Lane]) -> Lane | None:
        """A lane of its pool out of these that may be asked: one that was not tried; any, once all of the pool were."""
        tried = self.tried
        if tried and not all(lane in tried for lane in self.pool.members):
            return next((lane for lane in free if lane not in tried), None)
        return next(iter(free), None)

    def _queue(self) -> None:
        """All targets are at their bound: wait for one, for a while, in the pool's bounded queue."""
        if self.mirror_client is not None and self.is_copy:
            self.mirror_client.drop()
            return
        if self.service.copies and self.pool.drop_copy():
            self._next_lane()
            return
        if not self.pool.enter(self):
            self.answer(503, "queue_full", "too many requests wait for a target")
            return
        if self.queued_until == inf:
            self.queued_until = monotonic() + self.service.rules.timeouts.queue
        self.phase = QUEUED
        self.timer = "queue"
        self.deadline = self.queued_until

    def waits_in(self, pool: LivePool) -> bool:
        """Whether it waits for a target of `pool` that has room."""
        return self.phase == QUEUED and self.pool is pool

    def leave_queue(self) -> None:
        """Try again, because a target may have room or the pool has changed. The deadline of the wait stays."""
        if self.phase == QUEUED:
            self.phase = NEW
            self.deadline = inf
            live, service = self.live, self.service
            if live.services.get(service.name) is not service:
                # A reload has removed the service. Nothing was sent yet, so the route decides once more.
                route = live.route_of(self)
                if route is None:
                    self.answer_with(UNROUTED[NO_ROUTE])
                    return
                service.in_flight -= 1
                chosen = route.service if route.choice is None else route.choice.choose(self)
                self.move_to(chosen)
                self.pool = chosen.choose(self)
            else:
                self.pool = service.choose_again(self)
            self._next_lane()

    def choose_service(self, service: LiveService) -> None:
        """Go to another service than the route's first one, before anything else was done."""
        former = self.service
        former.in_flight -= 1
        former.budget.requests -= 1
        service.budget.requests += 1
        self.move_to(service)

    def move_to(self, service: LiveService) -> None:
        """Go on by the rules of another service: the route's now, or the same one after a reload."""
        self.service = service
        self.key = 0  # it was by the other one's rules
        if not self.is_copy:
            service.in_flight += 1

    # 2 --- connected ------------------------------------------------------------------------------------------------

    def on_connected(self, upstream: TargetStream) -> None:
        """The requested connection is open."""
        self.connected_at = monotonic()
        if self.client is self.mirror_client:
            self._copy_connected(upstream)
            return
        if not self.pool.serving:
            pool = self.service.choose_again(self)
            if pool is not self.pool:
                # Traffic was switched meanwhile: the connection stays warm, the request goes where it belongs now.
                lease, former = self.lease, self.pool
                assert lease is not None
                lease.release()
                lease.leave_unused(upstream, self.connected_at)
                self.lease, self.pool, self.phase = None, pool, NEW
                self._next_lane()
                former.wake()  # the first waiter may ride the connection
                return
        self._send(upstream)

    def _send(self, upstream: TargetStream) -> None:
        """Write the head and the received part of the body."""
        self.upstream = upstream
        self.phase = WAITING
        head = self.head
        fields = head.fields
        if fields.special:
            if fields.authenticates_connection:
                upstream.reserve(AUTHENTICATED)
            # A final answer instead of 100: some servers then forget that a body follows.
            self.body_may_be_unread = fields.expect_continue and bool(head.minor)
            if fields.grpc_timeout >= 0.0 and self.ends_at != inf:
                # The target gets what is left of the deadline.
                left = write_timeout(max(self.ends_at - monotonic(), 0.0))
                fields = fields.with_line(b"grpc-timeout", b"grpc-timeout: " + left + b"\r\n")
                self.head = head = RequestHead(head.method, head.target, head.path, head.minor, head.host, fields)
        service = self.service
        host = service.host_header or head.host
        if head is not self.received and head.host != self.received.host:
            host = head.host  # a step of the route has changed it
        if not host and self.lease is not None:
            host = self.lease.lane.authority
        body = self.body
        piece = b"" if not body else body[0] if len(body) == 1 else b"".join(body)
        trailers = self.trailers
        if trailers and (service.omit & OMIT_TRAILERS or self.omits_trailers):
            trailers = b""
        if self.body_done or fields.expect_continue:
            self.timer = "response"
            if service.per_try and self.replayable:
                self.timer = "per_try"
                self.deadline = monotonic() + service.per_try
            else:
                now = monotonic() if self.attempt or self.connected_at else self.started
                self.deadline = now + service.response_time if service.response_time else inf
        else:
            self.deadline = inf
        upstream.send_request(self, host, service.omit, piece, self.body_done and not trailers)
        if trailers:
            upstream.send_trailers(trailers)
        if not self.body_done:
            self._bound_replay()
            if not upstream.blocked:
                self.client.resume()

    def _bound_replay(self) -> None:
        """Keep the body for another try only up to the configured bound."""
        if self.body_bytes > self.service.replay:
            self.replayable = False
            self.body = None

    # 3 --- body up --------------------------------------------------------------------------------------------------

    def on_request_body(self, piece: bytes, done: bool, trailers: bytes = b"") -> None:
        """More of the payload of the request's body has come; with `done` its end, and the trailer fields."""
        if self.text_reader is not None:
            try:
                piece = self.text_reader.read(piece, done)
            except ValueError as error:
                self.on_body_broken(str(error))
                return
        self.bytes_in += len(piece)
        self.body_done = done
        self.trailers = trailers
        if self.max_body and self.bytes_in > self.max_body:
            self.refuse(413, "body_too_large", f"the body is longer than {self.max_body} bytes")
            return
        if self.replayable:
            if self.body is None:
                self.body = []
            self.body.append(piece)
            self.body_bytes += len(piece)
        if done and self.service.mirror is not None and self.phase < ANSWERING:
            self.service.mirror.consider(self)
        upstream = self.upstream
        if upstream is None:
            if self.body_bytes > PENDING_LIMIT and not done:
                self.client.pause()
            return
        if self.service.omit & OMIT_TRAILERS or self.omits_trailers:
            trailers = b""
        upstream.send_body(piece, done and not trailers)
        if trailers:
            upstream.send_trailers(trailers)
        if self.replayable:
            self._bound_replay()
        if not done:
            return
        if self.phase == WAITING:
            self._await_response()
        elif self.phase == ANSWERING and self.head.fields.grpc and not self._held_back():
            self._await_more()

    def read_text(self, reader: TextReader) -> None:
        """The body is base64. Raises ValueError where what has come of it is none."""
        self.text_reader = reader
        piece = reader.read(b"".join(self.body or ()), self.body_done)
        self.body = [piece] if piece else None
        self.body_bytes = self.bytes_in = len(piece)

    def _await_response(self) -> None:
        """The target's time to answer begins once it has been sent the whole request."""
        upstream = self.upstream
        response = self.service.response_time
        self.timer = "response"
        ready = self.body_done and upstream is not None and not upstream.blocked
        self.deadline = self.context.now + response if ready and response else inf

    def _await_more(self) -> None:
        """The target has begun to answer. A call of gRPC that its client has not ended waits for both sides."""
        read = self.service.read_time
        self.deadline = self.context.now + read if read and (self.body_done or not self.head.fields.grpc) else inf

    def _held_back(self) -> bool:
        """Whether the target is read no more for now."""
        return self.client.blocked or (self.pace is not None and self.pace.holds)

    def on_body_broken(self, text: str) -> None:
        """The client's body is malformed: the target must not take it for whole."""
        self.refuse(400, "bad_framing", text)

    def refuse(self, status: int, reason: str, text: str) -> None:
        """Give up on the client's request: answer if that is still possible, else cut."""
        if self.phase == ANSWERING:
            self.reason = reason
            self._cut()
        else:
            self.answer(status, reason, text, close=True)

    # 4 --- answer ---------------------------------------------------------------------------------------------------

    def on_interim(self, head: ResponseHead) -> None:
        """A 1xx answer: passed on, but never to HTTP/1.0 (RFC 9110 section 15.2). It is the first byte of a try, and a
        sign of work (RFC 2518 section 10.1): the final answer gets `timeouts.response` anew."""
        if self.phase == WAITING and self.timer in ("response", "per_try") and self.deadline != inf:
            response = self.service.response_time
            self.timer = "response"
            self.deadline = monotonic() + response if response else inf
        if self.client.send_interim(head):
            if head.status == 100:
                self.body_may_be_unread = False
                if not self.body_done:
                    self.deadline = inf
                    self.client.expect_body()
            if self.client.blocked:
                self.client_blocked()

    def framed_request(self, stream: TargetStream, begin: bool) -> bytes | None:
        """The body as it came; see `ClientStream.framed_request`."""
        return self.client.framed_request(stream, begin)

    def splice(self, head: ResponseHead) -> bool:
        """Whether the client takes this response's body with its framing; see `ClientStream.splice`."""
        return not self.answer_steps and self.client.splice(head)

    def on_response(self, head: ResponseHead, piece: bytes, done: bool, framing: int = 0) -> None:
        """Relay the answer's head, with the part of its body that came in the same read.

        On a splice, `framing` bytes of that part are the framing of chunks, and are not counted as payload.
        """
        now = monotonic()
        status = head.status
        if status >= 400 and self._sent_elsewhere(status, done, now):
            return
        if not head.plain and self._is_over_early(head, done, now):
            return
        client = self.client
        self.phase = ANSWERING
        self.status = status
        self.bytes_out = len(piece) - framing
        for step in self.answer_steps:
            head = step.on_answer(self, head)
            if self.answered_by_proxy:
                return  # the step has answered instead
        client.send_head(head, piece, done)
        if done:
            self._finish(now)
        else:
            if self.mirror_client is not None and not self.is_copy:
                self.mirror_client.answer_begins()
            self.body = None
            self.first_byte_at = now
            read = self.service.read_time
            self.timer = "read"
            # A call of gRPC that its client has not ended waits for both sides: the client's stream bounds it.
            self.deadline = now + read if read and (self.body_done or not self.head.fields.grpc) else inf
            if client.blocked:
                self.client_blocked()
            if self.pace is not None:
                self.pace.sent(len(piece) - framing)

    def _is_over_early(self, head: ResponseHead, done: bool, now: float) -> bool:
        """Look at the rare fields of an answer's head. True: it is thrown away, and the request is tried elsewhere."""
        fields = head.fields
        if fields.authenticates_connection:
            upstream = self.upstream
            if upstream is not None and upstream.private == SHARED:
                upstream.reserve(OFFERED)
        if fields.grpc_status < 0 or not self.head.fields.grpc:
            return False
        self.grpc_status = fields.grpc_status
        if not done or fields.grpc_status not in FAILURES or self.is_copy or forbids_retry(fields.forwarded_lines):
            return False
        return self._fails_elsewhere(counts_as(fields.grpc_status), described(fields.grpc_status), done, now)

    def on_response_body(self, piece: bytes, done: bool, framing: int = 0) -> None:
        """More of the answer's body; with `done` its end. `framing` as in `on_response`."""
        self.bytes_out += len(piece) - framing
        limit = self.response_limit
        if limit is not None and self.bytes_out > limit.most:
            limit.cut(self)
            return
        self.client.send_body(piece, done)
        if done:
            self._finish(monotonic())
        elif self.phase == ANSWERING:
            if self.deadline != inf:
                self.deadline = self.context.now + self.service.read_time
            if self.pace is not None:
                self.pace.sent(len(piece) - framing)

    def on_response_trailers(self, lines: bytes) -> None:
        """The trailer fields of the answer, whole lines: its end."""
        if self.head.fields.grpc:
            self.grpc_status = read_status(lines)
        self.client.send_trailers(lines)
        self._finish(monotonic())

    def on_upgrade(self, head: ResponseHead, rest: bytes) -> None:
        """101: from here on both connections are one pipe (RFC 9110 section 7.8)."""
        asked = self.head.fields.upgrade.lower()
        got = head.fields.upgrade.lower()
        assert self.upstream is not None
        assert self.lane is not None
        fault = ""
        if not asked or not got or got not in [item.strip() for item in asked.split(b",")]:
            fault = "switched to a protocol that was not asked for"
        elif not self.body_done:
            fault = "switched protocols before it had the request's body"
        elif got == b"websocket" and not self.client.accepts(head):
            fault = "accepted a WebSocket without the Sec-WebSocket-Accept of its key"
        if fault:
            self.upstream.cancel()
            if not self.is_copy:
                self.lane.failed("reset", fault)
            self.answer(502, "target_garbage", f"the target {fault}")
            return
        self.phase = TUNNELLING
        self.first_byte_at = monotonic()
        self.deadline = self.ends_at = inf
        self.status = self.client.send_upgrade(head)
        self.tunnel = Tunnel(self.context, self, self.lane, self.upstream, websocket=got == b"websocket")
        self.tunnel.start(rest)

    def on_tunnel_end(self, bytes_in: int, bytes_out: int, reason: str) -> None:
        """The tunnel is closed on both sides."""
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self.reason = reason
        self._finish(monotonic())

    # 5 --- trouble --------------------------------------------------------------------------------------------------

    def on_failure(self, failure: Failure) -> None:
        """A try has failed: refused, reset, nonsense, too slow."""
        now = monotonic()
        upstream, lease = self.upstream, self.lease
        self.upstream = None
        assert lease is not None
        lane = lease.lane
        if upstream is not None:
            upstream.cancel()
            lease.hang_up(upstream, now)
        self._log_attempt(f"{lane.id}: {failure.text}")
        doubtful = failure.idle >= 0.0 and failure.elapsed <= COINCIDENCE and self.phase == WAITING and self.replayable
        if doubtful and not (self.head.idempotent and self._elsewhere(lane, fallback=False)):
            # The target may have closed an idle connection just as the request was written. Its other connections show
            # that within a moment, and a new connection shows whether the target is alive. The fallback is for
            # requests that the target itself has failed.
            self.phase = AWAITING_EVIDENCE
            self.deadline = inf
            if self._may_open(lane):
                lane.try_out(self.is_copy)
            self.context.loop.call_later(EVIDENCE_TIME, self._evidence_due, lane, failure, now, EVIDENCE_TURNS)
            self.pool.wake()  # the connection that broke off has left room
            return
        self._decide(lane, failure, now)

    def _evidence_due(self, lane: Lane, failure: Failure, at: float, turns: int) -> None:
        """Decide by the evidence so far. While the target has not answered a new connection, wait once more."""
        if self.phase == AWAITING_EVIDENCE:
            explains = lane.idle_limit.explains
            explained = explains(failure.idle, failure.elapsed, at, alive=lane.opened_at > at)
            if not explained and lane.opening and turns > 1 and explains(failure.idle, failure.elapsed, at, alive=True):
                self.context.loop.call_later(EVIDENCE_TIME, self._evidence_due, lane, failure, at, turns - 1)
                return
            self._decide(lane, failure._replace(unprocessed=explained), monotonic())

    def _decide(self, lane: Lane, failure: Failure, now: float) -> None:
        decision = self._decision(lane, failure, now)
        if decision.action == RETRY:
            self._again(lane, failure)
            return
        attempt_log = list(self.attempt_log)
        attempt_log[-1] += f"; not tried again: {decision.why}"
        self.attempt_log = attempt_log
        if decision.action == CUT:
            self.reason = _reason_of(failure)
            self._cut()
        else:
            self.answer(decision.action, _reason_of(failure), _public(failure))

    def _decision(self, lane: Lane, failure: Failure, now: float) -> Decision:
        """The decision on a try that failed at this lane. A retry takes from the retry budget."""
        service = self.service
        return decide(
            failure,
            started=self.phase == ANSWERING,
            idempotent=self.head.idempotent,
            replayable=self.replayable,
            attempt=self.attempt,
            attempts=service.rules.retries.attempts + self.passed_over,
            statuses=service.rules.retries.statuses,
            elsewhere=self._elsewhere(lane),
            budget=NO_RETRIES if self.is_copy else service.budget,
            now=now,
        )

    def _elsewhere(self, lane: Lane, *, fallback: bool = True) -> bool:
        """Whether another try may go to a target that has not been tried; of another pool, if need be. A copy has but
        one pool."""
        if self.is_copy:
            return any(member is not lane and member not in self.tried for member in self.pool.members)
        return self.service.elsewhere(self, lane, fallback=fallback)

    def _again(self, lane: Lane, failure: Failure) -> None:
        """Try another target; or the same one, a moment later, when it is the only one."""
        service = self.service
        reason = "stale" if failure.reused else f"{PHASES[failure.phase]}_{CAUSES[failure.cause]}"
        if not self.is_copy:
            service.retried[reason] = service.retried.get(reason, 0) + 1
        self.attempt += 1
        if failure.phase != CONNECT:
            self.queued_until = inf  # a target had room and was asked: a wait for another one is a new one
        # An idle connection of the same age would be no better; and such a failure is none of the target's.
        self.needs_new_connection = failure.reused or (failure.unprocessed and failure.idle >= 0.0)
        self._leave_lane()
        self.deadline = inf
        # A target that ends its connections (GOAWAY) has failed nothing: another connection of it may do.
        if lane not in self.tried and (failure.cause != GONE or self.attempt > LEFT_OUT_TIMES):
            self.tried = [*self.tried, lane]
        self.phase = NEW
        pool = self.pool
        if failure.cause == NO_UPGRADE:
            self.passed_over += 1
            self.context.loop.call_soon(self._retry_now)  # no deeper with each target of a large pool
        elif self._choose_again():
            at_once = failure.reused or failure.cause == GONE
            if at_once or any(member not in self.tried for member in self.pool.members):
                self._next_lane()
            else:
                # A rare case that needs a timer: all targets have been tried, so that the retry waits a moment.
                self.context.loop.call_later(0.05 * (1 << min(self.attempt - 1, 5)), self._retry_now)
        if pool.waiting:
            pool.wake()  # the try that failed has left room

    def _leave_lane(self) -> None:
        """Another target is to be asked."""
        if self.lease is not None:
            self.lease.release()
            self.lease = None

    def _log_attempt(self, text: str) -> None:
        """Add the result of a try to the attempt log."""
        self.attempt_log = [*self.attempt_log, text]

    @property
    def passes_trailers(self) -> bool:
        """Whether trailer fields of the answer go on to the client."""
        mode = self.service.rules.trailers
        return mode == "pass" or (mode == "negotiate" and self.head.fields.te_trailers)

    @property
    def client_is_blocked(self) -> bool:
        """Whether the client takes no more for now."""
        return self.client.is_blocked()

    def keep_private(self, upstream: TargetStream) -> None:
        """Keep the connection for this client alone, until the client's connection ends."""
        assert self.lease is not None
        self.client.keep_private(self.lease.lane, upstream)

    @property
    def written_at(self) -> float:
        """When the try under way was written to its target."""
        return max(self.started, self.connected_at)

    def _retry_now(self) -> None:
        if self.phase == NEW and self._choose_again():
            self._next_lane()

    def _choose_again(self) -> bool:
        """Choose the pool of the next try. A copy has but one, and is over when that is mirrored to no more."""
        if not self.is_copy:
            self.pool = self.service.choose_again(self)
            return True
        assert self.mirror_client is not None
        if self.mirror_client.held:
            return False  # `send_copy` goes on
        if not self.pool.members or not self.mirror_client.may_go():
            self.mirror_client.drop()
            return False
        return True

    def _sent_elsewhere(self, status: int, done: bool, now: float) -> bool:
        """Whether an unwelcome answer is thrown away and the request tried elsewhere."""
        service = self.service
        lane = self.lane
        assert lane is not None
        if self.is_copy:
            return False
        if status in service.rules.retries.statuses and self.body_done:
            return self._fails_elsewhere(status, str(status), done, now)
        if status == 404 and service.rules.sticky.asset_fallback and self._may_ask_for_asset():
            other = service.asset_pool(self)
            if other is not None:
                self.asset_tried = True
                self.attempt += 1
                self.queued_until = inf  # as in `_again`
                self._drop_upstream(done, now)
                self._leave_lane()
                if lane not in self.tried:
                    self.tried = [*self.tried, lane]
                former, self.pool = self.pool, other
                self.phase = NEW
                self._log_attempt(f"{lane.id}: answered 404, asked the other pool")
                self._next_lane()
                if former.waiting:
                    former.wake()  # the target that answered has room
                return True
        return False

    def _fails_elsewhere(self, status: int, answer: str, done: bool, now: float) -> bool:
        """Whether a failing answer is thrown away and the request tried elsewhere. `status` is what it counts as."""
        lane = self.lane
        assert lane is not None
        if status not in self.service.rules.retries.statuses or not self.body_done:
            return False
        failure = Failure(HEAD, STATUS, f"answered {answer}", status=status)
        decision = self._decision(lane, failure, now)
        if decision.action != RETRY:
            self._log_attempt(f"{lane.id}: answered {answer}; not tried again: {decision.why}")
            return False
        lane.try_failed("5xx", failure.text)
        self._drop_upstream(done, now)
        self._log_attempt(f"{lane.id}: answered {answer}")
        self._again(lane, failure)
        return True

    def _may_ask_for_asset(self) -> bool:
        """Whether a request that one pool answered with 404 may be sent to the other pool, once."""
        if self.asset_tried or self.head.method not in (b"GET", b"HEAD"):
            return False
        return self.replayable and self.body_done

    def _drop_upstream(self, done: bool, now: float) -> None:
        """Give the connection up. It is reused only if its answer is complete."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None and self.lease is not None:
            upstream.reusable = (
                upstream.reusable and done and not self.body_may_be_unread and not (self.bytes_in and upstream.unsent)
            )
            self.lease.hang_up(upstream, now)

    def on_deadline(self, now: float) -> None:
        """A timeout of the target's side, or of the whole request, has passed."""
        if now >= self.ends_at:
            timeout = self.head.fields.grpc_timeout
            if 0.0 <= timeout <= now - self.started:
                self.reason, text = DEADLINE, "the client's deadline (grpc-timeout) has passed"
            else:
                self.reason, text = "timeout_total", "the request took longer than it may in all"
            if self.phase == ANSWERING:
                self._cut()
            else:
                self.answer(504, self.reason, text)
            return
        if self.phase == QUEUED:
            self.answer(503, "timeout_queue", "no target had room in time")
            return
        if self.held_by is not None:
            self.answer_with(self.held_by.late)
            return
        self._too_slow()

    def _too_slow(self) -> None:
        """The target's timeout `timer` has passed."""
        lane, timer = self.lane, self.timer
        if lane is None:
            return
        text = _TIMER_TEXTS[timer]
        if not self.is_copy:
            lane.try_failed("timeout", text)
        self.on_failure(Failure(HEAD, TIMEOUT, text, timer=timer))

    def client_lost(self) -> None:
        """The client's connection has ended. That counts as no failure (nginx logs it as 499)."""
        if self.phase not in (OVER, TUNNELLING):
            if self.phase == QUEUED:
                self.pool.leave(self)
            elif self.phase == HELD:
                self._let_go()
            self.status = 499
            self.reason = self.reason or "client_gone"
            self._drop_upstream(False, monotonic())
            self._finish(monotonic(), complete=False)

    def client_too_slow(self, timer: str) -> None:
        """The client's body stands still, or the client does not take its answer."""
        if self.phase == ANSWERING:
            self.reason = f"timeout_{timer}"
            self._cut()
        elif timer == "client_send":  # interim answers alone have filled its buffer: a final one would not reach it
            self.reason = f"timeout_{timer}"
            self.client_lost()
        else:
            self.answer(408, f"timeout_{timer}", "the request's body did not come in time", close=True)

    def cut_for_drain(self, text: str = "the target was drained before it answered") -> None:
        """The target, its pool or the worker leaves, and the drain time is over. `text` tells a waiting client so."""
        self.reason = "drain_cut"
        if self.tunnel is not None:
            self.tunnel.cut("drain_cut")
        elif self.phase == ANSWERING:
            self._cut()
        elif self.phase != OVER:
            self.answer(503, "drain_cut", text)

    def answer(self, status: int, reason: str, text: str, *, close: bool = False) -> None:
        """Answer in the proxy's own name."""
        self.answer_with(Reply(status, reason, text, last=close))

    def answer_with(self, reply: Reply) -> None:
        """Answer in the proxy's own name."""
        client = self.client
        if self.phase == QUEUED:
            self.pool.leave(self)
        elif self.phase == HELD:
            self._let_go()
        if self.pool is self.live.no_service.no_pool:
            self.pool = self.service.no_pool  # refused before a pool was chosen: its service counts it
        if self.live.error_words is not None and reply.status >= 400 and not (reply.payload or reply.done):
            reply = self.worded(reply)
        self.reason = reply.reason
        self.status = reply.status
        self.answered_by_proxy = True
        self._drop_upstream(False, monotonic())
        self.phase = ANSWERING
        response, payload = response_of(
            reply,
            request_id=self.request_id,
            head_only=self.head.method == b"HEAD",
            retry_after=reply.retry_after or (self.service.rules.retry_after if reply.status == 503 else 0),
            date=self.context.date,
        )
        self.bytes_out = len(payload)
        if client is not self.mirror_client and not (reply.done or (reply.payload and reply.status < 400)):
            self.context.stats.reject(reply.reason)
        for step in self.answer_steps:
            response = step.on_answer(self, response)
        client.send_head(response, payload, True, reply.last)
        self._finish(monotonic())

    def worded(self, reply: Reply) -> Reply:
        """An error of lb's own in the words that the route's error pages have for it."""
        words = self.live.error_words
        return reply if words is None else words.reply(self, reply)

    def _cut(self) -> None:
        """The answer has begun and cannot be finished: it must not look complete."""
        self._drop_upstream(False, monotonic())
        self.client.reset()
        self._finish(monotonic(), cut=True)

    # 6 --- backpressure ---------------------------------------------------------------------------------------------

    def client_blocked(self) -> None:
        """Stop reading from the target while the client's send buffer is full.

        The client's connection watches for progress, so that the target's timeout does not run.
        """
        if self.upstream is not None:
            self.deadline = inf
            self.upstream.pause()

    def client_unblocked(self) -> None:
        """The client takes more again."""
        if self.upstream is not None and (self.pace is None or not self.pace.holds):
            self.upstream.resume()
            if self.phase == ANSWERING:
                self._await_more()
            elif self.phase == WAITING:
                self._await_response()

    def upstream_blocked(self) -> None:
        """Stop reading from the client while the target's send buffer is full.

        The target's connection watches for progress (`target_stalled`).
        """
        self.client.pause()
        if self.phase == WAITING and self.timer != "per_try":
            self.timer = "send"
            self.deadline = inf

    def upstream_unblocked(self) -> None:
        """The target takes more again."""
        self.client.resume()
        if self.phase == WAITING and self.timer != "per_try":
            self._await_response()

    def target_stalled(self) -> None:
        """The target has taken nothing of the body for `timeouts.send`. (If it answers already, the rest may wait.)"""
        if self.phase == WAITING:
            self.timer = "send"
            self._too_slow()
        elif self.tunnel is not None:
            self.tunnel.cut("timeout_send")

    # 7 --- end ------------------------------------------------------------------------------------------------------

    def _finish(self, now: float, cut: bool = False, complete: bool = True) -> None:
        """Count, write the log record, give the connection back, let the client's next request begin."""
        mirror_client = self.mirror_client
        if mirror_client is not None and self.client is mirror_client:
            self._finish_copy(now)
            return
        context, lease, service = self.context, self.lease, self.service
        seconds = now - self.started
        if seconds < _SHORT:
            bucket = _SHORT_BUCKETS[int(seconds * _FIRST)]
        else:
            bucket = bisect_left(_BUCKETS, seconds)
        self.bucket = bucket
        self.was_cut = cut
        phase, self.phase = self.phase, OVER
        failed = self.head.fields.special and self.head.fields.grpc and self._end_call(cut, complete)
        if lease is not None:
            self.target_fragment = lease.lane.log_fragment
            upstream = self.upstream
            if upstream is not None:
                self.upstream = None
                if self.body_may_be_unread or not self.body_done or (self.bytes_in and upstream.unsent):
                    upstream.reusable = False
            outcome = ABANDONED if self.answered_by_proxy else CUT_OFF if cut else COMPLETE
            if failed and outcome == COMPLETE:
                lease.release(upstream, FAILED_CALL, self.status, seconds, bucket, now, described(self.grpc_status))
            else:
                lease.release(upstream, outcome, self.status, seconds, bucket, now)
        stats = context.stats
        stats.over += 1
        stats.crash_counters[OVER_CELL] = stats.over
        counts = self.pool.counts
        counts.seconds += seconds
        counts.buckets[bucket] += 1
        if lease is None or self.status >= 500 or self.attempt_log or self.answered_by_proxy or cut or failed:
            stats.eventful(self, counts.tally, seconds)
        if self.pace is not None:
            self.pace.close()
        if self.in_flight_slots:
            for slot in self.in_flight_slots:
                context.in_flight.leave(slot)
        for observer in context.observers:
            observer.ended(self, seconds)
        if service is not self.live.no_service:
            service.in_flight -= 1
            if self.pool.waiting:
                self.pool.wake()
        self.body = None
        if phase != TUNNELLING:
            self.client.done(complete and not cut)
            if now - context.now > LATE:
                self.client.defer_read()

    def _end_call(self, cut: bool, complete: bool) -> bool:
        """Count a call of gRPC by its status. Returns whether a target has failed it, with an answer of HTTP's 200."""
        ours = self.answered_by_proxy or not complete
        if cut and not ours:
            self.grpc_status = CANCELLED if self.reason == "drain_cut" else status_of(0, self.reason)
            if self.reason not in (DEADLINE, "drain_cut"):
                self.grpc_status = INTERNAL
        elif ours or self.grpc_status < 0:
            # An answer without a status is one of a server that does not speak gRPC, or has broken off.
            self.grpc_status = status_of(self.status, self.reason)
        counts = self.service.grpc
        counts[self.grpc_status] = counts.get(self.grpc_status, 0) + 1
        return not ours and not cut and self.status < 500 and self.grpc_status in FAILURES

    def _finish_copy(self, now: float) -> None:
        """A copy is over: it gives its connection back, and counts for its mirror alone."""
        self.phase = OVER
        self._drop_upstream(True, now)
        if self.lease is not None:
            self.lease.release()
        self.body = None
        assert self.mirror_client is not None
        self.mirror_client.copy_ended(self.status, now - self.started)
        if self.pool.waiting:
            self.pool.wake()


def _below(limit: int, lanes: Iterable[Lane]) -> Iterator[Lane]:
    """The lanes with fewer connections in use."""
    for lane in lanes:
        if lane.active < limit:
            yield lane


def _reason_of(failure: Failure) -> str:
    if failure.cause == TIMEOUT:
        return f"timeout_{failure.timer}"
    if failure.cause == STATUS:
        return "target_status"
    if failure.cause in LASTING or failure.cause == NO_UPGRADE:
        return CAUSES[failure.cause]
    if failure.phase == CONNECT:
        return f"connect_{CAUSES[failure.cause]}"
    return f"target_{CAUSES[failure.cause]}"


def _public(failure: Failure) -> str:
    """The text for the client: the cause, without the target's address."""
    if failure.cause == TIMEOUT:
        return f"the target {_TIMER_TEXTS[failure.timer]} (timeout: {failure.timer})"
    if failure.phase == CONNECT:
        return f"the target could not be reached ({CAUSES[failure.cause]})"
    if failure.cause == NO_UPGRADE:
        return "the target speaks HTTP/2, and takes no WebSocket over it (RFC 8441)"
    if failure.cause == GARBAGE:
        return "the target's answer is not valid HTTP"
    return "the target broke off before it answered"


_TIMER_TEXTS: Final = {
    "connect": "did not accept a connection in time",
    "send": "took no more of the request's body in time",
    "response": "did not begin to answer in time",
    "per_try": "did not begin to answer in the time of one try",
    "read": "stopped within its answer",
}
