"""A worker's live side of a service and its pools: lanes in rotation, shares of traffic, waiting requests.

Each pool has a queue of its own. A pool whose targets hang fills its own queue and delays no other pool's requests.

`LiveService` is rebuilt with each snapshot and `rotate`d by each `Rotation`; counters outlive both. `LiveConfig` holds
the services in force, and the routes to them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection
from itertools import islice
from math import inf
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Final

from lb.core.affinity import TargetCookie
from lb.core.balance import Balancer, build, hash_key
from lb.core.balance.by_cookie import BITS, ByCookie
from lb.core.limiter import GradientLimiter
from lb.core.native import mypyc_attr
from lb.core.renames import Renames
from lb.core.retry import RetryBudget
from lb.core.routing import RouteTable, host_matches
from lb.core.shares import Split
from lb.core.targets import Preview, Rotation, Service
from lb.core.visibility import asset_pools, visible
from lb.http.h1.parse import host_name
from lb.http.h1.serialize import OMIT_TRAILERS, OMIT_VIA
from lb.proxy.asked import AskedRequest
from lb.proxy.mirror import Mirroring
from lb.proxy.route_fragment import fragment_of

if TYPE_CHECKING:
    from lb.http.h1.replies import Reply
    from lb.http.message import RequestHead, ResponseHead
    from lb.proxy.client_stream import ClientStream
    from lb.proxy.context import Context
    from lb.proxy.exchange import Exchange
    from lb.proxy.lane import Lane
    from lb.proxy.page_set import PageSet
    from lb.proxy.stats import PoolCounts, StepCounts


#: Seconds that a lane is out of rotation after it has refused a connection, unless the supervisor decides more.
COOLDOWN: Final = 1.0


class LivePool:
    """One pool: the lanes in rotation, the balancer over them, and the requests that wait for a target with room."""

    __slots__ = (
        "balancer",
        "cooling",
        "counts",
        "lanes",
        "leaves_at",
        "left_at",
        "members",
        "name",
        "rng",
        "service",
        "serving",
        "stays",
        "trying",
        "waiting",
        "weights",
    )

    def __init__(self, rng: Random, service: LiveService, name: str, counts: PoolCounts) -> None:
        self.rng = rng
        self.service = service
        self.name = name
        self.counts = counts
        self.lanes: dict[str, Lane] = {}  # of all its targets, by id; `rules.pools` has the pools of the last snapshot
        self.weights: tuple[tuple[Lane, float], ...] = ()
        self.members: list[Lane] = []
        self.cooling: dict[Lane, float] = {}  # lane → until when it is left out
        self.serving = True  # it may see requests without a preview; see `core.visibility`
        self.stays = False  # it is to have a share of the traffic, or is the fallback
        self.left_at = 0.0  # when that ended…
        self.leaves_at = 0.0  # …and when what has been under way since before is cut; 0: nothing is to be cut
        self.balancer: Balancer[Lane] = build(service.rules.balance, (), rng)
        self.waiting: deque[Exchange] = deque()  # in the order of arrival
        self.trying: Exchange | None = None  # one of them, while `wake` lets it look for room

    def rotate(self, weights: tuple[tuple[Lane, float], ...]) -> None:
        """New members or weights."""
        if weights != self.weights:
            self.weights = weights
            self.rebuild()

    def replace(self, old: Lane, new: Lane) -> None:
        """A target has another lane from now on, since it speaks another protocol."""
        self.lanes[new.id] = new
        self.cooling.pop(old, None)
        self.weights = tuple((new if lane is old else lane, weight) for lane, weight in self.weights)
        self.rebuild()

    def rebuild(self) -> None:
        """Make the balancer anew, without the cooling lanes unless they are all there is."""
        kept = list(self.weights)
        if self.cooling:
            kept = [member for member in kept if member[0] not in self.cooling] or kept
        self.members = [lane for lane, weight in kept if weight > 0]
        self.balancer = build(self.service.rules.balance, kept, self.rng)
        cookie = self.service.cookie
        if cookie is not None:
            self.balancer = ByCookie(self.balancer, {cookie.number(lane.id): lane for lane in self.members})

    def cool_down(self, lane: Lane, until: float) -> None:
        """Take a lane out for a moment: it has refused a connection, and no verdict of the supervisor has come yet."""
        if any(lane is member for member, _ in self.weights):
            was_cooling = lane in self.cooling
            self.cooling[lane] = until
            if not was_cooling:
                self.rebuild()

    def end_cooldown(self, now: float) -> None:
        """Take back the lanes whose cooldown is over."""
        over = [lane for lane, until in self.cooling.items() if until <= now]
        if over:
            for lane in over:
                del self.cooling[lane]
            self.rebuild()
            self.wake()

    def stay(self, stays: bool, now: float, drain: float) -> None:
        """Begin or end to have a share of the traffic. At the end, requests under way have `drain` seconds left."""
        if stays:
            self.leaves_at = 0.0
        elif self.stays:
            self.left_at = monotonic()  # `now` may be a tick old, and would miss the requests since
            self.leaves_at = now + drain if drain else 0.0
        self.stays = stays

    def is_left_by(self, exchange: Exchange) -> bool:
        """Whether a request was here when the pool lost its share, and not by a preview, which needs no share."""
        return exchange.started <= self.left_at and self.service.preview_of(exchange.received) is not self

    # --- waiting ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A connection or a target has become free: let the waiting requests try, in their order, while there is room.

        A request that may not use that room keeps its place, and later requests are tried. Either it has tried that
        target before, or its client is logged in at another target.

        A request that tries may end, and the end of a request wakes the queue. That inner call returns at once,
        because this loop goes on with the next request anyway.
        """
        if self.trying is not None:
            return
        waiting, place = self.waiting, 0
        try:
            while place < len(waiting):
                exchange = self.trying = waiting[place]
                exchange.leave_queue()
                if exchange.waits_in(self):
                    place = self._next_in_line(place + 1)
                else:
                    del waiting[place]
        finally:
            self.trying = None

    def _next_in_line(self, place: int) -> int:
        """The first place from `place` on whose request may use a target with room; beyond the last: there is none."""
        limit = self.service.connections
        free = [lane for lane in self.members if not limit or lane.active < limit]
        if free:
            for at, exchange in enumerate(islice(self.waiting, place, None), place):
                if exchange.choose_of(free) is not None:
                    return at
        return len(self.waiting)

    def send_on(self) -> None:
        """Let the requests that may see this pool no more try elsewhere, also behind one that may, and has no room."""
        for exchange in [each for each in self.waiting if not self.service.may_see(self, each)]:
            if exchange in self.waiting:
                self.waiting.remove(exchange)
                exchange.leave_queue()

    def enter(self, exchange: Exchange) -> bool:
        """Let a request wait. The request that `wake` let try keeps its place. False: the queue is full."""
        if exchange is self.trying:
            return True
        if len(self.waiting) >= self.service.rules.breaker.pending:
            return False
        self.waiting.append(exchange)
        return True

    def drop_copy(self) -> bool:
        """Give up a mirrored copy that has a connection, or waits for one, for a client's request. False: none does."""
        for copy in self.service.copies:
            lease = copy.lease
            if (
                copy.pool is self
                and copy.mirror_client is not None
                and (copy.upstream is not None or copy.waits_to_connect)
            ):
                copy.mirror_client.drop()
                if lease is not None:
                    lease.lane.prune()  # it may have been the first that waits there
                return True
        return False

    def leave(self, exchange: Exchange) -> None:
        """A request gives up waiting."""
        if exchange in self.waiting:
            self.waiting.remove(exchange)


