"""Children that tests start have default signal handling, whatever pytest itself was started with."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1)


def test_a_child_ignores_and_blocks_no_signal() -> None:
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    masks = {name: int(mask, 16) for name, mask in re.findall(r"(SigIgn|SigBlk):\s+(\w+)", status)}
    held = [number.name for number in ENDING if (masks["SigIgn"] | masks["SigBlk"]) >> (number - 1) & 1]
    assert not held


@pytest.mark.slow
def test_that_is_so_under_nohup_and_in_the_background_of_a_shell() -> None:
    this = f"{__file__}::{test_a_child_ignores_and_blocks_no_signal.__name__}"
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", this]
    command = ["sh", "-c", 'trap "" HUP INT QUIT TERM USR1; exec "$@"', "sh", *run]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
