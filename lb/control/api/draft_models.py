"""The messages between the configuration page and the API about a text that is being written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lb.control.models import ConfigDraft, ConfigText, Validation
from lb.control.view import View

_EXAMPLE = "backends: [http://127.0.0.1:5001]\n"


class DifferenceLine(View):
    """One line of the difference between what runs and a text."""

    sign: Literal["+", "-", " ", "…"]
    """Added, removed, or the same; `…` stands for lines in between that are the same."""
    old: int
    """Its number in what runs; 0: it is not there."""
    new: int
    """Its number in the text; 0: it is not there."""
    text: str
    """The line."""


class CheckFiguresView(View):
    """How fast one kind of check notices trouble."""

    kind: Literal["readiness", "liveness"]
    """The decision that the check is for."""
    protocol: str
    """How it asks."""
    targets: list[str]
    """Ids of the targets that are checked so; of many, the first ones."""
    count: int
    """How many there are."""
    interval: float
    """Seconds between two probes."""
    worst: float | None = None
    """Seconds until it is noticed at worst; null: never."""
    expected: float | None = None
    """Seconds on average, when the target refuses connections."""
    recovery: float | None = None
    """Seconds at worst until a target that has recovered gets requests again."""
    formula: str = ""
    """The sum behind `worst`."""


class ServiceFiguresView(View):
    """The figures of a service's checks."""

    name: str
    """The service."""
    probes: float
    """Probes a second."""
    checks: list[CheckFiguresView]
    """Its checks, the slowest first."""


class Draft(Validation):
    """All that can be said about a text that may become the configuration. Nothing was changed."""

    difference: list[DifferenceLine]
    """From the text that runs to this one."""
    settings: dict[str, Any] | None = None
    """Its settings, in the long form, also if it is not valid; scalars are the texts that are written. Null: it cannot
    be read at all."""
    unreadable: str = ""
    """Why not."""
    services: list[ServiceFiguresView] = Field(default_factory=list)
    """The figures of its checks; empty when it is not valid."""


class SettingChange(ConfigDraft):
    """One setting of a text is to be changed where it stands."""

    path: list[Annotated[str, Field(max_length=1000)] | Annotated[int, Field(ge=0, le=100_000)]] = Field(
        min_length=1, max_length=32, examples=[["services", "default", "readiness", "interval"]]
    )
    """Where it is in the long form; entries of lists are numbers from 0, the number behind the last one appends."""
    value: Any = Field(default=None, examples=["5s"])
    """The new value; null takes it out, so that its default counts."""


class ChangedText(ConfigText):
    """The text of a configuration file in which one setting was changed."""

    written_out: bool = False
    """Whether the short form had no room for the setting, and its service is written out now."""


class MergeRequest(ConfigDraft):
    """A text whose base is no longer what runs."""

    base: str = Field(max_length=4 << 20, examples=[_EXAMPLE])
    """The text that it was made from."""


class MergedText(View):
    """Two people's changes in one text."""

    text: str
    """The running text, with the other changes made in it."""
    conflicts: int
    """Places that both have changed: the text's change stands, what runs is in comments above it."""
