"""Results as a table for people, JSON for machines, and a picture (with matplotlib, an optional extra)."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from benchmarks.rounds import Measured, ratios


def table(title: str, measured: dict[str, Measured], measure: str) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        f"### {title}",
        "",
        "| proxy | requests/s | CPU µs/request | lb's ratio to it [min–max] | p50 | p99 | p99.9 | RSS MiB | errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours = measured.get("lb")
    for name, m in measured.items():
        if not m.rates:
            continue
        ratio = "1"
        if ours is not None and name != "lb":
            mine, theirs = (ours.rates, m.rates) if measure == "rate" else (ours.bytes_per_cpu, m.bytes_per_cpu)
            middle, least, most = ratios(mine, theirs)
            ratio = f"**{middle:.2f}** [{least:.2f}–{most:.2f}]"
        points = {key: median(latency[key] for latency in m.latency) * 1e3 for key in ("p50", "p99", "p99.9")}
        lines.append(
            f"| {name} | {median(m.rates):,.0f} | {median(m.cpu) * 1e6:.1f} | {ratio} | "
            + " | ".join(f"{points[key]:.2f} ms" for key in points)
            + f" | {m.resident / (1 << 20):.0f} | {m.errors} |"
        )
    return [*lines, ""]


def save(results: dict[str, dict[str, Measured]], path: Path) -> None:
    """Everything, as JSON."""
    path.write_text(
        json.dumps({name: {peer: vars(m) for peer, m in measured.items()} for name, measured in results.items()})
    )


def picture(results: dict[str, dict[str, Measured]], path: Path) -> bool:
    """Ratios to nginx as bars; False without matplotlib."""
    try:
        import matplotlib as mpl

        mpl.use("svg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    names = [name for name in results if "nginx" in results[name]]
    peers = sorted(
        {peer for name in names for peer in results[name]} - {"nginx"}, key=("lb", "haproxy", "envoy", "caddy").index
    )
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.55 * len(names)))
    height = 0.8 / max(1, len(peers))
    for index, peer in enumerate(peers):
        values = [
            ratios(results[n][peer].rates, results[n]["nginx"].rates)[0] if peer in results[n] else 0 for n in names
        ]
        axes.barh([i + index * height for i in range(len(names))], values, height, label=peer)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("requests per second, as a ratio to nginx in the same rounds")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    return True
