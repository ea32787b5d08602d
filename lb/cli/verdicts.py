"""A drill's results, held against the promises, and how they are printed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from lb.cli.stage import LOOK, Load
from lb.cli.terminal import Ink, columns, span
from lb.demo.rehearsal import Rehearsal

#: Seconds that a detection time may be over what was promised: the load, the targets and lb share the cores.
SLACK = 0.75


@dataclass(slots=True)
class Result:
    """The effects of one fault on one service."""

    service: str
    fault: str
    requests: int = 0
    failed: int = 0
    failed_after: int = 0  # of these, begun after the target was out
    slowest: float = 0.0
    out_after: float | None = None
    promised: float | None = None  # as `lb check` prints it for such a fault; None: nothing was promised
    undoubted: float | None = None  # the same for a failure that is not doubted first
    noticed_by: str = ""
    back_after: float | None = None
    failures: dict[str, int] = field(default_factory=dict)  # by what the client saw
    broken_promises: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def judge(result: Result, load: Load, broken_at: float, out_at: float, rehearsal: Rehearsal) -> None:
    """Hold what was measured against what was promised."""
    during = [outcome for outcome in load.outcomes if outcome.ended >= broken_at]
    result.requests = len(during)
    failed = [outcome for outcome in during if outcome.failure]
    result.failed = len(failed)
    result.slowest = max((outcome.ended - outcome.began for outcome in during), default=0.0)
    for outcome in failed:
        result.failures[outcome.failure] = result.failures.get(outcome.failure, 0) + 1
    promises = result.broken_promises
    if out_at < float("inf"):
        result.out_after = out_at - broken_at
        # The state is seen up to a look later than it took effect, so this is rather too kind than too strict.
        result.failed_after = sum(outcome.began > out_at + LOOK for outcome in failed)
        if result.failed_after and len(rehearsal.weights) > 1 and result.fault != "flap":
            promises.append(f"{result.failed_after} requests failed that began after the target was out")
        if result.promised is not None and result.out_after > result.promised + SLACK:
            promises.append(f"out after {span(result.out_after)}, promised was {span(result.promised)}")
        elif result.undoubted is not None and result.out_after > result.undoubted + SLACK:
            # `core.common_cause`: probes that time out on a target with much in flight.
            late = f"out after {span(result.out_after)}, and not {span(result.undoubted)}"
            result.remarks.append(f"{late}: it was taken for overloaded first, and got less (`patience`)")
    elif result.noticed_by and result.fault != "flap":
        promises.append("the target stayed in rotation")
    retries = rehearsal.model.get("retries") or {}
    attempts = retries.get("attempts", 2)
    if result.fault == "hang" and result.failed and len(rehearsal.weights) > 1 and "per_try" not in retries:
        hint = "`retries.per_try`, shorter than `timeouts.response`, tries a request that may be repeated elsewhere"
        result.remarks.append(f"requests waited for a target that hangs until they failed; {hint}")
    if result.fault == "refuse" and attempts and len(rehearsal.weights) > 1:
        refused = [outcome for outcome in failed if outcome.began > broken_at]
        if refused:
            promises.append(f"{len(refused)} requests failed though they could have been tried elsewhere")


def report(results: list[Result], ink: Ink) -> Iterator[str]:
    """A table, and under it what was not as promised."""
    services = list(dict.fromkeys(result.service for result in results))
    for service in services:
        rows = [["FAULT", "REQUESTS", "FAILED", "SLOWEST", "OUT AFTER", "PROMISED", "BACK AFTER", ""]]
        for result in (result for result in results if result.service == service):
            rows.append(
                [
                    result.fault,
                    str(result.requests),
                    str(result.failed),
                    span(result.slowest),
                    span(result.out_after) if result.out_after is not None else "never",
                    span(result.promised) if result.promised is not None else "-",
                    span(result.back_after) if result.back_after is not None else "-",
                    verdict(result, ink),
                ]
            )
        yield ink(service, "bold")
        table = columns(rows, "<>>>>>><", "  ")
        yield ink(f"  {table[0]}", "dim")
        yield from (f"  {line}" for line in table[1:])
        for result in results:
            if result.service == service:
                for remark in remarks(result):
                    yield from textwrap.wrap(remark, 80, initial_indent="  ", subsequent_indent="    ")
    broken = sum(bool(result.broken_promises) for result in results)
    blind = sum(not result.noticed_by for result in results)
    yield ""
    if broken:
        yield ink(f"{broken} of {len(results)} faults were worse than this configuration promises.", "red")
    else:
        yield ink("Everything as promised.", "green") + (
            f" {blind} fault{'s' * (blind > 1)} went unseen." if blind else ""
        )


def verdict(result: Result, ink: Ink) -> str:
    if result.broken_promises:
        return ink("worse", "red")
    return ink("ok", "green") if result.noticed_by else ink("unseen", "yellow")


def remarks(result: Result) -> Iterator[str]:
    for remark in (*result.broken_promises, *result.remarks):
        yield f"{result.fault}: {remark}."
    if result.failures:
        seen = ", ".join(f"{count} × {what}" for what, count in sorted(result.failures.items()))
        yield f"{result.fault}: clients saw {seen}."
    if not result.noticed_by:
        yield f"{result.fault}: neither the readiness check nor outlier ejection looks for this."
