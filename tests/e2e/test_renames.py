"""Pools and services that are renamed, targets that move: nothing that is known or wished hangs on a name."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Lb, Load, Stage, ask

#: A check that takes so long that requests would meet it.
SLOW_CHECK = "readiness: {path: '/health/readiness', interval: 30s, timeout: 500ms, rise: 2, fall: 2}"


def rename(path: Path, *names: tuple[str, str]) -> None:
    """Give pools or services other names, wherever the file has them."""
    text = path.read_text()
    for old, new in names:
        assert f"{old}:" in text
        text = re.sub(rf"\b{old}\b(?!/)", new, text)
    path.write_text(text)


def states(lb: Lb) -> dict[str, str]:
    return {t["id"]: t["state"] for s in lb.status()["services"] for p in s["pools"] for t in p["targets"]}


PLACES = [(("blue", "teal"),), (("greeting", "hello"),), (("greeting", "hello"), ("blue", "teal"), ("green", "lime"))]


@pytest.mark.parametrize("names", PLACES)
def test_a_rename_costs_no_request_and_takes_no_drain_back(stage: Stage, names: tuple[tuple[str, str], ...]) -> None:
    blue, green = stage.pool("blue", 2), stage.pool("green", 1)
    path = stage.config({"blue": blue, "green": green}, service=SLOW_CHECK)
    lb = stage.start(path)
    eventually(lambda: set(states(lb).values()) == {"ready"})
    assert lb.cli("drain", f"greeting/blue/{blue[0].address}").returncode == 0
    eventually(lambda: lb.state(blue[0].address) == "drained")
    new = dict(names)
    service, pool = new.get("greeting", "greeting"), new.get("blue", "blue")
    with Load(lb.url, clients=4) as load:
        eventually(lambda: load.count > 100)
        rename(path, *names)
        planned = lb.cli("plan", str(path))
        told = lb.cli("reload")
        assert told.returncode == 0
        counted = load.count
        eventually(lambda: load.count > counted + 200)
        assert {ask(f"{lb.url}/greeting").json["instance"] for _ in range(6)} == {blue[1].address}
    assert not load.failed
    assert "has this name now; health, drains and connections are kept" in planned.stdout
    assert "has this name now" in told.stdout
    assert states(lb) == {
        f"{service}/{pool}/{blue[0].address}": "drained",
        f"{service}/{pool}/{blue[1].address}": "ready",
        f"{service}/{new.get('green', 'green')}/{green[0].address}": "ready",
    }
    explained = lb.cli("explain", f"{service}/{pool}/{blue[1].address}").stdout
    assert "passed" in explained


@pytest.mark.parametrize("how", ["reload", "restart", "kill", "upgrade"])
def test_a_switch_and_a_drain_outlive_a_rename_however_it_comes(stage: Stage, how: str) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 2)
    path = stage.config({"blue": blue, "green": green}, service="rollout: {bake: 0s}")
    lb = stage.start(path)
    eventually(lambda: set(states(lb).values()) == {"ready"})
    assert lb.cli("switch", "greeting", "green").returncode == 0
    assert lb.cli("drain", f"greeting/green/{green[0].address}").returncode == 0
    rename(path, ("greeting", "hello"), ("green", "lime"))
    with Load(lb.url, clients=2) as load:
        if how == "reload":
            assert lb.cli("reload").returncode == 0
        elif how == "upgrade":
            assert lb.cli("upgrade").returncode == 0
        elif how == "kill":
            os.kill(lb.status()["pid"], signal.SIGKILL)
            lb.process.wait(5)
            lb = stage.start(path)
        else:
            load.stop()
            lb.stop()
            lb = stage.start(path)
        eventually(lambda: lb.state(f"hello/lime/{green[1].address}") == "ready")
        seen = {ask(f"{lb.url}/greeting").json["instance"] for _ in range(6)}
    assert seen == {green[1].address}
    assert not load.failed
    [service] = lb.status()["services"]
    assert (service["active"], service["previous"]) == ("lime", "blue")
    assert lb.state(f"hello/lime/{green[0].address}") in ("draining", "drained")
    assert lb.cli("rollback", "hello").returncode == 0
    assert ask(f"{lb.url}/greeting").json["instance"] == blue[0].address


def test_a_release_under_way_goes_on_under_other_names(stage: Stage) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 1)
    path = stage.config({"blue": blue, "green": green}, service="rollout: {bake: 0s, analysis: {min_requests: 20}}")
    lb = stage.start(path)
    eventually(lambda: set(states(lb).values()) == {"ready"})
    with Load(lb.url, clients=4) as load:
        asked = lb.cli("switch", "greeting", "green", "--steps", "50,100", "--step-time", "2s")
        assert asked.returncode == 0
        rename(path, ("greeting", "hello"), ("blue", "teal"), ("green", "lime"))
        assert lb.cli("reload").returncode == 0
        [service] = lb.status()["services"]
        assert {pool["name"]: pool["share"] for pool in service["pools"]} == {"teal": 50, "lime": 50}
        assert service["rollout"]["to"] == "lime"
        eventually(lambda: lb.status()["services"][0]["active"] == "lime", 20)
    assert not load.failed
