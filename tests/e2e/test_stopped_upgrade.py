"""An order to end, at each step of an upgrade: both lbs end with all workers, once requests have been answered.

The steps are held by `tests.support.held_upgrade`, so that the order comes at the same point each time.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.stage import Lb, Stage, ask

pytestmark = pytest.mark.real_start

#: The folder of the tests, for an lb that runs one of their modules.
ROOT = Path(__file__).parents[2]


def held_at(stage: Stage, step: str) -> Lb:
    """An lb whose upgrade has come to a step, and waits there for the file `go`."""
    target = stage.backend("blue")
    path = stage.config({"blue": [target]})
    errors = stage.folder / "lb.err"
    with errors.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.held_upgrade", "run", str(path), "--workers", "2"],
            stdout=subprocess.DEVNULL,
            stderr=sink,
            cwd=stage.folder,
            env={**os.environ, "LB_HOLD": f"{step}:{stage.folder}", "PYTHONPATH": str(ROOT)},
        )
    lb = Lb(process, errors, stage.folder / "access.log")
    stage.running.append(lb)
    lb.await_start()
    eventually(lambda: ask(f"{lb.admin}/readyz").status == 200)
    # From here on there is an idle thread, which wrote it down.
    assert lb.cli("weight", f"127.0.0.1:{target.port}", "2").returncode == 0
    if step.startswith("second_"):
        first = lb.status()["pid"]
        lb.process.send_signal(signal.SIGUSR2)
        eventually(lambda: lb.status()["pid"] != first, 30.0, "the first upgrade")
        eventually(lambda: b"pid_proxy" in Path(f"/proc/{first}/cmdline").read_bytes(), 10.0)
    lb.process.send_signal(signal.SIGUSR2)
    eventually((stage.folder / "held").exists, 30.0, step)
    return lb


def asking(lb: Lb) -> socket.socket:
    """A connection with a request on it that takes a second."""
    host, _, port = lb.url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)), 5)
    sock.sendall(b"GET /slow?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    sock.settimeout(15)
    return sock


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes whose working directory it is."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                if (each / "cwd").readlink() == folder and (command := (each / "cmdline").read_bytes()):
                    found.append(f"{each.name} {command.replace(bytes(1), b' ').decode()}")
            except OSError:
                continue
    return found


@pytest.mark.parametrize(
    "step",
    [
        "old_has_started_it",
        "old_heard_ready",
        "old_admin_paused",
        "old_heard_done",
        "old_blocks_signals",
        "old_steps_aside",
        "new_has_found",
        "new_workers_serve",
        "new_is_told",
        "new_adopts",
        "new_says_done",
        "new_has_said_done",
    ],
)
def test_an_order_to_end_leaves_no_process_and_loses_no_request(stage: Stage, step: str) -> None:
    lb = held_at(stage, step)
    _all_end_after_an_order(stage, lb, lb.process.pid)
    assert lb.process.wait(15) == 0, lb.errors.read_text()


@pytest.mark.parametrize("step", ["second_old_heard_done", "second_old_blocks_signals", "second_old_steps_aside"])
@pytest.mark.parametrize("ordered", ["pid_proxy", "old"])
def test_so_does_one_to_either_process_in_a_second_upgrade(stage: Stage, step: str, ordered: str) -> None:
    """Where both pass it on, the new lb ends at once, and requests get no answer."""
    lb = held_at(stage, step)
    pid = lb.process.pid if ordered == "pid_proxy" else int((stage.folder / "held").read_text())
    _all_end_after_an_order(stage, lb, pid)
    assert lb.process.wait(15) == 0, lb.errors.read_text()


@pytest.mark.parametrize("step", ["old_heard_done", "old_blocks_signals", "old_steps_aside"])
def test_so_does_one_of_systemd_to_the_main_process_that_it_still_knows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the process steps aside, threads may idle: none of them takes the signal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(stage.folder / "notify"))
        systemd.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(stage.folder / "notify"))
        lb = held_at(stage, step)
        requests = [asking(lb) for _ in range(8)]
        if step != "old_heard_done":
            lb.process.terminate()
        (stage.folder / "go").touch()
        said, descriptors = b"", [-1]
        while said != b"BARRIER=1":
            said, descriptors, _, _ = socket.recv_fds(systemd, 4096, 1)
        if step == "old_heard_done":
            lb.process.terminate()
        os.close(descriptors[0])  # from here on it knows the new main process
        _all_end(stage, lb, requests)


def _all_end_after_an_order(stage: Stage, lb: Lb, pid: int) -> None:
    requests = [asking(lb) for _ in range(8)]  # workers of both lbs take some, where both serve
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)  # in which an lb that does not wait for the other one would end
    (stage.folder / "go").touch()
    _all_end(stage, lb, requests)


def _all_end(stage: Stage, lb: Lb, requests: list[socket.socket]) -> None:
    for sock in requests:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), lb.errors.read_text()
        sock.close()

    def nobody_is_left() -> bool:
        left = processes_in(stage.folder)
        assert not left, f"{left}: {lb.errors.read_text()}"
        return True

    eventually(nobody_is_left, 20.0)
    assert not list((stage.folder / "state").rglob("*.sock"))
    assert "Traceback" not in lb.errors.read_text()
