"""The part of the admin API that the configuration page is made of: a text is looked at, changed, compared, merged.

Nothing here changes what runs; that is `PUT /api/v1/config`. Each answer depends on the text that was sent and on what
runs, so the page holds all the state. Work that takes long for a long text runs in a thread.
"""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import TypeVar

from aiohttp import web

from lb.config.check.figures import CheckFigures, figures
from lb.config.edit.in_place import REMOVE
from lb.config.edit.long_form import change, is_short, settings
from lb.config.edit.textdiff import difference, merge
from lb.config.edit.yaml_cst import Unwritable
from lb.config.load import load_text
from lb.config.output.schema import schema
from lb.config.resolve import resolve
from lb.config.yaml.problems import ConfigError
from lb.control.api import problems
from lb.control.api.draft_models import (
    ChangedText,
    CheckFiguresView,
    DifferenceLine,
    Draft,
    MergedText,
    MergeRequest,
    ServiceFiguresView,
    SettingChange,
)
from lb.control.api.endpoint import CONFIGURING, LOOKING, Answer, Endpoint
from lb.control.api.http import OPERATIONS, Body, body, query, send, view
from lb.control.api.problems import Rejected
from lb.control.api.views import validation
from lb.control.models import ConfigDraft, Validation
from lb.core.detection import formula

#: Targets of one kind of check that are named.
NAMED = 20

M = TypeVar("M", bound=ConfigDraft)


async def draft(request: web.Request) -> web.Response:
    wanted = await _wanted(request, ConfigDraft)
    operations = request.app[OPERATIONS]
    found = validation(await operations.validate(wanted.text))
    running = operations.config_text().text
    return view(request, await asyncio.to_thread(_draft, wanted.text, running, found))


async def edit(request: web.Request) -> web.Response:
    wanted = await _wanted(request, SettingChange)
    value = REMOVE if wanted.value is None else wanted.value
    try:
        changed = await asyncio.to_thread(_changed, wanted, value)
    except Unwritable as error:
        raise Rejected(problems.CANNOT_BE_CHANGED, str(error)) from None
    return view(request, changed)


def _changed(wanted: SettingChange, value: object) -> ChangedText:
    """Raises `Unwritable`."""
    text = change(wanted.text, tuple(wanted.path), value)
    return ChangedText(text=text, written_out=is_short(wanted.text) and not is_short(text))


async def merged(request: web.Request) -> web.Response:
    wanted = await _wanted(request, MergeRequest)
    running = request.app[OPERATIONS].config_text().text
    found = await asyncio.to_thread(merge, wanted.base, wanted.text, running)
    return view(request, MergedText(text=found.text, conflicts=found.conflicts))


async def described(request: web.Request) -> web.Response:
    query(request, ())
    return send(request, _schema())


async def _wanted(request: web.Request, model: type[M]) -> M:
    query(request, ())
    return await body(request, model)


@cache
def _schema() -> Body:
    return Body(json.dumps(schema(), ensure_ascii=False).encode())


def _draft(text: str, running: str, validated: Validation) -> Draft:
    found = Draft(
        **{name: getattr(validated, name) for name in Validation.model_fields},
        difference=[
            DifferenceLine(sign=line.sign, old=line.old, new=line.new, text=line.text)
            for line in difference(running, text)
        ],
    )
    try:
        found.settings = settings(text)
    except Unwritable as error:
        found.unreadable = str(error)
    if validated.ok:
        found.services = _figures(text)
    return found


def _figures(text: str) -> list[ServiceFiguresView]:
    try:
        world = resolve(load_text(text), 0)
    except ConfigError:
        return []  # the environment has changed since it was found valid
    return [
        ServiceFiguresView(
            name=service.name,
            probes=service.probes,
            checks=[
                *(_check("readiness", check) for check in service.readiness),
                *(_check("liveness", check) for check in service.liveness),
            ],
        )
        for service in figures(world)
    ]


def _check(kind: str, found: CheckFigures) -> CheckFiguresView:
    time = found.detection
    return CheckFiguresView(
        kind="readiness" if kind == "readiness" else "liveness",
        protocol=found.spec.protocol,
        targets=list(found.targets[:NAMED]),
        count=len(found.targets),
        interval=found.spec.interval,
        worst=time.worst if time is not None else None,
        expected=time.expected if time is not None else None,
        recovery=time.recovery if time is not None else None,
        formula=formula(found.spec) if time is not None else "",
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/api/v1/config/schema", described, "getConfigSchema", (*LOOKING, *CONFIGURING), "configuration",
        "The JSON Schema of a configuration file", {200: Answer("Draft 2020-12, as `lb schema` prints it.")},
    ),
    Endpoint(
        "POST", "/api/v1/config/draft", draft, "lookAtDraft", CONFIGURING, "configuration",
        "All about a configuration text: errors, difference, settings, detection times",
        {200: Answer("What it says and would do. Nothing was changed.", Draft)}, takes=ConfigDraft,
    ),
    Endpoint(
        "POST", "/api/v1/config/edit", edit, "editDraft", CONFIGURING, "configuration",
        "Change one setting of a configuration text where it stands",
        {200: Answer("The text with the change: comments, order and quotes of the rest as they were.", ChangedText)},
        "Nothing is applied, and what runs does not matter. Shorthands are written out where they have no room for the "
        "setting. What an alias or a merge brings in is refused.",
        takes=SettingChange, refusals=(problems.CANNOT_BE_CHANGED,),
    ),
    Endpoint(
        "POST", "/api/v1/config/merge", merged, "mergeDraft", CONFIGURING, "configuration",
        "Bring changes of an older configuration together with what runs now",
        {200: Answer("The text with both. Nothing was changed.", MergedText)}, takes=MergeRequest,
    ),
)  # fmt: skip
