"""Releases in steps: exact shares, clients that stay, bad releases undone by themselves, silence that holds."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import defaultdict

import pytest

from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.releases import events, order, service, two_pools
from tests.support.stage import Stage, ask

QUICK = "analysis: {min_requests: 1, latency: 100}, bake: 0s"


def test_the_share_of_each_step_is_exact(stage: Stage) -> None:
    """10,000 requests at each step, over two workers and sixteen connections: within half a point."""
    lb, _, _ = two_pools(stage, "bake: 0s, step_time: 10m")
    for share in (5, 25, 50):
        assert order(lb, "switch", {"to": "green", "steps": [share, 100]}).status == 200
        load = Fleet(lb.url, clients=16)
        load.limit = 10_000
        with load:
            eventually(lambda load=load: len(load.seen) >= 10_000, within=60)
        assert not load.failed
        got = 100 * load.versions()["green"] / len(load.seen)
        assert abs(got - share) <= 0.5, (share, got)
        assert order(lb, "rollback").status == 200


def test_steps_follow_one_another_and_are_told(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, f"{QUICK}, steps: [5, 25, 50, 100], step_time: 500ms")
    with Fleet(lb.url, clients=4, rps=200) as load:
        eventually(lambda: len(load.seen) > 50)
        done = lb.cli("switch", "greeting", "green", "--wait", timeout=40)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not load.failed
    told = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()[:-1]]
    assert told[:4] == [
        "green gets 5 % of the traffic, blue keeps 95 %",
        "green gets 25 % of the traffic, blue keeps 75 %",
        "green gets 50 % of the traffic, blue keeps 50 %",
        "green has all the traffic",
    ]
    assert [event["after"] for event in events(lb) if event["after"]][-4:] == [
        "blue 95 %, green 5 %",
        "blue 75 %, green 25 %",
        "blue 50 %, green 50 %",
        "green",
    ]
    assert done.stdout.splitlines()[-1] == "greeting: green 100%. `lb rollback greeting` returns to blue."
    assert lb.metrics()['lb_pool_traffic_ratio{pool="green",service="greeting"}'] == 1


def test_sticky_clients_never_flip_back(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, f"{QUICK}, step_time: 500ms", "sticky: {by: 'cookie:session'}")

    def header(client: int) -> str:
        return f"Cookie: a=1; session=c{client}\r\n"

    with Fleet(lb.url, clients=8, rps=1200, headers=header, names=300) as load:
        eventually(lambda: len(load.seen) > 600)
        order(lb, "switch", {"to": "green", "steps": [5, 25, 50, 75, 100]})
        eventually(lambda: service(lb)["active"] == "green", within=30)
        now = time.monotonic()
        eventually(lambda: load.versions(since=now)["green"] > 400)
    assert not load.failed
    by_client = defaultdict(list)
    for seen in sorted(load.seen, key=lambda seen: seen.sent):
        by_client[seen.client].append(seen.version)
    assert len(by_client) == 300
    for client, versions in by_client.items():
        flips = sum(a != b for a, b in itertools.pairwise(versions))
        assert flips <= 1, f"client {client} changed its version {flips} times"
        assert versions[0] == "blue"
        assert versions[-1] == "green"
    # They did not all move at once: the steps moved some each.
    assert len({versions.count("blue") for versions in by_client.values()}) > 2


@pytest.mark.timing
@pytest.mark.parametrize(("broken", "reason"), [("errors=20", "green fails"), ("delay=0.3", "p99 of green")])
def test_a_bad_release_is_undone_by_itself(stage: Stage, broken: str, reason: str) -> None:
    """Errors, then latency: green goes wrong after the gate; the clients' total errors stay below share × time."""
    lb, _, green = two_pools(stage, "steps: [10, 50, 100], step_time: 30s")
    rps = 300
    with Fleet(lb.url, clients=12, rps=rps) as load:
        eventually(lambda: len(load.seen) > 100)
        order(lb, "switch", {"to": "green"})
        eventually(lambda: load.versions()["green"] > 10)
        for backend in green:
            ask(f"{backend.url}/break?{broken}", "POST")
        broke = time.monotonic()
        eventually(lambda: service(lb)["rollout"] is None, within=30)
        took = time.monotonic() - broke
        view = service(lb)
        after = time.monotonic()
        eventually(lambda: load.versions(since=after)["blue"] > 50)
    assert view["active"] == "blue"
    assert {pool["name"]: pool["share"] for pool in view["pools"]} == {"blue": 100, "green": 0}
    assert load.versions(since=after)["green"] == 0
    assert len(load.failed) <= 0.10 * rps * 0.2 * (took + 1), (len(load.failed), took)
    told = events(lb, "rollout")[-1] if events(lb, "rollout")[-1]["text"].startswith("all traffic") else None
    told = told or [event for event in events(lb) if event["text"].startswith("all traffic is back on blue")][-1]
    assert reason in told["text"]
    last = view["last_rollout"]
    assert (last["from"], last["to"], last["result"]) == ("blue", "green", "rolled_back")
    assert reason in last["reason"]
    assert "was rolled back" in lb.cli("status").stdout
    assert "was rolled back" in lb.cli("explain", "greeting").stdout


