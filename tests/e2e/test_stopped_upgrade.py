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
    path = stage.config({"blue": stage.pool("blue", 1)})
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
    requests = [asking(lb) for _ in range(8)]  # workers of both lbs take some, where both serve
    lb.process.terminate()
    time.sleep(0.3)  # in which an lb that does not wait for the other one would end
    (stage.folder / "go").touch()
    for sock in requests:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), lb.errors.read_text()
        sock.close()
    assert lb.process.wait(15) == 0, lb.errors.read_text()
    eventually(lambda: not processes_in(stage.folder), 5.0, f"nobody is left: {lb.errors.read_text()}")
    assert not list((stage.folder / "state").rglob("*.sock"))
    assert "Traceback" not in lb.errors.read_text()
