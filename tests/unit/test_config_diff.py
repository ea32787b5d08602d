"""What a reload would change: each kind of difference, and that writing a default down is none."""

from __future__ import annotations

from lb.config.diff import diff
from lb.config.load import load_text
from lb.config.resolve import World, resolve

OLD = """\
listeners: [127.0.0.1:8080]
services:
  s:
    pools:
      blue: {targets: [http://127.0.0.1:1, http://127.0.0.1:2]}
      green: {targets: [http://127.0.0.1:3]}
    active: blue
    readiness: {path: /r, interval: 2s}
    liveness: {path: /l}
"""


def world(text: str) -> World:
    return resolve(load_text(text), 0)


def lines(new: str, old: str = OLD) -> list[str]:
    return diff(world(old), world(new)).lines()


def test_nothing_changes_when_a_default_is_written_down() -> None:
    assert lines(OLD + "routes: [{service: s}]\nworkers: 0\ndrain: 30s\nadmin: {bind: 127.0.0.1:9900}\n") == []
    assert lines(OLD.replace("interval: 2s", "interval: 2000ms, rise: 2, protocol: http, expect: 200-299")) == []
    plan = diff(world(OLD), world(OLD))
    assert (plan.changes, len(plan.kept), plan.summary()) == ((), 3, "Nothing would change.")


def test_targets_come_go_and_change() -> None:
    new = OLD.replace("http://127.0.0.1:2]", "{url: 'http://127.0.0.1:1', weight: 3}, http://127.0.0.1:9]")
    new = new.replace("[http://127.0.0.1:1, {", "[{")
    assert lines(new) == [
        "~ s/blue/127.0.0.1:1: weight 1 → 3",
        "+ s/blue/127.0.0.1:9: gets traffic after its first passed check",
        "- s/blue/127.0.0.1:2: takes no new requests, then is gone",
    ]
    plan = diff(world(OLD), world(new))
    assert plan.kept == ("s/blue/127.0.0.1:1", "s/green/127.0.0.1:3")
    assert plan.summary() == "1 added, 1 drained, 1 changed; 2 targets kept as they are."


def test_pools_and_services_come_and_go() -> None:
    red = OLD.replace("green: {targets: [http://127.0.0.1:3]", "red: {targets: [http://127.0.0.1:4]")
    new = red + "  t: {pools: {a: [h:1]}}\nroutes: [{service: s}, {service: t, path: /t}]\n"
    assert lines(new) == [
        "+ pool s/red: 1 target",
        "- pool s/green: is gone; its targets drain",
        "+ service t: pools a",
        "+ s/red/127.0.0.1:4: gets traffic after its first passed check",
        "+ t/a/h:1: gets traffic after its first passed check",
        "- s/green/127.0.0.1:3: takes no new requests, then is gone",
        "+ route /t: to its service, for new requests",
    ]
    assert lines(OLD, new)[-1] == "- route /t: is gone"


def test_names_that_change_and_targets_that_move() -> None:
    kept = "health, drains and connections are kept"
    assert lines(OLD.replace("blue", "teal")) == [f"~ pool s/teal: blue has this name now; {kept}"]
    service = diff(world(OLD), world(OLD.replace("  s:\n", "  t:\n")))
    assert service.lines() == [
        f"~ service t: s has this name now; {kept}",
        "~ route /: s → t",
    ]
    assert len(service.kept) == 3
    both = OLD.replace("  s:\n", "  t:\n").replace("green", "lime").replace("path: /r,", "path: /ready,")
    assert lines(both)[:2] == [
        f"~ service t: s has this name now; {kept}",
        f"~ pool t/lime: green has this name now; {kept}",
    ]
    assert (
        "~ 3 targets of t/blue, t/lime: asked another question; until it is answered well, the old check decides"
        in (lines(both))
    )
    moved = OLD.replace(", http://127.0.0.1:2]", "]").replace(
        "[http://127.0.0.1:3]", "[http://127.0.0.1:3, 127.0.0.1:2]"
    )
    assert lines(moved) == [f"~ s/green/127.0.0.1:2: was s/blue/127.0.0.1:2; {kept}"]
    again = OLD.replace("[http://127.0.0.1:3]", "[http://127.0.0.1:3, 127.0.0.1:2]")
    assert lines(again) == ["+ s/green/127.0.0.1:2: begins as what s/blue/127.0.0.1:2 is found to be"]


