"""What operations have found, as the API says it."""

from __future__ import annotations

from dataclasses import asdict

from lb.control.api.problems import config_problem, problem
from lb.control.models import Preview, PreviewedChange, Validation
from lb.control.operations import Previewed, Validated


def preview(found: Previewed) -> Preview:
    """What an order would do."""
    return Preview(
        allowed=found.allowed,
        lines=[each.text for each in found.changes],
        changes=[PreviewedChange(**asdict(each)) for each in found.changes],
        refusal=problem(found.refused) if found.refused is not None else None,
        forcible=found.forcible,
    )


def validation(found: Validated) -> Validation:
    """What a configuration text would do."""
    return Validation(
        ok=found.plan is not None,
        problems=[config_problem(each) for each in found.problems],
        warnings=[config_problem(each) for each in found.warnings],
        changes=found.plan.lines() if found.plan is not None else [],
        summary=found.plan.summary() if found.plan is not None else "",
        refusal=problem(found.refused) if found.refused is not None else None,
    )
