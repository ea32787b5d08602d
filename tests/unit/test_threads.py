"""Signals are the main thread's: no other thread may take one that the main thread keeps for later."""

from __future__ import annotations

import signal
from pathlib import Path

from lb.early_signals import HANDLED
from lb.net.threads import threads

LB = Path(__file__).parents[2] / "lb"


def test_threads_take_no_signals() -> None:
    with threads(1, "test") as pool:
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert blocked >= set(HANDLED)


def test_all_pools_are_made_this_way() -> None:
    made = [path for path in LB.rglob("*.py") if "ThreadPoolExecutor(" in path.read_text()]
    assert made == [LB / "net/threads.py"]
