"""The admin API by its answers: problems, conditions, previews, orders and what the events say about them."""

from __future__ import annotations

import asyncio
import gzip
import json

import jsonschema
import pytest
from aiohttp import web

from lb.control.api import http, problems
from lb.control.api.problems import BY_NAME, Rejected
from lb.control.models import SwitchRequest
from tests.control.conftest import Api

ORDERS = [
    ("POST", "/api/v1/services/greeting/switch", {"to": "green"}),
    ("POST", "/api/v1/services/greeting/rollback", None),
    ("POST", "/api/v1/targets/{id}/drain", {}),
    ("POST", "/api/v1/targets/{id}/undrain", None),
    ("PUT", "/api/v1/targets/{id}/weight", {"weight": 7}),
]


def problem(answer) -> dict:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.body
    found = answer.json
    kind = BY_NAME[found["type"].removeprefix("/problems/")]
    assert (found["status"], found["title"]) == (answer.status, kind.title) == (kind.status, kind.title)
    assert found["detail"]
    return found


# --- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "kind"),
    [
        ("GET", "/nothing", None, {}, 404, "not-found"),
        ("GET", "/api/v1/services/nothing", None, {}, 404, "no-such-service"),
        ("GET", "/api/v1/targets/nothing", None, {}, 404, "no-such-target"),
        ("POST", "/api/v1/services/greeting/switch", {"to": "nothing"}, {}, 404, "no-such-pool"),
        ("DELETE", "/api/v1/status", None, {}, 405, "method-not-allowed"),
        ("PUT", "/api/v1/targets/{id}/weight", b"{}", {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        ("POST", "/api/v1/services/greeting/switch", b"x", {"Content-Encoding": "gzip"}, 415, "unsupported-media-type"),
        ("POST", "/api/v1/config/validate", b"x" * (5 << 20), {}, 413, "body-too-large"),
        ("POST", "/api/v1/services/greeting/switch", b"{", {}, 422, "invalid-request"),
        ("POST", "/api/v1/services/greeting/switch", {"to": "green", "force": "yes"}, {}, 422, "invalid-request"),
        ("POST", "/api/v1/services/greeting/switch", {"to": "green", "steps": [50, 5]}, {}, 422, "invalid-request"),
        ("POST", "/api/v1/services/greeting/switch", {"to": "green", "more": 1}, {}, 422, "invalid-request"),
        ("PUT", "/api/v1/targets/{id}/weight", {"weight": -1}, {}, 422, "invalid-request"),
        ("POST", "/api/v1/services/greeting/switch", {"to": "red"}, {}, 409, "not-ready"),
        ("POST", "/api/v1/services/greeting/rollback", None, {}, 409, "nothing-to-roll-back-to"),
        ("POST", "/api/v1/services/greeting/switch", {"to": "green"}, {"If-Match": "x"}, 400, "bad-if-match"),
        ("POST", "/api/v1/services/greeting/switch", {"to": "green"}, {"If-Match": ""}, 400, "bad-if-match"),
        ("PUT", "/api/v1/config", {"text": "x"}, {}, 428, "if-match-needed"),
        ("PUT", "/api/v1/config", {"text": "x: ["}, {"If-Match": "*"}, 422, "the-file-is-invalid"),
        ("GET", "/api/v1/status?x=1", None, {}, 400, "bad-parameter"),
        ("GET", "/api/v1/events?limit=0", None, {}, 400, "bad-parameter"),
        ("GET", "/api/v1/events?limit=1&limit=2", None, {}, 400, "bad-parameter"),
        ("GET", "/api/v1/events?since=nan", None, {}, 400, "bad-parameter"),
        ("GET", "/api/v1/events?since=1_0", None, {}, 400, "bad-parameter"),
        ("GET", "/api/v1/events?since=1e999", None, {}, 400, "bad-parameter"),
        ("GET", "/api/v1/events", None, {"Last-Event-ID": "x"}, 400, "bad-parameter"),
        ("GET", "/api/v1/prestop?wait=601", None, {}, 400, "bad-parameter"),
        ("GET", "/problems/nothing", None, {}, 404, "not-found"),
    ],
)  # fmt: skip
def test_every_refusal_is_a_problem_of_a_known_kind(
    shared: Api, method: str, path: str, body: object, headers: dict[str, str], status: int, kind: str
) -> None:
    answer = shared.ask(method, path.format(id=shared.ids["blue"][0]), body, headers)
    assert (answer.status, problem(answer)["type"]) == (status, f"/problems/{kind}")


def test_a_problem_s_type_can_be_looked_up(shared: Api) -> None:
    found = problem(shared.ask("POST", "/api/v1/services/greeting/switch", {"to": "red"}))
    assert found["reasons"] == [
        {"target": "greeting/red/127.0.0.1:1", "where": None, "reason": found["reasons"][0]["reason"]}
    ]
    explained = shared.ask("GET", found["type"])
    assert explained.status == 200
    assert b"min_ready" in explained.body


def test_405_says_what_can_be_done(shared: Api) -> None:
    id = shared.ids["blue"][0]
    for path, allowed in (
        ("/api/v1/status", {"GET", "HEAD"}),
        (f"/api/v1/targets/{id}", {"GET", "HEAD"}),
        (f"/api/v1/targets/{id}/drain", {"GET", "HEAD", "POST"}),
        (f"/api/v1/targets/{id}/weight", {"PUT"}),
        ("/api/v1/config", {"GET", "HEAD", "PUT"}),
        ("/api/v1/prestop", {"GET", "POST"}),
    ):
        answer = shared.ask("PATCH", path)
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(",")) == allowed, path


