"""Runs a user's function that names targets, in a process of its own.

Its first line of input is a JSON object: `source`, `path`, `arguments`, `interval` (seconds; 0: once). Each call writes
one line: `{"targets": […]}`, or `{"error": "…"}`. The process ends when its input does, so it never outlives lb. What
the function prints goes to lb's standard error. This file imports nothing of lb: it is run by its path.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Call the function again and again."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_lb, daemon=True).start()
    if order["path"]:
        sys.path.append(order["path"])
    module, _, attribute = order["source"].partition(":")
    call: Any = None
    file = ""
    stamp: object = None
    while True:
        try:
            if call is None:
                loaded = importlib.import_module(module)
                file = getattr(loaded, "__file__", None) or ""
                stamp = _stamp(file)
                call = loaded
                for name in attribute.split("."):
                    call = getattr(call, name)
            answer = {"targets": _listed(call(**order["arguments"]))}
            line = json.dumps(answer)
        except Exception as error:
            line = json.dumps({"error": _said(error)})
        answers.write(f"{line}\n")
        answers.flush()
        if not order["interval"] or call is None:
            return
        time.sleep(order["interval"])
        if _stamp(file) != stamp:  # another version of the code: lb starts it anew
            return


def _listed(found: Any) -> list[Any]:
    if hasattr(found, "__await__"):
        import asyncio

        found = asyncio.run(_awaited(found))
    if isinstance(found, (str, bytes, dict)) or not hasattr(found, "__iter__"):
        raise TypeError(f"a list of targets is expected, not {type(found).__name__}")
    return list(found)


async def _awaited(found: Any) -> Any:
    return await found


def _said(error: Exception) -> str:
    """The last line of its traceback, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{traceback.format_exception_only(error)[-1].strip()}{place}"[:500]


def _stamp(file: str) -> object:
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _end_with_lb() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
