"""One lb follows another: after a kill -9, and in an upgrade, under load and without a refused connection."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.processes import alive
from tests.support.stage import Lb, Load, Stage, ask

pytestmark = pytest.mark.real_start


def kill_supervisor(lb: Lb) -> None:
    os.kill(lb.status()["pid"], signal.SIGKILL)
    lb.process.wait(5)


class TestDeathOfTheSupervisor:
    def test_workers_serve_on_and_the_next_lb_takes_over_without_a_refused_connection(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 2)})
        lb = stage.start(path)
        orphans = lb.status()["workers"]
        with Load(lb.url, clients=4) as load, Load(lb.url, clients=4, keep=False) as callers:
            eventually(lambda: load.count > 100)
            counted = load.count
            kill_supervisor(lb)
            eventually(lambda: load.count > counted + 200, what="the workers serve on")
            heir = stage.start(path)
            assert heir.url == lb.url, "a port that was chosen stays the same"
            eventually(lambda: not any(alive(pid) for pid in orphans), 15, "the orphans have drained away")
            counted = load.count
            eventually(lambda: load.count > counted + 200)
        assert not load.failed
        assert not callers.failed, "connections come all the time, and none may be refused"
        assert "workers of an lb that had died" in heir.errors.read_text()

    def test_what_orphans_have_counted_is_not_lost(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 2)})
        lb = stage.start(path)
        with Load(lb.url, clients=4) as load:
            eventually(lambda: load.count > 200)
            kill_supervisor(lb)
            counted = load.count
            eventually(lambda: load.count > counted + 200)
            heir = stage.start(path)
            counted = load.count
            eventually(lambda: load.count > counted + 200)
        total = sum(value for name, value in heir.metrics().items() if name.startswith("lb_requests_total{"))
        assert total == load.count

    def test_what_an_orphan_had_in_hand_when_it_was_killed_is_told(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        lb = stage.start(path, 1)
        [orphan] = lb.status()["workers"]
        eventually(lambda: ask(f"{lb.url}/greeting").status == 200)
        host, _, port = lb.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 5) as sock:
            sock.sendall(b"GET /slow?seconds=60 HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: lb.status()["in_flight"] == 1)
            kill_supervisor(lb)
            heir = stage.start(path, 1)
            eventually(lambda: heir.status()["workers_leaving"] == [orphan])
            os.kill(orphan, signal.SIGKILL)
            eventually(lambda: "ended while it drained, with 1 request under way" in heir.errors.read_text())
        assert heir.metrics()["lb_requests_lost_total"] == 1

    def test_orphans_serve_for_a_bounded_time_and_say_so(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}, top="worker_limits: {orphan: 4s}"))
        orphans = lb.status()["workers"]
        kill_supervisor(lb)
        killed = time.monotonic()
        eventually(lambda: lb.errors.read_text().count("the supervisor is gone: targets are not probed") == 2)
        assert "This worker serves on, and ends in 4 s. Start `lb run` again" in lb.errors.read_text()
        while time.monotonic() < killed + 2.5:
            assert ask(f"{lb.url}/greeting").status == 200
            time.sleep(0.1)
        eventually(lambda: not any(alive(pid) for pid in orphans), 15, "the orphans have ended")
        assert time.monotonic() - killed > 3.5
        assert lb.errors.read_text().count("the supervisor has been gone for 4 s (worker_limits.orphan: 4 s)") == 2

    def test_a_start_within_the_bound_takes_them_over_without_a_lost_request(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)}, top="worker_limits: {orphan: 15s}")
        lb = stage.start(path)
        with Load(lb.url, clients=2) as load, Load(lb.url, clients=2, keep=False) as callers:
            eventually(lambda: load.count > 100)
            kill_supervisor(lb)
            heir = stage.start(path)
            eventually(lambda: "workers of an lb that had died" in heir.errors.read_text())
            counted = load.count
            eventually(lambda: load.count > counted + 100)
        assert not load.failed
        assert not callers.failed
        assert "worker_limits.orphan" not in heir.errors.read_text() + lb.errors.read_text()

    def test_orphans_end_on_sigterm(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        orphans = lb.status()["workers"]
        kill_supervisor(lb)
        for pid in orphans:
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(alive(pid) for pid in orphans))
        assert not list((stage.folder / "state" / "workers").iterdir()), "they leave nothing behind"

    def test_an_orphan_that_hangs_is_killed(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        lb = stage.start(path)
        orphans = lb.status()["workers"]
        kill_supervisor(lb)
        os.kill(orphans[0], signal.SIGSTOP)
        heir = stage.start(path)
        assert not alive(orphans[0])
        assert "hung and were killed" in heir.errors.read_text()
        assert ask(f"{heir.url}/greeting").status == 200

    def test_orphans_know_of_switches_until_they_end(self, stage: Stage) -> None:
        """A slow request keeps an orphan; its next one on the same connection goes where the service is now."""
        blue, green = stage.backend("blue"), stage.backend("green")
        path = stage.config({"blue": [blue], "green": [green]})
        lb = stage.start(path, 1)
        [orphan] = lb.status()["workers"]
        with Load(lb.url, clients=1, path="/slow?seconds=5") as slow:
            eventually(lambda: lb.status()["in_flight"])
            kill_supervisor(lb)
            heir = stage.start(path, 1)
            assert alive(orphan)
            eventually(lambda: heir.state(green.address) == "ready")
            assert heir.cli("switch", "greeting", "green").returncode == 0
            counted = slow.count
            eventually(lambda: slow.count > counted, 20.0)
        assert not slow.failed


class TestUpgrade:
    def test_nobody_notices(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 2)})
        lb = stage.start(path)
        before = lb.status()
        with Load(lb.url, clients=4) as load, Load(lb.url, clients=4, keep=False) as callers:
            eventually(lambda: load.count > 100)
            done = lb.cli("upgrade", timeout=60)
            assert done.returncode == 0, done.stderr
            after = lb.status()
            eventually(lambda: not any(alive(pid) for pid in before["workers"]), 15, "the old workers have ended")
            counted = load.count
            eventually(lambda: load.count > counted + 200)
        assert after["pid"] != before["pid"]
        assert f"process {after['pid']}" in done.stdout
        assert not set(after["workers"]) & set(before["workers"])
        assert not load.failed
        assert not callers.failed
        total = sum(value for name, value in lb.metrics().items() if name.startswith("lb_requests_total{"))
        assert total == load.count + callers.count, "counters go on"

    def test_who_started_lb_still_has_a_process_to_signal(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        for _ in range(2):
            assert lb.cli("upgrade", timeout=60).returncode == 0
        assert lb.process.poll() is None
        status = lb.status()
        assert lb.stop() == 0
        assert not any(alive(pid) for pid in (status["pid"], *status["workers"]))

    def test_by_signal(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        before = lb.status()["pid"]
        lb.process.send_signal(signal.SIGUSR2)
        eventually(lambda: lb.status()["pid"] != before, 20)

    def test_backs_out_when_the_new_one_cannot_start(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        lb = stage.start(path)
        before = lb.status()
        path.write_text(path.read_text() + "nonsense: 1\n")
        with Load(lb.url, clients=2) as load:
            refused = lb.cli("upgrade", timeout=60)
            counted = load.count
            eventually(lambda: load.count > counted + 100)
        assert refused.returncode == 1
        assert "Backed out" in refused.stderr
        after = lb.status()
        assert (after["pid"], after["workers"]) == (before["pid"], before["workers"])
        assert not load.failed

    def test_one_that_backs_out_leaves_unix_sockets_to_the_lb_that_goes_on(self, stage: Stage) -> None:
        """It had opened them, too, and its end removed their files: clients found nothing there any more."""
        backend = stage.backend()
        path, where = stage.config({"blue": [backend]}), stage.folder / "lb.sock"
        path.write_text(path.read_text().replace("[127.0.0.1:0]", f"[127.0.0.1:0, 'unix:{where}']"))
        lb = stage.start(path)
        path.write_text(path.read_text().replace(backend.url, "http://127.0.0.1:1"))
        refused = lb.cli("upgrade", "--within", "15", timeout=60)
        assert "no ready target" in refused.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(where))
            client.sendall(b"GET /greeting HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        lb.stop()
        assert not where.exists()

    def test_backs_out_when_the_new_one_is_not_ready_in_time(self, stage: Stage) -> None:
        backend = stage.backend()
        path = stage.config({"blue": [backend]})
        lb = stage.start(path)
        before = lb.status()
        # The file now names a target that never answers: the new lb would have nobody to send requests to.
        path.write_text(path.read_text().replace(backend.url, "http://127.0.0.1:1"))
        with Load(lb.url, clients=2) as load:
            refused = lb.cli("upgrade", "--within", "15", timeout=60)
            counted = load.count
            eventually(lambda: load.count > counted + 100)
        assert refused.returncode == 1
        assert "no ready target" in refused.stderr
        assert lb.status()["workers"] == before["workers"]
        assert not load.failed
        eventually(lambda: len(list((stage.folder / "state" / "workers").iterdir())) == 2, what="its workers are gone")

    def test_brings_what_a_reload_cannot(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)}, top="workers: 1")
        lb = stage.start(path, 0)
        assert len(lb.status()["workers"]) == 1
        path.write_text(path.read_text().replace("workers: 1", "workers: 3"))
        reloaded = lb.cli("reload")
        assert "needs a restart" in reloaded.stdout
        assert any("workers" in line for line in lb.status()["config"]["needs_restart"])
        assert lb.cli("upgrade", timeout=60).returncode == 0
        assert len(lb.status()["workers"]) == 3
        assert not lb.status()["config"]["needs_restart"]

    def test_switches_and_drains_outlive_it(self, stage: Stage) -> None:
        blue, green = stage.pool("blue", 2), stage.pool("green", 1)
        lb = stage.start(stage.config({"blue": blue, "green": green}))
        eventually(lambda: lb.state(green[0].address) == "ready")
        assert lb.cli("switch", "greeting", "green").returncode == 0
        assert lb.cli("drain", blue[0].address).returncode == 0
        assert lb.cli("upgrade", timeout=60).returncode == 0
        assert lb.status()["services"][0]["active"] == "green"
        eventually(lambda: lb.state(blue[0].address) == "drained")
        assert ask(f"{lb.url}/greeting").json["version"] == "green"

    def test_the_demo_says_why_not(self, stage: Stage) -> None:
        path = stage.file("listeners: [127.0.0.1:0]\nadmin: {bind: 127.0.0.1:0}\nbackends: [http://127.0.0.1:0]\n")
        lb = stage.start(path, 1, "--demo")
        refused = lb.cli("upgrade")
        assert refused.returncode == 1
        assert "demo" in refused.stderr


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_supervisor_that_is_killed_around_an_upgrade_leaves_a_working_lb(stage: Stage, moment: str) -> None:
    path = stage.config({"blue": stage.pool("blue", 1)})
    lb = stage.start(path)
    with Load(lb.url, clients=2) as load:
        eventually(lambda: load.count > 50)
        if moment == "before":
            lb.process.send_signal(signal.SIGUSR2)
            time.sleep(0.3)  # the successor is on its way
            os.kill(lb.process.pid, signal.SIGKILL)
        else:
            assert lb.cli("upgrade", timeout=60).returncode == 0
            os.kill(lb.status()["pid"], signal.SIGKILL)
        lb.process.wait(10)
        counted = load.count
        eventually(lambda: load.count > counted + 100, what="clients are served")
        eventually(lambda: _startable(stage, path), 30, "a new lb takes over")
        counted = load.count
        eventually(lambda: load.count > counted + 100)
    assert not load.failed


def _startable(stage: Stage, path: Path) -> bool:
    try:
        stage.start(path)
    except RuntimeError:  # the successor that lost its predecessor still holds the state directory
        return False
    return True
