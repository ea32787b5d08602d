"""What would become of a request by a file: its route, its steps, what a target would be sent, why no other route.

No process, port or target has a part in it. The request goes through the data plane's own code. A connection that takes
the bytes down stands in for the target. So the answer cannot differ from what lb does with such a request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from lb.config.resolve import World
from lb.core.matching import Asked, Conditions
from lb.core.networks import in_networks
from lb.core.paths import readings
from lb.core.routing import Candidate, host_matches
from lb.core.shares import parts_of
from lb.core.targets import EXACT, REGEX, AccessLog, Rotation, Route, Snapshot, StepRule
from lb.http.h1.parse import RequestError, host_name, own, read_request, read_request_fields
from lb.http.h1.serialize import request_lines
from lb.http.message import PROTOCOLS, RequestHead, ResponseHead
from lb.net.tls.session import Established
from lb.proxy.client_stream import ClientStream
from lb.proxy.connect import Connector
from lb.proxy.context import Context
from lb.proxy.exchange import Exchange
from lb.proxy.h1.target import Upstream
from lb.proxy.lane import Begun, Lane
from lb.proxy.plane import DataPlane
from lb.proxy.route_fragment import read_fragment
from lb.proxy.services import LiveRoute
from lb.proxy.steps.forward_auth import AuthHold

if TYPE_CHECKING:
    import socket

_URL = re.compile(r"(?:(https?)://([^/?#]+))?([/?][^#]*)?")
#: The fragment of the id that a request is shown with.
REQUEST_ID = b"00000000-000000000"


#: (pool, parts of 100) of a service.
Shares = tuple[tuple[str, int], ...]

#: Seconds that a step may take to decide.
LONGEST = 20.0


class BadTrial(ValueError):  # noqa: N818 - it says what is wrong
    """The URL or a header field cannot be sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to try. `version` is 1.0, 1.1 or 2."""

    method: str
    url: str
    fields: tuple[str, ...] = ()  # "Name: value"
    client: str = "127.0.0.1"
    version: str = "1.1"


@dataclass(frozen=True, slots=True)
class Passed:
    """Why a route does not take the request."""

    index: int  # its place among the file's routes
    title: str
    reasons: tuple[str, ...]


@dataclass(slots=True)
class Trial:
    """What would become of a request."""

    route: str = ""  # empty: none takes it
    index: int = -1
    steps: list[str] = field(default_factory=list)  # all of the route's, in order
    met: list[str] = field(default_factory=list)  # the ones that this request meets; the last one may answer it
    status: int = 0  # of lb's own answer; 0: a target answers
    reason: str = ""
    answer: str = ""  # the head of lb's own answer
    service: str = ""
    pool: str = ""
    targets: list[str] = field(default_factory=list)  # the ones that may get it
    sent: str = ""  # the head that a target gets
    readings: list[tuple[str, str]] = field(default_factory=list)  # of an ambiguous path: (reading, its route)
    notes: list[str] = field(default_factory=list)
    others: list[Passed] = field(default_factory=list)


class _Client(ClientStream):
    """Takes lb's own answer down."""

    def __init__(self, peer: bytes, trusted: bool, tls: Established | None) -> None:
        self.peer, self.trusted, self.tls = peer, trusted, tls
        self.transport = None  # type: ignore[assignment]  # no tunnel comes of it
        self.private = None
        self.blocked = False
        self.answer: ResponseHead | None = None

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        self.answer = response

    def done(self, complete: bool) -> None:
        """There is no next request."""

    def resume(self) -> None:
        """There is no body."""

    def defer_read(self) -> None:
        """There is nothing to read."""


class _Transport:
    """Takes what a target is sent down."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """It was never open."""


class _Connector(Connector):
    """Opens nothing."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.asked: list[Lane] = []

    def open(self, lane: Lane, begun: Begun) -> None:
        self.asked.append(lane)


def trial(world: World, request: Request, shares: Mapping[str, Shares] | None = None) -> Trial:
    """Try a request. Raises `BadTrial` for one that no client could send.

    `shares` are the parts of the pools, by service; without them the active pool of the file has all.
    """
    try:
        ipaddress.ip_address(request.client if request.client != "unix" else "::")
    except ValueError:
        raise BadTrial(f"{request.client!r} is no address of a client") from None
    loop = asyncio.new_event_loop()
    try:
        plane = DataPlane(worker=0, loop=loop, alarm=lambda alarm: None, seed=1, connector=_Connector)
        try:
            plane.apply(_snapshot(world, shares or {}))
            return _tried(plane, world, request)
        finally:
            plane.close()
    finally:
        loop.close()


