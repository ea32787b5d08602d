"""The rest of a supervisor after an upgrade: a process id that other processes watch.

A terminal, a container or another supervisor has started process A, and A has handed over to B. A becomes this: it
passes signals on to B, asks for every child that ends, and ends when B does, with B's exit status. When B hands over to
C in turn and ends, C becomes a child of this process (it is a subreaper, prctl(2)). C's process id is in the lock of
the state directory.

A signal to end that B got when it had handed over already is passed on to C, once: by B, or by this process where B
ended before. B's exit status says how many it has passed on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from lb.early_signals import ENDING, HANDLED

_PR_SET_CHILD_SUBREAPER = 36
PASSED_ON = HANDLED
#: Exit status of a supervisor behind a pid proxy that has handed over; the signals to end that it has passed on are
#: added to it.
HANDED_OVER = 100
#: So many at most.
MOST_TOLD = 20


def main() -> int:
    """Follow the supervisor given by its pid; the second argument is the lock's path."""
    followed, lock = int(sys.argv[1]), Path(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    waited = {*PASSED_ON, signal.SIGCHLD}
    to_end: list[int] = []  # signals to end, which the followed process has got
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    while True:
        status = _reap(followed)
        if status is not None:
            told = HANDED_OVER <= status <= HANDED_OVER + MOST_TOLD
            successor = _holder(lock)
            if successor == followed or not _is_child(successor):
                return 0 if told else status
            followed = successor
            for number in to_end[status - HANDED_OVER if told else 0 :]:
                _signal(followed, number)
            continue
        number = signal.sigwait(waited)
        if number in PASSED_ON:
            _signal(followed, number)
        if number in ENDING:
            to_end.append(number)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap(followed: int) -> int | None:
    """Ask for every child that has ended; the exit status of the one that is followed, if it was among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 1 if found is None else found
        if pid == 0:
            return found
        if pid == followed:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def _holder(lock: Path) -> int:
    try:
        return int(lock.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _is_child(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    except (OSError, IndexError):
        return False


if __name__ == "__main__":
    sys.exit(main())
