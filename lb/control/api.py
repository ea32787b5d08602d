"""The admin port: status, explanations, events, metrics, and orders, over HTTP.

`ENDPOINTS` is the whole of it: routes and the OpenAPI document are made from it. Errors are problem documents
(`refusals`); who may ask at all is `guard`'s to say. Orders may carry If-Match with the ETag that they are based on.
What an order needs is read first, then its base is compared, and from there to the change nobody else gets a turn.
"""

from __future__ import annotations

import json
import logging

from aiohttp import web
from aiohttp.typedefs import Handler

import lb
from lb.control import configuration, openapi, pages, refusals, streams
from lb.control.answers import OPERATIONS, Body, actor, bases, body, number, problem, query, send, view, whole
from lb.control.endpoint import TEXT, Answer, Endpoint, Parameter
from lb.control.glance import GLANCE, Glance
from lb.control.guard import HEALTH, KNOWN, guard
from lb.control.models import (
    LAST_ID,
    ConfigDraft,
    ConfigOrder,
    ConfigText,
    DrainRequest,
    DrainState,
    Event,
    Explanation,
    Preview,
    ProbeResult,
    ReloadResult,
    RunView,
    ServiceView,
    Status,
    SwitchRequest,
    TargetView,
    UpgradeRequest,
    UpgradeResult,
    Validation,
    WeightRequest,
)
from lb.control.operations import Operations, Refused

log = logging.getLogger("lb.admin")

#: Bytes of a request's body.
BODY_LIMIT = 4 << 20

SECURED: web.AppKey[bool] = web.AppKey("secured", bool)
SPEC: web.AppKey[dict[openapi.Examples, Body]] = web.AppKey("spec", dict)

#: On every answer, unless a page says otherwise: nothing of it is to be guessed at, run, framed or loaded by others.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def build(operations: Operations, *, token: str = "", allowed_hosts: tuple[str, ...] = ()) -> web.Application:
    """The application of the admin port."""
    app = web.Application(middlewares=[_problems, guard(token, allowed_hosts, _is_open)], client_max_size=BODY_LIMIT)
    app[OPERATIONS] = operations
    app[SECURED] = bool(token)
    app[SPEC] = {}
    app[streams.OPEN] = set()
    app[GLANCE] = Glance()
    app.add_routes(pages.routes())
    for endpoint in ENDPOINTS:
        app.router.add_route(endpoint.method, endpoint.route, endpoint.run)
        if endpoint.method == "GET" and endpoint.run is not prestop:  # that one does something
            app.router.add_route("HEAD", endpoint.route, endpoint.run)
    app.on_response_prepare.append(_add_headers)
    return app


# --- health, metrics, and the API about itself -----------------------------------------------------------------------


async def livez(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    ready, why = request.app[OPERATIONS].readyz()
    return web.Response(status=200 if ready else 503, text=f"{why}\n")


async def metrics(request: web.Request) -> web.Response:
    data = await request.app[OPERATIONS].metrics()
    return web.Response(body=data, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def spec(request: web.Request) -> web.Response:
    """With names of what runs as examples, for those who may know them."""
    examples = openapi.EXAMPLES
    if request[KNOWN]:
        examples = openapi.examples_of(request.app[OPERATIONS].names()) or examples
    kept = request.app[SPEC]
    if examples not in kept:
        said = openapi.document(ENDPOINTS, lb.__version__, request.app[SECURED], examples)
        kept.clear()
        kept[examples] = Body(json.dumps(said, ensure_ascii=False).encode())
    return send(request, kept[examples])


async def problem_kind(request: web.Request) -> web.Response:
    kind = refusals.BY_NAME.get(request.match_info["kind"])
    if kind is None:
        raise Refused(404, "Not found", f"there is {', '.join(refusals.BY_NAME)}")
    return web.Response(text=refusals.explained(kind))


# --- looking ---------------------------------------------------------------------------------------------------------


async def status(request: web.Request) -> web.Response:
    query(request, ())
    return send(request, await request.app[GLANCE].status(request))


async def services(request: web.Request) -> web.Response:
    query(request, ())
    seen = await request.app[OPERATIONS].status()
    return send(request, Body(b"[%s]" % b",".join(_json(service) for service in seen.services)))


async def service(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].service(request.match_info["name"]))


async def target(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].target(request.match_info["id"]))


async def explain(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].explain(request.match_info["subject"]))


async def config(request: web.Request) -> web.Response:
    query(request, ())
    operations = request.app[OPERATIONS]
    return send(request, Body(_json(operations.config_text()), operations.config_mark))