# --- conditions and compression --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "body"), ORDERS)
def test_an_order_based_on_something_old_is_refused(shared: Api, method: str, path: str, body: object) -> None:
    path = path.format(id=shared.ids["blue"][0])
    revision = shared.ask("GET", "/api/v1/status").json["revision"]
    answer = shared.ask(method, path, body, {"If-Match": f'"{revision + 1}"'})
    assert answer.status == 412
    assert f"now it is {revision}" in problem(answer)["detail"]
    assert shared.ask("GET", "/api/v1/status").json["revision"] == revision


def test_every_change_makes_older_views_old(own: Api) -> None:
    id = own.ids["blue"][0]
    seen = own.ask("GET", "/api/v1/services/greeting").headers["ETag"]
    for method, path, body in [
        *ORDERS[:2],
        ("POST", "/api/v1/services/greeting/switch", {"to": "green"}),
        ("POST", "/api/v1/services/greeting/switch", {"to": "blue"}),
        *ORDERS[2:],
        ("PUT", "/api/v1/targets/{id}/weight", {"weight": 1}),
    ]:
        done = own.ask(method, path.format(id=id), body, {"If-Match": f'"999", {seen}'})
        assert done.status in (200, 202), done.body
        assert done.headers["ETag"].partition("-")[0] != seen.partition("-")[0]
        late = own.ask(method, path.format(id=id), body, {"If-Match": seen})
        assert late.status == 412
        assert "the last change: greeting" in problem(late)["detail"]
        seen = done.headers["ETag"]


def test_what_has_not_changed_is_not_sent_again(shared: Api) -> None:
    for path in ("/openapi.json", "/api/v1/config", "/api/v1/config/schema", "/api/v1/events?kind=drain"):
        first = shared.ask("GET", path)
        tag = first.headers["ETag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            again = shared.ask("GET", path, headers={"If-None-Match": known})
            assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag), path
        assert shared.ask("GET", path, headers={"If-None-Match": '"0-0"'}).body == first.body


