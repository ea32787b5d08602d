"""Limits of routes with real workers: what one of them counts holds for all."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait

from tests.support.eventually import eventually
from tests.support.stage import Load, Stage, ask


def test_workers_share_a_rate(stage: Stage) -> None:
    """Each connection is some worker's, so each of two workers has several of these clients."""
    backends = stage.pool("blue", 1)
    path = stage.config({"blue": backends})
    step = "{rate_limit: {rate: 100/s, burst: 50, key: route}}"
    path.write_text(f"{path.read_text()}routes:\n  - {{path: /, service: greeting, steps: [{step}]}}\n")
    lb = stage.start(path, workers=2)
    began = time.monotonic()
    with Load(lb.url, clients=16) as load:
        eventually(lambda: time.monotonic() - began > 3.0, within=10.0)
    seconds = time.monotonic() - began
    passed = load.statuses[200]
    assert load.statuses[429] > passed, "more came than may"
    assert passed <= (50 + 100 * seconds) * 1.05
    assert passed >= (50 + 100 * (seconds - 0.3)) * 0.95
    answer = ask(f"{lb.url}/greeting")
    assert answer.headers["RateLimit-Policy"] == '"default";q=50;w=1'
    metrics = lb.metrics()
    passed, refused = (
        metrics[f'lb_route_step_total{{outcome="{result}",route="/",step="rate_limit"}}']
        for result in ("passed", "rate_limited")
    )
    assert passed + refused == sum(load.statuses.values()) + 1
    assert metrics['lb_rejected_total{reason="rate_limited"}'] == refused
    lines = map(json.loads, reversed(lb.access.read_text().splitlines()))
    request = next(line["id"] for line in lines if line["status"] == 429)
    assert "route /: rate_limit" in lb.cli("explain", request).stdout


def test_workers_count_requests_under_way_together(stage: Stage) -> None:
    backends = stage.pool("blue", 1)
    path = stage.config({"blue": backends})
    routes = "routes:\n  - {path: /, service: greeting}\n"
    routes += "  - {path: /slow, service: greeting, steps: [{concurrency: {limit: 3}}]}\n"
    path.write_text(path.read_text() + routes)
    lb = stage.start(path, workers=2)
    pids = lb.status()["workers"]

    def waiting() -> int:
        return int(lb.status()["in_flight"])

    with ThreadPoolExecutor(12) as pool:
        slow = [pool.submit(ask, f"{lb.url}/slow?seconds=2") for _ in range(12)]
        statuses = Counter(each.result().status for each in slow)
    assert statuses == {200: 3, 503: 9}
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(ask, f"{lb.url}/slow?seconds=30") for _ in range(3)]
        eventually(lambda: waiting() == 3)
        assert ask(f"{lb.url}/slow?seconds=0.01").status == 503
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait(slow)
    eventually(lambda: not set(pids) & set(lb.status()["workers"]) and len(lb.status()["workers"]) == 2)
    eventually(lambda: ask(f"{lb.url}/slow?seconds=0.01").status == 200, what="workers that are gone hold nothing")
