"""Signals that come while a process starts: noted from its first moment, acted on when it can.

Without a handler SIGHUP and SIGUSR1 end a process, and process 1 of a container never gets SIGTERM. Imports and the
configuration take a second in which operators, log rotation and orchestrators send both. So `lb run` and its workers
call `hold` before they import anything large, and the event loop's handlers ask `taken` what came before them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

#: Signals that end lb in order.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: All that lb acts on: a reload, a log rotation and an upgrade besides.
HANDLED = (*ENDING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Options of `lb` whose value is the next word.
VALUED = ("--admin", "--token-file")

_taken: list[int] = []


def hold() -> None:
    """Note all signals from now on. A second one that ends lb is not kept waiting: whatever is under way hangs."""
    for number in HANDLED:
        signal.signal(number, _note)


def hold_for_run(words: Sequence[str]) -> None:
    """Do so if the command line `words` is one of `lb run`; the other commands end by signals as any program does."""
    if os.path.basename(words[0]) in ("lb", "__main__.py") and command_of(words[1:]) == "run":  # noqa: PTH119
        hold()


def command_of(words: Sequence[str]) -> str:
    """The command among the words after `lb`; empty: none."""
    rest = iter(words)
    for word in rest:
        if word in VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def taken() -> list[int]:
    """What has come so far, once each and in order; it is forgotten."""
    found = list(dict.fromkeys(_taken))
    _taken.clear()
    return found


def _note(number: int, frame: FrameType | None) -> None:
    if number in ENDING and any(earlier in ENDING for earlier in _taken):
        sys.stderr.flush()
        os._exit(128 + number)
    _taken.append(number)
