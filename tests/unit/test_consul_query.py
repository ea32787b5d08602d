"""Blocking queries of Consul as plain values: what is asked, which index comes next, what an answer's fields say."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.config.model.discovery import Consul
from lb.discovery.consul_query import START, Said, longest_wait, next_index, said_of, target_of
from lb.discovery.source import NoAnswer

ONE = json.dumps([{"Node": {"Node": "n"}, "Service": {"ID": "web-1", "Address": "10.0.0.1", "Port": 80}}]).encode()


def settings(**more: Any) -> Consul:
    return Consul.model_validate({"service": "web", **more})


def asked(index: int = START, **more: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(target_of(settings(**more), index)).query, keep_blank_values=True)


def said(raw: bytes = ONE, fields: dict[str, str] | None = None, *, token: bool = False, **more: Any) -> Said:
    return said_of(settings(**more), START, {"X-Consul-Index": "7"} if fields is None else fields, raw, token)


def test_each_setting_is_a_parameter() -> None:
    assert asked() == {}
    assert asked(tags=["a", "b"]) == {"tag": ["a", "b"]}
    expression = 'Service.Meta.color == "blue+green"'
    assert asked(filter=expression) == {"filter": [expression]}
    assert asked(datacenter="north") == {"dc": ["north"]}
    assert asked(namespace="shop") == {"ns": ["shop"]}
    assert asked(partition="east") == {"partition": ["east"]}
    assert asked(stale=True) == {"stale": [""]}
    assert asked(7, wait="1m") == {"index": ["7"], "wait": ["60000ms"]}


def test_a_service_s_name_is_one_part_of_the_path() -> None:
    assert target_of(settings(service="a/../b c"), START).startswith("/v1/health/service/a%2F..%2Fb%20c?")


def test_an_answer_may_be_a_sixteenth_later_than_the_wait() -> None:
    assert longest_wait(settings(wait="32s")) == 34.0


@pytest.mark.parametrize(
    ("before", "index", "after"),
    [
        (0, "7", 7),
        (7, "8", 8),
        (7, "7", 7),
        (7, "6", 0),  # restored from a snapshot
        (7, "0", 0),
        (7, None, 0),
        (0, "0", 0),
        (0, "", 0),
        (0, "-5", 0),
        (0, "x", 0),
        (0, "7.5", 0),
        (0, "٣", 0),
        (0, "9" * 5000, 0),
        (0, str(2**64 - 1), 2**64 - 1),
    ],
)
def test_the_next_index(before: int, index: str | None, after: int) -> None:
    assert next_index(before, {} if index is None else {"X-Consul-Index": index}) == after


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_an_index_that_is_asked_for_is_never_one_that_went_back(indexes: list[int]) -> None:
    before = START
    for index in indexes:
        after = next_index(before, {"X-Consul-Index": str(index)})
        assert after in (START, index)
        assert after == START or after >= before
        before = after


@given(st.text(), st.integers(0, 2**64 - 1))
def test_no_field_breaks_the_index(text: str, before: int) -> None:
    assert next_index(before, {"X-Consul-Index": text}) >= START


def test_an_answer_has_its_index_and_its_instances() -> None:
    heard = said(scheme="https")
    assert heard.index == 7 and heard.answer.problems == ()
    assert [each.url for each in heard.answer.found] == ["https://10.0.0.1:80"]


def test_no_instance_is_an_answer_that_says_so() -> None:
    assert said(b"[]").answer.problems == ("Consul knows no instance of web",)
    assert said(b"[]", tags=["a"]).answer.problems == ("Consul knows no such instance of web",)
    denied = {"X-Consul-Default-ACL-Policy": "deny"}
    assert "because lb shows no token" in said(b"[]", denied).answer.problems[0]
    assert "token" not in said(b"[]", denied, token=True).answer.problems[0]


def test_instances_that_are_hidden_from_the_token_are_told_and_none_at_all_is_no_answer() -> None:
    hidden = {"X-Consul-Results-Filtered-By-ACLs": "true"}
    assert said(ONE, hidden, token=True).answer.problems[0].startswith("instances are hidden from lb's token")
    with pytest.raises(NoAnswer, match="hides all instances from lb's token"):
        said(b"[]", hidden, token=True)


def test_a_server_without_a_leader_is_told_where_any_may_answer() -> None:
    cut_off = {"X-Consul-KnownLeader": "false"}
    assert "it may be old" not in str(said(ONE, cut_off).answer.problems)
    assert said(ONE, cut_off, stale=True).answer.problems == (
        "the server that has answered knows no leader: its answer may be old",
    )
    assert said(ONE, {"X-Consul-KnownLeader": "true"}, stale=True).answer.problems == ()


def test_instances_with_a_warning_are_left_out_where_the_settings_say_so() -> None:
    entry = json.loads(ONE)
    entry[0]["Checks"] = [{"CheckID": "c", "Status": "warning"}]
    raw = json.dumps(entry).encode()
    assert len(said(raw).answer.found) == 1 and said(raw, warning=False).answer.found == ()


def test_what_is_no_list_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match=r"http://127\.0\.0\.1:8500: its list of instances cannot be read"):
        said(b"<html>")
