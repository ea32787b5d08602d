"""Settings of a text as forms know them: shorthands are seen through, and written out where there is no room."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.config.edit.in_place import REMOVE, Path
from lb.config.edit.long_form import change, is_short, write_out
from lb.config.edit.long_form import settings as settings_of
from lb.config.edit.textdiff import difference, merge
from lb.config.edit.yaml_cst import Unwritable
from lb.config.load import load_text

LONG = """\
services:
  greeting:
    pools:
      blue: [http://127.0.0.1:5001, 'http://127.0.0.1:5002']  # the old one
      green:
        targets:
          - {url: http://127.0.0.1:5003, weight: 2}
    active: blue
    readiness: /health/readiness  # asks the database
    balance: least_request
"""
SHORT = """\
# ours
backends: [http://127.0.0.1:5001, {url: http://127.0.0.1:5002, weight: 2}]
readiness: /health
"""


def test_the_long_form_is_seen_through_shorthands() -> None:
    greeting = settings_of(LONG)["services"]["greeting"]
    assert greeting["pools"]["blue"] == {
        "targets": [{"url": "http://127.0.0.1:5001"}, {"url": "http://127.0.0.1:5002"}]
    }
    assert greeting["readiness"] == {"path": "/health/readiness"}
    assert greeting["balance"] == {"policy": "least_request"}
    assert settings_of(SHORT)["services"]["default"]["readiness"] == {"path": "/health"}
    assert settings_of("a: &a {b: 1}\nc: {<<: *a, d: '${X}'}\ne: *a\n") == {
        "a": {"b": "1"},
        "c": {"d": "${X}", "b": "1"},
        "e": {"b": "1"},
    }
    assert settings_of("# nothing\n") == {}


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        ("readiness.path", "/ready", "readiness: /health/readiness  #", "readiness: /ready  #"),
        (
            "readiness.interval",
            "5s",
            "    readiness: /health/readiness  # asks the database\n",
            "    readiness:  # asks the database\n      path: /health/readiness\n      interval: 5s\n",
        ),
        ("readiness.path", REMOVE, "    readiness: /health/readiness  # asks the database\n", ""),
        ("readiness.fall", REMOVE, "", ""),
        ("balance.policy", "maglev", "balance: least_request", "balance: maglev"),
        ("balance.policy", REMOVE, "    balance: least_request\n", ""),
        (
            "balance.key",
            "path",
            "    balance: least_request\n",
            "    balance:\n      policy: least_request\n      key: path\n",
        ),
        ("pools.blue.targets.1.url", "http://127.0.0.1:9", "'http://127.0.0.1:5002'", "'http://127.0.0.1:9'"),
        (
            "pools.blue.targets.0.weight",
            3,
            "[http://127.0.0.1:5001, ",
            "[{url: http://127.0.0.1:5001, weight: 3}, ",
        ),
        ("pools.blue.targets.2", "http://127.0.0.1:7", "5002']", "5002', http://127.0.0.1:7]"),
        ("pools.green.targets.0.weight", REMOVE, ", weight: 2", ""),
        ("pools.blue", REMOVE, "      blue: [http://127.0.0.1:5001, 'http://127.0.0.1:5002']  # the old one\n", ""),
        (
            "timeouts.connect",
            "2s",
            "    balance: least_request\n",
            "    balance: least_request\n    timeouts:\n      connect: 2s\n",
        ),
    ],
)
def test_a_setting_is_changed_where_it_stands(path: str, value: Any, old: str, new: str) -> None:
    steps: Path = tuple(int(step) if step.isdigit() else step for step in path.split("."))
    assert change(LONG, ("services", "greeting", *steps), value) == LONG.replace(old, new)


def test_readiness_of_a_pool_that_is_a_list() -> None:
    changed = change(LONG, ("services", "greeting", "pools", "blue", "readiness", "interval"), "9s")
    pool = load_text(changed).services["greeting"].pools["blue"]
    assert pool.readiness is not None
    assert pool.readiness.interval == 9.0
    assert [target.url for target in pool.targets] == ["http://127.0.0.1:5001", "http://127.0.0.1:5002"]


def test_the_short_form() -> None:
    assert is_short(SHORT)
    changed = change(SHORT, ("services", "default", "readiness", "interval"), "9s")
    assert changed == SHORT.replace("readiness: /health\n", "readiness:\n  path: /health\n  interval: 9s\n")
    changed = change(SHORT, ("services", "default", "pools", "default", "targets", 1, "weight"), 5)
    assert changed == SHORT.replace("weight: 2", "weight: 5")
    grown = change(SHORT, ("services", "default", "retries", "attempts"), 1)
    assert grown.startswith("# ours\nservices:\n  default:\n    pools:\n")
    assert load_text(grown).services["default"].retries.attempts == 1
    with pytest.raises(Unwritable, match="nothing would be left"):
        change(SHORT, ("services", "default", "pools", "default", "targets"), REMOVE)
    two = load_text(
        change(SHORT, ("services", "default", "pools", "green"), ["http://127.0.0.1:9"]) + "    active: green"
    )
    assert list(two.services["default"].pools) == ["default", "green"]
    written = write_out(SHORT + "workers: 2  # two\n")
    assert "workers: 2  # two\n" in written
    assert not is_short(written)
    assert load_text(written) == load_text(SHORT + "workers: 2")
    assert change(written, ("services", "default", "retries", "attempts"), 1).endswith(
        "    retries:\n      attempts: 1\n"
    )
    assert load_text(write_out(SHORT)) == load_text(SHORT)
    assert write_out(LONG) == LONG


# --- comparing -------------------------------------------------------------------------------------------------------

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12).map(
    lambda lines: "".join(f"{x}\n" for x in lines)
)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 4))
def test_a_difference_leads_from_one_text_to_the_other(old: str, new: str, around: int) -> None:
    found = difference(old, new, around)
    assert bool(found) == (old != new)
    before, after = old.splitlines(), new.splitlines()
    for line in found:
        assert line.old == 0 or before[line.old - 1] == line.text
        assert line.new == 0 or after[line.new - 1] == line.text
    gone = {line.old for line in found if line.sign == "-"}
    came = {line.new for line in found if line.sign == "+"}
    kept = [text for number, text in enumerate(before, 1) if number not in gone]
    assert kept == [text for number, text in enumerate(after, 1) if number not in came]


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_merging_loses_nobodys_change(base: str, ours: str, theirs: str) -> None:
    assert merge(base, ours, base).text == ours
    assert merge(base, base, theirs).text == theirs
    assert merge(base, ours, ours).text == ours
    found = merge(base, ours, theirs)
    if not found.conflicts:
        assert found.text == merge(base, theirs, ours).text


def test_changes_in_different_places_come_together() -> None:
    base = "".join(f"{number}\n" for number in range(10))
    ours, theirs = base.replace("2\n", "two\n"), base.replace("7\n", "seven\nmore\n")
    merged = merge(base, ours, theirs)
    assert (merged.text, merged.conflicts) == (base.replace("2\n", "two\n").replace("7\n", "seven\nmore\n"), 0)


def test_of_two_changes_of_one_place_ours_stands_and_theirs_is_shown() -> None:
    merged = merge("a: 1\nb: 2\n", "a: 5\nb: 2\n", "a: 7\nb: 2\n")
    assert (merged.text, merged.conflicts) == ("# running now: a: 7\na: 5\nb: 2\n", 1)


def test_a_line_added_beside_a_changed_one_is_no_conflict() -> None:
    base = "a: 1\nb: 2\n"
    for ours, theirs in (("a: 1\nb: 2\nc: 3\n", "a: 1\nb: 5\n"), ("a: 1\nb: 5\n", "a: 1\nb: 2\nc: 3\n")):
        assert (merge(base, ours, theirs).text, merge(base, ours, theirs).conflicts) == ("a: 1\nb: 5\nc: 3\n", 0)
    assert merge(base, "x: 0\na: 1\nb: 2\n", "a: 7\nb: 2\n").text == "x: 0\na: 7\nb: 2\n"


# --- any file, any setting -------------------------------------------------------------------------------------------

URLS = st.sampled_from(["http://127.0.0.1:5001", "http://[::1]:80", "unix:/run/x.sock", "${URL:-http://a:1}"])
TARGETS = st.lists(
    URLS | st.fixed_dictionaries({"url": URLS}, optional={"weight": st.integers(0, 9)}), min_size=1, max_size=3
)
CHECKS = st.sampled_from(["/health", "tcp", "none"]) | st.fixed_dictionaries(
    {}, optional={"path": st.just("/ready"), "interval": st.just("5s"), "expect": st.sampled_from([200, "200-299"])}
)
SERVICES = st.fixed_dictionaries(
    {
        "pools": st.dictionaries(
            st.sampled_from(["blue", "green"]), TARGETS | st.fixed_dictionaries({"targets": TARGETS}), min_size=1
        )
    },
    optional={
        "readiness": CHECKS,
        "liveness": CHECKS,
        "balance": st.just("maglev") | st.just({"policy": "ring"}),
        "slow_start": st.just("5s"),
    },
)
FILES = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["greeting", "cart.v2"]), SERVICES, min_size=1)},
    optional={
        "listeners": st.lists(st.sampled_from(["0.0.0.0:8080", "[::]:80"]), min_size=1),
        "workers": st.integers(0, 4),
    },
) | st.fixed_dictionaries({"backends": TARGETS}, optional={"readiness": CHECKS, "balance": st.just("ring")})
SETTINGS: list[tuple[Path, Any]] = [
    (("readiness", "interval"), "7s"),
    (("readiness", "expect", "status"), 204),
    (("readiness", "expect", "body"), "ok"),
    (("readiness", "fall"), 4),
    (("liveness", "on_failure", "webhook"), "https://x/y"),
    (("balance", "key"), "path"),
    (("balance", "policy"), "random_two"),
    (("slow_start", "window"), "9s"),
    (("slow_start", "floor"), "5%"),
    (("timeouts", "connect"), "3s"),
    (("rollout", "bake", "time"), "1m"),
    (("active",), "blue"),
]


def found_at(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        else:
            value = value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None
    return value


@settings(max_examples=150, deadline=None)
@given(FILES, st.booleans(), st.data())
def test_what_a_form_sets_is_what_it_reads_back(file: dict[str, Any], flow: bool, data: st.DataObject) -> None:
    file = json.loads(json.dumps(file))  # what is drawn twice may be one object, of which YAML would make an alias
    text = yaml.safe_dump(file, default_flow_style=flow, sort_keys=False)
    before = settings_of(text)
    name = data.draw(st.sampled_from(sorted(before["services"])))
    pool = data.draw(st.sampled_from(sorted(before["services"][name]["pools"])))
    size = len(before["services"][name]["pools"][pool]["targets"])
    own, value = data.draw(
        st.sampled_from(SETTINGS)
        | st.tuples(
            st.tuples(st.just("pools"), st.just(pool), st.just("targets"), st.integers(0, size - 1), st.just("weight")),
            st.integers(0, 9),
        )
        | st.just((("pools", pool, "targets", size, "url"), "http://new:1"))
        | st.just((("pools", pool, "readiness", "interval"), "7s"))
    )
    path: Path = ("services", name, *own)
    changed = change(text, path, value)
    after = settings_of(changed)
    assert found_at(after, path) == str(value)
    # Nothing else has changed: with the setting taken out again (or put back), the rest is what it was.
    was = found_at(before, path)
    if own[-1] == "url":
        back = settings_of(change(changed, path[:-1], REMOVE))
    else:
        back = settings_of(change(changed, path, REMOVE if was is None else was))
    for leaf in leaves(before):
        assert found_at(back, leaf) == found_at(before, leaf), leaf
    extra = [leaf for leaf in leaves(back) if found_at(before, leaf) is None]
    assert all(leaf == ("services", name, "liveness") for leaf in extra)


def leaves(value: Any, above: Path = ()) -> list[Path]:
    if isinstance(value, dict) and value:
        return [leaf for key, one in value.items() for leaf in leaves(one, (*above, key))]
    if isinstance(value, list) and value:
        return [leaf for at, one in enumerate(value) for leaf in leaves(one, (*above, at))]
    return [above] if value not in ({}, []) else []  # an empty section says nothing
