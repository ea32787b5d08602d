"""Who can serve, and what gates, status, explain, /readyz and metrics say of it: what clients see."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Answer, Backend, Lb, Stage, ask


def seen(lb: Lb, count: int = 12) -> Counter[str]:
    """Which versions answer; `503` where nobody does."""
    found: Counter[str] = Counter()
    for _ in range(count):
        answer = ask(f"{lb.url}/greeting")
        found[answer.json["version"] if answer.status == 200 else str(answer.status)] += 1
    return found


def shares(lb: Lb) -> dict[str, int]:
    return {pool["name"]: pool["share"] for pool in lb.status()["services"][0]["pools"]}


def ready_as_metric(lb: Lb, backend: Backend) -> float:
    name = f'lb_target_ready{{pool="{backend.pool}",service="greeting",target="{backend.address}"}}'
    return lb.metrics()[name]


def ratio(lb: Lb, pool: str) -> float:
    return lb.metrics()[f'lb_pool_traffic_ratio{{pool="{pool}",service="greeting"}}']


def events(lb: Lb, kind: str) -> list[str]:
    return [event["text"] for event in ask(f"{lb.admin}/api/v1/events").json if event["kind"] == kind]


def post(lb: Lb, path: str, body: dict, method: str = "POST") -> Answer:
    return ask(f"{lb.admin}/api/v1/{path}", method, json.dumps(body).encode(), {"Content-Type": "application/json"})


def started(stage: Stage, pools: dict[str, list[Backend]], service: str = "") -> Lb:
    lb = stage.start(stage.config(pools, service=service))
    count = sum(map(len, pools.values()))

    def all_ready() -> bool:
        return [t["state"] for p in lb.status()["services"][0]["pools"] for t in p["targets"]].count("ready") == count

    eventually(all_ready, what="all targets are ready")
    return lb


def test_a_pool_of_weight_nought_passes_no_gate(stage: Stage) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 2)
    lb = started(stage, {"blue": blue, "green": green}, "rollout: {min_ready: 1, bake: 0s}")
    for backend in green:
        assert lb.cli("weight", backend.address, "0").returncode == 0, "nobody is served there"
        assert ready_as_metric(lb, backend) == 0
    for preview in (["-n"], []):
        refused = lb.cli("switch", "greeting", "green", *preview)
        assert refused.returncode == 1
        assert "all targets of green have weight 0" in refused.stdout + refused.stderr
        assert "set by an operator" in refused.stdout + refused.stderr
    assert seen(lb) == {"blue": 12}
    assert "gets no traffic: ready" in lb.cli("explain", green[0].address).stdout
    assert lb.cli("weight", green[0].address, "1").returncode == 0
    assert lb.cli("switch", "greeting", "green").returncode == 0
    assert seen(lb) == {"green": 12}


def test_the_last_one_that_serves_keeps_its_weight_unless_forced(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    lb = started(stage, {"blue": [one, two]})
    assert lb.cli("weight", one.address, "0").returncode == 0
    refused = lb.cli("weight", two.address, "0")
    assert refused.returncode == 1
    assert "must be left" in refused.stderr
    assert "its weight is 0: set by an operator" in refused.stderr
    assert lb.cli("drain", two.address).returncode == 1, "a drain ends the same way"
    assert "must be left" in lb.cli("weight", two.address, "0", "-n").stderr
    assert seen(lb) == {"blue": 12}
    assert lb.cli("drain", one.address).returncode == 0, "it serves nobody anyway"
    assert lb.cli("weight", two.address, "0", "--force").returncode == 0
    assert "(forced: without" in events(lb, "weight")[-1]
    assert seen(lb) == {"503": 12}
    assert ask(f"{lb.admin}/readyz").status == 503
    assert "clients get 503" in lb.cli("explain", "greeting").stdout


def test_a_rollback_to_a_pool_that_cannot_serve_has_to_be_forced(stage: Stage) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 1)
    lb = started(stage, {"blue": blue, "green": green}, "rollout: {bake: 0s}")
    assert lb.cli("switch", "greeting", "green").returncode == 0
    blue[0].toggle()
    eventually(lambda: lb.state(blue[0].address) == "unready")
    foreseen = post(lb, "services/greeting/rollback/preview", {}).json
    assert (foreseen["allowed"], foreseen["forcible"]) == (False, True)
    assert foreseen["changes"][-1]["kind"] == "unserved"
    assert foreseen["lines"][-1] == "no target of blue can serve: its clients get 503"
    refused = lb.cli("rollback", "greeting")
    assert refused.returncode == 1
    assert "no target of blue can serve" in refused.stderr
    assert blue[0].address in refused.stderr
    assert seen(lb) == {"green": 12}
    assert lb.cli("rollback", "greeting", "--force").returncode == 0
    assert "forced: no target of blue can serve" in events(lb, "switch")[-1]
    assert seen(lb) == {"503": 12}


def test_nor_is_a_step_taken_back_to_one(stage: Stage) -> None:
    """`lb switch` to the old pool in the middle of a rollout is a rollback too."""
    blue, green = stage.pool("blue", 1), stage.pool("green", 1)
    lb = started(stage, {"blue": blue, "green": green})
    assert lb.cli("switch", "greeting", "green", "--steps", "50,100", "--step-time", "60s").returncode == 0
    assert lb.cli("weight", blue[0].address, "0", "--force").returncode == 0
    for order in (("switch", "greeting", "blue"), ("rollback", "greeting")):
        assert "no target of blue can serve" in lb.cli(*order).stderr
    assert seen(lb) == {"green": 12}


def test_an_automatic_rollback_never_goes_to_weight_nought(stage: Stage) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 1)
    lb = started(stage, {"blue": blue, "green": green}, "rollout: {bake: 60s}")
    assert lb.cli("switch", "greeting", "green").returncode == 0
    assert lb.cli("weight", blue[0].address, "0").returncode == 0
    green[0].toggle()
    eventually(lambda: lb.state(green[0].address) == "unready")
    green[0].toggle()
    eventually(lambda: seen(lb, 3) == {"green": 3}, what="green serves again, and was never left")
    assert lb.status()["services"][0]["active"] == "green"


@pytest.mark.parametrize("stays", ["", "rollout: {bake: 0s}"])
def test_a_fallback_that_serves_is_no_outage(stage: Stage, stays: str) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 1)
    lb = started(stage, {"blue": blue, "green": green}, f"fallback: green\n{stays}")
    assert "gets no traffic: ready" in lb.cli("explain", green[0].address).stdout
    blue[0].toggle()
    eventually(lambda: lb.state(blue[0].address) == "unready")
    assert seen(lb) == {"green": 12}
    assert ask(f"{lb.admin}/readyz").status == 200
    assert shares(lb) == {"blue": 0, "green": 100}
    assert (ratio(lb, "blue"), ratio(lb, "green")) == (0.0, 1.0)
    said = lb.cli("explain", "greeting").stdout
    assert "served by its fallback green: no target of blue can serve" in said
    assert "503" not in said.splitlines()[0]
    assert "gets traffic" in lb.cli("explain", green[0].address).stdout
    assert "fallback" in lb.cli("status").stdout
    refused = lb.cli("drain", green[0].address)
    assert "must be left" in refused.stderr, "what serves is not drained away"
    assert seen(lb) == {"green": 12}


def test_a_standby_pool_makes_nobody_ready(stage: Stage) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 1)
    lb = started(stage, {"blue": blue, "green": green})
    blue[0].toggle()
    eventually(lambda: lb.state(blue[0].address) == "unready")
    assert seen(lb) == {"503": 12}
    answer = ask(f"{lb.admin}/readyz")
    assert (answer.status, b"can serve" in answer.body) == (503, True)
    assert not lb.status()["ready"]
    assert "clients get 503" in lb.cli("explain", "greeting").stdout
    assert ratio(lb, "blue") == 1.0, "its requests are still blue's, and are answered with 503"


def test_a_check_on_trial_is_seen_and_outlives_a_restart(stage: Stage) -> None:
    """[Marathon-LB 602] lb suspects a mistyped check, and serves on by the former one."""
    check = "readiness: {path: PATH, interval: 200ms, timeout: 500ms, fall: 2}"
    blue = stage.pool("blue", 2)
    lb = started(stage, {"blue": blue}, check.replace("PATH", "/health/readiness"))
    path = stage.config({"blue": blue}, service=check.replace("PATH", "/raedy"))
    assert lb.cli("reload").returncode == 0
    on_trial = 'lb_checks_on_trial{pool="blue",service="greeting"}'
    eventually(lambda: lb.metrics()[on_trial] == 2)
    eventually(lambda: any("changed check passes on no target" in text for text in events(lb, "note")))
    for words in (("status",), ("explain", "greeting"), ("explain", blue[0].address)):
        said = " ".join(lb.cli(*words).stdout.split())
        assert "check was changed; the new one has not passed here yet" in said, words
    assert seen(lb) == {"blue": 12}
    assert lb.stop() == 0
    again = stage.start(path)
    eventually(lambda: again.metrics()[on_trial] == 2)
    eventually(lambda: any("changed check passes on no target" in text for text in events(again, "note")[-2:]))
    assert any("the former one decides, as before" in text for text in events(again, "start"))
    assert seen(again) == {"blue": 12}
