"""`lb` whose upgrade stops at one step, until a test lets it go on.

    python -m tests.support.held_upgrade run FILE

is `lb run FILE`. `$LB_HOLD` names the step, and a folder. At the step the process writes its id into `held` there, and
goes on when `go` is there. Its event loop runs meanwhile, except at steps that are no coroutine.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lb import early_signals

if __name__ == "__main__":
    early_signals.hold()

from lb.cli.main import main
from lb.supervisor import main as supervisor
from lb.supervisor.admin_port import AdminPort
from lb.supervisor.upgrade import VARIABLE, Predecessor, Successor
from lb.supervisor.workers import Workers

STEP, _, FOLDER = os.environ.get("LB_HOLD", "").partition(":")
IS_NEW = VARIABLE in os.environ
#: Steps of the two processes: the call, and whether it is held before or after it.
OLD: dict[str, tuple[Any, str, str]] = {
    "old_begins": (Successor, "start", "before"),
    "old_has_started_it": (Successor, "start", "after"),
    "old_heard_ready": (Successor, "ready", "after"),
    "old_admin_paused": (AdminPort, "pause", "after"),
    "old_heard_done": (Successor, "go", "after"),
    "old_blocks_signals": (supervisor, "_block_signals", "before"),
    "old_steps_aside": (supervisor, "step_aside", "before"),
}
NEW: dict[str, tuple[Any, str, str]] = {
    "new_looks": (supervisor, "find_orphans", "before"),
    "new_has_found": (supervisor, "find_orphans", "after"),
    "new_workers_serve": (Workers, "start", "after"),
    "new_is_told": (Predecessor, "hand_over", "after"),
    "new_serves_admin": (AdminPort, "resume", "before"),
    "new_adopts": (Workers, "adopt", "before"),
    "new_has_adopted": (Workers, "adopt", "after"),
    "new_says_done": (Predecessor, "done", "before"),
    "new_has_said_done": (Predecessor, "done", "after"),
}
#: Steps of the lb that the second upgrade replaces.
SECOND = {f"second_{step}": where for step, where in OLD.items()}


def _arrive() -> Path | None:
    held = Path(FOLDER) / "held"
    if held.exists():
        return None
    draft = Path(FOLDER) / f"held.{os.getpid()}"
    draft.write_text(str(os.getpid()))
    draft.rename(held)
    return Path(FOLDER) / "go"


async def _hold() -> None:
    go = _arrive()
    while go is not None and not go.exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)


def _hold_at_once() -> None:
    go = _arrive()
    while go is not None and not go.exists():
        time.sleep(0.01)


def _install(owner: Any, name: str, where: str) -> None:
    call: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(call)
    async def waits(*arguments: Any, **named: Any) -> Any:
        if where == "before":
            await _hold()
        result = await call(*arguments, **named)
        if where == "after":
            await _hold()
        return result

    @functools.wraps(call)
    def blocks(*arguments: Any, **named: Any) -> Any:
        if where == "before":
            _hold_at_once()
        result = call(*arguments, **named)
        if where == "after":
            _hold_at_once()
        return result

    setattr(owner, name, waits if asyncio.iscoroutinefunction(call) else blocks)


if __name__ == "__main__":
    steps = {**NEW, **SECOND} if IS_NEW else OLD
    if STEP in steps:
        _install(*steps[STEP])
    main()
