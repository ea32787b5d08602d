"""Instances of Consul as plain values: which of them are named, at which address, with which weight."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.membership import Answer
from lb.discovery.consul_entries import (
    Check,
    Entry,
    Instance,
    Node,
    Weights,
    answer_of,
    priority,
    read_entries,
)

NODE_MAINTENANCE = Check("_node_maintenance", "critical")


def own(status: str) -> Check:
    return Check("service:web-1", status)


def maintenance(id: str = "web-1") -> Check:
    return Check(f"_service_maintenance:{id}", "critical")


def entry(id: str = "web-1", *checks: Check, address: str = "10.0.0.1", port: int = 80, **more: Any) -> Entry:
    return Entry(Node("node-1", "10.9.9.9"), Instance(id, address, port, **more), list(checks) or [own("passing")])


def answer(*entries: Entry, warning: bool = True) -> Answer:
    return answer_of(entries, "http", warning)


@pytest.mark.parametrize(
    ("checks", "level", "without_warnings"),
    [
        ([], 0, 0),
        ([own("passing")], 0, 0),
        ([own("warning")], 0, None),
        ([own("critical")], None, None),
        ([own("passing"), Check("serfHealth", "critical")], None, None),  # its node is gone
        ([own("unknown")], None, None),
        ([own("passing"), maintenance()], 1, 1),
        ([own("passing"), NODE_MAINTENANCE], 1, 1),
        ([own("warning"), maintenance()], 1, None),
        ([own("critical"), maintenance()], None, None),
        ([NODE_MAINTENANCE, maintenance()], 1, 1),
    ],
)
def test_the_worst_check_says_whether_an_instance_is_named(
    checks: list[Check], level: int | None, without_warnings: int | None
) -> None:
    assert priority(checks, warning=True) == level
    assert priority(checks, warning=False) == without_warnings


def test_an_instance_without_an_address_is_at_its_node_s() -> None:
    found = answer(entry(address=""), entry("six", address="fd00::1"), entry("named", address="web.internal")).found
    assert [(each.address, each.url, each.name) for each in found] == [
        ("10.9.9.9:80", "http://10.9.9.9:80", "web-1 on node-1"),
        ("[fd00::1]:80", "http://[fd00::1]:80", "six on node-1"),
        ("web.internal:80", "http://web.internal:80", "named on node-1"),
    ]


def test_an_instance_in_maintenance_stands_by_and_says_so() -> None:
    (found,) = answer(entry("web-1", own("passing"), maintenance())).found
    assert (found.priority, found.name) == (1, "web-1 on node-1 (maintenance)")


@pytest.mark.parametrize(
    ("weights", "meta", "status", "weight"),
    [
        (None, None, "passing", 1),
        (Weights(5, 2), None, "passing", 5),
        (Weights(5, 2), None, "warning", 2),
        (Weights(5, 0), {}, "warning", 0),
        (Weights(5, 2), {"lb_weight": "7"}, "warning", 7),
        (Weights(5, 2), {"lb_weight": "0"}, "passing", 0),
    ],
)
def test_the_weight_is_that_of_its_state_or_of_its_meta(
    weights: Weights | None, meta: dict[str, str] | None, status: str, weight: int
) -> None:
    (found,) = answer(entry("web-1", own(status), weights=weights, meta=meta)).found
    assert found.weight == weight


def test_weights_that_are_too_large_are_divided_together() -> None:
    given = [Weights(65535), Weights(6553), Weights(1), Weights(0)]
    found = answer(*(entry(f"web-{i}", address=f"10.0.0.{i}", weights=each) for i, each in enumerate(given))).found
    assert [each.weight for each in found] == [1000, 100, 1, 0]


def test_the_meta_names_the_path_of_a_check() -> None:
    (found,) = answer(entry(meta={"lb_check": "/ready"})).found
    assert json.loads(found.settings) == {"readiness": {"path": "/ready"}}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (entry("bad", port=0), "it was registered without a port"),
        (entry("bad", address="a b"), "'a b:80' is not an address"),
        (entry("bad", port=70000), "70000"),
        (entry("bad", meta={"lb_weight": "heavy"}), "its lb_weight is 'heavy'; allowed is a number from 0 to 1000"),
        (entry("bad", meta={"lb_check": "ready"}), "its lb_check is 'ready', which is no path"),
    ],
)
def test_an_instance_that_cannot_be_used_is_left_out_by_name(bad: Entry, said: str) -> None:
    heard = answer(bad, entry(address="10.0.0.2"))
    assert [each.name for each in heard.found] == ["web-1 on node-1"]
    assert len(heard.problems) == 1 and heard.problems[0].startswith("instance bad on node-1 is left out: ")
    assert said in heard.problems[0]


def test_an_address_of_two_instances_is_one_and_the_one_that_serves_counts() -> None:
    heard = answer(entry("a", own("passing"), maintenance("a")), entry("b"), entry("c"))
    assert [(each.name, each.priority) for each in heard.found] == [("b on node-1", 0)]


@pytest.mark.parametrize("raw", [b"", b"{", b"{}", b'"text"', b"[1]", b'[{"Service": {"Port": "80"}}]', b"[" * 100_000])
def test_what_is_no_list_of_instances_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="its list of instances cannot be read"):
        read_entries(raw)


def test_keys_may_be_null_or_missing() -> None:
    raw = b'[{"Node": {"Address": "10.0.0.1"}, "Service": {"Port": 80, "Meta": null, "Weights": null}, "Checks": null}]'
    assert [each.address for each in answer(*read_entries(raw)).found] == ["10.0.0.1:80"]
    assert read_entries(b"null") == []


STATUS = st.sampled_from(["passing", "warning", "critical"])
CHECKS = st.lists(st.one_of(st.builds(own, STATUS), st.just(NODE_MAINTENANCE), st.just(maintenance())), max_size=4)
ENTRIES = st.lists(
    st.builds(
        lambda id, host, port, checks, weight, warned: entry(
            id, *checks, address=host, port=port, weights=Weights(weight, warned)
        ),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["", "10.0.0.1", "10.0.0.2", "::1", "no host"]),
        st.integers(0, 3),
        CHECKS,
        st.integers(0, 65535),
        st.integers(0, 65535),
    ),
    max_size=8,
)


@given(ENTRIES, st.booleans())
def test_any_instances_give_an_answer_that_can_be_used(entries: list[Entry], warning: bool) -> None:
    found = answer(*entries, warning=warning).found
    assert len({each.address for each in found}) == len(found)
    assert all(0 <= each.weight <= 1000 for each in found)
    named = [each for each in entries if priority(each.checks or (), warning) is not None and each.service.port]
    assert len(found) <= len(named)
    if any(each.service.address != "no host" for each in named):
        assert found


@given(st.permutations([entry("a"), entry("b", address="10.0.0.2"), entry("c", own("warning"), address="10.0.0.3")]))
def test_the_order_of_instances_changes_nothing(entries: list[Entry]) -> None:
    assert [each.name for each in answer(*entries).found] == ["a on node-1", "b on node-1", "c on node-1"]
