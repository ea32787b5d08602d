"""The supervisor reckons in monotonic time; people, files and the admin API read Unix time."""

from __future__ import annotations

import time


def unix(monotonic: float) -> float:
    """A monotonic time as Unix time."""
    return time.time() - time.monotonic() + monotonic
