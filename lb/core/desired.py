"""What the operators want: which pool is active, how traffic is shared, which targets drain, which weights differ.

The supervisor owns one `Desired`, changes it by replacing it, and persists every version before it takes effect.
Each override keeps the configured value that it replaced, so that a later edit of the file wins.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServiceDesired:
    """The traffic of one service. `configured` is the file's `active:` at the time of the switch."""

    active: str
    configured: str
    previous: str = ""  # the pool that a rollback returns to; empty: none
    shares: tuple[tuple[str, int], ...] = ()  # (pool, parts of 100) during a rollout; empty: all to `active`
    since: float = 0.0  # Unix time of the last switch
    rollout: dict[str, object] | None = None  # `core.rollout` state while one is under way


@dataclass(frozen=True, slots=True)
class TargetDesired:
    """One target's overrides; absent from `Desired.targets` when it has none."""

    draining: bool = False
    weight: int | None = None
    configured_weight: int | None = None  # the file's weight that `weight` replaced


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that survives a restart. `version` grows by one with each change (If-Match, two operators)."""

    version: int = 0
    services: dict[str, ServiceDesired] = field(default_factory=dict)
    targets: dict[str, TargetDesired] = field(default_factory=dict)  # by target id