def test_long_answers_are_compressed_for_those_who_can_read_it(shared: Api) -> None:
    plain = shared.ask("GET", "/openapi.json", headers={"Accept-Encoding": "identity"})
    packed = shared.ask("GET", "/openapi.json", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    refused = shared.ask("GET", "/openapi.json", headers={"Accept-Encoding": "gzip;q=0, br"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(packed.body) == plain.body == refused.body
    assert packed.headers["ETag"] == f"W/{plain.headers['ETag']}", "other bytes"
    assert len(packed.body) < len(plain.body) / 4


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_TIME", 0.1)
    refused: list[Rejected] = []

    async def take(request: web.Request) -> web.Response:
        try:
            await http.body(request, SwitchRequest)
        except Rejected as reason:
            refused.append(reason)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, lingering_time=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
    async with asyncio.timeout(20):
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await runner.cleanup()
    assert [each.kind for each in refused] == [problems.BODY_TOO_SLOW]


# --- previews --------------------------------------------------------------------------------------------------------


def test_previews_say_what_would_happen_and_change_nothing(shared: Api) -> None:
    id = shared.ids["blue"][0]
    before, events = (
        shared.ask("GET", "/api/v1/status").json["revision"],
        len(shared.events("?kind=switch,drain,weight")),
    )

    def preview(path: str, body: object = None) -> dict:
        answer = shared.ask("POST", f"/api/v1/{path}/preview", body)
        assert answer.status == 200, answer.body
        return answer.json

    at_once = preview("services/greeting/switch", {"to": "green"})
    assert at_once["allowed"]
    assert "go to green at once" in at_once["lines"][0]
    stepwise = preview("services/greeting/switch", {"to": "green", "steps": [5, 100], "step_time": "90s"})
    assert "5 %, 100 %" in stepwise["lines"][0]
    assert "90s" in stepwise["lines"][0]
    assert "already" in preview("services/greeting/switch", {"to": "blue"})["lines"][0]
    refused = preview("services/greeting/switch", {"to": "red"})
    assert not refused["allowed"]
    assert refused["forcible"]
    assert refused["refusal"]["type"] == "/problems/not-ready"
    assert "go to red at once" in refused["lines"][0]
    assert refused["changes"][-1]["kind"] == "unserved"
    assert refused["lines"][-1] == "no target of red can serve: its clients get 503"
    assert preview("services/greeting/rollback")["refusal"]["type"] == "/problems/nothing-to-roll-back-to"
    for each in (at_once, stepwise, refused):
        assert [change["text"] for change in each["changes"]] == each["lines"]
        assert {change["service"] for change in each["changes"]} == {"greeting"}
    share = {"kind": "share", "service": "greeting", "pool": "green", "field": "share", "new": "5,100"}
    assert share.items() <= stepwise["changes"][0].items()
    drained = preview(f"targets/{id}/drain")
    assert drained["allowed"]
    assert shared.ids["blue"][1] in drained["lines"][1]
    assert "is not drained" in preview(f"targets/{id}/undrain")["lines"][0]
    heavier = preview(f"targets/{id}/weight", {"weight": 3})
    assert "about 75%" in heavier["lines"][0]
    share = {"kind": "share", "target": id, "pool": "blue", "field": "share", "old": "50", "new": "75"}
    assert share.items() <= heavier["changes"][0].items()
    assert "no new request" in preview(f"targets/{id}/weight", {"weight": 0})["lines"][0]
    assert "already" in preview(f"targets/{id}/weight", {"weight": 1})["lines"][0]
    assert shared.ask("GET", "/api/v1/status").json["revision"] == before
    assert len(shared.events("?kind=switch,drain,weight")) == events


def test_a_rollout_under_way_is_described_and_foreseen(own: Api) -> None:
    """What schemathesis hardly ever meets: answers with a rollout in them fit their schema, too."""
    wanted = {"to": "green", "steps": [5, 100], "step_time": "60s"}
    assert own.ask("POST", "/api/v1/services/greeting/switch", wanted).status == 200
    assert own.ask("POST", f"/api/v1/targets/{own.ids['blue'][1]}/drain", {}).status in (200, 202)
    said = own.ask("GET", "/openapi.json").json
    for path, name in (
        ("/api/v1/status", "Status"),
        ("/api/v1/services/greeting", "ServiceView"),
        (f"/api/v1/targets/{own.ids['blue'][1]}", "TargetView"),
        (f"/api/v1/targets/{own.ids['blue'][1]}/drain", "DrainState"),
        ("/api/v1/explain/greeting", "Explanation"),
    ):
        schema = {"$ref": f"#/components/schemas/{name}", "components": said["components"]}
        jsonschema.validate(own.ask("GET", path).json, schema, jsonschema.Draft202012Validator)
    explained = own.ask("GET", "/api/v1/explain/greeting").json
    assert (explained["summary"], explained["predicate"]) == ("greeting is served", "is served")
    rollout = own.ask("GET", "/api/v1/services/greeting").json["rollout"]
    assert (rollout["from"], rollout["to"], rollout["share"], rollout["phase"]) == ("blue", "green", 5, "stepping")

    def preview(what: str, body: object = None) -> dict:
        found: dict = own.ask("POST", f"/api/v1/services/greeting/{what}/preview", body).json
        return found

    assert "all new requests go to blue at once" in preview("rollback")["lines"][0]
    assert "all new requests go to blue at once" in preview("switch", {"to": "blue"})["lines"][0]
    assert "green gets all requests at once" in preview("switch", {"to": "green"})["lines"][0]
    again = preview("switch", {"to": "green", "steps": [50, 100]})
    assert again["refusal"]["type"] == "/problems/a-rollout-is-under-way"
    assert not again["forcible"]
    for what, active in (("rollback", "blue"), ("switch", "green")):
        body = {"to": "green"} if what == "switch" else None
        assert own.ask("POST", f"/api/v1/services/greeting/{what}", body).json["active"] == active


# --- audit -----------------------------------------------------------------------------------------------------------


def test_every_order_is_told_with_who_when_before_and_after(own: Api) -> None:
    id = own.ids["blue"][0]
    began = own.ask("GET", "/api/v1/status").json["started_at"]
    for method, path, body, kind, before, after in [
        ("POST", "/api/v1/services/greeting/switch", {"to": "green"}, "switch", "blue", "green"),
        ("POST", "/api/v1/services/greeting/rollback", None, "switch", "green", "blue"),
        ("POST", f"/api/v1/targets/{id}/drain", {}, "drain", "in service", "drained"),
        ("POST", f"/api/v1/targets/{id}/undrain", None, "drain", "drained", "in service"),
        ("PUT", f"/api/v1/targets/{id}/weight", {"weight": 3}, "weight", "1", "3"),
        ("POST", "/api/v1/reload", None, "reload", None, None),
    ]:
        last = own.events()[-1]["id"]
        assert own.ask(method, path, body, {"X-LB-Actor": "alice"}).status in (200, 202)
        [event, *_] = own.events(f"?after={last}&kind={kind}")
        assert event["actor"] == "alice (127.0.0.1)"
        assert event["at"] > began
        assert event["before"] == (before or event["after"]), event
        assert event["after"] == (after or event["after"]) != "", event
        assert event["change_unsaid"] == (kind == "drain"), event
        assert event["service"] == ("" if kind == "reload" else "greeting")
        assert event["target"] == (id if id in path else "")
    assert {event["cause"] for event in own.events("?kind=transition") if event["after"] == "drained"} <= {"emptied"}
    assert {event["cause"] for event in own.events("?kind=transition") if event["after"] == "ready"} == {
        "passed",
        "undrain",
    }
    own.ask("POST", "/api/v1/services/greeting/switch", {"to": "red"}, {"X-LB-Actor": "bob"})
    refused = own.events("?kind=switch")[-1]
    assert refused["text"].startswith("to red refused: 0 of 1")
    assert refused["actor"] == "bob (127.0.0.1)"
    hostile = own.ask("POST", "/api/v1/reload", headers={"X-LB-Actor": "x" * 1000})
    assert hostile.status == 200
    assert own.events("?kind=reload")[-1]["actor"] == f"{'x' * 64} (127.0.0.1)"


def test_an_order_that_changes_nothing_is_confirmed_at_once(shared: Api) -> None:
    id = shared.ids["red"][0]
    for _ in range(2):
        assert shared.ask("PUT", f"/api/v1/targets/{id}/weight", {"weight": 1}).status == 200
    assert shared.ask("POST", f"/api/v1/targets/{id}/drain", {}).status in (200, 202)
    assert shared.ask("POST", f"/api/v1/targets/{id}/undrain").status == 200


def test_events_can_be_chosen(own: Api) -> None:
    first, second = own.ids["blue"]
    for id in (first, second):
        own.ask("PUT", f"/api/v1/targets/{id}/weight", {"weight": 3})
    everything = own.events()
    assert own.events("?limit=2") == everything[-2:]
    assert {event["kind"] for event in own.events("?kind=weight,transition")} == {"weight", "transition"}
    assert [event["subject"] for event in own.events("?kind=weight")] == [first, second]
    assert [event["subject"] for event in own.events(f"?kind=weight&subject={second}")] == [second]
    assert len(own.events("?kind=weight&subject=greeting/blue")) == 2
    assert own.events("?kind=weight&subject=greet") == []
    last = everything[-1]
    assert own.events(f"?after={last['id']}") == []
    assert own.events(f"?since={last['at']}") == [last]
    assert [json.dumps(event) for event in everything] == [json.dumps(event) for event in own.events("?after=0")]
