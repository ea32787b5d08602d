"""The `lb` command as a process, on ports that the system chose, in front of real backends that can misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Starts backends and an lb, and ends whatever was started."""
    with Stage(tmp_path) as made:
        yield made
