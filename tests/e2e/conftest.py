"""The `lb` command as a process, on ports that the system chose, in front of real backends that can misbehave."""

from __future__ import annotations

from tests.support.stage import stage

__all__ = ["stage"]