def nearest(others: list[Passed], most: int) -> list[Passed]:
    """The routes with the fewest reasons, in the order of the file."""
    return sorted(sorted(others, key=lambda each: len(each.reasons))[:most], key=lambda each: each.index)


def _snapshot(world: World, shares: Mapping[str, Shares]) -> Snapshot:
    """The file's routes and services; each target is one of HTTP/1 without TLS, so that its bytes can be read."""
    made = world.snapshot
    services = tuple(
        replace(
            service,
            pools=tuple(
                replace(pool, targets=tuple(replace(each, tls=None, http2=False) for each in pool.targets))
                for pool in service.pools
            ),
        )
        for service in made.services
    )
    actives = world.actives()
    rotations = tuple(
        Rotation(
            service.name,
            1,
            shares.get(service.name) or ((actives[service.name], 100),),
            tuple(
                (pool.name, tuple((each.id, float(each.weight)) for each in pool.targets if each.weight))
                for pool in service.pools
            ),
        )
        for service in services
    )
    routes = tuple(replace(route, steps=tuple(map(_without_fault, route.steps))) for route in made.routes)
    return replace(
        made,
        routes=routes,
        services=services,
        rotations=rotations,
        access_log=AccessLog("off"),
        files=tuple(world.files.items()),
        listeners=(),
    )


def _without_fault(rule: StepRule) -> StepRule:
    """Faults on purpose meet requests by chance: none is shown."""
    return rule if rule.fault is None else replace(rule, fault=replace(rule.fault, share=0.0))


def _tried(plane: DataPlane, world: World, request: Request) -> Trial:
    head, secure = _head_of(world, request)
    peer = request.client.encode()
    trusted = in_networks(world.snapshot.trusted_proxies, peer)
    if isinstance(head, RequestError):
        return Trial(status=head.status, reason=head.reason, answer=head.detail)
    lines = (b"https" if secure else b"http", trusted)
    head.fields.cached_lines = request_lines(head.fields, peer, *lines, minor=head.minor)
    name = host_name(head.host).decode("latin-1")
    tls = Established("TLSv1.3", "TLS_AES_256_GCM_SHA384", False, name, "") if secure else None
    client = _Client(peer, trusted, tls)
    exchange = Exchange(plane.live, client, head)
    exchange.request_id = head.fields.request_id if trusted and head.fields.request_id else REQUEST_ID
    asked = plane.live.asked(exchange)
    live = plane.live.only_route or plane.live.route_of(exchange)
    made = Trial()
    _name_route(made, plane, world, live)
    exchange.start(b"", not (head.fields.chunked or head.fields.length > 0))
    made.notes += _wait(plane, exchange)
    made.met = read_fragment(exchange.route_fragment)[1] or made.steps
    if client.answer is not None:
        made.status, made.reason = exchange.status, exchange.reason
        answer = client.answer.front.decode("latin-1").replace(exchange.request_id.decode("latin-1"), "…")
        made.answer = answer.replace("\r\n", "\n").rstrip("\n")
    else:
        _name_target(made, plane, world, exchange)
    if made.reason == "ambiguous_path":
        routes, table = world.snapshot.routes, plane.live.table
        for reading in readings(head.path):
            number = table.find(host_name(head.host), reading, asked)
            made.readings.append((reading.decode("latin-1"), routes[number].title() if number >= 0 else ""))
    if not secure and all(listener.redirect or listener.tls for listener in world.snapshot.listeners):
        made.notes.append("No listener serves plain HTTP: such a request is redirected to https, or refused, before.")
    made.others = [
        Passed(index, route.title(), _reasons(route, head, asked))
        for index, route in enumerate(world.snapshot.routes)
        if index != made.index
    ]
    return made


def _wait(plane: DataPlane, exchange: Exchange) -> list[str]:
    """Let a slow hash be computed: what holds the request has threads for it, and the loop to come back to. A service
    is not asked, but taken to let the request pass. Returns what there is to say of it."""
    notes: list[str] = []
    until = time.monotonic() + LONGEST
    while (work := exchange.held_by) is not None and time.monotonic() < until:
        if isinstance(work, AuthHold):
            notes.append(f"Service {work.asks()} is not asked, but taken to let the request pass.")
            work.assume()
        else:
            plane.context.loop.run_until_complete(asyncio.sleep(0.005))
    return notes