class LiveService:
    """One service: its rules, its pools, and its share of traffic."""

    __slots__ = (
        "bounded",
        "budget",
        "connections",
        "cookie",
        "copies",
        "error_pages",
        "fallback",
        "grpc",
        "host_header",
        "in_flight",
        "limiter",
        "live",
        "mirror",
        "mirrored",
        "name",
        "no_pool",
        "omit",
        "per_try",
        "plain",
        "pools",
        "read_time",
        "ready",
        "replay",
        "response_time",
        "retried",
        "rotation",
        "rules",
        "shares",
        "split",
    )

    def __init__(self, live: LiveConfig, rules: Service) -> None:
        self.live = live
        context = live.context
        pool_counts, rng = context.stats.pool_counts, context.rng
        self.name = rules.name
        self.follow(rules)
        affinity = rules.affinity
        secrets = context.guards.secrets(affinity.digest) if affinity is not None else ()
        self.cookie = TargetCookie(affinity.cookie, secrets) if affinity is not None and secrets else None
        self.host_header = rules.host_header.encode()
        self.no_pool = LivePool(rng, self, "none", pool_counts(rules.name, "none"))
        self.pools: dict[str, LivePool] = {
            pool.name: LivePool(rng, self, pool.name, pool_counts(rules.name, pool.name)) for pool in rules.pools
        }
        # Each worker begins elsewhere, so that the first requests of a step are not all the new pool's, or none.
        self.split: Split[LivePool] = Split((("none", 100),), {"none": self.no_pool}, context.worker * 37)
        self.fallback: LivePool | None = None
        self.shares: tuple[tuple[str, int], ...] = ()
        self.ready: frozenset[str] = frozenset()  # the pools with a target in rotation
        self.budget = RetryBudget(rules.retries.budget, rules.retries.budget_floor, context.now)
        self.retried: dict[str, int] = {}
        self.in_flight = 0
        self.limiter: GradientLimiter | None = GradientLimiter() if rules.breaker.adaptive else None
        self.bounded = bool(rules.breaker.requests or rules.breaker.adaptive)
        self.mirror: Mirroring | None = None
        self.mirrored: dict[str, int] = {}  # outcome → copies
        self.grpc: dict[int, int] = {}  # grpc-status → calls
        self.error_pages: PageSet | None = None
        self.copies: set[Exchange] = set()  # mirrored copies under way
        self.omit = (0 if rules.via else OMIT_VIA) + (OMIT_TRAILERS if rules.trailers == "drop" else 0)
        self.plain = not rules.previews and not rules.sticky.by
        self.rotation: Rotation | None = None  # as it was told last

    def follow(self, rules: Service) -> None:
        """Go by these rules. Objects that each request asks for are at hand, which saves it the way to them."""
        self.rules = rules
        self.connections = rules.breaker.connections
        self.response_time = rules.timeouts.response
        self.read_time = rules.timeouts.read
        self.per_try = rules.retries.per_try
        self.replay = rules.retries.replay

    def inherit(self, old: LiveService, names: Renames) -> None:
        """Take over the state of the service of the same name, or of the renamed one: a reload must not lose it."""
        self.retried, self.mirrored, self.copies = old.retried, old.mirrored, old.copies
        self.grpc = old.grpc
        self.split.position = old.split.position
        self.budget.requests, self.budget.retries = old.budget.requests, old.budget.retries
        if self.limiter is not None and old.limiter is not None:
            self.limiter = old.limiter
        for name, pool in self.pools.items():
            former = old.pools.get(names.pool_was(self.name, name)[1])
            if former is not None:
                pool.cooling = dict(former.cooling)
                pool.stays, pool.left_at = former.stays, former.left_at
                drain, drained = self.rules.timeouts.drain, old.rules.timeouts.drain
                pool.leaves_at = moved_deadline(former.leaves_at, drained, drain)
                if drain and not drained and pool.left_at and not pool.stays:
                    pool.leaves_at = self.live.context.now + drain  # there was no limit: it begins now

    def rotate(self, rotation: Rotation, lanes: dict[str, Lane], now: float) -> None:
        """Take a new rotation: members, weights, shares. One step, between two requests."""
        self.rotation = rotation
        weights = dict(rotation.weights)
        if self.cookie is not None:
            self.cookie.know([id for pool in self.pools.values() for id in pool.lanes])
        for name, pool in self.pools.items():
            pool.rotate(tuple((lanes[id], weight) for id, weight in weights.get(name, ()) if id in lanes))
        self.fallback = self.pools.get(rotation.fallback)
        if rotation.shares:
            self.shares = rotation.shares
            self.split = Split(rotation.shares, self.pools, self.split.position)
        self.ready = frozenset(name for name, pool in self.pools.items() if pool.members)
        serving = visible(self.shares, self.ready, rotation.fallback)
        # A pool that has no target for a moment has not left: its share is to be its own again.
        staying = {rotation.fallback, *(rotation.sharing or [name for name, parts in self.shares if parts])}
        mirror = rotation.mirror
        if mirror is None or mirror.pool not in self.pools:
            self.mirror = None
        elif self.mirror is None or self.mirror.rules != mirror:
            self.mirror = Mirroring(self, self.pools[mirror.pool], mirror)
        drain = self.rules.timeouts.drain
        for name, pool in self.pools.items():
            pool.serving = name in serving
            pool.stay(name in staying, now, drain)
        for pool in self.pools.values():
            if pool.waiting:
                pool.send_on()
                pool.wake()

    @property
    def waiting(self) -> list[Exchange]:
        """The requests that wait for a target, pool by pool in their order."""
        return [exchange for pool in self.pools.values() for exchange in pool.waiting]

    # --- per request ------------------------------------------------------------------------------------------------

    def choose(self, exchange: Exchange) -> LivePool:
        """The pool for this request: a preview's, the client's own by stickiness, or the next by share."""
        if self.plain:
            pool = self.split.only or self.split.pick()
        else:
            pool = self._choose(exchange.received, exchange.client)
        if not pool.members and self.fallback is not None:
            return self.fallback
        return pool

    def _choose(self, head: RequestHead, client: ClientStream) -> LivePool:
        if self.rules.previews:
            previewed = self.preview_of(head)
            if previewed is not None:
                return previewed
        only = self.split.only
        if only is not None:
            return only
        by = self.rules.sticky.by
        if by:
            key = key_bytes(by, head, client)
            if key:
                return self.split.of(hash_key(key))
        return self.split.pick()

    def preview_of(self, head: RequestHead) -> LivePool | None:
        """The pool that a preview chooses for a request."""
        for preview in self.rules.previews:
            if _matches(preview, head):
                return self.pools.get(preview.pool, self.no_pool)
        return None

    def may_see(self, pool: LivePool, exchange: Exchange) -> bool:
        """Whether `pool` may see a request, by what is served now."""
        preview = self.preview_of(exchange.received)
        if preview is None:
            return pool.serving
        fallback = self.fallback.name if self.fallback is not None else ""
        return pool.name in visible(self.shares, self.ready, fallback, preview.name)

    def choose_again(self, exchange: Exchange) -> LivePool:
        """The pool for another try, by what is served now: after a switch nothing more enters the old pool."""
        service = self.live.services.get(self.name, self)
        pool = service.pools.get(exchange.pool.name)
        if pool is None or not service.may_see(pool, exchange):
            pool = service.choose(exchange)
        if _untried(pool, exchange.tried):
            return pool
        return service.other_pool(exchange, pool) or pool

    def other_pool(self, exchange: Exchange, pool: LivePool) -> LivePool | None:
        """The pool for a request that every target of `pool` has failed. During a rollout it is the other one that
        shares the traffic, else the fallback, where it has a target that has not been tried. A preview has none: a
        tester must see that the pool fails."""
        if self.preview_of(exchange.received) is not None:
            return None
        for name, _ in self.shares:
            other = self.pools.get(name)
            if other is not None and other is not pool and other.serving and _untried(other, exchange.tried):
                return other
        fallback = self.fallback
        if fallback is None or fallback is pool:
            return None
        if exchange.needs_new_connection:  # a stale connection is no failure of its target, which is asked again
            return fallback if exchange.pool.name == fallback.name else None
        return fallback if _untried(fallback, exchange.tried) else None

    def elsewhere(self, exchange: Exchange, lane: Lane, *, fallback: bool = True) -> bool:
        """Whether a request that `lane` has failed may go to a target that has not been tried, by what is served now;
        `fallback`: also to one of the fallback that does not serve yet. See `core.visibility`."""
        service = self.live.services.get(self.name, self)
        pools = [pool for pool in service.pools.values() if service.may_see(pool, exchange)]
        if fallback and service.fallback is not None and service.preview_of(exchange.received) is None:
            pools.append(service.fallback)
        return any(_untried(pool, (*exchange.tried, lane)) for pool in pools)

    def key_of(self, exchange: Exchange) -> int:
        """The key for a balancer by hash or cookie. A request without the header or cookie is hashed by client."""
        key = hash_key(key_bytes(self.rules.balance.key, exchange.received, exchange.client) or exchange.client.peer)
        cookie = self.cookie
        if cookie is None or exchange.is_copy:
            return key
        return cookie.meant_by(exchange.received.fields.cookies(cookie.name)) << BITS | key

    def asset_pool(self, exchange: Exchange) -> LivePool | None:
        """During a rollout: the pool that may have an asset which the version that was asked lacks. It has a target
        that has not failed the request, which may have come to the fallback by that."""
        preview = self.preview_of(exchange.received)
        others = asset_pools(self.shares, self.ready, exchange.pool.name, preview.name if preview is not None else "")
        pools = [self.pools[name] for name in others]
        return next((pool for pool in pools if _untried(pool, exchange.tried)), None)

    def offers(self) -> bool:
        """Whether it has a target for a request, of the pools that share the traffic or of the fallback."""
        only = self.split.only
        if only is not None and only.members:
            return True
        if self.fallback is not None and self.fallback.members:
            return True
        for name, parts in self.shares:
            pool = self.pools.get(name)
            if parts and pool is not None and pool.members:
                return True
        return False

    def bound(self) -> int:
        """How many requests may be in flight, where the service is `bounded`."""
        fixed = self.rules.breaker.requests
        if self.limiter is None:
            return fixed
        adaptive = self.limiter.limit
        return min(fixed, adaptive) if fixed else adaptive