async def validate(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, ConfigDraft)
    return view(request, await request.app[OPERATIONS].validate(wanted.text))


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
    return send(request, Body(b"[%s]" % b",".join(_json(event) for event in streams.known(event_log, chosen))))


async def probes(request: web.Request) -> web.Response:
    given = query(request, [parameter.name for parameter in RUN_QUERY])
    since = number("since", given.get("since", "0"))
    limit = whole("limit", given.get("limit", "1000"), 1, 10_000)
    runs = request.app[OPERATIONS].runs(since, given.get("subject", ""))
    return send(request, Body(b"[%s]" % b",".join(_json(run) for run in runs[-limit:])))


# --- what orders would do --------------------------------------------------------------------------------------------


async def preview_switch(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, SwitchRequest)
    return view(request, request.app[OPERATIONS].foresee_switch(request.match_info["name"], wanted))


async def preview_rollback(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, request.app[OPERATIONS].foresee_rollback(request.match_info["name"]))


async def preview_drain(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, DrainRequest)
    return view(request, request.app[OPERATIONS].foresee_drain(request.match_info["id"], wanted.force))


async def preview_weight(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, WeightRequest)
    return view(request, request.app[OPERATIONS].foresee_weight(request.match_info["id"], wanted.weight))


# --- orders ----------------------------------------------------------------------------------------------------------


async def switch(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, SwitchRequest)
    operations = _as_seen(request)
    return view(request, await operations.switch(request.match_info["name"], wanted, actor(request)))


async def rollback(request: web.Request) -> web.Response:
    query(request, ())
    operations = _as_seen(request)
    return view(request, await operations.rollback(request.match_info["name"], actor(request)))


async def drain(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, DrainRequest)
    state = await _as_seen(request).drain(request.match_info["id"], wanted.force, actor(request))
    return view(request, state, 200 if state.safe else 202)


async def drain_state(request: web.Request) -> web.Response:
    query(request, ())
    state = await request.app[OPERATIONS].drain_state(request.match_info["id"])
    return view(request, state, 200 if state.safe else 202)


async def prestop(request: web.Request) -> web.Response:
    """For a container's preStop hook, which may be unable to do more than a GET: it names itself, or just calls."""
    if "Mozilla/" in request.headers.get("User-Agent", "") and "Sec-Fetch-Site" not in request.headers:
        raise Refused(403, "Foreign page", "a browser that does not say which page asks may not drain a target")
    given = query(request, [parameter.name for parameter in PRESTOP_QUERY])
    subject = given.get("target", "") or request.remote or ""
    wait = number("wait", given.get("wait", "30"), 600)
    state = await request.app[OPERATIONS].prestop(subject, wait, actor(request))
    return view(request, state, 200 if state.safe else 202)


async def undrain(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await _as_seen(request).undrain(request.match_info["id"], actor(request)))


async def weight(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, WeightRequest)
    return view(request, await _as_seen(request).weight(request.match_info["id"], wanted.weight, actor(request)))


async def probe(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].probe(request.match_info["id"]))


async def reload(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await _as_seen(request, config=True).reload(actor(request)))


async def configure(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, ConfigOrder)
    if "If-Match" not in request.headers:
        raise Refused(428, "If-Match needed", "send the ETag of the configuration that the text was made from, or *")
    return view(request, await _as_seen(request, config=True).configure(wanted.text, wanted.force, actor(request)))


async def upgrade(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, UpgradeRequest)
    return view(request, await request.app[OPERATIONS].upgrade(wanted.within, actor(request)))


def _as_seen(request: web.Request, *, config: bool = False) -> Operations:
    """The operations, when what the order is based on is still so. Raises `Refused`."""
    operations = request.app[OPERATIONS]
    given = bases(request)
    if given is not None:
        operations.check_base(given, config=config)
    return operations


def _json(said: object) -> bytes:
    return said.model_dump_json(by_alias=True).encode()  # type: ignore[attr-defined, no-any-return]


