"""The admin port: status, explanations, events, metrics, and orders, over HTTP.

Errors are problem documents (RFC 9457). Orders may carry If-Match with the revision they are based on; answers carry
it as ETag. The Host header must name this machine, and a browser's Origin must be this port itself: a page of another
site can neither rebind its name to it nor post to it. With a token file every request but the health of lb itself
needs the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import time
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ValidationError

from lb.control import pages
from lb.control.models import ConfigText, DrainRequest, SwitchRequest, UpgradeRequest, WeightRequest
from lb.control.operations import Operations, Refused

#: Seconds between two signs of life on an event stream.
HEARTBEAT = 15.0
#: Bytes of a request's body.
BODY_LIMIT = 4 << 20

OPERATIONS: web.AppKey[Operations] = web.AppKey("operations", Operations)

M = TypeVar("M", bound=BaseModel)


def build(operations: Operations, *, token: str = "", allowed_hosts: tuple[str, ...] = ()) -> web.Application:
    """The application of the admin port."""
    app = web.Application(middlewares=[_guard(token, allowed_hosts), _problems], client_max_size=BODY_LIMIT)
    app[OPERATIONS] = operations
    app.add_routes(pages.routes())
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/api/v1/status", status),
            web.get("/api/v1/services", services),
            web.get("/api/v1/services/{name}", service),
            web.post("/api/v1/services/{name}/switch", switch),
            web.post("/api/v1/services/{name}/rollback", rollback),
            web.get("/api/v1/targets/{id:.+}/drain", drain_state),
            web.post("/api/v1/targets/{id:.+}/drain", drain),
            web.post("/api/v1/targets/{id:.+}/undrain", undrain),
            web.put("/api/v1/targets/{id:.+}/weight", weight),
            web.post("/api/v1/targets/{id:.+}/probe", probe),
            web.get("/api/v1/targets/{id:.+}", target),
            web.get("/api/v1/explain/{subject:.+}", explain),
            web.get("/api/v1/events", events),
            web.get("/api/v1/prestop", prestop),
            web.post("/api/v1/prestop", prestop),
            web.post("/api/v1/reload", reload),
            web.post("/api/v1/upgrade", upgrade),
            web.get("/api/v1/config", config),
            web.post("/api/v1/config/validate", validate),
        ]
    )
    return app


# --- health and metrics ----------------------------------------------------------------------------------------------


async def livez(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    ready, why = request.app[OPERATIONS].readyz()
    return web.Response(status=200 if ready else 503, text=f"{why}\n")


async def metrics(request: web.Request) -> web.Response:
    body = await request.app[OPERATIONS].metrics()
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


# --- looking ---------------------------------------------------------------------------------------------------------


async def status(request: web.Request) -> web.Response:
    return _answer(request, await request.app[OPERATIONS].status())


async def services(request: web.Request) -> web.Response:
    view = await request.app[OPERATIONS].status()
    return _json(request, [service.model_dump() for service in view.services])


async def service(request: web.Request) -> web.Response:
    return _answer(request, await request.app[OPERATIONS].service(request.match_info["name"]))


async def target(request: web.Request) -> web.Response:
    return _answer(request, await request.app[OPERATIONS].target(request.match_info["id"]))


async def explain(request: web.Request) -> web.Response:
    return _answer(request, await request.app[OPERATIONS].explain(request.match_info["subject"]))


async def config(request: web.Request) -> web.Response:
    return _answer(request, request.app[OPERATIONS].config_text())


async def validate(request: web.Request) -> web.Response:
    wanted = await _body(request, ConfigText)
    return _answer(request, await request.app[OPERATIONS].validate(wanted.text))


async def events(request: web.Request) -> web.StreamResponse:
    """JSON; or, with `Accept: text/event-stream`, a stream that goes on where Last-Event-ID says."""
    log = request.app[OPERATIONS].events
    since = _number(request.query.get("since", "0"))
    if "text/event-stream" not in request.headers.get("Accept", ""):
        return _json(request, [event.model_dump() for event in log.since(since)])
    after = int(_number(request.headers.get("Last-Event-ID", "0")))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    with log.listen() as queue, contextlib.suppress(ConnectionError):
        past = log.since(since if since or after else time.time(), after)
        for event in past:
            await response.write(_sse(event.id, event.model_dump_json()))
        told = past[-1].id if past else 0
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    event_or_end = await queue.get()
            except TimeoutError:
                await response.write(b": still here\n\n")
                continue
            if event_or_end is None:
                break  # it read too slowly; it will come again with Last-Event-ID
            if event_or_end.id > told:
                await response.write(_sse(event_or_end.id, event_or_end.model_dump_json()))
    return response


# --- orders ----------------------------------------------------------------------------------------------------------


async def switch(request: web.Request) -> web.Response:
    wanted = await _body(request, SwitchRequest)
    name = request.match_info["name"]
    return _answer(request, await request.app[OPERATIONS].switch(name, wanted, _actor(request), _base(request)))


async def rollback(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return _answer(request, await request.app[OPERATIONS].rollback(name, _actor(request), _base(request)))


async def drain(request: web.Request) -> web.Response:
    wanted = await _body(request, DrainRequest)
    state = await request.app[OPERATIONS].drain(request.match_info["id"], wanted.force, _actor(request))
    return _answer(request, state, 200 if state.safe else 202)


async def drain_state(request: web.Request) -> web.Response:
    state = await request.app[OPERATIONS].drain_state(request.match_info["id"])
    return _answer(request, state, 200 if state.safe else 202)


async def prestop(request: web.Request) -> web.Response:
    """For a container's preStop hook, which may be unable to do more than a GET: it names itself, or just calls."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refused(403, "Foreign page", "a page of another site may not drain targets")
    subject = request.query.get("target", "") or request.remote or ""
    wait = _number(request.query.get("wait", "30"))
    state = await request.app[OPERATIONS].prestop(subject, wait, _actor(request))
    return _answer(request, state, 200 if state.safe else 202)