@mypyc_attr(allow_interpreted_subclasses=True)
class ErrorWords:
    """The form of errors that lb answers with by itself; see `proxy.error_pages`."""

    __slots__ = ()

    def reply(self, exchange: Exchange, reply: Reply) -> Reply:
        """The answer for a client."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Step:
    """Something that a route decides of each request before it goes to a target; see `proxy.steps`."""

    __slots__ = ()

    def before(self, exchange: Exchange) -> Reply | None:
        """The reply to answer with; None: go on."""
        raise NotImplementedError

    def name(self) -> str:
        """What logs call it: its class's name in the spelling of the file."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def steady(self) -> bool:
        """Whether it changes nothing but the head for the target, and that in the same way whenever the same connection
        sends the same head. It is not asked again then (`proxy.steps.steady`)."""
        return False

    def passes_until(self, exchange: Exchange) -> float:
        """When a steady step that has let a request pass has to be asked again, in Unix time; inf: never."""
        return inf

    def decider(self) -> Step:
        """The step that has made the last reply: itself, or one of several that it stands for."""
        return self


class AnswerStep(Step):
    """A step that changes answers, too. Its `before` puts it into the exchange's `answer_steps`."""

    __slots__ = ()

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        """The head for the client."""
        raise NotImplementedError


class AnswerBound(AnswerStep):
    """A step that bounds an answer's length; `most` bytes of payload may come."""

    __slots__ = ("most",)

    most: int

    def cut(self, exchange: Exchange) -> None:
        """More has come of an answer that has begun."""
        raise NotImplementedError


