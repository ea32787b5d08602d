"""The admin API's reading side: status, services, targets, explanations, events and the history of probes."""

from __future__ import annotations

from aiohttp import web

from lb.control.api import problems, streams
from lb.control.api.endpoint import LOOKING, Answer, Endpoint, Parameter
from lb.control.api.http import OPERATIONS, Body, as_json, number, query, send, view, whole
from lb.control.api.status_cache import STATUS_CACHE
from lb.control.event import Event
from lb.control.models import LAST_ID, Explanation, RunView, ServiceView, Status, TargetView

EVENT_QUERY = (
    Parameter("since", "Only what happened at this Unix time or later.", {"type": "number", "minimum": 0}, 0),
    Parameter("after", "Only events with a larger id.", {"type": "integer", "minimum": 0, "maximum": LAST_ID}, 0),
    Parameter("limit", "Only the newest ones, so many.", {"type": "integer", "minimum": 1, "maximum": 10_000}, 100),
    Parameter("kind", "Only these kinds, with commas between them.", {"type": "string"}, "switch,rollout"),
    Parameter("subject", "Only what happened to this, or to something in it.", {"type": "string"}, "greeting"),
)

RUN_QUERY = (
    Parameter("since", "Only runs that went on at this Unix time or later.", {"type": "number", "minimum": 0}, 0),
    Parameter(
        "limit",
        "Only the newest ones, so many; 1000 otherwise.",
        {"type": "integer", "minimum": 1, "maximum": 10_000},
        100,
    ),
    Parameter("subject", "Only probes of this, or of something in it.", {"type": "string"}, "greeting/blue"),
)

LAST_EVENT = Parameter(
    "Last-Event-ID",
    "The id of the last event that was seen; browsers send it by themselves. It counts before `after`.",
    {"type": "string", "pattern": "^[0-9]{0,15}$"},
)


async def status(request: web.Request) -> web.Response:
    query(request, ())
    return send(request, await request.app[STATUS_CACHE].status(request))


async def services(request: web.Request) -> web.Response:
    query(request, ())
    seen = await request.app[OPERATIONS].status()
    return send(request, Body(b"[%s]" % b",".join(as_json(service) for service in seen.services)))


async def service(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].service(request.match_info["name"]))


async def target(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].target(request.match_info["id"]))


async def explain(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].explain(request.match_info["subject"]))


async def events(request: web.Request) -> web.StreamResponse:
    """JSON; or, with `Accept: text/event-stream`, a stream that goes on where Last-Event-ID says."""
    given = query(request, [parameter.name for parameter in EVENT_QUERY])
    last = request.headers.get("Last-Event-ID") or given.get("after")
    chosen = streams.Choice(
        since=number("since", given["since"]) if "since" in given else None,
        after=whole("after or Last-Event-ID", last, 0, LAST_ID) if last else None,
        limit=whole("limit", given["limit"], 1, 10_000) if "limit" in given else None,
        kinds=frozenset(filter(None, given.get("kind", "").split(","))),
        subject=given.get("subject", ""),
    )
    event_log = request.app[OPERATIONS].events
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await streams.stream(request, event_log, chosen)
    return send(request, Body(b"[%s]" % b",".join(as_json(event) for event in streams.known(event_log, chosen))))


async def probes(request: web.Request) -> web.Response:
    given = query(request, [parameter.name for parameter in RUN_QUERY])
    since = number("since", given.get("since", "0"))
    limit = whole("limit", given.get("limit", "1000"), 1, 10_000)
    runs = request.app[OPERATIONS].runs(since, given.get("subject", ""))
    return send(request, Body(b"[%s]" % b",".join(as_json(run) for run in runs[-limit:])))


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/api/v1/status", status, "getStatus", LOOKING, "looking", "Everything at a glance",
        {200: Answer("All of it.", Status)},
    ),
    Endpoint(
        "GET", "/api/v1/services", services, "listServices", LOOKING, "looking", "All services",
        {200: Answer("In the order of the file.", ServiceView, many=True)},
    ),
    Endpoint(
        "GET", "/api/v1/services/{name}", service, "getService", LOOKING, "looking", "One service with its pools",
        {200: Answer("The service.", ServiceView)},
    ),
    Endpoint(
        "GET", "/api/v1/targets/{id}", target, "getTarget", LOOKING, "looking", "One target",
        {200: Answer("The target.", TargetView)},
    ),
    Endpoint(
        "GET", "/api/v1/explain/{subject}", explain, "explain", LOOKING,
        "looking", "Why it is or is not getting traffic",
        {200: Answer("The reasons, and what has to happen next.", Explanation)},
    ),
    Endpoint(
        "GET", "/api/v1/events", events, "listEvents", LOOKING, "looking", "The timeline, as a list or as a stream",
        {200: Answer("Oldest first.", Event, many=True, also="text/event-stream")},
        "With `Accept: text/event-stream` the answer goes on for as long as the client listens. It begins with what "
        "`since`, `after` or `Last-Event-ID` ask for, otherwise with what happens next. Each event has its `id` and, "
        "as `data`, the JSON of the list. Where events are missing, because lb keeps the newest 5000, a note says so.",
        query=EVENT_QUERY, headers=(LAST_EVENT,), refusals=(problems.TOO_MANY_STREAMS,),
    ),
    Endpoint(
        "GET", "/api/v1/probes", probes, "listProbes", LOOKING, "looking", "The history of probes, folded into runs",
        {200: Answer("In the order in which they began.", RunView, many=True)},
        "A run is a stretch of probes of one check that found the same. They outlive restarts of lb.", query=RUN_QUERY,
    ),
)  # fmt: skip
