"""Maintenance of a route: ordered, seen everywhere, kept over restarts, ended."""

from __future__ import annotations

import json

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Lb, Stage, ask

HTML = {"Accept": "text/html,*/*;q=0.8"}


def started(stage: Stage) -> Lb:
    backends = stage.pool("blue", 1)
    path = stage.config({"blue": backends})
    routes = "routes:\n  - {path: /, service: greeting}\n  - {name: shop, path: /greeting, service: greeting}\n"
    path.write_text(path.read_text() + routes)
    return stage.start(path)


def test_from_on_to_off(stage: Stage) -> None:
    lb = started(stage)
    page = stage.folder / "page.html"
    page.write_text("<h1>Back at noon</h1>")
    told = lb.cli("maintenance", "shop", "on", "--retry-after", "2m", "--allow", "192.0.2.0/24", "--page", str(page))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("shop is in maintenance for ")
    for _ in range(8):  # whichever worker
        answer = ask(f"{lb.url}/greeting", headers=HTML)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "120")
        assert answer.body == b"<h1>Back at noon</h1>"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    answer = ask(f"{lb.url}/greeting")
    assert answer.body.startswith(b"503 Service Unavailable: the service is in maintenance")
    assert ask(f"{lb.url}/health/liveness").status == 200, "the other route goes on"
    assert lb.metrics()['lb_route_maintenance{route="shop"}'] == 1
    assert lb.metrics()['lb_route_step_total{outcome="maintenance",route="shop",step="maintenance"}'] == 9
    assert "route shop in maintenance" in lb.cli("status").stdout
    assert "route shop is in maintenance" in lb.cli("explain", "greeting").stdout
    assert "ended with 503: maintenance" in lb.cli("explain", answer.headers["X-Request-Id"]).stdout
    [listed] = json.loads(lb.cli("maintenance", "--json").stdout)
    assert (listed["route"], listed["allow"], listed["page"]) == ("shop", ["192.0.2.0/24"], True)
    assert lb.cli("maintenance", "shop", "off").stdout == "shop is not in maintenance.\n"
    assert ask(f"{lb.url}/greeting").status == 200
    events = [json.loads(line) for line in lb.cli("events", "--json").stdout.splitlines()]
    texts = [event["text"] for event in events if event["kind"] == "maintenance"]
    assert texts == ["on: clients get 503, Retry-After 120 s; 192.0.2.0/24 pass", "off"]


def test_networks_that_pass_and_a_restart(stage: Stage) -> None:
    lb = started(stage)
    assert lb.cli("maintenance", "shop", "on", "--allow", "127.0.0.0/8").returncode == 0
    assert lb.cli("maintenance", "/", "on").returncode == 0
    assert ask(f"{lb.url}/greeting").status == 200
    assert ask(f"{lb.url}/other", headers=HTML).body.startswith(b"<!doctype html>")
    lb.stop()
    again = stage.start(stage.folder / "lb.yaml")
    assert ask(f"{again.url}/other").status == 503
    text = (stage.folder / "lb.yaml").read_text()
    (stage.folder / "lb.yaml").write_text(text.replace("name: shop", "name: market"))
    assert again.cli("reload").returncode == 0
    eventually(lambda: [each["route"] for each in again.status()["maintenance"]] == ["/"])
    assert ask(f"{again.url}/other").status == 503


def test_what_is_refused(stage: Stage) -> None:
    lb = started(stage)
    told = lb.cli("maintenance", "nowhere", "on")
    assert told.returncode == 1
    assert "there is no route nowhere; there is /, shop" in told.stderr
    told = lb.cli("maintenance", "shop", "on", "--allow", "10.0.0.0/99")
    assert told.returncode == 1
    assert "'10.0.0.0/99' is not a network" in told.stderr
    assert lb.status()["maintenance"] == []


@pytest.mark.real_start
def test_an_upgrade_keeps_it(stage: Stage) -> None:
    lb = started(stage)
    assert lb.cli("maintenance", "shop", "on", "--retry-after", "7s").returncode == 0
    done = lb.cli("upgrade", timeout=90.0)
    assert done.returncode == 0, done.stderr
    for _ in range(6):
        answer = ask(f"{lb.url}/greeting")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    assert [each["route"] for each in lb.status()["maintenance"]] == ["shop"]
