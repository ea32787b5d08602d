"""A short run of the model; the long ones have commands of their own (README.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(1000)  # three minutes where nothing else runs
def test_nothing_is_found_in_a_short_run() -> None:
    command = [sys.executable, "-m", "tests.model", "--seeds", "12", "--steps", "1800", "--jobs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.stdout.endswith("1800 steps, 12 seeds, 0 violations\n"), done.stdout + done.stderr
    assert done.returncode == 0
