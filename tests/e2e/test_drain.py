"""Taking a target out gently: what is left, how long, when it is safe to kill; containers that name themselves."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.echo import EchoBackend, Tunnel
from tests.support.eventually import eventually
from tests.support.stage import Answer, Backend, Lb, Load, Stage, ask


@pytest.fixture
def echo() -> Iterator[EchoBackend]:
    made = EchoBackend()
    yield made
    made.close()


def drain_state(lb: Lb, backend: Backend | EchoBackend) -> Answer:
    return ask(f"{lb.admin}/api/v1/targets/{backend.address}/drain")


def target(lb: Lb, backend: Backend) -> dict:
    return ask(f"{lb.admin}/api/v1/targets/{backend.address}").json


def all_ready(lb: Lb) -> bool:
    return all(t["state"] == "ready" for s in lb.status()["services"] for p in s["pools"] for t in p["targets"])


def test_in_flight_requests_finish_and_then_it_is_safe_to_kill(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": [one, two]}))
    eventually(lambda: all_ready(lb))
    with Load(lb.url, clients=4, path="/slow?seconds=4") as slow, Load(lb.url, clients=2) as quick:
        eventually(lambda: all(t["in_flight"] for t in lb.status()["services"][0]["pools"][0]["targets"]))
        begun = lb.cli("drain", one.address)
        assert begun.returncode == 0
        state = drain_state(lb, one)
        assert state.status == 202
        assert state.json["in_flight"] >= 1
        assert 0 < state.json["estimate"] <= state.json["cut_in"] <= 30
        waited = lb.cli("drain", one.address, "--wait")
        assert "safe to kill" in waited.stdout
        assert drain_state(lb, one).status == 200
        eventually(lambda: lb.state(one.address) == "drained")
        one.kill()
        counted = quick.count
        eventually(lambda: quick.count > counted + 50)
    assert not slow.failed
    assert not quick.failed


def test_it_stays_drained_whatever_its_probes_say_until_it_is_undrained(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": [one, two]}))
    eventually(lambda: all_ready(lb))
    assert lb.cli("drain", one.address, "--wait").returncode == 0
    one.toggle()
    assert lb.cli("undrain", one.address).returncode == 0
    eventually(lambda: lb.state(one.address) == "unready", what="what its probes found meanwhile holds")
    one.toggle()
    eventually(lambda: lb.state(one.address) == "ready")


def test_an_undrain_that_brings_its_pool_into_panic_is_refused(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": [one, two]}, service="panic_threshold: 60%"))
    eventually(lambda: all_ready(lb))
    assert lb.cli("drain", one.address, "--wait").returncode == 0
    one.toggle()
    assert [lb.cli("probe", one.address).returncode for _ in range(2)] == [1, 1]  # as many as `fall`
    refused = lb.cli("undrain", one.address)
    assert refused.returncode == 1
    assert "1 ready in blue are fewer than `panic_threshold` asks for" in refused.stderr
    foreseen = lb.cli("undrain", one.address, "--dry-run")
    assert foreseen.returncode == 1
    assert "--force would do it all the same" in foreseen.stderr
    forced = lb.cli("undrain", one.address, "--dry-run", "--force")
    assert forced.returncode == 0
    assert "blue are ready for `panic_threshold`: its clients get 503" in forced.stdout
    assert ask(lb.url).status == 200
    assert lb.cli("undrain", one.address, "--force").returncode == 0
    assert ask(lb.url).status == 503
    one.toggle()
    eventually(lambda: all_ready(lb))
    assert ask(lb.url).status == 200


@pytest.mark.parametrize(("quorum", "first"), [("", 0), ("rollout: {min_ready: 2}", 0), ("rollout: {min_ready: 3}", 1)])
def test_it_is_refused_when_too_few_would_be_left(stage: Stage, quorum: str, first: int) -> None:
    backends = stage.pool("blue", 3)
    lb = stage.start(stage.config({"blue": backends}, service=quorum))
    eventually(lambda: all_ready(lb))
    codes = [lb.cli("drain", backend.address).returncode for backend in backends]
    if quorum == "":
        assert codes == [0, 0, 1], "by default one must be left"
    else:
        assert codes == [first, 1, 1]
    refused = lb.cli("drain", backends[2].address)
    assert "must be left" in refused.stderr
    assert lb.cli("drain", backends[2].address, "--force").returncode == 0


def test_a_pool_without_traffic_may_be_drained_whole(stage: Stage) -> None:
    blue, green = stage.pool("blue", 1), stage.pool("green", 2)
    lb = stage.start(stage.config({"blue": blue, "green": green}))
    eventually(lambda: all_ready(lb))
    assert [lb.cli("drain", backend.address, "--wait").returncode for backend in green] == [0, 0]


@pytest.mark.timing
def test_websockets_are_told_to_go_spread_over_the_drain_time_and_then_cut(stage: Stage, echo: EchoBackend) -> None:
    other = EchoBackend()
    text = "timeouts: {drain: 3s}\nreadiness: {protocol: tcp, interval: 200ms}\nbalance: round_robin"
    lb = stage.start(stage.config({"blue": [echo, other]}, service=text), 1)  # type: ignore[list-item]
    eventually(lambda: all_ready(lb))
    tunnels = [Tunnel(lb.url) for _ in range(8)]
    eventually(lambda: sum(t["tunnels"] for t in lb.status()["services"][0]["pools"][0]["targets"]) == 8)
    began = time.monotonic()
    assert lb.cli("drain", echo.address).returncode == 0
    said: list[tuple[float, int]] = []

    def wait(tunnel: Tunnel) -> None:
        with contextlib.suppress(OSError):
            code = tunnel.goodbye(4.0)
            said.append((time.monotonic() - began, code))

    threads = [threading.Thread(target=wait, args=(tunnel,)) for tunnel in tunnels]
    for thread in threads:
        thread.start()
    eventually(lambda: drain_state(lb, echo).status == 200, 6.0)
    eventually(lambda: len(said) == 4)
    assert [code for _, code in said] == [1001] * 4, "half of them, those of the drained target"
    times = sorted(at for at, _ in said)
    assert times[-1] - times[0] > 1.0, "not all at once: they would all come back at once"
    for tunnel in tunnels:
        tunnel.close()
    for thread in threads:
        thread.join()
    other.close()


@pytest.mark.timing
def test_what_is_left_is_cut_when_the_time_is_over(stage: Stage) -> None:
    one, two = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": [one, two]}, service="timeouts: {drain: 1s}"), 1)
    eventually(lambda: all_ready(lb))
    host, _, port = lb.url.removeprefix("http://").partition(":")
    with (
        socket.create_connection((host, int(port)), 5) as first,
        socket.create_connection((host, int(port)), 5) as other,
    ):
        for sock in (first, other):
            sock.sendall(b"GET /slow?seconds=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: all(t["in_flight"] for t in lb.status()["services"][0]["pools"][0]["targets"]))
        began = time.monotonic()
        assert lb.cli("drain", one.address, "--wait", timeout=10).returncode == 0
        assert 0.8 < time.monotonic() - began < 4.0
        gone, _, _ = select.select([first, other], [], [], 5.0)
        assert len(gone) == 1, "the request on the other target goes on"
        answer = gone[0].recv(4096)
        assert b" 200 " not in answer, "nothing that was cut looks complete"
    lb.process.kill()


def test_drains_end_safe_only_when_every_worker_has_said_so(stage: Stage) -> None:
    """A worker that does not answer may still have requests there."""
    import os
    import signal

    one, two = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": [one, two]}))
    eventually(lambda: all_ready(lb))
    silent = lb.status()["workers"][0]
    os.kill(silent, signal.SIGSTOP)
    try:
        drained = ask(
            f"{lb.admin}/api/v1/targets/{one.address}/drain", "POST", b"{}", {"Content-Type": "application/json"}
        )
        assert drained.status == 504
        assert drain_state(lb, one).status == 202
    finally:
        os.kill(silent, signal.SIGCONT)
    eventually(lambda: drain_state(lb, one).status == 200)


class TestPrestop:
    def test_a_container_names_itself_and_may_stop_when_it_is_answered(self, stage: Stage) -> None:
        one, two = stage.pool("blue", 2)
        lb = stage.start(stage.config({"blue": [one, two]}))
        eventually(lambda: all_ready(lb))
        with Load(lb.url, clients=4, path="/slow?seconds=0.5") as slow, Load(lb.url, clients=2) as quick:
            eventually(lambda: slow.count > 4)
            answer = ask(f"{lb.admin}/api/v1/prestop?target={one.address}&wait=10")
            assert answer.status == 200
            assert answer.json["safe"]
            one.kill()
            eventually(lambda: not target(lb, one)["last_probe"]["ok"])
            # It comes back at the same address: nobody has to undrain it.
            stage.backend("blue", one.port)
            eventually(lambda: lb.state(one.address) == "ready")
        assert not slow.failed
        assert not quick.failed

    def test_by_the_address_it_calls_from(self, stage: Stage) -> None:
        one = stage.backend()
        lb = stage.start(stage.config({"blue": [one]}))
        eventually(lambda: all_ready(lb))
        answer = ask(f"{lb.admin}/api/v1/prestop")
        assert answer.json["target"] == f"greeting/blue/{one.address}", "the only target at that address"
        assert answer.status == 200, "it would be gone anyway, even as the last one"

    def test_who_cannot_be_told_apart_is_asked_for_a_name(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 2)}))
        assert ask(f"{lb.admin}/api/v1/prestop").status == 409
        assert ask(f"{lb.admin}/api/v1/prestop?target=10.9.9.9").status == 404

    @pytest.mark.timing
    def test_an_answer_in_time_even_if_it_is_no(self, stage: Stage) -> None:
        one, two = stage.pool("blue", 2)
        lb = stage.start(stage.config({"blue": [one, two]}))
        eventually(lambda: all_ready(lb))
        with Load(lb.url, clients=4, path="/slow?seconds=1.5"):
            eventually(lambda: all(t["in_flight"] for t in lb.status()["services"][0]["pools"][0]["targets"]))
            began = time.monotonic()
            answer = ask(f"{lb.admin}/api/v1/prestop?target={one.address}&wait=0.5")
            assert time.monotonic() - began < 2.0
            assert answer.status == 202
            assert answer.json["in_flight"] >= 1

    def test_no_foreign_page_can_drain_a_target(self, stage: Stage) -> None:
        one = stage.backend()
        lb = stage.start(stage.config({"blue": [one]}))
        answer = ask(f"{lb.admin}/api/v1/prestop?target={one.address}", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403
