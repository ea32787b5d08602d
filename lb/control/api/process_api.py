"""The configuration that runs, and lb itself: what is read, replaced, read again, and put in the place of the old."""

from __future__ import annotations

from aiohttp import web

from lb.control.api import problems
from lb.control.api.endpoint import CONFIGURING, Answer, Endpoint
from lb.control.api.http import OPERATIONS, Body, actor, as_json, body, config_as_seen, query, send, view
from lb.control.api.problems import Rejected
from lb.control.api.views import reloaded, validation
from lb.control.models import (
    ConfigDraft,
    ConfigOrder,
    ConfigText,
    ReloadRequest,
    ReloadResult,
    UpgradeRequest,
    UpgradeResult,
    Validation,
)


async def config(request: web.Request) -> web.Response:
    query(request, ())
    operations = request.app[OPERATIONS]
    return send(request, Body(as_json(operations.config_text()), operations.config_mark))


async def validate(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, ConfigDraft)
    return view(request, validation(await request.app[OPERATIONS].validate(wanted.text)))


async def configure(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, ConfigOrder)
    if "If-Match" not in request.headers:
        raise Rejected(problems.IF_MATCH_NEEDED, "send the ETag of the configuration that the text was made from, or *")
    operations, marks = config_as_seen(request)
    return view(request, reloaded(await operations.configure(wanted, actor(request), marks)))


async def reload(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, ReloadRequest)
    operations, marks = config_as_seen(request)
    return view(request, reloaded(await operations.reload(wanted.force, actor(request), marks)))


async def upgrade(request: web.Request) -> web.Response:
    query(request, ())
    wanted = await body(request, UpgradeRequest)
    return view(request, await request.app[OPERATIONS].upgrade(wanted.within, actor(request)))


#: Why a configuration is not put in force.
RELOADING = (
    problems.FILE_INVALID,
    problems.CANNOT_LISTEN,
    problems.NO_TARGET_COULD_SERVE,
    problems.NOT_NOW,
    problems.NOT_CONFIRMED,
)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/api/v1/config", config, "getConfig", CONFIGURING,
        "configuration", "The text of the configuration that runs",
        {200: Answer("As it was loaded; the file may have been edited since.", ConfigText)},
    ),
    Endpoint(
        "PUT", "/api/v1/config", configure, "replaceConfig", CONFIGURING, "configuration",
        "Make a text the configuration",
        {200: Answer("What has changed; every worker has confirmed it.", ReloadResult)},
        "The text is taken whole or not at all: it is validated, new addresses are opened, then the file is replaced "
        "in one step (what was there stays as FILE~) and the text is in force. `If-Match` takes the ETag of "
        "`GET /api/v1/config`. A file that was edited since it was loaded is only replaced with `force`. A "
        "text that leaves a service without a target that can serve is only taken with `force_unserved`. "
        "Without a token, commands that lb runs and files that it writes can only be changed in the file itself.",
        takes=ConfigOrder, changes=True, base_needed=True,
        refusals=(problems.IF_MATCH_NEEDED, problems.TOKEN_NEEDED_FOR_COMMANDS, problems.FILE_EDITED,
                  problems.FILE_NOT_WRITTEN, *RELOADING),
    ),
    Endpoint(
        "POST", "/api/v1/config/validate", validate, "validateConfig", CONFIGURING, "configuration",
        "What a configuration text would do, or all that is wrong with it",
        {200: Answer("Its errors, or what it would change. Nothing was changed.", Validation)}, takes=ConfigDraft,
    ),
    Endpoint(
        "POST", "/api/v1/reload", reload, "reload", CONFIGURING, "configuration", "Read the file again",
        {200: Answer("What has changed; every worker has confirmed it.", ReloadResult)},
        "The file is taken whole or not at all. `If-Match` takes the ETag of `GET /api/v1/config`.",
        takes=ReloadRequest, takes_nothing_too=True, changes=True,
        refusals=RELOADING,
    ),
    Endpoint(
        "POST", "/api/v1/upgrade", upgrade, "upgrade", CONFIGURING, "configuration",
        "Put the installed code in the place of the running one",
        {200: Answer("The new lb serves; this one only ends what is under way.", UpgradeResult)},
        takes=UpgradeRequest, takes_nothing_too=True, acts=True,
        refusals=(problems.NO_UPGRADE, problems.BACKED_OUT, problems.NOT_NOW),
    ),
)  # fmt: skip