class Chooser(Step):
    """A step that chooses the service of a request."""

    __slots__ = ()

    def choose(self, exchange: Exchange) -> LiveService:
        """The service for a request, by what can serve now."""
        raise NotImplementedError


class LiveRoute:
    """A route with its service and its steps at hand. `way` has the steps as a request meets them. `rare_way` has them
    for heads with rare fields: Upgrade, Expect, Max-Forwards, or a login of the connection."""

    __slots__ = (
        "choice",
        "counts",
        "error_pages",
        "fragment",
        "fragments",
        "max_body",
        "rare_way",
        "service",
        "steps",
        "total",
        "way",
    )

    def __init__(
        self,
        service: LiveService,
        max_body: int,
        total: float,
        steps: tuple[Step, ...] = (),
        title: str = "",
    ) -> None:
        """With a `title`, logs and `lb explain` name the route and the steps that a request met."""
        self.service = service
        self.choice: Chooser | None = None  # of several services; `service` is the first one, or stands for none
        self.max_body = max_body
        self.total = total or service.rules.timeouts.total
        self.steps = steps
        self.way = self.rare_way = steps
        self.fragments: dict[Step, bytes] = {}  # the steps that a request met which this one has answered
        self.fragment = b""  # the same for a request that passed all of them
        self.counts: dict[Step, StepCounts] = {}  # what its steps have answered
        self.error_pages: PageSet | None = None
        if title:
            names: list[str] = []
            stats = service.live.context.stats
            for step in self.steps:
                names.append(step.name())
                self.fragments[step] = fragment_of(title, names)
                self.counts[step] = stats.step_counts(title, names[-1])
            self.fragment = fragment_of(title, names)

    def answered(self, exchange: Exchange, step: Step, reason: str) -> None:
        """Count and log that a step has answered a request."""
        step = step.decider()
        exchange.route_fragment += self.fragments.get(step, b"")
        counts = self.counts.get(step)
        if counts is not None:
            counts.count(reason)


