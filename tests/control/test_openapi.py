"""The OpenAPI document: valid, complete, and about nothing that is not there."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import cast

import jsonschema
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from lb.control.access import Access
from lb.control.api import openapi, pages, problems
from lb.control.api.app import ENDPOINTS, build
from lb.control.api.problems import BY_REFUSAL, BY_STATUS, KINDS, Kind
from lb.control.operations import Operations
from lb.control.reference import API_PAGE, api_page
from lb.core.refusals import Refusal
from tests.control.conftest import Api

ROOT = Path(__file__).resolve().parents[2]


@cache
def document(secured: bool = True) -> dict:
    return json.loads(json.dumps(openapi.document(ENDPOINTS, "1.2.3", secured)))


def test_the_document_is_openapi_3_1() -> None:
    for secured in (False, True):
        said = document(secured)
        jsonschema.Draft202012Validator(OPENAPI_31).validate(said)
        for schema in said["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["description"]


def test_every_reference_leads_somewhere() -> None:
    said = document()

    def references(value: object):
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for below in value.values():
                yield from references(below)
        elif isinstance(value, list):
            for below in value:
                yield from references(below)

    for reference in references(said):
        place: object = said
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]  # type: ignore[index]


def test_every_route_is_in_the_document_and_the_reverse() -> None:
    routes = set()
    for route in build(cast("Operations", None), Access()).router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if path not in pages.pages() and route.method != "HEAD":
            routes.add((route.method.lower(), path))
    said = {(method, path) for path, operations in document()["paths"].items() for method in operations}
    assert routes == said


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.id)
def test_every_operation_says_all_about_itself(endpoint) -> None:
    operation = document()["paths"][endpoint.path][endpoint.method.lower()]
    assert operation["operationId"] == endpoint.id
    assert operation["summary"]
    assert not operation["summary"].endswith(".")
    assert operation["tags"] == [endpoint.tag]
    assert endpoint.tag in openapi.TAGS
    for parameter in operation.get("parameters", []):
        assert parameter["description"]
        assert parameter["schema"]
    for code, answer in operation["responses"].items():
        if code >= "400" and (code, endpoint.id) != ("503", "readyz"):
            schema = answer["content"]["application/problem+json"]
            assert schema["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert schema["examples"]
    changes = endpoint.method != "GET" and endpoint.tag in ("switching", "targets") and "preview" not in endpoint.path
    if changes and endpoint.id not in ("probeTarget", "postPrestop"):
        assert endpoint.changes, "orders take If-Match"
        assert "412" in operation["responses"]
    assert (operation.get("security") == []) == endpoint.open


def test_operations_have_names_of_their_own() -> None:
    assert len({endpoint.id for endpoint in ENDPOINTS}) == len(ENDPOINTS)


def test_without_a_token_none_is_asked_for() -> None:
    said = document(secured=False)
    assert "security" not in said
    assert not any("401" in o["responses"] for operations in said["paths"].values() for o in operations.values())


def test_examples_are_right_by_their_schemas() -> None:
    said = document()
    for operations in said["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if "example" in parameter:
                    jsonschema.validate(parameter["example"], parameter["schema"])
    for name, schema in said["components"]["schemas"].items():
        for field, inner in schema.get("properties", {}).items():
            for example in inner.get("examples", []):
                validator = jsonschema.Draft202012Validator({**inner, "components": said["components"]})
                assert validator.is_valid(example), (name, field)


def constants(path: Path, exception: str) -> Iterator[str]:
    """The constants that `exception` is made with in a file: `Refused(Refusal.NOT_READY, …)` → NOT_READY."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == exception:
            kind = node.args[0]
            if isinstance(kind, ast.Attribute):
                yield kind.attr


def test_every_refusal_of_operations_has_one_kind() -> None:
    assert list(BY_REFUSAL) == [kind.refusal for kind in KINDS if kind.refusal is not None], "no two of one"
    assert set(BY_REFUSAL) == set(Refusal)


def test_every_kind_is_used() -> None:
    code = list((ROOT / "lb").rglob("*.py"))
    refused = {name for path in code for name in constants(path, "Refused")} | {"FILE_INVALID"}  # `InvalidFile`
    rejected = {name for path in code for name in constants(path, "Rejected")}
    assert refused == {refusal.name for refusal in Refusal}
    own = {name for name, kind in vars(problems).items() if isinstance(kind, Kind) and kind.refusal is None}
    by_the_server = {name for name, kind in vars(problems).items() if kind in BY_STATUS.values()}
    assert own - rejected - by_the_server == set(), "these are never said"
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_the_supervisor_knows_no_status() -> None:
    """Which HTTP status a refusal has is the API's to say, and no message of the supervisor's depends on it."""
    statuses = {kind.status for kind in KINDS}
    for path in (ROOT / "lb" / "supervisor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            number = node.value if isinstance(node, ast.Constant) else None
            assert not (isinstance(number, int) and number in statuses), f"{path}:{node.lineno}"  # type: ignore[attr-defined]


def test_the_page_is_current() -> None:
    assert API_PAGE.read_text(encoding="utf-8") == api_page(), "run `make docs`"


def test_the_served_document_names_what_runs_to_those_who_may_know(guarded: Api) -> None:
    known = guarded.ask("GET", "/openapi.json").json
    stranger = guarded.ask("GET", "/openapi.json", token="").json
    text = json.dumps(known)
    assert guarded.ids["blue"][0] in text
    assert guarded.ids["blue"][0] not in json.dumps(stranger)
    assert known["security"] == stranger["security"] == [{"token": []}]
    assert known["components"]["schemas"] != {}
