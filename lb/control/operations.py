"""The supervisor's operations for the admin port. `supervisor.operations` answers; the API knows nothing else of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lb.config.changes import Change, Plan
from lb.config.resolve import UnusablePair
from lb.config.yaml.problems import ConfigError, Problem
from lb.control.certificate_models import AuthorityView, NameView, RenewResult
from lb.control.events import EventLog
from lb.core.consequences import Consequence
from lb.core.refusals import Obstacle, Refusal, Refused

if TYPE_CHECKING:
    from lb.control.models import (
        ConfigOrder,
        ConfigText,
        DrainState,
        Explanation,
        MaintenanceRequest,
        MaintenanceState,
        ProbeResult,
        RunView,
        ServiceView,
        Status,
        SwitchRequest,
        TargetView,
        UpgradeResult,
        WeightRequest,
    )
    from lb.control.trial_models import Trial, TrialRequest


class InvalidFile(Refused):
    """A configuration has errors; `problems` are all of them."""

    def __init__(self, error: ConfigError) -> None:
        obstacles = (Obstacle(problem.message, where=problem.where) for problem in error.problems)
        super().__init__(Refusal.FILE_INVALID, "nothing has changed", obstacles)
        self.problems = error.problems


class Base(NamedTuple):
    """The base of an order (If-Match): the revision, and the digest that told the contents of that answer apart."""

    revision: int
    mark: str


class Previewed(NamedTuple):
    """The effects of an operation, one after the other, and why it would be refused, if so."""

    changes: Sequence[Consequence]
    refused: Refused | None = None
    forcible: bool = False  # whether `force` would carry it out all the same

    @property
    def allowed(self) -> bool:
        """Whether it would be carried out."""
        return self.refused is None


class Validated(NamedTuple):
    """The effects of a configuration text; without a plan it has errors."""

    plan: Plan | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    refused: Refused | None = None  # why a reload would be refused unless forced


class Reloaded(NamedTuple):
    """The changes of a reload, and the checks that were forced with it."""

    changes: tuple[Change, ...]
    forced: str = ""  # empty: nothing had to be
    warnings: tuple[str, ...] = ()  # what will not work as the file says
    unusable: tuple[UnusablePair, ...] = ()  # certificates that could not be taken: the reload was partial

    @property
    def lines(self) -> list[str]:
        """One line for each change."""
        return [str(change) for change in self.changes]


class Operations(Protocol):
    """Questions and orders. Refused operations raise `Refused`."""

    @property
    def events(self) -> EventLog: ...

    @property
    def revision(self) -> int:
        """Grows by one with each change."""

    @property
    def config_mark(self) -> str:
        """Tells the configuration texts that ran apart."""

    def check_base(self, bases: Collection[Base]) -> int:
        """Refuse an order that is based on none of what is so now.

        Returns the revision that it is based on; orders that are given it look again when their turn has come.
        """

    def check_config_base(self, marks: Collection[str]) -> None:
        """Refuse an order that is based on another text than the one that runs.

        `reload` and `configure` are given the marks as well, and look again when their turn has come.
        """

    def names(self) -> dict[str, dict[str, list[str]]]:
        """Service → pool → ids of its targets."""

    async def status(self) -> Status: ...

    async def service(self, name: str) -> ServiceView: ...

    async def target(self, id: str) -> TargetView: ...

    async def explain(self, subject: str) -> Explanation: ...

    def runs(self, since: float, subject: str) -> list[RunView]:
        """The probes of what `subject` names (empty: everything) since then, folded into runs, oldest first."""

    async def try_request(self, wanted: TrialRequest) -> Trial:
        """What would become of a request, without any traffic."""

    def certificates(self) -> list[NameView]:
        """What each name of a listener's certificates gets."""

    def certificates_of(self, name: str) -> list[NameView]:
        """What a host name gets from each listener with TLS."""

    def renew_certificate(self, name: str, actor: str) -> RenewResult:
        """Have the certificate of a name renewed now."""

    async def certificate_authority(self) -> AuthorityView:
        """lb's own certificate authority."""

    async def metrics(self) -> bytes: ...

    def readyz(self) -> tuple[bool, str]: ...

    async def switch(
        self, name: str, wanted: SwitchRequest, actor: str, revision: int | None = None
    ) -> ServiceView: ...

    async def rollback(self, name: str, force: bool, actor: str, revision: int | None = None) -> ServiceView: ...

    async def confirm_removals(self, name: str, pool: str, actor: str) -> ServiceView:
        """Let the targets of a pool go that its source no longer names, and that are kept because they pass."""

    def preview_switch(self, name: str, wanted: SwitchRequest) -> Previewed:
        """The effects of `switch` now."""

    def preview_rollback(self, name: str, force: bool) -> Previewed:
        """The effects of `rollback` now."""

    def preview_drain(self, id: str, force: bool) -> Previewed:
        """The effects of `drain` now."""

    def preview_undrain(self, id: str, force: bool) -> Previewed:
        """The effects of `undrain` now."""

    def preview_weight(self, id: str, wanted: WeightRequest) -> Previewed:
        """The effects of `weight` now."""

    async def drain(self, id: str, force: bool, actor: str, revision: int | None = None) -> DrainState: ...

    async def drain_state(self, id: str) -> DrainState: ...

    async def undrain(self, id: str, force: bool, actor: str, revision: int | None = None) -> TargetView: ...

    async def prestop(self, subject: str, wait: float, actor: str) -> DrainState:
        """Drain the target that `subject` names: its id, or the address that it calls from."""

    async def weight(self, id: str, wanted: WeightRequest, actor: str, revision: int | None = None) -> TargetView: ...

    def maintenance(self, route: str) -> MaintenanceState: ...

    async def maintain(
        self, route: str, wanted: MaintenanceRequest, actor: str, revision: int | None = None
    ) -> MaintenanceState:
        """Begin, change or end a route's maintenance."""

    async def probe(self, id: str) -> ProbeResult: ...

    async def reload(self, force: bool, actor: str, marks: Collection[str] | None = None) -> Reloaded: ...

    async def configure(self, wanted: ConfigOrder, actor: str, marks: Collection[str] | None = None) -> Reloaded:
        """Make a text the configuration: the file is replaced, and what it says put in force."""

    async def upgrade(self, within: float, actor: str) -> UpgradeResult: ...

    def config_text(self) -> ConfigText: ...

    async def validate(self, text: str) -> Validated: ...
