"""Counts transitions of targets and results of their probes, for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from lb.control.histogram import Histogram


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

    def forget(self, targets: Container[str], services: Container[str]) -> None:
        """Drop the counts of targets and services that the configuration no longer has."""
        self.transitions = Counter({key: n for key, n in self.transitions.items() if key[0] in targets})
        self.probes = Counter({key: n for key, n in self.probes.items() if key[0] in targets})
        self.probe_seconds = {key: found for key, found in self.probe_seconds.items() if key[0] in services}
