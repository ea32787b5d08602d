"""Lane: one worker's live side of a target: idle connections, requests in flight, tallies.

A lane outlives snapshots as long as its target's address is the same. Idle connections are a stack: the freshest is
taken first, so that the rest can grow old and be retired. Its top is kept apart. Of a thousand targets nearly each has
one idle connection, and a list for that would be two more places in memory to fetch.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import deque
from math import inf
from operator import add
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from lb.core.balance import PeakEwma
from lb.core.keepalive import IdleLimit
from lb.core.report import BUCKETS, Alarm, TargetTally
from lb.core.retry import (
    CONNECT,
    GARBAGE,
    REFUSED,
    RESET,
    TIMEOUT,
    TLS,
    TLS_CLIENT_CERTIFICATE,
    TLS_EXPIRED,
    TLS_VERIFY,
    UNREACHABLE,
    Failure,
)
from lb.core.targets import Service, Target, spoken

if TYPE_CHECKING:
    from lb.proxy.context import Context
    from lb.proxy.target_stream import Requester, TargetStream

#: Family and socket address.
Address = tuple[int, Any]

#: Outcomes of a lease. ABANDONED: no answer of the target counts (the try failed, lb answered by itself, a mirrored
#: copy). COMPLETE: the target's answer has reached the client whole. CUT: it began, and was cut off. FAILED: it is
#: whole, and says that the target has failed, whatever its status of HTTP.
ABANDONED: Final = 0
COMPLETE: Final = 1
CUT: Final = 2
FAILED: Final = 3


class Begun(NamedTuple):
    """A connection that is being opened."""

    at: float  # monotonic time
    for_copy: bool  # a mirrored copy alone has asked for it


class Connector(Protocol):
    """Opens connections to targets."""

    def ask(self, lane: Lane) -> None: ...

    def open(self, lane: Lane, begun: Begun) -> None: ...


class Pools(Protocol):
    """The pools that lanes are in rotation of."""

    def wake(self, lane: Lane) -> None: ...  # it has room for a request that waits for any target of its pool

    def cool_down(self, lane: Lane) -> None: ...  # it refused a connection: leave it out for a moment


class Lease:
    """One request's claim on one target, from the choice of the target until the request is over or goes elsewhere.

    Leases are the one place where `in_flight`, `active` and the answers in the tally of a lane move. `Lane.lease` makes
    one with an idle connection, `Lane.hold` one without a connection; each is released once.
    """

    __slots__ = ("careful", "lane", "needs_new_connection", "released", "since", "upstream", "waiter")

    lane: Lane
    upstream: TargetStream  # the idle connection that `Lane.lease` found
    released: bool  # once it waits for a connection, as the four after it
    waiter: Requester
    since: float  # when it began to wait
    needs_new_connection: bool  # no connection that has served a request will do
    careful: bool  # the request must not be sent twice

    # It has no `__init__`, and no value where none is needed: one is made for each request.

    def open(self, waiter: Requester, needs_new_connection: bool, careful: bool) -> None:
        """Get a connection for `waiter`, by a call of `on_connected` or `on_failure`.

        A connection is opened for it. It gets the first one available: that one, another request's, or an idle one.
        """
        lane = self.lane
        lane.active += 1
        self.released = False
        self.waiter, self.needs_new_connection, self.careful = waiter, needs_new_connection, careful
        self.since = monotonic()
        if not lane.waiters:
            lane.waiters = deque()
        lane.waiters.append(self)
        lane.ask()

    def ride(self) -> None:
        """Use a connection that is kept for this client alone."""
        self.lane.active += 1

    def hang_up(self, upstream: TargetStream, now: float) -> None:
        """Give the connection back, or have it closed, and keep the claim: the request has more to do here."""
        self.lane.active -= 1
        upstream.detach(now)

    def leave_unused(self, upstream: TargetStream, now: float) -> None:
        """The connection that came is not needed: it is good for the next request."""
        self.lane.active -= 1
        self.lane.park(upstream, now)

    def release(
        self,
        upstream: TargetStream | None = None,
        outcome: int = ABANDONED,
        status: int = 0,
        seconds: float = 0.0,
        bucket: int = 0,
        now: float = 0.0,
        failure: str = "",
    ) -> None:
        """The request is over, or goes elsewhere. `upstream` is the connection that it still has. With an outcome other
        than ABANDONED, `status`, `seconds` and their `bucket` of the histogram are counted for the target. `failure`
        is the text for the outcome FAILED."""
        lane = self.lane
        if upstream is not None:
            lane.active -= 1
            upstream.detach(now)
        else:
            self.released = True
        lane.in_flight -= 1
        if outcome:
            lane.seconds += seconds
            if status == 200 and outcome == COMPLETE:
                lane.counts[bucket] += 1
                lane.streak = 0
            else:
                self._count(outcome, status, bucket, failure)
            if lane.latency and outcome == COMPLETE:
                lane.ewma.observe(seconds, now)

    def _count(self, outcome: int, status: int, bucket: int, failure: str) -> None:
        """Count an answer other than a complete 200."""
        lane = self.lane
        tally = lane.tally
        tally.codes[status] += 1
        tally.buckets[bucket] += 1
        if status >= 500 or outcome == FAILED:
            tally.server_errors += 1
            lane.failed("5xx", f"answered {failure or status}")
        elif outcome == COMPLETE and status != 499:
            tally.successes += 1
            lane.streak = 0


#: The empty queue that all lanes without waiters share, so that reading it loads no memory.
_NO_WAITERS: Final[deque[Lease]] = deque(maxlen=0)


class Lane:
    """One worker's side of one target. Balancers read `in_flight` and `ewma`."""

    __slots__ = (
        "active",
        "addresses",
        "authority",
        "connections",
        "connector",
        "context",
        "counts",
        "drained_at",
        "draining",
        "ewma",
        "expires_at",
        "freshest",
        "id",
        "idle_limit",
        "in_flight",
        "latency",
        "log_fragment",
        "most",
        "older",
        "opened_at",
        "opening",
        "pools",
        "reported",
        "seconds",
        "service",
        "streak",
        "tally",
        "target",
        "tunnels",
        "waiters",
    )

    def __init__(self, context: Context, connector: Connector, pools: Pools, target: Target, service: Service) -> None:
        self.context = context
        self.connector = connector
        self.pools = pools
        self.target = target
        self.id = target.id
        self.addresses = _addresses(target)  # where to connect, the first to be tried first
        self.expires_at = inf  # when the first of its connections reaches its greatest age
        self.authority = _authority(target)  # Host for a client that named none
        self.service = service
        self.most = service.breaker.connections  # as many may be in use, and are kept
        self.freshest: TargetStream | None = None  # the idle connection that was used last
        self.older: list[TargetStream] | tuple[()] = ()  # the other idle ones, the oldest first
        self.waiters: deque[Lease] = _NO_WAITERS  # requests that wait for a connection
        self.opening = 0  # connections being opened, or to be begun: one at least for each of these requests
        self.in_flight = 0
        self.active = 0  # connections that are not idle: open with a request or tunnel, or being opened
        self.connections: set[TargetStream] = set()
        self.tunnels = 0
        self.draining = False
        self.drained_at = 0.0  # when in-flight requests of a draining lane are cut; 0: not draining
        self.ewma = PeakEwma(context.now)
        self.latency = service.balance.policy == "peak_ewma"
        self.idle_limit = IdleLimit(service.timeouts.idle, context.now)
        self.log_fragment = _log_fragment(target)
        self.opened_at = -inf  # when the newest connection was opened
        self.tally = TargetTally(target.id, buckets=[0] * (len(BUCKETS) + 1))
        # Counts that `settle` has yet to add to the tally. Nearly every answer is a complete 200. It is counted by
        # bucket alone, which touches two cache lines where the tally has a dozen (see benchmarks/README.md).
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.streak = 0  # failures in a row
        self.reported = -1  # `state_of()` at the last report

    # --- connections ------------------------------------------------------------------------------------------------

    def lease(self, now: float, careful: bool) -> Lease | None:
        """A lease with the freshest idle connection that may carry a request, or None.

        `careful`: the request must not be sent twice, so the kernel is asked whether the connection is open still.
        """
        limit = self.idle_limit
        while (upstream := self.freshest) is not None:
            age = now - upstream.idle_since
            young = age <= limit.retire_after
            if young and (careful or age > limit.safe_for) and not self._is_safe(upstream, age, now):
                return None
            older = self.older
            self.freshest = older.pop() if older else None
            if young:
                self.active += 1
                self.in_flight += 1
                lease = Lease()
                lease.lane = self
                lease.upstream = upstream
                return lease
            upstream.close()
        return None

    def hold(self) -> Lease:
        """A lease without a connection."""
        self.in_flight += 1
        lease = Lease()
        lease.lane = self
        return lease

    def keep(self, upstream: TargetStream) -> None:
        """Add an idle connection, the freshest. Beyond the bound of connections, the oldest is closed.

        A lower bound would cost: after a thousand requests at once, a thousand connections become idle at once. A
        connection closed then is opened again for the next thousand.
        """
        before = self.freshest
        self.freshest = upstream
        if before is not None:
            if not self.older:
                self.older = [before]
                return
            self.older.append(before)
            while len(self.older) >= self.most:
                self.older.pop(0).close()

    @property
    def idle(self) -> list[TargetStream]:
        """All idle connections, the oldest first."""
        return [*self.older, self.freshest] if self.freshest is not None else []

    def forget(self, upstream: TargetStream) -> bool:
        """Take a connection out of the idle ones; False: it is not idle."""
        idle = self.idle
        if upstream not in idle:
            return False
        idle.remove(upstream)
        self._set_idle(idle)
        return True

    def _set_idle(self, idle: list[TargetStream]) -> None:
        self.freshest = idle.pop() if idle else None
        self.older = idle or ()

    def _is_safe(self, upstream: TargetStream, age: float, now: float) -> bool:
        """Whether a connection that has been idle for `age` seconds will not be closed just as a request is written.

        While the target's idle limit is unknown, its oldest idle connection is the canary: a connection half as old is
        safe. With a single connection there is no canary, so that the request gets a new one.
        """
        limit = self.idle_limit
        if not upstream.looks_open():
            return False
        oldest = self.older[0] if self.older else upstream
        survived = now - oldest.idle_since
        if survived > limit.survived and oldest is not upstream and oldest.looks_open():
            limit.survives(survived)
        return age <= limit.safe_for

    def hand_over(self, upstream: TargetStream) -> None:
        """Give an idle connection to the first waiter, if its request may use it."""
        self.prune()
        if self.waiters:
            first = self.waiters[0]
            if not first.needs_new_connection and (not first.careful or upstream.looks_open()):
                self._connected(first, upstream)
                return
        self.keep(upstream)

    def opened(self, upstream: TargetStream) -> None:
        """Give a new connection to the first waiter, or park it for the next request."""
        self.opening -= 1
        self.opened_at = upstream.idle_since
        self.prune()
        if self.waiters:
            self._connected(self.waiters[0], upstream)
        else:
            self.park(upstream, monotonic())
            self.pools.wake(self)

    def not_opened(self, failure: Failure, begun: Begun) -> None:
        """A connection has failed. It counts unless only mirrored copies wanted it."""
        if not begun.for_copy or not all(lease.waiter.is_copy for lease in self.waiters):
            self.tally.connect_failures += 1
            self._count_failure(failure)
        self.opening -= 1
        if self.needs_another():
            if self.waiters[0].since <= begun.at:
                lease = self._leaves_first()
                self.active -= 1
                lease.waiter.on_failure(failure)
                self.prune()
                return
            self.connector.ask(self)  # it came later, and an earlier waiter got the connection that was opened for it
        self.pools.wake(self)  # with this target all may be cooling, and then the former lanes are back

    def ask(self) -> None:
        """Have a connection opened for the last waiter."""
        self.connector.ask(self)

    def _count_failure(self, failure: Failure) -> None:
        """A connection was not opened."""
        self.failed(_ALARMS[failure.cause], failure.text)

    def needs_another(self) -> bool:
        """Whether there are more waiters than connections being opened."""
        self.prune()
        return len(self.waiters) > self.opening

    def park(self, upstream: TargetStream, now: float) -> None:
        """Keep a new connection without a waiter for the next request."""
        if self.draining:
            upstream.abort()
        else:
            upstream.reusable = upstream.pooled = True
            upstream.idle_since = now
            self.keep(upstream)

    def prune(self) -> None:
        """Drop the first waiters whose request has already ended."""
        before = self.active
        while self.waiters and self.waiters[0].released:
            self._leaves_first()
            self.active -= 1
        if self.active < before:
            self.pools.wake(self)

    def _connected(self, lease: Lease, upstream: TargetStream) -> None:
        self._leaves_first()
        lease.waiter.on_connected(upstream)
        self.prune()

    def _leaves_first(self) -> Lease:
        lease = self.waiters.popleft()
        if not self.waiters:
            self.waiters = _NO_WAITERS
        return lease

    def _leaves(self, lease: Lease) -> None:
        """A waiter that need not be the first waits no more."""
        self.waiters.remove(lease)
        if not self.waiters:
            self.waiters = _NO_WAITERS

    def begin(self) -> None:
        """Open a connection now. It goes to the waiter that is first when it is open."""
        self._begin(self.waiters[-1].waiter.is_copy)

    def try_out(self, for_copy: bool) -> None:
        """Open a connection without a waiter, to see whether the target accepts connections."""
        self._begin(for_copy)

    def _begin(self, for_copy: bool) -> None:
        self.opening += 1
        self.connector.open(self, Begun(monotonic(), for_copy))

    # --- coming and going -------------------------------------------------------------------------------------------

    def move(self, addresses: tuple[str, ...]) -> None:
        """The target's name stands for these addresses now, the first to be tried first.

        Connections to other addresses take no further request; requests under way end where they are.
        """
        places = _places(addresses, self.target.port)
        if places == self.addresses:
            return
        had = self.addresses
        self.addresses = places
        if had[:1] == places[:1] and set(had) <= set(places):
            return  # every address that may be connected to stays
        self.retire_all()
        self.idle_limit = IdleLimit(
            self.service.timeouts.idle, self.context.now
        )  # the idle limit was learnt from another machine
        self.streak = self.tally.streak = 0

    def retire_all(self) -> None:
        """No connection that is open now takes another request."""
        self.close_idle()
        self.close_private()
        for upstream in self.connections:
            upstream.retire()

    def expire(self, now: float) -> None:
        """Retire the connections that have reached their greatest age."""
        self.expires_at = inf
        for upstream in list(self.connections):
            if upstream.retired:
                continue
            if upstream.expires_at > now:
                self.expires_at = min(self.expires_at, upstream.expires_at)
            else:
                upstream.retire()
                if self.forget(upstream) or (upstream.private and upstream.exchange is None):
                    upstream.close()

    def become(self, target: Target, service: Service) -> None:
        """Go on by a new configuration, perhaps under a new name, and then counting anew.

        A drain under way ends when the new `timeouts.drain` says. With other TLS settings, or renewed certificates, no
        connection that is open takes another request.
        """
        old, new = self.service.timeouts.drain, service.timeouts.drain
        if self.draining and old != new:
            began = self.drained_at - old if old else self.context.now
            self.drained_at = began + (new or inf)
        renewed = target.tls != self.target.tls
        elsewhere = (target.host, target.port) != (self.target.host, self.target.port)
        self.target, self.service = target, service
        self.most = service.breaker.connections
        if self.id != target.id:
            self.id, self.log_fragment = target.id, _log_fragment(target)
            self.tally = TargetTally(target.id, buckets=[0] * (len(BUCKETS) + 1))
            self.reported = -1
        if elsewhere:
            self.addresses = _addresses(target)
        elif target.addresses:
            self.move(target.addresses)
        if renewed or elsewhere:
            self.retire_all()
        self.latency = service.balance.policy == "peak_ewma"

    def drain(self, draining: bool, now: float) -> None:
        """Begin or end a drain: no connection is kept, WebSockets get a close frame, and the rest is cut at the end."""
        if draining == self.draining:
            return
        self.draining = draining
        self.drained_at = now + (self.service.timeouts.drain or inf) if draining else 0.0
        self.close_idle()
        if draining:
            self.close_private()
        mine = [tunnel for tunnel in self.context.tunnels if tunnel.lane is self]
        for number, tunnel in enumerate(mine):
            spread = 0.8 * self.service.timeouts.drain * number / len(mine)
            tunnel.close_frame_at = now + spread if draining else 0.0

    def leave(self, now: float) -> None:
        """The target is gone from the configuration."""
        self.drain(True, now)
        self.drained_at = now + (self.service.timeouts.drain or inf)

    # --- what happened ----------------------------------------------------------------------------------------------

    def try_failed(self, kind: str, text: str) -> None:
        """A request that was sent has failed: 5xx (to be tried elsewhere), timeout or reset. It is counted as such."""
        tally = self.tally
        if kind == "5xx":
            tally.server_errors += 1
        elif kind == "timeout":
            tally.timeouts += 1
        else:
            tally.resets += 1
        self.failed(kind, text)

    def failed(self, kind: str, text: str) -> None:
        """One more failure in a row, of a kind that `Alarm` lists. `text` does not name the target."""
        self.streak += 1
        self.tally.streak = self.streak
        if self.latency:
            self.ewma.penalise(self.context.now)
        if self.service.passive and (self.streak == 1 or self.streak % 5 == 0):
            self.context.alarm(Alarm(self.context.worker, self.id, kind, self.streak, text))
        if kind in _CLOSED:
            self.idle_limit.refused(monotonic(), self.service.timeouts.idle)
            self.pools.cool_down(self)

    def not_let_in(self, text: str) -> Failure:
        """The target has refused lb as a client, after the handshake. That counts as a failed connect."""
        self.tally.connect_failures += 1
        self.failed(_ALARMS[TLS_CLIENT_CERTIFICATE], text)
        return Failure(CONNECT, TLS_CLIENT_CERTIFICATE, text)

    def learn_close(self, upstream: TargetStream) -> None:
        """The target closed an idle connection."""
        now = monotonic()
        self.forget(upstream)
        self.idle_limit.closed(now - upstream.idle_since, now, self.service.timeouts.idle, last=self.is_deserted())

    def is_deserted(self) -> bool:
        """Whether no idle connection is open any more (a few are looked at: it is all or nothing that matters)."""
        return not any(upstream.looks_open() for upstream in (*self.older[-3:], self.freshest) if upstream is not None)

    def retire(self, now: float) -> None:
        """Close idle connections that are about to reach the target's or the configured limit."""
        limit = self.idle_limit
        limit.rotate(now, self.service.timeouts.idle)
        if self.draining:
            self.close_idle()
            return
        oldest = self.older[0] if self.older else self.freshest
        if oldest is None or now - oldest.idle_since <= limit.retire_after:
            return
        idle = self.idle
        young = next((i for i, each in enumerate(idle) if now - each.idle_since <= limit.retire_after), len(idle))
        if young:
            self._set_idle(idle[young:])
            for upstream in idle[:young]:
                upstream.close()

    def close_private(self) -> None:
        """Close every idle connection that a client has for itself."""
        for upstream in [each for each in self.connections if each.private and each.exchange is None]:
            upstream.close()

    def close_idle(self) -> None:
        """Close every idle connection."""
        idle = self.idle
        self._set_idle([])
        for upstream in idle:
            upstream.close()

    def settle(self) -> None:
        """Bring the tally up to date."""
        tally, counts = self.tally, self.counts
        answers = sum(counts)
        if answers:
            tally.codes[200] += answers
            tally.successes += answers
            tally.buckets = list(map(add, tally.buckets, counts))
            self.counts = [0] * len(counts)
        tally.seconds += self.seconds
        self.seconds = 0.0

    def state_of(self) -> int:
        """A number that changes whenever something worth a report has happened. `settle` comes first."""
        tally = self.tally
        return hash(
            (
                sum(tally.codes.values()),
                self.in_flight,
                self.active,
                self.freshest is None,
                len(self.older),
                tally.connect_failures,
                tally.resets,
                tally.opened,
                self.streak,
                self.tunnels,
            )
        )

    def read_tally(self) -> TargetTally:
        """The tally with its gauges as they are now. `settle` comes first."""
        tally = self.tally
        tally.in_flight = self.in_flight
        tally.idle = len(self.older) + (self.freshest is not None)
        tally.active = self.active
        tally.streak = self.streak
        tally.tunnels = self.tunnels
        tally.closes_idle_after = self.idle_limit.learnt
        return tally


