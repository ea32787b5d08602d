"""The real supervisor, which tells the model what its probes have found and whom it ejects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lb.config.model.config import Config
from lb.core.desired import Desired
from lb.core.handover import Handover
from lb.core.lifecycle import Effect, Health, Seen
from lb.core.renames import Place, Renames
from lb.core.targets import Snapshot, Targets
from lb.process.channel import Message
from lb.supervisor.desired import Change
from lb.supervisor.main import Supervisor
from lb.worker.main import Worker
from tests.model.clock import CLOCK
from tests.model.plan import address_of
from tests.model.processes import current

if TYPE_CHECKING:
    from tests.model.processes import Process
    from tests.model.reference import Service
    from tests.model.world import World


class WatchedWorker(Worker):
    """The real worker, which its process knows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        process = current()
        assert process is not None
        process.body = self

    def _act(self, message: Message) -> None:
        if isinstance(message, Snapshot | Targets):
            self._perhaps_fail()
        super()._act(message)

    @staticmethod
    def _perhaps_fail() -> None:
        process = current()
        assert process is not None
        if process.fail_installs:
            process.fail_installs -= 1
            process.table.failures.append(CLOCK.now)
            raise MemoryError("the model wants it so")


class Watched(Supervisor):
    """Everything is as in production but for six listeners, and sources that the model makes."""

    def __init__(self, world: World, process: Process, path: Path, config: Config, workers: int) -> None:
        self.model = world
        self.process = process
        super().__init__(path, config, workers)
        self._known_config = config
        self._services_before: dict[str, Service] = {}
        self._is_counted = False
        self.discoveries.make = lambda settings: world.found.make(self, settings)
        self._commit, self.desired.commit = self.desired.commit, self._on_commit  # type: ignore[method-assign]
        self._amend, self.desired.amend = self.desired.amend, self._on_amend  # type: ignore[method-assign]
        self._take, self.handovers.take = self.handovers.take, self._on_take  # type: ignore[method-assign]
        findings, installation = self.findings, self.installation
        self._probed, findings.probed = findings.probed, self._on_probe  # type: ignore[method-assign]
        self._changed, findings.changed = findings.changed, self._on_change  # type: ignore[method-assign]
        self._end, installation.end_handovers = installation.end_handovers, self._on_end  # type: ignore[method-assign]

    @property
    def counts(self) -> bool:
        """Whether it is the one supervisor: a successor that gets ready is not it yet."""
        world = self.model
        return world.supervisor is self or (world.supervisor is None and world.starting is self)

    def _on_probe(self, id: str, kind: str, seen: Seen) -> None:
        if self.counts and kind == "readiness":
            self.model_probe(address_of(id), seen)
        self._probed(id, kind, seen)

    def model_probe(self, address: str, seen: Seen) -> None:
        """A verdict: the reference counts by itself."""
        world, verdict = self.model, seen.verdict
        world.found.note(self)
        known = world.knowledge.get(address)
        if known is None or verdict.ignored:
            return
        was, words = known.ready, (known.share, known.asks_drain)
        if seen.doubt == "overloaded":
            world.relieved.add(address)
        if verdict.ok:
            hint = 1.0 if verdict.weight_hint is None else verdict.weight_hint
            known.passed(seen.at, hint, verdict.drain_hint)
            world.answered(address)
        elif not (seen.doubt == "own_fault" and known.ready is not True):
            known.failed(seen.at)
        world.turns += words != (known.share, known.asks_drain) or known.ready is not was
        world.on_probe()

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
        self._changed(id, old, new, effects)

    async def _on_commit(self, change: Change[Any], expected_version: int | None = None) -> Any:
        before, shares = self.desired.current, self.model.all_shares()
        decided = await self._commit(change, expected_version)
        if self.counts and self.desired.current is not before:
            self.model.on_change()
            for name in self.model.plan.services if not self.model.orders else ():
                self.model.stepped(name, shares[name])
        return decided

    async def _on_amend(
        self, change: Change[Any], conclude: Callable[[], None] | None = None, *, new_version: bool = False
    ) -> Any:
        def watched(current: Desired) -> tuple[Desired, Any]:
            self._services_before = self.model.services() if self.counts and self.model.on_reload is not None else {}
            return change(current)

        return await self._amend(watched, conclude, new_version=new_version)

    def _on_take(self, found: Mapping[Place, Handover], names: Renames) -> None:
        self._take(found, names)
        if self.state.config is not self._known_config:
            self._known_config = self.state.config
            note = self.model.on_reload
            if note is not None and self.counts:
                self.model.on_reload = None
                note(self._services_before)
        if self.counts:
            self.begin_to_count()
            self.model.found.put(self)

    def begin_to_count(self) -> None:
        """It is the one supervisor, from now on."""
        if not self._is_counted:
            self._is_counted = True
            self.model.found.begin_anew(self)

    async def _on_end(self) -> Collection[Place]:
        over = await self._end()
        if self.counts:
            self.model.turns += len(over)  # replaced targets are taken out, so a gate may decide otherwise
            for place in over:
                self.model.given_up(*place)
        return over
