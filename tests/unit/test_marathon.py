"""Marathon's health checks become the same checks here, and what has no equivalent is said."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.config.load import load_text
from lb.config.marathon import Imported, NotMarathon, import_marathon
from lb.config.resolve import World, resolve
from lb.core.checks import CheckSpec

ARTICLE = {
    "path": "/api/health",
    "protocol": "HTTP",
    "gracePeriodSeconds": 300,
    "intervalSeconds": 60,
    "timeoutSeconds": 20,
    "maxConsecutiveFailures": 3,
    "ignoreHttp1xx": False,
}


def imported(*checks: dict[str, Any], targets: tuple[str, ...] = (), **app: Any) -> tuple[Imported, World]:
    found = import_marathon(json.dumps({"id": "/shop/greeting", "healthChecks": list(checks), **app}), targets)
    return found, resolve(load_text(found.text, "made", {}), 1)


def specs(world: World) -> tuple[CheckSpec, CheckSpec]:
    checks = next(iter(world.checks.values()))
    assert checks.liveness is not None
    return checks.readiness, checks.liveness


def test_the_articles_check() -> None:
    found, world = imported(ARTICLE)
    readiness, liveness = specs(world)
    for spec in (readiness, liveness):
        assert (spec.protocol, spec.path) == ("http", "/api/health")
        assert (spec.interval, spec.timeout, spec.grace, spec.rise) == (60.0, 20.0, 300.0, 1)
        assert spec.expect.status == ((200, 399),)
        assert not spec.ignore_1xx
    # Marathon kills on the fourth failure in a row; traffic is taken away one before.
    assert (readiness.fall, liveness.fall) == (3, 4)
    assert list(world.checks) == ["shop-greeting/default/127.0.0.1:31000"]
    assert any("on failure 4 in a row" in note for note in found.notes)
    assert "# maxConsecutiveFailures 3: Marathon kills on failure 4" in found.text


def test_marathons_defaults() -> None:
    _, world = imported({})
    readiness, liveness = specs(world)
    assert (readiness.protocol, readiness.path) == ("http", "/")
    assert (readiness.interval, readiness.timeout, readiness.grace) == (60.0, 20.0, 300.0)
    assert (readiness.fall, liveness.fall) == (3, 4)


@pytest.mark.parametrize(
    ("protocol", "becomes", "tls"),
    [
        ("HTTP", "http", False), ("HTTPS", "https", True), ("TCP", "tcp", False),
        ("MESOS_HTTP", "http", False), ("MESOS_HTTPS", "https", True), ("MESOS_TCP", "tcp", False),
    ],
)  # fmt: skip
def test_protocols(protocol: str, becomes: str, tls: bool) -> None:
    found, world = imported({"protocol": protocol})
    readiness, liveness = specs(world)
    assert (readiness.protocol, liveness.protocol) == (becomes, becomes)
    target = next(iter(world.targets.values()))
    if tls:  # never verified, as Marathon does
        assert readiness.tls is not None and not readiness.tls.verify
        assert target.tls is not None and not target.tls.verify
        assert any("never verifies" in note for note in found.notes)
    else:
        assert readiness.tls is None and target.tls is None
    assert any("Mesos asks from the task's own host" in note for note in found.notes) is protocol.startswith("MESOS")


def test_a_command_is_the_shells() -> None:
    found, world = imported({"protocol": "COMMAND", "command": {"value": "source ./myHealthCheck.sh $PORT"}})
    readiness, _ = specs(world)
    assert readiness.protocol == "command"
    assert readiness.command == ("/bin/sh", "-c", "source ./myHealthCheck.sh $PORT")
    assert any("lb on its own machine" in note for note in found.notes)
    assert any("`source` is bash's" in note for note in found.notes)


@pytest.mark.parametrize(
    ("protocol", "failures", "readiness_fall", "liveness_fall"),
    [
        ("HTTP", 0, 1, 0),  # 0: never killed
        ("TCP", 0, 1, 0),
        ("HTTP", 1, 1, 2),
        ("MESOS_HTTP", 0, 1, 1),  # 0: killed at the first
        ("MESOS_TCP", 5, 5, 5),
    ],
)
def test_max_consecutive_failures(protocol: str, failures: int, readiness_fall: int, liveness_fall: int) -> None:
    found, world = imported({"protocol": protocol, "maxConsecutiveFailures": failures})
    readiness, liveness = specs(world)
    assert (readiness.fall, liveness.fall) == (readiness_fall, liveness_fall)
    assert any("on_failure" in note for note in found.notes) is (liveness_fall > 0)


def test_ignore_http_1xx() -> None:
    _, world = imported({"ignoreHttp1xx": True})
    assert specs(world)[0].ignore_1xx


def test_the_port_of_the_check() -> None:
    _, world = imported({"port": 8081})
    assert specs(world)[0].port == 8081
    found, world = imported({"portIndex": 1})
    assert specs(world)[0].port == 0
    assert any("portIndex 1" in note for note in found.notes)
    mappings = {"portMappings": [{"hostPort": 0}, {"hostPort": 9001}]}
    for container in (mappings, {"docker": mappings}):
        _, world = imported({"portIndex": 1}, container=container)
        assert specs(world)[0].port == 9001
    _, world = imported({"portIndex": 1}, requirePorts=True, ports=[8000, 8001])
    assert specs(world)[0].port == 8001
    _, world = imported({"protocol": "HTTPS", "port": 8443})  # another port says nothing about the first one
    assert next(iter(world.targets.values())).tls is None
    assert specs(world)[0].protocol == "https"


def test_tasks_become_targets() -> None:
    tasks = [{"host": "10.0.0.1", "ports": [31001, 31002]}, {"host": "fd00::7", "ports": [31005, 31006]}]
    _, world = imported({"portIndex": 1}, tasks=tasks)
    assert list(world.targets) == ["shop-greeting/default/10.0.0.1:31001", "shop-greeting/default/[fd00::7]:31005"]
    assert [checks.readiness.port for checks in world.checks.values()] == [31002, 31006]
    assert [checks.liveness.port for checks in world.checks.values() if checks.liveness] == [31002, 31006]


def test_given_targets_and_instances() -> None:
    _, world = imported({}, targets=("http://10.0.0.7:1", "http://10.0.0.8:1"), instances=9)
    assert [target.host for target in world.targets.values()] == ["10.0.0.7", "10.0.0.8"]
    found, world = imported({}, instances=3)
    assert len(world.targets) == 3
    assert any("its 3 instances run" in note for note in found.notes)


def test_what_has_no_equivalent_is_said_in_the_file_and_aside() -> None:
    found, _ = imported(ARTICLE, {"protocol": "TCP"}, readinessChecks=[{"path": "/ready"}])
    found_more, _ = imported({"delaySeconds": 15, "ipProtocol": "IPv6"})
    for text, notes, words in (
        (found.text, found.notes, "healthChecks[1] has no equivalent"),
        (found.text, found.notes, "readinessChecks gate deployments"),
        (found_more.text, found_more.notes, "delaySeconds: 15 has no equivalent"),
        (found_more.text, found_more.notes, 'ipProtocol: "IPv6" has no equivalent'),
    ):
        assert f"# {words}" in text
        assert any(words in note for note in notes)


def test_no_label_is_left_out_in_silence() -> None:
    labels = {"HAPROXY_0_VHOST": "a.example.org", "HAPROXY_0_STICKY": "true", "HAPROXY_0_REDIRECT_TO_HTTPS": "true"}
    found, _ = imported(labels={**labels, "HAPROXY_1_X": "y", "team": "z"})
    said = [note.partition(": ")[2].partition(" is left out")[0] for note in found.notes if "Label" in note]
    assert said == [
        'Label HAPROXY_0_REDIRECT_TO_HTTPS: "true"',
        'Label HAPROXY_0_STICKY: "true"',
        'Label HAPROXY_1_X: "y"',
    ]
    assert any("`redirect: https` of the plain listener" in note for note in found.notes)
    assert any("`affinity: {secret_file: FILE}`" in note for note in found.notes)


def test_an_app_without_health_checks() -> None:
    found, world = imported()
    assert next(iter(world.checks.values())).readiness.protocol == "tcp"
    assert any("no health checks" in note for note in found.notes)


def test_groups_lists_and_bare_checks() -> None:
    apps = [
        {"id": "/a", "healthChecks": [{}], "labels": {"HAPROXY_0_VHOST": "a.example.org,www.a.example.org"}},
        {"id": "/b", "healthChecks": [{}]},
        {"id": "/b", "healthChecks": [{}], "labels": {"HAPROXY_0_PATH": "/second"}},
    ]
    for document in ({"apps": apps}, apps, {"id": "/g", "groups": [{"apps": apps[:1]}, {"apps": apps[1:]}]}):
        config = load_text(import_marathon(json.dumps(document)).text, "made", {})
        assert list(config.services) == ["a", "b", "b-2"]
        assert [(route.host, route.path, route.service) for route in config.routes] == [
            ("a.example.org", "/", "a"),
            ("www.a.example.org", "/", "a"),
            ("", "/b", "b"),
            ("", "/second", "b-2"),
        ]
    assert "path: /api/health" in import_marathon(json.dumps(ARTICLE)).text
    assert import_marathon(json.dumps({"app": apps[0]})).text.count("services:") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1, column 2: this is not JSON"),
        ("3", "an app definition is a JSON object, not 3"),
        ("{}", "there is no app in it"),
        ('{"apps": []}', "there is no app in it"),
        ('{"id": "a", "healthChecks": {}}', ""),
        ('{"id": "a", "healthChecks": [3]}', "healthChecks[0]: a health check is an object, not 3"),
        (
            '{"id": "a", "healthChecks": [{"protocol": "UDP"}]}',
            "'UDP' is none of HTTP, HTTPS, TCP, COMMAND",
        ),
        ('{"id": "a", "healthChecks": [{"protocol": "COMMAND"}]}', "needs `command: {value: …}`"),
        ('{"id": "a", "healthChecks": [{"intervalSeconds": "5"}]}', 'intervalSeconds is a number of seconds, not "5"'),
        ('{"id": "a", "healthChecks": [{"intervalSeconds": 0}]}', "must be above 0"),
        ('{"id": "a", "healthChecks": [{"timeoutSeconds": -1}]}', "timeoutSeconds is a number of seconds"),
        ('{"id": "a", "healthChecks": [{"maxConsecutiveFailures": -1}]}', "a whole number, 0 or more, not -1"),
        ('{"id": "a", "healthChecks": [{"ignoreHttp1xx": "yes"}]}', "ignoreHttp1xx is true or false"),
        ('{"id": "a", "healthChecks": [{"port": 70000}]}', "port is a whole number, 0 to 65535"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_app_definition(text: str, said: str) -> None:
    if not said:
        import_marathon(text)  # an empty object where a list belongs says the same as none
        return
    with pytest.raises(NotMarathon) as refused:
        import_marathon(text)
    assert said in str(refused.value)


seconds = st.integers(1, 3600)
checks = st.fixed_dictionaries(
    {},
    optional={
        "protocol": st.sampled_from(["HTTP", "HTTPS", "TCP", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"]),
        "path": st.sampled_from(["/", "/api/health", "health?full=1", ""]),
        "gracePeriodSeconds": st.integers(0, 3600),
        "intervalSeconds": seconds,
        "timeoutSeconds": seconds,
        "maxConsecutiveFailures": st.integers(0, 100),
        "ignoreHttp1xx": st.booleans(),
        "portIndex": st.integers(0, 3),
        "port": st.integers(0, 65535),
        "delaySeconds": seconds,
    },
)


@given(st.text(max_size=20), st.lists(checks, max_size=3), st.integers(-1, 40))
@settings(max_examples=100)
def test_every_definition_becomes_a_valid_file(id: str, found: list[dict[str, Any]], instances: int) -> None:
    document = {"id": id, "healthChecks": found, "instances": instances}
    world = resolve(load_text(import_marathon(json.dumps(document)).text, "made", {}), 1)
    if found:
        readiness, liveness = specs(world)
        assert readiness.interval == liveness.interval == found[0].get("intervalSeconds", 60)
        assert readiness.grace == found[0].get("gracePeriodSeconds", 300)


KEYS = st.sampled_from(
    re.findall(
        r"\w+",
        "apps app id healthChecks protocol command value tasks ports host container portMappings labels instances "
        "groups portIndex readinessChecks",
    )
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
)


@given(anything)
@settings(max_examples=200)
def test_any_json_ends_in_a_file_or_a_reason(document: Any) -> None:
    try:
        found = import_marathon(json.dumps(document))
    except NotMarathon:
        return
    assert found.text.startswith("# Made from")