class LiveConfig:
    """The configuration that a worker serves by now: routes, services, and their shared context.

    An `Exchange` knows no more of its worker. `DataPlane` replaces the parts between two requests.
    """

    __slots__ = (
        "context",
        "copies",
        "error_pages",
        "error_words",
        "lanes",
        "no_service",
        "only_route",
        "routes",
        "services",
        "table",
        "trusted",
    )

    def __init__(self, context: Context) -> None:
        self.context = context
        self.services: dict[str, LiveService] = {}
        self.lanes: dict[str, Lane] = {}  # by target id
        self.routes: list[LiveRoute] = []
        self.table = RouteTable.build(())
        self.trusted: tuple[str, ...] = ()  # networks of proxies whose forwarding fields are believed
        self.only_route: LiveRoute | None = None  # it takes every request
        self.copies: set[Exchange] = set()  # of mirrored requests, under way
        self.error_pages: PageSet | None = None  # of the file
        self.error_words: ErrorWords | None = None  # None: no route, service or file has pages
        self.no_service = LiveService(self, Service("none", ()))  # of a request without a route

    def route_of(self, exchange: Exchange) -> LiveRoute | None:
        """The route of a request. `Exchange.start` has this written out."""
        head, table = exchange.received, self.table
        path = head.path if head.path != b"*" else b"/"
        number = table.match(host_name(head.host), path, self.asked(exchange) if table.conditional else None)
        return None if number < 0 else self.routes[number]

    def asked(self, exchange: Exchange) -> AskedRequest:
        """The request as conditions of routes ask about it."""
        client = exchange.client
        return AskedRequest(exchange.received, client.peer, client.tls is not None, client.trusted, self.trusted)

    def pool_of(self, lane: Lane) -> LivePool | None:
        """The pool that a lane is in, if the configuration has it still."""
        service = self.services.get(lane.target.service)
        return service.pools.get(lane.target.pool) if service is not None else None

    def wake(self, lane: Lane) -> None:
        """The lane has room for a request that waits for any target of its pool."""
        pool = self.pool_of(lane)
        if pool is not None and pool.waiting:
            pool.wake()

    def cool_down(self, lane: Lane) -> None:
        """A lane refused a connection: leave it out for a moment."""
        pool = self.pool_of(lane)
        if pool is not None:
            pool.cool_down(lane, self.context.now + COOLDOWN)


