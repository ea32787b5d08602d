"""The admin port: status, explanations, events, metrics, and orders, over HTTP.

`ENDPOINTS` is the whole of it: routes and the OpenAPI document are made from it. Errors are problem documents
(`problems`); access is decided in `guard`. Orders may carry If-Match with the ETag that they are based on.
"""

from __future__ import annotations

import json
import logging

from aiohttp import web
from aiohttp.typedefs import Handler

import lb
from lb.control.access import Access
from lb.control.api import (
    action_api,
    certificate_api,
    draft_api,
    openapi,
    pages,
    problems,
    process_api,
    read_api,
    streams,
    trial_api,
)
from lb.control.api.endpoint import LOOKING, NO_ROLE, TEXT, Answer, Endpoint
from lb.control.api.guard import HEALTH, KNOWN, guard
from lb.control.api.http import OPERATIONS, Body, problem, send
from lb.control.api.problems import Rejected
from lb.control.api.status_cache import STATUS_CACHE, StatusCache
from lb.control.operations import Operations
from lb.core.refusals import Refused

log = logging.getLogger("lb.admin")

#: Bytes of a request's body.
BODY_LIMIT = 4 << 20

ACCESS: web.AppKey[Access] = web.AppKey("access", Access)
ROUTES: web.AppKey[dict[web.AbstractRoute, Endpoint]] = web.AppKey("routes", dict)
SPEC: web.AppKey[dict[tuple[openapi.Examples, bool], Body]] = web.AppKey("spec", dict)

#: On every answer, unless a page says otherwise: other sites must not guess at it, run it, frame it or load it.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def build(operations: Operations, access: Access) -> web.Application:
    """The application of the admin port."""
    middlewares = [_problems, guard(access, _endpoint_of, _is_open)]
    app = web.Application(middlewares=middlewares, client_max_size=BODY_LIMIT)
    app[OPERATIONS] = operations
    app[ACCESS] = access
    app[ROUTES] = {}
    app[SPEC] = {}
    app[streams.OPEN] = set()
    app[STATUS_CACHE] = StatusCache()
    app.add_routes(pages.routes())
    for endpoint in ENDPOINTS:
        methods = ("GET", "HEAD") if endpoint.method == "GET" and not endpoint.acts else (endpoint.method,)
        for method in methods:
            app[ROUTES][app.router.add_route(method, endpoint.route, endpoint.run)] = endpoint
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
    """With names of the running configuration as examples, for clients that may know them."""
    examples = openapi.EXAMPLES
    if request[KNOWN]:
        examples = openapi.examples_of(request.app[OPERATIONS].names()) or examples
    kept, key = request.app[SPEC], (examples, request.app[ACCESS].secured)
    if key not in kept:
        said = openapi.document(ENDPOINTS, lb.__version__, key[1], examples)
        kept.clear()
        kept[key] = Body(json.dumps(said, ensure_ascii=False).encode())
    return send(request, kept[key])


async def problem_kind(request: web.Request) -> web.Response:
    kind = problems.BY_NAME.get(request.match_info["kind"])
    if kind is None:
        raise Rejected(problems.NOT_FOUND, f"there is {', '.join(problems.BY_NAME)}")
    return web.Response(text=problems.explained(kind))


# --- the whole of it -------------------------------------------------------------------------------------------------

ENDPOINTS: tuple[Endpoint, ...] = (
    *read_api.ENDPOINTS,
    *certificate_api.ENDPOINTS,
    *trial_api.ENDPOINTS,
    *action_api.ENDPOINTS,
    *process_api.ENDPOINTS,
    *draft_api.ENDPOINTS,
    Endpoint(
        "GET", "/livez", livez, "livez", NO_ROLE, "health", "Whether lb is alive",
        {200: Answer("It is.", media=TEXT)}, open=True,
    ),
    Endpoint(
        "GET", "/readyz", readyz, "readyz", NO_ROLE, "health", "Whether lb can serve",
        {200: Answer("It can.", media=TEXT), 503: Answer("It drains, or no service has a ready target.", media=TEXT)},
        open=True,
    ),
    Endpoint(
        "GET", "/metrics", metrics, "metrics", LOOKING, "health", "Figures for Prometheus",
        {200: Answer("The text format.", media=TEXT)},
    ),
    Endpoint(
        "GET", "/openapi.json", spec, "getDescription", NO_ROLE, "health", "This description",
        {200: Answer("OpenAPI 3.1.")}, open=True,
    ),
    Endpoint(
        "GET", "/problems/{kind}", problem_kind, "getProblemKind", NO_ROLE, "health", "What a kind of problem means",
        {200: Answer("In plain text.", media=TEXT)}, open=True, refusals=(problems.NOT_FOUND,),
    ),
)  # fmt: skip

_OPEN = frozenset((*HEALTH, "/openapi.json"))


def _endpoint_of(request: web.Request) -> Endpoint | None:
    return request.app[ROUTES].get(request.match_info.route)


def _is_open(request: web.Request) -> bool:
    """The document that needs no token: it says nothing about the running configuration."""
    if pages.is_page(request.method, request.path):
        return True
    return request.path in _OPEN or request.path.startswith("/problems/")


# --- around every answer ---------------------------------------------------------------------------------------------


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (Refused, Rejected) as error:
        response = problem(error)
        if response.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="lb admin"'
        return response
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = problem(problems.of_status(error.status, f"{request.method} {request.path}: {error.reason}"))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        return problem(Rejected(problems.INTERNAL_ERROR, f"{type(error).__name__}; the log has the details"))


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "lb"
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
