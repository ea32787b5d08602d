"""The main job, end to end: balance, check, take out, put back, count, and never let a client see trouble."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Load, Stage, ask


def test_requests_alternate_over_ready_targets(stage: Stage) -> None:
    lb = stage.start(stage.config({"blue": stage.pool("blue", 2)}), workers=1)
    eventually(lambda: [t["state"] for t in lb.status()["services"][0]["pools"][0]["targets"]] == ["ready"] * 2)
    seen = [ask(f"{lb.url}/greeting").json["instance"] for _ in range(6)]
    assert seen[0::2] == [seen[0]] * 3
    assert seen[1::2] == [seen[1]] * 3
    assert seen[0] != seen[1]


@pytest.mark.timing
def test_an_unready_target_leaves_and_returns_and_no_request_fails(stage: Stage) -> None:
    first, second = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": [first, second]}))
    with Load(lb.url) as load:
        eventually(lambda: load.count > 50)
        began = time.monotonic()
        first.toggle()
        eventually(lambda: lb.state(first.address) == "unready")
        assert time.monotonic() - began < 0.2 * 2 + 0.5 + 1.0, "interval × fall + timeout, and a second to look"
        seen = {ask(f"{lb.url}/greeting").json["instance"] for _ in range(6)}
        assert seen == {second.address}
        assert lb.metrics()[f'lb_target_ready{{pool="blue",service="greeting",target="{first.address}"}}'] == 0
        first.toggle()
        eventually(lambda: lb.state(first.address) == "ready")
        both = {first.address, second.address}
        # The load takes turns as well, and a few requests may fall in step with it and see one target only.
        eventually(lambda: {ask(f"{lb.url}/greeting").json["instance"] for _ in range(6)} == both)
    assert not load.failed


def test_no_target_gets_a_request_before_its_first_passed_check(stage: Stage) -> None:
    """The most repeated complaint about the peers."""
    ready, starting = stage.pool("blue", 2)
    starting.toggle()
    lb = stage.start(stage.config({"blue": [ready, starting]}))
    seen = {ask(f"{lb.url}/greeting").json["instance"] for _ in range(20)}
    assert seen == {ready.address}
    assert lb.state(starting.address) == "starting", "within grace a failure does not make it unready"
    starting.toggle()
    eventually(lambda: lb.state(starting.address) == "ready", what="one pass is enough for the first entry")


def test_no_ready_target_is_a_503_with_retry_after(stage: Stage) -> None:
    [only] = stage.pool("blue", 1)
    only.toggle()
    lb = stage.start(stage.config({"blue": [only]}), ready=False)
    answer = ask(f"{lb.url}/greeting")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Server"] == "lb"
    assert answer.headers["X-Request-Id"] in answer.body.decode()
    assert ask(f"{lb.admin}/readyz").status == 503
    assert ask(f"{lb.admin}/livez").status == 200


def test_kill_9_of_a_backend_is_no_clients_business(stage: Stage) -> None:
    backends = stage.pool("blue", 3)
    lb = stage.start(stage.config({"blue": backends}))
    eventually(lambda: all(t["state"] == "ready" for t in lb.status()["services"][0]["pools"][0]["targets"]))
    with Load(lb.url, clients=8) as load:
        eventually(lambda: load.count > 200)
        backends[0].kill()
        eventually(lambda: lb.state(backends[0].address) in ("unready", "ejected"))
        so_far = load.count
        eventually(lambda: load.count > so_far + 200)
    assert not load.failed
    assert lb.metrics()['lb_retries_total{reason="connect_refused",service="greeting"}'] >= 1


@pytest.mark.timing
def test_kill_9_of_a_worker_costs_at_most_what_it_had_in_flight(stage: Stage) -> None:
    lb = stage.start(stage.config({"blue": stage.pool("blue", 2)}))
    victim = lb.status()["workers"][0]
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    workers = eventually(
        lambda: (now := lb.status()["workers"]) and victim not in now and len(now) == 2 and now, what="a successor"
    )
    assert time.monotonic() - began < 2.0
    assert victim not in workers
    for _ in range(40):  # connections are spread over both workers' sockets
        assert ask(f"{lb.url}/greeting").status == 200
    assert lb.metrics()["lb_worker_restarts_total"] == 1


def test_metrics_are_exact_over_workers_and_over_their_deaths(stage: Stage) -> None:
    backends = stage.pool("blue", 2)
    lb = stage.start(stage.config({"blue": backends}))

    def counted() -> int:
        return int(sum(v for name, v in lb.metrics().items() if name.startswith("lb_requests_total{")))

    with Load(lb.url, clients=8) as load:
        eventually(lambda: load.count > 500)
    assert counted() == load.count
    os.kill(lb.status()["workers"][0], signal.SIGKILL)
    eventually(lambda: len(lb.status()["workers"]) == 2 and lb.metrics()["lb_worker_restarts_total"] == 1)
    assert counted() == load.count


def test_the_metrics_pass_promtool(stage: Stage) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is needed (Debian: apt-get install prometheus)"
    lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
    with Load(lb.url, clients=2) as load:
        eventually(lambda: load.count > 20)
        text = ask(f"{lb.admin}/metrics").body
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not checked.stdout + checked.stderr
    for process in ("supervisor", "0"):
        assert f'lb_process_open_fds{{process="{process}"}}'.encode() in text


def test_the_access_log_tells_of_each_request_once(stage: Stage) -> None:
    lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
    with Load(lb.url, clients=2) as load:
        eventually(lambda: load.count > 100)
    answer = ask(f"{lb.url}/greeting?q=%22", headers={"User-Agent": 'te"st'})
    assert lb.stop() == 0
    lines = [json.loads(line) for line in lb.access.read_text().splitlines()]
    assert len(lines) == load.count + 1
    [mine] = [line for line in lines if line["id"] == answer.headers["X-Request-Id"]]
    assert mine["path"] == "/greeting?q=%22"
    assert mine["user_agent"] == 'te"st'
    assert mine["status"] == 200
    assert len({line["id"] for line in lines}) == len(lines)


def test_a_target_that_answers_garbage_disturbs_nobody_else(stage: Stage) -> None:
    good = stage.backend()
    import socket

    with socket.socket() as nonsense:
        nonsense.bind(("127.0.0.1", 0))
        nonsense.listen(64)
        port = nonsense.getsockname()[1]
        import threading

        def serve() -> None:
            while True:
                try:
                    connection, _ = nonsense.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(b"SSH-2.0-nonsense\r\n\r\n")
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        path = stage.file(
            f"""
