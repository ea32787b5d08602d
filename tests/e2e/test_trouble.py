"""Bad surroundings, really brought about: full disks, no descriptors, damaged state, dead DNS, a clock that jumps.

Limits of single processes stand in for the machine's, so that no test needs to be root: RLIMIT_FSIZE for a full disk,
RLIMIT_NOFILE for descriptors, /dev/full for a log. What lb does then is written down in docs/operations.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lb.process.descriptors import open_now
from lb.supervisor.store import DAMAGED, FILE, LAST_GOOD
from tests.support.eventually import eventually
from tests.support.stage import Answer, Lb, Load, Stage, ask

pytestmark = pytest.mark.real_start


@contextmanager
def limited(pid: int, what: int, value: int) -> Iterator[None]:
    """A running process may have no more than this of something."""
    soft, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (value, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, what, (soft, hard))


def all_ready(lb: Lb) -> bool:
    return all(t["state"] == "ready" for s in lb.status()["services"] for p in s["pools"] for t in p["targets"])


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def two_pools(stage: Stage) -> Lb:
    path = stage.config({"blue": stage.pool("blue", 1), "green": stage.pool("green", 1)}, service="rollout: {bake: 0s}")
    lb = stage.start(path)
    eventually(lambda: all_ready(lb))
    return lb


class TestDiskFull:
    def test_for_the_state(self, stage: Stage) -> None:
        """Switches work on, lb says that they would not survive, and writes them when there is room again."""
        lb = two_pools(stage)
        with Load(lb.url, clients=2) as load:
            with limited(lb.process.pid, resource.RLIMIT_FSIZE, 0):
                assert lb.cli("switch", "greeting", "green").returncode == 0
                assert ask(f"{lb.url}/greeting").json["version"] == "green"
                assert "cannot be written" in lb.status()["state_trouble"]
                assert lb.metrics()["lb_state_writable"] == 0
            eventually(lambda: lb.metrics()["lb_state_writable"] == 1, what="nobody has to ask for it")
            eventually(lambda: not lb.status()["state_trouble"])
            counted = load.count
            eventually(lambda: load.count > counted + 20)
        assert not load.failed
        said = [event["text"] for event in ask(f"{lb.admin}/api/v1/events").json]
        assert sum("changes hold until lb ends" in text for text in said) == 1, "said once"
        again = "the desired state can be written again"  # perhaps the history of probes as well: it has its own beat
        assert sum(again in text for text in said) == 1
        assert lb.stop() == 0
        lb = stage.start(stage.folder / "lb.yaml")
        assert lb.status()["services"][0]["active"] == "green"

    def test_for_the_access_log(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        path.write_text(path.read_text().replace(str(stage.folder / "access.log"), "/dev/full"))
        lb = stage.start(path)
        with Load(lb.url, clients=2) as load:
            eventually(lambda: load.count > 50)
        assert not load.failed
        eventually(lambda: lb.metrics()["lb_access_log_lines_lost_total"] == load.count, what="lost lines are counted")

    def test_for_the_access_log_and_room_again(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}), 1)
        [worker] = lb.status()["workers"]
        with Load(lb.url, clients=2) as load:
            eventually(lambda: load.count > 50)
            with limited(worker, resource.RLIMIT_FSIZE, 10):
                eventually(lambda: lb.metrics()["lb_access_log_lines_lost_total"] > 10)
            before = load.count
            eventually(lambda: load.count > before + 50)
        assert not load.failed

        def whole() -> int:
            return sum(1 for line in lb.access.read_text().splitlines() if _is_json(line))

        eventually(
            lambda: whole() + lb.metrics()["lb_access_log_lines_lost_total"] >= load.count
        )  # a batch is lost whole
        assert whole() <= load.count
        assert len(lb.access.read_text().splitlines()) - whole() <= 1, "one may be torn, where the disk was full"

    def test_for_lbs_own_log(self, stage: Stage) -> None:
        backend = stage.backend()
        path = stage.config({"blue": [backend]})
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
            process = subprocess.Popen(
                [sys.executable, "-m", "lb", "run", str(path)], stderr=full, stdout=full, cwd=stage.folder
            )
        lb = Lb(process, stage.folder / "none", stage.folder / "access.log")
        lb.admin = "found below"
        stage.running.append(lb)
        lock = stage.folder / "state" / "events.jsonl"
        eventually(lambda: "serves" in lock.read_text(), 20)
        assert process.poll() is None
        lb.admin = ""
        process.terminate()
        assert process.wait(10) == 0


class TestDescriptors:
    def start(self, stage: Stage, limit: int) -> Lb:
        """An lb that may have only so many, now and later."""
        path = stage.config({"blue": stage.pool("blue", 1)})
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            errors = stage.folder / "few.err"
            with errors.open("wb") as sink:
                process = subprocess.Popen(
                    [sys.executable, "-m", "lb", "run", str(path), "--workers", "1"],
                    stderr=sink,
                    cwd=stage.folder,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
                )
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        lb = Lb(process, errors, stage.folder / "access.log")
        stage.running.append(lb)
        lb.await_start()
        eventually(lambda: all_ready(lb))
        return lb

    def test_as_many_connections_as_there_are_descriptors_for_and_the_rest_is_turned_away(self, stage: Stage) -> None:
        lb = self.start(stage, 200)  # (200 - 100) / 2
        assert "no more than 50 connections" in lb.errors.read_text()
        host, _, port = lb.url.removeprefix("http://").partition(":")
        crowd = [socket.create_connection((host, int(port)), 5) for _ in range(50)]
        for sock in crowd:
            sock.sendall(b"GET /greeting HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.settimeout(5)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        late = ask(f"{lb.url}/greeting")
        assert late.status == 503
        assert late.headers["Retry-After"]
        for sock in crowd:
            sock.sendall(b"GET /greeting HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 "), "those who were there are not disturbed"
        for sock in crowd:
            sock.close()
        eventually(lambda: ask(f"{lb.url}/greeting").status == 200)
        assert lb.metrics()['lb_rejected_total{reason="connections"}'] >= 1
        assert lb.status()["worker_restarts"] == 0

    def test_none_left_in_a_worker(self, stage: Stage) -> None:
        """Who is connected is served, who comes is turned away, no target is blamed, and it passes."""
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}), 1)
        eventually(lambda: all_ready(lb))
        [worker] = lb.status()["workers"]
        host, _, port = lb.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 5) as known:
            known.settimeout(5)

            def again() -> bool:
                known.sendall(b"GET /greeting HTTP/1.1\r\nHost: a\r\n\r\n")
                return known.recv(4096).startswith(b"HTTP/1.1 200 ")

            assert again()
            with limited(worker, resource.RLIMIT_NOFILE, open_now(worker)):
                assert again()
                for _ in range(20):
                    with contextlib.suppress(OSError, AssertionError):
                        ask(f"{lb.url}/greeting")
                assert again()
                [target] = lb.status()["services"][0]["pools"][0]["targets"]
                assert target["state"] == "ready"
            eventually(lambda: ask(f"{lb.url}/greeting").status == 200)
            assert again()
        assert lb.status()["worker_restarts"] == 0
        [target] = lb.status()["services"][0]["pools"][0]["targets"]
        assert target["state"] == "ready"

    def test_none_left_in_the_supervisor(self, stage: Stage) -> None:
        """Traffic goes on, what is known of the targets is kept, a worker that dies is replaced when it is possible."""
        lb = stage.start(stage.config({"blue": stage.pool("blue", 2)}))
        eventually(lambda: all_ready(lb))
        victim = lb.status()["workers"][0]
        with Load(lb.url, clients=2, keep=False) as load:
            with limited(lb.process.pid, resource.RLIMIT_NOFILE, 8):
                time.sleep(0.0)
                os.kill(victim, signal.SIGKILL)
                counted = load.count
                eventually(lambda: "cannot be started" in lb.errors.read_text())
                eventually(lambda: load.count > counted + 100)
            eventually(lambda: len(lb.status()["workers"]) == 2, 20)
            counted = load.count
            eventually(lambda: load.count > counted + 100)
        # The requests that the killed worker had in its hands are lost; no others.
        assert len(load.failed) <= 4
        assert all_ready(lb)


class TestDamagedState:
    def test_the_state_before_it_is_used(self, stage: Stage) -> None:
        lb = two_pools(stage)
        assert lb.cli("switch", "greeting", "green").returncode == 0
        assert lb.stop() == 0
        state = stage.folder / "state"
        (state / FILE).write_bytes((state / FILE).read_bytes()[:50])
        lb = stage.start(stage.folder / "lb.yaml")
        assert "the state before it is used" in lb.errors.read_text()
        assert (state / DAMAGED).exists()
        assert lb.status()["services"][0]["active"] in ("blue", "green")
        events = ask(f"{lb.admin}/api/v1/events").json
        assert any("damaged" in event["text"] for event in events)

    def test_without_any_good_one_the_file_decides(self, stage: Stage) -> None:
        lb = two_pools(stage)
        assert lb.cli("switch", "greeting", "green").returncode == 0
        assert lb.stop() == 0
        for name in (FILE, LAST_GOOD):
            (stage.folder / "state" / name).write_bytes(b"\x00" * 100)
        for name in ("verdicts.json", "events.jsonl"):
            (stage.folder / "state" / name).write_bytes(b"\xff{nonsense\n")
        lb = stage.start(stage.folder / "lb.yaml")
        assert "lb begins as the file says" in lb.errors.read_text()
        assert lb.status()["services"][0]["active"] == "blue"

    def test_an_unreadable_one_is_said(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        (stage.folder / "state" / FILE).mkdir(parents=True)
        lb = stage.start(path)
        assert FILE in lb.errors.read_text()
        assert ask(f"{lb.url}/greeting").status == 200

    def test_no_directory_no_start(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        (stage.folder / "state").write_text("a file")
        ended = subprocess.run(
            [sys.executable, "-m", "lb", "run", str(path)], capture_output=True, text=True, timeout=20, check=False
        )
        assert ended.returncode == 1
        assert "state_dir" in ended.stderr


def test_a_name_that_does_not_resolve_delays_and_disturbs_nobody(stage: Stage) -> None:
    good = stage.backend()
    path = stage.config({"blue": [good]})
    path.write_text(path.read_text().replace(good.url, f"{good.url}, http://no-such-host.invalid:80"))
    lb = stage.start(path)
    with Load(lb.url, clients=2) as load:
        eventually(lambda: load.count > 100)
    assert not load.failed
    explained = lb.cli("explain", "no-such-host.invalid:80").stdout
    assert "no-such-host.invalid" in explained
    assert "gets no traffic" in explained


CLOCK = """
import os, time
_time = time.time
_path = os.environ["LB_TEST_CLOCK"]
def jumped():
    try:
        with open(_path) as file:
            return _time() + float(file.read() or 0)
    except OSError:
        return _time()