# --- the whole of it -------------------------------------------------------------------------------------------------

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
PRESTOP_QUERY = (
    Parameter("target", "The target; left out: the one whose address the request comes from.", {"type": "string"}),
    Parameter("wait", "Seconds that the answer may wait for.", {"type": "number", "minimum": 0, "maximum": 600}, 0),
)
LAST_EVENT = Parameter(
    "Last-Event-ID",
    "The id of the last event that was seen; browsers send it by themselves. It counts before `after`.",
    {"type": "string", "pattern": "^[0-9]{0,15}$"},
)
PREVIEW = {200: Answer("What would happen, or why it would be refused. Nothing was changed.", Preview)}
DRAINS = {
    200: Answer("Nothing is in flight there: it may be stopped.", DrainState),
    202: Answer("It still works on something, or does not drain.", DrainState),
}
PRESTOP_ABOUT = (
    "Drains the target and answers when nothing is in flight there, or after `wait`. The drain ends by itself when the "
    "target is back."
)
BUSY = ("Not now", "Not confirmed")

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/api/v1/status", status, "getStatus", "looking", "Everything at a glance",
        {200: Answer("All of it.", Status)},
    ),
    Endpoint(
        "GET", "/api/v1/services", services, "listServices", "looking", "All services",
        {200: Answer("In the order of the file.", ServiceView, many=True)},
    ),
    Endpoint(
        "GET", "/api/v1/services/{name}", service, "getService", "looking", "One service with its pools",
        {200: Answer("The service.", ServiceView)},
    ),
    Endpoint(
        "GET", "/api/v1/targets/{id}", target, "getTarget", "looking", "One target",
        {200: Answer("The target.", TargetView)},
    ),
    Endpoint(
        "GET", "/api/v1/explain/{subject}", explain, "explain", "looking", "Why it is or is not getting traffic",
        {200: Answer("The reasons, and what has to happen next.", Explanation)},
    ),
    Endpoint(
        "GET", "/api/v1/events", events, "listEvents", "looking", "The timeline, as a list or as a stream",
        {200: Answer("Oldest first.", Event, many=True, also="text/event-stream")},
        "With `Accept: text/event-stream` the answer goes on for as long as the client listens. It begins with what "
        "`since`, `after` or `Last-Event-ID` ask for, otherwise with what happens next. Each event has its `id` and, "
        "as `data`, the JSON of the list. Where events are missing, because lb keeps the newest 5000, a note says so.",
        query=EVENT_QUERY, headers=(LAST_EVENT,), refusals=("Too many streams",),
    ),
    Endpoint(
        "GET", "/api/v1/probes", probes, "listProbes", "looking", "The history of probes, folded into runs",
        {200: Answer("In the order in which they began.", RunView, many=True)},
        "A run is a stretch of probes of one check that found the same. They outlive restarts of lb.", query=RUN_QUERY,
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/switch", switch, "switchService", "switching",
        "Send a service's traffic to another pool, at once or in steps",
        {200: Answer("How the service stands now; every worker has confirmed it.", ServiceView)},
        takes=SwitchRequest, changes=True,
        refusals=("No such pool", "Not ready", "A rollout is under way", "Another order is under way",
                  "The service has changed", "The pre hook failed", *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/switch/preview", preview_switch, "previewSwitch", "switching",
        "What a switch would do", PREVIEW, takes=SwitchRequest,
        refusals=("No such pool",),
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/rollback/preview", preview_rollback, "previewRollback", "switching",
        "What a rollback would do", PREVIEW,
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/rollback", rollback, "rollBackService", "switching",
        "Back to the previous pool, at once",
        {200: Answer("How the service stands now; every worker has confirmed it.", ServiceView)},
        "Nothing is asked about readiness: this is the way out. A rollout under way ends.",
        changes=True, refusals=("Nothing to roll back to", *BUSY),
    ),
    Endpoint(
        "GET", "/api/v1/targets/{id}/drain", drain_state, "getDrain", "targets", "How far a drain has come", DRAINS,
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/drain", drain, "drainTarget", "targets", "No new requests for a target", DRAINS,
        "It stays drained until it is undrained, also across restarts of lb.",
        takes=DrainRequest, takes_nothing_too=True, changes=True, refusals=("Too few would be left", *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/drain/preview", preview_drain, "previewDrain", "targets",
        "What a drain would do", PREVIEW, takes=DrainRequest, takes_nothing_too=True,
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/undrain", undrain, "undrainTarget", "targets", "Take a drain back",
        {200: Answer("The target, which gets requests again if it is ready.", TargetView)},
        changes=True, refusals=BUSY,
    ),
    Endpoint(
        "PUT", "/api/v1/targets/{id}/weight", weight, "weighTarget", "targets", "Give a target more or less traffic",
        {200: Answer("The target with its new weight.", TargetView)},
        "The weight of the file counts again when it is set to that, or when the file's is changed.",
        takes=WeightRequest, changes=True, refusals=BUSY,
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/weight/preview", preview_weight, "previewWeight", "targets",
        "What another weight would do", PREVIEW, takes=WeightRequest,
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/probe", probe, "probeTarget", "targets", "Probe a target now",
        {200: Answer("What was asked, got and expected.", ProbeResult)}, refusals=("Not probed",),
    ),
    Endpoint(
        "GET", "/api/v1/prestop", prestop, "prestop", "targets", "For a container that is about to stop", DRAINS,
        PRESTOP_ABOUT, query=PRESTOP_QUERY, acts=True, refusals=("No such target", "Ambiguous target", *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/prestop", prestop, "postPrestop", "targets", "For a container that is about to stop", DRAINS,
        PRESTOP_ABOUT, query=PRESTOP_QUERY, acts=True, refusals=("No such target", "Ambiguous target", *BUSY),
    ),
    Endpoint(
        "GET", "/api/v1/config", config, "getConfig", "configuration", "The text of the configuration that runs",
        {200: Answer("As it was loaded; the file may have been edited since.", ConfigText)},
        refusals=("The file cannot be read",),
    ),
    Endpoint(
        "PUT", "/api/v1/config", configure, "replaceConfig", "configuration",
        "Make a text the configuration",
        {200: Answer("What has changed; every worker has confirmed it.", ReloadResult)},
        "The text is taken whole or not at all: it is validated, new addresses are opened, then the file is replaced "
        "in one step (what was there stays as FILE~) and the text is in force. `If-Match` takes the ETag of "
        "`GET /api/v1/config`. A file that was edited since it was loaded is only replaced with `force`. Without a "
        "token, commands that lb runs and files that it writes can only be changed in the file itself.",
        takes=ConfigOrder, changes=True, base_needed=True,
        refusals=("If-Match needed", "Token needed for commands", "The file is invalid", "The file was edited",
                  "The file cannot be written", "Cannot listen", "Not now"),
    ),
    Endpoint(
        "POST", "/api/v1/config/validate", validate, "validateConfig", "configuration",
        "What a configuration text would do, or all that is wrong with it",
        {200: Answer("Its errors, or what it would change. Nothing was changed.", Validation)}, takes=ConfigDraft,
    ),
    *configuration.ENDPOINTS,
    Endpoint(
        "POST", "/api/v1/reload", reload, "reload", "configuration", "Read the file again",
        {200: Answer("What has changed; every worker has confirmed it.", ReloadResult)},
        "The file is taken whole or not at all. `If-Match` takes the ETag of `GET /api/v1/config`.",
        changes=True, refusals=("The file is invalid", "Cannot listen", "Not now"),
    ),
    Endpoint(
        "POST", "/api/v1/upgrade", upgrade, "upgrade", "configuration",
        "Put the installed code in the place of the running one",
        {200: Answer("The new lb serves; this one only ends what is under way.", UpgradeResult)},
        takes=UpgradeRequest, takes_nothing_too=True, acts=True, refusals=("No upgrade", "Backed out", "Not now"),
    ),
    Endpoint(
        "GET", "/livez", livez, "livez", "health", "Whether lb is alive",
        {200: Answer("It is.", media=TEXT)}, open=True,
    ),
    Endpoint(
        "GET", "/readyz", readyz, "readyz", "health", "Whether lb can serve",
        {200: Answer("It can.", media=TEXT), 503: Answer("It drains, or no service has a ready target.", media=TEXT)},
        open=True,
    ),
    Endpoint(
        "GET", "/metrics", metrics, "metrics", "health", "Figures for Prometheus",
        {200: Answer("The text format.", media=TEXT)},
    ),
    Endpoint(
        "GET", "/openapi.json", spec, "getDescription", "health", "This description",
        {200: Answer("OpenAPI 3.1.")}, open=True,
    ),
    Endpoint(
        "GET", "/problems/{kind}", problem_kind, "getProblemKind", "health", "What a kind of problem means",
        {200: Answer("In plain text.", media=TEXT)}, open=True, refusals=("Not found",),
    ),
)  # fmt: skip

_OPEN = frozenset((*HEALTH, "/openapi.json"))


def _is_open(request: web.Request) -> bool:
    """What needs no token: it says nothing about what runs."""
    if pages.is_page(request.method, request.path):
        return True
    return request.path in _OPEN or request.path.startswith("/problems/")


# --- around every answer ---------------------------------------------------------------------------------------------


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        response = problem(refused)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="lb admin"'
        return response
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = problem(refusals.of_status(error.status, f"{request.method} {request.path}: {error.reason}"))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        return problem(Refused(500, "Internal error", f"{type(error).__name__}; the log has the details"))


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "lb"
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