def test_silence_is_not_enough_data(stage: Stage) -> None:
    lb, _, _ = two_pools(
        stage, "steps: [50, 100], step_time: 500ms, analysis: {min_requests: 30, latency: 100}, bake: 0s"
    )
    order(lb, "switch", {"to": "green"})
    eventually(lambda: (service(lb)["rollout"] or {}).get("held"))
    view = service(lb)["rollout"]
    assert view["needed"] == 30
    assert view["analysis"] == "NOT ENOUGH DATA, about 30 more requests needed: green has answered 0 of 30 requests"
    assert "NOT ENOUGH DATA" in lb.cli("status").stdout
    assert "NOT ENOUGH DATA" in lb.cli("explain", "greeting").stdout
    assert lb.metrics()['lb_rollout_requests_needed{service="greeting"}'] == 30
    assert lb.metrics()['lb_rollout_state{service="greeting",state="held"}'] == 1
    assert "green stays at 50 %. NOT ENOUGH DATA" in events(lb, "rollout")[-1]["text"]
    for _ in range(40):
        ask(f"{lb.url}/greeting")
    eventually(lambda: service(lb)["rollout"]["needed"] in range(1, 15), what="20 were counted")
    assert service(lb)["active"] == "blue"
    for _ in range(40):
        ask(f"{lb.url}/greeting")
    eventually(lambda: service(lb)["active"] == "green")


def test_a_rollback_ends_a_rollout_at_any_step(stage: Stage) -> None:
    lb, _, _ = two_pools(stage)
    order(lb, "switch", {"to": "green", "steps": [50, 100]})
    assert {ask(f"{lb.url}/greeting").json["version"] for _ in range(20)} == {"blue", "green"}
    assert order(lb, "rollback").status == 200
    assert {ask(f"{lb.url}/greeting").json["version"] for _ in range(20)} == {"blue"}
    assert order(lb, "rollback").status == 409


def test_another_order_while_steps_are_under_way(stage: Stage) -> None:
    lb, _, _ = two_pools(stage, "bake: 0s")
    order(lb, "switch", {"to": "green", "steps": [50, 100]})
    refused = order(lb, "switch", {"to": "green", "steps": [10, 100]})
    assert refused.status == 409
    assert "is at 50 %" in refused.json["detail"]
    assert order(lb, "switch", {"to": "green"}).json["active"] == "green", "to the same pool: complete it now"
    assert {ask(f"{lb.url}/greeting").json["version"] for _ in range(20)} == {"green"}
    order(lb, "switch", {"to": "blue", "steps": [50, 100]})
    assert order(lb, "switch", {"to": "green"}).json["active"] == "green", "to the pool it came from: back"
    assert {ask(f"{lb.url}/greeting").json["version"] for _ in range(20)} == {"green"}


