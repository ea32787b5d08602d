"""The resources of a process of lb, as the kernel counts them in /proc: for the metrics, read at a scrape."""

from __future__ import annotations

import os
from pathlib import Path

from lb.control.metrics import ProcessFigures
from lb.process.descriptors import open_now

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def figures(pid: int) -> ProcessFigures | None:
    """The figures of one process; None if it has ended."""
    try:
        # Behind the name, which may hold anything: field 3 is the first. See proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        started = _booted_at() + int(fields[19]) / _TICKS
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        return ProcessFigures(started, cpu, int(fields[21]) * _PAGE, open_now(pid))
    except (OSError, IndexError):
        return None


def _booted_at() -> float:
    """Unix time of the machine's start."""
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
