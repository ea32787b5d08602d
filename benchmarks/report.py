"""Results as tables for people, JSON for machines, and a picture (with matplotlib, an optional extra)."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.pace import SLOW
from benchmarks.processes import MissingError, binary
from benchmarks.rounds import Measured, Ratio, Round, ratio
from benchmarks.scenarios import SCENARIOS, Scenario
from lb import build_form

Results = dict[str, dict[str, Measured]]  # scenario → server → rounds


def amount(unit: str) -> Callable[[Round], float]:
    """What a round's CPU time is divided by."""
    if unit == "MiB":
        return lambda one: one.bytes / (1 << 20)
    if unit == "second":
        return lambda one: one.seconds
    return lambda one: float(one.requests)


def cost(unit: str) -> Callable[[Round], float]:
    """CPU seconds per unit."""
    units = amount(unit)
    return lambda one: one.cpu / units(one) if units(one) else 0.0


def all_cost(unit: str) -> Callable[[Round], float]:
    """CPU seconds per unit, with those of the supervisor."""
    units = amount(unit)
    return lambda one: (one.cpu + one.beside) / units(one) if units(one) else 0.0


def base_of(label: str, labels: list[str]) -> str:
    """What a server is compared with: the first variant of the same proxy; nothing, if it is that one."""
    peer = label.partition(",")[0]
    first = next(other for other in labels if other.partition(",")[0] == peer)
    return "" if first == label else first


# --- tables ----------------------------------------------------------------------------------------------------------


def table(scenario: Scenario, measured: dict[str, Measured]) -> list[str]:
    """Lines of a Markdown table."""
    labels = [label for label, m in measured.items() if m.rounds]
    between_peers = all("," not in label for label in labels)
    unit = scenario.unit
    compare = (
        ["lb does, per second", "lb does, per CPU second", "lb's p99"]
        if between_peers
        else ["CPU against the first", "p99 against the first"]
    )
    head = [
        "",
        f"{'MiB' if unit == 'MiB' else unit + 's'}/s",
        f"CPU {'ms' if unit == 'second' else 'µs'}/{unit}",
        "busy",
        "supervisor",
        *compare,
        "p50",
        "p90",
        "p99",
        "p99.9",
        "RSS",
        "errors",
    ]
    lines = [f"### {scenario.name}: {scenario.text}", "", "| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for label in labels:
        m = measured[label]
        units = amount(unit)
        scale = 1e3 if unit == "second" else 1e6
        cells = [
            label,
            f"{m.middle(lambda one, units=units: units(one) / one.seconds):,.0f}",  # type: ignore[misc]
            f"{m.middle(cost(unit)) * scale:,.1f}",
            f"{m.middle(lambda one: one.cpu / one.seconds):.0%}",
            f"{m.middle(lambda one: one.beside / one.seconds):.1%}",
        ]
        if between_peers:
            cells += _against_peer(measured, label, unit)
        else:
            base = base_of(label, labels)
            cells += (
                [_said(ratio(m, measured[base], all_cost(unit))), _said(_p99(m, measured[base]))] if base else ["1"] * 2
            )
        for point in ("p50", "p90", "p99", "p99.9"):
            value = m.middle(lambda one, point=point: one.latency.get(point, 0.0))  # type: ignore[misc]
            cells.append(f"{value * 1e3:.2f} ms" if value else "–")
        cells += [f"{m.rounds[-1].resident / (1 << 20):.0f} MiB", str(m.errors)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_notes(measured, labels), ""]
    return lines


def _against_peer(measured: dict[str, Measured], label: str, unit: str) -> list[str]:
    """lb's throughput, efficiency and p99 as ratios to a peer's."""
    ours = measured.get("lb")
    if label == "lb":
        return ["1"] * 3
    if ours is None:
        return ["–"] * 3
    theirs, units = measured[label], amount(unit)
    return [
        _said(ratio(ours, theirs, lambda one: units(one) / one.seconds)),
        _said(ratio(ours, theirs, lambda one: units(one) / one.cpu if one.cpu else 0.0)),
        _said(_p99(ours, theirs)),
    ]


def _p99(ours: Measured, theirs: Measured) -> Ratio | None:
    return ratio(ours, theirs, lambda one: one.latency.get("p99", 0.0))


def _said(found: Ratio | None) -> str:
    return f"**{found.middle:.2f}** [{found.low:.2f}–{found.high:.2f}]" if found else "–"


def _notes(measured: dict[str, Measured], labels: list[str]) -> list[str]:
    """How quiet it was, and whether the client kept its pace."""
    every = [one for label in labels for one in measured[label].rounds]
    share = sum(one.foreign for one in every) / (sum(one.seconds for one in every) or 1.0)
    slow = sum(one.pace > SLOW for one in every) / (len(every) or 1)
    notes = (
        [
            f"{len(measured[labels[0]].rounds)} rounds; others took {share:.0%} of the proxy's processor; "
            f"{slow:.0%} of all rounds found the machine slow and no better at a later try."
        ]
        if labels
        else []
    )
    late = [f"{label} {measured[label].middle(lambda one: one.late) * 1e3:.2f} ms" for label in labels]
    if any(one.late for one in every):
        notes.append(f"The client itself was late by (p99): {', '.join(late)}.")
    return notes


# --- machine ---------------------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """What it was measured on, and with what."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {
        "nginx": ("nginx", "-v", r"nginx/(\S+)"),
        "haproxy": ("haproxy", "-v", r"version (\S+)"),
        "envoy": ("envoy", "--version", r"/(\d+\.\d+\.\d+)/"),
        "caddy": ("caddy", "version", r"v?(\d\S+)"),
    }
    found = {}
    for name, (program, option, pattern) in versions.items():
        try:
            out = subprocess.run([binary(program), option], capture_output=True, text=True, check=False)
        except MissingError:
            continue
        match = re.search(pattern, out.stdout + out.stderr)
        found[name] = match[1] if match else "unknown"
    return {
        "processor": f"{os.cpu_count()} × {model[1] if model else platform.processor()}",
        "kernel": platform.release(),
        "congestion control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "python": f"{platform.python_version()}{'' if build_form.is_optimised() else ' (built without optimisation)'}",
        "lb": build_form.form(),
        "load average": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        **found,
    }


