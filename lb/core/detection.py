"""How long a dead target can stay in rotation, and how long a recovered one stays out: arithmetic on the check alone.

The Marathon article's reasoning, with the numbers that really count. Health checking never detects a failure in an
instant; it works within a window:

    worst = interval + (fall - 1) × max(fast_interval, timeout) + timeout

The target dies right after it has answered a probe, so a whole interval passes before the first one fails. Then it
takes `fall` failures in a row, `fast_interval` apart while the verdict is in doubt. The last of them counts when its
timeout is over. A probe never overlaps the one before, so where the timeout is the longer of the two it sets the pace.
With fast_interval = interval and a small timeout this is the article's sum. For an interval of 15 s and three failures
it is 14 s, 15 s and 15 s. HAProxy's manual adds up to the same.

The expected time assumes a death at a random moment of the interval. It also assumes a target that refuses at once (its
process is gone) rather than one that hangs:

    expected = interval × (1 - j + j² / 3) / (2 - j) + (fall - 1) × fast_interval × (1 - j / 2),  j = jitter

The first term is the mean rest of the wait that the death falls into, E[L²] / 2 E[L]: half the interval without
jitter. Jitter only ever shortens a wait, so the worst case stays what it is.

Doubted failures are not counted for up to `patience` (`core.common_cause`). A failure is doubted when most of a pool
falls silent at once, or when a target is silent to probes while it answers clients. The doubt begins with the first of
them. The first failure that counts comes at most one pace after the doubt ends:

    doubted = worst + patience + max(fast_interval, timeout)

Outside its scope: passive detection. With traffic on it, a target that refuses is left alone by each worker at once. It
is ejected after a few failures, long before its probes agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from lb.core.checks import CheckSpec


@dataclass(frozen=True, slots=True)
class Detection:
    """Seconds."""

    best: float  # it dies right before a probe, and refuses
    expected: float  # on average, when it refuses
    worst: float  # it dies right after a probe, and hangs
    recovery: float  # worst case until a target that has recovered gets traffic again


def detection(spec: CheckSpec) -> Detection | None:
    """The figures of one check; None when it never takes a target out."""
    if spec.protocol == "none" or spec.fall < 1:
        return None
    fast = spec.fast_interval or spec.interval
    down = spec.down_interval or spec.interval
    jitter = spec.jitter
    rest = spec.interval * (1 - jitter + jitter * jitter / 3) / (2 - jitter)
    return Detection(
        best=(spec.fall - 1) * fast * (1 - jitter),
        expected=rest + (spec.fall - 1) * fast * (1 - jitter / 2),
        worst=spec.interval + (spec.fall - 1) * max(fast, spec.timeout) + spec.timeout,
        recovery=max(down, spec.timeout) + (spec.rise - 1) * max(fast, spec.timeout) + spec.timeout,
    )


def worst_case(spec: CheckSpec) -> float:
    """Seconds that a dead target can stay in rotation at worst; infinite without checks."""
    figures = detection(spec)
    return float("inf") if figures is None else figures.worst


def promised(spec: CheckSpec, patience: float = 0.0) -> float:
    """The worst case that `lb check` prints and `lb drill` measures against. With `patience`, that of a failure which
    is doubted for so long first."""
    if patience <= 0:
        return worst_case(spec)
    return worst_case(spec) + patience + max(spec.fast_interval or spec.interval, spec.timeout)


def formula(spec: CheckSpec) -> str:
    """The sum of the worst case, as `lb check` shows it."""
    fast = max(spec.fast_interval or spec.interval, spec.timeout)
    return f"{spec.interval:g} + {spec.fall - 1} × {fast:g} + {spec.timeout:g}"
