"""The event loop that lb's own programs run on, for folders whose tests await; a conftest imports the hook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test that awaits on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