time.time = jumped
time.time_ns = lambda: int(jumped() * 1e9)
"""


@pytest.mark.parametrize("jump", [86400.0, -86400.0], ids=["a day on", "a day back"])
def test_a_clock_that_jumps_moves_nothing_but_the_time_that_is_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """The wall clock of every lb process is moved at once, as by an administrator or a bad time server."""
    (stage.folder / "clock").mkdir()
    (stage.folder / "clock" / "sitecustomize.py").write_text(CLOCK)
    offset = stage.folder / "offset"
    monkeypatch.setenv("PYTHONPATH", str(stage.folder / "clock"))
    monkeypatch.setenv("LB_TEST_CLOCK", str(offset))
    backend = stage.backend()
    lb = stage.start(stage.config({"blue": [backend]}))
    eventually(lambda: all_ready(lb))

    def date(answer: Answer) -> float:
        from email.utils import parsedate_to_datetime

        return parsedate_to_datetime(answer.headers["Date"]).timestamp()

    with Load(lb.url, clients=2) as load:
        eventually(lambda: load.count > 50)
        offset.write_text(str(jump))
        eventually(
            lambda: abs(date(ask(f"{lb.url}/nowhere")) - time.time() - jump) < 5, what="answers have the new date"
        )
        counted = load.count
        eventually(lambda: load.count > counted + 200)
    assert not load.failed
    assert all_ready(lb)
    assert lb.status()["worker_restarts"] == 0
    expected = time.strftime("%Y-%m-%d", time.gmtime(time.time() + jump))
    eventually(lambda: json.loads(lb.access.read_text().splitlines()[-1])["time"].startswith(expected))
    changes = [event for event in ask(f"{lb.admin}/api/v1/events").json if event["kind"] == "transition"]
    assert len(changes) == 1, "the first one, at the start"
    backend.toggle()
    eventually(lambda: lb.state(backend.address) == "unready", 3.0, "probes keep to their interval")
