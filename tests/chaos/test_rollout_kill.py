"""kill -9 in the middle of a release: afterwards it is where it was or one step on, never lost, never mixed.

`LB_CHAOS_ROUNDS` repeats the rounds with the whole program more often (a hundred take some six minutes).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lb.core.desired import Desired, ServiceDesired
from lb.core.rollout import Bake, Plan, begin, from_dict, promote, roll_back, traffic
from lb.supervisor.store import FileStore
from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.releases import order, service, two_pools
from tests.support.stage import Lb, Stage, ask

ROUNDS = int(os.environ.get("LB_CHAOS_ROUNDS", "2"))
STEPS = [10, 30, 60, 100]


def write_for_ever(directory: Path, ledger: int) -> None:
    """Switch to and fro, as fast as the disk allows; each version is acknowledged once its save has returned."""
    store = FileStore(directory)
    desired = Desired(1, {"greeting": ServiceDesired("blue", "blue")})
    while True:
        now = desired.services["greeting"]
        old, new = now.active, {"blue": "green", "green": "blue"}[now.active]
        first, _ = begin(Plan(old, new, (50, 100), bake=Bake(time=9.0)))
        for rollout in (first, promote(first)[0], roll_back(promote(first)[0], "why")[0]):
            now = traffic(rollout, now, float(desired.version))
            desired = replace(desired, version=desired.version + 1, services={"greeting": now})
            store.save(desired)
            os.write(ledger, b"%d\n" % desired.version)


def test_a_hundred_kills_within_writes_lose_and_mix_nothing(tmp_path: Path) -> None:
    rng = random.Random(6)
    FileStore(tmp_path).save(Desired(1, {"greeting": ServiceDesired("blue", "blue")}))
    for _ in range(100):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.close(reading)
                write_for_ever(tmp_path, writing)
            os._exit(1)
        os.close(writing)
        time.sleep(rng.uniform(0.001, 0.03))  # the moment of death is the dice's, not a condition's
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reading) as ledger:
            acknowledged = [int(line) for line in ledger.read().split("\n")[:-1]]
        state, complaint = FileStore(tmp_path).load()
        assert state is not None
        assert not complaint
        if acknowledged:
            assert state.version in (acknowledged[-1], acknowledged[-1] + 1)
        wanted = state.services["greeting"]
        if wanted.rollout is not None:
            rollout = from_dict(wanted.rollout)
            parts = dict(wanted.shares or ((wanted.active, 100),))
            assert parts.get(rollout.plan.new, 0) == rollout.share
            assert sum(parts.values()) == 100


def share_of_green(lb: Lb) -> int:
    view = service(lb)
    shares = {pool["name"]: pool["share"] for pool in view["pools"]}
    assert shares["blue"] + shares["green"] == 100
    assert view["active"] == ("green" if shares["green"] == 100 else "blue")
    return int(shares["green"])


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_supervisor_is_killed_at_any_moment_of_a_rollout(stage: Stage, number: int) -> None:
    rng = random.Random(number)
    lb, _, _ = two_pools(
        stage, f"steps: {STEPS}, step_time: 100ms, analysis: {{min_requests: 1, latency: 100}}, bake: 0s"
    )
    seen = 0
    with Fleet(lb.url, clients=4, rps=200) as load:
        eventually(lambda: len(load.seen) > 20)
        pids = lb.status()["workers"]
        deadline = time.monotonic() + rng.uniform(0.0, 6.0)
        order(lb, "switch", {"to": "green"})
        while time.monotonic() < deadline:
            seen = share_of_green(lb)
        lb.process.kill()
        lb.process.wait()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    again = stage.start(stage.folder / "lb.yaml")
    legal = [0, *STEPS]
    assert share_of_green(again) in legal[legal.index(seen) : legal.index(seen) + 3]
    with Fleet(again.url, clients=4, rps=200) as load:
        eventually(lambda: share_of_green(again) == 100, within=20)
        now = time.monotonic()
        eventually(lambda: load.versions(since=now)["green"] > 20)
    assert load.versions(since=now)["blue"] == 0


def test_workers_are_killed_during_a_rollout(stage: Stage) -> None:
    """A worker's successor serves by the present share at once; after the switch nobody goes to the old pool."""
    lb, _, _ = two_pools(stage, "bake: 0s")
    order(lb, "switch", {"to": "green", "steps": [30, 100]})
    with Fleet(lb.url, clients=8, rps=400) as load:
        for _ in range(3):
            before = set(lb.status()["workers"])
            victim = min(before)
            os.kill(victim, signal.SIGKILL)
            eventually(lambda gone=victim, old=before: len(set(lb.status()["workers"]) - {gone}) == len(old))
            now = time.monotonic()
            eventually(lambda since=now: sum(load.versions(since=since).values()) > 300)
            after = load.versions(since=now)
            assert after["green"] / sum(after.values()) == pytest.approx(0.3, abs=0.05)
        answer = order(lb, "switch", {"to": "green"})
        assert answer.status == 200
        switched = time.monotonic()
        for victim in lb.status()["workers"]:
            os.kill(victim, signal.SIGKILL)
        eventually(lambda: load.versions(since=switched)["green"] > 100)
    assert load.versions(since=switched)["blue"] == 0
    assert ask(f"{lb.url}/greeting").json["version"] == "green"
