"""The failure of a command. Commands that ask no admin port import this file, and no HTTP client."""

from __future__ import annotations

from typing import Any

import click

from lb.cli.terminal import aside

DEFAULT_ADMIN = "http://127.0.0.1:9900"

Json = dict[str, Any]


class Failure(click.ClickException):
    """Refused or failed: the reason goes to stderr, the exit code is 1. `more` is what --json says beside it."""

    exit_code = 1

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.more = more

    def document(self) -> Json:
        """The output of --json."""
        return {"title": "Failed", "detail": self.message, **self.more}

    def show(self, file: Any = None) -> None:
        aside(f"lb: {self.message}")
