"""The OpenAPI 3.1 document of the admin API, made from the table that the routes are made from, and from its models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lb.control.api import problems
from lb.control.api.endpoint import JSON, Answer, Endpoint, Parameter
from lb.control.api.problems import KINDS, Kind, Rejected
from lb.control.event import Event
from lb.control.models import Problem
from lb.core.roles import ROLES

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]

ABOUT = """\
Status, explanations, events and orders of one running `lb`.

* **Errors** are `application/problem+json` (RFC 9457). Their `type` is an address on this port that says what this \
kind of problem means and what to do about it.
* **Changes** take `If-Match` with the `ETag` of an earlier answer: when somebody has changed something since, the \
answer is 412, and nothing happens. Without `If-Match` the order stands as it is.
* **Events** can be streamed: `Accept: text/event-stream` on `/api/v1/events`; a client that comes again with \
`Last-Event-ID` misses none.
* **Targets** are named `service/pool/host:port`, or by any unambiguous tail of that; in a path their slashes may \
stand as they are, or as `%2F`.
* Who asks is told in the events: `X-LB-Actor` may carry a name.
"""

TOKENS = """\
The content of `admin: token_file:`, which allows everything, or of a file in `admin: tokens:`, which allows what its \
roles do. Where none is set, none is needed. `security` lists the roles of each operation, of which a token needs one.

""" + "\n".join(f"* `{role}`: {text}." for role, text in ROLES.items())

#: Answers that any operation of the API may give.
ALWAYS = (
    problems.BAD_REQUEST,
    problems.FOREIGN_ORIGIN,
    problems.FOREIGN_PAGE,
    problems.MISDIRECTED_REQUEST,
    problems.INTERNAL_ERROR,
)
WITH_QUERY = (problems.BAD_PARAMETER,)
WITH_BODY = (problems.BODY_TOO_SLOW, problems.BODY_TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE, problems.INVALID_REQUEST)
WITH_BASE = (problems.BAD_IF_MATCH, problems.BASE_OUTDATED)
WITH_TARGET = (problems.NO_SUCH_TARGET, problems.AMBIGUOUS_TARGET)

TAGS = {
    "looking": "What there is, and why.",
    "switching": "Which pool gets a service's traffic.",
    "targets": "One target.",
    "routes": "One route.",
    "configuration": "The file, and the program itself.",
    "health": "Whether lb itself is well, for monitoring.",
}


class Examples(NamedTuple):
    """Names for examples."""

    service: str
    pool: str  # one to switch to
    target: str


EXAMPLES = Examples("greeting", "green", "greeting/blue/127.0.0.1:5001")


def examples_of(names: dict[str, dict[str, list[str]]]) -> Examples | None:
    """Examples that exist, of service → pool → targets; None when there are too few."""
    for service, pools in names.items():
        targets = [id for ids in pools.values() for id in ids]
        if targets:
            return Examples(service, list(pools)[-1], targets[0])
    return None


def _in_path(examples: Examples) -> dict[str, Parameter]:
    some = {"type": "string", "minLength": 1}
    target = "The target: `service/pool/host:port`, or any ending that matches exactly one target."
    subject = "A service, a target, or the id of a request that failed, was retried, or was sampled."
    return {
        "name": Parameter("name", "The service's name.", some, examples.service),
        "pool": Parameter("pool", "The pool's name.", some, examples.pool),
        "id": Parameter("id", target, some, examples.target),
        "route": Parameter("route", "The route: its name, or its host and path.", some, "/"),
        "subject": Parameter("subject", subject, some, examples.target),
        "kind": Parameter("kind", "The last part of a problem's `type`.", some, "not-ready"),
    }


BASE = Parameter(
    "If-Match",
    "The `ETag` of an earlier answer, or `*`: the order is refused when somebody has changed something since.",
    {"type": "string", "pattern": r'^(\*|(W/)?"[0-9]{1,15}(-[0-9a-f]{1,64})?")$'},
    "*",
)


def document(endpoints: Iterable[Endpoint], version: str, secured: bool, examples: Examples = EXAMPLES) -> Json:
    """The whole document; with `secured` it says that a token is needed."""
    in_path = _in_path(examples)
    known = list(endpoints)
    schemas = _Schemas(known)
    paths: dict[str, Json] = {}
    for endpoint in known:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas, secured, in_path)
    switch = schemas.all.get("SwitchRequest", {}).get("properties", {}).get("to")
    if switch is not None:
        switch["examples"] = [examples.pool]
    said: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "lb admin API",
            "version": version,
            "summary": "Look at a running lb, and tell it what to do.",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This admin port."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.all,
            "examples": {kind.name: {"summary": kind.title, "value": _said(kind)} for kind in KINDS},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": TOKENS,
                }
            },
        },
    }
    if secured:
        said["security"] = [{"token": []}]
    return said


class _Schemas:
    """The models' schemas: of answers as they are written, of bodies as they are read."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        wanted: dict[tuple[type[BaseModel], Mode], None] = {(Problem, "serialization"): None}
        wanted[Event, "serialization"] = None
        for endpoint in endpoints:
            if endpoint.takes is not None:
                wanted[endpoint.takes, "validation"] = None
            for answer in endpoint.answers.values():
                if answer.model is not None:
                    wanted[answer.model, "serialization"] = None
        self._places, definitions = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
        self.all: Json = definitions["$defs"]

    def of(self, model: type[BaseModel], mode: Mode) -> Json:
        """Where the schema of a model is."""
        return dict(self._places[model, mode])