async def undrain(request: web.Request) -> web.Response:
    return _answer(request, await request.app[OPERATIONS].undrain(request.match_info["id"], _actor(request)))


async def weight(request: web.Request) -> web.Response:
    wanted = await _body(request, WeightRequest)
    id = request.match_info["id"]
    return _answer(request, await request.app[OPERATIONS].weight(id, wanted.weight, _actor(request)))


async def probe(request: web.Request) -> web.Response:
    return _answer(request, await request.app[OPERATIONS].probe(request.match_info["id"]))


async def reload(request: web.Request) -> web.Response:
    return _answer(request, await request.app[OPERATIONS].reload(_actor(request)))


async def upgrade(request: web.Request) -> web.Response:
    wanted = await _body(request, UpgradeRequest)
    return _answer(request, await request.app[OPERATIONS].upgrade(wanted.within, _actor(request)))


# --- requests and answers --------------------------------------------------------------------------------------------


async def _body(request: web.Request, model: type[M]) -> M:
    raw = await request.read()
    if raw and request.content_type != "application/json":
        raise Refused(415, "Unsupported media type", "the body must be application/json")
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        reasons = [
            {"where": ".".join(map(str, item["loc"])) or "body", "reason": str(item["msg"])} for item in error.errors()
        ]
        raise Refused(422, "Invalid request", "the body does not say what is wanted", reasons) from None


def _actor(request: web.Request) -> str:
    """Who asks, for the events: what the client calls itself, and from where."""
    name = request.headers.get("X-LB-Actor", "")[:64]
    return f"{name} ({request.remote})" if name.isprintable() and name else f"admin API ({request.remote})"


def _base(request: web.Request) -> int | None:
    value = request.headers.get("If-Match", "").strip()
    if not value or value == "*":
        return None
    digits = value.removeprefix("W/").strip('"')
    if not digits.isdigit():
        raise Refused(400, "Bad If-Match", "If-Match must be the ETag of an earlier answer")
    return int(digits)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refused(400, "Bad number", f"{text!r} is not a number") from None


def _answer(request: web.Request, view: BaseModel, code: int = 200) -> web.Response:
    headers = {"ETag": f'"{request.app[OPERATIONS].revision}"', "Cache-Control": "no-store"}
    return web.Response(
        status=code, body=view.model_dump_json().encode(), content_type="application/json", headers=headers
    )


def _json(request: web.Request, value: object) -> web.Response:
    return web.json_response(value, headers={"Cache-Control": "no-store"})


def _sse(id: int, data: str) -> bytes:
    return f"id: {id}\ndata: {data}\n\n".encode()


def _problem(code: int, title: str, detail: str, reasons: list[dict[str, str]] | None = None) -> web.Response:
    document: dict[str, object] = {"type": "about:blank", "title": title, "status": code, "detail": detail}
    if reasons:
        document["reasons"] = reasons
    return web.Response(
        status=code, body=json.dumps(document).encode(), headers={"Content-Type": "application/problem+json"}
    )


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return _problem(refused.status, refused.title, refused.detail, refused.reasons)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = _problem(error.status, error.reason, f"{request.method} {request.path}: {error.reason}")
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


def _guard(token: str, allowed_hosts: tuple[str, ...]) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_ours(request.host, allowed_hosts):
            return _problem(421, "Misdirected request", f"this admin port is not called {request.host!r}")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host:
            return _problem(403, "Foreign origin", "pages of other sites may not use this port")
        if token and request.path not in ("/livez", "/readyz") and not pages.is_page(request.method, request.path):
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, expected):
                response = _problem(401, "Token needed", "send Authorization: Bearer with the token of token_file")
                response.headers["WWW-Authenticate"] = 'Bearer realm="lb admin"'
                return response
        return await handler(request)

    return guard


def _is_ours(host: str, allowed: tuple[str, ...]) -> bool:
    """An address, localhost, or a name that was allowed: no name that a foreign site could bind to us."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name.lower().rstrip(".") in ("localhost", *map(str.lower, allowed)):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