def moved_deadline(at: float, old: float, new: float) -> float:
    """The end of a drain that began `old` seconds before `at`, when it may take `new` seconds; 0: there is none."""
    return at - old + new if at and new else 0.0


def _untried(pool: LivePool, tried: Collection[Lane]) -> bool:
    """Whether the pool has a target in rotation besides these."""
    return any(lane not in tried for lane in pool.members)


def _matches(preview: Preview, head: RequestHead) -> bool:
    if preview.host and not host_matches(preview.host.lower().encode(), host_name(head.host)):
        return False
    if preview.header and not _is(next(head.fields.values(preview.header.lower().encode()), None), preview.value):
        return False
    if preview.cookie and not _is(next(head.fields.cookies(preview.cookie.encode()), None), preview.value):
        return False
    return bool(preview.host or preview.header or preview.cookie)


def _is(value: bytes | None, wanted: str) -> bool:
    """Whether a header or cookie is there and has the wanted value; with "" any value will do."""
    return value is not None and (not wanted or value == wanted.encode())


def key_bytes(by: str, head: RequestHead, client: ClientStream) -> bytes:
    """The bytes that `client`, `path`, `header:NAME` or `cookie:NAME` stand for in this request."""
    if by == "client":
        return client.peer
    if by == "path":
        return head.path
    kind, _, name = by.partition(":")
    if kind == "header":
        return head.fields.value(name.lower().encode())
    if kind == "cookie":
        return head.fields.cookie(name.encode())
    return b""
