"""The real supervisor, which tells the model what its probes have found and whom it ejects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lb.config.model import Config
from lb.config.resolve import World as Resolved
from lb.core.desired import Desired
from lb.core.lifecycle import Effect, Health, Seen
from lb.core.targets import Snapshot
from lb.supervisor.handovers import Handovers
from lb.supervisor.main import Supervisor
from lb.worker.main import Worker
from tests.model.plan import address_of
from tests.model.processes import current

if TYPE_CHECKING:
    from tests.model.processes import Process
    from tests.model.world import World


class WatchedWorker(Worker):
    """The real worker, which its process knows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        process = current()
        assert process is not None
        process.body = self

    def _apply(self, snapshot: Snapshot) -> None:
        process = current()
        assert process is not None
        if process.fail_installs:
            process.fail_installs -= 1
            raise MemoryError("the model wants it so")
        super()._apply(snapshot)


class WatchedHandovers(Handovers):
    """The real handovers, whose ends the model hears of."""

    def end_those_over(self) -> bool:
        before = list(self.under_way)
        over = super().end_those_over()
        supervisor = self._supervisor
        assert isinstance(supervisor, Watched)
        if supervisor.counts:
            for place in [place for place in before if place not in self.under_way]:
                supervisor.model.given_up(*place)
        return over


class Watched(Supervisor):
    """Everything is as in production but for five listeners."""

    def __init__(self, world: World, process: Process, path: Path, config: Config, workers: int) -> None:
        self.model = world
        self.process = process
        super().__init__(path, config, workers)
        self.handovers = WatchedHandovers(self)

    @property
    def counts(self) -> bool:
        """Whether it is the one supervisor: a successor that gets ready is not it yet."""
        world = self.model
        return world.supervisor is self or (world.supervisor is None and world.starting is self)

    def _on_probe(self, id: str, kind: str, seen: Seen) -> None:
        if self.counts and kind == "readiness":
            self.model_probe(address_of(id), seen)
        super()._on_probe(id, kind, seen)

    def model_probe(self, address: str, seen: Seen) -> None:
        """A verdict: the reference counts by itself."""
        world, verdict = self.model, seen.verdict
        known = world.knowledge.get(address)
        if known is None or verdict.ignored:
            return
        was = known.ready
        if seen.doubt == "overloaded":
            world.relieved.add(address)
        if verdict.ok:
            hint = 1.0 if verdict.weight_hint is None else verdict.weight_hint
            known.passed(seen.at, hint, verdict.drain_hint)
        elif not (seen.doubt == "own_fault" and known.ready is not True):
            was = known.ready
            known.failed(seen.at)
            world.fallen |= known.ready is not was
        world.turns += known.ready is not was
        world.on_change()

    def _on_change(self, id: str, old: Health, new: Health, effects: tuple[Effect, ...]) -> None:
        if self.counts:
            address = address_of(id)
            if new.ejected_until:
                if not old.ejected_until and address not in self.model.asked:
                    self.model.violate(
                        "2 a copy is no request", f"{id} is ejected without a client's request: {new.ejected_for}"
                    )
                if not old.ejected_until:
                    self.model.ejects(address, new.ejected_for)
                self.model.ejected[address] = new.ejected_until
            else:
                self.model.ejected.pop(address, None)
            self.model.on_change()
        super()._on_change(id, old, new, effects)

    def take(self, config: Config, world: Resolved) -> None:
        model = self.model
        note = model.on_reload if config is not self.state.config and self.counts else None
        services = model.services() if note is not None else {}
        super().take(config, world)
        if note is not None:
            model.on_reload = None
            note(services)

    def wish(self, desired: Desired) -> None:
        super().wish(desired)
        if self.counts:
            self.model.on_change()
