"""Counts transitions of targets and results of their probes, for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from typing import get_args

from lb.control.histogram import Histogram
from lb.core.lifecycle import State


class HealthCounters:
    """The monitor's results since this supervisor began."""

    def __init__(self) -> None:
        self.transitions: Counter[tuple[str, str]] = Counter()  # by target id and state entered
        self.probes: Counter[tuple[str, str, str]] = Counter()  # by target id, check and result
        self.probe_seconds: dict[tuple[str, str], Histogram] = {}  # by service and check

    def probed(self, id: str, kind: str, result: str) -> None:
        """Count a probe."""
        self.probes[id, kind, result] += 1

    def lasted(self, service: str, kind: str, seconds: float) -> None:
        """Count how long a probe took."""
        histogram = self.probe_seconds.get((service, kind))
        if histogram is None:
            histogram = self.probe_seconds[service, kind] = Histogram()
        histogram.observe(seconds)

    def drop(self, targets: Iterable[str]) -> None:
        """Drop the counts of these targets."""
        for id in targets:
            for state in get_args(State):
                self.transitions.pop((id, state), None)
            for kind in ("readiness", "liveness"):
                for result in ("passed", "failed", "ignored"):
                    self.probes.pop((id, kind, result), None)

    def forget(self, targets: Container[str], services: Container[str]) -> None:
        """Drop the counts of targets and services that the configuration no longer has."""
        self.transitions = Counter({key: n for key, n in self.transitions.items() if key[0] in targets})
        self.probes = Counter({key: n for key, n in self.probes.items() if key[0] in targets})
        self.probe_seconds = {key: found for key, found in self.probe_seconds.items() if key[0] in services}
