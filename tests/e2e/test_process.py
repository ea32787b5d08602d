"""`lb` as a process among others: signals, systemd, logs, workers that hang or grow."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.echo import EchoBackend, Tunnel
from tests.support.eventually import eventually
from tests.support.stage import Lb, Load, Stage, ask

pytestmark = pytest.mark.real_start


def all_ready(lb: Lb) -> bool:
    return all(t["state"] == "ready" for s in lb.status()["services"] for p in s["pools"] for t in p["targets"])


def asking(lb: Lb, path: str) -> socket.socket:
    """A connection with a request on it."""
    host, _, port = lb.url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)), 5)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    sock.settimeout(10)
    return sock


def refused(lb: Lb) -> bool:
    try:
        asking(lb, "/").close()
    except ConnectionRefusedError:
        return True
    return False


def test_workers_inherit_no_descriptor_of_the_caller(stage: Stage, tmp_path: Path) -> None:
    """Otherwise a lock of the caller would be held until the last worker has ended."""
    lock = tmp_path / "lock"
    with lock.open("w") as held:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}), inherits=(held.fileno(),))
    assert lock in held_by(lb.process.pid)
    workers = subprocess.run(["pgrep", "-P", str(lb.process.pid)], capture_output=True, text=True, check=True)
    for pid in workers.stdout.split():
        assert lock not in held_by(int(pid))


def held_by(pid: int) -> set[Path]:
    """The files that a process has open."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(each.readlink())
    return found