listeners: [127.0.0.1:0]
admin: {{bind: 127.0.0.1:0}}
access_log: off
services:
  good: {{pools: {{blue: [{good.url}]}}}}
  bad: {{pools: {{blue: ["http://127.0.0.1:{port}"]}}}}
routes:
  - {{path: /bad, service: bad}}
  - {{path: /, service: good}}
"""
        )
        lb = stage.start(path)
        eventually(lambda: ask(f"{lb.url}/greeting").status == 200)
        with Load(lb.url, clients=2) as load:
            for _ in range(10):
                answer = ask(f"{lb.url}/bad")
                assert answer.status == 502
                assert b"nonsense" not in answer.body
            eventually(lambda: load.count > 50)
        assert not load.failed
        assert lb.metrics()['lb_rejected_total{reason="target_garbage"}'] >= 10


def test_sigterm_lets_requests_end_and_a_second_one_does_not_wait(stage: Stage) -> None:
    lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
    with Load(lb.url, clients=2) as load:
        eventually(lambda: load.count > 20)
        assert lb.stop() == 0
        load.stop()
    refused = [text for text in load.trouble if "Refused" not in text and "closed within a head: b''" not in text]
    assert not refused, "nothing that was accepted may be lost"
    assert not [status for status in load.statuses if status >= 400]


class TestBadInput:
    """An invalid start never leaves a half-working proxy behind."""

    def run(self, path: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lb", "run", str(path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    def test_every_error_of_a_file_is_listed(self, stage: Stage) -> None:
        path = stage.file("listeners: [127.0.0.1:0]\nbackends: [nonsense:x]\nreadyness: /x\ndrain: soon\n")
        ended = self.run(path)
        assert ended.returncode == 1
        for place in ("lb.yaml:2:", "lb.yaml:3:", "lb.yaml:4:", "readiness"):
            assert place in ended.stderr

    def test_an_address_in_use_is_named(self, stage: Stage) -> None:
        backend = stage.backend()
        for where in (f"listeners: ['{backend.address}']", f"admin: {{bind: '{backend.address}'}}"):
            other = "listeners: [127.0.0.1:0]\n" if "admin" in where else "admin: {bind: 127.0.0.1:0}\n"
            path = stage.file(f"{where}\n{other}backends: [http://127.0.0.1:1]\n")
            ended = self.run(path)
            assert ended.returncode == 1
            assert backend.address in ended.stderr
            assert "in use" in ended.stderr.lower()

    def test_two_lbs_never_share_an_address(self, stage: Stage) -> None:
        """SO_REUSEPORT would let them."""
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        address = lb.url.removeprefix("http://")
        rest = "admin: {bind: 127.0.0.1:0}\nstate_dir: ./other\nbackends: [http://127.0.0.1:1]\n"
        path = stage.file(f"listeners: ['{address}']\n{rest}", "b.yaml")
        ended = self.run(path)
        assert ended.returncode == 1
        assert address in ended.stderr

    def test_two_lbs_never_share_a_state_directory(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        stage.start(path)
        ended = self.run(path)
        assert ended.returncode == 1
        assert "state" in ended.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind(stage: Stage, signal_number: int) -> None:
    lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
    workers = lb.status()["workers"]
    assert lb.stop(signal_number) == 0
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
