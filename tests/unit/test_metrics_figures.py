"""The metrics page: what it says of failures, weights and liveness, and which series are there from the start."""

from __future__ import annotations

import os
import time
from typing import Any

from lb.control.metrics import Figures, ProcessFigures, exposition
from lb.core.report import empty_tally
from lb.supervisor.os.processes import figures

ID = "s/blue/h:1"


def lines(**more: Any) -> list[str]:
    mappings = """targets places pools states trials shares active stages retries mirrored rejected handshakes
        transitions probes probe_seconds switches rollouts reloads weights alive processes"""
    nothing: dict[str, Any] = {name: {} for name in mappings.split()}
    usual = {**nothing, "able": (), "probes_late": 0.0, "places": {ID: ("s", "blue", "h:1")}}
    return exposition(Figures(**{**usual, **more})).decode().splitlines()


def test_a_502_of_ours_names_the_target_that_caused_it() -> None:
    tally = empty_tally(ID)
    tally.connect_failures, tally.resets, tally.server_errors = 3, 2, 1
    found = lines(targets={ID: tally})
    for kind, count in (("connect", 3), ("reset", 2), ("timeout", 0), ("5xx", 1)):
        labels = f'kind="{kind}",pool="blue",service="s",target="h:1"'
        assert f"lb_target_failures_total{{{labels}}} {count}.0" in found


def test_a_share_of_errors_is_zero_and_not_nothing_before_the_first_one() -> None:
    found = lines(shares={("s", "blue"): 1.0})
    for code in ("502", "503", "504"):
        assert f'lb_requests_total{{code="{code}",pool="blue",service="s",target="none"}} 0.0' in found


def test_the_length_of_a_queue_is_0_while_nobody_waits() -> None:
    found = lines(shares={("s", "blue"): 1.0, ("s", "green"): 0.0}, waiting={"s": {"green": 3}})
    assert 'lb_requests_waiting{pool="blue",service="s"} 0.0' in found
    assert 'lb_requests_waiting{pool="green",service="s"} 3.0' in found


def test_weights_and_liveness() -> None:
    found = lines(weights={ID: 2.5}, alive={ID: False})
    assert 'lb_target_weight{pool="blue",service="s",target="h:1"} 2.5' in found
    assert 'lb_target_alive{pool="blue",service="s",target="h:1"} 0.0' in found


def test_what_processes_use() -> None:
    found = lines(processes={"0": ProcessFigures(1000.5, 2.25, 4096, 17)})
    assert 'lb_process_start_time_seconds{process="0"} 1000.5' in found
    assert 'lb_process_cpu_seconds_total{process="0"} 2.25' in found
    assert 'lb_process_resident_memory_bytes{process="0"} 4096.0' in found
    assert 'lb_process_open_fds{process="0"} 17.0' in found


def test_the_kernel_tells_of_this_process() -> None:
    mine = figures(os.getpid())
    assert mine is not None
    assert 0 <= time.time() - mine.started < 3600
    assert mine.cpu > 0
    assert mine.resident > 1 << 20
    assert mine.descriptors >= 3
    assert figures(2**22 + 1) is None, "a process that there is not"


def test_requests_under_way_by_the_protocol_of_the_target() -> None:
    tally, other = empty_tally(ID), empty_tally("s/blue/h:2")
    tally.in_flight, other.in_flight = 3, 2
    places = {ID: ("s", "blue", "h:1"), "s/blue/h:2": ("s", "blue", "h:2")}
    found = lines(targets={ID: tally, "s/blue/h:2": other}, places=places, over_http2={ID})
    assert 'lb_upstream_streams{protocol="h2",service="s"} 3.0' in found
    assert 'lb_upstream_streams{protocol="http/1.1",service="s"} 2.0' in found


def test_what_steps_of_routes_did() -> None:
    found = lines(steps={"/a": {"rate_limit": {"passed": 2}}}, rate_evictions=3)
    assert 'lb_route_step_total{outcome="passed",route="/a",step="rate_limit"} 2.0' in found
    assert "lb_rate_limit_evictions_total 3.0" in found
