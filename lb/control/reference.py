"""`python -m lb.control.reference` writes docs/metrics.md from the table that the metrics are written from."""

from __future__ import annotations

from pathlib import Path

from lb.control.metrics import METRICS, STATES
from lb.core.report import BUCKETS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def page() -> str:
    """The whole page."""
    bounds = ", ".join(f"{bound:g}" for bound in BUCKETS)
    lines = [
        "# Metrics",
        "",
        "`/metrics` on the admin port, in the Prometheus text format. This page is made from the code by `make docs`.",
        "",
        "Workers count on plain integers; a scrape asks every worker for its newest ones and adds them up, those of",
        "workers that have ended included, so that sums are exact. Durations are seconds. Labels are bounded by the",
        "configuration, by status codes, and by reasons that the code knows.",
        "",
        f"Histograms have these bounds: {bounds}.",
        "",
        f"A target's `state` is one of {', '.join(f'`{state}`' for state in STATES)}.",
        "",
        "| metric | type | labels | what it says |",
        "| --- | --- | --- | --- |",
    ]
    for name, (kind, labels, text) in METRICS.items():
        shown = ", ".join(f"`{label}`" for label in labels) or "–"
        lines.append(f"| `{name}` | {kind} | {shown} | {text} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