# --- JSON ------------------------------------------------------------------------------------------------------------


def save(path: Path, about: dict[str, Any], results: Results, memory: dict[str, dict[str, int]]) -> None:
    """Everything, as JSON: each round of each server."""
    rounds = {
        name: {label: [asdict(one) for one in m.rounds] for label, m in measured.items()}
        for name, measured in results.items()
    }
    path.write_text(json.dumps({"about": about, "scenarios": rounds, "memory": memory}))


def load(path: Path) -> tuple[Results, dict[str, dict[str, int]]]:
    """What `save` has written."""
    told = json.loads(path.read_text())
    results = {
        name: {label: Measured([Round(**one) for one in rounds]) for label, rounds in measured.items()}
        for name, measured in told["scenarios"].items()
    }
    return results, told["memory"]


# --- picture ---------------------------------------------------------------------------------------------------------

_COLOURS = {
    "lb": "#1f6feb",
    "interpreted": "#79b8ff",
    "haproxy": "#8b949e",
    "envoy": "#bf8700",
    "caddy": "#2da44e",
    "relay": "#d0d7de",
}


def picture(results: Results, path: Path) -> bool:
    """Throughput and efficiency of each proxy as ratios to nginx's, as bars; False without matplotlib."""
    try:
        import matplotlib as mpl

        mpl.use("svg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    names = [name for name, measured in results.items() if "nginx" in measured and "lb" in measured]
    if not names:
        return False
    figure, panels = plt.subplots(1, 2, figsize=(12, 1.4 + 0.5 * len(names)), sharey=True)
    titles = ("per second", "per CPU second")
    for panel, title in zip(panels, titles, strict=True):
        present = [peer for peer in _COLOURS if any(peer in results[name] for name in names)]
        height = 0.8 / len(present)
        for index, peer in enumerate(present):
            middles, lows, highs = [], [], []
            for name in names:
                units = amount(SCENARIOS[name].unit) if name in SCENARIOS else amount("request")
                value = (
                    (lambda one, units=units: units(one) / one.seconds)
                    if title == titles[0]
                    else (lambda one, units=units: units(one) / one.cpu if one.cpu else 0.0)
                )
                found = ratio(results[name][peer], results[name]["nginx"], value) if peer in results[name] else None
                middles.append(found.middle if found else 0.0)
                lows.append(found.middle - found.low if found else 0.0)
                highs.append(found.high - found.middle if found else 0.0)
            rows = [row + index * height for row in range(len(names))]
            panel.barh(rows, middles, height, xerr=(lows, highs), label=peer, color=_COLOURS[peer], ecolor="#57606a")
        panel.axvline(1.0, color="black", linewidth=1)
        panel.set_title(f"{title}; nginx = 1")
        panel.set_xlim(0, 3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks([row + 0.4 - height / 2 for row in range(len(names))], names)
    panels[0].invert_yaxis()
    panels[1].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return True
