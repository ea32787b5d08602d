"""What most tests of HTTP/2 begin with. A file whose tests need another front, or another client, has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.front import Front
from tests.support.h2_client import Client
from tests.wire.http2 import H2C


@pytest.fixture
def front() -> Iterator[Front]:
    """A data plane whose listener takes both protocols without TLS."""
    with Front(listener=H2C) as running:
        yield running


@pytest.fixture
def client(front: Front) -> Iterator[Client]:
    """A connection of HTTP/2 to it, which has greeted."""
    with Client(front) as connected:
        yield connected