_ALARMS: Final = {
    REFUSED: "refused",
    UNREACHABLE: "unreachable",
    TIMEOUT: "timeout",
    RESET: "reset",
    GARBAGE: "unreachable",
    TLS_VERIFY: "tls_verify",
    TLS_EXPIRED: "tls_expired",
    TLS_CLIENT_CERTIFICATE: "tls_client_certificate",
    TLS: "tls",
}
#: Kinds of failure in which no connection is to be had: the lane is out of rotation for a moment.
_CLOSED: Final = frozenset({"refused", "unreachable", "tls_verify", "tls_expired", "tls_client_certificate", "tls"})


def _addresses(target: Target) -> tuple[Address, ...]:
    """Where the target is: nowhere as long as nothing is known of what its host name stands for."""
    if target.host.startswith("unix:"):
        return ((socket.AF_UNIX, target.host[5:]),)
    try:
        return _places((target.host,), target.port)
    except ValueError:
        return _places(target.addresses, target.port)


def _places(addresses: tuple[str, ...], port: int) -> tuple[Address, ...]:
    """Raises ValueError where one of them is no IP address."""
    six = [ipaddress.ip_address(address).version == 6 for address in addresses]
    return tuple(
        (socket.AF_INET6 if v6 else socket.AF_INET, (address, port)) for v6, address in zip(six, addresses, strict=True)
    )


def _log_fragment(target: Target) -> bytes:
    """How a line of the access log names a target."""
    text = f',"service":"{target.service}","pool":"{target.pool}","target":"{target.id}"'
    if target.http2:
        text += f',"target_protocol":"{spoken(target.http2)}"'
    return text.encode("latin-1", "replace")


def _authority(target: Target) -> bytes:
    if target.host.startswith("unix:"):
        return b"localhost"
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host}:{target.port}".encode()