class TestStopping:
    @pytest.mark.timing
    def test_lame_duck_then_drain(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}, top="lame_duck: 1s\ndrain: 10s"))
        eventually(lambda: all_ready(lb))
        with asking(lb, "/slow?seconds=2.5") as slow:
            eventually(lambda: lb.status()["in_flight"])
            began = time.monotonic()
            lb.process.terminate()
            eventually(lambda: ask(f"{lb.admin}/readyz").status == 503, what="a balancer in front is told at once")
            assert ask(f"{lb.url}/greeting").status == 200, "and clients are served on meanwhile"
            assert ask(f"{lb.admin}/livez").status == 200
            eventually(lambda: refused(lb), 5.0, "then nobody is let in")
            assert time.monotonic() - began > 0.9
            answer = slow.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close" in answer
        assert lb.process.wait(5) == 0
        assert time.monotonic() - began < 6.0

    @pytest.mark.timing
    def test_the_drain_is_bounded(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}, top="drain: 1s"))
        eventually(lambda: all_ready(lb))
        with asking(lb, "/slow?seconds=60") as slow:
            eventually(lambda: lb.status()["in_flight"])
            began = time.monotonic()
            assert lb.stop() == 0
            assert 0.8 < time.monotonic() - began < 5.0
            assert b" 200 " not in slow.recv(65536)

    def test_websockets_are_told_to_go_before_a_short_drain_cuts_them(self, stage: Stage) -> None:
        echo = EchoBackend()
        text = "readiness: {protocol: tcp, interval: 200ms}"
        lb = stage.start(stage.config({"blue": [echo]}, service=text, top="drain: 3s"), 1)  # type: ignore[list-item]
        eventually(lambda: all_ready(lb))
        tunnels = [Tunnel(lb.url) for _ in range(4)]
        lb.process.terminate()
        assert [tunnel.goodbye(8.0) for tunnel in tunnels] == [1001] * 4
        for tunnel in tunnels:
            tunnel.close()
        assert lb.process.wait(10) == 0
        echo.close()

    @pytest.mark.timing
    def test_a_second_signal_is_at_once(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}, top="lame_duck: 60s\ndrain: 60s"))
        workers = lb.status()["workers"]
        with asking(lb, "/slow?seconds=60"):
            eventually(lambda: lb.status()["in_flight"])
            lb.process.send_signal(signal.SIGINT)
            eventually(lambda: ask(f"{lb.admin}/readyz").status == 503)
            began = time.monotonic()
            assert lb.stop(signal.SIGINT) == 0
            assert time.monotonic() - began < 3.0
        for pid in workers:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    @pytest.mark.parametrize("after", [0.0, 0.02, 0.05])
    def test_during_the_start(self, stage: Stage, after: float) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        process = subprocess.Popen(
            [sys.executable, "-m", "lb", "run", str(path)], stderr=subprocess.PIPE, cwd=stage.folder, text=True
        )
        eventually(lambda: (stage.folder / "state" / "lock").exists())
        time.sleep(after)  # anything may be under way: a worker half started as well
        process.terminate()
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert not list((stage.folder / "state").rglob("*.sock"))

    def test_unix_sockets_leave_no_files(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        where = stage.folder / "clients.sock"
        path.write_text(path.read_text().replace("[127.0.0.1:0]", f"[127.0.0.1:0, 'unix:{where}']"))
        lb = stage.start(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(where))
            client.sendall(b"GET /greeting HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert lb.stop() == 0
        assert not where.exists()


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestStarting:
    def begun(self, stage: Stage, number: int = signal.SIGTERM) -> Lb:
        """An `lb run` whose start has just begun: it notes signals, and has not read its file."""
        path = stage.config({"blue": stage.pool("blue", 1)}) if not stage.backends else stage.folder / "lb.yaml"
        errors = stage.folder / f"lb-{len(stage.running)}.err"
        with errors.open("wb") as sink:
            process = subprocess.Popen([sys.executable, "-m", "lb", "run", str(path)], stderr=sink, cwd=stage.folder)
        lb = Lb(process, errors, stage.folder / "access.log")
        stage.running.append(lb)
        eventually(lambda: handles(process.pid, number))
        return lb

    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH])
    def test_what_is_no_order_to_end_waits_for_the_start(self, stage: Stage, number: signal.Signals) -> None:
        lb = self.begun(stage)
        lb.process.send_signal(number)
        lb.await_start()
        if number == signal.SIGHUP:
            eventually(lambda: "reload" in {event["kind"] for event in ask(f"{lb.admin}/api/v1/events").json})
        if number == signal.SIGUSR2:
            eventually(lambda: lb.status()["pid"] != lb.process.pid, 30.0, "the upgrade that was asked for")
        assert ask(f"{lb.url}/greeting").status == 200
        assert lb.stop() == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    def test_an_order_to_end_ends_the_start(self, stage: Stage, number: signal.Signals) -> None:
        lb = self.begun(stage)
        assert lb.stop(number) == 0, lb.errors.read_text()
        assert "serves" not in lb.errors.read_text()

    def test_a_second_one_is_at_once(self, stage: Stage) -> None:
        """Whatever the start waits for: a name server, a file system that is gone."""
        lb = self.begun(stage)
        lb.process.send_signal(signal.SIGTERM)
        lb.process.send_signal(signal.SIGINT)
        assert lb.process.wait(5) in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM), "by the second"

    @pytest.mark.skipif(os.geteuid() != 0, reason="makes a PID namespace")
    def test_process_1_hears_of_it(self, stage: Stage) -> None:
        """For process 1 the kernel drops signals without a handler, as the first process of a container may see."""
        path = stage.config({"blue": stage.pool("blue", 1)})
        alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no PID namespaces here")
        command = [*alone, sys.executable, "-m", "lb", "run", str(path)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=stage.folder) as process:
            [first] = eventually(lambda: children(process.pid))
            eventually(lambda: handles(first, signal.SIGTERM))
            os.kill(first, signal.SIGTERM)
            assert process.wait(15) == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    @pytest.mark.parametrize("phase", ["spawned", "serving"])
    def test_its_workers_end_with_it(self, stage: Stage, number: signal.Signals, phase: str) -> None:
        lb = self.begun(stage)
        eventually(lambda: children(lb.process.pid))
        if phase == "serving":
            eventually(lambda: list((stage.folder / "state" / "workers").glob("*.sock")))
        workers = children(lb.process.pid)
        lb.process.send_signal(number)
        assert lb.process.wait(15) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        if "serves" not in lb.errors.read_text():  # else it had started well, and they may outlive it
            eventually(lambda: not any(runs(pid) for pid in workers))

    @pytest.mark.parametrize("phase", ["begun", "workers"])
    def test_one_that_was_to_follow_ends_the_workers_that_it_came_for(self, stage: Stage, phase: str) -> None:
        """Their supervisor has died; somebody starts lb, and stops it before it has started."""
        first = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        orphans = first.status()["workers"]
        first.process.kill()
        first.process.wait(5)
        lb = self.begun(stage)
        if phase == "workers":
            eventually(lambda: children(lb.process.pid))
        assert lb.stop() == 0, lb.errors.read_text()
        eventually(lambda: not any(runs(pid) for pid in orphans))

    def test_a_start_that_fails_leaves_them_serving(self, stage: Stage) -> None:
        first = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        orphans = first.status()["workers"]
        first.process.kill()
        first.process.wait(5)
        path = stage.folder / "lb.yaml"
        path.write_text(path.read_text().replace("admin: {bind: 127.0.0.1:0}", "admin: {bind: 192.0.2.1:1}"))
        done = subprocess.run(
            [sys.executable, "-m", "lb", "run", str(path)], capture_output=True, timeout=30, cwd=stage.folder
        )
        assert done.returncode == 1, done.stderr
        assert all(runs(pid) for pid in orphans)
        assert ask(f"{first.url}/greeting").status == 200