def _operation(endpoint: Endpoint, schemas: _Schemas, secured: bool, in_path: dict[str, Parameter]) -> Json:
    said: Json = {
        "operationId": endpoint.id,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
    }
    if endpoint.order:
        said["x-lb-order"] = True  # for the page that tries requests
    if endpoint.about:
        said["description"] = endpoint.about
    parameters = [
        _parameter(parameter, "path") for name, parameter in in_path.items() if f"{{{name}}}" in endpoint.path
    ]
    parameters += [_parameter(parameter, "query") for parameter in endpoint.query]
    parameters += [_parameter(parameter, "header") for parameter in endpoint.headers]
    if endpoint.changes:
        parameters.append(_parameter(BASE, "header", required=endpoint.base_needed))
    if parameters:
        said["parameters"] = parameters
    if endpoint.takes is not None:
        content = {JSON: {"schema": schemas.of(endpoint.takes, "validation")}}
        said["requestBody"] = {"required": not endpoint.takes_nothing_too, "content": content}
    said["responses"] = {str(code): _answer(answer, schemas) for code, answer in endpoint.answers.items()}
    if endpoint.method == "GET" and any(answer.model for answer in endpoint.answers.values()):
        said["responses"]["304"] = {"description": "Nothing has changed since the answer that If-None-Match names."}
    said["responses"] |= _refused(endpoint, schemas, secured)
    if endpoint.roles:
        said["x-lb-roles"] = list(endpoint.roles)
    if secured:
        said["security"] = [{"token": [role]} for role in endpoint.roles]
    return said


def _parameter(parameter: Parameter, place: str, required: bool = False) -> Json:
    said: Json = {
        "name": parameter.name,
        "in": place,
        "required": place == "path" or required,
        "description": parameter.text,
        "schema": parameter.schema,
    }
    if parameter.example is not None:
        said["example"] = parameter.example
    return said


def _answer(answer: Answer, schemas: _Schemas) -> Json:
    said: Json = {"description": answer.text}
    if answer.model is not None:
        schema = schemas.of(answer.model, "serialization")
        if answer.many:
            schema = {"type": "array", "items": schema}
        said["headers"] = {"ETag": {"description": "For If-Match and If-None-Match.", "schema": {"type": "string"}}}
    elif answer.media == JSON:
        schema = {"type": "object"}
    else:
        schema = {"type": "string"}
    said["content"] = {answer.media: {"schema": schema}}
    if answer.also:
        said["content"][answer.also] = {"schema": {"type": "string"}}
    return said


def kinds(endpoint: Endpoint, secured: bool = True) -> list[Kind]:
    """The kinds of refusal that an operation may be answered with."""
    found = [*ALWAYS, *endpoint.refusals]
    if secured and not endpoint.open:
        found += (problems.TOKEN_NEEDED, problems.ROLE_NEEDED)
    if endpoint.strict:
        found += WITH_QUERY
    if endpoint.takes is not None:
        found += WITH_BODY
    if endpoint.changes:
        found += WITH_BASE
    if "{id}" in endpoint.path or "{subject}" in endpoint.path:
        found += WITH_TARGET
    if "{name}" in endpoint.path:
        found.append(problems.NO_SUCH_SERVICE)
    return sorted(set(found), key=KINDS.index)


def _refused(endpoint: Endpoint, schemas: _Schemas, secured: bool) -> Json:
    by_status: dict[int, list[Kind]] = {}
    for kind in kinds(endpoint, secured):
        by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): {
            "description": "\n".join(f"* **{kind.title}**: {kind.text}" for kind in found),
            "content": {
                "application/problem+json": {
                    "schema": schemas.of(Problem, "serialization"),
                    "examples": {kind.name: {"$ref": _example(kind)} for kind in found},
                }
            },
        }
        for status, found in sorted(by_status.items())
    }


def _example(kind: Kind) -> str:
    return f"#/components/examples/{kind.name}"


def _said(kind: Kind) -> Json:
    detail = kind.text.replace("`", "")
    return problems.problem(Rejected(kind, detail)).model_dump(mode="json")
