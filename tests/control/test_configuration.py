"""What the configuration page asks of the API: drafts, edits, merges, the schema. Nothing of it changes what runs."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.control.conftest import Api


def running(api: Api) -> str:
    return str(api.ask("GET", "/api/v1/config").json["text"])


def draft(api: Api, text: str) -> Any:
    answer = api.ask("POST", "/api/v1/config/draft", {"text": text})
    assert answer.status == 200, answer.body
    return answer.json


def test_a_draft_says_what_it_is_and_what_it_would_do(guarded: Api) -> None:
    text = running(guarded)
    same = draft(guarded, text)
    assert (same["ok"], same["problems"], same["changes"], same["difference"]) == (True, [], [], [])
    greeting = same["settings"]["services"]["greeting"]
    assert greeting["readiness"]["interval"] == "200ms"
    assert [len(pool["targets"]) for pool in greeting["pools"].values()] == [2, 1, 1]
    slower = draft(guarded, text.replace("interval: 200ms", "interval: 2s"))
    assert any("readiness.interval: 200ms → 2s" in line for line in slower["changes"])
    [interval] = [change for change in slower["plan"] if change["field"] == "readiness.interval"]
    assert (interval["kind"], interval["what"], interval["service"]) == ("change", "setting", "greeting")
    assert (interval["old"], interval["new"]) == ("200ms", "2s")
    assert len(slower["plan"]) == len(slower["changes"])
    assert {line["sign"] for line in slower["difference"]} == {"+", "-", " ", "…"}
    [check] = slower["services"][0]["checks"]
    assert (check["kind"], check["count"], check["worst"], check["formula"]) == ("readiness", 4, 6.5, "2 + 2 × 2 + 0.5")
    assert draft(guarded, text)["difference"] == []  # nothing has changed


def test_a_draft_with_errors_still_fills_the_forms(guarded: Api) -> None:
    text = running(guarded)
    wrong = draft(guarded, text.replace("timeout: 500ms", "timeout: 5"))
    assert not wrong["ok"]
    [problem] = wrong["problems"]
    assert problem["path"] == "services.greeting.readiness.timeout"
    assert text.splitlines()[problem["line"] - 1].strip().startswith("readiness:")
    assert problem["hint"]
    assert problem["hints"] == problem["hint"].splitlines()
    assert wrong["settings"]["services"]["greeting"]["readiness"]["timeout"] == "5"
    assert wrong["services"] == []
    broken = draft(guarded, "services: {greeting: [\n")
    assert broken["settings"] is None
    assert broken["unreadable"]
    assert broken["problems"]


def edit(api: Api, text: str, path: list[str | int], value: Any) -> Any:
    return api.ask("POST", "/api/v1/config/edit", {"text": text, "path": path, "value": value})


def test_a_setting_is_edited_in_its_place(guarded: Api) -> None:
    text = running(guarded)
    path = ["services", "greeting", "readiness", "interval"]
    assert edit(guarded, text, path, "2s").json["text"] == text.replace("interval: 200ms", "interval: 2s")
    assert edit(guarded, text, path, None).json["text"] == text.replace("interval: 200ms, ", "")
    assert running(guarded) == text


def test_an_edit_says_when_the_short_form_was_written_out(guarded: Api) -> None:
    text = "backends: [http://127.0.0.1:5001]\n"
    room = edit(guarded, text, ["services", "default", "readiness"], "/health").json
    assert (room["text"].startswith("backends:"), room["written_out"]) == (True, False)
    none = edit(guarded, text, ["services", "default", "outlier", "consecutive_errors"], 7).json
    assert (none["text"].startswith("services:"), none["written_out"]) == (True, True)
    again = edit(guarded, none["text"], ["services", "default", "readiness"], "/health").json
    assert again["written_out"] is False


def test_the_answer_of_an_edit_can_be_sent_on_as_it_is(guarded: Api) -> None:
    """Scripts do so: an answer that gains a field must not break them."""
    answer = edit(guarded, running(guarded), ["services", "greeting", "readiness", "interval"], "2s").json
    assert guarded.ask("POST", "/api/v1/config/draft", answer).status == 200
    assert guarded.ask("POST", "/api/v1/config/validate", answer).status == 200


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x-c: &c {interval: 2s}\nservices: {a: {pools: {b: ['http://h:1']}, readiness: *c}}\n", "change it there"),
        ("services: {a: [\n", "is not YAML"),
        ("services: 5\n", "single value"),
    ],
)
def test_what_cannot_be_edited_is_refused_with_the_reason(guarded: Api, text: str, why: str) -> None:
    answer = edit(guarded, text, ["services", "a", "readiness", "interval"], "5s")
    assert (answer.status, answer.json["type"]) == (422, "/problems/cannot-be-changed-from-here")
    assert why in answer.json["detail"]


def test_changes_of_an_older_text_are_merged_into_what_runs(guarded: Api) -> None:
    text = running(guarded)
    older = text.replace("state_dir: ./state\n", "")
    merged = guarded.ask("POST", "/api/v1/config/merge", {"base": older, "text": f"# mine\n{older}"})
    assert (merged.status, merged.json) == (200, {"text": f"# mine\n{text}", "conflicts": 0})
    both = guarded.ask("POST", "/api/v1/config/merge", {"base": "a\n", "text": "b\n"})
    assert both.json["conflicts"] == 1
    assert "# running now: services:\n" in both.json["text"]


def test_the_schema_is_that_of_the_file(guarded: Api) -> None:
    answer = guarded.ask("GET", "/api/v1/config/schema")
    assert answer.status == 200
    jsonschema.Draft202012Validator.check_schema(answer.json)
    assert answer.json["$defs"]["Readiness"]["properties"]["interval"]["default"] == "2s"


@pytest.mark.parametrize("place", ["draft", "edit", "merge", "schema"])
def test_without_the_token_nothing_is_said(guarded: Api, place: str) -> None:
    method = "GET" if place == "schema" else "POST"
    assert guarded.ask(method, f"/api/v1/config/{place}", None if method == "GET" else {}, token="wrong").status == 401