def test_a_check_that_asks_another_question() -> None:
    assert lines(OLD.replace("path: /r", "path: /ready")) == [
        "~ services.s.readiness.path: /r → /ready",
        "~ 3 targets of s/blue, s/green: asked another question; until it is answered well, the old check decides",
    ]
    assert lines(OLD.replace("    liveness: {path: /l}\n", ""))[-1] == (
        "~ 3 targets of s/blue, s/green: no liveness check any more"
    )


def test_timing_changes_say_what_they_come_to() -> None:
    assert lines(OLD.replace("interval: 2s", "interval: 1s, timeout: 500ms")) == [
        "~ services.s.readiness.interval: 2s → 1s",
        "~ services.s.readiness.timeout: 1s → 500ms",
        "~ services.s: a dead target is out after at worst 7s → 3.5s",
    ]
    assert "at worst 7s → never" in lines(OLD.replace("{path: /r, interval: 2s}", "none"))[-1]


def test_a_check_that_becomes_another_kind_by_a_default_written_down() -> None:
    assert lines("backends: [h:1]\nreadiness: {path: /}", "backends: [h:1]\nreadiness: {rise: 2}") == [
        "~ services.default.readiness.protocol: tcp → http",
        "~ default/default/h:1: asked another question; until it is answered well, the old check decides",
    ]


def test_an_edit_of_active_wins() -> None:
    assert lines(OLD.replace("active: blue", "active: green")) == [
        "~ services.s.active: blue → green; an edit wins over an earlier switch"
    ]


def test_listeners_and_what_needs_a_restart() -> None:
    new = OLD.replace("[127.0.0.1:8080]", "[{bind: 127.0.0.1:8080, limits: {connections: 9}}, 127.0.0.1:8081]")
    assert lines(new + "workers: 3\nadmin: {bind: 127.0.0.1:9901}\nstate_dir: /s\naccess_log: off\n") == [
        "~ listener 127.0.0.1:8080: connections, for new connections",
        "+ listener 127.0.0.1:8081: opens",
        "! admin.bind: 127.0.0.1:9900 → 127.0.0.1:9901; needs a restart",
        "~ access_log.format: json → off",
        "! workers: 0 → 3; needs a restart",
        "! state_dir: .lb → /s; needs a restart",
    ]
    assert lines(OLD, new)[-1] == "- listener 127.0.0.1:8081: closes; its connections end after their request"


def test_routes_change() -> None:
    two = OLD + "  t: {pools: {a: [h:1]}}\n"
    old = two + "routes: [{service: s, host: a.org}, {service: t}]\n"
    new = two + "routes: [{service: t, host: a.org}, {service: t, max_body: 1MiB}]\n"
    assert lines(new, old) == ["~ route a.org/: s → t", "~ route /: other settings"]


def test_changes_are_values_too() -> None:
    """What a program needs of a change is in its fields, so that none takes the sentence apart."""
    old = world("services: {s: {pools: {blue: [http://a:1, http://a:2]}, readiness: {interval: 1s}}}")
    new = world(
        "services: {s: {pools: {blue: [{url: 'http://a:1', weight: 3}, http://a:3]}, readiness: {interval: 2s}}}"
    )
    changes = diff(old, new).changes
    by = {(change.kind, change.target or change.field): change for change in changes}
    weight = by["change", "s/blue/a:1"]
    assert (weight.what, weight.service, weight.pool) == ("target", "s", "blue")
    assert (weight.field, weight.old, weight.new) == ("weight", "1", "3")
    assert by["add", "s/blue/a:3"].of_many == "get traffic after their first passed check"
    assert by["drain", "s/blue/a:2"].of_many == "take no new requests, then are gone"
    interval = by["change", "readiness.interval"]
    assert (interval.what, interval.service, interval.old, interval.new) == ("setting", "s", "1s", "2s")
    assert interval.text == "1s → 2s"
    assert by["change", "detection"].what == "service"


def test_a_secret_is_in_no_field() -> None:
    text = "services: {s: {pools: {blue: [http://a:1]}, rollout: {pre: {webhook: 'http://h/%s'}}}}"
    [change] = diff(world(text % "one"), world(text % "two")).changes
    assert (change.text, change.old, change.new) == ("has changed", "", "")
