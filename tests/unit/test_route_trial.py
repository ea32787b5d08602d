"""`lb route test`: a request through the data plane's own code, without any connection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lb.cli.main import group
from lb.config.load import load_text
from lb.config.resolve import resolve
from lb.supervisor.route_trial import BadTrial, Request, Trial, trial

FILE = """\
services:
  s: {pools: {p: {targets: ['h:1', 'h:2']}}}
  t:
    pools: {blue: {targets: ['https://h:3']}, green: {targets: ['h2c://h:4']}}
    active: green
    previews: [{pool: blue, header: X-Preview}]
trusted_proxies: [10.0.0.0/8]
routes:
  - {service: s}
  - name: api
    match: {host: a.org, path: /v1, method: [GET, POST]}
    service: t
    max_body: 5
    steps: [{strip_prefix: /v1}, {host: in.org}, {request_headers: {set: {X-C: "{client_ip}"}}}]
  - {path: /old, redirect: {to: "https://b.org"}}
  - {match: {path_regex: "/u/[0-9]+", headers: {x: "*"}, clients: [10.0.0.0/8]}, service: t}
"""


def tried(method: str, url: str, *fields: str, client: str = "127.0.0.1", version: str = "1.1") -> Trial:
    return trial(resolve(load_text(FILE), 1), Request(method, url, fields, client, version))


def test_what_would_be_sent_where() -> None:
    made = tried("GET", "https://a.org/v1/x?y=1", "X-C: forged", "X-Kept: 1")
    assert (made.route, made.index, made.status) == ("api", 1, 0)
    assert made.steps == made.met == ["body_limit", "strip_prefix", "host", "request_headers"]
    assert (made.service, made.pool, made.targets) == ("t", "green", ["t/green/h:4"])
    lines = made.sent.splitlines()
    assert lines[:2] == ["GET /x?y=1 HTTP/1.1", "Host: in.org"]
    assert {"X-C: 127.0.0.1", "X-Kept: 1", "X-Forwarded-Proto: https"} <= set(lines)
    assert tried("GET", "https://a.org/v1", "X-Preview: 1").targets == ["t/blue/h:3"]


def test_a_route_that_answers_by_itself() -> None:
    made = tried("GET", "http://a.org/old/z")
    assert (made.route, made.status, made.reason, made.met) == ("/old", 302, "redirect", ["redirect"])
    assert "Location: https://b.org/old/z" in made.answer.splitlines()


def test_the_step_that_refuses_is_the_last_one() -> None:
    made = tried("POST", "http://a.org/v1", "Content-Length: 9")
    assert (made.route, made.status, made.met) == ("api", 413, ["body_limit"])


def test_why_the_other_routes_do_not_take_it() -> None:
    made = tried("PUT", "http://a.org/v1/x")
    assert (made.route, made.sent.splitlines()[0]) == ("/", "PUT /v1/x HTTP/1.1")
    said = {each.index: each.reasons for each in made.others}
    assert said == {
        1: ("method PUT is not GET or POST",),
        2: ("path /v1/x is not below /old",),
        3: (
            "path /v1/x does not match /u/[0-9]+",
            "header x is missing",
            "client 127.0.0.1 is not in 10.0.0.0/8",
        ),
    }
    assert "more specific" in tried("GET", "http://a.org/v1").others[0].reasons[0]


def test_the_readings_of_an_ambiguous_path() -> None:
    made = tried("GET", "/v1%2Fx", "Host: a.org")
    assert (made.route, made.status, made.reason) == ("", 400, "ambiguous_path")
    assert made.readings == [("/v1%2Fx", "/"), ("/v1/x", "api")]


def test_the_client_behind_a_trusted_proxy() -> None:
    made = tried("GET", "/u/1", "Host: a", "X: 1", "X-Forwarded-For: 10.9.9.9, 10.1.1.1", client="10.0.0.1")
    assert made.index == 3
    assert tried("GET", "/u/1", "Host: a", "X: 1", "X-Forwarded-For: 10.9.9.9").index == 0


@pytest.mark.parametrize(
    ("url", "fields", "reason"),
    [("/", (), "bad_host"), ("/", ("Host: a b",), "bad_host"), ("/a", ("Host: a", "a b: c"), "bad_header")],
)
def test_a_request_that_is_refused_before_any_route(url: str, fields: tuple[str, ...], reason: str) -> None:
    made = tried("GET", url, *fields)
    assert (made.route, made.status, made.reason) == ("", 400, reason)


@pytest.mark.parametrize(("url", "field"), [("ftp://a.org/", "A: b"), ("a.org/x", "A: b"), ("/x", "nonsense")])
def test_no_request_at_all(url: str, field: str) -> None:
    with pytest.raises(BadTrial):
        tried("GET", url, field)


@pytest.mark.parametrize("client", ["", "somebody", "1.2.3.4.5", "10.0.0.0/8"])
def test_no_client_at_all(client: str) -> None:
    with pytest.raises(BadTrial, match="is no address of a client"):
        trial(resolve(load_text(FILE), 0), Request("GET", "http://a.org/", client=client))


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(FILE)
    run = CliRunner().invoke
    shown = run(group, ["route", "test", "GET", "https://a.org/v1", "--file", str(file)])
    assert shown.exit_code == 0
    assert "route    api (routes[1])" in shown.output
    assert "  GET / HTTP/1.1" in shown.output
    assert "/old (routes[2])" in shown.output
    refused = run(group, ["route", "test", "GET", "/v1;x", "-H", "Host: a.org", "--file", str(file), "--json"])
    assert refused.exit_code == 1
    document = json.loads(refused.output)
    assert document["answer"]["reason"] == "ambiguous_path"
    assert document["target"] is None
    assert run(group, ["route", "test", "GET", "ftp://a", "--file", str(file)]).exit_code == 2
    file.write_text("routes: 3")
    assert run(group, ["route", "test", "GET", "/", "--file", str(file)]).exit_code == 1


def test_guards_by_the_clients_address() -> None:
    file = "services: {s: {pools: {p: {targets: ['h:1']}}}}\ntrusted_proxies: [127.0.0.1]\n"
    file += "routes: [{service: s, steps: [{allow: [10.0.0.0/8]}, {strip_prefix: /a}]}]\n"
    world = resolve(load_text(file), 1)
    refused = trial(world, Request("GET", "http://a.org/", client="192.0.2.1"))
    assert (refused.status, refused.reason, refused.met) == (403, "client_address", ["allow"])
    assert not trial(world, Request("GET", "http://a.org/", client="10.0.0.1")).status
    assert not trial(world, Request("GET", "http://a.org/", ("X-Forwarded-For: 10.0.0.1",))).status


def test_a_split_and_a_fallback_are_noted() -> None:
    text = FILE + "  - {path: /both, split: {s: 3, t: 1}}\n  - {path: /sure, service: s, fallback: t}\n"
    world = resolve(load_text(text), 1)
    made = trial(world, Request("GET", "https://a.org/both"))
    assert made.service in ("s", "t")
    assert made.notes == ["The route splits its requests: s 75 %, t 25 %. This is one of them."]
    made = trial(world, Request("GET", "https://a.org/sure"))
    assert (made.service, made.notes) == ("s", ["While no target can serve, requests go to t."])


def test_limits_let_one_request_pass_and_faults_meet_none() -> None:
    steps = "[{rate_limit: {rate: 1/h}}, {concurrency: {limit: 1}}, {bandwidth: {rate: 1KiB}}, {fault: FAULT}]"
    fault = "{percent: 100%, delay: 10s, abort: 503, until: 2999-01-01T00:00:00Z}"
    text = FILE + f"  - {{path: /limited, service: s, steps: {steps.replace('FAULT', fault)}}}\n"
    made = trial(resolve(load_text(text), 1), Request("GET", "https://a.org/limited"))
    assert (made.status, made.service) == (0, "s")
    assert made.met == ["rate_limit", "concurrency", "bandwidth", "fault"]
