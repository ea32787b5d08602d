"""What the admin port can ask of the runtime. `runtime.operations` answers; the API knows nothing else of it."""

from __future__ import annotations

from typing import Protocol

from lb.control.events import EventLog
from lb.control.models import (
    ConfigText,
    DrainState,
    Explanation,
    ProbeResult,
    ReloadResult,
    ServiceView,
    Status,
    SwitchRequest,
    TargetView,
    UpgradeResult,
    Validation,
)


class Refused(Exception):  # noqa: N818 - it says what happened
    """The runtime says no: the HTTP status, a title, why, and a reason per target or field."""

    def __init__(self, status: int, title: str, detail: str, reasons: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.reasons = reasons or []


class Operations(Protocol):
    """Questions and orders. `base` is the revision that an order was based on (If-Match), or None."""

    @property
    def events(self) -> EventLog: ...

    @property
    def revision(self) -> int: ...

    async def status(self) -> Status: ...

    async def service(self, name: str) -> ServiceView: ...

    async def target(self, id: str) -> TargetView: ...

    async def explain(self, subject: str) -> Explanation: ...

    async def metrics(self) -> bytes: ...

    def readyz(self) -> tuple[bool, str]: ...

    async def switch(self, name: str, wanted: SwitchRequest, actor: str, base: int | None) -> ServiceView: ...

    async def rollback(self, name: str, actor: str, base: int | None) -> ServiceView: ...

    async def drain(self, id: str, force: bool, actor: str) -> DrainState: ...

    async def drain_state(self, id: str) -> DrainState: ...

    async def undrain(self, id: str, actor: str) -> TargetView: ...

    async def prestop(self, subject: str, wait: float, actor: str) -> DrainState:
        """Drain the target that `subject` names: its id, or the address that it calls from."""

    async def weight(self, id: str, weight: int, actor: str) -> TargetView: ...

    async def probe(self, id: str) -> ProbeResult: ...

    async def reload(self, actor: str) -> ReloadResult: ...

    async def upgrade(self, within: float, actor: str) -> UpgradeResult: ...

    def config_text(self) -> ConfigText: ...

    async def validate(self, text: str) -> Validation: ...
