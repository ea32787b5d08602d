"""Weights of a registry, which go up to 65535, as weights of targets. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from lb.discovery.labels import MOST_WEIGHT


def scaled(weights: Sequence[int]) -> list[int]:
    """The weights, divided together where one is too large. None of them becomes less than 1."""
    most = max(weights, default=0)
    if most <= MOST_WEIGHT:
        return [max(1, weight) for weight in weights]
    return [max(1, round(weight * MOST_WEIGHT / most)) for weight in weights]