def _head_of(world: World, request: Request) -> tuple[RequestHead | RequestError, bool]:
    """The head as it would be read, and whether the client speaks TLS."""
    match = _URL.fullmatch(request.url)
    if match is None:
        raise BadTrial(f"{request.url!r} is no URL: http://HOST/PATH, https://HOST/PATH or /PATH")
    scheme, authority, target = match.groups()
    target = "/" + target if target is not None and target.startswith("?") else target or "/"
    fields = [text.strip() for text in request.fields]
    if any(":" not in text for text in fields):
        raise BadTrial("a header field is written as NAME: VALUE")
    if authority and not any(text.lower().startswith("host:") for text in fields):
        fields.insert(0, f"Host: {authority}")
    line = f"{request.method} {target} HTTP/{'1.0' if request.version == '1.0' else '1.1'}".encode()
    block = "".join(f"{text}\r\n" for text in fields).encode()
    own(
        name.encode() for listener in world.snapshot.listeners if listener.tls for name, _ in listener.tls.client_fields
    )
    try:
        head = read_request(line, len(line), read_request_fields(block, 32768, 100), 8192)
    except RequestError as error:
        return error, scheme == "https"
    if request.version == "2":
        head.minor = len(PROTOCOLS) - 1
    return head, scheme == "https"


def _name_route(made: Trial, plane: DataPlane, world: World, live: LiveRoute | None) -> None:
    if live is not None:
        made.index = plane.live.routes.index(live)
        made.route = world.snapshot.routes[made.index].title()
        made.steps = [step.name() for step in live.steps]


def _name_target(made: Trial, plane: DataPlane, world: World, exchange: Exchange) -> None:
    """The pool that the request goes to, and what a target of it gets."""
    made.service, made.pool = exchange.service_name, exchange.pool_name
    rotated = exchange.pool.members
    made.targets = [world.targets[lane.id].id for lane in rotated]
    route = world.snapshot.routes[made.index]
    if len(route.split) > 1:
        shares = ", ".join(f"{name} {parts} %" for name, parts in parts_of(route.split))
        made.notes.append(f"The route splits its requests: {shares}. This is one of them.")
    if route.fallback:
        made.notes.append(f"While no target can serve, requests go to {route.fallback}.")
    transport = _Transport()
    lane = exchange.lane
    if lane is None:
        return
    cookie = exchange.service.cookie
    if cookie is not None:
        if cookie.meant_by(exchange.received.fields.cookies(cookie.name)) == cookie.number(lane.id):
            made.targets = [world.targets[lane.id].id]
            made.notes.append(f"Its cookie {cookie.name.decode()} stands for this target.")
        else:
            made.notes.append(f"No cookie {cookie.name.decode()} leads it to a target: it gets one with the answer.")
    upstream = Upstream(lane, cast("socket.socket", None))
    upstream.connection_made(cast("asyncio.Transport", transport))
    exchange.on_connected(upstream)
    sent = transport.written.partition(b"\r\n\r\n")[0]
    made.sent = sent.decode("latin-1").replace("\r\n", "\n").replace(REQUEST_ID.decode(), "…")


def _reasons(route: Route, head: RequestHead, asked: Asked) -> tuple[str, ...]:
    """Why a route does not take the request."""
    found: list[str] = []
    host = host_name(head.host)
    if route.host and not host_matches(route.host.encode(), host):
        found.append(f"host {host.decode('latin-1') or '(none)'} is not {route.host}")
    path = head.path if head.path != b"*" else b"/"
    candidate = Candidate(replace(route, match=type(route.match)()), 0)
    if not _path_fits(route, candidate, path):
        how = {EXACT: "is not", REGEX: "does not match"}.get(route.kind, "is not below")
        found.append(f"path {path.decode('latin-1')} {how} {route.path}")
    found += Conditions(route.match).failures(asked)
    return tuple(found or ["it matches, too, but another route is more specific or earlier in the file"])


def _path_fits(route: Route, candidate: Candidate, path: bytes) -> bool:
    if candidate.pattern is not None:
        return candidate.pattern.matches(path)
    if route.kind == EXACT:
        return path == candidate.path
    return path == candidate.path or path.startswith(candidate.path.removesuffix(b"/") + b"/")


def document(made: Trial) -> dict[str, Any]:
    """The result as JSON has it."""
    return {
        "route": made.route or None,
        "index": made.index if made.index >= 0 else None,
        "steps": made.steps,
        "met": made.met,
        "answer": {"status": made.status, "reason": made.reason, "head": made.answer} if made.status else None,
        "target": {"service": made.service, "pool": made.pool, "targets": made.targets, "head": made.sent}
        if not made.status
        else None,
        "readings": [{"path": path, "route": title or None} for path, title in made.readings],
        "notes": made.notes,
        "others": [{"index": each.index, "route": each.title, "reasons": list(each.reasons)} for each in made.others],
    }
