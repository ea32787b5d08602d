"""lb's own log on stderr: a line for each thing that happens, as text for people or as JSON objects for collectors.

Secrets never get here: lines are made of names, addresses, numbers and the texts of checks.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

Format = Literal["text", "json"]


def to_stderr(level: str, form: Format) -> None:
    """Write the log of everything in `lb` there; called again, it changes level and format."""
    root = logging.getLogger("lb")
    handler = next((known for known in root.handlers if isinstance(known, Stderr)), None)
    if handler is None:
        handler = Stderr()
        root.addHandler(handler)
        root.propagate = False
    root.setLevel(level.upper())
    handler.setFormatter(Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))


def level(name: str) -> None:
    """Change the least severity that is written."""
    logging.getLogger("lb").setLevel(name.upper())


class Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """A stream handler that writes no further output when its reader has gone away."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """The disk is full or the reader is gone: the line is lost, nothing else."""


class Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