class Systemd:
    """The socket that systemd listens on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(self.path))
        self.told: list[str] = []

    def heard(self, line: str) -> bool:
        while select.select([self.sock], [], [], 0)[0]:
            self.told += self.sock.recv(4096).decode().splitlines()
        return line in self.told


class TestSystemd:
    def test_type_notify_and_watchdog(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        systemd = Systemd(stage.folder)
        monkeypatch.setenv("NOTIFY_SOCKET", str(systemd.path))
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        eventually(lambda: systemd.heard("READY=1"))
        assert f"MAINPID={lb.process.pid}" in systemd.told
        eventually(lambda: systemd.heard("") or systemd.told.count("WATCHDOG=1") >= 3, what="a sign of life")
        systemd.told.clear()
        lb.process.send_signal(signal.SIGHUP)
        eventually(lambda: systemd.heard("RELOADING=1"))
        eventually(lambda: systemd.heard("READY=1"))
        assert any(line.startswith("MONOTONIC_USEC=") for line in systemd.told)
        assert lb.stop() == 0
        assert systemd.heard("STOPPING=1")

    def test_an_upgrade_names_the_new_main_process_and_the_old_one_ends(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        systemd = Systemd(stage.folder)
        monkeypatch.setenv("NOTIFY_SOCKET", str(systemd.path))
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        assert lb.cli("upgrade", timeout=60).returncode == 0
        pid = lb.status()["pid"]
        eventually(lambda: systemd.heard(f"MAINPID={pid}"))
        assert lb.process.wait(10) == 0
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not Path(f"/proc/{pid}/cwd").exists())

    def test_socket_activation(self, stage: Stage) -> None:
        """systemd has opened both addresses; a client that came before lb did is served when it is there."""
        backend = stage.backend()
        with socket.socket() as clients, socket.socket() as admin:
            for sock in (clients, admin):
                sock.bind(("127.0.0.1", 0))
                sock.listen(16)
            ports = clients.getsockname()[1], admin.getsockname()[1]
            path = stage.file(
                f"listeners: ['127.0.0.1:{ports[0]}']\nadmin: {{bind: '127.0.0.1:{ports[1]}'}}\n"
                f"backends: [{backend.url}]\naccess_log: off\nstate_dir: state\n"
            )
            early = socket.create_connection(clients.getsockname())
            early.sendall(b"GET /greeting HTTP/1.1\r\nHost: a\r\n\r\n")

            def place() -> None:
                one, two = os.dup(clients.fileno()), os.dup(admin.fileno())
                os.dup2(one, 3)
                os.dup2(two, 4)

            errors = stage.folder / "activated.err"
            with errors.open("wb") as sink:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" -m lb run "$@"', sys.executable, str(path)],
                    env={**os.environ, "LISTEN_FDS": "2"},
                    stderr=sink,
                    close_fds=False,
                    preexec_fn=place,
                    cwd=stage.folder,
                )
        lb = Lb(process, errors, stage.folder / "none")
        stage.running.append(lb)
        lb.await_start()
        assert lb.url.endswith(f":{ports[0]}")
        assert lb.admin.endswith(f":{ports[1]}")
        early.settimeout(10)
        assert early.recv(4096).startswith(b"HTTP/1.1 200 ")
        early.close()
        with Load(lb.url, clients=4, keep=False) as load:
            eventually(lambda: load.count > 50)
        assert not load.failed


class TestWorkers:
    def test_one_that_hangs_is_replaced(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}, top="worker_limits: {hang: 2s}"))
        victim = lb.status()["workers"][0]
        os.kill(victim, signal.SIGSTOP)
        eventually(lambda: victim not in lb.status()["workers"] and len(lb.status()["workers"]) == 2, 15)
        assert "gave no sign of life" in lb.errors.read_text()
        with Load(lb.url, clients=4, keep=False) as load:
            eventually(lambda: load.count > 50)
        assert not load.failed

    def test_what_one_had_in_hand_when_it_was_killed_is_told_and_counted(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}), 1)
        eventually(lambda: all_ready(lb))
        assert ask(f"{lb.url}/greeting").status == 200
        with asking(lb, "/slow?seconds=60"), asking(lb, "/slow?seconds=60"):
            eventually(lambda: lb.status()["in_flight"] == 2)
            os.kill(lb.status()["workers"][0], signal.SIGKILL)
            eventually(lambda: "with 2 requests under way" in lb.errors.read_text())
        assert lb.metrics()["lb_requests_lost_total"] == 2

    def test_one_that_is_too_large_is_recycled(self, stage: Stage) -> None:
        path = stage.config({"blue": stage.pool("blue", 1)})
        lb = stage.start(path)
        old = lb.status()["workers"]
        with Load(lb.url, clients=4) as load:
            path.write_text(path.read_text() + "worker_limits: {memory: 1MiB}\n")
            assert lb.cli("reload").returncode == 0
            eventually(lambda: not set(old) & set(lb.status()["workers"]), 15)
            eventually(lambda: not lb.status()["workers_leaving"], 15)
            counted = load.count
            eventually(lambda: load.count > counted + 50)
        assert not load.failed
        assert lb.metrics()["lb_worker_restarts_total"] == 0
        total = sum(value for name, value in lb.metrics().items() if name.startswith("lb_requests_total{"))
        assert total == load.count


class TestLogs:
    def test_json_lines_one_per_change(self, stage: Stage) -> None:
        backend = stage.backend()
        lb = stage.start(stage.config({"blue": [backend]}, top="log: {format: json}"))
        backend.toggle()
        eventually(lambda: lb.state(backend.address) == "unready")
        assert lb.stop() == 0
        lines = [json.loads(line) for line in lb.errors.read_text().splitlines() if line.startswith("{")]
        changes = [line for line in lines if line.get("kind") == "transition"]
        assert [(line["before"], line["after"]) for line in changes] == [("starting", "ready"), ("ready", "unready")]
        assert changes[1]["subject"] == f"greeting/blue/{backend.address}"
        assert "503" in changes[1]["text"]
        assert {line["level"] for line in lines} == {"info"}

    def test_a_level_takes_effect_at_a_reload(self, stage: Stage) -> None:
        backend = stage.backend()
        path = stage.config({"blue": [backend]})
        lb = stage.start(path)
        path.write_text(path.read_text() + "log: {level: error}\n")
        assert lb.cli("reload").returncode == 0
        said = len(lb.errors.read_text())
        backend.toggle()
        eventually(lambda: lb.state(backend.address) == "unready")
        assert len(lb.errors.read_text()) == said
        assert any(e["after"] == "unready" for e in ask(f"{lb.admin}/api/v1/events").json), (
            "it is an event all the same"
        )

    def test_sigusr1_reopens_the_access_log_and_no_line_is_lost(self, stage: Stage) -> None:
        lb = stage.start(stage.config({"blue": stage.pool("blue", 1)}))
        with Load(lb.url, clients=4) as load:
            for number in range(3):
                counted = load.count
                eventually(lambda counted=counted: load.count > counted + 50)
                lb.access.rename(stage.folder / f"access.{number}")
                lb.process.send_signal(signal.SIGUSR1)
                eventually(lb.access.exists, what="a new file")
        assert lb.stop() == 0
        lines = [line for path in stage.folder.glob("access.*") for line in path.read_text().splitlines()]
        assert len(lines) == load.count
        assert all(json.loads(line)["status"] == 200 for line in lines)

    def test_secrets_are_never_said(self, stage: Stage) -> None:
        secret = "s3cr3t-" + os.urandom(8).hex()
        (stage.folder / "token").write_text(secret + "\n")
        backend = stage.backend()
        path = stage.config({"blue": [backend]}, service=f"""
