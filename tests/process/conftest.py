"""Tests that await run on uvloop, as lb does; `crew` gives them real worker processes."""

from __future__ import annotations

from tests.support.crew import crew
from tests.support.loops import pytest_asyncio_loop_factories

__all__ = ["crew", "pytest_asyncio_loop_factories"]
