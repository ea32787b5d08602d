"""DataPlane: everything one worker serves with: listeners' protocols, services, lanes, counters.

`apply` takes a whole snapshot, `rotate` the rotation of one service, `change` single targets; each takes effect between
two requests. Lanes, counters and connections of targets that stay the same are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from lb.core.challenges import PATH, Challenges
from lb.core.error_pages import ErrorPages
from lb.core.renames import Layout, Renames, layout_of, renames, split_id
from lb.core.report import (
    REMOVED,
    Alarm,
    Report,
    TargetTally,
    counted_under,
    empty_tally,
    removed_id,
)
from lb.core.rotation_change import with_rotation_change
from lb.core.routing import RouteTable, takes_all
from lb.core.step_files import all_error_pages
from lb.core.targets import Listener, Rotation, RotationChange, Route, Service, Snapshot, Target, Targets
from lb.http.h1.parse import own
from lb.proxy.access_log import RECENT, Brief, Log, Recent, find_brief
from lb.proxy.connect import Connector
from lb.proxy.context import Context
from lb.proxy.crash_counters import LOGGED
from lb.proxy.deadlines import Sweeper
from lb.proxy.error_pages import PageWords
from lb.proxy.front import Front
from lb.proxy.h1.client import Downstream
from lb.proxy.h1.strict_client import StrictDownstream
from lb.proxy.h2.lane import make_lane
from lb.proxy.in_flight_table import InFlightTable
from lb.proxy.lane import Lane
from lb.proxy.observers import Limits, Mirrors
from lb.proxy.page_set import PageSet
from lb.proxy.rate_table import RateTable
from lb.proxy.services import LiveConfig, LivePool, LiveRoute, LiveService
from lb.proxy.stats import Stats
from lb.proxy.steps import has_steps, steps_of, steps_of_redirect
from lb.proxy.steps.service_choice import ServiceChoice
from lb.proxy.steps.steady import joined

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.front import Connection
    from lb.proxy.observers import Observer


class DataPlane:
    """One worker's data plane. `alarm` is called at once with what the supervisor should hear before a report;
    `connector` makes what opens connections to targets. `rates` and `in_flight` are the tables of limits, which all
    workers share."""

    def __init__(
        self,
        *,
        worker: int,
        loop: asyncio.AbstractEventLoop,
        alarm: Callable[[Alarm], None],
        seed: int | None = None,
        crash_counters: memoryview | None = None,
        connector: Callable[[Context], Connector] = Connector,
        rates: RateTable | None = None,
        in_flight: InFlightTable | None = None,
    ) -> None:
        self.stats = Stats(crash_counters)
        self.context = Context(
            worker, loop, alarm, seed, self.stats, rates or RateTable(), in_flight or InFlightTable()
        )
        self.connector = connector(self.context)
        self.front = Front()
        self.guards = self.context.guards
        self.live = LiveConfig(self.context)
        self.incarnation = time.time_ns()
        self._leaving: list[Lane] = []  # lanes of removed targets, until their last request is over
        self._removed: dict[str, TargetTally] = {}  # counts of removed targets, by pool
        self._moving: set[str] = set()  # ids of `_removed` that may have changed since the last report
        self._folded: list[str] = []  # targets removed since the last report
        self._folded_pools: list[tuple[str, str]] = []  # pools removed since then
        self._files: dict[str, bytes] = {}  # contents of the targets' TLS files, by digest
        self.applied = 0
        self.behind = 0  # the version that could not be installed, until a snapshot can: `applied` stands still
        self.recent: deque[Brief] = deque(maxlen=RECENT)  # requests that the access log has no JSON line of
        self._limits, self._mirrors = Limits(), Mirrors()
        self._observe()
        self._sequence = 0
        self._reported_pools: dict[tuple[str, str], int] = {}
        self._sweeper = Sweeper(self.live, self.front, self.end_drains)

    @property
    def clients(self) -> set[Connection]:
        """The connections of clients."""
        return self.front.clients

    @property
    def services(self) -> dict[str, LiveService]:
        """The services that are served, by name."""
        return self.live.services

    @property
    def lanes(self) -> dict[str, Lane]:
        """The lanes of all targets of the configuration, by target id."""
        return self.live.lanes

    @property
    def log(self) -> Log | None:
        """The access log."""
        return self.context.log

    @log.setter
    def log(self, log: Log | None) -> None:
        self.context.log = log
        self._observe()

    # --- what is served ---------------------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> None:
        """Serve by this snapshot from the next request on."""
        live = self.live
        old_services, old_lanes = live.services, live.lanes
        targets = (target for service in snapshot.services for pool in service.pools for target in pool.targets)
        files = dict(snapshot.files)
        self._use_tls(targets, files)
        self.guards.use(files)
        services: dict[str, LiveService] = {}
        lanes: dict[str, Lane] = {}
        names = renames(_layout_of(old_services), layout_of(snapshot.services))
        free = {id: old_lanes[id] for formers in names.targets.values() for id in formers if id in old_lanes}
        for rules in _with_rules_in_common(snapshot.services):
            for pool in rules.pools:
                for target in pool.targets:
                    lane = old_lanes.get(target.id) or self._succeeded(target, names, free)
                    if lane is not None and lane.target.http2 == target.http2:
                        if lane.id != target.id:
                            self._fold(lane)
                        lane.become(target, rules)
                    else:
                        lane = make_lane(self.context, self.connector, live, target, rules)
                    lanes[target.id] = lane
            service = services[rules.name] = LiveService(live, rules)
            for pool in rules.pools:
                service.pools[pool.name].lanes = {target.id: lanes[target.id] for target in pool.targets}
            former = old_services.get(names.services.get(rules.name, rules.name))
            if former is not None:
                service.inherit(former, names)
        stay = set(lanes.values())
        for lane in old_lanes.values():
            if lane not in stay:
                self._dismiss(lane)
        waiting = [exchange for service in old_services.values() for exchange in service.waiting]
        for service in old_services.values():
            for old_pool in service.pools.values():
                old_pool.waiting.clear()  # each enters the queue of its pool anew, below
        live.lanes, live.services = lanes, services
        self._observe()
        self._fold_places()
        self._carry_over(old_services, names)
        for rotation in snapshot.rotations:
            self._rotate(rotation)
        self._use_error_pages(snapshot)
        live.routes = [self._live_route(route) for route in snapshot.routes]
        for made, route in zip(live.routes, snapshot.routes, strict=True):
            made.error_pages = self._pages(route.error_pages)
        self.guards.made()
        self.stats.forget_routes({route.title() for route in snapshot.routes})
        live.table = RouteTable.build(snapshot.routes)
        live.only_route = live.routes[0] if len(snapshot.routes) == 1 and takes_all(snapshot.routes[0]) else None
        live.trusted = snapshot.trusted_proxies
        self.front.trust(snapshot.trusted_proxies)
        fields = (name for listener in snapshot.listeners if listener.tls for name, _ in listener.tls.client_fields)
        own(name.encode() for name in fields)
        for client in self.clients:  # its last head was read by the fields and the certificates of before
            client.read_anew()
        self._use_log(snapshot)
        self.applied, self.behind = max(self.applied, snapshot.version), 0
        for exchange in waiting:
            exchange.leave_queue()

    def _use_error_pages(self, snapshot: Snapshot) -> None:
        """Read the pages of the file and of its services. Steps of routes look at them."""
        live = self.live
        live.error_pages = self._pages(snapshot.error_pages)
        for service in snapshot.services:
            live.services[service.name].error_pages = self._pages(service.error_pages)
        any_page = any(pages is not None for pages in all_error_pages(snapshot))
        live.error_words = PageWords() if any_page else None

    def _pages(self, rules: ErrorPages | None) -> PageSet | None:
        return PageSet(rules, self.guards.page) if rules is not None else None

    def _live_route(self, route: Route) -> LiveRoute:
        """The route with its steps. One that answers by itself has a service of its own, without pools."""
        live = self.live
        service = live.services[route.service] if route.service else LiveService(live, Service("none", ()))
        choice = ServiceChoice(route, live) if route.split or route.fallback else None
        steps, rare_steps = steps_of(route, choice, service, live.context)
        title = route.title() if has_steps(route) else ""
        made = LiveRoute(service, route.max_body, route.total, steps, title)
        made.way, made.rare_way = joined(steps), joined(rare_steps)
        made.choice = choice
        return made

    @staticmethod
    def _succeeded(target: Target, names: Renames, free: dict[str, Lane]) -> Lane | None:
        """The lane of a target that is the same under another name: its connections are as good as ever."""
        for former in names.targets.get(target.id, ()):
            if former in free and (free[former].target.host, free[former].target.port) == (target.host, target.port):
                return free.pop(former)
        return None

    def _carry_over(self, old_services: dict[str, LiveService], names: Renames) -> None:
        """Move requests under way to the new rules: bounds count them, drains find them, and ends wake the queues."""
        new_services = {old: new for new, old in names.services.items()}
        new_pools = {old: new for new, old in names.pools.items()}
        for exchange in self._under_way():
            if old_services.get(exchange.service.name) is not exchange.service:
                continue
            was = exchange.service.name
            service = self.services.get(new_services.get(was, was))
            if service is not None:
                exchange.move_to(service)
                lane = exchange.lane  # its target may have come to a pool of another name
                place = was, exchange.pool.name
                named = new_pools.get(place, place)[1] if lane is None else lane.target.pool
                exchange.pool = service.pools.get(named, exchange.pool)

    def _fold(self, lane: Lane) -> None:
        """Fold a removed target's counts, present and future, into the counts of its pool's removed targets."""
        id = removed_id(lane.target.service, lane.target.pool)
        removed = self._removed.setdefault(id, empty_tally(id))
        lane.settle()
        removed.add(lane.tally, gauges=False)
        lane.tally = removed
        self._moving.add(id)
        self._folded.append(lane.id)

    def _fold_places(self) -> None:
        """Fold the counts of removed pools and services, present and future, into the sum of all removed ones."""
        layout = {name: service.pools for name, service in self.services.items()}
        for key in list(self.stats.pools):
            standing = counted_under(*key, layout)
            if standing == key:
                continue
            counts, total = self.stats.fold(key, standing)
            self._reported_pools.pop(key, None)
            self._folded_pools.append(key)
            for exchange in self._under_way():
                if exchange.pool.counts is counts:
                    exchange.pool.counts = total
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
        """All requests that have not ended: requests of clients, also after they became tunnels, and mirrored ones."""
        yield from self.front.exchanges()
        yield from list(self.live.copies)

    def rotate(self, rotation: Rotation) -> None:
        """Take a new rotation of one service."""
        self._rotate(rotation)
        self._follow(rotation.version)

    def change_rotation(self, change: RotationChange) -> None:
        """Take a new rotation of one service by what differs. Raises ValueError when it differs from another one."""
        self._change_rotation(change)
        self._follow(change.version)

    def change(self, targets: Targets) -> None:
        """Take new and changed targets, and give up removed ones, as `apply` does.

        Pools that are not there are passed over: the snapshot that has them could not be installed.
        """
        live, files = self.live, self._files
        for target in targets.changed:
            service = live.services.get(target.service)
            pool = service.pools.get(target.pool) if service is not None else None
            if service is None or pool is None:
                continue
            lane = live.lanes.get(target.id)
            if lane is None or lane.target.http2 != target.http2:
                former = lane
                lane = make_lane(self.context, self.connector, live, target, service.rules)
                live.lanes[target.id] = pool.lanes[target.id] = lane
                if former is not None:
                    pool.replace(former, lane)
                    lane.drain(former.draining, self.context.now)
                    self._dismiss(former)
            else:
                lane.become(target, lane.service)
        for id in targets.removed:
            lane = live.lanes.pop(id, None)
            if lane is not None:
                pool = live.pool_of(lane)
                if pool is not None:
                    pool.lanes.pop(id, None)
                self._dismiss(lane)
        if any(target.tls is not None for target in targets.changed):
            self._use_tls((lane.target for lane in live.lanes.values()), {**files, **dict(targets.files)})
        for rotation in targets.rotations:
            self._rotate(rotation)
        for change in targets.rotation_changes:
            self._change_rotation(change)
        self._follow(targets.version)

    def challenge(self, challenges: Challenges) -> None:
        """Take the answers to challenges of certificate authorities."""
        self.context.challenges = {f"{PATH}{token}".encode(): text.encode() for token, text in challenges.tokens}
        self._follow(challenges.version)

    def _follow(self, version: int) -> None:
        """New requests are served by this version, unless what it builds upon is missing."""
        if not self.behind:
            self.applied = max(self.applied, version)

    def _dismiss(self, lane: Lane) -> None:
        """The target is gone. Requests under way may end there, for as long as a drain may take."""
        lane.leave(self.context.now)
        self._leaving.append(lane)
        self._fold(lane)

    def _use_tls(self, targets: Iterable[Target], files: dict[str, bytes]) -> None:
        """Make contexts for these targets, from these contents of files."""
        used = {target.tls for target in targets if target.tls is not None}
        needed = {digest for tls in used for digest in tls.digests}
        self._files = {digest: data for digest, data in files.items() if digest in needed}
        self.connector.contexts.use(used, self._files)

    def _rotate(self, rotation: Rotation) -> None:
        service = self.services.get(rotation.service)
        if service is None or (service.rotation is not None and rotation.version < service.rotation.version):
            return
        self._use(rotation, service)
        draining, now = set(rotation.draining), self.context.now
        for pool in service.pools.values():
            for lane in pool.lanes.values():
                lane.drain(lane.id in draining, now)

    def _change_rotation(self, change: RotationChange) -> None:
        service = self.services.get(change.service)
        if service is None:
            return
        known = service.rotation
        if known is None or (known.version != change.base and known.version < change.version):
            if not self.behind:  # else a snapshot follows
                raise ValueError(f"{change.service} has not the rotation {change.base} that {change.version} changes")
            return
        if change.version <= known.version:
            return  # a repeated one
        self._use(with_rotation_change(known, change), service)
        draining, now = set(change.draining), self.context.now
        for id in (*known.draining, *change.draining):
            lane = self.lanes.get(id)
            if lane is not None:
                lane.drain(id in draining, now)

    def _use(self, rotation: Rotation, service: LiveService) -> None:
        if rotation.mirror is not None:
            self._observe(mirror=True)  # before: a request that the rotation lets go may end at once
        service.rotate(rotation, self.lanes, self.context.now)

    def downstream(self, listener: Listener) -> Callable[[], asyncio.Protocol]:
        """The protocol factory of a listener. (A `Downstream` has not the base class: a compiled class cannot.)"""
        live = self._redirecting(listener) if listener.redirect else self.live
        if listener.hsts:
            return lambda: cast("asyncio.Protocol", StrictDownstream(live, self.front, listener))
        return lambda: cast("asyncio.Protocol", Downstream(live, self.front, listener))

    def _redirecting(self, listener: Listener) -> LiveConfig:
        """The configuration of a listener that redirects: one route for all requests, which goes to no service."""
        live = LiveConfig(self.context)
        port = int(listener.redirect.rpartition(":")[2])
        live.only_route = LiveRoute(LiveService(live, Service("none", ())), 0, 0.0, steps_of_redirect(port))
        return live

    def recall(self, request_id: str) -> None:
        """Send the record of a successful request with the next report, for `explain`.

        A request that the next report has anyway is skipped: its record holds more than the log's line.
        """
        if any(record.id == request_id for record in self.stats.records):
            return
        record = self.log.find(request_id) if self.log is not None else None
        record = record or find_brief(reversed(self.recent), request_id, self.context.wall_offset)
        if record is not None:
            self.stats.records.append(record)

    def end_drains(self, now: float, lanes: Iterable[Lane], pools: Iterable[LivePool]) -> None:
        """Cut the remaining requests of targets and pools whose drain time is over. Forget empty lanes."""
        late = {lane for lane in lanes if lane.draining and lane.drained_at <= now}
        late.update(lane for lane in self._leaving if lane.drained_at <= now)
        over = {pool for pool in pools if 0.0 < pool.leaves_at <= now}
        if late or over:
            for exchange in list(self._under_way()):
                if exchange.lane in late or (exchange.pool in over and exchange.pool.is_left_by(exchange)):
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
        report = Report(self.context.worker, self.incarnation, self._sequence, self.applied)
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
        for key, counts in islice(self.stats.pools.items(), part, None, parts):
            tally = counts.settled()
            if full or reported.get(key) != tally.requests:
                reported[key] = tally.requests
                report.pools.append(tally)
        if report.folded_pools:  # with what they are counted under now, whatever part this is
            report.pools.extend(tally for (_, pool), tally in self.stats.pool_tallies().items() if pool == REMOVED)
        report.retries = {name: dict(service.retried) for name, service in self.services.items() if service.retried}
        for name, service in self.services.items():
            queues = {pool.name: len(pool.waiting) for pool in service.pools.values() if pool.waiting}
            if queues:
                report.waiting[name] = queues
        report.rejected = dict(self.stats.rejected)
        report.handshakes = list(self.stats.handshakes.values())
        report.downstream = len(self.clients)
        report.http2_streams = sum([len(connection.exchanges()) for connection in self.front.multiplexed])
        report.http2_refused = dict(self.stats.http2_refused)
        report.in_flight = self.stats.begun - self.stats.over
        report.accepted = self.stats.accepted
        report.log_lines_lost = self.log.lost if self.log is not None else 0
        report.log_trouble = self.log.trouble if self.log is not None else ""
        report.mirrored = {name: dict(service.mirrored) for name, service in self.services.items() if service.mirrored}
        called = [("none", self.live.no_service), *self.services.items()]
        report.grpc = {name: {str(k): v for k, v in each.grpc.items()} for name, each in called if each.grpc}
        report.rate_evictions = self.context.rates.evicted
        report.steps = self.stats.step_results(full)
        report.asked_keys, self.guards.asked_keys = list(self.guards.asked_keys), set()
        report.records = list(self.stats.records)
        self.stats.records.clear()
        return report

    # --- the end ----------------------------------------------------------------------------------------------------

    def drain(self, within: float) -> None:
        """From now on answers carry Connection: close; connections without a request are closed soon. WebSockets are
        told to go elsewhere one after the other, early enough to do so before they are cut `within` seconds from now.
        """
        self.front.draining = True
        for client in list(self.clients):
            client.drain()
        tunnels = list(self.context.tunnels)
        for number, tunnel in enumerate(tunnels):
            spread = 0.5 * min(within, tunnel.drain_time)
            tunnel.close_frame_at = self.context.now + spread * number / len(tunnels)

    def idle(self) -> bool:
        """Whether no client is connected."""
        return not self.context.tunnels and not self.clients

    def close(self) -> None:
        """Cut the remaining requests and write the log."""
        self._sweeper.stop()
        self.guards.close()
        self.context.offload.close()
        self.connector.contexts.close()
        for connection in list(self.front.multiplexed):
            connection.cut()
        for client in list(self.clients):
            if client.exchange is not None:
                client.exchange.cut_for_drain("the worker stopped before a target answered")
            else:
                client.transport.abort()
        for copy in list(self.live.copies):
            copy.client_lost()
        for each in self.front.turned_away:
            each.transport.abort()
        for sender, sending in self.context.sending.items():
            if sending.pending:
                sender.transport.abort()
        for lane in (*self.lanes.values(), *self._leaving):
            lane.close_idle()
        for task in list(self.connector.tasks):
            task.cancel()
        if self.log is not None:
            self.log.close()

    def reopen_logs(self) -> None:
        """Open the access log anew, after it was rotated."""
        if self.log is not None:
            self.log.reopen()

    def _use_log(self, snapshot: Snapshot) -> None:
        spec, log, context = snapshot.access_log, self.log, self.context
        if log is not None and log.spec == spec:
            return
        if log is not None:
            log.close()
        crash_counters = self.stats.crash_counters
        self.log = None if spec.format == "off" else Log(spec, context.wall_offset, crash_counters, self.recent)
        crash_counters[LOGGED] = self.log is not None

    def _observe(self, mirror: bool = False) -> None:
        """Have each observer told of requests that end which has a use for it. `mirror`: a service has one from now on.

        Where no service has a mirror or an adaptive limit, nothing asks for one. Where one has been removed, requests
        under way may still have it, so that its observer stays.
        """
        context, services = self.context, self.services.values()
        observers: list[Observer] = [context.log or Recent(self.recent)]
        if mirror or self._mirrors in context.observers:
            observers.append(self._mirrors)
        if self._limits in context.observers or any(service.limiter is not None for service in services):
            observers.append(self._limits)
        context.observers = tuple(observers)


def _layout_of(services: dict[str, LiveService]) -> Layout:
    """The layout of the targets that are served."""
    return {
        name: {pool.name: tuple(split_id(id)[2] for id in pool.lanes) for pool in service.pools.values()}
        for name, service in services.items()
    }


def _with_rules_in_common(services: Iterable[Service]) -> Iterator[Service]:
    """The services, with one object for all equal rules. Of a thousand services each request looks at another one's,
    and a shared object stays in the processor's cache."""
    shared: dict[object, Any] = {}
    for service in services:
        balance, retries, timeouts, breaker = (
            shared.setdefault(rules, rules)
            for rules in (service.balance, service.retries, service.timeouts, service.breaker)
        )
        yield replace(service, balance=balance, retries=retries, timeouts=timeouts, breaker=breaker)
