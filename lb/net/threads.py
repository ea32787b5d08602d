"""Threads that take no signals: each is the main thread's.

The kernel gives a process's signal to any thread that does not block it. When the main thread blocks signals, to keep
them for another lb, an idle thread would take one, and with the loop's handlers gone it would end the process.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from lb.early_signals import HANDLED


def threads(most: int, name: str) -> ThreadPoolExecutor:
    """A pool of at most so many threads, whose names begin with `name`."""
    return ThreadPoolExecutor(most, name, initializer=_leave_to_the_main_thread)


def _leave_to_the_main_thread() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
