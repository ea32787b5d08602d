"""How long a source waits after a failure before it asks again. Pure."""

from __future__ import annotations


def backoff(failures: int, first: float, longest: float, dice: float) -> float:
    """Seconds after so many failures in a row: doubled with each, up to a half shorter by chance; 0 after none.

    `dice`: from 0 to below 1, so that several lbs do not ask at the same moments.
    """
    if not failures:
        return 0.0
    return min(longest, first * (1 << min(failures - 1, 10))) * (1 - dice / 2)
