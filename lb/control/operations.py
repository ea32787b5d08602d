"""What the admin port can ask of the supervisor. `supervisor.operations` answers; the API knows nothing else of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from lb.control.events import EventLog
from lb.control.models import (
    ConfigOrder,
    ConfigProblem,
    ConfigText,
    DrainState,
    Explanation,
    Preview,
    ProbeResult,
    ReloadResult,
    RunView,
    ServiceView,
    Status,
    SwitchRequest,
    TargetView,
    UpgradeResult,
    Validation,
    WeightRequest,
)


class Refused(Exception):  # noqa: N818 - it says what happened
    """The answer is no: the HTTP status, a title (`control.refusals` knows them all), why, and a reason for each
    target or field."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        reasons: list[dict[str, str]] | None = None,
        problems: list[ConfigProblem] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.reasons = reasons or []
        self.problems = problems or []


class Base(NamedTuple):
    """What an order is based on (If-Match): the revision, and what told the contents of that answer apart."""

    revision: int
    mark: str


class Operations(Protocol):
    """Questions and orders. Those that are refused raise `Refused`."""

    @property
    def events(self) -> EventLog: ...

    @property
    def revision(self) -> int:
        """Grows by one with each change."""

    @property
    def config_mark(self) -> str:
        """Tells the configuration texts that ran apart."""

    def check_base(self, bases: Collection[Base], *, config: bool = False) -> int | None:
        """Refuse an order that is based on none of what is so now: of the configuration's text, or of everything.

        Returns the revision that it is based on; orders that are given it look again when their turn has come.
        """

    def names(self) -> dict[str, dict[str, list[str]]]:
        """Service → pool → ids of its targets."""

    async def status(self) -> Status: ...

    async def service(self, name: str) -> ServiceView: ...

    async def target(self, id: str) -> TargetView: ...

    async def explain(self, subject: str) -> Explanation: ...

    def runs(self, since: float, subject: str) -> list[RunView]:
        """The probes of what `subject` names (empty: everything) since then, folded into runs, oldest first."""

    async def metrics(self) -> bytes: ...

    def readyz(self) -> tuple[bool, str]: ...

    async def switch(
        self, name: str, wanted: SwitchRequest, actor: str, revision: int | None = None
    ) -> ServiceView: ...

    async def rollback(self, name: str, force: bool, actor: str, revision: int | None = None) -> ServiceView: ...

    def preview_switch(self, name: str, wanted: SwitchRequest) -> Preview:
        """What `switch` would do now."""

    def preview_rollback(self, name: str, force: bool) -> Preview:
        """What `rollback` would do now."""

    def preview_drain(self, id: str, force: bool) -> Preview:
        """What `drain` would do now."""

    def preview_undrain(self, id: str, force: bool) -> Preview:
        """What `undrain` would do now."""

    def preview_weight(self, id: str, wanted: WeightRequest) -> Preview:
        """What `weight` would do now."""

    async def drain(self, id: str, force: bool, actor: str, revision: int | None = None) -> DrainState: ...

    async def drain_state(self, id: str) -> DrainState: ...

    async def undrain(self, id: str, force: bool, actor: str, revision: int | None = None) -> TargetView: ...

    async def prestop(self, subject: str, wait: float, actor: str) -> DrainState:
        """Drain the target that `subject` names: its id, or the address that it calls from."""

    async def weight(self, id: str, wanted: WeightRequest, actor: str, revision: int | None = None) -> TargetView: ...

    async def probe(self, id: str) -> ProbeResult: ...

    async def reload(self, force: bool, actor: str) -> ReloadResult: ...

    async def configure(self, wanted: ConfigOrder, actor: str) -> ReloadResult:
        """Make a text the configuration: the file is replaced, and what it says put in force."""

    async def upgrade(self, within: float, actor: str) -> UpgradeResult: ...

    def config_text(self) -> ConfigText: ...

    async def validate(self, text: str) -> Validation: ...
