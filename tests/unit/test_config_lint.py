"""Every warning of `lb check`: what sets it off, where it points, and that a good file has none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lb.config.check import acme, file_modes, lint_certificates, lint_checks, lint_files, routes
from lb.config.check import lint as lint_module
from lb.config.check.lint import CODES, lint
from lb.config.load import examine
from lb.config.yaml.problems import Problem

GOOD = """\
listeners: [0.0.0.0:8080]
services:
  s:
    pools:
      blue: {targets: [http://10.0.0.1:5001, http://10.0.0.2:5001]}
      green: {targets: [http://10.0.0.3:5001, http://10.0.0.4:5001]}
    active: blue
    readiness: {path: /health/readiness, interval: 2s, timeout: 1s, rise: 2, fall: 3, grace: 30s}
    liveness: {path: /health/liveness, interval: 10s, fall: 3, on_failure: {webhook: 'https://example.org/restart'}}
"""


def warnings(text: str) -> list[Problem]:
    return lint(examine(text, "f.yaml", {}))


def test_a_good_file_has_none() -> None:
    assert warnings(GOOD) == []


def test_the_example_of_the_repository_has_none() -> None:
    path = Path(__file__).parents[2] / "backends.yaml"
    assert lint(examine(path.read_text(), "backends.yaml", {})) == []


def with_(change: str) -> str:
    """The good file with a line replaced: `service key: value` or, at the top, `key: value`."""
    key = change.strip().partition(":")[0]
    indent = "" if not change.startswith(" ") else "    "
    lines = [line for line in GOOD.splitlines() if not line.startswith(f"{indent}{key}:")]
    at = len(lines) if not indent else lines.index("  s:") + 1
    return "\n".join([*lines[:at], f"{indent}{change.strip()}", *lines[at:]]) + "\n"


@pytest.mark.parametrize(
    ("change", "marked", "said"),
    [
        # the articles' mistakes
        (" readiness: none", "none", "no target is checked"),
        (" readiness: {protocol: none}", "readiness", "no target is checked"),
        (" liveness: {path: /health/readiness}", "/health/readiness", "ask the same question"),
        (" liveness: {path: /ready}", "/ready", "sounds like a readiness check"),
        (" readiness: {path: /r, grace: 0s}", "0s", "a target that is still starting fails its checks"),
        (" liveness: {path: /l, grace: 0s}", "0s", "a target that is still starting fails its checks"),
        (" liveness: {path: /l, method: POST}", "POST", "may change something each time"),
        (" readiness: {path: /r, method: DELETE}", "DELETE", "may change something each time"),
        # times against each other
        (" readiness: {path: /r, timeout: 2s}", "2s", "is not shorter than the interval (2s)"),
        (" readiness: {path: /r, interval: 1s}", "1s", "is not shorter than the interval (1s)"),
        (" readiness: {path: /r, interval: 30s}", "30s", "can stay in rotation for 91s"),
        (" readiness: {path: /r, fast_interval: 3s}", "3s", "longer than the interval"),
        (" readiness: {path: /r, fall: 1}", "1", "one failed probe takes out a target"),
        (" readiness: {path: /r, jitter: 0%}", "0%", "stay together"),
        (" liveness: {path: /l, fall: 1, interval: 2s, on_failure: {command: x}}", "1", "restarted under its clients"),
        (" timeouts: {total: 10s}", "10s", "`timeouts.response` (30s) is never reached"),
        (" timeouts: {total: 40s}", "40s", "3 tries of up to 31s do not fit into 40s"),
        (" retries: {per_try: 40s}", "40s", "longer than `timeouts.response`"),
        (" timeouts: {idle: 2m}", "2m", "pooled connections wait 2m"),
        ("routes: [{service: s, timeout: 5s}]", "5s", "is never reached"),
        ("drain: 5s", "5s", "a stop cuts requests after 5s"),
        # what is probed, and how much
        (" readiness: {path: /r, interval: 50ms, timeout: 20ms}", "s", "is probed 20 times a second"),
        (" tls: {verify: false}", "false", "certificates are not verified"),
        (" readiness: {protocol: https, tls: {verify: false}}", "false", "certificates are not verified"),
        (" readiness: {path: /r, timeout: 1ms}", "1ms", "less than a busy machine needs"),
        (" timeouts: {connect: 1ms}", "1ms", "less than a busy machine needs"),
        (" host_header: example.org", "readiness", "they may meet another site"),
        # who is there
        (" rollout: {min_ready: 5}", "5", "asks for 5 ready targets, but pool blue has 2"),
        # choices
        (" balance: {key: path}", "path", "round_robin hashes nothing"),
        (" panic: spread", "spread", "targets that said they are not ready"),
        (" panic_threshold: 50%", "50%", "the ready ones get no requests either"),
        (" fallback: blue", "blue", "cannot stand in for itself"),
        (" fallback: green", "green", "a version that nobody has released"),
        (" sticky: {asset_fallback: true}", "true", "without `by` each request"),
        (
            " previews: [{pool: green, header: X-A}, {pool: blue, header: x-a}]",
            "{",
            "previews[0] chooses the same requests",
        ),
        (" mirror: {pool: blue, percent: 1%}", "blue", "its own requests twice"),
        (" rollout: {bake: 5s}", "5s", "ends before its long window"),
        # doors
        ("listeners: [{bind: 0.0.0.0:1, proxy_protocol: [0.0.0.0/0]}]", "0.0.0.0/0", "may claim any client address"),
        ("trusted_proxies: [0.0.0.0/0]", "0.0.0.0/0", "anybody may forge X-Forwarded-For"),
        ("state_dir: /tmp/lb", "/tmp/lb", "does not survive a restart of the machine"),
    ],
)  # fmt: skip
def test_each_warning_and_its_place(change: str, marked: str, said: str) -> None:
    found = warnings(with_(change))
    matching = [one for one in found if said in one.message]
    assert matching, [one.message for one in found]
    one = matching[0]
    assert one.quote[one.column - 1 : one.column - 1 + one.width] == marked
    assert one.hint


#: The common mistakes that the two articles on health checks name, as a file makes them, and the warning for each.
MISTAKES = [
    ("Not implementing health checks at all", " readiness: none", "no-check"),
    ("omit a health check", "services: {s: {pools: {a: [h:1, h:2]}}}", "no-check-of-its-own"),
    ("Making health checks too complex", " readiness: {path: /health/full}", "check-asks-outside"),
    ("Making health checks too complex", " readiness: {path: /health, interval: 20s, timeout: 10s}", "slow-check"),
    ("dependent on external services", " liveness: {path: /health/db}", "liveness-asks-outside"),
    ("dependent on external services", " readiness: {path: '/health?deep=1'}", "check-asks-outside"),
    ("Using the same endpoint for liveness and readiness", " liveness: {path: /health/readiness}", "same-check"),
    ("Using the same endpoint for liveness and readiness", " liveness: {path: /ready}", "liveness-asks-readiness"),
    ("Not handling exceptions in health checks", " readiness: {path: /r, expect: 200-599}", "expect-no-success"),
    ("Not handling exceptions in health checks", " readiness: {path: /r, expect: [200, 500]}", "expect-no-success"),
    ("an agreed upon success or failure value", " liveness: {path: /l, expect: 200-404}", "expect-no-success"),
    ("an agreed upon success or failure value", " readiness: {path: /r, expect: 200-399}", "expect-no-success"),
    ("Ignoring startup time", " readiness: {path: /r, grace: 0s}", "no-grace"),
    ("Ignoring startup time", " liveness: {path: /l, grace: 0s, on_failure: {command: x}}", "no-grace"),
    ("interval of 15 seconds, timeout of 20", " readiness: {path: /r, interval: 15s, timeout: 20s}",
     "timeout-over-interval"),
    ("it can instantly detect a failed server", " readiness: {path: /r, interval: 60s, timeout: 20s}",
     "slow-detection"),
    ("scaled to a single instance", "services: {s: {pools: {a: [h:1]}, readiness: /r}}", "single-target"),
    ("tasks will not be killed", " liveness: {path: /l, fall: 0, on_failure: {command: x}}", "never-restarted"),
    ("stop sending traffic and, ideally, try to restart it",
     " liveness: {path: /l, interval: 2s, fall: 1, on_failure: {command: x}}", "liveness-before-readiness"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "change", "code"), MISTAKES)
def test_the_articles_mistakes_are_told(mistake: str, change: str, code: str) -> None:
    text = change if change.startswith("services:") else with_(change)
    found = {one.code: one for one in warnings(text)}
    assert code in found, f"{mistake}: {sorted(found)}"
    assert found[code].hint and found[code].line, "it says where, and what to do"
    assert str(found[code]).endswith(f" [{code}]")


def test_the_guide_lists_the_articles_mistakes_with_their_codes() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "health-checks.md").read_text()
    table = guide.partition("## The mistakes at a glance")[2].partition("\n## ")[0]
    named = {code for row in table.splitlines() if row.startswith("|") for code in re.findall(r"`([a-z0-9-]+)`", row)}
    assert named <= set(CODES)
    assert {code for _, _, code in MISTAKES} <= named


@pytest.mark.parametrize("path", ["/health/readiness", "/healthz", "/ready", "/install", "/ball", "/dbus"])
def test_a_path_that_only_sounds_so_is_not_suspected(path: str) -> None:
    assert warnings(with_(f" readiness: {{path: '{path}'}}")) == []


def test_what_is_expected_on_purpose_is_named() -> None:
    found = warnings(with_(" readiness: {path: /r, expect: [200-299, 401]}"))
    assert [one.message.partition(":")[0] for one in found] == ["401 is expected"]


def test_codes_are_what_the_warnings_have() -> None:
    places = (Path(lint_module.__file__), Path(lint_checks.__file__), Path(lint_files.__file__))
    places += (Path(lint_certificates.__file__), Path(file_modes.__file__), Path(acme.__file__))
    places += (Path(routes.__file__),)
    used = [code for place in places for code in re.findall(r'yield \(?\s*"([a-z0-9-]+)",', place.read_text())]
    assert set(used) == set(CODES)


def test_one_address_under_two_names() -> None:
    said = [one.message for one in warnings("backends: [localhost:5001, 127.0.0.1:5001]\nreadiness: /r\n")]
    assert said == ["127.0.0.1:5001 and localhost:5001 are one address: it is probed twice and gets two shares"]


def test_a_check_with_the_host_of_the_requests_meets_the_same_site() -> None:
    text = with_(" host_header: example.org").replace("grace: 30s", "grace: 30s, headers: {Host: example.org}")
    assert warnings(text) == []


def test_one_target_weight_0_and_port_0() -> None:
    said = [one.message for one in warnings("backends: [http://10.0.0.1:0]\nreadiness: /r\n")]
    assert any("has one target" in one for one in said)
    assert any("has port 0" in one for one in said)
    said = [
        one.message for one in warnings("backends: [{url: h:1, weight: 0}, {url: h:2, weight: 0}]\nreadiness: /r\n")
    ]
    assert any("have weight 0: it cannot serve" in one for one in said)


def test_no_word_about_checks_is_a_warning_and_tcp_on_purpose_is_none() -> None:
    assert "has no readiness check of its own" in warnings("backends: [h:1, h:2]")[0].message
    assert warnings("backends: [h:1, h:2]\nreadiness: tcp") == []


def test_a_service_that_nobody_reaches() -> None:
    text = GOOD + "  t: {pools: {a: [h:1, h:2]}, readiness: tcp}\nroutes: [{service: s}]\n"
    assert [one.message for one in warnings(text)] == ["no route leads to t: it is probed, but gets no requests"]


def test_nothing_that_notices_errors() -> None:
    text = "services: {s: {pools: {a: [h:1, h:2]}, readiness: tcp, outlier: {enabled: false}}}"
    assert [one.message for one in warnings(text)] == [
        "nothing notices a target that answers errors: its check sees connections alone, and ejection is off"
    ]


def test_a_listener_that_closes_before_the_balancer_in_front() -> None:
    text = with_("trusted_proxies: [10.0.0.0/8]")
    assert warnings(text) == []
    text = text.replace("listeners: [0.0.0.0:8080]", "listeners: [{bind: 0.0.0.0:8080, timeouts: {idle: 30s}}]")
    assert "may send a request just as its connection is closed after 30s" in warnings(text)[0].message


def test_many_probes_in_all() -> None:
    targets = ", ".join(f"10.0.{index // 250}.{index % 250 + 1}:80" for index in range(600))
    text = f"backends: [{targets}]\nreadiness: {{path: /r, interval: 250ms, timeout: 100ms}}\n"
    assert [one.message for one in warnings(text)] == ["600 targets are probed 2400 times a second in all"]


def test_the_same_warning_of_a_shared_block_comes_once() -> None:
    text = """\
x-check: &check {path: /r, fall: 1}
services:
  a: {pools: {x: [h:1, h:2]}, readiness: *check}
  b: {pools: {x: [h:3, h:4]}, readiness: *check}
routes: [{service: a}, {service: b, path: /b}]
"""
    assert [(one.line, one.message) for one in warnings(text)] == [
        (1, "one failed probe takes out a target, be it a lost packet")
    ]


@pytest.mark.parametrize(
    ("hsts", "count"),
    [
        ("{}", 0),
        ("{preload: true, include_subdomains: true}", 0),
        ("{preload: true, include_subdomains: true, max_age: 364d}", 1),
        ("{preload: true}", 1),
    ],
)
def test_a_policy_that_the_preload_list_would_refuse(hsts: str, count: int) -> None:
    listener = f"{{bind: '0.0.0.0:8443', tls: {{cert_file: c.pem, key_file: k.pem}}, hsts: {hsts}}}"
    found = warnings(GOOD.replace("0.0.0.0:8080", listener))
    assert [one.code for one in found] == ["hsts-preload"] * count
    found = warnings(GOOD + f"routes: [{{service: s, steps: [{{hsts: {hsts}}}]}}]\n")
    assert [one.code for one in found if "hsts" in one.code] == ["hsts-never", *["hsts-preload"] * count]
