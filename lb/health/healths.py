"""The healths of all targets, and which of these targets do not pass their checks: of thousands mostly few."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from lb.core.lifecycle import Health


class Healths(dict[str, Health]):
    """Healths by target id. Only what is written out here changes them."""

    def __init__(self) -> None:
        super().__init__()
        self._not_ready: set[str] = set()

    @property
    def not_ready(self) -> AbstractSet[str]:
        """The ids of targets whose probes do not pass, or have not begun."""
        return self._not_ready

    def __setitem__(self, target_id: str, health: Health) -> None:
        super().__setitem__(target_id, health)
        if health.probe == "ready":
            self._not_ready.discard(target_id)
        else:
            self._not_ready.add(target_id)

    def __delitem__(self, target_id: str) -> None:
        super().__delitem__(target_id)
        self._not_ready.discard(target_id)

    def take(self, target_id: str) -> Health:
        """Remove it, and return it. Raises KeyError."""
        health = self[target_id]
        del self[target_id]
        return health
