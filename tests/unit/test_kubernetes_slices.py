"""EndpointSlices as plain values: which endpoints they name, at which port, and what events make of them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.membership import Found
from lb.discovery.kubernetes_events import Garbled, Outdated, Page, Slices, read_page, read_status
from lb.discovery.kubernetes_slices import (
    Conditions,
    Metadata,
    Slice,
    SliceEndpoint,
    SlicePort,
    port_of,
    priority,
)
from lb.discovery.lines import Lines, TooLong

HTTP = SlicePort("http", 8080)
METRICS = SlicePort("metrics", 9090, "TCP")


def slices(*given: Slice, port: str = "") -> Slices:
    known = Slices("web", port)
    known.add(Page(list(given), Metadata(resource_version="1")))
    return known


def one(name: str, *addresses: str, ports: list[SlicePort] | None = None, family: str = "IPv4", **more: Any) -> Slice:
    endpoints = [SliceEndpoint([address], Conditions(**more)) for address in addresses]
    return Slice(Metadata(name, "1"), family, endpoints, [HTTP] if ports is None else ports)


def event(kind: str, name: str = "a", version: int = 2, *addresses: str, **conditions: Any) -> bytes:
    endpoints = [{"addresses": [address], "conditions": conditions or None} for address in addresses]
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    metadata = {"name": name, "resourceVersion": str(version)}
    made = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
    return json.dumps({"type": kind, "object": made}).encode()


def addresses(known: Slices) -> list[str]:
    return [each.address for each in known.answer().found]


@pytest.mark.parametrize(
    ("ready", "serving", "terminating", "level"),
    [
        (None, None, None, 0),
        (True, True, False, 0),
        (True, None, None, 0),
        (False, False, False, None),
        (False, None, None, None),
        (False, True, True, 1),
        (False, False, True, None),
        (False, None, True, None),
        (None, None, True, 1),
        (True, True, True, 1),  # publishNotReadyAddresses
        (True, False, True, None),
        (True, False, False, 0),  # publishNotReadyAddresses: lb's own checks have the say
    ],
)
def test_conditions_say_which_endpoints_are_named(
    ready: bool | None, serving: bool | None, terminating: bool | None, level: int | None
) -> None:
    assert priority(Conditions(ready, serving, terminating)) == level


def test_no_conditions_are_those_of_a_ready_endpoint() -> None:
    assert priority(None) == 0


@pytest.mark.parametrize(
    ("ports", "wanted", "number"),
    [
        ([HTTP], "", 8080),
        ([HTTP, METRICS], "", None),
        ([HTTP, METRICS], "metrics", 9090),
        ([HTTP, METRICS], "9090", 9090),
        ([HTTP, METRICS], "80", None),
        ([SlicePort("http", 8080, "UDP"), SlicePort("http", 8081)], "http", 8081),
        ([SlicePort("http", 8080, "UDP"), SlicePort("web", 8081)], "", 8081),
        ([], "8080", 8080),  # the slice restricts no port
        ([SlicePort()], "8080", 8080),
        ([SlicePort()], "http", None),
        ([SlicePort("http", None)], "http", None),
        ([], "", None),
    ],
)
def test_a_port_is_found_by_name_by_number_or_as_the_only_one(
    ports: list[SlicePort], wanted: str, number: int | None
) -> None:
    assert port_of(ports, wanted) == number


def test_endpoints_of_all_slices_are_named_with_their_pods() -> None:
    pod = SliceEndpoint(["10.0.0.1", "10.0.0.9"], Conditions(), target_ref=None)
    leaving = json.loads(event("ADDED", "b", 1, "10.0.0.2", ready=False, serving=True, terminating=True))["object"]
    leaving["endpoints"][0]["targetRef"] = {"kind": "Pod", "name": "web-2"}
    raw = json.dumps({"items": [leaving], "metadata": {"resourceVersion": "7"}}).encode()
    known = slices(Slice(Metadata("a"), "IPv4", [pod], [HTTP]))
    assert known.add(read_page(raw)) == "" and known.version == "7"
    assert known.answer().found == (
        Found("10.0.0.1:8080", "http://10.0.0.1:8080"),
        Found("10.0.0.2:8080", "http://10.0.0.2:8080", priority=1, name="web-2 (terminating)"),
    )
    assert known.answer().problems == ()


def test_an_endpoint_in_two_slices_is_one_and_ready_counts() -> None:
    leaving = {"ready": False, "serving": True, "terminating": True}
    known = slices(one("a", "10.0.0.1", **leaving), one("b", "10.0.0.1"), one("c", "10.0.0.1", **leaving))
    assert [(each.address, each.priority) for each in known.answer().found] == [("10.0.0.1:8080", 0)]


def test_a_pod_with_addresses_of_both_families_is_named_once() -> None:
    six = one("b", "fd00::1", family="IPv6")
    assert addresses(slices(one("a", "10.0.0.1"), six)) == ["10.0.0.1:8080"]
    assert addresses(slices(six)) == ["[fd00::1]:8080"]
    assert addresses(slices(one("a"), six)) == []  # the slice of the family is there, and empty


@pytest.mark.parametrize(
    ("given", "port", "said"),
    [
        ([], "", "there is no EndpointSlice of a Service web"),
        ([one("a", "10.0.0.1")], "web", "endpoints without a port web are left out: they have http (8080)"),
        ([one("a", "10.0.0.1", ports=[HTTP, METRICS])], "", "they have http (8080), metrics (9090); `port` chooses"),
        ([one("a", "10.0.0.1", ports=[])], "", "they have none; `port` chooses"),
        ([one("a", "pod.test", family="FQDN")], "", "its addresses are FQDN: IPv4 and IPv6 are used"),
        ([one("a", "10.0.0.1:80")], "", "endpoint '10.0.0.1:80' is left out"),
    ],
)
def test_what_cannot_be_used_is_said(given: list[Slice], port: str, said: str) -> None:
    answer = slices(*given, port=port).answer()
    assert answer.found == () and said in answer.problems[0], answer.problems


def test_a_slice_without_endpoints_needs_no_port() -> None:
    assert slices(one("a", ports=[])).answer().problems == ()


def test_only_the_slices_that_have_the_port_are_used() -> None:
    answer = slices(one("a", "10.0.0.1"), one("b", "10.0.0.2", ports=[METRICS]), port="http").answer()
    assert [each.address for each in answer.found] == ["10.0.0.1:8080"] and len(answer.problems) == 1


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_change_the_slices_and_the_version() -> None:
    known = slices(one("a", "10.0.0.1"))
    assert known.apply(event("ADDED", "b", 2, "10.0.0.2"))
    assert addresses(known) == ["10.0.0.1:8080", "10.0.0.2:8080"] and known.version == "2"
    assert known.apply(event("MODIFIED", "a", 3, "10.0.0.3"))
    assert not known.apply(event("MODIFIED", "a", 4, "10.0.0.3"))  # the same
    assert known.apply(event("DELETED", "b", 5, "10.0.0.2"))
    assert not known.apply(event("DELETED", "b", 6))
    assert addresses(known) == ["10.0.0.3:8080"] and known.version == "6"


def test_a_condition_that_flips_is_a_change() -> None:
    known = slices(one("a", "10.0.0.1"))
    assert known.apply(event("MODIFIED", "a", 2, "10.0.0.1", ready=False))
    assert addresses(known) == []
    assert known.apply(event("MODIFIED", "a", 3, "10.0.0.1", ready=True))
    assert addresses(known) == ["10.0.0.1:8080"]


def test_a_bookmark_moves_the_version_alone() -> None:
    known = slices(one("a", "10.0.0.1"))
    raw = b'{"type":"BOOKMARK","object":{"kind":"EndpointSlice","metadata":{"resourceVersion":"99",'
    raw += b'"creationTimestamp":null},"addressType":"","endpoints":null,"ports":null}}'
    assert not known.apply(raw)
    assert addresses(known) == ["10.0.0.1:8080"] and known.version == "99"


@pytest.mark.parametrize("status", [{"code": 410}, {"reason": "Expired"}, {"reason": "Gone", "code": 410}])
def test_a_version_that_is_gone_asks_for_the_list(status: dict[str, Any]) -> None:
    known = slices(one("a", "10.0.0.1"))
    with pytest.raises(Outdated):
        known.apply(json.dumps({"type": "ERROR", "object": {"kind": "Status", **status}}).encode())
    assert addresses(known) == ["10.0.0.1:8080"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "an event cannot be read"),
        (b"[]", "an event cannot be read"),
        (b'{"type":"ADDED","object":[]}', "an event cannot be read"),
        (b'{"type":"ADDED","object":{"endpoints":[{"addresses":[1]}]}}', "an event cannot be read"),
        (b"\xff", "an event cannot be read"),
        (b'{"type":"ERROR","object":{"code":500,"message":"etcd is away"}}', "the watch has failed: etcd is away"),
        (b'{"type":"ADDED","object":' + b"[" * 100_000, "an event cannot be read"),
    ],
)
def test_what_is_no_event_ends_the_watch(line: bytes, said: str) -> None:
    known = slices(one("a", "10.0.0.1"))
    with pytest.raises(Garbled, match=said):
        known.apply(line)
    assert addresses(known) == ["10.0.0.1:8080"]


def test_kinds_of_events_that_come_later_are_left_alone() -> None:
    known = slices(one("a", "10.0.0.1"))
    assert not known.apply(b'{"type":"LATER","object":7}') and known.version == "1"


def test_a_list_that_cannot_be_read_is_no_list() -> None:
    for raw in (b"", b"{}", b'{"items":7}', b"<html>"):
        with pytest.raises(Garbled):
            read_page(raw)
    assert read_page(b'{"items":null,"metadata":{"continue":"x"}}').metadata.next == "x"
    assert read_status(b"<html>").message == ""


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_lines_do_not_depend_on_where_a_stream_is_cut(data: bytes, cuts: list[int]) -> None:
    lines, found = Lines(1 << 20), []
    places = [0, *sorted(cuts), len(data)]
    for begin, end in pairwise(places):
        found += lines.add(data[begin:end])
    *whole, rest = data.split(b"\n")
    assert found == [line for line in whole if line.strip()] and lines.cut == bool(rest)


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    lines = Lines(longest=1 << 20)
    lines.add(b"x" * (1 << 20))
    with pytest.raises(TooLong, match="longer than 1 MiB"):
        lines.add(b"x")


NAMES = st.sampled_from("abc")
ADDRESSES = st.lists(st.sampled_from([f"10.0.0.{n}" for n in range(6)]), max_size=4, unique=True)
CONDITIONS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([True, False, None]) for name in ("ready", "serving", "terminating")}
)
CHANGES = st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), NAMES, ADDRESSES, CONDITIONS))


@given(CHANGES)
def test_events_lead_where_a_list_leads(changes: list[tuple[str, str, list[str], dict[str, Any]]]) -> None:
    known, objects = slices(), {}
    for version, (kind, name, found, conditions) in enumerate(changes, 2):
        line = event(kind, name, version, *found, **conditions)
        known.apply(line)
        objects[name] = json.loads(line)["object"]
        if kind == "DELETED":
            del objects[name]
    listed = Slices("web", "")
    for order in (list(objects.values()), list(reversed(objects.values()))):
        raw = json.dumps({"items": order, "metadata": {"resourceVersion": known.version}}).encode()
        listed.add(read_page(raw))
        assert listed.answer() == known.answer()
    assert len({each.address for each in known.answer().found}) == len(known.answer().found)
