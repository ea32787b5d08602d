"""The results of operations, in the API's form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from lb.config.changes import Change
from lb.control.api.problems import config_problem, problem
from lb.control.models import (
    PlannedChange,
    Preview,
    PreviewedChange,
    ReloadResult,
    UnusableCertificate,
    Validation,
)
from lb.control.operations import Previewed, Reloaded, Validated


def preview(found: Previewed) -> Preview:
    """The effects of an order."""
    return Preview(
        allowed=found.allowed,
        lines=[each.text for each in found.changes],
        changes=[PreviewedChange(**asdict(each)) for each in found.changes],
        refusal=problem(found.refused) if found.refused is not None else None,
        forcible=found.forcible,
    )


def validation(found: Validated) -> Validation:
    """The effects of a configuration text."""
    return Validation(
        ok=found.plan is not None,
        problems=[config_problem(each) for each in found.problems],
        warnings=[config_problem(each) for each in found.warnings],
        changes=found.plan.lines() if found.plan is not None else [],
        plan=planned(found.plan.changes) if found.plan is not None else [],
        summary=found.plan.summary() if found.plan is not None else "",
        refusal=problem(found.refused) if found.refused is not None else None,
    )


def reloaded(found: Reloaded) -> ReloadResult:
    """The changes of a reload."""
    return ReloadResult(
        changed=bool(found.changes),
        lines=found.lines,
        changes=planned(found.changes),
        forced=found.forced,
        warnings=list(found.warnings),
        unusable=[UnusableCertificate(**asdict(each), told=str(each)) for each in found.unusable],
    )


def planned(changes: Iterable[Change]) -> list[PlannedChange]:
    """Differences between configurations."""
    return [PlannedChange(**asdict(change)) for change in changes]
