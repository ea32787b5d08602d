"""DataPlane: everything one worker serves with: listeners' protocols, services, lanes, counters.

`apply` takes a whole snapshot, `rotate` the rotation of one service; both take effect between two requests. Lanes,
counters and connections of targets that stay the same are kept.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from lb.core.renames import Renames, layout_of, renames, split_id
from lb.core.report import (
    REMOVED,
    Alarm,
    PoolTally,
    Report,
    RequestRecord,
    TargetTally,
    counted_under,
    empty_pool_tally,
    empty_tally,
    removed_id,
)
from lb.core.routing import RouteTable
from lb.core.targets import Listener, Rotation, Service, Snapshot, Target
from lb.http1.excerpt import excerpt
from lb.http1.head import RequestHead, ResponseHead
from lb.http1.rules import Refusal, host_name
from lb.net.tls import Contexts
from lb.proxy.access_log import PATH, RECENT, Brief, Log, escaped, find_brief
from lb.proxy.breather import Breather
from lb.proxy.deadlines import Sweeper
from lb.proxy.downstream import Downstream
from lb.proxy.lane import Lane
from lb.proxy.last_words import BEGUN, LOGGED, OVER, cells
from lb.proxy.openings import Openings
from lb.proxy.sending import Sender, Sending
from lb.proxy.services import LivePool, LiveService

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.tunnel import Tunnel

#: Seconds a lane that refused a connection is left out, unless the supervisor says more.
SHUN_TIME = 1.0
#: Requests of the recent past kept for the next report.
RECORDS = 500


class LiveRoute:
    """A route with its service at hand."""

    __slots__ = ("max_body", "service", "total")

    def __init__(self, service: LiveService, max_body: int, total: float) -> None:
        self.service = service
        self.max_body = max_body
        self.total = total


class DataPlane:
    """One worker's data plane. `alarm` is called at once with what the supervisor should hear before a report."""

    def __init__(
        self,
        *,
        worker: int,
        loop: asyncio.AbstractEventLoop,
        alarm: Callable[[Alarm], None],
        seed: int | None = None,
        last_words: memoryview | None = None,
    ) -> None:
        self.worker = worker
        self.loop = loop
        self.alarm = alarm
        self.rng = random.Random(seed)
        self.now = monotonic()
        self.wall_offset = time.time() - self.now
        self.incarnation = time.time_ns()
        self.date = b""
        self._date_second = 0
        self._id_prefix = b"%012x" % self.rng.getrandbits(48)
        self._id_next = 0
        self.contexts = Contexts()
        self.openings = Openings(loop)
        self.breather = Breather(loop)
        self.reply_heads: dict[bytes, ResponseHead] = {}  # see `Upstream`
        self.tasks: set[asyncio.Task[None]] = set()
        self.log: Log | None = None
        self.clients: set[Downstream] = set()
        self.left: frozenset[str] = frozenset()  # listeners that are gone: the last connections may come after that
        self.turned_away: set[Downstream] = set()  # over a limit, and not gone yet: not counted among the clients
        self.sending: dict[Sender, Sending] = {}  # connections whose peer has yet to take bytes, or the close
        self.tunnels: set[Tunnel] = set()
        self.shadows: set[Exchange] = set()  # copies of mirrored requests, under way
        self.per_client: dict[bytes, int] = {}
        self.lanes: dict[str, Lane] = {}
        self._leaving: list[Lane] = []  # lanes of removed targets, until their last request is over
        self._removed: dict[str, TargetTally] = {}  # what was counted for removed targets, by pool
        self._moving: set[str] = set()  # those of them that may have changed since the last report
        self._folded: list[str] = []  # targets removed since the last report
        self._folded_pools: list[tuple[str, str]] = []  # pools removed since then
        self._pool_tallies: dict[tuple[str, str], PoolTally] = {}
        self.nowhere = LiveService(self, Service("none", ()))
        self.services: dict[str, LiveService] = {}
        self.routes: list[LiveRoute] = []
        self.table = RouteTable.build(())
        self.only_route: LiveRoute | None = None
        self.applied = 0
        self.behind = 0  # the version that could not be installed, until a snapshot can: `applied` stands still
        self.draining = False
        self.accepted = 0
        self.begun = self.over = 0  # requests, without mirrored copies
        self.last_words = last_words if last_words is not None else cells()
        self.unasked = 0  # bytes that no request asked for, from targets
        self.rejected: dict[str, int] = {}
        self.records: deque[RequestRecord] = deque(maxlen=RECORDS)
        self.recent: deque[Brief] = deque(maxlen=RECENT)  # requests that the access log has no JSON line of
        self._trusted: tuple[str, ...] = ()
        self._sequence = 0
        self._reported_pools: dict[tuple[str, str], int] = {}
        self.refresh(self.now)
        self._sweeper = Sweeper(self)

    # --- what is served ---------------------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> None:
        """Serve by this snapshot from the next request on."""
        old_services, old_lanes = self.services, self.lanes
        targets = (target for service in snapshot.services for pool in service.pools for target in pool.targets)
        self.contexts.use({target.tls for target in targets if target.tls is not None}, dict(snapshot.files))
        services: dict[str, LiveService] = {}
        lanes: dict[str, Lane] = {}
        names = renames(layout_of(service.rules for service in old_services.values()), layout_of(snapshot.services))
        free = {id: old_lanes[id] for formers in names.targets.values() for id in formers if id in old_lanes}
        for rules in _with_rules_in_common(snapshot.services):
            for pool in rules.pools:
                for target in pool.targets:
                    lane = old_lanes.get(target.id) or self._succeeded(target, names, free)
                    if lane is not None:
                        if lane.id != target.id:
                            self._fold(lane)
                        lane.become(target, rules)
                    else:
                        lane = Lane(self, target, rules)
                    lanes[target.id] = lane
            service = services[rules.name] = LiveService(self, rules)
            former = old_services.get(names.services.get(rules.name, rules.name))
            if former is not None:
                service.inherit(former, names)
        stay = set(lanes.values())
        for lane in old_lanes.values():
            if lane not in stay:
                lane.leave(self.now)
                self._leaving.append(lane)
                self._fold(lane)
        waiting = [exchange for service in old_services.values() for exchange in service.waiting]
        for service in old_services.values():
            for old_pool in service.pools.values():
                old_pool.waiting.clear()  # each enters the queue of its pool anew, below
        self.lanes, self.services = lanes, services
        self._fold_places()
        self._carry_over(old_services, names)
        for rotation in snapshot.rotations:
            self._rotate(rotation)
        self.routes = [LiveRoute(services[route.service], route.max_body, route.total) for route in snapshot.routes]
        self.table = RouteTable.build(snapshot.routes)
        catch_all = len(snapshot.routes) == 1 and snapshot.routes[0].path == "/" and not snapshot.routes[0].host
        self.only_route = self.routes[0] if catch_all else None
        if snapshot.trusted_proxies != self._trusted:
            self._trusted = snapshot.trusted_proxies
            self.in_networks.cache_clear()
        self._use_log(snapshot)
        self.applied, self.behind = max(self.applied, snapshot.version), 0
        for exchange in waiting:
            exchange.leave_queue()

    @staticmethod
    def _succeeded(target: Target, names: Renames, free: dict[str, Lane]) -> Lane | None:
        """The lane of a target that is the same under another name: its connections are as good as ever."""
        for former in names.targets.get(target.id, ()):
            if former in free and (free[former].target.host, free[former].target.port) == (target.host, target.port):
                return free.pop(former)
        return None

    def _carry_over(self, old_services: dict[str, LiveService], names: Renames) -> None:
        """Requests under way go on by the new rules: bounds count them, drains of pools find them, and what waits is
        woken by whoever ends."""
        new_services = {old: new for new, old in names.services.items()}
        new_pools = {old: new for new, old in names.pools.items()}
        for exchange in [*(client.exchange for client in self.clients), *self.shadows]:
            if exchange is None or old_services.get(exchange.service.name) is not exchange.service:
                continue
            was = exchange.service.name
            service = self.services.get(new_services.get(was, was))
            if service is not None:
                service.in_flight += exchange not in self.shadows
                exchange.service = service
                lane = exchange.lane  # its target may have come to a pool of another name
                place = was, exchange.pool.name
                named = new_pools.get(place, place)[1] if lane is None else lane.target.pool
                exchange.pool = service.pools.get(named, exchange.pool)

    def _fold(self, lane: Lane) -> None:
        """The target is gone: what was counted for it, and still will be, is counted for all such of its pool."""
        id = removed_id(lane.target.service, lane.target.pool)
        removed = self._removed.setdefault(id, empty_tally(id))
        lane.settle()
        removed.add(lane.tally, gauges=False)
        lane.tally = removed
        self._moving.add(id)
        self._folded.append(lane.id)

    def _fold_places(self) -> None:
        """Pools and services are gone: what was counted for them, and still will be, is counted for all such."""
        layout = {name: service.pools for name, service in self.services.items()}
        for key, tally in list(self._pool_tallies.items()):
            standing = counted_under(*key, layout)
            if standing == key:
                continue
            total = self.pool_tally(*standing)
            total.add(tally)
            del self._pool_tallies[key]
            self._reported_pools.pop(key, None)
            self._folded_pools.append(key)
            for exchange in self._under_way():
                if exchange.pool.tally is tally:
                    exchange.pool.tally = total
        for id, removed in list(self._removed.items()):
            service, pool, _ = split_id(id)
            place = removed_id(*counted_under(service, pool, layout))
            if place == id:
                continue
            every = self._removed.setdefault(place, empty_tally(place))
            for lane in self._leaving:
                if lane.tally is removed:
                    lane.settle()
                    lane.tally = every
            every.add(removed, gauges=False)
            del self._removed[id]
            self._moving.discard(id)
            self._moving.add(place)
            self._folded.append(id)

    def _under_way(self) -> Iterator[Exchange]:
        """All requests that have not ended: of clients, of tunnels, and mirrored ones."""
        yield from (client.exchange for client in self.clients if client.exchange is not None)
        yield from (tunnel.exchange for tunnel in self.tunnels)
        yield from self.shadows

    def rotate(self, rotation: Rotation) -> None:
        """Take a new rotation of one service."""
        self._rotate(rotation)
        if not self.behind:
            self.applied = max(self.applied, rotation.version)

    def _rotate(self, rotation: Rotation) -> None:
        service = self.services.get(rotation.service)
        if service is None or rotation.version < service.version:
            return
        for id, addresses in rotation.addresses:
            if id in self.lanes:
                self.lanes[id].move(addresses)
        service.rotate(rotation, self.lanes, self.now)
        for pool in service.rules.pools:
            for target in pool.targets:
                self.lanes[target.id].drain(target.id in rotation.draining, self.now)

    def downstream(self, listener: Listener) -> Callable[[], Downstream]:
        """The protocol factory of a listener."""
        return lambda: Downstream(self, listener)

    def route_of(self, head: RequestHead) -> LiveRoute | None:
        """The route of a request. `Exchange.start` has this written out."""
        found = self.table.match(host_name(head.host), head.path if head.path != b"*" else b"/")
        return None if found is None else self.routes[found]

    def shun(self, lane: Lane) -> None:
        """A lane refused a connection: leave it out for a moment."""
        service = self.services.get(lane.target.service)
        pool = service.pools.get(lane.target.pool) if service is not None else None
        if pool is not None:
            pool.shun(lane, self.now + SHUN_TIME)

    # --- small things that requests ask for -------------------------------------------------------------------------

    def next_id(self) -> bytes:
        """A request id: unique per worker start, and to be found in logs with any text search."""
        self._id_next += 1
        return b"%b%08x" % (self._id_prefix, self._id_next)

    def is_trusted(self, peer: bytes) -> bool:
        """Whether a peer's forwarding fields are believed."""
        return bool(self._trusted) and self.in_networks(self._trusted, peer)

    @staticmethod
    @lru_cache(maxsize=4096)
    def in_networks(networks: tuple[str, ...], peer: bytes) -> bool:
        """Whether the address lies in one of the networks; "unix" stands for every Unix-socket peer."""
        if peer == b"unix":
            return "unix" in networks
        try:
            address = ipaddress.ip_address(peer.decode())
        except ValueError:
            return False
        return any(address in _network(network) for network in networks if network != "unix")

    def reject(self, reason: str) -> None:
        """Count an answer of our own, or a connection turned away."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def count_refused(self, refusal: Refusal, peer: bytes, request_id: bytes, size: int, head: bytes) -> None:
        """Count and log a request that was refused before it became an exchange; `head` is what came of it."""
        self.begun += 1
        self.over += 1
        self.last_words[BEGUN], self.last_words[OVER] = self.begun, self.over
        tally = self.nowhere.nobody.tally
        tally.requests += 1
        tally.codes[refusal.status] += 1
        seen = excerpt(head)
        if self.log is not None:
            self.log.refused(peer, request_id, refusal.status, refusal.reason, size, self.now, seen)
        self.records.append(
            RequestRecord(
                id=request_id.decode("latin-1"),
                at=self.now + self.wall_offset,
                client=peer.decode(),
                method=escaped(seen.method),
                path=escaped(seen.target)[:PATH],
                service="none",
                pool="none",
                target="none",
                code=refusal.status,
                seconds=0.0,
                reason=refusal.reason,
                host=escaped(seen.host)[:PATH],
                refused=refusal.detail,
            )
        )

    def recall(self, request_id: str) -> None:
        """Send what is kept of a request that went well with the next report: `explain` asks for it.

        A request that the next report tells of anyway is left as it is: its record says more than the log's line.
        """
        if any(record.id == request_id for record in self.records):
            return
        found = self.log.find(request_id) if self.log is not None else None
        found = found or find_brief(reversed(self.recent), request_id, self.wall_offset)
        if found is not None:
            self.records.append(found)

    def remember(self, exchange: Exchange, seconds: float) -> None:
        """Keep a request that failed, was retried or was answered by the proxy itself, for `explain`."""
        head = exchange.head
        lane = exchange.lane
        self.records.append(
            RequestRecord(
                id=exchange.request_id.decode("latin-1"),
                at=exchange.started + self.wall_offset,
                client=exchange.client.peer.decode(),
                method=head.method.decode(),
                path=head.target.decode("latin-1")[:PATH],
                service=exchange.service.name,
                pool=exchange.pool.name,
                target=lane.id if lane is not None else "none",
                code=exchange.status,
                seconds=seconds,
                reason=exchange.reason,
                tries=list(exchange.tries),
            )
        )

    def pool_tally(self, service: str, pool: str) -> PoolTally:
        """The counters of a pool; they outlive snapshots."""
        tally = self._pool_tallies.get((service, pool))
        if tally is None:
            tally = empty_pool_tally(service, pool)
            self._pool_tallies[service, pool] = tally
        return tally

    # --- time -------------------------------------------------------------------------------------------------------

    def refresh(self, now: float) -> None:
        """Once per pass: the Date field, which changes by the second, and the wall clock, which may jump."""
        wall = time.time()
        self.wall_offset = wall - now
        if self.log is not None:
            self.log.wall = self.wall_offset
        second = int(wall)
        if second != self._date_second:
            self._date_second = second
            self.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)).encode()

    def end_drains(self, now: float, lanes: Iterable[Lane], pools: Iterable[LivePool]) -> None:
        """Cut what is left on those targets and pools whose drain time is over; forget lanes that are empty."""
        late = {lane for lane in lanes if lane.draining and lane.drained_at <= now}
        late.update(lane for lane in self._leaving if lane.drained_at <= now)
        over = {pool for pool in pools if 0.0 < pool.leaves_at <= now}
        if late or over:
            for exchange in [*(client.exchange for client in self.clients), *self.shadows]:
                if exchange is not None and (
                    exchange.lane in late or (exchange.pool in over and exchange.pool.is_left_by(exchange))
                ):
                    exchange.cut_for_drain()
        for pool in over:
            pool.leaves_at = 0.0
        if self._leaving:
            for lane in self._leaving:
                lane.settle()
            self._leaving = [lane for lane in self._leaving if lane.active]

    # --- reports ----------------------------------------------------------------------------------------------------

    def report(self, full: bool = False, part: int = 0, parts: int = 1) -> Report:
        """The state of everything that has changed since the last report; with `full` of everything. Of `parts` that
        the targets and pools make, only `part` (from 0 on) is looked at."""
        self._sequence += 1
        report = Report(self.worker, self.incarnation, self._sequence, self.applied)
        for lane in islice(self.lanes.values(), part, None, parts):
            lane.settle()
            state = lane.state_of()
            if full or state != lane.reported:
                lane.reported = state
                report.targets.append(lane.read_tally())
        for id, removed in self._removed.items():
            leaving = [lane for lane in self._leaving if lane.tally is removed]
            for lane in leaving:
                lane.settle()
            if full or leaving or id in self._moving:
                removed.in_flight = sum(lane.in_flight for lane in leaving)
                removed.active = sum(lane.active for lane in leaving)
                removed.tunnels = sum(lane.tunnels for lane in leaving)
                report.targets.append(removed)
                (self._moving.add if leaving else self._moving.discard)(id)
        report.folded, self._folded = self._folded, []
        report.folded_pools, self._folded_pools = self._folded_pools, []
        reported = self._reported_pools
        for key, tally in islice(self._pool_tallies.items(), part, None, parts):
            if full or reported.get(key) != tally.requests:
                reported[key] = tally.requests
                report.pools.append(tally)
        if report.folded_pools:  # with what they are counted under now, whatever part this is
            report.pools.extend(tally for (_, pool), tally in self._pool_tallies.items() if pool == REMOVED)
        report.retries = {name: dict(service.retried) for name, service in self.services.items() if service.retried}
        report.rejected = dict(self.rejected)
        report.downstream = len(self.clients)
        report.in_flight = self.begun - self.over
        report.accepted = self.accepted
        report.log_lines_lost = self.log.lost if self.log is not None else 0
        report.log_trouble = self.log.trouble if self.log is not None else ""
        report.mirrored = {name: dict(service.mirrored) for name, service in self.services.items() if service.mirrored}
        report.records = list(self.records)
        self.records.clear()
        return report

    # --- the end ----------------------------------------------------------------------------------------------------

    def drain(self, within: float) -> None:
        """From now on answers carry Connection: close; connections without a request are closed soon. WebSockets are
        told to go elsewhere one after the other, early enough to do so before they are cut `within` seconds from now.
        """
        self.draining = True
        for client in list(self.clients):
            client.drain()
        tunnels = list(self.tunnels)
        for number, tunnel in enumerate(tunnels):
            spread = 0.5 * min(within, tunnel.exchange.service.rules.timeouts.drain)
            tunnel.goodbye_at = self.now + spread * number / len(tunnels)

    def idle(self) -> bool:
        """Whether no client is left."""
        return not self.tunnels and not self.clients

    def close(self) -> None:
        """Cut what is left, write the log out."""
        self._sweeper.stop()
        self.contexts.close()
        for client in list(self.clients):
            if client.exchange is not None:
                client.exchange.cut_for_drain("the worker stopped before a target answered")
            else:
                client.transport.abort()
        for copy in list(self.shadows):
            copy.client_lost()
        for each in self.turned_away:
            each.transport.abort()
        for sender, sending in self.sending.items():
            if sending.pending:
                sender.transport.abort()
        for lane in (*self.lanes.values(), *self._leaving):
            lane.close_idle()
        for task in list(self.tasks):
            task.cancel()
        if self.log is not None:
            self.log.close()

    def reopen_logs(self) -> None:
        """Open the access log anew, after it was rotated."""
        if self.log is not None:
            self.log.reopen()

    def _use_log(self, snapshot: Snapshot) -> None:
        spec = snapshot.access_log
        if self.log is not None and self.log.spec == spec:
            return
        if self.log is not None:
            self.log.close()
        self.log = None if spec.format == "off" else Log(spec, self.wall_offset, self.last_words, self.recent)
        self.last_words[LOGGED] = self.log is not None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network; one of IPv4 addresses mapped into IPv6 is written as peers' addresses are, as IPv4."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network


def _with_rules_in_common(services: Iterable[Service]) -> Iterator[Service]:
    """The services, with one object for all equal rules: of a thousand services each request looks at another one's,
    and what is shared stays in the processor's cache."""
    known: dict[object, Any] = {}
    for service in services:
        balance, retries, timeouts, breaker = (
            known.setdefault(rules, rules)
            for rules in (service.balance, service.retries, service.timeouts, service.breaker)
        )
        yield replace(service, balance=balance, retries=retries, timeouts=timeouts, breaker=breaker)
