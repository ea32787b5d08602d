"""The admin API's orders on services and targets, and their previews.

An order's arguments are read first, then the revision that it is based on is compared. It is compared again when the
order's turn to change something has come.
"""

from __future__ import annotations

from aiohttp import web

from lb.control.api import problems
from lb.control.api.endpoint import DRAINING, OPERATING, PREVIEWING, PREVIEWING_DRAIN, Answer, Endpoint, Parameter
from lb.control.api.http import OPERATIONS, actor, as_seen, body, number, query, view
from lb.control.api.problems import Rejected
from lb.control.api.views import preview
from lb.control.models import (
    ConfirmRequest,
    DrainRequest,
    DrainState,
    MaintenanceRequest,
    MaintenanceState,
    Preview,
    ProbeResult,
    RollbackRequest,
    ServiceView,
    SwitchRequest,
    TargetView,
    UndrainRequest,
    WeightRequest,
)

PRESTOP_QUERY = (
    Parameter("target", "The target; left out: the one whose address the request comes from.", {"type": "string"}),
    Parameter("wait", "Seconds that the answer may wait for.", {"type": "number", "minimum": 0, "maximum": 600}, 0),
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

BUSY = (problems.NOT_NOW, problems.NOT_CONFIRMED)


# --- what they would do ----------------------------------------------------------------------------------------------


async def preview_switch(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, SwitchRequest)
    return view(request, preview(request.app[OPERATIONS].preview_switch(request.match_info["name"], wanted)))


async def preview_rollback(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, RollbackRequest)
    return view(request, preview(request.app[OPERATIONS].preview_rollback(request.match_info["name"], wanted.force)))


async def preview_drain(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, DrainRequest)
    return view(request, preview(request.app[OPERATIONS].preview_drain(request.match_info["id"], wanted.force)))


async def preview_undrain(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, UndrainRequest)
    return view(request, preview(request.app[OPERATIONS].preview_undrain(request.match_info["id"], wanted.force)))


async def preview_weight(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, WeightRequest)
    return view(request, preview(request.app[OPERATIONS].preview_weight(request.match_info["id"], wanted)))


# --- doing it --------------------------------------------------------------------------------------------------------


async def switch(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, SwitchRequest)
    operations, revision = as_seen(request)
    return view(request, await operations.switch(request.match_info["name"], wanted, actor(request), revision))


async def rollback(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, RollbackRequest)
    operations, revision = as_seen(request)
    name = request.match_info["name"]
    return view(request, await operations.rollback(name, wanted.force, actor(request), revision))


async def drain(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, DrainRequest)
    operations, revision = as_seen(request)
    state = await operations.drain(request.match_info["id"], wanted.force, actor(request), revision)
    return view(request, state, 200 if state.safe else 202)


async def confirm_removals(request: web.Request) -> web.Response:
    query(request, ())
    await body(request, ConfirmRequest)
    operations, _ = as_seen(request)
    names = request.match_info["name"], request.match_info["pool"]
    return view(request, await operations.confirm_removals(*names, actor(request)))


async def drain_state(request: web.Request) -> web.Response:
    query(request, ())
    state = await request.app[OPERATIONS].drain_state(request.match_info["id"])
    return view(request, state, 200 if state.safe else 202)


async def prestop(request: web.Request) -> web.Response:
    """For a container's preStop hook, which may be unable to do more than a GET: it names itself, or just calls."""
    if "Mozilla/" in request.headers.get("User-Agent", "") and "Sec-Fetch-Site" not in request.headers:
        raise Rejected(problems.FOREIGN_PAGE, "a browser that does not say which page asks may not drain a target")
    given = query(request, [parameter.name for parameter in PRESTOP_QUERY])
    subject = given.get("target", "") or request.remote or ""
    wait = number("wait", given.get("wait", "30"), 600)
    state = await request.app[OPERATIONS].prestop(subject, wait, actor(request))
    return view(request, state, 200 if state.safe else 202)


async def undrain(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, UndrainRequest)
    operations, revision = as_seen(request)
    return view(request, await operations.undrain(request.match_info["id"], wanted.force, actor(request), revision))


async def weight(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, WeightRequest)
    operations, revision = as_seen(request)
    return view(request, await operations.weight(request.match_info["id"], wanted, actor(request), revision))


async def probe(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, await request.app[OPERATIONS].probe(request.match_info["id"]))


async def maintenance(request: web.Request) -> web.Response:
    query(request, ())
    return view(request, request.app[OPERATIONS].maintenance(request.match_info["route"]))


async def maintain(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, MaintenanceRequest)
    operations, revision = as_seen(request)
    return view(request, await operations.maintain(request.match_info["route"], wanted, actor(request), revision))


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST", "/api/v1/services/{name}/switch", switch, "switchService", OPERATING, "switching",
        "Send a service's traffic to another pool, at once or in steps",
        {200: Answer("How the service stands now; every worker has confirmed it.", ServiceView)},
        takes=SwitchRequest, changes=True,
        refusals=(problems.NO_SUCH_POOL, problems.NOT_READY, problems.ROLLOUT_UNDER_WAY, problems.OTHER_ORDER_UNDER_WAY,
                  problems.SERVICE_HAS_CHANGED, problems.PRE_HOOK_FAILED, *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/switch/preview", preview_switch, "previewSwitch", PREVIEWING, "switching",
        "What a switch would do", PREVIEW, takes=SwitchRequest,
        refusals=(problems.NO_SUCH_POOL,),
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/rollback/preview", preview_rollback, "previewRollback", PREVIEWING,
        "switching",
        "What a rollback would do", PREVIEW, takes=RollbackRequest, takes_nothing_too=True,
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/rollback", rollback, "rollBackService", OPERATING, "switching",
        "Back to the previous pool, at once",
        {200: Answer("How the service stands now; every worker has confirmed it.", ServiceView)},
        "One target there that can serve is enough: this is the way out. A rollout under way ends.",
        takes=RollbackRequest, takes_nothing_too=True,
        changes=True, refusals=(problems.NOTHING_TO_ROLL_BACK_TO, problems.NOT_READY, *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/services/{name}/pools/{pool}/confirm-removals", confirm_removals, "confirmRemovals", OPERATING,
        "targets", "Let targets go that their source no longer names",
        {200: Answer("How the service stands now; these targets are about to drain.", ServiceView)},
        "When too many targets of a pool vanish at one time, those that pass their checks are kept. This says that the "
        "source is right. Nothing changes where none is kept.",
        takes=ConfirmRequest, takes_nothing_too=True, changes=True, refusals=(problems.NO_SUCH_POOL,),
    ),
    Endpoint(
        "GET", "/api/v1/targets/{id}/drain", drain_state, "getDrain", PREVIEWING_DRAIN,
        "targets", "How far a drain has come", DRAINS,
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/drain", drain, "drainTarget", DRAINING,
        "targets", "No new requests for a target", DRAINS,
        "It stays drained until it is undrained, also across restarts of lb.",
        takes=DrainRequest, takes_nothing_too=True, changes=True, refusals=(problems.TOO_FEW_LEFT, *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/drain/preview", preview_drain, "previewDrain", PREVIEWING_DRAIN, "targets",
        "What a drain would do", PREVIEW, takes=DrainRequest, takes_nothing_too=True,
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/undrain", undrain, "undrainTarget", DRAINING, "targets", "Take a drain back",
        {200: Answer("The target, which gets requests again if it is ready.", TargetView)},
        takes=UndrainRequest, takes_nothing_too=True, changes=True, refusals=(problems.TOO_FEW_LEFT, *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/undrain/preview", preview_undrain, "previewUndrain", PREVIEWING_DRAIN, "targets",
        "What the end of a drain would do", PREVIEW, takes=UndrainRequest, takes_nothing_too=True,
    ),
    Endpoint(
        "PUT", "/api/v1/targets/{id}/weight", weight, "weighTarget", OPERATING,
        "targets", "Give a target more or less traffic",
        {200: Answer("The target with its new weight.", TargetView)},
        "The weight of the file counts again when it is set to that, or when the file's is changed.",
        takes=WeightRequest, changes=True, refusals=(problems.TOO_FEW_LEFT, *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/weight/preview", preview_weight, "previewWeight", PREVIEWING, "targets",
        "What another weight would do", PREVIEW, takes=WeightRequest,
    ),
    Endpoint(
        "POST", "/api/v1/targets/{id}/probe", probe, "probeTarget", OPERATING, "targets", "Probe a target now",
        {200: Answer("What was asked, got and expected.", ProbeResult)}, refusals=(problems.NOT_PROBED,),
    ),
    Endpoint(
        "GET", "/api/v1/maintenance/{route}", maintenance, "getMaintenance", PREVIEWING, "routes",
        "Whether a route is in maintenance", {200: Answer("Its maintenance, or null.", MaintenanceState)},
        refusals=(problems.NO_SUCH_ROUTE, problems.AMBIGUOUS_ROUTE),
    ),
    Endpoint(
        "PUT", "/api/v1/maintenance/{route}", maintain, "putMaintenance", OPERATING, "routes",
        "Begin or end a route's maintenance",
        {200: Answer("How it stands now; every worker has confirmed it.", MaintenanceState)},
        "Clients get 503 with `Retry-After` and a page, at once; requests under way go on. It lasts until it is ended, "
        "also across restarts of lb.",
        takes=MaintenanceRequest, changes=True,
        refusals=(problems.NO_SUCH_ROUTE, problems.AMBIGUOUS_ROUTE, *BUSY),
    ),
    Endpoint(
        "GET", "/api/v1/prestop", prestop, "prestop", DRAINING,
        "targets", "For a container that is about to stop", DRAINS,
        PRESTOP_ABOUT, query=PRESTOP_QUERY, acts=True,
        refusals=(problems.NO_SUCH_TARGET, problems.AMBIGUOUS_TARGET, *BUSY),
    ),
    Endpoint(
        "POST", "/api/v1/prestop", prestop, "postPrestop", DRAINING,
        "targets", "For a container that is about to stop", DRAINS,
        PRESTOP_ABOUT, query=PRESTOP_QUERY, acts=True,
        refusals=(problems.NO_SUCH_TARGET, problems.AMBIGUOUS_TARGET, *BUSY),
    ),
)  # fmt: skip