def test_no_target_of_the_new_pool_is_left(stage: Stage) -> None:
    """The release dies altogether: its clients are served by blue meanwhile, and the release is rolled back."""
    lb, _, green = two_pools(stage, "bake: 0s", count=2)
    with Fleet(lb.url, clients=4, rps=200) as load:
        order(lb, "switch", {"to": "green", "steps": [50, 100]})
        eventually(lambda: load.versions()["green"] > 20)
        for backend in green:
            backend.kill()
        eventually(lambda: service(lb)["rollout"] is None)
        after = time.monotonic()
        eventually(lambda: load.versions(since=after)["blue"] > 50)
    assert service(lb)["active"] == "blue"
    assert not load.failed, "idempotent requests are tried elsewhere"
    assert (
        "only 0 of 2 targets of green are ready"
        in [e for e in events(lb) if "all traffic is back" in e["text"]][-1]["text"]
    )


@pytest.mark.parametrize("policy", ["resume", "rollback"])
def test_a_rollout_goes_on_or_back_after_kill_9(stage: Stage, policy: str) -> None:
    lb, _, _ = two_pools(stage, f"{QUICK}, steps: [25, 50, 100], step_time: 500ms, after_restart: {policy}")
    with Fleet(lb.url, clients=4, rps=100):
        order(lb, "switch", {"to": "green"})
        eventually(lambda: service(lb)["rollout"]["share"] == 50)
        pids = lb.status()["workers"]
        lb.process.kill()
        lb.process.wait()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    again = stage.start(stage.folder / "lb.yaml")
    if policy == "rollback":
        eventually(lambda: service(again)["rollout"] is None)
        assert service(again)["active"] == "blue"
        assert service(again)["last_rollout"]["reason"] == "lb was restarted while the rollout was under way"
        assert "lb was restarted" in [e for e in events(again) if "all traffic is back" in e["text"]][-1]["text"]
        return
    assert service(again)["rollout"]["share"] == 50
    with Fleet(again.url, clients=4, rps=100):
        eventually(lambda: service(again)["active"] == "green", within=20)
    assert any("green stays at 50 % after a restart" in event["text"] for event in events(again, "rollout"))


def test_a_reload_that_removes_the_new_pool_ends_the_rollout(stage: Stage) -> None:
    lb, blue, _ = two_pools(stage)
    order(lb, "switch", {"to": "green", "steps": [50, 100]})
    stage.config({"blue": blue})
    assert lb.cli("reload").returncode == 0
    eventually(lambda: service(lb)["rollout"] is None)
    assert service(lb)["active"] == "blue"
    assert service(lb)["last_rollout"]["result"] == "dropped"
    assert {ask(f"{lb.url}/greeting").json["version"] for _ in range(20)} == {"blue"}


def test_a_reload_that_keeps_the_pools_keeps_the_rollout(stage: Stage) -> None:
    lb, blue, green = two_pools(stage)
    order(lb, "switch", {"to": "green", "steps": [50, 100]})
    more = stage.backend("green")
    stage.config({"blue": blue, "green": [*green, more]})
    assert lb.cli("reload").returncode == 0
    view = service(lb)
    assert (view["rollout"]["share"], view["active"]) == (50, "blue")
    eventually(lambda: {ask(f"{lb.url}/greeting").json["instance"] for _ in range(30)} >= {more.address})


def test_a_drained_or_newly_added_target_is_no_reason_to_go_back(stage: Stage) -> None:
    lb, blue, green = two_pools(stage, count=2)
    order(lb, "switch", {"to": "green", "steps": [50, 100]})
    assert lb.cli("drain", green[0].address).returncode == 0
    late = stage.backend("green")
    late.toggle()
    stage.config({"blue": blue, "green": [*green, late]})
    assert lb.cli("reload").returncode == 0
    assert service(lb)["rollout"]["ready"] == {"blue": [2, 2], "green": [1, 1]}
    green[1].toggle()
    eventually(lambda: service(lb)["rollout"] is None, what="the last one that counts is gone")