readiness: {{path: /health/readiness, interval: 200ms, timeout: 500ms, fall: 1, headers: {{Authorization: {secret}}}}}
liveness: {{path: /health/liveness, interval: 200ms, fall: 1, on_failure: {{webhook: "http://127.0.0.1:1/{secret}?{secret}"}}}}
""")  # fmt: skip
        path.write_text(path.read_text().replace("admin: {bind", "admin: {token_file: token, bind"))
        lb = stage.start(path)
        headers = {"Authorization": f"Bearer {secret}"}
        assert ask(f"{lb.admin}/api/v1/status").status == 401
        ask(f"{lb.url}/greeting?key=1", headers={"Authorization": f"Bearer {secret}", "Cookie": secret})
        ask(f"{lb.admin}/api/v1/reload", "POST", b"{}", {**headers, "Content-Type": "application/json"})
        path.write_text(path.read_text().replace(f"Authorization: {secret}", f"Authorization: x{secret}"))
        ask(f"{lb.admin}/api/v1/reload", "POST", b"{}", {**headers, "Content-Type": "application/json"})
        backend.kill()
        eventually(lambda: "unready" in lb.errors.read_text())
        eventually(lambda: "webhook" in lb.errors.read_text() or "liveness" in lb.errors.read_text())
        said = [
            ask(f"{lb.admin}/{path}", headers=headers).body.decode()
            for path in ("api/v1/status", "api/v1/events", "metrics", f"api/v1/explain/{backend.address}")
        ]
        lb.process.terminate()
        lb.process.wait(10)
        said += [lb.errors.read_text(), lb.access.read_text()]
        said += [path.read_text() for path in (stage.folder / "state").iterdir() if path.is_file()]
        assert not [text for text in said if secret in text]
