"""A short run of the model end to end; the long ones have a command of their own (README.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timing
@pytest.mark.slow
def test_nothing_is_found_in_a_short_run_of_real_processes() -> None:
    command = [sys.executable, "-m", "tests.model.e2e", "--seed", "4", "--seconds", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.endswith(" steps, 1 seeds, 0 violations\n"), done.stdout + done.stderr
    assert done.returncode == 0
